"""The progress bar of `fit`: loss, rate and share converged, redrawn ten times a second, and free between."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

INTERVAL = 0.1


@contextmanager
def progress_bar(wanted: bool | None, start: int, steps: int | None) -> Iterator[Callable[[int, float, float], None]]:
    """A function (steps so far, loss, share of the instances that did not converge) that shows how far learning is.

    The share converged that is shown is that of all steps since it was last drawn.

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
        yield lambda done, loss, unconverged: None
        return
    from tqdm import tqdm

    with tqdm(total=steps, unit="step", desc="fit", dynamic_ncols=True) as bar:
        drawn = perf_counter()
        shown = done_last = start
        loss_last = float("nan")
        failed = 0.0

        def draw() -> None:
            nonlocal shown, failed
            count = done_last - shown
            if count:
                converged = f"{100.0 * (1.0 - failed / count):.4g} % converged"
                bar.set_postfix_str(f"loss {loss_last:.4g}, {converged}", refresh=False)
            bar.update(count)
            shown, failed = done_last, 0.0

        def show(done: int, loss: float, unconverged: float) -> None:
            nonlocal drawn, done_last, loss_last, failed
            done_last, loss_last, failed = done, loss, failed + unconverged
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
