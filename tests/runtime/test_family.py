"""Minimising families: every member ends where it would alone, with a status of its own."""

import pickle

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from wiberg import Status

n, k = sp.symbols("n k", integer=True, positive=True)
m, i, j = sp.Idx("m", n), sp.Idx("i", 4), sp.Idx("j", k)
t = sp.Symbol("t", real=True)
y, b = sp.IndexedBase("y", shape=(k,)), sp.IndexedBase("b", shape=(k,))
a, x = sp.IndexedBase("a", shape=(n,)), sp.IndexedBase("x", shape=(n, k))
BACKENDS = ("reference", "numba")
MEMBERS, SIZE = 3, 5


def robust(**changes):
    """A family over weights and an angle: robust, coupled, not quadratic."""
    residual = x[m, j] - y[j] * sp.cos(i + t) - a[m] * t
    formula = sp.Sum(b[j] * (sp.sqrt(1 + residual**2) - 1), j) + sp.Sum(y[j] ** 2, j) / 10 + t**2
    roles = {"variables": [t, y], "weights": [a, b], "data": [x], "over": [m, i], "name": "robust"}
    return wb.Energy(formula, **{**roles, **changes})


def given(seed=0, batch=2):
    rng = np.random.default_rng(seed)
    w = {"a": rng.normal(size=MEMBERS), "b": 1 + rng.random(SIZE)}
    return w, {"x": rng.normal(size=(batch, MEMBERS, SIZE))}


START = {"t": 0.1, "y": np.zeros(SIZE)}


@pytest.fixture(scope="module", params=BACKENDS)
def kernel(request):
    return wb.compile(robust(), backend=request.param)


def test_every_array_of_a_solution_carries_the_axes_of_the_family(kernel):
    w, data = given()
    solution = wb.minimise(kernel, w, data, start=START)
    lead = (2, MEMBERS, 4)
    for name in ("energy", "gradient_norm", "curvature", "iterations", "evaluations", "status", "converged"):
        assert getattr(solution, name).shape == lead, name
    assert solution.variables["t"].shape == lead
    assert solution.variables["y"].shape == (*lead, SIZE)
    assert solution.converged.all()
    assert solution.failed.shape == (0, 3)
    np.testing.assert_array_equal(solution.energy, kernel.value(solution.variables, w, data))


def test_a_solution_of_one_instance_carries_the_axes_of_the_family_alone(kernel):
    w, data = given()
    both = wb.minimise(kernel, w, data, start=START)
    one = wb.minimise(kernel, w, {"x": data["x"][1]}, start=START)
    assert one.energy.shape == (MEMBERS, 4)
    assert one.status[0, 0] is Status.CONVERGED
    np.testing.assert_array_equal(one.variables["y"], both.variables["y"][1])
    assert repr(one).startswith("Solution(robust: 3 x 4 members: 12 CONVERGED")
    assert repr(both).startswith("Solution(robust: 2 x 3 x 4 members: 24 CONVERGED")


def test_minima_are_those_of_the_members_alone():
    w, data = given()
    together = wb.minimise(wb.compile(robust(), backend="reference"), w, data, start=START)
    for member in np.ndindex(MEMBERS, 4):
        numbers = {m: sp.Integer(member[0]), i: sp.Integer(member[1])}
        energy = wb.Energy(robust().expression.subs(numbers), variables=[t, y], weights=[a, b], data=[x])
        alone = wb.minimise(wb.compile(energy, backend="reference"), w, data, start=START)
        np.testing.assert_allclose(together.energy[:, *member], alone.energy, rtol=1e-12)
        np.testing.assert_allclose(together.variables["y"][:, *member], alone.variables["y"], atol=1e-7)


def test_a_family_takes_the_steps_of_a_batch_of_gathered_data_to_the_bit():
    """With products of two factors and sums in one order only, so that there is one way to compute them."""
    own, r = sp.IndexedBase("x", shape=(k,)), sp.Idx("r", k)
    coupling = sp.Sum(y[r], r) ** 2
    formula = sp.Sum(sp.exp(y[j] - x[m, j]) - b[j] * y[j], j) + coupling
    family = wb.compile(wb.Energy(formula, variables=[y], weights=[b], data=[x], over=[m]))
    plain = sp.Sum(sp.exp(y[j] - own[j]) - b[j] * y[j], j) + coupling
    batch = wb.compile(wb.Energy(plain, variables=[y], weights=[b], data=[own]))
    rng = np.random.default_rng(2)
    w, data = {"b": rng.random(SIZE)}, {"x": rng.normal(size=(40, SIZE))}
    start = {"y": rng.normal(size=(40, SIZE))}
    ours, theirs = (wb.minimise(kernel, w, data, start=start) for kernel in (family, batch))
    for name in ("energy", "gradient_norm", "curvature", "iterations", "evaluations", "status"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    np.testing.assert_array_equal(ours.variables["y"], theirs.variables["y"])
    gradients = [wb.implicit_gradient(kernel, s, start) for kernel, s in ((family, ours), (batch, theirs))]
    np.testing.assert_array_equal(gradients[0]["b"], gradients[1]["b"])


STARTS = [(), (MEMBERS, 4), (1, 4), (2, MEMBERS, 4), (2, 1, 1)]


@pytest.mark.parametrize("lead", STARTS)
def test_starts_may_have_the_axes_of_the_family(kernel, lead):
    w, data = given()
    rng = np.random.default_rng(1)
    start = {"t": rng.normal(size=lead), "y": rng.normal(size=(*lead, SIZE))}
    solution = wb.minimise(kernel, w, data, start=start, max_iterations=0)
    np.testing.assert_array_equal(solution.variables["t"], np.broadcast_to(start["t"], (2, MEMBERS, 4)))
    np.testing.assert_array_equal(solution.variables["y"], np.broadcast_to(start["y"], (2, MEMBERS, 4, SIZE)))


@pytest.mark.parametrize("lead", STARTS)
def test_candidates_may_have_the_axes_of_the_family(kernel, lead):
    w, data = given()
    rng = np.random.default_rng(1)
    points = {"t": rng.normal(size=(*lead, 6)), "y": rng.normal(size=(*lead, 6, SIZE))}
    solution = wb.minimise(kernel, w, data, candidates=points, max_iterations=0)
    full = {name: np.broadcast_to(p, (2, MEMBERS, 4, *p.shape[len(lead) :])) for name, p in points.items()}
    energies = np.stack([kernel.value({"t": full["t"][..., q], "y": full["y"][..., q, :]}, w, data) for q in range(6)])
    np.testing.assert_allclose(solution.energy, energies.min(axis=0), rtol=1e-7)


def test_a_start_with_a_batch_axis_makes_a_batch(kernel):
    w, data = given()
    start = {"t": np.zeros((5, 1, 1)), "y": np.zeros(SIZE)}
    assert wb.minimise(kernel, w, {"x": data["x"][0]}, start=start).energy.shape == (5, MEMBERS, 4)
    candidates = {"t": np.zeros((5, 1, 1, 2)), "y": np.zeros((2, SIZE))}
    assert wb.minimise(kernel, w, {"x": data["x"][0]}, candidates=candidates).energy.shape == (5, MEMBERS, 4)


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ({"t": np.zeros((3, 6)), "y": np.zeros((6, SIZE))}, r"t has shape \(3,\); expected \(\)"),
        ({"t": np.zeros(6), "y": np.zeros((5, SIZE))}, "as many candidates as the others: t has 6, y has 5"),
        ({"t": np.zeros(()), "y": np.zeros((5, SIZE))}, r"candidates t has shape \(\); expected the axis that counts"),
        ({"t": np.zeros((3, 1, 1, 6)), "y": np.zeros((6, SIZE))}, "batch sizes disagree: candidates have 3"),
    ],
)
def test_candidates_that_do_not_fit_are_refused(kernel, candidates, message):
    w, data = given()
    with pytest.raises(wb.InputError, match=message):
        wb.minimise(kernel, w, data, candidates=candidates)


@pytest.mark.parametrize("backend", BACKENDS)
def test_declared_candidates_may_use_the_indices_of_the_family(backend):
    energy = wb.Energy(
        -sp.Sum(sp.exp(-((x[m, j] - t) ** 2)), j), variables=[t], data=[x], over=[m], candidates={t: x[m, j]}
    )
    kernel = wb.compile(energy, backend=backend)
    data = {"x": np.array([[[0.0, 5.0, 5.1, 9.0], [1.0, 1.1, 1.2, 8.0]], [[7.0, 7.0, 7.0, 0.0], [2.0, 4.0, 4.1, 4.2]]])}
    found = wb.minimise(kernel, None, data).variables["t"]
    np.testing.assert_allclose(found, [[5.05, 1.1], [7.0, 4.1]], atol=0.01)


def test_each_member_has_a_status_of_its_own(kernel):
    w, data = given()
    good = wb.minimise(kernel, w, data, start=START)
    start = {"t": np.full((2, MEMBERS, 4), 0.1), "y": np.zeros(SIZE)}
    start["t"][1, 2, 3] = np.inf
    start["t"][0, 1, 0] = np.nan
    solution = wb.minimise(kernel, w, data, start=start)
    assert solution.failed.tolist() == [[0, 1, 0], [1, 2, 3]]
    assert solution.status[1, 2, 3] is Status.NOT_FINITE
    others = np.ones((2, MEMBERS, 4), bool)
    others[0, 1, 0] = others[1, 2, 3] = False
    np.testing.assert_array_equal(solution.variables["y"][others], good.variables["y"][others])
    with pytest.raises(wb.NumericalError, match=r"2 of 24 members \(\(0, 1, 0\), \(1, 2, 3\)\) ended as NOT_FINITE"):
        solution.raise_if_failed()


def test_an_instance_with_nan_marks_its_members_only(kernel):
    w, data = given()
    good = wb.minimise(kernel, w, data, start=START)
    data["x"][1, 0, 0] = np.nan
    with pytest.raises(wb.InputError, match=r"data x has NaN at \[1, 0, 0\]"):
        wb.minimise(kernel, w, data, start=START)
    solution = wb.minimise(kernel, w, data, start=START, check=False)
    assert (solution.status[1] == Status.NOT_FINITE).all()
    np.testing.assert_array_equal(solution.energy[0], good.energy[0])


def test_solutions_of_families_can_be_pickled(kernel):
    w, data = given()
    solution = wb.minimise(kernel, w, data, start=START)
    again = pickle.loads(pickle.dumps(solution))
    np.testing.assert_array_equal(again.energy, solution.energy)
    assert again.inputs.members == 12
    warm = wb.minimise(kernel, w, data, start=again)
    assert (warm.iterations == 0).all()


def test_threads_change_no_bit(kernel):
    w, data = given(batch=20)
    try:
        wb.set_threads(1)
        alone = wb.minimise(kernel, w, data, start=START)
        wb.set_threads(2)
        shared = wb.minimise(kernel, w, data, start=START)
    finally:
        wb.set_threads(None)
    np.testing.assert_array_equal(alone.variables["y"], shared.variables["y"])


def test_families_of_no_members_have_no_minima(kernel):
    w, _ = given()
    none = wb.minimise(kernel, {**w, "a": np.zeros(0)}, {"x": np.zeros((2, 0, SIZE))}, start=START)
    assert none.energy.shape == (2, 0, 4)
    assert none.failed.shape == (0, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_families_over_many_unknowns_are_minimised_sparsely(backend):
    """A signal smoothed with three strengths at once."""
    g, r = sp.IndexedBase("g", shape=(3,)), sp.Idx("r", 3)
    inner = sp.Idx("j", (0, k - 2))
    formula = sp.Sum((y[j] - b[j]) ** 2, j) + g[r] * sp.Sum(sp.sqrt(1 + (y[inner + 1] - y[inner]) ** 2), inner)
    family = wb.compile(wb.Energy(formula, variables=[y], weights=[g], data=[b], over=[r]), backend=backend)
    assert family.structure == "banded"
    size = 260
    noisy = np.random.default_rng(0).normal(size=(2, size)).cumsum(axis=1)
    strengths = np.array([0.1, 1.0, 10.0])
    solution = wb.minimise(family, {"g": strengths}, {"b": noisy}, start={"y": np.zeros(size)})
    assert solution.converged.all()
    assert solution.variables["y"].shape == (2, 3, size)
    one = sp.Symbol("one", positive=True)
    single = wb.compile(wb.Energy(formula.subs(g[r], one), variables=[y], weights=[one], data=[b]), backend=backend)
    for member, strength in enumerate(strengths):
        alone = wb.minimise(single, {"one": strength}, {"b": noisy}, start={"y": np.zeros(size)})
        np.testing.assert_allclose(solution.variables["y"][:, member], alone.variables["y"], atol=1e-7)


@pytest.mark.parametrize("method", ["l-bfgs", "newton-cg"])
def test_every_method_for_energies_of_any_form_finds_the_minima_of_families(kernel, method):
    w, data = given()
    expected = wb.minimise(kernel, w, data, start=START)
    found = wb.minimise(kernel, w, data, start=START, method=method)
    assert found.converged.all()
    np.testing.assert_allclose(found.energy, expected.energy, rtol=1e-10)
    np.testing.assert_allclose(found.variables["y"], expected.variables["y"], atol=1e-6)


def test_quadratic_families_take_one_step():
    c = sp.IndexedBase("c", shape=(n, k))
    r = sp.Idx("r", k)
    formula = sp.Sum(sp.exp(c[m, j]) * (x[m, j] - y[j]) ** 2, j) + sp.Sum(y[r], r) ** 2
    quadratic = wb.compile(wb.Energy(formula, variables=[y], data=[x, c], over=[m]), backend="reference")
    assert quadratic.quadratic
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(2, MEMBERS, SIZE)), "c": rng.normal(size=(2, MEMBERS, SIZE))}
    solution = wb.minimise(quadratic, None, data, start={"y": np.zeros(SIZE)})
    assert (solution.iterations == 1).all()
    weights = np.exp(data["c"])
    systems = np.einsum("bmj,jr->bmjr", weights, np.eye(SIZE)) + 1
    expected = np.linalg.solve(systems, (weights * data["x"])[..., None])[..., 0]
    np.testing.assert_allclose(solution.variables["y"], expected, rtol=1e-9)
