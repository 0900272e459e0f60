"""The step within a box and a trust region, for a dense Hessian: it lowers the model g's + s'Hs/2, face by face.

- On the free variables the exact step of trust_region.py; where rounding kept it short, `lengthened` as in descend.py.
  Where it leaves the box, the better of two by the model: its projection, and the point where its line meets the first
  bound. Variables at a bound that the gradient of the model pushes outwards are then held, those that it pushes inwards
  are free again, and so on until nothing changes. What the model pushes inwards but the step outwards is pinned to its
  bound until the model has fallen. It falls each time, so that this ends; for a convex quadratic at the solution
  (`descend_faces`).
- The model must fall at least a tenth as far as at a point of sufficient decrease on the path P(y - t g) (Cauchy);
  otherwise the search begins there (`box_step`). Hence every limit of such steps is a critical point: Conn, Gould and
  Toint (1988), SIAM Journal on Numerical Analysis 25; Lin and More (1999), SIAM Journal on Optimization 9.
- From a critical point negative curvature is followed along the lowest eigenvector, both ways, projected and up to the
  first bound (`escape_step`). If the model falls in none of these, the variables at a bound that stop it are taken as
  held as well, and the rest is asked again.
"""

from __future__ import annotations

import math

from ...compiler.machine_code.calling import shifted
from ...compiler.machine_code.signature import DoublePointer, IntegerPointer, vectorised
from ..algebra.linear_algebra import FLAT, dot
from ..algebra.trust_region import boundary_step, newton_step, spectrum
from ..algebra.vectors import copy, zero
from ..descend import first_radius, lengthened
from .box_geometry import follow, hold_stopped, is_held

ENOUGH = 0.1
"""The part of Cauchy's decrease that a step must promise, and the part of its slope that Cauchy's point must fall."""


SAME = 1e-12
"""Relative change of the model below which it has not fallen."""


# Working memory of the steps: two matrices with 5n numbers for `spectrum`, and vectors of n numbers.
SPACE_VECTORS, STEP_VECTORS = 5, 14


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
        newton = whole  # which is written below only
        definite = newton_step(block, c, count, space, newton)
        length = math.sqrt(dot(newton, newton, count))
        definite = definite and length < math.inf
        if definite and length <= room:
            copy(newton, p, count)
        else:
            if not room < math.inf:
                break
            lowest, bound = spectrum(block, count, space)
            predicted = boundary_step(space, c, count, lowest, bound, room, p, work)
            lengthened(block, c, count, room, newton, length if definite else 0.0, p, predicted)
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
