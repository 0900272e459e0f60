"""How arrays are read: from the user's dicts to addresses, distances and extents, checked before a kernel runs.

An array of declared rank is shared by all instances; one with a leading axis more is batched, of size B or 1. Extents
are read from the shapes and must agree. Arrays become C-contiguous float64 (int64 for index data), copied only where
they are not; they are never written to. Subscripts that could leave an array (offsets, gathers) are checked here,
because kernels do not.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..energies.errors import InputError, InputTypeError, NameMissingError, nearest
from . import sizes
from .expression import Affine, Gather, gathers
from .program import Program, Range

Floats = NDArray[np.float64]
FLOAT64, INT64 = np.dtype(np.float64), np.dtype(np.int64)


@dataclass(frozen=True)
class Symbol:
    """A declared variable, weight or data array: the user's name, its axes over generated extents, and its kind."""

    name: str
    axes: tuple[Affine, ...]
    shape_text: str
    integer: bool = False
    positive: bool = False


@dataclass(frozen=True)
class Access:
    """A read that could leave its array: each subscript must stay in 0 .. extent - 1 over its loops."""

    array: str
    text: str
    subscripts: tuple[Affine, ...]
    extents: tuple[Affine, ...]
    loops: tuple[tuple[str, Range], ...]


@dataclass(frozen=True)
class Declaration:
    """What binding needs to know of an energy; nothing of SymPy, so that it can be stored."""

    name: str
    variables: tuple[Symbol, ...]
    weights: tuple[Symbol, ...]
    data: tuple[Symbol, ...]
    extents: tuple[str, ...]
    extent_names: tuple[str, ...]
    accesses: tuple[Access, ...]
    gathered: frozenset[str] = frozenset()


class Layout:
    """The flat form of some arrays: all of them one after another, each in C order, in declared order."""

    def __init__(self, symbols: Sequence[Symbol], declaration: Declaration, role: str) -> None:
        self._symbols = tuple(symbols)
        self._declaration = declaration
        self._role = role
        self._extents: dict[str, int] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The user's names, in declared order."""
        return tuple(s.name for s in self._symbols)

    @property
    def shapes(self) -> dict[str, tuple[str, ...]]:
        """The declared shape of each, as text."""
        return {
            s.name: tuple(t for t in s.shape_text.strip("()").replace(" ", "").split(",") if t) for s in self._symbols
        }

    def pack(self, values: Mapping[str, Any]) -> Floats:
        """Arrays by name to one array, (m,) or (B, m).

        Raises
        ------
        NameMissingError, InputError, InputTypeError
            If a name is missing or unknown, or shapes do not fit.
        """
        declaration = self._declaration
        arrays = [
            convert(declaration, self._role, s, value)
            for s, value in zip(self._symbols, select(declaration, self._role, self._symbols, values), strict=True)
        ]
        batched = [is_batched(declaration, s, a.shape) for s, a in zip(self._symbols, arrays, strict=True)]
        extents: dict[str, int] = {}
        for s, a, b in zip(self._symbols, arrays, batched, strict=True):
            read_extents(declaration, extents, s, a.shape[1:] if b else a.shape)
        self._extents = extents
        count = batch_size(
            declaration, [(s.name, a.shape, b) for s, a, b in zip(self._symbols, arrays, batched, strict=True)]
        )
        if count is None:
            return np.concatenate([a.ravel() for a in arrays]) if arrays else np.empty(0)
        return pack_rows(arrays, batched, count)

    def unpack(self, packed: Any, extents: Mapping[str, int] | None = None) -> dict[str, Any]:
        """One array, (m,) or (B, m), to arrays by name.

        `extents` are by generated name. Without them a single extent follows from the size; several are those of the
        arrays that were last packed.
        """
        try:
            packed = np.asarray(packed, dtype=np.float64)
        except (TypeError, ValueError):
            packed = np.asarray(np.nan)
        if packed.ndim not in (1, 2):
            raise InputError(
                f"energy {self._declaration.name!r}: unpack takes all {plural(self._role)} as one array of numbers, "
                f"(size,) or (B, size), in the order {', '.join(self.names)}"
            )
        known = self._solved(packed.shape[-1]) if extents is None else extents
        result: dict[str, Any] = {}
        begin = 0
        lead = packed.shape[:-1]
        for s in self._symbols:
            shape = tuple(evaluate(e, known) for e in s.axes)
            size = int(np.prod(shape)) if shape else 1
            result[s.name] = packed[..., begin : begin + size].reshape(lead + shape)
            begin += size
        if begin != packed.shape[-1]:
            raise InputError(
                f"energy {self._declaration.name!r}: {packed.shape[-1]} numbers do not fill the "
                f"{plural(self._role)} {', '.join(self.names)} of size {begin}"
            )
        return result

    def _solved(self, size: int) -> Mapping[str, int]:
        names = {str(n) for s in self._symbols for e in s.axes for n, _ in e.terms}
        if len(names) != 1:
            return self._extents
        (only,) = names
        return {only: next((k for k in range(size + 2) if self.size({only: k}) >= size), 0)}

    def size(self, extents: Mapping[str, int]) -> int:
        """How many numbers they are together, for given extents."""
        return sum(int(np.prod([evaluate(e, extents) for e in s.axes])) for s in self._symbols)


Shapes = tuple[tuple[int, ...], ...]
MOST_PLANS = 1000  # sets of shapes that are remembered


@dataclass(frozen=True)
class Plan:
    """What binding works out once for each set of shapes.

    table            (A, 2) int64; the second column is the distance from one instance to the next
    extents          (K,) int64; `sizes` has them by generated name
    batch            B, or None where nothing is batched
    batched          for each weight and datum, whether it was given with a batch axis
    weights_batched  whether any weight differs between instances
    m, p, q          numbers of unknowns, weights and real data of one instance
    variables        for each set of shapes of the variables and batch size: which are batched, and how many rows
    """

    table: NDArray[np.int64]
    extents: NDArray[np.int64]
    sizes: dict[str, int]
    batch: int | None
    batched: tuple[bool, ...]
    weights_batched: bool
    m: int
    p: int
    q: int
    variables: dict[tuple[Shapes, int | None], tuple[tuple[bool, ...], int | None]] = field(default_factory=dict)

    @cached_property
    def extents_address(self) -> int:
        return address_of(self.extents)

    def __getstate__(self) -> dict[str, Any]:
        """Without the address, which another process or a copy does not share."""
        return {name: value for name, value in vars(self).items() if name != "extents_address"}


class Inputs:
    """Bound weights and data. It owns the arrays whose addresses `table` holds; the rest is as in `Plan`.

    arrays   contiguous arrays: weights, then data, in declared order
    table    (A, 2) int64: address, and distance from one instance to the next
    """

    __slots__ = (
        "arrays",
        "batch",
        "batched",
        "extents",
        "m",
        "p",
        "plan",
        "q",
        "sizes",
        "table",
        "table_address",
        "weights_batched",
    )

    def __init__(self, arrays: tuple[Any, ...], plan: Plan) -> None:
        table = plan.table.copy()
        for row, array in enumerate(arrays):
            table[row, 0] = address_of(array)
        self.arrays, self.table, self.plan = arrays, table, plan
        self.table_address = address_of(table)
        self.extents, self.sizes, self.batch, self.batched = plan.extents, plan.sizes, plan.batch, plan.batched
        self.weights_batched, self.m, self.p, self.q = plan.weights_batched, plan.m, plan.p, plan.q

    @property
    def extents_address(self) -> int:
        return self.plan.extents_address

    def __reduce__(self) -> Any:
        return Inputs, (self.arrays, self.plan)


# ---------------------------------------------------------------------------------------------- one array


def plural(role: str) -> str:
    return role if role == "data" else f"{role}s"


def select(
    declaration: Declaration, role: str, symbols: Sequence[Symbol], values: Mapping[str, Any] | None
) -> list[Any]:
    """The values of the symbols in order; missing and unknown names are refused."""
    values = {} if values is None else values
    if type(values) is not dict and not isinstance(values, Mapping):
        raise InputTypeError(
            f"energy {declaration.name!r}: {plural(role)} are given as a dict of name to array; "
            f"got {type(values).__name__}"
        )
    try:
        found = [values[s.name] for s in symbols]
    except KeyError:
        missing = [s for s in symbols if s.name not in values]
        given = ", ".join(map(str, values)) or "none"
        needed = ", ".join(f"{s.name} {s.shape_text}" for s in symbols)
        unknown = [k for k in values if k not in {s.name for s in symbols}]
        hint = nearest(str(unknown[0]), [s.name for s in missing]) if unknown else ""
        first = f"unknown {role} {unknown[0]!r}{hint} " if hint else ""
        raise NameMissingError(
            f"energy {declaration.name!r}: {first}{role} {', '.join(s.name for s in missing)} is "
            f"missing; given {plural(role)}: {given}; needed: {needed}"
        ) from None
    if len(values) != len(symbols):
        names = [s.name for s in symbols]
        stranger = next(str(k) for k in values if k not in names)
        listed = ", ".join(f"{s.name} {s.shape_text}" for s in symbols) or "none"
        raise NameMissingError(
            f"energy {declaration.name!r}: unknown {role} {stranger!r}{nearest(stranger, names)}; "
            f"{plural(role)}: {listed}"
        )
    return found


def convert(declaration: Declaration, role: str, symbol: Symbol, value: Any) -> NDArray[Any]:
    """The value as a C-contiguous array of float64, or of int64 for index data."""
    kind = INT64 if symbol.integer else FLOAT64
    if type(value) is np.ndarray and value.dtype is kind and value.flags.c_contiguous:
        return value
    if type(value) is float and kind is FLOAT64:
        return np.array(value)
    try:
        array = np.asarray(value)
    except ValueError:
        raise InputTypeError(
            f"energy {declaration.name!r}: {role} {symbol.name} is no array: its rows differ in length; "
            f"expected {symbol.shape_text}, or one axis more in front for a batch"
        ) from None
    if array.dtype.kind not in ("iu" if symbol.integer else "fiub"):
        raise InputTypeError(f"energy {declaration.name!r}: {role} {symbol.name} {_odd_entry(symbol, array)}")
    return np.ascontiguousarray(array, dtype=kind) if array.ndim else np.array(array, dtype=kind)


def address_of(array: NDArray[Any]) -> int:
    """Where an array's numbers begin, 0 for an empty one; in a third of the time of `array.ctypes.data`."""
    if array.flags.writeable and array.size:
        return ctypes.addressof(ctypes.c_char.from_buffer(array.data))
    return array.ctypes.data if array.size else 0


def _odd_entry(symbol: Symbol, array: NDArray[Any]) -> str:
    if symbol.integer:
        return f"has dtype {array.dtype}; it is index data, integers are needed"
    text = f"has dtype {array.dtype}; real numbers are needed (float64)"
    if array.dtype.kind == "O":
        for position, entry in np.ndenumerate(array):
            if not isinstance(entry, (int, float, np.number)):
                where = ", ".join(map(str, position))
                return f"{text}. First odd entry: {symbol.name}[{where}] = {entry!r}"
    return text


def evaluate(value: Affine, extents: Mapping[str, int]) -> int:
    return value.constant + sum(c * extents[str(n)] for n, c in value.terms)


def read_extents(declaration: Declaration, extents: dict[str, int], symbol: Symbol, shape: tuple[int, ...]) -> None:
    """Learn extents from a shape, or refuse one that disagrees."""
    for axis, (declared, size) in enumerate(zip(symbol.axes, shape, strict=True)):
        single = declared.single
        if single is not None and single not in extents:
            extents[single] = size
        elif all(str(n) in extents for n, _ in declared.terms) and evaluate(declared, extents) != size:
            wanted = evaluate(declared, extents)
            label = (
                f"extent {declaration.extent_names[declaration.extents.index(single)]}"
                if single is not None
                else f"axis {axis}"
            )
            raise InputError(
                f"energy {declaration.name!r}: {label} is {wanted}, but {symbol.name} has shape {shape}; "
                f"declared {symbol.name} {symbol.shape_text}"
            )


def shape_of(declaration: Declaration, symbol: Symbol, value: Any) -> tuple[int, ...]:
    """The shape of what was given for a variable.

    Raises
    ------
    InputTypeError
        If it is no array.
    """
    return value.shape if type(value) is np.ndarray else convert(declaration, "variable", symbol, value).shape


def is_batched(declaration: Declaration, symbol: Symbol, shape: tuple[int, ...]) -> bool:
    """Whether a shape has a batch axis in front of the declared axes; any other rank is refused."""
    rank = len(symbol.axes)
    if len(shape) == rank:
        return False
    if len(shape) == rank + 1:
        return True
    inner = symbol.shape_text.strip("()").rstrip(",")
    batched = f"(B, {inner})" if inner else "(B,)"
    raise InputError(
        f"energy {declaration.name!r}: {symbol.name} has shape {shape}; expected "
        f"{symbol.shape_text} or {batched}; reshape to one batch axis"
    )


def batch_size(declaration: Declaration, arrays: Sequence[tuple[str, tuple[int, ...], bool]]) -> int | None:
    """B from the arrays that have a batch axis; None if none has."""
    count: int | None = None
    first = ""
    for name, shape, batched in arrays:
        if not batched:
            continue
        if count is None or count == 1:
            if count is None or shape[0] != 1:
                count, first = shape[0], name
        elif shape[0] not in (1, count):
            raise InputError(
                f"energy {declaration.name!r}: batch sizes disagree: {first} has {count}, {name} has "
                f"{shape[0]} ({name} {shape} read as batch {shape[0]} of {shape[1:]}); arrays without a "
                "batch axis are shared"
            )
    return count


def pack_rows(arrays: Sequence[Floats], batched: Sequence[bool], count: int) -> Floats:
    """(B, m) from arrays that are batched or shared."""
    if len(arrays) == 1 and batched[0] and arrays[0].shape[0] == count:
        return arrays[0].reshape(count, -1) if arrays[0].size else np.empty((count, int(np.prod(arrays[0].shape[1:]))))
    parts = []
    for array, has_batch in zip(arrays, batched, strict=True):
        lead = array.shape[0] if has_batch else 1
        rows = array.reshape(lead, math.prod(array.shape[1:] if has_batch else array.shape))
        parts.append(np.broadcast_to(rows, (count, rows.shape[1])))
    return np.ascontiguousarray(np.concatenate(parts, axis=1)) if parts else np.empty((count, 0))


# ---------------------------------------------------------------------------------------------- all of them


class Binder:
    """Binds the arrays of one energy; what depends on shapes alone is worked out once for each set of shapes."""

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration
        self._symbols = (*declaration.weights, *declaration.data)
        self._roles = ("weight",) * len(declaration.weights) + ("data",) * len(declaration.data)
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
        values = select(declaration, "weight", declaration.weights, w)
        values += select(declaration, "data", declaration.data, x)
        arrays = tuple(
            [convert(declaration, r, s, v) for r, s, v in zip(self._roles, self._symbols, values, strict=True)]
        )
        shapes = tuple([a.shape for a in arrays])
        unknown: Any = ()
        if y is not None and self._variables_have_extents:
            unknown = tuple(shape_of(declaration, s, y[s.name]) for s in declaration.variables if s.name in y)
        plan = self._plans.get((shapes, unknown, extra))
        if plan is None:
            if len(self._plans) > MOST_PLANS:
                self._plans.clear()
            plan = self._plans[shapes, unknown, extra] = self._plan(shapes, unknown, y, extra)
        inputs = Inputs(arrays, plan)
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
        count = len(declaration.weights)
        weights_batched = any(b and shape[0] != 1 for b, shape in zip(batched[:count], shapes[:count], strict=True))
        plan = Plan(
            np.array([[0, d] for d in distances], dtype=np.int64).reshape(-1, 2),
            np.array([extents[e] for e in declaration.extents], dtype=np.int64),
            extents, batch, batched, weights_batched,
            sum(int(np.prod([evaluate(e, extents) for e in s.axes])) for s in declaration.variables),
            sum(int(np.prod([evaluate(e, extents) for e in s.axes])) for s in declaration.weights),
            sum(int(np.prod([evaluate(e, extents) for e in s.axes])) for s in declaration.data if not s.integer),
        )  # fmt: skip
        for access in declaration.accesses:
            check_access(declaration, access, extents, {})
        return plan

    def variables(self, y: Mapping[str, Any] | None, inputs: Inputs) -> tuple[Floats, bool]:
        """Variables, packed: (B or 1, m), and whether they carry a batch axis."""
        return self.packed("variable", y, inputs)

    def packed(self, role: str, y: Mapping[str, Any] | None, inputs: Inputs) -> tuple[Floats, bool]:
        declaration = self.declaration
        symbols = declaration.variables
        arrays = [
            convert(declaration, role, s, v)
            for s, v in zip(symbols, select(declaration, role, symbols, y), strict=True)
        ]
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
        for access in self.declaration.accesses:
            check_access(self.declaration, access, inputs.sizes, limits, values)


def check_access(
    declaration: Declaration,
    access: Access,
    extents: Mapping[str, int],
    limits: Mapping[str, tuple[int, int]],
    values: Mapping[str, Any] | None = None,
) -> None:
    """Refuse a subscript that can leave its array; gathers are looked at only where their limits are known."""
    intervals: dict[Any, tuple[int, int]] = {n: (v, v) for n, v in extents.items()}
    for loop, limit in access.loops:
        intervals[loop] = (evaluate(limit.start, extents), evaluate(limit.stop, extents) - 1)
        if intervals[loop][0] > intervals[loop][1]:
            return
    for axis, (subscript, extent) in enumerate(zip(access.subscripts, access.extents, strict=True)):
        low = high = subscript.constant
        for item, count in subscript.terms:
            if isinstance(item, Gather):
                if item.array not in limits:
                    return
                interval = limits[item.array]
                if interval[0] > interval[1]:
                    return
            else:
                interval = intervals[item]
            low += min(count * interval[0], count * interval[1])
            high += max(count * interval[0], count * interval[1])
        size = evaluate(extent, extents)
        if low < 0 or high >= size:
            raise InputError(_left(declaration, access, axis, (low, high), size, subscript, limits, values))


def _left(
    declaration: Declaration,
    access: Access,
    axis: int,
    reached: tuple[int, int],
    size: int,
    subscript: Affine,
    limits: Mapping[str, tuple[int, int]],
    values: Mapping[str, Any] | None,
) -> str:
    worst = reached[0] if reached[0] < 0 else reached[1]
    for item, _ in subscript.terms:
        if isinstance(item, Gather) and values is not None:
            symbol, array = values[item.array]
            extreme = limits[item.array][0 if reached[0] < 0 else 1]
            where = ", ".join(map(str, np.argwhere(array == extreme)[0]))
            return (
                f"energy {declaration.name!r}: index data {symbol.name} has {extreme} at [{where}], but "
                f"{access.text} reads axis {axis} of extent {size}, allowed 0..{size - 1} (negative indices do not "
                "count from the end here)"
            )
    return (
        f"energy {declaration.name!r}: {access.text} reaches {worst} on axis {axis}, which has extent {size}; "
        "make the array longer or the range of the index shorter"
    )


def accesses_of(program: Program) -> tuple[Access, ...]:
    """The reads of a program that are not obviously inside their arrays."""
    found: dict[str, Access] = {}
    for statement in program.statements:
        loops = tuple((i, program.ranges[i]) for i in statement.loops)
        for array_name, subscripts in _reads(statement.expression):
            array = program.arrays[array_name]
            safe = all(
                (s.single in statement.loops and program.ranges[str(s.single)] == axis) or
                (s.is_constant and axis.stop.is_constant and 0 <= s.constant < axis.stop.constant)
                for s, axis in zip(subscripts, array.axes, strict=True)
            )  # fmt: skip
            if not safe:
                text = f"{array.origin or array.name}[{', '.join(_named(s, program) for s in subscripts)}]"
                access = Access(array.name, text, subscripts, tuple(a.stop for a in array.axes), loops)
                found.setdefault(f"{text} {loops}", access)
    return tuple(found.values())


def _named(subscript: Affine, program: Program) -> str:
    """A subscript with the user's names of index data."""
    text = str(subscript)
    for array in sorted(gathers(subscript), reverse=True):
        text = text.replace(f"{array}[", f"{program.arrays[array].origin}[")
    return text


def _reads(expression: Any) -> list[tuple[str, tuple[Affine, ...]]]:
    """Every array access in an expression, those of gathers inside subscripts too."""
    result: list[tuple[str, tuple[Affine, ...]]] = []
    todo: list[Affine] = []
    seen: set[Any] = set()
    stack = [expression]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        stack.extend(node.children)
        if node.name == "read":
            result.append((node.args[0], node.args[1]))
            todo.extend(node.args[1])
        elif node.name == "affine":
            todo.append(node.args[0])
    while todo:
        for item, _ in todo.pop().terms:
            if isinstance(item, Gather):
                result.append((item.array, item.subscripts))
                todo.extend(item.subscripts)
    return result


def numbers(size: sizes.Size, inputs: Inputs) -> int:
    """A size for the extents of some inputs."""
    return sizes.value(size, inputs.sizes)
