"""Minimising quadratic energies, which the compiler has found: every instance in one step.

Dense Hessians: minimum_norm.py. Sparse ones over many unknowns: one solve by conjugate gradients or factors, and
of what ends at a Hessian that is not shown to be positive definite the part in its range (range_space.py): the
minimiser of least |y|.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..compiler.calls.arrays import address_of
from ..compiler.calls.evaluate import run_one
from .algebra.blocks import layout_of
from .algebra.bordered import COUNT
from .algebra.linear_algebra import FLAT
from .algebra.range_space import range_parts
from .driver import run_driver
from .kept_factors import HEAD, factors_room, room_for
from .minimum_norm import CLOSED, FACTORS, FACTORS_ROOM, KEPT, NUMBER, ORDER, longest_fall, quadratic_slice
from .problem import Problem
from .sparse import minimise_sparse
from .statuses import CONVERGED, FAR, ITERATION_LIMIT, STALLED, UNBOUNDED
from .systems import shared_systems

EXACT = ("trust-region", "l-bfgs")
"""The methods that come here."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def minimise_quadratic(problem: Problem) -> None:
    """Minimise every instance of a batch with a dense Hessian, as `problem.Problem` says."""
    seeds, problem.seeds = problem.seeds, None
    if seeds is not None:
        problem.rank(seeds)
    kernel, inputs, rows = problem.kernel, problem.inputs, len(problem.y)
    layout, systems = layout_of(kernel, inputs), None
    if inputs.m > CLOSED:
        systems = shared_systems(kernel, kernel.entry("hessian"), inputs, rows)
    if problem.keeps and layout[COUNT] != 0:
        count = rows if systems is None else systems.count
        problem.factors = room_for(count, HEAD + factors_room(layout, inputs.m))
    more: dict[int, int] = {}
    if systems is not None:
        more[ORDER], more[NUMBER] = systems.fields
    if problem.factors is not None:
        more[FACTORS], more[KEPT], more[FACTORS_ROOM] = address_of(problem.factors), *problem.factors.shape
    run_driver(problem, quadratic_slice(), "hessian", "value_gradient", more)
    problem.seeds = seeds
    if seeds is not None and seeds.number > 1:
        problem.integers[:, 1] += 1


def minimise_sparse_quadratic(problem: Problem) -> None:
    """Minimise every instance of a batch with a sparse Hessian.

    The curvature is 0 of instances that are moved to the minimiser of least |y|.
    """
    seeds, problem.seeds = problem.seeds, None
    if seeds is not None:
        problem.rank(seeds)
    starts = problem.y.copy()
    minimise_sparse(problem)
    problem.seeds = seeds
    status, curvature = problem.integers[:, 2], problem.reals[:, 1]
    if (curvature > 0.0).all() and (status == CONVERGED).all():
        return
    ended = (status == CONVERGED) | (status == STALLED)
    _shorten(problem, np.flatnonzero(ended & (curvature <= 0.0)))
    if problem.max_iterations > 0:
        _find_falls(problem, starts, np.flatnonzero((status == ITERATION_LIMIT) | (status == STALLED)))


def _evaluated(problem: Problem, y: Floats, instance: int) -> tuple[float, Floats]:
    """The energy and its gradient."""
    entry = problem.kernel.entry("value_gradient_sparse_hessian")
    energy, out = run_one(entry, problem.inputs, y, instance)
    return energy, out[: problem.inputs.m]


def _shorten(problem: Problem, some: Integers) -> None:
    """Move minimisers into the range of their Hessians."""
    if not len(some):
        return
    y, reals = problem.y, problem.reals
    parts = range_parts(problem.kernel, problem.inputs, y, some, y[some])
    for instance, part in zip(map(int, some), parts, strict=True):
        norm = float(np.abs(_evaluated(problem, part, instance)[1]).max())
        problem.integers[instance, 1] += 1
        if norm <= max(problem.gtol, 2.0 * reals[instance, 0]):
            y[instance], reals[instance] = part, (norm, 0.0)
            problem.energies[instance] = problem.kernel.value_at(problem.inputs, part, instance)


def _find_falls(problem: Problem, starts: Floats, some: Integers) -> None:
    """Of what has not converged, mark as UNBOUNDED what falls without end along the null space, and go far that way."""
    if not len(some):
        return
    kernel, inputs, reals, integers = problem.kernel, problem.inputs, problem.reals, problem.integers
    gradients = np.array([_evaluated(problem, starts[k], int(k))[1] for k in some]).reshape(len(some), inputs.m)
    down = range_parts(kernel, inputs, starts, some, gradients) - gradients
    for instance, gradient, way in zip(map(int, some), gradients, down, strict=True):
        pattern, slots = kernel.hessian_slots(inputs, starts[instance], instance)
        size = float(abs(pattern.matrix(pattern.fill(slots))).sum(axis=0).max())
        left, start = float(np.abs(way).max()), float(np.abs(starts[instance]).max())
        if not left > max(problem.gtol, FLAT * (size * start + float(np.abs(gradient).max()))):
            continue
        length = min(2.0 * FAR * (1.0 + start) / left, longest_fall(size, inputs.m))
        far = starts[instance] + length * way
        energy, there = _evaluated(problem, far, instance)
        integers[instance] = 1, 2, UNBOUNDED
        if energy < problem.energies[instance]:
            problem.y[instance], reals[instance, 0] = far, float(np.abs(there).max())
            problem.energies[instance] = kernel.value_at(inputs, far, instance)
