"""Human poses from calibrated cameras: a convex energy of all joints, learnt (docs/pose.md).

    python examples/pose_calibrated.py train [DATA.npz] --model-out MODEL.npz
    python examples/pose_calibrated.py evaluate [DATA.npz] --subject S9 --model MODEL.npz --json
    python examples/pose_calibrated.py reconstruct [DATA.npz] --model MODEL.npz --out POSES.npz

Without a file: poses of the CMU motion capture database (examples/data), seen by made-up cameras. The same are
`pose.py train --model b`, and `pose.py evaluate --model MODEL.npz` with what that made.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pose_start
import pose_triangulation
import wiberg as wb
from numpy.typing import NDArray
from pose_files import TEST_SUBJECT, answer, checked_for_writing, read, turned_poses, write
from pose_frames import JOINTS, fitting, numbers
from pose_people import SharedBones
from wiberg.energies import pose
from wiberg.energies.pose import synthetic, triangulation

Floats = NDArray[np.float64]

SHIFTED = ("S9/Greeting", "S9/SittingDown 1", "S9/Waiting 1")
"""The truth of these stands a hand's breadth beside the person: left out of absolute errors."""

FRAMES = 512
"""So many at once."""

SPREAD = 1.38
"""What covariances are multiplied by: then half of the joints of a training subject that was held out (S8) are within
their ellipsoids of 50 %."""

ELLIPSOIDS = {0.5: 2.366, 0.9: 6.251, 0.99: 11.345}
"""Quantiles of chi-squared with three degrees of freedom."""


# ---------------------------------------------------------------------------------------------- what is reconstructed


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
    given = numbers(path, file, "det2d")
    if given.ndim != 4 or given.shape[1] == 0 or given.shape[2:] not in ((16, 2), (17, 2)):
        raise wb.InputError(f"{path}: det2d must be (N, C, 16 or 17, 2); it is {given.shape}")
    if joints is None and given.shape[2] == 17:
        raise wb.InputError(f"{path}: 17 joints may be COCO's or Human3.6M's; say --joints coco or --joints h36m")
    form, count = joints or "mpii", len(given)
    points, visible = pose.to_joints(given, form, fitting(path, file, "visible", given.shape[:3]))
    there = np.flatnonzero(pose.to_joints(np.zeros(given.shape[2:]), form)[1])
    truth = fitting(path, file, "joints3d", (count, 17, 3))
    truth = np.full((count, 17, 3), np.nan) if truth is None else truth
    subject, action, sequence = _labels(path, file, count)
    cameras = _cameras(path, file, given.shape[1], subject)
    detected = tuple(int(joint) for joint in there)
    arrays = (points[:, :, there], visible[:, :, there], truth)
    return Frames(path.name, form, detected, cameras, *arrays, subject, action, sequence)


def _labels(path: Path, file: Mapping[str, Any], count: int) -> tuple[Any, Any, Any]:
    """Subject, action and sequence of each frame, as texts; "-" where nothing says."""
    names = ("seq_subject", "seq_action", "seq_names") if "seq" in file else ("subject", "action", "")
    number = np.asarray(file.get("seq", np.arange(count)))
    found = []
    for name in names:
        if name not in file:
            found.append(np.full(count, "-"))
            continue
        texts = _texts(file[name])
        fits = number.shape == (count,) and number.dtype.kind in "iu" and ("seq" in file or len(texts) == count)
        if not fits or (count and not 0 <= number.min() <= number.max() < len(texts)):
            raise wb.InputError(
                f"{path}: {'seq, ' if 'seq' in file else ''}subjects and actions do not fit {count} frames"
            )
        found.append(texts[number])
    subject, action, sequence = found
    return subject, action, sequence


def _texts(labels: Any) -> NDArray[np.str_]:
    """Texts as they are; of numbers of people, S and the number."""
    given = np.ravel(labels)
    return np.array([f"S{k}" for k in given] if given.dtype.kind in "iu" else given, dtype=np.str_)


def _cameras(path: Path, file: Mapping[str, Any], cameras: int, subject: NDArray[np.str_]) -> pose.Cameras:
    """The cameras of every frame: of its subject's rig, or of the only one."""
    known = _texts(file.get("cam_subjects", ()))
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


# ---------------------------------------------------------------------------------------------- learning


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


# ---------------------------------------------------------------------------------------------- what it is held against


def ridge(frames: Frames, tested: Frames, strength: float = 1e-4) -> Floats:
    """Poses (N, 17, 3) of frames by a linear map of the robust points, learnt by ridge regression, body frame."""
    model = pose.Calibrated(frames.detected, 1, frames.points.shape[1])

    def points(of: Frames) -> tuple[Floats, Mapping[str, Any]]:
        features = of.features(model)
        return pose.in_body_frame(features.points, features.data).reshape(len(of), -1), features.data

    (source, given), (wanted, place) = points(frames), points(tested)
    mean = np.nanmean(source, axis=0)
    source, wanted = (np.where(np.isfinite(a), a, mean) - mean for a in (source, wanted))
    target = pose.in_body_frame(frames.truth, given).reshape(len(frames), -1)
    system = source.T @ source + strength * len(source) * np.eye(source.shape[1])
    found = wanted @ np.linalg.solve(system, source.T @ (target - target.mean(axis=0))) + target.mean(axis=0)
    turned = np.einsum("ndp,njd->njp", place["turn"], found.reshape(-1, 17, 3))
    return np.asarray(1000.0 * place["size"][:, None, None] * turned + place["centre"][:, None])


def triangulated(frames: Frames, method: Any) -> Floats:
    """Joints (N, 17, 3) as they are detected, NaN for those that are not."""
    rays = triangulation.Rays.of(frames.cameras, frames.points, frames.visible)
    found = np.full((len(frames), 17, 3), np.nan)
    found[:, list(frames.detected)] = method(rays)
    if frames.form == "mpii":
        found[:, 7] = np.nan  # MPII's thorax, a third of a metre above the spine
    return found


@dataclass(frozen=True)
class Errors:
    """Mean distances of joints that are there, (N,) each, in mm; NaN for frames without a pose."""

    centred: Floats
    root_relative: Floats
    absolute: Floats

    @classmethod
    def of(cls, found: Floats, truth: Floats) -> Errors:
        there = np.isfinite(found)
        off = np.where(there, found - truth, np.nan)

        def distance(shift: Any) -> Floats:
            return np.asarray(_mean(np.sqrt(((off - shift) ** 2).sum(axis=-1)), axis=-1))

        return cls(distance(_mean(off, axis=1)[:, None]), distance(off[:, :1]), distance(0.0))


def _mean(array: Floats, axis: int) -> Floats:
    count = np.isfinite(array).sum(axis=axis)
    total = np.nansum(array, axis=axis)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


@dataclass(frozen=True)
class Calibration:
    """Whether covariances of joints say how far off the joints are.

    coverage     share of the joints that are within ellipsoids of so much probability
    factor       what `SPREAD` would have to be for half of them to be within those of 50 %
    deviation    median predicted distance, sqrt(trace), mm
    least_sure   of the tenth of joints with the largest: predicted distance and error, root mean squares, mm
    rank         Spearman's correlation of predicted distance and error among the others
    """

    coverage: dict[str, float]
    factor: float
    deviation: float
    least_sure: tuple[float, float]
    rank: float

    @classmethod
    def of(cls, found: Floats, truth: Floats, spread: Floats) -> Calibration:
        """Of poses and truths (N, 17, 3), covariances (N, 17, 3, 3) about the mean joint, mm^2; whole poses count."""
        whole = np.isfinite(found).all(axis=(1, 2)) & np.isfinite(spread).all(axis=(1, 2, 3))
        found, truth, spread = found[whole], truth[whole], spread[whole]
        off = (found - found.mean(axis=1, keepdims=True)) - (truth - truth.mean(axis=1, keepdims=True))
        squared = (off * np.linalg.solve(spread, off[..., None])[..., 0]).sum(axis=-1)
        predicted = np.sqrt(np.trace(spread, axis1=-2, axis2=-1)).ravel()
        error = np.sqrt((off**2).sum(axis=-1)).ravel()
        unsure = predicted >= np.quantile(predicted, 0.9)
        ranks = [a[~unsure].argsort().argsort() for a in (predicted, error)]
        return cls(
            {str(level): float((squared < bound).mean()) for level, bound in ELLIPSOIDS.items()},
            float(SPREAD * np.median(squared) / ELLIPSOIDS[0.5]),
            float(np.median(predicted)),
            tuple(float(np.sqrt((a[unsure] ** 2).mean())) for a in (predicted, error)),
            float(np.corrcoef(*ranks)[0, 1]),
        )

    def __str__(self) -> str:
        held = ", ".join(
            f"{100 * share:.0f} % within ellipsoids of {100 * float(q):.0f} %" for q, share in self.coverage.items()
        )
        predicted, error = self.least_sure
        return (
            f"uncertainty (median {self.deviation:.0f} mm): of joints {held}; half would be with a factor of "
            f"{self.factor:.2f}; the tenth that is least sure: {predicted:.0f} mm predicted, {error:.0f} mm off; "
            f"rank correlation of the others {self.rank:.2f}"
        )


# ---------------------------------------------------------------------------------------------- commands


def train(options: argparse.Namespace) -> dict[str, Any]:
    if options.solver != "huber":
        raise wb.InputError(f"model b is robust; --solver {options.solver} is for model a")
    checked_for_writing(options.model_out)
    every = _frames(options).with_truth()
    without = options.without or sorted({_test_subject(every)} & set(every.subject))
    asked = {field.name: getattr(options, field.name) for field in fields(Recipe)}
    recipe = Recipe(**{name: value for name, value in asked.items() if value is not None})
    learnt = every.without(*without)
    learn(learnt, recipe, options.model_out, progress=True)
    print(f"learnt from {', '.join(sorted(set(learnt.subject)))}: {options.model_out}")
    return {"model": str(options.model_out), "subjects": sorted(set(learnt.subject.tolist()))}


def evaluate(options: argparse.Namespace) -> dict[str, Any]:
    every = _frames(options).with_truth()
    subject = options.subject or _test_subject(every)
    model, frames = Reconstruction.load(Path(options.model)), every.of(subject)
    notes = wb.Learner.read_notes(options.model)
    if subject in notes["subjects"]:
        print(f"note: {options.model} was learnt from {subject}, too")
    found, status, spread = model.poses(frames, deviations=True)
    good = status == pose.Frame.ENOUGH
    if not good.any():
        raise wb.InputError(f"no frame of {subject} has enough detections: {_listed(pose.counts(status))}")
    rows = {
        "linear triangulation, joints detected": triangulated(frames, pose_triangulation.linear),
        "robust triangulation, joints detected": triangulated(frames, pose_triangulation.robust),
        **simpler(every, frames, model.model, notes),
        "energy, learnt": found,
        "energy, learnt; bones moved to medians": pose.steadied(found, frames.subject),
        "energy, learnt; bones of a person shared": model.poses_of_people(frames, options.stiffness),
    }
    true_place = good & ~np.isin(frames.sequence, SHIFTED)
    print(f"{subject}: {good.sum():,} of {len(frames):,} frames have enough detections; mean errors in mm")
    print(f"  {'':<44} centred  root-relative  absolute")
    table = {}
    for name, poses in rows.items():
        errors = Errors.of(poses, frames.truth)
        own = [errors.centred[good], errors.root_relative[good], errors.absolute[true_place]]
        table[name] = [float(_mean(error, axis=0)) for error in own]
        print(f"  {name:<44} {table[name][0]:7.2f} {table[name][1]:14.2f} {table[name][2]:9.2f}")
    *_, (best, poses) = rows.items()
    sure = Calibration.of(found[good], frames.truth[good], spread[good])
    print(f"  {sure}")
    errors = Errors.of(poses, frames.truth)
    by_action = {}
    for action in sorted(set(frames.action)):
        own = good & (frames.action == action)
        if own.any():
            by_action[str(action)] = float(_mean(errors.centred[own], axis=0))
            relative = float(_mean(errors.root_relative[own], axis=0))
            print(f"  {action:<44} {by_action[action]:7.2f} {relative:14.2f} {own.sum():9,}")
    centred, relative, absolute = table[best]
    result = {
        "euclidean_mm": centred,
        "root_relative_mm": relative,
        "absolute_mm": absolute,
        "by_action": by_action,
        "frames": int(good.sum()),
        "status": pose.counts(status),
        "coverage": sure.coverage,
        "uncertainty": asdict(sure),
        "table": table,
    }
    return {name: _finite(value) for name, value in result.items()}


def simpler(every: Frames, frames: Frames, model: pose.Calibrated, notes: Mapping[str, Any]) -> dict[str, Floats]:
    """Poses (N, 17, 3) by what needs the frames that a model was learnt from, by name; none if these are not there."""
    missing = sorted(set(notes["subjects"]) - set(every.subject))
    if missing:
        print(f"without ridge regression and closed forms: no frames of {', '.join(missing)}, whom they learn from")
        return {}
    learnt = every.of(*notes["subjects"])
    learnt = learnt.chosen(np.arange(0, len(learnt), notes["recipe"]["every"]))
    features = learnt.features(model)
    try:
        start = Reconstruction(model, pose_start.start(model, learnt.truth, features))
        named = Reconstruction(model, pose_start.identity_weights(model, learnt.truth, features))
    except wb.InputError as error:
        print(f"without ridge regression and closed forms: {error}")
        return {}
    return {
        "robust triangulation and ridge regression": ridge(learnt, frames),
        "energy, untrained": named.poses(frames)[0],
        "energy, L and o in closed form": start.poses(frames)[0],
    }


def _finite(value: Any) -> Any:
    """What JSON can say: None for numbers that are not known."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def reconstruct(options: argparse.Namespace) -> dict[str, Any]:
    if options.solver != "huber":
        raise wb.InputError(f"model b is robust; --solver {options.solver} is for model a")
    checked_for_writing(options.out)
    frames, model = _frames(options), Reconstruction.load(Path(options.model))
    _, status, spread = model.poses(frames, deviations=True)
    found = model.poses_of_people(frames, options.stiffness)
    deviation = np.sqrt(np.trace(spread, axis1=-2, axis2=-1))
    names = np.array([member.name for member in pose.Frame])[status]
    write(options.out, {"pose_mm": found, "status": names, "deviation_mm": deviation, "subject": frames.subject})
    counts = pose.counts(status)
    print(f"{options.out}: {_listed(counts) or 'no frames'}")
    return {"frames": len(frames), "status": counts}


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} frames {name}" for name, count in counts.items())


def _frames(options: argparse.Namespace) -> Frames:
    return cmu_frames() if options.file is None else mocap_frames(options.file, options.joints)


def _test_subject(frames: Frames) -> str:
    return TEST_SUBJECT.get(frames.name, TEST_SUBJECT["Human3.6M"])


def asked_for(arguments: Sequence[str]) -> bool:
    """Whether a command line of pose.py speaks of this model: `--model b`, or the file of one."""
    given = [part for argument in arguments for part in argument.split("=", 1)]
    if "--model" not in given[:-1]:
        return False
    model = given[given.index("--model") + 1]
    if model == "b":
        return True
    try:
        return Path(model).is_file() and wb.Learner.read_notes(model).get("model") == "b"
    except wb.CheckpointError:
        return False  # a file of the other model


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    learning = commands.add_parser("train", help="learn all weights from the frames of everyone else")
    learning.add_argument("--model", choices=("b",), default="b", help=argparse.SUPPRESS)
    learning.add_argument(
        "--model-out", type=Path, required=True, metavar="MODEL.npz", help="gone on from if it exists"
    )
    learning.add_argument("--without", action="append", metavar="SUBJECT", help="not learnt from: S9 (S2 of CMU)")
    for field in fields(Recipe):
        kind = float if field.name in ("epochs", "rate") else int
        learning.add_argument(f"--{field.name}", type=kind, help=f"{field.default} by default")
    learning.set_defaults(run=train)
    many = commands.add_parser("evaluate", help="mean errors of a subject's frames, beside simpler ways")
    many.add_argument("--subject", help="S9 by default (S2 of CMU)")
    many.set_defaults(run=evaluate)
    new = commands.add_parser("reconstruct", help="poses of all frames, and how sure they are")
    new.add_argument("--out", type=Path, required=True, metavar="POSES.npz")
    new.set_defaults(run=reconstruct)
    for command in (learning, many, new):
        command.add_argument("file", type=Path, nargs="?", metavar="DATA.npz")
        command.add_argument("--json", action="store_true", help="the result as the last line")
        command.add_argument("--joints", choices=JOINTS, help="the order of 17 detected joints")
    for command in (learning, new):
        command.add_argument("--solver", choices=("huber", "l2"), default="huber", help="huber is what the model is")
    for command in (many, new):
        command.add_argument("--model", required=True, metavar="MODEL.npz")
        command.add_argument("--stiffness", type=float, default=pose.STIFFNESS, help="of a person's bones, 1/m^2")
    return answer(parser, arguments)


if __name__ == "__main__":
    main()
