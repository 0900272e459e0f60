"""Tracks: the boxes of many trackers in the frames of many sequences, one frame after another.

As a file they are an .npz without pickle. F frames, T trackers, S sequences:

    boxes           (F, T, 4)  x, y, width, height
    valid           (F, T)     whether a tracker gave a box there; optional
    frame           (F,)       since the first frame of the sequence, in which all trackers are given the true box
    seq             (F,)       which sequence
    seq_len         (S,)       its frames
    seq_init        (S, 4)     the true box of its first frame
    tracker_names   (T,)
    gt              (F, 4)     the true boxes, if they are known; without an area where a frame has none
    seq_names, seq_group (S,)  sequences of a group show the same scene; optional
    split_seq (S,), split_random (F,)   0 for training, 1 for testing: by sequence, and by frame; optional
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, NameMissingError, nearest
from .overlap import overlap, usable

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

PARTITIONS = ("sequences", "frames", "all")
_NEEDED = ("boxes", "frame", "seq", "seq_len", "seq_init", "tracker_names")


@dataclass(frozen=True)
class Tracks:
    """Boxes of trackers, and what is known of the frames they are in.

    Parameters
    ----------
    boxes : (F, T, 4)
        In pixels.
    valid : (F, T)
        Which of them count: they are finite, have an area, and their tracker gave them.
    frame, length : (F,)
        Frames since the first one of the sequence; how many the sequence has.
    first : (F, 4)
        The box of the first frame.
    sequence : (F,)
        Which sequence, by number. For balance and for figures; no energy sees it.
    names : tuple of str
        Of the trackers.
    truth : (F, 4), optional
    sequences : tuple of str
        Names by number.
    group : (F,)
        Numbers of groups of sequences of the same scene.
    tests : dict of (F,)
        Frames that are for testing, by partition ("sequences", "frames").
    """

    boxes: NDArray[Any]
    valid: Flags
    frame: Floats
    length: Floats
    first: Floats
    sequence: Integers
    names: tuple[str, ...]
    truth: Floats | None
    sequences: tuple[str, ...]
    group: Integers
    tests: dict[str, Flags]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Tracks:
        """Tracks from an .npz file.

        Raises
        ------
        InputError
            For a file that is missing or no .npz, without an array that is needed, or with one of another shape.
        """
        try:
            with open(path, "rb") as opened:
                file = np.load(opened, allow_pickle=False)
                if isinstance(file, np.ndarray):
                    raise InputError(f"{path}: one array without a name; needed: {', '.join(_NEEDED)}")
                arrays = {name: file[name] for name in file.files}
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; give a file of tracker outputs (.npz)") from None
        except InputError:
            raise
        except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{path}: no .npz file of arrays ({error})") from None
        return cls.of(arrays, str(path))

    @classmethod
    def of(cls, arrays: Any, name: str = "tracks") -> Tracks:
        """Tracks from the arrays of such a file, by name."""
        missing = [key for key in _NEEDED if key not in arrays]
        if missing:
            raise InputError(f"{name}: no array {', '.join(missing)}; needed: {', '.join(_NEEDED)}")
        names = _names(arrays["tracker_names"])
        boxes = np.asarray(arrays["boxes"])
        if boxes.ndim != 3 or boxes.shape[1:] != (len(names), 4) or boxes.dtype.kind not in "fiu":
            raise InputError(
                f"{name}: boxes must be numbers of shape (frames, {len(names)}, 4), a box for each of tracker_names "
                f"(got {boxes.dtype} {boxes.shape})"
            )
        if len(set(names)) < len(names):
            twice = next(one for one in names if names.count(one) > 1)
            raise InputError(f"{name}: tracker_names has {twice!r} more than once")
        count, number = len(boxes), len(np.atleast_1d(arrays["seq_len"]))
        _check_shapes(arrays, name, count, number, len(names))
        _check_numbers(arrays, name, number)
        sequence = np.asarray(arrays["seq"], dtype=np.int64)
        first = np.asarray(arrays["seq_init"], dtype=float)
        given = np.asarray(arrays["valid"], dtype=bool) if "valid" in arrays else np.ones(boxes.shape[:2], bool)
        labels = np.asarray(arrays.get("seq_group", np.arange(number)))
        tests = {}
        if "split_seq" in arrays:
            tests["sequences"] = np.asarray(arrays["split_seq"])[sequence] == 1
        if "split_random" in arrays:
            tests["frames"] = np.asarray(arrays["split_random"]) == 1
        return cls(
            boxes=boxes,
            valid=given & usable(boxes),
            frame=np.asarray(arrays["frame"], dtype=float),
            length=np.asarray(arrays["seq_len"], dtype=float)[sequence],
            first=first[sequence],
            sequence=sequence,
            names=names,
            truth=np.asarray(arrays["gt"], dtype=float) if "gt" in arrays else None,
            sequences=_names(arrays.get("seq_names", np.arange(number))),
            group=np.unique(labels, return_inverse=True)[1].astype(np.int64)[sequence],
            tests=tests,
        )

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, frames: Any) -> Tracks:
        """Some of the frames."""
        rows = ("boxes", "valid", "frame", "length", "first", "sequence", "group")
        return replace(
            self,
            **{name: getattr(self, name)[frames] for name in rows},
            truth=None if self.truth is None else self.truth[frames],
            tests={name: test[frames] for name, test in self.tests.items()},
        )

    def of_trackers(self, names: Sequence[str]) -> Tracks:
        """The boxes of some trackers, in that order.

        Raises
        ------
        NameMissingError
            For a tracker that is not there.
        """
        for name in names:
            if name not in self.names:
                raise NameMissingError(f"no tracker {name!r}{nearest(name, self.names)}; {', '.join(self.names)}")
        places = [self.names.index(name) for name in names]
        if places == list(range(len(self.names))):
            return self
        return replace(self, boxes=self.boxes[:, places], valid=self.valid[:, places], names=tuple(names))

    def part(self, partition: str, part: str) -> Tracks:
        """The training or the testing part of a partition; of "all", everything is both.

        Raises
        ------
        InputError
            For a partition that is none, that the file does not have, or whose part has no frame.
        """
        if partition not in PARTITIONS:
            raise InputError(f"no partition {partition!r}{nearest(partition, PARTITIONS)}; {', '.join(PARTITIONS)}")
        if partition == "all":
            return self
        if partition not in self.tests:
            array = {"sequences": "split_seq", "frames": "split_random"}[partition]
            raise InputError(f"the tracks have no partition by {partition}: no array {array} in the file; use 'all'")
        test = self.tests[partition]
        frames = np.flatnonzero(test if part == "test" else ~test)
        if not len(frames):
            raise InputError(f"the {part} part of the partition by {partition} has no frame; use 'all'")
        return self[frames]

    def with_truth(self) -> Tracks:
        """The frames whose true box has an area: the others neither teach nor judge.

        Raises
        ------
        InputError
            Where no frame is left.
        """
        there = usable(self.known)
        if not there.any():
            raise InputError(f"none of the {len(self):,} frames has a true box with an area (gt)")
        return self if there.all() else self[np.flatnonzero(there)]

    @property
    def known(self) -> Floats:
        """The true boxes.

        Raises
        ------
        InputError
            Where they are not known.
        """
        if self.truth is None:
            raise InputError("the tracks have no true boxes (gt)")
        return self.truth

    def overlaps(self) -> Floats:
        """Of every box with the true one, (F, T), boxes as stored."""
        return overlap(self.boxes, self.known[:, None])

    def chances(self, balance: float) -> Floats:
        """With which chance each frame is drawn, (F,), if a sequence of n frames has the weight n^(1 - balance)."""
        counts = np.bincount(self.sequence)[self.sequence].astype(float)
        chances: Floats = counts**-balance / (counts**-balance).sum()
        return chances


def _check_shapes(arrays: Any, name: str, frames: int, sequences: int, trackers: int) -> None:
    shapes = {
        "valid": (frames, trackers),
        "frame": (frames,),
        "seq": (frames,),
        "gt": (frames, 4),
        "split_random": (frames,),
        "seq_len": (sequences,),
        "seq_init": (sequences, 4),
        "seq_names": (sequences,),
        "seq_group": (sequences,),
        "split_seq": (sequences,),
    }
    for key, shape in shapes.items():
        if key in arrays and np.shape(arrays[key]) != shape:
            raise InputError(f"{name}: {key} must have shape {shape} (got {np.shape(arrays[key])})")


def _names(array: Any) -> tuple[str, ...]:
    """Names, of text or bytes."""
    each = np.atleast_1d(array).ravel()
    return tuple(one.decode(errors="replace") if isinstance(one, bytes) else str(one) for one in each)


def _check_numbers(arrays: Any, name: str, sequences: int) -> None:
    """What is no box must be numbers that say something."""
    for key in ("valid", "frame", "seq", "seq_len", "seq_init", "gt", "split_seq", "split_random"):
        array = np.asarray(arrays.get(key, 0))
        if array.dtype.kind not in "fiub":
            raise InputError(f"{name}: {key} must be numbers (got {array.dtype})")
    wanted: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
        ("seq", f"numbers from 0 to {sequences - 1}", lambda a: np.isin(a, np.arange(sequences))),
        ("frame", "0 or more", lambda a: np.isfinite(a) & (a >= 0)),
        ("seq_len", "1 or more", lambda a: np.isfinite(a) & (a >= 1)),
        ("seq_init", "boxes with an area", usable),
        *((key, "0 or 1", lambda a: np.isfinite(a)) for key in ("valid", "split_seq", "split_random")),
    )
    for key, what, fits in wanted:
        array = np.asarray(arrays.get(key, np.empty((0, 4))))
        fine = fits(array)
        if not fine.all():
            place = np.unravel_index(int(np.argmin(fine)), fine.shape)
            shown = ", ".join(map(str, place))
            raise InputError(f"{name}: {key} must be {what} (got {array[place].tolist()} at [{shown}])")
