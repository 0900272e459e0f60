"""Functions that kernels call inside loops, written so that LLVM can vectorise the loop around them.

numba calls libm once for each element. `exp` here is branch-free LLVM IR, inlined: exp(x) = 2**k * exp(r) with
k = rint(x/log 2), r = x - k*log 2 in two steps with fused multiply-add (Cody and Waite), a polynomial of degree 11 in
Estrin's order, and the power of two applied in two halves, so that results underflow gradually and overflow to
infinity. NaN and infinity keep their meaning; the error is at most 1.1 units in the last place. `expm1`, `logistic`,
`softplus` and `shifted_exp` are made of the same parts.

A kernel's fast-math flags allow its own arithmetic to be reordered and contracted. Nothing here is: instructions carry
flags of their own. So what must not be touched is a function of this file, down to `plus` and `times`, or one of
special.py (`linked`).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from ..program import special
from .translate import translate

# q in 1 + r + r**2*q(r), interpolating at the Chebyshev nodes of [-log(2)/2, log(2)/2]: 1.6e-17 from exp, relatively.
EXP_COEFFICIENTS = (
    0.5000000000000001, 0.16666666666666669, 0.041666666666624164, 0.008333333333330065, 0.0013888888917196736,
    0.00019841269863040559, 2.480152132234228e-05, 2.7557268480289716e-06, 2.7620075892548164e-07, 2.51003758422237e-08,
)  # fmt: skip

# The same with five coefficients: 1e-8 from exp, relatively.
ROUGH_COEFFICIENTS = (0.5, 0.16666577025562093, 0.041666554662005695, 0.008363173080491618, 0.0013926176127402982)

LOG2_E = 1.4426950408889634
LOG_2 = 0.6931471805599453
LOG_2_HIGH = 0.693147180369123816490  # 33 bits: k*LOG_2_HIGH is exact for every k that occurs
LOG_2_LOW = 1.90821492927058770002e-10
SHIFTER = 6755399441055744.0  # 1.5 * 2**52: adding it leaves an integer in the low bits
BIAS = 1023  # of the exponent field
LOWEST, HIGHEST = -746.0, 710.0  # beyond these the result is 0 or infinity whatever the argument
LOWEST_NORMAL = -708.0
LARGEST = 1.7976931348623157e308

_DOUBLE, _BITS = ir.DoubleType(), ir.IntType(64)

# numba adds a kernel's fastmath flags to operations that have none. Reassociation would join the two powers of two.
_EXACT = ("nsz",)


def _constant(value: float) -> Any:
    return ir.Constant(_DOUBLE, value)


def _declare(builder: Any, name: str, count: int) -> Any:
    module = builder.module
    return module.globals.get(name) or ir.Function(module, ir.FunctionType(_DOUBLE, [_DOUBLE] * count), name)


def _loaded(builder: Any, numbers: tuple[float, ...]) -> list[Any]:
    """The numbers as loads from memory that never changes but whose content LLVM may not assume (weak linkage).

    LLVM counts what a loop keeps in registers when it decides whether to interleave two iterations, but not constants:
    it then interleaves loops of exponentials, runs out of registers, and reads every constant from the stack again.
    """
    name = f"wiberg.numbers.{len(numbers)}"
    table = builder.module.globals.get(name)
    if table is None:
        kind = ir.ArrayType(_DOUBLE, len(numbers))
        table = ir.GlobalVariable(builder.module, kind, name)
        table.global_constant, table.linkage = True, "weak"
        table.initializer = ir.Constant(kind, [_constant(n) for n in numbers])
    index = ir.IntType(32)
    places = [[ir.Constant(index, 0), ir.Constant(index, k)] for k in range(len(numbers))]
    return [builder.load(builder.gep(table, place, inbounds=True)) for place in places]


def _estrin(builder: Any, coefficients: tuple[float, ...], r: Any) -> Any:
    """The polynomial at r by pairs: a chain of log2(degree) steps instead of degree steps."""
    fma = _declare(builder, "llvm.fma.f64", 3)
    level, q = _loaded(builder, coefficients), r
    while len(level) > 1:
        pairs = [builder.call(fma, [level[i + 1], q, level[i]]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[2 * len(pairs) :]
        if len(level) > 1:
            q = builder.fmul(q, q, flags=_EXACT)
    return level[0]


def _clamped(builder: Any, x: Any, low: float, high: float) -> Any:
    """x within bounds; NaN stays NaN."""
    x = builder.select(builder.fcmp_ordered("<", x, _constant(low)), _constant(low), x)
    return builder.select(builder.fcmp_ordered(">", x, _constant(high)), _constant(high), x)


def _rounded_exponent(builder: Any, x: Any, bias: int) -> tuple[Any, Any]:
    """k = rint(x/log 2) as a number, and bits whose lowest 12 are k + bias.

    Both come from one addition: in x/log 2 + 1.5 * 2**52 the last bit counts 1.
    """
    fma = _declare(builder, "llvm.fma.f64", 3)
    shifted = builder.call(fma, [x, _constant(LOG2_E), _constant(SHIFTER + bias)])
    return builder.fsub(shifted, _constant(SHIFTER + bias), flags=_EXACT), builder.bitcast(shifted, _BITS)


def _exponent_field(builder: Any, bits: Any) -> Any:
    """The power of two whose exponent field is the lowest 12 bits (2047: infinity)."""
    return builder.bitcast(builder.shl(bits, ir.Constant(_BITS, 52)), _DOUBLE)


def _exp_parts(builder: Any, x: Any) -> tuple[Any, Any, Any, Any]:
    """(p, a, b, k) with exp(x) = (1 + p)*a*b, where a*b is 2**k and p is within sqrt(1/2) - 1 and sqrt(2) - 1."""
    fma = _declare(builder, "llvm.fma.f64", 3)
    x = _clamped(builder, x, LOWEST, HIGHEST)
    k, bits = _rounded_exponent(builder, x, 2 * BIAS)
    high = builder.call(fma, [k, _constant(-LOG_2_HIGH), x])
    r = builder.call(fma, [k, _constant(-LOG_2_LOW), high])
    square = builder.fmul(r, r, flags=_EXACT)
    p = builder.call(fma, [square, _estrin(builder, EXP_COEFFICIENTS, r), r])
    half = builder.lshr(bits, ir.Constant(_BITS, 1))
    return p, _exponent_field(builder, half), _exponent_field(builder, builder.sub(bits, half)), k


def _exp(builder: Any, x: Any) -> Any:
    p, first, second, _ = _exp_parts(builder, x)
    scaled = builder.call(_declare(builder, "llvm.fma.f64", 3), [p, first, first])
    return builder.fmul(scaled, second, flags=_EXACT)


def _one_argument(value: Callable[[Any, Any], Any]) -> Any:
    """The type and the code of a function of one number, from (builder, x) -> value."""
    return types.float64(types.float64), lambda context, builder, signature, args: value(builder, args[0])


@intrinsic
def exp(typing_context, x):  # type: ignore[no-untyped-def]
    """exp(x), inlined and without branches."""
    return _one_argument(_exp)


@intrinsic
def expm1(typing_context, x):  # type: ignore[no-untyped-def]
    """exp(x) - 1: 2**k*p + (2**k - 1), which keeps the digits of p where k is 0; within 2 units in the last place."""

    def generate(builder: Any, x: Any) -> Any:
        p, first, second, k = _exp_parts(builder, x)
        scale = builder.fmul(first, second, flags=_EXACT)
        below = builder.fsub(scale, _constant(1.0), flags=_EXACT)
        near = builder.call(_declare(builder, "llvm.fma.f64", 3), [scale, p, below])
        whole = builder.fmul(builder.fadd(p, _constant(1.0), flags=_EXACT), first, flags=_EXACT)
        far = builder.fsub(builder.fmul(whole, second, flags=_EXACT), _constant(1.0), flags=_EXACT)
        size = builder.call(_declare(builder, "llvm.fabs.f64", 1), [k])
        return builder.select(builder.fcmp_ordered("<", size, _constant(60.0)), near, far)

    return _one_argument(generate)


def _exp_of_minus_size(builder: Any, x: Any) -> Any:
    size = builder.call(_declare(builder, "llvm.fabs.f64", 1), [x])
    return _exp(builder, builder.fneg(size))


@intrinsic
def logistic(typing_context, x):  # type: ignore[no-untyped-def]
    """1/(1 + exp(-x)), without overflow, with all digits in both tails."""

    def generate(builder: Any, x: Any) -> Any:
        t = _exp_of_minus_size(builder, x)
        above = builder.select(builder.fcmp_unordered("<", x, _constant(0.0)), t, _constant(1.0))
        return builder.fdiv(above, builder.fadd(t, _constant(1.0), flags=_EXACT), flags=_EXACT)

    return _one_argument(generate)


@intrinsic
def sech(typing_context, x):  # type: ignore[no-untyped-def]
    """1/cosh(x) as 2*t/(1 + t**2) with t = exp(-|x|)."""

    def generate(builder: Any, x: Any) -> Any:
        t = _exp_of_minus_size(builder, x)
        below = builder.call(_declare(builder, "llvm.fma.f64", 3), [t, t, _constant(1.0)])
        return builder.fdiv(builder.fadd(t, t, flags=_EXACT), below, flags=_EXACT)

    return _one_argument(generate)


@intrinsic
def softplus(typing_context, x):  # type: ignore[no-untyped-def]
    """log(1 + exp(x)) as max(x, 0) + log1p(exp(-|x|))."""

    def generate(builder: Any, x: Any) -> Any:
        rest = builder.call(_declare(builder, "log1p", 1), [_exp_of_minus_size(builder, x)])
        above = builder.select(builder.fcmp_ordered("<", x, _constant(0.0)), _constant(0.0), x)
        return builder.fadd(above, rest, flags=_EXACT)

    return _one_argument(generate)


@intrinsic
def sqrt1pm1(typing_context, x):  # type: ignore[no-untyped-def]
    """sqrt(1 + x) - 1 as x/(1 + sqrt(1 + x))."""

    def generate(builder: Any, x: Any) -> Any:
        inside = builder.fadd(x, _constant(1.0), flags=_EXACT)
        root = builder.call(_declare(builder, "llvm.sqrt.f64", 1), [inside])
        below = builder.fadd(root, _constant(1.0), flags=_EXACT)
        infinite = builder.fcmp_ordered("==", x, _constant(math.inf))
        return builder.select(infinite, x, builder.fdiv(x, below, flags=_EXACT))

    return _one_argument(generate)


def _exact(name: str) -> Any:
    """The type and the code of one rounded operation on two numbers, which LLVM neither moves nor contracts."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return getattr(builder, name)(*args, flags=_EXACT)

    return types.float64(types.float64, types.float64), generate


@intrinsic
def plus(typing_context, a, b):  # type: ignore[no-untyped-def]
    """a + b."""
    return _exact("fadd")


@intrinsic
def times(typing_context, a, b):  # type: ignore[no-untyped-def]
    """a*b."""
    return _exact("fmul")


@intrinsic
def shifted_exp(typing_context, x, shift):  # type: ignore[no-untyped-def]
    """exp(x - shift); at most the largest number where x is finite: a weight of 0 times it is 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        result = _exp(builder, builder.fsub(*args, flags=_EXACT))
        is_huge = builder.fcmp_ordered(">", result, _constant(LARGEST))
        is_finite = builder.fcmp_ordered("<", args[0], _constant(math.inf))
        return builder.select(builder.and_(is_huge, is_finite), _constant(LARGEST), result)

    return types.float64(types.float64, types.float64), generate


@intrinsic
def rough_exp(typing_context, x):  # type: ignore[no-untyped-def]
    """exp(x) to 1e-8 in half the time, to rank candidates; infinite from 709.4 on, never below 3e-308."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        fma = _declare(builder, "llvm.fma.f64", 3)
        x = _clamped(builder, args[0], LOWEST_NORMAL, HIGHEST)
        k, bits = _rounded_exponent(builder, x, BIAS)
        r = builder.call(fma, [k, _constant(-LOG_2), x])
        square = builder.fmul(r, r, flags=_EXACT)
        start = builder.fadd(r, _constant(1.0), flags=_EXACT)
        p = builder.call(fma, [square, _estrin(builder, ROUGH_COEFFICIENTS, r), start])
        return builder.fmul(p, _exponent_field(builder, bits), flags=_EXACT)

    return types.float64(types.float64), generate


@intrinsic
def finite(typing_context, x):  # type: ignore[no-untyped-def]
    """x, or 0 where it is infinite or NaN."""

    def generate(builder: Any, x: Any) -> Any:
        size = builder.call(_declare(builder, "llvm.fabs.f64", 1), [x])
        return builder.select(builder.fcmp_ordered("<", size, _constant(math.inf)), x, _constant(0.0))

    return _one_argument(generate)


def _two_arguments(name: str) -> Any:
    def typer(typing_context: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.call(_declare(builder, name, 2), args)

        return types.float64(types.float64, types.float64), generate

    return typer


@intrinsic
def maximum(typing_context, a, b):  # type: ignore[no-untyped-def]
    """The larger of two numbers; NaN if either is."""
    return _two_arguments("llvm.maximum.f64")(typing_context, a, b)


@intrinsic
def minimum(typing_context, a, b):  # type: ignore[no-untyped-def]
    """The smaller of two numbers; NaN if either is."""
    return _two_arguments("llvm.minimum.f64")(typing_context, a, b)


@intrinsic
def sign(typing_context, x):  # type: ignore[no-untyped-def]
    """-1, 0 or 1; NaN for NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x = args[0]
        zero = builder.fmul(x, _constant(0.0))
        below = builder.select(builder.fcmp_ordered("<", x, _constant(0.0)), _constant(-1.0), zero)
        return builder.select(builder.fcmp_ordered(">", x, _constant(0.0)), _constant(1.0), below)

    return types.float64(types.float64), generate


def linked(function: Callable[..., float]) -> Any:
    """A function of special.py for kernels: translated without flags and linked to the kernel that calls it."""
    count = len(inspect.signature(function).parameters)
    symbol = f"{function.__module__}.{function.__qualname__}"

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        context.active_code_library.add_linking_library(_library(function, symbol))
        return builder.call(_declare(builder, symbol, count), args)

    # numba reads the parameters of an intrinsic off its text, so there is one for each number of them
    if count == 1:
        return intrinsic(lambda typing_context, a: (types.float64(types.float64), generate))
    return intrinsic(lambda typing_context, a, b: (types.float64(types.float64, types.float64), generate))


@cache
def _library(function: Callable[..., float], symbol: str) -> Any:
    with global_compiler_lock:
        library = cpu_target.target_context.codegen().create_library(symbol)
        library.add_ir_module(translate(function, symbol))
        library.finalize()
    return library


log_gamma, polygamma, gamma = linked(special.log_gamma), linked(special.polygamma), linked(special.gamma)
sinc, cosm1, acot = linked(special.sinc), linked(special.cosm1), linked(special.acot)
gaussian = linked(special.gaussian)


def kernel_namespace() -> dict[str, Any]:
    """The functions that kernels call, by name."""
    return {name: globals()[name] for name in plain_namespace()}


def plain_namespace() -> dict[str, Any]:
    """The same functions for kernel source that is run as plain Python."""

    def plain_exp(x: float) -> float:
        try:
            return math.exp(x)
        except OverflowError:
            return math.inf

    def plain_logistic(x: float) -> float:
        t = plain_exp(-abs(x))
        return (t if x < 0 else 1.0) / (1.0 + t)

    return {
        "exp": plain_exp,
        "rough_exp": plain_exp,
        "expm1": lambda x: math.expm1(x) if x < 700 else plain_exp(x),
        "logistic": plain_logistic,
        "sech": lambda x: 2.0 * plain_exp(-abs(x)) / (1.0 + plain_exp(-2.0 * abs(x))),
        "softplus": lambda x: max(x, 0.0) + math.log1p(plain_exp(-abs(x))),
        "sqrt1pm1": lambda x: x / (1.0 + math.sqrt(1.0 + x)),
        "finite": lambda x: x if math.isfinite(x) else 0.0,
        "shifted_exp": lambda x, shift: min(plain_exp(x - shift), LARGEST if x < math.inf else x),
        "plus": lambda a, b: a + b,
        "times": lambda a, b: a * b,
        "maximum": lambda a, b: math.nan if a != a or b != b else max(a, b),
        "minimum": lambda a, b: math.nan if a != a or b != b else min(a, b),
        "sign": lambda x: x if x != x else float((x > 0) - (x < 0)),
        "log_gamma": special.log_gamma,
        "polygamma": special.polygamma,
        "gamma": special.gamma,
        "sinc": special.sinc,
        "cosm1": special.cosm1,
        "acot": special.acot,
        "gaussian": special.gaussian,
    }
