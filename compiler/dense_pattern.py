"""Which unknowns meet in a second derivative, for a Hessian of any structure: places without numbers.

A Hessian is "dense" by name where an unknown may meet an unbounded number of others (support.py). For given extents
most of it can be 0 all the same:

    U[e[i], q] and V[f[i], q] meet for all i and q, q'      dense, since nothing bounds the extent of q
                                                            V[j, q] meets V[j, q'] only: blocks, one for each j

Each piece of the second derivative lands at its subscripts, for all values of the loops in them; what else it sums
over does not matter. So this costs an entry for each pair of unknowns that meet, and none for data.
"""

from __future__ import annotations

from collections.abc import Sequence

from .differentiate import Builder, Piece, second_pieces
from .expression import constant, gathers, name
from .landings import MIRRORED, ONCE, Landing, Support
from .program import Program, Range
from .ranges import in_order
from .sizes import no_less
from .slots import limits
from .support import is_given


def dense_pattern(program: Program, variables: Sequence[str]) -> Support | None:
    """Where the Hessian can have entries; None where only a run of the kernel tells (the place of an extreme entry)."""
    builder = Builder(program)
    pieces = second_pieces(builder, variables, variables, "value")
    found: dict[object, Landing] = {}
    slots: list[tuple[str, tuple[Range, ...]]] = []
    for k, a in enumerate(variables):
        for b in variables[k:]:
            for piece in pieces.get((a, b), []):
                loops = _loops_of(piece, builder)
                if loops is None or not is_given(program, builder.ranges, piece):
                    return None
                key = a, b, piece.left, piece.right, tuple((i, builder.ranges[i]) for i in loops)
                if key in found:
                    continue
                slot, ends = f"slot_{len(slots)}", [limits(builder.ranges, i) for i in loops]
                at = tuple(name(i) + low * -1 for i, (low, _) in zip(loops, ends, strict=True))
                slots.append((slot, tuple(Range(constant(0), no_less(high + low * -1)) for low, high in ends)))
                found[key] = Landing(slot, at, key[-1], a, piece.left, b, piece.right, ONCE if a == b else MIRRORED)
    axes = tuple((v, program.arrays[v].axes) for v in variables)
    gathered = {n for x in found.values() for s in (*x.left, *x.right) for n in gathers(s)}
    return Support(tuple(slots), axes, axes, tuple(found.values()), tuple(sorted(gathered)))


def _loops_of(piece: Piece, builder: Builder) -> tuple[str, ...] | None:
    """The loops in the subscripts, and those that their ranges depend on; None if index data tell a range."""
    wanted = {n for s in (*piece.left, *piece.right) for n in s.names} & set(piece.loops)
    todo = list(wanted)
    while todo:
        values = builder.ranges[todo.pop()]
        if values.gathers:
            return None
        more = (values.names & set(piece.loops)) - wanted
        wanted |= more
        todo += more
    return in_order([i for i in piece.loops if i in wanted], builder.ranges)
