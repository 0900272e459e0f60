"""What happened at each step of learning, as arrays.

Memory is bounded: `Rows` keeps every row while there are at most `limit`; when it is full, every second row is dropped
and from then on only every second, fourth, ... is kept. The numbers of a step have LIMIT rows (a million steps), and
weights have LIMIT numbers (every step of a million-step run of one weight, 725 steps of 1,445 weights), but at least
256 rows. Which steps these are depends on the number of steps alone, so that a resumed run has the same history.

The last steps are kept once more, what was learnt and its gradient, for `Learner.report`: up to 256 of them, fewer
where there are more than 2,048 weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..energies.errors import CheckpointError

Floats = NDArray[np.float64]

LIMIT = 1 << 20
RECENT = 256
SERIES = (
    "loss",
    "gradient_norm",
    "unconverged",
    "shifted",
    "dominated",
    "largest_contribution",
    "learning_rate",
    "damping",
    "clipped",
    "skipped",
)


@dataclass(frozen=True, repr=False)
class History:
    """Arrays over the steps taken so far; entry k is of step `steps[k]`, which starts from the weights after so many.

    Attributes
    ----------
    loss : (records,)
        Mean loss over the instances of the batch that were used, before the step; NaN where none was.
    gradient_norm : (records,)
        Euclidean norm of the gradient of the mean loss, in the units in which the weights are learnt, before clipping.
    unconverged : (records,)
        Share of the instances whose minimisation ended with the iteration limit, not finite, unbounded or on a saddle.
    shifted : (records,)
        Share of the instances whose Hessian was not positive semi-definite, so that more than the damping was added.
    dominated : (records,)
        Share of the instances whose smallest curvature is below the damping.
    largest_contribution : (records,)
        The largest norm of what a single instance (of a family, a member) adds to the gradient of the mean loss through
        its minimum, by the weights as shown. Near gradient_norm: one instance decides the step.
    learning_rate : (records,)
        The largest of them, where weights have their own.
    damping : (records,)
    clipped : (records,)
        1 where the gradient was shortened to `clip`, else 0.
    skipped : (records,)
        1 where loss or gradient was not finite and the step not applied (not_finite="skip"), else 0.
    weights : dict of (weight records, *shape)
        Weights as shown (not their logarithms).
    weight_steps : (weight records,)
        How many steps had been taken at each of these; the first is 0, the start.
    steps : (records,)
        0, 1, 2, ...; of more than a million steps every second one, or every fourth, ...
    """

    loss: Floats
    gradient_norm: Floats
    unconverged: Floats
    shifted: Floats
    dominated: Floats
    largest_contribution: Floats
    learning_rate: Floats
    damping: Floats
    clipped: Floats
    skipped: Floats
    weights: Mapping[str, Floats]
    weight_steps: NDArray[np.int64]
    steps: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.loss)

    def __repr__(self) -> str:
        if not len(self):
            return "History(0 steps)"
        skipped = int(self.skipped.sum())
        return (
            f"History({len(self)} steps, loss {self.loss[0]:.6g} -> {self.loss[-1]:.6g}, "
            f"{100 * np.nanmean(self.unconverged) if skipped < len(self) else 0:.3g} % unconverged"
            f"{f', {skipped} skipped' if skipped else ''})"
        )


class Rows:
    """Growing rows of numbers, thinned when there are more than `limit`; a row that is put again is overwritten."""

    def __init__(self, width: int, limit: int) -> None:
        self.limit = limit
        # interval, rows: replaced together, so that an interrupt leaves the one or the other, never a mixture
        self._rows: tuple[int, Floats] = (1, np.empty((min(64, limit), width)))

    def put(self, number: int, row: Any) -> None:
        """Keep row `number`, if it is one of those that are kept; numbers come in order."""
        interval, rows = self._rows
        if interval == 1 and number < len(rows):  # all others are rare
            rows[number] = row
            return
        if number % interval:
            return
        if number // interval >= self.limit:
            interval, rows = 2 * interval, rows[: self.limit : 2]
            self._rows = interval, _grown(rows, self.limit)
            if number % interval:
                return
            rows = self._rows[1]
        if number // interval >= len(rows):
            rows = _grown(rows, min(self.limit, 2 * len(rows)))
            self._rows = interval, rows
        rows[number // interval] = row

    def kept(self, count: int) -> tuple[int, Floats]:
        """The interval, and a copy of the rows kept of the first `count`."""
        interval, rows = self._rows
        return interval, rows[: -(-count // interval)].copy()

    @classmethod
    def restored(cls, interval: int, rows: Floats, limit: int) -> Rows:
        """What had `kept`."""
        restored = cls(rows.shape[1], limit)
        restored._rows = interval, _grown(rows, max(min(64, limit), len(rows)))
        return restored


class Record:
    """The growing arrays behind a `History`; rows are written by step number, so that a repeated step overwrites.

    Parameters
    ----------
    weights : (p,)
        The start, as shown.
    count : int
        How many numbers are learnt.
    """

    def __init__(self, weights: Floats, count: int) -> None:
        self._series = Rows(len(SERIES), LIMIT)
        self._weights = Rows(len(weights), max(256, LIMIT // max(1, len(weights))))
        self._weights.put(0, weights)
        self._learnt = np.full((max(4, min(RECENT, LIMIT // (2 * max(1, count)))), count), np.nan)
        self._gradients = self._learnt.copy()

    def write(self, step: int, series: tuple[float, ...], weights: Floats, learnt: Floats, gradient: Any) -> None:
        """Enter the numbers of step `step`, the weights that it led to, and where it started with which gradient."""
        self._series.put(step, series)
        self._weights.put(step + 1, weights)
        here = step % len(self._learnt)
        self._learnt[here] = learnt
        self._gradients[here] = gradient

    def history(self, steps: int, unpack: Any) -> History:
        """The history of the first `steps` steps; `unpack` makes the dict of weights from rows of packed ones."""
        interval, series = self._series.kept(steps)
        weight_interval, weights = self._weights.kept(steps + 1)
        return History(
            **dict(zip(SERIES, series.T.copy(), strict=True)),
            weights=unpack(weights),
            weight_steps=np.arange(len(weights), dtype=np.int64) * weight_interval,
            steps=np.arange(len(series), dtype=np.int64) * interval,
        )

    def recent(self, steps: int) -> tuple[Floats, Floats]:
        """What was learnt, and its gradient, at the last of `steps` steps, in order: (n, q) each, skipped ones NaN."""
        size = len(self._learnt)
        rows = np.arange(max(0, steps - size), steps) % size
        return self._learnt[rows], self._gradients[rows]

    def arrays(self, steps: int) -> dict[str, NDArray[Any]]:
        """What a checkpoint stores."""
        interval, series = self._series.kept(steps)
        weight_interval, weights = self._weights.kept(steps + 1)
        return {
            "history/series": series,
            "history/interval": np.array([interval, weight_interval], dtype=np.int64),
            "history/weights": weights,
            "history/learnt": self._learnt[:steps].copy(),
            "history/gradients": self._gradients[:steps].copy(),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], steps: int) -> Record:
        """The record that `arrays` described."""
        series, weights = arrays["history/series"], arrays["history/weights"]
        if series.ndim != 2 or series.shape[1] != len(SERIES) or "history/gradients" not in arrays:
            raise CheckpointError(f"its history is of another version of wiberg; this one keeps {', '.join(SERIES)}")
        gradients = arrays["history/gradients"]
        interval, weight_interval = (int(number) for number in arrays["history/interval"])
        lengths = -(-steps // interval), -(-(steps + 1) // weight_interval)
        if (len(series), len(weights)) != lengths:
            raise CheckpointError(f"its history does not hold {steps} steps")
        record = cls(weights[0], gradients.shape[1])
        record._series = Rows.restored(interval, series, record._series.limit)
        record._weights = Rows.restored(weight_interval, weights, record._weights.limit)
        record._learnt[: len(gradients)] = arrays["history/learnt"]
        record._gradients[: len(gradients)] = gradients
        return record


def _grown(rows: NDArray[Any], length: int) -> NDArray[Any]:
    grown = np.empty((length, *rows.shape[1:]))
    grown[: len(rows)] = rows
    return grown
