"""The four workloads as a user of wiberg declares them (formulas in workloads.py)."""

from __future__ import annotations

import sympy as sp
import wiberg as wb


def extents(names: str) -> tuple[sp.Symbol, ...]:
    return tuple(sp.symbols(names, integer=True, positive=True, seq=True))


def ransac() -> wb.Energy:
    """W1: one unknown, n samples."""
    (n,) = extents("n")
    i, q = sp.Idx("i", n), sp.Idx("q", n)
    t, sigma = sp.Symbol("t", real=True), sp.Symbol("sigma", positive=True)
    x = sp.IndexedBase("x", shape=(n,))
    formula = -sp.Sum(sp.exp(-(((x[i] - t) / sigma) ** 2)), i)
    return wb.Energy(formula, variables=[t], weights=[sigma], data=[x], candidates={t: x[q]}, name="ransac")


def fusion() -> wb.Energy:
    """W2: a corner of a box from n trackers; importance changes with time, sizes are corrected."""
    (n,) = extents("n")
    k, q = sp.Idx("k", n), sp.Idx("q", n)
    y = sp.IndexedBase("y", shape=(2,))
    alpha, beta, log_sigma = (sp.IndexedBase(name, shape=(n,)) for name in ("alpha", "beta", "log_sigma"))
    s, c = sp.IndexedBase("s", shape=(n, 2)), sp.IndexedBase("c", shape=(n, 2))
    t = sp.Symbol("t", real=True)
    distance2 = sum((s[k, d] * c[k, d] - y[d]) ** 2 for d in range(2))
    bump = sp.exp(-distance2 / sp.exp(2 * log_sigma[k]))
    return wb.Energy(
        -sp.Sum(sp.exp(alpha[k] + beta[k] * t) * bump, k),
        variables=[y],
        weights=[alpha, beta, log_sigma, s],
        data=[c, t],
        candidates={y[d]: s[q, d] * c[q, d] for d in range(2)},
        name="fusion",
    )


def pose() -> wb.Energy:
    """W3: K coefficients of a body of J joints, seen by C cameras, robust to wrong detections."""
    C, J, K = extents("C J K")
    c, j, k = sp.Idx("c", C), sp.Idx("j", J), sp.Idx("k", K)
    d, e = sp.Idx("d", 3), sp.Idx("e", 2)
    a, sigma, m = (sp.IndexedBase(name, shape=(K,)) for name in ("a", "sigma", "m"))
    B, P = sp.IndexedBase("B", shape=(K, J, 3)), sp.IndexedBase("P", shape=(C, 2, 3))
    omega, X = sp.IndexedBase("omega", shape=(C, J)), sp.IndexedBase("X", shape=(C, J, 2))
    delta = sp.Symbol("delta", positive=True)
    shape, residual = sp.IndexedBase("shape", shape=(J, 3)), sp.IndexedBase("residual", shape=(C, J, 2))
    where = {
        shape[j, d]: sp.Sum(a[k] * B[k, j, d], k),
        residual[c, j, e]: X[c, j, e] - sp.Sum(P[c, e, d] * shape[j, d], d),
    }
    r2 = residual[c, j, 0] ** 2 + residual[c, j, 1] ** 2
    fit = sp.Sum(omega[c, j] ** 2 * wb.pseudo_huber(r2, delta), c, j)
    prior = sp.Sum((sigma[k] * (a[k] - m[k])) ** 2, k) / 2
    return wb.Energy(
        fit + prior, variables=[a], weights=[B, omega, sigma, P, delta], data=[X, m], where=where, name="pose"
    )


def denoise() -> wb.Energy:
    """W4: an image of n x m unknowns, near the noisy one and with few edges."""
    n, m = extents("n m")
    i, j, p, q = sp.Idx("i", n), sp.Idx("j", m), sp.Idx("p", (0, n - 2)), sp.Idx("q", (0, m - 2))
    y, z = sp.IndexedBase("y", shape=(n, m)), sp.IndexedBase("z", shape=(n, m))
    log_lambda, log_eps = sp.Symbol("log_lambda", real=True), sp.Symbol("log_eps", real=True)
    down, right = y[p + 1, j] - y[p, j], y[i, q + 1] - y[i, q]
    edges = [sp.Sum(sp.sqrt(d**2 + sp.exp(2 * log_eps)), *over) for d, over in ((down, (p, j)), (right, (i, q)))]
    near = sp.Sum((y[i, j] - z[i, j]) ** 2, i, j) / 2
    return wb.Energy(
        near + sp.exp(log_lambda) * sum(edges), variables=[y], weights=[log_lambda, log_eps], data=[z], name="denoise"
    )
