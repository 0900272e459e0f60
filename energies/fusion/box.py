"""One energy over the whole box: robust votes of all trackers for centre and log size at once.

Coordinates y of a box: its centre in units of the median box of the frame, its log size over that box's (features.py).
Each tracker k votes with importance p_k, a heavy-tailed kernel, for its own box, corrected to b_k(w):

    E(y) = -N sum_k p_k / (1 + d_k^2),     sum_k p_k = 1,  N trackers that count
    d_k^2 = |y_c - b_kc|^2 / s_kc^2 + |y_s - b_ks|^2 / s_ks^2,   log s_k = width + tracker_width_k

    b_kc = centre_k + shift_k side_k
    b_ks = log side_k + stretch_k + (S_k + A_k/2, S_k - A_k/2)
    S_k  = crowd_0 . Q + (follow_0 + tracker_follow_k0) scale_k       Q: what all trackers see together
    A_k  = crowd_1 . Q + (follow_1 + tracker_follow_k1) aspect_k      changes since the first frame, as logarithms

    log p_k = exp(sharpness) accuracy_k + trust_k + trust_time_k time + stubs . X_k + trust_scale_k X_k0 + const
    X_k  = (|scale_k|/.35, max(scale_k, 0)/.2, |aspect_k|/.2), at most 6: the stub functions

Trackers under-follow a change of scale: S and A give back, from what all of them see, what they leave out. The seed is
the corrected box of lowest energy. The loss is 1 - IoU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from ..energy import Energy
from .base import Fusion
from .features import MOST, QUANTILES, Features
from .settings import Settings, squares
from .tracks import Tracks

Floats = NDArray[np.float64]

CROWD = len(QUANTILES) + 6

OF_TRACKERS = ("trust", "trust_time", "trust_scale", "tracker_width", "shift", "stretch", "tracker_follow")

_PENALTIES = {
    "trust": 3e-3,
    "tracker_width": 3e-3,
    "trust_time": 3e-2,
    "trust_scale": 3e-2,
    **dict.fromkeys(("stretch", "shift", "tracker_follow", "crowd", "stubs"), 1e-2),
}
_GEOMETRY = dict.fromkeys(("stretch", "shift", "follow", "tracker_follow", "crowd"), 0.001)

PRESETS = {
    "new sequences": Settings(
        sharpness=5.0, width=(0.12, 0.2), penalties=_PENALTIES, dropout=0.5, rate=0.3, rates=_GEOMETRY
    ),
    "same sequences, other frames": Settings(
        penalties={name: penalty / 100 for name, penalty in _PENALTIES.items()},
        dropout=0.0,
        optimiser="Adam",
        rate=0.03,
        steps=1000,
        minima=True,
    ),
}
"""The one of few steps for what holds for other sequences; the other one fits those that it has seen."""


def heavy_tail(d2: Any) -> Any:
    """1/(1 + d^2): a tracker that is far away still pulls a little."""
    return 1 / (1 + d2)


def gaussian(d2: Any) -> Any:
    """exp(-d^2/2): the paper's."""
    return sp.exp(-d2 / 2)


class BoxFusion(Fusion):
    """The declaration of the joint energy, with where its weights start and what it reads of frames.

    Parameters
    ----------
    trackers : Tracks, or dict of float
        Which trackers, and how accurate they are: tracks to learn from, or accuracies by name.
    preset : {"new sequences", "same sequences, other frames"} or Settings
    kernel : function of d^2
        `heavy_tail`, `gaussian`, or another formula.
    changes
        Settings that are not the preset's.

    Attributes
    ----------
    energy : Energy
        Of variable y (4,).
    loss : dict
        What `wb.Loss(**fusion.loss)` takes: 1 - IoU of y and the target, with the penalties.
    names : tuple of str
        Of the trackers.
    accuracy : (T,)
        Less its mean, times the preset's sharpness.
    settings : Settings

    Examples
    --------
    >>> import wiberg as wb
    >>> from wiberg.energies.fusion import BoxFusion, made_up
    >>> tracks = made_up(seed=1)
    >>> train, test = tracks.part("sequences", "train"), tracks.part("sequences", "test")
    >>> fusion = BoxFusion(train, "new sequences", steps=40)
    >>> learner = wb.Learner(
    ...     wb.compile(fusion.energy), wb.Loss(**fusion.loss), fusion.weights(), wb.SGD(fusion.rates, momentum=0.9))
    >>> history = learner.fit(lambda step: wb.Batch(**fusion.batch(train, step)), steps=fusion.settings.steps)
    >>> seen = fusion.features(test)
    >>> boxes = fusion.boxes(learner.predict(fusion.data(seen)), seen)
    >>> median, fused = (wb.energies.fusion.overlap(b, test.truth).mean() for b in (seen.frame.boxes, boxes))
    >>> bool(fused > median)
    True
    """

    presets: ClassVar = PRESETS
    of_trackers = OF_TRACKERS

    def __init__(
        self,
        trackers: Tracks | Mapping[str, float],
        preset: str | Settings = "new sequences",
        *,
        kernel: Callable[[Any], Any] = heavy_tail,
        **changes: Any,
    ) -> None:
        super().__init__(trackers, preset, **changes)
        self.kernel = kernel

    # ------------------------------------------------------------------------------------------ declarations

    output = None

    @property
    def energies(self) -> tuple[Energy, ...]:
        """Its one energy."""
        return (self.energy,)

    @cached_property
    def energy(self) -> Energy:
        """E(y), compiled by `wb.compile`."""
        return _declare(self.kernel)

    @property
    def loss(self) -> dict[str, Any]:
        """1 - IoU of the boxes y and target, in the same coordinates, and the penalties."""
        y, target = _symbol("y", 4), _symbol("target", 4)
        low = [sp.Max(y[a] - sp.exp(y[2 + a]) / 2, target[a] - sp.exp(target[2 + a]) / 2) for a in (0, 1)]
        high = [sp.Min(y[a] + sp.exp(y[2 + a]) / 2, target[a] + sp.exp(target[2 + a]) / 2) for a in (0, 1)]
        both = sp.Max(high[0] - low[0], 0) * sp.Max(high[1] - low[1], 0)
        union = sp.exp(y[2] + y[3]) + sp.exp(target[2] + target[3]) - both
        penalty = squares(_squared(), self.settings.penalties)
        return {"expression": 1 - both / union, "variables": [y], "targets": [target], "regulariser": penalty}

    def weights(self) -> dict[str, Any]:
        """Where the weights start: all trackers are corrected and trusted alike, but for their accuracy."""
        n = len(self.names)
        return {
            "sharpness": 0.0,
            "stubs": np.zeros(3),
            "width": np.log(self.settings.width),
            "crowd": np.zeros((2, CROWD)),
            "follow": np.zeros(2),
            "trust": np.zeros(n),
            "trust_time": np.zeros(n),
            "trust_scale": np.zeros(n),
            "tracker_width": np.zeros((n, 2)),
            "shift": np.zeros((n, 2)),
            "stretch": np.zeros((n, 2)),
            "tracker_follow": np.zeros((n, 2)),
        }

    # ------------------------------------------------------------------------------------------ data

    def data(self, seen: Features) -> dict[str, Floats]:
        """The data of the energy."""
        return {
            "centre": seen.centre,
            "size": seen.size,
            "side": seen.side,
            "change": seen.change,
            "present": seen.present,
            "crowd_features": seen.crowd,
            "time": seen.time,
            "accuracy": self.accuracy,
        }

    def targets(self, tracks: Tracks, seen: Features) -> dict[str, Floats]:
        """The true boxes in the coordinates of the energy."""
        return {"target": seen.frame.to_coordinates(tracks.known)}

    def boxes(self, variables: Mapping[str, Any], seen: Features) -> Floats:
        """Boxes in pixels, (F, 4), from the minima y."""
        return seen.frame.to_boxes(variables["y"])


def _symbol(name: str, *shape: Any) -> Any:
    return sp.IndexedBase(name, shape=shape)


_N = sp.Symbol("n", integer=True, positive=True)


def _weights() -> dict[str, Any]:
    return {
        "sharpness": sp.Symbol("sharpness", real=True),
        "stubs": _symbol("stubs", 3),
        "width": _symbol("width", 2),
        "crowd": _symbol("crowd", 2, CROWD),
        "follow": _symbol("follow", 2),
        **{name: _symbol(name, _N) for name in ("trust", "trust_time", "trust_scale")},
        **{name: _symbol(name, _N, 2) for name in ("tracker_width", "shift", "stretch", "tracker_follow")},
    }


def _squared() -> dict[str, Any]:
    """The sum of the squares of each weight."""
    k, a, q, e = sp.Idx("k", _N), sp.Idx("a", 2), sp.Idx("q", CROWD), sp.Idx("e", 3)
    w = _weights()
    indices = {"stubs": (e,), "width": (a,), "crowd": (a, q), "follow": (a,)}
    indices |= dict.fromkeys(("trust", "trust_time", "trust_scale"), (k,))
    indices |= dict.fromkeys(("tracker_width", "shift", "stretch", "tracker_follow"), (k, a))
    sums = {name: sp.Sum(w[name][index] ** 2, *index) for name, index in indices.items()}
    return {"sharpness": w["sharpness"] ** 2, **sums}


def _declare(kernel: Callable[[Any], Any]) -> Energy:
    w, n = _weights(), _N
    k, c, q, a = sp.Idx("k", n), sp.Idx("c", n), sp.Idx("q", CROWD), sp.Idx("a", 2)
    y, time = _symbol("y", 4), sp.Symbol("time", real=True)
    centre, size, side, change = (_symbol(name, n, 2) for name in ("centre", "size", "side", "change"))
    present, accuracy, seen = _symbol("present", n), _symbol("accuracy", n), _symbol("crowd_features", CROWD)
    share, correction, place, precision = (
        _symbol("share", 2),
        *(_symbol(name, n, 2) for name in ("correction", "place", "precision")),
    )
    log_width, log_height, importance, rescaled, enlarged, reshaped = (
        _symbol(name, n) for name in ("log_width", "log_height", "importance", "rescaled", "enlarged", "reshaped")
    )
    vote, count = _symbol("vote", n), sp.Symbol("count", real=True)
    where = {
        share[a]: sp.Sum(w["crowd"][a, q] * seen[q], q),
        correction[k, a]: share[a] + (w["follow"][a] + w["tracker_follow"][k, a]) * change[k, a],
        place[k, a]: centre[k, a] + w["shift"][k, a] * side[k, a],
        log_width[k]: size[k, 0] + w["stretch"][k, 0] + correction[k, 0] + correction[k, 1] / 2,
        log_height[k]: size[k, 1] + w["stretch"][k, 1] + correction[k, 0] - correction[k, 1] / 2,
        rescaled[k]: sp.Min(sp.Abs(change[k, 0]) / 0.35, MOST),
        enlarged[k]: sp.Min(sp.Max(change[k, 0], 0) / 0.2, MOST),
        reshaped[k]: sp.Min(sp.Abs(change[k, 1]) / 0.2, MOST),
        importance[k]: sp.exp(
            sp.exp(w["sharpness"]) * accuracy[k]
            + w["trust"][k]
            + w["trust_time"][k] * time
            + (w["stubs"][0] + w["trust_scale"][k]) * rescaled[k]
            + w["stubs"][1] * enlarged[k]
            + w["stubs"][2] * reshaped[k]
        ),
        vote[k]: present[k] * importance[k] / sp.Sum(present[c] * importance[c], c),
        count: sp.Sum(present[k], k),
        precision[k, a]: sp.exp(-2 * (w["width"][a] + w["tracker_width"][k, a])),
    }
    d2 = ((y[0] - place[k, 0]) ** 2 + (y[1] - place[k, 1]) ** 2) * precision[k, 0] + (
        (y[2] - log_width[k]) ** 2 + (y[3] - log_height[k]) ** 2
    ) * precision[k, 1]
    return Energy(
        -count * sp.Sum(vote[k] * kernel(d2), k),
        variables=[y],
        weights=list(w.values()),
        data=[centre, size, side, change, present, accuracy, seen, time],
        where=where,
        candidates={y[0]: place[c, 0], y[1]: place[c, 1], y[2]: log_width[c], y[3]: log_height[c]},
        name="box",
    )
