"""Minimising within a box over many unknowns with a sparse Hessian: against the dense driver and SciPy."""

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from energies_table import TABLE, draw
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from wiberg.runtime import Status, set_threads, sparse
from wiberg.runtime.bounds.held_slots import ends_of

n, m, k = sp.symbols("n m k", integer=True, positive=True)
i, j, edge = sp.Idx("i", n), sp.Idx("j", m), sp.Idx("edge", k)
p, q = sp.Idx("p", (0, n - 2)), sp.Idx("q", (0, m - 2))
y, x, c = (sp.IndexedBase(name, shape=(n,)) for name in "yxc")
e = sp.IndexedBase("e", shape=(k, 2), integer=True)
a = sp.Symbol("a", positive=True)


@pytest.fixture(autouse=True)
def default_threads():
    yield
    set_threads(None)


@pytest.fixture
def always(monkeypatch):
    """Small problems go the way of large ones."""
    monkeypatch.setattr(sparse, "MANY", 0)


@pytest.fixture(scope="module")
def chain():
    """A chain of waves: sum c_i sin(3 y_i) + y_i^4/10 - x_i y_i + a (y_i+1 - y_i)^2; many minima and saddles."""
    energy = sp.Sum(c[i] * sp.sin(3 * y[i]) + y[i] ** 4 / 10 - x[i] * y[i], i) + a * sp.Sum((y[p + 1] - y[p]) ** 2, p)
    return wb.compile(wb.Energy(energy, variables=[y], weights=[a], data=[x, c], name="chain"))


@pytest.fixture(scope="module")
def graph():
    """The same on a graph of random edges."""
    energy = sp.Sum(c[i] * sp.sin(3 * y[i]) + y[i] ** 4 / 10 - x[i] * y[i], i)
    energy += a * sp.Sum((y[e[edge, 0]] - y[e[edge, 1]]) ** 2, edge)
    return wb.compile(wb.Energy(energy, variables=[y], weights=[a], data=[x, c, e], name="graph"))


@pytest.fixture(scope="module")
def denoise():
    u, z = (sp.IndexedBase(name, shape=(n, m)) for name in "uz")
    smooth = sp.Sum(sp.sqrt((u[p + 1, j] - u[p, j]) ** 2 + a**2), p, j)
    smooth += sp.Sum(sp.sqrt((u[i, q + 1] - u[i, q]) ** 2 + a**2), i, q)
    energy = sp.Sum((u[i, j] - z[i, j]) ** 2, i, j) / 2 + smooth / 2
    return wb.compile(wb.Energy(energy, variables=[u], weights=[a], data=[z], name="denoise"))


def problem(seed, size, count, edges=False, waves=1.0):
    rng = np.random.default_rng(seed)
    data = {"x": rng.standard_normal((count, size)), "c": waves * rng.standard_normal((count, size))}
    if edges:
        data["e"] = rng.integers(0, size, (2 * size, 2))
    low, high = -rng.uniform(0, 1.5, (count, size)), rng.uniform(0, 1.5, (count, size))
    low[rng.random(low.shape) < 0.2], high[rng.random(low.shape) < 0.2] = -np.inf, np.inf
    return {"a": rng.uniform(0.1, 2)}, data, {"y": 2 * rng.standard_normal((count, size))}, {"y": (low, high)}


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(201, 400), edges=st.booleans())
def test_conditions_of_a_minimum_hold(chain, graph, seed, size, edges):
    kernel = graph if edges else chain
    w, data, start, bounds = problem(seed, size, 3, edges)
    solution = wb.minimise(kernel, w, data, start=start, bounds=bounds, max_iterations=400)
    found, active, (low, high) = solution.variables["y"], solution.active["y"], bounds["y"]
    assert solution.converged.all()
    assert ((low <= found) & (found <= high)).all()
    g = kernel.gradient(solution.variables, w, data)
    np.testing.assert_allclose(np.abs(np.clip(found - g, low, high) - found).max(1), solution.gradient_norm, atol=1e-12)
    assert solution.gradient_norm.max() <= 1e-8
    np.testing.assert_array_equal(active, ((found == low) & (g > 0)) | ((found == high) & (g < 0)))
    for b, matrix in enumerate(kernel.hessian(solution.variables, w, data)):
        lowest = np.linalg.eigvalsh(matrix.toarray()[np.ix_(~active[b], ~active[b])])[0]
        assert lowest >= -1e-9
        assert solution.curvature[b] <= lowest + 1e-9


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(201, 300), edges=st.booleans())
def test_convex_minimum_is_that_of_scipy(chain, graph, seed, size, edges):
    kernel = graph if edges else chain
    w, data, start, bounds = problem(seed, size, 1, edges, waves=0.0)
    data = {name: array if name == "e" else array[0] for name, array in data.items()}
    low, high = (side[0] for side in bounds["y"])
    solution = wb.minimise(kernel, w, data, start={"y": start["y"][0]}, bounds={"y": (low, high)})
    expected = minimize(
        lambda v: kernel.value({"y": v}, w, data),
        np.clip(start["y"][0], low, high),
        jac=lambda v: kernel.gradient({"y": v}, w, data),
        bounds=list(zip(low, high, strict=True)),
        method="L-BFGS-B",
        options={"ftol": 1e-16, "gtol": 1e-9, "maxiter": 10_000, "maxfun": 100_000},
    )
    assert solution.status is Status.CONVERGED
    assert solution.energy <= expected.fun + 1e-11 * abs(expected.fun)
    np.testing.assert_allclose(solution.variables["y"], expected.x, atol=1e-3)


@pytest.mark.parametrize("name", ["denoise", "rosenbrock", "springs", "diagonal", "three_sums", "gathered", "ends"])
@pytest.mark.parametrize("width", [0.05, 0.5])
def test_energies_of_the_table_are_minimised_as_by_the_dense_driver(name, width, monkeypatch):
    kernel = wb.compile(TABLE[name](), backend="reference")
    start, w, data = draw(kernel.energy, 4, seed=1)
    bounds = {name: (value - width, value + width) for name, value in start.items()}
    expected = wb.minimise(kernel, w, data, start=start, bounds=bounds)
    monkeypatch.setattr(sparse, "MANY", 0)
    got = wb.minimise(kernel, w, data, start=start, bounds=bounds)
    assert got.status == expected.status == Status.CONVERGED
    assert got.energy == pytest.approx(expected.energy, rel=1e-9)
    for one in got.active:
        np.testing.assert_array_equal(got.active[one], expected.active[one])


def test_an_image_of_16384_pixels_within_bounds(denoise):
    z = np.random.default_rng(0).standard_normal((128, 128))
    solution = wb.minimise(denoise, {"a": 0.1}, {"z": z}, start={"u": z}, bounds={"u": (-0.2, 0.3)})
    g = denoise.gradient(solution.variables, {"a": 0.1}, {"z": z}).reshape(z.shape)
    found = solution.variables["u"]
    assert solution.status is Status.CONVERGED and solution.iterations < 30
    assert np.abs(np.clip(found - g, -0.2, 0.3) - found).max() <= 1e-8
    assert 0.1 < solution.active["u"].mean() < 0.9


def test_saddles_and_multipliers_of_zero(always):
    """y = 0 is critical: a saddle inside, at a bound with multipliers of 0, and where nothing can move down."""
    wells = wb.compile(wb.Energy(sp.Sum(y[i] ** 4 / 4 - y[i] ** 2 / 2, i), variables=[y]), backend="reference")
    options = {"start": {"y": np.zeros(4)}}
    both = wb.minimise(wells, bounds={"y": (-0.5, 0.25)}, **options)
    assert both.status is Status.CONVERGED and set(both.variables["y"]) <= {-0.5, 0.25}
    up = wb.minimise(wells, bounds={"y": (0, 0.5)}, **options)
    assert up.status is Status.CONVERGED and (up.variables["y"] == 0.5).all() and up.curvature == np.inf
    pairs = wb.compile(wb.Energy(sp.Sum(y[p] * y[p + 1], p), variables=[y]), backend="reference")
    stuck = wb.minimise(pairs, bounds={"y": (0, 1)}, **options)
    assert stuck.status is Status.CONVERGED and stuck.energy == 0.0 and stuck.active["y"].all()


def test_statuses(always, chain):
    w, data, start, bounds = problem(1, 30, 4)
    start["y"][0], start["y"][1, 3] = np.nan, np.inf
    solution = wb.minimise(chain, w, data, start=start, bounds=bounds)
    assert list(solution.status[:2]) == [Status.NOT_FINITE] * 2 and solution.converged[2:].all()
    none = wb.minimise(chain, w, data, start={"y": np.zeros(30)}, bounds=bounds, max_iterations=0)
    assert set(none.status) == {Status.ITERATION_LIMIT}
    downhill = wb.compile(wb.Energy(-sp.Sum(y[i] + y[i] ** 2, i), variables=[y]), backend="reference")
    half_open = wb.minimise(downhill, start={"y": np.ones(5)}, bounds={"y": (0, None)})
    assert half_open.status is Status.UNBOUNDED
    fixed = wb.minimise(chain, w, data, start={"y": np.zeros(30)}, bounds={"y": (0.5, 0.5)})
    assert fixed.converged.all() and (fixed.variables["y"] == 0.5).all() and (fixed.curvature == np.inf).all()


def test_no_point_outside_the_box_is_evaluated(always):
    """The logarithms have no value outside; nowhere inside is a value missing."""
    energy = sp.Sum(-sp.log(y[i]) - sp.log(1 - y[i]) + x[i] * y[i], i) + sp.Sum((y[p + 1] - y[p]) ** 2, p)
    kernel = wb.compile(wb.Energy(energy, variables=[y], data=[x]))
    rng = np.random.default_rng(0)
    data, start = {"x": 20 * rng.standard_normal((9, 40))}, {"y": np.full(40, 7.0)}
    solution = wb.minimise(kernel, None, data, start=start, bounds={"y": (0.05, 0.9)})
    assert solution.converged.all() and solution.active["y"].any()


def test_bounds_that_are_no_points_of_the_energy(always):
    """-y log y has no value at 0, to which some are pushed; the others are not held up."""
    energy = sp.Sum(-y[i] * sp.log(y[i]) + 3 * (y[i] - x[i]) ** 2, i) + sp.Sum((y[p + 1] - y[p]) ** 2, p) / 10
    kernel = wb.compile(wb.Energy(energy, variables=[y], data=[x]))
    data = {"x": np.where(np.arange(30) % 3 == 0, -1.0, 0.8)}
    solution = wb.minimise(kernel, None, data, start={"y": np.full(30, 0.5)}, bounds={"y": (0, None)})
    assert solution.status is Status.CONVERGED and solution.iterations < 40
    held = solution.active["y"]
    np.testing.assert_array_equal(held, data["x"] < 0)
    assert (solution.variables["y"][held] < 1e-8).all() and (solution.variables["y"][~held] > 0.5).all()


def test_order_threads_and_neighbours_change_no_bit(always, chain, graph):
    for kernel, edges in ((chain, False), (graph, True)):
        w, data, start, bounds = problem(2, 60, 40, edges)
        start["y"][7] = np.nan
        whole = wb.minimise(kernel, w, data, start=start, bounds=bounds)
        order = np.random.default_rng(0).permutation(40)[:30]
        some = {name: array if name == "e" else array[order] for name, array in data.items()}
        for threads in (1, 2):
            set_threads(threads)
            part = wb.minimise(
                kernel, w, some, start={"y": start["y"][order]}, bounds={"y": tuple(b[order] for b in bounds["y"])}
            )
            for name in ("y", "energies", "reals", "integers", "held"):
                assert getattr(part, name).tobytes() == getattr(whole, name)[order].tobytes()


def test_candidates_are_moved_into_the_box(always, chain):
    w, data, _, bounds = problem(3, 20, 5)
    candidates = {"y": np.linspace(-3, 3, 7)[:, None] * np.ones(20)}
    solution = wb.minimise(chain, w, data, candidates=candidates, bounds=bounds, max_iterations=0)
    low, high = bounds["y"]
    moved = np.clip(candidates["y"][:, None], low, high)
    energies = np.array([chain.value({"y": one}, w, data) for one in moved])
    np.testing.assert_allclose(solution.energy, energies.min(axis=0))


@pytest.mark.parametrize("name", ["denoise", "springs", "gathered", "three_sums"])
def test_ends_of_slots_are_those_of_their_entries(name):
    """Slots that are marked one after another light up the entries of their row and column, and no others."""
    kernel = wb.compile(TABLE[name](), backend="reference")
    start, w, data = draw(kernel.energy, 4, seed=2)
    inputs = kernel.bind(w, data, start)
    pattern, slots = kernel.hessian_slots(inputs, np.zeros(inputs.m), 0)
    ends = ends_of(pattern, len(slots))
    for k in np.unique(pattern.sources):
        entries = pattern.matrix(pattern.fill((np.arange(len(slots)) == k).astype(float))).tocoo()
        lit = {(int(r), int(s)) for r, s, v in zip(entries.row, entries.col, entries.data, strict=True) if v != 0}
        one = int(ends.rows[k]), int(ends.columns[k])
        assert one in lit and lit <= {one, one[::-1]}
