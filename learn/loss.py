"""Losses: how far a minimum is from what it should be, written in SymPy and compiled like an energy.

A loss is an energy in the variables of the energy whose minimum it judges, with the targets as its data. It is
compiled when first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike, NDArray

from ..compiler.arrays import evaluate
from ..compiler.evaluate import run
from ..compiler.kernel import Kernel
from ..compiler.kernel import compile as compile_energy
from ..energies.energy import Energy
from ..energies.errors import (
    DeclarationError,
    InputError,
    InputTypeError,
    NameMissingError,
    UnsupportedError,
    nearest,
)

Floats = NDArray[np.float64]


class Loss:
    """A loss of one instance, as a formula of its variables and targets.

    Parameters
    ----------
    expression : sympy expression
        The loss l(y, target) of one instance, a scalar.
    variables : sequence of Symbol or IndexedBase
        Which variables of the energy it reads, by the same symbols; others have derivative 0.
    targets : sequence of Symbol or IndexedBase
        What is given for each instance to learn from.
    data : sequence of Symbol or IndexedBase
        Data of the energy that the loss reads too (sizes of boxes, masks).
    where : dict, optional
        Named intermediate arrays, as for `Energy`.
    name : str
        For messages.

    Raises
    ------
    DeclarationError
        As for `Energy`; also for a target that the expression does not use.
    UnsupportedError
        For `weights=`: a loss that depends on the weights directly is not supported yet.

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
        where: Mapping[Any, Any] | None = None,
        name: str = "loss",
    ) -> None:
        if weights:
            raise UnsupportedError(
                f"loss {name!r}: weights= (a loss that depends on {', '.join(map(str, weights))} "
                f"directly) is not supported yet; put a penalty on weights into the energy"
            )
        self.energy = Energy(expression, variables=variables, data=[*targets, *data], where=where or {}, name=name)
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
    ) -> float | Floats:
        """The loss of every instance: a float, or (B,) where an array has a batch axis."""
        value: float | Floats = self.kernel.value(variables, {}, self._inputs(targets, data))
        return value

    def gradient(
        self,
        variables: Mapping[str, ArrayLike],
        targets: Mapping[str, ArrayLike] | None = None,
        data: Mapping[str, ArrayLike] | None = None,
    ) -> dict[str, Any]:
        """dl/dy of every instance, as a dict like `variables`."""
        arrays = self._inputs(targets, data)
        packed = self.kernel.gradient(variables, {}, arrays)
        return self.kernel.variables.unpack(packed, self.kernel.bind({}, arrays, variables).sizes)

    def evaluate(self, inputs: Any, packed: Floats) -> tuple[Floats, Floats]:
        """Values (B,) and gradients (B, m) at packed variables; `inputs` from `bind`."""
        values, gradients = run(self.kernel.entry("value_gradient"), inputs, packed, count=len(packed))
        return values, gradients

    def bind(self, targets: Mapping[str, ArrayLike] | None, data: Mapping[str, ArrayLike] | None, solution: Any) -> Any:
        """Targets, and of `data` the arrays that the loss reads, as inputs of its kernel for a solution's minima."""
        variables = None if self._targets_tell_extents else solution.variables
        inputs = self.kernel.bind({}, self._inputs(targets, data), variables)
        for symbol in self.kernel.declaration.variables:
            shape = np.shape(solution.variables[symbol.name])[int(solution.batched) :]
            wanted = tuple(evaluate(axis, inputs.sizes) for axis in symbol.axes)
            if shape != wanted:
                raise InputError(
                    f"loss {self.name!r}: {symbol.name} {symbol.shape_text} has shape {wanted} by the targets and data "
                    f"of the loss, but the minima of energy {solution.kernel.name!r} have shape {shape}"
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


def squared_error(variable: Any, target: Any) -> Loss:
    """The sum of (variable - target)^2 over all entries.

    Parameters
    ----------
    variable, target : Symbol, or IndexedBase of equal shapes

    Examples
    --------
    >>> import sympy as sp
    >>> t, mu = sp.symbols("t mu", real=True)
    >>> squared_error(t, mu).value({"t": 3.0}, {"mu": 1.0})
    4.0
    """
    return _entrywise(lambda difference: difference**2, variable, target, "squared_error")


def absolute_error(variable: Any, target: Any) -> Loss:
    """The sum of |variable - target| over all entries; its derivative where they are equal is 0.

    Parameters
    ----------
    variable, target : Symbol, or IndexedBase of equal shapes

    Examples
    --------
    >>> import sympy as sp
    >>> y, truth = sp.IndexedBase("y", shape=(2,)), sp.IndexedBase("truth", shape=(2,))
    >>> loss = absolute_error(y, truth)
    >>> loss.value({"y": [3.0, 2.0]}, {"truth": [1.0, 5.0]})
    5.0
    >>> print(loss.gradient({"y": [3.0, 2.0]}, {"truth": [1.0, 5.0]})["y"])
    [ 1. -1.]
    """
    return _entrywise(sp.Abs, variable, target, "absolute_error")


def _entrywise(of_difference: Callable[[Any], Any], variable: Any, target: Any, name: str) -> Loss:
    for symbol in (variable, target):
        if not isinstance(symbol, sp.Symbol | sp.IndexedBase):
            raise InputTypeError(
                f"{name}: variable and target must be a SymPy Symbol or IndexedBase "
                f"(got {symbol!r} of type {type(symbol).__name__})"
            )
    shapes = [_shape(symbol, name) for symbol in (variable, target)]
    if shapes[0] != shapes[1]:
        raise DeclarationError(
            f"{name}: {variable} has shape {shapes[0]} and {target} has {shapes[1]}; they must be equal"
        )
    if not shapes[0]:
        return Loss(of_difference(variable - target), variables=[variable], targets=[target], name=name)
    indices = tuple(sp.Idx(f"i{axis}", extent) for axis, extent in enumerate(shapes[0]))
    total = sp.Sum(of_difference(variable[indices] - target[indices]), *indices)
    return Loss(total, variables=[variable], targets=[target], name=name)


def _shape(symbol: Any, name: str) -> tuple[Any, ...]:
    if isinstance(symbol, sp.Symbol):
        return ()
    if symbol.shape is None:
        raise DeclarationError(f"{name}: {symbol} has no shape; declare sp.IndexedBase({str(symbol)!r}, shape=(n,))")
    return tuple(symbol.shape)
