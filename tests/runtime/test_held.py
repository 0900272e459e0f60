"""Parts of an energy that are held from step to step (`wb.held`), against NumPy and the complex step through it."""

from typing import Any

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given, settings
from hypothesis import strategies as st

n, m = sp.symbols("n m", integer=True, positive=True)
i, k = sp.Idx("i", n), sp.Idx("k", m)
A, x, y = sp.IndexedBase("A", shape=(n, m)), sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("y", shape=(m,))
r = sp.IndexedBase("r", shape=(n,))
delta, ridge, first = sp.symbols("delta ridge first", positive=True)
SHIFT = sp.Rational(1, 10)


def energy(**options: Any) -> wb.Energy:
    """Weights that look beside the residual, which belong to no penalty, and a ridge that is 1 in the first system."""
    weight = wb.held(1 / sp.sqrt(1 + ((r[i] + SHIFT) / delta) ** 2), first)
    return wb.Energy(
        sp.Sum(weight * r[i] ** 2, i) + wb.held(ridge, 1) * sp.Sum(y[k] ** 2, k),
        variables=[y],
        weights=[A, delta, ridge, first],
        data=[x],
        where={r[i]: sp.Sum(A[i, k] * y[k], k) - x[i]},
        candidates={y[k]: 0},
        name="held",
        **options,
    )


def in_numpy(w: dict[str, Any], x: Any, steps: int) -> Any:
    a, delta, ridge = w["A"], w["delta"], w["ridge"]

    def solve(weight: Any, ridge: Any) -> Any:
        return np.linalg.solve(a.T @ (weight[:, None] * a) + ridge * np.eye(a.shape[1]), a.T @ (weight * x))

    point = solve(np.full(len(a), w["first"]), 1.0)
    for _ in range(steps):
        point = solve(1 / np.sqrt(1 + ((a @ point - x + 0.1) / delta) ** 2), ridge)
    return point


def drawn(seed: int, batch: int = 4) -> tuple[dict[str, Any], Any, Any]:
    random = np.random.default_rng(seed)
    unknowns = int(random.integers(1, 5))
    rows = unknowns + int(random.integers(1, 8))
    w = {
        "A": random.normal(size=(rows, unknowns)),
        **dict(zip(("delta", "ridge", "first"), random.lognormal(size=3), strict=True)),
    }
    return w, random.normal(size=(batch, rows)), random.normal(size=(batch, unknowns))


@pytest.fixture(scope="module")
def kernel() -> wb.Kernel:
    return wb.compile(energy())


@given(seed=st.integers(0, 2**32), steps=st.integers(1, 6))
@settings(deadline=None, max_examples=30)
def test_steps_are_the_linear_systems_and_their_derivative_is_exact(kernel, seed, steps):
    w, data, slope = drawn(seed)
    solution = wb.minimise(kernel, w, {"x": data}, method="irls", reweightings=steps)
    np.testing.assert_allclose(
        solution.variables["y"], [in_numpy(w, row, steps) for row in data], rtol=1e-9, atol=1e-11
    )
    gradient = wb.unrolled_gradient(kernel, solution, {"y": slope})
    for name, value in w.items():
        way = np.random.default_rng(seed).normal(size=np.shape(value))
        moved = {**w, name: value + 1e-25j * way}
        expected = sum(g @ in_numpy(moved, row, steps).imag for g, row in zip(slope, data, strict=True)) / 1e-25
        scale = abs(np.asarray(gradient[name]) * way).sum() + 1e-12
        assert abs((np.asarray(gradient[name]) * way).sum() - expected) < 1e-8 * scale, name


def test_backends_and_batches_agree(kernel):
    w, data, slope = drawn(3)
    solution = wb.minimise(kernel, w, {"x": data}, method="irls", reweightings=2)
    reference = wb.compile(energy(), backend="reference")
    other = wb.minimise(reference, w, {"x": data}, method="irls", reweightings=2)
    np.testing.assert_allclose(solution.variables["y"], other.variables["y"], rtol=1e-12)
    ours = wb.unrolled_gradient(kernel, solution, {"y": slope})
    for name, theirs in wb.unrolled_gradient(reference, other, {"y": slope}).items():
        np.testing.assert_allclose(ours[name], theirs, rtol=1e-10, atol=1e-12)
    alone = wb.minimise(kernel, w, {"x": data[2]}, method="irls", reweightings=2)
    assert np.array_equal(alone.variables["y"], solution.variables["y"][2])


def test_steps_end_where_the_system_is_its_own_solution(kernel):
    w, data, _ = drawn(5)
    solution = wb.minimise(kernel, w, {"x": data}, method="irls", max_iterations=1000)
    assert solution.converged.all()
    np.testing.assert_allclose(solution.variables["y"], [in_numpy(w, row, 500) for row in data], atol=1e-6)


def test_the_start_has_no_part_in_it(kernel):
    w, data, _ = drawn(6)
    here, there = (
        wb.minimise(kernel, w, {"x": data}, start={"y": np.full(w["A"].shape[1], c)}, method="irls", reweightings=2)
        for c in (0.0, 50.0)
    )
    np.testing.assert_allclose(here.variables["y"], there.variables["y"], rtol=1e-9, atol=1e-10)


def test_the_last_steps_alone_leave_out_the_first_system(kernel):
    w, data, slope = drawn(7)
    solution = wb.minimise(kernel, w, {"x": data}, method="irls", reweightings=3)
    part = wb.unrolled_gradient(kernel, solution, {"y": slope}, reweightings=2)
    assert part["first"] == 0.0
    assert wb.unrolled_gradient(kernel, solution, {"y": slope})["first"] != 0.0


def test_other_methods_and_derivatives_are_refused(kernel):
    w, data, slope = drawn(8)
    with pytest.raises(wb.InputError, match=r"'held' has held parts .*method='irls'"):
        wb.minimise(kernel, w, {"x": data})
    solution = wb.minimise(kernel, w, {"x": data}, method="irls", reweightings=3)
    for derivative in (
        lambda: wb.implicit_gradient(kernel, solution, {"y": slope}),
        lambda: wb.implicit_jacobian(kernel, solution),
    ):
        with pytest.raises(wb.UnsupportedError, match=r"wb\.unrolled_gradient"):
            derivative()
    with pytest.raises(wb.UnsupportedError, match=r"wb\.unrolled_gradient"):
        wb.Learner(kernel, wb.Loss(sp.Sum(y[k] ** 2, k), variables=[y]), w, wb.SGD(0.1))


def test_what_cannot_be_meant_is_refused():
    t = sp.Symbol("t", real=True)
    with pytest.raises(wb.DeclarationError, match="stands within held"):
        wb.held(1 + wb.held(t, 1), 2)
    robust = wb.Energy(wb.held(t, 1) * t**2 + wb.pseudo_huber(t**2, 1), variables=[t])
    with pytest.raises(wb.UnsupportedError, match="beside parts that are held"):
        wb.minimise(wb.compile(robust, backend="reference"), start={"t": 1.0}, method="irls")


def test_a_definite_last_system_is_converged_without_its_spectrum():
    """Which is looked at when someone asks; an indefinite one is never called converged."""
    t, u = sp.symbols("t u", real=True)
    weight = wb.held(1 / sp.sqrt(1 + (x[i] - t) ** 2), 1)
    for sign, converged in ((1, True), (-1, False)):
        formula = sp.Sum(weight * (x[i] - t) ** 2, i) + sign * u**2
        held = wb.Energy(formula, variables=[t, u], data=[x], candidates={t: 0, u: 0}, name="held")
        kernel = wb.compile(held)
        solution = wb.minimise(kernel, None, {"x": [1.0, 2.0, 3.0, 4.0, 100.0]}, method="irls", reweightings=60)
        assert solution.converged == converged
        assert np.isnan(solution.reals[:, 1]).all()
        if converged:
            off = np.array([1.0, 2.0, 3.0, 4.0, 100.0]) - solution.variables["t"]
            assert solution.curvature == pytest.approx(min(2.0, 2 * (1 / np.sqrt(1 + off**2)).sum()))
        else:
            assert np.isnan(solution.curvature)
