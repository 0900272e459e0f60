"""Judging the minima of a batch: the mean loss, its gradient by the weights, and who counted.

For the minima y_b of B instances and a damping lambda:

    loss      = mean of l(y_b) over the instances that count
    gradient  = 1/B sum_b dl(y_b)/dy . dy_b/dw              the damped derivative (implicit.py)

Instances that `unconverged=` leaves out add nothing to the sum and still count in B. Of a family, the loss of an
instance is a function of all its members, and the instance counts where all of them do. Nothing here changes anything:
what is not finite is refused before a step is taken.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..compiler.kernel import Kernel
from ..energies.errors import InputError, InputTypeError, NameMissingError, NumericalError, nearest
from ..runtime.solution import Solution
from .batches import Batch, place
from .damped import LEFT_OUT, NOT_FINITE, SHIFTED, USED
from .implicit import damped_gradient, not_finite, refuse_singular, unconverged_summary, unusable
from .loss import Loss

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


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
    """

    loss: float
    gradient: Floats
    unconverged: float
    shifted: float
    dominated: float


def judge(
    kernel: Kernel, loss: Loss, batch: Batch, solution: Solution, *, step: int, damping: float, unconverged: str
) -> Judgement:
    """Judge the minima of the batch that step number `step` was given.

    Parameters
    ----------
    solution : Solution
        The minima of `batch` at the weights before the step, which are shared by all instances.
    damping, unconverged
        As for `implicit_gradient`; "nan" raises like "raise".

    Raises
    ------
    InputError
        For a batch without instances; for targets that do not fit the minima.
    NumericalError
        For a loss that is not finite; with unconverged="raise" or "nan"; with damping = 0 at a singular Hessian.
    """
    who, count = f"fit: {place(batch, step)}", len(solution.y)
    if count == 0:
        raise InputError(f"{who}: the batch has no instances")
    members = solution.inputs.members
    marked = unusable(solution)
    failed = int(np.count_nonzero(marked))
    codes = np.full(count, USED, dtype=np.int64)
    if failed:
        _leave_out(solution, marked, codes, unconverged=unconverged, who=who, step=step)
        codes[np.repeat((codes != USED).reshape(-1, members).any(axis=1), members)] = LEFT_OUT
    values, slopes = _loss_at(kernel, loss, batch, solution, who=who)
    _check_finite(values, slopes, codes.reshape(-1, members)[:, 0], who=who, step=step)
    slopes = _by_member(kernel, loss, solution, slopes)
    gradient = damped_gradient(kernel, solution, slopes, damping, codes)
    if damping == 0.0:
        refuse_singular(kernel, solution, codes, who)
    used = codes == USED
    shifted = 0
    if np.count_nonzero(used) < count:
        shifted = int(np.count_nonzero(codes == SHIFTED))
        failed = int(np.count_nonzero(marked | (codes == NOT_FINITE)))
        used |= codes == SHIFTED
        values = values[used.reshape(-1, members).all(axis=1)]
    mean = float(np.add.reduce(values)) / len(values) if len(values) else math.nan
    dominated = np.count_nonzero(solution.reals[:, 1] < damping)
    return Judgement(mean, gradient / (count // members), failed / count, shifted / count, dominated / count)


def check_loss(kernel: Kernel, loss: Loss, who: str) -> None:
    """Refuse a loss that reads what is no variable of the energy, or is one with other axes."""
    if not isinstance(loss, Loss):
        raise InputTypeError(
            f"{who}: loss must be a wb.Loss (got {type(loss).__name__}); for example "
            f"wb.Loss((t - mu)**2, variables=[t], targets=[mu])"
        )
    shapes, over = kernel.energy.shapes, kernel.energy.over
    names = [str(variable) for variable in kernel.energy.variables]
    if loss.energy.over:
        raise InputError(
            f"{who}: loss {loss.name!r} is a family itself; a loss is one number, of all members: its variables have "
            "the axes of the family in front"
        )
    for variable in loss.energy.variables:
        given, rank = len(loss.energy.shapes[str(variable)]), len(shapes.get(str(variable), ())) + len(over)
        if str(variable) in names and given != rank:
            remedy = "use the same symbol in both"
            if over:
                axes = ", ".join([*map(str, over), *(["..."] if shapes[str(variable)] else [])])
                remedy = f"in a loss it has the axes of over= in front: {variable}[{axes}]"
            raise InputError(
                f"{who}: loss {loss.name!r} reads {variable} with {given} axes, but the energy declares it with "
                f"{rank - len(over)}{f' and is a family over {len(over)}' if over else ''}; {remedy}"
            )
        if str(variable) not in names:
            raise NameMissingError(
                f"{who}: loss {loss.name!r} reads {variable}, which is no variable of the energy"
                f"{nearest(str(variable), names)}; variables: {', '.join(names)}"
            )


def _loss_at(kernel: Kernel, loss: Loss, batch: Batch, solution: Solution, *, who: str) -> tuple[Floats, Floats]:
    """The loss (B,) and its derivative by its own variables, (B, m of the loss), at the minima."""
    inputs = loss.bind(batch.targets, batch.data, solution)
    count = len(solution.y) // solution.inputs.members
    if inputs.batch is not None and inputs.batch not in (1, count):
        raise InputError(
            f"{who}: targets have {inputs.batch} instances and the minima {count}; unbatched arrays are shared"
        )
    packed, columns = solution.y.reshape(count, -1), _columns_of_loss(kernel, loss, solution)
    return loss.evaluate(inputs, packed if columns is None else np.ascontiguousarray(packed[:, columns]))


def _by_member(kernel: Kernel, loss: Loss, solution: Solution, slopes: Floats) -> Floats:
    """dl/dy as (rows, m), from that by the loss's own variables."""
    columns = _columns_of_loss(kernel, loss, solution)
    if columns is None:
        return slopes.reshape(solution.y.shape)
    spread = np.zeros((len(slopes), solution.y.size // len(slopes)))
    spread[:, columns] = slopes
    return spread.reshape(solution.y.shape)


def _columns_of_loss(kernel: Kernel, loss: Loss, solution: Solution) -> NDArray[np.int64] | None:
    """Where the loss's variables are among those of an instance, packed member by member; None if they are the same."""
    wanted, members = loss.kernel.variables.names, solution.inputs.members
    if wanted == kernel.variables.names and (members == 1 or len(wanted) == 1):
        return None
    width = solution.y.shape[1]
    ends, parts = 0, {}
    for name, array in solution.variables.items():
        size = np.size(array) // len(solution.y)
        parts[name] = (np.arange(members)[:, None] * width + np.arange(ends, ends + size)).ravel()
        ends += size
    return np.concatenate([parts[name] for name in wanted])


def _leave_out(
    solution: Solution, marked: NDArray[np.bool_], codes: Codes, *, unconverged: str, who: str, step: int
) -> None:
    """Mark in `codes` the unconverged instances that do not count, or raise."""
    if unconverged in ("raise", "nan"):
        raise NumericalError(
            f"{who}: {unconverged_summary(solution, marked)}; weights after "
            f"{step} steps are kept; allow more iterations, or use unconverged='zero'"
        )
    codes[not_finite(solution) if unconverged == "use" else marked] = LEFT_OUT


def _check_finite(values: Floats, slopes: Floats, codes: Codes, *, who: str, step: int) -> None:
    """Raise if the loss or its gradient is not finite at an instance that counts."""
    if np.count_nonzero(np.isfinite(values)) == len(values) and np.isfinite(slopes).all():
        return
    bad = ~(np.isfinite(values) & np.isfinite(slopes).all(axis=1)) & (codes == USED)
    if bad.any():
        instance = int(np.flatnonzero(bad)[0])
        what = (
            f"the loss is {values[instance]:g}"
            if not math.isfinite(values[instance])
            else "the gradient of the loss is not finite"
        )
        raise NumericalError(
            f"{who}: {what} at instance {instance}; weights after "
            f"{step} steps are kept, history is intact; check targets and loss, lower "
            f"learning_rate or raise damping"
        )
