"""One text for one energy: the same in every process, whatever the seed of Python's hashes.

Every distinct node of the expressions is numbered once, arguments first, so that the length of the text is that of the
expression graph, not of the tree. `sp.srepr` will not do: it writes assumptions as the user gave them, although
`positive=True` and `positive=True, real=True` make equal symbols, and a Dummy by a number that other processes lack.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import sympy as sp


def digest(lines: Iterable[str]) -> str:
    """The hexadecimal SHA-256 of the lines.

    Examples
    --------
    >>> digest(["E = t**2"])[:8]
    '237c3cb8'
    """
    return hashlib.sha256("\n".join(lines).encode("utf-8", "backslashreplace")).hexdigest()


class Numbering:
    """Canonical text of expressions: one line for each distinct node, in the order in which they are first met.

    Examples
    --------
    >>> numbering = Numbering()
    >>> numbering.number(sp.Integer(2) * sp.Symbol("t") + 2)
    3
    >>> for line in numbering.lines:
    ...     print(line)
    Integer 2
    Symbol 't' commutative=True
    Mul 0 1
    Add 0 2
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._numbers: dict[Any, int] = {}

    def number(self, node: Any) -> int:
        """The number of the line that stands for `node`, which is written if it is new."""
        known = self._numbers.get(node)
        if known is not None:
            return known
        text = _leaf(node) or " ".join([_kind(node), *(str(self.number(a)) for a in node.args)])
        self.lines.append(text)
        self._numbers[node] = len(self.lines) - 1
        return self._numbers[node]


def _leaf(node: Any) -> str:
    if isinstance(node, sp.Symbol):
        assumptions = " ".join(f"{key}={value}" for key, value in sorted(node.assumptions0.items()))
        return f"{type(node).__name__} {node.name!r} {assumptions}"
    if isinstance(node, sp.Float):
        return f"Float {node._mpf_} {node._prec}"
    if isinstance(node, sp.Number):
        return f"{'Integer' if node.is_Integer else type(node).__name__} {node}"
    return "" if node.args else f"{_kind(node)} {sp.srepr(node)}"


def _kind(node: Any) -> str:
    """`Add`; functions from outside SymPy with their module, undefined ones as such."""
    kind = type(node)
    if isinstance(node, sp.core.function.AppliedUndef):
        return f"undefined {kind.__name__!r}"
    module = str(kind.__module__)
    return kind.__name__ if module.startswith("sympy.") else f"{module}.{kind.__qualname__}"
