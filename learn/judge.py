"""Judging the minima of a batch: the mean loss, its gradient by the weights, and who counted.

For the minima y_b of B instances and a damping lambda:

    loss      = mean of l_b over the instances that count  +  R(w)
    gradient  = 1/B sum_b (dl_b/dy . dy_b/dw + dl_b/dE dE_b/dw + dl_b/dw)  +  dR/dw

with the damped derivative dy_b/dw (implicit.py), the direct part of a loss that reads weights or the energy of the
minimum itself (dE/dw with the minimum held: the envelope theorem), and a regulariser R. What an output (output.py)
makes of the minima is pulled back to them first.

Instances that `unconverged=` leaves out add nothing to the sum and still count in B. Of a family, the loss of an
instance is a function of all its members, and the instance counts where all of them do. Nothing here changes anything:
what is not finite is refused before a step is taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..compiler.evaluate import run
from ..energies.errors import InputError, NotFiniteError, NumericalError
from ..runtime.solution import Solution
from .batches import Batch, place
from .coordinates import Coordinates
from .damped import LEFT_OUT, NOT_FINITE, SHIFTED, USED
from .implicit import damped_gradient, not_finite, packed_slopes, refuse_singular, unconverged_summary, unusable
from .model import Minima, Model
from .output import OutputSolution, blocked_sum, instances_of, masked, minima_slopes

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Used = NDArray[np.bool_] | None
"""Which instances count, (B,); None: all."""


class Judgement(NamedTuple):
    """What a step needs to know of a batch; the shares are of its instances, as in `History`.

    Attributes
    ----------
    loss : float
        NaN where no instance counts.
    gradient : (p,)
        By the weights as shown.
    unconverged, shifted, dominated : float
        Of a family, shares of all members.
    largest : float
        The largest norm of what one minimum adds to the gradient.
    """

    loss: float
    gradient: Floats
    unconverged: float
    shifted: float
    dominated: float
    largest: float = math.nan


def judge(
    model: Model,
    batch: Batch,
    minima: Minima,
    coordinates: Coordinates,
    weights: Mapping[str, Floats],
    *,
    step: int,
    damping: float,
    unconverged: str,
) -> Judgement:
    """Judge the minima of the batch that step number `step` was given.

    Parameters
    ----------
    minima : Solution or OutputSolution
        Of `batch` at the weights before the step, which are shared by all instances.
    coordinates, weights
        Those weights, by name, and where each of them is in the gradient.
    damping, unconverged
        As for `implicit_gradient`; "nan" raises like "raise".

    Raises
    ------
    InputError
        For a batch without instances; for targets that do not fit the minima.
    NotFiniteError
        For a loss that is not finite; with damping = 0 at a singular Hessian.
    NumericalError
        With unconverged="raise" or "nan".
    """
    who = f"fit: {place(batch, step)}"
    parts = model.solutions(minima)
    count = instances_of(minima) if isinstance(minima, Solution) else minima.batch or 1
    if count == 0:
        raise InputError(f"{who}: the batch has no instances")
    codes = [np.full(len(part.y), USED, dtype=np.int64) for part in parts]
    marked = [unusable(part) for part in parts]
    failed = sum(int(np.count_nonzero(mark)) for mark in marked)
    used = _leave_out(parts, marked, codes, count, unconverged=unconverged, who=who, step=step) if failed else None
    judged = loss_at(model, batch, minima, weights, count, who=who)
    _check_finite(judged, used, who=who, step=step)
    gradient = np.zeros(coordinates.start.size)
    slopes = _to_minima(model, minima, judged, used, gradient, coordinates, who=who)
    largest: list[float] = []
    for kernel, part, slope, code in zip(model.kernels, parts, slopes, codes, strict=True):
        own = damped_gradient(kernel, part, slope, damping, code, largest)
        if damping == 0.0:
            try:
                refuse_singular(kernel, part, code, who)
            except NumericalError as error:
                raise NotFiniteError(str(error)) from None
        gradient[coordinates.places(kernel.weights.names)] += own
    values, shifted = judged.values, 0
    if failed or any(np.count_nonzero(code == USED) < len(code) for code in codes):
        used = np.ones(count, dtype=bool) if used is None else used
        for part, code in zip(parts, codes, strict=True):
            used &= _by_instance((code == USED) | (code == SHIFTED), part).all(axis=1)
        failed = sum(int(np.count_nonzero(m | (c == NOT_FINITE))) for m, c in zip(marked, codes, strict=True))
        shifted = sum(int(np.count_nonzero(code == SHIFTED)) for code in codes)
        values = values[used]
    dominated = sum(int(np.count_nonzero(part.reals[:, 1] < damping)) for part in parts)
    mean = float(np.add.reduce(values)) / len(values) if len(values) else math.nan
    gradient /= count
    if model.loss.regulariser is not None:
        penalty, own = model.loss.regulariser.evaluate(weights)
        mean += penalty
        gradient[coordinates.places(model.loss.regulariser.weights)] += own
    rows = sum(len(code) for code in codes)
    return Judgement(
        mean,
        gradient,
        failed / rows,
        shifted / rows,
        dominated / rows,
        (largest[0] if len(largest) == 1 else max(largest, default=0.0)) / count,
    )


def _by_instance(rows: NDArray[Any], part: Solution) -> NDArray[Any]:
    """Numbers of all members as (B, members)."""
    return rows.reshape(-1, max(1, part.inputs.members))


class _Judged(NamedTuple):
    """Losses (B,), and their derivatives by what the loss reads: arrays (B, ...) by name, and by weights (B, p)."""

    values: Floats
    slopes: dict[str, Floats]
    direct: Floats | None


def loss_at(model: Model, batch: Batch, minima: Minima, weights: Mapping[str, Any], count: int, *, who: str) -> _Judged:
    """The losses of the instances at the minima of a batch, with their derivatives."""
    loss = model.loss
    inputs = loss.bind(batch.targets, batch.data, minima, weights)
    if inputs.batch is not None and inputs.batch not in (1, count):
        raise InputError(
            f"{who}: targets have {inputs.batch} instances and the minima {count}; unbatched arrays are shared"
        )
    layout = loss.kernel.variables
    arrays = [np.asarray(minima.energy if n == loss.minimum else minima.variables[n]) for n in layout.names]
    columns = [array.reshape(count, -1) for array in arrays]
    packed = np.ascontiguousarray(columns[0]) if len(columns) == 1 else np.concatenate(columns, axis=1)
    values, rows, direct = loss.evaluate(inputs, packed)
    slopes, begin = {}, 0
    for name, array in zip(layout.names, arrays, strict=True):
        end = begin + array.size // count
        slopes[name] = rows[:, begin:end].reshape(array.shape)
        begin = end
    return _Judged(values, slopes, direct)


def _to_minima(
    model: Model,
    minima: Minima,
    judged: _Judged,
    used: Used,
    gradient: Floats,
    coordinates: Coordinates,
    *,
    who: str,
) -> list[Floats]:
    """dl/dy of each kernel, (rows, m); what reaches the weights directly is added to `gradient`, over the batch."""
    loss, slopes = model.loss, judged.slopes
    if judged.direct is not None:
        gradient[coordinates.places(loss.kernel.weights.names)] += blocked_sum(masked(judged.direct, used))
    if loss.minimum is not None:
        (part,), (kernel,) = model.solutions(minima), model.kernels
        _, rows = run(kernel.entry("weight_gradient"), part.inputs, part.y, count=len(part.y))
        by_energy = masked(slopes.pop(loss.minimum), used).reshape(-1, 1)
        counted = np.where(by_energy == 0.0, 0.0, by_energy * rows)
        gradient[coordinates.places(kernel.weights.names)] += blocked_sum(counted)
    if not slopes:
        return [np.zeros(part.y.shape) for part in model.solutions(minima)]
    if not isinstance(minima, OutputSolution):
        return [packed_slopes(minima.kernel, minima, slopes, who)]
    each, direct = minima_slopes(minima, {n: masked(array, used) for n, array in slopes.items()}, who, used)
    for name, slope in direct.items():
        gradient[coordinates.places((name,))] += np.ravel(slope)
    return [packed_slopes(part.kernel, part, own, who) for part, own in zip(minima.solutions, each, strict=True)]


def _leave_out(
    parts: Sequence[Solution],
    marked: Sequence[NDArray[np.bool_]],
    codes: Sequence[Codes],
    count: int,
    *,
    unconverged: str,
    who: str,
    step: int,
) -> NDArray[np.bool_]:
    """Mark in `codes` what does not count since a minimisation did not converge, or raise; which instances count."""
    used = np.ones(count, dtype=bool)
    for part, mark, code in zip(parts, marked, codes, strict=True):
        if not mark.any():
            continue
        if unconverged in ("raise", "nan"):
            raise NumericalError(
                f"{who}: {unconverged_summary(part, mark)}; weights after "
                f"{step} steps are kept; allow more iterations, or use unconverged='zero'"
            )
        code[not_finite(part) if unconverged == "use" else mark] = LEFT_OUT
        used &= _by_instance(code == USED, part).all(axis=1)
    for part, code in zip(parts, codes, strict=True):
        if instances_of(part) == count:
            code[np.repeat(~used, max(1, part.inputs.members))] = LEFT_OUT
    return used


def _check_finite(judged: _Judged, used: Used, *, who: str, step: int) -> None:
    """Raise if the loss or its gradient is not finite at an instance that counts."""
    values, slopes = judged.values, [*judged.slopes.values(), *([] if judged.direct is None else [judged.direct])]
    if np.isfinite(values).all() and all(np.isfinite(slope).all() for slope in slopes):
        return
    finite = np.isfinite(values)
    for slope in slopes:
        finite &= np.isfinite(slope.reshape(len(values), -1)).all(axis=1)
    bad = ~finite if used is None else ~finite & used
    if bad.any():
        instance = int(np.flatnonzero(bad)[0])
        what = (
            f"the loss is {values[instance]:g}"
            if not math.isfinite(values[instance])
            else "the gradient of the loss is not finite"
        )
        several = np.flatnonzero(bad)
        more = f" ({len(several)} of {len(bad)} instances: {_listed(several)})" if len(several) > 1 else ""
        raise NotFiniteError(
            f"{who}: {what} at instance {instance}{more}; weights after "
            f"{step} steps are kept, history is intact; check targets and loss, lower "
            f"learning_rate or raise damping"
        )


def _listed(numbers: NDArray[np.intp]) -> str:
    return ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
