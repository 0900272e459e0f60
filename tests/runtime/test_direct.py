"""Steps by factors of a sparse Hessian: when, how exact, and that all promises hold as for conjugate gradients."""

from __future__ import annotations

import gc
import math
import signal
import threading
import time
from array import array

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from energies_table import TABLE
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.compiler.calls.arrays import address_of
from wiberg.compiler.calls.pattern import Pattern
from wiberg.compiler.machine_code.native import compile_driver, native
from wiberg.compiler.machine_code.signature import DoublePointer, IntegerPointer
from wiberg.learn.derivative import sparse as learn_sparse
from wiberg.runtime import sparse
from wiberg.runtime.algebra import direct, multifrontal
from wiberg.runtime.algebra.conjugate_gradients import Factored, system_of
from wiberg.runtime.algebra.fronts import find_fronts

scipy_sparse = pytest.importorskip("scipy.sparse")
linalg = pytest.importorskip("scipy.sparse.linalg")

n, m, k = sp.symbols("n m k", integer=True, positive=True)
i, j, q = sp.Idx("i", n), sp.Idx("j", m), sp.Idx("q", k)
inner, across = sp.Idx("inner", (1, n - 2)), sp.Idx("across", (1, m - 2))
y, x = sp.IndexedBase("y", shape=(n,)), sp.IndexedBase("x", shape=(n,))
e, d = sp.IndexedBase("e", shape=(k, 2), integer=True), sp.IndexedBase("d", shape=(k,))
p, turn = sp.IndexedBase("p", shape=(n, 3)), sp.IndexedBase("turn", shape=(k, 3))
h, load = sp.IndexedBase("h", shape=(n, m)), sp.IndexedBase("load", shape=(n, m))
c, b, z = (
    sp.IndexedBase("c", shape=(k,), integer=True),
    sp.IndexedBase("b", shape=(k, 4)),
    sp.IndexedBase("z", shape=(k,)),
)
stiffness, unit = sp.symbols("stiffness unit", positive=True)

BENDING = sp.Sum((y[inner - 1] - 2 * y[inner] + y[inner + 1]) ** 2, inner)
HERE, THERE = p[e[q, 0], 2], p[e[q, 1], 2]
ALONG, BESIDE = (p[e[q, 1], axis] - p[e[q, 0], axis] for axis in range(2))
OF_PLATE = (
    sp.Sum((h[inner - 1, j] - 2 * h[inner, j] + h[inner + 1, j]) ** 2, inner, j)
    + sp.Sum((h[i, across - 1] - 2 * h[i, across] + h[i, across + 1]) ** 2, i, across)
)  # fmt: skip

ENERGIES = {
    "beam": (stiffness * BENDING + sp.Sum(sp.sqrt(1 + (y[i] - x[i]) ** 2), i), [y], [x]),
    "quadratic beam": (stiffness * BENDING + sp.Sum((y[i] - x[i]) ** 2, i), [y], [x]),
    "free beam": (stiffness * sp.Sum((y[inner - 1] - 2 * y[inner] + y[inner + 1] - x[inner]) ** 2, inner), [y], [x]),
    "downhill": (-sp.Sum((y[inner + 1] - y[inner]) ** 2, inner) + BENDING / 100, [y], []),
    "measured beam": (
        stiffness * BENDING / unit**2 + sp.Sum(sp.sqrt(1 + (y[i] / unit - x[i]) ** 2), i),
        [y],
        [x, unit],
    ),
    "buckling": (
        BENDING / 2 - stiffness * sp.Sum((y[inner + 1] - y[inner]) ** 2, inner) + sp.Sum(y[i] ** 4, i),
        [y],
        [],
    ),
    "spline": (
        stiffness * BENDING + sp.Sum(wb.pseudo_huber((sum(b[q, a] * y[c[q] + a] for a in range(4)) - z[q]) ** 2, 1), q),
        [y],
        [c, b, z],
    ),
    "graph": (
        sp.Sum(sp.sqrt(1 + (y[e[q, 0]] - y[e[q, 1]] - d[q]) ** 2), q) + stiffness * sp.Sum((y[i] - x[i]) ** 2, i),
        [y],
        [e, d, x],
    ),
    "wells on a graph": (
        sp.Sum(d[q] * y[e[q, 0]] * y[e[q, 1]], q) + stiffness * sp.Sum(y[i] ** 4 / 4 - y[i] ** 2 / 2, i),
        [y],
        [e, d],
    ),
    "poses": (
        sp.Sum(
            (sp.cos(HERE) * ALONG + sp.sin(HERE) * BESIDE - turn[q, 0]) ** 2
            + (sp.cos(HERE) * BESIDE - sp.sin(HERE) * ALONG - turn[q, 1]) ** 2
            + stiffness * (2 - 2 * sp.cos(THERE - HERE - turn[q, 2])),
            q,
        )
        + sum(p[0, axis] ** 2 for axis in range(3)),
        [p],
        [e, turn],
    ),
    "plate": (
        stiffness * OF_PLATE + sp.Sum(sp.sqrt(1 + h[i, j] ** 2) - load[i, j] * h[i, j], i, j),
        [h],
        [load],
    ),
}


@pytest.fixture(scope="module")
def compiled():
    made = {}

    def kernel(name, backend="reference"):
        if (name, backend) not in made:
            formula, variables, data = ENERGIES[name]
            weights = [stiffness] if formula.has(stiffness) else []
            energy = wb.Energy(formula, variables=variables, weights=weights, data=data, name=name)
            made[name, backend] = wb.compile(energy, backend=backend)
        return made[name, backend]

    return kernel


class Eliminated(direct.Stages):
    """Factors at once, whatever they cost."""

    def __init__(self, pattern):
        self._known = [direct.Stage(factored(pattern), 0)]


class Iterated(direct.Stages):
    """Conjugate gradients alone."""

    def __init__(self, pattern):
        self._known = [direct.Stage(system_of(pattern), 0)]


@pytest.fixture
def stages(monkeypatch):
    """Choose the stages of all patterns."""

    def choose(kind):
        monkeypatch.setattr(direct, "Stages", kind)
        monkeypatch.setattr(direct, "_stages", type(direct._stages)())

    return choose


@pytest.fixture
def factors(monkeypatch, stages):
    """Small problems go the way of large ones, by factors."""
    monkeypatch.setattr(sparse, "MANY", 0)
    stages(Eliminated)


def fronts_of(pattern):
    fronts = find_fronts(pattern.indptr, pattern.indices, pattern.sources, pattern.starts)
    assert fronts is not None
    return fronts


def factored(pattern):
    return Factored(pattern, fronts_of(pattern))


def pattern_of(matrix, parts=1):
    """The pattern of a matrix, and slots; each entry is the sum of several."""
    csr = scipy_sparse.csr_array(matrix)
    csr.sort_indices()
    if parts == 1:
        return Pattern(csr.shape, csr.indptr, csr.indices, np.arange(csr.nnz), None), csr.data.astype(float)
    generator = np.random.default_rng(0)
    pieces = generator.standard_normal((csr.nnz, parts)) * np.abs(csr.data)[:, None]
    pieces[:, -1] = csr.data - pieces[:, :-1].sum(axis=1)
    sources = generator.permutation(parts * csr.nnz)
    slots = np.empty(parts * csr.nnz)
    slots[sources] = pieces.ravel()
    return Pattern(csr.shape, csr.indptr, csr.indices, sources, np.arange(0, parts * csr.nnz + 1, parts)), slots


# ---------------------------------------------------------------------------------------------- the factors


def _factorise(
    layout: IntegerPointer,
    slots: DoublePointer,
    shift: float,
    lift: float,
    scale: DoublePointer,
    factor: DoublePointer,
    work: DoublePointer,
    stop: IntegerPointer,
) -> int:
    return 1 if multifrontal.factorise(layout, slots, shift, lift, scale, factor, work, stop) else 0


FACTORISE = compile_driver(_factorise, "factorise")[0]


class Numbers:
    """Factors of A + shift with the functions of multifrontal.py, in memory with guards around it."""

    GUARD = 8

    def __init__(self, matrix, parts=1, shift=0.0, lift=0.0):
        pattern, slots = pattern_of(matrix, parts)
        self.fronts, self.n = fronts_of(pattern), pattern.shape[0]
        self.arrays = self.fronts.arrays
        sizes = len(self.fronts.pivots), self.fronts.room, self.fronts.widest, self.fronts.size
        self.layout = array("q", (*sizes, *map(address_of, self.arrays)))
        diagonal = np.abs(matrix.diagonal() + shift)
        self.scale = 1.0 / np.sqrt(np.where(diagonal > 0.0, diagonal, 1.0))[self.fronts.order]
        self.factor = np.full(self.fronts.size + 2 * self.GUARD, math.nan)
        self.work = np.full(self.fronts.room + self.fronts.widest + 2 * self.GUARD, math.nan)
        stop = np.zeros(1, np.int64)
        arrays = address_of(self.scale), *map(self.inside, (self.factor, self.work)), address_of(stop)
        place = self.layout.buffer_info()[0]
        self.definite = bool(FACTORISE.call(place, address_of(slots), shift, lift, *arrays))

    def inside(self, numbers):
        return address_of(numbers) + 8 * self.GUARD

    def guards_are_whole(self):
        ends = (part for a in (self.factor, self.work) for part in (a[: self.GUARD], a[-self.GUARD :]))
        return all(np.isnan(part).all() for part in ends)

    def apply(self, function, vector):
        out = np.array(vector, float)
        room = self.inside(self.work) + 8 * self.fronts.room
        native(function).call(self.layout.buffer_info()[0], self.inside(self.factor), address_of(out), room)
        return out

    def solve(self, right):
        out = np.empty(self.n)
        inner = self.apply(multifrontal.back, self.apply(multifrontal.forth, self.scale * right[self.fronts.order]))
        out[self.fronts.order] = self.scale * inner
        return out

    def times_factor(self, vector):
        out = np.zeros(self.n)
        room = self.inside(self.work) + 8 * self.fronts.room
        place, source = self.layout.buffer_info()[0], np.array(vector, float)
        native(multifrontal.multiply).call(place, self.inside(self.factor), address_of(source), address_of(out), room)
        return out


@st.composite
def matrices(draw, *, definite=True):
    """Symmetric matrices of random patterns: sparse to full, arrows, chains, disconnected; scales 1e-6 to 1e6."""
    size = draw(st.integers(1, 60))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["random", "chain", "arrow", "pieces", "full"]))
    density = {"random": 2.5 / size, "pieces": 0.8 / size, "full": 1.0}.get(kind, 0.0)
    pairs = generator.random((size, size)) < density
    if kind == "chain":
        for far in range(1, draw(st.integers(1, 4)) + 1):
            pairs |= np.eye(size, k=far, dtype=bool)
    if kind == "arrow":
        pairs[draw(st.integers(0, size - 1))] = True
    values = np.where(pairs, generator.standard_normal((size, size)), 0.0)
    shuffle = generator.permutation(size)
    matrix = np.triu(values, 1)
    matrix = (matrix + matrix.T)[shuffle][:, shuffle]
    beside = np.abs(matrix).sum(axis=1)
    scales = 10.0 ** generator.uniform(-3, 3, size)
    diagonal = (1.01 * beside + 0.01) if definite else generator.standard_normal(size) * (beside + 0.1)
    return scales[:, None] * (matrix + np.diag(diagonal)) * scales


@settings(max_examples=150, deadline=None)
@given(matrices(), st.sampled_from([1, 3]))
def test_factors_solve_with_definite_matrices_of_any_pattern(matrix, parts):
    numbers = Numbers(matrix, parts)
    assert numbers.definite and numbers.guards_are_whole()
    expected = np.random.default_rng(1).standard_normal(len(matrix)) / np.sqrt(matrix.diagonal())
    got = numbers.solve(matrix @ expected)
    np.testing.assert_allclose(got * np.sqrt(matrix.diagonal()), expected * np.sqrt(matrix.diagonal()), atol=1e-9)
    whole = np.array([numbers.times_factor(column) for column in np.eye(len(matrix))])  # R, row by row
    order = numbers.fronts.order
    scaled = numbers.scale[:, None] * matrix[order][:, order] * numbers.scale
    np.testing.assert_allclose(whole.T @ whole, scaled, atol=1e-12)
    assert np.array_equal(whole, np.triu(whole))
    assert numbers.guards_are_whole()


@settings(max_examples=150, deadline=None)
@given(matrices(definite=False))
def test_a_factorisation_ends_exactly_where_a_matrix_is_not_positive_definite(matrix):
    scale = 1.0 / np.sqrt(np.abs(matrix.diagonal()))
    values = np.linalg.eigvalsh(scale[:, None] * matrix * scale)
    if abs(values[0]) > 1e-10:
        assert Numbers(matrix).definite == (values[0] > 0)
    assert Numbers(matrix, lift=1.001 * max(0.0, -values[0]) + 1e-6).definite
    shift = 1.001 * max(0.0, -np.linalg.eigvalsh(matrix)[0]) + 1e-6 * np.abs(matrix).sum()
    assert Numbers(matrix, shift=shift).definite


def test_singular_matrices_are_not_definite():
    chain = 2 * np.eye(9) - np.eye(9, k=1) - np.eye(9, k=-1)
    chain[0, 0] = chain[-1, -1] = 1
    assert not Numbers(chain).definite and Numbers(chain, shift=1e-9).definite


def laplacian(side):
    line = scipy_sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(side, side))
    return scipy_sparse.kron(line, scipy_sparse.eye_array(side)) + scipy_sparse.kron(scipy_sparse.eye_array(side), line)


def test_the_fill_is_about_that_of_superlu():
    matrix = (laplacian(40) @ laplacian(40)).tocsc()
    fronts = fronts_of(pattern_of(matrix)[0])
    options = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
    assert fronts.size + fronts.room < 2.5 * linalg.splu(matrix, **options).L.nnz


def test_memory_and_work_of_a_chain_are_linear_in_its_length():
    sizes = []
    for count in (1000, 4000):
        second = scipy_sparse.diags_array([1.0, -2.0, 1.0], offsets=[0, 1, 2], shape=(count - 2, count))
        fronts = fronts_of(pattern_of(second.T @ second + scipy_sparse.eye_array(count))[0])
        sizes.append((fronts.size + fronts.room, fronts.work))
    assert sizes[1][0] < 4.5 * sizes[0][0] < 4.5 * 15_000 and sizes[1][1] < 4.5 * sizes[0][1]


def test_a_raised_stop_flag_ends_a_factorisation_before_its_first_front():
    pattern, slots = pattern_of(laplacian(200))
    fronts = fronts_of(pattern)
    arrays, stop = fronts.arrays, np.ones(1, np.int64)
    layout = array("q", (len(fronts.pivots), fronts.room, fronts.widest, fronts.size, *map(address_of, arrays)))
    scale, factor, work = np.ones(40_000), np.empty(fronts.size), np.empty(fronts.room + fronts.widest)
    rest = address_of(slots), 0.0, 0.0, *map(address_of, (scale, factor, work, stop))
    FACTORISE.call(layout.buffer_info()[0], *rest)
    assert not factor.any()


# ---------------------------------------------------------------------------------------------- minimising


def spline_data(count, knots, generator):
    at = np.sort(generator.uniform(0, knots - 3, count))
    first = np.minimum(at.astype(int), knots - 4)
    t = at - first
    basis = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3], 1) / 6
    return {"c": first, "b": basis, "z": np.sin(at / 5) + generator.standard_t(3, count)}


def loop(count, generator):
    """Poses around a loop that closes, with some chords, and odometry to start from."""
    heading = np.linspace(0, 2 * np.pi, count, endpoint=False)
    path = np.stack([np.sin(heading) * count / 6, (1 - np.cos(heading)) * count / 6, heading], 1)
    pairs = np.array(
        [*((s, (s + 1) % count) for s in range(count)), *((s, s + count // 2) for s in range(0, count // 2, 7))]
    )
    s, t = path[pairs[:, 0]], path[pairs[:, 1]]
    gap, cos, sin = t - s, np.cos(s[:, 2]), np.sin(s[:, 2])
    seen = np.stack([cos * gap[:, 0] + sin * gap[:, 1], cos * gap[:, 1] - sin * gap[:, 0], gap[:, 2]], 1)
    seen += generator.standard_normal(seen.shape) * [0.01, 0.01, 0.002]
    return {"e": pairs, "turn": seen}, path + 0.01 * generator.standard_normal(path.shape)


def instance_of(name, size):
    """Weights, data and a start of an energy of about so many unknowns."""
    generator = np.random.default_rng(0)
    if name in ("beam", "quadratic beam"):
        target = np.cumsum(generator.standard_normal(size))
        return {"stiffness": 1e4}, {"x": target}, {"y": np.zeros(size)}
    if name == "buckling":
        return {"stiffness": 0.2}, {}, {"y": 1e-3 * generator.standard_normal(size)}
    if name == "spline":
        return {"stiffness": 1e3}, spline_data(4 * size, size, generator), {"y": np.zeros(size)}
    if name == "graph":
        pairs = np.array([(child, generator.integers(max(0, child - 20), child)) for child in range(1, size)])
        data = {"e": pairs, "d": generator.standard_normal(size - 1), "x": generator.standard_normal(size)}
        return {"stiffness": 1e-5}, data, {"y": np.zeros(size)}
    if name == "poses":
        data, start = loop(max(8, size // 3), generator)
        return {"stiffness": 100.0}, data, {"p": start}
    side = math.isqrt(size)
    return {"stiffness": 1e3}, {"load": generator.standard_normal((side, side))}, {"h": np.zeros((side, side))}


NAMES = ("beam", "quadratic beam", "buckling", "spline", "graph", "poses", "plate")


@pytest.mark.parametrize("name", NAMES)
def test_minima_are_those_of_the_dense_driver(name, monkeypatch, stages, compiled):
    w, data, start = instance_of(name, 48)
    kernel = compiled(name)
    expected = wb.minimise(kernel, w, data, start=start)
    monkeypatch.setattr(sparse, "MANY", 0)
    stages(Eliminated)
    got = wb.minimise(kernel, w, data, start=start)
    assert got.problem.factorised.all() and not expected.problem.factorised.any()
    assert got.status == expected.status == wb.Status.CONVERGED and got.gradient_norm <= 1e-8
    assert got.energy == pytest.approx(expected.energy, rel=1e-9)
    true = np.linalg.eigvalsh(kernel.dense_hessian(got.variables, w, data))[0]
    assert 0.4 * true <= got.curvature <= true * (1 + 1e-9)
    if name != "buckling":  # which has more than one minimum
        (one,), (other,) = got.variables.values(), expected.variables.values()
        np.testing.assert_allclose(one, other, atol=1e-6 * (1 + np.abs(other).max()))


@pytest.mark.parametrize("name", ["beam", "quadratic beam", "spline", "poses", "plate"])
def test_minima_of_thousands_of_unknowns_are_those_of_newtons_method_with_spsolve(name, compiled):
    kernel = compiled(name, "numba")
    w, data, start = instance_of(name, 2500)
    got = wb.minimise(kernel, w, data, start=start)
    assert got.converged and got.problem.factorised.all() and got.iterations <= 15
    (variable,) = start
    point = np.array(start[variable], float)
    for _ in range(60):
        gradient = kernel.gradient({variable: point}, w, data)
        if np.abs(gradient).max() <= 1e-9:
            break
        step = linalg.spsolve(kernel.hessian({variable: point}, w, data).tocsc(), -gradient).reshape(point.shape)
        energy, length = kernel.value({variable: point}, w, data), 1.0
        while kernel.value({variable: point + length * step}, w, data) > energy and length > 1e-10:
            length /= 2
        point = point + length * step
    assert got.energy == pytest.approx(kernel.value({variable: point}, w, data), rel=1e-12)
    if name == "poses":  # whose lowest curvature is rounding beside the largest
        return
    difference = (got.variables[variable] - point).ravel()
    lowest = got.curvature  # |difference| <= (|gradient here| + |gradient there|) / lowest curvature
    assert np.linalg.norm(difference) <= 2 * math.sqrt(len(difference)) * 2e-8 / lowest + 1e-9 * np.linalg.norm(point)


@pytest.mark.parametrize("name", ["beam", "spline", "graph", "poses", "plate"])
def test_conjugate_gradients_come_to_the_same_minimum(name, stages, compiled):
    kernel = compiled(name, "numba")
    w, data, start = instance_of(name, 900)
    by_factors = wb.minimise(kernel, w, data, start=start)
    stages(Iterated)
    iterated = wb.minimise(kernel, w, data, start=start)
    assert by_factors.problem.factorised.all() and not iterated.problem.factorised.any()
    assert by_factors.converged and iterated.converged
    assert by_factors.energy == pytest.approx(iterated.energy, rel=1e-10)
    assert by_factors.iterations <= iterated.iterations + 3


@st.composite
def graphs(draw):
    """Edges among some unknowns, and their strengths: with loops, isolated unknowns, edges twice and to themselves."""
    size = draw(st.integers(2, 24))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(1, 3 * size))
    return size, generator.integers(0, size, (count, 2)), 3 * generator.standard_normal(count), generator


@settings(max_examples=60, deadline=None)
@given(graphs(), st.sampled_from(["wells on a graph", "graph"]), st.sampled_from([0.0, 1e-3, 1.0]))
def test_random_graphs_end_as_they_should(graph, name, strength):
    size, pairs, strengths, generator = graph
    data = {"e": pairs, "d": strengths}
    if name == "graph":
        data["x"] = generator.standard_normal(size)
    elif strength == 0.0:
        strength = 0.5
    w = {"stiffness": max(strength, 1e-12)}
    formula, variables, names = ENERGIES[name]
    kernel = (
        KERNELS.setdefault(
            name,
            wb.compile(wb.Energy(formula, variables=variables, weights=[stiffness], data=names), backend="reference"),
        )
        if name not in KERNELS
        else KERNELS[name]
    )
    start = {"y": generator.standard_normal(size)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse, "MANY", 0)
        patch.setattr(direct, "Stages", Eliminated)
        patch.setattr(direct, "_stages", type(direct._stages)())
        got = wb.minimise(kernel, w, data, start=start, max_iterations=300)
    assert got.problem.factorised.all()
    assert got.energy <= kernel.value(start, w, data)
    assert got.status in (wb.Status.CONVERGED, wb.Status.STALLED)
    values = np.linalg.eigvalsh(kernel.dense_hessian(got.variables, w, data))
    assert values[0] >= -1e-9 * np.abs(values).max()
    assert got.curvature <= values[0] + 1e-10 * np.abs(values).max()
    assert np.abs(kernel.gradient(got.variables, w, data)).max() <= 1e-7


KERNELS = {}


def test_an_indefinite_hessian_is_left_downwards(factors, compiled):
    kernel = compiled("buckling")
    w, _, start = instance_of("buckling", 40)
    assert np.linalg.eigvalsh(kernel.dense_hessian(start, w))[0] < -0.01
    solution = wb.minimise(kernel, w, start=start)
    assert solution.converged and solution.energy < kernel.value(start, w) - 1e-3 and solution.curvature > 0


def test_a_saddle_is_left(factors, compiled):
    solution = wb.minimise(compiled("buckling"), {"stiffness": 0.2}, start={"y": np.zeros(40)})
    assert solution.converged and solution.energy < -1e-3


def test_a_singular_semidefinite_hessian_is_a_minimum(factors, compiled):
    target = np.random.default_rng(0).standard_normal(60)
    solution = wb.minimise(compiled("free beam"), {"stiffness": 1.0}, {"x": target}, start={"y": np.zeros(60)})
    assert solution.converged and solution.energy < 1e-12 and abs(solution.curvature) < 1e-9
    second = np.diff(np.eye(60), 2, axis=0)
    np.testing.assert_allclose(solution.variables["y"], np.linalg.pinv(second) @ target[1:-1], atol=1e-5)


def test_an_energy_without_a_minimum_is_unbounded(factors, compiled):
    assert wb.minimise(compiled("downhill"), start={"y": np.linspace(0.5, 1.0, 30)}).status == wb.Status.UNBOUNDED


@pytest.mark.parametrize("unit", [2.0**-20, 2.0**20])
def test_units_of_variables_change_nothing_but_the_unit(unit, factors, compiled):
    kernel, generator = compiled("measured beam"), np.random.default_rng(0)
    data, start = {"x": np.cumsum(generator.standard_normal(40)), "unit": 1.0}, generator.standard_normal(40)
    one = wb.minimise(kernel, {"stiffness": 1e3}, data, start={"y": start}, gtol=1e-6)
    other = wb.minimise(kernel, {"stiffness": 1e3}, {**data, "unit": unit}, start={"y": unit * start}, gtol=1e-6 / unit)
    assert one.converged and other.converged and one.iterations == other.iterations
    np.testing.assert_allclose(other.variables["y"] / unit, one.variables["y"], rtol=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
def test_a_bad_instance_changes_no_bit_of_others(bad, factors, compiled):
    kernel, generator = compiled("beam"), np.random.default_rng(0)
    data = {"x": np.cumsum(generator.standard_normal((5, 30)), axis=1)}
    start = np.zeros((5, 30))
    alone = wb.minimise(kernel, {"stiffness": 1e4}, data, start={"y": start})
    start[2, 7] = bad
    together = wb.minimise(kernel, {"stiffness": 1e4}, data, start={"y": start})
    assert alone.converged.all() and not together.converged[2] if bad != 1e200 else True
    others = [0, 1, 3, 4]
    assert np.array_equal(together.variables["y"][others], alone.variables["y"][others])
    assert np.array_equal(together.reals[others], alone.reals[others])


def mixed(count):
    """Plates of one pattern, some stiff, some that conjugate gradients solve in a few steps."""
    generator = np.random.default_rng(0)
    stiff = np.where(np.arange(count) % 3 == 1, 1e4, 1e-3)
    return {"stiffness": stiff}, {"load": generator.standard_normal((count, 24, 24))}, np.zeros((24, 24))


def test_an_instance_takes_the_same_way_with_the_same_bits_in_any_batch_and_on_any_threads(compiled, monkeypatch):
    monkeypatch.setattr(direct, "_stages", type(direct._stages)())
    kernel = compiled("plate", "numba")
    w, data, start = mixed(9)
    found = []
    for threads in (1, 2, 4):
        wb.set_threads(threads)
        found.append(wb.minimise(kernel, w, data, start={"h": start}))
    wb.set_threads(1)
    whole = found[0]
    assert whole.converged.all()
    assert whole.problem.factorised.tolist() == [r % 3 == 1 for r in range(9)]
    for other in found[1:]:
        assert np.array_equal(other.variables["h"], whole.variables["h"]) and np.array_equal(other.reals, whole.reals)
        assert np.array_equal(other.integers, whole.integers)
    order = np.random.default_rng(1).permutation(9)
    turned = wb.minimise(
        kernel, {"stiffness": w["stiffness"][order]}, {"load": data["load"][order]}, start={"h": start}
    )
    assert np.array_equal(turned.variables["h"], whole.variables["h"][order])
    assert np.array_equal(turned.integers, whole.integers[order])
    for one in (0, 1):
        direct._stages.clear()
        alone = wb.minimise(kernel, {"stiffness": w["stiffness"][one]}, {"load": data["load"][one]}, start={"h": start})
        assert np.array_equal(alone.variables["h"], whole.variables["h"][one])
        assert np.array_equal(alone.reals[0], whole.reals[one])


@pytest.mark.parametrize("name", ["plate", "graph"])
def test_steps_of_given_up_stages_count_and_are_limited(name, compiled, monkeypatch):
    monkeypatch.setattr(direct, "_stages", type(direct._stages)())
    kernel = compiled(name, "numba")
    w, data, start = instance_of(name, 900)
    free = wb.minimise(kernel, w, data, start=start)
    iterated = wb.minimise(kernel, w, data, start=start, max_iterations=1)
    assert free.factorised and iterated.factorised == (name == "plate")  # the graph goes some steps before
    before = np.inf
    for most in range(free.iterations + 1):
        held = wb.minimise(kernel, w, data, start=start, max_iterations=most)
        assert held.iterations == most and held.evaluations > most and held.energy <= before + 1e-9
        assert held.converged == (most == free.iterations) and (most != 1 or held.energy < before)
        before = held.energy
    assert held.evaluations == free.evaluations


def test_the_way_is_chosen_by_steps_and_structure(compiled, monkeypatch):
    monkeypatch.setattr(direct, "_stages", type(direct._stages)())
    kernel = compiled("beam", "numba")
    _, data, _ = instance_of("beam", 900)
    start = {"y": data["x"]}
    soft, stiff = (wb.minimise(kernel, {"stiffness": s}, data, start=start) for s in (1e-2, 1e4))
    assert soft.converged and stiff.converged
    assert not soft.problem.factorised.any() and stiff.problem.factorised.all()

    pattern, _ = pattern_of(laplacian(30) @ laplacian(30))
    stages = direct.Stages(pattern)
    assert [stages[0].is_factored, stages[1].is_factored] == [False, True]
    generator = np.random.default_rng(0)  # of a random graph, most of the factor is full
    pairs = generator.integers(0, 1000, (3000, 2))
    ones = scipy_sparse.coo_array((np.ones(3000), tuple(pairs.T)), shape=(1000, 1000))
    pattern, _ = pattern_of(ones + ones.T + 10 * scipy_sparse.eye_array(1000))
    stages = direct.Stages(pattern)
    assert [stages[k].is_factored for k in range(3)] == [False, False, True]
    assert 0 < 2 * stages[0].patience < stages[1].patience and stages.last is stages[2]


def test_factors_are_forgotten_with_their_pattern(monkeypatch):
    monkeypatch.setattr(direct, "_stages", type(direct._stages)())
    pattern, _ = pattern_of(laplacian(10) @ laplacian(10))
    assert direct.stages_of(pattern)[1].is_factored and len(direct._stages) == 1
    del pattern
    gc.collect()
    assert not len(direct._stages)


def test_what_takes_too_much_memory_is_not_factorised(monkeypatch):
    monkeypatch.setattr(direct, "LARGEST", 1000)
    pattern, _ = pattern_of(laplacian(20) @ laplacian(20))
    stages = direct.Stages(pattern)
    assert not stages[1].is_factored and stages.last is stages[1]


def test_images_never_look_for_fronts(monkeypatch):
    monkeypatch.setattr(direct, "find_fronts", None)
    monkeypatch.setattr(direct, "_stages", type(direct._stages)())
    kernel, generator = wb.compile(TABLE["denoise"]()), np.random.default_rng(0)
    noisy = np.kron(generator.standard_normal((4, 4)), np.ones((16, 16))) + 0.1 * generator.standard_normal((64, 64))
    assert wb.minimise(kernel, {"sigma": 0.15, "tau": 0.05}, {"x": noisy}, start={"y": noisy}).converged


@pytest.mark.parametrize("name", ["beam", "plate", "poses"])
def test_the_damped_derivative_is_that_of_the_dense_hessian(name, compiled):
    kernel = compiled(name, "numba")
    w, data, start = instance_of(name, 600)
    solution = wb.minimise(kernel, w, data, start=start, gtol=1e-10)
    assert solution.problem.factorised.all()
    (variable,) = start
    slopes = np.random.default_rng(1).standard_normal(np.shape(start[variable]))
    got = wb.implicit_gradient(kernel, solution, {variable: slopes})["stiffness"]
    hessian = kernel.hessian(solution.variables, w, data).toarray()
    cross = kernel.cross(solution.variables, w, data)
    expected = -np.linalg.solve(hessian + 0.1 * np.eye(len(hessian)), slopes.ravel()) @ np.asarray(cross).ravel()
    assert got == pytest.approx(expected, rel=1e-7)


@pytest.fixture
def interruptible():
    """SIGINT raises KeyboardInterrupt, also where the tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_damped_derivative_is_solved_by_factors_in_a_few_steps(compiled, monkeypatch):
    kernel = compiled("beam", "numba")
    w, data, start = instance_of("beam", 900)
    solution = wb.minimise(kernel, w, data, start=start)
    slopes = {"y": np.ones(900)}
    expected = wb.implicit_gradient(kernel, solution, slopes)
    monkeypatch.setattr(learn_sparse, "LONG", 4)
    monkeypatch.setattr(learn_sparse, "_System", None)  # what comes after LONG steps
    assert wb.implicit_gradient(kernel, solution, slopes) == expected


def test_an_interrupt_ends_a_long_minimisation_by_factors_at_once(compiled, stages, interruptible):
    stages(Eliminated)
    kernel = compiled("plate", "numba")
    data = {"load": np.random.default_rng(0).standard_normal((400, 80, 80))}
    w, start = {"stiffness": 1e4}, {"h": np.zeros((80, 80))}
    wb.minimise(kernel, w, {"load": data["load"][:1]}, start=start)
    threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
    begun = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        wb.minimise(kernel, w, data, start=start)
    assert time.perf_counter() - begun < 3.0
