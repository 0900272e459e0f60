"""Reweighted least squares over many unknowns: steps of the textbook, minima of the trust region, images."""

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import sympy as sp
import wiberg as wb
from wiberg.runtime import set_threads

n, m, k = sp.symbols("n m k", integer=True, positive=True)
i, j, edge = sp.Idx("i", n), sp.Idx("j", m), sp.Idx("edge", k)
p, q = sp.Idx("p", (0, n - 2)), sp.Idx("q", (0, m - 2))
a, b, c = sp.symbols("a b c", positive=True)
y, x = sp.IndexedBase("y", shape=(n,)), sp.IndexedBase("x", shape=(n,))
e = sp.IndexedBase("e", shape=(k, 2), integer=True)
WEIGHTS = {"a": 0.2, "b": 0.3, "c": 2.0}


@pytest.fixture(autouse=True)
def default_threads():
    yield
    set_threads(None)


@pytest.fixture(scope="module")
def graph():
    """Robust data, robust differences along edges."""
    energy = sp.Sum(wb.pseudo_huber((y[i] - x[i]) ** 2, a), i)
    energy += c * sp.Sum(wb.cauchy((y[e[edge, 0]] - y[e[edge, 1]]) ** 2, b), edge)
    return wb.compile(wb.Energy(energy, variables=[y], weights=[a, b, c], data=[x, e], name="robust graph"))


@pytest.fixture(scope="module")
def image():
    u, z = (sp.IndexedBase(name, shape=(n, m)) for name in "uz")
    smooth = sp.Sum(wb.pseudo_huber((u[p + 1, j] - u[p, j]) ** 2, a), p, j)
    smooth += sp.Sum(wb.pseudo_huber((u[i, q + 1] - u[i, q]) ** 2, a), i, q)
    energy = sp.Sum(wb.pseudo_huber((u[i, j] - z[i, j]) ** 2, b), i, j) + c * smooth
    return wb.compile(wb.Energy(energy, variables=[u], weights=[a, b, c], data=[z], name="robust image"))


def problem(seed, size=250, count=2):
    rng = np.random.default_rng(seed)
    seen = np.cumsum(rng.standard_normal((count, size)) * 0.1, axis=1) + (rng.random((count, size)) < 0.1) * 5
    chain = np.stack([np.arange(size - 1), np.arange(1, size)], axis=1)
    return {"x": seen, "e": np.concatenate([chain, rng.integers(0, size, (size // 4, 2))])}


def by_hand(data, row, reweightings):
    """Weights from residuals, then the normal equations, by SciPy."""
    seen, edges = data["x"][row], data["e"]
    size = len(seen)
    ones = np.ones(len(edges))
    rows = np.arange(len(edges))
    steps = scipy.sparse.coo_array((ones, (rows, edges[:, 0])), (len(edges), size)).tocsr()
    steps = steps - scipy.sparse.coo_array((ones, (rows, edges[:, 1])), (len(edges), size)).tocsr()
    point = np.zeros(size)
    for _ in range(reweightings):
        near = 1 / np.sqrt(1 + (point - seen) ** 2 / WEIGHTS["a"] ** 2)
        smooth = WEIGHTS["c"] / (1 + (steps @ point) ** 2 / WEIGHTS["b"] ** 2)
        normal = scipy.sparse.diags_array(near) + steps.T @ scipy.sparse.diags_array(smooth) @ steps
        point = scipy.sparse.linalg.spsolve(normal.tocsc(), near * seen)
    return point


@pytest.mark.parametrize("reweightings", [1, 2, 5, 20])
def test_iterates_are_those_of_the_normal_equations(graph, reweightings):
    data = problem(reweightings)
    start = {"y": np.zeros(data["x"].shape[1])}
    found = wb.minimise(graph, WEIGHTS, data, start=start, method="irls", reweightings=reweightings)
    assert (found.iterations == reweightings).all()
    assert (found.evaluations - found.factorised == reweightings + 1).all()  # the start of factors is evaluated again
    for row in range(2):
        np.testing.assert_allclose(found.variables["y"][row], by_hand(data, row, reweightings), atol=1e-7)


def test_a_robust_image_of_64_x_64_ends_in_the_minimum_of_the_trust_region(image):
    """Convex: there is one. Its lowest curvature is 1e-5 of the largest, and convergence linear."""
    rng = np.random.default_rng(0)
    seen = np.zeros((64, 64))
    seen[16:48, 20:40] = 1
    seen += 0.1 * rng.standard_normal(seen.shape) + (rng.random(seen.shape) < 0.1) * rng.normal(0, 3, seen.shape)
    options = {"start": {"u": seen}, "max_iterations": 2000}
    found = wb.minimise(image, WEIGHTS, {"z": seen}, method="irls", **options)
    expected = wb.minimise(image, WEIGHTS, {"z": seen}, **options)
    assert found.status is wb.Status.CONVERGED and found.gradient_norm <= 1e-8
    np.testing.assert_allclose(found.variables["u"], expected.variables["u"], atol=1e-5)
    assert found.curvature == pytest.approx(expected.curvature, rel=1e-3)
    gradient = image.gradient(found.variables, WEIGHTS, {"z": seen})
    assert np.abs(gradient).max() == pytest.approx(found.gradient_norm, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_ends_are_minima_of_the_energy_and_energies_fall(graph, seed):
    data = problem(seed)
    start = {"y": np.zeros(data["x"].shape[1])}
    found = wb.minimise(graph, WEIGHTS, data, start=start, method="irls", max_iterations=3000)
    assert (found.converged | (found.status == wb.Status.STALLED)).all()
    assert np.abs(graph.gradient(found.variables, WEIGHTS, data)).max() <= 1e-7
    for hessian, curvature in zip(graph.hessian(found.variables, WEIGHTS, data), found.curvature, strict=True):
        lowest = np.linalg.eigvalsh(hessian.toarray())[0]
        assert lowest >= -1e-9 and curvature <= lowest + 1e-9
    before = graph.value(start, WEIGHTS, data)
    for reweightings in (1, 2, 4, 8, 16):
        options = {"start": start, "method": "irls", "reweightings": reweightings}
        energy = wb.minimise(graph, WEIGHTS, data, **options).energy
        assert (energy <= before).all()
        before = energy


def test_threads_order_and_neighbours_change_no_bit(graph):
    data = problem(7, count=6)
    start = {"y": np.zeros(data["x"].shape[1])}
    rows = [3, 0, 5]
    set_threads(1)
    whole = wb.minimise(graph, WEIGHTS, data, start=start, method="irls", max_iterations=50)
    set_threads(2)
    some = wb.minimise(graph, WEIGHTS, data | {"x": data["x"][rows]}, start=start, method="irls", max_iterations=50)
    assert whole.y[rows].tobytes() == some.y.tobytes()


def test_the_derivative_of_the_steps_is_that_of_differences(graph):
    """By the dense machinery: both take the same steps."""
    data, h, slope = problem(1, count=1), 1e-5, np.random.default_rng(0).standard_normal((1, 250))
    start = {"y": np.zeros((1, 250))}

    def end(c):
        return wb.minimise(graph, WEIGHTS | {"c": c}, data, start=start, method="irls", reweightings=3)

    found = wb.unrolled_gradient(graph, end(WEIGHTS["c"]), {"y": slope})
    difference = np.sum(slope * (end(WEIGHTS["c"] + h).y - end(WEIGHTS["c"] - h).y)) / (2 * h)
    assert found["c"] == pytest.approx(difference, rel=1e-5)
