"""How every driver begins: what becomes of a start that is not finite, or whose energy is not, or falls off."""

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from wiberg.runtime import Status, sparse

n = sp.Symbol("n", integer=True, positive=True)
i = sp.Idx("i", n)
y, c = sp.IndexedBase("y", shape=(n,)), sp.IndexedBase("c", shape=(n,))

STARTS = {
    # the last two entries of start and of c -> evaluations, status
    "nan": ((np.nan, 1.0), (1.0, 1.0), 0, Status.NOT_FINITE),
    "infinite": ((np.inf, 1.0), (1.0, 1.0), 0, Status.NOT_FINITE),
    "energy nan": ((1e150, 1e150), (1e200, -1e200), 1, Status.NOT_FINITE),
    "energy infinite": ((1e150, 1.0), (1e200, 1.0), 1, Status.NOT_FINITE),
    "gradient too large to be squared": ((1.0, 1.0), (1e160, 1.0), 1, Status.NOT_FINITE),
    "abyss": ((1.0, 1.0), (-1e151, 1.0), 1, Status.UNBOUNDED),
}


@pytest.fixture(scope="module")
def kernels():
    energies = {
        "general": sp.Sum(c[i] * sp.sqrt(1 + y[i] ** 2), i),
        "quadratic": sp.Sum(c[i] * y[i] ** 2, i),
    }
    return {name: wb.compile(wb.Energy(e, variables=[y], data=[c], name=name)) for name, e in energies.items()}


WAYS = [
    pytest.param(name, method, bounds, many, id=f"{name} {method}{' in a box' if bounds else ''}{many and ' sparse'}")
    for name, method, bounds, many in [
        ("general", "trust-region", False, ""),
        ("general", "trust-region", False, "sparse"),
        ("general", "trust-region", True, ""),
        ("general", "trust-region", True, "sparse"),
        ("general", "newton-cg", False, ""),
        ("general", "irls", False, ""),
        ("quadratic", "trust-region", False, ""),
        ("quadratic", "newton-cg", False, ""),
    ]
]


@pytest.mark.parametrize("name, method, bounds, many", WAYS)
@pytest.mark.parametrize("begin", STARTS)
def test_start_ends_its_instance_and_no_other(kernels, monkeypatch, name, method, bounds, many, begin):
    if many:
        monkeypatch.setattr(sparse, "MANY", 0)
    at, factors, evaluations, status = STARTS[begin]
    start, data = np.ones((3, 4)), np.ones((3, 4))
    start[1, 2:], data[1, 2:] = at, factors
    box = {"y": (-1e300, 1e300)} if bounds else None
    found = wb.minimise(
        kernels[name], None, {"c": data}, start={"y": start}, method=method, bounds=box, check=False, max_iterations=500
    )
    assert (found.iterations[1], found.evaluations[1], found.status[1]) == (0, evaluations, status)
    assert np.isnan(found.gradient_norm[1]) and np.isnan(found.curvature[1])
    np.testing.assert_array_equal(found.y[1], start[1])
    assert found.converged[[0, 2]].all()
