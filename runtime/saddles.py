"""Leaving saddles over many unknowns, from where a descent has ended with a small gradient.

A step along the lowest curvature leaves a saddle. Where that curvature is slight, Newton's steps come first, as in
descend.py: along a direction in which the energy does not change (a map that is moved and turned as a whole) the
curvature is not 0 but of the size of the gradient, of either sign, and vanishes with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.calls.evaluate import run_one
from .algebra.curvature import curvature, definite
from .algebra.linear_algebra import FLAT
from .descend import HOPELESS, LEAPS, NO_SCALE, ROUNDING, SLIGHT
from .problem import Problem
from .statuses import ABYSS, CONVERGED, ITERATION_LIMIT, SADDLE

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def hessian_at(kernel: Any, inputs: Any, y: Floats, instance: int) -> Any:
    """The sparse Hessian of one instance as a CSR array."""
    pattern, slots = kernel.hessian_slots(inputs, y[instance], instance)
    return pattern.matrix(pattern.fill(slots))


def downwards(problem: Problem, limits: Integers, instance: int) -> tuple[Floats, float] | None:
    """For `leave_saddles`, by factors of the sparse Hessian; writes a lower bound of its eigenvalues.

    Only of an instance that is CONVERGED and whose bound is not known yet.
    """
    reals, integers = problem.reals, problem.integers
    if integers[instance, 2] != CONVERGED or not math.isnan(reals[instance, 1]):
        return None
    while True:
        matrix = hessian_at(problem.kernel, problem.inputs, problem.y, instance)
        found = curvature(matrix)
        reals[instance, 1] = found.lowest
        if found.downwards is None:
            return None
        curved = -float(found.downwards @ (matrix @ found.downwards))
        slight = curved < SLIGHT * found.size and integers[instance, 0] < limits[instance]
        if not (slight and flatten(problem, instance)):
            return found.downwards, curved


def flatten(problem: Problem, instance: int) -> bool:
    """`descend.flatten` by sparse factors: whether y has moved to where the gradient has less than half its length."""
    kernel, inputs, y, integers = problem.kernel, problem.inputs, problem.y, problem.integers
    pattern = kernel.pattern("hessian", inputs, instance)

    def derivatives(at: Floats) -> tuple[float, Floats, Any]:
        value, out = run_one(kernel.entry("value_gradient_sparse_hessian"), inputs, at, instance)
        return value, out[: inputs.m], pattern.matrix(pattern.fill(out[inputs.m :]))

    trial = y[instance].copy()
    energy, gradient, matrix = derivatives(trial)
    length = float(np.linalg.norm(gradient))
    for _ in range(LEAPS):
        factors = _slightly_lifted(matrix)
        if factors is None:
            return False
        trial = trial - factors.solve(gradient)
        reached, gradient, matrix = derivatives(trial)
        integers[instance, 1] += 1
        if not (reached < math.inf and np.isfinite(gradient).all() and np.isfinite(matrix.data).all()):
            return False
        if np.linalg.norm(gradient) < 0.5 * length and reached - energy <= ROUNDING * abs(energy):
            y[instance] = trial
            problem.reals[instance] = np.abs(gradient).max(), math.nan
            integers[instance, 0] += 1
            return True
    return False


def flatten_stalled(problem: Problem, limits: Integers, instance: int) -> None:
    """Newton's steps from where the descent stalled and H is not positive definite.

    Conjugate gradients follow a direction without curvature up to the trust region, which is too far to be judged.
    """
    reals, integers = problem.reals, problem.integers
    while reals[instance, 0] > problem.gtol and integers[instance, 0] < limits[instance] and flatten(problem, instance):
        pass
    if reals[instance, 0] <= problem.gtol:
        integers[instance, 2] = CONVERGED


def _slightly_lifted(matrix: Any) -> Any | None:
    """Factors of H + shift, for the least shift tried with which it is positive definite; None if none is slight."""
    found = curvature(matrix)
    way = found.downwards
    shift = FLAT * found.size if way is None else -2.0 * float(way @ (matrix @ way))
    while shift < 4.0 * SLIGHT * found.size:
        factors = definite(matrix, shift)
        if factors is not None:
            return factors
        shift *= 4.0
    return None


def leave_saddles(
    problem: Problem,
    limits: Integers,
    downwards: Callable[[int], tuple[Floats, float] | None],
    descend: Callable[[Integers, range], None],
) -> None:
    """Step down from the CONVERGED instances that are saddles, descend again, and look again.

    Parameters
    ----------
    downwards
        Of an instance: a unit vector along which its energy curves down at y, and by how much; None at a minimum.
    descend
        Descends again from y, for some instances with so many steps, (B,).
    """
    integers, rest = problem.integers, limits.copy()
    for instance in map(int, np.flatnonzero(integers[:, 2] == CONVERGED)):
        while (found := downwards(instance)) is not None and _has_left(problem, limits, instance, *found):
            before = integers[instance, :2].copy()
            rest[instance] = limits[instance] - before[0]
            descend(rest, range(instance, instance + 1))
            integers[instance, :2] += before


def _has_left(problem: Problem, limits: Integers, instance: int, direction: Floats, curved: float) -> bool:
    """Whether y has left a saddle for a lower energy.

    Writes ITERATION_LIMIT where no step was left; where no step down was found, SADDLE if the energy rises along those
    that should go down by more than rounding, else CONVERGED.
    """
    kernel, inputs, y, integers = problem.kernel, problem.inputs, problem.y, problem.integers
    if integers[instance, 0] >= limits[instance]:
        integers[instance, 2] = ITERATION_LIMIT
        return False
    integers[instance, 0] += 1
    here = y[instance].copy()

    def value_at(length: float) -> float:
        integers[instance, 1] += 1
        return float(kernel.value_at(inputs, here + length * direction, instance))

    energy, size = kernel.value_at(inputs, here, instance), float(np.abs(here).max())
    noise, rises = ROUNDING * abs(energy), False
    length = max(1e-3 * (size if size > NO_SCALE else 1.0), math.sqrt(200.0 * noise / curved))
    for _ in range(HOPELESS):
        for signed in (length, -length):
            lowest = value_at(signed)
            if lowest < energy - 1e-4 * curved * length**2:
                for _ in range(HOPELESS):  # the scale is a guess: further, while it falls in proportion
                    following = value_at(4.0 * signed)
                    if not ABYSS < following < energy - 3.5 * (energy - lowest):
                        break
                    signed, lowest = 4.0 * signed, following
                y[instance] = here + signed * direction
                return True
            rises = rises or not lowest - energy <= noise
        length /= 4.0
        if 0.5 * curved * length**2 <= noise:
            break
    integers[instance, 2] = SADDLE if rises else CONVERGED
    return False
