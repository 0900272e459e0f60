"""How a step meets the bounds of a box: projected gradients, points on bounds to the bit, which variables are held.

All speaks of the distances to the bounds from a point y, below = low - y and above = high - y, so that nothing cancels
where y is large. A variable is held where it stands at a bound and the gradient pushes it outwards; others are free.
"""

from __future__ import annotations

from ...compiler.machine_code.signature import DoublePointer, IntegerPointer
from ..algebra.linear_algebra import largest


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
