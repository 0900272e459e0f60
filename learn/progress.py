"""The progress bar of `fit`: loss and rate, redrawn ten times a second, and free between."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

INTERVAL = 0.1


@contextmanager
def progress_bar(wanted: bool | None, start: int, steps: int | None) -> Iterator[Callable[[int, float], None]]:
    """A function (steps so far, loss) that shows how far learning is.

    Parameters
    ----------
    wanted : bool or None
        None: only where standard error is a terminal.
    start : int
        Steps taken before.
    steps : int or None
        How many are to come, if that is known.
    """
    if not (_on_terminal() if wanted is None else wanted):
        yield lambda done, loss: None
        return
    from tqdm import tqdm

    with tqdm(total=steps, unit="step", desc="fit", dynamic_ncols=True) as bar:
        drawn = perf_counter()
        shown = done_last = start
        loss_last = float("nan")

        def draw() -> None:
            nonlocal shown
            bar.set_postfix_str(f"loss {loss_last:.4g}", refresh=False)
            bar.update(done_last - shown)
            shown = done_last

        def show(done: int, loss: float) -> None:
            nonlocal drawn, done_last, loss_last
            done_last, loss_last = done, loss
            now = perf_counter()
            if now - drawn >= INTERVAL:
                drawn = now
                draw()

        try:
            yield show
        finally:
            draw()


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()
