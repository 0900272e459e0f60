"""Every penalty against what its docstring promises."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import sympy as sp
from wiberg.energies.errors import DeclarationError, InputTypeError
from wiberg.energies.robust import cauchy, geman_mcclure, pseudo_huber, student_t, welsch

r, s = sp.Symbol("r", real=True), sp.Symbol("s", positive=True)
q = sp.Symbol("q", positive=True)  # |r|

PENALTIES: dict[str, Any] = {
    "pseudo_huber": pseudo_huber,
    "geman_mcclure": geman_mcclure,
    "welsch": welsch,
    "cauchy": cauchy,
    "student_t": partial(student_t, nu=3),
}
VALUES = {  # at r = 3, s = 2, by hand
    "pseudo_huber": 4 * (sp.sqrt(sp.Rational(13, 4)) - 1),
    "geman_mcclure": sp.Rational(18, 13),
    "welsch": 2 * (1 - sp.exp(-sp.Rational(9, 4))),
    "cauchy": 2 * sp.log(sp.Rational(13, 4)),
    "student_t": 6 * sp.log(sp.Rational(7, 4)),
}
FAR = {  # the limit of rho divided by this is 1 for large |r|
    "pseudo_huber": s * q,
    "geman_mcclure": s**2 / 2,
    "welsch": s**2 / 2,
    "cauchy": s**2 * sp.log(q),
    "student_t": 3 * s**2 * sp.log(q),
}
each = pytest.mark.parametrize("name", PENALTIES)


@each
def test_value_in_closed_form(name: str) -> None:
    assert sp.simplify(PENALTIES[name](sp.Integer(9), 2) - VALUES[name]) == 0


@each
def test_near_zero_it_is_half_the_squared_residual(name: str) -> None:
    rho = PENALTIES[name](r**2, s)
    assert rho.subs(r, 0) == 0
    assert sp.diff(rho, r).subs(r, 0) == 0
    assert sp.simplify(sp.diff(rho, r, 2).subs(r, 0)) == 1
    assert sp.simplify(sp.diff(PENALTIES[name](q, s), q).subs(q, 0)) == sp.Rational(1, 2)


@each
def test_far_away_it_grows_as_stated(name: str) -> None:
    assert sp.limit(PENALTIES[name](q**2, 2) / FAR[name].subs(s, 2), q, sp.oo) == 1


@each
def test_it_never_decreases(name: str) -> None:
    slope = sp.lambdify(q, sp.diff(PENALTIES[name](q, 2), q))
    assert all(0 <= slope(10.0**exponent) <= 0.5 for exponent in range(-12, 13))


@each
@pytest.mark.parametrize("residual", [0.0, 1e-300, 1e-8, 1e8, 1e150, 1e300])
def test_it_is_finite_for_all_residuals(name: str, residual: float) -> None:
    value = sp.lambdify(q, PENALTIES[name](q, sp.Float(0.5)))(residual)
    assert 0 <= value < 1e300


@each
def test_the_scale_is_in_units_of_the_residual(name: str) -> None:
    rho = PENALTIES[name](r**2, s)
    assert sp.simplify(rho.subs({r: 10 * r, s: 10 * s}, simultaneous=True) - 100 * rho) == 0


def test_student_t_tends_to_least_squares_and_starts_at_cauchy() -> None:
    assert student_t(r**2, s, 1) == cauchy(r**2, s)
    assert sp.limit(student_t(sp.Integer(9), 2, q), q, sp.oo) == sp.Rational(9, 2)


def test_student_t_is_the_log_density_up_to_a_factor_and_a_constant() -> None:
    nu = sp.Symbol("nu", positive=True)
    density = (1 + (r / s) ** 2 / nu) ** (-(nu + 1) / 2)
    scaled = -sp.log(density) * nu * s**2 / (nu + 1)
    point = {r: 1.3, s: 0.7, nu: 2.5}
    assert abs((scaled - student_t(r**2, s, nu)).evalf(subs=point)) < 1e-12


@each
@pytest.mark.parametrize("scale", [0, -1, -2.5, sp.nan, sp.oo, sp.Symbol("g", negative=True)])
def test_a_scale_that_is_not_above_zero_is_refused(name: str, scale: Any) -> None:
    with pytest.raises(DeclarationError, match=r"(scale|delta) must be finite and above 0"):
        PENALTIES[name](r**2, scale)


@each
def test_text_is_refused(name: str) -> None:
    with pytest.raises(InputTypeError, match="'x' of type str"):
        PENALTIES[name]("x", s)
