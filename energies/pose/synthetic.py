"""Detections made up for known poses: cameras in a ring, perspective, noise, outliers, joints that are not found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError

Floats = NDArray[np.float64]

NOISE, OUTLIERS, FAR, MISSING = 6.0, 0.03, 60.0, 0.04
"""Pixels of noise; how many points are outliers, and how far off; how many joints a camera does not find."""

FOCAL, CENTRE = 1145.0, 512.0
UNSEEN = 9
"""The jaw, which no detector here knows."""


@dataclass(frozen=True)
class Ring:
    """Cameras around a place, all looking at it.

    Attributes
    ----------
    rotation : (C, 3, 3)
        World to camera: rows are right, down and depth.
    position : (C, 3)
        In mm.
    """

    rotation: Floats
    position: Floats

    @classmethod
    def around(cls, count: int = 4, *, distance: float = 5000.0, height: float = 1600.0) -> Ring:
        """So many cameras at equal angles, at a height above the ground, looking at a body's middle."""
        angle = 2 * np.pi * (np.arange(count) + 0.5) / count
        position = np.stack([distance * np.cos(angle), distance * np.sin(angle), np.full(count, height)], axis=1)
        depth = np.array([0.0, 0.0, 900.0]) - position
        depth /= np.linalg.norm(depth, axis=1, keepdims=True)
        right = np.cross(depth, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right, axis=1, keepdims=True)
        return cls(np.stack([right, np.cross(depth, right), depth], axis=1), position)

    def project(self, poses: ArrayLike) -> Floats:
        """Pixels (..., C, J, 2) of poses (..., J, 3) in mm, z up."""
        points = np.asarray(poses, dtype=np.float64)[..., None, :, :] - self.position[:, None]
        seen = np.einsum("cxp,...cjp->...cjx", self.rotation, points)
        return np.asarray(FOCAL * seen[..., :2] / seen[..., 2:] + CENTRE)


def detect(poses: ArrayLike, ring: Ring, *, seed: int = 0) -> tuple[Floats, Floats]:
    """Detections (N, C, 17, 2) in pixels of poses (N, 17, 3), and which joints are seen (N, C, 17).

    Raises
    ------
    InputError
        For poses of another shape.
    """
    given = np.asarray(poses, dtype=np.float64)
    if given.ndim != 3 or given.shape[1:] != (17, 3):
        raise InputError(f"detect: poses must be (N, 17, 3); got {given.shape}")
    random, points = np.random.default_rng(seed), ring.project(given)
    points += random.normal(scale=NOISE, size=points.shape)
    outlier = random.uniform(size=points.shape[:-1]) < OUTLIERS
    points[outlier] += random.normal(scale=FAR, size=(int(outlier.sum()), 2))
    visible = (random.uniform(size=points.shape[:-1]) >= MISSING).astype(np.float64)
    visible[..., UNSEEN] = 0.0
    return points, visible
