"""examples/fusion.py on made-up tracks: what it trains, evaluates, fuses, draws and converts."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import wiberg as wb
from wiberg.energies import fusion

EXAMPLE = Path(__file__).parents[2] / "examples" / "fusion.py"


def example() -> ModuleType:
    """The script as a module, imported once for all tests: most of its time would be spent on that."""
    if "fusion" not in sys.modules:
        sys.path.insert(0, str(EXAMPLE.parent))
    return importlib.import_module("fusion")


def succeed(folder: Path, *command: Any) -> str:
    output = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(output):
        example().main([str(part) for part in command])
    return output.getvalue()


def fail(folder: Path, *command: Any) -> str:
    """The message with which a command ends; anything but an exit is an error of the test."""
    output = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stderr(output), pytest.raises(SystemExit) as ended:
        example().main([str(part) for part in command])
    assert ended.value.code != 0
    return f"{output.getvalue()}{ended.value.code}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of tracks, and a model of its training part."""
    folder = tmp_path_factory.mktemp("fusion")
    np.savez(folder / "tracks.npz", **fusion.made_up_arrays(sequences=12, frames=40, trackers=8, seed=0))
    succeed(folder, "train", "tracks.npz", "--partition", "sequences", "--steps", 60, "--save", "model.npz")
    return folder


def changed(folder: Path, name: str, **changes: Any) -> Path:
    with np.load(folder / "tracks.npz") as file:
        arrays = {key: file[key] for key in file.files} | changes
    np.savez(folder / name, **{key: array for key, array in arrays.items() if array is not None})
    return folder / name


def iou(output: str) -> dict[str, Any]:
    found = json.loads(output.splitlines()[-1])
    assert set(found) == {"iou", "baselines"}
    return dict(found)


def test_the_learnt_fusion_beats_the_simple_ones_on_other_sequences(folder: Path) -> None:
    output = succeed(folder, "evaluate", "tracks.npz", "--model", "model.npz", "--partition", "sequences", "--json")
    found = iou(output)
    best = max(value for name, value in found["baselines"].items() if not name.startswith("oracle"))
    assert 1.0 > found["iou"] > best + 0.01
    assert "160 CONVERGED" in output
    tracks = fusion.Tracks.read(folder / "tracks.npz").part("sequences", "test")
    median = fusion.baselines(tracks, [])["median"]
    assert found["baselines"]["median"] == pytest.approx(float(fusion.overlap(median, tracks.known).mean()))


def test_all_frames_are_evaluated_without_a_partition(folder: Path) -> None:
    output = succeed(folder, "evaluate", "tracks.npz", "--model", "model.npz", "--sequences")
    assert "480 frames of 12 sequences, 8 trackers" in output
    assert len([line for line in output.splitlines() if line.startswith("  sequence ")]) == 12


def test_the_paper_s_energies_and_the_partition_by_frames(folder: Path) -> None:
    for energy in ("corners", "box"):
        command = ("train", "tracks.npz", "--partition", "frames", "--energy", energy, "--steps", 40)
        succeed(folder, *command, "--save", f"{energy}.npz")
        evaluate = ("evaluate", "tracks.npz", "--partition", "frames", "--json")
        found = iou(succeed(folder, *evaluate, "--model", f"{energy}.npz"))
        assert found["iou"] > found["baselines"]["median"]
        assert any("interpolated truth" in name for name in found["baselines"])


def test_training_goes_on_to_the_same_bits(folder: Path) -> None:
    command = ("train", "tracks.npz", "--partition", "all", "--steps", 30, "--save")
    succeed(folder, *command, "whole.npz")
    whole, tracks = wb.Learner.read_notes(folder / "whole.npz"), fusion.Tracks.read(folder / "tracks.npz")
    model = example().new_model(tracks, "box", "all", 0, {"steps": 30})
    model.learner.fit(lambda step: wb.Batch(**model.fusion.batch(tracks, step, 0)), steps=11, progress=False)
    model.learner.save(folder / "part.npz")
    assert model.learner.notes == whole
    assert "goes on from step 11" in succeed(folder, *command, "part.npz")
    one, other = (example().load(folder / name).learner.weights for name in ("whole.npz", "part.npz"))
    for name, weight in one.items():
        np.testing.assert_array_equal(weight, other[name])
    assert "another seed" in fail(folder, *command, "part.npz", "--seed", 1)


def test_a_model_is_a_checked_file_without_pickle(folder: Path) -> None:
    with np.load(folder / "model.npz", allow_pickle=False) as file:
        assert json.loads(bytes(file["header.json"]))["notes"]["trackers"][0] == "tracker 0"
    (folder / "broken.npz").write_bytes((folder / "model.npz").read_bytes()[:-10])
    assert "broken.npz" in fail(folder, "evaluate", "tracks.npz", "--model", "broken.npz")


def test_trackers_are_known_by_name(folder: Path) -> None:
    names = np.load(folder / "tracks.npz")["tracker_names"]
    boxes, valid = np.load(folder / "tracks.npz")["boxes"], np.load(folder / "tracks.npz")["valid"]
    order = np.array([5, 0, 3, 1, 7, 6, 4, 2])
    changed(folder, "shuffled.npz", boxes=boxes[:, order], valid=valid[:, order], tracker_names=names[order])
    one, other = (
        iou(succeed(folder, "evaluate", file, "--model", "model.npz", "--json"))["iou"]
        for file in ("tracks.npz", "shuffled.npz")
    )
    assert one == pytest.approx(other, abs=1e-9)
    changed(folder, "fewer.npz", boxes=boxes[:, 2:], valid=valid[:, 2:], tracker_names=names[2:])
    assert "6 trackers" in succeed(folder, "evaluate", "fewer.npz", "--model", "model.npz")
    changed(folder, "other.npz", tracker_names=np.array([*names[:-1], "stranger"]))
    assert "does not know 1 of the trackers: stranger" in fail(folder, "evaluate", "other.npz", "--model", "model.npz")


def test_fused_boxes_have_a_status_and_missing_ones_no_number(folder: Path) -> None:
    boxes, valid = np.load(folder / "tracks.npz")["boxes"].copy(), np.load(folder / "tracks.npz")["valid"].copy()
    boxes[3], boxes[4, :, 2], valid[5] = np.nan, 0.0, False  # no tracker, none with an area, none that is valid
    boxes[6, 1:] = np.nan  # one is left
    changed(folder, "holes.npz", boxes=boxes, valid=valid, gt=None, split_seq=None, split_random=None)
    output = succeed(folder, "fuse", "holes.npz", "--model", "model.npz", "--out", "boxes.npz")
    assert "3 NOT_FINITE" in output
    with np.load(folder / "boxes.npz") as file:
        fused, status = file["boxes"], file["status_names"][file["status"]]
    assert np.isnan(fused[3:6]).all() and (status[3:6] == "NOT_FINITE").all()
    assert np.isfinite(np.delete(fused, [3, 4, 5], axis=0)).all()
    assert (np.delete(status, [3, 4, 5]) == "CONVERGED").all()
    succeed(folder, "fuse", "tracks.npz", "--model", "model.npz", "--out", "whole.npz")
    with np.load(folder / "whole.npz") as file:
        whole = file["boxes"]
    np.testing.assert_array_equal(np.delete(whole, range(3, 7), axis=0), np.delete(fused, range(3, 7), axis=0))


@pytest.mark.parametrize("energy", ["box", "corners"])
def test_figures_are_drawn(folder: Path, energy: str) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    succeed(folder, "train", "tracks.npz", "--energy", energy, "--steps", 20, "--save", f"drawn_{energy}.npz")
    output = succeed(folder, "draw", "tracks.npz", "--model", f"drawn_{energy}.npz", "--out", energy)
    assert len(output.splitlines()) == 3
    assert all((folder / path).stat().st_size > 10_000 for path in output.splitlines())
    assert "frames 0 to 479" in fail(folder, "draw", "tracks.npz", "--model", f"drawn_{energy}.npz", "--frame", 480)


def test_a_benchmark_is_converted_and_fused(folder: Path) -> None:
    tracks = fusion.Tracks.read(folder / "tracks.npz")
    for s in range(2):
        rows = np.flatnonzero(tracks.sequence == s)
        true = np.concatenate([tracks.first[rows[:1]], tracks.known[rows]])
        (folder / "truth" / f"s{s}").mkdir(parents=True, exist_ok=True)
        np.savetxt(folder / "truth" / f"s{s}" / "groundtruth.txt", true, delimiter=",")
        for k, name in enumerate(tracks.names):
            path = folder / "results" / name / f"s{s}"
            path.mkdir(parents=True, exist_ok=True)
            np.savetxt(path / f"s{s}_001.txt", np.concatenate([true[:1], tracks.boxes[rows, k]]), delimiter=",")
    command = ("convert", "--format", "got10k", "--results", "results", "--truth", "truth", "--out", "made.npz")
    assert "80 frames of 2 sequences, 8 trackers; 0.00 %" in succeed(folder, *command)
    assert iou(succeed(folder, "evaluate", "made.npz", "--model", "model.npz", "--json"))["iou"] > 0.5


def test_frames_without_a_true_box_do_not_count(folder: Path) -> None:
    known = np.load(folder / "tracks.npz")["gt"].copy()
    known[[3, 200]] = 0
    changed(folder, "unseen.npz", gt=known)
    output = succeed(folder, "evaluate", "unseen.npz", "--model", "model.npz", "--json")
    assert "478 frames of 12 sequences" in output and "2 frames without a true box are left out" in output
    succeed(folder, "train", "unseen.npz", "--steps", 5, "--save", "unseen_model.npz")
    assert "480 boxes" in succeed(folder, "fuse", "unseen.npz", "--model", "model.npz", "--out", "x.npz")


def test_which_sequence_a_frame_is_of_is_not_seen(folder: Path) -> None:
    """Frames in another order, of sequences in another order, without truth: each has the bits that it had."""
    arrays = dict(np.load(folder / "tracks.npz"))
    order = np.random.default_rng(0).permutation(480)
    moved = {key: arrays[key][order] for key in ("boxes", "valid", "frame")}
    moved |= {key: arrays[key][::-1] for key in ("seq_len", "seq_init")}
    gone = dict.fromkeys(("gt", "seq_names", "split_seq", "split_random"))
    changed(folder, "moved.npz", **moved, seq=11 - arrays["seq"][order], **gone)
    for file in ("tracks", "moved"):
        succeed(folder, "fuse", f"{file}.npz", "--model", "model.npz", "--out", f"{file}_boxes.npz")
    one, other = (np.load(folder / f"{file}_boxes.npz")["boxes"] for file in ("tracks", "moved"))
    np.testing.assert_array_equal(one[order], other)


def test_training_is_saved_at_ctrl_c(folder: Path) -> None:
    command = [sys.executable, "-u", str(EXAMPLE), "train", "tracks.npz", "--steps", "100000", "--save", "stopped.npz"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "8 trackers" in process.stdout.readline()  # what is left to do are steps
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said
    steps = example().load(folder / "stopped.npz").learner.steps
    assert f"stopped after {steps} steps; the same command goes on there" in said and steps > 0


def test_it_runs_as_a_script(folder: Path) -> None:
    command = [sys.executable, str(EXAMPLE), "fuse", "tracks.npz", "--model", "model.npz", "--out", "script.npz"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and "480 boxes; 480 CONVERGED" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("train", "nowhere.npz", "--save", "x.npz"), "nowhere.npz: no such file"),
        (("evaluate", "tracks.npz", "--model", "nowhere.npz"), "nowhere.npz: no such file; make a model"),
        (("evaluate", "tracks.npz", "--model", "."), "no such file; make a model"),
        (("train", "tracks.npz", "--save", "nowhere/x.npz"), "no such folder"),
        (("train", "tracks.npz", "--save", "."), "a folder"),
        (("train", "tracks.npz", "--save", "x.npz", "--seed", -1), "0 or more (got '-1')"),
        (("train", "tracks.npz", "--save", "x.npz", "--steps", "many"), "0 or more (got 'many')"),
        (("fuse", "tracks.npz", "--model", "model.npz", "--out", "nowhere/x.npz"), "nowhere/x.npz"),
        (("evaluate", "tracks.npz", "--model", "tracks.npz"), "tracks.npz"),
        (("train", "tracks.npz", "--partition", "halves", "--save", "x.npz"), "invalid choice: 'halves'"),
        (("convert", "--format", "vot", "--results", "none", "--truth", "none", "--out", "x.npz"), "no such folder"),
    ],
)
def test_what_cannot_be_done_is_said(folder: Path, command: tuple[str, ...], message: str) -> None:
    assert message in fail(folder, *command)
