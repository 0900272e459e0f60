"""The value of an energy from its SymPy expression, term by term: the outside reference of derivative checks.

Nothing of the compiler is used here: no program, no kernel, no interpreter. Sums are loops, numbers are complex
(for the complex step) or of high precision (for differences), so that derivatives come out to full double precision.
Each node of the expression becomes a Python closure, once for an energy; a closure takes the place (`_Place`) where
it is evaluated: the values of indices and extents, and of all arrays.
"""

from __future__ import annotations

import cmath
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import mpmath
import sympy as sp
from sympy.codegen.cfunctions import expm1, log1p

from ..energies.energy import Energy
from ..energies.extrema import Extreme
from ..energies.user_function import Token, UserCall, UserFunction

Point = Mapping[str, Any]
NOT_ANALYTIC = (sp.Abs, sp.sign, sp.Max, sp.Min, sp.Piecewise, sp.Heaviside, sp.floor, sp.ceiling, sp.atan2)
OVER_INDICES = (sp.Sum, sp.Product, Extreme)


@dataclass(frozen=True, eq=False)
class Arithmetic:
    """Numbers and functions to evaluate with."""

    number: Callable[[Any], Any]
    functions: Mapping[Any, Callable[..., Any]]
    power: Callable[[Any, Any], Any]
    real: Callable[[Any], Any]


def _real(value: Any) -> Any:
    return mpmath.re(value)


def _order(kind: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: kind(args, key=lambda a: float(_real(a)))


def _mp_sign(x: Any) -> Any:
    return mpmath.sign(_real(x))


_SHARED = {sp.Max: _order(max), sp.Min: _order(min), sp.floor: lambda x: mpmath.floor(_real(x)),
           sp.ceiling: lambda x: mpmath.ceil(_real(x)), sp.sign: _mp_sign, sp.Abs: abs}  # fmt: skip

_COMPARISONS = {
    sp.StrictLessThan: operator.lt, sp.LessThan: operator.le, sp.StrictGreaterThan: operator.gt,
    sp.GreaterThan: operator.ge, sp.Equality: operator.eq, sp.Unequality: operator.ne,
}  # fmt: skip

PRECISE = Arithmetic(
    mpmath.mpmathify,
    {sp.exp: mpmath.exp, sp.log: mpmath.log, log1p: mpmath.log1p, expm1: mpmath.expm1, sp.sin: mpmath.sin,
     sp.cos: mpmath.cos, sp.tan: mpmath.tan, sp.asin: mpmath.asin, sp.acos: mpmath.acos, sp.atan: mpmath.atan,
     sp.sinh: mpmath.sinh, sp.cosh: mpmath.cosh, sp.tanh: mpmath.tanh, sp.asinh: mpmath.asinh, sp.acosh: mpmath.acosh,
     sp.atanh: mpmath.atanh, sp.atan2: mpmath.atan2, sp.erf: mpmath.erf, sp.erfc: mpmath.erfc,
     sp.sec: mpmath.sec, sp.csc: mpmath.csc, sp.cot: mpmath.cot, sp.asec: mpmath.asec, sp.acsc: mpmath.acsc,
     sp.acot: mpmath.acot, sp.sech: mpmath.sech, sp.csch: mpmath.csch, sp.coth: mpmath.coth, sp.asech: mpmath.asech,
     sp.acsch: mpmath.acsch, sp.acoth: mpmath.acoth, sp.loggamma: mpmath.loggamma, sp.gamma: mpmath.gamma,
     sp.polygamma: lambda n, x: mpmath.polygamma(int(_real(n)), x), sp.factorial: mpmath.factorial,
     sp.beta: mpmath.beta, sp.sinc: mpmath.sinc, sp.Mod: lambda x, y: x - y*mpmath.floor(_real(x/y)),
     sp.frac: lambda x: x - mpmath.floor(_real(x)), **_SHARED},
    mpmath.power,
    _real,
)  # fmt: skip

COMPLEX = Arithmetic(
    complex,
    {sp.exp: cmath.exp, sp.log: cmath.log, log1p: lambda x: cmath.log(1 + x), expm1: lambda x: cmath.exp(x) - 1,
     sp.sin: cmath.sin, sp.cos: cmath.cos, sp.tan: cmath.tan, sp.asin: cmath.asin, sp.acos: cmath.acos,
     sp.atan: cmath.atan, sp.sinh: cmath.sinh, sp.cosh: cmath.cosh, sp.tanh: cmath.tanh, sp.asinh: cmath.asinh,
     sp.acosh: cmath.acosh, sp.atanh: cmath.atanh},
    lambda a, b: a**int(b.real) if b.imag == 0 and b.real == int(b.real) else a**b,
    lambda x: x.real,
)  # fmt: skip


def is_analytic(energy: Energy) -> bool:
    """Whether the complex step may be used: no kinks, and only functions that COMPLEX has."""
    formulas = [energy.expression, *energy.where.values()]
    functions = {type(f) for e in formulas for f in e.atoms(sp.Function, *NOT_ANALYTIC, Extreme)}
    return all(f in COMPLEX.functions or f is sp.Indexed for f in functions)


def value(energy: Energy, point: Point, extents: Mapping[Any, int], arithmetic: Arithmetic) -> Any:
    """The energy at a point: name -> number, or an object array of numbers of the arithmetic.

    Of a family, `extents` tells the member, too: a number for each of its indices.
    """
    return _formula(energy, arithmetic)(point, extents)


@dataclass(slots=True)
class _Place:
    """Where a closure is evaluated: index or extent -> int, name -> numbers, and entries of lets found so far."""

    scope: dict[Any, int]
    point: Point
    lets: dict[Any, Any] = field(default_factory=dict)


Number = Callable[[_Place], Any]
Integer = Callable[[_Place], int]


@lru_cache(maxsize=32)
def _formula(energy: Energy, arithmetic: Arithmetic) -> _Formula:
    return _Formula(energy, arithmetic)


class _Formula:
    """An energy as closures."""

    def __init__(self, energy: Energy, arithmetic: Arithmetic) -> None:
        self.arithmetic = arithmetic
        self.definitions = {_name(key): (key, formula) for key, formula in energy.where.items()}
        formulas = [energy.expression, *energy.where.values()]
        dummies = {limit[0] for e in formulas for node in e.atoms(*OVER_INDICES) for limit in node.limits}
        lets = {index for key in energy.where if isinstance(key, sp.Indexed) for index in key.indices}
        self.integers = {*energy.extents, *energy.over, *dummies, *lets}
        self.numbers: dict[Any, Number] = {}
        self.bodies = {name: self.number(formula) for name, (_, formula) in self.definitions.items()}
        self.root = self.number(energy.expression)

    def __call__(self, point: Point, extents: Mapping[Any, int]) -> Any:
        return self.root(_Place(dict(extents), point))

    # ---------------------------------------------------------------------------------- subscripts

    def integer(self, node: Any) -> Integer:
        node = sp.sympify(node)
        if node.is_Integer:
            constant = int(node)
            return lambda at: constant
        if node in self.integers:
            return lambda at: at.scope[node]
        if isinstance(node, sp.Indexed):
            entry = self.entry(node)
            return lambda at: int(entry(at))
        parts = [self.integer(a) for a in node.args]
        if node.is_Add:
            return lambda at: sum(part(at) for part in parts)
        if node.is_Mul:
            return lambda at: math.prod(part(at) for part in parts)
        raise TypeError(f"{node} is not an integer expression")

    def entry(self, node: Any) -> Number:
        base, subscripts = str(node.base.name), [self.integer(i) for i in node.indices]
        if base in self.definitions:
            return self.let(base, subscripts)

        def entry(at: _Place) -> Any:
            where = tuple(s(at) for s in subscripts)
            array = at.point[base]
            if any(not 0 <= i < n for i, n in zip(where, array.shape, strict=True)):
                raise IndexError(f"{node} leaves {base}")
            return array[where]

        return entry

    def let(self, base: str, subscripts: list[Integer]) -> Number:
        key, _ = self.definitions[base]
        indices = key.indices if isinstance(key, sp.Indexed) else ()

        def let(at: _Place) -> Any:
            where = tuple(s(at) for s in subscripts)
            if (base, where) not in at.lets:
                inner = _Place({**at.scope, **dict(zip(indices, where, strict=True))}, at.point, at.lets)
                at.lets[base, where] = self.bodies[base](inner)
            return at.lets[base, where]

        return let

    # ---------------------------------------------------------------------------------- numbers

    def number(self, node: Any) -> Number:
        if node not in self.numbers:
            self.numbers[node] = self._number(node)
        return self.numbers[node]

    def _number(self, node: Any) -> Number:
        make = self.arithmetic.number
        if node in self.integers:
            return lambda at: make(at.scope[node])
        if isinstance(node, OVER_INDICES):
            return self.over_indices(node)
        if isinstance(node, sp.Indexed):
            entry = self.entry(node)
            is_index = node.base.label.is_integer
            return (lambda at: make(int(entry(at)))) if is_index else entry
        if isinstance(node, sp.Symbol):
            name = node.name
            return self.let(name, []) if name in self.definitions else lambda at: at.point[name]
        if node.is_Rational:
            p, q = int(node.p), int(node.q)
            return lambda at: make(p) / make(q)
        if isinstance(node, sp.NumberSymbol):  # pi, E: mpmath does not take the symbol
            return lambda at: make(node.evalf(mpmath.mp.dps + 3))
        if node.is_number and not node.args:
            return lambda at: complex(node) if make is complex else make(node)
        if isinstance(node, sp.Piecewise):
            return self.piecewise(node)
        parts = [self.number(a) for a in node.args if not isinstance(a, sp.Tuple | Token)]
        if node.is_Add:
            return lambda at: sum((part(at) for part in parts[1:]), parts[0](at))
        if node.is_Mul:
            return lambda at: math.prod((part(at) for part in parts[1:]), start=parts[0](at))
        if node.is_Pow:
            return lambda at: self.arithmetic.power(parts[0](at), parts[1](at))
        if isinstance(node, sp.Heaviside):
            return lambda at: self.step(parts[0](at), parts[1](at))
        if isinstance(node, UserCall):
            return self.own(node.definition, node.args[1:])
        if isinstance(node, sp.KroneckerDelta):
            return lambda at: make(int(parts[0](at) == parts[1](at)))
        function = self.arithmetic.functions[type(node)]
        return lambda at: function(*(part(at) for part in parts))

    def over_indices(self, node: Any) -> Number:
        """A sum, product or extreme: its terms in order, the last limit being the outermost loop."""
        limits = [(symbol, self.integer(low), self.integer(high)) for symbol, low, high in reversed(node.limits)]
        body = self.number(node.function)

        def terms(at: _Place, depth: int = 0) -> Iterator[Any]:
            if depth == len(limits):
                yield body(at)
                return
            symbol, low, high = limits[depth]
            for value in range(low(at), high(at) + 1):
                yield from terms(_Place({**at.scope, symbol: value}, at.point, at.lets), depth + 1)

        if isinstance(node, Extreme):
            choose = min if node.primitive == "minimum" else max
            return lambda at: choose(terms(at), key=lambda term: float(self.arithmetic.real(term)))
        if isinstance(node, sp.Product):
            return lambda at: math.prod(terms(at), start=self.arithmetic.number(1))
        return lambda at: sum(terms(at), self.arithmetic.number(0))

    def piecewise(self, node: Any) -> Number:
        branches = [(self.number(branch), self.condition(condition)) for branch, condition in node.args]
        return lambda at: next(branch for branch, holds in branches if holds(at))(at)

    def condition(self, node: Any) -> Callable[[_Place], bool]:
        if node in (sp.true, sp.false):
            return lambda at: bool(node)
        if isinstance(node, (sp.And, sp.Or, sp.Not)):
            parts = [self.condition(a) for a in node.args]
            if isinstance(node, sp.Not):
                return lambda at: not parts[0](at)
            kind = all if isinstance(node, sp.And) else any
            return lambda at: kind(part(at) for part in parts)
        left, right = (self.number(a) for a in node.args)
        compare, real = _COMPARISONS[type(node)], self.arithmetic.real
        return lambda at: bool(compare(real(left(at)), real(right(at))))

    def own(self, definition: UserFunction, arguments: Sequence[Any]) -> Number:
        """A user's function; a numba function is run in mpmath's numbers."""
        if definition.expression is not None:
            return self.number(definition.inlined(*arguments))
        parts, function = [self.number(a) for a in arguments], definition.precise
        return lambda at: function(*(part(at) for part in parts))

    def step(self, x: Any, at_zero: Any) -> Any:
        x = float(self.arithmetic.real(x))
        return at_zero if x == 0 else self.arithmetic.number(x > 0)


def _name(key: Any) -> str:
    return str(key.base.name) if isinstance(key, sp.Indexed) else str(key.name)
