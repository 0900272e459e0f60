"""The Hessian of an energy of which some unknowns are eliminated: a corner, blocks, and what couples the two.

    H = | Y              |      Y    kept unknowns, K x K
        | C1  A1         |      A_b  a block of eliminated unknowns, s_b x s_b
        | C2      A2     |      C_b  such a block against the kept unknowns that it meets, s_b x c_b

The blocks are what is left of the eliminated unknowns once the kept ones are taken out: the connected parts of their
own pattern. A kernel writes the whole Hessian, or its slots; `Arrow` says where in that the numbers of Y, then of all
C_b, then of all A_b come from, row after row, so that compiled code reads both kinds alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...compiler.calls.pattern import Pattern

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Arrow:
    """Which unknown is where.

    Attributes
    ----------
    kept : (K,)
        The unknowns that are kept.
    order : (Z,)
        The eliminated ones, block after block.
    sizes, couplings : (blocks,)
        s_b, and c_b.
    coupled : (sum of c_b,)
        Which of the kept ones a block meets, rising.
    starts, sources : (K^2 + sum of c_b s_b + sum of s_b^2 + 1,) and (...,)
        Where the sources of each number begin, and the places that are added up among what a kernel writes.
    """

    kept: Integers
    order: Integers
    sizes: Integers
    couplings: Integers
    coupled: Integers
    starts: Integers
    sources: Integers

    @property
    def coupling_numbers(self) -> int:
        """How many numbers all C_b have together."""
        return int((self.sizes * self.couplings).sum())

    @property
    def block_numbers(self) -> int:
        """How many numbers all A_b have together."""
        return int((self.sizes**2).sum())


def blocks_of(eliminated: NDArray[np.bool_], whole: Pattern | None) -> list[Integers]:
    """The eliminated unknowns, block by block; one block where there is no pattern of the Hessian."""
    chosen = np.flatnonzero(eliminated)
    if whole is None or not len(chosen):
        return [chosen] if len(chosen) else []
    from scipy.sparse import csr_array  # here: takes as long to import as numba's core
    from scipy.sparse.csgraph import connected_components

    graph = csr_array((np.ones(whole.nnz), whole.indices, whole.indptr), shape=whole.shape)
    count, labels = connected_components(graph[chosen][:, chosen], directed=False)
    by_block = np.argsort(labels, kind="stable")
    return [chosen[part] for part in np.split(by_block, np.cumsum(np.bincount(labels, minlength=count))[:-1])]


def arrow_of(eliminated: NDArray[np.bool_], blocks: list[Integers], whole: Pattern | None, *, slots: bool) -> Arrow:
    """Where everything is, for the (m,) unknowns of an instance.

    Parameters
    ----------
    eliminated : (m,) bool
    blocks
        From `blocks_of`.
    whole
        The pattern of the Hessian, where it has one.
    slots : bool
        Whether the kernel writes the slots of that pattern, or the whole Hessian; the gradient comes before both.
    """
    m, kept = len(eliminated), np.flatnonzero(~eliminated)
    meets = _meets(eliminated, blocks, whole)
    rows, columns = [np.repeat(kept, len(kept))], [np.tile(kept, len(kept))]
    for block, own in zip(blocks, meets, strict=True):
        rows.append(np.repeat(block, len(own)))
        columns.append(np.tile(kept[own], len(block)))
    for block in blocks:
        rows.append(np.repeat(block, len(block)))
        columns.append(np.tile(block, len(block)))
    entries = np.concatenate(rows) * m + np.concatenate(columns)
    starts, sources = np.arange(len(entries) + 1), entries
    if slots:
        assert whole is not None
        starts, sources = _sources(entries, whole, m)
    return Arrow(
        kept,
        np.concatenate([kept[:0], *blocks]),
        np.array([len(block) for block in blocks], np.int64),
        np.array([len(own) for own in meets], np.int64),
        np.concatenate([kept[:0], *meets]),
        np.ascontiguousarray(starts, np.int64),
        np.ascontiguousarray(sources + m, np.int64),
    )


def _meets(eliminated: NDArray[np.bool_], blocks: list[Integers], whole: Pattern | None) -> list[Integers]:
    """For each block which of the kept unknowns it meets."""
    count = int(np.count_nonzero(~eliminated))
    if whole is None:
        return [np.arange(count)] * len(blocks)
    m = len(eliminated)
    place, owner = np.cumsum(~eliminated) - 1, np.zeros(m, np.int64)
    for number, block in enumerate(blocks):
        owner[block] = number
    rows, columns = np.repeat(np.arange(m), np.diff(whole.indptr)), whole.indices
    crossing = ~eliminated[rows] & eliminated[columns]
    pairs = np.unique(owner[columns[crossing]] * max(1, count) + place[rows[crossing]])
    owners, places = np.divmod(pairs, max(1, count))
    return np.split(places, np.cumsum(np.bincount(owners, minlength=len(blocks)))[:-1]) if blocks else []


def _sources(entries: Integers, whole: Pattern, m: int) -> tuple[Integers, Integers]:
    """Where the slots of each entry are: none for an entry that the pattern does not have."""
    known = np.repeat(np.arange(m, dtype=np.int64), np.diff(whole.indptr)) * m + whole.indices
    at = np.minimum(np.searchsorted(known, entries), max(0, len(known) - 1))
    found = known[at] == entries if len(known) else np.zeros(len(entries), bool)
    bounds = np.arange(whole.nnz + 1) if whole.starts is None else whole.starts
    first, counts = bounds[at], np.where(found, bounds[at + 1] - bounds[at], 0)
    starts = np.concatenate([[0], np.cumsum(counts)])
    within = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
    return starts, whole.sources[np.repeat(first, counts) + within]
