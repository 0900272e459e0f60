"""The damped derivative over many unknowns: as from dense Hessians, bounded at saddles, refused where singular."""

import math

import numpy as np
import pytest
import scipy.sparse as sparse_matrices
import sympy as sp
import wiberg as wb
from energies_table import TABLE, draw
from scipy.sparse.linalg import splu
from wiberg.runtime import sparse

n = sp.Symbol("n", integer=True, positive=True)
i, step = sp.Idx("i", n), sp.Idx("step", (0, n - 2))
y, x, w = (sp.IndexedBase(s, shape=(n,)) for s in "yxw")
a = sp.Symbol("a", positive=True)


def compiled(formula, weights, data):
    energy = wb.Energy(formula, variables=[y], weights=weights, data=data, name="many")
    return wb.compile(energy, backend="reference")


@pytest.fixture(scope="module")
def denoise():
    return wb.compile(TABLE["denoise"](), backend="reference")


@pytest.fixture(scope="module")
def smooth():
    """A line smoothed with a weight for each sample."""
    return compiled(sp.Sum(w[i] * (y[i] - x[i]) ** 2, i) + a * sp.Sum(sp.sqrt(1 + (y[step + 1] - y[step]) ** 2), step),
                    [w, a], [x])  # fmt: skip


@pytest.fixture(scope="module")
def wells():
    return compiled(sp.Sum(a * y[i] ** 4 / 4 - y[i] ** 2 / 2 + x[i] * y[i], i), [a], [x])


def both(monkeypatch, call):
    """What a call gives with dense Hessians, and with sparse ones."""
    dense = call()
    monkeypatch.setattr(sparse, "MANY", 0)
    return dense, call()


@pytest.mark.parametrize("shared", ["weights", ""])
@pytest.mark.parametrize("damping", [0.1, 0.0])
def test_the_gradient_is_that_of_dense_hessians(shared, damping, monkeypatch, denoise):
    start, weights, data = draw(denoise.energy, 4, batch=3, shared=shared)
    solution = wb.minimise(denoise, weights, data, start=start)
    slopes = {"y": np.random.default_rng(0).standard_normal(solution.variables["y"].shape)}
    dense, got = both(monkeypatch, lambda: wb.implicit_gradient(denoise, solution, slopes, damping=damping))
    for name in dense:
        assert got[name].shape == dense[name].shape
        np.testing.assert_allclose(got[name], dense[name], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("damping", [0.1, 0.0])
def test_the_jacobian_is_that_of_dense_hessians(damping, monkeypatch, smooth):
    generator = np.random.default_rng(0)
    weights, data = {"w": generator.uniform(0.5, 1, 7), "a": 0.3}, {"x": generator.standard_normal(7)}
    solution = wb.minimise(smooth, weights, data, start={"y": np.zeros(7)})
    dense, got = both(monkeypatch, lambda: wb.implicit_jacobian(smooth, solution, damping=damping))
    assert got.shape == (7, 8)
    np.testing.assert_allclose(got, dense, rtol=1e-8, atol=1e-10)


def test_at_a_saddle_the_shift_keeps_the_bound(monkeypatch, wells):
    monkeypatch.setattr(sparse, "MANY", 0)
    solution = wb.minimise(wells, {"a": 1.0}, {"x": np.zeros(6)}, start={"y": np.full(6, 0.5)}, max_iterations=0)
    slope = np.random.default_rng(0).standard_normal(6)
    gradient = wb.implicit_gradient(wells, solution, {"y": slope}, unconverged="use")
    cross = 0.5**3  # d(gradient)/da = y**3, the same for all unknowns
    assert abs(gradient["a"]) <= cross * np.sqrt(6) * np.linalg.norm(slope) / 0.1 * (1 + 1e-9)
    hessian = wells.dense_hessian({"y": np.full(6, 0.5)}, {"a": 1.0}, {"x": np.zeros(6)})
    shifted = hessian + (0.1 - np.linalg.eigvalsh(hessian)[0]) * np.eye(6)
    assert gradient["a"] == pytest.approx(-cross * np.linalg.solve(shifted, slope).sum(), rel=1e-6)


def test_without_damping_a_singular_hessian_is_named(monkeypatch):
    kernel = compiled(a * sp.Sum((y[step + 1] - y[step] - x[step]) ** 2, step), [a], [x])
    monkeypatch.setattr(sparse, "MANY", 0)
    solution = wb.minimise(kernel, {"a": 1.0}, {"x": np.ones(6)}, start={"y": np.zeros(6)})
    with pytest.raises(wb.NumericalError, match=r"'many', damping 0: the Hessian is singular.*damping=0\.1"):
        wb.implicit_gradient(kernel, solution, {"y": np.ones(6)}, damping=0.0)


def test_instances_that_did_not_converge_do_not_count(monkeypatch, wells):
    monkeypatch.setattr(sparse, "MANY", 0)
    start = {"y": np.array([np.full(6, 1.0), np.full(6, np.nan)])}
    solution = wb.minimise(wells, {"a": 1.0}, {"x": np.zeros(6)}, start=start)
    with pytest.warns(UserWarning, match="1 of 2 instances"):
        gradient = wb.implicit_gradient(wells, solution, {"y": np.ones((2, 6))})
    alone = wb.minimise(wells, {"a": 1.0}, {"x": np.zeros(6)}, start={"y": np.full(6, 1.0)})
    assert gradient["a"] == wb.implicit_gradient(wells, alone, {"y": np.ones(6)})["a"]


def test_the_gradient_predicts_how_a_large_minimum_moves(smooth):
    count, generator = 300, np.random.default_rng(1)
    weights, data = {"w": generator.uniform(0.5, 1, count), "a": 0.4}, {"x": generator.standard_normal(count)}
    slope, start = generator.standard_normal(count), {"y": np.zeros(count)}

    def minimum(strength):
        return wb.minimise(smooth, {**weights, "a": strength}, data, start=start, gtol=1e-11)

    gradient = wb.implicit_gradient(smooth, minimum(0.4), {"y": slope}, damping=0.0)
    up, down = (slope @ minimum(0.4 + h).variables["y"] for h in (1e-5, -1e-5))
    assert gradient["a"] == pytest.approx((up - down) / 2e-5, rel=1e-6)
    assert gradient["w"].shape == (count,)


def test_an_energy_of_many_unknowns_is_learnt(smooth):
    count, generator = 250, np.random.default_rng(0)
    truth = np.repeat(generator.standard_normal(10), 25)
    data = {"x": truth + 0.3 * generator.standard_normal(count)}
    target = sp.IndexedBase("target", shape=(n,))
    loss = wb.Loss(sp.Sum((y[i] - target[i]) ** 2, i), variables=[y], targets=[target])
    weights = {"w": np.ones(count), "a": 0.05}
    learner = wb.Learner(smooth, loss, weights=weights, optimiser=wb.SGD(learning_rate=1e-3, momentum=0.0))
    batch = wb.Batch(data=data, targets={"target": truth}, start={"y": data["x"]})
    history = learner.fit([batch] * 5, steps=5)
    assert history.loss[-1] < history.loss[0]


@pytest.mark.parametrize("size", [1e160, 1e-170])
def test_slopes_of_any_size_are_solved_for(size):
    """Squares of such numbers are infinite or 0: the derivative was 0, without a word."""
    step = sp.Idx("step", (0, n - 2))
    energy = wb.Energy(
        sp.Sum((y[i] - x[i]) ** 2, i) / 2 + a * sp.Sum((y[step + 1] - y[step]) ** 2, step),
        variables=[y], weights=[a], data=[x],
    )  # fmt: skip
    kernel = wb.compile(energy)
    data = {"x": np.random.default_rng(0).standard_normal(300)}
    solution = wb.minimise(kernel, {"a": 0.3}, data, start={"y": data["x"]})
    slopes = solution.variables["y"]
    plain, scaled = (wb.implicit_gradient(kernel, solution, {"y": s * slopes}, damping=0.1)["a"] for s in (1.0, size))
    assert plain != 0.0 and scaled == pytest.approx(size * plain, rel=1e-9)


def test_each_saddle_of_a_batch_has_its_own_shift(monkeypatch, wells):
    n_wells = 6
    x_data = np.zeros((3, n_wells))
    solution = wb.minimise(
        wells, {"a": 1.0}, {"x": x_data}, start={"y": np.full((3, n_wells), 1.0)}, max_iterations=1, gtol=1e-300
    )
    solution.y[:] = np.array([0.0, 0.3, 0.5])[:, None]  # Hessians of -1, -0.73 and -0.25
    solution.reals[:, 1] = math.nan
    slopes = {"y": np.random.default_rng(0).standard_normal((3, n_wells))}
    gradients = both(monkeypatch, lambda: wb.implicit_gradient(wells, solution, slopes, damping=0.1, unconverged="use"))
    np.testing.assert_allclose(gradients[1]["a"], gradients[0]["a"], rtol=1e-8)


def test_what_takes_too_many_steps_is_factorised():
    """A chain whose links are named in random order is no matrix of few diagonals: its diagonal does not help."""
    count = 4000
    k = sp.Symbol("k", integer=True, positive=True)
    edge, e = sp.Idx("edge", k), sp.IndexedBase("e", shape=(k, 2), integer=True)
    links = sp.Sum((y[e[edge, 0]] - y[e[edge, 1]]) ** 2, edge)
    kernel = wb.compile(wb.Energy(links + a * sp.Sum((y[i] - x[i]) ** 2, i), variables=[y], weights=[a], data=[x, e]))
    generator = np.random.default_rng(0)
    order = generator.permutation(count)
    data = {"x": generator.standard_normal(count), "e": np.stack([order[:-1], order[1:]], axis=1)}
    solution = wb.minimise(kernel, {"a": 1e-7}, data, start={"y": data["x"]}, max_iterations=1)
    slopes = generator.standard_normal(count)
    got = wb.implicit_gradient(kernel, solution, {"y": slopes}, damping=1e-8, unconverged="use")["a"]
    matrix = kernel.hessian(solution.variables, {"a": 1e-7}, data) + 1e-8 * sparse_matrices.eye_array(count)
    adjoint = splu(matrix.tocsc()).solve(slopes)
    expected = -adjoint @ (2 * (solution.variables["y"] - data["x"]))
    assert got == pytest.approx(expected, rel=1e-6)
