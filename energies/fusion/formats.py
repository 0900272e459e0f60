"""Readers of benchmarks' own text files: a line for each frame, a file for each tracker and sequence.

    format   results                                            truth
    otb      TRACKER/SEQUENCE.txt                               SEQUENCE/groundtruth_rect.txt, or SEQUENCE.txt
    got10k   TRACKER/SEQUENCE/SEQUENCE_001.txt                  SEQUENCE/groundtruth.txt
    vot      TRACKER/EXPERIMENT/SEQUENCE/SEQUENCE_001.txt       SEQUENCE/groundtruth.txt

A line is x, y, width, height, with commas, tabs, semicolons or blanks between; in VOT it is also a polygon of three or
more points x1, y1, x2, y2, ..., of which the bounding rectangle is taken, or a single number: a state without a region
(1 initialised, 2 failed, 0 none). Lines without a box, of NaN, or without an area are missing boxes; so are lines after
the end of a tracker's file. A missing box repeats the last one of its tracker, as the benchmarks' evaluations do, and
is not valid. Frame 0 is left out: there every tracker is given the truth. So are frames whose truth has no area.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, nearest
from .overlap import usable

Floats = NDArray[np.float64]

FORMATS: Mapping[str, tuple[str, ...]] = {
    "otb": ("groundtruth_rect.txt",),
    "got10k": ("groundtruth.txt",),
    "vot": ("groundtruth.txt",),
}
"""Formats, with the names of the files of true boxes."""

_BETWEEN = re.compile(r"[,;\s]+")


def read_regions(path: str | os.PathLike[str], *, polygons: bool = True) -> Floats:
    """The boxes of a file, (lines, 4); NaN for a line without a box.

    Parameters
    ----------
    path
        A text file.
    polygons : bool
        Whether a line may also be a polygon or a state, as in VOT.

    Raises
    ------
    InputError
        For a file that cannot be read, and for a line that is neither a box, a polygon nor a state.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").strip("\n\r").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    boxes = np.full((len(lines), 4), np.nan)
    for number, line in enumerate(lines):
        parts = [part for part in _BETWEEN.split(line.strip()) if part]
        try:
            values = np.array([float(part) for part in parts])
        except ValueError:
            hint = "; masks are not read, only rectangles and polygons" if line.strip().startswith("m") else ""
            raise InputError(f"{path}: line {number + 1} is not numbers: {line.strip()[:60]!r}{hint}") from None
        if len(values) == 4:
            boxes[number] = values
        elif not polygons and len(values):
            raise InputError(f"{path}: line {number + 1} has {len(values)} numbers; a rectangle has 4")
        elif len(values) >= 6 and len(values) % 2 == 0:
            points = values.reshape(-1, 2)
            low = points.min(axis=0)
            boxes[number] = [*low, *(points.max(axis=0) - low)]
        elif len(values) > 1:
            raise InputError(
                f"{path}: line {number + 1} has {len(values)} numbers; a rectangle has 4, a polygon 6 or more in pairs"
            )
    return boxes


def convert(
    kind: str, results: str | os.PathLike[str], truth: str | os.PathLike[str], *, every: int = 1
) -> dict[str, NDArray[Any]]:
    """The arrays of a file of tracks (tracks.py) from folders of text files.

    Parameters
    ----------
    kind : {"otb", "got10k", "vot"}
    results, truth
        Folders.
    every : int
        Keep frames 1, 1 + every, ...

    Raises
    ------
    InputError
        For another format, folders without such files, and lines that are no boxes.
    """
    if kind not in FORMATS:
        raise InputError(f"no format {kind!r}{nearest(kind, FORMATS)}; {', '.join(FORMATS)}")
    if every < 1:
        raise InputError(f"every must be at least 1 (got {every})")
    known = dict(_truths(kind, Path(truth)))
    if not known:
        wanted = " or ".join(FORMATS[kind])
        raise InputError(f"{truth}: no true boxes of format {kind!r}: {wanted} in a folder for each sequence")
    trackers = sorted(path.name for path in Path(results).iterdir() if path.is_dir()) if Path(results).is_dir() else []
    found = {tracker: _results(kind, Path(results) / tracker, known) for tracker in trackers}
    trackers = [tracker for tracker in trackers if found[tracker]]
    if not trackers:
        raise InputError(f"{results}: no results of format {kind!r} for sequences {', '.join(list(known)[:5])}, ...")
    names = [name for name in known if any(name in found[tracker] for tracker in trackers)]
    parts: dict[str, list[Any]] = {key: [] for key in ("boxes", "valid", "gt", "seq", "frame")}
    for number, name in enumerate(names):
        true = known[name]
        if not usable(true[:1]).any():
            raise InputError(f"{truth}: sequence {name}: its first frame has no box with an area")
        each = [_filled(found[tracker].get(name), true) for tracker in trackers]
        frames = np.arange(1, len(true), every)
        frames = frames[usable(true[frames])]
        parts["boxes"].append(np.stack([boxes[frames] for boxes, _ in each], axis=1))
        parts["valid"].append(np.stack([valid[frames] for _, valid in each], axis=1))
        parts["gt"].append(true[frames])
        parts["seq"].append(np.full(len(frames), number))
        parts["frame"].append(frames)
    if not sum(map(len, parts["frame"])):
        raise InputError(f"{truth}: no frame but the first of a sequence has a true box with an area")
    types = {"boxes": np.float32, "valid": bool, "gt": np.float32, "seq": np.int16, "frame": np.int32}
    return {
        **{key: np.concatenate(arrays).astype(types[key]) for key, arrays in parts.items()},
        "seq_len": np.array([len(known[name]) for name in names], np.int32),
        "seq_init": np.stack([known[name][0] for name in names]).astype(np.float32),
        "seq_names": np.array(names),
        "tracker_names": np.array(trackers),
    }


def _truths(kind: str, folder: Path) -> Iterator[tuple[str, Floats]]:
    """The true boxes of each sequence, by name."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    for path in sorted(folder.iterdir()):
        files = [path / name for name in FORMATS[kind]] if path.is_dir() else []
        if kind == "otb" and path.suffix == ".txt":
            files = [path]
        for file in files:
            if file.is_file():
                yield path.stem if path.is_file() else path.name, read_regions(file, polygons=kind == "vot")


def _results(kind: str, folder: Path, sequences: Mapping[str, Floats]) -> dict[str, Floats]:
    """What a tracker gave, by sequence; of several runs the first, of VOT's experiments the one without a restart."""
    found = {}
    for name in sequences:
        files = {
            "otb": [folder / f"{name}.txt"],
            "got10k": [folder / name / f"{name}_001.txt"],
            "vot": [
                *sorted(folder.glob(f"*/{name}/{name}_001.txt"), key=lambda file: file.parts[-3] != "unsupervised"),
                folder / name / f"{name}_001.txt",
            ],
        }[kind]
        file = next((file for file in files if file.is_file()), None)
        if file is not None:
            found[name] = read_regions(file, polygons=kind == "vot")
            if len(found[name]) > len(sequences[name]):
                warnings.warn(
                    f"{file} has {len(found[name])} lines, the sequence {len(sequences[name])} frames: the last ones "
                    "are left out; do both begin with the same frame?",
                    stacklevel=3,
                )
    return found


def _filled(boxes: Floats | None, true: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """A box for each frame, and whether it is a tracker's own; at first it has the true one."""
    full = np.full(true.shape, np.nan)
    if boxes is not None:
        full[: len(boxes)] = boxes[: len(full)]
    full[0] = true[0]
    own = usable(full)
    last = np.maximum.accumulate(np.where(own, np.arange(len(full)), 0))
    valid = own.copy()
    valid[0] = True
    return full[last], valid
