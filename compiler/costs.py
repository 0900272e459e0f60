"""What a kernel costs, counted from its program: operations, function calls and bytes as functions of the extents.

A node is counted once for each value of the loops that it depends on, because loop-invariant work is hoisted and equal
nodes of a nest are computed once. What depends on weights alone is computed once for a call and counted apart.
`structure` tells what the program of the Hessian shows about its shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import sympy as sp

from ..energies.energy import Energy
from .derive import derive, out_size, scheduled, value
from .passes.degree import is_quadratic
from .program.expression import ZERO, Affine, Gather, Op, gathers
from .program.primitives import CHEAP
from .program.program import Array, Program, Statement
from .program.ranges import closed
from .text.nests import Nest
from .text.schedule import Schedule

NUMBER_BYTES = 8

# What an operation takes in a loop on a CPU of the 2020s, in nanoseconds: additions and products vectorised, `exp`
# our own vectorised one, other functions one call of the C library for each number. Good to a factor of 3.
OPERATION = 0.05
CALL = {"exp": 0.6, "sqrt": 0.5, "reciprocal": 0.4, "pow": 20.0, "erf": 10.0, "erfc": 10.0}
OTHER_CALL = 8.0
BYTE = 0.01
INSTANCE = 8.0  # for the call itself


@dataclass(frozen=True)
class Cost:
    """The work for one instance (one member of a family), as SymPy expressions in the extents of the energy.

    What the members of a family have in common is not counted: it is computed once for all of them.

    operations   additions, products and comparisons
    calls        function -> how often it is evaluated; a division counts as `reciprocal`
    read, written, scratch   bytes of inputs, of outputs, and of intermediate arrays (written and read)
    once         operations and calls that depend on weights alone, done once for a call
    """

    operations: Any
    calls: Mapping[str, Any]
    read: Any
    written: Any
    scratch: Any
    once: Any

    @property
    def flops(self) -> Any:
        """All of them, a function counted as one."""
        return sp.expand(self.operations + sum(self.calls.values()))

    @property
    def bytes(self) -> Any:
        return sp.expand(self.read + self.written + self.scratch)

    def nanoseconds(self, sizes: Mapping[Any, int]) -> float:
        """An estimate of the time for one instance."""
        work = INSTANCE + OPERATION * at(self.operations, sizes) + BYTE * at(self.bytes, sizes)
        return work + sum(CALL.get(name, OTHER_CALL) * at(count, sizes) for name, count in self.calls.items())


def at(size: Any, sizes: Mapping[Any, int]) -> int:
    """A count for given extents; loops over nothing count as 0, up to an index datum: to the largest extent."""
    count = sp.sympify(size).subs(sizes)
    return max(0, int(count.subs(dict.fromkeys(count.free_symbols, max(sizes.values(), default=1)))))


def cost(energy: Energy, kind: str) -> Cost:
    """The cost of one kind of kernel."""
    program, plan = scheduled(energy, kind)
    symbols = dict(zip(program.extents, energy.extents, strict=False))
    counts = _Counts(plan.program, symbols)
    operations, calls = counts.work(plan.evaluate)
    once_operations, once_calls = counts.work(plan.prepare)
    read, scratch = counts.memory(plan)
    outputs = out_size(kind, program)
    written: Any = sum(c * sp.Mul(*(symbols.get(n, sp.Symbol(n)) for n in m)) for m, c in outputs.items())
    return Cost(
        sp.expand(operations),
        {name: sp.expand(count) for name, count in sorted(calls.items()) if count != 0},
        sp.expand(NUMBER_BYTES * read),
        sp.expand(NUMBER_BYTES * written) if written != 0 else sp.Integer(NUMBER_BYTES),
        sp.expand(NUMBER_BYTES * scratch),
        sp.expand(once_operations + sum(once_calls.values())),
    )


@dataclass(frozen=True)
class _Counts:
    program: Program
    symbols: Mapping[str, Any]

    def integer(self, value: Affine) -> Any:
        """An affine integer expression in SymPy; indices keep their names."""
        total: Any = sp.Integer(value.constant)
        for item, count in value.terms:
            symbol = sp.Symbol(str(item)) if isinstance(item, Gather) else self.symbols.get(item, sp.Symbol(item))
            total += count * symbol
        return total

    def points(self, loops: Sequence[str]) -> Any:
        """How many values the loops take together; bounds may depend on loops further out."""
        total: Any = sp.Integer(1)
        for loop in reversed(closed(loops, self.program.ranges)):
            limits, symbol = self.program.ranges[loop], sp.Symbol(loop)
            start, stop = self.integer(limits.start), self.integer(limits.stop)
            total = sp.summation(total, (symbol, start, stop - 1)) if total.has(symbol) else total * (stop - start)
        return total

    def work(self, nests: Iterable[Nest]) -> tuple[Any, dict[str, Any]]:
        """Operations, and calls by function, of loop nests."""
        operations: Any = sp.Integer(0)
        calls: dict[str, Any] = {}
        for nest in nests:
            seen: set[Op] = set()
            for statement in nest.statements:
                own = tuple(i for i in nest.loops if i in statement.loops)
                if statement.accumulate:
                    operations += self.points(own)
                for node in _distinct(statement.expression, seen):
                    times = self.points([i for i in own if i in node.indices])
                    count, function = node_cost(node)
                    operations += count * times
                    for name in function:
                        calls[name] = calls.get(name, 0) + times
        return operations, calls

    def memory(self, plan: Schedule) -> tuple[Any, Any]:
        """Numbers of inputs read, and of intermediates written and read."""
        read: Any = sp.Integer(0)
        scratch: Any = sp.Integer(0)
        statements = [s for nest in plan.evaluate for s in nest.statements]
        for name in sorted(frozenset().union(*(_touched(s) for s in statements))):
            array = self.program.arrays[name]
            if array.role in ("variable", "direction", "weight", "data", "common", "prepared"):
                read += self.entries_read(array, statements)
            elif array.role == "local" and name not in plan.scalars and name not in plan.rows and array.axes:
                scratch += 2 * self.volume(array)
        return read, scratch

    def entries_read(self, array: Array, statements: Sequence[Statement]) -> Any:
        """All of an array, or, where it is read through index data only, as many entries as are looked up."""
        reads = {item: s.loops for s in statements for item in s.expression.reads if item.args[0] == array.name}
        if not reads or not all(any(gathers(a) for a in item.args[1]) for item in reads):
            return self.volume(array)
        return sum(self.points([i for i in loops if i in item.indices]) for item, loops in reads.items())

    def volume(self, array: Array) -> Any:
        return sp.Mul(*(self.integer(axis.stop) - self.integer(axis.start) for axis in array.axes))


def _touched(statement: Statement) -> frozenset[str]:
    return statement.expression.arrays | {statement.target}


def _distinct(node: Op, seen: set[Op]) -> list[Op]:
    """The nodes of an expression that have not been seen yet."""
    found, todo = [], [node]
    while todo:
        item = todo.pop()
        if item not in seen:
            seen.add(item)
            found.append(item)
            todo.extend(item.children)
    return found


def node_cost(node: Op) -> tuple[int, tuple[str, ...]]:
    """Operations of one node given its children, and the functions that it calls."""
    if node.name in ("number", "read", "affine", "true", "false"):
        return 0, ()
    if node.name == "add":
        return len(node.args) - 1, ()
    if node.name == "mul":
        return len(node.args) - 1 - (node.args[0].name == "number" and node.args[0].args[0] == -1), ()
    if node.name == "power":
        return _power_cost(node.args[1])
    return (1, ()) if node.name in CHEAP else (0, (node.name,))


def _power_cost(exponent: Any) -> tuple[int, tuple[str, ...]]:
    below = ("reciprocal",) if exponent < 0 else ()
    whole = abs(exponent)
    if isinstance(exponent, int):
        return whole.bit_length() - 2 + whole.bit_count(), below
    if isinstance(exponent, Fraction) and exponent.denominator == 2:
        return whole.numerator // 2, ("sqrt", *below)
    return 0, ("pow",)


# ---------------------------------------------------------------------------------------------- structure


@dataclass(frozen=True)
class Block:
    """The second derivatives in two variables: how many entries can differ from 0, and where they are.

    shape   "zero", "diagonal", "sparse" or "dense"
    most    an upper bound of the entries that are not 0; `all` of them, if it is dense
    """

    left: str
    right: str
    shape: str
    most: Any
    all: Any


@dataclass(frozen=True)
class Structure:
    """What the program of the Hessian shows: its blocks, and whether it depends on the variables."""

    blocks: tuple[Block, ...]
    constant: bool


def structure(energy: Energy) -> Structure:
    """The structure of the Hessian, from the statements that write it."""
    program = derive(energy, "hessian")
    counts = _Counts(program, dict(zip(program.extents, energy.extents, strict=True)))
    variables = [a for a in program.arrays.values() if a.role == "variable"]
    user = {a.name: str(s.name) for a, s in zip(variables, energy.variables, strict=True)}
    blocks = []
    for k, left in enumerate(variables):
        for right in variables[k:]:
            target = f"hessian_{left.name}_{right.name}"
            found = [s for s in program.statements if s.target == target and s.expression is not ZERO]
            blocks.append(_block(found, left, right, user, counts))
    return Structure(tuple(blocks), is_quadratic(value(energy), user))


def _block(found: list[Statement], left: Array, right: Array, user: Mapping[str, str], counts: _Counts) -> Block:
    rank, everything = len(left.axes), sp.expand(counts.volume(left) * counts.volume(right))
    patterns = {str(s.subscripts): s for s in found}
    dense = any(
        frozenset().union(*(a.names for a in s.subscripts[:rank])) & frozenset(s.loops)
        != frozenset().union(*(a.names for a in s.subscripts[rank:])) & frozenset(s.loops)
        for s in found
    )
    most = sp.expand(sum((counts.points(s.loops) for s in patterns.values()), sp.Integer(0)))
    if not found:
        shape = "zero"
    elif dense or most == everything:
        shape, most = "dense", everything
    elif left is right and all(s.subscripts[:rank] == s.subscripts[rank:] for s in found):
        shape, most = "diagonal", sp.Min(most, counts.volume(left)) if most.is_number else counts.volume(left)
    else:
        shape = "sparse"
    return Block(user[left.name], user[right.name], shape, most, everything)
