"""The step of the trust region against LAPACK, for 20 to 200 unknowns, and of Hessians with blocks against our own of
dense ones: prints a row as a line of JSON for `run.py`.

    python benchmarks/step.py

Ours are called as drivers call them, from machine code; LAPACK through NumPy and SciPy, as a Python program has it, and
through scipy.linalg.lapack, where 0.6 microseconds of each call are Python's. What LAPACK does is less than ours where
there is no one function for it: dsytrd finds no eigenvalue, eigh no step. One core and one thread each, CPU time.
Answers are compared before times are.
"""

# ruff: noqa: E402

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before NumPy and SciPy load their LAPACK

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.linalg import lapack
from timing import Row, compare, print_rows
from wiberg.compiler.machine_code.calling import shifted
from wiberg.compiler.machine_code.native import compile_driver
from wiberg.compiler.machine_code.signature import DoublePointer, IntegerPointer
from wiberg.runtime.algebra import factorisation
from wiberg.runtime.algebra.blocks import NONE, Blocks, find_blocks

Floats = NDArray[np.float64]
SIZES = (20, 50, 100, 200)
ARROWS = ((12, 16), (29, 17), (0, 33), (30, 50), (30, 100), (30, 200))
"""Hessians with blocks: so many unknowns in the border, and so many blocks of three."""

REPEATS = 20
RADIUS = 0.5


def _factor(
    layout: IntegerPointer,
    h: DoublePointer,
    g: DoublePointer,
    n: int,
    p: DoublePointer,
    space: DoublePointer,
    repeats: int,
) -> float:
    good = True
    for _ in range(repeats):
        good = factorisation.factor(layout, h, n, space)
    return 1.0 if good else 0.0


def _newton(
    layout: IntegerPointer,
    h: DoublePointer,
    g: DoublePointer,
    n: int,
    p: DoublePointer,
    space: DoublePointer,
    repeats: int,
) -> float:
    good = True
    for _ in range(repeats):
        good = factorisation.newton_step(layout, h, g, n, space, p)
    return 1.0 if good else 0.0


def _lowest(
    layout: IntegerPointer,
    h: DoublePointer,
    g: DoublePointer,
    n: int,
    p: DoublePointer,
    space: DoublePointer,
    repeats: int,
) -> float:
    lowest = 0.0
    for _ in range(repeats):
        lowest, _bound = factorisation.spectrum(layout, h, n, space)
    return lowest


def _boundary(
    layout: IntegerPointer,
    h: DoublePointer,
    g: DoublePointer,
    n: int,
    p: DoublePointer,
    space: DoublePointer,
    repeats: int,
) -> float:
    lowest = 0.0
    for _ in range(repeats):
        lowest, bound = factorisation.spectrum(layout, h, n, space)
        work = shifted(space, n * n + 5 * n)
        factorisation.boundary_step(layout, h, space, g, n, lowest, bound, RADIUS, p, work)
    return lowest


class Problem:
    """A definite and an indefinite Hessian and a gradient of n unknowns, and what a driver writes."""

    def __init__(self, n: int) -> None:
        random = np.random.default_rng(n)
        a = random.standard_normal((n, n))
        self.n, self.definite, self.indefinite = n, a @ a.T + n * np.eye(n), a + a.T
        self.g, self.p, self.space = random.standard_normal(n), np.empty(n), np.empty(n * n + 9 * n)

    def call(self, function: Callable[..., Any], h: Floats) -> Callable[[], float]:
        """REPEATS calls of a compiled function, without blocks."""
        driver = compile_driver(function, function.__name__)[0]
        addresses = (h.ctypes.data, self.g.ctypes.data, self.n, self.p.ctypes.data, self.space.ctypes.data)
        return lambda: float(driver.call(NONE.ctypes.data, *addresses, REPEATS))

    def upper(self) -> Floats:
        return np.triu(self.space[: self.n * self.n].reshape(self.n, self.n))


def near(what: str, ours: Any, theirs: Any) -> None:
    if not np.allclose(ours, theirs, rtol=1e-9, atol=1e-9):
        raise SystemExit(f"{what}: the answers differ; no times are compared")


def eigen_step(h: Floats, g: Floats) -> Floats:
    """The step to the boundary by all eigenvectors and bisection."""
    values, vectors = scipy.linalg.eigh(h)
    parts = -(vectors.T @ g)
    low, high = max(0.0, -values[0]), abs(values).max() + np.linalg.norm(g) / RADIUS
    for _ in range(100):
        mu = 0.5 * (low + high)
        low, high = (mu, high) if np.linalg.norm(parts / (values + mu)) > RADIUS else (low, mu)
    return np.asarray(vectors @ (parts / (values + high)))


def rows(n: int) -> Iterator[Row]:
    problem = Problem(n)
    h, indefinite = problem.definite, problem.indefinite
    factor, newton = problem.call(_factor, h), problem.call(_newton, h)
    lowest, boundary = problem.call(_lowest, indefinite), problem.call(_boundary, indefinite)

    factor()
    near("Cholesky", problem.upper(), np.linalg.cholesky(h).T)
    newton()
    near("Newton's step", problem.p, np.linalg.solve(h, -problem.g))
    near("lowest eigenvalue", lowest(), np.linalg.eigvalsh(indefinite)[0])
    boundary()
    near("step to the boundary", problem.p, eigen_step(indefinite, problem.g))

    one = partial(scipy.linalg.eigh, indefinite, eigvals_only=True, subset_by_index=[0, 0])
    for work, ours, name, theirs in (
        ("Cholesky", factor, "NumPy cholesky", partial(np.linalg.cholesky, h)),
        ("Cholesky", factor, "LAPACK dpotrf", partial(lapack.dpotrf, h.T, clean=0)),
        ("Newton's step", newton, "LAPACK dposv", partial(lapack.dposv, h.T, problem.g)),
        ("lowest eigenvalue", lowest, "LAPACK dsytrd", partial(lapack.dsytrd, indefinite.T, lwork=32 * n)),
        ("lowest eigenvalue", lowest, "SciPy eigh, of one", one),
        ("step to the boundary", boundary, "SciPy eigh, of all", partial(scipy.linalg.eigh, indefinite)),
    ):
        (least, median), (peer_least, peer_median) = compare(ours, theirs, time.process_time)
        yield Row(
            "step", f"{work}, {n} unknowns", "us", 1e6 * least / REPEATS, 1e6 * peer_least, name,
            least / REPEATS / peer_least, median / REPEATS / peer_median, "<=", 1.0,
        )  # fmt: skip


class Arrow:
    """The same with a border and blocks of three, called with the layout that is found, or with none."""

    def __init__(self, border: int, count: int) -> None:
        self.n = n = border + 3 * count
        met = np.kron(np.eye(-(-n // 3)), np.ones((3, 3)))[:n, :n] > 0
        met = np.roll(met, border, (0, 1))
        met[:border] = met[:, :border] = True
        random = np.random.default_rng(n)
        a = random.standard_normal((n, n))
        self.indefinite = np.ascontiguousarray((a + a.T) * met)
        self.definite = self.indefinite + (1.0 + abs(np.linalg.eigvalsh(self.indefinite)).max()) * np.eye(n)
        self.g, self.p, self.space = random.standard_normal(n), np.empty(n), np.empty(n * n + 9 * n)
        found = find_blocks(met)
        assert found is not None
        self.blocks: Blocks = found

    def call(self, function: Callable[..., Any], h: Floats, repeats: int) -> tuple[Callable[[], Floats], ...]:
        """Repeated calls with blocks, and without; each gives the step."""
        driver = compile_driver(function, function.__name__)[0]
        addresses = (h.ctypes.data, self.g.ctypes.data, self.n, self.p.ctypes.data, self.space.ctypes.data, repeats)

        def run(layout: NDArray[np.int64]) -> Floats:
            driver.call(layout.ctypes.data, *addresses)
            return self.p.copy()

        return partial(run, self.blocks.layout), partial(run, NONE)


def arrow_rows(border: int, count: int) -> Iterator[Row]:
    problem = Arrow(border, count)
    repeats = max(1, 2000 // problem.n)
    for work, function, h in (
        ("Newton's step", _newton, problem.definite),
        ("lowest eigenvalue, minimum", _lowest, problem.definite),
        ("lowest eigenvalue, saddle", _lowest, problem.indefinite),
        ("step to the boundary", _boundary, problem.indefinite),
    ):
        ours, theirs = problem.call(function, h, repeats)
        near(work, ours(), theirs())
        (least, median), (peer_least, peer_median) = compare(ours, theirs, time.process_time)
        yield Row(
            "blocks", f"{work}, {border} + {count} x 3 unknowns", "us", 1e6 * least / repeats,
            1e6 * peer_least / repeats, "ours, dense", least / peer_least, median / peer_median, "<=", 1.05,
        )  # fmt: skip


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    for n in SIZES:
        print_rows(rows(n))
    for border, count in ARROWS:
        print_rows(arrow_rows(border, count))


if __name__ == "__main__":
    main()
