"""Points in space from what calibrated cameras see of them, each point by itself.

A detection x of camera c is on the ray where a (X - T) = 0, a = R_xy - x R_z, two rows; a (X - T) / depth is how far
off X projects. Two energies of a point X are declared, each a family over the points k of a frame:

    squares  sum_c chosen_pc seen_ck |a_ck (X - T_c)|^2                 also over choices p of cameras
    robust   sum_c seen_ck rho(5 m |a_ck (X - T_c)| / depth_c(X))       rho: Geman and McClure's penalty

The first is quadratic. The second has many minima, and is minimised from whichever point of the first, of all cameras
and of each pair (`choices`), has least robust energy: a detection that is far off, or of the wrong leg, does not count.

From the robust points come the heading of a body (its right side, horizontally), where it is, and how large: medians
and medoids, in NumPy.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike, NDArray

from ..energy import Energy
from ..robust import geman_mcclure
from .cameras import Cameras

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

DISTANCE = 5000.0
"""mm: errors in images count as what they would be there."""

ROBUST_SCALE = 80.0
"""mm at `DISTANCE`; chosen on training subjects."""

V, K, P = sp.symbols("views points choices", integer=True, positive=True)
c, k, p, x, d = sp.Idx("c", V), sp.Idx("k", K), sp.Idx("p", P), sp.Idx("x", 2), sp.Idx("d", 3)
X = sp.IndexedBase("X", shape=(3,))
rows, constants = sp.IndexedBase("rows", shape=(V, K, 2, 3)), sp.IndexedBase("constants", shape=(V, K, 2))
seen, chosen = sp.IndexedBase("seen", shape=(V, K)), sp.IndexedBase("chosen", shape=(P, V))
depth_rows, depth_constants = sp.IndexedBase("depth_rows", shape=(V, 3)), sp.IndexedBase("depth_constants", shape=(V,))
first = sp.IndexedBase("first", shape=(P, K, 3))

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

    @property
    def data(self) -> dict[str, Any]:
        """What both energies read."""
        return {"rows": self.rows, "constants": self.constants, "seen": self.seen.astype(np.float64)}

    @property
    def depths(self) -> dict[str, Any]:
        """What the robust one reads besides: depth_c(X) = depth_rows_c X - depth_constants_c."""
        return {"depth_rows": self.depth_rows, "depth_constants": self.depth_constants}


def choices(cameras: int) -> Floats:
    """`chosen` (P, C), 1 where a choice has a camera: all of them, then each pair if there are more than two."""
    pairs = itertools.combinations(range(cameras), 2) if cameras > 2 else ()
    return np.array([[float(camera in choice) for camera in range(cameras)] for choice in (range(cameras), *pairs)])


def _off() -> Any:
    """|a_ck (X - T_c)|^2."""
    return sp.Sum((sp.Sum(rows[c, k, x, d] * X[d], d) - constants[c, k, x]) ** 2, x)


@cache
def squares() -> Energy:
    """Least squares of choices of cameras; where a choice leaves X free, its minimum is the one of least length."""
    return Energy(
        sp.Sum(chosen[p, c] * seen[c, k] * _off(), c),
        variables=[X],
        data=[rows, constants, seen, chosen],
        candidates={X[d]: 0},
        over=[p, k],
        name="rays",
    )


@cache
def robust() -> Energy:
    """The robust energy of a point; `first` (P, K, 3) are where it may start."""
    depth = sp.Sum(depth_rows[c, d] * X[d], d) - depth_constants[c]
    return Energy(
        sp.Sum(seen[c, k] * geman_mcclure(DISTANCE**2 * _off() / sp.Max(depth, 1) ** 2, ROBUST_SCALE), c),
        variables=[X],
        data=[rows, constants, seen, depth_rows, depth_constants, first],
        candidates={X[d]: first[p, k, d]},
        over=[k],
        name="robust rays",
    )


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
