"""The index language: ranges that depend on indices, gathers, products and extremes, and what is refused at a call."""

import itertools

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from wiberg.compiler.derive import derive, value
from wiberg.compiler.passes.lower import lower
from wiberg.compiler.passes.products import divide
from wiberg.compiler.program.expression import Affine, Gather, constant, name, read
from wiberg.compiler.program.program import Array, Program, Range, Statement, check
from wiberg.compiler.program.ranges import box, closed, in_order, is_closed, widened
from wiberg.compiler.program.reference import interpret, points
from wiberg.compiler.testing import DerivativeReport, check_derivatives, compare

n, m, k = sp.symbols("n m k", integer=True, positive=True)
i, a, l = sp.Idx("i", n), sp.Idx("a", m), sp.Idx("l", k)  # noqa: E741
below, above, upto = sp.Idx("j", (0, i - 1)), sp.Idx("j", (i + 1, n - 1)), sp.Idx("h", (0, i))
b, t = sp.symbols("b t", real=True)
x, y, w, u, v = (sp.IndexedBase(s, shape=(n,)) for s in "xywuv")
z, A = sp.IndexedBase("z", shape=(k,)), sp.IndexedBase("A", shape=(n, k))
e, f = sp.IndexedBase("e", shape=(m,), integer=True), sp.IndexedBase("f", shape=(n,), integer=True)
long = sp.IndexedBase("long", shape=(2 * n + 1,))


def energy(expression, **roles):
    return wb.Energy(expression, **{"variables": [y], **roles})


def reference(expression, **roles):
    return wb.compile(energy(expression, **roles), backend="reference")


def right_at(made, point, backend="reference"):
    """Every derivative at one point against the formula."""
    report = DerivativeReport("energy", 1, 1e-8)
    compare(wb.compile(made, backend=backend), [point], report, 0, np.random.default_rng(0))
    assert report.ok, str(report)


# ---------------------------------------------------------------------------------------------- derivatives

three = sp.Symbol("three", integer=True)
between = sp.Idx("g", (upto, i))
second = sp.Idx("s", (2, n - 3))
band = sp.Idx("r", (second - 2, second + 2))
ENERGIES = {
    "pairs below": lambda: energy(sp.Sum(sp.exp(-((y[i] - y[below]) ** 2)) * w[below], below, i), weights=[w]),
    "pairs above, sum in sum": lambda: energy(
        sp.Sum(sp.sin(sp.Sum(y[above] * w[i] * x[above], above)) * y[i], i), weights=[w], data=[x]
    ),
    "an inner sum of the inner index": lambda: energy(
        sp.Sum((sp.Sum(A[i, l] * z[l], l) - sp.Sum(A[below, l] * z[l], l)) ** 4, below, i), variables=[z], weights=[A]
    ),
    "three deep": lambda: energy(
        sp.Sum(sp.sin(y[i] * y[upto] * y[between]) * w[between], between, upto, i), weights=[w]
    ),
    "a non-linear sum inside a triangle": lambda: energy(
        sp.Sum(sp.log(1 + sp.Sum(sp.tanh(y[i] * y[upto] - y[between] * w[upto]) ** 2, between)), upto, i), weights=[w]
    ),
    "partial sums, gathered": lambda: energy(
        sp.Sum(u[e[a]] ** 2, a) + sp.Sum(u[i] * sp.cos(u[i]), i),
        weights=[w], data=[e], where={u[i]: sp.Sum(sp.sin(y[below]) * w[below], below)},
    ),
    "partial sums and products at the place of an extreme": lambda: energy(
        wb.minimum((u[i] - x[i]) ** 2 + 1, i) * sp.Sum(y[i] ** 2, i) + sp.Sum(v[e[a]] ** 2, a)
        + sp.Sum(wb.minimum((v[i] - A[i, l]) ** 2, i) * z[l], l),
        weights=[z], data=[x, e, A],
        where={u[i]: sp.Sum(sp.sin(y[upto]), upto), v[i]: sp.Product(1 + y[upto] / 2, upto)},
    ),
    "lags": lambda: energy(sp.Sum(y[i - below - 1] * y[below] ** 2 * w[i], below, i), weights=[w]),
    "a band": lambda: energy(
        sp.Sum((y[second] - sp.Sum(w[band - second + 2] * y[band], band)) ** 2, second) + sp.Sum(y[i] ** 4, i),
        weights=[w],
    ),
    "two neighbours, written out": lambda: energy(
        sp.Sum(sp.Sum(y[upto] * w[upto], (upto, i, i)) * y[i] + n * i, i) + sp.Sum(y[i] * w[i], i), weights=[w]
    ),
    "gathers of gathers": lambda: energy(
        sp.Sum(y[f[e[a]]] ** 2 * w[f[f[e[a]]]] + sp.sin(y[e[a]] * y[f[e[a]]]), a), weights=[w], data=[e, f]
    ),
    "arithmetic with gathers": lambda: energy(
        sp.Sum(long[2 * e[a]] ** 2 * long[e[a] + 1] + sp.sin(long[2 * e[a] + 1]), a)
        + sp.Sum(long[i + f[i]] ** 2 * x[f[i]] * (f[i] + 1), i),
        variables=[long], data=[e, f, x],
    ),
    "a minimum": lambda: energy(
        sp.Sum(sp.log(1 + wb.minimum((A[i, l] - z[l]) ** 2 * sp.exp(y[i]), i)), l) + sp.Sum(y[i] ** 2, i),
        variables=[z, y], data=[A],
    ),
    "extremes in extremes": lambda: energy(
        wb.minimum(wb.maximum(y[i] * w[upto] + x[upto], upto), i) ** 2
        + sp.Sum(wb.maximum(y[upto] * y[i], upto) * w[i], i) + wb.minimum(A[i, l] * y[i], i, l),
        weights=[w, A], data=[x],
    ),
    "a minimum as a gathered intermediate": lambda: energy(
        sp.Sum(u[e[a]] ** 2, a) + sp.Sum(u[i] * x[i], i),
        weights=[z], data=[e, A, x], where={u[i]: wb.minimum((A[i, l] * y[i] - z[l]) ** 2, l)},
    ),
    "a minimum of weights alone": lambda: energy(
        sp.Sum(y[i] ** 2 * wb.minimum(w[i] * sp.exp(z[l]), l), i) + wb.maximum(z[l], l) * y[0], weights=[w, z]
    ),
    "a minimum over three": lambda: energy(
        sp.Sum(wb.minimum((y[i] - three) ** 2, (three, 0, 2)) * w[i], i), weights=[w]
    ),
    "a product": lambda: energy(sp.Product(1 + y[i] * w[i], i) + sp.Sum(y[i] ** 2, i), weights=[w]),
    "products in a sum": lambda: energy(
        sp.Sum(sp.log(1 + sp.Product(sp.tanh(A[i, l] * z[l] + y[i]), l) ** 2), i), variables=[z], weights=[y], data=[A]
    ),
    "products over a triangle": lambda: energy(
        sp.Sum(sp.Product(y[below] + w[i], below) * x[i], i), weights=[w], data=[x]
    ),
    "products in a product": lambda: energy(
        sp.Product(sp.Product(A[i, l] * z[l] + y[i], l) + 1, i) + sp.Product(A[i, l] + z[l], i, l),
        variables=[z], weights=[y], data=[A],
    ),
    "a product over three": lambda: energy(sp.Sum(sp.Product(y[i] - three * w[i], (three, 0, 2)), i), weights=[w]),
    "a gathered product": lambda: energy(
        sp.Sum(u[e[a]] ** 2, a), weights=[z], data=[e, A], where={u[i]: sp.Product(y[i] - A[i, l] * z[l], l)}
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ENERGIES)
def test_every_derivative_is_right(case):
    report = check_derivatives(ENERGIES[case](), trials=3, backend="reference")
    assert report.ok, str(report)


@pytest.mark.parametrize("case", ENERGIES)
def test_programs_are_sound_in_all_kinds(case):
    for kind in ("value", "value_gradient_hessian", "cross", "hvp", "cross_adjoint", "data_adjoint", "many_values"):
        check(derive(ENERGIES[case](), kind))


# ---------------------------------------------------------------------------------------------- triangles


def test_all_pairs_are_visited_once():
    program = value(ENERGIES["pairs below"]())
    (pairs,) = (s for s in program.statements if len(s.loops) == 2)
    visited = points(program.ranges, pairs.loops, {"n0": 5}, {})
    found = list(zip(*(visited[loop].tolist() for loop in pairs.loops), strict=True))
    assert found == [(p, q) for p in range(5) for q in range(p)]


def test_all_ways_to_write_a_triangle_are_one():
    p, q = sp.symbols("p q", integer=True)
    term = y[p] ** 2 * y[q]
    ways = [
        sp.Sum(term, (q, 0, p - 1), (p, 0, n - 1)),
        sp.Sum(sp.Sum(term, (q, 0, p - 1)), (p, 0, n - 1)),
        sp.Sum(term, (p, q + 1, n - 1), (q, 0, n - 1)),
        sp.Sum(y[i] ** 2 * sp.Sum(y[below], below), i),
        sp.Sum(sp.Sum(y[i] ** 2 * y[below], below), i),
        sp.Sum(y[i] ** 2 * y[q], (q, 0, i - 1), i),
    ]
    point = {"y": np.array([1.0, 2.0, 3.0, 5.0])}
    expected = sum(point["y"][r] ** 2 * point["y"][s] for r in range(4) for s in range(r))
    assert [reference(way).value(point) for way in ways] == [expected] * len(ways)


def test_the_inner_loop_of_all_pairs_runs_from_the_diagonal():
    source = wb.compile(energy(sp.Sum((y[i] - y[above]) ** 4, above, i))).entry("gradient").source
    assert "for j in range(i + 1, n0):" in source
    assert source.count("in range(i + 1") == 1  # both ends of a pair in one loop


def test_an_inner_sum_of_the_inner_index_is_computed_once_for_each_value():
    program = lower(ENERGIES["an inner sum of the inner index"]())
    assert [len(s.loops) for s in program.statements if s.accumulate] == [2, 2, 2]


@pytest.mark.parametrize("size", [0, 1, 2])
def test_triangles_of_few_or_no_points_give_what_is_there(size):
    kernel = reference(sp.Sum(y[i] * y[below], below, i))
    numbers = np.arange(1.0, size + 1)
    expected = sum(p * q for p, q in itertools.combinations(numbers, 2))
    assert kernel.value({"y": numbers}) == expected
    np.testing.assert_array_equal(kernel.hessian({"y": numbers}), np.ones((size, size)) - np.eye(size))


def test_a_written_out_outer_index_limits_the_inner_one():
    first = sp.Idx("first", 3)
    kernel = reference(sp.Sum(y[first] * y[sp.Idx("s")], (sp.Idx("s"), 0, first), first) + 0 * sp.Sum(y[i], i))
    assert kernel.value({"y": [1.0, 2.0, 3.0]}) == 1 + 2 * 3 + 3 * 6


def test_loops_are_ordered_and_closed_by_their_ranges():
    ranges = {"i": Range(constant(0), name("n0")), "j": Range(constant(0), name("i")), "q": Range(name("j"), name("i"))}
    assert in_order(("q", "j", "i"), ranges) == ("i", "j", "q")
    assert closed(["j"], ranges) == ("i", "j") and closed(["q"], ranges) == ("i", "j", "q")
    assert is_closed(["i", "j"], ranges) and not is_closed(["j"], ranges)
    assert str(box("q", ranges)) == "0 .. n0 - 1"


def test_a_loop_stands_by_itself_only_where_all_that_is_read_exists():
    ranges = {"i": Range(constant(0), name("n0")), "j": Range(constant(0), name("i"))}
    array = Array("y0", (Range(constant(0), name("n0")),), "variable")
    inside, beyond = read("y0", [name("j")]), read("y0", [name("j") + -1])
    assert widened(inside, ["j"], ranges, {"y0": array}, frozenset()) == {"j": ranges["i"]}
    assert widened(beyond, ["j"], ranges, {"y0": array}, frozenset()) is None


# ---------------------------------------------------------------------------------------------- products


@pytest.mark.parametrize("backend", ["reference", "numba"])
@pytest.mark.parametrize("zeros", range(4))
def test_derivatives_of_products_are_right_where_factors_are_0(zeros, backend):
    made = wb.Energy(sp.Product(y[i] - w[i] * b, i), variables=[y], weights=[w, b], name="product with zeros")
    generator = np.random.default_rng(zeros)
    point = {s: generator.uniform(0.3, 1.5, 5) for s in "yw"}
    which = generator.permutation(5)[:zeros]
    point["w"][which] = 2 * point["y"][which]
    right_at(made, {**point, "b": np.float64(0.5)}, backend)


@pytest.mark.parametrize("zeros", range(4))
def test_derivatives_of_products_in_a_sum_are_right_where_factors_are_0(zeros):
    made = wb.Energy(
        sp.Sum(sp.Product(y[i] - A[i, l], i) ** 2 * z[l], l), variables=[y], weights=[z, A], name="products with zeros"
    )
    generator = np.random.default_rng(zeros)
    point = {s: generator.uniform(0.3, 1.5, shape) for s, shape in (("y", 5), ("z", 2), ("A", (5, 2)))}
    which = generator.permutation(5)[:zeros]
    point["A"][which, 0] = point["y"][which]
    right_at(made, point)


def test_a_gradient_of_a_product_has_no_double_loop():
    program = derive(ENERGIES["a product"](), "gradient")
    assert max(len(s.loops) for s in program.statements) == 1


def test_a_hessian_of_a_product_has_no_triple_loop():
    program = derive(ENERGIES["a product"](), "hessian")
    assert max(len(s.loops) for s in program.statements) == 2


def test_division_is_done_once():
    program = derive(ENERGIES["products in a product"](), "hessian")
    assert divide(program) == program


def test_an_empty_product_is_1():
    kernel = reference(sp.Product(y[i], i) * (1 + sp.Product(y[i], (i, 1, n - 1))))
    assert kernel.value({"y": []}) == 2.0
    assert kernel.value({"y": [3.0]}) == 6.0


# ---------------------------------------------------------------------------------------------- extremes


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_of_equal_entries_the_first_has_the_derivative(backend):
    made = wb.Energy(
        sp.Sum(wb.minimum((y[i] * x[i] - z[l]) ** 2 * w[i], i), l)
        + wb.maximum(wb.minimum(y[i] * z[l] * w[i], l), i) + sp.Sum(z[l] ** 2, l),
        variables=[y, z], weights=[w], data=[x], name="ties",
    )  # fmt: skip
    point = {"y": np.full(3, 0.5), "x": np.ones(3), "w": np.ones(3), "z": np.full(2, 0.2)}
    right_at(made, point, backend)
    gradient = wb.compile(made, backend=backend).gradient(
        {"y": point["y"], "z": point["z"]}, {"w": point["w"]}, {"x": point["x"]}
    )
    np.testing.assert_allclose(gradient, [1.4, 0, 0, 0.3, -0.2], atol=1e-12)


def test_a_maximum_is_the_largest_entry():
    kernel = reference(wb.maximum(y[i] * x[i], i), data=[x])
    assert kernel.value({"y": [1.0, -2.0, 3.0]}, x={"x": [1.0, -4.0, 2.0]}) == 8.0
    assert kernel.gradient({"y": [1.0, -2.0, 3.0]}, x={"x": [1.0, -4.0, 2.0]}).tolist() == [0.0, -4.0, 0.0]


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_an_entry_that_is_nan_makes_the_extreme_nan(backend):
    made = wb.Energy(wb.minimum(sp.log(y[i]), i), variables=[y], name="logarithms")
    assert np.isnan(wb.compile(made, backend=backend).value({"y": [3.0, -1.0, 2.0]}))


def test_the_extreme_of_an_empty_range_is_refused_at_the_call_by_name():
    with pytest.raises(wb.InputError, match=r"the minimum over i has no entry.*n = 0"):
        reference(wb.minimum(y[i] ** 2, i)).value({"y": []})


def test_the_extreme_of_a_range_that_is_empty_for_one_outer_index_is_refused():
    kernel = reference(sp.Sum(wb.minimum(y[below] ** 2, below), i))
    with pytest.raises(wb.InputError, match=r"the minimum over j has no entry"):
        kernel.value({"y": [1.0, 2.0]})
    later = reference(sp.Sum(wb.minimum(y[below] ** 2, below), (i, 1, n - 1)))
    assert later.value({"y": [3.0, 2.0, 5.0]}) == 9 + 4


def test_the_extreme_of_an_empty_literal_range_is_refused_when_compiled():
    with pytest.raises(wb.DeclarationError, match=r"'energy'.*minimum over three"):
        reference(wb.minimum(y[three], (three, 2, 1)) + sp.Sum(y[i], i)).value({"y": [1.0]})


@pytest.mark.parametrize(("reduction", "expected"), [
    ("sum", 8.0), ("product", -24.0), ("maximum", 4.0), ("minimum", -1.0), ("argmin", 1), ("argmax", 2),
])  # fmt: skip
def test_the_interpreter_knows_each_reduction(reduction, expected):
    axis = Range(constant(0), name("n0"))
    arrays = {
        "y0": Array("y0", (axis,), "variable"),
        "t0": Array("t0", (), "local", integer=reduction.startswith("arg")),
    }
    statement = Statement("t0", (), ("i",), read("y0", [name("i")]), accumulate=True, reduction=reduction)
    program = check(Program(arrays, {"i": axis}, ("n0",), (statement,)))
    assert interpret(program, {"y0": np.array([3.0, -1.0, 4.0, 2.0])}, {"n0": 4})["t0"] == expected


# ---------------------------------------------------------------------------------------------- gathers


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_derivatives_of_gathers_with_repeated_indices_are_right(backend):
    edge = sp.IndexedBase("edge", shape=(m, 2), integer=True)
    made = wb.Energy(
        sp.Sum(sp.sin(y[edge[a, 0]] * y[edge[a, 1]] * w[edge[a, 0]]) * x[edge[a, 1]], a),
        variables=[y], weights=[w], data=[edge, x], name="repeated",
    )  # fmt: skip
    generator = np.random.default_rng(0)
    point = {s: generator.uniform(-1, 1, 3) for s in "ywx"}
    right_at(made, {**point, "edge": np.array([[0, 1], [1, 0], [1, 1], [0, 1], [2, 2], [1, 2]])}, backend)


def test_sums_of_gathers_and_indices_are_counted_out_where_their_limits_do_not_prove_enough():
    kernel = reference(sp.Sum(long[f[i] + i] ** 2, i), variables=[long], data=[f])
    numbers = {"long": np.arange(9.0)}
    assert kernel.value(numbers, x={"f": [8, -1, 3, 2]}) == 64 + 0 + 25 + 25
    batch = kernel.value(numbers, x={"f": [[8, -1, 3, 2], [0, 0, 0, 5]]})
    assert batch.tolist() == [114.0, 0 + 1 + 4 + 64]


@pytest.mark.parametrize(("data", "named"), [
    ({"f": [0, 0, 0, 6]}, r"long\[.*f\[.*\] reaches 9 on axis 0"), ({"f": [0, -2, 0, 0]}, "reaches -1"),
    ({"f": [[0, 0, 0, 0], [0, 0, 0, 6]]}, "reaches 9"),
])  # fmt: skip
def test_what_a_gather_reaches_beyond_its_array_is_refused(data, named):
    with pytest.raises(wb.InputError, match=named):
        reference(sp.Sum(long[f[i] + i] ** 2, i), variables=[long], data=[f]).value({"long": np.zeros(9)}, x=data)


@pytest.mark.parametrize(("inner", "outer", "named"), [
    ([0, 3], [0, 1, 2], r"index data e has 3 at \[1\].*f\[e\["),
    ([0, 2], [0, 1, 3], r"index data f has 3 at \[2\].*y\[f\[e\["),
    ([0, -1], [0, 1, 2], "index data e has -1"),
])  # fmt: skip
def test_each_gather_of_a_gather_is_checked(inner, outer, named):
    kernel = reference(sp.Sum(y[f[e[a]]] ** 2, a), data=[e, f])
    with pytest.raises(wb.InputError, match=named):
        kernel.value({"y": np.zeros(3)}, x={"e": inner, "f": outer})


def test_gathers_of_candidates_are_checked():
    made = wb.Energy(sp.Sum((x[i] - t) ** 2, i), variables=[t], data=[x, e], candidates={t: x[e[a]]}, name="starts")
    with pytest.raises(wb.InputError, match="'starts': index data e has 2"):
        wb.minimise(wb.compile(made, backend="reference"), x={"x": [1.0, 2.0], "e": [0, 2]})


def test_a_read_at_a_constant_is_checked_also_where_its_loop_is_empty():
    kernel = reference(sp.Sum(x[0] * z[l], l) + sp.Sum(y[i], i), data=[x, z])
    with pytest.raises(wb.InputError, match="extent 0"):
        kernel.value({"y": []}, x={"x": [], "z": []})


# ---------------------------------------------------------------------------------------------- candidates


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_candidates_use_intermediates(backend):
    made = wb.Energy(
        -sp.Sum(sp.exp(-((u[i] - t) ** 2)), i), variables=[t], weights=[b], data=[x],
        where={u[i]: x[i] * b + sp.Sum(x[upto], upto)}, candidates={t: u[i]}, name="shifted",
    )  # fmt: skip
    solution = wb.minimise(wb.compile(made, backend=backend), {"b": 1.0}, {"x": [1.0, 1.0, -6.0]})
    assert abs(solution.variables["t"] - 2.5) < 0.6 and solution.converged


def test_a_subscript_is_moved_with_its_gathers():
    inner = Affine(((Gather("x1", (name("i"),)), 1),))
    outer = Affine(((Gather("x0", (inner,)), 2),), 3)
    assert str(outer.relocated(lambda array, subscripts: (f"p{array}", (name("q"), *subscripts)))) == (
        "2*px0[q, px1[q, i]] + 3"
    )
