"""Minimisation of known functions: minimisers, statuses, counts, scales."""

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from wiberg.energies.errors import InputError, InputTypeError, NameMissingError, NumericalError
from wiberg.runtime import Solution, Status, minimise


def of(kernel, name, start, **options):
    settings = {k: options.pop(k) for k in ("unit", "scale", "offset") if k in options}
    return minimise(kernel, None, kernel.data_of(name, **settings), start={"y": start}, **options)


PLANE = [
    "rosenbrock",
    "beale",
    "matyas",
    "himmelblau",
    "bowl",
    "saddle",
    "two wells",
    "monkey saddle",
    "zakharov",
    "bounded monkey saddle",
    "valley",
    "narrow",
    "nowhere",
    "half",
]

PLANE_MINIMA = [
    ("rosenbrock", (2, 2), [(1, 1)]),
    ("rosenbrock", (-1.2, 1), [(1, 1)]),
    ("beale", (1, 1), [(3, 0.5)]),
    ("matyas", (6, 6), [(0, 0)]),
    ("himmelblau", (92, 0.001), [(3, 2), (-2.805118, 3.131312), (-3.77931, -3.283186), (3.584428, -1.848126)]),
    ("himmelblau", (0, 0), [(3, 2), (-2.805118, 3.131312), (-3.77931, -3.283186), (3.584428, -1.848126)]),
    ("bowl", (3, -4), [(0, 0)]),
    ("two wells", (0.3, 0), [(0, np.sqrt(0.5)), (0, -np.sqrt(0.5))]),
    ("bounded monkey saddle", (0.1, 0), [(-0.75, 0), (0.375, 0.6495190528), (0.375, -0.6495190528)]),
    ("zakharov", (1e4, -1e4), [(0, 0)]),
    ("narrow", (-7, 1), [(1, 2)]),
    ("half", (5, 5), [(1, 0)]),
]


@pytest.mark.parametrize("name, start, minima", PLANE_MINIMA)
def test_known_minimum_of_two_unknowns(plane, name, start, minima):
    solution = of(plane, name, start)
    assert solution.status is Status.CONVERGED
    assert min(np.abs(solution.variables["y"] - m).max() for m in minima) < 1e-6
    assert solution.gradient_norm <= 1e-8
    assert solution.curvature > -1e-9


@pytest.mark.parametrize(
    "name, start, minimum",
    [
        ("parabola", -5, 3),
        ("quartic", 7, 2),
        ("cosine", 2, np.pi),
        ("cosine", 0, np.pi),
        ("barrier", 30, 1),
        ("barrier", 1e-7, 1),
        ("bump", 0.5, 0),
        ("bump", 2, 0),
        ("double well", 0, np.sqrt(0.5)),
    ],
)
def test_known_minimum_of_one_unknown(line, name, start, minimum):
    solution = of(line, name, [start])
    assert solution.status is Status.CONVERGED
    assert solution.variables["y"][0] == pytest.approx(minimum, abs=5e-3 if name == "quartic" else 1e-7)


@pytest.mark.parametrize(
    "name, start, allowed",
    [
        ("hill", 1.0, {Status.UNBOUNDED}),
        ("hill", 0.0, {Status.UNBOUNDED}),
        ("hill", 1e-12, {Status.UNBOUNDED}),
        ("decay", 0.0, {Status.CONVERGED, Status.UNBOUNDED}),
        ("slope", 3.0, {Status.UNBOUNDED}),
        ("cliff", 0.0, {Status.UNBOUNDED}),
        ("pole", 0.5, {Status.UNBOUNDED}),
        ("nowhere", 0.0, {Status.NOT_FINITE}),
        ("barrier", -1.0, {Status.NOT_FINITE}),
        ("barrier", 0.0, {Status.NOT_FINITE}),
        ("flat", 4.0, {Status.CONVERGED}),
        ("parabola", np.nan, {Status.NOT_FINITE}),
        ("parabola", np.inf, {Status.NOT_FINITE}),
        ("cosine", np.nan, {Status.NOT_FINITE}),
        ("kink", 1.0, {Status.STALLED, Status.ITERATION_LIMIT, Status.CONVERGED}),
    ],
)
def test_status_of_one_unknown(line, name, start, allowed):
    solution = of(line, name, [start])
    assert solution.status in allowed
    assert solution.iterations <= 100


@pytest.mark.parametrize(
    "name, start, status",
    [
        ("saddle", (1, 1), Status.UNBOUNDED),
        ("saddle", (0, 0), Status.UNBOUNDED),
        ("saddle", (1, 0), Status.UNBOUNDED),
        ("monkey saddle", (1, 1), Status.UNBOUNDED),
        ("monkey saddle", (0, 0), Status.CONVERGED),
        ("valley", (3, -1), Status.CONVERGED),
        ("nowhere", (0, 0), Status.NOT_FINITE),
        ("half", (-1, 0), Status.NOT_FINITE),
    ],
)
def test_status_of_two_unknowns(plane, name, start, status):
    assert of(plane, name, start).status is status


@pytest.mark.parametrize("unit", [1e-8, 1e-4, 1.0, 1e4, 1e8])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize(
    "name, start",
    [
        ("rosenbrock", (-1.2, 1)),
        ("beale", (1, 1)),
        ("himmelblau", (1, 2)),
        ("zakharov", (3, -4)),
        ("two wells", (0.3, 0)),
        ("bounded monkey saddle", (0.1, 0.2)),
    ],
)
def test_units_of_variables_and_energy_do_not_matter(plane, name, start, unit, scale):
    plain = of(plane, name, start)
    solution = of(plane, name, np.array(start) / unit, unit=unit, scale=scale, gtol=1e-8 * unit * scale)
    assert solution.status in (Status.CONVERGED, Status.STALLED)
    assert solution.gradient_norm <= 1e-6 * unit * scale
    assert solution.iterations <= plain.iterations + 25


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("name", ["cosine", "double well", "bump"])
def test_units_do_not_matter_where_a_start_has_no_scale(line, name, unit):
    solution = of(line, name, [0.0], unit=unit, scale=1e3, gtol=1e-8 * unit * 1e3)
    assert solution.status is Status.CONVERGED
    assert solution.curvature > 0


@pytest.mark.parametrize("offset", [1e6, -1e6, 1e9])
@pytest.mark.parametrize(
    "name, start",
    [
        ("rosenbrock", (-1.2, 1)),
        ("beale", (1, 1)),
        ("himmelblau", (1, 2)),
        ("zakharov", (3, -4)),
        ("matyas", (6, 6)),
        ("half", (5, 5)),
    ],
)
def test_gradient_judges_below_the_rounding_of_the_energy(plane, name, start, offset):
    solution = of(plane, name, start, offset=offset)
    assert solution.status is Status.CONVERGED
    assert solution.gradient_norm <= 1e-8


def test_unreachable_tolerance_stalls_early(plane):
    solution = of(plane, "half", (5, 5), scale=1e9, gtol=1e-12)
    assert solution.status in (Status.STALLED, Status.CONVERGED)
    assert solution.iterations < 30
    assert solution.gradient_norm < 1e-5


@pytest.mark.parametrize("n", [3, 26, 60])
@pytest.mark.parametrize("condition", [1e1, 1e8])
def test_quadratic_is_solved_in_one_step(quadratic, n, condition):
    rng = np.random.default_rng(n)
    q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    a, matrix = rng.standard_normal(n), q @ np.diag(np.geomspace(1 / condition, 1, n)) @ q.T
    matrix = 0.5 * (matrix + matrix.T)
    solution = minimise(quadratic, None, {"a": a, "A": matrix}, start={"y": np.zeros(n)})
    assert solution.status is Status.CONVERGED
    assert solution.iterations <= 2
    assert solution.variables["y"] == pytest.approx(a, abs=1e-14 * condition)
    assert solution.curvature == pytest.approx(1 / condition, abs=1e-14)


@pytest.mark.parametrize("n", [3, 26, 60])
def test_singular_quadratic_converges(quadratic, n):
    rng = np.random.default_rng(n)
    half = rng.standard_normal((n, n // 2))
    solution = minimise(quadratic, None, {"a": rng.standard_normal(n), "A": half @ half.T}, start={"y": np.zeros(n)})
    assert solution.status is Status.CONVERGED
    assert abs(solution.curvature) < 1e-12 * n
    assert np.abs(solution.variables["y"]).max() < 1e3


@pytest.mark.parametrize("n", [3, 26])
def test_indefinite_quadratic_is_unbounded(quadratic, n):
    matrix = np.diag(np.linspace(-1, 5, n))
    for start in (np.zeros(n), np.ones(n)):
        solution = minimise(quadratic, None, {"a": np.zeros(n), "A": matrix}, start={"y": start})
        assert solution.status is Status.UNBOUNDED


def test_start_in_the_minimum_takes_no_step(plane):
    solution = of(plane, "bowl", (0, 0))
    assert (solution.iterations, solution.evaluations, solution.status) == (0, 1, Status.CONVERGED)


def test_iteration_limit_counts_and_returns_the_best(plane):
    energies = [of(plane, "rosenbrock", (-1.2, 1), max_iterations=k) for k in range(12)]
    for k, solution in enumerate(energies):
        assert solution.status is Status.ITERATION_LIMIT
        assert solution.iterations == k
        assert k + 1 <= solution.evaluations <= 2 * k + 1
    values = [s.energy for s in energies]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(24.2)
    assert energies[0].variables["y"].tolist() == [-1.2, 1]


@pytest.mark.parametrize("name", PLANE)
def test_energy_never_rises(plane, name):
    start = (0.4, -0.7)
    limit = of(plane, name, start).iterations
    solutions = [of(plane, name, start, max_iterations=k) for k in range(limit + 1)]
    energies = np.array([s.energy for s in solutions])
    noise = 1e-13 * np.abs(energies[:-1])
    assert (np.diff(energies) <= noise).all() or np.isnan(energies).all()
    assert [s.iterations for s in solutions] == list(range(limit + 1))


def test_no_iterations_in_a_minimum_is_converged(plane):
    assert of(plane, "bowl", (0, 0), max_iterations=0).status is Status.CONVERGED


def test_region_of_not_finite_energy_is_left_alone(line):
    solution = of(line, "barrier", [1e-3])
    assert solution.status is Status.CONVERGED
    assert solution.variables["y"][0] == pytest.approx(1)


def test_negative_curvature_is_left_the_same_way_every_time(plane):
    first, second = of(plane, "two wells", (0, 0)), of(plane, "two wells", (0, 0))
    assert first.variables["y"].tobytes() == second.variables["y"].tobytes()
    assert first.variables["y"][1] > 0


def test_not_finite_records(line):
    solution = of(line, "nowhere", [0.5])
    assert np.isnan(solution.energy) and np.isnan(solution.gradient_norm) and np.isnan(solution.curvature)
    assert solution.variables["y"].tolist() == [0.5]


# ---------------------------------------------------------------------------------------------- candidates


def test_lowest_finite_candidate_is_the_start(line):
    x = line.data_of("barrier")
    solution = minimise(line, None, x, candidates={"y": [[-1.0], [7.0], [1.5], [40.0]]}, max_iterations=0)
    assert solution.variables["y"].tolist() == [1.5]
    assert solution.evaluations == 2


def test_first_of_equal_candidates_wins(line):
    solution = minimise(line, None, line.data_of("double well"), candidates={"y": [[0.6], [-0.6]]}, max_iterations=0)
    assert solution.variables["y"].tolist() == [0.6]


def test_no_finite_candidate(line):
    solution = minimise(line, None, line.data_of("barrier"), candidates={"y": [[-1.0], [-2.0]]})
    assert solution.status is Status.NOT_FINITE


def test_batched_candidates_differ_by_instance(line):
    x = line.data_of(["parabola", "parabola"])
    solution = minimise(line, None, x, candidates={"y": [[[0.0], [9.0]], [[2.0], [4.5]]]}, max_iterations=0)
    assert solution.variables["y"].tolist() == [[0.0], [2.0]]


def test_batched_candidates_make_a_batch(line):
    solution = minimise(line, None, line.data_of("parabola"), candidates={"y": [[[0.0], [9.0]], [[2.0], [4.5]]]})
    assert solution.variables["y"].shape == (2, 1)


# ---------------------------------------------------------------------------------------------- shapes


def test_unbatched_solution_has_scalars(plane):
    solution = of(plane, "bowl", (1, 1))
    assert isinstance(solution, Solution)
    for name in ("energy", "gradient_norm", "curvature"):
        assert type(getattr(solution, name)) is float
    for name in ("iterations", "evaluations"):
        assert type(getattr(solution, name)) is int
    assert solution.status is Status.CONVERGED
    assert solution.converged is True
    assert solution.variables["y"].shape == (2,)


def test_batched_solution_has_arrays(plane):
    solution = of(plane, ["bowl", "matyas", "nowhere"], (1, 1))
    assert solution.variables["y"].shape == (3, 2)
    assert solution.energy.shape == solution.curvature.shape == solution.iterations.shape == (3,)
    assert list(solution.status) == [Status.CONVERGED, Status.CONVERGED, Status.NOT_FINITE]
    assert solution.status[2].name == "NOT_FINITE"
    assert solution.converged.tolist() == [True, True, False]
    assert solution.failed.tolist() == [2]


def test_batch_of_none(plane):
    solution = minimise(plane, None, {"c": np.empty((0, 4))}, start={"y": [1.0, 2.0]})
    assert solution.variables["y"].shape == (0, 2)
    assert solution.status.shape == solution.energy.shape == (0,)
    assert "0 instances" in repr(solution)


def test_start_may_carry_the_batch(plane):
    solution = of(plane, "bowl", [(1, 1), (2, 2), (3, 3)])
    assert solution.energy.shape == (3,)


def test_start_may_be_a_solution(plane):
    first = of(plane, "rosenbrock", (2, 2))
    again = minimise(plane, None, plane.data_of("rosenbrock"), start=first)
    assert again.iterations == 0


def test_raise_if_failed(plane):
    solution = of(plane, ["bowl", "nowhere", "nowhere"], (1, 1))
    assert "1 CONVERGED" in repr(solution) and "2 NOT_FINITE" in repr(solution)
    with pytest.raises(NumericalError, match=r"2 of 3 instances \(1, 2\).*NOT_FINITE.*explain\(1\)"):
        solution.raise_if_failed()
    assert solution.raise_if_failed(Status.SADDLE) is solution
    with pytest.raises(NumericalError, match="ended as CONVERGED"):
        solution.raise_if_failed(Status.CONVERGED)
    assert of(plane, "bowl", (1, 1)).raise_if_failed().converged


# ---------------------------------------------------------------------------------------------- bad arguments


@pytest.mark.parametrize(
    "options, kind, words",
    [
        ({}, InputError, "start.*candidates.*neither"),
        ({"start": {"y": [1.0]}, "candidates": {"y": [[1.0]]}}, InputError, "both"),
        ({"candidates": {"y": np.empty((0, 1))}}, InputError, "at least one candidate"),
        ({"candidates": {"y": [1.0]}}, InputError, r"y has shape \(1,\)"),
        ({"candidates": {"z": [[1.0]]}}, NameMissingError, "'z'"),
        ({"candidates": {}}, NameMissingError, "y"),
        ({"candidates": [[1.0]]}, InputTypeError, "dict"),
        ({"candidates": {"y": [["a"]]}}, InputTypeError, "candidates y"),
        ({"start": {"y": [1.0]}, "method": "trust_region"}, InputError, "'trust_region'.*did you mean 'trust-region'"),
        ({"start": {"y": [1.0]}, "method": "lbfgs"}, InputError, "'lbfgs'.*did you mean 'l-bfgs'"),
        ({"start": {"y": [1.0]}, "method": None}, InputError, "None"),
        ({"start": {"y": [1.0]}, "gtol": 0}, InputError, "gtol.*0"),
        ({"start": {"y": [1.0]}, "gtol": -1}, InputError, "gtol.*-1"),
        ({"start": {"y": [1.0]}, "gtol": np.nan}, InputError, "gtol.*nan"),
        ({"start": {"y": [1.0]}, "gtol": "small"}, InputError, "gtol.*small"),
        ({"start": {"y": [1.0]}, "gtol": np.array([1e-8])}, InputError, "gtol.*array"),
        ({"start": {"y": [1.0]}, "max_iterations": -3}, InputError, "max_iterations.*-3"),
        ({"start": {"y": [1.0]}, "max_iterations": 2.5}, InputError, "max_iterations.*2.5"),
        ({"start": {"y": [1.0]}, "constraints": ()}, InputTypeError, "constraints.*options: start, candidates"),
        ({"start": {"y": [1.0]}, "max_iteration": 3}, InputTypeError, "max_iteration.*did you mean 'max_iterations'"),
    ],
)
def test_bad_argument_is_refused(line, options, kind, words):
    with pytest.raises(kind, match=words):
        minimise(line, None, line.data_of("parabola"), **options)


@pytest.mark.parametrize("bad, word", [(np.nan, "NaN"), (np.inf, "infinity")])
def test_not_finite_data_are_refused(line, bad, word):
    x = line.data_of(["parabola"] * 10)
    x["c"][3, 3] = x["c"][8, 1] = bad
    words = rf"data c has {word} at \[3, 3\] \(first of 2, in instances 3, 8\).*check=False"
    with pytest.raises(InputError, match=words):
        minimise(line, None, x, start={"y": [1.0]})


def test_not_finite_data_without_check(line):
    x = line.data_of(["parabola"] * 10)
    x["c"][3, 3] = x["c"][8, 1] = np.nan
    solution = minimise(line, None, x, start={"y": [1.0]}, check=False)
    assert solution.failed.tolist() == [3, 8]
    assert set(solution.status[[3, 8]]) == {Status.NOT_FINITE}
    assert solution.variables["y"][3].tolist() == [1.0]


def test_without_check_data_that_the_energy_ignores_count_too():
    t, a, b = sp.symbols("t a b", real=True)
    kernel = wb.compile(wb.Energy((t - a) ** 2, variables=[t], data=[a, b]))
    data = {"a": 1.0, "b": [0.0, np.nan, 0.0]}
    for options in ({}, {"minima": 2, "restarts": 1}, {"callback": lambda done, total: None}):
        solution = wb.minimise(kernel, None, data, start={"t": [3.0, 4.0, 5.0]}, check=False, **options)
        assert solution.failed.tolist() == [1] and np.isnan(solution.gradient_norm[1])
        assert solution.variables["t"].tolist() == [1.0, 4.0, 1.0]


def test_weight_that_must_be_positive(line):
    with pytest.raises(InputError, match=r"weight s = -1.0 but it is declared positive"):
        minimise(line, {"s": -1.0}, line.data_of("parabola"), start={"y": [1.0]})
    with pytest.raises(InputError, match=r"weight s = 0.0 .*first at instance 2"):
        minimise(line, {"s": [1.0, 2.0, 0.0]}, line.data_of("parabola"), start={"y": [1.0]})


def test_huge_finite_data_pass(line):
    x = line.data_of(["parabola", "parabola"])
    x["c"][:, 3] = 1.7e308
    minimise(line, None, x, start={"y": [1.0]})


def test_start_that_is_not_finite_is_a_status(line):
    solution = of(line, ["parabola"] * 3, [[1.0], [np.nan], [2.0]])
    assert [s.name for s in solution.status] == ["CONVERGED", "NOT_FINITE", "CONVERGED"]


@pytest.mark.parametrize("start", [0.0, 1e-300, 1e-200, 1e-100, 1e-30, 1e-10])
def test_a_start_however_near_to_a_maximum_leaves_it(start):
    t = sp.Symbol("t", real=True)
    kernel = wb.compile(wb.Energy(t**4 / 4 - t**2 / 2, variables=[t]))
    solution = wb.minimise(kernel, start={"t": start})
    assert solution.status is wb.Status.CONVERGED
    assert abs(solution.variables["t"]) == pytest.approx(1.0)


@pytest.mark.parametrize("ridge", [0.0, 1e-2])
def test_minima_that_can_be_turned_are_minima(ridge):
    """Factors of a matrix may be turned: there the curvature is of the size of the gradient, of either sign."""
    n, m, r = sp.symbols("n m r", integer=True, positive=True)
    i, j, q = sp.Idx("i", n), sp.Idx("j", m), sp.Idx("q", r)
    left, right, x = (sp.IndexedBase(s, shape=shape) for s, shape in (("u", (n, r)), ("v", (m, r)), ("x", (n, m))))
    fit = sp.Sum((x[i, j] - sp.Sum(left[i, q] * right[j, q], q)) ** 2, i, j)
    small = sp.Sum(left[i, q] ** 2, i, q) + sp.Sum(right[j, q] ** 2, j, q)
    kernel = wb.compile(wb.Energy(fit + ridge * small, variables=[left, right], data=[x]))
    draw = np.random.default_rng(0).standard_normal
    data, start = {"x": draw((40, 6, 7))}, {"u": draw((40, 6, 2)), "v": draw((40, 7, 2))}
    solution = wb.minimise(kernel, None, data, start=start, max_iterations=300)
    assert solution.converged.all()
    if not ridge:  # the best factors are those of the singular values
        best = (np.linalg.svd(data["x"], compute_uv=False)[:, 2:] ** 2).sum(axis=1)
        assert (solution.energy >= best * (1 - 1e-12)).all() and np.isclose(solution.energy, best).mean() > 0.5
