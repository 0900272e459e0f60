"""Large arrays in memory that is used again.

malloc gives large blocks back to the system as soon as they are free, always those above 32 MiB and often those above
some hundred KiB, so that each call has its pages cleared anew: half of the time for an image of a million pixels, more
for a batch of small ones. `empty` keeps a few of them.
"""

from __future__ import annotations

import math
from threading import Lock

import numpy as np
from numpy.typing import NDArray

LARGE = 2**20
"""Bytes from which memory is kept."""

MOST_IDLE = 2**28
"""Bytes that are kept while no array uses them."""

_lock = Lock()
"""Never waited for: the collector may give back memory within `empty`, and a fork may copy a lock that is held."""

_idle: list[NDArray[np.float64]] = []  # what was given back last stands last


class _Loan:
    """What an array made by `empty` and all its views hold on to; the memory comes back with the last of them."""

    __slots__ = ("__array_interface__", "memory")

    def __init__(self, memory: NDArray[np.float64]) -> None:
        self.memory = memory
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        if self.memory.nbytes <= MOST_IDLE and _lock.acquire(blocking=False):
            try:
                _idle.append(self.memory)
                while sum(memory.nbytes for memory in _idle) > MOST_IDLE:
                    del _idle[0]
            finally:
                _lock.release()


def empty(shape: int | tuple[int, ...]) -> NDArray[np.float64]:
    """An array of float64 with any content, as np.empty gives.

    >>> empty((2, 3)).shape
    (2, 3)
    """
    count = shape if isinstance(shape, int) else math.prod(shape)
    if 8 * count < LARGE:
        return np.empty(shape)
    array: NDArray[np.float64] = np.asarray(_Loan(_taken(count)))
    return array[:count].reshape(shape)


def _taken(count: int) -> NDArray[np.float64]:
    """Idle memory of at least so many numbers and at most twice as many, or new memory."""
    if _lock.acquire(blocking=False):
        try:
            for place in range(len(_idle) - 1, -1, -1):
                if count <= _idle[place].size <= 2 * count:
                    return _idle.pop(place)
        finally:
            _lock.release()
    return np.empty(count)
