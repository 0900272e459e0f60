"""Figures of learning: what the panels of plot_history show."""

import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
import wiberg as wb
from hypothesis import given
from hypothesis import strategies as st
from wiberg.learn.history import History
from wiberg.learn.reports.figures import POINTS, parts


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def history(steps, seed=0, shapes=((), (3,), (4, 5))):
    """Random numbers of so many steps, with weights a, b, c of some shapes."""
    random = np.random.default_rng(seed)
    series = {field.name: random.uniform(0.1, 1.0, steps) for field in fields(History)}
    weights = {name: random.normal(size=(steps + 1, *shape)) for name, shape in zip("abc", shapes, strict=False)}
    return History(**{**series, "weights": weights, "weight_steps": np.arange(steps + 1), "steps": np.arange(steps)})


@pytest.fixture
def trained(spring, t_loss):
    learner = wb.Learner(spring, t_loss, weights={"w": 2.0}, optimiser=wb.SGD(0.1))
    learner.fit(wb.Batch(data={"a": 1.0, "z": [0.5, 1.0]}, targets={"mu": [1.5, 3.0]}, start={"t": 0.0}), steps=12)
    return learner


def panel(figure, label):
    (axes,) = [axes for axes in figure.axes if axes.get_ylabel() == label]
    return axes


def test_every_step_of_a_short_run_is_drawn(trained, pyplot):
    figure, known = wb.plot_history(trained), trained.history
    for label, series in (("loss", known.loss), ("gradient norm", known.gradient_norm)):
        axes = panel(figure, label)
        np.testing.assert_array_equal(axes.lines[0].get_xydata(), np.stack([np.arange(12), series], axis=1))
        assert (axes.get_yscale(), axes.get_xlabel()) == ("log", "step")
    shares = panel(figure, "share of the instances")
    assert {line.get_label(): line.get_ydata().tolist() for line in shares.lines} == {
        name: getattr(known, name).tolist() for name in ("unconverged", "shifted", "dominated")
    }
    np.testing.assert_array_equal(
        panel(figure, "w").lines[0].get_xydata(), np.stack([np.arange(13), known.weights["w"]], axis=1)
    )
    assert figure.get_suptitle() == "12 steps"


def test_a_history_is_drawn_as_its_learner(trained, pyplot):
    one, other = wb.plot_history(trained), wb.plot_history(trained.history)
    for a, b in zip(one.axes, other.axes, strict=True):
        np.testing.assert_array_equal(a.lines[0].get_xydata(), b.lines[0].get_xydata())


def test_a_long_run_is_thinned_to_means_with_a_band(pyplot):
    known = history(5 * POINTS)
    figure = wb.plot_history(known)
    axes = panel(figure, "loss")
    x, y = axes.lines[0].get_xydata().T
    np.testing.assert_allclose(y, known.loss.reshape(POINTS, 5).mean(axis=1))
    np.testing.assert_allclose(x, np.arange(POINTS) * 5 + 2)
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == known.loss.max() and band[:, 1].min() == known.loss.min()
    weights = panel(figure, "a").lines[0].get_xydata()
    assert len(weights) <= POINTS and weights[-1].tolist() == [5 * POINTS, known.weights["a"][-1]]


def test_arrays_of_weights_are_drawn_by_entry_and_large_ones_by_median_and_band(pyplot):
    known = history(10)
    figure = wb.plot_history(known)
    few = panel(figure, "b")
    assert [line.get_label() for line in few.lines] == ["[0]", "[1]", "[2]"]
    np.testing.assert_array_equal(few.lines[2].get_ydata(), known.weights["b"][:, 2])
    many = panel(figure, "c")
    np.testing.assert_allclose(many.lines[0].get_ydata(), np.median(known.weights["c"].reshape(11, 20), axis=1))
    assert [text.get_text() for text in many.get_legend().get_texts()] == ["median", "least to largest of 20"]


def test_weights_are_chosen_by_name(pyplot):
    labels = [axes.get_ylabel() for axes in wb.plot_history(history(4), weights=["c", "a"]).axes]
    assert labels[3:] == ["c", "a"]
    with pytest.raises(wb.NameMissingError, match=r"'aa'.*did you mean 'a'\?.*a, b, c"):
        wb.plot_history(history(4), weights=["aa"])


def test_weights_that_are_not_drawn_are_counted(pyplot):
    known = history(4)
    weights = {f"w{k}": known.weights["a"] for k in range(12)}
    figure = wb.plot_history(History(**{**vars(known), "weights": weights}))
    assert len(figure.axes) == 3 + 9 and "3 more weights" in figure.get_suptitle()


def test_losses_that_are_not_positive_are_drawn_on_a_linear_axis(pyplot):
    known = history(4)
    figure = wb.plot_history(History(**{**vars(known), "loss": np.array([1.0, np.nan, -1.0, 2.0])}))
    assert panel(figure, "loss").get_yscale() == "linear"
    assert np.isnan(panel(figure, "loss").lines[0].get_ydata()).tolist() == [False, True, False, False]


def test_what_cannot_be_drawn_is_refused(spring, t_loss, pyplot):
    with pytest.raises(wb.InputError, match="no steps yet"):
        wb.plot_history(wb.Learner(spring, t_loss, weights={"w": 2.0}))
    with pytest.raises(wb.InputTypeError, match="got list"):
        wb.plot_history([1.0])


@pytest.mark.parametrize("name", ["plot_history", "plot_energy", "plot_movement"])
def test_without_matplotlib_the_message_says_what_to_install(name, trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    point = {"a": 1.0, "z": 1.0}
    arguments = (trained,) if name == "plot_history" else (trained.kernel, {"w": 1.0}, point)
    options = {} if name == "plot_history" else {"start": {"t": 0.0}}
    with pytest.raises(wb.MissingPackageError, match=rf"{name} draws.*pip install 'wiberg\[figures\]'"):
        getattr(wb, name)(*arguments, **options)


def test_importing_wiberg_imports_no_figures():
    code = (
        "import sys, wiberg; names = ['matplotlib'] + ['wiberg.learn.' + n for n in ('figures', 'landscape', "
        "'movement', 'report', 'page')]; print([n for n in names if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@given(st.lists(st.floats(-1e6, 1e6) | st.just(np.nan), min_size=1, max_size=4 * POINTS))
def test_parts_hold_every_finite_number_once(series):
    series = np.array(series)
    steps, mean, low, high = parts(series)
    assert len(steps) <= POINTS and (np.diff(steps) > 0).all() and steps[0] >= 0 and steps[-1] <= len(series) - 1
    length = -(-len(series) // POINTS)
    for number in range(len(steps)):
        here = series[number * length : (number + 1) * length]
        here = here[np.isfinite(here)]
        expected = [here.mean(), here.min(), here.max()] if len(here) else [np.nan] * 3
        np.testing.assert_allclose([mean[number], low[number], high[number]], expected, rtol=1e-12, atol=1e-9)
