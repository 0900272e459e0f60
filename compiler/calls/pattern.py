"""The entries of a sparse derivative for given extents and index data, and the matrix filled in from a kernel's slots.

A pattern is worked out by NumPy once for each (extents, content of the index arrays) and remembered; a call of the
kernel then only copies numbers: data[e] = slots[sources[e]], or the sum of several where terms meet in an entry.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..machine_code.calling import prefetch
from ..machine_code.native import native
from ..machine_code.signature import DoublePointer, IntegerPointer
from ..passes.landings import MIRRORED, UPPER, Landing, Support
from ..program.program import Range
from ..program.reference import integer
from .arrays import address_of
from .memory import empty

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Axes = tuple[Range, ...]

AHEAD = 512
"""How many numbers ahead are fetched into the cache, a line of 8 at a time: not every CPU does so by itself."""

MOST = 8
"""Patterns that a kernel remembers of one derivative."""

MOST_ENTRIES = 2**24
"""Entries of couplings that are still worked out: a quarter of a gigabyte for as long as that takes."""

MOST_UNKNOWNS = 4096
"""A matrix of couplings of more would take as long."""


@dataclass(frozen=True, eq=False)
class Pattern:
    """Where the numbers of a matrix in compressed rows come from.

    indptr, indices   as in scipy.sparse.csr_array: sorted, each entry once
    sources           slots by entry, one after another
    starts            (nnz + 1,): where the sources of an entry begin; None if every entry has one
    """

    shape: tuple[int, int]
    indptr: NDArray[Any]
    indices: NDArray[Any]
    sources: Integers
    starts: Integers | None

    @cached_property
    def diagonal(self) -> tuple[Integers, Integers]:
        """The sources of each entry of the diagonal, and where they begin: (k,), (rows + 1,)."""
        rows = np.repeat(np.arange(self.shape[0]), np.diff(self.indptr))
        entries = np.flatnonzero(rows == self.indices)
        bounds = np.arange(self.nnz + 1) if self.starts is None else self.starts
        counts = np.zeros(self.shape[0] + 1, np.int64)
        counts[rows[entries] + 1] = bounds[entries + 1] - bounds[entries]
        own = [self.sources[:0], *(self.sources[bounds[e] : bounds[e + 1]] for e in entries)]
        return np.concatenate(own), np.cumsum(counts)

    @property
    def nnz(self) -> int:
        return len(self.indices)

    @cached_property
    def _empty(self) -> Any:
        from scipy.sparse import csr_array  # takes as long to import as numba's core: only where it is needed

        matrix = csr_array((np.zeros(self.nnz), self.indices, self.indptr), shape=self.shape)
        matrix.has_canonical_format = True
        return matrix

    def matrix(self, data: Floats) -> Any:
        """The scipy CSR array with these numbers; it shares the pattern, which is read-only."""
        empty = self._empty
        made = object.__new__(type(empty))
        vars(made).update(vars(empty), data=data)
        return made

    def fill(self, slots: Floats) -> Floats:
        """(nnz,) numbers of the entries from the (size,) numbers that a kernel has written."""
        data = empty(self.nnz)
        first, last = (address_of(slots), address_of(self.sources)), (self.nnz, address_of(data))
        if self.starts is None:
            native(pick_entries).call(*first, *last)
        else:
            native(add_entries).call(*first, address_of(self.starts), *last)
        return data


def pick_entries(slots: DoublePointer, sources: IntegerPointer, count: int, data: DoublePointer) -> None:
    """data[e] <- slots[sources[e]] for `count` entries e."""
    for first in range(0, count, 8):
        prefetch(sources, first + 2 * AHEAD)
        prefetch(data, first + AHEAD)
        last = min(first + 8, count)
        for e in range(first, last):
            data[e] = slots[sources[e]]


def add_entries(
    slots: DoublePointer, sources: IntegerPointer, starts: IntegerPointer, count: int, data: DoublePointer
) -> None:
    """data[e] <- the sum of slots[sources[k]] over starts[e] <= k < starts[e + 1]."""
    for e in range(count):
        total = slots[sources[starts[e]]]
        for k in range(starts[e] + 1, starts[e + 1]):
            total += slots[sources[k]]
        data[e] = total


# ---------------------------------------------------------------------------------------------- remembered


class Patterns:
    """The patterns of one derivative of one kernel, those that were used last in front."""

    def __init__(self, support: Support) -> None:
        self.support = support
        self._known: list[tuple[tuple[int, ...], list[Integers], Pattern]] = []

    def find(self, extents: Mapping[str, int], integers: Mapping[str, Integers]) -> Pattern:
        """The pattern for extents and index arrays of one instance, by generated names."""
        key = tuple(extents.values())
        content = [integers[n] for n in self.support.gathered]
        known = self._known
        for place, (same, arrays, pattern) in enumerate(known):
            if same == key and all(map(np.array_equal, arrays, content)):
                if place > 0:
                    self._known = [known[place], *known[:place], *known[place + 1 :]]
                return pattern
        pattern = find_pattern(self.support, extents, integers)
        self._known = [(key, [a.copy() for a in content], pattern), *known[: MOST - 1]]
        return pattern


# ---------------------------------------------------------------------------------------------- worked out


def find_pattern(support: Support, extents: Mapping[str, int], integers: Mapping[str, Integers]) -> Pattern:
    """Rows and columns of every slot that a piece writes, sorted into compressed rows."""
    row_places, height = _places(support.rows, extents)
    column_places, width = _places(support.columns, extents)
    offset = 0
    parts: list[tuple[Integers, Integers]] = []  # of (row * width + column, slot)
    for slot, axes in support.slots:
        landings = [x for x in support.landings if x.slot == slot]
        rows, columns, written = _entries(landings, _shape(axes, extents), row_places, column_places, extents, integers)
        counts = landings[0].counts
        if counts == UPPER:
            kept = rows <= columns
            rows, columns, written = rows[kept], columns[kept], written[kept]
        parts.append((rows * width + columns, written + offset))
        if counts in (UPPER, MIRRORED):
            other = rows < columns if counts == UPPER else np.ones(len(rows), bool)
            parts.append(((columns * width + rows)[other], written[other] + offset))
        offset += math.prod(_shape(axes, extents))
    empty = np.empty(0, np.int64)
    entries, sources = (np.concatenate([empty, *(part[k] for part in parts)]) for k in (0, 1))
    return _compressed(entries, sources, (height, width))


def entries(support: Support, extents: Mapping[str, int]) -> int:
    """How many numbers a pattern is worked out from."""
    return sum(math.prod(_shape(axes, extents)) for _, axes in support.slots)


def find_couplings(support: Support, extents: Mapping[str, int]) -> NDArray[np.bool_]:
    """Which unknowns meet by extents alone, (n, n), symmetric, the diagonal included: no need to sort entries."""
    places, n = _places(support.rows, extents)
    met = np.eye(n, dtype=bool)
    for x in support.landings:
        count, scope = _grid(x.loops, extents, {})
        rows = _flat(*places[x.row], x.left, count, scope, {})
        met[rows, _flat(*places[x.column], x.right, count, scope, {})] = True
    return met | met.T


def _compressed(entries: Integers, sources: Integers, shape: tuple[int, int]) -> Pattern:
    order = np.argsort(entries, kind="stable")
    first = np.flatnonzero(np.diff(entries[order], prepend=-1))
    if len(first) < len(entries):  # by slot within an entry, so that mirrored entries are added up in the same order
        order = np.lexsort((sources, entries))
    entries, sources = entries[order][first], sources[order]
    kind = np.int32 if max(len(entries), *shape) < 2**31 else np.int64
    rows, columns = np.divmod(entries, max(1, shape[1]))
    counts = np.bincount(rows, minlength=shape[0])
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(kind)
    indices = columns.astype(kind)
    indptr.flags.writeable = indices.flags.writeable = False
    starts = None if len(first) == len(sources) else np.append(first, len(sources))
    return Pattern(shape, indptr, indices, sources, starts)


def _entries(
    landings: Sequence[Landing],
    shape: tuple[int, ...],
    row_places: Mapping[str, tuple[int, tuple[int, ...]]],
    column_places: Mapping[str, tuple[int, tuple[int, ...]]],
    extents: Mapping[str, int],
    integers: Mapping[str, Integers],
) -> tuple[Integers, Integers, Integers]:
    """Row, column and place of every number of a slot array that some piece writes."""
    rows, columns = (np.full(math.prod(shape), -1, np.int64) for _ in range(2))
    for x in landings:
        count, scope = _grid(x.loops, extents, integers)
        at = _flat(0, shape, x.at, count, scope, integers)
        rows[at] = _flat(*row_places[x.row], x.left, count, scope, integers)
        columns[at] = _flat(*column_places[x.column], x.right, count, scope, integers)
    written = np.flatnonzero(rows >= 0)
    return rows[written], columns[written], written


def _flat(
    offset: int, shape: tuple[int, ...], subscripts: Any, count: int, scope: Mapping[str, Any], integers: Any
) -> Integers:
    """Places in memory of array[subscripts], for each value of the loops."""
    place: Any = 0
    for extent, subscript in zip(shape, subscripts, strict=True):
        place = place * extent + integer(subscript, scope, integers)
    return np.broadcast_to(np.asarray(place + offset, dtype=np.int64), (count,))


def _grid(loops: Sequence[tuple[str, Range]], extents: Mapping[str, int], integers: Any) -> tuple[int, dict[str, Any]]:
    """How many values the loops take together, and each loop's value in each; a range may depend on other loops."""
    scope: dict[str, Any] = dict(extents)
    count, left = 1, list(loops)
    done: list[str] = []
    while left:
        loop, values = next((i, r) for i, r in left if (r.start.names | r.stop.names) <= scope.keys())
        left.remove((loop, values))
        start = np.broadcast_to(integer(values.start, scope, integers), (count,))
        length = np.maximum(0, np.broadcast_to(integer(values.stop, scope, integers), (count,)) - start)
        for name in done:
            scope[name] = np.repeat(scope[name], length)
        ends = np.cumsum(length)
        count = int(length.sum())
        scope[loop] = np.arange(count) - np.repeat(ends - length - start, length)
        done.append(loop)
    return count, scope


def _places(
    arrays: Sequence[tuple[str, Axes]], extents: Mapping[str, int]
) -> tuple[dict[str, tuple[int, tuple[int, ...]]], int]:
    """Where each array begins when they are packed one after another, and its shape; their size together."""
    total, places = 0, {}
    for name, axes in arrays:
        places[name] = total, _shape(axes, extents)
        total += math.prod(places[name][1])
    return places, total


def _shape(axes: Axes, extents: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(max(0, int(integer(a.stop, extents, {}))) for a in axes)
