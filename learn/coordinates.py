"""From weights as they are set and shown to the numbers that are learnt, and back.

    shown w, (p,)   every entry of every weight, in declared order: what the energy uses
    free            those that can be moved: without fixed ones, one for entries that are tied to each other
    learnt u, (q,)  the free numbers in the units in which steps are taken: raw, logarithms, what a rule says

An optimiser sees learnt numbers alone. A step ends with the projection of those into their bounds and onto their
surfaces (constraints.py), and with the velocity turned accordingly. What a step leaves alone keeps its bits, shown and
learnt: a logarithm is not taken and undone again.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .constraints import TINY, Logit, Orthonormal, Rule, Simplex, Softmax
from .optimiser import Optimiser, State
from .weight import Weight

Floats = NDArray[np.float64]

FLOOR = 1e-6
"""A positive weight in raw units stays above this part of its starting value."""


class Coordinates:
    """The flat arrays of what is learnt and shown, and the way between them.

    Attributes
    ----------
    names, shapes : tuple
        Of each weight, in declared order.
    weights : tuple of Weight
        As the user set them.
    sizes : dict of int
        How many numbers are learnt of each weight, by name; a weight that is tied to another has none of its own.
    start : (p,)
        The starting weights, as shown.
    count : int
        How many numbers are learnt, q.
    source : (p,)
        Which learnt number each shown one is, -1 where it is fixed.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        shapes: tuple[tuple[int, ...], ...],
        weights: tuple[Weight, ...],
        positive: frozenset[str],
        start: Floats,
    ) -> None:
        self.names, self.shapes, self.weights, self.start = names, shapes, weights, start
        numbers = [math.prod(shape) for shape in shapes]
        ends = np.cumsum([0, *numbers])
        self._slices = {name: slice(int(a), int(b)) for name, a, b in zip(names, ends, ends[1:], strict=False)}
        self._places: dict[tuple[str, ...], Any] = {}
        self.source, self.sizes = source, _ = self._sources()
        self.count = sum(self.sizes.values())
        moving = source >= 0
        whole = self.count == len(source) and bool(moving.all())
        self._moving: NDArray[np.bool_] | None = None if whole else moving
        self._source = source[moving]
        self._first = np.unique(source[moving], return_index=True)[1]
        self._first = np.flatnonzero(moving)[self._first]
        self._units(positive | {w.tie for name, w in zip(names, weights, strict=True) if name in positive and w.tied})
        self._exact = self._logarithms is None and not any(isinstance(r, Logit | Softmax) for _, _, r in self._rules)

    def _sources(self) -> tuple[NDArray[np.int64], dict[str, int]]:
        """Which learnt number each shown one is, -1 where it is fixed; and how many each weight has."""
        source, sizes, count = np.full(len(self.start), -1), dict.fromkeys(self.names, 0), 0
        for name, weight, shape in zip(self.names, self.weights, self.shapes, strict=True):
            if weight.tied:
                continue
            own = np.arange(math.prod(shape))
            if weight.tie is not None:
                _, first, label = np.unique(np.ravel(weight.tie), return_index=True, return_inverse=True)
                own = first[label.ravel()]
            fixed = np.broadcast_to(weight.fixed, shape).ravel()
            held = np.isin(own, own[fixed])  # one of a tie is fixed: all are
            kept, number = np.unique(own[~held], return_inverse=True)
            here = np.full(len(own), -1)
            here[~held] = count + number
            source[self._slices[name]] = here
            sizes[name], count = len(kept), count + len(kept)
        for name, weight in zip(self.names, self.weights, strict=True):
            if weight.tied:
                source[self._slices[name]] = source[self._slices[str(weight.tie)]]
        return source, sizes

    def _units(self, positive: Any) -> None:
        """The units of learnt numbers: bounds, logarithms, and rules of whole weights."""
        low, high = np.full(self.count, -math.inf), np.full(self.count, math.inf)
        logarithms = np.zeros(self.count, dtype=bool)
        self._rules: list[tuple[slice, tuple[int, ...], Rule]] = []
        begin = 0
        for name, weight, shape in zip(self.names, self.weights, self.shapes, strict=True):
            here, begin = slice(begin, begin + self.sizes[name]), begin + self.sizes[name]
            if here.start == here.stop:
                continue
            floors = (
                FLOOR * self.start[self._slices[name]] if name in positive else np.full(math.prod(shape), -math.inf)
            )
            bounds = [np.full(math.prod(shape), edge) for edge in (-math.inf, math.inf)]
            if weight.bounds is not None:
                bounds = [np.broadcast_to(edge, shape).ravel() for edge in weight.limits]
            own = self._first[here] - self._slices[name].start
            lowest, highest = np.maximum(bounds[0], floors)[own], bounds[1][own]
            if weight.orthonormal:
                self._rules.append((here, shape, Orthonormal()))
            elif weight.simplex:
                floor = np.maximum(floors, 0.0).reshape(shape)
                self._rules.append((here, shape, Softmax() if weight.scale == "log" else Simplex(floor)))
            elif weight.scale == "logit":
                self._rules.append((here, (len(own),), Logit(bounds[0][own], highest)))
            elif weight.scale == "log":
                logarithms[here] = True
                low[here], high[here] = np.maximum(bounds[0][own], TINY), highest
            else:
                low[here], high[here] = lowest, highest
        self._logarithms = logarithms if logarithms.any() else None
        self._edges = low, high
        self._low = np.where(logarithms, np.log(np.where(logarithms, low, 1.0)), low)
        self._high = np.where(logarithms, np.log(np.where(logarithms, high, 1.0)), high)
        self._bounded = bool(np.isfinite(self._low).any()), bool(np.isfinite(self._high).any())

    def places(self, names: tuple[str, ...]) -> Any:
        """Where some weights, packed one after the other, lie among the shown ones: a slice or indices."""
        found = self._places.get(names)
        if found is None:
            numbers = np.concatenate([np.arange(self.start.size)[self._slices[name]] for name in names])
            whole = len(numbers) > 0 and bool((np.diff(numbers) == 1).all())
            found = slice(int(numbers[0]), int(numbers[-1]) + 1) if whole else numbers
            self._places[names] = found
        return found

    # ------------------------------------------------------------------------------------------ to and fro

    def learnt(self, weights: Floats) -> Floats:
        """What is learnt, (q,), from weights as shown, (p,)."""
        learnt: Floats = weights[self._first]
        if self._logarithms is not None:
            learnt = np.where(self._logarithms, np.log(np.where(self._logarithms, learnt, 1.0)), learnt)
        for here, shape, rule in self._rules:
            learnt[here] = rule.learnt(learnt[here].reshape(shape)).ravel()
        return learnt

    def shown(self, learnt: Floats) -> Floats:
        """Weights as shown, (p,), from what is learnt, (q,)."""
        free = learnt
        if self._logarithms is not None:
            inside = np.clip(np.exp(np.where(self._logarithms, learnt, 0.0)), *self._edges)
            free = np.where(self._logarithms, inside, learnt)
        if self._rules:
            free = free.copy()
        for here, shape, rule in self._rules:
            free[here] = rule.shown(free[here].reshape(shape)).ravel()
        return self._all(free)

    def _all(self, free: Floats) -> Floats:
        if self._moving is None:
            return free
        shown = self.start.copy()
        shown[self._moving] = free[self._source]
        return shown

    def shown_after(self, learnt: Floats, before: Floats, weights: Floats) -> Floats:
        """Weights as shown after a step from `before`, shown as `weights`; numbers that stayed keep their bits."""
        shown = self.shown(learnt)
        if self._exact:
            return shown
        same = learnt == before
        for here, shape, rule in self._rules:
            same[here] = rule.unchanged(same[here].reshape(shape)).ravel()
        if self._moving is not None:
            each = np.ones(len(shown), dtype=bool)
            each[self._moving] = same[self._source]
            same = each
        return np.where(same, weights, shown)

    def gradient(self, gradient: Floats, weights: Floats) -> Floats:
        """The derivative by what is learnt, (q,), from that by the weights as shown, (p,)."""
        if self._moving is not None:
            gradient = np.bincount(self._source, gradient[self._moving], self.count).astype(np.float64)
            weights = weights[self._first]
        if self._logarithms is not None:
            gradient = np.where(self._logarithms, gradient * weights, gradient)
        if self._rules:
            gradient = gradient.copy()
        for here, shape, rule in self._rules:
            gradient[here] = rule.gradient(gradient[here].reshape(shape), weights[here].reshape(shape)).ravel()
        return gradient

    def project(self, learnt: Floats, state: State, optimiser: Optimiser) -> tuple[Floats, State]:
        """What is learnt, and the state, after bounds and surfaces were kept.

        The velocity of a number that was stopped at a bound becomes 0, so that it leaves when the gradient turns.
        """
        outside = None
        if self._bounded[0]:
            outside = learnt < self._low
        if self._bounded[1]:
            above = learnt > self._high
            outside = above if outside is None else outside | above
        if outside is not None and outside.any():
            stopped = outside
            learnt = np.where(stopped, np.minimum(np.maximum(learnt, self._low), self._high), learnt)
            state = optimiser.redirect(state, lambda velocity: np.where(stopped, 0.0, velocity))
        if not self._rules:
            return learnt, state
        learnt = learnt.copy()
        for here, shape, rule in self._rules:
            learnt[here] = rule.project(learnt[here].reshape(shape)).ravel()
        return learnt, optimiser.redirect(state, lambda velocity: self._turned(velocity, learnt))

    def _turned(self, velocity: Floats, learnt: Floats) -> Floats:
        turned = velocity.copy()
        for here, shape, rule in self._rules:
            turned[here] = rule.turn(turned[here].reshape(shape), learnt[here].reshape(shape)).ravel()
        return turned

    def at_bounds(self, learnt: Floats) -> NDArray[np.int64]:
        """-1 where a learnt number is at its lower bound, 1 at its upper one, else 0; (q,)."""
        return (learnt >= self._high).astype(np.int64) - (learnt <= self._low)

    # ------------------------------------------------------------------------------------------ names

    def unpack(self, packed: Floats) -> dict[str, Floats]:
        """Arrays by name from shown ones, (p,) or (records, p); views, where the shape allows it."""
        front = packed.shape[:-1]
        return {
            name: packed[..., self._slices[name]].reshape((*front, *shape))
            for name, shape in zip(self.names, self.shapes, strict=True)
        }

    def describe(self) -> list[dict[str, Any]]:
        """Names, shapes and settings as JSON values."""
        return [
            {"name": name, "shape": list(shape), **weight.describe()}
            for name, shape, weight in zip(self.names, self.shapes, self.weights, strict=True)
        ]

    def name_of(self, number: int) -> str:
        """The weight that holds a shown number, with subscripts."""
        k = self._weight_of(number)
        name, shape = self.names[k], self.shapes[k]
        if not shape:
            return name
        subscripts = np.unravel_index(number - self._slices[name].start, shape)
        return f"{name}[{', '.join(str(int(s)) for s in subscripts)}]"

    def setting_of(self, number: int) -> Weight:
        """How the weight was set that holds a shown number."""
        return self.weights[self._weight_of(number)]

    def _weight_of(self, number: int) -> int:
        for k, name in enumerate(self.names):
            if self._slices[name].start <= number < self._slices[name].stop:
                return k
        raise IndexError(number)

    def name_of_learnt(self, number: int) -> str:
        """The first of the weights that a learnt number moves, with subscripts."""
        return self.name_of(int(self._first[number]))
