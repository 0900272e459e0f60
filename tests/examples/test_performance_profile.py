"""What benchmarks/performance_profile.py makes of runs: ratios, tables and a figure."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from more_garbow_hillstrom import PROBLEMS
from more_garbow_hillstrom.runs import OURS, Run

FOLDER = Path(__file__).parents[2] / "benchmarks"
NAMES = ["quick", "slow", "rare"]


@pytest.fixture(scope="module")
def profile() -> Iterator[ModuleType]:
    before = list(sys.path)
    sys.path.insert(0, str(FOLDER))
    import performance_profile

    yield performance_profile
    sys.path[:] = before
    del sys.modules["performance_profile"]


@pytest.fixture
def found() -> dict[Any, Run]:
    """The quick one takes 4 steps, the slow one 12, the rare one solves the first problem alone, in 2."""
    runs = {}
    for problem in PROBLEMS:
        runs["quick", 1, problem.number] = Run(0.0, 4, 5, "", True)
        runs["slow", 1, problem.number] = Run(0.0, 12, 30, "", True)
        runs["rare", 1, problem.number] = Run(0.0, 2, 3, "", problem.number == 1)
    return runs


def test_ratios_are_over_the_best_that_solved(profile: ModuleType, found: dict[Any, Run]) -> None:
    ratios = profile.ratios(found, NAMES, lambda run: run.steps)
    assert ratios[:, 0].tolist() == [2.0, 6.0, 1.0]
    assert ratios[:, 1].tolist() == [1.0, 3.0, np.inf]


def test_totals_compare_on_problems_that_both_solve(profile: ModuleType, found: dict[Any, Run]) -> None:
    table = profile.totals(found, NAMES, (1,)).splitlines()
    assert table[2:] == [
        "| 1 x start | quick | 35 of 35 | 140 | 175 |  |",
        "| 1 x start | slow | 35 of 35 | 420 | 1050 | 140 / 175 |",
        "| 1 x start | rare | 1 of 35 | 2 | 3 | 4 / 5 |",
    ]


def test_each_problem_has_a_row(profile: ModuleType, found: dict[Any, Run]) -> None:
    rows = profile.each_problem(found, NAMES).splitlines()
    assert rows[2] == "| 1 Rosenbrock | 2 | 2 | 4 / 5 | 12 / 30 | 2 / 3 |"
    assert rows[3].endswith("| no |")
    assert len(rows) == 2 + 35


def test_figure_is_drawn(profile: ModuleType, found: dict[Any, Run], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    profile.draw(found, NAMES, tmp_path / "profile.png")
    assert (tmp_path / "profile.png").stat().st_size > 10_000


def test_every_method_of_minimise_is_compared_and_what_is_left_out_is_named(
    profile: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without JAX, also because a process that has loaded it should not fork."""
    monkeypatch.setitem(sys.modules, "jax", None)
    names = list(profile.methods())
    assert names == [f"wiberg {m}" for m in OURS] + ["SciPy trust-exact", "SciPy trust-krylov", "SciPy BFGS"]
    assert "JAX and optimistix are left out" in capsys.readouterr().out
