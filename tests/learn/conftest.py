"""Small energies whose minima and derivatives are known, compiled once for all tests of learn/."""

import pytest
import sympy as sp
import wiberg as wb
from wiberg.learn import Loss

n, k, m = sp.symbols("n k m", integer=True, positive=True)
i, j, q = sp.Idx("i", n), sp.Idx("j", n), sp.Idx("q", k)
t, mu, shift = sp.symbols("t mu shift", real=True)
x, y, w = (sp.IndexedBase(name, shape=(n,)) for name in "xyw")


@pytest.fixture(scope="session")
def quadratic():
    """E = y'Hy/2 + sum_q w_q C_q'y: any Hessian H, any d(grad)/dw = C'."""
    hessian, cross = sp.IndexedBase("H", shape=(n, n)), sp.IndexedBase("C", shape=(k, n))
    weights = sp.IndexedBase("w", shape=(k,))
    return wb.compile(
        wb.Energy(
            sp.Sum(hessian[i, j] * y[i] * y[j], i, j) / 2 + sp.Sum(weights[q] * cross[q, i] * y[i], q, i),
            variables=[y],
            weights=[weights],
            data=[hessian, cross],
            name="quadratic",
        )
    )


@pytest.fixture(scope="session")
def ransac():
    sigma = sp.Symbol("sigma", real=True)
    return wb.compile(
        wb.Energy(
            -sp.Sum(sp.exp(-(((x[i] - t) / sigma) ** 2)), i),
            variables=[t],
            weights=[sigma],
            data=[x],
            candidates={t: x[i]},
            name="ransac",
        )
    )


@pytest.fixture(scope="session")
def robust_line():
    """Robust line fit with two unknowns, a positive scale and a bias."""
    slope, offset, bias = sp.symbols("slope offset bias", real=True)
    scale = sp.Symbol("scale", positive=True)
    residual = y[i] - slope * x[i] - offset + bias * x[i] ** 2
    return wb.compile(
        wb.Energy(
            sp.Sum(wb.pseudo_huber(residual**2, scale), i) + slope**2 / 10,
            variables=[slope, offset],
            weights=[scale, bias],
            data=[x, y],
            name="line",
        )
    )


@pytest.fixture(scope="session")
def spring():
    """E = a (t - w x)^2 / 2: t* = w x; a negative a has no minimum."""
    a, weight, z = sp.symbols("a w z", real=True)
    return wb.compile(
        wb.Energy(a * (t - weight * z) ** 2 / 2, variables=[t], weights=[weight], data=[a, z], name="spring")
    )


@pytest.fixture(scope="session")
def t_loss():
    return Loss((t - mu) ** 2, variables=[t], targets=[mu])
