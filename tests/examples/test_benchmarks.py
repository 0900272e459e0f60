"""The energies of the benchmarks are the workloads' formulas, and both ways of a training step are one."""

from __future__ import annotations

import os
import subprocess
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
        if name.split(".")[0] in (
            "energies",
            "workloads",
            "monte_carlo",
            "training",
            "speed",
            "timing",
            "compiling",
            "pose_peers",
        ):
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


def test_pose_against_jax_is_left_out_without_jax(
    benchmarks: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    import pose_peers

    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.delitem(sys.modules, "peers_pose_jax", raising=False)
    (row,) = pose_peers.rows()
    assert row.verdict == "skipped" and "jax" in row.note and "make bench-setup" in row.note


def test_gradients_that_differ_stop_the_comparison_of_poses(benchmarks: tuple[ModuleType, ModuleType]) -> None:
    import pose_peers

    mine = (2.0, {"a": np.array([1.0, 2.0]), "b": np.zeros(2)})
    near = (2.0, {"a": np.array([1.0, 2.0 + 1e-7]), "b": np.full(2, 1e-16)})
    assert pose_peers.agree(mine, near, "near") < 1e-6
    with pytest.raises(SystemExit, match="b differs by"):
        pose_peers.agree(mine, (2.0, {"a": mine[1]["a"], "b": np.full(2, 1e-3)}), "far")


PEERS_AGREE = """
import jax, numpy as np, pose_peers, peers_pose_jax as peers
from wiberg.energies import pose
import pose_in_numpy
bodies, average, seen, truth = pose_peers.frames_of_sample(1, missing=True)
for solver, ways in (("l2", peers.WAYS), ("steps", ["eliminated"])):
    model = pose.MultiCamera(bodies, average, solver=solver, turns=pose.rotations(100, every=25))
    weights, data = model.weights(), model.data(*seen, truth)
    weights["lambda_scale"] = np.full((3, 1), 0.5)
    frame = {name: data[name][0] for name in ("detections", "visible", "size")}
    expected = pose_in_numpy.forward(weights, {**data, **frame}, solver)[0]
    for way in ways:
        found = peers.frame_pose(peers.on_device(weights), data, frame, solver, way)
        np.testing.assert_allclose(found, expected, atol=1e-6)
print("agree")
"""


def test_peers_of_poses_agree_with_numpy() -> None:
    pytest.importorskip("jax", reason="JAX is not installed; make bench-setup")
    paths = [str(FOLDER), str(FOLDER.parent / "tests"), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", PEERS_AGREE], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "agree", done.stderr
