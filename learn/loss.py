"""Losses: how far a minimum is from what it should be, written in SymPy and compiled like an energy.

A loss is an energy in the variables of the energy whose minimum it judges, with the targets as its data. It is
compiled when first needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike, NDArray

from ..compiler.calls.arrays import evaluate
from ..compiler.calls.evaluate import run
from ..compiler.kernel import Kernel
from ..compiler.kernel import compile as compile_energy
from ..energies.energy import Energy
from ..energies.errors import DeclarationError, InputError, NameMissingError, nearest

Floats = NDArray[np.float64]


class Loss:
    """A loss of one instance, as a formula of its variables and targets.

    Parameters
    ----------
    expression : sympy expression
        The loss l(y, target) of one instance, a scalar.
    variables : sequence of Symbol or IndexedBase
        Which variables of the energy it reads, by the same symbols, or which results of an `Output`; others have
        derivative 0. Those of a family have its axes in front.
    targets : sequence of Symbol or IndexedBase
        What is given for each instance to learn from.
    weights : sequence of Symbol or IndexedBase
        Weights that the loss reads directly: of the energy, or its own. They are learnt along both ways.
    data : sequence of Symbol or IndexedBase
        Data of the energy that the loss reads too (sizes of boxes, masks).
    energy : Symbol or IndexedBase, optional
        Stands for the energy of the minimum; of a family with its axes.
    where : dict, optional
        Named intermediate arrays, as for `Energy`.
    regulariser : sympy expression, optional
        Of weights alone, added to the mean loss of every step: once, not for each instance.
    name : str
        For messages.

    Raises
    ------
    DeclarationError
        As for `Energy`; also for a target that the expression does not use, and for a regulariser of something else.

    Examples
    --------
    >>> import sympy as sp
    >>> t, mu = sp.symbols("t mu", real=True)
    >>> loss = Loss((t - mu) ** 2, variables=[t], targets=[mu])
    >>> loss.value({"t": [1.0, 2.0]}, {"mu": 0.0})
    array([1., 4.])
    >>> loss.gradient({"t": 3.0}, {"mu": 1.0})
    {'t': array(4.)}
    """

    def __init__(
        self,
        expression: Any,
        *,
        variables: Sequence[Any],
        targets: Sequence[Any] = (),
        weights: Sequence[Any] = (),
        data: Sequence[Any] = (),
        energy: Any = None,
        where: Mapping[Any, Any] | None = None,
        regulariser: Any = None,
        name: str = "loss",
    ) -> None:
        own = [] if energy is None else [energy]
        self.energy = Energy(
            expression,
            variables=[*variables, *own],
            weights=weights,
            data=[*targets, *data],
            where=where or {},
            name=name,
        )
        self.minimum = None if energy is None else str(energy)
        self.targets = tuple(str(target) for target in targets)
        self.data = tuple(str(array) for array in data)
        used = {
            str(symbol)
            for text in (self.energy.expression, *self.energy.where.values())
            for symbol in text.free_symbols
        }
        for target in self.targets:
            if target not in used:
                raise DeclarationError(
                    f"loss {name!r}: target {target} does not appear in the expression; remove it or use it"
                )
        self.regulariser = None if regulariser is None else Regulariser(regulariser, name)

    @property
    def name(self) -> str:
        """For messages."""
        return self.energy.name

    @cached_property
    def kernel(self) -> Kernel:
        """The compiled loss, with targets and data as its data."""
        return compile_energy(self.energy)

    def value(
        self,
        variables: Mapping[str, ArrayLike],
        targets: Mapping[str, ArrayLike] | None = None,
        data: Mapping[str, ArrayLike] | None = None,
        weights: Mapping[str, ArrayLike] | None = None,
    ) -> float | Floats:
        """The loss of every instance: a float, or (B,) where an array has a batch axis."""
        value: float | Floats = self.kernel.value(variables, weights or {}, self._inputs(targets, data))
        return value

    def gradient(
        self,
        variables: Mapping[str, ArrayLike],
        targets: Mapping[str, ArrayLike] | None = None,
        data: Mapping[str, ArrayLike] | None = None,
        weights: Mapping[str, ArrayLike] | None = None,
    ) -> dict[str, Any]:
        """dl/dy of every instance, as a dict like `variables`."""
        arrays = self._inputs(targets, data)
        packed = self.kernel.gradient(variables, weights or {}, arrays)
        return self.kernel.variables.unpack(packed, self.kernel.bind(weights or {}, arrays, variables).sizes)

    def evaluate(self, inputs: Any, packed: Floats) -> tuple[Floats, Floats, Floats | None]:
        """Values (B,), gradients (B, m) and those in the weights that it reads, (B, p) or None, at packed variables.

        `inputs` are from `bind`.
        """
        values, gradients = run(self.kernel.entry("value_gradient"), inputs, packed, count=len(packed))
        if not self.energy.weights:
            return values, gradients, None
        _, direct = run(self.kernel.entry("weight_gradient"), inputs, packed, count=len(packed))
        return values, gradients, direct

    def bind(
        self,
        targets: Mapping[str, ArrayLike] | None,
        data: Mapping[str, ArrayLike] | None,
        solution: Any,
        weights: Mapping[str, ArrayLike] | None = None,
    ) -> Any:
        """Targets, and what the loss reads of weights and data, as inputs of its kernel for a solution's minima."""
        points = {**solution.variables, **({} if self.minimum is None else {self.minimum: solution.energy})}
        variables = None if self._targets_tell_extents else points
        own = {str(weight): (weights or {})[str(weight)] for weight in self.energy.weights}
        inputs = self.kernel.bind(own, self._inputs(targets, data), variables)
        for symbol in self.kernel.declaration.variables:
            shape = np.shape(points[symbol.name])[int(solution.batched) :]
            wanted = tuple(evaluate(axis, inputs.sizes) for axis in symbol.axes)
            if shape != wanted:
                raise InputError(
                    f"loss {self.name!r}: {symbol.name} {symbol.shape_text} has shape {wanted} by the targets and data "
                    f"of the loss, but the minima of energy {solution.name!r} have shape {shape}"
                )
        return inputs

    @cached_property
    def _targets_tell_extents(self) -> bool:
        shapes = self.energy.shapes
        known = {extent for array in self.energy.data for extent in shapes[str(array)]}
        return known.issuperset(self.energy.extents)

    def _inputs(
        self, targets: Mapping[str, ArrayLike] | None, data: Mapping[str, ArrayLike] | None
    ) -> dict[str, ArrayLike]:
        targets, data = targets or {}, data or {}
        for name in targets:
            if name not in self.targets:
                raise NameMissingError(
                    f"loss {self.name!r}: unknown target {name!r}{nearest(name, self.targets)}; "
                    f"targets: {', '.join(self.targets) or 'none'}"
                )
        arrays: dict[str, ArrayLike] = {}
        for role, names, given in (("target", self.targets, targets), ("data", self.data, data)):
            for name in names:
                if name not in given:
                    raise NameMissingError(
                        f"loss {self.name!r}: {role} {name} is missing; "
                        f"given: {', '.join(given) or 'none'}; needed: {', '.join(names)}"
                    )
                arrays[name] = given[name]
        return arrays

    def __repr__(self) -> str:
        return f"Loss({self.energy.expression}, name={self.name!r})"


class Regulariser:
    """A function of weights alone, R(w), with its derivative.

    Attributes
    ----------
    energy : Energy
        u R(w), whose value and gradient in the weights at u = 1 are those of R.
    """

    def __init__(self, expression: Any, name: str) -> None:
        formula = sp.sympify(expression)
        read: dict[str, Any] = {}
        for atom in sorted(formula.free_symbols, key=str):
            if isinstance(atom, sp.Indexed):
                read[str(atom.base)] = atom.base
        for atom in sorted(formula.atoms(sp.Symbol), key=str):
            inside = any(atom in base.free_symbols for base in read.values())
            if str(atom) not in read and not inside and not isinstance(atom, sp.Idx) and atom in formula.free_symbols:
                read[str(atom)] = atom
        if not read:
            raise DeclarationError(f"loss {name!r}: the regulariser {formula} reads no weight")
        unit = sp.Symbol("unit of the regulariser", real=True)
        try:
            self.energy = Energy(
                unit * formula, variables=[unit], weights=list(read.values()), name=f"regulariser of {name}"
            )
        except DeclarationError as error:
            raise DeclarationError(f"{error}; a regulariser is a formula of weights alone") from None
        self.weights = tuple(read)

    @cached_property
    def kernel(self) -> Kernel:
        """The compiled u R(w)."""
        return compile_energy(self.energy)

    def evaluate(self, weights: Mapping[str, ArrayLike]) -> tuple[float, Floats]:
        """R, and its derivative (p,) in the weights that it reads, flattened in that order."""
        own, point = {name: weights[name] for name in self.weights}, {"unit of the regulariser": 1.0}
        return float(self.kernel.value(point, own)), self.kernel.weight_gradient(point, own)
