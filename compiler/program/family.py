"""Families: what a kernel computes for one value of free indices, and what it need not compute for each of them.

A kernel of a family is called for a row, which is an instance and a member: the values of the family's indices. They
are read from the row's number, the last one fastest, so that drivers know rows and nothing of families. In a program
they are names as extents are.

    t += a[m0]*exp(-2*w[m0, k])*(y[k] - x[k])**2     for k              member m0 of a family

What depends on weights alone is prepared for all members at once, along an axis of its own (`with_axes`):

    p[all_m0, k] = exp(-2*w[all_m0, k])              for all_m0, k      prepared
    t += a[m0]*p[m0, k]*(y[k] - x[k])**2             for k

What most members share of their data is in common.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from .expression import Affine, name, replace_indices
from .program import Program, Range, Statement, arrays_read, moved
from .ranges import axes_of


def members_of(program: Program, targets: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The family indices that some arrays depend on, themselves or through others of them."""
    found: dict[str, set[str]] = {}
    for statement in program.statements:
        if statement.target in targets:
            own = found.setdefault(statement.target, set())
            own |= own_members(program, statement).union(*(found.get(a, ()) for a in arrays_read(program, statement)))
    return {target: tuple(i for i in program.family if i in own) for target, own in found.items()}


def own_members(program: Program, statement: Statement) -> frozenset[str]:
    """The family indices in a statement, and in the ranges of its loops."""
    names = statement.expression.indices.union(
        *(s.names for s in statement.subscripts), *(program.ranges[i].names for i in statement.loops)
    )
    return names & program.family.keys()


def with_axes(program: Program, members: Mapping[str, tuple[str, ...]]) -> Program:
    """Give arrays an axis in front for each of some indices of the family, over which their statements loop."""
    if not any(members.values()):
        return program

    def move(array: str, subscripts: tuple[Affine, ...]) -> tuple[str, tuple[Affine, ...]]:
        return array, (*map(name, members.get(array, ())), *subscripts)

    arrays, ranges = dict(program.arrays), {i: r.relocated(move) for i, r in program.ranges.items()}
    statements = []
    for statement in program.statements:
        statement, own = moved(statement, move), members.get(statement.target, ())
        if own:
            statement = _over(statement, own, program.family, ranges)
            if statement.is_definition:
                axes = axes_of([str(s.single) for s in statement.subscripts], ranges)
                assert axes is not None, "limits have no gathers"
                arrays[statement.target] = replace(arrays[statement.target], axes=axes)
        statements.append(statement)
    return replace(program, arrays=arrays, ranges=ranges, statements=tuple(statements))


def _over(
    statement: Statement, own: tuple[str, ...], family: Mapping[str, Range], ranges: dict[str, Range]
) -> Statement:
    """A statement for all values of family indices; new loops are added to `ranges`."""
    lead = tuple(map(loop_over, own))
    ranges.update({loop: family[index] for loop, index in zip(lead, own, strict=True)})
    mapping: dict[str, Affine] = {index: name(loop) for loop, index in zip(lead, own, strict=True)}
    for loop in statement.loops:
        values = ranges[loop].replaced(mapping)
        fresh = loop if values == ranges[loop] else "_".join([loop, *lead])
        ranges[fresh] = values
        mapping[loop] = name(fresh)
    return replace(
        statement,
        subscripts=(*map(name, lead), *(s.replaced(mapping) for s in statement.subscripts)),
        loops=(*lead, *(str(mapping[i].single) for i in statement.loops)),
        expression=replace_indices(statement.expression, mapping),
    )


def loop_over(index: str) -> str:
    """The loop over a family index in what is computed for all members."""
    return f"all_{index}"
