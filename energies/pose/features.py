"""From detections in pixels to what the energies read.

The energies know nothing of where a person is in the image and how large: in each camera the joints seen have mean 0
and height 2, upside down, for the divisor below is negative:

    X_j = 2 (x_j - mean of x over joints seen) / (lowest y - highest y)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from .skeleton import limb_norm

Floats = NDArray[np.float64]


def normalise(points: ArrayLike, visible: ArrayLike) -> tuple[Floats, Floats]:
    """Detections (..., C, 17, 2) in pixels as the energies read them, and the weights of the joints (..., C, 17).

    Parameters
    ----------
    points
        What stands at joints that are not seen has no weight, but is kept, as the authors do; NaN becomes 0.
    visible : (17,), (C, 17) or (..., C, 17)
        1 where a joint is seen, else 0. A camera in which fewer than two joints are seen, or all at one height, has no
        weight at all.

    Raises
    ------
    InputError
        For other shapes.
    """
    x, v = np.asarray(points, dtype=np.float64), np.asarray(visible, dtype=np.float64)
    if x.ndim < 3 or x.shape[-2:] != (17, 2):
        raise InputError(f"normalise: detections must be (..., cameras, 17, 2); got {x.shape}")
    try:
        v = np.broadcast_to(v, x.shape[:-1])
    except ValueError:
        raise InputError(f"normalise: visible of shape {v.shape} does not fit detections {x.shape}") from None
    seen = (v > 0) & np.isfinite(x).all(axis=-1)
    x = np.where(np.isfinite(x), x, 0.0)
    count = seen.sum(axis=-1)
    centre = np.where(seen[..., None], x, 0.0).sum(axis=-2) / np.maximum(count, 1)[..., None]
    moved = x - centre[..., None, :]
    low = np.where(seen, moved[..., 1], np.inf).min(axis=-1)
    high = np.where(seen, moved[..., 1], -np.inf).max(axis=-1)
    fits = (count >= 2) & (high > low)
    half = np.where(fits, (low - np.where(fits, high, 0.0)) / 2, 1.0)
    weights = np.where(seen & fits[..., None], v, 0.0)
    return np.where(fits[..., None, None], moved / half[..., None, None], 0.0), weights


def rotations(count: int = 100, every: int = 1) -> Floats:
    """Rotations about the vertical axis by 2 pi i/count, i = 0, every, 2 every, ...: (n, 3, 3)."""
    angle = 2 * np.pi / count * np.arange(0, count, every)
    turn = np.zeros((len(angle), 3, 3))
    turn[:, 0, 0], turn[:, 0, 1] = np.sin(angle), np.cos(angle)
    turn[:, 1, 0], turn[:, 1, 1] = -np.cos(angle), np.sin(angle)
    turn[:, 2, 2] = 1.0
    return turn


def detections(points: ArrayLike, visible: ArrayLike, truth: ArrayLike | None = None) -> dict[str, Floats]:
    """The data of a frame, or of a batch of them: what every energy of this folder reads.

    Parameters
    ----------
    points, visible
        As for `normalise`.
    truth : (..., 17, 3), optional
        Whose size the reconstruction gets; without it the size is 1.
    """
    x, v = normalise(points, visible)
    lead = x.shape[:-3]
    size = np.ones(lead) if truth is None else np.asarray(limb_norm(truth), dtype=np.float64)
    return {"detections": x, "visible": v, "size": size}
