"""Landscapes: the energies and minima that are drawn are those of the formula."""

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from wiberg.runtime.plot import GRID

t, a, b = sp.symbols("t a b", real=True)


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


@pytest.fixture(scope="module")
def wells():
    energy = wb.Energy((t**2 - 1) ** 2 + a * t, variables=[t], weights=[a], candidates={}, name="wells")
    return wb.compile(energy)


@pytest.fixture(scope="module")
def four_wells():
    """Minima near (+-1, +-1) of two unknowns; the last is 5 times the first, so it matters where that is held."""
    y = sp.IndexedBase("y", shape=(3,))
    formula = (y[0] ** 2 - 1) ** 2 + (y[1] ** 2 - 1) ** 2 + b * y[0] + (y[2] - 5 * y[0]) ** 2
    return wb.compile(wb.Energy(formula, variables=[y], weights=[b], name="four wells"))


BOTH = {"t": [-1.0, 1.0]}


def test_the_curve_is_the_energy_and_the_marks_are_its_minima(wells, pyplot):
    figure = wb.plot_energy(wells, [{"a": 0.2}, {"a": -0.3}], candidates=BOTH)
    for axes, weight, name in zip(figure.axes, (0.2, -0.3), ("before, a = 0.2", "after, a = -0.3"), strict=True):
        curve, others, lowest = axes.lines
        s, energy = curve.get_xydata().T
        assert energy == pytest.approx((s**2 - 1) ** 2 + weight * s, rel=1e-12)
        roots = np.sort(np.roots([4, 0, -4, weight]).real)[[0, 2]]  # of the derivative; the middle one is a maximum
        height = (roots**2 - 1) ** 2 + weight * roots
        best = int(np.argmin(height))
        assert lowest.get_xydata()[0] == pytest.approx([roots[best], height[best]], abs=1e-7)
        assert others.get_xydata()[0] == pytest.approx([roots[1 - best], height[1 - best]], abs=1e-7)
        assert s[0] < roots[0] and roots[1] < s[-1]
        assert (axes.get_title(), axes.get_xlabel()) == (name, "t")
    assert figure.axes[0].get_ylabel() == "energy" and figure.get_suptitle() == "wells"
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["minima", "lowest minimum"]


def test_two_of_three_unknowns_are_drawn_with_the_third_at_the_minimum(four_wells, pyplot):
    starts = {"y": [[u, v, 5 * u] for u in (-1.0, 1.0) for v in (-1.0, 1.0)]}
    figure = wb.plot_energy(four_wells, {"b": 0.3}, unknowns=["y[1]", "y[2]"], candidates=starts)
    (axes,) = figure.axes
    others, lowest = axes.lines
    assert len(others.get_xdata()) == 0  # what is not in the slice is not marked
    root = np.sort(np.roots([4, 0, -4, 0.3]).real)[0]
    assert np.abs(lowest.get_xydata()[0]) == pytest.approx([1.0, abs(5 * root)], abs=1e-6)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("y[1]", "y[2]")
    assert "other unknowns at the lowest minimum" in figure.get_suptitle()
    (contours,) = axes.collections
    u, v = (np.linspace(*limits, GRID) for limits in (axes.get_xlim(), axes.get_ylim()))
    grid = (root**2 - 1) ** 2 + (u[:, None] ** 2 - 1) ** 2 + 0.3 * root + (v - 5 * root) ** 2
    rises = (contours.levels - grid.min()) / np.ptp(grid)
    assert rises == pytest.approx((np.arange(1, 25) / 24) ** 3, abs=1e-6)


def test_two_unknowns_have_a_panel_of_contours_for_each_set_of_weights(pyplot):
    u, v = sp.symbols("u v", real=True)
    kernel = wb.compile(wb.Energy((u**2 - 1) ** 2 + (v - a) ** 2, variables=[u, v], weights=[a], name="pair"))
    sets = {"young": {"a": 0.0}, "old": {"a": 2.0}}
    figure = wb.plot_energy(kernel, sets, candidates={"u": [-1.0, 1.0], "v": [0.0, 0.0]})
    assert [axes.get_title() for axes in figure.axes] == ["young", "old"]
    for axes, height in zip(figure.axes, (0.0, 2.0), strict=True):
        marks = np.concatenate([line.get_xydata() for line in axes.lines])
        assert np.sort(marks[:, 0]) == pytest.approx([-1, 1], abs=1e-6)
        assert marks[:, 1] == pytest.approx([height, height], abs=1e-6)
        assert len(axes.collections[0].levels) == 24


def test_an_instance_of_a_batch_is_drawn(wells, ransac, pyplot):
    x = np.array([[0.0, 1.0, 50.0], [7.0, 8.0, -20.0]])
    figure = wb.plot_energy(ransac, {"sigma": 2.0}, {"x": x}, instance=1)
    s, energy = figure.axes[0].lines[0].get_xydata().T
    assert energy == pytest.approx(-np.exp(-(((x[1] - s[:, None]) / 2.0) ** 2)).sum(axis=1), rel=1e-9, abs=1e-12)
    assert "ransac, instance 1" in figure.get_suptitle()
    assert figure.axes[0].get_title() == "sigma = 2"


def test_a_member_of_a_family_is_drawn(pyplot):
    n = sp.Symbol("n", integer=True, positive=True)
    i, x = sp.Idx("i", n), sp.IndexedBase("x", shape=(n,))
    kernel = wb.compile(wb.Energy((t - x[i]) ** 2, variables=[t], data=[x], over=[i], name="each"))
    figure = wb.plot_energy(kernel, None, {"x": [1.0, 4.0]}, start={"t": 0.0}, instance=(1,))
    s, energy = figure.axes[0].lines[0].get_xydata().T
    assert energy == pytest.approx((s - 4.0) ** 2, abs=1e-12)
    assert figure.axes[0].lines[-1].get_xydata()[0] == pytest.approx([4.0, 0.0], abs=1e-9)


def test_a_span_is_what_is_drawn(wells, pyplot):
    figure = wb.plot_energy(wells, {"a": 0.2}, candidates=BOTH, span={"t": (-3, 5)})
    assert figure.axes[0].get_xlim() == (-3, 5)
    assert figure.axes[0].lines[0].get_xdata()[[0, -1]].tolist() == [-3, 5]


def test_a_single_minimum_where_the_start_is_has_a_window_around_it(wells, pyplot):
    found = wb.minimise(wells, {"a": 0.2}, start={"t": 1.0}).variables
    low, high = wb.plot_energy(wells, {"a": 0.2}, start=found).axes[0].get_xlim()
    assert low < found["t"] - 0.3 and found["t"] + 0.3 < high


@pytest.mark.parametrize(("options", "error", "pieces"), [
    ({"unknowns": "s"}, wb.NameMissingError, "no unknown 's'"),
    ({"unknowns": ["t", "t"]}, wb.InputError, "named twice"),
    ({"unknowns": []}, wb.InputError, "one or two unknowns"),
    ({"span": {"s": (0, 1)}}, wb.NameMissingError, "span names 's'"),
    ({"span": {"t": (1, 0)}}, wb.InputError, "low < high"),
    ({"span": {"t": 3}}, wb.InputError, "low < high"),
    ({"strat": 1}, wb.InputTypeError, "no option 'strat'; did you mean 'start'"),
    ({"minima": 0}, wb.InputError, "minima must be an integer >= 1"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(options, error, pieces, wells, pyplot):
    with pytest.raises(error) as caught:
        wb.plot_energy(wells, {"a": 0.2}, candidates=BOTH, **options)
    assert pieces in str(caught.value)


def test_more_than_two_unknowns_must_be_chosen(four_wells, pyplot):
    with pytest.raises(wb.InputError, match=r"'four wells' has 3 unknowns; choose one or two.*y\[0\]"):
        wb.plot_energy(four_wells, {"b": 0.3}, start={"y": np.zeros(3)})


@pytest.mark.parametrize("w", [3.0, "a", [], [1.0]])
def test_weights_that_are_none_are_refused(w, wells, pyplot):
    with pytest.raises(wb.InputTypeError, match="dict of weights, a list"):
        wb.plot_energy(wells, w, candidates=BOTH)
    with pytest.raises(wb.InputTypeError, match=r"wb.compile returned \(got dict\)"):
        wb.plot_energy({}, {"a": 1.0})
