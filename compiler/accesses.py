"""Reads that could leave their arrays: found in a program, checked against extents and index data before a kernel runs.

Kernels check nothing. A subscript is bounded by interval arithmetic over its loops; a gather by the least and the
largest entry of its index data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..energies.errors import InputError
from .arrays import evaluate
from .declaration import Access, Declaration
from .expression import Affine, Gather, gathers
from .program import Program


def check_access(
    declaration: Declaration,
    access: Access,
    extents: Mapping[str, int],
    limits: Mapping[str, tuple[int, int]],
    values: Mapping[str, Any] | None = None,
) -> None:
    """Refuse a subscript that can leave its array; gathers are looked at only where their limits are known."""
    intervals: dict[Any, tuple[int, int]] = {n: (v, v) for n, v in extents.items()}
    for loop, limit in access.loops:
        intervals[loop] = (evaluate(limit.start, extents), evaluate(limit.stop, extents) - 1)
        if intervals[loop][0] > intervals[loop][1]:
            return
    for axis, (subscript, extent) in enumerate(zip(access.subscripts, access.extents, strict=True)):
        low = high = subscript.constant
        for item, count in subscript.terms:
            if isinstance(item, Gather):
                if item.array not in limits:
                    return
                interval = limits[item.array]
                if interval[0] > interval[1]:
                    return
            else:
                interval = intervals[item]
            low += min(count * interval[0], count * interval[1])
            high += max(count * interval[0], count * interval[1])
        size = evaluate(extent, extents)
        if low < 0 or high >= size:
            raise InputError(_left(declaration, access, axis, (low, high), size, subscript, limits, values))


def _left(
    declaration: Declaration,
    access: Access,
    axis: int,
    reached: tuple[int, int],
    size: int,
    subscript: Affine,
    limits: Mapping[str, tuple[int, int]],
    values: Mapping[str, Any] | None,
) -> str:
    worst = reached[0] if reached[0] < 0 else reached[1]
    for item, _ in subscript.terms:
        if isinstance(item, Gather) and values is not None:
            symbol, array = values[item.array]
            extreme = limits[item.array][0 if reached[0] < 0 else 1]
            where = ", ".join(map(str, np.argwhere(array == extreme)[0]))
            return (
                f"energy {declaration.name!r}: index data {symbol.name} has {extreme} at [{where}], but "
                f"{access.text} reads axis {axis} of extent {size}, allowed 0..{size - 1} (negative indices do not "
                "count from the end here)"
            )
    return (
        f"energy {declaration.name!r}: {access.text} reaches {worst} on axis {axis}, which has extent {size}; "
        "make the array longer or the range of the index shorter"
    )


def accesses_of(program: Program) -> tuple[Access, ...]:
    """The reads of a program that are not obviously inside their arrays."""
    found: dict[str, Access] = {}
    for statement in program.statements:
        loops = tuple((i, program.ranges[i]) for i in statement.loops)
        for array_name, subscripts in _reads(statement.expression):
            array = program.arrays[array_name]
            safe = all(
                (s.single in statement.loops and program.ranges[str(s.single)] == axis) or
                (s.is_constant and axis.stop.is_constant and 0 <= s.constant < axis.stop.constant)
                for s, axis in zip(subscripts, array.axes, strict=True)
            )  # fmt: skip
            if not safe:
                text = f"{array.origin or array.name}[{', '.join(_named(s, program) for s in subscripts)}]"
                access = Access(array.name, text, subscripts, tuple(a.stop for a in array.axes), loops)
                found.setdefault(f"{text} {loops}", access)
    return tuple(found.values())


def _named(subscript: Affine, program: Program) -> str:
    """A subscript with the user's names of index data."""
    text = str(subscript)
    for array in sorted(gathers(subscript), reverse=True):
        text = text.replace(f"{array}[", f"{program.arrays[array].origin}[")
    return text


def _reads(expression: Any) -> list[tuple[str, tuple[Affine, ...]]]:
    """Every array access in an expression, those of gathers inside subscripts too."""
    result: list[tuple[str, tuple[Affine, ...]]] = []
    todo: list[Affine] = []
    seen: set[Any] = set()
    stack = [expression]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        stack.extend(node.children)
        if node.name == "read":
            result.append((node.args[0], node.args[1]))
            todo.extend(node.args[1])
        elif node.name == "affine":
            todo.append(node.args[0])
    while todo:
        for item, _ in todo.pop().terms:
            if isinstance(item, Gather):
                result.append((item.array, item.subscripts))
                todo.extend(item.subscripts)
    return result
