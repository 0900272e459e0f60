"""What the compiler needs to know of an energy to read its arrays: names, axes, and reads that need a check.

Nothing of SymPy is in it, so that it can be stored (stored.py) and a warm start needs no lowering.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..program.expression import Affine
from ..program.program import Range

COUNT = "count"
"""The extent that counts candidates."""

COMMON = "common "
"""How the kinds are called that compute what the members of a family have in common: `common value`."""

KIND_NAMES = (
    "value", "gradient", "hessian", "value_gradient", "value_gradient_hessian", "cross", "hvp", "cross_adjoint",
    "data_adjoint", "many_values", "sparse_hessian", "value_gradient_sparse_hessian", "sparse_cross", "sparse_hvp",
    "candidates", "weight_gradient", "gradients", "value_gradient_reweighted", "reweighting_adjoint",
    "value_gradient_sparse_reweighted", "sparse_reweighted_product", "value_gradient_first", "hessian_first",
    "first_adjoint",
)  # fmt: skip
"""All kinds of kernels."""

CHOSEN = "chosen"

FAMILY_ROWS = (CHOSEN, *KIND_NAMES)
"""What stands in the table of a family behind the inputs: which rows are meant where it is not all of them (an address
of their numbers, or 0), and for each kind of kernel what its members have in common."""

ADJOINTS = frozenset({"cross_adjoint", "data_adjoint", "reweighting_adjoint", "first_adjoint"})
"""Kinds of kernels that add to their output."""


@dataclass(frozen=True)
class Symbol:
    """A declared variable, weight or data array: the user's name, its axes over generated extents, and its kind."""

    name: str
    axes: tuple[Affine, ...]
    shape_text: str
    integer: bool = False
    positive: bool = False


@dataclass(frozen=True)
class Access:
    """A read that could leave its array: each subscript must stay in 0 .. extent - 1 over its loops."""

    array: str
    text: str
    subscripts: tuple[Affine, ...]
    extents: tuple[Affine, ...]
    loops: tuple[tuple[str, Range], ...]


@dataclass(frozen=True)
class Extremum:
    """An extreme over an index: within the other loops, the range of the last one must not be empty."""

    text: str
    loops: tuple[tuple[str, Range], ...]


@dataclass(frozen=True)
class Declaration:
    """What binding needs to know of an energy; nothing of SymPy, so that it can be stored."""

    name: str
    variables: tuple[Symbol, ...]
    weights: tuple[Symbol, ...]
    data: tuple[Symbol, ...]
    extents: tuple[str, ...]
    extent_names: tuple[str, ...]
    accesses: tuple[Access, ...]
    gathered: frozenset[str] = frozenset()
    extrema: tuple[Extremum, ...] = ()
    quadratic: bool = False
    family: tuple[tuple[str, Range], ...] = ()
    family_names: tuple[str, ...] = ()
