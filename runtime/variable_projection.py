"""Variable projection: unknowns in which an energy is quadratic are solved out, and the rest is minimised over.

    phi(y) = min over z of E(y, z)        grad phi = E_y,    Hess phi = E_yy - E_yz E_zz^+ E_zy       at z*(y)

For given y, z* is the solution of one linear system, E_zz z* = -E_z(y, 0). `evaluate_eliminated` computes phi and its
derivatives in the calling convention of kernels, so that the loop of descend.py minimises phi as it does any energy. It
calls the kernel twice, at (y, 0) and at (y, z*): phi is a function of y alone, and no earlier point matters, to the
bit. E_zz is made of blocks (arrow.py), factorised one by one (block_factors.py). Where one is singular z* is the
solution of least length; where E falls without end in z, phi is minus infinity, and the instance UNBOUNDED.

At the end everything is that of the joint minimisation again: energy, gradient and lowest eigenvalue of the Hessian in
(y, z). By Haynsworth's formula the Hessian is positive semi-definite where E_zz and Hess phi are, so that a minimum of
phi is one of E, and a saddle one of E.

Golub and Pereyra (1973), SIAM Journal on Numerical Analysis 10; T. Wiberg (1976), for factors of a matrix with missing
entries; Ruhe and Wedin (1980), SIAM Review 22, for the form that is used here, with the full Hessian.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..compiler.calls.arrays import address_of, evaluate
from ..compiler.calls.evaluate import Prepared
from ..compiler.calls.pattern import Pattern
from ..compiler.calls.slices import run_slices
from ..compiler.machine_code.calling import (
    call_evaluate,
    double_pointer_at,
    doubles,
    integer_pointer_at,
    prepared_for,
    shifted,
)
from ..compiler.machine_code.native import Native, native
from ..compiler.machine_code.signature import DoublePointer, IntegerPointer
from ..energies.errors import InputError, UnsupportedError
from .algebra.arrow import Arrow, arrow_of, blocks_of
from .algebra.block_factors import (
    factor_block,
    half_solve,
    lowest_of_arrow,
    mirror,
    solve_block,
    subtract_square,
    whole_number,
    work_for,
)
from .algebra.blocks import NONE
from .algebra.linear_algebra import FLAT, dot, largest, lowest_eigenvector, rotate_back
from .algebra.semidefinite import null_part
from .algebra.trust_region import spectrum
from .algebra.vectors import copy, zero
from .descend import descend
from .eliminate import remembered
from .problem import Problem
from .sparse import COUPLED, is_sparse
from .statuses import CONVERGED, FAR, ITERATION_LIMIT, NOT_FINITE, STALLED, UNBOUNDED

# ---------------------------------------------------------------------------------------------- phi, compiled

# What `evaluate_eliminated` reads in the place of extents: the kernel and its extents; counts; addresses of the arrays
# of an Arrow; where the parts of its memory begin, in numbers; TOLERANCE is a float64.
KERNEL, KERNEL_EXTENTS, UNKNOWNS, KEPT, ELIMINATED, BLOCKS, COUPLING_NUMBERS, BLOCK_NUMBERS, WRITTEN = range(9)
KEPT_AT, ORDER, SIZES, COUPLINGS, COUPLED_AT, STARTS, SOURCES = range(9, 16)
SLOPE, SHORT, NUMBERS, FACTORS, CODES, WORK, OUT, INNER = range(16, 24)
TOLERANCE = 24

# Its memory begins with the point, (m,), and one number: which block is unbounded, counted from 1, or 0.


def gather_sums(
    written: DoublePointer, starts: IntegerPointer, sources: IntegerPointer, first: int, last: int, out: DoublePointer
) -> None:
    """out[e] <- the sum of what a kernel has written at the sources of e, for first <= e < last."""
    for e in range(first, last):
        total = 0.0
        for k in range(starts[e], starts[e + 1]):
            total += written[sources[k]]
        out[e] = total


def gather_eliminated(plan: IntegerPointer, from_all: DoublePointer, out: DoublePointer) -> None:
    """out <- the entries of the eliminated unknowns, block after block."""
    order = integer_pointer_at(plan[ORDER])
    for j in range(plan[ELIMINATED]):
        out[j] = from_all[order[j]]


def add_eliminated(plan: IntegerPointer, z: DoublePointer, joint: DoublePointer) -> None:
    """joint <- joint + z in the eliminated unknowns."""
    order = integer_pointer_at(plan[ORDER])
    for j in range(plan[ELIMINATED]):
        joint[order[j]] += z[j]


def gather_kept(plan: IntegerPointer, from_all: DoublePointer, out: DoublePointer) -> None:
    """out <- the entries of the kept unknowns."""
    kept = integer_pointer_at(plan[KEPT_AT])
    for i in range(plan[KEPT]):
        out[i] = from_all[kept[i]]


def scatter_kept(plan: IntegerPointer, y: DoublePointer, joint: DoublePointer) -> None:
    """Write the kept unknowns to their places."""
    kept = integer_pointer_at(plan[KEPT_AT])
    for i in range(plan[KEPT]):
        joint[kept[i]] = y[i]


def factor_all(plan: IntegerPointer, memory: DoublePointer) -> None:
    """Factorise E_zz block by block; z <- -E_zz^+ E_z(y, 0) in SHORT, or the unbounded block is marked."""
    sizes, codes = integer_pointer_at(plan[SIZES]), shifted(memory, plan[CODES])
    blocks, mark = shifted(memory, plan[NUMBERS] + plan[KEPT] * plan[KEPT] + plan[COUPLING_NUMBERS]), plan[UNKNOWNS]
    work = shifted(memory, plan[WORK])
    tolerance = doubles(plan)[TOLERANCE]
    memory[mark] = 0.0
    at, a = 0, 0
    for block in range(plan[BLOCKS]):
        n, own = sizes[block], shifted(blocks, a)
        slope, z = shifted(memory, plan[SLOPE] + at), shifted(memory, plan[SHORT] + at)
        factor = shifted(memory, plan[FACTORS] + 2 * a)
        code = factor_block(own, n, factor, work)
        codes[block] = 1.0 * code
        if code < 0:
            if memory[mark] == 0.0:
                memory[mark] = 1.0 + block
        else:
            copy(slope, z, n)
            solve_block(factor, codes[block], n, z, work)
            for j in range(n):
                z[j] = -z[j]
            if code < n:
                null_part(factor, code, n, slope, work, shifted(work, n))
                left = largest(shifted(work, n), n)
                size = math.sqrt(dot(own, own, n * n)) * largest(z, n) + largest(slope, n)
                if left > tolerance and left > FLAT * size and memory[mark] == 0.0:
                    memory[mark] = 1.0 + block
        at += n
        a += n * n


def reduce_all(plan: IntegerPointer, memory: DoublePointer, hessian: DoublePointer) -> None:
    """hessian <- E_yy - E_yz E_zz^+ E_zy."""
    sizes, couplings = integer_pointer_at(plan[SIZES]), integer_pointer_at(plan[COUPLINGS])
    coupled, codes, k = integer_pointer_at(plan[COUPLED_AT]), shifted(memory, plan[CODES]), plan[KEPT]
    coupling, work = shifted(memory, plan[NUMBERS] + k * k), shifted(memory, plan[WORK])
    copy(shifted(memory, plan[NUMBERS]), hessian, k * k)
    met, c, a = 0, 0, 0
    for block in range(plan[BLOCKS]):
        n, count = sizes[block], couplings[block]
        factor = shifted(memory, plan[FACTORS] + 2 * a)
        rows = half_solve(factor, codes[block], n, shifted(coupling, c), count, work)
        subtract_square(work, rows, shifted(coupled, met), count, hessian, k, shifted(work, n * count))
        met += count
        c += n * count
        a += n * n
    mirror(hessian, k)


def evaluate_eliminated(
    y: DoublePointer,
    v: DoublePointer,
    table: IntegerPointer,
    plan: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    memory: DoublePointer,
    out: DoublePointer,
) -> float:
    """phi at y, its gradient and Hessian to `out`; the point (y, z*) is left in `memory`.

    Where phi is not finite `out` is 0; where it is minus infinity, z is 0 and the first block at fault is marked.
    """
    m, k = plan[UNKNOWNS], plan[KEPT]
    joint, written, short = memory, shifted(memory, plan[OUT]), shifted(memory, plan[SHORT])
    slope, numbers = shifted(memory, plan[SLOPE]), shifted(memory, plan[NUMBERS])
    starts, sources = integer_pointer_at(plan[STARTS]), integer_pointer_at(plan[SOURCES])
    kernel, extents, inner = plan[KERNEL], integer_pointer_at(plan[KERNEL_EXTENTS]), shifted(memory, plan[INNER])
    middle = k * k + plan[COUPLING_NUMBERS]
    zero(out, k + k * k)
    zero(joint, m + 1)
    scatter_kept(plan, y, joint)
    energy = call_evaluate(kernel, joint, joint, table, extents, instance, prepared, inner, written)
    if not (energy < math.inf and dot(written, written, plan[WRITTEN]) < math.inf):
        return math.nan if energy > -math.inf else energy
    gather_sums(written, starts, sources, middle, middle + plan[BLOCK_NUMBERS], numbers)
    gather_eliminated(plan, written, slope)
    factor_all(plan, memory)
    if joint[m] > 0.0:
        return -math.inf
    add_eliminated(plan, short, joint)
    energy = call_evaluate(kernel, joint, joint, table, extents, instance, prepared, inner, written)
    if not (energy < math.inf and dot(written, written, plan[WRITTEN]) < math.inf):
        return math.nan if energy > -math.inf else energy
    gather_sums(written, starts, sources, 0, middle, numbers)
    gather_kept(plan, written, out)
    reduce_all(plan, memory, shifted(out, k))
    return energy


# ---------------------------------------------------------------------------------------------- the end, compiled


def fall(plan: IntegerPointer, memory: DoublePointer) -> None:
    """Move z far along a direction in which E falls without end: of the marked block, from (y, 0)."""
    sizes, joint = integer_pointer_at(plan[SIZES]), memory
    work = shifted(memory, plan[WORK])
    numbers = shifted(memory, plan[NUMBERS] + plan[KEPT] * plan[KEPT] + plan[COUPLING_NUMBERS])
    marked = whole_number(joint[plan[UNKNOWNS]]) - 1
    at, a = 0, 0
    for block in range(marked):
        at += sizes[block]
        a += sizes[block] * sizes[block]
    n, own, slope = sizes[marked], shifted(numbers, a), shifted(memory, plan[SLOPE] + at)
    code = whole_number(shifted(memory, plan[CODES])[marked])
    way = shifted(memory, plan[SHORT])
    zero(way, plan[ELIMINATED])
    way = shifted(way, at)
    if code < 0:
        lowest, bound = spectrum(own, n, work)
        if n == 1:
            way[0] = 1.0
        else:
            ends = shifted(work, n * n + 5 * n)
            lowest_eigenvector(
                shifted(work, n * n), shifted(work, n * n + n), n, lowest, bound, way, ends, shifted(ends, n)
            )
            rotate_back(work, n, shifted(work, n * n + 2 * n), way)
        if dot(slope, way, n) < 0.0:
            for j in range(n):
                way[j] = -way[j]
    else:
        null_part(shifted(memory, plan[FACTORS] + 2 * a), code, n, slope, work, way)
    length = -2.0 * FAR * (1.0 + largest(joint, plan[UNKNOWNS])) / largest(way, n)
    for j in range(n):
        way[j] *= length
    add_eliminated(plan, shifted(memory, plan[SHORT]), joint)


def finish(
    evaluator: int,
    table: IntegerPointer,
    plan: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    memory: DoublePointer,
    y: DoublePointer,
    space: DoublePointer,
    max_iterations: int,
    reals: DoublePointer,
    integers: IntegerPointer,
) -> None:
    """From the minimum y of phi to that of E: the point to `memory`, and what there is to say of it."""
    m, k = plan[UNKNOWNS], plan[KEPT]
    joint, written, inner = memory, shifted(memory, plan[OUT]), shifted(memory, plan[INNER])
    status, iterations = integers[2], integers[0]
    call_evaluate(evaluator, y, y, table, plan, instance, prepared, memory, space)
    if joint[m] > 0.0:
        status = ITERATION_LIMIT
        if max_iterations > 0:
            fall(plan, memory)
            status = UNBOUNDED
            iterations = max(1, iterations)
            extents = integer_pointer_at(plan[KERNEL_EXTENTS])
            call_evaluate(plan[KERNEL], joint, joint, table, extents, instance, prepared, inner, written)
    norm = largest(written, m)
    if status == CONVERGED and not norm <= doubles(plan)[TOLERANCE]:
        status = STALLED
    reals[0], reals[1] = norm, math.nan
    if dot(written, written, plan[WRITTEN]) < math.inf:
        numbers, middle = shifted(memory, plan[NUMBERS]), k * k + plan[COUPLING_NUMBERS]
        gather_sums(
            written,
            integer_pointer_at(plan[STARTS]),
            integer_pointer_at(plan[SOURCES]),
            0,
            middle + plan[BLOCK_NUMBERS],
            numbers,
        )
        reals[1] = lowest_of_arrow(
            numbers,
            shifted(numbers, k * k),
            shifted(numbers, middle),
            k,
            plan[BLOCKS],
            integer_pointer_at(plan[SIZES]),
            integer_pointer_at(plan[COUPLINGS]),
            integer_pointer_at(plan[COUPLED_AT]),
            shifted(memory, plan[FACTORS]),
            shifted(memory, plan[WORK]),
            space,
        )
    integers[0], integers[1], integers[2] = iterations, 2 * integers[1] + 2, status


# What `eliminated_slice` reads from its problem: two kernels as in descend.py, derivatives and value; then addresses
# and sizes. Instance FIRST is the first one; BLOCKLESS is the layout of no blocks (runtime/algebra/blocks.py).
DERIVATIVES, VALUE = 0, 4
TABLE, PLAN, EVALUATOR, MEMORY, SCRATCH = range(8, 13)
VARIABLES, CANDIDATES, CANDIDATES_STRIDE, COUNT, ENERGIES, REALS, INTEGERS, MAX_ITERATIONS, FIRST, BLOCKLESS = range(
    13, 23
)
FIELDS = 23


def _eliminated_slice(
    problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer
) -> int:
    """Minimise the instances [begin, end) counted from FIRST; where it ended.

    VARIABLES has the starts, unless there are COUNT candidates: then each instance starts from that of lowest phi. Of
    both only the kept unknowns are read, and the others kept where nothing can be minimised.
    """
    table, plan, evaluator = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[PLAN]), problem[EVALUATOR]
    extents = integer_pointer_at(plan[KERNEL_EXTENTS])
    m, k, count, gtol = plan[UNKNOWNS], plan[KEPT], problem[COUNT], doubles(plan)[TOLERANCE]
    own_value = shifted(workspace, problem[DERIVATIVES + 3])
    memory = shifted(own_value, problem[VALUE + 3])
    scratch = shifted(memory, problem[MEMORY])
    y = shifted(scratch, problem[SCRATCH])
    space = shifted(y, k)
    for place in range(begin, end):
        if stop[0] != 0:
            return place
        instance = problem[FIRST] + place
        point = shifted(double_pointer_at(problem[VARIABLES]), instance * m)
        reals = shifted(double_pointer_at(problem[REALS]), instance * 2)
        integers = shifted(integer_pointer_at(problem[INTEGERS]), instance * 3)
        prepared = prepared_for(shifted(problem, DERIVATIVES), table, extents, instance, workspace)
        if count > 0:
            seeds = shifted(double_pointer_at(problem[CANDIDATES]), instance * problem[CANDIDATES_STRIDE])
            best, lowest = 0, math.inf
            for candidate in range(count):
                gather_kept(plan, shifted(seeds, candidate * m), y)
                energy = call_evaluate(evaluator, y, y, table, plan, instance, prepared, memory, space)
                if -math.inf < energy < lowest:
                    best, lowest = candidate, energy
            copy(shifted(seeds, best * m), point, m)
        gather_kept(plan, point, y)
        descend(
            evaluator,
            table,
            plan,
            instance,
            prepared,
            memory,
            k,
            integer_pointer_at(problem[BLOCKLESS]),
            y,
            space,
            gtol,
            problem[MAX_ITERATIONS],
            reals,
            integers,
        )
        if integers[2] == NOT_FINITE:
            integers[1] *= 2
        else:
            finish(
                evaluator,
                table,
                plan,
                instance,
                prepared,
                memory,
                y,
                space,
                problem[MAX_ITERATIONS],
                reals,
                integers,
            )
            copy(memory, point, m)
        if count > 0:
            integers[1] += 1
        prepared = prepared_for(shifted(problem, VALUE), table, extents, instance, own_value)
        energies = double_pointer_at(problem[ENERGIES])
        energies[instance] = call_evaluate(
            problem[VALUE], point, point, table, extents, instance, prepared, scratch, space
        )
    return end


def eliminated_slice() -> Native:
    """The compiled `_eliminated_slice`."""
    return native(_eliminated_slice)


# ---------------------------------------------------------------------------------------------- the call


def minimise_eliminated(problem: Problem) -> None:
    """Minimise every instance of a batch, as `problem.Problem` says."""
    points = None
    if problem.seeds is not None:
        points = np.ascontiguousarray(problem.candidates(problem.seeds))
    for layout, some in _layouts(problem):
        _run(problem, layout, some, points)


@dataclass(frozen=True, eq=False)
class _Layout:
    """What all calls of one kernel, with the same extents and pattern, have in common.

    entries     the kernel's derivatives, and its value
    numbers     what `evaluate_eliminated` reads, but for the address of the extents, 0, and gtol
    arrow       keeps the arrays whose addresses are in `numbers`
    memory      numbers that `evaluate_eliminated` needs; `workspace` with all else but prepared numbers
    """

    entries: tuple[Any, Any]
    numbers: tuple[int, ...]
    arrow: Arrow
    memory: int
    scratch: int
    workspace: int
    key: Hashable


def _layouts(problem: Problem) -> list[tuple[_Layout, range]]:
    """The layout of some instances each: one for all, unless index data have a batch axis."""
    kernel, inputs, everyone = problem.kernel, problem.inputs, range(len(problem.y))
    key = ("layout", problem.eliminate, inputs.extents.tobytes())
    if not kernel.declaration.gathered:  # index data are what patterns depend on, besides extents
        return [(remembered(kernel, key, lambda: _layout(problem, _patterns(problem, everyone)[0][0])), everyone)]
    return [
        (remembered(kernel, (*key, pattern), partial(_layout, problem, pattern)), some)
        for pattern, some in _patterns(problem, everyone)
    ]


def _patterns(problem: Problem, instances: range) -> list[tuple[Pattern | None, range]]:
    kernel, inputs = problem.kernel, problem.inputs
    if not is_sparse(kernel, inputs):
        kernel.refuse_too_large(inputs)
    find = partial(kernel.patterns, "hessian") if is_sparse(kernel, inputs) else kernel.dense_patterns
    found: list[tuple[Pattern | None, range]] = find(inputs, instances)
    return found


def _layout(problem: Problem, pattern: Pattern | None) -> _Layout:
    kernel, inputs, slots = problem.kernel, problem.inputs, is_sparse(problem.kernel, problem.inputs)
    chosen, begin = np.zeros(inputs.m, np.bool_), 0
    for symbol in kernel.declaration.variables:
        size = math.prod(int(evaluate(n, inputs.sizes)) for n in symbol.axes)
        chosen[begin : begin + size] = symbol.name in problem.eliminate
        begin += size
    kept, blocks = int(inputs.m - np.count_nonzero(chosen)), blocks_of(chosen, pattern)
    _refuse_many(problem, kept, max(map(len, blocks), default=0))
    arrow = arrow_of(chosen, blocks, pattern, slots=slots)
    entries = (
        kernel.entry("value_gradient_sparse_hessian" if slots else "value_gradient_hessian"),
        kernel.entry("value"),
    )
    _, inner, written = entries[0].needs(inputs)
    scratch = entries[1].needs(inputs)[1]
    parts = (
        inputs.m + 1,
        len(arrow.order),
        len(arrow.order),
        kept**2 + arrow.coupling_numbers + arrow.block_numbers,
        2 * arrow.block_numbers,
        len(arrow.sizes),
        work_for(int(arrow.sizes.max(initial=1)), int(arrow.couplings.max(initial=0))),
        written,
        inner,
    )
    *places, memory = map(int, np.cumsum(parts))
    arrays = (arrow.kept, arrow.order, arrow.sizes, arrow.couplings, arrow.coupled, arrow.starts, arrow.sources)
    counts = inputs.m, kept, len(arrow.order), len(arrow.sizes), arrow.coupling_numbers, arrow.block_numbers, written
    numbers = (entries[0].evaluate.address, 0, *counts, *map(address_of, arrays), *places)
    key = ("eliminate", entries[0].evaluate.address, inputs.extents.tobytes(), problem.eliminate)
    return _Layout(entries, numbers, arrow, memory, scratch, memory + scratch + 3 * kept**2 + 15 * kept + 1, key)


def _refuse_many(problem: Problem, kept: int, block: int) -> None:
    """Raise where what has to be factorised is large, and dense."""
    name, chosen = problem.kernel.name, ", ".join(problem.eliminate)
    instead = "leave out eliminate= (large sparse Hessians are never factorised), or use method='newton-cg' without it"
    if kept == 0:
        raise InputError(f"minimise: energy {name!r}: eliminate=[{chosen}] leaves no unknowns for these extents")
    if kept > COUPLED:
        raise UnsupportedError(
            f"minimise: energy {name!r}: eliminate=[{chosen}] leaves {kept} unknowns, which it couples all with each "
            f"other; it is for up to {COUPLED}: {instead}"
        )
    if block > COUPLED:
        raise UnsupportedError(
            f"minimise: energy {name!r}: {block} unknowns of eliminate=[{chosen}] are coupled with each other for "
            f"fixed other variables, and would be factorised as one dense block; it is for up to {COUPLED}: {instead}"
        )


def _run(problem: Problem, layout: _Layout, some: range, points: Any) -> None:
    """Minimise some instances that have one layout."""
    inputs = problem.inputs
    prepared = [Prepared(entry, inputs) for entry in layout.entries]
    plan = array("q", struct.pack(f"={TOLERANCE}qd", *layout.numbers, problem.gtol))
    plan[KERNEL_EXTENTS] = inputs.extents_address
    fields = array(
        "q",
        (
            *(number for each in prepared for number in each.fields),
            inputs.table_address,
            plan.buffer_info()[0],
            native(evaluate_eliminated).address,
            layout.memory,
            layout.scratch,
            address_of(problem.y),
            0 if points is None else address_of(points),
            points[0].size if points is not None and points.ndim == 3 else 0,
            0 if points is None else points.shape[-2],
            address_of(problem.energies),
            address_of(problem.reals),
            address_of(problem.integers),
            problem.max_iterations,
            some.start,
            address_of(NONE),
        ),
    )
    run_slices(
        eliminated_slice(),
        fields.buffer_info()[0],
        len(some),
        key=layout.key,
        workspace=sum(p.own for p in prepared) + layout.workspace,
    )
    for entry in layout.entries:
        if entry.failures:
            raise entry.failures.pop()
