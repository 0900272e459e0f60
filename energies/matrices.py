"""Matrix expressions as indexed sums: `(A*y - b).T*W*(A*y - b)` becomes what one would write with `Sum` and `where=`.

    u[i]  =  Sum(A[i, j]*y[j], j) - b[i]                       an intermediate: A*y - b
    v[i]  =  Sum(W[i, j]*u[j], j)                              an intermediate: W*(A*y - b)
    E     =  Sum(u[i]*v[i], i)

Each kind of matrix has one rule in `RULES`, which gives a `View`: how an entry is read. What a product reads more than
once is named (`Translation.named`), so that it is computed once. The order of a product of several matrices is the
one with the fewest multiplications. Everything behind this file sees sums, arrays and scalars only.

An axis of length 1 is no axis of the array: a MatrixSymbol of shape (n, 1) or (1, n) is an array (n,), one of (1, 1) is
a scalar. Axes that only numbers can index (those of `sp.Matrix`), and short ones, are written out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sympy as sp
from sympy.matrices.expressions.matexpr import MatrixElement

from .display import excerpt, printable, shape_text, text
from .errors import DeclarationError, UnsupportedError
from .matrix_rules import LONGEST_NAME, RULES, SCALARS, UNTOUCHED, NumberNeededError, entrywise, unsupported
from .matrix_views import (
    View,
    cheapest_split,
    check_product,
    check_same_shape,
    determinant,
    either,
    factors_and_matrices,
    numbers,
    shape_of,
    small_square,
    transposes,
)
from .traversal import distinct_nodes

ROLES = ("variable", "weight", "data")


def array_of(symbol: Any) -> Any:
    """The array, or scalar, that a MatrixSymbol declares; anything else as it is.

    Examples
    --------
    >>> n = sp.Symbol("n", integer=True, positive=True)
    >>> array_of(sp.MatrixSymbol("A", 3, n)).shape, array_of(sp.MatrixSymbol("y", n, 1)).shape
    ((3, n), (n,))
    """
    if not isinstance(symbol, sp.MatrixSymbol):
        return symbol
    shape = tuple(extent for extent in symbol.shape if extent != 1)
    return sp.IndexedBase(symbol.name, shape=shape) if shape else sp.Symbol(symbol.name)


def has_matrices(formulas: Iterable[Any]) -> bool:
    """Whether anything in the formulas is a matrix."""
    kinds = sp.MatrixExpr | sp.MatrixBase | MatrixElement
    return any(isinstance(node, kinds) for node in distinct_nodes(_of_sympy(formulas)))


def _of_sympy(formulas: Iterable[Any]) -> list[Any]:
    return [f for f in map(frozen, formulas) if isinstance(f, sp.Basic)]  # the checks of the energy say what others are


def frozen(value: Any) -> Any:
    """A matrix that cannot be changed in place of one that can; anything else as it is."""
    return sp.ImmutableDenseMatrix(value) if isinstance(value, sp.MatrixBase) else value


def without_matrices(
    expression: Any, where: Mapping[Any, Any], candidates: Mapping[Any, Any], known: Mapping[Any, str]
) -> tuple[Any, dict[Any, Any], dict[Any, Any]]:
    """The same energy in sums: expression, intermediates with those that products need, and candidates.

    `known` maps each declared symbol to its role.

    Examples
    --------
    >>> n = sp.Symbol("n", integer=True, positive=True)
    >>> y = sp.MatrixSymbol("y", n, 1)
    >>> formula, where, _ = without_matrices(y.T * y, {}, {}, {array_of(y): "variable"})
    >>> formula
    Sum(y[r0]**2, (r0, 0, n - 1))
    """
    formulas = [expression, *where, *where.values(), *candidates, *candidates.values()]
    translation = Translation(formulas, where, known)
    try:
        formula = translation.scalar(expression, "the expression")
        for key, value in where.items():
            translation.let(key, value)
        lets = translation.lets
        translation = Translation([*formulas, *lets], where, known, keeps=False)
        starts: dict[Any, Any] = {}
        for key, value in candidates.items():
            starts |= translation.candidate(key, value)
    except NumberNeededError as error:
        raise DeclarationError(str(error)) from None
    return formula, lets, starts


class Translation:
    """The state of one translation: names in use, and the intermediates so far.

    Without `keeps` it makes no intermediates: candidates cannot read them.
    """

    def __init__(
        self, formulas: Iterable[Any], where: Mapping[Any, Any], known: Mapping[Any, str], *, keeps: bool = True
    ) -> None:
        self.known = known
        self.keeps = keeps
        self.lets: dict[Any, Any] = {}
        self.definitions = {key: value for key, value in where.items() if isinstance(key, sp.MatrixSymbol)}
        self.open: list[Any] = []
        self.taken = {str(symbol) for symbol in known}
        self.loops: dict[Any, set[Any]] = {}
        self._views: dict[Any, View] = {}
        self._named: dict[Any, View] = {}
        self._scalars: dict[Any, Any] = {}
        self._read_names(formulas, where)

    def _read_names(self, formulas: Iterable[Any], where: Mapping[Any, Any]) -> None:
        matrices: dict[str, Any] = {}
        for node in distinct_nodes(_of_sympy(formulas)):
            if isinstance(node, sp.Sum):
                for symbol, *limits in node.limits:
                    self.loops.setdefault(symbol, set()).add(tuple(limits))
            elif isinstance(node, sp.MatrixSymbol):
                twin = matrices.setdefault(node.name, node)
                if twin != node:
                    raise DeclarationError(
                        f"two matrices are called '{printable(node.name)}', of the shapes {shape_text(twin.shape)} and "
                        f"{shape_text(shape_of(node))}; create {printable(node.name)} once and reuse it"
                    )
            if isinstance(node, sp.Symbol | sp.IndexedBase | sp.Idx | sp.MatrixSymbol):
                self.taken.add(str(node))
        others = {name_of(key) for key in where if key not in self.definitions}
        roles = {str(symbol): role for symbol, role in self.known.items()}
        for key in self.definitions:
            if key.name in roles or key.name in others:
                what = f"it is {roles[key.name]}" if key.name in roles else "it is defined twice"
                raise DeclarationError(f"where= defines the matrix {printable(key.name)}, but {what}; rename it")

    def unused(self, stem: str) -> str:
        """The stem, or the stem and a number, that is no name of the user's."""
        for name in itertools.chain([stem], (f"{stem} ({k})" for k in itertools.count(2))):
            if name not in self.taken:
                self.taken.add(name)
                return name
        raise AssertionError

    def index(self, extent: Any) -> Any:
        name = next(name for k in itertools.count() if (name := f"r{k}") not in self.taken)
        self.taken.add(name)
        return sp.Idx(name, extent)

    # ------------------------------------------------------------------------------------ scalars

    def scalar(self, node: Any, place: str = "") -> Any:
        """A scalar without matrices; a matrix of one entry is that entry."""
        node = frozen(node)
        if not isinstance(node, sp.Basic):
            return node
        if place and isinstance(node, sp.MatrixExpr | sp.MatrixBase) and shape_of(node) != (1, 1):
            return node
        if node not in self._scalars:
            self._scalars[node] = self._scalar(node)
        return self._scalars[node]

    def _scalar(self, node: Any) -> Any:
        if isinstance(node, sp.MatrixExpr | sp.MatrixBase):
            if shape_of(node) != (1, 1):
                raise DeclarationError(entrywise(node))
            return self.view(node).entry(sp.S.Zero, sp.S.Zero)
        for kind, rule in SCALARS.items():
            if isinstance(node, kind):
                return rule(self, node)
        if not node.args or isinstance(node, UNTOUCHED):
            return node
        args = [self.scalar(a) for a in node.args]
        return node if all(a is b for a, b in zip(args, node.args, strict=True)) else node.func(*args)

    def sum_over(self, extent: Any, written: bool, body: Callable[[Any], Any]) -> Any:
        """The sum of body(k) over k = 0, ..., extent - 1."""
        if extent == 1:
            return body(sp.S.Zero)
        if written:
            return sp.Add(*map(body, numbers(extent)))
        index = self.index(extent)
        value = body(index)
        return sp.Sum(value, index) if index in value.free_symbols else extent * value

    def candidate(self, key: Any, value: Any) -> dict[Any, Any]:
        """One entry of candidates=; a whole matrix by its entries."""
        if not isinstance(key, sp.MatrixSymbol):
            return {self.scalar(key, "candidates="): self.scalar(value, f"candidates= for {text(key)}")}
        value = frozen(value)
        if not isinstance(value, sp.MatrixExpr | sp.MatrixBase):
            raise DeclarationError(f"candidates= gives the matrix {text(key)} by {excerpt(value)}, which is no matrix")
        target, source = self.view(key), self.view(value)
        check_same_shape(key, target.shape, value, source.shape)
        axes = [numbers(e) if e.is_Integer else [self.index(e)] for e in shape_of(key)]
        return {target.entry(i, j): source.entry(i, j) for i, j in itertools.product(*axes)}

    # ------------------------------------------------------------------------------------ matrices

    def view(self, node: Any) -> View:
        """How entries of a matrix are read."""
        if node not in self._views:
            for kind, rule in RULES.items():
                if isinstance(node, kind):
                    self._views[node] = rule(self, node)
                    break
            else:
                raise UnsupportedError(unsupported(node))
        return self._views[node]

    def symbol(self, node: Any) -> View:
        if node in self.definitions:
            return self.definition(node)
        array = array_of(node)
        if array not in self.known and not any(name_of(array) == name_of(symbol) for symbol in self.known):
            groups = (" ".join(printable(str(s)) for s, r in self.known.items() if r == role) or "-" for role in ROLES)
            raise DeclarationError(
                f"matrix {text(node)} has no role in the expression; add it to variables=, weights= or data= "
                f"(known: {' / '.join(groups)})"
            )

        def entry(row: Any, column: Any) -> Any:
            for subscript, extent in zip((row, column), shape_of(node), strict=True):
                if extent == 1 and subscript != 0 and self.loops.get(subscript) != {(0, 0)}:
                    raise DeclarationError(
                        f"the subscript {text(subscript)} of {text(node)} {shape_text(shape_of(node))} is not 0"
                    )
            subscripts = [s for s, extent in zip((row, column), shape_of(node), strict=True) if extent != 1]
            return array[tuple(subscripts)] if subscripts else array

        return View(shape_of(node), entry, plain=True)

    def definition(self, key: Any) -> View:
        """A matrix that where= defines."""
        if key in self.open:
            loop = " -> ".join(printable(k.name) for k in (*self.open[self.open.index(key) :], key))
            raise DeclarationError(
                f"where= defines {printable(key.name)} through {printable(key.name)} itself ({loop}); "
                "an intermediate may use only earlier ones"
            )
        self.open.append(key)
        value = frozen(self.definitions[key])
        if not isinstance(value, sp.MatrixExpr | sp.MatrixBase):
            raise DeclarationError(
                f"where= defines the matrix {text(key)} {shape_text(shape_of(key))} by {excerpt(value)}, "
                "which is no matrix"
            )
        indices = sorted((s for s in value.free_symbols if isinstance(s, sp.Idx) or s in self.loops), key=str)
        if indices:
            raise DeclarationError(
                f"where= defines the matrix {text(key)} by {excerpt(value)}, which depends on index "
                f"{text(indices[0])}; sum over it, or define entries: where={{u[i, j]: ...}}"
            )
        found = self.view(value)
        check_same_shape(key, shape_of(key), value, found.shape)
        self.open.pop()
        return found if found.plain or not self.keeps else self.named_view(found, key.name)

    def let(self, key: Any, value: Any) -> None:
        """A definition of where=; that of a matrix is read once, so that it is checked even where nothing uses it."""
        if not isinstance(key, sp.MatrixSymbol):
            self.lets[key] = self.scalar(value, f"where= for {text(key)}")
            return
        found = self.view(key)
        axes = [numbers(e) if found.numbers(a) else [self.index(e)] for a, e in enumerate(found.shape)]
        for row, column in itertools.product(*axes):
            found.entry(row, column)

    def unused_let(self, name: str, axes: Sequence[Any]) -> Any:
        indices = [a for a in axes if isinstance(a, sp.Idx)]
        label = name if any(name == key.name for key in self.definitions) else self.unused(name)
        return sp.IndexedBase(label)[tuple(indices)] if indices else sp.Symbol(label, real=True)

    def can_name(self, node: Any) -> bool:
        """Whether an intermediate can stand for it: nothing in it depends on an index of a sum around it."""
        return self.keeps and not any(s in self.loops or isinstance(s, sp.Idx) for s in node.free_symbols)

    def named(self, node: Any) -> View:
        """The matrix, computed once: its entries are reads of an intermediate."""
        if node not in self._named:
            found, flipped = self.view(node), sp.sympify(node.T)
            if flipped in self._named or transposes(flipped) < transposes(node):
                self._named[node] = self.named(flipped).transposed
            elif found.plain or not self.can_name(node):
                self._named[node] = found
            else:
                is_explicit = isinstance(node, sp.MatrixBase)
                name = f"(Matrix {node.rows} x {node.cols})" if is_explicit else f"({text(node)})"
                self._named[node] = self.named_view(found, name)
        return self._named[node]

    def named_view(self, found: View, name: str) -> View:
        """The view through intermediates; there is one for each choice of the numbers on axes that are written out."""
        label = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 5]} ...)"
        bases: dict[tuple[Any, ...], Any] = {}

        def entry(row: Any, column: Any) -> Any:
            subscripts = [None if e == 1 else s for s, e in zip((row, column), found.shape, strict=True)]
            fixed = tuple(s if found.numbers(a) and s is not None else None for a, s in enumerate(subscripts))
            running = [s for s, f in zip(subscripts, fixed, strict=True) if s is not None and f is None]
            if fixed not in bases:
                numbers = ", ".join("" if f is None else str(f) for f in fixed)
                full = label if fixed == (None, None) else f"{label}[{numbers}]"
                at = [
                    sp.S.Zero if s is None else self.index(e) if f is None else f
                    for s, f, e in zip(subscripts, fixed, found.shape, strict=True)
                ]
                value = found.entry(*at)
                if value.is_Number:
                    bases[fixed] = value
                else:
                    key = self.unused_let(full, at)
                    self.lets[key] = value
                    bases[fixed] = key.base if isinstance(key, sp.Indexed) else key
            base = bases[fixed]
            return base[tuple(running)] if isinstance(base, sp.IndexedBase) else base

        return View(found.shape, entry, (found.numbers(0), found.numbers(1)), True)

    def named_scalar(self, value: Any, name: str) -> Any:
        """A scalar that is read often, as an intermediate."""
        if value.is_Atom or not self.can_name(value):
            return value
        key = sp.Symbol(self.unused(name), real=True)
        self.lets[key] = value
        return key

    # ------------------------------------------------------------------------------------ products

    def product(self, nodes: Sequence[Any]) -> View:
        """The product of several matrices, in the cheapest order."""
        if len(nodes) == 1:
            return self.view(nodes[0])
        middle = cheapest_split(nodes)
        return self.multiply(*(self.part(part) for part in (nodes[:middle], nodes[middle:])))

    def part(self, nodes: Sequence[Any]) -> View:
        node = nodes[0] if len(nodes) == 1 else sp.MatMul(*nodes, evaluate=False)
        found = self.view(node)
        return found if found.diagonal is not None else self.named(node)

    def multiply(self, left: View, right: View) -> View:
        """The product of two; sums over the axis between them."""
        shape = (left.shape[0], right.shape[1])
        by_number = (left.by_number[0], right.by_number[1])
        diagonal = left.diagonal or right.diagonal
        if diagonal is not None:
            first = left.diagonal is not None
            whole, rest = (right, left.rest) if first else (left, right.rest)
            other = rest and (self.multiply(rest, right) if first else self.multiply(left, rest))

            def scaled(row: Any, column: Any) -> Any:
                own = diagonal(row if first else column) * whole.entry(row, column)
                return own + other.entry(row, column) if other else own

            return View(shape, scaled, either(by_number, *([other.by_number] if other else [])))
        written = left.numbers(1) or right.numbers(0)

        def entry(row: Any, column: Any) -> Any:
            return self.sum_over(left.shape[1], written, lambda k: left.entry(row, k) * right.entry(k, column))

        return View(shape, entry, by_number)

    def trace(self, node: Any) -> Any:
        """The trace; that of a product without the product."""
        if isinstance(node, sp.MatAdd):
            return sp.Add(*(self.trace(a) for a in node.args))
        if isinstance(node, sp.Transpose):
            return self.trace(node.arg)
        if isinstance(node, sp.MatMul):
            factors, matrices = factors_and_matrices(node)
            if len(matrices) > 1:
                check_product(matrices)
                middle = cheapest_split([*matrices, matrices[0]], last=len(matrices))
                left, right = self.part(matrices[:middle]), self.part(matrices[middle:])
                return sp.Mul(*map(self.scalar, factors)) * self.inner(left, right)
            return sp.Mul(*map(self.scalar, factors)) * self.trace(matrices[0])
        found = self.view(node)
        if found.diagonal is not None:
            own = self.sum_over(found.shape[0], found.numbers(0), found.diagonal)
            return own + (self.diagonal_sum(found.rest) if found.rest else 0)
        return self.diagonal_sum(found)

    def diagonal_sum(self, found: View) -> Any:
        written = found.numbers(0) or found.numbers(1)
        return self.sum_over(found.shape[0], written, lambda k: found.entry(k, k))

    def inner(self, left: View, right: View) -> Any:
        """The trace of left*right."""
        if left.diagonal is not None or right.diagonal is not None:
            return self.diagonal_sum(self.multiply(left, right))
        rows = left.numbers(0) or right.numbers(1)
        columns = left.numbers(1) or right.numbers(0)
        return self.sum_over(
            left.shape[0],
            rows,
            lambda i: self.sum_over(left.shape[1], columns, lambda k: left.entry(i, k) * right.entry(k, i)),
        )

    def determinant(self, node: Any) -> Any:
        size = small_square(node)
        return determinant(self.named(node), size)


def name_of(key: Any) -> str:
    return str(key.base.label) if isinstance(key, sp.Indexed) else str(key)
