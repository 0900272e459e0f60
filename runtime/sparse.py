"""Minimising over many unknowns with a sparse Hessian: the compiled loop of newton_cg.py, and what comes after it.

Each instance that ends with a small gradient is asked for its curvature (curvature.py). Where that is negative, a step
along the lowest curvature leaves the saddle, and the loop goes on from there.
"""

from __future__ import annotations

import math
import struct
from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.arrays import address_of
from ..compiler.evaluate import Prepared, run
from ..compiler.slices import run_slices
from .curvature import curvature
from .descend import CONVERGED, HOPELESS, ITERATION_LIMIT, ROUNDING, SADDLE, STALLED
from .problem import Problem

Floats = NDArray[np.float64]

MANY = 200
"""Up to this many unknowns the dense driver is faster, or as fast."""


def is_sparse(kernel: Any, inputs: Any) -> bool:
    """Whether these unknowns are minimised over by the methods for many of them.

    Raises
    ------
    InputError
        If they are all coupled and a dense Hessian would be too large.
    """
    if inputs.m <= MANY:
        return False
    if kernel.structure == "dense":
        kernel.refuse_too_large(inputs)
        return False
    return True


def minimise_sparse(problem: Problem) -> None:
    """Minimise every instance of a batch, as `problem.Problem` says.

    The curvature is a lower bound of the lowest eigenvalue, NaN for instances that are neither CONVERGED nor STALLED.
    """
    if problem.seeds is not None:
        problem.rank(problem.seeds)
    kernel, inputs, y, reals, integers = problem.kernel, problem.inputs, problem.y, problem.reals, problem.integers
    _descend(problem, problem.max_iterations, range(len(y)))
    for instance in np.flatnonzero(integers[:, 2] == CONVERGED):
        while _escaped(problem, int(instance)):
            before = integers[instance, :2].copy()
            _descend(problem, problem.max_iterations - int(before[0]), range(instance, instance + 1))
            integers[instance, :2] += before
    for instance in np.flatnonzero(integers[:, 2] == STALLED):
        reals[instance, 1] = curvature(_hessian(kernel, inputs, y, int(instance))).lowest
    problem.energies[:] = run(kernel.entry("value"), inputs, y, count=len(y))[0]


# ---------------------------------------------------------------------------------------------- descending


def _descend(problem: Problem, limit: int, instances: range) -> None:
    """Run the compiled loop for some instances; those of one pattern together."""
    from .conjugate_gradients import system_of  # here: most energies have few unknowns
    from .newton_cg import GTOL, newton_slice

    kernel, inputs = problem.kernel, problem.inputs
    entries = [kernel.entry(kind) for kind in ("value_gradient_sparse_hessian", "sparse_hvp")]
    prepared = [Prepared(entry, inputs) for entry in entries]
    n, size, own = inputs.m, entries[0].needs(inputs)[2], sum(p.own for p in prepared)
    scratch = max(entry.needs(inputs)[1] for entry in entries)
    kernels = [number for p in prepared for number in p.fields]
    outputs = address_of(problem.y), address_of(problem.reals), address_of(problem.integers)
    for pattern, some in kernel.patterns("hessian", inputs, instances):
        system = system_of(pattern)
        fixed = (inputs.table_address, inputs.extents_address, n, size, scratch, system.address)
        packed = struct.pack(f"={GTOL}qd", *kernels, *fixed, *outputs, limit, some[0], problem.gtol)
        numbers = array("q", packed)
        key = ("newton-cg", entries[0].evaluate.address, inputs.extents.tobytes())
        workspace = own + scratch + 2 * size + 3 * n + system.memory
        run_slices(newton_slice(), numbers.buffer_info()[0], len(some), key=key, workspace=workspace)
    for entry in entries:
        if entry.failures:
            raise entry.failures.pop()


# ---------------------------------------------------------------------------------------------- curvature, saddles


def _hessian(kernel: Any, inputs: Any, y: Floats, instance: int) -> Any:
    pattern, slots = kernel.hessian_slots(inputs, y[instance], instance)
    return pattern.matrix(pattern.fill(slots))


def _escaped(problem: Problem, instance: int) -> bool:
    """Whether a CONVERGED instance of unknown curvature was a saddle, and y has left it for a lower energy.

    Writes the curvature, ITERATION_LIMIT where no step was left, and SADDLE where no step down was found.
    """
    kernel, inputs, y, reals, integers = problem.kernel, problem.inputs, problem.y, problem.reals, problem.integers
    if integers[instance, 2] != CONVERGED or not math.isnan(reals[instance, 1]):
        return False
    matrix = _hessian(kernel, inputs, y, instance)
    found = curvature(matrix)
    reals[instance, 1] = found.lowest
    if found.downwards is None:
        return False
    if integers[instance, 0] >= problem.max_iterations:
        integers[instance, 2] = ITERATION_LIMIT
        return False
    integers[instance, 0] += 1
    energy = kernel.value_at(inputs, y[instance], instance)
    curved = -float(found.downwards @ (matrix @ found.downwards))
    length = max(1e-3 * (np.abs(y[instance]).max() or 1.0), math.sqrt(200.0 * ROUNDING * abs(energy) / curved))
    for _ in range(HOPELESS):
        for sign in (1.0, -1.0):
            trial = y[instance] + sign * length * found.downwards
            integers[instance, 1] += 1
            if kernel.value_at(inputs, trial, instance) < energy - 1e-4 * curved * length**2:
                y[instance] = trial
                return True
        length /= 4.0
    integers[instance, 2] = SADDLE
    return False
