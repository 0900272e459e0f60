"""Dense symmetric positive semi-definite matrices that may be singular: rank, range, minimum-norm solution.

Compiled functions for drivers, as in linear_algebra.py. A matrix H (n x n) of rank r is written as

    H = Q' L' L Q,     Q (r x n) with orthonormal rows that span the range,     L (r x r) lower triangular

a complete orthogonal decomposition (Golub and Van Loan, Matrix Computations, 4th edition, section 5.4.7): L Q are the
rows of Cholesky's factor. Then H^+ = Q' (L'L)^-1 Q, Q'Q is the projection on the range, 1 - Q'Q that on the null space.

The rank is decided by the pivots of Cholesky's factorisation, the largest first: one below 1e-12 of the diagonal entry
that it is left of counts as 0 (`RANK`). Units of the unknowns do not matter to that: scaling one scales pivot and entry
alike. Without pivoting, rounding in pivots grows with the condition of what comes before, and hides the rank.
"""

from __future__ import annotations

import math

from ...compiler.machine_code.calling import shifted
from ...compiler.machine_code.signature import DoublePointer, streaming
from .linear_algebra import dot

RANK = 1e-12
"""A pivot below this part of its diagonal entry is rounding: kernels sum many terms, each with its own."""


@streaming
def _add(factor: float, a: DoublePointer, out: DoublePointer, n: int) -> None:
    """out <- out + factor a."""
    for i in range(n):
        out[i] += factor * a[i]


@streaming
def _add_four(
    f0: float,
    a0: DoublePointer,
    f1: float,
    a1: DoublePointer,
    f2: float,
    a2: DoublePointer,
    f3: float,
    a3: DoublePointer,
    out: DoublePointer,
    n: int,
) -> None:
    """out <- out + f0 a0 + f1 a1 + f2 a2 + f3 a3."""
    for i in range(n):
        out[i] += (f0 * a0[i] + f1 * a1[i]) + (f2 * a2[i] + f3 * a3[i])


@streaming
def _dot_four(
    a0: DoublePointer, a1: DoublePointer, a2: DoublePointer, a3: DoublePointer, x: DoublePointer, n: int
) -> tuple[float, float, float, float]:
    """The sums of a0 x, a1 x, a2 x and a3 x."""
    s0 = s1 = s2 = s3 = 0.0
    for i in range(n):
        s0 += a0[i] * x[i]
        s1 += a1[i] * x[i]
        s2 += a2[i] * x[i]
        s3 += a3[i] * x[i]
    return s0, s1, s2, s3


def project(q: DoublePointer, rank: int, n: int, x: DoublePointer, coefficients: DoublePointer) -> None:
    """coefficients <- Q x, r numbers."""
    whole = rank - rank % 4
    for k in range(0, whole, 4):
        q0, c = shifted(q, k * n), shifted(coefficients, k)
        c[0], c[1], c[2], c[3] = _dot_four(q0, shifted(q0, n), shifted(q0, 2 * n), shifted(q0, 3 * n), x, n)
    for k in range(whole, rank):
        coefficients[k] = dot(shifted(q, k * n), x, n)


def add_combination(
    factor: float, q: DoublePointer, rank: int, n: int, coefficients: DoublePointer, step: int, x: DoublePointer
) -> None:
    """x <- x + factor Q' coefficients, of which there is one every `step` numbers."""
    whole = rank - rank % 4
    for k in range(0, whole, 4):
        q0, c = shifted(q, k * n), shifted(coefficients, k * step)
        f0, f1, f2, f3 = factor * c[0], factor * c[step], factor * c[2 * step], factor * c[3 * step]
        _add_four(f0, q0, f1, shifted(q0, n), f2, shifted(q0, 2 * n), f3, shifted(q0, 3 * n), x, n)
    for k in range(whole, rank):
        _add(factor * coefficients[k * step], shifted(q, k * n), x, n)


def combine(q: DoublePointer, rank: int, n: int, coefficients: DoublePointer, x: DoublePointer) -> None:
    """x <- Q' coefficients."""
    for i in range(n):
        x[i] = 0.0
    add_combination(1.0, q, rank, n, coefficients, 1, x)


def row_space(h: DoublePointer, n: int, q: DoublePointer, triangle: DoublePointer, work: DoublePointer) -> int:
    """Write Q to q, r rows of n numbers, and L to `triangle`, r rows of r numbers; return the rank r.

    `work` has n numbers. Cholesky's factorisation with diagonal pivoting, the largest pivot in units of its diagonal
    entry first, a row of the factor at a time. The rows are made orthonormal by Gram and Schmidt's method, twice, which
    is enough (Giraud et al. 2005, Numerische Mathematik 101).
    """
    left = work  # what is left of the diagonal; -1 where it has been a pivot
    for i in range(n):
        left[i] = h[i * n + i]
    rank = 0
    while rank < n:
        best, largest = 0, 0.0
        for i in range(n):
            if left[i] > largest * h[i * n + i]:
                best, largest = i, left[i] / h[i * n + i]
        if not largest > RANK:
            break
        row, scale = shifted(q, rank * n), 1.0 / math.sqrt(left[best])
        for j in range(n):
            row[j] = h[best * n + j]
        add_combination(-1.0, q, rank, n, shifted(q, best), n, row)
        for j in range(n):
            row[j] *= scale
            left[j] -= row[j] * row[j]
        left[best] = -1.0
        rank += 1
    for k in range(rank):
        row, own, again = shifted(q, k * n), shifted(triangle, k * rank), work
        project(q, k, n, row, own)
        add_combination(-1.0, q, k, n, own, 1, row)
        project(q, k, n, row, again)
        add_combination(-1.0, q, k, n, again, 1, row)
        for j in range(k):
            own[j] += again[j]
        for j in range(k, rank):
            own[j] = 0.0
        own[k] = math.sqrt(dot(row, row, n))
        for j in range(n):
            row[j] /= own[k]
    return rank


def solve_in_range(triangle: DoublePointer, rank: int, c: DoublePointer) -> None:
    """c <- (L'L)^-1 c, r numbers."""
    for k in range(rank - 1, -1, -1):
        c[k] /= triangle[k * rank + k]
        _add(-c[k], shifted(triangle, k * rank), c, k)
    for k in range(rank):
        own = shifted(triangle, k * rank)
        c[k] = (c[k] - dot(own, c, k)) / own[k]


def null_part(
    q: DoublePointer, rank: int, n: int, x: DoublePointer, coefficients: DoublePointer, out: DoublePointer
) -> None:
    """out <- x - Q'Q x, and coefficients <- Q x."""
    project(q, rank, n, x, coefficients)
    combine(q, rank, n, coefficients, out)
    for i in range(n):
        out[i] = x[i] - out[i]
