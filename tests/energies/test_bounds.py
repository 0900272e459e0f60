"""What is refused as out of range is out of range, for all extents; counted out, number by number."""

from __future__ import annotations

import itertools
from typing import Any

import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.energies.affine import Range, affine, highest, lowest
from wiberg.energies.energy import Energy
from wiberg.energies.errors import DeclarationError

n, m = sp.symbols("n m", integer=True)
i, j = sp.Idx("i"), sp.Idx("j")
t = sp.Symbol("t")

small = st.integers(-2, 2)
extents = st.builds(lambda a, b, c: a * n + b * m + c, st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))
limits = st.builds(lambda a, b, c: a * n + b * m + c, st.integers(0, 1), st.integers(0, 1), st.integers(-2, 2))
subscripts = st.builds(lambda a, b, c, d: a * i + b * j + c * n + d, small, small, small, small)


def read(subscript: Any, extent: Any, limit_i: tuple[Any, Any], limit_j: tuple[Any, Any]) -> Energy:
    array = sp.IndexedBase("x", shape=(extent,))
    axes = [sp.IndexedBase("N", shape=(n,)), sp.IndexedBase("M", shape=(m,))]
    total = sp.Sum(array[subscript] * (i + j) * t, (i, *limit_i), (j, *limit_j))
    return Energy(total, variables=[t], data=[array, *axes])


def values(form: Any, sizes: dict[Any, int], lower_upper: dict[Any, tuple[Any, Any]]) -> list[int]:
    ranges = [range(int(lo.subs(sizes)), int(hi.subs(sizes)) + 1) for lo, hi in lower_upper.values()]
    return [int(form.subs(sizes).xreplace(dict(zip(lower_upper, p, strict=True)))) for p in itertools.product(*ranges)]


@settings(max_examples=60, deadline=None)
@given(subscripts, extents, st.tuples(limits, limits), st.tuples(limits, limits))
def test_a_read_that_is_refused_leaves_its_axis_whatever_the_extents(
    subscript: Any, extent: Any, limit_i: tuple[Any, Any], limit_j: tuple[Any, Any]
) -> None:
    subscript, extent = sp.sympify(subscript), sp.sympify(extent)
    used = {i: limit_i, j: limit_j}
    used = {index: (sp.sympify(a), sp.sympify(b)) for index, (a, b) in used.items()}
    try:
        read(subscript, extent, limit_i, limit_j)
        return
    except DeclarationError as error:
        if "runs over" in str(error):
            return
        assert "leaves axis 0" in str(error) or "negative subscript" in str(error)
    for sizes in ({n: 1, m: 1}, {n: 3, m: 2}, {n: 2, m: 5}):
        taken = values(subscript, sizes, used)
        assert not taken or min(taken) < 0 or max(taken) >= extent.subs(sizes)


@settings(max_examples=40, deadline=None)
@given(subscripts, st.tuples(limits, limits), st.tuples(limits, limits))
def test_the_ends_of_a_form_are_its_extreme_values(
    subscript: Any, limit_i: tuple[Any, Any], limit_j: tuple[Any, Any]
) -> None:
    used = {index: tuple(map(sp.sympify, limit)) for index, limit in ((i, limit_i), (j, limit_j))}
    form = affine(sp.sympify(subscript))
    assert form is not None
    ranges = {index: Range(affine(lo) or {}, affine(hi) or {}) for index, (lo, hi) in used.items()}
    for sizes in ({n: 1, m: 1}, {n: 3, m: 2}):
        taken = values(sp.sympify(subscript), sizes, used)  # type: ignore[arg-type]
        if taken:
            assert (min(taken), max(taken)) == (at(lowest(form, ranges), sizes), at(highest(form, ranges), sizes))


@settings(max_examples=60, deadline=None)
@given(
    st.builds(lambda a, c, d: a * i + c * n + d, small, st.integers(0, 1), small),
    st.builds(lambda a, c, d: a * i + c * n + d, small, st.integers(0, 1), small),
    subscripts,
)
def test_the_ends_of_a_form_within_a_triangle_hold_all_its_values(first: Any, last: Any, subscript: Any) -> None:
    first, last, subscript = map(sp.sympify, (first, last, subscript))
    ranges = {i: Range({}, affine(n - 1) or {}), j: Range(affine(first) or {}, affine(last) or {})}
    form = affine(subscript)
    assert form is not None
    for size in (1, 3, 5):
        sizes = {n: size, m: 2}
        taken = [
            int(subscript.subs(sizes).xreplace({i: p, j: q}))
            for p in range(size)
            for q in range(int(first.subs(sizes).xreplace({i: p})), int(last.subs(sizes).xreplace({i: p})) + 1)
        ]
        if taken:
            assert at(lowest(form, ranges), sizes) <= min(taken)
            assert max(taken) <= at(highest(form, ranges), sizes)


def at(form: dict[Any, int], sizes: dict[Any, int]) -> int:
    return sum(coefficient * (1 if atom == 1 else sizes[atom]) for atom, coefficient in form.items())
