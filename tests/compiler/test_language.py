"""The functions and kinks of docs/language.md: what examples print, and the table of kinks in both executions."""

import contextlib
import io
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from wiberg.compiler.testing import dense

TEXT = (Path(__file__).parents[2] / "docs" / "language.md").read_text()
PAGE = next(part for part in re.split(r"^# (?=[A-Z])", TEXT, flags=re.MULTILINE) if part.startswith("Functions"))
SYMBOLS = {"s": sp.Symbol("s"), **{name: sp.Symbol(name, real=True) for name in "tup"}}
ROWS = re.findall(r"^\| `(.+)` \| ([a-z] = .+?) \| (.+?) \| (.+?) \| (.+?) \|$", PAGE, flags=re.MULTILINE)


def numbers(text):
    """The numbers of a cell, without the limits in parentheses."""
    return [float(sp.sympify(part)) for part in re.sub(r"\(.*?\)", "", text).split(",")]


def read_row(row):
    formula, where, *cells = row
    point = {name: float(sp.sympify(v)) for name, v in (part.split(" = ") for part in where.split(", "))}
    return sp.sympify(formula, locals=SYMBOLS), point, [numbers(cell) for cell in cells]


def compiled(expression, variables, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", wb.UnboundedDerivativeWarning)
        return wb.compile(wb.Energy(expression, variables=variables), **options)


def test_the_table_of_kinks_is_found():
    assert len(ROWS) > 30


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} at {row[1]}")
def test_what_comes_out_at_a_kink_is_what_the_table_says(row):
    expression, point, (value, first, second) = read_row(row)
    kernel = compiled(expression, [SYMBOLS[name] for name in point], backend="reference")
    got = kernel.value_gradient_hessian(point)
    upper = got[2][np.triu_indices(len(point))]
    np.testing.assert_allclose(got[0], value[0], rtol=1e-15)
    np.testing.assert_allclose(got[1], first, rtol=1e-15)
    np.testing.assert_allclose(upper, second, rtol=1e-15)
    direction = np.linspace(1.0, 2.0, len(point))
    np.testing.assert_allclose(kernel.hvp(direction, point), got[2] @ direction, rtol=1e-15)


def test_machine_code_gives_the_same_at_all_kinks_of_the_table():
    total, variables, where, first, second = sp.Integer(0), [], {}, [], []
    for k, row in enumerate(ROWS):
        expression, point, (_, gradient, hessian) = read_row(row)
        if not np.isfinite(gradient + hessian).all():
            continue
        own = {SYMBOLS[name]: sp.Symbol(f"{name}{k}", **SYMBOLS[name].assumptions0) for name in point}
        total += expression.xreplace(own)
        variables += own.values()
        where |= {f"{name}{k}": v for name, v in point.items()}
        first += gradient
        block = np.zeros((len(point), len(point)))
        block[np.triu_indices(len(point))] = hessian
        second.append(block + np.triu(block, 1).T)
    kernel = compiled(total, variables)
    _, gradient, hessian = kernel.value_gradient_hessian(where)
    np.testing.assert_allclose(gradient, first, atol=1e-14)
    at = 0
    for block in second:
        size = len(block)
        np.testing.assert_allclose(hessian[at : at + size, at : at + size], block, atol=1e-14)
        at += size


n = sp.Symbol("n", integer=True, positive=True)
i, k = sp.Idx("i", n), sp.Idx("k", n)
y, w, x, z = (sp.IndexedBase(name, shape=(n,)) for name in "ywxz")


@pytest.mark.parametrize("lets", [False, True])
@pytest.mark.parametrize("spoilt", [
    sp.log(y[i]) * w[i] * x[i], sp.sqrt(y[i] * w[i] * x[i]), (y[i] - 1) ** -2 * w[i] * x[i],
    w[i] * sp.Sum(sp.log(y[k]) * x[k], k), (y[i] + x[i]) ** w[i],
], ids=str)  # fmt: skip
def test_a_branch_that_is_not_taken_spoils_no_derivative(spoilt, lets):
    branch, where = (z[i], {z[i]: spoilt}) if lets else (spoilt, {})
    taken = w[i] * x[i] * sp.sin(y[i])
    formula = sp.Sum(sp.Piecewise((branch, x[i] > 100), (taken, True)) * w[i], i)
    plain = sp.Sum(taken * w[i], i)
    point = {"y": [-1.0, 0.0, 1.0]}, {"w": [0.5, 0.25, 2.0]}, {"x": [1.0, -1.0, 0.0]}
    v = np.array([1.0, 2.0, 3.0])
    results = []
    for expression, definitions in ((formula, where), (plain, {})):
        energy = wb.Energy(expression, variables=[y], weights=[w], data=[x], where=definitions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wb.UnboundedDerivativeWarning)
            kernel = wb.compile(energy, backend="reference")
        value, gradient, hessian = kernel.value_gradient_hessian(*point)
        results.append([
            value, gradient, dense(hessian), dense(kernel.cross(*point)), kernel.hvp(v, *point),
            kernel.cross_adjoint(v, *point)["w"], kernel.data_adjoint(v, *point)["x"],
        ])  # fmt: skip
    for got, expected in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-14)


def test_the_examples_of_the_page_print_what_it_says():
    space = {}
    for code, shown in re.findall(r"```python\n(.+?)```\n\n((?:    [^\n]+\n)+)", PAGE, flags=re.DOTALL):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, space)
        assert printed.getvalue().split() == shown.split()
