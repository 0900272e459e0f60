"""When `fit` saves: at its start, every so many steps or seconds, and at its end, however it ends.

The file that it is going to write is looked at before the first step, so that a run is not lost to another one: a file
that is no checkpoint, is damaged, is of other formulas, or has come further than the learner is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from ..energies.errors import CheckpointError, InputError, InputTypeError
from . import checkpoint, resume

SECONDS = 60.0
"""Between two checkpoints, where the user does not say."""


@contextmanager
def saved(
    learner: Any, path: str | os.PathLike[str] | None, every_steps: Any = None, every_seconds: Any = None
) -> Iterator[Callable[[], None]]:
    """A function to be called after each step, which saves the learner when it is time; saves at the end, too.

    Parameters
    ----------
    learner : Learner
    path : path or None
        None: nothing is saved.
    every_steps, every_seconds : int, float, optional
        Where both are given, whichever is first; where none is, every 60 seconds.

    Raises
    ------
    InputError, InputTypeError
        For intervals that are none, or are given without a path.
    CheckpointError
        Before the first step, for a file that must not be replaced, or cannot be; later, when it cannot be written.
    """
    steps, seconds = _interval("every_steps", every_steps), _interval("every_seconds", every_seconds)
    if path is None:
        if steps is not None or seconds is not None:
            raise InputError("fit: every_steps and every_seconds say when to save, so checkpoint= must say where")
        yield lambda: None
        return
    if steps is None and seconds is None:
        seconds = SECONDS
    last = learner.steps, monotonic()
    _refuse_to_replace(path, learner)
    if not _is_there(path):
        learner.save(path)

    def save_when_due() -> None:
        nonlocal last
        late = seconds is not None and monotonic() - last[1] >= seconds
        if late or (steps is not None and learner.steps - last[0] >= steps):
            last = learner.steps, monotonic()  # first: what cannot be written now is not tried again at the end
            learner.save(path)

    try:
        yield save_when_due
    finally:
        if learner.steps > last[0]:
            learner.save(path)


def _is_there(path: str | os.PathLike[str]) -> bool:
    file = Path(path)
    return file.exists() and (not file.is_file() or file.stat().st_size > 0)


def _refuse_to_replace(path: str | os.PathLike[str], learner: Any) -> None:
    """Raise if PATH holds something that the learner does not go on from."""
    if not isinstance(path, (str, os.PathLike)):
        raise InputTypeError(f"fit: checkpoint must be the path of a file (got {path!r} of type {type(path).__name__})")
    try:
        there = _is_there(path)
    except (OSError, ValueError) as error:  # a name that is too long, or has a zero byte
        raise CheckpointError(f"fit: cannot save to {str(path)!r} ({error}); choose another path") from None
    if not there:
        return
    header = checkpoint.load(path).header
    resume.check_all(path, header, learner.formulas)
    if header["steps"] > learner.steps:
        raise CheckpointError(
            f"fit: checkpoint {path} is {header['steps']} steps far and this learner {learner.steps}: it would be "
            f"lost; go on with it, wb.Learner.load({str(path)!r}, kernel, loss), or choose another path"
        )


def _interval(name: str, value: Any) -> float | None:
    if value is None:
        return None
    whole = name == "every_steps"
    if isinstance(value, bool) or not hasattr(value, "__index__" if whole else "__float__"):
        kind = "an integer" if whole else "a number"
        raise InputTypeError(f"fit: {name} must be {kind} (got {value!r} of type {type(value).__name__})")
    least = 1 if whole else 0
    number = value.__index__() if whole else float(value)
    if not least <= number < float("inf"):
        raise InputError(f"fit: {name} must be >= {least} (got {value!r})")
    return float(number)
