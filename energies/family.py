"""Families: `over=[m, i]`, one minimisation for every value of free indices of the formula.

The indices are known numbers in the formula, as extents are, and variables are declared without their axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sympy as sp

from .affine import Range, affine
from .checks import Context, index_range
from .display import excerpt, printable, shape_text, text
from .errors import DeclarationError, InputTypeError
from .extrema import Extreme
from .lets import let_indices, let_symbol
from .roles import Roles
from .traversal import distinct_nodes


def read_family(over: Any, roles: Roles) -> tuple[Any, ...]:
    """The indices of `over=`: distinct sp.Idx that run from 0 to ends known from extents."""
    if over is None:
        return ()
    if isinstance(over, sp.Idx | sp.Symbol):
        raise InputTypeError(f"over= must be a list of sp.Idx; got {text(over)} alone; write over=[{text(over)}]")
    if isinstance(over, str | set | frozenset | Mapping) or not isinstance(over, Iterable):
        raise InputTypeError(
            f"over= must be a list of sp.Idx, in the order of the axes; got {over!r} of type {type(over).__name__}"
        )
    indices = tuple(over)
    for index in indices:
        if not isinstance(index, sp.Idx):
            raise InputTypeError(
                f'over= must be a list of sp.Idx; got {index!r} of type {type(index).__name__}; write sp.Idx("m", n)'
            )
        if sum(str(index) == str(other) for other in indices) > 1:
            raise DeclarationError(f"over= has index {text(index)} twice; list it once")
    family_ranges(indices, Context(roles, roles.of, roles.shapes))
    return indices


def family_ranges(indices: Iterable[Any], context: Context) -> dict[Any, Range]:
    """The range of each index of a family."""
    ranges = {}
    for index in indices:
        for end in (index.lower, index.upper):
            others = [atom for atom in affine(end) or () if isinstance(atom, sp.Idx)] if end is not None else []
            if others:
                raise DeclarationError(
                    f"the range of index {text(index)} in over= depends on index {text(others[0])}; every index of a "
                    "family has a range of its own: let it run further, and leave out what is not wanted"
                )
        ranges[index] = index_range(index, context)
        if index.lower != 0:
            raise DeclarationError(
                f"index {text(index)} in over= runs over {text(index.lower)}..{text(index.upper)}; the indices of a "
                f'family start at 0: write sp.Idx("{printable(str(index))}", n), and {text(index)} + '
                f"{text(index.lower)} where it is read"
            )
    return ranges


def family_shape(indices: Iterable[Any]) -> tuple[Any, ...]:
    """The extents of the axes that a family adds."""
    return tuple(index.upper + 1 for index in indices)


def free_family(ranges: Mapping[Any, Range], key: Any) -> dict[Any, Range]:
    """The indices of a family that are free in the definition of an intermediate: u[m, j] has an m of its own."""
    own = {str(index) for index in let_indices(key)}
    return {index: values for index, values in ranges.items() if str(index) not in own}


def check_not_bound(indices: Iterable[Any], formulas: Iterable[Any]) -> None:
    """Refuse a sum over an index of the family."""
    names = {str(index) for index in indices}
    for node in distinct_nodes(formulas) if names else ():
        if isinstance(node, sp.Sum | sp.Product | Extreme):
            for limit in node.limits:
                if str(limit[0]) in names:
                    raise DeclarationError(
                        f"index {text(limit[0])} is bound in {excerpt(node)} and is one of over=, whose indices are "
                        "free: there is one minimisation for each of their values; give the sum an index of another "
                        "name, or leave the index out of over="
                    )


def check_family(
    indices: tuple[Any, ...], formula: Any, lets: Mapping[Any, Any], reached: set[Any], roles: Roles
) -> None:
    """Refuse an index that nothing depends on, and variables that are declared with the axes of the family.

    `reached` holds the intermediates that the formula needs.
    """
    if not indices:
        return
    definitions = [(key, value) for key, value in lets.items() if let_symbol(key) in reached]
    free = _indices(formula).union(*(_indices(value) - set(let_indices(key)) for key, value in definitions))
    for index in indices:
        if index not in free:
            raise DeclarationError(
                f"index {text(index)} of over= does not appear free in the expression, so that all of its "
                "minimisations would be the same; use it, for example to read a weight or datum, or remove it"
            )
    for variable in roles.variables:
        reads = [(node.indices, set(indices)) for node in _reads(variable, formula)]
        for key, value in definitions:
            inner = set(indices) - set(let_indices(key))
            reads += [(node.indices, inner) for node in _reads(variable, value)]
        for axis in range(len(roles.shapes[variable])):
            if reads and all(subscripts[axis] in family for subscripts, family in reads):
                index = reads[0][0][axis]
                shape = roles.shapes[variable]
                rest = shape_text([*shape[:axis], *shape[axis + 1 :]])
                raise DeclarationError(
                    f"variable {text(variable)} {shape_text(shape)} is read at index {text(index)} of over= on axis "
                    f"{axis}, and nowhere else; variables are declared without the axes of a family, which their "
                    f"values carry in front: declare it with shape {rest}, and read it without {text(index)}"
                )


def _indices(formula: Any) -> set[Any]:
    """Every index in a formula; `free_symbols` would take a time exponential in the depth of shared parts."""
    return {node for node in distinct_nodes([formula]) if isinstance(node, sp.Idx)}


def _reads(variable: Any, formula: Any) -> list[Any]:
    return [node for node in distinct_nodes([formula]) if isinstance(node, sp.Indexed) and node.base == variable]
