"""Running a problem with the method that it names: at once, or in parts that report how far they are."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np

from .methods import METHODS
from .problem import Problem
from .statuses import NOT_FINITE

PART_SECONDS = 0.1
"""How long a part should last between two reports."""

Report = Callable[[int], None]
"""Is told how many instances have been minimised since it was last called."""


def run_problem(problem: Problem, report: Report | None = None) -> None:
    """Minimise every instance, in parts where a report is wanted: the same bits, since an instance sees no other."""
    if report is None:
        _run(problem)
        return
    begin, length, rows = 0, 16, len(problem.y)
    while begin < rows:
        these = slice(begin, min(rows, begin + length))
        started = perf_counter()
        part = problem.part(these)
        _run(part)
        problem.take(part, these)
        seconds = max(perf_counter() - started, 1e-6)
        report(these.stop - begin)
        begin = these.stop
        length = max(1, min(16 * length, int(length * PART_SECONDS / seconds)))


def _run(problem: Problem) -> None:
    METHODS[problem.method](problem)
    if problem.finite is not None:
        y, start = problem.y, problem.start
        bad = np.broadcast_to(~problem.finite, len(y))
        if start is not None:
            y[bad] = np.broadcast_to(start, y.shape)[bad]
        problem.reals[bad], problem.integers[bad] = np.nan, (0, 0, NOT_FINITE)
