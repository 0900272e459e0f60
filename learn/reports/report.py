"""What learning did to each weight, and whether the data determine it.

For each learnt number u, in the units in which it is learnt, the report looks at the last n steps (up to 256): u_k and
the gradient g_k of the batch that step k saw, at u_k.

    gradient          mean of g_k
    spread            standard deviation of g_k less the part that the line below explains: the noise of a batch
    error of the mean spread / sqrt(n)
    curvature c       slope of the least-squares line g = a + c u through them: the second derivative of the loss along
                      the way that learning took, with its standard error  spread / sqrt(sum (u_k - mean u)^2)
    standard error    spread / (c sqrt(n)): how far the number at which g = 0 is known from these batches, if they
                      are independent draws (delta method)

and says one of the following, the first that holds:

    fixed, tied       not learnt by itself
    too few steps     less than 8
    no derivative     g_k = 0 exactly in all of them: no instance depends on it
    at its bound      a bound holds it, and the mean gradient pushes it there
    determined        c > 0, by more than SURE of its standard errors: the loss rises on both sides
    still moving      the mean gradient differs from 0 by more than SURE of its errors: the data push it, and have not
                      yet shown where they would stop
    not determined    neither can be told from 0: batches disagree by more than anything they have in common

This is a statement about one number at a time, along the way that was taken: numbers that can stand in for each other
can each seem determined while their sum alone is. A batch that is repeated has no noise of its own, and then the spread
is what the line does not explain: the other weights, and the loss not being quadratic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..coordinates import Coordinates

Floats = NDArray[np.float64]

FEWEST = 8
SURE = 3.0
"""Standard errors that count as sure: 1 in 370 for normal noise."""


@dataclass(frozen=True)
class Row:
    """One entry of a weight; numbers that do not exist are NaN.

    Attributes
    ----------
    name : str
        With subscripts.
    start, value, change : float
        As shown; change is value - start.
    scale : str
        The units of the following: "raw", "log" or "logit".
    gradient, spread : float
        Mean and noise of the gradient over the last batches.
    curvature, curvature_error : float
    standard_error : float
        Of what is learnt; NaN unless determined.
    verdict : str
        See the top of report.py.
    """

    name: str
    start: float
    value: float
    change: float
    scale: str
    gradient: float
    spread: float
    curvature: float
    curvature_error: float
    standard_error: float
    verdict: str


_FOUND = ("gradient", "spread", "curvature", "curvature_error", "standard_error")


@dataclass(frozen=True)
class Report:
    """All weights of a learner, as data; `print` shows it as text.

    Attributes
    ----------
    name : str
        Of the energy.
    steps, skipped : int
        How many steps were taken, and how many of those kept in the history were not applied.
    looked_at : int
        How many of the last steps gradients and curvatures are from.
    first_loss, last_loss : float
        Means over the first and the last tenth of the steps.
    unconverged : float
        Mean share of instances that did not converge.
    rows : tuple of Row
        One for each number of each weight, in declared order.
    """

    name: str
    steps: int
    skipped: int
    looked_at: int
    first_loss: float
    last_loss: float
    unconverged: float
    rows: tuple[Row, ...]

    def __str__(self) -> str:
        return "\n".join([*self.head(), "", *_table(self.rows), *self.notes()])

    def head(self) -> list[str]:
        """What was learnt and how far it came, in one line or two."""
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        lines = [f"energy {self.name!r} after {self.steps} steps{skipped}"]
        if self.steps:
            lines.append(
                f"loss {self.first_loss:.6g} -> {self.last_loss:.6g} (means over the first and the last tenth); "
                f"{100 * self.unconverged:.3g} % of instances unconverged"
            )
        return lines

    def notes(self) -> list[str]:
        """What the numbers are of, and what to do about verdicts that are not good."""
        verdicts = {row.verdict for row in self.rows}
        notes = [f"{verdict}: {remedy}" for verdict, remedy in _REMEDIES.items() if verdict in verdicts]
        about = f"gradients of the last {self.looked_at} batches, in the units that are learnt"
        return ["", about, *notes] if self.looked_at else notes


_REMEDIES = {
    "no derivative": "no instance depends on it where it is; start it elsewhere, or fix it",
    "not determined": "batches do not agree in which direction to move it; more data, a regulariser, or fix it",
    "still moving": "the data push it in one direction; take more steps, or a larger learning rate",
    "too few steps": f"at least {FEWEST} are needed to tell a gradient from its noise",
}

_COLUMNS = ("weight", "value", "change", "gradient", "+- spread", "curvature", "+- error", "std. error", "")


def _table(rows: Sequence[Row]) -> list[str]:
    """Lines of aligned columns."""
    cells: list[tuple[str, ...]] = [_COLUMNS]
    for row in rows:
        name = row.name if row.scale == "raw" else f"{row.name} ({row.scale})"
        numbers = (row.gradient, row.spread, row.curvature, row.curvature_error, row.standard_error)
        cells.append((name, f"{row.value:.6g}", f"{row.change:+.3g}", *map(_number, numbers), row.verdict))
    widths = [max(len(line[k]) for line in cells) for k in range(len(_COLUMNS))]
    return [
        "  ".join(
            cell.ljust(width) if k in (0, len(widths) - 1) else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"


def make_report(
    name: str, coordinates: Coordinates, weights: Floats, steps: int, history: Floats, recent: tuple[Floats, Floats]
) -> Report:
    """The report of a learner.

    Parameters
    ----------
    weights : (p,)
        As shown.
    history : (3, records)
        loss, unconverged, skipped, in this order.
    recent : pair of (n, q)
        What was learnt and its gradients at the last steps; NaN where a step was skipped.
    """
    loss, unconverged, skipped = history
    learnt, gradients = recent
    used = np.isfinite(gradients).all(axis=1)
    learnt, gradients = learnt[used], gradients[used]
    now = coordinates.learnt(weights)
    numbers = Numbers.of(learnt, gradients, coordinates.at_bounds(now))
    rows = []
    for place, source in enumerate(coordinates.source.tolist()):
        own = coordinates.setting_of(place)
        start, value = float(coordinates.start[place]), float(weights[place])
        found = [math.nan] * 5 if source < 0 or own.tied else numbers.values[:, source].tolist()
        verdict = f"tied to {own.tie}" if own.tied else "fixed" if source < 0 else numbers.verdicts[source]
        shown = {"start": start, "value": value, "change": value - start}
        numbers_found = dict(zip(_FOUND, found, strict=True))
        rows.append(Row(coordinates.name_of(place), scale=own.scale, verdict=verdict, **shown, **numbers_found))
    tenth = max(1, len(loss) // 10)
    return Report(
        name,
        steps,
        int(skipped.sum()),
        len(gradients),
        _mean(loss[:tenth]),
        _mean(loss[-tenth:]),
        _mean(unconverged),
        tuple(rows),
    )


@dataclass(frozen=True)
class Numbers:
    """Gradient, spread, curvature, its error and standard error, (5, q), and verdict of each learnt number."""

    values: Floats
    verdicts: tuple[str, ...]

    @classmethod
    def of(cls, learnt: Floats, gradients: Floats, at_bounds: NDArray[np.int64]) -> Numbers:
        """From (n, q) each: what was learnt, and the gradients there; and -1 or 1 for numbers at a bound, (q,)."""
        count, q = gradients.shape
        if count < FEWEST:
            mean = gradients.mean(axis=0) if count else np.full(q, np.nan)
            values = np.full((5, q), np.nan)
            values[0] = mean
            return cls(values, ("too few steps",) * q)
        mean = gradients.mean(axis=0)
        away, deviation = learnt - learnt.mean(axis=0), gradients - mean
        moved = (away**2).sum(axis=0)
        tells = moved > count * (1e-12 * np.abs(learnt).max(axis=0)) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            curvature = np.where(tells, (away * deviation).sum(axis=0) / moved, np.nan)
            rest = deviation - np.where(tells, curvature, 0.0) * away
            spread = np.sqrt((rest**2).sum(axis=0) / (count - 1 - tells))
            error = np.where(tells, spread / np.sqrt(moved), np.nan)
            zero = (gradients == 0.0).all(axis=0)
            determined = ~zero & tells & (curvature > SURE * error)
            pushed = ~zero & (np.abs(mean) > SURE * spread / math.sqrt(count))
            standard_error = np.where(determined, spread / (curvature * math.sqrt(count)), np.nan)
        held = pushed & (at_bounds * mean < 0.0)
        verdicts = np.select(
            [zero, held, determined, pushed],
            ["no derivative", "at its bound", "determined", "still moving"],
            "not determined",
        )
        standard_error[held] = np.nan
        values = np.stack([mean, spread, curvature, error, standard_error])
        return cls(values, tuple(str(verdict) for verdict in verdicts))


def _mean(numbers: Floats) -> float:
    numbers = numbers[np.isfinite(numbers)]
    return float(numbers.mean()) if len(numbers) else math.nan
