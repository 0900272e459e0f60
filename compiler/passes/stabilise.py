"""Numerically safe forms, found in the program before it is differentiated.

    t[] += exp(a[i])  for i         ->        m[] max= a[i]                                  for i
    value = log(t[])                          s[] += shifted_exp(a[i], fixed(m[]))           for i
                                              value = fixed(m[]) + log(s[])

shifted_exp(a, m) is exp(a - m) with m a constant to differentiation, and so is fixed(m), which is m, or 0 where m is
not finite: the value does not depend on m, so its derivative cancels. Hence the gradient is the softmax
shifted_exp(a[i], fixed(m))/s, which cannot overflow, and so it is with all further derivatives.

The idea is to carry a number as exp(exponent)*mantissa (`Scaled`): products add exponents, sums take out the largest.
It is put to use where a logarithm or a quotient would undo an exponential, so that only its result has to be finite:

    log(w[i]*exp(a[i]) + ...)              the exponent, and the log of the mantissa
    exp(a[i])*t**-1                        exp of the difference of the exponents
    log(1 + exp(u)), (1 + exp(u))**-1      softplus(u), logistic(-u);  exp(u)/(1 + exp(u)) is logistic(u)

An exponent of which the extreme is subtracted by hand, exp(-c*(x[i] - minimum of x)), is one that cannot overflow: it
stays, computed once, as it is.

Differences that cancel have functions of their own, rows of the table of primitives:

    exp(u) - 1         expm1(u)            sqrt(1 + u) - 1    sqrt1pm1(u)           1 - logistic(u)    logistic(-u)
    log(1 + u)         log1p(u)            cos(u) - 1         cosm1(u)
    log(1 - exp(u))    log(-expm1(u)), or log1p(-exp(u)) where u < -log(2)

C. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax functions", IMA Journal of
Numerical Analysis 41, 2021; M. Maechler, "Accurately computing log(1 - exp(-|a|))", 2012.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from ..program.expression import (
    MINUS_ONE,
    ONE,
    ZERO,
    Number,
    Op,
    add,
    contains,
    function,
    gathers,
    is_number,
    mul,
    negative,
    never_negative,
    number,
    power,
    read,
    rebuild,
    replace_indices,
    select,
    split_coefficient,
)
from ..program.program import Array, Program, Statement, unused

HALF = Fraction(1, 2)


def stabilise(program: Program) -> Program:
    """The program with safe forms in place of unsafe ones; the same function, and no change the second time."""
    return _Stabiliser(program).run()


@dataclass(frozen=True)
class Scaled:
    """exp(exponent)*mantissa."""

    exponent: Op
    mantissa: Op


@dataclass(frozen=True)
class OnePlusExp:
    """factor*(1 + exp(argument)), the factor positive."""

    factor: Number
    argument: Op


class _Stabiliser:
    """One run over a program: statements are rewritten in order, and shifted sums inserted before their first use."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.arrays = dict(program.arrays)
        writers = Counter(s.target for s in program.statements)
        self.definitions = {
            s.target: s
            for s in program.statements
            if writers[s.target] == 1 and s.is_definition and self.arrays[s.target].role == "local"
        }
        self.places = {s.target: s for s in program.statements if s.reduction in ("argmin", "argmax")}
        self.statements: list[Statement] = []
        self.memo: dict[Op, Op] = {}
        self.scales: dict[Op, Scaled] = {}
        self.shifted: dict[str, tuple[str, str] | None] = {}  # a sum -> the largest exponent, and the shifted sum
        self.positive: set[str] = set()  # shifted sums that are at least 1

    def run(self) -> Program:
        for statement in self.program.statements:
            expression = self.rewrite(statement.expression)
            self.statements.append(replace(statement, expression=expression))
        return replace(self.program, arrays=self.arrays, statements=tuple(self.statements))

    def rewrite(self, node: Op) -> Op:
        if node not in self.memo:
            special = {"log": self.log, "mul": self.product, "power": self.product, "add": self.sum}.get(node.name)
            found = special(node) if special else None
            self.memo[node] = found or self.inside(node)
        return self.memo[node]

    def inside(self, node: Op) -> Op:
        """The node with its arguments rewritten."""
        if not node.children:
            return node
        return rebuild(node, tuple(self.rewrite(a) if isinstance(a, Op) else a for a in node.args))

    # ------------------------------------------------------------------------------------ scaled numbers

    def scaled(self, node: Op) -> Scaled:
        if node not in self.scales:
            self.scales[node] = self._scaled(node)
        return self.scales[node]

    def _scaled(self, node: Op) -> Scaled:
        if node.name == "exp" and not (_is_shifted(node.args[0]) or self._is_shifted_by_hand(node.args[0])):
            return Scaled(self.rewrite(node.args[0]), ONE)
        if node.name == "mul":
            parts = [self.scaled(a) for a in node.args]
            return Scaled(add(*(p.exponent for p in parts)), mul(*(p.mantissa for p in parts)))
        if node.name == "power":
            base = self.scaled(node.args[0])
            if base.exponent is not ZERO:
                return Scaled(mul(number(node.args[1]), base.exponent), power(base.mantissa, node.args[1]))
        if node.name == "add":
            return self._scaled_sum(node)
        if node.name == "read" and node.args[0] in self.definitions:
            return self._scaled_read(node)
        return Scaled(ZERO, self.rewrite(node))

    def _is_shifted_by_hand(self, exponent: Op) -> bool:
        """c times what is never negative times (x[i] - the smallest x), c < 0: at most 0, and 0 somewhere."""
        coefficient, rest = split_coefficient(exponent)
        factors = rest.args if rest.name == "mul" else (rest,)
        differences = [f for f in factors if not never_negative(f)]
        return len(differences) == 1 and float(coefficient) * self._excess(differences[0]) < 0

    def _excess(self, node: Op) -> int:
        """1 for x[i] - the smallest x, -1 for x[i] - the largest, and the other way round; 0 for anything else."""
        if node.name != "add" or len(node.args) != 2:
            return 0
        (a, first), (b, second) = map(split_coefficient, node.args)
        if a != -b or abs(a) != 1:
            return 0
        first, second = self._where_it_lies(first), self._where_it_lies(second)
        return int(a) * (self._is_beyond(first, second) - self._is_beyond(second, first))

    def _is_beyond(self, entry: Op, extreme: Op) -> int:
        """1 where `extreme` is the smallest entry of the array that `entry` is of, -1 for the largest, else 0."""
        if entry.name != "read" or extreme.name != "read" or entry.args[0] != extreme.args[0]:
            return 0
        for axis in extreme.args[1]:
            for place in gathers(axis):
                found = self.places.get(place)
                if found is not None and self._where_it_lies(found.expression).args[:1] == entry.args[:1]:
                    return 1 if found.reduction == "argmin" else -1
        return 0

    def _where_it_lies(self, node: Op) -> Op:
        """The entry that a read of a copy is a copy of."""
        while node.name == "read" and node.args[0] in self.definitions:
            statement = self.definitions[node.args[0]]
            if statement.accumulate or statement.expression.name != "read":
                break
            mapping = {str(s.single): v for s, v in zip(statement.subscripts, node.args[1], strict=True)}
            node = replace_indices(statement.expression, mapping)
        return node

    def _scaled_sum(self, node: Op) -> Scaled:
        scaled = [(a, self.scaled(a)) for a in node.args]
        parts = [Scaled(ZERO, self.rewrite(a)) if self._is_coefficient(s) else s for a, s in scaled]
        exponents = list(dict.fromkeys(p.exponent for p in parts))
        if exponents == [ZERO] or self._stays_moderate(node):
            return Scaled(ZERO, self.inside(node))
        if len(exponents) == 1:
            return Scaled(exponents[0], add(*(p.mantissa for p in parts)))
        shift = function("fixed", _largest([self._unless_zero(p) for p in parts]))
        terms = (mul(p.mantissa, function("shifted_exp", p.exponent, shift)) for p in parts)
        return Scaled(shift, add(*terms))

    def _is_coefficient(self, term: Scaled) -> bool:
        """Whether exp(exponent) is a number for a whole call that something else is multiplied by: exp(-2*l)*d2.

        As a width or scale it is computed once (prepare.py); to take it out of the sum would cost each term some.
        """
        return self._of_weights(term.exponent) and not self._of_weights(term.mantissa)

    def _of_weights(self, node: Op) -> bool:
        return all(self.arrays[name].role == "weight" for name in node.arrays)

    def _scaled_read(self, node: Op) -> Scaled:
        statement = self.definitions[node.args[0]]
        if not statement.accumulate:
            mapping = {str(s.single): v for s, v in zip(statement.subscripts, node.args[1], strict=True)}
            scaled = self.scaled(replace_indices(statement.expression, mapping))
            return scaled if scaled.exponent is not ZERO else Scaled(ZERO, node)
        found = self._shifted_sum(statement)
        if found is None:
            return Scaled(ZERO, node)
        largest, rest = found
        return Scaled(function("fixed", read(largest, node.args[1])), read(rest, node.args[1]))

    def _shifted_sum(self, statement: Statement) -> tuple[str, str] | None:
        """The arrays of the largest exponent and of the shifted sum of exponentials; None for another sum."""
        if statement.target not in self.shifted:
            term = self.scaled(statement.expression)
            is_sum = statement.reduction == "sum" and statement.summed and term.exponent is not ZERO
            self.shifted[statement.target] = self._insert(statement, term) if is_sum else None
        return self.shifted[statement.target]

    def _insert(self, statement: Statement, term: Scaled) -> tuple[str, str]:
        largest, rest = self._local(statement.target), self._local(statement.target)
        shift = function("fixed", read(largest, statement.subscripts))
        shifted = mul(term.mantissa, function("shifted_exp", term.exponent, shift))
        self.statements += [
            replace(statement, target=largest, expression=self._unless_zero(term), reduction="maximum",
                    note="the largest exponent"),
            replace(statement, target=rest, expression=shifted, note=f"{statement.note}, shifted"),
        ]  # fmt: skip
        if is_number(term.mantissa) and term.mantissa.args[0] > 0:
            self.positive.add(rest)
        return largest, rest

    def _unless_zero(self, term: Scaled) -> Op:
        """The exponent, and -infinity where the mantissa is 0, so that a term of weight 0 does not hide the others."""
        if self._is_never_zero(term.mantissa):
            return term.exponent
        return select(function("equal", term.mantissa, ZERO), number(-math.inf), term.exponent)

    def _is_never_zero(self, node: Op) -> bool:
        if node.name == "mul":
            return all(map(self._is_never_zero, node.args))
        if node.name == "power":
            return node.args[1] < 0 or self._is_never_zero(node.args[0])
        if node.name == "read":
            return node.args[0] in self.positive
        return is_number(node) or node.name in ("exp", "logistic", "shifted_exp")

    def _stays_moderate(self, node: Op) -> bool:
        """A positive number plus exponentials that are at most 1, or sums of them: neither 0 nor huge."""
        numbers = [t.args[0] for t in node.args if is_number(t)]
        return bool(numbers) and numbers[0] > 0 and all(is_number(t) or self._is_small(t) for t in node.args)

    def _is_small(self, term: Op) -> bool:
        rest = split_coefficient(term)[1]
        if rest.name == "read" and rest.args[0] in self.definitions:
            statement = self.definitions[rest.args[0]]
            return statement.accumulate and self._is_small(statement.expression)
        return rest.name == "exp" and never_negative(negative(rest.args[0]))

    def _local(self, like: str) -> str:
        fresh = unused(self.arrays, "t")
        self.arrays[fresh] = Array(fresh, self.arrays[like].axes, "local", origin=self.arrays[like].origin)
        return fresh

    # ------------------------------------------------------------------------------------ logarithms

    def log(self, node: Op) -> Op | None:
        inside = node.args[0]
        factors = inside.args if inside.name == "mul" else (inside,)
        smooth = self._logistic_factors(factors)
        if smooth is not None:
            logarithms = [mul(number(-n), function("softplus", negative(u))) for u, n in smooth[0].items()]
            return add(*logarithms, self._log(mul(*smooth[1])))
        outcome = self.rewrite(inside)
        factors = outcome.args if outcome.name == "mul" else (outcome,)
        if any(_logistic_power(f) for f in factors):
            return add(*map(_log_of_logistic, factors))
        difference = _one_minus_exp(inside)
        if difference is not None:
            return self._log_of_difference(*difference)
        scaled = self.scaled(inside)
        if scaled.exponent is not ZERO:
            return add(scaled.exponent, _log(scaled.mantissa))
        return self._log(inside)

    def _log(self, node: Op) -> Op:
        """The log of something without exponentials that it undoes."""
        small = _less_one(node)
        return _log(self.rewrite(node)) if small is None else function("log1p", self.rewrite(small))

    def _log_of_difference(self, sign: int, argument: Op) -> Op:
        """log(1 - exp(u)), or log(exp(u) - 1) = u + log(1 - exp(-u)) for a sign of 1."""
        u = self.rewrite(argument)
        below = u if sign < 0 else negative(u)
        near = function("log", negative(function("expm1", below)))
        far = function("log1p", negative(function("exp", below)))
        value = select(function("less", number(-math.log(2.0)), below), near, far)
        return value if sign < 0 else add(u, value)

    # ------------------------------------------------------------------------------------ quotients

    def product(self, node: Op) -> Op | None:
        factors = node.args if node.name == "mul" else (node,)
        below = [f for f in factors if f.name == "power" and f.args[1] < 0]
        if not any(self.scaled(f.args[0]).exponent is not ZERO for f in below):
            return None
        smooth = self._logistic_factors(factors)
        if smooth is not None:
            logistics = [power(function("logistic", u), n) for u, n in smooth[0].items()]
            return mul(*logistics, self.rewrite(mul(*smooth[1])))
        if len(factors) == 1:
            return None
        scaled = self.scaled(node)
        return mul(_exponential(scaled.exponent), scaled.mantissa)

    def _logistic_factors(self, factors: Sequence[Op]) -> tuple[dict[Op, Number], list[Op]] | None:
        """exp(k*u)*(1 + exp(u))**-n as logistic(u)**k*logistic(-u)**(n - k): (argument -> power, other factors).

        None where there is nothing of the kind, or other exponentials among the factors that might undo each other.
        """
        logistics: dict[Op, Number] = {}
        others = list(factors)
        for factor in factors:
            base, n = factor.args if factor.name == "power" else (factor, 1)
            found = self._one_plus_exp(base)
            if found is None:
                continue
            others.remove(factor)
            u = self.rewrite(found.argument)
            k: Number = 0
            for other in [f for f in others if f.name == "exp" and n < 0]:
                times = _multiple(self.rewrite(other.args[0]), u)
                if times is not None and 0 < times <= -n:
                    others.remove(other)
                    k = k + times
            if k > -n and n < 0:
                return None
            if found.factor != 1:
                others.append(power(number(found.factor), n))
            for argument, count in ((u, k), (negative(u), -n - k)):
                if count:
                    logistics[argument] = logistics.get(argument, 0) + count
        if not logistics or any(self.scaled(other).exponent is not ZERO for other in others):
            return None
        return logistics, others

    def _one_plus_exp(self, node: Op) -> OnePlusExp | None:
        """c + d*exp(u) with c, d > 0 as c*(1 + exp(u + log(d/c)))."""
        outside, inner = split_coefficient(node)
        if inner.name != "add" or len(inner.args) != 2 or not is_number(inner.args[1]):
            return None
        d, exponential = split_coefficient(inner.args[0])
        c = inner.args[1].args[0] * outside
        d = d * outside
        if exponential.name != "exp" or _is_shifted(exponential.args[0]) or not (c > 0 and d > 0):
            return None
        ratio = d if c == 1 else d / c if isinstance(d, float) or isinstance(c, float) else Fraction(d) / Fraction(c)
        offset = ZERO if ratio == 1 else number(math.log(ratio))
        return OnePlusExp(c, add(exponential.args[0], offset))

    # ------------------------------------------------------------------------------------ differences

    def sum(self, node: Op) -> Op | None:
        """Pairs of terms that cancel, replaced by one term."""
        inner = self.inside(node)
        coefficient, body = split_coefficient(inner)
        if body.name != "add":
            return inner
        terms = {rest: c for c, rest in map(split_coefficient, body.args)}
        for rest, c in list(terms.items()):
            for factor in rest.args if rest.name == "mul" else (rest,):
                difference = _DIFFERENCES.get(factor.name, lambda f: None)(factor)
                partner = mul(rest, power(factor, -1)) if difference is not None else ZERO
                if difference is not None and partner in terms and terms[partner] == -c and rest in terms:
                    del terms[rest], terms[partner]
                    together = mul(partner, difference)
                    sign, together = split_coefficient(together)
                    terms[together] = terms.get(together, 0) + c * sign
        return mul(number(coefficient), add(*(mul(number(c), rest) for rest, c in terms.items())))


# ------------------------------------------------------------------------------------------ f(u) - 1


def _root_less_one(node: Op) -> Op | None:
    """sqrt(1 + u) - 1."""
    small = _less_one(node.args[0]) if node.name == "sqrt" or node.args[1] == HALF else None
    return None if small is None else function("sqrt1pm1", small)


_DIFFERENCES = {
    "exp": lambda node: None if _is_shifted(node.args[0]) else function("expm1", node.args[0]),
    "cos": lambda node: function("cosm1", node.args[0]),
    "logistic": lambda node: negative(function("logistic", negative(node.args[0]))),
    "power": _root_less_one,
    "sqrt": _root_less_one,
}


def _less_one(node: Op) -> Op | None:
    """u, where the node is 1 + u as a sum of terms."""
    outside, inner = split_coefficient(node)
    if inner.name != "add":
        return None
    *terms, last = inner.args
    if is_number(last) and last.args[0] * outside == 1:
        return mul(number(outside), add(*terms))
    return None


def _one_minus_exp(node: Op) -> tuple[int, Op] | None:
    """(-1, u) for 1 - exp(u), (1, u) for exp(u) - 1."""
    outside, inner = split_coefficient(node)
    if inner.name != "add" or len(inner.args) != 2 or inner.args[0].name != "exp" or inner.args[1] is not MINUS_ONE:
        return None
    argument = inner.args[0].args[0]
    return None if outside not in (1, -1) or _is_shifted(argument) else (int(outside), argument)


# ------------------------------------------------------------------------------------------ exponents


def _is_shifted(exponent: Op) -> bool:
    """Whether a shift is already in it."""
    return contains(exponent, lambda node: node.name == "fixed")


def _largest(exponents: Sequence[Op]) -> Op:
    first, *others = dict.fromkeys(exponents)
    for other in others:
        first = function("maximum", first, other)
    return first


def _exponential(exponent: Op) -> Op:
    """exp of it, the shifts that it subtracts kept apart."""
    if exponent is ZERO:
        return ONE
    terms = exponent.args if exponent.name == "add" else (exponent,)
    shifts = [t for t in terms if _is_subtracted_shift(t)]
    if not shifts:
        return function("exp", exponent)
    return function("shifted_exp", add(*(t for t in terms if t not in shifts)), negative(add(*shifts)))


def _is_subtracted_shift(term: Op) -> bool:
    coefficient, rest = split_coefficient(term)
    return coefficient < 0 and rest.name == "fixed"


def _log(mantissa: Op) -> Op:
    """log, the reciprocal of one number outside."""
    if is_number(mantissa) and mantissa.args[0] > 0:
        return number(math.log(mantissa.args[0])) if mantissa is not ONE else ZERO
    if mantissa.name == "power" and mantissa.args[1] == -1:
        return negative(function("log", mantissa.args[0]))
    return function("log", mantissa)


def _logistic_power(node: Op) -> tuple[Op, Number] | None:
    """(u, k) for logistic(u)**k."""
    base, exponent = node.args if node.name == "power" else (node, 1)
    return (base.args[0], exponent) if base.name == "logistic" else None


def _log_of_logistic(factor: Op) -> Op:
    """The log of one factor of a product; that of logistic(u)**k is -k*softplus(-u)."""
    found = _logistic_power(factor)
    return _log(factor) if found is None else mul(number(-found[1]), function("softplus", negative(found[0])))


def _multiple(node: Op, unit: Op) -> int | None:
    """k with node = k*unit, a whole number."""
    a, first = split_coefficient(node)
    b, second = split_coefficient(unit)
    if first is not second or not isinstance(a, int | Fraction) or not isinstance(b, int | Fraction):
        return None
    quotient = Fraction(a) / Fraction(b)
    return int(quotient) if quotient.denominator == 1 else None
