"""The damped derivative at minimum-norm solutions, against differences of NumPy's pseudo-inverse."""

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.learn import implicit_gradient, implicit_jacobian
from wiberg.runtime import minimise, set_threads

n, m = sp.symbols("n m", integer=True, positive=True)
i, j, p = sp.Idx("i", n), sp.Idx("j", m), sp.Idx("p", (0, n - 2))
y, A, b = sp.IndexedBase("y", shape=(n,)), sp.IndexedBase("A", shape=(m, n)), sp.IndexedBase("b", shape=(m,))
MISFIT = sp.Sum((sp.Sum(A[j, i] * y[i], i) - b[j]) ** 2, j) / 2


@pytest.fixture(scope="module")
def readings():
    """Least squares |A y - b|^2 / 2, A and b both weights."""
    return wb.compile(wb.Energy(MISFIT, variables=[y], weights=[A, b], name="readings"))


@pytest.fixture(scope="module")
def chain():
    """n - 1 equations of neighbours for n unknowns: what they leave open turns with s."""
    s, a, c = sp.Symbol("s", real=True), sp.IndexedBase("a", shape=(n,)), sp.IndexedBase("c", shape=(n,))
    formula = sp.Sum((y[p + 1] * (1 + s * a[p]) - y[p] - c[p]) ** 2, p) / 2
    return wb.compile(wb.Energy(formula, variables=[y], weights=[s, c], data=[a], name="chain"))


def shortest(weights, rows, columns):
    return np.linalg.pinv(weights[: rows * columns].reshape(rows, columns)) @ weights[rows * columns :]


def differences(function, weights):
    """Central differences with one step of extrapolation."""
    one = 1e-4 * np.eye(len(weights))

    def central(e):
        return np.stack([function(weights + d) - function(weights - d) for d in e], axis=1) / 2

    return (4 * central(one / 2) * 2 - central(one)) / 3 / 1e-4


def case(kernel, source, rows, columns):
    matrix, right = source.standard_normal((rows, columns)), source.standard_normal(rows)
    w = {"A": matrix, "b": right}
    return w, minimise(kernel, w, start={"y": 3 * source.standard_normal(columns)})


def padding(kernel, w, solution, damping):
    """What damped.py adds to the damping, as a part of it, times two, and rounding."""
    size = np.abs(kernel.dense_hessian(solution.variables, w)).sum(axis=1).max()
    count = solution.inputs.m
    return 3 * count * (3 * count + 1) * 2.0**-52 * size / damping + 1e-10


def pieces(kernel, w, solution, damping):
    """H, d(grad)/dw at the minimum and at the damped solution, and the projection on the null space."""
    hessian = kernel.dense_hessian(solution.variables, w)
    damped = hessian + damping * np.eye(len(hessian))
    shorter = {"y": solution.variables["y"] - damping * np.linalg.solve(damped, solution.variables["y"])}
    null = np.eye(len(hessian)) - hessian @ np.linalg.pinv(hessian, hermitian=True, rcond=1e-12)
    return damped, kernel.cross(solution.variables, w), kernel.cross(shorter, w), null


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(0, 4))
def test_tends_to_the_derivative_of_the_pseudo_inverse(readings, seed, rows, more):
    w, solution = case(readings, np.random.default_rng(seed), rows, rows + more)
    weights = np.concatenate([w["A"].ravel(), w["b"]])
    expected = differences(lambda v: shortest(v, rows, rows + more), weights)
    lowest = np.linalg.svd(w["A"], compute_uv=False)[-1] ** 2
    if lowest < 1e-2:
        return  # differences are no reference there
    for part in (1e-4, 1e-6):
        found = implicit_jacobian(readings, solution, part * lowest)
        scale = np.abs(expected).max()
        assert np.abs(found - expected).max() <= 4 * part * scale * (1 + 1 / lowest) + 1e-6 * scale / lowest


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 4), st.sampled_from([1e-3, 0.1, 10.0]))
def test_is_the_closed_form_and_keeps_its_bound(readings, seed, rows, more, damping):
    w, solution = case(readings, np.random.default_rng(seed), rows, rows + more)
    damped, here, there, null = pieces(readings, w, solution, damping)
    expected = -np.linalg.solve(damped, here - null @ here + null @ there)
    found = implicit_jacobian(readings, solution, damping)
    precision = padding(readings, w, solution, damping)
    assert np.abs(found - expected).max() <= 10 * precision * (1 + np.abs(expected).max())
    for norm in (2, "fro"):
        both = np.hypot(np.linalg.norm(here, norm), np.linalg.norm(there, norm))
        assert np.linalg.norm(found, norm) * damping <= both * (1 + 1e-12)
    slope = np.random.default_rng(seed).standard_normal(rows + more)
    gradient = implicit_gradient(readings, solution, {"y": slope}, damping)
    flat = np.concatenate([gradient["A"].ravel(), gradient["b"]])
    assert flat == pytest.approx(slope @ found, rel=1e-9, abs=1e-10 * (1 + np.abs(found).max()))
    assert np.linalg.norm(gradient["b"]) * damping <= np.linalg.norm(slope) * np.linalg.norm(w["A"], 2) * (1 + 1e-12)


@pytest.mark.parametrize("damping", [1e-3, 0.1])
def test_is_equation_10_where_the_hessian_is_regular(readings, damping):
    w, solution = case(readings, np.random.default_rng(0), 5, 3)
    damped, here, _, _ = pieces(readings, w, solution, damping)
    assert implicit_jacobian(readings, solution, damping) == pytest.approx(-np.linalg.solve(damped, here), rel=1e-10)


@pytest.mark.parametrize("damping", [1e-3, 0.1])
def test_is_equation_10_where_the_null_space_stays(readings, damping):
    w, solution = case(readings, np.random.default_rng(0), 2, 4)
    damped, here, _, _ = pieces(readings, w, solution, damping)
    only_b = slice(8, None)
    found = implicit_jacobian(readings, solution, damping)
    precision = padding(readings, w, solution, damping)
    assert found[:, only_b] == pytest.approx(-np.linalg.solve(damped, here)[:, only_b], rel=10 * precision)
    assert np.abs(found - -np.linalg.solve(damped, here)).max() > 1e-2  # A turns it


@pytest.mark.parametrize("damping", [1e-6, 0.1])
def test_one_reading_in_the_plane_that_equation_10_takes_for_standing_still(damping):
    """E = (y1 cos a + y2 sin a - 1)^2 / 2: y* = (cos a, sin a) moves, and d(grad)/da at y* is 0."""
    t, u, angle = sp.symbols("t u angle", real=True)
    kernel = wb.compile(
        wb.Energy((t * sp.cos(angle) + u * sp.sin(angle) - 1) ** 2 / 2, variables=[t, u], weights=[angle])
    )
    w = {"angle": 0.7}
    solution = minimise(kernel, w, start={"t": -3.0, "u": 9.0})
    assert np.abs(kernel.cross(solution.variables, w)).max() < 1e-15
    tangent = np.array([-np.sin(0.7), np.cos(0.7)])
    assert implicit_jacobian(kernel, solution, damping)[:, 0] == pytest.approx(tangent / (1 + damping), rel=1e-7)
    slopes = {"t": 0.3, "u": -0.4}
    expected = np.array([0.3, -0.4]) @ tangent / (1 + damping)
    assert implicit_gradient(kernel, solution, slopes, damping)["angle"] == pytest.approx(expected, rel=1e-7)


def test_without_damping_it_does_not_exist(readings):
    _, solution = case(readings, np.random.default_rng(0), 2, 4)
    with pytest.raises(wb.NumericalError, match=r"readings.*singular"):
        implicit_gradient(readings, solution, {"y": np.ones(4)}, damping=0.0)
    with pytest.raises(wb.NumericalError, match=r"readings.*singular"):
        implicit_jacobian(readings, solution, damping=0.0)


def test_a_batch_of_regular_and_singular_instances_is_the_sum_of_its_own(readings):
    source = np.random.default_rng(0)
    matrices = source.standard_normal((150, 3, 3))
    matrices[::3, 2] = matrices[::3, 0] + matrices[::3, 1]
    rights = np.einsum("kij,kj->ki", matrices, source.standard_normal((150, 3)))
    slopes = source.standard_normal((150, 3))
    each = minimise(readings, {"A": matrices, "b": rights}, start={"y": np.zeros(3)})
    assert (each.curvature == 0.0).sum() == 50
    rows = implicit_gradient(readings, each, {"y": slopes}, 0.1)
    jacobians = implicit_jacobian(readings, each, 0.1)
    for k in (0, 1, 3, 77, 149):
        alone = minimise(readings, {"A": matrices[k], "b": rights[k]}, start={"y": np.zeros(3)})
        gradient = implicit_gradient(readings, alone, {"y": slopes[k]}, 0.1)
        assert np.allclose(gradient["A"], rows["A"][k], rtol=1e-12) and np.allclose(gradient["b"], rows["b"][k])
        assert np.array_equal(implicit_jacobian(readings, alone, 0.1), jacobians[k])
    shared = minimise(readings, {"A": matrices[0], "b": rights[::3]}, start={"y": np.zeros(3)})
    assert not shared.curvature.any()
    for threads in (1, 2, 3):
        set_threads(threads)
        try:
            again = implicit_gradient(readings, each, {"y": slopes}, 0.1)
            assert np.array_equal(again["A"], rows["A"]) and np.array_equal(again["b"], rows["b"])
        finally:
            set_threads(None)


def test_shared_weights_sum_over_the_batch_with_the_same_bits_on_any_number_of_threads():
    kernel = wb.compile(wb.Energy(MISFIT, variables=[y], weights=[A], data=[b], name="shared"))
    source = np.random.default_rng(1)
    matrix, rights, slopes = (source.standard_normal(shape) for shape in ((2, 4), (300, 2), (300, 4)))
    solution = minimise(kernel, {"A": matrix}, {"b": rights}, start={"y": np.zeros(4)})
    whole = implicit_gradient(kernel, solution, {"y": slopes}, 0.1)["A"]
    expected = np.einsum("km,kmp->p", slopes, implicit_jacobian(kernel, solution, 0.1)).reshape(2, 4)
    assert whole == pytest.approx(expected, rel=1e-9)
    for threads in (1, 2, 3):
        set_threads(threads)
        try:
            assert np.array_equal(implicit_gradient(kernel, solution, {"y": slopes}, 0.1)["A"], whole)
        finally:
            set_threads(None)


def test_points_that_are_no_minimum_have_equation_10(readings):
    source = np.random.default_rng(0)
    w = {"A": source.standard_normal((2, 4)), "b": source.standard_normal(2)}
    solution = minimise(readings, w, start={"y": np.ones(4)}, max_iterations=0)
    damped, here, _, _ = pieces(readings, w, solution, 0.1)
    assert implicit_jacobian(readings, solution, 0.1) == pytest.approx(-np.linalg.solve(damped, here), rel=1e-10)


def test_many_unknowns_with_a_sparse_hessian_tend_to_the_derivative_of_the_pseudo_inverse(chain):
    size, source = 220, np.random.default_rng(0)
    a, c = source.uniform(-0.05, 0.05, size), source.standard_normal(size)

    def moved(s):
        matrix = np.zeros((size - 1, size))
        rows = np.arange(size - 1)
        matrix[rows, rows + 1], matrix[rows, rows] = 1 + s * a[:-1], -1.0
        return np.linalg.lstsq(matrix, c[:-1], rcond=None)[0]

    w = {"s": 0.7, "c": c}
    solution = minimise(chain, w, {"a": a}, start={"y": np.ones(size)}, gtol=1e-11)
    assert solution.curvature == 0.0
    assert solution.variables["y"] == pytest.approx(moved(0.7), abs=1e-8)
    expected = (moved(0.7 + 1e-5) - moved(0.7 - 1e-5)) / 2e-5
    found = implicit_jacobian(chain, solution, 1e-8)
    assert np.abs(found[:, 0] - expected).max() < 1e-3 * np.abs(expected).max()
    slope = source.standard_normal(size)
    gradient = implicit_gradient(chain, solution, {"y": slope}, 1e-8)
    assert gradient["s"] == pytest.approx(slope @ found[:, 0], rel=1e-6)
    assert gradient["c"] == pytest.approx(slope @ found[:, 1:], rel=1e-6, abs=1e-6)
    damped = implicit_jacobian(chain, solution, 0.1)
    gradient = implicit_gradient(chain, solution, {"y": slope}, 0.1)
    assert gradient["s"] == pytest.approx(slope @ damped[:, 0], rel=1e-8)
