"""The examples run, and say what they promise."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
TRACKS = Path(os.environ.get("WIBERG_SHARED", EXAMPLES.parents[1] / "shared")) / "data" / "tracking" / "otb100.npz"

WITH_TRACKS = pytest.mark.skipif(not TRACKS.is_file(), reason="the shared tracker outputs are not here")


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / command[0]), *command[1:]], cwd=folder, capture_output=True, text=True
    )


def succeed(folder: Path, *command: str) -> str:
    done = run(folder, *command)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_quickstart_learns(tmp_path: Path) -> None:
    before, after = (float(text) for text in re.findall(r"learning: ([\d.]+)", succeed(tmp_path, "quickstart.py")))
    assert after < before / 4
    assert (tmp_path / "output" / "quickstart.png").stat().st_size > 1000


def test_quickstart_is_short() -> None:
    assert len((EXAMPLES / "quickstart.py").read_text().splitlines()) <= 40


def test_ill_posed_energy_is_learnt_through(tmp_path: Path) -> None:
    output = succeed(tmp_path, "ill_posed.py")
    assert "quadratic: True" in output and "100 CONVERGED" in output
    assert re.search(r"undamped: .* singular Hessian .* its minimum has no derivative", output)
    before, after, error = (float(text) for text in re.findall(r"([\d.]+e[+-]\d+)(?: before| after|\n)", output))
    assert before > 1 and after < 1e-20 and error < 1e-10


def test_paths_are_drawn(tmp_path: Path) -> None:
    output = succeed(tmp_path, "paths.py")
    assert output.count("CONVERGED") == 3
    assert (tmp_path / "output" / "path.png").stat().st_size > 10_000


def test_what_is_learnt_is_seen(tmp_path: Path) -> None:
    output = succeed(tmp_path, "seeing.py")
    across, up = (float(text) for text in re.findall(r"w\[\d\](?: \(log\))? +([\d.]+)", output))
    assert across > 2 * up > 1.0  # points spread four times as far across as up
    for name in ("landscape.png", "movement.png", "report.html"):
        assert (tmp_path / "output" / name).stat().st_size > 10_000


def test_variable_projection_takes_fewer_steps_to_the_same_minimum(tmp_path: Path) -> None:
    output = succeed(tmp_path, "variable_projection.py")
    joint, projected = (int(text) for text in re.findall(r"CONVERGED, .* (\d+) iterations", output))
    assert projected < joint / 2
    assert float(re.findall(r"derivatives differ by (\S+)", output)[0]) < 1e-8
    assert (tmp_path / "output" / "variable_projection.png").stat().st_size > 10_000


def test_ransac_compares_three_learners_and_draws_all_figures(tmp_path: Path) -> None:
    small = ("--steps", "60", "--seeds", "1", "--bank", "200", "--field", "50", "--processes", "1")
    output = succeed(tmp_path, "ransac.py", *small, "--json")
    rows = re.findall(r"^ *(damped|undamped|selection) +(2|4|8|20|40|all) +([\d.]+) ", output, re.MULTILINE)
    assert len(rows) == 18
    for instead in ("", ", one Newton step in place of the minimum"):
        assert len(re.findall(rf"0\.0001, (?:un)?damped{instead}: \d+ of 8 runs went beyond", output)) == 2
    runs = json.loads(output.splitlines()[-1])["runs"]
    assert len(runs) == 15
    assert all(set(run) == {"learner", "start", "seed", "sigma", "loss"} for run in runs)
    names = {f"ransac_{name}.png" for name in ("prediction", "learning", "selection")}
    assert {path.name for path in (tmp_path / "output").iterdir()} == names


def test_selection_leaves_the_distractor(tmp_path: Path) -> None:
    output = succeed(tmp_path, "distractor.py", "--steps", "250", "--widths", "1", "0.15")
    found = {row[:2]: float(row[2]) for row in re.findall(r"(\w+) +widths ([\d.]+) +loss ([\d.]+)", output)}
    assert found["damped", "0.15"] > 5.0
    assert found["selection", "0.15"] < 2.0
    assert found["selection", "1"] < 0.8


def test_claims_of_the_paper(tmp_path: Path) -> None:
    output = succeed(tmp_path, "claims.py", "newton", "bound", "programme")
    slopes = re.search(r"log-log slopes ([\d.]+), ([\d.]+)", output)
    assert slopes is not None
    assert [float(slope) for slope in slopes.groups()] == pytest.approx([2.0, 1.0], abs=0.03)
    by_equation, shifted = (float(x) for x in re.findall(r"any points.* most (\S+) by .*, (\S+) with", output)[0])
    assert by_equation > 10 and shifted <= 1.0
    squares, quadratic = re.findall(r"g by (\S+), from -\(H\^2 \+ m I\)\^-1 H g by (\S+)", output)
    assert float(squares[0]) > 0.01 > float(squares[1])
    assert float(quadratic[1]) > 0.01 > float(quadratic[0])


def test_claims_that_are_learnt(tmp_path: Path) -> None:
    output = succeed(tmp_path, "claims.py", "adaptive", "damping", "--steps", "1000")
    ends = {
        (name, float(rate)): [float(x) for x in re.findall(r"[\d.]+(?=   |,|  $|$)", rest)]
        for name, rate, rest in re.findall(r"^ *(Adam|Adadelta|SGD) +(\S+) +(.*)$", output, re.MULTILINE)
    }
    assert len(ends) == 5 and all(len(sigma) == 9 for sigma in ends.values())
    paper, slow = ends["SGD", 1e-5], ends["Adam", 1e-3]
    # from 40 the paper's moves, Adam at its usual rate hardly does
    assert 40 - paper[8] > 3 > 1 > 40 - slow[8]
    shares = [float(x) for x in re.findall(r"steps .* sigma .*: +(\S+) %", output)]
    assert len(shares) == 5 and shares[0] == 0.0


@pytest.mark.parametrize("file", ["", pytest.param(str(TRACKS), marks=WITH_TRACKS)], ids=["made up", "real"])
def test_confidences_are_learnt_through_the_minimum(tmp_path: Path, file: str) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed; make setup-frameworks")
    output = succeed(tmp_path, "confidences.py", *([file] if file else []), "--steps", "100")
    assert file or "no file of tracker outputs is given; learning from made-up ones" in output
    found = {name: float(value) for name, value in re.findall(r"^  (\D+?) +(0\.\d+)$", output, re.MULTILINE)}
    assert found["learnt confidences"] > found["all trusted alike"] + 0.02
    assert found["learnt confidences"] > found["median of the boxes"] > found["mean of the boxes"]


def test_pose_reconstructs_a_frame_of_the_cmu_sample(tmp_path: Path) -> None:
    output = succeed(tmp_path, "pose.py", "sample", "--solver", "l2", "--json", "--out", "out.npz")
    errors = json.loads(output.splitlines()[-1])["errors_mm"]
    assert len(errors) == 3 and max(errors) < 100
    with np.load(tmp_path / "out.npz") as file:
        assert file["pose_mm"].shape == (17, 3) and file["energies"].shape == file["weights"].shape == (3, 100)
        assert np.isclose(file["weights"].sum(), 1.0)
        assert file["base_vectors"].shape == (3, 25, 3, 17) and np.abs(file["base_vectors"]).max() > 0
        assert file["sigma_variance"].shape == (3, 29, 29) and file["hl_param"].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("sample", "--parameters", "trained"), "give POSE_DATA.npz"),
        (("sample", "nothing.npz"), "nothing.npz: no such file"),
        (("evaluate", "--model", "trained"), "give --bodies"),
        (("evaluate", "--subject", "S8"), "no subject 'S8' in CMU; it has S1, S2, S3"),
        (("evaluate", "--model", "nothing.npz"), "nothing.npz: no such file"),
    ],
)
def test_pose_says_what_it_needs(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run(tmp_path, "pose.py", *arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_pose_learns_from_calibrated_cameras(tmp_path: Path) -> None:
    succeed(tmp_path, "pose.py", "train", "--model", "b", "--components", "1", "--epochs", "1", "--model-out", "b.npz")
    found = json.loads(succeed(tmp_path, "pose.py", "evaluate", "--model", "b.npz", "--json").splitlines()[-1])
    rows = found["table"]
    assert found["euclidean_mm"] == rows["energy, learnt; bones of a person shared"][0] < rows["energy, learnt"][0] + 1
    assert rows["energy, learnt"][0] < rows["energy, L and o in closed form"][0] < 40
    assert rows["energy, learnt"][0] < rows["robust triangulation and ridge regression"][0]
    assert 0 < found["uncertainty"]["coverage"]["0.5"] < found["uncertainty"]["coverage"]["0.9"] < 1
    succeed(tmp_path, "pose_calibrated.py", "reconstruct", "--model", "b.npz", "--out", "poses.npz")
    with np.load(tmp_path / "poses.npz") as file:
        assert np.isfinite(file["pose_mm"][file["status"] == "ENOUGH"]).all()
        assert 5 < np.nanmedian(file["deviation_mm"]) < 100


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("evaluate", "--model", "nothing.npz"), "nothing.npz"),
        (("train", "nothing.npz", "--model-out", "b.npz"), "nothing.npz: no such file"),
        (("train", "--without", "S9", "--model-out", "b.npz"), "no subject S9 in CMU; it has S1, S2, S3"),
    ],
)
def test_pose_of_calibrated_cameras_says_what_it_needs(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = run(tmp_path, "pose_calibrated.py", *arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
