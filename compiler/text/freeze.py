"""Expressions made ready for code: the operations that a processor has, shared and placed at the right loop.

    s**-2*(x - y)**2*e**2        ->        product(reciprocal(s), reciprocal(s), d, d, e, e)
                                 ->        product(r2, t, t)   with  r2 = r*r outside the loop,  t = d*e

After this pass the normal form of expression.py no longer holds (a product may be nested in a product), so nodes are
made with `make` and must not be rebuilt. Steps: powers become products, square roots and reciprocals; factors and
terms that an inner loop does not change are put together, so that they can be computed outside of it; pairs of
factors that several products share become one product (greedily, the most frequent pair first).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from ..program.expression import MINUS_ONE, Op, is_number, make, mul, name, number, replace_indices
from ..program.program import Statement

Level = int


class Placement:
    """The level of every node: how many of the nest's loops must be open before it can be computed."""

    def __init__(self, loops: Sequence[str], inner_arrays: Iterable[str] = ()) -> None:
        self.depth = {loop: k + 1 for k, loop in enumerate(loops)}
        self.deepest = len(loops)
        self.inner_arrays = frozenset(inner_arrays)
        self.memo: dict[Op, Level] = {}

    def level(self, node: Op) -> Level:
        found = self.memo.get(node)
        if found is None:
            if not self.inner_arrays.isdisjoint(node.arrays):
                found = self.deepest
            else:
                found = max((self.depth.get(i, 0) for i in node.indices), default=0)
            self.memo[node] = found
        return found


def freeze(statements: Sequence[Statement], placement: Placement) -> list[Op]:
    """The expressions of one nest, frozen together."""
    memo: dict[Op, Op] = {}
    frozen = [
        exact(s.expression) if s.reduction == "maximum" else _freeze(s.expression, placement, memo) for s in statements
    ]
    return _share_pairs(frozen, placement)


def _freeze(node: Op, placement: Placement, memo: dict[Op, Op]) -> Op:
    done = memo.get(node)
    if done is None:
        if node.name == "power":
            done = _product(_power_factors(_freeze(node.args[0], placement, memo), node.args[1]), placement)
        elif node.name == "mul":
            factors: list[Op] = []
            for a in node.args:
                if a.name == "power":
                    factors += _power_factors(_freeze(a.args[0], placement, memo), a.args[1])
                else:
                    factors.append(_freeze(a, placement, memo))
            done = _product(factors, placement)
        elif node.name == "add":
            done = _sum([_freeze(a, placement, memo) for a in node.args], placement)
        elif node.name == "shifted_exp":
            exponent, shift = node.args
            done = make(node.name, (exact(exponent), _freeze(shift, placement, memo)))
        elif node.children:
            done = make(node.name, tuple(_freeze(a, placement, memo) for a in node.args))
        else:
            done = node
        memo[node] = done
    return done


def exact(node: Op) -> Op:
    """The expression in rounded steps, each a function of vectormath.py, in an order that names of loops do not change.

    An exponent and the maximum of such exponents are computed in different loops; from 1e17 on the two must agree to
    the last bit, or their difference is of the size of what was rounded.
    """
    if node.name == "power":
        return _chain("times", _power_factors(exact(node.args[0]), node.args[1]))
    if node.name == "mul" and node.args[0] is MINUS_ONE:
        return make("negative", (exact(mul(*node.args[1:])),))
    if node.name in ("add", "mul"):
        parts = [exact(a) for a in sorted(node.args, key=_nameless)]
        return _chain("plus" if node.name == "add" else "times", parts)
    return make(node.name, tuple(exact(a) if isinstance(a, Op) else a for a in node.args))


def _chain(kind: str, parts: Sequence[Op]) -> Op:
    """One after the other; a product put together for all of its factors comes apart."""
    result: Op | None = None
    for part in parts:
        if part.name == "product":
            part = _chain(kind, part.args)
        result = part if result is None else make(kind, (result, part))
    assert result is not None
    return result


def _nameless(node: Op) -> bytes:
    """A digest that does not depend on the names of indices."""
    return replace_indices(node, dict.fromkeys(node.indices, name("any"))).digest


def _power_factors(base: Op, exponent: int | float | Fraction) -> list[Op]:
    """Factors whose product is base**exponent."""
    if isinstance(exponent, Fraction) and exponent.denominator == 2:
        root = make("sqrt", (base,))
        whole = exponent.numerator
        if whole < 0:
            return [make("reciprocal", (root,))] * -whole
        return [root, *_power_factors(base, (whole - 1) // 2)]
    if isinstance(exponent, int):
        if exponent < 0:
            return _power_factors(make("reciprocal", (base,)), -exponent)
        if exponent > 4:
            half = make("product", tuple(_power_factors(base, exponent // 2)))
            return [half, half, *([base] if exponent % 2 else [])]
        return [base] * exponent
    return [make("pow", (base, number(float(exponent))))]


def _product(factors: Sequence[Op], placement: Placement) -> Op:
    """A product, its factors put together by level; the sign of a coefficient -1 in front."""
    coefficient: float | int | Fraction = 1
    flat: list[Op] = []
    for f in factors:
        if is_number(f):
            coefficient = coefficient * f.args[0]
        elif f.name == "negative":
            coefficient = -coefficient
            flat.append(f.args[0])
        else:
            flat.append(f)
    sign = -1 if coefficient < 0 else 1
    coefficient = coefficient * sign
    if coefficient != 1:
        flat.append(number(coefficient))
    result = _by_level("product", flat, placement)
    return make("negative", (result,)) if sign < 0 else result


def _sum(terms: Sequence[Op], placement: Placement) -> Op:
    return _by_level("sum", terms, placement)


def _by_level(kind: str, parts: Sequence[Op], placement: Placement) -> Op:
    """Nested so that whatever a deeper loop does not change is one part."""
    levels = sorted({placement.level(p) for p in parts})
    result: list[Op] = []
    for level in levels:
        result += [p for p in parts if placement.level(p) == level]
        if level != levels[-1] and len(result) > 1:
            result = [make(kind, tuple(result))]
    return result[0] if len(result) == 1 else make(kind, tuple(result))


# ------------------------------------------------------------------------------------------- shared pairs


def _share_pairs(roots: Sequence[Op], placement: Placement) -> list[Op]:
    products = [n for n in _reachable(roots) if n.name == "product"]
    factors: dict[Op, list[Op]] = {p: list(p.args) for p in products}
    order = {n: k for k, n in enumerate(_reachable(roots))}
    while True:
        counts: Counter[tuple[Op, Op]] = Counter()
        for p in products:
            counts.update(_pairs(factors[p], order))
        shared = [(c, pair) for pair, c in counts.items() if c > 1]
        if not shared:
            break
        _, (f, g) = max(shared, key=lambda item: (item[0], -order[item[1][0]], -order[item[1][1]]))
        pair = make("product", (f, g))
        order.setdefault(pair, len(order))
        for p in products:
            if p is not pair:
                factors[p] = _replaced(factors[p], f, g, pair)
        if pair not in factors:
            factors[pair] = [f, g]
            products.append(pair)
    memo: dict[Op, Op] = {}
    return [_rebuilt(r, factors, memo) for r in roots]


def _pairs(factors: Sequence[Op], order: Mapping[Op, int]) -> set[tuple[Op, Op]]:
    """Pairs of factors, neither a number, each once for a product that is more than the pair."""
    usable = sorted((f for f in factors if not is_number(f)), key=lambda f: order[f])
    return {(f, g) for k, f in enumerate(usable) for g in usable[k + 1 :]}


def _replaced(factors: list[Op], f: Op, g: Op, pair: Op) -> list[Op]:
    rest = list(factors)
    replaced: list[Op] = []
    while len(rest) + len(replaced) > 1 and f in rest and rest.count(g) > (f is g):
        rest.remove(f)
        rest.remove(g)
        replaced.append(pair)
    return rest + replaced


def _rebuilt(node: Op, factors: Mapping[Op, list[Op]], memo: dict[Op, Op]) -> Op:
    done = memo.get(node)
    if done is None:
        if node.name == "product" and node in factors:
            args = tuple(_rebuilt(f, factors, memo) for f in factors[node])
            done = args[0] if len(args) == 1 else make("product", args)
        elif node.children:
            done = make(node.name, tuple(_rebuilt(a, factors, memo) if isinstance(a, Op) else a for a in node.args))
        else:
            done = node
        memo[node] = done
    return done


def _reachable(roots: Sequence[Op]) -> list[Op]:
    """Every node below the roots, each once, children first."""
    seen: dict[Op, None] = {}
    for root in roots:
        stack: list[tuple[Op, bool]] = [(root, False)]
        while stack:
            node, expanded = stack.pop()
            if node in seen:
                continue
            if expanded:
                seen[node] = None
            else:
                stack.append((node, True))
                stack.extend((c, False) for c in reversed(node.children))
    return list(seen)
