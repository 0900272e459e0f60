"""Sparse second derivatives: a program that computes each number once, and where the numbers go.

The pieces d2E/da[left] db[right] += h of a sparse derivative become outputs of a kernel, its slots:

    a band     pieces whose right subscripts are the left ones plus constants are added up in an array like a:
               the diagonal and each neighbour of an image are one slot array each
    a list     any other piece, and a band of one piece, is written over its own loops: an array like the edges

    H[i, i] += 1;  H[i, i] += c(i);  H[i + 1, i + 1] += c(i);  H[i, i + 1] += -c(i);  H[i + 1, i] += -c(i)

    slot_0[i] = 1;  slot_0[i] += c(i);  slot_0[i + 1] += c(i)       diagonal, once
    slot_1[i] = -c(i)                                               row i, column i + 1, mirrored

Which entry of the matrix a number belongs to depends on extents and index data only. `Landing` says it for each piece,
pattern.py works it out. Of a symmetric matrix only one of two mirrored pieces is computed, so that both halves are
the same numbers to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations

from ..program.expression import Affine, constant, gathers, mul, name, read
from ..program.program import Array, Program, ProgramError, Range, Statement
from ..text.sizes import no_less
from .differentiate import Builder, Contribution, Piece, Pieces, assemble, second_pieces
from .landings import MIRRORED, ONCE, UPPER, Landing, Support


def sparse_second(
    program: Program, left: Sequence[str], right: Sequence[str], *, of: str = "value"
) -> tuple[Program, Support]:
    """Add an output `slot_k` for each slot array; with the support of d2 of / d left d right."""
    builder = Builder(program)
    pieces = second_pieces(builder, left, right, of)
    landings: list[Landing] = []
    for key, group in _groups(builder.ranges, pieces, left, right).items():
        landings += _slot(builder, key[:2], group, key[-1], f"slot_{len({x.slot for x in landings})}")
    done = builder.program()
    return done, Support(
        tuple((a.name, a.axes) for a in done.arrays.values() if a.name.startswith("slot_")),
        tuple((n, program.arrays[n].axes) for n in left),
        tuple((n, program.arrays[n].axes) for n in right),
        tuple(landings),
        tuple(sorted({n for x in landings for s in (*x.left, *x.right, *x.at) for n in gathers(s)})),
    )


# ---------------------------------------------------------------------------------------------- which pieces together

Key = tuple[str, ...]


def _groups(
    ranges: Mapping[str, Range], pieces: Pieces, left: Sequence[str], right: Sequence[str]
) -> dict[Key, list[Piece]]:
    """Pieces by array of the row, array of the column, what makes them a band, and how they count."""
    groups: dict[Key, list[Piece]] = {}
    symmetric = tuple(left) == tuple(right)
    for i, a in enumerate(left):
        for b in right[i:] if symmetric else right:
            found = [(p, MIRRORED if symmetric else ONCE) for p in pieces.get((a, b), [])]
            if symmetric and a == b:
                found = _halved(ranges, [p for p, _ in found])
            for piece, counts in found:
                groups.setdefault((a, b, _band(piece, len(groups)), counts), []).append(piece)
    return groups


def _halved(ranges: Mapping[str, Range], pieces: Sequence[Piece]) -> list[tuple[Piece, str]]:
    """Of a diagonal block: one of each two sets of pieces that mirror each other, its rows before its columns."""
    result = []
    met: set[str] = set()
    mirror_images: set[str] = set()
    for piece in pieces:
        key, mirrored = (_canonical(p, ranges) for p in (piece, _mirrored(piece)))
        met.add(key)
        if piece.left == piece.right:
            result.append((piece, ONCE))
        elif key == mirrored:
            result.append((piece, UPPER))
        elif key not in mirror_images:
            mirror_images.add(mirrored)
            offset = _offset(piece)
            below = offset is not None and next(o for o in offset if o) < 0
            result.append((_mirrored(piece) if below else piece, MIRRORED))
    if not mirror_images <= met:
        raise ProgramError(f"pieces of a Hessian lack their mirror image: {'; '.join(sorted(mirror_images - met))}")
    return result


def _mirrored(piece: Piece) -> Piece:
    return replace(piece, left=piece.right, right=piece.left)


def _canonical(piece: Piece, ranges: Mapping[str, Range]) -> str:
    """The subscripts with loops named so that equal ones have equal text."""

    def text(order: Sequence[str]) -> str:
        free = {i: name(f"free{k}") for k, i in enumerate(order)}
        limits = [end for i in order for end in (ranges[i].start, ranges[i].stop)]
        return "; ".join(str(s.replaced(free)) for s in (*piece.left, *piece.right, *limits))

    return min(map(text, permutations(piece.loops)))


def _offset(piece: Piece) -> tuple[int, ...] | None:
    """What the right subscripts are more than the left ones, if it is constant on every axis."""
    if len(piece.left) != len(piece.right):
        return None
    offset = [q + p * -1 for p, q in zip(piece.left, piece.right, strict=True)]
    return tuple(o.constant for o in offset) if all(o.is_constant for o in offset) else None


def _band(piece: Piece, count: int) -> str:
    """What pieces of one band have in common: the offset, and the subscripts that are constants."""
    offset = _offset(piece)
    if offset is None:
        return f"list {count}"
    constants = [str(s.constant) if s.is_constant else "" for s in piece.left]
    return f"band {offset} {constants}"


# ---------------------------------------------------------------------------------------------- one slot array


def _slot(builder: Builder, arrays: Sequence[str], group: Sequence[Piece], counts: str, slot: str) -> list[Landing]:
    """Define a slot array; returns where its numbers land."""
    note = f"second derivative in {', '.join(arrays)}"
    free = [k for k, s in enumerate(group[0].left) if not s.is_constant]
    if len(group) == 1 and (len(group[0].loops) <= len(free) or _offset(group[0]) is None):
        (piece,) = group
        ends = [limits(builder.ranges, i) for i in piece.loops]
        at = tuple(name(i) + low * -1 for i, (low, _) in zip(piece.loops, ends, strict=True))
        axes = tuple(Range(constant(0), no_less(high + low * -1)) for low, high in ends)
        builder.arrays[slot] = Array(slot, axes, "output", origin=note)
        builder.statements.append(Statement(slot, at, piece.loops, piece.expression, note=note))
        places = [at]
    else:
        axes = tuple(Range(constant(0), no_less(builder.arrays[arrays[0]].axes[k].stop)) for k in free)
        places = [tuple(p.left[k] for k in free) for p in group]
        items = [Contribution(p.loops, at, p.expression) for p, at in zip(group, places, strict=True)]
        assemble(builder, slot, axes, items, note)
    return [
        Landing(slot, at, tuple((i, builder.ranges[i]) for i in p.loops), arrays[0], p.left, arrays[1], p.right, counts)
        for p, at in zip(group, places, strict=True)
    ]


def limits(ranges: Mapping[str, Range], loop: str) -> tuple[Affine, Affine]:
    """The least value of a loop and one more than its largest, in extents; its range may depend on other loops."""

    def extreme(value: Affine, sign: int) -> Affine:
        mapping = {}
        for item, count in value.terms:
            if item in ranges:
                low, high = limits(ranges, str(item))
                mapping[str(item)] = high + -1 if count * sign > 0 else low
        return value.replaced(mapping)

    return extreme(ranges[loop].start, -1), extreme(ranges[loop].stop, 1)


# ---------------------------------------------------------------------------------------------- a matrix in slots


def slot_product(program: Program, support: Support) -> Program:
    """The product of a Hessian in slots with the direction: outputs `hvp_y`, the slots read as variables.

    Nothing of the energy is computed again, and loops over neighbours read and write along rows: several times faster
    than the same matrix in compressed rows.
    """
    inputs = {n: a for n, a in program.arrays.items() if a.role in ("weight", "data")}
    builder = Builder(Program(inputs, program.ranges, program.extents, (), program.family))
    for slot, axes in support.slots:
        builder.arrays[slot] = Array(slot, axes, "variable", origin="numbers of the Hessian")
    items: dict[str, list[Contribution]] = {a: [] for a, _ in support.rows}
    for a, axes in support.rows:
        builder.arrays[_direction(a)] = Array(_direction(a), axes, "direction", origin=f"along {a}")
    for slot, _ in support.slots:
        x = _covering(builder, [x for x in support.landings if x.slot == slot], dict(support.rows))
        loops = tuple(i for i, _ in x.loops)
        number = read(slot, x.at)
        items[x.row].append(Contribution(loops, x.left, mul(number, read(_direction(x.column), x.right))))
        if x.counts == MIRRORED:
            items[x.column].append(Contribution(loops, x.right, mul(number, read(_direction(x.row), x.left))))
    for a, axes in support.rows:
        assemble(builder, f"hvp_{a}", axes, items[a], f"product in {a}")
    return builder.program()


def _direction(variable: str) -> str:
    return variable.replace("y", "v", 1)


def _covering(builder: Builder, landings: Sequence[Landing], axes: Mapping[str, tuple[Range, ...]]) -> Landing:
    """One landing for all numbers of a slot array: its own for a list, one over the whole band for a band."""
    first = landings[0]
    if len(landings) == 1 and len(first.at) == len(first.loops):
        builder.ranges.update(first.loops)
        return first
    left, right, at = [], [], []
    loops: list[tuple[str, Range]] = []
    for own, other, axis in zip(first.left, first.right, axes[first.row], strict=True):
        if own.is_constant:
            left.append(own)
            right.append(other)
            continue
        offset = (other + own * -1).constant
        inside = Range(constant(max(0, -offset)), axis.stop + -max(0, offset))
        loops.append((builder.index(inside), inside))
        left.append(name(loops[-1][0]))
        right.append(left[-1] + offset)
        at.append(left[-1])
    return replace(first, at=tuple(at), loops=tuple(loops), left=tuple(left), right=tuple(right))
