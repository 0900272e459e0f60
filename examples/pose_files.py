"""What the programs of poses share: files that are read, the CMU poses that come with them, and how they answer."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import wiberg as wb
from numpy.typing import NDArray

CMU = Path(__file__).parent / "data" / "cmu_poses.npz"
TEST_SUBJECT = {"CMU": "S2", "Human3.6M": "S9"}


def test_subject(name: str) -> str:
    """Who is judged of frames by that name: those of a file are Human3.6M's, unless one says another."""
    return TEST_SUBJECT.get(name, TEST_SUBJECT["Human3.6M"])


def read(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """All arrays of an npz file, which must have these.

    Raises
    ------
    InputError
        If there is no such file, it is no npz file, or arrays are missing.
    """
    try:
        with open(path, "rb") as stream, np.load(stream) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise wb.InputError(f"{path}: no such file") from None
    except (OSError, ValueError, TypeError, EOFError, BadZipFile) as error:
        raise wb.InputError(f"{path}: is no npz file of arrays ({error})") from None
    missing = [name for name in names if name not in arrays]
    if missing:
        raise wb.InputError(f"{path}: has no array {', '.join(missing)}; see docs/pose.md for what is needed")
    return arrays


def checked_for_writing(path: Path) -> Path:
    """A path that a file can be written to: said before the work rather than after it."""
    if path.is_dir() or not path.parent.is_dir():
        raise wb.InputError(f"{path}: " + ("is a folder; give a file" if path.is_dir() else "there is no such folder"))
    return path


def write(path: Path, arrays: Mapping[str, Any]) -> None:
    """An npz file of exactly that name: what was there stays until the new one is whole."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with open(new, "wb") as file:
            np.savez(file, **arrays)
        os.replace(new, path)
    except OSError as error:
        raise wb.InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        new.unlink(missing_ok=True)


def turned_poses(seed: int) -> tuple[NDArray[np.float64], NDArray[np.str_], NDArray[np.str_], NDArray[np.str_]]:
    """CMU poses (N, 17, 3) in mm, each turned by a random angle about the vertical axis; subject, action, sequence."""
    with np.load(CMU) as file:
        poses, number = file["joints"] / 10.0, file["sequence"]
        subject = np.array([f"S{k}" for k in file["subject"]])[number]
        action, names = file["action"][number], file["names"][number]
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, len(poses))
    cos, sin, zero = np.cos(angle), np.sin(angle), np.zeros(len(poses))
    turn = np.stack([cos, -sin, zero, sin, cos, zero, zero, zero, zero + 1], axis=1).reshape(-1, 3, 3)
    return np.einsum("npr,njr->njp", turn, poses), subject, action, names


def answer(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> dict[str, Any]:
    """Run the command that is asked for; what is wrong in a line and exit code 2, `--json` as the last line."""
    options = parser.parse_args(arguments)
    try:
        result: dict[str, Any] = options.run(options)
    except wb.WibergError as error:
        print(f"{parser.prog} {options.command}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if options.json:
        print(json.dumps(result))
    return result
