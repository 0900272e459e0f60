"""Newton's method with products alone: many coupled unknowns, memory, saddles, what is refused."""

import subprocess
import sys

import numpy as np
import pytest
import sympy as sp
import wiberg as wb

n = sp.Symbol("n", integer=True, positive=True)
i, step = sp.Idx("i", n), sp.Idx("step", (0, n - 2))
y, x = sp.IndexedBase("y", shape=(n,)), sp.IndexedBase("x", shape=(n,))
a = sp.Symbol("a", positive=True)


@pytest.fixture(scope="module")
def wells():
    """Double wells that an overall force couples: dense, with 2^n minima and saddles between them."""
    formula = sp.Sum(y[i] ** 4 / 4 - y[i] ** 2 / 2, i) + a * sp.Sum(y[i], i) ** 2
    return wb.compile(wb.Energy(formula, variables=[y], weights=[a], name="wells"))


@pytest.fixture(scope="module")
def distance():
    return wb.compile(
        wb.Energy(sp.log(1 + a * sp.Sum((y[i] - x[i]) ** 2, i)), variables=[y], weights=[a], data=[x], name="distance")
    )


@pytest.fixture(scope="module")
def chain():
    formula = sp.Sum(1000 * (y[step + 1] - y[step]) ** 2, step) + a * sp.Sum((y[i] - x[i]) ** 2, i)
    return wb.compile(wb.Energy(formula, variables=[y], weights=[a], data=[x], name="chain"))


@pytest.mark.parametrize("count", [4, 60, 3000])
def test_a_start_on_a_saddle_leaves_it(wells, count):
    solution = wb.minimise(wells, {"a": 1.0}, start={"y": np.zeros(count)}, method="newton-cg")
    assert solution.status is wb.Status.CONVERGED and solution.curvature > 0.0
    assert solution.energy < -0.2 * count
    if count < 1000:
        lowest = np.linalg.eigvalsh(wells.hessian(solution.variables, {"a": 1.0}))[0]
        assert 0.4 * lowest < solution.curvature <= lowest


def test_without_steps_a_saddle_is_no_minimum(wells):
    solution = wb.minimise(wells, {"a": 1.0}, start={"y": np.zeros(30)}, method="newton-cg", max_iterations=0)
    assert solution.status is wb.Status.ITERATION_LIMIT and solution.curvature <= -1.0


def test_a_gradient_of_zero_across_a_batch_of_saddles_and_minima(wells):
    start = np.zeros((5, 20))
    start[1], start[3] = np.tile([1.0, -1.0], 10), np.random.default_rng(0).standard_normal(20)
    solution = wb.minimise(wells, {"a": 1.0}, start={"y": start}, method="newton-cg")
    assert solution.converged.all() and (solution.curvature > 0).all()
    assert solution.iterations[1] == 0 and (solution.iterations[[0, 2, 4]] > 0).all()
    assert np.array_equal(solution.variables["y"][0], solution.variables["y"][4])


def test_sparse_hessians_are_multiplied_too(chain):
    count = 400
    data = {"x": np.random.default_rng(0).standard_normal(count)}
    solution = wb.minimise(chain, {"a": 0.5}, data, start={"y": np.zeros(count)}, method="newton-cg")
    expected = wb.minimise(chain, {"a": 0.5}, data, start={"y": np.zeros(count)})
    assert solution.status is wb.Status.CONVERGED
    np.testing.assert_allclose(solution.variables["y"], expected.variables["y"], atol=1e-7)
    assert np.isnan(solution.curvature) or 0.0 < solution.curvature <= 1.0 + 1e-9


def test_a_singular_semidefinite_hessian_is_a_minimum():
    formula = sp.Sum((y[step + 1] - y[step] - 1) ** 2, step) + a * (sp.Sum(y[i], i) - sp.Sum(y[i], i)) ** 2
    kernel = wb.compile(wb.Energy(formula + a, variables=[y], weights=[a]))
    solution = wb.minimise(kernel, {"a": 1.0}, start={"y": np.zeros(40)}, method="newton-cg")
    assert solution.status is wb.Status.CONVERGED and not solution.curvature > 1e-12
    np.testing.assert_allclose(np.diff(solution.variables["y"]), 1.0, atol=1e-7)


def test_the_exact_trust_region_refuses_what_products_can_do(distance):
    start, data = {"y": np.ones(50_000)}, {"x": np.linspace(0, 1, 50_000)}
    with pytest.raises(wb.InputError, match=r"'distance'.*50000 unknowns.*couples all unknowns.*hvp.*\"newton-cg\""):
        wb.minimise(distance, {"a": 1.0}, data, start=start)
    for method in ("newton-cg", "l-bfgs"):
        solution = wb.minimise(distance, {"a": 1.0}, data, start=start, method=method)
        assert solution.status is wb.Status.CONVERGED and solution.curvature == pytest.approx(2.0, rel=1e-2)
        np.testing.assert_allclose(solution.variables["y"], data["x"], atol=1e-7)


MEMORY = """
import resource, sys
import numpy as np, sympy as sp, wiberg as wb
n = sp.Symbol("n", integer=True, positive=True)
i = sp.Idx("i", n)
y, a = sp.IndexedBase("y", shape=(n,)), sp.Symbol("a", positive=True)
formula = sp.log(1 + sp.Sum(a * y[i]**2, i)) + sp.Sum(sp.sqrt(1 + (y[i] - 1)**2), i)/100
kernel = wb.compile(wb.Energy(formula, variables=[y], weights=[a]))
def run(count):
    start = {"y": np.random.default_rng(0).standard_normal(count)}
    solution = wb.minimise(kernel, {"a": 1.0}, start=start, method=sys.argv[1])
    wb.implicit_gradient(kernel, solution, {"y": np.ones(count)})
    assert solution.converged, solution
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = run(10), run(1500)
print(run(5000) - before[1])
"""


@pytest.mark.parametrize("method", ["newton-cg", "l-bfgs"])
def test_memory_is_linear_in_the_unknowns(method):
    """A dense Hessian of 5,000 unknowns takes 200 MB."""
    done = subprocess.run([sys.executable, "-c", MEMORY, method], capture_output=True, text=True, check=True)
    unit = 1024 if sys.platform == "darwin" else 1
    assert int(done.stdout) / unit < 30_000  # KiB
