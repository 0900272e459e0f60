"""Quadratic energies in one step: E(y) = y'Hy/2 - b'y + c, whose Hessian does not depend on y.

    H positive definite           y* = y - H^-1 grad E(y), by Cholesky's factorisation
    H semi-definite, b in range   y* = H^+ b, of all minimisers the one of least |y|, whatever the start
    H semi-definite, b not        E falls without end along the null space: UNBOUNDED
    H indefinite                  UNBOUNDED

The proofs, and the derivatives that belong to these solutions, are in docs/minimisers.md. The compiler recognises such
energies (`Kernel.quadratic`); the trust region sends them here. A second step is taken only where rounding has left
more of the gradient than gtol, and as long as steps make it smaller.

More than three unknowns are factorised first: where all pivots are firm, H is finite and positive definite, and its
spectrum is not looked at. The curvature is then left NaN, and found when it is asked for (`curvature_slice`).
Instances that have the same Hessian come one after the other, and firm factors serve all of them (systems.py).
Gradients have a kernel of their own.

Of an instance that is UNBOUNDED the point is far along a direction in which E falls, as descend.py leaves it.
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
from ..compiler.machine_code.signature import DoublePointer, IntegerPointer, vectorised
from .algebra import trust_region
from .algebra.block_factors import FIRM
from .algebra.factorisation import factor, newton_step, solve, solving_size, spectrum, squared_pivots
from .algebra.linear_algebra import EPSILON, FLAT, dot, largest, lowest_eigenvector, rotate_back
from .algebra.semidefinite import combine, null_part, project, row_space, solve_in_range
from .algebra.vectors import copy
from .descend import (
    CANDIDATES,
    CANDIDATES_STRIDE,
    COUNT,
    DERIVATIVES,
    ENERGIES,
    EXTENTS,
    GTOL,
    INTEGERS,
    LAYOUT,
    MAX_ITERATIONS,
    RANKING,
    REALS,
    ROUNDING,
    SCRATCH,
    SEEDS,
    TABLE,
    UNKNOWNS,
    VALUE,
    VARIABLES,
)
from .first_evaluation import evaluate_first
from .kept_factors import HEAD
from .statuses import CONVERGED, FAR, ITERATION_LIMIT, STALLED, UNBOUNDED


def _downwards(hessian: DoublePointer, g: DoublePointer, n: int, space: DoublePointer, d: DoublePointer) -> None:
    """d <- minus a direction of lowest curvature that does not go uphill; d has 3n numbers, `space` n*n + 5n."""
    lowest, bound = trust_region.spectrum(hessian, n, space)
    diagonal, off = shifted(space, n * n), shifted(space, n * n + n)
    lowest_eigenvector(diagonal, off, n, lowest, bound, d, shifted(d, n), shifted(d, 2 * n))
    rotate_back(space, n, shifted(space, n * n + 2 * n), d)
    if dot(g, d, n) < 0.0:
        for i in range(n):
            d[i] = -d[i]


@vectorised
def _row_sum(h: DoublePointer, n: int) -> float:
    size = 0.0
    for i in range(n):
        total = 0.0
        for j in range(n):
            total += abs(h[i * n + j])
        size = max(size, total)
    return size


def longest_fall(hessian_size: float, n: int) -> float:
    """So many times the part of the gradient in the null space may be gone down it.

    The energy falls by length |part|^2, and the rounding of the terms of second degree grows as length^2 |part|^2.
    """
    return 1.0 / (64.0 * n * EPSILON * max(hessian_size, 1e-300))


GRADIENT = SEEDS
"""Where in the problem the kernel of value and gradient stands: no driver of this file ranks candidates."""

FACTORS, KEPT, FACTORS_ROOM = CANDIDATES, CANDIDATES_STRIDE, COUNT
"""In the same way: where the factors of the first KEPT Hessians are kept, a row of so many numbers for each."""

ORDER, NUMBER = RANKING, RANKING + 1
"""And what systems.py says: the rows, and which Hessian each has; 0 where each has its own."""

CLOSED = 3
"""So many unknowns have a spectrum in closed form, or nearly."""


def is_firm(layout: IntegerPointer, h: DoublePointer, n: int, u: DoublePointer, pivots: DoublePointer) -> bool:
    """Write U with U'U = H to u; whether all pivots are far above the rounding of what they are left of."""
    if not factor(layout, h, n, u):
        return False
    squared_pivots(layout, u, n, pivots)
    firm = True
    for i in range(n):
        firm = firm and pivots[i] > FIRM * h[i * n + i]
    return firm


def solve_quadratic(
    hessians: int,
    gradient: int,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    prepared_gradient: DoublePointer,
    scratch: DoublePointer,
    n: int,
    layout: IntegerPointer,
    y: DoublePointer,
    memory: DoublePointer,
    gtol: float,
    max_iterations: int,
    reals: DoublePointer,
    integers: IntegerPointer,
    kept: DoublePointer,
    keeps: bool,
    known: bool,
) -> bool:
    """Minimise one instance from y, which becomes the minimiser; `memory` has 3 n*n + 14 n numbers.

    Returns whether firm factors of its Hessian are left in `memory`.

    hessians   the kernel that writes the Hessian
    gradient   the one of the gradient
    layout     the blocks of the Hessian (factorisation.py)
    reals      <- gradient norm; lowest eigenvalue of the Hessian, 0 where its rank is not full, NaN where firm
    integers   <- iterations, evaluations, status
    kept       <- where `keeps`, 1 and the factors, if they are firm (kept_factors.py)
    known      whether firm factors are in `memory` already
    """
    size = n + n * n
    here, there, space = memory, shifted(memory, size), shifted(memory, 2 * size)
    hessian, trial = shifted(here, n), shifted(space, n * n + 5 * n)
    coefficients, part = shifted(trial, n), shifted(trial, 2 * n)
    goes_on, energy, start_size = evaluate_first(
        gradient, table, extents, instance, prepared_gradient, scratch, n, n, y, here, reals, integers
    )
    if not goes_on:
        return known

    gradient_size, hessian_size = largest(here, n), 0.0
    firm = known
    if not known:
        call_evaluate(hessians, y, y, table, extents, instance, prepared, scratch, hessian)
        firm = n > CLOSED and is_firm(layout, hessian, n, space, part)
    lowest, bounded, regular, rank = math.nan, True, True, n
    if not firm:
        if not dot(hessian, hessian, n * n) < math.inf:
            return False
        hessian_size = _row_sum(hessian, n)
        lowest, bound = spectrum(layout, hessian, n, space)
        bounded = lowest >= -FLAT * bound
        regular = lowest > FLAT * bound and newton_step(layout, hessian, here, n, space, part)
    if firm:
        if keeps and not known:
            kept[0] = 1.0
            copy(space, shifted(kept, HEAD), solving_size(layout, n))
    elif not bounded:
        _downwards(hessian, here, n, space, part)
    elif not regular:
        triangle = shifted(there, n)
        rank = row_space(hessian, n, space, triangle, part)
        regular = rank == n and newton_step(layout, hessian, here, n, space, part)
        if not regular:  # from here on, L lies in place of the Hessian
            lowest = 0.0
            for i in range(rank * rank):
                hessian[i] = triangle[i]

    status = iterations = 0
    evaluations = 1
    while True:
        settled, falls = bounded and gradient_size <= gtol, not bounded
        if bounded and not regular:
            null_part(space, rank, n, y, coefficients, part)
            settled = settled and largest(part, n) <= FLAT * largest(y, n)
            null_part(space, rank, n, here, coefficients, part)
            left = largest(part, n)
            falls = left > gtol and left > FLAT * (hessian_size * largest(y, n) + gradient_size)
        if settled:
            status = CONVERGED
            break
        if iterations >= max_iterations:
            status = ITERATION_LIMIT
            break
        if falls:
            length = 2.0 * FAR * (1.0 + start_size) / largest(part, n)
            if bounded:
                length = min(length, longest_fall(hessian_size, n))
            for i in range(n):
                trial[i] = y[i] - length * part[i]
        elif regular:
            if firm:
                for i in range(n):
                    part[i] = -here[i]
                solve(layout, space, n, part)
            elif iterations > 0:
                newton_step(layout, hessian, here, n, space, part)
            for i in range(n):
                trial[i] = y[i] + part[i]
        else:
            solve_in_range(hessian, rank, coefficients)
            project(space, rank, n, y, part)
            for k in range(rank):
                coefficients[k] = part[k] - coefficients[k]
            combine(space, rank, n, coefficients, trial)

        moved = False
        for i in range(n):
            moved = moved or trial[i] != y[i]
        better = False
        if moved:
            trial_energy = call_evaluate(
                gradient, trial, trial, table, extents, instance, prepared_gradient, scratch, there
            )
            evaluations += 1
            iterations += 1
            size_there, change = largest(there, n), trial_energy - energy
            better = trial_energy < math.inf and size_there < math.inf
            if falls:
                better = better and change < 0.0
            else:
                flatter = size_there <= gtol or size_there < 0.9 * gradient_size
                better = better and (flatter or (iterations == 1 and change <= ROUNDING * abs(energy)))
            if better:
                energy, gradient_size = trial_energy, size_there
                for i in range(n):
                    y[i], here[i] = trial[i], there[i]
        if falls or not better:
            status = UNBOUNDED if falls else (CONVERGED if gradient_size <= gtol else STALLED)
            break
    reals[0], reals[1] = gradient_size, lowest
    integers[0], integers[1], integers[2] = iterations, evaluations, status
    return firm


def _quadratic_slice(
    problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer
) -> int:
    """Minimise the instances at the places [begin, end) of ORDER from VARIABLES.

    The problem is that of `descend.minimise_slice`.
    """
    table, extents, n = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS]), problem[UNKNOWNS]
    own_value = shifted(workspace, problem[DERIVATIVES + 3])
    own_gradient = shifted(own_value, problem[VALUE + 3])
    scratch = shifted(own_gradient, problem[GRADIENT + 3])
    memory = shifted(scratch, problem[SCRATCH])
    energies = double_pointer_at(problem[ENERGIES])
    order, number = integer_pointer_at(problem[ORDER]), integer_pointer_at(problem[NUMBER])
    known, last = False, -1
    for place in range(begin, end):
        if stop[0] != 0:
            return place
        instance = system = place
        if problem[ORDER] != 0:
            instance, system = order[place], number[place]
        y = shifted(double_pointer_at(problem[VARIABLES]), instance * n)
        kept = shifted(double_pointer_at(problem[FACTORS]), system * problem[FACTORS_ROOM])
        keeps = system < problem[KEPT]
        known = solve_quadratic(
            problem[DERIVATIVES],
            problem[GRADIENT],
            table,
            extents,
            instance,
            prepared_for(shifted(problem, DERIVATIVES), table, extents, instance, workspace),
            prepared_for(shifted(problem, GRADIENT), table, extents, instance, own_gradient),
            scratch,
            n,
            integer_pointer_at(problem[LAYOUT]),
            y,
            memory,
            doubles(problem)[GTOL],
            problem[MAX_ITERATIONS],
            shifted(double_pointer_at(problem[REALS]), instance * 2),
            shifted(integer_pointer_at(problem[INTEGERS]), instance * 3),
            kept,
            keeps,
            known and system == last,
        )
        last = system
        prepared = prepared_for(shifted(problem, VALUE), table, extents, instance, own_value)
        energies[instance] = call_evaluate(problem[VALUE], y, y, table, extents, instance, prepared, scratch, memory)
    return end


def quadratic_slice() -> Native:
    """The compiled `_quadratic_slice`."""
    return native(_quadratic_slice)


def _curvature_slice(
    problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer
) -> int:
    """The lowest eigenvalue of the Hessians of the instances [begin, end), to REALS; the rest as above."""
    table, extents, n = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS]), problem[UNKNOWNS]
    scratch = shifted(workspace, problem[DERIVATIVES + 3] + problem[VALUE + 3])
    memory = shifted(scratch, problem[SCRATCH])
    for instance in range(begin, end):
        if stop[0] != 0:
            return instance
        y = shifted(double_pointer_at(problem[VARIABLES]), instance * n)
        prepared = prepared_for(shifted(problem, DERIVATIVES), table, extents, instance, workspace)
        call_evaluate(problem[DERIVATIVES], y, y, table, extents, instance, prepared, scratch, memory)
        lowest, _ = spectrum(integer_pointer_at(problem[LAYOUT]), shifted(memory, n), n, shifted(memory, n + n * n))
        shifted(double_pointer_at(problem[REALS]), instance * 2)[1] = lowest
    return end


def curvature_slice() -> Native:
    """The compiled `_curvature_slice`."""
    return native(_curvature_slice)
