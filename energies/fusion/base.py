"""What the fusions share: which trackers, how accurate they are, frames drawn for learning, trackers left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError, NameMissingError, nearest
from .features import Features, features
from .overlap import usable
from .settings import Settings, settings_of
from .tracks import Tracks

Floats = NDArray[np.float64]


class Fusion:
    """A fusion of certain trackers: the base of `BoxFusion` and `CornerFusion`.

    Attributes
    ----------
    names : tuple of str
        Of the trackers, in the order of their weights.
    accuracy : (T,)
        The setting `sharpness` times mean overlap, less the mean over trackers: a datum of the energies.
    settings : Settings
    """

    presets: ClassVar[Mapping[str, Settings]]
    of_trackers: ClassVar[tuple[str, ...]]
    """Weights with an axis of trackers in front."""

    def __init__(self, trackers: Tracks | Mapping[str, float], preset: str | Settings, **changes: Any) -> None:
        self.settings = settings_of(preset, self.presets, changes, type(self).__name__)
        if isinstance(trackers, Tracks):
            known = trackers.with_truth()
            mean = known.chances(self.settings.balance) @ known.overlaps()
            self.names = known.names
        else:
            self.names, mean = tuple(trackers), np.array(list(trackers.values()), dtype=float)
        if not self.names:
            raise InputError(f"{type(self).__name__}: no trackers")
        self.accuracy: Floats = self.settings.sharpness * (mean - mean.mean())

    def weights(self) -> dict[str, Any]:
        """Where the weights start."""
        raise NotImplementedError

    def data(self, seen: Features) -> dict[str, Floats]:
        """The data of the energies."""
        raise NotImplementedError

    def targets(self, tracks: Tracks, seen: Features) -> dict[str, Floats]:
        """The true boxes as the loss takes them."""
        raise NotImplementedError

    def boxes(self, variables: Mapping[str, ArrayLike], seen: Features) -> Floats:
        """Boxes in pixels, (F, 4), from minima; NaN where no tracker counts."""
        raise NotImplementedError

    @property
    def rates(self) -> dict[str, float]:
        """The learning rate of each weight."""
        rates = dict.fromkeys(self.weights(), self.settings.rate)
        for name in self.settings.rates:
            if name not in rates:
                raise InputError(f"rates: no weight {name!r}{nearest(name, rates)}; {', '.join(rates)}")
        return rates | dict(self.settings.rates)

    def features(self, tracks: Tracks, dropped: Any = None) -> Features:
        """What is seen in frames.

        Parameters
        ----------
        tracks : Tracks
            Of all trackers of the fusion, and maybe others, which are left out.
        dropped : (F, T), optional
            Boxes that do not count, besides those that are none.

        Raises
        ------
        NameMissingError
            Where a tracker of the fusion is missing; `only` makes a fusion without it.
        """
        known = tracks.of_trackers(self.names)
        valid = known.valid if dropped is None else known.valid & ~dropped
        return features(known.boxes, valid, known.frame, known.length, known.first)

    def batch(self, tracks: Tracks, step: int, seed: int = 0) -> dict[str, Any]:
        """Data and targets of a step, drawn anew for each: what `wb.Batch(**...)` takes."""
        chosen, dropped = draw(tracks.of_trackers(self.names), self.settings, step, seed)
        seen = self.features(chosen, dropped)
        return {"data": self.data(seen), "targets": self.targets(chosen, seen)}

    def table(self, seen: Features) -> tuple[Floats, dict[str, slice]]:
        """The data of frames as rows of numbers, (F, columns), and which columns each array is.

        What `wb.sklearn.EnergyRegressor(..., columns=columns, data={"accuracy": fusion.accuracy})` learns from.
        """
        data = {name: array for name, array in self.data(seen).items() if name != "accuracy"}
        flat = [np.reshape(array, (len(seen.time), -1)) for array in data.values()]
        ends = np.cumsum([0, *(part.shape[1] for part in flat)])
        columns = {name: slice(int(a), int(b)) for name, a, b in zip(data, ends[:-1], ends[1:], strict=True)}
        return np.concatenate(flat, axis=1), columns

    def only(self, names: Sequence[str], weights: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The fusion of some of the trackers, and their part of learnt weights.

        Raises
        ------
        NameMissingError
            For a tracker that the fusion does not know.
        """
        for name in names:
            if name not in self.names:
                raise NameMissingError(
                    f"no tracker {name!r} in this fusion{nearest(name, self.names)}; {', '.join(self.names)}"
                )
        places = [self.names.index(name) for name in names]
        less = copy(self)
        less.names, less.accuracy = tuple(names), self.accuracy[places]
        return less, {name: value[places] if name in self.of_trackers else value for name, value in weights.items()}


def draw(tracks: Tracks, settings: Settings, step: int, seed: int) -> tuple[Tracks, Any]:
    """The frames of a step, and which of their boxes are left out: never all that there are."""
    random = np.random.default_rng([seed, step])
    teaching = np.flatnonzero(tracks.valid.any(axis=1) & usable(tracks.known))
    if not len(teaching):
        raise InputError("the tracks have no frame with a tracker's and a true box to learn from")
    chances = np.cumsum(tracks.chances(settings.balance)[teaching])
    frames = teaching[np.searchsorted(chances, random.random(settings.batch) * chances[-1], side="right")]
    chosen = tracks[frames]
    if settings.dropout == 0:
        return chosen, None
    dropped = random.random(chosen.valid.shape) < settings.dropout
    dropped[~(chosen.valid & ~dropped).any(axis=1)] = False
    return chosen, dropped
