"""Paths: the very numbers of the minimisation, monotone, and drawn."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.runtime.methods import GENERAL_METHODS

t, a = sp.symbols("t a", real=True)
v = sp.IndexedBase("v", shape=(2,))
n = sp.Symbol("n", integer=True, positive=True)
i, k = sp.Idx("i", n), sp.Idx("k", (0, n - 2))
z, x = sp.IndexedBase("z", shape=(n,)), sp.IndexedBase("x", shape=(n,))


@pytest.fixture(scope="module")
def rosenbrock():
    return wb.compile(wb.Energy((1 - v[0]) ** 2 + a * (v[1] - v[0] ** 2) ** 2, variables=[v], data=[a], name="banana"))


@pytest.fixture(scope="module")
def robust():
    """A chain of robust springs to data; banded."""
    expression = sp.Sum(1 - sp.exp(-((z[i] - x[i]) ** 2)), i) + sp.Sum((z[k + 1] - z[k]) ** 2, k) / 2
    return wb.compile(wb.Energy(expression, variables=[z], data=[x], name="springs"))


def entries(trace):
    return {
        "energy": trace.energy,
        "gradient norm": trace.gradient_norm,
        "step length": trace.step_length,
        **trace.variables,
    }


@pytest.mark.parametrize("method", GENERAL_METHODS)
@settings(max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_energies_never_rise_along_a_path(robust, method, seed):
    rng = np.random.default_rng(seed)
    data, start = rng.normal(0, 3, (5, 6)), rng.normal(0, 3, (5, 6))
    solution = wb.minimise(robust, None, {"x": data}, start={"z": start}, trace=True, method=method)
    rises = np.diff(solution.trace.energy, axis=1)
    assert (rises <= 1e-13 * np.abs(solution.trace.energy[:, 1:])).all()
    assert (solution.energy <= solution.trace.energy[:, 0]).all(), "never worse than the start"
    assert solution.trace.variables["z"][:, 0].tobytes() == start.tobytes()


@pytest.mark.parametrize("method", GENERAL_METHODS)
def test_histories_have_shapes_and_first_and_best_entries(rosenbrock, method):
    starts = np.array([[-1.2, 1.0], [1.0, 1.0], [2.0, 2.0]])
    solution = wb.minimise(rosenbrock, None, {"a": 100.0}, start={"v": starts}, trace=True, method=method)
    steps = solution.iterations.max()
    trace = solution.trace
    assert trace.energy.shape == trace.gradient_norm.shape == trace.step_length.shape == (3, steps + 1)
    assert trace.variables["v"].shape == (3, steps + 1, 2)
    assert trace.energy[:, 0] == pytest.approx(rosenbrock.value({"v": starts}, None, {"a": 100.0}))
    best = np.take_along_axis(trace.energy, trace.energy.argmin(axis=1)[:, None], axis=1)[:, 0]
    assert best.tobytes() == solution.energy.tobytes()
    lengths = np.linalg.norm(np.diff(trace.variables["v"], axis=1), axis=2)
    assert trace.step_length[:, 1:] == pytest.approx(lengths)
    assert (trace.step_length[:, 0] == 0).all() and (trace.step_length[1] == 0).all()


@pytest.mark.parametrize("method", GENERAL_METHODS)
def test_a_trace_changes_no_bit_and_ends_where_the_minimisation_does(rosenbrock, method):
    starts = np.random.default_rng(0).uniform(-2, 2, (30, 2))
    plain = wb.minimise(rosenbrock, None, {"a": 100.0}, start={"v": starts}, method=method)
    traced = wb.minimise(rosenbrock, None, {"a": 100.0}, start={"v": starts}, trace=True, method=method)
    for name in ("y", "energies", "reals", "integers"):
        assert getattr(plain, name).tobytes() == getattr(traced, name).tobytes()
    assert traced.trace.variables["v"][:, -1].tobytes() == plain.variables["v"].tobytes()
    for limit in (0, 3, 11):
        part = wb.minimise(rosenbrock, None, {"a": 100.0}, start={"v": starts}, max_iterations=limit, method=method)
        assert traced.trace.variables["v"][:, limit].tobytes() == part.variables["v"].tobytes()
        assert traced.trace.energy[:, limit].tobytes() == part.energy.tobytes()
        assert traced.trace.gradient_norm[:, limit].tobytes() == part.gradient_norm.tobytes()


def test_the_last_point_that_is_reached_is_the_solution(rosenbrock):
    """Run again with as many iterations as were needed, without what `trace` takes from the solution."""
    plain = wb.minimise(rosenbrock, None, {"a": 100.0}, start={"v": [-1.2, 1.0]})
    again = wb.minimise(rosenbrock, None, {"a": 100.0}, start={"v": [-1.2, 1.0]}, max_iterations=plain.iterations)
    assert again.variables["v"].tobytes() == plain.variables["v"].tobytes()


def test_refused_steps_stay_and_have_no_length(rosenbrock):
    starts = np.random.default_rng(0).uniform(-3, 3, (50, 2))
    solution = wb.minimise(rosenbrock, None, {"a": 100.0}, start={"v": starts}, trace=True)
    stays = np.diff(solution.trace.energy, axis=1) == 0
    under_way = np.arange(stays.shape[1]) < solution.iterations[:, None]
    assert (stays & under_way).any() and not (stays & under_way).all()
    assert (solution.trace.step_length[:, 1:][stays] == 0).all()


def test_many_unknowns_of_a_sparse_energy_have_a_path(robust):
    data = np.random.default_rng(1).normal(0, 3, (2, 300))
    solution = wb.minimise(robust, None, {"x": data}, start={"z": np.zeros(300)}, trace=True)
    assert solution.trace.variables["z"].shape == (2, solution.iterations.max() + 1, 300)
    assert (np.diff(solution.trace.energy) <= 1e-13 * np.abs(solution.trace.energy[:, 1:])).all()
    assert solution.trace.energy[:, -1].tobytes() == solution.energy.tobytes()


def test_candidates_and_bad_data_have_paths_too(rosenbrock):
    candidates = {"v": [[-1.2, 1.0], [5.0, 5.0]]}
    solution = wb.minimise(rosenbrock, None, {"a": [100.0, np.nan]}, candidates=candidates, trace=True, check=False)
    assert solution.trace.variables["v"][0, 0].tolist() == [-1.2, 1.0]
    assert solution.status[1] is wb.Status.NOT_FINITE and np.isnan(solution.trace.gradient_norm[1]).all()


def test_without_the_option_there_is_no_trace(rosenbrock):
    assert wb.minimise(rosenbrock, None, {"a": 1.0}, start={"v": [0.0, 0.0]}).trace is None


def test_an_unbatched_trace_has_no_batch_axis(rosenbrock):
    trace = wb.minimise(rosenbrock, None, {"a": 1.0}, start={"v": [3.0, 0.0]}, trace=True).trace
    assert trace.energy.ndim == 1 and trace.variables["v"].shape == (len(trace.energy), 2)
    assert repr(trace) == f"Trace({len(trace.energy) - 1} steps)"


# ---------------------------------------------------------------------------------------------- figures


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def test_two_unknowns_are_drawn_with_contours(rosenbrock, pyplot):
    solution = wb.minimise(rosenbrock, None, {"a": [1.0, 100.0]}, start={"v": [-1.2, 1.0]}, trace=True)
    axes = wb.plot_path(solution, 1)
    path, start, end = axes.lines
    assert np.array(path.get_xydata()) == pytest.approx(solution.trace.variables["v"][1])
    assert start.get_xydata()[0].tolist() == [-1.2, 1.0]
    assert end.get_xydata()[0] == pytest.approx([1, 1])
    levels = axes.collections[0].levels
    assert len(levels) == 24 and (np.diff(levels) > 0).all()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("v[0]", "v[1]")
    assert "banana, instance 1: CONVERGED" in axes.get_title()


def test_one_unknown_is_drawn_along_its_energy(pyplot):
    kernel = wb.compile(wb.Energy(t**4 - t**2 - sp.log(t + 3), variables=[t], name="wells"))
    solution = wb.minimise(kernel, start={"t": -2.9}, trace=True)
    axes = wb.plot_path(solution)
    curve, path = axes.lines[:2]
    s, energy = curve.get_xydata().T
    inside = s > -3
    with np.errstate(invalid="ignore"):
        assert energy[inside] == pytest.approx((s**4 - s**2 - np.log(s + 3))[inside])
    assert path.get_xydata()[:, 1] == pytest.approx(solution.trace.energy)


def test_many_unknowns_are_drawn_over_the_steps(robust, pyplot):
    solution = wb.minimise(robust, None, {"x": np.arange(6.0)}, start={"z": np.zeros(6)}, trace=True)
    axes = pyplot.figure().add_subplot()
    assert wb.plot_path(solution, axes=axes) is axes
    left = axes.lines[0].get_ydata()
    expected = solution.trace.energy - solution.energy
    assert left[expected > 0] == pytest.approx(expected[expected > 0]) and np.isnan(left[expected <= 0]).all()
    assert axes.get_yscale() == "log"


@pytest.mark.parametrize("start", [-1.0, np.nan])
def test_a_path_that_ends_at_its_start_is_drawn(pyplot, start):
    kernel = wb.compile(wb.Energy(sp.log(t), variables=[t]))
    if np.isnan(start):
        with pytest.raises(wb.InputError, match="nothing to draw"):
            wb.plot_path(wb.minimise(kernel, start={"t": start}))
    else:
        assert "NOT_FINITE, 0 steps" in wb.plot_path(wb.minimise(kernel, start={"t": start})).get_title()


def test_an_instance_that_there_is_not_is_refused(rosenbrock, pyplot):
    with pytest.raises(wb.InputError, match=r"banana.*no instance 5"):
        wb.plot_path(wb.minimise(rosenbrock, None, {"a": [1.0]}, start={"v": [0.0, 0.0]}), 5)
    with pytest.raises(wb.InputTypeError, match=r"plot_path: solution.*dict"):
        wb.plot_path({})


def test_without_matplotlib_the_message_says_what_to_install(rosenbrock, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    solution = wb.minimise(rosenbrock, None, {"a": 1.0}, start={"v": [0.0, 0.0]})
    with pytest.raises(wb.MissingPackageError, match=r"pip install 'wiberg\[figures\]'") as caught:
        wb.plot_path(solution)
    assert isinstance(caught.value, ImportError) and isinstance(caught.value, wb.WibergError)


def test_importing_wiberg_imports_none_of_it():
    code = (
        "import sys, wiberg; names = ('matplotlib', 'tqdm', 'wiberg.runtime.plot', 'wiberg.runtime.report', "
        "'wiberg.runtime.trace', 'wiberg.runtime.starts'); print([n for n in names if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
