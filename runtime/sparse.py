"""Minimising over many unknowns with a sparse Hessian: the compiled loop of newton_cg.py, and what comes after it.

Steps are made by conjugate gradients, or by factors where these are the better way (direct.py).

Each instance that ends with a small gradient is asked for its curvature (curvature.py). Where that is negative, a step
along the lowest curvature leaves the saddle, and the loop goes on from there (saddles.py).
"""

from __future__ import annotations

import struct
from array import array
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.calls.arrays import address_of
from ..compiler.calls.evaluate import Prepared, run
from ..compiler.calls.slices import run_slices
from .algebra.curvature import curvature
from .problem import Problem
from .saddles import downwards, flatten_stalled, hessian_at, leave_saddles
from .statuses import STALLED

if TYPE_CHECKING:
    from .algebra.direct import Stage

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MANY = 200
"""Up to this many unknowns the dense driver is faster, or as fast."""


COUPLED = 1000
"""Over more unknowns that are all coupled, a dense Hessian is multiplied, not factorised, where there is a choice."""


def is_sparse(kernel: Any, inputs: Any) -> bool:
    """Whether these unknowns are minimised over by the methods for many of them with a sparse Hessian."""
    return bool(inputs.m > MANY and kernel.structure != "dense")


def is_coupled(kernel: Any, inputs: Any) -> bool:
    """Whether so many unknowns are all coupled that only products with their Hessian are used, where possible."""
    return bool(inputs.m > COUPLED and kernel.structure == "dense")


def minimise_sparse(problem: Problem) -> None:
    """Minimise every instance of a batch, as `problem.Problem` says.

    The curvature is a lower bound of the lowest eigenvalue, NaN for instances that are neither CONVERGED nor STALLED.
    """
    if problem.seeds is not None:
        problem.rank(problem.seeds)
    descend_sparse(problem, np.full(len(problem.y), problem.max_iterations))
    problem.energies[:] = run(problem.kernel.entry("value"), problem.inputs, problem.y, count=len(problem.y))[0]


def descend_sparse(problem: Problem, limits: Integers) -> None:
    """From y to minima, with so many steps for each instance, (B,)."""
    kernel, inputs, y, reals, integers = problem.kernel, problem.inputs, problem.y, problem.reals, problem.integers

    def descend(rest: Integers, some: range) -> None:
        forcing = forcing_of(kernel)
        descend_by_slots(problem, rest, some, matrix=HESSIAN, gtol=problem.gtol, forcing=forcing, flattening=FLATTER)
        for instance in some:
            if integers[instance, 2] == STALLED and not reals[instance, 1] > 0.0:
                flatten_stalled(problem, rest, instance)

    descend(limits, range(len(y)))
    leave_saddles(problem, limits, partial(downwards, problem, limits), descend)
    for instance in np.flatnonzero((integers[:, 2] == STALLED) & np.isnan(reals[:, 1])):
        reals[instance, 1] = curvature(hessian_at(kernel, inputs, y, int(instance))).lowest


# ---------------------------------------------------------------------------------------------- descending


def forcing_of(kernel: Any) -> float:
    """The residual of a step at most, as a part of the gradient; quadratic energies are solved in one."""
    return 0.0 if kernel.quadratic else 0.1


FLATTER = 0.9
"""What a step must leave of the gradient at most, where rounding hides the decrease of the energy."""

HESSIAN = "hessian", "value_gradient_sparse_hessian", "sparse_hvp"
"""A pattern, what writes the numbers that belong to it, and what multiplies them."""


def descend_by_slots(
    problem: Problem,
    limits: Integers,
    instances: range,
    *,
    matrix: tuple[str, str, str],
    gtol: float,
    forcing: float,
    flattening: float,
) -> None:
    """Run the compiled loop with a sparse matrix for some instances, those of one pattern together, stage after stage.

    Stages are in direct.py. The last two arguments are those of `newton_cg.descend_by_products`.
    """
    from .algebra.direct import stages_of  # here: most energies have few unknowns
    from .newton_cg import SLOW

    integers, factorised = problem.integers, problem.factorised
    sizes = np.abs(problem.y).max(axis=1, initial=0.0)
    for pattern, some in problem.kernel.patterns(matrix[0], problem.inputs, instances):
        stages, which, rest, k = stages_of(pattern), np.arange(some.start, some.stop), limits, 0
        while len(which):
            before = integers[which, :2] if k > 0 else 0
            stage = stages[k]
            _run_stage(problem, stage, which, rest, sizes, matrix[1:], (gtol, forcing, flattening))
            integers[which, :2] += before
            factorised[which] = stage.is_factored
            which, k, rest = which[integers[which, 2] == SLOW], k + 1, limits - integers[:, 0]


def _run_stage(
    problem: Problem,
    stage: Stage,
    which: Integers,
    limits: Integers,
    sizes: Floats,
    kinds: tuple[str, str],
    settings: tuple[float, float, float],
) -> None:
    from .newton_cg import GTOL, newton_slice

    kernel, inputs, system = problem.kernel, problem.inputs, stage.system
    entries = [kernel.entry(kind) for kind in kinds]
    prepared = [Prepared(entry, inputs) for entry in entries]
    n, size, own = inputs.m, entries[0].needs(inputs)[2], sum(p.own for p in prepared)
    scratch = max(entry.needs(inputs)[1] for entry in entries)
    kernels = [number for p in prepared for number in p.fields]
    fixed = (inputs.table_address, inputs.extents_address, n, size, scratch, system.address)
    arrays = map(address_of, (problem.y, problem.reals, problem.integers, limits, sizes, which))
    packed = struct.pack(f"={GTOL}q3d", *kernels, *fixed, *arrays, stage.patience, *settings)
    numbers = array("q", packed)
    key = ("newton-cg", entries[0].evaluate.address, inputs.extents.tobytes(), stage.is_factored)
    workspace = own + scratch + 2 * size + 3 * n + system.memory
    run_slices(newton_slice(), numbers.buffer_info()[0], len(which), key=key, workspace=workspace)
    for entry in entries:
        if entry.failures:
            raise entry.failures.pop()
