"""What values a formula can take, from its form and the signs that its symbols are declared with.

    1 + x**2  in [1, oo)        exp(x)  in (0, oo)        tanh(x)/2  in (-1/2, 1/2)        x - y  in (-oo, oo)

Interval arithmetic, with ends that may be open. Two uses: a root of what cannot reach 0 needs no care there (lower.py),
and a derivative that can become infinite deserves a warning: `warn_of_unbounded_derivatives`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import sympy as sp
from sympy.concrete.expr_with_limits import ExprWithLimits

from ...energies.display import excerpt, printable
from ...energies.energy import Energy
from ...energies.errors import UnboundedDerivativeWarning
from ...energies.extrema import Extreme

INF = math.inf


@dataclass(frozen=True)
class Interval:
    """The numbers from `low` to `high`; an open end is not reached."""

    low: float = -INF
    high: float = INF
    open_low: bool = False
    open_high: bool = False

    @property
    def is_positive(self) -> bool:
        return self.low > 0 or (self.low == 0 and self.open_low)

    def reaches(self, value: float) -> bool:
        above = self.low < value or (self.low == value and not self.open_low)
        return above and (value < self.high or (self.high == value and not self.open_high))

    def mapped(self, function: Callable[[float], float]) -> Interval:
        """Through a function that never decreases."""
        return Interval(function(self.low), function(self.high), self.open_low, self.open_high)

    def negative(self) -> Interval:
        return Interval(-self.high, -self.low, self.open_high, self.open_low)


ALL = Interval()
POSITIVE = Interval(0.0, INF, open_low=True)
NOT_NEGATIVE = Interval(0.0, INF)


class Intervals:
    """The intervals of the formulas of one energy."""

    def __init__(self, energy: Energy) -> None:
        self.known: dict[Any, Interval] = {}
        self.definitions = {_label(key): value for key, value in energy.where.items()}

    def of(self, node: Any) -> Interval:
        if node not in self.known:
            self.known[node] = ALL  # what a definition would depend on itself
            self.known[node] = self._of(node)
        return self.known[node]

    def _of(self, node: Any) -> Interval:
        if node.is_Symbol or isinstance(node, sp.Indexed | sp.Idx):
            return self._of_symbol(node)
        if isinstance(node, Extreme):
            return self.of(node.function)
        if node.is_number and not node.has(ExprWithLimits) and node.is_extended_real:
            value = float(node)
            return Interval(value, value)
        if isinstance(node, sp.Sum):
            return _of_sum(self.of(node.function))
        if isinstance(node, sp.Piecewise):
            return _hull(self.of(branch) for branch, _ in node.args)
        rule = _RULES.get(type(node))
        return rule(*(self.of(argument) for argument in node.args)) if rule else _RANGES.get(type(node), ALL)

    def _of_symbol(self, node: Any) -> Interval:
        label = _label(node)
        if label in self.definitions:
            return self.of(self.definitions[label])
        if isinstance(node, sp.Idx):
            return NOT_NEGATIVE if node.lower is not None and node.lower.is_nonnegative else ALL
        if label.is_positive:
            return POSITIVE
        if label.is_negative:
            return POSITIVE.negative()
        return NOT_NEGATIVE if label.is_nonnegative else NOT_NEGATIVE.negative() if label.is_nonpositive else ALL


def _label(node: Any) -> Any:
    return node.base.label if isinstance(node, sp.Indexed) else node


def _hull(intervals: Iterable[Interval]) -> Interval:
    found = list(intervals)
    low, high = min(i.low for i in found), max(i.high for i in found)
    open_low = all(i.open_low for i in found if i.low == low)
    return Interval(low, high, open_low, all(i.open_high for i in found if i.high == high))


def _of_sum(term: Interval) -> Interval:
    """Any number of terms; a sum of none has no derivative that could be infinite."""
    if term.low >= 0:
        return Interval(term.low, INF, term.open_low)
    return Interval(-INF, term.high, False, term.open_high) if term.high <= 0 else ALL


def _added(*terms: Interval) -> Interval:
    return Interval(
        sum(t.low for t in terms),
        sum(t.high for t in terms),
        any(t.open_low for t in terms),
        any(t.open_high for t in terms),
    )


def _multiplied(*factors: Interval) -> Interval:
    result = Interval(1.0, 1.0)
    for factor in factors:
        ends = [
            (0.0 if a == 0 or b == 0 else a * b, (x and b != 0) or (y and a != 0) or (x and y))
            for a, x in ((result.low, result.open_low), (result.high, result.open_high))
            for b, y in ((factor.low, factor.open_low), (factor.high, factor.open_high))
        ]
        low, high = min(v for v, _ in ends), max(v for v, _ in ends)
        open_low = all(o for v, o in ends if v == low)
        result = Interval(low, high, open_low, all(o for v, o in ends if v == high))
    return result


def _power(base: Interval, exponent: Interval) -> Interval:
    if exponent.low != exponent.high:
        return POSITIVE if base.is_positive else NOT_NEGATIVE if base.low >= 0 else ALL
    p = exponent.low
    if p == int(p) and p % 2 == 0 and base.low < 0:
        base = _size(base)
    if base.low < 0:
        return base.mapped(lambda v: _raised(v, p)) if p > 0 and p % 2 == 1 else NOT_NEGATIVE if p != int(p) else ALL
    if p >= 0:
        return base.mapped(lambda v: _raised(v, p))
    return Interval(_raised(base.high, p), _raised(base.low, p), base.open_high or base.high == INF, base.open_low)


def _raised(value: float, exponent: float) -> float:
    try:
        return float(value**exponent)
    except ZeroDivisionError:
        return INF
    except OverflowError:
        return INF if value > 0 else -INF


def _size(x: Interval) -> Interval:
    if x.low >= 0:
        return x
    if x.high <= 0:
        return x.negative()
    high = max(-x.low, x.high)
    return Interval(0.0, high, False, all(o for v, o in ((-x.low, x.open_low), (x.high, x.open_high)) if v == high))


def _exponential(x: Interval) -> Interval:
    return Interval(_exp(x.low), _exp(x.high), x.open_low or _exp(x.low) == 0, x.open_high)


def _exp(value: float) -> float:
    return math.exp(value) if value < 709 else INF


def _hyperbolic(x: Interval) -> Interval:
    return Interval(math.tanh(x.low), math.tanh(x.high), x.open_low or x.low == -INF, x.open_high or x.high == INF)


def _extreme(kind: Callable[..., float]) -> Callable[..., Interval]:
    def rule(*xs: Interval) -> Interval:
        low, high = kind(x.low for x in xs), kind(x.high for x in xs)
        open_low = all(x.open_low for x in xs if x.low == low)
        return Interval(low, high, open_low, all(x.open_high for x in xs if x.high == high))

    return rule


_RULES: dict[Any, Callable[..., Interval]] = {
    sp.Add: _added, sp.Mul: _multiplied, sp.Pow: _power, sp.exp: _exponential, sp.Abs: _size, sp.tanh: _hyperbolic,
    sp.Max: _extreme(max), sp.Min: _extreme(min), sp.atan: lambda x: x.mapped(math.atan),
    sp.asinh: lambda x: x.mapped(math.asinh), sp.floor: lambda x: Interval(x.low - 1, x.high),
    sp.log: lambda x: x.mapped(lambda v: math.log(v) if 0 < v < INF else INF if v > 0 else -INF),
}  # fmt: skip

_RANGES: dict[Any, Interval] = {
    sp.sin: Interval(-1.0, 1.0), sp.cos: Interval(-1.0, 1.0), sp.sign: Interval(-1.0, 1.0),
    sp.Heaviside: Interval(0.0, 1.0), sp.erf: Interval(-1.0, 1.0, True, True), sp.erfc: Interval(0.0, 2.0, True, True),
    sp.cosh: Interval(1.0, INF), sp.sech: Interval(0.0, 1.0, True), sp.acos: Interval(0.0, math.pi),
    sp.asin: Interval(-math.pi / 2, math.pi / 2), sp.acosh: NOT_NEGATIVE, sp.sinc: Interval(-0.218, 1.0),
    sp.frac: Interval(0.0, 1.0, False, True),
}  # fmt: skip


# ------------------------------------------------------------------------------------------ warnings


_ENDS: dict[Any, tuple[float, ...]] = {sp.asin: (-1.0, 1.0), sp.acos: (-1.0, 1.0), sp.acosh: (1.0,)}
_INSTEAD = {
    sp.Pow: "add a square, as in sqrt({0} + eps**2), or use a smooth penalty such as wb.pseudo_huber",
    sp.asin: "use atan2(y, x) of the two sides, which is smooth",
    sp.acos: "use atan2(y, x) of the two sides, such as the norm of a cross product and a dot product",
    sp.acosh: "use log of a sum that stays above 1, or move the argument away from 1",
}


def warn_of_unbounded_derivatives(energy: Energy, stacklevel: int) -> None:
    """Warn, once for an energy, of roots, fractional powers, asin, acos and acosh whose derivative can be infinite."""
    found = list(dict.fromkeys(_unbounded(energy)))
    if found:
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        warnings.warn(
            f"energy '{printable(energy.name)}': {'; '.join(found[:3])}{more}. The derivative counts as 0 there",
            UnboundedDerivativeWarning,
            stacklevel=stacklevel + 1,
        )


def _unbounded(energy: Energy) -> Iterable[str]:
    intervals = Intervals(energy)
    learnt = {s.label if isinstance(s, sp.IndexedBase) else s for s in (*energy.variables, *energy.weights)}
    for key, formula in energy.where.items():  # each after those that it uses
        if formula.free_symbols & learnt:
            learnt.add(_label(key))
    todo: list[tuple[Any, frozenset[Any]]] = [(f, frozenset()) for f in (energy.expression, *energy.where.values())]
    seen = set()
    while todo:
        item = todo.pop()
        if item in seen:
            continue
        seen.add(item)
        node, guards = item
        if isinstance(node, sp.Piecewise):
            for branch, condition in node.args:
                todo.append((branch, guards | (condition.free_symbols if condition != sp.true else set())))
            continue
        todo += [(argument, guards) for argument in node.args]
        if type(node) in _INSTEAD and node.args[0].free_symbols & learnt and not node.args[0].free_symbols & guards:
            yield from _described(node, intervals)


def _described(node: Any, intervals: Intervals) -> Iterable[str]:
    """What to say of one node, if anything."""
    argument = node.args[0]
    values = intervals.of(argument)
    if isinstance(node, sp.Pow):
        exponent = intervals.of(node.args[1])
        is_root = exponent.high > 0 and exponent.low < 1 and (exponent.low > 0 or exponent.low != exponent.high)
        ends: tuple[float, ...] = (0.0,) if is_root else ()
    else:
        ends = _ENDS[type(node)]
    reached = [f"{end:g}" for end in ends if values.reaches(end)]
    if reached:
        instead = _INSTEAD[type(node)].format(excerpt(argument))
        where = f"where {excerpt(argument)} is {' or '.join(reached)}"
        yield f"the derivative of {excerpt(node)} is unbounded {where}; {instead}"
