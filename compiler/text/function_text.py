"""The text of one function: its lines, and where in memory arrays and their entries lie.

No text of the user reaches the code: names are generated, and what is quoted in comments is ASCII on one line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ..program.expression import Affine
from ..program.program import Array, Program, Range
from . import sizes

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Where an output array lies in `out`: its first number, and for each block of axes the distance of its rows."""

    offset: sizes.Size
    blocks: tuple[tuple[int, sizes.Size], ...]


@dataclass(frozen=True)
class Memory:
    """Where everything lies: variables and directions by offset, inputs by row of the table, outputs by place."""

    variables: Mapping[str, sizes.Size]
    table: Mapping[str, int]
    outputs: Mapping[str, Place]
    accumulate: bool = False
    mirror: tuple[sizes.Size, sizes.Size] | None = None  # offset and order of a symmetric matrix to be completed
    rows: Mapping[str, sizes.Size] = field(default_factory=dict)  # variables at many points: distance of the points
    rough: bool = False  # exponentials to 1e-8, for values that are only compared
    common: Mapping[str, sizes.Size] = field(default_factory=dict)  # what members of a family share: places, and where
    common_row: int = 0
    chosen_row: int = 0  # of a family: numbers of rows


@dataclass
class FunctionText:
    """One function being written."""

    program: Program
    memory: Memory
    scalars: frozenset[str]
    rows: Mapping[str, int]
    prepared_at: Mapping[str, sizes.Size]
    scratch_at: Mapping[str, sizes.Size]
    lines: list[str] = field(default_factory=list)
    depth: int = 1
    temporaries: int = 0

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def has_memory(self, array: Array, prepared: bool) -> bool:
        """Whether the function reaches the array through a pointer, rather than as a number in a variable."""
        if array.role == "output":
            return bool(array.axes) or array.name != "value"
        return bool(array.axes) and (array.role != "local" or array.name in self.scratch_at)

    def pointer(self, array: Array) -> str:
        """Source text of the pointer to an array's first number."""
        if array.role in ("weight", "data", "common"):
            place = self.memory.table.get(array.name, self.memory.common_row)
            kind = "integer" if array.integer else "double"
            first = f"{kind}_pointer_at(table[{2 * place}] + 8*table[{2 * place + 1}]*instance)"
            return (
                f"shifted({first}, {sizes.text(self.memory.common[array.name])})" if array.role == "common" else first
            )
        base, offset = {
            "variable": ("y", self.memory.variables), "direction": ("v", self.memory.variables),
            "prepared": ("prepared", self.prepared_at), "local": ("scratch", self.scratch_at),
            "output": ("out", {n: p.offset for n, p in self.memory.outputs.items()}),
        }[array.role]  # fmt: skip
        return f"shifted({base}, {sizes.text(offset[array.name])})"

    def load(self, array: Array, prepared: bool) -> None:
        """Read an array of rank 0 into a variable."""
        name = array.name
        if array.role in ("variable", "direction"):
            self.line(f"{name} = {'y' if array.role == 'variable' else 'v'}[{sizes.text(self.memory.variables[name])}]")
        elif array.role in ("weight", "data", "common"):
            self.line(f"{name} = {self.pointer(array)}[0]")
        elif array.role == "prepared" and prepared:
            self.line(f"{name} = prepared[{sizes.text(self.prepared_at[name])}]")

    def address(self, array: Array, subscripts: Sequence[Affine]) -> str:
        blocks = self._blocks(array)
        if blocks:
            parts = []
            start = 0
            for count, distance in blocks:
                axes, own = array.axes[start : start + count], subscripts[start : start + count]
                start += count
                flat = _flat(axes, own, self.integer)
                step = sizes.text(distance)
                if flat != "0":
                    parts.append(flat if step == "1" else f"({flat})*({step})")
            return " + ".join(parts) or "0"
        row = self.rows.get(array.name)
        return _flat(without_axis(array.axes, row), without_axis(tuple(subscripts), row), self.integer)

    def _blocks(self, array: Array) -> tuple[tuple[int, sizes.Size], ...]:
        if array.name in self.memory.outputs:
            return self.memory.outputs[array.name].blocks
        if array.name in self.memory.rows:
            return ((1, self.memory.rows[array.name]), (len(array.axes) - 1, sizes.ONE_SIZE))
        return ()

    def _entry(self, array: Array, subscripts: Sequence[Affine]) -> str:
        """Source text of an entry of an integer array; our own lie in memory for float64."""
        text = f"{array.name}[{self.address(array, subscripts)}]" if array.axes else array.name
        return f"int({text})" if array.role in ("local", "prepared") else text

    def integer(self, value: Affine) -> str:
        """Source text of an affine integer."""
        parts = []
        for item, count in value.terms:
            text = item if isinstance(item, str) else self._entry(self.program.arrays[item.array], item.subscripts)
            parts.append(text if count == 1 else f"{count}*{text}")
        if value.constant or not parts:
            parts.append(str(value.constant))
        return " + ".join(parts).replace("+ -", "- ")


def _flat(axes: Sequence[Range], subscripts: Sequence[Affine], integer: object) -> str:
    """The position in memory of an entry of an array in C order, by Horner's rule."""
    result = ""
    for axis, subscript in zip(axes, subscripts, strict=True):
        own = integer(subscript)  # type: ignore[operator]
        extent = integer(axis.stop)  # type: ignore[operator]
        if not result or result == "0":
            result = own
        else:
            left = result if result.isidentifier() else f"({result})"
            right = extent if extent.isalnum() else f"({extent})"
            result = f"{left}*{right}" + ("" if own == "0" else f" + {own}")
    return result or "0"


def without_axis(items: tuple[T, ...], place: int | None) -> tuple[T, ...]:
    return tuple(item for k, item in enumerate(items) if k != place)
