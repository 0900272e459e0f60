"""What one call of `minimise` asks for, in the form that every method reads and fills in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.evaluate import run
from .seeding import Seeds

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(eq=False)
class Problem:
    """B instances to be minimised over m unknowns each.

    Attributes
    ----------
    kernel, inputs
        A compiled energy, and its weights and data as `kernel.bind` gives them.
    y : (B, m)
        Starts, unless candidates in `seeds` are yet to be ranked; a method replaces them by the minimisers.
    seeds : Seeds or None
    gtol, max_iterations, reweightings
        As for `minimise`.
    energies, reals, integers : (B,), (B, 2), (B, 3)
        A method fills them in: the energy; gradient norm and curvature; iterations, evaluations and status.
    starts : (B, m) or None
        Where each instance began, from methods whose steps can be differentiated.
    """

    kernel: Any
    inputs: Any
    y: Floats
    seeds: Seeds | None
    gtol: float
    max_iterations: int
    reweightings: int | None = None
    starts: Floats | None = field(init=False, default=None)
    energies: Floats = field(init=False)
    reals: Floats = field(init=False)
    integers: Integers = field(init=False)

    def __post_init__(self) -> None:
        rows = len(self.y)
        self.energies, self.reals, self.integers = np.empty(rows), np.empty((rows, 2)), np.empty((rows, 3), np.int64)

    def rank(self, seeds: Seeds) -> None:
        """Put the candidate of lowest energy into y, for each instance the first of equals."""
        kernel, inputs, y = self.kernel, self.inputs, self.y
        points = seeds.points
        if points is None:
            _, written = run(kernel.entry("candidates"), inputs, y, count=len(y))
            points = written.reshape(len(y), seeds.number, inputs.m)
        lowest = np.full(len(y), math.inf)
        for k in range(seeds.number):
            candidate = np.ascontiguousarray(np.broadcast_to(points[..., k, :], y.shape))
            values, _ = run(kernel.entry("value"), inputs, candidate, count=len(y))
            better = (values < lowest) & (values > -math.inf)
            if k == 0:
                better |= True
                values = np.where(np.isfinite(values), values, math.inf)
            y[better], lowest[better] = candidate[better], values[better]
