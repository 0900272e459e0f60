"""How far a pose is from the truth, in its unit: the three metrics of the authors' code.

0  procrustes 14   aligned (translation, rotation, scale) over all 17 joints, then the mean over 14 of them
1  procrustes 17   the same, mean over all 17
2  euclidean       mean distance of joints without any alignment: what is learnt from, and the paper's table 2
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

ERRORS = ("procrustes 14", "procrustes 17", "euclidean")

FOURTEEN = (1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 13, 14, 15, 16)


def euclidean(pose: ArrayLike, truth: ArrayLike) -> Floats:
    """Mean distance of joints, for poses (..., 17, 3) and truths that are centred: (...)."""
    return np.asarray(np.linalg.norm(np.asarray(pose) - np.asarray(truth), axis=-1).mean(axis=-1))


def align(pose: ArrayLike, truth: ArrayLike) -> Floats:
    """Poses (..., 17, 3) moved, turned and scaled onto the truths, without reflection, around the origin."""
    p, t = (np.asarray(a, dtype=np.float64) for a in (pose, truth))
    p, t = p - p.mean(axis=-2, keepdims=True), t - t.mean(axis=-2, keepdims=True)
    sizes = [np.sqrt((a * a).sum(axis=(-1, -2), keepdims=True)) for a in (p, t)]
    u, s, v = np.linalg.svd(np.swapaxes(t / sizes[1], -1, -2) @ (p / sizes[0]))
    sign = np.sign(np.linalg.det(np.swapaxes(v, -1, -2) @ np.swapaxes(u, -1, -2)))
    signs = np.ones_like(s)
    signs[..., 2] = sign
    turn = np.swapaxes(v, -1, -2) @ (signs[..., :, None] * np.swapaxes(u, -1, -2))
    scale = (s * signs).sum(axis=-1)[..., None, None] * sizes[1] / sizes[0]
    return np.asarray(scale * p @ turn)


def procrustes(pose: ArrayLike, truth: ArrayLike) -> tuple[Floats, Floats]:
    """Mean distance after `align` over 14 joints and over 17: (...) each."""
    t = np.asarray(truth, dtype=np.float64)
    distances = np.linalg.norm(align(pose, t) - (t - t.mean(axis=-2, keepdims=True)), axis=-1)
    return np.asarray(distances[..., list(FOURTEEN)].mean(axis=-1)), np.asarray(distances.mean(axis=-1))
