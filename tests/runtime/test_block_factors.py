"""Arrow Hessians: block factors, their squares, the lowest eigenvalue, and where numbers are gathered from."""

from functools import partial

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wiberg.compiler.machine_code.native import native
from wiberg.runtime.algebra.arrow import arrow_of, blocks_of
from wiberg.runtime.algebra.block_factors import (
    factor_block,
    half_solve,
    lowest_of_arrow,
    mirror,
    solve_block,
    subtract_square,
    whole_number,
    work_for,
)

SEEDS = st.integers(0, 2**32 - 1)


def compiled(function, *arguments):
    """A call of machine code."""
    return native(function).call(*(a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments))


def symmetric(rng, size, eigenvalues):
    basis = np.linalg.qr(rng.standard_normal((size, size)))[0]
    matrix = basis * eigenvalues @ basis.T
    return (matrix + matrix.T) / 2


def solved(matrix, right):
    """The code, and A^+ b where there is one."""
    n = len(matrix)
    factor, work, x = np.zeros(2 * n * n), np.zeros(n * n + 8 * n), right.copy()
    code = compiled(factor_block, np.ascontiguousarray(matrix), n, factor, work)
    if code >= 0:
        compiled(solve_block, factor, float(code), n, x, work)
    return code, x


@settings(max_examples=60)
@given(seed=SEEDS, size=st.integers(1, 7), condition=st.integers(0, 10))
def test_definite_blocks_are_solved_by_cholesky(seed, size, condition):
    rng = np.random.default_rng(seed)
    matrix = symmetric(rng, size, np.logspace(0, -condition, size))
    right = rng.standard_normal(size)
    code, x = solved(matrix, right)
    assert code == size + 1
    assert np.linalg.norm(matrix @ x - right) <= 1e-13 * np.linalg.norm(x) + 1e-13 * np.linalg.norm(right)


@settings(max_examples=60)
@given(seed=SEEDS, size=st.integers(1, 7), rank=st.integers(0, 6))
def test_singular_blocks_have_the_solution_of_least_length(seed, size, rank):
    rank = min(rank, size - 1)
    rng = np.random.default_rng(seed)
    half = rng.standard_normal((size, rank))
    matrix = half @ half.T
    right = matrix @ rng.standard_normal(size)
    code, x = solved(matrix, right)
    assert code == rank
    expected = np.linalg.pinv(half.T) @ (np.linalg.pinv(half) @ right) if rank else np.zeros(size)
    np.testing.assert_allclose(x, expected, rtol=0, atol=1e-8 * (1 + np.abs(expected).max()))


@settings(max_examples=30)
@given(seed=SEEDS, size=st.integers(1, 7), depth=st.floats(1e-9, 1))
def test_indefinite_blocks_are_told(seed, size, depth):
    rng = np.random.default_rng(seed)
    matrix = symmetric(rng, size, np.append(np.ones(size - 1), -depth))
    assert solved(matrix, np.ones(size))[0] == -1


@settings(max_examples=60)
@given(seed=SEEDS, size=st.integers(1, 7), rank=st.integers(1, 7), count=st.integers(1, 6))
def test_half_solves_square_to_the_reduction(seed, size, rank, count):
    """S - V'V with V'V = C'A^+ C, A regular or singular, into some rows of a larger S."""
    rng = np.random.default_rng(seed)
    half = rng.standard_normal((size, min(rank, size)))
    matrix = half @ half.T
    right = matrix @ rng.standard_normal((size, count))
    factor, work, v = np.zeros(2 * size**2), np.zeros(size**2 + 8 * size), np.zeros(size * count)
    code = compiled(factor_block, matrix, size, factor, work)
    rows = compiled(half_solve, factor, float(code), size, np.ascontiguousarray(right), count, v)
    assert rows == min(rank, size)
    k = count + 2
    coupled = np.sort(rng.permutation(k)[:count])
    s = symmetric(rng, k, np.ones(k))
    expected = s.copy()
    expected[np.ix_(coupled, coupled)] -= right.T @ np.linalg.pinv(matrix, rcond=1e-10) @ right
    compiled(subtract_square, v, rows, coupled, count, s, k, np.zeros(count))
    compiled(mirror, s, k)
    np.testing.assert_allclose(s, expected, rtol=0, atol=1e-8 * (1 + np.abs(expected).max()))


@pytest.mark.parametrize("number", [-1, 0, 1, 7, 1000])
def test_whole_numbers_are_read_back(number):
    assert whole_number(float(number)) == number


class Random:
    """A random arrow: kept unknowns first, blocks in order."""

    def __init__(self, seed, kept, sizes, share=0.7):
        rng = np.random.default_rng(seed)
        m = kept + sum(sizes)
        self.matrix = np.zeros((m, m))
        self.matrix[:kept, :kept] = symmetric(rng, kept, rng.standard_normal(kept))
        self.sizes, self.kept, at = np.array(sizes, np.int64), kept, kept
        self.meets, self.places = [], []
        for size in sizes:
            own = slice(at, at + size)
            self.matrix[own, own] = symmetric(rng, size, rng.uniform(-0.3, 3, size))
            met = np.flatnonzero(rng.random(kept) < share)
            values = rng.standard_normal((len(met), size))
            self.matrix[met, own], self.matrix[own, met] = values, values.T
            self.meets.append(met)
            self.places.append(own)
            at += size

    def lowest(self, function):
        """The lowest eigenvalue as the function finds it."""
        H, kept = self.matrix, self.kept
        corner = np.ascontiguousarray(H[:kept, :kept]).ravel()
        coupling = [H[own, met].ravel() for met, own in zip(self.meets, self.places, strict=True)]
        blocks = [H[own, own].ravel() for own in self.places]
        coupling, blocks = (np.concatenate([np.zeros(0), *parts, np.zeros(1)]) for parts in (coupling, blocks))
        big = max([1, *self.sizes])
        couplings = np.array([len(met) for met in self.meets], np.int64)
        coupled = np.concatenate([np.zeros(0, np.int64), *self.meets, np.zeros(1, np.int64)])
        return function(
            corner, coupling, blocks, kept, len(self.sizes), self.sizes, couplings, coupled,
            np.zeros(2 * len(blocks)), np.zeros(work_for(big, kept)), np.zeros(2 * kept**2 + 8 * kept),
        )  # fmt: skip


compiled_lowest = partial(compiled, lowest_of_arrow)


@settings(max_examples=200)
@given(seed=SEEDS, kept=st.integers(1, 6), sizes=st.lists(st.integers(1, 5), max_size=6), share=st.floats(0, 1))
@example(seed=0, kept=1, sizes=[], share=1.0)
@example(seed=1, kept=2, sizes=[1], share=0.0)
def test_lowest_eigenvalue_is_that_of_the_whole(seed, kept, sizes, share):
    arrow = Random(seed, kept, sizes, share)
    values = np.linalg.eigvalsh(arrow.matrix)
    assert abs(arrow.lowest(compiled_lowest) - values[0]) <= 1e-12 * np.abs(values).max()


@settings(max_examples=50)
@given(seed=SEEDS, kept=st.integers(1, 4), count=st.integers(1, 5), coupling=st.integers(-16, 0))
def test_lowest_eigenvalue_near_that_of_a_block(seed, kept, count, coupling):
    """Weak coupling: the lowest eigenvalue is an eigenvalue of A but for next to nothing."""
    arrow = Random(seed, kept, [2] * count, 1.0)
    H = arrow.matrix
    H[:kept, kept:] *= 10.0**coupling
    H[kept:, :kept] *= 10.0**coupling
    H[:kept, :kept] += 5 * np.eye(kept)
    values = np.linalg.eigvalsh(H)
    assert abs(arrow.lowest(compiled_lowest) - values[0]) <= 1e-12 * np.abs(values).max()


@settings(max_examples=50)
@given(seed=SEEDS, kept=st.integers(1, 4), count=st.integers(1, 5), rank=st.integers(1, 8))
def test_lowest_eigenvalue_of_semidefinite_arrows_is_zero(seed, kept, count, rank):
    """Sums of squares of few residuals: singular as a whole, and in blocks."""
    rng, arrow = np.random.default_rng(seed), Random(seed, kept, [3] * count, 1.0)
    arrow.matrix[:] = 0.0
    for own in arrow.places:
        members = np.r_[0:kept, own.start : own.stop]
        half = rng.standard_normal((len(members), min(rank, 2)))
        arrow.matrix[np.ix_(members, members)] += half @ half.T
    values = np.linalg.eigvalsh(arrow.matrix)
    assert abs(arrow.lowest(compiled_lowest) - values[0]) <= 1e-12 * np.abs(values).max()


def test_python_and_machine_code_agree():
    arrow = Random(3, 3, [2, 3, 1])
    with np.errstate(all="ignore"):
        plain = arrow.lowest(lowest_of_arrow)
    assert plain == pytest.approx(arrow.lowest(compiled_lowest), rel=1e-13)


def test_a_hessian_that_is_not_finite_has_no_eigenvalue():
    arrow = Random(3, 2, [2])
    arrow.matrix[0, 0] = np.nan
    assert np.isnan(arrow.lowest(compiled_lowest))


# ---------------------------------------------------------------------------------------------- where numbers are


class Known:
    """A pattern as pattern.py makes them, every entry from one slot or from two."""

    def __init__(self, matrix, seed, doubled):
        rng = np.random.default_rng(seed)
        self.shape = matrix.shape
        rows, columns = np.nonzero(matrix)
        self.indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(matrix)))])
        self.indices, self.nnz = columns, len(rows)
        per = 2 if doubled else 1
        self.sources = rng.permutation(per * self.nnz)
        self.starts = np.arange(0, 2 * self.nnz + 1, 2) if doubled else None
        self.slots = np.zeros(per * self.nnz)
        values = matrix[rows, columns]
        if doubled:
            part = rng.random(self.nnz) * values
            self.slots[self.sources[::2]], self.slots[self.sources[1::2]] = part, values - part
        else:
            self.slots[self.sources] = values


@settings(max_examples=60)
@given(
    seed=SEEDS, kept=st.integers(0, 4), sizes=st.lists(st.integers(1, 4), max_size=5), slots=st.booleans(),
    doubled=st.booleans(),
)  # fmt: skip
def test_every_number_is_gathered_from_its_place(seed, kept, sizes, slots, doubled):
    arrow = Random(seed, max(1, kept), sizes)
    rng = np.random.default_rng(seed)
    m = len(arrow.matrix)
    order = rng.permutation(m)
    H = arrow.matrix[np.ix_(order, order)]
    eliminated = order >= arrow.kept
    pattern = Known(H, seed, doubled)
    blocks = blocks_of(eliminated, pattern)
    found = arrow_of(eliminated, blocks, pattern, slots=slots)
    written = np.concatenate([np.full(m, np.nan), pattern.slots if slots else H.ravel()])
    numbers = [written[found.sources[a:b]].sum() for a, b in zip(found.starts[:-1], found.starts[1:], strict=True)]
    rebuilt, at, met, z = np.zeros((m, m)), found.kept.size**2, 0, 0
    rebuilt[np.ix_(found.kept, found.kept)] = np.reshape(numbers[:at], (len(found.kept),) * 2)
    for size, count in zip(found.sizes, found.couplings, strict=True):
        own, rows = found.order[z : z + size], found.kept[found.coupled[met : met + count]]
        values = np.reshape(numbers[at : at + size * count], (size, count))
        rebuilt[np.ix_(own, rows)], rebuilt[np.ix_(rows, own)] = values, values.T
        at, met, z = at + size * count, met + count, z + size
    z = 0
    for size in found.sizes:
        own = found.order[z : z + size]
        rebuilt[np.ix_(own, own)] = np.reshape(numbers[at : at + size**2], (size, size))
        at, z = at + size**2, z + size
    assert at == len(numbers) and sorted(np.r_[found.kept, found.order]) == list(range(m))
    np.testing.assert_allclose(rebuilt, H, atol=1e-15)
    assert len(found.sizes) >= len(sizes) and set(found.sizes) <= set(range(1, 5))
