"""Boxes and how much they overlap. A box is x, y, width, height: its corner of lowest coordinates, and its sides."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def usable(boxes: ArrayLike) -> NDArray[np.bool_]:
    """Which boxes (..., 4) are finite and have an area.

    Examples
    --------
    >>> usable([[0, 0, 2, 2], [0, 0, 0, 2], [0, float("nan"), 2, 2]]).tolist()
    [True, False, False]
    """
    array = np.asarray(boxes)
    found: NDArray[np.bool_] = np.isfinite(array).all(axis=-1) & (array[..., 2] > 0) & (array[..., 3] > 0)
    return found


def overlap(one: ArrayLike, other: ArrayLike) -> Floats:
    """Intersection over union of boxes (..., 4), which broadcast; 0 where one is no box (NaN, or without an area).

    Examples
    --------
    >>> float(overlap([0, 0, 2, 2], [1, 0, 2, 2]))
    0.3333333333333333
    >>> float(overlap([float("nan")] * 4, [1, 0, 2, 2]))
    0.0
    """
    a, b = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    with np.errstate(invalid="ignore", over="ignore"):
        sides: Any = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
        both = np.maximum(sides, 0).prod(axis=-1)
        union = a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - both
        result = both / np.where(union > 0, union, 1)
    return np.where(usable(a) & usable(b), result, 0.0)
