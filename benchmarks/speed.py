"""Speed of one process on one core, or on two: prints a row as a line of JSON for `run.py`.

    python benchmarks/speed.py --threads 1
    python benchmarks/speed.py --casadi         # against CasADi's C code instead, which takes long to build
    python benchmarks/speed.py --solvers        # minimising against libraries, and one instance from Python

On one core the process is pinned to it and its CPU time is measured, of all its threads; on two, the wall clock.
Answers are compared before times are: values, gradients and Hessians with the hand-written kernels and CasADi,
minimisers and dl/dw with JAX.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import compiling
import numpy as np
import timing
from numpy.typing import NDArray
from timing import Row, print_rows

Floats = NDArray[np.float64]

HAND_BOUNDS = {"W1": 1.2, "W2": 1.2, "W3": 1.4, "W4": 1.5}
MINIMISE_BOUNDS = {"W1": 3.5, "W2": 8.0, "W3": 2.5, "W4": 6.0}
IMPLICIT_BOUNDS = {"W1": 4.0, "W2": 10.0, "W3": 5.0, "W4": 5.0}


def pin(threads: int) -> None:
    """Before NumPy's, numba's and JAX's pools exist."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    for name in ("NUMBA_NUM_THREADS", "WIBERG_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    if threads > 1:
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={threads}"


def difference(ours: Any, theirs: Any) -> float:
    """The largest difference, relative to the largest entry."""
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-300))


def agree(what: str, ours: Any, theirs: Any, tolerance: float) -> None:
    found = difference(ours, theirs)
    if not found <= tolerance:
        raise SystemExit(f"{what}: the answers differ by {found:.2g} (allowed {tolerance:g}); no times are compared")


def against_hand(work: Any, kernel: Any, clock: timing.Clock, section: str) -> Row:
    import hand

    title, bound = f"{work.name} value+gradient+Hessian", HAND_BOUNDS[work.name]
    if work.size == 1:
        title, bound = f"{title}, one instance", None
    module = hand.kernels()
    if module is None:
        return timing.skipped(section, title, "the shared hand-written kernels are not here (WIBERG_SHARED)")

    def ours() -> Any:
        return kernel.value_gradient_hessian(work.point, work.weights, work.data)

    theirs = hand.value_gradient_hessian(module, work)
    answers = hand.comparable(work, ours()), hand.comparable(work, theirs())
    for what, one, other in zip(("value", "gradient", "Hessian"), *answers, strict=True):
        agree(f"{work.name} {what}", one, other, 1e-11)
    (least, median), (peer_least, peer_median) = timing.compare(ours, theirs, clock)
    unit = 1e6 / work.size
    return Row(
        section, title, "us/inst", least * unit, peer_least * unit, "hand numba",
        least / peer_least, median / peer_median, "<=", bound,
    )  # fmt: skip


def against_jax(work: Any, kernel: Any, clock: timing.Clock, section: str, threads: int) -> list[Row]:
    import wiberg as wb

    try:
        from peers_jax import GTOL, peer_of
    except ModuleNotFoundError as missing:
        return [
            timing.skipped(section, f"{work.name} against JAX", f"{missing.name} is not installed: make bench-setup")
        ]
    peer = peer_of(work)
    unit = 1e6 / work.size

    def minimise() -> Any:
        return wb.minimise(kernel, work.weights, work.data, start=work.start)

    theirs, evaluate = peer.value_gradient_hessian(), partial(kernel.value_gradient_hessian, work.point, work.weights)
    (least, median), (peer_least, peer_median) = timing.compare(lambda: evaluate(work.data), theirs, clock)
    rows = [
        Row(
            section, f"{work.name} value+gradient+Hessian", "us/inst", least * unit, peer_least * unit, "JAX",
            peer_least / least, peer_median / median, ">=", None,
        )
    ]  # fmt: skip

    ways = peer.minimise(devices=threads)
    best = timing.fastest(ways, clock)
    solution, (minima, gradients, steps) = minimise(), (np.asarray(a) for a in ways[best]())
    (ours,) = solution.variables.values()
    ours = ours.reshape(work.size, -1)
    for who, norm in (("wiberg", solution.gradient_norm.max()), ("JAX", np.abs(gradients).max())):
        if not norm <= GTOL:
            raise SystemExit(f"{work.name}: {who} ends with a gradient of {norm:.2g}, above {GTOL:g}")
    same = float((np.abs(ours - minima).max(axis=1) < 1e-6).mean())
    if same < 0.999:
        raise SystemExit(f"{work.name}: only {100 * same:.1f} % of the minimisers are the same")
    (least, median), (peer_least, peer_median) = timing.compare(minimise, ways[best], clock, repeats=15, target=0.05)
    seeded = "minimise" if work.start else "seed + minimise"
    rows.append(
        Row(
            section, f"{work.name} {seeded}", "us/inst", least * unit, peer_least * unit, f"JAX ({best})",
            peer_least / least, peer_median / median, ">=", MINIMISE_BOUNDS[work.name],
            f"{solution.iterations.mean():.2f} steps, JAX {steps.mean():.2f}",
        )
    )  # fmt: skip

    slopes = work.slopes(ours)
    ((variable, shape),) = ((name, array.shape) for name, array in solution.variables.items())

    def implicit() -> Any:
        return wb.implicit_gradient(kernel, solution, {variable: slopes.reshape(shape)})

    theirs = peer.implicit(ours, slopes)
    for name, gradient in theirs().items():
        agree(f"{work.name} dl/d{name}", implicit()[name], gradient, 1e-8)
    (least, median), (peer_least, peer_median) = timing.compare(implicit, theirs, clock)
    rows.append(
        Row(
            section, f"{work.name} implicit dl/dw", "us/inst", least * unit, peer_least * unit, "JAX",
            peer_least / least, peer_median / median, ">=", IMPLICIT_BOUNDS[work.name],
        )
    )  # fmt: skip
    return rows


def against_solvers(work: Any, kernel: Any, clock: timing.Clock, section: str) -> Row:
    """Minimising, against the fastest library that finds the same minima; those that do not are named."""
    import wiberg as wb
    from peers_solvers import ways

    title = f"{work.name} {'minimise' if work.start else 'seed + minimise'}, libraries"

    def ours() -> Any:
        return wb.minimise(kernel, work.weights, work.data, start=work.start)

    (found,) = ours().variables.values()
    minima, seconds, failed = found.reshape(work.size, -1), {}, []
    for way in ways(work, kernel):
        same = np.abs(way.call() - minima[: way.size]).max(axis=1) < 1e-6
        if same.mean() < 0.99:
            failed.append(f"{way.name} {100 * same.mean():.0f} %")
            continue
        least = np.inf
        for _ in range(3):
            begin = clock()
            way.call()
            least = min(least, (clock() - begin) / way.size)
        seconds[way.name] = least
    if not seconds:
        return timing.skipped(section, title, "no library found the minima: " + (", ".join(failed) or "none installed"))
    best = min(seconds, key=lambda name: seconds[name])
    mine = timing.compare(ours, ours, clock, repeats=9, target=0.05)[0][0] / work.size
    note = ", ".join(f"{name} {1e6 * s:.0f}" for name, s in sorted(seconds.items(), key=lambda kv: kv[1]))
    note += f"; same minima in fewer than 99 %: {', '.join(failed)}" if failed else ""
    bound = MINIMISE_BOUNDS[work.name]
    ratio = seconds[best] / mine
    return Row(section, title, "us/inst", 1e6 * mine, 1e6 * seconds[best], best, ratio, None, ">=", bound, note)


def single_instance(work: Any, kernel: Any, clock: timing.Clock, section: str) -> Row:
    """What a call for one small instance costs beyond its share of a batch.

    CPU time of this process, as in all rows of one core, over many short repeats: the wall clock also counts what
    others do in between, which is more than the figure on a machine that is shared.
    """
    import wiberg as wb

    data = {n: a[0] if a.ndim and len(a) == work.size else a for n, a in work.data.items()}
    start = None if work.start is None else {n: a[0] for n, a in work.start.items()}
    rows = np.zeros(work.size, int)
    many = {n: a[rows] if a.ndim and len(a) == work.size else a for n, a in work.data.items()}
    starts = None if work.start is None else {n: a[rows] for n, a in work.start.items()}
    (one, one_median), (batch, batch_median) = timing.compare(
        lambda: wb.minimise(kernel, work.weights, data, start=start),
        lambda: wb.minimise(kernel, work.weights, many, start=starts),
        clock,
        repeats=100,
        target=0.005,
    )
    over, median = (1e6 * (a - b / work.size) for a, b in ((one, batch), (one_median, batch_median)))
    note = f"{1e6 * one:.1f} us for one, {1e6 * batch / work.size:.1f} each in a batch"
    return Row(section, f"{work.name} minimise one: overhead", "us", over, None, "", over, median, "<=", 50.0, note)


def against_casadi(work: Any, kernel: Any, clock: timing.Clock, section: str) -> list[Row]:
    """Value, gradient and Hessian; and how long each takes from the formula to the first of them."""
    from peers_casadi import GRAPHS, Peer

    title, unit = f"{work.name} value+gradient+Hessian", 1e6 / work.size
    peers = {graph: Peer(work, graph) for graph in GRAPHS}
    ways = {graph: peer.value_gradient_hessian() for graph, peer in peers.items()}
    best = timing.fastest(ways, clock)
    peer, theirs, who = peers[best], ways[best], f"CasADi as C ({best})"

    def ours() -> Any:
        return kernel.value_gradient_hessian(work.point, work.weights, work.data)

    for what, one, other in zip(("value", "gradient", "Hessian"), ours(), theirs(), strict=True):
        agree(f"{work.name} {what}", one, other, 1e-11)
    (least, median), (peer_least, peer_median) = timing.compare(ours, theirs, clock)
    cold = compiling.cold_start("ours", work.name)
    parts = ", ".join(f"{what} {seconds:.2f}" for what, seconds in peer.seconds.items())
    return [
        Row(
            section, title, "us/inst", least * unit, peer_least * unit, who,
            peer_least / least, peer_median / median, ">=", 1.0,
        ),
        Row(
            section, f"{work.name} cold: first {title[3:]}", "s", cold, sum(peer.seconds.values()), who,
            sum(peer.seconds.values()) / cold, None, ">=", None, f"CasADi: {parts}, {peer.kib:.0f} KiB of C",
        ),
    ]  # fmt: skip


def casadi_rows(works: dict[str, Any], kernels: dict[str, Any], clock: timing.Clock) -> Iterator[Row]:
    section, title = "CasADi, one core", "W1 to W3 against CasADi as C"
    try:
        from peers_casadi import ENERGIES, compiler
    except ModuleNotFoundError as missing:
        yield timing.skipped(section, title, f"{missing.name} is not installed: make bench-setup")
        return
    if compiler() is None:
        yield timing.skipped(section, title, "no C compiler: install gcc, or name one in CC")
        return
    for name in ENERGIES:
        yield from against_casadi(works[name], kernels[name], clock, section)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--casadi", action="store_true", help="the rows against CasADi only, on one core")
    parser.add_argument("--solvers", action="store_true", help="minimising against libraries only, on one core")
    options = parser.parse_args()
    threads = 1 if options.casadi or options.solvers else options.threads
    pin(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    section = "one core" if threads == 1 else f"{threads} threads"

    import wiberg as wb
    import workloads

    import energies

    wb.set_threads(threads)
    declared = {"W1": energies.ransac, "W2": energies.fusion, "W3": energies.pose, "W4": energies.denoise}
    works = workloads.workloads()
    kernels = {name: wb.compile(energy()) for name, energy in declared.items()}
    if options.casadi:
        print_rows(casadi_rows(works, kernels, clock))
        return
    if options.solvers:
        for name, work in works.items():
            print(json.dumps(against_solvers(work, kernels[name], clock, "libraries, one core").record()), flush=True)
            if name != "W4":
                print(
                    json.dumps(single_instance(work, kernels[name], clock, "libraries, one core").record()), flush=True
                )
        return
    for name, work in works.items():
        print(json.dumps(against_hand(work, kernels[name], clock, section).record()), flush=True)
    single = against_hand(workloads.one_of(works["W4"]), kernels["W4"], clock, section)
    print(json.dumps(single.record()), flush=True)
    for name, work in works.items():
        print_rows(against_jax(work, kernels[name], clock, section, threads))


if __name__ == "__main__":
    main()
