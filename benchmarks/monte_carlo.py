"""How minimisations of random instances end: 100,000 of kernel densities and poses, by status.

    python benchmarks/monte_carlo.py [--scale 1]

Prints a table, and for every instance that is not CONVERGED what it has to say. Weights differ from instance to
instance: widths from far too narrow to far too wide, noise and outliers from none to most. Starts are the candidates,
or, for poses, the mean body.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Drawn = tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]  # weights, data, start


def points(count: int, random: np.random.Generator) -> Drawn:
    """One unknown: 110 points of which a part is near a centre, widths from 0.05 to 100 where points span 80."""
    centre, share = random.uniform(-40, 40, (count, 1)), random.uniform(0, 1, (count, 1))
    spread = 10 ** random.uniform(-2, 1, (count, 1))
    near = centre + spread * random.standard_normal((count, 110))
    x = np.where(random.random((count, 110)) < share, near, random.uniform(-40, 40, (count, 110)))
    return {"sigma": 10 ** random.uniform(-1.3, 2, count)}, {"x": x}, None


def corners(count: int, random: np.random.Generator) -> Drawn:
    """Two unknowns: corners of 72 trackers of which up to all are lost, kernels from 0.01 to 1."""
    truth, lost = random.uniform(0.1, 0.9, (count, 1, 2)), random.uniform(0, 1, (count, 1))
    c = truth + 10 ** random.uniform(-3, -0.5, (count, 72, 1)) * random.standard_normal((count, 72, 2))
    c = np.where((random.random((count, 72)) < lost)[..., None], random.uniform(0, 1, c.shape), c)
    weights = {
        "alpha": random.normal(0, 1, (count, 72)),
        "beta": random.uniform(-2, 0, (count, 72)),
        "log_sigma": random.uniform(np.log(0.01), 0, (count, 1)) + random.normal(0, 0.3, (count, 72)),
        "s": random.normal(1, 0.05, (count, 72, 2)),
    }
    return weights, {"c": c, "t": random.uniform(0, 1, count)}, None


def poses(count: int, random: np.random.Generator) -> Drawn:
    """26 unknowns: bodies seen by four cameras, with noise, outliers, missing joints and priors of all strengths."""
    from workloads import Own

    drawn = Own.pose(1)
    B, P, m = drawn["B"], drawn["P"], drawn["m"]
    a = m + random.standard_normal((count, 26)) * 10 ** random.uniform(-1, 0.5, (count, 1))
    X = np.einsum("ced,bjd->bcje", P, np.tensordot(a, B, 1))
    X += 10 ** random.uniform(-3, -0.5, (count, 1, 1, 1)) * random.standard_normal(X.shape)
    outlier = random.random(X.shape[:3]) < random.uniform(0, 0.6, (count, 1, 1))
    X += outlier[..., None] * random.normal(0, 2, X.shape)
    weights = {
        "B": B, "P": P,
        "omega": (random.random((count, 4, 17)) < random.uniform(0.2, 1, (count, 1, 1))) * 1.0,
        "sigma": np.tile(10 ** random.uniform(-2, 0.5, (count, 1)), (1, 26)),
        "delta": 10 ** random.uniform(-2.5, 0.5, count),
    }  # fmt: skip
    return weights, {"X": X, "m": np.tile(m, (count, 1))}, {"a": np.tile(m, (count, 1))}


CASES: dict[str, tuple[str, int, Callable[[int, np.random.Generator], Drawn]]] = {
    "points": ("ransac", 50_000, points),
    "corners": ("fusion", 30_000, corners),
    "poses": ("pose", 20_000, poses),
}
PART = 5_000


def main() -> None:
    import wiberg as wb

    import energies

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="how many times 100,000 instances")
    options = parser.parse_args()
    total = np.zeros(len(wb.Status), int)
    for name, (energy, whole, draw) in CASES.items():
        kernel, random = wb.compile(getattr(energies, energy)()), np.random.default_rng(0)
        counts, steps, begin = np.zeros(len(wb.Status), int), 0, time.perf_counter()
        for first in range(0, round(whole * options.scale), PART):
            weights, data, start = draw(PART, random)
            solution = wb.minimise(kernel, weights, data, start=start)
            counts += np.bincount([int(s) for s in solution.status], minlength=len(counts))
            steps += int(solution.iterations.sum())
            for instance in np.flatnonzero(~solution.converged)[:20]:
                print(f"{name} {first + instance}: {' '.join(str(solution.explain(int(instance))).split())}")
        total += counts
        ended = ", ".join(f"{counts[s]:,} {s.name}" for s in wb.Status if counts[s])
        seconds = time.perf_counter() - begin
        print(f"{name:<8} {counts.sum():>7,}: {ended}; {steps / counts.sum():.2f} steps on average, {seconds:.0f} s")
    print(f"{'all':<8} {total.sum():>7,}: {100 * total[int(wb.Status.CONVERGED)] / total.sum():.3f} % CONVERGED")


if __name__ == "__main__":
    main()
