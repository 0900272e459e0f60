"""Functions of users in kernels: values and derivatives, what is missing, and what the cache keeps."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from wiberg.compiler import derive
from wiberg.compiler.passes.lower import lower
from wiberg.compiler.passes.user_functions import written_out
from wiberg.compiler.program.program import check
from wiberg.compiler.program.reference import interpret
from wiberg.energies.energy import Energy
from wiberg.energies.errors import NumericalError, UnsupportedError

n = sp.Symbol("n", integer=True, positive=True)
i = sp.Idx("i", n)
x, t, s = sp.IndexedBase("x", shape=(n,)), sp.Symbol("t", real=True), sp.Symbol("s", positive=True)
POINT: tuple[dict[str, Any], ...] = ({"t": 0.3}, {"s": 0.7}, {"x": np.linspace(-1, 1, 5)})


@numba.njit
def softplus(r):
    if r > 0:
        return r + math.log1p(math.exp(-r))
    return math.log1p(math.exp(r))


@numba.njit
def logistic(r):
    return 1 / (1 + math.exp(-r))


@numba.njit
def bump(r):
    return logistic(r) * (1 - logistic(r))


def soft(order: int = 2) -> Any:
    """softplus with derivatives to some order; the second one is in SymPy, and is differentiated by it."""
    second = wb.function("bump", lambda r: sp.exp(-r) / (1 + sp.exp(-r)) ** 2)
    first = wb.function("logistic", logistic, derivative=second if order > 1 else None)
    return wb.function("softplus", softplus, derivative=first if order > 0 else None)


def energy(function: Any) -> Energy:
    return Energy(sp.Sum(function((x[i] - t) / s), i) + s * t**2, variables=[t], weights=[s], data=[x])


def in_sympy() -> Energy:
    return energy(lambda r: sp.log(1 + sp.exp(r)))


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_a_numba_function_gives_what_its_formula_gives(backend: str) -> None:
    ours, theirs = wb.compile(energy(soft()), backend=backend), wb.compile(in_sympy(), backend="reference")
    for got, expected in zip(ours.value_gradient_hessian(*POINT), theirs.value_gradient_hessian(*POINT), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-13)
    for method in ("cross_adjoint", "data_adjoint"):
        got, expected = (getattr(kernel, method)([1.0], *POINT) for kernel in (ours, theirs))
        for name in expected:
            np.testing.assert_allclose(got[name], expected[name], rtol=1e-12)


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_nothing_is_raised_where_a_number_is_too_large(backend: str) -> None:
    odd = wb.function("odd", numba.njit(lambda r: 1 / (1 + math.exp(r)) + 1 / r + math.asin(r / r)))
    kernel = wb.compile(Energy(odd(t), variables=[t]), backend=backend)
    assert kernel.value({"t": 1000.0}) == 0.001 + math.pi / 2
    assert math.isnan(kernel.value({"t": 0.0}))


def test_derivatives_hold_against_sixty_digits() -> None:
    report = wb.testing.check_derivatives(energy(soft()), trials=4, backend="reference")
    assert report.ok, report


def test_a_sympy_function_with_derivatives_of_its_own_uses_them() -> None:
    chosen = wb.function("absolute", lambda r: sp.Abs(r), derivative=lambda r: sp.Piecewise((1, r >= 0), (-1, True)))
    kernel = wb.compile(Energy(chosen(t), variables=[t]), backend="reference")
    assert [kernel.gradient({"t": v})[0] for v in (-1.0, 0.0, 1.0)] == [-1.0, 1.0, 1.0]  # Abs alone has 0 at 0


def test_functions_of_two_arguments_and_in_each_other() -> None:
    product = wb.function("product", numba.njit(lambda a, b: a * b), derivative=[lambda a, b: b, lambda a, b: a])
    nested = wb.function("nested", lambda a: product(a, a**2) + a)
    report = wb.testing.check_derivatives(Energy(nested(t) ** 2, variables=[t]), trials=3, backend="reference")
    assert report.ok, report


def test_a_batch_is_evaluated_like_single_points() -> None:
    kernel = wb.compile(energy(soft()))
    points = np.linspace(-1, 1, 7)
    each = [kernel.value({"t": p}, *POINT[1:]) for p in points]
    np.testing.assert_array_equal(kernel.value({"t": points}, *POINT[1:]), each)


def test_a_minimum_is_found() -> None:
    kernel = wb.compile(energy(soft()), backend="reference")
    solution = wb.minimise(kernel, *POINT[1:], start={"t": 0.0})
    assert abs(kernel.gradient(solution.variables, *POINT[1:])[0]) < 1e-8


def test_an_index_is_given_as_a_float() -> None:
    half = wb.function("half", numba.njit(lambda r: r // 2 + 1 / (r + 1)))
    kernel = wb.compile(Energy(sp.Sum(half(i), i) + t + 0 * x[0] + sp.Sum(x[i], i), variables=[t], data=[x]))
    assert kernel.value({"t": 0.0}, {}, {"x": np.zeros(4)}) == pytest.approx(2 + sum(1 / k for k in range(1, 5)))


def test_the_pass_keeps_values_and_is_idempotent() -> None:
    cubed = wb.function("cubed", lambda r: r**3, derivative=lambda r: 3 * r**2)
    program = lower(Energy(cubed(t) + t, variables=[t]))
    after = check(written_out(check(program)))
    assert written_out(after) == after
    assert "u_" not in "\n".join(map(str, after.statements))
    values = [interpret(p, {"y0": 1.5}, {})["value"] for p in (program, after)]
    assert values[0] == pytest.approx(values[1], rel=1e-15)


# ---------------------------------------------------------------------------------------------- what is missing


@pytest.mark.parametrize(
    ("order", "kind", "name"),
    [
        (0, "gradient", "'softplus'"),
        (0, "hessian", "'softplus'"),
        (0, "cross", "'softplus'"),
        (1, "hessian", "'logistic'"),
        (1, "hvp", "'logistic'"),
        (1, "cross_adjoint", "'logistic'"),
    ],
)
def test_a_derivative_that_is_missing_is_named(order: int, kind: str, name: str) -> None:
    arguments = ", ".join("r" * (order + 1))
    what = f"order {order + 1} of function 'softplus' in {arguments}, .* function {name} has no derivative in r"
    with pytest.raises(UnsupportedError, match=f"energy 'energy': .* needs the derivative of {what}"):
        derive.derive(energy(soft(order)), kind)


def test_what_does_not_need_the_derivative_works_without() -> None:
    kernel = wb.compile(energy(soft(1)), backend="reference")
    np.testing.assert_allclose(kernel.gradient(*POINT), wb.compile(in_sympy(), backend="reference").gradient(*POINT))


def test_a_derivative_in_data_is_needed_for_data_only() -> None:
    weighted = wb.function("weighted", lambda r, w: w * r**2, derivative=[lambda r, w: 2 * w * r, None])
    kernel = wb.compile(Energy(sp.Sum(weighted(t, x[i]), i), variables=[t], data=[x]), backend="reference")
    assert kernel.hessian({"t": 1.0}, {}, {"x": [1.0, 2.0]}) == [[6.0]]
    swapped = wb.compile(Energy(sp.Sum(weighted(x[i], t), i), variables=[t], data=[x]), backend="reference")
    with pytest.raises(UnsupportedError, match="has no derivative in w"):
        swapped.gradient({"t": 1.0}, {}, {"x": [1.0, 2.0]})


def test_the_source_says_what_is_missing() -> None:
    assert "has no derivative in r" in wb.compile(energy(soft(0))).source


def test_calls_of_users_are_no_function_of_sympy() -> None:
    assert "UserCall" not in wb.supported_functions()


def test_a_function_that_gives_no_number_is_refused() -> None:
    pair = wb.function("pair", numba.njit(lambda r: (r, r)))
    with pytest.raises(UnsupportedError, match="'pair' gives"):
        wb.compile(Energy(pair(t), variables=[t])).value({"t": 1.0})


def test_a_function_that_numba_cannot_compile_is_refused() -> None:
    odd = wb.function("odd", numba.njit(lambda r: r.upper()))
    with pytest.raises(UnsupportedError, match="'odd' cannot be compiled"):
        wb.compile(Energy(odd(t), variables=[t])).value({"t": 1.0})


def test_a_function_that_cannot_be_run_in_sixty_digits_is_named_by_the_check() -> None:
    table = np.arange(4.0)
    odd = wb.function("odd", numba.njit(lambda r: table[int(abs(r))] + np.interp(r, table, table)), derivative=None)
    with pytest.raises((NumericalError, UnsupportedError), match="odd"):
        wb.testing.check_derivatives(Energy(odd(t) + t, variables=[t]), trials=1, backend="reference")


# ---------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name", ["u_0", "t0", "exp", "shifted", "lambda", "a\nimport os", '"""', "#", "\N{PILE OF POO}"]
)
def test_a_hostile_name_never_reaches_the_code(name: str) -> None:
    def code(called: str) -> list[str]:
        source = derive.compile_text(energy(wb.function(called, softplus)), "value").source
        return [line for line in source.splitlines() if not line.startswith("#")]

    rows = [" ".join(code(called)).replace(_row(called), "ROW") for called in (name, "softplus")]
    assert rows[0] == rows[1]


def _row(name: str) -> str:
    return f"u_{wb.function(name, softplus).key[:16]}"


def test_the_legend_names_the_function_on_one_line() -> None:
    source = derive.compile_text(energy(wb.function("a\nb", softplus)), "value").source
    assert f"{_row('a' + chr(10) + 'b')}: function a\\nb" in source


# ---------------------------------------------------------------------------------------------- the cache


def written(body: str, **scope: Any) -> Any:
    """A function of the name f with a text of its own."""
    exec(f"def body(r):\n    return {body}", scope)
    return wb.function("f", numba.njit(scope["body"]))


@pytest.fixture
def compilations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds that are compiled, in an empty cache."""
    monkeypatch.setenv("WIBERG_CACHE_DIR", str(tmp_path))
    made: list[str] = []
    original = derive.compile_text
    monkeypatch.setattr(derive, "compile_text", lambda energy, kind: made.append(kind) or original(energy, kind))
    return made


def at_three(function: Any) -> float:
    return wb.compile(Energy(function(t), variables=[t])).value({"t": 3.0})


def test_a_function_declared_again_uses_the_kernel_that_is_there(compilations: list[str]) -> None:
    assert [at_three(written("2.0 * r")) for _ in range(2)] == [6.0, 6.0]
    assert len(compilations) == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [(("2.0 * r", {}), ("5.0 * r", {})), (("k * r", {"k": 2.0}), ("k * r", {"k": 5.0}))],
    ids=["constant", "global"],
)
def test_a_changed_function_makes_another_kernel(before: Any, after: Any, compilations: list[str]) -> None:
    assert [at_three(written(body, **scope)) for body, scope in (before, after)] == [6.0, 15.0]
    assert len(compilations) == 2


def test_a_function_that_cannot_be_hashed_leaves_nothing_in_the_cache(compilations: list[str], tmp_path: Path) -> None:
    for factor in (2.0, 4.0):
        assert at_three(written("table[0] * r", table=np.array([factor]))) == 3 * factor
    assert len(compilations) == 2
    assert not list(tmp_path.iterdir())


SCRIPT = """
import sys, numba, sympy as sp, wiberg as wb
def body(r):
    return {factor} * r
t = sp.Symbol("t", real=True)
print(wb.compile(wb.Energy(wb.function("f", numba.njit(body))(t), variables=[t])).value({{"t": 3.0}}))
"""


def test_kernels_of_two_processes_with_functions_of_one_name_live_side_by_side(
    compilations: list[str], tmp_path: Path
) -> None:
    for factor in (2.0, 5.0):
        command = [sys.executable, "-c", SCRIPT.format(factor=factor)]
        result = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=True)
        assert float(result.stdout) == 3 * factor
    assert [at_three(written(f"{factor} * r")) for factor in (2.0, 5.0)] == [6.0, 15.0]
    assert not compilations
