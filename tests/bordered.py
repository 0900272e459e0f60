"""Energies whose Hessians are a border and small blocks, with data, and random matrices of that form."""

import numpy as np
import sympy as sp
import wiberg as wb
from wiberg.runtime.algebra.blocks import Blocks

C, J, K, M, N = sp.symbols("C J K M N", integer=True, positive=True, seq=True)
c, j, k, m, i = (sp.Idx(name, n) for name, n in zip("cjkmi", (C, J, K, M, N), strict=True))
d, e, f = sp.Idx("d", 3), sp.Idx("e", 2), sp.Idx("f", 6)
delta, gamma, ridge = sp.symbols("delta gamma ridge", positive=True)


def free_joints(penalty=wb.pseudo_huber):
    """A body of K shapes, scaled and moved, near J joints that are free and seen by C cameras."""
    s, t, a = sp.Symbol("s", real=True), sp.IndexedBase("t", shape=(3,)), sp.IndexedBase("a", shape=(K,))
    q, X = sp.IndexedBase("q", shape=(J, 3)), sp.IndexedBase("X", shape=(C, J, 2))
    mean, B, P = (sp.IndexedBase(n, shape=shape) for n, shape in (("mean", (J, 3)), ("B", (K, J, 3)), ("P", (C, 2, 3))))
    model = s * mean[j, d] + t[d] + sp.Sum(a[k] * B[k, j, d], k) - q[j, d]
    seen = [gamma * (sum(P[c, x, z] * q[j, z] for z in range(3)) - X[c, j, x]) for x in range(2)]
    near = sp.Sum(penalty(seen[0] ** 2 + seen[1] ** 2, delta), c, j)
    prior = sp.Sum(a[k] ** 2, k) + (s - 1) ** 2 + sum(t[z] ** 2 for z in range(3))
    return wb.Energy(
        sp.Sum(model**2, j, d) / 2 + near + ridge * prior / 2,
        variables=[s, t, a, q], weights=[delta, gamma, ridge, mean, B, P], data=[X], name="free_joints",
    )  # fmt: skip


def free_joints_inputs(batch=3, cameras=4, joints=12, shapes=5, seed=0):
    """Weights, data, start."""
    rng = np.random.default_rng(seed)
    mean, B = rng.standard_normal((joints, 3)), 0.1 * rng.standard_normal((shapes, joints, 3))
    P = rng.standard_normal((cameras, 2, 3))
    body = mean + np.tensordot(0.3 * rng.standard_normal((batch, shapes)), B, 1)
    X = np.einsum("ced,bjd->bcje", P, body) + 0.02 * rng.standard_normal((batch, cameras, joints, 2))
    X += (rng.random((batch, cameras, joints, 1)) < 0.1) * rng.standard_normal(X.shape)
    w = {"delta": 0.1, "gamma": 2.0, "ridge": 0.1, "mean": mean, "B": B, "P": P}
    return w, {"X": X}, {"s": 1.0, "t": np.zeros(3), "a": np.zeros(shapes), "q": mean}


def bundle():
    """M cameras, 6 unknowns each, turn little and see all of N points."""
    a, p, x = (sp.IndexedBase(n, shape=s) for n, s in (("a", (M, 6)), ("p", (N, 3)), ("x", (M, N, 2))))
    a0, p0 = sp.IndexedBase("a0", shape=(M, 6)), sp.IndexedBase("p0", shape=(N, 3))
    u, v, w = (p[i, z] for z in range(3))
    turned = (u + a[m, 1] * w - a[m, 2] * v, v + a[m, 2] * u - a[m, 0] * w, w + a[m, 0] * v - a[m, 1] * u)
    depth = turned[2] + a[m, 5] + 4
    off = [(turned[z] + a[m, 3 + z]) / depth - x[m, i, z] for z in range(2)]
    prior = sp.Sum((a[m, f] - a0[m, f]) ** 2, m, f) + sp.Sum((p[i, d] - p0[i, d]) ** 2, i, d)
    return wb.Energy(
        sp.Sum(wb.pseudo_huber(off[0] ** 2 + off[1] ** 2, delta), m, i) + ridge * prior / 2,
        variables=[a, p], weights=[delta, ridge], data=[x, a0, p0], name="bundle",
    )  # fmt: skip


def bundle_inputs(batch=2, cameras=3, points=40, seed=0):
    """Weights, data, start."""
    rng = np.random.default_rng(seed)
    a, p = 0.1 * rng.standard_normal((batch, cameras, 6)), rng.uniform(-1, 1, (batch, points, 3))
    seen = p[:, None] + np.cross(a[:, :, None, :3], p[:, None]) + a[:, :, None, 3:] + [0, 0, 4]
    x = seen[..., :2] / seen[..., 2:] + 0.002 * rng.standard_normal((batch, cameras, points, 2))
    a0, p0 = a + 0.05 * rng.standard_normal(a.shape), p + 0.1 * rng.standard_normal(p.shape)
    return {"delta": 0.01, "ridge": 1e-3}, {"x": x, "a0": a0, "p0": p0}, {"a": a0, "p": p0}


def pattern(border, sizes, order=None):
    """Which entries there are: the border first, then the blocks, permuted."""
    n = border + sum(sizes)
    met = np.eye(n, dtype=bool)
    met[:border] = met[:, :border] = True
    at = border
    for size in sizes:
        met[at : at + size, at : at + size] = True
        at += size
    return met if order is None else met[np.ix_(order, order)]


def blocks_of_form(border, sizes, order):
    """The `Blocks` of `pattern`."""
    place = np.argsort(order)
    return Blocks(place[border:], np.array(sizes, np.int64), np.sort(place[:border]))
