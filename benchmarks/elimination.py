"""The table of docs/minimisers.md on partly quadratic energies: variables solved out against the joint minimisation.

    python benchmarks/elimination.py

Both start from the same kept unknowns; the joint minimisation gets the others solved for them, which is the best that
it can be given. Times are minima of interleaved repeats, one thread.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sympy as sp
import wiberg as wb

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from more_garbow_hillstrom.measured import OSBORNE_1, OSBORNE_2

REPEATS = 15
n, count = sp.symbols("n count", integer=True, positive=True)
i, k = sp.Idx("i", n), sp.Idx("k", count)
x, place = sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("place", shape=(n,))


@dataclass(frozen=True)
class Work:
    """A problem: what is minimised, from where, and what is eliminated; `starts` of them where it is a batch."""

    name: str
    energy: wb.Energy
    weights: dict[str, Any]
    data: dict[str, Any]
    start: dict[str, Any]
    eliminate: list[str]


def osborne_1() -> Work:
    """One start, and a hundred around it, each rate up to three times as large or small."""
    a, b, c, t, u = sp.symbols("a b c t u", real=True)
    model = c + a * sp.exp(-t * place[i]) + b * sp.exp(-u * place[i])
    energy = wb.Energy(sp.Sum((x[i] - model) ** 2, i), variables=[a, b, c, t, u], data=[x, place], name="osborne 1")
    data = {"x": OSBORNE_1, "place": 10.0 * np.arange(33)}
    return Work("Osborne 1", energy, {}, data, {"t": 0.01, "u": 0.02}, ["a", "b", "c"])


def osborne_2() -> Work:
    a, t = sp.symbols("a t", real=True)
    h, w, p = (sp.IndexedBase(name, shape=(3,)) for name in "hwp")
    q = sp.Idx("q", 3)
    model = a * sp.exp(-t * place[i]) + sp.Sum(h[q] * sp.exp(-w[q] * (place[i] - p[q]) ** 2), q)
    energy = wb.Energy(sp.Sum((x[i] - model) ** 2, i), variables=[a, t, h, w, p], data=[x, place], name="osborne 2")
    data = {"x": OSBORNE_2, "place": np.arange(65) / 10}
    return Work("Osborne 2", energy, {}, data, {"t": 0.6, "w": [3.0, 5, 7], "p": [2, 4.5, 5.5]}, ["a", "h"])


def around(work: Work, factor: float, number: int = 100) -> Work:
    """The same from many starts, each number of the start multiplied by up to `factor`, or divided."""
    rng = np.random.default_rng(0)
    start = {
        name: np.asarray(value) * factor ** rng.uniform(-1, 1, (number, *np.shape(value)))
        for name, value in work.start.items()
    }
    return Work(f"{work.name}, {number} starts", work.energy, work.weights, work.data, start, work.eliminate)


def factors(rows: int, columns: int, rank: int, known: float, number: int) -> Work:
    """Wiberg's problem: low-rank matrices with missing entries, from random factors U."""
    height, width, rank_symbol = sp.symbols("height width rank", integer=True, positive=True)
    q, j, e = sp.Idx("q", rank_symbol), sp.Idx("j", height), sp.Idx("e", width)
    U, V = sp.IndexedBase("U", shape=(height, rank_symbol)), sp.IndexedBase("V", shape=(width, rank_symbol))
    entry, ridge = sp.IndexedBase("entry", shape=(n, 2), integer=True), sp.Symbol("ridge", positive=True)
    energy = sp.Sum((x[i] - sp.Sum(U[entry[i, 0], q] * V[entry[i, 1], q], q)) ** 2, i)
    energy += ridge * (sp.Sum(U[j, q] ** 2, j, q) + sp.Sum(V[e, q] ** 2, e, q))
    rng = np.random.default_rng(1)
    left, right = rng.standard_normal((number, rows, rank)), rng.standard_normal((number, columns, rank))
    entries = np.argwhere(rng.random((rows, columns)) < known)
    values = np.einsum("bir,bjr->bij", left, right)[:, entries[:, 0], entries[:, 1]]
    values += 0.05 * rng.standard_normal(values.shape)
    return Work(
        f"{number} factorisations {rows} x {columns}, rank {rank}, {known:.0%} known",
        wb.Energy(energy, variables=[U, V], weights=[ridge], data=[x, entry], name="factors"),
        {"ridge": 0.01},
        {"x": values, "entry": entries},
        {"U": rng.standard_normal((number, rows, rank)), "V": np.zeros((columns, rank))},
        ["V"],
    )


def bodies(number: int) -> Work:
    """Points in space seen under 4 angles that are not known: 3 x 3 blocks."""
    j, d, o = sp.Idx("j", 4), sp.Idx("d", 3), sp.Idx("o", 4)
    y, z = sp.IndexedBase("y", shape=(4,)), sp.IndexedBase("z", shape=(count, 3))
    C, A = sp.IndexedBase("C", shape=(count, 4, 3)), sp.IndexedBase("A", shape=(4, 3, 4))
    seen, ridge = sp.IndexedBase("seen", shape=(count, 4)), sp.Symbol("ridge", positive=True)
    view = sp.Sum((C[k, o, d] + sp.Sum(A[o, d, j] * sp.sin(y[j]), j)) * z[k, d], d)
    energy = sp.Sum((seen[k, o] - view) ** 2, k, o) + ridge * sp.Sum(z[k, d] ** 2, k, d) + sp.Sum(y[j] ** 2, j) / 10
    rng = np.random.default_rng(0)
    coefficients, turned = rng.standard_normal((number, 4, 3)), rng.standard_normal((4, 3, 4))
    points, angles = rng.standard_normal((number, 3)), rng.standard_normal(4) / 2
    values = np.einsum("kod,kd->ko", coefficients + turned @ np.sin(angles), points)
    return Work(
        f"{number} points seen under 4 angles",
        wb.Energy(energy, variables=[y, z], weights=[ridge], data=[C, A, seen], name="points"),
        {"ridge": 0.1},
        {"C": coefficients, "A": turned, "seen": values + 0.05 * rng.standard_normal(values.shape)},
        {"y": np.zeros(4)},
        ["z"],
    )


def measured(work: Work) -> str:
    """The row of a problem."""
    kernel = wb.compile(work.energy)
    begin = wb.minimise(
        kernel, work.weights, work.data, start=work.start, eliminate=work.eliminate, max_iterations=0
    ).variables
    calls = {
        "joint": lambda: wb.minimise(kernel, work.weights, work.data, start=begin, max_iterations=500),
        "solved out": lambda: wb.minimise(
            kernel, work.weights, work.data, start=work.start, eliminate=work.eliminate, max_iterations=500
        ),
    }
    found = {name: call() for name, call in calls.items()}
    times = dict.fromkeys(calls, np.inf)
    slowest, repeats = 0.0, REPEATS
    while repeats > 0:
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            seconds = time.perf_counter() - started
            times[name], slowest = min(times[name], seconds), max(slowest, seconds)
        repeats -= 1 if slowest < 1 else 7
    joint, own = found["joint"], found["solved out"]
    lowest = np.minimum(joint.energies, own.energies)
    reached = [
        np.count_nonzero((s.energies <= lowest + 1e-6 * (1e-3 + abs(lowest))) & (s.reals[:, 0] <= 1e-6))
        for s in (joint, own)
    ]
    eliminated = sum(np.size(begin[name][0] if joint.batched else begin[name]) for name in work.eliminate)
    steps = [s.integers[:, 0].mean() for s in (joint, own)]
    evaluations = [s.integers[:, 1].mean() for s in (joint, own)]
    cells = [
        work.name,
        f"{joint.y.shape[1] - eliminated} + {eliminated}",
        f"{steps[0]:.4g} / {steps[1]:.4g}",
        f"{evaluations[0]:.4g} / {evaluations[1]:.4g}",
        f"{reached[0]} / {reached[1]} of {len(joint.y)}",
        f"{1e3 * times['joint']:.3g} / {1e3 * times['solved out']:.3g}",
        f"{times['joint'] / times['solved out']:.2g}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    wb.set_threads(1)
    print("| problem | kept + eliminated | steps | calls of the kernel | lowest energy | ms | times as fast |")
    print("|---|---|---|---|---|---|---|")
    for work in (
        osborne_1(),
        around(osborne_1(), 3.0),
        osborne_2(),
        around(osborne_2(), 1.5),
        factors(8, 12, 2, 0.7, 100),
        factors(20, 30, 3, 0.5, 20),
        bodies(20),
        bodies(167),
    ):
        print(measured(work), flush=True)
