"""L-BFGS to the neighbourhood of a minimum, then Newton's method into it.

Each step goes along -B g, B being the inverse Hessian that the last PAIRS pairs of steps and changes of the gradient
suggest (Nocedal 1980, Mathematics of Computation 35; Nocedal and Wright, algorithms 7.4 and 7.5), scaled by the newest
pair, to a point that satisfies the strong Wolfe conditions (algorithms 3.5 and 3.6 as one loop; cubic interpolation).
Only energies and gradients are computed. A trial point that is not finite shortens the step, nothing else. The very
first step is as long as that of a trust region at an unknown scale, a thousandth of |y|, and grows tenfold while
energies fall.

This comes near to a minimum: the gradient falls by a factor a step, and the derivative of the minimiser is taken where
the gradient is 0 (eq. 6 of Toso, Campbell and Russell 2019, and their section 3). So Newton's method takes over, damped
by its trust region, where one step is expected to be enough: errors square, and the square of |g| / |first g| is as
small as wanted where |g| is the geometric mean of gtol and |first g|. It also takes over where the energy no longer
shows progress. It squares what is left, tells the curvature, and leaves saddles. Few unknowns: descend.py; many with a
sparse Hessian: sparse.py; many that are all coupled: products.py.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..compiler.calls.arrays import address_of
from ..compiler.calls.evaluate import Prepared, run
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
from .algebra import vectors
from .algebra.blocks import NONE, layout_of
from .algebra.linear_algebra import TINY, largest
from .algebra.quasi_newton import PAIRS, apply_inverse
from .descend import ROUNDING, descend, first_radius, take_step, workspace_size
from .first_evaluation import evaluate_first
from .problem import Problem
from .products import descend_products, raise_failures
from .sparse import descend_sparse, is_coupled, is_sparse
from .statuses import ABYSS, CONVERGED, FAR, ITERATION_LIMIT, NOT_FINITE, UNBOUNDED

Integers = NDArray[np.int64]

DECREASE, FLATTENING = 1e-4, 0.9
"""What a step must reach: this part of the decrease that the slope promises, and a slope below this part of it."""

PATIENCE = 50
"""So many steps, and two more for each unknown, are tried: for the price of their gradients there is a Hessian."""

TRIALS = 30
"""Most points along a line; where all fall, the last is 1e26 as far as the first."""


def minimise_lbfgs(problem: Problem) -> None:
    """Minimise every instance of a batch, as `problem.Problem` says; `max_iterations` counts steps of both kinds."""
    if problem.seeds is not None:
        problem.rank(problem.seeds)
    kernel, inputs, y, integers = problem.kernel, problem.inputs, problem.y, problem.integers
    if is_sparse(kernel, inputs):
        _run(problem, newton=False)
        _finish(problem, descend_sparse)
    elif is_coupled(kernel, inputs):
        _run(problem, newton=False)
        _finish(problem, descend_products)
    else:
        _run(problem, newton=True)
    if problem.seeds is not None:
        integers[:, 1] += 1
    problem.energies[:] = run(kernel.entry("value"), inputs, y, count=len(y))[0]


def _finish(problem: Problem, newton: Callable[[Problem, Integers], None]) -> None:
    """Newton's method from where L-BFGS has ended, with the steps that are left."""
    integers, spent = problem.integers, problem.integers.copy()
    over = (spent[:, 2] == NOT_FINITE) | (spent[:, 2] == UNBOUNDED)
    newton(problem, np.where(over, 0, problem.max_iterations - spent[:, 0]))
    integers[:, :2] += spent[:, :2]
    integers[over, 2] = spent[over, 2]


def _run(problem: Problem, *, newton: bool) -> None:
    """Run L-BFGS for all instances, and for each of them Newton's method with its dense Hessian if wanted."""
    kernel, inputs, n = problem.kernel, problem.inputs, problem.inputs.m
    entries = [kernel.entry(kind) for kind in ("value_gradient", *(["value_gradient_hessian"] if newton else []))]
    prepared = [Prepared(entry, inputs) for entry in entries]
    own, scratch = sum(p.own for p in prepared), max(entry.needs(inputs)[1] for entry in entries)
    layout = layout_of(kernel, inputs) if newton else NONE
    packed = struct.pack(
        f"={GTOL}qd",
        *prepared[0].fields,
        *(prepared[1].fields if newton else (0, 0, 0, 0)),
        *(inputs.table_address, inputs.extents_address, n, scratch),
        *(address_of(problem.y), address_of(problem.reals), address_of(problem.integers), problem.max_iterations),
        address_of(layout),
        problem.gtol,
    )
    numbers = array("q", packed)
    workspace = max(own + scratch + memory_size(n), workspace_size(n, 0, scratch, own) if newton else 0)
    key = ("l-bfgs", newton, entries[0].evaluate.address, inputs.extents.tobytes())
    run_slices(lbfgs_slice(), numbers.buffer_info()[0], len(problem.y), key=key, workspace=workspace)
    raise_failures(entries)


# ---------------------------------------------------------------------------------------------- compiled


def between(
    low: float, low_energy: float, low_slope: float, high: float, high_energy: float, high_slope: float
) -> float:
    """A length between two: the minimum of the cubic through energies and slopes there, well inside."""
    width = high - low
    if not (high_energy < math.inf and abs(high_slope) < math.inf):
        return low + 0.1 * width
    twist = low_slope + high_slope - 3.0 * (high_energy - low_energy) / width
    square = twist * twist - low_slope * high_slope
    share = 0.5
    if square >= 0.0:
        root = math.copysign(math.sqrt(square), width)
        share = 1.0 - (high_slope + root - twist) / (high_slope - low_slope + 2.0 * root)
    if not 0.1 <= share <= 0.9:
        share = 0.1 if share < 0.1 else (0.9 if share > 0.9 else 0.5)
    return low + share * width


def beyond(before: float, before_slope: float, length: float, slope: float) -> float:
    """A longer length, where the energy still falls: where the slope would be 0 by the last two, 2 to 10 times it."""
    rise = (slope - before_slope) / (length - before)
    if not rise > 0.0:
        return 10.0 * length
    return min(10.0 * length, max(2.0 * length, length - slope / rise))


def search(
    evaluate: int,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    scratch: DoublePointer,
    n: int,
    y: DoublePointer,
    direction: DoublePointer,
    step: DoublePointer,
    energy: float,
    slope: float,
    length: float,
    trial: DoublePointer,
    there: DoublePointer,
    stop: IntegerPointer,
) -> tuple[float, float, int, bool]:
    """trial <- y + length direction, with less energy, `there` its gradient.

    Returns length and energy, the evaluations, and whether the strong Wolfe conditions hold. Length 0: none was found.
    """
    low, low_energy, low_slope = 0.0, energy, slope
    high, high_energy, high_slope = math.inf, math.inf, math.nan
    at, evaluations = -1.0, 0
    while evaluations < TRIALS and stop[0] == 0:
        vectors.copy_scaled(length, direction, step, n)
        if not take_step(y, step, n, trial):
            break
        found = call_evaluate(evaluate, trial, trial, table, extents, instance, prepared, scratch, there)
        evaluations += 1
        at = length
        if found < ABYSS:
            return length, found, evaluations, False
        slope_there = vectors.dot(there, direction, n)
        finite = found < math.inf and abs(slope_there) < math.inf and vectors.dot(there, there, n) < math.inf
        if not finite or found > energy + DECREASE * length * slope or found >= low_energy:
            high, high_energy, high_slope = length, (found if finite else math.inf), slope_there
        else:
            if abs(slope_there) <= -FLATTENING * slope:
                return length, found, evaluations, True
            before, before_slope = low, low_slope
            if slope_there > 0.0 if high > length else slope_there < 0.0:
                high, high_energy, high_slope = low, low_energy, low_slope
            low, low_energy, low_slope = length, found, slope_there
            if not high < math.inf:
                length = beyond(before, before_slope, low, low_slope)
                continue
        length = between(low, low_energy, low_slope, high, high_energy, high_slope)
        if evaluations % 3 == 0 and high_energy < math.inf:
            length = 0.5 * (low + high)
    if low > 0.0 and at != low:
        vectors.copy_scaled(low, direction, step, n)
        take_step(y, step, n, trial)
        call_evaluate(evaluate, trial, trial, table, extents, instance, prepared, scratch, there)
        evaluations += 1
    return low, low_energy, evaluations, False


def approach(
    evaluate: int,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    scratch: DoublePointer,
    n: int,
    y: DoublePointer,
    memory: DoublePointer,
    gtol: float,
    max_iterations: int,
    reals: DoublePointer,
    integers: IntegerPointer,
    stop: IntegerPointer,
) -> None:
    """L-BFGS for one instance from y, which becomes the best point; `memory` has `memory_size(n)` numbers.

    reals <- NaN;  integers <- iterations, evaluations, status: CONVERGED where Newton's method is to go on.
    """
    here, there, trial = memory, shifted(memory, n), shifted(memory, 2 * n)
    direction, step = shifted(memory, 3 * n), shifted(memory, 4 * n)
    steps, changes = shifted(memory, 5 * n), shifted(memory, (5 + PAIRS) * n)
    products, weights = shifted(changes, PAIRS * n), shifted(changes, PAIRS * n + PAIRS)
    goes_on, energy, start_size = evaluate_first(
        evaluate, table, extents, instance, prepared, scratch, n, n, y, here, reals, integers
    )
    if not goes_on:
        return
    status, iterations, evaluations, count, newest = CONVERGED, 0, 1, 0, 0
    enough = max(gtol, math.sqrt(gtol * largest(here, n)))
    while stop[0] == 0 and largest(here, n) > enough:
        vectors.copy_scaled(-1.0, here, direction, n)
        apply_inverse(steps, changes, products, weights, newest, count, n, direction)
        slope, length = vectors.dot(direction, here, n), 1.0
        if count == 0:
            norm = math.sqrt(vectors.dot(here, here, n))
            length = first_radius(y, n, norm, 0.0) / norm
        elif not -math.inf < slope < 0.0:
            count = 0
            continue
        elif -0.5 * slope <= ROUNDING * abs(energy):
            break
        if iterations >= PATIENCE + 2 * n:
            break
        if iterations >= max_iterations:
            status = ITERATION_LIMIT
            break
        iterations += 1
        length, found, tried, flattened = search(
            evaluate,
            table,
            extents,
            instance,
            prepared,
            scratch,
            n,
            y,
            direction,
            step,
            energy,
            slope,
            length,
            trial,
            there,
            stop,
        )
        evaluations += tried
        if not length > 0.0:
            if count == 0:
                break
            count = 0
            continue
        following = (newest + 1) % PAIRS
        last, change = shifted(steps, following * n), shifted(changes, following * n)
        vectors.differences(trial, y, last, n)
        vectors.differences(there, here, change, n)
        vectors.copy(trial, y, n)
        here, there = there, here
        energy = found
        if energy < ABYSS or (not flattened and largest(y, n) > FAR * (1.0 + start_size)):
            status = UNBOUNDED
            break
        product = vectors.dot(last, change, n)
        lengths = math.sqrt(vectors.dot(last, last, n)) * math.sqrt(vectors.dot(change, change, n))
        if product > 1e-12 * lengths and product > TINY:
            products[following] = product
            newest, count = following, min(count + 1, PAIRS)
        elif not flattened:
            count = 0
    integers[0], integers[1], integers[2] = iterations, evaluations, status


def memory_size(n: int) -> int:
    """How many numbers of memory `approach` needs."""
    return (5 + 2 * PAIRS) * n + 2 * PAIRS


# What `lbfgs_slice` reads from its problem: two kernels as in descend.py, gradient and dense Hessian (0: Newton's
# method comes later), then addresses and sizes. GTOL is a float64.
GRADIENT, NEWTON = 0, 4
TABLE, EXTENTS, UNKNOWNS, SCRATCH, VARIABLES, REALS, INTEGERS, MAX_ITERATIONS, LAYOUT, GTOL = range(8, 18)


def _lbfgs_slice(problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer) -> int:
    """Minimise the instances [begin, end); returns where it ended, before `end` if the stop flag was raised."""
    table, extents = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS])
    n, gtol, limit = problem[UNKNOWNS], doubles(problem)[GTOL], problem[MAX_ITERATIONS]
    own_newton = shifted(workspace, problem[GRADIENT + 3])
    scratch = shifted(own_newton, problem[NEWTON + 3])
    memory = shifted(scratch, problem[SCRATCH])
    for instance in range(begin, end):
        if stop[0] != 0:
            return instance
        y = shifted(double_pointer_at(problem[VARIABLES]), instance * n)
        reals = shifted(double_pointer_at(problem[REALS]), instance * 2)
        integers = shifted(integer_pointer_at(problem[INTEGERS]), instance * 3)
        approach(
            problem[GRADIENT],
            table,
            extents,
            instance,
            prepared_for(shifted(problem, GRADIENT), table, extents, instance, workspace),
            scratch,
            n,
            y,
            memory,
            gtol,
            limit,
            reals,
            integers,
            stop,
        )
        if problem[NEWTON] == 0:
            continue
        iterations, evaluations, status = integers[0], integers[1], integers[2]
        goes_on = status != NOT_FINITE and status != UNBOUNDED
        descend(
            problem[NEWTON],
            table,
            extents,
            instance,
            prepared_for(shifted(problem, NEWTON), table, extents, instance, own_newton),
            scratch,
            n,
            integer_pointer_at(problem[LAYOUT]),
            y,
            memory,
            gtol,
            limit - iterations if goes_on else 0,
            reals,
            integers,
        )
        integers[0] += iterations
        integers[1] += evaluations
        integers[2] = integers[2] if goes_on else status
    return end


def lbfgs_slice() -> Native:
    """The compiled `_lbfgs_slice`."""
    return native(_lbfgs_slice)
