"""The step within a box for many unknowns with a sparse Hessian: face by face as in bounded_trust_region.py.

A face is searched by preconditioned conjugate gradients on the free variables, up to the trust region or a direction of
no positive curvature, as in newton_cg.py. The numbers of the Hessian (slots) that belong to a row or column of a held
variable are set to 0 in a copy (held_slots.py). A face is left when its residual is as small as newton_cg.py asks for.
"""

from __future__ import annotations

import math

from ...compiler.machine_code.calling import call_evaluate, shifted
from ...compiler.machine_code.signature import DoublePointer, IntegerPointer, streaming
from ..algebra import vectors
from ..algebra.conjugate_gradients import conjugate_gradients, precondition
from .bounded_trust_region import ENOUGH, SAME
from .box_geometry import follow, hold_stopped, is_held
from .held_slots import hold_slots

FACES = 20
"""Faces that are searched for one step."""


FACE_VECTORS = 10
"""Vectors of n numbers that `descend_faces_of_slots` works with."""


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
