"""Two passes that move work to where it is done less often.

prepare   what depends on weights alone becomes a `prepared` array, computed once for a whole call
hoist     an expensive part of a term that lacks one of its loops becomes an array of its own

    t += exp(-exp(-2*w[k])*d[k, q]**2)  for k, q      ->      p[k] = exp(-2*w[k])      (prepared)
                                                              t += exp(-p[k]*d[k, q]**2)  for k, q
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ..program.expression import Op, add, mul, name, read, rebuild, replace_indices
from ..program.family import members_of, with_axes
from ..program.primitives import CHEAP
from ..program.program import Array, Program, Range, Role, Statement, unused
from ..program.ranges import axes_of, in_order, is_closed, widened

Loops = tuple[str, ...]
Pick = Callable[[Statement, Op], Loops | None]


def prepare(program: Program) -> Program:
    """Move whatever depends on weights alone into prepared arrays.

    A part is moved if it is more than a read and no larger than an array that it reads, so that nothing grows, but by
    the axes of a family: there it is computed for all members at once (family.py).
    """
    known = {a.name for a in program.arrays.values() if a.role == "weight"}
    arrays = dict(program.arrays)
    writers = Counter(s.target for s in program.statements)
    for statement in program.statements:
        array = arrays[statement.target]
        if array.role == "local" and writers[array.name] == 1 and statement.expression.arrays <= known:
            arrays[array.name] = replace(array, role="prepared")
            known.add(array.name)

    def pick(statement: Statement, node: Op) -> Loops | None:
        if not node.arrays or not node.arrays <= known or arrays[statement.target].role == "prepared":
            return None
        return loops_of_a_read(statement, node)

    prepared = extract(replace(program, arrays=arrays), pick, "prepared", "from weights alone")
    targets = {a.name for a in prepared.arrays.values() if a.role == "prepared"}
    return with_axes(prepared, members_of(prepared, targets) if program.family else {})


def loops_of_a_read(statement: Statement, node: Op) -> Loops | None:
    """The loops of a part, if a single read in it has all of them: an array over them is no larger than that one."""
    loops = {i for i in node.indices if i in statement.loops}
    for item in node.reads:
        own = [str(i) for s in item.args[1] if (i := s.single) in loops]
        if set(own) == loops:
            return tuple(dict.fromkeys(own))
    return None


def extract(program: Program, pick: Pick, role: Role, note: str) -> Program:
    """Replace the largest parts of a program that `pick` gives loops for by reads of new arrays."""
    return _Extraction(program, pick, role, note).run()


def hoist(program: Program) -> Program:
    """Give an expensive part that lacks a loop of its statement an array of its own."""

    def pick(statement: Statement, node: Op) -> Loops | None:
        loops = tuple(i for i in statement.loops if i in node.indices)
        whole = not loops or len(loops) == len(statement.loops)
        return None if whole or not is_expensive(node) else loops

    return extract(program, pick, "local", "the same for several terms")


def is_expensive(node: Op) -> bool:
    if node.name == "power":
        return not (isinstance(node.args[1], int) and 0 < node.args[1] < 5)
    return node.name not in CHEAP and node.name not in ("number", "read", "affine", "add", "mul")


@dataclass
class _Extraction:
    """Replaces the largest parts of a program that `pick` gives loops for by reads of new arrays."""

    program: Program
    pick: Pick
    role: Role
    note: str
    made: dict[tuple[Op, Loops, Role], str] = field(default_factory=dict)
    before: list[Statement] = field(default_factory=list)

    def run(self) -> Program:
        self.arrays, self.ranges = dict(self.program.arrays), dict(self.program.ranges)
        self.whole = frozenset(
            s.target for s in self.program.statements
            if s.is_definition and tuple(self.ranges[i] for i in s.kept) == self.arrays[s.target].axes
        )  # fmt: skip
        statements: list[Statement] = []
        for statement in self.program.statements:
            expression = self._visit(statement, statement.expression, {})
            statements += [*self.before, replace(statement, expression=expression)]
            self.before.clear()
        return replace(self.program, arrays=self.arrays, ranges=self.ranges, statements=tuple(statements))

    def _picked(self, statement: Statement, node: Op) -> Loops | None:
        """The loops of an array for the node, where there can be one."""
        loops = self.pick(statement, node)
        return loops if loops is not None and self._own_ranges(node, loops) is not None else None

    def _own_ranges(self, node: Op, loops: Loops) -> dict[str, Range] | None:
        """Ranges of the loops by themselves; see ranges.py."""
        if is_closed(loops, self.ranges):
            return {i: self.ranges[i] for i in loops} if axes_of(loops, self.ranges) is not None else None
        return widened(node, loops, self.ranges, self.arrays, self.whole)

    def _visit(self, statement: Statement, node: Op, memo: dict[Op, Op]) -> Op:
        if node not in memo:
            memo[node] = self._replaced(statement, node, memo)
        return memo[node]

    def _replaced(self, statement: Statement, node: Op, memo: dict[Op, Op]) -> Op:
        if not node.children or (node.name == "mul" and _is_multiple(node)):
            return node
        loops = self._picked(statement, node)
        if loops is not None:
            return self._array(statement, node, loops)
        if node.name in ("add", "mul"):
            combine = add if node.name == "add" else mul
            fixed = [a for a in node.args if a.name == "number" or self._picked(statement, a) is not None]
            part = combine(*fixed)
            loops = self._picked(statement, part) if part.children and not _is_multiple(part) else None
            if loops is not None:
                others = [self._visit(statement, a, memo) for a in node.args if a not in fixed]
                return combine(self._array(statement, part, loops), *others)
        return rebuild(node, tuple(self._visit(statement, a, memo) if isinstance(a, Op) else a for a in node.args))

    def _array(self, statement: Statement, node: Op, loops: Loops) -> Op:
        role: Role = "prepared" if self.arrays[statement.target].role == "prepared" else self.role
        target = self.made.get((node, loops, role))
        if target is None:
            target = self.made[node, loops, role] = unused(self.arrays, role[0])
            own = self._own_ranges(node, loops)
            assert own is not None, "only what can be extracted is picked"
            mapping = {i: name(i if own[i] == self.ranges[i] else self._index(own[i])) for i in loops}
            fresh = tuple(map(str, mapping.values()))
            axes = axes_of(fresh, self.ranges)
            assert axes is not None
            self.arrays[target] = Array(target, axes, role, origin=self.note)
            made = replace_indices(node, mapping)
            subscripts, order = tuple(mapping.values()), in_order(fresh, self.ranges)
            self.before.append(Statement(target, subscripts, order, made, note=self.note))
        return read(target, map(name, loops))

    def _index(self, values: Range) -> str:
        fresh = unused(self.ranges, "q")
        self.ranges[fresh] = values
        return fresh


def _is_multiple(node: Op) -> bool:
    """A number times a read is not worth an array."""
    return node.name == "mul" and len(node.args) == 2 and node.args[0].name == "number" and node.args[1].name == "read"
