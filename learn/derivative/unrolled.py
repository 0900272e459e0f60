"""The derivative of iteratively reweighted least squares itself: reverse mode through its steps.

Each reweighting is y' = y - A(y, w)^-1 g(y, w), the minimum over z of the least squares M(z; y, w) whose weights are
computed at y (compiler/passes/irls.py). From grad_z M(y'; y, w) = 0, with a = dl/dy':

    u = -A^-1 a,      dl/dy = d/dy (u . grad_z M),      dl/dw += d/dw (u . grad_z M)        at z = y'

One factorisation and one call of the kernel `reweighting_adjoint` for each step, walked from the last to the first. The
steps are made again from where the minimisation began, to the same bits, unless their points and factors were kept
(`minimise(keep_factors=True)`).

Where the minimiser added to the diagonal of A, or shortened a step (runtime/irls.py), what it added and by how much it
shortened count as constants.

With every step taken it tends to the implicit derivative without damping, as the steps tend to a minimum:
J. C. Gilbert, "Automatic differentiation and iterative processes", Optimization Methods and Software 1, 1992.
"""

from __future__ import annotations

import math
import operator
import struct
import warnings
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...compiler.calls.arrays import address_of
from ...compiler.calls.evaluate import BLOCK, Prepared
from ...compiler.calls.slices import run_slices
from ...compiler.kernel import Kernel
from ...compiler.machine_code.calling import call_evaluate, double_pointer_at, integer_pointer_at, prepared_for, shifted
from ...compiler.machine_code.native import Native, native
from ...compiler.machine_code.signature import DoublePointer, IntegerPointer
from ...energies.errors import InputError
from ...runtime.algebra.blocks import layout_of
from ...runtime.algebra.factorisation import solve, solving_size
from ...runtime.algebra.linear_algebra import dot
from ...runtime.algebra.vectors import copy
from ...runtime.irls import reweight, solve_reweighted, space_for
from ...runtime.kept_factors import HEAD, factors_room, kept_fields, padded, record_room
from ...runtime.solution import Solution
from .blocks import by_instances
from .damped import LEFT_OUT, NOT_FINITE, USED, is_finite
from .idle import idle_members
from .implicit import (
    UnconvergedWarning,
    check_owner,
    not_finite,
    over_members,
    packed_slopes,
    unpacked,
    weights_batched,
)

Floats = NDArray[np.float64]

ALL = 2**62
"""Steps: more than are ever made."""


def unrolled_gradient(
    kernel: Any, solution: Any, loss_gradient: Mapping[str, ArrayLike], *, reweightings: int | None = None
) -> dict[str, Any]:
    """dl/dw through the reweightings that led to a solution of method 'irls', from dl/dy at its end.

    It is the exact derivative of the steps that were made, converged or not; the start counts as a constant
    (`unrolled_start_gradient` is dl/dstart). `implicit_gradient` is the derivative of the minimum.

    Parameters
    ----------
    kernel : Kernel or Output
        What was minimised. Where parts of the energy are held (`wb.held`), the first system is differentiated, too.
    solution : Solution or OutputSolution
        From `minimise(..., method="irls")`.
    loss_gradient : dict of array_like
        As for `implicit_gradient`.
    reweightings : int, optional
        Only the last so many are differentiated; by default all.

    Returns
    -------
    dict like the weights
        Summed over the batch for shared weights, (B, ...) for weights with a batch axis; summed over the members of a
        family; the same bits for any number of threads. Instances whose start, steps or derivative are not finite count
        as 0; that is warned of.

    Raises
    ------
    InputError, InputTypeError, NameMissingError
        For arguments that do not fit; for a solution of another energy or method.

    Examples
    --------
    >>> import sympy as sp, wiberg as wb
    >>> n = sp.Symbol("n", integer=True, positive=True)
    >>> i, x = sp.Idx("i", n), sp.IndexedBase("x", shape=(n,))
    >>> t, s = sp.Symbol("t", real=True), sp.Symbol("s", positive=True)
    >>> energy = wb.Energy(sp.Sum(wb.pseudo_huber((x[i] - t)**2, s), i), variables=[t], weights=[s], data=[x])
    >>> kernel, data = wb.compile(energy, backend="reference"), {"x": [0.0, 0.5, 8.0]}
    >>> for k in (1, 3, 10):
    ...     solution = wb.minimise(kernel, {"s": 1.0}, data, start={"t": 0.0}, method="irls", reweightings=k)
    ...     print(k, round(float(unrolled_gradient(kernel, solution, {"t": 1.0})["s"]), 4))
    1 0.422
    3 0.5052
    10 0.5153
    >>> round(float(wb.implicit_gradient(kernel, solution, {"t": 1.0}, damping=0.0, unconverged="use")["s"]), 4)
    0.5153
    """
    if not isinstance(kernel, Kernel) and hasattr(kernel, "pull"):
        from .output_gradient import output_gradient  # here: most minima are wanted for themselves

        def through(one: Kernel, minima: Solution, slopes: Mapping[str, Any]) -> dict[str, Any]:
            return unrolled_gradient(one, minima, slopes, reweightings=reweightings)

        return output_gradient(kernel, solution, loss_gradient, through, "unrolled_gradient")
    rows, _ = _unrolled(kernel, solution, loss_gradient, reweightings, "unrolled_gradient")
    if weights_batched(kernel, solution.inputs):
        total = over_members(rows, solution.inputs)
    else:
        total = np.zeros(solution.inputs.p)
        for row in rows:
            total += row
    return unpacked(kernel, solution.inputs, total)


def unrolled_start_gradient(
    kernel: Kernel, solution: Solution, loss_gradient: Mapping[str, ArrayLike], *, reweightings: int | None = None
) -> dict[str, Any]:
    """dl/dstart through the reweightings that led to a solution of method 'irls'.

    For a start that depends on weights itself, such as least squares without reweighting. With fewer `reweightings`
    than were made, the derivative in the point before them.

    Parameters
    ----------
    kernel, solution, loss_gradient, reweightings
        As for `unrolled_gradient`.

    Returns
    -------
    dict like `solution.variables`
        0 for instances that are not finite.
    """
    _, slopes = _unrolled(kernel, solution, loss_gradient, reweightings, "unrolled_start_gradient")
    start: dict[str, Any] = kernel.variables.unpack(solution.each(slopes), solution.inputs.sizes)
    return start


# ---------------------------------------------------------------------------------------------- the call


def _unrolled(
    kernel: Kernel, solution: Solution, loss_gradient: Mapping[str, ArrayLike], reweightings: int | None, who: str
) -> tuple[Floats, Floats]:
    """dl/dw, a row for each instance where weights are batched, else for each block; and dl/dstart (B, m)."""
    check_owner(kernel, solution, who)
    if solution.problem.began is None:
        raise InputError(f"{who}: the solution of energy {kernel.name!r} must come from minimise(..., method='irls')")
    kernel.refuse_too_large(solution.inputs)
    last = _checked(reweightings, who)
    slopes = packed_slopes(kernel, solution, loss_gradient, who).copy()
    codes = np.full(len(slopes), USED, dtype=np.int64)
    codes[not_finite(solution) | ~np.isfinite(slopes).all(axis=1)] = NOT_FINITE
    rows, _ = _run(kernel, solution, slopes, codes, last)
    dropped = codes == NOT_FINITE
    if dropped.any():
        slopes[dropped] = 0.0
        first = solution.listed(np.flatnonzero(dropped)[:1])
        warnings.warn(
            f"{who}: {int(dropped.sum())} of {len(codes)} {solution.rows_text} have a start, a step or a derivative "
            f"that is not finite (first: {first}): their gradient is set to 0",
            UnconvergedWarning,
            stacklevel=3,
        )
    return rows, slopes


def _checked(reweightings: Any, who: str) -> int:
    """How many reweightings are differentiated at most."""
    if reweightings is None:
        return ALL
    try:
        count = -1 if isinstance(reweightings, bool) else operator.index(reweightings)
    except TypeError:
        count = -1
    if not 1 <= count < ALL:
        raise InputError(
            f"{who}: reweightings must be an integer >= 1 (got {reweightings!r}); the last so many are differentiated, "
            "all if it is left out"
        )
    return count


def unrolled_blocks(
    kernel: Kernel, solution: Solution, slopes: Floats, codes: NDArray[np.int64], largest: list[float], *, members: int
) -> Floats:
    """What each block of 64 instances adds to dl/dw through all steps, (K, p), as `implicit.damped_blocks`."""
    rows, sizes = _run(kernel, solution, slopes.copy(), codes, ALL)
    largest.append(math.sqrt(sizes.max(initial=0.0)))
    return by_instances(rows, members)


def _run(
    kernel: Kernel, solution: Solution, slopes: Floats, codes: NDArray[np.int64], last: int
) -> tuple[Floats, Floats]:
    """Walk every instance back; slopes becomes dl/dstart, 0 of members that add nothing.

    Returns dl/dw, and the largest |dl/dw|^2 of one instance in each row of it.
    """
    inputs, starts, count = solution.inputs, solution.problem.began, len(slopes)
    idle = idle_members(slopes, inputs)
    if idle is not None:
        idle &= codes == USED
        codes[idle], slopes[idle] = LEFT_OUT, 0.0
    assert starts is not None
    kinds = ["value_gradient_reweighted", "reweighting_adjoint"]
    if kernel.holds:
        kinds += ["value_gradient_first", "first_adjoint"]
    entries = [kernel.entry(kind) for kind in kinds]
    prepared = [Prepared(entry, inputs) for entry in entries]
    scratch, layout = max(entry.needs(inputs)[1] for entry in entries), layout_of(kernel, inputs)
    blocks, each = -(-count // BLOCK), weights_batched(kernel, inputs)
    rows = np.zeros((count if each else blocks, inputs.p))
    sizes = np.zeros(len(rows))
    steps = np.ascontiguousarray(solution.integers[:, 0])
    longest = int(steps.max(initial=0))
    own = solution.y is solution.problem.y
    kept, kept_rows, kept_room = kept_fields(solution.problem.factors if own else None)
    packed = struct.pack(
        f"={FIELDS}q",
        *(number for p in prepared for number in p.fields),
        *((0,) * (TABLE - 4 * len(prepared))),
        inputs.table_address,
        inputs.extents_address,
        inputs.m,
        inputs.p,
        scratch,
        address_of(starts),
        address_of(steps),
        longest,
        last,
        address_of(slopes),
        address_of(codes),
        address_of(rows),
        each,
        count,
        address_of(layout),
        address_of(sizes),
        address_of(solution.y),
        0 if kept is None else address_of(kept),
        kept_rows,
        kept_room,
    )
    numbers = array("q", packed)
    n, p = inputs.m, inputs.p
    workspace = sum(q.own for q in prepared) + scratch + 2 * (n + n * n) + space_for(n) + 5 * n + p
    workspace += (longest + 1) * (n + 1) + (longest * (n * n + n) if kernel.holds else 0)
    key = ("unrolled", entries[1].evaluate.address, inputs.extents.tobytes(), longest)
    run_slices(unrolled_slice(), numbers.buffer_info()[0], blocks, key=key, workspace=workspace)
    for entry in entries:
        if entry.failures:
            raise entry.failures.pop()
    if idle is not None:
        codes[idle] = USED
    return rows, sizes


# ---------------------------------------------------------------------------------------------- compiled

# What the driver reads from its problem: four kernels, each as (address of evaluate, of prepare, of shared prepared
# numbers or 0, how many an instance needs of its own), the last two 0 where nothing is held; addresses and counts.
REWEIGHTED, ADJOINT, FIRST, FIRST_ADJOINT = 0, 4, 8, 12
TABLE, EXTENTS, UNKNOWNS, WEIGHTS, SCRATCH = range(16, 21)
STARTS, STEPS, LONGEST, LAST, SLOPES, CODES, OUT, EACH_ROW, TOTAL, LAYOUT, SIZES = range(21, 32)
ENDS, FACTORS, KEPT, FACTORS_ROOM = range(32, 36)
FIELDS = 36


def make_steps(
    evaluate: int,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    scratch: DoublePointer,
    n: int,
    layout: IntegerPointer,
    steps: int,
    held: bool,
    path: DoublePointer,
    scales: DoublePointer,
    factors: DoublePointer,
    memory: DoublePointer,
) -> None:
    """From path[0] make `steps` reweightings as the minimiser did: the points, and how long each step was.

    Where parts are held, the factors of each step are kept, too: n*n + n numbers each.
    """
    size = n + n * n
    here, there, space = memory, shifted(memory, size), shifted(memory, 2 * size)
    energy = call_evaluate(evaluate, path, path, table, extents, instance, prepared, scratch, here)
    for step in range(steps):
        y = shifted(path, (step + 1) * n)
        for i in range(n):
            y[i] = path[step * n + i]
        if held:  # every step is whole, and nothing is asked of the last point
            newton = space
            solve_reweighted(layout, here, n, shifted(factors, step * (n * n + n)), newton)
            for i in range(n):
                y[i] += newton[i]
            scales[step] = 1.0
            if step + 1 < steps:
                call_evaluate(evaluate, y, y, table, extents, instance, prepared, scratch, here)
            continue
        energy, scale, _ = reweight(
            evaluate, table, extents, instance, prepared, scratch, n, layout, y, energy, here, there, space
        )
        scales[step] = scale
        if scale > 0.0:
            here, there = there, here


def walk_back(
    reweighted: int,
    adjoint: int,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    prepared_adjoint: DoublePointer,
    scratch: DoublePointer,
    n: int,
    layout: IntegerPointer,
    step: int,
    first: int,
    held: bool,
    path: DoublePointer,
    scales: DoublePointer,
    factors: DoublePointer,
    slope: DoublePointer,
    out: DoublePointer,
    memory: DoublePointer,
    records: DoublePointer,
    room: int,
) -> None:
    """From dl/dy after `step` steps in `slope` to that after `first`; dl/dw is added to out + n.

    Where `room` is not 0, `records` of so many numbers have points and factors (kept_factors.py), and steps were whole.
    """
    size = n + n * n
    here, space, newton = memory, shifted(memory, size), shifted(memory, size + space_for(n))
    full, pair = shifted(newton, n), shifted(newton, 2 * n)
    while step > first:
        step -= 1
        y, scale = shifted(path, step * n), scales[step]
        if scale == 0.0:
            continue
        if room > 0:
            copy(shifted(records, step * room + 2 * padded(n)), space, solving_size(layout, n))
            copy(shifted(records, step * room + padded(n)), shifted(space, n * n), n)
        elif held:
            space = shifted(factors, step * (n * n + n))
        else:
            call_evaluate(reweighted, y, y, table, extents, instance, prepared, scratch, here)
            solve_reweighted(layout, here, n, space, newton)
        added = shifted(space, n * n)
        for i in range(n):
            full[i] = y[n + i] if held or room > 0 else y[i] + newton[i]
            pair[i] = -scale * slope[i]
            pair[n + i] = y[i]
            out[i] = 0.0
        solve(layout, space, n, pair)
        call_evaluate(adjoint, full, pair, table, extents, instance, prepared_adjoint, scratch, out)
        for i in range(n):
            slope[i] = (1.0 - scale) * slope[i] + out[i] - added[i] * pair[i]


def back_to_first(
    first: int,
    adjoint: int,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    prepared_adjoint: DoublePointer,
    scratch: DoublePointer,
    n: int,
    layout: IntegerPointer,
    y: DoublePointer,
    slope: DoublePointer,
    out: DoublePointer,
    memory: DoublePointer,
    factors: DoublePointer,
    kept: bool,
) -> None:
    """Add to `out` what dl/dy at y, the minimiser of the first system, is by the weights; its `factors` may be kept."""
    space, u = shifted(memory, n + n * n), shifted(memory, 2 * (n + n * n) + 3 * n)
    if kept:
        copy(factors, space, solving_size(layout, n))
    else:
        call_evaluate(first, y, y, table, extents, instance, prepared, scratch, memory)
        solve_reweighted(layout, memory, n, space, u)
    for i in range(n):
        u[i] = -slope[i]
    solve(layout, space, n, u)
    call_evaluate(adjoint, y, u, table, extents, instance, prepared_adjoint, scratch, out)


def _unrolled_slice(
    problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer
) -> int:
    """For each block of instances in [begin, end): the sum of dl/dw, or a row for each where EACH_ROW is 1.

    STARTS, STEPS      (TOTAL, UNKNOWNS), and the number of reweightings, (TOTAL,), LONGEST at most; the LAST count
    SLOPES             (TOTAL, UNKNOWNS): dl/dy, becomes dl/dstart
    CODES              (TOTAL,): USED, or left out; NOT_FINITE where that comes out
    OUT                (blocks, WEIGHTS) or (TOTAL, WEIGHTS), zeros
    SIZES              (blocks,) or (TOTAL,), zeros: the largest |dl/dw|^2 of an instance
    ENDS               (TOTAL, UNKNOWNS): the last points
    FACTORS            (KEPT, FACTORS_ROOM): what the minimisation has kept (kept_factors.py)
    """
    table, extents = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS])
    n, p, longest = problem[UNKNOWNS], problem[WEIGHTS], problem[LONGEST]
    own_adjoint = shifted(workspace, problem[REWEIGHTED + 3])
    own_first = shifted(own_adjoint, problem[ADJOINT + 3])
    own_first_adjoint = shifted(own_first, problem[FIRST + 3])
    scratch = shifted(own_first_adjoint, problem[FIRST_ADJOINT + 3])
    held, layout = problem[FIRST] != 0, integer_pointer_at(problem[LAYOUT])
    records = HEAD + factors_room(layout, n) if held else HEAD
    path = shifted(scratch, problem[SCRATCH])
    scales = shifted(path, (longest + 1) * n)
    out = shifted(scales, longest)
    factors = shifted(out, n + p)
    memory = shifted(factors, longest * (n * n + n) if held else 0)
    starts, steps = double_pointer_at(problem[STARTS]), integer_pointer_at(problem[STEPS])
    codes = integer_pointer_at(problem[CODES])
    for block in range(begin, end):
        for instance in range(block * BLOCK, min(problem[TOTAL], (block + 1) * BLOCK)):
            if stop[0] != 0:
                return block
            if codes[instance] != USED:
                continue
            slope = shifted(double_pointer_at(problem[SLOPES]), instance * n)
            for i in range(n):
                path[i] = starts[instance * n + i]
            for k in range(n + p):
                out[k] = 0.0
            prepared = prepared_for(shifted(problem, REWEIGHTED), table, extents, instance, workspace)
            prepared_adjoint = prepared_for(shifted(problem, ADJOINT), table, extents, instance, own_adjoint)
            made, room = steps[instance], 0
            kept = shifted(double_pointer_at(problem[FACTORS]), instance * problem[FACTORS_ROOM])
            if instance < problem[KEPT] and kept[0] == 1.0 + made:
                room = record_room(layout, n)
            if room > 0:
                for k in range(made):
                    copy(shifted(kept, records + k * room), shifted(path, k * n), n)
                    scales[k] = 1.0
                copy(shifted(double_pointer_at(problem[ENDS]), instance * n), shifted(path, made * n), n)
            else:
                make_steps(
                    problem[REWEIGHTED],
                    table,
                    extents,
                    instance,
                    prepared,
                    scratch,
                    n,
                    layout,
                    made,
                    held,
                    path,
                    scales,
                    factors,
                    memory,
                )
            walk_back(
                problem[REWEIGHTED],
                problem[ADJOINT],
                table,
                extents,
                instance,
                prepared,
                prepared_adjoint,
                scratch,
                n,
                layout,
                made,
                max(0, made - problem[LAST]),
                held,
                path,
                scales,
                factors,
                slope,
                out,
                memory,
                shifted(kept, records),
                room,
            )
            if held and made <= problem[LAST]:
                prepared = prepared_for(shifted(problem, FIRST), table, extents, instance, own_first)
                prepared_adjoint = prepared_for(
                    shifted(problem, FIRST_ADJOINT), table, extents, instance, own_first_adjoint
                )
                back_to_first(
                    problem[FIRST],
                    problem[FIRST_ADJOINT],
                    table,
                    extents,
                    instance,
                    prepared,
                    prepared_adjoint,
                    scratch,
                    n,
                    layout,
                    path,
                    slope,
                    shifted(out, n),
                    memory,
                    shifted(kept, HEAD),
                    room > 0,
                )
            if not (is_finite(shifted(out, n), p) and is_finite(slope, n)):
                codes[instance] = NOT_FINITE
                continue
            place = instance if problem[EACH_ROW] != 0 else block
            row, sizes = shifted(double_pointer_at(problem[OUT]), place * p), double_pointer_at(problem[SIZES])
            sizes[place] = max(sizes[place], dot(shifted(out, n), shifted(out, n), p))
            for k in range(p):
                row[k] += out[n + k]
    return end


def unrolled_slice() -> Native:
    """The compiled `_unrolled_slice`."""
    return native(_unrolled_slice)
