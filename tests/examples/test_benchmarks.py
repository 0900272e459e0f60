"""The energies of the benchmarks are the workloads' formulas, and both ways of a training step are one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import wiberg as wb

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[tuple[ModuleType, ModuleType]]:
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    import workloads

    import energies

    yield energies, workloads
    sys.path.remove(str(FOLDER))
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("energies", "workloads", "monte_carlo", "training", "speed", "timing", "compiling"):
            del sys.modules[name]


def test_ransac(benchmarks: tuple[ModuleType, ModuleType]) -> None:
    energies, workloads = benchmarks
    draw = workloads.Own.ransac(batch=3)
    value = wb.compile(energies.ransac(), backend="reference").value({"t": 1.0}, {"sigma": 8.0}, {"x": draw["x"]})
    np.testing.assert_allclose(value, -np.exp(-(((draw["x"] - 1) / 8) ** 2)).sum(axis=1), rtol=1e-12)


def test_fusion(benchmarks: tuple[ModuleType, ModuleType]) -> None:
    energies, workloads = benchmarks
    draw = workloads.Own.fusion(batch=3, trackers=7)
    alpha, beta, log_sigma, s = (*draw["w"].T[:3], draw["w"][:, 3:])
    y = np.array([0.3, 0.6])
    distance2 = ((s * draw["c"] - y) ** 2).sum(axis=2)
    expected = -np.exp(alpha + beta * draw["t"][:, None] - distance2 / np.exp(2 * log_sigma)).sum(axis=1)
    weights = {"alpha": alpha, "beta": beta, "log_sigma": log_sigma, "s": s}
    kernel = wb.compile(energies.fusion(), backend="reference")
    np.testing.assert_allclose(kernel.value({"y": y}, weights, {"c": draw["c"], "t": draw["t"]}), expected, rtol=1e-12)


def test_pose(benchmarks: tuple[ModuleType, ModuleType]) -> None:
    energies, workloads = benchmarks
    draw = workloads.Own.pose(batch=2, bases=3, joints=4, cameras=2)
    a = draw["m"] + 0.1
    residual = draw["X"] - np.einsum("ced,kjd,k->cje", draw["P"], draw["B"], a)
    robust = draw["delta"] ** 2 * (np.sqrt(1 + (residual**2).sum(axis=-1) / draw["delta"] ** 2) - 1)
    expected = (draw["omega"] ** 2 * robust).sum(axis=(1, 2)) + ((draw["sigma"] * 0.1) ** 2).sum() / 2
    weights = {name: draw[name] for name in ("B", "omega", "sigma", "P", "delta")}
    kernel = wb.compile(energies.pose(), backend="reference")
    np.testing.assert_allclose(kernel.value({"a": a}, weights, {"X": draw["X"], "m": draw["m"]}), expected, rtol=1e-10)


def test_denoise(benchmarks: tuple[ModuleType, ModuleType]) -> None:
    energies, workloads = benchmarks
    draw = workloads.Own.denoise(n=8)
    y, weights = draw["z"] + 0.1 * draw["clean"], {name: draw[name] for name in ("log_lambda", "log_eps")}
    edges = sum(np.sqrt(np.diff(y, axis=axis) ** 2 + np.exp(2 * draw["log_eps"])).sum() for axis in (0, 1))
    expected = ((y - draw["z"]) ** 2).sum() / 2 + np.exp(draw["log_lambda"]) * edges
    kernel = wb.compile(energies.denoise(), backend="reference")
    np.testing.assert_allclose(kernel.value({"y": y}, weights, {"z": draw["z"]}), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["points", "corners", "poses"])
def test_random_instances_of_all_widths_converge(benchmarks: tuple[ModuleType, ModuleType], name: str) -> None:
    energies, _ = benchmarks
    import monte_carlo

    energy, _, draw = monte_carlo.CASES[name]
    weights, data, start = draw(1000, np.random.default_rng(7))
    solution = wb.minimise(wb.compile(getattr(energies, energy)()), weights, data, start=start)
    assert solution.converged.mean() >= 0.999, str(solution)


@pytest.mark.parametrize(("name", "energy"), [("W1", "ransac"), ("W2", "fusion"), ("W3", "pose")])
def test_bare_parts_of_a_training_step_move_weights_as_the_learner(
    benchmarks: tuple[ModuleType, ModuleType], name: str, energy: str
) -> None:
    energies, workloads = benchmarks
    import training

    kernel, work = wb.compile(getattr(energies, energy)()), workloads.workloads()[name]
    learnt, loss = training.learner_steps(work, kernel, training.MOVING[name])(3)
    bare, value = training.bare_steps(work, kernel, training.MOVING[name])(3)
    assert loss == pytest.approx(value, rel=1e-12)
    for weight, start in work.weights.items():
        moved, expected = np.asarray(learnt[weight]) - start, np.asarray(bare[weight]) - start
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(moved, expected, atol=1e-9 * np.abs(expected).max())
