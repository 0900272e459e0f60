"""Ranges that depend on other indices: which loops go together, in what order, and when one may stand by itself.

    for i in 0 .. n0, for j in 0 .. i        all pairs; the range of j needs i

A statement over j alone needs i as well (`closed`), unless j can be given a range without i (`widened`): then what
depends on j alone is computed once for each j, not once for each pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .expression import Affine, Gather, Op
from .program import Array, Range

Ranges = Mapping[str, Range]


def in_order(loops: Iterable[str], ranges: Ranges) -> tuple[str, ...]:
    """The loops such that each comes after those that its range depends on; otherwise their order is kept."""
    found: dict[str, None] = {}
    given = tuple(loops)

    def place(loop: str) -> None:
        if loop not in found:
            for other in given:
                if other != loop and other in ranges[loop].names:
                    place(other)
            found[loop] = None

    for loop in given:
        place(loop)
    return tuple(found)


def closed(indices: Iterable[str], ranges: Ranges) -> tuple[str, ...]:
    """The indices and all that their ranges depend on, those further out first."""
    found: dict[str, None] = {}

    def place(index: str) -> None:
        if index not in found:
            for other in sorted(ranges[index].names & ranges.keys()):
                place(other)
            found[index] = None

    for index in indices:
        place(index)
    return tuple(found)


def is_ragged(loops: Iterable[str], ranges: Ranges) -> bool:
    """Whether a range of a loop depends on another loop."""
    return any(not ranges[i].names.isdisjoint(ranges) for i in loops)


def is_closed(indices: Iterable[str], ranges: Ranges) -> bool:
    given = set(indices)
    return set(closed(given, ranges)) == given


def box(index: str, ranges: Ranges) -> Range | None:
    """The smallest range in extents alone that holds all values of an index; None where index data bound it."""
    start = _extreme(ranges[index].start, ranges, upper=False)
    stop = _extreme(ranges[index].stop, ranges, upper=True)
    return None if start is None or stop is None else Range(start, stop)


def _extreme(value: Affine, ranges: Ranges, *, upper: bool) -> Affine | None:
    """The largest or smallest value of a subscript, its indices being eliminated from the innermost on."""
    while True:
        if any(isinstance(item, Gather) for item, _ in value.terms):
            return None
        inside = [str(item) for item, _ in value.terms if item in ranges]
        if not inside:
            return value
        last = next(i for i in reversed(closed(inside, ranges)) if i in inside)
        count = next(c for item, c in value.terms if item == last)
        end = ranges[last].stop + -1 if (count > 0) == upper else ranges[last].start
        value = value.replaced({last: end})


def axes_of(loops: Iterable[str], ranges: Ranges) -> tuple[Range, ...] | None:
    """Axes of an array over the loops; a triangle lies in a square. None where index data bound a loop."""
    axes = tuple(box(i, ranges) for i in loops)
    return None if None in axes else axes  # type: ignore[return-value]


# ---------------------------------------------------------------------------------------------- loops by themselves


def widened(
    node: Op, indices: Sequence[str], ranges: Ranges, arrays: Mapping[str, Array], whole: frozenset[str]
) -> dict[str, Range] | None:
    """Ranges in extents alone for the indices, at which all that the node reads exists; None if there are none.

    `whole` are the arrays of our own that are defined on all of their axes.

        A[i, j]*exp(y[j])   for i, j < i        exp(y[j]) may be computed for all j in 0 .. n, since y has n entries
    """
    result: dict[str, Range] = {}
    for index in indices:
        if ranges[index].gathers:
            return None
        if not ranges[index].names & ranges.keys():
            result[index] = ranges[index]
            continue
        choices = [axis for item in node.reads for axis in _own_axes(item, index, arrays)]
        smallest = box(index, ranges)
        choices += [smallest] if smallest is not None else []
        fitting = (c for c in dict.fromkeys(choices) if smallest is not None and _within(smallest, c))
        found = next((c for c in fitting if _all_inside(node, {**ranges, **result, index: c}, arrays, whole)), None)
        if found is None:
            return None
        result[index] = found
    return result


def _own_axes(item: Op, index: str, arrays: Mapping[str, Array]) -> list[Range]:
    array = arrays[item.args[0]]
    return [axis for axis, s in zip(array.axes, item.args[1], strict=True) if s.single == index]


def _within(inner: Range, outer: Range) -> bool:
    return _never_negative(inner.start + outer.start * -1) and _never_negative(outer.stop + inner.stop * -1)


def _never_negative(value: Affine) -> bool:
    """Whether an affine form of extents, which are at least 0, is at least 0 for certain."""
    return value.constant >= 0 and all(isinstance(item, str) and count > 0 for item, count in value.terms)


def _all_inside(node: Op, ranges: Ranges, arrays: Mapping[str, Array], whole: frozenset[str]) -> bool:
    for item in node.reads:
        array = arrays[item.args[0]]
        if array.role in ("local", "prepared") and array.name not in whole:
            return False
        for axis, subscript in zip(array.axes, item.args[1], strict=True):
            low, high = (_extreme(subscript, ranges, upper=upper) for upper in (False, True))
            if low is None or high is None or not _within(Range(low, high + 1), axis):
                return False
    return not any(arrays[name].integer for name in node.arrays)
