"""Learning from all data at once: L-BFGS-B of SciPy over the mean loss and its damped gradient.

For data that fit into memory and a loss without noise from step to step: no learning rate, no scale of its own. What is
minimised over are the numbers that are learnt (coordinates.py), logarithms where scale="log", within their bounds;
weights on surfaces (simplices, orthonormal columns) are refused: a line search leaves them.

The damped gradient is not quite that of the loss, so that a line search may find nothing lower although the gradient
is not zero; then the best weights so far are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from ..energies.errors import InputError, NumericalError
from .batches import Batch
from .coordinates import Coordinates
from .judge import combined, judge
from .model import Model

Floats = NDArray[np.float64]

WORSE = 1e10
"""What weights without a finite loss cost, in units of the loss at the start: line searches turn back."""


class Learnt(NamedTuple):
    """The weights of the lowest loss, that of the start and after each iteration, and whether the limit ended it."""

    weights: dict[str, Any]
    losses: list[float]
    iterations: int
    limited: bool


def descend(
    model: Model,
    coordinates: Coordinates,
    batch: Batch,
    options: Mapping[str, Any],
    *,
    damping: float,
    unconverged: str,
    iterations: int,
) -> Learnt:
    """Minimise the mean loss of a batch over the weights.

    Parameters
    ----------
    options
        For `minimise`.

    Raises
    ------
    NumericalError
        If the loss is not finite at the start.
    InputError
        For weights that stay on a surface.
    """
    if coordinates.on_surfaces:
        raise InputError(
            f"fit: {', '.join(coordinates.on_surfaces)}: all data at once are learnt from without simplices (but for "
            'scale="log") and orthonormal columns; learn them by steps (wb.Learner)'
        )
    first: list[float] = []
    best: tuple[float, Floats] = math.inf, coordinates.start

    def objective(learnt: Floats) -> tuple[float, Floats]:
        nonlocal best
        with np.errstate(all="ignore"):
            shown = coordinates.shown(learnt)
        weights = coordinates.unpack(shown)
        try:
            minima = model.minimise(weights, batch, options)
            sums = judge(model, batch, minima, coordinates, weights, step=0, damping=damping, unconverged=unconverged)
            judged = combined([sums], model, coordinates, weights, who="fit")
            gradient = coordinates.gradient(judged.gradient, shown)
            if not (math.isfinite(judged.loss) and np.isfinite(gradient).all()):
                raise NumericalError(f"the loss is {judged.loss:g}, or its gradient is not finite")
        except (ArithmeticError, ValueError):
            if not first:
                raise
            return WORSE * (abs(first[0]) + 1.0), np.zeros_like(learnt)
        first.append(judged.loss)
        if judged.loss < best[0]:
            best = judged.loss, shown
        return judged.loss, gradient

    losses: list[float] = []
    found = minimize(
        objective,
        coordinates.learnt(coordinates.start),
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(*coordinates.bounds, strict=True)),
        options={"maxiter": iterations},
        callback=lambda _: losses.append(best[0]),
    )
    weights = {
        name: float(array) if array.ndim == 0 else array.copy() for name, array in coordinates.unpack(best[1]).items()
    }
    return Learnt(weights, [first[0], *losses], int(found.nit), found.status == 1)
