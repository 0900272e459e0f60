"""A whole step of training, one core: prints a row as a line of JSON for `run.py`.

    python benchmarks/training.py

A step minimises a batch of 1,000 (W1), 2,000 (W2) or 200 (W3) instances, judges the minima by the mean of a squared
distance (of the body's shape for W3, so that the loss reads the learnt bases, too), follows the damped derivative to
all weights, and moves them by SGD with momentum. Ours is `Learner.fit` over a batch as a user calls it, with all that
it does besides (history, checks, what is projected); and the bare parts, `minimise`, the loss by NumPy,
`implicit_gradient` and the update. JAX's is one jitted function (peers_jax.py). Starts, instances, tolerance of the
minimisation and loss are the same; the weights after five steps that move them are compared before times are. Times
are of steps too small to change what there is to do. The process is pinned to a core; its CPU time is measured, of all
its threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import timing
from speed import agree, pin
from timing import Row, print_rows

SECTION = "training, one core"
BOUNDS = {"W1": 3.5, "W2": 6.0, "W3": 2.5}
MOMENTUM, STILL = 0.9, 1e-12
MOVING = {"W1": 1e-3, "W2": 1e-2, "W3": 1e-4}
"""Learning rates for the comparison of the weights."""

Steps = Callable[[int], Any]


def loss_of(work: Any) -> Any:
    """The mean of this over a batch is learnt from."""
    import sympy as sp
    import wiberg as wb

    target = sp.IndexedBase("target", shape=(2,))
    if work.name == "W1":
        t, mean = sp.Symbol("t", real=True), sp.Symbol("target", real=True)
        return wb.Loss((t - mean) ** 2, variables=[t], targets=[mean])
    if work.name == "W2":
        return wb.squared_error(sp.IndexedBase("y", shape=(2,)), target)
    J, K = sp.symbols("J K", integer=True, positive=True)
    j, k, d = sp.Idx("j", J), sp.Idx("k", K), sp.Idx("d", 3)
    a, B = sp.IndexedBase("a", shape=(K,)), sp.IndexedBase("B", shape=(K, J, 3))
    target, shape = sp.IndexedBase("target", shape=(J, 3)), sp.IndexedBase("shape", shape=(J, 3))
    return wb.Loss(
        sp.Sum((shape[j, d] - target[j, d]) ** 2, j, d),
        variables=[a], weights=[B], targets=[target], where={shape[j, d]: sp.Sum(a[k] * B[k, j, d], k)},
    )  # fmt: skip


def learner_steps(work: Any, kernel: Any, rate: float) -> Steps:
    """Steps of a learner; gives the weights and the mean loss of the last."""
    import wiberg as wb

    learner = wb.Learner(kernel, loss_of(work), work.weights, wb.SGD(rate, momentum=MOMENTUM))
    batch = wb.Batch(work.data, {"target": work.target}, start=work.start)

    def steps(count: int) -> Any:
        history = learner.fit(batch, steps=count, progress=False)
        return learner.weights, history.loss[-1]

    return steps


def bare_steps(work: Any, kernel: Any, rate: float) -> Steps:
    """The same of `minimise`, `implicit_gradient` and NumPy."""
    import wiberg as wb

    weights = {name: np.array(array) for name, array in work.weights.items()}
    velocity = {name: np.zeros_like(array) for name, array in weights.items()}
    target = work.target.reshape(work.size, -1)

    def step() -> float:
        solution = wb.minimise(kernel, weights, work.data, start=work.start)
        ((variable, y),) = solution.variables.items()
        flat, direct = y.reshape(work.size, -1), None
        if work.name == "W3":
            bases = weights["B"].reshape(flat.shape[1], -1)
            apart = 2 * (flat @ bases - target)
            slopes, direct = apart @ bases.T, (flat.T @ apart).reshape(weights["B"].shape)
        else:
            apart = 2 * (flat - target)
            slopes = apart
        gradient = wb.implicit_gradient(kernel, solution, {variable: slopes.reshape(y.shape)})
        if direct is not None:
            gradient["B"] = gradient["B"] + direct
        for name in weights:
            velocity[name] = MOMENTUM * velocity[name] + gradient[name] / work.size
            weights[name] = weights[name] - rate * velocity[name]
        return float(np.einsum("ij,ij->", apart, apart) / 4 / work.size)

    def steps(count: int) -> Any:
        value = 0.0
        for _ in range(count):
            value = step()
        return weights, value

    return steps


def compare_weights(work: Any, who: str, steps: Steps, theirs: tuple[Any, Any]) -> None:
    (weights, value), (expected, other) = steps(5), theirs
    agree(f"{work.name}, {who}: loss", value, other, 1e-8)
    for name, array in expected.items():
        moved = np.asarray(weights[name]) - work.weights[name], np.asarray(array) - work.weights[name]
        agree(f"{work.name}, {who}: movement of {name}", *moved, 1e-6)


def rows(work: Any, kernel: Any) -> Iterator[Row]:
    title = f"{work.name} training step"
    try:
        from peers_jax import peer_of
    except ModuleNotFoundError as missing:
        yield timing.skipped(SECTION, title, f"{missing.name} is not installed: make bench-setup")
        return
    peer, clock, ours = peer_of(work), time.process_time, {"": learner_steps, ", bare parts": bare_steps}
    expected = {way: steps(5) for way, steps in peer.training(MOVING[work.name], MOMENTUM).items()}
    for way, (weights, _) in expected.items():
        for name, array in weights.items():
            agree(f"{work.name}, JAX ({way}): {name}", array, expected["vmap"][0][name], 1e-8)
    for who, make in ours.items():
        compare_weights(work, who or "Learner", make(work, kernel, MOVING[work.name]), expected["vmap"])

    ways = peer.training(STILL, MOMENTUM)
    best = timing.fastest({way: lambda steps=steps: steps(2) for way, steps in ways.items()}, clock)
    for who, make in ours.items():
        mine = make(work, kernel, STILL)
        count = max(1, timing.calibrate(lambda mine=mine: mine(1), 0.05))
        (least, median), (peer_least, peer_median) = timing.compare(
            lambda mine=mine, count=count: mine(count), lambda count=count: ways[best](count), clock, 15, target=0.05
        )
        unit = 1e6 / work.size / count
        yield Row(
            SECTION, title + who, "us/inst", least * unit, peer_least * unit, f"JAX ({best})",
            peer_least / least, peer_median / median, ">=", BOUNDS[work.name],
        )  # fmt: skip


def main() -> None:
    pin(1)
    import wiberg as wb
    import workloads

    import energies

    wb.set_threads(1)
    works = workloads.workloads()
    for name, energy in {"W1": energies.ransac, "W2": energies.fusion, "W3": energies.pose}.items():
        print_rows(rows(works[name], wb.compile(energy())))


if __name__ == "__main__":
    main()
