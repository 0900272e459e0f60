"""How one array is read: found by name, converted, its rank and extents compared with the declaration.

An array of declared rank is shared by all instances; one with a leading axis more is batched, of size B or 1. Arrays
become C-contiguous float64 (int64 for index data), copied only where they are not; they are never written to.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...energies.errors import InputError, InputTypeError, NameMissingError, nearest
from ..program.expression import Affine
from .declaration import Declaration, Symbol

Floats = NDArray[np.float64]
FLOAT64, INT64 = np.dtype(np.float64), np.dtype(np.int64)


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
    """Where a contiguous array's numbers begin, 0 for an empty one; in a quarter of the time of `array.ctypes.data`."""
    try:
        return addressof(first_byte(array))  # type: ignore[no-any-return]
    except (TypeError, ValueError):  # read-only, or empty
        return array.ctypes.data if array.size else 0


addressof: Any = ctypes.addressof
first_byte: Any = ctypes.c_char.from_buffer


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


def extra_axes(declaration: Declaration, symbol: Symbol, shape: tuple[int, ...], family: tuple[int, ...]) -> int:
    """How many axes stand in front of the declared ones of a variable of a family.

    None: all members share it. As many as the family has indices: one for each member. One more: a batch of these.
    """
    extra, count = len(shape) - len(symbol.axes), len(family)
    inner = ", ".join(filter(None, [", ".join(map(str, family)), symbol.shape_text.strip("()").rstrip(",")]))
    if extra not in (0, count, count + 1):
        raise InputError(
            f"energy {declaration.name!r}: {symbol.name} has shape {shape}; expected {symbol.shape_text} (shared by "
            f"all members of the family), ({inner}) or (B, {inner})"
        )
    if any(given not in (1, size) for given, size in zip(shape[max(0, extra - count) : extra], family, strict=False)):
        raise InputError(
            f"energy {declaration.name!r}: {symbol.name} has shape {shape}, but the family has the axes {family}; "
            f"expected ({inner}) or (B, {inner})"
        )
    return extra


def spread_rows(arrays: Sequence[Floats], extras: Sequence[int], lead: tuple[int, ...]) -> Floats:
    """(rows, m) from arrays that have some of the axes `lead`, which count the rows, in front of their own."""
    parts = []
    for array, extra in zip(arrays, extras, strict=True):
        size = math.prod(array.shape[extra:])
        given = array.reshape((1,) * (len(lead) - extra) + array.shape[:extra] + (size,))
        parts.append(np.broadcast_to(given, (*lead, size)).reshape(math.prod(lead), size))
    return np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))


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
