"""Variables solved out: the joint minimum and its damped derivative, singular and unbounded blocks, statuses, bits."""

import pickle
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.optimize import minimize as scipy_minimise
from wiberg.compiler.machine_code.entry import Interpreter
from wiberg.energies.errors import InputError, InputTypeError, NameMissingError, UnsupportedError
from wiberg.runtime import Status, minimise, set_threads
from wiberg.runtime.variable_projection import _layouts

sys.path.insert(0, str(Path(__file__).parents[1]))
from more_garbow_hillstrom.measured import OSBORNE_1, OSBORNE_2

SEEDS = st.integers(0, 2**32 - 1)
n, count = sp.symbols("n count", integer=True, positive=True)
i, k = sp.Idx("i", n), sp.Idx("k", count)
t, u, a, b, c = sp.symbols("t u a b c", real=True)
r, s = sp.symbols("r s", positive=True)
x, place = sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("place", shape=(n,))


@pytest.fixture(autouse=True)
def default_threads():
    yield
    set_threads(None)


# ---------------------------------------------------------------------------------------------- random energies

WAVES = (
    sp.exp(-t * place[i]),
    sp.sin(u * place[i] + 1),
    1 / (1 + (t * place[i]) ** 2),
    sp.cos(t + u) * place[i],
    sp.Integer(1),
    sp.tanh(u - place[i]),
)
CURVES = (t**2 + u**2, sp.log(1 + (t - u) ** 2) + t**2 / 4 + u**2 / 4, (t - 1) ** 2 + (u + 1) ** 4 / 8)
COUPLINGS = (0, a * sp.tanh(t), b**2 * sp.exp(u / 2), (a - sp.sin(t)) * (b - sp.tanh(u)) / 2, s * a * b / 4)


@st.composite
def partly_quadratic(draw):
    """An energy that is quadratic in a and b for any t and u, and confined."""
    factors = draw(st.lists(st.sampled_from(WAVES), min_size=2, max_size=2, unique=True))
    residual = x[i] - a * factors[0] - b * factors[1]
    expression = s * sp.Sum(residual**2, i) + r * (a**2 + b**2) + draw(st.sampled_from(CURVES))
    expression += draw(st.sampled_from(COUPLINGS))
    return wb.Energy(expression, variables=draw(st.permutations([a, t, b, u])), weights=[r, s], data=[x, place])


def values_for(seed):
    rng = np.random.default_rng(seed)
    where = np.sort(rng.uniform(0, 3, 8))
    data = {"place": where, "x": rng.standard_normal() * np.exp(-where) + rng.standard_normal(8) / 4}
    return (
        {"r": rng.uniform(0.5, 1), "s": rng.uniform(0.5, 2)},
        data,
        dict(zip("tu", rng.uniform(-1, 1, 2), strict=True)),
    )


@settings(max_examples=40)
@given(energy=partly_quadratic(), seed=SEEDS, damping=st.sampled_from([1e-3, 0.1, 1.0]))
def test_minimum_and_damped_derivative_are_those_of_the_joint_minimisation(energy, seed, damping):
    kernel = wb.compile(energy, backend="reference")
    weights, data, start = values_for(seed)
    solution = minimise(kernel, weights, data, start=start, eliminate=[a, b], gtol=1e-11)
    assert solution.status in (Status.CONVERGED, Status.STALLED), solution
    point, value = solution.y[0], kernel.value(solution.variables, weights, data)
    assert solution.energy == value
    H, g = kernel.dense_hessian(solution.variables, weights, data), kernel.gradient(solution.variables, weights, data)
    eigenvalues = np.linalg.eigvalsh(H)
    assert np.abs(g).max() == pytest.approx(solution.gradient_norm, rel=1e-6, abs=1e-14) and np.abs(g).max() < 1e-8
    assert solution.curvature == pytest.approx(eigenvalues[0], abs=1e-11 * eigenvalues[-1])
    assume(eigenvalues[0] > 1e-2)
    near = kernel.variables.unpack(point + 1e-4 * np.random.default_rng(seed).standard_normal(4))
    joint = minimise(kernel, weights, data, start=near, gtol=1e-11)
    assert abs(joint.energy - value) <= 1e-12 * (1 + abs(value))
    np.testing.assert_allclose(joint.y[0], point, rtol=0, atol=1e-9 / eigenvalues[0])
    cross = kernel.cross(solution.variables, weights, data)
    found = wb.implicit_jacobian(kernel, solution, damping)
    np.testing.assert_allclose(found, -np.linalg.solve(H + damping * np.eye(4), cross), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(
        found, wb.implicit_jacobian(kernel, joint, damping), rtol=1e-6, atol=1e-7 / eigenvalues[0] ** 2
    )
    np.testing.assert_allclose(
        found, differences(kernel, solution, damping), rtol=1e-5, atol=2e-6 / eigenvalues[0] ** 2
    )


def differences(kernel, solution, damping):
    """dy/dw of y(w) = argmin E(y; w) + damping/2 |y - y*|^2, by Newton's method at two values of each weight."""
    columns = []
    for name, value in solution.w.items():
        step, ends = 1e-4 * value, []
        for sign in (1, -1):
            weights, point = {**solution.w, name: value + sign * step}, solution.y[0].copy()
            for _ in range(8):
                where = kernel.variables.unpack(point)
                slope = kernel.gradient(where, weights, solution.x) + damping * (point - solution.y[0])
                H = kernel.dense_hessian(where, weights, solution.x) + damping * np.eye(len(point))
                point = point - np.linalg.solve(H, slope)
            ends.append(point)
        columns.append((ends[0] - ends[1]) / (2 * step))
    return np.stack(columns, axis=1)


@settings(max_examples=20)
@given(energy=partly_quadratic(), seed=SEEDS)
def test_undamped_derivative_is_that_of_minimising_again(energy, seed):
    kernel = wb.compile(energy, backend="reference")
    weights, data, start = values_for(seed)
    options = {"eliminate": ["a", "b"], "gtol": 1e-12}
    solution = minimise(kernel, weights, data, start=start, **options)
    assume(solution.curvature > 1e-2)
    found = wb.implicit_jacobian(kernel, solution, 0.0)
    for column, name in enumerate(weights):
        step = 1e-4 * weights[name]
        ends = [
            minimise(kernel, {**weights, name: weights[name] + d}, data, start=solution, **options).y[0]
            for d in (step, -step)
        ]
        expected = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-5, atol=2e-6 / solution.curvature**2)


def test_damping_is_not_that_of_the_reduced_hessian():
    """dt/dr with the reduced Hessian + lambda is another number: the joint one is what comes back."""
    energy = wb.Energy((a * sp.exp(t) - 2) ** 2 + r * a**2 + (t - 1) ** 2, variables=[t, a], weights=[r])
    kernel = wb.compile(energy, backend="reference")
    solution = minimise(kernel, {"r": 0.5}, start={"t": 0.0}, eliminate=[a])
    H, cross = kernel.hessian(solution.variables, {"r": 0.5}), kernel.cross(solution.variables, {"r": 0.5})
    joint = -np.linalg.solve(H + 0.1 * np.eye(2), cross)
    reduced = H[0, 0] - H[0, 1] ** 2 / H[1, 1]
    wrong = -(cross[0] - H[0, 1] / H[1, 1] * cross[1]) / (reduced + 0.1)
    found = wb.implicit_jacobian(kernel, solution, 0.1)
    np.testing.assert_allclose(found, joint, rtol=1e-9)
    assert abs(found[0] - wrong) > 1e-3


# ---------------------------------------------------------------------------------------------- classical problems


def residuals_of(height, rate, shape):
    """A sum of squares of x - sum height[k] shape(rate, k, place)."""
    return sp.Sum((x[i] - sp.Sum(height[k] * shape(rate, k), k)) ** 2, i)


@pytest.fixture(scope="module")
def osborne_1():
    """x1 + x2 exp(-x4 s) + x3 exp(-x5 s)."""
    model = c + a * sp.exp(-t * place[i]) + b * sp.exp(-u * place[i])
    return wb.compile(wb.Energy(sp.Sum((x[i] - model) ** 2, i), variables=[a, b, c, t, u], data=[x, place]))


def test_osborne_1_in_fewer_steps(osborne_1):
    data = {"x": OSBORNE_1, "place": 10.0 * np.arange(33)}
    start = {"c": 0.5, "a": 1.5, "b": -1.0, "t": 0.01, "u": 0.02}
    joint = minimise(osborne_1, None, data, start=start)
    found = minimise(osborne_1, None, data, start={"t": 0.01, "u": 0.02}, eliminate=["a", "b", "c"])
    assert found.converged and found.energy == pytest.approx(5.46489e-5, rel=1e-5)
    assert found.energy == pytest.approx(joint.energy, rel=1e-10)
    assert found.iterations < joint.iterations / 2


def test_osborne_2_in_fewer_steps():
    h, w, p = (sp.IndexedBase(name, shape=(3,)) for name in "hwp")
    q = sp.Idx("q", 3)
    model = a * sp.exp(-t * place[i]) + sp.Sum(h[q] * sp.exp(-w[q] * (place[i] - p[q]) ** 2), q)
    kernel = wb.compile(wb.Energy(sp.Sum((x[i] - model) ** 2, i), variables=[a, t, h, w, p], data=[x, place]))
    data, kept = {"x": OSBORNE_2, "place": np.arange(65) / 10}, {"t": 0.6, "w": [3.0, 5, 7], "p": [2, 4.5, 5.5]}
    joint = minimise(kernel, None, data, start={**kept, "a": 1.3, "h": [0.65, 0.65, 0.7]})
    found = minimise(kernel, None, data, start=kept, eliminate=[h, a])
    assert found.converged and found.energy == pytest.approx(4.01377e-2, rel=1e-5)
    np.testing.assert_allclose(found.y, joint.y, rtol=1e-6)
    assert found.iterations < joint.iterations


@pytest.fixture(scope="module")
def factors():
    """Wiberg's problem: a matrix with missing entries as a product of two factors, entries as a list."""
    rows, columns, rank = sp.symbols("rows columns rank", integer=True, positive=True)
    q = sp.Idx("q", rank)
    U, V = sp.IndexedBase("U", shape=(rows, rank)), sp.IndexedBase("V", shape=(columns, rank))
    entry = sp.IndexedBase("entry", shape=(n, 2), integer=True)
    j, e = sp.Idx("j", rows), sp.Idx("e", columns)
    ridge = sp.Symbol("ridge", real=True)
    energy = sp.Sum((x[i] - sp.Sum(U[entry[i, 0], q] * V[entry[i, 1], q], q)) ** 2, i)
    energy += ridge * (sp.Sum(U[j, q] ** 2, j, q) + sp.Sum(V[e, q] ** 2, e, q))
    return wb.compile(wb.Energy(energy, variables=[U, V], weights=[ridge], data=[x, entry], name="factors"))


def matrix(seed, shape=(8, 12), rank=2, known=0.7, noise=0.01):
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((shape[0], rank)), rng.standard_normal((shape[1], rank))
    entry = np.argwhere(rng.random(shape) < known)
    values = (left @ right.T)[tuple(entry.T)] + noise * rng.standard_normal(len(entry))
    start = {"U": left + 0.3 * rng.standard_normal(left.shape), "V": np.zeros(right.shape)}  # V says how many columns
    return {"x": values, "entry": entry}, start, right + 0.3 * rng.standard_normal(right.shape)


def test_factors_with_missing_entries(factors):
    """The gauge makes the Hessian singular: four directions in which the energy does not change."""
    data, start, V = matrix(0)
    joint = minimise(factors, {"ridge": 0.0}, data, start={**start, "V": V})
    found = minimise(factors, {"ridge": 0.0}, data, start=start, eliminate=["V"])
    assert found.status in (Status.CONVERGED, Status.STALLED)
    assert found.energy == pytest.approx(joint.energy, rel=1e-8)
    product = found.variables["U"] @ found.variables["V"].T
    np.testing.assert_allclose(product, joint.variables["U"] @ joint.variables["V"].T, atol=1e-6)
    eigenvalues = np.linalg.eigvalsh(factors.dense_hessian(found.variables, {"ridge": 0.0}, data))
    assert (np.abs(eigenvalues[:4]) < 1e-9 * eigenvalues[-1]).all() and eigenvalues[4] > 1e-4
    assert abs(found.curvature) < 1e-11 * eigenvalues[-1]
    with pytest.raises(wb.runtime.solution.NumericalError, match="singular"):
        wb.implicit_jacobian(factors, found, 0.0)


@pytest.mark.parametrize("ridge", [0.0, 0.05])
def test_damped_derivative_of_factors(factors, ridge):
    """With its gauge or without, the damped derivative is that of the joint Hessian + lambda."""
    data, start, _ = matrix(1)
    found = minimise(factors, {"ridge": ridge}, data, start=start, eliminate=["V"], gtol=1e-10)
    H = factors.dense_hessian(found.variables, {"ridge": ridge}, data)
    cross = factors.cross(found.variables, {"ridge": ridge}, data)
    cross = cross.toarray() if hasattr(cross, "toarray") else cross
    expected = -np.linalg.solve(H + 0.1 * np.eye(len(H)), cross)
    np.testing.assert_allclose(wb.implicit_jacobian(factors, found, 0.1), expected, rtol=1e-6, atol=1e-9)
    slope = {"U": found.variables["U"], "V": 2 * found.variables["V"]}
    gradient = wb.implicit_gradient(factors, found, slope, damping=0.1)
    packed = factors.variables.pack(slope)
    assert gradient["ridge"] == pytest.approx((packed @ expected).item(), rel=1e-6)


def test_fewer_steps_for_factors(factors):
    """Twenty matrices, the joint minimisation from the V that belongs to the start."""
    steps = []
    for seed in range(20):
        data, start, _ = matrix(seed)
        found, begin = (
            minimise(factors, {"ridge": 1e-3}, data, start=start, eliminate=["V"], max_iterations=most)
            for most in (500, 0)
        )
        joint = minimise(factors, {"ridge": 1e-3}, data, start=begin, max_iterations=500)
        assert found.converged and joint.converged
        if found.energy == pytest.approx(joint.energy, rel=1e-6):
            steps.append((found.iterations, joint.iterations))
    assert len(steps) >= 15 and sum(own for own, _ in steps) < 0.8 * sum(its for _, its in steps)


@pytest.mark.parametrize(("ridge", "seed"), [(1e-6, 31), (1e-7, 0), *((1e-8, seed) for seed in (1, 4, 7, 8, 11, 12))])
def test_a_slight_curvature_along_a_curved_valley_is_no_saddle(factors, ridge, seed):
    """Where a gradient of 1e-8 is left on the floor of the gauge's valley, a step along it leaves the floor."""
    data, start, V = matrix(seed)
    found = minimise(factors, {"ridge": ridge}, data, start={**start, "V": V}, max_iterations=2000)
    assert found.converged
    expected = minimise(factors, {"ridge": ridge}, data, start=start, eliminate=["V"])
    assert found.energy == pytest.approx(expected.energy, rel=1e-9)


def test_a_curved_valley_takes_no_more_steps_than_scipy_in_total(factors):
    ridge, steps = {"ridge": 1e-5}, []
    for seed in range(5):
        data, start, V = matrix(seed)
        found = minimise(factors, ridge, data, start={**start, "V": V}, max_iterations=500)
        split = {"U": start["U"].shape, "V": V.shape}

        def parts(packed, split=split, data=data):
            U, V = np.split(packed, [np.prod(split["U"])])
            return {"U": U.reshape(split["U"]), "V": V.reshape(split["V"])}, ridge, data

        expected = scipy_minimise(
            lambda y, parts=parts: factors.value(*parts(y)),
            np.concatenate([start["U"].ravel(), V.ravel()]),
            jac=lambda y, parts=parts: factors.gradient(*parts(y)),
            hess=lambda y, parts=parts: factors.dense_hessian(*parts(y)),
            method="trust-exact",
            options={"gtol": 1e-8},
        )
        assert found.converged and found.energy == pytest.approx(expected.fun, rel=1e-9)
        steps.append((found.iterations, expected.nit))
    assert sum(own for own, _ in steps) <= sum(its for _, its in steps)


# ---------------------------------------------------------------------------------------------- blocks


@pytest.fixture(scope="module")
def bodies():
    """`count` points in space, seen under 2 angles: 3 x 3 blocks. The Hessian is sparse where angles are declared by
    number, dense where their extent is a symbol."""

    def energy(angles):
        j, d = sp.Idx("j", angles), sp.Idx("d", 3)
        y, z = sp.IndexedBase("y", shape=(angles,)), sp.IndexedBase("z", shape=(count, 3))
        C, seen = sp.IndexedBase("C", shape=(count, 3)), sp.IndexedBase("seen", shape=(count, angles))
        view = sp.Sum(C[k, d] * sp.sin(y[j] + d) * z[k, d], d)
        expression = sp.Sum((seen[k, j] - view) ** 2, k, j) + r * sp.Sum(z[k, d] ** 2, k, d)
        expression += sp.Sum(y[j] ** 2, j) / 10
        return wb.Energy(expression, variables=[y, z], weights=[r], data=[C, seen], name="bodies")

    return wb.compile(energy(2)), wb.compile(energy(n))


def body_data(seed, bodies, batch=()):
    rng = np.random.default_rng(seed)
    C, z = rng.standard_normal((2, *batch, bodies, 3))
    waves = np.sin(np.add.outer([0.3, -0.8], np.arange(3)))
    seen = np.einsum("...kd,jd,...kd->...kj", C, waves, z)
    return {"C": C, "seen": seen + 0.3 * rng.standard_normal(seen.shape)}


@pytest.mark.parametrize("structure", ["sparse", "dense"])
@pytest.mark.parametrize("number", [1, 5, 80])
def test_blocks_of_either_structure(bodies, structure, number):
    """The two structures, below and above the number of unknowns from which sparse Hessians are used."""
    kernel = bodies[structure == "dense"]
    assert kernel.structure == structure
    data = body_data(number, number)
    found = minimise(kernel, {"r": 0.1}, data, start={"y": np.zeros(2)}, eliminate=["z"])
    assert found.converged
    point = found.variables
    H = kernel.dense_hessian(point, {"r": 0.1}, data)
    eigenvalues = np.linalg.eigvalsh(H)
    assert found.curvature == pytest.approx(eigenvalues[0], abs=1e-11 * eigenvalues[-1])
    assert np.abs(kernel.gradient(point, {"r": 0.1}, data)).max() <= 1e-8
    joint = minimise(bodies[1], {"r": 0.1}, data, start=point)
    assert joint.iterations <= 1 and joint.energy == pytest.approx(found.energy, rel=1e-12)
    damped = wb.implicit_jacobian(kernel, found)
    cross = kernel.cross(point, {"r": 0.1}, data)
    expected = np.linalg.solve(H + 0.1 * np.eye(len(H)), -cross)
    np.testing.assert_allclose(damped, expected, rtol=1e-6, atol=1e-8)


def test_five_hundred_eliminated_unknowns_cost_what_their_blocks_cost(bodies):
    """2 kept and 501 eliminated: many times faster than the joint minimisation, and linear in the blocks."""

    def seconds(call):
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
        return min(times)

    kernel, start = bodies[0], {"y": np.zeros(2)}
    data = body_data(7, 167)
    found = minimise(kernel, {"r": 0.1}, data, start=start, eliminate=["z"])
    own = seconds(lambda: minimise(kernel, {"r": 0.1}, data, start=start, eliminate=["z"])) / found.iterations
    begin = {**start, "z": np.zeros((167, 3))}
    joint = seconds(lambda: minimise(bodies[1], {"r": 0.1}, data, start=begin, max_iterations=2)) / 2
    assert own < joint / 10
    more = minimise(kernel, {"r": 0.1}, body_data(7, 1670), start=start, eliminate=["z"])
    sizes = [_layouts(one.problem)[0][0] for one in (found, more)]
    assert more.converged and sizes[1].memory < 10.1 * sizes[0].memory
    assert all(set(layout.arrow.sizes) == {3} and set(layout.arrow.couplings) == {2} for layout in sizes)


# ---------------------------------------------------------------------------------------------- singular, unbounded


@pytest.fixture(scope="module")
def general():
    """(t - 1)^2 + cosh-like + z'A z/2 - b'z (1 + t): A from data, so that it can be singular or indefinite."""
    j = sp.Idx("j", count)
    z, A, right = (
        sp.IndexedBase("z", shape=(count,)),
        sp.IndexedBase("A", shape=(count, count)),
        sp.IndexedBase("right", shape=(count,)),
    )
    expression = r * (t - 1) ** 2 + sp.log(1 + t**2) / 4 + sp.Sum(A[j, k] * z[j] * z[k], j, k) / 2
    expression -= sp.sin(t + 1) * sp.Sum(right[k] * z[k], k)
    return wb.compile(wb.Energy(expression, variables=[t, z], weights=[r], data=[A, right], name="general"))


@settings(max_examples=40)
@given(seed=SEEDS, size=st.integers(1, 7), rank=st.integers(0, 6))
def test_singular_but_consistent_is_solved_by_least_length(general, seed, size, rank):
    rng = np.random.default_rng(seed)
    half = rng.standard_normal((size, min(rank, size - 1)))
    A = half @ half.T
    data = {"A": A, "right": A @ rng.standard_normal(size) / 4}
    found = minimise(general, {"r": 1.0}, data, start={"t": 0.0}, eliminate=["z"])
    assert found.status in (Status.CONVERGED, Status.STALLED) and found.gradient_norm < 1e-7
    expected = np.linalg.pinv(A, rcond=1e-10) @ data["right"] * np.sin(found.variables["t"] + 1)
    np.testing.assert_allclose(found.variables["z"], expected, atol=1e-6 * (1 + np.abs(expected).max()))
    H = general.hessian(found.variables, {"r": 1.0}, data)
    assert found.curvature == pytest.approx(np.linalg.eigvalsh(H)[0], abs=1e-11 * np.abs(H).max())
    damped = wb.implicit_jacobian(general, found, 0.1)
    cross = general.cross(found.variables, {"r": 1.0}, data)
    np.testing.assert_allclose(damped, -np.linalg.solve(H + 0.1 * np.eye(size + 1), cross), atol=1e-6)


@settings(max_examples=30)
@given(seed=SEEDS, size=st.integers(1, 6), kind=st.sampled_from(["indefinite", "inconsistent"]))
def test_energies_without_a_minimum_in_the_block_are_unbounded(general, seed, size, kind):
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((size, size)))[0]
    low = -rng.uniform(0.1, 1) if kind == "indefinite" else 0.0
    A = basis * np.append(np.ones(size - 1), low) @ basis.T
    data = {"A": (A + A.T) / 2, "right": basis[:, -1] + rng.standard_normal(size) / 8}
    found = minimise(general, {"r": 1.0}, data, start={"t": 0.0}, eliminate=["z"])
    assert found.status == Status.UNBOUNDED and found.iterations == 1
    limited = minimise(general, {"r": 1.0}, data, start={"t": 0.0}, eliminate=["z"], max_iterations=0)
    assert limited.status == Status.ITERATION_LIMIT
    assert found.energy < limited.energy - 1e6 and np.abs(found.variables["z"]).max() > 1e11
    assert found.energy == general.value(found.variables, {"r": 1.0}, data)
    text = str(found.explain())
    assert "UNBOUNDED after 1 iteration" in text and "z[" in text and "still falling" in text


def test_unbounded_only_where_the_path_leads():
    """(t^2 - 1) z^2 + (t - 3)^2: convex in z at the start, indefinite where phi falls to."""
    z = sp.Symbol("z", real=True)
    kernel = wb.compile(wb.Energy((t**2 - 1) * z**2 + (t - r) ** 2, variables=[t, z], weights=[r]), backend="reference")
    good = minimise(kernel, {"r": 3.0}, start={"t": 2.0}, eliminate=[z])
    assert good.converged and good.variables["t"] == pytest.approx(3) and good.variables["z"] == 0.0
    bad = minimise(kernel, {"r": 0.5}, start={"t": 2.0}, eliminate=[z])
    assert bad.status == Status.UNBOUNDED and bad.iterations >= 1 and bad.energy < -1e20


def test_saddle_of_the_kept_variables_is_left():
    z = sp.Symbol("z", real=True)
    energy = t**4 - t**2 + (z - t**2) ** 2
    kernel = wb.compile(wb.Energy(energy, variables=[t, z]), backend="reference")
    found = minimise(kernel, start={"t": 0.0}, eliminate=[z])
    assert found.converged and abs(found.variables["t"]) == pytest.approx(np.sqrt(0.5))
    assert minimise(kernel, start={"t": 0.0}, eliminate=[z], max_iterations=0).curvature == pytest.approx(-2.0)


def test_energies_and_starts_that_are_not_finite():
    z = sp.Symbol("z", real=True)
    kernel = wb.compile(wb.Energy((z - sp.log(t)) ** 2 + t, variables=[t, z]), backend="reference")
    with np.errstate(all="ignore"):
        found = minimise(kernel, start={"t": [-1.0, np.inf, np.nan, 1e200, 1.0], "z": 7.0}, eliminate=[z])
    assert list(found.status[:3]) == [Status.NOT_FINITE] * 3
    assert found.variables["z"][0] == 7.0 and found.variables["t"][0] == -1.0
    assert "logarithm" in str(found.explain(0))


def test_poor_conditioning_is_refined():
    """A block of condition 1e10, far from 0: the gradient at the end is as small as its rounding allows."""
    z, w = sp.symbols("z w", real=True)
    E = (z + w - 1e4) ** 2 + 1e-10 * (z - w) ** 2 + (t * w / 1e4 - 1) ** 2 / 10 + sp.cosh(t)
    kernel = wb.compile(wb.Energy(E, variables=[t, z, w]))
    found = minimise(kernel, start={"t": 0.3}, eliminate=[z, w])
    joint = minimise(kernel, start=found)
    assert found.status in (Status.CONVERGED, Status.STALLED) and found.gradient_norm < 1e-7
    assert joint.energy == pytest.approx(found.energy, rel=1e-12)


def test_a_stiff_valley_is_no_obstacle():
    """1e8 (z - exp(t)/3)^2: a curved valley in which the joint minimisation creeps. phi is t^2 + exp(t)/3 - 1/4e8."""
    kernel = wb.compile(wb.Energy(1e8 * (a - sp.exp(t) / 3) ** 2 + t**2 + a, variables=[t, a]), backend="reference")
    found = minimise(kernel, start={"t": [0.3, -0.7, 1.1]}, eliminate=[a])
    assert found.converged.all() and (found.iterations <= 6).all()
    np.testing.assert_allclose(found.variables["t"], brentq(lambda v: 2 * v + np.exp(v) / 3, -1, 1), rtol=0, atol=1e-8)
    joint = minimise(kernel, start={"t": 0.3, "a": 0.0})
    assert joint.status == Status.ITERATION_LIMIT and joint.energy > found.energy[0] + 1e-3


def test_what_rounding_leaves_of_the_gradient_in_z_is_stalled():
    """A block of curvature 1e12: no z has a gradient below 1e-6."""
    kernel = wb.compile(wb.Energy(1e12 * (a - sp.exp(t) / 3) ** 2 + t**2 + a, variables=[t, a]), backend="reference")
    found = minimise(kernel, start={"t": [0.3, -0.7, 1.1]}, eliminate=[a])
    assert (found.status == Status.STALLED).all() and (found.gradient_norm < 1e-3).all()
    np.testing.assert_allclose(found.variables["t"], brentq(lambda v: 2 * v + np.exp(v) / 3, -1, 1), rtol=0, atol=1e-3)


def test_calls_of_the_kernel_are_counted(monkeypatch, wave_data):
    """Two for every point, and two at the end; ranking counts as one."""
    calls = []
    evaluate = Interpreter.evaluate
    monkeypatch.setattr(Interpreter, "evaluate", lambda self, *a: calls.append(1) or evaluate(self, *a))
    E = sp.Sum((x[i] - b * sp.sin(t * place[i])) ** 2, i) + r * b**2
    kernel = wb.compile(wb.Energy(E, variables=[b, t], weights=[r], data=[x, place]), backend="reference")
    found = minimise(kernel, {"r": 0.1}, wave_data, start={"t": 3.5}, eliminate=[b])
    assert found.evaluations == len(calls) - 1 > 2 * found.iterations  # the last one is for the energy
    ranked = minimise(kernel, {"r": 0.1}, wave_data, candidates={"t": [9.0, 3.5]}, eliminate=[b])
    assert ranked.evaluations == found.evaluations + 1


# ---------------------------------------------------------------------------------------------- promises


def fit(kernel, data, **options):
    return minimise(kernel, {"r": 0.1}, data, start={"y": np.zeros(2)}, eliminate=["z"], **options)


def bits(solution):
    return [array.tobytes() for array in (solution.y, solution.energies, solution.reals, solution.integers)]


@pytest.mark.parametrize("structure", [0, 1])
def test_order_neighbours_and_threads_change_no_bit(bodies, structure):
    kernel, data = bodies[structure], body_data(3, 6, (70,))
    set_threads(1)
    whole = fit(kernel, data)
    for threads in (2, 5):
        set_threads(threads)
        assert bits(fit(kernel, data)) == bits(whole)
    order = np.random.default_rng(0).permutation(70)
    permuted = fit(kernel, {name: array[order] for name, array in data.items()})
    for mine, its in ((permuted.y, whole.y), (permuted.reals, whole.reals), (permuted.integers, whole.integers)):
        assert mine.tobytes() == its[order].tobytes()
    one = fit(kernel, {name: array[13] for name, array in data.items()})
    assert one.y[0].tobytes() == whole.y[13].tobytes()


def test_poisoned_instances_change_no_other_bit(bodies):
    data = body_data(4, 6, (9,))
    clean = fit(bodies[0], data)
    data["seen"][4, 2] = np.nan
    dirty = fit(bodies[0], data, check=False)
    rest = np.arange(9) != 4
    assert dirty.status[4] == Status.NOT_FINITE
    assert dirty.y[rest].tobytes() == clean.y[rest].tobytes()


def test_reports_in_parts_give_the_same_bits(bodies):
    data, told = body_data(5, 6, (50,)), []
    assert bits(fit(bodies[0], data, callback=lambda done, all: told.append(done))) == bits(fit(bodies[0], data))
    assert told[-1] == 50


def test_trace_goes_from_the_start_to_the_end_and_never_up(bodies):
    found = fit(bodies[1], body_data(6, 6, (5,)), trace=True)
    steps = found.iterations.max()
    assert found.trace.variables["z"].shape == (5, steps + 1, 6, 3)
    np.testing.assert_array_equal(found.trace.variables["y"][:, 0], np.zeros((5, 2)))
    energies = found.trace.energy
    assert (np.diff(energies, axis=1) <= 1e-12 * np.abs(energies[:, 1:])).all()
    np.testing.assert_array_equal(energies[:, -1], found.energy)


def test_index_data_of_each_instance(factors):
    """Instances whose patterns differ: each is what it is alone."""
    parts = [matrix(seed, known=1.0) for seed in range(4)]
    keep = [np.sort(np.random.default_rng(s).permutation(96)[:70]) for s in range(4)]
    data = [{name: part[0][name][rows] for name in ("x", "entry")} for part, rows in zip(parts, keep, strict=True)]
    start = {"U": np.stack([part[1]["U"] for part in parts])}
    together = {name: np.stack([one[name] for one in data]) for name in ("x", "entry")}
    options = {"eliminate": ["V"], "max_iterations": 300}
    start["V"] = np.zeros((12, 2))
    whole = minimise(factors, {"ridge": 0.01}, together, start=start, **options)
    for row, one in enumerate(data):
        alone = minimise(factors, {"ridge": 0.01}, one, start={**start, "U": start["U"][row]}, **options)
        assert alone.y[0].tobytes() == whole.y[row].tobytes()


def test_large_sparse_factors(factors):
    """More than 200 unknowns: the slots of a sparse Hessian, kept unknowns that meet some of the blocks only."""
    data, start, _ = matrix(3, shape=(20, 150), rank=2, known=0.2)
    weights = {"ridge": 0.02}
    found = minimise(factors, weights, data, start=start, eliminate=["V"])
    assert found.converged and found.y.shape == (1, 340)
    H, g = factors.dense_hessian(found.variables, weights, data), factors.gradient(found.variables, weights, data)
    assert np.abs(g).max() <= 1e-8
    assert found.curvature == pytest.approx(np.linalg.eigvalsh(H)[0], abs=1e-11 * np.abs(H).max())


# ---------------------------------------------------------------------------------------------- starts


@pytest.fixture(scope="module")
def wave():
    """b sin(t place): many minima over t."""
    E = sp.Sum((x[i] - b * sp.sin(t * place[i])) ** 2, i) + r * b**2
    return wb.compile(wb.Energy(E, variables=[b, t], weights=[r], data=[x, place], name="wave"))


@pytest.fixture
def wave_data():
    where = np.linspace(0, 3, 30)
    return {"place": where, "x": 2 * np.sin(4 * where) + 0.05 * np.cos(31 * where)}


def phi(data, ridge, rate):
    """What is left of the energy once b is solved out, by NumPy."""
    wave = np.sin(np.multiply.outer(rate, data["place"]))
    square = (wave**2).sum(axis=-1) + ridge
    return (data["x"] ** 2).sum() - (wave @ data["x"]) ** 2 / square


def test_candidates_are_ranked_once_z_is_solved(wave, wave_data):
    """The b of a candidate does not count: by its own b the first would win."""
    rates = np.array([1.0, 2.5, 3.7, 6.0])
    best = rates[np.argmin(phi(wave_data, 0.1, rates))]
    options = {"eliminate": ["b"], "max_iterations": 0}
    for candidates in ({"t": rates}, {"t": rates, "b": [1.0, 50, 90, 70]}, {"t": np.stack([rates, rates[::-1]])}):
        found = minimise(wave, {"r": 0.1}, wave_data, candidates=candidates, **options)
        assert np.all(found.variables["t"] == best)
        np.testing.assert_allclose(found.energy, phi(wave_data, 0.1, best), rtol=1e-12)


def test_minima_of_phi_are_those_of_the_energy(wave, wave_data):
    rates = np.linspace(0.5, 8, 40)
    both = [
        minimise(wave, {"r": 0.1}, wave_data, candidates={"t": rates, **more}, minima=4, **options)
        for more, options in (({}, {"eliminate": [b]}), ({"b": np.ones(40)}, {}))
    ]
    assert both[0].minima.count == 4
    assert both[0].minima.energy[0] == pytest.approx(both[1].minima.energy[0], rel=1e-10)
    values = phi(wave_data, 0.1, np.linspace(0.2, 9, 20_001))
    dips = np.sort(values[1:-1][(values[1:-1] < values[:-2]) & (values[1:-1] < values[2:])])
    assert both[0].minima.energy[0] == pytest.approx(dips[0], rel=1e-4)
    for one in both[0].minima:
        assert abs(one.energy - phi(wave_data, 0.1, one.variables["t"])) < 1e-9
    assert wb.implicit_jacobian(wave, both[0].minima[1]).shape == (2, 1)


def test_restarts_and_declared_candidates(wave_data):
    E = sp.Sum((x[i] - b * sp.sin(t * place[i])) ** 2, i) + r * b**2
    q = sp.Idx("q", (0, 9))
    energy = wb.Energy(E, variables=[b, t], weights=[r], data=[x, place], candidates={b: q - q, t: 0.7 * (q + 1)})
    kernel = wb.compile(energy, backend="reference")
    found = minimise(kernel, {"r": 0.1}, wave_data, eliminate=[b])
    assert found.variables["t"] == pytest.approx(4.0, abs=0.01) and found.variables["b"] == pytest.approx(2, abs=0.1)
    one = minimise(kernel, {"r": 0.1}, wave_data, start={"t": 0.9}, eliminate=[b])
    more = minimise(kernel, {"r": 0.1}, wave_data, start={"t": 0.9}, eliminate=[b], restarts=20, seed=3)
    assert more.energy < one.energy - 1 and more.minima.starts == 21


def test_a_solution_as_start_a_stream_and_a_pickle(wave, wave_data):
    first = minimise(wave, {"r": 0.1}, wave_data, start={"t": 3.5}, eliminate=[b])
    again = minimise(wave, {"r": 0.1}, wave_data, start=first, eliminate=[b])
    assert again.iterations == 0 and again.energy == pytest.approx(first.energy, rel=1e-14)
    (streamed,) = wb.minimise_stream(wave, {"r": 0.1}, [wave_data], start={"t": 3.5}, eliminate=[b])
    assert bits(streamed) == bits(first)
    kept = pickle.loads(pickle.dumps(first))
    assert kept.problem.eliminate == ("b",) and "CONVERGED" in str(kept.explain())
    limited = minimise(wave, {"r": 0.1}, wave_data, start={"t": 3.0}, eliminate=[b], max_iterations=1)
    assert limited.status == Status.ITERATION_LIMIT and "1 now" not in str(limited.explain()).splitlines()[0]


def test_energies_quadratic_in_all_variables_take_their_one_step():
    z = sp.Symbol("z", real=True)
    kernel = wb.compile(wb.Energy((t - z - 1) ** 2 + (z - 2) ** 2, variables=[t, z]), backend="reference")
    found, plain = minimise(kernel, start={"t": 0.0}, eliminate=[z]), minimise(kernel, start={"t": 0.0, "z": 0.0})
    assert bits(found) == bits(plain) and found.iterations == 1


def test_nothing_to_eliminate_changes_nothing(wave, wave_data):
    plain = minimise(wave, {"r": 0.1}, wave_data, start={"b": 1.0, "t": 3.5}, method="l-bfgs")
    assert bits(plain) == bits(
        minimise(wave, {"r": 0.1}, wave_data, start={"b": 1.0, "t": 3.5}, method="l-bfgs", eliminate=[])
    )


def test_matrix_symbols():
    A, v = sp.MatrixSymbol("A", 3, 3), sp.MatrixSymbol("v", 3, 1)
    energy = (v.T * A * v)[0, 0] * sp.exp(t) / 2 - v[0, 0] - v[2, 0] + t**2
    kernel = wb.compile(wb.Energy(energy, variables=[t, v], data=[A]), backend="reference")
    found = minimise(kernel, None, {"A": np.diag([1.0, 2, 4])}, start={"t": 0.0}, eliminate=[v])
    expected = np.array([1, 0, 0.25]) * np.exp(-found.variables["t"])
    np.testing.assert_allclose(np.ravel(found.variables["v"]), expected, atol=1e-9)


# ---------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("eliminate", "options", "error", "words"),
    [
        (["q"], {}, NameMissingError, ["'wave'", "'q'", "eliminate", "b, t"]),
        ("b", {}, InputTypeError, ["eliminate", "list", "str"]),
        (b, {}, InputTypeError, ["eliminate", "list"]),
        ([b, "b"], {}, InputError, ["eliminate=[b, b]", "twice"]),
        ([b, t], {}, InputError, ["eliminate=[b, t]", "no variable"]),
        ([t], {}, UnsupportedError, ["'wave'", "quadratic in t", "b*sin(place[i]*t)", "eliminate="]),
        ([b], {"method": "l-bfgs"}, InputError, ["eliminate=[b]", "'l-bfgs'", "trust-region"]),
        ([b], {"method": "newton-cg"}, InputError, ["eliminate=[b]", "'newton-cg'"]),
        ([b], {"method": "irls"}, InputError, ["eliminate=[b]", "'irls'"]),
        ([b], {"bounds": {"t": (0, 1)}}, InputError, ["eliminate=[b]", "bounds="]),
        ([r], {}, NameMissingError, ["'r'", "eliminate"]),
    ],
)
def test_bad_eliminate(wave, wave_data, eliminate, options, error, words):
    with pytest.raises(error) as caught:
        minimise(wave, {"r": 0.1}, wave_data, start={"b": 1.0, "t": 1.0}, eliminate=eliminate, **options)
    for word in words:
        assert word in str(caught.value)


def test_a_start_without_a_kept_variable_is_refused(wave, wave_data):
    with pytest.raises(NameMissingError, match="t"):
        minimise(wave, {"r": 0.1}, wave_data, start={"b": 1.0}, eliminate=[b])
    with pytest.raises(NameMissingError, match="b"):
        minimise(wave, {"r": 0.1}, wave_data, start={"t": 1.0})


def test_families_are_refused():
    m = sp.Symbol("m", integer=True, positive=True)
    e, target = sp.Idx("e", m), sp.IndexedBase("target", shape=(m,))
    energy = wb.Energy((a * sp.exp(t) - target[e]) ** 2 + t**2, variables=[a, t], data=[target], over=[e])
    kernel = wb.compile(energy, backend="reference")
    with pytest.raises(UnsupportedError, match=r"eliminate=\[a\].*over="):
        minimise(kernel, None, {"target": [1.0, 2.0]}, start={"t": 0.0}, eliminate=[a])


def test_the_term_that_is_not_quadratic_is_named():
    z = sp.IndexedBase("z", shape=(n,))
    E = sp.Sum((x[i] - z[i]) ** 2, i) + t**2 + sp.Sum(t * sp.Abs(z[i]), i)
    kernel = wb.compile(wb.Energy(E, variables=[t, z], data=[x]), backend="reference")
    with pytest.raises(UnsupportedError, match=r"the term t\*abs\(z\[i\]\) goes"):
        minimise(kernel, None, {"x": [1.0, 2]}, start={"t": 0.0}, eliminate=[z])


def test_what_is_too_large_says_what_to_use_instead(monkeypatch):
    z, y = sp.IndexedBase("z", shape=(n,)), sp.IndexedBase("y", shape=(n,))
    j = sp.Idx("j", (0, n - 2))
    smooth = sp.Sum((z[j + 1] - z[j]) ** 2, j) + sp.Sum((z[i] - x[i]) ** 2 * (1 + sp.exp(t)), i) + t**2
    kernel = wb.compile(wb.Energy(smooth, variables=[t, z], data=[x], name="chain"), backend="reference")
    with pytest.raises(UnsupportedError, match=r"'chain'.* 1001 unknowns of eliminate=\[z\].*leave out eliminate="):
        minimise(kernel, None, {"x": np.zeros(1001)}, start={"t": 0.0}, eliminate=[z])
    many = sp.Sum((z[i] - sp.sin(y[i])) ** 2 + y[i] ** 2, i)
    kernel = wb.compile(wb.Energy(many, variables=[y, z], name="many"), backend="reference")
    with pytest.raises(UnsupportedError, match=r"'many'.*eliminate=\[z\] leaves 1001 unknowns"):
        minimise(kernel, start={"y": np.zeros(1001)}, eliminate=[z])
