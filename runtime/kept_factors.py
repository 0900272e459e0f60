"""Factors that a minimisation keeps, so that its derivative need not make them again.

A row for each instance, of quadratic energies for each Hessian that instances share (systems.py), of the first so
many: the rest, and whatever does not fit in `MOST` bytes, is factorised again by the derivative, to the same bits.

    quadratic energies       [1 or 0 | U]                                   of the Hessian, where its pivots are firm
    reweightings (irls.py)   [steps + 1 or 0 | U of the first system | y, what was added to the diagonal, U | ...]

U is what `factorisation.solve` reads. The first number is 0 where nothing was kept: the Hessian was not firm, or a step
was shortened. The first system is there where parts are held (`wb.held`), unless instances share it; then a record for
each step. Every part is padded to whole cache lines.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.calls.memory import empty
from ..compiler.machine_code.signature import IntegerPointer
from .algebra.factorisation import solving_size

Floats = NDArray[np.float64]

MOST = 2**28
"""Bytes that one minimisation keeps at most."""

HEAD = 8
"""Numbers before the first factors."""


def padded(n: int) -> int:
    """The next multiple of 8."""
    return n + (8 - n % 8) % 8


def factors_room(layout: IntegerPointer, n: int) -> int:
    """Numbers for the factors of one matrix."""
    return padded(solving_size(layout, n))


def record_room(layout: IntegerPointer, n: int) -> int:
    """Numbers for one reweighting."""
    return 2 * padded(n) + factors_room(layout, n)


def room_for(rows: int, numbers: int) -> Floats:
    """So many rows of so many numbers, as far as they fit; what is kept where is not known yet."""
    count = min(rows, MOST // (8 * numbers))
    kept = empty((count, numbers))
    kept[:, 0] = 0.0
    return kept


def kept_fields(kept: Floats | None) -> tuple[Any, int, int]:
    """The array, how many rows it has, and how many numbers each: nothing and zeros where nothing is kept."""
    return (None, 0, 0) if kept is None else (kept, *kept.shape)
