"""Time to import, to compile cold (beside JAX) and warm, compile time against N, and memory against the batch.

Each figure comes from a fresh process: `python benchmarks/compiling.py CHILD ...` is what those processes run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from timing import Row, skipped

COLD_BOUNDS = {"W1": 3.0, "W2": None, "W3": 8.0, "W4": 5.0}
NAMES = {"W1": "ransac", "W2": "fusion", "W3": "pose", "W4": "denoise"}


# ---------------------------------------------------------------------------------------------- in fresh processes


def now() -> tuple[float, float]:
    """Wall clock and CPU time; `since` takes the lesser difference, so that a busy machine does not count."""
    return time.perf_counter(), time.process_time()


def since(begin: tuple[float, float]) -> float:
    return min(end - start for end, start in zip(now(), begin, strict=True))


def child_import(what: str) -> dict[str, Any]:
    begin = now()
    if what == "wiberg":
        import wiberg  # noqa: F401
    else:
        import numba  # noqa: F401
        import sympy  # noqa: F401
    return {"seconds": since(begin)}


def first_evaluation(name: str) -> tuple[Any, Any, float]:
    """The workload, its kernel, and the seconds from the declaration to the first value, gradient and Hessian."""
    import wiberg as wb
    from workloads import workloads

    import energies

    work = workloads()[name]
    begin = now()
    kernel = wb.compile(getattr(energies, NAMES[name])())
    kernel.value_gradient_hessian(work.point, work.weights, work.data)
    return work, kernel, since(begin)


def child_compile(name: str) -> dict[str, Any]:
    """Seconds to the first value, gradient and Hessian; then to the first minimum."""
    import wiberg as wb

    work, kernel, evaluate = first_evaluation(name)
    begin = now()
    wb.minimise(kernel, work.weights, work.data, start=work.start)
    return {"evaluate": evaluate, "minimise": since(begin)}


def child_ours(name: str) -> dict[str, Any]:
    return {"seconds": first_evaluation(name)[2]}


def child_jax(name: str) -> dict[str, Any]:
    """The same by JAX: its start after the import, inputs to the device, tracing and compiling, the first result."""
    from peers_jax import peer_of
    from workloads import workloads

    work = workloads()[name]
    begin = now()
    peer_of(work).value_gradient_hessian()()
    return {"seconds": since(begin)}


def child_size(terms: str) -> dict[str, Any]:
    """Seconds to compile W1 for N samples: the first call, less a second one."""
    import numpy as np
    import wiberg as wb

    from energies import ransac

    samples = {"x": np.linspace(-40, 40, int(terms))}
    begin = now()
    kernel = wb.compile(ransac())
    kernel.value_gradient_hessian({"t": 1.0}, {"sigma": 8.0}, samples)
    first, begin = since(begin), now()
    kernel.value_gradient_hessian({"t": 1.0}, {"sigma": 8.0}, samples)
    return {"seconds": first - since(begin)}


def child_memory(batch: str, iterations: str) -> dict[str, Any]:
    """Bytes that minimising W1 takes at most at once, beyond its inputs; minima that are never good enough."""
    import resource
    import tracemalloc

    import numpy as np
    import wiberg as wb

    from energies import ransac

    kernel, random = wb.compile(ransac()), np.random.default_rng(0)
    samples, start = random.uniform(-40, 40, (int(batch), 110)), random.uniform(-40, 40, int(batch))

    def minimise() -> None:
        wb.minimise(
            kernel, {"sigma": 8.0}, {"x": samples}, start={"t": start}, gtol=1e-300, max_iterations=int(iterations)
        )

    wb.set_threads(1)
    minimise()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        minimise()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    tracemalloc.start()
    minimise()
    return {"bytes": tracemalloc.get_traced_memory()[1], "grown": 1024 * grown}


CHILDREN = {
    "import": child_import, "compile": child_compile, "ours": child_ours, "jax": child_jax, "size": child_size,
    "memory": child_memory,
}  # fmt: skip


def fresh(*arguments: str, cache: str | None = None) -> dict[str, Any]:
    environment = os.environ | ({} if cache is None else {"WIBERG_CACHE_DIR": cache})
    command = [sys.executable, str(Path(__file__).resolve()), *arguments]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


# ---------------------------------------------------------------------------------------------- rows


def alone(section: str, work: str, unit: str, figure: float, bound: float | None, note: str = "") -> Row:
    return Row(section, work, unit, figure, None, "", figure, None, "<=", bound, note)


def importing(repeats: int = 5) -> Iterator[Row]:
    found = [[fresh("import", what)["seconds"] for what in ("wiberg", "peers")] for _ in range(repeats)]
    ours, theirs = (sorted(column) for column in zip(*found, strict=True))
    middle = repeats // 2
    yield Row(
        "import", "import wiberg", "s", ours[0], theirs[0], "numba + sympy", ours[0] / theirs[0],
        ours[middle] / theirs[middle], "<=", 1.5,
    )  # fmt: skip


def compiling() -> Iterator[Row]:
    """An empty cache for each workload, so that each pays for the drivers, too; then the same cache again."""
    for name, bound in COLD_BOUNDS.items():
        with tempfile.TemporaryDirectory() as cache:
            cold = fresh("compile", name, cache=cache)
            warm = min((fresh("compile", name, cache=cache) for _ in range(3)), key=lambda times: sum(times.values()))
        yield alone("compile", f"{name} cold: first value+gradient+Hessian", "s", cold["evaluate"], bound)
        more = None if bound is None else 1.0
        yield alone("compile", f"{name} cold: then the first minimise", "s", cold["minimise"], more)
        yield alone("compile", f"{name} warm: both", "s", sum(warm.values()), 1.0, "over import wiberg")


def cold_start(whose: str, name: str) -> float:
    """Seconds to the first value, gradient and Hessian ("ours" or "jax"), in a fresh process with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        return float(fresh(whose, name, cache=cache)["seconds"])


def beside_jax(repeats: int = 3) -> Iterator[Row]:
    """Both from after their imports, each compiling only what is called."""
    if find_spec("jax") is None:
        yield skipped("compile", "cold, beside JAX", "jax is not installed: make bench-setup")
        return
    for name in NAMES:
        found = [[cold_start(whose, name) for whose in ("ours", "jax")] for _ in range(repeats)]
        ours, theirs = (sorted(column) for column in zip(*found, strict=True))
        middle = repeats // 2
        yield Row(
            "compile", f"{name} cold: the same, beside JAX's jit", "s", ours[0], theirs[0], "JAX", theirs[0] / ours[0],
            theirs[middle] / ours[middle], ">=", None,
        )  # fmt: skip


def sizes() -> Iterator[Row]:
    seconds = {}
    for terms in (100, 1_000, 10_000, 100_000):
        found = []
        for _ in range(2):
            with tempfile.TemporaryDirectory() as cache:
                found.append(fresh("size", str(terms), cache=cache)["seconds"])
        seconds[terms] = min(found)
    ratio = max(seconds.values()) / min(seconds.values())
    note = ", ".join(f"N = {terms:,}: {value:.2f}" for terms, value in seconds.items())
    yield Row("compile", "compile time against N", "s", max(seconds.values()), min(seconds.values()), "the fastest N",
              ratio, None, "<=", 1.3, note)  # fmt: skip


def memory() -> Iterator[Row]:
    batches = (2_000, 8_000, 32_000)
    found = {batch: fresh("memory", str(batch), "10") for batch in batches}
    each = {batch: used["bytes"] / batch for batch, used in found.items()}
    note = ", ".join(f"B = {batch:,}: {value:.0f}" for batch, value in each.items())
    yield Row("memory", "minimise: bytes an instance", "B", each[batches[-1]], each[batches[0]], f"B = {batches[0]:,}",
              each[batches[-1]] / each[batches[0]], None, "<=", 1.1, note)  # fmt: skip
    few, many = (fresh("memory", "2000", iterations) for iterations in ("1", "100"))
    yield Row("memory", "minimise: 100 steps against 1", "B", many["bytes"], few["bytes"], "1 step",
              many["bytes"] / few["bytes"], None, "<=", 1.01, f"growth of the process {many['grown']} B")  # fmt: skip


def rows() -> Iterator[Row]:
    yield from importing()
    yield from compiling()
    yield from beside_jax()
    yield from sizes()
    yield from memory()


if __name__ == "__main__":
    print(json.dumps(CHILDREN[sys.argv[1]](*sys.argv[2:])))
