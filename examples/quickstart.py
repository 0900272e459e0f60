"""A user's own energy: a line through points, a quarter of them outliers; its two weights are learnt from examples."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import sympy as sp
import wiberg as wb

n = sp.Symbol("n", integer=True, positive=True)
i = sp.Idx("i", n)
x, y = sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("y", shape=(n,))  # data: the points
slope, intercept, a, b = sp.symbols("slope intercept a b", real=True)  # variables: the line; a, b: the true one
scale, width = sp.symbols("scale width", positive=True)  # weights: size of the noise, and where outliers begin
formula = sp.Sum(wb.cauchy(((y[i] - slope * x[i] - intercept) / scale) ** 2, width), i) + (slope**2 + intercept**2) / 2
kernel = wb.compile(wb.Energy(formula, variables=[slope, intercept], weights=[scale, width], data=[x, y]))

random = np.random.default_rng(0)
lines, xs = random.normal(size=(2, 400)), random.uniform(-1, 1, (400, 30))
ys = lines[0, :, None] * xs + lines[1, :, None] + 0.1 * random.normal(size=xs.shape)
ys[:, :8] += random.normal(2, 2, (400, 8))
examples = {"x": xs[:200], "y": ys[:200]}, {"a": lines[0, :200], "b": lines[1, :200]}
fresh, truth, start = {"x": xs[200:], "y": ys[200:]}, lines[:, 200:], {"slope": 0.0, "intercept": 0.0}
loss = wb.Loss((slope - a) ** 2 + (intercept - b) ** 2, variables=[slope, intercept], targets=[a, b])
learner = wb.Learner(kernel, loss, weights={"scale": 1.0, "width": 2.0}, optimiser=wb.SGD(0.1, momentum=0.9))
fits = {"before learning": learner.predict(fresh, start=start)}
learner.fit(wb.Batch(*examples, start=start), steps=100)
fits["after learning"] = learner.predict(fresh, start=start)
print(learner.weights)
for name, fit in fits.items():
    print(f"mean error {name}: {np.hypot(fit['slope'] - truth[0], fit['intercept'] - truth[1]).mean():.3f}")
if find_spec("matplotlib"):
    import matplotlib.pyplot as plt

    plt.plot(fresh["x"][0], fresh["y"][0], "k.")
    for name, fit in fits.items():
        plt.plot(fresh["x"][0], fit["slope"][0] * fresh["x"][0] + fit["intercept"][0], label=name)
    plt.legend()
    Path("output").mkdir(exist_ok=True)
    plt.savefig("output/quickstart.png")
