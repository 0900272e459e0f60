"""Minimisations and derivatives of energies whose Hessians have blocks, with and without their elimination.

Prints a row as a line of JSON for `run.py`.

    python benchmarks/blocks.py

The energies are those of the tests (tests/bordered.py): a body near free joints, 29 + 17 x 3 unknowns, and bundles of 5
cameras and 50 or 200 points that all of them see, 30 + 3 x 50 and 30 + 3 x 200. One thread, one process, interleaved.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import wiberg as wb
from timing import Row, compare, print_rows
from wiberg.runtime.algebra import blocks

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import bordered

WORK = (
    ("free joints", bordered.free_joints, partial(bordered.free_joints_inputs, batch=50, joints=17, shapes=25)),
    ("50 points", bordered.bundle, partial(bordered.bundle_inputs, batch=8, cameras=5, points=50)),
    ("200 points", bordered.bundle, partial(bordered.bundle_inputs, batch=1, cameras=5, points=200)),
)


def dense(call: Callable[[], Any]) -> Any:
    """What a call gives whose kernel is never asked for its blocks."""
    fewest = blocks.FEWEST
    blocks.FEWEST = 10**9
    try:
        return call()
    finally:
        blocks.FEWEST = fewest


def rows(name: str, energy: Any, inputs: Callable[[], Any]) -> Iterator[Row]:
    w, x, start = inputs()
    ours, theirs = wb.compile(energy()), wb.compile(energy())
    unknowns = ours.bind(w, x, {n: np.asarray(a) for n, a in start.items()}).m
    methods = ("trust-region", "irls") if name == "free joints" else ("trust-region",)
    for method in methods:
        options = {"reweightings": 4} if method == "irls" else {}
        run = partial(wb.minimise, start=start, method=method, **options)
        yield row(name, unknowns, method, partial(run, ours, w, x), partial(dense, partial(run, theirs, w, x)))
    solution, other = wb.minimise(ours, w, x, start=start), dense(partial(wb.minimise, theirs, w, x, start=start))
    slopes = {n: np.ones(np.shape(a)) for n, a in solution.variables.items()}
    derive = wb.implicit_gradient
    yield row(
        name, unknowns, "damped gradient", partial(derive, ours, solution, slopes),
        partial(dense, partial(derive, theirs, other, slopes)),
    )  # fmt: skip


def row(name: str, unknowns: int, what: str, ours: Callable[[], Any], theirs: Callable[[], Any]) -> Row:
    (least, median), (peer_least, peer_median) = compare(ours, theirs, time.process_time)
    return Row(
        "blocks", f"{what}, {name}, {unknowns} unknowns", "ms", 1e3 * least, 1e3 * peer_least, "without blocks",
        least / peer_least, median / peer_median, "<=", 1.05,
    )  # fmt: skip


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    wb.set_threads(1)
    for work in WORK:
        print_rows(rows(*work))


if __name__ == "__main__":
    main()
