"""Robust least squares found in programs: what is found, what is refused and why, and what the kernels compute."""

import random
import warnings

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from energies_table import TABLE, draw, generated
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.compiler.calls.evaluate import run
from wiberg.compiler.derive import REWEIGHTING, derive, value
from wiberg.compiler.kernel import Kernel
from wiberg.compiler.passes.irls import anchored_majoriser, fixed_majoriser
from wiberg.compiler.program.expression import contains
from wiberg.compiler.program.program import check
from wiberg.compiler.program.reference import interpret
from wiberg.compiler.testing import random_energy

n, m = sp.symbols("n m", integer=True, positive=True)
i, j, k = sp.Idx("i", n), sp.Idx("j", m), sp.Idx("k", 3)
y, v, x = sp.IndexedBase("y", shape=(m,)), sp.IndexedBase("v", shape=(n,)), sp.IndexedBase("x", shape=(n,))
A, P, q = sp.IndexedBase("A", shape=(n, m)), sp.IndexedBase("P", shape=(n, 3)), sp.IndexedBase("q", shape=(3,))
M = sp.IndexedBase("M", shape=(m, m))
s, lam = sp.symbols("s lam", positive=True)
a, b, w = sp.symbols("a b w", real=True)
line = (x[i] - a * v[i] - b) ** 2


def total(f, *indices):
    return sp.Sum(f, *indices)


def huber(r2):
    return sp.Piecewise((r2 / 2, sp.sqrt(r2) <= s), (s * sp.sqrt(r2) - s**2 / 2, True))


def energy(f, variables, **options):
    roles = {str(t.base if isinstance(t, sp.Indexed) else t) for t in sp.sympify(f).atoms(sp.Symbol, sp.IndexedBase)}
    weights = [t for t in (s, lam, w) if str(t) in roles]
    data = [t for t in (x, v, A, P, M) if str(t.label) in roles]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", wb.UnboundedDerivativeWarning)
        return wb.Energy(f, variables=variables, weights=weights, data=data, **options)


prior = a**2 + b**2 / 3
ROBUST = {
    **{
        rho.__name__: (lambda rho=rho: energy(total(rho(line, s), i) + lam * prior, [a, b]))
        for rho in (wb.pseudo_huber, wb.geman_mcclure, wb.welsch, wb.cauchy)
    },
    "student_t": lambda: energy(total(wb.student_t(line, s, lam), i) + prior, [a, b]),
    "huber": lambda: energy(total(huber(line), i) + prior, [a, b]),
    "charbonnier": lambda: energy(total(sp.sqrt(line + s**2), i) + prior, [a, b]),
    "power below two": lambda: energy(total((line + s) ** sp.Rational(3, 8), i) + prior, [a, b]),
    "points in space": lambda: energy(
        total(v[i] ** 2 * wb.pseudo_huber(total((P[i, k] - q[k]) ** 2, k), s), i) + lam * total(q[k] ** 2, k), [q]
    ),
    "geman_mcclure in space": lambda: energy(
        total(wb.geman_mcclure(total((P[i, k] - q[k]) ** 2, k), 1), i) + lam * total(q[k] ** 2, k), [q]
    ),
    "many unknowns": lambda: energy(
        total(wb.cauchy((total(A[i, j] * y[j], j) - x[i]) ** 2, s), i) + lam * total(y[j] ** 2, j), [y]
    ),
    "one residual of many": lambda: energy(
        wb.cauchy(total((total(A[i, j] * y[j], j) - x[i]) ** 2, i), s) + lam * total(y[j] ** 2, j), [y]
    ),
    "mahalanobis": lambda: energy(
        total(wb.student_t(total((y[j] - A[i, j]) ** 2, j), s, 5), i) + total(y[j] ** 2, j), [y]
    ),
    "neighbours": lambda: energy(
        total(sp.sqrt((y[j + 1] - y[j]) ** 2 + s**2), (j, 0, m - 2)) + total((y[j] - A[0, j]) ** 2, j), [y]
    ),
    "kernel density": lambda: energy(-total(sp.exp(-((x[i] - a) ** 2) / s), i) + a**2, [a]),
    "masked": lambda: energy(
        total(sp.Piecewise((wb.cauchy((x[i] - a) ** 2, s), v[i] > 0), (0, True)), i) + lam * a**2, [a]
    ),
    "a penalty or a square": lambda: energy(
        total(sp.Piecewise((wb.cauchy((x[i] - a) ** 2, s), v[i] > 0), ((x[i] - a) ** 2, True)), i) + a**2, [a]
    ),
    "squares alone": lambda: energy(total(line, i) + lam * prior, [a, b]),
}


@pytest.fixture(scope="module", params=ROBUST)
def robust(request):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", wb.UnboundedDerivativeWarning)
        return wb.compile(ROBUST[request.param]())


def point(kernel, seed):
    """Variables, weights above 0 and data, for n = 5 and m = 4."""
    rng, sizes = np.random.default_rng(seed), {n: 5, m: 4, sp.Integer(3): 3}
    drawn = {}
    for name, shape in kernel.energy.shapes.items():
        drawn[name] = rng.normal(size=tuple(sizes[e] for e in shape)) * 2
    w_ = {name: 0.2 + np.abs(drawn[name]) for name in kernel.weights.names}
    return {name: drawn[name] for name in kernel.variables.names}, w_, {name: drawn[name] for name in kernel.data.names}


def reweighted(kernel, where, w_, x_):
    """The energy, its gradient, and the Hessian A of the reweighted problem."""
    inputs = kernel.bind(w_, x_, where)
    packed, _ = kernel.bind_variables(where, inputs)
    values, out = run(kernel.entry("value_gradient_reweighted"), inputs, packed)
    return values[0], out[0, : inputs.m], out[0, inputs.m :].reshape(inputs.m, inputs.m)


seeds = st.integers(0, 2**32 - 1)


# ---------------------------------------------------------------------------------------------- what kernels compute


@settings(max_examples=25, deadline=None)
@given(seed=seeds, size=st.sampled_from([0.01, 0.3, 3.0, 30.0]))
def test_the_reweighted_problem_lies_above_the_energy_and_touches_it(robust, seed, size):
    here, w_, x_ = point(robust, seed)
    value_, gradient, matrix = reweighted(robust, here, w_, x_)
    np.testing.assert_allclose(gradient, robust.gradient(here, w_, x_), rtol=1e-12, atol=1e-12)
    assert value_ == pytest.approx(robust.value(here, w_, x_), rel=1e-13)
    np.testing.assert_array_equal(matrix, matrix.T)
    rng = np.random.default_rng(seed + 1)
    flat = robust.variables.pack(here)
    for _ in range(5):
        step = size * rng.normal(size=flat.shape)
        there = robust.variables.unpack(flat + step, robust.bind(w_, x_, here).sizes)
        above = value_ + gradient @ step + step @ matrix @ step / 2
        assert robust.value(there, w_, x_) <= above + 1e-12 * (1 + abs(above))


def test_the_reweighted_problem_of_squares_is_the_energy():
    kernel = wb.compile(ROBUST["squares alone"]())
    here, w_, x_ = point(kernel, 0)
    np.testing.assert_allclose(reweighted(kernel, here, w_, x_)[2], kernel.hessian(here, w_, x_), rtol=1e-14)


def test_the_matrix_of_a_line_fit_is_that_of_its_normal_equations():
    kernel = wb.compile(ROBUST["geman_mcclure"]())
    here, w_, x_ = point(kernel, 4)
    residual = x_["x"] - here["a"] * x_["v"] - here["b"]
    weights = (1 + residual**2 / w_["s"] ** 2) ** -2
    design = np.stack([x_["v"], np.ones(5)], axis=1)
    expected = design.T @ (weights[:, None] * design) + w_["lam"] * np.diag([2, 2 / 3])
    np.testing.assert_allclose(reweighted(kernel, here, w_, x_)[2], expected, rtol=1e-12)


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_the_adjoint_of_a_reweighting_against_differences(robust, seed):
    """d/dz and d/dw of u . (g(z, w) + A(z, w) (y - z)), by central differences of g and A."""
    (before, w_, x_), (after, _, _) = point(robust, seed), point(robust, seed + 1)
    inputs = robust.bind(w_, x_, before)
    z, at = robust.variables.pack(before), robust.variables.pack(after)
    u = np.random.default_rng(seed).normal(size=z.shape)
    _, out = run(robust.entry("reweighting_adjoint"), inputs, at[None], np.concatenate([u, z])[None], count=1)

    def stationarity(flat, weights):
        _, gradient, matrix = reweighted(robust, robust.variables.unpack(flat, inputs.sizes), weights, x_)
        return u @ (gradient + matrix @ (at - flat))

    h, expected = 1e-5, []
    for direction in np.eye(len(z)):
        expected.append((stationarity(z + h * direction, w_) - stationarity(z - h * direction, w_)) / (2 * h))
    for name, number in w_.items():
        up, down = ({**w_, name: number + sign * h} for sign in (1, -1))
        expected.append((stationarity(z, up) - stationarity(z, down)) / (2 * h))
    scale = 1 + np.abs(expected).max()
    if robust.energy.name != "huber":  # differences across its kinks are not derivatives
        np.testing.assert_allclose(out[0] / scale, np.array(expected) / scale, atol=2e-5)


def test_the_interpreter_agrees(robust):
    slow = Kernel(robust.energy, "reference")
    here, w_, x_ = point(robust, 7)
    for got, expected in zip(reweighted(robust, here, w_, x_), reweighted(slow, here, w_, x_), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)
    inputs = robust.bind(w_, x_, here)
    flat, directions = robust.variables.pack(here)[None], np.random.default_rng(0).normal(size=(1, 2 * inputs.m))
    results = [run(kernel.entry("reweighting_adjoint"), inputs, flat, directions)[1] for kernel in (robust, slow)]
    np.testing.assert_allclose(*results, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("add", [fixed_majoriser, anchored_majoriser])
def test_what_was_computed_before_stays(robust, add):
    before = value(robust.energy)
    after = check(add(before, robust.energy))
    assert after.statements[: len(before.statements)] == before.statements


def test_the_majoriser_has_the_same_text_each_time(robust):
    for kind in REWEIGHTING:
        assert str(derive(robust.energy, kind)) == str(derive(robust.energy, kind))


# ---------------------------------------------------------------------------------------------- what is refused


REFUSED = {
    "a function of r": (sp.exp(a) + a**2 + b**2, r"exp\(a\).*depends on a and not on its square"),
    "an odd power": (a**3 + b**2, r"a\*\*3.*depends on a and not on its square"),
    "convex in the square": (a**4 + b**2, r"a\*\*4.*not concave"),
    "exponential": (sp.exp((a - b) ** 2) + b**2, r"exp\(\(a - b\)\*\*2\).*not concave"),
    "of the wrong sign": (b**2 - sp.log(1 + a**2), r"log1p\(a\*\*2\).*falls as a\*\*2 grows"),
    "residual that is not affine": (sp.sqrt(1 + (a - sp.sin(b)) ** 2), r"sqrt.*sin\(b\)"),
    "residual of degree two": (sp.sqrt(1 + (a * b - 1) ** 2), r"a\*b"),
    "two residuals": (sp.sqrt(1 + a**2 * b**2), r"two squared residuals, a\*\*2 and b\*\*2"),
    "no square": (sp.cos(a * b) + a**2 + b**2, r"a\*b, which is no sum of squares"),
    "times a variable": (b * sp.log(1 + a**2) + a**2, r"has b as a factor"),
    "function of a whole sum": (
        sp.log(total(sp.exp(-((x[i] - a) ** 2)), i) + 1) + b**2,
        r"which is a sum that is not a quadratic function",
    ),
    "product": (sp.Product(1 + (x[i] - a) ** 2, i) + b**2, "which is a product"),
    "minimum": (wb.minimum((x[i] - a) ** 2, i) + b**2, "extreme"),
    "one side": (total(sp.Piecewise(((x[i] - a) ** 2, x[i] > a), (2 * (x[i] - a) ** 2, True)), i) + b**2, "square"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_energies_are_refused_with_the_term(name):
    formula, message = REFUSED[name]
    for kind in REWEIGHTING:
        with pytest.raises(wb.UnsupportedError, match=f"(?s)energy 'strange'.*irls.*{message}.*trust-region"):
            derive(energy(formula, [a, b], name="strange"), kind)


ROBUST_OF_TABLE = {
    "ransac", "fusion", "pose", "denoise", "line_pseudo_huber", "line_geman_mcclure", "line_welsch", "line_cauchy",
    "line_student_t", "quadratic", "lasso", "smoother", "optical_flow", "huber", "no_weights", "whole_sum", "gathered",
    "matrix_ridge", "matrix_gls", "matrix_gaussian", "volume", "scaled_starts",
}  # fmt: skip


def accepts(found):
    try:
        derive(found, "value_gradient_reweighted")
    except wb.UnsupportedError as error:
        assert "irls" in str(error)
        return False
    return True


@pytest.mark.filterwarnings("ignore::wiberg.energies.errors.UnboundedDerivativeWarning")
def test_energies_of_the_table_that_are_robust_least_squares():
    assert {name for name in TABLE if accepts(TABLE[name]())} == ROBUST_OF_TABLE


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_random_energies_are_refused_or_get_a_majoriser_of_the_same_gradient(seed):
    """Every random energy, with a robust term that alone would do."""
    found = random_energy(random.Random(seed))
    if not accepts(found):
        return
    program = check(derive(found, "value_gradient_reweighted"))
    inputs, extents = generated(found, program, draw(found, 3), 3)
    results = interpret(program, inputs, extents)
    plain = derive(found, "value_gradient_hessian")
    expected = interpret(plain, generated(found, plain, draw(found, 3), 3)[0], extents)
    for name, numbers in results.items():
        if name.startswith("gradient"):
            np.testing.assert_allclose(numbers, expected[name], rtol=1e-10, atol=1e-10)


def test_the_kink_of_a_weight_needs_no_branch_around_what_the_weight_multiplies():
    """A residual that is left out does: its coefficients may be infinite."""
    z, inner = sp.IndexedBase("z", shape=(n,)), sp.IndexedBase("inner", shape=(n,))
    where = {inner[i]: sp.Sum(A[i, j] * y[j], j) / z[i]}
    roles = {"variables": [y], "weights": [s], "data": [A, x, z], "where": where}
    plain = total(huber((x[i] - inner[i]) ** 2), i)
    chosen = total(sp.Piecewise((wb.pseudo_huber((x[i] - inner[i]) ** 2, s), z[i] > 0), (0, True)), i)
    counted = []
    for formula in (plain, chosen):
        program = derive(wb.Energy(formula, **roles), "value_gradient_reweighted")
        parts = [st.expression for st in program.statements if "second" in st.note or "hessian" in st.note]
        counted.append(sum(contains(e, lambda node: node.name == "select", without="fixed") for e in parts))
    assert counted[0] == 0 < counted[1]
    kernel = wb.compile(wb.Energy(chosen, **roles), backend="reference")
    data = {"A": [[1.0, 2.0], [3.0, 1.0], [1.0, 1.0]], "x": [2.0, 0.0, 5.0], "z": [1.0, 0.0, 1.0]}
    solution = wb.minimise(kernel, {"s": 0.5}, data, start={"y": np.zeros(2)}, method="irls")
    assert solution.converged
    np.testing.assert_allclose(np.array(data["A"])[[0, 2]] @ solution.variables["y"], [2.0, 5.0], atol=1e-7)
