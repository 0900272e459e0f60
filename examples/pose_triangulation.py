"""Points in space from calibrated cameras, minimised: what energies/pose/triangulation.py declares.

`features` are what the energy of model B reads of detections (examples/pose_calibrated.py).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import wiberg as wb
from numpy.typing import ArrayLike, NDArray
from wiberg.energies import pose
from wiberg.energies.pose import triangulation

Floats = NDArray[np.float64]

GTOL = 1e-6
"""mm, where the curvature of a point that is seen well is 2 to 4: far below what detections know."""


@cache
def _kernels() -> tuple[Any, Any]:
    return wb.compile(triangulation.squares()), wb.compile(triangulation.robust())


def linear(rays: triangulation.Rays) -> Floats:
    """Least squares over all cameras: (..., K, 3), NaN where less than two see a point."""
    return _where_seen(rays, _squares(rays, triangulation.choices(rays.seen.shape[-2])[:1])[..., 0, :, :])


def robust(rays: triangulation.Rays) -> Floats:
    """Robust least squares over all cameras: (..., K, 3), NaN where less than two see a point."""
    first = _squares(rays, triangulation.choices(rays.seen.shape[-2]))
    data = {**rays.data, **rays.depths, "first": first}
    return _where_seen(rays, wb.minimise(_kernels()[1], None, data, gtol=GTOL).variables["X"])


def _squares(rays: triangulation.Rays, chosen: Floats) -> Floats:
    return np.asarray(wb.minimise(_kernels()[0], None, {**rays.data, "chosen": chosen}).variables["X"])


def _where_seen(rays: triangulation.Rays, points: Any) -> Floats:
    return np.where(rays.twice[..., None], points, np.nan)


def features(
    model: pose.Calibrated,
    cameras: pose.Cameras,
    points: ArrayLike,
    visible: ArrayLike,
    person: ArrayLike | None = None,
) -> pose.Features:
    """What the energy reads of detections.

    Parameters
    ----------
    cameras : Cameras
        C of them, of a rig or of every frame.
    points : (N, C, K, 2)
        In pixels; NaN is not seen.
    visible : (N, C, K)
        1 where a point is seen, else 0.
    person : (N,), optional
        Which frames show the same person, any labels; without it all do.
    """
    rays = model.rays(cameras, points, visible)
    return model.features(rays, robust(rays), person)
