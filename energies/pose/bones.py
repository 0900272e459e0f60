"""Bones that a person keeps: lengths shared by all frames of one person.

What a frame says of a bone's length is noise but for the person's own; the median over frames is much less so.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .skeleton import EDGES

Floats = NDArray[np.float64]

SHARE = 0.5
"""How far bones go to the lengths of their person; chosen on two training subjects (docs/pose.md)."""


def steadied(poses: ArrayLike, person: ArrayLike | None = None, share: float = SHARE) -> Floats:
    """Poses (N, 17, 3) whose bones are nearer to those of their person; frames of NaN stay so, and do not count.

    Each bone keeps its direction, the pose its mean.

    Parameters
    ----------
    person : (N,), optional
        Which frames show the same person, any labels; without it all do.
    share : float
        0 changes nothing; 1 gives all frames of a person the same lengths, the medians of those given.

    Examples
    --------
    >>> import numpy as np
    >>> one = np.random.default_rng(0).normal(size=(17, 3))
    >>> made = steadied(np.stack([one, one, 2 * one]), share=1.0)
    >>> bool(np.allclose(made[2], one + made[2].mean(axis=0) - one.mean(axis=0)))
    True
    """
    given = np.asarray(poses, dtype=np.float64)
    label = np.zeros(len(given), dtype=np.int64) if person is None else np.unique(person, return_inverse=True)[1]
    whole: NDArray[np.bool_] = np.asarray(np.isfinite(given).all(axis=(-1, -2)))
    made = given.copy()
    for one in np.unique(label[whole]):
        rows = np.flatnonzero(whole & (label == one))
        moved = given[rows].copy()
        for parent, child in EDGES:
            bone = given[rows, child] - given[rows, parent]
            length = np.linalg.norm(bone, axis=-1, keepdims=True)
            wanted = (1 - share) * length + share * np.median(length)
            moved[:, child] = moved[:, parent] + bone * (wanted / np.maximum(length, 1e-9))
        shift = given[rows].mean(axis=1, keepdims=True) - moved.mean(axis=1, keepdims=True)
        made[rows] = moved + shift
    return made
