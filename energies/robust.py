"""Robust penalties rho of a squared residual r2 = |r|^2, to stand where 1/2 r2 would.

All are normalised such that rho = r2/2 + O(r2^2) near 0: a small residual counts as in least squares, whatever the
scale, and only residuals well beyond the scale count for less. All are smooth in r, also at r = 0, since they take r2
rather than |r|.

==================  =====================================  ==========================
penalty             rho                                    for large r2
==================  =====================================  ==========================
`pseudo_huber`      s^2 (sqrt(1 + r2/s^2) - 1)             s |r|
`cauchy`            s^2/2 log(1 + r2/s^2)                  s^2 log |r|
`student_t`         nu s^2/2 log(1 + r2/(nu s^2))          nu s^2 log |r|
`geman_mcclure`     r2 / (2 (1 + r2/s^2))                  s^2/2
`welsch`            s^2/2 (1 - exp(-r2/s^2))               s^2/2
==================  =====================================  ==========================

Up to the scale, they belong to the family of J. T. Barron, "A General and Adaptive Robust Loss Function", CVPR 2019.
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from .display import text
from .errors import DeclarationError, InputTypeError


def pseudo_huber(r2: Any, delta: Any) -> Any:
    """The pseudo-Huber or Charbonnier penalty, delta^2 (sqrt(1 + r2/delta^2) - 1): convex, linear in |r| beyond delta.

    P. Charbonnier, L. Blanc-Feraud, G. Aubert, M. Barlaud, "Two deterministic half-quadratic regularization algorithms
    for computed imaging", ICIP 1994; the smooth form of Huber's function, P. J. Huber, E. M. Ronchetti, "Robust
    Statistics", 2nd edition, 2009.

    Parameters
    ----------
    r2 : sympy expression
        The squared residual, at least 0.
    delta : sympy expression or number
        The scale, in units of r, above 0.

    Returns
    -------
    sympy expression
        r2/2 near r2 = 0; delta |r| - delta^2 for large r2.

    Examples
    --------
    >>> t, delta = sp.Symbol("t", real=True), sp.Symbol("delta", positive=True)
    >>> pseudo_huber(t**2, delta)
    delta**2*(sqrt(1 + t**2/delta**2) - 1)
    """
    r2, delta = _arguments(r2, delta=delta)
    return delta**2 * (sp.sqrt(1 + r2 / delta**2) - 1)


def geman_mcclure(r2: Any, scale: Any) -> Any:
    """The penalty of Geman and McClure, r2 / (2 (1 + r2/scale^2)): bounded, an outlier costs scale^2/2.

    S. Geman, D. E. McClure, "Statistical methods for tomographic image reconstruction", Bulletin of the International
    Statistical Institute 52, 1987; as r2/(r2 + scale^2), which is 2/scale^2 of ours, in M. J. Black, A. Rangarajan, "On
    the unification of line processes, outlier rejection, and robust statistics", IJCV 19, 1996.

    Parameters
    ----------
    r2 : sympy expression
        The squared residual, at least 0.
    scale : sympy expression or number
        The scale, in units of r, above 0.

    Returns
    -------
    sympy expression
        r2/2 near r2 = 0; scale^2/2 for large r2.

    Examples
    --------
    >>> t, s = sp.Symbol("t", real=True), sp.Symbol("s", positive=True)
    >>> geman_mcclure(t**2, s)
    t**2/(2 + 2*t**2/s**2)
    """
    r2, scale = _arguments(r2, scale=scale)
    return r2 / (2 * (1 + r2 / scale**2))


def welsch(r2: Any, scale: Any) -> Any:
    """The penalty of Welsch, also Leclerc or Gaussian, scale^2/2 (1 - exp(-r2/scale^2)): bounded by scale^2/2.

    J. E. Dennis, R. E. Welsch, "Techniques for nonlinear least squares and robust regression", Communications in
    Statistics 7, 1978; P. W. Holland, R. E. Welsch, "Robust regression using iteratively reweighted least-squares",
    Communications in Statistics 6, 1977.

    Parameters
    ----------
    r2 : sympy expression
        The squared residual, at least 0.
    scale : sympy expression or number
        The scale, in units of r, above 0.

    Returns
    -------
    sympy expression
        r2/2 near r2 = 0; scale^2/2 for large r2.

    Examples
    --------
    >>> t, s = sp.Symbol("t", real=True), sp.Symbol("s", positive=True)
    >>> welsch(t**2, s)
    s**2*(1 - exp(-t**2/s**2))/2
    """
    r2, scale = _arguments(r2, scale=scale)
    return scale**2 / 2 * (1 - sp.exp(-r2 / scale**2))


def cauchy(r2: Any, scale: Any) -> Any:
    """The Cauchy or Lorentzian penalty, scale^2/2 log(1 + r2/scale^2): grows as log |r|.

    P. W. Holland, R. E. Welsch, "Robust regression using iteratively reweighted least-squares", Communications in
    Statistics 6, 1977; M. J. Black, P. Anandan, "The robust estimation of multiple motions", CVIU 63, 1996, as
    log(1 + r2/(2 sigma^2)), which is 1/sigma^2 of ours with scale = sqrt(2) sigma.

    Parameters
    ----------
    r2 : sympy expression
        The squared residual, at least 0.
    scale : sympy expression or number
        The scale, in units of r, above 0.

    Returns
    -------
    sympy expression
        r2/2 near r2 = 0; scale^2 log(|r|/scale) for large r2.

    Examples
    --------
    >>> t, s = sp.Symbol("t", real=True), sp.Symbol("s", positive=True)
    >>> cauchy(t**2, s)
    s**2*log(1 + t**2/s**2)/2
    """
    r2, scale = _arguments(r2, scale=scale)
    return scale**2 / 2 * sp.log(1 + r2 / scale**2)


def student_t(r2: Any, scale: Any, nu: Any) -> Any:
    """The penalty of Student's t with nu degrees of freedom, nu scale^2/2 log(1 + r2/(nu scale^2)).

    It is the negative log-density of a t distribution of one residual, without its constant, times nu scale^2/(nu + 1)
    so that it is r2/2 near 0. It is `cauchy` with the scale sqrt(nu) scale, and tends to r2/2 as nu grows.
    K. L. Lange, R. J. A. Little, J. M. G. Taylor, "Robust statistical modeling using the t distribution",
    Journal of the American Statistical Association 84, 1989.

    Parameters
    ----------
    r2 : sympy expression
        The squared residual, at least 0.
    scale : sympy expression or number
        The scale, in units of r, above 0.
    nu : sympy expression or number
        The degrees of freedom, above 0.

    Returns
    -------
    sympy expression
        r2/2 near r2 = 0; nu scale^2 log |r| for large r2, up to a constant.

    Examples
    --------
    >>> t, s = sp.Symbol("t", real=True), sp.Symbol("s", positive=True)
    >>> student_t(t**2, s, 4)
    2*s**2*log(1 + t**2/(4*s**2))
    """
    r2, scale, nu = _arguments(r2, scale=scale, nu=nu)
    return nu * scale**2 / 2 * sp.log(1 + r2 / (nu * scale**2))


def _arguments(r2: Any, **parameters: Any) -> list[Any]:
    """The arguments as SymPy's; parameters that are plainly not above 0 are refused."""
    arguments = []
    for name, value in {"r2": r2, **parameters}.items():
        try:
            argument = sp.sympify(value, strict=True)
        except sp.SympifyError:
            raise InputTypeError(
                f"{name} must be a SymPy expression or a number; got {value!r} of type {type(value).__name__}"
            ) from None
        if name != "r2" and (argument.is_extended_nonpositive or argument in (sp.nan, sp.oo, sp.zoo)):
            raise DeclarationError(f"{name} must be finite and above 0; got {text(argument)}")
        arguments.append(argument)
    return arguments
