"""Expressions as graphs. SymPy's own walks visit a shared part once for each path to it, often very many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import sympy as sp


def distinct_nodes(roots: Iterable[Any]) -> Iterator[Any]:
    """Every distinct node once; the label of an array or an index is no node of its own.

    Examples
    --------
    >>> t = sp.Symbol("t")
    >>> sorted(map(str, distinct_nodes([sp.exp(t) + sp.sin(t)])))
    ['exp(t)', 'exp(t) + sin(t)', 'sin(t)', 't']
    """
    stack, seen = list(roots), set()
    while stack:
        node = stack.pop()
        if node in seen or not isinstance(node, sp.Basic):
            continue
        seen.add(node)
        yield node
        stack.extend(node.args[1:] if isinstance(node, sp.Idx | sp.IndexedBase) else node.args)
