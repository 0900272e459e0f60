"""Is an energy quadratic in its variables? The degree of a program as a polynomial, statement by statement.

    r[i] = x[i] - t[]                degree 1 in t
    value += r[i]**2*w[i]   for i    degree 2: the Hessian does not depend on t

Numbers, weights, data, indices and variables that are not asked about have degree 0. Sums have the largest degree of
their terms, products add degrees, powers with a natural exponent multiply them, and a `select` whose condition has
degree 0 has the larger one of its branches. Whatever else is made of something of degree above 0 is no polynomial:
its degree is infinite. So the answer is never wrongly yes; it is no for an energy of higher degree whose terms cancel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..program.expression import Op, gathers
from ..program.program import Program, Statement


def is_quadratic(program: Program, variables: Iterable[str]) -> bool:
    """Whether the value is a polynomial of degree 2 or less in these variables, all others being fixed."""
    return first_beyond(program, variables, 2) is None


def first_beyond(program: Program, variables: Iterable[str], degree: int) -> Statement | None:
    """The first statement that goes beyond a degree in these variables and that the value depends on, or None."""
    return _first_beyond(program, variables, degree)[0]


def term_beyond(program: Program, variables: Iterable[str], degree: int) -> Op | None:
    """What goes beyond a degree in that statement: of a sum the first term that does; None if there is none."""
    statement, known = _first_beyond(program, variables, degree)
    if statement is None:
        return None
    whole = statement.expression
    terms = whole.args if whole.name == "add" else ()
    return next((term for term in terms if _degree(term, known, {}) > degree), whole)


def _first_beyond(
    program: Program, variables: Iterable[str], degree: int
) -> tuple[Statement | None, Mapping[str, float]]:
    """The statement, and the degrees of the arrays before it."""
    wanted, needed = frozenset(variables), _needed(program)
    found: dict[str, float] = {name: float(name in wanted) for name in program.arrays}
    for statement in program.statements:
        if statement.target in needed:
            own = _statement_degree(program, statement, found)
            if own > degree:
                return statement, found
            found[statement.target] = max(found[statement.target], own)
    return None, found


def _needed(program: Program) -> frozenset[str]:
    """The arrays that the value is computed from, and itself."""
    needed = {"value"}
    for statement in reversed(program.statements):
        if statement.target in needed:
            needed |= statement.arrays
            needed |= {name for loop in statement.loops for name in program.ranges[loop].gathers}
    return frozenset(needed)


def _statement_degree(program: Program, statement: Statement, known: Mapping[str, float]) -> float:
    own = _degree(statement.expression, known, {})
    places = {name for subscript in statement.subscripts for name in gathers(subscript)}
    places |= {name for loop in statement.loops for name in program.ranges[loop].gathers}
    if any(known[name] > 0.0 for name in places):
        return math.inf
    if own == 0.0 or not statement.accumulate or statement.reduction == "sum":
        return own
    return own * _times(program, statement) if statement.reduction == "product" else math.inf


def _times(program: Program, statement: Statement) -> float:
    """How many factors a product has, where its loops say so by numbers."""
    lengths = [program.ranges[loop].stop + program.ranges[loop].start * -1 for loop in statement.summed]
    return math.prod(max(0, n.constant) for n in lengths) if all(n.is_constant for n in lengths) else math.inf


def _degree(node: Op, known: Mapping[str, float], memo: dict[Op, float]) -> float:
    found = memo.get(node)
    if found is None:
        found = memo[node] = _node_degree(node, known, memo)
    return found


def _node_degree(node: Op, known: Mapping[str, float], memo: dict[Op, float]) -> float:
    if node.name in ("read", "affine"):
        subscripts: Any = node.args[1] if node.name == "read" else node.args
        if any(known[name] > 0.0 for subscript in subscripts for name in gathers(subscript)):
            return math.inf
        return known[node.args[0]] if node.name == "read" else 0.0
    degrees = [_degree(child, known, memo) for child in node.children]
    largest = max(degrees, default=0.0)
    if largest == 0.0 or node.name == "add":
        return largest
    if node.name == "mul":
        return sum(degrees)
    if node.name == "power" and isinstance(node.args[1], int) and node.args[1] > 0:
        return node.args[1] * degrees[0]
    if node.name == "select" and degrees[0] == 0.0:
        return max(degrees[1:])
    return math.inf
