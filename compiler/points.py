"""Points of an energy, an array for every name: the extents that they show, and random ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import sympy as sp

from ..energies.energy import Energy

Point = dict[str, Any]


def extents_of(energy: Energy, point: Mapping[str, Any]) -> dict[Any, int]:
    """The extents that the shapes of a point's arrays give."""
    found: dict[Any, int] = {}
    for name, shape in energy.shapes.items():
        for declared, size in zip(shape, np.shape(point[name]), strict=True):
            if isinstance(declared, sp.Symbol):
                found[declared] = size
    return found


def family_of(energy: Energy, sizes: Mapping[Any, int]) -> tuple[int, ...]:
    """The numbers of members along the axes of a family."""
    return tuple(max(0, int(sp.sympify(size).subs(sizes))) for size in energy.family)


def random_point(energy: Energy, sizes: Mapping[Any, int], generator: Any, *, positive: bool) -> Point:
    """Numbers of about unit size for every array; `positive`: all of them, not only those declared so.

    Variables of a family have the axes of the family in front.
    """
    point: Point = {}
    largest = min(sizes.values(), default=1)
    labels = {str(s): s for s in (*energy.variables, *energy.weights, *energy.data)}
    for name, shape in energy.shapes.items():
        numbers = tuple(max(0, int(sp.sympify(e).subs(sizes))) for e in shape)
        numbers = (*family_of(energy, sizes), *numbers) if labels[name] in energy.variables else numbers
        if name in energy.integer:
            point[name] = generator.integers(0, max(1, largest), numbers)
            continue
        symbol = labels[name]
        label = symbol.label if isinstance(symbol, sp.IndexedBase) else symbol
        array = generator.uniform(-1.6, 1.6, numbers)
        point[name] = np.abs(array) + 0.3 if positive or label.is_positive or label.is_nonnegative else array
    return point
