"""Human poses from calibrated cameras: a convex energy of all joints, learnt (docs/pose.md).

    python examples/pose_calibrated.py train [DATA.npz] --model-out MODEL.npz
    python examples/pose_calibrated.py evaluate [DATA.npz] --subject S9 --model MODEL.npz --json
    python examples/pose_calibrated.py reconstruct [DATA.npz] --model MODEL.npz --out POSES.npz

Without a file: poses of the CMU motion capture database (examples/data), seen by made-up cameras. The same are
`pose.py train --model b`, and `pose.py evaluate --model MODEL.npz` with what that made.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pose_start
import pose_triangulation
import wiberg as wb
from numpy.typing import NDArray
from pose_calibrated_errors import Calibration, Errors, mean, ridge, triangulated
from pose_calibrated_frames import Frames, cmu_frames, mocap_frames
from pose_calibrated_models import Recipe, Reconstruction, learn
from pose_files import answer, checked_for_writing, test_subject, write
from pose_frames import JOINTS
from wiberg.energies import pose

Floats = NDArray[np.float64]

SHIFTED = ("S9/Greeting", "S9/SittingDown 1", "S9/Waiting 1")
"""The truth of these stands a hand's breadth beside the person: left out of absolute errors."""


def train(options: argparse.Namespace) -> dict[str, Any]:
    if options.solver not in (None, "huber"):
        raise wb.InputError(f"model b is robust; --solver {options.solver} is for model a")
    checked_for_writing(options.model_out)
    every = _frames(options).with_truth()
    without = options.without or sorted({test_subject(every.name)} & set(every.subject))
    asked = {field.name: getattr(options, field.name) for field in fields(Recipe)}
    recipe = Recipe(**{name: value for name, value in asked.items() if value is not None})
    learnt = every.without(*without)
    learn(learnt, recipe, options.model_out, progress=True)
    print(f"learnt from {', '.join(sorted(set(learnt.subject)))}: {options.model_out}")
    return {"model": str(options.model_out), "subjects": sorted(set(learnt.subject.tolist()))}


def evaluate(options: argparse.Namespace) -> dict[str, Any]:
    every = _frames(options).with_truth()
    subject = options.subject or test_subject(every.name)
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
        table[name] = [float(mean(error, axis=0)) for error in own]
        print(f"  {name:<44} {table[name][0]:7.2f} {table[name][1]:14.2f} {table[name][2]:9.2f}")
    *_, (best, poses) = rows.items()
    sure = Calibration.of(found[good], frames.truth[good], spread[good])
    print(f"  {sure}")
    errors = Errors.of(poses, frames.truth)
    by_action = {}
    for action in sorted(set(frames.action)):
        own = good & (frames.action == action)
        if own.any():
            by_action[str(action)] = float(mean(errors.centred[own], axis=0))
            relative = float(mean(errors.root_relative[own], axis=0))
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
    if options.solver not in (None, "huber"):
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
