"""Training of examples/pose.py on the CMU sample: weights that lower the error, and runs that are gone on from.

The interpreter runs it, with few rotations: compiling the pose kernels takes longer than all of these tests.
"""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import wiberg as wb
from wiberg.energies import pose

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that learns, interpreted."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(wb, "compile", functools.partial(wb.compile, backend="reference"))
    return importlib.import_module("pose_training")


def recipe(training: ModuleType, **settings: Any) -> Any:
    """With 2 rotations."""
    return training.Recipe(**{"every_rotation": 50, "rate": 0.015, **settings})


def made(training: ModuleType) -> tuple[Any, Any]:
    """A monocular model of one body, and two examples for it."""
    frames = importlib.import_module("pose_frames").cmu_frames()
    known = frames.without("S2")
    bodies, frames = pose.fit_bodies(known.truth[::5], 1), known.chosen(np.array([150, 600]))
    model = pose.Monocular(bodies, frames.average)
    data = model.data(frames.points[:, 1], frames.visible[:, 1], np.ones(2, int), frames.truth)
    return model, training.Examples.of(data, frames.truth)


@pytest.mark.parametrize("judged", ["soft", "expected"])
def test_a_short_training_lowers_the_error_and_keeps_the_limits(training, judged):
    model, examples = made(training)
    learner = training.learn(model, examples, recipe(training, epochs=3, batch=2, rate=0.02, judged=judged))
    assert len(learner.last_batch.data["rotation"]) == 2  # of the 100 that the model has
    losses = learner.history.loss
    assert len(losses) == 3
    assert losses[-1] < 0.99 * losses[0]
    for name, (low, high) in training.LIMITS.items():
        if name in learner.weights:
            assert low <= np.min(learner.weights[name]) <= np.max(learner.weights[name]) <= high


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(training, tmp_path, monkeypatch):
    model, examples = made(training)
    short = recipe(training, epochs=1, batch=1)
    whole = training.learn(model, examples, short, checkpoint=tmp_path / "whole.npz")
    fit = wb.Learner.fit
    monkeypatch.setattr(wb.Learner, "fit", lambda self, batches, steps, **rest: fit(self, batches, 1, **rest))
    stopped = training.learn(model, examples, short, checkpoint=tmp_path / "part.npz")
    monkeypatch.setattr(wb.Learner, "fit", fit)
    assert stopped.steps == 1 < whole.steps
    resumed = training.learn(model, examples, short, checkpoint=tmp_path / "part.npz")
    assert resumed.steps == whole.steps == 2
    for name, weight in whole.weights.items():
        assert np.array_equal(resumed.weights[name], weight), name
    longer = recipe(training, epochs=3, batch=1)
    with pytest.raises(wb.InputError, match="of a run with another epochs: give another file"):
        training.learn(model, examples, longer, checkpoint=tmp_path / "part.npz")
    with open(tmp_path / "part.npz", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(wb.CheckpointError, match=r"damaged.*previous good one: .*part.npz.1"):
        training.learn(model, examples, short, checkpoint=tmp_path / "part.npz")
    again = training.learn(model, examples, short, checkpoint=tmp_path / "part.npz.1")
    assert np.array_equal(again.weights["mean_pose"], whole.weights["mean_pose"])


def test_only_what_is_named_is_learnt_and_what_is_unknown_refused(training):
    model, examples = made(training)
    start = training.start(model, training.Recipe())
    learner = training.learn(model, examples, recipe(training, epochs=1, batch=2, only=("mean_pose", "cameras")))
    moved = {name for name, weight in learner.weights.items() if np.any(weight != np.asarray(start[name].value))}
    assert moved - {"sigma_variance"} == {"mean_pose", "cameras"}
    with pytest.raises(wb.InputError, match="no weight mu; there are mean_pose"):
        training.start(model, training.Recipe(only=("mu",)))


def test_the_recipe_of_the_paper_is_that_of_the_authors_code(training):
    commands, program = (importlib.import_module(name) for name in ("pose_commands", "pose"))
    asked = []

    def recipe_of(*arguments: str) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(commands, "train", lambda options: asked.append(options) or {})
            program.main(["train", "--model-out", "m.npz", *arguments])
        return commands._recipe(asked[-1], training.RECIPES)

    paper = recipe_of("--recipe", "paper")
    assert paper.through == "steps" and recipe_of().through == "minimum"
    assert (paper.optimiser, paper.rate, paper.falling, paper.batch, paper.epochs) == ("adam", 0.05, False, 4, 20)
    assert (paper.every, paper.every_rotation, paper.lambda_scale) == (5, 1, 10.0)
    changed = recipe_of("--recipe", "paper", "--epochs", "2", "--rate", "0.01", "--lambda-scale", "0.5")
    assert (changed.epochs, changed.rate, changed.lambda_scale, changed.batch) == (2.0, 0.01, 0.5, 4)
    assert recipe_of() == training.Recipe(rate=0.015)
    assert recipe_of("--recipe", "paper", "--optimiser", "sgd").rate == training.RATES["sgd"]
    with pytest.raises(wb.InputError, match="--every-rotation 0 must be above 0"):
        recipe_of("--every-rotation", "0")


def test_a_model_that_was_saved_gives_the_same_poses(training, tmp_path):
    models = importlib.import_module("pose_models")
    model, _ = made(training)
    weights = model.weights()
    weights["exp_weights"] = weights["exp_weights"] * 0.5
    models.save_model(tmp_path / "model", model, weights)  # a file of that very name
    loaded = models.load_model(tmp_path / "model")
    assert isinstance(loaded, models.OneCamera) and loaded.model.choice == "soft"
    assert all(np.array_equal(loaded.weights[name], weight) for name, weight in weights.items())
    several = pose.MultiCamera(model.bodies, model.average, solver="huber", choice="lowest-model")
    models.save_model(tmp_path / "several.npz", several, several.weights())
    assert models.load_model(tmp_path / "several.npz").model.choice == "lowest-model"


def test_regression_finds_poses_of_its_own_form_and_is_as_large_as_the_truth(training):
    frames, regression = (importlib.import_module(name) for name in ("pose_frames", "pose_regression"))
    every = frames.cmu_frames()
    tested = every.of("S2")
    errors = []
    for form in regression.REGRESSIONS:
        found = regression.one_camera_by_regression(every.without("S2"), tested, form)
        assert np.allclose(pose.limb_norm(found), pose.limb_norm(tested.truth)[:, None])
        errors.append(pose.euclidean(found, frames.centred(tested.truth)[:, None]).mean())
    no_regression = pose.euclidean(np.zeros((17, 3)), frames.centred(tested.truth)).mean()
    assert max(errors) < 0.5 * no_regression
