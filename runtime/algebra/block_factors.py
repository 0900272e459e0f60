"""Symmetric matrices that are a few small blocks: factors, solutions of least length, and the arrow around them.

    H = | Y   C |       H - s is positive definite exactly where A - s is, and the Schur complement
        | C'  A |           S(s) = Y - s - C (A - s)^-1 C'

A is made of blocks, so that all this costs what they cost one by one. The lowest eigenvalue of H is where that of S(s)
is 0, for s below those of A: a function that falls and is concave there. Newton's method on it takes Rayleigh
quotients of H, u the lowest eigenvector of S(s) and f its eigenvalue,

    s + f / (1 + |(A - s)^-1 C u|^2)       never below the lowest eigenvalue of H

so it comes down to it from the right in a few steps. From the left it can pass an eigenvalue of A: then the bracket is
halved.

Compiled functions for drivers, as in linear_algebra.py.
"""

from __future__ import annotations

import math

from ...compiler.machine_code.calling import shifted
from ...compiler.machine_code.signature import DoublePointer, IntegerPointer, streaming
from .linear_algebra import FLAT, cholesky, cholesky_solve, dot, lowest_eigenvector, rotate_back
from .semidefinite import combine, project, row_space, solve_in_range
from .trust_region import spectrum
from .vectors import add_scaled, copy, scale, zero

FIRM = 1e-8
"""A matrix whose pivots are all above this part of their diagonal entries is positive definite without another look."""

SHARP = 1e-14
"""The lowest eigenvalue is found to this part of the Frobenius norm."""

MOST = 200
"""Steps at most: a bracket that is only halved needs 50."""


def factor_block(a: DoublePointer, n: int, factor: DoublePointer, work: DoublePointer) -> int:
    """Factorise one block: n + 1 by Cholesky, U in `factor`; 0 to n the rank of a singular one; -1 if indefinite.

    Of a singular one Q and L of semidefinite.py are in `factor` and n*n numbers behind. `factor` has 2 n*n numbers,
    `work` n*n + 5n.
    """
    definite = cholesky(a, n, factor)
    if definite:
        firm = True
        for i in range(n):
            pivot = factor[i * n + i]
            firm = firm and pivot * pivot > FIRM * a[i * n + i]
        if firm:
            return n + 1
    lowest, bound = spectrum(a, n, work)
    if lowest < -FLAT * bound:
        return -1
    if definite and lowest > FLAT * bound:
        return n + 1
    rank = row_space(a, n, factor, shifted(factor, n * n), work)
    if rank == n and definite:
        cholesky(a, n, factor)
        return n + 1
    return rank


def work_for(n: int, count: int) -> int:
    """Working memory for blocks of up to n unknowns that meet up to `count` kept ones."""
    return n * n + 8 * n + n * count + count


def solve_block(factor: DoublePointer, code: float, n: int, x: DoublePointer, work: DoublePointer) -> None:
    """x <- A^+ x for what `factor_block` left and returned; `work` has n numbers."""
    if code > n:
        cholesky_solve(factor, n, x)
    else:
        rank = whole_number(code)
        project(factor, rank, n, x, work)
        solve_in_range(shifted(factor, n * n), rank, work)
        combine(factor, rank, n, work, x)


def whole_number(stored: float) -> int:
    """The integer, at least -1, that was stored as a float64."""
    found = -1
    while found < stored - 0.5:
        found += 1
    return found


def half_solve(factor: DoublePointer, code: float, n: int, c: DoublePointer, count: int, v: DoublePointer) -> int:
    """V, with V'V = C'A^+ C, for C of n rows of `count` numbers; returns how many rows V has.

    U'V = C by Cholesky; L'V = QC of a singular block. All rows at once, so that loops run along them.
    """
    if code > n:
        copy(c, v, n * count)
        for i in range(n):
            row = shifted(v, i * count)
            for k in range(i):
                add_scaled(-factor[k * n + i], shifted(v, k * count), row, count)
            scale(1.0 / factor[i * n + i], row, count)
        return n
    rank, triangle = whole_number(code), shifted(factor, n * n)
    zero(v, rank * count)
    for k in range(rank - 1, -1, -1):
        row = shifted(v, k * count)
        for j in range(n):
            add_scaled(factor[k * n + j], shifted(c, j * count), row, count)
        for j in range(k + 1, rank):
            add_scaled(-triangle[j * rank + k], shifted(v, j * count), row, count)
        scale(1.0 / triangle[k * rank + k], row, count)
    return rank


@streaming
def _combine_rows(v: DoublePointer, rows: int, count: int, first: int, out: DoublePointer) -> None:
    """out[j] <- the sum over rows of v[first] v[j], for j from `first` on; three rows at a time."""
    for j in range(first, count):
        out[j] = 0.0
    for d in range(0, rows - 2, 3):
        a = d * count
        b, c = a + count, a + 2 * count
        x, y, z = v[a + first], v[b + first], v[c + first]
        for j in range(first, count):
            out[j] += x * v[a + j] + y * v[b + j] + z * v[c + j]
    for d in range(rows - rows % 3, rows):
        a = d * count
        x = v[a + first]
        for j in range(first, count):
            out[j] += x * v[a + j]


def subtract_square(
    v: DoublePointer, rows: int, coupled: IntegerPointer, count: int, s: DoublePointer, k: int, work: DoublePointer
) -> None:
    """S <- S - V'V in the rows and columns `coupled` (rising) of the upper triangle; `work` has `count` numbers."""
    for i in range(count):
        _combine_rows(v, rows, count, i, work)
        row = shifted(s, coupled[i] * k)
        for j in range(i, count):
            row[coupled[j]] -= work[j]


def mirror(s: DoublePointer, k: int) -> None:
    """Copy the upper triangle to the lower one."""
    for i in range(k):
        for j in range(i):
            s[i * k + j] = s[j * k + i]


def schur_complement_below(
    shift: float,
    corner: DoublePointer,
    coupling: DoublePointer,
    blocks: DoublePointer,
    kept: int,
    number: int,
    sizes: IntegerPointer,
    couplings: IntegerPointer,
    coupled: IntegerPointer,
    factors: DoublePointer,
    work: DoublePointer,
    s: DoublePointer,
) -> bool:
    """S(shift) to s, and factors of A - shift; False where that is not positive definite."""
    copy(corner, s, kept * kept)
    for i in range(kept):
        s[i * kept + i] -= shift
    met, c, a = 0, 0, 0
    for block in range(number):
        n, count = sizes[block], couplings[block]
        own, factor = shifted(factors, 2 * a + n * n), shifted(factors, 2 * a)
        copy(shifted(blocks, a), own, n * n)
        for i in range(n):
            own[i * n + i] -= shift
        if not cholesky(own, n, factor):
            return False
        half_solve(factor, n + 1.0, n, shifted(coupling, c), count, work)
        subtract_square(work, n, shifted(coupled, met), count, s, kept, shifted(work, n * count))
        met += count
        c += n * count
        a += n * n
    mirror(s, kept)
    return True


def stretch(
    u: DoublePointer,
    coupling: DoublePointer,
    number: int,
    sizes: IntegerPointer,
    couplings: IntegerPointer,
    coupled: IntegerPointer,
    factors: DoublePointer,
    work: DoublePointer,
) -> float:
    """|(A - shift)^-1 C u|^2 with the factors that `schur_complement_below` left."""
    met, c, a, total = 0, 0, 0, 0.0
    for block in range(number):
        n, count = sizes[block], couplings[block]
        for i in range(n):
            work[i] = 0.0
            for j in range(count):
                work[i] += coupling[c + i * count + j] * u[coupled[met + j]]
        cholesky_solve(shifted(factors, 2 * a), n, work)
        total += dot(work, work, n)
        met += count
        c += n * count
        a += n * n
    return total


def lowest_pair(s: DoublePointer, n: int, u: DoublePointer, space: DoublePointer) -> float:
    """The lowest eigenvalue of S and its unit eigenvector; `space` has n*n + 7n numbers."""
    lowest, bound = spectrum(s, n, space)
    if n == 1:
        u[0] = 1.0
        return lowest
    diagonal, off, beta = shifted(space, n * n), shifted(space, n * n + n), shifted(space, n * n + 2 * n)
    lowest_eigenvector(diagonal, off, n, lowest, bound, u, shifted(space, n * n + 5 * n), shifted(space, n * n + 6 * n))
    rotate_back(space, n, beta, u)
    return lowest


def lowest_of_arrow(
    corner: DoublePointer,
    coupling: DoublePointer,
    blocks: DoublePointer,
    kept: int,
    number: int,
    sizes: IntegerPointer,
    couplings: IntegerPointer,
    coupled: IntegerPointer,
    factors: DoublePointer,
    work: DoublePointer,
    memory: DoublePointer,
) -> float:
    """The lowest eigenvalue of H, NaN if H is not finite.

    factors   twice as many numbers as `blocks`
    work      work_for(n, count) of the largest block
    memory    2 K*K + 8 K
    """
    c = a = 0
    for block in range(number):
        c += couplings[block] * sizes[block]
        a += sizes[block] * sizes[block]
    square = dot(corner, corner, kept * kept) + 2.0 * dot(coupling, coupling, c) + dot(blocks, blocks, a)
    if not square < math.inf:
        return math.nan
    bound = math.sqrt(square)
    s, u = memory, shifted(memory, kept * kept)
    space = shifted(u, kept)
    pole, a = math.inf, 0
    for block in range(number):
        lowest, _ = spectrum(shifted(blocks, a), sizes[block], work)
        pole = min(pole, lowest)
        a += sizes[block] * sizes[block]
    high, _ = spectrum(corner, kept, space)
    high = min(high, pole)
    low = -bound * (1.0 + SHARP)
    tolerance = SHARP * bound
    shift = 0.0 if pole > tolerance else pole - 1e-3 * bound
    for _step in range(MOST):
        if high - low <= tolerance:
            break
        if schur_complement_below(
            shift, corner, coupling, blocks, kept, number, sizes, couplings, coupled, factors, work, s
        ):
            value = lowest_pair(s, kept, u, space)
            quotient = shift + value / (1.0 + stretch(u, coupling, number, sizes, couplings, coupled, factors, work))
            if value >= 0.0:
                low = max(low, shift)
            high = min(high, quotient)
            if abs(quotient - shift) <= tolerance:
                break
        else:
            pole = min(pole, shift)
            high = min(high, shift)
        shift = high
        if not shift < pole - tolerance:
            shift = 0.5 * (low + pole)
    return high
