"""The repository: imports run one way, what is public is documented, and the examples in docstrings run."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("energies", "compiler", "runtime", "learn")
FILES = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))


def module_name(file: Path) -> str:
    parts = ("wiberg", *file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(part for part in parts if part != "__init__")


def name(value: object) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)


def imported_folders(file: Path) -> set[str]:
    """The folders of the package from which a file imports, relatively or by the package's name."""
    found, to_root = set(), len(file.relative_to(ROOT).parts)  # dots of a relative import from the package itself
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == to_root:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "wiberg":
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("wiberg.")}
    return found & set(FOLDERS)


@pytest.mark.parametrize("file", FILES, ids=name)
def test_imports_run_one_way(file: Path) -> None:
    folder = file.relative_to(ROOT).parts[0]
    allowed = FOLDERS[: FOLDERS.index(folder) + 1]
    assert imported_folders(file) <= set(allowed), f"{folder} may import from {', '.join(allowed)} only"


@pytest.mark.parametrize("file", FILES, ids=name)
def test_every_module_says_what_it_is_for(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text()))


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_is_public_is_documented(folder: str) -> None:
    package = importlib.import_module(f"wiberg.{folder}")
    missing = []
    for public in package.__all__:
        value = getattr(package, public)
        if not (inspect.isclass(value) or inspect.isroutine(value)):
            continue
        members = vars(value) if inspect.isclass(value) else {}
        kinds = (property, classmethod, staticmethod)
        documented = {public: value} | {
            f"{public}.{key}": member
            for key, member in members.items()
            if not key.startswith("_") and (inspect.isfunction(member) or isinstance(member, kinds))
        }
        missing += [key for key, member in documented.items() if not inspect.getdoc(member)]
    assert not missing


OWN_PROCESS = ("jax_layer",)
"""JAX makes every later fork of its process warn, which other tests would meet."""


@pytest.mark.parametrize("file", FILES, ids=name)
def test_examples_in_docstrings_run(file: Path) -> None:
    if file.stem in OWN_PROCESS:
        run_examples_in_a_process_of_their_own(file)
        return
    try:
        module = importlib.import_module(module_name(file))
    except ModuleNotFoundError as missing:
        if (missing.name or "wiberg").split(".")[0] == "wiberg":
            raise
        pytest.skip(f"{missing.name} is not installed")
    assert doctest.testmod(module).failed == 0


def run_examples_in_a_process_of_their_own(file: Path) -> None:
    package = file.stem.split("_")[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    code = f"import doctest, importlib; print(doctest.testmod(importlib.import_module({module_name(file)!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "failed=0" in done.stdout, done.stdout + done.stderr


def test_learning_is_imported_when_it_is_asked_for() -> None:
    """And then every public name is there; until then `import wiberg` takes a third less."""
    code = """
import sys, wiberg
later = sorted(m for m in sys.modules if m.startswith("wiberg.learn"))
listed, first = "Learner" in dir(wiberg), wiberg.Learner
missing = [name for name in wiberg.__all__ if not hasattr(wiberg, name)]
other = [name for name in wiberg.learn.__all__ if getattr(wiberg, name) is not getattr(wiberg.learn, name)]
print(later, listed, first.__name__, missing, other)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "True", "Learner", "[]", "[]"]
