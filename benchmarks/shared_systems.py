"""Ridge regression of which all instances have the same features, beside the same of which each has its own.

Prints a row as a line of JSON for `run.py`.

    python benchmarks/shared_systems.py

|W y - x|^2 + a |y|^2 with W (2n, n): the Hessian reads W and a, so that one W is factorised once for a batch of 200
(runtime/systems.py). One thread, one process, interleaved; microseconds an instance.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import sympy as sp
import wiberg as wb
from timing import Row, compare, print_rows

BATCH = 200
BOUNDS = {8: 1.05, 32: 0.35, 80: 0.15}
"""Of the time with a W for each, for so many unknowns."""


def ridge() -> wb.Energy:
    m, n = sp.symbols("m n", integer=True, positive=True)
    i, j = sp.Idx("i", m), sp.Idx("j", n)
    W, x = sp.IndexedBase("W", shape=(m, n)), sp.IndexedBase("x", shape=(m,))
    y, a = sp.IndexedBase("y", shape=(n,)), sp.Symbol("a", positive=True)
    residual = sp.Sum(W[i, j] * y[j], j) - x[i]
    return wb.Energy(sp.Sum(residual**2, i) + a * sp.Sum(y[j] ** 2, j), variables=[y], weights=[a], data=[W, x])


def rows(unknowns: int, kernel: Any) -> Iterator[Row]:
    random = np.random.default_rng(0)
    one, x = random.normal(size=(2 * unknowns, unknowns)), random.normal(size=(BATCH, 2 * unknowns))
    each = one + 1e-9 * random.normal(size=(BATCH, *one.shape))
    weights, start = {"a": 1.0}, {"y": np.zeros(unknowns)}
    slopes = {"y": random.normal(size=(BATCH, unknowns))}
    shared, apart = ({"W": W, "x": x} for W in (one, each))
    run = partial(wb.minimise, kernel, weights, start=start)
    yield row("minimise", unknowns, partial(run, shared), partial(run, apart))
    derive = partial(wb.implicit_gradient, kernel)
    yield row("damped gradient", unknowns, partial(derive, run(shared), slopes), partial(derive, run(apart), slopes))


def row(what: str, unknowns: int, ours: Callable[[], Any], theirs: Callable[[], Any]) -> Row:
    (least, median), (peer_least, peer_median) = compare(ours, theirs, time.process_time)
    return Row(
        "shared systems", f"{what}, ridge regression, {unknowns} unknowns", "us", 1e6 * least / BATCH,
        1e6 * peer_least / BATCH, "a W for each", least / peer_least, median / peer_median, "<=", BOUNDS[unknowns],
    )  # fmt: skip


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    wb.set_threads(1)
    kernel = wb.compile(ridge())
    for unknowns in BOUNDS:
        print_rows(rows(unknowns, kernel))


if __name__ == "__main__":
    main()
