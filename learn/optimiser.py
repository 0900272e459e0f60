"""How a gradient becomes a step: stochastic gradient descent with momentum, Nesterov's variant, Adam.

An optimiser is a frozen description; what it remembers between steps is a dict of arrays that goes in and comes out,
so that a checkpoint can hold it and a step that fails leaves nothing half done. All arrays are flat: the numbers that
the learner learns, one after the other, in declared order, in the units they are learnt in.

Learning rates are numbers or schedules (schedule.py), for all weights or for each by name. `clip` bounds the Euclidean
norm of the gradient before it gets here: where |g| > clip, the learner passes clip g / |g|.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from numbers import Real
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..energies.errors import CheckpointError, InputError, InputTypeError, NameMissingError, nearest
from . import schedule
from .schedule import Schedule

Floats = NDArray[np.float64]
State = dict[str, Floats]
Rate = float | Schedule


class Optimiser(Protocol):
    """What the learner asks of an optimiser.

    Attributes
    ----------
    clip : float or None
        The largest norm of a gradient that `step` is given.
    varies : bool
        Whether `rates` differ from step to step.
    """

    @property
    def clip(self) -> float | None: ...

    @property
    def varies(self) -> bool: ...

    def rates(self, sizes: Mapping[str, int], step: int = 0) -> Floats:
        """The learning rate of every number that is learnt, (p,), from how many each weight has, by name."""
        ...

    def start(self, size: int) -> State:
        """The state before the first step."""
        ...

    def step(self, weights: Floats, gradient: Floats, state: State, rates: Floats) -> tuple[Floats, State]:
        """The weights and the state after a step; the arguments are left as they are."""
        ...

    def redirect(self, state: State, change: Callable[[Floats], Floats]) -> State:
        """The state with the direction in which it goes on moving, (p,), replaced by `change` of it.

        A constraint does this: weights at a bound are stopped, velocities along a curved surface turned into it.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """The settings as JSON values, from which `from_description` makes an equal optimiser."""
        ...


class _Settings:
    """What the optimisers share: their learning rates, and their settings as JSON values."""

    learning_rate: Rate | Mapping[str, Rate]
    clip: float | None

    def _check_common(self) -> None:
        kind, rate = type(self).__name__, self.learning_rate
        if isinstance(rate, Mapping):
            if not rate:
                raise InputError(f"{kind}: learning_rate is an empty dict; give a number, or one for each weight")
            checked: Any = {name: _learning_rate(kind, one, f"learning_rate[{name!r}]") for name, one in rate.items()}
        else:
            checked = _learning_rate(kind, rate, "learning_rate")
        object.__setattr__(self, "learning_rate", checked)
        if self.clip is not None:
            object.__setattr__(self, "clip", _above_zero(kind, self.clip, "clip"))

    @cached_property  # asked at every step
    def varies(self) -> bool:
        rate = self.learning_rate
        return any(map(schedule.is_schedule, rate.values() if isinstance(rate, Mapping) else [rate]))

    def rates(self, sizes: Mapping[str, int], step: int = 0) -> Floats:
        rate, kind = self.learning_rate, type(self).__name__
        if not isinstance(rate, Mapping):
            return np.full(sum(sizes.values()), schedule.value_at(rate, step))
        for name in rate:
            if name not in sizes:
                raise NameMissingError(
                    f"{kind}: learning_rate names an unknown weight {name!r}{nearest(name, sizes)}; "
                    f"weights: {', '.join(sizes)}"
                )
        missing = [name for name, size in sizes.items() if size and name not in rate]
        if missing:
            raise NameMissingError(
                f"{kind}: learning_rate has no entry for weight {', '.join(missing)}; a dict names every weight"
            )
        each = {name: schedule.value_at(rate[name], step) if size else 0.0 for name, size in sizes.items()}
        return np.concatenate([np.full(size, each[name]) for name, size in sizes.items()])

    def describe(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"kind": type(self).__name__}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.name == "learning_rate" and isinstance(value, Mapping):
                value = {"each": {name: schedule.describe(rate) for name, rate in value.items()}}
            elif field.name == "learning_rate":
                value = schedule.describe(value)
            settings[field.name] = list(value) if isinstance(value, tuple) else value
        return settings


@dataclass(frozen=True)
class SGD(_Settings, Optimiser):
    """Stochastic gradient descent with momentum, in PyTorch's convention.

        v <- momentum v + gradient
        w <- w - learning_rate v                               nesterov=False
        w <- w - learning_rate (gradient + momentum v)         nesterov=True

    There is no factor (1 - momentum) on the gradient: under a steady gradient the speed grows to
    learning_rate / (1 - momentum) gradients a step, within about 1 / (1 - momentum) steps. With the paper's 0.999 a
    learning rate of 1e-5 therefore moves like 1e-2 without momentum, and what a step decides is felt for 1,000 steps.

    Parameters
    ----------
    learning_rate : float or schedule, or dict of them
        Above 0, in the units of the weight squared per unit of loss; a dict gives one for each weight by name.
    momentum : float
        In [0, 1); 0 is plain gradient descent.
    nesterov : bool
        Nesterov's momentum as in PyTorch (Sutskever et al., 2013): the step looks one momentum ahead.
    clip : float, optional
        The largest norm of a gradient; a longer one is shortened to it, in all weights alike.

    Raises
    ------
    InputError, InputTypeError
        If a setting is not a finite number in its range.

    Examples
    --------
    >>> import numpy as np
    >>> sgd = SGD(learning_rate=0.1, momentum=0.5)
    >>> rates, state = sgd.rates({"sigma": 1}), sgd.start(1)
    >>> w, state = sgd.step(np.array([8.0]), np.array([10.0]), state, rates)
    >>> w, state = sgd.step(w, np.array([10.0]), state, rates)
    >>> print(w, state["velocity"])
    [5.5] [15.]
    """

    learning_rate: Rate | Mapping[str, Rate]
    momentum: float = 0.9
    nesterov: bool = False
    clip: float | None = None

    def __post_init__(self) -> None:
        self._check_common()
        object.__setattr__(self, "momentum", _momentum("SGD", self.momentum, "momentum"))
        if not isinstance(self.nesterov, bool):
            raise InputTypeError(f"SGD: nesterov must be True or False (got {self.nesterov!r})")
        if self.nesterov and self.momentum == 0.0:
            raise InputError("SGD: nesterov=True needs momentum > 0; without it both are plain gradient descent")

    def start(self, size: int) -> State:
        return {"velocity": np.zeros(size)}

    def step(self, weights: Floats, gradient: Floats, state: State, rates: Floats) -> tuple[Floats, State]:
        velocity = self.momentum * state["velocity"] + gradient
        direction = gradient + self.momentum * velocity if self.nesterov else velocity
        return weights - rates * direction, {"velocity": velocity}

    def redirect(self, state: State, change: Callable[[Floats], Floats]) -> State:
        return {"velocity": change(state["velocity"])}


@dataclass(frozen=True)
class Adam(_Settings, Optimiser):
    """Adam (Kingma and Ba, 2015) with decoupled weight decay (AdamW; Loshchilov and Hutter, 2019), as in PyTorch.

        m <- b1 m + (1 - b1) g               v <- b2 v + (1 - b2) g^2
        w <- (1 - learning_rate weight_decay) w - learning_rate / (1 - b1^k) m / (sqrt(v / (1 - b2^k)) + epsilon)

    at the k-th step, k = 1, 2, ... A step moves a weight by about its learning rate, whatever the units of the loss, so
    rates are in the units of the weight. Where gradients are rare and large, as near the jumps of a robust energy, Adam
    stops early: v remembers the large ones for 1 / (1 - b2) steps (the paper's remark); SGD is the default.

    Parameters
    ----------
    learning_rate : float or schedule, or dict of them
        Above 0; a dict gives one for each weight by name.
    betas : pair of float
        b1 and b2, in [0, 1).
    epsilon : float
        > 0.
    weight_decay : float
        >= 0, on what is learnt (of scale="log" the logarithm).
    clip : float, optional
        The largest norm of a gradient; a longer one is shortened to it, in all weights alike.

    Raises
    ------
    InputError, InputTypeError
        If a setting is not a finite number in its range.

    Examples
    --------
    >>> import numpy as np
    >>> adam = Adam(learning_rate=0.1)
    >>> w, state = adam.step(np.array([8.0, 1.0]), np.array([10.0, -1e-3]), adam.start(2), adam.rates({"w": 2}))
    >>> print(w.round(4))
    [7.9 1.1]
    """

    learning_rate: Rate | Mapping[str, Rate] = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip: float | None = None

    def __post_init__(self) -> None:
        self._check_common()
        if not isinstance(self.betas, (tuple, list)) or len(self.betas) != 2:
            raise InputTypeError(f"Adam: betas must be two numbers in [0, 1) (got {self.betas!r})")
        betas = tuple(_momentum("Adam", beta, f"betas[{k}]") for k, beta in enumerate(self.betas))
        object.__setattr__(self, "betas", betas)
        object.__setattr__(self, "epsilon", _above_zero("Adam", self.epsilon, "epsilon"))
        decay = _number("Adam", self.weight_decay, "weight_decay")
        if decay < 0.0:
            raise InputError(f"Adam: weight_decay must be >= 0 (got {decay:g})")
        object.__setattr__(self, "weight_decay", decay)

    def start(self, size: int) -> State:
        return {"mean": np.zeros(size), "square": np.zeros(size), "count": np.zeros(1)}

    def step(self, weights: Floats, gradient: Floats, state: State, rates: Floats) -> tuple[Floats, State]:
        (b1, b2), count = self.betas, state["count"] + 1.0
        mean = b1 * state["mean"] + (1.0 - b1) * gradient
        square = b2 * state["square"] + (1.0 - b2) * gradient**2
        k = float(count[0])
        size = np.sqrt(square) / math.sqrt(1.0 - b2**k) + self.epsilon
        kept = weights if self.weight_decay == 0.0 else (1.0 - rates * self.weight_decay) * weights
        return kept - rates / (1.0 - b1**k) * mean / size, {"mean": mean, "square": square, "count": count}

    def redirect(self, state: State, change: Callable[[Floats], Floats]) -> State:
        return {**state, "mean": change(state["mean"])}


KINDS: dict[str, Any] = {"SGD": SGD, "Adam": Adam}


def from_description(description: Mapping[str, Any]) -> Optimiser:
    """The optimiser that `describe` described."""
    settings = dict(description)
    kind = settings.pop("kind", None)
    if kind not in KINDS:
        raise CheckpointError(f"unknown optimiser {kind!r}; this version knows {', '.join(KINDS)}")
    rate = settings["learning_rate"]
    if isinstance(rate, Mapping) and "each" in rate:
        settings["learning_rate"] = {name: schedule.from_description(one) for name, one in rate["each"].items()}
    else:
        settings["learning_rate"] = schedule.from_description(rate)
    optimiser: Optimiser = KINDS[kind](**settings)
    return optimiser


def _learning_rate(kind: str, value: Any, name: str) -> Any:
    return value if schedule.is_schedule(value) else _above_zero(kind, value, name)


def _momentum(kind: str, value: Any, name: str) -> float:
    number = _number(kind, value, name)
    if not 0.0 <= number < 1.0:
        why = ": it would never forget" if number >= 1.0 else ""
        raise InputError(f"{kind}: {name} must be in [0, 1) (got {number:g}{why})")
    return number


def _above_zero(kind: str, value: Any, name: str) -> float:
    number = _number(kind, value, name)
    if number <= 0.0:
        raise InputError(f"{kind}: {name} must be > 0 (got {number:g})")
    return number


def _number(kind: str, value: Any, name: str) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise InputTypeError(f"{kind}: {name} must be a number (got {value!r} of type {type(value).__name__})")
    number = float(value)
    if not math.isfinite(number):
        raise InputError(f"{kind}: {name} must be finite (got {number:g})")
    return number
