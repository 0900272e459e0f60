"""Learning on Dask workers: instances a second for 1, 2 and 4 of them, what a task costs, and how large messages are.

    python benchmarks/workers.py [--rounds 5] [--json FILE]

Steps on one thread without Dask and on clusters of 1, 2 and 4 processes of one thread each are taken in turn, so that
all meet the same neighbours; figures are the best of all rounds. Weights are compared first: they have the same bits.
The cost of a task is the slope of the time of a step over the number of parts of the same batch. docs/scaling.md says
what follows for more workers.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import sympy as sp
import wiberg as wb
from wiberg.learn import distributed as learning
from wiberg.learn.cut import cut
from wiberg.learn.judge import combined
from workloads import workloads

import energies

WORKERS = (1, 2, 4)
SIZES = {"W1": 16384, "W3": 8192}
PARTS = (1, 8, 32, 128)


def learner_of(name: str) -> tuple[wb.Learner, wb.Batch]:
    """A learner of a workload, and a batch of as many instances as SIZES says."""
    work, count = workloads()[name], SIZES[name]

    def many(array: Any) -> Any:
        return np.resize(array, (count, *np.shape(array)[1:]))

    data = {key: many(array) if len(array) == work.size else array for key, array in work.data.items()}
    if name == "W1":
        t, mu = sp.symbols("t mu", real=True)
        kernel, loss = wb.compile(energies.ransac()), wb.Loss((t - mu) ** 2, variables=[t], targets=[mu])
        batch = wb.Batch(data, {"mu": many(work.target.reshape(-1))})
    else:
        n = sp.Symbol("K", integer=True, positive=True)
        a, wanted = sp.IndexedBase("a", shape=(n,)), sp.IndexedBase("wanted", shape=(n,))
        kernel, loss = wb.compile(energies.pose()), wb.squared_error(a, wanted)
        assert work.start is not None
        start = {"a": many(work.start["a"])}
        batch = wb.Batch(data, {"wanted": start["a"]}, start=start)
    return wb.Learner(kernel, loss, work.weights, wb.SGD(1e-9, momentum=0.9)), batch


def seconds_of_steps(learner: wb.Learner, batch: wb.Batch, steps: int, **options: Any) -> float:
    """The shortest step of a call of `fit`, after the first, which sends the batch."""
    moments: list[float] = []
    learner.fit(batch, steps=steps + 1, callback=lambda _: moments.append(time.perf_counter()), **options)
    return float(np.diff(moments).min())


def throughput(name: str, clients: dict[int, Any], rounds: int) -> dict[str, float]:
    """Seconds of a step, alone and for each number of workers."""
    best: dict[str, float] = {}
    weights = set()
    for _ in range(rounds):
        for workers, client in {0: None, **clients}.items():
            learner, batch = learner_of(name)
            seconds = seconds_of_steps(learner, batch, 8, client=client)
            key = "alone" if client is None else f"{workers}"
            best[key] = min(best.get(key, np.inf), seconds)
            weights.add(tuple(np.concatenate([np.ravel(w) for w in learner.weights.values()])))
    assert len(weights) == 1, "the weights differ"
    return best


def cost_of_a_task(client: Any, rounds: int) -> dict[str, float]:
    """Seconds of a step of one batch in 1, 8, ... parts, and those of judging it all here."""
    learner, _ = learner_of("W1")
    random = np.random.default_rng(0)
    x = random.normal(0, 3, (PARTS[-1] * 64, 3))
    batch, best = wb.Batch({"x": x}, {"mu": x.mean(axis=1)}), {}
    threads = learning._Workers._threads
    for _ in range(rounds):
        for parts in PARTS:
            learning._Workers._threads = lambda self, parts=parts: parts  # type: ignore[method-assign]
            key = f"{parts}"
            best[key] = min(best.get(key, np.inf), seconds_of_steps(learner, batch, 5, client=client))
        best["alone"] = min(best.get("alone", np.inf), seconds_of_steps(learner, batch, 5))
    learning._Workers._threads = threads  # type: ignore[method-assign]
    pieces, weights = cut(learner.model, batch, PARTS[-1]), np.array([8.0])
    begun = time.perf_counter()
    for piece in pieces:
        learner.judge_part(piece, weights, 0)
    return best | {"in parts, here": time.perf_counter() - begun}


def messages(name: str) -> dict[str, float]:
    """Bytes that go to a worker and come back, and the seconds that combining takes here."""
    learner, batch = learner_of(name)
    packed = np.concatenate([np.ravel(w) for w in learner.weights.values()])
    part = cut(learner.model, batch, 32)[0]
    sums = learner.judge_part(part, packed, 0)
    begun = time.perf_counter()
    for _ in range(10):
        combined([sums] * 10, learner.model, learner._coordinates, learner.weights, who="here")
    rows = 100 * len(sums.losses)
    return {
        "weights": packed.size,
        "bytes of weights": len(pickle.dumps(packed)),
        "bytes of a block's sums": len(pickle.dumps(sums)) / len(sums.losses),
        "bytes of the learner": len(pickle.dumps(learner.for_workers())),
        "bytes of an instance": len(pickle.dumps(part)) / sums.instances,
        "seconds to add a block": (time.perf_counter() - begun) / rows,
    }


def main() -> None:
    from distributed import Client, LocalCluster

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    wb.set_threads(1)
    results: dict[str, Any] = {"cores": os.cpu_count()}
    clusters = {
        n: LocalCluster(n_workers=n, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL)
        for n in WORKERS
    }
    clients = {n: Client(cluster) for n, cluster in clusters.items()}
    try:
        for name, count in SIZES.items():
            results[name] = throughput(name, clients, given.rounds)
            print(
                f"{name}, {count} instances a step, {os.cpu_count()} cores: seconds, instances a second, against alone"
            )
            for key, seconds in results[name].items():
                ratio = results[name]["alone"] / seconds
                print(f"  {key:>6} {seconds:9.4f} {count / seconds:12.0f} {ratio:8.2f}")
        results["task"] = cost_of_a_task(clients[2], given.rounds)
        print("a batch of 8,192 small instances in parts, two workers: seconds of a step")
        for key, seconds in results["task"].items():
            print(f"  {key:>15} {seconds:9.4f}")
        for name in SIZES:
            results[f"{name} messages"] = messages(name)
            print(name, *(f"{key} {value:.4g}" for key, value in results[f"{name} messages"].items()), sep="\n  ")
    finally:
        for client in clients.values():
            client.close()
        for cluster in clusters.values():
            cluster.close()
    if given.json:
        given.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
