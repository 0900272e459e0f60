"""The shell: what it prints, its exit codes, and its errors for files and names that are not there."""

import os
import subprocess
import sys

import numpy as np
import pytest
import wiberg as wb
from wiberg.compiler import testing
from wiberg.compiler.machine_code import cache
from wiberg.learn.shell import command
from wiberg.learn.shell.command import main

MODEL = """
import sympy as sp
import wiberg as wb
from helper import CENTRE

t, a = sp.Symbol("t", real=True), sp.Symbol("a", positive=True)
energy = wb.Energy(a * (t - CENTRE) ** 2 + sp.log(t), variables=[t], weights=[a], name="parabola")
kernel = wb.compile(energy, backend="reference")
number = 3
def make():
    return energy
def needs(argument):
    return energy
if __name__ == "__main__":
    raise SystemExit("this must not run")
"""


@pytest.fixture
def model(tmp_path):
    (tmp_path / "helper.py").write_text("CENTRE = 2\n")
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    yield path
    sys.modules.pop("helper", None)


def refused(capsys, *arguments):
    """The error of a command that is refused, without a traceback."""
    assert main(list(arguments)) == 2
    out, errors = capsys.readouterr()
    assert out == "" and "Traceback" not in errors
    return errors


# ---------------------------------------------------------------------------------------------- explain and check


@pytest.mark.parametrize("name", ["energy", "kernel", "make"])
def test_explain_shows_the_program_and_its_cost(name, model, capsys):
    assert main(["explain", f"{model}:{name}", "--backend", "reference"]) == 0
    out = capsys.readouterr().out
    assert "parabola" in out and "value = " in out and "flops" in out


def test_explain_finds_what_is_not_finite_at_a_point(model, tmp_path, capsys):
    np.savez(tmp_path / "point.npz", t=-1.0, a=2.0)
    assert main(["explain", f"{model}:energy", "--backend", "reference", "--at", str(tmp_path / "point.npz")]) == 1
    assert "log(t) = nan" in capsys.readouterr().out


def test_check_of_right_derivatives_ends_with_0(model, capsys):
    assert main(["check", f"{model}:energy", "--trials", "2", "--backend", "reference"]) == 0
    assert "all derivatives agree" in capsys.readouterr().out


def test_check_of_a_wrong_derivative_ends_with_1(model, capsys, monkeypatch):
    original = testing._Reference.gradient
    monkeypatch.setattr(testing._Reference, "gradient", lambda self, entries: original(self, entries) + 1e-3)
    assert main(["check", f"{model}:energy", "--trials", "1", "--backend", "reference"]) == 1
    assert "WRONG" in capsys.readouterr().out


def test_the_only_energy_of_a_file_needs_no_name(tmp_path, capsys):
    path = tmp_path / "only.py"
    path.write_text("import sympy as sp, wiberg as wb\nt = sp.Symbol('t')\nE = wb.Energy(t**2, variables=[t])\n")
    assert main(["explain", str(path), "--backend", "reference"]) == 0


# ---------------------------------------------------------------------------------------------- errors


def test_a_file_that_is_not_there_is_named(tmp_path, capsys):
    assert "nowhere.py does not exist" in refused(capsys, "explain", f"{tmp_path}/nowhere.py:energy")


def test_a_folder_is_no_file(tmp_path, capsys):
    assert "is a folder" in refused(capsys, "check", f"{tmp_path}:energy")


def test_a_name_that_is_not_there_is_named_with_the_nearest(model, capsys):
    errors = refused(capsys, "explain", f"{model}:energi")
    assert "'energi'" in errors and "did you mean 'energy'?" in errors and "energy, kernel" in errors


@pytest.mark.parametrize(("name", "kind"), [("number", "int"), ("needs", "function"), ("sp", "module")])
def test_a_name_that_is_no_energy_is_named_with_its_type(name, kind, model, capsys):
    errors = refused(capsys, "explain", f"{model}:{name}")
    assert repr(name) in errors and kind in errors and "wb.Energy" in errors


def test_several_energies_need_a_name(model, capsys):
    assert "energy, kernel" in refused(capsys, "explain", str(model))


def test_a_name_that_is_no_python_name_is_refused(model, capsys):
    assert "'an energy'" in refused(capsys, "explain", f"{model}:an energy")


@pytest.mark.parametrize(("text", "pieces"), [
    ("x = 1\ny = x/0\n", ["line 2", "ZeroDivisionError"]),
    ("x = (\n", ["line 1", "SyntaxError"]),
    ("import no_such_module_here\n", ["line 1", "ModuleNotFoundError", "no_such_module_here"]),
])  # fmt: skip
def test_a_file_that_cannot_be_run_is_named_with_the_line(text, pieces, tmp_path, capsys):
    path = tmp_path / "broken.py"
    path.write_text(text)
    errors = refused(capsys, "check", f"{path}:energy")
    assert all(piece in errors for piece in ["broken.py", *pieces])


def test_a_declaration_that_is_refused_says_why(tmp_path, capsys):
    path = tmp_path / "wrong.py"
    path.write_text("import sympy as sp, wiberg as wb\nt = sp.Symbol('t')\nenergy = wb.Energy(t**2, variables=[])\n")
    assert "no variables" in refused(capsys, "check", f"{path}:energy")


def test_a_file_that_is_no_point_is_named(model, capsys):
    errors = refused(capsys, "explain", f"{model}:energy", "--at", str(model))
    assert "model.py is no .npz file" in errors and "numpy.savez" in errors


def test_an_array_that_the_energy_does_not_know_is_named(model, tmp_path, capsys):
    np.savez(tmp_path / "point.npz", t=1.0, aa=2.0)
    errors = refused(capsys, "explain", f"{model}:energy", "--at", str(tmp_path / "point.npz"))
    assert "'aa'" in errors and "did you mean 'a'?" in errors


def test_trials_below_one_are_refused(model, capsys):
    assert "--trials" in refused(capsys, "check", f"{model}:energy", "--trials", "0")


def test_debug_shows_the_traceback(tmp_path, capsys):
    assert main(["explain", f"{tmp_path}/nowhere.py:energy", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["explian", "x.py:energy"], ["explain"], ["cache", "--clean"]])
def test_an_unknown_command_or_option_is_refused_with_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and "usage" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- cache, version, process


@pytest.fixture
def folder(tmp_path, monkeypatch):
    root = tmp_path / "cache"
    monkeypatch.setenv("WIBERG_CACHE_DIR", str(root))
    return root


def test_cache_shows_where_it_is_and_how_large(folder, capsys):
    cache.write_folder("a" * 64, {"source": bytes(2_000_000)})
    cache.write_folder("b" * 64, {"declaration": b"{}"})
    assert main(["cache"]) == 0
    out = capsys.readouterr().out
    assert str(folder) in out and "1 kernels" in out and "1 declarations" in out and "2 MB" in out and "of 1 GB" in out


def test_cache_clear_removes_and_says_how_much(folder, capsys):
    cache.write_folder("a" * 64, {"source": bytes(1000)})
    assert main(["cache", "--clear"]) == 0
    assert "1 folders removed" in capsys.readouterr().out and cache.contents() == []


def test_an_empty_cache_is_shown_as_such(folder, capsys):
    assert main(["cache"]) == 0
    assert "0 in all" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"wiberg {wb.__version__}\n"


def test_ctrl_c_ends_with_130(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(command.cache, "contents", interrupt)
    assert main(["cache"]) == 130


def in_a_process(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "wiberg.learn.shell.command", *arguments], capture_output=True, text=True, **options
    )


def test_the_command_runs_in_a_process_of_its_own(model):
    done = in_a_process("check", f"{model.name}:energy", "--trials", "1", "--backend", "reference", cwd=model.parent)
    assert done.returncode == 0 and "all derivatives agree" in done.stdout, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="pipes of POSIX")
def test_a_closed_pipe_is_silent(model):
    script = f"{sys.executable} -m wiberg.learn.shell.command explain {model}:energy --backend reference | head -n 1"
    done = subprocess.run(script, shell=True, capture_output=True, text=True)
    assert done.stdout.startswith("energy 'parabola'") and done.stderr == ""
