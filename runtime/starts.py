"""Several starts for every instance, and the distinct minima that they lead to.

The method runs once for each start, over the whole batch; what is kept after each run are the lowest distinct minima
so far, so that memory is that of the minima asked for, whatever the number of starts.

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

import numpy as np
from numpy.typing import NDArray

from ..compiler.evaluate import run
from .descend import NOT_FINITE, ROUNDING, STALLED
from .problem import Problem
from .run import Report, run_problem

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

NEAR = 1e-12
"""Ends that differ by this part of their size, or less, are one: rounding of y alone."""

FRACTIONS = (0.381966, 0.763932, 0.072949)
"""Where between two ends a barrier is looked for: powers of the golden ratio, far from all simple fractions."""


def number_of_starts(problem: Problem, every_candidate: bool, restarts: int) -> int:
    """How often the method will run."""
    return (problem.seeds.number if every_candidate and problem.seeds is not None else 1) + restarts


def lowest_minima(
    problem: Problem, count: int, every_candidate: bool, restarts: int, seed: int, report: Report | None
) -> tuple[list[Problem], Integers, Integers]:
    """Minimise from several starts.

    Parameters
    ----------
    problem : Problem
        With the first start, or candidates.
    count : int
        How many minima to keep.
    every_candidate : bool
        Whether to start from each candidate, or from the lowest one only.
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
    rows = len(problem.y)
    kept = [_nowhere(problem) for _ in range(count)]
    found, evaluations = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    for number, one in enumerate(_runs(problem, every_candidate, restarts, seed)):
        run_problem(one, report)
        evaluations += one.integers[:, 1]
        usable = one.integers[:, 2] <= STALLED  # CONVERGED or STALLED
        if number == 0:
            kept[0].take(one, slice(None))
            _set_start(kept[0], one, slice(None))
            found[:] = usable
            continue
        new = usable & (found > 0)
        for slot in range(count):
            new &= ~_same(one, kept[slot], new & (found > slot), evaluations)
        first = usable & (found == 0)
        _move(one, kept[0], first)
        found[first] = 1
        _insert(one, kept, found, new)
    return kept, found, evaluations


def _runs(problem: Problem, every_candidate: bool, restarts: int, seed: int) -> Iterator[Problem]:
    """The problem once for each start, yet to be run."""
    seeds = problem.seeds
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
        if every_candidate:
            for k in range(seeds.number):
                yield _from(problem, points[..., k, :])
        else:
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
    arrays = problem.kernel.variables.unpack(centre, problem.inputs.sizes).values()
    scales = [np.abs(a.reshape(len(centre), math.prod(a.shape[1:]))) for a in arrays]
    columns = [np.broadcast_to(a.max(axis=1, initial=0.0, keepdims=True), a.shape) for a in scales]
    scale = np.concatenate(columns, axis=1)
    return np.where(scale > 0.0, scale, 1.0)


def _from(problem: Problem, start: Floats) -> Problem:
    """The problem, to be started from there, (m,) or (1 or B, m)."""
    return replace(problem, seeds=None, start=np.atleast_2d(np.ascontiguousarray(start))).part(slice(None))


def _nowhere(problem: Problem) -> Problem:
    """Room for results: NaN, NOT_FINITE."""
    made = replace(problem, seeds=None, y=np.full_like(problem.y, math.nan), start=np.full_like(problem.y, math.nan))
    made.energies[:], made.reals[:], made.integers[:] = math.nan, math.nan, (0, 0, NOT_FINITE)
    return made


def _set_start(slot: Problem, one: Problem, rows: slice | NDArray[np.bool_]) -> None:
    assert slot.start is not None and one.start is not None
    slot.start[rows] = np.broadcast_to(one.start, slot.start.shape)[rows]


def _move(source: Problem, target: Problem, rows: NDArray[np.bool_]) -> None:
    """Copy the results and starts of some rows."""
    target.y[rows], target.energies[rows] = source.y[rows], source.energies[rows]
    target.reals[rows], target.integers[rows] = source.reals[rows], source.integers[rows]
    _set_start(target, source, rows)


def _insert(one: Problem, kept: list[Problem], found: Integers, new: NDArray[np.bool_]) -> None:
    """Put the new minima of a run in their places by energy; the highest falls out where there is no more room."""
    place = sum(
        ((found > k) & (slot.energies <= one.energies)).astype(np.int64) for k, slot in enumerate(kept)
    )  # after those of equal energy
    for k in range(len(kept) - 1, -1, -1):
        if k > 0:
            _move(kept[k - 1], kept[k], new & (place < k))
        _move(one, kept[k], new & (place == k))
    found[new] = np.minimum(found[new] + 1, len(kept))


# ---------------------------------------------------------------------------------------------- one minimum or two


def _same(a: Problem, b: Problem, asked: NDArray[np.bool_], evaluations: Integers) -> NDArray[np.bool_]:
    """Whether two ends are one minimum, (B,), False where not asked; counts what it evaluates."""
    same = np.zeros_like(asked)
    rows = np.flatnonzero(asked)
    if not len(rows):
        return same
    ya, yb, ga, gb = a.y[rows], b.y[rows], a.reals[rows, 0], b.reals[rows, 0]
    ea, eb = a.energies[rows], b.energies[rows]
    distance = np.sqrt(((ya - yb) ** 2).sum(axis=1))
    noise = 2.0 * ROUNDING * np.maximum(np.abs(ea), np.abs(eb))
    reach = 2.0 * math.sqrt(ya.shape[1]) * distance
    slack = noise + reach * (np.minimum(ga, a.gtol) + np.minimum(gb, b.gtol))
    near = distance <= NEAR * np.maximum(np.abs(ya), np.abs(yb)).max(axis=1, initial=0.0)
    level = near | (np.abs(ea - eb) <= noise + reach * (ga + gb))
    open_ = level & ~near
    for fraction in FRACTIONS:
        left = np.flatnonzero(open_)
        if not len(left):
            break
        points = np.ascontiguousarray(ya[left] + fraction * (yb[left] - ya[left]))
        values, _ = run(a.kernel.entry("value"), a.inputs.rows(rows[left]), points, count=len(left))
        evaluations[rows[left]] += 1
        rises = ~(values <= np.maximum(ea, eb)[left] + slack[left])  # True for NaN: something is between them
        level[left[rises]] = open_[left[rises]] = False
    same[rows] = level
    return same
