"""Entries of a kernel whose output ends with the numbers of a sparse derivative, evaluated into compressed rows.

Each instance is evaluated into working memory, and its numbers are put where they belong while they are in the cache.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..machine_code.calling import call_evaluate, call_prepare, double_pointer_at, integer_pointer_at, shifted
from ..machine_code.native import Native, native
from ..machine_code.signature import DoublePointer, IntegerPointer
from .arrays import address_of
from .evaluate import EVALUATE, EXTENTS, OWN, PREPARE, PREPARED, TABLE, Entry, Inputs, Prepared
from .memory import empty
from .pattern import Pattern, add_entries, pick_entries
from .slices import run_slices

Floats = NDArray[np.float64]


class Compressed(NamedTuple):
    """What a call gives for B instances.

    values      (B,)
    gradients   (B, leading): what the output holds before the numbers of the matrix
    data        for each pattern (instances, nnz)
    """

    values: Floats
    gradients: Floats
    data: list[Floats]


# What the driver reads of its problem, behind what evaluate.py names.
Y, Y_STRIDE, VALUES, GRADIENTS, LEADING, OUT, DATA, COUNT, SOURCES, STARTS, FIRST = range(6, 17)


def _compress_slice(
    problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer
) -> int:
    """Evaluate the instances FIRST + [begin, end) of one pattern.

    Y, VALUES, GRADIENTS  addresses for all instances; the output has OUT numbers, LEADING of them go to GRADIENTS
    DATA                  address for the instances of the pattern: COUNT numbers for each
    SOURCES, STARTS       addresses, as in Pattern; STARTS may be 0
    """
    table, extents = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS])
    own, leading, count, first = problem[OWN], problem[LEADING], problem[COUNT], problem[FIRST]
    prepared = workspace if own > 0 else double_pointer_at(problem[PREPARED])
    out = shifted(workspace, own)
    slots, scratch = shifted(out, leading), shifted(out, problem[OUT])
    values, gradients = double_pointer_at(problem[VALUES]), double_pointer_at(problem[GRADIENTS])
    sources = integer_pointer_at(problem[SOURCES])
    for k in range(begin, end):
        if stop[0] != 0:
            return k
        instance = first + k
        if own > 0:
            call_prepare(problem[PREPARE], table, extents, instance, prepared)
        y = shifted(double_pointer_at(problem[Y]), instance * problem[Y_STRIDE])
        values[instance] = call_evaluate(problem[EVALUATE], y, y, table, extents, instance, prepared, scratch, out)
        gradient = shifted(gradients, instance * leading)
        for i in range(leading):
            gradient[i] = out[i]
        data = shifted(double_pointer_at(problem[DATA]), k * count)
        if problem[STARTS] == 0:
            pick_entries(slots, sources, count, data)
        else:
            add_entries(slots, sources, integer_pointer_at(problem[STARTS]), count, data)
    return end


def compress_slice() -> Native:
    """The compiled `_compress_slice`."""
    return native(_compress_slice)


def run_compressed(
    entry: Entry, inputs: Inputs, y: Floats, count: int, leading: int, patterns: Sequence[tuple[Pattern, range]]
) -> Compressed:
    """Evaluate an entry for B = `count` instances.

    Parameters
    ----------
    y : (B, m) or (1, m)
        Packed variables.
    leading : int
        Numbers of the output before those of the matrix.
    patterns
        The patterns and the instances that have them; together all instances.
    """
    prepared, (_, scratch, size) = Prepared(entry, inputs, later=True), entry.needs(inputs)
    values, gradients = np.empty(count), empty((count, leading))
    data = []
    for pattern, instances in patterns:
        numbers = empty((len(instances), pattern.nnz))
        data.append(numbers)
        fields = (
            *prepared.fields,
            inputs.table_address,
            inputs.extents_address,
            address_of(y),
            y.shape[1] if len(y) > 1 else 0,
            address_of(values),
            address_of(gradients),
            leading,
            size,
            address_of(numbers),
            pattern.nnz,
            address_of(pattern.sources),
            0 if pattern.starts is None else address_of(pattern.starts),
            instances.start,
        )
        problem = array("q", fields)
        run_slices(
            compress_slice(),
            problem.buffer_info()[0],
            len(instances),
            key=("compressed", entry.evaluate.address, inputs.extents.tobytes()),
            workspace=prepared.own + size + scratch,
            before=prepared.before,
        )
        prepared.before = None
    if entry.failures:
        raise entry.failures.pop()
    return Compressed(values, gradients, data)
