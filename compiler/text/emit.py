"""From a schedule to the text of a kernel: two functions, `prepare` and `evaluate`, of the calling convention.

Each nest becomes loops. A node of an expression is computed at the shallowest loop at which all that it depends on is
known; nodes used more than once, or computed outside the loop that uses them, get a name. A sum whose target does not
vary in the loops inside it is kept in a register; other sums are added to memory that was zeroed before the nest.

No text of the user reaches the code: names are generated, and what is quoted in comments is ASCII on one line.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from types import MappingProxyType

from ..program.expression import ZERO
from ..program.family import loop_over
from ..program.program import Program, Statement, arrays_read
from . import sizes
from .freeze import Placement
from .function_text import FunctionText, Memory, without_axis
from .nest_text import NestText, write_rows
from .nests import Nest
from .schedule import Schedule


@dataclass(frozen=True)
class Emitted:
    """The text of a kernel, how much memory it needs, as polynomials in the extents, and what it reads.

    reads   variables, weights and data on which what it writes depends, by generated name, sorted
    """

    source: str
    prepared: sizes.Size
    scratch: sizes.Size
    out: sizes.Size
    reads_common: bool = False
    reads: tuple[str, ...] = ()


def emit(plan: Schedule, memory: Memory, out: sizes.Size, title: str, legend: Iterable[str]) -> Emitted:
    """The source of one kernel.

    Parameters
    ----------
    plan : Schedule
    memory : Memory
    out : Size
        Numbers that the kernel writes to `out`.
    title, legend : str
        What the kernel computes, and lines about names, for the comment on top; ASCII.
    """
    prepared_at, prepared_size = _offsets(plan.program, "prepared")
    scratch_at, scratch_size = _offsets(plan.program, "local", plan.scalars, plan.rows)
    head = [f"# {title}", *(f"#   {line}" for line in legend), ""]
    prepare = _Function(plan.program, memory, plan.scalars, plan.rows, prepared_at, scratch_at)
    prepare.body("def prepare(table, extents, instance, prepared):", plan.prepare, prepared=False)
    evaluate = _Function(plan.program, memory, plan.scalars, plan.rows, prepared_at, scratch_at)
    evaluate.body("def evaluate(y, v, table, extents, instance, prepared, scratch, out):", plan.evaluate, prepared=True)
    source = "\n".join([*head, *prepare.lines, "", "", *evaluate.lines, ""])
    return Emitted(source, prepared_size, scratch_size, out, bool(memory.common))


def _offsets(
    program: Program, role: str, without: Collection[str] = (), rows: Mapping[str, int] = MappingProxyType({})
) -> tuple[dict[str, sizes.Size], sizes.Size]:
    """The place of every array of a role in one block of memory; local scalars are variables and need none."""
    total: sizes.Size = sizes.ZERO_SIZE
    places: dict[str, sizes.Size] = {}
    for array in program.arrays.values():
        if array.role == role and array.name not in without and (array.axes or role == "prepared"):
            places[array.name] = total
            total = sizes.plus(total, sizes.room(without_axis(array.axes, rows.get(array.name))))
    return places, total


class _Function(FunctionText):
    """A function with its loop nests."""

    # ---------------------------------------------------------------------------------- the whole

    def body(self, head: str, nests: Sequence[Nest], *, prepared: bool) -> None:
        self.lines.append(head)
        statements = [s for nest in nests for s in nest.statements]
        used = {a for s in statements for a in arrays_read(self.program, s)} | {s.target for s in statements}
        for k, extent in enumerate(self.program.extents):
            self.line(f"{extent} = extents[{k}]")
        if self.program.family and (prepared or statements):
            self._member(prepared=prepared)
        pointers = [a for a in self.program.arrays.values() if a.name in used and self.has_memory(a, prepared)]
        for array in self.program.arrays.values():
            if array in pointers:
                where = self.pointer(array)
                self.line(f"{array.name} = separate({where}, {pointers.index(array)}, {len(pointers)})")
            elif array.name in used:
                self.load(array, prepared)
        for k, nest in enumerate(nests):
            rest = list(takewhile(lambda n: n.joined, nests[k + 1 :]))
            if rest and not nest.joined:
                self._rows([nest, *rest])
            elif not nest.joined:
                self._nest(nest)
        if prepared and self.memory.mirror is not None:
            self._mirror(*self.memory.mirror)
        returns = prepared and "value" in used and not self.program.arrays["value"].axes
        self.line("return value" if returns else "return 0.0")

    def _member(self, *, prepared: bool) -> None:
        """Take the row apart into an instance and the indices of the family, the last one fastest.

        Where the table has the numbers of chosen rows, the k-th of them is meant by k.
        Where weights are shared, `prepare` is called once, for all members; else for each row, for its member.
        """
        family = self.program.family
        sizes_of = {index: self.integer(values.stop) for index, values in family.items()}
        chosen = f"table[{2 * self.memory.chosen_row}]"
        self.line(f"if {chosen} != 0:")
        self.line(f"    instance = integer_pointer_at({chosen})[instance]")
        for index in reversed(tuple(family)):
            self.line(f"{index} = instance % max(1, {sizes_of[index]})")
            self.line(f"instance = instance // max(1, {sizes_of[index]})")
        if not prepared:
            rows = [r for n, r in self.memory.table.items() if self.program.arrays[n].role == "weight"]
            self.line(f"is_shared = {' and '.join(f'table[{2 * r + 1}] == 0' for r in rows) or 'True'}")
            for index in family:
                self.line(f"{index}_begin = 0 if is_shared else {index}")
                self.line(f"{index}_end = {sizes_of[index]} if is_shared else {index} + 1")

    def _mirror(self, offset: sizes.Size, order: sizes.Size) -> None:
        self.line("# the Hessian is symmetric: its lower triangle is copied from the upper one")
        self.line(f"matrix, order = shifted(out, {sizes.text(offset)}), {sizes.text(order)}")
        self.line("for row in range(order):")
        self.line("    for column in range(row):")
        self.line("        matrix[row*order + column] = matrix[column*order + row]")

    # ---------------------------------------------------------------------------------- nests

    def _rows(self, nests: Sequence[Nest]) -> None:
        texts = [(nest, self._statements(nest)) for nest in nests]
        write_rows([(self._text(nest, own), _comment(own)) for nest, own in texts if own])

    def _nest(self, nest: Nest) -> None:
        statements = self._statements(nest)
        if not statements:
            return
        for line in _comment(statements):
            self.line(f"# {line}")
        whole = self._text(nest, statements)
        unrolled = whole.unrolled()
        if not unrolled:
            whole.write()
            return
        whole.zero()
        for part in unrolled:
            part.write(zero=False)

    def _statements(self, nest: Nest) -> list[Statement]:
        return [s for s in nest.statements if not self._is_void(s)]

    def _text(self, nest: Nest, statements: Sequence[Statement]) -> NestText:
        maps = {s.target for s in statements if not s.accumulate and s.is_definition and len(s.kept) == len(nest.loops)}
        maps = {m for m in maps if self.program.arrays[m].role == "local"}
        placement = Placement(nest.loops, maps if nest.loops else ())
        values = self._triangle(nest.loops, statements)
        values |= {loop_over(f): f"{f}_begin, {f}_end" for f in self.program.family if loop_over(f) in nest.loops}
        return NestText(self, nest.loops, statements, placement, frozenset(maps), values)

    def _triangle(self, loops: Sequence[str], statements: Sequence[Statement]) -> dict[str, str]:
        """The range of the inner loop where all statements add to one symmetric matrix: from the diagonal on.

        Only where the lower triangle is copied from the upper one afterwards. It begins at a multiple of 8, so that the
        loop still vectorises.
        """
        if self.memory.mirror is None or len(loops) < 2:
            return {}
        row, column = loops[0], loops[-1]
        ranges = self.program.ranges
        blocks = {f"hessian_{a}_{a}" for a in self.memory.variables}
        whole = str(ranges[row]) == str(ranges[column]) and self.integer(ranges[row].start) == "0"
        fits = all(
            s.target in blocks and s.accumulate and [x.single for x in s.subscripts] == [row, column]
            for s in statements
        )
        return {column: f"{row}//8*8, {self.integer(ranges[column].stop)}"} if whole and fits else {}

    def _is_void(self, statement: Statement) -> bool:
        """Zeroing an output that the kernel adds to."""
        is_output = self.program.arrays[statement.target].role == "output"
        return is_output and self.memory.accumulate and statement.expression is ZERO


def _comment(statements: Sequence[Statement]) -> list[str]:
    """What a nest computes: targets by purpose."""
    purposes: dict[str, list[str]] = {}
    for s in statements:
        purposes.setdefault(s.note or "intermediate", []).append(s.target)
    text = "; ".join(f"{', '.join(dict.fromkeys(targets))}: {note}" for note, targets in purposes.items())
    return textwrap.wrap(text, 100)
