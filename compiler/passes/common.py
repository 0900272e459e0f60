"""What the members of a family have in common is computed once for each instance, before any of them.

A pass from one program to two. What depends on weights and data, and not on all indices of the family, is moved to the
second, which has no variables; the first reads what it writes:

    s[k] += exp(x[k, i])                for k, i          common_s[k] = s[k]     for k      (and s before it)
    t += a[m0]*(y[k] - s[k])**2         for k       ->    t += a[m0]*(y[k] - s[k])**2       s is given

Moved are whole arrays, and expensive parts of terms that are no larger than an array that they read, but for an axis
for each index of the family that they depend on. What depends on weights alone stays: prepare.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..calls.declaration import COUNT
from ..program.expression import Op, contains, read
from ..program.family import members_of, with_axes
from ..program.program import Array, Program, Statement, arrays_read
from ..program.ranges import in_order
from .prepare import Loops, extract, is_expensive, loops_of_a_read
from .simplify import prune

PREFIX = "common_"


def split(program: Program) -> tuple[Program, Program | None]:
    """The program of one member, and that of what members have in common; None where that is nothing."""
    program = _with_parts(program)
    shared = _shared(program)
    weights = _of_weights(program)
    movable = {t for t in shared - weights if not program.arrays[t].integer}
    wanted = _needed(program, (s for s in program.statements if program.arrays[s.target].role == "output"), movable)
    stored = [a.name for a in program.arrays.values() if a.name in movable and a.name in wanted]
    if not stored:
        return program, None
    common = _common(program, shared, stored)
    members = members_of(program, shared)
    arrays = dict(program.arrays)
    for target in stored:
        arrays[target] = replace(arrays[target], role="common", axes=common.arrays[PREFIX + target].axes)
    own = tuple(s for s in program.statements if s.target not in stored and s.target in wanted)
    rest = replace(program, arrays=arrays, statements=own)
    return prune(with_axes(rest, {target: members[target] for target in stored})), common


def _with_parts(program: Program) -> Program:
    """Expensive parts that members share as arrays of their own."""
    shared, weights = _shared(program), _of_weights(program)
    known = shared | _inputs(program)
    given = weights | {a.name for a in program.arrays.values() if a.role == "weight"}

    def pick(statement: Statement, node: Op) -> Loops | None:
        if statement.target in shared or not node.arrays or not node.arrays <= known or node.arrays <= given:
            return None
        if program.family.keys() <= node.indices or not contains(node, is_expensive):
            return None
        return loops_of_a_read(statement, node)

    return extract(program, pick, "local", "the same for several members")


def _inputs(program: Program) -> set[str]:
    return {a.name for a in program.arrays.values() if a.role in ("weight", "data")}


def _shared(program: Program) -> set[str]:
    """The local arrays that are made of weights and data, for less than all indices of the family."""
    found = _made_of(program, _inputs(program))
    whole = set(program.family)
    return {target for target, members in members_of(program, found).items() if set(members) != whole}


def _of_weights(program: Program) -> set[str]:
    return _made_of(program, {a.name for a in program.arrays.values() if a.role == "weight"})


def _made_of(program: Program, known: set[str]) -> set[str]:
    """The local arrays whose every statement reads known arrays and others of them only."""
    local = {a.name for a in program.arrays.values() if a.role == "local"}
    while True:
        wrong = {s.target for s in program.statements if not arrays_read(program, s) <= known | local} & local
        if not wrong:
            return local
        local -= wrong


def _needed(program: Program, roots: Iterable[Statement], given: set[str]) -> set[str]:
    """The targets of some statements and all arrays that they need, but not what `given` arrays are made of."""
    writers: dict[str, list[Statement]] = {}
    for statement in program.statements:
        writers.setdefault(statement.target, []).append(statement)
    found: set[str] = set()
    todo = [s.target for s in roots]
    while todo:
        target = todo.pop()
        if target not in found:
            found.add(target)
            todo += [a for s in writers.get(target, ()) if target not in given for a in arrays_read(program, s)]
    return found


def _common(program: Program, shared: set[str], stored: list[str]) -> Program:
    """The program that writes `common_t` for each stored array t."""
    needed = _needed(program, (s for s in program.statements if s.target in stored), set())
    own = replace(program, statements=tuple(s for s in program.statements if s.target in needed & shared))
    own = with_axes(own, members_of(own, shared))
    arrays, ranges, statements = dict(own.arrays), dict(own.ranges), list(own.statements)
    for target in stored:
        first = next(s for s in statements if s.target == target)
        copy = PREFIX + target
        arrays[copy] = Array(copy, arrays[target].axes, "output", origin=f"{target} for all members")
        at, loops = first.subscripts, in_order(first.kept, ranges)
        statements.append(Statement(copy, at, loops, read(target, at), note="what members have in common"))
    kept = {n: a for n, a in arrays.items() if a.role != "output" or n.startswith(PREFIX)}
    extents = tuple(extent for extent in program.extents if extent != COUNT)  # of points, which depend on variables
    return prune(Program(kept, ranges, extents, tuple(statements)))
