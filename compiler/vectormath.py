"""Functions that kernels call inside loops, written so that LLVM can vectorise the loop around them.

numba calls libm once for each element. `exp` here is branch-free LLVM IR, inlined: exp(x) = 2**k * exp(r) with
k = rint(x/log 2), r = x - k*log 2 in two steps with fused multiply-add (Cody and Waite), a polynomial of degree 11 in
Estrin's order, and the power of two applied in two halves, so that results underflow gradually and overflow to
infinity. NaN and infinity keep their meaning; the error is at most 1.1 units in the last place.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

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

_DOUBLE, _BITS = ir.DoubleType(), ir.IntType(64)

# numba adds a kernel's fastmath flags to operations that have none. Reassociation would join the two powers of two.
_EXACT = ("nsz",)


def _constant(value: float) -> Any:
    return ir.Constant(_DOUBLE, value)


def _declare(builder: Any, name: str, count: int) -> Any:
    module = builder.module
    return module.globals.get(name) or ir.Function(module, ir.FunctionType(_DOUBLE, [_DOUBLE] * count), name)


def _estrin(builder: Any, coefficients: tuple[float, ...], r: Any) -> Any:
    """The polynomial at r by pairs: a chain of log2(degree) steps instead of degree steps."""
    fma = _declare(builder, "llvm.fma.f64", 3)
    level, q = [_constant(c) for c in coefficients], r
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


@intrinsic
def exp(typing_context, x):  # type: ignore[no-untyped-def]
    """exp(x), inlined and without branches."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        fma = _declare(builder, "llvm.fma.f64", 3)
        x = _clamped(builder, args[0], LOWEST, HIGHEST)
        k, bits = _rounded_exponent(builder, x, 2 * BIAS)
        high = builder.call(fma, [k, _constant(-LOG_2_HIGH), x])
        r = builder.call(fma, [k, _constant(-LOG_2_LOW), high])
        square = builder.fmul(r, r, flags=_EXACT)
        p = builder.call(fma, [square, _estrin(builder, EXP_COEFFICIENTS, r), r])
        p = builder.fadd(p, _constant(1.0), flags=_EXACT)
        half = builder.lshr(bits, ir.Constant(_BITS, 1))
        p = builder.fmul(p, _exponent_field(builder, half), flags=_EXACT)
        return builder.fmul(p, _exponent_field(builder, builder.sub(bits, half)), flags=_EXACT)

    return types.float64(types.float64), generate


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


def plain_namespace() -> dict[str, Any]:
    """The same functions for kernel source that is run as plain Python."""

    def plain_exp(x: float) -> float:
        try:
            return math.exp(x)
        except OverflowError:
            return math.inf

    return {
        "exp": plain_exp,
        "rough_exp": plain_exp,
        "maximum": lambda a, b: math.nan if a != a or b != b else max(a, b),
        "minimum": lambda a, b: math.nan if a != a or b != b else min(a, b),
        "sign": lambda x: x if x != x else float((x > 0) - (x < 0)),
    }
