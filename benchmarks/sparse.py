"""Steps by conjugate gradients or by factors: the table of docs/minimisers.md; with --rows, as for run.py.

Seven energies with sparse Hessians, most of them badly conditioned, each minimised by conjugate gradients alone, by
factors alone, and as `minimise` chooses (algebra/direct.py). Milliseconds of one call, one thread, the least of some
in turns; Newton steps; the gradient at the end. Before them, how many steps of conjugate gradients a factorisation is
worth, and the milliseconds in which SuperLU factorises the last Hessian once.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import sympy as sp
import wiberg as wb
from scipy.sparse.linalg import splu
from timing import Row, print_rows
from wiberg.runtime.algebra import direct

n, m, k = sp.symbols("n m k", integer=True, positive=True)
i, j, q = sp.Idx("i", n), sp.Idx("j", m), sp.Idx("q", k)
inner, across = sp.Idx("inner", (1, n - 2)), sp.Idx("across", (1, m - 2))
y, x, f = (sp.IndexedBase(name, shape=(n,)) for name in "yxf")
stiffness = sp.Symbol("stiffness", positive=True)


def beam():
    """A beam on springs that give way: 4,000 nodes."""
    bending = sp.Sum((y[inner - 1] - 2 * y[inner] + y[inner + 1]) ** 2, inner)
    energy = stiffness * bending / 2 + sp.Sum(sp.sqrt(1 + (y[i] - x[i]) ** 2), i)
    data = np.cumsum(np.random.default_rng(0).standard_normal(4000))
    return (
        wb.Energy(energy, variables=[y], weights=[stiffness], data=[x], name="beam"),
        {"stiffness": 1e4},
        {"x": data},
        {"y": data},
    )


def spline():
    """A smoothing spline, its knots everywhere: 3,000 coefficients, 20,000 observations."""
    c, b, z = (
        sp.IndexedBase("c", shape=(k,), integer=True),
        sp.IndexedBase("b", shape=(k, 4)),
        sp.IndexedBase("z", shape=(k,)),
    )
    value = sum(b[q, a] * y[c[q] + a] for a in range(4))
    bending = sp.Sum((y[inner - 1] - 2 * y[inner] + y[inner + 1]) ** 2, inner)
    energy = stiffness * bending + sp.Sum(wb.pseudo_huber((value - z[q]) ** 2, 1), q)
    random, count, knots = np.random.default_rng(0), 20_000, 3000
    at = np.sort(random.uniform(0, knots - 3, count))
    c0 = np.minimum(at.astype(int), knots - 4)
    t = at - c0
    basis = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3], 1) / 6
    data = {"c": c0, "b": basis, "z": 5 * np.sin(at / 100) + random.standard_t(3, count)}
    return (
        wb.Energy(energy, variables=[y], weights=[stiffness], data=[c, b, z], name="spline"),
        {"stiffness": 1e5},
        data,
        {"y": np.zeros(knots)},
    )


def edges(energy_of, name, pairs, targets, start, weights):
    e, d = sp.IndexedBase("e", shape=(k, 2), integer=True), sp.IndexedBase("d", shape=(k,))
    energy = energy_of(e, d)
    return (
        wb.Energy(energy, variables=[y], weights=[stiffness], data=[e, d], name=name),
        weights,
        {"e": pairs, "d": targets},
        {"y": start},
    )


def tree():
    """Heights along a tree of 20,000 nodes, known at its root."""
    random, count = np.random.default_rng(0), 20_000
    pairs = np.array([(child, random.integers(max(0, child - 40), child)) for child in range(1, count)])

    def energy_of(e, d):
        return sp.Sum(sp.sqrt(1 + (y[e[q, 0]] - y[e[q, 1]] - d[q]) ** 2), q) + stiffness * y[0] ** 2

    return edges(energy_of, "tree", pairs, random.standard_normal(count - 1), np.zeros(count), {"stiffness": 1.0})


def poses():
    """A robot's path of 3,000 poses with 300 long loops, from where its odometry puts it."""
    p, e, d = (
        sp.IndexedBase("p", shape=(n, 3)),
        sp.IndexedBase("e", shape=(k, 2), integer=True),
        sp.IndexedBase("d", shape=(k, 3)),
    )
    a, b = e[q, 0], e[q, 1]
    cos, sin = sp.cos(p[a, 2]), sp.sin(p[a, 2])
    u, v = p[b, 0] - p[a, 0], p[b, 1] - p[a, 1]
    errors = (cos * u + sin * v - d[q, 0]) ** 2 + (cos * v - sin * u - d[q, 1]) ** 2
    turn = 2 - 2 * sp.cos(p[b, 2] - p[a, 2] - d[q, 2])
    energy = sp.Sum(errors + stiffness * turn, q) / 2 + sum(p[0, axis] ** 2 for axis in range(3))
    random, count = np.random.default_rng(0), 3000
    turns = np.where(np.arange(count) % 25 == 0, random.choice([-1, 1], count) * np.pi / 2, 0.0)
    heading = np.cumsum(turns) - turns[0]
    path = np.stack([np.cumsum(np.cos(heading)), np.cumsum(np.sin(heading)), heading], 1)
    path -= path[0]
    near = [
        (s, t)
        for s, t in random.integers(0, count, (400_000, 2))
        if t - s > 50 and np.hypot(*(path[s] - path[t])[:2]) < 3
    ]
    pairs = np.array([*itertools.pairwise(range(count)), *near[:300]])
    s, t = path[pairs[:, 0]], path[pairs[:, 1]]
    gap, c0, s0 = t - s, np.cos(s[:, 2]), np.sin(s[:, 2])
    measured = np.stack([c0 * gap[:, 0] + s0 * gap[:, 1], c0 * gap[:, 1] - s0 * gap[:, 0], gap[:, 2]], 1)
    measured += random.standard_normal(measured.shape) * [0.02, 0.02, 0.002]
    start = path + np.cumsum(random.standard_normal(path.shape) * [0.01, 0.01, 0.0005], 0)
    energy = wb.Energy(energy, variables=[p], weights=[stiffness], data=[e, d], name="poses")
    return energy, {"stiffness": 100.0}, {"e": pairs, "d": measured}, {"p": start}


def plate(side=64):
    """A thin plate on springs that give way, loaded: the biharmonic operator on 64 x 64."""
    h, load = (sp.IndexedBase(name, shape=(n, m)) for name in ("h", "load"))
    second = {
        "rows": sp.Sum((h[inner - 1, j] - 2 * h[inner, j] + h[inner + 1, j]) ** 2, inner, j),
        "columns": sp.Sum((h[i, across - 1] - 2 * h[i, across] + h[i, across + 1]) ** 2, i, across),
    }
    a, b = sp.Idx("a", (0, n - 2)), sp.Idx("b", (0, m - 2))
    twist = sp.Sum((h[a, b] - h[a + 1, b] - h[a, b + 1] + h[a + 1, b + 1]) ** 2, a, b)
    bending = second["rows"] + second["columns"] + 2 * twist
    energy = stiffness * bending / 2 + sp.Sum(sp.sqrt(1 + h[i, j] ** 2) - load[i, j] * h[i, j], i, j)
    loads = 0.5 * np.random.default_rng(0).standard_normal((side, side))
    start = {"h": np.zeros((side, side))}
    return (
        wb.Energy(energy, variables=[h], weights=[stiffness], data=[load], name="plate"),
        {"stiffness": 1e3},
        {"load": loads},
        start,
    )


def elements():
    """Displacements of a triangulated sheet of 60 x 60 nodes, a tenth of its bars a million times as stiff."""
    p, e, bar = (
        sp.IndexedBase("p", shape=(n, 2)),
        sp.IndexedBase("e", shape=(k, 2), integer=True),
        sp.IndexedBase("bar", shape=(k, 3)),
    )
    load = sp.IndexedBase("load", shape=(n, 2))
    strain = sum(bar[q, axis] * (p[e[q, 1], axis] - p[e[q, 0], axis]) for axis in range(2))
    ground = sp.Sum(sp.sqrt(1 + p[i, 0] ** 2 + p[i, 1] ** 2) - load[i, 0] * p[i, 0] - load[i, 1] * p[i, 1], i)
    energy = sp.Sum(bar[q, 2] * strain**2, q) / 2 + stiffness * ground
    random, side = np.random.default_rng(0), 60
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(-1, 2) * 1.0
    number = np.arange(side * side).reshape(side, side)
    ends = (number[:-1], number[1:]), (number[:, :-1], number[:, 1:]), (number[:-1, :-1], number[1:, 1:])
    pairs = np.concatenate([np.stack([a.ravel(), b.ravel()], 1) for a, b in ends])
    along = grid[pairs[:, 1]] - grid[pairs[:, 0]]
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    stiff = np.where(random.random(len(pairs)) < 0.1, 1e6, 1.0)
    energy = wb.Energy(energy, variables=[p], weights=[stiffness], data=[e, bar, load], name="elements")
    loads = 0.3 * random.standard_normal(grid.shape)
    data = {"e": pairs, "bar": np.column_stack([along, stiff]), "load": loads}
    return energy, {"stiffness": 0.01}, data, {"p": np.zeros(grid.shape)}


def image():
    """Denoising 128 x 128 pixels."""
    h, z = (sp.IndexedBase(name, shape=(n, m)) for name in "hz")
    a, b = sp.Idx("a", (0, n - 2)), sp.Idx("b", (0, m - 2))
    smooth = sp.Sum(sp.sqrt((h[a + 1, j] - h[a, j]) ** 2 + 0.01), a, j)
    smooth += sp.Sum(sp.sqrt((h[i, b + 1] - h[i, b]) ** 2 + 0.01), i, b)
    energy = sp.Sum((h[i, j] - z[i, j]) ** 2, i, j) / 2 + stiffness * smooth
    noisy = np.kron(np.random.default_rng(0).standard_normal((4, 4)), np.ones((32, 32)))
    noisy += 0.1 * np.random.default_rng(1).standard_normal(noisy.shape)
    return (
        wb.Energy(energy, variables=[h], weights=[stiffness], data=[z], name="image"),
        {"stiffness": 0.2},
        {"z": noisy},
        {"h": noisy},
    )


ROUNDS = 7

TOO_LONG = 1.0
"""Seconds after which a way is not tried again."""

ENERGIES = (beam, spline, tree, poses, plate, elements, image)


class Iterated:
    """Conjugate gradients alone."""

    def __getitem__(self, _):
        return direct.Stage(self.system, 0)

    def __init__(self, pattern):
        self.system = direct.system_of(pattern)


class Eliminated(Iterated):
    """Factors alone."""

    def __init__(self, pattern):
        fronts = direct.find_fronts(pattern.indptr, pattern.indices, pattern.sources, pattern.starts)
        self.system = direct.Factored(pattern, fronts)


WAYS = {"iterated": Iterated, "factors": Eliminated, "chosen": direct.Stages}


def minimised(make: Callable[[], Any]) -> tuple[wb.Energy, dict[str, float], dict[str, wb.Solution], float]:
    """The energy; by way, the least seconds and the solution; the least seconds in which SuperLU factorises once."""
    energy, w, data, start = make()
    kernel = wb.compile(energy)
    best = dict.fromkeys(WAYS, np.inf)
    ended: dict[str, wb.Solution] = {}
    for way in itertools.islice(itertools.cycle(WAYS), ROUNDS * len(WAYS)):
        if TOO_LONG < best[way] < np.inf:
            continue
        direct.Stages = WAYS[way]
        direct._stages.clear()
        ended[way] = wb.minimise(kernel, w, data, start=start)  # works out what is remembered for a pattern
        for _ in range(5):
            begun = time.perf_counter()
            ended[way] = wb.minimise(kernel, w, data, start=start)
            best[way] = min(best[way], time.perf_counter() - begun)
            if best[way] > TOO_LONG / 10:
                break
    direct.Stages = WAYS["chosen"]
    hessian = kernel.hessian(ended["chosen"].variables, w, data).tocsc()
    return energy, best, ended, min(timed_superlu(hessian) for _ in range(ROUNDS))


def timed_superlu(hessian: Any) -> float:
    """Seconds in which SuperLU factorises a matrix once."""
    begun = time.perf_counter()
    splu(hessian, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return time.perf_counter() - begun


def table() -> None:
    """Print the table of docs/minimisers.md."""
    print(f"{'':10}{'unknowns':>9}{'entries':>9}{'worth':>7}{'SuperLU':>9}" + "".join(f"{way:>26}" for way in WAYS))
    for make in ENERGIES:
        energy, best, ended, superlu = minimised(make)
        pattern = ended["chosen"].kernel.pattern("hessian", ended["chosen"].inputs, 0)
        fronts = direct.find_fronts(pattern.indptr, pattern.indices, pattern.sources, pattern.starts)
        worth = direct.steps_worth(fronts, pattern.nnz)
        print(f"{energy.name:10}{pattern.shape[0]:>9}{pattern.nnz:>9}{worth:>7}{1e3 * superlu:>9.3g}", end="")
        for way, solution in ended.items():
            unfinished = " " if solution.converged else "!"
            numbers = f"{1e3 * best[way]:>10.4g} ({solution.iterations:>2}) {solution.gradient_norm:.0e}"
            print(f"{numbers}{unfinished:>6}", end="")
        print(flush=True)


def rows() -> Iterator[Row]:
    """Rows for benchmarks/run.py: as chosen, against conjugate gradients alone."""
    for make in ENERGIES:
        energy, best, ended, _ = minimised(make)
        chosen, iterated = 1e3 * best["chosen"], 1e3 * best["iterated"]
        bound = 0.8 if make is image else 3.0
        note = "" if ended["chosen"].converged else "not converged"
        of = f"{energy.name}, {ended['chosen'].y.shape[1]} unknowns"
        by = "conjugate gradients"
        yield Row("sparse, one core", of, "ms", chosen, iterated, by, iterated / chosen, None, ">=", bound, note)


if __name__ == "__main__":
    wb.set_threads(1)
    if "--rows" in sys.argv:
        print_rows(rows())
    else:
        table()
