"""Which energies are quadratic: never wrongly yes, and yes where the formula shows it."""

import random

import numba
import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from energies_table import TABLE, draw
from energies_table.symbols import b, c, i, n, sigma, t, u, x, y, z
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.compiler import derive, points, testing
from wiberg.compiler.passes.degree import first_beyond, is_quadratic, term_beyond
from wiberg.energies.extrema import minimum

QUADRATIC = {
    "quadratic", "smoother", "optical_flow", "gathered", "matrix_ridge", "matrix_gls", "matrix_gaussian",
}  # fmt: skip
PIECEWISE = {"hinge", "lasso", "quantile"}
"""Their Hessians do not depend on the variables almost everywhere, and they are not quadratic."""


def hessians(kernel, points):
    return [kernel.dense_hessian(*point) for point in points]


@pytest.mark.parametrize("name", TABLE)
def test_energies_of_the_table_are_told_apart_as_their_hessians_say(name):
    energy = TABLE[name]()
    kernel = wb.compile(energy, backend="reference")
    first, second = draw(energy, seed=1), draw(energy, seed=2)
    here, there = hessians(kernel, (first, (second[0], *first[1:])))
    assert kernel.quadratic == (name in QUADRATIC)
    constant = np.allclose(here, there, rtol=1e-9, atol=1e-9 * (1 + abs(here).max()))
    assert constant == (name in QUADRATIC | PIECEWISE)


def is_constant(kernel, energy, seed):
    """Whether the Hessians at five random points are the same; None where one is not finite or not moderate."""
    source = np.random.default_rng(seed)
    point = points.random_point(energy, dict.fromkeys(energy.extents, 3), source, positive=False)
    w, x = ({str(s.name): point[str(s.name)] for s in role} for role in (energy.weights, energy.data))
    found = []
    for _ in range(5):
        y = {str(s.name): source.uniform(-1.5, 1.5, np.shape(point[str(s.name)])) for s in energy.variables}
        found.append(kernel.dense_hessian(y, w, x))
    size = max(abs(h).max(initial=0.0) for h in found)
    if not size < 1e8:
        return None
    return all(np.allclose(h, found[0], rtol=1e-7, atol=1e-9 * (1 + size)) for h in found)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
@pytest.mark.filterwarnings("ignore")
def test_a_random_energy_that_is_called_quadratic_has_a_constant_hessian(seed):
    energy = testing.random_energy(random.Random(seed))  # one in ten is
    kernel = wb.compile(energy, backend="reference")
    assert not kernel.quadratic or is_constant(kernel, energy, seed) is not False


class Polynomial:
    """A random polynomial as a formula of nested sums, and the degree that its factors add up to."""

    def __init__(self, seed):
        self.source, self.left = random.Random(seed), 3

    def part(self, degree):
        """A formula in the index i of exactly that degree in y, z and t, with coefficients that are positive."""
        choose = self.source.choice
        if degree == 0:
            return choose([sp.exp(b), sigma, sp.sqrt(sigma), 1 / sigma, x[i] ** 2 + 1, sp.Abs(x[i]) + 1, sp.Integer(2)])
        if degree == 1:
            return choose([y[i], y[i] - x[i], t, y[i] + t, 3 * z[i] - b * x[i], sigma * y[i] + 1])
        below = self.source.randrange(1, degree)
        self.left -= 1
        if self.left < 0:
            return self.part(1) ** degree
        ways = [
            lambda: self.part(below) * self.part(degree - below),
            lambda: self.part(degree) * self.part(0) if self.source.random() < 0.5 else self.part(degree),
            lambda: self.part(degree) + self.part(below) * self.part(0),
            lambda: sp.Piecewise((self.part(degree), x[i] > 0), (2 * self.part(degree), True)),
        ]
        return choose(ways)() if degree % 2 or self.source.random() < 0.6 else self.part(degree // 2) ** 2

    def energy(self, degree):
        total = sp.Sum(self.part(degree), i) + t**2 + sp.Sum(y[i] ** 2 + z[i] ** 2, i) + b * t
        used = [s for s in (sigma, b) if total.has(s)]
        return wb.Energy(total, variables=[y, z, t], weights=used, data=[x])


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 2))
def test_polynomials_of_degree_two_are_recognised(seed, degree):
    energy = Polynomial(seed).energy(degree)
    kernel = wb.compile(energy, backend="reference")
    assert kernel.quadratic
    assert is_constant(kernel, energy, seed) is not False


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(3, 5))
def test_polynomials_of_higher_degree_are_not(seed, degree):
    assert not wb.compile(Polynomial(seed).energy(degree), backend="reference").quadratic


def kernel_of(formula, variables):
    weights = [s for s in (sigma, b) if formula.has(s)]
    energy = wb.Energy(formula, variables=variables, weights=weights, data=[x, c])
    return wb.compile(energy, backend="reference")


d = sp.Idx("d", 2)
pair = sp.IndexedBase("pair", shape=(2,))
u_of_i = sp.IndexedBase("r", shape=(n,))
e = sp.IndexedBase("e", shape=(n,), integer=True)


@pytest.mark.filterwarnings("ignore::wiberg.energies.errors.UnboundedDerivativeWarning")
@pytest.mark.parametrize(
    ("formula", "variables", "expected"),
    [
        (t**2, [t], True),
        (b * t, [t], True),
        (t**3, [t], False),
        (t * u, [t, u], True),
        (t**2 * u, [t, u], False),
        ((t - b) ** 2 / sigma, [t], True),
        (t**2 / (1 + t), [t], False),
        (sp.exp(b) * t**2, [t], True),
        (t**2 * sp.exp(-t), [t], False),
        (sp.sqrt(t**4 + 1), [t], False),
        (sp.Abs(t) * t, [t], False),
        (t**2 + sp.Abs(t), [t], False),
        (t**2 + sp.sign(t), [t], False),
        (t**2 + sp.floor(t), [t], False),
        (sp.Max(t, 0) ** 2, [t], False),
        (sp.Piecewise((t**2, b > 0), (2 * t**2, True)), [t], True),
        (sp.Piecewise((t**2, t > 0), (2 * t**2, True)), [t], False),
        (sp.Max(b, c) * t**2, [t], True),
        (sp.Sum(y[i] * x[i], i) ** 2, [y], True),
        (sp.Sum(y[i] * x[i], i) ** 2 * t, [y, t], False),
        (sp.Product(pair[d], d), [pair], True),
        (sp.Product(pair[d] ** 2, d), [pair], False),
        (sp.Product(1 + x[i], i) * t**2, [t], True),
        (sp.Product(y[i], i), [y], False),
        (minimum(y[i], i), [y], False),
        (minimum(x[i], i) * t**2, [t], True),
        (sigma**t, [t], False),
        ((t**2) ** b, [t], False),
    ],
)
def test_each_rule(formula, variables, expected):
    assert kernel_of(formula, variables).quadratic is expected


def test_intermediates_and_gathers_are_followed():
    residual = {u_of_i[i]: y[e[i]] - x[i]}
    for power, expected in ((2, True), (3, False)):
        energy = wb.Energy(sp.Sum(u_of_i[i] ** power, i), variables=[y], data=[x, e], where=residual)
        assert wb.compile(energy, backend="reference").quadratic is expected


def test_the_answer_can_be_asked_for_a_block_and_names_the_statement():
    energy = wb.Energy(sp.Sum((y[i] * t - x[i]) ** 2, i) + t**4, variables=[y, t], data=[x])
    program = derive.value(energy)
    assert not is_quadratic(program, ["y0", "y1"])
    assert is_quadratic(program, ["y0"])
    assert not is_quadratic(program, ["y1"])
    beyond = first_beyond(program, ["y1"], 2)
    assert beyond is not None and "y1**4" in str(beyond)


@pytest.mark.parametrize(
    ("block", "expected"), [("y0", "y0**4"), ("y1", "exp(y1)"), ("y2", None), ("y1 y2", "exp(y1)")]
)
def test_the_term_beyond_a_degree_is_told_wherever_it_stands(block, expected):
    energy = wb.Energy(t**4 + sp.exp(u) + (t * c - 1) ** 2 + 3 * u * c, variables=[t, u, c])
    found = term_beyond(derive.value(energy), block.split(), 2)
    assert (found is None) if expected is None else (str(found).replace("[]", "") == expected)


def test_a_function_of_the_user_is_not_trusted_to_be_a_polynomial():
    twice = wb.function("twice", numba.njit(lambda v: 2 * v))
    square = wb.function("square", numba.njit(lambda v: v * v), derivative=twice)
    assert not wb.compile(wb.Energy(square(t), variables=[t]), backend="reference").quadratic
    assert wb.compile(wb.Energy(square(c) * t**2, variables=[t], data=[c]), backend="reference").quadratic


def test_the_explanation_says_so():
    assert "the energy is quadratic" in str(wb.compile(TABLE["quadratic"](), backend="reference").explain())
    assert "the energy is quadratic" not in str(wb.compile(TABLE["lasso"](), backend="reference").explain())
