"""Symbols that the energies of the table share, and the table itself."""

from collections.abc import Callable
from typing import Any

import sympy as sp
from wiberg.energies.energy import Energy

TABLE: dict[str, Callable[[], Energy]] = {}

n, m, k = (sp.Symbol(s, integer=True, positive=True) for s in "nmk")
i, j, a = sp.Idx("i", n), sp.Idx("j", m), sp.Idx("a", k)
d = sp.Idx("d", 2)
t, u = sp.Symbol("t", real=True), sp.Symbol("u", real=True)
sigma, tau = sp.Symbol("sigma", positive=True), sp.Symbol("tau", positive=True)
b, c = sp.Symbol("b", real=True), sp.Symbol("c", real=True)
alpha = sp.IndexedBase("alpha", shape=(k,))
x, y, z, w = (sp.IndexedBase(s, shape=(n,)) for s in "xyzw")


def energy(make: Callable[[], Energy]) -> Callable[[], Energy]:
    """Put a function into the table under its own name."""
    TABLE[make.__name__] = make
    return make


def vector(name: str, *shape: Any, integer: bool = False) -> Any:
    return sp.IndexedBase(name, shape=shape, integer=True) if integer else sp.IndexedBase(name, shape=shape)


def total(expression: Any, *limits: Any) -> Any:
    return sp.Sum(expression, *limits)
