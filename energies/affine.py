"""Integer-affine forms, such as `2*i + n - 1`, of subscripts, limits and extents, and what can be proven about them.

A form is a dict from an atom (an index, an extent or an entry of integer data, 1 for the constant) to its integer
coefficient: `2*i + n - 1` is `{i: 2, n: 1, 1: -1}`. The only facts used are that extents are not negative and that an
index lies within its range, which may depend on indices further out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sympy as sp

Affine = dict[Any, int]


@dataclass(frozen=True)
class Range:
    """The values `lower, ..., upper` of an index, affine in extents and outer indices; empty where upper < lower."""

    lower: Affine
    upper: Affine

    @property
    def text(self) -> str:
        """`n` for 0..n-1, else `1..n - 2`."""
        if not self.lower:
            return str(expression(combine((1, self.upper), (1, {sp.S.One: 1}))))
        return f"{expression(self.lower)}..{expression(self.upper)}"


def affine(expr: Any) -> Affine | None:
    """The form of `expr`; None where it is not a sum of integer multiples of symbols, indices and entries."""
    form = _affine_of_sum(expr)
    return form if form is not None else _affine_of_sum(sp.expand(expr))


def _affine_of_sum(expr: Any) -> Affine | None:
    form: Affine = {}
    for term in sp.Add.make_args(expr):
        coefficient, atom = term.as_coeff_Mul()
        if not coefficient.is_Integer or not (atom is sp.S.One or isinstance(atom, sp.Symbol | sp.Idx | sp.Indexed)):
            return None
        form[atom] = form.get(atom, 0) + int(coefficient)
    return _without_zeros(form)


def combine(*terms: tuple[int, Affine]) -> Affine:
    """The sum of the forms, each times its factor."""
    form: Affine = {}
    for factor, part in terms:
        for atom, coefficient in part.items():
            form[atom] = form.get(atom, 0) + factor * coefficient
    return _without_zeros(form)


def _without_zeros(form: Affine) -> Affine:
    return {atom: coefficient for atom, coefficient in form.items() if coefficient}


def expression(form: Affine) -> Any:
    """The SymPy expression of a form."""
    return sp.Add(*(coefficient * atom for atom, coefficient in form.items()))


def highest(form: Affine, ranges: dict[Any, Range]) -> Affine:
    """The largest value of a form while its indices run over their ranges, outermost first; affine in extents alone."""
    return _extreme(form, ranges, upper=True)


def lowest(form: Affine, ranges: dict[Any, Range]) -> Affine:
    """The smallest value of a form while its indices run over their ranges; affine in extents alone."""
    return _extreme(form, ranges, upper=False)


def _extreme(form: Affine, ranges: dict[Any, Range], *, upper: bool) -> Affine:
    for index in reversed(ranges):  # the innermost first: `i - j` with j from 0 to i - 1 is at least 1
        count = form.get(index, 0)
        if count:
            end = ranges[index].upper if (count > 0) == upper else ranges[index].lower
            form = combine((1, form), (-count, {index: 1}), (count, end))
    return form


def always_positive(form: Affine) -> bool:
    """Whether the form is at least 1 for all extents."""
    return form.get(sp.S.One, 0) > 0 and all(coefficient > 0 for coefficient in form.values())


def never_positive(form: Affine) -> bool:
    """Whether the form is at most 0 for all extents."""
    return all(coefficient < 0 for coefficient in form.values())
