"""The 35 problems of More, Garbow and Hillstrom (1981): every method of wiberg beside SciPy, JAX and optimistix.

    python benchmarks/performance_profile.py [--figure docs/images/more_garbow_hillstrom.png] [--standard]

Prints the tables of docs/minimisers.md; the figure needs matplotlib. Problems, starts and minima are those of
tests/more_garbow_hillstrom, and so is what counts as solved, as a step and as an evaluation (runs.py there).
`--standard` leaves out 10 and 100 times the start. JAX differentiates the formula itself, by tests/jax_reference.py.

A performance profile (E. Dolan, J. More, Mathematical Programming 91, 2002, 201-213) shows for each method the share of
problems that it solves with at most r times the steps of the best method.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from more_garbow_hillstrom import FACTORS, PROBLEMS, Problem  # noqa: E402
from more_garbow_hillstrom.runs import GTOL, OURS, Run, by_scipy, by_wiberg  # noqa: E402

LIMIT = 3000
"""Steps that each method may try."""

Method = Callable[[Problem, int], Run]
Found = dict[tuple[str, int, int], Run]  # by method, factor of the start and number of the problem


# ---------------------------------------------------------------------------------------------- methods


def ours(problem: Problem, factor: int, *, method: str) -> Run:
    import wiberg as wb

    try:
        return by_wiberg(problem, method, factor, LIMIT)
    except wb.WibergError as refused:  # a method may ask for a kind of energy
        return Run(float("nan"), 0, 0, type(refused).__name__, False)


def theirs(problem: Problem, factor: int, *, method: str) -> Run:
    return by_scipy(problem, method, factor, LIMIT)


def jax_energy(problem: Problem) -> Callable[[Any], Any]:
    """The energy of a flat point, from its SymPy expression."""
    import jax.numpy as jnp
    from jax_reference import Evaluation

    energy, shape = problem.energy(), problem.start.shape
    sizes: dict[Any, int] = {}
    for name, array in {"y": problem.start, **problem.data}.items():
        sizes |= dict(zip(energy.shapes[name], array.shape, strict=True))
    extents = {extent: sizes[extent] for extent in energy.extents}
    data = {name: jnp.asarray(array, float) for name, array in problem.data.items()}

    def value(y: Any) -> Any:
        return jnp.asarray(Evaluation(energy, {"y": y.reshape(shape), **data}, extents).value, float)

    return value


@cache
def jax_bfgs(number: int) -> Callable[[Any], Any]:
    """Start -> result, compiled."""
    import jax
    from jax.scipy.optimize import minimize

    value = jax_energy(PROBLEMS[number - 1])
    return jax.jit(lambda start: minimize(value, start, method="BFGS", options={"gtol": GTOL, "maxiter": LIMIT}))


def run_jax(problem: Problem, factor: int) -> Run:
    found = jax_bfgs(problem.number)(problem.start_at(factor).ravel())
    energy = float(found.fun)
    return Run(energy, int(found.nit), int(found.nfev), str(int(found.status)), problem.reached(energy) is not None)


@cache
def optimistix_bfgs(number: int) -> Callable[[Any], Any]:
    """Start -> (energy, steps), compiled. It has no bound on the gradient; tolerances are on steps and decreases."""
    import jax
    import optimistix

    value, solver = jax_energy(PROBLEMS[number - 1]), optimistix.BFGS(rtol=GTOL, atol=GTOL)

    def run(start: Any) -> Any:
        found = optimistix.minimise(lambda y, _: value(y), solver, start, max_steps=LIMIT, throw=False)
        return value(found.value), found.stats["num_steps"]

    return jax.jit(run)


def run_optimistix(problem: Problem, factor: int) -> Run:
    """Every point that its line search tries counts as a step there."""
    energy, steps = optimistix_bfgs(problem.number)(problem.start_at(factor).ravel())
    return Run(float(energy), int(steps), int(steps), "", problem.reached(float(energy)) is not None)


def methods() -> dict[str, Method]:
    """All that is installed, ours first."""
    found: dict[str, Method] = {f"wiberg {method}": partial(ours, method=method) for method in OURS}
    found |= {f"SciPy {method}": partial(theirs, method=method) for method in ("trust-exact", "trust-krylov", "BFGS")}
    try:
        import jax
    except ModuleNotFoundError:
        print("JAX and optimistix are left out: JAX is not installed (make bench-setup)\n")
        return found
    jax.config.update("jax_enable_x64", True)
    found["JAX BFGS"] = run_jax
    try:
        import optimistix  # noqa: F401
    except ModuleNotFoundError:
        print("optimistix is left out: it is not installed\n")
        return found
    return found | {"optimistix BFGS": run_optimistix}


# ---------------------------------------------------------------------------------------------- tables


def line(*cells: Any) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def each_problem(found: Found, names: list[str]) -> str:
    """Steps and evaluations from the standard start."""
    rows = [line("problem", "n", "m", *names), line("---", "---:", "---:", *["---:"] * len(names))]
    for problem in PROBLEMS:
        runs = [found[name, 1, problem.number] for name in names]
        cells = [f"{run.steps} / {run.evaluations}" if run.solved else "no" for run in runs]
        rows.append(line(f"{problem.number} {problem.title}", problem.unknowns, problem.residuals, *cells))
    return "\n".join(rows)


def totals(found: Found, names: list[str], factors: tuple[int, ...]) -> str:
    """Problems solved, and steps and evaluations for those that the first method and this one solve."""
    rows = [line("from", "method", "solved", "steps", "evaluations", f"{names[0]} on the same problems")]
    rows.append(line("---", "---", "---:", "---:", "---:", "---:"))
    for factor in factors:
        for name in names:
            solved = [p.number for p in PROBLEMS if found[name, factor, p.number].solved]
            both = [number for number in solved if found[names[0], factor, number].solved]
            counts = [
                (
                    sum(found[who, factor, number].steps for number in both),
                    sum(found[who, factor, number].evaluations for number in both),
                )
                for who in (name, names[0])
            ]
            (steps, evaluations), reference = counts
            beside = "" if name == names[0] else f"{reference[0]} / {reference[1]}"
            rows.append(line(f"{factor} x start", name, f"{len(solved)} of 35", steps, evaluations, beside))
    return "\n".join(rows)


# ---------------------------------------------------------------------------------------------- figure


def ratios(found: Found, names: list[str], cost: Callable[[Run], int]) -> NDArray[np.float64]:
    """Cost over that of the best method, (methods, problems); infinite where not solved."""
    costs = np.full((len(names), len(PROBLEMS)), np.inf)
    for row, name in enumerate(names):
        for column, problem in enumerate(PROBLEMS):
            run = found[name, 1, problem.number]
            if run.solved:
                costs[row, column] = max(cost(run), 1)
    best = costs.min(axis=0)
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(costs), costs / best, np.inf)


def draw(found: Found, names: list[str], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["font.size"] = 12
    figure, axes = plt.subplots(1, 2, figsize=(13, 5.2), sharey=True, layout="constrained")
    kinds: tuple[tuple[str, Callable[[Run], int]], ...] = (
        ("steps", lambda run: run.steps),
        ("evaluations", lambda run: run.evaluations),
    )
    for axis, (kind, cost) in zip(axes, kinds, strict=True):
        ratio = ratios(found, names, cost)
        most = 2 * ratio[np.isfinite(ratio)].max()
        for row, name in enumerate(names):
            steps = np.sort(ratio[row][np.isfinite(ratio[row])])
            share = np.arange(1, len(steps) + 1) / len(PROBLEMS)
            ours = name.startswith("wiberg")
            axis.step(
                np.concatenate([[1.0], steps, [most]]),
                np.concatenate([[0.0], share, share[-1:]]) if len(steps) else np.zeros(2),
                where="post",
                label=f"{name} ({len(steps)} of {len(PROBLEMS)})",
                linewidth=2.6 if ours else 1.6,
                linestyle="-" if ours else ("--", "-.", ":")[row % 3],
            )
        axis.set(xscale="log", xlim=(1, most), ylim=(0, 1.02), xlabel=f"{kind}, over those of the best method")
        axis.set_xticks([1, 2, 5, 10, 20, 50, 100, 200], [str(tick) for tick in (1, 2, 5, 10, 20, 50, 100, 200)])
        axis.minorticks_off()
        axis.set_xlim(1, most)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("share of the 35 problems solved within")
    axes[1].legend(loc="lower right", fontsize=11)
    figure.suptitle("Moré, Garbow and Hillstrom (1981), from the standard starts")
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", type=Path, help="draw into this file")
    parser.add_argument("--standard", action="store_true", help="only from the standard starts")
    options = parser.parse_args()
    factors = FACTORS[:1] if options.standard else FACTORS
    all_methods = methods()
    found: Found = {}
    for name, run in all_methods.items():
        for factor in factors:
            for problem in PROBLEMS:
                found[name, factor, problem.number] = run(problem, factor)
    names = list(all_methods)
    print(each_problem(found, names), totals(found, names, factors), sep="\n\n")
    if options.figure:
        draw(found, names, options.figure)


if __name__ == "__main__":
    main()
