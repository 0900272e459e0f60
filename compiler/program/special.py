"""Special functions for which there is no vectorised form: scalar Python, for kernels and for the interpreter alike.

Each is annotated, so that `translate` makes machine code of it without any fast-math flag (`vectormath.linked`), and
the interpreter calls it as it is. None raises: where Python's own `math` would, infinity or NaN comes out.

log_gamma, polygamma    recurrence to large arguments and Stirling's series there (Abramowitz and Stegun 6.1.40, 6.3.18,
                        6.4.11); a power series of log_gamma about its zero at 2 keeps its digits near both zeros
sinc                    all derivatives of sin(x)/x, by series near 0 and by recurrence beyond
gaussian                exp(-x**2) to the last digits: the rounding error of x**2 is put back
"""

from __future__ import annotations

import math

LOG_ROOT_TAU = 0.9189385332046727  # log(2 pi)/2
SPLITTER = 134217729.0  # 2**27 + 1: x*SPLITTER parts x into halves of 26 bits (Dekker)
LARGE = 12.0  # from here on Stirling's series has all digits
LOWEST = -10000.0  # polygamma below this would take too many steps


def log_gamma(x: float) -> float:
    """log Gamma(x) for x > 0; NaN below 0, infinity at 0."""
    if not x > 0.0:
        return math.inf if x == 0.0 else math.nan
    if x == math.inf:
        return x
    if x >= LARGE:
        inverse = 1.0 / x
        square = inverse * inverse
        series = 1.0 / 12.0 + square * (
            -1.0 / 360.0
            + square
            * (1.0 / 1260.0 + square * (-1.0 / 1680.0 + square * (1.0 / 1188.0 + square * (-691.0 / 360360.0))))
        )
        return (x - 0.5) * (math.log(x) - 1.0) + (LOG_ROOT_TAU - 0.5) + inverse * series
    if x < 0.5:
        return _log_gamma_about_two(x) - math.log1p(x) - math.log(x)
    if x < 1.5:
        return _log_gamma_about_two(x - 1.0) - math.log1p(x - 1.0)
    product = 1.0
    while x >= 2.5:
        x -= 1.0
        product *= x
    return _log_gamma_about_two(x - 2.0) + math.log(product)


def _log_gamma_about_two(z: float) -> float:
    """log Gamma(2 + z) for |z| <= 1/2: z*(1 - gamma) + sum of (-z)**k*(zeta(k) - 1)/k."""
    total = 5.731367241678862e-10
    total = total * z - 1.1921401405860912e-09
    total = total * z + 2.4836745438024785e-09
    total = total * z - 5.183475041970047e-09
    total = total * z + 1.0838659214896955e-08
    total = total * z - 2.2711094608943164e-08
    total = total * z + 4.7698101693639804e-08
    total = total * z - 1.0043224823968099e-07
    total = total * z + 2.1207184805554665e-07
    total = total * z - 4.492469198764566e-07
    total = total * z + 9.55141213040742e-07
    total = total * z - 2.039215753801366e-06
    total = total * z + 4.374866789907488e-06
    total = total * z - 9.439488275268397e-06
    total = total * z + 2.050721277567069e-05
    total = total * z - 4.492623673813314e-05
    total = total * z + 9.945751278180853e-05
    total = total * z - 0.00022315475845357939
    total = total * z + 0.0005096695247430425
    total = total * z - 0.001192753911703261
    total = total * z + 0.0028905103307415234
    total = total * z - 0.007385551028673986
    total = total * z + 0.020580808427784546
    total = total * z - 0.0673523010531981
    total = total * z + 0.3224670334241132
    total = total * z + 0.42278433509846713
    return z * total


def polygamma(order: float, x: float) -> float:
    """The derivative of digamma of a whole order (0: digamma itself); NaN at 0, -1, -2, ... and below -1e4."""
    if x <= 0.0 and (x == math.floor(x) or x < LOWEST):
        return math.nan
    if order == 0.0:
        return _digamma(x)
    power = order + 1.0
    total = 0.0
    while x < LARGE + power:
        total += math.pow(x, -power)
        x += 1.0
    inverse = 1.0 / x
    term = math.pow(x, -power)
    total += term * (x / order + 0.5)
    term *= power * inverse
    square = inverse * inverse
    for k in range(7):
        total += _bernoulli(k) * term
        term *= (power + 2.0 * k + 1.0) * (power + 2.0 * k + 2.0) * square
    return total * _signed_factorial(order)


def _digamma(x: float) -> float:
    if x <= 0.0:
        return _digamma(1.0 - x) - math.pi / math.tan(math.pi * (x - math.floor(x + 0.5)))
    total = 0.0
    while x < LARGE:
        total -= 1.0 / x
        x += 1.0
    square = 1.0 / (x * x)
    series = 1.0 / 12.0 - square * (
        1.0 / 120.0
        - square * (1.0 / 252.0 - square * (1.0 / 240.0 - square * (1.0 / 132.0 - square * 691.0 / 32760.0)))
    )
    return total + (math.log(x) - 0.5 / x - square * series)


def _bernoulli(k: int) -> float:
    """B(2k + 2)/(2k + 2)!, the coefficients of the Euler-Maclaurin formula."""
    if k == 0:
        return 1.0 / 12.0
    if k == 1:
        return -1.0 / 720.0
    if k == 2:
        return 1.0 / 30240.0
    if k == 3:
        return -1.0 / 1209600.0
    if k == 4:
        return 1.0 / 47900160.0
    if k == 5:
        return -691.0 / 1307674368000.0
    return 1.0 / 74724249600.0


def _signed_factorial(order: float) -> float:
    """(-1)**(order + 1) * order!"""
    result = -1.0
    while order > 0.0:
        result *= -order
        order -= 1.0
    return result


def sinc(order: float, x: float) -> float:
    """The derivative of sin(x)/x of a whole order: the integral of t**order*cos(x*t + order*pi/2) over t in 0 .. 1."""
    if x - x != 0.0:
        return x - x if x != x else 0.0
    if abs(x) >= 3.0:
        return _sinc_by_recurrence(order, x)
    if order == 0.0 and x != 0.0:
        return math.sin(x) / x
    half = math.floor((order + 1.0) / 2.0)
    power = 2.0 * half - order
    term = x if power == 1.0 else 1.0
    if half > 2.0 * math.floor(half / 2.0):
        term = -term
    total = 0.0
    for k in range(20):
        total += term / (2.0 * (half + k) + 1.0)
        term *= -x * x / ((power + 1.0) * (power + 2.0))
        power += 2.0
    return total


def _sinc_by_recurrence(order: float, x: float) -> float:
    """From x*f(k) + k*f(k - 1) = the k-th derivative of sin(x)."""
    f, ahead, behind = math.sin(x) / x, math.cos(x), -math.sin(x)
    k = 0.0
    while k < order:
        k += 1.0
        f = (ahead - k * f) / x
        following = -ahead
        ahead = behind
        behind = following
    return f


def gaussian(x: float) -> float:
    """exp(-x**2)."""
    if abs(x) > 28.0:
        return 0.0
    high = x * SPLITTER
    high = high - (high - x)
    return math.exp(-high * high) * math.exp(-(x - high) * (x + high))


def cosm1(x: float) -> float:
    """cos(x) - 1."""
    if x - x != 0.0:
        return math.nan
    half = math.sin(0.5 * x)
    return -2.0 * half * half


def acot(x: float) -> float:
    """The angle whose cotangent is x, in (-pi/2, pi/2], as SymPy has it."""
    return math.atan(1.0 / x) if x != 0.0 else 0.5 * math.pi


def gamma(x: float) -> float:
    """Gamma(x); NaN at 0, -1, -2, ..., infinity beyond 171.6."""
    if x <= 0.0 and x == math.floor(x):
        return math.nan
    if x > 171.7:
        return x if x == math.inf else math.inf
    return math.gamma(x)
