"""Learning the weights of pose models (examples/pose.py): what is learnt, from which batches, and how fast.

There are two recipes. Both are Adam with epsilon 0.1 on the mean distance of joints, with weights put back within
limits after each step. The paper's is what its authors' code does: a rate of 0.05 that does not fall, 4 frames in a
batch, 20 epochs of every 5th frame, all 100 rotations, Huber's penalty through three reweightings. Ours differs in
four things: reprojection starts 20 times as soft (`lambda_scale` 0.5), so that rotations and bodies are averages at
first and all of them learn; the rate falls to 0 along half a cosine; while learning, only every 4th rotation is
minimised; and Huber's penalty is learnt at its minimum.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import sympy as sp
import wiberg as wb
from numpy.typing import NDArray
from pose_frames import Frames
from wiberg.energies import pose

Floats = NDArray[np.float64]

LIMITS: Mapping[str, tuple[float, float]] = {
    "joint_weights": (1e-3, 1e5),
    "exp_weights": (1e-5, 1e3),
    "exp_weights_model": (1e-5, 1e3),
    "sigma_variance": (-5.0, 5.0),
    "ir_reg": (1e-3, 5.0),
    "hl_param": (1e-3, 5.0),
}
"""Where weights are put back after each step; the authors'."""

GTOL = 1e-6
"""How exactly the Huber energy is minimised while learning."""

SAVED = 10.0
"""Seconds between checkpoints."""

JUDGED = ("soft", "expected", "winner")
THROUGH = ("minimum", "steps")


@dataclass(frozen=True)
class Recipe:
    """How a model is learnt.

    every, every_rotation   of so many frames, and of so many of 100 rotations, one is used
    rate                    at first; None: `RATES` of the optimiser
    falling                 whether the rate falls to 0 along half a cosine
    lambda_scale            its start; None: the model's own
    only                    what is learnt, by name; empty: everything
    judged                  of one camera: the pose that is an average of minima ("soft"), the average of their errors
                            ("expected"), or the pose of the lowest minimum ("winner")
    through                 what Huber's penalty is differentiated through: its "minimum", or three reweightings, the
                            authors' "steps"
    """

    epochs: float = 4.0
    rate: float | None = None
    falling: bool = True
    batch: int = 8
    every: int = 2
    every_rotation: int = 4
    seed: int = 0
    optimiser: str = "adam"
    lambda_scale: float | None = 0.5
    damping: float = 0.0
    only: tuple[str, ...] = ()
    judged: str = "soft"
    through: str = "minimum"


PAPER = Recipe(
    epochs=20, rate=0.05, falling=False, batch=4, every=5, every_rotation=1, lambda_scale=10.0, through="steps"
)

RECIPES: Mapping[str, Recipe] = {"ours": Recipe(), "paper": PAPER}

OF_ONE_CAMERA: Mapping[str, Recipe] = {
    "ours": Recipe(epochs=3.0, rate=0.02, batch=16, lambda_scale=None),
    "paper": replace(PAPER, batch=16),
}
"""A frame is four examples for them."""

RATES: Mapping[str, float] = {"adam": 0.015, "sgd": 1e-3}
"""Of SGD with momentum, 3e-3 is worse and 1e-2 is far too much (docs/pose.md)."""


@dataclass(frozen=True)
class Examples:
    """N instances: what differs between them, data by name, (N, ...), and the true poses (N, 17, 3)."""

    own: Mapping[str, Any]
    truth: Floats

    @classmethod
    def of(cls, data: Mapping[str, Any], truth: Floats) -> Examples:
        """Of what `model.data` gave, and true poses in mm, which need not be centred."""
        own = {name: data[name] for name in ("detections", "visible", "size", "view") if name in data}
        return cls(own, np.asarray(truth - truth.mean(axis=-2, keepdims=True)))

    @classmethod
    def of_frames(cls, model: Any, frames: Frames) -> Examples:
        """Of those frames, or of one camera those views, in which enough is seen."""
        if isinstance(model, pose.Monocular):
            row, view = np.nonzero(pose.view_status(frames.weights) == pose.Frame.ENOUGH)
            data = model.data(frames.points[row, view], frames.visible[row, view], view, frames.truth[row])
            return cls.of(data, frames.truth[row])
        frames = frames.chosen(np.flatnonzero(pose.frame_status(frames.weights) == pose.Frame.ENOUGH))
        return cls.of(model.data(frames.points, frames.visible, frames.truth), frames.truth)

    def batch(self, rows: NDArray[np.int64], constants: Mapping[str, Any], *, as_data: bool) -> wb.Batch:
        """Some of them, with the data that all share."""
        data = {**constants, **{name: array[rows] for name, array in self.own.items()}}
        true = {"truth": self.truth[rows]}
        return wb.Batch(data=data | true) if as_data else wb.Batch(data=data, targets=true)


def start(model: Any, recipe: Recipe) -> dict[str, wb.Weight]:
    """All weights before learning, within their limits."""
    weights = model.weights()
    unknown = [name for name in recipe.only if name not in weights]
    if unknown:
        raise wb.InputError(f"no weight {', '.join(unknown)}; there are {', '.join(weights)}")
    if recipe.lambda_scale is not None:
        weights["lambda_scale"] = np.full_like(weights["lambda_scale"], recipe.lambda_scale)
    made = {}
    for name, value in weights.items():
        limits = LIMITS.get(name)
        fixed = bool(recipe.only) and name not in recipe.only
        within = value if limits is None or fixed else np.clip(value, *limits)
        made[name] = wb.Weight(within, bounds=None if fixed else limits, fixed=fixed)
    return made


def judged(model: Any, recipe: Recipe) -> tuple[wb.Output, wb.Loss]:
    """What is wanted of the minima, and the loss."""
    if recipe.judged == "expected":
        error = sp.Symbol("error", real=True)
        return wb.Output(minima=wb.compile(model.energy), **model.expected_error), wb.Loss(error, variables=[error])
    found, true = (sp.IndexedBase(name, shape=(17, 3)) for name in ("pose", "truth"))
    return wb.Output(minima=wb.compile(model.energy), **model.output), wb.mean_joint_distance(found, true)


def learn(model: Any, examples: Examples, recipe: Recipe, *, checkpoint: Path | None = None) -> wb.Learner:
    """Learn, with a progress bar; a checkpoint that exists is gone on from.

    Raises
    ------
    wb.InputError
        For too few examples; for a checkpoint of another recipe.
    """
    count = len(examples.truth)
    per_epoch = count // recipe.batch
    if not per_epoch:
        raise wb.InputError(f"{count} examples are too few for a batch of {recipe.batch}")
    steps = max(1, round(recipe.epochs * per_epoch))
    learnt_model = replace(model, turns=pose.rotations(100, recipe.every_rotation))
    if recipe.judged == "winner":
        learnt_model = replace(learnt_model, choice="lowest")
    output, loss = judged(learnt_model, recipe)
    notes = {"recipe": {**asdict(recipe), "only": list(recipe.only)}, "choice": model.choice, "examples": count}
    if checkpoint is not None and checkpoint.exists():
        learner = wb.Learner.load(checkpoint, output, loss)
        if learner.notes != notes:
            differing = ", ".join(_differing(learner.notes, notes))
            raise wb.InputError(f"{checkpoint} is of a run with another {differing}: give another file, or remove it")
    else:
        options = dict(learnt_model.options)
        if options.get("method") == "irls":
            options["gtol"] = GTOL
        rate: Any = RATES[recipe.optimiser] if recipe.rate is None else recipe.rate
        if recipe.falling:
            rate = wb.CosineDecay(rate, steps)
        optimiser = wb.Adam(rate, epsilon=0.1) if recipe.optimiser == "adam" else wb.SGD(rate, momentum=0.9)
        weights = start(learnt_model, recipe)
        learner = wb.Learner(output, loss, weights, optimiser, damping=recipe.damping, notes=notes, **options)
    if learner.steps:
        print(f"goes on from step {learner.steps:,} of {steps:,}")

    def batch(step: int) -> wb.Batch:
        epoch, part = divmod(step, per_epoch)
        order = np.random.default_rng([recipe.seed, epoch]).permutation(count)
        rows = order[part * recipe.batch : (part + 1) * recipe.batch]
        return examples.batch(rows, learnt_model.constants, as_data=recipe.judged == "expected")

    if learner.steps < steps:
        path = None if checkpoint is None else os.fspath(checkpoint)
        often = {} if checkpoint is None else {"every_seconds": SAVED}
        with warnings.catch_warnings():  # nothing depends on the sharpness of a choice that is not soft
            warnings.simplefilter("ignore", wb.ZeroGradientWarning)
            learner.fit(batch, steps - learner.steps, progress=True, checkpoint=path, **often)
    return learner


def _differing(notes: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Names of what differs between the notes of two runs."""
    one, other = ({**n.get("recipe", {}), **{k: v for k, v in n.items() if k != "recipe"}} for n in (notes, wanted))
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
