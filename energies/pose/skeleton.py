"""The 17 joints of Human3.6M, their edges, and where the joints of common detectors go.

`NORMALISATION_EDGES` measure how large a pose is. They are the authors' list, made for an older order of joints (no
edge ends at 16), and are kept as they are: figures depend on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError, nearest

Floats = NDArray[np.float64]

JOINTS = (
    "hip", "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle", "spine", "neck", "jaw",
    "head", "left shoulder", "left elbow", "left wrist", "right shoulder", "right elbow", "right wrist",
)  # fmt: skip

EDGES = (
    (0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (5, 6), (0, 7), (7, 8), (8, 9), (9, 10), (8, 11), (11, 12), (12, 13),
    (8, 14), (14, 15), (15, 16),
)  # fmt: skip
"""The skeleton, as it is drawn."""

NORMALISATION_EDGES = (
    (0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (5, 6), (0, 7), (7, 8), (8, 9), (8, 10), (10, 11), (11, 12), (8, 13),
    (13, 14), (14, 15),
)  # fmt: skip

MPII: Mapping[int, int] = MappingProxyType(
    {0: 3, 1: 2, 2: 1, 3: 4, 4: 5, 5: 6, 6: 0, 7: 7, 8: 8, 9: 10, 10: 16, 11: 15, 12: 14, 13: 11, 14: 12, 15: 13}
)
"""From MPII's 16 joints to ours. The thorax goes to the spine, a third of a metre below it, as in the authors' data."""

COCO: Mapping[int, int] = MappingProxyType(
    {5: 11, 6: 14, 7: 12, 8: 15, 9: 13, 10: 16, 11: 4, 12: 1, 13: 5, 14: 2, 15: 6, 16: 3, 0: 9}
)
"""From COCO's 17 joints to ours: limbs, and the nose as jaw. Hip and neck are midpoints (`to_joints`)."""

_COCO_MIDPOINTS = {0: (11, 12), 8: (5, 6)}

FORMATS: Mapping[str, Mapping[int, int]] = MappingProxyType(
    {"mpii": MPII, "coco": COCO, "h36m": MappingProxyType({joint: joint for joint in range(17)})}
)
"""By name: from the joints of a detector to ours."""


def to_joints(points: ArrayLike, form: str, visible: ArrayLike | None = None) -> tuple[Floats, Floats]:
    """Detections of another format as our 17 joints, and which of them are seen.

    Parameters
    ----------
    points : (..., 16, 2) of MPII, (..., 17, 2) of COCO or of Human3.6M, which are ours
        NaN where there is no detection.
    form : {"mpii", "coco", "h36m"}
    visible : (..., 16) or (..., 17), optional
        1 where a joint is seen, else 0.

    Returns
    -------
    (..., 17, 2), 0 where there is nothing; (..., 17), 1 where there is something

    Raises
    ------
    InputError
        For another format, or arrays of another shape.
    """
    if form not in FORMATS:
        raise InputError(f"to_joints: no format {form!r}{nearest(str(form), FORMATS)}; one of {', '.join(FORMATS)}")
    given, table = np.asarray(points, dtype=np.float64), FORMATS[form]
    count = 16 if form == "mpii" else 17
    if given.ndim < 2 or given.shape[-2:] != (count, 2):
        raise InputError(f"to_joints: {form} has {count} joints: points must be (..., {count}, 2); got {given.shape}")
    seen: NDArray[np.bool_] = np.asarray(np.isfinite(given).all(axis=-1))
    if visible is not None:
        seen &= np.asarray(visible) > 0
    given = np.where(seen[..., None], given, 0.0)
    found, there = np.zeros((*given.shape[:-2], 17, 2)), np.zeros((*seen.shape[:-1], 17))
    for source, target in table.items():
        found[..., target, :], there[..., target] = given[..., source, :], seen[..., source]
    for target, (a, b) in _COCO_MIDPOINTS.items() if form == "coco" else ():
        both = seen[..., a] & seen[..., b]
        found[..., target, :] = np.where(both[..., None], (given[..., a, :] + given[..., b, :]) / 2, 0.0)
        there[..., target] = both
    return found, there


def limb_norm(pose: ArrayLike) -> Any:
    """sqrt(sum of squared lengths of NORMALISATION_EDGES) of poses (..., 17, 3): how large they are."""
    points, edges = np.asarray(pose), np.array(NORMALISATION_EDGES)
    limbs = points[..., edges[:, 0], :] - points[..., edges[:, 1], :]
    return np.sqrt((limbs * limbs).sum(axis=(-1, -2)))
