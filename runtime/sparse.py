"""Minimising over many unknowns with a sparse Hessian: the compiled loop of newton_cg.py, and what comes after it.

Steps are made by conjugate gradients, or by factors where these are the better way (direct.py).

Each instance that ends with a small gradient is asked for its curvature (curvature.py). Where that is negative, a step
along the lowest curvature leaves the saddle, and the loop goes on from there.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.arrays import address_of
from ..compiler.evaluate import Prepared, run
from ..compiler.slices import run_slices
from .algebra.curvature import curvature
from .descend import HOPELESS, NO_SCALE, ROUNDING
from .problem import Problem
from .statuses import ABYSS, CONVERGED, ITERATION_LIMIT, SADDLE, STALLED

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

    def downwards(instance: int) -> tuple[Floats, float] | None:
        if integers[instance, 2] != CONVERGED or not math.isnan(reals[instance, 1]):
            return None
        matrix = hessian_at(kernel, inputs, y, instance)
        found = curvature(matrix)
        reals[instance, 1] = found.lowest
        if found.downwards is None:
            return None
        return found.downwards, -float(found.downwards @ (matrix @ found.downwards))

    def descend(rest: Integers, some: range) -> None:
        forcing = forcing_of(kernel)
        descend_by_slots(problem, rest, some, matrix=HESSIAN, gtol=problem.gtol, forcing=forcing, flattening=FLATTER)

    descend(limits, range(len(y)))
    leave_saddles(problem, limits, downwards, descend)
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


# ---------------------------------------------------------------------------------------------- curvature, saddles


def hessian_at(kernel: Any, inputs: Any, y: Floats, instance: int) -> Any:
    """The sparse Hessian of one instance as a CSR array."""
    pattern, slots = kernel.hessian_slots(inputs, y[instance], instance)
    return pattern.matrix(pattern.fill(slots))


def leave_saddles(
    problem: Problem,
    limits: Integers,
    downwards: Callable[[int], tuple[Floats, float] | None],
    descend: Callable[[Integers, range], None],
) -> None:
    """Step down from the CONVERGED instances that are saddles, descend again, and look again.

    Parameters
    ----------
    downwards
        Of an instance: a unit vector along which its energy curves down at y, and by how much; None at a minimum.
    descend
        Descends again from y, for some instances with so many steps, (B,).
    """
    integers, rest = problem.integers, limits.copy()
    for instance in map(int, np.flatnonzero(integers[:, 2] == CONVERGED)):
        while (found := downwards(instance)) is not None and _has_left(problem, limits, instance, *found):
            before = integers[instance, :2].copy()
            rest[instance] = limits[instance] - before[0]
            descend(rest, range(instance, instance + 1))
            integers[instance, :2] += before


def _has_left(problem: Problem, limits: Integers, instance: int, direction: Floats, curved: float) -> bool:
    """Whether y has left a saddle for a lower energy.

    Writes ITERATION_LIMIT where no step was left, and SADDLE where no step down was found.
    """
    kernel, inputs, y, integers = problem.kernel, problem.inputs, problem.y, problem.integers
    if integers[instance, 0] >= limits[instance]:
        integers[instance, 2] = ITERATION_LIMIT
        return False
    integers[instance, 0] += 1
    here = y[instance].copy()

    def value_at(length: float) -> float:
        integers[instance, 1] += 1
        return float(kernel.value_at(inputs, here + length * direction, instance))

    energy, size = kernel.value_at(inputs, here, instance), float(np.abs(here).max())
    length = max(1e-3 * (size if size > NO_SCALE else 1.0), math.sqrt(200.0 * ROUNDING * abs(energy) / curved))
    for _ in range(HOPELESS):
        for signed in (length, -length):
            lowest = value_at(signed)
            if lowest < energy - 1e-4 * curved * length**2:
                for _ in range(HOPELESS):  # the scale is a guess: further, while it falls in proportion
                    following = value_at(4.0 * signed)
                    if not ABYSS < following < energy - 3.5 * (energy - lowest):
                        break
                    signed, lowest = 4.0 * signed, following
                y[instance] = here + signed * direction
                return True
        length /= 4.0
    integers[instance, 2] = SADDLE
    return False
