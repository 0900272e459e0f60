"""Energies declared in SymPy, minimised: robust location, fusion, a pose model, several variables, graphs."""

import pickle

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from wiberg.runtime import Status, minimise


@pytest.fixture(scope="module")
def ransac():
    n = sp.Symbol("n", integer=True, positive=True)
    i, q = sp.Idx("i", n), sp.Idx("q", n)
    t, sigma, x = sp.Symbol("t", real=True), sp.Symbol("sigma", positive=True), sp.IndexedBase("x", shape=(n,))
    energy = wb.Energy(
        -sp.Sum(sp.exp(-(((x[i] - t) / sigma) ** 2)), i),
        variables=[t],
        weights=[sigma],
        data=[x],
        candidates={t: x[q]},
        name="ransac",
    )
    return wb.compile(energy)


def locations(batch=40, seed=0):
    rng = np.random.default_rng(seed)
    mean = rng.uniform(-40, 40, batch)
    return {
        "x": np.concatenate(
            [mean[:, None] + 4 * rng.standard_normal((batch, 10)), rng.uniform(-40, 40, (batch, 100))], axis=1
        )
    }


@pytest.fixture(scope="module")
def pose():
    cameras, joints, bases = sp.symbols("C J K", integer=True, positive=True)
    c, j, k = sp.Idx("c", cameras), sp.Idx("j", joints), sp.Idx("k", bases)
    e, d = sp.Idx("e", 2), sp.Idx("d", 3)
    a, m, sigma = (sp.IndexedBase(name, shape=(bases,)) for name in ("a", "m", "sigma"))
    basis, camera = sp.IndexedBase("B", shape=(bases, joints, 3)), sp.IndexedBase("P", shape=(cameras, 2, 3))
    image, delta = sp.IndexedBase("X", shape=(cameras, joints, 2)), sp.Symbol("delta", positive=True)
    shape, r = sp.IndexedBase("S", shape=(joints, 3)), sp.IndexedBase("r", shape=(cameras, joints, 2))
    where = {
        shape[j, d]: sp.Sum(a[k] * basis[k, j, d], k),
        r[c, j, e]: image[c, j, e] - sp.Sum(camera[c, e, d] * shape[j, d], d),
    }
    energy = wb.Energy(
        sp.Sum(delta**2 * (sp.sqrt(1 + sp.Sum(r[c, j, e] ** 2, e) / delta**2) - 1), c, j)
        + sp.Sum((sigma[k] * (a[k] - m[k])) ** 2, k) / 2,
        variables=[a],
        weights=[basis, sigma, camera, delta],
        data=[image, m],
        where=where,
        name="pose",
    )
    return wb.compile(energy)


def poses(batch=30, bases=26, seed=0):
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((bases, 17, 3)) * np.append(0.6, np.linspace(0.2, 0.02, bases - 1))[:, None, None]
    angle = np.linspace(0, 2 * np.pi, 4, endpoint=False) + 0.1
    camera = np.stack([[[np.cos(v), np.sin(v), 0.0], [0.1 * np.sin(v), -0.1 * np.cos(v), 1.0]] for v in angle])
    m = np.eye(bases)[0]
    a = m + np.append(0.05, np.ones(bases - 1)) * rng.standard_normal((batch, bases))
    image = np.einsum("ced,bjd->bcje", camera, np.einsum("bk,kjd->bjd", a, basis))
    image += 0.02 * rng.standard_normal(image.shape)
    bad = rng.random((batch, 4, 17)) < 0.1
    image[bad] += 0.5 * rng.standard_normal((bad.sum(), 2))
    return {"B": basis, "sigma": 0.3 * np.ones(bases), "P": camera, "delta": 0.05}, {"X": image, "m": m}


def test_lowest_of_declared_candidates_is_refined(ransac):
    x = locations()
    solution = minimise(ransac, {"sigma": 8.0}, x)
    assert solution.converged.all()
    grid = np.linspace(-60, 60, 24_001)
    energies = -np.exp(-(((x["x"][:, :, None] - grid) / 8.0) ** 2)).sum(axis=1)
    assert (solution.energy <= energies.min(axis=1) + 1e-9).all()
    assert solution.iterations.max() <= 6


def test_energy_is_that_of_the_variables_to_the_bit(ransac):
    x = locations()
    solution = minimise(ransac, {"sigma": 8.0}, x)
    assert ransac.value(solution.variables, {"sigma": 8.0}, x).tobytes() == solution.energy.tobytes()
    assert np.abs(ransac.gradient(solution.variables, {"sigma": 8.0}, x)[:, 0]) == pytest.approx(solution.gradient_norm)
    assert ransac.hessian(solution.variables, {"sigma": 8.0}, x)[:, 0, 0] == pytest.approx(solution.curvature)


def test_batch_equals_single_calls_with_candidates(ransac):
    x = locations()
    batch = minimise(ransac, {"sigma": 8.0}, x)
    for b in range(0, 40, 7):
        single = minimise(ransac, {"sigma": 8.0}, {"x": x["x"][b]})
        assert single.variables["t"].tobytes() == batch.variables["t"][b].tobytes()
        assert (single.energy, single.status) == (batch.energy[b], batch.status[b])


def test_given_candidates_equal_declared_ones(ransac):
    x = locations()
    declared = minimise(ransac, {"sigma": 8.0}, x)
    given = minimise(ransac, {"sigma": 8.0}, x, candidates={"t": x["x"]})
    assert declared.variables["t"].tobytes() == given.variables["t"].tobytes()
    assert declared.evaluations.tolist() == given.evaluations.tolist()


def test_start_is_used_where_candidates_are_declared(ransac):
    x = locations()
    solution = minimise(ransac, {"sigma": 8.0}, x, start={"t": 0.0}, max_iterations=0)
    assert (solution.variables["t"] == 0).all()


def test_weights_for_each_instance(ransac):
    x, sigma = locations(), np.linspace(2, 12, 40)
    batch = minimise(ransac, {"sigma": sigma}, x)
    for b in (0, 20, 39):
        single = minimise(ransac, {"sigma": sigma[b]}, {"x": x["x"][b]})
        assert single.variables["t"].tobytes() == batch.variables["t"][b].tobytes()


def test_not_finite_data_are_named(ransac):
    x = locations()
    x["x"][3, 17] = np.nan
    with pytest.raises(wb.InputError, match=r"data x has NaN at \[3, 17\].*instance 3"):
        minimise(ransac, {"sigma": 8.0}, x)
    with pytest.raises(wb.InputError, match="weight sigma has NaN"):
        minimise(ransac, {"sigma": np.nan}, locations())
    solution = minimise(ransac, {"sigma": 8.0}, x, check=False)
    clean = minimise(ransac, {"sigma": 8.0}, locations())
    assert solution.failed.tolist() == [3]
    others = np.arange(40) != 3
    assert solution.variables["t"][others].tobytes() == clean.variables["t"][others].tobytes()


def test_candidates_with_nan_never_win(ransac):
    x = locations(3)
    solution = minimise(ransac, {"sigma": 8.0}, x, candidates={"t": [np.nan, 1.0, np.inf, 2.0]})
    assert solution.converged.all()


def test_pose_takes_no_more_steps_than_newton(pose):
    w, x = poses()
    solution = minimise(pose, w, x, start={"a": x["m"]})
    assert solution.converged.all()
    assert solution.iterations.mean() <= 8
    assert (solution.curvature > 0).all()
    lowest = np.linalg.eigvalsh(pose.hessian(solution.variables, w, x))[:, 0]
    assert lowest == pytest.approx(solution.curvature, rel=1e-9)


def test_solution_survives_pickling(pose):
    w, x = poses(5)
    solution = minimise(pose, w, x, start={"a": x["m"]})
    copy = pickle.loads(pickle.dumps(solution))
    assert copy.variables["a"].tobytes() == solution.variables["a"].tobytes()
    assert list(copy.status) == list(solution.status)
    again = minimise(copy.kernel, copy.w, copy.x, start=copy)
    assert (again.iterations == 0).all()
    assert repr(copy) == repr(solution)


def test_several_variables_of_several_shapes():
    n = sp.Symbol("n", integer=True, positive=True)
    i = sp.Idx("i", n)
    a, b = sp.Symbol("a", real=True), sp.IndexedBase("b", shape=(2,))
    x, y, w = sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("y", shape=(n,)), sp.Symbol("w", positive=True)
    residual = a + b[0] * x[i] + b[1] * x[i] ** 2 - y[i]
    energy = wb.Energy(w * sp.Sum(residual**2, i), variables=[a, b], weights=[w], data=[x, y], name="parabola")
    kernel = wb.compile(energy)
    rng = np.random.default_rng(0)
    data = {"x": rng.standard_normal(50), "y": rng.standard_normal((4, 50))}
    solution = minimise(kernel, {"w": 2.0}, data, start={"a": 0.0, "b": np.zeros((4, 2))})
    design = np.stack([data["x"] ** 0, data["x"], data["x"] ** 2], axis=1)
    expected = np.linalg.lstsq(design, data["y"].T, rcond=None)[0].T
    assert solution.variables["a"] == pytest.approx(expected[:, 0])
    assert solution.variables["b"] == pytest.approx(expected[:, 1:])
    assert solution.variables["a"].shape == (4,)
    assert solution.variables["b"].shape == (4, 2)
    grid = {"a": rng.standard_normal(6), "b": rng.standard_normal((4, 6, 2))}
    seeded = minimise(kernel, {"w": 2.0}, data, candidates=grid)
    assert seeded.variables["b"] == pytest.approx(expected[:, 1:])
    with pytest.raises(wb.InputError, match="batch sizes disagree"):
        minimise(kernel, {"w": 2.0}, data, candidates={**grid, "b": rng.standard_normal((3, 6, 2))})
    with pytest.raises(wb.InputError, match=r"candidates b has shape \(5, 2\)"):
        minimise(kernel, {"w": 2.0}, data, candidates={**grid, "b": rng.standard_normal((5, 2))})


def test_interpreted_kernel_gives_the_same_minimum():
    t, s, x = sp.Symbol("t", real=True), sp.Symbol("s", positive=True), sp.Symbol("x", real=True)
    energy = wb.Energy(sp.cosh(t - x) + s * t**2, variables=[t], weights=[s], data=[x])
    data, start = {"x": np.linspace(-1, 1, 5)}, {"t": 0.3}
    compiled = minimise(wb.compile(energy), {"s": 0.5}, data, start=start)
    interpreted = minimise(wb.compile(energy, backend="reference"), {"s": 0.5}, data, start=start)
    assert interpreted.variables["t"] == pytest.approx(compiled.variables["t"], abs=1e-10)
    assert interpreted.converged.all()


def test_what_is_not_a_kernel_is_refused():
    t = sp.Symbol("t", real=True)
    with pytest.raises(wb.InputTypeError, match=r"wb\.compile; got Energy"):
        minimise(wb.Energy(t**2, variables=[t]), start={"t": 1.0})


def test_neither_start_nor_candidates_is_refused_first():
    n = sp.Symbol("n", integer=True, positive=True)
    i, y = sp.Idx("i", n), sp.IndexedBase("y", shape=(n,))
    kernel = wb.compile(wb.Energy(sp.Sum(y[i] ** 2, i), variables=[y], name="ball"))
    with pytest.raises(wb.InputError, match=r"energy 'ball': give start=.*got neither"):
        minimise(kernel)
    assert minimise(kernel, start={"y": np.ones(5)}).variables["y"] == pytest.approx(0, abs=1e-15)
    assert minimise(kernel, candidates={"y": np.ones((3, 5))}).variables["y"].shape == (5,)


def test_failure_of_an_interpreted_kernel_is_raised():
    t = sp.Symbol("t", real=True)
    kernel = wb.compile(wb.Energy(sp.cosh(t), variables=[t]), backend="reference")
    entry = kernel.entry("value_gradient_hessian")
    minimise(kernel, start={"t": 0.3})
    entry.failures.append(ValueError("as if the interpreter had failed"))
    with pytest.raises(ValueError, match="interpreter"):
        minimise(kernel, start={"t": 0.3})
    assert minimise(kernel, start={"t": 0.3}).converged


@pytest.mark.parametrize(
    "expression, start, allowed",
    [
        (lambda t, a: -a * t**2, 0.5, {Status.UNBOUNDED}),
        (lambda t, a: -a * t**2, 0.0, {Status.UNBOUNDED}),
        (lambda t, a: a * sp.exp(-t), 0.0, {Status.CONVERGED, Status.UNBOUNDED}),
        (lambda t, a: a * (t**2 - 1) ** 2, 0.0, {Status.CONVERGED}),
        (lambda t, a: a * t**4, 1.0, {Status.CONVERGED}),
    ],
)
def test_status_of_declared_energies(expression, start, allowed):
    t, a = sp.Symbol("t", real=True), sp.Symbol("a", positive=True)
    kernel = wb.compile(wb.Energy(expression(t, a), variables=[t], weights=[a]))
    assert minimise(kernel, {"a": 1.0}, start={"t": start}).status in allowed
