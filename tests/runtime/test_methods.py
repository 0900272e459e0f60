"""What every method of `minimise` promises: statuses, gradients, energies that never rise, bits that stay the same."""

import numpy as np
import pytest
import wiberg as wb
from energies_table import TABLE, draw
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.compiler.calls.threads import set_threads
from wiberg.compiler.testing import draw_point, energies
from wiberg.energies.errors import NumericalError
from wiberg.runtime import Status, minimise
from wiberg.runtime.methods import METHODS

OTHERS = ["l-bfgs", "newton-cg"]

PLANE = [
    ("rosenbrock", (2, 2), [(1, 1)]),
    ("rosenbrock", (-1.2, 1), [(1, 1)]),
    ("beale", (1, 1), [(3, 0.5)]),
    ("matyas", (6, 6), [(0, 0)]),
    ("himmelblau", (92, 0.001), [(3, 2), (-2.805118, 3.131312), (-3.77931, -3.283186), (3.584428, -1.848126)]),
    ("himmelblau", (0, 0), [(3, 2), (-2.805118, 3.131312), (-3.77931, -3.283186), (3.584428, -1.848126)]),
    ("two wells", (0.3, 0), [(0, np.sqrt(0.5)), (0, -np.sqrt(0.5))]),
    ("bounded monkey saddle", (0.1, 0), [(-0.75, 0), (0.375, 0.6495190528), (0.375, -0.6495190528)]),
    ("zakharov", (1e4, -1e4), [(0, 0)]),
    ("narrow", (-7, 1), [(1, 2)]),
    ("half", (5, 5), [(1, 0)]),
]

STATUSES = [
    ("hill", 1.0, {Status.UNBOUNDED}),
    ("hill", 0.0, {Status.UNBOUNDED}),
    ("hill", 1e-12, {Status.UNBOUNDED}),
    ("decay", 0.0, {Status.CONVERGED, Status.UNBOUNDED}),
    ("slope", 3.0, {Status.UNBOUNDED}),
    ("cliff", 0.0, {Status.UNBOUNDED}),
    ("pole", 0.5, {Status.UNBOUNDED}),
    ("nowhere", 0.0, {Status.NOT_FINITE}),
    ("barrier", -1.0, {Status.NOT_FINITE}),
    ("barrier", 1e-3, {Status.CONVERGED}),
    ("barrier", 1e-7, {Status.CONVERGED}),
    ("flat", 4.0, {Status.CONVERGED}),
    ("parabola", np.nan, {Status.NOT_FINITE}),
    ("parabola", np.inf, {Status.NOT_FINITE}),
    ("double well", 0.0, {Status.CONVERGED}),
    ("double well", 1e-200, {Status.CONVERGED}),
    ("cosine", 0.0, {Status.CONVERGED}),
    ("kink", 1.0, {Status.STALLED, Status.ITERATION_LIMIT, Status.CONVERGED}),
]


@pytest.fixture(autouse=True)
def default_threads():
    yield
    set_threads(None)


def of(kernel, name, start, method, **options):
    settings = {k: options.pop(k) for k in ("unit", "scale", "offset") if k in options}
    return minimise(kernel, None, kernel.data_of(name, **settings), start={"y": start}, method=method, **options)


def bits(solution, rows=slice(None)):
    numbers = solution.variables["y"], solution.energy, solution.reals, solution.integers
    return [np.ascontiguousarray(array[rows]).tobytes() for array in numbers]


def test_the_methods_of_the_interface_are_there():
    assert set(METHODS) >= {"trust-region", *OTHERS}


@pytest.mark.parametrize("method", OTHERS)
@pytest.mark.parametrize("name, start, minima", PLANE)
def test_known_minimum_of_two_unknowns(plane, name, start, minima, method):
    solution = of(plane, name, start, method)
    assert solution.status is Status.CONVERGED and solution.gradient_norm <= 1e-8
    assert min(np.abs(solution.variables["y"] - m).max() for m in minima) < 1e-6


@pytest.mark.parametrize("method", OTHERS)
@pytest.mark.parametrize("name, start, allowed", STATUSES)
def test_status_of_one_unknown(line, name, start, allowed, method):
    solution = of(line, name, [start], method)
    assert solution.status in allowed and solution.iterations <= 100


@pytest.mark.parametrize("method", OTHERS)
@pytest.mark.parametrize("name, start, status", [
    ("saddle", (1, 1), Status.UNBOUNDED), ("saddle", (0, 0), Status.UNBOUNDED), ("saddle", (1, 0), Status.UNBOUNDED),
    ("monkey saddle", (1, 1), Status.UNBOUNDED), ("valley", (3, -1), Status.CONVERGED),
    ("half", (-1, 0), Status.NOT_FINITE),
])  # fmt: skip
def test_status_of_two_unknowns(plane, name, start, status, method):
    assert of(plane, name, start, method).status is status


@pytest.mark.parametrize("method", OTHERS)
@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("scale", [1e-8, 1e8])
@pytest.mark.parametrize("name, start", [("rosenbrock", (-1.2, 1)), ("himmelblau", (1, 2)), ("two wells", (0.3, 0))])
def test_units_of_variables_and_energy_do_not_matter(plane, name, start, unit, scale, method):
    plain = of(plane, name, start, method)
    gtol = 1e-8 * unit * scale
    solution = of(plane, name, np.array(start) / unit, method, unit=unit, scale=scale, gtol=gtol)
    assert solution.status in (Status.CONVERGED, Status.STALLED)
    # L-BFGS runs straight into the saddle of the two wells, where nothing is left of the start's scale
    assert solution.gradient_norm <= 100 * gtol and solution.iterations <= plain.iterations + 50


@pytest.mark.parametrize("method", OTHERS)
@pytest.mark.parametrize("offset", [1e6, -1e9])
@pytest.mark.parametrize("name, start", [("rosenbrock", (-1.2, 1)), ("beale", (1, 1)), ("half", (5, 5))])
def test_the_gradient_judges_below_the_rounding_of_the_energy(plane, name, start, offset, method):
    assert of(plane, name, start, method, offset=offset).status is Status.CONVERGED


@pytest.mark.parametrize("method", OTHERS)
@pytest.mark.parametrize("name", ["rosenbrock", "beale", "himmelblau", "two wells", "saddle", "half", "nowhere"])
def test_steps_are_counted_and_energies_never_rise(plane, name, method):
    limit = of(plane, name, (0.4, -0.7), method).iterations
    solutions = [of(plane, name, (0.4, -0.7), method, max_iterations=k) for k in range(limit + 1)]
    energies = np.array([s.energy for s in solutions])
    assert [s.iterations for s in solutions] == list(range(limit + 1))
    assert (np.diff(energies) <= 1e-13 * np.abs(energies[:-1])).all() or np.isnan(energies).all()
    assert all(s.status in (Status.ITERATION_LIMIT, Status.NOT_FINITE) for s in solutions[:-1])


@pytest.mark.parametrize("method", OTHERS)
def test_a_start_in_the_minimum_stays_there(plane, method):
    solution = of(plane, "bowl", (0, 0), method)
    assert solution.iterations == 0 and solution.status is Status.CONVERGED and solution.energy == 0.0


@pytest.mark.parametrize("method", OTHERS)
def test_the_lowest_candidate_is_the_start(line, method):
    candidates = {"y": [[-1.0], [7.0], [1.5], [40.0]]}
    solution = minimise(line, None, line.data_of("barrier"), candidates=candidates, max_iterations=0, method=method)
    assert solution.variables["y"].tolist() == [1.5]


# ---------------------------------------------------------------------------------------------- batches


def mixed(plane, count):
    rng = np.random.default_rng(0)
    names = ["rosenbrock", "beale", "two wells", "zakharov", "half", "nowhere", "saddle", "monkey saddle", "valley"]
    x = plane.data_of(rng.choice(names, count), unit=rng.uniform(0.5, 2, count), offset=rng.uniform(-1, 1, count))
    return x["c"], rng.uniform(0.1, 3, (count, 2))


@pytest.mark.parametrize("method", OTHERS)
def test_bits_do_not_depend_on_the_batch_its_order_or_threads(plane, method):
    c, start = mixed(plane, 300)
    set_threads(1)
    one = minimise(plane, None, {"c": c}, start={"y": start}, method=method)
    assert len(set(one.status.tolist())) >= 3
    order = np.random.default_rng(1).permutation(300)
    set_threads(3)
    three = minimise(plane, None, {"c": c[order]}, start={"y": start[order]}, method=method)
    assert bits(one, order) == bits(three)
    for k in range(0, 300, 17):
        alone = minimise(plane, None, {"c": c[k : k + 1]}, start={"y": start[k : k + 1]}, method=method)
        assert bits(alone) == bits(one, slice(k, k + 1))


# ---------------------------------------------------------------------------------------------- any energy


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", TABLE)
def test_every_energy_of_the_table_ends_well(name):
    kernel = wb.compile(TABLE[name](), backend="reference")
    y, w, x = draw(kernel.energy, 3, seed=1)
    start = kernel.value(y, w, x)
    for method in OTHERS:
        check(kernel, w, x, wb.minimise(kernel, w, x, start=y, method=method), start, method)


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(energies(), st.integers(0, 2**32 - 1), st.sampled_from(OTHERS))
@settings(max_examples=25)
def test_random_energies_end_well(energy, seed, method):
    kernel = wb.compile(energy, backend="reference")
    try:
        point = draw_point(kernel, np.random.default_rng(seed), 1, attempts=20)[0]
    except NumericalError:
        return
    roles = (energy.variables, energy.weights, energy.data)
    y, w, x = ({str(s): point[str(s)] for s in role} for role in roles)
    solution = wb.minimise(kernel, w, x, start=y, method=method, max_iterations=40)
    check(kernel, w, x, solution, kernel.value(y, w, x), method)


def check(kernel, w, x, solution, start, method):
    """A status that the numbers bear out, and no more energy than at the start."""
    end = solution.variables
    if solution.status is Status.NOT_FINITE:
        return
    assert solution.energy <= start + 1e-12 * (1 + abs(start))
    assert solution.energy == kernel.value(end, w, x) or solution.status is Status.UNBOUNDED
    if solution.status is Status.CONVERGED:
        hessian = np.atleast_2d(kernel.dense_hessian(end, w, x))
        values = np.linalg.eigvalsh(hessian)
        assert np.abs(kernel.gradient(end, w, x)).max() <= 1.01 * solution.gtol
        assert values[0] >= -1e-9 * max(1.0, abs(values).max())
        if method == "newton-cg":
            rounding = 1e-12 * abs(values).max()
            assert np.isnan(solution.curvature) or solution.curvature <= values[0] + rounding
        else:
            assert solution.curvature == pytest.approx(values[0], abs=1e-9 * max(1.0, abs(values).max()))


@pytest.mark.parametrize("method", OTHERS)
@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 12))
def test_minima_of_convex_energies_are_those_of_the_trust_region(quadratic, method, seed, size):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((size, size))
    x = {"a": rng.standard_normal(size), "A": root @ root.T + 0.1 * np.eye(size)}
    solution = minimise(quadratic, None, x, start={"y": 5 * rng.standard_normal(size)}, method=method)
    assert solution.status is Status.CONVERGED
    np.testing.assert_allclose(solution.variables["y"], x["a"], atol=1e-6)
