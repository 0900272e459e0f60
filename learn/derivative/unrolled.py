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
from ...runtime.algebra.factorisation import solve_apart, solving_size
from ...runtime.algebra.linear_algebra import dot
from ...runtime.algebra.vectors import copy, move, zero
from ...runtime.irls import factor_first, first_room, reweight, solve_reweighted, space_for
from ...runtime.kept_factors import HEAD, factors_room, kept_fields, padded, record_room
from ...runtime.solution import Solution
from ...runtime.systems import shared_systems
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
    rows, sizes = _run(kernel, solution, slopes.copy(), codes, ALL, sized=True)
    largest.append(math.sqrt(sizes.max(initial=0.0)))
    return by_instances(rows, members)


def _run(
    kernel: Kernel, solution: Solution, slopes: Floats, codes: NDArray[np.int64], last: int, *, sized: bool = False
) -> tuple[Floats, Floats]:
    """Walk every instance back; slopes becomes dl/dstart, 0 of members that add nothing.

    Returns dl/dw, and `sized` the largest |dl/dw|^2 of one instance in each row of it.
    """
    inputs, starts, count = solution.inputs, solution.problem.began, len(slopes)
    idle = idle_members(slopes, inputs)
    if idle is not None:
        idle &= codes == USED
        codes[idle], slopes[idle] = LEFT_OUT, 0.0
    assert starts is not None
    kinds = ["value_gradient_reweighted", "reweighting_adjoint"]
    if kernel.holds:
        kinds += ["hessian_first", "first_adjoint"]
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
    first = _shared_first(kernel, inputs, count, layout) if kernel.holds else ()
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
        address_of(sizes) if sized else 0,
        address_of(solution.y),
        0 if kept is None else address_of(kept),
        kept_rows,
        kept_room,
        *(map(address_of, first) if first else (0, 0, 0)),
        first[-1].shape[1] if first else 0,
    )
    numbers = array("q", packed)
    n, p = inputs.m, inputs.p
    if first:
        room = prepared[2].own + scratch + first_room(n) + n * n
        key = ("first factors", entries[2].evaluate.address, inputs.extents.tobytes())
        run_slices(factor_slice(), numbers.buffer_info()[0], len(first[1]), key=key, workspace=room)
    workspace = sum(q.own for q in prepared) + scratch + 2 * (n + n * n) + space_for(n) + 5 * n + 2 * p
    workspace += (1 + BLOCK) * n
    workspace += (longest + 1) * (n + 1) + (longest * (n * n + n) if kernel.holds else 0)
    steps_key = ("unrolled", entries[1].evaluate.address, inputs.extents.tobytes(), longest)
    run_slices(unrolled_slice(), numbers.buffer_info()[0], blocks, key=steps_key, workspace=workspace)
    for entry in entries:
        if entry.failures:
            raise entry.failures.pop()
    if idle is not None:
        codes[idle] = USED
    return rows, sizes


def _shared_first(kernel: Kernel, inputs: Any, rows: int, layout: Any) -> tuple[Any, ...]:
    """Where rows share the first system: which one each has, an owner of each, and room for factors."""
    systems = shared_systems(kernel, kernel.entry("hessian_first"), inputs, rows)
    if systems is None:
        return ()
    number, owners = np.empty(rows, np.int64), np.empty(systems.count, np.int64)
    number[systems.order], owners[systems.number] = systems.number, systems.order
    return number, owners, np.empty((systems.count, factors_room(layout, inputs.m)))


# ---------------------------------------------------------------------------------------------- compiled

# What the driver reads from its problem: four kernels, each as (address of evaluate, of prepare, of shared prepared
# numbers or 0, how many an instance needs of its own), the last two 0 where nothing is held; addresses and counts.
REWEIGHTED, ADJOINT, FIRST, FIRST_ADJOINT = 0, 4, 8, 12
TABLE, EXTENTS, UNKNOWNS, WEIGHTS, SCRATCH = range(16, 21)
STARTS, STEPS, LONGEST, LAST, SLOPES, CODES, OUT, EACH_ROW, TOTAL, LAYOUT, SIZES = range(21, 32)
ENDS, FACTORS, KEPT, FACTORS_ROOM, SYSTEMS, OWNERS, FIRST_FACTORS, FIRST_ROOM = range(32, 40)
FIELDS = 40


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
        u, added = space, shifted(space, n * n)
        if room > 0:
            u, added = shifted(records, step * room + 2 * padded(n)), shifted(records, step * room + padded(n))
        elif held:
            u, added = shifted(factors, step * (n * n + n)), shifted(factors, step * (n * n + n) + n * n)
        else:
            call_evaluate(reweighted, y, y, table, extents, instance, prepared, scratch, here)
            solve_reweighted(layout, here, n, space, newton)
        for i in range(n):
            full[i] = y[n + i] if held or room > 0 else y[i] + newton[i]
            pair[i] = -scale * slope[i]
            pair[n + i] = y[i]
            out[i] = 0.0
        solve_apart(layout, u, n, pair, here)
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
    known: bool,
) -> None:
    """Add to `out` what dl/dy at y, the minimiser of the first system, is by the weights; its factors may be known."""
    space, direction = shifted(memory, n + n * n), shifted(memory, 2 * (n + n * n) + 3 * n)
    u, found = factors, True
    if not known:
        u = space
        found = factor_first(first, table, extents, instance, prepared, scratch, n, layout, y, u, memory)
    for i in range(n):
        direction[i] = -slope[i] if found else math.nan
    solve_apart(layout, u, n, direction, memory)
    call_evaluate(adjoint, y, direction, table, extents, instance, prepared_adjoint, scratch, out)


def _factor_slice(problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer) -> int:
    """Factors of the first systems [begin, end), FIRST_ROOM numbers each at FIRST_FACTORS; NaN where there are none.

    OWNERS   of each system an instance that has it
    """
    table, extents, n = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS]), problem[UNKNOWNS]
    layout, owners = integer_pointer_at(problem[LAYOUT]), integer_pointer_at(problem[OWNERS])
    scratch = shifted(workspace, problem[FIRST + 3])
    space = shifted(scratch, problem[SCRATCH])
    memory, y = shifted(space, first_room(n)), double_pointer_at(problem[STARTS])
    for system in range(begin, end):
        if stop[0] != 0:
            return system
        prepared = prepared_for(shifted(problem, FIRST), table, extents, owners[system], workspace)
        kept = shifted(double_pointer_at(problem[FIRST_FACTORS]), system * problem[FIRST_ROOM])
        found = factor_first(
            problem[FIRST], table, extents, owners[system], prepared, scratch, n, layout, y, space, memory
        )
        copy(space, kept, solving_size(layout, n))
        for i in range(0 if found else solving_size(layout, n)):
            kept[i] = math.nan
    return end


def _unrolled_slice(
    problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer
) -> int:
    """For each block of instances in [begin, end): the sum of dl/dw, or a row for each where EACH_ROW is 1.

    STARTS, STEPS      (TOTAL, UNKNOWNS), and the number of reweightings, (TOTAL,), LONGEST at most; the LAST count
    SLOPES             (TOTAL, UNKNOWNS): dl/dy, becomes dl/dstart
    CODES              (TOTAL,): USED, or left out; NOT_FINITE where that comes out
    OUT                (blocks, WEIGHTS) or (TOTAL, WEIGHTS), zeros
    SIZES              (blocks,) or (TOTAL,), zeros: the largest |dl/dw|^2 of an instance; or none
    ENDS               (TOTAL, UNKNOWNS): the last points
    FACTORS            (KEPT, FACTORS_ROOM): what the minimisation has kept (kept_factors.py)
    SYSTEMS            (TOTAL,): which of FIRST_FACTORS an instance has; 0 where none are shared
    """
    table, extents = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS])
    n, p, longest = problem[UNKNOWNS], problem[WEIGHTS], problem[LONGEST]
    own_adjoint = shifted(workspace, problem[REWEIGHTED + 3])
    own_first = shifted(own_adjoint, problem[ADJOINT + 3])
    own_first_adjoint = shifted(own_first, problem[FIRST + 3])
    scratch = shifted(own_first_adjoint, problem[FIRST_ADJOINT + 3])
    held, layout = problem[FIRST] != 0, integer_pointer_at(problem[LAYOUT])
    systems = integer_pointer_at(problem[SYSTEMS])
    records = HEAD + factors_room(layout, n) if held and problem[SYSTEMS] == 0 else HEAD
    path = shifted(scratch, problem[SCRATCH])
    scales = shifted(path, (longest + 1) * n)
    out = shifted(scales, longest)
    total = shifted(out, n + p)
    before = shifted(total, n + p)
    factors = shifted(before, BLOCK * n)
    memory = shifted(factors, longest * (n * n + n) if held else 0)
    apart = problem[EACH_ROW] != 0 or problem[SIZES] != 0  # else instances are added where they are computed
    starts, steps = double_pointer_at(problem[STARTS]), integer_pointer_at(problem[STEPS])
    codes = integer_pointer_at(problem[CODES])
    for block in range(begin, end):
        first, last = block * BLOCK, min(problem[TOTAL], (block + 1) * BLOCK)
        slopes, row = shifted(double_pointer_at(problem[SLOPES]), first * n), double_pointer_at(problem[OUT])
        looking, finite = apart, True
        zero(out, n + p)
        zero(total, n + p)
        copy(slopes, before, (last - first) * n)
        while True:
            for instance in range(first, last):
                if stop[0] != 0:
                    return block
                if codes[instance] != USED:
                    continue
                own = out if looking else total
                slope = shifted(double_pointer_at(problem[SLOPES]), instance * n)
                for i in range(n):
                    path[i] = starts[instance * n + i]
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
                    own,
                    memory,
                    shifted(kept, records),
                    room,
                )
                first_factors = shifted(kept, HEAD)
                if problem[SYSTEMS] != 0:
                    shared = double_pointer_at(problem[FIRST_FACTORS])
                    first_factors = shifted(shared, systems[instance] * problem[FIRST_ROOM])
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
                        shifted(own, n),
                        memory,
                        first_factors,
                        room > 0 or problem[SYSTEMS] != 0,
                    )
                if not looking:
                    finite = finite and is_finite(slope, n)
                    continue
                if not (is_finite(shifted(own, n), p) and is_finite(slope, n)):
                    codes[instance] = NOT_FINITE
                    zero(own, n + p)
                    continue
                place = instance if problem[EACH_ROW] != 0 else block
                if problem[SIZES] != 0:
                    sizes = double_pointer_at(problem[SIZES])
                    sizes[place] = max(sizes[place], dot(shifted(own, n), shifted(own, n), p))
                move(shifted(own, n), shifted(row, place * p), p)
            if looking:
                break
            if finite and is_finite(shifted(total, n), p):
                copy(shifted(total, n), shifted(row, block * p), p)
                break
            copy(before, slopes, (last - first) * n)
            looking = True
    return end


def factor_slice() -> Native:
    """The compiled `_factor_slice`."""
    return native(_factor_slice)


def unrolled_slice() -> Native:
    """The compiled `_unrolled_slice`."""
    return native(_unrolled_slice)
