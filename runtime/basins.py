"""Starts for the lowest minima: of every basin among the candidates, the lowest candidate.

Candidates are taken in order of energy. Each asks for the nearest of those before it, and whether the energy on the
straight way there has a barrier. If not, it stands in a basin that has a start; else it is the start of a basin of its
own. The search ends with as many starts as minima are asked for:

    energies of candidates   1  0  3  5  2  4       in order: 0 starts; 1, and 3 beside it, walk down to it; 2 finds a
    starts                      *        *          barrier (5) on its way to 0 and starts, 4 walks down to 2

So the price is that of ranking four times as many candidates, and of one minimisation for each basin, where minimising
from every candidate costs one for each of these. What can go wrong: a barrier so thin that it lies between the three
points hides a minimum; one that is bent around costs a minimisation more, which ends in a minimum that is known.

The idea is that of topographical global optimisation (Torn and Viitanen 1994) and of quick shift (Vedaldi and Soatto
2008), with an energy on the way in the place of a number of neighbours or a largest distance, so that nothing here has
a length.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..compiler.machine_code.calling import call_evaluate, double_pointer_at, integer_pointer_at, prepared_for, shifted
from ..compiler.machine_code.native import Native, native
from ..compiler.machine_code.signature import DoublePointer, IntegerPointer
from .descend import (
    CANDIDATES,
    CANDIDATES_STRIDE,
    COUNT,
    EXTENTS,
    INTEGERS,
    MAX_ITERATIONS,
    RANKING,
    RANKING_EXTENTS,
    SCRATCH,
    SEEDS,
    TABLE,
    UNKNOWNS,
    VALUE,
    VARIABLES,
)
from .driver import run_driver
from .problem import Problem

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

ROUGH = 1e-7
"""What of an energy is no barrier: candidates are ranked with exponentials good to 1e-8."""

NEAR, FAR, BESIDE = 0.381966, 0.763932, 0.072949
"""Where on the way to the nearest lower candidate a barrier is looked for; no simple fractions."""


def starts_of_basins(problem: Problem, count: int) -> tuple[Floats, Integers, Integers]:
    """The lowest candidates of the `count` lowest basins.

    Parameters
    ----------
    problem : Problem
        With candidates.

    Returns
    -------
    starts : (B, count, m)
        In order of energy; what is after the first `found` is undefined.
    found : (B,)
        At least 1: where no candidate has a finite energy, the first one.
    evaluations : (B,)
        Calls of the kernel for an instance; all candidates at once are one.
    """
    assert problem.seeds is not None
    count = min(count, problem.seeds.number)
    rows, unknowns = len(problem.y), problem.inputs.m
    asked = replace(problem, y=np.zeros((rows, count * unknowns)), max_iterations=count, box=None)
    asked.integers = np.zeros((rows, 2 + 3 * problem.seeds.number), np.int64)
    run_driver(asked, search_slice())
    return asked.y.reshape(rows, count, unknowns), asked.integers[:, 0], asked.integers[:, 1]


def sort(ranks: DoublePointer, count: int, order: IntegerPointer) -> int:
    """order <- the candidates of finite energy, in order of energy, equals in their own; how many they are."""
    number = 0
    for c in range(count):
        if -math.inf < ranks[c] < math.inf:
            place = number
            while place > 0 and ranks[order[place - 1]] > ranks[c]:
                order[place] = order[place - 1]
                place -= 1
            order[place] = c
            number += 1
    return number


def nearest(points: DoublePointer, count: int, n: int, asked: DoublePointer) -> int:
    """The nearest of some points, the first of equals; 0 where there are none."""
    best, least = 0, math.inf
    for c in range(count):
        distance = 0.0
        for i in range(n):
            away = points[c * n + i] - asked[i]
            distance += away * away
        if distance < least:
            best, least = c, distance
    return best


def _search_slice(problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer) -> int:
    """Find starts for the instances [begin, end); reads what `descend.minimise_slice` does.

    Instance b writes up to MAX_ITERATIONS starts, one after another, to its row of VARIABLES, and to its row of
    3 COUNT + 2 INTEGERS how many they are, evaluations, and for itself the candidates in order of energy, the nearest
    of those before each, and whether there is a barrier on the way.
    """
    table, extents = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS])
    ranking_extents, n, count = integer_pointer_at(problem[RANKING_EXTENTS]), problem[UNKNOWNS], problem[COUNT]
    wanted = problem[MAX_ITERATIONS]
    own_seeds = shifted(workspace, problem[3] + problem[VALUE + 3])
    own_ranking = shifted(own_seeds, problem[SEEDS + 3])
    scratch = shifted(own_ranking, problem[RANKING + 3])
    seeds = shifted(scratch, problem[SCRATCH])
    ranks = shifted(seeds, count * n)
    sorted_seeds = shifted(ranks, count)
    trials = shifted(sorted_seeds, count * n)
    energies = shifted(trials, count * n)
    for instance in range(begin, end):
        if stop[0] != 0:
            return instance
        starts = shifted(double_pointer_at(problem[VARIABLES]), instance * wanted * n)
        integers = shifted(integer_pointer_at(problem[INTEGERS]), instance * (3 * count + 2))
        order, lower = shifted(integers, 2), shifted(integers, count + 2)
        alone = shifted(integers, 2 * count + 2)
        if problem[CANDIDATES] != 0:
            seeds = shifted(double_pointer_at(problem[CANDIDATES]), instance * problem[CANDIDATES_STRIDE])
        else:
            prepared = prepared_for(shifted(problem, SEEDS), table, extents, instance, own_seeds)
            call_evaluate(problem[SEEDS], starts, starts, table, extents, instance, prepared, scratch, seeds)
        prepared = prepared_for(shifted(problem, RANKING), table, ranking_extents, instance, own_ranking)
        call_evaluate(problem[RANKING], seeds, seeds, table, ranking_extents, instance, prepared, scratch, ranks)
        number = sort(ranks, count, order)
        integers[1] = 1
        if number == 0:
            integers[0] = 1
            for i in range(n):
                starts[i] = seeds[i]
            continue
        for c in range(number):
            for i in range(n):
                sorted_seeds[c * n + i] = seeds[order[c] * n + i]
            lower[c] = nearest(sorted_seeds, c, n, shifted(sorted_seeds, c * n))
            alone[c] = 1 if c == 0 else 0
        for k in range(3):
            fraction = NEAR if k == 0 else (FAR if k == 1 else BESIDE)
            for c in range(count):
                high = c if c < number else 0
                for i in range(n):
                    here = sorted_seeds[high * n + i]
                    trials[c * n + i] = here + fraction * (sorted_seeds[lower[high] * n + i] - here)
            call_evaluate(
                problem[RANKING], trials, trials, table, ranking_extents, instance, prepared, scratch, energies
            )
            integers[1] += 1
            for c in range(number):
                energy = ranks[order[c]]
                if not energies[c] <= energy + ROUGH * abs(energy):
                    alone[c] = 1
        found = 0
        for c in range(number):
            if alone[c] != 0 and found < wanted:
                for i in range(n):
                    starts[found * n + i] = sorted_seeds[c * n + i]
                found += 1
        integers[0] = found
    return end


def search_slice() -> Native:
    """The compiled `_search_slice`."""
    return native(_search_slice)
