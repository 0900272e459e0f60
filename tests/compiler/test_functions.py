"""Every function of SymPy that an energy may use, against mpmath, through the whole compiler."""

import warnings

import pytest
import sympy as sp
import wiberg as wb
from sympy.codegen.cfunctions import expm1, log1p
from wiberg.compiler.passes.lower import FUNCTIONS, RULES
from wiberg.compiler.testing import check_derivatives
from wiberg.energies.user_function import UserCall

t = sp.Symbol("t", real=True)
a, b = sp.Symbol("a", positive=True), sp.Symbol("b", real=True)
inside, above = sp.tanh(t * b) / 2, 1 + a + t**2
anywhere, positive = a * t + b, a + t**2

ARGUMENTS = {
    anywhere: [
        sp.exp, sp.sin, sp.cos, sp.tan, sp.atan, sp.sinh, sp.cosh, sp.tanh, sp.sech, sp.asinh, sp.erf, sp.erfc, sp.sinc,
        sp.cot, sp.sec, sp.csc, expm1, sp.Abs, sp.sign, sp.floor, sp.ceiling, sp.frac, sp.Heaviside,
        wb.softplus, wb.logistic,
    ],
    positive: [
        sp.log, sp.acot, sp.csch, sp.coth, sp.loggamma, sp.gamma, sp.digamma, sp.trigamma, sp.factorial, log1p,
        sp.acsch, sp.sqrt,
    ],
    inside: [sp.asin, sp.acos, sp.atanh],
    above: [sp.acosh, sp.asec, sp.acsc, sp.acoth],
    1 / above: [sp.asech],
}  # fmt: skip
TWO = [
    sp.atan2(anywhere, b), sp.beta(positive, above), sp.Mod(anywhere, positive), sp.Max(anywhere, t**2),
    sp.Min(anywhere, t**2), sp.polygamma(3, positive), positive**b, sp.Piecewise((t**2, anywhere > 0), (b * t, True)),
]  # fmt: skip
FORMULAS = [function(x) for x, functions in ARGUMENTS.items() for function in functions] + TWO


def test_every_supported_function_is_tested():
    used = {type(node) for formula in FORMULAS for node in sp.preorder_traversal(formula)}
    elsewhere = {UserCall, sp.KroneckerDelta, wb.held}  # test_user_functions.py, test_matrices.py, test_held.py
    assert set(FUNCTIONS) | set(RULES) <= used | elsewhere


@pytest.mark.parametrize("formula", FORMULAS, ids=str)
def test_all_derivatives_of_a_function_agree_with_mpmath(formula):
    symbols = [s for s in (a, b) if s in formula.free_symbols]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", wb.UnboundedDerivativeWarning)
        energy = wb.Energy(formula * (1 + t**2), variables=[t], weights=symbols)
        report = check_derivatives(energy, trials=2, backend="reference")
    assert report.ok, report


def test_a_polygamma_of_an_order_that_is_no_number_is_refused():
    order = sp.Symbol("order", integer=True, positive=True)
    with pytest.raises(wb.UnsupportedError, match=r"'odd'.*order.*must be a number"):
        wb.compile(
            wb.Energy(sp.polygamma(order, t) + t**2, variables=[t], data=[order], name="odd"), backend="reference"
        ).value({"t": 1.0}, None, {"order": 1})


def test_special_functions_reach_machine_code():
    formula = sum(f(positive) for f in (sp.loggamma, sp.digamma, sp.gamma, sp.sinc, sp.erfc, sp.csch, sp.acot))
    energy = wb.Energy(formula, variables=[t], weights=[a])
    numba, interpreted = wb.compile(energy), wb.compile(energy, backend="reference")
    point = {"t": [0.3, -1.7, 5.0]}, {"a": 0.7}
    for got, expected in zip(
        numba.value_gradient_hessian(*point), interpreted.value_gradient_hessian(*point), strict=True
    ):
        assert got == pytest.approx(expected, rel=1e-13)
