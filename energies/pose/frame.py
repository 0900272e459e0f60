"""Whether a frame shows enough of a body for a pose."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

CAMERAS, SEEN = 2, 6
"""A frame needs so many cameras, and so many joints in each, to say where a body is."""


class Frame(IntEnum):
    """Whether a frame shows enough for a pose."""

    ENOUGH = 0
    FEW_CAMERAS = 1
    FEW_JOINTS = 2
    NO_HEADING = 3


def frame_status(weights: ArrayLike) -> NDArray[np.int64]:
    """What frames of several cameras lack, of `Frame` (...), by the weights of their joints (..., C, J).

    FEW_CAMERAS: less than two see six joints. FEW_JOINTS: less than six joints are seen by two.
    """
    seen: NDArray[np.bool_] = np.asarray(weights) > 0
    cameras = (seen.sum(axis=-1) >= SEEN).sum(axis=-1)
    joints = (seen.sum(axis=-2) >= CAMERAS).sum(axis=-1)
    status = np.where(joints < SEEN, Frame.FEW_JOINTS, Frame.ENOUGH)
    return np.asarray(np.where(cameras < CAMERAS, Frame.FEW_CAMERAS, status))


def view_status(weights: ArrayLike) -> NDArray[np.int64]:
    """What cameras that see alone lack, of `Frame` (...), by the weights of their joints (..., J): six of them."""
    few = (np.asarray(weights) > 0).sum(axis=-1) < SEEN
    return np.asarray(np.where(few, Frame.FEW_JOINTS, Frame.ENOUGH))


def counts(status: ArrayLike) -> dict[str, int]:
    """How many frames, or views, have which status, by its name."""
    codes, found = np.unique(np.asarray(status), return_counts=True)
    return {Frame(code).name: int(count) for code, count in zip(codes, found, strict=True)}
