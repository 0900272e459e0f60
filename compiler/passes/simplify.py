"""Passes that make a program smaller: prune, merge, inline, factor. None of them changes what it computes.

`simplify` runs them in a fixed order. Each pass takes a program and gives a program; each is idempotent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..program.expression import ONE, Affine, Op, add, mul, name, read, replace_indices, transform
from ..program.family import loop_over
from ..program.program import Array, Program, Range, Statement, arrays_read, moved
from ..program.ranges import in_order
from .user_functions import written_out


def simplify(program: Program) -> Program:
    """Everything below, in the order that one pass prepares the next."""
    program = merge(inline(merge(prune(written_out(program)))))
    return forward(prune(merge(inline(merge(factor(program))))))


def prune(program: Program) -> Program:
    """Drop statements that no output needs, and the arrays and ranges that are left without use.

    t0[i] = ...; t1[i] = ...; value += t1[i]        ->        t1[i] = ...; value += t1[i]
    """
    needed = {a.name for a in program.arrays.values() if a.role == "output"}
    kept: list[Statement] = []
    for statement in reversed(program.statements):
        if statement.target in needed:
            kept.append(statement)
            needed |= arrays_read(program, statement)
    arrays = {n: a for n, a in program.arrays.items() if n in needed or a.role not in ("local", "output", "prepared")}
    used = {i for s in kept for i in s.loops}
    ranges = {i: r for i, r in program.ranges.items() if i in used}
    return replace(program, arrays=arrays, ranges=ranges, statements=tuple(reversed(kept)))


LETTERS = "ijklabcdefgh"


def merge(program: Program) -> Program:
    """Give loops over equal ranges equal names, and compute equal arrays once.

    t0[q3] += x[q3, q5]  for q3, q5           t0[i] += x[i, j]  for i, j
    t1[q7] += x[q7, q9]  for q7, q9    ->     (t1 is t0)
    """
    letters: dict[str, str] = {}
    ranges: dict[str, Range] = {}
    members = frozenset(map(loop_over, program.family))
    same: dict[str, str] = {}
    seen: dict[tuple[object, ...], str] = {}
    statements: list[Statement] = []
    counts: dict[str, int] = {}
    for statement in program.statements:
        counts[statement.target] = counts.get(statement.target, 0) + 1
    for statement in program.statements:
        own = _with_names(program.ranges, same)
        statement = _canonical(_renamed(statement, same), own, letters, ranges, members)
        array = program.arrays[statement.target]
        if array.role in ("local", "prepared") and counts[statement.target] == 1:
            how = (statement.accumulate, statement.reduction)
            key = (statement.subscripts, statement.loops, how, statement.expression)
            earlier = seen.setdefault(key, statement.target)
            if earlier != statement.target:
                same[statement.target] = earlier
                continue
        statements.append(statement)
    arrays = {n: a for n, a in program.arrays.items() if n not in same}
    return replace(program, arrays=arrays, ranges=ranges, statements=tuple(statements))


def _canonical(
    statement: Statement,
    old: Mapping[str, Range],
    letters: dict[str, str],
    ranges: dict[str, Range],
    members: frozenset[str],
) -> Statement:
    """The statement with its loops named by their ranges: the letter of the range, numbered within the statement.

    Loops whose range depends on others are named after those, so that equal triangles have equal names. Loops over the
    members of a family keep theirs.
    """
    counts: dict[str, int] = {}
    affine: dict[str, Affine] = {}
    waiting = [*statement.kept, *statement.summed]
    while waiting:
        ready = [i for i in waiting if old[i].names.isdisjoint(waiting)]
        here = {i: old[i].replaced(affine) for i in ready}
        for loop in ready:
            if str(here[loop]) not in letters:
                k = len(letters)
                letters[str(here[loop])] = LETTERS[k % len(LETTERS)] * (1 + k // len(LETTERS))
        kept = [i for i in ready if i in statement.kept]
        met = list(letters)
        summed = sorted((i for i in ready if i not in kept), key=lambda i: met.index(str(here[i])))
        for loop in (*kept, *summed):
            letter = letters[str(here[loop])]
            number = counts[letter] = counts.get(letter, 0) + 1
            affine[loop] = name(loop if loop in members else letter if number == 1 else f"{letter}{number}")
            ranges.setdefault(str(affine[loop]), here[loop])
        waiting = [i for i in waiting if i not in ready]
    return replace(
        statement,
        subscripts=tuple(s.replaced(affine) for s in statement.subscripts),
        loops=tuple(map(str, affine.values())),
        expression=replace_indices(statement.expression, affine),
    )


def _renamed(statement: Statement, names: Mapping[str, str]) -> Statement:
    """The statement with other names for arrays that it reads or gathers through."""
    if statement.arrays.isdisjoint(names):
        return statement

    def move(array: str, subscripts: tuple[Affine, ...]) -> tuple[str, tuple[Affine, ...]]:
        return names.get(array, array), subscripts

    return moved(statement, move)


def _with_names(ranges: Mapping[str, Range], names: Mapping[str, str]) -> Mapping[str, Range]:
    """Ranges with other names for arrays that are gathered through."""
    return {i: r.relocated(lambda array, subscripts: (names.get(array, array), subscripts)) for i, r in ranges.items()}


def inline(program: Program) -> Program:
    """Put the formula of a map in place of its reads, unless that would compute it more often.

    t0[i] = x[i] - y;  t1 += t0[i]**2  for i        ->        t1 += (x[i] - y)**2  for i

    A map stays where it is read in more loops than it has indices and is more than a read or a number. So do factors
    of a product: whether one is 0 is decided once.
    """
    counts: dict[str, int] = {}
    widest: dict[str, int] = {}
    for statement in program.statements:
        counts[statement.target] = counts.get(statement.target, 0) + 1
        for read_array in statement.expression.arrays:
            often = len(program.ranges) + 1 if statement.reduction == "product" else len(statement.loops)
            widest[read_array] = max(widest.get(read_array, 0), often)
    formulas: dict[str, tuple[tuple[Affine, ...], Op]] = {}
    statements = []
    for statement in program.statements:
        expression = _insert(statement.expression, formulas)
        statement = replace(statement, expression=expression)
        array = program.arrays[statement.target]
        is_map = array.role == "local" and counts[array.name] == 1 and not statement.accumulate
        if is_map and (widest.get(array.name, 0) <= len(array.axes) or _trivial(expression)):
            formulas[array.name] = (statement.subscripts, expression)
        else:
            statements.append(statement)
    arrays = {n: a for n, a in program.arrays.items() if n not in formulas}
    return replace(program, arrays=arrays, statements=tuple(statements))


def _trivial(node: Op) -> bool:
    if node.name == "mul" and len(node.args) == 2:
        return node.args[0].name == "number" and _trivial(node.args[1])
    return node.name in ("number", "read", "affine")


def _insert(node: Op, formulas: Mapping[str, tuple[tuple[Affine, ...], Op]]) -> Op:
    if node.arrays.isdisjoint(formulas):
        return node

    def leaf(item: Op) -> Op:
        if item.name != "read" or item.args[0] not in formulas:
            return item
        subscripts, formula = formulas[item.args[0]]
        return replace_indices(formula, {str(s.single): v for s, v in zip(subscripts, item.args[1], strict=True)})

    return transform(node, leaf)


def factor(program: Program) -> Program:
    """Take out of a sum what does not change in it.

    h += 2*s*e[i] - 4*s**2*d[i]**2*e[i]   for i      ->      t0 += e[i];  t1 += d[i]**2*e[i];  h = 2*s*t0 - 4*s**2*t1

    A sum into an array is taken apart only if all its terms share the factor: otherwise more arrays would be
    written than multiplications saved. Where a sum may be over nothing, and so 0, what may be infinite stays in it.
    """
    arrays = dict(program.arrays)
    statements: list[Statement] = []
    writers = Counter(s.target for s in program.statements)
    for statement in program.statements:
        summed = frozenset(statement.summed)
        empty = any(_may_be_empty(program.ranges[i], program.extents) for i in summed)
        fixed = {n for n, a in program.arrays.items() if a.role not in ("local", "prepared")}
        groups = _by_invariant(statement.expression, summed, fixed if empty else None)
        whole = statement.is_definition and _is_sum(statement) and writers[statement.target] == 1
        splits = whole and summed and set(groups) != {ONE}
        if not splits or (len(groups) > 1 and statement.kept):
            statements.append(statement)
            continue
        terms = []
        for k, (invariant, variants) in enumerate(groups.items()):
            part = f"{statement.target}_{k}"
            arrays[part] = Array(part, arrays[statement.target].axes, "local", origin=statement.note)
            statements.append(replace(statement, target=part, expression=add(*variants)))
            terms.append(mul(invariant, read(part, statement.subscripts)))
        kept = in_order(statement.kept, program.ranges)
        statements.append(replace(statement, loops=kept, expression=add(*terms), accumulate=False))
    return replace(program, arrays=arrays, statements=tuple(statements))


def forward(program: Program) -> Program:
    """Let a sum that is only copied to an output be summed there.

    t0[i] += a[i, j]*x[j]  for i, j;  g[i] = t0[i]  for i        ->        g[i] += a[i, j]*x[j]  for i, j
    """
    readers: dict[str, int] = {}
    writers: dict[str, int] = {}
    for s in program.statements:
        writers[s.target] = writers.get(s.target, 0) + 1
        for array in arrays_read(program, s):
            readers[array] = readers.get(array, 0) + 1
    moves: dict[str, Statement] = {}
    for s in program.statements:
        node = s.expression
        is_copy = node.name == "read" and s.is_definition and program.arrays[s.target].role == "output"
        if is_copy and node.args[1] == s.subscripts and readers[node.args[0]] == 1 == writers.get(node.args[0]):
            moves[node.args[0]] = s
    sums = {s.target for s in program.statements if _is_sum(s) and s.is_definition}
    statements = []
    for s in program.statements:
        if s.target in moves and s.target in sums:
            copy = moves[s.target]
            mapping = {str(a.single): b for a, b in zip(s.subscripts, copy.subscripts, strict=True)}
            if all(str(b.single) == a for a, b in mapping.items()):
                statements.append(replace(s, target=copy.target, note=copy.note))
                continue
            del moves[s.target]
        elif s.expression.name == "read" and moves.get(s.expression.args[0]) is s and s.expression.args[0] in sums:
            continue
        statements.append(s)
    used = {s.target for s in statements} | {a for s in statements for a in arrays_read(program, s)}
    arrays = {n: a for n, a in program.arrays.items() if a.role not in ("local", "prepared") or n in used}
    return replace(program, arrays=arrays, statements=tuple(statements))


def _is_sum(statement: Statement) -> bool:
    return statement.accumulate and statement.reduction == "sum"


def _may_be_empty(values: Range, extents: Sequence[str]) -> bool:
    """Whether an index may have no value; extents are at least 1."""
    length = values.stop + values.start * -1
    counts = [count for _, count in length.terms]
    return not (
        all(n in extents for n, _ in length.terms) and all(c > 0 for c in counts) and length.constant + sum(counts) >= 1
    )


_ENTIRE = frozenset({"number", "affine", "add", "mul", "exp", "sin", "cos", "tanh", "atan", "erf", "abs", "sign"})
"""Functions of finite numbers that are finite, apart from overflow."""


def _is_finite(node: Op, arrays: set[str]) -> bool:
    """Whether a node is finite wherever the inputs are, for all that its form says."""
    if node.name == "read":
        return node.args[0] in arrays
    if node.name == "power":
        return isinstance(node.args[1], int) and node.args[1] > 0 and _is_finite(node.args[0], arrays)
    return node.name in _ENTIRE and all(_is_finite(child, arrays) for child in node.children)


def _by_invariant(node: Op, summed: frozenset[str], finite_arrays: set[str] | None) -> dict[Op, list[Op]]:
    """Terms of a sum by the factor that no summed index enters; a factor in front of a sum goes to its terms.

    With `finite_arrays`, only factors that are finite where these are.
    """
    groups: dict[Op, list[Op]] = {}
    todo = [(ONE, node)]

    def leaves(factor: Op) -> bool:
        return summed.isdisjoint(factor.indices) and (finite_arrays is None or _is_finite(factor, finite_arrays))

    while todo:
        outside, term = todo.pop()
        factors = term.args if term.name == "mul" else (term,)
        invariant = mul(outside, *(f for f in factors if leaves(f)))
        variant = mul(*(f for f in factors if not leaves(f)))
        if variant.name == "add":
            todo.extend((invariant, a) for a in reversed(variant.args))
        else:
            groups.setdefault(invariant, []).append(variant)
    return groups
