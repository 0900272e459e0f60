"""What examples/pose_calibrated.py says of its own uncertainty, against plain linear algebra and against chance."""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import wiberg as wb
from wiberg.energies import pose

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def program() -> ModuleType:
    sys.path.insert(0, str(EXAMPLES))
    return importlib.import_module("pose_calibrated")


def test_covariances_are_those_of_a_mixture_of_gaussians(program):
    """H^-1 of each component, projected to joints about their mean, and what the components differ by, in the world."""
    frames = program.cmu_frames()
    model = pose.Calibrated(frames.detected, components=2)
    learnt = frames.without("S2")
    weights = program.pose_start.start(model, learnt.truth, learnt.features(model))
    weights |= {"sharpness": -4.0, "log_prior": np.array([0.0, -0.2])}  # both count
    made = program.Reconstruction.__new__(program.Reconstruction)
    made.model, made.weights = model, weights
    made.output = wb.Output(minima=wb.compile(model.energy, backend="reference"), **model.output)
    some = frames.of("S2").chosen(np.array([3, 60]))
    _, status, spread = made.poses(some, deviations=True)
    assert (status == pose.Frame.ENOUGH).all()
    features, kernel = some.features(model), made.output.kernels[0]
    centring = np.kron(np.eye(17) - 1 / 17, np.eye(3))
    for n in range(2):
        data = {name: array[n] for name, array in features.data.items()}
        solution = wb.minimise(made.output, weights, data)
        share, Y = solution.outputs["share"], solution.minima["Y"].reshape(2, 51)
        assert share.min() > 0.02
        own = {str(weight): weights[str(weight)] for weight in kernel.energy.weights}
        hessians = kernel.hessian({"Y": solution.minima["Y"]}, own, {name: data[name] for name in ("view", "seen_at")})
        off = (Y - share @ Y) @ centring
        total = sum(
            share[m] * (centring @ np.linalg.inv(hessians[m]) @ centring + np.outer(off[m], off[m])) for m in range(2)
        )
        for joint in (0, 5, 16):
            block = total[3 * joint : 3 * joint + 3, 3 * joint : 3 * joint + 3]
            turn = 1000 * data["size"] * data["turn"]
            np.testing.assert_allclose(spread[n, joint], program.SPREAD * turn.T @ block @ turn, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("frames_of_each", [4, 3])
def test_people_keep_their_bones(program, monkeypatch, frames_of_each):
    """Two people: lengths are the means of their frames' own, and the sum of energies is stationary in them."""
    people = importlib.import_module("pose_people")
    monkeypatch.setattr(people, "LEAST", 4)
    monkeypatch.setattr(people, "STILL", 1e-3)
    every = program.cmu_frames()
    model = pose.Calibrated(every.detected, components=1)
    learnt = every.without("S2")
    weights = program.pose_start.start(model, learnt.truth, learnt.features(model))
    frames = every.of("S2").chosen(np.arange(0, 20 * frames_of_each, 10))
    label, features = np.repeat(["one", "two"], frames_of_each), frames.features(model)
    monkeypatch.setattr(wb, "compile", functools.partial(wb.compile, backend="reference"))
    bones = people.SharedBones(model, weights, 1e-6)
    alone = bones.people(features.data, label, stiffness=0.0)
    found = bones.people(features.data, label, stiffness=1000.0)
    ends = np.array(pose.EDGES)
    own = np.linalg.norm(found.poses[:, ends[:, 1]] - found.poses[:, ends[:, 0]], axis=-1)
    if frames_of_each < people.LEAST:  # too few to know a person by
        np.testing.assert_allclose(found.poses, alone.poses, atol=1e-6)
        return
    assert found.rounds < people.ROUNDS
    for one in ("one", "two"):
        rows = label == one
        assert np.ptp(found.lengths[rows], axis=0).max() == 0
        np.testing.assert_allclose(own[rows].mean(axis=0), found.lengths[rows][0], atol=2.0)
    before = np.linalg.norm(alone.poses[:, ends[:, 1]] - alone.poses[:, ends[:, 0]], axis=-1)
    assert own[label == "one"].std(axis=0).mean() < 0.8 * before[label == "one"].std(axis=0).mean()


def test_errors_that_are_drawn_from_the_covariances_are_found_calibrated(program):
    random = np.random.default_rng(0)
    root = random.normal(size=(400, 17, 3, 3)) * random.uniform(10, 40, size=(400, 17, 1, 1))
    truth = random.normal(scale=300, size=(400, 17, 3))
    off = np.einsum("njpq,njq->njp", root, random.normal(size=(400, 17, 3)))
    off -= off.mean(axis=1, keepdims=True)
    each = root @ np.swapaxes(root, -1, -2)
    spread = (1 - 2 / 17) * each + each.sum(axis=1, keepdims=True) / 17**2
    sure = program.Calibration.of(truth + off, truth, spread)
    for level, share in sure.coverage.items():
        assert abs(share - float(level)) < 0.04
    assert abs(sure.factor / program.SPREAD - 1) < 0.15 and sure.rank > 0.4
    assert abs(sure.least_sure[0] / sure.least_sure[1] - 1) < 0.1
    wide = program.Calibration.of(truth + 2 * off, truth, spread)
    assert wide.coverage["0.5"] < 0.3 and abs(wide.factor / sure.factor / 4 - 1) < 1e-9
    assert "within ellipsoids of 90 %" in str(sure)
