"""Minimising with products of the Hessian and vectors alone: memory is linear in the number of unknowns.

The compiled loop is that of newton_cg.py; the products of one step precondition the next (quasi_newton.py). Each
instance that ends with a small gradient is asked for its curvature by lanczos.py; where that is negative, a step along
it leaves the saddle (sparse.py).
"""

from __future__ import annotations

import struct
from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.calls.arrays import address_of
from ..compiler.calls.evaluate import Prepared, run
from ..compiler.calls.slices import run_slices
from .algebra.conjugate_gradients import Remembering
from .algebra.lanczos import lanczos_slice, memory_size
from .newton_cg import GTOL, newton_slice
from .problem import Problem
from .saddles import leave_saddles
from .sparse import FLATTER, forcing_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def minimise_by_products(problem: Problem) -> None:
    """Minimise every instance of a batch, as `problem.Problem` says.

    The curvature is a lower bound of the lowest eigenvalue as in lanczos.py; NaN where that is left open, and for
    instances that are neither CONVERGED nor STALLED.
    """
    if problem.seeds is not None:
        problem.rank(problem.seeds)
    descend_products(problem, np.full(len(problem.y), problem.max_iterations))
    if problem.seeds is not None:
        problem.integers[:, 1] += 1
    problem.energies[:] = run(problem.kernel.entry("value"), problem.inputs, problem.y, count=len(problem.y))[0]


def descend_products(problem: Problem, limits: Integers) -> None:
    """From y to minima, with so many steps for each instance, (B,)."""
    curved, directions = np.zeros(len(problem.y)), np.empty_like(problem.y)

    def descend(rest: Integers, instances: range) -> None:
        _descend(problem, rest, instances)
        find_curvature(
            problem.kernel, problem.inputs, problem.y, problem.reals, problem.integers, curved, directions, instances
        )

    def downwards(instance: int) -> tuple[Floats, float] | None:
        return (directions[instance], -float(curved[instance])) if curved[instance] < 0.0 else None

    descend(limits, range(len(problem.y)))
    leave_saddles(problem, limits, downwards, descend)


def _descend(problem: Problem, limits: Integers, instances: range) -> None:
    """Run the compiled loop for some instances."""
    kernel, inputs = problem.kernel, problem.inputs
    entries = [kernel.entry(kind) for kind in ("value_gradient", "hvp")]
    prepared = [Prepared(entry, inputs) for entry in entries]
    scratch = max(entry.needs(inputs)[1] for entry in entries)
    n, system = inputs.m, Remembering(inputs.m)
    sizes, which = np.abs(problem.y).max(axis=1, initial=0.0), np.arange(instances.start, instances.stop)
    arrays = map(address_of, (problem.y, problem.reals, problem.integers, limits, sizes, which))
    packed = struct.pack(
        f"={GTOL}q3d",
        *(number for p in prepared for number in p.fields),
        *(inputs.table_address, inputs.extents_address, n, n, scratch, system.address),
        *arrays,
        0,
        problem.gtol,
        forcing_of(kernel),
        FLATTER,
    )
    numbers = array("q", packed)
    workspace = sum(p.own for p in prepared) + scratch + 5 * n + system.memory
    key = ("newton-cg", entries[1].evaluate.address, inputs.extents.tobytes())
    run_slices(newton_slice(), numbers.buffer_info()[0], len(instances), key=key, workspace=workspace)
    raise_failures(entries)


def find_curvature(
    kernel: Any,
    inputs: Any,
    y: Floats,
    reals: Floats,
    integers: Integers,
    curved: Floats,
    directions: Floats,
    instances: range,
) -> None:
    """Run lanczos.py for those of some instances that are CONVERGED or STALLED; see `lanczos_slice`."""
    entry = kernel.entry("hvp")
    prepared, scratch, n = Prepared(entry, inputs), entry.needs(inputs)[1], inputs.m
    arrays = (address_of(a) for a in (y, reals, integers, curved, directions))
    fields = *prepared.fields, inputs.table_address, inputs.extents_address, n, scratch, *arrays, instances.start
    numbers = array("q", fields)
    key = ("lanczos", entry.evaluate.address, inputs.extents.tobytes())
    workspace = prepared.own + scratch + memory_size(n)
    run_slices(lanczos_slice(), numbers.buffer_info()[0], len(instances), key=key, workspace=workspace)
    raise_failures([entry])


def raise_failures(entries: list[Any]) -> None:
    """Raise what kernels could not raise through machine code."""
    for entry in entries:
        if entry.failures:
            raise entry.failures.pop()
