"""What learning did, as data: each weight, the settings, the data seen, and how the minimisations ended.

`print(learner.report())` shows it as text; page.py makes a page of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from ..energies.display import printable

if TYPE_CHECKING:
    from .batches import Batch
    from .learner import Learner

SHOWN = 8
"""How many entries of an array of weights are printed; the report holds all."""


@dataclass(frozen=True)
class Row:
    """One number that is learnt."""

    weight: str
    value: float
    start: float
    change: float


@dataclass(frozen=True, repr=False)
class Report:
    """What learning did; print it.

    Attributes
    ----------
    title : str
        The energy's name, steps and loss.
    rows : tuple of Row
        One for each number that is learnt, in declared order.
    settings, seen : dict
        What was asked for, and what was learnt from.
    statuses : dict of (float, float)
        Shares of the instances: over all steps, and over the last tenth of them.
    formulas : dict of str
        Energy, output, loss and regulariser as text.
    """

    title: str
    rows: tuple[Row, ...]
    settings: Mapping[str, str]
    seen: Mapping[str, str]
    statuses: Mapping[str, tuple[float, float]]
    formulas: Mapping[str, str]

    def __str__(self) -> str:
        shown: list[list[str]] = []
        count: dict[str, int] = {}
        for row in self.rows:
            name = row.weight.partition("[")[0]
            count[name] = count.get(name, 0) + 1
            if count[name] <= SHOWN:
                shown.append([number_text(getattr(row, field.name)) for field in fields(row)])
        hidden = {name: n - SHOWN for name, n in count.items() if n > SHOWN}
        headings = [field.name for field in fields(self.rows[0])] if self.rows else []
        lines = [self.title, *_aligned([headings, *shown])]
        lines += [f"  and {number} more entries of {name}" for name, number in hidden.items()]
        for name, (every, recent) in self.statuses.items():
            lines.append(f"  {name}: {100 * every:.3g} % of the instances, {100 * recent:.3g} % in the last tenth")
        lines += [f"  {name}: {text}" for name, text in {**self.seen, **self.settings}.items()]
        return "\n".join(lines)

    __repr__ = __str__


def report_of(learner: Learner, last: Batch | None) -> Report:
    """The report of a learner; `last` is the batch of its last step, if that is known."""
    history = learner.history
    start = {name: records[0] for name, records in history.weights.items()}
    rows = []
    for name, value in learner.weights.items():
        for place in np.ndindex(np.shape(value)):
            label = printable(name) + (f"[{', '.join(map(str, place))}]" if place else "")
            now, then = float(np.asarray(value)[place]), float(start[name][place])
            rows.append(Row(label, now, then, now - then))
    steps = len(history)
    tenth = max(1, steps // 10)
    early, recent = slice(tenth), slice(-tenth, None)
    loss = ""
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
    title = f"learner of energy {printable(learner.kernel.name)!r}: {steps:,} steps{loss}"
    return Report(title, tuple(rows), settings, seen, statuses, formulas)


def number_text(value: Any) -> str:
    """A cell of a table."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _settings_text(description: Mapping[str, Any]) -> str:
    settings = dict(description)
    kind = settings.pop("kind", "")
    return f"{kind}({', '.join(f'{name}={value}' for name, value in settings.items())})"


def _aligned(rows: list[list[str]]) -> list[str]:
    """Columns, the first to the left and the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(c.rjust(w) if k else c.ljust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
