"""Which unknowns are the border of a Hessian that is block-diagonal without them, and whether eliminating blocks pays.

    unknowns    t a q0 q1 q2        border  t, a      blocks  q0, q1, q2
    H           x x x  x  x
                x x x  x  x         couplings.py says which entries there are; the border is found among the unknowns
                x x x                that meet most others: the fewest of them without which what is left falls apart
                x x    x             into blocks of some size at most. Then an unknown that meets one block alone goes
                x x       x          back to it.

The sizes that blocks may have are tried, and no border; the cheapest is taken if it is cheaper than the dense
factorisation. That depends on the formula and the extents alone, so that all instances of a batch, and an instance by
itself, are factorised in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from .bordered import TABLES, VECTORS, eliminate

Integers = NDArray[np.int64]
Coupled = NDArray[np.bool_]

FEWEST = 20
"""Fewer unknowns are factorised as fast as they are."""

CLEARLY, FACTORS = 0.75, 12.0
"""Blocks are eliminated where that takes less than this part of the time; so many factorisations an eigenvalue takes.

The times below are those of one machine; what counts are their ratios (docs/minimisers.md).
"""

LARGEST_BLOCKS = (4, 8, 16, 32, 64, 128)
"""How large blocks may be, in turn."""


@dataclass(frozen=True)
class Blocks:
    """A border, and the blocks of the other unknowns.

    rest     the other unknowns, block by block
    sizes    of the blocks
    border   in rising order
    """

    rest: Integers
    sizes: Integers
    border: Integers

    @cached_property
    def layout(self) -> Integers:
        """What bordered.py reads."""
        breaks = np.flatnonzero(np.diff(self.border, prepend=-2) != 1)
        lengths = np.diff(np.append(breaks, len(self.border)))
        runs = np.column_stack([self.border[breaks], lengths]).ravel()
        height, width = _padded(len(self.rest)), _padded(len(self.border))
        head = (len(self.sizes), len(self.rest), len(self.border), height, width, len(lengths), self.largest)
        lowest = FACTORS * self.cost < dense_spectrum_cost(len(self.rest) + len(self.border))
        tables = (self.rest, self.sizes, self.border, runs)
        return np.concatenate([[*head, self.entries, lowest, eliminate().address], *tables]).astype(np.int64)

    @property
    def largest(self) -> int:
        return int(self.sizes.max())

    @property
    def entries(self) -> int:
        """How many entries the blocks have."""
        return int((self.sizes**2).sum())

    @property
    def memory(self) -> int:
        """How many numbers the factors and the vectors beside them take."""
        height, width = _padded(len(self.rest)), _padded(len(self.border))
        factors = (height + width) * width + self.entries
        return factors + -factors % 8 + max(width**2, self.largest**2) + VECTORS * (height + width)

    @cached_property
    def cost(self) -> float:
        """Nanoseconds of a Newton step."""
        width, sizes = _padded(len(self.border)), self.sizes.astype(float)
        small = np.where(sizes <= 3, 11.0 * sizes, 12.0 + 2.6 * sizes**2 + sizes**3 / 150.0)
        blocks = np.minimum(small, dense_cost(sizes)).sum()
        if width == 0:
            return float(blocks)
        runs = 1 + int((np.diff(self.border) != 1).sum())
        rows = len(self.rest) * (5.0 + 0.85 * width + 0.02 * width**2 + 2.5 * (runs - 1))
        within = np.where(sizes == 3, 0.0, 0.5 * sizes**2 * (1.0 + width / 16.0)).sum()
        return float(blocks + rows + within + dense_cost(width))


def dense_cost(n: Any) -> Any:
    """Nanoseconds of a Newton step by the dense factorisation."""
    return n**3 / 150.0 + 36.0 * n


def dense_spectrum_cost(n: int) -> float:
    """Nanoseconds of finding the lowest eigenvalue by the tridiagonal form."""
    return n**3 / 27.0 + 150.0 * n


def _padded(count: int) -> int:
    return -(-count // 4) * 4


def find_blocks(met: Coupled) -> Blocks | None:
    """The border and the blocks of a symmetric pattern (n, n), None where the dense factorisation is as cheap."""
    n = len(met)
    if n < FEWEST or met.all():
        return None
    degrees = met.sum(axis=1)
    whole = _components(met, np.arange(n))
    found = [] if whole.max() == 0 else [_blocks(np.arange(n), whole, n)]
    for most in LARGEST_BLOCKS:
        if most < n // 2:
            found += [blocks for blocks in [_with_border(met, degrees, most)] if blocks is not None]
    best = min(found, key=lambda blocks: blocks.cost, default=None)
    if best is None or best.memory > n * n or not best.cost < CLEARLY * dense_cost(n):
        return None
    return best


def _with_border(met: Coupled, degrees: Integers, most: int) -> Blocks | None:
    """Blocks of at most so many unknowns, by the smallest border that unknowns of highest degree make."""
    levels = np.unique(degrees)
    low, high = 0, len(levels)  # the border of levels[low:] is enough, of levels[high:] too little
    while high - low > 1:
        middle = (low + high) // 2
        rest = np.flatnonzero(degrees < levels[middle])
        if len(rest) and np.bincount(_components(met, rest)).max() <= most:
            low = middle
        else:
            high = middle
    rest = np.flatnonzero(degrees < levels[low])
    if not len(rest):
        return None
    component = np.full(len(met), -1)
    component[rest] = _components(met, rest)
    sizes = np.bincount(component[rest], minlength=len(met))
    for unknown in sorted(np.flatnonzero(component < 0), key=lambda k: (degrees[k], k)):
        near = np.unique(component[met[unknown]])
        near = near[near >= 0]
        if len(near) == 0:
            near = np.flatnonzero(sizes == 0)[:1]
        if len(near) == 1 and sizes[near[0]] < most:
            component[unknown] = near[0]
            sizes[near[0]] += 1
    rest = np.flatnonzero(component >= 0)
    return _blocks(rest, component[rest], len(met))


def _components(met: Coupled, some: Integers) -> Integers:
    """Which connected component each of some unknowns is in, counted from 0 in order of their first unknowns."""
    near = met[np.ix_(some, some)]
    labels = np.arange(len(some))
    while True:
        lowest = np.where(near, labels, len(some)).min(axis=1, initial=len(some))
        lowest = lowest[lowest]  # whatever its neighbours' label has been found to be part of
        if np.array_equal(lowest, labels):
            return np.asarray(np.unique(labels, return_inverse=True)[1], dtype=np.int64)
        labels = lowest


def _blocks(rest: Integers, component: Integers, n: int) -> Blocks:
    """The blocks of the rest of n unknowns, which are in those components."""
    order = np.argsort(component, kind="stable")
    sizes = np.unique(component, return_counts=True)[1]
    return Blocks(rest[order], sizes, np.setdiff1d(np.arange(n), rest))


# ---------------------------------------------------------------------------------------------- of a kernel

NONE = np.zeros(TABLES, np.int64)
"""The layout of a Hessian that is factorised as it is."""

_known: WeakKeyDictionary[Any, dict[bytes, Blocks | None]] = WeakKeyDictionary()


def blocks_of(kernel: Any, inputs: Any) -> Blocks | None:
    """The blocks of the dense Hessian of a kernel for bound inputs, found once for their extents."""
    if inputs.m < FEWEST:
        return None
    known = _known.setdefault(kernel, {})
    key = inputs.extents.tobytes()
    if key not in known:
        if len(known) > 1000:
            known.clear()
        met = kernel.couplings(inputs)
        known[key] = None if met is None else find_blocks(met)
    return known[key]


def layout_of(kernel: Any, inputs: Any) -> Integers:
    """The layout for drivers, which the caller must keep while they run."""
    blocks = blocks_of(kernel, inputs)
    return NONE if blocks is None else blocks.layout
