"""The checks of a formula: one walk over its nodes that knows which index runs over what.

Each kind of node has one named check in `CHECKS`, which returns the nodes below that remain to be looked at. What is
proven here (`x[i + 1]` leaves its array) is refused; what only the extents can tell (`x[i + a]`) is left to the call.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sympy as sp

from .affine import Affine, Range, affine
from .bounds import check_axis
from .display import excerpt, printable, shape_text, text
from .errors import DeclarationError, UnsupportedError
from .extrema import Extreme
from .roles import Roles, check_known_extent

NOT_EVALUATED = (sp.Derivative, sp.Integral, sp.Limit, sp.Subs, sp.Order)


@dataclass(frozen=True)
class Context:
    """What a formula may use: `of` maps symbols to their role, `shapes` to their extents, lets included."""

    roles: Roles
    of: Mapping[Any, str]
    shapes: Mapping[Any, tuple[Any, ...]]
    allowed: frozenset[str] = frozenset({"variable", "weight", "data", "intermediate"})
    place: str = "the expression"


@dataclass
class Scope:
    """The indices that are bound at a node, and what has been seen under them."""

    ranges: dict[Any, Range]
    seen: set[Any] = field(default_factory=set)


Work = Iterable[tuple[Any, Scope]]


def check_formula(formula: Any, context: Context, ranges: Mapping[Any, Range]) -> set[Any]:
    """Check one formula, in which the indices of `ranges` are bound; the declared symbols that it reads.

    Raises DeclarationError or UnsupportedError at the first node that cannot be meant.
    """
    used: set[Any] = set()
    start = Scope(dict(ranges))
    stack = [(formula, start)]
    while stack:
        node, scope = stack.pop()
        if node in scope.seen:
            continue
        scope.seen.add(node)
        if node in context.of:
            used.add(node)
        check = next(check for kind, check in CHECKS if isinstance(node, kind))
        stack.extend(check(node, scope, context))
        if isinstance(node, sp.Indexed):
            used.add(node.base)
    return used


# --- nodes -----------------------------------------------------------------------------------------------------------


def _check_sum(node: Any, scope: Scope, context: Context) -> Work:
    inner = dict(scope.ranges)
    for index, lower, upper in _explicit_limits(node):
        if any(str(index) == str(outer) for outer in inner):
            raise DeclarationError(
                f"index {text(index)} is summed inside a sum over {text(index)}, in {excerpt(node)}; "
                "give the inner sum an index of another name"
            )
        if isinstance(index, sp.Idx) and index.lower is not None and index.upper is not None:
            index_range(index, context, inner)  # its extents must be known also where the sum has limits of its own
        inner[index] = Range(_limit(lower, index, inner, context), _limit(upper, index, inner, context))
    return [(node.function, Scope(inner))]


def _explicit_limits(node: Any) -> list[tuple[Any, Any, Any]]:
    """Limits of a Sum, a Product or an extreme over an index, outermost first."""
    for limit in node.limits:
        if not isinstance(limit[0], sp.Idx | sp.Symbol) or limit[0].is_integer is False:
            raise DeclarationError(f"{text(limit[0])} cannot be summed over; use sp.Idx or an integer symbol")
        if len(limit) != 3:
            raise DeclarationError(
                f"the sum over {text(limit[0])} has the limits {text(limit)}; write (i, first, last)"
            )
        index, lower, _ = limit
        if index.is_positive and lower.is_nonpositive:
            raise DeclarationError(
                f"index {text(index)} is declared positive, but its sum starts at {text(lower)}; "
                f'write sp.Symbol("{printable(str(index))}", integer=True)'
            )
    return [tuple(limit) for limit in reversed(node.limits)]


def _limit(limit: Any, index: Any, ranges: Mapping[Any, Range], context: Context) -> Affine:
    form = affine(limit)
    if form is None:
        raise DeclarationError(
            f"the sum over index {text(index)} has the limit {excerpt(limit)}; "
            "limits are sums of extents, outer indices and integers, such as n - 2 or i - 1"
        )
    for atom in form:
        if atom in ranges:
            continue
        if isinstance(atom, sp.Indexed):
            raise UnsupportedError(
                f"the limit {text(limit)} of index {text(index)} depends on the entry {text(atom)}; limits are sums of "
                "extents, outer indices and integers: list the pairs in index data, and sum over the list"
            )
        if isinstance(atom, sp.Idx):
            raise DeclarationError(
                f"the limit {text(limit)} of index {text(index)} depends on index {text(atom)}, which is not bound "
                f"around it; the innermost index comes first: write sp.Sum(..., ({text(index)}, ...), "
                f"({text(atom)}, ...))"
            )
        if atom in context.of:
            raise DeclarationError(
                f"the limit {text(limit)} of index {text(index)} depends on {context.of[atom]} {text(atom)}; "
                "limits come from extents, the axes of arrays"
            )
        if atom is not sp.S.One:
            check_known_extent(atom, context.roles.extents, f"the range of index {text(index)}")
    return form


def index_range(index: Any, context: Context, outer: Mapping[Any, Range] | None = None) -> Range:
    """The range that an Idx carries itself, within the ranges of outer indices."""
    if index.lower is None or index.upper is None:
        raise DeclarationError(_no_extent(index))
    ranges = outer or {}
    return Range(_limit(index.lower, index, ranges, context), _limit(index.upper, index, ranges, context))


def _no_extent(index: Any) -> str:
    name = text(index)
    return f'index {name} has no extent; write sp.Idx("{name}", n) with an integer symbol n'


def _check_read(node: Any, scope: Scope, context: Context) -> Work:
    base = node.base
    if base not in context.of:
        raise DeclarationError(_no_role(base, context))
    _check_allowed(base, context)
    shape = context.shapes[base]
    if len(node.indices) != len(shape):
        axes = "1 axis" if len(shape) == 1 else f"{len(shape)} axes"
        indices = "1 index" if len(node.indices) == 1 else f"{len(node.indices)} indices"
        raise DeclarationError(f"{text(base)} has {axes} {shape_text(shape)} but is read with {indices} {text(node)}")
    gathers = []
    for axis, subscript in enumerate(node.indices):
        form = _subscript(node, subscript, scope, context)
        gathers += [(atom, scope) for atom in form if isinstance(atom, sp.Indexed)]
        check_axis(node, axis, form, shape[axis], scope.ranges)
    return gathers


def _check_gather(node: Any, subscript: Any, context: Context) -> None:
    base = subscript.base
    name, role = text(base), context.of.get(base)
    if role != "data" or not base.label.is_integer:
        what = f"it is {role}" if role not in (None, "data") else "it is not declared so"
        raise DeclarationError(
            f"{name} in {text(node)} must be integer data ({what}); declare "
            f'sp.IndexedBase("{name}", shape={shape_text(base.shape or (sp.Symbol("m"),))}, integer=True) in data='
        )


def _subscript(node: Any, subscript: Any, scope: Scope, context: Context) -> Affine:
    form = affine(subscript)
    if form is None:
        raise DeclarationError(
            f"the subscript {excerpt(subscript)} of {excerpt(node)} is not supported; subscripts are integers, sums "
            "and integer multiples of indices, extents and entries of integer data, such as i + 1, 2*i, n - 1 or "
            "e[k, 0] + 1"
        )
    for atom in form:
        if atom is sp.S.One or atom in scope.ranges or atom in context.roles.extents:
            continue
        if isinstance(atom, sp.Indexed):
            _check_gather(node, atom, context)
            continue
        if atom in context.of:
            raise DeclarationError(
                f"the subscript {text(subscript)} of {text(node)} depends on {context.of[atom]} {text(atom)}; "
                "subscripts may use indices, extents and integers, or entries of integer data"
            )
        raise DeclarationError(_unbound(text(node), atom, scope))
    return form


def _unbound(place: str, atom: Any, scope: Scope) -> str:
    if any(str(atom) == str(bound) for bound in scope.ranges):
        return (
            f"index {text(atom)} of {place} is not the {text(atom)} of the sum around it, although both have one name; "
            "create it once and reuse it"
        )
    if isinstance(atom, sp.Idx) and (atom.lower is None or atom.upper is None):
        return _no_extent(atom)
    return (
        f"index {text(atom)} of {place} is not bound by a Sum; "
        f"wrap the term in sp.Sum(..., {text(atom)}) or name it with where={{u[{text(atom)}]: ...}}; "
        f"over=[{text(atom)}] makes one minimisation for each value"
    )


def _check_index(node: Any, scope: Scope, context: Context) -> Work:
    if node not in scope.ranges:
        raise DeclarationError(_unbound(context.place, node, scope))
    return []


def _check_symbol(node: Any, scope: Scope, context: Context) -> Work:
    if node in scope.ranges or node in context.roles.extents:
        return []
    if node not in context.of:
        raise DeclarationError(_no_role(node, context))
    _check_allowed(node, context)
    return []


def _no_role(symbol: Any, context: Context) -> str:
    kind = "array" if isinstance(symbol, sp.IndexedBase) else "symbol"
    return (
        f"{kind} {text(symbol)} has no role in {context.place}; add it to variables=, weights= or data= "
        f"(known: {context.roles.names})"
    )


def _check_allowed(symbol: Any, context: Context) -> None:
    role = context.of[symbol]
    if role not in context.allowed:
        raise DeclarationError(
            f"{context.place} reads {role} {text(symbol)}; it may use {' and '.join(sorted(context.allowed))} only"
        )


def _check_bare_array(node: Any, scope: Scope, context: Context) -> Work:
    raise DeclarationError(
        f"array {text(node)} stands without subscripts in {context.place}; "
        f"read its entries, such as {text(node)}[i], in a sp.Sum"
    )


# --- numbers, and what is no formula ---------------------------------------------------------------------------------


def _check_number(node: Any, scope: Scope, context: Context) -> Work:
    if node in (sp.nan, sp.zoo, sp.oo, -sp.oo):
        reason = "0/0 or oo - oo at declaration" if node is sp.nan else "a division by 0, or sp.oo, at declaration"
        raise DeclarationError(
            f"{context.place} contains {node}, from {reason}; an energy is finite where it is defined"
        )
    if node.is_Rational or node.is_Float:
        _check_fits(node, context)
    return []


def _check_fits(node: Any, context: Context) -> None:
    try:
        value = int(node.p) / int(node.q) if node.is_Rational else float(node)
    except OverflowError:
        value = math.inf
    if math.isinf(value) or (value == 0.0 and node != 0):
        digits = str(sp.Float(node, 3))
        raise DeclarationError(f"the constant {digits} in {context.place} does not fit float64; rescale the term")


def _check_imaginary(node: Any, scope: Scope, context: Context) -> Work:
    raise DeclarationError(
        f"{context.place} is not real (contains I); declare symbols real=True, or minimise re(...)**2 + im(...)**2"
    )


def _check_not_evaluated(node: Any, scope: Scope, context: Context) -> Work:
    raise UnsupportedError(f"{excerpt(node)} is not evaluated; call .doit() or declare it as its own symbol")


def _check_matrix(node: Any, scope: Scope, context: Context) -> Work:
    raise UnsupportedError(
        f"{excerpt(node)} is a matrix expression; "
        'write it with arrays, A = sp.IndexedBase("A", shape=(n, m)), and sp.Sum'
    )


def _check_constant(node: Any, scope: Scope, context: Context) -> Work:
    """A function or power of numbers alone: `acos(2)` and `(-2)**(1/3)` are complex, `exp(1000)` is too large."""
    if node.is_number and not node.has(sp.Sum, sp.Product, Extreme):
        value = node.evalf(15)
        if value.is_extended_real is False or value.has(sp.I):
            raise DeclarationError(f"{context.place} is not real: {excerpt(node)} is {value.evalf(5)}")
        if value.is_Number:
            _check_number(value, scope, context)
    return [(argument, scope) for argument in node.args]


def _check_arguments(node: Any, scope: Scope, context: Context) -> Work:
    return [(argument, scope) for argument in node.args]


CHECKS: tuple[tuple[Any, Any], ...] = (
    ((sp.Sum, sp.Product, Extreme), _check_sum),
    (sp.Indexed, _check_read),
    (sp.Idx, _check_index),
    (sp.Symbol, _check_symbol),
    (sp.IndexedBase, _check_bare_array),
    (sp.core.numbers.ImaginaryUnit, _check_imaginary),
    ((sp.Number, sp.core.numbers.ComplexInfinity), _check_number),
    (NOT_EVALUATED, _check_not_evaluated),
    ((sp.MatrixBase, sp.MatrixExpr, sp.NDimArray, sp.matrices.expressions.matexpr.MatrixElement), _check_matrix),
    ((sp.Pow, sp.Function), _check_constant),
    (sp.Basic, _check_arguments),
)
