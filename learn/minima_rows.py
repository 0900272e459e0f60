"""The distinct minima of a batch as the rows of one batch, block by block of 64 instances.

Kernels, losses and derivatives take batches with a row for each instance. Here an instance has as many rows as minima,
those of its members one after the other:

    instance 0: member 0 at its minimum 0, 1, 2; member 1 at its minimum 0, ...;   instance 1: ...

Where sums over 64 instances are wanted, their rows begin a block of 64 rows: the rows of every whole block of instances
are filled up to a multiple of 64 by copies of its last row, which do not count. So what is summed for 64 instances does
not depend on others, and a part of a batch has the bits that it has within the whole (blocks.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..compiler.calls.evaluate import BLOCK
from ..runtime.solution import Solution
from .model import Minima
from .output import OutputSolution

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Rows(NamedTuple):
    """Minima of a batch, (R,) each.

    Attributes
    ----------
    place : (R,)
        Whose minimum it is: instance * members + member.
    number : (R,)
        Which of its minima, 0 the lowest.
    counts : (R,) bool
        False for copies that fill a block.
    owner : (R / 64,)
        For every 64 rows the block of instances that they belong to.
    members : int
        Of an instance, 1 if it is no family.
    """

    place: Integers
    number: Integers
    counts: NDArray[np.bool_]
    owner: Integers
    members: int

    @property
    def instance(self) -> Integers:
        """Which instance a row belongs to, (R,)."""
        return self.place // self.members

    def sums(self, parts: Floats, blocks: int) -> Floats:
        """The sums of blocks of instances, (K, ...), from those of every 64 rows."""
        total = np.zeros((blocks, *parts.shape[1:]))
        np.add.at(total, self.owner, parts)
        return total

    def only(self, chosen: NDArray[np.bool_], instances: int) -> Rows:
        """Some of the rows, in blocks again."""
        chosen = chosen & self.counts
        return in_blocks(self.place[chosen], self.number[chosen], self.members, instances)


def rows_of(lowest: Solution, used: NDArray[np.bool_]) -> Rows:
    """All minima of a solution; of a minimisation that found none, and of instances that are not `used`, the first."""
    assert lowest.minima is not None
    members = max(1, lowest.inputs.members)
    found = np.where(np.repeat(used, members), np.maximum(np.ravel(lowest.minima.count), 1), 1)
    place, number = np.nonzero(np.arange(len(lowest.minima)) < found[:, None])
    return in_blocks(place, number, members, len(used))


def in_blocks(place: Integers, number: Integers, members: int, instances: int) -> Rows:
    """Rows in the order of `place`, at least one of every instance, with copies where blocks of 64 are to be filled.

    Examples
    --------
    >>> rows = in_blocks(np.arange(130).repeat(2), np.tile([0, 1], 130), 1, 130)
    >>> len(rows.place), rows.owner.tolist()
    (260, [0, 0, 1, 1, 2])
    """
    blocks = -(-instances // BLOCK)
    sizes = np.bincount(place // (BLOCK * members), minlength=blocks)
    whole = np.arange(blocks) < instances // BLOCK
    filled = np.where(whole, -(-sizes // BLOCK) * BLOCK, sizes)
    block = np.repeat(np.arange(blocks), filled)
    within = np.arange(len(block)) - (np.cumsum(filled) - filled)[block]
    rows = (np.cumsum(sizes) - sizes)[block] + np.minimum(within, sizes[block] - 1)
    return Rows(place[rows], number[rows], within < sizes[block], block[::BLOCK], members)


def solution_of(lowest: Solution, place: Integers, number: Integers) -> Solution:
    """Those minima of a solution as one, with a row for each."""
    assert lowest.minima is not None
    parts = tuple(lowest.minima)

    def gathered(arrays: list[Any]) -> Any:
        return np.stack(arrays)[number, place]

    problem = lowest.problem.part(place)
    problem.y = gathered([part.y for part in parts])
    problem.energies = gathered([part.energies for part in parts])
    problem.reals = gathered([part.reals for part in parts])
    problem.integers = gathered([part.integers for part in parts])
    if problem.active is not None:
        problem.active = gathered([part.problem.active for part in parts])
    data = _gathered(lowest.x, lowest.kernel.energy.shapes, place // max(1, lowest.inputs.members))
    return Solution(
        lowest.kernel,
        lowest.w,
        data,
        problem.inputs,
        problem.y,
        True,
        lowest.gtol,
        problem.energies,
        problem.reals,
        problem.integers,
        problem,
    )


def output_of(minima: Minima, solution: Solution, instance: Integers) -> Minima:
    """The outputs at another solution of the same kernel, whose instances are those."""
    if not isinstance(minima, OutputSolution):
        return solution
    output = minima.output
    shapes = {**output.energy.shapes, **solution.kernel.energy.shapes}
    return OutputSolution(output, (solution,), minima.w, _gathered(minima.x, shapes, instance) or {})


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
