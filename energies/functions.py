"""Functions that SymPy has no name for, as ordinary SymPy expressions.

They print, differentiate and evaluate as what they are; the compiler computes them in a form that cannot overflow.
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from .errors import InputTypeError
from .traversal import distinct_nodes

PRECISE, NO_IMAGINARY_PART = 70, sp.Float("1e-14")
"""Digits of a constant that is evaluated, and what of its imaginary part is rounding."""


def softplus(x: Any) -> Any:
    """log(1 + exp(x)): a smooth max(x, 0).

    C. Dugas, Y. Bengio, F. Belisle, C. Nadeau, R. Garcia, "Incorporating second-order functional knowledge for better
    option pricing", NIPS 2000.

    Parameters
    ----------
    x : sympy expression or number

    Returns
    -------
    sympy expression

    Examples
    --------
    >>> softplus(sp.Symbol("t", real=True))
    log(exp(t) + 1)
    """
    return sp.log(1 + sp.exp(_expression(x)))


def logistic(x: Any) -> Any:
    """1/(1 + exp(-x)): the probability whose log-odds are x, and the derivative of `softplus`.

    Parameters
    ----------
    x : sympy expression or number

    Returns
    -------
    sympy expression

    Examples
    --------
    >>> logistic(sp.Symbol("t", real=True))
    1/(1 + exp(-t))
    """
    return 1 / (1 + sp.exp(-_expression(x)))


def log_sum_exp(expression: Any, *indices: Any) -> Any:
    """log(Sum(exp(expression), indices)): a smooth maximum over indices.

    Parameters
    ----------
    expression : sympy expression
    *indices : sympy Idx, or (index, first, last)
        As `sympy.Sum` takes them.

    Returns
    -------
    sympy expression

    Raises
    ------
    InputTypeError
        If something is no SymPy expression, or no index is given.

    Examples
    --------
    >>> n = sp.Symbol("n", integer=True, positive=True)
    >>> x, i = sp.IndexedBase("x", shape=(n,)), sp.Idx("i", n)
    >>> log_sum_exp(x[i], i)
    log(Sum(exp(x[i]), (i, 0, n - 1)))
    """
    if not indices:
        raise InputTypeError("log_sum_exp needs an index to sum over, as in wb.log_sum_exp(x[i], i)")
    return sp.log(sp.Sum(sp.exp(_expression(expression)), *indices))


def _expression(value: Any) -> Any:
    try:
        return sp.sympify(value, strict=True)
    except sp.SympifyError:
        raise InputTypeError(f"a SymPy expression or a number is needed; got {value!r}") from None


def real_constants(expression: Any) -> Any:
    """The expression, with real constants that SymPy has written with I as numbers.

    It writes atan2 of numbers as -I*log(...) where it finds no simpler form.
    """
    if all(node is not sp.I for node in distinct_nodes([expression])):
        return expression
    return _real_constants(expression)


def _real_constants(node: Any) -> Any:
    if not node.has(sp.I):
        return node
    if isinstance(node, sp.Expr) and not node.free_symbols:
        real, imaginary = node.doit().evalf(PRECISE).as_real_imag()
        return real if real.is_Float and abs(imaginary) <= NO_IMAGINARY_PART * max(1, abs(real)) else node
    if node.is_Add or node.is_Mul:
        constants, rest = sp.sift(node.args, lambda a: not a.free_symbols, binary=True)
        return node.func(_real_constants(node.func(*constants)), *map(_real_constants, rest))
    return node.func(*map(_real_constants, node.args))
