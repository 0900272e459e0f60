import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from wiberg.learn.optimiser import SGD
from wiberg.learn.weight import FLOOR, Weight, coordinates_from_user

t, bias = sp.symbols("t bias", real=True)
sigma = sp.Symbol("sigma", positive=True)
tau = sp.IndexedBase("tau", shape=(3,))
energy = wb.Energy(
    sigma * (t - bias) ** 2 + sum(tau[k] for k in range(3)) * t**2,
    variables=[t],
    weights=[sigma, bias, tau],
    name="three",
)
START = {"sigma": 8.0, "bias": -1.0, "tau": [1.0, 2.0, 3.0]}


def test_raw_weights_are_learnt_as_they_are():
    coordinates = coordinates_from_user(energy, START)
    assert coordinates.learnt(coordinates.start).tolist() == [8.0, -1.0, 1.0, 2.0, 3.0]
    assert coordinates.gradient(np.ones(5), coordinates.start).tolist() == [1.0] * 5
    assert {k: v.tolist() for k, v in coordinates.unpack(coordinates.start).items()} == START


def test_logarithms_are_learnt_and_the_weight_is_shown():
    coordinates = coordinates_from_user(energy, {**START, "sigma": Weight(8.0, scale="log")})
    learnt = coordinates.learnt(coordinates.start)
    assert learnt[0] == np.log(8.0)
    np.testing.assert_allclose(coordinates.shown(learnt), coordinates.start, rtol=1e-15)
    assert coordinates.gradient(np.ones(5), coordinates.start).tolist() == [8.0, 1.0, 1.0, 1.0, 1.0]


def test_projection_stops_positive_weights_at_their_floor():
    coordinates, sgd = coordinates_from_user(energy, START), SGD(0.1)
    state = {"velocity": np.ones(5)}
    learnt, after = coordinates.project(np.array([-3.0, -3.0, -3.0, 1.0, 1.0]), state, sgd)
    assert learnt.tolist() == [8.0 * FLOOR, -3.0, -3.0, 1.0, 1.0]
    assert after["velocity"].tolist() == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert state["velocity"].tolist() == [1.0] * 5


def test_numbers_are_called_by_their_weight():
    coordinates = coordinates_from_user(energy, START)
    assert [coordinates.name_of(k) for k in range(5)] == ["sigma", "bias", "tau[0]", "tau[1]", "tau[2]"]


@pytest.mark.parametrize(
    "changed, error, names",
    [
        ({"sigma": [8.0]}, wb.InputError, r"sigma.*\(\).*\(1,\).*per-instance"),
        ({"tau": [1.0, 2.0]}, wb.InputError, r"tau.*\(3,\).*\(2,\)"),
        ({"tau": np.ones((4, 3))}, wb.InputError, r"tau.*\(4, 3\).*per-instance"),
        ({"sigma": -1.0}, wb.InputError, "sigma = -1.0 but it is declared positive"),
        ({"sigma": float("nan")}, wb.InputError, "sigma is not finite"),
        ({"bias": "x"}, wb.InputTypeError, "bias"),
        ({"bias": 10**400}, wb.InputTypeError, "bias.*too large"),
        ({"tau": np.ones(3) * 1j}, wb.InputTypeError, "tau.*complex"),
        ({"bias": Weight(-1.0, scale="log")}, wb.InputError, "bias = -1.0.*logarithm"),
        ({"sigm": 1.0}, wb.NameMissingError, "'sigm'.*did you mean 'sigma'"),
    ],
)
def test_starts_that_do_not_fit_are_refused(changed, error, names):
    with pytest.raises(error, match=names):
        coordinates_from_user(energy, {**START, **changed})


def test_missing_weights_are_named():
    with pytest.raises(wb.NameMissingError, match=r"weight bias, tau is missing"):
        coordinates_from_user(energy, {"sigma": 1.0})
    with pytest.raises(wb.InputError, match=r"no weights"):
        coordinates_from_user(wb.Energy(t**2, variables=[t]), {})
    with pytest.raises(wb.InputTypeError, match=r"dict"):
        coordinates_from_user(energy, [1.0])
    with pytest.raises(wb.InputError, match=r"'lag'.*did you mean"):
        Weight(1.0, scale="lag")
