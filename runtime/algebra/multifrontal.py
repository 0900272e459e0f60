"""The sparse Cholesky factorisation R'R of a symmetric matrix in the fronts of fronts.py, compiled.

Each front is filled with entries of the matrix and the updates of the fronts below, its pivots are eliminated as in
linear_algebra.cholesky, four rows at a time, and what is left waits for the front above. Nothing is allocated, no
order of sums depends on anything but the pattern, and a matrix that is not positive definite ends it at a pivot.
"""

from __future__ import annotations

import math

from ...compiler.machine_code.calling import integer_pointer_at, shifted
from ...compiler.machine_code.signature import DoublePointer, IntegerPointer, streaming
from . import vectors
from .linear_algebra import _factor_panel, subtract_products

LEAST = 1e-14
"""A pivot below this is rounding, where no number of the diagonal is above 1."""

NUMBER, ROOM, WIDEST, SIZE, ORDER, FIRSTS, BOUNDS, UPDATES, ABOVE, PIVOTS, WAITING = range(11)
CHILD_STARTS, CHILDREN, ENTRY_STARTS, SLOTS, PLACES, ROWS = range(11, 17)
"""What the functions below read of `layout`: sizes, and addresses of the arrays of Fronts."""


def factorise(
    layout: IntegerPointer,
    slots: DoublePointer,
    shift: float,
    lift: float,
    scale: DoublePointer,
    factor: DoublePointer,
    work: DoublePointer,
    stop: IntegerPointer,
) -> bool:
    """factor <- R with R'R = S (A + shift) S + lift, scale = S by place; False if this is not positive definite.

    work   ROOM + WIDEST numbers
    """
    firsts, bounds = integer_pointer_at(layout[FIRSTS]), integer_pointer_at(layout[BOUNDS])
    pivots, waiting = integer_pointer_at(layout[PIVOTS]), integer_pointer_at(layout[WAITING])
    child_starts, children = integer_pointer_at(layout[CHILD_STARTS]), integer_pointer_at(layout[CHILDREN])
    above = integer_pointer_at(layout[ABOVE])
    vectors.zero(factor, layout[SIZE])
    for f in range(layout[NUMBER]):
        if stop[0] != 0:
            return True
        eliminated, left = firsts[f + 1] - firsts[f], bounds[f + 1] - bounds[f]
        rows, update = shifted(factor, pivots[f]), shifted(work, waiting[f])
        vectors.zero(update, left * left)
        _enter_entries(layout, slots, shift, lift, scale, factor, f)
        for c in range(child_starts[f], child_starts[f + 1]):
            child = children[c]
            size = bounds[child + 1] - bounds[child]
            _extend(shifted(work, waiting[child]), size, shifted(above, bounds[child]), rows, eliminated, update, left)
        if not _rows(rows, eliminated, eliminated + left):
            return False
        _take(rows, eliminated, update, left)
    return True


def discs(
    layout: IntegerPointer, slots: DoublePointer, n: int, middle: DoublePointer, beside: DoublePointer
) -> tuple[float, float]:
    """The lowest and the largest number of Gershgorin's discs; of an entry that is a sum, the sum of magnitudes."""
    starts, sources = integer_pointer_at(layout[ENTRY_STARTS]), integer_pointer_at(layout[SLOTS])
    rows = integer_pointer_at(layout[ROWS])
    vectors.zero(middle, n)
    vectors.zero(beside, n)
    for j in range(n):
        for e in range(starts[j], starts[j + 1]):
            value, row = slots[sources[e]], rows[e]
            if row == j:
                middle[j] += value
            else:
                beside[j] += abs(value)
                beside[row] += abs(value)
    lowest, size = math.inf, 0.0
    for j in range(n):
        lowest = min(lowest, middle[j] - beside[j])
        size = max(size, abs(middle[j]) + beside[j])
    return lowest, size


def _enter_entries(
    layout: IntegerPointer,
    slots: DoublePointer,
    shift: float,
    lift: float,
    scale: DoublePointer,
    factor: DoublePointer,
    f: int,
) -> None:
    """Add the entries of the matrix whose column a front eliminates."""
    firsts, bounds = integer_pointer_at(layout[FIRSTS]), integer_pointer_at(layout[BOUNDS])
    starts, sources = integer_pointer_at(layout[ENTRY_STARTS]), integer_pointer_at(layout[SLOTS])
    places, rows = integer_pointer_at(layout[PLACES]), integer_pointer_at(layout[ROWS])
    first = firsts[f]
    wide = firsts[f + 1] - first + bounds[f + 1] - bounds[f]
    diagonal = integer_pointer_at(layout[PIVOTS])[f]
    for j in range(first, firsts[f + 1]):
        own = scale[j]
        factor[diagonal] += shift * own * own + lift
        for e in range(starts[j], starts[j + 1]):
            factor[places[e]] += slots[sources[e]] * own * scale[rows[e]]
        diagonal += wide + 1


def _extend(
    child: DoublePointer,
    size: int,
    above: IntegerPointer,
    rows: DoublePointer,
    eliminated: int,
    update: DoublePointer,
    left: int,
) -> None:
    """Add the update of the front below."""
    wide = eliminated + left
    for a in range(size):
        row = above[a]
        target = shifted(rows, row * wide)
        if row >= eliminated:
            target = shifted(update, (row - eliminated) * left - eliminated)
        source = shifted(child, a * size)
        _scatter(source, above, a, size, target)


@streaming
def _scatter(source: DoublePointer, above: IntegerPointer, begin: int, end: int, target: DoublePointer) -> None:
    for b in range(begin, end):
        target[above[b]] += source[b]


@streaming
def _subtract_four(
    s0: DoublePointer,
    s1: DoublePointer,
    s2: DoublePointer,
    s3: DoublePointer,
    t: DoublePointer,
    n: int,
) -> None:
    """t <- t less the first row of S'S for four rows."""
    a, b, c, d = s0[0], s1[0], s2[0], s3[0]
    for j in range(n):
        t[j] = t[j] - a * s0[j] - b * s1[j] - c * s2[j] - d * s3[j]


def _rows(rows: DoublePointer, eliminated: int, wide: int) -> bool:
    """Rows of a front become those of the factor; False at a pivot that is not positive beyond rounding."""
    whole = eliminated - eliminated % 4
    for k in range(0, whole, 4):
        size = wide - k
        t0 = shifted(rows, k * wide + k)
        t1, t2, t3 = shifted(t0, wide), shifted(t0, 2 * wide), shifted(t0, 3 * wide)
        for i in range(0, k, 4):
            s = shifted(rows, i * wide + k)
            s1, s2, s3 = shifted(s, wide), shifted(s, 2 * wide), shifted(s, 3 * wide)
            subtract_products(s, s1, s2, s3, t0, t1, t2, t3, size)
        if not _factor_panel(t0, t1, t2, t3, size):
            return False
        least = min(min(t0[0], t1[1]), min(t2[2], t3[3]))
        if not least * least > LEAST:
            return False
    for k in range(whole, eliminated):
        row = shifted(rows, k * wide + k)
        _take_rows_before(rows, k, wide, row)
        if not row[0] > LEAST:
            return False
        _divide(row, wide - k, row[0])
    return True


def _take_rows_before(rows: DoublePointer, k: int, wide: int, row: DoublePointer) -> None:
    """Subtract from row k of a front what the rows before it take."""
    whole = k - k % 4
    for i in range(0, whole, 4):
        s = shifted(rows, i * wide + k)
        _subtract_four(s, shifted(s, wide), shifted(s, 2 * wide), shifted(s, 3 * wide), row, wide - k)
    for i in range(whole, k):
        s = shifted(rows, i * wide + k)
        vectors.add_scaled(-s[0], s, row, wide - k)


@streaming
def _divide_by(row: DoublePointer, factor: float, n: int) -> None:
    for j in range(n):
        row[j] *= factor


def _divide(row: DoublePointer, n: int, pivot: float) -> None:
    """A row of the factor from that of a front."""
    root = math.sqrt(pivot)
    _divide_by(row, 1.0 / root, n)
    row[0] = root


def _take(rows: DoublePointer, eliminated: int, update: DoublePointer, left: int) -> None:
    """Subtract from the update what the pivots take."""
    wide, whole, most = eliminated + left, eliminated - eliminated % 4, left - left % 4
    for k in range(0, most, 4):
        t0 = shifted(update, k * left + k)
        t1, t2, t3 = shifted(t0, left), shifted(t0, 2 * left), shifted(t0, 3 * left)
        for i in range(0, whole, 4):
            s = shifted(rows, i * wide + eliminated + k)
            s1, s2, s3 = shifted(s, wide), shifted(s, 2 * wide), shifted(s, 3 * wide)
            subtract_products(s, s1, s2, s3, t0, t1, t2, t3, left - k)
    for k in range(most, left):
        row = shifted(update, k * left + k)
        for i in range(0, whole, 4):
            s = shifted(rows, i * wide + eliminated + k)
            _subtract_four(s, shifted(s, wide), shifted(s, 2 * wide), shifted(s, 3 * wide), row, left - k)
    for k in range(left):
        for i in range(whole, eliminated):
            s = shifted(rows, i * wide + eliminated + k)
            vectors.add_scaled(-s[0], s, shifted(update, k * left + k), left - k)


def forth(layout: IntegerPointer, factor: DoublePointer, x: DoublePointer, work: DoublePointer) -> None:
    """x <- R'^-1 x; work is WIDEST long."""
    firsts, bounds = integer_pointer_at(layout[FIRSTS]), integer_pointer_at(layout[BOUNDS])
    pivots, updates = integer_pointer_at(layout[PIVOTS]), integer_pointer_at(layout[UPDATES])
    for f in range(layout[NUMBER]):
        first, eliminated, left = firsts[f], firsts[f + 1] - firsts[f], bounds[f + 1] - bounds[f]
        wide, places = eliminated + left, shifted(updates, bounds[f])
        tail = shifted(work, eliminated)
        for k in range(eliminated):
            work[k] = x[first + k]
        for k in range(left):
            tail[k] = 0.0
        row = shifted(factor, pivots[f])
        for k in range(eliminated):
            work[k] /= row[0]
            vectors.add_scaled(-work[k], shifted(row, 1), shifted(work, k + 1), wide - k - 1)
            row = shifted(row, wide + 1)
        for k in range(eliminated):
            x[first + k] = work[k]
        for k in range(left):
            x[places[k]] += tail[k]


def back(layout: IntegerPointer, factor: DoublePointer, x: DoublePointer, work: DoublePointer) -> None:
    """x <- R^-1 x; work is WIDEST long."""
    firsts, bounds = integer_pointer_at(layout[FIRSTS]), integer_pointer_at(layout[BOUNDS])
    pivots, updates = integer_pointer_at(layout[PIVOTS]), integer_pointer_at(layout[UPDATES])
    for f in range(layout[NUMBER] - 1, -1, -1):
        first, eliminated, left = firsts[f], firsts[f + 1] - firsts[f], bounds[f + 1] - bounds[f]
        wide, places = eliminated + left, shifted(updates, bounds[f])
        tail = shifted(work, eliminated)
        for k in range(left):
            tail[k] = x[places[k]]
        for k in range(eliminated - 1, -1, -1):
            row = shifted(factor, pivots[f] + k * (wide + 1))
            total = vectors.dot(shifted(row, 1), shifted(work, k + 1), wide - k - 1)
            work[k] = (x[first + k] - total) / row[0]
        for k in range(eliminated):
            x[first + k] = work[k]


def multiply(
    layout: IntegerPointer, factor: DoublePointer, x: DoublePointer, out: DoublePointer, work: DoublePointer
) -> None:
    """out <- out + R' x; work is WIDEST long."""
    firsts, bounds = integer_pointer_at(layout[FIRSTS]), integer_pointer_at(layout[BOUNDS])
    pivots, updates = integer_pointer_at(layout[PIVOTS]), integer_pointer_at(layout[UPDATES])
    for f in range(layout[NUMBER]):
        first, eliminated, left = firsts[f], firsts[f + 1] - firsts[f], bounds[f + 1] - bounds[f]
        wide, places = eliminated + left, shifted(updates, bounds[f])
        vectors.zero(work, wide)
        for k in range(eliminated):
            row = shifted(factor, pivots[f] + k * (wide + 1))
            vectors.add_scaled(x[first + k], row, shifted(work, k), wide - k)
        for k in range(eliminated):
            out[first + k] += work[k]
        for k in range(left):
            out[places[k]] += work[eliminated + k]
