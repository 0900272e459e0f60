"""What examples/pose.py does when it is asked to: each command takes its options and returns what `--json` prints."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import wiberg as wb
from numpy.typing import NDArray
from pose_files import TEST_SUBJECT, checked_for_writing, read, test_subject, write
from pose_frames import Frames, centred, cmu_frames, read_frames
from pose_models import (
    NAMED,
    OneCamera,
    Reconstruction,
    bodies_of,
    history,
    load_model,
    of_authors,
    save_model,
    untrained,
    untrained_of_one,
)
from pose_regression import REGRESSIONS, one_camera_by_regression
from pose_training import OF_ONE_CAMERA, RATES, RECIPES, Examples, Recipe, learn
from wiberg.energies import pose

Floats = NDArray[np.float64]

INTERRUPTED = 130

SOLVER, MIXTURE = "huber", 3
"""Of models that are not in a file, where the command line does not say."""


def chosen(options: argparse.Namespace) -> tuple[str, int]:
    """Solver and mixture."""
    return options.solver or SOLVER, options.mixture or MIXTURE


def model_of(options: argparse.Namespace, name: str, poses: Floats, average: Floats) -> Reconstruction:
    """The model that a command asks for, by name or file, for a rig; untrained, its bodies are of poses or --bodies."""
    solver, mixture = chosen(options)
    if name not in NAMED:
        model = load_model(Path(name))
        unused = [o for o in ("solver", "mixture", "bodies") if options.command != "draw" and getattr(options, o)]
        for option in unused:
            print(f"pose.py {options.command}: --{option} has no effect, {name} says what it is", file=sys.stderr)
        if options.cameras == "monocular" and not isinstance(model, OneCamera):
            raise wb.InputError(f"--cameras monocular: {name} is a model of several cameras; leave it out")
    elif name != "untrained":
        if options.cameras == "monocular":
            raise wb.InputError(f"--model {name} of the authors is of several cameras")
        if options.bodies is None:
            raise wb.InputError(f"--model {name} is in the authors' file: give --bodies POSE_DATA.npz")
        model = of_authors(options.bodies, name, solver, mixture)
    elif options.cameras == "monocular":
        model = untrained_of_one(poses, average, mixture, options.bodies)
    else:
        model = untrained(poses, average, solver, mixture, options.bodies)
    if options.lambda_scale is not None:
        if name != "untrained" or not options.lambda_scale > 0:
            raise wb.InputError(f"--lambda-scale {options.lambda_scale} is a number above 0 for --model untrained")
        scale = np.full(np.shape(model.weights["lambda_scale"]), options.lambda_scale)
        model = replace(model, weights={**model.weights, "lambda_scale": scale})
    if options.every_rotation < 1:
        raise wb.InputError(f"--every-rotation {options.every_rotation} must be above 0")
    changes: dict[str, Any] = {"turns": pose.rotations(100, options.every_rotation)}
    if options.choice is not None:
        changes["choice"] = options.choice
    return model.for_rig(average).changed(**changes)


def sample(options: argparse.Namespace) -> dict[str, Any]:
    if options.file is None:
        if options.parameters != "untrained":
            raise wb.InputError(f"--parameters {options.parameters} are in the authors' file: give POSE_DATA.npz")
        every, subject = cmu_frames(), TEST_SUBJECT["CMU"]
        frames = every.of(subject).chosen([0])
        model = untrained(every.without(subject).truth, every.average, *chosen(options))
    else:
        file = read(options.file, ("sample_poses2d", "sample_pose3d", "sample_joint_visible", "cameras"))
        visible = np.broadcast_to(file["sample_joint_visible"].astype(float), file["sample_poses2d"].shape[:2])
        truth, nobody = file["sample_pose3d"][None], np.array(["-"])
        seen = file["sample_poses2d"][None], visible[None]
        frames = Frames("sample", *seen, file["cameras"], truth, pose.limb_norm(truth), nobody, nobody)
        model = of_authors(options.file, options.parameters, *chosen(options))
    solution = model.minimise(frames, (0,))
    truth, found = centred(frames.truth[0]), solution.outputs["pose"]
    errors = [float(e) for e in (*pose.procrustes(found, truth), pose.euclidean(found, truth))]
    for name, error in zip(pose.ERRORS, errors, strict=True):
        print(f"{name:<14} {error:8.3f} mm")
    if options.out is not None:
        gradient = model.gradient(solution, truth)
        names = pose.MultiCamera(model.model.bodies, model.model.average, solver="steps").weights()
        gradients = {name: np.asarray(gradient.get(name, np.zeros(np.shape(w)))) for name, w in names.items()}
        shares = model.report.value(solution.minima, model.weights, solution.x)
        each, of_models = shares["share"], shares["model_share"]
        weights = {"weights": each * of_models[..., None], "rotation_weights": each, "model_weights": of_models}
        write(options.out, {"pose_mm": found, "energies": shares["score"], **weights, **gradients})
        print(f"pose, energies, weights and gradients: {options.out}")
    return {"errors_mm": errors}


def evaluate(options: argparse.Namespace) -> dict[str, Any]:
    every = read_frames(options.file, options.joints).with_truth()
    subject = options.subject or test_subject(every.name)
    frames, others = every.of(subject), every.without(subject)
    if options.model in REGRESSIONS:
        found = one_camera_by_regression(others, frames, options.model)
        return _judged(frames, found, np.zeros(found.shape[:2], dtype=np.int64), subject, options.out)
    model = model_of(options, options.model, others.truth, every.average)
    if options.prune:
        if isinstance(model, OneCamera):
            raise wb.InputError("--prune is for models of several cameras")
        model = model.pruned(frames)
        print(f"{len(model.model.bodies)} models have a share")
    return _judged(frames, *model.poses(frames, progress=True), subject, options.out)


def _judged(
    frames: Frames, found: Floats, status: NDArray[np.int64], subject: str, out: Path | None = None
) -> dict[str, Any]:
    """Print errors by action of poses (N, 17, 3), or (N, C, 17, 3) of one camera each."""
    monocular, truth = found.ndim == 4, centred(frames.truth)
    error = pose.euclidean(found, truth[:, None] if monocular else truth)
    names = _names(status)
    if out is not None:
        arrays = {"pose_mm": found, "truth_mm": truth, "error_mm": error, "action": frames.action, "status": names}
        write(out, arrays)
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
    counts = pose.counts(status)
    print(f"status of {what}: {_listed(counts)}")
    result = {"euclidean_mm": float(error[used].mean()), "by_action": by_action, what: int(used.sum())}
    return result | {"status": counts}


def _names(status: NDArray[np.int64]) -> NDArray[np.str_]:
    return np.array([member.name for member in pose.Frame])[status]


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def train(options: argparse.Namespace) -> dict[str, Any]:
    checked_for_writing(options.model_out)
    every = read_frames(options.file, options.joints).with_truth()
    monocular = options.cameras == "monocular"
    if not monocular and options.loss != "soft":
        raise wb.InputError(f"--loss {options.loss} is for --cameras monocular")
    if monocular and options.choice is not None:
        raise wb.InputError("--choice is for several cameras; of one, --loss says what is learnt from")
    recipe = _recipe(options, OF_ONE_CAMERA if monocular else RECIPES)
    frames = every.without(*(options.without or [test_subject(every.name)]))
    solver, mixture = chosen(options)
    bodies = bodies_of(options.bodies, frames.truth, mixture)
    model: Any
    if monocular:
        model = pose.Monocular(bodies, every.average)
    else:
        if solver.startswith("huber"):
            solver = "steps" if recipe.through == "steps" else "huber"
        model = pose.MultiCamera(bodies, every.average, solver=solver, choice=options.choice or "soft")
    frames = frames.chosen(np.arange(0, len(frames), recipe.every))
    examples = Examples.of_frames(model, frames)
    running = options.checkpoint or options.model_out.with_name(f"{options.model_out.name}.run")
    checked_for_writing(running)
    print(f"{len(examples.truth):,} examples of {', '.join(sorted(set(frames.subject)))}; {recipe}")
    print(f"saved to {running} while it learns, from which the same command goes on; then to {options.model_out}")
    began = perf_counter()
    try:
        learner = learn(model, examples, recipe, checkpoint=running)
    except KeyboardInterrupt:
        print(f"pose.py train: stopped; {running} is saved, the same command goes on from it", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    seconds = perf_counter() - began
    if options.loss == "winner":
        model = replace(model, choice="lowest")
    losses, last = learner.history.loss, max(1, learner.steps // 10)
    save_model(options.model_out, model, learner.weights, history_loss=losses, history_steps=learner.history.steps)
    if options.checkpoint is None:  # the model has all of it
        for path in (running, running.with_name(running.name + ".1")):
            with suppress(FileNotFoundError):
                path.unlink()
    loss = float(np.nanmean(losses[-last:]))
    print(
        f"{learner.steps:,} steps in {seconds:.0f} s; mean error of the last tenth {loss:.1f} mm: {options.model_out}"
    )
    return {"model": str(options.model_out), "loss": loss, "steps": learner.steps, "seconds": seconds}


def _recipe(options: argparse.Namespace, recipes: Any) -> Recipe:
    """The one that is asked for, with what else is said explicitly."""
    names = ("epochs", "rate", "batch", "every", "every_rotation", "lambda_scale")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    for name, value in given.items():
        if not value > 0:
            raise wb.InputError(f"--{name.replace('_', '-')} {value} must be above 0")
    recipe: Recipe = recipes[options.recipe]
    if options.optimiser != recipe.optimiser:
        recipe = replace(recipe, rate=None)  # rates are those of one optimiser
    if options.through is not None:
        given["through"] = options.through
    fixed = {"seed": options.seed, "optimiser": options.optimiser, "damping": options.damping, "judged": options.loss}
    recipe = replace(recipe, only=tuple(options.only or ()), **(fixed | given))
    return recipe if recipe.rate is not None else replace(recipe, rate=RATES[recipe.optimiser])


def reconstruct(options: argparse.Namespace) -> dict[str, Any]:
    checked_for_writing(options.out)
    every = read_frames(options.file, options.joints)
    known, held_out = cmu_frames(), TEST_SUBJECT["CMU"]
    if options.file is None:
        frames = every.of(options.subject or held_out)
        known = every.without(*set(frames.subject))
    else:
        frames = every if options.subject is None else every.of(options.subject)
    if options.size is not None:
        if not options.size > 0:
            raise wb.InputError(f"--size {options.size} must be above 0")
        frames = replace(frames, size=np.full(len(frames), options.size))
    model = model_of(options, options.model, known.truth, frames.average)
    found, status = model.all_minima(frames, progress=True)
    sized = np.isfinite(frames.size)
    unit, found_pose = "mm", found.pop("pose")
    if not sized.all():
        unit = "size 1"
        found_pose = found_pose / np.where(sized, frames.size, 1.0).reshape(-1, *[1] * (found_pose.ndim - 1))
    names = _names(status)
    labels = {"status": names, "unit": np.array(unit), "subject": frames.subject, "action": frames.action}
    write(options.out, {"pose_mm" if unit == "mm" else "pose": found_pose, **found, **labels})
    counts, what = pose.counts(status), "views" if status.ndim > 1 else "frames"
    size = "as large as the person, in mm" if unit == "mm" else "of size 1, for no size is known (--size, or joints3d)"
    print(f"{options.out}: poses {size}, energies, weights; {what}: {_listed(counts)}")
    if "ENOUGH" not in counts and frames.points.shape[1] == 1 and status.ndim == 1:
        print("one camera is too few for this model; --cameras monocular is for one")
    return {"frames": len(frames), "status": counts, "unit": unit}


def draw(options: argparse.Namespace) -> dict[str, Any]:
    try:
        from pose_figures import draw_all
    except ImportError as error:
        raise wb.MissingPackageError(f"draw needs matplotlib: pip install 'wiberg[figures]' ({error})") from None
    if options.every < 1:
        raise wb.InputError(f"--every {options.every} must be above 0")
    every = read_frames(options.file, options.joints).with_truth()
    subject = options.subject or test_subject(every.name)
    frames, others = every.of(subject), every.without(subject)
    frames = frames.chosen(np.arange(0, len(frames), options.every))
    variants, histories = {}, {}
    for solver, name in (("l2", "untrained, L2"), ("huber", "untrained, Huber")):
        own = argparse.Namespace(**{**vars(options), "solver": solver})
        variants[name] = model_of(own, "untrained", others.truth, every.average)
    for path in options.model or ():
        model, name = model_of(options, path, others.truth, every.average), Path(path).stem
        if not isinstance(model, OneCamera):  # poses of one camera each are not beside these
            variants[f"trained: {name}"] = model
        if Path(path).is_file():
            histories[name] = history(Path(path))
    found = {name: model.poses(frames, progress=True)[0] for name, model in variants.items()}
    nothing = [name for name, poses in found.items() if not np.isfinite(poses).any()]
    if nothing:
        raise wb.InputError(f"no frame of {subject} has six joints in two cameras: nothing to draw")
    paths = list(draw_all(frames, found, histories, options.out))
    for path in paths:
        print(path)
    return {"figures": [str(path) for path in paths]}
