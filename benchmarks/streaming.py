"""CPU time and memory of `minimise_stream` for 1 to 1,000,000 instances.

    python benchmarks/streaming.py [--figure docs/images/streaming.png]

The one-dimensional energy of the paper, 110 points an instance, each point a candidate; fresh data in batches of at
most 4,096 instances. CPU time on one core, without that of making the data; memory is the peak of the whole process.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scaling import fitted
from speed import pin
from timing import Row

SIZES = [1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000]
LARGEST_BATCH = 4096
POINTS = 110


class Source:
    """Batches of fresh data, and the seconds that making them took."""

    def __init__(self, size: int) -> None:
        self.size, self.seconds, self.random = size, 0.0, np.random.default_rng(size)

    def __iter__(self) -> Iterator[dict[str, NDArray[np.float64]]]:
        for begin in range(0, self.size, LARGEST_BATCH):
            count, started = min(LARGEST_BATCH, self.size - begin), time.process_time()
            near = self.random.random((count, POINTS)) < 0.4
            spread = self.random.uniform(-40, 40, (count, POINTS))
            batch = {"x": np.where(near, self.random.normal(0, 4, (count, POINTS)), spread)}
            del near, spread
            self.seconds += time.process_time() - started
            yield batch
            del batch


def measure(kernel: Any, size: int) -> tuple[float, float]:
    """Seconds for a stream of that many instances, and the peak of memory so far in MB."""
    import wiberg as wb

    source, converged, started = Source(size), 0, time.process_time()
    for solution in wb.minimise_stream(kernel, {"sigma": 8.0}, source):
        converged += int(solution.converged.sum())
    seconds = time.process_time() - started - source.seconds
    assert converged >= 0.999 * size
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kB elsewhere
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def draw(seconds: NDArray[np.float64], memory: NDArray[np.float64], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["font.size"] = 12
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    sizes = np.array(SIZES, float)
    left.plot(sizes, seconds[-1] / sizes[-1] * sizes, "k--", linewidth=1, label="slope 1")
    left.plot(sizes, seconds, "o-", label="measured")
    left.set(xscale="log", yscale="log", xlabel="instances", ylabel="seconds")
    right.plot(sizes, memory, "o-", color="tab:orange")
    right.set(xscale="log", xlabel="instances", ylabel="peak memory of the process, MB", ylim=(0, 1.3 * memory.max()))
    for axis in (left, right):
        axis.grid(alpha=0.3)
    left.legend()
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", type=Path, help="draw into this file")
    options = parser.parse_args()
    pin(1)
    import wiberg as wb

    import energies

    wb.set_threads(1)
    kernel = wb.compile(energies.ransac())
    measure(kernel, 100)
    found = [min(measure(kernel, size) for _ in range(3 if size <= 10_000 else 1)) for size in SIZES]
    seconds, memory = np.array(found).T
    upper = np.array(SIZES) >= 10_000
    slope = fitted(np.array(SIZES, float)[upper], seconds[upper])
    note = ", ".join(f"{size:,}: {s:.3g} s, {m:.0f} MB" for size, s, m in zip(SIZES, seconds, memory, strict=True))
    title = "stream of 1 to 1,000,000 instances: |slope - 1| from 10,000 on"
    print(json.dumps(Row("streaming", title, "slope", slope, None, "", abs(slope - 1), None, "<=", 0.1, note).record()))
    if options.figure:
        draw(seconds, memory, options.figure)


if __name__ == "__main__":
    main()
