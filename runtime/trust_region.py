"""Newton's method with an exact trust region, for a slice of a batch; compiled once for all energies.

A step p minimises the model g'p + p'Hp/2 over |p| <= radius (Moré and Sorensen 1983; Nocedal and Wright, section 4.3):

    (H + mu) p = -g,   mu >= 0,   H + mu positive semi-definite,   mu (radius - |p|) = 0

- H positive definite and the Newton step inside: one Cholesky factorisation, mu = 0 (`newton_step`).
- Otherwise H = Q T Q' once (`spectrum`), after which each mu costs O(m). The unknown is delta = mu + lowest
  eigenvalue, so that nothing cancels near the hard case, in which g has no part along the lowest eigenvector and the
  step is completed along it (`boundary_step`). A point whose step was refused keeps T, Q for the shorter ones.

The loop (`descend`) compares the decrease of the energy with that of the model. The first radius lets a full Newton
step through where H is positive definite. Where it is not, it is |g| / |H|, which has the unit of y whatever the
scales of y and E; where this is nothing beside y (a saddle), a thousandth of |y|, or of 1 at the origin, since no
other length is at hand. It grows fourfold while the model is right, and shrinks faster with every refusal at a point.

Where the model promises less than the rounding of the energy, taken as 450 eps |E|, the gradient judges a step.
"""

# Arguments and results of compiled functions are typed by numba, when `native` compiles their caller.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import math
from functools import cache

from ..compiler.calling import call_evaluate, call_prepare, double_pointer_at, integer_pointer_at, shifted
from ..compiler.linked import linked
from ..compiler.native import Native, Signature, double, double_pointer, integer, integer_pointer, native
from .linear_algebra import (
    EPSILON,
    TINY,
    cholesky,
    cholesky_solve,
    dot,
    lowest_eigenvalue,
    lowest_eigenvector,
    rotate,
    solve_shifted,
    tridiagonalise,
)

RUNNING, CONVERGED, STALLED, ITERATION_LIMIT, NOT_FINITE, UNBOUNDED, SADDLE = -1, 0, 1, 2, 3, 4, 5

ROUNDING = 1e-13
"""Differences below this part of the energy are rounding: 450 units in the last place, for sums of many terms."""

FLAT = 1e-12
"""A curvature above minus this part of the largest counts as not negative."""

REFUSALS = 6
"""How often a step may be refused below the rounding of the energy before the instance has stalled."""

FAR = 1e12
ABYSS = -1e300


# ---------------------------------------------------------------------------------------------- the step


@linked
def largest(a, n):
    """The infinity norm; infinite if a number is NaN."""
    size = 0.0
    for i in range(n):
        value = abs(a[i])
        if not value <= size:
            size = value if value >= 0.0 else math.inf
    return size


@linked
def absolute_sum(a, n):
    """The sum of |a[i]|: finite only if all are."""
    s0 = s1 = s2 = s3 = 0.0
    for i in range(0, n - 3, 4):
        s0 += abs(a[i])
        s1 += abs(a[i + 1])
        s2 += abs(a[i + 2])
        s3 += abs(a[i + 3])
    for i in range(n - n % 4, n):
        s0 += abs(a[i])
    return (s0 + s2) + (s1 + s3)


@linked
def newton_step(h, g, n, u, p):
    """p <- -H^-1 g where H is positive definite, else False; closed forms for one and two unknowns."""
    if n == 1:
        p[0] = -g[0] / h[0]
        return h[0] > 0.0
    if n == 2:
        ratio = h[1] / h[0]
        rest = h[3] - ratio * h[1]
        p[1] = -(g[1] - ratio * g[0]) / rest
        p[0] = -g[0] / h[0] - ratio * p[1]
        return h[0] > 0.0 and rest > 0.0
    if not cholesky(h, n, u):
        return False
    for i in range(n):
        p[i] = -g[i]
    cholesky_solve(u, n, p)
    return True


@linked
def spectrum(h, n, space):
    """The lowest eigenvalue of H and a bound of all, leaving T and Q in `space` (n*n + 5n numbers) for a step."""
    diagonal, off = shifted(space, n * n), shifted(space, n * n + n)
    if n == 1:
        diagonal[0] = h[0]
        return h[0], abs(h[0])
    if n == 2:
        diagonal[0], diagonal[1], off[0] = h[0], h[3], h[1]
        mean, half = 0.5 * (h[0] + h[3]), 0.5 * (h[0] - h[3])
        size = max(abs(half), abs(h[1]))
        radius = 0.0
        if size > 0.0:
            radius = size * math.sqrt((half / size) * (half / size) + (h[1] / size) * (h[1] / size))
        bound = abs(mean) + radius
        if mean > 0.0:
            return h[0] * (h[3] / bound) - h[1] * (h[1] / bound), bound
        return mean - radius, bound
    size = largest(h, n * n)
    scale = 1.0 if 1e-90 < size < 1e90 or size == 0.0 else 1.0 / size
    for i in range(n * n):
        space[i] = scale * h[i]
    work = shifted(off, 2 * n)
    tridiagonalise(space, n, scale * size, diagonal, off, shifted(off, n), work)
    lowest, bound = lowest_eigenvalue(diagonal, off, n, work)
    if scale != 1.0:
        lowest, bound = lowest / scale, bound / scale
        for i in range(n):
            diagonal[i], off[i] = diagonal[i] / scale, off[i] / scale
    return lowest, bound


@linked
def _upright(space, beta, z, n, x):
    """The sign that makes the largest entry of Qz positive (the first of equals); x is overwritten."""
    for i in range(n):
        x[i] = z[i]
    rotate(space, n, beta, x, n - 3, -1)
    peak = 0
    for i in range(1, n):
        if abs(x[i]) > abs(x[peak]):
            peak = i
    return math.copysign(1.0, x[peak])


@linked
def boundary_step(space, g, n, lowest, bound, radius, p, work):
    """p <- the minimiser of the model, from what `spectrum` left; returns the decrease that the model promises.

    With z the unit eigenvector of the lowest eigenvalue and b = -Q'g, delta = mu + lowest solves |x(delta)| = radius,
    x = (T - lowest + delta)^-1 b. It lies between |z'b| / radius and |b| / radius. Newton's method on
    1/|x| - 1/radius rises to it from the left and is kept inside the shrinking bracket. `work` has 5n numbers.
    """
    diagonal, off, beta = shifted(space, n * n), shifted(space, n * n + n), shifted(space, n * n + 2 * n)
    b, z, x, top, bottom = work, shifted(work, n), p, shifted(work, 2 * n), shifted(work, 3 * n)
    for i in range(n):
        b[i] = -g[i]
    rotate(space, n, beta, b, 0, 1)
    lowest_eigenvector(diagonal, off, n, lowest, bound, z, top, bottom)
    along = dot(z, b, n)
    sign = math.copysign(1.0, along)
    if abs(along) <= EPSILON * abs(lowest) * radius:
        sign = _upright(space, beta, z, n, x)
    upper = math.sqrt(dot(b, b, n)) / radius
    floor = max(8.0 * EPSILON * bound, EPSILON * upper)
    low = max(floor, max(lowest, abs(along) / radius))
    high = max(low, upper)
    delta = low
    for attempt in range(50):
        square, quadratic = solve_shifted(diagonal, off, n, delta - lowest, EPSILON * bound + TINY, b, x, top, bottom)
        norm = math.sqrt(square)
        if abs(norm - radius) <= 1e-12 * radius or (attempt == 0 and norm < radius):
            break
        if norm > radius:
            low = delta
        else:
            high = delta
        change = (square / quadratic) * ((norm - radius) / radius)
        following = delta + change
        if not low < following < high:
            following = math.sqrt(low) * math.sqrt(high)
        if abs(following - delta) <= EPSILON * delta:
            break
        delta = following
    hard = norm < radius * (1.0 - 1e-12) and lowest < -floor and delta <= 2.0 * floor
    if hard:
        part = dot(z, x, n)
        for i in range(n):
            x[i] -= part * z[i]
        length = math.sqrt(max(0.0, radius * radius - dot(x, x, n)))
        for i in range(n):
            x[i] += sign * length * z[i]
    curved = 0.0
    for i in range(n):
        curved += diagonal[i] * x[i] * x[i]
        if i < n - 1:
            curved += 2.0 * off[i] * x[i] * x[i + 1]
    predicted = dot(b, x, n) - 0.5 * curved
    rotate(space, n, beta, x, n - 3, -1)
    return predicted


# ---------------------------------------------------------------------------------------------- the loop


@linked
def first_radius(y, n, gradient_norm, bound):
    """A length for the first step from a point where H is not positive definite; see the top of this file."""
    size = largest(y, n)
    radius = 1e-3 * (size if size > 0.0 else 1.0)
    return max(radius, gradient_norm / bound) if bound > 0.0 else radius


@linked
def descend(evaluate, table, extents, instance, prepared, scratch, n, y, memory, gtol, max_iterations, reals, integers):
    """Minimise one instance from y, which becomes the best point; `memory` has 3 n*n + 15 n numbers.

    reals <- gradient norm, curvature;  integers <- iterations, evaluations, status.
    """
    size = n + n * n
    here, there, space = memory, shifted(memory, size), shifted(memory, 2 * size)
    work, trial = shifted(space, n * n + 5 * n), shifted(space, n * n + 10 * n)
    p, newton = shifted(trial, n), shifted(trial, 2 * n)
    reals[0] = reals[1] = math.nan
    integers[0] = integers[1] = 0
    integers[2] = NOT_FINITE
    start_size = largest(y, n)
    if not start_size < math.inf:
        return
    energy = call_evaluate(evaluate, y, y, table, extents, instance, prepared, scratch, here)
    integers[1] = 1
    if energy < ABYSS:
        integers[2] = UNBOUNDED
        return
    if not (energy < math.inf and absolute_sum(here, size) < math.inf):
        return

    status, radius, length = RUNNING, 0.0, 0.0
    iterations = refusals = doubtful = 0
    fresh, known, definite, rose = True, False, False, False
    gradient_size = largest(here, n)
    gradient_norm = math.sqrt(dot(here, here, n))
    lowest = bound = predicted = 0.0
    while True:
        hessian, noise = shifted(here, n), ROUNDING * abs(energy)
        if fresh:
            known = definite = rose = False
            refusals = doubtful = 0
            if gradient_size <= gtol:
                lowest, bound = spectrum(hessian, n, space)
                known = True
                if lowest >= -FLAT * bound:
                    status = CONVERGED
                    break
        if iterations >= max_iterations:
            status = ITERATION_LIMIT
            break
        if fresh and not known:
            definite = newton_step(hessian, here, n, space, newton)
            length = math.sqrt(dot(newton, newton, n))
            definite = definite and length < math.inf
        if definite and (radius == 0.0 or length <= radius):
            step, stride = newton, length
            predicted = -0.5 * dot(newton, here, n)
        else:
            if not known:
                lowest, bound = spectrum(hessian, n, space)
                known = True
            if fresh and not definite:
                if radius == 0.0 or gradient_size <= gtol:
                    radius = max(radius, first_radius(y, n, gradient_norm, bound))
                if lowest < -FLAT * bound:  # far enough for a decrease that can be told from rounding
                    radius = max(radius, math.sqrt(200.0 * noise / -lowest))
            predicted = boundary_step(space, here, n, lowest, bound, radius, p, work)
            step, stride = p, math.sqrt(dot(p, p, n))
        inside = definite and stride == length
        fresh = False
        moved = False
        for i in range(n):
            trial[i] = y[i] + step[i]
            moved = moved or trial[i] != y[i]
        escaping = gradient_size <= gtol
        if not moved:
            status = (SADDLE if rose else CONVERGED) if escaping else STALLED
            break

        trial_energy = call_evaluate(evaluate, trial, trial, table, extents, instance, prepared, scratch, there)
        iterations += 1
        finite = trial_energy < math.inf and absolute_sum(there, size) < math.inf
        change = trial_energy - energy
        trial_norm = math.sqrt(dot(there, there, n))
        judged = predicted > noise
        ratio = -change / predicted
        if trial_energy < ABYSS:
            accepted = True
        elif not finite:
            accepted = False
        elif judged:
            accepted = ratio > 1e-4
        elif escaping:
            accepted = False
        else:
            accepted = change <= noise and (trial_norm < 0.9 * gradient_norm or largest(there, n) <= gtol)
            doubtful += 1
        if not accepted:
            rose = rose or not finite or change > noise
            if not judged and (escaping or doubtful >= REFUSALS):
                status = (SADDLE if rose else CONVERGED) if escaping else STALLED
                break
            refusals += 1
            shrink = 0.25
            if finite:
                slope = dot(step, here, n)
                shrink = max(0.1, -0.5 * slope / (change - slope)) if change > slope else 0.1
            radius = stride * min(shrink, 0.5 / (refusals * refusals))
            continue

        for i in range(n):
            y[i] = trial[i]
        if trial_energy < ABYSS or (not inside and largest(y, n) > FAR * (1.0 + start_size)):
            energy = trial_energy
            here, there = there, here
            status, known = UNBOUNDED, False
            gradient_size = largest(here, n)
            break
        if not judged:
            radius = max(radius, 2.0 * stride)
        elif ratio < 0.25:
            radius = 0.5 * stride
        elif ratio > 0.9:
            radius = max(radius, 4.0 * stride)
        elif ratio > 0.75:
            radius = max(radius, 2.0 * stride)
        else:
            radius = max(radius, stride)
        energy, gradient_norm = trial_energy, trial_norm
        here, there = there, here
        gradient_size = largest(here, n)
        fresh = True

    if not known and absolute_sum(here, size) < math.inf:
        lowest, bound = spectrum(shifted(here, n), n, space)
        known = True
    reals[0] = gradient_size
    reals[1] = lowest if known else math.nan
    integers[0], integers[1], integers[2] = iterations, iterations + 1, status


# ---------------------------------------------------------------------------------------------- the slice

# What `minimise_slice` reads from its first argument, an array of int64. Four entries of a kernel come first, each as
# (address of evaluate, of prepare, of shared prepared numbers or 0, prepared numbers that a thread needs of its own).
DERIVATIVES, VALUE, SEEDS, RANKING = 0, 4, 8, 12
TABLE, EXTENTS, RANKING_EXTENTS, UNKNOWNS, SCRATCH = 16, 17, 18, 19, 20
CANDIDATES, CANDIDATES_STRIDE, COUNT = 21, 22, 23
VARIABLES, ENERGIES, REALS, INTEGERS, MAX_ITERATIONS = 24, 25, 26, 27, 28
FIELDS = 29


def workspace_size(unknowns: int, candidates: int, scratch: int, own: int) -> int:
    """How many numbers of working memory a thread needs."""
    return own + scratch + candidates * (unknowns + 1) + 3 * unknowns * unknowns + 15 * unknowns


@linked
def _prepared(problem, entry, table, extents, instance, own):
    """The prepared numbers of an entry for this instance: shared ones, or those now written to `own`."""
    if problem[entry + 3] == 0:
        return double_pointer_at(problem[entry + 2])
    call_prepare(problem[entry + 1], table, extents, instance, own)
    return own


def _minimise_slice(problem, gtol, begin, end, workspace, stop):
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
                prepared = _prepared(problem, SEEDS, table, extents, instance, own_seeds)
                call_evaluate(problem[SEEDS], y, y, table, extents, instance, prepared, scratch, seeds)
            prepared = _prepared(problem, RANKING, table, ranking_extents, instance, own_ranking)
            call_evaluate(problem[RANKING], seeds, seeds, table, ranking_extents, instance, prepared, scratch, ranks)
            best, lowest = 0, math.inf
            for candidate in range(count):
                if -math.inf < ranks[candidate] < lowest:
                    best, lowest = candidate, ranks[candidate]
            for i in range(n):
                y[i] = seeds[best * n + i]
        prepared = _prepared(problem, DERIVATIVES, table, extents, instance, workspace)
        descend(problem[DERIVATIVES], table, extents, instance, prepared, scratch, n, y, memory, gtol,
                problem[MAX_ITERATIONS], reals, integers)
        if count > 0:
            integers[1] += 1
        prepared = _prepared(problem, VALUE, table, extents, instance, own_value)
        energies = double_pointer_at(problem[ENERGIES])
        energies[instance] = call_evaluate(problem[VALUE], y, y, table, extents, instance, prepared, scratch, memory)
    return end


@cache
def minimise_slice() -> Native:
    """The compiled `_minimise_slice`."""
    return native(_minimise_slice, Signature(
        integer, (integer_pointer, double, integer, integer, double_pointer, integer_pointer)))
