"""Incomplete factors of a matrix with few diagonals (images, grids, chains), applied by sweeps that LLVM vectorises.

A symmetric matrix A = L + diag + L' is approximated by M = (P + L) P^-1 (P + L'), with a diagonal P of pivots that
makes the rows of M sum to nearly what those of A do, once the diagonal of A is scaled to ones (modified incomplete
Cholesky factorisation without fill: Gustafsson 1978, BIT 18; Meijerink and van der Vorst 1977). No pivot is below what
stands under it in L, as holds for the exact pivots of diagonally dominant matrices: so sweeps cannot blow up, whatever
A is. Conjugate gradients on S A S between the two factors, S = P^-1/2, take one sweep back and one forth a step and no
product with A (Eisenstat 1981, SIAM Journal on Scientific and Statistical Computing 2): with l = S L S,

    (1 + l)^-1 S A S (1 + l')^-1 p = t + (1 + l)^-1 (p + (diag/P - 2) t),     t = (1 + l')^-1 p.

A sweep goes row by row, each waiting for those that it needs. So rows are put into an order in which those that do not
need each other follow each other (level scheduling: Saad, Iterative Methods for Sparse Linear Systems, section 12.4),
for an image along its antidiagonals. There the entries of a diagonal of A lie at one distance from their rows over long
runs, and a run is one vectorised loop. A chain, of which the factors are exact, stays in order, its rows one by one;
where else no runs are long (bending, narrow images, small volumes), the diagonal of A alone is faster.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compiler.calls.arrays import address_of
from ...compiler.machine_code.calling import integer_pointer_at, rough_inverse_root, shifted
from ...compiler.machine_code.native import Native, native
from ...compiler.machine_code.signature import DoublePointer, IntegerPointer, streaming
from . import vectors
from .linear_algebra import largest

Integers = NDArray[np.int64]

MOST_DIAGONALS = 16
"""Below the main one; a matrix with more is not of this kind."""

SPARSEST = 0.3
"""Part of the numbers on its diagonals that a matrix of this kind has at least."""

SHORTEST = 10
"""Mean length of runs, for every two diagonals, below which sweeps take longer than what they save."""

MODIFIED = 0.97
"""How much of the fill that is left out goes to the pivots; with all of it they may vanish."""

LEAST_PIVOT = 0.05
"""Part of the diagonal that a pivot has at least."""


@dataclass(frozen=True, eq=False)
class Sweeps:
    """A matrix of n rows with W diagonals below the main one, in the order of its sweeps: a row has a place there.

    order        (n,) the row at each place
    forth, back  (R, 2 + W): first place, end, and for each diagonal how far on the place lies that a place needs
    entries      (1 + 2 W, n): which entries of the pattern are on the diagonal, on each of those below it, and above
    missing      where in there, flat, the matrix has none
    margin       how many numbers a run may read before the first place and behind the last: zeros there
    one_by_one   the rows of a run need each other
    """

    order: Integers
    forth: Integers
    back: Integers
    entries: Integers
    missing: Integers
    margin: int
    one_by_one: bool


def find_sweeps(indptr: NDArray[Any], indices: NDArray[Any]) -> Sweeps | None:
    """The sweeps over a symmetric pattern in compressed rows; None where they do not pay."""
    n = len(indptr) - 1
    all_rows = np.repeat(np.arange(n), np.diff(indptr))
    lower = np.flatnonzero(indices < all_rows)
    rows, distances = all_rows[lower], all_rows[lower] - indices[lower]
    if not len(lower) or len(np.unique(distances[:1000])) > MOST_DIAGONALS:
        return None
    offsets = np.unique(distances).astype(np.int64)
    count = len(offsets)
    if count > MOST_DIAGONALS or len(lower) < SPARSEST * n * count:
        return None
    entries = np.full((1 + 2 * count, n), -1, np.int64)
    on_diagonal = np.flatnonzero(indices == all_rows)
    entries[0, all_rows[on_diagonal]] = on_diagonal
    which = np.searchsorted(offsets, distances)
    entries[1 + which, rows] = lower
    entries[1 + count + which, rows - distances] = lower  # the matrix is symmetric
    before, after = np.full((2, count, n), -1, np.int64)  # the rows that each row needs on the way forth, and back
    before[which, rows] = rows - distances
    after[which, rows - distances] = rows

    levels = np.zeros(n, np.int64)
    find_levels().call(address_of(before), count, n, address_of(levels))
    order = np.argsort(levels, kind="stable")
    forth, back = (_runs(needed, order, levels[order]) for needed in (before, after))
    one_by_one = n < SHORTEST * len(forth) * ((count + 1) // 2)
    if one_by_one and count > 1:
        return None
    if one_by_one:
        order = np.arange(n)
        forth, back = np.array([[0, n, *-offsets]]), np.array([[0, n, *offsets]])
    reach = [(r[:, :1] + r[:, 2:]).min() for r in (forth, back)], [(r[:, 1:2] + r[:, 2:]).max() for r in (forth, back)]
    margin = max(0, -int(min(reach[0])), int(max(reach[1])) - n)
    entries = np.ascontiguousarray(entries[:, order])
    missing = np.flatnonzero(entries < 0)
    return Sweeps(order, forth, back, np.maximum(entries, 0), missing, margin, one_by_one)


def _runs(needed: Integers, order: Integers, levels: Integers) -> Integers:
    """Runs of places of one level that need places equally far on, (R, 2 + W).

    needed   (W, n): the rows that each row needs, or -1. Where a row needs none, the distance is that of a neighbour of
             the same level: the matrix has a 0 there.
    """
    n = len(order)
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    begins = np.diff(levels, prepend=-1) != 0
    distances = np.zeros(needed.shape, np.int64)
    for row, distance in zip(needed[:, order], distances, strict=True):
        known = np.flatnonzero(row >= 0)
        if not len(known):
            continue
        at_known = place[row[known]] - known
        following = np.searchsorted(known, np.arange(n))  # the next place that needs something
        ahead, behind = np.minimum(following, len(known) - 1), np.maximum(following - 1, 0)
        use_ahead = levels[known[ahead]] == levels
        use_behind = ~use_ahead & (levels[known[behind]] == levels)
        distance[use_ahead] = at_known[ahead[use_ahead]]
        distance[use_behind] = at_known[behind[use_behind]]
    begins |= (np.diff(distances, axis=1, prepend=distances[:, :1]) != 0).any(axis=0)
    firsts = np.flatnonzero(begins)
    return np.column_stack([firsts, np.append(firsts[1:], n), distances[:, firsts].T])


def _find_levels(before: IntegerPointer, count: int, n: int, levels: IntegerPointer) -> None:
    """levels <- how many rows that need each other come before each row."""
    for i in range(n):
        level = 0
        for k in range(count):
            needed = before[k * n + i]
            if needed >= 0:
                level = max(level, levels[needed] + 1)
        levels[i] = level


def find_levels() -> Native:
    """The compiled `_find_levels`."""
    return native(_find_levels)


# ---------------------------------------------------------------------------------------------- compiled

# What the functions below read of `layout`: sizes, and addresses of the arrays of Sweeps. SOURCES says where each
# number comes from. `numbers` are the diagonal, the lower and the upper entries, (1 + 2 W, n).
DIAGONALS, ROWS, MARGIN, ONE_BY_ONE, FORTH, FORTH_RUNS, BACK, BACK_RUNS, ORDER, SOURCES, MISSING, MISSINGS = range(12)


def factorise(
    layout: IntegerPointer,
    given: DoublePointer,
    shift: float,
    numbers: DoublePointer,
    scale: DoublePointer,
    inverse: DoublePointer,
    roots: DoublePointer,
    below: DoublePointer,
    sizes: DoublePointer,
) -> float:
    """Pivots of A + shift, whose numbers are given[SOURCES]; returns the largest magnitude on the diagonal.

    numbers   <- diag/P - 2, then the lower entries of S A S, then the upper ones
    scale     (n) <- S = P^-1/2, with margins, as all that follow
    inverse, roots, below, sizes   working memory

    Sums of entries are those of A with its diagonal scaled to ones, roughly: the factors of 0.93 to 1.04 in it matter
    to nothing, and roots and divisions would take a third of the time.
    """
    n, count, table = layout[ROWS], layout[DIAGONALS], integer_pointer_at(layout[FORTH])
    _load(layout, given, numbers, (1 + count) * n)
    vectors.zero(shifted(numbers, (1 + count) * n), count * n)
    _load_diagonal(numbers, shift, inverse, n)
    top = largest(inverse, n)
    least = 1e-8 * top if top > 0.0 else 1.0
    _begin_sums(inverse, least, scale, roots, below, sizes, n)
    for r in range(layout[FORTH_RUNS]):
        run = shifted(table, r * (2 + count))
        begin, length = run[0], run[1] - run[0]
        for k in range(count):
            lower, needed = shifted(numbers, (1 + k) * n + begin), begin + run[2 + k]
            _add_to_columns(lower, shifted(scale, begin), shifted(below, needed), shifted(sizes, needed), length)
    if layout[ONE_BY_ONE] != 0:
        _pivots_one_by_one(layout, least, numbers, scale, roots, inverse, below, sizes)
    else:
        for r in range(layout[FORTH_RUNS]):
            run = shifted(table, r * (2 + count))
            begin, length = run[0], run[1] - run[0]
            first, pivots, scales = shifted(numbers, begin), shifted(inverse, begin), shifted(scale, begin)
            for k in range(count):
                lower, needed = shifted(first, (1 + k) * n), begin + run[2 + k]
                there = shifted(inverse, needed)
                _take_fill(lower, there, shifted(below, needed), scales, shifted(roots, begin), pivots, length)
            _invert(first, least, shifted(roots, begin), shifted(sizes, begin), pivots, scales, length)
            for k in range(count):
                lower, needed = shifted(first, (1 + k) * n), begin + run[2 + k]
                upper = shifted(numbers, (1 + count + k) * n + needed)
                _scale_entries(scales, shifted(scale, needed), lower, upper, length)
    return top


def discs(
    layout: IntegerPointer, given: DoublePointer, numbers: DoublePointer, beside: DoublePointer
) -> tuple[float, float]:
    """The lowest and the largest number of Gershgorin's discs: a lower bound of the eigenvalues, one of their sizes."""
    n, count = layout[ROWS], layout[DIAGONALS]
    _load(layout, given, numbers, (1 + 2 * count) * n)
    vectors.zero(beside, n)
    for k in range(2 * count):
        _add_size(shifted(numbers, (1 + k) * n), beside, n)
    upper = shifted(numbers, n)
    _ends_of_discs(numbers, beside, upper, n)
    return -vectors.highest(numbers, n), vectors.highest(upper, n)


@streaming
def _add_size(a: DoublePointer, out: DoublePointer, n: int) -> None:
    for i in range(n):
        out[i] += abs(a[i])


@streaming
def _ends_of_discs(diagonal: DoublePointer, beside: DoublePointer, upper: DoublePointer, n: int) -> None:
    """diagonal <- minus the lower end, upper <- the largest magnitude."""
    for i in range(n):
        upper[i] = abs(diagonal[i]) + beside[i]
        diagonal[i] = beside[i] - diagonal[i]


def _load(layout: IntegerPointer, given: DoublePointer, numbers: DoublePointer, size: int) -> None:
    """numbers <- the first `size` of: the diagonal of A, the entries below it, above it; 0 where it has none."""
    vectors.gather(given, integer_pointer_at(layout[SOURCES]), numbers, size)
    missing, at = integer_pointer_at(layout[MISSING]), 0
    while at < layout[MISSINGS] and missing[at] < size:
        numbers[missing[at]] = 0.0
        at += 1


@streaming
def _load_diagonal(diagonal: DoublePointer, shift: float, sizes: DoublePointer, n: int) -> None:
    """Add the shift; sizes <- magnitudes."""
    for i in range(n):
        diagonal[i] += shift
        sizes[i] = abs(diagonal[i])


@streaming
def _begin_sums(
    pivots: DoublePointer,
    least: float,
    scale: DoublePointer,
    roots: DoublePointer,
    below: DoublePointer,
    sizes: DoublePointer,
    n: int,
) -> None:
    """scale <- what scales the diagonal to about 1; roots <- about its inverse; no sums yet."""
    for i in range(n):
        size = max(pivots[i], least)
        scale[i] = rough_inverse_root(size)
        roots[i] = scale[i] * size
        below[i] = 0.0
        sizes[i] = 0.0


@streaming
def _add_to_columns(
    lower: DoublePointer, scale: DoublePointer, below: DoublePointer, sizes: DoublePointer, n: int
) -> None:
    """Add to each column's sums of the negative entries, and of magnitudes."""
    for i in range(n):
        below[i] += min(lower[i], 0.0) * scale[i]
        sizes[i] += abs(lower[i]) * scale[i]


@streaming
def _take_fill(
    lower: DoublePointer,
    inverse: DoublePointer,
    below: DoublePointer,
    scale: DoublePointer,
    roots: DoublePointer,
    pivots: DoublePointer,
    n: int,
) -> None:
    """What elimination takes from the pivots, and what of the fill that is left out goes to them."""
    for i in range(n):
        negative = min(lower[i], 0.0)
        left_out = negative * (below[i] - negative * scale[i]) * roots[i]
        pivots[i] -= (lower[i] * lower[i] + MODIFIED * left_out) * inverse[i]


@streaming
def _invert(
    diagonal: DoublePointer,
    least: float,
    roots: DoublePointer,
    sizes: DoublePointer,
    pivots: DoublePointer,
    scale: DoublePointer,
    n: int,
) -> None:
    """Invert the pivots; scale <- their roots."""
    for i in range(n):
        lowest = max(sizes[i] * roots[i], LEAST_PIVOT * max(abs(diagonal[i]), least))
        inverse = 1.0 / max(pivots[i], lowest)
        pivots[i] = inverse
        scale[i] = math.sqrt(inverse)
        diagonal[i] = diagonal[i] * inverse - 2.0


@streaming
def _scale_entries(
    scale: DoublePointer, needed: DoublePointer, lower: DoublePointer, upper: DoublePointer, n: int
) -> None:
    """Both entries of each pair; where the matrix has none, `upper` may be that of another pair."""
    for i in range(n):
        value = lower[i] * (scale[i] * needed[i])
        upper[i] = value if lower[i] != 0.0 else upper[i]
        lower[i] = value


def _pivots_one_by_one(
    layout: IntegerPointer,
    least: float,
    numbers: DoublePointer,
    scale: DoublePointer,
    roots: DoublePointer,
    inverse: DoublePointer,
    below: DoublePointer,
    sizes: DoublePointer,
) -> None:
    n, count, run = layout[ROWS], layout[DIAGONALS], integer_pointer_at(layout[FORTH])
    for i in range(n):
        pivot = inverse[i]
        for k in range(count):
            lower, needed = numbers[(1 + k) * n + i], i + run[2 + k]
            negative = min(lower, 0.0)
            left_out = negative * (below[needed] - negative * scale[i]) * roots[i]
            pivot -= (lower * lower + MODIFIED * left_out) * inverse[needed]
        lowest = max(sizes[i] * roots[i], LEAST_PIVOT * max(abs(numbers[i]), least))
        inverse[i] = 1.0 / max(pivot, lowest)
        scale[i] = math.sqrt(inverse[i])
        numbers[i] = numbers[i] * inverse[i] - 2.0
        for k in range(count):
            needed = i + run[2 + k]
            if needed >= 0:
                value = numbers[(1 + k) * n + i] * (scale[i] * scale[needed])
                numbers[(1 + k) * n + i] = value
                numbers[(1 + count + k) * n + needed] = value


def forth(layout: IntegerPointer, numbers: DoublePointer, x: DoublePointer) -> None:
    """x <- (1 + l)^-1 x."""
    n, count, table = layout[ROWS], layout[DIAGONALS], integer_pointer_at(layout[FORTH])
    lower = shifted(numbers, n)
    if layout[ONE_BY_ONE] != 0:
        for i in range(n):
            total = x[i]
            for k in range(count):
                total -= lower[k * n + i] * x[i + table[2 + k]]
            x[i] = total
        return
    for r in range(layout[FORTH_RUNS]):
        _take_run(shifted(table, r * (2 + count)), count, n, lower, x, x, 1.0)


def back(layout: IntegerPointer, numbers: DoublePointer, x: DoublePointer) -> None:
    """x <- (1 + l')^-1 x."""
    n, count, table = layout[ROWS], layout[DIAGONALS], integer_pointer_at(layout[BACK])
    upper = shifted(numbers, (1 + count) * n)
    if layout[ONE_BY_ONE] != 0:
        for i in range(n - 1, -1, -1):
            total = x[i]
            for k in range(count):
                total -= upper[k * n + i] * x[i + table[2 + k]]
            x[i] = total
        return
    for r in range(layout[BACK_RUNS] - 1, -1, -1):
        _take_run(shifted(table, r * (2 + count)), count, n, upper, x, x, 1.0)


def add_lower(layout: IntegerPointer, numbers: DoublePointer, x: DoublePointer, out: DoublePointer) -> None:
    """out <- out + l x."""
    n, count, table = layout[ROWS], layout[DIAGONALS], integer_pointer_at(layout[FORTH])
    for r in range(layout[FORTH_RUNS]):
        _take_run(shifted(table, r * (2 + count)), count, n, shifted(numbers, n), x, out, -1.0)


def _take_run(
    run: IntegerPointer, count: int, n: int, numbers: DoublePointer, x: DoublePointer, out: DoublePointer, sign: float
) -> None:
    """out <- out - sign * the numbers of a run times what it needs of x, two diagonals at a time."""
    begin, length = run[0], run[1] - run[0]
    first, target = shifted(numbers, begin), shifted(out, begin)
    for k in range(0, count - 1, 2):
        one, other = shifted(x, begin + run[2 + k]), shifted(x, begin + run[3 + k])
        _take_two(shifted(first, k * n), one, shifted(first, (k + 1) * n), other, sign, target, length)
    if count % 2 == 1:
        k = count - 1
        _take_one(shifted(first, k * n), shifted(x, begin + run[2 + k]), sign, target, length)


@streaming
def _take_two(
    a: DoublePointer, x: DoublePointer, b: DoublePointer, y: DoublePointer, sign: float, out: DoublePointer, n: int
) -> None:
    for i in range(n):
        out[i] -= sign * (a[i] * x[i] + b[i] * y[i])


@streaming
def _take_one(a: DoublePointer, x: DoublePointer, sign: float, out: DoublePointer, n: int) -> None:
    for i in range(n):
        out[i] -= sign * (a[i] * x[i])
