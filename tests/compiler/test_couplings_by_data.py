"""Where Hessians of any structure can have entries: nothing that is not 0 is left out, and blocks are found."""

import random

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from energies_table import RANDOM_SEEDS, TABLE, draw
from wiberg.compiler import points
from wiberg.compiler.random_energies import random_energy

n, m, rank = sp.symbols("n m rank", integer=True, positive=True)
i, j, q = sp.Idx("i", n), sp.Idx("j", m), sp.Idx("q", rank)


def places(kernel, y, w, x):
    """The pattern as a bool matrix, None if the formula does not tell."""
    inputs = kernel.bind(w, x, y)
    ((pattern, instances),) = kernel.dense_patterns(inputs, range(1))
    assert instances == range(1)
    return None if pattern is None else pattern.matrix(np.ones(pattern.nnz)).toarray() != 0.0


@pytest.mark.parametrize("name", TABLE)
def test_every_entry_of_the_table_is_covered(name):
    energy = TABLE[name]()
    if energy.over:
        pytest.skip("families are not asked for")
    kernel, point = wb.compile(energy, backend="reference"), draw(energy, seed=3)
    found, hessian = places(kernel, *point), kernel.dense_hessian(*point)
    if found is None:
        return
    assert found.shape == hessian.shape and (found == found.T).all()
    assert not (hessian[~found] != 0.0).any()
    if kernel.structure != "dense":
        inputs = kernel.bind(*point[1:], point[0])
        pattern = kernel.pattern("hessian", inputs)
        assert (found <= (pattern.matrix(np.ones(pattern.nnz)).toarray() != 0.0)).all()


@pytest.mark.parametrize("seed", RANDOM_SEEDS)
def test_every_entry_of_random_energies_is_covered(seed):
    energy = random_energy(random.Random(seed))
    kernel, source = wb.compile(energy, backend="reference"), np.random.default_rng(seed)
    point = points.random_point(energy, dict.fromkeys(energy.extents, 3), source, positive=False)
    y, w, x = ({str(s.name): point[str(s.name)] for s in r} for r in (energy.variables, energy.weights, energy.data))
    found = None if energy.over else places(kernel, y, w, x)
    if found is not None:
        assert not (kernel.dense_hessian(y, w, x)[~found] != 0.0).any()


def test_blocks_of_a_symbolic_size_are_seen_in_a_dense_hessian():
    """Factors of a matrix: no row of V meets another one, and a row of U those of V that it shares an entry with."""
    U, V = sp.IndexedBase("U", shape=(n, rank)), sp.IndexedBase("V", shape=(m, rank))
    count = sp.Symbol("count", integer=True, positive=True)
    k, x = sp.Idx("k", count), sp.IndexedBase("x", shape=(count,))
    at = sp.IndexedBase("at", shape=(count, 2), integer=True)
    energy = sp.Sum((x[k] - sp.Sum(U[at[k, 0], q] * V[at[k, 1], q], q)) ** 2, k)
    kernel = wb.compile(wb.Energy(energy, variables=[U, V], data=[x, at]), backend="reference")
    assert kernel.structure == "dense"
    known = np.array([[0, 0], [0, 2], [1, 1], [2, 2]])
    y = {"U": np.ones((3, 2)), "V": np.ones((4, 2))}
    found = places(kernel, y, None, {"x": np.ones(4), "at": known})
    meets = np.zeros((7, 7), bool)
    meets[known[:, 0], 3 + known[:, 1]] = meets[3 + known[:, 1], known[:, 0]] = True
    meets |= np.diag([True, True, True, True, True, True, False])  # the last row of V is in no entry
    np.testing.assert_array_equal(found, np.kron(meets, np.ones((2, 2), bool)))


def test_ranges_that_depend_on_outer_indices():
    """Pairs j < i of a list that starts at 2: the loop over i is needed for the range of j."""
    y, s = sp.IndexedBase("y", shape=(n,)), sp.Symbol("s", integer=True)
    i, j = sp.symbols("i j", integer=True)
    energy = sp.Sum(sp.exp(y[j] * y[i - 1]), (j, 0, i - 2), (i, 2, n - 1)) + sp.Sum(y[s] ** 2, (s, 0, n - 1))
    kernel = wb.compile(wb.Energy(energy, variables=[y]), backend="reference")
    point = {"y": np.linspace(-1, 1, 6)}, {}, {}
    found, hessian = places(kernel, *point), kernel.dense_hessian(*point)
    np.testing.assert_array_equal(found, hessian != 0.0)


def test_too_many_entries_are_not_worked_out(monkeypatch):
    y = sp.IndexedBase("y", shape=(n,))
    kernel = wb.compile(wb.Energy(sp.log(1 + sp.Sum(y[i] ** 2, i)), variables=[y]), backend="reference")
    inputs = kernel.bind(None, None, {"y": np.zeros(5000)})
    assert kernel.dense_patterns(inputs, range(3)) == [(None, range(3))]
    monkeypatch.setattr("wiberg.compiler.kernel.MOST_ENTRIES", 10)
    assert kernel.dense_patterns(kernel.bind(None, None, {"y": np.zeros(3)}), range(1))[0][0] is None
