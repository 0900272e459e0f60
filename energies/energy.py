"""An energy E(y; w, x) as the user declares it: a SymPy expression, and who is variable, weight or datum in it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import sympy as sp

from .candidates import check_candidates
from .checks import Context, check_formula, index_range
from .digest import Numbering, digest
from .display import excerpt, latex, latex_table, latex_text, printable, shape_text, table, text
from .errors import DeclarationError, InputTypeError, WibergError
from .family import check_family, check_not_bound, family_ranges, family_shape, free_family, read_family
from .functions import real_constants
from .lets import in_order, let_indices, let_shapes, let_symbol, reachable
from .matrices import frozen, has_matrices, without_matrices
from .names import check_names
from .roles import Roles, check_assumptions, read_roles
from .traversal import distinct_nodes


class Energy:
    """A scalar energy of real variables, declared once, checked at once, and immutable from then on.

    Parameters
    ----------
    expression : sympy expression
        The scalar E, or a matrix of one entry. All symbols are real, also where they were made without `real=True`.
    variables, weights, data : lists of sympy Symbol, IndexedBase or MatrixSymbol
        The unknowns y, what is learnt (w), and what is given for each instance (x). A Symbol is a scalar, of shape ();
        an IndexedBase has `shape=`, whose extents are integer symbols, numbers or sums of them; a MatrixSymbol is an
        array without its axes of length 1: (n,) for n x 1. A weight with `positive=True` stays positive while it is
        learnt. Data with `integer=True` may stand in subscripts.
    where : dict, optional
        Intermediates: `{u[i, j]: expression}` with distinct `sp.Idx`, `{z: expression}`, or `{M: matrix}`.
    candidates : dict, optional
        Starts that depend on weights, data and intermediates of these: `{t: x[q]}`, one entry for each variable, in
        one free index that counts the candidates. An array is given by its entries, `y[0]` and `y[1]`, or by whole
        axes, `y[d]`.
    over : list of sympy Idx, optional
        Free indices of the formula: a family, one independent minimisation for every value of them. Variables are
        declared without these axes; their values, energies and statuses carry them after the batch axis.
    name : str
        What messages call this energy.

    Attributes
    ----------
    expression, variables, weights, data, where, candidates, over, name
        As given: the lists as tuples, the dicts read-only, each definition in `where` after those that it uses.
        Matrices are translated to sums, arrays and intermediates; `print` shows them as they were given.
    candidate_index : sympy Idx or None
        The index that counts the candidates; None where there are none, or only one.
    family : tuple
        The extents of the axes of `over=`.
    shapes : mapping of str to tuple
        The declared extents of each variable, weight and datum.
    positive, integer : frozenset of str
        Names of the weights that stay positive; names of the data that hold integers.
    extents : tuple of sympy Symbol
        Every symbolic extent, in the order in which variables, weights and data show them.
    key : str
        A hexadecimal digest of all of the above, the same in every process. Energies are equal if their keys are.
    formula_key : str
        The digest without `name`: equal for the same formula under another name.

    Raises
    ------
    DeclarationError, InputTypeError
        For a declaration that cannot be meant. The message names the energy and the symbols, and says what to do.
    UnsupportedError
        For a formula in which something has no kernel.

    Examples
    --------
    The mean of inliers, robust to outliers (n points x, one unknown t):

    >>> n = sp.Symbol("n", integer=True, positive=True)
    >>> i = sp.Idx("i", n)
    >>> t, sigma = sp.Symbol("t", real=True), sp.Symbol("sigma", positive=True)
    >>> x = sp.IndexedBase("x", shape=(n,))
    >>> formula = -sp.Sum(sp.exp(-(((x[i] - t) / sigma) ** 2)), i)
    >>> Energy(formula, variables=[t], weights=[sigma], data=[x], name="ransac")
    Energy('ransac', variables=[t], weights=[sigma], data=[x])
    """

    __slots__ = (
        "_shown",
        "candidate_index",
        "candidates",
        "data",
        "expression",
        "extents",
        "family",
        "formula_key",
        "integer",
        "key",
        "name",
        "over",
        "positive",
        "shapes",
        "variables",
        "weights",
        "where",
    )

    expression: Any
    variables: tuple[Any, ...]
    weights: tuple[Any, ...]
    data: tuple[Any, ...]
    where: Mapping[Any, Any]
    candidates: Mapping[Any, Any]
    candidate_index: Any
    over: tuple[Any, ...]
    family: tuple[Any, ...]
    name: str
    shapes: Mapping[str, tuple[Any, ...]]
    positive: frozenset[str]
    integer: frozenset[str]
    extents: tuple[Any, ...]
    key: str
    formula_key: str
    _shown: tuple[Any, Mapping[Any, Any], Mapping[Any, Any]]

    def __init__(
        self,
        expression: Any,
        *,
        variables: Iterable[Any],
        weights: Iterable[Any] = (),
        data: Iterable[Any] = (),
        where: Mapping[Any, Any] | None = None,
        candidates: Mapping[Any, Any] | None = None,
        over: Iterable[Any] | None = None,
        name: str = "energy",
    ) -> None:
        if not isinstance(name, str):
            raise InputTypeError(f"the name of an energy is a str; got {name!r} of type {type(name).__name__}")
        try:
            roles = read_roles(variables, weights, data)
            indices = read_family(over, roles)
            shown = (frozen(expression), _mapping("where", where), _mapping("candidates", candidates))
            if has_matrices([expression, *itertools.chain(*shown[1].items(), *shown[2].items())]):
                plain = without_matrices(*shown, roles.of)
            else:
                plain = shown
            formula = _scalar(plain[0], "the expression")
            lets, starts = _formulas("where", plain[1]), _formulas("candidates", plain[2])
            check_names([formula, *lets, *lets.values(), *starts, *starts.values(), *indices], roles)
            check_assumptions(roles)
            check_not_bound(indices, [formula, *lets.values(), *starts.values()])
            lets, reads = _checked_lets(formula, lets, roles, indices)
            index = check_candidates(starts, roles, lets, reads, indices)
        except WibergError as error:
            raise type(error)(f"energy '{printable(name)}': {error}") from None
        fields = {
            "expression": formula,
            "variables": roles.variables,
            "weights": roles.weights,
            "data": roles.data,
            "where": MappingProxyType(lets),
            "candidates": MappingProxyType(starts),
            "candidate_index": index,
            "over": indices,
            "family": family_shape(indices),
            "name": name,
            "shapes": MappingProxyType({str(symbol): shape for symbol, shape in roles.shapes.items()}),
            "positive": frozenset(str(w) for w in roles.weights if _label(w).is_positive),
            "integer": frozenset(str(x) for x in roles.data if _label(x).is_integer),
            "extents": roles.extents,
            "_shown": (formula, lets, starts) if plain is shown else shown,
        }
        for field, value in fields.items():
            object.__setattr__(self, field, value)
        object.__setattr__(self, "formula_key", _formula_key(self))
        object.__setattr__(self, "key", digest([self.formula_key, name]))

    def __setattr__(self, attribute: str, value: object) -> None:
        raise AttributeError(f"energies are immutable; make a new Energy to change {attribute}")

    def __delattr__(self, attribute: str) -> None:
        raise AttributeError(f"energies are immutable; {attribute} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, Energy) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key)

    def __copy__(self) -> Energy:
        return self

    def __deepcopy__(self, memo: object) -> Energy:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        lists = (self.variables, self.weights, self.data)
        expression, where, candidates = self._shown
        return _restore, (expression, *lists, dict(where), dict(candidates), self.over, self.name)

    def __repr__(self) -> str:
        roles = (
            f"{role}=[{', '.join(printable(str(symbol)) for symbol in symbols)}]"
            for role, symbols in (("variables", self.variables), ("weights", self.weights), ("data", self.data))
            if symbols
        )
        return f"Energy({self.name!r}, {', '.join(roles)})"

    def __str__(self) -> str:
        """The formula, and a table of roles with shapes, intermediates and candidates."""
        rows = [
            (role, f"{printable(str(symbol))} {shape_text(self.shapes[str(symbol)])}{note}")
            for role, symbol, note in _described(self)
        ]
        expression, where, candidates = self._shown
        rows += [("where", f"{text(key)} = {text(value)}") for key, value in where.items()]
        rows += [("candidates", f"{text(key)} = {text(value)}") for key, value in candidates.items()]
        rows += [("over", f"{text(i)} ({text(size)})") for i, size in zip(self.over, self.family, strict=True)]
        return f"energy '{printable(self.name)}'\n  E = {text(expression)}\n{table(rows)}"

    def _repr_latex_(self) -> str:
        """The same for notebooks."""
        rows = [
            (role, latex(symbol) + r" \quad " + _latex_shape(self.shapes[str(symbol)]) + (note and latex_text(note)))
            for role, symbol, note in _described(self)
        ]
        expression, where, candidates = self._shown
        rows += [("where", f"{latex(key)} = {latex(value)}") for key, value in where.items()]
        rows += [("candidates", f"{latex(key)} = {latex(value)}") for key, value in candidates.items()]
        rows += [("over", rf"{latex(i)} \quad ({latex(size)})") for i, size in zip(self.over, self.family, strict=True)]
        return latex_table(rf"{latex_text(self.name)}: \quad E = {latex(expression)}", rows)


def _restore(
    expression: Any, variables: Any, weights: Any, data: Any, where: Any, candidates: Any, over: Any, name: str
) -> Energy:
    return Energy(
        expression,
        variables=variables,
        weights=weights,
        data=data,
        where=where,
        candidates=candidates,
        over=over,
        name=name,
    )


def _scalar(expression: Any, place: str) -> Any:
    """The expression as SymPy's, without re, im and conjugate, if it is one scalar that is no condition."""
    if isinstance(expression, tuple | list | sp.Tuple):
        raise DeclarationError(_not_scalar(place, (len(expression),)))
    is_entry = isinstance(expression, sp.Indexed | sp.IndexedBase)  # whose shape is that of the whole array
    if not is_entry and getattr(expression, "shape", ()) != ():
        raise DeclarationError(_not_scalar(place, tuple(expression.shape)))
    try:
        scalar = sp.sympify(expression, strict=True)
    except sp.SympifyError:
        kind = type(expression).__name__
        raise InputTypeError(f"{place} must be a SymPy expression; got {expression!r} of type {kind}") from None
    if isinstance(scalar, sp.logic.boolalg.Boolean) and not isinstance(scalar, sp.Symbol):
        kind = "relation" if isinstance(scalar, sp.core.relational.Relational) else "condition"
        raise DeclarationError(
            f"{place} is the {kind} {excerpt(scalar)}; an energy is an expression, use sp.Piecewise for conditions"
        )
    if not isinstance(scalar, sp.Expr):
        kind = type(scalar).__name__
        raise InputTypeError(f"{place} must be a scalar SymPy expression; got {scalar!r} of type {kind}")
    return _real(real_constants(scalar))


def _not_scalar(place: str, shape: tuple[Any, ...]) -> str:
    return f"{place} has shape {shape_text(shape)}; an energy is one scalar: sum it, for example with sp.Sum or .dot"


def _real(expression: Any) -> Any:
    """All symbols are real: re(x) is x, im(x) is 0, conjugate(x) is x."""
    parts = {sp.re: lambda x: x, sp.im: lambda x: sp.S.Zero, sp.conjugate: lambda x: x, sp.adjoint: lambda x: x}
    present = {type(node) for node in distinct_nodes([expression])}
    for function, real in parts.items():
        if function in present:
            expression = expression.replace(function, real)
    return expression.replace(_is_even_power, _without_abs) if sp.Abs in present else expression


def _is_even_power(node: Any) -> bool:
    return bool(node.is_Pow and isinstance(node.base, sp.Abs) and node.exp.is_even)


def _without_abs(node: Any) -> Any:
    """Abs(x)**2, which `sp.Matrix(...).norm()` gives, has a kink that x**2 has not."""
    return node.base.args[0] ** node.exp


def _mapping(argument: str, mapping: Any) -> dict[Any, Any]:
    if mapping is None:
        return {}
    if not isinstance(mapping, Mapping):
        kind = type(mapping).__name__
        raise InputTypeError(f"{argument}= must be a dict from symbols or entries to expressions; got a {kind}")
    return {key: frozen(value) for key, value in mapping.items()}


def _formulas(argument: str, mapping: Mapping[Any, Any]) -> dict[Any, Any]:
    return {
        key: _scalar(value, f"{argument}= for {text(key) if isinstance(key, sp.Basic) else repr(key)}")
        for key, value in mapping.items()
    }


def _checked_lets(
    formula: Any, lets: Mapping[Any, Any], roles: Roles, over: tuple[Any, ...]
) -> tuple[dict[Any, Any], dict[Any, set[Any]]]:
    """Check the formula and its intermediates, and that they use all variables, weights and indices of the family.

    Intermediates in order, and for the symbol of each what its definition reads.
    """
    shapes = let_shapes(list(lets), roles)
    ordered = in_order(lets)
    of = {**roles.of, **dict.fromkeys(shapes, "intermediate")}
    context = Context(roles, of, {**roles.shapes, **shapes})
    family = family_ranges(over, context)
    used_by_let: dict[Any, set[Any]] = {}
    for key, value in ordered.items():
        inner = Context(roles, of, context.shapes, place=f"the definition of {text(key)} in where=")
        ranges = {index: index_range(index, inner) for index in let_indices(key)}
        used_by_let[let_symbol(key)] = check_formula(value, inner, {**free_family(family, key), **ranges})
    reached = reachable(check_formula(formula, context, family), used_by_let)
    _check_used(reached, roles)
    check_family(over, formula, ordered, reached, roles)
    return ordered, used_by_let


def _check_used(used: set[Any], roles: Roles) -> None:
    for symbol in (*roles.variables, *roles.weights):
        if symbol not in used:
            reason = "could ever be learnt for it" if roles.of[symbol] == "weight" else "determines it"
            raise DeclarationError(
                f"{roles.of[symbol]} {text(symbol)} does not appear in the expression, so nothing {reason}; "
                "remove it or use it"
            )


def _formula_key(energy: Energy) -> str:
    numbering = Numbering()
    roots = [numbering.number(energy.expression)]
    for symbols in (energy.variables, energy.weights, energy.data):
        roots += [-1, *(numbering.number(symbol) for symbol in symbols)]
    for formulas in (energy.where, energy.candidates):
        roots += [-1, *(numbering.number(part) for item in formulas.items() for part in item)]
    if energy.over:
        roots += [-2, *(numbering.number(index) for index in energy.over)]
    return digest([*numbering.lines, f"energy {' '.join(map(str, roots))}"])


def _described(energy: Energy) -> list[tuple[str, Any, str]]:
    """(role, symbol, note) of every declared symbol."""
    groups = (("variables", energy.variables), ("weights", energy.weights), ("data", energy.data))
    notes = {**dict.fromkeys(energy.positive, " positive"), **dict.fromkeys(energy.integer, " integer")}
    return [(role, symbol, notes.get(str(symbol), "")) for role, symbols in groups for symbol in symbols]


def _latex_shape(shape: Iterable[Any]) -> str:
    return "(" + ", ".join(latex(extent) for extent in shape) + ")"


def _label(symbol: Any) -> Any:
    return symbol.label if isinstance(symbol, sp.IndexedBase) else symbol
