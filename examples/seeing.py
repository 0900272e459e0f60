"""Seeing what is learnt: the landscape of an energy before and after, how its minimum moves, and a report.

Points vote for a place: E(y; w, x) = -sum_i exp(-sum_a ((x_ia - y_a) / w_a)^2). Half of them lie around the place that
is wanted, spread four times as far across as up; the rest lie anywhere. The two widths w are learnt.

python examples/seeing.py [--out output]
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import sympy as sp
import wiberg as wb

matplotlib.use("Agg")

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--out", type=Path, default=Path("output"), help="folder for the figures and the report")
out = parser.parse_args().out
out.mkdir(parents=True, exist_ok=True)

n = sp.Symbol("n", integer=True, positive=True)
i, q, a = sp.Idx("i", n), sp.Idx("q", n), sp.Idx("a", 2)
x = sp.IndexedBase("x", shape=(n, 2))
y, truth = (sp.IndexedBase(name, shape=(2,)) for name in ("y", "truth"))
w = sp.IndexedBase("w", shape=(2,), positive=True)
votes = -sp.Sum(sp.exp(-sp.Sum(((x[i, a] - y[a]) / w[a]) ** 2, a)), i)
kernel = wb.compile(wb.Energy(votes, variables=[y], weights=[w], data=[x], candidates={y[a]: x[q, a]}, name="votes"))

random = np.random.default_rng(0)
places = random.uniform(-5, 5, (400, 2))
points = random.uniform(-10, 10, (400, 30, 2))
points[:, :15] = places[:, None] + random.normal(size=(400, 15, 2)) * [2.0, 0.5]
learner = wb.Learner(
    kernel,
    wb.squared_error(y, truth),
    weights={"w": wb.Weight([0.5, 0.5], scale="log")},
    optimiser=wb.SGD(0.02, momentum=0.9),
)
before = learner.weights
batches = [wb.Batch(data={"x": points[k::10]}, targets={"truth": places[k::10]}) for k in range(10)]
learner.fit(batches, steps=300)
print(learner.report(out / "report.html"))

one = {"x": points[2]}
landscape = wb.plot_energy(kernel, {"before learning": before, "after learning": learner.weights}, one)
landscape.savefig(out / "landscape.png", dpi=100)
movement = wb.plot_movement(kernel, {"w": [2.0, 1.0]}, one, weight="w[0]", change=1.5)
movement.savefig(out / "movement.png", dpi=100)
