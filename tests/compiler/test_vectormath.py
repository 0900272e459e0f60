"""The functions that kernels call: exact to 1 unit in the last place, and true to NaN and infinity, in every loop."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wiberg.compiler.machine_code import vectormath
from wiberg.compiler.machine_code.native import KERNEL_FASTMATH, compile_function
from wiberg.compiler.machine_code.signature import Signature, double_pointer, integer
from wiberg.compiler.machine_code.vectormath import exp, maximum, minimum, plain_namespace, sign


def exp_loop(x, y, out, count):
    for i in range(count):
        out[i] = exp(x[i])
    return 0


def exp_sum(x, y, out, count):
    total = 0.0
    for i in range(count):
        total += exp(x[i]) * y[i]
    out[0] = total
    return 0


def exp_alone(x, y, out, count):
    out[0] = exp(x[0])
    return 0


def two_loop(x, y, out, count):
    for i in range(count):
        out[3 * i] = maximum(x[i], y[i])
        out[3 * i + 1] = minimum(x[i], y[i])
        out[3 * i + 2] = sign(x[i])
    return 0


def sign_loop(x, y, out, count):
    for i in range(count):
        out[i] = sign(x[i])
    return 0


@pytest.fixture(scope="module")
def call():
    """call(function, x, y=..., size=...) -> out, compiled with the flags of kernels."""
    signature = Signature(integer, (double_pointer, double_pointer, double_pointer, integer))
    natives = {f: compile_function(f, signature, fastmath=KERNEL_FASTMATH)[0]
               for f in (exp_loop, exp_sum, exp_alone, two_loop, sign_loop)}  # fmt: skip

    def run(function, x, y=None, size=None):
        x = np.array(x, dtype=float)
        y = np.ones_like(x) if y is None else np.array(y, dtype=float)
        out = np.full(x.size if size is None else size, np.nan)
        natives[function].call(x.ctypes.data, y.ctypes.data, out.ctypes.data, x.size)
        return out

    return run


def ulps(got, x):
    """The error of each exp(x) in units in the last place of the exact result."""
    with mpmath.workdps(40):
        exact = [mpmath.exp(mpmath.mpf(float(v))) for v in x]
        units = [float(np.spacing(abs(float(e)))) for e in exact]
        return np.array([float(abs(mpmath.mpf(float(g)) - e) / u) for g, e, u in zip(got, exact, units, strict=True)])


RANGES = {
    "normal": (-708.0, 709.78), "small": (-1.0, 1.0), "tiny": (-1e-8, 1e-8), "gaussian": (-40.0, 0.0),
    "subnormal": (-745.0, -708.0),
}  # fmt: skip


@pytest.mark.parametrize("name", RANGES)
def test_exp_is_within_one_ulp_in_a_vectorised_loop(name, call):
    x = np.random.default_rng(1).uniform(*RANGES[name], 3000)
    assert ulps(call(exp_loop, x), x).max() <= 1.1


def test_exp_near_the_boundaries_of_its_reduction_is_within_one_ulp(call):
    edges = (np.arange(-1000, 1000) + 0.5) * math.log(2)
    x = np.concatenate([np.nextafter(edges, np.inf), edges, np.nextafter(edges, -np.inf)])
    assert ulps(call(exp_loop, x), x)[(x > -744) & (x < 709.7)].max() <= 1.1


def test_exp_of_a_million_numbers_agrees_with_numpy_to_two_ulps(call):
    x = np.random.default_rng(2).uniform(-708, 709, 1_000_000)
    expected = np.exp(x)
    assert (np.abs(call(exp_loop, x) - expected) / np.spacing(expected)).max() <= 2.0


@given(st.floats(-745, 709.7))
def test_exp_alone_is_within_one_ulp(call, x):
    assert ulps(call(exp_alone, [x]), [x]).max() <= 1.1


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 16, 33])
def test_exp_has_the_same_bits_alone_and_at_any_place_of_a_loop(count, call):
    x = np.random.default_rng(count).uniform(-50, 5, count)
    alone = np.concatenate([call(exp_alone, [v]) for v in x])
    assert np.array_equal(call(exp_loop, x), alone)


SPECIAL = [
    (math.nan, math.nan), (math.inf, math.inf), (-math.inf, 0.0), (0.0, 1.0), (-0.0, 1.0), (710.0, math.inf),
    (1e308, math.inf), (-746.0, 0.0), (-1e308, 0.0), (709.782712893384, math.exp(709.782712893384)),
    (709.7827128933841, math.inf), (-745.1332191019411, 5e-324), (-745.1332191019412, 0.0), (5e-324, 1.0),
]  # fmt: skip


@pytest.mark.parametrize("function", [exp_alone, exp_loop])
@pytest.mark.parametrize(("x", "expected"), SPECIAL)
def test_exp_of_special_numbers(function, x, expected, call):
    got = call(function, [x] * (1 if function is exp_alone else 9))
    if math.isnan(expected):
        assert np.isnan(got).all()
    elif math.isfinite(expected) and expected > 0:
        assert (np.abs(got - expected) <= np.spacing(expected)).all()
    else:
        assert (got == expected).all()


def test_one_nan_makes_a_vectorised_sum_nan(call):
    for position in range(13):
        x = np.zeros(13)
        x[position] = np.nan
        assert math.isnan(call(exp_sum, x, size=1)[0])


def test_exp_underflows_gradually(call):
    x = np.linspace(-745.0, -708.5, 500)
    got = call(exp_loop, x)
    assert (got > 0).all() and (got < np.finfo(float).tiny).all() and (np.diff(got) >= 0).all()


def test_exp_never_decreases(call):
    x = np.sort(np.random.default_rng(5).uniform(-3, 3, 20_000))
    assert (np.diff(call(exp_loop, x)) >= -np.spacing(call(exp_loop, x)[1:])).all()


# ---------------------------------------------------------------------------------------------- max, min, sign

VALUES = [-math.inf, -2.5, -5e-324, -0.0, 0.0, 5e-324, 1.0, math.inf, math.nan]


def test_maximum_and_minimum_are_numpys_and_keep_nan(call):
    x, y = (a.ravel() for a in np.meshgrid(VALUES, VALUES))
    got = call(two_loop, x, y, size=3 * x.size)
    np.testing.assert_array_equal(got[0::3], np.maximum(x, y))
    np.testing.assert_array_equal(got[1::3], np.minimum(x, y))


def test_sign_is_numpys_and_keeps_nan(call):
    x = np.array(VALUES * 3)
    np.testing.assert_array_equal(call(sign_loop, x), np.sign(x))


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_the_plain_maximum_and_minimum_are_numpys(name):
    function = plain_namespace()[name]
    for a in VALUES:
        for b in VALUES:
            np.testing.assert_array_equal(function(a, b), getattr(np, name)(a, b))


@pytest.mark.parametrize("x", VALUES)
def test_the_plain_sign_and_exp_are_numpys(x):
    np.testing.assert_array_equal(plain_namespace()["sign"](x), np.sign(x))
    assert plain_namespace()["exp"](x) == pytest.approx(np.exp(x), nan_ok=True)
    assert plain_namespace()["exp"](1e4) == math.inf


def test_plain_and_compiled_functions_have_the_same_names():
    assert all(hasattr(vectormath, name) for name in plain_namespace())


# ---------------------------------------------------------------------------------------------- made of exp, and linked

FINE = [*np.linspace(-3.0, 3.0, 200), 1e-300, -1e-17, 1e-9, -1e-5, 40.0, -40.0, 709.0, -745.0, 800.0, -800.0]
EXACT = {
    "expm1": mpmath.expm1,
    "logistic": lambda x: 1 / (1 + mpmath.exp(-x)),
    "sech": mpmath.sech,
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    "sqrt1pm1": lambda x: mpmath.sqrt(1 + x) - 1,
}


@pytest.fixture(scope="module")
def table():
    """table(name, x) -> the function of every x, from a loop compiled with the flags of kernels."""
    names = [*EXACT, "log_gamma", "finite"]
    lines = [f"        out[{len(names)}*i + {k}] = {name}(x[i])" for k, name in enumerate(names)]
    lines = ["def every(x, out, count):", "    for i in range(count):", *lines, "    return 0"]
    space = vectormath.kernel_namespace()
    exec("\n".join(lines), space)
    signature = Signature(integer, (double_pointer, double_pointer, integer))
    native, _ = compile_function(space["every"], signature, fastmath=KERNEL_FASTMATH)

    def run(name, x):
        x = np.array(x, dtype=float)
        out = np.empty((x.size, len(names)))
        native.call(x.ctypes.data, out.ctypes.data, x.size)
        return out[:, names.index(name)]

    return run


@pytest.mark.parametrize("name", EXACT)
def test_functions_made_of_exp_are_within_two_ulps_in_a_loop(name, table):
    inside = [v for v in FINE if name != "sqrt1pm1" or v > -1]
    for x, got in zip(inside, table(name, inside), strict=True):
        with mpmath.workdps(700):
            exact = EXACT[name](mpmath.mpf(x))
            rounded = float(exact)
            error = float(abs(mpmath.mpf(float(got)) - exact)) if math.isfinite(got) else 0.0
        assert got == rounded if math.isinf(rounded) else error <= 2 * np.spacing(abs(rounded)), x


@pytest.mark.parametrize("name", [*EXACT, "log_gamma", "finite"])
def test_compiled_and_plain_functions_agree(name, table):
    inside = [v for v in FINE if v > 0]
    np.testing.assert_allclose(table(name, inside), [plain_namespace()[name](v) for v in inside], rtol=1e-15)


def test_functions_made_of_exp_keep_nan_and_infinity(table):
    special = [math.nan, math.inf, -math.inf]
    expected = {
        "expm1": [math.nan, math.inf, -1.0], "logistic": [math.nan, 1.0, 0.0], "sech": [math.nan, 0.0, 0.0],
        "softplus": [math.nan, math.inf, 0.0],
        "sqrt1pm1": [math.nan, math.inf, math.nan], "finite": [0.0, 0.0, 0.0],
    }  # fmt: skip
    for name, values in expected.items():
        np.testing.assert_array_equal(table(name, special), values, err_msg=name)
