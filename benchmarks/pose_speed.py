"""Poses of docs/pose.md: milliseconds a frame to minimise, and to differentiate.

    python benchmarks/pose_speed.py [DATA.npz] [--bodies POSE_DATA.npz] [--model MODEL.npz] [--json]

CPU time on one thread, the least of some repeats, in which keeping factors and not keeping them take turns. `forward`
is minimisation and outputs, `gradient` that of the mean error by all weights, `both` their sum over forward. `kept`:
forward keeps factors (`minimise(keep_factors=True)`), and the sum of both is over forward without. Without DATA on CMU
motion capture. With the authors' file their models and checkpoint are measured, too; with a model that was trained, it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import wiberg as wb
from wiberg.energies import pose

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

from pose_files import test_subject
from pose_frames import Frames, centred, read_frames
from pose_models import load_model

SOLVERS = ("l2", "steps", "huber")


@dataclass(frozen=True)
class Task:
    """One model with weights, and frames."""

    name: str
    solver: str
    output: wb.Output
    weights: Mapping[str, Any]
    data: Mapping[str, Any]
    options: Mapping[str, Any]
    truth: Any

    @property
    def frames(self) -> int:
        return len(self.truth)

    def forward(self, **options: Any) -> Any:
        solution = wb.minimise(self.output, self.weights, self.data, **self.options, **options)
        return solution, solution.outputs["pose"]

    def slope(self, found: Any) -> dict[str, Any]:
        """Of the mean distance of joints."""
        way = found - self.truth
        return {"pose": way / np.linalg.norm(way, axis=-1, keepdims=True) / (17 * self.frames)}

    def gradient(self, solution: Any, slope: Mapping[str, Any]) -> Any:
        if self.solver == "steps":
            return wb.unrolled_gradient(self.output, solution, slope)
        return wb.implicit_gradient(self.output, solution, slope, damping=0.0, unconverged="use")


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.process_time()
    result = run()
    return time.process_time() - begun, result


def measured(task: Task, repeats: int) -> dict[str, Any]:
    """Least milliseconds a frame."""
    least = dict.fromkeys(("forward", "gradient", "forward kept", "gradient kept"), np.inf)
    for _ in range(repeats + 1):
        for suffix, keep in (("", False), (" kept", True))[: 1 if task.solver == "huber" else 2]:
            forward, (solution, found) = seconds(lambda keep=keep: task.forward(keep_factors=keep))
            slope = task.slope(found)
            gradient, _ = seconds(lambda s=solution, v=slope: task.gradient(s, v))
            least[f"forward{suffix}"] = min(least[f"forward{suffix}"], forward)
            least[f"gradient{suffix}"] = min(least[f"gradient{suffix}"], gradient)
            del solution
    row: dict[str, Any] = {name: 1e3 * value / task.frames for name, value in least.items()}
    row["both"] = 1 + row["gradient"] / row["forward"]
    row["both kept"] = (row["forward kept"] + row["gradient kept"]) / row["forward"]  # not of huber: infinite
    row["error"] = float(pose.euclidean(task.forward()[1], task.truth).mean())
    return row


def tasks(options: argparse.Namespace, solver: str, every: Frames, rows: Any) -> list[Task]:
    """All rows of one solver."""
    frames = every.of(options.subject or test_subject(every.name)).chosen(rows)
    if options.bodies is None:
        bodies, file = pose.fit_bodies(every.without(*set(frames.subject)).truth), None
    else:
        file = dict(np.load(options.bodies))
        bodies = pose.BodyModels.of_file(file)
    average = every.average if file is None else file["cameras"]
    model = pose.MultiCamera(bodies, average, solver=solver)
    kinds: dict[str, tuple[pose.MultiCamera, Mapping[str, Any]]] = {"untrained": (model, model.weights())}
    if file is not None:
        kinds["checkpoint"] = model, model.weights_of_file(file)
    if options.model is not None:
        learnt = load_model(options.model)
        trained = replace(learnt.model, solver=solver)
        own = {name: learnt.weights[name] for name in trained.weights() if name in learnt.weights}
        kinds["trained"] = trained, {**trained.weights(), **own}
    truth = centred(frames.truth)
    output = wb.Output(minima=wb.compile(model.energy), **model.output)

    def task(name: str, of: pose.MultiCamera, weights: Mapping[str, Any], every_turn: int, count: int) -> Task:
        of = replace(of, turns=pose.rotations(100, every_turn))
        data = of.data(frames.points[:count], frames.visible[:count], frames.truth[:count])
        return Task(name, solver, output, weights, data, {**of.options, **more}, truth[:count])

    more = {"reweightings": options.reweightings} if solver == "huber" else {}
    made = []
    for name, (of, weights) in kinds.items():
        made += [task(f"{name}, {100 // turn}", of, weights, turn, len(rows)) for turn in (1, 4)]
        made.append(task(f"{name}, 100, one frame", of, weights, 1, 1))
    if "checkpoint" in kinds:
        of, weights = kinds["checkpoint"]
        fewer, own = of.of_models([0], weights)
        made.append(task("checkpoint, 25, dead models skipped", fewer, own, 4, len(rows)))
    return made


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", metavar="DATA.npz")
    parser.add_argument("--bodies", type=Path, metavar="POSE_DATA.npz")
    parser.add_argument("--model", type=Path, metavar="MODEL.npz")
    parser.add_argument("--subject")
    parser.add_argument("--solver", choices=SOLVERS, action="append")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--reweightings", type=int, default=3, help="of huber, before the derivative of the minimum")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    wb.set_threads(1)
    every = read_frames(options.file, None).with_truth()
    rows = 20 * np.arange(options.frames)
    found: dict[str, Any] = {}
    print("| | forward | gradient | both | forward, kept | gradient, kept | both, kept | error, mm |")
    print("|---|---|---|---|---|---|---|---|")
    for solver in options.solver or SOLVERS:
        for task in tasks(options, solver, every, rows):
            row = found[f"{solver}, {task.name}"] = measured(task, options.repeats)
            numbers = [row[name] for name in ("forward", "gradient", "both", "forward kept", "gradient kept")]
            numbers += [row["both kept"], row["error"]]
            cells = [f"{number:.2f}" if np.isfinite(number) else "" for number in numbers]
            print(f"| {solver}, {task.name} | {' | '.join(cells)} |", flush=True)
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
