"""Candidates: where a minimisation may start, as formulas in weights, data and one free index that counts them.

They may use intermediates of `where=` that read no variable, directly or through others.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import sympy as sp

from .checks import Context, check_formula, index_range
from .display import excerpt, printable, shape_text, text
from .errors import DeclarationError, InputTypeError
from .family import family_ranges
from .lets import let_shapes, reachable
from .roles import Roles


def check_candidates(
    candidates: Mapping[Any, Any],
    roles: Roles,
    lets: Mapping[Any, Any],
    reads: Mapping[Any, set[Any]],
    over: Sequence[Any] = (),
) -> Any:
    """Check the declared candidates; the index that counts them, None where there is one candidate or none at all.

    `lets` are the checked intermediates in order, `reads` what each definition reads. The formulas may use the indices
    of a family, `over`.
    """
    if not candidates:
        return None
    _check_own_indices(candidates, over)
    _check_keys(candidates, roles)
    for variable in roles.variables:
        _check_coverage(variable, [key for key in candidates if _variable(key) == variable], roles.shapes[variable])
    index = _shared_index(candidates, over)
    fixed, of_variables = "intermediate", "an intermediate of variables,"
    moving = {u for u in reads if not reachable({u}, reads).isdisjoint(roles.variables)}
    context = Context(
        roles,
        {**roles.of, **{u: of_variables if u in moving else fixed for u in reads}},
        {**roles.shapes, **let_shapes(list(lets), roles)},
        frozenset({"weight", "data", fixed}),
        place="the formula of a candidate in candidates=",
    )
    counting = {} if index is None else {index: index_range(index, context)}
    for key, formula in candidates.items():
        axes = {i: index_range(i, context) for i in _axis_indices(key)}
        check_formula(formula, context, {**family_ranges(over, context), **axes, **counting})
    return index


def _check_own_indices(candidates: Mapping[Any, Any], over: Sequence[Any]) -> None:
    """The entries of a variable are not counted by an index of the family."""
    for key in candidates:
        for index in _axis_indices(key) if isinstance(key, sp.Indexed) else ():
            if any(str(index) == str(other) for other in over):
                raise DeclarationError(
                    f"candidates= has {text(key)}, and {text(index)} is an index of over=; variables have no axes of "
                    "the family: use another index for their own axes"
                )


def _variable(key: Any) -> Any:
    return key.base if isinstance(key, sp.Indexed) else key


def _subscripts(key: Any) -> tuple[Any, ...]:
    return tuple(key.indices) if isinstance(key, sp.Indexed) else ()


def _axis_indices(key: Any) -> list[Any]:
    return [subscript for subscript in _subscripts(key) if isinstance(subscript, sp.Idx)]


def _check_keys(candidates: Mapping[Any, Any], roles: Roles) -> None:
    names = ", ".join(printable(str(variable)) for variable in roles.variables)
    for key in candidates:
        if not isinstance(key, sp.Symbol | sp.Indexed):
            hint = f"; write its entries, {key}[0] or {key}[d]" if isinstance(key, sp.IndexedBase) else ""
            raise InputTypeError(
                f"keys of candidates= are variables or their entries ({names}); "
                f"got {key!r} of type {type(key).__name__}{hint}"
            )
        if _variable(key) not in roles.variables:
            role = roles.of.get(_variable(key))
            what = f"which is {role}" if role else "which has no role"
            raise DeclarationError(f"candidates= has {text(key)}, {what}; keys are variables or their entries: {names}")
        if not all(isinstance(s, sp.Idx) or (s.is_Integer and s >= 0) for s in _subscripts(key)):
            raise DeclarationError(
                f"candidates= has {text(key)}; its subscripts are numbers from 0, or sp.Idx over a whole axis"
            )


def _check_coverage(variable: Any, keys: Sequence[Any], shape: Sequence[Any]) -> None:
    """Each entry of the variable is given once: by constants on axes of known length, by an Idx on whole axes."""
    name = printable(str(variable))
    if not keys:
        raise DeclarationError(
            f"candidates= leaves out variable {name} {shape_text(shape)}; give all entries of all variables"
        )
    first = keys[0]
    if any(len(_subscripts(key)) != len(shape) for key in keys):
        raise DeclarationError(f"variable {name} has the shape {shape_text(shape)}; candidates= has {text(first)}")
    for axis, extent in enumerate(shape):
        indices = {_subscripts(key)[axis] for key in keys if isinstance(_subscripts(key)[axis], sp.Idx)}
        if indices and (len(indices) > 1 or any(not isinstance(_subscripts(key)[axis], sp.Idx) for key in keys)):
            raise DeclarationError(
                f"candidates= gives axis {axis} of {name} in more than one way; use one sp.Idx, or numbers"
            )
        for index in indices:
            if index.lower != 0 or index.upper != extent - 1:
                raise DeclarationError(
                    f"candidates= has {text(first)}, where {text(index)} must run over the whole axis {axis} of "
                    f'{name}, which has extent {text(extent)}; write sp.Idx("{text(index)}", {text(extent)})'
                )
    if len(set(_axis_indices(first))) < len(_axis_indices(first)):
        raise DeclarationError(f"candidates= has {text(first)}; the indices of an entry are distinct")
    _check_constants(variable, keys, shape)


def _check_constants(variable: Any, keys: Sequence[Any], shape: Sequence[Any]) -> None:
    name = printable(str(variable))
    constant_axes = [axis for axis, s in enumerate(_subscripts(keys[0])) if not isinstance(s, sp.Idx)]
    for axis in constant_axes:
        if not shape[axis].is_Integer:
            raise DeclarationError(
                f"candidates= gives entries of {name} by number, but axis {axis} has extent {text(shape[axis])}; "
                f'write {name}[d] with d = sp.Idx("d", {text(shape[axis])})'
            )
    given = {tuple(int(_subscripts(key)[axis]) for axis in constant_axes) for key in keys}
    wanted = set(itertools.product(*(range(int(shape[axis])) for axis in constant_axes)))
    if given != wanted:
        wrong = min(given ^ wanted)
        fault = "leaves out" if wrong in wanted else "has"
        numbers = iter(wrong)
        entry = variable[tuple(next(numbers) if a in constant_axes else s for a, s in enumerate(_subscripts(keys[0])))]
        raise DeclarationError(
            f"candidates= {fault} {text(entry)}; variable {name} has the shape {shape_text(shape)}: "
            "give each entry once"
        )


def _shared_index(candidates: Mapping[Any, Any], over: Sequence[Any]) -> Any:
    counting: dict[Any, Any] = {}
    for key, formula in candidates.items():
        for symbol in sorted(formula.free_symbols, key=str):
            if isinstance(symbol, sp.Idx) and symbol not in _axis_indices(key) and symbol not in over:
                counting.setdefault(symbol, formula)
    if len(counting) > 1:
        first, second = list(counting)[:2]
        raise DeclarationError(
            f"candidates= counts by {text(first)} in {excerpt(counting[first])} and by {text(second)} in "
            f"{excerpt(counting[second])}; all candidates share one free index"
        )
    return next(iter(counting), None)
