"""Newton's method within a box for many unknowns with a sparse Hessian: bounded.py by conjugate gradients.

The model is lowered face by face as there, but each face is searched by conjugate gradients
(bounded_conjugate_gradients.py). A refused step is shortened along its line, which stays in the box. Saddles are looked
for, and left, where the descent has ended (bounded_saddles.py).
"""

from __future__ import annotations

import math
import struct
from array import array

import numpy as np

from ...compiler.calls.arrays import address_of
from ...compiler.calls.evaluate import Prepared, run
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
from ..algebra import vectors
from ..algebra.conjugate_gradients import precondition, system_of
from ..algebra.linear_algebra import largest
from ..descend import DOUBTFUL, HOPELESS, ROUNDING, first_radius, is_accepted, next_radius, shorter
from ..first_evaluation import evaluate_first
from ..problem import Problem
from ..statuses import ABYSS, CONVERGED, FAR, ITERATION_LIMIT, STALLED, UNBOUNDED
from .bounded_conjugate_gradients import FACE_VECTORS, cauchy_step_of_slots, descend_faces_of_slots, model_of_slots
from .bounded_saddles import has_left_saddle
from .bounded_trust_region import ENOUGH
from .box_geometry import is_unsettled, mark_active, measure_box, project_gradient, stop_short, take_bounded_step
from .held_slots import ends_of

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

    As `bounded.descend_in_box`, with kernels and system as for `newton_cg.descend_by_products`; `memory` has 3 size +
    VECTORS n numbers and the system's. The curvature is left NaN.
    """
    here, there, held = memory, shifted(memory, size), shifted(memory, 2 * size)
    step, trial = shifted(memory, 3 * size), shifted(memory, 3 * size + n)
    projected, below, above = shifted(step, 2 * n), shifted(step, 3 * n), shifted(step, 4 * n)
    other, vectors_of_faces, work = shifted(step, 5 * n), shifted(step, 6 * n), shifted(step, VECTORS * n)
    for i in range(n):
        active[i] = 1 if low[i] >= high[i] else 0
    vectors.zero(memory, 2 * size)  # a kernel leaves places out that no second derivative lands in
    goes_on, energy, start_size = evaluate_first(
        evaluate, table, extents, instance, prepared, scratch, n, size, y, here, reals, integers
    )
    if not goes_on:
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


# ---------------------------------------------------------------------------------------------- the slice

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


def minimise_bounded_sparse(problem: Problem) -> None:
    """Minimise every instance of a batch within its box, as `problem.Problem` says.

    The curvature is a lower bound of that of the free block, NaN for instances that are neither CONVERGED nor STALLED.
    """
    if problem.seeds is not None:
        problem.rank(problem.seeds)
    integers, y = problem.integers, problem.y
    _descend(problem, problem.max_iterations, range(len(y)))
    for instance in map(int, np.flatnonzero(integers[:, 2] <= STALLED)):
        while has_left_saddle(problem, instance):
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
