"""The indexed program: what an energy is between SymPy and a kernel.

A program is a list of statements

    target[subscripts]  =  f(reads)        for every value of the loops            (a map)
    target[subscripts] +=  f(reads)        summed over the loops that are not subscripts of the target

over named indices with one range each. f is pointwise (expression.py). Example, -Sum(exp(-(x[i] - t)**2), i):

    E[]  +=  -exp(-(x0[i] - y0[])**2)      loops i in 0 .. n0

An accumulating statement may also multiply, or take the largest value (of nothing -infinity) or the smallest
(`reduction`), or say at which value of its one summed loop f is smallest or largest first (`argmin`, `argmax`: an
integer array, which others gather through). A range may depend on indices that come before it in the loops: all pairs
are i in 0 .. n0, j in 0 .. i.

Programs are data. A pass is a function from program to program; `check` states what every program obeys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ...energies.errors import WibergError
from .expression import Affine, Move, Op, gathers, relocated, show
from .primitives import PRIMITIVES

Role = Literal["variable", "direction", "weight", "data", "common", "prepared", "local", "output"]
Reduction = Literal["sum", "product", "maximum", "minimum", "argmin", "argmax"]

OPERATORS: dict[str, str] = {
    "sum": "+=", "product": "*=", "maximum": "max=", "minimum": "min=", "argmin": "argmin=", "argmax": "argmax=",
}  # fmt: skip


@dataclass(frozen=True)
class Range:
    """The values start, ..., stop - 1 of an index; both ends are affine in extents and in indices further out."""

    start: Affine
    stop: Affine

    @property
    def names(self) -> frozenset[str]:
        """Extents and indices in it."""
        return self.start.names | self.stop.names

    @property
    def gathers(self) -> frozenset[str]:
        """Index arrays in it: none as the user writes it, but `u[e[k]]` of a partial sum u sums up to e[k]."""
        return gathers(self.start) | gathers(self.stop)

    def replaced(self, mapping: Mapping[str, Affine]) -> Range:
        return Range(self.start.replaced(mapping), self.stop.replaced(mapping))

    def relocated(self, move: Move) -> Range:
        return Range(self.start.relocated(move), self.stop.relocated(move))

    def __str__(self) -> str:
        return f"{self.start} .. {self.stop}"


@dataclass(frozen=True)
class Array:
    """An array: its axes are ranges, of which inputs and outputs start at 0. `origin` says what it is, for people."""

    name: str
    axes: tuple[Range, ...]
    role: Role
    integer: bool = False
    origin: str = ""


@dataclass(frozen=True)
class Statement:
    """One assignment; see the top of this file.

    `note` says what it computes. A sum starts from 0, unless it `adds` to what earlier statements wrote. `reduction`
    is how the values of an accumulating statement are put together.
    """

    target: str
    subscripts: tuple[Affine, ...]
    loops: tuple[str, ...]
    expression: Op
    accumulate: bool = False
    note: str = ""
    adds: bool = False
    reduction: Reduction = "sum"

    @property
    def kept(self) -> tuple[str, ...]:
        """Loops that are subscripts of the target, in the order of the subscripts."""
        names = [n for s in self.subscripts for n in sorted(s.names) if n in self.loops]
        return tuple(dict.fromkeys(names))

    @property
    def summed(self) -> tuple[str, ...]:
        """Loops that the target does not have."""
        kept = self.kept
        return tuple(i for i in self.loops if i not in kept)

    @property
    def is_definition(self) -> bool:
        """Whether it defines its whole target: the subscripts are distinct loops and nothing else."""
        singles = [s.single for s in self.subscripts]
        return (
            not self.adds
            and None not in singles
            and len(set(singles)) == len(singles)
            and set(singles) <= set(self.loops)
        )

    @property
    def arrays(self) -> frozenset[str]:
        """Names of the arrays that must be known before it runs, but for those of the ranges of its loops."""
        return self.expression.arrays.union(*(gathers(s) for s in self.subscripts))

    def __str__(self) -> str:
        where = f"[{', '.join(map(str, self.subscripts))}]"
        loops = f"      for {', '.join(self.loops)}" if self.loops else ""
        note = f"      # {self.note}" if self.note else ""
        operator = OPERATORS[self.reduction] if self.accumulate else "="
        return f"{self.target}{where} {operator} {show(self.expression)}{loops}{note}"


@dataclass(frozen=True)
class Program:
    """Arrays, index ranges and statements in order of execution.

    `family` are indices that no statement loops over: a kernel computes one value of them, as it does one instance.
    """

    arrays: Mapping[str, Array]
    ranges: Mapping[str, Range]
    extents: tuple[str, ...]
    statements: tuple[Statement, ...]
    family: Mapping[str, Range] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"extents {', '.join(self.extents)}" if self.extents else "no extents"]
        lines += [f"family {name} in {r}" for name, r in self.family.items()]
        lines += [f"index {name} in {r}" for name, r in self.ranges.items()]
        for array in self.arrays.values():
            lines.append(f"{array.role} {array.name}[{', '.join(map(str, array.axes))}]  {array.origin}".rstrip())
        return "\n".join(lines + [str(s) for s in self.statements])


def arrays_read(program: Program, statement: Statement) -> frozenset[str]:
    """Names of all arrays that must be known before a statement runs."""
    return statement.arrays.union(*(program.ranges[i].gathers for i in statement.loops if i in program.ranges))


def inputs_read(program: Program) -> tuple[str, ...]:
    """Names of the variables, weights and data that statements read, sorted."""
    read = frozenset[str]().union(*(arrays_read(program, statement) for statement in program.statements))
    return tuple(sorted(n for n in read if program.arrays[n].role in ("variable", "weight", "data")))


def moved(statement: Statement, move: Move) -> Statement:
    """The statement with all that it reads and gathers through moved; its target stays."""
    subscripts = tuple(s.relocated(move) for s in statement.subscripts)
    return replace(statement, subscripts=subscripts, expression=relocated(statement.expression, move))


def unused(names: Iterable[str], letter: str) -> str:
    """A name made of the letter and a number that is not taken."""
    taken = set(names)
    k = len(taken)
    while f"{letter}{k}" in taken:
        k += 1
    return f"{letter}{k}"


class ProgramError(WibergError, AssertionError):
    """A broken invariant: a bug of the compiler, never the user's."""


# ---------------------------------------------------------------------------------------------- the verifier


def check(program: Program) -> Program:
    """Raise ProgramError, naming the statement, if an invariant is broken; return the program otherwise."""
    for invariant in INVARIANTS:
        for position, problem in invariant(program):
            around = program.statements[max(0, position - 2) : position + 3]
            raise ProgramError(f"{invariant.__name__}: {problem}\n" + "\n".join(f"    {s}" for s in around))
    return program


Problems = Iterable[tuple[int, str]]


def arrays_are_defined_before_use(program: Program) -> Problems:
    """Inputs are never written; a local array is complete before it is read, and no statement reads its target."""
    defined = {a.name for a in program.arrays.values() if a.role not in ("local", "prepared", "output")}
    inputs = frozenset(defined)
    last_write = {s.target: k for k, s in enumerate(program.statements)}
    for position, statement in enumerate(program.statements):
        if statement.target in inputs or statement.target not in program.arrays:
            yield position, f"{statement.target} is an input or unknown, and is written"
        for name in sorted(arrays_read(program, statement)):
            if name not in program.arrays or (name not in defined and name not in last_write):
                yield position, f"{name} is read and never defined"
            elif name in last_write and last_write[name] >= position:
                yield position, f"{name} is read before it is complete"


def each_local_has_one_definition(program: Program) -> Problems:
    """A local array has one defining statement, or the constant 0 first and then additions."""
    first: dict[str, Statement] = {}
    for position, statement in enumerate(program.statements):
        if program.arrays[statement.target].role not in ("local", "prepared"):
            continue
        before = first.setdefault(statement.target, statement)
        if before is statement:
            if not statement.is_definition:
                yield position, f"{statement.target} is not defined over all of its entries"
        elif before.accumulate or before.expression.name != "number" or not statement.adds:
            yield position, f"{statement.target} is defined twice"


def subscripts_are_loops(program: Program) -> Problems:
    """Every index in a subscript or value is a loop of its statement, every other name an extent."""
    for position, statement in enumerate(program.statements):
        allowed = set(statement.loops) | set(program.extents) | set(program.family)
        used = set(statement.expression.indices).union(*(s.names for s in statement.subscripts))
        if used - allowed:
            yield position, f"{', '.join(sorted(used - allowed))} is neither a loop nor an extent"
        if len(set(statement.loops)) != len(statement.loops) or set(statement.loops) - set(program.ranges):
            yield position, "a loop is repeated or has no range"


def ranks_match(program: Program) -> Problems:
    """An array is read and written with as many subscripts as it has axes; index data are integers."""
    for position, statement in enumerate(program.statements):
        if len(statement.subscripts) != len(program.arrays[statement.target].axes):
            yield position, f"{statement.target} is written with {len(statement.subscripts)} subscripts"
        for item in statement.expression.reads:
            if len(item.args[1]) != len(program.arrays[item.args[0]].axes):
                yield position, f"{item} has the wrong number of subscripts"
            for name in sorted(frozenset().union(*(gathers(s) for s in item.args[1]))):
                if not program.arrays[name].integer:
                    yield position, f"{name} is gathered through and is not integer"


def assignments_sum_nothing(program: Program) -> Problems:
    """A plain assignment has no loop that its target lacks."""
    for position, statement in enumerate(program.statements):
        if not statement.accumulate and statement.summed:
            yield position, f"{statement.target} is assigned for every {', '.join(statement.summed)}"


def ranges_depend_on_loops_further_out(program: Program) -> Problems:
    """A range knows extents and earlier loops; what a definition keeps depends on nothing that it sums over."""
    for position, statement in enumerate(program.statements):
        known = set(program.extents) | set(program.family)
        for loop in statement.loops:
            unknown = program.ranges[loop].names - known if loop in program.ranges else ()
            if unknown:
                yield position, f"the range of {loop} depends on {', '.join(sorted(unknown))}"
            known.add(loop)
        kept = set(statement.kept)
        for loop in statement.kept if statement.is_definition else ():
            if program.ranges[loop].names - kept - set(program.extents) - set(program.family):
                yield position, f"{loop} is kept, and its range depends on a loop that is not"


def reductions_have_a_meaning(program: Program) -> Problems:
    """Only sums add to what is there; a first extreme is an integer array over one summed loop."""
    for position, statement in enumerate(program.statements):
        first = statement.reduction in ("argmin", "argmax")
        if statement.reduction != "sum" and (statement.adds or not statement.accumulate):
            yield position, f"a {statement.reduction} is taken of all values, and adds to nothing"
        if first and len(statement.summed) != 1:
            yield position, "a first extreme is taken over one loop"
        array = program.arrays[statement.target]
        if first != array.integer:
            yield position, f"{statement.target} is {'' if array.integer else 'not '}integer"


def functions_are_primitives(program: Program) -> Problems:
    """Expressions hold numbers, reads, indices, sums, products, powers and primitives of the table only."""
    known = set(PRIMITIVES) | {"number", "affine", "read", "add", "mul", "power", "true", "false"}
    for position, statement in enumerate(program.statements):
        todo, seen = [statement.expression], set()
        while todo:
            node = todo.pop()
            if node in seen:
                continue
            seen.add(node)
            todo.extend(node.children)
            if node.name not in known:
                yield position, f"{node.name} is no primitive"


def outputs_are_written(program: Program) -> Problems:
    """Every output has a statement."""
    written = {s.target for s in program.statements}
    for array in program.arrays.values():
        if array.role == "output" and array.name not in written:
            yield len(program.statements), f"the output {array.name} is never written"


INVARIANTS = (
    arrays_are_defined_before_use,
    ranks_match,
    subscripts_are_loops,
    each_local_has_one_definition,
    assignments_sum_nothing,
    ranges_depend_on_loops_further_out,
    reductions_have_a_meaning,
    functions_are_primitives,
    outputs_are_written,
)
