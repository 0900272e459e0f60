"""Instances with the same Hessian share its factors, and compute what each computes by itself, to the bit."""

import warnings

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.runtime.algebra.blocks import layout_of
from wiberg.runtime.algebra.bordered import COUNT
from wiberg.runtime.systems import shared_systems

m, n = sp.symbols("m n", integer=True, positive=True)
i, j, g = sp.Idx("i", m), sp.Idx("j", n), sp.Idx("g", 2)
y, a = sp.IndexedBase("y", shape=(n,)), sp.Symbol("a", real=True)
W, x, v, scale = (
    sp.IndexedBase("W", shape=(m, n)),
    sp.IndexedBase("x", shape=(m,)),
    sp.IndexedBase("v", shape=(m,)),
    sp.IndexedBase("scale", shape=(2,)),
)


def least_squares(over=(), member=1):
    """|v (a W y - x)|^2 + .1 |y|^2: the Hessian reads a, W and v."""
    residual = a * sp.Sum(W[i, j] * y[j], j) * member - x[i]
    return wb.Energy(
        sp.Sum(v[i] * residual**2, i) + sp.Sum(y[j] ** 2, j) / 10,
        variables=[y],
        weights=[a],
        data=[W, x, v, *([scale] if over else [])],
        over=over,
    )


PLAIN = wb.compile(least_squares())
FAMILY = wb.compile(least_squares([g], scale[g]))


def arrays(random, batch, rows, unknowns, patterns, kernel):
    """Data of a batch of which `patterns` has those of v, and who has which."""
    chosen = random.integers(0, len(patterns), batch)
    data = {
        "W": random.normal(size=(rows, unknowns)),
        "x": random.normal(size=(batch, rows)),
        "v": np.asarray(patterns, float)[chosen],
    }
    if kernel is FAMILY:
        data["scale"] = np.array([1.0, -0.5])
    return data


def each(data, k):
    return {name: array[k] if name in ("x", "v") else array for name, array in data.items()}


def systems(kernel, data):
    inputs = kernel.bind({"a": 1.5}, data, {"y": np.zeros(data["W"].shape[1])})
    return shared_systems(kernel, kernel.entry("hessian"), inputs, inputs.batch * inputs.members)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([PLAIN, FAMILY]),
    st.integers(4, 30),
    st.integers(2, 12),
    st.sampled_from([0.0, 0.1]),
    st.booleans(),
)
def test_an_instance_has_the_bits_that_it_has_by_itself(seed, kernel, unknowns, batch, damping, keeps):
    random = np.random.default_rng(seed)
    rows = unknowns + 3
    # all seen, some seen, and one that makes the Hessian indefinite, which no one can minimise or share
    patterns = [np.ones(rows), random.integers(0, 2, rows), np.r_[-50.0, np.ones(rows - 1)]]
    data = arrays(random, batch, rows, unknowns, patterns, kernel)
    start = {"y": random.normal(size=unknowns)}
    whole = wb.minimise(kernel, {"a": 1.5}, data, start=start, keep_factors=keeps)
    slope = {"y": random.normal(size=whole.variables["y"].shape)}
    weight = {"a": np.full(batch, 1.5)}  # of its own in each instance, so that a gradient is not a sum
    apart = wb.minimise(kernel, weight, data, start=start)
    policy = {"damping": damping, "unconverged": "use"}
    gradient = wb.implicit_gradient(kernel, apart, slope, **policy)["a"]
    total = wb.implicit_gradient(kernel, whole, slope, **policy)["a"]
    assert total == pytest.approx(gradient.sum(), rel=1e-9, abs=1e-9 * abs(gradient).sum())
    for k in range(batch):
        one = wb.minimise(kernel, {"a": 1.5}, each(data, k), start=start)
        np.testing.assert_array_equal(one.variables["y"], whole.variables["y"][k])
        np.testing.assert_array_equal(one.energy, whole.energy[k])
        np.testing.assert_array_equal(one.gradient_norm, whole.gradient_norm[k])
        np.testing.assert_array_equal(one.status, whole.status[k])
        np.testing.assert_array_equal(one.curvature, whole.curvature[k])
        alone = wb.implicit_gradient(kernel, one, {"y": slope["y"][k]}, **policy)["a"]
        assert alone == gradient[k]


@pytest.mark.parametrize("kernel", [PLAIN, FAMILY], ids=["plain", "family"])
def test_parts_and_threads_share_within_themselves_to_the_same_bits(kernel):
    random = np.random.default_rng(1)
    data = arrays(random, 300, 11, 8, [np.ones(11), random.integers(0, 2, 11)], kernel)
    start = {"y": np.zeros(8)}
    whole = wb.minimise(kernel, {"a": 1.5}, data, start=start)
    seen = []
    parts = wb.minimise(kernel, {"a": 1.5}, data, start=start, callback=lambda done, total: seen.append(done))
    np.testing.assert_array_equal(parts.variables["y"], whole.variables["y"])
    assert seen
    order = random.permutation(300)
    mixed = {name: array[order] if name in ("x", "v") else array for name, array in data.items()}
    again = wb.minimise(kernel, {"a": 1.5}, mixed, start=start)
    np.testing.assert_array_equal(again.variables["y"], whole.variables["y"][order])


def test_blocks_are_shared_too():
    t, q = sp.IndexedBase("t", shape=(3,)), sp.IndexedBase("q", shape=(n,))
    c, B = sp.Idx("c", 3), sp.IndexedBase("B", shape=(n, 3))
    z, u = sp.IndexedBase("z", shape=(n,)), sp.IndexedBase("u", shape=(n,))
    tied = sp.Sum((q[j] - sp.Sum(B[j, c] * t[c], c)) ** 2, j)
    energy = wb.Energy(tied + a * sp.Sum(u[j] * (q[j] - z[j]) ** 2, j), variables=[t, q], weights=[a], data=[B, z, u])
    kernel, random = wb.compile(energy), np.random.default_rng(5)
    patterns = np.array([np.ones(24), random.integers(0, 2, 24)])
    data = {"B": random.normal(size=(24, 3)), "z": random.normal(size=(8, 24)), "u": patterns[[0, 1, 0, 0, 1, 1, 0, 1]]}
    inputs = kernel.bind({"a": 1.5}, data)
    assert layout_of(kernel, inputs)[COUNT] > 0
    start = {"t": np.zeros(3), "q": np.zeros(24)}
    slope = {"q": random.normal(size=(8, 24))}
    plain, kept = (wb.minimise(kernel, {"a": 1.5}, data, start=start, keep_factors=keep) for keep in (False, True))
    assert kept.problem.factors.shape[0] == 2 and (kept.problem.factors[:, 0] == 1.0).all()
    total = [wb.implicit_gradient(kernel, solution, slope, damping=0.0)["a"] for solution in (plain, kept)]
    assert total[0] == total[1]
    for k in range(8):
        own = {"B": data["B"], "z": data["z"][k], "u": data["u"][k]}
        one = wb.minimise(kernel, {"a": 1.5}, own, start=start)
        for name in ("t", "q"):
            np.testing.assert_array_equal(one.variables[name], plain.variables[name][k])
            np.testing.assert_array_equal(one.variables[name], kept.variables[name][k])
        total[0] -= wb.implicit_gradient(kernel, one, {"q": slope["q"][k]}, damping=0.0)["a"]
    assert abs(total[0]) < 1e-12 * abs(total[1])


def test_who_shares():
    random = np.random.default_rng(2)
    one, two = np.ones(23), np.r_[0.0, np.ones(22)]
    data = arrays(random, 6, 23, 20, [one], PLAIN)
    assert PLAIN.entry("hessian").reads == ("w0", "x0", "x2")
    assert systems(PLAIN, data).count == 1  # whatever x is
    data["v"] = np.array([one, two, one, two, two, one])
    found = systems(PLAIN, data)
    assert found.order.tolist() == [0, 2, 5, 1, 3, 4]
    assert found.number.tolist() == [0, 0, 0, 1, 1, 1]
    found = systems(FAMILY, data | {"scale": np.ones(2)})
    assert found.count == 4  # members have Hessians of their own
    assert found.order.tolist() == [0, 4, 10, 1, 5, 11, 2, 6, 8, 3, 7, 9]
    data["v"] = random.normal(size=(6, 23)) ** 2
    assert systems(PLAIN, data) is None
    assert systems(PLAIN, each(data, 0) | {"x": data["x"]}).count == 1
    assert systems(PLAIN, {name: array[:1] if name != "W" else array for name, array in data.items()}) is None


def test_index_data_and_gathered_arrays_are_read():
    to, u, z = (
        sp.IndexedBase("to", shape=(n,), integer=True),
        sp.IndexedBase("u", shape=(m,)),
        sp.Symbol("z", real=True),
    )
    kernel = wb.compile(wb.Energy(sp.Sum(u[to[j]] * (y[j] - z) ** 2, j), variables=[y], data=[to, u, z]))
    assert kernel.entry("hessian").reads == ("x0", "x1")
    assert kernel.entry("value_gradient").reads == ("x0", "x1", "x2", "y0")
    data = {"to": np.array([np.arange(16)] * 3), "u": np.arange(1.0, 17.0), "z": np.arange(3.0)}
    inputs = kernel.bind({}, data)
    assert shared_systems(kernel, kernel.entry("hessian"), inputs, 3).count == 1
    data["to"][1] = 0
    inputs = kernel.bind({}, data)
    assert shared_systems(kernel, kernel.entry("hessian"), inputs, 3).number.tolist() == [0, 0, 1]


def test_starts_alone_make_no_systems():
    random = np.random.default_rng(6)
    data = each(arrays(random, 2, 11, 8, [np.ones(11)], FAMILY), 0)
    inputs = FAMILY.bind({"a": 1.5}, data)
    assert shared_systems(FAMILY, FAMILY.entry("hessian"), inputs, 2) is None  # two members of one instance
    assert shared_systems(FAMILY, FAMILY.entry("hessian"), inputs, 6).count == 2
    start = random.normal(size=(3, 2, 8))
    found = wb.minimise(FAMILY, {"a": 1.5}, data, start={"y": start})
    for k in range(3):
        one = wb.minimise(FAMILY, {"a": 1.5}, data, start={"y": start[k]})
        np.testing.assert_array_equal(one.variables["y"], found.variables["y"][k])


def test_arrays_of_few_unknowns_are_not_compared():
    random = np.random.default_rng(3)
    assert systems(PLAIN, arrays(random, 6, 7, 4, [np.ones(7)], PLAIN)) is None


def test_a_hessian_that_reads_variables_is_not_shared():
    t, b = sp.symbols("t b", real=True)
    kernel = wb.compile(wb.Energy((t - b) ** 4, variables=[t], data=[b]), backend="reference")
    inputs = kernel.bind({}, {"b": [1.0, 2.0]})
    assert shared_systems(kernel, kernel.entry("hessian"), inputs, 2) is None


def test_instances_that_are_not_finite_leave_the_others_their_factors():
    random = np.random.default_rng(4)
    data = arrays(random, 9, 11, 8, [np.ones(11)], PLAIN)
    start = {"y": np.zeros(8)}
    whole = wb.minimise(PLAIN, {"a": 1.5}, data, start=start)
    data["x"][[0, 4]] = np.nan
    some = wb.minimise(PLAIN, {"a": 1.5}, data, start=start, check=False)
    fine = np.delete(np.arange(9), [0, 4])
    np.testing.assert_array_equal(some.variables["y"][fine], whole.variables["y"][fine])
    assert (some.status[[0, 4]] == wb.Status.NOT_FINITE).all()


# ---------------------------------------------------------------------------------------------- the first system


def _held():
    residual = a * sp.Sum(W[i, j] * y[j], j) - x[i]
    penalty = wb.held(1 / sp.sqrt(1 + residual**2), 1) * residual**2 / 2
    return wb.Energy(
        sp.Sum(v[i] * penalty, i) + sp.Sum(y[j] ** 2, j) / 20, variables=[y], weights=[a], data=[W, x, v], name="held"
    )


HELD = wb.compile(_held())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(16, 30), st.integers(2, 9), st.booleans(), st.booleans())
def test_the_first_of_reweighted_systems_is_shared_to_the_same_bits(seed, unknowns, batch, keeps, broken):
    random = np.random.default_rng(seed)
    rows = unknowns + 3
    data = arrays(random, batch, rows, unknowns, [np.ones(rows), random.integers(0, 2, rows)], HELD)
    if broken:
        data["x"][random.integers(batch)] = np.nan
    options = {"start": {"y": np.zeros(unknowns)}, "method": "irls", "reweightings": 2, "check": False}
    whole = wb.minimise(HELD, {"a": 1.5}, data, keep_factors=keeps, **options)
    apart = wb.minimise(HELD, {"a": np.full(batch, 1.5)}, data, **options)
    slope = random.normal(size=(batch, unknowns))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", wb.UnconvergedWarning)
        gradient = wb.unrolled_gradient(HELD, apart, {"y": slope})["a"]
        total = wb.unrolled_gradient(HELD, whole, {"y": slope})["a"]
        for k in range(batch):
            one = wb.minimise(HELD, {"a": 1.5}, each(data, k), **options)
            np.testing.assert_array_equal(one.variables["y"], whole.variables["y"][k])
            np.testing.assert_array_equal(one.status, whole.status[k])
            assert wb.unrolled_gradient(HELD, one, {"y": slope[k]})["a"] == gradient[k]
    assert np.isfinite(total)
    assert total == pytest.approx(gradient.sum(), rel=1e-12, abs=1e-12 * abs(gradient).sum())
    entry = HELD.entry("hessian_first")
    assert entry.reads == ("w0", "x0", "x2")
