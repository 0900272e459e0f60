"""What would turn a minimisation into nonsense is found before it: NaN and infinity, weights that must be positive."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.machine_code.calling import double_pointer_at
from ..compiler.machine_code.native import native
from ..compiler.machine_code.signature import DoublePointer, IntegerPointer, vectorised
from ..energies.errors import InputError


@vectorised
def _are_between(low: float, numbers: DoublePointer, count: int) -> bool:
    """Whether every number is greater than `low` and less than infinity; NaN is neither."""
    bad = 0
    for i in range(count):
        bad += 0 if low < numbers[i] < math.inf else 1
    return bad == 0


def _count_sound(table: IntegerPointer, asked: IntegerPointer, arrays: int, batch: int) -> int:
    """How many arrays, from the first one on, are as they must be; `binding.Plan.numbers` is what is asked."""
    for k in range(arrays):
        numbers, count, low = double_pointer_at(table[2 * k]), asked[2 * k], -math.inf
        if table[2 * k + 1] != 0:
            count *= batch
        if asked[2 * k + 1] != 0:
            low = 0.0
        if not _are_between(low, numbers, count):
            return k
    return arrays


def are_sound(inputs: Any) -> bool:
    """Whether bound weights and data are finite, and positive where they are declared so.

    One pass of compiled code; the functions below say what is wrong, and where.
    """
    arrays, batch = len(inputs.arrays), inputs.batch
    rows = 1 if batch is None else batch
    sound: int = native(_count_sound).call(inputs.table_address, inputs.numbers_address, arrays, rows)
    return sound == arrays


def check_finite(kernel: Any, inputs: Any) -> None:
    """Raise if bound weights or data are not finite.

    Raises
    ------
    InputError
        Naming the array, the first index, and the instances.
    """
    for role, name, array, batched in _not_finite(kernel, inputs):
        bad = np.argwhere(~np.isfinite(array))
        first = tuple(int(i) for i in bad[0])
        what = "NaN" if math.isnan(array[first]) else "infinity"
        facts = [f"first of {len(bad)}"] if len(bad) > 1 else []
        if batched:
            instances = np.unique(bad[:, 0])
            shown = ", ".join(map(str, instances[:5])) + (", ..." if len(instances) > 5 else "")
            facts.append(f"in instance{'s' if len(instances) > 1 else ''} {shown}")
        place = (f" at {list(first)}" if first else "") + (f" ({', '.join(facts)})" if facts else "")
        raise InputError(
            f"energy {kernel.name!r}: {role} {name} has {what}{place}; drop or impute them, or pass "
            "check=False to mark those instances NOT_FINITE"
        )


def finite_instances(kernel: Any, inputs: Any) -> NDArray[np.bool_] | None:
    """Which instances have finite weights and data, (B,) or (1,); None if all have."""
    finite: NDArray[np.bool_] | None = None
    for _, _, array, batched in _not_finite(kernel, inputs):
        rows = np.isfinite(array).reshape(len(array) if batched else 1, -1).all(axis=1)
        finite = rows if finite is None else finite & rows
    return finite


def check_positive(kernel: Any, inputs: Any) -> None:
    """Raise if a weight declared positive is not.

    Raises
    ------
    InputError
        Naming the weight, its value and the instance.
    """
    for k, symbol in enumerate(kernel.declaration.weights):
        array = inputs.arrays[k]
        if symbol.positive and array.size and np.minimum.reduce(array, axis=None) <= 0.0:
            first = tuple(int(i) for i in np.argwhere(array <= 0.0)[0])
            entry = first[1:] if inputs.batched[k] else first
            name = symbol.name + (f"[{', '.join(map(str, entry))}]" if entry else "")
            where = f" (first at instance {first[0]})" if inputs.batched[k] else ""
            raise InputError(
                f"energy {kernel.name!r}: weight {name} = {array[first]} but it is declared positive{where}"
            )


def _not_finite(kernel: Any, inputs: Any) -> Iterator[tuple[str, str, NDArray[Any], bool]]:
    """Role, name, array and whether it is batched, of those that hold NaN or infinity."""
    weights, data = kernel.declaration.weights, kernel.declaration.data
    for k, array in enumerate(inputs.arrays):
        if not np.isfinite(array).all():
            role, symbol = ("weight", weights[k]) if k < len(weights) else ("data", data[k - len(weights)])
            yield role, symbol.name, array, inputs.batched[k]
