"""Every row of the table of primitives: value, first and second derivatives, the NumPy form and the compiled form."""

import math

import mpmath
import numpy as np
import pytest
from wiberg.compiler import vectormath
from wiberg.compiler.differentiate import partials
from wiberg.compiler.expression import ZERO, add, function, mul, read
from wiberg.compiler.native import KERNEL_FASTMATH, compile_function
from wiberg.compiler.primitives import CONDITIONS, PRIMITIVES
from wiberg.compiler.reference import evaluate
from wiberg.compiler.signature import Signature, double_pointer, integer

ANY, POSITIVE, INSIDE, ABOVE_ONE = (-2.5, 2.5), (0.05, 4.0), (-0.95, 0.95), (1.05, 4.0)

# Row: the domain that each argument is drawn from, and the function of mpmath.
SMOOTH = {
    "exp": ([ANY], mpmath.exp),
    "log": ([POSITIVE], mpmath.log),
    "log1p": ([(-0.9, 3.0)], lambda x: mpmath.log(1 + x)),
    "expm1": ([ANY], lambda x: mpmath.exp(x) - 1),
    "sin": ([ANY], mpmath.sin),
    "cos": ([ANY], mpmath.cos),
    "tan": ([(-1.4, 1.4)], mpmath.tan),
    "asin": ([INSIDE], mpmath.asin),
    "acos": ([INSIDE], mpmath.acos),
    "atan": ([ANY], mpmath.atan),
    "sinh": ([ANY], mpmath.sinh),
    "cosh": ([ANY], mpmath.cosh),
    "tanh": ([ANY], mpmath.tanh),
    "asinh": ([ANY], mpmath.asinh),
    "acosh": ([ABOVE_ONE], mpmath.acosh),
    "atanh": ([INSIDE], mpmath.atanh),
    "atan2": ([ANY, ANY], mpmath.atan2),
    "erf": ([ANY], mpmath.erf),
    "erfc": ([ANY], mpmath.erfc),
    "pow": ([POSITIVE, ANY], mpmath.power),
    "abs": ([ANY], abs),
    "sign": ([ANY], mpmath.sign),
    "floor": ([ANY], mpmath.floor),
    "ceiling": ([ANY], mpmath.ceil),
    "maximum": ([ANY, ANY], max),
    "minimum": ([ANY, ANY], min),
}
LOGICAL = {
    "less": lambda a, b: a < b,
    "less_equal": lambda a, b: a <= b,
    "equal": lambda a, b: a == b,
    "and": lambda a, b: bool(a) and bool(b),
    "or": lambda a, b: bool(a) or bool(b),
    "not": lambda a: not a,
}
POINTS = 12
KINKS_TESTED = {"abs", "sign", "floor", "ceiling", "maximum", "minimum", "pow", "select", "atan2"}


def drawn(name, points=POINTS):
    domains, _ = SMOOTH[name]
    generator = np.random.default_rng(sum(map(ord, name)))
    return [np.array([generator.uniform(*d) for d in domains]) for _ in range(points)]


def node_of(name, count):
    return function(name, *(read(f"a{k}") for k in range(count)))


def at(node, point):
    with np.errstate(all="ignore"):
        return float(evaluate(node, {f"a{k}": np.float64(v) for k, v in enumerate(point)}, {}, {}))


def derivative(node, k):
    return partials(node, frozenset({f"a{k}"}), {}).get(read(f"a{k}"), ZERO)


def reference(name, point, orders):
    with mpmath.workdps(50):
        arguments = tuple(mpmath.mpf(float(v)) for v in point)
        return float(mpmath.diff(SMOOTH[name][1], arguments, orders, h=mpmath.mpf(10) ** -15))


def test_no_row_is_left_out():
    assert set(SMOOTH) | set(LOGICAL) | {"select"} == set(PRIMITIVES)
    assert set(LOGICAL) == CONDITIONS


@pytest.mark.parametrize("name", SMOOTH)
def test_the_numpy_form_has_the_value(name):
    for point in drawn(name):
        with mpmath.workdps(50):
            expected = float(SMOOTH[name][1](*(mpmath.mpf(float(v)) for v in point)))
        assert float(PRIMITIVES[name].numpy(*point)) == pytest.approx(expected, rel=4e-15, abs=1e-15)


@pytest.mark.parametrize("name", SMOOTH)
def test_first_derivatives_agree_with_mpmath(name):
    count = len(SMOOTH[name][0])
    node = node_of(name, count)
    for point in drawn(name):
        for k in range(count):
            orders = tuple(int(j == k) for j in range(count))
            expected = reference(name, point, orders)
            assert at(derivative(node, k), point) == pytest.approx(expected, rel=1e-12, abs=1e-13), (name, k, point)


@pytest.mark.parametrize("name", SMOOTH)
def test_second_derivatives_agree_with_mpmath(name):
    count = len(SMOOTH[name][0])
    node = node_of(name, count)
    for point in drawn(name):
        for k in range(count):
            for other in range(count):
                orders = tuple(int(j == k) + int(j == other) for j in range(count))
                got = at(derivative(derivative(node, k), other), point)
                assert got == pytest.approx(reference(name, point, orders), rel=1e-11, abs=1e-12), (
                    name,
                    k,
                    other,
                    point,
                )


# ---------------------------------------------------------------------------------------------- conditions and select

PAIRS = [(0.0, 0.0), (-1.0, 2.0), (2.0, -1.0), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0)]


@pytest.mark.parametrize("name", LOGICAL)
def test_the_numpy_form_of_a_condition_has_the_truth(name):
    for pair in PAIRS:
        arguments = pair[:1] if name == "not" else pair
        assert bool(PRIMITIVES[name].numpy(*arguments)) == LOGICAL[name](*arguments)


@pytest.mark.parametrize("name", LOGICAL)
def test_the_derivative_of_a_condition_is_zero(name):
    arguments = [read("a0")] if name == "not" else [read("a0"), read("a1")]
    node = function(name, *arguments)
    assert set(PRIMITIVES[name].partials(node, *arguments)) == {ZERO}


def test_select_differentiates_its_branches_and_not_its_condition():
    a, b = read("a0"), read("a1")
    node = function("select", function("less", a, b), mul(a, a), add(b, a))
    assert [at(derivative(node, 0), p) for p in ((1.0, 2.0), (3.0, 2.0))] == [2.0, 1.0]
    assert [at(derivative(node, 1), p) for p in ((1.0, 2.0), (3.0, 2.0))] == [0.0, 1.0]


def test_the_branch_that_is_not_taken_does_not_spoil_the_derivative():
    a = read("a0")
    node = function("select", function("less", ZERO, a), function("log", a), ZERO)
    assert at(derivative(node, 0), [-1.0]) == 0.0
    assert at(derivative(node, 0), [0.0]) == 0.0


# ---------------------------------------------------------------------------------------------- kinks


@pytest.mark.parametrize(("name", "point", "expected"), [
    ("abs", [0.0], [0.0]),
    ("sign", [0.0], [0.0]),
    ("floor", [2.0], [0.0]),
    ("ceiling", [2.0], [0.0]),
    ("maximum", [1.5, 1.5], [1.0, 0.0]),
    ("minimum", [1.5, 1.5], [1.0, 0.0]),
    ("maximum", [1.0, np.nextafter(1.0, 2.0)], [0.0, 1.0]),
    ("minimum", [np.nextafter(1.0, 2.0), 1.0], [0.0, 1.0]),
])  # fmt: skip
def test_derivatives_at_a_kink_are_those_of_the_row(name, point, expected):
    node = node_of(name, len(point))
    assert [at(derivative(node, k), point) for k in range(len(point))] == expected


def test_atan2_at_the_origin_is_zero_and_beside_it_has_no_jump_along_x():
    assert PRIMITIVES["atan2"].numpy(0.0, 0.0) == 0.0
    node = node_of("atan2", 2)
    assert [at(derivative(node, k), [0.0, 1e-9]) for k in range(2)] == pytest.approx([1e9, 0.0])


@pytest.mark.parametrize(("base", "exponent", "expected"), [
    (0.0, 2.0, [0.0, 0.0]), (0.0, 1.0, [1.0, 0.0]), (-2.0, 2.0, [-4.0, 0.0]), (-2.0, 3.0, [12.0, 0.0]),
])  # fmt: skip
def test_derivatives_of_a_power_at_and_below_zero(base, exponent, expected):
    node = node_of("pow", 2)
    assert [at(derivative(node, k), [base, exponent]) for k in range(2)] == pytest.approx(expected)


def test_a_kink_of_every_row_that_has_one_is_tested():
    assert {name for name, row in PRIMITIVES.items() if row.kink} <= KINKS_TESTED


# ---------------------------------------------------------------------------------------------- compiled


@pytest.fixture(scope="module")
def compiled():
    """One function that writes the kernel form of every row: out[k] for row k at the point."""
    rows = list(PRIMITIVES)
    lines = ["def every_row(p, out):", "    a, b = p[0], p[1]", "    c, d = a > 0.5, b > 0.5"]
    for k, name in enumerate(rows):
        form = PRIMITIVES[name].kernel
        count = form.count("{")
        arguments = ["c", "d"] if name in ("and", "or", "not") else ["c", "a", "b"] if name == "select" else ["a", "b"]
        lines.append(f"    out[{k}] = 1.0 * ({form.format(*arguments[:count])})")
    lines.append("    return 0")
    space = {
        "math": math,
        "np": np,
        "exp": vectormath.exp,
        "sign": vectormath.sign,
        "maximum": vectormath.maximum,
        "minimum": vectormath.minimum,
    }
    exec("\n".join(lines), space)
    signature = Signature(integer, (double_pointer, double_pointer))
    native, _ = compile_function(space["every_row"], signature, fastmath=KERNEL_FASTMATH)

    def call(name, *arguments):
        point, out = np.array([*arguments, 0.0, 0.0])[:2].copy(), np.full(len(rows), np.nan)
        native.call(point.ctypes.data, out.ctypes.data)
        return out[rows.index(name)]

    return call


@pytest.mark.parametrize("name", SMOOTH)
def test_the_compiled_form_has_the_value(name, compiled):
    for point in drawn(name):
        with mpmath.workdps(50):
            expected = float(SMOOTH[name][1](*(mpmath.mpf(float(v)) for v in point)))
        assert compiled(name, *point) == pytest.approx(expected, rel=4e-15, abs=1e-15)


@pytest.mark.parametrize("name", LOGICAL)
def test_the_compiled_form_of_a_condition_has_the_truth(name, compiled):
    for pair in PAIRS:
        arguments = pair[:1] if name == "not" else pair
        truths = [v > 0.5 for v in arguments] if name in ("and", "or", "not") else arguments
        assert compiled(name, *arguments) == LOGICAL[name](*truths)


def test_the_compiled_select_takes_the_branch_of_its_condition(compiled):
    assert compiled("select", 1.0, 7.0) == 1.0
    assert compiled("select", 0.0, 7.0) == 7.0


@pytest.mark.parametrize("name", sorted(set(SMOOTH) - {"pow", "atan2"}))
def test_nan_stays_nan_in_both_forms(name, compiled):
    arguments = [math.nan] * len(SMOOTH[name][0])
    assert math.isnan(compiled(name, *arguments))
    assert math.isnan(float(PRIMITIVES[name].numpy(*arguments)))
