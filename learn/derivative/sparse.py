"""The damped solves of eq. 10 for many unknowns with a sparse Hessian, and the derivatives made of them.

    u = (H + (damping + s) I)^-1 dl/dy,     s = 0 where H is positive semi-definite, else minus a lower bound of its
                                            lowest eigenvalue (runtime/algebra/curvature.py)

by conjugate gradients, until the residual that they carry along is 1e-12 of dl/dy: |u| <= |dl/dy| / damping at every
point, to rounding. Where the minimum was found by factors (algebra/direct.py), those of the damped matrix precondition
them. Where they take long, and with damping = 0 at a Hessian that is not safely positive definite, the
matrix is factorised. Sums over instances run over blocks of 64, in order, as in damped.py.

Of minima on bounds, all this is said of the free block: rows and columns of held variables are left out of a matrix
that is factorised, and set to 0, as their right-hand sides are, for conjugate gradients (held_slots.py).
"""

from __future__ import annotations

import math
from array import array
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compiler.calls.arrays import address_of
from ...compiler.calls.evaluate import BLOCK, Prepared, run
from ...compiler.calls.slices import run_slices
from ...compiler.machine_code.calling import call_evaluate, double_pointer_at, integer_pointer_at, prepared_for, shifted
from ...compiler.machine_code.native import Native, native
from ...compiler.machine_code.signature import DoublePointer, IntegerPointer
from ...runtime.algebra.conjugate_gradients import conjugate_gradients, precondition, system_of
from ...runtime.algebra.curvature import curvature
from ...runtime.algebra.direct import stages_of
from ...runtime.algebra.linear_algebra import largest
from ...runtime.algebra.range_space import range_parts
from ...runtime.algebra.vectors import copy, dot, scale, zero
from ...runtime.bounds.held_slots import ends_of, hold_slots
from .damped import NOT_FINITE, SAFE, SHIFTED, SINGULAR, SINGULAR_AT, USED
from .minimum_norm import ill_posed

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

RESIDUAL = 1e-12
"""The residual of a solve, relative to its right-hand side."""

LONG = 3000
"""Steps of conjugate gradients after which a matrix is factorised instead."""

LOG_2 = math.log(2.0)

DONE, TOO_LONG, BROKEN, SKIPPED = range(4)
"""How a solve ended: TOO_LONG also where a direction without curvature was met, BROKEN where numbers are not finite."""


def sparse_gradient(kernel: Any, solution: Any, slopes: Floats, damping: float, codes: Codes, *, each: bool) -> Floats:
    """What `implicit.damped_gradient` gives: (p,), or (B, p) where `each` instance keeps its own."""
    directions, moved = sparse_directions(kernel, solution, slopes, damping, codes)
    return summed_adjoint(kernel, solution, directions, codes, each=each, moved=moved)


def sparse_directions(
    kernel: Any, solution: Any, slopes: Floats, damping: float, codes: Codes
) -> tuple[Floats, tuple[Floats, Floats] | None]:
    """-u of eq. 10 for every instance, (B, m); of minimum-norm solutions also other points, and their directions."""
    packed = solution.y
    shifts, directions = np.full(len(packed), damping), -slopes
    if solution.held is not None:
        directions[solution.held != 0] = 0.0
    direct: set[int] = set()  # instances whose matrix is factorised
    for k in map(int, np.flatnonzero((codes == USED) & ((damping == 0.0) | ~(solution.reals[:, 1] > 0.0)))):
        system = _System(kernel, solution, k, damping)
        codes[k], shifts[k] = system.code, system.shift
        if system.code in (USED, SHIFTED) and not system.is_safe():
            direct.add(k)
    iterated = [int(k) for k in np.flatnonzero((codes == USED) | (codes == SHIFTED)) if k not in direct]
    ended = _solve(kernel, solution, directions, shifts, iterated, len(packed))
    for k in (*direct, *(k for k in iterated if ended[k] != DONE)):
        if ended[k] == BROKEN:
            codes[k] = NOT_FINITE
        else:
            directions[k], codes[k] = _System(kernel, solution, k, damping).factorised(directions[k])
    some = ill_posed(solution, codes)
    moved = None if some is None else _split(solution, damping, shifts, np.flatnonzero(some == USED), directions)
    return directions, moved


def summed_adjoint(
    kernel: Any,
    solution: Any,
    directions: Floats,
    codes: Codes,
    *,
    each: bool,
    moved: tuple[Floats, Floats] | None = None,
) -> Floats:
    """The derivative from the solves of all instances; marks those that are not finite.

    `moved` are other points and directions whose derivatives are added (minimum_norm.py).
    """
    inputs, packed = solution.inputs, solution.y
    directions[(codes != USED) & (codes != SHIFTED)] = 0.0
    _, rows = run(kernel.entry("cross_adjoint"), inputs, packed, directions, count=len(packed))
    if moved is not None:
        rows += run(kernel.entry("cross_adjoint"), inputs, *moved, count=len(packed))[1]
    codes[((codes == USED) | (codes == SHIFTED)) & ~np.isfinite(rows).all(axis=1)] = NOT_FINITE
    rows[(codes != USED) & (codes != SHIFTED)] = 0.0
    if each:
        return rows
    total = np.zeros(inputs.p)
    for k in range(0, len(rows), BLOCK):
        total += rows[k : k + BLOCK].sum(axis=0)
    return total


def _split(solution: Any, damping: float, shifts: Floats, some: Codes, directions: Floats) -> tuple[Floats, Floats]:
    """Damped solutions, and the parts of the directions along null spaces, which they lose; see minimum_norm.py."""
    kernel, inputs, y = solution.kernel, solution.inputs, solution.y
    parts, moved = np.zeros_like(directions), y.copy()
    within = range_parts(kernel, inputs, y, some, directions[some])
    known = some[np.isfinite(within).all(axis=1)]
    parts[known] = directions[known] - within[np.isfinite(within).all(axis=1)]
    directions[known] -= parts[known]
    moved[known] = _damped_solutions(kernel, solution, damping, shifts, known)
    return moved, parts


def _damped_solutions(kernel: Any, solution: Any, damping: float, shifts: Floats, some: Codes) -> Floats:
    """y - damping (H + shift)^-1 y of some instances."""
    vectors = solution.y.copy()
    ended = _solve(kernel, solution, vectors, shifts, list(map(int, some)), len(vectors))
    for k in map(int, some):
        if ended[k] != DONE:
            vectors[k], _ = _System(kernel, solution, k, damping).factorised(solution.y[k])
    result: Floats = solution.y[some] - damping * vectors[some]
    return result


def _solve(kernel: Any, solution: Any, directions: Floats, shifts: Floats, some: list[int], count: int) -> Codes:
    """direction <- (H + shift)^-1 direction for some of the instances; how each ended, (B,)."""
    inputs, packed = solution.inputs, solution.y
    ended = np.full(count, SKIPPED, np.int64)
    ended[some] = DONE
    entries = kernel.entry("sparse_hessian"), kernel.entry("sparse_hvp")
    prepared = [Prepared(entry, inputs) for entry in entries]
    n, size, own = inputs.m, entries[0].needs(inputs)[2], sum(p.own for p in prepared)
    scratch = max(entry.needs(inputs)[1] for entry in entries)
    kernels = [number for p in prepared for number in p.fields]
    factorised = solution.problem.factorised
    for pattern, group in kernel.patterns("hessian", inputs, range(count)) if some else ():
        for factors in (False, True):
            rows = np.arange(group.start, group.stop)
            rows = rows[(factorised[rows] == factors) & (ended[rows] == DONE)]
            if not len(rows):
                continue
            system = stages_of(pattern).last.system if factors else system_of(pattern)
            fixed = inputs.table_address, inputs.extents_address, n, size, scratch, system.address
            arrays = address_of(packed), n, *map(address_of, (directions, shifts, ended, rows))
            bounds = 0, 0, 0
            if solution.held is not None:
                bounds = address_of(solution.held), *ends_of(pattern, size).addresses
            problem = array("q", (*kernels, *fixed, *arrays, LONG, *bounds))
            key = ("damped", entries[1].evaluate.address, inputs.extents.tobytes(), factors)
            workspace = own + scratch + 2 * size + 2 * n + system.memory
            run_slices(damped_slice(), problem.buffer_info()[0], len(rows), key=key, workspace=workspace)
    return ended


def sparse_jacobian(kernel: Any, solution: Any, damping: float, codes: Codes) -> Floats:
    """What `implicit_jacobian` gives, (B, m, p): one factorisation for each instance."""
    inputs = solution.inputs
    out = np.full((len(solution.y), inputs.m, inputs.p), math.nan)
    for k, right in enumerate(_rows(kernel.cross(solution.variables, solution.w, solution.x), len(solution.lead))):
        system = _System(kernel, solution, k, damping)
        codes[k] = system.code
        if codes[k] in (USED, SHIFTED):
            columns = right.toarray() if hasattr(right, "toarray") else right
            if ill_posed(solution, codes) is not None and solution.reals[k, 1] == 0.0:
                columns = _turned(solution, damping, system.shift, k, columns)
            out[k], codes[k] = system.factorised(-columns)
    return out


def _rows(cross: Any, axes: int) -> list[Any]:
    """The matrices of a derivative with so many axes of batch and family in front, one after another."""
    rows = [cross]
    for _ in range(axes):
        rows = [matrix for some in rows for matrix in some]
    return rows


def _turned(solution: Any, damping: float, shift: float, instance: int, columns: Floats) -> Floats:
    """d(grad_y E)/dw, (m, p), its part along the null space taken at the damped solution; see minimum_norm.py."""
    kernel, inputs, y = solution.kernel, solution.inputs, solution.y
    one, shifts = np.array([instance]), np.full(len(y), shift)
    moved = y.copy()
    moved[one] = _damped_solutions(kernel, solution, damping, shifts, one)
    there = kernel.cross(replace(solution, y=moved).variables, solution.w, solution.x)
    there = _rows(there, len(solution.lead))[instance]
    change = (there.toarray() if hasattr(there, "toarray") else there) - columns
    which = np.full(change.shape[1], instance)
    part = change - range_parts(kernel, inputs, y, which, change.T).T
    return columns + part if np.isfinite(part).all() else columns


class _System:
    """H + (damping + s) I at the minimum of one instance; `code` is what is known of it before it is solved.

    `free` are the rows of the free block, of which all is said, None where there are no bounds.
    """

    def __init__(self, kernel: Any, solution: Any, instance: int, damping: float) -> None:
        self.kernel, self.inputs, self.instance = kernel, solution.inputs, instance
        self.pattern, self.slots = kernel.hessian_slots(self.inputs, solution.y[instance], instance)
        self.free = None if solution.held is None else np.flatnonzero(solution.held[instance] == 0)
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
        """H, or its free block, as a CSR array."""
        matrix = self.pattern.matrix(self.pattern.fill(self.slots))
        return matrix if self.free is None else matrix[self.free][:, self.free]

    def is_safe(self) -> bool:
        """Whether conjugate gradients may be asked: damped, or well away from a matrix that has no inverse."""
        return self.damping > 0.0 or self.lowest > SAFE * self._bound()

    def factorised(self, b: Floats) -> tuple[Floats, int]:
        """The same by factorisation, for one or several right-hand sides, (m,) or (m, k); 0 for held variables."""
        if self.free is None:
            return self._factorised(b)
        x, code = np.zeros_like(b), self.code
        if len(self.free):
            x[self.free], code = self._factorised(b[self.free])
        return x, code

    def _factorised(self, b: Floats) -> tuple[Floats, int]:
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


# ---------------------------------------------------------------------------------------------- compiled

# What `damped_slice` reads from its problem: two kernels, slots of the Hessian and the product with them, each as in
# descend.py; then addresses and sizes. WHICH are the instances, MOST the steps of a solve. Without a kernel
# for slots (0, SIZE = 0), the product is that with the Hessian at VARIABLES. ACTIVE is 0 where there are no bounds.
HESSIAN, PRODUCT = 0, 4
TABLE, EXTENTS, UNKNOWNS, SIZE, SCRATCH, SYSTEM = range(8, 14)
VARIABLES, STRIDE, DIRECTIONS, SHIFTS, ENDED, WHICH, MOST = range(14, 21)
ACTIVE, SLOT_ROWS, SLOT_COLUMNS = range(21, 24)


def _damped_slice(problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer) -> int:
    """direction <- (H + shift)^-1 direction for WHICH[begin:end], of which ENDED says how each did."""
    table, extents = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS])
    n, size = problem[UNKNOWNS], problem[SIZE]
    own_product = shifted(workspace, problem[HESSIAN + 3])
    slots = shifted(own_product, problem[PRODUCT + 3])
    scratch = shifted(slots, size)
    solved = shifted(scratch, problem[SCRATCH])
    free, whole = shifted(solved, n), shifted(solved, 2 * n)
    memory, system = shifted(whole, size), integer_pointer_at(problem[SYSTEM])
    for row in range(begin, end):
        if stop[0] != 0:
            return row
        instance = integer_pointer_at(problem[WHICH])[row]
        ended = shifted(integer_pointer_at(problem[ENDED]), instance)
        y = shifted(double_pointer_at(problem[VARIABLES]), instance * problem[STRIDE])
        b = shifted(double_pointer_at(problem[DIRECTIONS]), instance * n)
        shift = double_pointer_at(problem[SHIFTS])[instance]
        prepared = prepared_for(shifted(problem, HESSIAN), table, extents, instance, workspace)
        matrix = y
        if problem[HESSIAN] != 0:
            zero(slots, size)
            call_evaluate(problem[HESSIAN], y, y, table, extents, instance, prepared, scratch, slots)
            matrix = slots
        prepared = prepared_for(shifted(problem, PRODUCT), table, extents, instance, own_product)
        ended[0] = BROKEN
        if not dot(slots, slots, size) < math.inf:
            continue
        if problem[ACTIVE] != 0:
            active = shifted(integer_pointer_at(problem[ACTIVE]), instance * n)
            for i in range(n):
                free[i] = 0.0 if active[i] != 0 else 1.0
            copy(slots, whole, size)
            rows, columns = integer_pointer_at(problem[SLOT_ROWS]), integer_pointer_at(problem[SLOT_COLUMNS])
            hold_slots(whole, rows, columns, free, size, slots)
        precondition(system, matrix, shift, memory, stop)
        unit = power_of_two(largest(b, n))
        scale(1.0 / unit, b, n)  # squares of very large and very small numbers are no numbers
        how, _, _ = conjugate_gradients(
            system,
            memory,
            problem[PRODUCT],
            matrix,
            table,
            extents,
            instance,
            prepared,
            scratch,
            shift,
            b,
            math.inf,
            0.0,
            RESIDUAL,
            problem[MOST],
            solved,
            stop,
        )
        if how != 0:
            ended[0] = TOO_LONG
        elif dot(solved, solved, n) < math.inf:
            ended[0] = DONE
            copy(solved, b, n)
        scale(unit, b, n)
    return end


def power_of_two(size: float) -> float:
    """A power of two near a size, 1 where that is 0 or not finite."""
    if not 0.0 < size < math.inf:
        return 1.0
    return math.pow(2.0, min(max(math.floor(math.log(size) / LOG_2), -1000.0), 1000.0))


def damped_slice() -> Native:
    """The compiled `_damped_slice`."""
    return native(_damped_slice)
