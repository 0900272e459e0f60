"""How minima on bounds move with the weights: held variables do not, the others as if they were alone."""

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from wiberg.energies.errors import NumericalError
from wiberg.learn import implicit_gradient, implicit_jacobian
from wiberg.runtime import Status, minimise, sparse

n, k = sp.symbols("n k", integer=True, positive=True)
i, j, q = sp.Idx("i", n), sp.Idx("j", n), sp.Idx("q", k)
y, w = sp.IndexedBase("y", shape=(n,)), sp.IndexedBase("w", shape=(k,))
t, u, a, mu = sp.symbols("t u a mu", real=True)


@pytest.fixture(scope="module")
def waves():
    """y'Hy/2 + sum_qi C_qi w_q sin(y_i + w_q) + sum y^4/10."""
    H, C = sp.IndexedBase("H", shape=(n, n)), sp.IndexedBase("C", shape=(k, n))
    energy = sp.Sum(H[i, j] * y[i] * y[j], i, j) / 2 + sp.Sum(y[i] ** 4, i) / 10
    energy += sp.Sum(C[q, i] * w[q] * sp.sin(y[i] + w[q]), q, i)
    return wb.compile(wb.Energy(energy, variables=[y], weights=[w], data=[H, C], name="waves"))


class Boxed:
    """A random batch of `waves` with boxes, and its minima."""

    def __init__(self, kernel, seed, size, count=6, curved=0.0):
        rng = np.random.default_rng(seed)
        half = rng.standard_normal((count, size, size))
        self.kernel, self.weights = kernel, rng.uniform(0.3, 2, 3)
        self.data = {
            "H": half + half.transpose(0, 2, 1) + curved * np.eye(size),
            "C": rng.standard_normal((count, 3, size)),
        }
        self.low, self.high = -rng.uniform(0, 1, (count, size)), rng.uniform(0, 1, (count, size))
        self.low[rng.random(self.low.shape) < 0.3] = -np.inf
        self.start = rng.standard_normal((count, size))
        self.solution = self.minimise()

    def minimise(self, weights=None, start=None, **options):
        return minimise(
            self.kernel,
            {"w": self.weights if weights is None else weights},
            self.data,
            start={"y": self.start if start is None else start},
            bounds={"y": (self.low, self.high)},
            **{"gtol": 1e-12, "max_iterations": 300, **options},
        )

    @property
    def gradient(self):
        return self.kernel.gradient(self.solution.variables, self.solution.w, self.solution.x)

    def is_degenerate(self):
        """Whether a multiplier, a distance to a bound or a free curvature is so small that a small change matters."""
        active, y = self.solution.active["y"], self.solution.y
        inside = np.minimum(y - self.low, self.high - y)[~active]
        small = np.abs(self.gradient[active]).min(initial=1.0) < 1e-3 or inside.min(initial=1.0) < 1e-3
        return small or self.solution.curvature.min() < 0.05


sizes, seeds = st.integers(1, 9), st.integers(0, 10**6)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, size=sizes)
def test_equals_finite_differences_of_the_bounded_minimum(waves, seed, size):
    boxed = Boxed(waves, seed, size)
    assume(set(boxed.solution.status) <= {Status.CONVERGED, Status.STALLED} and not boxed.is_degenerate())
    jacobian, step = implicit_jacobian(waves, boxed.solution, damping=0), 1e-5
    for p in range(3):
        change = step * np.eye(3)[p]
        low, high = (boxed.minimise(boxed.weights + c, boxed.solution.y) for c in (-change, change))
        np.testing.assert_array_equal(low.held, high.held)
        np.testing.assert_allclose(jacobian[:, :, p], (high.y - low.y) / (2 * step), rtol=1e-5, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, size=sizes, damping=st.sampled_from([1e-3, 0.1, 3.0]), steps=st.sampled_from([0, 2, 300]))
def test_free_block_is_damped_and_active_rows_are_zero(waves, seed, size, damping, steps):
    """At minima, and where a minimisation was stopped: the free block is shifted by its own lowest eigenvalue there."""
    boxed = Boxed(waves, seed, size)
    solution = boxed.minimise(max_iterations=steps)
    jacobian = implicit_jacobian(waves, solution, damping)
    hessian = waves.hessian(solution.variables, solution.w, solution.x)
    cross = waves.cross(solution.variables, solution.w, solution.x)
    for b, active in enumerate(solution.active["y"]):
        free = np.flatnonzero(~active)
        assert (jacobian[b, active] == 0).all()
        block = hessian[b][np.ix_(free, free)]
        shift = damping + max(0.0, -np.linalg.eigvalsh(block).min(initial=np.inf))
        expected = -np.linalg.solve(block + shift * np.eye(len(free)), cross[b, free])
        scale = np.abs(cross[b]).max() / damping
        np.testing.assert_allclose(jacobian[b, free], expected, rtol=1e-7, atol=1e-9 * scale)
        for order in (2, "fro"):
            bound = np.linalg.norm(cross[b], order) / damping
            assert np.linalg.norm(jacobian[b], order) <= bound * (1 + 1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, size=sizes, damping=st.sampled_from([0.0, 0.1]))
def test_gradient_is_the_jacobian_applied(waves, seed, size, damping):
    boxed = Boxed(waves, seed, size)
    assume(boxed.solution.converged.all() and not boxed.is_degenerate())
    slopes = np.random.default_rng(seed).standard_normal(boxed.start.shape)
    expected = np.einsum("bi,bip->p", slopes, implicit_jacobian(waves, boxed.solution, damping))
    found = implicit_gradient(waves, boxed.solution, {"y": slopes}, damping)["w"]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)
    own = np.tile(boxed.weights, (len(slopes), 1))
    each = implicit_gradient(waves, boxed.minimise(own), {"y": slopes}, damping)["w"]
    np.testing.assert_allclose(each.sum(axis=0), expected, rtol=1e-9, atol=1e-11)


def test_everything_fixed_does_not_move(waves):
    boxed = Boxed(waves, 0, 4)
    boxed.low = boxed.high = np.clip(boxed.start, -1, 1)
    solution = boxed.minimise()
    assert solution.active["y"].all() and solution.converged.all()
    for damping in (0.0, 0.1):
        assert (implicit_jacobian(waves, solution, damping) == 0).all()
        assert (implicit_gradient(waves, solution, {"y": np.ones((6, 4))}, damping)["w"] == 0).all()


def test_bounds_that_hold_nothing_change_no_bit(waves):
    boxed = Boxed(waves, 1, 5, curved=15.0)
    boxed.low[:], boxed.high[:] = -np.inf, np.inf
    solution = boxed.minimise()
    plain = minimise(waves, {"w": boxed.weights}, boxed.data, start={"y": solution.y}, gtol=1e-6, max_iterations=0)
    assert plain.y.tobytes() == solution.y.tobytes()
    np.testing.assert_array_equal(implicit_jacobian(waves, solution), implicit_jacobian(waves, plain))


def test_singular_free_block_is_refused_without_damping():
    kernel = wb.compile(wb.Energy((t - a) ** 2 + (u - 3) ** 2 / 2 + a * u / 10, variables=[t, u], weights=[a]))
    flat = wb.compile(wb.Energy((t - a) ** 4 + (u - 3 - a) ** 2, variables=[t, u], weights=[a], name="flat"))
    start = {"start": {"t": 0.0, "u": 0.0}}
    solution = minimise(kernel, {"a": 0.5}, bounds={"t": (1, 2)}, **start)
    np.testing.assert_allclose(implicit_jacobian(kernel, solution, 0.0), [[0], [-0.1]])
    held = minimise(flat, {"a": 0.0}, bounds={"t": (0, 1), "u": (None, 1)}, **start)
    with pytest.raises(NumericalError, match=r"the Hessian is singular \(smallest eigenvalue 0\)"):
        implicit_jacobian(flat, held, 0.0)
    fixed = minimise(flat, {"a": 0.0}, bounds={"t": (0, 0)}, **start)
    np.testing.assert_allclose(implicit_jacobian(flat, fixed, 0.0), [[0], [1]])


# ---------------------------------------------------------------------------------------------- many unknowns

step = sp.Idx("step", (0, n - 2))
x, c = sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("c", shape=(n,))
edges, edge = sp.IndexedBase("e", shape=(k, 2), integer=True), sp.Idx("edge", k)
stiff, pull = sp.symbols("stiff pull", positive=True)


@pytest.fixture(scope="module", params=["chain", "graph"])
def many(request):
    """sum c_i sin(2 y_i) + y_i^4/10 - pull x_i y_i, and springs along a chain or the edges of a graph."""
    energy = sp.Sum(c[i] * sp.sin(2 * y[i]) + y[i] ** 4 / 10 - pull * x[i] * y[i], i)
    if request.param == "chain":
        energy += stiff * sp.Sum((y[step + 1] - y[step]) ** 2, step)
    else:
        energy += stiff * sp.Sum((y[edges[edge, 0]] - y[edges[edge, 1]]) ** 2, edge)
    data = [x, c] + [edges] * (request.param == "graph")
    return wb.compile(wb.Energy(energy, variables=[y], weights=[stiff, pull], data=data, name=request.param))


def many_minima(kernel, size, count=4, seed=0, weights=None, start=None, **options):
    rng = np.random.default_rng(seed)
    data = {"x": rng.standard_normal((count, size)), "c": rng.standard_normal((count, size))}
    if kernel.name == "graph":
        data["e"] = rng.integers(0, size, (2 * size, 2))
    bounds = {"y": (-rng.uniform(0, 1, (count, size)), rng.uniform(0, 1, (count, size)))}
    start = {"y": rng.standard_normal((count, size))} if start is None else start
    weights = {"stiff": 0.5, "pull": 1.0} if weights is None else weights
    return minimise(kernel, weights, data, start=start, bounds=bounds, gtol=1e-11, **options)


@pytest.mark.parametrize("damping", [0.0, 0.1])
@pytest.mark.parametrize("steps", [0, 300])
def test_sparse_derivatives_are_those_of_dense_hessians(many, damping, steps, monkeypatch):
    """At minima, and at starts, of which some are saddles: there the shifts differ, and the bound holds."""
    solution = many_minima(many, 25, max_iterations=steps)
    slopes = {"y": np.random.default_rng(1).standard_normal((4, 25))}

    def derivatives():
        return implicit_jacobian(many, solution, damping), implicit_gradient(many, solution, slopes, damping, "use")

    dense = derivatives()
    monkeypatch.setattr(sparse, "MANY", 0)
    jacobian, gradient = derivatives()
    assert (jacobian[solution.active["y"]] == 0).all()
    if steps or not damping:
        np.testing.assert_allclose(jacobian, dense[0], rtol=1e-7, atol=1e-9)
        for name in gradient:
            assert gradient[name] == pytest.approx(dense[1][name], rel=1e-7)
    if damping:
        cross = many.cross(solution.variables, solution.w, solution.x)
        norms, bounds = (np.linalg.norm(a, axis=1) for a in (jacobian, np.asarray(cross)))
        assert (norms <= bounds / damping * (1 + 1e-9)).all()


def test_many_unknowns_move_as_differences_say(many):
    solution = many_minima(many, 300)
    assert set(solution.status) <= {Status.CONVERGED, Status.STALLED} and solution.active["y"].any()
    g, y = many.gradient(solution.variables, solution.w, solution.x), solution.y
    slopes, h = np.random.default_rng(2).standard_normal(y.shape), 1e-6
    moved = {}
    for name in ("stiff", "pull"):
        low, high = (
            many_minima(many, 300, weights={**solution.w, name: solution.w[name] + d}, start={"y": y}) for d in (-h, h)
        )
        same = ((low.held == high.held) & (low.held == solution.held)).all(axis=1)
        assert same.sum() >= 2 and np.abs(g[solution.active["y"]]).min() > 0
        moved[name] = same, ((high.y - low.y) / (2 * h) * slopes).sum(axis=1)
    for b in range(4):
        one = np.zeros_like(slopes)
        one[b] = slopes[b]
        found = implicit_gradient(many, solution, {"y": one}, damping=0.0)
        for name, (same, expected) in moved.items():
            assert not same[b] or found[name] == pytest.approx(expected[b], rel=1e-4, abs=1e-6)


# ---------------------------------------------------------------------------------------------- learning


@pytest.fixture(scope="module")
def clipped():
    """min over t of (t - a x)^2 with 0 <= t <= 1: the target is clip(2 x, 0, 1)."""
    x = sp.Symbol("x", real=True)
    kernel = wb.compile(wb.Energy((t - a * x) ** 2, variables=[t], weights=[a], data=[x]))
    return kernel, wb.Loss((t - mu) ** 2, variables=[t], targets=[mu])


def batch():
    x = np.linspace(-1, 1, 21)
    return wb.Batch(data={"x": x}, targets={"mu": np.clip(2 * x, 0, 1)}, start={"t": 0.5})


def test_learner_learns_within_bounds(clipped, tmp_path):
    kernel, loss = clipped
    learner = wb.Learner(
        kernel, loss, weights={"a": 0.7}, optimiser=wb.SGD(2.0, momentum=0.5), damping=0.0,
        bounds={"t": (0.0, np.array([1.0] * 21))},
    )  # fmt: skip
    learner.fit([batch()], steps=20)
    learner.save(tmp_path / "learner")
    again = wb.Learner.load(tmp_path / "learner", kernel, loss)
    for one in (learner, again):
        one.fit([batch()], steps=180)
    assert learner.weights == again.weights
    assert learner.weights["a"] == pytest.approx(2.0, abs=1e-6)
    predicted = again.predict({"x": np.linspace(-1, 1, 21)}, start={"t": 0.5})["t"]
    np.testing.assert_allclose(predicted, np.clip(np.linspace(-2, 2, 21), 0, 1), atol=1e-6)


def test_learner_keeps_open_bounds_in_a_checkpoint(clipped, tmp_path):
    kernel, loss = clipped
    learner = wb.Learner(kernel, loss, weights={"a": 2.0}, bounds={"t": (-np.inf, np.float64(1.0))})
    learner.save(tmp_path / "learner")
    again = wb.Learner.load(tmp_path / "learner", kernel, loss)
    np.testing.assert_allclose(again.predict({"x": [-3.0, 0.2, 3.0]}, start={"t": 0.5})["t"], [-6, 0.4, 1])
