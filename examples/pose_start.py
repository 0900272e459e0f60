"""Weights of the calibrated energy before learning, from poses and what detectors found of them.

joint_map, offset   ridge regression of the robust points on the joints, points far off left out: a quadratic energy
omega, delta        from how far off those project: 1 / (1.48 median), and 1.5
mean, precision     a mixture of Gaussians of the bones by expectation-maximisation (A. Dempster, N. Laird, D. Rubin,
                    Journal of the Royal Statistical Society B 39, 1977), precision = Cholesky factor of Sigma^-1
log_prior           log of a component's share, and of |Sigma|^-1/2
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import sympy as sp
import wiberg as wb
from numpy.typing import ArrayLike, NDArray
from wiberg.energies import pose
from wiberg.energies.pose.calibrated import BONES, PRECISION

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


def identity_weights(model: pose.Calibrated, truth: ArrayLike, features: pose.Features) -> dict[str, Any]:
    """Weights before anything is known of the detector: each point is the joint that it is named after."""
    return _weights(model, truth, features, fit=False)


def start(model: pose.Calibrated, truth: ArrayLike, features: pose.Features) -> dict[str, Any]:
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


def _weights(model: pose.Calibrated, truth: ArrayLike, features: pose.Features, fit: bool) -> dict[str, Any]:
    used = features.status == pose.Frame.ENOUGH
    if used.sum() < 4 * 3 * BONES:
        raise wb.InputError(
            f"start: {int(used.sum())} frames that are good are too few for a Gaussian of {3 * BONES} numbers; "
            f"give {4 * 3 * BONES} or more"
        )
    data = {name: array[used] for name, array in features.data.items()}
    joints = pose.in_body_frame(np.asarray(truth)[used], data)
    found = pose.in_body_frame(features.points[used], data)
    bones = joints[:, 1:] - joints[:, :1]
    joint_map, offset = np.zeros((len(model.detected), BONES)), np.zeros((len(model.detected), 3))
    for k, joint in enumerate(model.detected):
        if joint > 0:
            joint_map[k, joint - 1] = 1.0
    if fit:
        joint_map, offset = _map_of(found - joints[:, :1], bones, joint_map)
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


@cache
def ridge_regression() -> wb.Energy:
    """Of points (N, K, 3) on bones (N, 16, 3), a family over the points: coefficients near `prior`, and an offset."""
    N, K = sp.symbols("frames points", integer=True, positive=True)
    n, k, b, d = sp.Idx("n", N), sp.Idx("k", K), sp.Idx("b", BONES), sp.Idx("d", 3)
    coefficient, offset = sp.IndexedBase("coefficient", shape=(BONES,)), sp.IndexedBase("offset", shape=(3,))
    point, bones = sp.IndexedBase("point", shape=(N, K, 3)), sp.IndexedBase("bones", shape=(N, BONES, 3))
    used, prior = sp.IndexedBase("used", shape=(N, K)), sp.IndexedBase("prior", shape=(K, BONES))
    off = point[n, k, d] - sp.Sum(coefficient[b] * bones[n, b, d], b) - offset[d]
    held = sp.Sum((coefficient[b] - prior[k, b]) ** 2, b)
    return wb.Energy(
        sp.Sum(used[n, k] * off**2, d, n) + RIDGE**2 * held * sp.Sum(used[n, k], n),
        variables=[coefficient, offset],
        data=[point, bones, used, prior],
        candidates={coefficient[b]: prior[k, b], offset[d]: 0},
        over=[k],
        name="joint map",
    )


def _map_of(point: Floats, bones: Floats, prior: Floats) -> tuple[Floats, Floats]:
    """Coefficients (K, 16) and offsets (K, 3) of points (N, K, 3), relative to the hip; near `prior` where free."""
    kernel, there = wb.compile(ridge_regression()), np.isfinite(point).all(axis=-1)
    coefficient, offset = prior, np.zeros((len(prior), 3))
    for _ in range(3):
        off = point - np.einsum("kb,nbd->nkd", coefficient, bones) - offset
        distance = np.linalg.norm(off - np.nanmedian(off, axis=0), axis=-1)
        near = there & (distance < np.maximum(FAR, 3 * np.nanmedian(distance, axis=0)))
        data = {"point": np.where(near[..., None], point, 0.0), "used": near.astype(np.float64)}
        found = wb.minimise(kernel, None, {**data, "bones": bones, "prior": prior}).variables
        coefficient, offset = found["coefficient"], found["offset"]
    return coefficient, offset


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
