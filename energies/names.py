"""One name is one thing: nothing in an energy may print like something else.

SymPy holds `Symbol("t", real=True)` and `Symbol("t", positive=True)` apart although both print as `t`, and names in
the API are what symbols print. So every name in an energy stands for one symbol, one array or one kind of index.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sympy as sp

from .display import printable, shape_text
from .errors import DeclarationError
from .extrema import Extreme
from .roles import Roles, assumptions_text
from .traversal import distinct_nodes


def check_names(expressions: Iterable[Any], roles: Roles) -> None:
    """Refuse two different things of one name in the roles and the expressions."""
    symbols: dict[str, set[Any]] = {}
    arrays: dict[str, set[Any]] = {}
    indices: dict[str, set[Any]] = {}
    bound: set[Any] = set()
    for node in distinct_nodes([*roles.of, *expressions]):
        if isinstance(node, sp.Sum | sp.Product | Extreme):
            bound |= {limit[0] for limit in node.limits}
        elif isinstance(node, sp.Idx):
            indices.setdefault(str(node), set()).add(node.label)
        elif isinstance(node, sp.IndexedBase):
            arrays.setdefault(str(node), set()).add(node)
        elif isinstance(node, sp.Symbol):
            symbols.setdefault(str(node), set()).add(node)
    _check_symbols(symbols, bound)
    _check_arrays(arrays)
    _check_kinds(symbols, arrays, indices, bound, roles)


def _check_symbols(symbols: Mapping[str, set[Any]], bound: set[Any]) -> None:
    for name, twins in sorted(symbols.items()):
        if len(twins) > 1 and not twins <= bound:
            kinds = "; ".join(sorted(assumptions_text(symbol) for symbol in twins))
            raise DeclarationError(
                f"two symbols print as '{printable(name)}' with different assumptions ({kinds}); "
                f"SymPy treats them as different, create {printable(name)} once and reuse it"
            )


def _check_arrays(arrays: Mapping[str, set[Any]]) -> None:
    for name, twins in sorted(arrays.items()):
        if len(twins) > 1:
            kinds = sorted(
                f"shape {'none' if array.shape is None else shape_text(array.shape)}, {assumptions_text(array.label)}"
                for array in twins
            )
            raise DeclarationError(
                f"two arrays print as '{printable(name)}' ({'; '.join(kinds)}); "
                f"SymPy treats them as different, create {printable(name)} once and reuse it"
            )


def _check_kinds(
    symbols: Mapping[str, set[Any]],
    arrays: Mapping[str, set[Any]],
    indices: Mapping[str, set[Any]],
    bound: set[Any],
    roles: Roles,
) -> None:
    known = roles.of.keys() | set(roles.extents)
    scalars = {name for name, same in symbols.items() if not same <= bound or same & known}
    loops = set(indices) | {name for name, same in symbols.items() if same & bound}
    for first, second, clashes in (
        ("an array", "a symbol", arrays.keys() & scalars),
        ("an array", "an index", arrays.keys() & loops),
        ("a symbol", "an index", scalars & loops),
    ):
        for name in sorted(clashes):
            raise DeclarationError(
                f"'{printable(name)}' is the name of {first} and of {second}; one name is one thing, rename one of them"
            )
