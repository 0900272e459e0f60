"""Members of a family that add nothing are left out: the same gradients, of fewer systems."""

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from wiberg.learn.derivative import idle

n, M = sp.symbols("n M", integer=True, positive=True)
i, m, other = sp.Idx("i", n), sp.Idx("m", M), sp.Idx("other", M)
x, c, T = sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("c", shape=(M,)), sp.IndexedBase("t", shape=(M,))
E, u = sp.IndexedBase("E", shape=(M,)), sp.IndexedBase("u", shape=(M,))
t, lowest, mean = sp.symbols("t lowest mean", real=True)
sigma, sharpness = sp.symbols("sigma sharpness", positive=True)


@pytest.fixture(scope="module")
def soft() -> wb.Output:
    """A sharp soft average over minima, by what is left of the data at each."""
    each = wb.Energy(
        sp.Sum(wb.pseudo_huber((x[i] - t) ** 2, sigma), i) + (t - c[m]) ** 2,
        variables=[t],
        weights=[sigma, c],
        data=[x],
        over=[m],
        candidates={t: 0},
    )
    where = {
        E[m]: sp.Sum((x[i] - T[m]) ** 2, i),
        lowest: wb.minimum(E[m], m),
        u[m]: sp.exp(-sharpness * (E[m] - lowest)),
    }
    return wb.Output(
        {mean: sp.Sum(u[m] * T[m], m) / sp.Sum(u[other], other)},
        minima=wb.compile(each, backend="reference"),
        weights=[sharpness],
        data=[x],
        where=where,
    )


@pytest.mark.parametrize("method", ["trust-region", "irls"])
def test_gradients_without_idle_members_are_the_same(soft, method, monkeypatch):
    random = np.random.default_rng(0)
    w = {"sigma": 0.5, "c": random.normal(size=12) * 5, "sharpness": 30.0}
    solution = wb.minimise(soft, w, {"x": random.normal(size=(3, 6))}, method=method)
    slope = {"mean": random.normal(size=3)}
    seen = []
    find = idle.idle_members

    def watched(slopes, inputs):
        found = find(slopes, inputs)
        seen.append(0 if found is None else int(found.sum()))
        return found

    derivative = wb.implicit_gradient if method == "trust-region" else wb.unrolled_gradient
    options = {"damping": 0.0} if method == "trust-region" else {}
    for module in ("wiberg.learn.derivative.implicit.idle_members", "wiberg.learn.derivative.unrolled.idle_members"):
        monkeypatch.setattr(module, watched)
    ours = derivative(soft, solution, slope, **options)
    assert seen[-1] > 9
    monkeypatch.setattr(idle, "NEGLIGIBLE", -1.0)
    every = derivative(soft, solution, slope, **options)
    assert seen[-1] == 0
    for name, gradient in every.items():
        np.testing.assert_allclose(ours[name], gradient, rtol=1e-13, atol=1e-25)
