"""Paths of three minimisations: over contours, along an energy of one unknown, and over the steps.

python examples/paths.py [--figure output/path.png]
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import sympy as sp
import wiberg as wb

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--figure", type=Path, default=Path("output/path.png"))
figure_file = parser.parse_args().figure

n = sp.Symbol("n", integer=True, positive=True)
i, x, t = sp.Idx("i", (0, n - 2)), sp.IndexedBase("x", shape=(n,)), sp.Symbol("t", real=True)
valley = sp.Sum(100 * (x[i + 1] - x[i] ** 2) ** 2 + (1 - x[i]) ** 2, i)
wells = (t**2 - 1) ** 2 + t / 5 - 1
rosenbrock, chain = (wb.compile(wb.Energy(valley, variables=[x], name=name)) for name in ("rosenbrock", "chain"))
double_well = wb.compile(wb.Energy(wells, variables=[t], name="double well"))

solutions = [
    wb.minimise(rosenbrock, start={"x": [-1.2, 1.0]}),
    wb.minimise(double_well, start={"t": 0.04}),
    wb.minimise(chain, start={"x": np.where(np.arange(10) % 2, 1.0, -1.2)}),
]
figure, panels = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
for solution, axes in zip(solutions, panels, strict=True):
    wb.plot_path(solution, axes=axes)
    print(repr(solution))
figure_file.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(figure_file, dpi=100)
