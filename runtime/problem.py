"""What one call of `minimise` asks for, in the form that every method reads and fills in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.calls.evaluate import run
from .bounds.box import Box
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
    gtol, max_iterations, method, reweightings
        As for `minimise`.
    box : Box or None
        Bounds; starts and points of `seeds` are within.
    eliminate : tuple of str
        The variables that are solved out (variable_projection.py).
    start : (1 or B, m) or None
        Where instances start, which y forgets; None where `seeds` say it.
    finite : (1 or B,) bool or None
        Which instances have finite weights and data, where not all have.
    energies, reals, integers : (B,), (B, 2), (B, 3)
        A method fills them in: the energy; gradient norm and curvature; iterations, evaluations and status.
    active : (B, m) or None
        Where there are bounds, a method writes 1 for each variable that they hold, else 0.
    keeps : bool
        Whether factors are to be kept for the derivative.
    factors : array or None
        Those of the first rows (kept_factors.py), from methods that can keep them.
    began : (B, m) or None
        Where each instance began, from methods whose steps can be differentiated.
    factorised : (B,) bool
        Whether the last steps were made by factors of a sparse Hessian (direct.py).
    """

    kernel: Any
    inputs: Any
    y: Floats
    seeds: Seeds | None
    gtol: float
    max_iterations: int
    method: str = "trust-region"
    start: Floats | None = None
    finite: NDArray[np.bool_] | None = None
    box: Box | None = None
    reweightings: int | None = None
    eliminate: tuple[str, ...] = ()
    keeps: bool = False
    factors: Floats | None = field(init=False, default=None)
    began: Floats | None = field(init=False, default=None)
    energies: Floats = field(init=False)
    reals: Floats = field(init=False)
    integers: Integers = field(init=False)
    active: Integers | None = field(init=False)
    factorised: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        rows = len(self.y)
        self.energies, self.reals, self.integers = np.empty(rows), np.empty((rows, 2)), np.empty((rows, 3), np.int64)
        self.factorised = np.zeros(rows, bool)
        self.active = None if self.box is None else np.zeros(self.y.shape, np.int64)

    def rank(self, seeds: Seeds) -> None:
        """Put the candidate of lowest energy into y, for each instance the first of equals."""
        kernel, inputs, y = self.kernel, self.inputs, self.y
        points = self.candidates(seeds)
        if seeds.number == 1:
            y[:] = points[..., 0, :]
            return
        lowest = np.full(len(y), math.inf)
        for k in range(seeds.number):
            candidate = np.ascontiguousarray(np.broadcast_to(points[..., k, :], y.shape))
            values, _ = run(kernel.entry("value"), inputs, candidate, count=len(y))
            better = (values < lowest) & (values > -math.inf)
            if k == 0:
                better |= True
                values = np.where(np.isfinite(values), values, math.inf)
            y[better], lowest[better] = candidate[better], values[better]

    def candidates(self, seeds: Seeds) -> Floats:
        """All candidates, (number, m) or (B, number, m): those given, or what the kernel computes."""
        if seeds.points is not None:
            return seeds.points
        _, written = run(self.kernel.entry("candidates"), self.inputs, self.y, count=len(self.y))
        return written.reshape(len(self.y), seeds.number, self.inputs.m)

    def part(self, rows: slice | NDArray[np.int64], max_iterations: int | None = None) -> Problem:
        """The same for some instances, from their starts, yet to be minimised."""
        count = len(range(len(self.y))[rows]) if isinstance(rows, slice) else len(rows)
        start, finite = _rows(self.start, rows), _rows(self.finite, rows)
        y = np.empty((count, self.y.shape[1]))
        if start is not None:
            y[:] = start
        reweightings = self.reweightings
        if reweightings is not None and max_iterations is not None:
            reweightings = min(reweightings, max_iterations)
        return replace(
            self,
            inputs=self.inputs.rows(rows),
            y=y,
            seeds=None if self.seeds is None else self.seeds.rows(rows),
            max_iterations=self.max_iterations if max_iterations is None else max_iterations,
            start=start,
            finite=finite,
            box=None if self.box is None else self.box.rows(rows),
            reweightings=reweightings,
            keeps=False,
        )

    def take(self, part: Problem, rows: slice | NDArray[np.int64]) -> None:
        """Write the results of a part to its rows."""
        self.y[rows], self.energies[rows] = part.y, part.energies
        self.reals[rows], self.integers[rows] = part.reals, part.integers
        self.factorised[rows] = part.factorised
        if self.active is not None and part.active is not None:
            self.active[rows] = part.active
        if part.began is not None:
            if self.began is None:
                self.began = np.empty_like(self.y)
            self.began[rows] = part.began


def _rows(array: Any, rows: slice | NDArray[np.int64]) -> Any:
    return array if array is None or len(array) == 1 else array[rows]
