"""Human poses from 2D detections in several cameras: section 5 of the paper (docs/pose.md).

    python examples/pose.py sample [POSE_DATA.npz] --parameters untrained --solver huber
    python examples/pose.py evaluate [DATA.npz] --subject S9 --model trained --bodies POSE_DATA.npz
    python examples/pose.py train [DATA.npz] --solver huber --model-out MODEL.npz
    python examples/pose.py train [DATA.npz] --cameras monocular --model-out MODEL.npz

Without a file, both use poses of the CMU motion capture database (examples/data), seen by made-up cameras.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pose_calibrated
import sympy as sp
import wiberg as wb
from numpy.typing import NDArray
from pose_files import TEST_SUBJECT, answer, read, turned_poses
from pose_regression import REGRESSIONS, one_camera_by_regression
from pose_training import JUDGED, MONOCULAR, Examples, Recipe, learn
from wiberg.energies import pose
from wiberg.energies.pose import synthetic
from wiberg.runtime.progress import reporter

Floats = NDArray[np.float64]

SOLVERS = {"l2": "l2", "huber": "steps", "huber-minimum": "huber"}
"""What a solver is called here, and the energy that it minimises: "huber" is as the authors do it."""

FRAMES = 32
"""So many at once: what is shared by them is computed once, and members of a family are many."""

LOOKED_AT, DEAD = 64, 1e-12
"""A model is dead whose share is below this in so many frames."""


# ---------------------------------------------------------------------------------------------- what is reconstructed


@dataclass(frozen=True)
class Frames:
    """N frames of several people.

    points     (N, C, 17, 2) detections in pixels; visible (N, C, 17) which there are
    truth      (N, 17, 3) in mm
    subject    (N,) and action (N,), as texts
    """

    name: str
    points: Floats
    visible: Floats
    truth: Floats
    subject: NDArray[np.str_]
    action: NDArray[np.str_]
    average: Floats

    def of(self, subject: str) -> Frames:
        found = self.subject == subject
        if not found.any():
            raise wb.InputError(f"no subject {subject!r} in {self.name}; it has {', '.join(sorted(set(self.subject)))}")
        return self.chosen(np.flatnonzero(found))

    def without(self, *subjects: str) -> Frames:
        return self.chosen(np.flatnonzero(~np.isin(self.subject, subjects)))

    def chosen(self, rows: NDArray[np.int64]) -> Frames:
        arrays = ("points", "visible", "truth", "subject", "action")
        return replace(self, **{name: getattr(self, name)[rows] for name in arrays})

    def parts(self) -> Iterator[NDArray[np.int64]]:
        for begin in range(0, len(self.truth), FRAMES):
            yield np.arange(begin, min(begin + FRAMES, len(self.truth)))


def cmu_frames(seed: int = 0) -> Frames:
    """The poses that come with the example, each turned by a random angle, and what four cameras see of them."""
    truth, subject, action, _ = turned_poses(seed)
    ring = synthetic.Ring.around()
    points, visible = synthetic.detect(truth, ring, seed=seed)
    return Frames("CMU", points, visible, truth, subject, action, ring.rotation)


def mocap_frames(path: Path) -> Frames:
    """Frames of a file with joints3d, det2d (MPII), seq, seq_subject, seq_action and cam_R."""
    file = read(path, ("joints3d", "det2d", "seq", "seq_subject", "seq_action", "cam_R"))
    points, visible = pose.to_joints(file["det2d"], "mpii")
    turn = file["cam_R"].reshape(-1, *file["cam_R"].shape[-3:]).mean(axis=0)
    subject = np.array([f"S{k}" for k in file["seq_subject"]])[file["seq"]]
    truth = file["joints3d"].astype(np.float64)
    return Frames("Human3.6M", points, visible, truth, subject, file["seq_action"][file["seq"]], turn)


# ---------------------------------------------------------------------------------------------- the model


class Reconstruction:
    """A model with its weights: from detections to poses."""

    def __init__(self, model: pose.MultiCamera, weights: Mapping[str, Any]) -> None:
        self.model, self.weights = model, dict(weights)
        self.output = wb.Output(minima=wb.compile(model.energy), **model.output)

    def minimise(self, frames: Frames, rows: Any) -> Any:
        """The minima of all members of some frames, of which the output is `pose`."""
        data = self.model.data(frames.points[rows], frames.visible[rows], frames.truth[rows])
        return wb.minimise(self.output, self.weights, data, **self.model.options)

    def poses(self, frames: Frames, *, progress: bool = False) -> Floats:
        """Poses (N, 17, 3) in mm, as large as the truth; NaN where there are too few detections."""
        found = np.full(frames.truth.shape, np.nan)
        usable = pose.enough(pose.normalise(frames.points, frames.visible)[1])
        with reporter(progress, None, len(found), who="poses", unit="frame") as report:
            for rows in frames.parts():
                some = rows[usable[rows]]
                if len(some):
                    found[some] = self.minimise(frames, some).outputs["pose"]
                if report is not None:
                    report(len(rows))
        return found

    def pruned(self, frames: Frames) -> Reconstruction:
        """The same without models that have no share in any of the first frames."""
        usable = np.flatnonzero(pose.enough(pose.normalise(frames.points, frames.visible)[1]))
        shares = [
            self.report(self.minimise(frames, usable[begin : begin + FRAMES]))["model_weights"]
            for begin in range(0, min(len(usable), LOOKED_AT), FRAMES)
        ]
        live = np.flatnonzero(np.concatenate(shares).max(axis=0) >= DEAD)
        if len(live) == len(self.model.bodies):
            return self
        return Reconstruction(*self.model.of_models(live, self.weights))

    def gradient(self, solution: Any, truth: Floats) -> dict[str, Any]:
        """Of the Euclidean error, by every weight: through all steps that were made, or of the minimum."""
        variable, target = (sp.IndexedBase(name, shape=(17, 3)) for name in ("pose", "truth"))
        loss = wb.mean_joint_distance(variable, target)
        slope = loss.gradient({"pose": solution.outputs["pose"]}, {"truth": truth})
        if self.model.solver == "steps":
            return wb.unrolled_gradient(self.output, solution, slope)
        return wb.implicit_gradient(self.output, solution, slope, damping=0.0, unconverged="use")

    def report(self, solution: Any) -> dict[str, Any]:
        """Scores and shares of all members."""
        report = wb.Output(minima=self.output.kernels[0], **self.model.report)
        found = report.value(solution.minima, self.weights, solution.x)
        each, model = found["share"], found["model_share"]
        return {
            "energies": found["score"],
            "weights": each * model[..., None],
            "rotation_weights": each,
            "model_weights": model,
        }


def centred(truth: Floats) -> Floats:
    return np.asarray(truth - truth.mean(axis=-2, keepdims=True))


class OneCamera(Reconstruction):
    """The monocular model: a pose from each camera alone."""

    model: pose.Monocular

    def minimise(self, frames: Frames, rows: Any, camera: int = 0) -> Any:
        seen = frames.points[rows, camera], frames.visible[rows, camera]
        data = self.model.data(*seen, np.full(len(rows), camera), frames.truth[rows])
        return wb.minimise(self.output, self.weights, data)

    def poses(self, frames: Frames, *, progress: bool = False) -> Floats:
        """Poses (N, C, 17, 3) in mm, as large as the truth; NaN where fewer than six joints are seen."""
        count, cameras = frames.points.shape[:2]
        found = np.full((count, cameras, 17, 3), np.nan)
        usable = pose.enough_of_one(pose.normalise(frames.points, frames.visible)[1])
        with reporter(progress, None, count, who="poses", unit="frame") as report:
            for rows in frames.parts():
                for camera in range(cameras):
                    some = rows[usable[rows, camera]]
                    if len(some):
                        found[some, camera] = self.minimise(frames, some, camera).outputs["pose"]
                if report is not None:
                    report(len(rows))
        return found


def save_model(path: Path, model: Any, weights: Mapping[str, Any], **notes: Any) -> None:
    """Body models, cameras, solver and weights, as arrays without pickles; other arrays are for figures."""
    bodies = {f"bodies_{name}": getattr(model.bodies, name) for name in ("mean", "shapes", "sigma")}
    arrays = {f"weight_{name}": np.asarray(weight) for name, weight in weights.items()}
    solver = f"monocular {model.choice}" if isinstance(model, pose.Monocular) else model.solver
    np.savez(path, solver=solver, average=model.average, **bodies, **arrays, **notes)


def load_model(path: Path) -> Reconstruction:
    file = read(path, ("solver", "average", "bodies_mean", "bodies_shapes", "bodies_sigma"))
    bodies = pose.BodyModels(*(file[f"bodies_{name}"] for name in ("mean", "shapes", "sigma")))
    solver, monocular = str(file["solver"]), str(file["solver"]).startswith("monocular ")
    model: Any
    if monocular:
        model = pose.Monocular(bodies, file["average"], choice=solver.removeprefix("monocular "))
    else:
        model = pose.MultiCamera(bodies, file["average"], solver=solver)
    start = model.weights()
    wrong = [name for name in start if np.shape(file.get(f"weight_{name}")) != np.shape(start[name])]
    if wrong:
        raise wb.InputError(f"{path}: weights {', '.join(wrong)} are missing or of another shape")
    weights = {name: file[f"weight_{name}"] for name in start}
    return OneCamera(model, weights) if monocular else Reconstruction(model, weights)


def _of_authors(path: Path, parameters: str, solver: str, mixture: int) -> Reconstruction:
    """Models and weights of the authors' file."""
    file = read(path, ("cameras", *(f"{letter}_{mixture}" for letter in ("mu", "e", "sigma"))))
    model = pose.MultiCamera(pose.BodyModels.of_file(file, mixture), file["cameras"], solver=SOLVERS[solver])
    if parameters == "untrained":
        return Reconstruction(model, model.weights())
    if mixture != 3:
        raise wb.InputError(f"trained parameters are of a mixture of 3 models; --mixture {mixture} is for untrained")
    return Reconstruction(model, model.weights_of_file(file, robust=parameters == "trained-loaded"))


def _of_poses(frames: Frames, subject: str, solver: str, mixture: int) -> Reconstruction:
    """An untrained model of the poses of everyone else."""
    bodies = pose.fit_bodies(frames.without(subject).truth, mixture)
    model = pose.MultiCamera(bodies, frames.average, solver=SOLVERS[solver])
    return Reconstruction(model, model.weights())


def _of_one_camera(frames: Frames, subject: str, mixture: int, bodies: Path | None) -> Reconstruction:
    """An untrained monocular model, of the poses of everyone else or of the authors' bodies."""
    if bodies is None:
        fitted = pose.fit_bodies(frames.without(subject).truth, mixture)
    else:
        fitted = pose.BodyModels.of_file(read(bodies, ()), mixture)
    model = pose.Monocular(fitted, frames.average)
    return OneCamera(model, model.weights())


# ---------------------------------------------------------------------------------------------- commands


def sample(options: argparse.Namespace) -> dict[str, Any]:
    if options.file is None:
        if options.parameters != "untrained":
            raise wb.InputError(f"--parameters {options.parameters} are in the authors' file: give POSE_DATA.npz")
        every = cmu_frames()
        frames = every.of(TEST_SUBJECT["CMU"]).chosen(np.array([0]))
        model = _of_poses(every, TEST_SUBJECT["CMU"], options.solver, options.mixture)
    else:
        file = read(options.file, ("sample_poses2d", "sample_pose3d", "sample_joint_visible"))
        visible = np.broadcast_to(file["sample_joint_visible"].astype(float), file["sample_poses2d"].shape[:2])
        one = (file["sample_poses2d"][None], visible[None], file["sample_pose3d"][None])
        frames = Frames("sample", *one, np.array(["-"]), np.array(["-"]), file["cameras"])
        model = _of_authors(options.file, options.parameters, options.solver, options.mixture)
    solution = model.minimise(frames, 0)
    truth, found = centred(frames.truth[0]), solution.outputs["pose"]
    errors = [float(e) for e in (*pose.procrustes(found, truth), pose.euclidean(found, truth))]
    for name, error in zip(pose.ERRORS, errors, strict=True):
        print(f"{name:<14} {error:8.3f} mm")
    if options.out is not None:
        gradient = model.gradient(solution, truth)
        names = pose.MultiCamera(model.model.bodies, model.model.average, solver="steps").weights()
        gradients = {name: np.asarray(gradient.get(name, np.zeros(np.shape(w)))) for name, w in names.items()}
        np.savez(options.out, pose_mm=found, **model.report(solution), **gradients)
        print(f"pose, energies, weights and gradients: {options.out}")
    return {"errors_mm": errors}


def evaluate(options: argparse.Namespace) -> dict[str, Any]:
    every = cmu_frames() if options.file is None else mocap_frames(options.file)
    subject = options.subject or TEST_SUBJECT[every.name]
    frames = every.of(subject)
    if options.model in REGRESSIONS:
        found = one_camera_by_regression(every.without(subject), frames, options.model)
        return _report(frames, found, subject, options.out)
    if options.model not in ("untrained", "trained", "trained-loaded"):
        model = load_model(Path(options.model))
    elif options.cameras == "monocular":
        if options.model != "untrained":
            raise wb.InputError(f"--model {options.model} of the authors is of several cameras")
        model = _of_one_camera(every, subject, options.mixture, options.bodies)
    elif options.bodies is not None:
        model = _of_authors(options.bodies, options.model, options.solver, options.mixture)
    elif options.model == "untrained":
        model = _of_poses(every, subject, options.solver, options.mixture)
    else:
        raise wb.InputError(f"--model {options.model} is in the authors' file: give --bodies POSE_DATA.npz")
    if options.every_rotation < 1:
        raise wb.InputError(f"--every-rotation {options.every_rotation} must be above 0")
    model.model = replace(model.model, turns=pose.rotations(100, options.every_rotation))
    if options.prune:
        if options.cameras == "monocular" or isinstance(model, OneCamera):
            raise wb.InputError("--prune is for models of several cameras")
        model = model.pruned(frames)
        print(f"{len(model.model.bodies)} models have a share")
    return _report(frames, model.poses(frames, progress=True), subject, options.out)


def _report(frames: Frames, found: Floats, subject: str, out: Path | None = None) -> dict[str, Any]:
    """Print errors by action of poses (N, 17, 3), or (N, C, 17, 3) of one camera each."""
    monocular, truth = found.ndim == 4, centred(frames.truth)
    error = pose.euclidean(found, truth[:, None] if monocular else truth)
    if out is not None:
        np.savez(out, pose_mm=found, truth_mm=truth, error_mm=error, action=frames.action)
    used = np.isfinite(error)
    if not used.any():
        raise wb.InputError(f"no frame of {subject} has six joints in {'one camera' if monocular else 'two cameras'}")
    what = "views" if monocular else "frames"
    print(f"{subject}: {used.sum():,} of {used.size:,} {what} have enough detections; Euclidean error in mm, {what}")
    by_action = {}
    for action in sorted(set(frames.action)):
        own = error[frames.action == action]
        own = own[np.isfinite(own)]
        if len(own):
            by_action[str(action)] = float(own.mean())
            print(f"  {action:<40} {own.mean():7.1f} {len(own):6,}")
    print(f"  {f'all {what}':<40} {error[used].mean():7.1f} {used.sum():6,}")
    return {"euclidean_mm": float(error[used].mean()), "by_action": by_action, what: int(used.sum())}


def train(options: argparse.Namespace) -> dict[str, Any]:
    every = cmu_frames() if options.file is None else mocap_frames(options.file)
    if options.every < 1 or (options.epochs is not None and not options.epochs > 0):
        raise wb.InputError(f"--every {options.every} and --epochs {options.epochs} must be above 0")
    held_out = options.without or [TEST_SUBJECT[every.name]]
    frames = every.without(*held_out)
    bodies = (
        pose.fit_bodies(frames.truth, options.mixture)
        if options.bodies is None
        else pose.BodyModels.of_file(read(options.bodies, ()), options.mixture)
    )
    frames = frames.chosen(np.arange(0, len(frames.truth), options.every))
    seen = pose.normalise(frames.points, frames.visible)[1]
    model: Any
    if options.cameras == "monocular":
        model, recipe = pose.Monocular(bodies, every.average), MONOCULAR
        row, view = np.nonzero(pose.enough_of_one(seen))
        data = model.data(frames.points[row, view], frames.visible[row, view], view, frames.truth[row])
        examples = Examples.of(data, frames.truth[row])
    else:
        solver = "huber" if options.solver.startswith("huber") else options.solver
        model, recipe = pose.MultiCamera(bodies, every.average, solver=solver), Recipe()
        if options.loss != "soft":
            raise wb.InputError(f"--loss {options.loss} is for --cameras monocular")
        frames = frames.chosen(np.flatnonzero(pose.enough(seen)))
        examples = Examples.of(model.data(frames.points, frames.visible, frames.truth), frames.truth)
    given = {"epochs": options.epochs, "rate": options.rate, "lambda_scale": options.lambda_scale}
    recipe = replace(
        recipe,
        seed=options.seed,
        optimiser=options.optimiser,
        damping=options.damping,
        only=tuple(options.only or ()),
        judged=options.loss,
        **{name: value for name, value in given.items() if value is not None},
    )
    print(f"{len(examples.truth):,} examples of {', '.join(sorted(set(frames.subject)))}; {recipe}")
    began = perf_counter()
    learner = learn(model, examples, recipe, checkpoint=options.checkpoint)
    seconds = perf_counter() - began
    if options.loss == "winner":
        model = replace(model, choice="lowest")
    losses, last = learner.history.loss, max(1, learner.steps // 10)
    save_model(options.model_out, model, learner.weights, history_loss=losses, history_steps=learner.history.steps)
    loss = float(np.nanmean(losses[-last:]))
    print(
        f"{learner.steps:,} steps in {seconds:.0f} s; mean error of the last tenth {loss:.1f} mm: {options.model_out}"
    )
    return {"model": str(options.model_out), "loss": loss, "steps": learner.steps, "seconds": seconds}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    given = sys.argv[1:] if arguments is None else arguments
    if pose_calibrated.asked_for(given):
        return pose_calibrated.main(given)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("sample", help="the sample frame of the authors' file, or a CMU frame")
    one.add_argument("file", type=Path, nargs="?", metavar="POSE_DATA.npz")
    one.add_argument("--parameters", choices=("untrained", "trained", "trained-loaded"), default="untrained")
    one.add_argument("--out", type=Path, metavar="OUT.npz", help="pose, energies, weights, gradients")
    one.set_defaults(run=sample)
    many = commands.add_parser("evaluate", help="the mean error of a subject's frames")
    many.add_argument("file", type=Path, nargs="?", metavar="DATA.npz")
    many.add_argument("--subject", help="S9 by default (S2 of CMU)")
    many.add_argument(
        "--model", default="untrained", help=f"a file, untrained, trained, trained-loaded, {', '.join(REGRESSIONS)}"
    )
    many.add_argument("--out", type=Path, metavar="OUT.npz", help="poses, truth, errors and actions of all frames")
    many.add_argument("--every-rotation", type=int, default=1, help="minimise at every so many of 100 rotations")
    many.add_argument("--prune", action="store_true", help="skip models that have no share in the first frames")
    many.set_defaults(run=evaluate)
    learning = commands.add_parser("train", help="learn all weights from the frames of everyone else")
    learning.add_argument("file", type=Path, nargs="?", metavar="DATA.npz")
    learning.add_argument("--model-out", type=Path, required=True, metavar="MODEL.npz")
    learning.add_argument("--checkpoint", type=Path, metavar="FILE.npz", help="saved to every minute, and gone on from")
    learning.add_argument("--without", action="append", metavar="SUBJECT", help="not learnt from: S9 (S2 of CMU)")
    learning.add_argument("--every", type=int, default=2, help="use every so many frames")
    learning.add_argument("--epochs", type=float)
    learning.add_argument("--rate", type=float, help="the learning rate at first; it falls to 0")
    learning.add_argument("--lambda-scale", type=float, help="where the weight of the reprojection starts")
    learning.add_argument("--seed", type=int, default=0)
    learning.add_argument("--optimiser", choices=("adam", "sgd"), default="adam")
    learning.add_argument("--damping", type=float, default=0.0)
    learning.add_argument("--only", nargs="+", metavar="WEIGHT", help="learn these alone")
    learning.add_argument("--loss", choices=JUDGED, default="soft", help="of one camera: what of its minima is judged")
    learning.set_defaults(run=train)
    for command in (many, learning):
        command.add_argument("--cameras", choices=("all", "monocular"), default="all")
        command.add_argument("--bodies", type=Path, metavar="POSE_DATA.npz", help="the authors' body models")
    for command in (one, many, learning):
        command.add_argument("--solver", choices=tuple(SOLVERS), default="huber")
        command.add_argument("--mixture", type=int, choices=pose.MIXTURES, default=3)
        command.add_argument("--json", action="store_true", help="the result as the last line")
    return answer(parser, arguments)


if __name__ == "__main__":
    main()
