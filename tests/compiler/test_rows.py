"""Nests under one outermost loop: where arrays shrink to a row, and that nothing else changes."""

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.compiler.derive import scheduled
from wiberg.compiler.program.expression import Affine, name
from wiberg.compiler.text.rows import _common_axis, _Use

n, m = sp.symbols("n m", integer=True, positive=True)
i, j = sp.Idx("i", n), sp.Idx("j", m)
Y, X = sp.IndexedBase("Y", shape=(n, m)), sp.IndexedBase("X", shape=(n, m))
a = sp.Symbol("a", positive=True)


def difference(rows, columns, softness=1):
    """The sum over all pixels of a softened distance to the pixel so many rows and columns on."""
    r, c = sp.Idx("r", (0, n - 1 - rows)), sp.Idx("c", (0, m - 1 - columns))
    return sp.Sum(sp.sqrt(a + softness * (Y[r + rows, c + columns] - Y[r, c]) ** 2), r, c)


def image(*terms):
    near = sp.Sum((Y[i, j] - X[i, j]) ** 2, i, j)
    return wb.Energy(near + sum(terms), variables=[Y], weights=[a], data=[X])


def joined(energy, kind):
    """How many nests lie under the loop of another, and the arrays that have shrunk."""
    _, plan = scheduled(energy, kind)
    return sum(nest.joined for nest in plan.evaluate), set(plan.rows)


def test_slopes_of_an_image_need_a_row_of_memory():
    count, rows = joined(image(difference(1, 0), difference(0, 1)), "gradient")
    assert count >= 2
    assert len(rows) == 2


def test_the_memory_is_that_of_rows():
    kernel = wb.compile(image(difference(1, 0), difference(0, 1)))
    sizes = []
    for height in (10, 1000):
        inputs = kernel.bind({"a": 1.0}, {"X": np.zeros((height, 8))})
        sizes.append(kernel.entry("value_gradient_sparse_hessian").needs(inputs)[1])
    assert sizes[0] == sizes[1] > 0


def test_a_sum_over_an_axis_keeps_all_of_its_memory():
    u = sp.IndexedBase("u", shape=(n,))
    energy = wb.Energy(
        sp.Sum(u[i] ** 3 * (Y[i, j] - 1) ** 2, i, j), variables=[Y], where={u[i]: sp.Sum(sp.tanh(Y[i, j] * a), j)},
        weights=[a],
    )  # fmt: skip
    _, plan = scheduled(energy, "gradient")
    sums = {s.target for nest in plan.evaluate for s in nest.statements if s.accumulate and not s.adds}
    assert not sums & set(plan.rows)


def test_what_is_read_at_another_row_is_not_shrunk():
    u = sp.IndexedBase("u", shape=(n, m))
    r = sp.Idx("r", (0, n - 2))
    energy = wb.Energy(
        sp.Sum(u[r + 1, j] * u[r, j], r, j), variables=[Y], where={u[i, j]: sp.exp(-a * Y[i, j] ** 2)}, weights=[a]
    )
    _, plan = scheduled(energy, "value")
    local = {s.target for nest in plan.evaluate for s in nest.statements if s.note == "where u"} or {"t"}
    assert not local & set(plan.rows)
    point = {"Y": np.random.default_rng(0).standard_normal((4, 5))}
    values = np.exp(-0.5 * point["Y"] ** 2)
    assert wb.compile(energy).value(point, {"a": 0.5}) == pytest.approx((values[1:] * values[:-1]).sum(), rel=1e-13)


def test_what_is_read_at_its_own_row_and_at_the_first_is_not_shrunk():
    u = sp.IndexedBase("u", shape=(n, m))
    energy = wb.Energy(
        sp.Sum(u[i, j] * u[0, j], i, j), variables=[Y], where={u[i, j]: sp.exp(-a * Y[i, j] ** 2)}, weights=[a]
    )
    point = {"Y": np.random.default_rng(0).standard_normal((4, 5))}
    values = np.exp(-0.5 * point["Y"] ** 2)
    assert wb.compile(energy).value(point, {"a": 0.5}) == pytest.approx((values * values[0]).sum(), rel=1e-13)


def test_a_row_is_shared_only_where_every_use_is_at_it():
    r, c, first = name("r"), name("c"), Affine(())
    own, other, hidden = (_Use(subscripts, False, False) for subscripts in ((r, c), (first, c), None))
    assert _common_axis([own, own], "r") == 0 and _common_axis([_Use((c, r), True, True)], "r") == 1
    for uses in ([own, other], [other, own], [own, hidden], [own, _Use((c, r), True, False)]):
        assert _common_axis(uses, "r") is None


SHIFTS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)).filter(any), min_size=1, max_size=3, unique=True)


@settings(max_examples=5)
@given(SHIFTS, st.integers(3, 12), st.integers(3, 12), st.integers(0, 2**31))
def test_compiled_stencils_have_the_numbers_of_the_interpreter(shifts, height, width, seed):
    energy = image(*(difference(*shift, softness=k + 1) for k, shift in enumerate(shifts)))
    kernel, reference = wb.compile(energy), wb.compile(energy, backend="reference")
    draw = np.random.default_rng(seed).standard_normal
    y, w, x = {"Y": draw((height, width))}, {"a": 0.3}, {"X": draw((height, width))}
    direction = draw(height * width)
    np.testing.assert_allclose(kernel.gradient(y, w, x), reference.gradient(y, w, x), rtol=1e-11, atol=1e-12)
    got, expected = kernel.hessian(y, w, x), reference.hessian(y, w, x)
    np.testing.assert_allclose(got.toarray(), expected.toarray(), rtol=1e-11, atol=1e-12)
    for kind in ("hvp", "cross_adjoint"):
        ours, theirs = (getattr(k, kind)(direction, y, w, x) for k in (kernel, reference))
        ours, theirs = (v["a"] if isinstance(v, dict) else v for v in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-11)
