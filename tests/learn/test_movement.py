"""Movements of minima: prediction and truth against closed forms and SciPy."""

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from scipy.optimize import minimize

t, a = sp.symbols("t a", real=True)


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


@pytest.fixture(scope="module")
def pull():
    """2 (t - a^2)^2: t* = a^2, dt*/da = 2 a undamped, 2 a 4/(4 + lambda) damped."""
    return wb.compile(wb.Energy(2 * (t - a**2) ** 2, variables=[t], weights=[a], name="pull"))


def lines(axes):
    return {line.get_label(): line.get_xydata() for line in axes.lines}


def test_truth_and_predictions_of_a_closed_form(pull, pyplot):
    figure = wb.plot_movement(pull, {"a": 1.5}, change=0.5, damping=1.0, start={"t": 0.0})
    left, right = map(lines, figure.axes)
    changes, true = right["true movement"].T
    assert changes == pytest.approx(np.linspace(-0.5, 0.5, 41))
    assert true == pytest.approx((1.5 + changes) ** 2 - 1.5**2, abs=1e-7)
    assert right["predicted, $\\lambda$ = 1"][:, 1] == pytest.approx(3.0 * 4 / 5 * changes, abs=1e-9)
    assert right["predicted, $\\lambda$ = 0"][:, 1] == pytest.approx(3.0 * changes, abs=1e-7)
    assert left["minimum before"][0] == pytest.approx([2.25, 0.0], abs=1e-7)
    assert left["minimum after"][0] == pytest.approx([4.0, 0.0], abs=1e-7)
    assert left["prediction"][0] == pytest.approx([2.25 + 1.2, 2 * (3.45 - 4) ** 2], abs=1e-6)
    for name, weight in (("before (a = 1.5)", 1.5), ("after (a = 2)", 2.0)):
        s, energy = left[f"E {name}"].T
        assert energy == pytest.approx(2 * (s - weight**2) ** 2, abs=1e-9)
    s, model = left["its quadratic model after"].T
    assert model == pytest.approx(2 * 1.75**2 - 7.0 * (s - 2.25) + 2.5 * (s - 2.25) ** 2, abs=1e-6)
    assert figure.axes[1].get_xlabel() == "change of a" and figure.axes[1].get_ylabel() == "movement of t"


def test_the_model_after_has_its_minimum_at_one_damped_newton_step(pull, pyplot):
    """Equation 8 of the paper: its derivative by the weight is the damped derivative."""
    d = 1e-4
    figure = wb.plot_movement(pull, {"a": 1.5}, change=d, damping=1.0, start={"t": 0.0})
    s, model = lines(figure.axes[0])["its quadratic model after"].T
    lowest = np.polyfit(s - 2.25, model, 2)
    assert -lowest[1] / (2 * lowest[0]) == pytest.approx(3.0 * 4 / 5 * d, rel=1e-3)


def test_several_unknowns_are_drawn_along_the_movement(pyplot):
    y, w = sp.IndexedBase("y", shape=(2,)), sp.IndexedBase("w", shape=(2,))
    formula = (y[0] ** 2 - w[0]) ** 2 + (y[1] - w[1] * y[0]) ** 2 + y[1] ** 4 / 10
    kernel = wb.compile(wb.Energy(formula, variables=[y], weights=[w], name="bent"))

    def truth(weights):
        def energy(p):
            return (p[0] ** 2 - weights[0]) ** 2 + (p[1] - weights[1] * p[0]) ** 2 + p[1] ** 4 / 10

        return minimize(energy, [1.0, 1.0], method="BFGS", options={"gtol": 1e-9}).x

    before, after = truth([1.0, 0.5]), truth([1.0, 0.9])
    figure = wb.plot_movement(kernel, {"w": [1.0, 0.5]}, weight="w[1]", change=0.4, start={"y": [1.0, 1.0]})
    left, right = map(lines, figure.axes)
    assert figure.axes[1].get_ylabel() == "movement of y[1]"  # it moves most
    assert right["true movement"][-1] == pytest.approx([0.4, after[1] - before[1]], abs=1e-6)
    assert left["minimum before"][0, 0] == 0.0
    assert left["minimum after"][0, 0] == pytest.approx(np.linalg.norm(after - before), abs=1e-6)
    assert "distance" in figure.axes[0].get_xlabel()
    other = wb.plot_movement(kernel, {"w": [1.0, 0.5]}, weight=w[1], change=0.4, unknown=y[0], start={"y": [1.0, 1.0]})
    assert lines(other.axes[1])["true movement"][-1, 1] == pytest.approx(after[0] - before[0], abs=1e-6)


def test_the_minimum_is_followed_where_another_is_nearer(pyplot):
    """A well moves away by eight times its width, and a shallower one stays beside where it was."""
    formula = -sp.exp(-((t - a) ** 2)) - sp.exp(-((t + 1) ** 2)) / 2
    kernel = wb.compile(wb.Energy(formula, variables=[t], weights=[a], name="wells"))
    figure = wb.plot_movement(kernel, {"a": 0.0}, change=8.0, start={"t": 0.1})
    assert lines(figure.axes[0])["minimum after"][0] == pytest.approx([8.0, -1.0], abs=1e-6)


def test_where_no_undamped_derivative_exists_that_is_said(pyplot):
    kernel = wb.compile(wb.Energy(t**4 + a * t**6 - a * t**2 / 1000, variables=[t], weights=[a], name="flat"))
    figure = wb.plot_movement(kernel, {"a": 0.0}, change=0.1, start={"t": 0.0})
    assert "predicted, $\\lambda$ = 0: no derivative" in lines(figure.axes[1])


def test_an_instance_of_a_batch_and_a_member_of_a_family_are_followed(ransac, pyplot):
    x = np.array([[0.0, 1.0, 3.0], [7.0, 8.0, -20.0]])
    alone = wb.plot_movement(ransac, {"sigma": 4.0}, {"x": x[1]}, change=1.0)
    batch = wb.plot_movement(ransac, {"sigma": 4.0}, {"x": x}, change=1.0, instance=1)
    for name, points in lines(alone.axes[1]).items():
        np.testing.assert_array_equal(points, lines(batch.axes[1])[name])
    assert "ransac, instance 1" in batch.get_suptitle()
    n = sp.Symbol("n", integer=True, positive=True)
    i, c = sp.Idx("i", n), sp.IndexedBase("c", shape=(n,))
    family = wb.compile(wb.Energy(2 * (t - a**2 * c[i]) ** 2, variables=[t], weights=[a], data=[c], over=[i], name="f"))
    figure = wb.plot_movement(family, {"a": 1.0}, {"c": [1.0, 3.0]}, change=0.5, start={"t": 0.0}, instance=(1,))
    left, right = map(lines, figure.axes)
    assert right["true movement"][-1] == pytest.approx([0.5, 3 * 1.5**2 - 3], abs=1e-6)
    s, energy = left["E after (a = 1.5)"].T
    assert energy == pytest.approx(2 * (s - 3 * 1.5**2) ** 2, abs=1e-6)


@pytest.mark.parametrize(("arguments", "options", "error", "pieces"), [
    ({"a": 1.0}, {"weight": "aa"}, wb.NameMissingError, "no weight 'aa'; did you mean 'a'?"),
    ({"a": 1.0}, {"weight": "a[0]"}, wb.InputError, "has shape ()"),
    ({"a": [1.0, 2.0]}, {}, wb.InputError, "must have 0 axes"),
    ({}, {}, wb.InputTypeError, "dict of weights"),
    ({"b": 1.0}, {}, wb.NameMissingError, "weight a is missing"),
    ({"a": 1.0}, {"change": 0.0}, wb.InputError, "not 0"),
    ({"a": 1.0}, {"change": "much"}, wb.InputTypeError, "must be a number"),
    ({"a": 1.0}, {"damping": -1.0}, wb.InputError, "damping"),
    ({"a": 1.0}, {"unknown": "s"}, wb.NameMissingError, "no unknown 's'"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(arguments, options, error, pieces, pull, pyplot):
    with pytest.raises(error) as caught:
        wb.plot_movement(pull, arguments, start={"t": 0.0}, **options)
    assert pieces in str(caught.value)


def test_one_of_several_weights_must_be_named(robust_line, pyplot):
    with pytest.raises(wb.InputError, match=r"several weights; say which.*weight='scale'"):
        wb.plot_movement(robust_line, {"scale": 1.0, "bias": 0.0}, {}, start={"slope": 0.0})
