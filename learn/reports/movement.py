"""The first figure of the paper, for any energy: how a minimum moves with a weight, predicted and true.

prediction      y* + dy*/dw d,      dy*/dw = -(H + lambda I)^-1 d(grad_y E)/dw
truth           the minimum, followed from y* while the weight goes from w to w + d
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...compiler.calls.evaluate import run
from ...compiler.kernel import Kernel
from ...compiler.nonfinite import by_role, instance_of
from ...energies.display import printable
from ...energies.errors import InputError, InputTypeError, NameMissingError, NumericalError, nearest
from ...runtime.minimise import minimise
from ...runtime.plot import GRID, energies_at, inputs_of, pyplot_for
from ...runtime.report import unknown_name
from ...runtime.solution import Solution
from ..derivative.implicit import check_damping, implicit_jacobian
from .landscape import row_of

Floats = NDArray[np.float64]

STEPS = 20
"""Minimisations to each side, each from the minimum before."""

TIMES = ("before", "after")


@dataclass(frozen=True)
class Movement:
    """How the minimum of one instance moves with one weight.

    Attributes
    ----------
    changes : (2 k + 1,)
        Of the weight, from -change to change.
    true : (2 k + 1, m)
        The minimum, followed.
    damped, undamped : (m,)
        Its derivative by the weight at the middle; NaN where the undamped one does not exist.
    before, after : Solution
        At the middle and at the last change.
    member : int
        The row of these two that is meant.
    """

    changes: Floats
    true: Floats
    damped: Floats
    undamped: Floats
    before: Solution
    after: Solution
    member: int

    @property
    def minimum(self) -> Floats:
        """Before, (m,)."""
        return np.asarray(self.before.y[self.member])


def plot_movement(
    kernel: Kernel,
    w: Mapping[str, ArrayLike],
    x: Mapping[str, ArrayLike] | None = None,
    *,
    weight: Any = None,
    change: float | None = None,
    damping: float = 0.1,
    unknown: Any = None,
    instance: int | tuple[int, ...] | None = None,
    figure: Any = None,
    **options: Any,
) -> Any:
    """Draw how the minimum moves with a weight: the derivative's prediction against re-minimised truth.

    Left: the energy before and after the change, the quadratic models whose minima the derivative compares, and the
    minima; along the unknown where there is one, else along the line from the minimum before to that after. Right:
    the movement of one unknown over the change of the weight: true, and predicted with and without damping.

    Parameters
    ----------
    kernel : Kernel
    w, x : dict of array_like
        As for `minimise`; of a batch `instance` is drawn.
    weight : str, Symbol or Indexed, optional
        Which weight changes, such as "sigma" or "w[2]"; may be left out where there is one number only.
    change : float, optional
        By how much; by default a quarter of it, or 1 where it is 0.
    damping : float
        lambda of the prediction.
    unknown : str, Symbol or Indexed, optional
        Whose movement is drawn on the right; by default the one that is predicted to move most.
    instance : int or tuple, optional
        As for `Solution.explain`; by default the first.
    figure : matplotlib Figure, optional
        Where to draw; by default a new one.
    **options
        As for `minimise`: start, candidates, method, ...; the minimum is followed from there by continuation.

    Returns
    -------
    Figure

    Raises
    ------
    MissingPackageError
        Without matplotlib: pip install 'wiberg[figures]'.
    InputError, InputTypeError, NameMissingError
        If there is no such weight or unknown, and as `minimise`.

    Examples
    --------
    >>> import sympy as sp, wiberg as wb
    >>> t, a = sp.symbols("t a", real=True)
    >>> kernel = wb.compile(wb.Energy(t**4 - t**2 + a*t, variables=[t], weights=[a]), backend="reference")
    >>> figure = wb.plot_movement(kernel, {"a": 0.1}, change=0.3, start={"t": -1.0})        # doctest: +SKIP
    """
    if not isinstance(kernel, Kernel):
        raise InputTypeError(f"plot_movement: kernel must be what wb.compile returned (got {type(kernel).__name__})")
    strength = check_damping(damping, "plot_movement")
    name, place = _weight(kernel, w, weight)
    step = _change(np.asarray(w[name], dtype=np.float64)[place], change)
    pyplot = pyplot_for("plot_movement")
    solution = minimise(kernel, w, x, **options)
    row = row_of(solution, instance)
    if not np.isfinite(solution.y[row]).all():
        raise InputError(
            f"plot_movement: energy {kernel.name!r}: the minimum is not finite, so there is nothing to draw"
        )
    fixed = {key: value for key, value in options.items() if key not in ("start", "candidates", "minima", "restarts")}
    moved = movement(solution, row, name, place, step, strength, fixed)
    k = _unknown(solution, unknown, moved.damped)
    if figure is None:
        figure = pyplot.figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    label = printable(name) + (f"[{', '.join(map(str, place))}]" if place else "")
    value = float(np.asarray(w[name], dtype=np.float64)[place])
    with np.errstate(all="ignore"):  # energies that are not finite, near the border of where they are
        _draw_energies(left, moved, strength, [f"{label} = {value:.4g}", f"{label} = {value + step:.4g}"])
    left.set_title(f"A change of {label} moves the minimum", fontsize="medium")
    _draw_movement(right, moved, k, strength)
    right.set_xlabel(f"change of {label}")
    right.set_ylabel(f"movement of {unknown_name(kernel, solution.inputs, k)}")
    where = f", {solution.rows_text[:-1]} {solution.listed([row])}" if solution.lead else ""
    figure.suptitle(f"{printable(kernel.name)}{where}", fontsize="medium")
    return figure


def movement(
    solution: Solution,
    row: int,
    name: str,
    place: tuple[int, ...],
    change: float,
    damping: float,
    options: Mapping[str, Any],
) -> Movement:
    """Follow the minimum of one row of a solution while a weight changes, and predict it.

    Parameters
    ----------
    name, place
        Which weight, and which entry of it.
    options
        Of `minimise`, without a start.
    """
    kernel = solution.kernel
    one, number = _alone(solution, row, options)
    column = _column(one, name, place)
    slopes = []
    for strength in (damping, 0.0):
        try:
            jacobian = np.asarray(implicit_jacobian(kernel, one, damping=strength))
            slopes.append(jacobian.reshape(-1, *jacobian.shape[-2:])[number, :, column])
        except NumericalError:  # a singular Hessian has no undamped derivative
            slopes.append(np.full(one.y.shape[1], np.nan))
    side = np.linspace(0.0, change, STEPS + 1)[1:]
    sides, there = [], one
    for changes in (-side, side):
        there, found = one, []
        for part in changes:
            weights = changed(one.w, name, place, part)
            there = minimise(kernel, weights, one.x, start=there.variables, **options)
            found.append(there.y[number])
        sides.append(np.array(found))
    true = np.concatenate([sides[0][::-1], one.y[number][None], sides[1]])
    return Movement(np.concatenate([-side[::-1], [0.0], side]), true, slopes[0], slopes[1], one, there, number)


def changed(w: Mapping[str, Any] | None, name: str, place: tuple[int, ...], change: float) -> dict[str, Any]:
    """Weights of which one entry is changed."""
    array = np.array((w or {})[name], dtype=np.float64)
    array[place] += change
    return {**(w or {}), name: array}


def _alone(solution: Solution, row: int, options: Mapping[str, Any]) -> tuple[Solution, int]:
    """The instance of a row as a solution without a batch, and where the row is in it (of a family its member)."""
    kernel, members = solution.kernel, max(1, solution.inputs.members)
    _, w, x = by_role(kernel.energy, instance_of(kernel, solution.inputs, solution.y, row))
    first = row - row % members
    packed = solution.y[first : first + members]
    family = solution.inputs.family
    start = kernel.variables.unpack(packed.reshape(*family, -1) if family else packed[0], solution.inputs.sizes)
    return minimise(kernel, w, x, start=start, **options), row % members


def _column(solution: Solution, name: str, place: tuple[int, ...]) -> int:
    numbers = solution.kernel.weights.unpack(np.arange(solution.inputs.p, dtype=np.float64), solution.inputs.sizes)
    return int(np.asarray(numbers[name])[place])


def _weight(kernel: Kernel, w: Any, weight: Any) -> tuple[str, tuple[int, ...]]:
    """Name and entry of the weight that changes."""
    if not isinstance(w, Mapping) or not w:
        raise InputTypeError(f"plot_movement: w must be a dict of weights (got {w!r})")
    ranks = {str(one): len(kernel.energy.shapes[str(one)]) for one in kernel.energy.weights}
    missing = [name for name in ranks if name not in w]
    if missing:
        raise NameMissingError(f"plot_movement: weight {', '.join(missing)} is missing; given: {', '.join(w)}")
    for name, rank in ranks.items():
        if np.ndim(w[name]) != rank:
            raise InputError(
                f"plot_movement: weight {name} must have {rank} axes as declared (got shape {np.shape(w[name])}); "
                "weights that differ from instance to instance cannot be drawn"
            )
    if weight is None:
        if len(ranks) == 1 and np.size(w[next(iter(ranks))]) == 1:
            name = next(iter(ranks))
            return name, (0,) * ranks[name]
        raise InputError(
            f"plot_movement: energy {kernel.name!r} has several weights; say which changes, such as "
            f"weight={_first(w, ranks)!r}"
        )
    match = re.fullmatch(r"(.*?)(?:\[([\d,\s]+)\])?", str(weight), re.DOTALL)
    assert match is not None
    name, text = match[1], match[2]
    place = tuple(int(part) for part in text.split(",")) if text else ()
    if name not in ranks:
        raise NameMissingError(
            f"plot_movement: energy {kernel.name!r} has no weight {name!r}{nearest(name, ranks)}; weights: "
            f"{', '.join(ranks)}"
        )
    shape = np.shape(w[name])
    if len(place) != len(shape) or any(k >= size for k, size in zip(place, shape, strict=True)):
        raise InputError(f"plot_movement: weight {name} has shape {shape}; name one entry of it (got {str(weight)!r})")
    return name, place


def _first(w: Mapping[str, Any], ranks: Mapping[str, int]) -> str:
    name = next(iter(ranks))
    return name + (f"[{', '.join('0' for _ in range(ranks[name]))}]" if ranks[name] else "")


def _change(value: float, change: Any) -> float:
    if change is None:
        return 0.25 * abs(float(value)) or 1.0
    try:
        step = float(change)
    except (TypeError, ValueError):
        raise InputTypeError(f"plot_movement: change must be a number (got {change!r})") from None
    if not np.isfinite(step) or step == 0.0:
        raise InputError(f"plot_movement: change must be finite and not 0 (got {change!r})")
    return step


def _unknown(solution: Solution, unknown: Any, slope: Floats) -> int:
    if unknown is None:
        return int(np.argmax(np.abs(slope)))
    names = [unknown_name(solution.kernel, solution.inputs, k).replace(" ", "") for k in range(len(slope))]
    name = str(unknown).replace(" ", "")
    if name not in names:
        raise NameMissingError(
            f"plot_movement: energy {solution.kernel.name!r} has no unknown {str(unknown)!r}{nearest(name, names)}; "
            f"it has {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
        )
    return names.index(name)


def _draw_energies(axes: Any, moved: Movement, damping: float, names: list[str]) -> None:
    """Energies, their quadratic models, and minima before and after, along the movement."""
    before, after = moved.minimum, moved.after.y[moved.member]
    predicted = before + moved.changes[-1] * moved.damped
    single = len(before) == 1
    direction = np.ones(1) if single else _direction(after - before, predicted - before)
    origin = float(before[0]) if single else 0.0
    places = origin + np.array([before, after, predicted] - before) @ direction
    models = [_model(one, moved.member, before, direction) for one in (moved.before, moved.after)]
    reach = _reach(2.0 * max(np.ptp(places), 1e-3 * (1.0 + abs(origin))), models, damping)
    along = np.linspace(places.min() - 2 * reach, places.max() + 2 * reach, 2 * GRID)
    near = along[np.abs(along - places.mean()) < reach]
    heights = []
    drawn = zip((moved.before, moved.after), models, ["-", "--"], names, TIMES, strict=True)
    for one, (energy, slope, curvature), style, name, text in drawn:
        energies = energies_at(one, moved.member, before + (along - origin)[:, None] * direction)
        heights.append(energies[np.isfinite(energies)])
        axes.plot(along, energies, style, color="purple", label=f"E {text} ({name})")
        model = energy + slope * (near - origin) + (curvature + damping) / 2.0 * (near - origin) ** 2
        axes.plot(near, model, style, color="darkturquoise", label=f"its quadratic model {text}")
    for place, one, marker, colour, text in (
        (places[0], moved.before, "o", "black", "minimum before"),
        (places[1], moved.after, "s", "tab:green", "minimum after"),
        (places[2], moved.after, "x", "tab:red", "prediction"),
    ):
        height = energies_at(one, moved.member, (before + (place - origin) * direction)[None])
        axes.plot(place, height[0], marker, color=colour, label=text, zorder=3)
    every = np.concatenate(heights)
    if every.size and np.ptp(every) > 0.0:
        axes.set_ylim(every.min() - 0.1 * np.ptp(every), every.max() + 0.1 * np.ptp(every))
    one_name = unknown_name(moved.before.kernel, moved.before.inputs, 0)
    axes.set(xlabel=one_name if single else "distance along the movement of the minimum", ylabel="energy")
    axes.legend(fontsize="x-small")


def _direction(*ways: Floats) -> Floats:
    """The unit vector along the first way that has a length; along the first unknown where none has."""
    for way in ways:
        length = float(np.linalg.norm(way))
        if length > 0.0:
            return np.asarray(way / length)
    return np.asarray(np.eye(len(ways[0]))[0])


def _reach(least: float, models: list[tuple[float, float, float]], damping: float) -> float:
    """How far to draw: where the energies rise by as much as they differ, so that both are seen to be curved."""
    (before, _, curvature), (after, _, _) = models
    rise = 2.0 * abs(after - before) / max(curvature + damping, 1e-300)
    return min(max(least, float(np.sqrt(rise)) / 2.0), 10.0 * least) if np.isfinite(rise) else least


def _model(one: Solution, row: int, point: Floats, direction: Floats) -> tuple[float, float, float]:
    """Energy, slope and curvature at a point along a direction."""
    inputs, here, way = inputs_of(one, row, 1), point[None].copy(), direction[None].copy()
    value, gradient = run(one.kernel.entry("value_gradient"), inputs, here, count=1)
    _, product = run(one.kernel.entry("hvp"), inputs, here, way, count=1)
    return float(value[0]), float(gradient[0] @ direction), float(product[0] @ direction)


def _draw_movement(axes: Any, moved: Movement, k: int, damping: float) -> None:
    true = moved.true[:, k] - moved.minimum[k]
    axes.plot(moved.changes, true, color="tab:green", label="true movement")
    axes.plot(
        moved.changes,
        moved.damped[k] * moved.changes,
        "--",
        color="tab:red",
        label=f"predicted, $\\lambda$ = {damping:g}",
    )
    text = "predicted, $\\lambda$ = 0" + ("" if np.isfinite(moved.undamped[k]) else ": no derivative")
    axes.plot(moved.changes, moved.undamped[k] * moved.changes, ":", color="0.4", label=text)
    axes.axhline(0.0, color="black", linewidth=0.5)
    size = (
        1.5 * max(np.abs(true[np.isfinite(true)]).max(initial=0.0), np.abs(moved.damped[k] * moved.changes[-1])) or 1.0
    )
    axes.set_ylim(-size, size)
    axes.set_title("Predicted and true movement", fontsize="medium")
    axes.legend(fontsize="small")
