"""Sizes as polynomials in the extents: how much memory a kernel needs, and where each part of it begins.

n0*n1*2 + 3      is      {("n0", "n1"): 2, (): 3}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..program.expression import Affine
from ..program.program import Range

Monomial = tuple[str, ...]
Size = Mapping[Monomial, int]

ZERO_SIZE: Size = {}
ONE_SIZE: Size = {(): 1}


def size_of(value: Affine) -> Size:
    """The polynomial of an affine combination of extents."""
    result: Size = {(str(n),): c for n, c in value.terms}
    return plus(result, {(): value.constant})


def plus(*sizes: Size) -> Size:
    total: dict[Monomial, int] = {}
    for size in sizes:
        for monomial, count in size.items():
            total[monomial] = total.get(monomial, 0) + count
    return {m: c for m, c in sorted(total.items()) if c}


def times(a: Size, b: Size) -> Size:
    return plus(*({tuple(sorted(m + n)): c * d} for m, c in a.items() for n, d in b.items()))


def volume(axes: Iterable[Range]) -> Size:
    """The number of entries of an array with these axes."""
    result: Size = ONE_SIZE
    for axis in axes:
        result = times(result, size_of(axis.stop))
    return result


def no_less(extent: Affine) -> Affine:
    """An extent that is no less and never negative: n for n - 1, so that places add up however small n is."""
    return Affine(tuple((n, c) for n, c in extent.terms if c > 0), max(0, extent.constant))


def room(axes: Iterable[Range]) -> Size:
    """Memory that holds an array with these axes, and is never negative."""
    result: Size = ONE_SIZE
    for axis in axes:
        result = times(result, size_of(no_less(axis.stop)))
    return result


def text(size: Size) -> str:
    """Source text of the polynomial."""
    parts = ["*".join([*([str(c)] if c != 1 or not m else []), *m]) for m, c in size.items()]
    return " + ".join(parts).replace("+ -", "- ") or "0"


def value(size: Size, extents: Mapping[str, int]) -> int:
    """The number that the polynomial is for given extents."""
    total = 0
    for monomial, count in size.items():
        for extent in monomial:
            count *= extents[extent]
        total += count
    return max(0, total)


def to_json(size: Size) -> list[Any]:
    return [[list(m), c] for m, c in size.items()]


def from_json(items: Sequence[Any]) -> Size:
    return {tuple(m): c for m, c in items}
