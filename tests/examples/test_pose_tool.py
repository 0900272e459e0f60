"""examples/pose.py as a tool: files of one's own, what too little to see is, a camera that is missing, figures.

The interpreter runs the energies, with 2 rotations: compiling them takes longer than all of these tests.
"""

from __future__ import annotations

import functools
import importlib
import json
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import wiberg as wb
from wiberg.energies import pose
from wiberg.energies.pose import synthetic

EXAMPLES = Path(__file__).parents[2] / "examples"
RING = synthetic.Ring.around()
FAST = ("--every-rotation", "50", "--solver", "l2")


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(wb, "compile", functools.partial(wb.compile, backend="reference"))
    return importlib.import_module("pose")


def seen(count: int = 4) -> tuple[Any, Any]:
    """True poses (N, 17, 3) of the sample, and what four cameras see of them: (N, 4, 17, 2), NaN for nothing."""
    with np.load(EXAMPLES / "data" / "cmu_poses.npz") as file:
        truth = file["joints"][:: len(file["joints"]) // count][:count] / 10.0
    points, visible = synthetic.detect(truth, RING, seed=2)
    return truth, np.where(visible[..., None] > 0, points, np.nan)


def coco_of(points: Any) -> Any:
    """The same detections in COCO's order, without eyes and ears."""
    found = np.full((*points.shape[:-2], 17, 2), np.nan)
    for source, target in pose.COCO.items():
        found[..., source, :] = points[..., target, :]
    return found


def written(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


def arrays_of(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


# ---------------------------------------------------------------------------------------------- reconstruct


def test_poses_of_a_rig_of_ones_own_with_the_status_of_every_frame(program, tmp_path, capsys):
    truth, points = seen()
    points[1, 1:], points[2, :, :12] = np.nan, np.nan  # one camera; five joints
    data = written(tmp_path / "coco.npz", det2d=coco_of(points), cam_R=np.stack([RING.rotation] * 2))
    result = program.main(["reconstruct", data, "--joints", "coco", "--json", "--out", str(tmp_path / "poses"), *FAST])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == result
    assert result == {"frames": 4, "status": {"ENOUGH": 2, "FEW_CAMERAS": 2}, "unit": "size 1"}
    found = arrays_of(tmp_path / "poses")
    assert found["status"].tolist() == ["ENOUGH", "FEW_CAMERAS", "FEW_CAMERAS", "ENOUGH"]
    assert found["pose"].shape == (4, 17, 3) and found["energies"].shape == found["weights"].shape == (4, 3, 2)
    good = found["status"] == "ENOUGH"
    assert np.isnan(found["pose"][~good]).all() and np.isnan(found["energies"][~good]).all()
    np.testing.assert_allclose(found["weights"][good].sum(axis=(1, 2)), 1)
    np.testing.assert_allclose(pose.limb_norm(found["pose"][good]), float(np.float32(0.97)))
    # a size in mm, average rotations, three of them; and detections in our own order
    sized = written(tmp_path / "ours.npz", det2d=points, cameras=RING.rotation, size=pose.limb_norm(truth))
    program.main(["reconstruct", sized, "--joints", "h36m", "--out", str(tmp_path / "mm.npz"), *FAST])
    in_mm = arrays_of(tmp_path / "mm.npz")
    assert str(in_mm["unit"]) == "mm" and "pose" not in in_mm
    np.testing.assert_allclose(pose.limb_norm(in_mm["pose_mm"][good]), 0.97 * pose.limb_norm(truth[good]), rtol=1e-6)
    centred = truth - truth.mean(axis=1, keepdims=True)
    assert pose.euclidean(in_mm["pose_mm"], centred)[good].max() < 400  # with 2 of 100 rotations


def test_a_missing_camera_gives_what_a_rig_without_it_gives(program, tmp_path):
    _, points = seen(2)
    points[:, 2] = np.nan
    left = [0, 1, 3]
    four = written(tmp_path / "four.npz", det2d=points, cameras=RING.rotation)
    three = written(tmp_path / "three.npz", det2d=points[:, left], cameras=RING.rotation[left])
    for name, data in (("4.npz", four), ("3.npz", three)):
        program.main(["reconstruct", data, "--joints", "h36m", "--out", str(tmp_path / name), *FAST])
    found = [arrays_of(tmp_path / name) for name in ("4.npz", "3.npz")]
    assert found[0]["status"].tolist() == ["ENOUGH"] * 2
    np.testing.assert_allclose(found[0]["pose"], found[1]["pose"], atol=1e-10)


def test_each_camera_alone_has_a_status_of_its_own(program, tmp_path):
    _, points = seen(2)
    points[0, 3, 4:] = np.nan
    data = written(tmp_path / "data.npz", det2d=points, cameras=RING.rotation)
    arguments = ["--joints", "h36m", "--cameras", "monocular", "--size", "1400", "--out", str(tmp_path / "one.npz")]
    result = program.main(["reconstruct", data, *arguments, *FAST])
    assert result["status"] == {"ENOUGH": 7, "FEW_JOINTS": 1} and result["unit"] == "mm"
    found = arrays_of(tmp_path / "one.npz")
    assert found["pose_mm"].shape == (2, 4, 17, 3) and found["weights"].shape == (2, 4, 3, 2)
    assert found["status"][0, 3] == "FEW_JOINTS" and np.isnan(found["pose_mm"][0, 3]).all()
    good = found["status"] == "ENOUGH"
    np.testing.assert_allclose(pose.limb_norm(found["pose_mm"][good]), 0.97 * 1400, rtol=1e-6)
    np.testing.assert_allclose(found["weights"][good].sum(axis=(1, 2)), 1)


def test_models_without_a_share_in_any_frame_are_left_out(program, monkeypatch):
    models, frames = importlib.import_module("pose_models"), importlib.import_module("pose_frames").cmu_frames()
    made = models.untrained(frames.truth, frames.average, "l2", 3)
    shares = {"model_share": np.array([[1.0, 0.0, 1e-20], [0.4, 0.0, 0.6]])}  # of two frames; one model is dead
    monkeypatch.setattr(models.Reconstruction, "_found", lambda self, output, frames, progress: (shares, None))
    pruned = made.pruned(frames)
    np.testing.assert_array_equal(pruned.model.bodies.mean, made.model.bodies.mean[[0, 2]])
    assert pruned.weights["joint_weights"].shape == (2, 34)
    shares["model_share"] = np.full((2, 3), 1 / 3)
    assert made.pruned(frames) is made


def test_files_that_are_none_and_models_of_the_other_kind_are_said_to_be(program, tmp_path, capsys):
    models = importlib.import_module("pose_models")
    truth, points = seen(60)
    data = written(tmp_path / "data.npz", det2d=points, cameras=RING.rotation)
    lacking = written(tmp_path / "lacking.npz", cameras=RING.rotation)
    (tmp_path / "short.npz").write_bytes(Path(data).read_bytes()[:2000])
    with open(tmp_path / "array.npz", "wb") as file:
        np.save(file, truth)
    made = models.untrained(truth, RING.rotation, "l2", 3)
    several = tmp_path / "several.npz"
    models.save_model(several, made.model, made.weights)
    one = ("--cameras", "monocular", "--model", str(several))
    for given, more, message in (
        (lacking, (), "has no array det2d; see docs/pose.md"),
        (tmp_path / "short.npz", (), "is no npz file of arrays"),
        (tmp_path / "array.npz", (), "is no npz file of arrays"),
        (data, one, "is a model of several cameras"),
    ):
        with pytest.raises(SystemExit) as left:
            program.main(
                ["reconstruct", str(given), "--joints", "h36m", "--out", str(tmp_path / "o.npz"), *FAST, *more]
            )
        said = capsys.readouterr().err
        assert left.value.code == 2 and message in said
        assert ("is no npz" in said) == ("is no npz" in message)


def test_what_was_learnt_of_cameras_is_for_the_same_rig_only(program):
    models = importlib.import_module("pose_models")
    truth, _ = seen(60)
    made = models.untrained(truth, RING.rotation, "l2", 3)
    learnt = models.Reconstruction(made.model, made.weights | {"cameras": np.full((4, 3, 3), 1.1)})
    assert learnt.for_rig(RING.rotation + 0.01) is learnt
    three = learnt.for_rig(RING.rotation[:3])
    assert np.array_equal(three.weights["cameras"], np.ones((3, 3, 3))) and len(three.model.average) == 3
    other = learnt.for_rig(np.roll(RING.rotation, 1, axis=0))
    assert other.weights["cameras"].max() == 1 and np.array_equal(other.model.average[1], RING.rotation[0])


@pytest.mark.parametrize(
    "arrays, arguments, message",
    [
        ({}, (), "has no array det2d"),
        ({"det2d": np.zeros((2, 4, 17, 2))}, (), "say --joints coco or --joints h36m"),
        ({"det2d": np.zeros((2, 4, 15, 2))}, (), r"det2d must be (N, C, 16 or 17, 2); it is (2, 4, 15, 2)"),
        ({"det2d": np.zeros((2, 4, 16, 2))}, (), "has no rotations of cameras: cam_R"),
        ({"det2d": np.zeros((2, 4, 16, 2)), "cameras": RING.rotation[:3]}, (), "cameras must be (..., 4, 3, 3)"),
        ({"det2d": np.zeros((2, 4, 16, 2)), "cameras": 2 * RING.rotation}, (), "cameras are no rotations"),
        ({"det2d": np.zeros((2, 4, 16, 2)), "cameras": RING.rotation, "visible": np.ones(3)}, (), "visible must be"),
        ({"det2d": np.zeros((2, 4, 16, 2)), "cameras": RING.rotation}, ("--joints", "coco"), "coco has 17 joints"),
        ({"det2d": np.zeros((2, 4, 16, 2)), "cameras": RING.rotation}, ("--size", "-1"), "--size -1.0 must be above 0"),
        ({"det2d": np.zeros((2, 4, 16, 2)), "cameras": RING.rotation}, ("--out", "no/where.npz"), "no such folder"),
    ],
)
def test_files_that_do_not_fit_are_refused_with_what_is_wrong(program, tmp_path, capsys, arrays, arguments, message):
    data = written(tmp_path / "data.npz", **arrays)
    with pytest.raises(SystemExit) as stopped:
        program.main(["reconstruct", data, "--out", str(tmp_path / "out.npz"), *FAST, *arguments])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and message in error and "Traceback" not in error


# ---------------------------------------------------------------------------------------------- evaluate, draw


@pytest.fixture
def judged(tmp_path: Path) -> str:
    """A file of two people: of one 60 poses, of the other 4 frames, in one of which nothing is seen."""
    truth, points = seen(64)
    points[63] = np.nan
    who = {"subject": np.repeat(["a", "b"], [60, 4]), "action": np.array(["walk", "wave"] * 32)}
    return written(tmp_path / "judged.npz", det2d=points, joints3d=truth, cameras=RING.rotation, **who)


def test_evaluation_counts_the_status_of_frames_and_takes_another_choice(program, judged, tmp_path):
    arguments = ["evaluate", judged, "--subject", "b", "--joints", "h36m", *FAST]
    soft = program.main(arguments)
    assert soft["status"] == {"ENOUGH": 3, "FEW_CAMERAS": 1} and soft["frames"] == 3
    assert set(soft["by_action"]) == {"walk", "wave"} and 10 < soft["euclidean_mm"] < 400
    lowest = program.main([*arguments, "--choice", "lowest", "--out", str(tmp_path / "lowest.npz")])
    assert lowest["euclidean_mm"] != soft["euclidean_mm"]
    found = arrays_of(tmp_path / "lowest.npz")
    assert found["status"].tolist() == ["ENOUGH"] * 3 + ["FEW_CAMERAS"]
    assert lowest["euclidean_mm"] == pytest.approx(np.nanmean(found["error_mm"]))


def test_options_that_the_file_of_a_model_settles_are_said_to_have_no_effect(program, judged, tmp_path, capsys):
    models = importlib.import_module("pose_models")
    made = models.untrained(seen(60)[0], RING.rotation, "l2", 3)
    file = tmp_path / "model.npz"
    models.save_model(file, made.model, made.weights)
    arguments = [
        "evaluate",
        judged,
        "--subject",
        "b",
        "--joints",
        "h36m",
        "--every-rotation",
        "50",
        "--model",
        str(file),
    ]
    plain = program.main(arguments)
    assert "no effect" not in capsys.readouterr().err
    assert program.main([*arguments, "--solver", "huber"]) == plain
    assert f"--solver has no effect, {file} says what it is" in capsys.readouterr().err


def test_figures_are_drawn_also_with_frames_that_have_no_pose(program, judged, tmp_path):
    figures, frames = (importlib.import_module(name) for name in ("pose_figures", "pose_frames"))
    some = frames.read_frames(Path(judged), "h36m").of("b")
    off = np.random.default_rng(0).normal(scale=30, size=(4, 17, 3))
    off[3] = np.nan
    truth = frames.centred(some.truth)
    found = {"untrained": truth + 2 * off, "trained": truth + off}
    curves = {"one": (np.arange(40), np.linspace(90, 50, 40)), "no history": (np.zeros(0), np.zeros(0))}
    paths = list(figures.draw_all(some, found, curves, tmp_path / "new"))
    assert [path.name for path in paths] == [
        f"pose_{name}.png" for name in ("skeletons", "joints", "actions", "learning")
    ]
    assert all(path.read_bytes()[:4] == b"\x89PNG" and path.stat().st_size > 5000 for path in paths)
    assert len(list(figures.draw_all(some, found, {}, tmp_path / "new"))) == 3


def test_skeletons_are_seen_from_where_the_title_says(program):
    figures = importlib.import_module("pose_figures")
    truth, _ = seen(1)
    body = figures._facing(truth[0] - truth[0].mean(axis=0), truth[0])
    right, left, head, hip = (body[pose.JOINTS.index(name)] for name in ("right hip", "left hip", "head", "hip"))
    assert right[0] > left[0] and abs(right[1] - left[1]) < 1e-6 and head[2] > hip[2]
    (axes, sign) = figures.VIEWS["from the front"]
    assert axes == (0, 2) and sign == -1  # who is looked at has the right side on the left


# ---------------------------------------------------------------------------------------------- train


def test_training_says_where_it_saves_and_a_run_that_was_stopped_is_not_lost(
    program, judged, tmp_path, capsys, monkeypatch
):
    """What is gone on from, and that it is whole: test_pose_training.py."""
    model, running = tmp_path / "model", tmp_path / "model.run"
    arguments = ["train", judged, "--joints", "h36m", "--without", "b", "--solver", "l2", "--model-out", str(model)]
    commands = importlib.import_module("pose_commands")

    def stopped(*_: Any, checkpoint: Path) -> Any:
        checkpoint.write_text("half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "learn", stopped)
    with pytest.raises(SystemExit) as end:
        program.main(arguments)
    said = capsys.readouterr()
    assert end.value.code == 130 and running.read_text() == "half of it" and not model.exists()
    assert f"saved to {running} while it learns" in said.out and "the same command goes on" in said.err

    def whole(made: Any, examples: Any, recipe: Any, *, checkpoint: Path) -> Any:
        assert checkpoint == running and len(examples.truth) == 30  # every second of 60
        history = SimpleNamespace(loss=np.array([90.0, 80.0]), steps=np.arange(2))
        return SimpleNamespace(history=history, steps=2, weights=made.weights())

    monkeypatch.setattr(commands, "learn", whole)
    assert program.main(arguments)["loss"] == 80.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["judged.npz", "model"]
    assert arrays_of(model)["history_loss"].tolist() == [90.0, 80.0]
    given = [*arguments, "--checkpoint", str(running)]  # a file that is asked for is kept
    running.write_text("whole")
    program.main(given)
    assert running.read_text() == "whole"


def test_hubers_penalty_is_learnt_at_its_minimum_or_through_the_authors_steps(program, judged, tmp_path, monkeypatch):
    asked: list[str] = []

    def learn(made: Any, examples: Any, recipe: Any, *, checkpoint: Path) -> Any:
        asked.append(made.solver)
        raise wb.InputError("enough")

    monkeypatch.setattr(importlib.import_module("pose_commands"), "learn", learn)
    train = ["train", judged, "--joints", "h36m", "--without", "b", "--model-out", str(tmp_path / "model")]
    for more in ((), ("--through", "steps"), ("--recipe", "paper"), ("--recipe", "paper", "--through", "minimum")):
        with pytest.raises(SystemExit):
            program.main([*train, *more])
    assert asked == ["huber", "steps", "steps", "huber"]


# ---------------------------------------------------------------------------------------------- in a notebook


def test_a_rig_of_ones_own_takes_ten_lines_in_a_notebook(monkeypatch, capsys):
    """With every 20th rotation, which is enough for the errors below."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    turns = pose.rotations(100, every=20)
    monkeypatch.setattr(pose, "MultiCamera", functools.partial(pose.MultiCamera, turns=turns))
    notebook = json.loads((EXAMPLES / "pose_rig.ipynb").read_text())
    cells = {cell["id"]: cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"}
    assert all(not cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    assert len(cells["a"]) <= 10 and len(cells["b"]) <= 10
    names: dict[str, Any] = {}
    for source in cells.values():
        exec("".join(source), names)
    of_a, of_b = (float(text) for text in re.findall(r"(\d+) mm", capsys.readouterr().out))
    assert of_a < 60 and of_b < 60
    assert names["status"].tolist() == [pose.Frame.FEW_CAMERAS] + [pose.Frame.ENOUGH] * 10
    assert np.isnan(names["poses"][0]).all() and np.isfinite(names["poses"][1:]).all()
