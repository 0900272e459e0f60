"""Members of a family that add nothing to a gradient.

Where the loss looks at the best of many members, or at a soft average of them, all but a few have slopes of 1e-50 and
less. What they add is below the rounding of the sum; their systems need not be solved.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.algebra.linear_algebra import EPSILON

NEGLIGIBLE = EPSILON**2
"""A member is idle whose slopes are below this part of the largest of its instance: its derivative could be 1e16 times
as large as that of others, and would still be lost."""


def idle_members(slopes: NDArray[np.float64], inputs: Any) -> NDArray[np.bool_] | None:
    """Which rows of dl/dy, (B members, m), add nothing to the sum over the members; None where all may.

    Among chosen rows (`Inputs.rows`) no one knows the other members: all may.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> inputs = SimpleNamespace(whole=True, family=(3,), members=3)
    >>> idle_members(np.array([[1.0, 0.0], [1e-5, 0.0], [1e-40, 0.0]]), inputs)
    array([False, False,  True])
    """
    if not inputs.family or not inputs.whole or not slopes.size:
        return None
    largest = np.abs(slopes).max(axis=1).reshape(-1, inputs.members)
    idle: NDArray[np.bool_] = (largest <= NEGLIGIBLE * largest.max(axis=1, keepdims=True)).reshape(-1)
    return idle if idle.any() else None
