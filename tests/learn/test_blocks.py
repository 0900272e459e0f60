"""Damped derivatives where blocks of the Hessian are eliminated: against the dense matrix and finite differences."""

import bordered
import numpy as np
import pytest
import wiberg as wb
from wiberg.runtime.algebra.blocks import blocks_of


@pytest.fixture(scope="module")
def joints():
    return wb.compile(bordered.free_joints())


def solved(kernel, batch=3, **changed):
    w, x, start = bordered.free_joints_inputs(batch=batch, joints=30)
    return wb.minimise(kernel, {**w, **changed}, x, start=start, gtol=1e-11)


def slopes_of(solution, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(np.shape(a)) for name, a in solution.variables.items()}


def at(kernel, spread, seed=0):
    """Solutions that are no minima: points where Hessians are indefinite."""
    w, x, start = bordered.free_joints_inputs(batch=3, joints=30)
    rng = np.random.default_rng(seed)
    start = {name: spread * rng.standard_normal((3, *np.shape(a))) for name, a in start.items()}
    return wb.minimise(kernel, w, x, start=start, max_iterations=0)


def matrices(kernel, solution, damping):
    """H + (damping + s) by the definition."""
    hessian = kernel.dense_hessian(solution.variables, solution.w, solution.x)
    lowest = np.linalg.eigvalsh(hessian)[:, 0]
    return hessian + (damping + np.maximum(0.0, -lowest))[:, None, None] * np.eye(hessian.shape[1])


def test_the_energy_has_blocks(joints):
    w, x, _ = bordered.free_joints_inputs(joints=30)
    found = blocks_of(joints, joints.bind(w, x))
    assert found.sizes.tolist() == [3] * 30 and len(found.border) == 9


@pytest.mark.parametrize("damping", [0.0, 1e-3, 0.1, 10.0])
def test_jacobian_and_gradient_are_those_of_the_dense_matrix(joints, damping):
    solution = solved(joints)
    cross = joints.cross(solution.variables, solution.w, solution.x)
    expected = -np.linalg.solve(matrices(joints, solution, damping), cross)
    np.testing.assert_allclose(wb.implicit_jacobian(joints, solution, damping=damping), expected, rtol=1e-9, atol=1e-10)
    slopes = slopes_of(solution)
    gradient = wb.implicit_gradient(joints, solution, slopes, damping=damping)
    packed = joints.variables.pack(slopes)
    together = np.einsum("bm,bmp->p", packed, expected)
    np.testing.assert_allclose(joints.weights.pack(gradient), together, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_indefinite_hessians_are_shifted_and_the_bound_holds(spread):
    def hill(s, delta):
        return -(delta**2) / (1 + s / delta**2)

    kernel = wb.compile(bordered.free_joints(hill))
    solution = at(kernel, spread)
    hessian = kernel.dense_hessian(solution.variables, solution.w, solution.x)
    values = np.linalg.eigvalsh(hessian)
    assert spread > 0.5 or (values[:, 0] < -1e-3).any()
    slopes, damping = slopes_of(solution), 0.05
    expected = -np.linalg.solve(
        matrices(kernel, solution, damping), kernel.cross(solution.variables, solution.w, solution.x)
    )
    jacobian = wb.implicit_jacobian(kernel, solution, damping=damping)
    np.testing.assert_allclose(jacobian, expected, rtol=1e-7, atol=1e-8 * abs(expected).max())
    gradient = wb.implicit_gradient(kernel, solution, slopes, damping=damping, unconverged="use")
    together = np.einsum("bm,bmp->p", kernel.variables.pack(slopes), expected)
    np.testing.assert_allclose(kernel.weights.pack(gradient), together, rtol=1e-6, atol=1e-7 * abs(together).max())


def test_undamped_derivative_is_that_of_finite_differences(joints):
    slopes = slopes_of(solved(joints))
    packed = joints.variables.pack(slopes)
    gradient = wb.implicit_gradient(joints, solved(joints), slopes, damping=0.0)
    for name, value, step in (("delta", 0.1, 1e-6), ("gamma", 2.0, 1e-5), ("ridge", 0.1, 1e-5)):
        there, back = (solved(joints, **{name: value + h}).y for h in (step, -step))
        assert gradient[name] == pytest.approx((packed * (there - back)).sum() / (2 * step), rel=1e-5)


def test_undamped_derivative_at_an_indefinite_hessian_goes_without_blocks():
    def hill(s, delta):
        return -(delta**2) / (1 + s / delta**2)

    kernel = wb.compile(bordered.free_joints(hill))
    solution = at(kernel, 0.1)
    hessian = kernel.dense_hessian(solution.variables, solution.w, solution.x)
    assert (np.linalg.eigvalsh(hessian)[:, 0] < 0).any()
    expected = -np.linalg.solve(hessian, kernel.cross(solution.variables, solution.w, solution.x))
    jacobian = wb.implicit_jacobian(kernel, solution, damping=0.0)
    np.testing.assert_allclose(jacobian, expected, rtol=1e-6, atol=1e-8 * abs(expected).max())
