"""Functions that kernels call inside loops, written so that LLVM can vectorise the loop around them.

numba calls libm once for each element. `exp` here is branch-free LLVM IR, inlined: exp(x) = 2**k * exp(r) with
k = rint(x/log 2), r = x - k*log 2 in two steps with fused multiply-add (Cody and Waite), a polynomial of degree 11 in
Estrin's order, to which what the rounding of r lost is added, and the power of two applied in two halves, so that
results underflow gradually and overflow to infinity. NaN and infinity keep their meaning; the error is at most 1 unit
in the last place.
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

LOG2_E = 1.4426950408889634
LOG_2_HIGH = 0.693147180369123816490  # 33 bits: k*LOG_2_HIGH is exact for every k that occurs
LOG_2_LOW = 1.90821492927058770002e-10
SHIFTER = 6755399441055744.0  # 1.5 * 2**52: adding it leaves an integer in the low bits
LOWEST, HIGHEST = -746.0, 710.0  # beyond these the result is 0 or infinity whatever the argument

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


def _power_of_two(builder: Any, k: Any) -> Any:
    """2**k for an integral k of at most 1022 in size: its bits are written into the exponent field."""
    bits = builder.bitcast(builder.fadd(k, _constant(SHIFTER), flags=_EXACT), _BITS)
    one = ir.Constant(_BITS, 1023)
    return builder.bitcast(builder.shl(builder.add(bits, one), ir.Constant(_BITS, 52)), _DOUBLE)


@intrinsic
def exp(typing_context, x):  # type: ignore[no-untyped-def]
    """exp(x), inlined and without branches."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x = args[0]
        x = builder.select(builder.fcmp_ordered("<", x, _constant(LOWEST)), _constant(LOWEST), x)
        x = builder.select(builder.fcmp_ordered(">", x, _constant(HIGHEST)), _constant(HIGHEST), x)
        rint = _declare(builder, "llvm.rint.f64", 1)
        fma = _declare(builder, "llvm.fma.f64", 3)
        k = builder.call(rint, [builder.fmul(x, _constant(LOG2_E), flags=_EXACT)])
        high = builder.call(fma, [k, _constant(-LOG_2_HIGH), x])
        r = builder.call(fma, [k, _constant(-LOG_2_LOW), high])
        low = builder.call(fma, [k, _constant(-LOG_2_LOW), builder.fsub(high, r, flags=_EXACT)])
        half = builder.call(rint, [builder.fmul(k, _constant(0.5), flags=_EXACT)])
        rest = builder.fsub(k, half, flags=_EXACT)
        square = builder.fmul(r, r, flags=_EXACT)
        p = builder.call(fma, [square, _estrin(builder, EXP_COEFFICIENTS, r), low])
        p = builder.fadd(builder.fadd(r, p, flags=_EXACT), _constant(1.0), flags=_EXACT)
        p = builder.fmul(p, _power_of_two(builder, half), flags=_EXACT)
        return builder.fmul(p, _power_of_two(builder, rest), flags=_EXACT)

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
        "maximum": lambda a, b: math.nan if a != a or b != b else max(a, b),
        "minimum": lambda a, b: math.nan if a != a or b != b else min(a, b),
        "sign": lambda x: x if x != x else float((x > 0) - (x < 0)),
    }
