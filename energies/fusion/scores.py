"""How good fused boxes are: overlaps by frame and by sequence, how sure that is, and what simple fusions reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .overlap import overlap, usable
from .tracks import Tracks

Floats = NDArray[np.float64]

BEST, TEN = 5, 10
"""Single trackers that are listed; trackers in the median of the best."""


def by_sequence(values: Any, sequence: Any) -> Floats:
    """The mean over the frames of each sequence that there is, by number.

    Examples
    --------
    >>> by_sequence([1.0, 0.0, 3.0], [0, 0, 4]).tolist()
    [0.5, 3.0]
    """
    total, count = _sums(values, sequence)
    return np.asarray(total / count)


def interval(
    values: Any, sequence: Any, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """A bootstrap interval of the mean over all frames, sequences drawn with replacement.

    Frames of a sequence are alike: the number of sequences says how sure a mean is.
    """
    total, count = _sums(values, sequence)
    chosen = np.random.default_rng(seed).integers(0, len(total), (draws, len(total)))
    means = total[chosen].sum(axis=1) / count[chosen].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_test(one: Any, other: Any, sequence: Any, *, draws: int = 10_000, seed: int = 0) -> float:
    """The chance of a mean difference as large where neither is better: signs of sequences drawn anew (two-sided).

    Examples
    --------
    >>> paired_test([1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0, 1, 2])
    1.0
    """
    total, _ = _sums(np.asarray(one, dtype=float) - np.asarray(other, dtype=float), sequence)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (draws, len(total)))
    least = abs(total.sum()) * (1 - 1e-12)
    return float((1 + np.count_nonzero(np.abs(signs @ total) >= least)) / (1 + draws))


def _sums(values: Any, sequence: Any) -> tuple[Floats, Floats]:
    number = np.unique(np.asarray(sequence), return_inverse=True)[1]
    total = np.bincount(number, np.asarray(values, dtype=float)).astype(float)
    return total, np.bincount(number).astype(float)


def ranking(tracks: Tracks) -> list[str]:
    """Trackers by their mean overlap over all frames, the best first."""
    return [tracks.names[k] for k in np.argsort(-tracks.overlaps().mean(axis=0), kind="stable")]


def baselines(tracks: Tracks, ranked: Sequence[str]) -> dict[str, Floats]:
    """Boxes (F, 4) of simple fusions, and of single trackers; `ranked` are trackers by their accuracy in training.

    Boxes count as they are stored, also where they are not valid, as long as they have an area.
    """
    known = [name for name in ranked if name in tracks.names]
    boxes = np.where(usable(tracks.boxes)[..., None], tracks.boxes, np.nan).astype(float)
    low, high = boxes[..., :2], boxes[..., :2] + boxes[..., 2:]
    ten = [tracks.names.index(name) for name in known[:TEN]]
    made = {
        "mean": _box(low, high, np.nanmean),
        "median": _box(low, high, np.nanmedian),
        "median of the ten best": _box(low[:, ten], high[:, ten], np.nanmedian),
    }
    for place, name in enumerate(known[:BEST]):
        made[f"best single {place + 1}: {name}"] = np.asarray(tracks.boxes[:, tracks.names.index(name)], dtype=float)
    return made


def _box(low: Floats, high: Floats, middle: Any) -> Floats:
    some = ~np.isnan(low).all(axis=(1, 2))
    result = np.full((len(low), 4), np.nan)
    if some.any():
        corner = middle(low[some], axis=1)
        result[some] = np.concatenate([corner, middle(high[some], axis=1) - corner], axis=1)
    return result


def oracle(tracks: Tracks) -> Floats:
    """The overlap of the best box of each frame, (F,)."""
    return np.asarray(tracks.overlaps().max(axis=1))


def interpolated(tracks: Tracks, known: Tracks) -> Floats:
    """Boxes of frames from the true boxes of the neighbouring known frames of the same sequence, no tracker asked.

    What a partition by frames gives away: a warning beside everything that is learnt there.
    """
    result = np.full((len(tracks), 4), np.nan)
    for sequence in np.unique(tracks.sequence):
        here, there = np.flatnonzero(tracks.sequence == sequence), np.flatnonzero(known.sequence == sequence)
        order = there[np.argsort(known.frame[there])]
        times = np.concatenate([[0.0], known.frame[order]])
        boxes = np.concatenate([tracks.first[here[:1]], known.known[order]])
        for axis in range(4):
            result[here, axis] = np.interp(tracks.frame[here], times, boxes[:, axis])
    return result


def overlaps_of(tracks: Tracks, boxes: dict[str, Floats]) -> dict[str, Floats]:
    """The overlap of each with the true boxes, (F,)."""
    return {name: overlap(box, tracks.known) for name, box in boxes.items()}
