"""What a Python file declares: `FILE.py:NAME`, as the commands of the shell are told of energies and losses."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from ...energies.errors import InputError, NameMissingError, WibergError, nearest

Files = dict[Path, ModuleType]
"""Those that were run, so that what is loaded from one file together is made by one run of it."""


def load(text: str, kinds: tuple[type, ...], what: str, files: Files | None = None, folder: Path = Path()) -> Any:
    """The value of a name in a file, which is run.

    Parameters
    ----------
    text : str
        `FILE.py:NAME`; the name may be left out where the file has one value of these kinds only.
    kinds, what
        What it may be, for messages too; or a function without arguments that makes one.
    files : dict, optional
        Files that were run before, and now.
    folder : Path
        Where relative names of files start.

    Raises
    ------
    InputError, NameMissingError
        If there is no such file, it cannot be run, or has no such name.
    """
    path, name = _split(text, folder)
    if not path.is_file():
        there = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {there}; expected FILE.py:NAME, such as model.py:energy")
    files = {} if files is None else files
    module = files.get(path) or _run_file(path)
    files[path] = module
    found = {key: value for key, value in vars(module).items() if isinstance(value, kinds)}
    kind = kinds[0].__name__.lower()
    if not name:
        if len(found) != 1:
            raise NameMissingError(f"{path} has {_listed(found, kind)}; say which, as {path}:NAME")
        (name,) = found
    if not hasattr(module, name):
        hint = nearest(name, found)
        raise NameMissingError(f"{path} defines no {name!r}{hint}; it has {_listed(found, kind)}")
    value = getattr(module, name)
    made = value() if callable(value) and not isinstance(value, type) and _takes_nothing(value) else value
    if not isinstance(made, kinds):
        raise InputError(
            f"{name!r} in {path} is of type {type(made).__name__}; expected {what}, or a function without arguments "
            "that makes one"
        )
    return made


def _split(text: str, folder: Path) -> tuple[Path, str]:
    head, colon, tail = text.rpartition(":")
    if colon and tail.isidentifier() and len(head) > 1:  # a single letter in front of the colon is a drive
        return folder / head, tail
    if colon and not (folder / text).exists() and len(head) > 1:
        raise InputError(f"{tail!r} in {text!r} is no Python name; expected FILE.py:NAME, such as model.py:energy")
    return folder / text, ""


def _run_file(path: Path) -> ModuleType:
    """The module of a file, run as an import would: what stands under `if __name__ == "__main__"` is left out."""
    spec = importlib.util.spec_from_file_location(f"wiberg_command_{path.stem}", path.resolve())
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is no Python file; expected FILE.py:NAME")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except WibergError:
        raise
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path.resolve())]
        line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
        where = f"{path}, line {line}" if line else str(path)
        raise InputError(f"{where}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _takes_nothing(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)


def _listed(found: Iterable[str], kind: str) -> str:
    names = sorted(found)
    many = {"energy": "energies", "loss": "losses"}.get(kind, kind)
    return f"the {many} {', '.join(names)}" if names else f"no {kind} at its top level"
