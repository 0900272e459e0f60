"""Binding: from the user's dicts of weights and data to addresses, distances and extents, checked before a kernel runs.

What depends on shapes alone is worked out once for each set of shapes (`Plan`); a call converts the arrays and takes
their addresses (`Inputs`).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...energies.errors import InputError
from .accesses import check_access, check_extremum
from .arrays import (
    FLOAT64,
    INT64,
    Floats,
    address_of,
    addressof,
    batch_size,
    convert,
    evaluate,
    extra_axes,
    first_byte,
    is_batched,
    pack_rows,
    read_extents,
    select,
    shape_of,
    spread_rows,
)
from .declaration import CHOSEN, FAMILY_ROWS, Declaration, Symbol

Shapes = tuple[tuple[int, ...], ...]
MOST_PLANS = 1000  # sets of shapes that are remembered


@dataclass(frozen=True)
class Plan:
    """What binding works out once for each set of shapes.

    distances        for each array 0, in place of its address, and the distance from one instance to the next
    extents          (K,) int64; `sizes` has them by generated name
    batch            B, or None where nothing is batched
    batched          for each weight and datum, whether it was given with a batch axis
    weights_batched  whether any weight differs between instances
    m, p, q          numbers of unknowns, weights and real data of one instance
    family, members  extents of the axes of a family, and how many members an instance has (1 without)
    numbers          for each weight and datum, how many numbers an instance has, 0 of index data; and 1 where all of
                     them must be positive, else 0
    needs            for each kind of kernel (prepared numbers, scratch, numbers of output), by `Entry.needs`
    safe             least and largest entries of index data, with which no read leaves its array
    variables        for each set of shapes of the variables and batch size: which are batched, and how many rows
    drivers          what drivers have worked out for these shapes, by keys of their own
    """

    distances: array[int]
    extents: NDArray[np.int64]
    sizes: dict[str, int]
    batch: int | None
    batched: tuple[bool, ...]
    weights_batched: bool
    m: int
    p: int
    q: int
    family: tuple[int, ...] = ()
    members: int = 1
    numbers: array[int] = field(default_factory=lambda: array("q"))
    needs: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    safe: set[Any] = field(default_factory=set)
    variables: dict[tuple[Shapes, int | None], tuple[tuple[bool, ...], int | None]] = field(default_factory=dict)
    drivers: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def extents_address(self) -> int:
        return address_of(self.extents)

    @cached_property
    def numbers_address(self) -> int:
        return self.numbers.buffer_info()[0]

    def __getstate__(self) -> dict[str, Any]:
        """Without addresses, which another process or a copy does not share."""
        kept = {name: value for name, value in vars(self).items() if not name.endswith("_address")}
        return {**kept, "drivers": {}}


def _of_plan(name: str) -> Any:
    return property(attrgetter(f"plan.{name}"))


class Inputs:
    """Bound weights and data. It owns the arrays whose addresses `table` holds; the rest is as in `Plan`.

    arrays   contiguous arrays: weights, then data, in declared order
    table    (A, 2) int64: address, and distance from one instance to the next; of a family, `FAMILY_ROWS` more, for
             which rows are meant (`rows`), and what members have in common (`keep`)
    """

    __slots__ = ("_chosen", "_kept", "_table", "arrays", "batch", "plan", "table_address")

    def __init__(
        self,
        arrays: tuple[Any, ...],
        plan: Plan,
        chosen: NDArray[np.int64] | None = None,
        kept: dict[str, Floats] | None = None,
        addresses: Sequence[int] | None = None,
    ) -> None:
        table, row = plan.distances[:], 0
        for place in map(address_of, arrays) if addresses is None else addresses:  # a loop is faster than a slice
            table[row] = place
            row += 2
        self.arrays, self._table, self.plan, self.batch = arrays, table, plan, plan.batch
        self.table_address = table.buffer_info()[0]
        self._kept, self._chosen = kept, chosen
        if chosen is not None:
            table[self._place(CHOSEN)] = address_of(chosen)

    @property
    def table(self) -> NDArray[np.int64]:
        return np.frombuffer(self._table, np.int64).reshape(-1, 2)

    extents_address, extents, sizes = _of_plan("extents_address"), _of_plan("extents"), _of_plan("sizes")
    batched, weights_batched = _of_plan("batched"), _of_plan("weights_batched")
    m, p, q = _of_plan("m"), _of_plan("p"), _of_plan("q")
    numbers_address, drivers = _of_plan("numbers_address"), _of_plan("drivers")
    family, members = _of_plan("family"), _of_plan("members")

    @property
    def whole(self) -> bool:
        """Whether the rows are those of the batch, none chosen from it."""
        return self._chosen is None

    def _place(self, what: str) -> int:
        return 2 * (len(self.arrays) + FAMILY_ROWS.index(what))

    def kept(self, kind: str) -> Floats | None:
        """What the members have in common for a kind of kernel, (1, size) or (batch, size), if it is there."""
        return None if self._kept is None else self._kept.get(kind)

    def keep(self, kind: str, common: Floats) -> None:
        """Let a kind of kernel find what its members have in common, also for `rows` of these inputs."""
        if self._kept is None:
            self._kept = {}
        kept = self._kept.setdefault(kind, common)  # another thread may have been faster
        place = self._place(kind)
        self._table[place + 1] = kept.shape[1] if len(kept) > 1 else 0
        self._table[place] = address_of(kept)

    def rows(self, rows: slice | NDArray[np.int64]) -> Inputs:
        """The inputs of some instances; a slice copies nothing. What is shared stays shared.

        Of a family some rows, in any order and any number of times: nothing is copied, kernels read which are meant,
        and `batch` stays that of all. Slices have ends that are not negative.
        """
        if self.family:
            return self._chosen_rows(rows)
        arrays = tuple([a[rows] if b and len(a) != 1 else a for a, b in zip(self.arrays, self.batched, strict=True)])
        if self.batch in (None, 1):
            return Inputs(arrays, self.plan)
        count = len(range(self.batch)[rows]) if isinstance(rows, slice) else len(rows)
        return Inputs(arrays, replace(self.plan, batch=count))

    def _chosen_rows(self, rows: slice | NDArray[np.int64]) -> Inputs:
        if isinstance(rows, slice) and rows == slice(None):
            return self
        if self._kept is None:
            self._kept = {}
        chosen = np.arange(rows.stop)[rows] if isinstance(rows, slice) else np.array(rows, np.int64)
        return Inputs(self.arrays, self.plan, chosen if self._chosen is None else self._chosen[chosen], self._kept)

    def chosen(self, rows: int) -> NDArray[np.int64]:
        """The rows of the whole batch that the first so many are."""
        return np.arange(rows) if self._chosen is None else self._chosen[:rows]

    def instance(self, row: int) -> int:
        """Which instance a row belongs to: itself, or of a family that whose member it is."""
        number = row if self._chosen is None else int(self._chosen[row])
        return number // int(self.members)

    def __reduce__(self) -> Any:
        return Inputs, (self.arrays, self.plan, self._chosen)


class Binder:
    """Binds the arrays of one energy; what depends on shapes alone is worked out once for each set of shapes."""

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration
        self._symbols = (*declaration.weights, *declaration.data)
        self._roles = ("weight",) * len(declaration.weights) + ("data",) * len(declaration.data)
        self._weights, self._data, self._variables = (
            [(s.name, INT64 if s.integer else FLOAT64) for s in symbols]
            for symbols in (declaration.weights, declaration.data, declaration.variables)
        )
        self._plans: dict[Any, Plan] = {}
        given = {str(n) for s in self._symbols for e in s.axes for n, _ in e.terms}
        self._variables_have_extents = not set(declaration.extents) <= given

    def bind(
        self,
        w: Mapping[str, Any] | None,
        x: Mapping[str, Any] | None,
        y: Mapping[str, Any] | None = None,
        extra: int = 0,
    ) -> Inputs:
        """Validated, converted inputs.

        Parameters
        ----------
        w, x : dict
            Weights and data by name.
        y : dict, optional
            Variables, for extents that only they have; `extra` axes (of candidates) stand before the declared ones.
        """
        declaration = self.declaration
        arrays: list[NDArray[Any]] = []
        places: list[int] = []
        addresses: list[int] | None = places
        if not (_plain(self._weights, w, arrays, places) and _plain(self._data, x, arrays, places)):
            values = select(declaration, "weight", declaration.weights, w)
            values += select(declaration, "data", declaration.data, x)
            roles = zip(self._roles, self._symbols, values, strict=True)
            arrays, addresses = [convert(declaration, r, s, v) for r, s, v in roles], None
        shapes = tuple([a.shape for a in arrays])
        unknown: Any = ()
        if y is not None and self._variables_have_extents:
            unknown = tuple(shape_of(declaration, s, y[s.name]) for s in declaration.variables if s.name in y)
        plan = self._plans.get((shapes, unknown, extra))
        if plan is None:
            if len(self._plans) > MOST_PLANS:
                self._plans.clear()
            plan = self._plans[shapes, unknown, extra] = self._plan(shapes, unknown, y, extra)
        inputs = Inputs(tuple(arrays), plan, addresses=addresses)
        if declaration.gathered:
            self._check_gathers(inputs)
        return inputs

    def _plan(self, shapes: tuple[tuple[int, ...], ...], unknown: Any, y: Mapping[str, Any] | None, extra: int) -> Plan:
        declaration = self.declaration
        extents: dict[str, int] = {}
        batched = tuple(is_batched(declaration, s, shape) for s, shape in zip(self._symbols, shapes, strict=True))
        for _ in range(2):  # twice: an axis n - 1 may stand before the array that tells n
            for s, shape, has_batch in zip(self._symbols, shapes, batched, strict=True):
                read_extents(declaration, extents, s, shape[1:] if has_batch else shape)
        if y is not None:
            for s in declaration.variables:
                if s.name in y:
                    shape = np.shape(y[s.name])
                    if len(shape) >= len(s.axes):  # a lower rank is refused where the variables are packed
                        read_extents(declaration, extents, s, shape[len(shape) - len(s.axes) :])
        for generated, user in zip(declaration.extents, declaration.extent_names, strict=True):
            if generated not in extents:
                raise InputError(
                    f"energy {declaration.name!r}: extent {user} cannot be read from the weights and data; "
                    f"give the variables that have it ({', '.join(s.name for s in declaration.variables)})"
                )
        labelled = [(s.name, shape, b) for s, shape, b in zip(self._symbols, shapes, batched, strict=True)]
        batch = batch_size(declaration, labelled)
        distances = [
            int(np.prod(shape[1:])) if b and shape[0] != 1 else 0 for shape, b in zip(shapes, batched, strict=True)
        ]
        family = tuple(max(0, evaluate(values.stop, extents)) for _, values in declaration.family)
        if family:
            distances += [0] * len(FAMILY_ROWS)
            extents |= {index: size - 1 for (index, _), size in zip(declaration.family, family, strict=True)}
        numbers: list[int] = []
        for s, shape, b in zip(self._symbols, shapes, batched, strict=True):
            numbers += (0 if s.integer else math.prod(shape[1:] if b else shape), int(s.positive))
        count = len(declaration.weights)
        weights_batched = any(b and shape[0] != 1 for b, shape in zip(batched[:count], shapes[:count], strict=True))
        plan = Plan(
            array("q", [number for d in distances for number in (0, d)]),
            np.array([extents[e] for e in declaration.extents], dtype=np.int64),
            extents, batch, batched, weights_batched,
            sum(int(np.prod([evaluate(e, extents) for e in s.axes])) for s in declaration.variables),
            sum(int(np.prod([evaluate(e, extents) for e in s.axes])) for s in declaration.weights),
            sum(int(np.prod([evaluate(e, extents) for e in s.axes])) for s in declaration.data if not s.integer),
            family, math.prod(family), array("q", numbers),
        )  # fmt: skip
        for access in declaration.accesses:
            check_access(declaration, access, extents, {})
        for extremum in declaration.extrema:
            check_extremum(declaration, extremum, extents)
        return plan

    def variables(self, y: Mapping[str, Any] | None, inputs: Inputs) -> tuple[Floats, bool]:
        """Variables, packed: (B or 1, m), and whether they carry a batch axis."""
        return self.packed("variable", y, inputs)

    def packed(self, role: str, y: Mapping[str, Any] | None, inputs: Inputs) -> tuple[Floats, bool]:
        declaration = self.declaration
        symbols = declaration.variables
        arrays: list[Floats] = []
        if not _plain(self._variables, y, arrays, []):
            values = select(declaration, role, symbols, y)
            arrays = [convert(declaration, role, s, v) for s, v in zip(symbols, values, strict=True)]
        if inputs.plan.family:
            return self._packed_family(arrays, inputs)
        shapes = tuple([a.shape for a in arrays])
        key = (shapes, inputs.batch)
        known = inputs.plan.variables.get(key)
        if known is None:
            known = inputs.plan.variables[key] = self._variable_plan(shapes, inputs)
        batched, count = known
        if count is None:
            flat = arrays[0].reshape(1, -1) if len(arrays) == 1 else np.concatenate([a.ravel() for a in arrays])[None]
            return flat, False
        return pack_rows(arrays, batched, count), True

    def _packed_family(self, arrays: list[Floats], inputs: Inputs) -> tuple[Floats, bool]:
        """One row for all, (1, m), or a row for each member of each instance; and whether there is a batch axis."""
        declaration, family = self.declaration, inputs.family
        symbols = declaration.variables
        extras = [extra_axes(declaration, s, a.shape, family) for s, a in zip(symbols, arrays, strict=True)]
        for s, a, extra in zip(symbols, arrays, extras, strict=True):
            read_extents(declaration, inputs.sizes, s, a.shape[extra:])
        batched = [extra > len(family) for extra in extras]
        count = batch_size(
            declaration, [(s.name, a.shape, b) for s, a, b in zip(symbols, arrays, batched, strict=True)]
        )
        if not any(extras):
            return spread_rows(arrays, extras, ()), False
        return spread_rows(arrays, extras, (*self.batch_with(count, symbols, batched, inputs), *family)), any(batched)

    def batch_with(
        self, count: int | None, symbols: Sequence[Symbol], batched: Sequence[bool], inputs: Inputs
    ) -> tuple[int, ...]:
        """The batch axis of rows that have `count` instances of their own, beside those of weights and data."""
        others = inputs.batch
        if others not in (None, 1) and count not in (None, 1, others):
            name = next(s.name for s, b in zip(symbols, batched, strict=True) if b)
            raise InputError(
                f"energy {self.declaration.name!r}: batch sizes disagree: {name} has {count}, weights and data "
                f"have {others}"
            )
        known = count if others in (None, 1) and count is not None else others
        return () if known is None else (known,)

    def _variable_plan(self, shapes: Shapes, inputs: Inputs) -> tuple[tuple[bool, ...], int | None]:
        """Which variables of these shapes are batched, and the batch size if any is."""
        declaration = self.declaration
        symbols = declaration.variables
        batched = tuple(is_batched(declaration, s, shape) for s, shape in zip(symbols, shapes, strict=True))
        for s, shape, b in zip(symbols, shapes, batched, strict=True):
            read_extents(declaration, inputs.sizes, s, shape[1:] if b else shape)
        labelled = [(s.name, shape, b) for s, shape, b in zip(symbols, shapes, batched, strict=True)]
        count = batch_size(declaration, labelled)
        if inputs.batch is not None and inputs.batch != 1 and count not in (None, 1, inputs.batch):
            name = next(s.name for s, b in zip(symbols, batched, strict=True) if b)
            raise InputError(
                f"energy {declaration.name!r}: batch sizes disagree: {name} has {count}, weights and data "
                f"have {inputs.batch}"
            )
        return batched, count

    def _check_gathers(self, inputs: Inputs) -> None:
        """Every index array within the extents of what it is used to read."""
        values = {
            f"w{k}" if r == "weight" else f"x{k - len(self.declaration.weights)}": (s, a)
            for k, (r, s, a) in enumerate(zip(self._roles, self._symbols, inputs.arrays, strict=True))
        }
        limits = {}
        for generated in self.declaration.gathered:
            symbol, array = values[generated]
            if array.size:
                limits[generated] = (int(array.min()), int(array.max()))
            else:
                limits[generated] = (0, -1)
            del symbol
        safe, key = inputs.plan.safe, tuple(sorted(limits.items()))
        if key in safe:
            return
        counted = [check_access(self.declaration, a, inputs.sizes, limits, values) for a in self.declaration.accesses]
        if not any(counted):
            if len(safe) > MOST_PLANS:
                safe.clear()
            safe.add(key)


def _plain(kinds: list[tuple[str, Any]], values: Any, arrays: list[Any], addresses: list[int]) -> bool:
    """Whether every array is given just as kernels read it; then they and their addresses stand in the lists.

    One pass over them, as short as can be: it is a good part of the time of a call for one small instance.
    """
    if type(values) is not dict or len(values) != len(kinds):
        return False
    for name, kind in kinds:
        value = values.get(name)
        if type(value) is np.ndarray:
            if value.dtype is not kind:
                return False
        elif (type(value) is float or type(value) is np.float64) and kind is FLOAT64:
            value = np.array(value)
        else:
            return False
        try:
            addresses.append(addressof(first_byte(value)))
        except (TypeError, ValueError):  # not contiguous, or read-only, or empty
            if not value.flags.c_contiguous:
                return False
            addresses.append(address_of(value))
        arrays.append(value)
    return True
