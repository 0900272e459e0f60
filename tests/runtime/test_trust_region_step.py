"""The exact subproblem: min g'p + p'Hp/2 over |p| <= radius, against an eigen-decomposition by NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.compiler.native import compile_driver
from wiberg.compiler.signature import DoublePointer
from wiberg.runtime.trust_region import boundary_step, newton_step, spectrum

KINDS = {0: "newton", 1: "boundary"}


def _step(
    h: DoublePointer,
    g: DoublePointer,
    n: int,
    radius: float,
    p: DoublePointer,
    space: DoublePointer,
    work: DoublePointer,
    record: DoublePointer,
) -> float:
    record[0] = 0.0
    if newton_step(h, g, n, space, p):
        length = 0.0
        for i in range(n):
            length += p[i] * p[i]
        if length <= radius * radius:
            lowest = 0.0
            for i in range(n):
                lowest -= 0.5 * p[i] * g[i]
            return lowest
    record[0] = 1.0
    lowest, bound = spectrum(h, n, space)
    record[1], record[2] = lowest, bound
    return boundary_step(space, g, n, lowest, bound, radius, p, work)


def _spectrum(h: DoublePointer, n: int, space: DoublePointer, record: DoublePointer) -> float:
    record[0], record[1] = spectrum(h, n, space)
    return record[0]


STEP, SPECTRUM = compile_driver(_step, "step")[0], compile_driver(_spectrum, "spectrum")[0]


def step(h, g, radius):
    """(p, promised decrease, kind, lowest eigenvalue) of the compiled step."""
    h, g = np.ascontiguousarray(h, float), np.ascontiguousarray(g, float)
    n = len(g)
    p, space, work, record = np.full(n, 7.0), np.empty(n * n + 5 * n), np.empty(5 * n), np.full(3, np.nan)
    decrease = STEP.call(
        h.ctypes.data, g.ctypes.data, n, radius, p.ctypes.data, space.ctypes.data, work.ctypes.data, record.ctypes.data
    )
    return p, decrease, KINDS[int(record[0])], record[1]


def lowest_eigenvalue(h):
    h = np.ascontiguousarray(h, float)
    n = len(h)
    space, record = np.empty(n * n + 5 * n), np.empty(2)
    return SPECTRUM.call(h.ctypes.data, n, space.ctypes.data, record.ctypes.data)


def model(h, g, p):
    return g @ p + 0.5 * p @ h @ p


def best(h, g, radius):
    """The minimum of the model by eigen-decomposition and bisection."""
    values, vectors = np.linalg.eigh(h)
    b = vectors.T @ g
    scale = max(abs(values).max(), np.linalg.norm(g) / radius, 1e-300)
    inside = values[0] > 1e-13 * scale
    if inside and np.linalg.norm(b / values) <= radius:
        return -0.5 * np.sum(b**2 / values)
    low, high = max(0.0, -values[0]), max(0.0, -values[0]) + 2 * scale
    for _ in range(200):
        mu = 0.5 * (low + high)
        with np.errstate(all="ignore"):
            size = np.linalg.norm(np.where(b == 0, 0, b / (values + mu)))
        low, high = (mu, high) if size > radius else (low, mu)
    with np.errstate(all="ignore"):
        x = np.where(abs(values + high) < 1e-13 * scale, 0, -b / (values + high))
    rest = radius**2 - x @ x
    if rest > 0 and high > 0:
        sign = -1.0 if b[0] > 0 else 1.0
        x[0] += sign * math.sqrt(rest + x[0] ** 2) - x[0]
    return b @ x + 0.5 * values @ x**2


def random_problem(rng, n, low, high, kind):
    q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    values = np.sort(rng.uniform(low, high, n))
    h = q @ np.diag(values) @ q.T
    g = {"easy": rng.standard_normal(n), "hard": q[:, 1:] @ rng.standard_normal(n - 1), "zero": np.zeros(n)}[kind]
    return 0.5 * (h + h.T), g


RANGES = [(-20, -10), (-10, 0), (-1, 1), (0, 1), (0, 20), (-20, 20), (-0.1, 10), (10, 20)]


@pytest.mark.parametrize("kind", ["easy", "hard", "zero"])
@pytest.mark.parametrize("n", range(1, 9))
def test_model_value_is_the_minimum(n, kind):
    rng = np.random.default_rng(n)
    for low, high in RANGES:
        for radius in (0.1, 0.3, 0.6, 0.8, 1, 1.2, 3.3, 5.5, 10):
            h, g = random_problem(rng, n, low, high, kind)
            p, decrease, found, _ = step(h, g, radius)
            expected = best(h, g, radius)
            value = model(h, g, p)
            size = 1e-12 * (abs(h).max() * radius**2 + abs(g).max() * radius)
            assert value <= expected + 10 * size
            assert -decrease == pytest.approx(value, rel=1e-10, abs=10 * size)
            assert np.linalg.norm(p) <= radius * (1 + 1e-10)
            if found == "boundary" and np.linalg.eigvalsh(h)[0] < -1e-10:
                assert np.linalg.norm(p) == pytest.approx(radius, rel=1e-10)


def test_easy_case_meets_its_conditions():
    rng = np.random.default_rng(1)
    for n in (3, 5, 26):
        h, g = random_problem(rng, n, -5, 5, "easy")
        p, _, kind, lowest = step(h, g, 0.7)
        mu = -(p @ (g + h @ p)) / (p @ p)
        assert kind == "boundary"
        assert np.linalg.norm(p) == pytest.approx(0.7, rel=1e-10)
        assert abs((h + mu * np.eye(n)) @ p + g).max() < 1e-8
        assert mu >= -lowest > 0


def test_hard_case_goes_along_the_lowest_eigenvector():
    h = np.diag([-2.0, 1.0, 3.0, 5.0])
    g = np.array([0.0, 1.0, -1.0, 2.0])
    p, _, _, lowest = step(h, g, 4.0)
    assert lowest == -2.0
    assert p[1:] == pytest.approx(-g[1:] / (np.diag(h)[1:] + 2.0), rel=1e-12)
    assert np.linalg.norm(p) == pytest.approx(4.0, rel=1e-12)
    assert p[0] > 0


def test_interior_step_is_newtons():
    rng = np.random.default_rng(2)
    for n in (1, 2, 3, 7, 26, 60):
        h, g = random_problem(rng, n, 0.5, 20, "easy")
        p, decrease, kind, _ = step(h, g, 1e3)
        assert kind == "newton"
        assert p == pytest.approx(-np.linalg.solve(h, g), rel=1e-11, abs=1e-13)
        assert decrease == pytest.approx(0.5 * g @ np.linalg.solve(h, g), rel=1e-11)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 26])
@pytest.mark.parametrize("size", [0.0, 1e-15])
def test_no_gradient_but_negative_curvature_moves(n, size):
    rng = np.random.default_rng(n)
    h, _ = random_problem(rng, n, 1, 2, "easy")
    _, vectors = np.linalg.eigh(h)
    h = h - 3.0 * np.outer(vectors[:, 0], vectors[:, 0])
    still, _, _, _ = step(h, np.zeros(n), 0.5)
    p, _, _, _ = step(h, size * rng.standard_normal(n), 0.5)
    assert np.linalg.norm(p) == pytest.approx(0.5, rel=1e-12)
    assert abs(p @ vectors[:, 0]) == pytest.approx(0.5, rel=1e-12)
    assert p == pytest.approx(still, abs=1e-13)


@pytest.mark.parametrize(
    "h",
    [
        np.zeros((3, 3)),
        np.diag([0.0, 1.0, 2.0]),
        np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]]),
        np.ones((4, 4)),
        -np.eye(4),
        np.eye(4),
        np.array([[1.0, 2], [2, 4]]),
        np.zeros((2, 2)),
        np.zeros((1, 1)),
        np.diag([1e-320, 1, 1]),
        1e-200 * np.ones((3, 3)),
        1e200 * np.diag([-1.0, 1, 2]),
        np.array([[2.0, 1e-9, 0], [1e-9, 2, 1e-9], [0, 1e-9, 2]]),
    ],
)
def test_degenerate_matrices_give_finite_steps(h):
    n = len(h)
    for g in (np.ones(n), np.eye(n)[0], np.zeros(n), 1e-12 * np.ones(n), 1e8 * np.arange(n)):
        p, decrease, _, _ = step(h, g, 0.25)
        assert np.isfinite(p).all()
        assert np.linalg.norm(p) <= 0.25 * (1 + 1e-10)
        assert decrease >= 0
        assert model(h, g, p) <= best(h, g, 0.25) + 1e-11 * (abs(h).max() * 0.0625 + abs(g).max() * 0.25)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("n", [3, 6])
def test_not_finite_matrix_ends(bad, n):
    h = np.eye(n)
    h[1, 2] = h[2, 1] = bad
    step(h, np.ones(n), 1.0)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 12), st.integers(0, 10**6), st.floats(-14, 2), st.floats(-8, 8), st.floats(-8, 8))
def test_near_singular_and_scaled(n, seed, smallest, size, radius):
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    values = 10.0**size * np.concatenate([[rng.choice([-1, 1]) * 10.0**smallest], rng.uniform(-1, 1, n - 1)])
    h = q @ np.diag(values) @ q.T
    h = 0.5 * (h + h.T)
    g = 10.0**size * q @ np.where(rng.random(n) < 0.3, 0, rng.standard_normal(n))
    radius = 10.0**radius
    p, _, _, _ = step(h, g, radius)
    error = 1e-11 * (abs(h).max() * radius**2 + abs(g).max() * radius)
    assert np.linalg.norm(p) <= radius * (1 + 1e-10)
    assert model(h, g, p) <= best(h, g, radius) + error


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(0, 10**6), st.sampled_from([1e-200, 1e-8, 1.0, 1e8, 1e200]), st.booleans())
def test_lowest_eigenvalue(n, seed, size, sparse):
    rng = np.random.default_rng(seed)
    h = rng.standard_normal((n, n)) * (rng.random((n, n)) < 0.1 if sparse else 1)
    h = h + h.T
    assert lowest_eigenvalue(size * h) / size == pytest.approx(
        np.linalg.eigvalsh(h)[0], abs=4e-15 * n * max(1e-30, abs(h).max())
    )


def test_two_unknowns_lose_no_digits():
    assert lowest_eigenvalue([[1e16, 0], [0, 1.0]]) == 1.0
    assert lowest_eigenvalue([[1.0, 1.0], [1.0, 1.0]]) == 0.0
    h = np.array([[1e8, 1e4], [1e4, 2.0]])
    assert lowest_eigenvalue(h) == pytest.approx(1.0, rel=1e-7)
