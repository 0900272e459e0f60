"""Iteratively reweighted least squares: iterates of loops in NumPy, minima of the trust region, statuses."""

import warnings

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.runtime import Status

n, m = sp.symbols("n m", integer=True, positive=True)
i, k = sp.Idx("i", n), sp.Idx("k", m)
y, v = sp.IndexedBase("y", shape=(m,)), sp.IndexedBase("v", shape=(n,))
b, A = sp.IndexedBase("b", shape=(n,)), sp.IndexedBase("A", shape=(n, m))
delta, ridge = sp.symbols("delta ridge", positive=True)
a, c, x = sp.symbols("a c x", real=True)


def huber(r2, scale):
    """Huber's function itself, as a Piecewise of |r|."""
    return sp.Piecewise((r2 / 2, sp.sqrt(r2) <= scale), (scale * sp.sqrt(r2) - scale**2 / 2, True))


PENALTIES = {
    # rho'(r2) times 2: 1 at r = 0
    "pseudo_huber": (wb.pseudo_huber, lambda r2, s: 1 / np.sqrt(1 + r2 / s**2)),
    "huber": (huber, lambda r2, s: np.minimum(1, s / np.maximum(np.sqrt(r2), 1e-300))),
    "cauchy": (wb.cauchy, lambda r2, s: 1 / (1 + r2 / s**2)),
    "student_t": (lambda r2, s: wb.student_t(r2, s, 3), lambda r2, s: 1 / (1 + r2 / (3 * s**2))),
    "geman_mcclure": (wb.geman_mcclure, lambda r2, s: 1 / (1 + r2 / s**2) ** 2),
    "welsch": (wb.welsch, lambda r2, s: np.exp(-r2 / s**2)),
}


def regression(penalty):
    """Robust linear regression with a ridge and a factor for each row."""
    residual = sp.Sum(A[i, k] * y[k], k) - b[i]
    energy = sp.Sum(v[i] * PENALTIES[penalty][0](residual**2, delta), i) + ridge / 2 * sp.Sum(y[k] ** 2, k)
    return wb.Energy(energy, variables=[y], weights=[delta, ridge], data=[A, b, v], name=penalty)


@pytest.fixture(scope="module")
def kernels():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", wb.UnboundedDerivativeWarning)  # sqrt(r**2) in Huber's function
        return {penalty: wb.compile(regression(penalty)) for penalty in PENALTIES}


WEIGHTS = {"delta": 0.7, "ridge": 0.01}


def rows(seed, batch=(), count=30, unknowns=3, outliers=0.3):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(*batch, count, unknowns))
    truth = rng.normal(size=(*batch, unknowns))
    right = np.einsum("...ij,...j->...i", matrix, truth) + 0.1 * rng.normal(size=(*batch, count))
    right += (rng.random(right.shape) < outliers) * rng.normal(0, 5, right.shape)
    return {"A": matrix, "b": right, "v": rng.uniform(0.5, 2, right.shape)}


def by_hand(penalty, data, weights, start, reweightings):
    """The textbook's loop: weights from residuals, then the normal equations."""
    weight, point = PENALTIES[penalty][1], np.array(start)
    for _ in range(reweightings):
        residual = data["A"] @ point - data["b"]
        scaled = (data["v"] * weight(residual**2, weights["delta"]))[:, None] * data["A"]
        normal = data["A"].T @ scaled + weights["ridge"] * np.eye(len(point))
        point = np.linalg.solve(normal, scaled.T @ data["b"])
    return point


# ---------------------------------------------------------------------------------------------- right


@pytest.mark.parametrize("penalty", PENALTIES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.1, 10), reweightings=st.integers(1, 8))
def test_iterates_are_those_of_the_normal_equations(kernels, penalty, seed, scale, reweightings):
    data, weights = rows(seed), {**WEIGHTS, "delta": scale}
    start = np.random.default_rng(seed).normal(size=3)
    solution = wb.minimise(
        kernels[penalty], weights, data, start={"y": start}, method="irls", reweightings=reweightings
    )
    expected = by_hand(penalty, data, weights, start, reweightings)
    np.testing.assert_allclose(solution.variables["y"], expected, rtol=0, atol=1e-9 * (1 + np.abs(expected).max()))
    assert solution.iterations == reweightings


@pytest.mark.parametrize("penalty", PENALTIES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.1, 10))
def test_energies_never_increase(kernels, penalty, seed, scale):
    data, weights = rows(seed, batch=(8,)), {**WEIGHTS, "delta": scale}
    kernel, point = kernels[penalty], {"y": np.random.default_rng(seed).normal(0, 3, size=(8, 3))}
    energies = [kernel.value(point, weights, data)]
    for _ in range(12):
        solution = wb.minimise(kernel, weights, data, start=point, method="irls", reweightings=1)
        point = solution.variables
        energies.append(solution.energy)
    assert (np.diff(energies, axis=0) <= 1e-13 * np.abs(energies[:-1])).all()


@pytest.mark.parametrize("penalty", ["pseudo_huber", "huber"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_minima_of_convex_penalties_are_those_of_the_trust_region(kernels, penalty, seed):
    data = rows(seed, batch=(16,))
    reweighted, newton = (
        wb.minimise(kernels[penalty], WEIGHTS, data, start={"y": np.zeros(3)}, method=method, max_iterations=1000)
        for method in ("irls", "trust-region")
    )
    assert reweighted.converged.all() and (reweighted.gradient_norm <= 1e-8).all()
    np.testing.assert_allclose(reweighted.variables["y"], newton.variables["y"], atol=1e-6)
    np.testing.assert_allclose(reweighted.energy, newton.energy, rtol=1e-12)


@pytest.mark.parametrize("penalty", ["cauchy", "student_t", "geman_mcclure", "welsch"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_ends_of_redescending_penalties_are_minima(kernels, penalty, seed):
    """The trust region, started there, stays there."""
    data = rows(seed, batch=(16,))
    ends = wb.minimise(kernels[penalty], WEIGHTS, data, start={"y": np.zeros(3)}, method="irls", max_iterations=20_000)
    usable = ~np.isin(np.arange(16), ends.failed)
    assert usable.sum() >= 15
    stays = wb.minimise(kernels[penalty], WEIGHTS, data, start=ends)
    np.testing.assert_allclose(stays.variables["y"][usable], ends.variables["y"][usable], atol=1e-5)
    assert (ends.curvature[ends.converged] >= -1e-9).all()


def test_squares_alone_take_one_reweighting():
    energy = wb.Energy((a - x) ** 2 + 3 * (a + c) ** 2 + c**2, variables=[a, c], data=[x])
    solution = wb.minimise(wb.compile(energy), None, {"x": 5.0}, start={"a": 0.0, "c": 0.0}, method="irls")
    assert solution.iterations == 1 and solution.converged
    assert solution.variables["a"] + 3 * (solution.variables["a"] + solution.variables["c"]) == pytest.approx(5)


def test_mean_shift_is_irls():
    """A sum of Gaussian kernels: each reweighting is the weighted mean. D. Comaniciu, P. Meer, PAMI 24, 2002."""
    energy = wb.Energy(-sp.Sum(sp.exp(-((b[i] - a) ** 2)), i), variables=[a], data=[b])
    points = np.random.default_rng(1).normal(size=20)
    solution = wb.minimise(wb.compile(energy), None, {"b": points}, start={"a": 0.3}, method="irls", reweightings=4)
    mean = 0.3
    for _ in range(4):
        shares = np.exp(-((points - mean) ** 2))
        mean = (shares * points).sum() / shares.sum()
    assert solution.variables["a"] == pytest.approx(mean, abs=1e-13)


def test_a_penalty_of_the_users_own():
    import numba

    second = wb.function("second", numba.njit(lambda r2: -1 / (1 + r2) ** 2))
    first = wb.function("first", numba.njit(lambda r2: 1 / (1 + r2)), derivative=second)
    own = wb.function("own", numba.njit(lambda r2: np.log(1 + r2)), derivative=first)
    data, results = {"b": np.random.default_rng(0).normal(0, 3, 15)}, []
    for rho in (own, lambda r2: 2 * wb.cauchy(r2, 1)):
        energy = wb.Energy(sp.Sum(rho((a - b[i]) ** 2), i) + a**2 / 9, variables=[a], data=[b])
        results.append(wb.minimise(wb.compile(energy), None, data, start={"a": 1.0}, method="irls", reweightings=5))
    np.testing.assert_allclose(results[0].y, results[1].y, rtol=1e-10)
    convex = wb.function("convex", lambda r2: r2**2)
    with pytest.raises(wb.UnsupportedError, match="not concave"):
        wb.minimise(wb.compile(wb.Energy(convex(a**2), variables=[a])), start={"a": 1.0}, method="irls")


def test_the_pose_model_is_reweighted_as_its_authors_do():
    """Scale, translation, basis and a slack pose: normal equations of all rows with one weight for each 2D point."""
    cameras, joints, bases = sp.symbols("C J K", integer=True, positive=True)
    cc, jj, kk = sp.Idx("c", cameras), sp.Idx("j", joints), sp.Idx("l", bases)
    d, e = sp.Idx("d", 3), sp.Idx("e", 2)
    scale, rho = sp.Symbol("s", real=True), sp.Symbol("rho", positive=True)
    t, alpha, q = (sp.IndexedBase(s, shape=r) for s, r in (("t", (3,)), ("alpha", (bases,)), ("q", (joints, 3))))
    mu, basis = sp.IndexedBase("mu", shape=(joints, 3)), sp.IndexedBase("e_", shape=(bases, joints, 3))
    camera, seen = sp.IndexedBase("P", shape=(cameras, 2, 3)), sp.IndexedBase("X", shape=(cameras, joints, 2))
    body = scale * mu[jj, d] + t[d] + sp.Sum(alpha[kk] * basis[kk, jj, d], kk) - q[jj, d]
    offset = sp.Sum(camera[cc, e, d] * q[jj, d], d) - seen[cc, jj, e]
    energy = sp.Sum(body**2, jj, d) / 2 + sp.Sum(wb.pseudo_huber(sp.Sum(offset**2, e), delta), cc, jj)
    energy += rho / 2 * sp.Sum(alpha[kk] ** 2, kk)
    unknowns = [scale, t, alpha, q]
    energy += ridge / 2 * (scale**2 + sp.Sum(t[d] ** 2, d) + sp.Sum(alpha[kk] ** 2, kk) + sp.Sum(q[jj, d] ** 2, jj, d))
    kernel = wb.compile(
        wb.Energy(energy, variables=unknowns, weights=[delta, rho, ridge, mu, basis, camera], data=[seen], name="pose")
    )
    rng = np.random.default_rng(0)
    C, J, K = 3, 5, 2
    w = {"delta": 0.1, "rho": 0.75, "ridge": 0.001, "mu": rng.normal(size=(J, 3)), "e_": rng.normal(size=(K, J, 3))}
    w["P"], X = rng.normal(size=(C, 2, 3)), rng.normal(size=(C, J, 2))
    m_ = 4 + K + 3 * J
    model, seen_rows = np.zeros((J, 3, m_)), np.zeros((C, J, 2, m_))
    model[:, :, 0], model[:, :, 4 : 4 + K] = w["mu"], np.moveaxis(w["e_"], 0, -1)
    for j in range(J):
        model[j, :, 1:4] = np.eye(3)
        model[j, :, 4 + K + 3 * j : 7 + K + 3 * j] = -np.eye(3)
        seen_rows[:, j, :, 4 + K + 3 * j : 7 + K + 3 * j] = w["P"]
    regular = np.eye(m_)[4 : 4 + K]
    rows_ = np.concatenate([model.reshape(-1, m_), seen_rows.reshape(-1, m_), regular])
    right = np.concatenate([np.zeros(3 * J), X.ravel(), np.zeros(K)])

    def solve(weight):
        return np.linalg.solve(rows_.T @ (weight[:, None] * rows_) + 1e-3 * np.eye(m_), rows_.T @ (weight * right))

    point = start = solve(np.ones(len(right)))
    for _ in range(3):
        n2 = ((seen_rows @ point - X) ** 2).sum(axis=-1, keepdims=True)
        robust = np.broadcast_to(1 / np.sqrt(1 + n2 / w["delta"] ** 2), X.shape)
        point = solve(np.concatenate([np.ones(3 * J), robust.ravel(), np.full(K, w["rho"])]))
    begin = {"s": start[0], "t": start[1:4], "alpha": start[4 : 4 + K], "q": start[4 + K :].reshape(J, 3)}
    solution = wb.minimise(kernel, w, {"X": X}, start=begin, method="irls", reweightings=3)
    np.testing.assert_allclose(solution.y[0], point, atol=1e-9)


# ---------------------------------------------------------------------------------------------- the number of steps


def test_a_number_of_reweightings_is_that_many_steps_one_after_another(kernels):
    data, kernel = rows(0, batch=(5,)), kernels["cauchy"]
    point = {"y": np.ones((5, 3))}
    together = wb.minimise(kernel, WEIGHTS, data, start=point, method="irls", reweightings=6)
    for _ in range(6):
        point = wb.minimise(kernel, WEIGHTS, data, start=point, method="irls", reweightings=1).variables
    assert together.variables["y"].tobytes() == point["y"].tobytes()
    assert (together.iterations == 6).all()
    assert (together.evaluations >= 7).all()


def test_a_number_of_reweightings_goes_on_when_the_gradient_is_small(kernels):
    solution = wb.minimise(
        kernels["huber"], WEIGHTS, rows(3), start={"y": np.zeros(3)}, method="irls", reweightings=30, gtol=1.0
    )
    early = wb.minimise(kernels["huber"], WEIGHTS, rows(3), start={"y": np.zeros(3)}, method="irls", gtol=1.0)
    assert early.iterations < 10 < solution.iterations == 30
    assert solution.gradient_norm < 1e-6 * early.gradient_norm
    assert solution.status is early.status is Status.CONVERGED


def test_too_few_reweightings_are_an_iteration_limit(kernels):
    for options in ({"reweightings": 2}, {"max_iterations": 2}):
        solution = wb.minimise(
            kernels["cauchy"], WEIGHTS, rows(0, batch=(3,)), start={"y": np.zeros(3)}, method="irls", **options
        )
        assert set(solution.status) == {Status.ITERATION_LIMIT}
        assert (solution.iterations == 2).all() and np.isnan(solution.curvature).all()
    with pytest.warns(wb.UnconvergedWarning, match="3 of 3"):
        wb.implicit_gradient(kernels["cauchy"], solution, {"y": np.ones((3, 3))})


def test_max_iterations_of_nothing_returns_the_start(kernels):
    solution = wb.minimise(
        kernels["cauchy"], WEIGHTS, rows(0), start={"y": np.ones(3)}, method="irls", max_iterations=0
    )
    assert (solution.variables["y"] == 1).all() and solution.status is Status.ITERATION_LIMIT


# ---------------------------------------------------------------------------------------------- statuses


@pytest.mark.parametrize("penalty", ["pseudo_huber", "cauchy", "welsch"])
def test_curvature_is_found_when_it_is_asked_for(kernels, penalty):
    kernel, data = kernels[penalty], rows(7, (9,))
    ends = wb.minimise(kernel, WEIGHTS, data, start={"y": np.zeros((9, 3))}, method="irls", max_iterations=1000)
    assert ends.converged.all() and np.isnan(ends.reals[:, 1]).all()
    hessian = kernel.hessian(ends.variables, WEIGHTS, data)
    np.testing.assert_allclose(ends.curvature, np.linalg.eigvalsh(hessian)[:, 0], rtol=1e-9)
    np.testing.assert_array_equal(
        ends.curvature,
        wb.minimise(
            kernel, WEIGHTS, data, start={"y": ends.variables["y"]}, method="irls", max_iterations=1000
        ).curvature,
    )


def test_a_maximum_is_a_saddle():
    energy = wb.Energy(wb.welsch((a - 2) ** 2, 1) + wb.welsch((a + 2) ** 2, 1), variables=[a])
    solution = wb.minimise(wb.compile(energy), start={"a": 0.0}, method="irls")
    assert solution.status is Status.SADDLE and solution.curvature < 0


def test_far_from_all_data_reweighting_finds_the_way():
    """The gradient is 1e-20 there, the curvature below 0."""
    energy = wb.Energy(wb.welsch((a - x) ** 2, 1) + wb.welsch((a - x - 1) ** 2, 1), variables=[a], data=[x])
    kernel = wb.compile(energy)
    for start in (-5.0, 8.0):
        solution = wb.minimise(kernel, None, {"x": 1.0}, start={"a": start}, method="irls")
        assert solution.converged and solution.variables["a"] == pytest.approx(1.5, abs=1e-6)
    limited = wb.minimise(kernel, None, {"x": 1.0}, start={"a": 8.0}, method="irls", max_iterations=1)
    assert limited.iterations == 1 and not limited.converged


def test_a_start_of_no_gradient_is_no_mark_for_the_gradients_after_it(kernels):
    """From afar weights of Welsch's penalty are 1e-300; the gradient grows first."""
    data = rows(0, batch=(1000,), count=40, unknowns=2)
    weights, start = {"delta": 0.5, "ridge": 1e-300}, {"y": np.full(2, 30.0)}
    solution = wb.minimise(kernels["welsch"], weights, data, start=start, method="irls", max_iterations=5000)
    assert solution.converged.mean() >= 0.998


def test_a_singular_problem_converges_and_what_it_does_not_see_stays():
    energy = wb.Energy(wb.pseudo_huber((a + c - x) ** 2, 1) + (a + c) ** 2 / 100, variables=[a, c], data=[x])
    data, start = {"x": np.linspace(-9, 9, 7)}, {"a": 3.0, "c": 1.0}
    solution = wb.minimise(wb.compile(energy), None, data, start=start, method="irls", max_iterations=1000)
    assert solution.converged.all()
    np.testing.assert_allclose(solution.variables["a"] - solution.variables["c"], 2, atol=1e-6)
    newton = wb.minimise(wb.compile(energy), None, data, start=start)
    np.testing.assert_allclose(solution.energy, newton.energy, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_singular_problems_do_not_depend_on_units(unit):
    third = sp.Symbol("third", real=True)
    energy = wb.Energy(
        wb.pseudo_huber((a + c - x) ** 2, 1) + (a + c) ** 2 / 9 + wb.cauchy((third * unit - x) ** 2, 1),
        variables=[a, c, third],
        data=[x],
    )
    start = {"a": 0.0, "c": 0.0, "third": 0.0}
    solution = wb.minimise(wb.compile(energy), None, {"x": 2.0}, start=start, method="irls", gtol=1e-8 * max(unit, 1))
    assert solution.converged
    assert solution.variables["third"] * unit == pytest.approx(2, abs=1e-6)


def test_an_energy_without_a_minimum_falls_and_is_not_converged():
    energy = wb.Energy(wb.pseudo_huber(a**2, 1) - a**2, variables=[a])
    kernel = wb.compile(energy)
    for limit, status in ((1000, Status.ITERATION_LIMIT), (10_000, Status.UNBOUNDED)):
        solution = wb.minimise(kernel, start={"a": 1.0}, method="irls", max_iterations=limit)
        assert solution.status is status and solution.energy < -1e6


def test_weights_of_the_wrong_sign_never_raise_the_energy():
    """c rho is convex where c < 0, which no formula shows: the steps are shortened."""
    weight = sp.Symbol("weight", real=True)
    energy = wb.Energy(
        weight * wb.welsch((a - 1) ** 2, 1) + (a - x) ** 2 / 2, variables=[a], weights=[weight], data=[x]
    )
    kernel, data = wb.compile(energy), {"x": np.linspace(-2, 4, 31)}
    solution = wb.minimise(kernel, {"weight": -3.0}, data, start={"a": 0.5}, method="irls", max_iterations=1000)
    assert (solution.energy <= kernel.value({"a": np.full(31, 0.5)}, {"weight": -3.0}, data) + 1e-12).all()
    assert solution.gradient_norm.max() < 1e-4


def test_starts_that_are_not_finite_end_so_and_harm_no_neighbour(kernels):
    data, start = rows(2, batch=(6,)), np.zeros((6, 3))
    clean = wb.minimise(kernels["welsch"], WEIGHTS, data, start={"y": start}, method="irls")
    start[2], start[4] = np.nan, 1e300
    poisoned = wb.minimise(kernels["welsch"], WEIGHTS, data, start={"y": start}, method="irls")
    assert poisoned.status[2] is Status.NOT_FINITE and poisoned.status[4] is not Status.CONVERGED
    others = [0, 1, 3, 5]
    assert poisoned.y[others].tobytes() == clean.y[others].tobytes()
    assert poisoned.integers[others].tobytes() == clean.integers[others].tobytes()


# ---------------------------------------------------------------------------------------------- batches


def test_the_same_bits_for_any_order_and_number_of_threads(kernels):
    data, start = rows(5, batch=(97,)), np.random.default_rng(0).normal(size=(97, 3))
    order = np.random.default_rng(1).permutation(97)
    results = []
    try:
        for threads in (1, 2, 3):
            wb.set_threads(threads)
            results.append(wb.minimise(kernels["cauchy"], WEIGHTS, data, start={"y": start}, method="irls"))
    finally:
        wb.set_threads(None)
    shuffled = wb.minimise(
        kernels["cauchy"], WEIGHTS, {s: d[order] for s, d in data.items()}, start={"y": start[order]}, method="irls"
    )
    alone = wb.minimise(
        kernels["cauchy"], WEIGHTS, {s: d[17] for s, d in data.items()}, start={"y": start[17]}, method="irls"
    )
    for result in results[1:]:
        assert result.y.tobytes() == results[0].y.tobytes() and result.reals.tobytes() == results[0].reals.tobytes()
    assert shuffled.y.tobytes() == results[0].y[order].tobytes()
    assert alone.y[0].tobytes() == results[0].y[17].tobytes()


def test_weights_with_a_batch_axis_are_read_by_instance(kernels):
    data, scales = rows(5, batch=(4,)), np.array([0.2, 0.5, 1.0, 3.0])
    together = wb.minimise(
        kernels["cauchy"], {**WEIGHTS, "delta": scales}, data, start={"y": np.zeros(3)}, method="irls"
    )
    for k, scale in enumerate(scales):
        own = {s: d[k] for s, d in data.items()}
        alone = wb.minimise(
            kernels["cauchy"], {**WEIGHTS, "delta": scale}, own, start={"y": np.zeros(3)}, method="irls"
        )
        assert alone.y[0].tobytes() == together.y[k].tobytes()


def test_the_lowest_candidate_is_the_start(kernels):
    data, candidates = rows(5, batch=(4,)), np.random.default_rng(0).normal(size=(6, 3))
    best = [
        candidates[np.argmin([kernels["welsch"].value({"y": q}, WEIGHTS, {s: d[k] for s, d in data.items()})
                              for q in candidates])]
        for k in range(4)
    ]  # fmt: skip
    ranked = wb.minimise(kernels["welsch"], WEIGHTS, data, candidates={"y": candidates}, method="irls")
    given_ = wb.minimise(kernels["welsch"], WEIGHTS, data, start={"y": np.array(best)}, method="irls")
    assert ranked.y.tobytes() == given_.y.tobytes()
    assert (ranked.evaluations == given_.evaluations + 1).all()


def test_the_interpreter_gives_the_same(kernels):
    data = rows(8)
    slow = wb.compile(regression("geman_mcclure"), backend="reference")
    results = [
        wb.minimise(kernel, WEIGHTS, data, start={"y": np.zeros(3)}, method="irls", reweightings=5)
        for kernel in (slow, kernels["geman_mcclure"])
    ]
    np.testing.assert_allclose(results[0].y, results[1].y, rtol=1e-12)


# ---------------------------------------------------------------------------------------------- errors


def test_reweightings_are_for_irls(kernels):
    with pytest.raises(wb.InputError, match=r"reweightings=3 is for method='irls'.*max_iterations"):
        wb.minimise(kernels["cauchy"], WEIGHTS, rows(0), start={"y": np.zeros(3)}, reweightings=3)


@pytest.mark.parametrize("bad", [0, -1, 2.5, "3", True, np.nan, [3]])
def test_reweightings_are_a_count(kernels, bad):
    with pytest.raises(wb.InputError, match="reweightings must be an integer >= 1"):
        wb.minimise(kernels["cauchy"], WEIGHTS, rows(0), start={"y": np.zeros(3)}, method="irls", reweightings=bad)


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_an_energy_that_does_not_fit_is_named_with_its_term(backend):
    energy = wb.Energy(wb.cauchy((a - x) ** 2, 1) + sp.exp(a - x), variables=[a], data=[x], name="mixed")
    with pytest.raises(wb.UnsupportedError, match=r"(?s)'mixed'.*irls.*exp\(a - x\).*trust-region"):
        wb.minimise(wb.compile(energy, backend=backend), None, {"x": 1.0}, start={"a": 0.0}, method="irls")


# ---------------------------------------------------------------------------------------------- with other options


def robust_line():
    n = sp.Symbol("n", integer=True, positive=True)
    i, x, z = sp.Idx("i", n), sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("z", shape=(n,))
    slope, offset = sp.symbols("slope offset", real=True)
    scale = sp.Symbol("scale", positive=True)
    misfit = wb.cauchy((slope * x[i] + offset - z[i]) ** 2, scale)
    return wb.compile(wb.Energy(sp.Sum(misfit, i), variables=[slope, offset], weights=[scale], data=[x, z]))


def lines(count=40, seed=0):
    random = np.random.default_rng(seed)
    x = np.linspace(-1, 1, 20)
    z = 2.0 * x + 0.5 + 0.1 * random.standard_normal((count, 20))
    z[:, :4] += random.uniform(-5, 5, (count, 4))
    return {"x": x, "z": z}


def test_a_trace_has_each_reweighting_of_a_fixed_number():
    kernel, data = robust_line(), lines(5)
    start = {"slope": 0.0, "offset": 0.0}
    whole = wb.minimise(kernel, {"scale": 0.3}, data, start=start, method="irls", reweightings=4, trace=True)
    assert whole.trace.energy.shape == (5, 5)
    for k in (1, 2, 3):
        part = wb.minimise(kernel, {"scale": 0.3}, data, start=start, method="irls", reweightings=k)
        np.testing.assert_array_equal(whole.trace.variables["slope"][:, k], part.variables["slope"])


def test_runs_in_parts_and_restarts_can_be_unrolled():
    kernel, data = robust_line(), lines()
    start, slopes = {"slope": 0.0, "offset": 0.0}, {"slope": np.ones(40)}
    options = {"start": start, "method": "irls", "reweightings": 3}
    plain = wb.minimise(kernel, {"scale": 0.3}, data, **options)
    parts = wb.minimise(kernel, {"scale": 0.3}, data, **options, callback=lambda done, total: None)
    assert wb.unrolled_gradient(kernel, plain, slopes) == wb.unrolled_gradient(kernel, parts, slopes)
    several = wb.minimise(kernel, {"scale": 0.3}, data, start=start, method="irls", restarts=2, seed=1)
    again = wb.minimise(kernel, {"scale": 0.3}, data, start=several_starts(several), method="irls")
    got, expected = (wb.unrolled_gradient(kernel, s, slopes)["scale"] for s in (several, again))
    assert got == pytest.approx(expected, rel=1e-12)


def several_starts(solution):
    began = solution.problem.began
    return {"slope": began[:, 0], "offset": began[:, 1]}
