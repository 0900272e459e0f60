"""Several starts: every distinct minimum once, in order of energy, whatever units, batch and order of starts."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from wiberg.energies.errors import InputError, InputTypeError

t, a, s = sp.symbols("t a s", real=True)
n = sp.Symbol("n", integer=True, positive=True)
i = sp.Idx("i", n)
x = sp.IndexedBase("x", shape=(n,))
v = sp.IndexedBase("v", shape=(2,))


@pytest.fixture(scope="module")
def wells():
    """Gaussian wells at x, all of width s: one minimum for each lump of points that s resolves."""
    expression = -sp.Sum(sp.exp(-((x[i] - t) ** 2) / (2 * s**2)), i)
    energy = wb.Energy(expression, variables=[t], weights=[s], data=[x], candidates={t: x[i]}, name="wells")
    return wb.compile(energy)


@pytest.fixture(scope="module")
def himmelblau():
    """Himmelblau's function of unit*v turned by an angle a, times s: four minima of energy 0."""
    unit = sp.Symbol("unit", positive=True)
    p = unit * (sp.cos(a) * v[0] + sp.sin(a) * v[1])
    q = unit * (-sp.sin(a) * v[0] + sp.cos(a) * v[1])
    expression = s * ((p**2 + q - 11) ** 2 + (p + q**2 - 7) ** 2)
    return wb.compile(wb.Energy(expression, variables=[v], data=[a, s, unit], name="himmelblau"))


@pytest.fixture(scope="module")
def quartic():
    """t^4 - t^2 + a t: two minima for |a| < (2/3)^1.5, else one."""
    return wb.compile(wb.Energy(t**4 - t**2 + a * t, variables=[t], data=[a], name="quartic"))


FOUR = np.array([(3, 2), (-2.805118, 3.131312), (-3.77931, -3.283186), (3.584428, -1.848126)])
SQUARE = np.stack(np.meshgrid([-4.0, 0.1, 4.0], [-4.0, 0.1, 4.0]), axis=-1).reshape(-1, 2)


def scanned(points, width):
    """The minima of `wells` by SciPy: local minima of a fine grid, polished; in order of energy."""

    def energy(at):
        return -np.exp(-((points - np.asarray(at)[..., None]) ** 2) / (2 * width**2)).sum(axis=-1)

    grid = np.linspace(points.min() - width, points.max() + width, 4000)
    values = energy(grid)
    inner = np.flatnonzero((values[1:-1] < values[:-2]) & (values[1:-1] <= values[2:])) + 1
    polished = [
        minimize_scalar(energy, bounds=(grid[k - 1], grid[k + 1]), method="bounded", options={"xatol": 1e-10}).x
        for k in inner
    ]
    return np.array(sorted(polished, key=energy))


# ---------------------------------------------------------------------------------------------- the minima


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 12), width=st.floats(0.3, 2.0))
def test_all_minima_that_a_scan_finds_are_found_in_order(wells, seed, count, width):
    points = np.random.default_rng(seed).uniform(0, 20, count)
    expected = scanned(points, width)
    starts = np.linspace(points.min() - width, points.max() + width, 60)
    solution = wb.minimise(wells, {"s": width}, {"x": points}, candidates={"t": starts}, minima=15)
    found = solution.minima.variables["t"][: solution.minima.count]
    assert np.isnan(solution.minima.variables["t"][solution.minima.count :]).all()
    assert (np.diff(solution.minima.energy[: solution.minima.count]) >= 0).all()
    for minimum in found:
        assert np.abs(expected - minimum).min() < 1e-5, "each is one"
    for k, minimum in enumerate(found):
        assert np.abs(np.delete(found, k) - minimum).min(initial=9.0) > 1e-6, "none is there twice"
    for minimum in expected:  # a minimum whose basin holds a start is not missed
        if np.abs(starts - minimum).min() < 0.05 * width:
            assert np.abs(found - minimum).min() < 1e-5
    assert solution.variables["t"] == found[0] and solution.energy == solution.minima.energy[0]


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("angle", [0.0, 0.7])
@pytest.mark.parametrize("strict", [1.0, 1e-12])
def test_four_equal_minima_are_four_in_any_units_and_frame(himmelblau, unit, scale, angle, strict):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    candidates = SQUARE @ turn.T / unit
    data = {"a": angle, "s": scale, "unit": unit}
    gtol = 1e-8 * scale * unit * strict
    solution = wb.minimise(himmelblau, None, data, candidates={"v": candidates}, minima=8, gtol=gtol)
    assert solution.minima.count == 4 and solution.minima.starts == 9
    points = solution.minima.variables["v"][:4] @ turn * unit
    for minimum in FOUR:
        assert np.abs(points - minimum).max(axis=1).min() < 1e-5


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_starts_into_one_flat_minimum_are_one(offset):
    """(t - a)^4 ends at points that differ by 1e-3, which are one minimum; |v|^2 - 1 squared ends on a circle."""
    kernel = wb.compile(wb.Energy((t - a) ** 4 + offset, variables=[t], data=[a]))
    solution = wb.minimise(kernel, None, {"a": [1.0, 5.0]}, candidates={"t": np.linspace(-9, 9, 12)}, minima=5)
    assert solution.minima.count.tolist() == [1, 1]


def test_ends_in_a_straight_valley_are_one_and_on_a_circle_are_many():
    valley = wb.compile(wb.Energy((v[0] - v[1]) ** 2, variables=[v]))
    circle = wb.compile(wb.Energy((v[0] ** 2 + v[1] ** 2 - 1) ** 2, variables=[v]))
    starts = np.random.default_rng(0).standard_normal((6, 2))
    assert wb.minimise(valley, candidates={"v": starts}, minima=6).minima.count == 1
    assert wb.minimise(circle, candidates={"v": starts}, minima=6).minima.count == 6


def test_minima_at_kinks_are_told_apart():
    expression = sp.Min(sp.Abs(t - a) + t / 4, sp.Abs(t - 5 - a) + t / 4 - 1)
    kernel = wb.compile(wb.Energy(expression, variables=[t], data=[a]))
    a_third = 1 / 3
    starts = [a_third - 1, a_third + 0.3, 4.9, 5.7, 5.1]
    solution = wb.minimise(kernel, None, {"a": a_third}, candidates={"t": starts}, minima=4)
    assert solution.status is wb.Status.STALLED
    assert solution.minima.count == 2
    assert solution.minima.variables["t"][:2] == pytest.approx([a_third, 5 + a_third], abs=1e-9)


def test_a_dent_in_the_slope_of_a_wide_well_is_a_minimum_of_its_own():
    """At all three points between them the energy is below that of the dent."""
    kernel = wb.compile(
        wb.Energy(t**2 / 100 - sp.Float(0.03) * sp.exp(-((t - 5) ** 2) / sp.Float(0.02)), variables=[t])
    )
    solution = wb.minimise(kernel, candidates={"t": [-3.0, 5.0, 4.99]}, minima=3)
    assert solution.minima.count == 2
    assert solution.minima.variables["t"][:2] == pytest.approx([0, 5], abs=0.1)


def test_minima_of_a_periodic_energy_are_many():
    kernel = wb.compile(wb.Energy(sp.cos(2 * sp.pi * t), variables=[t]))
    for last in (2, 3, 4, 5, 8, 16):
        solution = wb.minimise(kernel, candidates={"t": np.array([0.0, last]) + 0.51}, minima=3)
        assert solution.minima.count == 2


def test_two_wells_of_equal_depth_and_unequal_width_are_two():
    expression = sp.Min((t + 3) ** 2, 1e4 * (t - 3) ** 2)
    kernel = wb.compile(wb.Energy(expression, variables=[t]))
    assert wb.minimise(kernel, candidates={"t": [-4.0, -3.5, 3.01, 2.99]}, minima=3).minima.count == 2


def test_at_most_k_are_kept_and_they_are_the_lowest(wells):
    points, width = np.array([0.0, 5.0, 5.1, 10.0, 10.1, 10.2, 15.0, 20.0, 20.05]), 0.5
    every = wb.minimise(wells, {"s": width}, {"x": points}, minima=9)
    two = wb.minimise(wells, {"s": width}, {"x": points}, minima=2)
    assert every.minima.count == 5 and two.minima.count == 2
    assert two.minima.energy == pytest.approx(every.minima.energy[:2], rel=1e-12)
    backwards = wb.minimise(wells, {"s": width}, {"x": points[::-1].copy()}, minima=2)
    assert backwards.minima.variables["t"] == pytest.approx(two.minima.variables["t"], abs=1e-7)


def test_instances_differ_in_how_many_they_have(quartic):
    slopes = np.array([0.0, 0.2, 3.0, -0.2])
    solution = wb.minimise(quartic, None, {"a": slopes}, candidates={"t": [-2.0, 2.0, 0.5]}, minima=3)
    assert solution.minima.count.tolist() == [2, 2, 1, 2]
    missing = np.isnan(solution.minima.energy)
    assert (missing.sum(axis=1) == 3 - solution.minima.count).all()
    assert (np.isnan(solution.minima.variables["t"]) == missing).all()
    assert solution.minima.status[2, 1] is wb.Status.NOT_FINITE
    assert solution.minima.variables["t"].shape == solution.minima.curvature.shape == (4, 3)
    roots = [np.roots([4, 0, -2, slope]) for slope in slopes]
    for k, row in enumerate(solution.minima.variables["t"]):
        real = np.sort(roots[k][np.abs(roots[k].imag) < 1e-9].real)
        expected = real[[0, -1]] if len(real) == 3 else real
        assert np.sort(row[~np.isnan(row)]) == pytest.approx(expected, abs=1e-8)


def test_a_run_that_fails_does_not_hide_a_minimum():
    kernel = wb.compile(wb.Energy(t**3 - 3 * t + a * sp.log(t + 9), variables=[t], data=[a]))
    solution = wb.minimise(kernel, None, {"a": [1e-9, 1e-9]}, candidates={"t": [-20.0, -5.0, 2.0]}, minima=2)
    assert solution.converged.all() and solution.minima.count.tolist() == [1, 1]
    assert solution.variables["t"] == pytest.approx(1.0, abs=1e-6)


def test_where_no_start_leads_to_a_minimum_the_first_one_says_why():
    kernel = wb.compile(wb.Energy(sp.log(t) - t, variables=[t], name="falling"))
    solution = wb.minimise(kernel, candidates={"t": [-1.0, -2.0]}, minima=2)
    assert solution.status is wb.Status.NOT_FINITE and solution.minima.count == 0
    assert solution.variables["t"] == -1.0
    assert "log(t)" in str(solution.explain())


# ---------------------------------------------------------------------------------------------- batches


def bits(solution, rows=slice(None)):
    minima = solution.minima
    numbers = (minima.energy, minima.gradient_norm, minima.curvature, minima.count, minima.evaluations)
    parts = (*minima.variables.values(), *numbers, solution.energy)
    return [np.ascontiguousarray(part[rows]).tobytes() for part in parts]


@pytest.mark.parametrize("options", [{"minima": 4}, {"minima": 3, "restarts": 5}, {"restarts": 4, "seed": 3}])
def test_an_instance_has_the_same_bits_in_any_batch_and_order(wells, options):
    points = np.random.default_rng(5).uniform(0, 12, (80, 10))
    whole = wb.minimise(wells, {"s": 0.7}, {"x": points}, **options)
    order = np.random.default_rng(6).permutation(80)
    assert bits(wb.minimise(wells, {"s": 0.7}, {"x": points[order]}, **options)) == bits(whole, order)
    for k in (0, 41):
        one = wb.minimise(wells, {"s": 0.7}, {"x": points[k : k + 1]}, **options)
        assert bits(one) == bits(whole, slice(k, k + 1))
    for number in (1, 2):
        wb.set_threads(number)
        assert bits(wb.minimise(wells, {"s": 0.7}, {"x": points}, **options)) == bits(whole)
    wb.set_threads(None)


def test_batched_weights_and_candidates(wells):
    points = np.random.default_rng(5).uniform(0, 12, (6, 10))
    widths = np.linspace(0.4, 0.9, 6)
    candidates = np.random.default_rng(7).uniform(0, 12, (6, 5))
    whole = wb.minimise(wells, {"s": widths}, {"x": points}, candidates={"t": candidates}, minima=3)
    for k in range(6):
        one = wb.minimise(wells, {"s": widths[k]}, {"x": points[k]}, candidates={"t": candidates[k]}, minima=3)
        assert one.minima.variables["t"].tobytes() == whole.minima.variables["t"][k].tobytes()


def test_memory_does_not_grow_with_the_number_of_candidates(quartic):
    import tracemalloc

    slopes = np.zeros(20_000)
    peaks = []
    for count in (10, 40):
        candidates = np.linspace(-2, 2, count)
        wb.minimise(quartic, None, {"a": slopes}, candidates={"t": candidates}, minima=2)
        tracemalloc.start()
        wb.minimise(quartic, None, {"a": slopes}, candidates={"t": candidates}, minima=2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_each_minimum_has_its_implicit_gradient(wells):
    """dt/ds of the c-th minimum, against differences of the minimum found again."""
    points, step = np.array([[0.0, 0.6, 4.0, 4.3, 4.9], [0.0, 3.0, 3.5, 8.0, 9.0]]), 1e-5
    solution = wb.minimise(wells, {"s": 0.8}, {"x": points}, minima=2, gtol=1e-14)
    assert solution.minima.count.tolist() == [2, 2]
    for c, one in enumerate(solution.minima):
        jacobian = wb.implicit_jacobian(wells, one, damping=0.0)[:, 0, 0]
        ends = [
            wb.minimise(wells, {"s": 0.8 + d}, {"x": points}, start=one, gtol=1e-14).variables["t"]
            for d in (step, -step)
        ]
        assert jacobian == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-7), c
    main = wb.implicit_gradient(wells, solution, {"t": np.ones(2)})
    assert main["s"] == wb.implicit_gradient(wells, solution.minima[0], {"t": np.ones(2)})["s"]


def test_a_missing_minimum_adds_nothing_to_a_gradient(quartic):
    kernel = wb.compile(wb.Energy(t**4 - t**2 + a * t * s, variables=[t], weights=[s], data=[a]))
    solution = wb.minimise(kernel, {"s": 1.0}, {"a": [0.1, 3.0]}, candidates={"t": [-1.0, 1.0]}, minima=2)
    assert solution.minima.count.tolist() == [2, 1]
    with pytest.warns(wb.UnconvergedWarning, match="1 of 2"):
        both = wb.implicit_gradient(kernel, solution.minima[1], {"t": np.ones(2)})
    alone = wb.minimise(kernel, {"s": 1.0}, {"a": [0.1]}, start={"t": solution.minima[1].variables["t"][:1]})
    assert both["s"] == pytest.approx(wb.implicit_gradient(kernel, alone, {"t": np.ones(1)})["s"], rel=1e-9)


def test_evaluations_count_all_starts(quartic):
    starts = [-2.0, 0.5, 2.0]
    solution = wb.minimise(quartic, None, {"a": 0.1}, candidates={"t": starts}, minima=2)
    single = sum(wb.minimise(quartic, None, {"a": 0.1}, start={"t": one}).evaluations for one in starts)
    assert single <= solution.minima.evaluations <= single + 10


# ---------------------------------------------------------------------------------------------- restarts


def test_restarts_find_what_the_start_does_not(quartic):
    plain = wb.minimise(quartic, None, {"a": 0.3}, start={"t": 2.0})
    solution = wb.minimise(quartic, None, {"a": 0.3}, start={"t": 2.0}, restarts=10, seed=1)
    assert solution.energy < plain.energy and solution.variables["t"] < 0
    assert solution.minima.starts == 11 and len(solution.minima) == 1


def test_restarts_depend_on_the_seed_alone(quartic):
    def run(seed):
        options = {"start": {"t": 0.3}, "restarts": 3, "minima": 2, "max_iterations": 0}
        kernel = wb.compile(wb.Energy(0 * t + (t - a) ** 2, variables=[t], data=[a]))
        return [p.start.tobytes() for p in starts_of(kernel, {"a": [1.0, 2.0]}, seed=seed, **options)]

    assert run(1) == run(1) != run(2)


def starts_of(kernel, data, *, start=None, candidates=None, restarts, seed, **options):
    """The runs of `minimise` with restarts, as problems."""
    from wiberg.runtime.starts import _runs

    given = {"candidates": candidates} if start is None else {"start": start}
    problem = wb.minimise(kernel, None, data, max_iterations=0, **given).problem
    return list(_runs(problem, "every" if candidates is not None else "lowest", restarts, seed))


def test_restarts_around_a_start_have_its_scale():
    kernel = wb.compile(wb.Energy((v[0] - a) ** 2 + v[1] ** 2 + t**2, variables=[v, t], data=[a]))
    start = {"v": [[3e6, 0.0], [3e-6, -4e-6]], "t": [0.0, 5.0]}
    runs = starts_of(kernel, {"a": [0.0, 0.0]}, start=start, restarts=2000, seed=0)
    points = np.stack([run.start for run in runs[1:]])
    centre = runs[0].start
    assert points.mean(axis=0) == pytest.approx(centre, abs=0.1 * 3e6)
    spread = (points - centre).std(axis=0)
    assert spread == pytest.approx(np.array([[3e6, 3e6, 1.0], [4e-6, 4e-6, 5.0]]), rel=0.06)
    draws = (points - centre) / np.array([[3e6, 3e6, 1.0], [4e-6, 4e-6, 5.0]])
    assert draws[:, 0] == pytest.approx(draws[:, 1], abs=1e-9), "all instances share the draws"


def test_restarts_lie_within_the_spread_of_the_candidates():
    kernel = wb.compile(wb.Energy((v[0] - a) ** 2 + v[1] ** 2, variables=[v], data=[a]))
    candidates = {"v": [[1.0, -5.0], [2.0, -7.0], [1.5, -6.0]]}
    runs = starts_of(kernel, {"a": [0.0, 1.0]}, candidates=candidates, restarts=1000, seed=0)
    assert len(runs) == 1003
    points = np.stack([run.start[0] for run in runs[3:]])
    assert points.min(axis=0) == pytest.approx([1, -7], abs=0.02)
    assert points.max(axis=0) == pytest.approx([2, -5], abs=0.02)
    assert points.mean(axis=0) == pytest.approx([1.5, -6], abs=0.1)


def test_without_minima_the_lowest_candidate_and_restarts_are_minimised_from(wells):
    points = np.array([[0.0, 5.0, 5.1, 10.0, 10.1, 10.2]])
    plain = wb.minimise(wells, {"s": 0.5}, {"x": points})
    solution = wb.minimise(wells, {"s": 0.5}, {"x": points}, restarts=2)
    assert solution.minima.starts == 3
    assert solution.variables["t"].tobytes() == plain.variables["t"].tobytes()
    assert solution.evaluations.tolist() == (plain.evaluations - 1).tolist()  # ranking is not part of the run


def test_warm_start_from_minima(wells):
    points = np.array([[0.0, 5.0, 5.1, 10.0, 10.1, 10.2]])
    solution = wb.minimise(wells, {"s": 0.5}, {"x": points}, minima=3)
    for one in solution.minima:
        again = wb.minimise(wells, {"s": 0.5}, {"x": points}, start=one)
        assert again.iterations.tolist() == [0]


# ---------------------------------------------------------------------------------------------- the rest


def test_a_solution_of_several_starts_can_be_pickled_explained_and_drawn(quartic):
    solution = wb.minimise(quartic, None, {"a": [0.1, 3.0]}, start={"t": 2.0}, minima=2, restarts=20, trace=True)
    again = pickle.loads(pickle.dumps(solution))
    assert again.minima.variables["t"].tobytes() == solution.minima.variables["t"].tobytes()
    assert again.trace.energy.tobytes() == solution.trace.energy.tobytes()
    assert str(again.explain(1)) == str(solution.explain(1))
    assert "minima: 1 in 1 instance, 2 in 1 instance" in str(solution)
    assert solution.trace.energy[:, -1].tobytes() == solution.energy.tobytes()


def test_the_path_of_the_lowest_minimum_is_kept_whichever_start_led_there(quartic):
    starts = np.array([2.0, 0.5, -2.0])
    slopes = np.array([0.1, -0.1, 0.2])
    solution = wb.minimise(quartic, None, {"a": slopes}, candidates={"t": starts}, minima=2, trace=True)
    assert solution.trace.variables["t"][:, 0].tolist() == [-2.0, 2.0, -2.0]
    again = wb.minimise(quartic, None, {"a": slopes}, start={"t": solution.trace.variables["t"][:, 0]})
    assert again.variables["t"].tobytes() == solution.variables["t"].tobytes()


def test_without_the_option_there_are_no_minima(quartic):
    assert wb.minimise(quartic, None, {"a": 0.1}, start={"t": 2.0}).minima is None


@pytest.mark.parametrize("name", ["minima", "restarts", "seed"])
@pytest.mark.parametrize("bad", [-1, 1.5, "2", True])
def test_a_bad_number_is_refused(quartic, name, bad):
    with pytest.raises(InputError, match=rf"{name} must be an integer.*{bad}"):
        wb.minimise(quartic, None, {"a": 0.1}, start={"t": 2.0}, **{name: bad})


def test_no_minima_and_a_trace_that_is_no_bool_are_refused(quartic):
    with pytest.raises(InputError, match="minima must be an integer >= 1"):
        wb.minimise(quartic, None, {"a": 0.1}, start={"t": 2.0}, minima=0)
    with pytest.raises(InputTypeError, match="trace must be True or False"):
        wb.minimise(quartic, None, {"a": 0.1}, start={"t": 2.0}, trace=3)


# ---------------------------------------------------------------------------------------------- starts of basins


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(20, 60), width=st.floats(0.7, 4.0))
def test_basins_lead_to_the_minima_that_all_candidates_do(wells, seed, count, width):
    points = np.random.default_rng(seed).uniform(0, 20, (4, count))
    every = wb.minimise(wells, {"s": width}, {"x": points}, minima=3).minima
    basins = wb.minimise(wells, {"s": width}, {"x": points}, minima=3, starts="basins").minima
    assert basins.energy[:, 0] == pytest.approx(every.energy[:, 0], rel=1e-9)
    assert (basins.count <= every.count).all()
    assert basins.starts == 6
    assert (basins.evaluations < every.evaluations).all()
    for b in range(4):
        for energy in basins.energy[b, : basins.count[b]]:  # none is listed twice, none is made up
            close = np.isclose(every.energy[b], energy, rtol=1e-9) | (energy > np.nanmax(every.energy[b]))
            assert close.any()


def test_basins_miss_hardly_any_minimum(wells):
    points = np.random.default_rng(0).uniform(0, 40, (300, 60))
    for width in (0.5, 1.0, 3.0):
        every, basins = (
            wb.minimise(wells, {"s": width}, {"x": points}, minima=3, starts=starts).minima.energy
            for starts in ("every", "basins")
        )
        assert (np.abs(every[:, 0] - basins[:, 0]) < 1e-9).all()
        known = np.isfinite(every)
        found = (np.abs(every[:, :, None] - basins[:, None, :]) < 1e-9).any(axis=2)
        assert found[known].mean() > 0.99


def test_basins_of_several_unknowns(himmelblau):
    grid = np.stack(np.meshgrid(*[np.linspace(-5.0, 5.0, 8)] * 2), axis=-1).reshape(-1, 2)
    for turn in (0.0, 0.7):
        solution = wb.minimise(
            himmelblau, None, {"a": turn, "s": 1.0, "unit": 1.0}, candidates={"v": grid}, minima=6, starts="basins"
        )
        assert solution.minima.count == 4
        assert (solution.minima.energy[:4] < 1e-12).all()


def test_basins_of_an_instance_depend_on_no_other(wells):
    points = np.random.default_rng(1).uniform(0, 30, (70, 40))
    whole = wb.minimise(wells, {"s": 0.8}, {"x": points}, minima=4, starts="basins").minima
    for b in (0, 17, 69):
        one = wb.minimise(wells, {"s": 0.8}, {"x": points[b]}, minima=4, starts="basins").minima
        assert one.variables["t"].tobytes() == whole.variables["t"][b].tobytes()
        assert (one.count, one.evaluations) == (whole.count[b], whole.evaluations[b])


def test_basins_among_candidates_of_which_some_are_not_finite(wells):
    points = np.array([0.0, 10.0])
    candidates = {"t": [np.nan, 10.5, np.inf, 0.4, 10.5]}
    solution = wb.minimise(wells, {"s": 1.0}, {"x": points}, candidates=candidates, minima=3, starts="basins")
    assert solution.minima.variables["t"][:2] == pytest.approx([0.0, 10.0], abs=1e-6)
    assert solution.minima.count == 2
    none = wb.minimise(wells, {"s": 1.0}, {"x": points}, candidates={"t": [np.nan, np.inf]}, minima=3, starts="basins")
    assert none.minima.count == 0
    assert none.status == wb.Status.NOT_FINITE


def test_basins_within_bounds(wells):
    points = np.array([[0.0, 5.0, 5.1, 10.0, 10.1, 10.2]])
    bounds = {"t": (4.0, 9.5)}
    every, basins = (
        wb.minimise(wells, {"s": 0.8}, {"x": points}, minima=3, starts=starts, bounds=bounds)
        for starts in ("every", "basins")
    )
    assert basins.minima.variables["t"] == pytest.approx(every.minima.variables["t"], nan_ok=True)
    assert basins.active["t"].tolist() == every.active["t"].tolist()


def test_basins_and_restarts(wells):
    points = np.array([[0.0, 5.0, 5.1, 10.0, 10.1, 10.2]])
    solution = wb.minimise(wells, {"s": 0.8}, {"x": points}, minima=3, starts="basins", restarts=5)
    assert solution.minima.starts == 11
    assert solution.minima.variables["t"][0] == pytest.approx([10.1, 5.05, 0.0], abs=0.1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"starts": "some", "minima": 2}, "starts must be 'every' or 'basins'"),
        ({"starts": "basins"}, "for minima=k"),
        ({"starts": "basins", "minima": 2, "start": {"t": 0.0}}, "from candidates"),
        ({"starts": "basins", "minima": 2, "eliminate": ["t"]}, "eliminate= is not for it"),
    ],
)
def test_starts_that_do_not_fit_are_refused(wells, options, words):
    with pytest.raises(InputError, match=words):
        wb.minimise(wells, {"s": 1.0}, {"x": [1.0, 2.0]}, **options)
