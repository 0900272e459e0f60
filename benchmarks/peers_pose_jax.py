"""The peer of pose_peers.py: the paper's multi-camera model in JAX, float64, differentiated in reverse mode through its
solver, one jitted function for loss and gradients of all weights.

A frame is 300 least squares problems (3 bodies, 100 rotations) of 80 unknowns (s, t, a, q) and 216 residuals, solved
once ("l2") or four times ("steps": with a ridge, then three reweightings). Written in three ways:

    "dense"       as the model's authors do: A (216, 80) of each member, x = solve(A'WA + ridge, A'Wb)
    "cholesky"    the same by Cholesky's factorisation
    "eliminated"  q, 17 blocks of 3 x 3, is solved out in closed form first: one Cholesky of 29 x 29 a member

Formulas are docs/pose.md's. Batches of frames are mapped (vmap); pose_peers.py finds out which size is fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from wiberg.energies import pose

jax.config.update("jax_enable_x64", True)

Array = jax.Array
EDGES = np.array(pose.NORMALISATION_EDGES)
SHAPES, REWEIGHTINGS = 25, 3


def limb_norm(points: Array) -> Array:
    limbs = points[..., EDGES[:, 0], :] - points[..., EDGES[:, 1], :]
    return jnp.sqrt((limbs * limbs).sum((-1, -2)))


def effective(w: Mapping[str, Array], x: Mapping[str, Any]) -> dict[str, Array]:
    """What does not depend on the frame: the body and Lambda of each model, cameras of each rotation."""
    mu = x["pose_unit"] * w["mean_pose"].transpose(0, 2, 1)  # (M, 17, 3)
    shapes = x["shape_unit"] * w["base_vectors"].transpose(0, 3, 2, 1)  # (M, 17, 3, 25)
    shift = jnp.broadcast_to(jnp.eye(3), (*mu.shape, 3))
    return {
        "body": jnp.concatenate([mu[..., None], shift, shapes], axis=-1),  # (M, 17, 3, 29)
        "Lambda": w["lambda_0"][:, :, None] * x["variance_unit"] * w["sigma_variance"],
        "target": -0.003 * w["scale_regularizer"] * jnp.eye(4 + SHAPES)[0],
        "cameras": jnp.einsum("cxr,irp->icxp", (w["cameras"] * x["average_cameras"])[:, :2], x["rotation"]),
        "omega": (w["lambda_scale"] * x["reprojection"][:, None] * w["joint_weights"]).reshape(-1, 17, 2),
    }


def by_cholesky(matrix: Array, right: Array) -> Array:
    flat, columns = matrix.reshape(-1, *matrix.shape[-2:]), right.reshape(-1, right.shape[-1])
    solve = jax.vmap(partial(jax.scipy.linalg.solve, assume_a="pos"))
    return solve(flat, columns).reshape(right.shape)


def by_elimination(matrix: Array, right: Array) -> Array:
    return jnp.linalg.solve(matrix, right[..., None])[..., 0]


def inverse(matrix: Array) -> Array:
    """Of 3 x 3 matrices, by cofactors."""
    a, b, c = (matrix[..., :, i] for i in range(3))
    rows = jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)], axis=-2)
    return rows / (a * rows[..., 0, :]).sum(-1)[..., None, None]


# Solvers: weights of points (M, N, C, 17) and of the regulariser (M,) -> (s, t, a) (M, N, 29) and q (M, N, 17, 3).
# views (M, N, C, 17, 2, 3) and seen (M, 1, C, 17, 2) are the points' rows: r = views q - seen.


def dense(
    fixed: Mapping[str, Array], views: Array, seen: Array, ridge: float, by: Callable[..., Array] = by_elimination
) -> Callable[..., tuple[Array, Array]]:
    models, turns, cameras = views.shape[:3]
    joints = jnp.eye(17)
    of_body = jnp.concatenate([fixed["body"], -jnp.einsum("jk,pq->jpkq", joints, jnp.eye(3)).reshape(1, 17, 3, 51)
                               .repeat(models, 0)], axis=-1).reshape(models, 1, 51, 80)  # fmt: skip
    of_points = jnp.einsum("micjxp,jk->micjxkp", views, joints).reshape(models, turns, 34 * cameras, 51)
    of_points = jnp.concatenate([jnp.zeros((models, turns, 34 * cameras, 29)), of_points], axis=-1)
    of_prior = jnp.concatenate([fixed["Lambda"], jnp.zeros((models, 29, 51))], axis=-1)[:, None]
    a = jnp.concatenate([jnp.broadcast_to(part, (models, turns, *part.shape[2:])) for part in
                         (of_body, of_points, of_prior)], axis=2)  # fmt: skip
    flat = seen.reshape(models, -1)
    b = jnp.concatenate([jnp.zeros((models, 51)), flat, jnp.broadcast_to(fixed["target"], (models, 29))], axis=1)

    def solve(weight: Array, rho: Array) -> tuple[Array, Array]:
        each = jnp.broadcast_to(weight[..., None], (models, turns, cameras, 17, 2)).reshape(models, turns, -1)
        prior = jnp.broadcast_to(rho[:, None, None], (models, turns, 29))
        weighted = a * jnp.concatenate([jnp.ones((models, turns, 51)), each, prior], axis=-1)[..., None]
        matrix = jnp.einsum("mirk,mirl->mikl", weighted, a) + ridge * jnp.eye(80)
        y = by(matrix, jnp.einsum("mirk,mr->mik", weighted, b))
        return y[..., :29], y[..., 29:].reshape(models, turns, 17, 3)

    return solve


def eliminated(
    fixed: Mapping[str, Array], views: Array, seen: Array, ridge: float
) -> Callable[..., tuple[Array, Array]]:
    body, identity = fixed["body"], jnp.eye(3)
    gram = jnp.einsum("mjpk,mjpl->mkl", body, body)

    def solve(weight: Array, rho: Array) -> tuple[Array, Array]:
        weighted = views * weight[..., None, None]
        block = inverse(jnp.einsum("micjxp,micjxq->mijpq", weighted, views) + (1 + ridge) * identity)
        right = jnp.einsum("mijpq,micjxq,mcjx->mijp", block, weighted, seen[:, 0])
        prior = jnp.einsum("mrk,mrl->mkl", fixed["Lambda"], fixed["Lambda"]) * rho[:, None, None]
        matrix = (gram + prior + ridge * jnp.eye(29))[:, None]
        matrix = matrix - jnp.einsum("mjpk,mijpl->mikl", body, jnp.einsum("mijpq,mjql->mijpl", block, body))
        known = jnp.einsum("mrk,r->mk", fixed["Lambda"], fixed["target"]) * rho[:, None]
        z = by_cholesky(matrix, jnp.einsum("mjpk,mijp->mik", body, right) + known[:, None])
        near = jnp.einsum("mjpk,mik->mijp", body, z)
        return z, jnp.einsum("mijpq,mijq->mijp", block, near) + right

    return solve


WAYS = {"dense": dense, "cholesky": partial(dense, by=by_cholesky), "eliminated": eliminated}


def frame_pose(w: Mapping[str, Array], x: Mapping[str, Any], frame: Mapping[str, Array], solver: str, way: str) -> Any:
    """The pose (17, 3) of one frame."""
    fixed = effective(w, x)
    weight = fixed["omega"][:, None] * frame["visible"][None, :, :, None]  # (M, C, 17, 2)
    views = weight[:, None, ..., None] * fixed["cameras"][None, :, :, None]
    seen = (weight * frame["detections"])[:, None]
    models, turns = views.shape[:2]
    every, one = jnp.ones((*views.shape[:4],)), jnp.ones(models)
    solve = WAYS[way](fixed, views, seen, 0.0 if solver == "l2" else 1e-3)

    def residuals(z: Array, q: Array) -> tuple[Array, Array, Array]:
        near = jnp.einsum("mjpk,mik->mijp", fixed["body"], z) - q
        prior = jnp.einsum("mrk,mik->mir", fixed["Lambda"], z) - fixed["target"]
        return near, jnp.einsum("micjxp,mijp->micjx", views, q) - seen, prior

    z, q = solve(every, one)
    if solver == "l2":
        scores = sum((r * r).reshape(models, turns, -1).sum(-1) for r in residuals(z, q))
    else:
        delta, rho = (0.1 * w["ir_reg"])[:, None, None, None], 0.75 * w["hl_param"]
        for _ in range(REWEIGHTINGS):
            n2 = ((residuals(z, q)[1] + 1e-7) ** 2).sum(-1) + 1e-6
            z, q = solve(1 / jnp.sqrt(1 + n2 / delta**2), rho)
        near, points, prior = residuals(z, q)
        n2 = ((jnp.abs(points) + 1e-7) ** 2).sum(-1) + 1e-6
        scores = (near**2).sum((-1, -2)) / 2 + (delta**2 * (jnp.sqrt(1 + n2 / delta**2) - 1)).sum((-1, -2))
        scores = scores + rho[:, None] / 2 * (prior**2).sum(-1)
    turned = -jnp.einsum("ixp,mijp->mijx", x["rotation"], q)
    turned = turned / limb_norm(turned)[..., None, None]
    best = scores.min(1)
    share = jnp.exp(-5000 * jnp.abs(w["exp_weights"]) * (scores - best[:, None]))
    each = jnp.einsum("mi,mijx->mjx", share / share.sum(1, keepdims=True), turned)
    excess = 2500 * w["exp_weights_model"][:, 0] * (best - best.min())
    of_model = jnp.exp(-jnp.abs(excess + w["exp_additive_model"][:, 0]))
    mixed = jnp.einsum("m,mjx->jx", of_model / of_model.sum(), each)
    return mixed / limb_norm(mixed) * w["scaling_coefficient"] * frame["size"]


OF_FRAMES = ("detections", "visible", "size")

Call = Callable[[Mapping[str, Array], Mapping[str, Array]], Any]


def value_and_gradient(data: Mapping[str, Any], solver: str, way: str) -> Call:
    """A call that gives the sum of mean joint distances of frames, and its gradients by w."""
    x = {name: jnp.asarray(array) for name, array in data.items() if name not in (*OF_FRAMES, "edges")}

    def loss(w: Any, x: Any, frames: Any) -> Array:
        found = jax.vmap(lambda frame: frame_pose(w, x, frame, solver, way))(frames)
        return jnp.sqrt(((found - frames["truth"]) ** 2).sum(-1)).mean(-1).sum()

    call = jax.jit(jax.value_and_grad(loss))
    return lambda w, frames: jax.block_until_ready(call(w, x, frames))


def frames_on_device(data: Mapping[str, Any], truth: NDArray[np.float64], count: int) -> dict[str, Array]:
    """The first so many frames."""
    return {name: jnp.asarray(array[:count]) for name, array in {**data, "truth": truth}.items()
            if name in (*OF_FRAMES, "truth")}  # fmt: skip


def on_device(weights: Mapping[str, Any]) -> dict[str, Array]:
    return {name: jnp.asarray(array, dtype=float) for name, array in weights.items()}
