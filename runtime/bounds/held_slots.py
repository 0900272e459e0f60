"""The rows and columns of held variables in a sparse Hessian, as the numbers (slots) that a kernel has written.

Conjugate gradients on a face of a box take the slots of those rows and columns as 0: with a right-hand side that is 0
there, they stay on the face.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np

from ...compiler.calls.arrays import address_of
from ...compiler.calls.pattern import Pattern
from ...compiler.machine_code.signature import DoublePointer, IntegerPointer, streaming


class Ends:
    """Row and column of the entry that each slot belongs to, (size,) int64; 0 for slots that belong to none."""

    def __init__(self, pattern: Pattern, size: int) -> None:
        rows = np.repeat(np.arange(pattern.shape[0]), np.diff(pattern.indptr))
        columns = np.asarray(pattern.indices, np.int64)
        if pattern.starts is not None:
            counts = np.diff(pattern.starts)
            rows, columns = np.repeat(rows, counts), np.repeat(columns, counts)
        self.rows, self.columns = np.zeros((2, size), np.int64)
        self.rows[pattern.sources] = np.minimum(rows, columns)  # the same for both halves
        self.columns[pattern.sources] = np.maximum(rows, columns)

    @property
    def addresses(self) -> tuple[int, int]:
        return address_of(self.rows), address_of(self.columns)


_ends: WeakKeyDictionary[Pattern, Ends] = WeakKeyDictionary()


def ends_of(pattern: Pattern, size: int) -> Ends:
    """The ends of the slots of a pattern, made when they are first asked for."""
    found = _ends.get(pattern)
    if found is None:
        found = _ends[pattern] = Ends(pattern, size)
    return found


@streaming
def hold_slots(
    slots: DoublePointer,
    rows: IntegerPointer,
    columns: IntegerPointer,
    free: DoublePointer,
    size: int,
    out: DoublePointer,
) -> None:
    """out <- the slots, 0 for those in a row or column of a variable that is not free (1.0, else 0.0)."""
    for k in range(size):
        out[k] = slots[k] * free[rows[k]] * free[columns[k]]
