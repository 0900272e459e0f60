"""Weights as they are set, learnt and shown: units, and the bound that keeps a positive weight positive.

The learner keeps one flat array of the numbers that it learns. For a weight with scale="raw" they are the weight
itself, and where its symbol was declared positive=True each step is followed by a projection: an entry below
`FLOOR` times its starting value is set to that, and its velocity to 0, so that the optimiser does not go on pushing.
With scale="log" they are logarithms: steps multiply the weight, and it is positive without a projection. Shown,
stored and used in the energy is the weight itself in both cases.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..energies.errors import InputError, InputTypeError, NameMissingError, nearest
from .optimiser import Optimiser, State

Floats = NDArray[np.float64]

FLOOR = 1e-6
"""A positive weight in raw units stays above this part of its starting value."""

SCALES = ("raw", "log")


@dataclass(frozen=True)
class Weight:
    """A starting value and the units in which the weight is learnt.

    Parameters
    ----------
    value : array_like
        The start, in the declared shape.
    scale : {"raw", "log"}
        "log": the logarithm is learnt, for weights that are positive and whose size is not known well. A learning
        rate then means relative change: the gradient is multiplied by the weight.

    Raises
    ------
    InputError
        For an unknown scale, or scale="log" with a value that is not positive.
    """

    value: ArrayLike
    scale: str = "raw"

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            hint = nearest(self.scale, SCALES) if isinstance(self.scale, str) else ""
            raise InputError(f"Weight: unknown scale {self.scale!r}{hint}; one of {', '.join(map(repr, SCALES))}")


class Coordinates:
    """The flat array of what is learnt, and the weights that it stands for.

    Attributes
    ----------
    names, shapes, scales
        Of each weight, in declared order.
    sizes : dict of int
        Numbers in each weight, by name.
    start : (p,)
        The starting weights, as shown.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        shapes: tuple[tuple[int, ...], ...],
        scales: tuple[str, ...],
        positive: frozenset[str],
        start: Floats,
    ) -> None:
        self.names, self.shapes, self.scales, self.start = names, shapes, scales, start
        self.sizes = {name: math.prod(shape) for name, shape in zip(names, shapes, strict=True)}
        ends = np.cumsum([0, *self.sizes.values()])
        self._slices = {name: slice(int(a), int(b)) for name, a, b in zip(names, ends, ends[1:], strict=False)}
        self._floors = np.full(start.size, -math.inf)
        logarithms = np.zeros(start.size, dtype=bool)
        for name, scale in zip(names, scales, strict=True):
            here = self._slices[name]
            if scale == "log":
                logarithms[here] = True
            elif name in positive:
                self._floors[here] = FLOOR * start[here]
        self._logarithms = logarithms if logarithms.any() else None
        self._bounded = bool(np.isfinite(self._floors).any())
        self._places: dict[tuple[str, ...], Any] = {}

    def places(self, names: tuple[str, ...]) -> Any:
        """Where some weights, packed one after the other, lie in the flat array: a slice or indices."""
        found = self._places.get(names)
        if found is None:
            numbers = np.concatenate([np.arange(self.start.size)[self._slices[name]] for name in names])
            whole = len(numbers) > 0 and bool((np.diff(numbers) == 1).all())
            found = slice(int(numbers[0]), int(numbers[-1]) + 1) if whole else numbers
            self._places[names] = found
        return found

    def learnt(self, weights: Floats) -> Floats:
        """What is learnt, from weights as shown."""
        if self._logarithms is None:
            return weights.copy()
        return np.where(self._logarithms, np.log(np.where(self._logarithms, weights, 1.0)), weights)

    def shown(self, learnt: Floats) -> Floats:
        """Weights as shown, from what is learnt."""
        if self._logarithms is None:
            return learnt
        return np.where(self._logarithms, np.exp(np.where(self._logarithms, learnt, 0.0)), learnt)

    def gradient(self, gradient: Floats, weights: Floats) -> Floats:
        """The derivative by what is learnt, from that by the weights as shown."""
        if self._logarithms is None:
            return gradient
        return np.where(self._logarithms, gradient * weights, gradient)

    def project(self, learnt: Floats, state: State, optimiser: Optimiser) -> tuple[Floats, State]:
        """Weights and state after positive weights were kept above their floors."""
        if not self._bounded:
            return learnt, state
        below = learnt < self._floors
        if not below.any():
            return learnt, state
        halted = optimiser.redirect(state, lambda velocity: np.where(below, 0.0, velocity))
        return np.where(below, self._floors, learnt), halted

    def unpack(self, packed: Floats) -> dict[str, Floats]:
        """Arrays by name from (p,) or (records, p); views, where the shape allows it."""
        front = packed.shape[:-1]
        return {
            name: packed[..., self._slices[name]].reshape((*front, *shape))
            for name, shape in zip(self.names, self.shapes, strict=True)
        }

    def describe(self) -> list[dict[str, Any]]:
        """Names, shapes and scales as JSON values."""
        return [
            {"name": name, "shape": list(shape), "scale": scale}
            for name, shape, scale in zip(self.names, self.shapes, self.scales, strict=True)
        ]

    def name_of(self, number: int) -> str:
        """The weight that holds a number of the flat array, with subscripts."""
        for name, shape in zip(self.names, self.shapes, strict=True):
            here = self._slices[name]
            if here.start <= number < here.stop:
                subscripts = np.unravel_index(number - here.start, shape) if shape else ()
                return f"{name}[{', '.join(str(int(s)) for s in subscripts)}]" if shape else name
        raise IndexError(number)


def coordinates_from_user(energy: Any, weights: Mapping[str, Any]) -> Coordinates:
    """Check the starting weights of a learner against the declaration of its energy."""
    who, names = f"learner of energy {energy.name!r}", tuple(str(weight) for weight in energy.weights)
    if not names:
        raise InputError(f"{who}: the energy has no weights, so there is nothing to learn")
    if not isinstance(weights, Mapping):
        raise InputTypeError(
            f"{who}: weights must be a dict by name (got {type(weights).__name__}); needed: {', '.join(names)}"
        )
    for name in weights:
        if name not in names:
            raise NameMissingError(
                f"{who}: unknown weight {name!r}{nearest(str(name), names)}; weights: {', '.join(names)}"
            )
    missing = [name for name in names if name not in weights]
    if missing:
        raise NameMissingError(
            f"{who}: weight {', '.join(missing)} is missing; every weight needs a starting value "
            f"(given: {', '.join(weights) or 'none'})"
        )
    values, scales = [], []
    for name in names:
        given = weights[name] if isinstance(weights[name], Weight) else Weight(weights[name])
        values.append(_value(given, name, tuple(energy.shapes[name]), name in energy.positive, who))
        scales.append(given.scale)
    start = np.concatenate([value.ravel() for value in values])
    return Coordinates(names, tuple(value.shape for value in values), tuple(scales), energy.positive, start)


def _value(weight: Weight, name: str, declared: tuple[Any, ...], positive: bool, who: str) -> Floats:
    try:
        if np.iscomplexobj(weight.value):
            raise TypeError("it is complex")
        value = np.array(weight.value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputTypeError(f"{who}: weight {name} is not an array of numbers ({error})") from None
    fits = value.ndim == len(declared) and all(
        not getattr(extent, "is_Integer", False) or int(extent) == size
        for extent, size in zip(declared, value.shape, strict=True)
    )
    if not fits:
        batched = value.ndim == len(declared) + 1
        hint = "; a leading batch axis means per-instance weights, which cannot be learnt here" if batched else ""
        shape = f"({', '.join(map(str, declared))}{',' if len(declared) == 1 else ''})"
        raise InputError(f"{who}: weight {name} must have its declared shape {shape}; got {value.shape}{hint}")
    bad = ~np.isfinite(value)
    if bad.any():
        raise InputError(f"{who}: weight {name} is not finite{_place(bad)}")
    if (positive or weight.scale == "log") and not (value > 0.0).all():
        reason = "is learnt as a logarithm" if weight.scale == "log" else "is declared positive"
        raise InputError(f"{who}: weight {name} = {value[value <= 0.0].flat[0]} but it {reason}{_place(value <= 0.0)}")
    return value


def _place(marked: NDArray[np.bool_]) -> str:
    if marked.ndim == 0:
        return ""
    return f", first at [{', '.join(str(int(k)) for k in np.argwhere(marked)[0])}]"
