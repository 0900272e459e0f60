"""What the layers for PyTorch and JAX have in common: a minimisation with fixed options, and its derivatives, in NumPy.

Nothing here knows of a framework. A layer turns its arrays into NumPy's, calls `Layer.minimise` and later
`Layer.gradients`, and turns the answers back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compiler.kernel import Kernel
from ...energies.errors import InputError, InputTypeError, NameMissingError, nearest
from ...runtime.minimise import minimise
from ..derivative.implicit import check_damping, check_policy
from ..derivative.upstream import minima_gradients
from ..output import Output

OPTIONS = (
    "bounds",
    "eliminate",
    "method",
    "gtol",
    "max_iterations",
    "check",
    "reweightings",
    "restarts",
    "seed",
)
"""Of `minimise`, which a layer takes."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A minimisation as part of a program that is differentiated.

    Attributes
    ----------
    source : Kernel or Output
    damping, unconverged
        As for `implicit_gradient`.
    options : dict
        For `minimise`: OPTIONS.
    who : str
        What the user called, for messages.
    """

    source: Kernel | Output
    damping: float
    unconverged: str
    options: Mapping[str, Any] = field(default_factory=dict)
    who: str = "Minimise"

    def __post_init__(self) -> None:
        if not isinstance(self.source, (Kernel, Output)):
            raise InputTypeError(
                f"{self.who}: kernel must be what wb.compile returned, or a wb.Output "
                f"(got {type(self.source).__name__})"
            )
        check_damping(self.damping, self.who)
        check_policy(self.unconverged, self.who)
        for name in self.options:
            if name not in OPTIONS:
                raise InputTypeError(
                    f"{self.who}: no option {name!r}{nearest(name, OPTIONS)}; options: damping, unconverged, "
                    f"{', '.join(OPTIONS)}"
                )

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        return (self.source,) if isinstance(self.source, Kernel) else self.source.kernels

    @property
    def weight_names(self) -> tuple[str, ...]:
        return self.source.weights.names if isinstance(self.source, Kernel) else tuple(self.source.weights)

    @property
    def data_names(self) -> tuple[str, ...]:
        """Index data too, which have no derivative."""
        if isinstance(self.source, Kernel):
            return tuple(str(symbol) for symbol in self.source.energy.data)
        return tuple(self.source.data)

    @property
    def names(self) -> tuple[str, ...]:
        """Of what comes out: variables, and results of an output."""
        variables = tuple(name for kernel in self.kernels for name in kernel.variables.names)
        return variables if isinstance(self.source, Kernel) else (*variables, *self.source.names)

    def minimise(self, weights: Mapping[str, Any], data: Mapping[str, Any], start: Any, candidates: Any) -> Any:
        """A Solution, or OutputSolution."""
        return minimise(self.source, weights, data, start=start, candidates=candidates, **self.options)

    def gradients(
        self, solution: Any, slopes: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, NDArray[np.float64]]:
        """dl/d(weights and data) for those with a shape in `shapes`, from dl/d(what came out)."""
        weights = any(name in self.weight_names for name in shapes)
        data = any(name in self.data_names for name in shapes)
        parts = minima_gradients(
            self.source,
            solution,
            slopes,
            self.damping,
            self.unconverged,
            weights=weights,
            data=data,
            who=self.who,
        )
        found = {**parts[0], **parts[1]}
        return {name: _shaped(found.get(name, np.zeros(shape)), shape) for name, shape in shapes.items()}

    def check_names(self, role: str, given: Any, known: tuple[str, ...]) -> dict[str, Any]:
        """Weights or data as a dict, all there and none unknown."""
        if given is None:
            given = {}
        if not isinstance(given, Mapping):
            raise InputTypeError(
                f"{self.who} of {self.source.name!r}: {role} must be a dict by name (got {type(given).__name__}); "
                f"names: {', '.join(known) or 'none'}"
            )
        for name in given:
            if name not in known:
                raise NameMissingError(
                    f"{self.who} of {self.source.name!r}: unknown name {name!r} in {role}{nearest(str(name), known)}; "
                    f"names: {', '.join(known) or 'none'}"
                )
        for name in known:
            if name not in given:
                raise NameMissingError(f"{self.who} of {self.source.name!r}: {name} is missing in {role}")
        return dict(given)


def _shaped(gradient: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A gradient with the shape of its array: those with a batch axis of 1 are shared by all instances."""
    array = np.asarray(gradient, dtype=np.float64)
    if array.shape == shape:
        return array
    if array.ndim == len(shape) and shape[:1] == (1,):
        return np.asarray(array.sum(axis=0, keepdims=True))
    raise InputError(f"a gradient of shape {array.shape} for an array of shape {shape}")  # cannot happen
