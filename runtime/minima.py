"""The distinct minima of every instance, in order of energy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .solution import Solution


class Minima:
    """Up to k distinct minima of every instance, the lowest first; what `solution.minima` is.

    `minima[c]` is a Solution: the c-th lowest minimum of every instance, so that `implicit_gradient` and whatever else
    takes a Solution can be asked about each. Instances that have fewer are NaN there, with status NOT_FINITE.

    The arrays below have the axes (B, k), or (k,) where the solution is unbatched, of a family (B, F..., k) or
    (F..., k); NaN after the first `count`.

    Attributes
    ----------
    count : (B,) int64, or int
        How many distinct minima were found; 0 where no start led to one, and `minima[0]` says why.
    evaluations : (B,) int64, or int
        Calls of the kernel for an instance, over all starts and for telling minima apart.
    starts : int
        How often every instance was minimised.

    Examples
    --------
    >>> import sympy as sp, wiberg as wb
    >>> t, a = sp.Symbol("t", real=True), sp.Symbol("a", real=True)
    >>> kernel = wb.compile(wb.Energy(t**4 - t**2 + a*t, variables=[t], data=[a]), backend="reference")
    >>> solution = wb.minimise(kernel, None, {"a": [0.1, 3.0]}, candidates={"t": [-2.0, 0.0, 2.0]}, minima=2)
    >>> solution.minima
    Minima(1 to 2 of at most 2 from 3 starts)
    >>> solution.minima.variables["t"].round(3)
    array([[-0.731,  0.681],
           [-1.09 ,    nan]])
    >>> solution.minima.count
    array([2, 1])
    """

    def __init__(self, solutions: tuple[Solution, ...], found: Any, evaluations: Any, starts: int) -> None:
        self._solutions, self.starts = solutions, starts
        one = solutions[0]
        self.count: Any = one.each(found) if one.lead else int(found[0])
        self.evaluations: Any = one.each(evaluations) if one.lead else int(evaluations[0])

    def __len__(self) -> int:
        return len(self._solutions)

    def __getitem__(self, number: int) -> Solution:
        return self._solutions[number]

    def __iter__(self) -> Iterator[Solution]:
        return iter(self._solutions)

    def _stacked(self, arrays: list[Any]) -> Any:
        return np.stack(arrays, axis=len(self._solutions[0].lead))

    @cached_property
    def variables(self) -> dict[str, Any]:
        """By name, (B, k, ...)."""
        names = self._solutions[0].variables
        return {name: self._stacked([s.variables[name] for s in self]) for name in names}

    @cached_property
    def energy(self) -> Any:
        """(B, k), rising along k."""
        return self._stacked([s.energy for s in self])

    @cached_property
    def gradient_norm(self) -> Any:
        """(B, k)."""
        return self._stacked([s.gradient_norm for s in self])

    @cached_property
    def curvature(self) -> Any:
        """(B, k)."""
        return self._stacked([s.curvature for s in self])

    @cached_property
    def status(self) -> Any:
        """(B, k) of `Status` members."""
        if self._solutions[0].lead:
            return self._stacked([s.status for s in self])
        members = np.empty(len(self), object)
        members[:] = [s.status for s in self]
        return members

    def __repr__(self) -> str:
        counts = np.ravel(self.count)
        span = f"{counts.min()} to {counts.max()}" if len(counts) and counts.min() != counts.max() else f"{counts[:1]}"
        return f"Minima({span.strip('[]') or 'none'} of at most {len(self)} from {self.starts} starts)"
