"""Selection: a gradient that sees one minimum take the place of another as the lowest.

The damped derivative follows one minimum. Where a small change of the weights makes another one the lowest, the
estimate jumps, and no derivative of one minimum knows. Here the minima y_c of an instance share its loss, by energy:

    p_c = exp(-E_c / T) / sum_k exp(-E_k / T),       lbar = sum_c p_c l(y_c)

    dlbar/dw = sum_c p_c dl(y_c)/dy . dy_c/dw                   minima move: the damped derivative
             - 1/T sum_c p_c (l_c - lbar) dE_c/dw               shares change; dE_c/dw with y held (envelope theorem)
             + 1/T sum_c p_c (l_c - lbar) (E_c - E_0)/T . dT/dw

The temperature is tied to the gap between the two lowest minima, T = tau m, where m is its running mean over instances
that have two: no number has the unit of the energy, and one that is multiplied by a constant is learnt in the same way.
So T moves with the weights, and so does the last line; without it, making the energy larger as a whole would seem to
pay by making the choice harder, though it changes no minimum. With S the running mean of the sum in the last line:

    g = mean over the batch of the first two lines  +  S/m . mean over instances with two minima of (dE_1/dw - dE_0/dw)

All is divided by the running mean of lbar, so that a learning rate has no unit of the loss. It knows the present batch:
g is made of shares of lbar, and where the lowest minima of a first few instances happen to be good, lbar can be many
times their loss. A running mean begins as a plain mean, so that a first value does not count more than others.
Nothing is soft once learning is done: `Learner.predict` gives the lowest minimum.

`Selection(direct=True)` is direct loss minimisation (McAllester, Hazan and Keshet 2010), two-sided, among minima:

    c+- = argmin_c (E_c +- e l_c),      g = dl(y_0)/dy . dy_0/dw + (dE_c+/dw - dE_c-/dw) / 2e,      e = T / mean loss
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..compiler.evaluate import BLOCK
from ..energies.errors import InputError, InputTypeError
from ..runtime.solution import Solution
from .batches import Batch, place
from .blocks import in_order
from .coordinates import Coordinates
from .damped import NOT_FINITE, SHIFTED, USED
from .implicit import damped_gradient, unusable
from .judge import (
    Judged,
    Judgement,
    add_regulariser,
    bind_loss,
    check_finite,
    count_dominated,
    evaluate_loss,
    leave_out,
    refuse_singular_step,
    to_minima,
)
from .model import Minima, Model
from .output import OutputSolution

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

GAP, SENSITIVITY, LOSS = 50, 20, 100
"""Over how many steps each running mean runs: m, S and that of lbar; a value counts 1/50 of m."""


@dataclass(frozen=True)
class Selection:
    """How the minima of an instance share its loss while a `Learner` learns.

    Parameters
    ----------
    tau : float
        The temperature, in running mean gaps between the two lowest minima; > 0. 0.1 to 0.2 needed no tuning; larger
        ones are biased, smaller ones noisier.
    temperature : float, optional
        Fixed, in units of the energy, in the place of `tau`. It has to be found for each energy, and weights that
        scale the energy as a whole escape it.
    direct : bool
        Direct loss minimisation in the place of Boltzmann shares.
    minima : int
        How many minima of an instance are looked for; those much more than T above the lowest do not count anyway.

    Raises
    ------
    InputError, InputTypeError
        For numbers out of range.

    Examples
    --------
    Of two wells far apart the right one should be the lower; no derivative of one minimum says so:

    >>> import sympy as sp, wiberg as wb
    >>> t, mu, a = sp.symbols("t mu a", real=True)
    >>> depth = sp.Symbol("depth", positive=True)
    >>> wells = -a*sp.exp(-(t + 9)**2) - depth*sp.exp(-(t - 9)**2)
    >>> kernel = wb.compile(wb.Energy(wells, variables=[t], weights=[depth], data=[a]))
    >>> batch = wb.Batch(data={"a": [0.6, 0.8, 1.0]}, targets={"mu": 9.0}, candidates={"t": [-9.0, 9.0]})
    >>> for selection in (None, wb.Selection(tau=0.3)):
    ...     weights = {"depth": wb.Weight(0.7, scale="log")}
    ...     learner = wb.Learner(kernel, wb.squared_error(t, mu), weights, wb.SGD(0.02), selection=selection)
    ...     history = learner.fit([batch], steps=50)
    ...     print(f"{history.loss[0]:.1f} -> {history.loss[-1]:.1f}")
    216.0 -> 216.0
    216.0 -> 0.0
    """

    tau: float = 0.1
    temperature: float | None = None
    direct: bool = False
    minima: int = 6

    def __post_init__(self) -> None:
        object.__setattr__(self, "tau", _positive(self.tau, "tau"))
        if self.temperature is not None:
            object.__setattr__(self, "temperature", _positive(self.temperature, "temperature"))
        if not isinstance(self.direct, bool):
            raise InputTypeError(f"Selection: direct must be True or False (got {self.direct!r})")
        if not isinstance(self.minima, int) or isinstance(self.minima, bool) or self.minima < 2:
            raise InputError(f"Selection: minima must be an integer >= 2 (got {self.minima!r})")

    def options(self, eliminated: bool) -> dict[str, Any]:
        """What `minimise` is asked for; where variables are solved out, candidates cannot be ranked as they are."""
        return {"minima": self.minima, "starts": "every" if eliminated else "basins"}

    def describe(self) -> dict[str, Any]:
        """The settings as plain numbers: Selection(**settings) is equal."""
        return asdict(self)


def check_selection(selection: Any, model: Model, who: str) -> None:
    """Refuse what is no selection, and models for which there is none."""
    if not isinstance(selection, Selection):
        raise InputTypeError(
            f"{who}: selection must be a wb.Selection (got {selection!r} of type {type(selection).__name__})"
        )
    if len(model.kernels) > 1:
        raise InputError(
            f"{who}: selection= is for one kernel, or an output of one; this output is of "
            f"{', '.join(repr(kernel.name) for kernel in model.kernels)}, each with minima of its own to choose from"
        )
    if model.kernels[0].energy.over:
        raise InputError(
            f"{who}: selection= is not for a family: its members choose among their minima each for itself, and a loss "
            "of all members would have to be shared by all combinations"
        )


class Mean(NamedTuple):
    """A running mean: that of all values until there are as many as it runs over; NaN before the first."""

    value: float = math.nan
    number: float = 0.0

    def after(self, value: float, over: int) -> Mean:
        """The mean after another value; NaN is none."""
        if math.isnan(value):
            return self
        if self.number == 0.0:
            return Mean(value, 1.0)
        count = min(self.number + 1.0, float(over))
        return Mean(self.value + (value - self.value) / count, count)


class Averages(NamedTuple):
    """What a selection remembers between steps.

    gap              m, the running mean of E_1 - E_0
    sensitivity      S, that of T times the derivative of the shared loss by T
    loss             that of the size of the shared loss
    """

    gap: Mean = Mean()
    sensitivity: Mean = Mean()
    loss: Mean = Mean()

    def pack(self) -> Floats:
        """As a checkpoint holds it, (3, 2)."""
        return np.array(self)

    @classmethod
    def unpack(cls, rows: Floats) -> Averages:
        """What `pack` gave."""
        return cls(*(Mean(*row) for row in rows.tolist()))


def judge_minima(
    model: Model,
    batch: Batch,
    minima: Minima,
    coordinates: Coordinates,
    weights: Mapping[str, Floats],
    *,
    step: int,
    damping: float,
    unconverged: str,
    selection: Selection,
    averages: Averages,
) -> tuple[Judgement, Averages]:
    """`judge.judge` of all the distinct minima of a batch; and the averages after the step.

    The loss is that of the lowest minima, and shares of instances are theirs, too. The gradient is divided by the
    running mean of the loss.
    """
    who = f"fit: {place(batch, step)}"
    (kernel,), (lowest,) = model.kernels, model.solutions(minima)
    count = len(lowest.y)
    if count == 0:
        raise InputError(f"{who}: the batch has no instances")
    codes = np.full(count, USED, dtype=np.int64)
    marked = unusable(lowest)
    used = np.ones(count, dtype=bool)
    if marked.any():
        used = leave_out([lowest], [marked], [codes], count, unconverged=unconverged, who=who, step=step)
    instance, number = _pairs(lowest)
    each = _flat(minima, lowest, instance, number, model)
    row_codes, rows_used = codes[instance], None if used.all() else used[instance]
    judged = evaluate_loss(model, bind_loss(model, batch, minima, weights, count, who=who).rows(instance), each)
    check_finite(judged, rows_used, who=who, step=step, instances=instance)

    first = number == 0
    (flat,) = model.solutions(each)
    energies, losses = (np.where(used[instance], rows, 0.0) for rows in (flat.energies, judged.values))
    sharing, updated = _share(selection, averages, energies, losses, instance, number, count)
    sums = np.zeros((-(-len(instance) // BLOCK), coordinates.start.size))
    (slope,) = to_minima(model, each, _weighted(judged, sharing), rows_used, sums, coordinates, who=who)
    own = damped_gradient(kernel, flat, slope, damping, row_codes)
    if damping == 0.0:
        refuse_singular_step(kernel, flat, row_codes, who)
    gradient = in_order(sums, (coordinates.start.size,))
    gradient[coordinates.places(kernel.weights.names)] += own

    codes = row_codes[first]
    counts = used & ((codes == USED) | (codes == SHIFTED))
    values = judged.values[first][counts]
    mean = float(np.add.reduce(values)) / len(values) if len(values) else math.nan
    gradient /= count
    mean = add_regulariser(model, weights, mean, gradient, coordinates)
    if updated.loss.value > 0.0:
        gradient /= updated.loss.value
    failed = int(np.count_nonzero(marked | (codes == NOT_FINITE)))
    shifted = int(np.count_nonzero(codes == SHIFTED))
    dominated = count_dominated(lowest, damping)
    return Judgement(mean, gradient, failed / count, shifted / count, dominated / count), updated


class _Sharing(NamedTuple):
    """For each row, a minimum of an instance: its share of the loss, and what multiplies its dE/dw; both (R,)."""

    shares: Floats
    by_energy: Floats


def _share(
    selection: Selection,
    averages: Averages,
    energies: Floats,
    losses: Floats,
    instance: Integers,
    number: Integers,
    count: int,
) -> tuple[_Sharing, Averages]:
    """Shares of all minima of `count` instances, and the averages after this batch."""
    first, second = np.flatnonzero(number == 0), np.flatnonzero(number == 1)
    above = energies - energies[first][instance]
    gaps = averages.gap.after(float(above[second].mean()) if len(second) else math.nan, GAP)
    gap = gaps.value if averages.gap.number == 0.0 else averages.gap.value
    temperature = selection.tau * gap if selection.temperature is None else selection.temperature
    shares, by_energy = np.where(number == 0, 1.0, 0.0), np.zeros(len(energies))
    chosen = temperature > 0.0 and len(second) > 0
    if chosen and not selection.direct:
        shares = np.exp(-above / temperature)
        shares /= np.bincount(instance, shares, count)[instance]
    loss = averages.loss.after(float((shares * np.abs(losses)).sum()) / count, LOSS)
    sensitivity = averages.sensitivity
    if chosen and selection.direct and loss.value > 0.0:
        tilt = temperature / loss.value
        for sign in (1.0, -1.0):
            by_energy[_lowest_rows(above + sign * tilt * losses, instance, first)] += sign / (2.0 * tilt)
    elif chosen and not selection.direct:
        excess = shares * (losses - np.bincount(instance, shares * losses, count)[instance])
        by_energy = -excess / temperature
        if selection.temperature is None:
            sensitivity = sensitivity.after(float((excess * above).sum()) / (temperature * count), SENSITIVITY)
            by_gap = sensitivity.value / gap * count / len(second)
            by_energy[second] += by_gap
            by_energy[second - 1] -= by_gap
    return _Sharing(shares, by_energy), Averages(gaps, sensitivity, loss)


def _lowest_rows(values: Floats, instance: Integers, first: Integers) -> Integers:
    """The row of the least value of every instance, the first of equals; rows of an instance follow one another."""
    least = np.minimum.reduceat(values, first)
    rows = np.flatnonzero(values == least[instance])
    return rows[np.unique(instance[rows], return_index=True)[1]]


def _weighted(judged: Judged, sharing: _Sharing) -> Judged:
    """The loss of all rows as what each adds to the gradient."""

    def shared(rows: Floats) -> Floats:
        return rows * sharing.shares.reshape(-1, *[1] * (rows.ndim - 1))

    return Judged(
        judged.values,
        {name: shared(slope) for name, slope in judged.slopes.items()},
        None if judged.direct is None else shared(judged.direct),
        sharing.by_energy if judged.by_energy is None else sharing.by_energy + shared(judged.by_energy),
    )


def _pairs(lowest: Solution) -> tuple[Integers, Integers]:
    """Instance and number of every minimum, (R,) each, instance by instance; one without any has its failed end."""
    assert lowest.minima is not None
    found = np.maximum(np.atleast_1d(lowest.minima.count), 1)
    instance, number = np.nonzero(np.arange(len(lowest.minima)) < found[:, None])
    return instance, number


def _flat(minima: Minima, lowest: Solution, instance: Integers, number: Integers, model: Model) -> Minima:
    """All minima of a batch as one batch, (R,)."""
    assert lowest.minima is not None
    parts = tuple(lowest.minima)

    def rows(arrays: list[Any]) -> Any:
        return np.stack(arrays)[number, instance]

    problem = lowest.problem.part(instance)
    problem.y = rows([part.y for part in parts])
    problem.energies = rows([part.energies for part in parts])
    problem.reals = rows([part.reals for part in parts])
    problem.integers = rows([part.integers for part in parts])
    if problem.active is not None:
        problem.active = rows([part.problem.active for part in parts])
    flat = Solution(
        lowest.kernel,
        lowest.w,
        _gathered(lowest.x, lowest.kernel.energy.shapes, instance),
        problem.inputs,
        problem.y,
        True,
        lowest.gtol,
        problem.energies,
        problem.reals,
        problem.integers,
        problem,
    )
    if not isinstance(minima, OutputSolution):
        return flat
    output = minima.output
    shapes = {**output.energy.shapes, **lowest.kernel.energy.shapes}
    return OutputSolution(output, (flat,), minima.w, _gathered(minima.x, shapes, instance) or {})


def _gathered(data: Mapping[str, Any] | None, shapes: Mapping[str, Any], instance: Integers) -> dict[str, Any] | None:
    """The data of the instances that rows belong to; what is shared stays shared."""
    if data is None:
        return None
    found = {}
    for name, given in data.items():
        array = np.asarray(given)
        batched = array.ndim > len(shapes[name]) and len(array) != 1
        found[name] = array[instance] if batched else array
    return found


def _positive(value: Any, name: str) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise InputTypeError(f"Selection: {name} must be a number > 0 (got {value!r} of type {type(value).__name__})")
    number = float(value)
    if not 0.0 < number < math.inf:
        raise InputError(f"Selection: {name} must be a finite number > 0 (got {number:g})")
    return number
