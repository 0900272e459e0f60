"""Symmetric matrices that are a few small blocks: factors, solutions of least length, and the arrow around them.

    H = | Y   C |       H - s is positive definite exactly where A - s is, and the Schur complement
        | C'  A |           S(s) = Y - s - C (A - s)^-1 C'

A is made of blocks, so that all this costs what they cost one by one. The lowest eigenvalue of H is where that of S(s)
is 0, for s below those of A: a function that falls and is concave there. Newton's method on it takes Rayleigh
quotients of H, u the lowest eigenvector of S(s) and f its eigenvalue,

    s + f / (1 + |(A - s)^-1 C'u|^2)      never below the lowest eigenvalue of H

so it comes down to it from the right in a few steps. From the left it can pass an eigenvalue of A: then the bracket is
halved.

Compiled functions for drivers, as in linear_algebra.py.
"""

from __future__ import annotations

import math

from ..compiler.calling import shifted
from ..compiler.signature import DoublePointer, IntegerPointer
from .descend import FLAT
from .linear_algebra import cholesky, cholesky_solve, dot, lowest_eigenvector, rotate_back
from .semidefinite import combine, project, row_space, solve_in_range
from .trust_region import spectrum
from .vectors import copy

FIRM = 1e-8
"""A matrix whose pivots are all above this part of their diagonal entries is positive definite, without a look at it."""

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


def subtract_block(
    c: DoublePointer, w: DoublePointer, n: int, coupled: IntegerPointer, count: int, s: DoublePointer, k: int
) -> None:
    """S <- S - C W' for the `count` rows of C and of W = (A^+ C')' of one block; both triangles alike."""
    for i in range(count):
        row = coupled[i]
        for j in range(i, count):
            column = coupled[j]
            entry = s[row * k + column] - dot(shifted(c, i * n), shifted(w, j * n), n)
            s[row * k + column] = entry
            s[column * k + row] = entry


def schur_complement_below(
    shift: float,
    corner: DoublePointer,
    coupling: DoublePointer,
    blocks: DoublePointer,
    kept: int,
    count: int,
    sizes: IntegerPointer,
    couplings: IntegerPointer,
    coupled: IntegerPointer,
    solved: DoublePointer,
    factors: DoublePointer,
    s: DoublePointer,
) -> bool:
    """S(shift) to s and ((A - shift)^-1 C')' to `solved`; False where A - shift is not positive definite."""
    copy(corner, s, kept * kept)
    for i in range(kept):
        s[i * kept + i] -= shift
    met, c, a = 0, 0, 0
    for block in range(count):
        n, rows = sizes[block], couplings[block]
        own, factor = shifted(factors, 2 * a), shifted(factors, 2 * a + n * n)
        copy(shifted(blocks, a), own, n * n)
        for i in range(n):
            own[i * n + i] -= shift
        if not cholesky(own, n, factor):
            return False
        w = shifted(solved, c)
        copy(shifted(coupling, c), w, rows * n)
        for i in range(rows):
            cholesky_solve(factor, n, shifted(w, i * n))
        subtract_block(shifted(coupling, c), w, n, shifted(coupled, met), rows, s, kept)
        met += rows
        c += rows * n
        a += n * n
    return True


def stretch(
    solved: DoublePointer,
    u: DoublePointer,
    count: int,
    sizes: IntegerPointer,
    couplings: IntegerPointer,
    coupled: IntegerPointer,
    work: DoublePointer,
) -> float:
    """|W'u|^2 over all blocks, W = `solved`; `work` has room for the largest block."""
    met, c, total = 0, 0, 0.0
    for block in range(count):
        n, rows = sizes[block], couplings[block]
        for j in range(n):
            work[j] = 0.0
        for i in range(rows):
            factor = u[coupled[met + i]]
            for j in range(n):
                work[j] += factor * solved[c + i * n + j]
        total += dot(work, work, n)
        met += rows
        c += rows * n
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
    count: int,
    sizes: IntegerPointer,
    couplings: IntegerPointer,
    coupled: IntegerPointer,
    solved: DoublePointer,
    factors: DoublePointer,
    work: DoublePointer,
    memory: DoublePointer,
) -> float:
    """The lowest eigenvalue of H, NaN if H is not finite.

    solved    as many numbers as `coupling`
    factors   twice as many as `blocks`
    work      n*n + 5n for the largest block
    memory    2 K*K + 8 K
    """
    c = a = 0
    for block in range(count):
        c += couplings[block] * sizes[block]
        a += sizes[block] * sizes[block]
    square = dot(corner, corner, kept * kept) + 2.0 * dot(coupling, coupling, c) + dot(blocks, blocks, a)
    if not square < math.inf:
        return math.nan
    bound = math.sqrt(square)
    s, u = memory, shifted(memory, kept * kept)
    space = shifted(u, kept)
    pole, a = math.inf, 0
    for block in range(count):
        lowest, size = spectrum(shifted(blocks, a), sizes[block], work)
        pole = min(pole, lowest)
        a += sizes[block] * sizes[block]
    high, size = spectrum(corner, kept, space)
    high = min(high, pole)
    low = -bound * (1.0 + SHARP)
    tolerance = SHARP * bound
    shift = 0.0 if pole > tolerance else pole - 1e-3 * bound
    for _ in range(MOST):
        if high - low <= tolerance:
            break
        if schur_complement_below(
            shift, corner, coupling, blocks, kept, count, sizes, couplings, coupled, solved, factors, s
        ):
            value = lowest_pair(s, kept, u, space)
            quotient = shift + value / (1.0 + stretch(solved, u, count, sizes, couplings, coupled, work))
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
