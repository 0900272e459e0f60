"""Iteratively reweighted least squares over a slice of a batch, compiled once for all energies.

    y <- y - A(y)^-1 grad E(y),      A(y) the Hessian of the least squares problem with the weights of y

which is the minimum of that problem (compiler/passes/irls.py): one factorisation for each reweighting. Where rho is
concave in the squared residual, the problem lies above the energy and touches it at y, so that the energy never rises;
a step that raises it beyond rounding all the same is shortened to a quarter until it does not.

Where A is singular to working precision, or indefinite, a part `shift` of its diagonal is added to it, from 1e-8 on,
100 times more until it is positive definite. The problem then still lies above the energy, the minima are the same, and
what A does not see stays where it is.

The number of reweightings is fixed, or they end where the gradient is within gtol and the Hessian of E has no negative
eigenvalue. Where all of its pivots are firm its spectrum is not looked at; the curvature is left NaN (curvatures.py).
Far from all data the gradient of a redescending rho is nothing, and reweighting still finds the way; from a point where
it is 0 no reweighting leads away, a saddle or not.

Where an energy holds parts of itself (`wb.held`), the first system has no point before it: it is solved in one step
from wherever the instance starts, is not counted, and every step from there is taken whole, since no energy falls.
"""

from __future__ import annotations

import math
import struct
from array import array

from ..compiler.calls.arrays import address_of
from ..compiler.calls.evaluate import Prepared
from ..compiler.calls.slices import run_slices
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
from .algebra.blocks import layout_of
from .algebra.bordered import COUNT
from .algebra.factorisation import factor, solve, solving_size, spectrum, squared_pivots
from .algebra.linear_algebra import EPSILON, FLAT, dot, largest
from .algebra.vectors import copy
from .descend import DOUBTFUL, HOPELESS, ROUNDING, take_step
from .first_evaluation import evaluate_first
from .kept_factors import HEAD, factors_room, kept_fields, padded, record_room, room_for
from .problem import Problem
from .sparse import is_sparse
from .statuses import ABYSS, CONVERGED, FAR, ITERATION_LIMIT, SADDLE, STALLED, UNBOUNDED
from .systems import shared_systems

FIRST_SHIFT, SHIFTS = 1e-8, 12
"""Parts of the diagonal that are added to a matrix that is not positive definite, 100 times more each time."""

SMALL = 1e-6
"""Where the energy is at its rounding, steps this small beside y show that it is no plateau on the way to a minimum."""


# ---------------------------------------------------------------------------------------------- one reweighting


def space_for(n: int) -> int:
    """How many numbers `reweight` needs besides the kernel's outputs at two points."""
    return n * n + 3 * n


@vectorised
def is_definite(layout: IntegerPointer, a: DoublePointer, n: int, u: DoublePointer, pivots: DoublePointer) -> bool:
    """U'U = A; False where A is not positive definite, or singular but for rounding."""
    if not factor(layout, a, n, u):
        return False
    squared_pivots(layout, u, n, pivots)
    definite = True
    for i in range(n):
        definite = definite and pivots[i] > 16.0 * n * EPSILON * a[i * n + i]
    return definite


def factorise(layout: IntegerPointer, a: DoublePointer, n: int, u: DoublePointer, added: DoublePointer) -> bool:
    """U'U = A + diag(added), nothing added where A is positive definite; False where the most is too little.

    U is that of factorisation.py, `added` is used for pivots, too.
    """
    definite = is_definite(layout, a, n, u, added)
    for i in range(n):
        added[i] = 0.0
    if definite:
        return True
    most = 0.0
    for i in range(n):
        most = max(most, abs(a[i * n + i]))
    if most == 0.0:
        most = 1.0
    shift = FIRST_SHIFT
    for _ in range(SHIFTS):
        for i in range(n):
            size = abs(a[i * n + i])
            added[i] = shift * (size if size > 0.0 else most)
            a[i * n + i] += added[i]
        definite = factor(layout, a, n, u)
        for i in range(n):
            a[i * n + i] -= added[i]
        if definite:
            return True
        shift *= 100.0
    return False


def solve_reweighted(
    layout: IntegerPointer, here: DoublePointer, n: int, space: DoublePointer, step: DoublePointer
) -> bool:
    """step <- -(A + diag(added))^-1 g for g and A at `here`; U goes to space and `added` behind it."""
    if not factorise(layout, shifted(here, n), n, space, shifted(space, n * n)):
        return False
    for i in range(n):
        step[i] = -here[i]
    solve(layout, space, n, step)
    return True


def reweight(
    evaluate: int,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    scratch: DoublePointer,
    n: int,
    layout: IntegerPointer,
    y: DoublePointer,
    energy: float,
    here: DoublePointer,
    there: DoublePointer,
    space: DoublePointer,
) -> tuple[float, float, int]:
    """One reweighting from y, where the kernel gave `energy` and `here`: y <- y + scale*step, `there` as the kernel.

    Returns the energy there, the scale (1, less where the step was shortened, 0 where y stays) and the number of calls.
    `space` keeps U, what was added to the diagonal, the step, and n numbers more.
    """
    step, trial = shifted(space, n * n + n), shifted(space, n * n + 2 * n)
    if not solve_reweighted(layout, here, n, space, step):
        return energy, 0.0, 0
    scale = 1.0
    for tried in range(1, HOPELESS + 1):
        if not take_step(y, step, n, trial) and tried > 1:
            return energy, 0.0, tried - 1
        trial_energy = call_evaluate(evaluate, trial, trial, table, extents, instance, prepared, scratch, there)
        finite = trial_energy < math.inf and dot(there, there, n + n * n) < math.inf
        if trial_energy < ABYSS or (finite and trial_energy - energy <= ROUNDING * abs(energy)):
            for i in range(n):
                y[i] = trial[i]
            return trial_energy, scale, tried
        scale *= 0.25
        for i in range(n):
            step[i] *= 0.25
    return energy, 0.0, HOPELESS


def step_whole(
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
    space: DoublePointer,
) -> tuple[float, float, int]:
    """The same where parts are held: no energy is compared, so that `here` is overwritten.

    What is not finite in the Hessian makes the next step impossible, or not finite.
    """
    step = shifted(space, n * n + n)
    if not solve_reweighted(layout, here, n, space, step):
        return math.nan, 0.0, 0
    for i in range(n):
        y[i] += step[i]
    energy = call_evaluate(evaluate, y, y, table, extents, instance, prepared, scratch, here)
    if not (energy < math.inf and dot(here, here, n) < math.inf):
        for i in range(n):
            y[i] -= step[i]
        return math.nan, 0.0, 1
    return energy, 1.0, 1


# ---------------------------------------------------------------------------------------------- one instance


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
    least: int,
    limit: int,
    held: bool,
    gradient: int,
    prepared_gradient: DoublePointer,
    reals: DoublePointer,
    integers: IntegerPointer,
    kept: DoublePointer,
    records: int,
    room: int,
) -> bool:
    """Reweight from y, which becomes the last point: `least` times, then until the gradient is small, or `limit` times.

    reals <- gradient norm, NaN;  integers <- iterations, evaluations, status: CONVERGED where the gradient is within
    gtol, whatever the curvature. Returns whether the curvature is to be looked at. `memory` has 3 n*n + 5 n numbers.
    Where `room` is not 0, kept[0] <- 1 + iterations if all steps were whole, and from kept[records] on `room` numbers
    for each are what kept_factors.py says.
    """
    size = n + n * n
    here, there, space = memory, shifted(memory, size), shifted(memory, 2 * size)
    goes_on, energy, start_size = evaluate_first(
        evaluate, table, extents, instance, prepared, scratch, n, n if held else size, y, here, reals, integers
    )
    if not goes_on:
        return False
    status, iterations, evaluations, doubtful = ITERATION_LIMIT, 0, 1, 0
    gradient_size = largest(here, n)
    flattest, whole, wide = gradient_size, True, padded(n)
    while iterations < least or (iterations < limit and gradient_size > gtol):
        before = energy
        record = shifted(kept, records + iterations * room)
        if room > 0:
            copy(y, record, n)
        if held:
            last = iterations + 1 == limit
            energy, scale, calls = step_whole(
                gradient if last else evaluate,
                table,
                extents,
                instance,
                prepared_gradient if last else prepared,
                scratch,
                n,
                layout,
                y,
                here,
                space,
            )
        else:
            energy, scale, calls = reweight(
                evaluate, table, extents, instance, prepared, scratch, n, layout, y, before, here, there, space
            )
        evaluations += calls
        if scale == 0.0:
            status = STALLED
            break
        if room > 0:
            whole = whole and scale == 1.0
            copy(shifted(space, n * n), shifted(record, wide), n)
            copy(space, shifted(record, 2 * wide), solving_size(layout, n))
        iterations += 1
        if not held:
            here, there = there, here
        gradient_size = largest(here, n)
        if energy < ABYSS or largest(y, n) > FAR * (1.0 + start_size):
            status = UNBOUNDED
            break
        if gradient_size < flattest or before - energy > ROUNDING * abs(energy):
            flattest, doubtful = gradient_size, 0
        elif largest(shifted(space, n * n + n), n) <= SMALL * max(start_size, largest(y, n)):
            doubtful += 1
            if doubtful >= DOUBTFUL and iterations >= least:
                status = STALLED
                break
    if gradient_size <= gtol and status != UNBOUNDED:
        status = CONVERGED
    if room > 0 and whole:
        kept[0] = 1.0 + iterations
    reals[0] = gradient_size
    integers[0], integers[1], integers[2] = iterations, evaluations, status
    return status != ITERATION_LIMIT and status != UNBOUNDED


def factor_first(
    hessian: int,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    scratch: DoublePointer,
    n: int,
    layout: IntegerPointer,
    y: DoublePointer,
    factors: DoublePointer,
    memory: DoublePointer,
) -> bool:
    """Factors of the first system (`FIRST_ROOM` numbers), of which the kernel gives the Hessian; False: there are none.

    `memory` has n*n numbers.
    """
    call_evaluate(hessian, y, y, table, extents, instance, prepared, scratch, memory)
    return factorise(layout, memory, n, factors, shifted(factors, n * n))


def solve_first(
    gradient: int,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    scratch: DoublePointer,
    n: int,
    layout: IntegerPointer,
    y: DoublePointer,
    factors: DoublePointer,
    memory: DoublePointer,
) -> bool:
    """y <- the minimiser of the first system, of which there are factors; False where the gradient is not finite.

    `memory` has 2 n numbers.
    """
    step = shifted(memory, n)
    energy = call_evaluate(gradient, y, y, table, extents, instance, prepared, scratch, memory)
    if not (energy < math.inf and dot(memory, memory, n) < math.inf):
        return False
    for i in range(n):
        step[i] = -memory[i]
    solve(layout, factors, n, step)
    for i in range(n):
        y[i] += step[i]
    return True


# ---------------------------------------------------------------------------------------------- the slice

# What the driver reads from its problem; GTOL is a float64. Six kernels come first, each as (address of evaluate, of
# prepare, of shared prepared numbers or 0, how many an instance needs of its own); the last three are 0 where nothing
# is held: two of the first system, and the gradient. ORDER and NUMBER say which instances share the first system, and
# are 0 where none do (systems.py).
REWEIGHTED, DERIVATIVES, VALUE, FIRST, FIRST_GRADIENT, GRADIENT = 0, 4, 8, 12, 16, 20
TABLE, EXTENTS, UNKNOWNS, SCRATCH = 24, 25, 26, 27
VARIABLES, ENERGIES, REALS, INTEGERS, LEAST, LIMIT, LAYOUT, BEGAN = 28, 29, 30, 31, 32, 33, 34, 35
FACTORS, KEPT, FACTORS_ROOM, ORDER, NUMBER, GTOL = 36, 37, 38, 39, 40, 41


def first_room(n: int) -> int:
    """Numbers for the factors of the first system while they are used: they are solved with in place."""
    return n * n + 5 * n


def _irls_slice(problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer) -> int:
    """Minimise the instances [begin, end); returns where it ended, before `end` if the stop flag was raised."""
    table, extents, n = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS]), problem[UNKNOWNS]
    own_derivatives = shifted(workspace, problem[REWEIGHTED + 3])
    own_value = shifted(own_derivatives, problem[DERIVATIVES + 3])
    own_first = shifted(own_value, problem[VALUE + 3])
    own_first_gradient = shifted(own_first, problem[FIRST + 3])
    own_gradient = shifted(own_first_gradient, problem[FIRST_GRADIENT + 3])
    scratch = shifted(own_gradient, problem[GRADIENT + 3])
    factors = shifted(scratch, problem[SCRATCH])
    memory = shifted(factors, first_room(n) if problem[FIRST] != 0 else 0)
    held = problem[FIRST] != 0
    energies, gtol = double_pointer_at(problem[ENERGIES]), doubles(problem)[GTOL]
    layout = integer_pointer_at(problem[LAYOUT])
    order, number = integer_pointer_at(problem[ORDER]), integer_pointer_at(problem[NUMBER])
    solvable, last = False, -1
    for place in range(begin, end):
        if stop[0] != 0:
            return place
        instance = system = place
        if problem[ORDER] != 0:
            instance, system = order[place], number[place]
        y = shifted(double_pointer_at(problem[VARIABLES]), instance * n)
        reals = shifted(double_pointer_at(problem[REALS]), instance * 2)
        integers = shifted(integer_pointer_at(problem[INTEGERS]), instance * 3)
        kept = shifted(double_pointer_at(problem[FACTORS]), instance * problem[FACTORS_ROOM])
        records, room = HEAD, record_room(layout, n) if instance < problem[KEPT] else 0
        if held:
            if system != last:
                prepared = prepared_for(shifted(problem, FIRST), table, extents, instance, own_first)
                solvable = factor_first(
                    problem[FIRST], table, extents, instance, prepared, scratch, n, layout, y, factors, memory
                )
                last = system
            prepared = prepared_for(shifted(problem, FIRST_GRADIENT), table, extents, instance, own_first_gradient)
            solved = solvable and solve_first(
                problem[FIRST_GRADIENT], table, extents, instance, prepared, scratch, n, layout, y, factors, memory
            )
            if not solved:
                room = 0
            if problem[ORDER] == 0:
                if room > 0:
                    copy(factors, shifted(kept, HEAD), solving_size(layout, n))
                records += factors_room(layout, n)
            began = shifted(double_pointer_at(problem[BEGAN]), instance * n)
            for i in range(n):
                began[i] = y[i]
        prepared_gradient = own_gradient
        if held:
            prepared_gradient = prepared_for(shifted(problem, GRADIENT), table, extents, instance, own_gradient)
        prepared = prepared_for(shifted(problem, REWEIGHTED), table, extents, instance, workspace)
        least, made, calls, flatness = problem[LEAST], 0, 0, -1.0
        while True:
            settled = descend(
                problem[REWEIGHTED],
                table,
                extents,
                instance,
                prepared,
                scratch,
                n,
                layout,
                y,
                memory,
                gtol,
                least,
                problem[LIMIT] - made,
                held,
                problem[GRADIENT],
                prepared_gradient,
                reals,
                integers,
                kept,
                records,
                room if made == 0 else 0,
            )
            made += integers[0]
            calls += integers[1]
            if not settled:
                break
            second = prepared_for(shifted(problem, DERIVATIVES), table, extents, instance, own_derivatives)
            call_evaluate(problem[DERIVATIVES], y, y, table, extents, instance, second, scratch, memory)
            calls += 1
            if not dot(memory, memory, n + n * n) < math.inf:
                integers[2] = STALLED
                break
            firm = is_definite(
                layout, shifted(memory, n), n, shifted(memory, n + n * n), shifted(memory, n + 2 * n * n)
            )
            if firm:  # the curvature is left NaN, until it is asked for
                break
            reals[1], bound = spectrum(layout, shifted(memory, n), n, shifted(memory, n + n * n))
            if integers[2] != CONVERGED or reals[1] >= -FLAT * bound:
                break
            integers[2] = SADDLE
            if made >= problem[LIMIT] or reals[0] == flatness:
                break
            least, flatness = 1, reals[0]
        integers[0], integers[1] = made, calls
        prepared = prepared_for(shifted(problem, VALUE), table, extents, instance, own_value)
        energies[instance] = call_evaluate(problem[VALUE], y, y, table, extents, instance, prepared, scratch, memory)
    return end


def irls_slice() -> Native:
    """The compiled `_irls_slice`."""
    return native(_irls_slice)


def minimise_irls(problem: Problem) -> None:
    """Minimise every instance of a batch, as `problem.Problem` says; keeps where each began in `problem.began`.

    Where parts are held, that is the minimiser of the first system.
    """
    kernel, inputs, y = problem.kernel, problem.inputs, problem.y
    if is_sparse(kernel, inputs) and not kernel.holds:
        from .sparse_irls import minimise_sparse_irls  # here: most energies have few unknowns

        minimise_sparse_irls(problem)
        return
    kinds = ["value_gradient_reweighted", "value_gradient_hessian", "value"]
    systems = None
    if kernel.holds:
        kinds += ["hessian_first", "value_gradient_first", "value_gradient"]
        systems = shared_systems(kernel, kernel.entry("hessian_first"), inputs, len(y))
    entries = [kernel.entry(kind) for kind in kinds]
    kernel.refuse_too_large(inputs)
    if problem.seeds is not None:
        problem.rank(problem.seeds)
    problem.began = y.copy()
    prepared = [Prepared(entry, inputs) for entry in entries]
    scratch, layout = max(entry.needs(inputs)[1] for entry in entries), layout_of(kernel, inputs)
    least, limit = 0, problem.max_iterations
    if problem.reweightings is not None:
        least = limit = problem.reweightings
        if problem.keeps and layout[COUNT] != 0:
            first = factors_room(layout, inputs.m) if kernel.holds and systems is None else 0
            problem.factors = room_for(len(y), HEAD + first + limit * record_room(layout, inputs.m))
    kept, kept_rows, kept_room = kept_fields(problem.factors)
    packed = struct.pack(
        f"={GTOL}qd",
        *(number for p in prepared for number in p.fields),
        *((0,) * (TABLE - 4 * len(prepared))),
        inputs.table_address,
        inputs.extents_address,
        inputs.m,
        scratch,
        address_of(y),
        address_of(problem.energies),
        address_of(problem.reals),
        address_of(problem.integers),
        least,
        limit,
        address_of(layout),
        address_of(problem.began),
        0 if kept is None else address_of(kept),
        kept_rows,
        kept_room,
        *((0, 0) if systems is None else systems.fields),
        problem.gtol,
    )
    numbers = array("q", packed)
    n = inputs.m
    workspace = sum(p.own for p in prepared) + scratch + 2 * (n + n * n) + max(space_for(n), n * n + 5 * n)
    workspace += first_room(n) if kernel.holds else 0
    key = ("irls", entries[0].evaluate.address, inputs.extents.tobytes())
    run_slices(irls_slice(), numbers.buffer_info()[0], len(y), key=key, workspace=workspace)
    if problem.seeds is not None and problem.seeds.number > 1:
        problem.integers[:, 1] += 1
    for entry in entries:
        if entry.failures:
            raise entry.failures.pop()
