"""L-BFGS itself: its matrix against the naive one, strong Wolfe conditions, and Newton's method after it."""

import math

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize
from wiberg.runtime import lbfgs, sparse
from wiberg.runtime.problem import Problem

n, k = sp.symbols("n k", integer=True, positive=True)
i, q, step = sp.Idx("i", n), sp.Idx("q", k), sp.Idx("step", (0, n - 2))
y, b = sp.IndexedBase("y", shape=(n,)), sp.IndexedBase("b", shape=(k,))
A, r = sp.IndexedBase("A", shape=(k, n)), sp.IndexedBase("r", shape=(k,))
w, a = sp.Symbol("w", positive=True), sp.Symbol("a", positive=True)


@pytest.fixture(scope="module")
def robust():
    """Robust regression: n unknowns that are all coupled."""
    return wb.compile(
        wb.Energy(
            sp.Sum(sp.sqrt(1 + r[q] ** 2), q) + w * sp.Sum(y[i] ** 2, i) / 2, variables=[y], weights=[w], data=[A, b],
            where={r[q]: sp.Sum(A[q, i] * y[i], i) - b[q]}, name="robust",
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def chain():
    """A smoothed line: a sparse Hessian."""
    x = sp.IndexedBase("x", shape=(n,))
    smooth = sp.Sum(sp.sqrt(1 + (y[step + 1] - y[step]) ** 2), step)
    return wb.compile(
        wb.Energy(sp.Sum((y[i] - x[i]) ** 2, i) + a * smooth, variables=[y], weights=[a], data=[x], name="chain")
    )


def regression(count, seed=0):
    rng, rows = np.random.default_rng(seed), min(2 * count, 300)
    matrix = rng.standard_normal((rows, count)) / np.sqrt(count)
    return {"A": matrix, "b": matrix @ rng.standard_normal(count) + rng.standard_t(2, rows)}


def ends_of_lbfgs(kernel, weights, data, start, gtol=1e-8):
    """Where L-BFGS alone ends: packed variables (B, m) and what it counted."""
    inputs = kernel.bind(weights, data)
    problem = Problem(kernel, inputs, np.array(np.atleast_2d(start), float), None, gtol, 1000)
    lbfgs._run(problem, newton=False)
    return problem


# ---------------------------------------------------------------------------------------------- the matrix


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(0, 25))
def test_the_direction_is_that_of_the_naive_bfgs_matrix(seed, size, made):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((size, size))
    hessian = root @ root.T + np.eye(size)
    steps, changes = np.zeros((lbfgs.PAIRS, size)), np.zeros((lbfgs.PAIRS, size))
    products, weights = np.zeros(lbfgs.PAIRS), np.zeros(lbfgs.PAIRS)
    pairs = [(s, hessian @ s) for s in rng.standard_normal((made, size))]
    newest = 0
    for s, change in pairs:
        newest = (newest + 1) % lbfgs.PAIRS
        steps[newest], changes[newest], products[newest] = s, change, s @ change
    kept = pairs[-lbfgs.PAIRS :]
    inverse = np.eye(size)
    if kept:
        inverse *= (kept[-1][0] @ kept[-1][1]) / (kept[-1][1] @ kept[-1][1])
    for s, change in kept:
        left = np.eye(size) - np.outer(s, change) / (s @ change)
        inverse = left @ inverse @ left.T + np.outer(s, s) / (s @ change)
    vector = rng.standard_normal(size)
    got = vector.copy()
    lbfgs.apply_inverse(steps.ravel(), changes.ravel(), products, weights, newest, len(kept), size, got)
    np.testing.assert_allclose(got, inverse @ vector, rtol=1e-7, atol=1e-8 * np.abs(inverse).max())


# ---------------------------------------------------------------------------------------------- the line search


LINES = {
    "wave": (lambda t, c: math.sin(3 * t + c[0]) + c[1] ** 2 * t**2, lambda t, c: 3 * math.cos(3 * t + c[0])
             + 2 * c[1] ** 2 * t),
    "barrier": (lambda t, c: t - 0.1 * math.log(0.5 + c[1] ** 2 - t) if t < 0.5 + c[1] ** 2 else math.nan,
                lambda t, c: 1 + 0.1 / (0.5 + c[1] ** 2 - t)),
    "overflow": (lambda t, c: math.inf if t > 1 + c[1] ** 2 else (t - c[0]) ** 2, lambda t, c: 2 * (t - c[0])),
    "quartic": (lambda t, c: (t - c[0]) ** 4 + c[1] * t, lambda t, c: 4 * (t - c[0]) ** 3 + c[1]),
    "gradient not finite": (lambda t, c: (t - c[0]) ** 2,
                            lambda t, c: math.nan if t > 1 + c[1] ** 2 else 2 * (t - c[0])),
}  # fmt: skip


@given(
    st.sampled_from(sorted(LINES)), st.floats(-3, 3), st.floats(-2, 2), st.floats(-1, 1), st.sampled_from([1e-3, 1, 30])
)
def test_a_line_search_ends_where_the_strong_wolfe_conditions_hold(name, c0, c1, origin, first):
    value, slope_of = LINES[name]
    c = (c0, c1)

    def slope_at(t):
        return slope_of(t, c) if math.isfinite(value(t, c)) else math.nan

    energy, slope = value(origin, c), slope_at(origin)
    assume(math.isfinite(energy) and math.isfinite(slope) and abs(slope) > 1e-3)
    assume(math.isfinite(slope_at(origin - math.copysign(1e-6, slope))))  # there is a way down

    def evaluate(address, trial, v, table, extents, instance, prepared, scratch, out):
        out[0] = slope_at(trial[0])
        return value(trial[0], c)

    point, direction, step, trial, there = (np.array([number]) for number in (origin, -slope, 0.0, 0.0, 0.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lbfgs, "call_evaluate", evaluate)
        length, found, evaluations, flattened = lbfgs.search(
            0, None, None, 0, None, None, 1, point, direction, step, energy, -(slope**2), first / abs(slope), trial,
            there, np.zeros(1, np.int64),
        )  # fmt: skip
    assert 0 < evaluations <= lbfgs.TRIALS + 1
    assert length > 0.0 and found == value(trial[0], c) < energy
    assert trial[0] == origin + length * direction[0] and there[0] == slope_at(trial[0])
    assert found <= energy - 1e-4 * length * slope**2
    if name in ("wave", "quartic"):
        assert flattened and abs(there[0] * slope) <= 0.9 * slope**2


def test_where_no_point_is_finite_none_is_taken(monkeypatch):
    monkeypatch.setattr(lbfgs, "call_evaluate", lambda *_: math.nan)
    arrays = [np.array([number]) for number in (1.0, 1.0, 0.0, 0.0, 0.0)]
    length, found, evaluations, _ = lbfgs.search(
        0, None, None, 0, None, None, 1, *arrays[:3], 5.0, -1.0, 1.0, *arrays[3:], np.zeros(1, np.int64)
    )
    assert length == 0.0 and found == 5.0 and evaluations < lbfgs.TRIALS


def test_where_every_point_falls_the_line_is_followed_far(monkeypatch):
    def evaluate(address, trial, v, table, extents, instance, prepared, scratch, out):
        out[0] = -1.0
        return -trial[0]

    monkeypatch.setattr(lbfgs, "call_evaluate", evaluate)
    arrays = [np.array([number]) for number in (0.0, 1.0, 0.0, 0.0, 0.0)]
    length, found, evaluations, flattened = lbfgs.search(
        0, None, None, 0, None, None, 1, *arrays[:3], 0.0, -1.0, 1e-3, *arrays[3:], np.zeros(1, np.int64)
    )
    assert length > 1e25 and found == -length and evaluations == lbfgs.TRIALS and not flattened


# ---------------------------------------------------------------------------------------------- all of it


def test_steps_and_evaluations_are_as_few_as_scipys(robust):
    data, start = regression(100), np.zeros(100)
    ours = ends_of_lbfgs(robust, {"w": 0.1}, data, start, gtol=1e-12).integers[0]
    wanted = math.sqrt(1e-12 * np.abs(robust.gradient({"y": start}, {"w": 0.1}, data)).max())
    theirs = minimize(
        lambda v: robust.value({"y": v}, {"w": 0.1}, data),
        start,
        jac=lambda v: robust.gradient({"y": v}, {"w": 0.1}, data),
        method="L-BFGS-B",
        options={"maxcor": lbfgs.PAIRS, "gtol": wanted, "ftol": 0.0},
    )
    assert ours[0] <= 1.3 * theirs.nit + 3 and ours[1] <= 1.5 * theirs.nfev + 5


def test_one_newton_step_is_enough_after_it(robust):
    data, start = regression(60), np.zeros(60)
    before = ends_of_lbfgs(robust, {"w": 0.1}, data, start).integers[0, 0]
    solution = wb.minimise(robust, {"w": 0.1}, data, start={"y": start}, method="l-bfgs")
    assert solution.status is wb.Status.CONVERGED and solution.iterations - before <= 2


def test_newton_takes_over_where_gradients_get_dearer_than_a_hessian(robust):
    """Columns from 1 to 1e-3: L-BFGS alone needs some thousand steps, Newton's method seven."""
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((90, 30)) * np.geomspace(1, 1e-3, 30)
    data, weights = {"A": matrix, "b": matrix @ rng.standard_normal(30) + rng.standard_t(2, 90)}, {"w": 1e-6}
    solution = wb.minimise(robust, weights, data, start={"y": np.zeros(30)}, method="l-bfgs", max_iterations=200)
    assert solution.converged and lbfgs.PATIENCE + 60 < solution.iterations <= lbfgs.PATIENCE + 60 + 12


def test_below_the_rounding_of_the_energy_no_lines_are_searched(plane):
    offset = wb.minimise(plane, None, plane.data_of("rosenbrock", offset=1e9), start={"y": [-1.2, 1]}, method="l-bfgs")
    plain = wb.minimise(plane, None, plane.data_of("rosenbrock"), start={"y": [-1.2, 1]}, method="l-bfgs")
    assert offset.converged and offset.evaluations <= plain.evaluations + 5


def test_a_line_without_end_is_unbounded_after_one_step(line):
    solution = wb.minimise(line, None, line.data_of("slope"), start={"y": [3.0]}, method="l-bfgs")
    assert solution.status is wb.Status.UNBOUNDED and solution.iterations == 1


@pytest.mark.parametrize("count", [1, 2, 30, 250, 1100])
def test_coupled_unknowns_of_any_number_reach_the_same_minimum(robust, count):
    data, start = regression(count), {"y": np.zeros(count)}
    solution = wb.minimise(robust, {"w": 0.1}, data, start=start, method="l-bfgs")
    assert solution.status is wb.Status.CONVERGED and solution.gradient_norm <= 1e-8
    residual = data["A"] @ solution.variables["y"] - data["b"]
    hessian = data["A"].T @ ((1 + residual**2) ** -1.5 * data["A"].T).T + 0.1 * np.eye(count)
    lowest = np.linalg.eigvalsh(hessian)[0]
    assert lowest / 2 - 1e-9 <= solution.curvature <= lowest + 1e-9
    other = wb.minimise(robust, {"w": 0.1}, data, start=start, method="newton-cg")
    np.testing.assert_allclose(solution.variables["y"], other.variables["y"], atol=1e-6)


@pytest.mark.parametrize("count", [10, 300, 3000])
def test_sparse_hessians_are_used_where_there_are_many_unknowns(chain, count):
    data = {"x": np.random.default_rng(0).standard_normal((3, count))}
    start = {"y": np.zeros((3, count))}
    expected = wb.minimise(chain, {"a": 0.4}, data, start=start)
    solution = wb.minimise(chain, {"a": 0.4}, data, start=start, method="l-bfgs")
    assert solution.converged.all() and (solution.gradient_norm <= 1e-8).all() and (solution.curvature > 0).all()
    np.testing.assert_allclose(solution.variables["y"], expected.variables["y"], atol=1e-8)
    assert (solution.iterations > expected.iterations).all()
    limited = wb.minimise(chain, {"a": 0.4}, data, start=start, method="l-bfgs", max_iterations=4)
    assert (limited.iterations == 4).all() and (limited.status == wb.Status.ITERATION_LIMIT).all()


def test_few_steps_are_left_to_newton_and_counted_together(monkeypatch, chain):
    monkeypatch.setattr(sparse, "MANY", 0)
    data, start = {"x": np.linspace(-1, 1, 12)}, {"y": np.zeros(12)}
    energies = []
    limit = wb.minimise(chain, {"a": 0.4}, data, start=start, method="l-bfgs").iterations
    for count in range(limit + 1):
        solution = wb.minimise(chain, {"a": 0.4}, data, start=start, method="l-bfgs", max_iterations=count)
        assert solution.iterations == count
        energies.append(solution.energy)
    assert energies == sorted(energies, reverse=True) and solution.converged


# ---------------------------------------------------------------------------------------------- the derivative


def test_the_derivative_is_that_of_the_minimiser_only_after_the_newton_step(robust):
    data, start = regression(20), np.zeros(20)

    def minimum(weight):
        return wb.minimise(robust, {"w": weight}, data, start={"y": start}, gtol=1e-12)

    h = 1e-4
    up, down, up2, down2 = (minimum(0.1 + c * h).variables["y"] for c in (1, -1, 2, -2))
    expected = (8 * (up - down) - (up2 - down2)) / (12 * h)

    end = ends_of_lbfgs(robust, {"w": 0.1}, data, start, gtol=1e-5).y[0]
    hessian = robust.hessian({"y": end}, {"w": 0.1}, data)
    without = -np.linalg.solve(hessian, robust.cross({"y": end}, {"w": 0.1}, data))[:, 0]
    solution = wb.minimise(robust, {"w": 0.1}, data, start={"y": start}, method="l-bfgs")
    after = wb.implicit_jacobian(robust, solution, damping=0.0)[:, 0]

    def error(got):
        return np.abs(got - expected).max() / np.abs(expected).max()

    assert error(after) < 1e-8 < 1e-5 < error(without)
