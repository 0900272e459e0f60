"""`wb.torch`: minimisation as a layer of PyTorch.

    forward    y*(w, x) = argmin_y E(y; w, x)
    backward   dl/dw, dl/dx = -u . d(grad_y E)/d(w, x),    u = (H + shift I)^-1 dl/dy*

with the damped derivative of implicit.py. All is computed in float64 on the CPU, and comes back in the type and on the
device of what came in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from ...compiler.kernel import Kernel
from ...energies.errors import InputError, NameMissingError, nearest
from ...runtime.solution import Solution
from ..output import Output, OutputSolution
from ..weight import Weight
from .layer import Layer

__all__ = ["Minimise"]

Tensor = Any  # torch.Tensor; mypy is not to need torch
Values = Mapping[str, Any]

_LOG = "log_"


class Minimise(torch.nn.Module):  # type: ignore[misc]
    """The minimiser of an energy, as a module.

    Parameters
    ----------
    kernel : Kernel or Output
    weights : dict, optional
        Weights that the module owns and that are learnt as its parameters: start values (numbers, arrays, tensors), or
        `wb.Weight(8.0, scale="log")`, of which the logarithm is the parameter, so that no step makes it negative. All
        others are arguments of every call.
    damping : float
        lambda of eq. 10, >= 0. With 0 the derivative is that of the minimum, and a singular Hessian is an error.
    unconverged : {"zero", "nan", "use", "raise"}
        What instances that did not converge add to gradients, as for `implicit_gradient`.
    **options
        As for `minimise`: bounds, eliminate, method, gtol, max_iterations, check, reweightings, restarts, seed.

    Attributes
    ----------
    weights : dict of Tensor
        The weights that the module owns, as the energy uses them.
    solution : Solution, OutputSolution or None
        Of the last call, with the statuses of all instances.

    Raises
    ------
    InputError, InputTypeError, NameMissingError
        For arguments that do not fit.

    Notes
    -----
    Starts, candidates and index data have no derivative. The derivative cannot be differentiated again.

    Examples
    --------
    >>> import sympy as sp, torch, wiberg as wb
    >>> n = sp.Symbol("n", integer=True, positive=True)
    >>> i, t, sigma = sp.Idx("i", n), sp.Symbol("t", real=True), sp.Symbol("sigma", positive=True)
    >>> c, x = sp.IndexedBase("c", shape=(n,)), sp.IndexedBase("x", shape=(n,))
    >>> energy = wb.Energy(
    ...     sp.Sum(c[i] * wb.pseudo_huber((x[i] - t)**2, sigma), i), variables=[t], weights=[sigma, c], data=[x])
    >>> layer = wb.torch.Minimise(wb.compile(energy), weights={"sigma": wb.Weight(1.0, scale="log")})
    >>> x = torch.tensor([[0.0, 0.2, 9.0], [1.0, 1.1, 5.0]])
    >>> confidences = torch.ones(2, 3, requires_grad=True)
    >>> minima = layer({"c": confidences}, {"x": x}, start={"t": 0.0})
    >>> minima["t"].shape, minima["t"].dtype
    (torch.Size([2]), torch.float32)
    >>> minima["t"].sum().backward()
    >>> bool((confidences.grad[:, 2] > 0).all())  # more confidence in the largest moves t up
    True
    >>> list(layer.state_dict())
    ['learnt.log_sigma']
    """

    def __init__(
        self,
        kernel: Kernel | Output,
        weights: Values | None = None,
        *,
        damping: float = 0.1,
        unconverged: str = "zero",
        **options: Any,
    ) -> None:
        super().__init__()
        self.layer = Layer(kernel, damping, unconverged, options, who="wb.torch.Minimise")
        self.learnt = torch.nn.ParameterDict()
        self._owned: dict[str, str] = {}  # name of a weight -> of its parameter
        for name, value in (weights or {}).items():
            self._own(name, value)
        self.solution: Solution | OutputSolution | None = None

    def _own(self, name: str, value: Any) -> None:
        known = self.layer.weight_names
        if name not in known:
            raise NameMissingError(
                f"{self.layer.who} of {self.layer.source.name!r}: unknown weight {name!r}{nearest(str(name), known)}; "
                f"weights: {', '.join(known) or 'none'}"
            )
        scale = value.scale if isinstance(value, Weight) else "raw"
        value = value.value if isinstance(value, Weight) else value
        parameter = value
        if scale == "log" or not isinstance(value, torch.nn.Parameter):
            tensor = value if isinstance(value, torch.Tensor) else torch.tensor(np.asarray(value, dtype=np.float64))
            tensor = tensor.detach().clone()
            if not isinstance(value, torch.Tensor):
                tensor = tensor.to(torch.get_default_dtype())
            if scale == "log":
                if not bool((tensor > 0).all()):
                    who = self.layer.who
                    raise InputError(f"{who}: weight {name!r} is not positive; scale='log' learns logarithms")
                tensor = tensor.log()
            parameter = torch.nn.Parameter(tensor)
        key = (_LOG if scale == "log" else "") + name
        if key in self.learnt:
            raise InputError(f"{self.layer.who}: two weights would both have the parameter {key!r}")
        try:
            self.learnt[key] = parameter
        except KeyError as error:
            raise InputError(
                f"{self.layer.who}: {name!r} cannot be the name of a parameter ({error.args[0]}); name the symbol "
                "otherwise"
            ) from None
        self._owned[name] = key

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights that the module owns, as the energy uses them; gradients flow back to the parameters."""
        return {name: self.learnt[key].exp() if key != name else self.learnt[key] for name, key in self._owned.items()}

    def forward(
        self,
        weights: Values | None = None,
        data: Values | None = None,
        *,
        start: Values | Solution | OutputSolution | None = None,
        candidates: Values | None = None,
    ) -> dict[str, Tensor]:
        """The minimisers.

        Parameters
        ----------
        weights, data : dict of Tensor or array_like
            By name, as for `minimise`: one axis more than declared is the batch axis. Weights that the module owns are
            left out.
        start, candidates : dict of Tensor or array_like, or a solution
            As for `minimise`.

        Returns
        -------
        dict of Tensor
            Minimisers by name, shaped as `Solution.variables`; of an output, its results too. Their type is that of the
            weights and data that are floating-point tensors, float32 where all of these are.

        Raises
        ------
        InputError, InputTypeError, NameMissingError
            As for `minimise`.
        """
        layer = self.layer
        for name in weights if isinstance(weights, Mapping) else ():
            if name in self._owned:
                raise InputError(f"{layer.who}: weight {name!r} is owned by the module; leave it out of the call")
        own = self.weights
        known = tuple(name for name in layer.weight_names if name not in own)
        every = {
            **own,
            **layer.check_names("weights", weights, known),
            **layer.check_names("data", data, layer.data_names),
        }
        tensors = {name: value for name, value in every.items() if isinstance(value, torch.Tensor)}
        fixed = {name: value for name, value in every.items() if name not in tensors}
        call = _Call(self, tuple(tensors), fixed, _numpy(start), _numpy(candidates))
        found = _Minima.apply(call, *tensors.values())
        return dict(zip(layer.names, found, strict=True))

    def extra_repr(self) -> str:
        return f"{self.layer.source!r}, damping={self.layer.damping:g}"

    def __getstate__(self) -> dict[str, Any]:
        """All but the last solution."""
        return {**self.__dict__, "solution": None}


class _Call:
    """One call of the layer: what is no tensor of it."""

    def __init__(self, module: Minimise, names: tuple[str, ...], fixed: Values, start: Any, candidates: Any) -> None:
        self.module, self.names, self.fixed, self.start, self.candidates = module, names, fixed, start, candidates


class _Minima(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        layer = call.module.layer
        arrays = {**call.fixed, **{name: _array(tensor) for name, tensor in zip(call.names, tensors, strict=True)}}
        solution = layer.minimise(
            {name: arrays[name] for name in layer.weight_names},
            {name: arrays[name] for name in layer.data_names},
            call.start,
            call.candidates,
        )
        call.module.solution = solution
        ctx.layer, ctx.names, ctx.solution = layer, call.names, solution
        ctx.save_for_backward(*tensors)
        real = [tensor for tensor in tensors if tensor.is_floating_point()]
        kind, device = torch.get_default_dtype(), torch.device("cpu")
        if real:
            device, kind = real[0].device, real[0].dtype
            for tensor in real[1:]:
                kind = torch.promote_types(kind, tensor.dtype)
        variables = solution.variables
        return tuple(torch.tensor(np.asarray(variables[name]), dtype=kind, device=device) for name in layer.names)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors  # says so where one was changed in place, which the solution would read
        wanted = [
            name
            for name, tensor, needed in zip(ctx.names, tensors, ctx.needs_input_grad[1:], strict=True)
            if needed and tensor.is_floating_point()
        ]
        shapes = {name: tuple(tensor.shape) for name, tensor in zip(ctx.names, tensors, strict=True) if name in wanted}
        if not shapes:
            return (None,) * (1 + len(tensors))
        loss_gradient = {name: _array(slope) for name, slope in zip(ctx.layer.names, slopes, strict=True)}
        found = ctx.layer.gradients(ctx.solution, loss_gradient, shapes)
        return (
            None,
            *(
                torch.from_numpy(found[name]).to(tensor.device, tensor.dtype) if name in found else None
                for name, tensor in zip(ctx.names, tensors, strict=True)
            ),
        )


def _array(tensor: Tensor) -> Any:
    """The numbers of a tensor in NumPy, reals in float64; no copy where none is needed."""
    tensor = tensor.detach()
    if tensor.is_floating_point():
        tensor = tensor.to(torch.float64)
    return tensor.cpu().contiguous().numpy()


def _numpy(values: Any) -> Any:
    """Starts or candidates with tensors as arrays of their own."""
    if not isinstance(values, Mapping):
        return values
    return {name: _array(value).copy() if isinstance(value, torch.Tensor) else value for name, value in values.items()}
