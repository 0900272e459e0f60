"""Reads that could leave their arrays: found in a program, checked against extents and index data before a kernel runs.

Kernels check nothing. A subscript is bounded by eliminating its indices from the innermost on, a gather by the least
and the largest entry of its index data. Where that does not prove enough (`x[first[i] + j]`) all its values are
counted out. Extremes over an index have an entry to be found at only where the range is not empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...energies.errors import InputError
from ..program.expression import Affine, Gather, gathers
from ..program.program import Program, Range
from ..program.ranges import closed
from ..program.reference import integer, points
from .arrays import evaluate
from .declaration import Access, Declaration, Extremum

Limits = Mapping[str, tuple[int, int]]


def check_access(
    declaration: Declaration,
    access: Access,
    extents: Mapping[str, int],
    limits: Limits,
    values: Mapping[str, Any] | None = None,
) -> bool:
    """Refuse a subscript that can leave its array; gathers are looked at only where their limits are known.

    Returns whether limits alone did not tell, so that values were counted out.
    """
    counted = False
    ranges = dict(access.loops)
    used = frozenset().union(*(s.names for s in access.subscripts)) & ranges.keys()
    if any(_is_empty(i, ranges, extents) for i in closed(sorted(used), ranges)):
        return False
    for axis, (subscript, extent) in enumerate(zip(access.subscripts, access.extents, strict=True)):
        own = gathers(subscript)
        if not own <= limits.keys() or any(limits[array][0] > limits[array][1] for array in own):
            return counted
        reached = (
            _end(subscript, ranges, extents, limits, upper=False),
            _end(subscript, ranges, extents, limits, upper=True),
        )
        size = evaluate(extent, extents)
        if reached[0] >= 0 and reached[1] < size:
            continue
        if values is None or not own:
            raise InputError(_reaches(declaration, access, axis, reached, size))
        if subscript.names & ranges.keys():
            reached, counted = _counted(subscript, ranges, extents, values), True
        if reached[0] < 0 or reached[1] >= size:
            raise InputError(_left(declaration, access, axis, reached, size, subscript, limits, values))
    return counted


def check_extremum(declaration: Declaration, extremum: Extremum, extents: Mapping[str, int]) -> None:
    """Refuse an extreme over a range that is empty for some value of the indices around it."""
    *outer, (_, own) = extremum.loops
    ranges = dict(outer)
    if any(_is_empty(i, ranges, extents) for i in ranges):
        return
    if _end(own.stop + own.start * -1, ranges, extents, {}, upper=False) < 1:
        sizes = ", ".join(
            f"{user} = {extents[generated]}"
            for generated, user in zip(declaration.extents, declaration.extent_names, strict=True)
        )
        raise InputError(
            f"energy {declaration.name!r}: the {extremum.text} has no entry to choose where its range is empty "
            f"({sizes}); give at least one, or start the index around it later"
        )


def _is_empty(loop: str, ranges: Mapping[str, Range], extents: Mapping[str, int]) -> bool:
    """Whether a loop has no value at all, whatever the indices around it."""
    own = ranges[loop]
    return _end(own.stop, ranges, extents, {}, upper=True) <= _end(own.start, ranges, extents, {}, upper=False)


def _end(value: Affine, ranges: Mapping[str, Range], extents: Mapping[str, int], limits: Limits, *, upper: bool) -> int:
    """The largest or smallest value of a subscript over its loops, which come outermost first."""
    for loop in reversed(tuple(ranges)):
        count = dict(value.terms).get(loop, 0)
        if count:
            end = ranges[loop].stop + -1 if (count > 0) == upper else ranges[loop].start
            value = value + Affine(((loop, 1),)) * -count + end * count
    total = value.constant
    for item, count in value.terms:
        low, high = limits[item.array] if isinstance(item, Gather) else (extents[item], extents[item])
        total += count * (high if (count > 0) == upper else low)
    return total


def _counted(
    subscript: Affine, ranges: Mapping[str, Range], extents: Mapping[str, int], values: Mapping[str, Any]
) -> tuple[int, int]:
    """The smallest and largest value of a subscript with gathers, instance by instance."""
    arrays = {name: values[name] for name in sorted(gathers(subscript))}
    ranks = {name: len(symbol.axes) for name, (symbol, _) in arrays.items()}
    batch = max((a.shape[0] for n, (_, a) in arrays.items() if a.ndim > ranks[n]), default=1)
    loops = closed(sorted(subscript.names & ranges.keys()), ranges)
    low, high = 0, 0
    for instance in range(batch):
        own = {n: a[min(instance, len(a) - 1)] if a.ndim > ranks[n] else a for n, (_, a) in arrays.items()}
        scope = {**extents, **points(ranges, loops, extents, own)}
        found = np.asarray(integer(subscript, scope, own))
        if found.size:
            low, high = min(low, int(found.min())), max(high, int(found.max()))
    return low, high


def _left(
    declaration: Declaration,
    access: Access,
    axis: int,
    reached: tuple[int, int],
    size: int,
    subscript: Affine,
    limits: Limits,
    values: Mapping[str, Any],
) -> str:
    """The message for index data that lead out of an array: which entry, where the subscript is an entry alone."""
    (item, count), *others = subscript.terms
    if not isinstance(item, Gather) or others:
        names = ", ".join(values[array][0].name for array in sorted(gathers(subscript)))
        return f"{_reaches(declaration, access, axis, reached, size)} or correct the index data {names}"
    symbol, array = values[item.array]
    extreme = limits[item.array][0 if (reached[0] < 0) == (count > 0) else 1]
    where = ", ".join(map(str, np.argwhere(array == extreme)[0]))
    return (
        f"energy {declaration.name!r}: index data {symbol.name} has {extreme} at [{where}], but "
        f"{access.text} reads axis {axis} of extent {size}, allowed 0..{size - 1} (negative indices do not "
        "count from the end here)"
    )


def _reaches(declaration: Declaration, access: Access, axis: int, reached: tuple[int, int], size: int) -> str:
    worst = reached[0] if reached[0] < 0 else reached[1]
    return (
        f"energy {declaration.name!r}: {access.text} reaches {worst} on axis {axis}, which has extent {size}; "
        "make the array longer or the range of the index shorter"
    )


def accesses_of(program: Program) -> tuple[Access, ...]:
    """The reads of a program that are not obviously inside their arrays."""
    found: dict[str, Access] = {}
    family = tuple(program.family.items())
    for statement in program.statements:
        loops = (*family, *((i, program.ranges[i]) for i in statement.loops))
        ranges = dict(loops)
        for array_name, subscripts in _reads(statement.expression):
            array = program.arrays[array_name]
            if any(program.arrays[n].role != "data" for s in subscripts for n in gathers(s)):
                continue  # at the place of an extreme, which was looked for among reads that are checked
            safe = all(
                (s.single in ranges and ranges[str(s.single)] == axis) or
                (s.is_constant and axis.stop.is_constant and 0 <= s.constant < axis.stop.constant)
                for s, axis in zip(subscripts, array.axes, strict=True)
            )  # fmt: skip
            if not safe:
                text = f"{array.origin or array.name}[{', '.join(_named(s, program) for s in subscripts)}]"
                access = Access(array.name, text, subscripts, tuple(a.stop for a in array.axes), loops)
                found.setdefault(f"{text} {loops}", access)
    return tuple(found.values())


def extrema_of(program: Program) -> tuple[Extremum, ...]:
    """The extremes over an index of a program, the index last among their loops."""
    found = {}
    for statement in program.statements:
        if statement.reduction in ("argmin", "argmax"):
            loops = (*(i for i in statement.loops if i not in statement.summed), *statement.summed)
            text = program.arrays[statement.target].origin
            own = tuple((i, program.ranges[i]) for i in loops)
            found[statement.target] = Extremum(text, (*program.family.items(), *own))
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
