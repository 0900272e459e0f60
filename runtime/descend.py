"""Newton's method with an exact trust region over a slice of a batch, compiled once for all energies.

The decrease of the energy is compared with that of the model (trust_region.py).

- The first radius lets a full Newton step through where H is positive definite. Where it is not, it is |g| / |H|, which
  has the unit of y whatever the scales of y and E; where this is nothing beside y (a saddle), a thousandth of |y|, or
  of 1 at the origin, since no other length is at hand. The radius doubles while the model is right, falls to a quarter
  of the step where less than half of the promised decrease came, and shrinks faster with every refusal at a point.
- A Newton step that is refused is once shortened along its line, to the minimum of the cubic through the energies and
  slopes at its ends; this belongs to the same iteration. It saves a factorisation, and the Newton direction knows the
  scales of the unknowns where a ball does not (pose: 9.0 evaluations instead of 10.8).
- The step of the ball is too short where curvatures differ by more than the rounding of H allows (1e-8 beside 1e10 in
  Powell's badly scaled problem): its shift is at least that rounding. Then the Newton step, cut to the radius, promises
  more, or the step itself, made longer up to the radius or the minimum of the model along it (`lengthened`).
- Where the model promises less than the rounding of the energy, the gradient judges a step.
- Where the gradient is within gtol and the lowest curvature negative, the step along it leaves the saddle. Where that
  curvature is slight, Newton's steps come first (`flatten`): along a direction in which the energy does not change
  (all unknowns turned together) the curvature is not 0 but of the size of the gradient, of either sign, and vanishes
  with it.
"""

from __future__ import annotations

import math

from ..compiler.machine_code.calling import (
    call_evaluate,
    double_pointer_at,
    doubles,
    integer_pointer_at,
    prepared_for,
    shifted,
)
from ..compiler.machine_code.native import Native, native
from ..compiler.machine_code.signature import DoublePointer, IntegerPointer
from .algebra import trust_region, vectors
from .algebra.factorisation import boundary_step, newton_step, spectrum
from .algebra.linear_algebra import FLAT, dot, largest
from .first_evaluation import evaluate_first
from .statuses import ABYSS, CONVERGED, FAR, ITERATION_LIMIT, SADDLE, STALLED, UNBOUNDED

ROUNDING = 1e-13
"""Differences below this part of the energy are rounding: 450 units in the last place, for sums of many terms."""

SLIGHT = 1e-6
"""A negative curvature above minus this part of the largest may be one that vanishes with the gradient."""

DOUBTFUL, HOPELESS = 6, 16
"""How many steps from a point may be refused: below the rounding of the energy, and at all. The last is 1e-30 long."""

LEAPS = 3
"""How many of Newton's steps are made from a point of slight curvature before they are given up."""

NO_SCALE = 1e-30
"""Variables below this say nothing about the scale of a problem: a start this near to 0 is meant as 0."""


def first_radius(y: DoublePointer, n: int, gradient_norm: float, bound: float) -> float:
    """A length for the first step from a point where H is not positive definite; see the top of this file."""
    size = largest(y, n)
    radius = 1e-3 * (size if size > NO_SCALE else 1.0)
    return max(radius, gradient_norm / bound) if bound > 0.0 else radius


def shorter(change: float, slope: float, slope_there: float) -> float:
    """By how much to shorten a refused step: the minimum of the cubic through both energies and slopes along it."""
    twist = slope + slope_there - 3.0 * change
    square = twist * twist - slope * slope_there
    if not square > 0.0:
        return 0.5
    root = math.sqrt(square)
    return min(0.7, max(0.1, 1.0 - (slope_there + root - twist) / (slope_there - slope + 2.0 * root)))


def lengthened(
    hessian: DoublePointer,
    gradient: DoublePointer,
    n: int,
    radius: float,
    newton: DoublePointer,
    newton_length: float,
    step: DoublePointer,
    predicted: float,
) -> tuple[float, float, float]:
    """Make a step of the ball longer where rounding kept it short: its length, slope and promised decrease.

    newton_length is 0 where H is not positive definite, and the step should have reached the radius.
    """
    length, slope = math.sqrt(dot(step, step, n)), dot(step, gradient, n)
    if newton_length > radius:
        share = radius / newton_length
        shorter_slope = share * dot(newton, gradient, n)
        promised = -shorter_slope * (1.0 - 0.5 * share)
        if promised > predicted:
            for i in range(n):
                step[i] = share * newton[i]
            return radius, shorter_slope, promised
    elif newton_length == 0.0 and 0.0 < length < 0.5 * radius and slope < 0.0:
        curved = 0.0
        for i in range(n):
            curved += step[i] * dot(shifted(hessian, i * n), step, n)
        share = radius / length
        if share * curved > -slope:
            share = max(1.0, -slope / curved)
        for i in range(n):
            step[i] *= share
        return share * length, share * slope, -share * slope - 0.5 * share * share * max(curved, 0.0)
    return length, slope, predicted


def shifted_step(
    layout: IntegerPointer,
    hessian: DoublePointer,
    gradient: DoublePointer,
    n: int,
    shift: float,
    space: DoublePointer,
    diagonal: DoublePointer,
    step: DoublePointer,
) -> bool:
    """step <- -(H + shift)^-1 g where that is positive definite, else False; `diagonal` is room for that of H."""
    for i in range(n):
        diagonal[i] = hessian[i * n + i]
        hessian[i * n + i] += shift
    found = newton_step(layout, hessian, gradient, n, space, step)
    for i in range(n):
        hessian[i * n + i] = diagonal[i]
    return found and dot(step, step, n) < math.inf


def flatten(
    evaluate: int,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    scratch: DoublePointer,
    n: int,
    layout: IntegerPointer,
    y: DoublePointer,
    here: DoublePointer,
    energy: float,
    there: DoublePointer,
    space: DoublePointer,
    work: DoublePointer,
    newton: DoublePointer,
    trial: DoublePointer,
) -> tuple[bool, int, float]:
    """trial, there <- where some of Newton's steps from y lead, if the gradient has less than half its length there.

    A long step along a curved valley leaves its floor, and the next returns to it: so up to LEAPS are made before they
    are given up. Returns whether that was found, how many evaluations it took, and the energy there.
    """
    gradient_norm, last = math.sqrt(dot(here, here, n)), here
    vectors.copy(y, trial, n)
    for step in range(1, LEAPS + 1):
        hessian = shifted(last, n)
        lowest, _ = spectrum(layout, hessian, n, space)
        if not shifted_step(layout, hessian, last, n, max(0.0, -2.0 * lowest), space, work, newton):
            return False, step - 1, energy
        vectors.add(trial, newton, trial, n)
        reached = call_evaluate(evaluate, trial, trial, table, extents, instance, prepared, scratch, there)
        if not reached < math.inf or not dot(there, there, n + n * n) < math.inf:
            return False, step, energy
        if math.sqrt(dot(there, there, n)) < 0.5 * gradient_norm and reached - energy <= ROUNDING * abs(energy):
            return True, step, reached
        last = there
    return False, LEAPS, energy


def take_step(y: DoublePointer, step: DoublePointer, n: int, trial: DoublePointer) -> bool:
    """trial <- y + step; whether that is another point than y."""
    vectors.add(y, step, trial, n)
    same = 0
    while same < n and trial[same] == y[same]:
        same += 1
    return same < n


def is_accepted(energy: float, finite: bool, ratio: float, judged: bool, flatter: bool) -> bool:
    """Whether a trial point is taken: where rounding hides the decrease, for being `flatter`."""
    if energy < ABYSS:
        return True
    if not finite:
        return False
    return ratio > 1e-4 if judged else flatter


def next_radius(radius: float, length: float, ratio: float, judged: bool, shortened: bool) -> float:
    """The radius after an accepted step of that length, for the ratio of actual to promised decrease."""
    if not judged:
        return max(radius, 2.0 * length)
    if shortened:
        return 2.0 * length
    if ratio < 0.5:
        return 0.25 * length
    return max(radius, 2.0 * length if ratio > 0.75 else length)


def descend(
    evaluate: int,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    scratch: DoublePointer,
    n: int,
    layout: IntegerPointer,
    y: DoublePointer,
    memory: DoublePointer,
    gtol: float,
    max_iterations: int,
    reals: DoublePointer,
    integers: IntegerPointer,
) -> None:
    """Minimise one instance from y, which becomes the best point; `memory` has 3 n*n + 14 n numbers.

    `layout` says which blocks the Hessian has (factorisation.py).
    reals <- gradient norm, curvature;  integers <- iterations, evaluations, status.
    """
    size = n + n * n
    here, there, space = memory, shifted(memory, size), shifted(memory, 2 * size)
    work, trial = shifted(space, n * n + 5 * n), shifted(space, n * n + 9 * n)
    inner, newton = shifted(trial, n), shifted(trial, 2 * n)
    goes_on, energy, start_size = evaluate_first(
        evaluate, table, extents, instance, prepared, scratch, n, size, y, here, reals, integers
    )
    if not goes_on:
        return

    status = iterations = refusals = doubtful = 0
    evaluations = 1
    fresh, known, on_line, shortened, rose = True, False, False, False, False
    gradient_size, gradient_norm = largest(here, n), math.sqrt(dot(here, here, n))
    radius = length = slope = predicted = lowest = bound = newton_length = 0.0
    flattened = math.inf
    step = newton
    while True:
        hessian, noise, escaping = shifted(here, n), ROUNDING * abs(energy), gradient_size <= gtol
        if fresh:
            known = on_line = shortened = rose = False
            refusals = doubtful = 0
            if escaping:
                lowest, bound = spectrum(layout, hessian, n, space)
                known = True
                if lowest >= -FLAT * bound:
                    status = CONVERGED
                    break
                slight = lowest > -SLIGHT * bound and gradient_norm < 0.5 * flattened and iterations < max_iterations
                if slight:
                    flattened = gradient_norm
                    flatter, tried, trial_energy = flatten(
                        evaluate,
                        table,
                        extents,
                        instance,
                        prepared,
                        scratch,
                        n,
                        layout,
                        y,
                        here,
                        energy,
                        there,
                        space,
                        work,
                        newton,
                        trial,
                    )
                    evaluations += tried
                    if flatter:
                        iterations += 1
                        vectors.copy(trial, y, n)
                        here, there = there, here
                        energy, gradient_size = trial_energy, largest(here, n)
                        gradient_norm = math.sqrt(dot(here, here, n))
                        continue
                    lowest, bound = spectrum(layout, hessian, n, space)
        if not shortened:
            if iterations >= max_iterations:
                status = ITERATION_LIMIT
                break
            iterations += 1
            if fresh:
                newton_length = 0.0
            if fresh and not known:
                if newton_step(layout, hessian, here, n, space, newton):
                    newton_length = math.sqrt(dot(newton, newton, n))
                newton_length = newton_length if newton_length < math.inf else 0.0
                on_line = newton_length > 0.0 and (radius == 0.0 or newton_length <= radius)
            if on_line:
                step = newton
                length, slope = newton_length, dot(newton, here, n)
                predicted = -0.5 * slope
            else:
                if not known:
                    lowest, bound = spectrum(layout, hessian, n, space)
                    known = True
                if fresh and newton_length == 0.0:
                    if radius == 0.0 or escaping:
                        radius = max(radius, first_radius(y, n, gradient_norm, bound))
                    if lowest < -FLAT * bound:  # far enough for a decrease that can be told from rounding
                        radius = max(radius, math.sqrt(200.0 * noise / -lowest))
                predicted = boundary_step(layout, hessian, space, here, n, lowest, bound, radius, inner, work)
                step = inner
                length, slope, predicted = lengthened(hessian, here, n, radius, newton, newton_length, inner, predicted)
            fresh = False
        if not take_step(y, step, n, trial):
            iterations -= 1
            status = (SADDLE if rose else CONVERGED) if escaping else STALLED
            break

        trial_energy = call_evaluate(evaluate, trial, trial, table, extents, instance, prepared, scratch, there)
        evaluations += 1
        finite = trial_energy < math.inf and dot(there, there, size) < math.inf
        change = trial_energy - energy
        trial_norm = math.sqrt(dot(there, there, n))
        judged = predicted > noise
        ratio = -change / predicted
        in_doubt = finite and not judged and not escaping
        flatter = in_doubt and change <= noise and (trial_norm < 0.9 * gradient_norm or largest(there, n) <= gtol)
        doubtful += 1 if in_doubt else 0
        if not is_accepted(trial_energy, finite, ratio, judged, flatter):
            rose = rose or not finite or change > noise
            refusals += 1
            if refusals >= HOPELESS or (not judged and (escaping or doubtful >= DOUBTFUL)):
                status = (SADDLE if rose else CONVERGED) if escaping else STALLED
                break
            shrink = 0.25
            if on_line and not shortened:
                if finite and judged:
                    shrink = shorter(change, slope, dot(step, there, n))
                for i in range(n):
                    inner[i] = shrink * newton[i]
                step = inner
                predicted = -slope * (shrink - 0.5 * shrink * shrink)
                slope *= shrink
                length *= shrink
                shortened = True
            else:
                if finite:
                    shrink = max(0.1, -0.5 * slope / (change - slope)) if change > slope else 0.1
                radius = length * min(shrink, 0.5 / (refusals * refusals))
                on_line = shortened = False
            continue

        for i in range(n):
            y[i] = trial[i]
        here, there = there, here
        energy, gradient_norm, gradient_size = trial_energy, trial_norm, largest(here, n)
        if energy < ABYSS or (not on_line and largest(y, n) > FAR * (1.0 + start_size)):
            status, known = UNBOUNDED, False
            break
        radius = next_radius(radius, length, ratio, judged, shortened)
        fresh, shortened = True, False

    if not known and dot(here, here, size) < math.inf:
        lowest, bound = spectrum(layout, shifted(here, n), n, space)
        known = True
    reals[0] = gradient_size
    reals[1] = lowest if known else math.nan
    integers[0], integers[1], integers[2] = iterations, evaluations, status


# ---------------------------------------------------------------------------------------------- the slice

# What `minimise_slice` reads from its problem; GTOL is a float64. Four entries of a kernel come first, each as
# (address of evaluate, of prepare, of shared prepared numbers or 0, prepared numbers that a thread needs of its own).
DERIVATIVES, VALUE, SEEDS, RANKING = 0, 4, 8, 12
TABLE, EXTENTS, RANKING_EXTENTS, UNKNOWNS, SCRATCH = 16, 17, 18, 19, 20
CANDIDATES, CANDIDATES_STRIDE, COUNT = 21, 22, 23
VARIABLES, ENERGIES, REALS, INTEGERS, MAX_ITERATIONS, LAYOUT = 24, 25, 26, 27, 28, 29
GTOL = 30


def workspace_size(unknowns: int, candidates: int, scratch: int, own: int) -> int:
    """How many numbers of working memory a thread needs, of `basins.search_slice`, too."""
    return own + scratch + candidates * (3 * unknowns + 2) + 3 * unknowns * unknowns + 14 * unknowns


def _minimise_slice(
    problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer
) -> int:
    """Minimise the instances [begin, end); returns where it ended, before `end` if the stop flag was raised.

    Candidates are the user's (CANDIDATES not 0), the energy's own (its SEEDS entry writes them), or none: then
    VARIABLES holds the starts. COUNT says how many.
    """
    table, extents = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS])
    ranking_extents, n, count = integer_pointer_at(problem[RANKING_EXTENTS]), problem[UNKNOWNS], problem[COUNT]
    own_value = shifted(workspace, problem[DERIVATIVES + 3])
    own_seeds = shifted(own_value, problem[VALUE + 3])
    own_ranking = shifted(own_seeds, problem[SEEDS + 3])
    scratch = shifted(own_ranking, problem[RANKING + 3])
    seeds = shifted(scratch, problem[SCRATCH])
    ranks = shifted(seeds, count * n)
    memory = shifted(ranks, count)
    for instance in range(begin, end):
        if stop[0] != 0:
            return instance
        y = shifted(double_pointer_at(problem[VARIABLES]), instance * n)
        reals = shifted(double_pointer_at(problem[REALS]), instance * 2)
        integers = shifted(integer_pointer_at(problem[INTEGERS]), instance * 3)
        if count > 0:
            if problem[CANDIDATES] != 0:
                seeds = shifted(double_pointer_at(problem[CANDIDATES]), instance * problem[CANDIDATES_STRIDE])
            else:
                prepared = prepared_for(shifted(problem, SEEDS), table, extents, instance, own_seeds)
                call_evaluate(problem[SEEDS], y, y, table, extents, instance, prepared, scratch, seeds)
            prepared = prepared_for(shifted(problem, RANKING), table, ranking_extents, instance, own_ranking)
            call_evaluate(problem[RANKING], seeds, seeds, table, ranking_extents, instance, prepared, scratch, ranks)
            best, lowest = 0, math.inf
            for candidate in range(count):
                if -math.inf < ranks[candidate] < lowest:
                    best, lowest = candidate, ranks[candidate]
            for i in range(n):
                y[i] = seeds[best * n + i]
        prepared = prepared_for(shifted(problem, DERIVATIVES), table, extents, instance, workspace)
        descend(
            problem[DERIVATIVES],
            table,
            extents,
            instance,
            prepared,
            scratch,
            n,
            integer_pointer_at(problem[LAYOUT]),
            y,
            memory,
            doubles(problem)[GTOL],
            problem[MAX_ITERATIONS],
            reals,
            integers,
        )
        if count > 0:
            integers[1] += 1
        prepared = prepared_for(shifted(problem, VALUE), table, extents, instance, own_value)
        energies = double_pointer_at(problem[ENERGIES])
        energies[instance] = call_evaluate(problem[VALUE], y, y, table, extents, instance, prepared, scratch, memory)
    return end


CLOSED_FORMS = (
    (trust_region.newton_step, trust_region.newton_step_of_few),
    (trust_region.spectrum, trust_region.spectrum_of_few),
)


def minimise_slice(unknowns: int) -> Native:
    """The compiled `_minimise_slice`; for few unknowns without factorisations, which take longer to compile."""
    return native(_minimise_slice, CLOSED_FORMS) if 0 < unknowns <= trust_region.FEW else native(_minimise_slice)
