import numpy as np
import pytest
import wiberg as wb
from wiberg.learn.optimiser import SGD, from_description


def steps(sgd, gradients, start):
    rates, state, w = sgd.rates({"a": 1, "b": len(start) - 1}), sgd.start(len(start)), np.array(start)
    for gradient in gradients:
        w, state = sgd.step(w, np.array(gradient), state, rates)
    return w, state


def test_convention_is_that_of_pytorch():
    w, state = steps(SGD(0.1, momentum=0.9), [[1.0, -2.0], [1.0, 0.0]], [5.0, 5.0])
    np.testing.assert_allclose(state["velocity"], [1.9, -1.8])
    np.testing.assert_allclose(w, [5.0 - 0.1 - 0.19, 5.0 + 0.2 + 0.18])


def test_without_momentum_it_is_gradient_descent():
    w, _ = steps(SGD(0.5, momentum=0.0), [[1.0, 2.0], [1.0, 2.0]], [0.0, 0.0])
    np.testing.assert_allclose(w, [-1.0, -2.0])


def test_a_rate_for_each_weight():
    w, _ = steps(SGD({"b": 1.0, "a": 0.1}, momentum=0.0), [[1.0, 1.0, 1.0]], [0.0, 0.0, 0.0])
    np.testing.assert_allclose(w, [-0.1, -1.0, -1.0])


def test_step_leaves_its_arguments_alone():
    sgd, w, g = SGD(0.1), np.ones(2), np.ones(2)
    state = sgd.start(2)
    sgd.step(w, g, state, sgd.rates({"a": 2}))
    assert (w == 1).all() and (g == 1).all() and (state["velocity"] == 0).all()


def test_halt_forgets_the_velocity_of_the_marked_only():
    sgd = SGD(0.1)
    assert sgd.halt({"velocity": np.array([1.0, 2.0])}, np.array([True, False]))["velocity"].tolist() == [0.0, 2.0]


@pytest.mark.parametrize("sgd", [SGD(0.1), SGD({"sigma": 1e-5, "tau": 2.0}, momentum=0.999)])
def test_description_makes_an_equal_optimiser(sgd):
    assert from_description(sgd.describe()) == sgd


@pytest.mark.parametrize(
    "settings, names",
    [
        ({"learning_rate": -1.0}, "learning_rate.*-1"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate.*nan"),
        ({"learning_rate": {"sigma": -1.0}}, "sigma.*-1"),
        ({"learning_rate": {}}, "learning_rate"),
        ({"learning_rate": 1.0, "momentum": 1.0}, r"momentum.*\[0, 1\).*never forget"),
        ({"learning_rate": 1.0, "momentum": -0.1}, "momentum"),
        ({"learning_rate": 1.0, "momentum": float("nan")}, "momentum"),
    ],
)
def test_settings_out_of_range_are_refused(settings, names):
    with pytest.raises(wb.InputError, match=names):
        SGD(**settings)


@pytest.mark.parametrize(
    "settings", [{"learning_rate": "fast"}, {"learning_rate": True}, {"learning_rate": 1.0, "momentum": None}]
)
def test_settings_of_another_kind_are_refused(settings):
    with pytest.raises(wb.InputTypeError):
        SGD(**settings)


def test_unknown_and_missing_rates_are_named():
    with pytest.raises(wb.NameMissingError, match=r"'sigm'.*did you mean 'sigma'"):
        SGD({"sigm": 1.0}).rates({"sigma": 1})
    with pytest.raises(wb.NameMissingError, match=r"tau"):
        SGD({"sigma": 1.0}).rates({"sigma": 1, "tau": 2})
