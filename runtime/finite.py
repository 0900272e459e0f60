"""NaN and infinity in weights and data: found before they turn a minimisation into nonsense."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..energies.errors import InputError


def check_finite(kernel: Any, inputs: Any, w: Mapping[str, Any] | None, x: Mapping[str, Any] | None) -> None:
    """Raise if a weight or data array is not finite.

    Raises
    ------
    InputError
        Naming the array, the first index, and the instances.
    """
    for role, name, array, rank in _arrays(kernel, w, x):
        if _all_finite(array):
            continue
        bad = np.argwhere(~np.isfinite(array))
        first = tuple(int(i) for i in bad[0])
        what = "NaN" if math.isnan(array[first]) else "infinity"
        place = f" at {list(first)}" if first else ""
        of = f"first of {len(bad)}" if len(bad) > 1 else "the only one"
        where = ""
        if array.ndim > rank:
            instances = np.unique(bad[:, 0])
            shown = ", ".join(map(str, instances[:5])) + (", ..." if len(instances) > 5 else "")
            where = f", in instance{'s' if len(instances) > 1 else ''} {shown}"
        advice = "drop or impute them, or pass check=False to mark those instances NOT_FINITE"
        raise InputError(f"energy '{kernel.name}': {role} {name} has {what}{place} ({of}{where}); {advice}")


def finite_instances(kernel: Any, inputs: Any, w: Mapping[str, Any] | None,
                     x: Mapping[str, Any] | None) -> NDArray[np.bool_] | None:
    """Which instances have finite weights and data, (B,) or (1,); None if all have."""
    finite = None
    for _, _, array, rank in _arrays(kernel, w, x):
        if _all_finite(array):
            continue
        batched = array.ndim > rank
        rows = np.isfinite(array).reshape(len(array) if batched else 1, -1).all(axis=1)
        finite = rows if finite is None else finite & rows
    return finite


def _all_finite(array: NDArray[Any]) -> bool:
    """A finite sum proves that all are; only an overflow needs the longer look."""
    if array.dtype.kind != "f":
        return True
    total = array.sum() if array.ndim else array
    return math.isfinite(total) or bool(np.isfinite(array).all())


def _arrays(kernel: Any, w: Mapping[str, Any] | None,
            x: Mapping[str, Any] | None) -> Iterator[tuple[str, str, NDArray[Any], int]]:
    for role, names, given in (("weight", kernel.weights.names, w), ("data", kernel.data.names, x)):
        for name in names:
            array = np.asarray((given or {})[name])
            yield role, name, array, len(kernel.energy.shapes[name])
