"""Which unknowns meet in a second derivative at all, for given extents: also where so many do that it is dense.

Of each piece d2E/da[left] db[right] only the subscripts count, and the loops that they need:

    sum_j (t + sum_k a[k] B[k, j] - q[j])^2     t t, t a[k], t q[j], a[k] a[l], a[k] q[j], q[j] q[j]: no q[i] q[j]

What index data say is not looked at: a gathered subscript may be any, and is the same on both sides where it reads the
same (p[e[k]] meets p[e[k]], and every c[f[k]]). So the answer is the same for all instances of a batch, whatever their
index data, and is worked out once for each set of extents. It says too much at most, never too little.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .differentiate import Pieces
from .expression import Affine, gathers
from .landings import Coupling, Structure
from .program import Program, Range, unused
from .reference import integer

MOST_UNKNOWNS, MOST_ENTRIES = 4096, 1 << 24
"""More unknowns, or more entries of one piece, are not looked at: their matrix of couplings would take as long."""


def find_couplings(
    program: Program, ranges: Mapping[str, Range], variables: Sequence[str], pieces: Pieces
) -> tuple[Coupling, ...] | None:
    """What the pieces of the Hessian couple; None where that depends on more than extents."""
    found: dict[Coupling, None] = {}
    for (row, column), same in pieces.items():
        for piece in same:
            known = {i: ranges[i] for i in piece.loops}
            free: dict[tuple[Affine, Range], str] = {}
            sides = []
            for array, side in ((row, piece.left), (column, piece.right)):
                axes = program.arrays[array].axes
                sides.append(tuple(_free(s, axis, known, free) for s, axis in zip(side, axes, strict=True)))
            needed = _needed((s for side in sides for s in side), known)
            if any(r.gathers for _, r in needed) or not _is_closed(needed, sides, program):
                return None
            found.setdefault(_renamed(Coupling(needed, row, sides[0], column, sides[1])))
    return tuple(found)


def _free(subscript: Affine, axis: Range, known: dict[str, Range], free: dict[tuple[Affine, Range], str]) -> Affine:
    """A subscript that reads index data becomes a loop of its own over the axis, the same for equal subscripts."""
    if not gathers(subscript):
        return subscript
    name = free.get((subscript, axis))
    if name is None:
        name = free[subscript, axis] = unused(known, "g")
        known[name] = axis
    return Affine(((name, 1),))


def _needed(subscripts: Iterable[Affine], known: Mapping[str, Range]) -> tuple[tuple[str, Range], ...]:
    """The loops in subscripts, and those that their ranges need."""
    wanted: set[str] = set().union(*(s.names for s in subscripts)) & known.keys()
    while more := set().union(*(known[i].names for i in wanted)) & known.keys() - wanted:
        wanted |= more
    return tuple((i, known[i]) for i in known if i in wanted)


def _is_closed(needed: Sequence[tuple[str, Range]], sides: Sequence[Sequence[Affine]], program: Program) -> bool:
    """Whether loops and extents are all there is in ranges and subscripts: no member of a family."""
    names = {n for side in sides for s in side for n in s.names} | {n for _, r in needed for n in r.names}
    return names <= {i for i, _ in needed} | set(program.extents)


def _renamed(coupling: Coupling) -> Coupling:
    """With loops named in order, so that equal ones are found."""
    order: dict[str, None] = {}
    for side in (coupling.left, coupling.right):
        for s in side:
            order.update(dict.fromkeys(n for n, _ in s.terms if isinstance(n, str)))
    loops = dict(coupling.loops)
    order.update(dict.fromkeys(loops))
    names = {n: f"i{k}" for k, n in enumerate(n for n in order if n in loops)}
    into = {n: Affine(((new, 1),)) for n, new in names.items()}
    return Coupling(
        tuple((names[n], loops[n].replaced(into)) for n in names),
        coupling.row,
        tuple(s.replaced(into) for s in coupling.left),
        coupling.column,
        tuple(s.replaced(into) for s in coupling.right),
    )


def coupled(structure: Structure, extents: Mapping[str, int]) -> NDArray[np.bool_] | None:
    """Which entries the Hessian has, symmetric (n, n), the diagonal included; None where it is not known."""
    if structure.couplings is None:
        return None
    offsets, shapes, n = {}, {}, 0
    for name, axes in structure.variables:
        shapes[name] = [max(0, int(integer(axis.stop, extents, {}))) for axis in axes]
        offsets[name] = n
        n += math.prod(shapes[name])
    if n > MOST_UNKNOWNS:
        return None
    met = np.eye(n, dtype=bool)
    for x in structure.couplings:
        scope, inside = _grid(x.loops, extents)
        if inside is None:
            return None
        rows, columns = (
            offsets[array] + sum((integer(s, scope, {}) * step for s, step in _strided(side, shapes[array])), 0)
            for array, side in ((x.row, x.left), (x.column, x.right))
        )
        rows, columns = (np.broadcast_to(places, inside.shape)[inside] for places in (rows, columns))
        met[rows, columns] = True  # both orders of a pair are pieces
    return met


def _strided(side: Sequence[Affine], shape: Sequence[int]) -> list[tuple[Affine, int]]:
    return [(s, math.prod(shape[k + 1 :])) for k, s in enumerate(side)]


def _grid(
    loops: Sequence[tuple[str, Range]], extents: Mapping[str, int]
) -> tuple[dict[str, Any], NDArray[np.bool_] | None]:
    """Values of loops, each along an axis of its own, and which of their combinations there are; None if too many."""
    scope: dict[str, Any] = dict(extents)
    ends: dict[str, tuple[int, int]] = {name: (value, value) for name, value in extents.items()}
    left, axis, size = list(loops), len(loops), 1
    inside: Any = np.ones((1,) * len(loops), bool)
    while left:
        name, values = next((i, r) for i, r in left if r.names <= scope.keys())
        left.remove((name, values))
        low, high = _bounds(values.start, ends)[0], _bounds(values.stop, ends)[1]
        ends[name] = low, max(low, high - 1)
        size *= max(1, high - low)
        if size > MOST_ENTRIES:
            return scope, None
        axis -= 1
        scope[name] = np.arange(low, high).reshape(-1, *(1,) * (len(loops) - axis - 1))
        within = (integer(values.start, scope, {}) <= scope[name]) & (scope[name] < integer(values.stop, scope, {}))
        inside = inside & within
    return scope, inside


def _bounds(value: Affine, ends: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    """The least and the largest value."""
    low = high = value.constant
    for item, count in value.terms:
        first, last = (count * end for end in ends[str(item)])
        low, high = low + min(first, last), high + max(first, last)
    return low, high
