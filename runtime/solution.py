"""What comes back from a minimisation: the minimisers, and for each instance how it ended."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..energies.errors import InputError, InputTypeError, NumericalError
from .statuses import CONVERGED, ITERATION_LIMIT, NOT_FINITE, SADDLE, STALLED, UNBOUNDED

if TYPE_CHECKING:
    from .minima import Minima
    from .problem import Problem
    from .report import Report
    from .trace import Trace


class Status(IntEnum):
    """How the minimisation of one instance ended.

    CONVERGED        gradient within gtol and no negative curvature (a singular Hessian is fine)
    STALLED          neither energy nor gradient can be improved in double precision
    ITERATION_LIMIT  max_iterations steps were tried
    NOT_FINITE       the start, or the energy or a derivative there, is NaN or infinite
    UNBOUNDED        the energy fell to -inf, or kept falling until |y| > 1e12 (1 + |start|)
    SADDLE           gradient within gtol, negative curvature, but no step down was found
    """

    CONVERGED = CONVERGED
    STALLED = STALLED
    ITERATION_LIMIT = ITERATION_LIMIT
    NOT_FINITE = NOT_FINITE
    UNBOUNDED = UNBOUNDED
    SADDLE = SADDLE


USABLE = frozenset({Status.CONVERGED, Status.STALLED})
"""A minimum as good as double precision allows."""

_MEMBERS = np.empty(len(Status), object)
_MEMBERS[:] = list(Status)


@dataclass(frozen=True, eq=False, repr=False)
class Solution:
    """Minimisers of a batch of B instances, or of one: then scalars stand in place of arrays of shape (B,).

    Of a family every array has the axes of the family after the batch axis: (B, F...), or (F...) without a batch.

    Attributes
    ----------
    variables, energy, gradient_norm, curvature, iterations, evaluations, status, converged, active, factorised
        See each; `failed` and `raise_if_failed` look at the statuses, `explain` says in words what became of an
        instance, and `print(solution)` what became of all.
    w, x : dict or None
        Weights and data as they were given.
    inputs : Inputs
        The same, bound: what kernels read. Arrays that needed no conversion are not copied: derivatives of the solution
        read them as they are then, so do not change them in place in between.
    y : (B, m) float64, (1, m) if there is no batch
        The variables, packed; of a family a row for each member of each instance.
    gtol : float
    batched : bool
    problem : Problem
        The task with its starts, from which instances are minimised again where `explain` or a path asks for it.
    minima : Minima or None
        The distinct minima, with `minima=k` or `restarts=`.
    trace : Trace or None
        The path, with `trace=True`.
    """

    kernel: Any
    w: dict[str, Any] | None
    x: dict[str, Any] | None
    inputs: Any
    y: NDArray[np.float64]
    batched: bool
    gtol: float
    energies: NDArray[np.float64] = field(repr=False)
    reals: NDArray[np.float64] = field(repr=False)
    integers: NDArray[np.int64] = field(repr=False)
    problem: Problem
    minima: Minima | None = None
    trace: Trace | None = None

    @property
    def name(self) -> str:
        """The energy's name, for messages."""
        name: str = self.kernel.name
        return name

    @cached_property
    def variables(self) -> dict[str, Any]:
        """Minimisers by name."""
        unpacked: dict[str, Any] = self.kernel.variables.unpack(self.each(self.y), self.inputs.sizes)
        return unpacked

    @property
    def lead(self) -> tuple[int, ...]:
        """The axes in front of those of one minimisation: the batch axis, if there is one, and those of a family."""
        family: tuple[int, ...] = self.inputs.family
        if not self.batched:
            return family
        members = self.inputs.members
        count = len(self.y) // members if members else self.inputs.batch or 1
        return (count, *family)

    def each(self, rows: NDArray[Any]) -> Any:
        """One row, or all of them along `lead`."""
        return rows.reshape(*self.lead, *rows.shape[1:]) if self.lead else rows[0]

    @property
    def energy(self) -> Any:
        """`kernel.value` of the variables, (B,) float64."""
        return self.each(self.energies) if self.lead else float(self.energies[0])

    @property
    def gradient_norm(self) -> Any:
        """Infinity norm of the gradient at the end, (B,); with bounds, of the projected gradient P(y - g) - y."""
        return self.each(self.reals[:, 0]) if self.lead else float(self.reals[0, 0])

    @property
    def curvature(self) -> Any:
        """Lowest eigenvalue of the Hessian at the end, (B,); of a large sparse one, and by products, a lower bound.

        With bounds, of the block of the variables that are not `active`: infinite where there are none.
        Exactly 0 for the minimum-norm solution of a quadratic energy whose Hessian is singular.
        """
        return self.each(self.curvatures) if self.lead else float(self.curvatures[0])

    @property
    def curvatures(self) -> NDArray[np.float64]:
        """`curvature`, packed: (B,). It is found now where the minimisation did without it."""
        from .curvatures import find_curvatures  # here: most solutions are never asked

        find_curvatures(self.problem)
        return self.reals[:, 1]

    @property
    def iterations(self) -> Any:
        """Steps tried, taken or refused, (B,) int64."""
        return self.each(self.integers[:, 0]) if self.lead else int(self.integers[0, 0])

    @property
    def evaluations(self) -> Any:
        """Calls of the kernel for them, (B,) int64: the start, each step, each step shortened along its line, and one
        for ranking candidates."""
        return self.each(self.integers[:, 1]) if self.lead else int(self.integers[0, 1])

    @property
    def status(self) -> Any:
        """How each instance ended: (B,) array of `Status` members, or one member."""
        return self.each(_MEMBERS[self.integers[:, 2]]) if self.lead else Status(int(self.integers[0, 2]))

    @property
    def converged(self) -> Any:
        """Whether the status is CONVERGED, (B,) bool."""
        converged = self.integers[:, 2] == CONVERGED
        return self.each(converged) if self.lead else bool(converged[0])

    @property
    def factorised(self) -> Any:
        """Whether the last steps were made by factors of a large sparse Hessian, (B,) bool; see docs/sparse.md."""
        factorised = self.problem.factorised
        return self.each(factorised) if self.lead else bool(factorised[0])

    @property
    def active(self) -> dict[str, Any]:
        """Which entries of each variable a bound holds, bool arrays shaped as `variables`.

        Those that are fixed (low = high), and those at a bound over which the gradient pushes them. Their derivative by
        the weights is 0. All False where there are no bounds.
        """
        held = np.zeros(self.y.shape) if self.held is None else self.held
        unpacked = self.kernel.variables.unpack(self.each(held), self.inputs.sizes)
        return {name: np.asarray(array != 0.0) for name, array in unpacked.items()}

    @property
    def failed(self) -> NDArray[np.int64]:
        """The instances that are neither CONVERGED nor STALLED; of a family (k, axes of `lead`): where in `status`."""
        failed = self.failed_rows
        return np.stack(np.unravel_index(failed, self.lead), axis=1) if self.inputs.family else failed

    @property
    def failed_rows(self) -> NDArray[np.int64]:
        """Where in `y` those that failed are."""
        return np.flatnonzero(self.integers[:, 2] > STALLED)

    def raise_if_failed(self, *statuses: Status) -> Solution:
        """The solution itself, unless an instance failed (or, where statuses are given, has one of them).

        Raises
        ------
        NumericalError
            Saying which instances.
        """
        refused = statuses or tuple(status for status in Status if status not in USABLE)
        for status in refused:
            instances = np.flatnonzero(self.integers[:, 2] == status)
            if len(instances):
                raise NumericalError(
                    f"minimise: energy '{self.kernel.name}': {self._which(instances)} ended as "
                    f"{Status(status).name}; {self._says_why(instances)}"
                )
        return self

    def explain(self, instance: int | Sequence[int] | None = None) -> Report:
        """Why an instance ended as it did, in words, and what to do about it.

        Which term, index or input is not finite; along which unknowns an energy is unbounded and how it falls; the
        direction of negative curvature; how the gradient fell up to the iteration limit. For this the instance is
        minimised again where needed, from arrays that must not have changed in between.

        Parameters
        ----------
        instance : int, optional
            By default the first that failed, or 0. Of a family where it stands in `status`, as rows of `failed` say:
            `explain((17, 2, 5))` is about member (2, 5) of instance 17.

        Returns
        -------
        Report
            Print it, or read its attributes.

        Raises
        ------
        InputError, InputTypeError
            If there is no such instance.

        Examples
        --------
        >>> import sympy as sp, wiberg as wb
        >>> t, x = sp.Symbol("t", real=True), sp.Symbol("x", real=True)
        >>> kernel = wb.compile(wb.Energy((t - 3)**2 + sp.log(t - x), variables=[t], data=[x]), backend="reference")
        >>> solution = wb.minimise(kernel, None, {"x": [-9.0, 2.0]}, start={"t": 0.0})
        >>> solution.explain(1)
        energy 'energy', instance 1: NOT_FINITE after 0 iterations (1 evaluation)
          energy nan
          the start has no finite energy and derivatives:
            energy 'energy': the value is nan
              in the term log(t - x)  (term 2 of 2)
              in value = log(t - x)     # energy
              the first part that is not finite:  log(t - x) = nan
                with t - x = -2
                with x = 2
                with t = 0
              the logarithm of a negative number; keep its argument positive
          what to do: start where the energy and its derivatives are finite, or change the term
        """
        from .report import explain  # here: most solutions are never asked

        return explain(self, self.row(instance))

    def row(self, instance: Any) -> int:
        """Which row of `y` is meant: by the number of an instance, or of a family by where a member is in `status`."""
        rows = len(self.y)
        if instance is None:
            instance = int(self.failed_rows[0]) if len(self.failed_rows) else 0
        elif self.inputs.family:
            instance = self._row_of_member(instance)
        try:
            number = operator.index(instance)
        except TypeError:
            raise InputTypeError(
                f"energy {self.kernel.name!r}: an instance is an integer from 0 to {rows - 1} (got {instance!r})"
            ) from None
        if not 0 <= number < rows:
            raise InputError(
                f"energy {self.kernel.name!r}: no instance {number}; there are {rows} of them, numbered from 0"
            )
        return number

    def _row_of_member(self, member: Any) -> int:
        axes, place = self.lead, member if isinstance(member, (tuple, list, np.ndarray)) else (member,)
        try:
            numbers = tuple(operator.index(k) for k in place)
        except TypeError:
            numbers = ()
        if len(numbers) != len(axes):
            raise InputTypeError(
                f"energy {self.kernel.name!r}: a member is told by {len(axes)} integers, its place in solution.status "
                f"of shape {axes} (got {member!r})"
            )
        if not all(0 <= number < size for number, size in zip(numbers, axes, strict=True)):
            raise InputError(
                f"energy {self.kernel.name!r}: no member {numbers}; solution.status has the shape {axes}, numbered "
                "from 0"
            )
        return int(np.ravel_multi_index(numbers, axes))

    def _says_why(self, rows: NDArray[np.int64]) -> str:
        return f"solution.explain({self.listed(rows[:1]) if self.lead else ''}) says why"

    def _which(self, instances: NDArray[np.int64]) -> str:
        if not self.lead:
            return "the instance"
        return f"{len(instances)} of {len(self.y)} {self.rows_text} ({self.listed(instances[:5], len(instances) > 5)})"

    @property
    def rows_text(self) -> str:
        """What the rows are called in messages."""
        return "members" if self.inputs.family else "instances"

    def listed(self, rows: Any, more: bool = False) -> str:
        """Rows for messages: `17, 41`, of a family `(0, 2), (3, 1)` as they are found in `status`."""
        names = [str(row) for row in rows]
        if len(self.lead) > 1:
            names = [str(tuple(int(k) for k in np.unravel_index(row, self.lead))) for row in rows]
        return ", ".join(names) + (", ..." if more else "")

    @property
    def held(self) -> NDArray[np.int64] | None:
        """`active`, packed: (B, m), 1 where a bound holds a variable; None without bounds."""
        return self.problem.active

    def _bounds_in_words(self) -> str:
        if self.held is None:
            return ""
        return f", bounds hold {np.count_nonzero(self.held)} of {self.held.size} unknowns"

    def __getstate__(self) -> dict[str, Any]:
        """Everything but factors, and the bound inputs, which hold addresses; they are bound anew."""
        problem = copy(self.problem)
        problem.inputs = problem.factors = None
        return {**vars(self), "variables": self.variables, "inputs": None, "problem": problem}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        vars(self)["inputs"] = self.problem.inputs = self.kernel.bind(self.w, self.x, self.variables)

    def __repr__(self) -> str:
        rows = len(self.y)
        if not self.lead:
            return (
                f"Solution({self.kernel.name}: {self.status.name}, energy {self.energy:.6g}, gradient norm "
                f"{self.gradient_norm:.1e}, {self.iterations} iterations{self._bounds_in_words()})"
            )
        counts = np.bincount(self.integers[:, 2], minlength=len(Status))
        parts = [f"{counts[status]} {status.name}" for status in Status if counts[status]]
        norms = self.reals[:, 0][np.isfinite(self.reals[:, 0])]
        worst = f", worst gradient norm {norms.max():.1e}" if len(norms) else ""
        steps = f", {self.integers[:, 0].mean():.1f} iterations on average" if rows else ""
        steps += self._bounds_in_words()
        counted = f"{rows} {self.rows_text}" if len(self.lead) < 2 else f"{' x '.join(map(str, self.lead))} members"
        return f"Solution({self.kernel.name}: {counted}: {', '.join(parts) or 'none'}{worst}{steps})"

    def __str__(self) -> str:
        """A batch in ten lines: how many ended how, quantiles of the numbers, what failed; one instance: `explain`."""
        from .report import summary  # here: as in explain

        return summary(self) if self.lead else str(self.explain())
