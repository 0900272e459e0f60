"""Every row of the table of primitives: value, first and second derivatives, the NumPy form and the compiled form."""

import math

import mpmath
import numpy as np
import pytest
from wiberg.compiler.machine_code import vectormath
from wiberg.compiler.machine_code.native import KERNEL_FASTMATH, compile_function
from wiberg.compiler.machine_code.signature import Signature, double_pointer, integer
from wiberg.compiler.passes.differentiate import partials
from wiberg.compiler.program.expression import ZERO, add, function, mul, number, read
from wiberg.compiler.program.primitives import CONDITIONS, PRIMITIVES
from wiberg.compiler.program.reference import evaluate

ANY, POSITIVE, INSIDE, ABOVE_ONE = (-2.5, 2.5), (0.05, 4.0), (-0.95, 0.95), (1.05, 4.0)


def sinc_of_order(order):
    """The derivatives of sin(x)/x, from their Taylor series."""
    first = (order + 1) // 2
    powers = [(k, 2 * k - order) for k in range(first, first + 40)]
    return lambda x: sum((-1) ** k * x**p / ((2 * k + 1) * mpmath.factorial(p)) for k, p in powers)


# Row: the domain that each argument is drawn from, and the function of mpmath. `name 2` is a row whose first argument
# is the order of a derivative, here 2.
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
    "acot": ([POSITIVE], mpmath.acot),
    "sech": ([ANY], mpmath.sech),
    "csch": ([POSITIVE], mpmath.csch),
    "coth": ([POSITIVE], mpmath.coth),
    "gaussian": ([ANY], lambda x: mpmath.exp(-(x**2))),
    "log_gamma": ([POSITIVE], mpmath.loggamma),
    "gamma": ([(-0.9, -0.1)], mpmath.gamma),
    "polygamma 0": ([POSITIVE], lambda x: mpmath.psi(0, x)),
    "polygamma 1": ([POSITIVE], lambda x: mpmath.psi(1, x)),
    "polygamma 3": ([POSITIVE], lambda x: mpmath.psi(3, x)),
    "sinc 0": ([ANY], mpmath.sinc),
    "sinc 1": ([(-6.0, 6.0)], sinc_of_order(1)),
    "sinc 2": ([(-6.0, 6.0)], sinc_of_order(2)),
    "logistic": ([ANY], lambda x: 1 / (1 + mpmath.exp(-x))),
    "softplus": ([ANY], lambda x: mpmath.log(1 + mpmath.exp(x))),
    "sqrt": ([POSITIVE], mpmath.sqrt),
    "sqrt1pm1": ([(-0.9, 3.0)], lambda x: mpmath.sqrt(1 + x) - 1),
    "cosm1": ([ANY], lambda x: mpmath.cos(x) - 1),
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
KINKS_TESTED = {
    "abs", "sign", "floor", "ceiling", "maximum", "minimum", "pow", "select", "atan2", "asin", "acos", "acosh", "acot",
    "shifted_exp", "fixed", "held", "sqrt", "sqrt1pm1",
}  # fmt: skip
CONSTANT = {"shifted_exp", "fixed", "held"}  # whose derivatives are not those of their values


def row(name):
    return PRIMITIVES[name.split()[0]]


def orders_of(name):
    """The orders in front of a row's other arguments."""
    return [float(k) for k in name.split()[1:]]


def drawn(name, points=POINTS):
    domains, _ = SMOOTH[name]
    generator = np.random.default_rng(sum(map(ord, name)))
    return [np.array([generator.uniform(*d) for d in domains]) for _ in range(points)]


def node_of(name, count):
    orders = [number(int(k)) for k in orders_of(name)]
    return function(name.split()[0], *orders, *(read(f"a{k}") for k in range(count)))


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
    own = {name for name in PRIMITIVES if not name.startswith("u_")}  # functions of users have rows, too
    assert {name.split()[0] for name in SMOOTH} | set(LOGICAL) | {"select"} | CONSTANT == own
    assert set(LOGICAL) == CONDITIONS


@pytest.mark.parametrize("name", SMOOTH)
def test_the_numpy_form_has_the_value(name):
    for point in drawn(name):
        with mpmath.workdps(50):
            expected = float(SMOOTH[name][1](*(mpmath.mpf(float(v)) for v in point)))
        assert float(row(name).numpy(*orders_of(name), *point)) == pytest.approx(expected, rel=4e-15, abs=1e-15)


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
    ("asin", [1.0], [0.0]),
    ("sqrt", [0.0], [0.0]),
    ("sqrt1pm1", [-1.0], [0.0]),
    ("acos", [-1.0], [0.0]),
    ("acosh", [1.0], [0.0]),
    ("acot", [0.0], [-1.0]),
    ("shifted_exp", [1.0, 1.0], [1.0, 0.0]),
    ("fixed", [1.0], [0.0]),
    ("held", [1.0, 2.0], [0.0, 0.0]),
    ("maximum", [1.0, np.nextafter(1.0, 2.0)], [0.0, 1.0]),
    ("minimum", [np.nextafter(1.0, 2.0), 1.0], [0.0, 1.0]),
])  # fmt: skip
def test_derivatives_at_a_kink_are_those_of_the_row(name, point, expected):
    node = node_of(name, len(point))
    assert [at(derivative(node, k), point) for k in range(len(point))] == expected


def test_atan2_at_the_origin_is_zero_and_beside_it_has_no_jump_along_x():
    assert PRIMITIVES["atan2"].numpy(0.0, 0.0) == 0.0
    node = node_of("atan2", 2)
    assert [at(derivative(node, k), [0.0, 0.0]) for k in range(2)] == [0.0, 0.0]
    assert [at(derivative(node, k), [0.0, 1e-9]) for k in range(2)] == pytest.approx([1e9, 0.0])


@pytest.mark.parametrize(("base", "exponent", "expected"), [
    (0.0, 2.0, [0.0, 0.0]), (0.0, 1.0, [1.0, 0.0]), (-2.0, 2.0, [-4.0, 0.0]), (-2.0, 3.0, [12.0, 0.0]),
    (0.0, 0.0, [0.0, 0.0]), (0.0, 0.5, [0.0, 0.0]),
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
    rows = [*SMOOTH, *LOGICAL, "select"]
    lines = ["def every_row(p, out):", "    a, b = p[0], p[1]", "    c, d = a > 0.5, b > 0.5"]
    for k, name in enumerate(rows):
        form = row(name).kernel
        arguments = ["c", "d"] if name in ("and", "or", "not") else ["c", "a", "b"] if name == "select" else ["a", "b"]
        arguments = [*map(str, orders_of(name)), *arguments]
        lines.append(f"    out[{k}] = 1.0 * ({form.format(*arguments[: form.count('{')])})")
    lines.append("    return 0")
    space = {"math": math, "np": np, **vectormath.kernel_namespace()}
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
    with np.errstate(all="ignore"):
        assert math.isnan(float(row(name).numpy(*orders_of(name), *arguments)))


# ---------------------------------------------------------------------------------------------- wide ranges

SIZES = (1e-9, 1e-4, 0.03, 0.4, 1.7, 6.3, 30.0, 200.0, 650.0)
BOTH = [sign * size for size in SIZES for sign in (-1, 1)]
ABOVE = [1.0 + size for size in SIZES]

# Row: where it is tested, and the function of mpmath.
WIDE = {
    "exp": (BOTH, mpmath.exp), "expm1": (BOTH, mpmath.expm1), "log": (SIZES, mpmath.log),
    "log1p": ([*(s - 1 for s in SIZES[2:5]), *BOTH[:6], *SIZES[3:]], mpmath.log1p),
    "sinh": (BOTH, mpmath.sinh), "cosh": (BOTH, mpmath.cosh), "tanh": (BOTH, mpmath.tanh),
    "sech": (BOTH, mpmath.sech), "csch": (BOTH, mpmath.csch), "coth": (BOTH, mpmath.coth),
    "asinh": (BOTH, mpmath.asinh), "acosh": (ABOVE, mpmath.acosh), "atan": (BOTH, mpmath.atan),
    "acot": (BOTH, mpmath.acot), "asin": ([1 - s for s in SIZES[:4]], mpmath.asin),
    "acos": ([1 - s for s in SIZES[:4]], mpmath.acos), "atanh": ([1 - s for s in SIZES[:4]], mpmath.atanh),
    "erf": (BOTH[:12], mpmath.erf), "erfc": ([*BOTH[:12], 12.0, 26.0], mpmath.erfc),
    "gaussian": ([*BOTH[:12], 26.0], lambda x: mpmath.exp(-(x**2))),
    "log_gamma": (SIZES, mpmath.loggamma), "gamma": (SIZES[:7], mpmath.gamma),
    "polygamma 0": (SIZES, lambda x: mpmath.psi(0, x)), "polygamma 2": (SIZES, lambda x: mpmath.psi(2, x)),
    "sinc 0": (BOTH, mpmath.sinc), "logistic": (BOTH, lambda x: 1 / (1 + mpmath.exp(-x))),
    "softplus": (BOTH, lambda x: mpmath.log1p(mpmath.exp(x))),
    "sqrt1pm1": ([*BOTH[:6], *SIZES], lambda x: mpmath.sqrt(1 + x) - 1),
    "cosm1": (BOTH, lambda x: mpmath.cos(x) - 1),
}  # fmt: skip


@pytest.fixture(scope="module")
def jets():
    """jets(name, x): value and three derivatives by the compiled forms."""
    text = ["def jets(p, out):", "    x = p[0]"]
    rows = {}
    for name in WIDE:
        node = node_of(name, 1)
        for _ in range(4):
            text.append(f"    out[{len(text) - 2}] = {written(node)}")
            rows.setdefault(name, len(text) - 3)
            node = derivative(node, 0)
    text.append("    return 0")
    space = {"math": math, "np": np, **vectormath.kernel_namespace()}
    exec("\n".join(text), space)
    native, _ = compile_function(
        space["jets"], Signature(integer, (double_pointer, double_pointer)), fastmath=KERNEL_FASTMATH
    )

    def call(name, x):
        point, out = np.array([x]), np.zeros(len(text))
        native.call(point.ctypes.data, out.ctypes.data)
        return out[rows[name] : rows[name] + 4]

    return call


def written(node):
    """The source text of an expression in x, as plain as it can be."""
    if node.name == "number":
        return repr(float(node.args[0]))
    if node.name == "read":
        return "x"
    if node.name == "power":
        return f"({written(node.args[0])})**({float(node.args[1])!r})"
    sign = {"add": " + ", "mul": " * "}.get(node.name)
    parts = [written(a) for a in node.args]
    return f"({sign.join(parts)})" if sign else PRIMITIVES[node.name].kernel.format(*parts)


def polygamma_jet(order):
    return lambda x: [mpmath.psi(order + k, x) for k in range(4)]


def bell_jet(x):
    bell = mpmath.exp(-(x**2))
    return [bell, -2 * x * bell, (4 * x**2 - 2) * bell, (12 * x - 8 * x**3) * bell]


KNOWN_JETS = {
    "gaussian": bell_jet,
    "erf": lambda x: [mpmath.erf(x), *(2 / mpmath.sqrt(mpmath.pi) * v for v in bell_jet(x)[:3])],
    "erfc": lambda x: [mpmath.erfc(x), *(-2 / mpmath.sqrt(mpmath.pi) * v for v in bell_jet(x)[:3])],
    "log_gamma": lambda x: [mpmath.loggamma(x), *polygamma_jet(0)(x)[:3]],
    "polygamma 0": polygamma_jet(0),
    "polygamma 2": polygamma_jet(2),
}


def exact_jet(name, x):
    """Value and three derivatives; by differences they lose the digits of exp(-650) and three times the step."""
    if name in KNOWN_JETS:
        with mpmath.workdps(40):
            return np.array([float(v) for v in KNOWN_JETS[name](mpmath.mpf(x))])
    with mpmath.workdps(60 if name == "gamma" else 350):
        return [float(v) for v in mpmath.taylor(WIDE[name][1], mpmath.mpf(x), 3)] * np.array([1, 1, 2, 6])


@pytest.mark.parametrize("name", WIDE)
def test_three_derivatives_are_right_over_a_wide_range_in_both_forms(name, jets):
    node = node_of(name, 1)
    orders = [node]
    for _ in range(3):
        orders.append(derivative(orders[-1], 0))
    for x in WIDE[name][0]:
        exact = exact_jet(name, x)
        for kind, got in (("numpy", [at(one, [x]) for one in orders]), ("compiled", jets(name, x))):
            for k in range(4):
                near = 1e-16 if name in ("logistic", "softplus") else 0.0  # a zero of a derivative
                lost = 1e-13 * np.abs(exact[: k + 1]).min() if abs(x) > 0.1 else near
                assert got[k] == pytest.approx(exact[k], rel=2e-13 * 4**k, abs=lost), (kind, x, k)


def test_the_derivative_of_erfc_keeps_its_last_digits_far_out():
    node = derivative(node_of("erfc", 1), 0)
    for x in (3.3, 9.7, 17.1, 25.9):
        with mpmath.workdps(40):
            exact = float(-2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-(mpmath.mpf(x) ** 2)))
        assert abs(at(node, [x]) - exact) <= 4 * np.spacing(abs(exact))


@pytest.mark.parametrize("x", [0.0, 1e-300, 1e-160, -1e-8, 1e-3])
def test_sinc_has_its_derivatives_at_zero_and_beside_it(x):
    node = node_of("sinc 0", 1)
    expected = [1 - x**2 / 6, -x / 3 + x**3 / 30, -1 / 3 + x**2 / 10, x / 5 - x**3 / 42]
    for value in expected:
        assert at(node, [x]) == pytest.approx(value, rel=1e-12, abs=0.0)
        node = derivative(node, 0)
