"""The paper's multi-camera model (section 5): a body model for each of M kinds of poses, seen by C cameras of which the
average rotations are known, turned about the vertical axis by each of N angles; M x N minimisations for a frame.

    r_mod[j]    = s mu_j + t + sum_k a_k e_kj - q_j                        3 of each joint
    r_rep[c, j] = gamma v_cj omega_j o (A_c R q_j - X_cj)                  2 of each joint in each camera
    r_reg       = Lambda (s, t, a) - (b_s, 0, ..., 0)                      29

q is a free pose, tied to the body model (s, t, a) and seen by the cameras. Three energies are made of it:

    "l2"       |r_mod|^2 + |r_rep|^2 + |r_reg|^2
    "huber"    |r_mod|^2/2 + sum of h(r_rep[c, j]) + rho/2 |r_reg|^2 + 0.0005 |(s, t, a, q)|^2
    "steps"    the same as its authors minimise it: least squares, then three reweightings, all with that ridge

    h(r) = delta^2 (sqrt(1 + n^2/delta^2) - 1),      n^2 = |r + 1e-7|^2 + 1e-6

The pose that comes out is an average by the scores of all members: over the rotations of each model, then over models.
Scores are energies at the minimum, without the ridge (and with |r| + 1e-7 in n), so they are not what was minimised.

    "soft"            shares in proportion to exp(-5000 w_m (E_mi - S_m)), then exp(-|2500 v_m (S_m - min S) + b_m|)
    "lowest-model"    the same over rotations, then the model alone whose share is the largest
    "lowest"          of that model the rotation alone whose score is the lowest

where S_m = min_i E_mi.

All that is learnt are factors of fixed constants (`MultiCamera.weights`); their names are those of the authors' files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike, NDArray

from ..energy import Energy
from ..errors import InputError, nearest
from ..extrema import minimum
from ..held import held
from .body import SHAPES, BodyModels
from .features import detections, rotations
from .skeleton import NORMALISATION_EDGES

Floats = NDArray[np.float64]

SOLVERS: Mapping[str, Mapping[str, Any]] = {
    "l2": {},
    "huber": {"method": "irls", "max_iterations": 1000},
    "steps": {"method": "irls", "reweightings": 3},
}
"""The energies, each with the options of `wb.minimise` that belong to it."""

CHOICES = ("soft", "lowest-model", "lowest")
"""How a pose is made of the minima of all members."""

RIDGE, SHIFT, SQUARED_SHIFT = 1e-3, 1e-7, 1e-6
"""Of the authors' code: added to the diagonal of each system; to residuals in h; and to n^2."""

SHARPNESS, WIDTH, REGULARISER, SCALE = 5000.0, 0.1, 0.75, -0.003
"""Fixed factors: of scores in both averages, of `ir_reg` (delta), of `hl_param` (rho), of `scale_regularizer`."""

LAMBDA_SCALE, SIZE = 10.0, float(np.float32(0.97))
"""Where `lambda_scale` and `scaling_coefficient` start."""

NOTHING = 1e-30
"""Keeps roots of squared sizes from 0; far below the rounding of any."""

UNKNOWNS = 4 + SHAPES

M, C, N = sp.symbols("models views turns", integer=True, positive=True)
m, i, i_other, m_other = sp.Idx("m", M), sp.Idx("i", N), sp.Idx("i_other", N), sp.Idx("m_other", M)
c, j, k = sp.Idx("c", C), sp.Idx("j", 17), sp.Idx("k", SHAPES)
row, column, d, p, x = (
    sp.Idx("row", UNKNOWNS),
    sp.Idx("column", UNKNOWNS),
    sp.Idx("d", 3),
    sp.Idx("p", 3),
    sp.Idx("x", 2),
)
edge = sp.Idx("edge", len(NORMALISATION_EDGES))


def _array(name: str, *shape: Any, **assumptions: Any) -> sp.IndexedBase:
    return sp.IndexedBase(name, shape=shape, **assumptions)


# learnt
mean_pose, base_vectors = _array("mean_pose", M, 3, 17), _array("base_vectors", M, SHAPES, 3, 17)
sigma_variance, joint_weights = _array("sigma_variance", M, UNKNOWNS, UNKNOWNS), _array("joint_weights", M, 34)
lambda_0, lambda_scale = _array("lambda_0", M, 1), _array("lambda_scale", M, 1)
cameras, hl_param, ir_reg = _array("cameras", C, 3, 3), _array("hl_param", M), _array("ir_reg", M)
exp_weights, exp_weights_model = _array("exp_weights", M, 1), _array("exp_weights_model", M, 1)
exp_additive_model = _array("exp_additive_model", M, 1)
scale_regularizer, scaling_coefficient = sp.symbols("scale_regularizer scaling_coefficient", real=True)

# given
pose_unit, shape_unit, variance_unit, size = sp.symbols("pose_unit shape_unit variance_unit size", real=True)
average_cameras, rotation = _array("average_cameras", C, 3, 3), _array("rotation", N, 3, 3)
reprojection, X, v = _array("reprojection", M), _array("detections", C, 17, 2), _array("visible", C, 17)
edges = _array("edges", len(NORMALISATION_EDGES), 2, integer=True)

# effective parameters of model m and rotation i
mu, e, Lambda = _array("mu", M, 17, 3), _array("e", M, SHAPES, 17, 3), _array("Lambda", M, UNKNOWNS, UNKNOWNS)
omega, A = _array("omega", M, 17, 2), _array("A", N, C, 2, 3)
EFFECTIVE = {
    mu[m, j, p]: pose_unit * mean_pose[m, p, j],
    e[m, k, j, p]: shape_unit * base_vectors[m, k, p, j],
    Lambda[m, row, column]: lambda_0[m, 0] * variance_unit * sigma_variance[m, row, column],
    omega[m, j, x]: lambda_scale[m, 0] * reprojection[m] * joint_weights[m, 2 * j + x],
    A[i, c, x, p]: sp.Sum(cameras[c, x, d] * average_cameras[c, x, d] * rotation[i, d, p], d),
}
delta, rho = WIDTH * ir_reg[m], REGULARISER * hl_param[m]

SHARED_WEIGHTS = ("cameras", "scale_regularizer", "scaling_coefficient")
"""Not of one model; the others have a first axis over them."""

LINEAR_WEIGHTS = (
    *(mean_pose, base_vectors, sigma_variance, lambda_0, lambda_scale, scale_regularizer, joint_weights, cameras),
)
ROBUST_WEIGHTS = (ir_reg, hl_param)
LINEAR_DATA = (pose_unit, shape_unit, variance_unit, average_cameras, rotation, reprojection, X, v)


@dataclass(frozen=True)
class _Unknowns:
    """s, t, a, q of one member; with the axes of the family in front where minima are read."""

    of_family: bool = False

    @property
    def axes(self) -> tuple[Any, ...]:
        return (M, N) if self.of_family else ()

    @property
    def place(self) -> tuple[Any, ...]:
        return (m, i) if self.of_family else ()

    @property
    def s(self) -> Any:
        return _array("s", M, N)[m, i] if self.of_family else sp.Symbol("s", real=True)

    def t(self, p: Any) -> Any:
        return _array("t", *self.axes, 3)[(*self.place, p)]

    def a(self, k: Any) -> Any:
        return _array("a", *self.axes, SHAPES)[(*self.place, k)]

    def q(self, j: Any, p: Any) -> Any:
        return _array("q", *self.axes, 17, 3)[(*self.place, j, p)]


def _residuals(y: _Unknowns) -> tuple[Any, Any, Any, dict[Any, Any]]:
    """r_mod[j, p], r_rep[c, j, x] and r_reg[row] of a member, and what defines them."""
    r_mod, r_rep = _array("r_mod", *y.axes, 17, 3), _array("r_rep", *y.axes, C, 17, 2)
    r_reg = _array("r_reg", *y.axes, UNKNOWNS)
    mod, rep, reg = r_mod[(*y.place, j, p)], r_rep[(*y.place, c, j, x)], r_reg[(*y.place, row)]
    seen = sp.Sum(A[i, c, x, p] * y.q(j, p), p) - X[c, j, x]
    regulariser = Lambda[m, row, 0] * y.s + sp.Sum(Lambda[m, row, 1 + p] * y.t(p), p)
    regulariser += sp.Sum(Lambda[m, row, 4 + k] * y.a(k), k)
    target = sp.Piecewise((SCALE * scale_regularizer, sp.Eq(row, 0)), (0, True))
    where = {
        mod: y.s * mu[m, j, p] + y.t(p) + sp.Sum(y.a(k) * e[m, k, j, p], k) - y.q(j, p),
        rep: omega[m, j, x] * v[c, j] * seen,
        reg: regulariser - target,
    }
    return mod, rep, reg, where


def _squared(residual: Any, *indices: Any) -> Any:
    return sp.Sum(residual**2, *indices)


def _squared_norm(rep: Any, shifted: Any) -> Any:
    """n^2 of a point: of its two residuals, each with 1e-7 added as `shifted` says."""
    return sp.Sum(shifted(rep) ** 2, x) + SQUARED_SHIFT


def _one_if(condition: Any) -> Any:
    return sp.Piecewise((1, condition), (0, True))


def _h(n2: Any) -> Any:
    return delta**2 * (sp.sqrt(1 + n2 / delta**2) - 1)


@dataclass(frozen=True, eq=False)
class MultiCamera:
    """The model of one mixture of body models and one set of average cameras.

    Attributes
    ----------
    bodies : BodyModels
    average : (C, 3, 3)
        Average rotations, world to camera: rows are the camera's right, down and depth.
    solver : {"l2", "huber", "steps"}
        Which energy; `options` are those of `wb.minimise` that belong to it.
    turns : (N, 3, 3)
        Rotations about the vertical axis: 100 by default.
    choice : {"soft", "lowest-model", "lowest"}
        How the pose is made of the minima of all members. Each can be learnt through.

    Examples
    --------
    >>> import numpy as np, wiberg as wb
    >>> from wiberg.energies import pose
    >>> random = np.random.default_rng(0)
    >>> bodies = pose.fit_bodies(random.normal(size=(60, 17, 3)), models=2)
    >>> model = pose.MultiCamera(bodies, np.tile(np.eye(3), (4, 1, 1)), solver="l2")
    >>> kernel = wb.compile(model.energy)
    >>> kernel.quadratic, sum(np.size(w) for w in model.weights().values()) > 4000
    (True, True)
    """

    bodies: BodyModels
    average: Floats
    solver: str = "l2"
    turns: Floats = field(default_factory=rotations)
    choice: str = "soft"

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise InputError(
                f"MultiCamera: no solver {self.solver!r}{nearest(str(self.solver), SOLVERS)}; "
                f"one of {', '.join(SOLVERS)}"
            )
        if self.choice not in CHOICES:
            raise InputError(
                f"MultiCamera: no choice {self.choice!r}{nearest(str(self.choice), CHOICES)}; "
                f"one of {', '.join(CHOICES)}"
            )
        if self.average.ndim != 3 or self.average.shape[1:] != (3, 3):
            raise InputError(f"MultiCamera: average cameras must be (C, 3, 3); got {self.average.shape}")

    # ------------------------------------------------------------------------------------------ declarations

    @property
    def options(self) -> dict[str, Any]:
        """Of `wb.minimise`."""
        return dict(SOLVERS[self.solver])

    @cached_property
    def energy(self) -> Energy:
        """The energy of one member: unknowns s, t (3,), a (25,), q (17, 3); a family over models and rotations."""
        y = _Unknowns()
        mod, rep, reg, where = _residuals(y)
        variables = [y.s, *(getattr(y, name)(*axes).base for name, axes in (("t", (p,)), ("a", (k,)), ("q", (j, p))))]
        weights: list[Any] = list(LINEAR_WEIGHTS)
        if self.solver == "l2":
            formula = _squared(mod, p, j) + _squared(rep, x, j, c) + _squared(reg, row)
        else:
            weights += ROBUST_WEIGHTS
            n2 = _squared_norm(rep, lambda r: r + SHIFT)
            ridge = RIDGE / 2 * (y.s**2 + _squared(y.t(p), p) + _squared(y.a(k), k) + _squared(y.q(j, p), p, j))
            if self.solver == "huber":
                points, held_rho = sp.Sum(_h(n2), j, c), rho
            else:
                weight = held(1 / sp.sqrt(1 + n2 / delta**2), 1)
                points, held_rho = sp.Sum(weight * _squared(rep, x), j, c) / 2, held(rho, 1)
            formula = _squared(mod, p, j) / 2 + points + held_rho / 2 * _squared(reg, row) + ridge
        return Energy(
            formula,
            variables=variables,
            weights=weights,
            data=LINEAR_DATA,
            where={**EFFECTIVE, **where},
            candidates={y.s: 0, y.t(p): 0, y.a(k): 0, y.q(j, p): 0},
            over=[m, i],
            name=f"pose {self.solver}",
        )

    @cached_property
    def output(self) -> dict[str, Any]:
        """What `wb.Output(minima=kernel, **model.output)` makes `pose` (17, 3) of: the average by `choice`."""
        expressions, where = self._average()
        return self._output({expressions["pose"][0]: expressions["pose"][1]}, where)

    @cached_property
    def report(self) -> dict[str, Any]:
        """The same with `score` and `share` (M, N), of rotations within each model, and `model_share` (M,)."""
        expressions, where = self._average()
        return self._output(dict(expressions.values()), where)

    def _output(self, expressions: Mapping[Any, Any], where: Mapping[Any, Any]) -> dict[str, Any]:
        robust = () if self.solver == "l2" else ROBUST_WEIGHTS
        averages = (exp_weights, exp_weights_model, exp_additive_model, scaling_coefficient)
        return {
            "expressions": expressions,
            "weights": [*LINEAR_WEIGHTS, *robust, *averages],
            "data": [*LINEAR_DATA, edges, size],
            "where": where,
            "name": "pose",
        }

    def _average(self) -> tuple[dict[str, Any], dict[Any, Any]]:
        """Scores, shares and pose as (symbol, formula), and the intermediates of these."""
        y = _Unknowns(of_family=True)
        mod, rep, reg, where = _residuals(y)
        if self.solver == "l2":
            scores = _squared(mod, p, j) + _squared(rep, x, j, c) + _squared(reg, row)
        else:
            n2 = _squared_norm(rep, lambda r: sp.Abs(r) + SHIFT)
            scores = _squared(mod, p, j) / 2 + sp.Sum(_h(n2), j, c) + rho / 2 * _squared(reg, row)
        E, lowest, limbs = _array("E", M, N), _array("lowest", M), _array("limbs", M, N)
        u, of_model, z, mixed = _array("u", M, N), _array("of_model", M, 17, 3), _array("z", M), _array("mixed", 17, 3)

        def limb(first: Any, second: Any) -> Any:
            return sp.Sum((first - second) ** 2, p, edge)

        ends = edges[edge, 0], edges[edge, 1]
        turned = -sp.Sum(rotation[i, p, d] * y.q(j, d), d)
        share = u[m, i] / sp.Sum(u[m, i_other], i_other)
        model_share = z[m] / sp.Sum(z[m_other], m_other)
        lowest_of_all = minimum(lowest[m_other], m_other)
        excess = SHARPNESS * exp_weights_model[m, 0] * (lowest[m] - lowest_of_all) / 2
        rotation_cost = SHARPNESS * sp.Abs(exp_weights[m, 0]) * (E[m, i] - lowest[m])
        model_cost = sp.Abs(excess + exp_additive_model[m, 0])
        rotation_weight, model_weight = sp.exp(-rotation_cost), sp.exp(-model_cost)
        if self.choice == "lowest":
            rotation_weight = _one_if(rotation_cost <= 0)
        if self.choice != "soft":
            cost = _array("cost", M)
            where[cost[m]] = model_cost
            model_weight = _one_if(cost[m] <= minimum(cost[m_other], m_other))
        where |= {
            E[m, i]: scores,
            lowest[m]: minimum(E[m, i], i),
            limbs[m, i]: sp.sqrt(limb(y.q(ends[0], p), y.q(ends[1], p)) + NOTHING),  # turning changes no length
            u[m, i]: rotation_weight,
            of_model[m, j, p]: sp.Sum(share * turned / limbs[m, i], i),
            z[m]: model_weight,
            mixed[j, p]: sp.Sum(model_share * of_model[m, j, p], m),
        }
        whole = sp.Symbol("whole")
        where[whole] = sp.sqrt(limb(mixed[ends[0], p], mixed[ends[1], p]) + NOTHING)
        expressions = {
            "pose": (_array("pose", 17, 3)[j, p], scaling_coefficient * size * mixed[j, p] / whole),
            "score": (_array("score", M, N)[m, i], E[m, i]),
            "share": (_array("share", M, N)[m, i], share),
            "model_share": (_array("model_share", M)[m], model_share),
        }
        return expressions, EFFECTIVE | where

    # ------------------------------------------------------------------------------------------ numbers

    @cached_property
    def units(self) -> dict[str, Any]:
        """Fixed constants, which the weights are factors of: mean sizes of the body models' arrays."""
        sizes = {"pose_unit": self.bodies.mean, "shape_unit": self.bodies.shapes, "variance_unit": self._variance}
        return {name: float(np.abs(array).mean()) for name, array in sizes.items()}

    @property
    def _variance(self) -> Floats:
        """What Lambda starts as: diag(0, 1e-5, 1e-5, 1e-5, sigma_1, ..., sigma_25) of each model."""
        diagonal = np.zeros((len(self.bodies), UNKNOWNS))
        diagonal[:, 1:4], diagonal[:, 4:] = 1e-5, self.bodies.sigma[:, :SHAPES]
        return diagonal[:, :, None] * np.eye(UNKNOWNS)

    def weights(self) -> dict[str, Any]:
        """All weights before learning, under the authors' names and with their shapes: of kernel and output."""
        count, units = len(self.bodies), self.units
        w: dict[str, Any] = {
            "mean_pose": self.bodies.mean / units["pose_unit"],
            "base_vectors": self.bodies.shapes / units["shape_unit"],
            "sigma_variance": self._variance / units["variance_unit"],
            "lambda_0": np.ones((count, 1)),
            "lambda_scale": np.full((count, 1), LAMBDA_SCALE),
            "scale_regularizer": 1.0,
            "joint_weights": np.ones((count, 34)),
            "cameras": np.ones((len(self.average), 3, 3)),
            "exp_weights": np.ones((count, 1)),
            "exp_weights_model": np.ones((count, 1)),
            "exp_additive_model": np.full((count, 1), float(np.float32(1.0000001))),
            "scaling_coefficient": SIZE,
        }
        if self.solver != "l2":
            w |= {"ir_reg": np.ones(count), "hl_param": np.ones(count)}
        return w

    def weights_of_file(self, file: Mapping[str, Any], *, robust: bool = True) -> dict[str, Any]:
        """The weights of the authors' checkpoint (arrays trained_*); without `robust`, ir_reg and hl_param stay 1."""
        w = self.weights()
        for name, start in w.items():
            if name in ("ir_reg", "hl_param") and not robust:
                continue
            stored = f"trained_{name.replace('hl_param', 'hl_params')}"
            if stored not in file:
                raise InputError(f"MultiCamera: the file has no array {stored}")
            array = np.asarray(file[stored], dtype=np.float64)
            if array.shape != np.shape(start):
                raise InputError(f"MultiCamera: {stored} must be {np.shape(start)} for these models; got {array.shape}")
            w[name] = array if array.ndim else float(array)
        return w

    def of_models(self, models: ArrayLike, weights: Mapping[str, Any]) -> tuple[MultiCamera, dict[str, Any]]:
        """The same with some of the models only, by their numbers, and weights for it.

        The pose is the same where the others have no share: they need not be minimised.
        """
        rows = np.asarray(models, dtype=np.int64)
        fewer, units = replace(self, bodies=self.bodies.chosen(rows)), self.units
        scales = {
            weight: units[unit] / fewer.units[unit]
            for weight, unit in (
                ("mean_pose", "pose_unit"),
                ("base_vectors", "shape_unit"),
                ("sigma_variance", "variance_unit"),
            )
        }
        w = {
            name: array if name in SHARED_WEIGHTS else np.asarray(array)[rows] * scales.get(name, 1.0)
            for name, array in weights.items()
        }
        return fewer, w

    def data(self, points: ArrayLike, visible: ArrayLike, truth: ArrayLike | None = None) -> dict[str, Any]:
        """All data, of kernel and output, for detections in pixels; arguments as for `detections`."""
        return self.constants | detections(points, visible, truth)

    @cached_property
    def constants(self) -> dict[str, Any]:
        """The data that are the same for all frames."""
        return {
            **self.units,
            "average_cameras": self.average,
            "rotation": self.turns,
            "reprojection": self.bodies.sigma[:, SHAPES],
            "edges": np.array(NORMALISATION_EDGES),
        }
