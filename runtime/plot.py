"""Figures of minimisations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.calls.evaluate import run
from ..compiler.nonfinite import by_role, instance_of
from ..energies.errors import InputError, InputTypeError, MissingPackageError
from .report import unknown_name
from .run import run_problem
from .solution import Solution, Status
from .trace import paths

Floats = NDArray[np.float64]

GRID = 120
"""Points on each axis at which the energy is evaluated for contours."""

LEVELS = 24


def plot_path(solution: Solution, instance: int | None = None, axes: Any = None) -> Any:
    """Draw the path of an instance from its start to its minimum.

    One unknown: the energy along it, with the points of the path. Two: contours of the energy around the path.
    More: what the energy has left to fall, and the gradient norm, over the steps.

    Parameters
    ----------
    solution : Solution
        The instance is minimised again to draw it; `trace=True` is not needed.
    instance : int, optional
        By default the first that failed, or 0; of a family a tuple, as for `solution.explain`.
    axes : matplotlib Axes, optional
        Where to draw; by default in a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    MissingPackageError
        Without matplotlib: pip install 'wiberg[figures]'.
    InputError, InputTypeError
        If there is no such instance, or its start is not finite.
    """
    pyplot = pyplot_for("plot_path")
    if not isinstance(solution, Solution):
        raise InputTypeError(f"plot_path: solution must be what minimise returned (got {type(solution).__name__})")
    number = solution.row(instance)
    points, energies, norms = _path(solution, number)
    if not np.isfinite(points).all():
        raise InputError(
            f"plot_path: energy {solution.kernel.name!r}: nothing to draw, the start of {solution.rows_text[:-1]} "
            f"{solution.listed([number])} is not finite"
        )
    if axes is None:
        axes = pyplot.figure(layout="constrained").add_subplot()
    unknowns = points.shape[1]
    with np.errstate(all="ignore"):  # energies that are not finite, near the border of where they are
        draw = {1: _draw_line, 2: _draw_plane}.get(unknowns, _draw_steps)
        draw(axes, solution, number, points, energies, norms)
    place = f", {solution.rows_text[:-1]} {solution.listed([number])}" if solution.lead else ""
    status = Status(int(solution.integers[number, 2]))
    axes.set_title(f"{solution.kernel.name}{place}: {status.name}, {len(points) - 1} steps", fontsize="medium")
    return axes


def pyplot_for(who: str) -> Any:
    """matplotlib.pyplot, for the function `who`."""
    try:
        from matplotlib import pyplot
    except ImportError:
        raise MissingPackageError(
            f"{who} draws with matplotlib, which is not installed: pip install 'wiberg[figures]' (or matplotlib)"
        ) from None
    return pyplot


def _path(solution: Solution, number: int) -> tuple[Floats, Floats, Floats]:
    """Points (n + 1, m), energies and gradient norms of one instance, which is minimised anew."""
    part = solution.problem.part(np.array([number]))
    run_problem(part)
    points, energies, norms = paths(part)
    return points[0], energies[0], norms[0]


def energies_at(solution: Solution, number: int, points: Floats) -> Floats:
    """The energy of an instance at points (N, m)."""
    inputs = inputs_of(solution, number, len(points))
    values, _ = run(solution.kernel.entry("value"), inputs, points, count=len(points))
    return values


def inputs_of(solution: Solution, number: int, count: int) -> Any:
    """What the kernel reads for one row of a solution, so many times."""
    kernel, every = solution.kernel, solution.inputs
    y, w, x = by_role(kernel.energy, instance_of(kernel, every, solution.y, number))
    return kernel.bind(w, x, y).rows(np.full(count, number % every.members))


def window(points: Floats) -> tuple[Floats, Floats]:
    """The corners of a frame around finite points."""
    low, high = points.min(axis=0), points.max(axis=0)
    size = np.where(high > low, high - low, np.maximum(1e-3 * np.abs(high), 1e-3 * (high - low).max() or 1.0))
    return low - 0.15 * size, high + 0.15 * size


def _draw_line(axes: Any, solution: Solution, number: int, points: Floats, energies: Floats, norms: Floats) -> None:
    low, high = window(points)
    t = np.linspace(low[0], high[0], 4 * GRID)
    axes.plot(t, energies_at(solution, number, t[:, None]), color="0.6", zorder=1)
    axes.plot(points[:, 0], energies, ".-", color="tab:blue", linewidth=1, zorder=2)
    _mark_ends(axes, points[:, 0], energies)
    axes.set_xlabel(unknown_name(solution.kernel, solution.inputs, 0))
    axes.set_ylabel("energy")


def _draw_plane(axes: Any, solution: Solution, number: int, points: Floats, energies: Floats, norms: Floats) -> None:
    low, high = window(points)
    u, v = (np.linspace(low[k], high[k], GRID) for k in range(2))
    grid = np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 2)
    draw_contours(axes, u, v, energies_at(solution, number, grid).reshape(GRID, GRID))
    axes.plot(points[:, 0], points[:, 1], ".-", color="tab:blue", linewidth=1)
    _mark_ends(axes, points[:, 0], points[:, 1])
    axes.set_xlabel(unknown_name(solution.kernel, solution.inputs, 0))
    axes.set_ylabel(unknown_name(solution.kernel, solution.inputs, 1))


def draw_contours(axes: Any, u: Floats, v: Floats, energies: Floats) -> None:
    """Contours of energies (len(v), len(u)), closer together near the lowest."""
    values = np.ma.masked_invalid(energies)
    finite = values.compressed()
    if finite.size and finite.max() > finite.min():
        lowest, rest = finite.min(), np.ptp(finite)
        levels = lowest + rest * np.linspace(0.0, 1.0, LEVELS + 1)[1:] ** 3
        axes.contour(u, v, values, levels=levels, colors="0.6", linewidths=0.6, linestyles="solid")


def _draw_steps(axes: Any, solution: Solution, number: int, points: Floats, energies: Floats, norms: Floats) -> None:
    steps = np.arange(len(points))
    left = energies - energies[-1]
    axes.semilogy(steps, np.where(left > 0.0, left, np.nan), "o-", color="tab:blue", label="energy - final energy")
    axes.semilogy(steps, np.where(norms > 0.0, norms, np.nan), ".--", color="tab:orange", label="gradient norm")
    axes.axhline(solution.gtol, color="0.6", linewidth=0.8, linestyle=":", label="gtol")
    axes.set_xlabel("iterations")
    axes.legend()


def _mark_ends(axes: Any, across: Floats, up: Floats) -> None:
    axes.plot(across[0], up[0], "o", color="tab:orange", label="start", zorder=3)
    axes.plot(across[-1], up[-1], "*", color="tab:red", markersize=12, label="end", zorder=3)
    axes.legend()
