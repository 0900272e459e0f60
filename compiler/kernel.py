"""Kernel: an energy that can be evaluated, with all its derivatives, for one instance or a batch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..energies.energy import Energy
from ..energies.errors import InputError, InputTypeError, UnsupportedError
from ..energies.held import holds
from ..energies.user_function import is_hashable
from .calls.accesses import accesses_of, extrema_of
from .calls.arrays import convert, extra_axes, spread_rows
from .calls.binding import Binder, Inputs
from .calls.compressed import run_compressed
from .calls.declaration import COMMON, Access, Declaration, Symbol
from .calls.evaluate import BLOCK, run, run_accumulated, run_one, sums_of_rows
from .calls.layout import Layout
from .calls.pattern import MOST_ENTRIES, MOST_UNKNOWNS, Pattern, Patterns, entries, find_couplings
from .machine_code.cache import digest, read_folder, write_folder
from .machine_code.entry import Entry, compiled_entry, compiler_sources, reference_entry
from .passes.landings import BY_DATA, Structure
from .program.expression import Affine
from .program.program import Program
from .program.stored import from_text, to_text

if TYPE_CHECKING:
    from .explain import Explanation

LARGEST_DENSE = 2**32
"""Bytes of a dense Hessian above which it is refused."""

Floats = NDArray[np.float64]
Values = Mapping[str, Any]


def compile(energy: Energy, *, backend: str = "numba") -> Kernel:
    """Make an energy callable.

    Machine code is made when a kind of kernel is first called, and kept on disk.

    Parameters
    ----------
    energy : Energy
    backend : {"numba", "reference"}
        "reference" interprets the program in NumPy: the same answers without compiling, slowly.

    Raises
    ------
    UnsupportedError
        If the energy uses a function for which there is no kernel.

    Warns
    -----
    UnboundedDerivativeWarning
        If the derivative of a root, a fractional power, asin, acos or acosh is infinite at a point that can be reached.

    Examples
    --------
    >>> import sympy as sp
    >>> t, a = sp.Symbol("t", real=True), sp.Symbol("a", positive=True)
    >>> kernel = compile(Energy(a*(t - 1)**2, variables=[t], weights=[a]), backend="reference")
    >>> kernel.value({"t": 3.0}, {"a": 2.0})
    8.0
    >>> kernel.gradient({"t": [3.0, 1.0]}, {"a": 2.0})
    array([[8.],
           [0.]])
    """
    if not isinstance(energy, Energy):
        raise InputTypeError(
            f"compile takes a wb.Energy; got {type(energy).__name__}; declare it with "
            "wb.Energy(expression, variables=..., weights=..., data=...)"
        )
    if backend not in ("numba", "reference"):
        raise InputError(f"energy {energy.name!r}: unknown backend {backend!r}; one of 'numba', 'reference'")
    from .passes.intervals import (
        warn_of_unbounded_derivatives,  # here, as all passes: what is in the cache does not need them
    )

    warn_of_unbounded_derivatives(energy, stacklevel=2)
    return Kernel(energy, backend)


def supported_functions() -> list[str]:
    """Names of the SymPy functions that an energy may use, sorted.

    >>> "exp" in supported_functions()
    True
    """
    from .passes.lower import supported_functions as supported

    return supported()


class Kernel:
    """A compiled energy; made by `compile`.

    y, w and x are dicts of name to array: variables, weights and data. Arrays of the declared shape are shared by all
    instances, arrays with one leading axis more are batched (B). Results are unbatched if nothing is batched.

    Of a family (`over=`), y may also have the axes of the family in front of the declared ones, after the batch axis:
    (F..., ...) or (B, F..., ...), where 1 stands for all; without them all members share it. So have `v` and every
    result but `cross_adjoint` and `data_adjoint`, which are sums over the members.

    Attributes
    ----------
    energy : Energy
    variables, weights, data : Layout
        Names and shapes of the arrays, and `pack` and `unpack` between dicts and flat arrays.
    """

    def __init__(self, energy: Energy, backend: str = "numba") -> None:
        self.energy = energy
        self.backend = backend
        self.declaration = _declaration(energy)
        self._binder = Binder(self.declaration)
        self._entries: dict[str, Entry] = {}
        self._structures: dict[str, Structure] = {}
        self._patterns: dict[str, Patterns] = {}
        declared, real = self.declaration, [s for s in self.declaration.data if not s.integer]
        self.variables = Layout(declared.variables, declared, "variable", energy.shapes)
        self.weights = Layout(declared.weights, declared, "weight", energy.shapes)
        self.data = Layout(real, declared, "data", energy.shapes)

    def __repr__(self) -> str:
        return f"Kernel({self.energy!r}, backend={self.backend!r})"

    def __reduce__(self) -> Any:
        return Kernel, (self.energy, self.backend)

    @property
    def name(self) -> str:
        """The energy's name, as messages show it."""
        return self.energy.name

    # ------------------------------------------------------------------------------ for drivers

    def entry(self, kind: str) -> Entry:
        """The machine code of one kind of kernel (the keys of `derive.KINDS`), made on first use."""
        found = self._entries.get(kind)
        if found is None:
            make = compiled_entry if self.backend == "numba" else reference_entry
            found = self._entries[kind] = make(self.energy, kind)
        return found

    def bind(self, w: Values | None = None, x: Values | None = None, y: Values | None = None, extra: int = 0) -> Inputs:
        """Check and convert weights and data once, for any number of calls; see `binding.Binder.bind`."""
        return self._binder.bind(w, x, y, extra)

    def bind_variables(self, y: Values | None, inputs: Inputs) -> tuple[Floats, bool]:
        """Variables as (B or 1, m), and whether they are batched."""
        return self._binder.packed("variable", y, inputs)

    def lead(self, inputs: Inputs, count: int | None) -> tuple[int, ...]:
        """The axes of results in front of their own: the batch axis, if there is one, and those of a family."""
        family: tuple[int, ...] = inputs.family
        return family if count is None else (count, *family)

    def candidate_count(self, inputs: Inputs) -> int:
        """How many candidates the energy declares, for the extents of these inputs."""
        index = self.energy.candidate_index
        if index is None:
            return 1 if self.energy.candidates else 0
        names = dict(zip(self.energy.extents, self.declaration.extents, strict=True))
        values = {symbol: inputs.sizes[generated] for symbol, generated in names.items()}
        return max(0, int(index.upper.subs(values)) - int(index.lower.subs(values)) + 1)

    # ------------------------------------------------------------------------------ evaluation

    def _arguments(self, y: Values, w: Values | None, x: Values | None) -> tuple[Inputs, Floats, int | None]:
        inputs = self._binder.bind(w, x, y if type(y) is dict or isinstance(y, Mapping) else None)
        packed, batched = self._binder.packed("variable", y, inputs)
        count = inputs.batch
        if batched and (count is None or count == 1):
            count = len(packed) // inputs.plan.members if inputs.plan.family else len(packed)
        return inputs, packed, count

    def _each(self, rows: Any, inputs: Inputs, count: int | None) -> Any:
        """One row, or an array or nested lists of rows along the axes of the batch and the family."""
        if not inputs.plan.family:
            return rows[0] if count is None else rows
        lead = self.lead(inputs, count)
        if isinstance(rows, list):
            return _nested(rows, lead)
        return rows.reshape(*lead, *rows.shape[1:])

    def value(self, y: Values, w: Values | None = None, x: Values | None = None) -> Any:
        """The energy: float, or (B,)."""
        inputs, packed, count = self._arguments(y, w, x)
        values, _ = run(self.entry("value"), inputs, packed, count=_rows(inputs, count))
        if inputs.plan.family:
            return self._each(values, inputs, count)
        return float(values[0]) if count is None else values

    def gradient(self, y: Values, w: Values | None = None, x: Values | None = None) -> Floats:
        """d energy / d variables: (m,) or (B, m)."""
        return self._out("gradient", y, w, x, ("m",))

    def weight_gradient(self, y: Values, w: Values | None = None, x: Values | None = None) -> Floats:
        """d energy / d weights with the variables held: (p,) or (B, p), all weights flattened in declared order.

        At a minimum it is the derivative of the lowest energy by the weights (the envelope theorem), of each instance
        also where the weights are shared.
        """
        return self._out("weight_gradient", y, w, x, ("p",))

    def gradients(self, y: Values, w: Values | None = None, x: Values | None = None) -> tuple[Floats, Floats]:
        """`gradient` and `weight_gradient` in one pass."""
        inputs, packed, count = self._arguments(y, w, x)
        _, out = run(self.entry("gradients"), inputs, packed, count=_rows(inputs, count))
        by_variables, by_weights = out[:, : inputs.m], out[:, inputs.m :]
        return self._each(by_variables, inputs, count), self._each(by_weights, inputs, count)

    def hessian(self, y: Values, w: Values | None = None, x: Values | None = None) -> Any:
        """Second derivatives in the variables, symmetric to the bit.

        (m, m) or (B, m, m) where `structure` is "dense". Otherwise a scipy CSR array, or a list of B: indices sorted,
        each entry once; they share `indices` and `indptr`, which are read-only, where they share index data.

        Raises
        ------
        InputError
            If a dense Hessian would take more than 4 GiB; it names `hvp` instead.

        Examples
        --------
        >>> import sympy as sp
        >>> n = sp.Symbol("n", integer=True, positive=True)
        >>> i, y, a = sp.Idx("i", (0, n - 2)), sp.IndexedBase("y", shape=(n,)), sp.Symbol("a", positive=True)
        >>> kernel = compile(Energy(a*sp.Sum((y[i + 1] - y[i])**2, i), variables=[y], weights=[a]), backend="reference")
        >>> kernel.structure
        'banded'
        >>> hessian = kernel.hessian({"y": [0.0, 1.0, 3.0]}, {"a": 0.5})
        >>> hessian.nnz
        7
        >>> hessian.toarray()
        array([[ 1., -1.,  0.],
               [-1.,  2., -1.],
               [ 0., -1.,  1.]])
        """
        if self.structure == "dense":
            return self.dense_hessian(y, w, x)
        inputs, packed, count = self._arguments(y, w, x)
        _, _, matrices = self._compressed("sparse_hessian", "hessian", inputs, packed, _rows(inputs, count))
        return self._each(matrices, inputs, count)

    def dense_hessian(self, y: Values, w: Values | None = None, x: Values | None = None) -> Floats:
        """The Hessian as (m, m) or (B, m, m), whatever its structure."""
        inputs, packed, count = self._arguments(y, w, x)
        self.refuse_too_large(inputs, _rows(inputs, count))
        _, out = run(self.entry("hessian"), inputs, packed, count=_rows(inputs, count))
        result: Floats = self._each(out.reshape((len(out), inputs.m, inputs.m)), inputs, count)
        return result

    def cross(self, y: Values, w: Values | None = None, x: Values | None = None) -> Any:
        """d gradient / d weights: (m, p) or (B, m, p); scipy CSR arrays of that shape where weights are local.

        Sparse are derivatives in which an unknown meets a bounded number of weights while the weights are many (a
        weight for each pixel). `cross_adjoint` never builds them.
        """
        if self._structure("cross").support is None:
            return self._out("cross", y, w, x, ("m", "p"))
        inputs, packed, count = self._arguments(y, w, x)
        _, _, matrices = self._compressed("sparse_cross", "cross", inputs, packed, _rows(inputs, count))
        return self._each(matrices, inputs, count)

    def value_gradient_hessian(
        self, y: Values, w: Values | None = None, x: Values | None = None
    ) -> tuple[Any, Floats, Any]:
        """Energy, gradient and Hessian in one pass; shapes and kinds as of `value`, `gradient` and `hessian`."""
        inputs, packed, count = self._arguments(y, w, x)
        m, rows = inputs.m, _rows(inputs, count)
        hessian: Any
        if self.structure == "dense":
            self.refuse_too_large(inputs, rows)
            values, out = run(self.entry("value_gradient_hessian"), inputs, packed, count=rows)
            gradient, hessian = out[:, :m], out[:, m:].reshape(-1, m, m)
        else:
            kind = "value_gradient_sparse_hessian"
            values, gradient, hessian = self._compressed(kind, "hessian", inputs, packed, rows, m)
        if inputs.plan.family:
            value, gradient, hessian = (self._each(part, inputs, count) for part in (values, gradient, hessian))
            return value, gradient, hessian
        if count is None:
            return float(values[0]), gradient[0], hessian[0]
        return values, gradient, hessian

    def hvp(self, v: Any, y: Values, w: Values | None = None, x: Values | None = None) -> Floats:
        """The Hessian times v, without the Hessian: (m,) or (B, m) for v of (m,) or (B, m)."""
        inputs, packed, direction, count = self._directed(v, y, w, x)
        _, out = run(self.entry("hvp"), inputs, packed, direction, count=_rows(inputs, count))
        result: Floats = self._each(out, inputs, count)
        return result

    def cross_adjoint(self, v: Any, y: Values, w: Values | None = None, x: Values | None = None) -> dict[str, Any]:
        """d/dw (v . gradient), a dict shaped like w: summed over the batch for shared weights, else per instance."""
        return self._adjoint("cross_adjoint", v, y, w, x, self.weights, self.declaration.weights, 0)

    def data_adjoint(self, v: Any, y: Values, w: Values | None = None, x: Values | None = None) -> dict[str, Any]:
        """d/dx (v . gradient), a dict shaped like x without index data: summed over the batch for shared arrays."""
        return self._adjoint(
            "data_adjoint", v, y, w, x, self.data, self.declaration.data, len(self.declaration.weights)
        )

    # ------------------------------------------------------------------------------ sparse derivatives

    @property
    def structure(self) -> str:
        """What the Hessian is, for any extents: "dense", "diagonal", "block-diagonal", "banded" or "sparse".

        Found from the formula alone (docs/sparse.md); all but "dense" come as scipy CSR arrays.
        """
        return self._structure("hessian").name

    @property
    def quadratic(self) -> bool:
        """Whether the energy is a polynomial of degree 2 or less in its variables: its Hessian does not depend on them.

        Found from the formula alone (compiler/passes/degree.py), never wrongly True. `minimise` solves such energies
        in one step (docs/minimisers.md).
        """
        return self.declaration.quadratic

    @cached_property
    def holds(self) -> bool:
        """Whether the energy has parts that are held from step to step (`wb.held`)."""
        return holds(self.energy)

    def dense_patterns(self, inputs: Inputs, instances: range) -> list[tuple[Pattern | None, range]]:
        """The patterns of the Hessian of some instances, also where its structure is "dense" (couplings.py).

        None where the formula does not tell, or where there would be very many entries.
        """
        support = self._structure(BY_DATA).support
        if support is None or entries(support, inputs.sizes) > MOST_ENTRIES:
            return [(None, instances)]
        return list(self.patterns(BY_DATA, inputs, instances))

    def couplings(self, inputs: Inputs) -> NDArray[np.bool_] | None:
        """Which entries the Hessian can have for bound inputs, (m, m), whatever index data say (couplings.py).

        None where the formula does not tell, or where there are many unknowns.
        """
        support = self._structure("hessian").couplings
        if support is None or inputs.m > MOST_UNKNOWNS or entries(support, inputs.sizes) > MOST_ENTRIES:
            return None
        return find_couplings(support, inputs.sizes)

    def _structure(self, derivative: str) -> Structure:
        found = self._structures.get(derivative)
        if found is None:
            found = self._structures[derivative] = _structure(self.energy, derivative)
        return found

    def place_of(self, name: str) -> int:
        """Where among the arrays of bound inputs a weight or datum is, by generated name."""
        return int(name[1:]) + (len(self.declaration.weights) if name[0] == "x" else 0)

    def pattern(self, derivative: str, inputs: Inputs, instance: int = 0) -> Pattern:
        """The entries of a sparse "hessian", "reweighted" or "cross" for bound inputs, worked out or remembered."""
        patterns = self._patterns.get(derivative)
        if patterns is None:
            support = self._structure(derivative).support
            assert support is not None
            patterns = self._patterns[derivative] = Patterns(support)
        integers = {}
        for name in patterns.support.gathered:
            row = self.place_of(name)
            array = inputs.arrays[row]
            own = inputs.instance(instance) if len(array) > 1 else 0
            integers[name] = array[own] if inputs.batched[row] else array
        return patterns.find(inputs.sizes, integers)

    def patterns(self, derivative: str, inputs: Inputs, instances: range) -> list[tuple[Pattern, range]]:
        """The patterns of some instances: one for all, unless index data have a batch axis."""
        if not instances:
            return []
        pattern = self.pattern(derivative, inputs, instances.start)
        rows = [self.place_of(name) for name in self._patterns[derivative].support.gathered]
        if not any(inputs.batched[row] and len(inputs.arrays[row]) > 1 for row in rows):
            return [(pattern, instances)]
        whose = [inputs.instance(k) for k in instances]
        starts = [k for k, own, last in zip(instances, whose, [-1, *whose], strict=False) if own != last]
        ends = [*starts[1:], instances.stop]
        return [(self.pattern(derivative, inputs, k), range(k, end)) for k, end in zip(starts, ends, strict=True)]

    def _compressed(
        self, kind: str, derivative: str, inputs: Inputs, packed: Floats, count: int, leading: int = 0
    ) -> tuple[Floats, Floats, list[Any]]:
        """Values, what an entry writes before the matrix, and CSR arrays, of `count` instances."""
        patterns = self.patterns(derivative, inputs, range(count))
        found = run_compressed(self.entry(kind), inputs, packed, count, leading, patterns)
        rows = zip(patterns, found.data, strict=True)
        return found.values, found.gradients, [pattern.matrix(row) for (pattern, _), data in rows for row in data]

    def value_at(self, inputs: Inputs, y: Floats, instance: int) -> float:
        """The energy of one instance of bound inputs at packed variables (m,)."""
        return run_one(self.entry("value"), inputs, y, instance)[0]

    def hessian_slots(self, inputs: Inputs, y: Floats, instance: int) -> tuple[Pattern, Floats]:
        """The numbers of the sparse Hessian of one instance at packed variables (m,), and where they go."""
        _, slots = run_one(self.entry("sparse_hessian"), inputs, y, instance)
        return self.pattern("hessian", inputs, instance), slots

    def refuse_too_large(self, inputs: Inputs, count: int = 1) -> None:
        """Raise InputError if dense Hessians of `count` instances take more than 4 GiB."""
        size = 8 * count * inputs.m**2
        if size > LARGEST_DENSE:
            couples = "its energy couples all unknowns" if self.structure == "dense" else "ask for `hessian`"
            raise InputError(
                f"energy {self.name!r}: a dense Hessian of {inputs.m} unknowns and {count} instance(s) takes "
                f"{size / 2**30:.3g} GiB ({couples}); kernel.hvp(v, ...) gives its products with vectors without it, "
                'and minimise(..., method="newton-cg") needs no more'
            )

    def _out(self, kind: str, y: Values, w: Values | None, x: Values | None, shape: tuple[str, ...]) -> Floats:
        inputs, packed, count = self._arguments(y, w, x)
        _, out = run(self.entry(kind), inputs, packed, count=_rows(inputs, count))
        result: Floats = self._each(out.reshape((len(out), *(getattr(inputs, s) for s in shape))), inputs, count)
        return result

    def _directed(
        self, v: Any, y: Values, w: Values | None, x: Values | None
    ) -> tuple[Inputs, Floats, Floats, int | None]:
        inputs, packed, count = self._arguments(y, w, x)
        direction = convert(self.declaration, "direction", Symbol("v", (), "(m,)"), v)
        if inputs.family:
            return self._directed_family(inputs, packed, direction, count)
        if direction.ndim not in (1, 2) or direction.shape[-1] != inputs.m:
            raise InputError(
                f"energy {self.name!r}: the direction v has shape {direction.shape}; expected "
                f"({inputs.m},) or (B, {inputs.m}), all variables flattened in declared order"
            )
        if direction.ndim == 2:
            if count is not None and len(direction) not in (1, count) and count != 1:
                raise InputError(
                    f"energy {self.name!r}: batch sizes disagree: v has {len(direction)}, the rest {count}"
                )
            count = len(direction) if count is None or count == 1 else count
        return inputs, packed, direction.reshape(-1, inputs.m), count

    def _directed_family(
        self, inputs: Inputs, packed: Floats, direction: Floats, count: int | None
    ) -> tuple[Inputs, Floats, Floats, int | None]:
        """The same for a family: v is (m,), (F..., m) or (B, F..., m)."""
        symbol = Symbol("v", (Affine((), inputs.m),), f"({inputs.m},)")
        extra = extra_axes(self.declaration, symbol, direction.shape, inputs.family) if direction.ndim else 0
        if direction.shape[extra:] != (inputs.m,):
            raise InputError(
                f"energy {self.name!r}: the direction v has shape {direction.shape}; expected ({inputs.m},), the same "
                f"with the axes {inputs.family} of the family in front, or with a batch axis before these"
            )
        if extra > len(inputs.family):
            if count not in (None, 1) and len(direction) not in (1, count):
                raise InputError(
                    f"energy {self.name!r}: batch sizes disagree: v has {len(direction)}, the rest {count}"
                )
            count = len(direction) if count is None or count == 1 else count
        lead = self.lead(inputs, count)
        if len(packed) not in (1, math.prod(lead)):
            packed = np.ascontiguousarray(np.broadcast_to(packed, (*lead[:1], *packed.shape)).reshape(-1, inputs.m))
        return inputs, packed, spread_rows([direction], [extra], lead) if extra else direction[None], count

    def _adjoint(
        self,
        kind: str,
        v: Any,
        y: Values,
        w: Values | None,
        x: Values | None,
        layout: Layout,
        symbols: tuple[Symbol, ...],
        first: int,
    ) -> dict[str, Any]:
        inputs, packed, direction, count = self._directed(v, y, w, x)
        own = inputs.batched[first : first + len(symbols)]
        batched = {s.name: b for s, b in zip(symbols, own, strict=True) if not s.integer}
        entry, rows = self.entry(kind), _rows(inputs, count)
        if not any(batched.values()):
            return layout.unpack(run_accumulated(entry, inputs, packed, direction, count=rows), inputs.sizes)
        out = sums_of_rows(entry, inputs, packed, direction, count=rows, width=inputs.members)
        return unpack_adjoint(layout, out, batched, inputs)

    # ------------------------------------------------------------------------------ about itself

    @property
    def source(self) -> str:
        """The text of every kind of kernel, as numba compiles it."""
        from .derive import KINDS

        missing = {"candidates"} if not self.energy.candidates else set()
        missing |= {k for k in KINDS if "sparse_h" in k and self.structure == "dense"}
        missing |= {"sparse_cross"} if self._structure("cross").support is None else set()
        kinds = [k for k in KINDS if k not in missing]
        return "\n\n".join(f"# ---- {kind}\n{self._text(kind)}" for kind in kinds)

    def _text(self, kind: str) -> str:
        if kind in self._entries and self.backend == "numba":
            entry = self._entries[kind]
            return entry.source if entry.common is None else f"{entry.common.source}\n\n{entry.source}"
        from .derive import compile_text

        try:
            made = compile_text(self.energy, kind)
            first = f"{compile_text(self.energy, COMMON + kind).source}\n\n" if made.reads_common else ""
            return first + made.source
        except UnsupportedError as error:  # a derivative that a function of the user lacks
            return f"# {ascii(str(error))[1:-1]}"

    def program(self) -> Program:
        """The indexed program of the energy itself."""
        from .derive import value

        return value(self.energy)

    def explain(self, y: Values | None = None, w: Values | None = None, x: Values | None = None) -> Explanation:
        """What the compiler made of the energy and what that costs; at given arrays, why a number is not finite.

        Without arrays: the program in readable form with what each statement is for, the structure of the Hessian,
        operations and bytes for one instance, estimated and measured time, and where machine code is kept. The times
        are measured on arrays that are made up, which compiles the kernels that have not been called yet.

        With arrays: if the value or a derivative (gradient, Hessian, cross-derivative) is not finite there, the first
        such number is followed back to the smallest part of the formula that is not finite although what goes into it
        is. Otherwise as without, measured on these arrays.

        Returns
        -------
        Explanation
            Print it, or read its attributes; `not_finite` has the finding.

        Examples
        --------
        >>> import sympy as sp
        >>> t, a = sp.Symbol("t", real=True), sp.Symbol("a", real=True)
        >>> kernel = compile(Energy(t**2 + sp.log(t - a), variables=[t], weights=[a]), backend="reference")
        >>> kernel.explain({"t": 1.0}, {"a": 3.0})
        energy 'energy': the value is nan
          in the term log(-a + t)  (term 2 of 2)
          in value = log(t - a)     # energy
          the first part that is not finite:  log(t - a) = nan
            with t - a = -2
            with a = 3
            with t = 1
          the logarithm of a negative number; keep its argument positive
        """
        from .explain import explain  # here: it builds on kernels

        return explain(self, y, w, x)


def unpack_adjoint(layout: Layout, out: Floats, batched: Mapping[str, bool], inputs: Inputs) -> dict[str, Any]:
    """Per-instance derivatives (B, size) as a dict: summed over blocks in order for the arrays that are shared."""
    each = layout.unpack(out, inputs.sizes)
    result = {}
    for name, array in each.items():
        if not batched[name]:
            blocks = [array[k : k + BLOCK].sum(axis=0) for k in range(0, len(array), BLOCK)]
            array = sum(blocks[1:], blocks[0]) if blocks else np.zeros(array.shape[1:])
        result[name] = array
    return result


def _rows(inputs: Inputs, count: int | None) -> int:
    """How many rows a driver goes through: one for each member of each instance."""
    members: int = inputs.plan.members
    return members if count is None else count * members


def _nested(rows: list[Any], lead: tuple[int, ...]) -> Any:
    """Lists in lists, one for each axis."""
    if not lead:
        return rows[0]
    size = len(rows) // lead[0] if lead[0] else 0
    return [_nested(rows[k * size : (k + 1) * size], lead[1:]) for k in range(lead[0])]


def _declaration(energy: Energy) -> Declaration:
    """What binding needs to know, from the cache if it is there."""
    if not is_hashable(energy):
        return _declare(energy)
    key = digest("declaration", energy.key, *compiler_sources())
    parts = read_folder(key, ("declaration",))
    if parts is not None:
        try:
            stored = from_text(parts["declaration"])
            if isinstance(stored, Declaration):
                return stored
        except (ValueError, KeyError, TypeError):
            pass
    made = _declare(energy)
    write_folder(key, {"declaration": to_text(made).encode()})
    return made


def _structure(energy: Energy, derivative: str) -> Structure:
    """The structure of a derivative, from the cache if it is there."""
    key = digest("structure", derivative, energy.key, *compiler_sources())
    parts = read_folder(key, ("structure",))
    if parts is not None:
        try:
            stored = from_text(parts["structure"])
            if isinstance(stored, Structure):
                return stored
        except (ValueError, KeyError, TypeError):
            pass
    from .derive import find_structure

    made = find_structure(energy, derivative)
    write_folder(key, {"structure": to_text(made).encode()})
    return made


def _declare(energy: Energy) -> Declaration:
    from .derive import value
    from .passes.degree import is_quadratic
    from .passes.lower import lower_candidates

    program = value(energy)

    def symbols(role: str, declared: tuple[Any, ...]) -> tuple[Symbol, ...]:
        arrays = [a for a in program.arrays.values() if a.role == role]
        result = []
        for array, symbol in zip(arrays, declared, strict=True):
            name = str(symbol.name)
            shape = "(" + ", ".join(map(str, energy.shapes[name])) + ("," if len(array.axes) == 1 else "") + ")"
            axes: tuple[Affine, ...] = tuple(a.stop for a in array.axes)
            result.append(Symbol(name, axes, shape, array.integer, name in energy.positive))
        return tuple(result)

    user = {f"m{k}": str(index) for k, index in enumerate(energy.over)}

    def named(access: Access) -> Access:
        return replace(access, text=re.sub(r"\bm\d+\b", lambda found: user.get(found[0], found[0]), access.text))

    programs = [program, *([lower_candidates(energy)] if energy.candidates else [])]
    inputs = {n for n, a in program.arrays.items() if a.integer and a.role == "data"}
    gathered = frozenset(n for p in programs for s in p.statements for n in s.expression.arrays if n in inputs)
    return Declaration(
        energy.name,
        symbols("variable", energy.variables),
        symbols("weight", energy.weights),
        symbols("data", energy.data),
        program.extents,
        tuple(map(str, energy.extents)),
        tuple(named(access) for p in programs for access in accesses_of(p)),
        gathered,
        tuple(extremum for p in programs for extremum in extrema_of(p)),
        is_quadratic(program, [a.name for a in program.arrays.values() if a.role == "variable"]),
        tuple(program.family.items()),
        tuple(map(str, energy.over)),
    )
