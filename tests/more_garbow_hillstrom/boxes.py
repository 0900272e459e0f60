"""Boxes for the 35 problems: wide ones, ones that cut the minimiser off, and those that were published.

Published are bounds and energies of D. Gay, "A trust-region approach to linearly constrained optimization" (Numerical
Analysis, Lecture Notes in Mathematics 1066, 1984, 72-105), as libraries give them, among them the examples of Ceres
Solver (more_garbow_hillstrom.cc). Left out are the problems whose dimensions differ there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .problem import Problem

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Box:
    """low <= y <= high, of the shape of y, infinite where there is no bound."""

    low: Floats
    high: Floats

    def project(self, y: Floats) -> Floats:
        return np.clip(y, self.low, self.high)


PUBLISHED = {
    3: ((0, 1), (1, 9), 1.5125900e-10),
    4: ((0, 3e-5), (1e6, 100), 784.0),
    5: ((0.6, 0.5), (10, 100), 0.0),
    7: ((-100, -1, -1), (0.8, 1, 1), 0.99042212),
    9: ((0.398, 1, -0.5), (4.2, 2, 0.1), 1.1279300e-8),
    14: ((-100, -100, -100, -100), (0, 10, 100, 100), 1.5567008),
    16: ((-10, 0, -100, -20), (100, 15, 0, 0.2), 88860.479),
    18: ((0, 0, 0, 1, 0, 0), (2, 8, 1, 7, 5, 5), 5.3209865e-4),
}
"""Number of the problem -> low, high, energy of the minimum within."""


def minimiser(problem: Problem) -> Floats:
    """Where the method without bounds ends from the standard start."""
    import wiberg as wb

    found = wb.minimise(problem.kernel, None, problem.data, start={"y": problem.start}, max_iterations=1000)
    at: Floats = found.variables["y"]
    return at


def wide_box(problem: Problem) -> Box:
    """A box that no bound of is near to start or minimiser: ten times as wide as both are large, and apart."""
    start, end = problem.start, minimiser(problem)
    width = 10 * (1 + np.abs(start) + np.abs(end - start))
    return Box(start - width, start + width)


def cutting_box(problem: Problem) -> Box:
    """The wide box, but every second unknown is kept from the minimiser: half way to it from the start.

    Where it starts there, by a tenth of its size and 0.1.
    """
    start, end, box = problem.start.ravel(), minimiser(problem).ravel(), wide_box(problem)
    low, high = box.low.ravel(), box.high.ravel()
    for i in range(0, len(start), 2):
        if math.isclose(start[i], end[i], rel_tol=1e-3, abs_tol=1e-3):
            low[i] = end[i] + 0.1 * (1 + abs(end[i]))
        elif start[i] < end[i]:
            high[i] = (start[i] + end[i]) / 2
        else:
            low[i] = (start[i] + end[i]) / 2
    return Box(low.reshape(problem.start.shape), high.reshape(problem.start.shape))


def published_box(problem: Problem) -> Box:
    low, high, _ = PUBLISHED[problem.number]
    return Box(np.array(low, float), np.array(high, float))
