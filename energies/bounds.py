"""Subscripts against the axes that they read, for all extents at once.

`x[i + 1]` with i over n and x of shape (n,) is proven to leave its axis and refused; so is `x[i]` with i over m, since
n and m may differ. What depends on extents in other ways, such as `x[i + a]` or `x[3]`, is left to the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy as sp

from .affine import Affine, Range, affine, always_positive, combine, expression, highest, lowest, never_positive
from .display import printable, text
from .errors import DeclarationError

ONE: Affine = {sp.S.One: 1}


def check_axis(node: Any, axis: int, form: Affine, extent: Any, ranges: Mapping[Any, Range]) -> None:
    """Refuse the subscript `form` of the read `node` if it leaves its axis, or runs over another extent altogether."""
    if any(isinstance(atom, sp.Indexed) for atom in form):
        return  # what index data hold is known at the call
    size = affine(extent) or {}
    excess = combine((1, highest(form, dict(ranges))), (-1, size), (1, ONE))
    deficit = combine((-1, lowest(form, dict(ranges))))
    indices = [atom for atom in form if atom in ranges]
    if not indices and always_positive(deficit):
        remedy = text(expression(combine((1, form), (1, size))))
        raise DeclarationError(
            f"{text(node)} has a negative subscript on axis {axis} ({text(extent)}); "
            f"subscripts do not count from the end here: write {remedy}"
        )
    if always_positive(excess):
        _leaves(node, axis, extent, form, ranges, upper=True, by=excess)
    if always_positive(deficit):
        _leaves(node, axis, extent, form, ranges, upper=False, by=deficit)
    unproven = not never_positive(excess) and any(c > 0 for atom, c in excess.items() if atom is not sp.S.One)
    if len(form) == 1 and indices and form[indices[0]] == 1 and unproven:
        index = indices[0]
        raise DeclarationError(
            f"index {text(index)} runs over {ranges[index].text} but axis {axis} of {text(node.base)} has extent "
            f"{text(extent)}, in {text(node)}; declare the same symbol if they are equal"
        )


def _leaves(
    node: Any, axis: int, extent: Any, form: Affine, ranges: Mapping[Any, Range], *, upper: bool, by: Affine
) -> None:
    """Raise: the read leaves the axis `by` so much at one end, where each index stands at an end of its range."""
    ends = {
        index: ranges[index].upper if (form[index] > 0) == upper else ranges[index].lower
        for index in form
        if index in ranges
    }
    where = ", ".join(f"{text(index)} = {text(expression(end))}" for index, end in ends.items())
    at = f" at {where}" if where else ""
    remedy = f"the axis allows 0..{text(extent - 1)}"
    if len(ends) == 1:
        (index,) = ends
        if form[index] == 1:
            low, high = ranges[index].lower, ranges[index].upper
            first = expression(low if upper else combine((1, low), (1, by)))
            last = expression(combine((1, high), (-1, by)) if upper else high)
            remedy = f'use sp.Idx("{printable(str(index))}", ({text(first)}, {text(last)}))'
    raise DeclarationError(f"{text(node)} leaves axis {axis} ({text(extent)}){at}; {remedy}")
