"""Newton's method for many unknowns: steps by conjugate gradients, for which products with the Hessian are enough.

The step minimises the model g'p + p'Hp/2 by preconditioned conjugate gradients, up to the boundary of a trust region or
a direction of no positive curvature (Steihaug 1983, SIAM Journal on Numerical Analysis 20; Toint 1981; Nocedal and
Wright, algorithm 7.2). Lengths are measured by the preconditioner. The residual is made smaller
than min(0.1, |g| / |first g|) |g|, so that convergence is quadratic in the end; quadratic energies are solved in one.

A refused step is shortened along its line, to the minimum of the cubic through the energies and slopes at its ends. All
else (when a step is accepted, how the radius follows, statuses) is as in descend.py.

Where H is sparse, a kernel computes its numbers once for a point (compiler/passes/slots.py), and
conjugate_gradients.py works with those and a preconditioner made of them (sparse.py): factors of H itself where that is
the better way (direct.py).
Else another kernel makes each product from the point itself, and the products of one step precondition the next
(products.py). Whether the end is a minimum is asked afterwards.
"""

from __future__ import annotations

import math

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
from .algebra.conjugate_gradients import conjugate_gradients, eigenvalue_bounds, forget, precondition
from .algebra.linear_algebra import FLAT, largest
from .descend import DOUBTFUL, HOPELESS, ROUNDING, first_radius, is_accepted, next_radius, shorter, take_step
from .first_evaluation import evaluate_first
from .statuses import ABYSS, CONVERGED, FAR, ITERATION_LIMIT, STALLED, UNBOUNDED

SLOW = -1
"""A status between: conjugate gradients were given up."""


def descend_by_products(
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
    y: DoublePointer,
    memory: DoublePointer,
    gtol: float,
    forcing: float,
    flattening: float,
    start_size: float,
    patience: int,
    max_iterations: int,
    reals: DoublePointer,
    integers: IntegerPointer,
    stop: IntegerPointer,
) -> None:
    """Minimise one instance from y, which becomes the best point; `memory` has 2 size + 3 n numbers and the system's.

    evaluate   writes the gradient, then the slots of the Hessian if it is sparse: `size` numbers
    product    multiplies the slots; without slots (size = n), the Hessian at y
    system     the layout of conjugate_gradients.py
    forcing    the residual of a step at most, as a part of the gradient; 0 solves it as far as gtol asks
    flattening what a step must leave of the gradient at most, where rounding hides the decrease of the energy
    start_size the largest magnitude of the variables at the start
    patience   steps of conjugate gradients after which it ends as SLOW, at the best point; 0 if it never does
    reals <- gradient norm, lower bound of the Hessian's eigenvalues;  integers <- iterations, evaluations, status.
    The bound is NaN where the status is neither CONVERGED nor STALLED, or it does not show that the end is a minimum.
    """
    here, there, step, trial = memory, shifted(memory, size), shifted(memory, 2 * size), shifted(memory, 2 * size + n)
    down, work = shifted(step, 2 * n), shifted(step, 3 * n)
    vectors.zero(memory, 2 * size)  # a kernel leaves places out that no second derivative lands in
    goes_on, energy, _size_here = evaluate_first(
        evaluate, table, extents, instance, prepared, scratch, n, size, y, here, reals, integers
    )
    if not goes_on:
        return

    forget(system, work)
    iterations = refusals = doubtful = ended = 0
    status, evaluations = ITERATION_LIMIT, 1
    fresh = True
    gradient_size, gradient_norm = largest(here, n), math.sqrt(vectors.dot(here, here, n))
    radius, first_norm = math.inf, gradient_norm
    length = slope = curved = predicted = 0.0
    while stop[0] == 0:
        noise = ROUNDING * abs(energy)
        if fresh:
            refusals = doubtful = 0
            if gradient_size <= gtol:
                status = CONVERGED
                break
            if iterations >= max_iterations:
                status = ITERATION_LIMIT
                break
            iterations += 1
            matrix = shifted(here, n) if size > n else y
            top = precondition(system, matrix, 0.0, work, stop)
            vectors.copy_scaled(-1.0, here, down, n)
            weight = math.sqrt(top) if top > 0.0 else 1.0
            ended, length, left = conjugate_gradients(
                system,
                work,
                product,
                matrix,
                table,
                extents,
                instance,
                prepared_product,
                scratch,
                0.0,
                down,
                radius,
                weight * first_radius(y, n, gradient_norm, top),
                max(min(forcing, gradient_norm / first_norm), 0.3 * gtol / gradient_norm),
                patience if patience > 0 else 10 * n + 100,
                step,
                stop,
            )
            if ended == 3 and patience > 0:
                iterations -= 1
                status = SLOW
                break
            slope = -vectors.dot(down, step, n)
            curved = -slope - left
            predicted = -slope - 0.5 * curved
            fresh = False
        if not take_step(y, step, n, trial):
            iterations -= 1
            status = STALLED
            break

        trial_energy = call_evaluate(evaluate, trial, trial, table, extents, instance, prepared, scratch, there)
        evaluations += 1
        squares = vectors.dot(there, there, n)
        others = vectors.dot(shifted(there, n), shifted(there, n), size - n)
        finite = trial_energy < math.inf and squares + others < math.inf
        change = trial_energy - energy
        trial_norm = math.sqrt(squares)
        judged = predicted > noise
        ratio = -change / predicted
        in_doubt = finite and not judged
        flatter = (
            in_doubt and change <= noise and (trial_norm < flattening * gradient_norm or largest(there, n) <= gtol)
        )
        doubtful += 1 if in_doubt else 0
        if not is_accepted(trial_energy, finite, ratio, judged, flatter):
            refusals += 1
            if refusals >= 2 * HOPELESS or (not judged and doubtful >= DOUBTFUL):
                status = STALLED
                break
            shrink = 0.1
            if finite:
                shrink = shorter(change, slope, vectors.dot(step, there, n)) if judged else 0.25
            vectors.scale(shrink, step, n)
            slope *= shrink
            curved *= shrink * shrink
            length *= shrink
            predicted = -slope - 0.5 * curved
            continue

        vectors.copy(trial, y, n)
        here, there = there, here
        energy, gradient_norm, gradient_size = trial_energy, trial_norm, largest(here, n)
        if energy < ABYSS or (ended != 0 and largest(y, n) > FAR * (1.0 + start_size)):
            status = UNBOUNDED
            break
        if radius < math.inf or refusals > 0 or ended != 0 or ratio < 0.25:
            radius = next_radius(min(radius, 4.0 * length), length, ratio, judged, refusals > 0)
        fresh = True
    reals[0] = gradient_size
    integers[0], integers[1], integers[2] = iterations, evaluations, status
    if status != CONVERGED and status != STALLED:
        return
    lowest, size_of_all = eigenvalue_bounds(system, shifted(here, n), work, stop)
    if lowest >= -FLAT * size_of_all:
        reals[1] = lowest


# What `newton_slice` reads from its problem: two kernels, gradient (and slots of the Hessian) and the product, each as
# (address of evaluate, of prepare, of shared prepared numbers or 0, how many an instance needs of its own); then
# addresses and sizes. WHICH are the instances, LIMITS the steps that each may try, SIZES float64, as is what follows
# PATIENCE.
DERIVATIVES, PRODUCT = 0, 4
TABLE, EXTENTS, UNKNOWNS, SIZE, SCRATCH, SYSTEM = range(8, 14)
VARIABLES, REALS, INTEGERS, LIMITS, SIZES, WHICH, PATIENCE, GTOL, FORCING, FLATTENING = range(14, 24)


def _newton_slice(problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer) -> int:
    """Minimise WHICH[begin:end]; returns where it ended, before `end` if the stop flag was raised."""
    table, extents = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS])
    n = problem[UNKNOWNS]
    own_product = shifted(workspace, problem[DERIVATIVES + 3])
    room = shifted(own_product, problem[PRODUCT + 3])
    for row in range(begin, end):
        if stop[0] != 0:
            return row
        instance = integer_pointer_at(problem[WHICH])[row]
        descend_by_products(
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
            shifted(double_pointer_at(problem[VARIABLES]), instance * n),
            shifted(room, problem[SCRATCH]),
            doubles(problem)[GTOL],
            doubles(problem)[FORCING],
            doubles(problem)[FLATTENING],
            double_pointer_at(problem[SIZES])[instance],
            problem[PATIENCE],
            integer_pointer_at(problem[LIMITS])[instance],
            shifted(double_pointer_at(problem[REALS]), instance * 2),
            shifted(integer_pointer_at(problem[INTEGERS]), instance * 3),
            stop,
        )
    return end


def newton_slice() -> Native:
    """The compiled `_newton_slice`."""
    return native(_newton_slice)
