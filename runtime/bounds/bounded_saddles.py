"""Leaving saddles within a box, for many unknowns with a sparse Hessian: from points where the descent has ended.

Negative curvature is looked for by curvature.py among the free variables, together with those at a bound whose
multipliers are within gtol. It is followed both ways, projected. If neither way leads down, the latter count as held,
and the rest is asked again.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compiler.calls.evaluate import run_one
from ..algebra.curvature import Curvature, curvature
from ..descend import HOPELESS, ROUNDING
from ..problem import Problem
from ..statuses import CONVERGED, ITERATION_LIMIT, SADDLE

Floats = NDArray[np.float64]


def has_left_saddle(problem: Problem, instance: int) -> bool:
    """Whether an instance was at a saddle, and y has left it for a lower energy.

    Writes the curvature of the free block, which variables are held as the top of this file says, ITERATION_LIMIT where
    no step was left, and SADDLE where no step down was found although that curvature is negative.
    """
    kernel, inputs, integers, box = problem.kernel, problem.inputs, problem.integers, problem.box
    assert box is not None and problem.active is not None
    y = problem.y[instance]
    low, high = (side[instance if len(side) > 1 else 0] for side in (box.low, box.high))
    pattern, slots = kernel.hessian_slots(inputs, y, instance)
    matrix = pattern.matrix(pattern.fill(slots))
    gradient = run_one(kernel.entry("gradient"), inputs, y, instance)[1]
    active = problem.active[instance]
    weak = (low < high) & ((y <= low) | (y >= high)) & (np.abs(gradient) <= problem.gtol)
    found = free_curvature(matrix, active == 0)
    wide = free_curvature(matrix, (active == 0) | weak) if weak.any() else found
    if integers[instance, 2] == CONVERGED and wide.downwards is not None:
        if _step_down(problem, instance, wide.downwards, matrix, (low, high)):
            return True
        if weak.any():
            active[weak] = 1
            found = free_curvature(matrix, active == 0)
        if found.downwards is not None:
            if wide is not found and _step_down(problem, instance, found.downwards, matrix, (low, high)):
                return True
            at_limit = integers[instance, 0] >= problem.max_iterations
            integers[instance, 2] = ITERATION_LIMIT if at_limit else SADDLE
    problem.reals[instance, 1] = found.lowest
    return False


def _step_down(problem: Problem, instance: int, way: Floats, matrix: Any, bounds: tuple[Floats, Floats]) -> bool:
    """Move y along a direction of negative curvature, one way or the other, projected, if the energy falls."""
    kernel, inputs, integers, y = problem.kernel, problem.inputs, problem.integers, problem.y[instance]
    curved = -float(way @ (matrix @ way))
    if integers[instance, 0] >= problem.max_iterations or not curved > 0.0:
        return False
    integers[instance, 0] += 1
    energy = kernel.value_at(inputs, y, instance)
    length = max(1e-3 * (np.abs(y).max() or 1.0), math.sqrt(200.0 * ROUNDING * abs(energy) / curved))
    for _ in range(HOPELESS):
        for sign in (1.0, -1.0):
            trial = np.clip(y + sign * length * way, *bounds)
            moved = float(np.sum((trial - y) ** 2))
            if moved > 0.0:
                integers[instance, 1] += 1
                if kernel.value_at(inputs, trial, instance) < energy - 1e-4 * curved * moved:
                    problem.y[instance] = trial
                    return True
        length /= 4.0
    return False


def free_curvature(matrix: Any, free: NDArray[np.bool_]) -> Curvature:
    """The curvature of the free block of a CSR array; its direction has a place for every variable."""
    if not free.any():
        return Curvature(math.inf, 0.0, None)
    places = np.flatnonzero(free)
    found = curvature(matrix[places][:, places])
    if found.downwards is None:
        return found
    downwards = np.zeros(len(free))
    downwards[places] = found.downwards
    return found._replace(downwards=downwards)
