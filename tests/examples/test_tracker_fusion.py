"""benchmarks/tracker_fusion.py in its smallest form: every command, on made-up tracks, with presets of a few steps."""

from __future__ import annotations

import argparse
import importlib
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import wiberg as wb
from wiberg.energies import fusion

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    for kind in (fusion.BoxFusion, fusion.CornerFusion):
        few = {name: replace(settings, steps=25, batch=16) for name, settings in kind.presets.items()}
        monkeypatch.setattr(kind, "presets", few)
    return importlib.import_module("tracker_fusion")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tracks") / "tracks.npz"
    np.savez(path, **fusion.made_up_arrays(sequences=6, frames=12, trackers=5, seed=0))
    return path


def rows(capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    """The mean of each row that was printed, by name."""
    lines = capsys.readouterr().out.splitlines()
    found = (re.match(r" {2}(\S.*?) {2,}(\d\.\d{4})", line) for line in lines)
    return {row[1]: float(row[2]) for row in found if row}


def test_figures(benchmark: ModuleType, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.figures(file, argparse.Namespace())
    output = capsys.readouterr().out
    test = fusion.Tracks.read(file).part("frames", "test")
    median = fusion.overlap(fusion.baselines(test, [])["median"], test.known).mean()
    by_sequence, by_frame = output.split("by frames")
    assert f"{median:.4f}" in by_frame and "interpolated" in by_frame and "interpolated" not in by_sequence
    for name in ("paper's corners", "box, new sequences", "box, same sequences, other frames", "oracle"):
        assert f"  {name} " in by_sequence and f"  {name} " in by_frame
    assert output.count("less the median") == 2 * 6


def test_ablations(benchmark: ModuleType, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everything = fusion.Tracks.read(file)
    train, test = everything.part("sequences", "train"), everything.part("sequences", "test")
    benchmark.ablations(file, argparse.Namespace(partition="sequences", seeds=1))
    found = rows(capsys)
    assert len(found) == len(list(benchmark.variants(train))) and all(0.5 < value < 1 for value in found.values())
    learnt = benchmark.overlaps(benchmark.trained(fusion.BoxFusion(train), train, 0), test).mean()
    assert found["preset"] == found["box, damping 0.1"] == pytest.approx(learnt, abs=1e-4)
    assert found["before learning"] != found["preset"]
    fixed = benchmark.trained(fusion.BoxFusion(train), train, 0, benchmark.SIZE).learner.weights
    assert all((fixed[name] == 0).all() for name in benchmark.SIZE) and (fixed["stubs"] != 0).all()


def test_undamped(benchmark: ModuleType, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.undamped(file, argparse.Namespace(runs=2))
    output = capsys.readouterr().out
    assert output.count("of 2 runs 0 broke off") == 4
    assert "damping 0, same settings" in output and "damping 0.1, step times" in output


def test_a_run_that_breaks_off_is_counted(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark._report("made up", [float("nan"), 0.5, 0.25], start=0.4)
    assert "0.3750 (0.2500 to 0.5000); of 3 runs 1 broke off, 1 ended below" in capsys.readouterr().out


def test_choices_see_the_training_part_only(
    benchmark: ModuleType, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = fusion.Tracks.read(file).part("sequences", "train")
    for inner, held in benchmark.folds(train):
        assert not set(inner.group.tolist()) & set(held.group.tolist())
        assert len(inner) + len(held) == len(train)
    assert sum(len(held) for _, held in benchmark.folds(train)) == len(train)
    judged: list[int] = []

    def overlaps(model: Any, tracks: fusion.Tracks) -> Any:
        judged.extend(tracks.sequence.tolist())
        return fusion.overlap(model.fuse(tracks)[0], tracks.known)

    monkeypatch.setattr(benchmark, "overlaps", overlaps)
    monkeypatch.setattr(benchmark, "CHOICES", {"preset": {}, "dropout 0": {"dropout": 0.0}})
    benchmark.choose(file, argparse.Namespace())
    assert list(rows(capsys)) == ["preset", "dropout 0", "corners"]
    assert set(judged) == set(train.sequence.tolist())


def test_speed(benchmark: ModuleType, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        benchmark.speed(file, argparse.Namespace())
    finally:
        wb.set_threads(None)
    output = capsys.readouterr().out
    assert output.count("frames a second") == 2 and output.count("training, ") == 2
