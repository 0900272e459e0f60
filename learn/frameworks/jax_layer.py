"""`wb.jax`: minimisation as a function of JAX, under `jit`, `grad` and `vmap`.

    forward    y*(w, x) = argmin_y E(y; w, x)
    backward   dl/dw, dl/dx = -u . d(grad_y E)/d(w, x),    u = (H + shift I)^-1 dl/dy*

Both are callbacks to NumPy (`jax.pure_callback`), in float64, whatever the type of the arrays. What the backward
pass needs of the minimisation (minima, curvatures, statuses, bounds that hold) travels as the bits of float64 numbers,
so that float32 arrays lose nothing, and a callback has no memory.

Under `vmap` every array has one axis more in front, of size 1 where it is not mapped. These axes and the batch of the
call become one batch: all is minimised in one go, and an instance has the same bits as without `vmap`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ...compiler.kernel import Kernel
from ...energies.errors import InputError, InputTypeError
from ...runtime.problem import Problem
from ...runtime.solution import Solution
from ..output import Output, OutputSolution
from .layer import Layer

__all__ = ["minimise"]

Floats = NDArray[np.float64]
Array = Any  # jax.Array; mypy is not to need JAX
Values = Mapping[str, Any]

WEIGHT, DATA, START, CANDIDATE = "weights", "data", "start", "candidates"


def minimise(
    kernel: Kernel | Output,
    weights: Values | None = None,
    data: Values | None = None,
    *,
    start: Values | Solution | OutputSolution | None = None,
    candidates: Values | None = None,
    damping: float = 0.1,
    unconverged: str = "zero",
    **options: Any,
) -> dict[str, Array]:
    """The minimiser of an energy, which JAX can differentiate, compile and map.

    Parameters
    ----------
    kernel : Kernel or Output
    weights, data, start, candidates : dict of array_like
        As for `wb.minimise`: one axis more than declared is the batch axis. `start` may be a solution.
    damping, unconverged
        As for `implicit_gradient`.
    **options
        As for `wb.minimise`: bounds, eliminate, method, gtol, max_iterations, check, reweightings, restarts, seed.

    Returns
    -------
    dict of Array
        Minimisers by name, shaped as `Solution.variables`; of an output, its results too. Their type is that of the
        weights and data that are floating-point: without `jax_enable_x64` float32, computed in float64.

    Raises
    ------
    InputError, InputTypeError, NameMissingError
        For names and shapes. What depends on numbers (NaN, a weight that is not positive) is found while the callback
        runs, and comes back as JAX's error with the message in it.

    Notes
    -----
    Reverse mode only (`grad`, `vjp`, `jacrev`), and once: second derivatives are refused by JAX. Starts, candidates and
    index data have no derivative.

    Examples
    --------
    >>> import jax, sympy as sp, wiberg as wb
    >>> t, a, x = sp.Symbol("t", real=True), sp.Symbol("a", positive=True), sp.Symbol("x", real=True)
    >>> kernel = wb.compile(wb.Energy(a*(t - x)**2 + t**2, variables=[t], weights=[a], data=[x]), backend="reference")
    >>> def minimum(a, x):
    ...     return wb.jax.minimise(kernel, {"a": a}, {"x": x}, start={"t": 0.0}, damping=0.0)["t"]
    >>> print(jax.jit(minimum)(3.0, 4.0))
    3.0
    >>> print(jax.vmap(jax.grad(minimum, argnums=1), in_axes=(0, None))(jax.numpy.array([1.0, 3.0]), 4.0))
    [0.5  0.75]
    """
    layer = Layer(kernel, damping, unconverged, options, who="wb.jax.minimise")
    given = {
        WEIGHT: layer.check_names(WEIGHT, weights, layer.weight_names),
        DATA: layer.check_names(DATA, data, layer.data_names),
        START: _values(layer, START, start),
        CANDIDATE: _values(layer, CANDIDATE, candidates),
    }
    every = [(role, name, value) for role, values in given.items() for name, value in values.items()]
    arrays = [jnp.asarray(value) for _, _, value in every]
    real = [
        role in (WEIGHT, DATA) and jnp.issubdtype(a.dtype, jnp.floating)
        for (role, *_), a in zip(every, arrays, strict=True)
    ]
    kinds = [
        value if isinstance(value, float) else array  # a Python number is as precise as what it meets
        for (_, _, value), array, is_real in zip(every, arrays, real, strict=True)
        if is_real
    ]
    kind = jnp.result_type(*kinds) if kinds else jnp.result_type(float)
    order = [k for k, r in enumerate(real) if r], [k for k, r in enumerate(real) if not r]
    labels = tuple((every[k][0], every[k][1], arrays[k].shape) for part in order for k in part)
    call = _Call(kernel, damping, unconverged, _frozen(options), labels, len(order[0]), str(kind), _Plan(layer, labels))
    found = _minima(call, tuple(arrays[k] for k in order[0]), tuple(arrays[k] for k in order[1]))
    return dict(zip(layer.names, found, strict=True))


def _values(layer: Layer, role: str, given: Any) -> dict[str, Any]:
    """Starts or candidates by name; a solution starts from its minima."""
    if isinstance(given, (Solution, OutputSolution)):
        given = given.variables if isinstance(given, Solution) else given.minima
    if given is not None and not isinstance(given, Mapping):
        raise InputTypeError(f"{layer.who}: {role} must be a dict by name (got {type(given).__name__})")
    return dict(given or {})


@dataclass(frozen=True)
class _Call:
    """What a call is, but for the numbers in its arrays; equal calls are compiled once by JAX."""

    kernel: Any
    damping: float
    unconverged: str
    options: Any
    labels: tuple[tuple[str, str, tuple[int, ...]], ...]
    reals: int
    kind: str
    plan: _Plan = field(compare=False)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _minima(call: _Call, reals: tuple[Array, ...], others: tuple[Array, ...]) -> tuple[Array, ...]:
    """Minimisers, and results of an output, in the order of `Layer.names`."""
    found: tuple[Array, ...] = _forward(call, reals, others)[0]
    return found


def _forward(call: _Call, reals: tuple[Array, ...], others: tuple[Array, ...]) -> tuple[Any, Any]:
    plan, kind = call.plan, np.dtype(call.kind)
    shapes = tuple(jax.ShapeDtypeStruct(shape, kind) for shape in plan.shapes)
    states = tuple(jax.ShapeDtypeStruct(shape, np.uint32) for shape in plan.states)
    found, state = jax.pure_callback(_Forward(call), (shapes, states), *reals, *others, vmap_method="expand_dims")
    return found, (state, reals, others)


def _backward(call: _Call, residuals: Any, slopes: tuple[Array, ...]) -> tuple[Any, Any]:
    states, reals, others = residuals
    shapes = tuple(jax.ShapeDtypeStruct(array.shape, array.dtype) for array in reals)
    found = jax.pure_callback(_Backward(call), shapes, *states, *slopes, *reals, *others, vmap_method="expand_dims")
    return found, tuple(None for _ in others)


_minima.defvjp(_forward, _backward)


# ------------------------------------------------------------------------------------- NumPy only, from here on


@dataclass(frozen=True)
class _Forward:
    call: _Call

    def __call__(self, *arrays: Any) -> Any:
        plan, kind = self.call.plan, np.dtype(self.call.kind)
        lead, values = plan.gathered([np.asarray(array) for array in arrays], shared=True)
        solution = plan.layer.minimise(values[WEIGHT], values[DATA], values[START] or None, values[CANDIDATE] or None)
        found = []
        for name, shape in zip(plan.layer.names, plan.shapes, strict=True):
            whole = np.asarray(solution.variables[name])
            if lead:
                own = shape if plan.batch is None else shape[1:]
                whole = np.broadcast_to(whole, (plan.rows(lead), *own)).reshape(*lead, *shape)
            found.append(whole.astype(kind))
        states = [
            _bits(_state(one, plan.rows(lead))).reshape(*lead, *shape)
            for one, shape in zip(_solutions(solution), plan.states, strict=True)
        ]
        return tuple(found), tuple(states)


@dataclass(frozen=True)
class _Backward:
    call: _Call

    def __call__(self, *given: Any) -> Any:
        plan = self.call.plan
        arrays = [np.asarray(array) for array in given]
        states, arrays = arrays[: len(plan.states)], arrays[len(plan.states) :]
        slopes, arrays = arrays[: len(plan.shapes)], arrays[len(plan.shapes) :]
        lead, values = plan.gathered(
            arrays, shared=False, also=[*zip(states, plan.states, strict=True), *zip(slopes, plan.shapes, strict=True)]
        )
        rows, batched = plan.rows(lead), bool(lead) or plan.batch is not None
        solution = plan.restored(
            [
                np.broadcast_to(state, (*lead, *shape)).reshape(-1, shape[-1])
                for state, shape in zip(states, plan.states, strict=True)
            ],
            values,
            batched,
        )
        loss_gradient = {}
        for name, slope, shape in zip(plan.layer.names, slopes, plan.shapes, strict=True):
            own = shape if plan.batch is None else shape[1:]
            whole = np.broadcast_to(slope, (*lead, *shape))
            loss_gradient[name] = whole.reshape(rows, *own).astype(float) if batched else whole.astype(float)
        reals = plan.labels[: self.call.reals]
        shapes = {name: np.shape(values[role][name]) for role, name, _ in reals}
        gradients = plan.layer.gradients(solution, loss_gradient, shapes)
        return tuple(
            plan.spread_back(gradients[name], role, name, shape, lead).astype(array.dtype)
            for (role, name, shape), array in zip(reals, arrays, strict=False)
        )


class _Plan:
    """Shapes of one kind of call, and how its arrays become one batch under `vmap`.

    Attributes
    ----------
    shapes : of what comes out, in the order of `Layer.names`
    states : of what is kept of each minimisation: (rows, bits)
    batch : size of the batch of the call, or None
    """

    def __init__(self, layer: Layer, labels: tuple[tuple[str, str, tuple[int, ...]], ...]) -> None:
        self.layer, self.labels = layer, labels
        zeros: dict[str, dict[str, Any]] = {role: {} for role in (WEIGHT, DATA, START, CANDIDATE)}
        integers = {str(d) for k in layer.kernels for d in k.energy.data} - {
            n for k in layer.kernels for n in k.data.names
        }
        for role, name, shape in labels:
            zeros[role][name] = np.zeros(shape, np.int64 if role == DATA and name in integers else np.float64)
        self.ranks: dict[tuple[str, str], tuple[int, int]] = {}
        self._declare()
        sizes = [shape[0] for role, name, shape in labels if self._is_batched(role, name, shape)]
        self.batch = max(sizes, key=lambda size: (size != 1, size)) if sizes else None
        shapes: dict[str, tuple[int, ...]] = {}
        self.states: list[tuple[int, int]] = []
        lead = () if self.batch is None else (self.batch,)
        has_bounds = layer.options.get("bounds") is not None
        for kernel in layer.kernels:
            w, x, y, candidates = (
                {name: zeros[role][name] for name in names if name in zeros[role]}
                for role, names in (
                    (WEIGHT, kernel.weights.names),
                    (DATA, [str(d) for d in kernel.energy.data]),
                    (START, kernel.variables.names),
                    (CANDIDATE, kernel.variables.names),
                )
            )
            inputs = kernel.bind(w, x, y or candidates or None, 1 if candidates else 0)
            each = kernel.variables.unpack(np.zeros((*inputs.family, inputs.m)), inputs.sizes)
            shapes |= {name: (*lead, *np.shape(array)) for name, array in each.items()}
            rows = max(1, inputs.members) * (1 if self.batch is None else self.batch)
            self.states.append((rows, 2 * (inputs.m * (2 if has_bounds else 1) + 4)))
        if isinstance(layer.source, Output):
            one = {name: np.zeros(shape[len(lead) :]) for name, shape in shapes.items()}
            plain = {
                role: {
                    n: np.zeros(a.shape[1:], a.dtype) if self._is_batched(role, n, a.shape) else a
                    for n, a in zeros[role].items()
                }
                for role in (WEIGHT, DATA)
            }
            shapes |= {n: (*lead, *s) for n, s in layer.source.result_shapes(one, plain[WEIGHT], plain[DATA]).items()}
        self.shapes = tuple(shapes[name] for name in layer.names)

    def _declare(self) -> None:
        """The rank of every array without a batch, and how many axes of a family may stand in front of it."""
        for kernel in self.layer.kernels:
            energy, family = kernel.energy, len(kernel.energy.over)
            for symbol in (*energy.weights, *energy.data):
                role = WEIGHT if symbol in energy.weights else DATA
                self.ranks[role, str(symbol)] = len(energy.shapes[str(symbol)]), 0
            for symbol in energy.variables:
                rank = len(energy.shapes[str(symbol)])
                self.ranks[START, str(symbol)] = rank, family
                self.ranks[CANDIDATE, str(symbol)] = rank + 1, family
        if isinstance(self.layer.source, Output):
            for role, symbols in ((WEIGHT, self.layer.source.weights), (DATA, self.layer.source.data)):
                for name, symbol in symbols.items():
                    self.ranks[role, name] = len(getattr(symbol, "shape", None) or ()), 0

    def _is_batched(self, role: str, name: str, shape: tuple[int, ...]) -> bool:
        if (role, name) not in self.ranks:
            raise InputError(f"{self.layer.who} of {self.layer.source.name!r}: unknown variable {name!r} in {role}")
        rank, family = self.ranks[role, name]
        return len(shape) == rank + family + 1

    def rows(self, lead: tuple[int, ...]) -> int:
        """Instances: those of the call, for each place along the mapped axes."""
        return math.prod(lead) * (1 if self.batch is None else self.batch)

    def gathered(
        self, arrays: list[Any], *, shared: bool, also: Any = ()
    ) -> tuple[tuple[int, ...], dict[str, dict[str, Any]]]:
        """The mapped axes in front, and the arrays by role and name, with one batch of all instances.

        `shared`: arrays that are the same for all of them stay without a batch; otherwise only where nothing is mapped.
        `also` are more arrays with the shapes that they have in one call, from which mapped axes are seen.
        """
        pairs = [*((array, shape) for array, (_, _, shape) in zip(arrays, self.labels, strict=True)), *also]
        fronts = [np.shape(array)[: np.ndim(array) - len(shape)] for array, shape in pairs]
        lead = tuple(np.broadcast_shapes(*fronts)) if fronts else ()
        values: dict[str, dict[str, Any]] = {role: {} for role in (WEIGHT, DATA, START, CANDIDATE)}
        for array, (role, name, shape) in zip(arrays, self.labels, strict=True):
            values[role][name] = self._flat(array, role, name, shape, lead, shared) if lead else array
        return lead, values

    def _flat(
        self, array: Any, role: str, name: str, shape: tuple[int, ...], lead: tuple[int, ...], shared: bool
    ) -> Any:
        batched = self._is_batched(role, name, shape)
        mapped = array.size != math.prod(shape)
        if not mapped and not batched and (shared or array.dtype.kind != "f"):
            return array.reshape(shape)
        rank, family = self.ranks[role, name]
        own = shape[1:] if batched else (*[1] * (rank + family - len(shape)), *shape)
        array = array.reshape(*array.shape[: array.ndim - len(shape)], shape[0] if batched else 1, *own)
        size = 1 if self.batch is None else self.batch
        return np.ascontiguousarray(np.broadcast_to(array, (*lead, size, *own))).reshape(-1, *own)

    def spread_back(self, gradient: Any, role: str, name: str, shape: tuple[int, ...], lead: tuple[int, ...]) -> Any:
        """A gradient (instances, ...) with the mapped axes in front, summed over the batch where the call shares it."""
        if not lead:
            return gradient
        batched, size = self._is_batched(role, name, shape), 1 if self.batch is None else self.batch
        whole = gradient.reshape(*lead, size, *(shape[1:] if batched else shape))
        if not batched:
            return whole.sum(axis=len(lead))
        return whole if shape[0] == size else whole.sum(axis=len(lead), keepdims=True)

    def restored(self, states: list[Any], values: dict[str, dict[str, Any]], batched: bool) -> Any:
        """The solution whose states these are."""
        solutions, options = [], self.layer.options
        for kernel, bits in zip(self.layer.kernels, states, strict=True):
            w = {name: values[WEIGHT][name] for name in kernel.weights.names}
            x = {str(d): values[DATA][str(d)] for d in kernel.energy.data}
            y = {n: values[START][n] for n in kernel.variables.names if n in values[START]}
            extents = y or {n: values[CANDIDATE][n] for n in kernel.variables.names if n in values[CANDIDATE]}
            inputs = kernel.bind(w, x, extents or None, 0 if y else 1)
            numbers, m = np.ascontiguousarray(bits).view(np.float64), inputs.m
            minima = np.ascontiguousarray(numbers[:, :m])
            method = options.get("method", "trust-region")
            problem = Problem(kernel, inputs, minima, None, 1e-8, 0, method, start=minima)
            problem.energies[:] = np.nan
            problem.reals[:] = numbers[:, m : m + 2]
            problem.integers[:] = 0
            problem.integers[:, 2] = numbers[:, m + 2]
            problem.factorised[:] = numbers[:, m + 3] != 0.0
            if numbers.shape[1] > m + 4:
                problem.active = np.ascontiguousarray(numbers[:, m + 4 :]).astype(np.int64)
            solutions.append(
                Solution(
                    kernel,
                    w,
                    x,
                    inputs,
                    minima,
                    batched,
                    problem.gtol,
                    problem.energies,
                    problem.reals,
                    problem.integers,
                    problem,
                )
            )
        if isinstance(self.layer.source, Output):
            return OutputSolution(self.layer.source, tuple(solutions), values[WEIGHT], values[DATA])
        return solutions[0]


def _solutions(solution: Any) -> tuple[Solution, ...]:
    return solution.solutions if isinstance(solution, OutputSolution) else (solution,)


def _state(solution: Solution, instances: int) -> Floats:
    """What derivatives need of each row: minimum, gradient norm, curvature, status, factors or not, what is held."""
    parts = [
        solution.y,
        solution.reals,
        solution.integers[:, 2:3].astype(float),
        solution.problem.factorised[:, None].astype(float),
        *([] if solution.held is None else [solution.held.astype(float)]),
    ]
    rows = np.concatenate(parts, axis=1)
    wanted = instances * max(1, solution.inputs.members)
    return rows if len(rows) == wanted else np.tile(rows, (wanted // len(rows), 1))


def _bits(numbers: Floats) -> NDArray[np.uint32]:
    return np.ascontiguousarray(numbers).view(np.uint32)


def _frozen(value: Any) -> Any:
    """Options in a form that can be compared: equal where they say the same."""
    if isinstance(value, Mapping):
        return tuple(sorted((str(key), _frozen(entry)) for key, entry in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(entry) for entry in value)
    if isinstance(value, np.ndarray) or hasattr(value, "__array__"):
        array = np.asarray(value)
        return array.shape, str(array.dtype), array.tobytes()
    return value
