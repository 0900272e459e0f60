"""Which unknowns meet in the Hessian: exactly those whose entries are not 0, where formula and extents say it."""

import random

import bordered
import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.compiler.points import random_point
from wiberg.compiler.random_energies import random_energy, random_family

n, m, E = sp.symbols("n m E", integer=True, positive=True)
i, j, edge = sp.Idx("i", n), sp.Idx("j", m), sp.Idx("edge", E)
p, q, t = sp.IndexedBase("p", shape=(n, 2)), sp.IndexedBase("q", shape=(m,)), sp.Symbol("t", real=True)
y = sp.IndexedBase("y", shape=(n,))
f, g = (sp.IndexedBase(sp.Symbol(name, integer=True), shape=(E,)) for name in "fg")


def couplings(kernel, y, w=None, x=None):
    return kernel.couplings(kernel.bind(w, x, y))


def kernel_of(expression, variables, data=()):
    return wb.compile(wb.Energy(expression, variables=variables, data=list(data)), backend="reference")


def moved(point, seed=1):
    rng = np.random.default_rng(seed)
    return {name: np.asarray(a) + 0.1 * rng.standard_normal(np.shape(a)) for name, a in point.items()}


@pytest.mark.parametrize("name", ["free_joints", "bundle"])
def test_dense_hessians_have_exactly_the_entries_that_are_not_zero(name):
    kernel = wb.compile(getattr(bordered, name)(), backend="reference")
    w, x, start = getattr(bordered, f"{name}_inputs")(batch=1)
    assert kernel.structure == "dense"
    found = couplings(kernel, moved(start), w, x)
    hessian = kernel.dense_hessian(moved(start), w, x)[0]
    assert np.array_equal(found, hessian != 0)
    assert 0.1 < found.mean() < 0.9


def test_a_gathered_subscript_is_the_same_where_it_reads_the_same():
    """Two coordinates of a point meet, and each of them every q; no two points do, whatever the index data."""
    term = sp.exp(p[f[edge], 0] * p[f[edge], 1] * q[g[edge]])
    kernel = kernel_of(sp.Sum(term, edge), [p, q], [f, g])
    expected = bordered.pattern(2, [2, 2, 2], [2, 3, 4, 5, 6, 7, 0, 1])
    expected[6, 7] = expected[7, 6] = False
    for some in ([0, 1, 2, 0], [2, 2, 2, 2]):
        found = couplings(kernel, {"p": np.ones((3, 2)), "q": np.ones(2)}, None, {"f": some, "g": [0, 1, 0, 0]})
        assert np.array_equal(found, expected)


def test_two_gathers_of_one_array_may_meet_anywhere():
    kernel = kernel_of(sp.Sum((y[f[edge]] - y[g[edge]]) ** 4, edge), [y], [f, g])
    assert couplings(kernel, {"y": np.ones(4)}, None, {"f": [0, 1], "g": [1, 2]}).all()


def test_neighbours_and_triangles():
    line = sp.Idx("line", (0, n - 2))
    chain = kernel_of(sp.Sum((y[line + 1] - y[line]) ** 4, line), [y])
    apart = abs(np.subtract.outer(np.arange(6), np.arange(6)))
    assert np.array_equal(couplings(chain, {"y": np.ones(6)}), apart <= 1)
    below = sp.Idx("below", (0, i - 2))
    far = kernel_of(sp.Sum(sp.Sum(sp.sin(y[i] * y[below]), below), i), [y])
    assert np.array_equal(couplings(far, {"y": np.ones(6)}), apart != 1)


def test_a_function_of_a_whole_sum_couples_all():
    kernel = kernel_of(sp.log(1 + sp.Sum(y[i] ** 2, i)) + t**2, [y, t])
    found = couplings(kernel, {"y": np.ones(4), "t": 0.0})
    assert found[:4, :4].all() and not found[4, :4].any() and found[4, 4]


def test_entries_that_depend_on_the_member_of_a_family_are_not_known():
    k = sp.Idx("k", 3)
    z = sp.IndexedBase("z", shape=(3,))
    energy = wb.Energy((z[k] - t) ** 4 + sp.Sum(y[i] ** 4, i), variables=[t, y], data=[z], over=[k])
    kernel = wb.compile(energy, backend="reference")
    inputs = kernel.bind(None, {"z": np.ones(3)}, {"t": 0.0, "y": np.ones(4)})
    assert np.array_equal(kernel.couplings(inputs), np.eye(5))
    shared = wb.Energy((y[k] - z[k]) ** 4 + sp.Sum(y[i] ** 4, i), variables=[y], data=[z], over=[k])
    kernel = wb.compile(shared, backend="reference")
    inputs = kernel.bind(None, {"z": np.ones(3)}, {"y": np.ones(4)})
    found = kernel.couplings(inputs)
    assert found is None or found.all()


def test_many_unknowns_are_not_looked_at():
    kernel = kernel_of(sp.Sum(y[i] ** 4, i), [y])
    assert couplings(kernel, {"y": np.ones(4096)}) is not None
    assert couplings(kernel, {"y": np.ones(4097)}) is None


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_no_entry_of_a_random_energy_is_missed(seed, family):
    energy = (random_family if family else random_energy)(random.Random(seed))
    kernel, rng = wb.compile(energy, backend="reference"), np.random.default_rng(seed)
    point = random_point(energy, {extent: int(rng.integers(1, 5)) for extent in energy.extents}, rng, positive=True)
    y, w, x = ({str(s): point[str(s)] for s in role} for role in (energy.variables, energy.weights, energy.data))
    try:
        with np.errstate(all="ignore"):
            hessian = kernel.dense_hessian(y, w, x)
    except wb.WibergError:
        return
    found = kernel.couplings(kernel.bind(w, x, y))
    if found is not None:
        assert not ((hessian.reshape(-1, *hessian.shape[-2:]) != 0) & ~found).any()
