"""The border and the blocks that are found, and minimisations with and without them."""

import bordered
import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.runtime.algebra import blocks as module
from wiberg.runtime.algebra.blocks import CLEARLY, blocks_of, dense_cost, find_blocks
from wiberg.runtime.algebra.bordered import COUNT, LOWEST, TABLES


def assert_valid(found, met):
    """Every unknown once; no entry between two blocks."""
    everything = np.concatenate([found.rest, found.border])
    assert sorted(everything) == list(range(len(met)))
    block = np.repeat(np.arange(len(found.sizes)), found.sizes)
    inside = met[np.ix_(found.rest, found.rest)]
    assert not (inside & (block[:, None] != block)).any()


# ---------------------------------------------------------------------------------------------- the finder


@settings(max_examples=60)
@given(st.integers(0, 8), st.lists(st.integers(1, 4), min_size=15, max_size=40), st.integers(0, 2**32 - 1))
def test_an_arrow_is_found_wherever_its_unknowns_are(border, sizes, seed):
    order = np.random.default_rng(seed).permutation(border + sum(sizes))
    met = bordered.pattern(border, sizes, order)
    found = find_blocks(met)
    if found is None:
        return
    assert_valid(found, met)
    wanted = bordered.blocks_of_form(border, sizes, order)
    assert np.array_equal(found.border, wanted.border)
    assert sorted(found.sizes) == sorted(sizes)


@pytest.mark.parametrize(
    ("border", "sizes"), [(12, [3] * 16), (30, [3] * 40), (0, [5] * 20), (1, [1] * 40), (4, [9] * 9)]
)
def test_shapes_that_pay(border, sizes):
    found = find_blocks(bordered.pattern(border, sizes))
    assert found.border.tolist() == list(range(border))
    assert found.sizes.tolist() == sizes
    assert found.cost < CLEARLY * dense_cost(border + sum(sizes))
    assert found.memory <= (border + sum(sizes)) ** 2


def test_blocks_of_no_border_may_be_large():
    assert find_blocks(bordered.pattern(0, [60, 70, 50])).sizes.tolist() == [60, 70, 50]


def test_what_does_not_pay_is_left_as_it_is():
    assert find_blocks(np.ones((100, 100), bool)) is None
    assert find_blocks(bordered.pattern(2, [3] * 5)) is None
    assert find_blocks(bordered.pattern(60, [3] * 10)) is None
    half = np.random.default_rng(0).random((80, 80)) < 0.5
    assert find_blocks(half | half.T | np.eye(80, dtype=bool)) is None


def test_a_chain_has_no_unknowns_that_meet_most_but_can_be_cut():
    apart = abs(np.subtract.outer(np.arange(200), np.arange(200)))
    found = find_blocks(apart <= 1)
    assert_valid(found, apart <= 1)
    assert 0 < len(found.border) < 40 and found.largest <= 32
    assert find_blocks(apart <= 60) is None


@settings(max_examples=60)
@given(st.integers(20, 90), st.floats(0, 0.2), st.integers(0, 2**32 - 1))
def test_what_is_found_in_any_pattern_is_right_and_cheaper(n, density, seed):
    met = np.random.default_rng(seed).random((n, n)) < density
    met = met | met.T | np.eye(n, dtype=bool)
    found = find_blocks(met)
    if found is not None:
        assert_valid(found, met)
        assert found.memory <= n * n and found.cost < CLEARLY * dense_cost(n)


def test_the_layout_says_all_of_it():
    met = bordered.pattern(4, [2] * 20, np.roll(np.arange(44), 2))
    layout = find_blocks(met).layout
    head, tables = layout[:TABLES], layout[TABLES:]
    assert head[:LOWEST].tolist() == [20, 40, 4, 40, 4, 1, 2, 80]
    assert tables[:40].tolist() == [*range(2), *range(6, 44)]
    assert tables[40:60].tolist() == [2] * 20
    assert tables[60:].tolist() == [2, 3, 4, 5, 2, 4]


# ---------------------------------------------------------------------------------------------- minimising


def both(monkeypatch, kernel, run):
    """What `run` gives with blocks and without."""
    with_blocks = run(kernel)
    with monkeypatch.context() as patch:
        patch.setattr(module, "FEWEST", 10**6)
        without = run(wb.compile(kernel.energy))
    return with_blocks, without


CASES = {
    "free_joints": (bordered.free_joints_inputs, {"batch": 4, "joints": 30}),
    "bundle": (bordered.bundle_inputs, {"batch": 3, "cameras": 3, "points": 50}),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    inputs, sizes = CASES[request.param]
    kernel = wb.compile(getattr(bordered, request.param)())
    return kernel, *inputs(**sizes)


def test_blocks_are_found_in_energies(case):
    kernel, w, x, _ = case
    found = blocks_of(kernel, kernel.bind(w, x))
    assert set(found.sizes) == {3}
    assert len(found.border) == {"free_joints": 9, "bundle": 18}[kernel.name]
    assert found.layout[LOWEST] == 1


@pytest.mark.parametrize("method", ["trust-region", "l-bfgs"])
def test_minima_are_those_of_the_dense_factorisation(case, method, monkeypatch):
    kernel, w, x, start = case
    options = {"method": method, "gtol": 1e-9, "max_iterations": 2000}
    one, other = both(monkeypatch, kernel, lambda k: wb.minimise(k, w, x, start=start, **options))
    assert (one.status == wb.Status.CONVERGED).all() and (other.status == wb.Status.CONVERGED).all()
    np.testing.assert_allclose(one.energy, other.energy, rtol=1e-11)
    np.testing.assert_allclose(one.y, other.y, atol=1e-5)
    np.testing.assert_allclose(one.curvature, other.curvature, rtol=1e-5)
    hessian = kernel.dense_hessian(one.variables, w, x)
    np.testing.assert_allclose(one.curvature, np.linalg.eigvalsh(hessian)[:, 0], rtol=1e-9)


def test_reweighting_is_that_of_the_dense_factorisation(monkeypatch):
    kernel = wb.compile(bordered.free_joints())
    w, x, start = bordered.free_joints_inputs(batch=3, joints=30)

    def run(k):
        solution = wb.minimise(k, w, x, start=start, method="irls", reweightings=5)
        slopes = {name: np.ones(np.shape(a)) for name, a in solution.variables.items()}
        return solution, wb.unrolled_gradient(k, solution, slopes)

    (one, gradient), (other, expected) = both(monkeypatch, kernel, run)
    np.testing.assert_allclose(one.y, other.y, atol=1e-12)
    np.testing.assert_allclose(one.curvature, other.curvature, rtol=1e-10)
    for name, array in expected.items():
        np.testing.assert_allclose(gradient[name], array, rtol=1e-9, atol=1e-10)


def test_an_instance_has_the_same_bits_alone_in_any_order_and_on_any_threads(case):
    kernel, w, x, start = case
    count = len(next(iter(x.values())))

    def run(rows):
        some = {name: a[rows] for name, a in x.items()}
        own = {name: a[rows] if len(a) == count and a.ndim == 3 else a for name, a in start.items() if np.ndim(a)}
        return wb.minimise(kernel, w, some, start=start | own)

    whole = run(np.arange(count))
    try:
        for rows in ([1], [2, 0, 1]):
            part = run(np.array(rows))
            assert np.array_equal(part.y, whole.y[rows]) and np.array_equal(part.reals, whole.reals[rows])
        wb.set_threads(2)
        assert np.array_equal(run(np.arange(count)).y, whole.y)
    finally:
        wb.set_threads(None)


n = sp.Symbol("n", integer=True, positive=True)
i, d = sp.Idx("i", n), sp.Idx("d", 2)
z, v = sp.IndexedBase("z", shape=(n, 2)), sp.IndexedBase("v", shape=(n,))
t, a = sp.Symbol("t", real=True), sp.Symbol("a", real=True)


@pytest.fixture(scope="module")
def wells():
    """Many double wells that pull at one unknown: indefinite blocks, a saddle at the origin."""
    well = (z[i, 0] ** 2 - 1) ** 2 + (z[i, 1] - a * z[i, 0] ** 2) ** 2 + (z[i, 1] - t * v[i]) ** 2 / 4
    return wb.compile(wb.Energy(sp.Sum(well, i) + t**2, variables=[t, z], weights=[a], data=[v], name="wells"))


def test_saddles_are_left_and_indefinite_blocks_passed(wells, monkeypatch):
    rng = np.random.default_rng(3)
    v = rng.uniform(-1, 1, 60)
    starts = {"t": np.zeros(4), "z": np.concatenate([np.zeros((1, 60, 2)), rng.uniform(-0.5, 0.5, (3, 60, 2))])}
    assert blocks_of(wells, wells.bind({"a": 0.3}, {"v": v})).layout[LOWEST] == 1
    found = wb.minimise(wells, {"a": 0.3}, {"v": v}, start=starts)
    assert (found.status == wb.Status.CONVERGED).all()
    assert (found.curvature > 0.1).all()
    np.testing.assert_allclose(abs(found.variables["z"][..., 0]), 1.0, atol=0.2)


def test_a_quadratic_energy_is_solved_in_one_step(monkeypatch):
    energy = wb.Energy(
        sp.Sum(sp.Sum((1 + d) * (z[i, d] - v[i] * t) ** 2, d) + (z[i, 0] - 2 * z[i, 1] - a) ** 2, i) + (t - 1) ** 2,
        variables=[t, z], weights=[a], data=[v],
    )  # fmt: skip
    kernel = wb.compile(energy)
    x = {"v": np.random.default_rng(0).standard_normal((3, 60))}
    assert kernel.quadratic and blocks_of(kernel, kernel.bind({"a": 1.0}, x)).layout[COUNT] == 60
    start = {"t": 0.0, "z": np.zeros((60, 2))}
    one, other = both(monkeypatch, kernel, lambda k: wb.minimise(k, {"a": 1.0}, x, start=start))
    assert (one.iterations == 1).all() and (one.status == wb.Status.CONVERGED).all()
    np.testing.assert_allclose(one.y, other.y, atol=1e-12)
    np.testing.assert_allclose(one.curvature, other.curvature, rtol=1e-10)


def test_a_singular_quadratic_energy_still_has_the_shortest_solution(monkeypatch):
    energy = wb.Energy(sp.Sum((z[i, 0] + z[i, 1] - v[i]) ** 2, i), variables=[z], data=[v])
    kernel = wb.compile(energy)
    v_values = np.random.default_rng(0).standard_normal(40)
    assert blocks_of(kernel, kernel.bind(None, {"v": v_values})).layout[LOWEST] == 1
    solution = wb.minimise(kernel, None, {"v": v_values}, start={"z": np.ones((40, 2))})
    assert solution.status is wb.Status.CONVERGED and solution.curvature == 0.0
    np.testing.assert_allclose(solution.variables["z"], np.stack([v_values, v_values], 1) / 2, atol=1e-12)
