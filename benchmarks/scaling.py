"""Time of one call against the number of points, pixels and instances, over three decades each.

    python benchmarks/scaling.py [--figure docs/images/scaling.png]

Prints a row for `run.py` as a line of JSON for each; the figure needs matplotlib. A call has a fixed cost, that of the
least problem (1 point, 2 x 2 pixels, 1 instance), which is measured and given. The slope of log time over log size is
judged over the upper two decades with the fixed cost in it; the note gives the slope over all three without it.
Large arrays come from memory that is slower than a cache; how much is the machine's. Where the shared hand-written
kernels are present, they are measured at the same sizes, and a slope above 1 is forgiven if theirs take as long at the
largest size.
Points: 1 instance. Pixels: 1 image. Instances: of 110 points. Energy, gradient and Hessian, arrays of the public API,
CPU time on one core, least of all repeats; what a kernel works out once for a size, a sparse pattern, is not in it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import hand
import numpy as np
from numpy.typing import NDArray
from speed import pin
from timing import Row, calibrate
from workloads import Workload

Floats = NDArray[np.float64]
Point = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
ALLOWED = 0.1  # how far a slope may be from 1
PER_DECADE = 3


@dataclass(frozen=True)
class Sweep:
    """One axis of growth: `point(size)` is a problem of this size, `least` the size of the least one."""

    energy: str
    what: str
    title: str
    decades: tuple[float, float]
    least: int
    point: Callable[[int], Point]
    workload: str

    @property
    def wanted(self) -> list[int]:
        first, last = self.decades
        return [round(10**power) for power in np.linspace(first, last, round((last - first) * PER_DECADE) + 1)]


@dataclass(frozen=True)
class Measured:
    """Sizes and seconds of a sweep, and the seconds of the least problem."""

    sweep: Sweep
    sizes: Floats
    seconds: Floats
    fixed: float
    hand: Floats | None

    def slope(self) -> float:
        """Of the logarithms, over the upper two decades, the fixed cost included."""
        return self.upper_slope(self.seconds)

    def upper_slope(self, seconds: Floats) -> float:
        upper = self.sizes >= self.sizes[-1] / 101
        return fitted(self.sizes[upper], seconds[upper])

    def against_hand(self) -> float:
        """Our time as a multiple of the hand-written kernel's, at the largest size."""
        return np.inf if self.hand is None else float(self.seconds[-1] / self.hand[-1])

    def off(self) -> float:
        """How far the slope is from 1; or how much longer we take than by hand at the largest size, if that is less."""
        return min(abs(self.slope() - 1.0), max(0.0, self.against_hand() - 1.0))

    def slope_beyond_fixed(self) -> float:
        """The same over all sizes, the fixed cost taken off."""
        return fitted(self.sizes, self.seconds - self.fixed)

    def each(self, place: int = -1 - PER_DECADE) -> float:
        """Seconds for one more point, pixel or instance: at a tenth of the largest size, or at that of `place`."""
        return float((self.seconds[place] - self.fixed) / self.sizes[place])

    def row(self) -> Row:
        slope, names = self.slope(), self.sweep.what
        note = (
            f"{self.sizes[0]:,.0f} to {self.sizes[-1]:,.0f} {names}: {1e6 * self.fixed:.0f} us a call and "
            f"{1e9 * self.each():.3g} ns for each, {1e9 * self.each(-1):.3g} at the largest; "
            f"slope without the fixed cost {self.slope_beyond_fixed():.2f}"
        )
        peer = None if self.hand is None else self.upper_slope(self.hand)
        name = "" if self.hand is None else "hand numba"
        note += "" if self.hand is None else f"; {self.against_hand():.2f} x hand at the largest"
        title = f"{self.sweep.title}: off linear"
        return Row("scaling", title, "slope", slope, peer, name, self.off(), None, "<=", ALLOWED, note)


def fitted(sizes: Floats, seconds: Floats) -> float:
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(seconds, 1e-12)), 1)[0])


def points(size: int) -> Point:
    samples = np.random.default_rng(0).uniform(-40, 40, size)
    return {"t": 1.0}, {"sigma": 8.0}, {"x": samples}


def instances(size: int) -> Point:
    random = np.random.default_rng(0)
    return {"t": random.uniform(-40, 40, size)}, {"sigma": 8.0}, {"x": random.uniform(-40, 40, (size, 110))}


def pixels(size: int) -> Point:
    side = side_of(size)
    noisy = np.random.default_rng(0).uniform(0, 1, (side, side))
    return {"y": noisy + 0.1}, {"log_lambda": np.log(0.15), "log_eps": np.log(0.05)}, {"z": noisy}


def side_of(size: int) -> int:
    return round(size**0.5)


SWEEPS = (
    Sweep("ransac", "points", "W1 against points", (4, 7), 1, points, "W1"),
    Sweep("denoise", "pixels", "W4 against pixels", (3, 6), 4, pixels, "W4"),
    Sweep("ransac", "instances", "W1 against instances", (2, 5), 1, instances, "W1"),
)


def measure(sweep: Sweep, passes: int = 2, repeats: int = 5) -> Measured:
    """Up the sizes `passes` times; repeats of a size follow each other, as a kernel remembers few sparse patterns."""
    import wiberg as wb

    import energies

    kernel = wb.compile(getattr(energies, sweep.energy)())
    sizes = [side_of(size) ** 2 if sweep.what == "pixels" else size for size in (sweep.least, *sweep.wanted)]
    module = hand.kernels()
    least = np.full((2, len(sizes)), np.inf)
    for _ in range(passes):
        for place, size in enumerate(sizes):
            point = sweep.point(size)
            calls: list[Callable[[], Any]] = [partial(kernel.value_gradient_hessian, *point)]
            if module is not None:
                calls.append(hand.value_gradient_hessian(module, batched(sweep.workload, point)))
            for way, call in enumerate(calls):
                least[way, place] = min(least[way, place], least_seconds(call, repeats))
    theirs = None if module is None else least[1, 1:]
    return Measured(sweep, np.array(sizes[1:], float), least[0, 1:], float(least[0, 0]), theirs)


def batched(name: str, point: Point) -> Workload:
    """The same problem with a batch axis for all variables and data, as hand-written kernels want it."""
    y, w, x = point
    single = np.ndim(next(iter(y.values()))) == (2 if name == "W4" else 0)
    rows = [{k: np.asarray(v)[None] if single else np.asarray(v) for k, v in each.items()} for each in (y, x)]
    return Workload(name, len(next(iter(rows[0].values()))), rows[0], w, rows[1], None, np.empty(0))


def least_seconds(call: Callable[[], Any], repeats: int) -> float:
    """CPU time of a call, the least of `repeats` that last 10 ms each or one call."""
    count, least = calibrate(call, target=0.01), np.inf
    for _ in range(repeats):
        begin = time.process_time()
        for _ in range(count):
            call()
        least = min(least, (time.process_time() - begin) / count)
    return float(least)


def draw(found: list[Measured], file: Path) -> None:
    """Three panels of the same scale of times: what was measured, the fixed cost, and a line of slope 1."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["font.size"] = 12
    figure, axes = plt.subplots(1, len(found), figsize=(13, 4.6), sharey=True, layout="constrained")
    for axis, one in zip(axes, found, strict=True):
        axis.axhline(1e6 * one.fixed, color="0.6", linestyle=":", label=f"fixed cost, {1e6 * one.fixed:.0f} µs a call")
        line = 1e6 * one.each() * one.sizes
        axis.plot(one.sizes, line, "k--", linewidth=1, label=f"slope 1, {1e9 * one.each():.3g} ns for each one")
        if one.hand is not None:
            theirs = f"hand-written numba, slope {one.upper_slope(one.hand):.2f}"
            axis.plot(one.sizes, 1e6 * one.hand, "s-", color="0.6", markersize=4, label=theirs)
        axis.plot(one.sizes, 1e6 * one.seconds, "o-", label=f"measured, slope {one.slope():.2f} (upper two decades)")
        axis.set(xscale="log", yscale="log", xlabel=one.sweep.what, title=f"{one.sweep.title} ({one.sweep.energy})")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=10, loc="upper left")
    axes[0].set_ylabel("energy, gradient and Hessian, µs a call")
    lowest, highest = axes[0].get_ylim()
    axes[0].set_ylim(lowest, 20 * highest)
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", type=Path, help="draw into this file")
    options = parser.parse_args()
    pin(1)
    import wiberg as wb

    wb.set_threads(1)
    found = []
    for sweep in SWEEPS:
        found.append(measure(sweep))
        print(json.dumps(found[-1].row().record()), flush=True)
    if options.figure:
        draw(found, options.figure)


if __name__ == "__main__":
    main()
