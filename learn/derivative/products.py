"""The damped solves of eq. 10 over many unknowns that are all coupled: products with the Hessian are all that is used.

    u = (H + (damping + s) I)^-1 dl/dy

by conjugate gradients as in sparse.py, without a preconditioner. s is 0 unless lanczos.py finds H to curve down; then
it is minus the lower bound that it gives. That |u| <= |dl/dy| / damping is looked at afterwards. A solve that does not
end, or breaks the bound, is made with the eigenvectors of the dense Hessian where that is not too large, and refused
where it is. So are those without damping at a Hessian that is not known to be positive definite.
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compiler.calls.arrays import address_of
from ...compiler.calls.evaluate import Prepared, run_one
from ...compiler.calls.slices import run_slices
from ...compiler.kernel import LARGEST_DENSE
from ...energies.errors import NumericalError
from ...runtime.algebra.conjugate_gradients import Plain
from ...runtime.products import find_curvature
from ...runtime.statuses import CONVERGED
from ...runtime.statuses import NOT_FINITE as LEAVE_OUT
from .damped import NOT_FINITE, SHIFTED, SINGULAR, SINGULAR_AT, USED
from .sparse import BROKEN, DONE, SKIPPED, damped_slice, summed_adjoint

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

LONG = 20_000
"""Steps of conjugate gradients after which a solve is given up."""

SLACK = 1e-6
"""By how much of itself the bound of |u| may be missed: far more than rounding, far less than what would matter."""


def products_gradient(
    kernel: Any, solution: Any, slopes: Floats, damping: float, codes: Codes, *, each: bool
) -> Floats:
    """What `implicit.damped_gradient` gives: (p,), or (B, p) where `each` instance keeps its own."""
    directions = products_directions(kernel, solution, slopes, damping, codes)
    return summed_adjoint(kernel, solution, directions, codes, each=each)


def products_directions(kernel: Any, solution: Any, slopes: Floats, damping: float, codes: Codes) -> Floats:
    """-u of eq. 10 for every instance, (B, m)."""
    shifts, directions = np.full(len(slopes), damping), -slopes
    used = codes == USED
    unknown = used & ~(solution.reals[:, 1] > 0.0)
    if damping > 0.0 and unknown.any():
        lowest, bound = _curvature(kernel, solution, unknown)
        down = lowest < 0.0
        shifts[down] -= np.where(np.isnan(bound), 2.0 * lowest, bound)[down]
        codes[down] = SHIFTED
    ended = _solve(kernel, solution, directions, shifts, used if damping > 0.0 else used & ~unknown)
    codes[ended == BROKEN] = NOT_FINITE
    beyond = np.linalg.norm(directions, axis=1) * damping > (1.0 + SLACK) * np.linalg.norm(slopes, axis=1)
    for k in map(int, np.flatnonzero(used & (ended != BROKEN) & (beyond | (ended != DONE)))):
        directions[k], codes[k] = _dense(kernel, solution, k, damping, -slopes[k])
    return directions


def _curvature(kernel: Any, solution: Any, some: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """The lowest eigenvalue that is found for some instances, 0 where none is negative, and its lower bound."""
    packed, count = solution.y, len(solution.y)
    integers, reals = np.full((count, 3), LEAVE_OUT), np.full((count, 2), np.nan)
    integers[some] = CONVERGED
    lowest, directions = np.zeros(count), np.empty_like(packed)
    find_curvature(kernel, solution.inputs, packed, reals, integers, lowest, directions, range(count))
    return lowest, reals[:, 1]


def _solve(kernel: Any, solution: Any, directions: Floats, shifts: Floats, some: NDArray[np.bool_]) -> Codes:
    """direction <- (H + shift)^-1 direction for some of the instances; how each ended, (B,)."""
    inputs, packed = solution.inputs, solution.y
    ended, rows = np.where(some, DONE, SKIPPED), np.flatnonzero(some)
    entry, n = kernel.entry("hvp"), inputs.m
    prepared, scratch, system = Prepared(entry, inputs), entry.needs(inputs)[1], Plain(n)
    fixed = inputs.table_address, inputs.extents_address, n, 0, scratch, system.address
    arrays = address_of(packed), n, address_of(directions), address_of(shifts), address_of(ended)
    numbers = 0, 0, 0, 0, *prepared.fields, *fixed, *arrays, address_of(rows), LONG, 0, 0, 0
    problem = array("q", numbers)
    key = ("damped", entry.evaluate.address, inputs.extents.tobytes())
    workspace = prepared.own + scratch + 2 * n + system.memory
    run_slices(damped_slice(), problem.buffer_info()[0], len(rows), key=key, workspace=workspace)
    if entry.failures:
        raise entry.failures.pop()
    return ended


def _dense(kernel: Any, solution: Any, instance: int, damping: float, b: Floats) -> tuple[Floats, int]:
    """The same from the eigenvectors of the dense Hessian, and what became of the instance."""
    n = solution.inputs.m
    if 8 * n * n > LARGEST_DENSE:
        where = f"instance {instance}" if solution.batched else "the minimum"
        why = "which is not known to be positive definite" if damping == 0.0 else f"not in {LONG} steps"
        raise NumericalError(
            f"implicit_gradient: energy {kernel.name!r}, damping {damping:g}: products with the Hessian do not solve "
            f"with it at {where}, {why}, and it is too large to form ({n} unknowns); "
            f"use damping={max(0.1, 10.0 * damping):g}"
        )
    hessian = run_one(kernel.entry("hessian"), solution.inputs, solution.y[instance], instance)[1].reshape(n, n)
    if not np.isfinite(hessian).all():
        return b, NOT_FINITE
    values, vectors = np.linalg.eigh(hessian)
    shifted = values + (damping + max(0.0, -values[0]) if damping > 0.0 else 0.0)
    if np.abs(shifted).min() <= n * SINGULAR_AT * np.abs(values).max():
        return b, SINGULAR
    return vectors @ ((vectors.T @ b) / shifted), SHIFTED if damping > 0.0 and values[0] < 0.0 else USED
