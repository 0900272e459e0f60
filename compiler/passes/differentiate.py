"""Derivatives of programs: reverse mode, tangent mode, and second derivatives pulled back one side at a time.

Only the pointwise f of a statement is differentiated as a formula; the chain rule over statements is ours. The
adjoint of a read is an addition at the read's own subscript, so offsets and gathers need no case of their own:

    E[]  += x[i]*y[i + 1]**2     for i                 the energy
    g[j]  = 0                    for j                 its gradient, by `gradient`
    g[i + 1] += 2*x[i]*y[i + 1]  for i

Three transformations give every derivative:

    gradient(program, roots)              d value / d roots                             reverse mode
    tangent(program)                      value' = v . d value / d variables            tangent mode
    second(program, left, right)          d2 value / d left d right                     edge pushing

hvp, cross_adjoint and data_adjoint are `gradient` of `tangent` with respect to variables, weights and data.

`second` keeps a list of pieces, d2E/da[s] db[t] += h over some loops, and eliminates the latest definition first, on
the left and then on the right (Gower and Mello, "A new framework for the computation of Hessians", 2012). Indices
that neither subscript has are summed as soon as they appear: that is the order of contraction in which a Gauss-Newton
product J'WJ is cheap. The term (adjoint times second derivative of f) enters where f is not linear.

Loops whose range depends on another (all pairs) keep it: what is summed, and what a contribution covers, is judged with
the ranges. The derivative of a product over an index is the product of the others, which is a product again:

    p[] *= f[j]  for j                  dp / df[k] = o[k],      o[k] *= (1 if j == k else f[j])  for k, j

(products.py computes it without the double loop.) First extremes are places, which have no derivative.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from ..program.expression import (
    ONE,
    ZERO,
    Affine,
    Op,
    add,
    affine,
    constant,
    contains,
    function,
    mul,
    name,
    number,
    power,
    read,
    replace_indices,
    select,
)
from ..program.primitives import PRIMITIVES
from ..program.program import Array, Program, Range, Statement, unused
from ..program.ranges import axes_of, closed, in_order, is_ragged
from .lower import UNROLLED


@dataclass(frozen=True)
class Contribution:
    """array[subscripts] += expression over the loops."""

    loops: tuple[str, ...]
    subscripts: tuple[Affine, ...]
    expression: Op


@dataclass(frozen=True)
class Piece:
    """d2 value / d a[left] d b[right] += expression over the loops."""

    loops: tuple[str, ...]
    left: tuple[Affine, ...]
    right: tuple[Affine, ...]
    expression: Op


Pieces = dict[tuple[str, str], list[Piece]]
Memo = dict[Op, dict[Op, Op]]


class Builder:
    """A program under construction: statements are appended, indices and arrays made on demand."""

    def __init__(self, program: Program) -> None:
        self.arrays = dict(program.arrays)
        self.ranges = dict(program.ranges)
        self.extents, self.family = program.extents, program.family
        self.statements = list(program.statements)
        self.others: dict[str, Statement] = {}

    def program(self) -> Program:
        return Program(self.arrays, self.ranges, self.extents, tuple(self.statements), self.family)

    def index(self, values: Range) -> str:
        fresh = unused(self.ranges, "q")
        self.ranges[fresh] = values
        return fresh

    def local(self, axes: Iterable[Range], origin: str = "") -> str:
        fresh = unused(self.arrays, "t")
        self.arrays[fresh] = Array(fresh, tuple(axes), "local", origin=origin)
        return fresh

    def sum(self, free: Sequence[str], summed: Sequence[str], expression: Op, note: str) -> Op:
        """The expression, summed over loops: a new local array over the free ones, read at them."""
        if not summed or expression is ZERO:
            return expression
        target = self.over(free, note)
        subscripts = tuple(map(name, free))
        self.statements.append(Statement(target, subscripts, (*free, *summed), expression, accumulate=True, note=note))
        return read(target, subscripts)

    def over(self, loops: Sequence[str], origin: str) -> str:
        """A new local array over loops."""
        axes = axes_of(loops, self.ranges)
        assert axes is not None, "index data bound a loop"
        return self.local(axes, origin)

    def copies(self, loops: Sequence[str], mapping: Mapping[str, Affine]) -> dict[str, str]:
        """New indices for loops, in which others were replaced by `mapping`."""
        fresh: dict[str, str] = {}
        for loop in loops:
            inner = {**mapping, **{old: name(new) for old, new in fresh.items()}}
            fresh[loop] = self.index(self.ranges[loop].replaced(inner))
        return fresh

    def without_one(self, statement: Statement) -> Statement:
        """The statement of the product of the other factors, over the loops of the factor that is left out."""
        made = self.others.get(statement.target)
        if made is None:
            kept, summed = statement.kept, in_order(statement.summed, self.ranges)
            fresh = self.copies(summed, {})
            free = (*kept, *fresh.values())
            note = f"product of the others, {statement.target}"
            made = self.others[statement.target] = Statement(
                self.over(free, note), tuple(map(name, free)), in_order((*free, *summed), self.ranges),
                select(_same(fresh), ONE, statement.expression), accumulate=True, note=note, reduction="product",
            )  # fmt: skip
            self.statements.append(made)
        return made

    def other_factors(self, statement: Statement) -> Op:
        """What the derivative of a statement's f is multiplied with: 1 in a sum, the others in a product."""
        if statement.reduction != "product" or not statement.accumulate:
            return ONE
        others = self.without_one(statement)
        return read(others.target, map(name, (*statement.kept, *in_order(statement.summed, self.ranges))))


def _same(pairs: Mapping[str, str]) -> Op:
    """Whether indices are equal, each to its partner."""
    tests = [function("equal", affine(name(a)), affine(name(b))) for a, b in pairs.items()]
    result = tests[0]
    for test in tests[1:]:
        result = function("and", result, test)
    return result


# -------------------------------------------------------------------------------------- pointwise


def partials(node: Op, active: frozenset[str], memo: Memo) -> dict[Op, Op]:
    """Partial derivatives of a pointwise expression in each read of an active array."""
    done = memo.get(node)
    if done is not None:
        return done
    result: dict[Op, list[Op]] = {}

    def chain(outer: Op, child: Op) -> None:
        if outer is not ZERO:
            for item, inner in partials(child, active, memo).items():
                result.setdefault(item, []).append(mul(outer, inner))

    if node.name == "read":
        done = {node: ONE} if node.args[0] in active else {}
    elif node.arrays.isdisjoint(active):
        done = {}
    elif node.name == "select":
        condition, *branches = node.args
        then, otherwise = (partials(b, active, memo) for b in branches)
        done = {}
        for item in sorted({*then, *otherwise}, key=lambda r: r.digest):
            done[item] = select(condition, then.get(item, ZERO), otherwise.get(item, ZERO))
    else:
        if node.name == "add":
            for child in node.args:
                chain(ONE, child)
        elif node.name == "mul":
            for k, child in enumerate(node.args):
                chain(mul(*node.args[:k], *node.args[k + 1 :]), child)
        elif node.name == "power":
            base, exponent = node.args
            chain(mul(number(exponent), power(base, exponent - 1)), base)
        else:
            for outer, child in zip(PRIMITIVES[node.name].partials(node, *node.args), node.args, strict=True):
                chain(outer, child)
        done = {item: add(*terms) for item, terms in result.items()}
    done = {item: value for item, value in done.items() if value is not ZERO}
    memo[node] = done
    return done


def depending(program: Program, roots: Iterable[str]) -> frozenset[str]:
    """The roots and every array of numbers that is computed from them, but for extremes, whose derivative is 0."""
    found = set(roots)
    for statement in program.statements:
        if statement.reduction in ("sum", "product") and not statement.expression.arrays.isdisjoint(found):
            found.add(statement.target)
    return frozenset(found)


def inputs_of(program: Program, *roles: str) -> tuple[str, ...]:
    """Names of the real-valued inputs of some roles, in declared order."""
    return tuple(a.name for a in program.arrays.values() if a.role in roles and not a.integer)


# -------------------------------------------------------------------------------------- first derivatives


def gradient(program: Program, roots: Sequence[str], *, of: str = "value", prefix: str = "gradient") -> Program:
    """Add outputs `prefix_root` = d of / d root, for each root an array shaped like it."""
    builder = Builder(program)
    contributions, _ = _reverse(builder, roots, of)
    for root in roots:
        axes = program.arrays[root].axes
        assemble(builder, f"{prefix}_{root}", axes, contributions.get(root, []), f"{prefix} in {root}")
    return builder.program()


def _reverse(builder: Builder, roots: Sequence[str], of: str) -> tuple[dict[str, list[Contribution]], dict[str, Op]]:
    """Contributions to the adjoint of every active array, and the adjoint of each definition over its own indices."""
    program = builder.program()
    active = depending(program, roots)
    contributions: dict[str, list[Contribution]] = {}
    adjoints: dict[str, Op] = {}
    memo: Memo = {}
    for statement in reversed(program.statements):
        target = statement.target
        if target not in active:
            continue
        if target == of:
            adjoint = ONE
        elif target in contributions:
            adjoint = _gather(builder, program.arrays[target], statement.kept, contributions[target])
        else:
            continue
        adjoints[target] = adjoint
        adjoint = mul(adjoint, builder.other_factors(statement))
        for item, value in partials(statement.expression, active, memo).items():
            contributions.setdefault(item.args[0], []).append(
                Contribution(statement.loops, item.args[1], mul(adjoint, value))
            )
    return contributions, adjoints


def _direct(ranges: dict[str, Range], indices: Sequence[str], item: Contribution) -> bool:
    """Whether the subscripts are distinct loops with the ranges of the indices of the whole array."""
    singles = [str(s.single) for s in item.subscripts]
    mapping = {s: name(i) for s, i in zip(singles, indices, strict=True)}
    return (
        all(s in item.loops for s in singles)
        and len(mapping) == len(singles)
        and all(ranges[s].replaced(mapping) == ranges[i] for s, i in zip(singles, indices, strict=True))
    )


def _direct_ones(ranges: dict[str, Range], indices: Sequence[str], items: Sequence[Contribution]) -> list[Contribution]:
    """The contributions that are summed for each entry; both ends of all pairs are added in one loop over the pairs."""
    scattered = {c.loops for c in items if not _direct(ranges, indices, c) and is_ragged(c.loops, ranges)}
    return [c for c in items if c.loops not in scattered and _direct(ranges, indices, c)]


def _gather(builder: Builder, array: Array, indices: Sequence[str], items: Sequence[Contribution]) -> Op:
    """All contributions to a local array as one expression over its indices."""
    direct = _direct_ones(builder.ranges, indices, items)
    scattered = [c for c in items if c not in direct]
    total = _sum_direct(builder, indices, direct, f"adjoint of {array.name}")
    if not scattered:
        return _shielded(total, items)
    target = builder.local(array.axes, f"adjoint of {array.name}")
    subscripts, loops = tuple(map(name, indices)), in_order(indices, builder.ranges)
    builder.statements.append(Statement(target, subscripts, loops, ZERO, note=f"adjoint of {array.name}"))
    for c in scattered:
        builder.statements.append(
            Statement(target, c.subscripts, c.loops, c.expression, True, f"adjoint of {array.name}", adds=True)
        )
    return _shielded(add(total, read(target, subscripts)), items)


def _shielded(total: Op, items: Iterable[Contribution | Piece]) -> Op:
    """An adjoint that is 0 where it is 0, whatever it is multiplied by, if branches not taken can make it so.

    t0 is not read where its Piecewise takes the other branch, so its adjoint is 0, and t0 may be the log of 0.
    """
    if _is_branch(total) or not any(_has_branch(c.expression) for c in items):
        return total
    return select(function("equal", total, ZERO), ZERO, total)


def _has_branch(node: Op) -> bool:
    """Whether a branch decides what is read. The kink of a root within `fixed`, a weight of IRLS, does not."""

    def is_left_out(item: Op) -> bool:
        return _is_branch(item) and item.args[0].name != "equal"

    return contains(node, _is_branch, without="fixed") or contains(node, is_left_out)


def _is_branch(node: Op) -> bool:
    """A select of which one branch is 0."""
    return node.name == "select" and ZERO in node.args


def _sum_direct(builder: Builder, indices: Sequence[str], items: Sequence[Contribution], note: str) -> Op:
    """The sum of direct contributions over `indices`; those summed over equal ranges share one statement."""
    groups: dict[tuple[str, ...], tuple[list[str], list[Op]]] = {}
    for c in items:
        mapping = {str(s.single): name(i) for s, i in zip(c.subscripts, indices, strict=True)}
        rest = in_order((i for i in c.loops if i not in mapping), builder.ranges)
        places = {**mapping, **{i: name(f"rest{k}") for k, i in enumerate(rest)}}
        key = tuple(str(builder.ranges[i].replaced(places)) for i in rest)
        if key not in groups:
            groups[key] = (list(builder.copies(rest, mapping).values()), [])
        loops, terms = groups[key]
        mapping |= {old: name(new) for old, new in zip(rest, loops, strict=True)}
        terms.append(replace_indices(c.expression, mapping))
    kept = in_order(indices, builder.ranges)
    return add(*(builder.sum(kept, loops, add(*terms), note) for loops, terms in groups.values()))


def assemble(builder: Builder, target: str, axes: Sequence[Range], items: Sequence[Contribution], note: str) -> None:
    """Define an output from contributions: entry by entry along short literal axes, else by loops and additions."""
    builder.arrays[target] = Array(target, tuple(axes), "output", origin=note)
    short = [a.stop.is_constant and a.stop.constant <= UNROLLED for a in axes]
    components: dict[tuple[int, ...], list[Contribution]] = {
        choice: [] for choice in product(*(range(a.stop.constant) for a, s in zip(axes, short, strict=True) if s))
    }
    by_component = True
    for c in items:
        fixed = [s for s, is_short in zip(c.subscripts, short, strict=True) if is_short]
        if all(s.is_constant for s in fixed):
            free = tuple(s for s, is_short in zip(c.subscripts, short, strict=True) if not is_short)
            components[tuple(s.constant for s in fixed)].append(replace(c, subscripts=free))
        else:
            by_component = False
    if not by_component:
        short, components = [False] * len(axes), {(): list(items)}
    long_axes = [a for a, is_short in zip(axes, short, strict=True) if not is_short]
    indices = tuple(builder.index(a) for a in long_axes)
    for choice, group in components.items():

        def full(free: Sequence[Affine], chosen: tuple[int, ...] = choice) -> tuple[Affine, ...]:
            constants, others = iter(map(constant, chosen)), iter(free)
            return tuple(next(constants) if is_short else next(others) for is_short in short)

        direct = _direct_ones(builder.ranges, indices, group)
        total = _sum_direct(builder, indices, direct, note)
        builder.statements.append(Statement(target, full([name(i) for i in indices]), indices, total, note=note))
        for c in group:
            if c not in direct:
                builder.statements.append(
                    Statement(target, full(c.subscripts), c.loops, c.expression, True, note, adds=True)
                )


def tangent(program: Program, *, of: str = "value") -> Program:
    """Add the directional derivative of `of` along `direction` inputs, one for each variable, as local `of_dot`."""
    builder = Builder(program)
    roots = inputs_of(program, "variable")
    active = depending(program, roots)
    dots = {}
    for root in roots:
        dots[root] = root.replace("y", "v", 1)
        builder.arrays[dots[root]] = Array(dots[root], program.arrays[root].axes, "direction", origin=f"along {root}")
    memo: Memo = {}
    for statement in program.statements:
        if statement.target not in active:
            continue
        others = builder.other_factors(statement)
        terms = [
            mul(others, value, read(dots[item.args[0]], item.args[1]))
            for item, value in partials(statement.expression, active, memo).items()
        ]
        dot = f"{of}_dot" if statement.target == of else f"{statement.target}_dot"
        dots[statement.target] = dot
        builder.arrays[dot] = Array(
            dot, program.arrays[statement.target].axes, "local", origin=f"along the direction: {statement.target}"
        )
        builder.statements.append(
            replace(statement, target=dot, expression=add(*terms), note=f"tangent of {statement.note}", reduction="sum")
        )
    return builder.program()


# -------------------------------------------------------------------------------------- second derivatives


def second(program: Program, left: Sequence[str], right: Sequence[str], *, of: str = "value", prefix: str) -> Program:
    """Add outputs `prefix_a_b` = d2 of / d a d b for a in left and b in right; for a symmetric one, only a before b."""
    builder = Builder(program)
    pieces = second_pieces(builder, left, right, of)
    symmetric = tuple(left) == tuple(right)
    for i, a in enumerate(left):
        for b in right[i:] if symmetric else right:
            axes = (*program.arrays[a].axes, *program.arrays[b].axes)
            items = [Contribution(p.loops, p.left + p.right, p.expression) for p in pieces.get((a, b), [])]
            assemble(builder, f"{prefix}_{a}_{b}", axes, items, f"{prefix} in {a}, {b}")
    return builder.program()


def second_pieces(builder: Builder, left: Sequence[str], right: Sequence[str], of: str) -> Pieces:
    """The pieces of d2 of / d a d b for every a in left and b in right; statements that they read are added."""
    program = builder.program()
    active_left, active_right = depending(program, left), depending(program, right)
    _, adjoints = _reverse(builder, sorted({*left, *right}), of)
    pieces: Pieces = {}
    memos: tuple[Memo, Memo] = ({}, {})
    for siblings in _generations(program):
        for side, active in ((0, active_left), (1, active_right)):
            _pull(builder, [s for s in siblings if s.target in active], pieces, side, active, memos[side])
        for statement in siblings:
            if statement.target in adjoints:
                adjoint, active_sides = adjoints[statement.target], (active_left, active_right)
                curvature = _curvature(builder, statement, adjoint, active_sides, memos)
                _add_pieces(builder, pieces, curvature)
    return pieces


def _generations(program: Program) -> list[list[Statement]]:
    """Statements from the last to the first, those that do not read each other taken together."""
    generations: list[list[Statement]] = []
    for statement in reversed(program.statements):
        if not generations or any(statement.target in s.expression.arrays for s in generations[-1]):
            generations.append([])
        generations[-1].append(statement)
    return generations


def _curvature(
    builder: Builder,
    statement: Statement,
    adjoint: Op,
    active: tuple[frozenset[str], frozenset[str]],
    memos: tuple[Memo, Memo],
) -> Pieces:
    """Adjoint times the second derivatives of the statement's own f, and of the product of all f."""
    found: Pieces = {}
    firsts = partials(statement.expression, active[0], memos[0])
    others = builder.other_factors(statement) if firsts else ONE
    for a, first in firsts.items():
        for b, value in partials(first, active[1], memos[1]).items():
            piece = Piece(statement.loops, a.args[1], b.args[1], mul(adjoint, others, value))
            found.setdefault((a.args[0], b.args[0]), []).append(piece)
    if others is ONE:
        return found
    summed = in_order(statement.summed, builder.ranges)
    fresh = builder.copies(summed, {})
    mapping = {old: name(new) for old, new in fresh.items()}
    both = builder.without_one(builder.without_one(statement))
    rest = mul(adjoint, read(both.target, map(name, (*statement.kept, *summed, *fresh.values()))))
    for a, first in firsts.items():
        for b, value in partials(statement.expression, active[1], memos[1]).items():
            pair = mul(rest, first, replace_indices(value, mapping))
            subscripts = tuple(s.replaced(mapping) for s in b.args[1])
            piece = Piece((*statement.loops, *fresh.values()), a.args[1], subscripts, select(_same(fresh), ZERO, pair))
            found.setdefault((a.args[0], b.args[0]), []).append(piece)
    return found


def _pull(
    builder: Builder, siblings: Sequence[Statement], pieces: Pieces, side: int, active: frozenset[str], memo: Memo
) -> None:
    """Replace the targets of statements by what they are computed from, on one side of every piece."""
    pulled: Pieces = {}
    for statement in siblings:
        for pair in [pair for pair in pieces if pair[side] == statement.target]:
            others = builder.other_factors(statement)
            for piece in pieces.pop(pair):
                own = piece.left if side == 0 else piece.right
                mapping = {str(s.single): value for s, value in zip(statement.subscripts, own, strict=True)}
                fresh = builder.copies(in_order(statement.summed, builder.ranges), mapping)
                mapping |= {old: name(new) for old, new in fresh.items()}
                loops = (*piece.loops, *fresh.values())
                for item, value in partials(statement.expression, active, memo).items():
                    subscripts = tuple(s.replaced(mapping) for s in item.args[1])
                    expression = mul(piece.expression, replace_indices(mul(others, value), mapping))
                    left, right = (subscripts, piece.right) if side == 0 else (piece.left, subscripts)
                    key = (item.args[0], pair[1]) if side == 0 else (pair[0], item.args[0])
                    pulled.setdefault(key, []).append(Piece(loops, left, right, expression))
    _add_pieces(builder, pieces, pulled)


def _add_pieces(builder: Builder, pieces: Pieces, found: Pieces) -> None:
    for key, items in found.items():
        contracted = _contracted(builder, items, f"second derivative in {key[0]}, {key[1]}")
        if any(builder.arrays[array].role == "local" for array in key):  # it will be multiplied further
            contracted = [replace(p, expression=_shielded(p.expression, items)) for p in contracted]
        pieces.setdefault(key, []).extend(contracted)


def _contracted(builder: Builder, pieces: Sequence[Piece], note: str) -> list[Piece]:
    """Pieces with equal subscripts added up, and summed over every index that the subscripts do not need."""
    groups: dict[str, tuple[Piece, list[Contribution]]] = {}
    for piece in pieces:
        used = [i for s in (*piece.left, *piece.right) for i in sorted(s.names) if i in piece.loops]
        free = closed(used, builder.ranges)
        if axes_of(free, builder.ranges) is None:
            free = piece.loops
        canonical = {i: name(f"free{k}") for k, i in enumerate(free)}
        key = "; ".join(str(s.replaced(canonical)) for s in (*piece.left, *piece.right))
        key += " over " + "; ".join(str(builder.ranges[i].replaced(canonical)) for i in free)
        head, items = groups.setdefault(key, (replace(piece, loops=free), []))
        subscripts = tuple(map(name, free))
        items.append(Contribution(piece.loops, subscripts, piece.expression))
    result = []
    for head, items in groups.values():
        result.append(replace(head, expression=_sum_direct(builder, head.loops, items, note)))
    return [p for p in result if p.expression is not ZERO]
