"""The figures of examples/fusion.py: boxes, energies before and after learning, the best and the worst frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import wiberg as wb
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from wiberg.energies import fusion

Floats = NDArray[np.float64]

TRUE, FUSED, TRACKER = "#1b9e77", "#d95f02", "#7570b3"


def draw_all(tracks: fusion.Tracks, model: Any, folder: Path, frame: int | None) -> Iterator[Path]:
    """Draw everything into a folder; the paths of the files, as they are written."""
    folder.mkdir(parents=True, exist_ok=True)
    boxes, _ = model.fuse(tracks)
    overlap = fusion.overlap(boxes, tracks.known)
    if frame is None:
        frame = _interesting(tracks, overlap)
    for name, draw in (
        ("boxes", lambda: _draw_frame(tracks, boxes, frame)),
        ("energy", lambda: _draw_energy(tracks, model, frame)),
        ("sheet", lambda: _draw_sheet(tracks, boxes, overlap)),
    ):
        figure = draw()
        path = folder / f"fusion_{name}.png"
        figure.savefig(path, dpi=110)
        plt.close(figure)
        yield path


def _interesting(tracks: fusion.Tracks, overlap: Floats) -> int:
    """A frame that is fused well, though its trackers disagree."""
    spread = tracks.overlaps().std(axis=1)
    return int(np.argmax(np.where(overlap > np.quantile(overlap, 0.6), spread, -1.0)))


def _rectangle(axes: Any, box: Any, colour: str, **options: Any) -> None:
    axes.add_patch(Rectangle(tuple(box[:2]), box[2], box[3], fill=False, edgecolor=colour, **options))


def _draw_boxes(axes: Any, tracks: fusion.Tracks, boxes: Floats, frame: int) -> None:
    """One frame: everything within two sizes of the true and the fused box."""
    for box in tracks.boxes[frame][tracks.valid[frame]]:
        _rectangle(axes, box, TRACKER, linewidth=0.7, alpha=0.5)
    shown = [tracks.known[frame]]
    _rectangle(axes, tracks.known[frame], TRUE, linewidth=2.2)
    if np.isfinite(boxes[frame]).all():
        _rectangle(axes, boxes[frame], FUSED, linewidth=2.2)
        shown.append(boxes[frame])
    low = np.min([box[:2] for box in shown], axis=0)
    high = np.max([box[:2] + box[2:] for box in shown], axis=0)
    margin = 0.8 * (high - low).max()
    axes.set(xlim=(low[0] - margin, high[0] + margin), ylim=(high[1] + margin, low[1] - margin), aspect="equal")
    axes.set_xticks([])
    axes.set_yticks([])


def _title(tracks: fusion.Tracks, boxes: Floats, frame: int) -> str:
    overlap = float(fusion.overlap(boxes[frame], tracks.known[frame]))
    name = tracks.sequences[tracks.sequence[frame]]
    return f"{name}, frame {tracks.frame[frame]:.0f}: IoU {overlap:.2f}"


def _legend(figure: Any) -> None:
    handles = [plt.Line2D([], [], color=colour, linewidth=2) for colour in (TRACKER, FUSED, TRUE)]
    figure.legend(handles, ["trackers", "fused", "true"], loc="lower center", ncols=3, frameon=False)


def _draw_frame(tracks: fusion.Tracks, boxes: Floats, frame: int) -> Any:
    figure, axes = plt.subplots(figsize=(6, 6.4))
    _draw_boxes(axes, tracks, boxes, frame)
    axes.set_title(_title(tracks, boxes, frame))
    _legend(figure)
    figure.subplots_adjust(bottom=0.08)
    return figure


def _draw_sheet(tracks: fusion.Tracks, boxes: Floats, overlap: Floats) -> Any:
    """Of eight sequences each the best and the worst frame, sequences in order of their mean."""
    names = np.unique(tracks.sequence)
    means = fusion.by_sequence(overlap, tracks.sequence)
    chosen = names[np.argsort(means)][np.linspace(0, len(names) - 1, min(8, len(names))).astype(int)]
    figure, grid = plt.subplots(2, len(chosen), figsize=(2.3 * len(chosen), 5.4), squeeze=False)
    for column, sequence in enumerate(chosen):
        frames = np.flatnonzero(tracks.sequence == sequence)
        order = frames[np.argsort(overlap[frames])]
        for row, frame in enumerate((order[-1], order[0])):
            _draw_boxes(grid[row, column], tracks, boxes, int(frame))
            grid[row, column].set_title(_title(tracks, boxes, int(frame)).replace(", ", "\n", 1), fontsize=8)
    grid[0, 0].set_ylabel("best frame")
    grid[1, 0].set_ylabel("worst frame")
    _legend(figure)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    return figure


def _draw_energy(tracks: fusion.Tracks, model: Any, frame: int) -> Any:
    """The energy of a corner, or of the centre of the box at the fused size, before and after learning."""
    present = [name for name in model.fusion.names if name in tracks.names]
    less, learnt = model.fusion.only(present, model.learner.weights)
    some = tracks[[frame]]
    seen = less.features(some)
    data, truth = less.data(seen), less.targets(some, seen)["target"][0, :2]
    corners = less.output is not None
    kernel, variable = (model.source.kernels[0], "low") if corners else (model.source, "y")
    trackers = data["unit"][0] * (seen.centre[0] - seen.side[0] / 2) if corners else seen.centre[0]
    sides = []
    for weights in (less.weights(), learnt):
        own = {name: weights[name] for name in kernel.weights.names}
        sides.append((own, wb.minimise(kernel, own, data, check=False).variables[variable][0]))
    around = np.stack([truth, *(place[:2] for _, place in sides)])
    low, high = around.min(axis=0), around.max(axis=0)
    margin = max(1.2 if corners else 2.2, 0.6 * float((high - low).max()))
    x, y = (np.linspace(low[axis] - margin, high[axis] + margin, 140) for axis in (0, 1))
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    figure, grid = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    for axes, (own, place), title in zip(grid, sides, ("before learning", "after learning"), strict=True):
        rest = np.broadcast_to(place[2:], (len(points), len(place) - 2))
        energy = kernel.value({variable: np.concatenate([points, rest], axis=1)}, own, data).reshape(len(y), len(x))
        image = axes.pcolormesh(x, y, energy, cmap="viridis", shading="auto", rasterized=True)
        figure.colorbar(image, ax=axes, label="energy")
        axes.plot(trackers[:, 0], trackers[:, 1], ".", color="white", markersize=4, label="trackers")
        axes.plot(*place[:2], "o", color=FUSED, markersize=9, markeredgecolor="white", label="lowest minimum")
        axes.plot(*truth, "*", color="#66ffcc", markersize=14, markeredgecolor="black", label="true")
        axes.set(xlim=(x[0], x[-1]), ylim=(y[-1], y[0]), title=title)
    what = "top left corner" if corners else "centre of the box, at the fused size"
    name = tracks.sequences[tracks.sequence[frame]]
    figure.suptitle(f"energy of the {what}: {name}, frame {tracks.frame[frame]:.0f}")
    grid[0].legend(loc="lower left", facecolor="#b0b0b0")
    return figure
