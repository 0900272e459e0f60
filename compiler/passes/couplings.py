"""Which unknowns meet in a second derivative, for a Hessian of any structure: places without numbers.

A Hessian is "dense" by name where an unknown may meet an unbounded number of others (support.py). For given extents
most of it can be 0 all the same:

    U[e[i], q] and V[f[i], q] meet for all i and q, q'      dense, since nothing bounds the extent of q
                                                            V[j, q] meets V[j, q'] only: blocks, one for each j

Each piece d2E/da[left] db[right] lands at its subscripts, for all values of the loops in them; what else it sums over
does not matter. So this costs an entry for each pair of unknowns that meet, and none for data:

    sum_j (t + sum_k a[k] B[k, j] - q[j])^2     t t, t a[k], t q[j], a[k] a[l], a[k] q[j], q[j] q[j]: no q[i] q[j]

Where index data are known, a gathered subscript is what they say. Where they are not looked at, it may be any, and is
the same on both sides where it reads the same (p[e[k]] meets p[e[k]], and every c[f[k]]): the answer is the same for
all instances of a batch. Either way it says too much at most, never too little; pattern.py works out the entries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..program.expression import Affine, constant, gathers, name
from ..program.program import Program, Range, unused
from ..program.ranges import closed
from ..text.sizes import no_less
from .differentiate import Pieces
from .landings import MIRRORED, ONCE, Landing, Support
from .slots import limits
from .support import is_given

Loops = tuple[tuple[str, Range], ...]
Sides = tuple[tuple[Affine, ...], tuple[Affine, ...]]


def couplings_by_extents(
    program: Program, ranges: Mapping[str, Range], variables: Sequence[str], pieces: Pieces
) -> Support | None:
    """Where the pieces of the Hessian land whatever index data say; None where that depends on more than extents."""
    found: list[tuple[str, str, Loops, Sides] | None] = []
    for a, b in _upper(variables):
        for piece in pieces.get((a, b), []):
            known = {i: ranges[i] for i in piece.loops}
            free: dict[tuple[Affine, Range], str] = {}
            left = _freed(piece.left, program.arrays[a].axes, known, free)
            right = _freed(piece.right, program.arrays[b].axes, known, free)
            found.append(_coupling(known, a, b, (left, right)))
    return _support(program, variables, found)


def couplings_by_data(
    program: Program, ranges: Mapping[str, Range], variables: Sequence[str], pieces: Pieces
) -> Support | None:
    """Where they land by index data; None where only a run of the kernel tells (the place of an extreme entry)."""
    return _support(
        program,
        variables,
        [
            _coupling(ranges, a, b, (piece.left, piece.right)) if is_given(program, ranges, piece) else None
            for a, b in _upper(variables)
            for piece in pieces.get((a, b), [])
        ],
    )


def _upper(variables: Sequence[str]) -> list[tuple[str, str]]:
    """One of both orders of each pair."""
    return [(a, b) for k, a in enumerate(variables) for b in variables[k:]]


def _freed(
    side: Sequence[Affine], axes: Sequence[Range], known: dict[str, Range], free: dict[tuple[Affine, Range], str]
) -> tuple[Affine, ...]:
    """A subscript that reads index data becomes a loop of its own over the axis, the same for equal subscripts."""
    for key in zip(side, axes, strict=True):
        if gathers(key[0]) and key not in free:
            free[key] = unused(known, "g")
            known[free[key]] = key[1]
    return tuple(name(free[key]) if key in free else key[0] for key in zip(side, axes, strict=True))


def _coupling(ranges: Mapping[str, Range], row: str, column: str, sides: Sides) -> tuple[str, str, Loops, Sides] | None:
    """The sides with the loops that they need, these named in order, so that equal ones are found.

    None where ranges need index data.
    """
    loops = closed(dict.fromkeys(i for side in sides for s in side for i in _in_turn(s) if i in ranges), ranges)
    if any(ranges[i].gathers for i in loops):
        return None
    into = {i: name(f"i{k}") for k, i in enumerate(loops)}
    left, right = (tuple(s.replaced(into) for s in side) for side in sides)
    return row, column, tuple((f"i{k}", ranges[i].replaced(into)) for k, i in enumerate(loops)), (left, right)


def _in_turn(subscript: Affine) -> list[str]:
    """Its names, those of its terms in their order first."""
    own = [n for n, _ in subscript.terms if isinstance(n, str)]
    return [*own, *sorted(subscript.names.difference(own))]


def _support(
    program: Program, variables: Sequence[str], found: Sequence[tuple[str, str, Loops, Sides] | None]
) -> Support | None:
    """With a slot array for each coupling, over all values of its loops."""
    landings: list[Landing] = []
    slots: list[tuple[str, tuple[Range, ...]]] = []
    for coupling in dict.fromkeys(found):
        if coupling is None:
            return None
        row, column, loops, (left, right) = coupling
        slot, ends = f"slot_{len(slots)}", [limits(dict(loops), i) for i, _ in loops]
        slots.append((slot, tuple(Range(constant(0), no_less(high + low * -1)) for low, high in ends)))
        at = tuple(name(i) + low * -1 for (i, _), (low, _) in zip(loops, ends, strict=True))
        counts = ONCE if row == column else MIRRORED
        landings.append(Landing(slot, at, loops, row, left, column, right, counts))
    axes = tuple((v, program.arrays[v].axes) for v in variables)
    gathered = {n for x in landings for s in (*x.left, *x.right) for n in gathers(s)}
    return Support(tuple(slots), axes, axes, tuple(landings), tuple(sorted(gathered)))
