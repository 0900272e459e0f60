"""A report as one HTML page: no other files, no scripts; pictures inline; readable on a phone, in light and dark."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping
from dataclasses import fields
from html import escape
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from ...energies.display import printable
from ...energies.errors import MissingPackageError
from .. import schedule
from ..files import write_whole
from ..history import History
from .figures import SHARES, panels
from .report import Report

if TYPE_CHECKING:
    from ..learner import Learner

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --line: #d5d5d5; --quiet: #5c5c5c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #181818; --line: #404040; --quiet: #a6a6a6; }
  img { filter: invert(0.91) hue-rotate(180deg); }
}
body { margin: 0 auto; padding: 1rem; max-width: 72rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.3rem; line-height: 1.3; }
h2 { font-size: 1.05rem; margin-top: 2rem; }
h3 { font-size: 0.95rem; color: var(--quiet); margin: 1rem 0 0.3rem; }
.scroll { overflow-x: auto; max-height: 32rem; overflow-y: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.8rem 0.25rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; }
.weights td { white-space: nowrap; }
th { color: var(--quiet); font-weight: 600; overflow-wrap: normal; }
.figures { display: grid; gap: 0.8rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
.figures img { width: 100%; height: auto; }
pre { margin: 0; overflow-x: auto; padding: 0.6rem; border: 1px solid var(--line); font-size: 0.85rem; }
footer { margin-top: 2rem; color: var(--quiet); font-size: 0.85rem; }
</style>
</head>
<body>
<h1>$title</h1>
$body
<footer>Written by wiberg.</footer>
</body>
</html>
""")


FIRST = ("name", "value", "change", "verdict")
"""Columns of the table of weights that a phone shows."""

DIGITS = {"value": 6, "start": 6}


def write_page(
    path: str | os.PathLike[str],
    learner: Learner,
    report: Report,
    more: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Write a report as a page that is whole at every moment.

    Parameters
    ----------
    report : Report
        Of the learner.
    more : dict of dicts, optional
        Tables of names and texts, by heading, that are added at the end.

    Raises
    ------
    CheckpointError
        If it cannot be written; what was there is untouched.
    """
    write_whole(path, page(learner, report, more).encode())


def page(learner: Learner, report: Report, more: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """The HTML of a report; without matplotlib it has no pictures and says so."""
    history = learner.history
    title, *words = report.head()
    parts = [*(f"<p>{escape(line)}</p>" for line in words), "<h2>Weights</h2>", _weights(report)]
    parts += [f"<p>{escape(line)}</p>" for line in report.notes() if line]
    if len(history):
        parts += ["<h2>Over the steps</h2>", _figures(history)]
        parts += ["<h2>How minimisations ended</h2>", _statuses(history)]
    for heading, table in {"Data seen": _seen(learner), "Settings": _settings(learner), **(more or {})}.items():
        parts += [f"<h2>{escape(heading)}</h2>", _pairs(table)]
    parts += ["<h2>Formulas</h2>"]
    for what, energy in learner.formulas.items():
        parts.append(f"<h3>{escape(what)}</h3><pre>{escape(str(energy))}</pre>")
    return PAGE.substitute(title=escape(title), body="\n".join(parts))


def _seen(learner: Learner) -> dict[str, str]:
    """Steps, and the shapes of what the last of them learnt from."""
    seen, last = {"steps": f"{learner.steps:,}"}, learner.last_batch
    for role in ("data", "targets", "start", "candidates") if last is not None else ():
        arrays = getattr(last, role) or {}
        if arrays:
            shapes = ", ".join(f"{printable(str(name))} {np.shape(array)}" for name, array in arrays.items())
            seen[f"{role} of the last step"] = shapes
    return seen


def _settings(learner: Learner) -> dict[str, str]:
    settings = {**learner.optimiser.describe()}
    return {
        "optimiser": str(settings.pop("kind", "")),
        **{name.replace("_", " "): str(value) for name, value in settings.items() if value is not None},
        "damping": str(schedule.describe(learner.damping)),
        "unconverged instances": learner.unconverged,
        "steps that are not finite": learner.not_finite,
        **{name.replace("_", " "): str(value) for name, value in learner.minimiser.items()},
    }


def _weights(report: Report) -> str:
    """A row for every number that is learnt: what matters most first, then what else the report says of it."""
    if not report.rows:
        return "<p>None.</p>"
    columns = [*FIRST, *(field.name for field in fields(report.rows[0]) if field.name not in FIRST)]
    numbers = {name for name in columns if isinstance(getattr(report.rows[0], name), float)}
    labels = ["weight" if name == "name" else name.replace("_", " ") for name in columns]
    head = "".join(_cell("th", label, name in numbers) for name, label in zip(columns, labels, strict=True))
    lines = [f"<tr>{head}</tr>"]
    for row in report.rows:
        cells = (_cell("td", number_text(getattr(row, name), DIGITS.get(name, 3)), name in numbers) for name in columns)
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table class="weights">{"".join(lines)}</table></div>'


def _statuses(history: History) -> str:
    """Shares over all steps, and over the last tenth of them."""
    head = _cell("th", "share of the instances", False) + _cell("th", "all steps", True)
    lines = [f"<tr>{head}{_cell('th', 'last tenth', True)}</tr>"]
    for name in SHARES:
        cells = _cell("td", name, False)
        for series in (getattr(history, name), getattr(history, name)[-max(1, len(history) // 10) :]):
            known = series[np.isfinite(series)]
            cells += _cell("td", f"{100 * known.mean():.3g} %" if len(known) else "none", True)
        lines.append(f"<tr>{cells}</tr>")
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _pairs(table: Mapping[str, str]) -> str:
    lines = [f"<tr>{_cell('th', name, False)}{_cell('td', text, False)}</tr>" for name, text in table.items()]
    return f"<table>{''.join(lines)}</table>"


def number_text(value: Any, digits: int) -> str:
    """A cell of a table; empty where a number does not exist."""
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.{digits}g}"
    return str(value)


def _cell(kind: str, text: str, number: bool) -> str:
    return f"<{kind}{' class=number' if number else ''}>{escape(text)}</{kind}>"


def _figures(history: History) -> str:
    try:
        pictures = {label: _picture(draw) for label, draw in panels(history, None).items()}
    except MissingPackageError as error:
        return f"<p>No pictures: {escape(str(error))}</p>"
    images = [f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(label)} over the steps">'
              for label, data in pictures.items()]  # fmt: skip
    return f'<div class="figures">{"".join(images)}</div>'


def _picture(draw: Any) -> str:
    """A panel as SVG in base64: the same text for the same numbers."""
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackageError(
            "pictures are drawn with matplotlib, which is not installed: pip install 'wiberg[figures]' (or matplotlib)"
        ) from None
    figure = Figure(figsize=(4.4, 3.2), layout="constrained")
    draw(figure.add_subplot())
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "wiberg"}):
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    return base64.b64encode(text.getvalue().encode()).decode()
