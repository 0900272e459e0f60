"""Products that leave factors out, without a loop over all factors for each: by division, and by counting zeros.

    o[k] *= (1 if j == k else f[j])   for k, j

becomes, with the number of factors that are 0 and the product of those that are not,

    z[] += (1 if f[j] == 0 else 0)    for j
    p[] *= (1 if f[j] == 0 else f[j]) for j
    o[k] = (p/f[k] if z == 0 else p if z == 1 and f[k] == 0 else 0)   for k

and likewise where two factors are left out: what is left is 0 unless all zeros are among those. A gradient of a product
of n factors then takes O(n) instead of O(n^2) steps, a Hessian O(n^2) instead of O(n^3). The price: where the product
of the factors that are not 0 underflows or overflows, so does what is left of it. (Prefix and suffix products need no
division, but a scan, which the language of programs lacks.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..program.expression import ONE, ZERO, Op, add, affine, function, mul, name, power, read, replace_indices, select
from ..program.program import Array, Program, Reduction, Statement, unused
from ..program.ranges import axes_of, in_order

LeftOut = tuple[Mapping[str, str], ...]  # for each factor that is left out: loop -> index at which it is


def divide(program: Program) -> Program:
    """Compute products of the other factors by division."""
    arrays = dict(program.arrays)
    statements: list[Statement] = []
    known: dict[tuple[Op, tuple[str, ...], tuple[str, ...]], tuple[Op, Op]] = {}
    for statement in program.statements:
        left_out, factor = _left_out(statement)
        if not left_out:
            statements.append(statement)
            continue
        places = {i for places in left_out for i in places.values()}
        kept = tuple(i for i in statement.kept if i not in places)
        key = (factor, kept, statement.summed)
        if key not in known:
            known[key] = _whole(program, arrays, statements, kept, statement, factor)
        zeros, product = known[key]
        found, factors = [], [product]
        for k, places_of in enumerate(left_out):
            own = replace_indices(factor, {loop: name(place) for loop, place in places_of.items()})
            is_zero = function("equal", own, ZERO)
            repeated = [_same(places_of, other) for other in left_out[:k]]
            found.append(_unless(repeated, ZERO, select(is_zero, ONE, ZERO)))
            factors.append(_unless(repeated, ONE, select(is_zero, ONE, power(own, -1))))
        rest = select(function("equal", zeros, add(*found)), mul(*factors), ZERO)
        loops = in_order(statement.kept, program.ranges)
        statements.append(replace(statement, loops=loops, expression=rest, accumulate=False, reduction="sum"))
    return replace(program, arrays=arrays, statements=tuple(statements))


def _whole(
    program: Program,
    arrays: dict[str, Array],
    statements: list[Statement],
    kept: tuple[str, ...],
    statement: Statement,
    factor: Op,
) -> tuple[Op, Op]:
    """The number of factors that are 0, and the product of the others; both are new arrays over `kept`."""
    is_zero = function("equal", factor, ZERO)
    subscripts = tuple(map(name, kept))
    loops = in_order((*kept, *statement.summed), program.ranges)
    axes = axes_of(kept, program.ranges)
    assert axes is not None, "a product that has an array lies over extents"
    results = []
    wanted: tuple[tuple[Op, str, Reduction], ...] = (
        (select(is_zero, ONE, ZERO), "how many factors are 0", "sum"),
        (select(is_zero, ONE, factor), "product of the factors that are not 0", "product"),
    )
    for expression, note, reduction in wanted:
        target = unused(arrays, "t")
        arrays[target] = Array(target, axes, "local", origin=note)
        statements.append(
            Statement(target, subscripts, loops, expression, accumulate=True, note=note, reduction=reduction)
        )
        results.append(read(target, subscripts))
    return results[0], results[1]


def _left_out(statement: Statement) -> tuple[LeftOut, Op]:
    """The factors that a product leaves out, and what a factor is; none for any other statement."""
    node, found = statement.expression, []
    while statement.accumulate and statement.reduction == "product" and node.name == "select" and node.args[1] is ONE:
        pairs = _pairs(node.args[0])
        if pairs.keys() != set(statement.summed) or not set(pairs.values()) <= set(statement.kept):
            break
        found.append(pairs)
        node = node.args[2]
    return tuple(found), node


def _pairs(condition: Op) -> dict[str, str]:
    """{j: k} of the condition j == k; joined conditions together; empty for any other."""
    if condition.name == "and":
        left, right = map(_pairs, condition.args)
        return {**left, **right} if left and right else {}
    if condition.name != "equal" or any(side.name != "affine" for side in condition.args):
        return {}
    loop, place = (side.args[0].single for side in condition.args)
    return {loop: place} if loop and place else {}


def _same(places: Mapping[str, str], others: Mapping[str, str]) -> Op:
    """Whether two factors that are left out are the same one."""
    tests = [function("equal", affine(name(places[i])), affine(name(others[i]))) for i in places]
    result = tests[0]
    for test in tests[1:]:
        result = function("and", result, test)
    return result


def _unless(conditions: list[Op], then: Op, otherwise: Op) -> Op:
    for condition in reversed(conditions):
        otherwise = select(condition, then, otherwise)
    return otherwise
