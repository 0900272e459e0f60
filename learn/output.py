"""Outputs: what is wanted of minima, where it is not the minima themselves.

    P(y_1, ..., y_K; w, x)       of the minima y_k of one or several kernels, of weights and of data

A soft average over a family of minima, a box from two corners. For a loss l(P) the derivative of the whole chain is

    dl/dw  =  v . dP/dw  +  sum over k of (v . dP/dy_k) . dy_k/dw,        v = dl/dP,

with the damped dy_k/dw of implicit.py. Nothing here differentiates: v . P is an energy that is linear in v. Its
gradient in v is P itself, and its gradient in the minima and the weights is what the chain needs. So an output may hold
all that an energy may.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike, NDArray

from ..compiler.calls.evaluate import run
from ..compiler.kernel import Kernel
from ..compiler.kernel import compile as compile_energy
from ..energies.energy import Energy
from ..energies.errors import DeclarationError, InputError, InputTypeError, NameMissingError, nearest
from ..runtime.minimise import minimise
from ..runtime.solution import USABLE, Solution, Status

Floats = NDArray[np.float64]
Arrays = Mapping[str, ArrayLike]

_COTANGENT = "cotangent of {}"  # no name that a formula could use by accident


class Output:
    """A function of minima, weights and data, with the derivative of the whole chain.

    `minimise`, `implicit_gradient`, `implicit_jacobian` and `Learner` take an Output wherever they take a kernel, and a
    `Loss` may read outputs beside minima, by name.

    Parameters
    ----------
    expressions : dict
        `{P[j, p]: expression}` with distinct `sp.Idx` over whole axes, `{c[0]: ..., c[1]: ...}` for every entry, or
        `{s: expression}` for a number.
    minima : Kernel or sequence of Kernel
        Whose variables the expressions read, by name; of a family with its axes in front: `q[m, i, j]`. Weights and
        data of one name are the same for all of them.
    weights, data : sequences of Symbol or IndexedBase
        What the expressions read besides. A weight may be one of the kernels' or the output's own.
    where : dict, optional
        Named intermediates, as for `Energy`.
    name : str
        What messages call it.

    Attributes
    ----------
    names : tuple of str
        Of the outputs.
    ranks : dict of int
        How many axes each has.
    energy : Energy
        v . P, of which all numbers are derivatives.

    Raises
    ------
    DeclarationError, InputTypeError
        As for `Energy`; also for an output that has no value everywhere, that takes the name of a variable, weight or
        datum, or reads a variable under other axes.

    Examples
    --------
    Soft average of two robust locations, whose sharpness is learnt with the rest:

    >>> import sympy as sp, wiberg as wb
    >>> n = sp.Symbol("n", integer=True, positive=True)
    >>> i, k, K = sp.Idx("i", n), sp.Idx("k", 2), sp.IndexedBase("t", shape=(2,))
    >>> t, sigma, b = sp.Symbol("t", real=True), sp.Symbol("sigma", positive=True), sp.Symbol("b", positive=True)
    >>> x = sp.IndexedBase("x", shape=(2, n))
    >>> each = wb.Energy(
    ...     sp.Sum(wb.pseudo_huber((x[k, i] - t)**2, sigma), i), variables=[t], weights=[sigma], data=[x], over=[k])
    >>> mean = sp.Symbol("mean", real=True)
    >>> output = wb.Output({mean: (K[0] + b*K[1])/(1 + b)}, minima=wb.compile(each), weights=[b])
    >>> solution = wb.minimise(
    ...     output, {"sigma": 1.0, "b": 3.0}, {"x": [[0.0, 1.0, 2.0], [4.0, 5.0, 6.0]]}, start={"t": 0.0})
    >>> print(f"{solution.outputs['mean']:.6f}")
    4.000000
    >>> gradient = wb.implicit_gradient(output, solution, {"mean": 1.0})
    >>> print(f"{gradient['b']:.6f}")
    0.250000
    """

    def __init__(
        self,
        expressions: Mapping[Any, Any],
        *,
        minima: Kernel | Sequence[Kernel],
        weights: Sequence[Any] = (),
        data: Sequence[Any] = (),
        where: Mapping[Any, Any] | None = None,
        name: str = "output",
    ) -> None:
        self.name = name
        self.kernels = _kernels(minima, name)
        variables = _variables(self.kernels, name)
        entries = _entries(expressions, name)
        taken = {*variables, *(str(s) for k in self.kernels for s in (*k.energy.weights, *k.energy.data))}
        for symbol in (*weights, *data):
            if str(symbol) in variables:
                raise DeclarationError(
                    f"output {name!r}: {symbol} is a variable of a kernel; leave it out of the lists"
                )
        for output in entries:
            if output in taken or output in {str(s) for s in (*weights, *data)}:
                raise DeclarationError(f"output {name!r}: {output} is the name of a variable, weight or datum already")
        self.names = tuple(entries)
        self.ranks = {output: len(definitions[0][1]) for output, definitions in entries.items()}
        cotangents, paired = _paired(entries, name)
        read = _read(variables, [paired, *map(sp.sympify, (where or {}).values())], name)
        self._cotangents = tuple(_COTANGENT.format(output) for output in self.names)
        self._weights = tuple(str(weight) for weight in weights)
        self.energy = Energy(
            paired,
            variables=read,
            weights=weights,
            data=[*cotangents, *data],
            where=where or {},
            name=name,
        )
        self._values = Energy(
            paired,
            variables=cotangents,
            weights=weights,
            data=[*read, *data],
            where=where or {},
            name=name,
        )
        self._read = tuple(str(symbol) for symbol in read)
        self._data = tuple(str(symbol) for symbol in data)
        self.weights = _union([*(w for k in self.kernels for w in k.energy.weights), *weights], name, "weight")
        self.data = _union([*(d for k in self.kernels for d in k.energy.data), *data], name, "datum")

    def __repr__(self) -> str:
        return f"Output({', '.join(self.names)} of {', '.join(repr(k.name) for k in self.kernels)}, name={self.name!r})"

    @cached_property
    def pull_kernel(self) -> Kernel:
        """v . P with the minima as its variables."""
        return compile_energy(self.energy, backend=self._backend)

    @cached_property
    def value_kernel(self) -> Kernel:
        """v . P with v as its variable."""
        return compile_energy(self._values, backend=self._backend)

    @property
    def _backend(self) -> str:
        return self.kernels[0].backend

    # ------------------------------------------------------------------------------------------ values

    def value(self, variables: Arrays, w: Arrays | None = None, x: Arrays | None = None) -> dict[str, Any]:
        """The outputs by name, at any variables; arrays with one axis more than declared are batched."""
        given = {**_picked(variables, self._read), **_picked(x, self._data)}
        kernel = self.value_kernel
        inputs = kernel.bind(_picked(w, self._weights), given)
        count = inputs.batch
        start = np.zeros((1, inputs.m))
        _, rows = run(kernel.entry("gradient"), inputs, start, count=1 if count is None else count)
        unpacked = kernel.variables.unpack(rows[0] if count is None else rows, inputs.sizes)
        return {name: unpacked[c] for name, c in zip(self.names, self._cotangents, strict=True)}

    def pull(
        self, cotangents: Arrays, variables: Arrays, w: Arrays | None = None, x: Arrays | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """v . dP/dy for the variables and v . dP/dw for the weights that the expressions read, for each instance.

        Parameters
        ----------
        cotangents : dict of array_like
            v, shaped as the outputs; those that are left out are 0.
        """
        point, own = _picked(variables, self._read), _picked(w, self._weights)
        values = self.value(variables, w, x) if len(cotangents) < len(self.names) else {}
        given = dict(_picked(x, self._data))
        for name, cotangent in zip(self.names, self._cotangents, strict=True):
            given[cotangent] = cotangents[name] if name in cotangents else np.zeros(np.shape(values[name]))
        kernel = self.pull_kernel
        sizes = kernel.bind(own, given, point).sizes
        if not own:
            return kernel.variables.unpack(kernel.gradient(point, own, given), sizes), {}
        by_variables, by_weights = kernel.gradients(point, own, given)
        return kernel.variables.unpack(by_variables, sizes), kernel.weights.unpack(by_weights, sizes)

    def shape_of(self, name: str) -> tuple[Any, ...]:
        """The declared shape of an output."""
        cotangent = self._cotangents[self.names.index(name)]
        return tuple(self._values.shapes[cotangent])

    def result_shapes(self, variables: Arrays, w: Arrays, x: Arrays) -> dict[str, tuple[int, ...]]:
        """The shape of each output for arrays without a batch, of which only shapes matter."""
        given = {**_picked(variables, self._read), **_picked(x, self._data)}
        inputs = self.value_kernel.bind(_picked(w, self._weights), given)
        each = self.value_kernel.variables.unpack(np.zeros(inputs.m), inputs.sizes)
        return {name: np.shape(each[c]) for name, c in zip(self.names, self._cotangents, strict=True)}

    def pull_to_data(
        self, cotangents: Arrays, variables: Arrays, w: Arrays | None = None, x: Arrays | None = None
    ) -> dict[str, Any]:
        """v . dP/dx for the data that the expressions read, summed over the batch for those that are shared.

        Parameters
        ----------
        cotangents : dict of array_like
            v, shaped as the outputs; those that are left out are 0, other names are not looked at.
        """
        kernel, values = self.value_kernel, self.value(variables, w, x)
        zeros, v = {}, {}
        for name, cotangent in zip(self.names, self._cotangents, strict=True):
            zeros[cotangent] = np.zeros(np.shape(values[name]))
            v[cotangent] = np.asarray(cotangents.get(name, zeros[cotangent]), dtype=np.float64)
        given = {**_picked(variables, self._read), **_picked(x, self._data)}
        pulled = kernel.data_adjoint(kernel.variables.pack(v), zeros, _picked(w, self._weights), given)
        return {name: slope for name, slope in pulled.items() if name in self._data}

    # ------------------------------------------------------------------------------------------ minimising

    def minimise(
        self,
        w: Arrays | None = None,
        x: Arrays | None = None,
        *,
        start: Any = None,
        candidates: Arrays | None = None,
        bounds: Mapping[str, Any] | None = None,
        eliminate: Sequence[Any] | None = None,
        **options: Any,
    ) -> OutputSolution:
        """Minimise every kernel, then evaluate the outputs; arguments as for `wb.minimise`.

        `start`, `candidates`, `bounds` and `eliminate` name the variables of all kernels; a kernel that has none of its
        variables in the first two starts from its own candidates.
        """
        start = start.variables if isinstance(start, (Solution, OutputSolution)) else start
        w, x = w or {}, x or {}
        for role, given, known in (("weight", w, self.weights), ("data", x, self.data)):
            for name in given:
                if name not in known:
                    raise NameMissingError(
                        f"output {self.name!r}: unknown {role} {name!r}{nearest(str(name), known)}; "
                        f"it has {', '.join(known) or 'none'}"
                    )
        solutions = []
        for kernel in self.kernels:
            names = kernel.variables.names
            solutions.append(
                minimise(
                    kernel,
                    _picked(w, kernel.weights.names),
                    _picked(x, [symbol.name for symbol in kernel.declaration.data]),
                    start=_picked(start, names) or None,
                    candidates=_picked(candidates, names) or None,
                    bounds=_picked(bounds, names) or None,
                    eliminate=[z for z in eliminate or () if str(z) in names] or None,
                    **options,
                )
            )
        return OutputSolution(self, tuple(solutions), dict(w), dict(x))


@dataclass(frozen=True, eq=False, repr=False)
class OutputSolution:
    """The minima of the kernels of an output, and the outputs there.

    Attributes
    ----------
    output : Output
    solutions : tuple of Solution
        Of each kernel.
    w, x : dict
        Weights and data as they were given.
    outputs : dict
        By name, (B, *shape), or (*shape) without a batch.
    minima : dict
        The variables of all kernels, by name.
    variables : dict
        Both.
    """

    output: Output
    solutions: tuple[Solution, ...]
    w: dict[str, Any]
    x: dict[str, Any]

    @property
    def name(self) -> str:
        """The output's name, for messages."""
        return self.output.name

    @property
    def energy(self) -> Any:
        """The lowest energies, of an output of one kernel."""
        (solution,) = self.solutions
        return solution.energy

    @cached_property
    def minima(self) -> dict[str, Any]:
        return {name: array for solution in self.solutions for name, array in solution.variables.items()}

    @cached_property
    def outputs(self) -> dict[str, Any]:
        return self.output.value(self.minima, self.w, self.x)

    @cached_property
    def variables(self) -> dict[str, Any]:
        """Minima and outputs; where there is a batch, all have its axis."""
        found, batch = {**self.minima, **self.outputs}, self.batch
        if batch is None:
            return found
        shared = {n: array for s in self.solutions if not s.batched for n, array in s.variables.items()}
        shared |= {n: array for n, array in self.outputs.items() if np.ndim(array) == self.output.ranks[n]}
        for name, array in shared.items():
            found[name] = np.broadcast_to(array, (batch, *np.shape(array)))
        return found

    @property
    def batch(self) -> int | None:
        """How many instances there are; None for one without a batch axis."""
        counts = [instances_of(solution) for solution in self.solutions if solution.batched]
        counts += [len(self.outputs[n]) for n, rank in self.output.ranks.items() if np.ndim(self.outputs[n]) > rank]
        return max(counts) if counts else None

    @property
    def batched(self) -> bool:
        return self.batch is not None

    @property
    def status(self) -> Any:
        """The last in the order of `Status` of all minimisations of an instance: (B,) members, or one."""
        worst = np.zeros(self.batch or 1, np.int64)
        for solution in self.solutions:
            rows = solution.integers[:, 2].reshape(-1, max(1, solution.inputs.members))
            worst = np.maximum(worst, rows.max(axis=1))
        if not self.batched:
            return Status(int(worst[0]))
        members = np.empty(len(worst), object)
        members[:] = [Status(int(code)) for code in worst]
        return members

    @property
    def converged(self) -> Any:
        """Whether all minimisations of an instance are CONVERGED, (B,) bool."""
        return self.status == Status.CONVERGED

    @property
    def failed(self) -> NDArray[np.int64]:
        """The instances of which a minimisation is neither CONVERGED nor STALLED."""
        return np.flatnonzero(~np.isin(np.atleast_1d(self.status), [int(status) for status in USABLE]))

    def raise_if_failed(self, *statuses: Status) -> OutputSolution:
        """The solution itself, unless a minimisation failed; see `Solution.raise_if_failed`."""
        for solution in self.solutions:
            solution.raise_if_failed(*statuses)
        return self

    def __repr__(self) -> str:
        return f"OutputSolution({', '.join(self.output.names)} of {'; '.join(map(repr, self.solutions))})"


def instances_of(solution: Solution) -> int:
    """How many instances a solution has: members of a family are not counted."""
    members: int = max(1, solution.inputs.members)
    return len(solution.y) // members


# ---------------------------------------------------------------------------------------------- declaring


def _kernels(minima: Any, name: str) -> tuple[Kernel, ...]:
    kernels = tuple(minima) if isinstance(minima, (list, tuple)) else (minima,)
    for kernel in kernels:
        if not isinstance(kernel, Kernel):
            raise InputTypeError(
                f"output {name!r}: minima must be kernels from wb.compile (got {kernel!r} of type "
                f"{type(kernel).__name__})"
            )
    if not kernels:
        raise InputError(f"output {name!r}: minima is empty; give the kernels whose minima it reads")
    return kernels


def _variables(kernels: Sequence[Kernel], name: str) -> dict[str, tuple[Any, ...]]:
    """The declared shape of every variable, of families with their axes in front."""
    found: dict[str, tuple[Any, ...]] = {}
    for kernel in kernels:
        energy = kernel.energy
        for variable in energy.variables:
            if str(variable) in found:
                raise DeclarationError(
                    f"output {name!r}: two kernels have a variable {variable}; give them different names"
                )
            found[str(variable)] = (*energy.family, *energy.shapes[str(variable)])
    return found


def _entries(expressions: Any, name: str) -> dict[str, list[tuple[Any, tuple[Any, ...], Any]]]:
    """(symbol, subscripts, expression) of each definition, by the name of the output."""
    if not isinstance(expressions, Mapping) or not expressions:
        raise InputTypeError(f"output {name!r}: give a dict such as {{P[j, p]: expression}} (got {expressions!r})")
    found: dict[str, list[tuple[Any, tuple[Any, ...], Any]]] = {}
    for key, expression in expressions.items():
        if isinstance(key, sp.Indexed):
            symbol, subscripts = key.base, key.indices
        elif isinstance(key, sp.Symbol):
            symbol, subscripts = key, ()
        else:
            raise DeclarationError(
                f"output {name!r}: {key!r} is no symbol and no entry of an IndexedBase; give P[j, p] or s"
            )
        found.setdefault(str(symbol), []).append((symbol, tuple(subscripts), sp.sympify(expression)))
    for output, entries in found.items():
        _check_whole(output, entries, name)
    return found


def _check_whole(output: str, entries: Sequence[tuple[Any, tuple[Any, ...], Any]], name: str) -> None:
    """Refuse an output that is not defined exactly once everywhere."""
    symbol = entries[0][0]
    shape = () if isinstance(symbol, sp.Symbol) else symbol.shape
    if shape is None:
        raise DeclarationError(
            f"output {name!r}: {output} has no shape; declare sp.IndexedBase({output!r}, shape=(n,))"
        )
    for _, subscripts, _ in entries:
        indices = [s for s in subscripts if not s.is_Integer]
        if len(subscripts) != len(shape) or len(set(indices)) != len(indices):
            raise DeclarationError(f"output {name!r}: {output}{list(subscripts)} does not fit its shape {tuple(shape)}")
        for s, extent in zip(subscripts, shape, strict=True):
            if not s.is_Integer and not (
                isinstance(s, sp.Idx) and s.lower == 0 and sp.simplify(s.upper + 1 - extent) == 0
            ):
                raise DeclarationError(
                    f"output {name!r}: {output}: {s} must be an sp.Idx over the whole axis, 0 to {extent} - 1, or an "
                    "integer"
                )
    places = [tuple(int(s) if s.is_Integer else -1 for s in subscripts) for _, subscripts, _ in entries]
    whole = [range(-1, 0) if places[0][axis] < 0 else range(_number(extent)) for axis, extent in enumerate(shape)]
    if sorted(places) != sorted(itertools.product(*whole)):
        raise DeclarationError(
            f"output {name!r}: {output} of shape {tuple(shape)} must be defined exactly once everywhere, by whole axes "
            f"or by all entries of an axis"
        )


def _number(extent: Any) -> int:
    """An extent as a number, 0 where it is none."""
    return int(extent) if sp.sympify(extent).is_Integer else 0


def _paired(entries: Mapping[str, list[tuple[Any, tuple[Any, ...], Any]]], name: str) -> tuple[list[Any], Any]:
    """The cotangents v as symbols, and v . P."""
    cotangents, terms = [], []
    for output, definitions in entries.items():
        symbol = definitions[0][0]
        if isinstance(symbol, sp.Symbol):
            v = sp.Symbol(_COTANGENT.format(output), real=True)
            terms.append(v * definitions[0][2])
        else:
            v = sp.IndexedBase(_COTANGENT.format(output), shape=symbol.shape)
            for _, subscripts, expression in definitions:
                term = v[subscripts] * expression
                loops = [s for s in subscripts if isinstance(s, sp.Idx)]
                terms.append(sp.Sum(term, *loops) if loops else term)
        cotangents.append(v)
    return cotangents, sp.Add(*terms)


def _read(variables: Mapping[str, tuple[Any, ...]], formulas: Sequence[Any], name: str) -> list[Any]:
    """The variables of kernels that formulas read, as symbols there."""
    found: dict[str, Any] = {}
    for formula in formulas:
        for atom in sorted(formula.atoms(sp.Symbol, sp.Indexed), key=str):
            base = atom.base if isinstance(atom, sp.Indexed) else atom
            if str(base) in variables and not isinstance(found.get(str(base)), sp.IndexedBase):
                found[str(base)] = base
    for output, symbol in found.items():
        rank, wanted = 0 if isinstance(symbol, sp.Symbol) else len(symbol.shape or ()), variables[output]
        if rank != len(wanted):
            raise DeclarationError(
                f"output {name!r} reads {output} with {rank} axes; the minima have {len(wanted)}, {tuple(wanted)} with "
                f"those of a family in front: declare sp.IndexedBase({output!r}, shape={tuple(wanted)})"
            )
    if not found:
        raise DeclarationError(f"output {name!r} reads no variable of its kernels; they have {', '.join(variables)}")
    return [found[variable] for variable in variables if variable in found]


def _union(symbols: Sequence[Any], name: str, role: str) -> dict[str, Any]:
    """Symbols by name, each once; two of one name must have the same shape and assumptions."""
    found: dict[str, Any] = {}
    for symbol in symbols:
        other = found.setdefault(str(symbol), symbol)
        if _form(other) != _form(symbol):
            raise DeclarationError(f"output {name!r}: {role} {symbol} is declared in two ways")
    return found


def _form(symbol: Any) -> Any:
    shape = getattr(symbol, "shape", None)
    return len(shape or ()), getattr(symbol, "is_positive", None)


def _picked(values: Any, names: Sequence[str]) -> dict[str, Any]:
    return {} if not values else {name: values[name] for name in names if name in values}
