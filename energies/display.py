"""Energies as text and as LaTeX. Names may hold anything: what cannot be printed as it is, is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from sympy import Function
from sympy.printing.latex import LatexPrinter
from sympy.printing.str import StrPrinter

LONGEST = 240  # characters of an expression in an error message


def printable(name: str) -> str:
    """The name on one line: as it is where it can be printed, else with escapes.

    Examples
    --------
    >>> printable("sigma"), printable("a" + chr(10) + "b")
    ('sigma', 'a\\\\nb')
    """
    return name if name.isprintable() else name.encode("unicode_escape").decode("ascii")


class _Text(StrPrinter):  # type: ignore[misc]
    def _print_Symbol(self, expr: Any) -> str:
        return printable(expr.name)

    def _print_Dummy(self, expr: Any) -> str:
        return printable(str(expr))

    def _print_MatrixSymbol(self, expr: Any) -> str:
        return printable(expr.name)

    def _print_MatrixBase(self, expr: Any) -> str:
        rows = (", ".join(map(self._print, row)) for row in expr.tolist())
        return f"Matrix([[{'], ['.join(rows)}]])"

    _print_ImmutableMatrix = _print_ImmutableDenseMatrix = _print_DenseMatrix = _print_MatrixBase
    _print_SparseMatrix = _print_ImmutableSparseMatrix = _print_MatrixBase

    def _print_ElementwiseApplyFunction(self, expr: Any) -> str:
        return f"{self._print(expr.function)}.({self._print(expr.expr)})"

    def _print_Lambda(self, expr: Any) -> str:
        """A function of its argument alone by its name: `tanh` for `Lambda(x, tanh(x))`."""
        body, arguments = expr.expr, expr.signature
        is_plain = isinstance(body, Function) and body.args == tuple(arguments)
        return type(body).__name__ if is_plain else str(super()._print_Lambda(expr))


def text(expr: Any) -> str:
    """The expression on one line."""
    return str(_Text().doprint(expr))


def excerpt(expr: Any) -> str:
    """The expression on one line, cut to what an error message can hold."""
    whole = text(expr)
    return whole if len(whole) <= LONGEST else whole[: LONGEST - 4] + " ..."


def shape_text(shape: Sequence[Any]) -> str:
    """A shape as Python prints a tuple.

    Examples
    --------
    >>> from sympy.abc import n
    >>> shape_text([n]), shape_text([3, n]), shape_text([])
    ('(n,)', '(3, n)', '()')
    """
    inner = ", ".join(text(extent) for extent in shape)
    return f"({inner},)" if len(shape) == 1 else f"({inner})"


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Rows of (title, text), titles in a column of their own; a title that repeats is left out."""
    lines, last = [], ""
    for title, entry in rows:
        lines.append(f"  {'' if title == last else title:<11}{entry}")
        last = title
    return "\n".join(lines)


class _Latex(LatexPrinter):  # type: ignore[misc]
    """SymPy's, except that an index is printed without its range and that odd names are quoted."""

    def _print_Symbol(self, expr: Any, style: str = "plain") -> str:
        if re.fullmatch(r"[A-Za-z]+[0-9]*(_[A-Za-z0-9]+)*", expr.name):
            return str(super()._print_Symbol(expr, style=style))
        return latex_text(expr.name)

    _print_Dummy = _print_Symbol

    def _print_MatrixSymbol(self, expr: Any) -> str:
        return self._print_Symbol(expr)

    def _print_Idx(self, expr: Any) -> str:
        return str(self._print(expr.label))


_IN_TEXT_MODE = {
    "\\": r"\textbackslash ",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "%": r"\%",
    "#": r"\#",
    "&": r"\&",
    "_": r"\_",
    "^": r"\textasciicircum ",
    "~": r"\textasciitilde ",
    "<": r"\textless ",
    ">": r"\textgreater ",
    "`": r"\textasciigrave ",
}


def latex_text(name: str) -> str:
    """Any text as upright text within a LaTeX formula.

    Examples
    --------
    >>> print(latex_text("50% {off}"))
    \\text{50\\% \\{off\\}}
    """
    return r"\text{" + "".join(_IN_TEXT_MODE.get(c, c) for c in printable(name)) + "}"


def latex(expr: Any) -> str:
    """The expression as LaTeX, without dollar signs."""
    return str(_Latex().doprint(expr))


def latex_table(formula: str, rows: Iterable[tuple[str, str]]) -> str:
    """A displayed formula over rows of (title, LaTeX), as notebooks show it."""
    lines, last = [], ""
    for title, entry in rows:
        lines.append(rf"\text{{{'' if title == last else title}}} & {entry}")
        last = title
    body = r"\begin{array}{ll} " + r" \\ ".join(lines) + r" \end{array}"
    return rf"$\displaystyle \begin{{array}}{{l}} {formula} \\ {body} \end{{array}}$"
