"""Several starts for every instance, and the distinct minima that they lead to.

The method runs once for each start, over the whole batch; what is kept after each run are the lowest distinct minima
so far, so that memory is that of the minima asked for, whatever the number of starts. Starts are all candidates, or
those of basins (basins.py), which are run together.

Two ends are one minimum where the energy on the straight way between them has no barrier that can be told from
rounding, a rule in which nothing changes with units, shifts or rotations (g: gradient norm, m: unknowns, d: distance):

    d within 1e-12 |y|                   one
    |E_a - E_b| above s                  two: impossible within one convex valley; s = 2 sqrt(m) (g_a + g_b) d
    otherwise                            two if at one of three points between them the energy is above both by s, in
                                         which gradient norms above gtol, of ends at a kink, do not count

So the ends of several runs into one flat minimum, or into one straight valley, are one; those on a ring are many. The
three points are no fractions in which the minima of a periodic energy would stand.

Restarts are drawn once and shared by all instances, so that what becomes of an instance depends on the seed, and not
on where in the batch it stands.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..compiler.calls.evaluate import run
from .basins import starts_of_basins
from .descend import ROUNDING
from .problem import Problem
from .run import Report, run_problem
from .statuses import NOT_FINITE, STALLED

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

NEAR = 1e-12
"""Ends that differ by this part of their size, or less, are one: rounding of y alone."""

FRACTIONS = (0.381966, 0.763932, 0.072949)
"""Where between two ends a barrier is looked for: multiples of powers of the golden ratio, no simple fractions."""


EVERY, BASINS, LOWEST = "every", "basins", "lowest"
"""Which candidates are started from: all, the lowest of every basin among them, or the lowest of all."""


SPARE = 2
"""Starts of basins for each minimum that is asked for: what is low there can be high where it leads to."""


def number_of_starts(problem: Problem, count: int, choice: str, restarts: int) -> int:
    """How often the method will run, at most."""
    number = 1 if problem.seeds is None or choice == LOWEST else problem.seeds.number
    return (min(number, SPARE * count) if choice == BASINS else number) + restarts


def lowest_minima(
    problem: Problem, count: int, choice: str, restarts: int, seed: int, report: Report | None
) -> tuple[list[Problem], Integers, Integers]:
    """Minimise from several starts.

    Parameters
    ----------
    problem : Problem
        With the first start, or candidates.
    count : int
        How many minima to keep.
    choice : {"every", "basins", "lowest"}
        Which candidates to start from; of basins the lowest.
    restarts, seed : int
        How many random starts beside those, and what they depend on.

    Returns
    -------
    minima : list of `count` Problems
        Run, each from the starts that led there; an instance's energies rise along the list. Where an instance has
        fewer minima the rest are NaN. An instance without any has the end of its first run in the first.
    found : (B,)
        How many minima an instance has, at most `count`.
    evaluations : (B,)
        Calls of the kernel for an instance, over all runs.
    """
    kept = _Kept(problem, count)
    evaluations = np.zeros(len(problem.y), np.int64)
    if choice == BASINS and problem.seeds is not None:
        starts, found, evaluations = starts_of_basins(problem, SPARE * count)
        instance, number = np.nonzero(np.arange(starts.shape[1]) < found[:, None])
        together = _from(problem.part(instance), starts[instance, number])
        run_problem(together, report)
        np.add.at(evaluations, instance, together.integers[:, 1])
        kept.put_together(together, instance, number, evaluations)
    for number_of_run, one in enumerate(_runs(problem, choice, restarts, seed)):
        run_problem(one, report)
        evaluations += one.integers[:, 1]
        usable = one.integers[:, 2] <= STALLED  # CONVERGED or STALLED
        began = number_of_run > 0 or choice == BASINS
        first = usable & (kept.found == 0) if began else np.ones_like(usable)
        new = usable & (kept.found > 0)
        if began:
            new &= ~kept.has(one, new, evaluations)
        kept.put_first(one, first, usable)
        kept.insert(one, np.flatnonzero(new))
    return kept.problems(), kept.found, evaluations


def _runs(problem: Problem, choice: str, restarts: int, seed: int) -> Iterator[Problem]:
    """The problem once for each start, yet to be run."""
    seeds = problem.seeds
    if seeds is not None and choice == BASINS and restarts == 0:
        return
    if seeds is None:
        assert problem.start is not None
        low = high = centre = problem.start
        yield problem.part(slice(None))
    else:
        points = problem.candidates(seeds)
        low, high, centre = (
            np.atleast_2d(a)
            for a in (np.fmin.reduce(points, axis=-2), np.fmax.reduce(points, axis=-2), points[..., 0, :])
        )
        if choice == EVERY:
            for k in range(seeds.number):
                yield _from(problem, points[..., k, :])
        elif choice == LOWEST:
            lowest = problem.part(slice(None), 0)
            run_problem(lowest)
            yield _from(problem, lowest.y)
    generator = np.random.default_rng(seed)
    scale = _scale(problem, centre)
    for _ in range(restarts):
        with np.errstate(invalid="ignore"):  # a start that is not finite: its instance ends as NOT_FINITE
            if seeds is not None and seeds.number > 1:
                yield _from(problem, low + generator.uniform(size=low.shape[1]) * (high - low))
            else:
                yield _from(problem, centre + generator.standard_normal(centre.shape[1]) * scale)


def _scale(problem: Problem, centre: Floats) -> Floats:
    """A length for each unknown: the largest of its variable at the start, or 1 where that is 0."""
    arrays = problem.kernel.variables.split(centre, problem.inputs.sizes).values()
    scales = [np.abs(a.reshape(len(centre), math.prod(a.shape[1:]))) for a in arrays]
    columns = [np.broadcast_to(a.max(axis=1, initial=0.0, keepdims=True), a.shape) for a in scales]
    scale = np.concatenate(columns, axis=1)
    return np.where(scale > 0.0, scale, 1.0)


def _from(problem: Problem, start: Floats) -> Problem:
    """The problem, to be started from there, (m,) or (1 or B, m)."""
    start = np.atleast_2d(np.ascontiguousarray(start))
    if problem.box is not None:
        start = problem.box.clip(start)
    return replace(problem, seeds=None, start=start).part(slice(None))


class _Ends(NamedTuple):
    """Where runs ended: (k, m), energies (k,) and gradient norms (k,)."""

    y: Floats
    energies: Floats
    slopes: Floats


def are_one(problem: Problem, row: Integers, these: _Ends, those: _Ends, evaluations: Integers) -> NDArray[np.bool_]:
    """Whether pairs of ends of instances `row` are one minimum, (k,); see the top of this file. Counts evaluations."""
    distance = np.sqrt(((these.y - those.y) ** 2).sum(axis=1))
    highest = np.maximum(these.energies, those.energies)
    noise = 2.0 * ROUNDING * np.maximum(np.abs(these.energies), np.abs(those.energies))
    reach = 2.0 * math.sqrt(these.y.shape[1]) * distance
    level = np.abs(these.energies - those.energies) <= noise + reach * (these.slopes + those.slopes)
    size = np.maximum(np.abs(these.y).max(axis=1, initial=0.0), np.abs(those.y).max(axis=1, initial=0.0))
    same: NDArray[np.bool_] = distance <= NEAR * size
    steepest = np.minimum(these.slopes, problem.gtol) + np.minimum(those.slopes, problem.gtol)
    limit = highest + noise + reach * steepest
    asked = np.flatnonzero(level & ~same)
    if len(asked):
        inputs = problem.inputs.rows(row[asked])
        to, away = those.y[asked], these.y[asked] - those.y[asked]
        low = np.ones(len(asked), np.bool_)
        for fraction in FRACTIONS:
            values, _ = run(problem.kernel.entry("value"), inputs, to + fraction * away, count=len(asked))
            low &= values <= limit[asked]  # False for NaN: something is between them
        np.add.at(evaluations, row[asked], len(FRACTIONS))
        same[asked] = low
    return same


class _Kept:
    """The lowest distinct minima so far, in order of energy; arrays over (minimum, instance, ...), NaN where none is.

    found    how many each instance has
    arrays   minimisers, starts, energies, reals and integers, as in Problem
    """

    def __init__(self, problem: Problem, count: int) -> None:
        rows, unknowns = problem.y.shape
        self.problem, self.found = problem, np.zeros(rows, np.int64)
        self.y, self.start = (np.full((count, rows, unknowns), math.nan) for _ in range(2))
        self.energies, self.reals = np.full((count, rows), math.nan), np.full((count, rows, 2), math.nan)
        self.integers = np.zeros((count, rows, 3), np.int64)
        self.differentiable = False
        self.active = None if problem.active is None else np.zeros((count, rows, unknowns), np.int64)
        self.integers[..., 2] = NOT_FINITE

    def _pairs(self, one: Problem) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        assert one.start is not None
        start = np.broadcast_to(one.start, one.y.shape)
        bounds = [] if self.active is None or one.active is None else [(self.active, one.active)]
        return [
            (self.y, one.y),
            (self.start, start),
            (self.energies, one.energies),
            (self.reals, one.reals),
            (self.integers, one.integers),
            *bounds,
        ]

    def put_first(self, one: Problem, rows: NDArray[np.bool_], usable: NDArray[np.bool_]) -> None:
        """Take the ends of a run for instances that have no minimum yet."""
        if rows.any():
            for mine, its in self._pairs(one):
                mine[0, rows] = its[rows]
            self.found[rows & usable] = 1
        self.differentiable = one.began is not None

    def insert(self, one: Problem, rows: NDArray[np.int64]) -> None:
        """Put new minima in their places by energy; the highest falls out where there is no more room."""
        if not len(rows):
            return
        count = len(self.energies)
        order = np.argsort(np.concatenate([self.energies[:, rows], one.energies[None, rows]]), axis=0, kind="stable")
        for mine, its in self._pairs(one):
            both = np.concatenate([mine[:, rows], its[None, rows]])
            places = order[:count].reshape(count, len(rows), *[1] * (both.ndim - 2))
            mine[:, rows] = np.take_along_axis(both, places, axis=0)
        self.found[rows] = np.minimum(self.found[rows] + 1, count)

    def put_together(self, together: Problem, instance: Integers, number: Integers, evaluations: Integers) -> None:
        """Take the ends of all starts of an instance at once: rows of one run, whose instances and numbers are given.

        Nothing is kept before.
        """
        usable = together.integers[:, 2] <= STALLED
        failed = ~usable
        order = np.lexsort((number, np.where(usable, together.energies, math.inf), failed, instance))
        instance, usable = instance[order], usable[order]
        pairs = [
            np.stack([first, first + lag])
            for lag in range(1, int(number.max(initial=0)) + 1)
            for first in [np.flatnonzero((instance[:-lag] == instance[lag:]) & usable[:-lag] & usable[lag:])]
        ]
        keep = usable.copy()
        if pairs:
            low, high = np.concatenate(pairs, axis=1)
            one, other = (
                _Ends(together.y[rows], together.energies[rows], together.reals[rows, 0])
                for rows in (order[low], order[high])
            )
            same = are_one(self.problem, instance[low], one, other, evaluations)
            for a, b in sorted(zip(low[same].tolist(), high[same].tolist(), strict=True), key=lambda pair: pair[1]):
                if keep[a]:
                    keep[b] = False
        np.add.at(self.found, instance[keep], 1)
        failed_first = (self.found[instance] == 0) & (number[order] == 0)
        rows = np.flatnonzero(keep | failed_first)
        place = np.arange(len(rows)) - np.searchsorted(instance[rows], instance[rows])
        rows, place = rows[place < len(self.energies)], place[place < len(self.energies)]
        self.found = np.minimum(self.found, len(self.energies))
        for mine, its in self._pairs(together):
            mine[place, instance[rows]] = its[order[rows]]
        self.differentiable = together.began is not None

    def has(self, one: Problem, asked: NDArray[np.bool_], evaluations: Integers) -> NDArray[np.bool_]:
        """Whether the end of a run is a minimum that is kept, (B,), anything where not asked; counts evaluations."""
        slot, row = np.nonzero(asked & ~np.isnan(self.energies))
        found = np.zeros(len(asked), np.bool_)
        if len(row):
            mine = _Ends(self.y[slot, row], self.energies[slot, row], self.reals[slot, row, 0])
            its = _Ends(one.y[row], one.energies[row], one.reals[row, 0])
            found[row[are_one(self.problem, row, mine, its, evaluations)]] = True
        return found

    def problems(self) -> list[Problem]:
        """Each minimum as a problem that has been run."""
        made = []
        for k in range(len(self.energies)):
            one = replace(self.problem, seeds=None, y=self.y[k], start=self.start[k])
            one.energies, one.reals, one.integers = self.energies[k], self.reals[k], self.integers[k]
            one.active = None if self.active is None else self.active[k]
            one.began = one.start if self.differentiable else None
            made.append(one)
        return made
