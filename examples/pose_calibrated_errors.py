"""How poses of calibrated cameras are judged, and what they are held against (docs/pose.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pose_calibrated_frames import Frames
from pose_calibrated_models import SPREAD
from wiberg.energies import pose
from wiberg.energies.pose import triangulation

Floats = NDArray[np.float64]

ELLIPSOIDS = {0.5: 2.366, 0.9: 6.251, 0.99: 11.345}
"""Quantiles of chi-squared with three degrees of freedom."""


def ridge(frames: Frames, tested: Frames, strength: float = 1e-4) -> Floats:
    """Poses (N, 17, 3) of frames by a linear map of the robust points, learnt by ridge regression, body frame."""
    model = pose.Calibrated(frames.detected, 1, frames.points.shape[1])

    def points(of: Frames) -> tuple[Floats, Mapping[str, Any]]:
        features = of.features(model)
        return pose.in_body_frame(features.points, features.data).reshape(len(of), -1), features.data

    (source, given), (wanted, place) = points(frames), points(tested)
    mean = np.nanmean(source, axis=0)
    source, wanted = (np.where(np.isfinite(a), a, mean) - mean for a in (source, wanted))
    target = pose.in_body_frame(frames.truth, given).reshape(len(frames), -1)
    system = source.T @ source + strength * len(source) * np.eye(source.shape[1])
    found = wanted @ np.linalg.solve(system, source.T @ (target - target.mean(axis=0))) + target.mean(axis=0)
    turned = np.einsum("ndp,njd->njp", place["turn"], found.reshape(-1, 17, 3))
    return np.asarray(1000.0 * place["size"][:, None, None] * turned + place["centre"][:, None])


def triangulated(frames: Frames, method: Any) -> Floats:
    """Joints (N, 17, 3) as they are detected, NaN for those that are not."""
    rays = triangulation.Rays.of(frames.cameras, frames.points, frames.visible)
    found = np.full((len(frames), 17, 3), np.nan)
    found[:, list(frames.detected)] = method(rays)
    if frames.form == "mpii":
        found[:, 7] = np.nan  # MPII's thorax, a third of a metre above the spine
    return found


@dataclass(frozen=True)
class Errors:
    """Mean distances of joints that are there, (N,) each, in mm; NaN for frames without a pose."""

    centred: Floats
    root_relative: Floats
    absolute: Floats

    @classmethod
    def of(cls, found: Floats, truth: Floats) -> Errors:
        there = np.isfinite(found)
        off = np.where(there, found - truth, np.nan)

        def distance(shift: Any) -> Floats:
            return np.asarray(mean(np.sqrt(((off - shift) ** 2).sum(axis=-1)), axis=-1))

        return cls(distance(mean(off, axis=1)[:, None]), distance(off[:, :1]), distance(0.0))


def mean(array: Floats, axis: int) -> Floats:
    count = np.isfinite(array).sum(axis=axis)
    total = np.nansum(array, axis=axis)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


@dataclass(frozen=True)
class Calibration:
    """Whether covariances of joints say how far off the joints are.

    coverage     share of the joints that are within ellipsoids of so much probability
    factor       what `SPREAD` would have to be for half of them to be within those of 50 %
    deviation    median predicted distance, sqrt(trace), mm
    least_sure   of the tenth of joints with the largest: predicted distance and error, root mean squares, mm
    rank         Spearman's correlation of predicted distance and error among the others
    """

    coverage: dict[str, float]
    factor: float
    deviation: float
    least_sure: tuple[float, float]
    rank: float

    @classmethod
    def of(cls, found: Floats, truth: Floats, spread: Floats) -> Calibration:
        """Of poses and truths (N, 17, 3), covariances (N, 17, 3, 3) about the mean joint, mm^2; whole poses count."""
        whole = np.isfinite(found).all(axis=(1, 2)) & np.isfinite(spread).all(axis=(1, 2, 3))
        found, truth, spread = found[whole], truth[whole], spread[whole]
        off = (found - found.mean(axis=1, keepdims=True)) - (truth - truth.mean(axis=1, keepdims=True))
        squared = (off * np.linalg.solve(spread, off[..., None])[..., 0]).sum(axis=-1)
        predicted = np.sqrt(np.trace(spread, axis1=-2, axis2=-1)).ravel()
        error = np.sqrt((off**2).sum(axis=-1)).ravel()
        unsure = predicted >= np.quantile(predicted, 0.9)
        ranks = [a[~unsure].argsort().argsort() for a in (predicted, error)]
        return cls(
            {str(level): float((squared < bound).mean()) for level, bound in ELLIPSOIDS.items()},
            float(SPREAD * np.median(squared) / ELLIPSOIDS[0.5]),
            float(np.median(predicted)),
            tuple(float(np.sqrt((a[unsure] ** 2).mean())) for a in (predicted, error)),
            float(np.corrcoef(*ranks)[0, 1]),
        )

    def __str__(self) -> str:
        held = ", ".join(
            f"{100 * share:.0f} % within ellipsoids of {100 * float(q):.0f} %" for q, share in self.coverage.items()
        )
        predicted, error = self.least_sure
        return (
            f"uncertainty (median {self.deviation:.0f} mm): of joints {held}; half would be with a factor of "
            f"{self.factor:.2f}; the tenth that is least sure: {predicted:.0f} mm predicted, {error:.0f} mm off; "
            f"rank correlation of the others {self.rank:.2f}"
        )
