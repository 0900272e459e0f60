"""Incomplete factors and conjugate gradients for sparse matrices, against dense linear algebra."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sparse
from drivers import compiled
from hypothesis import given
from hypothesis import strategies as st
from wiberg.compiler.calls.pattern import Pattern
from wiberg.compiler.machine_code.signature import DoublePointer, IntegerPointer
from wiberg.runtime.algebra import sweeps
from wiberg.runtime.algebra.conjugate_gradients import System, conjugate_gradients, eigenvalue_bounds, precondition
from wiberg.runtime.algebra.curvature import curvature
from wiberg.runtime.algebra.sweeps import find_sweeps


def _solve(
    layout: IntegerPointer,
    memory: DoublePointer,
    slots: DoublePointer,
    shift: float,
    b: DoublePointer,
    radius: float,
    tolerance: float,
    limit: int,
    out: DoublePointer,
    results: DoublePointer,
    stop: IntegerPointer,
) -> int:
    results[0] = precondition(layout, slots, shift, memory, stop)
    ended, results[1], results[2] = conjugate_gradients(
        layout, memory, 0, slots, stop, stop, 0, b, b, shift, b, radius, 1.0, tolerance, limit, out, stop
    )
    return ended


def _bounds(
    layout: IntegerPointer, slots: DoublePointer, memory: DoublePointer, results: DoublePointer, stop: IntegerPointer
) -> None:
    results[0], results[1] = eigenvalue_bounds(layout, slots, memory, stop)


def stencil(shape, offsets, random, *, signs=1.0, dominance=1.1):
    """A symmetric matrix on a grid whose points couple to those at the offsets."""
    n = math.prod(shape)
    places = np.arange(n).reshape(shape)
    rows, columns = [], []
    for offset in offsets:
        here = tuple(slice(max(0, -o), s - max(0, o)) for o, s in zip(offset, shape, strict=True))
        there = tuple(slice(max(0, o), s - max(0, -o)) for o, s in zip(offset, shape, strict=True))
        rows.append(places[here].ravel())
        columns.append(places[there].ravel())
    rows, columns = np.concatenate(rows), np.concatenate(columns)
    values = -signs * random.uniform(0.2, 1.0, len(rows))
    upper = sparse.coo_array((values, (rows, columns)), shape=(n, n)).tocsr()
    matrix = upper + upper.T
    matrix = (matrix + sparse.diags_array(dominance * np.abs(matrix).sum(axis=1) + 0.01)).tocsr()
    matrix.sort_indices()
    return matrix


SHAPES = {
    "image": ((9, 13), [(0, 1), (1, 0)]),
    "tall image": ((40, 3), [(0, 1), (1, 0)]),
    "image with corners": ((12, 11), [(0, 1), (1, 0), (1, 1), (1, -1)]),
    "far neighbours": ((15, 16), [(0, 1), (1, 0), (0, 2), (2, 0)]),
    "volume": ((6, 5, 7), [(0, 0, 1), (0, 1, 0), (1, 0, 0)]),
    "two images": ((2, 8, 9), [(0, 0, 1), (0, 1, 0), (1, 0, 0)]),
    "chain": ((50,), [(1,)]),
}


@pytest.fixture(autouse=True, scope="module")
def short_runs():
    """Small matrices are swept as large ones are, a chain row by row."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeps, "SHORTEST", 1.5)
        yield


def system_of(matrix, parts=1, random=None):
    """A system and slots; with parts above 1, each entry is the sum of several slots."""
    csr = matrix.tocsr()
    if parts == 1:
        pattern = Pattern(csr.shape, csr.indptr, csr.indices, np.arange(csr.nnz), None)
        return System(pattern), pattern, csr.data.copy()
    pieces = random.normal(size=(csr.nnz, parts))
    pieces[:, -1] = csr.data - pieces[:, :-1].sum(axis=1)
    sources = random.permutation(parts * csr.nnz)
    slots = np.empty(parts * csr.nnz)
    slots[sources] = pieces.ravel()
    pattern = Pattern(csr.shape, csr.indptr, csr.indices, sources, np.arange(0, parts * csr.nnz + 1, parts))
    return System(pattern), pattern, slots


def solve(system, slots, b, shift=0.0, radius=math.inf, tolerance=1e-12, limit=1000):
    memory, out, results, stop = np.full(system.memory, math.nan), np.empty(len(b)), np.empty(3), np.zeros(1, np.int64)
    ended = compiled(_solve).call(
        system.address, memory.ctypes.data, slots.ctypes.data, shift, b.ctypes.data, radius, tolerance, limit,
        out.ctypes.data, results.ctypes.data, stop.ctypes.data,
    )  # fmt: skip
    return ended, out, results


def steps(system, slots, b, **options):
    """How many steps a solve takes."""
    return next(k for k in range(1000) if solve(system, slots, b, limit=k, **options)[0] == 0)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("parts", [1, 3])
def test_solutions_are_those_of_a_dense_factorisation(name, parts):
    random = np.random.default_rng(1)
    matrix = stencil(*SHAPES[name], random)
    system, _, slots = system_of(matrix, parts, random)
    b, n = random.normal(size=matrix.shape[0]), matrix.shape[0]
    ended, out, (top, length, left) = solve(system, slots, b, shift=0.3)
    expected = np.linalg.solve(matrix.toarray() + 0.3 * np.eye(n), b)
    assert ended == 0
    np.testing.assert_allclose(out, expected, rtol=1e-10, atol=1e-11)
    assert top == pytest.approx(matrix.diagonal().max() + 0.3)
    assert length > 0.0 and abs(left) < 1e-10 * abs(out @ b)


@given(st.sampled_from(sorted(SHAPES)), st.integers(0, 10**6), st.sampled_from([-1.0, 1.0]), st.floats(1.0, 3.0))
def test_any_matrix_of_few_diagonals_is_solved(name, seed, signs, dominance):
    random = np.random.default_rng(seed)
    matrix = stencil(*SHAPES[name], random, signs=signs, dominance=dominance)
    system, _, slots = system_of(matrix)
    b = random.normal(size=matrix.shape[0])
    ended, out, _ = solve(system, slots, b, tolerance=1e-11)
    assert ended == 0
    assert np.linalg.norm(matrix @ out - b) <= 2e-11 * np.linalg.norm(b)


def test_the_residual_is_judged_as_given_not_as_preconditioned():
    random = np.random.default_rng(3)
    matrix = stencil((20, 20), [(0, 1), (1, 0)], random)
    scales = sparse.diags_array(10.0 ** random.uniform(-3, 3, 400))
    matrix = (scales @ matrix @ scales).tocsr()
    system, _, slots = system_of(matrix)
    b = random.normal(size=400)
    for tolerance in (1e-1, 1e-4, 1e-9):
        ended, out, _ = solve(system, slots, b, tolerance=tolerance)
        assert ended == 0
        assert np.linalg.norm(matrix @ out - b) <= 1.01 * tolerance * np.linalg.norm(b)


@pytest.mark.parametrize("seed", range(4))
def test_sweeps_do_not_blow_up_where_diagonals_hardly_dominate(seed):
    """Pivots below what stands under them: 1e8 in the factors, and solutions wrong in the eighth digit."""
    random = np.random.default_rng(seed)
    matrix = stencil(*SHAPES["tall image"], random, dominance=1.0)
    system, _, slots = system_of(matrix)
    b = random.normal(size=matrix.shape[0])
    ended, out, _ = solve(system, slots, b, tolerance=1e-11)
    assert ended == 0 and np.linalg.norm(matrix @ out - b) <= 1e-10 * np.linalg.norm(b)


def test_pivots_take_what_elimination_leaves_out():
    """Without it (Meijerink and van der Vorst alone) this takes 57 steps."""
    random = np.random.default_rng(0)
    matrix = stencil((60, 60), [(0, 1), (1, 0)], random, dominance=1.0)
    system, _, slots = system_of(matrix)
    assert steps(system, slots, random.normal(size=3600), tolerance=1e-8) <= 40


def test_numbers_that_are_not_finite_end_a_solve():
    matrix = stencil((10, 10), [(0, 1), (1, 0)], np.random.default_rng(0))
    system, _, slots = system_of(matrix)
    slots[7] = math.nan
    assert solve(system, slots, np.ones(100), limit=50)[0] == 3


def test_an_image_takes_a_third_of_the_steps_of_the_diagonal(monkeypatch):
    random = np.random.default_rng(0)
    matrix = stencil((40, 40), [(0, 1), (1, 0)], random, dominance=1.02)
    b = random.normal(size=1600)
    system, _, slots = system_of(matrix)
    scale = 1.0 / np.sqrt(matrix.diagonal())
    scaled = sparse.diags_array(scale) @ matrix @ sparse.diags_array(scale)
    plain = 0
    x, r = np.zeros(1600), scale * b
    p = r.copy()
    while np.linalg.norm(r) > 1e-10 * np.linalg.norm(scale * b):
        q = scaled @ p
        length = (r @ r) / (p @ q)
        x, new = x + length * p, r - length * q
        p = new + (new @ new) / (r @ r) * p
        r, plain = new, plain + 1
    assert 3 * steps(system, slots, b, tolerance=1e-10) <= plain


def test_a_chain_is_factorised_exactly():
    random = np.random.default_rng(0)
    system, _, slots = system_of(stencil((300,), [(1,)], random))
    assert steps(system, slots, random.normal(size=300)) <= 12  # all of the fill that is left out is 0
    assert system.layout[3] == 1  # one by one


def test_the_boundary_of_the_region_is_reached():
    random = np.random.default_rng(5)
    matrix = stencil((10, 10), [(0, 1), (1, 0)], random)
    system, _, slots = system_of(matrix)
    b = random.normal(size=100)
    _, newton, (_, whole, _) = solve(system, slots, b)
    ended, out, (_, length, left) = solve(system, slots, b, radius=0.3 * whole)
    assert ended == 1 and length == pytest.approx(0.3 * whole)
    assert b @ out > 0.0 and left == pytest.approx(out @ (b - matrix @ out))
    model = [-b @ x + x @ (matrix @ x) / 2 for x in (newton, out, 0.3 * newton)]
    assert model[0] < model[1] < 0.0


def test_a_direction_without_curvature_ends_the_solve():
    random = np.random.default_rng(6)
    matrix = stencil((10, 10), [(0, 1), (1, 0)], random)
    matrix = (matrix - sparse.diags_array(np.full(100, 3.0))).tocsr()
    system, _, slots = system_of(matrix)
    ended, out, (_, length, _) = solve(system, slots, random.normal(size=100), radius=2.0)
    assert ended == 2 and length == pytest.approx(2.0) and np.isfinite(out).all()


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("parts", [1, 2])
def test_bounds_of_eigenvalues_are_those_of_the_discs(name, parts):
    random = np.random.default_rng(2)
    matrix = stencil(*SHAPES[name], random)
    system, _, slots = system_of(matrix, parts, random)
    results, memory, stop = np.empty(2), np.empty(system.memory), np.zeros(1, np.int64)
    compiled(_bounds).call(system.address, *(a.ctypes.data for a in (slots, memory, results, stop)))
    expected = curvature(matrix)
    assert expected.downwards is None
    np.testing.assert_allclose(results, [expected.lowest, expected.size], rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------------------------------- the order


@pytest.mark.parametrize("name", SHAPES)
def test_no_row_of_a_run_needs_another_of_it(name):
    matrix = stencil(*SHAPES[name], np.random.default_rng(0))
    found = find_sweeps(matrix.indptr, matrix.indices)
    n = matrix.shape[0]
    assert sorted(found.order) == list(range(n))
    permuted = matrix[found.order][:, found.order].toarray()
    for runs, above in ((found.forth, False), (found.back, True)):
        assert runs[0, 0] == 0 and runs[-1, 1] == n and (runs[1:, 0] == runs[:-1, 1]).all()
        for begin, end, *distances in runs:
            own = permuted[begin:end, begin:end]
            if not found.one_by_one:
                assert (own == np.diag(np.diag(own))).all()
            for i in range(begin, end):
                needed = set(np.flatnonzero(permuted[i] != 0)) & set(range(i + 1, n) if above else range(i))
                assert needed <= {i + d for d in distances}


def test_an_image_is_swept_along_antidiagonals():
    matrix = stencil((30, 20), [(0, 1), (1, 0)], np.random.default_rng(0))
    found = find_sweeps(matrix.indptr, matrix.indices)
    assert not found.one_by_one and len(found.forth) == len(found.back) == 30 + 20 - 1


def test_graphs_and_diagonal_matrices_are_left_to_the_diagonal(monkeypatch):
    monkeypatch.setattr(sweeps, "SHORTEST", 10)
    random = np.random.default_rng(0)
    bending, narrow = stencil((60,), [(1,), (2,)], random), stencil((500, 5), [(0, 1), (1, 0)], random)
    graph = sparse.random_array((200, 200), density=0.03, rng=random)
    graph = (graph + graph.T + 10 * sparse.eye_array(200)).tocsr()
    for matrix in (graph, sparse.eye_array(50).tocsr(), bending, narrow):
        assert find_sweeps(matrix.indptr, matrix.indices) is None
