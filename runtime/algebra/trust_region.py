"""The step of a trust region, exactly: the minimum of the model g'p + p'Hp/2 over |p| <= radius.

Moré and Sorensen (1983), SIAM Journal on Scientific and Statistical Computing 4; Nocedal and Wright, section 4.3:

    (H + mu) p = -g,   mu >= 0,   H + mu positive semi-definite,   mu (radius - |p|) = 0

- H positive definite and the Newton step inside: one Cholesky factorisation, mu = 0 (`newton_step`).
- Otherwise H = Q T Q' once (`spectrum`), after which each mu costs O(m). The unknown is delta = mu + lowest
  eigenvalue, so that nothing cancels near the hard case, in which g has no part along the lowest eigenvector and the
  step is completed along it (`boundary_step`). A point whose step was refused keeps T and Q for the shorter ones.
"""

from __future__ import annotations

import math

from ...compiler.machine_code.calling import shifted
from ...compiler.machine_code.signature import DoublePointer
from .linear_algebra import (
    EPSILON,
    TINY,
    cholesky,
    cholesky_solve,
    dot,
    inverse_quadratic,
    largest,
    lowest_eigenvalue,
    lowest_eigenvector,
    reflect,
    rotate,
    rotate_back,
    solve_shifted,
    tridiagonalise,
)

CHANCE = 64.0 * EPSILON
"""A gradient along the lowest eigenvector below this part of its curvature is rounding: its sign is chance."""


FEW = 2
"""Up to so many unknowns there are closed forms for all but the step to the boundary."""


def newton_step_of_few(h: DoublePointer, g: DoublePointer, n: int, u: DoublePointer, p: DoublePointer) -> bool:
    """`newton_step` for one or two unknowns."""
    if n == 1:
        p[0] = -g[0] / h[0]
        return h[0] > 0.0
    ratio = h[1] / h[0]
    rest = h[3] - ratio * h[1]
    p[1] = -(g[1] - ratio * g[0]) / rest
    p[0] = -g[0] / h[0] - ratio * p[1]
    return h[0] > 0.0 and rest > 0.0


def newton_step(h: DoublePointer, g: DoublePointer, n: int, u: DoublePointer, p: DoublePointer) -> bool:
    """p <- -H^-1 g where H is positive definite, else False; closed forms for up to three unknowns."""
    if 0 < n <= FEW:
        return newton_step_of_few(h, g, n, u, p)
    if n == 3:
        a, b = h[1] / h[0], h[2] / h[0]
        middle, side = h[4] - a * h[1], h[5] - a * h[2]
        ratio, y = side / middle, g[1] - a * g[0]
        rest = h[8] - b * h[2] - ratio * side
        p[2] = -(g[2] - b * g[0] - ratio * y) / rest
        p[1] = -y / middle - ratio * p[2]
        p[0] = -g[0] / h[0] - a * p[1] - b * p[2]
        return h[0] > 0.0 and middle > 0.0 and rest > 0.0
    if not cholesky(h, n, u):
        return False
    for i in range(n):
        p[i] = -g[i]
    cholesky_solve(u, n, p)
    return True


def spectrum_of_few(h: DoublePointer, n: int, space: DoublePointer) -> tuple[float, float]:
    """`spectrum` for one or two unknowns."""
    diagonal, off = shifted(space, n * n), shifted(space, n * n + n)
    if n == 1:
        diagonal[0] = h[0]
        return h[0], abs(h[0])
    diagonal[0], diagonal[1], off[0] = h[0], h[3], h[1]
    mean, half = 0.5 * (h[0] + h[3]), 0.5 * (h[0] - h[3])
    size = max(abs(half), abs(h[1]))
    radius = 0.0
    if size > 0.0:
        radius = size * math.sqrt((half / size) * (half / size) + (h[1] / size) * (h[1] / size))
    bound = abs(mean) + radius
    if mean > 0.0:
        return h[0] * (h[3] / bound) - h[1] * (h[1] / bound), bound
    return mean - radius, bound


def spectrum(h: DoublePointer, n: int, space: DoublePointer) -> tuple[float, float]:
    """The lowest eigenvalue of H and a bound of all, leaving T and Q in `space` (n*n + 5n numbers) for a step."""
    if 0 < n <= FEW:
        return spectrum_of_few(h, n, space)
    diagonal, off = shifted(space, n * n), shifted(space, n * n + n)
    size = math.sqrt(dot(h, h, n * n))
    if not 1e-70 < size < 1e70:
        size = largest(h, n * n)
    scale = 1.0 if 1e-90 < size < 1e90 or size == 0.0 else 1.0 / size
    for i in range(n * n):
        space[i] = scale * h[i]
    work = shifted(off, 2 * n)
    tridiagonalise(space, n, scale * size, diagonal, off, shifted(off, n), work)
    lowest, bound = lowest_eigenvalue(diagonal, off, n, work)
    if scale != 1.0:
        lowest, bound = lowest / scale, bound / scale
        for i in range(n):
            diagonal[i], off[i] = diagonal[i] / scale, off[i] / scale
    return lowest, bound


def secular_step(delta: float, length: float, curved: float, low: float, high: float) -> float:
    """The next delta by Newton's method on 1/length - 1, inside the bracket; curved is -length times length's slope."""
    following = delta + length * length / curved * (length - 1.0)
    return following if low < following < high else math.sqrt(low) * math.sqrt(high)


def _upright(space: DoublePointer, beta: DoublePointer, z: DoublePointer, n: int, x: DoublePointer) -> float:
    """The sign that makes the largest entry of Qz positive (the first of equals); x is overwritten."""
    for i in range(n):
        x[i] = z[i]
    rotate_back(space, n, beta, x)
    peak = 0
    for i in range(1, n):
        if abs(x[i]) > abs(x[peak]):
            peak = i
    return math.copysign(1.0, x[peak])


def boundary_step(
    space: DoublePointer,
    g: DoublePointer,
    n: int,
    lowest: float,
    bound: float,
    radius: float,
    p: DoublePointer,
    work: DoublePointer,
) -> float:
    """p <- the minimiser of the model, from what `spectrum` left; returns the decrease that the model promises.

    All lengths are in units of the radius. With z the unit eigenvector of the lowest eigenvalue and -Q'g = along z + b,
    b orthogonal to z, the step is

        Q (along / delta z + x),   x = (T - lowest + delta)^-1 b

    delta = mu + lowest makes it of length 1 and lies between |along| and |g|. Newton's method on 1/length - 1 rises to
    it from the left and is kept inside the shrinking bracket. Where even the smallest delta leaves the step too short
    and the lowest eigenvalue is negative, it is completed along z. `work` has 4n numbers.
    """
    if n == 1:
        return radius * (radius * _boundary_step_of_one(-g[0] / radius, lowest, radius, p))
    diagonal, off, beta = shifted(space, n * n), shifted(space, n * n + n), shifted(space, n * n + 2 * n)
    b, z, x, top, bottom = work, shifted(work, n), p, shifted(work, 2 * n), shifted(work, 3 * n)
    for i in range(n):
        b[i] = -g[i] / radius
    rotate(space, n, beta, b)
    upper = math.sqrt(dot(b, b, n))
    lowest_eigenvector(diagonal, off, n, lowest, bound, z, top, bottom)
    along = dot(z, b, n)
    for i in range(n):
        b[i] -= along * z[i]
    sign = math.copysign(1.0, along)
    if abs(along) <= CHANCE * abs(lowest):
        sign = _upright(space, beta, z, n, x)
        along = 0.0
    least = max(EPSILON * bound, TINY)
    floor = max(8.0 * least, EPSILON * upper)
    low = max(floor, max(lowest, abs(along)))
    high = max(low, upper)
    delta = low
    first, part, square, length = True, 0.0, 0.0, 0.0
    for _ in range(50):
        solve_shifted(diagonal, off, n, lowest, delta, least, b, x, top, bottom)
        reflect(z, 1.0, x, n)
        part, square = along / delta, dot(x, x, n)
        length = math.sqrt(part * part + square)
        if abs(length - 1.0) <= 1e-12 or (first and length < 1.0):
            break
        first = False
        if length > 1.0:
            low = delta
        else:
            high = delta
        curved = part * part / delta + inverse_quadratic(n, top, bottom, x)
        following = secular_step(delta, length, curved, low, high)
        if abs(following - delta) <= EPSILON * delta:
            break
        delta = following
    stretch = 1.0
    if not (first and length < 1.0):
        stretch = 1.0 / length  # near a hard case the length jumps by more than its tolerance from delta to the next
    elif lowest < -floor:
        part = sign * math.sqrt(max(0.0, 1.0 - square))
    curved = 0.0
    for i in range(n):
        x[i] *= stretch
    part *= stretch
    for i in range(n):
        curved += diagonal[i] * x[i] * x[i]
        if i < n - 1:
            curved += 2.0 * off[i] * x[i] * x[i + 1]
    predicted = along * part - 0.5 * lowest * part * part + dot(b, x, n) - 0.5 * curved
    for i in range(n):
        x[i] = radius * (x[i] + part * z[i])
    rotate_back(space, n, beta, x)
    return radius * (radius * predicted)


def _boundary_step_of_one(b: float, lowest: float, radius: float, p: DoublePointer) -> float:
    """The step for one unknown, b = -g / radius; returns the decrease in units of the radius squared."""
    part = math.copysign(1.0, b if abs(b) > CHANCE * abs(lowest) else 1.0)
    if not abs(b) > lowest:  # or one is NaN
        part = b / lowest if lowest != 0.0 else 0.0
    p[0] = radius * part
    return part * (b - 0.5 * lowest * part)
