"""Landscapes of energies over one or two unknowns with the minima marked, for one or several sets of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...compiler.kernel import Kernel
from ...energies.display import printable
from ...energies.errors import InputError, InputTypeError, NameMissingError, nearest
from ...runtime.minimise import minimise
from ...runtime.plot import GRID, draw_contours, energies_at, pyplot_for, window
from ...runtime.report import unknown_name
from ...runtime.solution import Solution

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Landscape:
    """One set of weights: its name, the minimisation, and the distinct minima (k, m), the lowest first."""

    label: str
    solution: Solution
    minima: Floats


def plot_energy(
    kernel: Kernel,
    w: Any = None,
    x: Mapping[str, ArrayLike] | None = None,
    *,
    unknowns: Any = None,
    span: Mapping[str, tuple[float, float]] | None = None,
    instance: int | tuple[int, ...] | None = None,
    minima: int = 20,
    figure: Any = None,
    **options: Any,
) -> Any:
    """Draw an energy over one or two unknowns, and mark its minima.

    One unknown: the energy over it. Two: its contours. A panel for each set of weights. Where the energy has more
    unknowns than are drawn, the others are held at the lowest minimum, and only that is marked.

    Parameters
    ----------
    kernel : Kernel
    w : dict, list of dicts, or dict of dicts
        Weights; several sets (before and after learning) in a list or, to name them, a dict. Two in a list are
        called "before" and "after".
    x : dict of array_like
        As for `minimise`; of a batch `instance` is drawn.
    unknowns : str, Symbol, Indexed, or a list of one or two
        Such as "t" or ["y[0]", "y[3]"]; by default all, where these are one or two.
    span : dict of (low, high), optional
        What to draw of each unknown; by default around all minima and the start.
    instance : int or tuple, optional
        As for `Solution.explain`; by default the first.
    minima : int
        How many distinct minima are looked for, from the start, or every candidate.
    figure : matplotlib Figure, optional
        Where to draw; by default a new one.
    **options
        As for `minimise`: start, candidates, bounds, restarts, method, ...

    Returns
    -------
    Figure

    Raises
    ------
    MissingPackageError
        Without matplotlib: pip install 'wiberg[figures]'.
    InputError, InputTypeError, NameMissingError
        For unknowns that do not exist or are too many, and as `minimise`.

    Examples
    --------
    >>> import sympy as sp, wiberg as wb
    >>> t, a = sp.symbols("t a", real=True)
    >>> kernel = wb.compile(wb.Energy(t**4 - t**2 + a*t, variables=[t], weights=[a]), backend="reference")
    >>> candidates = {"t": [-1.0, 1.0]}
    >>> figure = wb.plot_energy(kernel, [{"a": 0.1}, {"a": -0.1}], candidates=candidates)        # doctest: +SKIP
    """
    if not isinstance(kernel, Kernel):
        raise InputTypeError(f"plot_energy: kernel must be what wb.compile returned (got {type(kernel).__name__})")
    pyplot = pyplot_for("plot_energy")
    found = [_landscape(kernel, label, one, x, instance, minima, options) for label, one in sets_of_weights(w).items()]
    row = row_of(found[0].solution, instance)
    chosen = _numbers(found[0].solution, unknowns)
    low, high = _corners(found, row, chosen, span)
    if figure is None:
        figure = pyplot.figure(figsize=(max(6.4, 4.6 * len(found)), 4.4), layout="constrained")
    single, solution = len(chosen) == 1, found[0].solution
    panels = figure.subplots(1, len(found), squeeze=False, sharex=True, sharey=not single)[0]
    names = [unknown_name(kernel, solution.inputs, k) for k in chosen]
    with np.errstate(all="ignore"):  # energies that are not finite, near the border of where they are
        for axes, one in zip(panels, found, strict=True):
            (_draw_line if single else _draw_plane)(axes, one, row, chosen, low, high)
            axes.set_title(one.label, fontsize="medium")
            axes.set_xlabel(names[0])
    panels[0].set_ylabel("energy" if single else names[1])
    panels[0].legend(fontsize="small")
    place = f", {solution.rows_text[:-1]} {solution.listed([row])}" if solution.lead else ""
    held = "" if len(chosen) == solution.y.shape[1] else "; other unknowns at the lowest minimum"
    figure.suptitle(f"{printable(kernel.name)}{place}{held}", fontsize="medium")
    return figure


def sets_of_weights(w: Any) -> dict[str, Mapping[str, Any]]:
    """One or several sets of weights, by name."""
    if w is None:
        return {"energy": {}}
    if isinstance(w, Mapping):
        if not w or not all(isinstance(value, Mapping) for value in w.values()):
            return {_text(w) or "energy": w}
        return {str(name): one for name, one in w.items()}
    if not isinstance(w, Sequence) or isinstance(w, str) or not all(isinstance(one, Mapping) for one in w) or not w:
        raise InputTypeError(
            f"plot_energy: w must be a dict of weights, a list of such dicts, or a dict of them (got {w!r})"
        )
    names = ["before", "after"] if len(w) == 2 else [f"set {number}" for number in range(len(w))]
    return {f"{name}, {_text(one)}".rstrip(", "): one for name, one in zip(names, w, strict=True)}


def row_of(solution: Solution, instance: Any) -> int:
    """The row that is drawn: by default the first."""
    return 0 if instance is None else solution.row(instance)


def _text(weights: Mapping[str, Any]) -> str:
    """`sigma = 8`, where the weights are a few numbers."""
    if len(weights) > 3 or any(np.ndim(value) for value in weights.values()):
        return ""
    return ", ".join(f"{printable(name)} = {float(value):.4g}" for name, value in weights.items())


def _landscape(
    kernel: Kernel, label: str, w: Any, x: Any, instance: Any, count: int, options: Mapping[str, Any]
) -> _Landscape:
    solution = minimise(kernel, w, x, minima=count, **options)
    row = row_of(solution, instance)
    assert solution.minima is not None
    found = int(np.ravel(solution.minima.count)[row])
    lowest = [one.y[row] for one in list(solution.minima)[:found]]
    return _Landscape(label, solution, np.array(lowest).reshape(found, solution.y.shape[1]))


def _numbers(solution: Solution, unknowns: Any) -> list[int]:
    """Which unknowns are drawn, by their numbers in packed order."""
    kernel, count = solution.kernel, solution.y.shape[1]
    if unknowns is None:
        if count > 2:
            raise InputError(
                f"plot_energy: energy {kernel.name!r} has {count} unknowns; choose one or two, such as "
                f"unknowns=[{unknown_name(kernel, solution.inputs, 0)!r}]"
            )
        return list(range(count))
    given = list(unknowns) if isinstance(unknowns, (list, tuple)) else [unknowns]
    if not 1 <= len(given) <= 2:
        raise InputError(f"plot_energy: one or two unknowns can be drawn (got {len(given)})")
    names = [unknown_name(kernel, solution.inputs, k).replace(" ", "") for k in range(count)]
    numbers = []
    for one in given:
        name = str(one).replace(" ", "")
        if name not in names:
            raise NameMissingError(
                f"plot_energy: energy {kernel.name!r} has no unknown {str(one)!r}{nearest(name, names)}; it has "
                f"{', '.join(names[:8])}{', ...' if count > 8 else ''}"
            )
        numbers.append(names.index(name))
    if len(set(numbers)) < len(numbers):
        raise InputError(f"plot_energy: unknown {given[0]} is named twice")
    return numbers


def _corners(found: Sequence[_Landscape], row: int, chosen: list[int], span: Any) -> tuple[Floats, Floats]:
    points = []
    for one in found:
        whole = len(chosen) == one.solution.y.shape[1]
        points += list(one.minima if whole else one.minima[:1])
        start = one.solution.problem.start
        if start is not None:
            points.append(start[row if len(start) > 1 else 0])
    points += [] if points else [one.solution.y[row] for one in found]
    across = np.array(points)[:, chosen]
    across = across[np.isfinite(across).all(axis=1)]
    if not len(across):
        across = np.zeros((1, len(chosen)))
    low, high = window(across)
    flat = np.ptp(across, axis=0) <= 1e-6 * (1.0 + np.abs(across).max(axis=0))
    curvature = min(float(one.solution.curvatures[row]) for one in found)
    reach = 3.0 / np.sqrt(curvature) if 0.0 < curvature < np.inf else 1.0 + np.abs(across).max(axis=0)
    low, high = np.where(flat, across.mean(axis=0) - reach, low), np.where(flat, across.mean(axis=0) + reach, high)
    if span is None:
        return low, high
    solution = found[0].solution
    names = [unknown_name(solution.kernel, solution.inputs, k).replace(" ", "") for k in chosen]
    for key, limits in span.items():
        name = str(key).replace(" ", "")
        if name not in names:
            raise NameMissingError(
                f"plot_energy: span names {str(key)!r}{nearest(name, names)}, which is not drawn; drawn: "
                f"{', '.join(names)}"
            )
        try:
            first, last = (float(limit) for limit in limits)
        except (TypeError, ValueError):
            first = last = np.nan
        if not (np.isfinite([first, last]).all() and first < last):
            raise InputError(f"plot_energy: span[{str(key)!r}] must be (low, high), finite, low < high (got {limits})")
        low[names.index(name)], high[names.index(name)] = first, last
    return low, high


def _draw_line(axes: Any, one: _Landscape, row: int, chosen: list[int], low: Floats, high: Floats) -> None:
    t = np.linspace(low[0], high[0], 4 * GRID)
    axes.plot(t, energies_at(one.solution, row, _slice(one, row, chosen, t[:, None])), color="0.4", linewidth=1)
    shown = _marked(one, chosen)
    _mark(axes, shown[:, chosen[0]], energies_at(one.solution, row, shown) if len(shown) else np.empty(0))
    axes.set_xlim(low[0], high[0])


def _draw_plane(axes: Any, one: _Landscape, row: int, chosen: list[int], low: Floats, high: Floats) -> None:
    u, v = (np.linspace(low[k], high[k], GRID) for k in range(2))
    points = _slice(one, row, chosen, np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 2))
    draw_contours(axes, u, v, energies_at(one.solution, row, points).reshape(GRID, GRID))
    _mark(axes, *_marked(one, chosen)[:, chosen].T)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))


def _slice(one: _Landscape, row: int, chosen: list[int], values: Floats) -> Floats:
    """Points (N, m) at values (N, 1 or 2) of the unknowns that are drawn, the others as at the lowest minimum."""
    base = one.minima[0] if len(one.minima) else one.solution.y[row]
    points = np.repeat(base[None], len(values), axis=0)
    points[:, chosen] = values
    return points


def _marked(one: _Landscape, chosen: list[int]) -> Floats:
    """The minima that lie in what is drawn."""
    return one.minima if len(chosen) == one.minima.shape[1] else one.minima[:1]


def _mark(axes: Any, across: Floats, up: Floats) -> None:
    axes.plot(across[1:], up[1:], "o", color="tab:blue", markersize=4, label="minima")
    axes.plot(across[:1], up[:1], "*", color="tab:red", markersize=12, label="lowest minimum")
