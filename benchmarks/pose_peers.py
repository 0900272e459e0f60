"""The multi-camera pose model of the paper against JAX: the loss of frames and its gradients by all weights, one core.

    python benchmarks/pose_peers.py

Frames are of the CMU sample that comes with examples/pose.py. All joints that the detector knows are found, as in
Human3.6M: then frames share the systems of least squares (docs/pose.md). Or one in 25 is not, and none do. Weights
are those before learning, or with `lambda_scale` at 0.5, where learning starts and most of the 300 members of a frame
count. Ours: `wb.minimise` of the 300 systems of each frame with the output, then `wb.implicit_gradient` (l2) or
`wb.unrolled_gradient` (huber: least squares and three reweightings). JAX's: `jax.jit(jax.value_and_grad(...))` through
the same solver (peers_pose_jax.py), with the dense systems of 80 unknowns that the model's authors have and with the
free pose eliminated, each at its fastest size of batches. Losses and gradients are compared before times are. The
process is pinned to a core; its CPU time is measured, of all its threads. Prints a row for `run.py` as a line of JSON
for each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timing
from speed import difference, pin
from timing import Row, print_rows

SECTION = "pose, one core"
SOLVERS = {"l2": "l2", "huber": "steps"}
BOUNDS = {"l2": 50.0, "huber": 30.0}
"""Against the dense systems, however they are solved."""

SIZES = {"dense": (1, 2, 4), "cholesky": (1, 2, 4), "eliminated": (1, 2, 4, 8)}
FRAMES = 8
SETTINGS = {"untrained": (None, False), "learning starts": (0.5, False), "learning starts, joints missing": (0.5, True)}
"""What `lambda_scale` then is, and whether joints are missing."""

TOLERANCE = 1e-6
"""Of gradients, relative to the largest entry of each weight's."""

NOTHING = 1e-9
"""Gradients below this part of the largest of all are rounding."""


def frames_of_sample(count: int, missing: bool) -> tuple[Any, Any, Any, Any]:
    """Body models, average cameras, detections with their visibility, and centred truths of the CMU sample."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
    from pose_files import TEST_SUBJECT, turned_poses
    from wiberg.energies import pose
    from wiberg.energies.pose import synthetic

    truth, subject, _, _ = turned_poses(seed=0)
    ring = synthetic.Ring.around()
    rows = np.flatnonzero(subject == TEST_SUBJECT["CMU"])
    rows = rows[:: len(rows) // count][:count]
    points, visible = synthetic.detect(truth, ring, seed=0)
    if not missing:
        visible[:] = visible.max(axis=(0, 1))  # what is ever seen of a joint
    bodies = pose.fit_bodies(truth[subject != TEST_SUBJECT["CMU"]])
    centred = truth[rows] - truth[rows].mean(axis=1, keepdims=True)
    return bodies, ring.rotation, (points[rows], visible[rows]), centred


class Ours:
    """A model, its weights and frames: loss and gradients as a user gets them."""

    def __init__(self, solver: str, count: int, lambda_scale: float | None, missing: bool) -> None:
        import sympy as sp
        import wiberg as wb
        from wiberg.energies import pose

        bodies, average, seen, self.truth = frames_of_sample(count, missing)
        self.model = pose.MultiCamera(bodies, average, solver=SOLVERS[solver])
        self.weights = self.model.weights()
        self.keeps = lambda_scale is not None and solver == "huber"  # pays where most members count
        if lambda_scale is not None:
            self.weights["lambda_scale"] = np.full_like(self.weights["lambda_scale"], lambda_scale)
        self.data = self.model.data(*seen, self.truth)
        self.output = wb.Output(minima=wb.compile(self.model.energy), **self.model.output)
        self.loss = wb.mean_joint_distance(*(sp.IndexedBase(name, shape=(17, 3)) for name in ("pose", "truth")))

    def value_and_gradient(self) -> tuple[float, dict[str, Any]]:
        import wiberg as wb

        options = {**self.model.options, "keep_factors": self.keeps}
        solution = wb.minimise(self.output, self.weights, self.data, **options)
        found, targets = {"pose": solution.outputs["pose"]}, {"truth": self.truth}
        value = float(np.sum(self.loss.value(found, targets)))
        slope = self.loss.gradient(found, targets)
        if self.model.solver == "steps":
            return value, wb.unrolled_gradient(self.output, solution, slope)
        return value, wb.implicit_gradient(self.output, solution, slope, damping=0.0)


def agree(ours: tuple[float, dict[str, Any]], theirs: tuple[Any, dict[str, Any]], what: str) -> float:
    """The largest difference of gradients, each relative to its largest entry; the end where it is above TOLERANCE."""
    largest = max(float(np.abs(g).max()) for g in theirs[1].values())
    off = {"loss": difference(ours[0], theirs[0])}
    for name, gradient in theirs[1].items():
        other = np.asarray(ours[1].get(name, np.zeros(np.shape(gradient))))
        size = max(float(np.abs(gradient).max()), NOTHING * largest)
        off[name] = float(np.abs(other - np.asarray(gradient)).max()) / size
    worst = max(off, key=lambda name: off[name])
    if not off[worst] <= TOLERANCE:
        raise SystemExit(f"{what}: {worst} differs by {off[worst]:.2g} (allowed {TOLERANCE:g}); no times are compared")
    return off[worst]


def rows(solvers: tuple[str, ...] = tuple(SOLVERS), *, repeats: int = 7) -> Iterator[Row]:
    try:
        from peers_pose_jax import WAYS, frames_on_device, on_device, value_and_gradient
    except ModuleNotFoundError as missing:
        yield timing.skipped(SECTION, "pose against JAX", f"{missing.name} is not installed: make bench-setup")
        return
    for solver in solvers:
        settings = {setting: Ours(solver, FRAMES, *how) for setting, how in SETTINGS.items()}
        ours = settings["untrained"]
        for way in WAYS:
            call = value_and_gradient(ours.data, SOLVERS[solver], way)
            size = fastest(call, ours, SIZES[way])
            for setting, ours in settings.items():
                w = on_device(ours.weights)
                every, few = (frames_on_device(ours.data, ours.truth, count) for count in (FRAMES, size))
                off = agree(ours.value_and_gradient(), call(w, every), f"{solver}, {setting}, {way}")
                times = interleaved(ours.value_and_gradient, partial(call, w, few), size, repeats)
                yield row(solver, setting, way, *times, f"batches of {size}; gradients agree to {off:.0e}")


def fastest(call: Callable[..., Any], ours: Ours, sizes: tuple[int, ...]) -> int:
    """The size of batches at which a frame takes least CPU time."""
    from peers_pose_jax import frames_on_device, on_device

    found, w = {}, on_device(ours.weights)
    for size in sizes:
        frames = frames_on_device(ours.data, ours.truth, size)
        call(w, frames)
        found[size] = min(seconds(partial(call, w, frames)) for _ in range(3)) / size
    return min(found, key=lambda size: found[size])


def seconds(call: Callable[[], Any]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


def interleaved(ours: Any, theirs: Any, size: int, repeats: int) -> tuple[list[float], list[float]]:
    """CPU seconds a frame of each, from pairs of calls that alternate: the second finds the caches as it left them."""
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        found[0].append(min(seconds(ours), seconds(ours)) / FRAMES)
        found[1].append(min(seconds(theirs), seconds(theirs)) / size)
    return found


def row(solver: str, setting: str, way: str, ours: list[float], theirs: list[float], note: str) -> Row:
    least, peer = 1e3 * min(ours), 1e3 * min(theirs)
    medians = float(np.median(theirs) / np.median(ours))
    bound = None if way == "eliminated" else BOUNDS[solver]
    title = f"{solver}, {setting}: JAX {way}"
    return Row(SECTION, title, "ms/frame", least, peer, "JAX", peer / least, medians, ">=", bound, note)


def main() -> None:
    pin(1)
    import wiberg as wb

    wb.set_threads(1)
    print_rows(rows())


if __name__ == "__main__":
    main()
