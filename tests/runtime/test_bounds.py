"""Minimising within a box: known solutions, SciPy's, the conditions of a minimum, and the promises of minimise."""

import ctypes
import doctest
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear, minimize, nnls
from wiberg.compiler.machine_code.entry import Interpreter
from wiberg.energies.errors import InputError, InputTypeError, NameMissingError
from wiberg.runtime import Status, minimise, set_threads

n, k = sp.symbols("n k", integer=True, positive=True)
i, j, q = sp.Idx("i", n), sp.Idx("j", n), sp.Idx("q", k)
s, t, u, v = sp.symbols("s t u v", real=True)
y = sp.IndexedBase("y", shape=(n,))
inf = np.inf
module = sys.modules["wiberg.runtime.minimise"]


@pytest.fixture(autouse=True)
def default_threads():
    yield
    set_threads(None)


@pytest.fixture(scope="module")
def least_squares():
    A, b = sp.IndexedBase("A", shape=(k, n)), sp.IndexedBase("b", shape=(k,))
    energy = sp.Sum((sp.Sum(A[q, i] * y[i], i) - b[q]) ** 2, q) / 2
    return wb.compile(wb.Energy(energy, variables=[y], data=[A, b], name="least squares"))


@pytest.fixture(scope="module")
def rough():
    """y'Hy/2 - b'y + sum sin(C y) + sum y^4/10: many minima, and a saddle wherever H is indefinite."""
    H, C, b = sp.IndexedBase("H", shape=(n, n)), sp.IndexedBase("C", shape=(k, n)), sp.IndexedBase("b", shape=(n,))
    energy = sp.Sum(H[i, j] * y[i] * y[j], i, j) / 2 - sp.Sum(b[i] * y[i], i)
    energy += sp.Sum(sp.sin(sp.Sum(C[q, i] * y[i], i)), q) + sp.Sum(y[i] ** 4, i) / 10
    return wb.compile(wb.Energy(energy, variables=[y], data=[H, C, b], name="rough"))


class Rough:
    """The energy `rough` of a batch, in NumPy."""

    def __init__(self, seed, count, size, waves=4, curved=0.0):
        rng = np.random.default_rng(seed)
        half = rng.standard_normal((count, size, size))
        self.H = half + half.transpose(0, 2, 1) + curved * np.eye(size)
        self.C, self.b = 3 * rng.standard_normal((count, waves, size)), rng.standard_normal((count, size))
        self.low, self.high = -rng.uniform(0, 1, (count, size)), rng.uniform(0, 1, (count, size))
        self.low[rng.random(self.low.shape) < 0.2] = -inf
        self.high[rng.random(self.low.shape) < 0.2] = inf
        self.start = 2 * rng.standard_normal((count, size))

    @property
    def data(self):
        return {"H": self.H, "C": self.C, "b": self.b}

    def value(self, b, y):
        return y @ self.H[b] @ y / 2 - self.b[b] @ y + np.sin(self.C[b] @ y).sum() + (y**4).sum() / 10

    def gradient(self, b, y):
        return self.H[b] @ y - self.b[b] + self.C[b].T @ np.cos(self.C[b] @ y) + 0.4 * y**3

    def hessian(self, b, y):
        return self.H[b] - self.C[b].T @ (np.sin(self.C[b] @ y)[:, None] * self.C[b]) + np.diag(1.2 * y**2)

    def minimise(self, kernel, rows=slice(None), **options):
        data = {name: array[rows] for name, array in self.data.items()}
        bounds = {"y": (self.low[rows], self.high[rows])}
        return minimise(kernel, None, data, start={"y": self.start[rows]}, bounds=bounds, **options)


def projected(y, g, low, high):
    return np.clip(y - g, low, high) - y


# ---------------------------------------------------------------------------------------------- known solutions


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 30))
def test_non_negative_least_squares_are_those_of_scipy(least_squares, seed, size):
    rng = np.random.default_rng(seed)
    A, b = rng.standard_normal((8, size + 5, size)), rng.standard_normal((8, size + 5))
    solution = minimise(least_squares, None, {"A": A, "b": b}, start={"y": np.zeros(size)}, bounds={"y": (0, None)})
    expected = np.array([nnls(*pair)[0] for pair in zip(A, b, strict=True)])
    assert solution.converged.all()
    np.testing.assert_allclose(solution.variables["y"], expected, atol=1e-10)
    np.testing.assert_array_equal(solution.active["y"], expected == 0)
    assert solution.iterations.max() <= 3


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 20), rank=st.integers(1, 20))
def test_bounded_least_squares_are_those_of_scipy(least_squares, seed, size, rank):
    rng = np.random.default_rng(seed)
    A, b = rng.standard_normal((rank, size)), rng.standard_normal(rank)
    low = -rng.uniform(0, 0.3, size)
    high = low + rng.uniform(1e-3, 0.6, size)
    solution = minimise(least_squares, None, {"A": A, "b": b}, start={"y": low}, bounds={"y": (low, high)})
    expected = lsq_linear(A, b, (low, high), method="bvls", tol=1e-14)
    assert solution.status is Status.CONVERGED
    assert solution.energy == pytest.approx(expected.cost, rel=1e-9, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(2, 40),
    condition=st.sampled_from([1e1, 1e3, 1e5]),
    degenerate=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_quadratics_of_more_and_toraldo(rough, seed, size, condition, degenerate):
    """Random quadratics of known minimisers, some multipliers as small as 1e-3 (More and Toraldo 1991)."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.standard_normal((size, size)))
    H = turn @ np.diag(np.geomspace(1, condition, size)) @ turn.T
    minimum, side = rng.uniform(-1, 1, size), rng.choice([-1, 0, 1], size)
    low, high = np.where(side < 0, minimum, -1.5), np.where(side > 0, minimum, 1.5)
    multiplier = np.where(rng.random(size) < degenerate, 1e-3, rng.uniform(0.1, 1, size))
    b = H @ minimum + side * multiplier  # gradient -side multiplier at the minimum, but for the quartic term
    b += 0.4 * minimum**3
    solution = minimise(
        rough,
        None,
        {"H": (H + H.T) / 2, "C": np.zeros((1, size)), "b": b},
        start={"y": rng.uniform(-1.5, 1.5, size)},
        bounds={"y": (low, high)},
    )
    assert solution.status is Status.CONVERGED
    np.testing.assert_allclose(solution.variables["y"], minimum, atol=1e-7)
    np.testing.assert_array_equal(solution.active["y"], side != 0)
    assert (solution.variables["y"][side != 0] == minimum[side != 0]).all()
    assert solution.iterations <= 15


x1, x2, x3, x4 = sp.symbols("x1 x2 x3 x4", real=True)
WOOD = 100 * (x2 - x1**2) ** 2 + (1 - x1) ** 2 + 90 * (x4 - x3**2) ** 2 + (1 - x3) ** 2
WOOD += 10 * (x2 + x4 - 2) ** 2 + (x2 - x4) ** 2 / 10
ROSENBROCK = 100 * (x2 - x1**2) ** 2 + (1 - x1) ** 2
BEALE = sum((c - x1 * (1 - x2**p)) ** 2 for c, p in ((sp.Rational(3, 2), 1), (sp.Rational(9, 4), 2), (2.625, 3)))
POWELL = (10**4 * x1 * x2 - 1) ** 2 + (sp.exp(-x1) + sp.exp(-x2) - sp.Float(1.0001)) ** 2
BROWN = (x1 - 10**6) ** 2 + (x2 - sp.Float(2e-6)) ** 2 + (x1 * x2 - 2) ** 2
LOGS = sum(sp.log(x - 2) ** 2 + sp.log(10 - x) ** 2 for x in (x1, x2, x3, x4)) - (x1 * x2 * x3 * x4) ** sp.Rational(
    1, 5
)

KNOWN = {
    "Hock, Schittkowski 1": (ROSENBROCK, [-2, 1], [-inf, -1.5], [inf, inf], [0.0]),
    "Hock, Schittkowski 2": (ROSENBROCK, [-2, 1], [-inf, 1.5], [inf, inf], [0.0504261879, 4.9412293]),
    "Hock, Schittkowski 3": (x2 + 1e-5 * (x2 - x1) ** 2, [10, 1], [-inf, 0], [inf, inf], [0.0]),
    "Hock, Schittkowski 4": ((x1 + 1) ** 3 / 3 + x2, [1.125, 0.125], [1, 0], [inf, inf], [8 / 3]),
    "Hock, Schittkowski 5": (
        sp.sin(x1 + x2) + (x1 - x2) ** 2 - 1.5 * x1 + 2.5 * x2 + 1,
        [0, 0],
        [-1.5, -3],
        [4, 3],
        [-np.sqrt(3) / 2 - np.pi / 3, -1.9132229549810367 + np.pi],
    ),
    "Hock, Schittkowski 38": (WOOD, [-3, -1, -3, -1], [-10] * 4, [10] * 4, [0.0]),
    "Wood": (WOOD, [-3, -1, -3, -1], [-100] * 4, [0, 10, 100, 100], [1.5567008]),
    "Beale": (BEALE, [1, 1], [0.6, 0.5], [10, 100], [0.0]),
    "Beale, cut off": (BEALE, [1, 1], [0.0, 0.5], [2, 100], [None]),
    "Powell, badly scaled": (POWELL, [0, 1], [0, 1], [1, 9], [1.5125900e-10]),
    "Brown, badly scaled": (BROWN, [1, 1], [0, 3e-5], [1e6, 100], [784.0]),
    "logarithms": (LOGS, [9] * 4, [2.001] * 4, [9.999] * 4, [None]),
}


@pytest.mark.filterwarnings("ignore::wiberg.energies.errors.UnboundedDerivativeWarning")
@pytest.mark.parametrize("name", KNOWN)
def test_known_minimum(name):
    energy, start, low, high, values = KNOWN[name]
    symbols = [x1, x2, x3, x4][: len(start)]
    kernel = wb.compile(wb.Energy(energy, variables=symbols))
    names = [str(symbol) for symbol in symbols]
    solution = minimise(
        kernel,
        start=dict(zip(names, map(float, start), strict=True)),
        bounds=dict(zip(names, zip(low, high, strict=True), strict=True)),
        max_iterations=2000,
    )
    assert solution.status in (Status.CONVERGED, *[Status.STALLED] * ("badly scaled" in name)), solution
    found = np.array([solution.variables[name] for name in names])
    assert (low <= found).all() and (found <= high).all()
    value = sp.lambdify([symbols], energy)
    slope = sp.lambdify([symbols], [energy.diff(symbol) for symbol in symbols])
    scipys = minimize(
        value, np.clip(start, low, high), jac=slope, bounds=list(zip(low, high, strict=True)), method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 5000},
    )  # fmt: skip
    expected = [scipys.fun if value is None else value for value in values]
    assert min(abs(solution.energy - value) - 1e-6 * abs(value) for value in expected) <= 1e-12


# ---------------------------------------------------------------------------------------------- a minimum


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 25))
@example(seed=0, size=1)
@example(seed=0, size=2)
def test_conditions_of_a_minimum_hold(rough, seed, size):
    problem = Rough(seed, 16, size)
    solution = problem.minimise(rough, max_iterations=300)
    found, active = solution.variables["y"], solution.active["y"]
    assert solution.converged.all()
    assert ((problem.low <= found) & (found <= problem.high)).all()
    for b in range(16):
        g, free = problem.gradient(b, found[b]), ~active[b]
        assert np.abs(projected(found[b], g, problem.low[b], problem.high[b])).max() < 2e-8
        assert solution.gradient_norm[b] == pytest.approx(
            np.abs(projected(found[b], g, problem.low[b], problem.high[b])).max(), abs=1e-10 * np.abs(g).max() + 1e-12
        )
        assert np.abs(g[free]).max(initial=0) < 2e-8
        at_low, at_high = found[b] == problem.low[b], found[b] == problem.high[b]
        np.testing.assert_array_equal(active[b], (at_low & (g > 0)) | (at_high & (g < 0)))
        lowest = np.linalg.eigvalsh(problem.hessian(b, found[b])[np.ix_(free, free)]).min(initial=inf)
        assert lowest >= -1e-9
        assert solution.curvature[b] == lowest or solution.curvature[b] == pytest.approx(lowest, abs=1e-9 * size)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 12))
def test_scipy_finds_no_lower_energy_nearby(rough, seed, size):
    problem = Rough(seed, 6, size)
    solution = problem.minimise(rough, max_iterations=300)
    for b, found in enumerate(solution.variables["y"]):
        polished = minimize(
            lambda y, b=b: problem.value(b, y), found, jac=lambda y, b=b: problem.gradient(b, y),
            bounds=list(zip(problem.low[b], problem.high[b], strict=True)), method="L-BFGS-B",
        )  # fmt: skip
        assert polished.fun >= solution.energy[b] - 1e-9


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 12))
def test_convex_minimum_is_that_of_scipy(rough, seed, size):
    problem = Rough(seed, 4, size, waves=1, curved=8 * np.sqrt(size))
    problem.C *= 0
    solution = problem.minimise(rough)
    for b, found in enumerate(solution.variables["y"]):
        expected = minimize(
            lambda y, b=b: problem.value(b, y), np.clip(problem.start[b], problem.low[b], problem.high[b]),
            jac=lambda y, b=b: problem.gradient(b, y), method="L-BFGS-B",
            bounds=list(zip(problem.low[b], problem.high[b], strict=True)), options={"ftol": 1e-16, "gtol": 1e-11},
        )  # fmt: skip
        np.testing.assert_allclose(found, expected.x, atol=1e-6)
        assert solution.energy[b] <= expected.fun + 1e-12 * abs(expected.fun)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 20))
def test_energy_never_rises(rough, seed, size):
    problem = Rough(seed, 8, size)
    start = np.clip(problem.start, problem.low, problem.high)
    before = np.array([problem.value(b, start[b]) for b in range(8)])
    for steps in (0, 1, 2, 3, 5, 8, 13, 50):
        energy = problem.minimise(rough, max_iterations=steps).energy
        assert (energy <= before + 1e-12 * (1 + np.abs(before))).all()
        before = energy


def test_convergence_is_quadratic_in_the_end(rough):
    problem = Rough(3, 50, 10, curved=20.0)
    minima = problem.minimise(rough, gtol=1e-13).y
    errors = np.array(
        [np.abs(problem.minimise(rough, max_iterations=c, gtol=1e-13).y - minima).max(1) for c in range(20)]
    )
    close = (errors[:-1] < 1e-2) & (errors[:-1] > 1e-9)
    assert close.sum() > 50
    assert (errors[1:][close] <= 100 * errors[:-1][close] ** 2 + 1e-14).all()


def test_bounds_that_are_far_away_change_nothing(rough):
    problem = Rough(4, 30, 6, curved=10.0)
    problem.low[:], problem.high[:] = -1e3, 1e3
    free = minimise(rough, None, problem.data, start={"y": problem.start})
    within = problem.minimise(rough)
    assert within.converged.all() and not within.active["y"].any()
    np.testing.assert_allclose(within.energy, free.energy, rtol=1e-9)
    assert within.evaluations.mean() < 1.2 * free.evaluations.mean()


# ---------------------------------------------------------------------------------------------- saddles, degenerate


@pytest.mark.parametrize(
    "energy, low, high, start, minima",
    [
        (-u * t, (0, 0), (1, 1), (0, 0), [(1, 1)]),
        (-u * t, (-1, -1), (0, 0), (0, 0), [(-1, -1)]),
        (-u * t, (-1, 0), (0, 1), (0, 0), [(0, 0)]),
        (-(t**2), (0, 0), (1, 1), (0, 0), [(1, 0)]),
        (-(t**2), (-1, 0), (0, 1), (0, 0), [(-1, 0)]),
        (-(t**2) - u**2, (-1, -2), (1, 2), (0, 0), [(a, b) for a in (-1, 1) for b in (-2, 2)]),
        (u**2 - t**2 + 4 * t * u, (0, 0), (1, 1), (0, 0), [(1, 0)]),
        (t**4, (0, 0), (1, 1), (0, 0), [(0, 0)]),
        (t + u, (0, -2), (1, 2), (0.5, 0), [(0, -2)]),
        ((t - 1) ** 3 + u**2, (0, -1), (3, 1), (2, 1), [(1, 0), (0, 0)]),
    ],
)
def test_saddles_and_multipliers_of_zero(energy, low, high, start, minima):
    kernel = wb.compile(wb.Energy(energy + 0 * t + 0 * u if energy.has(u) else energy + u**2, variables=[t, u]))
    solution = minimise(
        kernel,
        start={"t": float(start[0]), "u": float(start[1])},
        bounds={"t": (low[0], high[0]), "u": (low[1], high[1])},
    )
    assert solution.status is Status.CONVERGED
    found = solution.variables["t"], solution.variables["u"]
    assert min(np.abs(np.subtract(found, m)).max() for m in minima) < 1e-3


def test_unbounded_within_a_half_open_box():
    kernel = wb.compile(wb.Energy(-t - u**2, variables=[t, u]))
    options = {"start": {"t": 1.0, "u": 0.1}}
    assert minimise(kernel, bounds={"t": (0, None), "u": (-1, 1)}, **options).status is Status.UNBOUNDED
    solution = minimise(kernel, bounds={"t": (0, 7), "u": (-1, 1)}, **options)
    assert (solution.status, solution.energy, solution.curvature) == (Status.CONVERGED, -8.0, inf)


def test_fixed_entries_stay(rough):
    problem = Rough(5, 20, 6)
    fixed = np.arange(6) % 2 == 0
    problem.low[:, fixed] = problem.high[:, fixed] = 0.25
    solution = problem.minimise(rough, max_iterations=300)
    assert solution.converged.all()
    assert (solution.variables["y"][:, fixed] == 0.25).all()
    assert solution.active["y"][:, fixed].all()


def test_iteration_limit_and_zero_steps(rough):
    problem = Rough(6, 10, 6)
    solution = problem.minimise(rough, max_iterations=0)
    assert set(solution.status) == {Status.ITERATION_LIMIT}
    np.testing.assert_array_equal(solution.variables["y"], np.clip(problem.start, problem.low, problem.high))


# ---------------------------------------------------------------------------------------------- domains


@pytest.mark.filterwarnings("ignore::wiberg.energies.errors.UnboundedDerivativeWarning")
@pytest.mark.parametrize(
    "energy, bounds, start, expected, active",
    [
        (t - 2 * sp.log(t), (0, None), 0.1, 2.0, False),
        (t - 2 * sp.log(t), (0, None), 1e-9, 2.0, False),
        (t - 2 * sp.log(t), (0, 1), 0.1, 1.0, True),
        (t - 2 * sp.log(t), (3, None), 50.0, 3.0, True),
        (sp.sqrt(t) + (t - 1) ** 2, (0.2, None), 0.9, 0.70157, False),
        (sp.sqrt(t), (1e-6, 4), 3.0, 1e-6, True),
        (sp.sqrt(1 - t**2), (-1 + 1e-9, 1 - 1e-9), 0.3, 1 - 1e-9, True),
        (sp.log(t), (1e-3, None), 1.0, 1e-3, True),
        (1 / t + t, (0, None), 1e-3, 1.0, False),
        (-sp.log(t), (None, 3), 1.0, 3.0, True),
    ],
)
def test_domain_that_ends_at_the_bound(energy, bounds, start, expected, active):
    kernel = wb.compile(wb.Energy(energy, variables=[t]))
    solution = minimise(kernel, start={"t": start}, bounds={"t": bounds}, gtol=1e-7)
    assert solution.status is Status.CONVERGED
    assert solution.variables["t"] == pytest.approx(expected, rel=1e-4)
    assert solution.active["t"] == active


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("begin", ["start", "candidates", "declared"])
def test_no_point_outside_the_box_is_evaluated(monkeypatch, seed, begin):
    """The interpreter shows every point at which the energy or its derivatives are evaluated."""
    size, seen, plain = 1 + seed % 5, [], Interpreter.evaluate

    def evaluate(self, address, *arguments):
        if any(array.role == "variable" for array in self.program.arrays.values()):
            seen.append(np.array((ctypes.c_double * size).from_address(address)))
        return plain(self, address, *arguments)

    monkeypatch.setattr(Interpreter, "evaluate", evaluate)
    problem = Rough(seed, 1, size)
    H, z = sp.IndexedBase("H", shape=(n, n)), sp.IndexedBase("z", shape=(k, n))
    energy = sp.Sum(H[i, j] * y[i] * y[j], i, j) + sp.Sum(sp.sin(5 * y[i]) + y[i] ** 4, i)
    declared = {y[i]: z[q, i]} if begin == "declared" else None
    kernel = wb.compile(wb.Energy(energy, variables=[y], data=[H, z], candidates=declared), backend="reference")
    low, high, far = problem.low[0], problem.high[0], np.linspace(-4, 4, 5)[:, None] * np.ones(size)
    options = {"start": {"start": {"y": problem.start[0]}}, "candidates": {"candidates": {"y": far}}}
    data = {"H": problem.H[0], "z": far}
    solution = minimise(kernel, None, data, bounds={"y": (low, high)}, **options.get(begin, {}))
    assert len(seen) >= solution.evaluations > 0
    assert all((low <= point).all() and (point <= high).all() for point in seen)


def test_bound_that_is_no_point_of_the_energy_holds_what_is_pushed_to_it():
    """-t log t has no value at 0, where it is lowest."""
    kernel = wb.compile(wb.Energy(-t * sp.log(t) + (u - t) ** 2, variables=[t, u]))
    solution = minimise(kernel, start={"t": 0.1, "u": 1.0}, bounds={"t": (0, 0.3)})
    assert solution.status is Status.CONVERGED
    assert 0 < solution.variables["t"] <= 1e-8 and solution.gradient_norm <= 1e-8
    assert solution.active["t"] and solution.curvature == pytest.approx(2)


def test_bound_at_which_the_energy_is_infinite():
    kernel = wb.compile(wb.Energy(-sp.log(1 - t) - 3 * t + 1 / (t + 2) ** 2 * 0 + u**2, variables=[t, u]))
    solution = minimise(kernel, start={"t": 0.99, "u": 1.0}, bounds={"t": (-1, 1)})
    assert solution.status is Status.CONVERGED
    assert solution.variables["t"] == pytest.approx(2 / 3)


# ---------------------------------------------------------------------------------------------- promises


def poisoned(count, size):
    """Problems of which every fifth is not finite or unbounded below."""
    problem = Rough(7, count, size, curved=3.0)
    problem.start[0::20], problem.H[5::20], problem.b[10::20] = np.nan, 1e300, 1e308
    problem.start[15::20] = inf
    return problem


def same_bits(one, other, rows):
    for name in ("energies", "reals", "integers", "y", "held"):
        assert getattr(one, name).tobytes() == np.ascontiguousarray(getattr(other, name)[rows]).tobytes(), name


@pytest.mark.parametrize("size", [1, 2, 7, 25])
def test_poisoned_instances_change_no_other_bit(rough, size):
    problem = poisoned(200, size)
    whole = problem.minimise(rough)
    sound = np.flatnonzero(np.arange(200) % 5 != 0)
    assert whole.converged[sound].all()
    assert (whole.status[0::20] == Status.NOT_FINITE).all() and (whole.status[15::20] == Status.NOT_FINITE).all()
    same_bits(problem.minimise(rough, sound), whole, sound)
    for one in sound[:5]:
        same_bits(problem.minimise(rough, slice(one, one + 1)), whole, slice(one, one + 1))


@pytest.mark.parametrize("size", [2, 9])
def test_order_and_threads_change_no_bit(rough, size):
    problem = Rough(8, 300, size)
    whole = problem.minimise(rough)
    order = np.random.default_rng(0).permutation(300)
    for threads in (1, 2, 5):
        set_threads(threads)
        same_bits(problem.minimise(rough, order), whole, order)


def test_shared_and_repeated_bounds_give_the_same_bits(rough):
    problem = Rough(9, 20, 3)
    low, high = problem.low[0], problem.high[0]
    shared = minimise(rough, None, problem.data, start={"y": problem.start}, bounds={"y": (low, high)})
    problem.low[:], problem.high[:] = low, high
    same_bits(shared, problem.minimise(rough), slice(None))


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_units_do_not_matter(rough, unit, scale):
    """E(y) scale for y in other units, in a box in those: the same held variables and minima."""
    problem = Rough(10, 40, 5, curved=25.0)
    problem.C *= 0
    H, b, a = sp.IndexedBase("H", shape=(n, n)), sp.IndexedBase("b", shape=(n,)), sp.Symbol("a", positive=True)
    energy = sp.Sum(H[i, j] * y[i] * y[j], i, j) / 2 - sp.Sum(b[i] * y[i], i) + a * sp.Sum(y[i] ** 4, i)
    kernel = wb.compile(wb.Energy(energy, variables=[y], data=[H, b, a]))

    def solve(unit, scale):
        data = {"H": scale * problem.H / unit**2, "b": scale * problem.b / unit, "a": 0.1 * scale / unit**4}
        bounds = {"y": (unit * problem.low, unit * problem.high)}
        return minimise(kernel, None, data, start={"y": unit * problem.start}, bounds=bounds, gtol=1e-9 * scale / unit)

    plain, other = solve(1.0, 1.0), solve(unit, scale)
    assert set(other.status) <= {Status.CONVERGED, Status.STALLED}
    np.testing.assert_array_equal(other.held, plain.held)
    np.testing.assert_allclose(other.y / unit, plain.y, atol=1e-7)


def test_solution_is_kept_with_its_active_variables(rough):
    solution = Rough(11, 12, 4).minimise(rough)
    again = pickle.loads(pickle.dumps(solution))
    np.testing.assert_array_equal(again.active["y"], solution.active["y"])
    assert solution.active["y"].dtype == bool and solution.active["y"].shape == (12, 4)
    held = solution.active["y"].sum()
    assert f"bounds hold {held} of 48 unknowns" in repr(solution)


def test_without_bounds_nothing_is_active(rough):
    problem = Rough(11, 3, 4, curved=9.0)
    solution = minimise(rough, None, problem.data, start={"y": problem.start})
    assert not solution.active["y"].any() and solution.active["y"].shape == (3, 4)
    assert "bounds" not in repr(solution)


# ---------------------------------------------------------------------------------------------- what is given


@pytest.fixture(scope="module")
def two_variables():
    """sum (y - a)^2 + (t - 1)^2 with a (n,)."""
    a = sp.IndexedBase("a", shape=(n,))
    energy = sp.Sum((y[i] - a[i]) ** 2, i) + (t - 1) ** 2
    return wb.compile(wb.Energy(energy, variables=[y, t], data=[a], name="pair"))


A = np.array([3.0, -3.0, 0.5])
START = {"y": np.zeros(3), "t": 0.0}


@pytest.mark.parametrize(
    "bounds, y, t",
    [
        ({}, [3, -3, 0.5], 1),
        ({"y": (-1, 1)}, [1, -1, 0.5], 1),
        ({"y": (None, 1)}, [1, -3, 0.5], 1),
        ({"y": [-1, inf]}, [3, -1, 0.5], 1),
        ({"y": ([0, -2, 1], None), "t": (2, 3)}, [3, -2, 1], 2),
        ({"y": ([0, None, 1], [2, None, None])}, [2, -3, 1], 1),
        ({"y": (np.float32(-1), np.array([1, 2, 3]))}, [1, -1, 0.5], 1),
        ({"t": (-1, 0.5)}, [3, -3, 0.5], 0.5),
        ({"t": (0.25, 0.25)}, [3, -3, 0.5], 0.25),
        ({"y": ([[0, 0, 0]], None)}, [[3, 0, 0.5]], [1]),
        ({"y": ([[0, 0, 0], [-1, -1, 1]], 2)}, [[2, 0, 0.5], [2, -1, 1]], [1, 1]),
        ({"y": (None, [[1], [2]]), "t": ([0, 2], 5)}, [[1, -3, 0.5], [2, -3, 0.5]], [1, 2]),
        ({"t": ([0, 2], None)}, [[3, -3, 0.5]] * 2, [1, 2]),
    ],
)
def test_forms_of_bounds(two_variables, bounds, y, t):
    solution = minimise(two_variables, None, {"a": A}, start=START, bounds=bounds)
    np.testing.assert_allclose(solution.variables["y"], y)
    np.testing.assert_allclose(solution.variables["t"], t)
    assert solution.variables["y"].shape == np.shape(y)


@pytest.mark.parametrize(
    "bounds, error, words",
    [
        ([(0, 1)], InputTypeError, ["pair", "bounds must be a dict of pairs", "list"]),
        ({"yy": (0, 1)}, NameMissingError, ["'yy'", "did you mean 'y'", "variables: y, t"]),
        ({"y": 3}, InputTypeError, ["bounds y", "pair (low, high)", "int"]),
        ({"y": (0, 1, 2)}, InputTypeError, ["bounds y", "pair (low, high)", "3 of them"]),
        ({"y": np.zeros((2, 3))}, InputTypeError, ["pair (low, high)", "ndarray"]),
        ({"y": ([0, 2, 0], 1)}, InputError, ["pair", "y[1]", "low 2", "high 1"]),
        ({"t": (1, 0)}, InputError, ["bounds t:", "low 1", "high 0"]),
        ({"t": ([0, 1], [1, 0])}, InputError, ["bounds t of instance 1", "low 1", "high 0"]),
        ({"t": (inf, None)}, InputError, ["bounds t", "nothing lies between"]),
        ({"t": (None, -inf)}, InputError, ["bounds t", "nothing lies between"]),
        ({"y": (np.nan, 1)}, InputError, ["bounds y: low has NaN"]),
        ({"y": (0, [1, 1, np.nan])}, InputError, ["bounds y: high has NaN at [2]"]),
        ({"y": ([0, 1], 1)}, InputError, ["bounds y: low", "(2,)", "(3,)"]),
        ({"y": (np.zeros((2, 2, 3)), 1)}, InputError, ["bounds y: low", "(2, 2, 3)", "(3,)", "batch axis"]),
        ({"t": (np.zeros(2), np.ones(3))}, InputError, ["batch sizes disagree", "2 and 3"]),
        ({"t": ("a", 1)}, InputTypeError, ["bounds t: low", "numbers"]),
        ({"t": (1j, 2)}, InputTypeError, ["bounds t: low", "complex"]),
        ({"y": ([[0, 1], [2]], 2)}, InputTypeError, ["bounds y: low", "not an array"]),
    ],
)
def test_bad_bounds(two_variables, bounds, error, words):
    with pytest.raises(error) as caught:
        minimise(two_variables, None, {"a": A}, start=START, bounds=bounds)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("where", ["data", "start", "candidates"])
def test_batch_sizes_that_disagree(two_variables, where):
    data = {"a": np.tile(A, (3, 1)) if where == "data" else A}
    start = {"start": {"y": np.zeros((3, 3)), "t": 0.0} if where == "start" else START}
    if where == "candidates":
        start = {"candidates": {"y": np.zeros((3, 4, 3)), "t": np.zeros((3, 4))}}
    with pytest.raises(InputError, match="batch sizes disagree: bounds have 2"):
        minimise(two_variables, None, data, bounds={"t": (np.zeros(2), 1)}, **start)


def test_method_without_bounds_says_so(two_variables, monkeypatch):
    monkeypatch.setattr(module, "METHODS", {**module.METHODS, "plain": None})
    with pytest.raises(InputError, match=r"method 'plain' takes no bounds=; use method='trust-region'"):
        minimise(two_variables, None, {"a": A}, start=START, bounds={"t": (0, 1)}, method="plain")


@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("candidates", ["shared", "batched", "declared"])
@pytest.mark.parametrize("bounds", ["shared", "batched"])
def test_the_lowest_candidate_within_the_box_is_the_start(batch, candidates, bounds):
    z, a = sp.IndexedBase("z", shape=(k, n)), sp.IndexedBase("a", shape=(n,))
    declared = {y[i]: z[q, i]} if candidates == "declared" else None
    energy = sp.Sum(sp.cos(3 * (y[i] - a[i])), i)
    kernel = wb.compile(wb.Energy(energy, variables=[y], data=[a, z], candidates=declared))
    rng = np.random.default_rng(0)
    points, rows = rng.uniform(-3, 3, (3, 7, 2)), 3 if "batched" in (candidates, bounds) else batch or 1
    low, high = -rng.uniform(0, 2, (3, 2)), rng.uniform(0, 2, (3, 2))
    data = {"a": rng.standard_normal((batch, 2)) if batch else rng.standard_normal(2), "z": points[0]}
    given_points = points if candidates == "batched" else points[0]
    low, high = (low, high) if bounds == "batched" else (low[0], high[0])
    options = {} if candidates == "declared" else {"candidates": {"y": given_points}}
    solution = minimise(kernel, None, data, bounds={"y": (low, high)}, max_iterations=0, **options)
    moved = [np.clip(*(np.broadcast_to(one, (rows, 7, 2)) for one in (given_points, *(
        side[:, None] if side.ndim == 2 else side for side in (low, high)))))][0]  # fmt: skip
    energies = np.cos(3 * (moved - np.reshape(data["a"], (-1, 1, 2)))).sum(axis=2)
    expected = moved[np.arange(rows), energies.argmin(axis=1)]
    np.testing.assert_array_equal(solution.y, expected)
    assert (np.ravel(solution.evaluations) == 2).all()


def test_examples_of_the_documentation_run():
    page = (Path(__file__).parents[2] / "docs" / "minimisers.md").read_text()
    section = page[page.index("## Box bounds") :].split("\n## ")[0]
    example = doctest.DocTestParser().get_doctest(section, {}, "Box bounds", "docs/minimisers.md", 0)
    assert len(example.examples) > 10
    assert doctest.DocTestRunner().run(example).failed == 0


# ---------------------------------------------------------------------------------------------- with other options


def wells():
    """Minima at every whole number: low within a box, lower outside of it."""
    t, a = sp.Symbol("t", real=True), sp.Symbol("a", positive=True)
    return wb.compile(wb.Energy(sp.sin(sp.pi * t) ** 2 + a * t / 100, variables=[t], weights=[a]), backend="reference")


def test_restarts_and_minima_stay_within_the_box():
    kernel = wells()
    solution = wb.minimise(
        kernel, {"a": [1.0, 1.0]}, start={"t": 3.2}, bounds={"t": (0.6, 4.5)}, restarts=12, minima=3, seed=1
    )
    for one in solution.minima:
        found = one.variables["t"][np.isfinite(one.energy)]
        assert ((found >= 0.6) & (found <= 4.5)).all()
    assert solution.variables["t"] == pytest.approx([1.0, 1.0], abs=0.01)
    assert not solution.active["t"].any()
    assert (np.diff([one.energy for one in solution.minima], axis=0) > 0).all()


def test_the_lowest_minimum_may_be_held_by_a_bound():
    solution = wb.minimise(
        wells(), {"a": 1000.0}, start={"t": 3.2}, bounds={"t": (0.5, 4.5)}, restarts=12, minima=2, trace=True
    )
    assert solution.variables["t"] == 0.5
    assert solution.active["t"]
    assert solution.trace.variables["t"].min() >= 0.5


def test_a_run_in_parts_gives_the_same_with_bounds():
    kernel, told = wells(), []
    start, low = np.linspace(0.6, 4.4, 50), np.linspace(0.5, 1.4, 50)
    box = {"t": (low, np.full(50, 4.5))}
    plain = wb.minimise(kernel, {"a": 1000.0}, start={"t": start}, bounds=box)
    assert plain.active["t"].all()
    parts = wb.minimise(
        kernel, {"a": 1000.0}, start={"t": start}, bounds=box, callback=lambda done, total: told.append(done)
    )
    assert len(told) > 1
    np.testing.assert_array_equal(plain.variables["t"], parts.variables["t"])
    np.testing.assert_array_equal(plain.active["t"], parts.active["t"])
