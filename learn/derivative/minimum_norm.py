"""The damped derivative at minimum-norm solutions of quadratic energies whose Hessian is singular.

Where H keeps its rank while the weights move, its null space may turn, and the minimiser of least |y| with it. Equation
10 knows nothing of that. With G(y) = d(grad_y E)/dw, P the projection on the null space of H and

    y' = y* - damping (H + damping)^-1 y*          the damped solution: the minimiser of E + damping/2 |y|^2

the derivative is (docs/minimisers.md has the proof)

    dy*/dw = -(H + damping)^-1 [(1 - P) G(y*) + P G(y')]

It is that of equation 10 where the null space stays as it is, and tends to the derivative of H^+ b as the damping goes
to 0. So dl/dw = -u . d(grad_y E)/dw with the same u as ever, taken at y* along the range of H and at y' along its null
space: |u| <= |dl/dy| / damping as ever.

Instances are known by their curvature: minimise says 0 for those, and for no others (runtime/minimum_norm.py).
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...compiler.calls.arrays import address_of
from ...compiler.calls.evaluate import Prepared
from ...compiler.calls.slices import run_slices
from ...compiler.machine_code.calling import (
    call_evaluate,
    double_pointer_at,
    doubles,
    integer_pointer_at,
    prepared_for,
    shifted,
)
from ...compiler.machine_code.native import Native, native
from ...compiler.machine_code.signature import DoublePointer, IntegerPointer
from ...runtime.algebra.blocks import layout_of
from ...runtime.algebra.semidefinite import null_part, row_space
from ...runtime.solution import Solution, Status
from .damped import LEFT_OUT, SHIFTED, USED, solve_damped

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


def ill_posed(solution: Solution, codes: Codes) -> Codes | None:
    """USED for minimum-norm solutions that count, LEFT_OUT for other instances; None if there are none."""
    if not solution.kernel.quadratic or solution.held is not None:
        return None
    counts = (solution.integers[:, 2] <= int(Status.STALLED)) & ((codes == USED) | (codes == SHIFTED))
    marked = counts & (solution.reals[:, 1] == 0.0)
    return np.where(marked, USED, LEFT_OUT) if marked.any() else None


def split(solution: Solution, damping: float, some: Codes, directions: Floats) -> tuple[Solution, Floats]:
    """The damped solutions y', and the parts of the directions along the null spaces, which `directions` lose."""
    moved, parts = solution.y.copy(), np.zeros_like(directions)
    arrays = address_of(directions), address_of(parts)
    _run(split_slice(), solution, damping, some, moved, *arrays, second=None)
    return replace(solution, y=moved), parts


def turn_jacobian(solution: Solution, damping: float, some: Codes, out: Floats) -> None:
    """Write dy*/dw of the instances that are USED into `out`, (B, m, p)."""
    moved = solution.y.copy()
    _run(jacobian_slice(), solution, damping, some, moved, address_of(out), 0, second="cross")


def _run(
    drive: Native,
    solution: Solution,
    damping: float,
    some: Codes,
    moved: Floats,
    first_array: int,
    second_array: int,
    *,
    second: str | None,
) -> None:
    kernel, inputs = solution.kernel, solution.inputs
    n, p = inputs.m, inputs.p
    entries = [kernel.entry("value_gradient_hessian"), kernel.entry(second or "value_gradient_hessian")]
    prepared = [Prepared(entry, inputs) for entry in entries]
    scratch, layout = max(entry.needs(inputs)[1] for entry in entries), layout_of(kernel, inputs)
    problem = _PROBLEM.pack(
        *(number for each in prepared for number in each.fields),
        inputs.table_address,
        inputs.extents_address,
        n,
        p,
        scratch,
        damping,
        address_of(solution.y),
        address_of(moved),
        address_of(some),
        first_array,
        second_array,
        address_of(layout),
    )
    numbers = array("q", problem)
    workspace = sum(each.own for each in prepared) + scratch + 4 * n * n + 12 * n + n * p
    key = (drive.address, entries[1].evaluate.address, inputs.extents.tobytes())
    run_slices(drive, numbers.buffer_info()[0], len(some), key=key, workspace=workspace)


# ---------------------------------------------------------------------------------------------- compiled

# What the drivers read from their problem: two kernels as in descend.py, the first of which writes gradient and
# Hessian; then addresses and sizes. DAMPING is a float64.
HESSIAN, SECOND = 0, 4
TABLE, EXTENTS, UNKNOWNS, WEIGHTS, SCRATCH, DAMPING, Y, MOVED, SOME, FIRST, OTHER, LAYOUT = range(8, 20)
_PROBLEM = struct.Struct(f"={DAMPING}qd{LAYOUT - DAMPING}q")


def _null_space(
    problem: IntegerPointer, instance: int, own: DoublePointer, scratch: DoublePointer, work: DoublePointer
) -> int:
    """Write Q of runtime/algebra/semidefinite.py to work + n*n + n, the damped solution to MOVED; returns the rank.

    `work` has 4 n*n + 12 n numbers.
    """
    n = problem[UNKNOWNS]
    table, extents = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS])
    h, q, triangle = shifted(work, n), shifted(work, n + n * n), shifted(work, n + 2 * n * n)
    space, vector = shifted(work, n + 3 * n * n), shifted(work, 4 * n * n + 8 * n)
    y = shifted(double_pointer_at(problem[Y]), instance * n)
    moved = shifted(double_pointer_at(problem[MOVED]), instance * n)
    prepared = prepared_for(shifted(problem, HESSIAN), table, extents, instance, own)
    call_evaluate(problem[HESSIAN], y, y, table, extents, instance, prepared, scratch, work)
    rank = row_space(h, n, q, triangle, vector)
    for i in range(n):
        vector[i] = y[i]
    damping = doubles(problem)[DAMPING]
    solve_damped(integer_pointer_at(problem[LAYOUT]), h, n, damping, 0.0, vector, 1, space)
    for i in range(n):
        moved[i] = y[i] - damping * vector[i]
    return rank


def _split_slice(problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer) -> int:
    """OTHER <- the part of FIRST along the null space, which FIRST loses, for the instances that are USED in SOME."""
    n, some = problem[UNKNOWNS], integer_pointer_at(problem[SOME])
    scratch = shifted(workspace, problem[HESSIAN + 3] + problem[SECOND + 3])
    work = shifted(scratch, problem[SCRATCH])
    q, coefficients = shifted(work, n + n * n), shifted(work, 4 * n * n + 9 * n)
    for instance in range(begin, end):
        if stop[0] != 0:
            return instance
        if some[instance] != USED:
            continue
        rank = _null_space(problem, instance, workspace, scratch, work)
        direction = shifted(double_pointer_at(problem[FIRST]), instance * n)
        part = shifted(double_pointer_at(problem[OTHER]), instance * n)
        null_part(q, rank, n, direction, coefficients, part)
        for i in range(n):
            direction[i] -= part[i]
    return end


def _jacobian_slice(
    problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer
) -> int:
    """FIRST[b] <- dy*/dw, (n, p), for the instances [begin, end) that are USED in SOME; SECOND is the kernel cross."""
    n, p, some = problem[UNKNOWNS], problem[WEIGHTS], integer_pointer_at(problem[SOME])
    table, extents = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS])
    own = shifted(workspace, problem[HESSIAN + 3])
    scratch = shifted(own, problem[SECOND + 3])
    work = shifted(scratch, problem[SCRATCH])
    h, q, space = shifted(work, n), shifted(work, n + n * n), shifted(work, n + 3 * n * n)
    column, part, coefficients = shifted(work, 4 * n * n + 8 * n), shifted(work, 4 * n * n + 9 * n), work
    there = shifted(work, 4 * n * n + 12 * n)
    for instance in range(begin, end):
        if stop[0] != 0:
            return instance
        if some[instance] != USED:
            continue
        rank = _null_space(problem, instance, workspace, scratch, work)
        y = shifted(double_pointer_at(problem[Y]), instance * n)
        moved = shifted(double_pointer_at(problem[MOVED]), instance * n)
        rows = shifted(double_pointer_at(problem[FIRST]), instance * n * p)
        prepared = prepared_for(shifted(problem, SECOND), table, extents, instance, own)
        call_evaluate(problem[SECOND], y, y, table, extents, instance, prepared, scratch, rows)
        call_evaluate(problem[SECOND], moved, moved, table, extents, instance, prepared, scratch, there)
        for j in range(p):
            for i in range(n):
                column[i] = there[i * p + j] - rows[i * p + j]
            null_part(q, rank, n, column, coefficients, part)
            for i in range(n):
                rows[i * p + j] = -(rows[i * p + j] + part[i])
        prepared = prepared_for(shifted(problem, HESSIAN), table, extents, instance, workspace)
        call_evaluate(problem[HESSIAN], y, y, table, extents, instance, prepared, scratch, work)
        solve_damped(integer_pointer_at(problem[LAYOUT]), h, n, doubles(problem)[DAMPING], 0.0, rows, p, space)
    return end


def split_slice() -> Native:
    """The compiled `_split_slice`."""
    return native(_split_slice)


def jacobian_slice() -> Native:
    """The compiled `_jacobian_slice`."""
    return native(_jacobian_slice)
