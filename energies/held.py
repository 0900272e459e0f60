"""`held(f, first)`: a part of an energy that is computed at the point before, and is constant in between.

    E(y) = sum of held(w(r_i(y)), 1) r_i(y)^2 / 2

is iteratively reweighted least squares with any weights w: those that no penalty rho belongs to, weights that look at
more than their own residual, or a published rule to the last digit. Every other part is quadratic in the variables, so
that a step is one linear system. In the first there is no point before, and f is `first`.
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from .errors import DeclarationError


class held(sp.Function):  # type: ignore[misc]
    """f at the point before; `first` in the first system. For `method="irls"`.

    All derivatives of the energy count it as a constant; `wb.unrolled_gradient` differentiates through it, from step to
    step.

    Parameters
    ----------
    f : sympy expression
        Of variables, weights and data.
    first : sympy expression or number
        Of weights and data.

    Raises
    ------
    DeclarationError
        If one stands within another, or `first` is missing.

    Examples
    --------
    Medians by least squares, weights of 1/|r| at most 1e3:

    >>> import wiberg as wb
    >>> n = sp.Symbol("n", integer=True, positive=True)
    >>> i, x, t = sp.Idx("i", n), sp.IndexedBase("x", shape=(n,)), sp.Symbol("t", real=True)
    >>> weight = wb.held(1/sp.Max(sp.Abs(x[i] - t), 1e-3), 1)
    >>> energy = wb.Energy(sp.Sum(weight*(x[i] - t)**2, i), variables=[t], data=[x], candidates={t: 0})
    >>> kernel, data = wb.compile(energy, backend="reference"), {"x": [1.0, 2.0, 3.0, 4.0, 100.0]}
    >>> for steps in (1, 5, 30):
    ...     print(wb.minimise(kernel, None, data, method="irls", reweightings=steps).variables["t"].round(3))
    8.278
    3.425
    3.0
    """

    nargs = (2,)

    @classmethod
    def eval(cls, *arguments: Any) -> Any:
        """Refuses what cannot be meant; a number is held anyway."""
        f, first = arguments
        if f.has(cls) or first.has(cls):
            raise DeclarationError(f"{cls.__name__} stands within {cls.__name__}: {f}; hold the whole, once")
        return f if f.is_Number and f == first else None

    def _eval_is_extended_real(self) -> bool:
        return True


def holds(energy: Any) -> bool:
    """Whether an energy has a part that is held."""
    return any(formula.has(held) for formula in (energy.expression, *energy.where.values()))
