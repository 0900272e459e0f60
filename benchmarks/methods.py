"""The tables of docs/minimisers.md on L-BFGS and on Newton's method by products.

    python benchmarks/methods.py             both
    python benchmarks/methods.py derivative  what the final Newton step does for the derivative of the minimiser
    python benchmarks/methods.py times       minimising with many coupled unknowns, one thread

`derivative`: dy*/dw along a random direction of the weights (relative to their sizes), by the formula -H^-1 C and by
differences of the minimiser itself, each from where L-BFGS ends (SciPy's L-BFGS-B with its defaults, from the same
start) and after Newton's method. The reference are differences of fourth order of minima to a gradient of 1e-12.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import sympy as sp
import wiberg as wb
from numpy.typing import NDArray
from scipy.optimize import minimize
from workloads import Workload, workloads

import energies

Floats = NDArray[np.float64]

STEP = 1e-4
"""Differences are taken this part of the weights apart."""

WORK = {"W1": energies.ransac, "W2": energies.fusion, "W3": energies.pose}


def derivative_errors(kernel: Any, work: Workload, instance: int) -> dict[str, float]:
    """Of one instance: the gradient where L-BFGS ends, and the relative errors of the derivative."""
    random = np.random.default_rng(0)
    direction = {key: random.standard_normal(np.shape(value)) * value for key, value in work.weights.items()}
    along = np.concatenate([np.ravel(direction[key]) for key in kernel.weights.names])
    data = {k: v[instance] if v.ndim > len(kernel.energy.shapes[k]) else v for k, v in work.data.items()}
    begin = {} if work.start is None else {"start": {key: v[instance] for key, v in work.start.items()}}
    start = wb.minimise(kernel, work.weights, data, **begin, max_iterations=0).variables

    def moved(h: float) -> dict[str, Any]:
        return {key: value + h * direction[key] for key, value in work.weights.items()}

    def by_newton(h: float, method: str = "l-bfgs", gtol: float = 1e-8) -> Floats:
        found = wb.minimise(kernel, moved(h), data, start=start, method=method, gtol=gtol, max_iterations=500)
        return np.asarray(kernel.variables.pack(found.variables))

    def by_lbfgs(h: float) -> Floats:
        w = moved(h)

        def energy(y: Floats) -> tuple[float, Floats]:
            at = kernel.variables.unpack(y)
            return kernel.value(at, w, data), kernel.gradient(at, w, data)

        return np.asarray(minimize(energy, kernel.variables.pack(start), jac=True, method="L-BFGS-B").x)

    def formula(y: Floats) -> Floats:
        point = kernel.variables.unpack(y), work.weights, data
        return np.asarray(-np.linalg.solve(kernel.hessian(*point), kernel.cross(*point) @ along))

    def differences(minimiser: Callable[[float], Floats]) -> Floats:
        near, far = (minimiser(h) - minimiser(-h) for h in (STEP, 2 * STEP))
        return (8 * near - far) / (12 * STEP)

    reference = differences(lambda h: by_newton(h, "trust-region", 1e-12))
    end = by_lbfgs(0.0)
    found = {
        "formula without": formula(end),
        "formula with": formula(by_newton(0.0)),
        "differences without": differences(by_lbfgs),
        "differences with": differences(by_newton),
    }
    size = np.linalg.norm(reference)
    gradient = np.abs(kernel.gradient(kernel.variables.unpack(end), work.weights, data)).max()
    return {"gradient": float(gradient)} | {k: float(np.linalg.norm(v - reference) / size) for k, v in found.items()}


def show_derivatives(count: int = 50) -> None:
    print(f"relative errors of dy*/dw, the median (the largest) of {count} instances")
    head = "formula, L-BFGS", "formula, then Newton", "differences, L-BFGS", "differences, then Newton"
    print(f"{'':14}{'|gradient| there':>20}" + "".join(f"{h:>26}" for h in head))
    every = workloads()
    for name in WORK:
        kernel = wb.compile(WORK[name]())
        rows = [derivative_errors(kernel, every[name], instance) for instance in range(count)]
        cells = []
        for key in rows[0]:
            values = np.array([row[key] for row in rows])
            cells.append(f"{np.median(values):.0e} ({values.max():.0e})")
        print(f"{name} {WORK[name]().name:<11}{cells[0]:>20}" + "".join(f"{cell:>26}" for cell in cells[1:]))


def regression() -> wb.Energy:
    """Robust regression: E = sum_k sqrt(1 + r_k^2) + w/2 sum_i y_i^2,  r = A y - b: all unknowns are coupled."""
    n, k = sp.symbols("n k", integer=True, positive=True)
    i, q = sp.Idx("i", n), sp.Idx("q", k)
    y, b, r = (sp.IndexedBase(s, shape=(e,)) for s, e in (("y", n), ("b", k), ("r", k)))
    A, w = sp.IndexedBase("A", shape=(k, n)), sp.Symbol("w", positive=True)
    residual = {r[q]: sp.Sum(A[q, i] * y[i], i) - b[q]}
    fit = sp.Sum(sp.sqrt(1 + r[q] ** 2), q)
    return wb.Energy(fit + w * sp.Sum(y[i] ** 2, i) / 2, variables=[y], weights=[w], data=[A, b], where=residual)


def drawn(unknowns: int, spread: float) -> dict[str, Floats]:
    """Data of a regression whose columns have sizes from 1 to 1 / spread."""
    random = np.random.default_rng(0)
    A = random.standard_normal((3 * unknowns, unknowns)) * np.geomspace(1, 1 / spread, unknowns) / np.sqrt(unknowns)
    return {"A": A, "b": A @ random.standard_normal(unknowns) + random.standard_t(2, 3 * unknowns)}


def show_times(sizes: tuple[int, ...] = (20, 50, 100, 200, 400, 800), repeats: int = 5) -> None:
    kernel = wb.compile(regression())
    wb.set_threads(1)
    methods = "trust-region", "l-bfgs", "newton-cg"
    print("\nminimising robust regression, ms (steps, status if not CONVERGED); the least of interleaved repeats")
    print(f"{'':34}" + "".join(f"{m:>30}" for m in methods))
    for spread, w, most in ((10.0, 0.1, 800), (1000.0, 1e-6, 400)):
        for unknowns in (size for size in sizes if size <= most):
            data, start, best = drawn(unknowns, spread), {"y": np.zeros(unknowns)}, dict.fromkeys(methods, np.inf)
            notes = {}
            for _ in range(repeats if unknowns < 400 else 2):
                for method in methods:
                    begun = time.perf_counter()
                    found = wb.minimise(kernel, {"w": w}, data, start=start, method=method, max_iterations=2000)
                    best[method] = min(best[method], time.perf_counter() - begun)
                    notes[method] = f"{found.iterations}{'' if found.converged else ' ' + found.status.name}"
            cells = (f"{1e3 * best[m]:.3g} ({notes[m]})" for m in methods)
            print(f"{unknowns:>5} unknowns, sizes 1 to {1 / spread:<7g}" + "".join(f"{c:>30}" for c in cells))
    wb.set_threads(None)


if __name__ == "__main__":
    if "times" not in sys.argv[1:]:
        show_derivatives()
    if "derivative" not in sys.argv[1:]:
        show_times()
