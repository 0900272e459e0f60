"""Quadratic energies: one step, the minimiser of least length, and statuses where there is no minimum."""

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wiberg.runtime import Status, minimise, quadratic, set_threads
from wiberg.runtime.driver import run_driver

n, m = sp.symbols("n m", integer=True, positive=True)
i, j = sp.Idx("i", n), sp.Idx("j", n)
y, b = sp.IndexedBase("y", shape=(n,)), sp.IndexedBase("b", shape=(n,))
H = sp.IndexedBase("H", shape=(n, n))
t, u = sp.symbols("t u", real=True)


@pytest.fixture(scope="module")
def form():
    """E = y'Hy/2 - b'y."""
    energy = wb.Energy(
        sp.Sum(H[i, j] * y[i] * y[j], i, j) / 2 - sp.Sum(b[i] * y[i], i), variables=[y], data=[H, b], name="form"
    )
    kernel = wb.compile(energy)
    assert kernel.quadratic
    return kernel


@pytest.fixture(scope="module")
def graph():
    """Differences along a chain and to a target: with c = 0 the sum of y is free."""
    p = sp.Idx("p", (0, n - 2))
    s, c = sp.symbols("s c", real=True)
    formula = s * sp.Sum((y[p + 1] - y[p]) ** 2, p) / 2 + c * sp.Sum(y[i] ** 2, i) / 2 - sp.Sum(b[i] * y[i], i)
    kernel = wb.compile(wb.Energy(formula, variables=[y], weights=[s, c], data=[b], name="graph"))
    assert kernel.quadratic and kernel.structure == "banded"
    return kernel


def matrix(source, size, eigenvalues):
    basis = np.linalg.qr(source.standard_normal((size, size)))[0]
    full = basis * eigenvalues @ basis.T
    return (full + full.T) / 2, basis


def semidefinite(source, size, rank, condition=1e3):
    """H of a rank, b in its range, and a vector of its null space (0 if there is none)."""
    eigenvalues = np.zeros(size)
    eigenvalues[:rank] = np.geomspace(1, 1 / condition, rank) if rank else []
    full, basis = matrix(source, size, eigenvalues)
    return full, full @ source.standard_normal(size), basis[:, -1] * (rank < size)


def pseudo_inverse(full):
    return np.linalg.pinv(full, hermitian=True, rcond=1e-12)


# ---------------------------------------------------------------------------------------------- minima


@settings(max_examples=80)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 30),
    st.floats(0, 1),
    st.floats(-3, 3),
    st.floats(-6, 6),
    st.floats(0, 6),
)
def test_the_minimiser_is_that_of_least_length(form, seed, size, fullness, distance, scale, condition):
    source = np.random.default_rng(seed)
    full, right, null = semidefinite(source, size, round(fullness * size), 10.0**condition)
    full, right = 10.0**scale * full, 10.0**scale * right
    expected = pseudo_inverse(full) @ right
    start = 10.0**distance * (source.standard_normal(size) + 3 * null)
    gtol = 1e-8 * max(1.0, 10.0**scale)
    solution = minimise(form, None, {"H": full, "b": right}, start={"y": start}, gtol=gtol)
    size_of = 1 + np.abs(expected).max()
    rounding = 1e-13 * 10.0**condition * (1 + np.abs(start).max()) * size_of
    assert solution.status in (Status.CONVERGED, Status.STALLED)
    assert np.abs(solution.variables["y"] - expected).max() <= rounding + 10.0 ** (condition - 8 + max(-scale, 0))
    assert abs(null @ solution.variables["y"]) <= (1e-12 + 1e-14 * 10.0**condition) * size_of
    assert solution.curvature == pytest.approx(np.linalg.eigvalsh(full)[0], abs=1e-12 * 10.0**scale)


@pytest.mark.parametrize(("size", "rank"), [(1, 1), (2, 2), (2, 1), (3, 3), (3, 1), (9, 9), (9, 4), (40, 40), (40, 21)])
def test_one_step_and_two_evaluations(form, size, rank):
    full, right, _ = semidefinite(np.random.default_rng(size), size, rank)
    solution = minimise(form, None, {"H": full, "b": right}, start={"y": np.full(size, 7.0)})
    assert (solution.iterations, solution.evaluations, solution.status) == (1, 2, Status.CONVERGED)
    assert solution.energy == pytest.approx(-right @ pseudo_inverse(full) @ right / 2, rel=1e-9)
    assert (solution.curvature == 0.0) == (rank < size)


@pytest.mark.parametrize("size", [2, 3, 26, 60])
def test_warm_starts_do_not_drift_along_the_null_space(form, size):
    """Rank-deficient quadratics used to keep what the start had along the null space, and to add rounding to it."""
    source = np.random.default_rng(size)
    full, right, null = semidefinite(source, size, size // 2)
    x = {"H": full, "b": right}
    first = minimise(form, None, x, start={"y": np.zeros(size)})
    drifted = {"y": first.variables["y"] + 1e6 * null}
    for _ in range(20):
        drifted = minimise(form, None, x, start=drifted).variables
    assert abs(null @ drifted["y"]) < 1e-13 * size
    assert np.abs(drifted["y"] - first.variables["y"]).max() < 1e-5  # gtol and the lowest curvature, 1e-8 and 1e-3
    again = minimise(form, None, x, start=first)
    assert again.iterations == 0 and np.array_equal(again.variables["y"], first.variables["y"])


def test_a_minimiser_that_is_not_the_shortest_is_left():
    kernel = wb.compile(wb.Energy((t - u) ** 2, variables=[t, u]))
    solution = minimise(kernel, start={"t": 2.0, "u": 2.0})
    assert (solution.iterations, solution.status) == (1, Status.CONVERGED)
    assert solution.variables == {"t": 0.0, "u": 0.0}


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_units_of_one_unknown_do_not_make_a_regular_energy_singular(form, unit):
    source = np.random.default_rng(3)
    full, right, _ = semidefinite(source, 4, 4)
    units = np.array([1.0, unit, 1.0, 1 / unit])
    plain = minimise(form, None, {"H": full, "b": right}, start={"y": np.zeros(4)})
    scaled = minimise(
        form, None, {"H": full * units * units[:, None], "b": right * units}, start={"y": np.zeros(4)}, gtol=1e-6
    )
    assert scaled.status is Status.CONVERGED and scaled.curvature != 0
    assert scaled.variables["y"] * units == pytest.approx(plain.variables["y"], rel=1e-9)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_a_constant_energy_has_its_minimum_in_the_origin(form, scale):
    x = {"H": np.zeros((3, 3)), "b": np.zeros(3)}
    solution = minimise(form, None, x, start={"y": np.full(3, scale)})
    assert solution.status is Status.CONVERGED and not solution.variables["y"].any()


def test_ranked_candidates_count_once(form):
    full, right, _ = semidefinite(np.random.default_rng(5), 4, 4)
    candidates = {"y": np.random.default_rng(6).standard_normal((7, 4))}
    solution = minimise(form, None, {"H": full, "b": right}, candidates=candidates)
    assert (solution.iterations, solution.evaluations, solution.status) == (1, 3, Status.CONVERGED)
    first = minimise(form, None, {"H": full, "b": right}, candidates=candidates, max_iterations=0)
    values = [form.value({"y": c}, None, {"H": full, "b": right}) for c in candidates["y"]]
    assert first.energy == min(values) and first.status is Status.ITERATION_LIMIT


def test_other_methods_take_one_step_too(form):
    full, right, null = semidefinite(np.random.default_rng(4), 6, 5, condition=10)
    x, start = {"H": full, "b": right}, {"y": 3.0 * null}
    shortest = minimise(form, None, x, start=start)
    assert bits(minimise(form, None, x, start=start, method="l-bfgs")) == bits(shortest)
    nearest = minimise(form, None, x, start=start, method="newton-cg")
    assert (nearest.status, nearest.iterations) == (Status.CONVERGED, 1)
    assert nearest.variables["y"] == pytest.approx(shortest.variables["y"] + start["y"], abs=1e-6)


# ---------------------------------------------------------------------------------------------- no minimum


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.floats(-5, 3), st.booleans())
@example(seed=14680811, size=6, strength=-4.71875, indefinite=False)
def test_what_has_no_minimum_is_unbounded(form, seed, size, strength, indefinite):
    source = np.random.default_rng(seed)
    eigenvalues = np.geomspace(1, 1e-3, size)
    eigenvalues[-1] = -(10.0**strength) if indefinite else 0.0
    full, basis = matrix(source, size, eigenvalues)
    right = full @ source.standard_normal(size) + (0.0 if indefinite else 10.0**strength) * basis[:, -1]
    x, start = {"H": full, "b": right}, {"y": source.standard_normal(size)}
    solution = minimise(form, None, x, start=start)
    assert (solution.status, solution.iterations) == (Status.UNBOUNDED, 1)
    assert solution.energy <= form.value(start, None, x)
    assert minimise(form, None, x, start=start, max_iterations=0).status is Status.ITERATION_LIMIT


def by_trust_region(kernel, x, start):
    """The same by the loop that knows nothing of quadratic energies."""
    keep = quadratic.minimise_quadratic
    quadratic.minimise_quadratic = run_driver
    try:
        return minimise(kernel, None, x, start=start)
    finally:
        quadratic.minimise_quadratic = keep


@pytest.mark.parametrize("eigenvalues", [
    (1, 2), (1, 0), (0, 0), (1, -1), (-1, -2), (0, -1), (1, 1e-3, 0), (2, 1, 1), (3, 0, 0), (1, 1, -1e-6),
])  # fmt: skip
@pytest.mark.parametrize("right", [0.0, 1.0])
@pytest.mark.parametrize("start", [0.0, 1.0])
def test_statuses_are_those_of_the_trust_region(form, eigenvalues, right, start):
    size = len(eigenvalues)
    x = {"H": np.diag(eigenvalues).astype(float), "b": np.full(size, right)}
    point = {"y": np.full(size, start)}
    assert minimise(form, None, x, start=point).status is by_trust_region(form, x, point).status


def test_starts_and_data_that_are_not_finite(form):
    x = {"H": np.eye(2), "b": np.ones(2)}
    assert minimise(form, None, x, start={"y": [np.nan, 0.0]}).status is Status.NOT_FINITE
    assert minimise(form, None, x, start={"y": [np.inf, 0.0]}).status is Status.NOT_FINITE
    assert minimise(form, None, x, start={"y": [1e200, 0.0]}).status is Status.NOT_FINITE
    bad = {"H": np.stack([np.eye(2), np.full((2, 2), np.nan)]), "b": np.ones(2)}
    statuses = minimise(form, None, bad, start={"y": np.zeros(2)}, check=False).status
    assert list(statuses) == [Status.CONVERGED, Status.NOT_FINITE]


# ---------------------------------------------------------------------------------------------- bits


def mixed_batch(size, count):
    source = np.random.default_rng(size)
    matrices, rights = [], []
    for k in range(count):
        full, right, null = semidefinite(source, size, max(0, size - k % 3))
        matrices.append(full if k % 7 else full - 2 * np.eye(size))
        rights.append(right + (null if k % 5 == 0 else 0))
    matrices[3] = matrices[3] * 1e200
    return {"H": np.stack(matrices), "b": np.stack(rights)}, {"y": source.standard_normal((count, size))}


def bits(solution, order=slice(None)):
    return [a[order].tobytes() for a in (solution.y, solution.energies, solution.reals, solution.integers)]


@pytest.mark.parametrize("size", [1, 2, 5, 17])
def test_an_instance_has_the_same_bits_in_any_batch_and_on_any_number_of_threads(form, size):
    count = 60
    x, start = mixed_batch(size, count)
    whole = minimise(form, None, x, start=start)
    assert len(set(whole.integers[:, 2])) > 2 or size == 1
    order = np.random.default_rng(1).permutation(count)
    permuted = minimise(form, None, {k: v[order] for k, v in x.items()}, start={"y": start["y"][order]})
    assert bits(permuted) == bits(whole, order)
    for k in range(0, count, 7):
        alone = minimise(form, None, {k_: v[k] for k_, v in x.items()}, start={"y": start["y"][k]})
        assert bits(alone) == bits(whole, slice(k, k + 1))
    for threads in (1, 2, 3):
        set_threads(threads)
        try:
            assert bits(minimise(form, None, x, start=start)) == bits(whole)
        finally:
            set_threads(None)


# ---------------------------------------------------------------------------------------------- many unknowns


@pytest.mark.parametrize("size", [201, 500])
def test_a_sparse_quadratic_takes_one_step(graph, size):
    right = np.random.default_rng(size).standard_normal(size)
    w, x = {"s": 2.0, "c": 0.1}, {"b": right}
    solution = minimise(graph, w, x, start={"y": np.full(size, 5.0)})
    assert (solution.iterations, solution.status) == (1, Status.CONVERGED)
    expected = np.linalg.solve(graph.dense_hessian({"y": right}, w, x), right)
    assert np.abs(solution.variables["y"] - expected).max() < 1e-6
    assert solution.curvature > 0


@pytest.mark.parametrize("size", [201, 500])
@pytest.mark.parametrize("distance", [0.0, 1e4])
def test_a_singular_sparse_quadratic_has_the_minimiser_of_least_length(graph, size, distance):
    right = np.random.default_rng(size).standard_normal(size)
    w, x = {"s": 2.0, "c": 0.0}, {"b": right - right.mean()}
    solution = minimise(graph, w, x, start={"y": np.full(size, distance)})
    expected = pseudo_inverse(graph.dense_hessian({"y": right}, w, x)) @ x["b"]
    assert solution.status is Status.CONVERGED and solution.curvature == 0.0
    assert np.abs(solution.variables["y"] - expected).max() < 1e-8 * np.abs(expected).max()
    assert abs(solution.variables["y"].mean()) < 1e-12 * np.abs(expected).max()
    assert solution.energy == graph.value(solution.variables, w, x)


@pytest.mark.parametrize(("c", "offset"), [(0.0, 1.0), (-1e-2, 0.0)])
def test_a_sparse_quadratic_without_a_minimum_is_unbounded(graph, c, offset):
    right = np.random.default_rng(0).standard_normal(300)
    x = {"b": right - right.mean() + offset}
    assert minimise(graph, {"s": 1.0, "c": c}, x, start={"y": np.zeros(300)}).status is Status.UNBOUNDED


def test_a_sparse_batch_mixes_regular_and_singular_instances(graph):
    source = np.random.default_rng(2)
    right = source.standard_normal((4, 220))
    right -= right.mean(axis=1, keepdims=True)
    w, start = {"s": 1.0, "c": np.array([0.0, 0.3, 0.0, 1.0])}, {"y": source.standard_normal((4, 220)) + 3}
    whole = minimise(graph, w, {"b": right}, start=start)
    assert list(whole.curvature == 0.0) == [True, False, True, False]
    for k in range(4):
        own = {"s": 1.0, "c": w["c"][k]}
        alone = minimise(graph, own, {"b": right[k]}, start={"y": start["y"][k]})
        assert bits(alone) == bits(whole, slice(k, k + 1))
