"""The smallest or the largest entry over an index, as SymPy expressions: `minimum(expr, i)` and `maximum(expr, i)`.

Both are differentiable: the derivative goes to the first extreme entry, in second order as well. The index is bound,
as in sp.Sum: it is not free in the result, and a substitution cannot capture it.
"""

from __future__ import annotations

from typing import Any

import sympy as sp
from sympy.concrete.expr_with_intlimits import ExprWithIntLimits

from .display import excerpt, text
from .errors import DeclarationError, InputTypeError


class Extreme(ExprWithIntLimits):  # type: ignore[misc]
    """An extreme entry over indices; `primitive` is the function of two arguments, `operator` its LaTeX."""

    primitive = ""
    operator = ""

    def __new__(cls, function: Any, *limits: Any) -> Any:
        made = sp.Expr.__new__(cls, sp.sympify(function), *(sp.Tuple(*limit) for limit in limits))
        made.is_commutative = True
        return made

    @property
    def is_number(self) -> bool:
        """Never: SymPy would compare it as one, as in Max(minimum(2, i), t)."""
        return False

    def _eval_is_extended_real(self) -> Any:
        return self.function.is_extended_real

    def _eval_derivative(self, symbol: Any) -> Any:
        return sp.Derivative(self, symbol, evaluate=False)

    def _eval_subs(self, old: Any, new: Any) -> Any:
        if old in self.variables:
            return super()._eval_subs(old, new)
        captured = [index for index in self.variables if index in sp.sympify(new).free_symbols]
        names = {index: _unlike(index, {str(s) for s in (*self.function.free_symbols, *new.free_symbols)})
                 for index in captured}  # fmt: skip
        renamed = self.func(*(argument.xreplace(names) for argument in self.args))
        return super(Extreme, renamed)._eval_subs(old, new)

    def _sympystr(self, printer: Any) -> str:
        indices = ", ".join(_index_text(limit, printer) for limit in self.limits)
        return f"{self.primitive}({printer.doprint(self.function)}, {indices})"

    def _latex(self, printer: Any, **_: Any) -> str:
        runs = (rf"{printer._print(low)} \leq {printer._print(index)} \leq {printer._print(high)}"
                for index, low, high in self.limits)  # fmt: skip
        return rf"{self.operator}_{{{', '.join(runs)}}} \left({printer._print(self.function)}\right)"


class Minimum(Extreme):
    """The smallest entry; made by `minimum`."""

    primitive = "minimum"
    operator = r"\min"


class Maximum(Extreme):
    """The largest entry; made by `maximum`."""

    primitive = "maximum"
    operator = r"\max"


def _unlike(index: Any, taken: set[str]) -> Any:
    """The index under a name that is not taken."""
    number = 1
    while f"{index}_{number}" in taken:
        number += 1
    name = f"{index}_{number}"
    return sp.Idx(name, (index.lower, index.upper)) if isinstance(index, sp.Idx) else sp.Symbol(name, integer=True)


def _index_text(limit: Any, printer: Any) -> str:
    index, low, high = limit
    own = (index.lower, index.upper) if isinstance(index, sp.Idx) else None
    return str(printer.doprint(index if own == (low, high) else sp.Tuple(index, low, high)))


def minimum(expression: Any, *indices: Any) -> Any:
    """The smallest value of an expression over indices.

    Parameters
    ----------
    expression : sympy expression
    *indices : sympy Idx, or (i, first, last)
        As in sp.Sum: the first is the innermost, and its limits may depend on later ones.

    Returns
    -------
    sympy expression
        Its derivatives are those of the first entry that is smallest. The ranges must not be empty: that is checked
        when a kernel is called.

    Examples
    --------
    The squared distance of a point t to the nearest of n points:

    >>> n = sp.Symbol("n", integer=True, positive=True)
    >>> i, t, x = sp.Idx("i", n), sp.Symbol("t", real=True), sp.IndexedBase("x", shape=(n,))
    >>> minimum((x[i] - t)**2, i)
    minimum((-t + x[i])**2, i)
    """
    return Minimum(*_arguments("minimum", expression, indices))


def maximum(expression: Any, *indices: Any) -> Any:
    """The largest value of an expression over indices; the rest as for `minimum`.

    Examples
    --------
    >>> n = sp.Symbol("n", integer=True, positive=True)
    >>> i, x = sp.Idx("i", n), sp.IndexedBase("x", shape=(n,))
    >>> maximum(x[i]*x[i - 1], (i, 1, n - 1))
    maximum(x[i - 1]*x[i], (i, 1, n - 1))
    """
    return Maximum(*_arguments("maximum", expression, indices))


def _arguments(name: str, expression: Any, indices: tuple[Any, ...]) -> tuple[Any, ...]:
    try:
        function = sp.sympify(expression, strict=True)
    except sp.SympifyError:
        function = None
    if not isinstance(function, sp.Expr):
        kind = type(expression).__name__
        raise InputTypeError(f"{name}(expression, index) takes a SymPy expression; got {expression!r} of type {kind}")
    if not indices:
        raise DeclarationError(
            f"{name}({excerpt(function)}) has no index; write {name}(..., i), or sp.{name[:3].title()} of several "
            "expressions"
        )
    return function, *(_limit(name, index) for index in indices)


def _limit(name: str, index: Any) -> tuple[Any, Any, Any]:
    parts = tuple(index) if isinstance(index, tuple | list | sp.Tuple) else (index,)
    if len(parts) == 1 and isinstance(parts[0], sp.Idx):
        (only,) = parts
        if only.lower is None or only.upper is None:
            raise DeclarationError(f'index {text(only)} has no extent; write sp.Idx("{text(only)}", n)')
        return only, only.lower, only.upper
    if len(parts) != 3 or not isinstance(parts[0], sp.Idx | sp.Symbol):
        raise DeclarationError(f"{name} over {index!r}: an index is a sp.Idx with an extent, or (i, first, last)")
    return parts[0], sp.sympify(parts[1]), sp.sympify(parts[2])
