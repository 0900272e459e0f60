"""The table of primitives: one row for each function that an expression may apply.

A row gives the partial derivatives as expressions, the NumPy form (for the interpreter), the form in a kernel, the
domain, and what happens at a kink. Sums, products and powers with a constant exponent are the grammar itself
(expression.py) and have no row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from .expression import ONE, ZERO, Op, add, function, mul, negative, number, power, select

HALF = Fraction(1, 2)
Partials = Callable[..., tuple[Op, ...]]


@dataclass(frozen=True)
class Primitive:
    """One row: `partials(node, *args)` gives a derivative for each argument; `kernel` has one `{}` an argument."""

    partials: Partials
    numpy: Callable[..., Any]
    kernel: str
    domain: str = "all reals"
    kink: str = ""


def _zeros(node: Op, *args: Op) -> tuple[Op, ...]:
    return (ZERO,) * len(args)


def _unary(rule: Callable[[Op, Op], Op]) -> Partials:
    """A row's partials from a rule (node, argument) -> derivative."""
    return lambda node, x: (rule(node, x),)


def _pow_partials(node: Op, base: Op, exponent: Op) -> tuple[Op, ...]:
    """d(b**e): e*b**(e - 1), 0 where e is 0; and b**e*log(b) where b > 0, so that 0**e has the derivative 0 in e."""
    reduced = mul(exponent, function("pow", base, add(exponent, number(-1))))
    constant = function("equal", exponent, ZERO)
    positive = function("less", ZERO, base)
    return select(constant, ZERO, reduced), select(positive, mul(node, function("log", base)), ZERO)


def _larger_first(node: Op, a: Op, b: Op) -> tuple[Op, ...]:
    first = function("less_equal", b, a)
    return select(first, ONE, ZERO), select(first, ZERO, ONE)


def _smaller_first(node: Op, a: Op, b: Op) -> tuple[Op, ...]:
    first = function("less_equal", a, b)
    return select(first, ONE, ZERO), select(first, ZERO, ONE)


def _square(x: Op) -> Op:
    return power(x, 2)


def _one_plus(x: Op) -> Op:
    return add(ONE, x)


def _one_minus(x: Op) -> Op:
    return add(ONE, negative(x))


def _atan2_partials(node: Op, y: Op, x: Op) -> tuple[Op, ...]:
    inverse = power(add(_square(x), _square(y)), -1)
    return mul(x, inverse), negative(mul(y, inverse))


def _select_partials(node: Op, condition: Op, then: Op, otherwise: Op) -> tuple[Op, ...]:
    raise AssertionError("select is differentiated branch by branch, in differentiate.py")


def _numpy_sign(x: Any) -> Any:
    return np.sign(x)


_erf, _erfc = np.vectorize(math.erf, otypes=[float]), np.vectorize(math.erfc, otypes=[float])


PRIMITIVES: dict[str, Primitive] = {
    "exp": Primitive(_unary(lambda f, x: f), np.exp, "exp({})"),
    "log": Primitive(_unary(lambda f, x: power(x, -1)), np.log, "math.log({})", "x > 0"),
    "log1p": Primitive(_unary(lambda f, x: power(_one_plus(x), -1)), np.log1p, "math.log1p({})", "x > -1"),
    "expm1": Primitive(_unary(lambda f, x: function("exp", x)), np.expm1, "math.expm1({})"),
    "sin": Primitive(_unary(lambda f, x: function("cos", x)), np.sin, "math.sin({})"),
    "cos": Primitive(_unary(lambda f, x: negative(function("sin", x))), np.cos, "math.cos({})"),
    "tan": Primitive(
        _unary(lambda f, x: _one_plus(_square(f))), np.tan, "math.tan({})", "x not an odd multiple of pi/2"
    ),
    "asin": Primitive(
        _unary(lambda f, x: power(_one_minus(_square(x)), -HALF)), np.arcsin, "math.asin({})", "|x| <= 1"
    ),
    "acos": Primitive(
        _unary(lambda f, x: negative(power(_one_minus(_square(x)), -HALF))), np.arccos, "math.acos({})", "|x| <= 1"
    ),
    "atan": Primitive(_unary(lambda f, x: power(_one_plus(_square(x)), -1)), np.arctan, "math.atan({})"),
    "sinh": Primitive(_unary(lambda f, x: function("cosh", x)), np.sinh, "math.sinh({})"),
    "cosh": Primitive(_unary(lambda f, x: function("sinh", x)), np.cosh, "math.cosh({})"),
    "tanh": Primitive(_unary(lambda f, x: _one_minus(_square(f))), np.tanh, "math.tanh({})"),
    "asinh": Primitive(_unary(lambda f, x: power(_one_plus(_square(x)), -HALF)), np.arcsinh, "math.asinh({})"),
    "acosh": Primitive(
        _unary(lambda f, x: mul(power(add(x, number(-1)), -HALF), power(_one_plus(x), -HALF))),
        np.arccosh,
        "math.acosh({})",
        "x >= 1",
    ),
    "atanh": Primitive(_unary(lambda f, x: power(_one_minus(_square(x)), -1)), np.arctanh, "math.atanh({})", "|x| < 1"),
    "atan2": Primitive(_atan2_partials, np.arctan2, "math.atan2({}, {})", kink="(0, 0)"),
    "erf": Primitive(
        _unary(lambda f, x: mul(number(2 / math.sqrt(math.pi)), function("exp", negative(_square(x))))),
        _erf,
        "math.erf({})",
    ),
    "erfc": Primitive(
        _unary(lambda f, x: mul(number(-2 / math.sqrt(math.pi)), function("exp", negative(_square(x))))),
        _erfc,
        "math.erfc({})",
    ),
    "pow": Primitive(
        _pow_partials,
        np.power,
        "math.pow({}, {})",
        "base >= 0, or an integral exponent",
        "base 0: the derivative in the exponent is 0",
    ),
    "abs": Primitive(_unary(lambda f, x: function("sign", x)), np.abs, "abs({})", kink="0: the derivative is 0"),
    "sign": Primitive(_zeros, _numpy_sign, "sign({})", kink="0: the value is 0; the derivative is 0 everywhere"),
    "floor": Primitive(_zeros, np.floor, "np.floor({})", kink="the derivative is 0 everywhere"),
    "ceiling": Primitive(_zeros, np.ceil, "np.ceil({})", kink="the derivative is 0 everywhere"),
    "maximum": Primitive(_larger_first, np.maximum, "maximum({}, {})", kink="equal: the derivative of the first"),
    "minimum": Primitive(_smaller_first, np.minimum, "minimum({}, {})", kink="equal: the derivative of the first"),
    "select": Primitive(_select_partials, np.where, "({1} if {0} else {2})", kink="the condition is a constant"),
    "less": Primitive(_zeros, np.less, "({} < {})"),
    "less_equal": Primitive(_zeros, np.less_equal, "({} <= {})"),
    "equal": Primitive(_zeros, np.equal, "({} == {})"),
    "and": Primitive(_zeros, np.logical_and, "({} and {})"),
    "or": Primitive(_zeros, np.logical_or, "({} or {})"),
    "not": Primitive(_zeros, np.logical_not, "(not {})"),
}

CONDITIONS = frozenset({"less", "less_equal", "equal", "and", "or", "not"})
CHEAP = frozenset({"abs", "sign", "maximum", "minimum", "select", "floor", "ceiling"}) | CONDITIONS
