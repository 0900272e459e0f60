"""The residuals of the 35 problems in plain NumPy, written from the paper's list with its indices from 1.

An independent reference: nothing here is shared with `energies.py`, data apart, which are typed in `measured.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from . import measured

Floats = NDArray[np.float64]

RESIDUALS: dict[int, Callable[..., Floats]] = {}


def problem(number: int) -> Callable[[Callable[..., Floats]], Callable[..., Floats]]:
    def add(function: Callable[..., Floats]) -> Callable[..., Floats]:
        RESIDUALS[number] = function
        return function

    return add


def energy(number: int, x: Floats) -> float:
    """The sum of squares."""
    f = RESIDUALS[number](np.asarray(x, float).ravel())
    return float(f @ f)


@problem(1)
def _(x):
    return np.array([10 * (x[1] - x[0] ** 2), 1 - x[0]])


@problem(2)
def _(x):
    a, b = x
    return np.array([-13 + a + 5 * b**2 - b**3 - 2 * b, -29 + a + b**3 + b**2 - 14 * b])


@problem(3)
def _(x):
    return np.array([10_000 * x[0] * x[1] - 1, np.exp(-x).sum() - 1.0001])


@problem(4)
def _(x):
    return np.array([x[0] - 1_000_000, x[1] - 0.000002, x.prod() - 2])


@problem(5)
def _(x):
    return np.array([c - x[0] * (1 - x[1] ** (p + 1)) for p, c in enumerate((1.5, 2.25, 2.625))])


@problem(6)
def _(x, m=10):
    return np.array([2 + 2 * i - (np.exp(i * x[0]) + np.exp(i * x[1])) for i in range(1, m + 1)])


@problem(7)
def _(x):
    theta = np.arctan(x[1] / x[0]) / (2 * np.pi) if x[0] > 0 else np.arctan(x[1] / x[0]) / (2 * np.pi) + 0.5
    return np.array([10 * (x[2] - 10 * theta), 10 * (np.hypot(x[0], x[1]) - 1), x[2]])


@problem(8)
def _(x):
    f = np.empty(15)
    for i in range(1, 16):
        f[i - 1] = measured.BARD[i - 1] - (x[0] + i / ((16 - i) * x[1] + min(i, 16 - i) * x[2]))
    return f


@problem(9)
def _(x):
    half = (0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521)
    height = np.array([*half, 0.3989, *half[::-1]])
    place = 0.5 * (8 - np.arange(1, 16))
    return x[0] * np.exp(-0.5 * x[1] * (place - x[2]) ** 2) - height


@problem(10)
def _(x):
    return x[0] * np.exp(x[1] / (45 + 5 * np.arange(1, 17) + x[2])) - measured.MEYER


@problem(11)
def _(x, m=99):
    part = np.arange(1, m + 1) / 100
    place = 25 + np.cbrt((-50 * np.log(part)) ** 2)
    return np.exp(-(np.abs(place - x[1]) ** x[2]) / x[0]) - part


@problem(12)
def _(x, m=10):
    f = np.empty(m)
    for i in range(1, m + 1):
        f[i - 1] = np.exp(-0.1 * i * x[0]) - np.exp(-0.1 * i * x[1]) - x[2] * (exp(-0.1 * i) - exp(-i))
    return f


@problem(13)
def _(x):
    a, b, c, d = x
    return np.array([a + 10 * b, 5**0.5 * (c - d), (b - 2 * c) ** 2, 10**0.5 * (a - d) ** 2])


@problem(14)
def _(x):
    a, b, c, d = x
    return np.array([10 * (b - a * a), 1 - a, 90**0.5 * (d - c * c), 1 - c, 10**0.5 * (b + d - 2), 10**-0.5 * (b - d)])


@problem(15)
def _(x):
    u = measured.KOWALIK_OSBORNE[0]
    return measured.KOWALIK_OSBORNE[1] - x[0] * u * (u + x[1]) / (u * (u + x[2]) + x[3])


@problem(16)
def _(x, m=20):
    f = np.empty(m)
    for i in range(1, m + 1):
        s = i / 5
        f[i - 1] = (x[0] + s * x[1] - np.exp(s)) ** 2 + (x[2] + x[3] * np.sin(s) - np.cos(s)) ** 2
    return f


@problem(17)
def _(x):
    s = 10.0 * (np.arange(1, 34) - 1)
    return measured.OSBORNE_1 - x[0] - x[1] * np.exp(-s * x[3]) - x[2] * np.exp(-s * x[4])


@problem(18)
def _(x, m=13):
    s = 0.1 * np.arange(1, m + 1)
    seen = np.exp(-s) - 5 * np.exp(-10 * s) + 3 * np.exp(-4 * s)
    return x[2] * np.exp(-s * x[0]) - x[3] * np.exp(-s * x[1]) + x[5] * np.exp(-s * x[4]) - seen


@problem(19)
def _(x):
    s = (np.arange(1, 66) - 1) / 10
    f = measured.OSBORNE_2 - x[0] * np.exp(-s * x[4])
    for height, width, place in ((1, 5, 8), (2, 6, 9), (3, 7, 10)):
        f = f - x[height] * np.exp(-x[width] * (s - x[place]) ** 2)
    return f


@problem(20)
def _(x):
    polynomial = np.polynomial.Polynomial(x)
    s = np.arange(1, 30) / 29
    inner = polynomial.deriv()(s) - polynomial(s) ** 2 - 1
    return np.concatenate([inner, [x[0], x[1] - x[0] ** 2 - 1]])


@problem(21)
def _(x):
    return np.concatenate([RESIDUALS[1](pair) for pair in x.reshape(-1, 2)])


@problem(22)
def _(x):
    return np.concatenate([RESIDUALS[13](four) for four in x.reshape(-1, 4)])


@problem(23)
def _(x):
    return np.append(1e-5**0.5 * (x - 1), x @ x - 0.25)


@problem(24)
def _(x):
    n = len(x)
    f = np.empty(2 * n)
    f[0] = x[0] - 0.2
    for i in range(2, n + 1):
        y = exp(i / 10) + exp((i - 1) / 10)
        f[i - 1] = 1e-5**0.5 * (np.exp(x[i - 1] / 10) + np.exp(x[i - 2] / 10) - y)
    for i in range(n + 1, 2 * n):
        f[i - 1] = 1e-5**0.5 * (np.exp(x[i - n] / 10) - exp(-0.1))
    f[-1] = sum((n - j + 1) * x[j - 1] ** 2 for j in range(1, n + 1)) - 1
    return f


@problem(25)
def _(x):
    moment = np.arange(1, len(x) + 1) @ (x - 1)
    return np.concatenate([x - 1, [moment, moment**2]])


@problem(26)
def _(x):
    n = len(x)
    return n - np.cos(x).sum() + np.arange(1, n + 1) * (1 - np.cos(x)) - np.sin(x)


@problem(27)
def _(x):
    f = x + x.sum() - (len(x) + 1)
    f[-1] = x.prod() - 1
    return f


@problem(28)
def _(x):
    n = len(x)
    h = 1 / (n + 1)
    padded = np.concatenate([[0.0], x, [0.0]])
    s = h * np.arange(n + 2)
    return (2 * padded - np.roll(padded, 1) - np.roll(padded, -1) + h**2 * (padded + s + 1) ** 3 / 2)[1:-1]


@problem(29)
def _(x):
    n = len(x)
    h = 1 / (n + 1)
    s = h * np.arange(1, n + 1)
    green = np.minimum.outer(s, s) * (1 - np.maximum.outer(s, s))  # of -u'' on a string held at both ends
    return x + h / 2 * green @ (x + s + 1) ** 3


@problem(30)
def _(x):
    padded = np.concatenate([[0.0], x, [0.0]])
    return (3 - 2 * x) * x - padded[:-2] - 2 * padded[2:] + 1


@problem(31)
def _(x):
    n = len(x)
    f = x * (2 + 5 * x**2) + 1
    for i in range(1, n + 1):
        for j in range(max(1, i - 5), min(n, i + 1) + 1):
            if j != i:
                f[i - 1] -= x[j - 1] * (1 + x[j - 1])
    return f


@problem(32)
def _(x, m=10):
    n = len(x)
    matrix = np.eye(m, n) - 2 / m
    return matrix @ x - 1


@problem(33)
def _(x, m=10):
    return np.outer(np.arange(1, m + 1), np.arange(1, len(x) + 1)) @ x - 1


@problem(34)
def _(x, m=10):
    n = len(x)
    row, column = np.arange(m), np.arange(1, n + 1)
    row[-1] = 0
    column[[0, -1]] = 0
    return np.outer(row, column) @ x - 1


@problem(35)
def _(x, m=8):
    f = np.empty(m)
    for i in range(1, m + 1):
        f[i - 1] = chebyshev.chebval(2 * x - 1, [0] * i + [1]).mean()
        if i % 2 == 0:
            f[i - 1] += 1 / (i**2 - 1)
    return f
