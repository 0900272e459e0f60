"""Learning on Dask workers: instances a second for 1, 2 and 4 of them, what a task costs, and how large messages are.

    python benchmarks/workers.py [--rounds 5] [--json FILE] [--figure FILE]
    python benchmarks/workers.py --drawn FILE --figure FILE     # of a JSON file written before

Steps on one thread without Dask and on clusters of 1, 2 and 4 processes of one thread each are taken in turn, so that
all meet the same neighbours; figures are the best of all rounds. Weights are compared: they have the same bits. Beside
the time of a step stand the CPU times of this process, which is client and scheduler, and of the busiest worker: what
they would take where nobody else wants their cores. By the clock, steps of several workers are fast only where they
find as many idle cores, so that load averages are printed, too. The cost of a task is the slope over the number of
parts of one batch. docs/scaling.md says what follows for more workers.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import pickle
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sympy as sp
import wiberg as wb
from wiberg.learn import distributed as learning
from wiberg.learn.cut import cut
from wiberg.learn.judge import combined
from workloads import workloads

import energies

WORKERS = (1, 2, 4)
SIZES = {"W1": 65536, "W3": 8192}
"""Instances of a step: half a second of work for one core, beside which Dask's 10 ms are little."""

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


class Seconds(NamedTuple):
    """Of a step: by the clock, and CPU times of this process and of the busiest worker."""

    step: float
    here: float
    worker: float


def seconds_of_steps(learner: wb.Learner, batch: wb.Batch, steps: int, client: Any) -> Seconds:
    """The shortest step of a call of `fit`, and mean CPU times; after a first step, which sends the batch."""
    moments: list[float] = []
    here = workers = 0.0

    def note(learner: wb.Learner) -> None:
        nonlocal here, workers
        moments.append(time.perf_counter())
        if learner.steps == 1:
            here, workers = time.process_time(), cpu_times(client)
            moments[0] = time.perf_counter()

    learner.fit(batch, steps=steps + 1, callback=note, client=client)
    here, workers = time.process_time() - here, np.subtract(cpu_times(client), workers).max(initial=0.0)
    return Seconds(float(np.diff(moments).min()), here / steps, workers / steps)


def cpu_times(client: Any) -> Any:
    return np.array([] if client is None else list(client.run(time.process_time).values()))


def best(old: Seconds | None, new: Seconds) -> Seconds:
    return new if old is None else Seconds(*map(min, old, new))


def throughput(name: str, clients: dict[int, Any], rounds: int) -> dict[str, Seconds]:
    """Seconds of a step, alone and for each number of workers."""
    found: dict[str, Seconds] = {}
    weights = set()
    for _ in range(rounds):
        for workers, client in {0: None, **clients}.items():
            learner, batch = learner_of(name)
            key = "alone" if client is None else f"{workers}"
            found[key] = best(found.get(key), seconds_of_steps(learner, batch, 8, client))
            weights.add(tuple(np.concatenate([np.ravel(w) for w in learner.weights.values()])))
    assert len(weights) == 1, "the weights differ"
    return found


def cost_of_a_task(client: Any, rounds: int) -> dict[str, Seconds]:
    """Seconds of a step of one batch of small instances in 1, 8, ... parts, and alone."""
    random = np.random.default_rng(0)
    x = random.normal(0, 3, (PARTS[-1] * 64, 3))
    batch = wb.Batch({"x": x}, {"mu": x.mean(axis=1)})
    found: dict[str, Seconds] = {}
    threads = learning._Workers._threads
    for _ in range(rounds):
        for parts in PARTS:
            learning._Workers._threads = lambda self, parts=parts: parts  # type: ignore[method-assign]
            found[f"{parts}"] = best(found.get(f"{parts}"), seconds_of_steps(learner_of("W1")[0], batch, 10, client))
        found["alone"] = best(found.get("alone"), seconds_of_steps(learner_of("W1")[0], batch, 10, None))
    learning._Workers._threads = threads  # type: ignore[method-assign]
    return found


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


def show(found: dict[str, Seconds], count: int) -> None:
    print(f"{'':>8} {'step, s':>9} {'CPU here':>9} {'worker':>9} {'instances/s':>12} {'against alone':>14}")
    for key, seconds in found.items():
        ratio = found["alone"].step / seconds.step
        times = f"{seconds.step:9.4f} {seconds.here:9.4f} {seconds.worker:9.4f}"
        print(f"{key:>8} {times} {count / seconds.step:12.0f} {ratio:14.2f}")


def on_idle_cores(seconds: Seconds, workers: int, cores: int) -> float:
    """What a step takes by its CPU times where nobody else wants the cores: this process, then the workers."""
    return seconds.here + seconds.worker * -(-workers // cores)


def draw(results: dict[str, Any], path: Path) -> None:
    """Instances a second by the clock and by CPU times, against as many times one process as there are cores."""
    import matplotlib.pyplot as plt

    names, cores = [name for name in SIZES if name in results], results["cores"]
    figure, axes = plt.subplots(1, len(names), figsize=(4.6 * len(names), 3.8), constrained_layout=True)
    loads = f"load average {results['load before']:.1f} before, {results['load after']:.1f} at the end"
    figure.suptitle(f"{cores} cores, {loads}", fontsize=9)
    places = np.arange(len(WORKERS))
    for axis, name in zip(np.atleast_1d(axes), names, strict=True):
        found, count = {key: Seconds(*seconds) for key, seconds in results[name].items()}, SIZES[name]
        alone = min(found["alone"].step, found["alone"].here)
        clock = np.array([count / found[f"{n}"].step for n in WORKERS])
        idle = np.array([count / on_idle_cores(found[f"{n}"], n, cores) for n in WORKERS])
        axis.bar(places - 0.2, clock, width=0.38, color="tab:blue", label="workers, by the clock")
        axis.bar(places + 0.2, idle, width=0.38, color="lightsteelblue", label="by CPU times, if cores were idle")
        axis.axhline(count / alone, color="tab:orange", ls="--", label="one process without Dask")
        most = [count / alone * min(n, cores) for n in WORKERS]
        axis.hlines(most, places - 0.42, places + 0.42, color="black", label="as many times that as cores are used")
        ratios = [
            f"{n}\n{a * alone / count:.2f}  {b * alone / count:.2f}"
            for n, a, b in zip(WORKERS, clock, idle, strict=True)
        ]
        axis.set_xticks(places, ratios)
        axis.set(title=f"{name}, {count:,} instances a step", ylabel="instances a second")
        axis.set_xlabel("workers, and both as times one process")
        axis.set_ylim(0, 1.6 * max(*clock, *idle, *most))
        axis.legend(fontsize=8, loc="upper left")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path, help="draw the throughput to this file")
    parser.add_argument("--drawn", type=Path, help="measure nothing; draw what this JSON file holds")
    given = parser.parse_args()
    results = measured(given.rounds) if given.drawn is None else json.loads(given.drawn.read_text())
    if given.json:
        given.json.write_text(json.dumps(results, indent=1))
    if given.figure:
        draw(results, given.figure)


def measured(rounds: int) -> dict[str, Any]:
    """All figures, printed as they come."""
    from distributed import Client, LocalCluster

    wb.set_threads(1)
    results: dict[str, Any] = {"cores": os.cpu_count(), "load before": os.getloadavg()[0]}
    clusters = {
        n: LocalCluster(n_workers=n, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL)
        for n in WORKERS
    }
    clients = {n: Client(cluster) for n, cluster in clusters.items()}
    try:
        for name, count in SIZES.items():
            results[name] = throughput(name, clients, rounds)
            print(f"{name}, {count} instances a step, {os.cpu_count()} cores")
            show(results[name], count)
        results["task"] = cost_of_a_task(clients[2], rounds)
        print("a batch of 8,192 small instances in parts, two workers")
        show(results["task"], PARTS[-1] * 64)
        for name in SIZES:
            results[f"{name} messages"] = messages(name)
            print(name, *(f"{key} {value:.4g}" for key, value in results[f"{name} messages"].items()), sep="\n  ")
    finally:
        for client in clients.values():
            client.close()
        for cluster in clusters.values():
            cluster.close()
    results["load after"] = os.getloadavg()[0]
    print(f"load average of a minute: {results['load before']:.2f} before, {results['load after']:.2f} at the end")
    return results


if __name__ == "__main__":
    main()
