"""A pass that computes what is added to several places once.

The derivative of a difference of neighbours is added to both of them. Loops that add to one array at two offsets do
not vectorise, so each addition has loops of its own (schedule.py); what is expensive in it goes through an array:

    g[i + 1] += d[i]*(d[i]**2 + e)**(-1/2)  for i            t[i] = d[i]*(d[i]**2 + e)**(-1/2)  for i
    g[i] += -d[i]*(d[i]**2 + e)**(-1/2)  for i        ->     g[i + 1] += t[i]  for i
                                                             g[i] += -t[i]  for i

Additions through index data do not vectorise anyway; they share their loops, and nothing needs to be kept.
"""

from __future__ import annotations

from dataclasses import replace

from ..program.expression import Op, gathers, mul, name, number, read, split_coefficient
from ..program.program import Array, Program, Range, Statement, unused
from .prepare import is_expensive

Key = tuple[frozenset[str], Op]


def share(program: Program) -> Program:
    """Let additions over the same loops whose terms are equal but for a number read them from a local array."""
    keys = [_key(program, s) for s in program.statements]
    additions = [key for s, key in zip(program.statements, keys, strict=True) if s.adds and key is not None]
    repeated = {key for key in additions if additions.count(key) > 1}
    arrays, made = dict(program.arrays), dict[Key, Op]()
    statements: list[Statement] = []
    for statement, key in zip(program.statements, keys, strict=True):
        if key in repeated:
            assert key is not None
            if key not in made:
                statements.append(_kept(program, statement, key, arrays))
                made[key] = read(statements[-1].target, statements[-1].subscripts)
            coefficient, _ = split_coefficient(statement.expression)
            statement = replace(statement, expression=mul(number(coefficient), made[key]))
        statements.append(statement)
    return replace(program, arrays=arrays, statements=tuple(statements))


def _key(program: Program, statement: Statement) -> Key | None:
    """The loops and the term, if it is worth an array over the loops: expensive, and nothing is summed."""
    if statement.summed or not statement.loops or any(gathers(s) for s in statement.subscripts):
        return None
    if not all(n in program.extents for i in statement.loops for n in _ends(program.ranges[i])):
        return None  # a range that depends on another loop is no axis
    _, term = split_coefficient(statement.expression)
    return (frozenset(statement.loops), term) if _has_expensive(term) else None


def _ends(values: Range) -> frozenset[str]:
    return values.start.names | values.stop.names


def _has_expensive(node: Op) -> bool:
    return is_expensive(node) or any(map(_has_expensive, node.children))


def _kept(program: Program, statement: Statement, key: Key, arrays: dict[str, Array]) -> Statement:
    """The statement that computes a term once, over the loops of the first that adds it."""
    target = unused(arrays, "t")
    axes = tuple(program.ranges[i] for i in statement.loops)
    arrays[target] = Array(target, axes, "local", origin="added to several places")
    subscripts = tuple(map(name, statement.loops))
    return Statement(target, subscripts, statement.loops, key[1], note=f"term of {statement.target}")
