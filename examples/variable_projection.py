"""Variable projection: a sum of decays, whose heights are solved out while their rates are minimised over.

Draws one decay over contours of its energy, the path of both variables and the path along the valley that is left of
it; and how far the energy of two decays is from its minimum over the steps (docs/minimisers.md).

python examples/variable_projection.py [--figure output/variable_projection.png]
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
parser.add_argument("--figure", type=Path, default=Path("output/variable_projection.png"))
figure_file = parser.parse_args().figure

n, m = sp.symbols("n m", integer=True, positive=True)
i, k = sp.Idx("i", n), sp.Idx("k", m)
height, rate = sp.IndexedBase("height", shape=(m,)), sp.IndexedBase("rate", shape=(m,))
x, time, ridge = sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("time", shape=(n,)), sp.Symbol("ridge", positive=True)
misfit = sp.Sum((x[i] - sp.Sum(height[k] * sp.exp(-rate[k] * time[i]), k)) ** 2, i)
energy = wb.Energy(
    misfit + ridge * sp.Sum(height[k] ** 2, k), variables=[height, rate], weights=[ridge], data=[x, time], name="decays"
)
kernel, weights = wb.compile(energy), {"ridge": 1e-3}

times = np.linspace(0, 5, 40)
one = {"time": times, "x": 2.0 * np.exp(-0.7 * times)}
two = {"time": times, "x": 3.0 * np.exp(-0.5 * times) + 2.0 * np.exp(-2.0 * times) + 0.01 * np.sin(17 * times)}
starts = ({"rate": [3.5], "height": [0.3]}, {"rate": [0.3, 1.5], "height": [1.0, 1.0]})


def both(data, start):
    """The joint minimisation, and that of the rates alone, which needs no heights to start from."""
    rates = {"rate": start["rate"]}
    return (
        wb.minimise(kernel, weights, data, start=start, trace=True),
        wb.minimise(kernel, weights, data, start=rates, eliminate=[height], trace=True),
    )


figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
rates, heights = np.linspace(-0.1, 3.8, 200), np.linspace(-0.5, 4.2, 200)
grid = {"rate": np.tile(rates, 200)[:, None], "height": np.repeat(heights, 200)[:, None]}
values = kernel.value(grid, weights, one).reshape(200, 200)
left.contour(rates, heights, np.log10(values), levels=24, colors="0.8", linewidths=0.8)
valley = wb.minimise(kernel, weights, one, start={"rate": rates[:, None]}, eliminate=[height], max_iterations=0)
left.plot(rates, valley.variables["height"][:, 0], color="darkturquoise", linewidth=1, label="heights solved out")
for solution, colour, label in zip(
    both(one, starts[0]), ("black", "crimson"), ("joint", "along the valley"), strict=True
):
    path = solution.trace.variables
    left.plot(path["rate"][:, 0], path["height"][:, 0], "o-", color=colour, markersize=3, linewidth=1, label=label)
left.set(xlabel="rate", ylabel="height", ylim=(heights[0], heights[-1]), title="one decay")
left.legend()

pair = both(two, starts[1])
lowest = min(solution.energy for solution in pair)
for solution, colour, label in zip(pair, ("black", "crimson"), ("joint", "heights solved out"), strict=True):
    right.semilogy(np.maximum(solution.trace.energy - lowest, 1e-16), "o-", color=colour, markersize=3, label=label)
    print(f"{label}: {solution!r}")
right.set(xlabel="step", ylabel="energy above its minimum", title="two decays")
right.legend()
figure_file.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(figure_file, dpi=100)

jacobians = [wb.implicit_jacobian(kernel, solution, damping=0.1) for solution in pair]
print(f"the damped derivatives differ by {abs(jacobians[0] - jacobians[1]).max():.0e}")
