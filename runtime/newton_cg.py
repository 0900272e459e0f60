"""Newton's method for many unknowns with a sparse Hessian: steps by conjugate gradients, nothing is factorised.

The step minimises the model g'p + p'Hp/2 by preconditioned conjugate gradients, up to the boundary of a trust region or
a direction of no positive curvature (Steihaug 1983, SIAM Journal on Numerical Analysis 20; Toint 1981; Nocedal and
Wright, algorithm 7.2). Lengths are measured by the preconditioner, the diagonal of H. The residual is made smaller
than min(0.1, |g| / |first g|) |g|, so that convergence is quadratic in the end.

A refused step is shortened along its line, to the minimum of the cubic through the energies and slopes at its ends. All
else (when a step is accepted, how the radius follows, statuses) is as in descend.py.

H is never put together: a kernel computes its numbers once for a point (compiler/slots.py), another multiplies them
by a vector. Whether the end is a minimum is asked by curvature.py.
"""

from __future__ import annotations

import math

from ..compiler.calling import call_evaluate, double_pointer_at, doubles, integer_pointer_at, shifted
from ..compiler.native import Native, native
from ..compiler.signature import DoublePointer, IntegerPointer
from .descend import (
    ABYSS,
    CONVERGED,
    DOUBTFUL,
    FAR,
    HOPELESS,
    ITERATION_LIMIT,
    NOT_FINITE,
    ROUNDING,
    STALLED,
    UNBOUNDED,
    _prepared,
    first_radius,
    is_accepted,
    next_radius,
    shorter,
    take_step,
)
from .linear_algebra import dot, largest

FLATTEST = 1e-13
"""A curvature along a direction below this part of what the diagonal of H says counts as none."""


def diagonal_of(
    slots: DoublePointer, sources: IntegerPointer, starts: IntegerPointer, n: int, shift: float, scale: DoublePointer
) -> float:
    """scale <- 1 / |diagonal of H + shift|, nowhere much above the least; returns the largest of the diagonal."""
    top = 0.0
    for i in range(n):
        total = shift
        for k in range(starts[i], starts[i + 1]):
            total += slots[sources[k]]
        scale[i] = abs(total)
        top = max(top, scale[i])
    least = 1e-8 * top if top > 0.0 else 1.0
    for i in range(n):
        scale[i] = 1.0 / max(scale[i], least)
    return top


def conjugate_gradients(
    product: int,
    slots: DoublePointer,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    scratch: DoublePointer,
    n: int,
    shift: float,
    b: DoublePointer,
    scale: DoublePointer,
    radius: float,
    fallback: float,
    tolerance: float,
    limit: int,
    x: DoublePointer,
    work: DoublePointer,
    stop: IntegerPointer,
) -> tuple[int, float]:
    """x <- an approximate minimiser of -b'x + x'(H + shift)x/2 over |x| <= radius, |x|^2 = sum of x^2 / scale.

    Returns how it ended, and |x|: 0 the residual is below tolerance |b|, 1 at the boundary, 2 no curvature
    was left, 3 after `limit` steps. Without any curvature at first, x is `fallback` long. `work` has 3 n numbers.
    """
    r, d, hd = work, shifted(work, n), shifted(work, 2 * n)
    rz, rr = 0.0, 0.0
    for i in range(n):
        x[i] = 0.0
        r[i] = b[i]
        d[i] = b[i] * scale[i]
        rz += b[i] * d[i]
        rr += b[i] * b[i]
    enough = tolerance * tolerance * rr
    xx, xd, dd = 0.0, 0.0, rz
    for k in range(limit):
        if stop[0] != 0 or not rr > enough:
            return 0, math.sqrt(xx)
        call_evaluate(product, slots, d, table, extents, instance, prepared, scratch, hd)
        if shift != 0.0:
            for i in range(n):
                hd[i] += shift * d[i]
        curved = dot(d, hd, n)
        flat = not curved > FLATTEST * dd
        length = rz / curved if not flat else 0.0
        further = xx + 2.0 * length * xd + length * length * dd
        if flat or further >= radius * radius:
            if flat and not radius < math.inf:
                length = 0.0 if k > 0 else fallback / math.sqrt(dd)
            else:
                length = (math.sqrt(xd * xd + dd * max(0.0, radius * radius - xx)) - xd) / dd
            for i in range(n):
                x[i] += length * d[i]
                r[i] -= length * hd[i]
            xx = xx + 2.0 * length * xd + length * length * dd
            return 2 if flat else 1, math.sqrt(xx)
        following, rr = advance(x, r, d, hd, scale, length, n)
        xx = further
        ratio = following / rz
        rz = following
        xd = ratio * (xd + length * dd)
        dd = rz + ratio * ratio * dd
        for i in range(n):
            d[i] = r[i] * scale[i] + ratio * d[i]
    return 3, math.sqrt(xx)


def advance(
    x: DoublePointer,
    r: DoublePointer,
    d: DoublePointer,
    hd: DoublePointer,
    scale: DoublePointer,
    length: float,
    n: int,
) -> tuple[float, float]:
    """One step along d; returns r'r by the preconditioner and r'r, each in four interleaved sums."""
    z0 = z1 = z2 = z3 = s0 = s1 = s2 = s3 = 0.0
    for i in range(n):
        x[i] += length * d[i]
        r[i] -= length * hd[i]
    for i in range(0, n - 3, 4):
        s0 += r[i] * r[i]
        s1 += r[i + 1] * r[i + 1]
        s2 += r[i + 2] * r[i + 2]
        s3 += r[i + 3] * r[i + 3]
        z0 += r[i] * r[i] * scale[i]
        z1 += r[i + 1] * r[i + 1] * scale[i + 1]
        z2 += r[i + 2] * r[i + 2] * scale[i + 2]
        z3 += r[i + 3] * r[i + 3] * scale[i + 3]
    for i in range(n - n % 4, n):
        s0 += r[i] * r[i]
        z0 += r[i] * r[i] * scale[i]
    return (z0 + z2) + (z1 + z3), (s0 + s2) + (s1 + s3)


def descend_sparse(
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
    sources: IntegerPointer,
    starts: IntegerPointer,
    y: DoublePointer,
    memory: DoublePointer,
    gtol: float,
    max_iterations: int,
    reals: DoublePointer,
    integers: IntegerPointer,
    stop: IntegerPointer,
) -> None:
    """Minimise one instance from y, which becomes the best point; `memory` has 2 size + 8 n numbers.

    evaluate   writes the gradient and the slots of the Hessian, `size` numbers; `product` multiplies the slots
    sources, starts   the slots that make up each entry of the diagonal
    reals <- gradient norm, NaN;  integers <- iterations, evaluations, status. CONVERGED says nothing of curvature.
    """
    here, there, step, trial = memory, shifted(memory, size), shifted(memory, 2 * size), shifted(memory, 2 * size + n)
    scale, down, work = shifted(step, 2 * n), shifted(step, 3 * n), shifted(step, 4 * n)
    reals[0] = reals[1] = math.nan
    integers[0] = integers[1] = 0
    integers[2] = NOT_FINITE
    for i in range(2 * size):
        memory[i] = 0.0  # a kernel leaves places out that no second derivative lands in
    start_size = largest(y, n)
    if not start_size < math.inf:
        return
    energy = call_evaluate(evaluate, y, y, table, extents, instance, prepared, scratch, here)
    integers[1] = 1
    if energy < ABYSS:
        integers[2] = UNBOUNDED
        return
    if not (energy < math.inf and dot(here, here, size) < math.inf):
        return

    iterations = refusals = doubtful = ended = 0
    status, evaluations = ITERATION_LIMIT, 1
    fresh = True
    gradient_size, gradient_norm = largest(here, n), math.sqrt(dot(here, here, n))
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
            slots = shifted(here, n)
            top = diagonal_of(slots, sources, starts, n, 0.0, scale)
            for i in range(n):
                down[i] = -here[i]
            weight = math.sqrt(top) if top > 0.0 else 1.0
            ended, length = conjugate_gradients(
                product,
                slots,
                table,
                extents,
                instance,
                prepared_product,
                scratch,
                n,
                0.0,
                down,
                scale,
                radius,
                weight * first_radius(y, n, gradient_norm, top),
                max(min(0.1, gradient_norm / first_norm), 0.3 * gtol / gradient_norm),
                10 * n + 100,
                step,
                work,
                stop,
            )
            slope = -dot(down, step, n)
            curved = -slope - dot(work, step, n)
            predicted = -slope - 0.5 * curved
            fresh = False
        if not take_step(y, step, n, trial):
            iterations -= 1
            status = STALLED
            break

        trial_energy = call_evaluate(evaluate, trial, trial, table, extents, instance, prepared, scratch, there)
        evaluations += 1
        finite = trial_energy < math.inf and dot(there, there, size) < math.inf
        change = trial_energy - energy
        trial_norm = math.sqrt(dot(there, there, n))
        judged = predicted > noise
        ratio = -change / predicted
        in_doubt = finite and not judged
        flatter = in_doubt and change <= noise and (trial_norm < 0.9 * gradient_norm or largest(there, n) <= gtol)
        doubtful += 1 if in_doubt else 0
        if not is_accepted(trial_energy, finite, ratio, judged, flatter):
            refusals += 1
            if refusals >= 2 * HOPELESS or (not judged and doubtful >= DOUBTFUL):
                status = STALLED
                break
            shrink = 0.1
            if finite:
                shrink = shorter(change, slope, dot(step, there, n)) if judged else 0.25
            for i in range(n):
                step[i] *= shrink
            slope *= shrink
            curved *= shrink * shrink
            length *= shrink
            predicted = -slope - 0.5 * curved
            continue

        for i in range(n):
            y[i] = trial[i]
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


def _damped_solve(
    product: int,
    slots: DoublePointer,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    n: int,
    sources: IntegerPointer,
    starts: IntegerPointer,
    shift: float,
    b: DoublePointer,
    tolerance: float,
    limit: int,
    x: DoublePointer,
    workspace: DoublePointer,
    stop: IntegerPointer,
) -> int:
    """x <- (H + shift)^-1 b for a positive definite matrix; 0 where |residual| <= tolerance |b| was reached.

    `workspace` has 4 n numbers and those that the kernel needs.
    """
    scale, work = workspace, shifted(workspace, n)
    diagonal_of(slots, sources, starts, n, shift, scale)
    ended, _ = conjugate_gradients(
        product,
        slots,
        table,
        extents,
        instance,
        prepared,
        shifted(work, 3 * n),
        n,
        shift,
        b,
        scale,
        math.inf,
        0.0,
        tolerance,
        limit,
        x,
        work,
        stop,
    )
    return ended


def damped_solve() -> Native:
    """The compiled `_damped_solve`."""
    return native(_damped_solve)


# What `newton_slice` reads from its problem: two kernels, gradient and slots of the Hessian and the product with the
# slots, each as (address of evaluate, of prepare, of shared prepared numbers or 0, how many an instance needs of its
# own); then addresses and sizes. FIRST is added to the instances. GTOL is a float64.
DERIVATIVES, PRODUCT = 0, 4
TABLE, EXTENTS, UNKNOWNS, SIZE, SCRATCH, SOURCES, STARTS = range(8, 15)
VARIABLES, REALS, INTEGERS, MAX_ITERATIONS, FIRST, GTOL = range(15, 21)


def _newton_slice(problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer) -> int:
    """Minimise the instances [begin, end); returns where it ended, before `end` if the stop flag was raised."""
    table, extents = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS])
    n, first = problem[UNKNOWNS], problem[FIRST]
    own_product = shifted(workspace, problem[DERIVATIVES + 3])
    room = shifted(own_product, problem[PRODUCT + 3])
    for instance in range(first + begin, first + end):
        if stop[0] != 0:
            return instance - first
        descend_sparse(
            problem[DERIVATIVES],
            problem[PRODUCT],
            table,
            extents,
            instance,
            _prepared(shifted(problem, DERIVATIVES), table, extents, instance, workspace),
            _prepared(shifted(problem, PRODUCT), table, extents, instance, own_product),
            room,
            n,
            problem[SIZE],
            integer_pointer_at(problem[SOURCES]),
            integer_pointer_at(problem[STARTS]),
            shifted(double_pointer_at(problem[VARIABLES]), instance * n),
            shifted(room, problem[SCRATCH]),
            doubles(problem)[GTOL],
            problem[MAX_ITERATIONS],
            shifted(double_pointer_at(problem[REALS]), instance * 2),
            shifted(integer_pointer_at(problem[INTEGERS]), instance * 3),
            stop,
        )
    return end


def newton_slice() -> Native:
    """The compiled `_newton_slice`."""
    return native(_newton_slice)
