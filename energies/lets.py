"""Intermediates: `where={u[i]: ...}` names an array, `where={z: ...}` a scalar, ordered by who uses whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy as sp

from .affine import affine, combine, expression
from .display import printable, shape_text, text
from .errors import DeclarationError, InputTypeError
from .roles import Roles
from .traversal import distinct_nodes


def let_symbol(key: Any) -> Any:
    """What a key of where= defines: u of u[i, j], or the Symbol itself."""
    return key.base if isinstance(key, sp.Indexed) else key


def let_indices(key: Any) -> tuple[Any, ...]:
    """The indices of a key of where=: (i, j) of u[i, j], () of a Symbol."""
    return tuple(key.indices) if isinstance(key, sp.Indexed) else ()


def let_shapes(keys: Sequence[Any], roles: Roles) -> dict[Any, tuple[Any, ...]]:
    """The shape of what each key defines: the ranges of its indices, which start at 0."""
    shapes: dict[Any, tuple[Any, ...]] = {}
    for key in keys:
        _check_key(key)
        symbol = let_symbol(key)
        name = printable(str(symbol))
        if symbol in roles.of:
            raise DeclarationError(f"where= defines {text(key)}, but {name} is {roles.of[symbol]}; rename it")
        if symbol in roles.extents:
            raise DeclarationError(f"where= defines {name}, but {name} is an extent of arrays; rename it")
        if symbol in shapes:
            raise DeclarationError(f"where= defines {name} twice; an intermediate has one definition")
        shapes[symbol] = tuple(_extent(key, index) for index in let_indices(key))
        _check_declared_shape(symbol, shapes[symbol])
    return shapes


def _check_key(key: Any) -> None:
    if not isinstance(key, sp.Symbol | sp.Indexed):
        raise InputTypeError(
            "keys of where= are entries u[i, j] of an sp.IndexedBase, Symbols or MatrixSymbols; "
            f"got {key!r} of type {type(key).__name__}"
        )
    symbol = let_symbol(key)
    if (symbol.label if isinstance(symbol, sp.IndexedBase) else symbol).is_real is False:
        raise DeclarationError(f"where= defines {text(key)}, which is declared not to be real; declare it real=True")
    indices = let_indices(key)
    if not all(isinstance(index, sp.Idx) for index in indices) or len(set(map(str, indices))) < len(indices):
        raise DeclarationError(
            f"where= defines {text(key)}; the subscripts of a definition are distinct sp.Idx, as in u[i, j]"
        )


def _extent(key: Any, index: Any) -> Any:
    name = text(index)
    upper = None if index.upper is None else affine(index.upper)
    if upper is None:
        raise DeclarationError(f'index {name} has no extent; write sp.Idx("{name}", n) with an integer symbol n')
    if index.lower != 0:
        raise DeclarationError(
            f"where= defines {text(key)} over {name} = {text(index.lower)}..{text(index.upper)}; "
            "the indices of a definition start at 0: define all entries, and sum over those that are needed"
        )
    return expression(combine((1, upper), (1, {sp.S.One: 1})))


def _check_declared_shape(symbol: Any, shape: Sequence[Any]) -> None:
    declared = getattr(symbol, "shape", None)
    if declared is not None and tuple(declared) != tuple(shape):
        raise DeclarationError(
            f"where= defines {printable(str(symbol))} over {shape_text(shape)}, "
            f"but it is declared with shape {shape_text(declared)}; leave the shape out, or make both the same"
        )


def in_order(where: Mapping[Any, Any]) -> dict[Any, Any]:
    """The definitions such that each uses only earlier ones; the user's order where that leaves a choice."""
    keys = {let_symbol(key): key for key in where}
    ordered: dict[Any, Any] = {}
    for symbol in keys:
        _place(symbol, where, keys, ordered, ())
    return ordered


def _place(
    symbol: Any, where: Mapping[Any, Any], keys: Mapping[Any, Any], ordered: dict[Any, Any], path: tuple[Any, ...]
) -> None:
    key = keys[symbol]
    if symbol in path:
        loop = " -> ".join(printable(str(s)) for s in (*path[path.index(symbol) :], symbol))
        raise DeclarationError(
            f"where= defines {text(key)} through {printable(str(symbol))} itself ({loop}); "
            "an intermediate may use only earlier ones"
        )
    if key in ordered:
        return
    read = set(distinct_nodes([where[key]]))
    for other in keys:
        if other in read:
            _place(other, where, keys, ordered, (*path, symbol))
    ordered[key] = where[key]


def reachable(used: set[Any], used_by_let: Mapping[Any, set[Any]]) -> set[Any]:
    """All symbols that `used` reads, directly or through intermediates (a mapping in dependency order)."""
    result = set(used)
    for symbol, reads in reversed(list(used_by_let.items())):
        if symbol in result:
            result |= reads
    return result
