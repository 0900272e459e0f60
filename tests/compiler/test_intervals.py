"""Which values a formula can take, and which infinite derivatives are warned of."""

import math
import warnings

import pytest
import sympy as sp
import wiberg as wb
from wiberg.compiler.passes.intervals import ALL, NOT_NEGATIVE, POSITIVE, Interval, Intervals

n = sp.Symbol("n", integer=True, positive=True)
i, d = sp.Idx("i", n), sp.Idx("d", 2)
t, u = sp.symbols("t u", real=True)
s = sp.Symbol("s", positive=True)
b = sp.Symbol("b", real=True)
x, e = sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("e", shape=(n,))
y = sp.IndexedBase("y", shape=(2,))


def energy(expression, **lists):
    formulas = [expression, *lists.get("where", {}).values()]
    used = {name for name in (t, u) if any(name in f.free_symbols for f in formulas)} or {t}
    weights = [w for w in (s, b) if w in expression.free_symbols]
    data = [a for a in (x,) if a.label in expression.free_symbols]
    variables = [*used, *([y] if y.label in expression.free_symbols else [])]
    return wb.Energy(expression + t**6, variables=sorted({*variables, t}, key=str), weights=weights, data=data, **lists)


@pytest.mark.parametrize(("expression", "interval"), [
    (1 + t**2, Interval(1.0, math.inf)), (t**2, NOT_NEGATIVE), (t - u, ALL), (s, POSITIVE),
    (s + t**2, POSITIVE), (sp.exp(t), POSITIVE), (1 / (1 + sp.exp(-t)), Interval(0.0, 1.0, True, True)),
    (sp.tanh(t) / 2, Interval(-0.5, 0.5, True, True)), (sp.Abs(t) - 1, Interval(-1.0, math.inf)),
    (sp.cos(t) * sp.sin(u), Interval(-1.0, 1.0)), (sp.Max(t, 3), Interval(3.0, math.inf)),
    (1 / s, Interval(0.0, math.inf, True, True)),
    (sp.Sum(x[i] ** 2, i), NOT_NEGATIVE), (sp.Sum(sp.exp(x[i] * t), i), POSITIVE), (-t**2, NOT_NEGATIVE.negative()),
    (t**3, ALL), (sp.sqrt(1 + t**2), Interval(1.0, math.inf)), (s * t**2, NOT_NEGATIVE), (s**b, POSITIVE),
    (wb.minimum(x[i] ** 2, i), NOT_NEGATIVE), (wb.maximum(1 + x[i] ** 2, i), Interval(1.0, math.inf)),
    (wb.minimum(t * x[i], i), ALL), (1 / (1 + t**2), Interval(0.0, 1.0, True)),
    (sp.Piecewise((t**2, t > 1), (-1, True)), Interval(-1.0, math.inf)),
], ids=str)  # fmt: skip
def test_the_interval_of_a_formula(expression, interval):
    assert Intervals(energy(expression)).of(expression) == interval


@pytest.mark.parametrize(("expression", "named"), [
    (sp.sqrt(t), r"sqrt\(t\) is unbounded where t is 0"),
    (sp.sqrt(sp.Sum(y[d] ** 2, d)), r"sqrt\(t\)|pseudo_huber"),
    (t ** sp.Rational(1, 3), r"t\*\*\(1/3\)"),
    (sp.Abs(t) ** s, r"Abs\(t\)\*\*s"),
    (sp.acos(t), r"acos\(t\) is unbounded where t is -1 or 1; use atan2"),
    (sp.asin(sp.sin(t) * sp.cos(u)), r"asin"),
    (sp.acosh(1 + t**2), r"acosh.*is 1;"),
    (sp.Sum(sp.sqrt((x[i] - t) ** 2 + u**2), i), r"sqrt.*eps\*\*2"),
    (sp.sqrt(b) * t**2, r"sqrt\(b\)"),
], ids=str)  # fmt: skip
def test_a_derivative_that_can_be_infinite_is_named_with_what_to_use_instead(expression, named):
    with pytest.warns(wb.UnboundedDerivativeWarning, match=rf"^energy 'energy': .*{named}"):
        wb.compile(energy(expression), backend="reference")


@pytest.mark.parametrize("expression", [
    sp.sqrt(1 + t**2), sp.sqrt(s + t**2), sp.sqrt(s**2 + (t - u) ** 2), sp.sqrt(sp.exp(t)), t * sp.sqrt(2),
    sp.Sum(sp.sqrt(x[i]) * t, i), sp.sqrt(s) * t, sp.acos(sp.tanh(t)), sp.asin(sp.sin(t) / 2),
    (t**2) ** sp.Rational(3, 2),
    sp.sqrt(t**2), sp.Abs(t) ** (1 + s), t**3 / s, (1 + t**2) ** b, sp.log(t), 1 / sp.sqrt(1 + t**2), t**-1,
    sp.Piecewise((sp.sqrt(t), t > 1), (t, True)), sp.sqrt(sp.Sum(sp.exp(x[i] * t), i)), sp.acosh(2 + t**2),
    wb.pseudo_huber(t**2, s), sp.sqrt(sp.cosh(t)), sp.sqrt(sp.Max(t, 1)), sp.Abs(t) ** sp.Rational(5, 2),
], ids=str)  # fmt: skip
def test_what_has_bounded_derivatives_is_silent(expression):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wb.compile(energy(expression), backend="reference")


def test_an_intermediate_is_looked_into():
    length = sp.Symbol("length", real=True)
    with pytest.warns(wb.UnboundedDerivativeWarning, match="length"):
        wb.compile(energy(sp.sqrt(length), where={length: t**2 + u**2}), backend="reference")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wb.compile(energy(sp.sqrt(length), where={length: t**2 + 1}), backend="reference")


def test_the_warning_points_at_the_line_that_compiles():
    with pytest.warns(wb.UnboundedDerivativeWarning) as record:
        wb.compile(energy(sp.sqrt(t)), backend="reference")
    assert record[0].filename == __file__


def test_the_warning_can_be_silenced():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", wb.UnboundedDerivativeWarning)
        wb.compile(energy(sp.sqrt(t)), backend="reference")


def test_an_extreme_entry_of_numbers_has_the_interval_of_its_entries():
    """Found by fuzzing (seed 51870): maximum(1/3, i) is a number to SymPy, and is not converted to one."""
    i = sp.Idx("i", sp.Symbol("n", integer=True, positive=True))
    x, t = sp.IndexedBase("x", shape=(i.upper + 1,)), sp.Symbol("t", real=True)
    energy = wb.Energy(
        sp.exp(-((t**2 + wb.maximum(sp.Rational(1, 3), i)) ** 2)) + sp.Sum(x[i] * t, i), variables=[t], data=[x]
    )
    assert wb.check_derivatives(energy, trials=2, backend="reference").ok
