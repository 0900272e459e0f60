"""Weights that nothing moves: a gradient that has been exactly 0 for long is reported, once.

A derivative that is exactly 0, not small, says that no instance depends on the weight where it is: a component so
narrow that it touches no datum, a branch that is never taken, a factor that is 0 itself. Learning cannot leave such a
place ("limitations" of Toso, Campbell and Russell, 2019).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .coordinates import Coordinates

Floats = NDArray[np.float64]

LONG = 100
"""So many steps in a row are long."""


class ZeroGradientWarning(UserWarning):
    """A weight is not learnt since its gradient is exactly 0."""


class ZeroGradients:
    """Since which step the gradient by each learnt number has been exactly 0, and which have been reported.

    Parameters
    ----------
    count : int
        How many numbers are learnt, q.

    Attributes
    ----------
    some : bool
        Whether any was 0 at the last step; if not, a gradient without a 0 need not be looked at.
    """

    def __init__(self, count: int) -> None:
        self.since = np.full(count, -1, dtype=np.int64)
        self.told = np.zeros(count, dtype=np.int64)
        self.some = False

    def look(self, step: int, gradient: Floats) -> NDArray[np.intp] | None:
        """Enter the gradient of a step; numbers that have now been 0 for long and were not reported, or None."""
        zero = gradient == 0.0
        self.since = np.where(zero, np.where((self.since < 0) | (self.since > step), step, self.since), -1)
        self.some = bool(zero.any())
        new = zero & (step - self.since + 1 >= LONG) & (self.told == 0)
        if not new.any():
            return None
        self.told = self.told | new
        return np.flatnonzero(new)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a checkpoint stores."""
        return {"zero_gradients/since": self.since, "zero_gradients/told": self.told}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> ZeroGradients:
        """What `arrays` described."""
        restored = cls(len(arrays["zero_gradients/since"]))
        restored.since, restored.told = arrays["zero_gradients/since"], arrays["zero_gradients/told"]
        restored.some = bool((restored.since >= 0).any())
        return restored


def warn(numbers: NDArray[np.intp], coordinates: Coordinates, step: int, stacklevel: int) -> None:
    """Report numbers that `ZeroGradients.look` found at a step."""
    names = [coordinates.name_of_learnt(int(number)) for number in numbers[:5]]
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    warnings.warn(
        f"fit: step {step}: the gradient by {', '.join(names)}{more} has been exactly 0 for {LONG} steps: no instance "
        "depends on it where it is, so it stays there. A component may be too narrow or too far off to touch any "
        "datum: start it wider or elsewhere; if it is to stay, say wb.Weight(..., fixed=True)",
        ZeroGradientWarning,
        stacklevel=stacklevel,
    )
