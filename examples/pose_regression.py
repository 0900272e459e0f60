"""What a model of one camera must beat: ridge regression from its detections to the pose, without a body or an energy.

    P/|P| = W f(X) + b,         f(X) = X, or X and all products of two of its coordinates

X are the normalised detections of a camera, P poses in its own axes; one regression for each camera. The ridge is the
best of a few for the last fifth of the frames that are learnt from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from wiberg.energies import pose

Floats = NDArray[np.float64]

REGRESSIONS = ("regression-linear", "regression-quadratic")

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Times the number of frames; features are scaled to variance 1."""


def one_camera_by_regression(learnt: Any, tested: Any, form: str) -> Floats:
    """Poses (N, C, 17, 3) of the tested frames, as large as the truth, by regression from other frames."""
    cameras = tested.points.shape[1]
    found = np.empty((len(tested.truth), cameras, 17, 3))
    size, known = pose.limb_norm(learnt.truth), learnt.truth - learnt.truth.mean(axis=1, keepdims=True)
    for camera in range(cameras):
        turn = learnt.average[camera]
        target = (known / size[:, None, None] @ turn.T).reshape(len(known), 51)
        source, wanted = _features(learnt, camera, form), _features(tested, camera, form)
        fitted = _ridge(source, target, wanted).reshape(-1, 17, 3) @ turn
        fitted -= fitted.mean(axis=1, keepdims=True)
        found[:, camera] = fitted / pose.limb_norm(fitted)[:, None, None]
    return found * pose.limb_norm(tested.truth)[:, None, None, None]


def _features(frames: Any, camera: int, form: str) -> Floats:
    x, seen = pose.normalise(frames.points, frames.visible)
    rows = np.where(seen[:, camera, :, None] > 0, x[:, camera], 0.0).reshape(len(x), 34)
    if form.endswith("linear"):
        return rows
    first, second = np.triu_indices(34)
    return np.concatenate([rows, rows[:, first] * rows[:, second]], axis=1)


def _ridge(source: Floats, target: Floats, wanted: Floats) -> Floats:
    cut = len(source) * 4 // 5
    errors = [np.square(_fit(source[:cut], target[:cut], source[cut:], r) - target[cut:]).sum() for r in RIDGES]
    return _fit(source, target, wanted, RIDGES[int(np.argmin(errors))])


def _fit(source: Floats, target: Floats, wanted: Floats, ridge: float) -> Floats:
    middle, spread = source.mean(axis=0), source.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    a, mean = (source - middle) / spread, target.mean(axis=0)
    w = np.linalg.solve(a.T @ a + ridge * len(a) * np.eye(a.shape[1]), a.T @ (target - mean))
    return np.asarray((wanted - middle) / spread @ w + mean)
