"""Weights of the calibrated energy before learning, in closed form from poses and what detectors found of them.

joint_map, offset   ridge regression of the robust points on the joints, points far off left out
omega, delta        from how far off those project: 1 / (1.48 median), and 1.5
mean, precision     a mixture of Gaussians of the bones by expectation-maximisation (A. Dempster, N. Laird, D. Rubin,
                    Journal of the Royal Statistical Society B 39, 1977), precision = Cholesky factor of Sigma^-1
log_prior           log of a component's share, and of |Sigma|^-1/2
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from .calibrated import BONES, PRECISION, Calibrated, Features, in_body_frame
from .frame import Frame

Floats = NDArray[np.float64]

RIDGE = 0.03
"""m: what a coefficient of the joint map is held to the identity with, times the root of the number of frames."""

FAR = 0.15
"""m: a robust point that is further than this from what the map says is a wrong one."""

SMOOTHING = 0.01
"""m: added to each bone's standard deviation in quadrature, so that no precision is infinite."""

WIDTH, ROUNDS = 1.5, 30


@dataclass(frozen=True)
class Mixture:
    """M Gaussians of bones: mean (M, 48), precision (M, 48, 48) as Cholesky factors of Sigma^-1, log_prior (M,)."""

    mean: Floats
    precision: Floats
    log_prior: Floats


def identity_weights(model: Calibrated, truth: ArrayLike, features: Features) -> dict[str, Any]:
    """Weights before anything is known of the detector: each point is the joint that it is named after."""
    return _weights(model, truth, features, fit=False)


def start(model: Calibrated, truth: ArrayLike, features: Features) -> dict[str, Any]:
    """All weights, under their names.

    Parameters
    ----------
    truth : (N, 17, 3)
        mm in the world.
    features : Features
        Of the same N frames.

    Raises
    ------
    InputError
        Where there are too few frames.
    """
    return _weights(model, truth, features, fit=True)


def _weights(model: Calibrated, truth: ArrayLike, features: Features, fit: bool) -> dict[str, Any]:
    used = features.status == Frame.ENOUGH
    if used.sum() < 4 * 3 * BONES:
        raise InputError(
            f"start: {int(used.sum())} frames that are good are too few for a Gaussian of {3 * BONES} numbers; "
            f"give {4 * 3 * BONES} or more"
        )
    data = {name: array[used] for name, array in features.data.items()}
    joints = in_body_frame(np.asarray(truth)[used], data)
    found = in_body_frame(features.points[used], data)
    bones = joints[:, 1:] - joints[:, :1]
    joint_map, offset = np.zeros((len(model.detected), BONES)), np.zeros((len(model.detected), 3))
    for k, joint in enumerate(model.detected):
        if joint > 0:
            joint_map[k, joint - 1] = 1.0
        if fit:
            joint_map[k], offset[k] = _map_of(found[:, k] - joints[:, 0], bones, joint_map[k])
    expected = joints[:, :1] + np.einsum("kb,nbd->nkd", joint_map, bones) + offset
    off = np.linalg.norm(np.einsum("nckxd,nkd->nckx", data["view"], expected) - data["seen_at"], axis=-1)
    off = np.where((data["view"] != 0).any(axis=(-1, -2)), off, np.nan)
    spread = 1.48 / 1.18 * np.nanmedian(off, axis=0)  # of a coordinate: the median of a Rayleigh distance is 1.18 sigma
    mixture = fit_mixture(bones.reshape(len(bones), -1), model.components)
    return {
        "joint_map": joint_map,
        "offset": offset,
        "omega": 1 / np.maximum(spread, 1e-3),
        "delta": np.full(len(model.detected), WIDTH),
        "mean": mixture.mean.reshape(-1, BONES, 3),
        "precision": mixture.precision.reshape(-1, BONES, 3, 3 * BONES) / PRECISION,
        "log_prior": mixture.log_prior,
        "sharpness": 0.0,
    }


def _map_of(point: Floats, bones: Floats, prior: Floats) -> tuple[Floats, Floats]:
    """The coefficients (16,) and offset (3,) of one point (N, 3), relative to the hip; near `prior` where free."""
    used = np.isfinite(point[:, 0])
    coefficients, offset = prior, np.zeros(3)
    for _ in range(3):
        off = point - bones.transpose(0, 2, 1) @ coefficients - offset
        distance = np.linalg.norm(off - np.nanmedian(off, axis=0), axis=-1)
        near = used & (distance < max(FAR, 3 * float(np.median(distance[used]))))
        x, y = bones[near], point[near]
        centred = x - x.mean(axis=0)
        system = np.einsum("nbd,ncd->bc", centred, centred) + len(x) * RIDGE**2 * np.eye(BONES)
        residual = y - y.mean(axis=0) - centred.transpose(0, 2, 1) @ prior
        coefficients = prior + np.linalg.solve(system, np.einsum("nbd,nd->b", centred, residual))
        offset = y.mean(axis=0) - x.mean(axis=0).T @ coefficients
    return coefficients, offset


def fit_mixture(rows: Floats, components: int, seed: int = 0) -> Mixture:
    """M Gaussians of rows (N, D), in m; too few rows for M make the same Gaussian several times over."""
    random = np.random.default_rng(seed)
    count, size = rows.shape
    centres = rows[random.choice(count, components, replace=False)]
    for _ in range(20):
        nearest = ((rows[:, None] - centres) ** 2).sum(axis=-1).argmin(axis=1)
        centres = np.array(
            [rows[nearest == m].mean(axis=0) if (nearest == m).any() else centres[m] for m in range(components)]
        )
    share = np.eye(components)[nearest]
    everyone = np.cov(rows.T) + SMOOTHING**2 * np.eye(size)
    for _ in range(ROUNDS):
        means, factors, log_priors, scores = [], [], [], []
        for m in range(components):
            own = share[:, m].sum() + 1e-12
            mean = share[:, m] @ rows / own
            centred = rows - mean
            covariance = (centred * share[:, m, None]).T @ centred / own + SMOOTHING**2 * np.eye(size)
            borrowed = min(1.0, size / own)  # a component of few frames borrows from everyone's covariance
            covariance = (1 - borrowed) * covariance + borrowed * everyone
            factor = np.linalg.cholesky(np.linalg.inv(covariance))
            log_prior = np.log(own / count) + np.log(np.diag(factor)).sum()
            means.append(mean)
            factors.append(factor)
            log_priors.append(log_prior)
            scores.append(log_prior - 0.5 * ((centred @ factor) ** 2).sum(axis=1))
        score = np.stack(scores, axis=1)
        share = np.exp(score - score.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
    log_prior = np.array(log_priors)
    return Mixture(np.array(means), np.array(factors), log_prior - log_prior.max())
