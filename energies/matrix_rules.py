"""One rule for each kind of matrix, and for each kind of scalar that is made from matrices; see matrices.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy.matrices.expressions.applyfunc import ElementwiseApplyFunction
from sympy.matrices.expressions.matexpr import MatrixElement

from .display import excerpt, shape_text, text
from .errors import DeclarationError, UnsupportedError
from .matrix_views import (
    View,
    check_product,
    check_same_shape,
    determinant,
    either,
    factors_and_matrices,
    minor,
    shape_of,
    small_square,
)

if TYPE_CHECKING:
    from .matrices import Translation

LARGEST_EXPLICIT = 144  # entries of an sp.Matrix; larger ones are data
LONGEST_NAME = 60  # characters of the name of an intermediate

# ---------------------------------------------------------------------------------------------- rules for scalars


def _element(self: Translation, node: Any) -> Any:
    parent, row, column = node.args
    parent = parent if isinstance(parent, sp.MatrixExpr) else sp.sympify(parent)
    found = self.view(parent) if isinstance(parent, sp.MatrixSymbol) else self.named(parent)
    for axis, subscript in enumerate((row, column)):
        if found.by_number[axis] and not subscript.is_Integer:
            raise NumberNeededError(
                f"{excerpt(node)} reads entries that are written out at {text(subscript)}; "
                "use a number there, or a sp.Sum whose limits are numbers",
                subscript,
            )
        if found.by_number[axis] and not 0 <= subscript < found.shape[axis]:
            raise DeclarationError(f"{excerpt(node)} leaves the matrix, whose shape is {shape_text(found.shape)}")
    return found.entry(row, column)


class NumberNeededError(DeclarationError):
    """A subscript has to be a number; a sum over it catches this and writes itself out."""

    def __init__(self, message: str, subscript: Any = None) -> None:
        super().__init__(message)
        self.subscript = subscript


def _sum(self: Translation, node: Any) -> Any:
    """A sum; written out over an index that reads an explicit matrix."""
    try:
        body = self.scalar(node.function)
    except NumberNeededError as needed:
        here = [limit for limit in node.limits if limit[0] == needed.subscript]
        if not here or len(here[0]) != 3 or not (here[0][1].is_Integer and here[0][2].is_Integer):
            raise
        values = map(sp.Integer, range(int(here[0][1]), int(here[0][2]) + 1))
        terms = [node.function.xreplace({needed.subscript: k}) for k in values]
        others = [limit for limit in node.limits if limit[0] != needed.subscript]
        return sp.Add(*(self.scalar(sp.Sum(term, *others) if others else term) for term in terms))
    return node if body is node.function else sp.Sum(body, *node.limits)


def _dot(self: Translation, node: Any) -> Any:
    first, second = (self.view(a) if a.shape[1] == 1 else self.view(a).transposed for a in node.args)
    return self.multiply(first.transposed, second).entry(0, 0)


SCALARS: dict[Any, Callable[[Translation, Any], Any]] = {
    MatrixElement: _element,
    sp.Sum: _sum,
    sp.Trace: lambda self, node: self.trace(node.arg),
    sp.Determinant: lambda self, node: self.determinant(node.arg),
    sp.DotProduct: _dot,
}
UNTOUCHED = (sp.Indexed, sp.IndexedBase, sp.Idx, sp.Derivative, sp.Integral, sp.Limit, sp.Subs, sp.Order, sp.Lambda)


# ---------------------------------------------------------------------------------------------- rules for matrices


def _explicit(self: Translation, node: Any) -> View:
    if node.rows * node.cols > LARGEST_EXPLICIT:
        raise UnsupportedError(
            f"a matrix of {node.rows} x {node.cols} explicit entries would be written out; declare "
            'sp.MatrixSymbol("A", n, m) in data= and give the numbers with the call'
        )
    entries = [[self.scalar(a) for a in row] for row in node.tolist()]
    plain = all(a.is_Atom or isinstance(a, sp.Indexed) for row in entries for a in row)
    return View(shape_of(node), lambda i, j: entries[int(i)][int(j)], (True, True), plain)


def _add(self: Translation, node: Any) -> View:
    terms = [(a, self.view(a)) for a in node.args]
    for argument, found in terms[1:]:
        check_same_shape(terms[0][0], terms[0][1].shape, argument, found.shape)
    views = [found for _, found in terms]
    by_number = either(*(v.by_number for v in views))

    def total(parts: Sequence[View]) -> View | None:
        if not parts:
            return None
        return View(shape_of(node), lambda i, j: sp.Add(*(v.entry(i, j) for v in parts)), by_number)

    diagonals = [v.diagonal for v in views if v.diagonal is not None]
    whole = total(views)
    assert whole is not None
    if not diagonals:
        return whole
    others = [v if v.diagonal is None else v.rest for v in views]
    rest = total([v for v in others if v is not None])
    return View(shape_of(node), whole.entry, by_number, False, lambda k: sp.Add(*(d(k) for d in diagonals)), rest)


def _mul(self: Translation, node: Any) -> View:
    factors, matrices = factors_and_matrices(node)
    check_product(matrices)
    found = self.product(matrices)
    return _scaled(sp.Mul(*(self.scalar(a) for a in factors)), found) if factors else found


def _scaled(factor: Any, found: View) -> View:
    diagonal = found.diagonal
    return View(
        found.shape,
        lambda i, j: factor * found.entry(i, j),
        found.by_number,
        found.plain and factor.is_Number,
        None if diagonal is None else lambda k: factor * diagonal(k),
        found.rest and _scaled(factor, found.rest),
    )


def _power(self: Translation, node: Any) -> View:
    base, exponent = node.args
    if shape_of(base) == (1, 1):
        power = self.scalar(exponent)
        return View(shape_of(node), lambda i, j: self.view(base).entry(0, 0) ** power)
    if not exponent.is_Integer:
        raise UnsupportedError(
            f"{excerpt(node)} has the exponent {text(exponent)}; powers of matrices have integer exponents "
            "(HadamardPower is the power of each entry)"
        )
    if exponent < 0:
        return self.product([sp.Inverse(base)] * int(-exponent))
    return self.product([base] * int(exponent))


def _inverse(self: Translation, node: Any) -> View:
    found = self.view(node.arg)
    if found.diagonal is not None and found.rest is None:
        own = found.diagonal
        return _diagonal(shape_of(node), lambda k: 1 / own(k))
    size = small_square(node.arg)
    source = self.named(node.arg)
    divisor = self.named_scalar(determinant(source, size), f"det({text(node.arg)})"[:LONGEST_NAME])

    def entry(row: Any, column: Any) -> Any:
        if size == 1:
            return 1 / source.entry(0, 0)
        return (-1) ** int(row + column) * minor(source, size, int(column), int(row)) / divisor

    return View(shape_of(node), entry, (True, True))


def _diagonal(shape: tuple[Any, Any], diagonal: Callable[[Any], Any]) -> View:
    def entry(row: Any, column: Any) -> Any:
        return diagonal(row) * sp.KroneckerDelta(row, column)  # a Piecewise would be folded out of sums by SymPy

    return View(shape, entry, diagonal=diagonal)


def _diagonal_of_vector(self: Translation, node: Any) -> View:
    vector = node.args[0]
    found = self.named(vector)
    is_column = shape_of(vector)[1] == 1
    return _diagonal(shape_of(node), lambda k: found.entry(k, sp.S.Zero) if is_column else found.entry(sp.S.Zero, k))


def _diagonal_matrix(self: Translation, node: Any) -> View:
    found = self.view(node.arg)
    return _diagonal(shape_of(node), lambda k: found.entry(k, k))


def _diagonal_of(self: Translation, node: Any) -> View:
    found = self.view(node.arg)
    return View(shape_of(node), lambda i, j: found.entry(i, i), (any(found.by_number), False))


def _hadamard(self: Translation, node: Any) -> View:
    matrices = list(node.args)
    views = [self.view(a) for a in matrices]
    for argument, found in zip(matrices[1:], views[1:], strict=True):
        check_same_shape(matrices[0], views[0].shape, argument, found.shape)
    by_number = either(*(v.by_number for v in views))
    return View(shape_of(node), lambda i, j: sp.Mul(*(v.entry(i, j) for v in views)), by_number)


def _hadamard_power(self: Translation, node: Any) -> View:
    sides = [
        self.view(a) if isinstance(a, sp.MatrixExpr | sp.MatrixBase) else _constant(shape_of(node), self.scalar(a))
        for a in node.args
    ]
    base, exponent = sides
    check_same_shape(node.args[0], base.shape, node.args[1], exponent.shape)
    by_number = either(base.by_number, exponent.by_number)
    return View(shape_of(node), lambda i, j: base.entry(i, j) ** exponent.entry(i, j), by_number)


def _apply(self: Translation, node: Any) -> View:
    found = self.named(node.expr)
    return View(shape_of(node), lambda i, j: self.scalar(node.function(found.entry(i, j))), found.by_number)


def _function_matrix(self: Translation, node: Any) -> View:
    return View(shape_of(node), lambda i, j: self.scalar(node.lamda(i, j)))


def _constant(shape: tuple[Any, Any], value: Any) -> View:
    return View(shape, lambda i, j: value, plain=True)


RULES: dict[Any, Callable[[Translation, Any], View]] = {
    sp.MatrixSymbol: lambda self, node: self.symbol(node),
    sp.MatrixBase: _explicit,
    sp.MatAdd: _add,
    sp.MatMul: _mul,
    sp.Inverse: _inverse,  # before MatPow, of which it is one
    sp.MatPow: _power,
    sp.Transpose: lambda self, node: self.view(node.arg).transposed,
    sp.Adjoint: lambda self, node: self.view(node.arg).transposed,
    sp.HadamardProduct: _hadamard,
    sp.HadamardPower: _hadamard_power,
    ElementwiseApplyFunction: _apply,
    sp.Identity: lambda self, node: _diagonal(shape_of(node), lambda k: sp.S.One),
    sp.ZeroMatrix: lambda self, node: _constant(shape_of(node), sp.S.Zero),
    sp.OneMatrix: lambda self, node: _constant(shape_of(node), sp.S.One),
    sp.DiagMatrix: _diagonal_of_vector,
    sp.DiagonalMatrix: _diagonal_matrix,
    sp.DiagonalOf: _diagonal_of,
    sp.FunctionMatrix: _function_matrix,
}


def unsupported(node: Any) -> str:
    return (
        f"{excerpt(node)} is a {type(node).__name__}, which has no kernel; matrices may be: "
        f"{', '.join(dict.fromkeys(kind.__name__ for kind in RULES))}; for anything else use entries, such as A[i, j]"
    )


def entrywise(node: Any) -> str:
    return (
        f"{excerpt(node)} of shape {shape_text(shape_of(node))} stands where a number is needed; for a function of "
        "each entry write A.applyfunc(sp.exp), for a sum of all entries sp.Sum(A[i, j], i, j), for that of their "
        "squares sp.Trace(A.T*A)"
    )
