"""What a problem of the table is: an energy, its sizes, where it starts and its minima."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wiberg.energies.energy import Energy

Floats = NDArray[np.float64]

FACTORS = (1, 10, 100)
RELATIVE = 1e-6
ABSOLUTE = 1e-10
"""A minimum of 0 is reached at this energy: residuals of length 1e-5."""


@dataclass(frozen=True)
class Minimum:
    """A minimum that is known, local ones too.

    Attributes
    ----------
    value : float
        The energy there, to ten digits; a minimum at infinity is the limit.
    at : tuple of float
        The minimiser as its source prints it; entries may be infinite. Empty where minimisers are not isolated.
    source : str
    """

    value: float
    at: tuple[float, ...]
    source: str

    def reached_by(self, energy: float) -> bool:
        """Whether an energy is this minimum: to 1e-6 of it, or at most 1e-10 where it is 0."""
        if self.value == 0.0:
            return energy <= ABSOLUTE
        return math.isclose(energy, self.value, rel_tol=RELATIVE)


@dataclass(frozen=True)
class Problem:
    """One of the 35.

    Attributes
    ----------
    number : int
        As in the paper.
    energy : callable
        Makes the energy, of one variable y.
    residuals : int
        The paper's m: how many squares the energy is the sum of.
    start : array
        The standard start, of the shape of y.
    minima : tuple of Minimum
        Those that a minimisation may end in, the lowest first.
    data : dict
        What the energy takes as data.
    far : callable
        Factor -> start; by default that many times the standard start.
    """

    number: int
    title: str
    energy: Callable[[], Energy]
    residuals: int
    start: Floats
    minima: tuple[Minimum, ...]
    data: Mapping[str, Any] = field(default_factory=dict)
    far: Callable[[int], Floats] | None = None

    @property
    def name(self) -> str:
        """As in the energy and in the ids of tests."""
        return self.energy.__name__

    @property
    def unknowns(self) -> int:
        """The paper's n."""
        return self.start.size

    def start_at(self, factor: int) -> Floats:
        """The start for a factor of the standard one."""
        return self.start * factor if self.far is None or factor == 1 else self.far(factor)

    def reached(self, energy: float) -> Minimum | None:
        """The minimum that has this energy, if there is one."""
        return next((minimum for minimum in self.minima if minimum.reached_by(energy)), None)

    @cached_property
    def kernel(self) -> Any:
        """The compiled energy. Two have kinks, of which wiberg warns; nothing here starts at one."""
        import wiberg as wb

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wb.UnboundedDerivativeWarning)
            return wb.compile(self.energy())
