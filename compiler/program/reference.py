"""An interpreter of programs in NumPy: slow, short, and the truth that kernels are tested against.

Every statement is evaluated on the full grid of its loops, reads by integer indexing, additions by `np.add.at`.
It knows nothing of loop order, fusion, sharing or memory layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from .expression import Affine, Op
from .primitives import PRIMITIVES
from .program import Program, Range, Statement

Values = dict[str, Any]


def interpret(program: Program, inputs: Mapping[str, Any], extents: Mapping[str, int]) -> Values:
    """Run a program on the arrays of one instance and return every array, outputs included.

    Parameters
    ----------
    program : Program
    inputs : dict
        Generated name -> array of the declared shape, float64, or int64 for index data.
    extents : dict
        Generated name of each extent -> int.
    """
    values: Values = {name: np.asarray(value) for name, value in inputs.items()}
    with np.errstate(all="ignore"):
        for statement in program.statements:
            grid = _grid(program, statement.loops, extents, values)
            if statement.target not in values:
                axes = program.arrays[statement.target].axes
                kind = np.int64 if program.arrays[statement.target].integer else np.float64
                lengths = [max(0, integer(a.stop, extents, values)) for a in axes]
                values[statement.target] = np.full(lengths, IDENTITY[_reduction(statement)], dtype=kind)
            target = values[statement.target]
            shape = np.broadcast_shapes(*(g.shape for g in grid.values()))
            if 0 in shape:
                continue
            scope = {**extents, **grid}
            result = np.broadcast_to(evaluate(statement.expression, values, scope, {}), shape)
            where = tuple(np.broadcast_to(integer(s, scope, values), shape) for s in statement.subscripts)
            if not statement.accumulate:
                target[where] = result
            elif statement.reduction in ("argmin", "argmax"):
                _first(target, where, grid[statement.summed[0]], result, largest=statement.reduction == "argmax")
            elif where:
                UFUNCS[statement.reduction].at(target, where, result)
            else:
                ufunc = UFUNCS[statement.reduction]
                values[statement.target] = ufunc(target, ufunc.reduce(result, axis=None))
    return values


UFUNCS = {"sum": np.add, "product": np.multiply, "maximum": np.maximum, "minimum": np.minimum}
IDENTITY = {"sum": 0, "product": 1, "maximum": -np.inf, "minimum": np.inf, "argmin": 0, "argmax": 0}


def _reduction(statement: Statement) -> str:
    return statement.reduction if statement.accumulate else "sum"


def _first(target: Any, where: Any, places: Any, results: Any, *, largest: bool) -> None:
    """For each entry of the target the place of the smallest or largest result; of equal ones the least."""
    keys = (-results if largest else results).ravel()
    entry = np.ravel_multi_index(where, target.shape).ravel() if where else np.zeros(keys.shape, dtype=int)
    places = np.broadcast_to(places, results.shape).ravel()
    order = np.lexsort((places, keys, ~np.isnan(keys), entry))
    firsts = order[np.unique(entry[order], return_index=True)[1]]
    target.reshape(-1)[entry[firsts]] = places[firsts]


def _grid(program: Program, loops: tuple[str, ...], extents: Mapping[str, int], values: Values) -> dict[str, Any]:
    """For each loop its values, along an axis of its own; all along one where a range depends on another loop."""
    if any(not program.ranges[i].names <= extents.keys() for i in loops):
        return points(program.ranges, loops, extents, values)
    grid = {}
    for k, loop in enumerate(loops):
        limits = program.ranges[loop]
        along = np.arange(integer(limits.start, extents, values), integer(limits.stop, extents, values))
        grid[loop] = along.reshape([-1 if j == k else 1 for j in range(len(loops))])
    return grid


def points(
    ranges: Mapping[str, Range], loops: Sequence[str], extents: Mapping[str, int], values: Values
) -> dict[str, Any]:
    """For each loop its values, one for each point at which a statement over the loops is evaluated: (points,)."""
    found: dict[str, Any] = {}
    count = 1
    for loop in loops:
        limits, scope = ranges[loop], {**extents, **found}
        start, stop = (np.broadcast_to(integer(end, scope, values), count) for end in (limits.start, limits.stop))
        lengths = np.maximum(0, stop - start)
        owner = np.repeat(np.arange(count), lengths)
        found = {i: p[owner] for i, p in found.items()}
        found[loop] = start[owner] + np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        count = len(owner)
    return found


def integer(value: Affine, scope: Mapping[str, Any], values: Values) -> Any:
    """The value of an affine integer expression, an int or an array of ints."""
    total: Any = value.constant
    for item, count in value.terms:
        if isinstance(item, str):
            term = scope[item]
        else:
            term = values[item.array][tuple(integer(s, scope, values) for s in item.subscripts)]
        total = total + count * term
    return total


def evaluate(node: Op, values: Values, scope: Mapping[str, Any], memo: dict[Op, Any]) -> Any:
    """The value of an expression on the grid of `scope`."""
    if node in memo:
        return memo[node]
    if node.name == "number":
        result: Any = float(node.args[0]) if isinstance(node.args[0], Fraction) else np.float64(node.args[0])
    elif node.name == "affine":
        result = np.asarray(integer(node.args[0], scope, values), dtype=np.float64)
    elif node.name == "read":
        result = values[node.args[0]][tuple(integer(s, scope, values) for s in node.args[1])]
    elif node.name in ("true", "false"):
        result = np.bool_(node.name == "true")
    elif node.name == "power":
        exponent = node.args[1]
        base = evaluate(node.args[0], values, scope, memo)
        result = np.power(base, float(exponent) if not isinstance(exponent, int) else np.float64(exponent))
    else:
        arguments = [evaluate(a, values, scope, memo) for a in node.args]
        if node.name == "add":
            result = sum(arguments[1:], arguments[0])
        elif node.name == "mul":
            result = arguments[0]
            for argument in arguments[1:]:
                result = result * argument
        else:
            result = PRIMITIVES[node.name].numpy(*arguments)
    memo[node] = result
    return result
