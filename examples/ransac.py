"""Learning to ignore outliers: the one-dimensional example of the paper (section 3), with three learners.

Ten samples around an unknown mean hide among a hundred outliers. The estimate is the lowest minimum t* of

    E(t; sigma, x) = -sum_i exp(-((x_i - t) / sigma)^2)

and the one weight, sigma, is learnt so that t* comes close to the mean of the inliers: fresh draws at each step,
squared error.

damped      the derivative of Toso, Campbell and Russell (2019), bounded; SGD with momentum 0.999, one draw a step
undamped    that of Samuel and Tappen (2009), arbitrarily large where the curvature of E at t* is nearly 0; likewise
selection   wb.Selection(): damped, and it sees that another minimum becomes the lowest; of log sigma, four draws a step

The first two follow one minimum, and settle where the loss is about 1.15 times the best.

With ten times the learning rate many undamped runs leave the range where sigma means anything. How many depends on the
draws: those used here (TRAINING) are one of 24 sets that were tried. Over all of them (288 runs a setting, from 1, 2, 4
and 8) 9 % of the damped and 85 % of the undamped runs went beyond 40; with the lower rate none did. The same is tried
with a single Newton step in place of the minimum: the derivative is that of a fixed point of Newton's method, and what
explodes is the derivative, not the minimisation.

    python examples/ransac.py           # what `make demo` runs
    python examples/ransac.py --quick   # a tenth of the steps, one seed
    python examples/ransac.py --json    # the last line is all runs of the table
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import sympy as sp
import wiberg as wb
from numpy.typing import NDArray
from tqdm import tqdm

Floats = NDArray[np.float64]

LEARNERS = {"damped": "tab:blue", "undamped": "tab:orange", "selection": "tab:green"}
RATE, HIGH_RATE, SELECTION_RATE = 1e-5, 1e-4, 1e-4
STARTS = (2.0, 4.0, 8.0, 20.0, 40.0)
HIGH_RATE_STARTS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
MOMENTUM, SELECTION_MOMENTUM = 0.999, 0.99
SELECTION_BATCH = 4
SPREAD, INLIERS, OUTLIERS, RANGE = 4.0, 10, 100, 40.0
FAR = 40.0
"""A |sigma| beyond half the range of the data: every sample attracts, and the estimate is their common mean."""
TRAINING, BANK, MOVING, LEARNING, FIELD = 9, 18, 21, 19, 22
"""Streams of random numbers: (seed, TRAINING) for learning, (0, BANK) for the expected loss, one for each figure."""


# ---------------------------------------------------------------------------------------------- the problem


def declare() -> tuple[wb.Energy, wb.Loss]:
    n = sp.Symbol("n", integer=True, positive=True)
    i, q = sp.Idx("i", n), sp.Idx("q", n)
    t, sigma, mean = sp.symbols("t sigma mean", real=True)
    x = sp.IndexedBase("x", shape=(n,))
    formula = -sp.Sum(sp.exp(-(((x[i] - t) / sigma) ** 2)), i)
    energy = wb.Energy(formula, variables=[t], weights=[sigma], data=[x], candidates={t: x[q]}, name="ransac")
    return energy, wb.Loss((t - mean) ** 2, variables=[t], targets=[mean])


def draw(count: int, *stream: int) -> tuple[Floats, Floats]:
    """Samples (count, 110) with the inliers first, and the mean of the inliers (count,)."""
    random = np.random.default_rng(stream)
    truth = random.uniform(-RANGE, RANGE, count)
    inliers = truth[:, None] + SPREAD * random.standard_normal((count, INLIERS))
    outliers = random.uniform(-RANGE, RANGE, (count, OUTLIERS))
    return np.concatenate([inliers, outliers], axis=1), inliers.mean(axis=1)


# ---------------------------------------------------------------------------------------------- learning


@dataclass(frozen=True)
class Run:
    """One learner from one start, over so many draws."""

    learner: str
    learning_rate: float
    start: float
    seed: int
    draws: int
    one_step: bool = False
    """Whether a single Newton step from the lowest candidate stands in place of the minimum."""

    @property
    def batch(self) -> int:
        return SELECTION_BATCH if self.learner == "selection" else 1


@dataclass(frozen=True)
class Result:
    """sigma before and after every step (steps + 1,), the loss of every step (steps,), and why it ended early."""

    run: Run
    sigma: Floats
    loss: Floats
    stopped: str

    @property
    def settled(self) -> float:
        """Mean |sigma| over the last fifth of the steps."""
        return float(np.abs(self.sigma[-max(1, len(self.sigma) // 5) :]).mean())

    @property
    def went_far(self) -> bool:
        return bool((np.abs(self.sigma) > FAR).any())


def learner_for(
    learner: str, learning_rate: float, start: float, momentum: float, one_step: bool = False
) -> wb.Learner:
    """With `one_step` where a minimisation stands after one Newton step counts, although it did not converge."""
    energy, loss = declare()
    options = {"max_iterations": 1, "unconverged": "use"} if one_step else {}
    return wb.Learner(
        wb.compile(energy),
        loss,
        weights={"sigma": wb.Weight(start, scale="log" if learner == "selection" else "raw")},
        optimiser=wb.SGD(learning_rate, momentum),
        damping=0.0 if learner == "undamped" else 0.1,
        selection=wb.Selection() if learner == "selection" else None,
        **options,
    )


def learn(run: Run) -> Result:
    """What a worker process does. An undamped learner may end with a NumericalError: that is a result, too.

    Of runs of one step only whether they go far is asked: they end when they do.
    """
    samples, means = draw(run.draws, run.seed, TRAINING)
    momentum = SELECTION_MOMENTUM if run.learner == "selection" else MOMENTUM
    learner = learner_for(run.learner, run.learning_rate, run.start, momentum, run.one_step)

    def gone(learner: wb.Learner) -> bool:
        return abs(learner.weights["sigma"]) > FAR

    def batch(step: int) -> wb.Batch:
        these = slice(step * run.batch, (step + 1) * run.batch)
        return wb.Batch(data={"x": samples[these]}, targets={"mean": means[these]})

    stopped = ""
    try:
        learner.fit(batch, run.draws // run.batch, progress=False, callback=gone if run.one_step else None)
    except wb.NumericalError as error:
        stopped = str(error)
    return Result(run, learner.history.weights["sigma"], learner.history.loss, stopped)


def learn_all(runs: list[Run], processes: int) -> list[Result]:
    results = {}
    with ProcessPoolExecutor(
        processes, mp_context=multiprocessing.get_context("spawn"), initializer=wb.set_threads, initargs=(1,)
    ) as pool:
        waiting = {pool.submit(learn, run): run for run in runs}
        for future in tqdm(as_completed(waiting), total=len(runs), desc="learning", unit="run"):
            results[waiting[future]] = future.result()
    return [results[run] for run in runs]


def expected_loss(kernel: wb.Kernel, sigma: float, samples: Floats, means: Floats) -> float:
    solution = wb.minimise(kernel, {"sigma": sigma}, {"x": samples})
    return float(((solution.variables["t"] - means) ** 2).mean())


def gradient_by_log_sigma(learner: str, sigma: float, samples: Floats, means: Floats) -> float:
    """What a learner goes by, over all draws at once: the change of log sigma that one small step makes."""
    rate = 1e-9
    one = learner_for(learner, rate, sigma, momentum=0.0)
    history = one.fit([wb.Batch(data={"x": samples}, targets={"mean": means})], progress=False)
    gradient = (sigma - one.weights["sigma"]) / rate
    return gradient / sigma if learner == "selection" else gradient * sigma / float(history.loss[0])


# ---------------------------------------------------------------------------------------------- what is printed


def group(results: list[Result], learner: str, learning_rate: float, one_step: bool = False) -> list[Result]:
    wanted = learner, learning_rate, one_step
    return [r for r in results if (r.run.learner, r.run.learning_rate, r.run.one_step) == wanted]


def table(results: list[Result], losses: dict[Run, float], best: float) -> Iterator[str]:
    """A line for each learner and start; one below them for all starts together."""
    yield f"{'learner':>9}  {'start':>5}  {'mean |sigma|':>12}  {'of the runs':>16}  {'loss / best':>11}  {'worst':>5}"
    for learner in LEARNERS:
        members = [result for result in results if result.run.learner == learner]
        for start in [*STARTS, None]:
            rows = [r for r in members if start is None or r.run.start == start]
            settled = np.array([r.settled for r in rows])
            ratios = np.array([losses[r.run] for r in rows]) / best
            yield (
                f"{learner:>9}  {'all' if start is None else f'{start:g}':>5}  {settled.mean():12.2f}  "
                f"{f'{settled.min():.2f} to {settled.max():.2f}':>16}  {ratios.mean():11.3f}  {ratios.max():5.3f}"
            )
        yield ""


def far_away(results: list[Result]) -> Iterator[str]:
    """The paper's figure 2 in numbers: who leaves the range of the data at the higher learning rate."""
    for one_step, learner in product((False, True), ("damped", "undamped")):
        members = group(results, learner, HIGH_RATE, one_step)
        far, stopped = sum(r.went_far for r in members), sum(bool(r.stopped) for r in members)
        instead = ", one Newton step in place of the minimum" if one_step else ""
        yield (
            f"learning rate {HIGH_RATE:g}, {learner}{instead}: {far} of {len(members)} runs went "
            f"beyond |sigma| = {FAR:.0f}{f', {stopped} stopped' if stopped else ''}"
        )


# ---------------------------------------------------------------------------------------------- what is drawn


def draw_prediction(kernel: wb.Kernel, path: Path) -> None:
    """The paper's figure 1: how a quadratic model of E moves predicts how the minimum of E does."""
    import matplotlib.pyplot as plt

    sigma, change, damping = 8.0, 2.5, 0.1
    samples, _ = draw(1, 0, MOVING)
    x = {"x": samples[0]}
    solution = wb.minimise(kernel, {"sigma": sigma}, x)
    minimum = solution.variables["t"]
    slope = float(wb.implicit_jacobian(kernel, solution, damping=damping)[0, 0])
    undamped = float(wb.implicit_jacobian(kernel, solution, damping=0.0)[0, 0])

    def follow(sigmas: Floats) -> Floats:
        """The minimum, followed from the present one while sigma changes."""
        path, start = [], {"t": minimum}
        for value in sigmas:
            start = wb.minimise(kernel, {"sigma": value}, x, start=start).variables
            path.append(start["t"])
        return np.array(path)

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    ts = np.linspace(minimum - 12, minimum + 12, 400)
    near = np.linspace(minimum - 5, minimum + 5, 200)
    for value, style, label in ((sigma, "-", "before"), (sigma + change, "--", "after")):
        w = {"sigma": value}
        left.plot(ts, kernel.value({"t": ts}, w, x), style, color="purple", label=f"E {label} ($\\sigma$ = {value:g})")
        energy, gradient, hessian = kernel.value_gradient_hessian({"t": minimum}, w, x)
        parabola = energy + gradient[0] * (near - minimum) + (hessian[0, 0] + damping) / 2 * (near - minimum) ** 2
        left.plot(near, parabola, style, color="darkturquoise", label=f"its quadratic model {label}")
    moved = follow(np.linspace(sigma, sigma + change, 11))[-1]
    predicted = minimum + slope * change
    for t, marker, colour, label in (
        (minimum, "o", "black", "minimum before"),
        (moved, "s", "tab:green", "minimum after"),
        (predicted, "x", "tab:red", "prediction"),
    ):
        value = sigma if marker == "o" else sigma + change
        left.plot(t, kernel.value({"t": t}, {"sigma": value}, x), marker, color=colour, label=label, zorder=3)
    left.set(xlabel="t", ylabel="E(t)", title="A change of $\\sigma$ moves the minimum")
    left.legend(fontsize=7)

    steps = np.linspace(0.0, 4.0, 41)
    changes = np.concatenate([-steps[:0:-1], steps])
    movement = np.concatenate([follow(sigma - steps)[:0:-1], follow(sigma + steps)]) - minimum
    right.plot(changes, movement, color="tab:green", label="true movement")
    right.plot(changes, slope * changes, "--", color="tab:red", label=f"predicted, $\\lambda$ = {damping:g}")
    right.plot(changes, undamped * changes, ":", color="grey", label="predicted, $\\lambda$ = 0")
    right.axhline(0, color="black", lw=0.5)
    right.set_ylim(*(1.5 * np.abs(movement).max() * np.array([-1, 1])))
    right.set(xlabel="change of $\\sigma$", ylabel="movement of t*", title="Predicted and true movement")
    right.legend(fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_learning(kernel: wb.Kernel, results: list[Result], path: Path) -> None:
    """The paper's figure 2: a draw with its energy before and after learning; sigma and loss over the steps."""
    import matplotlib.pyplot as plt

    rates = RATE, HIGH_RATE
    learners = {name: (LEARNERS[name], group(results, name, HIGH_RATE)) for name in ("damped", "undamped")}
    samples, means = draw(1, 1, LEARNING)
    ts = np.linspace(-1.25 * RANGE, 1.25 * RANGE, 800)
    figure, axes = plt.subplots(2, 3, figsize=(14, 7.5), constrained_layout=True)

    shown = {f"before, $\\sigma$ = {HIGH_RATE_STARTS[0]:g}": HIGH_RATE_STARTS[0]}
    for name, (_, members) in learners.items():
        sigma = float(np.median([result.settled for result in members]))
        shown[f"after, {name}, median $\\sigma$ = {sigma:.1f}"] = sigma
    for axis, (title, sigma) in zip(axes[0], shown.items(), strict=True):
        w, x = {"sigma": sigma}, {"x": samples[0]}
        estimate = wb.minimise(kernel, w, x).variables["t"]
        energy = kernel.value({"t": ts}, w, x)
        floor = energy.min() - 0.08 * np.ptp(energy)
        axis.plot(ts, energy, color="purple")
        axis.plot(samples[0, INLIERS:], np.full(OUTLIERS, floor), "|", color="tab:red", ms=9, label="outliers")
        axis.plot(samples[0, :INLIERS], np.full(INLIERS, floor), "|", color="tab:blue", ms=14, label="inliers")
        axis.axvline(means[0], color="tab:blue", lw=0.8, ls="--", label="mean of the inliers")
        axis.plot(estimate, kernel.value({"t": estimate}, w, x), "x", color="tab:green", ms=11, mew=3, label="estimate")
        axis.set(title=title, xlabel="t", ylabel="E(t)")
    axes[0, 0].legend(fontsize=7, loc="upper right")

    for axis, learning_rate in zip(axes[1], rates, strict=False):
        for name in ("undamped", "damped"):
            for k, result in enumerate(group(results, name, learning_rate)):
                axis.plot(np.abs(result.sigma), color=LEARNERS[name], lw=0.7, alpha=0.7, label=None if k else name)
        axis.axhline(FAR, color="black", lw=0.5, ls=":")
        axis.set(title=f"learning rate {learning_rate:g}", xlabel="step", ylabel="$|\\sigma|$")
        axis.legend(fontsize=8)
    for name, (colour, members) in reversed(learners.items()):
        for k, result in enumerate(members):
            axes[1, 2].plot(running_mean(result.loss), color=colour, lw=0.7, alpha=0.7, label=None if k else name)
    axes[1, 2].set(
        title=f"loss, learning rate {HIGH_RATE:g}", xlabel="step", ylabel="$(t^* - \\mu)^2$, mean of 500 steps"
    )
    axes[1, 2].legend(fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_selection(kernel: wb.Kernel, results: list[Result], curve: dict[float, float], count: int, path: Path) -> None:
    """Why one minimum is not enough: loss, and what learners go by, over sigma; and where that leads them."""
    import matplotlib.pyplot as plt

    sigmas, losses = np.array(list(curve)), np.array(list(curve.values()))
    samples, means = draw(count, 0, FIELD)
    figure, (top, middle, bottom) = plt.subplots(3, 1, figsize=(8.5, 10.5), constrained_layout=True)
    top.plot(sigmas, losses, color="black", label="expected loss of the lowest minimum")
    for learner, colour in LEARNERS.items():
        ends = [result.settled for result in results if result.run.learner == learner]
        top.plot(ends, np.interp(ends, sigmas, losses), "o", color=colour, alpha=0.6, label=f"where {learner} ends")
    top.set(xscale="log", ylabel="$(t^* - \\mu)^2$", title="Where the learners end")

    centres = np.sqrt(sigmas[1:] * sigmas[:-1])
    slopes = np.diff(np.log(losses)) / np.diff(np.log(sigmas))
    middle.plot(centres, slopes, ".-", color="black", lw=1, label="slope of the expected loss")
    grid = np.geomspace(sigmas[0], sigmas[-1], 25)
    for learner, colour in LEARNERS.items():
        field = [gradient_by_log_sigma(learner, sigma, samples, means) for sigma in tqdm(grid, desc="field")]
        middle.plot(grid, field, color=colour, label=f"gradient, {learner}")
    middle.axhline(0, color="black", lw=0.5)
    middle.set(
        xscale="log", ylim=(-0.7, 0.7), ylabel="by log $\\sigma$, of the loss",
        title=f"What they go by: above 0 $\\sigma$ becomes smaller ({count:,} draws)",
    )  # fmt: skip
    for learner, colour in LEARNERS.items():
        for k, result in enumerate(r for r in results if r.run.learner == learner):
            draws = np.arange(len(result.sigma)) * result.run.batch
            bottom.plot(draws, np.abs(result.sigma), color=colour, lw=0.7, alpha=0.7, label=None if k else learner)
    bottom.set(xlabel="draws", ylabel="$|\\sigma|$", yscale="log", title="$\\sigma$ while learning")
    for axis in (top, middle):
        axis.set_xlabel("$\\sigma$")
        axis.set_xticks([2, 4, 8, 20, 40], ["2", "4", "8", "20", "40"])
    bottom.set_yticks([2, 4, 8, 20, 40], ["2", "4", "8", "20", "40"])
    for axis in (top, middle, bottom):
        axis.minorticks_off()
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def running_mean(loss: Floats, width: int = 500) -> Floats:
    width = max(1, min(width, len(loss) // 4))
    total = np.concatenate([[0.0], np.cumsum(loss)])
    return (total[width:] - total[:-width]) / width


# ---------------------------------------------------------------------------------------------- the whole


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description="The paper's one-dimensional example with three learners.")
    parser.add_argument("--steps", type=int, default=10_000, help="draws that each learner sees")
    parser.add_argument("--seeds", type=int, default=3, help="how many sequences of draws")
    parser.add_argument("--bank", type=int, default=20_000, help="fresh draws for the expected loss")
    parser.add_argument("--field", type=int, default=2_000, help="draws for the picture of the gradients")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--out", type=Path, default=Path("output"), help="folder for the figures")
    parser.add_argument("--quick", action="store_true", help="1,000 draws, one seed, 2,000 fresh draws")
    parser.add_argument("--json", action="store_true", help="print all runs of the table as JSON in the last line")
    options = parser.parse_args(arguments)
    draws, seeds, bank = (1_000, 1, 2_000) if options.quick else (options.steps, options.seeds, options.bank)

    rates = {"damped": RATE, "undamped": RATE, "selection": SELECTION_RATE}
    compared = [Run(*learner, *rest, draws) for learner, *rest in product(rates.items(), STARTS, range(seeds))]
    high = product((False, True), ("damped", "undamped"), HIGH_RATE_STARTS, range(seeds))
    fast = [Run(learner, HIGH_RATE, start, seed, draws, one_step) for one_step, learner, start, seed in high]
    print(f"{len(compared) + len(fast)} learners, each of {draws:,} fresh draws")
    energy, _ = declare()
    kernel = wb.compile(energy)
    for learner in LEARNERS:  # compiles into the cache for the workers
        learn(Run(learner, RATE, start=STARTS[0], seed=0, draws=SELECTION_BATCH))
    results = learn_all([*compared, *fast], options.processes)

    samples, means = draw(bank, 0, BANK)
    sigmas = np.concatenate([[2.0, 2.5, 3.0, 3.5, 4.0, 4.5], np.arange(5.0, 9.0, 0.5), np.geomspace(9.0, 44.0, 12)])
    curve = {float(s): expected_loss(kernel, s, samples, means) for s in tqdm(sigmas, desc="expected loss")}
    shown = results[: len(compared)]
    losses = {r.run: expected_loss(kernel, r.settled, samples, means) for r in tqdm(shown, desc="losses")}
    best = min(*curve.values(), *losses.values())

    print(
        f"\nbest possible expected loss: {best:.1f}, near sigma {min(curve, key=curve.__getitem__):g} "
        f"({bank:,} fresh draws)\n"
    )
    print("\n".join(table(shown, losses, best)))
    print("\n".join(far_away(results)))
    for result in results:
        if result.stopped:
            print(f"stopped: {result.run}: {result.stopped}")
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        draw_prediction(kernel, options.out / "ransac_prediction.png")
        draw_learning(kernel, results, options.out / "ransac_learning.png")
        draw_selection(kernel, shown, curve, options.field, options.out / "ransac_selection.png")
        names = (f"ransac_{name}.png" for name in ("prediction", "learning", "selection"))
        print(f"figures: {', '.join(str(options.out / name) for name in names)}")
    except ImportError:
        print("no figures: matplotlib is not installed")
    if options.json:
        runs = [
            {"learner": run.learner, "start": run.start, "seed": run.seed, "sigma": result.settled, "loss": losses[run]}
            for result in shown
            for run in [result.run]
        ]
        print(json.dumps({"runs": runs}))
    return {"results": results, "losses": losses, "best": best}


if __name__ == "__main__":
    main()
