import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from wiberg.learn import Loss, absolute_error, squared_error

t, mu, weight = sp.symbols("t mu w", real=True)
n = sp.Symbol("n", integer=True, positive=True)
y, truth = sp.IndexedBase("y", shape=(n,)), sp.IndexedBase("truth", shape=(n,))
i = sp.Idx("i", n)


@pytest.fixture(scope="module")
def absolute():
    return absolute_error(y, truth)


def test_value_and_gradient_of_each_instance(t_loss):
    np.testing.assert_array_equal(t_loss.value({"t": [1.0, 3.0]}, {"mu": [0.0, 1.0]}), [1.0, 4.0])
    np.testing.assert_array_equal(t_loss.gradient({"t": [1.0, 3.0]}, {"mu": [0.0, 1.0]})["t"], [2.0, 4.0])
    assert t_loss.value({"t": 3.0}, {"mu": 1.0}) == 4.0


def test_absolute_error_sums_and_has_subgradient_zero_at_zero(absolute):
    arrays = {"y": np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])}, {"truth": np.array([1.0, 5.0, 2.0])}
    np.testing.assert_array_equal(absolute.value(*arrays), [4.0, 8.0])
    np.testing.assert_array_equal(absolute.gradient(*arrays)["y"], [[0.0, -1.0, 1.0], [-1.0, -1.0, -1.0]])


def test_squared_error_over_two_axes():
    a, b = sp.IndexedBase("a", shape=(n, 2)), sp.IndexedBase("b", shape=(n, 2))
    loss = squared_error(a, b)
    arrays = {"a": np.arange(6.0).reshape(3, 2)}, {"b": np.ones((3, 2))}
    assert loss.value(*arrays) == ((np.arange(6.0) - 1) ** 2).sum()
    np.testing.assert_array_equal(loss.gradient(*arrays)["a"], 2 * (np.arange(6.0).reshape(3, 2) - 1))


def test_data_are_read_beside_targets():
    size = sp.Symbol("size", real=True)
    loss = Loss(((t - mu) / size) ** 2, variables=[t], targets=[mu], data=[size])
    assert loss.value({"t": 3.0}, {"mu": 1.0}, {"size": 2.0, "unread": 1.0}) == 1.0
    with pytest.raises(wb.NameMissingError, match=r"data size is missing"):
        loss.value({"t": 3.0}, {"mu": 1.0})


def test_loss_without_targets():
    loss = Loss(sp.Sum(y[i] ** 2, i), variables=[y])
    assert loss.value({"y": [3.0, 4.0]}) == 25.0


def test_errors_name_the_loss_and_the_symbol(t_loss):
    with pytest.raises(wb.NameMissingError, match=r"target mu is missing"):
        t_loss.value({"t": 1.0}, {})
    with pytest.raises(wb.NameMissingError, match=r"unknown target 'nu'.*targets: mu"):
        t_loss.value({"t": 1.0}, {"mu": 1.0, "nu": 1.0})
    with pytest.raises(wb.DeclarationError, match=r"target mu does not appear"):
        Loss(t**2, variables=[t], targets=[mu])
    with pytest.raises(wb.DeclarationError, match=r"q"):
        Loss((t - sp.Symbol("q")) ** 2, variables=[t], targets=[])


def test_a_loss_may_read_weights_directly():
    loss = Loss((t - weight) ** 2, variables=[t], weights=[weight])
    assert loss.value({"t": [1.0, 4.0]}, weights={str(weight): 3.0}).tolist() == [4.0, 1.0]
    assert loss.gradient({"t": 4.0}, weights={str(weight): 3.0})["t"] == 2.0


def test_a_regulariser_is_a_formula_of_weights():
    m = sp.Symbol("m", integer=True, positive=True)
    j, b = sp.Idx("j", m), sp.IndexedBase("b", shape=(m,))
    loss = Loss((t - mu) ** 2, variables=[t], targets=[mu], regulariser=weight**2 / 2 + 3 * sp.Sum(b[j] ** 2, j))
    value, slope = loss.regulariser.evaluate({str(weight): 2.0, "b": [1.0, -1.0]})
    assert value == 8.0 and dict(zip(loss.regulariser.weights, (slope[-1:], slope[:2]), strict=True))
    assert sorted(slope.tolist()) == [-6.0, 2.0, 6.0]
    with pytest.raises(wb.DeclarationError, match="reads no weight"):
        Loss((t - mu) ** 2, variables=[t], targets=[mu], regulariser=3.0)


def test_builders_refuse_what_does_not_fit():
    with pytest.raises(wb.DeclarationError, match=r"y has shape \(n,\).*mu has \(\)"):
        absolute_error(y, mu)
    with pytest.raises(wb.InputTypeError, match=r"1.0"):
        squared_error(t, 1.0)
    with pytest.raises(wb.DeclarationError, match=r"no shape"):
        squared_error(sp.IndexedBase("a"), sp.IndexedBase("b"))
