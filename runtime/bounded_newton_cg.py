"""Newton's method within a box for many unknowns with a sparse Hessian: bounded.py by conjugate gradients.

The model is lowered face by face as there, but for how a face is searched: by preconditioned conjugate gradients on the
free variables, up to the trust region or a direction of no positive curvature, as in newton_cg.py. The numbers of the
Hessian (slots) that belong to a row or column of a held variable are set to 0 in a copy; conjugate gradients whose
right-hand side is 0 there then stay on the face (`hold_slots`). A face is left when its residual is as small as
newton_cg.py asks for. A refused step is shortened along its line, which stays in the box.

Negative curvature at the end is looked for by curvature.py among the free variables, together with those at a bound
whose multipliers are within gtol. It is followed both ways, projected. If neither way leads down, the latter count as
held, and the rest is asked again.
"""

from __future__ import annotations

import math
import struct
from array import array
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ..compiler.arrays import address_of
from ..compiler.calling import call_evaluate, double_pointer_at, doubles, integer_pointer_at, shifted
from ..compiler.evaluate import Prepared, run, run_one
from ..compiler.native import Native, native
from ..compiler.pattern import Pattern
from ..compiler.signature import DoublePointer, IntegerPointer, streaming
from ..compiler.slices import run_slices
from . import vectors
from .bounded import (
    ENOUGH,
    SAME,
    follow,
    hold_stopped,
    is_held,
    is_unsettled,
    mark_active,
    measure_box,
    project_gradient,
    stop_short,
    take_bounded_step,
)
from .conjugate_gradients import conjugate_gradients, precondition, system_of
from .curvature import Curvature, curvature
from .descend import (
    ABYSS,
    CONVERGED,
    DOUBTFUL,
    FAR,
    HOPELESS,
    ITERATION_LIMIT,
    NOT_FINITE,
    ROUNDING,
    SADDLE,
    STALLED,
    UNBOUNDED,
    first_radius,
    is_accepted,
    next_radius,
    prepared_for,
    shorter,
)
from .linear_algebra import largest
from .problem import Problem

Floats = NDArray[np.float64]

FACES = 20
"""Faces that are searched for one step."""


# ---------------------------------------------------------------------------------------------- held slots


class Ends:
    """Row and column of the entry that each slot belongs to, (size,) int64; 0 for slots that belong to none."""

    def __init__(self, pattern: Pattern, size: int) -> None:
        rows = np.repeat(np.arange(pattern.shape[0]), np.diff(pattern.indptr))
        columns = np.asarray(pattern.indices, np.int64)
        if pattern.starts is not None:
            counts = np.diff(pattern.starts)
            rows, columns = np.repeat(rows, counts), np.repeat(columns, counts)
        self.rows, self.columns = np.zeros((2, size), np.int64)
        self.rows[pattern.sources] = np.minimum(rows, columns)  # the same for both halves
        self.columns[pattern.sources] = np.maximum(rows, columns)

    @property
    def addresses(self) -> tuple[int, int]:
        return address_of(self.rows), address_of(self.columns)


_ends: WeakKeyDictionary[Pattern, Ends] = WeakKeyDictionary()


def ends_of(pattern: Pattern, size: int) -> Ends:
    """The ends of the slots of a pattern, made when they are first asked for."""
    found = _ends.get(pattern)
    if found is None:
        found = _ends[pattern] = Ends(pattern, size)
    return found


@streaming
def hold_slots(
    slots: DoublePointer,
    rows: IntegerPointer,
    columns: IntegerPointer,
    free: DoublePointer,
    size: int,
    out: DoublePointer,
) -> None:
    """out <- the slots, 0 for those in a row or column of a variable that is not free (1.0, else 0.0)."""
    for k in range(size):
        out[k] = slots[k] * free[rows[k]] * free[columns[k]]


# ---------------------------------------------------------------------------------------------- the model


@streaming
def _finish_model(g: DoublePointer, s: DoublePointer, r: DoublePointer, n: int) -> float:
    """r <- g + r for r = Hs; returns g's + s'Hs/2."""
    change = 0.0
    for i in range(n):
        change += s[i] * (g[i] + 0.5 * r[i])
        r[i] += g[i]
    return change


def model_of_slots(
    product: int,
    slots: DoublePointer,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    scratch: DoublePointer,
    g: DoublePointer,
    s: DoublePointer,
    n: int,
    r: DoublePointer,
) -> float:
    """r <- g + Hs, the gradient of the model at s; returns its change g's + s'Hs/2."""
    call_evaluate(product, slots, s, table, extents, instance, prepared, scratch, r)
    return _finish_model(g, s, r, n)


def cauchy_step_of_slots(
    product: int,
    slots: DoublePointer,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    scratch: DoublePointer,
    g: DoublePointer,
    below: DoublePointer,
    above: DoublePointer,
    n: int,
    longest: float,
    fallback: float,
    s: DoublePointer,
    r: DoublePointer,
) -> float:
    """s <- a point of sufficient decrease of the model on the path P(y - t g); returns the model's change.

    The path is begun at most `longest` from y; `fallback` from it where that and the model leave it open.
    """
    for i in range(n):
        s[i] = 0.0 if is_held(g[i], below[i], above[i], 0.0) else -g[i]
    squares = vectors.dot(s, s, n)
    call_evaluate(product, slots, s, table, extents, instance, prepared, scratch, r)
    curved = vectors.dot(s, r, n)
    t = longest / math.sqrt(squares)
    if curved > 0.0:
        t = min(t, squares / curved)
    if not t < math.inf:
        t = fallback / math.sqrt(squares)
    for _ in range(60):
        for i in range(n):
            s[i] = min(max(-t * g[i], below[i]), above[i])
        change = model_of_slots(product, slots, table, extents, instance, prepared, scratch, g, s, n, r)
        if change <= ENOUGH * vectors.dot(g, s, n):
            return change
        t *= 0.25
    vectors.zero(s, n)
    return 0.0


FACE_VECTORS = 10
"""Vectors of n numbers that `descend_faces_of_slots` works with."""


def descend_faces_of_slots(
    system: IntegerPointer,
    rows: IntegerPointer,
    columns: IntegerPointer,
    product: int,
    slots: DoublePointer,
    held: DoublePointer,
    size: int,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    scratch: DoublePointer,
    g: DoublePointer,
    below: DoublePointer,
    above: DoublePointer,
    n: int,
    radius: float,
    fallback: float,
    enough: float,
    s: DoublePointer,
    memory: DoublePointer,
    work: DoublePointer,
    stop: IntegerPointer,
) -> tuple[float, float, bool]:
    """Lower the model from s, face by face of the box, until its gradient on the free variables is within `enough`.

    held       room for `size` slots; `work` is the system's memory, `memory` has FACE_VECTORS n numbers
    radius     of each face's step, measured by the preconditioner; `fallback` as for `conjugate_gradients`
    Returns the change g's + s'Hs/2, the length of the longest of those steps, and whether one ended at the radius or
    without curvature.
    """
    r, free, pinned, down = memory, shifted(memory, n), shifted(memory, 2 * n), shifted(memory, 3 * n)
    whole, part, r_whole = shifted(memory, 4 * n), shifted(memory, 5 * n), shifted(memory, 6 * n)
    r_part, delta, target = shifted(memory, 7 * n), shifted(memory, 8 * n), shifted(memory, 9 * n)
    change = model_of_slots(product, slots, table, extents, instance, prepared, scratch, g, s, n, r)
    longest, far = 0.0, False
    vectors.zero(pinned, n)
    for _ in range(FACES):
        for i in range(n):
            free[i] = 0.0 if pinned[i] > 0.0 or is_held(r[i], below[i], above[i], s[i]) else 1.0
            down[i] = -r[i] * free[i]
        residual = math.sqrt(vectors.dot(down, down, n))
        if stop[0] != 0 or not residual > enough:
            break
        hold_slots(slots, rows, columns, free, size, held)
        precondition(system, held, 0.0, work, stop)
        ended, length, _left = conjugate_gradients(
            system,
            work,
            product,
            held,
            table,
            extents,
            instance,
            prepared,
            scratch,
            0.0,
            down,
            radius,
            fallback,
            0.5 * enough / residual,
            10 * n + 100,
            delta,
            stop,
        )
        far = far or ended == 1 or ended == 2
        longest = max(longest, length)
        count = 0
        for i in range(n):
            if free[i] > 0.0:
                target[count] = s[i] + delta[i]
                count += 1
        reach = follow(s, target, 1.0, free, below, above, n, whole, part)
        lower = model_of_slots(product, slots, table, extents, instance, prepared, scratch, g, whole, n, r_whole)
        if 0.0 < reach < 1.0:
            at_bound = model_of_slots(product, slots, table, extents, instance, prepared, scratch, g, part, n, r_part)
            if not lower <= at_bound:
                whole, part, r_whole, r_part, lower = part, whole, r_part, r_whole, at_bound
        if lower < change + SAME * change:
            vectors.copy(whole, s, n)
            vectors.copy(r_whole, r, n)
            change = lower
            if far and reach == 1.0:
                break
        elif reach == 1.0 or not hold_stopped(s, target, 1.0, reach, free, below, above, n, pinned):
            break
    return change, longest, far


# ---------------------------------------------------------------------------------------------- the descent

# Vectors of n numbers that `descend_in_box_sparse` works with.
VECTORS = 6 + FACE_VECTORS


def descend_in_box_sparse(
    evaluate: int,
    product: int,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    prepared_product: DoublePointer,
    scratch: DoublePointer,
    n: int,
    size: int,
    system: IntegerPointer,
    rows: IntegerPointer,
    columns: IntegerPointer,
    y: DoublePointer,
    low: DoublePointer,
    high: DoublePointer,
    active: IntegerPointer,
    memory: DoublePointer,
    gtol: float,
    max_iterations: int,
    reals: DoublePointer,
    integers: IntegerPointer,
    stop: IntegerPointer,
) -> None:
    """Minimise one instance from y in the box, which becomes the best point.

    As `bounded.descend_in_box`, with kernels and system as for `newton_cg.descend_sparse`; `memory` has 3 size +
    VECTORS n numbers and the system's. The curvature is left NaN.
    """
    here, there, held = memory, shifted(memory, size), shifted(memory, 2 * size)
    step, trial = shifted(memory, 3 * size), shifted(memory, 3 * size + n)
    projected, below, above = shifted(step, 2 * n), shifted(step, 3 * n), shifted(step, 4 * n)
    other, vectors_of_faces, work = shifted(step, 5 * n), shifted(step, 6 * n), shifted(step, VECTORS * n)
    reals[0] = reals[1] = math.nan
    integers[0] = integers[1] = 0
    integers[2] = NOT_FINITE
    for i in range(n):
        active[i] = 1 if low[i] >= high[i] else 0
    vectors.zero(memory, 2 * size)  # a kernel leaves places out that no second derivative lands in
    start_size = largest(y, n)
    if not start_size < math.inf:
        return
    energy = call_evaluate(evaluate, y, y, table, extents, instance, prepared, scratch, here)
    integers[1] = 1
    if energy < ABYSS:
        integers[2] = UNBOUNDED
        return
    if not (energy < math.inf and vectors.dot(here, here, size) < math.inf):
        return

    measure_box(y, low, high, n, below)
    gradient_size = project_gradient(here, below, above, n, projected)
    gradient_norm = math.sqrt(vectors.dot(projected, projected, n))
    iterations = refusals = doubtful = 0
    status, evaluations = ITERATION_LIMIT, 1
    fresh, unsettled, far = True, False, False
    radius, first_norm = math.inf, gradient_norm
    length = slope = curved = change = cauchy = 0.0
    while stop[0] == 0:
        noise, slots = ROUNDING * abs(energy), shifted(here, n)
        if fresh:
            refusals = doubtful = 0
            unsettled = is_unsettled(here, below, above, n, gtol)
            if gradient_size <= gtol and not unsettled:
                status = CONVERGED
                break
            if iterations >= max_iterations:
                status = ITERATION_LIMIT
                break
            iterations += 1
            forcing = max(min(0.1, gradient_norm / first_norm), 0.3 * gtol / max(gradient_norm, gtol))
            top = precondition(system, slots, 0.0, work, stop)
            weight = math.sqrt(top) if top > 0.0 else 1.0
            fallback = first_radius(y, n, gradient_norm, top)
            cauchy = cauchy_step_of_slots(
                product,
                slots,
                table,
                extents,
                instance,
                prepared_product,
                scratch,
                here,
                below,
                above,
                n,
                radius / weight,
                fallback,
                other,
                vectors_of_faces,
            )
            vectors.zero(step, n)
            for attempt in range(2):
                change, length, far = descend_faces_of_slots(
                    system,
                    rows,
                    columns,
                    product,
                    slots,
                    held,
                    size - n,
                    table,
                    extents,
                    instance,
                    prepared_product,
                    scratch,
                    here,
                    below,
                    above,
                    n,
                    radius,
                    weight * fallback,
                    forcing * gradient_norm,
                    step,
                    vectors_of_faces,
                    work,
                    stop,
                )
                if attempt == 1 or change <= ENOUGH * cauchy:
                    break
                vectors.copy(other, step, n)
            slope = vectors.dot(here, step, n)
            curved = 2.0 * (change - slope)
            fresh = False
        if not take_bounded_step(y, step, below, above, low, high, n, trial):
            iterations -= 1
            status = STALLED
            break

        trial_energy = call_evaluate(evaluate, trial, trial, table, extents, instance, prepared, scratch, there)
        evaluations += 1
        finite = trial_energy < math.inf and vectors.dot(there, there, size) < math.inf
        difference = trial_energy - energy
        measure_box(trial, low, high, n, below)
        trial_size = project_gradient(there, below, above, n, projected)
        trial_norm = math.sqrt(vectors.dot(projected, projected, n))
        judged = -change > noise
        ratio = difference / change
        in_doubt = finite and not judged
        flatter = in_doubt and difference <= noise and (trial_norm < 0.9 * gradient_norm or trial_size <= gtol)
        doubtful += 1 if in_doubt else 0
        if not is_accepted(trial_energy, finite, ratio, judged, flatter):
            measure_box(y, low, high, n, below)
            refusals += 1
            if unsettled and gradient_size <= gtol and not finite:
                status = CONVERGED
                break
            if refusals >= 2 * HOPELESS or (not judged and doubtful >= DOUBTFUL):
                status = STALLED
                break
            shrink = 0.1
            if not finite and refusals == 1 and stop_short(step, below, above, n):
                change = model_of_slots(
                    product, slots, table, extents, instance, prepared_product, scratch, here, step, n, projected
                )
                slope = vectors.dot(here, step, n)
                curved = 2.0 * (change - slope)
                if change < 0.0:
                    continue
            if not slope < 0.0:  # the way down began with a rise, along negative curvature: no line to be shortened
                vectors.copy(other, step, n)
                slope, length = vectors.dot(here, step, n), shrink * length
                change, curved = cauchy, 2.0 * (cauchy - slope)
                continue
            if finite:
                shrink = shorter(difference, slope, vectors.dot(step, there, n)) if judged else 0.25
            vectors.scale(shrink, step, n)
            slope *= shrink
            curved *= shrink * shrink
            length *= shrink
            change = slope + 0.5 * curved
            continue

        vectors.copy(trial, y, n)
        here, there = there, here
        energy, gradient_norm, gradient_size = trial_energy, trial_norm, trial_size
        if energy < ABYSS or (far and largest(y, n) > FAR * (1.0 + start_size)):
            status = UNBOUNDED
            break
        if radius < math.inf or refusals > 0 or far or ratio < 0.25:
            radius = next_radius(min(radius, 4.0 * length), length, ratio, judged, refusals > 0)
        fresh = True
    if status == STALLED and gradient_size <= gtol:
        status = CONVERGED
    measure_box(y, low, high, n, below)
    vectors.zero(trial, n)
    mark_active(here, below, above, trial, n, gtol, active)
    reals[0] = gradient_size
    integers[0], integers[1], integers[2] = iterations, evaluations, status


# What `bounded_newton_slice` reads from its problem: two kernels, gradient and slots of the Hessian and the product
# with the slots, each as in newton_cg.py; then addresses and sizes. STRIDE is that of LOW and HIGH, 0 for shared ones;
# FIRST is added to the instances; GTOL is a float64.
DERIVATIVES, PRODUCT = 0, 4
TABLE, EXTENTS, UNKNOWNS, SIZE, SCRATCH, SYSTEM, SLOT_ROWS, SLOT_COLUMNS = range(8, 16)
VARIABLES, LOW, HIGH, STRIDE, ACTIVE, REALS, INTEGERS, MAX_ITERATIONS, FIRST, GTOL = range(16, 26)


def _bounded_newton_slice(
    problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer
) -> int:
    """Minimise the instances [begin, end); returns where it ended, before `end` if the stop flag was raised."""
    table, extents = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS])
    n, first = problem[UNKNOWNS], problem[FIRST]
    own_product = shifted(workspace, problem[DERIVATIVES + 3])
    room = shifted(own_product, problem[PRODUCT + 3])
    for instance in range(first + begin, first + end):
        if stop[0] != 0:
            return instance - first
        descend_in_box_sparse(
            problem[DERIVATIVES],
            problem[PRODUCT],
            table,
            extents,
            instance,
            prepared_for(shifted(problem, DERIVATIVES), table, extents, instance, workspace),
            prepared_for(shifted(problem, PRODUCT), table, extents, instance, own_product),
            room,
            n,
            problem[SIZE],
            integer_pointer_at(problem[SYSTEM]),
            integer_pointer_at(problem[SLOT_ROWS]),
            integer_pointer_at(problem[SLOT_COLUMNS]),
            shifted(double_pointer_at(problem[VARIABLES]), instance * n),
            shifted(double_pointer_at(problem[LOW]), instance * problem[STRIDE]),
            shifted(double_pointer_at(problem[HIGH]), instance * problem[STRIDE]),
            shifted(integer_pointer_at(problem[ACTIVE]), instance * n),
            shifted(room, problem[SCRATCH]),
            doubles(problem)[GTOL],
            problem[MAX_ITERATIONS],
            shifted(double_pointer_at(problem[REALS]), instance * 2),
            shifted(integer_pointer_at(problem[INTEGERS]), instance * 3),
            stop,
        )
    return end


def bounded_newton_slice() -> Native:
    """The compiled `_bounded_newton_slice`."""
    return native(_bounded_newton_slice)


# ---------------------------------------------------------------------------------------------- Python


def minimise_bounded_sparse(problem: Problem) -> None:
    """Minimise every instance of a batch within its box, as `problem.Problem` says.

    The curvature is a lower bound of that of the free block, NaN for instances that are neither CONVERGED nor STALLED.
    """
    if problem.seeds is not None:
        problem.rank(problem.seeds)
    integers, y = problem.integers, problem.y
    _descend(problem, problem.max_iterations, range(len(y)))
    for instance in map(int, np.flatnonzero(integers[:, 2] <= STALLED)):
        while _escaped(problem, instance):
            before = integers[instance, :2].copy()
            _descend(problem, problem.max_iterations - int(before[0]), range(instance, instance + 1))
            integers[instance, :2] += before
            if integers[instance, 2] > STALLED:
                break
    if problem.seeds is not None:
        integers[:, 1] += 1
    problem.energies[:] = run(problem.kernel.entry("value"), problem.inputs, y, count=len(y))[0]


def _descend(problem: Problem, limit: int, instances: range) -> None:
    """Run the compiled loop for some instances; those of one pattern together."""
    kernel, inputs, box = problem.kernel, problem.inputs, problem.box
    assert box is not None and problem.active is not None
    entries = [kernel.entry(kind) for kind in ("value_gradient_sparse_hessian", "sparse_hvp")]
    prepared = [Prepared(entry, inputs) for entry in entries]
    n, size, own = inputs.m, entries[0].needs(inputs)[2], sum(p.own for p in prepared)
    scratch = max(entry.needs(inputs)[1] for entry in entries)
    kernels = [number for p in prepared for number in p.fields]
    low, high = np.ascontiguousarray(box.low), np.ascontiguousarray(box.high)
    bounds = address_of(low), address_of(high), n if len(low) > 1 else 0
    outputs = address_of(problem.active), address_of(problem.reals), address_of(problem.integers)
    for pattern, some in kernel.patterns("hessian", inputs, instances):
        system, ends = system_of(pattern), ends_of(pattern, size - n)
        fixed = inputs.table_address, inputs.extents_address, n, size, scratch, system.address, *ends.addresses
        arrays = address_of(problem.y), *bounds, *outputs
        numbers = array("q", struct.pack(f"={GTOL}qd", *kernels, *fixed, *arrays, limit, some[0], problem.gtol))
        key = ("bounded newton-cg", entries[0].evaluate.address, inputs.extents.tobytes())
        workspace = own + scratch + 3 * size + VECTORS * n + system.memory
        run_slices(bounded_newton_slice(), numbers.buffer_info()[0], len(some), key=key, workspace=workspace)
    for entry in entries:
        if entry.failures:
            raise entry.failures.pop()


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


def _escaped(problem: Problem, instance: int) -> bool:
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
