"""A body from calibrated cameras: one convex energy over all its joints (not in the paper, docs/pose.md).

Unknown are the 17 joints Y, in a frame that goes with the body: moved to where it is and turned to where it looks by a
robust triangulation (triangulation.py), in metres times the person's size. With K detected points of C cameras, there

    P_k  = Y_0 + sum over bones b of L_kb (Y_b - Y_0) + o_k         what the detector finds, of the joints
    r_ck = omega_ck v_ck a_ck (P_k - T_c)                           how far off P_k projects, as at 5 m
    z    = C_m' (Y_b - Y_0 - mu_m)                                  how far the body is from component m's

    E_m(Y) = sum_ck delta_k^2 (sqrt(1 + |r_ck|^2 / delta_k^2) - 1) + 1/2 |z|^2

v is 0 where nothing is seen, also for a whole camera. The M components are a family. What comes out is the average of
their minima, in mm of the world:

    pose = sum_m s_m (size turn' Y_m + centre),      s = softmax(lp_m - exp(sharpness) E_m)

Frames of one person have their bones in common. With lengths l_b that all of them share,

    sum over frames n of E_m(Y_n) + stiffness/2 sum_b (|bone_b(Y_n)| - l_b)^2

is minimal where each l_b is the mean of the frames' own lengths, those of the components by their shares. Frames meet
in l alone: given l, each is an energy of its own (`Calibrated.person`), whose output says what lengths it has.

Learnt: the detector's joints as combinations of ours, L and o; how well each camera and point is known, omega and
delta; the Gaussians mu, C and their log priors lp; sharpness.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike, NDArray

from ..energy import Energy
from ..errors import InputError
from ..extrema import minimum
from ..robust import pseudo_huber
from .cameras import Cameras
from .frame import CAMERAS, SEEN, Frame
from .skeleton import EDGES
from .triangulation import DISTANCE, Rays, heading, middle, sizes

Floats = NDArray[np.float64]

METRE = 1000.0
BONES = 16
TINY = 1e-9
"""mm^2, or m^2; keeps distances in the loss, and lengths of bones, from the kink at 0."""

STIFFNESS = 1e4
"""1/m^2, of the lengths of a person's bones: 10 mm count as one standard deviation. Chosen on training subjects."""

PRECISION = 10.0
"""C is in units of this, 1/m: so that all weights that are learnt are of the order of 1."""

M, V, K = sp.symbols("components views points", integer=True, positive=True)
m, other, c, k, j = sp.Idx("m", M), sp.Idx("other", M), sp.Idx("c", V), sp.Idx("k", K), sp.Idx("j", 17)
b, row, x = sp.Idx("b", BONES), sp.Idx("row", 3 * BONES), sp.Idx("x", 2)
d, p, i = sp.Idx("d", 3), sp.Idx("p", 3), sp.Idx("i", 17)

# learnt
joint_map, offset = sp.IndexedBase("joint_map", shape=(K, BONES)), sp.IndexedBase("offset", shape=(K, 3))
omega = sp.IndexedBase("omega", shape=(V, K), positive=True)
delta = sp.IndexedBase("delta", shape=(K,), positive=True)
mean, precision = (
    sp.IndexedBase("mean", shape=(M, BONES, 3)),
    sp.IndexedBase("precision", shape=(M, BONES, 3, 3 * BONES)),
)
log_prior, sharpness = sp.IndexedBase("log_prior", shape=(M,)), sp.Symbol("sharpness", real=True)
WEIGHTS = (joint_map, offset, omega, delta, mean, precision)

# given
view = sp.IndexedBase("view", shape=(V, K, 2, 3))
seen_at = sp.IndexedBase("seen_at", shape=(V, K, 2))
turn, centre = sp.IndexedBase("turn", shape=(3, 3)), sp.IndexedBase("centre", shape=(3,))
size = sp.Symbol("size", positive=True)
edge = sp.Idx("edge", len(EDGES))
length, stiffness = sp.IndexedBase("length", shape=(len(EDGES),)), sp.Symbol("stiffness", nonnegative=True)
ends = sp.IndexedBase("ends", shape=(len(EDGES), 2), integer=True)


def _parts(Y: Any, place: tuple[Any, ...], axes: tuple[Any, ...]) -> tuple[Any, dict[Any, Any]]:
    """E_m and what defines its parts, for the unknowns Y[(*place, j, d)]."""
    point = sp.IndexedBase("point", shape=(*axes, K, 3))
    residual = sp.IndexedBase("residual", shape=(*axes, V, K, 2))
    bone = sp.IndexedBase("bone", shape=(*axes, BONES, 3))
    likely = sp.IndexedBase("likely", shape=(*axes, 3 * BONES))
    P, r, B = point[(*place, k, d)], residual[(*place, c, k, x)], bone[(*place, b, d)]
    where = {
        B: Y[(*place, b + 1, d)] - Y[(*place, 0, d)],
        P: Y[(*place, 0, d)] + sp.Sum(joint_map[k, b] * bone[(*place, b, d)], b) + offset[k, d],
        r: omega[c, k] * (sp.Sum(view[c, k, x, d] * point[(*place, k, d)], d) - seen_at[c, k, x]),
        likely[(*place, row)]: PRECISION
        * sp.Sum(precision[m, b, d, row] * (bone[(*place, b, d)] - mean[m, b, d]), d, b),
    }
    seen = sp.Sum(pseudo_huber(sp.Sum(residual[(*place, c, k, x)] ** 2, x), delta[k]), k, c)
    return seen + sp.Sum(likely[(*place, row)] ** 2, row) / 2, where


def _length(Y: Any, place: tuple[Any, ...]) -> Any:
    """|bone_edge(Y)|."""
    bone = Y[(*place, ends[edge, 1], d)] - Y[(*place, ends[edge, 0], d)]
    return sp.sqrt(sp.Sum(bone**2, d) + TINY)


def _tied(Y: Any, place: tuple[Any, ...]) -> Any:
    """What holds the bones of a frame to the lengths of its person."""
    return stiffness / 2 * sp.Sum((_length(Y, place) - length[edge]) ** 2, edge)


@dataclass(frozen=True)
class Calibrated:
    """The model for one detector and one number of components.

    Attributes
    ----------
    detected : tuple of int
        Which of our 17 joints each detected point is, or is near: of the points that data have, in their order.
    components : int
    cameras : int
        How many there are at most; a rig of less has the last ones missing.

    Examples
    --------
    >>> import wiberg as wb
    >>> from wiberg.energies import pose
    >>> model = pose.Calibrated(detected=tuple(range(17)), components=2)
    >>> model.energy.over
    (m,)
    """

    detected: tuple[int, ...]
    components: int = 3
    cameras: int = 4

    def __post_init__(self) -> None:
        if not self.detected or not set(self.detected) <= set(range(17)):
            raise InputError(f"Calibrated: detected must be numbers of our 17 joints; got {self.detected}")
        if len(set(self.detected)) != len(self.detected):
            raise InputError(f"Calibrated: a joint is detected twice in {self.detected}")

    @cached_property
    def energy(self) -> Energy:
        """E_m of 51 unknowns Y (17, 3), a family over components."""
        Y = sp.IndexedBase("Y", shape=(17, 3))
        formula, where = _parts(Y, (), ())
        return self._energy(Y, formula, where, [view, seen_at], "calibrated pose")

    @cached_property
    def person(self) -> Energy:
        """The same of a frame whose bones are held to given lengths (`bones`); not convex."""
        Y = sp.IndexedBase("Y", shape=(17, 3))
        formula, where = _parts(Y, (), ())
        data = [view, seen_at, length, stiffness, ends]
        return self._energy(Y, formula + _tied(Y, ()), where, data, "calibrated pose of a person")

    @staticmethod
    def _energy(Y: Any, formula: Any, where: Any, data: list[Any], name: str) -> Energy:
        return Energy(
            formula,
            variables=[Y],
            weights=WEIGHTS,
            data=data,
            where=where,
            candidates={Y[n, d]: mean[m, n - 1, d] if n else sp.Integer(0) for n in range(17)},
            over=[m],
            name=name,
        )

    @cached_property
    def output(self) -> dict[str, Any]:
        """What `wb.Output(minima=kernel, **model.output)` makes of the minima: pose (17, 3), mm; share (M,)."""
        Y = sp.IndexedBase("Y", shape=(M, 17, 3))
        formula, where = _parts(Y, (m,), (M,))
        return self._output(formula, where, {}, [], "calibrated pose")

    @cached_property
    def person_output(self) -> dict[str, Any]:
        """The same of the minima of `person`, and own (16,), the frame's own lengths of bones, m by the size."""
        Y, own = sp.IndexedBase("Y", shape=(M, 17, 3)), sp.IndexedBase("own", shape=(len(EDGES),))
        formula, where = _parts(Y, (m,), (M,))
        lengths = {own[edge]: _length(Y, (m,))}
        data = [length, stiffness, ends]
        return self._output(formula + _tied(Y, (m,)), where, lengths, data, "calibrated pose of a person")

    @staticmethod
    def _output(formula: Any, where: Any, averaged: Any, data: list[Any], name: str) -> dict[str, Any]:
        """Pose, shares and averages over the components, where `formula` is the energy of each."""
        Y, E = sp.IndexedBase("Y", shape=(M, 17, 3)), sp.IndexedBase("E", shape=(M,))
        raised, mixed = sp.IndexedBase("raised", shape=(M,)), sp.IndexedBase("mixed", shape=(17, 3))
        share = raised[m] / sp.Sum(raised[other], other)
        cost = sp.IndexedBase("cost", shape=(M,))
        where |= {
            E[m]: formula,
            cost[m]: sp.exp(sharpness) * E[m] - log_prior[m],
            raised[m]: sp.exp(minimum(cost[other], other) - cost[m]),
            mixed[j, d]: sp.Sum(share * Y[m, j, d], m),
        }
        pose, shares = sp.IndexedBase("pose", shape=(17, 3)), sp.IndexedBase("share", shape=(M,))
        return {
            "expressions": {
                pose[j, d]: METRE * size * sp.Sum(turn[p, d] * mixed[j, p], p) + centre[d],
                shares[m]: share,
                **{result: sp.Sum(share * each, m) for result, each in averaged.items()},
            },
            "weights": [*WEIGHTS, log_prior, sharpness],
            "data": [view, seen_at, turn, centre, size, *data],
            "where": where,
            "name": name,
        }

    @staticmethod
    def bones(lengths: ArrayLike, stiffness: ArrayLike = STIFFNESS) -> dict[str, Any]:
        """What `person` and `person_output` read besides: lengths (16,) or (..., 16) of `EDGES`, m by the size."""
        held = np.asarray(stiffness, dtype=np.float64)
        return {"length": np.asarray(lengths, dtype=np.float64), "stiffness": held, "ends": np.array(EDGES)}

    @cached_property
    def loss(self) -> dict[str, Any]:
        """What `wb.Loss(**model.loss)` judges, in mm: .5 centred + .5 relative to the hip + .2 absolute distance."""
        pose, truth = sp.IndexedBase("pose", shape=(17, 3)), sp.IndexedBase("truth", shape=(17, 3))
        off = sp.IndexedBase("off", shape=(17, 3))

        def distance(reference: Any) -> Any:
            return sp.Sum(sp.sqrt(sp.Sum((off[j, d] - reference(d)) ** 2, d) + TINY), j) / 17

        shift = sp.IndexedBase("shift", shape=(3,))
        return {
            "expression": distance(lambda d: shift[d]) / 2
            + distance(lambda d: off[0, d]) / 2
            + distance(lambda d: 0) / 5,
            "variables": [pose],
            "targets": [truth],
            "where": {off[j, d]: pose[j, d] - truth[j, d], shift[d]: sp.Sum(off[i, d], i) / 17},
        }

    def rays(self, cameras: Cameras, pixels: ArrayLike, visible: ArrayLike) -> Rays:
        """What the points are triangulated from (triangulation.py).

        Parameters
        ----------
        cameras : Cameras
            C of them, of a rig or of every frame.
        pixels : (..., C, K, 2)
            Detections; NaN is not seen.
        visible : (..., C, K)
            1 where a point is seen, else 0.
        """
        given = np.asarray(pixels)
        if given.ndim < 3 or given.shape[-3:-1] != (self.cameras, len(self.detected)):
            raise InputError(
                f"Calibrated: detections must be (..., {self.cameras}, {len(self.detected)}, 2), as many points as are "
                f"detected; got {given.shape}"
            )
        return Rays.of(cameras, given, visible)

    def features(self, rays: Rays, points: ArrayLike, person: ArrayLike | None = None) -> Features:
        """All data of frames, of kernel and output, and whether the frames are good for a pose.

        Parameters
        ----------
        rays : Rays
        points : (..., K, 3)
            The minima of the robust energy of these rays.
        person : (...), optional
            Which frames show the same person (any labels): each has the size that all its frames say. Without it all
            frames are of one person.
        """
        given = np.asarray(points, dtype=np.float64)
        return Features.of(rays, np.where(rays.twice[..., None], given, np.nan), self.detected, person)


@dataclass(frozen=True)
class Features:
    """What is made of detections before anything is minimised.

    Attributes
    ----------
    points : (..., K, 3)
        The robust triangulation, mm in the world; NaN where less than two cameras see a point.
    status : (...)
        Of `Frame`.
    data : dict
        view, seen_at, turn, centre, size: what energy and output read.
    """

    points: Floats
    status: NDArray[np.int64]
    data: dict[str, Any]

    @classmethod
    def of(cls, rays: Rays, points: Floats, detected: tuple[int, ...], person: ArrayLike | None = None) -> Features:
        size = sizes(points, detected, person)
        centre = middle(points)
        turn, known = heading(points, detected)
        depth = (rays.depth_rows * centre[..., None, :]).sum(axis=-1) - rays.depth_constants
        scale = rays.seen * (DISTANCE / np.maximum(depth, 1.0))[..., None]
        view = rays.rows * scale[..., None, None]
        seen_at = rays.constants * scale[..., None] - np.einsum("...ckxp,...p->...ckx", view, centre)
        cameras = (rays.seen.sum(axis=-1) >= SEEN).sum(axis=-1)
        joints = np.isfinite(points[..., 0]).sum(axis=-1)
        status = np.where(known, Frame.ENOUGH, Frame.NO_HEADING)
        status = np.where(joints < SEEN, Frame.FEW_JOINTS, status)
        status = np.where(cameras < CAMERAS, Frame.FEW_CAMERAS, status)
        data = {
            "view": np.einsum("...ckxp,...dp->...ckxd", view, turn) * size[..., None, None, None, None],
            "seen_at": seen_at / METRE,
            "turn": turn,
            "centre": centre,
            "size": size,
        }
        return cls(points, status, data)


def in_body_frame(poses: ArrayLike, data: Mapping[str, Any]) -> Floats:
    """Poses (..., J, 3), mm in the world, in the frame of the unknowns."""
    moved = np.asarray(poses, dtype=np.float64) - data["centre"][..., None, :]
    return np.asarray(np.einsum("...dp,...jp->...jd", data["turn"], moved) / (METRE * data["size"][..., None, None]))
