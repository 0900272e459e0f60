"""How far a long run is: a progress bar, and a function of the caller's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..energies.errors import InputTypeError
from .run import Report

Callback = Callable[[int, int | None], Any]


@contextmanager
def reporter(
    progress: Any, callback: Any, total: int | None, who: str = "minimise", unit: str = "instance"
) -> Iterator[Report | None]:
    """What tells bar and callback how many instances are done; None where nobody wants to know.

    Raises
    ------
    InputTypeError
        If `progress` is not a bool, or `callback` cannot be called.
    """
    if not isinstance(progress, bool):
        raise InputTypeError(f"{who}: progress must be True or False (got {progress!r}); functions go to callback=")
    if callback is not None and not callable(callback):
        raise InputTypeError(
            f"{who}: callback must be a function of (instances done, instances in all); got {callback!r}"
        )
    if not progress and callback is None:
        yield None
        return
    bar = None
    if progress:
        from tqdm import tqdm

        bar = tqdm(total=total, unit=unit, desc=who, dynamic_ncols=True)
    done = 0

    def report(count: int) -> None:
        nonlocal done
        done += count
        if bar is not None:
            bar.update(count)
        if callback is not None:
            callback(done, total)

    try:
        yield report
    finally:
        if bar is not None:
            bar.close()
