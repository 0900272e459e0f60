"""What comes back from a minimisation: the minimisers, and for each instance how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..energies.errors import NumericalError
from .descend import CONVERGED, ITERATION_LIMIT, NOT_FINITE, SADDLE, STALLED, UNBOUNDED


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

    Attributes
    ----------
    variables, energy, gradient_norm, curvature, iterations, evaluations, status, converged
        See each; `failed` and `raise_if` look at the statuses.
    w, x : dict or None
        Weights and data as they were given.
    inputs : Inputs
        The same, bound: what kernels read. Arrays that needed no conversion are not copied: derivatives of the solution
        read them as they are then, so do not change them in place in between.
    y : (B, m) float64, (1, m) if there is no batch
        The variables, packed.
    gtol : float
    batched : bool
    starts : (B, m) float64 or None
        Where a method began whose steps can be differentiated ('irls').
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
    starts: NDArray[np.float64] | None = field(repr=False, default=None)

    @cached_property
    def variables(self) -> dict[str, Any]:
        """Minimisers by name."""
        unpacked: dict[str, Any] = self.kernel.variables.unpack(
            self.y if self.batched else self.y[0], self.inputs.sizes
        )
        return unpacked

    @property
    def energy(self) -> Any:
        """`kernel.value` of the variables, (B,) float64."""
        return self.energies if self.batched else float(self.energies[0])

    @property
    def gradient_norm(self) -> Any:
        """Infinity norm of the gradient at the end, (B,)."""
        return self.reals[:, 0] if self.batched else float(self.reals[0, 0])

    @property
    def curvature(self) -> Any:
        """Lowest eigenvalue of the Hessian at the end, (B,); of a large sparse one, a proven lower bound of it."""
        return self.reals[:, 1] if self.batched else float(self.reals[0, 1])

    @property
    def iterations(self) -> Any:
        """Steps tried, taken or refused, (B,) int64."""
        return self.integers[:, 0] if self.batched else int(self.integers[0, 0])

    @property
    def evaluations(self) -> Any:
        """Calls of the kernel for them, (B,) int64: the start, each step, each step shortened along its line, and one
        for ranking candidates."""
        return self.integers[:, 1] if self.batched else int(self.integers[0, 1])

    @property
    def status(self) -> Any:
        """How each instance ended: (B,) array of `Status` members, or one member."""
        return _MEMBERS[self.integers[:, 2]] if self.batched else Status(int(self.integers[0, 2]))

    @property
    def converged(self) -> Any:
        """Whether the status is CONVERGED, (B,) bool."""
        converged = self.integers[:, 2] == CONVERGED
        return converged if self.batched else bool(converged[0])

    @property
    def failed(self) -> NDArray[np.int64]:
        """The instances that are neither CONVERGED nor STALLED."""
        return np.flatnonzero(self.integers[:, 2] > STALLED)

    def raise_if(self, *statuses: Status) -> Solution:
        """The solution itself, unless an instance has one of the statuses (default: all but CONVERGED and STALLED).

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
                    f"{status.name}; see solution.status"
                )
        return self

    def _which(self, instances: NDArray[np.int64]) -> str:
        if not self.batched:
            return "the instance"
        shown = ", ".join(map(str, instances[:5])) + (", ..." if len(instances) > 5 else "")
        return f"{len(instances)} of {len(self.y)} instances ({shown})"

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the bound inputs, which hold addresses; they are bound anew."""
        return {**vars(self), "variables": self.variables, "inputs": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        vars(self)["inputs"] = self.kernel.bind(self.w, self.x, self.variables)

    def __repr__(self) -> str:
        rows = len(self.y)
        if not self.batched:
            return (
                f"Solution({self.kernel.name}: {self.status.name}, energy {self.energy:.6g}, gradient norm "
                f"{self.gradient_norm:.1e}, {self.iterations} iterations)"
            )
        counts = np.bincount(self.integers[:, 2], minlength=len(Status))
        parts = [f"{counts[status]} {status.name}" for status in Status if counts[status]]
        norms = self.reals[:, 0][np.isfinite(self.reals[:, 0])]
        worst = f", worst gradient norm {norms.max():.1e}" if len(norms) else ""
        steps = f", {self.integers[:, 0].mean():.1f} iterations on average" if rows else ""
        return f"Solution({self.kernel.name}: {rows} instances: {', '.join(parts) or 'none'}{worst}{steps})"
