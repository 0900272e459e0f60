"""Functions that users bring: what they are in formulas, what is refused, and what makes two of them different."""

from __future__ import annotations

import logging
import math
import pickle
from typing import Any

import numba
import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from wiberg.energies.energy import Energy
from wiberg.energies.errors import DeclarationError, InputError, InputTypeError
from wiberg.energies.function_digest import function_text

t, s = sp.symbols("t s", real=True)
SCALE = 2.0
TABLE = np.arange(3.0)


def compiled(function: Any) -> Any:
    return numba.njit(function)


cube = compiled(lambda r: r * r * r)
three_squares = compiled(lambda r: 3 * r * r)


class TestInFormulas:
    def test_a_sympy_value_stands_for_its_expression(self) -> None:
        assert wb.function("soft", lambda r: sp.log(1 + sp.exp(r)))(t + s) == sp.log(1 + sp.exp(t + s))

    def test_a_lambda_of_sympy_will_do(self) -> None:
        assert wb.function("square", sp.Lambda(t, t**2))(s) == s**2

    def test_a_function_of_sympy_will_do(self) -> None:
        assert wb.function("sine", sp.sin)(s) == sp.sin(s)

    def test_arguments_of_one_name_are_not_mixed_up(self) -> None:
        assert wb.function("difference", lambda t, s: t - 2 * s)(s, t) == s - 2 * t

    def test_a_numba_value_is_shown_by_name(self) -> None:
        assert str(Energy(wb.function("cube", cube)(t) ** 2, variables=[t])).splitlines()[1] == "  E = cube(t)**2"

    def test_latex_shows_the_name(self) -> None:
        assert r"\text{cube}\left(t\right)" in Energy(wb.function("cube", cube)(t), variables=[t])._repr_latex_()

    def test_sympy_differentiates_through_the_derivative_that_is_given(self) -> None:
        function = wb.function("cube", cube, derivative=lambda r: 3 * r**2)
        assert sp.diff(function(2 * t), t) == 24 * t**2

    def test_entries_of_a_matrix(self) -> None:
        n = sp.Symbol("n", integer=True, positive=True)
        y = sp.MatrixSymbol("y", n, 1)
        function = wb.function("cube", cube)
        kernel = wb.compile(Energy(y.T * y.applyfunc(function), variables=[y]), backend="reference")
        assert kernel.value({"y": [1.0, 2.0]}) == 17.0

    @pytest.mark.parametrize(
        "name", ["lambda", "", "a\nb", '"""', "Symbol", "Add", "exp", "t0", "u_0", "x]; import os"]
    )
    def test_any_name_will_do(self, name: str) -> None:
        energy = Energy(wb.function(name, cube)(t), variables=[t])
        assert wb.compile(energy, backend="reference").value({"t": 2.0}) == 8.0
        assert "\n" not in str(energy).splitlines()[1]


class TestIdentity:
    def test_two_functions_of_one_name_are_different(self) -> None:
        one, two = wb.function("f", compiled(lambda r: r)), wb.function("f", compiled(lambda r: 2 * r))
        assert one(t) != two(t)
        assert Energy(one(t), variables=[t]) != Energy(two(t), variables=[t])

    def test_two_functions_of_one_name_in_one_energy(self) -> None:
        one, two = wb.function("f", compiled(lambda r: r + 1)), wb.function("f", compiled(lambda r: 2 * r))
        energy = Energy(one(t) * two(t) - two(s), variables=[t, s])
        assert wb.compile(energy, backend="reference").value({"t": 3.0, "s": 5.0}) == 14.0

    def test_a_function_declared_again_is_the_same(self) -> None:
        one, two = (wb.function("f", compiled(lambda r: 2 * r)) for _ in range(2))
        assert Energy(one(t), variables=[t]) == Energy(two(t), variables=[t])

    def test_another_derivative_is_another_function(self) -> None:
        assert wb.function("f", cube).key != wb.function("f", cube, derivative=three_squares).key

    def test_a_copy_through_pickle_is_equal(self) -> None:
        energy = Energy(wb.function("cube", cube, derivative=three_squares)(t), variables=[t])
        again = pickle.loads(pickle.dumps(energy))
        assert again == energy
        assert wb.compile(again, backend="reference").gradient({"t": 2.0}) == [12.0]

    def test_what_is_read_is_fixed_at_declaration(self) -> None:
        scope: dict[str, Any] = {"factor": 2.0}
        exec("def scaled(r):\n    return factor * r", scope)
        function = wb.function("scaled", compiled(scope["scaled"]))
        scope["factor"] = 3.0
        assert wb.compile(Energy(function(t), variables=[t]), backend="reference").value({"t": 1.0}) == 2.0


def with_factor(factor: Any) -> Any:
    return compiled(lambda r: factor * r)


def inner_and_outer(factor: float) -> Any:
    inner = with_factor(factor)
    return compiled(lambda r: inner(r) + 1)


class TestDigest:
    @pytest.mark.parametrize(
        "make",
        [
            with_factor,
            inner_and_outer,
            lambda factor: with_factor((1.0, factor)[1]),
            lambda factor: compiled(eval(f"lambda r: {factor!r} * r")),
            lambda factor: numba.njit(lambda r: r, fastmath=factor > 2),
        ],
        ids=["closure", "function in a closure", "tuple", "constant", "options"],
    )
    def test_another_content_is_another_text(self, make: Any) -> None:
        assert function_text(make(2.0)) == function_text(make(2.0))
        assert function_text(make(2.0)) != function_text(make(3.0))

    def test_a_global_that_is_read_is_part_of_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        function = compiled(lambda r: SCALE * r)
        before = function_text(function)
        monkeypatch.setitem(globals(), "SCALE", 3.0)
        assert function_text(function) != before

    def test_an_integer_is_not_the_float_of_its_value(self) -> None:
        assert function_text(with_factor(2)) != function_text(with_factor(2.0))

    @pytest.mark.parametrize(
        ("function", "what"),
        [
            (compiled(lambda r: TABLE[1] * r), "TABLE of type ndarray"),
            (compiled(lambda r, table=TABLE: table[1] * r), "a default of type ndarray"),
            (with_factor(TABLE), "factor of type ndarray"),
            (compiled(lambda r: math.fsum((r, pytest.approx)) if r else r), "pytest of type module"),
        ],
        ids=["global", "default", "closure", "module"],
    )
    def test_what_cannot_be_hashed_is_named_in_the_log(
        self, function: Any, what: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, "wiberg"):
            made = wb.function("odd", function)
        assert made.reason == what
        assert f"function 'odd' reads {what}" in caplog.text

    def test_a_function_that_cannot_be_hashed_is_another_each_time(self) -> None:
        one, two = (wb.function("odd", compiled(lambda r: TABLE[1] * r)) for _ in range(2))
        assert one.key != two.key


REFUSED: dict[str, tuple[type[Exception], str, Any]] = {
    "name": (InputTypeError, "str", lambda: wb.function(3, cube)),
    "value that cannot be called": (InputTypeError, "'f'.*3", lambda: wb.function("f", 3)),
    "expression": (InputTypeError, "'f'", lambda: wb.function("f", t**2)),
    "text": (InputTypeError, "numba.njit", lambda: wb.function("f", lambda r: "r")),
    "matrix": (InputTypeError, "Matrix", lambda: wb.function("f", lambda r: sp.Matrix([[r]]))),
    "math of floats": (InputTypeError, "sp.exp", lambda: wb.function("f", lambda r: math.exp(r))),
    "free symbol": (DeclarationError, "reads s", lambda: wb.function("f", lambda r: r * s)),
    "sum": (
        DeclarationError,
        "no sums",
        lambda: wb.function("f", lambda r: sp.Sum(r, (sp.Symbol("k"), 1, sp.Symbol("n")))),
    ),
    "no arguments": (InputTypeError, "no arguments", lambda: wb.function("f", lambda: sp.Integer(1))),
    "any number of arguments": (InputTypeError, r"\*rest", lambda: wb.function("f", lambda *rest: rest[0])),
    "too many derivatives": (InputError, "2 derivatives", lambda: wb.function("f", cube, derivative=[cube, cube])),
    "one derivative of two": (
        InputError,
        "1 derivatives",
        lambda: wb.function("f", lambda a, b: a * b, derivative=lambda a, b: b),
    ),
    "derivative of other arguments": (
        InputError,
        "derivative of function 'f' in r",
        lambda: wb.function("f", cube, derivative=lambda a, b: a),
    ),
    "wrong derivative": (
        DeclarationError,
        r"'cube' in r is .* at r = .* differences",
        lambda: wb.function("cube", cube, derivative=compiled(lambda r: 2 * r * r)),
    ),
    "wrong derivative in sympy": (
        DeclarationError,
        r"'f' in b is",
        lambda: wb.function("f", lambda a, b: a * b**2, derivative=[lambda a, b: b**2, lambda a, b: a * b]),
    ),
    "wrong second derivative": (
        DeclarationError,
        r"\"cube'\" in r is",
        lambda: wb.function("cube'", three_squares, derivative=lambda r: 5 * r),
    ),
    "exceptions": (InputError, "math.nan", lambda: wb.function("f", compiled(_raising))),
    "call": (InputTypeError, r"1 argument \(r\); got 2", lambda: wb.function("f", cube)(t, s)),
}


def _raising(r: float) -> float:
    if r < 0:
        raise ValueError
    return r


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused(name: str) -> None:
    kind, message, make = REFUSED[name]
    with pytest.raises(kind, match=message):
        make()


def test_a_derivative_is_compared_where_both_are_finite() -> None:
    wb.function("root", compiled(lambda r: math.sqrt(r)), derivative=compiled(lambda r: 0.5 / math.sqrt(r)))
