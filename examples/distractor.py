"""Fusing twenty points of which six agree on the wrong one: learning through jumps between minima in two dimensions.

Fourteen trackers see a point, each with a noise of its own, and each is lost in 40 % of the frames: then it is within a
square around the point. Six sit together on a distractor, which is somewhere else in every frame, sometimes near. The
estimate is the lowest minimum y* of

    E(y) = -sum_k p_k exp(-|y - c_k|^2 / (2 s_k^2))

with 40 weights to learn, importances p and widths s, by L1 loss, from 8,000 steps of 32 fresh frames. The damped
derivative moves the minimum on the distractor, and that on the point, each a little. That the first should not be the
lowest only `wb.Selection` sees.

    python examples/distractor.py
    python examples/distractor.py --best        # and how much lower the loss gets without any derivative
"""

from __future__ import annotations

import argparse

import numpy as np
import sympy as sp
import wiberg as wb
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TRACKERS, LOCKED, BATCH = 20, 6, 32
# Fitted: the noise of the best and of the worst tracker, the extent of the distractor, and the first widths below, to
# figures of a generator that is not known (docs/learning.md).
BEST, WORST, EXTENT = 0.2, 12.5, 6.07
NOISE = np.concatenate([np.full(LOCKED, 0.1), np.geomspace(BEST, WORST, TRACKERS - LOCKED)])
LOST, ANYWHERE = 0.4, 10.0
STARTS = (2.0, 1.0, 0.75, 0.5, 0.15)
RATE, MOMENTUM = 0.1, 0.9


def declare() -> tuple[wb.Energy, wb.Loss]:
    n = sp.Symbol("n", integer=True, positive=True)
    k, q = sp.Idx("k", n), sp.Idx("q", n)
    y, truth = sp.IndexedBase("y", shape=(2,)), sp.IndexedBase("truth", shape=(2,))
    p, s = (sp.IndexedBase(name, shape=(n,), positive=True) for name in ("p", "s"))
    c = sp.IndexedBase("c", shape=(n, 2))
    distance2 = (y[0] - c[k, 0]) ** 2 + (y[1] - c[k, 1]) ** 2
    energy = wb.Energy(
        -sp.Sum(p[k] * sp.exp(-distance2 / (2 * s[k] ** 2)), k),
        variables=[y],
        weights=[p, s],
        data=[c],
        candidates={y[0]: c[q, 0], y[1]: c[q, 1]},
        name="distractor",
    )
    return energy, wb.absolute_error(y, truth)


def draw(count: int, seed: int | tuple[int, int]) -> tuple[Floats, Floats]:
    """Points (count, 20, 2) and the truth (count, 2)."""
    random = np.random.default_rng(seed)
    distractor = random.uniform(-EXTENT, EXTENT, (count, 1, 2))
    off = NOISE[:, None] * random.standard_normal((count, TRACKERS, 2))
    lost = random.uniform(size=(count, TRACKERS)) < LOST
    lost[:, :LOCKED] = False
    off[lost] = random.uniform(-ANYWHERE, ANYWHERE, (int(lost.sum()), 2))
    off[:, :LOCKED] += distractor
    truth = random.uniform(-10, 10, (count, 2))
    return truth[:, None] + off, truth


def mean_loss(estimate: Floats, truth: Floats) -> float:
    return float(np.abs(estimate - truth).sum(axis=1).mean())


def learnt(kernel: wb.Kernel, loss: wb.Loss, width: float, selection: wb.Selection | None, steps: int) -> wb.Learner:
    """A learner of steps with fresh frames."""

    def batch(step: int) -> wb.Batch:
        points, truth = draw(BATCH, (1, step))
        return wb.Batch(data={"c": points}, targets={"truth": truth})

    weights = {name: wb.Weight(np.full(TRACKERS, first), scale="log") for name, first in (("p", 1.0), ("s", width))}
    optimiser = wb.SGD(wb.CosineDecay(RATE, steps), MOMENTUM)
    learner = wb.Learner(kernel, loss, weights, optimiser, selection=selection)
    learner.fit(batch, steps=steps, progress=False)
    return learner


def searched(kernel: wb.Kernel, weights: dict[str, Floats], sweeps: int = 3, frames: int = 10_000) -> dict[str, Floats]:
    """Weights changed one after the other wherever the loss of the lowest minima falls: no derivative, nothing soft."""
    points, truth = draw(frames, 3)
    best = np.log(np.concatenate([weights["p"], weights["s"]]))
    change = np.full(len(best), 0.2)

    def unpacked(logarithms: Floats) -> dict[str, Floats]:
        return dict(zip(("p", "s"), np.exp(logarithms).reshape(2, -1), strict=True))

    def loss(logarithms: Floats) -> float:
        solution = wb.minimise(kernel, unpacked(logarithms), {"c": points}, minima=2, starts="basins")
        return mean_loss(solution.variables["y"], truth)

    lowest = loss(best)
    for _ in range(sweeps):
        for k in range(len(best)):
            for sign in (1.0, -1.0):
                tried = best.copy()
                tried[k] += sign * change[k]
                value = loss(tried)
                if value < lowest:
                    best, lowest = tried, value
                    change[k] *= 1.5
                    break
            else:
                change[k] /= 2.0
    return unpacked(best)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8_000, help="steps of 32 fresh frames")
    parser.add_argument("--widths", type=float, nargs="+", default=STARTS, help="first widths, one learner for each")
    parser.add_argument("--best", action="store_true", help="also search on from the best of them")
    options = parser.parse_args(arguments)
    energy, loss = declare()
    kernel = wb.compile(energy)
    fresh, truth = draw(20_000, 2)
    found = {"median": mean_loss(np.median(fresh, axis=1), truth)}
    print(f"{'median':>10}  {'':>12}  loss {found['median']:.3f}")
    learners: dict[float, wb.Learner] = {}
    selection = wb.Selection(tau=wb.CosineDecay(1.0, options.steps, 0.1))
    for name, chosen in (("damped", None), ("selection", selection)):
        for width in options.widths:
            learner = learnt(kernel, loss, width, chosen, options.steps)
            value = found[f"{name}, {width:g}"] = mean_loss(learner.predict({"c": fresh})["y"], truth)
            learners[value] = learner
            print(f"{name:>10}  widths {width:<5g}  loss {value:.3f}", flush=True)
    if options.best:
        weights = searched(kernel, {name: np.asarray(w) for name, w in learners[min(learners)].weights.items()})
        solution = wb.minimise(kernel, weights, {"c": fresh}, minima=2, starts="basins")
        found["searched"] = mean_loss(solution.variables["y"], truth)
        print(f"{'searched':>10}  {'':>12}  loss {found['searched']:.3f}", flush=True)
    return found


if __name__ == "__main__":
    main()
