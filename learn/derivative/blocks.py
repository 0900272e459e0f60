"""Sums over a batch: fixed blocks of 64 instances, then the blocks one after the other.

So a sum has the same bits for any number of threads and machines: whoever has a block can sum it, and who has all the
sums adds them in order. Of a family, the members of 64 instances are a block.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compiler.calls.evaluate import BLOCK

Floats = NDArray[np.float64]


def block_sums(rows: Any, members: int = 1) -> Floats:
    """The sum of each block, (K, ...), of rows (B members, ...).

    Examples
    --------
    >>> block_sums(np.ones(150))
    array([64., 64., 22.])
    """
    rows = np.asarray(rows)
    width = BLOCK * max(1, members)
    if 0 < len(rows) <= width:
        return np.add.reduce(rows, axis=0, keepdims=True)
    sums = np.empty((-(-len(rows) // width), *rows.shape[1:]))
    for block in range(len(sums)):
        sums[block] = np.add.reduce(rows[block * width : (block + 1) * width], axis=0)
    return sums


def by_instances(sums: Floats, members: int) -> Floats:
    """The sums of blocks of 64 instances with so many `members` each, from those of each 64 rows, (K', p)."""
    if members == 1:
        return sums
    total = np.zeros((-(-len(sums) // members), sums.shape[1]))
    for first in range(members):
        some = sums[first::members]
        total[: len(some)] += some
    return total


def in_order(sums: Iterable[Any], shape: tuple[int, ...]) -> Floats:
    """The sum of all blocks, of that shape, starting from 0."""
    total = np.zeros(shape)
    for block in sums:
        total += block
    return total


def blocked_sum(rows: Any) -> Floats:
    """The sum over the first axis."""
    rows = np.asarray(rows)
    return in_order(block_sums(rows), rows.shape[1:])
