"""What happened at each step of learning, as arrays.

Numbers of a step are kept for all steps. The weights are kept after every step while the record holds at most
`LIMIT` numbers (a million: every step of a million-step run of one weight, 725 steps of 1,445 weights), and at least
256 records; when it is full, every second record is dropped and from then on only every second, fourth, ... step is
kept. Which steps these are depends on nothing but the number of steps, so that a resumed run has the same history.
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
SERIES = ("loss", "gradient_norm", "unconverged", "shifted", "dominated")


@dataclass(frozen=True, repr=False)
class History:
    """Arrays over the steps taken so far; entry k belongs to step k, which starts from the weights after k steps.

    Attributes
    ----------
    loss : (steps,)
        Mean loss over the instances of the batch that were used, before the step; NaN where none was.
    gradient_norm : (steps,)
        Euclidean norm of the gradient of the mean loss, in the units in which the weights are learnt.
    unconverged : (steps,)
        Share of the instances whose minimisation ended with the iteration limit, not finite, unbounded or on a saddle.
    shifted : (steps,)
        Share of the instances whose Hessian was not positive semi-definite, so that more than the damping was added.
    dominated : (steps,)
        Share of the instances whose smallest curvature is below the damping.
    weights : dict of (records, *shape)
        Weights as shown (not their logarithms).
    weight_steps : (records,)
        How many steps had been taken at each record; the first is 0, the start.
    """

    loss: Floats
    gradient_norm: Floats
    unconverged: Floats
    shifted: Floats
    dominated: Floats
    weights: Mapping[str, Floats]
    weight_steps: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.loss)

    def __repr__(self) -> str:
        if not len(self):
            return "History(0 steps)"
        return (
            f"History({len(self)} steps, loss {self.loss[0]:.6g} -> {self.loss[-1]:.6g}, "
            f"{100 * self.unconverged.mean():.3g} % unconverged)"
        )


class Record:
    """The growing arrays behind a `History`; rows are written by step number, so that a repeated step overwrites."""

    def __init__(self, weights: Floats) -> None:
        self._series = np.empty((64, len(SERIES)))
        self.limit = max(256, LIMIT // max(1, weights.size))
        # interval, rows: replaced together, so that an interrupt leaves the one or the other, never a mixture
        self._weights: tuple[int, Floats] = (1, np.empty((16, weights.size)))
        self._weights[1][0] = weights

    def write(self, step: int, series: tuple[float, ...], weights: Floats) -> None:
        """Enter the numbers of step `step` and the weights that it led to."""
        if step >= len(self._series):
            self._series = _grown(self._series, 2 * len(self._series))
        self._series[step] = series
        interval, rows = self._weights
        done = step + 1
        if done % interval:
            return
        if done // interval >= self.limit:
            interval, rows = 2 * interval, rows[: self.limit : 2]
            self._weights = interval, _grown(rows, self.limit)
            if done % interval:
                return
            rows = self._weights[1]
        if done // interval >= len(rows):
            rows = _grown(rows, min(self.limit, 2 * len(rows)))
            self._weights = interval, rows
        rows[done // interval] = weights

    def history(self, steps: int, unpack: Any) -> History:
        """The history of the first `steps` steps; `unpack` makes the dict of weights from rows of packed ones."""
        series = self._series[:steps].T.copy()
        interval, rows = self._weights
        count = steps // interval + 1
        loss, gradient_norm, unconverged, shifted, dominated = series
        return History(
            loss,
            gradient_norm,
            unconverged,
            shifted,
            dominated,
            unpack(rows[:count].copy()),
            np.arange(count, dtype=np.int64) * interval,
        )

    def arrays(self, steps: int) -> dict[str, NDArray[Any]]:
        """What a checkpoint stores."""
        interval, rows = self._weights
        return {
            "history/series": self._series[:steps].copy(),
            "history/interval": np.array([interval], dtype=np.int64),
            "history/weights": rows[: steps // interval + 1].copy(),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], steps: int) -> Record:
        """The record that `arrays` described."""
        series, rows = arrays["history/series"], arrays["history/weights"]
        interval = int(arrays["history/interval"][0])
        if series.shape != (steps, len(SERIES)) or interval < 1 or len(rows) != steps // interval + 1:
            raise CheckpointError(f"its history does not hold {steps} steps")
        record = cls(rows[0])
        record._series = _grown(series, max(64, 2 * steps))
        record._weights = interval, _grown(rows, max(16, len(rows)))
        return record


def _grown(rows: NDArray[Any], length: int) -> NDArray[Any]:
    grown = np.empty((length, *rows.shape[1:]))
    grown[: len(rows)] = rows
    return grown
