"""Training of examples/pose.py on the CMU sample: weights that lower the error, and runs that are gone on from.

The interpreter runs it, with few rotations: compiling the pose kernels takes longer than all of these tests.
"""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import wiberg as wb
from wiberg.energies import pose

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def program() -> ModuleType:
    sys.path.insert(0, str(EXAMPLES))
    return importlib.import_module("pose")


@pytest.fixture
def training(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that learns, interpreted and with 2 rotations."""
    module = importlib.import_module("pose_training")
    monkeypatch.setattr(module, "TURNS", pose.rotations(100, every=50))
    monkeypatch.setattr(wb, "compile", functools.partial(wb.compile, backend="reference"))
    return module


def made(program: ModuleType, training: ModuleType) -> tuple[Any, Any]:
    """A monocular model of one body, and two examples for it."""
    frames = program.cmu_frames().without("S2").chosen(np.array([150, 600]))
    bodies = pose.fit_bodies(program.cmu_frames().without("S2").truth[::5], 1)
    model = pose.Monocular(bodies, frames.average)
    data = model.data(frames.points[:, 1], frames.visible[:, 1], np.ones(2, int), frames.truth)
    return model, training.Examples.of(data, frames.truth)


@pytest.mark.parametrize("judged", ["soft", "expected"])
def test_a_short_training_lowers_the_error_and_keeps_the_limits(program, training, judged):
    model, examples = made(program, training)
    recipe = training.Recipe(epochs=3, batch=2, rate=0.02, judged=judged)
    learner = training.learn(model, examples, recipe)
    losses = learner.history.loss
    assert len(losses) == 3
    assert losses[-1] < 0.99 * losses[0]
    for name, (low, high) in training.LIMITS.items():
        if name in learner.weights:
            assert low <= np.min(learner.weights[name]) <= np.max(learner.weights[name]) <= high


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(program, training, tmp_path, monkeypatch):
    model, examples = made(program, training)
    recipe = training.Recipe(epochs=1, batch=1)
    whole = training.learn(model, examples, recipe, checkpoint=tmp_path / "whole.npz")
    fit = wb.Learner.fit
    monkeypatch.setattr(wb.Learner, "fit", lambda self, batches, steps, **rest: fit(self, batches, 1, **rest))
    stopped = training.learn(model, examples, recipe, checkpoint=tmp_path / "part.npz")
    monkeypatch.setattr(wb.Learner, "fit", fit)
    assert stopped.steps == 1 < whole.steps
    resumed = training.learn(model, examples, recipe, checkpoint=tmp_path / "part.npz")
    assert resumed.steps == whole.steps == 2
    for name, weight in whole.weights.items():
        assert np.array_equal(resumed.weights[name], weight), name
    with pytest.raises(wb.InputError, match="give another file"):
        training.learn(model, examples, training.Recipe(epochs=3, batch=1), checkpoint=tmp_path / "part.npz")


def test_only_what_is_named_is_learnt_and_what_is_unknown_refused(program, training):
    model, examples = made(program, training)
    start = training.start(model, training.Recipe())
    learner = training.learn(model, examples, training.Recipe(epochs=1, batch=2, only=("mean_pose", "cameras")))
    moved = {name for name, weight in learner.weights.items() if np.any(weight != np.asarray(start[name].value))}
    assert moved - {"sigma_variance"} == {"mean_pose", "cameras"}
    with pytest.raises(wb.InputError, match="no weight mu; there are mean_pose"):
        training.start(model, training.Recipe(only=("mu",)))


def test_a_model_that_was_saved_gives_the_same_poses(program, training, tmp_path):
    model, _ = made(program, training)
    weights = model.weights()
    weights["exp_weights"] = weights["exp_weights"] * 0.5
    program.save_model(tmp_path / "model.npz", model, weights)
    loaded = program.load_model(tmp_path / "model.npz")
    assert isinstance(loaded, program.OneCamera) and loaded.model.choice == "soft"
    assert all(np.array_equal(loaded.weights[name], weight) for name, weight in weights.items())


def test_regression_finds_poses_of_its_own_form_and_is_as_large_as_the_truth(program):
    every = program.cmu_frames()
    regression = importlib.import_module("pose_regression")
    tested = every.of("S2")
    errors = []
    for form in regression.REGRESSIONS:
        found = regression.one_camera_by_regression(every.without("S2"), tested, form)
        assert np.allclose(pose.limb_norm(found), pose.limb_norm(tested.truth)[:, None])
        errors.append(pose.euclidean(found, program.centred(tested.truth)[:, None]).mean())
    no_regression = pose.euclidean(np.zeros((17, 3)), program.centred(tested.truth)).mean()
    assert max(errors) < 0.5 * no_regression
