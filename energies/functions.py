"""Functions that SymPy has no name for, as ordinary SymPy expressions.

They print, differentiate and evaluate as what they are; the compiler computes them in a form that cannot overflow.
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from .errors import InputTypeError


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
