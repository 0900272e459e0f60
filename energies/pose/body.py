"""Body models: a rest pose, basis shapes, and how strongly each is held; several of them are a mixture.

    pose = mean_m + sum_k a_k shapes_mk,      a_k ~ N(0, 1/sigma_mk^2),      noise of 1/sigma_m,25 in each coordinate

Probabilistic principal components (M. Tipping and C. Bishop, "Mixtures of probabilistic principal component
analysers", Neural Computation 11, 1999), of poses that all face one way. `fit_bodies` makes the constants that the
models are declared with, once, from poses: k-means and singular values, no energy of this folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError

Floats = NDArray[np.float64]

SHAPES = 25

MIXTURES = (3, 6, 10)
"""How many models the authors' files have."""


@dataclass(frozen=True)
class BodyModels:
    """M body models.

    Attributes
    ----------
    mean : (M, 3, 17)
        Rest poses, mm, z up.
    shapes : (M, 25, 3, 17)
        Basis shapes, orthonormal in each model.
    sigma : (M, 26)
        One over the standard deviation of each coefficient, then that of the noise, which weighs the reprojection.
    """

    mean: Floats
    shapes: Floats
    sigma: Floats

    def __post_init__(self) -> None:
        models = len(self.mean)
        wanted = {"mean": (models, 3, 17), "shapes": (models, SHAPES, 3, 17), "sigma": (models, SHAPES + 1)}
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise InputError(f"BodyModels: {name} must be {shape}; got {getattr(self, name).shape}")

    def __len__(self) -> int:
        return len(self.mean)

    def chosen(self, models: ArrayLike) -> BodyModels:
        """Some of them, by their numbers."""
        rows = np.asarray(models, dtype=np.int64)
        return BodyModels(self.mean[rows], self.shapes[rows], self.sigma[rows])

    @classmethod
    def of_file(cls, file: Mapping[str, Any], models: int = 3) -> BodyModels:
        """The mixture of so many models of the authors' parameters (arrays mu_3, e_3, sigma_3, ...)."""
        names = [f"{letter}_{models}" for letter in ("mu", "e", "sigma")]
        missing = [name for name in names if name not in file]
        if missing:
            raise InputError(
                f"BodyModels: the file has no {', '.join(missing)}; mixtures are of "
                f"{', '.join(map(str, MIXTURES))} models"
            )
        return cls(*(np.asarray(file[name], dtype=np.float64) for name in names))


def fit_bodies(poses: ArrayLike, models: int = 3, *, seed: int = 0) -> BodyModels:
    """Body models of poses (N, 17, 3) in mm, z up: turned to face one way, put into clusters, and decomposed.

    Parameters
    ----------
    models : int
        Each is of a cluster of poses (k-means); those too small for 25 shapes are decomposed with all poses.
    seed : int
        What the first centres depend on.
    """
    rows = facing(np.asarray(poses, dtype=np.float64)).transpose(0, 2, 1).reshape(len(np.asarray(poses)), 51)
    if len(rows) < 2 * SHAPES:
        raise InputError(f"fit_bodies: {len(rows)} poses are too few for {SHAPES} shapes; give {2 * SHAPES} or more")
    cluster = _clusters(rows, models, np.random.default_rng(seed))
    means, shapes, sigmas = [], [], []
    for m in range(models):
        own = rows[cluster == m] if (cluster == m).sum() >= 2 * SHAPES else rows
        mean = own.mean(axis=0)
        _, singular, basis = np.linalg.svd(own - mean, full_matrices=False)
        deviations = singular / np.sqrt(len(own) - 1)
        noise = np.sqrt((deviations[SHAPES:] ** 2).sum() / (51 - SHAPES))
        means.append(mean.reshape(3, 17))
        shapes.append(basis[:SHAPES].reshape(SHAPES, 3, 17))
        sigmas.append(1 / np.maximum(np.append(deviations[:SHAPES], noise), 1e-3))
    return BodyModels(np.array(means), np.array(shapes), np.array(sigmas))


def facing(poses: Floats) -> Floats:
    """Poses with mean 0, turned about the vertical axis so that the right hip lies along +x of the left one."""
    centred = poses - poses.mean(axis=-2, keepdims=True)
    across = centred[..., 1, :2] - centred[..., 4, :2]
    angle = np.arctan2(across[..., 1], across[..., 0])
    cos, sin = np.cos(angle)[..., None], np.sin(angle)[..., None]
    x, y, z = np.moveaxis(centred, -1, 0)
    return np.stack([cos * x + sin * y, cos * y - sin * x, z], axis=-1)


def _clusters(rows: Floats, count: int, random: np.random.Generator) -> NDArray[np.intp]:
    """Which of `count` centres is nearest, after 50 rounds of k-means from rows drawn far from each other."""
    centres = rows[[int(random.integers(len(rows)))]]
    while len(centres) < count:
        near = ((rows[:, None] - centres) ** 2).sum(axis=-1).min(axis=1)
        centres = np.concatenate([centres, rows[[int(random.choice(len(rows), p=near / near.sum()))]]])
    for _ in range(50):
        nearest: NDArray[np.intp] = ((rows[:, None] - centres) ** 2).sum(axis=-1).argmin(axis=1)
        centres = np.array(
            [rows[nearest == m].mean(axis=0) if (nearest == m).any() else centres[m] for m in range(count)]
        )
    return nearest
