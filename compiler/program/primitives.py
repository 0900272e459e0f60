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

from . import special
from .expression import ONE, ZERO, Op, add, function, mul, negative, never_negative, number, power, select

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
    if exponent.name == "number":
        return _power_of_number(base, exponent), ZERO
    return _power_of_expression(node, base, exponent)


def _power_of_number(base: Op, exponent: Op) -> Op:
    """e*b**(e - 1), 0 at the kink of 0**e, 0 < e < 1."""
    reduced = number(exponent.args[0] - 1)
    value = mul(exponent, function("pow", base, reduced) if reduced is not ONE else base)
    is_kink = 0 < exponent.args[0] < 1
    return select(function("equal", base, ZERO), ZERO, value) if is_kink else value


def _power_of_expression(node: Op, base: Op, exponent: Op) -> tuple[Op, ...]:
    """d(b**e): e*b**(e - 1), 0 where e is 0 and at the kink of 0**e, 0 < e < 1; and b**e*log(b).

    Where b is 0 or below, e counts as a constant, in the first derivative too, so that second derivatives agree.
    """
    positive = function("less", ZERO, base)
    between = function("and", function("less", ZERO, exponent), function("less", exponent, ONE))
    kink = function("and", function("equal", base, ZERO), between)
    flat = function("or", function("equal", exponent, ZERO), kink)
    varying = select(positive, exponent, function("fixed", exponent))
    reduced = mul(varying, function("pow", base, add(varying, number(-1))))
    return select(flat, ZERO, reduced), select(positive, mul(node, function("log", base)), ZERO)


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
    origin = function("and", function("equal", x, ZERO), function("equal", y, ZERO))
    return select(origin, ZERO, mul(x, inverse)), select(origin, ZERO, negative(mul(y, inverse)))


def _inverse_of_circle(x: Op) -> Op:
    """(1 - x**2)**(-1/2), and 0 at both ends, where it is infinite."""
    inside = mul(_one_minus(x), _one_plus(x))
    return select(function("equal", inside, ZERO), ZERO, power(inside, -HALF))


def _inverse_of_hyperbola(x: Op) -> Op:
    """(x**2 - 1)**(-1/2), and 0 at 1, where it is infinite."""
    value = mul(power(add(x, number(-1)), -HALF), power(_one_plus(x), -HALF))
    return select(function("equal", x, ONE), ZERO, value)


def _inverse_root(x: Op, positive: bool) -> Op:
    """x**(-1/2), and 0 at 0, where it is infinite."""
    value = power(x, -HALF)
    return value if positive else select(function("equal", x, ZERO), ZERO, value)


def _by_order(kind: str) -> Partials:
    """The partials of kind(order, x), the derivatives of a function by their order, a number."""
    return lambda node, order, x: (ZERO, function(kind, add(order, ONE), x))


def _select_partials(node: Op, condition: Op, then: Op, otherwise: Op) -> tuple[Op, ...]:
    raise AssertionError("select is differentiated branch by branch, in differentiate.py")


def _numpy_sign(x: Any) -> Any:
    return np.sign(x)


def _each(function: Callable[..., float]) -> Callable[..., Any]:
    """A scalar function for arrays."""
    return np.vectorize(function, otypes=[float])


def _numpy_logistic(x: Any) -> Any:
    t = np.exp(-np.abs(x))
    return np.where(x < 0, t, 1.0) / (1.0 + t)


def _numpy_sqrt1pm1(x: Any) -> Any:
    return np.where(np.isposinf(x), x, x / (1.0 + np.sqrt(1.0 + x)))


PRIMITIVES: dict[str, Primitive] = {
    "exp": Primitive(_unary(lambda f, x: f), np.exp, "exp({})"),
    "log": Primitive(_unary(lambda f, x: power(x, -1)), np.log, "math.log({})", "x > 0"),
    "log1p": Primitive(_unary(lambda f, x: power(_one_plus(x), -1)), np.log1p, "math.log1p({})", "x > -1"),
    "expm1": Primitive(_unary(lambda f, x: function("exp", x)), np.expm1, "expm1({})"),
    "sin": Primitive(_unary(lambda f, x: function("cos", x)), np.sin, "math.sin({})"),
    "cos": Primitive(_unary(lambda f, x: negative(function("sin", x))), np.cos, "math.cos({})"),
    "tan": Primitive(
        _unary(lambda f, x: _one_plus(_square(f))), np.tan, "math.tan({})", "x not an odd multiple of pi/2"
    ),
    "asin": Primitive(
        _unary(lambda f, x: _inverse_of_circle(x)),
        np.arcsin,
        "math.asin({})",
        "|x| <= 1",
        "-1 and 1: the derivative is infinite and counts as 0",
    ),
    "acos": Primitive(
        _unary(lambda f, x: negative(_inverse_of_circle(x))),
        np.arccos,
        "math.acos({})",
        "|x| <= 1",
        "-1 and 1: the derivative is infinite and counts as 0",
    ),
    "atan": Primitive(_unary(lambda f, x: power(_one_plus(_square(x)), -1)), np.arctan, "math.atan({})"),
    "acot": Primitive(
        _unary(lambda f, x: negative(power(_one_plus(_square(x)), -1))),
        _each(special.acot),
        "acot({})",
        kink="0: the value jumps from -pi/2 to pi/2; the derivative is -1",
    ),
    "sinh": Primitive(_unary(lambda f, x: function("cosh", x)), np.sinh, "math.sinh({})"),
    "cosh": Primitive(_unary(lambda f, x: function("sinh", x)), np.cosh, "math.cosh({})"),
    "tanh": Primitive(_unary(lambda f, x: _square(function("sech", x))), np.tanh, "math.tanh({})"),
    "sech": Primitive(
        _unary(lambda f, x: negative(mul(f, function("tanh", x)))), lambda x: 1.0 / np.cosh(x), "sech({})"
    ),
    "csch": Primitive(
        _unary(lambda f, x: negative(mul(f, function("coth", x)))),
        lambda x: 1.0 / np.sinh(x),
        "(1.0/math.sinh({}))",
        "x not 0",
    ),
    "coth": Primitive(
        _unary(lambda f, x: negative(_square(function("csch", x)))),
        lambda x: 1.0 / np.tanh(x),
        "(1.0/math.tanh({}))",
        "x not 0",
    ),
    "asinh": Primitive(_unary(lambda f, x: power(_one_plus(_square(x)), -HALF)), np.arcsinh, "math.asinh({})"),
    "acosh": Primitive(
        _unary(lambda f, x: _inverse_of_hyperbola(x)),
        np.arccosh,
        "math.acosh({})",
        "x >= 1",
        "1: the derivative is infinite and counts as 0",
    ),
    "atanh": Primitive(
        _unary(lambda f, x: power(mul(_one_minus(x), _one_plus(x)), -1)), np.arctanh, "math.atanh({})", "|x| < 1"
    ),
    "atan2": Primitive(
        _atan2_partials, np.arctan2, "math.atan2({}, {})", kink="(0, 0): the value is 0, and so are the derivatives"
    ),
    "erf": Primitive(
        _unary(lambda f, x: mul(number(2 / math.sqrt(math.pi)), function("gaussian", x))),
        _each(math.erf),
        "math.erf({})",
    ),
    "erfc": Primitive(
        _unary(lambda f, x: mul(number(-2 / math.sqrt(math.pi)), function("gaussian", x))),
        _each(math.erfc),
        "math.erfc({})",
    ),
    "gaussian": Primitive(_unary(lambda f, x: mul(number(-2), x, f)), _each(special.gaussian), "gaussian({})"),
    "log_gamma": Primitive(
        _unary(lambda f, x: function("polygamma", ZERO, x)), _each(special.log_gamma), "log_gamma({})", "x > 0"
    ),
    "gamma": Primitive(
        _unary(lambda f, x: mul(f, function("polygamma", ZERO, x))),
        _each(special.gamma),
        "gamma({})",
        "x not 0, -1, -2, ...",
    ),
    "polygamma": Primitive(
        _by_order("polygamma"), _each(special.polygamma), "polygamma({}, {})", "x not 0, -1, -2, ..."
    ),
    "sinc": Primitive(_by_order("sinc"), _each(special.sinc), "sinc({}, {})"),
    "logistic": Primitive(
        _unary(lambda f, x: mul(f, function("logistic", negative(x)))), _numpy_logistic, "logistic({})"
    ),
    "softplus": Primitive(_unary(lambda f, x: function("logistic", x)), lambda x: np.logaddexp(0.0, x), "softplus({})"),
    "sqrt1pm1": Primitive(
        _unary(lambda f, x: mul(number(HALF), _inverse_root(_one_plus(x), never_negative(x)))),
        _numpy_sqrt1pm1,
        "sqrt1pm1({})",
        "x >= -1",
        "-1: the derivative is infinite and counts as 0",
    ),
    "sqrt": Primitive(
        _unary(lambda f, x: mul(number(HALF), _inverse_root(x, positive=False))),
        np.sqrt,
        "math.sqrt({})",
        "x >= 0",
        "0: the derivative is infinite and counts as 0",
    ),
    "cosm1": Primitive(_unary(lambda f, x: negative(function("sin", x))), _each(special.cosm1), "cosm1({})"),
    "shifted_exp": Primitive(
        lambda f, x, shift: (f, ZERO),
        lambda x, shift: np.minimum(np.exp(x - shift), np.where(x < np.inf, np.finfo(np.float64).max, x)),
        "shifted_exp({}, {})",
        kink="the shift is a constant; at most the largest number, so that 0 times it is 0",
    ),
    "fixed": Primitive(
        _zeros, lambda x: np.where(np.isfinite(x), x, 0.0), "finite({})", kink="a constant, 0 where it is not finite"
    ),
    "held": Primitive(
        _zeros, lambda x, first: x + 0.0 * first, "({0})", kink="the second argument is its value in the first system"
    ),
    "pow": Primitive(
        _pow_partials,
        np.power,
        "math.pow({}, {})",
        "base >= 0, or an integral exponent",
        "base 0: the derivative in the exponent is 0, and that in the base for exponents between 0 and 1",
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
CHEAP = frozenset({"fixed", "held", "abs", "sign", "maximum", "minimum", "select", "floor", "ceiling"}) | CONDITIONS
