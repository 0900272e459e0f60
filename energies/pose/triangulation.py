"""Points in space from what calibrated cameras see of them, each point by itself.

A detection x of camera c is on the ray where a (X - T) = 0, a = R_xy - x R_z, two rows; a (X - T) / depth is how far
off X projects. `linear` minimises the sum of |a (X - T)|^2; `robust` that of rho(z |a (X - T)| / depth), rho Geman and
McClure's penalty and z 5 m: from the pair of cameras of least cost, by reweighting. So a detection that is far off, or
of the wrong leg, does not count.

From the robust points come the heading of a body (its right side, horizontally), where it is, and how large.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .cameras import Cameras

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

DISTANCE = 5000.0
"""mm: errors in images count as what they would be there."""

ROBUST_SCALE, REWEIGHTINGS = 80.0, 8
"""mm at `DISTANCE`; chosen on training subjects."""

TINY = 1e-9

RIGHT_LEFT = ((1, 4), (14, 11))
"""Hips and shoulders: what tells where a body's right is."""


LIMBS = ((1, 2), (2, 3), (4, 5), (5, 6), (11, 12), (12, 13), (14, 15), (15, 16))
LIMBS_OF_SIZE_ONE = 2700.0
"""Thighs, shins, upper arms and forearms, and what they add up to in a person of size 1, mm."""


@dataclass(frozen=True)
class Rays:
    """What cameras see, as equations: rows (..., C, K, 2, 3), constants (..., C, K, 2) = rows T, seen (..., C, K)."""

    rows: Floats
    constants: Floats
    seen: Bools
    depth_rows: Floats
    depth_constants: Floats

    @classmethod
    def of(cls, cameras: Cameras, pixels: ArrayLike, visible: ArrayLike) -> Rays:
        """Of detections (..., C, K, 2); NaN, and what is not visible, is not seen."""
        given = np.asarray(pixels, dtype=np.float64)
        seen = np.broadcast_to(np.asarray(visible) > 0, given.shape[:-1]) & np.isfinite(given).all(axis=-1)
        x = cameras.undistort(np.where(seen[..., None], given, cameras.centre[..., None, :]))
        turn = cameras.rotation[..., None, :, :]
        rows = turn[..., :2, :] - x[..., None] * turn[..., 2:, :]
        constants = np.einsum("...ckxp,...cp->...ckx", rows, cameras.position)
        depth = cameras.rotation[..., 2, :]
        return cls(rows, constants, seen, depth, (depth * cameras.position).sum(axis=-1))

    @property
    def twice(self) -> Bools:
        """Which points two cameras see, (..., K)."""
        return np.asarray(self.seen.sum(axis=-2) >= 2)

    def depths(self, points: Floats) -> Floats:
        """(..., C, K) of points (..., K, 3), at least 1 mm."""
        depth = np.einsum("...cp,...kp->...ck", self.depth_rows, points) - self.depth_constants[..., None]
        return np.asarray(np.maximum(depth, 1.0))

    def errors(self, points: Floats) -> Floats:
        """How far off (..., K, 3) project in each camera, (..., C, K), as mm at `DISTANCE`."""
        off = np.einsum("...ckxp,...kp->...ckx", self.rows, points) - self.constants
        return np.asarray(np.sqrt((off * off).sum(axis=-1)) / self.depths(points) * DISTANCE)

    def solved(self, weights: Floats) -> Floats:
        """Points (..., K, 3) of least weighted squares; anything where weights (..., C, K) leave less than two."""
        weighted = self.rows * weights[..., None, None]
        system = np.einsum("...ckxp,...ckxq->...kpq", weighted, self.rows, optimize=True)
        right = np.einsum("...ckxp,...ckx->...kp", weighted, self.constants, optimize=True)
        system = system + (TINY * np.trace(system, axis1=-2, axis2=-1)[..., None, None] + 1e-30) * np.eye(3)
        return np.asarray(np.linalg.solve(system, right[..., None])[..., 0])


def linear(rays: Rays) -> Floats:
    """Least squares over all cameras: (..., K, 3), NaN where less than two see a point."""
    points = rays.solved(rays.seen.astype(np.float64))
    return np.where(rays.twice[..., None], points, np.nan)


def robust(rays: Rays, scale: float = ROBUST_SCALE) -> Floats:
    """Robust least squares over all cameras: (..., K, 3), NaN where less than two see a point."""

    def cost(points: Floats) -> Floats:
        squared = (rays.errors(points) / scale) ** 2
        return np.asarray(np.where(rays.seen, squared / (1 + squared), 0.0).sum(axis=-2))

    cameras = rays.seen.shape[-2]
    best = rays.solved(rays.seen.astype(np.float64))
    least = cost(best)
    for pair in itertools.combinations(range(cameras), 2) if cameras > 2 else ():
        chosen = np.zeros(cameras)
        chosen[list(pair)] = 1.0
        points = rays.solved(rays.seen * chosen[:, None])
        own = np.where(rays.seen[..., list(pair), :].all(axis=-2), cost(points), np.inf)
        best, least = np.where((own < least)[..., None], points, best), np.minimum(own, least)
    for _ in range(REWEIGHTINGS):
        weights = rays.seen / (1 + (rays.errors(best) / scale) ** 2) ** 2 * (DISTANCE / rays.depths(best)) ** 2
        best = rays.solved(weights)
    return np.where(rays.twice[..., None], best, np.nan)


def middle(points: Floats) -> Floats:
    """(..., 3) of points (..., K, 3): the one that is nearest to all others in sum (a medoid); 0 if there is none."""
    there: Bools = np.asarray(np.isfinite(points).all(axis=-1))
    known = np.where(there[..., None], points, 0.0)
    apart = np.linalg.norm(known[..., :, None, :] - known[..., None, :, :], axis=-1)
    total = np.where(there, (apart * there[..., None, :]).sum(axis=-1), np.inf)
    best = total.argmin(axis=-1)
    return np.asarray(np.take_along_axis(known, best[..., None, None], axis=-2)[..., 0, :])


def heading(points: Floats, joints: tuple[int, ...]) -> tuple[Floats, Bools]:
    """Turns (..., 3, 3) about the vertical axis, world to body (x to its right), of points (..., K, 3) of these joints.

    Where neither both hips nor both shoulders are there, nothing says where the body's right is: the second result is
    False, the turn the identity.
    """
    across = np.zeros((*points.shape[:-2], 2))
    for right, left in RIGHT_LEFT:
        if right in joints and left in joints:
            way = points[..., joints.index(right), :2] - points[..., joints.index(left), :2]
            both: Bools = np.asarray(np.isfinite(way).all(axis=-1))
            across += np.where(both[..., None], way, 0.0)
    length = np.linalg.norm(across, axis=-1)
    known = length > 1.0
    cos, sin = (np.where(known, across[..., axis] / np.maximum(length, 1.0), 1.0 - axis) for axis in (0, 1))
    turn = np.zeros((*length.shape, 3, 3))
    turn[..., 0, 0], turn[..., 0, 1], turn[..., 1, 0], turn[..., 1, 1], turn[..., 2, 2] = cos, sin, -sin, cos, 1.0
    return turn, known


def sizes(points: Floats, joints: tuple[int, ...], person: ArrayLike | None = None) -> Floats:
    """How large the person of each frame is, (...): its limbs, medians over all frames of that person; 1 if unknown.

    `person` (...) are any labels; without them all frames show the same one.
    """
    limbs = [(joints.index(a), joints.index(b)) for a, b in LIMBS if a in joints and b in joints]
    lead = points.shape[:-2]
    label = (
        np.zeros(lead, dtype=np.int64) if person is None else np.unique(person, return_inverse=True)[1].reshape(lead)
    )
    found = np.ones(lead)
    for one in range(int(label.max()) + 1 if label.size else 0):
        own = points[label == one]
        lengths = [np.linalg.norm(own[..., a, :] - own[..., b, :], axis=-1) for a, b in limbs]
        known = [float(np.nanmedian(length)) for length in lengths if np.isfinite(length).any()]
        if known:
            found[label == one] = np.mean(known) * len(LIMBS) / LIMBS_OF_SIZE_ONE
    return found
