"""The inputs of the four workloads, as dicts by name of the energies' symbols, and where the peers' files are.

W1  ransac   1 unknown, 110 terms           E = -sum_i exp(-(x_i - t)^2 / sigma^2)
W2  fusion   2 unknowns, 72 terms           E = -sum_k exp(alpha_k + beta_k t - |s_k c_k - y|^2 / exp(2 log_sigma_k))
W3  pose     26 unknowns, 4 x 17 residuals,   E = sum_cj omega_cj^2 delta^2 (sqrt(1 + |r_cj|^2 / delta^2) - 1)
                                                  + 1/2 sum_k (sigma_k (a_k - m_k))^2,  r_cj = X_cj - P_c sum_k a_k B_kj
W4  denoise  64 x 64 unknowns, sparse Hessian    E = 1/2 sum (y - z)^2 + exp(log_lambda) sum over neighbours
                                                     sqrt(d^2 + exp(2 log_eps)),  d their difference

Where the shared workloads are present (`../shared`, or the folder that WIBERG_SHARED names), the inputs are theirs, so
that figures can be compared; else they are drawn here from the same distributions.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Workload:
    """One workload: B instances.

    Attributes
    ----------
    point : dict
        Where value, gradient and Hessian are evaluated, near the answer but not at it.
    start : dict or None
        Where minimisation starts; None: from the energy's candidates.
    target : dict
        The loss is the squared distance to it (for W3, of the body's shapes).
    """

    name: str
    size: int
    point: dict[str, Floats]
    weights: dict[str, Any]
    data: dict[str, Floats]
    start: dict[str, Floats] | None
    target: Floats

    def slopes(self, y: Floats) -> Floats:
        """dl/dy at minima (B, m), from the loss alone."""
        if self.name != "W3":
            return np.asarray(2 * (y - self.target.reshape(y.shape)))
        bases = self.weights["B"].reshape(y.shape[1], -1)
        return np.asarray(2 * (y @ bases - self.target.reshape(len(y), -1)) @ bases.T)


def shared_folder() -> Path | None:
    """The folder of the shared benchmarks, if there is one."""
    folder = Path(os.environ.get("WIBERG_SHARED", ROOT.parent / "shared")) / "benchmarks"
    return folder if (folder / "workloads.py").is_file() else None


def load(path: Path) -> ModuleType:
    """A module from a file outside the package, which may import its neighbours; it leaves no bytecode there."""
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(path.parent))
    specification = importlib.util.spec_from_file_location(f"shared_{path.stem}", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def workloads() -> dict[str, Workload]:
    folder = shared_folder()
    source: Any = load(folder / "workloads.py") if folder is not None else Own
    random = np.random.default_rng(1)

    r = source.ransac()
    w1 = Workload(
        "W1", len(r["x"]), {"t": r["target"] + random.standard_normal(len(r["x"]))},
        {"sigma": float(r["sigma"])}, {"x": r["x"]}, None, r["target"],
    )  # fmt: skip

    f = source.fusion()
    w = f["w"]
    columns = {"alpha": w[:, 0], "beta": w[:, 1], "log_sigma": w[:, 2], "s": w[:, 3:5]}
    w2 = Workload(
        "W2", len(f["t"]), {"y": f["target"] + 0.03 * random.standard_normal(f["target"].shape)},
        {name: np.ascontiguousarray(column) for name, column in columns.items()},
        {"c": f["c"], "t": f["t"]}, None, f["target"],
    )  # fmt: skip

    p = source.pose()
    weights = {name: p[name] for name in ("B", "omega", "sigma", "P")} | {"delta": float(p["delta"])}
    w3 = Workload(
        "W3", len(p["X"]), {"a": p["start"] + 0.3 * random.standard_normal(p["start"].shape)},
        weights, {"X": p["X"], "m": p["m"]}, {"a": p["start"]}, p["target"],
    )  # fmt: skip

    images = [source.denoise(seed=seed) for seed in range(16)]
    noisy, clean = (np.stack([image[name] for image in images]) for name in ("z", "clean"))
    w4 = Workload(
        "W4", len(noisy), {"y": noisy + 0.05 * random.standard_normal(noisy.shape)},
        {name: float(images[0][name]) for name in ("log_lambda", "log_eps")}, {"z": noisy}, {"y": noisy}, clean,
    )  # fmt: skip
    return {"W1": w1, "W2": w2, "W3": w3, "W4": w4}


def one_of(work: Workload) -> Workload:
    """The first instance of a workload whose variables and data all have a batch axis, as a batch of one."""

    def first(arrays: dict[str, Floats]) -> dict[str, Floats]:
        return {name: array[:1] for name, array in arrays.items()}

    start = None if work.start is None else first(work.start)
    return Workload(work.name, 1, first(work.point), work.weights, first(work.data), start, work.target[:1])


class Own:
    """Draws of our own, with the sizes and distributions of the shared ones."""

    @staticmethod
    def ransac(batch: int = 1000, inliers: int = 10, outliers: int = 100) -> dict[str, Floats]:
        random = np.random.default_rng(10)
        mean = random.uniform(-40, 40, batch)
        near = random.normal(mean, 4, (inliers, batch)).T
        far = random.uniform(-40, 40, (batch, outliers))
        return {"x": np.hstack([near, far]), "sigma": np.array(8.0), "target": mean}

    @staticmethod
    def fusion(batch: int = 2000, trackers: int = 72) -> dict[str, Floats]:
        random = np.random.default_rng(11)
        truth = random.uniform(0.1, 0.9, (batch, 2))
        spread, failing = random.uniform(0.01, 0.15, trackers), random.uniform(0, 0.5, trackers)
        tracked = random.normal(truth[:, None], spread[:, None], (batch, trackers, 2))
        lost = (random.random((batch, trackers)) < failing)[..., None]
        corners = np.where(lost, random.uniform(0, 1, tracked.shape), tracked)
        weights = np.empty((trackers, 5))
        weights[:, 0] = random.normal(0, 0.2, trackers)
        weights[:, 1] = random.uniform(-0.5, 0, trackers)
        weights[:, 2] = random.normal(np.log(0.08), 0.2, trackers)
        weights[:, 3:] = random.normal(1, 0.02, (trackers, 2))
        return {"c": corners, "t": random.uniform(0, 1, batch), "w": weights, "target": truth}

    @staticmethod
    def pose(batch: int = 200, bases: int = 25, joints: int = 17, cameras: int = 4) -> dict[str, Floats]:
        random = np.random.default_rng(12)
        size = np.concatenate([[0.6], np.linspace(0.2, 0.02, bases)])
        B = size[:, None, None] * random.standard_normal((bases + 1, joints, 3))
        angle = 0.1 + 2 * np.pi * np.arange(cameras) / cameras
        P = np.zeros((cameras, 2, 3))
        P[:, 0, 0], P[:, 0, 1] = np.cos(angle), np.sin(angle)
        P[:, 1, 0], P[:, 1, 1], P[:, 1, 2] = 0.1 * np.sin(angle), -0.1 * np.cos(angle), 1.0
        m = np.eye(bases + 1)[0]
        a = m + random.standard_normal((batch, bases + 1)) * np.where(m == 1, 0.05, 1.0)
        body = np.tensordot(a, B, 1)
        X = np.einsum("ced,bjd->bcje", P, body) + random.normal(0, 0.02, (batch, cameras, joints, 2))
        X += (random.random((batch, cameras, joints, 1)) < 0.1) * random.normal(0, 0.5, X.shape)
        return {
            "X": X, "B": B, "P": P, "m": m, "omega": np.ones((cameras, joints)), "sigma": np.full(bases + 1, 0.3),
            "delta": np.array(0.05), "target": body, "start": np.tile(m, (batch, 1)),
        }  # fmt: skip

    @staticmethod
    def denoise(n: int = 64, seed: int = 0) -> dict[str, Floats]:
        random = np.random.default_rng(seed)
        clean = np.zeros((n, n))
        for _ in range(12):
            row, column = random.integers(0, n, 2)
            height, width = random.integers(n // 8, n // 2, 2)
            clean[row : row + height, column : column + width] += random.uniform(-0.5, 0.5)
        noisy = clean + random.normal(0, 0.1, clean.shape)
        return {
            "z": noisy, "clean": clean, "log_lambda": np.array(np.log(0.15)), "log_eps": np.array(np.log(0.05)),
        }  # fmt: skip
