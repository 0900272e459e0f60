"""examples/pose_calibrated.py: its uncertainty, against plain linear algebra and against chance; files of one's own."""

from __future__ import annotations

import functools
import importlib
import json
import sys
from dataclasses import asdict
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
    return importlib.import_module("pose_calibrated")


@pytest.fixture(scope="module")
def models(program) -> ModuleType:
    return importlib.import_module("pose_calibrated_models")


def test_covariances_are_those_of_a_mixture_of_gaussians(models, program):
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
            np.testing.assert_allclose(spread[n, joint], models.SPREAD * turn.T @ block @ turn, rtol=1e-3, atol=1e-3)


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


def test_errors_that_are_drawn_from_the_covariances_are_found_calibrated(models, program):
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
    assert abs(sure.factor / models.SPREAD - 1) < 0.15 and sure.rank > 0.4
    assert abs(sure.least_sure[0] / sure.least_sure[1] - 1) < 0.1
    wide = program.Calibration.of(truth + 2 * off, truth, spread)
    assert wide.coverage["0.5"] < 0.3 and abs(wide.factor / sure.factor / 4 - 1) < 1e-9
    assert "within ellipsoids of 90 %" in str(sure)


# ---------------------------------------------------------------------------------------------- files of one's own


@pytest.fixture(scope="module")
def model_file(program, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model as training starts with it, of one component."""
    every = program.cmu_frames()
    model, learnt = pose.Calibrated(every.detected, components=1), every.without("S2")
    weights = program.pose_start.start(model, learnt.truth, learnt.features(model))
    output = wb.Output(minima=wb.compile(model.energy, backend="reference"), **model.output)
    recipe = asdict(program.Recipe(components=1))
    notes = {"model": "b", "detected": list(model.detected), "cameras": 4, "recipe": recipe, "subjects": ["S1", "S3"]}
    path = tmp_path_factory.mktemp("model") / "b.npz"
    wb.Learner(output, wb.Loss(**model.loss), weights, wb.Adam(0.01), notes=notes).save(path)
    return str(path)


@pytest.fixture
def arrays(program, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Four frames of S2 in one rig; the interpreter runs the energies."""
    monkeypatch.setattr(wb, "compile", functools.partial(wb.compile, backend="reference"))
    every = program.cmu_frames().of("S2")
    frames = every.chosen(np.arange(0, len(every), len(every) // 4)[:4])
    det2d = np.full((4, 4, 17, 2), np.nan)
    det2d[:, :, list(frames.detected)] = np.where(frames.visible[..., None] > 0, frames.points, np.nan)
    names = ("rotation", "position", "focal", "centre", "radial", "tangential")
    rig = {
        array: getattr(frames.cameras, name)[0]
        for array, name in zip(importlib.import_module("pose_calibrated_frames").CAMERAS, names, strict=True)
    }
    return {"det2d": det2d, "joints3d": frames.truth, "subject": frames.subject, "visible": np.ones((4, 4, 17)), **rig}


def of_cameras(arrays: dict[str, Any], chosen: list[int]) -> dict[str, Any]:
    made = {name: array[chosen] if name.startswith("cam_") else array for name, array in arrays.items()}
    return made | {name: made[name][:, chosen] for name in ("det2d", "visible")}


def run(program: ModuleType, command: str, model: str, folder: Path, arrays: dict[str, Any]) -> dict[str, Any]:
    np.savez(folder / "data.npz", **arrays)
    options = ["--out", str(folder / "poses")] if command == "reconstruct" else ["--subject", "S2"]
    given = [command, str(folder / "data.npz"), "--joints", "h36m", "--model", model, "--json", *options]
    found: dict[str, Any] = program.main(given)
    return found


def test_the_test_subject_alone_is_judged(program, model_file, arrays, tmp_path, capsys):
    found = run(program, "evaluate", model_file, tmp_path, arrays)
    assert found["euclidean_mm"] < 60 and not any("ridge" in name or "closed" in name for name in found["table"])
    assert "no frames of S1, S3, whom they learn from" in capsys.readouterr().out


def test_what_is_not_visible_is_not_seen(program, model_file, arrays, tmp_path):
    arrays["visible"][1, 1:] = 0
    for command in ("evaluate", "reconstruct"):
        status = run(program, command, model_file, tmp_path, arrays)["status"]
        assert status == {"ENOUGH": 3, "FEW_CAMERAS": 1}
    with np.load(tmp_path / "poses") as file:
        assert list(file["status"]).index("FEW_CAMERAS") == 1
        assert list(np.isfinite(file["pose_mm"]).all(axis=(1, 2))) == [True, False, True, True]


def test_frames_without_truth_neither_teach_nor_judge(program, model_file, arrays, tmp_path, capsys, monkeypatch):
    arrays["joints3d"][2, 5] = np.nan
    assert run(program, "evaluate", model_file, tmp_path, arrays)["frames"] == 3
    last = capsys.readouterr().out.splitlines()[-1]
    json.loads(last, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    taught = []

    def start(model: Any, truth: Any, features: Any) -> None:
        taught.append(truth)
        raise wb.InputError("enough")

    monkeypatch.setattr(program.pose_start, "start", start)
    with pytest.raises(wb.InputError, match="enough"):
        program.learn(program.mocap_frames(tmp_path / "data.npz", "h36m"), program.Recipe())
    assert len(taught[0]) == 3 and np.isfinite(taught[0]).all()


@pytest.mark.parametrize("chosen, status", [([0, 1, 3], "ENOUGH"), ([2], "FEW_CAMERAS")])
def test_rigs_may_have_fewer_cameras_than_the_model(program, model_file, arrays, tmp_path, chosen, status, capsys):
    fewer = of_cameras(arrays, chosen)
    assert run(program, "reconstruct", model_file, tmp_path, fewer)["status"] == {status: 4}
    if status == "ENOUGH":
        with np.load(tmp_path / "poses") as file:
            assert np.abs(file["pose_mm"] - arrays["joints3d"]).mean() < 60
        return
    with pytest.raises(SystemExit):
        run(program, "evaluate", model_file, tmp_path, fewer)
    assert "4 frames FEW_CAMERAS" in capsys.readouterr().err


def test_rigs_of_more_cameras_than_the_model_are_refused(program, model_file, arrays, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(program, "reconstruct", model_file, tmp_path, of_cameras(arrays, [0, 1, 2, 3, 0]))
    assert "data.npz has 5 cameras, the model is of 4 at most" in capsys.readouterr().err


def test_people_of_no_frames_are_empty_and_what_does_not_settle_is_said(models, program, model_file, arrays):
    people = importlib.import_module("pose_people")
    made = program.Reconstruction.load(Path(model_file))
    bones = people.SharedBones(made.model, made.weights, models.GTOL)
    assert bones.people({}, np.array([])).poses.shape == (0, 17, 3)
    minimised = np.zeros((4, 17, 3)), np.ones((4, 16)), np.zeros((4, 1, 17, 3)), np.array([True, False, True, True])
    bones._minimise = lambda data, lengths, *rest: (minimised[0], lengths + 0.1, *minimised[2:])
    people_of_two = np.array(["one", "one", "one", "two"])
    with pytest.MonkeyPatch.context() as patch, pytest.warns(wb.UnconvergedWarning) as said:
        patch.setattr(people, "LEAST", 2)
        bones.people({"size": np.ones(4)}, people_of_two)
    texts = [str(warning.message) for warning in said]
    assert texts == [
        "poses of people: lengths of bones of 1 of 2 people still move after 20 rounds",
        "poses of people: minimisations of 1 of 4 frames did not converge",
    ]
