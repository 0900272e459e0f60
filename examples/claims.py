"""What the paper says of its method, tried on its own one-dimensional example (`ransac.py`).

    python examples/claims.py            # all; or some of: newton adaptive damping bound programme

newton      one Newton step from y*(w) at w + d misses the new minimum by O(d^2) (equations 7 and 8)
adaptive    adaptive methods stop early (section 3)
damping     lambda needs no tuning; it matters most at the start (sections 3 and 5)
bound       |dy*/dw| <= |d grad/dw| / lambda
programme   what (H + lambda I)^-1 g is the solution of (under equation 10)

docs/learning.md has what it prints, and why.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import ransac
import wiberg as wb
from numpy.typing import NDArray
from scipy.optimize import minimize

Floats = NDArray[np.float64]
State = dict[str, Floats]

CLAIMS = 31
"""Stream of random numbers."""


# ---------------------------------------------------------------------------------------------- newton


def newton(kernel: wb.Kernel, _steps: int) -> Iterator[str]:
    sigma, draws = 8.0, 500
    samples, _ = ransac.draw(draws, 0, CLAIMS)
    x = {"x": samples}
    here = wb.minimise(kernel, {"sigma": sigma}, x, gtol=1e-12).variables
    changes = np.geomspace(1e-4, 0.1, 7)
    errors = []
    for d in changes:
        w = {"sigma": sigma + d}
        there = wb.minimise(kernel, w, x, start=here, gtol=1e-12).variables["t"]
        _, gradient, hessian = kernel.value_gradient_hessian(here, w, x)
        steps = [gradient[:, 0] / (hessian[:, 0, 0] + damping) for damping in (0.0, 0.1)]
        errors.append([np.median(np.abs(here["t"] - step - there)) for step in steps])
    yield "       d    error of one step, median of 500 draws: lambda = 0, lambda = 0.1"
    yield from (f"{d:8.1e}    {plain:.2e}    {damped:.2e}" for d, (plain, damped) in zip(changes, errors, strict=True))
    slopes = np.polyfit(np.log(changes), np.log(errors), 1)[0]
    yield f"log-log slopes {slopes[0]:.2f}, {slopes[1]:.2f}"


# ---------------------------------------------------------------------------------------------- adaptive


@dataclass(frozen=True)
class Adadelta:
    """Adadelta (Zeiler 2012), as an optimiser of a learner: an example of one's own."""

    learning_rate: float = 1.0
    clip: None = None
    varies: bool = False

    def rates(self, sizes: Mapping[str, int], step: int = 0) -> Floats:
        return np.full(sum(sizes.values()), self.learning_rate)

    def start(self, size: int) -> State:
        return {"changes": np.zeros(size), "squares": np.zeros(size)}

    def step(self, weights: Floats, gradient: Floats, state: State, rates: Floats) -> tuple[Floats, State]:
        squares = 0.9 * state["squares"] + 0.1 * gradient**2
        change = np.sqrt((state["changes"] + 1e-6) / (squares + 1e-6)) * gradient
        changes = 0.9 * state["changes"] + 0.1 * change**2
        return weights - rates * change, {"changes": changes, "squares": squares}

    def redirect(self, state: State, change: Callable[[Floats], Floats]) -> State:
        return state  # it has no direction

    def describe(self) -> dict[str, Any]:
        return {"kind": "Adadelta", "learning_rate": self.learning_rate}


def adaptive(kernel: wb.Kernel, steps: int) -> Iterator[str]:
    places = steps // 5, steps // 2, steps
    yield f"{'':>12}{'rate':>8}  sigma after {places} steps from 2, 8 and 40; the paper's SGD goes to 20"
    for optimiser in (wb.Adam(1e-3), wb.Adam(1e-2), wb.Adam(1e-1), Adadelta(), wb.SGD(ransac.RATE, ransac.MOMENTUM)):
        line = f"{type(optimiser).__name__:>12}{optimiser.learning_rate:8g}"
        for start in (2.0, 8.0, 40.0):
            sigma = np.abs(learn(kernel, start, steps, optimiser=optimiser).weights["sigma"])
            line += f"  {', '.join(f'{sigma[at]:5.1f}' for at in places)}  "
        yield line


# ---------------------------------------------------------------------------------------------- damping


def learn(kernel: wb.Kernel, start: float, steps: int, seed: int = 0, **options: object) -> wb.History:
    samples, means = ransac.draw(steps, seed, ransac.TRAINING)
    _, loss = ransac.declare()
    settings = {"optimiser": wb.SGD(ransac.RATE, ransac.MOMENTUM), **options}
    learner = wb.Learner(kernel, loss, {"sigma": start}, **settings)
    return learner.fit(
        lambda step: wb.Batch(data={"x": samples[step]}, targets={"mean": means[step]}), steps=steps, progress=False
    )


def damping(kernel: wb.Kernel, steps: int) -> Iterator[str]:
    last = steps // 5
    yield f"lambda  sigma, mean of the last {last:,} of {steps:,} steps, from 2, 8 and 40   largest gradient"
    for strength in (0.0, 0.01, 0.1, 1.0, 10.0):
        runs = [learn(kernel, start, steps, damping=strength) for start in (2.0, 8.0, 40.0)]
        ends = ", ".join(f"{np.abs(run.weights['sigma'])[-last:].mean():5.1f}" for run in runs)
        yield f"{strength:6g}  {ends}   {max(run.gradient_norm.max() for run in runs):12.3g}"
    yield "share of draws whose curvature is below lambda = 0.1, over the steps of a run from 1:"
    run = learn(kernel, 1.0, steps)
    for begin, end in pairwise((0, steps // 20, steps // 10, steps // 5, steps // 2, steps)):
        sigma = np.abs(run.weights["sigma"][begin:end]).mean()
        yield f"  steps {begin:5} to {end:5}, sigma {sigma:4.1f}: {100 * run.dominated[begin:end].mean():5.1f} %"
    yield "and at a fixed sigma, 5,000 draws:"
    samples, _ = ransac.draw(5_000, 1, CLAIMS)
    for sigma in (1.0, 2.0, 4.0, 8.0, 20.0, 40.0):
        curvature = wb.minimise(kernel, {"sigma": sigma}, {"x": samples}).curvature
        share = 100 * np.mean(curvature < 0.1)
        yield f"  sigma {sigma:4g}: {share:5.1f} %, median curvature {np.median(curvature):.3f}"


# ---------------------------------------------------------------------------------------------- bound


def bound(kernel: wb.Kernel, _steps: int) -> Iterator[str]:
    """At minima, and at points that are none, where H + lambda may vanish."""
    samples, _ = ransac.draw(20_000, 2, CLAIMS)
    anywhere = {"t": np.random.default_rng(CLAIMS).uniform(-ransac.RANGE, ransac.RANGE, len(samples))}
    for name, options in (("minima", {}), ("any points, H of both signs", {"start": anywhere, "max_iterations": 0})):
        solution = wb.minimise(kernel, {"sigma": 8.0}, {"x": samples}, **options)
        cross = kernel.cross(solution.variables, {"sigma": 8.0}, {"x": samples})[:, 0, 0]
        hessian = kernel.value_gradient_hessian(solution.variables, {"sigma": 8.0}, {"x": samples})[2][:, 0, 0]
        paper = np.abs(cross / (hessian + 0.1)) * 0.1 / np.abs(cross)
        ours = np.abs(wb.implicit_jacobian(kernel, solution)[:, 0, 0]) * 0.1 / np.abs(cross)
        yield (
            f"{name}: lambda |dy/dw| / |d grad/dw| at most {paper.max():.4g} by equation 10, {ours.max():.4g} with the "
            "shift"
        )


# ---------------------------------------------------------------------------------------------- programme


def programme(kernel: wb.Kernel, _steps: int) -> Iterator[str]:
    """Both programmes solved by SciPy under |y| <= k, beside the formulas with a multiplier that gives |y| = k."""
    random = np.random.default_rng(CLAIMS)
    half = random.standard_normal((4, 4))
    hessian, g = half @ half.T + 0.1 * np.eye(4), random.standard_normal(4)
    k = 0.5 * np.linalg.norm(np.linalg.solve(hessian, g))
    within = {"type": "ineq", "fun": lambda y: k**2 - y @ y, "jac": lambda y: -2 * y}
    damped = on_sphere(lambda m: -np.linalg.solve(hessian + m * np.eye(4), g), k)
    ridge = on_sphere(lambda m: -np.linalg.solve(hessian @ hessian + m * np.eye(4), hessian @ g), k)
    for name, value in (
        ("min |H y + g|^2", lambda y: ((hessian @ y + g) ** 2).sum()),
        ("min y'H y/2 + g'y", lambda y: y @ hessian @ y / 2 + g @ y),
    ):
        found = minimize(value, np.zeros(4), method="SLSQP", constraints=[within], options={"ftol": 1e-15}).x
        yield (
            f"{name:>18} under |y| <= k: differs from -(H + m I)^-1 g by {np.linalg.norm(found - damped):.1e}, "
            f"from -(H^2 + m I)^-1 H g by {np.linalg.norm(found - ridge):.1e}"
        )


def on_sphere(solution: object, k: float) -> Floats:
    """The solution whose norm is k: by bisection of the multiplier."""
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.linalg.norm(solution(middle)) > k else (low, middle)
    return solution(high)


PARTS = {"newton": newton, "adaptive": adaptive, "damping": damping, "bound": bound, "programme": programme}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="by default all")
    parser.add_argument("--steps", type=int, default=10_000, help="of each run that learns")
    options = parser.parse_args(arguments)
    energy, _ = ransac.declare()
    kernel = wb.compile(energy)
    for name in options.parts or PARTS:
        print(f"\n{name}")
        for line in PARTS[name](kernel, options.steps):
            print(line, flush=True)


if __name__ == "__main__":
    main()
