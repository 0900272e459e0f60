"""Frames of people in several cameras, from a file or from the CMU poses that come with the examples (docs/pose.md).

A file holds NumPy arrays:

    det2d             (N, C, K, 2) detections in pixels, NaN where there is none; K = 16 joints of MPII, or 17
    visible           (N, C, K), if given: 1 where a joint is seen, else 0
    cam_R             (..., C, 3, 3) calibrated rotations, world to camera, of which the average is taken; or
    cameras           (C, 3, 3) average rotations
    joints3d          (N, 17, 3), if the truth is known: mm in the world, NaN for frames in which it is not
    size              () or (N,), if known: of the person in mm, as `pose.limb_norm` measures it; the truth's otherwise
    subject, action   (N,) texts, if known; or of S sequences seq_subject, seq_action (S,), with seq (N,)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import wiberg as wb
from numpy.typing import NDArray
from pose_files import read, turned_poses
from wiberg.energies import pose
from wiberg.energies.pose import synthetic

Floats = NDArray[np.float64]

JOINTS = ("mpii", "coco", "h36m")


@dataclass(frozen=True)
class Frames:
    """N frames of several people.

    points     (N, C, 17, 2) detections in pixels; visible (N, C, 17) which there are
    average    (C, 3, 3) average rotations, world to camera
    truth      (N, 17, 3) in mm, NaN where it is not known
    size       (N,) of the person in mm; NaN where it is not known
    subject    (N,) and action (N,), as texts
    """

    name: str
    points: Floats
    visible: Floats
    average: Floats
    truth: Floats
    size: Floats
    subject: NDArray[np.str_]
    action: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.points)

    def of(self, subject: str) -> Frames:
        found = self.subject == subject
        if not found.any():
            raise wb.InputError(f"no subject {subject!r} in {self.name}; it has {', '.join(sorted(set(self.subject)))}")
        return self.chosen(np.flatnonzero(found))

    def without(self, *subjects: str) -> Frames:
        return self.chosen(np.flatnonzero(~np.isin(self.subject, subjects)))

    def chosen(self, rows: Any) -> Frames:
        arrays = ("points", "visible", "truth", "size", "subject", "action")
        return replace(self, **{name: getattr(self, name)[rows] for name in arrays})

    def with_truth(self) -> Frames:
        """Those that can teach and judge."""
        known: NDArray[np.bool_] = np.asarray(np.isfinite(self.truth).all(axis=(1, 2)))
        if not known.any():
            raise wb.InputError(f"{self.name}: no frame has a true pose (joints3d)")
        return self if known.all() else self.chosen(np.flatnonzero(known))

    @property
    def weights(self) -> Floats:
        """(N, C, 17) of the joints: 0 where nothing is seen."""
        return pose.normalise(self.points, self.visible)[1]


def centred(truth: Floats) -> Floats:
    return np.asarray(truth - truth.mean(axis=-2, keepdims=True))


def cmu_frames(seed: int = 0) -> Frames:
    """The poses that come with the examples, turned by random angles, and what four made-up cameras see of them."""
    truth, subject, action, _ = turned_poses(seed)
    ring = synthetic.Ring.around()
    points, visible = synthetic.detect(truth, ring, seed=seed)
    return Frames("CMU", points, visible, ring.rotation, truth, pose.limb_norm(truth), subject, action)


def read_frames(path: Path | None, joints: str | None = None) -> Frames:
    """Frames of a file, or without one those of CMU; `joints` says which order 17 of them are in.

    Raises
    ------
    InputError
        If arrays are missing, or their shapes do not fit.
    """
    if path is None:
        return cmu_frames()
    file = read(path, ("det2d",))
    _, points, visible = detections_of(path, file, joints)
    count, cameras = points.shape[:2]
    truth = truth_of(path, file, count)
    size = pose.limb_norm(truth)
    if "size" in file:
        size = np.where(np.isfinite(size), size, np.broadcast_to(fitting(path, file, "size", (count,), ()), count))
    subject, action, _ = labels(path, file, count)
    return Frames(path.name, points, visible, _average(path, file, cameras), truth, size, subject, action)


def detections_of(path: Path, file: Mapping[str, Any], joints: str | None) -> tuple[str, Floats, Floats]:
    """The order that joints are in, and detections (N, C, 17, 2) with what is seen of them (N, C, 17)."""
    given = numbers(path, file, "det2d")
    if given.ndim != 4 or given.shape[1] == 0 or given.shape[2:] not in ((16, 2), (17, 2)):
        raise wb.InputError(f"{path}: det2d must be (N, C, 16 or 17, 2); it is {given.shape}")
    if joints is None and given.shape[2] == 17:
        raise wb.InputError(f"{path}: 17 joints may be COCO's or Human3.6M's; say --joints coco or --joints h36m")
    form = joints or "mpii"
    return form, *pose.to_joints(given, form, fitting(path, file, "visible", given.shape[:3]))


def truth_of(path: Path, file: Mapping[str, Any], count: int) -> Floats:
    """True poses (N, 17, 3) in mm, NaN where they are not known."""
    truth = fitting(path, file, "joints3d", (count, 17, 3))
    return np.full((count, 17, 3), np.nan) if truth is None else truth


def labels(path: Path, file: Mapping[str, Any], count: int) -> tuple[Any, Any, Any]:
    """Subject, action and sequence of each frame, as texts; "-" where nothing says."""
    names = ("seq_subject", "seq_action", "seq_names") if "seq" in file else ("subject", "action", "")
    number = np.asarray(file.get("seq", np.arange(count)))
    found = []
    for name in names:
        if name not in file:
            found.append(np.full(count, "-"))
            continue
        known = texts(file[name])
        fits = number.shape == (count,) and number.dtype.kind in "iu" and ("seq" in file or len(known) == count)
        if not fits or (count and not 0 <= number.min() <= number.max() < len(known)):
            raise wb.InputError(
                f"{path}: {'seq, ' if 'seq' in file else ''}subjects and actions do not fit {count} frames"
            )
        found.append(known[number])
    subject, action, sequence = found
    return subject, action, sequence


def texts(labels: Any) -> NDArray[np.str_]:
    """Texts as they are; of numbers of people, S and the number."""
    given = np.ravel(labels)
    return np.array([f"S{k}" for k in given] if given.dtype.kind in "iu" else given, dtype=np.str_)


def numbers(path: Path, file: Mapping[str, Any], name: str) -> Floats:
    try:
        return np.asarray(file[name], dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise wb.InputError(f"{path}: {name} is no array of numbers ({error})") from None


def fitting(path: Path, file: Mapping[str, Any], name: str, *shapes: tuple[int, ...]) -> Floats | None:
    """An array of the file, if it is there, of one of these shapes."""
    if name not in file:
        return None
    array = numbers(path, file, name)
    if array.shape not in shapes:
        raise wb.InputError(
            f"{path}: {name} must be {' or '.join(map(str, shapes))}, as det2d says; it is {array.shape}"
        )
    return array


def _average(path: Path, file: Mapping[str, Any], cameras: int) -> Floats:
    """The average rotations of the cameras."""
    name = "cam_R" if "cam_R" in file else "cameras"
    if name not in file:
        raise wb.InputError(f"{path}: has no rotations of cameras: cam_R (..., C, 3, 3) or cameras (C, 3, 3)")
    turns = numbers(path, file, name)
    if turns.ndim < 3 or turns.shape[-3:] != (cameras, 3, 3):
        raise wb.InputError(f"{path}: {name} must be (..., {cameras}, 3, 3), as det2d says; it is {turns.shape}")
    average = turns.reshape(-1, cameras, 3, 3).mean(axis=0)
    if not np.abs(average @ average.transpose(0, 2, 1) - np.eye(3)).max() < 0.1:
        raise wb.InputError(f"{path}: {name} are no rotations, or of cameras that have no direction on average")
    return average
