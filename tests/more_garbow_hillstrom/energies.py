"""The energies, as a user writes them: sums of squares over the paper's m, indices from 0."""

from __future__ import annotations

from typing import Any

import sympy as sp
from wiberg.energies.energy import Energy

k, m, n = sp.symbols("k m n", integer=True, positive=True)
i, j, row = sp.Idx("i", m), sp.Idx("j", n), sp.Idx("row", k)
t, z, u, v, w = (sp.IndexedBase(name, shape=(m,)) for name in "tzuvw")  # data
many = sp.IndexedBase("y", shape=(n,))


def unknowns(count: int) -> Any:
    return sp.IndexedBase("y", shape=(count,))


def squares(*residuals: Any) -> Any:
    return sum(residual**2 for residual in residuals)


# ---------------------------------------------------------------------------------------------- fixed n


def rosenbrock() -> Energy:
    y = unknowns(2)
    return Energy(squares(10 * (y[1] - y[0] ** 2), 1 - y[0]), variables=[y], name="rosenbrock")


def freudenstein_roth() -> Energy:
    y = unknowns(2)
    first = -13 + y[0] + ((5 - y[1]) * y[1] - 2) * y[1]
    second = -29 + y[0] + ((y[1] + 1) * y[1] - 14) * y[1]
    return Energy(squares(first, second), variables=[y], name="freudenstein_roth")


def powell_badly_scaled() -> Energy:
    y = unknowns(2)
    product, exponentials = 1e4 * y[0] * y[1] - 1, sp.exp(-y[0]) + sp.exp(-y[1]) - 1.0001
    return Energy(squares(product, exponentials), variables=[y], name="powell_badly_scaled")


def brown_badly_scaled() -> Energy:
    y = unknowns(2)
    return Energy(squares(y[0] - 1e6, y[1] - 2e-6, y[0] * y[1] - 2), variables=[y], name="brown_badly_scaled")


def beale() -> Energy:
    """The three constants are data, and the powers are counted by the index."""
    y = unknowns(2)
    return Energy(sp.Sum((z[i] - y[0] * (1 - y[1] ** (i + 1))) ** 2, i), variables=[y], data=[z], name="beale")


def jennrich_sampson() -> Energy:
    y = unknowns(2)
    model = sp.exp(t[i] * y[0]) + sp.exp(t[i] * y[1])
    return Energy(sp.Sum((2 + 2 * t[i] - model) ** 2, i), variables=[y], data=[t], name="jennrich_sampson")


def helical_valley() -> Energy:
    y = unknowns(3)
    turn = sp.atan(y[1] / y[0]) / (2 * sp.pi) + sp.Piecewise((0, y[0] > 0), (sp.Rational(1, 2), True))
    radius = sp.sqrt(y[0] ** 2 + y[1] ** 2)
    return Energy(squares(10 * (y[2] - 10 * turn), 10 * (radius - 1), y[2]), variables=[y], name="helical_valley")


def bard() -> Energy:
    y = unknowns(3)
    model = y[0] + u[i] / (v[i] * y[1] + w[i] * y[2])
    return Energy(sp.Sum((z[i] - model) ** 2, i), variables=[y], data=[z, u, v, w], name="bard")


def gaussian() -> Energy:
    y = unknowns(3)
    model = y[0] * sp.exp(-y[1] * (t[i] - y[2]) ** 2 / 2)
    return Energy(sp.Sum((model - z[i]) ** 2, i), variables=[y], data=[t, z], name="gaussian")


def meyer() -> Energy:
    y = unknowns(3)
    model = y[0] * sp.exp(y[1] / (t[i] + y[2]))
    return Energy(sp.Sum((model - z[i]) ** 2, i), variables=[y], data=[t, z], name="meyer")


def gulf() -> Energy:
    """A power whose exponent is unknown."""
    y = unknowns(3)
    model = sp.exp(-(sp.Abs(z[i] - y[1]) ** y[2]) / y[0])
    return Energy(sp.Sum((model - t[i]) ** 2, i), variables=[y], data=[t, z], name="gulf")


def box() -> Energy:
    y = unknowns(3)
    model = sp.exp(-t[i] * y[0]) - sp.exp(-t[i] * y[1]) - y[2] * (sp.exp(-t[i]) - sp.exp(-10 * t[i]))
    return Energy(sp.Sum(model**2, i), variables=[y], data=[t], name="box")


def powell_singular() -> Energy:
    y = unknowns(4)
    residuals = y[0] + 10 * y[1], sp.sqrt(5) * (y[2] - y[3]), (y[1] - 2 * y[2]) ** 2, sp.sqrt(10) * (y[0] - y[3]) ** 2
    return Energy(squares(*residuals), variables=[y], name="powell_singular")


def wood() -> Energy:
    y = unknowns(4)
    valleys = 10 * (y[1] - y[0] ** 2), 1 - y[0], sp.sqrt(90) * (y[3] - y[2] ** 2), 1 - y[2]
    ties = sp.sqrt(10) * (y[1] + y[3] - 2), (y[1] - y[3]) / sp.sqrt(10)
    return Energy(squares(*valleys, *ties), variables=[y], name="wood")


def kowalik_osborne() -> Energy:
    y = unknowns(4)
    model = y[0] * (u[i] ** 2 + u[i] * y[1]) / (u[i] ** 2 + u[i] * y[2] + y[3])
    return Energy(sp.Sum((z[i] - model) ** 2, i), variables=[y], data=[u, z], name="kowalik_osborne")


def brown_dennis() -> Energy:
    y = unknowns(4)
    line, wave = y[0] + t[i] * y[1] - sp.exp(t[i]), y[2] + y[3] * sp.sin(t[i]) - sp.cos(t[i])
    return Energy(sp.Sum((line**2 + wave**2) ** 2, i), variables=[y], data=[t], name="brown_dennis")


def osborne_1() -> Energy:
    y = unknowns(5)
    model = y[0] + y[1] * sp.exp(-t[i] * y[3]) + y[2] * sp.exp(-t[i] * y[4])
    return Energy(sp.Sum((z[i] - model) ** 2, i), variables=[y], data=[t, z], name="osborne_1")


def biggs_exp6() -> Energy:
    y = unknowns(6)
    model = y[2] * sp.exp(-t[i] * y[0]) - y[3] * sp.exp(-t[i] * y[1]) + y[5] * sp.exp(-t[i] * y[4])
    return Energy(sp.Sum((model - z[i]) ** 2, i), variables=[y], data=[t, z], name="biggs_exp6")


def osborne_2() -> Energy:
    """A decay and three bumps; the bumps are summed by an index of their own."""
    y = unknowns(11)
    bump = sp.Idx("bump", 3)
    bumps = sp.Sum(y[bump + 1] * sp.exp(-((t[i] - y[bump + 8]) ** 2) * y[bump + 5]), bump)
    model = y[0] * sp.exp(-t[i] * y[4]) + bumps
    return Energy(sp.Sum((z[i] - model) ** 2, i), variables=[y], data=[t, z], name="osborne_2")


# ---------------------------------------------------------------------------------------------- any n


def watson() -> Energy:
    """A differential equation at 29 points of a polynomial, whose powers are counted by the index."""
    y, point, power = many, sp.Idx("i", 29), sp.Idx("j", (1, n - 1))
    at = (point + sp.Integer(1)) / 29
    slope = sp.Sum(power * y[power] * at ** (power - 1), power)
    value = sp.Sum(y[j] * at**j, j)
    equations = sp.Sum((slope - value**2 - 1) ** 2, point)
    return Energy(equations + squares(y[0], y[1] - y[0] ** 2 - 1), variables=[y], name="watson")


def extended_rosenbrock() -> Energy:
    """Pairs of unknowns are the rows of y."""
    y = sp.IndexedBase("y", shape=(k, 2))
    each = squares(10 * (y[row, 1] - y[row, 0] ** 2), 1 - y[row, 0])
    return Energy(sp.Sum(each, row), variables=[y], name="extended_rosenbrock")


def extended_powell_singular() -> Energy:
    """Fours of unknowns are the rows of y."""
    y = sp.IndexedBase("y", shape=(k, 4))
    linear = squares(y[row, 0] + 10 * y[row, 1], sp.sqrt(5) * (y[row, 2] - y[row, 3]))
    quartic = squares((y[row, 1] - 2 * y[row, 2]) ** 2, sp.sqrt(10) * (y[row, 0] - y[row, 3]) ** 2)
    return Energy(sp.Sum(linear + quartic, row), variables=[y], name="extended_powell_singular")


def penalty_1() -> Energy:
    y = many
    sphere = sp.Sum(y[j] ** 2, j) - sp.Rational(1, 4)
    return Energy(1e-5 * sp.Sum((y[j] - 1) ** 2, j) + sphere**2, variables=[y], name="penalty_1")


def penalty_2() -> Energy:
    """The paper counts from 1: its x_i and exp(i/10) are y[i - 1] and exp((i + 1)/10) here."""
    y, after = many, sp.Idx("after", (1, n - 1))
    pairs = sp.exp(y[after] / 10) + sp.exp(y[after - 1] / 10) - sp.exp((after + 1) / 10) - sp.exp(after / 10)
    single = sp.exp(y[after] / 10) - sp.exp(-sp.Rational(1, 10))
    sphere = sp.Sum((n - j) * y[j] ** 2, j) - 1
    weak = 1e-5 * sp.Sum(pairs**2 + single**2, after)
    return Energy((y[0] - 0.2) ** 2 + weak + sphere**2, variables=[y], name="penalty_2")


def variably_dimensioned() -> Energy:
    y = many
    moment = sp.Sum((j + 1) * (y[j] - 1), j)
    return Energy(sp.Sum((y[j] - 1) ** 2, j) + moment**2 + moment**4, variables=[y], name="variably_dimensioned")


def trigonometric() -> Energy:
    y, other = many, sp.Idx("other", n)
    each = n - sp.Sum(sp.cos(y[other]), other) + (j + 1) * (1 - sp.cos(y[j])) - sp.sin(y[j])
    return Energy(sp.Sum(each**2, j), variables=[y], name="trigonometric")


def brown_almost_linear() -> Energy:
    """All but the last residual are linear; the last has the product of all unknowns."""
    y, first, other = many, sp.Idx("first", (0, n - 2)), sp.Idx("other", n)
    linear = y[first] + sp.Sum(y[other], other) - (n + 1)
    return Energy(sp.Sum(linear**2, first) + (sp.Product(y[j], j) - 1) ** 2, variables=[y], name="brown_almost_linear")


def discrete_boundary_value() -> Energy:
    """u'' = (u + t + 1)^3 / 2 on a grid, 0 at both ends."""
    y, inner, h = many, sp.Idx("inner", (1, n - 2)), 1 / (n + 1)

    def local(place: Any) -> Any:
        return 2 * y[place] + h**2 * (y[place] + (place + 1) * h + 1) ** 3 / 2

    first, last = local(sp.Integer(0)) - y[1], local(n - 1) - y[n - 2]
    between = local(inner) - y[inner - 1] - y[inner + 1]
    return Energy(first**2 + sp.Sum(between**2, inner) + last**2, variables=[y], name="discrete_boundary_value")


def discrete_integral_equation() -> Energy:
    """The same as an integral equation: sums up to an unknown, and from the next one on."""
    y, h = many, 1 / (n + 1)
    up_to, beyond = sp.Idx("up_to", (0, j)), sp.Idx("beyond", (j + 1, n - 1))

    def at(place: Any) -> Any:
        return (place + 1) * h

    def cube(place: Any) -> Any:
        return (y[place] + at(place) + 1) ** 3

    left = (1 - at(j)) * sp.Sum(at(up_to) * cube(up_to), up_to)
    right = at(j) * sp.Sum((1 - at(beyond)) * cube(beyond), beyond)
    return Energy(sp.Sum((y[j] + h * (left + right) / 2) ** 2, j), variables=[y], name="discrete_integral_equation")


def broyden_tridiagonal() -> Energy:
    y, inner = many, sp.Idx("inner", (1, n - 2))

    def local(place: Any) -> Any:
        return (3 - 2 * y[place]) * y[place] + 1

    first, last = local(0) - 2 * y[1], local(n - 1) - y[n - 2]
    between = local(inner) - y[inner - 1] - 2 * y[inner + 1]
    return Energy(first**2 + sp.Sum(between**2, inner) + last**2, variables=[y], name="broyden_tridiagonal")


def broyden_banded() -> Energy:
    """Each residual reads up to five unknowns before its own and one after it; from six unknowns on."""
    y, early, inner = many, sp.Idx("early", (0, 4)), sp.Idx("inner", (5, n - 2))
    before, five, end = sp.Idx("before", (0, early - 1)), sp.Idx("five", (1, 5)), sp.Idx("end", (2, 6))

    def local(place: Any) -> Any:
        return y[place] * (2 + 5 * y[place] ** 2) + 1

    def neighbour(place: Any) -> Any:
        return y[place] * (1 + y[place])

    growing = local(early) - sp.Sum(neighbour(before), before) - neighbour(early + 1)
    whole = local(inner) - sp.Sum(neighbour(inner - five), five) - neighbour(inner + 1)
    last = local(n - 1) - sp.Sum(neighbour(n - end), end)
    return Energy(sp.Sum(growing**2, early) + sp.Sum(whole**2, inner) + last**2, variables=[y], name="broyden_banded")


def linear_full_rank() -> Energy:
    """The rows beyond the unknowns end with the data, which are ones, as many as the paper's m."""
    y, other, rest = many, sp.Idx("other", n), sp.Idx("rest", (n, m - 1))
    mean = 2 * sp.Sum(y[other], other) / m
    return Energy(
        sp.Sum((y[j] - mean - 1) ** 2, j) + sp.Sum((mean + z[rest]) ** 2, rest),
        variables=[y],
        data=[z],
        name="linear_full_rank",
    )


def linear_rank_1() -> Energy:
    y = many
    moment = sp.Sum((j + 1) * y[j], j)
    return Energy(sp.Sum(((i + 1) * moment - z[i]) ** 2, i), variables=[y], data=[z], name="linear_rank_1")


def linear_rank_1_with_zeros() -> Energy:
    """The first and the last unknown occur nowhere but in a factor 0, as in the paper's matrix."""
    y, column, line = many, sp.Idx("column", (1, n - 2)), sp.Idx("line", (1, m - 2))
    moment = sp.Sum((column + 1) * y[column], column)
    return Energy(
        sp.Sum((line * moment - z[line]) ** 2, line) + z[0] ** 2 + z[m - 1] ** 2,
        variables=[y],
        data=[z],
        name="linear_rank_1_with_zeros",
    )


def chebyquad() -> Energy:
    """Chebyshev quadrature of eight polynomials, written out by SymPy; n may be any number."""
    y = many
    total = 0
    for degree in range(1, 9):
        mean = sp.Sum(sp.chebyshevt(degree, 2 * y[j] - 1), j) / n
        integral = sp.Rational(-1, degree**2 - 1) if degree % 2 == 0 else 0
        total += (mean - integral) ** 2
    return Energy(total, variables=[y], name="chebyquad")
