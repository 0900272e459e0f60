"""The paper's energies: the two corners of a box, each found by itself from Gaussian votes of all trackers.

Each tracker k votes with importance p_k for the corner c_k of its own box, corrected by weights (sign: -1 top left, 1
bottom right), in units of the root of the area of the first box:

    E(y) = -sum_k p_k exp(-|y - c_k|^2 / (2 exp(2 (width + tracker_width_k)))),      sum_k p_k = 1
    c_k  = centre_k + (shift_k + sign exp(stretch_k)/2) side_k                         each axis by itself
    log p_k = exp(sharpness) accuracy_k + trust_k + trust_time_k time + (stub + trust_scale_k) |scale_k|/.35 + const

with accuracy_k known from training, time through the sequence, and scale_k the log change of scale since the first
frame (the stub function). The seed is the corner c_k of lowest energy. The loss is the L1 distance of both corners.
The two energies have weights of their own: names end in _low or _high. `wb.Output(fusion.output, minima=kernels)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from ..energy import Energy
from .base import Fusion
from .features import MOST, Features
from .settings import Settings, squares
from .tracks import Tracks

Floats = NDArray[np.float64]

SIDES = {"low": -1, "high": 1}

_EACH = ("trust", "trust_time", "trust_scale", "tracker_width")
_BOTH_AXES = ("shift", "stretch")
_GEOMETRY = {f"{name}_{side}": 0.003 for name in _BOTH_AXES for side in SIDES}
_SHARED = {f"{name}_{side}": 0.001 for name in ("sharpness", "stub", "width") for side in SIDES}


class CornerFusion(Fusion):
    """The declaration of the two corner energies, with where their weights start and what they read of frames.

    Parameters
    ----------
    trackers, preset, changes
        As for `BoxFusion`; presets: "paper".

    Attributes
    ----------
    energies : tuple of Energy
        Of the variables low (2,) and high (2,).
    output : dict
        The box of both, (4,): what `wb.Output` takes.
    loss : dict
        What `wb.Loss(**fusion.loss)` takes: L1 of the box and the target.
    """

    presets: ClassVar = {
        "paper": Settings(
            width=(0.15,),
            dropout=0.5,
            rate=0.01,
            rates={**_GEOMETRY, **_SHARED, "tracker_width_low": 0.3, "tracker_width_high": 0.3},
            steps=300,
            clip=None,
        )
    }
    of_trackers = tuple(f"{name}_{side}" for name in (*_EACH, *_BOTH_AXES) for side in SIDES)

    def __init__(
        self, trackers: Tracks | Mapping[str, float], preset: str | Settings = "paper", **changes: Any
    ) -> None:
        super().__init__(trackers, preset, **changes)

    @cached_property
    def energies(self) -> tuple[Energy, ...]:
        """E of each corner, compiled by `wb.compile`."""
        return tuple(_declare(side) for side in SIDES)

    @property
    def output(self) -> dict[Any, Any]:
        """left, top, right, bottom."""
        box, low, high = _symbol("box", 4), _symbol("low", 2), _symbol("high", 2)
        return {box[0]: low[0], box[1]: low[1], box[2]: high[0], box[3]: high[1]}

    @property
    def loss(self) -> dict[str, Any]:
        """The L1 distance, and the penalties."""
        box, target = _symbol("box", 4), _symbol("target", 4)
        distance = sum(sp.Abs(box[e] - target[e]) for e in range(4))
        squared = {name: square for side in SIDES for name, square in _squared(side).items()}
        penalty = squares(squared, self.settings.penalties)
        return {"expression": distance, "variables": [box], "targets": [target], "regulariser": penalty}

    def weights(self) -> dict[str, Any]:
        """Where the weights start: boxes are not corrected, trackers trusted alike but for their accuracy."""
        n = len(self.names)
        start: dict[str, Any] = {}
        for side in SIDES:
            start |= {f"sharpness_{side}": 0.0, f"stub_{side}": 0.0}
            start[f"width_{side}"] = float(np.log(self.settings.width[0]))
            start |= {f"{name}_{side}": np.zeros(n) for name in _EACH}
            start |= {f"{name}_{side}": np.zeros((n, 2)) for name in _BOTH_AXES}
        return start

    def data(self, seen: Features) -> dict[str, Floats]:
        """The data of the energies."""
        return {
            "centre": seen.centre,
            "side": seen.side,
            "change": seen.change,
            "present": seen.present,
            "unit": seen.frame.size / seen.first[:, None],
            "time": seen.time,
            "accuracy": self.accuracy,
        }

    def targets(self, tracks: Tracks, seen: Features) -> dict[str, Floats]:
        """The true corners in the coordinates of the energies."""
        known, unit = tracks.known, seen.first[:, None]
        low, high = known[:, :2], known[:, :2] + known[:, 2:]
        return {"target": np.concatenate([(c - seen.frame.centre) / unit for c in (low, high)], axis=1)}

    def boxes(self, variables: Mapping[str, Any], seen: Features) -> Floats:
        """Boxes in pixels, (F, 4), from the output; never inside out."""
        low, high = np.split(np.asarray(variables["box"], dtype=float), 2, axis=-1)
        unit = seen.first[:, None]
        return np.concatenate([low * unit + seen.frame.centre, np.maximum(high - low, 1e-3) * unit], axis=-1)


def _symbol(name: str, *shape: Any) -> Any:
    return sp.IndexedBase(name, shape=shape)


_N = sp.Symbol("n", integer=True, positive=True)


def _weights(side: str) -> dict[str, Any]:
    return {
        **{name: sp.Symbol(f"{name}_{side}", real=True) for name in ("sharpness", "stub", "width")},
        **{name: _symbol(f"{name}_{side}", _N) for name in _EACH},
        **{name: _symbol(f"{name}_{side}", _N, 2) for name in _BOTH_AXES},
    }


def _squared(side: str) -> dict[str, Any]:
    k, a = sp.Idx("k", _N), sp.Idx("a", 2)
    w = _weights(side)
    each = {str(w[name]): sp.Sum(w[name][k] ** 2, k) for name in _EACH}
    both = {str(w[name]): sp.Sum(w[name][k, a] ** 2, k, a) for name in _BOTH_AXES}
    return {**each, **both}


def _declare(which: str) -> Energy:
    n, w, sign = _N, _weights(which), SIDES[which]
    k, c, a = sp.Idx("k", n), sp.Idx("c", n), sp.Idx("a", 2)
    y, unit, time = _symbol(which, 2), _symbol("unit", 2), sp.Symbol("time", real=True)
    centre, side, change = (_symbol(name, n, 2) for name in ("centre", "side", "change"))
    present, accuracy = _symbol("present", n), _symbol("accuracy", n)
    corner, importance, vote, precision = (
        _symbol("corner", n, 2),
        *(_symbol(name, n) for name in ("importance", "vote", "precision")),
    )
    where = {
        corner[k, a]: unit[a]
        * (centre[k, a] + (w["shift"][k, a] + sign * sp.exp(w["stretch"][k, a]) / 2) * side[k, a]),
        importance[k]: sp.exp(
            sp.exp(w["sharpness"]) * accuracy[k]
            + w["trust"][k]
            + w["trust_time"][k] * time
            + (w["stub"] + w["trust_scale"][k]) * sp.Min(sp.Abs(change[k, 0]) / 0.35, MOST)
        ),
        vote[k]: present[k] * importance[k] / sp.Sum(present[c] * importance[c], c),
        precision[k]: sp.exp(-2 * (w["width"] + w["tracker_width"][k])) / 2,
    }
    d2 = (y[0] - corner[k, 0]) ** 2 + (y[1] - corner[k, 1]) ** 2
    return Energy(
        -sp.Sum(vote[k] * sp.exp(-d2 * precision[k]), k),
        variables=[y],
        weights=list(w.values()),
        data=[centre, side, change, present, unit, accuracy, time],
        where=where,
        candidates={y[a]: corner[c, a]},
        name=f"{which} corner",
    )
