"""Saddles are left however slight their curvature is beside the largest, and minima that can be turned are none."""

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.runtime import sparse

n, k = sp.symbols("n k", integer=True, positive=True)
i, e = sp.Idx("i", n), sp.Idx("e", k)
ends = sp.IndexedBase("ends", shape=(k, 2), integer=True)
u, v = (sp.IndexedBase(name, shape=(n,)) for name in "uv")
depth, bend = sp.symbols("depth bend", real=True)


@pytest.fixture(scope="module")
def valleys():
    """Valleys v = bend u^2 with a pass at u = 0 between minima at u = -1 and 1, which lie `depth` / 4 lower."""
    floor = depth * (u[i] ** 4 / 4 - u[i] ** 2 / 2)
    expression = sp.Sum((v[i] - bend * u[i] ** 2) ** 2 + floor, i)
    return wb.compile(wb.Energy(expression, variables=[u, v], weights=[depth, bend], name="valleys"))


@pytest.mark.parametrize("many", [0, sparse.MANY])
@settings(max_examples=40)
@given(st.floats(-6, 0), st.floats(-2, 0.3), st.sampled_from([0.0, 1e-12, 1e-9]))
def test_a_pass_is_left_however_slight_its_curvature(valleys, many, exponent, bent, beside):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse, "MANY", many)
        weights = {"depth": 10.0**exponent, "bend": 10.0**bent}
        start = {"u": np.array([beside, 0.0, -beside]), "v": np.zeros(3)}
        found = wb.minimise(valleys, weights, start=start, max_iterations=3000, gtol=1e-10)
    assert found.converged
    assert np.abs(found.variables["u"]) == pytest.approx(1.0, abs=1e-2)


@pytest.fixture(scope="module")
def pose_graph():
    """Poses in the plane, of which pairs have measured each other: all can be moved and turned together."""
    p, a = sp.IndexedBase("p", shape=(n, 2)), sp.IndexedBase("a", shape=(n,))
    seen, one, other = sp.IndexedBase("seen", shape=(k, 3)), ends[e, 0], ends[e, 1]
    c, s, dx, dy = sp.cos(a[one]), sp.sin(a[one]), p[other, 0] - p[one, 0], p[other, 1] - p[one, 1]
    off = (c * dx + s * dy - seen[e, 0]) ** 2 + (c * dy - s * dx - seen[e, 1]) ** 2
    turned = 4 * sp.sin((a[other] - a[one] - seen[e, 2]) / 2) ** 2
    expression = sp.Sum(100 * off + 400 * turned, e)
    energy = wb.Energy(expression, variables=[p, a], data=[ends, seen], name="pose graph")

    def draw(seed, poses=60, loops=40):
        rng = np.random.default_rng(seed)
        turn = np.cumsum(0.2 * rng.standard_normal(poses))
        place = np.cumsum(np.stack([np.cos(turn), np.sin(turn)], axis=1), axis=0)
        chain = np.stack([np.arange(poses - 1), np.arange(1, poses)], axis=1)
        pairs = np.concatenate([chain, *(np.sort(rng.choice(poses, (1, 2), replace=False)) for _ in range(loops))])
        (x, y), angle = (place[pairs[:, 1]] - place[pairs[:, 0]]).T, turn[pairs[:, 0]]
        c, s = np.cos(angle), np.sin(angle)
        measured = np.stack([c * x + s * y, c * y - s * x, turn[pairs[:, 1]] - angle], axis=1)
        measured += rng.standard_normal(measured.shape) * [0.05, 0.05, 0.02]
        start = {"p": place + 0.1 * rng.standard_normal(place.shape), "a": turn + 0.1 * rng.standard_normal(poses)}
        return {"ends": pairs, "seen": measured}, start

    return wb.compile(energy, backend="reference"), draw


@pytest.fixture(scope="module")
def lengths():
    """Points in space, of which near ones have measured their distance: all can be moved and turned together."""
    q, length = sp.IndexedBase("q", shape=(n, 3)), sp.IndexedBase("length", shape=(k,))
    square = sum((q[ends[e, 0], d] - q[ends[e, 1], d]) ** 2 for d in range(3))
    expression = sp.Sum((sp.sqrt(square + 1e-6) - length[e]) ** 2, e)
    energy = wb.Energy(expression, variables=[q], data=[ends, length], name="lengths")

    def draw(seed, points=60, near=12):
        rng = np.random.default_rng(seed)
        place = 3 * rng.uniform(-1, 1, (points, 3))
        apart = np.linalg.norm(place[:, None] - place, axis=2)
        pairs = np.array(sorted({(min(a, b), max(a, b)) for a in range(points) for b in np.argsort(apart[a])[1:near]}))
        length = apart[tuple(pairs.T)] * (1 + 0.05 * rng.standard_normal(len(pairs)))
        return {"ends": pairs, "length": length}, {"q": place + 0.1 * rng.standard_normal(place.shape)}

    return wb.compile(energy, backend="reference"), draw


@pytest.mark.parametrize("gtol", [1e-8, 1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize("name", ["pose_graph", "lengths"])
def test_sparse_minima_that_can_be_turned_are_no_saddles(name, gtol, request, monkeypatch):
    """Their Hessian has a curvature of the size of the gradient, of either sign, along the turn."""
    kernel, draw = request.getfixturevalue(name)
    for seed in range(6):
        data, start = draw(seed)
        expected = wb.minimise(kernel, None, data, start=start)
        monkeypatch.setattr(sparse, "MANY", 0)
        found = wb.minimise(kernel, None, data, start=start, gtol=gtol)
        monkeypatch.undo()
        assert found.converged and expected.converged, seed
        assert found.gradient_norm <= gtol
        assert found.energy == pytest.approx(expected.energy, rel=1e-6, abs=gtol)
        assert found.evaluations <= 2 * found.iterations + 10, seed
