"""What would turn a minimisation into nonsense is found before it: NaN and infinity, weights that must be positive."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..energies.errors import InputError


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
    """Role, name, array and whether it is batched, of those that hold NaN or infinity.

    A finite sum proves that all numbers are finite; only an infinite one, which may be overflow, needs a longer look.
    """
    with np.errstate(all="ignore"):
        suspects = [
            k
            for k, array in enumerate(inputs.arrays)
            if not math.isfinite(np.add.reduce(array, axis=None)) and not np.isfinite(array).all()
        ]
    weights, data = kernel.declaration.weights, kernel.declaration.data
    for k in suspects:
        role, symbol = ("weight", weights[k]) if k < len(weights) else ("data", data[k - len(weights)])
        yield role, symbol.name, inputs.arrays[k], inputs.batched[k]
