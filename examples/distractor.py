"""Fusing twenty points of which six agree on the wrong one: learning through jumps between minima in two dimensions.

Fourteen trackers see a point, each with a noise of its own, from 0.4 to 14; six sit together on a distractor, which is
somewhere else in every frame. The estimate is the lowest minimum y* of

    E(y) = -sum_k p_k exp(-|y - c_k|^2 / (2 s_k^2))

with 40 weights to learn, importances p and widths s; L1 loss. The damped derivative moves the minimum on the
distractor, and that on the point, each a little. That the first should not be the lowest only `wb.Selection` sees.

    python examples/distractor.py
"""

from __future__ import annotations

import argparse

import numpy as np
import sympy as sp
import wiberg as wb
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TRACKERS, LOCKED, BATCH = 20, 6, 32
NOISE = np.concatenate([np.full(LOCKED, 0.2), np.geomspace(0.4, 14.0, TRACKERS - LOCKED)])
RATE, MOMENTUM = 0.05, 0.9
STARTS = {"wide": 1.0, "middle": 0.5, "narrow": 0.2}


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


def draw(count: int, seed: int) -> tuple[Floats, Floats]:
    """Points (count, 20, 2) and the truth (count, 2)."""
    random = np.random.default_rng(seed)
    truth = random.uniform(-10, 10, (count, 2))
    centre = np.repeat(truth[:, None], TRACKERS, axis=1)
    centre[:, :LOCKED] = random.uniform(-10, 10, (count, 1, 2))
    return centre + NOISE[:, None] * random.standard_normal((count, TRACKERS, 2)), truth


def mean_loss(estimate: Floats, truth: Floats) -> float:
    return float(np.abs(estimate - truth).sum(axis=1).mean())


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1_000, help="steps of 32 fresh frames")
    options = parser.parse_args(arguments)
    energy, loss = declare()
    kernel = wb.compile(energy)
    samples, truth = draw(options.steps * BATCH, 1)
    fresh, fresh_truth = draw(4_000, 2)
    found = {"median": mean_loss(np.median(fresh, axis=1), fresh_truth)}
    print(f"{'median':>10}  {'':>6}  loss {found['median']:.3f}")

    def batch(step: int) -> wb.Batch:
        these = slice(step * BATCH, (step + 1) * BATCH)
        return wb.Batch(data={"c": samples[these]}, targets={"truth": truth[these]})

    for name, selection in (("damped", None), ("selection", wb.Selection())):
        for start, width in STARTS.items():
            learner = wb.Learner(
                kernel,
                loss,
                {name: wb.Weight(np.full(TRACKERS, value), scale="log") for name, value in (("p", 1.0), ("s", width))},
                wb.SGD(RATE, MOMENTUM),
                selection=selection,
            )
            learner.fit(batch, steps=options.steps, progress=False)
            found[f"{name}, {start}"] = mean_loss(learner.predict({"c": fresh})["y"], fresh_truth)
            print(f"{name:>10}  {start:>6}  loss {found[f'{name}, {start}']:.3f}")
    return found


if __name__ == "__main__":
    main()
