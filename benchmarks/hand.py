"""The shared hand-written numba kernels, called with the arrays that wiberg's public functions take.

Their layouts differ: W2 wants corners and weights with the trackers last, W3 wants bases transposed and padded to 28
and detections with the joints last. The conversion is part of the call, as it is part of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from workloads import Workload, load, shared_folder

Floats = NDArray[np.float64]
Answers = tuple[Floats, Floats, Any]


def kernels() -> Any | None:
    folder = shared_folder()
    path = None if folder is None else folder / "hand" / "kernels.py"
    return load(path) if isinstance(path, Path) and path.is_file() else None


def value_gradient_hessian(module: Any, work: Workload) -> Callable[[], Answers]:
    """A call that gives values (B,), gradients (B, m) and Hessians: (B, m, m), for W4 what neighbours couple by."""
    y, w, x = work.point, work.weights, work.data

    def w1() -> Answers:
        value, gradient, hessian = (np.empty(work.size) for _ in range(3))
        module.w1_vgh(x["x"], y["t"], w["sigma"], value, gradient, hessian)
        return value, gradient[:, None], hessian[:, None, None]

    def w2() -> Answers:
        weights = np.vstack([w["alpha"], w["beta"], w["log_sigma"], w["s"].T])
        corners = np.ascontiguousarray(x["c"].transpose(0, 2, 1))
        value, gradient, hessian = np.empty(work.size), np.empty((work.size, 2)), np.empty((work.size, 2, 2))
        module.w2_vgh(y["y"], weights, corners, x["t"], value, gradient, hessian)
        return value, gradient, hessian

    def w3() -> Answers:
        bases, width = len(w["sigma"]), module.KP

        def padded(array: Floats) -> Floats:
            wide = np.zeros((*array.shape[:-1], width))
            wide[..., :bases] = array
            return wide

        transposed = padded(w["B"].reshape(bases, -1).T)
        detections = np.ascontiguousarray(x["X"].transpose(0, 1, 3, 2))
        value, gradient, hessian = (np.empty((work.size, *shape)) for shape in ((), (width,), (bases, width)))
        module.w3_vgh(
            padded(y["a"]), transposed, w["P"], padded(x["m"]), w["omega"], padded(w["sigma"]), w["delta"], detections,
            value, gradient, hessian,
        )  # fmt: skip
        return value, gradient[:, :bases], hessian[:, :, :bases]

    def w4() -> Answers:
        weight, softness = np.exp(w["log_lambda"]), np.exp(2 * w["log_eps"])
        gradient, right, down, diagonal = (np.empty(y["y"].shape) for _ in range(4))
        value = np.empty(work.size)
        for k in range(work.size):
            value[k] = module.w4_all(
                y["y"][k], x["z"][k], weight, softness, gradient[k], right[k], down[k], diagonal[k]
            )
        return value, gradient.reshape(work.size, -1), (diagonal, right, down)

    return {"W1": w1, "W2": w2, "W3": w3, "W4": w4}[work.name]


def comparable(work: Workload, answers: Answers) -> Answers:
    """The same with W4's Hessians, whichever of the two they are, as the numbers of its three diagonals."""
    value, gradient, hessian = answers
    if work.name != "W4":
        return answers
    if isinstance(hessian, tuple):
        diagonal, right, down = (part.reshape(work.size, -1) for part in hessian)
        return value, gradient, np.stack([diagonal, -right, -down])
    side = work.target.shape[-1]
    parts = [[np.pad(h.diagonal(k), (0, k)) for h in hessian] for k in (0, 1, side)]
    return value, gradient, np.array(parts)
