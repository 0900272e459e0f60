"""The folder of a run, from which it goes on after it was killed.

    run.json       what the run was begun with: the spec's values and where its files are, checksums of the data
    spec.toml      the spec as it was given last
    checkpoint     the learner (checkpoint.py), written every so many steps or seconds; the one before is checkpoint.1
    history.npz    what happened at every step, when the run ends or is interrupted
    report.html    the same as a page

Each file is the old one or the new one at every moment. Without a checkpoint the run begins at step 0.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.kernel import Kernel
from ...compiler.kernel import compile as compile_energy
from ...energies.energy import Energy
from ...energies.errors import CheckpointError, InputError
from .. import schedule
from ..files import write_whole
from ..learner import Learner
from ..loss import Loss
from ..model import Model, differentiates_steps
from ..optimiser import from_description
from ..output import Output
from ..reports.page import write_page
from ..weight import Weight
from .dataset import Dataset, fingerprint, read_dataset
from .python_file import Files, load
from .spec import differences

FORMAT = 1


@dataclass(frozen=True)
class Run:
    """A spec, where its files are, and what they declare.

    Attributes
    ----------
    folder : Path
        The run folder.
    base : Path
        Where the relative names of files in the spec start.
    spec : dict
        As `read_spec` gives it.
    source : Kernel or Output
    loss : Loss
    """

    folder: Path
    base: Path
    spec: Mapping[str, Any]
    source: Any
    loss: Loss

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    @property
    def model(self) -> Model:
        """Kernels and loss with their weights."""
        unrolled = differentiates_steps(self.source, self.spec["minimise.method"], self.spec["minimise.reweightings"])
        return Model(self.source, self.loss, f"run {self.folder}", unrolled=unrolled)

    def files(self, key: str) -> list[Path]:
        """The files of data.train or data.evaluate."""
        given = self.spec[key]
        names = [given] if isinstance(given, str) else (given or [])
        return [self.base / name for name in names]

    def read(self, files: list[Path], *, targets: bool = True) -> Dataset:
        """Files of data, by what the spec says of columns and starts."""
        shared = {"start": self.spec["start"], "candidates": self.spec["candidates"]}
        return read_dataset(files, self.model, self.spec["data.columns"], shared, targets=targets)

    def learner(self) -> Learner:
        """Where the run was, or at the start."""
        if self.checkpoint.exists():
            return Learner.load(self.checkpoint, self.source, self.loss)
        spec = self.spec
        options = {name: spec[f"minimise.{name}"] for name in ("reweightings", "bounds", "eliminate")}
        weights = {n: Weight(**value) if isinstance(value, dict) else value for n, value in spec["weights"].items()}
        return Learner(
            self.source,
            self.loss,
            weights,
            from_description(spec["optimiser"]),
            damping=schedule.from_description(spec["learning.damping"]),
            unconverged=spec["learning.unconverged"],
            not_finite=spec["learning.not_finite"],
            method=spec["minimise.method"],
            gtol=spec["minimise.gtol"],
            max_iterations=spec["minimise.max_iterations"],
            **{name: value for name, value in options.items() if value is not None},
        )

    def begin(self, text: bytes) -> None:
        """Make the folder, or see that what is there is this run.

        Raises
        ------
        InputError
            If it is another run, or of other data, or a folder of something else.
        CheckpointError
            If it cannot be written.
        """
        train = self.files("data.train")
        now = {
            "format": FORMAT,
            "base": os.path.relpath(self.base.resolve(), self.folder.resolve()),
            "spec": dict(self.spec),
            "data": {str(given): fingerprint(path) for given, path in zip(_names(self.spec), train, strict=True)},
        }
        now = json.loads(json.dumps(now))  # as it is read
        file = self.folder / "run.json"
        if file.exists():
            then = read_json(file)
            changed = list(differences(then["spec"], now["spec"]))
            changed += [
                f"{name} has other contents" for name, sum_ in now["data"].items() if then["data"].get(name) != sum_
            ]
            if changed:
                raise InputError(
                    f"{self.folder} is a run that was begun otherwise: {'; '.join(changed)}. Give another folder=, or "
                    "remove that one"
                )
        elif self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise InputError(f"{self.folder} exists and is no run folder; give another folder=")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"cannot make {self.folder} ({error.strerror or error})") from None
        write_whole(file, json.dumps(now, indent=1).encode())
        write_whole(self.folder / "spec.toml", text)

    def finish(self, learner: Learner, more: Mapping[str, Mapping[str, str]]) -> None:
        """Write checkpoint, history and report."""
        learner.save(self.checkpoint)
        history = learner.history
        arrays = {key: value for key, value in vars(history).items() if key != "weights"}
        arrays |= {f"weights/{name}": records for name, records in history.weights.items()}
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        write_whole(self.folder / "history.npz", buffer.getvalue())
        write_page(self.folder / "report.html", learner, learner.report(), more)


def new_run(spec: Mapping[str, Any], base: Path, folder: Path) -> Run:
    """What a spec asks for; its Python files are run."""
    files: Files = {}
    made = load(spec["energy"], (Energy, Kernel, Output), "a wb.Energy, a kernel, a wb.Output", files, base)
    loss = load(spec["loss"], (Loss,), "a wb.Loss", files, base)
    return Run(folder, base, spec, compile_energy(made) if isinstance(made, Energy) else made, loss)


def open_run(folder: Path) -> Run:
    """A run that was begun.

    Raises
    ------
    InputError
        If there is none in this folder.
    """
    file = folder / "run.json"
    if not file.is_file():
        there = "has no run.json" if folder.is_dir() else "is no folder"
        raise InputError(f"{folder} {there}; expected the folder of a run, which wiberg fit makes")
    known = read_json(file)
    return new_run(known["spec"], Path(os.path.normpath(folder / known["base"])), folder)


def read_json(file: Path) -> dict[str, Any]:
    """What a run was begun with."""
    try:
        known = json.loads(file.read_bytes())
        version = known["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is not what wiberg fit wrote ({error}); give another folder=") from None
    if version != FORMAT:
        raise InputError(f"{file} has format {version}, and this version of wiberg reads {FORMAT}; update wiberg")
    found: dict[str, Any] = known
    return found


def _names(spec: Mapping[str, Any]) -> list[str]:
    given = spec["data.train"]
    return [given] if isinstance(given, str) else list(given)
