"""The damped derivative over many coupled unknowns, by products: as from dense Hessians, bounded at saddles."""

import math

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from energies_table import TABLE, draw
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.learn.derivative import products
from wiberg.runtime import sparse

n = sp.Symbol("n", integer=True, positive=True)
i = sp.Idx("i", n)
y, w, x = (sp.IndexedBase(s, shape=(n,)) for s in "ywx")
a = sp.Symbol("a", positive=True)


@pytest.fixture(scope="module")
def coupled():
    """A weight for each unknown, and all of them coupled."""
    formula = sp.Sum(w[i] * (y[i] - x[i]) ** 2, i) + a * sp.log(1 + sp.Sum(y[i] ** 2, i)) + a * sp.Sum(y[i], i) ** 2
    return wb.compile(wb.Energy(formula, variables=[y], weights=[w, a], data=[x], name="coupled"))


@pytest.fixture(scope="module")
def wells():
    formula = sp.Sum(a * y[i] ** 4 / 4 - y[i] ** 2 / 2 + x[i] * y[i], i) + sp.Sum(y[i], i) ** 2 / 100
    return wb.compile(wb.Energy(formula, variables=[y], weights=[a], data=[x], name="wells"))


def point(count, seed=0, batch=None):
    rng, lead = np.random.default_rng(seed), () if batch is None else (batch,)
    return {"w": rng.uniform(0.5, 1, (*lead, count)), "a": 0.3}, {"x": rng.standard_normal((*lead, count))}


def both(call):
    """What a call gives with dense Hessians, and with products."""
    dense = call()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse, "COUPLED", 0)
        patch.setattr(products, "LARGEST_DENSE", 0)  # nothing falls back to the dense Hessian
        return dense, call()


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 12), st.sampled_from([None, 3]), st.sampled_from([0.0, 1e-3, 0.1]))
def test_the_gradient_is_that_of_dense_hessians(coupled, seed, count, batch, damping):
    weights, data = point(count, seed, batch)
    solution = wb.minimise(coupled, weights, data, start={"y": np.zeros(count)}, method="newton-cg")
    slopes = {"y": np.random.default_rng(seed).standard_normal(solution.variables["y"].shape)}
    dense, got = both(lambda: wb.implicit_gradient(coupled, solution, slopes, damping=damping))
    for name in dense:
        np.testing.assert_allclose(got[name], dense[name], rtol=1e-8, atol=1e-9)


def test_the_gradient_predicts_how_a_large_minimum_moves(coupled):
    count = 1500
    weights, data = point(count)
    slope = np.random.default_rng(1).standard_normal(count)

    def minimum(strength):
        start = {"y": np.zeros(count)}
        return wb.minimise(coupled, {**weights, "a": strength}, data, start=start, method="newton-cg", gtol=1e-11)

    gradient = wb.implicit_gradient(coupled, minimum(0.3), {"y": slope}, damping=0.0)
    up, down = (slope @ minimum(0.3 + h).variables["y"] for h in (1e-5, -1e-5))
    assert gradient["a"] == pytest.approx((up - down) / 2e-5, rel=1e-6)
    assert gradient["w"].shape == (count,)


def test_at_a_saddle_the_shift_keeps_the_bound(wells):
    solution = wb.minimise(wells, {"a": 1.0}, {"x": np.zeros(6)}, start={"y": np.full(6, 0.5)}, max_iterations=0)
    slope = np.random.default_rng(0).standard_normal(6)
    solution.reals[:, 1] = math.nan
    dense, got = both(lambda: wb.implicit_gradient(wells, solution, {"y": slope}, unconverged="use"))
    bound = 0.5**3 * math.sqrt(6) * np.linalg.norm(slope) / 0.1  # d(gradient)/da = y**3
    assert abs(got["a"]) <= bound
    assert got["a"] == pytest.approx(dense["a"], rel=1e-2)


def test_each_saddle_of_a_batch_has_its_own_shift(wells):
    solution = wb.minimise(wells, {"a": 1.0}, {"x": np.zeros((3, 6))}, start={"y": np.full((3, 6), 1.0)})
    solution.y[:] = np.array([0.0, 0.3, 1.0])[:, None]
    solution.reals[:, 1] = math.nan
    slopes = {"y": np.random.default_rng(0).standard_normal((3, 6))}
    dense, got = both(lambda: wb.implicit_gradient(wells, solution, slopes, damping=0.1, unconverged="use"))
    np.testing.assert_allclose(got["a"], dense["a"], rtol=1e-2)


def test_without_damping_what_is_not_positive_definite_is_refused(wells, monkeypatch):
    solution = wb.minimise(wells, {"a": 1.0}, {"x": np.zeros(6)}, start={"y": np.full(6, 0.5)}, max_iterations=0)
    monkeypatch.setattr(sparse, "COUPLED", 0)
    slopes = {"y": np.ones(6)}
    got = wb.implicit_gradient(wells, solution, slopes, damping=0.0, unconverged="use")["a"]
    hessian = wells.hessian(solution.variables, {"a": 1.0}, {"x": np.zeros(6)})
    assert got == pytest.approx(-np.linalg.solve(hessian, np.ones(6)) @ np.full(6, 0.5**3), rel=1e-9)
    monkeypatch.setattr(products, "LARGEST_DENSE", 0)
    with pytest.raises(wb.NumericalError, match=r"'wells', damping 0:.*the minimum.*too large.*damping=0\.1"):
        wb.implicit_gradient(wells, solution, slopes, damping=0.0, unconverged="use")


def test_a_singular_hessian_is_named():
    formula = a * (sp.Sum(y[i], i) - 1) ** 2
    kernel = wb.compile(wb.Energy(formula, variables=[y], weights=[a], name="line"), backend="reference")
    solution = wb.minimise(kernel, {"a": 1.0}, start={"y": np.zeros(5)}, method="newton-cg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse, "COUPLED", 0)
        with pytest.raises(wb.NumericalError, match="'line', damping 0: the Hessian is singular"):
            wb.implicit_gradient(kernel, solution, {"y": np.ones(5)}, damping=0.0)
        assert wb.implicit_gradient(kernel, solution, {"y": np.ones(5)})["a"] == pytest.approx(0.0, abs=1e-9)


def test_what_takes_too_many_steps_uses_the_dense_hessian(coupled, monkeypatch):
    weights, data = point(9)
    solution = wb.minimise(coupled, weights, data, start={"y": np.zeros(9)})
    slopes = {"y": np.ones(9)}
    expected = wb.implicit_gradient(coupled, solution, slopes)
    monkeypatch.setattr(sparse, "COUPLED", 0)
    monkeypatch.setattr(products, "LONG", 1)
    got = wb.implicit_gradient(coupled, solution, slopes)
    np.testing.assert_allclose(got["w"], expected["w"], rtol=1e-9)
    monkeypatch.setattr(products, "LARGEST_DENSE", 0)
    with pytest.raises(wb.NumericalError, match=r"'coupled', damping 0\.1:.*not in 1 steps.*9 unknowns.*damping=1"):
        wb.implicit_gradient(coupled, solution, slopes)


def test_instances_that_did_not_converge_do_not_count(wells, monkeypatch):
    monkeypatch.setattr(sparse, "COUPLED", 0)
    start = {"y": np.array([np.full(6, 1.0), np.full(6, np.nan)])}
    solution = wb.minimise(wells, {"a": 1.0}, {"x": np.zeros(6)}, start=start, method="newton-cg")
    with pytest.warns(UserWarning, match="1 of 2 instances"):
        gradient = wb.implicit_gradient(wells, solution, {"y": np.ones((2, 6))})
    alone = wb.minimise(wells, {"a": 1.0}, {"x": np.zeros(6)}, start={"y": np.full(6, 1.0)}, method="newton-cg")
    assert gradient["a"] == wb.implicit_gradient(wells, alone, {"y": np.ones(6)})["a"]


def test_a_jacobian_that_is_too_large_names_the_gradient():
    kernel = wb.compile(wb.Energy(sp.log(1 + a * sp.Sum(y[i] ** 2, i)), variables=[y], weights=[a], name="big"))
    solution = wb.minimise(kernel, {"a": 1.0}, start={"y": np.ones(30_000)}, method="newton-cg")
    with pytest.raises(wb.InputError, match=r"implicit_jacobian.*'big'.*30000 unknowns.*implicit_gradient"):
        wb.implicit_jacobian(kernel, solution)
    assert wb.implicit_gradient(kernel, solution, {"y": np.ones(30_000)})["a"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", ["logistic", "whole_sum", "smoother"])
def test_energies_of_the_table_have_the_same_derivative(name):
    kernel = wb.compile(TABLE[name](), backend="reference")
    start, weights, data = draw(kernel.energy, 3, seed=1)
    solution = wb.minimise(kernel, weights, data, start=start)
    slopes = {key: np.ones_like(value) for key, value in solution.variables.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(kernel), "structure", "dense")
        dense, got = both(lambda: wb.implicit_gradient(kernel, solution, slopes, unconverged="use"))
    for key in dense:
        np.testing.assert_allclose(got[key], dense[key], rtol=1e-7, atol=1e-9)
