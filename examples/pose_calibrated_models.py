"""The calibrated model with its weights: from detections to poses in the world, and how it learns (docs/pose.md)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pose_start
import pose_triangulation
import wiberg as wb
from numpy.typing import NDArray
from pose_calibrated_frames import Frames
from pose_people import SharedBones
from wiberg.energies import pose

Floats = NDArray[np.float64]

FRAMES = 512
"""So many at once."""

SPREAD = 1.38
"""What covariances are multiplied by: then half of the joints of a training subject that was held out (S8) are within
their ellipsoids of 50 %."""


@dataclass(frozen=True)
class Recipe:
    """How weights are learnt; chosen on a training subject that was held out (docs/pose.md)."""

    components: int = 3
    epochs: float = 4.0
    batch: int = 16
    rate: float = 0.01
    every: int = 1
    seed: int = 0


RATES = {
    "joint_map": 0.3,
    "offset": 0.1,
    "omega": 1.0,
    "delta": 1.0,
    "mean": 0.1,
    "precision": 1.0,
    "log_prior": 1.0,
    "sharpness": 1.0,
}
"""Learning rates, as parts of the recipe's: of the sizes that the weights have."""


class Reconstruction:
    """A model with its weights: from detections to poses in the world."""

    def __init__(self, model: pose.Calibrated, weights: Mapping[str, Any]) -> None:
        self.model, self.weights = model, dict(weights)
        self.output = wb.Output(minima=wb.compile(model.energy), **model.output)

    @classmethod
    def load(cls, path: Path) -> Reconstruction:
        notes = wb.Learner.read_notes(path)
        if notes.get("model") != "b":
            raise wb.InputError(f"{path} is no model of calibrated cameras; make one: pose_calibrated.py train")
        model = pose.Calibrated(tuple(notes["detected"]), notes["recipe"]["components"], notes["cameras"])
        made = cls(model, {})
        made.weights = dict(wb.Learner.load(path, made.output, wb.Loss(**model.loss)).weights)
        return made

    def features(self, cameras: pose.Cameras, points: Any, visible: Any, person: Any = None) -> pose.Features:
        """What the energy reads of detections (N, C, K, 2) in pixels, and whether frames are good for a pose."""
        return pose_triangulation.features(self.model, cameras, points, visible, person)

    def poses(self, frames: Frames, *, deviations: bool = False) -> tuple[Floats, NDArray[np.int64], Floats]:
        """Poses (N, 17, 3) in mm, NaN where there is none; what is missing (pose.Frame); covariances (N, 17, 3, 3).

        Covariances are those of joints about the mean of all joints, NaN unless `deviations`.
        """
        found, spread = np.full((len(frames), 17, 3), np.nan), np.full((len(frames), 17, 3, 3), np.nan)
        features = frames.features(self.model)
        status = features.status
        for begin in range(0, len(frames), FRAMES):
            rows = np.arange(begin, min(begin + FRAMES, len(frames)))
            good = rows[status[rows] == pose.Frame.ENOUGH]
            if not len(good):
                continue
            data = {name: array[good] for name, array in features.data.items()}
            solution = wb.minimise(self.output, self.weights, data, gtol=GTOL)
            found[good] = solution.outputs["pose"]
            if deviations:
                spread[good] = self._covariances(solution, data)
        return found, status, spread

    def poses_of_people(self, frames: Frames, stiffness: float = pose.STIFFNESS) -> Floats:
        """Poses (N, 17, 3) whose bones are held to lengths that all frames of a person share (pose_people.py)."""
        features = frames.features(self.model)
        good = np.flatnonzero(features.status == pose.Frame.ENOUGH)
        data = {name: array[good] for name, array in features.data.items()}
        found = np.full((len(frames), 17, 3), np.nan)
        if len(good):
            bones = SharedBones(self.model, self.weights, GTOL)
            found[good] = bones.people(data, frames.subject[good], stiffness).poses
        return found

    def _covariances(self, solution: Any, data: Mapping[str, Any]) -> Floats:
        """Of each joint about the mean of all joints, mm^2: of each component's minimum, H^-1, and between them."""
        kernel, Y = self.output.kernels[0], solution.minima["Y"]
        seen = {name: data[name] for name in ("view", "seen_at")}
        own = {str(weight): self.weights[str(weight)] for weight in kernel.energy.weights}
        inverse = np.linalg.inv(kernel.hessian({"Y": Y}, own, seen)).reshape(*Y.shape[:2], 17, 3, 17, 3)
        row = inverse.mean(axis=4)  # of each joint with the mean joint: (N, M, 17, 3, 3)
        both = inverse.mean(axis=(2, 4))[:, :, None]
        blocks = np.einsum("nmjpjq->nmjpq", inverse) - row - np.swapaxes(row, -1, -2) + both
        share = solution.outputs["share"][..., None, None, None]
        centred = Y - Y.mean(axis=2, keepdims=True)
        off = centred - (share[..., 0] * centred).sum(axis=1, keepdims=True)
        total = (share * (blocks + off[..., :, None] * off[..., None, :])).sum(axis=1)
        turn = data["turn"][:, None] * (1000.0 * data["size"][:, None, None, None])
        return np.asarray(SPREAD * np.swapaxes(turn, -1, -2) @ total @ turn)


GTOL = 1e-5
"""1/m, where curvatures are 1e3 to 1e5 per m^2: far below a micrometre."""


def learn(frames: Frames, recipe: Recipe, path: Path | None = None, *, progress: bool = False) -> Reconstruction:
    """Start in closed form and learn, from frames that have a truth; PATH, if it is there, is gone on from."""
    frames = frames.with_truth()
    frames = frames.chosen(np.arange(0, len(frames), recipe.every))
    model = pose.Calibrated(frames.detected, recipe.components, frames.points.shape[1])
    features = frames.features(model)
    made = Reconstruction(model, pose_start.start(model, frames.truth, features))
    used = np.flatnonzero(features.status == pose.Frame.ENOUGH)
    data = {name: array[used] for name, array in features.data.items()}
    truth, per_epoch = frames.truth[used], max(1, len(used) // recipe.batch)
    steps = round(recipe.epochs * per_epoch)

    def batch(step: int) -> wb.Batch:
        epoch, part = divmod(step, per_epoch)
        order = np.random.default_rng([recipe.seed, epoch]).permutation(len(used))
        rows = order[part * recipe.batch : (part + 1) * recipe.batch]
        return wb.Batch({name: array[rows] for name, array in data.items()}, {"truth": truth[rows]})

    loss = wb.Loss(**model.loss)
    notes = {
        "model": "b",
        "detected": list(model.detected),
        "cameras": model.cameras,
        "recipe": {field.name: getattr(recipe, field.name) for field in fields(recipe)},
        "subjects": sorted(set(frames.subject.tolist())),
        "frames": len(used),
    }
    if path is not None and path.exists():
        learner = wb.Learner.load(path, made.output, loss)
        if learner.notes != notes:
            raise wb.InputError(f"{path} is of {learner.notes}, not of {notes}: give another file")
    else:
        weights = {
            name: wb.Weight(value, scale="log") if name in ("omega", "delta") else value
            for name, value in made.weights.items()
        }
        rates = {name: wb.CosineDecay(recipe.rate * part, max(steps, 1)) for name, part in RATES.items()}
        learner = wb.Learner(made.output, loss, weights, wb.Adam(rates), gtol=GTOL, notes=notes)
    if learner.steps < steps:
        with warnings.catch_warnings():  # with one component nothing depends on its prior
            warnings.simplefilter("ignore", wb.ZeroGradientWarning)
            learner.fit(batch, steps=steps - learner.steps, progress=progress, checkpoint=path)
    elif path is not None and not path.exists():
        learner.save(path)
    made.weights = dict(learner.weights)
    return made
