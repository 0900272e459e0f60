"""How a gradient becomes a step: stochastic gradient descent with momentum.

An optimiser is a frozen description; what it remembers between steps is a dict of arrays that goes in and comes out,
so that a checkpoint can hold it and a step that fails leaves nothing half done. All arrays are flat: the weights of
the learner one after the other, in declared order, in the units they are learnt in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..energies.errors import CheckpointError, InputError, InputTypeError, NameMissingError, nearest

Floats = NDArray[np.float64]
State = dict[str, Floats]


class Optimiser(Protocol):
    """What the learner asks of an optimiser."""

    def rates(self, sizes: Mapping[str, int]) -> Floats:
        """The learning rate of every number that is learnt, (p,), from the size of each weight by name."""
        ...

    def start(self, size: int) -> State:
        """The state before the first step."""
        ...

    def step(self, weights: Floats, gradient: Floats, state: State, rates: Floats) -> tuple[Floats, State]:
        """The weights and the state after a step; the arguments are left as they are."""
        ...

    def halt(self, state: State, where: NDArray[np.bool_]) -> State:
        """The state after the weights marked in `where` were stopped at a bound."""
        ...

    def describe(self) -> dict[str, Any]:
        """The settings as plain numbers and text, from which `from_description` makes an equal optimiser."""
        ...


@dataclass(frozen=True)
class SGD(Optimiser):
    """Stochastic gradient descent with momentum, in PyTorch's convention.

        v <- momentum v + gradient
        w <- w - learning_rate v

    There is no factor (1 - momentum) on the gradient: under a steady gradient the speed grows to
    learning_rate / (1 - momentum) gradients a step, within about 1 / (1 - momentum) steps. With the paper's 0.999 a
    learning rate of 1e-5 therefore moves like 1e-2 without momentum, and what a step decides is felt for 1,000 steps.

    Parameters
    ----------
    learning_rate : float, or dict of floats
        Above 0, in the units of the weight squared per unit of loss; a dict gives one for each weight by name.
    momentum : float
        In [0, 1); 0 is plain gradient descent.

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

    learning_rate: float | Mapping[str, float]
    momentum: float = 0.9

    def __post_init__(self) -> None:
        if isinstance(self.learning_rate, Mapping):
            if not self.learning_rate:
                raise InputError("SGD: learning_rate is an empty dict; give a number, or one for each weight")
            rates = {
                name: _learning_rate(rate, f"learning_rate[{name!r}]") for name, rate in self.learning_rate.items()
            }
            object.__setattr__(self, "learning_rate", rates)
        else:
            object.__setattr__(self, "learning_rate", _learning_rate(self.learning_rate, "learning_rate"))
        momentum = _number(self.momentum, "momentum")
        if not 0.0 <= momentum < 1.0:
            why = ": it would never forget" if momentum >= 1.0 else ""
            raise InputError(f"SGD: momentum must be in [0, 1) (got {momentum:g}{why})")
        object.__setattr__(self, "momentum", momentum)

    def rates(self, sizes: Mapping[str, int]) -> Floats:
        if not isinstance(self.learning_rate, Mapping):
            return np.full(sum(sizes.values()), self.learning_rate)
        for name in self.learning_rate:
            if name not in sizes:
                raise NameMissingError(
                    f"SGD: learning_rate names an unknown weight {name!r}{nearest(name, sizes)}; "
                    f"weights: {', '.join(sizes)}"
                )
        missing = [name for name in sizes if name not in self.learning_rate]
        if missing:
            raise NameMissingError(
                f"SGD: learning_rate has no entry for weight {', '.join(missing)}; a dict names every weight"
            )
        return np.concatenate([np.full(size, self.learning_rate[name]) for name, size in sizes.items()])

    def start(self, size: int) -> State:
        return {"velocity": np.zeros(size)}

    def step(self, weights: Floats, gradient: Floats, state: State, rates: Floats) -> tuple[Floats, State]:
        velocity = self.momentum * state["velocity"] + gradient
        return weights - rates * velocity, {"velocity": velocity}

    def halt(self, state: State, where: NDArray[np.bool_]) -> State:
        return {"velocity": np.where(where, 0.0, state["velocity"])}

    def describe(self) -> dict[str, Any]:
        rate = self.learning_rate
        return {
            "kind": "SGD",
            "learning_rate": dict(rate) if isinstance(rate, Mapping) else rate,
            "momentum": self.momentum,
        }


KINDS: dict[str, Any] = {"SGD": SGD}


def from_description(description: Mapping[str, Any]) -> Optimiser:
    """The optimiser that `describe` described."""
    settings = dict(description)
    kind = settings.pop("kind", None)
    if kind not in KINDS:
        raise CheckpointError(f"unknown optimiser {kind!r}; this version knows {', '.join(KINDS)}")
    optimiser: Optimiser = KINDS[kind](**settings)
    return optimiser


def _learning_rate(value: Any, name: str) -> float:
    rate = _number(value, name)
    if rate <= 0.0:
        raise InputError(f"SGD: {name} must be > 0 (got {rate:g})")
    return rate


def _number(value: Any, name: str) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise InputTypeError(f"SGD: {name} must be a number (got {value!r} of type {type(value).__name__})")
    number = float(value)
    if not math.isfinite(number):
        raise InputError(f"SGD: {name} must be finite (got {number:g})")
    return number
