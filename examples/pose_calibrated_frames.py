"""Frames of people that calibrated cameras see: of files, or of the CMU sample (docs/pose.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pose_triangulation
import wiberg as wb
from numpy.typing import NDArray
from pose_files import read, turned_poses
from pose_frames import detections_of, fitting, labels, texts, truth_of
from wiberg.energies import pose
from wiberg.energies.pose import synthetic

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Frames:
    """N frames of several people, seen by calibrated cameras.

    form       whose joints detections are, of `pose.to_joints`; detected: which of ours those are
    cameras    of every frame (N, C, ...)
    points     (N, C, K, 2) detections in pixels; visible (N, C, K) which there are
    truth      (N, 17, 3), mm in the world; NaN where it is not known
    subject    (N,), action (N,) and sequence (N,), as texts
    """

    name: str
    form: str
    detected: tuple[int, ...]
    cameras: pose.Cameras
    points: Floats
    visible: Floats
    truth: Floats
    subject: NDArray[np.str_]
    action: NDArray[np.str_]
    sequence: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.points)

    def of(self, *subjects: str) -> Frames:
        return self.chosen(np.flatnonzero(self._is_of(subjects)))

    def without(self, *subjects: str) -> Frames:
        return self.chosen(np.flatnonzero(~self._is_of(subjects)))

    def _is_of(self, subjects: Sequence[str]) -> NDArray[np.bool_]:
        unknown = sorted(set(subjects) - set(self.subject))
        if unknown:
            known = ", ".join(sorted(set(self.subject)))
            raise wb.InputError(f"no subject {', '.join(unknown)} in {self.name}; it has {known}")
        return np.isin(self.subject, subjects)

    def chosen(self, rows: NDArray[np.int64]) -> Frames:
        arrays = ("points", "visible", "truth", "subject", "action", "sequence")
        found = {name: getattr(self, name)[rows] for name in arrays}
        return replace(self, cameras=self.cameras.chosen(rows), **found)

    def with_truth(self) -> Frames:
        """Those that can teach and judge."""
        known = np.flatnonzero(np.isfinite(self.truth).all(axis=(1, 2)))
        if not len(known):
            raise wb.InputError(f"{self.name}: no frame has a true pose (joints3d)")
        return self.chosen(known)

    def fitted(self, model: pose.Calibrated) -> Frames:
        """The same for a model: joints and cameras that it knows and these frames lack are there, and see nothing."""
        count, cameras = self.points.shape[:2]
        if cameras > model.cameras:
            raise wb.InputError(f"{self.name} has {cameras} cameras, the model is of {model.cameras} at most")
        joints = [joint for joint in self.detected if joint in model.detected]
        source = [self.detected.index(joint) for joint in joints]
        target = [model.detected.index(joint) for joint in joints]
        points = np.zeros((count, model.cameras, len(model.detected), 2))
        visible = np.zeros(points.shape[:3])
        points[:, :cameras, target], visible[:, :cameras, target] = (
            self.points[:, :, source],
            self.visible[:, :, source],
        )
        standing = np.minimum(np.arange(model.cameras), cameras - 1)
        rigs = pose.Cameras(*(getattr(self.cameras, field.name)[:, standing] for field in fields(self.cameras)))
        return replace(self, detected=model.detected, cameras=rigs, points=points, visible=visible)

    def features(self, model: pose.Calibrated) -> pose.Features:
        """What the energy reads."""
        fitted = self.fitted(model)
        return pose_triangulation.features(model, fitted.cameras, fitted.points, fitted.visible, fitted.subject)


def cmu_frames(seed: int = 0) -> Frames:
    """The poses that come with the example, turned by random angles, and what four made-up cameras see of them."""
    truth, subject, action, names = turned_poses(seed)
    ring = synthetic.Ring.around()
    points, visible = synthetic.detect(truth, ring, seed=seed)
    detected = [joint for joint in range(17) if joint != synthetic.UNSEEN]
    rig = pose.Cameras(ring.rotation, ring.position, np.array(synthetic.FOCAL), np.array(synthetic.CENTRE))
    cameras = _of_every_frame(rig, np.zeros(len(truth), dtype=np.int64))
    arrays = (points[:, :, detected], visible[:, :, detected], truth)
    return Frames("CMU", "h36m", tuple(detected), cameras, *arrays, subject, action, names)


CAMERAS = {"cam_R": (3, 3), "cam_T": (3,), "cam_f": (2,), "cam_c": (2,), "cam_k": (3,), "cam_p": (2,)}
"""Arrays of cameras, as `pose.Cameras` takes them, and their shapes after (C,) or (S, C)."""


def mocap_frames(path: Path, joints: str | None = None) -> Frames:
    """Frames of a file; `joints` says which order 17 of them are in.

    det2d             (N, C, K, 2) as for pose_frames.py; so visible and joints3d, if they are there
    cam_R, cam_T      (C, ...) of one rig, or (S, C, ...) of those of S people, whom cam_subjects (S,) names; cam_f,
                      cam_c, cam_k and cam_p alike
    seq               (N,), if there are sequences: numbers in seq_subject, and in seq_action and seq_names if given
    subject, action   (N,), if there are none; without either all frames show one person

    Raises
    ------
    InputError
        If arrays are missing, or what they hold does not fit.
    """
    file = read(path, ("det2d", *CAMERAS))
    form, points, visible = detections_of(path, file, joints)
    count, cameras = points.shape[:2]
    there = np.flatnonzero(pose.to_joints(np.zeros((16 if form == "mpii" else 17, 2)), form)[1])
    truth = truth_of(path, file, count)
    subject, action, sequence = labels(path, file, count)
    rigs = _cameras(path, file, cameras, subject)
    detected = tuple(int(joint) for joint in there)
    arrays = (points[:, :, there], visible[:, :, there], truth)
    return Frames(path.name, form, detected, rigs, *arrays, subject, action, sequence)


def _cameras(path: Path, file: Mapping[str, Any], cameras: int, subject: NDArray[np.str_]) -> pose.Cameras:
    """The cameras of every frame: of its subject's rig, or of the only one."""
    known = texts(file.get("cam_subjects", ()))
    several, rig = np.ndim(file["cam_R"]) == 4 and len(file["cam_R"]) > 1, np.zeros(len(subject), dtype=np.int64)
    if several:
        unknown = sorted(set(subject) - set(known))
        if unknown:
            whose = "frames without a subject" if unknown == ["-"] else ", ".join(unknown)
            raise wb.InputError(f"{path}: cam_R is of {len(file['cam_R'])} rigs, cam_subjects has none of {whose}")
        rig = np.array([np.flatnonzero(known == one)[0] for one in subject], dtype=np.int64)
    arrays = []
    for name, last in CAMERAS.items():
        shape = (cameras, *last)
        shapes = [(len(known), *shape)] if several else [shape, (1, *shape)]
        array = np.reshape(fitting(path, file, name, *shapes), (-1, *shape))[rig]
        if not np.isfinite(array).all():
            raise wb.InputError(f"{path}: {name} has NaN or infinite entries")
        arrays.append(array)
    if not np.abs(arrays[0] @ np.swapaxes(arrays[0], -1, -2) - np.eye(3)).max(initial=0.0) < 0.01:
        raise wb.InputError(f"{path}: cam_R are no rotations")
    return pose.Cameras(*arrays)


def _of_every_frame(rig: pose.Cameras, rows: NDArray[np.int64]) -> pose.Cameras:
    return pose.Cameras(*(getattr(rig, field.name)[None][rows] for field in fields(rig)))
