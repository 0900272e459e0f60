"""The order in which a sparse symmetric matrix is eliminated, and the dense fronts in which that is done.

Unknowns are eliminated in an order of minimum degree, which SuperLU finds (Liu 1985, ACM Transactions on Mathematical
Software 11). Which entries of the factor are not zero follows from the pattern alone: the elimination tree and the
counts of its columns (Davis, Direct Methods for Sparse Linear Systems, chapter 4). Neighbouring columns with nearly the
same entries are made one front: a dense matrix whose first rows are its pivots and whose other rows, its update, are
added to the front above it (multifrontal method: Duff and Reid 1983, Transactions 9; Liu 1992, SIAM Review 34).

All is worked out once for a pattern; multifrontal.py computes with it. Updates wait on two stacks, for even and for odd
depths of the tree, so that where each lies is known beforehand as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compiler.calls.arrays import address_of
from ...compiler.machine_code.native import native
from ...compiler.machine_code.signature import IntegerPointer

Integers = NDArray[np.int64]

SMALL = 32
"""Zeros that a front may hold: small fronts cost more than the zeros."""

ZEROS = 0.15
"""Part of a front that may be zeros."""


@dataclass(frozen=True, eq=False)
class Fronts:
    """The fronts of a matrix of n rows in the order of its elimination: a row has a place there. F fronts, V updates.

    order        (n,) the row at each place
    firsts       (F + 1,) the first pivot of each front; those of the last end at n
    bounds       (F + 1,) where the places of each front's update begin in `updates`
    updates      (V,) places of the rows of updates, ascending
    above        (V,) which row of the front above each of them is
    pivots       (F,) where the rows of the pivots begin in the factor, each as long as the front is wide
    waiting      (F,) where the update waits
    children     the fronts whose updates a front takes, ascending, between child_starts (F + 1,)
    entries      of each place, between entry_starts (n + 1,): slot, where in the factor, place of the row, (3, E)
    size, room   numbers of the factor, and of all updates that wait at a time
    widest       rows of the largest front
    work         multiplications that a factorisation takes
    """

    order: Integers
    firsts: Integers
    bounds: Integers
    updates: Integers
    above: Integers
    pivots: Integers
    waiting: Integers
    child_starts: Integers
    children: Integers
    entry_starts: Integers
    entries: Integers
    size: int
    room: int
    widest: int
    work: float

    @property
    def arrays(self) -> tuple[Integers, ...]:
        """What multifrontal.py reads, in the order in which it does."""
        return (
            *(self.order, self.firsts, self.bounds, self.updates, self.above, self.pivots, self.waiting),
            *(self.child_starts, self.children, self.entry_starts, *self.entries),
        )


def find_fronts(
    indptr: NDArray[Any], indices: NDArray[Any], sources: Integers, starts: Integers | None, most: float = np.inf
) -> Fronts | None:
    """The fronts of a symmetric pattern in compressed rows, of which each entry is the sum of some slots.

    None where factors and updates are more than `most` numbers.
    """
    n = len(indptr) - 1
    rows = np.repeat(np.arange(n), np.diff(indptr))
    order = _minimum_degree(indptr, indices)
    parents, counts, post = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    _, row_starts, columns = _lower(rows, indices, order)
    _call(find_tree, n, row_starts, columns, parents, counts)
    _call(find_postorder, n, parents, post, np.empty((2, n), np.int64))
    order = order[post]
    which, row_starts, columns = _lower(rows, indices, order)
    work = np.empty(n, np.int64)
    _call(find_tree, n, row_starts, columns, parents, work)
    _call(count_columns, n, row_starts, columns, parents, counts, work)
    if counts.sum() > most:
        return None

    firsts = np.empty(n + 1, np.int64)
    number = _call(merge_columns, n, parents, counts, firsts, np.empty(n, np.int64), np.empty(n, np.int64))
    firsts = firsts[: number + 1].copy()
    lasts = firsts[1:] - 1
    front_of = np.repeat(np.arange(number), np.diff(firsts))
    above = np.where(parents[lasts] >= 0, front_of[parents[lasts]], -1)
    bounds = np.concatenate([[0], np.cumsum(counts[lasts] - 1)])
    child_starts = np.concatenate([[0], np.cumsum(np.bincount(above[above >= 0], minlength=number))])
    children = np.argsort(above, kind="stable")[np.count_nonzero(above < 0) :]

    lower_rows = np.repeat(np.arange(n), np.diff(row_starts))
    by_column = np.argsort(columns, kind="stable")
    column_starts = np.concatenate([[0], np.cumsum(np.bincount(columns, minlength=n))])
    below = lower_rows[by_column]
    updates, marks = np.empty(bounds[-1], np.int64), np.full(n, -1, np.int64)
    _call(find_updates, number, firsts, column_starts, below, child_starts, children, bounds, updates, marks)
    updates = updates[np.lexsort((updates, np.repeat(np.arange(number), np.diff(bounds))))]

    wide = np.diff(firsts) + np.diff(bounds)
    pivots = np.concatenate([[0], np.cumsum(np.diff(firsts) * wide)])
    # where entries land: those of a column in the rows of the front that eliminates it
    slots, row_places, entry_starts = _entries_by_column(which[by_column], below, column_starts, sources, starts)
    at, ahead = np.empty(len(slots), np.int64), np.empty(len(updates), np.int64)
    _call(find_places, number, firsts, bounds, updates, pivots, above, entry_starts, row_places, at, ahead, marks)
    waiting, depths, peaks = np.empty(number, np.int64), np.empty(number, np.int64), np.zeros(2, np.int64)
    _call(find_room, number, above, bounds, child_starts, children, waiting, depths, np.zeros(2, np.int64), peaks)
    if pivots[-1] + peaks.sum() > most:
        return None
    waiting[depths % 2 == 1] += peaks[0]
    eliminated, wide_float = np.diff(firsts).astype(float), wide.astype(float)
    squares = eliminated * wide_float * (wide_float - eliminated) + eliminated**3 / 3
    return Fronts(
        order,
        firsts,
        bounds,
        updates,
        ahead,
        pivots[:-1].copy(),
        waiting,
        child_starts,
        children,
        entry_starts,
        np.array([slots, at, row_places]),
        int(pivots[-1]),
        int(peaks.sum()),
        int(wide.max(initial=0)),
        float(squares.sum()),
    )


def _minimum_degree(indptr: NDArray[Any], indices: NDArray[Any]) -> Integers:
    """The rows in an order of minimum degree; SuperLU finds it for an incomplete factorisation that keeps nothing."""
    from scipy.sparse import csc_array
    from scipy.sparse.linalg import spilu

    n = len(indptr) - 1
    rows = np.repeat(np.arange(n), np.diff(indptr))
    beside = indices != rows
    kept = np.concatenate([[0], np.cumsum(np.bincount(rows[beside], minlength=n))]) + np.arange(n + 1)
    columns = np.empty(kept[-1], np.int64)
    places = np.arange(np.count_nonzero(beside)) + rows[beside] + 1
    columns[kept[:-1]], columns[places] = np.arange(n), indices[beside]
    data = np.ones(len(columns))
    data[kept[:-1]] = np.diff(kept) + 1.0
    matrix = csc_array((data, columns, kept), shape=(n, n))
    factors = spilu(
        matrix,
        drop_tol=1.0,
        fill_factor=1.0,
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    return np.argsort(factors.perm_c).astype(np.int64)


def _lower(rows: Any, columns: Any, order: Integers) -> tuple[Integers, Integers, Integers]:
    """Of the entries on and below the diagonal in that order: which, by row and column; where rows begin; columns."""
    n = len(order)
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    new_rows, new_columns = place[rows], place[columns]
    which = np.flatnonzero(new_rows >= new_columns)
    which = which[np.argsort(new_rows[which] * n + new_columns[which])]
    starts = np.concatenate([[0], np.cumsum(np.bincount(new_rows[which], minlength=n))])
    return which, starts, new_columns[which]


def _entries_by_column(
    which: Integers, below: Integers, column_starts: Integers, sources: Integers, starts: Integers | None
) -> tuple[Integers, Integers, Integers]:
    """The slots of all entries, column by column, the place of each one's row, and where each column begins."""
    if starts is None:
        return sources[which], below, column_starts
    counts = starts[which + 1] - starts[which]
    ends = np.cumsum(counts)
    inside = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
    slots = sources[np.repeat(starts[which], counts) + inside]
    return slots, np.repeat(below, counts), np.concatenate([[0], ends])[column_starts]


def _call(function: Any, *arguments: Any) -> int:
    """Call a compiled function on int64 arrays."""
    numbers = [a if isinstance(a, int) else address_of(a) for a in arguments]
    return int(native(function).call(*numbers))


# ---------------------------------------------------------------------------------------------- compiled


def find_tree(
    n: int, starts: IntegerPointer, columns: IntegerPointer, parents: IntegerPointer, ancestors: IntegerPointer
) -> int:
    """parents <- the elimination tree, -1 at roots, of a lower triangle in compressed rows."""
    for i in range(n):
        parents[i] = -1
        ancestors[i] = -1
        for e in range(starts[i], starts[i + 1]):
            k = columns[e]
            while k != -1 and k < i:
                further = ancestors[k]
                ancestors[k] = i
                if further == -1:
                    parents[k] = i
                k = further
    return 0


def find_postorder(n: int, parents: IntegerPointer, post: IntegerPointer, links: IntegerPointer) -> int:
    """post <- the nodes of the tree, each after its children; links are 2 n numbers."""
    for i in range(n):
        links[i] = -1
    for i in range(n - 1, -1, -1):  # links: the first child of each node, then the next sibling
        if parents[i] >= 0:
            links[n + i] = links[parents[i]]
            links[parents[i]] = i
    done = 0
    for root in range(n):
        node = root if parents[root] < 0 else -1
        while node >= 0:
            if links[node] >= 0:
                child = links[node]
                links[node] = links[n + child]
                node = child
            else:
                post[done] = node
                done += 1
                node = parents[node]
    return done


def count_columns(
    n: int,
    starts: IntegerPointer,
    columns: IntegerPointer,
    parents: IntegerPointer,
    counts: IntegerPointer,
    marks: IntegerPointer,
) -> int:
    """counts <- how many entries each column of the factor has, with its diagonal."""
    for i in range(n):
        counts[i] = 1
        marks[i] = i
        for e in range(starts[i], starts[i + 1]):
            k = columns[e]
            while marks[k] != i:
                counts[k] += 1
                marks[k] = i
                k = parents[k]
    return 0


def merge_columns(
    n: int,
    parents: IntegerPointer,
    counts: IntegerPointer,
    firsts: IntegerPointer,
    widths: IntegerPointer,
    filled: IntegerPointer,
) -> int:
    """firsts <- where fronts begin, n behind; returns how many. A column joins the front before it if few zeros come.

    widths, filled   working memory: rows of each front, and entries of its columns that are not zero
    """
    number = 0
    for j in range(n):
        first, width, entries = j, counts[j], counts[j]
        joins = True
        while number > 0 and joins:
            child = firsts[number - 1]
            own = parents[first - 1] >= first and parents[first - 1] <= j
            pivots, wide = j + 1 - child, first - child + width
            known = entries + filled[number - 1]
            zeros = pivots * wide - pivots * (pivots - 1) // 2 - known
            joins = own and (zeros <= SMALL or zeros <= ZEROS * (known + zeros))
            if joins:
                first, width, entries = child, wide, known
                number -= 1
        firsts[number], widths[number], filled[number] = first, width, entries
        number += 1
    firsts[number] = n
    return number


def find_updates(
    number: int,
    firsts: IntegerPointer,
    column_starts: IntegerPointer,
    below: IntegerPointer,
    child_starts: IntegerPointer,
    children: IntegerPointer,
    bounds: IntegerPointer,
    updates: IntegerPointer,
    marks: IntegerPointer,
) -> int:
    """updates <- the rows of each front that it does not eliminate, unsorted."""
    for f in range(number):
        end, at = firsts[f + 1], bounds[f]
        for e in range(column_starts[firsts[f]], column_starts[end]):
            row = below[e]
            if row >= end and marks[row] != f:
                marks[row] = f
                updates[at] = row
                at += 1
        for c in range(child_starts[f], child_starts[f + 1]):
            child = children[c]
            for e in range(bounds[child], bounds[child + 1]):
                row = updates[e]
                if row >= end and marks[row] != f:
                    marks[row] = f
                    updates[at] = row
                    at += 1
    return 0


def find_places(
    number: int,
    firsts: IntegerPointer,
    bounds: IntegerPointer,
    updates: IntegerPointer,
    pivots: IntegerPointer,
    above: IntegerPointer,
    entry_starts: IntegerPointer,
    rows: IntegerPointer,
    at: IntegerPointer,
    ahead: IntegerPointer,
    local: IntegerPointer,
) -> int:
    """at <- where entries lie in the factor, ahead <- which row of the front above is that of an update."""
    for f in range(number):
        first, eliminated, begin = firsts[f], firsts[f + 1] - firsts[f], bounds[f]
        wide = eliminated + bounds[f + 1] - begin
        for k in range(eliminated):
            local[first + k] = k
        for u in range(begin, bounds[f + 1]):
            local[updates[u]] = eliminated + u - begin
        for k in range(eliminated):
            for e in range(entry_starts[first + k], entry_starts[first + k + 1]):
                at[e] = pivots[f] + k * wide + local[rows[e]]
    for f in range(number):
        if above[f] >= 0:
            parent = above[f]
            first, eliminated = firsts[parent], firsts[parent + 1] - firsts[parent]
            p = bounds[parent]
            for u in range(bounds[f], bounds[f + 1]):
                if updates[u] < first + eliminated:
                    ahead[u] = updates[u] - first
                else:
                    while updates[p] < updates[u]:
                        p += 1
                    ahead[u] = eliminated + p - bounds[parent]
    return 0


def find_room(
    number: int,
    above: IntegerPointer,
    bounds: IntegerPointer,
    child_starts: IntegerPointer,
    children: IntegerPointer,
    waiting: IntegerPointer,
    depths: IntegerPointer,
    tops: IntegerPointer,
    peaks: IntegerPointer,
) -> int:
    """waiting <- where each update lies on the stack of its depth; peaks <- how high both grow, from 0 as the tops."""
    for f in range(number - 1, -1, -1):
        depths[f] = depths[above[f]] + 1 if above[f] >= 0 else 0
    for f in range(number):
        size, side = bounds[f + 1] - bounds[f], depths[f] % 2
        if child_starts[f] < child_starts[f + 1]:
            tops[1 - side] = waiting[children[child_starts[f]]]
        waiting[f] = tops[side]
        tops[side] += size * size
        peaks[side] = max(peaks[side], tops[side])
    return 0
