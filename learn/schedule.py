"""Numbers that change from step to step: learning rates and damping.

A schedule is a frozen description with `at(step)`, the number at a step (0 is the first one ever). It depends on the
step alone and is written into checkpoints as plain numbers: a run that was interrupted goes on as it would have.

    CosineDecay       from start to end along half a cosine, then end
    StepDecay         start, and times `factor` after every so many steps
    PiecewiseLinear   a table of steps and numbers, straight lines between them: any other shape
    Warmup            a straight rise before any of them, or before a number
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, Protocol

import numpy as np

from ..energies.errors import CheckpointError, InputError, InputTypeError


class Schedule(Protocol):
    """A number >= 0 for every step."""

    def at(self, step: int) -> float:
        """The number at a step; 0 is the first step."""
        ...


@dataclass(frozen=True)
class CosineDecay(Schedule):
    """From `start` to `end` along half a cosine in `steps` steps, `end` from then on.

        end + (start - end) (1 + cos(pi min(step, steps) / steps)) / 2

    (Loshchilov and Hutter, 2017; PyTorch's CosineAnnealingLR, which would rise again.)

    Parameters
    ----------
    start, end : float
        >= 0.
    steps : int
        > 0.

    Raises
    ------
    InputError, InputTypeError
        If a setting is not a finite number in its range.

    Examples
    --------
    >>> [CosineDecay(0.1, steps=10).at(step) for step in (0, 5, 10, 11)]
    [0.1, 0.05, 0.0, 0.0]
    """

    start: float
    steps: int
    end: float = 0.0

    def __post_init__(self) -> None:
        _set(self, start=_value(self, "start"), end=_value(self, "end"), steps=_count(self, "steps"))

    def at(self, step: int) -> float:
        if step >= self.steps:
            return self.end
        return self.end + (self.start - self.end) * (1.0 + math.cos(math.pi * step / self.steps)) / 2.0


@dataclass(frozen=True)
class StepDecay(Schedule):
    """`start`, and `factor` times as much after every `every` steps: start factor^floor(step / every).

    PyTorch's StepLR(step_size=every, gamma=factor).

    Parameters
    ----------
    start : float
        >= 0.
    every : int
        > 0.
    factor : float
        In [0, 1].

    Raises
    ------
    InputError, InputTypeError
        If a setting is not a finite number in its range.

    Examples
    --------
    >>> [StepDecay(8.0, every=10, factor=0.5).at(step) for step in (0, 9, 10, 20)]
    [8.0, 8.0, 4.0, 2.0]
    """

    start: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        _set(self, start=_value(self, "start"), every=_count(self, "every"), factor=_value(self, "factor"))
        if self.factor > 1.0:
            raise InputError(f"StepDecay: factor must be in [0, 1] (got {self.factor:g}: it would grow without end)")

    def at(self, step: int) -> float:
        return float(self.start * self.factor ** (step // self.every))


@dataclass(frozen=True)
class PiecewiseLinear(Schedule):
    """Straight lines between given steps; the first number before them, the last one after them.

    Parameters
    ----------
    points : dict of float by step, or sequence of (step, float)
        Steps >= 0 that rise; numbers >= 0.

    Raises
    ------
    InputError, InputTypeError
        If there is no point, or one is not such a pair.

    Examples
    --------
    >>> [PiecewiseLinear({0: 0.0, 10: 1.0, 30: 0.5}).at(step) for step in (0, 5, 20, 99)]
    [0.0, 0.5, 0.75, 0.5]
    """

    points: Any

    def __post_init__(self) -> None:
        given = self.points.items() if isinstance(self.points, Mapping) else self.points
        try:
            pairs = [(step, value) for step, value in given]
        except (TypeError, ValueError):
            raise InputTypeError(
                f"PiecewiseLinear: points must be a dict such as {{0: 0.1, 1000: 0.01}}, or pairs (got {self.points!r})"
            ) from None
        points = tuple(
            (_whole(step, "PiecewiseLinear: a step"), _at_least_zero(value, f"PiecewiseLinear: points[{step!r}]"))
            for step, value in pairs
        )
        steps = [step for step, _ in points]
        if not steps or steps[0] < 0 or any(b <= a for a, b in itertools.pairwise(steps)):
            raise InputError(f"PiecewiseLinear: steps must be >= 0 and rise, at least one (got {steps})")
        _set(self, points=points)

    def at(self, step: int) -> float:
        steps, values = zip(*self.points, strict=True)
        return float(np.interp(step, steps, values))


@dataclass(frozen=True)
class Warmup(Schedule):
    """A straight rise to `then` in `steps` steps, before it.

        then(0) (step + 1) / steps     for step < steps
        then(step - steps)             after that

    Parameters
    ----------
    then : float or schedule
        What comes after.
    steps : int
        > 0.

    Raises
    ------
    InputError, InputTypeError
        If a setting is not a number in its range, or a schedule.

    Examples
    --------
    >>> [Warmup(0.4, steps=4).at(step) for step in range(6)]
    [0.1, 0.2, 0.30000000000000004, 0.4, 0.4, 0.4]
    """

    then: float | Schedule
    steps: int

    def __post_init__(self) -> None:
        _set(self, then=number_or_schedule(self.then, "Warmup: then"), steps=_count(self, "steps"))

    def at(self, step: int) -> float:
        if step < self.steps:
            return value_at(self.then, 0) * (step + 1) / self.steps
        return value_at(self.then, step - self.steps)


KINDS: dict[str, Any] = {kind.__name__: kind for kind in (CosineDecay, StepDecay, PiecewiseLinear, Warmup)}


def is_schedule(value: Any) -> bool:
    """Whether this is a schedule, not a number."""
    return isinstance(value, tuple(KINDS.values()))


def value_at(value: float | Schedule, step: int) -> float:
    """The number at a step, of a number or a schedule."""
    return value if isinstance(value, float) else value.at(step)


def number_or_schedule(value: Any, what: str) -> Any:
    """A finite number >= 0 as float, or a schedule as it is; `what` begins the message of a refusal."""
    return value if is_schedule(value) else _at_least_zero(value, what)


def describe(value: float | Schedule) -> Any:
    """A number or a schedule as JSON values."""
    if isinstance(value, float):
        return value
    settings = {field.name: getattr(value, field.name) for field in fields(value)}  # type: ignore[arg-type]
    return {"kind": type(value).__name__} | {
        name: describe(setting) if name == "then" else setting for name, setting in settings.items()
    }


def from_description(description: Any) -> Any:
    """The number or schedule that `describe` described; anything else as it is."""
    if not isinstance(description, Mapping) or "kind" not in description:
        return description
    settings = {name: from_description(setting) for name, setting in description.items() if name != "kind"}
    if description["kind"] not in KINDS:
        raise CheckpointError(f"unknown schedule {description['kind']!r}; this version knows {', '.join(KINDS)}")
    return KINDS[description["kind"]](**settings)


def _set(schedule: Any, **settings: Any) -> None:
    for name, value in settings.items():
        object.__setattr__(schedule, name, value)


def _value(schedule: Any, name: str) -> float:
    return _at_least_zero(getattr(schedule, name), f"{type(schedule).__name__}: {name}")


def _count(schedule: Any, name: str) -> int:
    count = _whole(getattr(schedule, name), f"{type(schedule).__name__}: {name}")
    if count <= 0:
        raise InputError(f"{type(schedule).__name__}: {name} must be > 0 (got {count})")
    return count


def _whole(value: Any, what: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise InputTypeError(f"{what} must be an integer (got {value!r} of type {type(value).__name__})") from None


def _at_least_zero(value: Any, what: str) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise InputTypeError(f"{what} must be a number (got {value!r} of type {type(value).__name__})")
    number = float(value)
    if not (0.0 <= number < math.inf):
        raise InputError(f"{what} must be >= 0 and finite (got {number:g})")
    return number
