"""The damped solves of eq. 10 for many unknowns with a sparse Hessian, and the derivatives made of them.

    u = (H + (damping + s) I)^-1 dl/dy,     s = 0 where H is positive semi-definite, else minus a lower bound of its
                                            lowest eigenvalue (runtime/curvature.py)

by conjugate gradients, until the residual is 1e-12 of dl/dy: |u| <= (1 + 1e-12) |dl/dy| / damping at every point. Where
they take long, and with damping = 0 at a Hessian that is not safely positive definite, the matrix is factorised. Sums
over instances run over blocks of 64, in order, as in damped.py.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.arrays import address_of
from ..compiler.evaluate import BLOCK, Prepared, run
from ..compiler.slices import NEVER
from ..compiler.threads import threads
from ..runtime.curvature import curvature
from ..runtime.newton_cg import damped_solve
from .damped import LEFT_OUT, NOT_FINITE, SAFE, SHIFTED, SINGULAR, SINGULAR_AT, USED

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

RESIDUAL = 1e-12
"""The residual of a solve, relative to its right-hand side."""

LONG = 3000
"""Steps of conjugate gradients after which a matrix is factorised instead."""


def sparse_gradient(kernel: Any, solution: Any, slopes: Floats, damping: float, codes: Codes, *, each: bool) -> Floats:
    """What `implicit.damped_gradient` gives: (p,), or (B, p) where `each` instance keeps its own."""
    inputs, packed = solution.inputs, solution.y
    directions = np.zeros_like(packed)
    product = kernel.entry("sparse_hvp")
    workspace = 4 * inputs.m + product.needs(inputs)[1]

    def solve(k: int) -> None:
        if codes[k] != LEFT_OUT:
            system = _System(kernel, solution, k, damping)
            codes[k] = system.code
            if codes[k] in (USED, SHIFTED):
                directions[k], codes[k] = system.solve(-slopes[k], product, workspace)

    if len(packed) > 1 and threads() > 1:
        with ThreadPoolExecutor(min(threads(), len(packed))) as pool:
            list(pool.map(solve, range(len(packed))))
    else:
        for k in range(len(packed)):
            solve(k)
    _, rows = run(kernel.entry("cross_adjoint"), inputs, packed, directions, count=len(packed))
    codes[((codes == USED) | (codes == SHIFTED)) & ~np.isfinite(rows).all(axis=1)] = NOT_FINITE
    rows[(codes != USED) & (codes != SHIFTED)] = 0.0
    if each:
        return rows
    total = np.zeros(inputs.p)
    for k in range(0, len(rows), BLOCK):
        total += rows[k : k + BLOCK].sum(axis=0)
    return total


def sparse_jacobian(kernel: Any, solution: Any, damping: float, codes: Codes) -> Floats:
    """What `implicit_jacobian` gives, (B, m, p): one factorisation for each instance."""
    inputs = solution.inputs
    out = np.full((len(solution.y), inputs.m, inputs.p), math.nan)
    cross = kernel.cross(solution.variables, solution.w, solution.x)
    crosses = cross if solution.batched else [cross]
    for k, right in enumerate(crosses):
        system = _System(kernel, solution, k, damping)
        codes[k] = system.code
        if codes[k] in (USED, SHIFTED):
            columns = right.toarray() if hasattr(right, "toarray") else right
            out[k], codes[k] = system.factorised(-columns)
    return out


class _System:
    """H + (damping + s) I at the minimum of one instance; `code` is what is known of it before it is solved."""

    def __init__(self, kernel: Any, solution: Any, instance: int, damping: float) -> None:
        self.kernel, self.inputs, self.instance = kernel, solution.inputs, instance
        self.pattern, self.slots = kernel.hessian_slots(self.inputs, solution.y[instance], instance)
        self.damping, self.shift, self.lowest, self.size = damping, damping, math.nan, 0.0
        if not np.isfinite(self.slots).all():
            self.code = NOT_FINITE
            return
        self.lowest, self.code = float(solution.reals[instance, 1]), USED
        if not self.lowest > 0.0:
            self.lowest, self.size, downwards = curvature(self.matrix)
            if damping > 0.0 and downwards is not None:
                self.shift, self.code = damping - self.lowest, SHIFTED

    @cached_property
    def matrix(self) -> Any:
        """H as a CSR array."""
        return self.pattern.matrix(self.pattern.fill(self.slots[None])[0])

    def solve(self, b: Floats, product: Any, workspace: int) -> tuple[Floats, int]:
        """The solution for one right-hand side, and what became of it."""
        if self.damping == 0.0 and not self.lowest > SAFE * self._bound():
            return self.factorised(b)
        prepared, n, x = Prepared(product, self.inputs), self.inputs.m, np.empty(self.inputs.m)
        own, memory, place = np.empty(prepared.own + 1), np.empty(workspace + 1), prepared.fields[2]
        if prepared.own:
            place = address_of(own)
            product.prepare.call(self.inputs.table_address, self.inputs.extents_address, self.instance, place)
        sources, starts = self.pattern.diagonal
        ended = damped_solve().call(
            product.evaluate.address, address_of(self.slots), self.inputs.table_address, self.inputs.extents_address,
            self.instance, place, n, address_of(sources), address_of(starts), self.shift, address_of(b), RESIDUAL,
            LONG, address_of(x), address_of(memory), NEVER,
        )  # fmt: skip
        if ended != 0:
            return self.factorised(b)
        return (x, self.code) if np.isfinite(x).all() else (x, NOT_FINITE)

    def factorised(self, b: Floats) -> tuple[Floats, int]:
        """The same by factorisation, for one or several right-hand sides, (m,) or (m, k)."""
        from scipy.sparse import eye_array
        from scipy.sparse.linalg import splu

        matrix = (self.matrix + self.shift * eye_array(self.matrix.shape[0])).tocsc()
        try:
            factors = splu(matrix, permc_spec="MMD_AT_PLUS_A")
        except RuntimeError:  # exactly singular
            return np.zeros_like(b), SINGULAR
        least = np.abs(factors.U.diagonal()).min(initial=math.inf)
        if self.damping == 0.0 and least <= len(b) * SINGULAR_AT * self._bound():
            return np.zeros_like(b), SINGULAR
        x = factors.solve(b)
        return (x, self.code) if np.isfinite(x).all() else (x, NOT_FINITE)

    def _bound(self) -> float:
        """An upper bound of the eigenvalues' magnitudes."""
        if self.size == 0.0:
            self.size = curvature(self.matrix).size
        return self.size
