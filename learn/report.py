"""What learning did, as data: each weight, the settings, the data seen, and how the minimisations ended.

`print(learner.report())` shows it as text; page.py makes a page of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..energies.display import printable
from .determined import REMEDIES, Row

if TYPE_CHECKING:
    from .batches import Batch
    from .learner import Learner

SHOWN = 8
"""How many entries of an array of weights are printed; the report holds all."""


@dataclass(frozen=True, repr=False)
class Report:
    """What learning did; print it.

    Attributes
    ----------
    title : str
        The energy's name, steps and loss.
    rows : tuple of Row
        One for each number of each weight, in declared order (determined.py).
    looked_at : int
        From how many of the last steps their gradients and curvatures are.
    settings, seen : dict
        What was asked for, and what was learnt from.
    statuses : dict of (float, float)
        Shares of the instances: over all steps, and over the last tenth of them.
    formulas : dict of str
        Energy, output, loss and regulariser as text.
    """

    title: str
    rows: tuple[Row, ...]
    looked_at: int
    settings: Mapping[str, str]
    seen: Mapping[str, str]
    statuses: Mapping[str, tuple[float, float]]
    formulas: Mapping[str, str]

    def __str__(self) -> str:
        shown: list[Row] = []
        count: dict[str, int] = {}
        for row in self.rows:
            name = row.weight.partition("[")[0]
            count[name] = count.get(name, 0) + 1
            if count[name] <= SHOWN:
                shown.append(row)
        hidden = {name: n - SHOWN for name, n in count.items() if n > SHOWN}
        lines = [self.title, "", *_table(shown)]
        lines += [f"  and {number} more entries of {name}" for name, number in hidden.items()]
        if self.looked_at:
            lines.append(f"  gradients are of the last {self.looked_at} batches, in the units that are learnt")
        verdicts = {row.verdict for row in self.rows}
        lines += [f"  {verdict}: {remedy}" for verdict, remedy in REMEDIES.items() if verdict in verdicts]
        for name, (every, recent) in self.statuses.items():
            lines.append(f"  {name}: {100 * every:.3g} % of the instances, {100 * recent:.3g} % in the last tenth")
        lines += [f"  {name}: {text}" for name, text in {**self.seen, **self.settings}.items()]
        return "\n".join(lines)

    __repr__ = __str__


def report_of(learner: Learner, last: Batch | None) -> Report:
    """The report of a learner; `last` is the batch of its last step, if that is known."""
    history = learner.history
    rows, looked_at = learner.rows()
    steps = len(history)
    tenth = max(1, steps // 10)
    early, recent = slice(tenth), slice(-tenth, None)
    loss, skipped = "", int(history.skipped.sum())
    skips = f", {skipped:,} skipped" if skipped else ""
    if np.isfinite(history.loss[early]).any() and np.isfinite(history.loss[recent]).any():
        means = np.nanmean(history.loss[early]), np.nanmean(history.loss[recent])
        loss = f", mean loss {means[0]:.6g} in the first tenth, {means[1]:.6g} in the last"
    statuses = {}
    for name in ("unconverged", "shifted", "dominated") if steps else ():
        series = getattr(history, name)
        statuses[name] = float(series.mean()), float(series[recent].mean())
    seen = {"steps": f"{steps:,}"}
    if last is not None:
        for role in ("data", "targets", "start", "candidates"):
            arrays = getattr(last, role) or {}
            if arrays:
                shapes = ", ".join(f"{printable(str(name))} {np.shape(array)}" for name, array in arrays.items())
                seen[f"{role} of the last step"] = shapes
    settings = {"optimiser": _settings_text(learner.optimiser.describe())}
    settings |= {
        "damping": f"{learner.damping:g}" if isinstance(learner.damping, float) else str(learner.damping),
        "unconverged instances": learner.unconverged,
        **{name.replace("_", " "): str(value) for name, value in learner.minimiser.items()},
    }
    formulas = {what: str(energy) for what, energy in learner.formulas.items()}
    title = f"learner of energy {printable(learner.kernel.name)!r}: {steps:,} steps{skips}{loss}"
    return Report(title, rows, looked_at, settings, seen, statuses, formulas)


def number_text(value: Any) -> str:
    """A cell of a table; empty where there is no number."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)


def _settings_text(description: Mapping[str, Any]) -> str:
    settings = dict(description)
    kind = settings.pop("kind", "")
    return f"{kind}({', '.join(f'{name}={value}' for name, value in settings.items())})"


_COLUMNS = ("weight", "value", "change", "gradient", "+- spread", "curvature", "+- error", "std. error", "")


def _table(rows: Sequence[Row]) -> list[str]:
    """Lines of aligned columns."""
    cells: list[tuple[str, ...]] = [_COLUMNS]
    for row in rows:
        numbers = (row.gradient, row.spread, row.curvature, row.curvature_error, row.standard_error)
        cells.append((row.weight, f"{row.value:.6g}", f"{row.change:+.3g}", *map(_short, numbers), row.verdict))
    widths = [max(len(line[k]) for line in cells) for k in range(len(_COLUMNS))]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if k in (0, len(widths) - 1) else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


def _short(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"
