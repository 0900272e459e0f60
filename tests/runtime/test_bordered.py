"""Elimination of blocks against NumPy, and the conditions of the exact subproblem (subproblem.py)."""

from __future__ import annotations

import math

import bordered
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from subproblem import TOLERANCE, violations
from wiberg.compiler.machine_code.calling import shifted
from wiberg.compiler.machine_code.native import compile_driver
from wiberg.compiler.machine_code.signature import DoublePointer, IntegerPointer
from wiberg.runtime.algebra.bordered import LOWEST, TABLES
from wiberg.runtime.algebra.factorisation import (
    boundary_step,
    factor_shifted,
    newton_step,
    solve,
    solve_rows,
    spectrum,
    squared_pivots,
)


def _solve(
    layout: IntegerPointer, h: DoublePointer, n: int, shift: float, c: DoublePointer, p: int, f: DoublePointer
) -> float:
    if not factor_shifted(layout, h, n, shift, f):
        return 0.0
    if p == 1:
        solve(layout, f, n, c)
    elif p > 1:
        solve_rows(layout, f, n, c, p)
    else:
        squared_pivots(layout, f, n, c)
    return 1.0


def _step(
    layout: IntegerPointer,
    h: DoublePointer,
    g: DoublePointer,
    n: int,
    radius: float,
    p: DoublePointer,
    space: DoublePointer,
    record: DoublePointer,
) -> float:
    """The step as the drivers take it."""
    if newton_step(layout, h, g, n, space, p):
        length = decrease = 0.0
        for i in range(n):
            length += (p[i] / radius) * (p[i] / radius)
            decrease -= 0.5 * p[i] * g[i]
        if length <= 1.0:
            return decrease
    record[0], record[1] = spectrum(layout, h, n, space)
    return boundary_step(layout, h, space, g, n, record[0], record[1], radius, p, shifted(space, n * n + 5 * n))


def _spectrum(layout: IntegerPointer, h: DoublePointer, n: int, space: DoublePointer, record: DoublePointer) -> float:
    record[0], record[1] = spectrum(layout, h, n, space)
    return record[0]


SOLVE, STEP, SPECTRUM = (compile_driver(f, f.__name__)[0] for f in (_solve, _step, _spectrum))


def layout_of(blocks):
    """Its layout, with the lowest eigenvalue found by the blocks."""
    layout = blocks.layout.copy()
    layout[LOWEST] = 1
    return layout


def space_for(blocks, n):
    return np.full(max(blocks.memory, n * n + 5 * n) + 9 * n, np.nan)


def solved(blocks, h, shift, c):
    n, space, layout, c = len(h), space_for(blocks, len(h)), layout_of(blocks), np.array(c, float)
    h, p = np.ascontiguousarray(h), c.size // len(h)
    good = SOLVE.call(layout.ctypes.data, h.ctypes.data, n, shift, c.ctypes.data, p, space.ctypes.data)
    return c if good else None


def pivots(blocks, h):
    n, space, layout, c = len(h), space_for(blocks, len(h)), layout_of(blocks), np.empty(len(h))
    h = np.ascontiguousarray(h)
    assert SOLVE.call(layout.ctypes.data, h.ctypes.data, n, 0.0, c.ctypes.data, 0, space.ctypes.data)
    return c


def lowest(blocks, h):
    h, record, layout, space = np.ascontiguousarray(h), np.empty(2), layout_of(blocks), space_for(blocks, len(h))
    SPECTRUM.call(layout.ctypes.data, h.ctypes.data, len(h), space.ctypes.data, record.ctypes.data)
    return record


def step(blocks, h, g, radius):
    h, g = np.ascontiguousarray(h), np.ascontiguousarray(g)
    p, record, layout, space = np.full(len(g), 7.0), np.empty(2), layout_of(blocks), space_for(blocks, len(g))
    decrease = STEP.call(
        layout.ctypes.data, h.ctypes.data, g.ctypes.data, len(g), radius, p.ctypes.data, space.ctypes.data,
        record.ctypes.data,
    )  # fmt: skip
    return p, decrease


FORMS = st.one_of(
    st.tuples(st.integers(0, 9), st.lists(st.integers(1, 9), min_size=1, max_size=8)),
    st.tuples(st.sampled_from([0, 1, 3, 4, 12, 30]), st.integers(1, 20).map(lambda count: [3] * count)),
)
SEEDS = st.integers(0, 2**32 - 1)


def drawn(form, seed, definite=False):
    """Blocks, and a matrix of that form with numbers of about unit size."""
    border, sizes = form
    rng = np.random.default_rng(seed)
    n = border + sum(sizes)
    order = rng.permutation(n) if seed % 2 else np.arange(n)
    met = bordered.pattern(border, sizes, order)
    h = rng.standard_normal((n, n))
    h = (h + h.T) * met
    if definite:
        h += (1.1 * abs(np.linalg.eigvalsh(h)).max() + 0.1) * np.eye(n)
    return bordered.blocks_of_form(border, sizes, order), h, rng


# ---------------------------------------------------------------------------------------------- factors


@settings(max_examples=60)
@given(FORMS, SEEDS, st.floats(0, 3), st.sampled_from([1, 2, 5]))
def test_solutions_are_those_of_the_dense_matrix(form, seed, shift, p):
    blocks, h, rng = drawn(form, seed, definite=True)
    c = rng.standard_normal((len(h), p))
    matrix = h + shift * np.eye(len(h))
    error = 1e-14 * np.linalg.cond(matrix) * len(h)
    np.testing.assert_allclose(solved(blocks, h, shift, c), np.linalg.solve(matrix, c), rtol=0, atol=error)


@settings(max_examples=60)
@given(FORMS, SEEDS)
def test_what_is_not_of_the_form_is_not_read(form, seed):
    blocks, h, rng = drawn(form, seed, definite=True)
    c = rng.standard_normal(len(h))
    order = np.concatenate([blocks.border, blocks.rest])
    place = np.argsort(order)
    met = bordered.pattern(len(blocks.border), list(blocks.sizes), place)
    expected = solved(blocks, h, 0.0, c)
    assert np.array_equal(solved(blocks, np.where(met, h, np.nan), 0.0, c), expected)
    assert np.array_equal(lowest(blocks, h)[0], lowest(blocks, h)[0])


@settings(max_examples=40)
@given(FORMS, SEEDS)
def test_pivots_are_those_of_the_permuted_matrix(form, seed):
    blocks, h, _ = drawn(form, seed, definite=True)
    order = np.concatenate([blocks.rest, blocks.border])
    expected = np.empty(len(h))
    expected[order] = np.diag(np.linalg.cholesky(h[np.ix_(order, order)])) ** 2
    np.testing.assert_allclose(pivots(blocks, h), expected, rtol=1e-10)


@settings(max_examples=60)
@given(FORMS, SEEDS, st.floats(1e-6, 1))
def test_an_indefinite_matrix_is_refused_whichever_part_makes_it_so(form, seed, depth):
    blocks, h, rng = drawn(form, seed, definite=True)
    values = np.linalg.eigvalsh(h)
    assert solved(blocks, h, -values[0] + depth, np.ones(len(h))) is not None
    assert solved(blocks, h, -values[0] - depth, np.ones(len(h))) is None
    some = rng.integers(len(h))
    h[some, some] = -depth
    assert solved(blocks, h, 0.0, np.ones(len(h))) is None


def test_not_a_number_is_refused_wherever_it_is():
    blocks, h, _ = drawn((4, [3, 2, 5]), 0, definite=True)
    for row, column in zip(*np.nonzero(np.triu(h)), strict=True):
        bad = h.copy()
        bad[row, column] = bad[column, row] = np.nan
        assert solved(blocks, bad, 0.0, np.ones(len(h))) is None
        assert np.isnan(lowest(blocks, bad)[0])


# ---------------------------------------------------------------------------------------------- eigenvalues


@settings(max_examples=150)
@given(FORMS, SEEDS, st.sampled_from(["indefinite", "definite", "singular", "negative", "graded"]))
def test_the_lowest_eigenvalue(form, seed, kind):
    blocks, h, rng = drawn(form, seed)
    n, low = len(h), np.linalg.eigvalsh(h)[0]
    if kind == "graded":
        scales = 10 ** rng.uniform(-6, 0, n)
        h = scales[:, None] * h * scales
    else:
        h = h + {"indefinite": 0, "definite": 0.3 - low, "singular": -low, "negative": -20 - low}[kind] * np.eye(n)
    values = np.linalg.eigvalsh(h)
    found, bound = lowest(blocks, h)
    assert found == pytest.approx(values[0], abs=1e-13 * abs(values).max())
    assert 0.6 * abs(values).max() <= bound <= 1.26 * abs(values).max()


@pytest.mark.parametrize("border", [0, 3])
def test_equal_lowest_eigenvalues(border):
    h = np.kron(np.eye(12), np.array([[1.0, 2, 0], [2, -1, 1], [0, 1, 0.5]]))
    n = len(h) + border
    whole = np.zeros((n, n))
    whole[border:, border:], whole[:border, :border] = h, 7 * np.eye(border)
    blocks = bordered.blocks_of_form(border, [3] * 12, np.arange(n))
    assert lowest(blocks, whole)[0] == pytest.approx(np.linalg.eigvalsh(whole)[0], abs=1e-13)


@pytest.mark.parametrize("size", [1e-148, 1e-20, 1e20, 1e148])
def test_the_lowest_eigenvalue_in_any_unit(size):
    for seed in range(6):
        blocks, h, _ = drawn((5, [3, 1, 4, 2, 3, 3]), seed)
        assert lowest(blocks, size * h)[0] / size == pytest.approx(np.linalg.eigvalsh(h)[0], abs=1e-12)


def test_zero_matrix():
    blocks, h, _ = drawn((2, [3, 3]), 0)
    assert lowest(blocks, 0 * h).tolist() == [0.0, 0.0]


# ---------------------------------------------------------------------------------------------- the exact subproblem


SPECTRA = {
    "indefinite": 0.0,
    "definite": lambda values: 0.1 - values[0],
    "singular": lambda values: -values[0],
    "negative": lambda values: -0.1 - values[-1],
    "half": lambda values: -np.median(values),
}
GRADIENTS = {
    "easy": lambda rng, v: rng.standard_normal(len(v)),
    "hard": lambda rng, v: (np.eye(len(v)) - np.outer(v[:, 0], v[:, 0])) @ rng.standard_normal(len(v)),
    "near hard": lambda rng, v: v @ (rng.standard_normal(len(v)) * np.where(np.arange(len(v)), 1, 1e-13)),
    "along the lowest": lambda rng, v: v[:, 0],
    "sparse": lambda rng, v: rng.standard_normal(len(v)) * (rng.random(len(v)) < 0.2),
    "zero": lambda rng, v: np.zeros(len(v)),
}


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("spectrum", SPECTRA)
@settings(max_examples=12)
@given(FORMS, SEEDS, st.floats(-4, 4), st.floats(-6, 2))
def test_conditions_of_the_minimum(spectrum, gradient, form, seed, radius, slope):
    blocks, h, rng = drawn(form, seed)
    values, vectors = np.linalg.eigh(h)
    h = h + (SPECTRA[spectrum](values) if spectrum != "indefinite" else 0.0) * np.eye(len(h))
    g = 10**slope * GRADIENTS[gradient](rng, vectors)
    p, decrease = step(blocks, h, g, 10**radius)
    found = violations(h, g, 10**radius, p)
    assert max(found.values()) <= TOLERANCE, found
    error = 1e-10 * (abs(h).sum(1).max() * 100**radius + np.linalg.norm(g) * 10**radius)
    assert decrease == pytest.approx(-(g @ p + 0.5 * p @ h @ p), abs=error)


@settings(max_examples=60)
@given(FORMS, SEEDS, st.floats(-148, 148), st.floats(-148, 148))
def test_conditions_in_units_of_any_size(form, seed, curvature, slope):
    blocks, h, rng = drawn(form, seed)
    radius = np.clip(slope - curvature, curvature - 148, curvature + 148) if abs(slope - curvature) < 148 else 0.0
    radius = float(np.clip(radius, slope - 148, slope + 148))
    g = 10.0**slope * rng.standard_normal(len(h))
    with np.errstate(under="ignore"):
        if not 1e-300 < 10.0 ** (slope - radius) < 1e148:
            return
        found = violations(10.0**curvature * h, g, 10.0**radius, step(blocks, 10.0**curvature * h, g, 10.0**radius)[0])
    assert max(found.values()) <= TOLERANCE, found


@settings(max_examples=60)
@given(FORMS, SEEDS, st.booleans())
def test_the_step_is_the_dense_one(form, seed, definite):
    blocks, h, rng = drawn(form, seed, definite)
    g = rng.standard_normal(len(h))
    none = np.zeros(TABLES, np.int64)
    p, record, space = np.empty(len(g)), np.empty(2), space_for(blocks, len(g))
    h = np.ascontiguousarray(h)
    STEP.call(
        none.ctypes.data, h.ctypes.data, g.ctypes.data, len(g), 0.5, p.ctypes.data, space.ctypes.data,
        record.ctypes.data,
    )  # fmt: skip
    np.testing.assert_allclose(step(blocks, h, g, 0.5)[0], p, rtol=0, atol=1e-9)


def test_a_saddle_without_gradient_is_left_to_the_boundary():
    for seed in range(10):
        blocks, h, _ = drawn((6, [3] * 8), seed)
        p, decrease = step(blocks, h, np.zeros(len(h)), 0.7)
        values = np.linalg.eigvalsh(h)
        assert np.linalg.norm(p) == pytest.approx(0.7, rel=1e-12)
        assert decrease == pytest.approx(-0.5 * 0.49 * values[0], rel=1e-12)
        assert not math.isnan(decrease)
