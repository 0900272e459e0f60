"""Which entries a second derivative has at all, as far as a program says: is it dense, diagonal, banded, sparse?

`second_pieces` gives terms d2E/da[left] db[right] += h over some loops. A piece is local if the values of the left
subscripts leave a bounded number of values to the right ones, or the other way round:

    left (i, j), right (i + 1, j)        neighbours in a grid: local
    left (e[k, 0]), right (e[k, 1])      the ends of an edge: local, as many entries as edges
    left (i), right ()                   an unknown that all terms share: local, a row and a column
    left (i), right (j)                  a function of a whole sum, or all pairs: dense

That is linear algebra over the loops. The rows of the left subscripts span what is known; a gather e[s] is one more
unknown, known where its subscripts s are, and they are known where it is (an entry is met as often as edges end in
it). Loops over a bounded number of literal values count as known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from ..program.expression import Affine, Gather, gathers
from ..program.program import Program, Range
from .differentiate import Piece, Pieces

BOUNDED, FEW = 64, 8
"""A loop over this many literal values is bounded: where an extent of the unknowns is a symbol, and where none is."""

Row = dict[object, Fraction]
Subscripts = tuple[Affine, ...]


def hessian_structure(program: Program, ranges: Mapping[str, Range], variables: Sequence[str], pieces: Pieces) -> str:
    """'dense', 'diagonal', 'block-diagonal', 'banded' or 'sparse', from the pieces of the Hessian.

    Dense is, too, what has at most 64 unknowns for all extents. Banded: entries couple at bounded distances, on every
    axis of their array.
    """
    if not _grows(program, variables):
        return "dense"
    limit = _limit(program, variables)
    kinds = {_kind(program, ranges, limit, a, b, p) for (a, b), found in pieces.items() for p in found}
    return next((kind for kind in ("dense", "sparse", "banded", "block-diagonal") if kind in kinds), "diagonal")


def cross_is_sparse(program: Program, ranges: Mapping[str, Range], weights: Sequence[str], pieces: Pieces) -> bool:
    """Whether each unknown meets a bounded number of weights, while the weights are many."""
    limit = _limit(program, weights)
    return _grows(program, weights) and all(
        is_given(program, ranges, p) and _determines(p.left, p.right, p.loops, _short(p, ranges, limit))
        for found in pieces.values()
        for p in found
    )


def _grows(program: Program, names: Iterable[str]) -> bool:
    """Whether arrays have more than a bounded number of entries, for some extents."""
    axes = [program.arrays[n].axes for n in names]
    if not all(axis.stop.is_constant for own in axes for axis in own):
        return True
    return sum(math.prod(axis.stop.constant for axis in own) for own in axes) > BOUNDED


def _limit(program: Program, names: Iterable[str]) -> int:
    literal = all(axis.stop.is_constant for n in names for axis in program.arrays[n].axes)
    return FEW if literal else BOUNDED


def _kind(program: Program, ranges: Mapping[str, Range], limit: int, a: str, b: str, piece: Piece) -> str:
    """The least structure that one piece has."""
    short = _short(piece, ranges, limit)
    ways = ((piece.left, piece.right), (piece.right, piece.left))
    local = is_given(program, ranges, piece) and any(_determines(*way, piece.loops, short) for way in ways)
    if not local:
        return "dense"
    if a != b:
        return "sparse"
    if piece.left == piece.right:
        return "diagonal"
    long = [
        (own, other)
        for own, other, axis in zip(piece.left, piece.right, program.arrays[a].axes, strict=True)
        if not (axis.stop.is_constant and axis.stop.constant <= limit)
    ]
    if all(own == other for own, other in long):
        return "block-diagonal"
    near = all(
        (other + own * -1).names <= set(short) and not gathers(own) and not gathers(other) for own, other in long
    )
    return "banded" if near else "sparse"


def is_given(program: Program, ranges: Mapping[str, Range], piece: Piece) -> bool:
    """Whether index data say where the piece lands; the place of an extreme entry is known only when a kernel runs."""
    own = frozenset().union(
        *(gathers(s) for s in (*piece.left, *piece.right)), *(ranges[i].gathers for i in piece.loops)
    )
    return all(program.arrays[name].role in ("weight", "data") for name in own)


def _short(piece: Piece, ranges: Mapping[str, Range], limit: int) -> tuple[str, ...]:
    lengths = {i: ranges[i].stop + ranges[i].start * -1 for i in piece.loops}
    return tuple(i for i, length in lengths.items() if length.is_constant and length.constant <= limit)


# ---------------------------------------------------------------------------------------------- what determines what


def _determines(known: Subscripts, wanted: Subscripts, loops: Sequence[str], short: Iterable[str]) -> bool:
    """Whether the values of some subscripts leave a bounded number of values to others."""
    span = _Span()
    for loop in short:
        span.add({loop: Fraction(1)})
    for subscript in known:
        span.add(_row(subscript, loops))
    unread = {g for s in (*known, *wanted) for g in _all_gathers(s)}
    while True:
        met = {g for g in unread if span.has({g: Fraction(1)}) or all(span.has(_row(s, loops)) for s in g.subscripts)}
        if not met:
            return all(span.has(_row(s, loops)) for s in wanted)
        unread -= met
        for g in met:
            span.add({g: Fraction(1)})
            for s in g.subscripts:
                span.add(_row(s, loops))


def _row(subscript: Affine, loops: Sequence[str]) -> Row:
    """The subscript as a row over loops and gathers; extents and constants are known."""
    return {item: Fraction(count) for item, count in subscript.terms if isinstance(item, Gather) or item in loops}


def _all_gathers(subscript: Affine) -> set[Gather]:
    """The gathers in a subscript, those inside gathers too."""
    found: set[Gather] = set()
    for item, _ in subscript.terms:
        if isinstance(item, Gather):
            found |= {item}.union(*(_all_gathers(s) for s in item.subscripts))
    return found


class _Span:
    """The rows that are combinations of those added, in echelon form."""

    def __init__(self) -> None:
        self.rows: list[tuple[object, Row]] = []

    def _reduced(self, row: Row) -> Row:
        for pivot, known in self.rows:
            factor = row.get(pivot, Fraction(0))
            if factor:
                keys = dict.fromkeys((*row, *known))
                mixed = {key: row.get(key, Fraction(0)) - factor * known.get(key, Fraction(0)) for key in keys}
                row = {key: value for key, value in mixed.items() if value}
        return row

    def add(self, row: Row) -> None:
        row = self._reduced(row)
        if row:
            pivot = next(iter(row))
            self.rows.append((pivot, {key: value / row[pivot] for key, value in row.items()}))

    def has(self, row: Row) -> bool:
        return not self._reduced(row)
