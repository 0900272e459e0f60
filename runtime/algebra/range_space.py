"""The part of a vector in the range of a sparse Hessian that may be singular, by conjugate gradients alone.

The range part of v is H^+ H v: the solution of H x = H v of least length. Conjugate gradients that start at 0 never
leave the range, so without a preconditioner (which would turn it) they find that very solution, however many unknowns
there are. v less its range part is its part along the null space.
"""

from __future__ import annotations

import math
from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compiler.calls.arrays import address_of
from ...compiler.calls.evaluate import Prepared
from ...compiler.calls.slices import run_slices
from ...compiler.machine_code.calling import call_evaluate, double_pointer_at, integer_pointer_at, prepared_for, shifted
from ...compiler.machine_code.native import Native, native
from ...compiler.machine_code.signature import DoublePointer, IntegerPointer
from .conjugate_gradients import Plain, conjugate_gradients
from .linear_algebra import largest
from .vectors import copy, dot, zero

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

RESIDUAL = 1e-13
"""The residual of H x = H v, relative to H v,"""

ROUNDING = 1e-15
"""or relative to |H| |v|: no smaller part of H v is known to be in the range."""


def range_parts(kernel: Any, inputs: Any, y: Floats, instances: Integers, vectors: Floats) -> Floats:
    """The parts of vectors (R, m) in the ranges of the sparse Hessians of some instances (R,) at y (B, m).

    NaN where conjugate gradients do not get there: the Hessian is not positive semi-definite, or not finite.
    """
    out = np.ascontiguousarray(vectors, dtype=np.float64).copy()
    entries = kernel.entry("sparse_hessian"), kernel.entry("sparse_hvp")
    prepared = [Prepared(entry, inputs) for entry in entries]
    n, size, own = inputs.m, entries[0].needs(inputs)[2], sum(p.own for p in prepared)
    scratch = max(entry.needs(inputs)[1] for entry in entries)
    system = Plain(n)
    which = np.ascontiguousarray(instances, dtype=np.int64)
    problem = array(
        "q",
        (
            *(number for each in prepared for number in each.fields),
            inputs.table_address,
            inputs.extents_address,
            n,
            size,
            scratch,
            system.address,
            address_of(y),
            address_of(which),
            address_of(out),
        ),
    )
    key = ("range", entries[1].evaluate.address, inputs.extents.tobytes())
    workspace = own + scratch + size + 2 * n + system.memory
    run_slices(range_slice(), problem.buffer_info()[0], len(which), key=key, workspace=workspace)
    return out


# ---------------------------------------------------------------------------------------------- compiled

# What `range_slice` reads from its problem: two kernels, slots of the Hessian and the product with them, each as in
# descend.py; then addresses and sizes.
HESSIAN, PRODUCT = 0, 4
TABLE, EXTENTS, UNKNOWNS, SLOTS, SCRATCH, PLAIN, VARIABLES, WHICH, PARTS = range(8, 17)


def _range_slice(problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer) -> int:
    """PARTS[r] <- its part in the range of the Hessian of instance WHICH[r], for r in [begin, end)."""
    table, extents = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS])
    n, size, plain = problem[UNKNOWNS], problem[SLOTS], integer_pointer_at(problem[PLAIN])
    own_product = shifted(workspace, problem[HESSIAN + 3])
    slots = shifted(own_product, problem[PRODUCT + 3])
    scratch = shifted(slots, size)
    right, solved = shifted(scratch, problem[SCRATCH]), shifted(scratch, problem[SCRATCH] + n)
    memory = shifted(solved, n)
    for row in range(begin, end):
        if stop[0] != 0:
            return row
        instance = integer_pointer_at(problem[WHICH])[row]
        y = shifted(double_pointer_at(problem[VARIABLES]), instance * n)
        part = shifted(double_pointer_at(problem[PARTS]), row * n)
        prepared = prepared_for(shifted(problem, HESSIAN), table, extents, instance, workspace)
        zero(slots, size)
        call_evaluate(problem[HESSIAN], y, y, table, extents, instance, prepared, scratch, slots)
        prepared = prepared_for(shifted(problem, PRODUCT), table, extents, instance, own_product)
        call_evaluate(problem[PRODUCT], slots, part, table, extents, instance, prepared, scratch, right)
        unit = largest(slots, size)
        zero(solved, n)
        known = math.sqrt(dot(right, right, n))
        reached = unit < math.inf and known < math.inf
        if reached and known > 0.0:
            tolerance = max(RESIDUAL, ROUNDING * unit * math.sqrt(dot(part, part, n)) / known)
            for i in range(n):  # a preconditioner that measures all unknowns alike
                memory[i] = 1.0 / math.sqrt(unit)
            how, _, _ = conjugate_gradients(
                plain,
                memory,
                problem[PRODUCT],
                slots,
                table,
                extents,
                instance,
                prepared,
                scratch,
                0.0,
                right,
                math.inf,
                0.0,
                tolerance,
                20 * n + 100,
                solved,
                stop,
            )
            reached = how == 0
        if reached:
            copy(solved, part, n)
        else:
            for i in range(n):
                part[i] = math.nan
    return end


def range_slice() -> Native:
    """The compiled `_range_slice`."""
    return native(_range_slice)
