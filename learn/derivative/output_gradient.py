"""The derivative of a loss of outputs: dl/dw  =  v . dP/dw  +  sum over k of (v . dP/dy_k) . dy_k/dw (output.py)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...compiler.kernel import Kernel
from ...energies.errors import InputError, InputTypeError, NameMissingError, NumericalError, nearest
from ...runtime.solution import Solution
from ..output import Output, OutputSolution, instances_of
from .blocks import blocked_sum
from .implicit import not_finite

Floats = NDArray[np.float64]
Arrays = Mapping[str, ArrayLike]


def minima_slopes(
    solution: OutputSolution, slopes: Arrays, who: str, used: NDArray[np.bool_] | None = None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """dl/dy for the variables of each kernel, and the direct part dl/dw, from dl/d(outputs and variables).

    The direct part is that of each instance, (B, ...), without the batch axis where there is none; where `used` (B,) is
    False, an instance adds nothing.
    """
    output = solution.output
    names = (*output.names, *solution.minima)
    if not isinstance(slopes, Mapping):
        raise InputTypeError(f"{who}: loss_gradient must be a dict by name (got {type(slopes).__name__})")
    for name in slopes:
        if name not in names:
            raise NameMissingError(
                f"{who}: loss_gradient has an unknown name {name!r}{nearest(str(name), names)}; one of "
                f"{', '.join(names)}"
            )
    if not slopes:
        raise NameMissingError(f"{who}: loss_gradient is empty; give it for at least one of {', '.join(names)}")
    through = {name: _shaped(slopes[name], solution.variables[name], name, who) for name in slopes}
    cotangents = {name: through.pop(name) for name in output.names if name in through}
    parts: dict[str, Any] = {name: [np.asarray(slope)] for name, slope in through.items()}
    direct: dict[str, Any] = {}
    if cotangents:
        pulled, direct = output.pull(cotangents, solution.minima, solution.w, solution.x)
        for name, slope in pulled.items():
            parts.setdefault(name, []).append(masked(slope, used))
        direct = {
            name: slope if np.ndim(slope) == np.ndim(solution.w[name]) else masked(slope, used)
            for name, slope in direct.items()
        }
    each = []
    for one in solution.solutions:
        own = {name: np.zeros(np.shape(array)) for name, array in one.variables.items()}
        for name, zero in own.items():
            for slope in parts.get(name, ()):  # a minimum without a batch is shared by all instances
                own[name] = own[name] + (slope if np.shape(slope) == zero.shape else blocked_sum(slope))
        each.append(own)
    return each, direct


def masked(rows: Any, used: NDArray[np.bool_] | None) -> Any:
    """Rows of instances that do not count as zeros."""
    if used is None or used.all():
        return rows
    return np.where(used.reshape(-1, *[1] * (np.ndim(rows) - 1)), rows, 0.0)


def output_gradient(
    output: Output,
    solution: OutputSolution,
    loss_gradient: Arrays,
    through: Callable[[Kernel, Solution, dict[str, Any]], dict[str, Any]],
    who: str,
) -> dict[str, Any]:
    """dl/dw through all minima of an output, as `through` gives it for each kernel from dl/dy, and directly."""
    check_output(output, solution, who)
    each, direct = minima_slopes(solution, loss_gradient, who, _finite(solution))
    total: dict[str, Any] = {
        name: np.zeros(np.shape(solution.w[name])) for name in output.weights if name in solution.w
    }
    for kernel, one, slopes in zip(output.kernels, solution.solutions, each, strict=True):
        for name, gradient in through(kernel, one, slopes).items():
            total[name] = total[name] + gradient
    for name, rows in direct.items():
        total[name] = total[name] + (rows if np.ndim(rows) == np.ndim(solution.w[name]) else blocked_sum(rows))
    return {name: float(array) if np.ndim(array) == 0 else array for name, array in total.items()}


def _finite(solution: OutputSolution) -> NDArray[np.bool_] | None:
    """Which instances have minima at all, (B,); None where there is no batch."""
    if solution.batch is None:
        return None
    used = np.ones(solution.batch, dtype=bool)
    for one in solution.solutions:
        used &= ~not_finite(one).reshape(instances_of(one), -1).any(axis=1)
    return used


def output_jacobian(output: Output, solution: OutputSolution, damping: float) -> Floats:
    """`implicit_jacobian` of an output: dP/dw, (B, outputs, p) or (outputs, p), all flattened in declared order."""
    check_output(output, solution, "implicit_jacobian")
    values = solution.outputs
    lead = () if solution.batch is None else (solution.batch,)
    rows = []
    jacobians = [_flat_jacobian(k, s, damping) for k, s in zip(output.kernels, solution.solutions, strict=True)]
    sizes = {name: np.shape(solution.w[name]) for name in output.weights}
    for name in output.names:
        shape = np.shape(values[name])[len(lead) :]
        for entry in range(math.prod(shape)):
            unit = np.zeros((*lead, math.prod(shape)))
            unit[..., entry] = 1.0
            pulled, direct = output.pull({name: unit.reshape((*lead, *shape))}, solution.minima, solution.w, solution.x)
            row = {w: np.zeros((*lead, math.prod(size))) for w, size in sizes.items()}
            for w, slope in direct.items():
                row[w] = row[w] + np.reshape(slope, (*lead, -1))
            for kernel, jacobian in zip(output.kernels, jacobians, strict=True):
                parts = [
                    np.reshape(pulled.get(n, np.zeros(np.shape(solution.minima[n]))), (*lead, -1))
                    for n in kernel.variables.names
                ]
                through = np.einsum("...m,...mp->...p", _by_member(parts, kernel, solution), jacobian)
                begin = 0
                for w in kernel.weights.names:
                    end = begin + math.prod(sizes[w])
                    row[w] = row[w] + through[..., begin:end]
                    begin = end
            rows.append(np.concatenate([row[w] for w in sizes], axis=-1))
    return np.stack(rows, axis=-2)


def _flat_jacobian(kernel: Kernel, solution: Solution, damping: float) -> Floats:
    """dy/dw of a kernel with the members of a family as further variables: (B, M m, p) or (M m, p)."""
    from .implicit import implicit_jacobian

    jacobian = implicit_jacobian(kernel, solution, damping)
    lead = jacobian.shape[:1] if solution.batched else ()
    flat: Floats = jacobian.reshape(*lead, -1, jacobian.shape[-1])
    return flat


def _by_member(parts: list[Floats], kernel: Kernel, solution: OutputSolution) -> Floats:
    """Slopes of variables, each flat over members and its own axes, as (..., M m): member by member."""
    members = next(max(1, s.inputs.members) for s in solution.solutions if s.kernel is kernel)
    rows = [part.reshape(*part.shape[:-1], members, -1) for part in parts]
    joined = np.concatenate(rows, axis=-1)
    flat: Floats = joined.reshape(*joined.shape[:-2], -1)
    return flat


def check_output(output: Output, solution: Any, who: str) -> None:
    if not isinstance(solution, OutputSolution) or solution.output is not output:
        raise InputError(
            f"{who}: the solution is not one of output {output.name!r}; pass what minimise({output.name}) gave"
        )


def _shaped(slope: Any, like: Any, name: str, who: str) -> Floats:
    try:
        array = np.asarray(slope)
        if array.dtype.kind == "c":
            raise TypeError("it is complex")
        array = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputTypeError(f"{who}: loss_gradient[{name!r}] is not an array of numbers ({error})") from None
    if array.shape != np.shape(like):
        raise InputError(f"{who}: loss_gradient[{name!r}] must have shape {np.shape(like)}; got {array.shape}")
    if not np.isfinite(array).all():
        raise NumericalError(f"{who}: loss_gradient[{name!r}] is NaN or infinite: check the loss")
    return array
