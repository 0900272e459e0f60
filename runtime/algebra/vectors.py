"""Loops over long vectors, each a pass that LLVM vectorises; the memory that one writes is none that it reads."""

from __future__ import annotations

from ...compiler.machine_code.signature import DoublePointer, IntegerPointer, streaming, vectorised


@streaming
def zero(out: DoublePointer, n: int) -> None:
    """out <- 0."""
    for i in range(n):
        out[i] = 0.0


@streaming
def move(a: DoublePointer, total: DoublePointer, n: int) -> None:
    """total <- total + a;  a <- 0."""
    for i in range(n):
        total[i] += a[i]
        a[i] = 0.0


@streaming
def copy(a: DoublePointer, out: DoublePointer, n: int) -> None:
    """out <- a."""
    for i in range(n):
        out[i] = a[i]


@streaming
def copy_scaled(factor: float, a: DoublePointer, out: DoublePointer, n: int) -> None:
    """out <- factor a."""
    for i in range(n):
        out[i] = factor * a[i]


@streaming
def scale(factor: float, a: DoublePointer, n: int) -> None:
    """a <- factor a."""
    for i in range(n):
        a[i] *= factor


@streaming
def gather(a: DoublePointer, places: IntegerPointer, out: DoublePointer, n: int) -> None:
    """out[i] <- a[places[i]]."""
    for i in range(n):
        out[i] = a[places[i]]


@streaming
def products(a: DoublePointer, b: DoublePointer, out: DoublePointer, n: int) -> None:
    """out <- a b."""
    for i in range(n):
        out[i] = a[i] * b[i]


@streaming
def gather_products(a: DoublePointer, b: DoublePointer, places: IntegerPointer, out: DoublePointer, n: int) -> None:
    """out[i] <- a[i] b[places[i]]."""
    for i in range(n):
        out[i] = a[i] * b[places[i]]


@streaming
def scatter_products(a: DoublePointer, b: DoublePointer, places: IntegerPointer, out: DoublePointer, n: int) -> None:
    """out[places[i]] <- a[i] b[i]."""
    for i in range(n):
        out[places[i]] = a[i] * b[i]


@streaming
def add(a: DoublePointer, b: DoublePointer, out: DoublePointer, n: int) -> None:
    """out <- a + b."""
    for i in range(n):
        out[i] = a[i] + b[i]


@streaming
def add_products(a: DoublePointer, b: DoublePointer, c: DoublePointer, out: DoublePointer, n: int) -> None:
    """out <- a + b c."""
    for i in range(n):
        out[i] = a[i] + b[i] * c[i]


@streaming
def turn(a: DoublePointer, factor: float, out: DoublePointer, n: int) -> None:
    """out <- a + factor out."""
    for i in range(n):
        out[i] = a[i] + factor * out[i]


@streaming
def add_scaled(factor: float, a: DoublePointer, out: DoublePointer, n: int) -> None:
    """out <- out + factor a."""
    for i in range(n):
        out[i] += factor * a[i]


@streaming
def differences(a: DoublePointer, b: DoublePointer, out: DoublePointer, n: int) -> None:
    """out <- a - b."""
    for i in range(n):
        out[i] = a[i] - b[i]


@streaming
def dot(a: DoublePointer, b: DoublePointer, n: int) -> float:
    """The sum of a b."""
    total = 0.0
    for i in range(n):
        total += a[i] * b[i]
    return total


@vectorised
def highest(a: DoublePointer, n: int) -> float:
    """The largest number; four at a time."""
    m0 = m1 = m2 = m3 = a[0]
    for i in range(0, n - 3, 4):
        m0 = max(m0, a[i])
        m1 = max(m1, a[i + 1])
        m2 = max(m2, a[i + 2])
        m3 = max(m3, a[i + 3])
    for i in range(n - n % 4, n):
        m0 = max(m0, a[i])
    return max(max(m0, m1), max(m2, m3))
