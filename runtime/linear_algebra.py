"""Dense linear algebra of one instance: symmetric matrices of a few to a few hundred rows, nothing allocated.

Compiled functions for drivers; a matrix is a pointer to n*n numbers, row after row. Inner loops run along rows, so that
LLVM vectorises them, and sums keep their order (no fastmath): equal matrices give equal bits wherever they lie.
NaN and infinity pass through; every loop is bounded.

    cholesky            H = U'U
    tridiagonalise      H = Q T Q' by Householder reflections, T tridiagonal; `rotate` and `rotate_back`
    lowest_eigenvalue   of T, by bisection on the signs of pivots (Sturm)
    lowest_eigenvector  of T, from its twisted factorisation
    solve_shifted       (T - origin + shift) x = b; `inverse_quadratic` is x'(T - origin + shift)^-1 x

Golub and Van Loan, Matrix Computations, 4th edition, sections 4.2, 8.3 and 8.4; Dhillon and Parlett (2004), Linear
Algebra and its Applications 387, for the twisted factorisation.
"""

from __future__ import annotations

import math

from ..compiler.calling import shifted
from ..compiler.signature import DoublePointer, vectorised

EPSILON = 2.0**-52
TINY = 1e-290
"""Stands for an off-diagonal or a pivot of 0, so that no 0/0 arises."""


@vectorised
def dot(a: DoublePointer, b: DoublePointer, n: int) -> float:
    """The sum of a[i] b[i], in four interleaved sums."""
    s0 = s1 = s2 = s3 = 0.0
    for i in range(0, n - 3, 4):
        s0 += a[i] * b[i]
        s1 += a[i + 1] * b[i + 1]
        s2 += a[i + 2] * b[i + 2]
        s3 += a[i + 3] * b[i + 3]
    for i in range(n - n % 4, n):
        s0 += a[i] * b[i]
    return (s0 + s2) + (s1 + s3)


@vectorised
def largest(a: DoublePointer, n: int) -> float:
    """The infinity norm; infinite if a number is NaN."""
    size = 0.0
    for i in range(n):
        value = abs(a[i])
        if not value <= size:
            size = value if value >= 0.0 else math.inf
    return size


@vectorised
def cholesky(h: DoublePointer, n: int, u: DoublePointer) -> bool:
    """Write U with H = U'U into the upper triangle of u; False if H is not positive definite to working precision.

    A NaN in the upper triangle of H gives False as well.
    """
    for i in range(n * n):
        u[i] = h[i]
    for i in range(n):
        row = i * n
        pivot = u[row + i]
        if not pivot > 0.0:
            return False
        scale = 1.0 / math.sqrt(pivot)
        for j in range(i, n):
            u[row + j] *= scale
        for k in range(i + 1, n):
            factor, target = u[row + k], k * n
            for j in range(k, n):
                u[target + j] -= factor * u[row + j]
    return True


@vectorised
def cholesky_solve(u: DoublePointer, n: int, b: DoublePointer) -> None:
    """b <- (U'U)^-1 b."""
    for i in range(n):
        row = i * n
        b[i] /= u[row + i]
        factor = b[i]
        for j in range(i + 1, n):
            b[j] -= factor * u[row + j]
    for i in range(n - 1, -1, -1):
        row = i * n
        b[i] = (b[i] - dot(shifted(u, row + i + 1), shifted(b, i + 1), n - i - 1)) / u[row + i]


@vectorised
def tridiagonalise(
    a: DoublePointer,
    n: int,
    scale: float,
    diagonal: DoublePointer,
    off: DoublePointer,
    beta: DoublePointer,
    work: DoublePointer,
) -> None:
    """Reduce A to Q'AQ = T in place: T goes to `diagonal` (n) and `off` (n - 1), Q stays in a and beta for `rotate`.

    Row k of a keeps the vector v of the reflection 1 - beta[k] v v' that makes column k of A tridiagonal. `scale` is
    the size of the entries of A: a column smaller than 1e-40 of it is taken as 0, so that squares do not underflow.
    """
    for k in range(n - 2):
        v, first = shifted(a, k * n), k + 1
        diagonal[k] = v[k]
        size = 0.0
        for j in range(first + 1, n):
            size = max(size, abs(v[j]))
        if size <= 1e-40 * scale:
            beta[k], off[k] = 0.0, v[first]
            continue
        norm = math.sqrt(dot(shifted(v, first), shifted(v, first), n - first))
        alpha = -norm if v[first] > 0.0 else norm
        off[k] = alpha
        v[first] -= alpha
        strength = -1.0 / (alpha * v[first])
        beta[k] = strength
        for j in range(first, n):
            work[j] = 0.0
        for i in range(first, n):
            factor, row = strength * v[i], i * n
            for j in range(first, n):
                work[j] += factor * a[row + j]
        middle = 0.5 * strength * dot(shifted(v, first), shifted(work, first), n - first)
        for j in range(first, n):
            work[j] -= middle * v[j]
        for i in range(first, n):
            f, g, row = v[i], work[i], i * n
            for j in range(first, n):
                a[row + j] -= f * work[j] + g * v[j]
    if n > 1:
        diagonal[n - 2], off[n - 2] = a[(n - 2) * n + n - 2], a[(n - 2) * n + n - 1]
    diagonal[n - 1] = a[n * n - 1]


@vectorised
def _reflect(a: DoublePointer, n: int, beta: DoublePointer, x: DoublePointer, k: int) -> None:
    v, size = shifted(a, k * n + k + 1), n - k - 1
    factor = beta[k] * dot(v, shifted(x, k + 1), size)
    for j in range(size):
        x[k + 1 + j] -= factor * v[j]


def rotate(a: DoublePointer, n: int, beta: DoublePointer, x: DoublePointer) -> None:
    """x <- Q'x, Q as left by `tridiagonalise`."""
    for k in range(n - 2):
        _reflect(a, n, beta, x, k)


def rotate_back(a: DoublePointer, n: int, beta: DoublePointer, x: DoublePointer) -> None:
    """x <- Q x."""
    for k in range(n - 3, -1, -1):
        _reflect(a, n, beta, x, k)


def lowest_eigenvalue(
    diagonal: DoublePointer, off: DoublePointer, n: int, squares: DoublePointer
) -> tuple[float, float]:
    """The lowest eigenvalue of T, and a bound of all their sizes; within a few units in the last place of that bound.

    T - x has a negative pivot exactly where x lies above the lowest eigenvalue. Four values of x are tried at a time,
    since their divisions overlap; at most 27 rounds.
    """
    bound, low, high = 0.0, math.inf, math.inf
    before = 0.0
    for i in range(n):
        after = abs(off[i]) if i + 1 < n else 0.0
        low = min(low, diagonal[i] - before - after)
        high = min(high, diagonal[i])
        bound = max(bound, abs(diagonal[i]) + before + after)
        before = after
        squares[i] = max(after * after, TINY)
    if not bound < math.inf:
        return math.nan, bound
    for _ in range(27):
        width = 0.2 * (high - low)
        if not width > 0.25 * EPSILON * bound:
            break
        x0, x1, x2, x3 = low + width, low + 2.0 * width, low + 3.0 * width, low + 4.0 * width
        q0, q1, q2, q3 = diagonal[0] - x0, diagonal[0] - x1, diagonal[0] - x2, diagonal[0] - x3
        m0, m1, m2, m3 = q0, q1, q2, q3
        for i in range(1, n):
            d, s = diagonal[i], squares[i - 1]
            q0, q1, q2, q3 = d - x0 - s / q0, d - x1 - s / q1, d - x2 - s / q2, d - x3 - s / q3
            m0, m1, m2, m3 = min(m0, q0), min(m1, q1), min(m2, q2), min(m3, q3)
        if m0 < 0.0:
            high = x0
        elif m1 < 0.0:
            low, high = x0, x1
        elif m2 < 0.0:
            low, high = x1, x2
        elif m3 < 0.0:
            low, high = x2, x3
        else:
            low = x3
    return 0.5 * (low + high), bound


def lowest_eigenvector(
    diagonal: DoublePointer,
    off: DoublePointer,
    n: int,
    eigenvalue: float,
    bound: float,
    z: DoublePointer,
    top: DoublePointer,
    bottom: DoublePointer,
) -> None:
    """Write into z the unit eigenvector of T that belongs to a lowest eigenvalue known to working precision.

    T - eigenvalue is factorised from the top and from the bottom; where the two meet with the smallest pivot, z is
    largest. This needs no start vector and bounds the residual by a few units of rounding of T.
    """
    least = max(EPSILON * EPSILON * bound, TINY)
    for i in range(n):
        pivot = diagonal[i] - eigenvalue
        if i > 0:
            pivot -= off[i - 1] * (off[i - 1] / top[i - 1])
        top[i] = pivot if abs(pivot) > least else least
    for i in range(n - 1, -1, -1):
        pivot = diagonal[i] - eigenvalue
        if i < n - 1:
            pivot -= off[i] * (off[i] / bottom[i + 1])
        bottom[i] = pivot if abs(pivot) > least else least
    twist, smallest = 0, math.inf
    for i in range(n):
        pivot = abs(top[i] + bottom[i] - (diagonal[i] - eigenvalue))
        if pivot < smallest:
            twist, smallest = i, pivot
    z[twist] = 1.0
    for i in range(twist - 1, -1, -1):
        z[i] = -(off[i] / top[i]) * z[i + 1]
    for i in range(twist + 1, n):
        z[i] = -(off[i - 1] / bottom[i]) * z[i - 1]
    scale = 1.0 / math.sqrt(dot(z, z, n))
    for i in range(n):
        z[i] *= scale


def solve_shifted(
    diagonal: DoublePointer,
    off: DoublePointer,
    n: int,
    origin: float,
    shift: float,
    least: float,
    b: DoublePointer,
    x: DoublePointer,
    pivots: DoublePointer,
) -> None:
    """x <- (T - origin + shift)^-1 b for a positive definite matrix L D L'; pivots of D are kept above `least`."""
    for i in range(n):
        pivot, value = diagonal[i] - origin + shift, b[i]
        if i > 0:
            ratio = off[i - 1] / pivots[i - 1]
            pivot -= ratio * off[i - 1]
            value -= ratio * x[i - 1]
        pivots[i] = pivot if pivot > least else least
        x[i] = value
    for i in range(n - 1, -1, -1):
        value = x[i] / pivots[i]
        if i < n - 1:
            value -= off[i] / pivots[i] * x[i + 1]
        x[i] = value


def inverse_quadratic(off: DoublePointer, n: int, pivots: DoublePointer, x: DoublePointer) -> float:
    """x'(T - origin + shift)^-1 x with the factors that `solve_shifted` left."""
    total = value = 0.0
    for i in range(n):
        value = x[i] - (off[i - 1] / pivots[i - 1] * value if i > 0 else 0.0)
        total += value * value / pivots[i]
    return total
