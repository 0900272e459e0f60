"""Which instances of a batch have the same Hessian, so that it is factorised once for all of them.

The Hessian of a quadratic energy depends on no variable, and on few of the weights and data:

    E = |W y - x|^2 v        H = 2 v W'W        is read from v and W: instances that differ in x alone share it

A compiled kernel says what it reads (`Entry.reads`). Members of a family have Hessians of their own, each of which
instances share. An instance computes the same bits whoever it shares with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.calls.arrays import address_of

Integers = NDArray[np.int64]

WORTH_LOOKING = 256
"""Arrays are compared where the Hessians of an instance have so many entries: else that takes as long as factors."""

ENOUGH = 64
"""If as many instances have nothing in common, the rest is not looked at."""


@dataclass(frozen=True, eq=False)
class Systems:
    """The rows of a batch in an order in which those of one Hessian stand next to each other.

    Attributes
    ----------
    order : (rows,)
        The rows.
    number : (rows,)
        Which Hessian the row at a place of `order` has, counted from 0.
    count : int
        How many there are.
    """

    order: Integers
    number: Integers
    count: int

    @property
    def fields(self) -> tuple[int, int]:
        """Addresses of both arrays, which the caller must keep while a driver runs."""
        return address_of(self.order), address_of(self.number)


def shared_systems(kernel: Any, entry: Any, inputs: Any, rows: int) -> Systems | None:
    """Which of so many rows of bound inputs share what the entry writes; None where none do, or it is not looked for.

    Rows may be more than the instances that are bound: then these differ in where they start alone.

    Examples
    --------
    >>> import sympy as sp, wiberg as wb
    >>> t, a, x = sp.symbols("t a x", real=True)
    >>> kernel = wb.compile(wb.Energy(a*(t - x)**2, variables=[t], weights=[a], data=[x]), backend="reference")
    >>> entry = kernel.entry("hessian")
    >>> entry.reads
    ('w0',)
    >>> shared_systems(kernel, entry, kernel.bind({"a": 1.0}, {"x": [3.0, 4.0, 5.0]}), 3).count
    1
    """
    members = inputs.members
    if rows <= members or any(name.startswith("y") for name in entry.reads):
        return None
    chosen = inputs.chosen(rows)
    keys = chosen % members
    places = [kernel.place_of(name) for name in entry.reads]
    own = [inputs.arrays[k] for k in places if inputs.batched[k] and len(inputs.arrays[k]) != 1]
    if own:
        whose = _alike(own) if members * inputs.m**2 >= WORTH_LOOKING else None
        if whose is None:
            return None
        keys += whose[chosen // members] * members
    order = np.argsort(keys, kind="stable")
    number = np.concatenate([[0], np.cumsum(np.diff(keys[order]) != 0)])
    count = int(number[-1]) + 1
    return None if count == rows else Systems(order, number, count)


def _alike(arrays: list[Any]) -> Integers | None:
    """A number for each instance, the same where all of these have the same bits; None where none seem to."""
    known: dict[bytes, int] = {}
    found = np.empty(len(arrays[0]), np.int64)
    for instance in range(len(found)):
        bits = b"".join([array[instance].tobytes() for array in arrays])
        found[instance] = known.setdefault(bits, len(known))
        if instance == ENOUGH and len(known) > ENOUGH:
            return None
    return found
