"""Models of several cameras or of one, with weights: untrained, of the authors' file, or learnt (docs/pose.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import sympy as sp
import wiberg as wb
from numpy.typing import NDArray
from pose_files import read, write
from pose_frames import Frames
from wiberg.energies import pose
from wiberg.runtime.progress import reporter

Floats = NDArray[np.float64]

SOLVERS = {"l2": "l2", "huber": "steps", "huber-minimum": "huber"}
"""What a solver is called here, and the energy that it minimises: "huber" is as the authors do it."""

NAMED = ("untrained", "trained", "trained-loaded")

FRAMES = 32
"""So many at once: what is shared by them is computed once, and members of a family are many."""

LOOKED_AT, DEAD = 64, 1e-12
"""A body model is dead whose share is below this in so many frames."""

SAME_RIG = 10.0
"""Degrees: cameras that look less far aside than this are those that a model was learnt with."""


@dataclass(frozen=True)
class Reconstruction:
    """A model with its weights: from detections to poses."""

    model: Any
    weights: Mapping[str, Any]

    @cached_property
    def output(self) -> wb.Output:
        return wb.Output(minima=wb.compile(self.model.energy), **self.model.output)

    @cached_property
    def report(self) -> wb.Output:
        """The same with scores and shares of all minima."""
        return wb.Output(minima=self.output.kernels[0], **self.model.report)

    def changed(self, **changes: Any) -> Reconstruction:
        """With another `turns=` or `choice=` of the model, and these weights."""
        return type(self)(replace(self.model, **changes), self.weights)

    def for_rig(self, average: Floats) -> Reconstruction:
        """For cameras that look elsewhere: what was learnt of the cameras is left out, all the rest is kept."""
        own = self.model.average
        if own.shape == average.shape and _apart(own, average) < SAME_RIG:
            return self
        return type(self)(replace(self.model, average=average), {**self.weights, "cameras": np.ones(average.shape)})

    def pruned(self, frames: Frames) -> Reconstruction:
        """Without the body models that have no share in any of the first frames: they need not be minimised."""
        good = np.flatnonzero(self.status(frames) == pose.Frame.ENOUGH)[:LOOKED_AT]
        found, _ = self._found(self.report, frames.chosen(good), False)
        live = np.flatnonzero((found["model_share"] >= DEAD).any(axis=0))
        if len(live) in (0, len(self.model.bodies)):
            return self
        return type(self)(*self.model.of_models(live, self.weights))

    # ------------------------------------------------------------------------------------------ poses

    def status(self, frames: Frames) -> NDArray[np.int64]:
        """What is missing (N,), of `pose.Frame`."""
        return pose.frame_status(frames.weights)

    def data(self, frames: Frames, where: Any) -> dict[str, Any]:
        """What the energy reads of some frames; of size 1 where none is known."""
        (rows,) = where
        size = np.where(np.isfinite(frames.size[rows]), frames.size[rows], 1.0)
        return self.model.data(frames.points[rows], frames.visible[rows]) | {"size": size}

    def minimise(self, frames: Frames, where: Any) -> Any:
        """The minima of all members of some frames, of which the output is `pose`."""
        return wb.minimise(self.output, self.weights, self.data(frames, where), **self.model.options)

    def poses(self, frames: Frames, *, progress: bool = False) -> tuple[Floats, NDArray[np.int64]]:
        """Poses (N, 17, 3), as large as the person, NaN where there is none; and what is missing, of `pose.Frame`."""
        found, status = self._found(self.output, frames, progress)
        return found["pose"], status

    def all_minima(self, frames: Frames, *, progress: bool = False) -> tuple[dict[str, Floats], NDArray[np.int64]]:
        """`pose` as above, with `energies` and `weights` (shares), (N, M, R), of all bodies and rotations."""
        found, status = self._found(self.report, frames, progress)
        weights = found["share"]
        if "model_share" in found:
            weights = weights * found["model_share"][..., None]
        return {"pose": found["pose"], "energies": found["score"], "weights": weights}, status

    def _found(self, output: wb.Output, frames: Frames, progress: bool) -> tuple[dict[str, Floats], NDArray[np.int64]]:
        status = self.status(frames)
        members = (len(self.model.bodies), len(self.model.turns))
        shapes = {"pose": (17, 3), "score": members, "share": members, "model_share": members[:1]}
        wanted = [name for name in shapes if name in output.names]
        found = {name: np.full((*status.shape, *shapes[name]), np.nan) for name in wanted}
        good = np.nonzero(status == pose.Frame.ENOUGH)
        with reporter(progress, None, len(good[0]), who="poses", unit="view" if status.ndim > 1 else "frame") as report:
            for begin in range(0, len(good[0]), FRAMES):
                where = tuple(index[begin : begin + FRAMES] for index in good)
                solution = wb.minimise(output, self.weights, self.data(frames, where), **self.model.options)
                for name in wanted:
                    found[name][where] = solution.outputs[name]
                if report is not None:
                    report(len(where[0]))
        return found, status

    def gradient(self, solution: Any, truth: Floats) -> dict[str, Any]:
        """Of the Euclidean error, by every weight: through all steps that were made, or of the minimum."""
        variable, target = (sp.IndexedBase(name, shape=(17, 3)) for name in ("pose", "truth"))
        loss = wb.mean_joint_distance(variable, target)
        slope = loss.gradient({"pose": solution.outputs["pose"]}, {"truth": truth})
        if self.model.solver == "steps":
            return wb.unrolled_gradient(self.output, solution, slope)
        return wb.implicit_gradient(self.output, solution, slope, damping=0.0, unconverged="use")


class OneCamera(Reconstruction):
    """The monocular model: a pose from each camera alone. Poses are (N, C, 17, 3), and so on."""

    def status(self, frames: Frames) -> NDArray[np.int64]:
        return pose.view_status(frames.weights)

    def data(self, frames: Frames, where: Any) -> dict[str, Any]:
        rows, views = where
        size = np.where(np.isfinite(frames.size[rows]), frames.size[rows], 1.0)
        return self.model.data(frames.points[rows, views], frames.visible[rows, views], views) | {"size": size}


def _apart(one: Floats, other: Floats) -> float:
    """The largest angle between axes of cameras (C, 3, 3), degrees."""
    cosine = (one * other).sum(axis=-1) / (np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1))
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).max())


# ---------------------------------------------------------------------------------------------- files


def save_model(path: Path, model: Any, weights: Mapping[str, Any], **notes: Any) -> None:
    """Body models, cameras, solver and weights, as arrays without pickles; other arrays are for figures."""
    bodies = {f"bodies_{name}": getattr(model.bodies, name) for name in ("mean", "shapes", "sigma")}
    arrays = {f"weight_{name}": np.asarray(weight) for name, weight in weights.items()}
    solver = f"monocular {model.choice}" if isinstance(model, pose.Monocular) else model.solver
    write(path, {"solver": solver, "choice": model.choice, "average": model.average} | bodies | arrays | notes)


def load_model(path: Path) -> Reconstruction:
    file = read(path, ("solver", "average", "bodies_mean", "bodies_shapes", "bodies_sigma"))
    bodies = pose.BodyModels(*(file[f"bodies_{name}"] for name in ("mean", "shapes", "sigma")))
    solver, monocular = str(file["solver"]), str(file["solver"]).startswith("monocular ")
    model: Any
    if monocular:
        model = pose.Monocular(bodies, file["average"], choice=solver.removeprefix("monocular "))
    else:
        model = pose.MultiCamera(bodies, file["average"], solver=solver, choice=str(file.get("choice", "soft")))
    start = model.weights()
    wrong = [name for name in start if np.shape(file.get(f"weight_{name}")) != np.shape(start[name])]
    if wrong:
        raise wb.InputError(f"{path}: weights {', '.join(wrong)} are missing or of another shape")
    weights = {name: file[f"weight_{name}"] for name in start}
    return OneCamera(model, weights) if monocular else Reconstruction(model, weights)


def history(path: Path) -> tuple[NDArray[np.int64], Floats]:
    """Steps and losses of the training that made a file; empty if it does not say."""
    file = read(path, ())
    return file.get("history_steps", np.zeros(0, dtype=np.int64)), file.get("history_loss", np.zeros(0))


# ---------------------------------------------------------------------------------------------- without learning


def bodies_of(path: Path | None, poses: Floats, mixture: int) -> pose.BodyModels:
    """Body models of the authors' file, or fitted to poses (N, 17, 3)."""
    return pose.fit_bodies(poses, mixture) if path is None else pose.BodyModels.of_file(read(path, ()), mixture)


def of_authors(path: Path, parameters: str, solver: str, mixture: int) -> Reconstruction:
    """Models and weights of the authors' file."""
    file = read(path, ("cameras", *(f"{letter}_{mixture}" for letter in ("mu", "e", "sigma"))))
    model = pose.MultiCamera(pose.BodyModels.of_file(file, mixture), file["cameras"], solver=SOLVERS[solver])
    if parameters == "untrained":
        return Reconstruction(model, model.weights())
    if mixture != 3:
        raise wb.InputError(f"trained parameters are of a mixture of 3 models; --mixture {mixture} is for untrained")
    return Reconstruction(model, model.weights_of_file(file, robust=parameters == "trained-loaded"))


def untrained(poses: Floats, average: Floats, solver: str, mixture: int, bodies: Path | None = None) -> Reconstruction:
    """Of several cameras, with bodies fitted to poses or those of the authors' file."""
    if bodies is not None:
        return of_authors(bodies, "untrained", solver, mixture)
    model = pose.MultiCamera(pose.fit_bodies(poses, mixture), average, solver=SOLVERS[solver])
    return Reconstruction(model, model.weights())


def untrained_of_one(poses: Floats, average: Floats, mixture: int, bodies: Path | None = None) -> OneCamera:
    model = pose.Monocular(bodies_of(bodies, poses, mixture), average)
    return OneCamera(model, model.weights())
