"""Minimising over many unknowns with a sparse Hessian: against the dense driver, at saddles, without a minimum."""

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from energies_table import TABLE, draw
from wiberg.runtime import sparse
from wiberg.runtime.algebra.curvature import curvature, definite

n, k = sp.symbols("n k", integer=True, positive=True)
i, step, edge = sp.Idx("i", n), sp.Idx("step", (0, n - 2)), sp.Idx("edge", k)
y, x = sp.IndexedBase("y", shape=(n,)), sp.IndexedBase("x", shape=(n,))
e = sp.IndexedBase("e", shape=(k, 2), integer=True)
a = sp.Symbol("a", positive=True)

ENERGIES = {
    "double wells": (sp.Sum(y[i] ** 4 / 4 - y[i] ** 2 / 2, i), []),
    "chain": (sp.Sum((y[step + 1] - y[step] - 1) ** 2, step), []),
    "anchored chain": (sp.Sum(1000 * (y[step + 1] - y[step]) ** 2, step) + sp.Sum((y[i] - x[i]) ** 2, i) / 1000, [x]),
    "downhill": (-sp.Sum(y[i] ** 2, i), []),
    "bowl": (sp.Sum(sp.sqrt(1 + (y[i] - x[i]) ** 2), i), [x]),
    "graph": (sp.Sum(sp.sqrt(1 + (y[e[edge, 0]] - y[e[edge, 1]]) ** 2), edge) + sp.Sum((y[i] - x[i]) ** 2, i), [x, e]),
    "saddle of two": (sp.Sum(y[step] * y[step + 1], step) + sp.Sum(y[i] ** 4, i), []),
}

TABLED = ("denoise", "rosenbrock", "springs", "diagonal", "three_sums", "gathered", "ends")


@pytest.fixture(scope="module")
def compiled():
    made = {}

    def kernel(name):
        if name not in made:
            formula, data = ENERGIES[name]
            made[name] = wb.compile(wb.Energy(formula, variables=[y], data=data, name=name), backend="reference")
        return made[name]

    return kernel


@pytest.fixture(scope="module")
def references():
    """Energies of the table, interpreted."""
    return {name: wb.compile(TABLE[name](), backend="reference") for name in TABLED}


@pytest.fixture
def always(monkeypatch):
    """Small problems go the way of large ones."""
    monkeypatch.setattr(sparse, "MANY", 0)


@pytest.mark.parametrize("name", ["denoise", "rosenbrock", "springs"])
def test_minimisers_are_those_of_the_dense_driver(name, monkeypatch, references):
    kernel = references[name]
    start, w, data = draw(kernel.energy, 4, seed=1)
    if name == "rosenbrock":
        w["b"] = 100.0
    expected = wb.minimise(kernel, w, data, start=start)
    monkeypatch.setattr(sparse, "MANY", 0)
    got = wb.minimise(kernel, w, data, start=start)
    assert got.status == expected.status == wb.Status.CONVERGED and got.gradient_norm <= 1e-8
    assert got.energy == pytest.approx(expected.energy, rel=1e-9)
    assert got.curvature <= expected.curvature + 1e-9


def test_the_method_is_chosen_by_the_number_of_unknowns_and_the_structure(compiled):
    kernel = compiled("bowl")
    few, many = (kernel.bind(None, {"x": np.zeros(count)}) for count in (sparse.MANY, sparse.MANY + 1))
    assert not sparse.is_sparse(kernel, few) and sparse.is_sparse(kernel, many)
    pairs = wb.Energy(sp.log(1 + sp.Sum((y[i] - x[i]) ** 2, i)), variables=[y], data=[x])
    assert not sparse.is_sparse(wb.compile(pairs, backend="reference"), many)


def test_many_unknowns_that_are_all_coupled_are_refused(compiled):
    pairs = wb.Energy(sp.log(1 + sp.Sum(y[i] ** 2, i)), variables=[y], name="pairs")
    with pytest.raises(wb.InputError, match=r"'pairs'.*50000 unknowns.*couples all unknowns.*hvp"):
        wb.minimise(wb.compile(pairs, backend="reference"), start={"y": np.ones(50_000)})


def test_a_start_on_a_saddle_leaves_it(always, compiled):
    solution = wb.minimise(compiled("double wells"), start={"y": np.zeros(5)})
    assert solution.status == wb.Status.CONVERGED
    np.testing.assert_allclose(np.abs(solution.variables["y"]), 1.0, atol=1e-8)


def test_a_saddle_that_discs_do_not_show_is_left_along_its_lowest_curvature(always, compiled):
    solution = wb.minimise(compiled("saddle of two"), start={"y": np.zeros(6)})
    assert solution.status == wb.Status.CONVERGED and solution.energy < -0.1
    assert np.linalg.eigvalsh(compiled("saddle of two").dense_hessian(solution.variables))[0] > 0


def test_a_singular_semidefinite_hessian_is_a_minimum(always, compiled):
    solution = wb.minimise(compiled("chain"), start={"y": np.zeros(9)})
    assert solution.status == wb.Status.CONVERGED
    np.testing.assert_allclose(np.diff(solution.variables["y"]), 1.0, atol=1e-8)


def test_an_energy_without_a_minimum_is_unbounded(always, compiled):
    assert wb.minimise(compiled("downhill"), start={"y": np.ones(5)}).status == wb.Status.UNBOUNDED


def test_a_start_that_is_not_finite_says_so(always, compiled):
    solution = wb.minimise(compiled("double wells"), start={"y": [[0.5, np.nan], [0.5, 2.0]]})
    assert list(solution.status) == [wb.Status.NOT_FINITE, wb.Status.CONVERGED]


def test_steps_are_limited(always, compiled):
    solution = wb.minimise(compiled("bowl"), None, {"x": np.full(5, 3.0)}, start={"y": np.zeros(5)}, max_iterations=1)
    assert solution.status == wb.Status.ITERATION_LIMIT and solution.iterations == 1


def test_without_steps_a_saddle_is_returned_as_it_is(always, compiled):
    solution = wb.minimise(compiled("double wells"), start={"y": np.zeros(5)}, max_iterations=0)
    assert solution.status == wb.Status.ITERATION_LIMIT and not solution.variables["y"].any()
    assert solution.curvature <= -1.0


def test_a_badly_conditioned_chain_is_minimised(compiled):
    count = 1000
    target = np.cumsum(np.random.default_rng(0).standard_normal(count))
    solution = wb.minimise(compiled("anchored chain"), None, {"x": target}, start={"y": np.zeros(count)})
    assert solution.status == wb.Status.CONVERGED
    chain = 2 * np.eye(count) - np.eye(count, k=1) - np.eye(count, k=-1)
    chain[0, 0] = chain[-1, -1] = 1
    expected = np.linalg.solve(2000 * chain + 0.002 * np.eye(count), 0.002 * target)
    np.testing.assert_allclose(solution.variables["y"], expected, atol=1e-4)


def test_an_instance_has_the_same_bits_in_any_batch(always, compiled):
    kernel, generator = compiled("graph"), np.random.default_rng(0)
    data = {"x": 3 * generator.standard_normal((4, 12)), "e": generator.integers(0, 12, (4, 20, 2))}
    whole = wb.minimise(kernel, None, data, start={"y": np.zeros(12)})
    assert whole.converged.all()
    for instance in range(4):
        alone = wb.minimise(
            kernel, None, {name: array[instance] for name, array in data.items()}, start={"y": np.zeros(12)}
        )
        assert np.array_equal(alone.variables["y"], whole.variables["y"][instance])


def test_the_lowest_candidate_is_the_start(always, compiled):
    candidates = {"y": np.array([[0.0, 0.0], [-0.9, 0.8], [5.0, 5.0]])}
    solution = wb.minimise(compiled("double wells"), candidates=candidates, max_iterations=0)
    assert solution.variables["y"].tolist() == [-0.9, 0.8]


def test_an_image_of_16384_pixels_is_minimised():
    kernel, generator = wb.compile(TABLE["denoise"]()), np.random.default_rng(0)
    noisy = np.kron(generator.standard_normal((4, 4)), np.ones((32, 32))) + 0.1 * generator.standard_normal((128, 128))
    solution = wb.minimise(kernel, {"sigma": 0.15, "tau": 0.05}, {"x": noisy}, start={"y": noisy})
    assert solution.status == wb.Status.CONVERGED and solution.gradient_norm <= 1e-8 and solution.curvature > 0.99


# ---------------------------------------------------------------------------------------------- curvature

scipy_sparse = pytest.importorskip("scipy.sparse")


@pytest.mark.parametrize("seed", range(6))
def test_the_bound_of_the_curvature_is_a_bound(seed):
    generator = np.random.default_rng(seed)
    matrix = scipy_sparse.random_array((30, 30), density=0.1, rng=generator)
    matrix = (matrix + matrix.T + (seed - 3) * scipy_sparse.eye_array(30)).tocsr()
    found, true = curvature(matrix), np.linalg.eigvalsh(matrix.toarray())
    assert found.lowest <= true[0] + 1e-9 and found.size >= np.abs(true).max() - 1e-9
    assert (found.downwards is None) == (true[0] > -1e-11)
    if found.downwards is not None:
        assert found.downwards @ matrix @ found.downwards < 0.5 * true[0]


def test_the_bound_of_a_positive_definite_matrix_is_near_its_lowest_eigenvalue():
    matrix = scipy_sparse.diags_array([-1.2, 2.3, -1.2], offsets=[-1, 0, 1], shape=(9, 9)).tocsr()
    lowest = np.linalg.eigvalsh(matrix.toarray())[0]
    assert 0.98 * lowest < curvature(matrix).lowest <= lowest


def test_factors_are_given_for_positive_definite_matrices_only():
    laplacian = scipy_sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(8, 8)).tocsr()
    assert definite(laplacian, 0.0) is not None and definite(laplacian, -1.0) is None


def test_every_sparse_energy_of_the_table_is_minimised_as_by_the_dense_driver(monkeypatch, references):
    for name in TABLED[3:]:
        point = draw(references[name].energy, 3, seed=2)
        expected = wb.minimise(references[name], *point[1:], start=point[0])
        monkeypatch.setattr(sparse, "MANY", 0)
        got = wb.minimise(references[name], *point[1:], start=point[0])
        monkeypatch.undo()
        assert got.status == expected.status, name
        if got.converged:
            assert got.energy <= expected.energy + 1e-6 * (1 + abs(expected.energy)), name
