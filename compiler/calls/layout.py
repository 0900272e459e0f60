"""Layout: between arrays by name and one flat array."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...energies.errors import InputError
from .arrays import (
    Floats,
    batch_size,
    convert,
    evaluate,
    extra_axes,
    is_batched,
    pack_rows,
    plural,
    read_extents,
    select,
    spread_rows,
)
from .declaration import Declaration, Symbol


class Layout:
    """The flat form of some arrays: all of them one after another, each in C order, in declared order."""

    def __init__(
        self, symbols: Sequence[Symbol], declaration: Declaration, role: str, shapes: Mapping[str, tuple[Any, ...]]
    ) -> None:
        self._symbols = tuple(symbols)
        self._shapes = shapes
        self._declaration = declaration
        self._role = role
        self._extents: dict[str, int] = {}
        self._extents_used = {str(n) for s in self._symbols for e in s.axes for n, _ in e.terms}
        self._names = tuple(s.name for s in self._symbols)
        self._family = len(declaration.family) if role == "variable" else 0

    @property
    def names(self) -> tuple[str, ...]:
        """The user's names, in declared order."""
        return self._names

    @property
    def shapes(self) -> dict[str, tuple[Any, ...]]:
        """The shape of each as declared, in the user's symbols: () for a scalar, (n, 2), ..."""
        return {s.name: self._shapes[s.name] for s in self._symbols}

    def pack(self, values: Mapping[str, Any]) -> Floats:
        """Arrays by name to one array, (m,) or (B, m); variables of a family also (F..., m) or (B, F..., m).

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
        if self._family:
            return self._pack_family(arrays)
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

    def _pack_family(self, arrays: Sequence[Floats]) -> Floats:
        """The same for variables of a family, whose axes are seen on those that have them."""
        declaration, count = self._declaration, self._family
        fronts = [a.shape[: max(0, a.ndim - len(s.axes))] for s, a in zip(self._symbols, arrays, strict=True)]
        given = [front[-count:] for front in fronts if len(front) >= count]
        family = tuple(next((n for n in along if n != 1), 1) for along in zip(*given, strict=True)) or (1,) * count
        extras = [extra_axes(declaration, s, a.shape, family) for s, a in zip(self._symbols, arrays, strict=True)]
        extents: dict[str, int] = {}
        for s, a, extra in zip(self._symbols, arrays, extras, strict=True):
            read_extents(declaration, extents, s, a.shape[extra:])
        self._extents = extents
        batch = batch_size(
            declaration, [(s.name, a.shape, e > count) for s, a, e in zip(self._symbols, arrays, extras, strict=True)]
        )
        lead = (() if batch is None else (batch,)) + (family if any(extras) else ())
        rows = spread_rows(arrays, extras, lead)
        return rows.reshape(*lead, rows.shape[1])

    def unpack(self, packed: Any, extents: Mapping[str, int] | None = None) -> dict[str, Any]:
        """One array, (m,) or (B, m), to arrays by name; variables of a family also (F..., m) or (B, F..., m).

        `extents` are by generated name. Without them a single extent follows from the size; several are those of the
        arrays that were last packed.
        """
        try:
            packed = np.asarray(packed, dtype=np.float64)
        except (TypeError, ValueError):
            packed = np.asarray(np.nan)
        if packed.ndim not in (1, 1 + self._family, 2 + self._family):
            members = "".join(f", {name}" for name in self._declaration.family_names) if self._family else ""
            each = f", ({members[2:]}, size)" if members else ""
            raise InputError(
                f"energy {self._declaration.name!r}: unpack takes all {plural(self._role)} as one array of numbers, "
                f"(size,){each} or (B{members}, size), in the order {', '.join(self.names)}"
            )
        known = self._solved(packed.shape[-1]) if extents is None else extents
        if not self._extents_used <= known.keys():
            names = zip(self._declaration.extents, self._declaration.extent_names, strict=True)
            unknown = [shown for generated, shown in names if generated in self._extents_used - set(known)]
            raise InputError(
                f"energy {self._declaration.name!r}: unpack cannot tell {' and '.join(unknown)} from one size; "
                f"pack {plural(self._role)} of these shapes first"
            )
        return self.split(packed, known)

    def split(self, packed: Floats, extents: Mapping[str, int]) -> dict[str, Any]:
        """The same for (..., m) with any axes in front."""
        result: dict[str, Any] = {}
        begin = 0
        lead = packed.shape[:-1]
        for s in self._symbols:
            shape = tuple([evaluate(e, extents) for e in s.axes])
            size = math.prod(shape)
            result[s.name] = packed[..., begin : begin + size].reshape(lead + shape)
            begin += size
        if begin != packed.shape[-1]:
            raise InputError(
                f"energy {self._declaration.name!r}: {packed.shape[-1]} numbers do not fill the "
                f"{plural(self._role)} {', '.join(self.names)} of size {begin}"
            )
        return result

    def _solved(self, size: int) -> Mapping[str, int]:
        if len(self._extents_used) != 1:
            return self._extents
        (only,) = self._extents_used
        return {only: next((k for k in range(size + 2) if self.size({only: k}) >= size), 0)}

    def size(self, extents: Mapping[str, int]) -> int:
        """How many numbers they are together, for given extents."""
        return sum(math.prod([evaluate(e, extents) for e in s.axes]) for s in self._symbols)
