"""From statements to loop nests: which statements share loops, in what order the loops run, how arrays lie in memory.

    S[j]  += a[k]*B[k, j]    for j, k          for j:                   (nest 1: k innermost, a sum in a register)
    E[]   += S[j]**2         for j                 for k: S[j] += ...
    G[j]   = 2*S[j]          for j             for j:                   (nest 2: both statements)

Statements over the same set of loops share a nest, as early as what they read is complete; a map and its readers at
the same subscripts may share one, and then the array is only a scalar. A first extreme has a nest of its own, in which
the loop that it is taken over is the innermost; additions to one array over all pairs share one (elsewhere two in one
loop may keep LLVM from vectorising). A loop runs inside those that its range depends on. The innermost loop is chosen
by an estimate of memory traffic: contiguous reads and writes are cheap, sums in a register are free, strides are dear;
of equals the one that most arrays have as their last axis, so that who reads what is made finds it in order.
Arrays of our own (local and prepared) are laid out with the innermost loop last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..program.expression import Affine, Op, gathers, name, read, transform
from ..program.family import loop_over
from ..program.program import Array, Program, Statement, arrays_read, moved, unused
from ..program.ranges import axes_of, in_order, is_closed, is_ragged
from .nests import Nest
from .rows import share_rows


@dataclass(frozen=True)
class Schedule:
    """A program as loop nests.

    scalars   maps that are read in their own nest only and need no memory
    rows      arrays that need memory for a row only, and the axis that the rows are along (rows.py)
    """

    program: Program
    prepare: tuple[Nest, ...]
    evaluate: tuple[Nest, ...]
    scalars: frozenset[str]
    rows: Mapping[str, int]


def schedule(program: Program, innermost: str | None = None) -> Schedule:
    """Group, order and lay out. `innermost` forces a loop to be the innermost wherever it occurs."""
    stages = {True: [], False: []}  # type: dict[bool, list[Statement]]
    for statement in program.statements:
        stages[program.arrays[statement.target].role == "prepared"].append(statement)
    prepared = [_ordered(program, group, innermost) for group in _groups(program, stages[True])]
    evaluated = [_ordered(program, group, innermost) for group in _groups(program, stages[False])]
    program, prepared, evaluated = _copy_strided_weights(program, prepared, evaluated)
    program, prepared, evaluated = _lay_out(program, prepared, evaluated)
    evaluated, rows = share_rows(program, evaluated)
    return Schedule(program, tuple(prepared), tuple(evaluated), _scalars(program, evaluated), rows)


# ------------------------------------------------------------------------------------------- grouping


@dataclass
class _Group:
    loops: frozenset[str]
    innermost: str | None
    statements: list[Statement] = field(default_factory=list)


def _groups(program: Program, statements: Sequence[Statement]) -> list[_Group]:
    groups: list[_Group] = []
    written: dict[str, tuple[int, Statement]] = {}
    defined: dict[str, tuple[int, Statement]] = {}
    for statement in statements:
        loops = frozenset(statement.loops)
        innermost = statement.summed[0] if statement.reduction in ("argmin", "argmax") else None
        earliest = 0
        for array in sorted(arrays_read(program, statement)):
            if array in written:
                position, definition = written[array]
                together = loops == groups[position].loops and _reads_in_place(statement, definition)
                earliest = max(earliest, position if together else position + 1)
        if statement.target in written and statement.accumulate:
            ragged = is_ragged(statement.loops, program.ranges)
            position, before = (defined if ragged else written)[statement.target]
            together = not ragged and _scatters(statement) and _scatters(before)
            earliest = max(earliest, position if together else position + 1)
        for position in range(earliest, len(groups)):
            if (groups[position].loops, groups[position].innermost) == (loops, innermost):
                break
        else:
            position = len(groups)
            groups.append(_Group(loops, innermost))
        groups[position].statements.append(statement)
        defined.setdefault(statement.target, (position, statement))
        latest = max(position, written.get(statement.target, (0, statement))[0])
        written[statement.target] = (latest, statement)
    return groups


def _scatters(statement: Statement) -> bool:
    """Whether it adds through index data: such loops do not vectorise, several additions may share them."""
    return statement.adds and any(gathers(s) for s in statement.subscripts)


def _reads_in_place(statement: Statement, definition: Statement) -> bool:
    """Whether the array is a map over all loops, read by the statement at its own subscripts only."""
    if definition.accumulate or not definition.is_definition:
        return False
    places = [r.args[1] for r in statement.expression.reads if r.args[0] == definition.target]
    return all(place == definition.subscripts for place in places)


def _scalars(program: Program, nests: Sequence[Nest]) -> frozenset[str]:
    outside: set[str] = set()
    for nest in nests:
        for statement in nest.statements:
            own = {s.target for s in nest.statements if not s.accumulate and set(s.loops) == set(s.kept)}
            outside |= arrays_read(program, statement) - own
    maps = {s.target for n in nests for s in n.statements if not s.accumulate and s.is_definition}
    twice = {s.target for n in nests for s in n.statements if s.accumulate}
    local = {a.name for a in program.arrays.values() if a.role == "local"}
    return frozenset((maps & local) - outside - twice)


# ------------------------------------------------------------------------------------------- loop order


def _ordered(program: Program, group: _Group, innermost: str | None) -> Nest:
    loops = sorted(group.loops)
    if not loops:
        return Nest((), tuple(group.statements))
    needed = frozenset().union(*(program.ranges[i].names for i in loops))
    if group.innermost or innermost in loops:
        last = str(group.innermost or innermost)
    else:
        members = set(map(loop_over, program.family))
        free = [i for i in loops if i not in needed and i not in members] or [i for i in loops if i not in needed]
        statements = group.statements
        last = min(free, key=lambda i: (_traffic(program, statements, i), -_declared_last(statements, i), i))
    kept = [i for s in group.statements for i in s.kept if i != last]
    outer = [*dict.fromkeys(kept), *(i for i in loops if i not in kept and i != last)]
    return Nest((*in_order(outer, program.ranges), last), tuple(group.statements))


def _traffic(program: Program, statements: Sequence[Statement], inner: str) -> float:
    """An estimate of the cost of memory an iteration if `inner` runs innermost."""
    limits = program.ranges[inner]
    cost = 0.0
    if (limits.start.is_constant and limits.stop.is_constant) and limits.stop.constant - limits.start.constant < 8:
        cost += 4.0
    seen: set[Op] = set()
    for statement in statements:
        for item in statement.expression.reads:
            if item not in seen and inner in item.indices:
                seen.add(item)
                cost += _read_cost(program.arrays[item.args[0]], item, inner, program)
        if inner in statement.kept:
            array = program.arrays[statement.target]
            stride = _stride(array, statement.subscripts, inner) if array.role == "output" else 1
            cost += 3.0 if stride is None else min(3.0, 0.3 * abs(stride))
    return cost


def _declared_last(statements: Sequence[Statement], inner: str) -> int:
    """How many arrays have `inner` as their last axis, as they were declared: readers of what is made follow that."""
    places = {p for s in statements for p in ((s.target, s.subscripts), *(r.args for r in s.expression.reads))}
    return sum(bool(subscripts) and inner in subscripts[-1].names for _, subscripts in places)


def _read_cost(array: Array, item: Op, inner: str, program: Program) -> float:
    stride = _stride(array, item.args[1], inner)
    if array.role in ("local", "prepared") or stride == 1:
        return 0.15
    if stride is not None:
        return 0.15 * stride
    return 0.2 if array.role == "weight" else 2.0


def _stride(array: Array, subscripts: Sequence[Affine], inner: str) -> int | None:
    """The distance in memory between neighbours along `inner`, if it is known and short."""
    stride = 1
    for axis, subscript in zip(reversed(array.axes), reversed(subscripts), strict=True):
        if inner in subscript.names:
            counts = [c for n, c in subscript.terms if n == inner]
            return stride * counts[0] if len(counts) == 1 else None
        if not axis.stop.is_constant:
            return None
        stride *= axis.stop.constant
    return None


# ------------------------------------------------------------------------------------------- layout


def _copy_strided_weights(
    program: Program, prepared: list[Nest], evaluated: list[Nest]
) -> tuple[Program, list[Nest], list[Nest]]:
    """Read weights that an innermost loop would stride over from a prepared copy, laid out for that loop."""
    arrays = dict(program.arrays)
    copies: dict[Op, str] = {}
    extra: list[Statement] = []
    result = []
    for nest in evaluated:
        mapping: dict[Op, Op] = {}
        for statement in nest.statements:
            for item in statement.expression.reads:
                array = arrays[item.args[0]]
                inner = nest.loops[-1] if nest.loops else ""
                if array.role != "weight" or inner not in item.indices or _stride(array, item.args[1], inner) == 1:
                    continue
                singles = [s.single for s in item.args[1] if not s.is_constant]
                if None in singles or len(set(singles)) != len(singles) or not set(singles) <= set(nest.loops):
                    continue
                whole = is_closed(map(str, singles), program.ranges)
                if not whole or axes_of(map(str, singles), program.ranges) is None:
                    continue
                loops = tuple(str(i) for i in sorted(singles, key=lambda i: (i == inner, nest.loops.index(str(i)))))
                canonical = _canonical_read(program, item, loops)
                if canonical not in copies:
                    target = copies[canonical] = unused(arrays, "p")
                    axes = axes_of(loops, program.ranges)
                    assert axes is not None, "a range is bounded by extents, or its loops are not closed"
                    arrays[target] = Array(target, axes, "prepared", origin=f"copy of {array.name}")
                    subscripts = tuple(map(name, loops))
                    extra.append(
                        Statement(
                            target,
                            subscripts,
                            in_order(loops, program.ranges),
                            item,
                            note="a weight, laid out for the inner loop",
                        )
                    )
                mapping[item] = read(copies[canonical], map(name, loops))
        result.append(replace(nest, statements=tuple(_replace_reads(s, mapping) for s in nest.statements)))
    program = replace(program, arrays=arrays)
    return program, prepared + [Nest(s.loops, (s,)) for s in extra], result


def _canonical_read(program: Program, item: Op, loops: Sequence[str]) -> Op:
    """The read with its loops named by position and range, so that equal copies are made once."""
    mapping = {i: name(f"axis{k} {program.ranges[i]}") for k, i in enumerate(loops)}
    return read(item.args[0], tuple(s.replaced(mapping) for s in item.args[1]))


def _replace_reads(statement: Statement, mapping: Mapping[Op, Op]) -> Statement:
    if not mapping:
        return statement
    return replace(statement, expression=transform(statement.expression, lambda leaf: mapping.get(leaf, leaf)))


def _lay_out(program: Program, prepared: list[Nest], evaluated: list[Nest]) -> tuple[Program, list[Nest], list[Nest]]:
    """Order the axes of our own arrays as the loops of the nest that writes them."""
    orders: dict[str, tuple[int, ...]] = {}
    for nest in (*prepared, *evaluated):
        for statement in nest.statements:
            role = program.arrays[statement.target].role
            if role in ("local", "prepared") and statement.target not in orders and statement.is_definition:
                names = [str(s.single) for s in statement.subscripts]
                order = sorted(range(len(names)), key=lambda k: nest.loops.index(names[k]))
                orders[statement.target] = tuple(order)
    arrays = {
        n: replace(a, axes=tuple(a.axes[k] for k in orders[n])) if n in orders else a for n, a in program.arrays.items()
    }

    def move(array: str, subscripts: tuple[Affine, ...]) -> tuple[str, tuple[Affine, ...]]:
        return array, tuple(subscripts[k] for k in orders[array]) if array in orders else subscripts

    def permuted(statement: Statement) -> Statement:
        inside = moved(statement, move)
        return replace(inside, subscripts=move(statement.target, inside.subscripts)[1])

    def changed(nests: list[Nest]) -> list[Nest]:
        return [replace(n, statements=tuple(map(permuted, n.statements))) for n in nests]

    ranges = {i: r.relocated(move) for i, r in program.ranges.items()}
    return replace(program, arrays=arrays, ranges=ranges), changed(prepared), changed(evaluated)
