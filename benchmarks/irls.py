"""Reweighted least squares beside the trust region, and the unrolled derivative beside the implicit one.

    python benchmarks/irls.py

prints the tables of docs/minimisers.md (one core; times as ratios of minima, interleaved in one process).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp
import wiberg as wb
import workloads

import energies

REPEATS = 9
COUNTS = (1, 2, 3, 5, 10, 30, 100)


@dataclass(frozen=True)
class Task:
    """One energy with starts and the derivative of a loss at minima."""

    name: str
    kernel: Any
    weights: dict[str, Any]
    data: dict[str, Any]
    start: dict[str, Any]
    slopes: Callable[[Any], Any]

    def minimise(self, method: str, **options: Any) -> Any:
        return wb.minimise(
            self.kernel, self.weights, self.data, start=self.start, method=method, max_iterations=5000, **options
        )

    def loss_gradient(self, solution: Any) -> dict[str, Any]:
        unpacked: dict[str, Any] = self.kernel.variables.unpack(self.slopes(solution.y), solution.inputs.sizes)
        return unpacked


def line(penalty: Callable[[Any, Any], Any], name: str, start: float) -> Task:
    """A line through 40 points, 30 % of them far off, from slope and offset `start`."""
    n = sp.Symbol("n", integer=True, positive=True)
    i, delta = sp.Idx("i", n), sp.Symbol("delta", positive=True)
    a, b = sp.symbols("a b", real=True)
    u, x = sp.IndexedBase("u", shape=(n,)), sp.IndexedBase("x", shape=(n,))
    formula = sp.Sum(penalty((x[i] - a * u[i] - b) ** 2, delta), i)
    kernel = wb.compile(wb.Energy(formula, variables=[a, b], weights=[delta], data=[u, x], name=f"line {name}"))
    random = np.random.default_rng(0)
    at = random.normal(size=(2000, 40))
    seen = 2 * at + 1 + 0.1 * random.normal(size=at.shape)
    seen += (random.random(at.shape) < 0.3) * random.normal(0, 8, at.shape)
    begin = {"a": start, "b": start}
    where = "near" if start < 5 else "far"
    return Task(f"line, {name}, {where}", kernel, {"delta": 0.5}, {"u": at, "x": seen}, begin, lambda y: y - (2, 1))


def pose() -> Task:
    work, kernel = workloads.workloads()["W3"], wb.compile(energies.pose())
    return Task("pose (W3), pseudo-Huber", kernel, work.weights, work.data, work.start, work.slopes)


def tasks() -> Iterator[Task]:
    for penalty in (wb.pseudo_huber, wb.cauchy, wb.welsch):
        for start in (0.0, 30.0):
            yield line(penalty, penalty.__name__, start)
    yield pose()


def seconds(calls: list[Callable[[], Any]]) -> list[float]:
    """The least time of each call, interleaved."""
    least = [np.inf] * len(calls)
    for _ in range(REPEATS):
        for k, call in enumerate(calls):
            begin = time.process_time()
            call()
            least[k] = min(least[k], time.process_time() - begin)
    return least


def compare(task: Task) -> str:
    newton, irls = task.minimise("trust-region"), task.minimise("irls")
    lower = irls.energy - newton.energy
    margin = 1e-6 * np.abs(newton.energy)
    times = seconds(
        [
            lambda: task.minimise("trust-region"),
            lambda: task.minimise("irls"),
            lambda: task.minimise("irls", reweightings=3),
            lambda: task.minimise("trust-region", gtol=1e-3),
            lambda: task.minimise("irls", gtol=1e-3),
        ]
    )
    cells = [
        task.name, f"{newton.iterations.mean():.1f} / {newton.evaluations.mean():.1f}",
        f"{irls.iterations.mean():.1f} / {irls.evaluations.mean():.1f}", f"{times[1] / times[0]:.2f}",
        f"{times[4] / times[3]:.2f}", f"{times[2] / times[0]:.2f}",
        f"{newton.converged.mean():.1%} / {irls.converged.mean():.1%}",
        f"{(lower > margin).mean():.1%} / {(lower < -margin).mean():.1%}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def derivatives(task: Task) -> str:
    """How far the unrolled derivative after k reweightings is from the implicit one at the minimum, relative."""

    def flat(gradient: dict[str, Any]) -> Any:
        return np.concatenate([np.ravel(gradient[name]) for name in task.kernel.weights.names])

    least = task.minimise("irls", reweightings=2000)
    exact = flat(wb.implicit_gradient(task.kernel, least, task.loss_gradient(least), damping=0.0, unconverged="use"))
    cells = []
    for count in COUNTS:
        solution = task.minimise("irls", reweightings=count)
        slopes = task.loss_gradient(solution)
        unrolled = flat(wb.unrolled_gradient(task.kernel, solution, slopes))
        implicit = flat(wb.implicit_gradient(task.kernel, solution, slopes, damping=0.0, unconverged="use"))
        errors = [np.linalg.norm(found - exact) / np.linalg.norm(exact) for found in (unrolled, implicit)]
        cells.append(f"{errors[0]:.0e} / {errors[1]:.0e}")
    return f"| {task.name} | {' | '.join(cells)} |"


def gradient_times(task: Task) -> str:
    solution = task.minimise("irls", reweightings=3)
    slopes = task.loss_gradient(solution)
    times = seconds(
        [
            lambda: task.minimise("irls", reweightings=3),
            lambda: wb.unrolled_gradient(task.kernel, solution, slopes),
            lambda: wb.implicit_gradient(task.kernel, solution, slopes, damping=0.0, unconverged="use"),
        ]
    )
    return f"{task.name}: unrolled {times[1] / times[0]:.2f}, implicit {times[2] / times[0]:.2f} of 3 reweightings"


def main() -> None:
    wb.set_threads(1)
    print("| energy | trust-region | irls | time | to 1e-3 | of 3 | converged | irls higher / lower |")
    for task in tasks():
        print(compare(task), flush=True)
    print(f"\n| energy | {' | '.join(map(str, COUNTS))} |")
    chosen = [line(wb.pseudo_huber, "pseudo_huber", 0.0), line(wb.welsch, "welsch", 0.0), pose()]
    for task in chosen:
        print(derivatives(task), flush=True)
    print()
    for task in chosen:
        print(gradient_times(task), flush=True)


if __name__ == "__main__":
    main()
