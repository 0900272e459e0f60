"""The lowest eigenvalue from products alone: bounds against dense eigenvalues, directions of negative curvature."""

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.runtime.algebra import lanczos
from wiberg.runtime.products import find_curvature
from wiberg.runtime.statuses import CONVERGED

n = sp.Symbol("n", integer=True, positive=True)
i, j = sp.Idx("i", n), sp.Idx("j", n)
y, H = sp.IndexedBase("y", shape=(n,)), sp.IndexedBase("H", shape=(n, n))


@pytest.fixture(scope="module")
def kernel():
    return wb.compile(wb.Energy(sp.Sum(H[i, j] * y[i] * y[j], i, j) / 2, variables=[y], data=[H], name="any"))


def found(kernel, *matrices):
    """What is found of some symmetric matrices: lowest if negative, bound, directions."""
    matrices = np.stack(matrices)
    count, size = matrices.shape[:2]
    inputs, at = kernel.bind(None, {"H": matrices}), np.zeros((count, size))
    reals, integers = np.full((count, 2), np.nan), np.full((count, 3), CONVERGED)
    curved, directions = np.zeros(count), np.zeros((count, size))
    find_curvature(kernel, inputs, at, reals, integers, curved, directions, range(count))
    return curved, reals[:, 1], directions


def matrix(values, rng):
    q, _ = np.linalg.qr(rng.standard_normal((len(values), len(values))))
    made = q @ np.diag(values) @ q.T
    return (made + made.T) / 2


@settings(max_examples=60)
@given(
    st.integers(0, 10**6), st.integers(1, 40), st.sampled_from(["any", "positive", "singular", "few", "one negative"])
)
def test_the_bound_holds_and_is_near(kernel, seed, size, kind):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(size) * 10.0 ** rng.integers(-3, 4)
    if kind == "positive":
        values = np.abs(values) + 1e-3 * np.abs(values).max()
    elif kind == "singular":
        values = np.abs(values) * (np.arange(size) % 2)
    elif kind == "few":
        values = rng.integers(-1, 3, size).astype(float)
    elif kind == "one negative":
        values = np.abs(values)
        values[0] *= -0.01
    made = matrix(values, rng)
    (curved,), (bound,), (direction,) = found(kernel, made)
    true = np.linalg.eigvalsh(made)
    top = np.abs(true).max()
    assert bound <= true[0] + 1e-12 * top
    assert bound >= true[0] - 0.6 * abs(true[0]) - 1e-7 * top
    assert (curved < 0.0) == (true[0] < -1e-11 * top)
    if curved < 0.0:
        assert np.linalg.norm(direction) == pytest.approx(1.0)
        assert direction @ made @ direction == pytest.approx(curved, rel=1e-6, abs=1e-10 * top)
        assert true[0] - 1e-9 * top <= curved <= 0.5 * true[0]


def test_one_negative_eigenvalue_among_thousands_is_found(kernel):
    """Here the eigenvalues of T look settled long before: the residual of the first is 3 %."""
    size = 3000
    v = np.random.default_rng(0).standard_normal(size)
    v /= np.linalg.norm(v)
    made = np.diag(np.linspace(1.0, 1.1, size)) - 1.5 * np.outer(v, v)
    (curved,), (bound,), (direction,) = found(kernel, made)
    assert curved < -0.3 and abs(direction @ v) > 0.9 and bound <= curved


def test_a_large_cluster_does_not_keep_the_bound_open(kernel):
    """Lanczos's vectors take far longer to tell these eigenvalues from each other than the bound does."""
    rng = np.random.default_rng(1)
    made = matrix(np.concatenate([np.linspace(0.1, 0.11, 100), np.linspace(0.11, 9.0, 300)]), rng)
    _, (bound,), _ = found(kernel, made)
    assert 0.05 <= bound <= 0.1 + 1e-12


def test_what_products_do_not_settle_stays_open(kernel, monkeypatch):
    values = np.geomspace(1e-9, 1.0, 900)
    (curved,), (bound,), _ = found(kernel, np.diag(values))
    assert curved == 0.0 and (np.isnan(bound) or bound <= 1e-9)


def test_numbers_that_are_not_finite_are_no_curvature(kernel):
    curved, bound, _ = found(kernel, np.diag([1.0, np.nan, 2.0]), np.diag([1.0, 3.0, 2.0]))
    assert np.isnan(bound[0]) and curved[0] == 0.0
    assert bound[1] == pytest.approx(1.0, rel=1e-3)


def test_the_curvature_of_one_unknown_is_exact(kernel):
    """The derivative of a minimum of one unknown divides by it (learn/derivative/damped.py)."""
    curved, bound, directions = found(kernel, [[0.7]], [[-0.3]])
    assert bound.tolist() == [0.7, -0.3] and curved.tolist() == [0.0, -0.3] and directions[1, 0] == 1.0


def test_no_hessian_at_all_is_flat(kernel):
    curved, bound, _ = found(kernel, np.zeros((4, 4)))
    assert curved[0] == bound[0] == 0.0


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_the_polynomial_bounds_nothing_above_the_lowest_eigenvalue(seed):
    """`is_bound` in Python, on T made by exact Lanczos with full orthogonalisation."""
    rng = np.random.default_rng(seed)
    size, count = 30, int(rng.integers(1, 20))
    made = matrix(rng.standard_normal(size), rng)
    v = np.zeros(size)
    lanczos.start_vector(v, size)
    assert np.linalg.norm(v) == pytest.approx(1.0)
    basis, diagonal, off = [v], [], []
    for _ in range(count):
        q = made @ basis[-1]
        diagonal.append(basis[-1] @ q)
        for _ in range(2):
            q = q - sum((q @ u) * u for u in basis)
        off.append(np.linalg.norm(q))
        basis.append(q / off[-1])
    lowest, vectors = np.linalg.eigh(made)
    luck = 1.0 / abs(vectors[:, 0] @ v)
    above = lowest[0] + 1e-9
    below = np.linspace(lowest[0] - 50.0, lowest[0], 60)
    holds = [lanczos.is_bound(diagonal, off, count, x, 1.0, luck) for x in below]
    assert not lanczos.is_bound(diagonal, off, count, above, 1.0, luck)
    assert holds == sorted(holds, reverse=True)
