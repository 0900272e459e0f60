"""Dense linear algebra of one instance: symmetric matrices of a few to a few hundred rows, nothing allocated.

Compiled functions for drivers; a matrix is a pointer to n*n numbers, row after row. NaN and infinity pass through;
every loop is bounded. Inner loops run along rows, so that LLVM vectorises them, over four rows at a time: what is read
once serves four times, and sixteen factors stay in registers. Such loops are `streaming`, their sums are added in an
order that depends on n alone: equal matrices give equal bits wherever they lie. From 20 rows on this is faster than
LAPACK as NumPy and SciPy call it (docs/minimisers.md).

    cholesky            H = U'U
    tridiagonalise      H = Q T Q' by Householder reflections, T tridiagonal; `rotate` and `rotate_back`
    lowest_eigenvalue   of T, by sections on the signs of pivots (Sturm), guided by the determinant
    lowest_eigenvector  of T, from its twisted factorisation
    solve_shifted       (T - origin + shift) x = b; `inverse_quadratic` is x'(T - origin + shift)^-1 x

Golub and Van Loan, Matrix Computations, 4th edition, sections 4.2, 8.3 and 8.4; Dhillon and Parlett (2004), Linear
Algebra and its Applications 387, for the twisted factorisation.
"""

from __future__ import annotations

import math

from ...compiler.machine_code.calling import bits_of, of_bits, shifted
from ...compiler.machine_code.signature import DoublePointer, streaming, vectorised
from .vectors import copy, zero

FLAT = 1e-12
"""A curvature above minus this part of the largest counts as not negative."""

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
    """The infinity norm; infinite if a number is NaN. Integers are compared: LLVM vectorises that."""
    top = 0
    for i in range(n):
        top = max(top, bits_of(abs(a[i])))
    size = of_bits(top)
    return size if size >= 0.0 else math.inf


@streaming
def subtract_products(
    s0: DoublePointer,
    s1: DoublePointer,
    s2: DoublePointer,
    s3: DoublePointer,
    t0: DoublePointer,
    t1: DoublePointer,
    t2: DoublePointer,
    t3: DoublePointer,
    n: int,
) -> None:
    """T <- T - S'S for four rows each, as far as it concerns the first four rows of S'S."""
    a0, a1, a2, a3 = s0[0], s0[1], s0[2], s0[3]
    b0, b1, b2, b3 = s1[0], s1[1], s1[2], s1[3]
    c0, c1, c2, c3 = s2[0], s2[1], s2[2], s2[3]
    d0, d1, d2, d3 = s3[0], s3[1], s3[2], s3[3]
    for j in range(n):
        x0, x1, x2, x3 = s0[j], s1[j], s2[j], s3[j]
        t0[j] = t0[j] - a0 * x0 - b0 * x1 - c0 * x2 - d0 * x3
        t1[j] = t1[j] - a1 * x0 - b1 * x1 - c1 * x2 - d1 * x3
        t2[j] = t2[j] - a2 * x0 - b2 * x1 - c2 * x2 - d2 * x3
        t3[j] = t3[j] - a3 * x0 - b3 * x1 - c3 * x2 - d3 * x3


@streaming
def _factor_panel(t0: DoublePointer, t1: DoublePointer, t2: DoublePointer, t3: DoublePointer, n: int) -> bool:
    """Four rows of H, from the diagonal on, become four rows of U; False if a pivot is not positive.

    The square on the diagonal is stored as it was used. Were it computed again, the loop would round it differently,
    and after cancellation a pivot would no longer fit its row: an error that grows with the condition of H.
    """
    p0 = t0[0]
    if not p0 > 0.0:
        return False
    u0 = math.sqrt(p0)
    r0 = 1.0 / u0
    a1, a2, a3 = t0[1] * r0, t0[2] * r0, t0[3] * r0
    p1 = t1[1] - a1 * a1
    if not p1 > 0.0:
        return False
    u1 = math.sqrt(p1)
    r1 = 1.0 / u1
    b2, b3 = (t1[2] - a1 * a2) * r1, (t1[3] - a1 * a3) * r1
    p2 = t2[2] - a2 * a2 - b2 * b2
    if not p2 > 0.0:
        return False
    u2 = math.sqrt(p2)
    r2 = 1.0 / u2
    c3 = (t2[3] - a2 * a3 - b2 * b3) * r2
    p3 = t3[3] - a3 * a3 - b3 * b3 - c3 * c3
    if not p3 > 0.0:
        return False
    u3 = math.sqrt(p3)
    r3 = 1.0 / u3
    t0[0], t0[1], t0[2], t0[3] = u0, a1, a2, a3
    t1[1], t1[2], t1[3] = u1, b2, b3
    t2[2], t2[3], t3[3] = u2, c3, u3
    for j in range(4, n):
        x0 = t0[j] * r0
        x1 = (t1[j] - a1 * x0) * r1
        x2 = (t2[j] - a2 * x0 - b2 * x1) * r2
        x3 = (t3[j] - a3 * x0 - b3 * x1 - c3 * x2) * r3
        t0[j], t1[j], t2[j], t3[j] = x0, x1, x2, x3
    return True


def cholesky(h: DoublePointer, n: int, u: DoublePointer) -> bool:
    """Write U with H = U'U into the upper triangle of u; False if H is not positive definite to working precision.

    A NaN in the upper triangle of H gives False as well. Four rows of U at a time; what lies below the diagonal is not
    to be read.
    """
    whole = n - n % 4
    for k in range(0, whole, 4):
        size = n - k
        t0 = shifted(u, k * n + k)
        t1, t2, t3 = shifted(t0, n), shifted(t0, 2 * n), shifted(t0, 3 * n)
        for i in range(k, k + 4):
            copy(shifted(h, i * n + k), shifted(u, i * n + k), size)
        for i in range(0, k, 4):
            s = shifted(u, i * n + k)
            subtract_products(s, shifted(s, n), shifted(s, 2 * n), shifted(s, 3 * n), t0, t1, t2, t3, size)
        if not _factor_panel(t0, t1, t2, t3, size):
            return False
    if whole == n:
        return True
    return _last_rows(h, n, whole, u)


def _last_rows(h: DoublePointer, n: int, k: int, u: DoublePointer) -> bool:
    """The rows of U from k, at most three."""
    second, third = min(k + 1, n - 1), min(k + 2, n - 1)
    s00 = s01 = s02 = s11 = s12 = s22 = 0.0
    for i in range(k):
        row = i * n
        x, y, z = u[row + k], u[row + second], u[row + third]
        s00 += x * x
        s01 += x * y
        s02 += x * z
        s11 += y * y
        s12 += y * z
        s22 += z * z
    pivot = h[k * n + k] - s00
    if not pivot > 0.0:
        return False
    root = math.sqrt(pivot)
    u[k * n + k] = root
    if k + 1 == n:
        return True
    a = (h[k * n + second] - s01) / root
    u[k * n + second] = a
    pivot = h[second * n + second] - s11 - a * a
    if not pivot > 0.0:
        return False
    middle = math.sqrt(pivot)
    u[second * n + second] = middle
    if k + 2 == n:
        return True
    b = (h[k * n + third] - s02) / root
    c = (h[second * n + third] - s12 - a * b) / middle
    u[k * n + third] = b
    u[second * n + third] = c
    pivot = h[third * n + third] - s22 - b * b - c * c
    if not pivot > 0.0:
        return False
    u[third * n + third] = math.sqrt(pivot)
    return True


@streaming
def subtract_two(a: DoublePointer, v: DoublePointer, w: DoublePointer, f: float, g: float, n: int) -> None:
    """a <- a - f w - g v."""
    for j in range(n):
        a[j] = a[j] - f * w[j] - g * v[j]


@streaming
def dot_four(
    s0: DoublePointer, s1: DoublePointer, s2: DoublePointer, s3: DoublePointer, b: DoublePointer, n: int
) -> tuple[float, float, float, float]:
    """The products of four rows with b."""
    d0 = d1 = d2 = d3 = 0.0
    for j in range(n):
        x = b[j]
        d0 += s0[j] * x
        d1 += s1[j] * x
        d2 += s2[j] * x
        d3 += s3[j] * x
    return d0, d1, d2, d3


def cholesky_solve(u: DoublePointer, n: int, b: DoublePointer) -> None:
    """b <- (U'U)^-1 b; four rows at a time, as in `cholesky`."""
    whole = n - n % 4
    for k in range(0, whole, 4):
        s0 = shifted(u, k * n + k)
        s1, s2, s3 = shifted(s0, n), shifted(s0, 2 * n), shifted(s0, 3 * n)
        x0 = b[k] / s0[0]
        x1 = (b[k + 1] - s0[1] * x0) / s1[1]
        x2 = (b[k + 2] - s0[2] * x0 - s1[2] * x1) / s2[2]
        x3 = (b[k + 3] - s0[3] * x0 - s1[3] * x1 - s2[3] * x2) / s3[3]
        b[k], b[k + 1], b[k + 2], b[k + 3] = x0, x1, x2, x3
        subtract_two(shifted(b, k + 4), shifted(s0, 4), shifted(s1, 4), x1, x0, n - k - 4)
        subtract_two(shifted(b, k + 4), shifted(s2, 4), shifted(s3, 4), x3, x2, n - k - 4)
    for i in range(whole, n):
        b[i] /= u[i * n + i]
        for j in range(i + 1, n):
            b[j] -= b[i] * u[i * n + j]
    for i in range(n - 1, whole - 1, -1):
        for j in range(i + 1, n):
            b[i] -= b[j] * u[i * n + j]
        b[i] /= u[i * n + i]
    for k in range(whole - 4, -1, -4):
        s0 = shifted(u, k * n + k)
        s1, s2, s3 = shifted(s0, n), shifted(s0, 2 * n), shifted(s0, 3 * n)
        d0, d1, d2, d3 = dot_four(
            shifted(s0, 4), shifted(s1, 4), shifted(s2, 4), shifted(s3, 4), shifted(b, k + 4), n - k - 4
        )
        x3 = (b[k + 3] - d3) / s3[3]
        x2 = (b[k + 2] - d2 - s2[3] * x3) / s2[2]
        x1 = (b[k + 1] - d1 - s1[2] * x2 - s1[3] * x3) / s1[1]
        x0 = (b[k] - d0 - s0[1] * x1 - s0[2] * x2 - s0[3] * x3) / s0[0]
        b[k], b[k + 1], b[k + 2], b[k + 3] = x0, x1, x2, x3


@streaming
def reflect(v: DoublePointer, strength: float, x: DoublePointer, n: int) -> None:
    """x <- x - strength v v'x."""
    product = 0.0
    for j in range(n):
        product += v[j] * x[j]
    factor = strength * product
    for j in range(n):
        x[j] -= factor * v[j]


@streaming
def _update_and_multiply(
    a: DoublePointer,
    strength: float,
    v: DoublePointer,
    w: DoublePointer,
    x: DoublePointer,
    y: DoublePointer,
    n: int,
) -> None:
    """A row of `tridiagonalise`, from the diagonal on."""
    f, g, h, y0 = strength * v[0], strength * w[0], x[0], y[0]
    s = 0.0
    for j in range(n):
        e = a[j] - f * w[j] - g * v[j]
        a[j] = e
        y[j] += h * e
        s += e * x[j]
    y[0] = y0 + s


@streaming
def _update_and_multiply_four(
    a0: DoublePointer,
    a1: DoublePointer,
    a2: DoublePointer,
    a3: DoublePointer,
    strength: float,
    v: DoublePointer,
    w: DoublePointer,
    x: DoublePointer,
    y: DoublePointer,
    n: int,
) -> None:
    """Four rows of `tridiagonalise`, from the first one's diagonal on."""
    f0, f1, f2, f3 = strength * v[0], strength * v[1], strength * v[2], strength * v[3]
    g0, g1, g2, g3 = strength * w[0], strength * w[1], strength * w[2], strength * w[3]
    h0, h1, h2, h3 = x[0], x[1], x[2], x[3]
    y0, y1, y2, y3 = y[0], y[1], y[2], y[3]
    s0 = s1 = s2 = s3 = 0.0
    for j in range(n):
        p, q, r = w[j], v[j], x[j]
        e0 = a0[j] - f0 * p - g0 * q
        e1 = a1[j] - f1 * p - g1 * q
        e2 = a2[j] - f2 * p - g2 * q
        e3 = a3[j] - f3 * p - g3 * q
        a0[j], a1[j], a2[j], a3[j] = e0, e1, e2, e3
        y[j] = y[j] + h0 * e0 + h1 * e1 + h2 * e2 + h3 * e3
        s0 += e0 * r
        s1 += e1 * r
        s2 += e2 * r
        s3 += e3 * r
    y[0], y[1], y[2], y[3] = y0 + s0, y1 + s1, y2 + s2, y3 + s3


def tridiagonalise(
    a: DoublePointer,
    n: int,
    scale: float,
    diagonal: DoublePointer,
    off: DoublePointer,
    beta: DoublePointer,
    work: DoublePointer,
) -> None:
    """Reduce A to Q'AQ = T in place: T to `diagonal` and `off` (n numbers each), Q stays in a and beta for `rotate`.

    Row k of a keeps the vector v of the reflection 1 - beta[k] v v' that makes column k of A tridiagonal. `scale` is
    the size of the entries of A: a column smaller than 1e-40 of it is taken as 0, so that squares do not underflow.

    A reflection 1 - s v v' takes A to A - s v w' - s w v' with y = Av and w = y - (s/2) v v'y. Rewriting the rows waits
    for the next product, y = Ax, which passes over them anyway: only row k, which x is made from, is needed before. So
    the upper triangle of A is read and written once a step. A row of it stands for the column, too: y gets the row
    times an entry of x, and its own entry the row's product with x. Four rows at a time, counted from the last; the
    square that they have on the diagonal is kept whole.
    """
    v, w, y, previous = work, work, off, 0.0  # w and y are free beyond k
    zero(w, n)
    for k in range(n - 2):
        x, first, size = shifted(a, k * n), k + 1, n - k - 1
        subtract_two(shifted(x, k), shifted(v, k), shifted(w, k), previous * v[k], previous * w[k], n - k)
        diagonal[k] = x[k]
        alpha, strength = x[first], 0.0
        rest = dot(shifted(x, first + 1), shifted(x, first + 1), size - 1)
        if not rest <= 1e-80 * scale * scale:
            alpha = -math.copysign(math.sqrt(rest + alpha * alpha), alpha)
            x[first] -= alpha
            strength = -1.0 / (alpha * x[first])
        zero(shifted(y, first), size)
        whole = first + size % 4
        for i in range(first, whole):
            row = shifted(a, i * n + i)
            _update_and_multiply(row, previous, shifted(v, i), shifted(w, i), shifted(x, i), shifted(y, i), n - i)
        for i in range(whole, n, 4):
            a0 = shifted(a, i * n + i)
            a1, a2, a3 = shifted(a0, n), shifted(a0, 2 * n), shifted(a0, 3 * n)
            _update_and_multiply_four(
                a0, a1, a2, a3, previous, shifted(v, i), shifted(w, i), shifted(x, i), shifted(y, i), n - i
            )
        reflect(shifted(x, first), 0.5 * strength, shifted(y, first), size)
        off[k], beta[k] = alpha, strength
        v, w, y, previous = x, y, w, strength
    last = n - 1
    if n > 1:
        k, f, g = n - 2, previous * v[n - 2], previous * w[n - 2]
        diagonal[k] = a[k * n + k] - f * w[k] - g * v[k]
        off[k] = a[k * n + last] - f * w[last] - g * v[last]
    diagonal[last] = a[n * n - 1] - 2.0 * previous * v[last] * w[last]


def rotate(a: DoublePointer, n: int, beta: DoublePointer, x: DoublePointer) -> None:
    """x <- Q'x, Q as left by `tridiagonalise`."""
    for k in range(n - 2):
        reflect(shifted(a, k * n + k + 1), beta[k], shifted(x, k + 1), n - k - 1)


def rotate_back(a: DoublePointer, n: int, beta: DoublePointer, x: DoublePointer) -> None:
    """x <- Q x."""
    for k in range(n - 3, -1, -1):
        reflect(shifted(a, k * n + k + 1), beta[k], shifted(x, k + 1), n - k - 1)


def lowest_eigenvalue(
    diagonal: DoublePointer, off: DoublePointer, n: int, squares: DoublePointer
) -> tuple[float, float]:
    """The lowest eigenvalue of T, and a bound of all their sizes; within a few units in the last place of that bound.

    T - x has a negative pivot exactly where x lies above the lowest eigenvalue. Four values of x are tried at a time,
    since their divisions overlap: equal parts of the bracket, or where a cubic through the determinants of the last
    four puts the eigenvalue, if it is sure to less than such a part. At most 54 rounds; about 8 where it stands alone.
    """
    bound, low, high = 0.0, math.inf, math.inf
    before = 0.0
    for i in range(n):
        after = abs(off[i]) if i + 1 < n else 0.0
        low = min(low, diagonal[i] - before - after)
        high = min(high, diagonal[i])
        size = before + abs(diagonal[i]) + after
        if not size <= bound:
            bound = size if size >= 0.0 else math.inf
        before = after
        squares[i] = max(after * after, TINY)
    if not bound < math.inf:
        return math.nan, bound
    fine = EPSILON * bound
    unit = 1.0 / max(bound, TINY)
    step = 0.2 * (high - low)
    start, guessed = low + step, False
    for _ in range(54):
        if not 0.2 * (high - low) > 0.25 * fine:
            break
        x0, x1, x2, x3 = start, start + step, start + 2.0 * step, start + 3.0 * step
        q0, q1, q2, q3 = diagonal[0] - x0, diagonal[0] - x1, diagonal[0] - x2, diagonal[0] - x3
        m0, m1, m2, m3 = q0, q1, q2, q3
        p0, p1, p2, p3 = q0 * unit, q1 * unit, q2 * unit, q3 * unit
        for i in range(1, n):
            d, s = diagonal[i], squares[i - 1]
            q0, q1, q2, q3 = d - x0 - s / q0, d - x1 - s / q1, d - x2 - s / q2, d - x3 - s / q3
            m0, m1, m2, m3 = min(m0, q0), min(m1, q1), min(m2, q2), min(m3, q3)
            p0, p1, p2, p3 = p0 * (q0 * unit), p1 * (q1 * unit), p2 * (q2 * unit), p3 * (q3 * unit)
            if not 1e-60 < abs(p1) < 1e60:
                factor = 1e60 if abs(p1) < 1.0 else 1e-60
                p0, p1, p2, p3 = p0 * factor, p1 * factor, p2 * factor, p3 * factor
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
        place, error = _where_cubic_is_zero(p0, p1, p2, p3)
        centre, reach = start + place * step, max(error * step, 8.0 * fine)
        step = 0.2 * (high - low)
        missed = guessed and (m0 < 0.0 or m3 >= 0.0)
        guessed = not missed and low < centre - reach and centre + reach < high and reach < step
        start = centre - reach if guessed else low + step
        step = 2.0 / 3.0 * reach if guessed else step
    return 0.5 * (low + high), bound


def _where_cubic_is_zero(p0: float, p1: float, p2: float, p3: float) -> tuple[float, float]:
    """Where x, as a cubic of p through p(0) to p(3), is for p = 0, and how far its two parabolas differ (Neville)."""
    x01, x12, x23 = p0 / (p0 - p1), (2.0 * p1 - p2) / (p1 - p2), (3.0 * p2 - 2.0 * p3) / (p2 - p3)
    x012, x123 = (x12 * p0 - x01 * p2) / (p0 - p2), (x23 * p1 - x12 * p3) / (p1 - p3)
    return (x123 * p0 - x012 * p3) / (p0 - p3), abs(x123 - x012)


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
    inverses: DoublePointer,
    ratios: DoublePointer,
) -> None:
    """x <- (T - origin + shift)^-1 b for a positive definite matrix L D L'; pivots of D are kept above `least`.

    `inverses` <- 1/D, `ratios` <- what L has below its diagonal.
    """
    coupling = value = 0.0
    for i in range(n):
        pivot = diagonal[i] - origin + shift - coupling
        inverse = 1.0 / (pivot if pivot > least else least)
        value = b[i] - value
        entry = off[i] if i < n - 1 else 0.0
        ratio = entry * inverse
        inverses[i], ratios[i], x[i] = inverse, ratio, value * inverse
        coupling = ratio * entry
        value *= ratio
    value = 0.0
    for i in range(n - 1, -1, -1):
        value = x[i] - ratios[i] * value
        x[i] = value


def inverse_quadratic(n: int, inverses: DoublePointer, ratios: DoublePointer, x: DoublePointer) -> float:
    """x'(T - origin + shift)^-1 x with the factors that `solve_shifted` left."""
    total = value = 0.0
    for i in range(n):
        value = x[i] - value
        total += value * value * inverses[i]
        value *= ratios[i]
    return total
