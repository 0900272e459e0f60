"""The loss of weights on data that is not learnt from, instance by instance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.solution import Solution, Status
from .batches import Batch
from .judge import loss_at
from .model import Minima, Model
from .output import instances_of

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """Losses of the instances of a data set.

    Attributes
    ----------
    losses : (N,)
        NaN where the minimisation did not converge.
    statuses : dict of int
        How many minimisations ended how, by the name of the status.
    """

    losses: Floats
    statuses: Mapping[str, int]

    def numbers(self) -> dict[str, Any]:
        """Means and quantiles over the instances that converged, and the worst of them; None where there is none."""
        counted = self.losses[np.isfinite(self.losses)]
        found: dict[str, Any] = {"instances": len(self.losses), "unconverged": int(np.isnan(self.losses).sum())}
        if not len(counted):
            return {**found, "mean": None, "median": None, "90 %": None, "largest": None, "worst_instance": None}
        middle, most = np.quantile(counted, [0.5, 0.9])
        return {
            **found,
            "mean": float(counted.mean()),
            "median": float(middle),
            "90 %": float(most),
            "largest": float(counted.max()),
            "worst_instance": int(np.nanargmax(self.losses)),
        }


def evaluate(
    model: Model, weights: Mapping[str, Any], batches: Iterable[Batch], minimiser: Mapping[str, Any]
) -> Evaluation:
    """Minimise and judge batch after batch.

    Parameters
    ----------
    weights : dict
        Of the model, by name.
    minimiser : dict
        Options of `minimise`.
    """
    losses, statuses = [], np.zeros(len(Status), dtype=np.int64)
    for batch in batches:
        minima = model.minimise(weights, batch, minimiser)
        parts = model.solutions(minima)
        count = count_of(minima)
        judged = loss_at(model, batch, minima, weights, count, who=f"evaluate: batch {batch.name!r}")
        values = judged.values.copy()
        for part in parts:
            statuses += np.bincount(part.integers[:, 2], minlength=len(Status))
            values[model.failed(part).reshape(-1, max(1, part.inputs.members)).any(axis=1)] = np.nan
        losses.append(values)
    named = {status.name: int(statuses[status]) for status in Status if statuses[status]}
    return Evaluation(np.concatenate(losses), named)


def count_of(minima: Minima) -> int:
    """How many instances a result has."""
    return instances_of(minima) if isinstance(minima, Solution) else minima.batch or 1
