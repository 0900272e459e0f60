"""Judging the minima of a batch: the mean loss, its gradient by the weights, and who counted.

    minima of some blocks of 64 instances  --judge-->  Sums of each block  --combined-->  Judgement of the batch

Blocks may be judged together or apart, in any process: their sums are combined in order (blocks.py), and so the
judgement has the same bits.

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

from ..compiler.calls.evaluate import BLOCK, run
from ..energies.errors import InputError, NotFiniteError, NumericalError
from ..runtime.solution import Solution
from .batches import Batch, place
from .coordinates import Coordinates
from .derivative.blocks import block_sums, in_order
from .derivative.damped import LEFT_OUT, NOT_FINITE, SHIFTED, USED
from .derivative.implicit import (
    damped_blocks,
    not_finite,
    packed_slopes,
    refuse_singular,
    unconverged_summary,
)
from .derivative.output_gradient import masked, minima_slopes
from .derivative.unrolled import unrolled_blocks
from .model import Minima, Model
from .output import OutputSolution, instances_of

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Used = NDArray[np.bool_] | None
"""Which instances count, (B,); None: all."""


class Sums(NamedTuple):
    """What blocks of 64 instances, one after another, contribute to a step; the numbers are over all of them.

    Attributes
    ----------
    losses : (K,)
        The sum of the losses of the instances that count.
    gradient : (K, p)
        The sum of their derivatives by the weights as shown.
    counted, instances : int
        How many instances count, of how many.
    unconverged, shifted, dominated, members : int
        How many minimisations are such, of how many.
    largest : float
        The largest norm of what one minimisation adds to the gradient.
    shared : str or None
        A kernel of which all the instances share one minimum.
    """

    losses: Floats
    gradient: Floats
    counted: int
    instances: int
    unconverged: int
    shifted: int
    dominated: int
    members: int
    largest: float
    shared: str | None


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
) -> Sums:
    """Judge the minima of the batch that step number `step` was given, or of a part of it that begins a block.

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
    marked = [model.failed(part) for part in parts]
    failed = sum(int(np.count_nonzero(mark)) for mark in marked)
    used = leave_out(parts, marked, codes, count, unconverged=unconverged, who=who, step=step) if failed else None
    judged = loss_at(model, batch, minima, weights, count, who=who)
    check_finite(judged, used, who=who, step=step)
    gradient = np.zeros((-(-count // BLOCK), coordinates.start.size))
    slopes = to_minima(model, minima, judged, used, gradient, coordinates, who=who)
    largest: list[float] = []
    for kernel, part, slope, code in zip(model.kernels, parts, slopes, codes, strict=True):
        members = max(1, part.inputs.members)
        if model.unrolled:
            own = unrolled_blocks(kernel, part, slope, code, largest, members=members)
        else:
            own = damped_blocks(kernel, part, slope, damping, code, largest, members=members)
            if damping == 0.0:
                refuse_singular_step(kernel, part, code, who)
        _add(gradient, coordinates.places(kernel.weights.names), own)
    values, shifted = judged.values, 0
    if failed or any(np.count_nonzero(code == USED) < len(code) for code in codes):
        used = np.ones(count, dtype=bool) if used is None else used
        for part, code in zip(parts, codes, strict=True):
            used &= _by_instance((code == USED) | (code == SHIFTED), part).all(axis=1)
        failed = sum(int(np.count_nonzero(m | (c == NOT_FINITE))) for m, c in zip(marked, codes, strict=True))
        shifted = sum(int(np.count_nonzero(code == SHIFTED)) for code in codes)
        values = np.where(used, values, 0.0)
    return Sums(
        block_sums(values),
        gradient,
        counted=count if used is None else int(np.count_nonzero(used)),
        instances=count,
        unconverged=failed,
        shifted=shifted,
        dominated=0 if model.unrolled else sum(count_dominated(part, damping) for part in parts),
        members=sum(len(code) for code in codes),
        largest=max(largest, default=0.0),
        shared=next((part.name for part in parts if instances_of(part) != count), None),
    )


def combined(
    sums: Sequence[Sums], model: Model, coordinates: Coordinates, weights: Mapping[str, Floats], *, who: str
) -> Judgement:
    """The judgement of a batch from the sums of its parts, in their order.

    Raises
    ------
    InputError
        For a minimum that the instances of several parts share: its derivative is not a sum over them.
    """
    if len(sums) > 1 and sums[0].shared is not None:
        raise InputError(
            f"{who}: all instances share one minimum of energy {sums[0].shared!r}, so that the batch cannot be judged "
            f"in parts; give that energy data or a start with a batch axis, or the batch whole and no client"
        )
    one = sums[0] if len(sums) == 1 else _together(sums)
    total, gradient = float(in_order(one.losses, ())), in_order(one.gradient, (coordinates.start.size,))
    mean = total / one.counted if one.counted else math.nan
    gradient /= one.instances
    mean = add_regulariser(model, weights, mean, gradient, coordinates)
    unconverged, shifted, dominated = (number / one.members for number in (one.unconverged, one.shifted, one.dominated))
    return Judgement(mean, gradient, unconverged, shifted, dominated, one.largest / one.instances)


def _together(sums: Sequence[Sums]) -> Sums:
    """The sums of parts as those of one."""
    return Sums(
        np.concatenate([part.losses for part in sums]),
        np.concatenate([part.gradient for part in sums]),
        counted=sum(part.counted for part in sums),
        instances=sum(part.instances for part in sums),
        unconverged=sum(part.unconverged for part in sums),
        shifted=sum(part.shifted for part in sums),
        dominated=sum(part.dominated for part in sums),
        members=sum(part.members for part in sums),
        largest=max(part.largest for part in sums),
        shared=sums[0].shared,
    )


def count_dominated(part: Solution, damping: float) -> int:
    """In how many minima damping is more than the curvature; one that is left to be found is above 0."""
    curvatures = part.curvatures if damping > 0.0 else part.reals[:, 1]
    return int(np.count_nonzero(curvatures < damping))


def refuse_singular_step(kernel: Any, part: Solution, codes: Codes, who: str) -> None:
    """`refuse_singular`, as an error of the step."""
    try:
        refuse_singular(kernel, part, codes, who)
    except NumericalError as error:
        raise NotFiniteError(str(error)) from None


def _add(gradient: Floats, places: Any, sums: Floats) -> None:
    """Add sums of blocks, (K, p'), at their places; those of a minimum that all instances share are one row."""
    gradient[: len(sums), places] += sums


def add_regulariser(
    model: Model, weights: Mapping[str, Floats], mean: float, gradient: Floats, coordinates: Coordinates
) -> float:
    """The mean loss with the regulariser, whose derivative is added to `gradient`."""
    if model.loss.regulariser is None:
        return mean
    penalty, own = model.loss.regulariser.evaluate(weights)
    gradient[coordinates.places(model.loss.regulariser.weights)] += own
    return mean + float(penalty)


def _by_instance(rows: NDArray[Any], part: Solution) -> NDArray[Any]:
    """Numbers of all members as (B, members)."""
    return rows.reshape(-1, max(1, part.inputs.members))


class Judged(NamedTuple):
    """Losses (B,), and their derivatives by what the loss reads: arrays (B, ...) by name, by weights (B, p), and by
    the energy of the minimum (B, ...)."""

    values: Floats
    slopes: dict[str, Floats]
    direct: Floats | None
    by_energy: Floats | None


def loss_at(model: Model, batch: Batch, minima: Minima, weights: Mapping[str, Any], count: int, *, who: str) -> Judged:
    """The losses of the instances at the minima of a batch, with their derivatives."""
    return evaluate_loss(model, bind_loss(model, batch, minima, weights, count, who=who), minima)


def bind_loss(model: Model, batch: Batch, minima: Minima, weights: Mapping[str, Any], count: int, *, who: str) -> Any:
    """The inputs of the loss for the minima of `count` instances."""
    inputs = model.loss.bind(batch.targets, batch.data, minima, weights)
    if inputs.batch is not None and inputs.batch not in (1, count):
        raise InputError(
            f"{who}: targets have {inputs.batch} instances and the minima {count}; unbatched arrays are shared"
        )
    return inputs


def evaluate_loss(model: Model, inputs: Any, minima: Minima) -> Judged:
    """The loss of every instance."""
    loss = model.loss
    layout = loss.kernel.variables
    arrays = [np.asarray(minima.energy if n == loss.minimum else minima.variables[n]) for n in layout.names]
    count = (instances_of(minima) if isinstance(minima, Solution) else minima.batch) or 1
    columns = [array.reshape(count, -1) for array in arrays]
    packed = np.ascontiguousarray(columns[0]) if len(columns) == 1 else np.concatenate(columns, axis=1)
    values, rows, direct = loss.evaluate(inputs, packed)
    slopes, begin = {}, 0
    for name, array in zip(layout.names, arrays, strict=True):
        end = begin + array.size // count
        slopes[name] = rows[:, begin:end].reshape(array.shape)
        begin = end
    by_energy = None if loss.minimum is None else slopes.pop(loss.minimum)
    return Judged(values, slopes, direct, by_energy)


def to_minima(
    model: Model,
    minima: Minima,
    judged: Judged,
    used: Used,
    gradient: Floats,
    coordinates: Coordinates,
    *,
    who: str,
) -> list[Floats]:
    """dl/dy of each kernel, (rows, m); what reaches the weights directly is added to `gradient`, by blocks."""
    loss, slopes = model.loss, judged.slopes
    if judged.direct is not None:
        _add(gradient, coordinates.places(loss.kernel.weights.names), block_sums(masked(judged.direct, used)))
    if judged.by_energy is not None:
        (part,), (kernel,) = model.solutions(minima), model.kernels
        _, rows = run(kernel.entry("weight_gradient"), part.inputs, part.y, count=len(part.y))
        by_energy = masked(judged.by_energy, used).reshape(-1, 1)
        counted = np.where(by_energy == 0.0, 0.0, by_energy * rows)
        members = max(1, part.inputs.members)
        _add(gradient, coordinates.places(kernel.weights.names), block_sums(counted, members))
    if not slopes:
        return [np.zeros(part.y.shape) for part in model.solutions(minima)]
    if not isinstance(minima, OutputSolution):
        return [packed_slopes(minima.kernel, minima, slopes, who)]
    each, direct = minima_slopes(minima, {n: masked(array, used) for n, array in slopes.items()}, who, used)
    for name, slope in direct.items():
        places = coordinates.places((name,))
        _add(gradient, places, block_sums(np.reshape(slope, (-1, gradient[0, places].size))))
    return [packed_slopes(part.kernel, part, own, who) for part, own in zip(minima.solutions, each, strict=True)]


def leave_out(
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


def check_finite(
    judged: Judged, used: Used, *, who: str, step: int, instances: NDArray[np.int64] | None = None
) -> None:
    """Raise if the loss or its gradient is not finite at an instance that counts.

    `instances` says which ones rows belong to, where these are several of an instance.
    """
    values = judged.values
    slopes = [*judged.slopes.values(), *(s for s in (judged.direct, judged.by_energy) if s is not None)]
    if np.isfinite(values).all() and all(np.isfinite(slope).all() for slope in slopes):
        return
    finite = np.isfinite(values)
    for slope in slopes:
        finite &= np.isfinite(slope.reshape(len(values), -1)).all(axis=1)
    bad = ~finite if used is None else ~finite & used
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        instance = row if instances is None else int(instances[row])
        what = (
            f"the loss is {values[row]:g}"
            if not math.isfinite(values[row])
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
