"""Curvatures that a minimisation did without: all pivots of the Hessian were firm, so that it is positive definite.

The lowest eigenvalue costs several times as much as the factors; it is found when it is asked for.
"""

from __future__ import annotations

import numpy as np

from .driver import run_driver
from .minimum_norm import curvature_slice
from .problem import Problem
from .quadratic import EXACT
from .sparse import is_sparse
from .statuses import CONVERGED, ITERATION_LIMIT, STALLED


def find_curvatures(problem: Problem) -> None:
    """Fill in the curvature of instances where it is NaN, and there is one."""
    ended = [CONVERGED, STALLED]
    if problem.kernel.quadratic and problem.method in EXACT and problem.box is None:
        ended.append(ITERATION_LIMIT)
    elif problem.method != "irls":
        return
    if not np.isnan(problem.reals[:, 1]).any() or is_sparse(problem.kernel, problem.inputs):
        return
    rows = np.flatnonzero(np.isin(problem.integers[:, 2], ended) & np.isnan(problem.reals[:, 1]))
    if len(rows):
        part = problem.part(rows)
        part.seeds, part.y[:] = None, problem.y[rows]
        run_driver(part, curvature_slice())
        problem.reals[rows, 1] = part.reals[:, 1]
