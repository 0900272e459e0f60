"""Figures of learning: what happened over the steps. landscape.py and movement.py draw energies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...energies.display import printable
from ...energies.errors import InputError, InputTypeError, NameMissingError, nearest
from ...runtime.plot import pyplot_for
from ..history import History

Floats = NDArray[np.float64]

POINTS = 200
"""Longer series are drawn as the means of so many equal parts, with a band from the least to the largest in each."""

LINES = 8
"""A weight of more entries is drawn as their median, with a band from the least to the largest."""

PANELS = 9
"""How many weights are drawn where the user does not say which."""

SHARES = {"unconverged": "tab:red", "shifted": "tab:orange", "dominated": "tab:blue"}


def plot_history(history: Any, weights: Sequence[str] | None = None, figure: Any = None) -> Any:
    """Draw loss, gradient norm, shares of instances and weights over the steps.

    Parameters
    ----------
    history : History or Learner
    weights : list of str, optional
        Which weights; by default the first nine.
    figure : matplotlib Figure, optional
        Where to draw; by default a new one.

    Returns
    -------
    Figure
        Three panels for loss, gradient norm (both logarithmic where they are positive) and the shares that did not
        converge, had their Hessian shifted, or whose smallest curvature is below the damping; then one for each
        weight. Above 200 steps: means of 200 parts, with a band from the least to the largest in each. Steps without
        a finite number are left out.

    Raises
    ------
    MissingPackageError
        Without matplotlib: pip install 'wiberg[figures]'.
    InputError, InputTypeError, NameMissingError
        If there are no steps yet, or no such weight.

    Examples
    --------
    >>> import sympy as sp, wiberg as wb
    >>> t, mu, w = sp.symbols("t mu w", real=True)
    >>> kernel = wb.compile(wb.Energy((t - w)**2, variables=[t], weights=[w]), backend="reference")
    >>> learner = wb.Learner(kernel, wb.Loss((t - mu)**2, variables=[t], targets=[mu]), weights={"w": 0.0})
    >>> history = learner.fit(wb.Batch(targets={"mu": 1.0}, start={"t": 0.0}), steps=20)
    >>> figure = wb.plot_history(learner)                                            # doctest: +SKIP
    """
    known = history if isinstance(history, History) else getattr(history, "history", None)
    if not isinstance(known, History):
        raise InputTypeError(f"plot_history draws a History or a Learner (got {type(history).__name__})")
    if not len(known):
        raise InputError("plot_history: there are no steps yet; call fit first")
    names = _names(known, weights)
    pyplot = pyplot_for("plot_history")
    drawn = panels(known, names)
    if figure is None:
        figure = pyplot.figure(figsize=(12, 3.2 * -(-len(drawn) // 3)), layout="constrained")
    places = figure.subplots(-(-len(drawn) // 3), 3, squeeze=False).ravel()
    for axes, draw in zip(places, drawn.values(), strict=False):
        draw(axes)
    for axes in places[len(drawn) :]:
        axes.remove()
    left_out = len(known.weights) - len(names)
    more = f" ({left_out} more weights are not drawn)" if left_out and weights is None else ""
    figure.suptitle(f"{int(known.steps[-1]) + 1:,} steps{more}", fontsize="medium")
    return figure


def panels(history: History, weights: Sequence[str] | None) -> dict[str, Callable[[Any], None]]:
    """What there is to draw, by its label: functions that draw on given axes."""
    drawn: dict[str, Callable[[Any], None]] = {
        "loss": partial(_draw_positive, history=history, name="loss", label="loss"),
        "gradient norm": partial(_draw_positive, history=history, name="gradient_norm", label="gradient norm"),
        "share of the instances": partial(_draw_shares, history=history),
    }
    for name in _names(history, weights):
        drawn[f"weight {name}"] = partial(_draw_weight, history=history, name=name)
    return drawn


def parts(series: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Places, means, least and largest numbers of at most `POINTS` equal parts of a series; NaN counts as missing.

    >>> parts(np.array([1.0, np.nan, 3.0]))[1]
    array([ 1., nan,  3.])
    """
    length = -(-len(series) // POINTS)
    count = -(-len(series) // length)
    padded = np.full(count * length, np.nan)
    padded[: len(series)] = series
    rows = np.ma.masked_invalid(padded.reshape(count, length))
    steps = length * np.arange(count) + (np.minimum(length, len(series) - length * np.arange(count)) - 1) / 2
    mean, low, high = (
        np.ma.filled(np.ma.asarray(found).astype(np.float64), np.nan)
        for found in (rows.mean(axis=1), rows.min(axis=1), rows.max(axis=1))
    )
    return steps, mean, low, high


def _names(history: History, weights: Sequence[str] | None) -> list[str]:
    if weights is None:
        return list(history.weights)[:PANELS]
    names = [weights] if isinstance(weights, str) else [str(name) for name in weights]
    for name in names:
        if name not in history.weights:
            raise NameMissingError(
                f"plot_history: no weight {name!r}{nearest(name, history.weights)}; weights: "
                f"{', '.join(history.weights)}"
            )
    return names


def _draw_series(axes: Any, steps: NDArray[np.int64], series: Floats, label: str, colour: str) -> None:
    places, mean, low, high = parts(series)
    across = np.interp(places, np.arange(len(series)), steps)
    axes.plot(across, mean, color=colour, linewidth=1, label=label, marker="." if len(across) == 1 else None)
    if len(across) < len(series):
        axes.fill_between(across, low, high, color=colour, alpha=0.2, linewidth=0)


def _draw_positive(axes: Any, history: History, name: str, label: str) -> None:
    """A series, on a logarithmic axis where all of it is positive."""
    series = getattr(history, name)
    _draw_series(axes, history.steps, series, label, "tab:blue")
    finite = series[np.isfinite(series)]
    if finite.size and (finite > 0.0).all():
        axes.set_yscale("log")
        axes.set_ylim(bottom=np.nanmin(parts(series)[1]) / 3)  # the band may go further down
    axes.set(xlabel="step", ylabel=label)


def _draw_shares(axes: Any, history: History) -> None:
    for name, colour in SHARES.items():
        _draw_series(axes, history.steps, getattr(history, name), name, colour)
    axes.set(xlabel="step", ylabel="share of the instances", ylim=(-0.03, 1.03))
    axes.legend(fontsize="small")


def _draw_weight(axes: Any, history: History, name: str) -> None:
    steps, records = history.weight_steps, history.weights[name]
    axes.set(xlabel="step", ylabel=printable(name))
    if len(steps) > POINTS:
        kept = np.unique(np.linspace(0, len(steps) - 1, POINTS).astype(np.int64))
        steps, records = steps[kept], records[kept]
    entries = records.reshape(len(records), -1)
    if entries.shape[1] <= LINES:
        lines = axes.plot(steps, entries, linewidth=1)
        if records.ndim > 1:
            for line, place in zip(lines, np.ndindex(records.shape[1:]), strict=True):
                line.set_label(str(list(place)))
            axes.legend(fontsize="small", ncols=2)
        return
    axes.plot(steps, np.median(entries, axis=1), color="tab:blue", linewidth=1, label="median")
    band = f"least to largest of {entries.shape[1]}"
    axes.fill_between(steps, entries.min(axis=1), entries.max(axis=1), color="tab:blue", alpha=0.2, label=band)
    axes.legend(fontsize="small")
