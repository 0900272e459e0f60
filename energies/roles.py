"""Who plays what part: variables, weights and data, their shapes, and the extents that follow from the shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy as sp

from .affine import affine
from .display import excerpt, printable, shape_text, text
from .errors import DeclarationError, InputTypeError
from .matrices import array_of

_SIGNED = ("positive", "negative", "nonnegative", "nonpositive", "nonzero")


@dataclass(frozen=True)
class Roles:
    """What the lists of an energy declare.

    `of` maps each symbol to "variable", "weight" or "data"; `shapes` each symbol to its extents, () for a scalar;
    `extents` are the symbols that stand alone on some axis, in order of appearance.
    """

    variables: tuple[Any, ...]
    weights: tuple[Any, ...]
    data: tuple[Any, ...]
    of: Mapping[Any, str]
    shapes: Mapping[Any, tuple[Any, ...]]
    extents: tuple[Any, ...]

    @property
    def names(self) -> str:
        """`t / sigma / x`: what is declared, for messages."""
        return " / ".join(
            ", ".join(printable(str(symbol)) for symbol in group) or "-"
            for group in (self.variables, self.weights, self.data)
        )


def read_roles(variables: Iterable[Any], weights: Iterable[Any], data: Iterable[Any]) -> Roles:
    """The roles that three lists of Symbols, IndexedBases and MatrixSymbols give."""
    groups = {
        "variable": _listed("variables", variables),
        "weight": _listed("weights", weights),
        "data": _listed("data", data),
    }
    if not groups["variable"]:
        raise DeclarationError(
            "no variables, so nothing to minimise; list at least one symbol in variables= "
            "(to evaluate a formula only, use sp.lambdify)"
        )
    of: dict[Any, str] = {}
    for role, symbols in groups.items():
        for symbol in symbols:
            _check_single_role(symbol, role, of)
            of[symbol] = role
    shapes = {symbol: _shape(symbol) for symbol in of}
    extents = _extents(shapes)
    _check_extents(shapes, of, extents)
    return Roles(groups["variable"], groups["weight"], groups["data"], of, shapes, extents)


def _listed(argument: str, symbols: Any) -> tuple[Any, ...]:
    example = 'write sp.Symbol("t", real=True) or sp.IndexedBase("y", shape=(n,))'
    if isinstance(symbols, str):
        raise InputTypeError(
            f"{argument} must be SymPy Symbols, IndexedBases or MatrixSymbols; got {symbols!r} of type str; {example}"
        )
    if isinstance(symbols, sp.Basic) and not isinstance(symbols, sp.Tuple):
        name = printable(str(symbols))
        raise InputTypeError(f"{argument} must be a list; got {name} alone; write {argument}=[{name}]")
    if isinstance(symbols, set | frozenset | Mapping) or not isinstance(symbols, Iterable):
        raise InputTypeError(
            f"{argument} must be a list or tuple, whose order is kept; got {symbols!r} of type {type(symbols).__name__}"
        )
    listed = tuple(map(array_of, symbols))
    for symbol in listed:
        if isinstance(symbol, sp.Indexed):
            base = printable(str(symbol.base))
            raise InputTypeError(f"{argument} has the entry {text(symbol)}; list the array itself: {argument}=[{base}]")
        if not isinstance(symbol, sp.Symbol | sp.IndexedBase):
            kind = type(symbol).__name__
            raise InputTypeError(
                f"{argument} must be SymPy Symbols, IndexedBases or MatrixSymbols; "
                f"got {symbol!r} of type {kind}; {example}"
            )
    return listed


def _check_single_role(symbol: Any, role: str, of: Mapping[Any, str]) -> None:
    if symbol not in of:
        return
    name = printable(str(symbol))
    if of[symbol] == role:
        raise DeclarationError(f"{name} is listed twice as {role}; list it once")
    raise DeclarationError(f"{name} is declared as {of[symbol]} and as {role}; a symbol has one role")


def check_assumptions(roles: Roles) -> None:
    """Refuse symbols of which SymPy may assume what neither minimisation nor learning keeps."""
    for symbol, role in roles.of.items():
        _check_assumptions(symbol, role)


def _check_assumptions(symbol: Any, role: str) -> None:
    name = printable(str(symbol))
    label = symbol.label if isinstance(symbol, sp.IndexedBase) else symbol
    if label.is_real is False or not label.is_commutative:
        raise DeclarationError(
            f"the expression is not real ({name} is declared {assumptions_text(label)}); "
            "declare symbols real=True, or minimise re(...)**2 + im(...)**2"
        )
    if role != "data" and label.is_integer:
        raise DeclarationError(f"{role} {name} is declared integer, but it takes real values; declare it real=True")
    signs = [sign for sign in _SIGNED if getattr(label, f"is_extended_{sign}") is not None]
    if role == "variable" and signs:
        raise DeclarationError(
            f"variable {name} is declared {assumptions_text(label)}, but minimisation does not keep it so; "
            "declare it real=True, or minimise over its logarithm"
        )
    if role == "weight" and signs and not label.is_positive:
        raise DeclarationError(
            f"weight {name} is declared {assumptions_text(label)}, but learning does not keep it so; "
            "declare it positive=True, which is kept, or real=True"
        )


def _shape(symbol: Any) -> tuple[Any, ...]:
    if isinstance(symbol, sp.Symbol):
        return ()
    name = printable(str(symbol))
    if symbol.shape is None or len(symbol.shape) == 0:
        raise DeclarationError(
            f'array {name} has no shape; write sp.IndexedBase("{name}", shape=(n,)), or sp.Symbol for a scalar'
        )
    if symbol.strides is not None or symbol.offset != 0:
        raise DeclarationError(f"array {name} has strides= or offset=, which are NumPy's to know; give shape= only")
    for axis, extent in enumerate(symbol.shape):
        check_extent(extent, f"axis {axis} of {name}")
    return tuple(symbol.shape)


def check_extent(extent: Any, place: str) -> None:
    """Refuse what is not an integer-affine form of extents that may be a size."""
    form = affine(extent)
    if form is None or any(isinstance(atom, sp.Idx | sp.Indexed) for atom in form):
        raise DeclarationError(
            f"{place} has the extent {excerpt(extent)}; "
            "an extent is an integer symbol, a number, or a sum such as n - 1"
        )
    if any(atom.is_integer is False for atom in form):
        raise DeclarationError(f"{place} has the extent {text(extent)}, which is not an integer; declare integer=True")
    if extent.is_Integer and extent < 0:
        raise DeclarationError(f"{place} has the extent {extent}; an extent is at least 0")


def _extents(shapes: Mapping[Any, Sequence[Any]]) -> tuple[Any, ...]:
    axes = [extent for shape in shapes.values() for extent in shape]
    return tuple(dict.fromkeys(extent for extent in axes if isinstance(extent, sp.Symbol)))


def _check_extents(shapes: Mapping[Any, Sequence[Any]], of: Mapping[Any, str], extents: Sequence[Any]) -> None:
    for symbol, shape in shapes.items():
        place = f"{printable(str(symbol))} {shape_text(shape)}"
        for extent in shape:
            for atom in sorted(extent.free_symbols, key=str):
                if atom in of:
                    raise DeclarationError(
                        f"{text(atom)} is declared as {of[atom]} and is the extent of {place}; one name is one thing"
                    )
                check_known_extent(atom, extents, place)


def check_known_extent(atom: Any, extents: Sequence[Any], place: str) -> None:
    """Refuse an extent that the shape of no array would give."""
    if atom in extents:
        return
    known = ", ".join(text(extent) for extent in extents) or "none"
    raise DeclarationError(
        f"no array has the extent {text(atom)}, used in {place}, so it could not be known; "
        f"extents of arrays: {known}; declare an array with {text(atom)} as one of its axes, or write a number"
    )


def assumptions_text(symbol: Any) -> str:
    """The assumptions as the user gave them: `positive`, or `nothing`."""
    given = getattr(symbol, "_assumptions_orig", None) or {}
    words = [key if value else f"{key}=False" for key, value in sorted(given.items())]
    if isinstance(symbol, sp.Dummy):
        words.append("a Dummy")
    return " ".join(words) or "no assumptions"
