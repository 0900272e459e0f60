"""Calibrated cameras: where they stand, how they look, and how their lenses bend what they see.

    Xc = R (X - T),   x = Xc_xy / Xc_z,   r2 = |x|^2
    pixel = f o (x (1 + k0 r2 + k1 r2^2 + k2 r2^3 + p0 x_2 + p1 x_1) + (p1, p0) r2) + c

D. C. Brown, "Decentering distortion of lenses", Photogrammetric Engineering 32, 1966; Human3.6M's form of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError

Floats = NDArray[np.float64]

ROUNDS = 20
"""Of the fixed point that undoes a lens: each gains a digit where a lens bends by a tenth."""


@dataclass(frozen=True)
class Cameras:
    """C cameras of one rig, or with an axis in front those of every frame.

    Attributes
    ----------
    rotation : (..., C, 3, 3)
        World to camera: rows are right, down and depth.
    position : (..., C, 3)
        In mm.
    focal, centre : (..., C, 2)
        In pixels; what broadcasts to that will do.
    radial : (..., C, 3)
    tangential : (..., C, 2)
        Of the lens; 0 by default.
    """

    rotation: Floats
    position: Floats
    focal: Floats
    centre: Floats
    radial: Floats = field(default_factory=lambda: np.zeros(3))
    tangential: Floats = field(default_factory=lambda: np.zeros(2))

    def __post_init__(self) -> None:
        lead = np.shape(self.rotation)[:-2]
        if np.shape(self.rotation)[-2:] != (3, 3) or not lead:
            raise InputError(f"Cameras: rotation must be (..., C, 3, 3); got {np.shape(self.rotation)}")
        last = {"position": 3, "focal": 2, "centre": 2, "radial": 3, "tangential": 2}
        for name, count in last.items():
            given = np.asarray(getattr(self, name), dtype=np.float64)
            try:
                object.__setattr__(self, name, np.broadcast_to(given, (*lead, count)))
            except ValueError:
                raise InputError(
                    f"Cameras: {name} must broadcast to {(*lead, count)}, as rotation has it; got {given.shape}"
                ) from None
            if not np.isfinite(given).all():
                raise InputError(f"Cameras: {name} has NaN or infinite entries")

    def chosen(self, rows: NDArray[np.int64]) -> Cameras:
        """The cameras of some frames; those of a rig stay as they are."""
        if np.ndim(self.rotation) == 3:
            return self
        names = ("rotation", "position", "focal", "centre", "radial", "tangential")
        return Cameras(*(getattr(self, name)[rows] for name in names))

    def project(self, points: ArrayLike) -> Floats:
        """Pixels (..., C, J, 2) of points (..., J, 3) in mm."""
        moved = np.asarray(points, dtype=np.float64)[..., None, :, :] - self.position[..., None, :]
        seen = np.einsum("...cxp,...cjp->...cjx", self.rotation, moved)
        return self._bent(seen[..., :2] / seen[..., 2:])

    def undistort(self, pixels: ArrayLike) -> Floats:
        """x = Xc_xy / Xc_z of detections (..., C, K, 2) in pixels: (..., C, K, 2); NaN stays NaN."""
        given = np.asarray(pixels, dtype=np.float64)
        if given.ndim < 3 or given.shape[-1] != 2 or given.shape[-3] != self.rotation.shape[-3]:
            raise InputError(
                f"Cameras: detections of {self.rotation.shape[-3]} cameras must be (..., {self.rotation.shape[-3]}, "
                f"K, 2); got {given.shape}"
            )
        bent = (given - self.centre[..., None, :]) / self.focal[..., None, :]
        x = bent
        if self.radial.any() or self.tangential.any():
            for _ in range(ROUNDS):
                factor, shift = self._lens(x)
                x = (bent - shift) / factor
        return np.asarray(x)

    def _bent(self, x: Floats) -> Floats:
        factor, shift = self._lens(x)
        return np.asarray(self.focal[..., None, :] * (x * factor + shift) + self.centre[..., None, :])

    def _lens(self, x: Floats) -> tuple[Floats, Floats]:
        k, p = self.radial[..., None, :], self.tangential[..., None, :]
        r2 = (x * x).sum(axis=-1)
        factor = (
            1 + r2 * (k[..., 0] + r2 * (k[..., 1] + r2 * k[..., 2])) + p[..., 0] * x[..., 1] + p[..., 1] * x[..., 0]
        )
        return factor[..., None], r2[..., None] * p[..., ::-1]
