"""SymPy to program: each Sum becomes one named array over its free indices, never a list of scalars.

    Sum(x[i]*Sum(a[i, k]*t[k], k)**2, i)

    t0[i] += a[i, k]*t[k]            for i, k
    t1[]  += x[i]*t0[i]**2           for i
    value = t1

A sum over at most three values known at declaration (x, y, z) is written out. A product is the same with `*=`, over an
array that holds its factors. A minimum over an index is the first entry that is smallest, read where it lies:

    wb.minimum(x[i]**2, i)      t0[] argmin= x[i]**2  for i;      t1 = x[t0[]]**2

so that a derivative goes to that entry by itself. Intermediate arrays of `where=` become
local arrays of the same kind. Names are generated: no text of the user reaches the program but in `origin`, which is
for people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import sympy as sp

from ...energies.energy import Energy
from ...energies.errors import DeclarationError, UnsupportedError
from ...energies.extrema import Extreme
from ...energies.held import held
from ..program.expression import (
    ONE,
    ZERO,
    Affine,
    Gather,
    Op,
    add,
    affine,
    constant,
    function,
    is_number,
    join_exponentials,
    make,
    mul,
    name,
    negative,
    number,
    power,
    read,
    replace_indices,
    select,
)
from ..program.program import Array, Program, Range, Reduction, Role, Statement
from ..program.ranges import axes_of, closed, widened
from .intervals import Intervals

C_FUNCTIONS = {"log1p", "expm1"}
UNROLLED = 3  # literal extents up to this are written out: coordinates, not data

FUNCTIONS: dict[Any, str] = {
    sp.exp: "exp", sp.log: "log",
    sp.sin: "sin", sp.cos: "cos", sp.tan: "tan", sp.asin: "asin", sp.acos: "acos", sp.atan: "atan",
    sp.sinh: "sinh", sp.cosh: "cosh", sp.tanh: "tanh", sp.asinh: "asinh", sp.acosh: "acosh", sp.atanh: "atanh",
    sp.acot: "acot", sp.sech: "sech", sp.csch: "csch", sp.coth: "coth",
    sp.atan2: "atan2", sp.erf: "erf", sp.erfc: "erfc", sp.loggamma: "log_gamma", sp.gamma: "gamma",
    sp.Abs: "abs", sp.sign: "sign", sp.floor: "floor", sp.ceiling: "ceiling", held: "held",
}  # fmt: skip


def lower(energy: Energy) -> Program:
    """The program that computes the energy: its last statement defines the output `value`."""
    lowering = Lowering(energy)
    result = lowering.scalar(energy.expression, lowering.family)
    lowering.output("value", (), (), (), result, note="energy")
    return lowering.program()


def lower_candidates(energy: Energy) -> Program:
    """The program that computes the declared candidates: one output for each variable, candidate index first."""
    lowering = Lowering(energy)
    index = energy.candidate_index
    outer = ""
    first, rows = constant(0), constant(1)
    if index is not None:
        first, last = lowering.subscript(index.lower, {}), lowering.subscript(index.upper, {})
        outer, rows = lowering.index(Range(first, last + 1)), last + 1 + first * -1
    row = name(outer) + first * -1 if outer else constant(0)
    for target, formula in energy.candidates.items():
        base = target.base if isinstance(target, sp.Indexed) else target
        axes = list(target.indices) if isinstance(target, sp.Indexed) else []
        loops = [i for i in axes if not i.is_Integer]
        variable = lowering.array_names[str(base.name)]
        for choice, extra in lowering.spread([(i, i.lower, i.upper) for i in loops], {}):
            scope: dict[Any, Affine] = {**lowering.family, **({index: name(outer)} if outer else {}), **choice}
            lowering.output(
                f"candidates_{variable}",
                (Range(constant(0), rows), *lowering.arrays[variable].axes),
                (row, *(lowering.subscript(i, scope) for i in axes)),
                (*([outer] if outer else []), *extra),
                lowering.scalar(formula, scope),
                note="candidates of a variable",
            )
    return lowering.program()


@dataclass(frozen=True)
class _Lifted:
    """A reduction to be: its body, the loops that are kept and those that are not, and where its result is read."""

    body: Op
    free: tuple[str, ...]
    loops: tuple[str, ...]
    at: tuple[Affine, ...]


class Lowering:
    """The state of one lowering: arrays, ranges and statements so far, and what each symbol has become."""

    def __init__(self, energy: Energy) -> None:
        self.energy = energy
        self.intervals = Intervals(energy)
        self.extents = {symbol: f"n{k}" for k, symbol in enumerate(energy.extents)}
        self.family: dict[Any, Affine] = {index: name(f"m{k}") for k, index in enumerate(energy.over)}
        self.arrays: dict[str, Array] = {}
        self.ranges: dict[str, Range] = {}
        self.statements: list[Statement] = []
        self.whole: set[str] = set()  # locals that are defined on all of their axes
        self.array_names: dict[str, str] = {}
        self.lets: dict[tuple[str, tuple[Affine | None, ...]], str] = {}
        self.definitions = {_base_name(key): (key, value) for key, value in energy.where.items()}
        roles: tuple[tuple[Role, str, Sequence[Any]], ...] = (
            ("variable", "y", energy.variables),
            ("weight", "w", energy.weights),
            ("data", "x", energy.data),
        )
        for role, letter, symbols in roles:
            for k, symbol in enumerate(symbols):
                self._declare(f"{letter}{k}", str(symbol.name if hasattr(symbol, "name") else symbol), role)

    def _declare(self, array: str, user_name: str, role: Role) -> None:
        axes = tuple(Range(constant(0), self.subscript(e, {})) for e in self.energy.shapes[user_name])
        self.arrays[array] = Array(array, axes, role, user_name in self.energy.integer, origin=ascii(user_name)[1:-1])
        self.array_names[user_name] = array

    def program(self) -> Program:
        family = {
            str(self.family[index].single): Range(constant(0), self.subscript(size, {}))
            for index, size in zip(self.energy.over, self.energy.family, strict=True)
        }
        return Program(self.arrays, self.ranges, tuple(self.extents.values()), tuple(self.statements), family)

    def index(self, values: Range) -> str:
        fresh = f"q{len(self.ranges)}"
        self.ranges[fresh] = values
        return fresh

    def local(self, loops: Sequence[str], origin: str = "", *, integer: bool = False) -> str:
        fresh = f"t{sum(a.role == 'local' for a in self.arrays.values())}"
        axes = axes_of(loops, self.ranges)
        assert axes is not None, "limits have no gathers"
        self.arrays[fresh] = Array(fresh, axes, "local", integer, origin)
        if axes == tuple(self.ranges[i] for i in loops):
            self.whole.add(fresh)
        return fresh

    def output(
        self,
        target: str,
        axes: tuple[Range, ...],
        subscripts: tuple[Affine, ...],
        loops: tuple[str, ...],
        value: Op,
        note: str,
    ) -> None:
        self.arrays[target] = Array(target, axes, "output", origin=note)
        self.statements.append(Statement(target, subscripts, loops, value, note=note))

    # ------------------------------------------------------------------------------------ sums, products, extremes

    def spread(self, limits: Sequence[tuple[Any, Any, Any]], scope: Mapping[Any, Affine]) -> list[Any]:
        """Every choice of the short indices, each with the loops over the others: (scope, loops).

        Limits come outermost first. An index is short if the number of its values is known at declaration, and small.
        """
        made: dict[tuple[Any, Range], str] = {}

        def choices(rest: Sequence[Any], chosen: dict[Any, Affine], loops: tuple[str, ...]) -> list[Any]:
            if not rest:
                return [(chosen, loops)]
            (symbol, first, last), *others = rest
            low, high = (self.subscript(end, {**scope, **chosen}) for end in (first, last))
            length = high + low * -1 + 1
            if length.is_constant and length.constant <= UNROLLED:
                values = [low + v for v in range(length.constant)]
                return [c for v in values for c in choices(others, {**chosen, symbol: v}, loops)]
            values_of = Range(low, high + 1)
            loop = made[symbol, values_of] = made.get((symbol, values_of)) or self.index(values_of)
            return choices(others, {**chosen, symbol: name(loop)}, (*loops, loop))

        return choices(limits, {}, ())

    def reduced(self, node: Any, scope: Mapping[Any, Affine], reduction: Reduction) -> Op:
        """A Sum or a Product: one statement for each set of loops over the indices that are not written out."""
        combine = add if reduction == "sum" else mul
        groups: dict[tuple[str, ...], list[Op]] = {}
        for choice, loops in self.spread(list(reversed(node.limits)), scope):
            groups.setdefault(loops, []).append(self.scalar(node.function, {**scope, **choice}))
        parts = []
        for loops, terms in groups.items():
            body = combine(*terms)
            parts.append(body if not loops or body is combine() else self._reduce(body, loops, scope, reduction))
        return combine(*parts)

    def _reduce(self, body: Op, loops: tuple[str, ...], scope: Mapping[Any, Affine], reduction: Reduction) -> Op:
        lifted = self._lifted(body, loops, scope)
        body = lifted.body
        if reduction == "product":
            every = (*lifted.free, *lifted.loops)
            factors = self.local(every)
            self.statements.append(Statement(factors, tuple(map(name, every)), every, body, note="factors"))
            body = read(factors, map(name, every))
        target = self.local(lifted.free)
        self.statements.append(
            Statement(
                target, tuple(map(name, lifted.free)), (*lifted.free, *lifted.loops), body, accumulate=True,
                note=reduction, reduction=reduction,
            )
        )  # fmt: skip
        return read(target, lifted.at)

    def extreme(self, node: Any, scope: Mapping[Any, Affine], kind: str) -> Op:
        """The smallest or largest entry, found index by index; the last limit is the outermost."""

        def over(limits: Sequence[Any], scope: Mapping[Any, Affine]) -> Op:
            if not limits:
                return self.scalar(node.function, scope)
            *inner, (symbol, first, last) = limits
            choices = self.spread([(symbol, first, last)], scope)
            bodies = [over(inner, {**scope, **choice}) for choice, _ in choices]
            if choices and choices[0][1]:
                return self._first(bodies[0], choices[0][1], scope, kind, f"{kind} over {ascii(str(symbol))[1:-1]}")
            if not bodies:
                raise DeclarationError(
                    f"energy {self.energy.name!r}: the {kind} over {symbol} is over nothing: {symbol} runs from "
                    f"{first} to {last}"
                )
            result, *others = bodies
            for other in others:
                result = function(kind, result, other)
            return result

        return over(node.limits, scope)

    def _first(self, body: Op, loops: tuple[str, ...], scope: Mapping[Any, Affine], kind: str, origin: str) -> Op:
        """The body at the value of its loop where it is smallest (largest) first."""
        lifted = self._kept(body, loops, scope)
        (loop,), free = lifted.loops, tuple(map(name, lifted.free))
        place = self.local(lifted.free, origin=origin, integer=True)
        which: Reduction = "argmin" if kind == "minimum" else "argmax"
        self.statements.append(
            Statement(place, free, (*lifted.free, loop), lifted.body, accumulate=True, note=kind, reduction=which)
        )
        target = self.local(lifted.free)
        found = replace_indices(lifted.body, {loop: Affine(((Gather(place, free), 1),))})
        self.statements.append(Statement(target, free, lifted.free, found, note=kind))
        return read(target, lifted.at)

    def _kept(self, body: Op, loops: tuple[str, ...], scope: Mapping[Any, Affine]) -> _Lifted:
        """What a reduction over loops keeps: the outer indices in its body and in ranges, and what bounds those.

        For extremes: at more values than those that are read, a range could be empty.
        """
        used = body.indices.union(*(self.ranges[i].names for i in loops))
        outer = dict.fromkeys(i for s in scope.values() for i in sorted(s.names) if i in self.ranges)
        free = closed((i for i in outer if i in used), self.ranges)
        return _Lifted(body, free, loops, tuple(map(name, free)))

    def _lifted(self, body: Op, loops: tuple[str, ...], scope: Mapping[Any, Affine]) -> _Lifted:
        """The same, where an index whose range depends on another that the body lacks gets a range of its own."""
        kept = self._kept(body, loops, scope)
        used = body.indices.union(*(self.ranges[i].names for i in loops))
        free = tuple(i for i in kept.free if i in used)
        ranges = widened(body, free, self.ranges, self.arrays, frozenset(self.whole)) if free != kept.free else None
        if ranges is None:
            return kept
        mapping: dict[str, Affine] = {}
        for old in free:
            mapping[old] = name(self.index(ranges[old]) if ranges[old] != self.ranges[old] else old)
        for old in loops:
            moved = self.ranges[old].replaced(mapping)
            mapping[old] = name(self.index(moved) if moved != self.ranges[old] else old)
        fresh = tuple(str(mapping[i].single) for i in (*free, *loops))
        count = len(free)
        return _Lifted(replace_indices(body, mapping), fresh[:count], fresh[count:], tuple(map(name, free)))

    def let(self, base: str, subscripts: Sequence[Affine]) -> Op:
        key, value = self.definitions[base]
        indices = list(key.indices) if isinstance(key, sp.Indexed) else []
        members = set(self.family.values())
        fixed = [s in members or (_is_short(i) and s.is_constant) for i, s in zip(indices, subscripts, strict=True)]
        chosen = tuple(s if is_fixed else None for s, is_fixed in zip(subscripts, fixed, strict=True))
        if (base, chosen) not in self.lets:
            own = set(map(str, indices))
            scope: dict[Any, Affine] = {i: place for i, place in self.family.items() if str(i) not in own}
            loops: list[str] = []
            for i, place in zip(indices, chosen, strict=True):
                if place is not None:
                    scope[i] = place
                else:
                    loops.append(self.index(Range(self.subscript(i.lower, {}), self.subscript(i.upper, {}) + 1)))
                    scope[i] = name(loops[-1])
            body = self.scalar(value, scope)
            target = self.local(loops, origin=ascii(base)[1:-1])
            self.statements.append(Statement(target, tuple(map(name, loops)), tuple(loops), body, note="intermediate"))
            self.lets[base, chosen] = target
        kept = [s for s, is_fixed in zip(subscripts, fixed, strict=True) if not is_fixed]
        return read(self.lets[base, chosen], kept)

    # ------------------------------------------------------------------------------------ integers

    def subscript(self, node: Any, scope: Mapping[Any, Affine]) -> Affine:
        node = sp.sympify(node)
        if node.is_Integer:
            return constant(int(node))
        if node in scope:
            return scope[node]
        if node in self.extents:
            return name(self.extents[node])
        if node.is_Add:
            total = constant(0)
            for term in node.args:
                total = total + self.subscript(term, scope)
            return total
        if node.is_Mul and len(node.args) == 2 and node.args[0].is_Integer:
            return self.subscript(node.args[1], scope) * int(node.args[0])
        if isinstance(node, sp.Indexed):
            array = self.array_names[node.base.name]
            return Affine(((Gather(array, tuple(self.subscript(i, scope) for i in node.indices)), 1),))
        raise UnsupportedError(
            f"energy {self.energy.name!r}: the subscript {node} is not a sum of indices, extents and "
            "integers; write it as i + c, 2*i, n - 1 or a gather e[k] through integer data"
        )

    # ------------------------------------------------------------------------------------ numbers

    def scalar(self, node: Any, scope: Mapping[Any, Affine]) -> Op:
        """The expression of a real SymPy node, in which the indices of `scope` are bound."""
        if node in scope or node in self.extents:
            return affine(self.subscript(node, scope))
        if node.is_Rational:
            return number(Fraction(int(node.p), int(node.q)))
        if (node.is_number and not node.args) or node.is_Float or node.is_NumberSymbol:
            return number(float(node))
        if isinstance(node, sp.Sum | sp.Product):
            return self.reduced(node, scope, "sum" if isinstance(node, sp.Sum) else "product")
        if isinstance(node, Extreme):
            return self.extreme(node, scope, node.primitive)
        if isinstance(node, sp.Indexed):
            subscripts = [self.subscript(i, scope) for i in node.indices]
            base = str(node.base.name)
            if base in self.definitions:
                return self.let(base, subscripts)
            array = self.arrays[self.array_names[base]]
            if array.integer:
                return affine(Affine(((Gather(array.name, tuple(subscripts)), 1),)))
            return read(array.name, subscripts)
        if isinstance(node, sp.Symbol):
            return self.let(node.name, ()) if node.name in self.definitions else read(self.array_names[node.name])
        rule = RULES.get(type(node))
        if rule is not None:
            lowered: Op = rule(self, node, scope)
            return lowered
        kind = FUNCTIONS.get(type(node)) or _c_function(node)
        if kind is not None:
            return function(kind, *(self.scalar(a, scope) for a in node.args))
        raise UnsupportedError(
            f"energy {self.energy.name!r}: no kernel for {node}; supported: {', '.join(supported_functions())}; "
            "for one of your own: wb.function(name, value=..., derivative=...)"
        )

    def constant_power(self, base: Any, exponent: Fraction | float, scope: Mapping[Any, Affine]) -> Op:
        """The power; one with a kink where its base can be 0 as a function that knows of it: a root, `abs` or `pow`."""
        if base.is_Pow and base.exp.is_Integer and base.exp % 2 == 0 and exponent != int(exponent):
            return self.constant_power(sp.Abs(base.base), exponent * int(base.exp), scope)
        result = power(self.scalar(base, scope), exponent)
        is_fractional = result.name == "power" and not isinstance(result.args[1], int)
        if not is_fractional or result.args[1] < 0 or self.intervals.of(base).is_positive:
            return result
        inner, order = result.args
        if isinstance(order, Fraction) and order.denominator == 2:
            return mul(function("sqrt", inner), power(inner, (order.numerator - 1) // 2))
        return function("pow", inner, number(order))


def supported_functions() -> list[str]:
    """Names of the SymPy functions that an energy may use, sorted.

    >>> "exp" in supported_functions()
    True
    """
    kinds = {kind.__name__ for kind in (*FUNCTIONS, *RULES) if kind.__module__.startswith("sympy.")}
    return sorted(kinds | C_FUNCTIONS)


def _c_function(node: Any) -> str | None:
    """log1p or expm1, known by name and module: importing their module takes longer than all of this one."""
    kind = type(node)
    return kind.__name__ if kind.__module__ == "sympy.codegen.cfunctions" and kind.__name__ in C_FUNCTIONS else None


def _base_name(key: Any) -> str:
    return str(key.base.name) if isinstance(key, sp.Indexed) else str(key.name)


def _is_short(index: Any) -> bool:
    return bool(index.lower.is_Integer and index.upper.is_Integer and index.upper - index.lower < UNROLLED)


# -------------------------------------------------------------------------------------------- rules

Scope = Mapping[Any, Affine]


def _power(self: Lowering, node: Any, scope: Scope) -> Op:
    base, exponent = node.args
    if base is sp.E:
        return function("exp", self.scalar(exponent, scope))
    if exponent.is_number:
        value = Fraction(int(exponent.p), int(exponent.q)) if exponent.is_Rational else float(exponent)
        return self.constant_power(base, value, scope)
    lowered = self.scalar(base, scope)
    power_of = self.scalar(exponent, scope)
    if is_number(power_of):
        return power(lowered, power_of.args[0])
    if is_number(lowered) and lowered.args[0] > 0:
        return function("exp", mul(function("log", lowered), power_of))
    return function("pow", lowered, power_of)


def _extreme(kind: str) -> Any:
    def rule(self: Lowering, node: Any, scope: Scope) -> Op:
        result, *others = (self.scalar(a, scope) for a in node.args)
        for other in others:
            result = function(kind, result, other)
        return result

    return rule


def _piecewise(self: Lowering, node: Any, scope: Scope) -> Op:
    *branches, (last, default) = node.args
    if default != sp.true:
        raise DeclarationError(
            f"energy {self.energy.name!r}: a Piecewise has no (expression, True) branch, so the energy is undefined "
            f"where {sp.Not(default)}; add a last branch"
        )
    result = self.scalar(last, scope)
    for value, condition in reversed(branches):
        result = select(_condition(self, condition, scope), self.scalar(value, scope), result)
    return result


def _condition(self: Lowering, node: Any, scope: Scope) -> Op:
    if node in (sp.true, sp.false):
        return make("true" if node == sp.true else "false", ())
    if isinstance(node, sp.Not):
        return function("not", _condition(self, node.args[0], scope))
    if isinstance(node, (sp.And, sp.Or)):
        kind = "and" if isinstance(node, sp.And) else "or"
        result, *others = (_condition(self, a, scope) for a in sorted(node.args, key=sp.default_sort_key))
        for other in others:
            result = function(kind, result, other)
        return result
    sides = {sp.StrictLessThan: ("less", 1), sp.LessThan: ("less_equal", 1), sp.StrictGreaterThan: ("less", -1),
             sp.GreaterThan: ("less_equal", -1), sp.Equality: ("equal", 1), sp.Unequality: ("equal", 1)}  # fmt: skip
    if type(node) not in sides:
        raise UnsupportedError(f"energy {self.energy.name!r}: the condition {node} is no comparison of numbers")
    kind, order = sides[type(node)]
    left, right = (self.scalar(a, scope) for a in node.args[::order])
    result = function(kind, left, right)
    return function("not", result) if isinstance(node, sp.Unequality) else result


def _heaviside(self: Lowering, node: Any, scope: Scope) -> Op:
    x = self.scalar(node.args[0], scope)
    at_zero = self.scalar(node.args[1], scope)
    return select(function("less", ZERO, x), ONE, select(function("less", x, ZERO), ZERO, at_zero))


def _kronecker(self: Lowering, node: Any, scope: Scope) -> Op:
    first, second = (self.scalar(a, scope) for a in node.args[:2])
    if is_number(first) and is_number(second):
        return ONE if first is second else ZERO
    return select(function("equal", first, second), ONE, ZERO)


def _polygamma(self: Lowering, node: Any, scope: Scope) -> Op:
    order, x = node.args
    if not (order.is_Integer and 0 <= order <= HIGHEST_POLYGAMMA):
        raise UnsupportedError(
            f"energy {self.energy.name!r}: the order of {node} must be a number, 0, 1, ... or {HIGHEST_POLYGAMMA}"
        )
    return function("polygamma", number(int(order)), self.scalar(x, scope))


def _beta(self: Lowering, node: Any, scope: Scope) -> Op:
    a, b = (self.scalar(argument, scope) for argument in node.args)
    logarithms = (function("log_gamma", a), function("log_gamma", b), negative(function("log_gamma", add(a, b))))
    return function("exp", add(*logarithms))


def _modulo(self: Lowering, node: Any, scope: Scope) -> Op:
    """x - y*floor(x/y), with the sign of y."""
    x, y = (self.scalar(argument, scope) for argument in node.args)
    return add(x, negative(mul(y, function("floor", mul(x, power(y, -1))))))


def _of_inverse(kind: str) -> Any:
    """kind(1/x)."""
    return lambda self, node, scope: function(kind, power(self.scalar(node.args[0], scope), -1))


def _over(above: str, below: str) -> Any:
    """above(x)/below(x); no numerator where `above` is empty."""

    def rule(self: Lowering, node: Any, scope: Scope) -> Op:
        x = self.scalar(node.args[0], scope)
        return mul(function(above, x) if above else ONE, power(function(below, x), -1))

    return rule


HIGHEST_POLYGAMMA = 20

RULES: dict[Any, Any] = {
    sp.Add: lambda self, node, scope: add(*(self.scalar(a, scope) for a in node.args)),
    sp.Mul: lambda self, node, scope: join_exponentials(mul(*(self.scalar(a, scope) for a in node.args))),
    sp.Pow: _power,
    sp.Max: _extreme("maximum"),
    sp.Min: _extreme("minimum"),
    sp.Piecewise: _piecewise,
    sp.Heaviside: _heaviside,
    sp.KroneckerDelta: _kronecker,
    sp.Mod: _modulo,
    sp.frac: lambda self, node, scope: add(x := self.scalar(node.args[0], scope), negative(function("floor", x))),
    sp.sinc: lambda self, node, scope: function("sinc", ZERO, self.scalar(node.args[0], scope)),
    sp.polygamma: _polygamma,
    sp.factorial: lambda self, node, scope: function("gamma", add(ONE, self.scalar(node.args[0], scope))),
    sp.beta: _beta,
    sp.sec: _over("", "cos"),
    sp.csc: _over("", "sin"),
    sp.cot: _over("cos", "sin"),
    sp.asec: _of_inverse("acos"),
    sp.acsc: _of_inverse("asin"),
    sp.asech: _of_inverse("acosh"),
    sp.acsch: _of_inverse("asinh"),
    sp.acoth: _of_inverse("atanh"),
}
