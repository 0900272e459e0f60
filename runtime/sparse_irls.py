"""Iteratively reweighted least squares over many unknowns with a sparse Hessian: irls.py by conjugate gradients.

The compiled loop is that of newton_cg.py, with the sparse matrix A of the reweighted problem in place of the Hessian.
That problem lies above the energy, so that the energy falls at least as far as promised: the trust region never binds
where rho is as irls.py asks, and each step is -A^-1 g, solved to `EXACT`. Directions that A does not see stay as they
started. Convergence is linear: where rounding hides the decrease, whatever makes the gradient smaller is taken. Whether
the end is a minimum is asked of the Hessian itself, afterwards (curvature.py).
"""

from __future__ import annotations

import numpy as np

from ..compiler.calls.evaluate import run
from .algebra.curvature import curvature
from .problem import Problem
from .saddles import hessian_at
from .sparse import descend_by_slots
from .statuses import CONVERGED, ITERATION_LIMIT, SADDLE, STALLED

EXACT = 1e-10
"""What is left of the gradient of the reweighted problem after a step."""

REWEIGHTED = "reweighted", "value_gradient_sparse_reweighted", "sparse_reweighted_product"


def minimise_sparse_irls(problem: Problem) -> None:
    """Minimise every instance of a batch, as `problem.Problem` says; keeps where each began in `problem.began`."""
    kernel, inputs, y, reals, integers = problem.kernel, problem.inputs, problem.y, problem.reals, problem.integers
    if problem.seeds is not None:
        problem.rank(problem.seeds)
    problem.began = y.copy()
    fixed = problem.reweightings is not None
    limits = np.full(len(y), problem.reweightings if fixed else problem.max_iterations)
    gtol = 0.0 if fixed else problem.gtol
    descend_by_slots(problem, limits, range(len(y)), matrix=REWEIGHTED, gtol=gtol, forcing=EXACT, flattening=1.0)
    if problem.seeds is not None:
        integers[:, 1] += 1
    ended = (integers[:, 2] == ITERATION_LIMIT) | (integers[:, 2] == STALLED)
    integers[ended & (reals[:, 0] <= problem.gtol), 2] = CONVERGED
    reals[:, 1] = np.nan  # the loop has asked A
    for instance in map(int, np.flatnonzero(integers[:, 2] <= STALLED)):
        found = curvature(hessian_at(kernel, inputs, y, instance))
        reals[instance, 1] = found.lowest
        if found.downwards is not None and integers[instance, 2] == CONVERGED:
            integers[instance, 2] = SADDLE
    problem.energies[:] = run(kernel.entry("value"), inputs, y, count=len(y))[0]
