"""The paper's monocular model (section 5, eq. 11 and 12): a body model for each of M kinds of poses, seen by one camera
of which the average rotation is known, turned about the vertical axis by each of N angles.

    P[j]      = s mu_j + t + sum_k a_k e_kj                                the body, without a free pose of its own
    r_rep[j]  = gamma v_j omega_j o (A R P_j - X_j)                        2 of each joint
    r_reg     = Lambda (s, t, a) - (b_s, 0, ..., 0)                        29
    E         = |r_rep|^2 + |r_reg|^2

With three of four cameras left out, the energy of multi_camera.py does not do: its free pose follows one camera's
joints anywhere along the depth. Here depth comes from the body alone. The scale is s, so that a/s are coefficients of a
body as large as the model.

What comes out is chosen among the M x N minima by their energies:

    "lowest"     the pose of the lowest, as in the paper
    "soft"       their average, by exp(-5000 exp_weights_m E - exp_additive_model_m)

Weights have the names and meanings of multi_camera.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike, NDArray

from ..energy import Energy
from ..errors import InputError, nearest
from ..extrema import minimum
from .body import SHAPES, BodyModels
from .features import detections, rotations
from .multi_camera import (
    EFFECTIVE,
    NOTHING,
    SCALE,
    SHARPNESS,
    UNKNOWNS,
    A,
    Lambda,
    M,
    MultiCamera,
    N,
    average_cameras,
    base_vectors,
    cameras,
    d,
    e,
    edge,
    edges,
    exp_additive_model,
    exp_weights,
    i,
    i_other,
    j,
    joint_weights,
    k,
    lambda_0,
    lambda_scale,
    m,
    m_other,
    mean_pose,
    mu,
    omega,
    p,
    pose_unit,
    reprojection,
    rotation,
    row,
    scale_regularizer,
    scaling_coefficient,
    shape_unit,
    sigma_variance,
    size,
    variance_unit,
    x,
)

Floats = NDArray[np.float64]

CHOICES = ("soft", "lowest")

LAMBDA_SCALE = 0.3
"""Where `lambda_scale` starts: with 10, as for several cameras, bodies are bent to meet one camera's joints."""

SHARP = 8.0
"""Where `exp_weights` start: with 1, averages are of bodies that face many ways, and learning keeps them so."""

PLACE = 1e-3
"""How strongly the place t is held at 0 in the beginning: its depth is not seen, and 1e-5 is lost in rounding."""

X, v = sp.IndexedBase("detections", shape=(17, 2)), sp.IndexedBase("visible", shape=(17,))
view = sp.IndexedBase("view", shape=(1,), integer=True)
truth = sp.IndexedBase("truth", shape=(17, 3))
B = sp.IndexedBase("B", shape=(N, 2, 3))
j_other = sp.Idx("j_other", 17)

WEIGHTS = (
    *(mean_pose, base_vectors, sigma_variance, lambda_0, lambda_scale, scale_regularizer, joint_weights, cameras),
)
CHOICE_WEIGHTS = (exp_weights, exp_additive_model, scaling_coefficient)
DATA = (pose_unit, shape_unit, variance_unit, average_cameras, rotation, reprojection, X, v, view)

VIEW = {
    **{key: formula for key, formula in EFFECTIVE.items() if key.base != A},
    B[i, x, p]: sp.Sum(cameras[view[0], x, d] * average_cameras[view[0], x, d] * rotation[i, d, p], d),
}
"""Effective parameters: those of several cameras, with the rows of the one that sees, turned."""


def _residuals(place: tuple[Any, ...], s: Any, t: Any, a: Any) -> tuple[Any, Any, Any, dict[Any, Any]]:
    """P, r_rep[j, x] and r_reg[row] of a member, and what defines them; `place` is (m, i) where minima are read."""
    axes = (M, N) if place else ()
    body = sp.IndexedBase("body", shape=(*axes, 17, 3))
    r_rep, r_reg = sp.IndexedBase("r_rep", shape=(*axes, 17, 2)), sp.IndexedBase("r_reg", shape=(*axes, UNKNOWNS))
    rep, reg = r_rep[(*place, j, x)], r_reg[(*place, row)]
    regulariser = Lambda[m, row, 0] * s + sp.Sum(Lambda[m, row, 1 + p] * t(p), p)
    regulariser += sp.Sum(Lambda[m, row, 4 + k] * a(k), k)
    target = sp.Piecewise((SCALE * scale_regularizer, sp.Eq(row, 0)), (0, True))
    where = {
        body[(*place, j, p)]: s * mu[m, j, p] + t(p) + sp.Sum(a(k) * e[m, k, j, p], k),
        rep: omega[m, j, x] * v[j] * (sp.Sum(B[i, x, p] * body[(*place, j, p)], p) - X[j, x]),
        reg: regulariser - target,
    }
    return body, rep, reg, where


@dataclass(frozen=True, eq=False)
class Monocular:
    """The model of one mixture of body models and the average cameras of which one sees.

    Attributes
    ----------
    bodies : BodyModels
    average : (C, 3, 3)
        Average rotations, world to camera: rows are the camera's right, down and depth.
    choice : {"soft", "lowest"}
        What the pose is of the M x N minima.
    turns : (N, 3, 3)
        Rotations about the vertical axis: 100 by default.

    Examples
    --------
    >>> import numpy as np, wiberg as wb
    >>> from wiberg.energies import pose
    >>> random = np.random.default_rng(0)
    >>> bodies = pose.fit_bodies(random.normal(size=(60, 17, 3)), models=2)
    >>> model = pose.Monocular(bodies, np.tile(np.eye(3), (4, 1, 1)))
    >>> wb.compile(model.energy).quadratic
    True
    """

    bodies: BodyModels
    average: Floats
    choice: str = "soft"
    turns: Floats = field(default_factory=rotations)

    solver = "l2"

    def __post_init__(self) -> None:
        if self.choice not in CHOICES:
            raise InputError(
                f"Monocular: no choice {self.choice!r}{nearest(str(self.choice), CHOICES)}; one of {', '.join(CHOICES)}"
            )
        if self.average.ndim != 3 or self.average.shape[1:] != (3, 3):
            raise InputError(f"Monocular: average cameras must be (C, 3, 3); got {self.average.shape}")

    # ------------------------------------------------------------------------------------------ declarations

    @property
    def options(self) -> dict[str, Any]:
        """Of `wb.minimise`."""
        return {}

    @cached_property
    def energy(self) -> Energy:
        """The energy of one member: unknowns s, t (3,), a (25,); a family over models and rotations."""
        s, t, a = sp.Symbol("s", real=True), sp.IndexedBase("t", shape=(3,)), sp.IndexedBase("a", shape=(SHAPES,))
        _, rep, reg, where = _residuals((), s, lambda p: t[p], lambda k: a[k])
        return Energy(
            sp.Sum(rep**2, x, j) + sp.Sum(reg**2, row),
            variables=[s, t, a],
            weights=list(WEIGHTS),
            data=list(DATA),
            where={**VIEW, **where},
            candidates={s: 0, t[p]: 0, a[k]: 0},
            over=[m, i],
            name="pose monocular",
        )

    @cached_property
    def output(self) -> dict[str, Any]:
        """What `wb.Output(minima=kernel, **model.output)` makes `pose` (17, 3) of."""
        return self._output("pose")

    @cached_property
    def report(self) -> dict[str, Any]:
        """The same with `score` and `share` (M, N), of all minima."""
        return self._output("report")

    @cached_property
    def expected_error(self) -> dict[str, Any]:
        """The same for `error`: the mean distance of joints from the datum `truth`, averaged over minima by shares."""
        return self._output("error")

    def _output(self, name: str) -> dict[str, Any]:
        s, t, a = (
            sp.IndexedBase(symbol, shape=(M, N, *axes)) for symbol, axes in (("s", ()), ("t", (3,)), ("a", (SHAPES,)))
        )
        body, rep, reg, where = _residuals((m, i), s[m, i], lambda p: t[m, i, p], lambda k: a[m, i, k])
        E, cost, u = (sp.IndexedBase(symbol, shape=(M, N)) for symbol in ("E", "cost", "u"))
        limbs, centre = sp.IndexedBase("limbs", shape=(M, N)), sp.IndexedBase("centre", shape=(M, N, 3))
        member, mixed = sp.IndexedBase("member", shape=(M, N, 17, 3)), sp.IndexedBase("mixed", shape=(17, 3))
        away, lowest, whole = sp.IndexedBase("away", shape=(M, N, 17)), sp.Symbol("lowest"), sp.Symbol("whole")
        ends = edges[edge, 0], edges[edge, 1]

        def limb(at: Any) -> Any:
            return sp.sqrt(sp.Sum((at(ends[0]) - at(ends[1])) ** 2, p, edge) + NOTHING)

        turned = -sp.Sum(rotation[i, p, d] * (body[m, i, j, d] - centre[m, i, d]), d)
        if self.choice == "soft":
            share = sp.exp(lowest - cost[m, i])
        else:
            share = sp.Piecewise((1, cost[m, i] <= lowest), (0, True))
        where |= {
            E[m, i]: sp.Sum(rep**2, x, j) + sp.Sum(reg**2, row),
            cost[m, i]: SHARPNESS * exp_weights[m, 0] * E[m, i] + exp_additive_model[m, 0],
            lowest: minimum(cost[m_other, i_other], m_other, i_other),
            u[m, i]: share,
            centre[m, i, p]: sp.Sum(body[m, i, j_other, p], j_other) / 17,
            limbs[m, i]: limb(lambda end: body[m, i, end, p]),
            member[m, i, j, p]: turned / limbs[m, i],
        }
        shares = u[m, i] / sp.Sum(u[m_other, i_other], m_other, i_other)
        if name != "error":
            where[mixed[j, p]] = sp.Sum(shares * member[m, i, j, p], m, i)
            where[whole] = limb(lambda end: mixed[end, p])
            expressions = {
                sp.IndexedBase("pose", shape=(17, 3))[j, p]: scaling_coefficient * size * mixed[j, p] / whole
            }
            if name == "report":
                expressions[sp.IndexedBase("score", shape=(M, N))[m, i]] = E[m, i]
                expressions[sp.IndexedBase("share", shape=(M, N))[m, i]] = shares
            data = [*DATA, edges, size]
        else:
            difference = scaling_coefficient * size * member[m, i, j, p] - truth[j, p]
            where[away[m, i, j]] = sp.sqrt(sp.Sum(difference**2, p) + NOTHING)
            expressions = {sp.Symbol("error", real=True): sp.Sum(shares * away[m, i, j], m, i, j) / 17}
            data = [*DATA, edges, size, truth]
        return {
            "expressions": expressions,
            "weights": [*WEIGHTS, *CHOICE_WEIGHTS],
            "data": data,
            "where": VIEW | where,
            "name": f"pose monocular {name}",
        }

    # ------------------------------------------------------------------------------------------ numbers

    @cached_property
    def _several(self) -> MultiCamera:
        return MultiCamera(self.bodies, self.average, turns=self.turns)

    def weights(self) -> dict[str, Any]:
        """All weights before learning, of kernel and output."""
        w = self._several.weights()
        names = [str(symbol) for symbol in (*WEIGHTS, *CHOICE_WEIGHTS)]
        start = {name: w[name] for name in names}
        start["lambda_scale"] = np.full((len(self.bodies), 1), LAMBDA_SCALE)
        start["exp_weights"] = SHARP * start["exp_weights"]
        start["sigma_variance"][:, [1, 2, 3], [1, 2, 3]] = PLACE / self._several.units["variance_unit"]
        return start

    def data(
        self, points: ArrayLike, visible: ArrayLike, views: ArrayLike, truth: ArrayLike | None = None
    ) -> dict[str, Any]:
        """All data for detections (..., 17, 2) in pixels of camera number `views` (...); else as for `detections`."""
        several, seen = np.asarray(points)[..., None, :, :], np.asarray(visible)[..., None, :]
        found = detections(several, seen, truth)
        return {
            **self.constants,
            "detections": found["detections"][..., 0, :, :],
            "visible": found["visible"][..., 0, :],
            "size": found["size"],
            "view": np.asarray(views, dtype=np.int64)[..., None],
        }

    @cached_property
    def constants(self) -> dict[str, Any]:
        """The data that are the same for all frames."""
        return self._several.constants
