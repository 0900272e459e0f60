"""Saddles are left however slight their curvature is beside the largest, and only saddles are: dense and sparse."""

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.runtime import sparse

n = sp.Symbol("n", integer=True, positive=True)
i = sp.Idx("i", n)
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
