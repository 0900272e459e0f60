"""Properties that minimisers elsewhere are tested for, or that their users miss; each test names one."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from wiberg.energies.errors import InputError
from wiberg.runtime.methods import GENERAL_METHODS

t, u, w, a, b = sp.symbols("t u w a b", real=True)
n = sp.Symbol("n", integer=True, positive=True)
i, k = sp.Idx("i", n), sp.Idx("k", (0, n - 2))
c, d = sp.Idx("c", 2), sp.Idx("d", 2)
x, v = sp.IndexedBase("x", shape=(n, 2)), sp.IndexedBase("v", shape=(2,))
z, g = sp.IndexedBase("z", shape=(n,)), sp.IndexedBase("g", shape=(n,))

every_method = pytest.mark.parametrize("method", GENERAL_METHODS)


def plane(expression, name="plane"):
    return wb.compile(wb.Energy(expression, variables=[t, u], name=name))


def at(point):
    return {"t": point[0], "u": point[1]}


def bits(solution, rows=slice(None)):
    return [getattr(solution, name)[rows].tobytes() for name in ("y", "energies", "reals", "integers")]


@pytest.fixture(scope="module")
def rosenbrock():
    return plane((1 - t) ** 2 + 100 * (u - t**2) ** 2, "rosenbrock")


@pytest.fixture(scope="module")
def location():
    """The place that is nearest to points in the plane, robustly: sum over i of sqrt(s^2 + |x_i - v|^2)."""
    s = sp.Symbol("s", positive=True)
    expression = sp.Sum(sp.sqrt(s**2 + (x[i, 0] - v[0]) ** 2 + (x[i, 1] - v[1]) ** 2), i)
    return wb.compile(wb.Energy(expression, variables=[v], weights=[s], data=[x], name="location"))


@pytest.fixture(scope="module")
def chain():
    """A banded energy of any number of unknowns with data, which may be unbounded (b < 0) or overflow (b huge)."""
    expression = sp.Sum((z[i] - g[i]) ** 2, i) + sp.Sum(sp.sqrt(1 + (z[k + 1] - z[k]) ** 2), k) + b * z[0] ** 3
    return wb.compile(wb.Energy(expression, variables=[z], data=[g, b], name="chain"))


# ---------------------------------------------------------------------------------------------- known functions


@every_method
@pytest.mark.parametrize("start", [(2.0, 2.0), (-1.2, 1.0)])
def test_every_method_reaches_the_minimum_of_rosenbrock(rosenbrock, method, start):
    solution = wb.minimise(rosenbrock, start=at(start), method=method, max_iterations=1000)
    assert solution.converged
    assert [solution.variables["t"], solution.variables["u"]] == pytest.approx([1, 1], abs=1e-6)


EGGHOLDER = -(u + 47) * sp.sin(sp.sqrt(sp.Abs(u + t / 2 + 47))) - t * sp.sin(sp.sqrt(sp.Abs(t - u - 47)))


@every_method
@pytest.mark.filterwarnings("ignore::wiberg.energies.errors.UnboundedDerivativeWarning")
@pytest.mark.parametrize(
    "expression, start",
    [
        (1e4 * (t**2 + u**2), (3.0, -2.0)),
        (sp.Rational(26, 100) * (t**2 + u**2) - sp.Rational(48, 100) * t * u, (6.0, 6.0)),
        (t**2 + u**2 + (t / 2 + u) ** 2 + (t / 2 + u) ** 4, (1e4, -600.0)),
        ((t**2 + u - 11) ** 2 + (t + u**2 - 7) ** 2, (92.0, 0.001)),
        (EGGHOLDER, (100.0, 100.0)),
    ],
    ids=["steep sphere", "matyas", "zakharov", "himmelblau", "eggholder"],
)
def test_bad_starts_and_steep_functions_end_no_higher_than_scipy(expression, start, method):
    kernel = plane(expression)
    solution = wb.minimise(kernel, start=at(start), method=method, max_iterations=1000)
    function = sp.lambdify([[t, u]], expression)
    reference = optimize.minimize(function, start, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-10})
    assert solution.status in (wb.Status.CONVERGED, wb.Status.STALLED)
    if expression is not EGGHOLDER:  # of its hundreds of minima each method finds its own
        assert solution.energy <= reference.fun + 1e-9 * (1 + abs(reference.fun))
    assert solution.energy <= function(start)


def test_meyers_badly_scaled_problem_is_solved():
    """More, Garbow, Hillstrom (1981), problem 10: 87.9458 from (0.02, 4000, 250)."""
    values = [34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872]
    expression = sp.Sum((t * sp.exp(u / (45 + 5 * (i + 1) + w)) - g[i]) ** 2, i)
    kernel = wb.compile(wb.Energy(expression, variables=[t, u, w], data=[g], name="meyer"))
    solution = wb.minimise(kernel, None, {"g": values}, start={"t": 0.02, "u": 4000.0, "w": 250.0}, max_iterations=500)
    assert solution.status in (wb.Status.CONVERGED, wb.Status.STALLED)
    assert solution.energy == pytest.approx(87.9458, rel=1e-6)


def test_a_sum_of_two_exponentials_is_fitted():
    times = np.linspace(0, 4, 30)
    truth = np.array([3.0, 1.3, 1.0, 0.2])
    values = truth[0] * np.exp(-truth[1] * times) + truth[2] * np.exp(-truth[3] * times)
    p, h = sp.IndexedBase("p", shape=(4,)), sp.IndexedBase("h", shape=(n,))
    expression = sp.Sum((p[0] * sp.exp(-p[1] * h[i]) + p[2] * sp.exp(-p[3] * h[i]) - g[i]) ** 2, i)
    kernel = wb.compile(wb.Energy(expression, variables=[p], data=[g, h], name="decays"))
    solution = wb.minimise(kernel, None, {"g": values, "h": times}, start={"p": [1.0, 2.0, 1.0, 0.1]})
    assert solution.converged
    assert solution.variables["p"] == pytest.approx(truth, abs=1e-5)


# ---------------------------------------------------------------------------------------------- records


@every_method
@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_the_energy_belongs_to_the_variables_to_the_bit(location, method, seed):
    rng = np.random.default_rng(seed)
    data = {"x": rng.standard_normal((4, 5, 2))}
    limit = int(rng.integers(0, 6))
    start = {"v": rng.standard_normal((4, 2))}
    solution = wb.minimise(location, {"s": 0.3}, data, start=start, method=method, max_iterations=limit)
    assert location.value(solution.variables, {"s": 0.3}, data).tobytes() == solution.energy.tobytes()
    norms = np.abs(location.gradient(solution.variables, {"s": 0.3}, data)).max(axis=1)
    assert norms == pytest.approx(solution.gradient_norm, rel=1e-6, abs=1e-13)


def test_evaluations_are_the_calls_of_the_kernel(poisoned):
    """The kernel counts its calls in c[0]; poison is out of reach. One more call gives the energy at the end."""
    starts = np.array([[-1.2, 1.0], [1.0, 1.0], [2.0, 2.0], [0.0, 0.0]])
    for limit in (0, 1, 7, 100):
        data = {"c": np.array([[0.0, 1e9, 1e9, 0.0, 0.0]] * 4)}
        solution = wb.minimise(poisoned, None, data, start={"y": starts}, max_iterations=limit)
        assert data["c"][:, 0].tolist() == (solution.evaluations + 1).tolist()


@every_method
def test_a_start_that_is_nearly_the_minimum_is_converged(rosenbrock, method):
    for off in (1e-15, 1e-12, 1e-10):
        solution = wb.minimise(rosenbrock, start=at((1.0 + off, 1.0)), method=method)
        assert solution.converged and solution.iterations <= 2


@every_method
@pytest.mark.parametrize("limit", [0, 1])
def test_no_iteration_and_one_have_sane_statuses(rosenbrock, method, limit):
    solution = wb.minimise(rosenbrock, start=at((-1.2, 1.0)), method=method, max_iterations=limit)
    assert solution.status is wb.Status.ITERATION_LIMIT
    assert solution.iterations == limit and np.isfinite(solution.gradient_norm) and solution.energy <= 24.2 + 1e-12
    assert wb.minimise(rosenbrock, start=at((1.0, 1.0)), method=method, max_iterations=limit).converged


# ---------------------------------------------------------------------------------------------- how it is written


def test_permuting_the_declared_variables_permutes_the_result_and_nothing_else():
    expression = (t - u**2) ** 2 + (u - w) ** 4 + sp.exp(w / 3) + (t - 1) ** 2
    start = {"t": 3.0, "u": -1.0, "w": 2.0}
    reference = None
    for order in ([t, u, w], [w, t, u], [u, w, t]):
        solution = wb.minimise(wb.compile(wb.Energy(expression, variables=order)), start=start)
        numbers = [float(solution.variables[name]) for name in "tuw"]
        if reference is None:
            reference = (numbers, solution.iterations)
        assert numbers == pytest.approx(reference[0], abs=1e-9)
        assert solution.iterations == reference[1]


def test_one_array_and_several_scalars_have_the_same_minimum(rosenbrock):
    array = wb.compile(wb.Energy((1 - v[0]) ** 2 + 100 * (v[1] - v[0] ** 2) ** 2, variables=[v]))
    starts = np.random.default_rng(0).uniform(-2, 2, (10, 2))
    flat = wb.minimise(array, start={"v": starts})
    apart = wb.minimise(rosenbrock, start={"t": starts[:, 0], "u": starts[:, 1]})
    assert flat.variables["v"] == pytest.approx(np.stack([apart.variables["t"], apart.variables["u"]], axis=1))
    packed = rosenbrock.variables.pack(apart.variables)
    assert packed.tobytes() == apart.y.tobytes()
    again = rosenbrock.variables.unpack(packed)
    assert all(again[name].tobytes() == apart.variables[name].tobytes() for name in "tu")


def test_an_array_changed_in_place_gives_new_results(location):
    data = np.random.default_rng(0).standard_normal((4, 2))
    first = wb.minimise(location, {"s": 0.5}, {"x": data}, start={"v": [0.0, 0.0]})
    data += 1.0
    second = wb.minimise(location, {"s": 0.5}, {"x": data}, start={"v": [0.0, 0.0]})
    assert second.variables["v"] == pytest.approx(first.variables["v"] + 1.0)


@pytest.mark.parametrize(
    "make", [np.float32, np.int64, lambda a: np.asfortranarray(a), lambda a: np.repeat(a, 2, axis=-1)[..., ::2], list]
)
def test_other_kinds_of_arrays_give_float64_and_stay_as_they_are(location, make):
    points = np.array([[[0, 1], [2, 5], [3, -4]], [[1, 1], [0, 7], [6, 2]]], np.float64)
    start = np.array([[1, 2], [3, 4]], np.float64)
    given_x, given_v = make(points), make(start)
    for array in (given_x, given_v):
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
    solution = wb.minimise(location, {"s": 0.5}, {"x": given_x}, start={"v": given_v})
    plain = wb.minimise(location, {"s": 0.5}, {"x": points}, start={"v": start})
    assert bits(solution) == bits(plain)
    assert solution.variables["v"].dtype == solution.energy.dtype == np.float64
    assert (np.asarray(given_x) == points).all() and (np.asarray(given_v) == start).all()


# ---------------------------------------------------------------------------------------------- batches


@every_method
@pytest.mark.parametrize("unknowns", [5, 250])
def test_poisoned_neighbours_change_no_bit(chain, method, unknowns):
    count = 1000 if unknowns == 5 else 60
    rng = np.random.default_rng(0)
    data, start, b_ = rng.standard_normal((count, unknowns)), rng.standard_normal((count, unknowns)), np.zeros(count)
    alone = wb.minimise(chain, None, {"g": data, "b": b_}, start={"z": start}, method=method)
    assert alone.converged.all()
    bad = np.array([3, count // 2, count - 2, count - 1])
    spoilt, away, cubes = data.copy(), start.copy(), b_.copy()
    cubes[bad[0]] = -1.0  # unbounded
    cubes[bad[1]] = 1e200  # overflows
    away[bad[2], 1] = np.inf
    spoilt[bad[3], 1] = np.nan
    solution = wb.minimise(
        chain, None, {"g": spoilt, "b": cubes}, start={"z": away}, method=method, check=False, max_iterations=200
    )
    others = np.setdiff1d(np.arange(count), bad)
    assert bits(solution, others) == bits(alone, others)
    assert set(solution.status[bad[1:]]) == {wb.Status.NOT_FINITE}
    assert not solution.converged[bad[1:]].any()
    order = rng.permutation(count)
    spoilt, cubes, away = spoilt[order], cubes[order], away[order]
    shuffled = wb.minimise(
        chain, None, {"g": spoilt, "b": cubes}, start={"z": away}, method=method, check=False, max_iterations=200
    )
    assert bits(shuffled) == bits(solution, order)


def test_batches_of_one_and_shared_arrays_go_with_any_batch(location):
    points = np.random.default_rng(0).standard_normal((3, 5, 2))
    for one in (points[:1], points[0]):
        solution = wb.minimise(location, {"s": [0.5, 0.5, 0.5]}, {"x": one}, start={"v": np.zeros((1, 2))})
        assert solution.variables["v"].shape == (3, 2)
        assert len({row.tobytes() for row in solution.variables["v"]}) == 1
    with pytest.raises(InputError, match=r"batch sizes disagree.*s.*2.*x.*3|batch sizes disagree.*x.*3.*s.*2"):
        wb.minimise(location, {"s": [0.5, 0.5]}, {"x": points}, start={"v": [0.0, 0.0]})
    with pytest.raises(InputError, match=r"batch sizes disagree: v has 2"):
        wb.minimise(location, {"s": 0.5}, {"x": points}, start={"v": np.zeros((2, 2))})
    with pytest.raises(InputError, match=r"batch sizes disagree: candidates have 2"):
        wb.minimise(location, {"s": 0.5}, {"x": points}, candidates={"v": np.zeros((2, 4, 2))})


SPAWNED = """
import multiprocessing, pickle
import numpy as np, sympy as sp, wiberg as wb

def minimised(pair):
    kernel, rows = pair
    return wb.minimise(kernel, {"s": 0.5}, {"x": rows}, start={"t": 0.0}, minima=2, restarts=2)

def main():
    t, s = sp.Symbol("t", real=True), sp.Symbol("s", positive=True)
    n = sp.Symbol("n", integer=True, positive=True)
    i, x = sp.Idx("i", n), sp.IndexedBase("x", shape=(n,))
    kernel = wb.compile(wb.Energy(-sp.Sum(sp.exp(-(x[i] - t)**2/s), i), variables=[t], weights=[s], data=[x]))
    data = np.random.default_rng(0).standard_normal((40, 9))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        parts = pool.map(minimised, [(kernel, data[:20]), (kernel, data[20:])])
    whole = minimised((kernel, data))
    same = b"".join(p.y.tobytes() for p in parts) == whole.y.tobytes()
    print(same, parts[1].explain(3).status.name, len(parts[0].minima))

if __name__ == "__main__":
    main()
"""


def test_kernels_and_solutions_go_through_a_pool_of_spawned_processes(tmp_path):
    script = tmp_path / "spawned.py"
    script.write_text(SPAWNED)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["True", "CONVERGED", "2"], done.stderr


# ---------------------------------------------------------------------------------------------- invariance

frames = st.tuples(st.integers(0, 10**6), st.floats(-1e3, 1e3), st.floats(0, 2 * np.pi), st.floats(-6, 6))


@every_method
@settings(max_examples=40)
@given(frame=frames)
def test_shifting_turning_and_scaling_data_moves_the_minimum_with_them(location, method, frame):
    """Minima agree to 1e-7 of the data's spread, and to the rounding of the shift."""
    seed, shift, angle, exponent = frame
    rng = np.random.default_rng(seed)
    points, start, unit = rng.standard_normal((7, 2)), rng.standard_normal(2), 10.0**exponent
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = unit * (points @ turn.T + shift)
    plain = wb.minimise(location, {"s": 0.4}, {"x": points}, start={"v": start}, method=method)
    solution = wb.minimise(
        location, {"s": 0.4 * unit}, {"x": moved}, start={"v": unit * (start @ turn.T + shift)}, method=method
    )
    assert plain.converged and solution.status in (wb.Status.CONVERGED, wb.Status.STALLED)
    expected = plain.variables["v"] @ turn.T + shift
    assert solution.variables["v"] / unit == pytest.approx(expected, abs=1e-7 + 1e-14 * abs(shift))
    assert solution.energy == pytest.approx(unit * plain.energy, rel=1e-9)
    assert abs(solution.iterations - plain.iterations) <= 10


@pytest.fixture(scope="module")
def scaled():
    expression = a * sp.Sum(sp.sqrt(1 + (g[i] - t) ** 2), i) + b
    return wb.compile(wb.Energy(expression, variables=[t], data=[g, a, b], name="scaled"))


@every_method
@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), exponent=st.floats(-6, 6), offset=st.floats(-1e6, 1e6))
def test_the_unit_of_the_energy_and_a_constant_do_not_move_the_minimum(scaled, method, seed, exponent, offset):
    points, scale = np.random.default_rng(seed).standard_normal(6), 10.0**exponent
    plain = wb.minimise(scaled, None, {"g": points, "a": 1.0, "b": 0.0}, start={"t": 2.0}, method=method)
    data = {"g": points, "a": scale, "b": scale * offset}
    solution = wb.minimise(scaled, None, data, start={"t": 2.0}, gtol=1e-8 * scale, method=method)
    assert solution.status in (wb.Status.CONVERGED, wb.Status.STALLED)
    assert solution.variables["t"] == pytest.approx(plain.variables["t"], abs=1e-7)


# ---------------------------------------------------------------------------------------------- bad inputs


def test_empty_sums_and_no_unknowns_are_minimised():
    nothing = wb.compile(wb.Energy(sp.Sum((g[i] - t) ** 2, i), variables=[t], data=[g], name="sum"))
    solution = wb.minimise(nothing, None, {"g": np.empty((3, 0))}, start={"t": 1.0}, minima=2, restarts=1, trace=True)
    assert solution.converged.all() and solution.energy.tolist() == [0.0] * 3
    empty = wb.compile(wb.Energy(sp.Sum((z[i] - 1) ** 2, i), variables=[z], name="none"))
    solution = wb.minimise(empty, start={"z": np.empty((4, 0))}, minima=2, restarts=2, trace=True)
    assert solution.converged.all() and solution.minima.count.tolist() == [1] * 4 and "4 CONVERGED" in str(solution)


def test_a_batch_of_none_is_minimised_in_every_way(location):
    data = {"x": np.empty((0, 4, 2))}
    solution = wb.minimise(location, {"s": 1.0}, data, start={"v": [0.0, 0.0]}, minima=2, restarts=2, trace=True)
    assert solution.minima.variables["v"].shape == (0, 2, 2) and solution.trace.energy.shape == (0, 1)
    assert repr(solution.minima) == "Minima(none of at most 2 from 3 starts)"
    with pytest.raises(InputError, match="no instance 0"):
        solution.explain()


@pytest.mark.parametrize(
    "options, kind, words",
    [
        ({"start": {"vv": [0.0, 0.0]}}, wb.NameMissingError, r"vv.*did you mean 'v'"),
        ({"start": {"v": [0.0, 0.0, 0.0]}}, InputError, r"location.*v.*3"),
        ({"start": {"v": np.zeros((2, 2, 2))}}, InputError, r"location.*v.*\(2, 2, 2\)"),
        ({"start": {"v": [None, 0.0]}}, wb.InputTypeError, r"v.*object"),
        ({"start": {"v": [1j, 0.0]}}, wb.InputTypeError, r"v.*complex"),
        ({"start": {"v": ["a", "b"]}}, wb.InputTypeError, r"v.*<U1"),
        ({"start": [0.0, 0.0]}, wb.InputTypeError, r"location.*dict.*list"),
        ({"start": {"v": [0.0, 0.0]}, "minimum": 2}, wb.InputTypeError, r"minimum.*did you mean 'minima'"),
    ],
)
def test_a_bad_argument_names_what_is_wrong(location, options, kind, words):
    with pytest.raises(kind, match=words):
        wb.minimise(location, {"s": 1.0}, {"x": np.zeros((4, 2))}, **options)


@pytest.mark.parametrize(
    "weights, data, kind, words",
    [
        ({}, np.zeros((4, 2)), wb.NameMissingError, "weight s is missing"),
        ({"s": -1.0}, np.zeros((4, 2)), InputError, "s = -1.0.*positive"),
        ({"s": 1.0}, np.full((4, 2), np.nan), InputError, r"x has NaN at \[0, 0\].*check=False"),
        ({"s": 1.0}, np.zeros((4, 3)), InputError, r"x.*3"),
        ({"s": 1.0}, np.zeros((2, 2, 4, 2)), InputError, r"x has shape \(2, 2, 4, 2\)"),
        ({"s": 1.0}, [[None, 1.0]], wb.InputTypeError, "x.*object"),
    ],
)
def test_bad_weights_and_data_are_named(location, weights, data, kind, words):
    with pytest.raises(kind, match=words):
        wb.minimise(location, weights, {"x": data}, start={"v": [0.0, 0.0]})
