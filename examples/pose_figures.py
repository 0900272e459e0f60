"""The figures of examples/pose.py: skeletons beside the truth (figure 4 of the paper), errors, learning curves."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MultipleLocator
from numpy.typing import NDArray
from pose_frames import Frames, centred
from wiberg.energies import pose

Floats = NDArray[np.float64]

FOUND, TRUE = "#d7191c", "#2c5fb8"
COLOURS = ("#bdbdbd", "#6b6b6b", "#d7191c", "#fdae61", "#5e3c99", "#1a9641", "#0571b0")

VIEWS: Mapping[str, tuple[tuple[int, int], int]] = {
    "from the front": ((0, 2), -1),
    "from the right": ((1, 2), 1),
    "from above": ((0, 1), 1),
}
"""Which axes of (right, ahead, up) are seen, and whether the first points to the right or to the left."""

GRID = 500.0
"""mm between the lines behind skeletons."""

SHOWN = 3
"""So many frames are drawn as skeletons."""

WIDTH = 1.5
"""Inches of a view of a skeleton."""


def draw_all(
    frames: Frames, found: Mapping[str, Floats], histories: Mapping[str, tuple[Any, Floats]], folder: Path
) -> Iterator[Path]:
    """Draw everything into a folder; the paths of the files, as they are written.

    Parameters
    ----------
    frames
        N frames of which the truth is known.
    found
        Poses (N, 17, 3) by the name of who found them, NaN where there is none.
    histories
        Steps and losses of trainings, by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    truth = centred(frames.truth)
    off = {name: np.linalg.norm(poses - truth, axis=-1) for name, poses in found.items()}
    each = {name: errors.mean(axis=1) for name, errors in off.items()}
    joints = {name: np.nanmean(errors, axis=0) for name, errors in off.items()}
    actions = {name: _by_action(frames.action, errors) for name, errors in each.items()}
    means = {name: float(np.nanmean(errors)) for name, errors in each.items()}
    names = sorted(set(frames.action.tolist()))
    last = [*actions.values()][-1]
    order = np.argsort(last)
    of_actions = {name: errors[order] for name, errors in actions.items()}
    figures = {
        "skeletons": lambda: _skeletons(frames, truth, found, _typical(frames, last, [*each.values()][-1])),
        "joints": lambda: _bars(pose.JOINTS, joints, means, "joint", len(frames)),
        "actions": lambda: _bars([names[k] for k in order], of_actions, means, "action", len(frames)),
    }
    learnt = {name: curve for name, curve in histories.items() if len(curve[1])}
    if learnt:
        figures["learning"] = lambda: _curves(learnt)
    for name, draw in figures.items():
        figure = draw()
        path = folder / f"pose_{name}.png"
        figure.savefig(path, dpi=110)
        plt.close(figure)
        yield path


def _by_action(action: NDArray[np.str_], error: Floats) -> Floats:
    """Means of actions, in alphabetical order; NaN where no frame has a pose."""
    found = [error[(action == name) & np.isfinite(error)] for name in sorted(set(action.tolist()))]
    return np.array([own.mean() if len(own) else np.nan for own in found])


# ---------------------------------------------------------------------------------------------- skeletons


def _typical(frames: Frames, by_action: Floats, error: Floats) -> list[int]:
    """Of the actions that the last model finds easiest, middling and hardest, each the frame of median error."""
    names = np.array(sorted(set(frames.action.tolist())))
    there = np.argsort(by_action)[: int(np.isfinite(by_action).sum())]
    places = np.unique(np.linspace(0, len(there) - 1, min(SHOWN, len(there))).round().astype(int))
    chosen = []
    for name in names[there[places]]:
        own = np.flatnonzero((frames.action == name) & np.isfinite(error))
        chosen.append(int(own[np.argsort(error[own])[len(own) // 2]]))
    return chosen


def _facing(poses: Floats, truth: Floats) -> Floats:
    """Poses (J, 3) in axes of the true body: to its right, ahead, up."""
    across = truth[1, :2] - truth[4, :2]
    right = across / max(float(np.linalg.norm(across)), 1e-9)
    ahead = np.array([-right[1], right[0]])
    return np.stack([poses[:, :2] @ right, poses[:, :2] @ ahead, poses[:, 2]], axis=1)


def _skeletons(frames: Frames, truth: Floats, found: Mapping[str, Floats], rows: Sequence[int]) -> Any:
    """Rows: frames; columns: of each model several views. One scale for all."""
    turned = {name: [_facing(poses[row], truth[row]) for row in rows] for name, poses in found.items()}
    true = [_facing(truth[row], truth[row]) for row in rows]
    shown = np.array([*true, *(one for own in turned.values() for one in own)])
    side = float(np.nanmax(np.abs(shown[..., :2]))) + 60
    ups = [shown[k :: len(rows), :, 2] for k in range(len(rows))]
    middles = [float(np.nanmax(up) + np.nanmin(up)) / 2 for up in ups]
    heights = [max(side, float(np.nanmax(up) - np.nanmin(up)) / 2 + 60) for up in ups]
    models, views = len(found), len(VIEWS)
    inches = [WIDTH * height / side for height in heights]
    top, bottom, gap = 0.7, 0.6, 0.35
    whole = top + bottom + sum(inches) + gap * (len(rows) - 1)
    figure = plt.figure(figsize=(0.5 + models * (views * WIDTH + 0.35), whole))
    outer = figure.add_gridspec(
        1,
        models,
        left=0.45 / figure.get_figwidth(),
        right=0.995,
        top=1 - top / whole,
        bottom=bottom / whole,
        wspace=0.07,
    )
    for column, (name, own) in enumerate(turned.items()):
        inner = outer[column].subgridspec(
            len(rows), views, height_ratios=inches, wspace=0.04, hspace=gap / float(np.mean(inches))
        )
        for k, row in enumerate(rows):
            error = float(pose.euclidean(found[name][row], truth[row]))
            for v, (view, (seen, sign)) in enumerate(VIEWS.items()):
                axes = figure.add_subplot(inner[k, v])
                _skeleton(axes, true[k], seen, sign, TRUE)
                _skeleton(axes, own[k], seen, sign, FOUND)
                _frame(axes, side, heights[k], middles[k] if 2 in seen else 0.0)
                if k == 0:
                    axes.set_title(view, fontsize=9, pad=4)
                if v == 0 and column == 0:
                    axes.set_ylabel(textwrap.shorten(frames.action[row], 28, placeholder=" ..."), fontsize=10)
                if v == 1:
                    axes.set_xlabel(f"{error:.0f} mm" if np.isfinite(error) else "no pose", fontsize=9, labelpad=3)
        place = outer[column].get_position(figure)
        figure.text((place.x0 + place.x1) / 2, 1 - 0.22 / whole, name, ha="center", va="center", fontsize=12)
    lines = [plt.Line2D([], [], color=colour, linewidth=2.2) for colour in (FOUND, TRUE)]
    labels = [
        "reconstructed",
        "true; both with the right limbs bold, on a grid of 500 mm; below: mean distance of joints",
    ]
    figure.legend(lines, labels, loc="lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _skeleton(axes: Any, points: Floats, seen: tuple[int, int], sign: int, colour: str) -> None:
    for a, b in pose.EDGES:
        left = pose.JOINTS[b].startswith("left")
        ends = points[[a, b]][:, seen] * [sign, 1]
        axes.plot(*ends.T, color=colour, linewidth=1.1 if left else 2.2, solid_capstyle="round", alpha=0.9)


def _frame(axes: Any, side: float, height: float, middle: float) -> None:
    axes.set(xlim=(-side, side), ylim=(middle - height, middle + height), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MultipleLocator(GRID))
    axes.tick_params(length=0, labelbottom=False, labelleft=False)
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color("#d0d0d0")


# ---------------------------------------------------------------------------------------------- errors, learning


def _bars(
    labels: Sequence[str], errors: Mapping[str, Floats], means: Mapping[str, float], what: str, count: int
) -> Any:
    """Errors (G,) of several models, beside each other for each of G joints or actions."""
    figure, axes = plt.subplots(figsize=(max(7.0, 0.62 * len(labels)), 4.6), layout="constrained")
    width = 0.82 / len(errors)
    for k, (name, heights) in enumerate(errors.items()):
        place = np.arange(len(labels)) + (k - (len(errors) - 1) / 2) * width
        colour = COLOURS[k % len(COLOURS)]
        axes.bar(place, heights, width * 0.92, color=colour, label=f"{name}: {means[name]:.1f} mm in all")
    axes.set_xticks(np.arange(len(labels)), [textwrap.fill(label, 20) for label in labels], rotation=40, ha="right")
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.set_ylim(0, 1.22 * max(float(np.nanmax(heights)) for heights in errors.values()))
    axes.set_ylabel("mean distance from the truth, mm")
    axes.set_title(f"Error by {what}, {count:,} frames", fontsize=11)
    axes.grid(axis="y", color="#e6e6e6")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", ncols=min(3, len(errors)), frameon=False, fontsize=9)
    return figure


def _curves(histories: Mapping[str, tuple[Any, Floats]]) -> Any:
    """Losses of every step, and their running means."""
    figure, axes = plt.subplots(figsize=(8, 4.4), layout="constrained")
    smooth = {name: _smoothed(*curve) for name, curve in histories.items()}
    for k, (name, (steps, losses)) in enumerate(histories.items()):
        colour = COLOURS[(k + 2) % len(COLOURS)]
        axes.plot(steps, losses, color=colour, linewidth=0.6, alpha=0.3)
        axes.plot(*smooth[name], color=colour, linewidth=2.0, label=f"{name}: {smooth[name][1][-1]:.1f} mm at the end")
    low = min(float(np.nanquantile(losses, 0.002)) for _, losses in histories.values())
    high = max(float(np.nanquantile(losses, 0.998)) for _, losses in histories.values())
    axes.set_ylim(max(0.0, low - 0.08 * (high - low)), high + 0.2 * (high - low))
    axes.set_xlim(0, max(float(np.max(steps)) for steps, _ in histories.values()))
    axes.set_xlabel("step")
    axes.set_ylabel("mean distance of joints in a batch, mm")
    axes.set_title("Learning: every batch, and running means", fontsize=11)
    axes.grid(color="#e6e6e6")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper right", frameon=False)
    return figure


def _smoothed(steps: Any, losses: Floats) -> tuple[Floats, Floats]:
    """Means over a thirtieth of all steps, of those that have a loss."""
    known = np.isfinite(losses)
    x, y = np.asarray(steps, dtype=np.float64)[known], losses[known]
    window = max(1, len(y) // 30)
    kernel = np.full(window, 1 / window)
    return np.convolve(x, kernel, "valid"), np.convolve(y, kernel, "valid")
