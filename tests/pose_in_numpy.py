"""The multi-camera pose model once more, in plain NumPy with one dense matrix for each system: what the declared
energies, their minimisers and all derivatives are held against. Complex weights go through, for complex steps."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from wiberg.energies import pose

Array = NDArray[Any]
EDGES = np.array(pose.NORMALISATION_EDGES)


def limb_norm(points: Array) -> Array:
    limbs = points[..., EDGES[:, 0], :] - points[..., EDGES[:, 1], :]
    return np.sqrt((limbs * limbs).sum((-1, -2)))


def magnitude(values: Array) -> Array:
    return np.where(values.real < 0, -values, values)


def lowest(values: Array) -> Array:
    return np.take_along_axis(values, values.real.argmin(-1)[..., None], -1)[..., 0]


def systems(w: dict[str, Any], x: dict[str, Any]) -> tuple[Array, Array]:
    """A (M, N, rows, 80) and b of r = A y - b: 51 rows of the body, 34 of each camera, 29 of the regulariser."""
    models, turns, cameras = len(w["mean_pose"]), len(x["rotation"]), len(w["cameras"])
    mu = x["pose_unit"] * w["mean_pose"]
    shapes = x["shape_unit"] * w["base_vectors"]
    variance = w["lambda_0"][:, :, None] * x["variance_unit"] * w["sigma_variance"]
    seen = (w["cameras"] * x["average_cameras"])[:, :2]
    turned = np.einsum("cxr,irp->icxp", seen, x["rotation"])
    omega = (w["lambda_scale"] * x["reprojection"][:, None] * w["joint_weights"]).reshape(models, 17, 2)
    weight = omega[:, None] * x["visible"][None, :, :, None]
    rows = 51 + 34 * cameras + 29
    kind = np.result_type(*(np.asarray(a).dtype for a in w.values()))
    a, b = np.zeros((models, turns, rows, 80), kind), np.zeros((models, turns, rows), kind)
    for j in range(17):
        for p in range(3):
            a[:, :, 3 * j + p, 0] = mu[:, p, j][:, None]
            a[:, :, 3 * j + p, 1 + p] = 1
            a[:, :, 3 * j + p, 4:29] = shapes[:, :, p, j][:, None]
            a[:, :, 3 * j + p, 29 + 3 * j + p] = -1
        for c in range(cameras):
            for e in range(2):
                row = 51 + 34 * c + 2 * j + e
                a[:, :, row, 29 + 3 * j : 32 + 3 * j] = weight[:, c, j, e][:, None, None] * turned[None, :, c, e]
                b[:, :, row] = (weight[:, c, j, e] * x["detections"][c, j, e])[:, None]
    a[:, :, -29:, :29] = variance[:, None]
    b[:, :, -29] = -0.003 * w["scale_regularizer"]
    return a, b


def forward(
    w: dict[str, Any], x: dict[str, Any], solver: str, steps: int = 3, choice: str = "soft"
) -> tuple[Array, Array, Array, Array]:
    """The pose, scores and shares (M, N), and shares of models: of "l2", or of so many reweightings of "steps"."""
    a, b = systems(w, x)
    models, turns, rows, _ = a.shape
    cameras = (rows - 80) // 34
    transposed = np.swapaxes(a, -1, -2)

    def solve(weight: Array, ridge: float) -> Array:
        matrix = transposed @ (weight[..., None] * a) + ridge * np.eye(80)
        return np.linalg.solve(matrix, transposed @ (weight * b)[..., None])[..., 0]

    def residuals(y: Array) -> tuple[Array, Array, Array]:
        r = (a @ y[..., None])[..., 0] - b
        return r[..., :51], r[..., 51:-29].reshape(models, turns, cameras, 17, 2), r[..., -29:]

    y = solve(np.ones(b.shape), 0.0 if solver == "l2" else 1e-3)
    if solver == "l2":
        scores = sum((r * r).reshape(models, turns, -1).sum(-1) for r in residuals(y))
    else:
        delta = (0.1 * w["ir_reg"])[:, None, None, None]
        rho = (0.75 * w["hl_param"])[:, None, None]
        for _ in range(steps):
            points = residuals(y)[1]
            n2 = ((points + 1e-7) ** 2).sum(-1) + 1e-6
            each = np.repeat((1 / np.sqrt(1 + n2 / delta**2)).reshape(models, turns, -1), 2, axis=-1)
            body, regulariser = np.ones((models, turns, 51)), np.broadcast_to(rho, (models, turns, 29))
            y = solve(np.concatenate([body, each, regulariser], axis=-1), 1e-3)
        body, points, regulariser = residuals(y)
        n2 = ((magnitude(points) + 1e-7) ** 2).sum(-1) + 1e-6
        scores = (body**2).sum(-1) / 2 + (delta**2 * (np.sqrt(1 + n2 / delta**2) - 1)).sum((-1, -2))
        scores = scores + rho[..., 0] / 2 * (regulariser**2).sum(-1)
    q = y[..., 29:].reshape(models, turns, 17, 3)
    turned = -np.einsum("ixp,mijp->mijx", x["rotation"], q)
    turned = turned / limb_norm(turned)[..., None, None]
    best = lowest(scores)
    share = np.exp(-5000 * magnitude(w["exp_weights"]) * (scores - best[:, None]))
    if choice == "lowest":
        share = np.eye(turns)[scores.real.argmin(1)]
    share = share / share.sum(1, keepdims=True)
    each = (share[..., None, None] * turned).sum(1)
    excess = 5000 * w["exp_weights_model"][:, 0] * (best - lowest(best)) / 2
    z = np.exp(-magnitude(excess + w["exp_additive_model"][:, 0]))
    z = z / z.sum() if choice == "soft" else np.eye(models)[z.real.argmax()]
    mixed = (z[:, None, None] * each).sum(0)
    return mixed / limb_norm(mixed) * w["scaling_coefficient"] * x["size"], scores, share, z
