"""Whether the steps for a sparse Hessian are made by conjugate gradients or by its factors.

What a factorisation costs is known from the pattern (fronts.py), how many steps conjugate gradients need is not. So a
pattern has stages, and an instance goes on to the next when one of its solves has taken as many steps as that stage
allows: this depends on its own numbers alone.

1. Conjugate gradients, for 30 + sqrt(unknowns) steps in a solve. Most instances never leave it; only when one does are
   the fronts of the pattern worked out.
2. Where factors cost more than that twice, conjugate gradients again, for as many steps in a solve as they cost.
3. Factors; or conjugate gradients without end where factors would take too much memory.

So a solve takes at most a few times as long as by the better of the two (the ski rental problem: Karlin et al. 1988,
Algorithmica 3). Factors at once where they are cheap were tried: well conditioned graphs took 2 to 3 times as long.
"""

from __future__ import annotations

import math
from typing import NamedTuple
from weakref import WeakKeyDictionary, ref

from ...compiler.calls.pattern import Pattern
from .conjugate_gradients import Factored, System, system_of
from .fronts import Fronts, find_fronts

LARGEST = 2**28
"""Numbers in factors at most, 2 GiB."""


class Stage(NamedTuple):
    """How steps are made; `patience` steps of conjugate gradients in a solve at most, 0 in the last stage."""

    system: System
    patience: int

    @property
    def is_factored(self) -> bool:
        return isinstance(self.system, Factored)


class Stages:
    """The stages of one pattern, worked out when an instance gets there."""

    def __init__(self, pattern: Pattern) -> None:
        patience = 30 + math.isqrt(pattern.shape[0]) if pattern.nnz else 0
        self._known = [Stage(system_of(pattern), patience)]
        self._pattern = ref(pattern)  # the pattern is the key under which the stages are remembered

    def __getitem__(self, k: int) -> Stage:
        if k == 1 and len(self._known) == 1:
            pattern = self._pattern()
            assert pattern is not None
            self._known = [*self._known, *_after(self._known[0], pattern)]
        return self._known[k]

    @property
    def last(self) -> Stage:
        """The stage that is never given up."""
        k = 0
        while self[k].patience > 0:
            k += 1
        return self[k]


def _after(first: Stage, pattern: Pattern) -> list[Stage]:
    """What comes after the stage in which the fronts were not known."""
    fronts = find_fronts(pattern.indptr, pattern.indices, pattern.sources, pattern.starts, LARGEST)
    if fronts is None:
        return [Stage(first.system, 0)]
    factored, worth = Stage(Factored(pattern, fronts), 0), steps_worth(fronts, pattern.nnz)
    return [factored] if worth <= 2 * first.patience else [Stage(first.system, worth), factored]


_stages: WeakKeyDictionary[Pattern, Stages] = WeakKeyDictionary()


def stages_of(pattern: Pattern) -> Stages:
    """The stages of a pattern, made when they are first asked for."""
    found = _stages.get(pattern)
    if found is None:
        found = _stages[pattern] = Stages(pattern)
    return found


def steps_worth(fronts: Fronts, entries: int) -> int:
    """How many steps of conjugate gradients take as long as a factorisation and its solves; measured nanoseconds."""
    factorised = 0.04 * fronts.work + 5.0 * fronts.size + 120.0 * len(fronts.pivots) + 2.0 * entries
    return math.ceil(factorised / (0.6 * entries + 2.0 * len(fronts.order)))
