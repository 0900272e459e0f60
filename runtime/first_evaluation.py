"""How every driver begins with an instance: the energy and its derivatives at the start, if they are finite."""

from __future__ import annotations

import math

from ..compiler.machine_code.calling import call_evaluate
from ..compiler.machine_code.signature import DoublePointer, IntegerPointer
from .algebra.linear_algebra import dot, largest
from .statuses import ABYSS, NOT_FINITE, UNBOUNDED


def evaluate_first(
    evaluate: int,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    scratch: DoublePointer,
    n: int,
    size: int,
    y: DoublePointer,
    here: DoublePointer,
    reals: DoublePointer,
    integers: IntegerPointer,
) -> tuple[bool, float, float]:
    """here <- the `size` derivatives at y; whether there is anything to minimise, the energy, and the size of y.

    reals and integers become those of an instance that ends here: NaN; no iterations, evaluations, NOT_FINITE or
    UNBOUNDED. Without evaluation where y is not finite.
    """
    reals[0] = reals[1] = math.nan
    integers[0] = integers[1] = 0
    integers[2] = NOT_FINITE
    start_size = largest(y, n)
    if not start_size < math.inf:
        return False, math.nan, start_size
    energy = call_evaluate(evaluate, y, y, table, extents, instance, prepared, scratch, here)
    integers[1] = 1
    if energy < ABYSS:
        integers[2] = UNBOUNDED
        return False, energy, start_size
    return energy < math.inf and dot(here, here, size) < math.inf, energy, start_size
