"""Safe forms: all derivatives where exponentials overflow or differences cancel, and the rules one by one."""

import random
from functools import cache
from itertools import product

import mpmath
import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from energies_table import TABLE, draw, generated
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.compiler.derive import value
from wiberg.compiler.passes.lower import lower
from wiberg.compiler.passes.stabilise import stabilise
from wiberg.compiler.program.program import check
from wiberg.compiler.program.reference import interpret
from wiberg.compiler.testing import dense, random_energy

n, m = sp.symbols("n m", integer=True, positive=True)
i, j, k = sp.Idx("i", n), sp.Idx("j", m), sp.Idx("k", n)
t, u = sp.symbols("t u", real=True)
a = sp.Symbol("a", positive=True)
y, w, x = (sp.IndexedBase(s, shape=(n,)) for s in "ywx")
A = sp.IndexedBase("A", shape=(n, m))

lse = sp.log(sp.Sum(w[i] * sp.exp(y[i] + x[i]), i))
HUGE = {"y": [1e300, -1e300], "w": [1.0, 2.0], "x": [0.0, 1.0]}
TIED = {"y": [1e300, 1e300], "w": [1.0, 2.0], "x": [0.0, 0.0]}
LOW = {"y": [-1000.0, -2e5], "w": [1.0, 2.0], "x": [0.5, 1.0]}
MILD = {"y": [0.3, -0.2], "w": [1.0, 2.0], "x": [0.5, -1.0]}
ARRAYS = {"y": "variables", "w": "weights", "x": "data"}


def sums(y, w, x):
    return mpmath.log(sum(b * mpmath.exp(c + d) for b, c, d in zip(w, y, x, strict=True)))


# name: (formula, the same for numbers of mpmath, points)
CASES = {
    "log-sum-exp with weights": (lse, sums, [HUGE, TIED, LOW, MILD]),
    "one plus a sum of exponentials": (
        sp.log(1 + sp.Sum(w[i] * sp.exp(y[i] + x[i]), i)),
        lambda y, w, x: mpmath.log(1 + sum(b * mpmath.exp(c + d) for b, c, d in zip(w, y, x, strict=True))),
        [HUGE, TIED, LOW, MILD],
    ),
    "softmax": (
        sp.Sum(w[i] * sp.exp(y[i] + x[i]), i) / sp.Sum(sp.exp(y[k] + x[k]), k),
        lambda y, w, x: sum(b * mpmath.exp(c + d) for b, c, d in zip(w, y, x, strict=True))
        / sum(mpmath.exp(c + d) for c, d in zip(y, x, strict=True)),
        [HUGE, TIED, LOW, MILD],
    ),
    "softmax inside a sum": (
        sp.Sum(w[i] * x[i] * sp.exp(y[i]) / sp.Sum(sp.exp(y[k]), k), i),
        lambda y, w, x: sum(b * d * mpmath.exp(c) for b, c, d in zip(w, y, x, strict=True))
        / sum(mpmath.exp(c) for c in y),
        [LOW, MILD],
    ),
    "cross entropy": (
        -sp.Sum(w[i] * sp.log(sp.exp(y[i] * x[i]) / sp.Sum(sp.exp(y[k] * x[k]), k)), i),
        lambda y, w, x: -sum(
            b * (c * d - mpmath.log(sum(mpmath.exp(e * f) for e, f in zip(y, x, strict=True))))
            for b, c, d in zip(w, y, x, strict=True)
        ),
        [LOW, MILD],
    ),
    "logistic regression": (
        sp.Sum(w[i] * sp.log(1 + sp.exp(-y[i] * x[i])), i),
        lambda y, w, x: sum(b * mpmath.log1p(mpmath.exp(-c * d)) for b, c, d in zip(w, y, x, strict=True)),
        [HUGE, LOW, MILD],
    ),
    "logarithms of probabilities": (
        sp.Sum(
            w[i] * sp.log(1 - 1 / (1 + sp.exp(-y[i]))) + sp.log(1 / (1 + sp.exp(-y[i] * x[i]))), i
        ),
        lambda y, w, x: sum(
            -b * mpmath.log1p(mpmath.exp(c)) - mpmath.log1p(mpmath.exp(-c * d)) for b, c, d in zip(w, y, x, strict=True)
        ),
        [HUGE, LOW, MILD],
    ),
    "the largest of two, softly": (
        sp.Sum(sp.log(sp.exp(y[i]) + sp.exp(x[i])) + w[i] / (sp.exp(y[i] - x[i]) + 1), i),
        lambda y, w, x: sum(
            mpmath.log(mpmath.exp(c) + mpmath.exp(d)) + b / (mpmath.exp(c - d) + 1)
            for b, c, d in zip(w, y, x, strict=True)
        ),
        [LOW, MILD],
    ),
    "hyperbolic tangent, spelt out": (
        sp.Sum(w[i] * (sp.exp(y[i]) - sp.exp(-y[i])) / (sp.exp(y[i]) + sp.exp(-y[i])) + x[i] * w[i], i),
        lambda y, w, x: sum(b * mpmath.tanh(c) + b * d for b, c, d in zip(w, y, x, strict=True)),
        [HUGE, LOW, MILD],
    ),
    "log-sum-exp of a log-sum-exp": (
        sp.log(sp.Sum(sp.exp(w[i] + y[i]) * sp.Sum(sp.exp(y[i] + x[k]), k), i)),
        lambda y, w, x: mpmath.log(
            sum(mpmath.exp(b + c) * sum(mpmath.exp(c + d) for d in x) for b, c in zip(w, y, strict=True))
        ),
        [LOW, MILD],
    ),
    "differences of exponentials": (
        sp.Sum(sp.log(sp.exp(y[i]) - 1) + w[i] * sp.log(1 - sp.exp(-y[i] * x[i])), i),
        lambda y, w, x: sum(
            c + mpmath.log(-mpmath.expm1(-c)) + b * mpmath.log(-mpmath.expm1(-c * d))
            for b, c, d in zip(w, y, x, strict=True)
        ),
        [{**MILD, "y": [1e-3, 900.0], "x": [1.0, 2.0]}, {**MILD, "y": [0.4, 40.0], "x": [1.0, 2.0]}],
    ),
    "small differences": (
        sp.Sum(
            w[i] * (1 - sp.exp(y[i])) + sp.log(1 + y[i] * x[i]) + x[i] * (sp.sqrt(1 + y[i]) - 1) + 1
            - sp.cos(w[i] * y[i]), i
        ),
        lambda y, w, x: sum(
            -b * mpmath.expm1(c) + mpmath.log1p(c * d) + d * (mpmath.sqrt(1 + c) - 1) + 2 * mpmath.sin(b * c / 2) ** 2
            for b, c, d in zip(w, y, x, strict=True)
        ),
        [{**MILD, "y": [1e-12, -1e-10]}, MILD],
    ),
}  # fmt: skip
COMPILED = ["one plus a sum of exponentials", "softmax"]


@cache
def exact(name, which):
    """Value, gradient, and derivatives of the gradient in y, w and x, by differences in many digits."""
    _, function, points = CASES[name]
    point = points[which]
    flat = [mpmath.mpf(v) for name in ARRAYS for v in point[name]]
    size = len(point["y"])
    huge = max(map(abs, flat)) > 1e10

    def of(*numbers):
        return function(numbers[:size], numbers[size : 2 * size], numbers[2 * size :])

    with mpmath.workdps(370 if huge else 90):
        step = mpmath.mpf(10) ** -25
        moved = {}

        def at(*where):
            numbers = list(flat)
            for index, sign in where:
                numbers[index] += sign * step
            key = tuple(numbers)
            if key not in moved:
                moved[key] = of(*numbers)
            return moved[key]

        first = [float((at((p, 1)) - at((p, -1))) / (2 * step)) for p in range(size)]
        second = np.zeros((size, 3 * size))
        for p, q in product(range(size), range(3 * size)):
            if p <= q:
                corners = [((p, s), (q, r)) for s, r in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
                difference = at(*corners[0]) - at(*corners[1]) - at(*corners[2]) + at(*corners[3])
                second[p, q] = float(difference / (4 * step**2))
                if q < size:
                    second[q, p] = second[p, q]
        return float(of(*flat)), np.array(first), second


def close(got, expected, what):
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12, err_msg=what)


def compare(kernel, name, which):
    """Every derivative against differences of the formula in many digits."""
    point = CASES[name][2][which]
    size = len(point["y"])
    energy, first, second = exact(name, which)
    args = {"y": point["y"]}, {"w": point["w"]}, {"x": point["x"]}
    v = np.array([0.7, -0.4])
    assert kernel.value(*args) == pytest.approx(energy, rel=1e-14)
    close(dense(kernel.cross(*args)), second[:size, size : 2 * size], "cross")
    close(kernel.hvp(v, *args), second[:size, :size] @ v, "hvp")
    close(kernel.cross_adjoint(v, *args)["w"], v @ second[:size, size : 2 * size], "cross_adjoint")
    close(kernel.data_adjoint(v, *args)["x"], v @ second[:size, 2 * size :], "data_adjoint")
    together = kernel.value_gradient_hessian(*args)
    assert together[0] == pytest.approx(energy, rel=1e-14)
    close(together[1], first, "gradient")
    close(dense(together[2]), second[:size, :size], "hessian")


@pytest.mark.filterwarnings("ignore::wiberg.UnboundedDerivativeWarning")
@pytest.mark.parametrize(("name", "which"), [(c, p) for c in CASES for p in range(len(CASES[c][2]))])
def test_values_and_all_derivatives_are_right_where_exponentials_overflow(name, which):
    energy = wb.Energy(CASES[name][0], variables=[y], weights=[w], data=[x], name=name)
    compare(wb.compile(energy, backend="reference"), name, which)


def test_a_term_of_weight_zero_does_not_hide_the_others():
    kernel = wb.compile(wb.Energy(lse, variables=[y], weights=[w], data=[x]), backend="reference")
    args = {"y": [2000.0, 1.0, 0.5]}, {"w": [0.0, 2.0, 0.5]}, {"x": [0.0, 0.0, 0.0]}
    assert kernel.value(*args) == pytest.approx(np.log(2 * np.e + 0.5 * np.exp(0.5)), rel=1e-15)
    softmax = np.array([0.0, 2 * np.e, 0.5 * np.exp(0.5)]) / (2 * np.e + 0.5 * np.exp(0.5))
    np.testing.assert_allclose(kernel.gradient(*args), softmax, rtol=1e-15)
    np.testing.assert_allclose(dense(kernel.hessian(*args)), np.diag(softmax) - np.outer(softmax, softmax), atol=1e-16)


@pytest.mark.parametrize("name", COMPILED)
def test_machine_code_is_right_where_exponentials_overflow(name):
    formula, _, points = CASES[name]
    kernel = wb.compile(wb.Energy(formula, variables=[y], weights=[w], data=[x], name=name))
    for which in range(len(points)):
        compare(kernel, name, which)


# ---------------------------------------------------------------------------------------------- the pass as a pass


def outputs(energy, program, point, sizes):
    inputs, extents = generated(energy, program, point, sizes)
    values = interpret(program, inputs, extents)
    return {a.name: values[a.name] for a in program.arrays.values() if a.role == "output"}


def keeps_values_and_is_idempotent(energy):
    before = check(lower(energy))
    after = check(stabilise(before))
    point = draw(energy, 3)
    expected, got = outputs(energy, before, point, 3)["value"], outputs(energy, after, point, 3)["value"]
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)
    assert str(stabilise(after)) == str(after)


@pytest.mark.parametrize("name", TABLE)
def test_stabilise_keeps_soundness_and_values_on_the_table_and_changes_nothing_twice(name, energies):
    keeps_values_and_is_idempotent(energies[name])


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_stabilise_keeps_soundness_and_values_on_random_energies(seed):
    keeps_values_and_is_idempotent(random_energy(random.Random(seed)))


@pytest.mark.parametrize("name", CASES)
def test_stabilise_changes_nothing_the_second_time(name):
    program = stabilise(lower(wb.Energy(CASES[name][0], variables=[y], weights=[w], data=[x])))
    assert str(stabilise(program)) == str(program)


def test_a_sum_of_no_exponentials_has_the_logarithm_minus_infinity():
    late = sp.Idx("late", (1, n - 1))
    kernel = wb.compile(wb.Energy(sp.log(sp.Sum(sp.exp(y[late]), late)), variables=[y]), backend="reference")
    assert kernel.value({"y": [3.0]}) == -np.inf
    np.testing.assert_array_equal(kernel.gradient({"y": [3.0]}), [0.0])


def test_exponents_of_infinite_size_keep_their_meaning():
    kernel = wb.compile(wb.Energy(lse, variables=[y], weights=[w], data=[x]), backend="reference")
    fixed = {"w": [1.0, 1.0]}, {"x": [1e308, 0.0]}
    assert kernel.value({"y": [1e308, 0.0]}, *fixed) == np.inf
    assert kernel.value({"y": [-1.79e308, -1e308]}, {"w": [1.0, 1.0]}, {"x": [-1.79e308, 0.0]}) == -1e308


# ---------------------------------------------------------------------------------------------- one rule at a time


def form(expression, **lists):
    """What the value of an energy is computed as."""
    variables = [s for s in (t, u) if s in expression.free_symbols] or [t]
    weights = [a] if a in expression.free_symbols else []
    data = [s for s in (x, A) if s.label in expression.free_symbols] or [x]
    program = value(wb.Energy(expression, variables=variables, weights=weights, data=data, **lists))
    return "; ".join(str(s).partition("      #")[0].partition("      for")[0] for s in program.statements)


@pytest.mark.parametrize(("expression", "expected"), [
    (sp.exp(t) - 1, "value[] = expm1(y0)"),
    (2 - 2 * sp.exp(t), "value[] = (-2)*expm1(y0)"),
    (a - a * sp.exp(t), "value[] = -w0*expm1(y0)"),
    (sp.exp(t) - 1 + u, "value[] = (y1 + expm1(y0))"),
    (sp.exp(t) - 2, "value[] = (exp(y0) - 2)"),
    (sp.log(1 + t), "value[] = log1p(y0)"),
    (sp.log(1 - t / 3), "value[] = log1p((-1/3)*y0)"),
    (sp.log(2 + t), "value[] = log((y0 + 2))"),
    (sp.sqrt(1 + t) - 1, "value[] = sqrt1pm1(y0)"),
    (wb.pseudo_huber(t**2, a), "value[] = w0**2*sqrt1pm1(y0**2*w0**(-2))"),
    (1 - sp.cos(t), "value[] = -cosm1(y0)"),
    (wb.softplus(t), "value[] = softplus(y0)"),
    (wb.logistic(t), "value[] = logistic(y0)"),
    (sp.exp(t) / (1 + sp.exp(t)), "value[] = logistic(y0)"),
    (sp.exp(2 * t) / (1 + sp.exp(t)) ** 3, "value[] = logistic(-y0)*logistic(y0)**2"),
    (1 - wb.logistic(t), "value[] = logistic(-y0)"),
    (sp.log(wb.logistic(t)), "value[] = -softplus(-y0)"),
    (sp.log(1 - wb.logistic(t)), "value[] = -softplus(y0)"),
    (sp.log(a * wb.logistic(t)), "value[] = -(softplus(-y0) - log(w0))"),
    (sp.log(a * sp.exp(-t)), "value[] = -(y0 - log(w0))"),
    (wb.log_sum_exp(x[i] * t, i),
     "t4[] max= x0[i]*y0; t5[] += shifted_exp(x0[i]*y0, fixed(t4)); value[] = (fixed(t4) + log(t5))"),
    (sp.log(1 + sp.Sum(sp.exp(-((x[i] - t) ** 2)), i)), "t0[] += exp(-(x0[i] - y0)**2); value[] = log1p(t0)"),
], ids=str)  # fmt: skip
def test_a_formula_becomes_its_safe_form(expression, expected):
    found = form(expression)
    parts = set(found.replace("logistic(y0)**2*logistic(-y0)", "logistic(-y0)*logistic(y0)**2").split("; "))
    assert parts == set(expected.split("; "))


def test_an_intermediate_is_looked_through():
    z, total_ = sp.IndexedBase("z", shape=(n,)), sp.Symbol("total")
    found = form(sp.log(total_), where={total_: sp.Sum(z[i], i), z[i]: sp.exp(x[i] * t)})
    assert "max=" in found and " exp(" not in found


def test_sums_inside_sums_get_a_shift_each():
    assert form(sp.Sum(wb.log_sum_exp(A[i, j] * t, j), i)).startswith("t5[i] max= x0[i, j]*y0; t6[i] += shifted_exp(")


def test_the_largest_exponent_is_an_instruction_of_its_own_in_kernels():
    source = wb.compile(wb.Energy(wb.log_sum_exp(x[i] * t + u, i), variables=[t, u], data=[x])).source
    assert "= maximum(" in source and "shifted_exp(plus(" in source and "-math.inf" in source


def test_exponents_beyond_1e17_are_rounded_alike_in_all_loops_of_a_kernel():
    """The loop over i hoists z[i]*t, that over j hoists v[j]*u: sums put together in another order differ by 1e284."""
    v = sp.IndexedBase("v", shape=(m,))
    p, q = sp.IndexedBase("p", shape=(m,)), sp.IndexedBase("q", shape=(n,))
    exponent = x[i] * p[j] + q[i] * t + v[j] * u
    formula = sp.Sum(wb.log_sum_exp(exponent, j), i)
    kernel = wb.compile(wb.Energy(formula, variables=[p, t, u], data=[x, q, v]))
    generator = np.random.default_rng(3)
    data = {"x": generator.normal(size=30), "q": generator.normal(size=30), "v": generator.normal(size=17)}
    values = generator.normal(size=17)
    chosen = (np.outer(data["x"], values) + data["v"] * 0.7).argmax(axis=1)
    expected = np.zeros(17)
    np.add.at(expected, chosen, data["x"])
    for size in (1e17, 1e40, 1e300):
        gradient = kernel.gradient({"p": size * values, "t": size, "u": 0.7 * size}, None, data)
        np.testing.assert_allclose(gradient[:17], expected, rtol=1e-13)
        np.testing.assert_allclose(gradient[17:], [data["q"].sum(), data["v"][chosen].sum()], rtol=1e-13)


def test_an_exponential_of_weights_that_data_are_multiplied_by_stays_a_coefficient():
    """Taking it out of 1 + exp(-2 w) d2 would cost every term some exponentials, and nested ones ever more.

    Cause: a heavy-tailed kernel with learnt widths came out as 2 MB of source. Sums of such exponentials alone, or of
    those with the variables in the exponent, are still scaled.
    """
    width, q = sp.IndexedBase("w", shape=(n,)), sp.IndexedBase("q", shape=(n,))
    d2 = (t - x[i]) ** 2
    kernel = 1 / (1 + sp.exp(-2 * width[i]) * d2 + sp.exp(-2 * q[i]) * (u - x[i]) ** 2)
    energy = wb.Energy(-sp.Sum(kernel, i), variables=[t, u], weights=[width, q], data=[x])
    program = stabilise(lower(energy))
    assert not any("shifted_exp" in str(s.expression) for s in program.statements)
    mixture = sp.log(sp.exp(width[0]) * t**2 + sp.exp(q[0] + u))
    scaled = stabilise(lower(wb.Energy(mixture, variables=[t, u], weights=[width, q])))
    assert any("softplus" in str(s.expression) or "shifted_exp" in str(s.expression) for s in scaled.statements)


@pytest.mark.parametrize("sign, extreme", [(1, wb.minimum), (-1, wb.maximum)])
def test_exponents_that_are_shifted_by_hand_stay_as_they_are(sign, extreme):
    """exp(-c (E - min E)) is at most 1, and 1 somewhere; with the extreme of the other side it must be shifted."""
    n, k = sp.symbols("n k", integer=True, positive=True)
    i, other, j = sp.Idx("i", n), sp.Idx("other", n), sp.Idx("j", k)
    x, f, w = sp.IndexedBase("x", shape=(k, n)), sp.IndexedBase("f", shape=(n,)), sp.Symbol("w", real=True)
    E, end, u = (sp.IndexedBase(a, shape=s) for a, s in (("E", (k, n)), ("end", (k,)), ("u", (k, n))))

    def softmax(sign: int) -> wb.Energy:
        where = {
            E[j, i]: x[j, i] ** 2 + x[j, i],
            end[j]: extreme(E[j, i], i),
            u[j, i]: sp.exp(-500 * sign * sp.Abs(w) * (E[j, i] - end[j])),
        }
        mean = sp.Sum(u[j, i] * f[i] / sp.Sum(u[j, other], other), i, j)
        return wb.Energy(mean, variables=[x], weights=[w], data=[f], where=where)

    assert "shifted_exp" not in str(value(softmax(sign)).statements)
    assert "shifted_exp" in str(value(softmax(-sign)).statements)
    random = np.random.default_rng(0)
    points, values = random.normal(size=(3, 7)), random.normal(size=7)
    energies = points**2 + points
    ends = energies.min(axis=1) if sign > 0 else energies.max(axis=1)
    weights = np.exp(-500 * sign * 0.7 * (energies - ends[:, None]))
    expected = (weights * values).sum(axis=1) / weights.sum(axis=1)
    kernel = wb.compile(softmax(sign), backend="reference")
    assert np.isclose(kernel.value({"x": points}, {"w": -0.7}, {"f": values}), expected.sum(), rtol=1e-12)
    assert np.isfinite(kernel.gradient({"x": 1e3 * points}, {"w": -0.7}, {"f": values})).all()
