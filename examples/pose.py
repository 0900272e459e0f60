"""Human poses from 2D detections in several cameras: section 5 of the paper (docs/pose.md).

    python examples/pose.py sample [POSE_DATA.npz] --parameters untrained --solver huber
    python examples/pose.py evaluate [DATA.npz] --subject S9 --model trained --bodies POSE_DATA.npz
    python examples/pose.py train [DATA.npz] --solver huber --model-out MODEL.npz
    python examples/pose.py train [DATA.npz] --cameras monocular --model-out MODEL.npz
    python examples/pose.py reconstruct [DATA.npz] --model MODEL.npz --out POSES.npz
    python examples/pose.py draw [DATA.npz] --model MODEL.npz --out FOLDER

Without a file, all use poses of the CMU motion capture database (examples/data), seen by made-up cameras. What a file
holds: pose_frames.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pose_calibrated
import pose_commands
from pose_files import answer
from pose_frames import JOINTS
from pose_models import NAMED, SOLVERS
from pose_regression import REGRESSIONS
from pose_training import JUDGED, RATES, RECIPES, THROUGH
from wiberg.energies import pose


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    given = sys.argv[1:] if arguments is None else arguments
    if pose_calibrated.asked_for(given):
        return pose_calibrated.main(given)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("sample", help="the sample frame of the authors' file, or a CMU frame")
    one.add_argument("file", type=Path, nargs="?", metavar="POSE_DATA.npz")
    one.add_argument("--parameters", choices=NAMED, default="untrained")
    one.add_argument("--out", type=Path, metavar="OUT.npz", help="pose, energies, weights, gradients")
    one.set_defaults(run=pose_commands.sample)
    many = commands.add_parser("evaluate", help="the mean error of a subject's frames")
    many.add_argument("--out", type=Path, metavar="OUT.npz", help="poses, truth, errors, actions and status of frames")
    many.set_defaults(run=pose_commands.evaluate)
    learning = commands.add_parser("train", help="learn all weights from the frames of everyone else")
    _add_training(learning)
    learning.set_defaults(run=pose_commands.train)
    new = commands.add_parser("reconstruct", help="poses of all frames of a file, which need not have a truth")
    new.add_argument("--out", type=Path, required=True, metavar="POSES.npz", help="poses, status, energies, weights")
    many.add_argument("--prune", action="store_true", help="skip body models that have no share in the first frames")
    new.add_argument("--size", type=float, metavar="MM", help="of the person, as pose.limb_norm measures it")
    new.set_defaults(run=pose_commands.reconstruct)
    figures = commands.add_parser("draw", help="skeletons beside the truth, errors, learning curves, as PNG")
    figures.add_argument("--model", nargs="+", metavar="MODEL", help="drawn beside the untrained ones; their training")
    figures.add_argument("--out", type=Path, default=Path("output"), metavar="FOLDER")
    figures.add_argument("--every", type=int, default=5, help="use every so many frames")
    figures.set_defaults(run=pose_commands.draw, cameras="all", solver="huber")
    for command in (many, new):
        names = (*NAMED, *REGRESSIONS) if command is many else NAMED
        command.add_argument("--model", default="untrained", help=f"a file, {', '.join(names)}")
    for command in (many, new, figures):
        command.add_argument("--every-rotation", type=int, default=1, help="minimise at every so many of 100 rotations")
        command.add_argument("--lambda-scale", type=float, help="of untrained models: the weight of the reprojection")
        command.add_argument("--subject", help="S9 by default (S2 of CMU)" if command is not new else "all by default")
    for command in (many, new, learning):
        command.add_argument("--cameras", choices=("all", "monocular"), default="all")
    for command in (many, new, learning, figures):
        command.add_argument("file", type=Path, nargs="?", metavar="DATA.npz")
        command.add_argument("--bodies", type=Path, metavar="POSE_DATA.npz", help="the authors' body models")
        command.add_argument("--joints", choices=JOINTS, help="the order of 17 detected joints")
        command.add_argument(
            "--choice", choices=pose.CHOICES, help="what a pose is of the minima; the model's by default"
        )
    for command in (one, many, learning, new):
        command.add_argument("--solver", choices=tuple(SOLVERS), help=f"{pose_commands.SOLVER} by default")
    for command in (one, many, learning, new, figures):
        command.add_argument(
            "--mixture", type=int, choices=pose.MIXTURES, help=f"{pose_commands.MIXTURE} body models by default"
        )
        command.add_argument("--json", action="store_true", help="the result as the last line")
    return answer(parser, arguments)


def _add_training(learning: argparse.ArgumentParser) -> None:
    rates = ", ".join(f"{rate} of {name}" for name, rate in RATES.items())
    learning.add_argument(
        "--model", choices=("a", "b"), default="a", help="b: of calibrated cameras, by pose_calibrated.py"
    )
    learning.add_argument("--model-out", type=Path, required=True, metavar="MODEL.npz")
    learning.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="saved to as it learns, and gone on from; MODEL.npz.run"
    )
    learning.add_argument("--without", action="append", metavar="SUBJECT", help="not learnt from: S9 (S2 of CMU)")
    learning.add_argument(
        "--recipe", choices=tuple(RECIPES), default="ours", help="the defaults of what follows, to --lambda-scale"
    )
    learning.add_argument("--every", type=int, help="use every so many frames")
    learning.add_argument("--every-rotation", type=int, help="minimise at every so many of 100 rotations")
    learning.add_argument("--epochs", type=float)
    learning.add_argument("--batch", type=int, help="so many examples in each step")
    learning.add_argument("--rate", type=float, help=f"the learning rate at first; {rates}")
    learning.add_argument("--lambda-scale", type=float, help="where the weight of the reprojection starts")
    learning.add_argument("--through", choices=THROUGH, help="of huber: what is differentiated")
    learning.add_argument("--optimiser", choices=tuple(RATES), default="adam")
    learning.add_argument("--seed", type=int, default=0)
    learning.add_argument("--damping", type=float, default=0.0)
    learning.add_argument("--only", nargs="+", metavar="WEIGHT", help="learn these alone")
    learning.add_argument("--loss", choices=JUDGED, default="soft", help="of one camera: what of its minima is judged")


if __name__ == "__main__":
    main()
