"""Rules that keep a whole weight where it has to be: sums of one, orthonormal columns, reparametrised bounds.

A rule takes and gives arrays in the shape of the weight (what is learnt, and what is shown, have the same shape):

    learnt(w)           what is learnt, from the weight as shown
    shown(u)            and back
    gradient(g, w)      the derivative by what is learnt, from g = dl/dw; along a surface its tangential part
    project(u)          the nearest point that the constraint allows; where it holds to rounding, u itself
    turn(v, u)          a velocity at u (steps go along -v) without what would leave the surface at once
    unchanged(same)     which entries of the weight are as they were, from which entries of what is learnt are

Surfaces are those of "what is learnt": for the rules that project it is the weight itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Marks = NDArray[np.bool_]

EPSILON = float(np.finfo(np.float64).eps)

TINY = float(np.finfo(np.float64).tiny)
"""What is positive by an exponential does not get below this."""


class Rule(Protocol):
    """See the top of this file."""

    def learnt(self, weight: Floats) -> Floats: ...

    def shown(self, learnt: Floats) -> Floats: ...

    def gradient(self, gradient: Floats, weight: Floats) -> Floats: ...

    def project(self, learnt: Floats) -> Floats: ...

    def turn(self, velocity: Floats, learnt: Floats) -> Floats: ...

    def unchanged(self, same: Marks) -> Marks: ...


@dataclass(frozen=True)
class Logit(Rule):
    """A weight between two bounds by w = low + (high - low) / (1 + exp(-u)); u is learnt, and free."""

    low: Floats
    high: Floats

    def learnt(self, weight: Floats) -> Floats:
        return np.log(weight - self.low) - np.log(self.high - weight)

    def shown(self, learnt: Floats) -> Floats:
        share = np.exp(-np.logaddexp(0.0, -learnt))  # no overflow for any u
        return np.clip(self.low + (self.high - self.low) * share, self.low, self.high)

    def gradient(self, gradient: Floats, weight: Floats) -> Floats:
        return gradient * (weight - self.low) * (self.high - weight) / (self.high - self.low)

    def project(self, learnt: Floats) -> Floats:
        return learnt

    def turn(self, velocity: Floats, learnt: Floats) -> Floats:
        return velocity

    def unchanged(self, same: Marks) -> Marks:
        return same


@dataclass(frozen=True)
class Softmax(Rule):
    """Positive entries with sum 1 over the last axis, w = exp(u) / sum exp(u); u is learnt, and free."""

    def learnt(self, weight: Floats) -> Floats:
        return np.log(weight)

    def shown(self, learnt: Floats) -> Floats:
        parts = np.maximum(np.exp(learnt - learnt.max(axis=-1, keepdims=True)), TINY)
        shown: Floats = parts / parts.sum(axis=-1, keepdims=True)
        return shown

    def gradient(self, gradient: Floats, weight: Floats) -> Floats:
        slope: Floats = weight * (gradient - (weight * gradient).sum(axis=-1, keepdims=True))
        return slope

    def project(self, learnt: Floats) -> Floats:
        return learnt

    def turn(self, velocity: Floats, learnt: Floats) -> Floats:
        return velocity

    def unchanged(self, same: Marks) -> Marks:
        return np.broadcast_to(same.all(axis=-1, keepdims=True), same.shape)


@dataclass(frozen=True)
class Simplex(Rule):
    """Entries at or above `floor` with sum 1 over the last axis, by Euclidean projection.

    The nearest point is max(w - s, floor) with the one s for which the sum is 1 (Held, Wolfe and Crowder, 1974), found
    by sorting. Gradients lose their mean: what would change the sum.
    """

    floor: Floats

    def learnt(self, weight: Floats) -> Floats:
        return weight

    def shown(self, learnt: Floats) -> Floats:
        return learnt

    def gradient(self, gradient: Floats, weight: Floats) -> Floats:
        slope: Floats = gradient - gradient.mean(axis=-1, keepdims=True)
        return slope

    def holds(self, weight: Floats) -> bool:
        """Whether the constraint holds, sums to rounding."""
        off = np.abs(weight.sum(axis=-1) - 1.0)
        return bool((weight >= self.floor).all() and (off <= 4.0 * weight.shape[-1] * EPSILON).all())

    def project(self, learnt: Floats) -> Floats:
        if self.holds(learnt) or not np.isfinite(learnt).all():
            return learnt
        size = learnt.shape[-1]
        above = learnt - self.floor
        left = 1.0 - np.broadcast_to(self.floor, learnt.shape).sum(axis=-1, keepdims=True)
        falling = -np.sort(-above, axis=-1)
        levels = (np.cumsum(falling, axis=-1) - left) / np.arange(1, size + 1)
        count = (falling > levels).sum(axis=-1, keepdims=True)
        level = np.take_along_axis(levels, np.maximum(count, 1) - 1, axis=-1)
        inside = np.maximum(above - level, 0.0)
        inside = inside * (left / inside.sum(axis=-1, keepdims=True))  # the rounding of a far projection
        projected: Floats = self.floor + inside
        return projected

    def turn(self, velocity: Floats, learnt: Floats) -> Floats:
        held = learnt <= self.floor
        free = ~(held & (velocity - self._mean(velocity, ~held) > 0.0))  # w moves along -v: out of the simplex
        turned: Floats = np.where(free, velocity - self._mean(velocity, free), 0.0)
        return turned

    def unchanged(self, same: Marks) -> Marks:
        return same

    @staticmethod
    def _mean(velocity: Floats, marked: Marks) -> Floats:
        total = np.where(marked, velocity, 0.0).sum(axis=-1, keepdims=True)
        mean: Floats = total / np.maximum(marked.sum(axis=-1, keepdims=True), 1)
        return mean


@dataclass(frozen=True)
class Orthonormal(Rule):
    """Matrices (..., n, k) with orthonormal columns, W'W = I: the Stiefel manifold, n >= k.

    The tangential part of a gradient G is G - W (W'G + G'W) / 2; the way back is the polar factor U V' of W = U S V',
    the nearest matrix with orthonormal columns (Absil, Mahony and Sepulchre, Optimization Algorithms on Matrix
    Manifolds, 2008, 3.6 and 4.1.1). A velocity is carried along by the tangential part of it at the new point.
    """

    def learnt(self, weight: Floats) -> Floats:
        return weight

    def shown(self, learnt: Floats) -> Floats:
        return learnt

    def gradient(self, gradient: Floats, weight: Floats) -> Floats:
        return _tangential(gradient, weight)

    def holds(self, weight: Floats) -> bool:
        """Whether the columns are orthonormal, to rounding."""
        off = np.abs(np.swapaxes(weight, -1, -2) @ weight - np.eye(weight.shape[-1])).max(initial=0.0)
        return bool(off <= 4.0 * sum(weight.shape[-2:]) * EPSILON)

    def project(self, learnt: Floats) -> Floats:
        if not np.isfinite(learnt).all() or self.holds(learnt):
            return learnt
        left, _, right = np.linalg.svd(learnt, full_matrices=False)
        projected: Floats = left @ right
        return projected

    def turn(self, velocity: Floats, learnt: Floats) -> Floats:
        return _tangential(velocity, learnt)

    def unchanged(self, same: Marks) -> Marks:
        return same


def _tangential(direction: Floats, weight: Floats) -> Floats:
    inner = np.swapaxes(weight, -1, -2) @ direction
    tangential: Floats = direction - weight @ ((inner + np.swapaxes(inner, -1, -2)) / 2.0)
    return tangential
