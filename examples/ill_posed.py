"""Learning through an ill-posed energy: two readings of five unknowns, completed by the solution of least length.

The Hessian is singular, and its null space turns with the weights. So the undamped derivative of the minimum does not
exist, while the damped one leads to the weights that made the examples (docs/minimisers.md, quadratic energies).
"""

import numpy as np
import sympy as sp
import wiberg as wb

n, m = sp.symbols("n m", integer=True, positive=True)
i, j = sp.Idx("i", n), sp.Idx("j", m)
y, mu = sp.IndexedBase("y", shape=(n,)), sp.IndexedBase("mu", shape=(n,))  # the unknowns, and what they should be
A, reading = sp.IndexedBase("A", shape=(m, n)), sp.IndexedBase("reading", shape=(m,))  # weights; data
misfit = sp.Sum((sp.Sum(A[j, i] * y[i], i) - reading[j]) ** 2, j) / 2
kernel = wb.compile(wb.Energy(misfit, variables=[y], weights=[A], data=[reading], name="readings"))
loss = wb.Loss(sp.Sum((y[i] - mu[i]) ** 2, i), variables=[y], targets=[mu])

random = np.random.default_rng(0)
truth, start = random.normal(size=(2, 5)), {"y": np.zeros(5)}
readings = random.normal(size=(100, 2))
batch = wb.Batch({"reading": readings}, {"mu": readings @ np.linalg.pinv(truth).T}, start=start)
first = truth + 0.5 * random.normal(size=truth.shape)
solution = wb.minimise(kernel, {"A": first}, {"reading": readings}, start=start)
print(f"quadratic: {kernel.quadratic}; {solution!r}")
try:
    wb.implicit_gradient(kernel, solution, {"y": solution.variables["y"]}, damping=0.0)
except wb.NumericalError as error:
    print(f"undamped: {error}")
learner = wb.Learner(kernel, loss, weights={"A": first}, optimiser=wb.SGD(0.05, momentum=0.9), damping=0.1)
history = learner.fit(batch, steps=2000)
print(f"damped: mean loss {history.loss[0]:.1e} before learning, {history.loss[-1]:.1e} after")
print(f"largest error of the weights: {abs(learner.weights['A'] - truth).max():.1e}")
