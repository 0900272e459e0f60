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
The first batch is judged twice, for m is not known before it. Members of a family share what each of them changes of
the loss (sharing.py). All that is needed of a batch are sums over blocks of 64 instances: so it may be judged in parts,
on many machines (distributed.py).
Nothing is soft once learning is done: `Learner.predict` gives the lowest minimum.

`Selection(direct=True)` is direct loss minimisation (McAllester, Hazan and Keshet 2010), two-sided, among minima:

    c+- = argmin_c (E_c +- e l_c),      g = dl(y_0)/dy . dy_0/dw + (dE_c+/dw - dE_c-/dw) / 2e,      e = T / mean loss
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..energies.errors import InputError, InputTypeError
from . import schedule
from .coordinates import Coordinates
from .judge import Judgement, combined
from .model import Model
from .schedule import Schedule
from .sharing import Scales, SharedSums, totals

Floats = NDArray[np.float64]

GAP, SENSITIVITY, LOSS = 50, 20, 100
"""Over how many steps each running mean runs: m, S and that of lbar; a value counts 1/50 of m."""


@dataclass(frozen=True)
class Selection:
    """How the minima of an instance share its loss while a `Learner` learns.

    Parameters
    ----------
    tau : float or schedule
        The temperature, in running mean gaps between the two lowest minima; > 0. 0.1 to 0.2 needed no tuning; larger
        ones are biased, smaller ones noisier. A schedule such as `CosineDecay(1.0, steps, 0.1)` sees minima far above
        the lowest at first, and has no bias at the end: for many weights, from far off.
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

    tau: float | Schedule = 0.1
    temperature: float | None = None
    direct: bool = False
    minima: int = 6

    def __post_init__(self) -> None:
        if not schedule.is_schedule(self.tau):
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

    def temperature_at(self, step: int, gap: float) -> float:
        """T at a step, where m is `gap`; NaN as long as it is not known."""
        return schedule.value_at(self.tau, step) * gap if self.temperature is None else self.temperature

    def describe(self) -> dict[str, Any]:
        """The settings as plain numbers, of which `from_description` makes an equal selection."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**settings, "tau": schedule.describe(self.tau)}

    @classmethod
    def from_description(cls, settings: Mapping[str, Any]) -> Selection:
        """What `describe` described."""
        return cls(**{name: schedule.from_description(value) for name, value in settings.items()})


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


def combined_shares(
    selection: Selection,
    averages: Averages,
    judged: Callable[[Scales], Sequence[SharedSums]],
    model: Model,
    coordinates: Coordinates,
    weights: Mapping[str, Floats],
    *,
    who: str,
) -> tuple[Judgement, Averages]:
    """The judgement of a batch from the sums of its parts, and the averages after the step.

    `judged` gives the sums at some scales. They are the averages before the step; where these do not know one that is
    needed, the batch is judged once for its own, and once more with that.

    The gradient is divided by the running mean of the loss.
    """
    scales = Scales(averages.gap.value, averages.loss.value)
    parts = judged(scales)
    batch = totals(parts)
    no_gap, no_loss = math.isnan(scales.gap), math.isnan(scales.loss)
    if (no_gap and selection.temperature is None and not math.isnan(batch.gap)) or (no_loss and selection.direct):
        scales = Scales(batch.gap if no_gap else scales.gap, batch.size if no_loss else scales.loss)
        parts = judged(scales)
        batch = totals(parts)
    judgement = combined([part.sums for part in parts], model, coordinates, weights, who=who)
    gradient, sensitivity = judgement.gradient, averages.sensitivity
    if selection.temperature is None and not selection.direct and scales.gap > 0.0 and not math.isnan(batch.gap):
        sensitivity = sensitivity.after(batch.sensitivity, SENSITIVITY)
        gradient = gradient + sensitivity.value / scales.gap * batch.raised
    after = Averages(averages.gap.after(batch.gap, GAP), sensitivity, averages.loss.after(batch.size, LOSS))
    unit = after.loss.value if after.loss.value > 0.0 else 1.0
    return judgement._replace(gradient=gradient / unit, largest=judgement.largest / unit), after


def _positive(value: Any, name: str) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise InputTypeError(f"Selection: {name} must be a number > 0 (got {value!r} of type {type(value).__name__})")
    number = float(value)
    if not 0.0 < number < math.inf:
        raise InputError(f"Selection: {name} must be a finite number > 0 (got {number:g})")
    return number
