"""Loop nests put under one outermost loop, so that an array between them shrinks to one row.

    for j:  for i: d[j, i] = x[j, i] - x[j, i + 1]          for j:  for i: d[i] = x[j, i] - x[j, i + 1]
    for j:  for i: G[j, i] += d[j, i]                 ->            for i: G[j, i] += d[i]
    for j:  for i: G[j, i + 1] += -d[j, i]                          for i: G[j, i + 1] += -d[i]

An image is then read and written row by row, in the cache, and scratch memory is that of a row. It is done where a
local array that is no sum is defined in one nest and read in others at the same row only; a nest before them that
writes the same rows is put under the loop as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from ..program.expression import Affine, name, replace_indices
from ..program.program import Program, Statement, arrays_read
from .nests import Nest

Block = list[Nest]  # nests under one outermost loop, or a single one


class _Use(NamedTuple):
    """A read of an array, or a write; `subscripts` is None where they are not to be seen."""

    subscripts: tuple[Affine, ...] | None
    writes: bool
    adds: bool


def share_rows(program: Program, nests: Sequence[Nest]) -> tuple[list[Nest], dict[str, int]]:
    """Join nests of one outermost range where that makes a local array smaller.

    Returns
    -------
    nests
        Nests that have moved under the loop of an earlier one stand behind it, `joined`. Their statements, one after
        the other, are still a program.
    rows
        The arrays of which memory holds one row, and which axis it has no more.
    """
    blocks = _numbers_last(program, [[nest] for nest in nests])
    rows: dict[str, int] = {}
    sums = {s.target for nest in nests for s in nest.statements if s.accumulate and not s.adds}
    for array in program.arrays.values():
        if array.role != "local" or len(array.axes) < 2 or array.name in sums:
            continue
        joined = _joined(program, blocks, array.name)
        if joined is not None:
            blocks, rows[array.name] = joined
    for place in range(len(blocks) - 1, 0, -1):
        if len(blocks[place]) > 1:
            for before in range(place):
                if _write_alike(blocks[before], blocks[place]):
                    merged = _merged(program, blocks, before, place)
                    if merged is not None:
                        blocks = merged
                        break
    return [replace(nest, joined=k > 0) for block in blocks for k, nest in enumerate(block)], rows


def _numbers_last(program: Program, blocks: list[Block]) -> list[Block]:
    """The blocks with those that have no loop, such as the energy's own, as late as may be: out of the way."""
    result: list[Block] = []
    for block in reversed(blocks):
        place = 0
        if not block[0].loops:
            while place < len(result) and _independent(program, block, result[place]):
                place += 1
        result.insert(place, block)
    return result


def _joined(program: Program, blocks: list[Block], array: str) -> tuple[list[Block], int] | None:
    """The blocks with all users of an array in one, and the axis that is its row; None if that cannot be."""
    users = _users(program, blocks, array)
    if not users or (len(users) == 1 and len(blocks[users[0]]) == 1):
        return None
    while len(users) > 1:
        merged = _merged(program, blocks, users[0], users[1])
        if merged is None:
            return None
        blocks, users = merged, _users(program, merged, array)
    block = blocks[users[0]]
    axis = _common_axis(_uses(block, program)[array], block[0].loops[0])
    return None if axis is None else (blocks, axis)


def _users(program: Program, blocks: list[Block], array: str) -> list[int]:
    return [k for k, block in enumerate(blocks) if array in _uses(block, program)]


# ---------------------------------------------------------------------------------------------- may they?


def _merged(program: Program, blocks: list[Block], first: int, later: int) -> list[Block] | None:
    """The blocks with two under one outermost loop, where the first or else where the later one was.

    None if that changes results.
    """
    loop = blocks[first][0].loops[0] if blocks[first][0].loops else ""
    if not all(_may_share(program, nest) for nest in (*blocks[first], *blocks[later])):
        return None
    moving = [_renamed(nest, loop) for nest in blocks[later] if loop == nest.loops[0] or loop not in nest.loops]
    ranges = {str(program.ranges[nest.loops[0]]) for nest in (*blocks[first], *blocks[later])}
    if len(moving) < len(blocks[later]) or len(ranges) > 1:
        return None
    uses = _uses(moving, program)
    for a, own in _uses(blocks[first], program).items():
        if not _commute(own, uses.get(a, [])) and _common_axis(own + uses[a], loop) is None:
            return None
    joined, between = [*blocks[first], *moving], blocks[first + 1 : later]
    if all(_independent(program, block, moving) for block in between):
        return [*blocks[:first], joined, *between, *blocks[later + 1 :]]
    if all(_independent(program, block, blocks[first]) for block in between):
        return [*blocks[:first], *between, joined, *blocks[later + 1 :]]
    return None


def _independent(program: Program, one: Sequence[Nest], other: Sequence[Nest]) -> bool:
    """Whether two blocks may run in any order."""
    uses = _uses(other, program)
    return all(_commute(own, uses.get(a, [])) for a, own in _uses(one, program).items())


def _may_share(program: Program, nest: Nest) -> bool:
    """Whether the nest has an outermost loop on which nothing inside depends, and is written as it stands.

    A nest that sums over all but its innermost loop into memory is written twice, unrolled (nests.py).
    """
    if len(nest.loops) < 2:
        return False
    row, summed = nest.loops[0], nest.loops[-2]
    limits = [program.ranges[i] for i in nest.loops]
    unrolls = all(s.accumulate and s.reduction == "sum" and summed in s.summed for s in nest.statements)
    return not unrolls and not any(row in r.names or r.gathers for r in limits)


def _commute(one: Sequence[_Use], other: Sequence[_Use]) -> bool:
    """Whether two blocks may use an array in any order: both only read, or both only add."""
    uses = (*one, *other)
    return not one or not other or not any(u.writes for u in uses) or all(u.adds for u in uses)


def _common_axis(uses: Sequence[_Use], loop: str) -> int | None:
    """The first axis on which every use has just the loop as its subscript."""
    places = [() if u.subscripts is None else u.subscripts for u in uses]
    for axis in range(min(map(len, places))):
        if all(place[axis] == name(loop) for place in places):
            return axis
    return None


def _write_alike(one: Block, other: Block) -> bool:
    """Whether two blocks write the same array."""
    first, others = ({s.target for nest in block for s in nest.statements} for block in (one, other))
    return not first.isdisjoint(others)


def _uses(block: Sequence[Nest], program: Program) -> dict[str, list[_Use]]:
    uses: dict[str, list[_Use]] = {}
    for statement in (s for nest in block for s in nest.statements):
        adds = statement.adds and statement.accumulate and statement.reduction == "sum"
        uses.setdefault(statement.target, []).append(_Use(statement.subscripts, True, adds))
        plain = {read.args[0] for read in statement.expression.reads}
        for read in statement.expression.reads:
            uses.setdefault(read.args[0], []).append(_Use(read.args[1], False, False))
        for hidden in sorted(arrays_read(program, statement) - plain):
            uses.setdefault(hidden, []).append(_Use(None, False, False))
    return uses


def _renamed(nest: Nest, loop: str) -> Nest:
    """The nest with its outermost loop under another name."""
    mapping = {nest.loops[0]: name(loop)}

    def renamed(s: Statement) -> Statement:
        return replace(
            s,
            subscripts=tuple(x.replaced(mapping) for x in s.subscripts),
            loops=tuple(loop if i == nest.loops[0] else i for i in s.loops),
            expression=replace_indices(s.expression, mapping),
        )

    return replace(nest, loops=(loop, *nest.loops[1:]), statements=tuple(map(renamed, nest.statements)))
