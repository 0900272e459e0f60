"""The table of More, Garbow and Hillstrom: each energy against plain NumPy, published starts and published minima."""

import numpy as np
import pytest
from more_garbow_hillstrom import FACTORS, PROBLEMS, measured
from more_garbow_hillstrom.residuals import RESIDUALS, energy
from scipy.optimize import least_squares, minimize_scalar

# Lengths of the residuals at the start, at 1, 10 and 100 times it, that MINPACK's tests of LMDIF print
# (J. More, B. Garbow, K. Hillstrom, ANL-80-74, 1980).
MINPACK = {
    1: (4.9193495505, 1340.06305822, 143000.051192), 2: (20.0124960962, 12432.833949, 11426454.5958),
    6: (64.5856498145,), 7: (50.0, 102.95630141, 991.261822124), 8: (6.45613629516, 36.1418531597, 384.114678637),
    10: (41153.4665543, 4168216.89131), 12: (32.111583745,), 13: (14.6628782986, 1270.98387087, 126887.903285),
    15: (0.0728915102883, 2.97937007555, 29.9590617016), 16: (2815.43839162, 555073.354173, 61211252.2339),
    17: (0.937564021038,), 19: (1.44686540985,), 20: (5.47722557505, 6433.1257895, 674256.040605),
    27: (16.5302162063, 9765624.00089, 0.9765625e17), 32: (5.0,), 33: (291.521868819,), 35: (0.196513862834,),
}  # fmt: skip

# Energies at the start, to three digits, of Algorithm 566 (the same authors, ACM Transactions on Mathematical Software
# 7, 136-140) as its Julia interface Toms566 prints them; many unknowns where n is free.
ALGORITHM_566 = {
    3: (1.14, None), 4: (1.00e12, None), 5: (1.42e1, None), 9: (3.89e-6, None), 11: (1.21e1, None), 14: (1.92e4, None),
    18: (7.79e-1, None), 21: (4.84e2, np.tile([-1.2, 1.0], (20, 1))),
    22: (3.23e3, np.tile([3.0, -1.0, 0.0, 1.0], (15, 1))), 23: (5.45e9, np.arange(1.0, 61.0)),
    24: (2.87e5, np.full(65, 0.5)), 25: (9.39e10, 1 - np.arange(1, 41) / 40), 26: (2.01e-3, np.full(40, 1 / 40)),
}  # fmt: skip

# Minima as the paper prints them in section 3, all digits that it gives.
PRINTED = {
    2: "48.9842", 6: "124.362", 8: "8.21487e-3", 9: "1.12793e-8", 10: "87.9458", 15: "3.07505e-4", 16: "85822.2",
    17: "5.46489e-5", 18: "5.65565e-3", 19: "4.01377e-2", 20: "2.28767e-3", 23: "7.08765e-5", 24: "2.93660e-4",
    35: "3.51687e-3",
}  # fmt: skip

BY_NUMBER = {problem.number: problem for problem in PROBLEMS}
each = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)


def value(problem, y):
    return problem.kernel.value({"y": y}, None, problem.data)


def refined(number, start):
    """Where Levenberg and Marquardt's method ends, on the residuals of NumPy: energy and point."""
    found = least_squares(
        RESIDUALS[number], start, xtol=1e-15, ftol=1e-15, gtol=1e-15, x_scale="jac", max_nfev=5000, method="trf"
    )
    return 2 * found.cost, found.x


def jacobian(number, x):
    """Derivatives of the residuals by differences of fourth order."""
    residuals, columns = RESIDUALS[number], []
    for s in np.diag(1e-4 * (np.abs(x) + 1e-2)):
        near, far = residuals(x + s) - residuals(x - s), residuals(x + 2 * s) - residuals(x - 2 * s)
        columns.append((8 * near - far) / (12 * s.max()))
    return np.stack(columns, axis=1)


def test_all_35_are_there():
    assert [problem.number for problem in PROBLEMS] == list(range(1, 36)) == sorted(RESIDUALS)
    assert len({problem.name for problem in PROBLEMS}) == 35


@each
def test_value_is_that_of_plain_numpy(problem):
    random = np.random.default_rng(problem.number)
    for spread in (0.0, 0.01, 0.1, 0.3):
        y = problem.start + spread * random.standard_normal(problem.start.shape) * (0.1 + np.abs(problem.start))
        assert value(problem, y) == pytest.approx(energy(problem.number, y), rel=1e-11)


@each
def test_gradient_is_that_of_plain_numpy(problem):
    y = problem.start + 0.01 * (0.1 + np.abs(problem.start)) * np.cos(np.arange(problem.unknowns)).reshape(
        problem.start.shape
    )
    flat, found = y.ravel(), problem.kernel.gradient({"y": y}, None, problem.data)
    terms = 2 * RESIDUALS[problem.number](flat)[:, None] * jacobian(problem.number, flat)
    np.testing.assert_allclose(found, terms.sum(axis=0), rtol=0, atol=1e-6 * np.abs(terms).sum(axis=0).max())


@each
def test_as_many_squares_as_the_paper_says(problem):
    assert len(RESIDUALS[problem.number](problem.start.ravel())) == problem.residuals


@pytest.mark.parametrize("number", MINPACK)
def test_starts_are_those_of_minpack(number):
    for factor, length in zip(FACTORS, MINPACK[number], strict=False):
        problem = BY_NUMBER[number]
        assert np.sqrt(value(problem, problem.start_at(factor))) == pytest.approx(length, rel=1e-9)


@pytest.mark.parametrize("number", ALGORITHM_566)
def test_starts_are_those_of_algorithm_566(number):
    problem, (printed, start) = BY_NUMBER[number], ALGORITHM_566[number]
    found = value(problem, problem.start if start is None else start)
    assert found == pytest.approx(printed, rel=0.5e-2)


def test_start_of_linear_rank_1_with_zeros_in_closed_form():
    """m = 10, n = 5, all unknowns 1: the moment is 2 + 3 + 4."""
    assert value(BY_NUMBER[34], np.ones(5)) == sum((9 * i - 1) ** 2 for i in range(1, 9)) + 2


FINITE = [
    pytest.param(problem, minimum, id=f"{problem.name} {minimum.value:.3g}")
    for problem in PROBLEMS
    for minimum in problem.minima
    if minimum.at and np.isfinite(minimum.at).all()
]


@pytest.mark.parametrize("problem, minimum", FINITE)
def test_minimum_is_where_the_table_says(problem, minimum):
    """Stationary, nowhere lower nearby, and of that energy: all by NumPy."""
    at = np.array(minimum.at)
    polished = at
    if minimum.value > 0:  # the printed digits are not enough; from them, to the minimum
        polished = newton(problem.number, at)
        np.testing.assert_allclose(polished, at, rtol=2e-5, atol=2e-5)
        assert energy(problem.number, polished) == pytest.approx(minimum.value, rel=1e-8)
    else:
        _, polished = refined(problem.number, at)
        np.testing.assert_allclose(polished, at, rtol=2e-5, atol=1e-4)
        assert energy(problem.number, polished) <= 1e-18
    random = np.random.default_rng(0)
    for _ in range(50):
        there = polished + 1e-3 * random.standard_normal(at.shape) * (np.abs(polished) + 1e-3)
        assert energy(problem.number, there) >= energy(problem.number, polished) * (1 - 1e-12)


def newton(number, x):
    """Four steps of Newton's method for J'f = 0, J and its derivatives by differences."""

    def slope(x):
        return jacobian(number, x).T @ RESIDUALS[number](x)

    for _ in range(4):
        step = 1e-4 * (np.abs(x) + 1e-2)
        curvature = np.stack([(slope(x + s) - slope(x - s)) / (2 * s.max()) for s in np.diag(step)], axis=1)
        x = x - np.linalg.solve(0.5 * (curvature + curvature.T), slope(x))
    return x


def test_local_minima_of_biggs_exp6_are_a_line():
    """Two exponentials with one decay: only the sum of their factors counts."""
    decay, factors, local = 1.711416, 2 * 1.16314365, BY_NUMBER[18].minima[1].value
    for share in (0.0, 0.5, 0.7):
        point = np.array([decay, 17.6831975, share * factors, 5.18656, decay, (1 - share) * factors])
        assert energy(18, point) == pytest.approx(local, rel=1e-8)


UNPRINTED = [problem for problem in PROBLEMS if not problem.minima[0].at]


@pytest.mark.parametrize("problem", UNPRINTED, ids=lambda problem: problem.name)
def test_least_squares_of_numpy_end_in_a_minimum_of_the_table(problem):
    found, _ = refined(problem.number, problem.start.ravel())
    assert problem.reached(found) is not None
    assert min(abs(found - minimum.value) for minimum in problem.minima) <= 1e-8 * max(found, 1e-4)


@pytest.mark.parametrize("number", PRINTED)
def test_minimum_has_the_digits_of_the_paper(number):
    printed = PRINTED[number]
    mantissa, _, exponent = printed.partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    found = min(abs(minimum.value - float(printed)) for minimum in BY_NUMBER[number].minima)
    assert found <= unit


def test_minima_in_closed_form():
    """Linear problems, and solutions that can be written down."""
    m, n = 10, 5
    assert BY_NUMBER[32].minima[0].value == m - n
    assert BY_NUMBER[33].minima[0].value == m * (m - 1) / (2 * (2 * m + 1))
    assert BY_NUMBER[34].minima[0].value == (m**2 + 3 * m - 6) / (2 * (2 * m - 3))
    points = {
        12: [(1, 10, 1), (10, 1, -1), (3.3, 3.3, 0)],
        18: [(1, 10, 1, 5, 4, 3), (4, 10, 3, 5, 1, 1)],
        26: [(0,) * 10],
        27: [(1,) * 10, (0.979430303349862,) * 9 + (1.20569696650138,)],
    }
    for number, zeros in points.items():
        for point in zeros:
            assert value(BY_NUMBER[number], np.array(point, float)) <= 1e-24


def minima_at_infinity():
    """Problem -> limits of its energy where some unknowns are infinite, from the model that is left."""
    i, t, (u, z) = np.arange(1, 11), np.arange(1, 14) / 10, measured.KOWALIK_OSBORNE
    decays = np.exp(-t) - 5 * np.exp(-10 * t) + 3 * np.exp(-4 * t)

    def least(residuals, start):
        return 2 * least_squares(residuals, start, xtol=1e-15, ftol=1e-15, gtol=1e-15, x_scale="jac").cost

    one = minimize_scalar(
        lambda a: ((2 + 2 * i - np.exp(i * a)) ** 2).sum(), bounds=(0.3, 0.36), options={"xatol": 1e-12}
    )
    return {
        6: [one.fun],
        8: [((measured.BARD - measured.BARD.mean()) ** 2).sum()],
        15: [
            least(lambda q: z - u * (u + q[0]) / (q[1] * u + q[2]), (-14.0758, -45.26, -28.23)),
            least(lambda q: z - u / (q[0] * u + q[1]), (4.0, 1.7)),
        ],
        18: [least(lambda q: 2 * q[0] * np.exp(-q[1] * t) - decays, (0.8, 1.2))],
    }


@pytest.mark.parametrize("number", [6, 8, 15, 18])
def test_minima_at_infinity_are_limits(number):
    limits = minima_at_infinity()[number]
    infinite = [
        minimum.value
        for minimum in BY_NUMBER[number].minima
        if (np.inf in np.abs(minimum.at)) or "infin" in minimum.source
    ]
    assert infinite == pytest.approx(limits, rel=1e-8)
