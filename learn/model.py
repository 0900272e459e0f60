"""What is learnt: kernels, what is wanted of their minima, the loss that judges it; and the weights of all of them.

A weight of one name is one weight, wherever it stands: in several kernels, in the output, in the loss, in its
regulariser. Their order is that in which these show them, kernels first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.kernel import Kernel
from ..energies.errors import DeclarationError, InputError, InputTypeError, NameMissingError, nearest
from ..runtime.minimise import minimise
from ..runtime.solution import Solution
from .batches import Batch
from .derivative.implicit import not_finite, refuse_held, unusable
from .loss import Loss
from .output import Output, OutputSolution

Floats = NDArray[np.float64]
Minima = Solution | OutputSolution


class Model:
    """Kernels, output and loss, with their weights.

    Attributes
    ----------
    source : Kernel or Output
        What is minimised.
    kernels : tuple of Kernel
    output : Output or None
    loss : Loss
    name : str
        For messages.
    weights : tuple of Symbol or IndexedBase
    shapes : dict of tuple
        The declared shape of each weight.
    positive : frozenset of str
        Weights that stay positive.
    unrolled : bool
        Whether the steps of method 'irls' are differentiated themselves, instead of the minimum that they tend to.
    energies : dict of Energy
        All formulas, by what they are: "energy" (or "energy 0", ...), "output", "loss", "regulariser".
    """

    def __init__(self, source: Any, loss: Any, who: str, *, unrolled: bool = False) -> None:
        self.source, self.loss, self.unrolled = source, loss, unrolled
        self.output = source if isinstance(source, Output) else None
        self.kernels: tuple[Kernel, ...] = (source,) if self.output is None else source.kernels
        self.name = source.name
        for kernel in () if unrolled else self.kernels:
            refuse_held(kernel, who)
        _check_loss(self, who)
        several = len(self.kernels) > 1
        self.energies = {f"energy {k}" if several else "energy": kernel.energy for k, kernel in enumerate(self.kernels)}
        if self.output is not None:
            self.energies["output"] = self.output.energy
        self.energies["loss"] = loss.energy
        if loss.regulariser is not None:
            self.energies["regulariser"] = loss.regulariser.energy
        found: dict[str, Any] = {}
        self.shapes: dict[str, tuple[Any, ...]] = {}
        self.positive: frozenset[str] = frozenset()
        for energy in self.energies.values():
            for weight in energy.weights:
                name, shape = str(weight), tuple(energy.shapes[str(weight)])
                found.setdefault(name, weight)
                if len(self.shapes.setdefault(name, shape)) != len(shape):
                    raise DeclarationError(
                        f"{who}: weight {name} has shape {self.shapes[name]} in one place, {shape} in {energy.name!r}"
                    )
            self.positive |= energy.positive
        self.weights = tuple(found.values())

    def weights_of(self, kernel: Kernel, weights: Mapping[str, Any]) -> dict[str, Any]:
        """Those that a kernel reads, of all weights."""
        return {name: weights[name] for name in kernel.weights.names}

    def minimise(self, weights: Mapping[str, Any], batch: Batch, options: Mapping[str, Any]) -> Minima:
        """The minima of a batch, and the outputs there."""
        known = self.kernels[0].weights.names if self.output is None else tuple(self.output.weights)
        result: Minima = minimise(
            self.source,
            {name: weights[name] for name in known},
            batch.data,
            start=batch.start,
            candidates=batch.candidates,
            **options,
        )
        return result

    def failed(self, part: Solution) -> NDArray[np.bool_]:
        """Which minimisations are not what was asked for, (rows,); a number of steps that is given is enough."""
        return not_finite(part) if self.unrolled else unusable(part)

    def solutions(self, minima: Minima) -> tuple[Solution, ...]:
        """The minimisations behind a result, one for each kernel."""
        return minima.solutions if isinstance(minima, OutputSolution) else (minima,)


def differentiates_steps(kernel: Kernel | Output, method: Any, reweightings: Any) -> bool:
    """Whether a learner follows the steps of method 'irls' themselves, instead of the minimum."""
    kernels = (kernel,) if isinstance(kernel, Kernel) else kernel.kernels
    return reweightings is not None or (method == "irls" and any(one.holds for one in kernels))


def _check_loss(model: Model, who: str) -> None:
    """Refuse a loss that reads what is no variable of the energy or result of the output, or is one with other axes."""
    loss = model.loss
    if not isinstance(loss, Loss):
        raise InputTypeError(
            f"{who}: loss must be a wb.Loss (got {type(loss).__name__}); for example "
            f"wb.Loss((t - mu)**2, variables=[t], targets=[mu])"
        )
    if loss.energy.over:
        raise InputError(
            f"{who}: loss {loss.name!r} is a family itself; a loss is one number, of all members: its variables have "
            "the axes of the family in front"
        )
    declared: dict[str, tuple[int, tuple[Any, ...]]] = {}
    for kernel in model.kernels:
        energy = kernel.energy
        for variable in energy.variables:
            declared[str(variable)] = len(energy.shapes[str(variable)]), energy.over
    if loss.minimum is not None:
        if loss.minimum in declared:
            raise DeclarationError(
                f"{who}: loss {loss.name!r}: energy={loss.minimum} is the name of a variable; it stands for the energy "
                "of the minimum"
            )
        if len(model.kernels) > 1:
            raise InputError(
                f"{who}: loss {loss.name!r}: energy={loss.minimum} could be that of any of "
                f"{', '.join(repr(k.name) for k in model.kernels)}; it is for an output of one kernel"
            )
        declared[loss.minimum] = 0, model.kernels[0].energy.over
    if model.output is not None:
        declared |= {name: (rank, ()) for name, rank in model.output.ranks.items()}
    names = [name for name in declared if name != loss.minimum]
    for variable in loss.energy.variables:
        name, given = str(variable), len(loss.energy.shapes[str(variable)])
        if name not in declared:
            what = "variable of the energy" if model.output is None else "result of the output, or variable of a kernel"
            raise NameMissingError(
                f"{who}: loss {loss.name!r} reads {name}, which is no {what}"
                f"{nearest(name, names)}; variables: {', '.join(names)}"
            )
        rank, over = declared[name]
        if given != rank + len(over):
            remedy = "use the same symbol in both"
            if over:
                axes = ", ".join([*map(str, over), *(["..."] if rank else [])])
                remedy = f"in a loss it has the axes of over= in front: {name}[{axes}]"
            raise InputError(
                f"{who}: loss {loss.name!r} reads {name} with {given} axes, but the energy declares it with "
                f"{rank}{f' and is a family over {len(over)}' if over else ''}; {remedy}"
            )
