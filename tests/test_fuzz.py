"""`make fuzz` itself: it finds a fault that is put in, makes it small, and writes a file that shows it."""

from __future__ import annotations

import os
import random
import runpy
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fuzz
import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from reproducer import IMPORTS, Case, Finding, declared, examine, shrunk, simpler, write
from scipy.sparse import csr_array
from wiberg.compiler.passes import differentiate
from wiberg.compiler.program.expression import mul, number
from wiberg.compiler.program.primitives import PRIMITIVES
from wiberg.compiler.testing import random_energy

n = sp.Symbol("n", integer=True, positive=True)
i = sp.Idx("i", n)
x, y = sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("y", shape=(n,))
t = sp.Symbol("t", real=True)


@pytest.fixture
def wrong_tangent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The derivative of atan is wrong by a tenth."""
    row = PRIMITIVES["atan"]
    partials = row.partials
    wrong = replace(row, partials=lambda node, *args: tuple(mul(number(1.1), p) for p in partials(node, *args)))
    monkeypatch.setitem(differentiate.PRIMITIVES, "atan", wrong)


def seeds_with(piece: str) -> Iterator[int]:
    return (s for s in range(1, 1000) if s % 4 and piece in str(random_energy(random.Random(s)).expression))


def test_seeds_without_a_fault_are_right(tmp_path: Path) -> None:
    assert [fuzz.check_seed(s, 0, str(tmp_path)).verdict for s in range(8)].count("right") >= 7
    assert not list(tmp_path.iterdir())


def test_one_seed_in_so_many_goes_through_machine_code(tmp_path: Path) -> None:
    assert fuzz.check_seed(7, 8, str(tmp_path)).compiled
    assert not fuzz.check_seed(6, 8, str(tmp_path)).compiled


def test_a_fault_is_found_shrunk_and_written_as_a_file_that_shows_it(wrong_tangent: None, tmp_path: Path) -> None:
    results = (fuzz.check_seed(seed, 0, str(tmp_path)) for seed in seeds_with("atan("))
    assert next(r for r in results if r.verdict != "right").verdict == "wrong"
    (file,) = tmp_path.iterdir()
    text = file.read_text()
    expression = next(line for line in text.splitlines() if line.startswith("expression = "))
    assert "atan(" in expression and len(expression) < 60, expression
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(file))
    assert ended.value.code == 1


def test_a_reproducer_runs_by_itself_and_is_right_once_the_fault_is_mended(tmp_path: Path) -> None:
    energy = wb.Energy(sp.Sum(sp.atan(x[i] - t), i), variables=[t], data=[x], name="mended")
    points = [{"t": np.array(0.5), "x": np.array([1.0, 2.0])}]
    path = write(tmp_path / "case.py", energy, points, Finding("wrong", "gradient", "numbers"), 3, None)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "all derivatives agree" in done.stdout


def test_a_crash_of_the_compiler_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def partials(*arguments: object) -> object:
        raise TypeError("a rule that breaks")

    monkeypatch.setitem(differentiate.PRIMITIVES, "atan", replace(PRIMITIVES["atan"], partials=partials))
    results = (fuzz.check_seed(seed, 0, str(tmp_path)) for seed in seeds_with("atan("))
    crash = next(r for r in results if r.verdict != "right")
    assert crash.verdict == "crashed" and "a rule that breaks" in crash.text
    (file,) = tmp_path.iterdir()
    expression = next(line for line in file.read_text().splitlines() if line.startswith("expression = "))
    assert "atan(" in expression and len(expression) < 60, expression


def test_shrinking_keeps_what_fails_and_nothing_else() -> None:
    case = Case(sp.Sum(sp.exp(x[i] * t) + sp.sin(t) ** 2, i) + sp.cos(t), (), ((t,), (), (x,)), {"t": np.array(0.123)})
    small = shrunk(case, lambda c: c.expression.has(sp.sin))
    assert small.expression == sp.sin(t) or small.expression in (sp.sin(1), sp.sin(0))
    assert small.point["t"] in (0.0, 0.1, 0.12)


def test_every_simpler_expression_is_another_one() -> None:
    expression = sp.Sum(sp.Piecewise((sp.exp(x[i]), x[i] > t), (t, True)), i) ** 2
    found = list(simpler(expression))
    assert len(found) > 5 and expression not in found


@pytest.mark.parametrize("seed", range(25))
def test_a_random_energy_written_as_source_comes_back_equal(seed: int) -> None:
    energy = random_energy(random.Random(seed))
    text = declared(energy)
    assert text is not None
    namespace: dict[str, object] = {}
    exec(f"{IMPORTS}\nimport sympy as sp\nimport wiberg as wb\n{text}", namespace)
    assert namespace["energy"] == energy


def test_a_derivative_across_a_kink_is_no_finding() -> None:
    energy = wb.Energy(sp.Piecewise((1, t > 0), (0, True)) + t**2, variables=[t])
    kernel = wb.compile(energy, backend="reference")
    assert examine(kernel, [{"t": np.array(0.0)}]).verdict == "skipped"


def test_the_command_counts_and_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["4", "--start", "8", "--jobs", "1", "--machine-code-every", "0", "--folder", str(tmp_path)]
    before = dict(os.environ)
    assert fuzz.main(arguments) == 0
    assert dict(os.environ) == before  # the cache of a run is that of its processes only
    out = capsys.readouterr().out
    assert "4 energies (seeds 8 to 11)" in out and "go on with --start 12" in out


def test_sparse_results_are_compared_as_numbers():
    matrices = [csr_array(np.diag([1.0, 2.0])), csr_array(np.diag([3.0, 0.0]))]
    assert fuzz.flat((1.5, np.zeros(2), matrices[0])).tolist() == [1.5, 0, 0, 1, 0, 0, 2]
    assert fuzz.flat(matrices).tolist() == [1, 0, 0, 2, 3, 0, 0, 0]
