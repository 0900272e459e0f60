"""How entries of a matrix are read, and in which order several matrices are multiplied."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sympy as sp

from .affine import affine
from .display import excerpt, shape_text, text
from .errors import DeclarationError, UnsupportedError
from .traversal import distinct_nodes

WRITTEN_OUT = 3  # literal extents up to this are written out, as in the compiler: coordinates, not data
USUAL_EXTENT = 100  # what a symbolic extent counts for where orders of multiplication are compared


@dataclass(frozen=True)
class View:
    """A matrix as its entries.

    entry(row, column)   a scalar; rows and columns are numbers or indices
    by_number            for each axis, whether only numbers can stand there
    plain                whether an entry is no more than a number or a read
    diagonal, rest       where given, the matrix is diag(diagonal(k)) + rest, and products keep them apart
    """

    shape: tuple[Any, Any]
    entry: Callable[[Any, Any], Any]
    by_number: tuple[bool, bool] = (False, False)
    plain: bool = False
    diagonal: Callable[[Any], Any] | None = None
    rest: View | None = None

    @property
    def transposed(self) -> View:
        return View(
            self.shape[::-1],
            lambda row, column: self.entry(column, row),
            self.by_number[::-1],
            self.plain,
            self.diagonal,
            self.rest and self.rest.transposed,
        )

    def numbers(self, axis: int) -> bool:
        """Whether the axis is written out."""
        extent = self.shape[axis]
        return bool(self.by_number[axis] or (extent.is_Integer and extent <= WRITTEN_OUT))


def shape_of(node: Any) -> tuple[Any, Any]:
    rows, columns = node.shape
    return sp.sympify(rows), sp.sympify(columns)


def either(*axes: tuple[bool, bool]) -> tuple[bool, bool]:
    """For each of the two axes, whether any of the pairs says so."""
    return any(pair[0] for pair in axes), any(pair[1] for pair in axes)


def transposes(node: Any) -> int:
    return sum(isinstance(part, sp.Transpose) for part in distinct_nodes([node]))


def numbers(extent: Any) -> list[Any]:
    return [sp.Integer(k) for k in range(int(extent))]


# ---------------------------------------------------------------------------------------------- orders of products


def _size(extent: Any) -> int:
    return int(extent) if extent.is_Integer else USUAL_EXTENT


def cheapest_split(nodes: Sequence[Any], last: int = 0) -> int:
    """Where to split a product, so that its parts and their product take the fewest multiplications.

    With `last`, the product is cut into two parts, [0, k) and [k, last), whose trace is taken. Where the two parts are
    each other's transpose, as in r.T*W.T * W*r, one of them costs nothing.
    """
    sizes = [_size(shape_of(nodes[0])[0]), *(_size(shape_of(node)[1]) for node in nodes)]
    costs: dict[tuple[int, int], tuple[int, int]] = {}

    def parts(first: int, middle: int, stop: int) -> int:
        mirrored = [node.T for node in reversed(nodes[first:middle])] == list(nodes[middle:stop])
        return cost(first, middle)[0] + (0 if mirrored else cost(middle, stop)[0])

    def cost(first: int, stop: int) -> tuple[int, int]:
        if stop - first == 1:
            return 0, first
        if (first, stop) not in costs:
            costs[first, stop] = min(
                (parts(first, k, stop) + sizes[first] * sizes[k] * sizes[stop], k) for k in range(first + 1, stop)
            )
        return costs[first, stop]

    if not last:
        return cost(0, len(nodes))[1]
    return min((parts(0, k, last) + sizes[0] * sizes[k], k) for k in range(1, last))[1]


def factors_and_matrices(node: Any) -> tuple[list[Any], list[Any]]:
    """The scalar factors of a MatMul, and its matrices."""
    factors = [a for a in node.args if not isinstance(a, sp.MatrixExpr | sp.MatrixBase)]
    matrices = [a for a in node.args if isinstance(a, sp.MatrixExpr | sp.MatrixBase)]
    return factors, [part for a in matrices for part in _repeated(a)]


def _repeated(node: Any) -> list[Any]:
    """[B, B, B] for B**3."""
    is_power = isinstance(node, sp.MatPow) and not isinstance(node, sp.Inverse) and shape_of(node) != (1, 1)
    if not (is_power and node.exp.is_Integer and node.exp > 0):
        return [node]
    return [node.base] * int(node.exp)


# ---------------------------------------------------------------------------------------------- checks


def same_extent(a: Any, b: Any) -> bool:
    return a == b or affine(a - b) == {}


def check_product(matrices: Sequence[Any]) -> None:
    for left, right in itertools.pairwise(matrices):
        if not same_extent(shape_of(left)[1], shape_of(right)[0]):
            raise DeclarationError(
                f"{excerpt(left)} {shape_text(shape_of(left))} times {excerpt(right)} {shape_text(shape_of(right))}: "
                f"{text(shape_of(left)[1])} columns meet {text(shape_of(right)[0])} rows; "
                "use the same extent if they are equal"
            )


def check_same_shape(first: Any, shape: Sequence[Any], second: Any, other: Sequence[Any]) -> None:
    if not all(map(same_extent, shape, other)):
        raise DeclarationError(
            f"{excerpt(first)} has the shape {shape_text(shape)} and {excerpt(second)} "
            f"{shape_text(other)}; they must be equal: use the same extents"
        )


def small_square(node: Any) -> int:
    rows, columns = shape_of(node)
    if not same_extent(rows, columns):
        raise DeclarationError(f"{excerpt(node)} has the shape {shape_text(shape_of(node))}; it has to be square")
    if not (rows.is_Integer and rows <= WRITTEN_OUT):
        raise UnsupportedError(
            f"{excerpt(node)} has the shape {shape_text(shape_of(node))}; inverses and determinants are written out "
            f"up to {WRITTEN_OUT} x {WRITTEN_OUT}: give the inverse or a factor of it as data or "
            "weights"
        )
    return int(rows)


# ---------------------------------------------------------------------------------------------- small matrices


def minor(found: View, size: int, row: int, column: int) -> Any:
    rows, columns = ([k for k in range(size) if k != skipped] for skipped in (row, column))
    if size == 2:
        return found.entry(sp.Integer(rows[0]), sp.Integer(columns[0]))
    at = [[found.entry(sp.Integer(i), sp.Integer(j)) for j in columns] for i in rows]
    return at[0][0] * at[1][1] - at[0][1] * at[1][0]


def determinant(found: View, size: int) -> Any:
    if size == 1:
        return found.entry(sp.S.Zero, sp.S.Zero)
    terms = ((-1) ** k * found.entry(sp.S.Zero, sp.Integer(k)) * minor(found, size, 0, k) for k in range(size))
    return sp.Add(*terms)
