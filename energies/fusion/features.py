"""What the energies of fusion read of a frame, from the boxes of its trackers.

Lengths are in units of a box of the frame itself: the medians of log width and log height, of x and of y over the
trackers that count there. A frame has the same features wherever its object is, and however large.

Trackers that do not count in a frame (missing, lost, without an area) have `present` 0 and the place of the median box,
so that they have no weight in the energy and are no candidate of their own. A frame in which none counts has NaN
throughout: no minimisation of it can succeed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Of the scale change over trackers."""
FAR = 60.0
"""Boxes are moved to at most so many of the median box's sides from it, and their sides are at most so long."""
MOST = 6.0
"""Changes are at most so many of their usual sizes: .35, .2, .2."""
CHUNK = 1024
"""Frames at once: what is sorted stays in the cache."""


@dataclass(frozen=True)
class Frame:
    """The median box: where the coordinates of the energies begin, and their units; (F, 2) each."""

    centre: Floats
    size: Floats

    @property
    def boxes(self) -> Floats:
        """It, in pixels, (F, 4)."""
        return np.concatenate([self.centre - self.size / 2, self.size], axis=-1)

    def to_coordinates(self, boxes: Any) -> Floats:
        """x, y, width, height in pixels -> centre in units of the median box, log size over its size; (F, 4)."""
        boxes = np.asarray(boxes, dtype=float)
        centre = (boxes[..., :2] + boxes[..., 2:] / 2 - self.centre) / self.size
        return np.concatenate([centre, np.log(boxes[..., 2:] / self.size)], axis=-1)

    def to_boxes(self, coordinates: Any) -> Floats:
        """The way back."""
        y = np.asarray(coordinates, dtype=float)
        size = np.exp(y[..., 2:]) * self.size
        return np.concatenate([y[..., :2] * self.size + self.centre - size / 2, size], axis=-1)


@dataclass(frozen=True)
class Features:
    """Of F frames and T trackers.

    Parameters
    ----------
    frame : Frame
        The coordinates that the features are in.
    present : (F, T)
        1 where a tracker counts, else 0.
    centre, side, size : (F, T, 2)
        Of the boxes: centre and sides in units of the median box; logarithms of the sides.
    change : (F, T, 2)
        Logarithms of the change of scale (the root of the area) and of the ratio of the sides since the first frame.
    crowd : (F, 11)
        What all trackers see together: quantiles of the change of scale, the median of that of the ratio, the first
        ratio times 1 - exp(-n/30) and 1 - exp(-n/200), these two themselves, and time.
    time : (F,)
        From 0 to 1 over the sequence, centred and divided by its spread: (time - .5) / .29.
    first : (F,)
        The root of the area of the first box, in pixels.
    """

    frame: Frame
    present: Floats
    centre: Floats
    side: Floats
    size: Floats
    change: Floats
    crowd: Floats
    time: Floats
    first: Floats


def features(boxes: Any, valid: Any, number: Any, length: Any, first: Any) -> Features:
    """The features of frames.

    Parameters
    ----------
    boxes, valid, number, length, first
        As in `Tracks`: (F, T, 4), (F, T), (F,), (F,), (F, 4).
    """
    boxes, valid = np.asarray(boxes), np.asarray(valid, dtype=bool)
    count, trackers = valid.shape
    centre, side, size, change = (np.empty((count, trackers, 2)) for _ in range(4))
    middle, unit = np.empty((count, 2)), np.empty((count, 2))
    crowd = np.empty((count, len(QUANTILES) + 6))
    number, first = np.asarray(number, dtype=float), np.asarray(first, dtype=float)
    time = number / np.maximum(np.asarray(length, dtype=float) - 1, 1)
    start = np.log(first[:, 2:])
    for begin in range(0, count, CHUNK):
        rows = slice(begin, begin + CHUNK)
        _of_boxes(
            boxes[rows],
            valid[rows],
            start[rows],
            (centre[rows], side[rows], size[rows], change[rows], middle[rows], unit[rows], crowd[rows]),
        )
    soon, late = 1 - np.exp(-number / 30), 1 - np.exp(-number / 200)
    ratio = start[:, 0] - start[:, 1]
    k = len(QUANTILES) + 1
    for column, values in enumerate((ratio * soon, ratio * late, soon, late, time)):
        crowd[:, k + column] = values
    present = valid.astype(float)
    present[~valid.any(axis=1)] = np.nan
    frame, first_size = Frame(middle, unit), np.exp(start.sum(axis=1) / 2)
    return Features(frame, present, centre, side, size, change, crowd, (time - 0.5) / 0.29, first_size)


def _of_boxes(boxes: Any, valid: Flags, start: Floats, out: tuple[Floats, ...]) -> None:
    """The features of boxes, for some frames, written into `out`."""
    centre, sides, size, change, middle, unit, crowd = out
    scale, aspect = change[..., 0], change[..., 1]
    fine, counts = bool(valid.all()), valid.sum(axis=1)
    sides[...] = boxes[..., 2:]
    corner = np.ascontiguousarray(boxes[..., :2], dtype=float)
    if not fine:
        sides[~valid], corner[~valid] = 1.0, 0.0
    centre[...] = corner + sides / 2
    np.log(sides, out=size)
    np.subtract(size[..., 0], size[..., 1], out=aspect)
    np.subtract(aspect, (start[:, 0] - start[:, 1])[:, None], out=aspect)
    np.add(size[..., 0], size[..., 1], out=scale)
    np.subtract(scale, start.sum(axis=1)[:, None], out=scale)
    scale *= 0.5
    ordered = np.stack([centre[..., 0], centre[..., 1], size[..., 0], size[..., 1], aspect, scale])
    if not fine:
        ordered[:, ~valid] = np.inf
    ordered.sort(axis=-1)
    medians = [_quantile(one, counts, 0.5) for one in ordered[:5]]
    middle[...] = np.stack(medians[:2], axis=1)
    unit[...] = np.exp(np.stack(medians[2:4], axis=1))
    for column, q in enumerate(QUANTILES):
        crowd[:, column] = _quantile(ordered[5], counts, q)
    crowd[:, len(QUANTILES)] = medians[4]
    size -= np.stack(medians[2:4], axis=1)[:, None]
    centre -= middle[:, None]
    centre /= unit[:, None]
    sides /= unit[:, None]
    np.clip(centre, -FAR, FAR, out=centre)
    np.minimum(sides, FAR, out=sides)
    if not fine:
        centre[~valid], sides[~valid], size[~valid], change[~valid] = 0.0, 1.0, 0.0, 0.0


def _quantile(ordered: Floats, counts: NDArray[np.int64], q: float) -> Floats:
    """The quantile of the first `counts` numbers of each row, as NumPy's; NaN where there are none."""
    place = q * np.maximum(counts - 1, 0)
    low = place.astype(np.int64)
    rows = np.arange(len(ordered))
    below, above = ordered[rows, low], ordered[rows, np.minimum(low + 1, np.maximum(counts - 1, 0))]
    with np.errstate(invalid="ignore"):
        result = below + (place - low) * (above - below)
    return np.where(counts > 0, result, np.nan)
