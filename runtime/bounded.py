"""Newton's method within a box: a trust region over the variables that no bound holds, compiled once for all energies.

    minimise E(y),   low <= y <= high

A variable is held where it stands at a bound and the gradient pushes it outwards; the others are free. What must vanish
is the projected gradient P(y - g) - y, P the projection onto the box.

The step minimises the model g's + s'Hs/2 over box and trust region (`box_step`), without an evaluation of the energy:

- On the free variables the exact step of trust_region.py. Where it leaves the box, the better of two by the model: its
  projection, and the point where its line meets the first bound. Variables at a bound that the gradient of the model
  pushes outwards are then held, those that it pushes inwards are free again, and so on until nothing changes. What the
  model pushes inwards but the step outwards is pinned to its bound until the model has fallen. It falls each time, so
  that this ends; for a convex quadratic at the solution.
- The model must fall at least a tenth as far as at a point of sufficient decrease on the path P(y - t g) (Cauchy);
  otherwise the search begins there. Hence every limit is a critical point: Conn, Gould and Toint (1988), SIAM Journal
  on Numerical Analysis 25; Lin and More (1999), SIAM Journal on Optimization 9.
- Once the held variables are those of the solution, it is Newton's method on the others, and quadratic.

A step onto bounds where the energy is not finite is tried again, nine tenths of the way to them.

All points that are evaluated lie in the box, and variables at a bound equal it to the bit. When a step is accepted, how
the radius follows, and statuses are as in descend.py, for the projected gradient.

Second-order conditions. Where the projected gradient is within gtol, negative curvature is looked for among all
variables but those that the gradient holds by more than gtol. It is followed along the lowest eigenvector, both ways,
projected and up to the first bound (`escape_step`). If the model falls in none of these, the variables at a bound that
stop it are taken as held as well, and the rest is asked again. So at the end the Hessian of the free block has no
negative curvature; with multipliers of 0, where a full test has no fast algorithm, not every way down need be found.
"""

from __future__ import annotations

import math
import struct
from array import array

import numpy as np

from ..compiler.arrays import address_of
from ..compiler.calling import call_evaluate, double_pointer_at, doubles, integer_pointer_at, shifted
from ..compiler.evaluate import Prepared, run
from ..compiler.native import Native, native
from ..compiler.signature import DoublePointer, IntegerPointer, vectorised
from ..compiler.slices import run_slices
from .descend import DOUBTFUL, FLAT, HOPELESS, ROUNDING, first_radius, is_accepted, next_radius, prepared_for, shorter
from .driver import run_driver
from .first_evaluation import evaluate_first
from .linear_algebra import dot, largest
from .problem import Problem
from .statuses import ABYSS, CONVERGED, FAR, ITERATION_LIMIT, SADDLE, STALLED, UNBOUNDED
from .trust_region import boundary_step, newton_step, spectrum
from .vectors import copy, zero

ENOUGH = 0.1
"""The part of Cauchy's decrease that a step must promise, and the part of its slope that Cauchy's point must fall."""

SAME = 1e-12
"""Relative change of the model below which it has not fallen."""


# ---------------------------------------------------------------------------------------------- the box


def project_gradient(g: DoublePointer, below: DoublePointer, above: DoublePointer, n: int, out: DoublePointer) -> float:
    """out <- P(y - g) - y for the distances to the bounds, low - y and high - y; returns its infinity norm."""
    for i in range(n):
        out[i] = min(max(-g[i], below[i]), above[i])
    return largest(out, n)


def measure_box(y: DoublePointer, low: DoublePointer, high: DoublePointer, n: int, below: DoublePointer) -> None:
    """below <- low - y, and n numbers further on high - y."""
    for i in range(n):
        below[i] = low[i] - y[i]
        below[n + i] = high[i] - y[i]


def take_bounded_step(
    y: DoublePointer,
    s: DoublePointer,
    below: DoublePointer,
    above: DoublePointer,
    low: DoublePointer,
    high: DoublePointer,
    n: int,
    trial: DoublePointer,
) -> bool:
    """trial <- y + s, at a bound to the bit and never beyond; whether that is another point than y."""
    moved = False
    for i in range(n):
        value = min(max(y[i] + s[i], low[i]), high[i])
        if s[i] != 0.0 and s[i] <= below[i]:
            value = low[i]
        elif s[i] != 0.0 and s[i] >= above[i]:
            value = high[i]
        trial[i] = value
        moved = moved or value != y[i]
    return moved


def stop_short(s: DoublePointer, below: DoublePointer, above: DoublePointer, n: int) -> bool:
    """Let a step that ends on bounds end nine tenths of the way to them; whether it does."""
    found = False
    for i in range(n):
        if s[i] != 0.0 and (s[i] <= below[i] or s[i] >= above[i]):
            s[i] *= 0.9
            found = True
    return found


def is_held(slope: float, below: float, above: float, s: float) -> bool:
    """Whether a variable that has moved by s is fixed, or at a bound and pushed outwards by a slope."""
    return below >= above or (s <= below and slope > 0.0) or (s >= above and slope < 0.0)


# ---------------------------------------------------------------------------------------------- the model


@vectorised
def model(h: DoublePointer, g: DoublePointer, s: DoublePointer, n: int, r: DoublePointer) -> float:
    """r <- g + Hs, the gradient of the model at s; returns its change g's + s'Hs/2."""
    change = 0.0
    for i in range(n):
        r[i] = g[i] + dot(shifted(h, i * n), s, n)
        change += 0.5 * s[i] * (g[i] + r[i])
    return change


@vectorised
def gather_block(
    h: DoublePointer,
    g: DoublePointer,
    s: DoublePointer,
    free: DoublePointer,
    n: int,
    count: int,
    block: DoublePointer,
    c: DoublePointer,
) -> None:
    """The model of the free variables, `count` of them, where the others have moved by s: Hessian and gradient."""
    a = 0
    for i in range(n):
        if free[i] > 0.0:
            row, total, b = i * n, g[i], 0
            for j in range(n):
                if free[j] > 0.0:
                    block[a * count + b] = h[row + j]
                    b += 1
                else:
                    total += h[row + j] * s[j]
            c[a] = total
            a += 1


def cauchy_step(
    h: DoublePointer,
    g: DoublePointer,
    below: DoublePointer,
    above: DoublePointer,
    n: int,
    radius: float,
    s: DoublePointer,
    r: DoublePointer,
) -> float:
    """s <- a point of sufficient decrease of the model on the path P(y - t g); returns the model's change."""
    for i in range(n):
        s[i] = 0.0 if is_held(g[i], below[i], above[i], 0.0) else -g[i]
    size = math.sqrt(dot(s, s, n))
    if not size > 0.0:
        return 0.0
    model(h, g, s, n, r)
    curved = dot(s, r, n) - dot(s, g, n)
    t = radius / size
    if curved > 0.0:
        t = min(t, size / curved * size)
    if not t < math.inf:
        t = 1.0
    for _ in range(60):
        for i in range(n):
            s[i] = min(max(-t * g[i], below[i]), above[i])
        change = model(h, g, s, n, r)
        if change <= ENOUGH * dot(g, s, n):
            return change
        t *= 0.25
    for i in range(n):
        s[i] = 0.0
    return 0.0


# ---------------------------------------------------------------------------------------------- steps

# Working memory of the steps: two matrices with 5n numbers for `spectrum`, and vectors of n numbers.
SPACE_VECTORS, STEP_VECTORS = 5, 14


def follow(
    s: DoublePointer,
    p: DoublePointer,
    sign: float,
    free: DoublePointer,
    below: DoublePointer,
    above: DoublePointer,
    n: int,
    whole: DoublePointer,
    part: DoublePointer,
) -> float:
    """whole <- the projection of the point `sign` p of the free variables, part <- where the line from s to it meets
    the first bound; returns which part of the line that is, 1 where it stays in the box."""
    reach, a = 1.0, 0
    for i in range(n):
        if free[i] > 0.0:
            target = sign * p[a]
            a += 1
            if target < below[i]:
                reach = min(reach, (below[i] - s[i]) / (target - s[i]))
            elif target > above[i]:
                reach = min(reach, (above[i] - s[i]) / (target - s[i]))
    reach = max(reach, 0.0)
    a = 0
    for i in range(n):
        whole[i] = part[i] = s[i]
        if free[i] > 0.0:
            target = sign * p[a]
            a += 1
            whole[i] = min(max(target, below[i]), above[i])
            part[i] = min(max(s[i] + reach * (target - s[i]), below[i]), above[i])
            if target < below[i] and (below[i] - s[i]) / (target - s[i]) <= reach:
                part[i] = below[i]
            elif target > above[i] and (above[i] - s[i]) / (target - s[i]) <= reach:
                part[i] = above[i]
    return reach


def hold_stopped(
    s: DoublePointer,
    p: DoublePointer,
    sign: float,
    reach: float,
    free: DoublePointer,
    below: DoublePointer,
    above: DoublePointer,
    n: int,
    pinned: DoublePointer,
) -> bool:
    """Pin the variables whose bounds stop the line from s to the point `sign` p at `reach`; whether there are any."""
    found, a = False, 0
    for i in range(n):
        if free[i] > 0.0:
            target = sign * p[a]
            a += 1
            bound = below[i] if target < below[i] else above[i]
            if (target < below[i] or target > above[i]) and (bound - s[i]) / (target - s[i]) <= reach:
                pinned[i] = 1.0
                found = True
    return found


def descend_faces(
    h: DoublePointer,
    g: DoublePointer,
    below: DoublePointer,
    above: DoublePointer,
    n: int,
    radius: float,
    s: DoublePointer,
    memory: DoublePointer,
) -> float:
    """Lower the model from s, face by face of the box, within the radius; returns its change g's + s'Hs/2."""
    block, space = memory, shifted(memory, n * n)
    r = shifted(space, n * n + SPACE_VECTORS * n)
    c, p, work = shifted(r, n), shifted(r, 2 * n), shifted(r, 3 * n)
    free, pinned, whole, part = shifted(r, 7 * n), shifted(r, 8 * n), shifted(r, 9 * n), shifted(r, 10 * n)
    r_whole, r_part = shifted(r, 11 * n), shifted(r, 12 * n)
    for i in range(n):
        free[i] = pinned[i] = 0.0
    change, settled = model(h, g, s, n, r), False
    for _ in range(2 * n + 10):
        count, outside, same = 0, 0.0, True
        for i in range(n):
            state = 0.0 if pinned[i] > 0.0 or is_held(r[i], below[i], above[i], s[i]) else 1.0
            same = same and state == free[i]
            free[i] = state
            if state > 0.0:
                count += 1
            else:
                outside += s[i] * s[i]
        if count == 0 or (settled and same):
            break
        room = math.sqrt(max(0.0, radius * radius - outside))
        if not room > 0.0:
            break
        gather_block(h, g, s, free, n, count, block, c)
        definite = newton_step(block, c, count, space, p)
        length = math.sqrt(dot(p, p, count))
        if not (definite and length <= room and length < math.inf):
            if not room < math.inf:
                break
            lowest, bound = spectrum(block, count, space)
            boundary_step(space, c, count, lowest, bound, room, p, work)
        reach = follow(s, p, 1.0, free, below, above, n, whole, part)
        there = model(h, g, whole, n, r_whole)
        if 0.0 < reach < 1.0:
            at_bound = model(h, g, part, n, r_part)
            if not there <= at_bound:
                whole, part, r_whole, r_part, there = part, whole, r_part, r_whole, at_bound
        settled = reach == 1.0
        if there < change + SAME * change:
            copy(whole, s, n)
            copy(r_whole, r, n)
            change = there
            zero(pinned, n)
        elif settled or not hold_stopped(s, p, 1.0, reach, free, below, above, n, pinned):
            break
    return change


def box_step(
    h: DoublePointer,
    g: DoublePointer,
    below: DoublePointer,
    above: DoublePointer,
    n: int,
    radius: float,
    s: DoublePointer,
    memory: DoublePointer,
) -> float:
    """s <- a step within box and radius on which the model falls well; returns the model's change, 0 if there is none.

    `memory` has 2 n*n + (SPACE_VECTORS + STEP_VECTORS) n numbers.
    """
    r = shifted(memory, 2 * n * n + SPACE_VECTORS * n)
    other = shifted(r, 13 * n)
    zero(s, n)
    change = descend_faces(h, g, below, above, n, radius, s, memory)
    cauchy = cauchy_step(h, g, below, above, n, radius, other, r)
    if change > ENOUGH * cauchy:
        copy(other, s, n)
        change = descend_faces(h, g, below, above, n, radius, s, memory)
    return change


def radius_here(
    h: DoublePointer,
    g: DoublePointer,
    y: DoublePointer,
    below: DoublePointer,
    above: DoublePointer,
    n: int,
    radius: float,
    noise: float,
    memory: DoublePointer,
) -> float:
    """The radius for a new point: as it was, but finite where the Hessian of the free variables is not positive
    definite, and long enough there for a decrease that can be told from rounding."""
    block, space = memory, shifted(memory, n * n)
    r = shifted(space, n * n + SPACE_VECTORS * n)
    c, p, free, s = shifted(r, n), shifted(r, 2 * n), shifted(r, 7 * n), shifted(r, 9 * n)
    count = 0
    for i in range(n):
        s[i] = 0.0
        free[i] = 0.0 if is_held(g[i], below[i], above[i], 0.0) else 1.0
        count += 1 if free[i] > 0.0 else 0
    gather_block(h, g, s, free, n, count, block, c)
    if count == 0 or (newton_step(block, c, count, space, p) and dot(p, p, count) < math.inf):
        return radius
    lowest, bound = spectrum(block, count, space)
    if not radius < math.inf:
        radius = first_radius(y, n, math.sqrt(dot(c, c, count)), bound)
    if lowest < -FLAT * bound:
        radius = max(radius, math.sqrt(200.0 * noise / -lowest))
    return radius


def escape_step(
    h: DoublePointer,
    g: DoublePointer,
    y: DoublePointer,
    below: DoublePointer,
    above: DoublePointer,
    n: int,
    gtol: float,
    radius: float,
    noise: float,
    fresh: bool,
    s: DoublePointer,
    pinned: DoublePointer,
    memory: DoublePointer,
) -> tuple[float, float]:
    """s <- a step along negative curvature from a critical point; returns the model's change and the radius.

    The change is 0 where there is none; `pinned` then marks variables at a bound that count as held, see the top of
    this file. At a fresh point the radius is made long enough.
    """
    block, space = memory, shifted(memory, n * n)
    r = shifted(space, n * n + SPACE_VECTORS * n)
    c, p, work, free = shifted(r, n), shifted(r, 2 * n), shifted(r, 3 * n), shifted(r, 7 * n)
    whole, part, origin = shifted(r, 9 * n), shifted(r, 10 * n), shifted(r, 11 * n)
    zero(pinned, n)
    zero(origin, n)
    zero(s, n)
    while True:
        count = 0
        for i in range(n):
            strong = below[i] >= above[i] or abs(g[i]) > gtol
            held = pinned[i] > 0.0 or (strong and is_held(g[i], below[i], above[i], 0.0))
            free[i] = 0.0 if held else 1.0
            count += 0 if held else 1
        if count == 0:
            return 0.0, radius
        gather_block(h, g, origin, free, n, count, block, c)
        lowest, bound = spectrum(block, count, space)
        if not lowest < -FLAT * bound:
            return 0.0, radius
        if fresh:
            first = first_radius(y, n, math.sqrt(dot(c, c, count)), bound)
            radius = max(radius if radius < math.inf else 0.0, max(first, math.sqrt(200.0 * noise / -lowest)))
        boundary_step(space, c, count, lowest, bound, radius, p, work)
        best = furthest = 0.0
        direction = 1.0
        for way in range(2):
            sign = 1.0 - 2.0 * way
            reach = follow(origin, p, sign, free, below, above, n, whole, part)
            change = model(h, g, whole, n, r)
            if change < best:
                best = change
                copy(whole, s, n)
            change = model(h, g, part, n, r)
            if change < best:
                best = change
                copy(part, s, n)
            if reach > furthest:
                furthest, direction = reach, sign
        if best < -noise or not hold_stopped(origin, p, direction, furthest, free, below, above, n, pinned):
            return best, radius
        zero(s, n)


# ---------------------------------------------------------------------------------------------- the descent


def is_unsettled(g: DoublePointer, below: DoublePointer, above: DoublePointer, n: int, gtol: float) -> bool:
    """Whether a variable has nearly reached the bound it is pushed to, so that P(y - g) - y is small, but g is not."""
    found = False
    for i in range(n):
        strong = abs(g[i]) > gtol and not is_held(g[i], below[i], above[i], 0.0)
        found = found or strong
    return found


def mark_active(
    g: DoublePointer,
    below: DoublePointer,
    above: DoublePointer,
    pinned: DoublePointer,
    n: int,
    gtol: float,
    active: IntegerPointer,
) -> None:
    """active <- 1 for variables that are held, pinned, or pushed by more than gtol over a bound within gtol."""
    for i in range(n):
        near = (g[i] > gtol and below[i] >= -gtol) or (g[i] < -gtol and above[i] <= gtol)
        held = near or pinned[i] > 0.0 or is_held(g[i], below[i], above[i], 0.0)
        active[i] = 1 if held else 0


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


def free_curvature(h: DoublePointer, active: IntegerPointer, n: int, memory: DoublePointer) -> float:
    """The lowest eigenvalue of the free variables' block of H, infinite where nothing is free."""
    count = 0
    for i in range(n):
        if active[i] == 0:
            for j in range(n):
                if active[j] == 0:
                    memory[count] = h[i * n + j]
                    count += 1
    if count == 0:
        return math.inf
    free = 0
    for i in range(n):
        free += 1 - active[i]
    lowest, _ = spectrum(memory, free, shifted(memory, n * n))
    return lowest


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
