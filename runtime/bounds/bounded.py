"""Newton's method within a box: a trust region over the variables that no bound holds, compiled once for all energies.

    minimise E(y),   low <= y <= high

A variable is held where it stands at a bound and the gradient pushes it outwards; the others are free. What must vanish
is the projected gradient P(y - g) - y, P the projection onto the box.

Each step minimises the model over box and trust region (bounded_trust_region.py), without an evaluation of the energy.
Once the held variables are those of the solution, it is Newton's method on the others, and quadratic.

All points that are evaluated lie in the box, and variables at a bound equal it to the bit. When a step is accepted, how
the radius follows, and statuses are as in descend.py, for the projected gradient. A step onto bounds where the energy
is not finite is tried again, nine tenths of the way to them.

Second-order conditions. Where the projected gradient is within gtol, negative curvature is looked for among all
variables but those that the gradient holds by more than gtol (`escape_step`). At the end the Hessian of the free block
has no negative curvature; with multipliers of 0, where a full test has no fast algorithm, not every way down need be
found.
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
from ..algebra.linear_algebra import dot, largest
from ..algebra.vectors import copy, zero
from ..descend import DOUBTFUL, HOPELESS, ROUNDING, is_accepted, next_radius, shorter
from ..driver import run_driver
from ..first_evaluation import evaluate_first
from ..problem import Problem
from ..statuses import ABYSS, CONVERGED, FAR, ITERATION_LIMIT, SADDLE, STALLED, UNBOUNDED
from .bounded_trust_region import SPACE_VECTORS, STEP_VECTORS, box_step, escape_step, free_curvature, model, radius_here
from .box_geometry import is_unsettled, mark_active, measure_box, project_gradient, stop_short, take_bounded_step


def descend_in_box(
    evaluate: int,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    scratch: DoublePointer,
    n: int,
    y: DoublePointer,
    low: DoublePointer,
    high: DoublePointer,
    active: IntegerPointer,
    memory: DoublePointer,
    gtol: float,
    max_iterations: int,
    reals: DoublePointer,
    integers: IntegerPointer,
) -> None:
    """Minimise one instance from y in the box, which becomes the best point; `memory` has workspace_numbers(n).

    reals <- norm of the projected gradient, lowest curvature of the free block (infinite where nothing is free);
    integers <- iterations, evaluations, status;  active <- 1 for each variable that a bound holds.
    """
    size = n + n * n
    here, there, space = memory, shifted(memory, size), shifted(memory, 2 * size)
    step = shifted(space, 2 * n * n + (SPACE_VECTORS + STEP_VECTORS) * n)
    trial, projected, pinned, below = shifted(step, n), shifted(step, 2 * n), shifted(step, 3 * n), shifted(step, 4 * n)
    above = shifted(below, n)
    zero(pinned, n)
    for i in range(n):
        active[i] = 1 if low[i] >= high[i] else 0
    goes_on, energy, start_size = evaluate_first(
        evaluate, table, extents, instance, prepared, scratch, n, size, y, here, reals, integers
    )
    if not goes_on:
        return

    measure_box(y, low, high, n, below)
    gradient_size = project_gradient(here, below, above, n, projected)
    gradient_norm = math.sqrt(dot(projected, projected, n))
    status = iterations = refusals = doubtful = 0
    evaluations = 1
    fresh, shortened, rose, unsettled, on_line = True, False, False, False, False
    radius, length, slope, curved, change = math.inf, 0.0, 0.0, 0.0, 0.0
    while True:
        hessian, noise, near = shifted(here, n), ROUNDING * abs(energy), gradient_size <= gtol
        if fresh:
            rose = shortened = False
            refusals = doubtful = 0
            zero(pinned, n)
            unsettled = near and is_unsettled(here, below, above, n, gtol)
        escaping = near and not unsettled
        if not shortened:
            if escaping:
                change, radius = escape_step(
                    hessian, here, y, below, above, n, gtol, radius, noise, fresh, step, pinned, space
                )
                if not change < 0.0:
                    status = CONVERGED
                    break
            if iterations >= max_iterations:
                status = ITERATION_LIMIT
                break
            if not escaping:
                if fresh and not radius < math.inf:
                    radius = radius_here(hessian, here, y, below, above, n, radius, noise, space)
                change = box_step(hessian, here, below, above, n, radius, step, space)
                if fresh and not -change > noise and radius < math.inf:
                    wider = radius_here(hessian, here, y, below, above, n, radius, noise, space)
                    if wider > radius:
                        radius = wider
                        change = box_step(hessian, here, below, above, n, radius, step, space)
            iterations += 1
            length, slope = math.sqrt(dot(step, step, n)), dot(step, here, n)
            curved = 2.0 * (change - slope)
            on_line = not escaping and slope < 0.0 and length < 0.999 * radius
            fresh = False
        if not take_bounded_step(y, step, below, above, low, high, n, trial):
            iterations -= 1
            status = (SADDLE if rose else CONVERGED) if escaping else STALLED
            break

        trial_energy = call_evaluate(evaluate, trial, trial, table, extents, instance, prepared, scratch, there)
        evaluations += 1
        finite = trial_energy < math.inf and dot(there, there, size) < math.inf
        difference = trial_energy - energy
        measure_box(trial, low, high, n, below)
        trial_size = project_gradient(there, below, above, n, projected)
        trial_norm = math.sqrt(dot(projected, projected, n))
        judged = -change > noise
        ratio = difference / change
        in_doubt = finite and not judged and not escaping
        flatter = in_doubt and difference <= noise and (trial_norm < 0.9 * gradient_norm or trial_size <= gtol)
        doubtful += 1 if in_doubt else 0
        if not is_accepted(trial_energy, finite, ratio, judged, flatter):
            measure_box(y, low, high, n, below)
            if unsettled and not finite:  # the bound is no point of the energy: nearly there is as near as it gets
                status = CONVERGED
                break
            rose = rose or not finite or difference > noise
            refusals += 1
            if refusals >= HOPELESS or (not judged and (escaping or doubtful >= DOUBTFUL)):
                status = (SADDLE if rose else CONVERGED) if escaping else STALLED
                break
            shrink = 0.25
            if not finite and not shortened and not escaping and stop_short(step, below, above, n):
                change = model(hessian, here, step, n, projected)
                length, slope = math.sqrt(dot(step, step, n)), dot(step, here, n)
                curved = 2.0 * (change - slope)
                shortened = change < 0.0
            elif on_line and not shortened:
                if finite and judged:
                    shrink = shorter(difference, slope, dot(step, there, n))
                for i in range(n):
                    step[i] *= shrink
                slope *= shrink
                curved *= shrink * shrink
                length *= shrink
                change = slope + 0.5 * curved
                shortened = change < 0.0
            else:
                if finite:
                    shrink = max(0.1, -0.5 * slope / (difference - slope)) if difference > slope else 0.1
                shortened = False
            if not shortened:
                radius = length * min(shrink, 0.5 / (refusals * refusals))
            continue

        copy(trial, y, n)
        here, there = there, here
        energy, gradient_size, gradient_norm = trial_energy, trial_size, trial_norm
        if energy < ABYSS or (length >= 0.5 * radius and largest(y, n) > FAR * (1.0 + start_size)):
            status = UNBOUNDED
            break
        radius = next_radius(radius if radius < math.inf else length, length, ratio, judged, shortened)
        fresh, shortened = True, False

    if status == STALLED and unsettled:
        status = CONVERGED
    if dot(here, here, size) < math.inf:
        measure_box(y, low, high, n, below)
        mark_active(here, below, above, pinned, n, gtol, active)
        reals[1] = free_curvature(shifted(here, n), active, n, space)
        if unsettled and status == CONVERGED and reals[1] < 0.0:
            status = SADDLE
    reals[0] = gradient_size
    integers[0], integers[1], integers[2] = iterations, evaluations, status


def workspace_numbers(n: int) -> int:
    """float64 numbers that a thread needs for `descend_in_box`, besides prepared numbers and the kernel's scratch."""
    return 4 * n * n + (SPACE_VECTORS + STEP_VECTORS + 8) * n


# ---------------------------------------------------------------------------------------------- the slice

# What `bounded_slice` reads from its problem: the kernel as (address of evaluate, of prepare, of shared prepared
# numbers or 0, how many an instance needs of its own); then addresses and sizes. STRIDE is that of LOW and HIGH, 0 for
# shared ones; GTOL is a float64.
DERIVATIVES = 0
TABLE, EXTENTS, UNKNOWNS, SCRATCH = range(4, 8)
VARIABLES, LOW, HIGH, STRIDE, ACTIVE, REALS, INTEGERS, MAX_ITERATIONS, GTOL = range(8, 17)


def _bounded_slice(
    problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer
) -> int:
    """Minimise the instances [begin, end); returns where it ended, before `end` if the stop flag was raised."""
    table, extents = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS])
    n = problem[UNKNOWNS]
    scratch = shifted(workspace, problem[DERIVATIVES + 3])
    for instance in range(begin, end):
        if stop[0] != 0:
            return instance
        descend_in_box(
            problem[DERIVATIVES],
            table,
            extents,
            instance,
            prepared_for(shifted(problem, DERIVATIVES), table, extents, instance, workspace),
            scratch,
            n,
            shifted(double_pointer_at(problem[VARIABLES]), instance * n),
            shifted(double_pointer_at(problem[LOW]), instance * problem[STRIDE]),
            shifted(double_pointer_at(problem[HIGH]), instance * problem[STRIDE]),
            shifted(integer_pointer_at(problem[ACTIVE]), instance * n),
            shifted(scratch, problem[SCRATCH]),
            doubles(problem)[GTOL],
            problem[MAX_ITERATIONS],
            shifted(double_pointer_at(problem[REALS]), instance * 2),
            shifted(integer_pointer_at(problem[INTEGERS]), instance * 3),
        )
    return end


def bounded_slice() -> Native:
    """The compiled `_bounded_slice`."""
    return native(_bounded_slice)


def minimise_bounded(problem: Problem) -> None:
    """Minimise every instance of a batch within its box, as `problem.Problem` says."""
    kernel, inputs, y, box = problem.kernel, problem.inputs, problem.y, problem.box
    assert box is not None and problem.active is not None
    if problem.seeds is not None:  # the driver without bounds puts the lowest candidate into y and takes no step
        run_driver(Problem(kernel, inputs, y, problem.seeds, problem.gtol, 0))
    entry = kernel.entry("value_gradient_hessian")
    prepared, scratch = Prepared(entry, inputs), entry.needs(inputs)[1]
    low, high = np.ascontiguousarray(box.low), np.ascontiguousarray(box.high)
    packed = struct.pack(
        f"={GTOL}qd",
        *prepared.fields,
        inputs.table_address,
        inputs.extents_address,
        inputs.m,
        scratch,
        address_of(y),
        address_of(low),
        address_of(high),
        inputs.m if len(low) > 1 else 0,
        address_of(problem.active),
        address_of(problem.reals),
        address_of(problem.integers),
        problem.max_iterations,
        problem.gtol,
    )
    memory = array("q", packed)
    run_slices(
        bounded_slice(),
        memory.buffer_info()[0],
        len(y),
        key=("bounded", entry.evaluate.address, inputs.extents.tobytes()),
        workspace=prepared.own + scratch + workspace_numbers(inputs.m),
    )
    if entry.failures:
        raise entry.failures.pop()
    if problem.seeds is not None:
        problem.integers[:, 1] += 1
    problem.energies[:] = run(kernel.entry("value"), inputs, y, count=len(y))[0]
