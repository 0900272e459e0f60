"""The path of a minimisation, step by step, for looking into one that did not end as hoped.

Entry k is what `minimise` returns with max_iterations=k: the very numbers, for every method and without anything in
the compiled loops to record them. The price is (n + 1)/2 times that of n iterations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .problem import Problem
from .run import run_problem

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Trace:
    """The path of every instance: arrays over the steps 0 (the start) to n, after the batch axis if there is one.

    Of a family after the axes of its members, too: (B, F..., n + 1, ...). An instance that ends before others stays
    where it is. A step that was refused stays too.

    Attributes
    ----------
    variables : dict of (B, n + 1, ...)
    energy, gradient_norm : (B, n + 1)
    step_length : (B, n + 1)
        Euclidean length of the step that led there; 0 at the start and where a step was refused.
    """

    variables: dict[str, Any]
    energy: Floats
    gradient_norm: Floats
    step_length: Floats

    def __repr__(self) -> str:
        *lead, points = self.energy.shape
        counted = f"{lead[0]} instances" if len(lead) == 1 else f"{' x '.join(map(str, lead))} paths"
        return f"Trace({points - 1} steps{f', {counted}' if lead else ''})"


def trace_problem(problem: Problem, lead: tuple[int, ...]) -> Trace:
    """The paths that led to a problem's minimisers, which stand along the axes `lead`."""
    points, energies, norms = paths(problem)
    lengths = np.zeros_like(energies)
    lengths[:, 1:] = np.sqrt((np.diff(points, axis=1) ** 2).sum(axis=2))
    points, energies, norms, lengths = (a.reshape(*lead, *a.shape[1:]) for a in (points, energies, norms, lengths))
    variables = problem.kernel.variables.split(points, problem.inputs.sizes)
    return Trace(variables, energies, norms, lengths)


def paths(problem: Problem) -> tuple[Floats, Floats, Floats]:
    """Points (B, n + 1, m), energies and gradient norms (B, n + 1) from the starts to the minimisers."""
    ends = problem.integers[:, 0]
    steps = int(ends.max(initial=0))
    rows, unknowns = problem.y.shape
    points = np.repeat(problem.y[:, None], steps + 1, axis=1).reshape(rows, steps + 1, unknowns)
    energies, norms = (np.repeat(a[:, None], steps + 1, axis=1) for a in (problem.energies, problem.reals[:, 0]))
    for k in range(steps):
        under_way = np.flatnonzero(ends > k)
        part = problem.part(under_way, k)
        run_problem(part)
        points[under_way, k], energies[under_way, k], norms[under_way, k] = part.y, part.energies, part.reals[:, 0]
    return points, energies, norms
