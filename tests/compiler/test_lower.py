"""Lowering: what statements a formula becomes, and what is refused."""

import pytest
import sympy as sp
import wiberg as wb
from energies_table import TABLE
from wiberg.compiler.passes.lower import lower, lower_candidates, supported_functions
from wiberg.compiler.program.program import check

n, m = sp.symbols("n m", integer=True, positive=True)
i, j = sp.Idx("i", n), sp.Idx("j", m)
t, b = sp.Symbol("t", real=True), sp.Symbol("b", real=True)
x, z = sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("z", shape=(m,))
A = sp.IndexedBase("A", shape=(n, m))


def lowered(expression, **roles):
    return lower(wb.Energy(expression, **{"variables": [t], **roles}))


@pytest.mark.parametrize("name", TABLE)
def test_lowered_programs_are_sound(name):
    check(lower(TABLE[name]()))


def test_a_sum_becomes_one_accumulating_statement():
    program = lowered(sp.Sum((x[i] - t) ** 2, i), data=[x])
    assert [(s.target, s.loops, s.accumulate) for s in program.statements] == [
        ("t0", ("q0",), True), ("value", (), False)]  # fmt: skip


def test_an_inner_sum_is_lifted_once_over_its_free_index():
    inner = sp.Sum(A[i, j] * z[j], j)
    program = lowered(sp.Sum((inner - t) ** 2, i), data=[A, z])
    first, second, _ = program.statements
    assert len(first.kept) == 1 and len(first.summed) == 1
    assert second.kept == () and len(second.loops) == 1


def test_an_inner_sum_without_a_free_index_is_not_computed_in_the_outer_loop():
    program = lowered(sp.Sum((x[i] - t * sp.Sum(z[j], j)) ** 2, i), data=[x, z])
    assert all(len(s.loops) <= 1 for s in program.statements)


def test_several_indices_of_one_sum_are_one_statement():
    program = lowered(sp.Sum(A[i, j] * t, i, j), data=[A])
    assert [len(s.loops) for s in program.statements] == [2, 0]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_sums_over_short_literal_ranges_are_written_out(length):
    y = sp.IndexedBase("y", shape=(length,))
    d = sp.Idx("d", length)
    program = lower(wb.Energy(sp.Sum(y[d] ** 2, d), variables=[y]))
    assert len(program.statements) == 1 and not program.ranges
    assert len(program.statements[0].expression.reads) == length


def test_sums_over_longer_literal_ranges_stay_loops():
    y = sp.IndexedBase("y", shape=(40,))
    d = sp.Idx("d", 40)
    program = lower(wb.Energy(sp.Sum(y[d] ** 2, d), variables=[y]))
    assert len(program.statements) == 2 and len(program.ranges) == 1


@pytest.mark.parametrize("length", [10, 1000, 100_000])
def test_the_number_of_statements_does_not_grow_with_a_literal_extent(length):
    y = sp.IndexedBase("y", shape=(length,))
    d = sp.Idx("d", length)
    program = lower(wb.Energy(sp.Sum((y[d] - 1) ** 2, d), variables=[y]))
    assert len(program.statements) == 2


def test_an_empty_literal_range_gives_zero():
    d = sp.Idx("d", (3, 2))
    program = lower(wb.Energy(t**2 + sp.Sum(t * d, d), variables=[t]))
    assert len(program.statements) == 1
    assert str(program.statements[0].expression) == "y0[]**2" or "y0" in str(program.statements[0].expression)


def test_partial_ranges_keep_their_limits():
    q = sp.Idx("q", (1, n - 2))
    program = lowered(sp.Sum(x[q + 1] * t, q), data=[x])
    (limits,) = program.ranges.values()
    assert str(limits) == "1 .. n0 - 1"


def test_sum_limits_given_with_an_integer_symbol_are_understood():
    s = sp.Symbol("s", integer=True)
    program = lowered(sp.Sum(x[s] * t, (s, 0, n - 1)), data=[x])
    (limits,) = program.ranges.values()
    assert str(limits) == "0 .. n0"


def test_an_intermediate_is_defined_once_and_before_what_reads_it():
    first, second = (sp.IndexedBase(s, shape=(n,)) for s in ("first", "second"))
    program = lowered(sp.Sum(first[i] * second[i] + first[i] ** 2, i), data=[x],
                      where={second[i]: first[i] + 1, first[i]: x[i] * t})  # fmt: skip
    lets = [s for s in program.statements if s.note == "intermediate"]
    assert len(lets) == 2
    assert lets[0].target in lets[1].expression.arrays


def test_an_intermediate_over_a_short_axis_is_one_array_for_each_component():
    u, d = sp.IndexedBase("u", shape=(n, 2)), sp.Idx("d", 2)
    points = sp.IndexedBase("points", shape=(n, 2))
    program = lowered(sp.Sum(u[i, d] ** 2, i, d), data=[points], where={u[i, d]: points[i, d] - t})
    assert [len(s.kept) for s in program.statements if s.note == "intermediate"] == [1, 1]


def test_gathers_and_strides_are_affine_subscripts():
    e = sp.IndexedBase("e", shape=(m, 2), integer=True)
    long = sp.IndexedBase("long", shape=(2 * n,))
    program = lowered(sp.Sum(x[e[j, 1]] * t, j) + sp.Sum(long[2 * i] * t, i), data=[x, e, long])
    texts = {str(s) for statement in program.statements for r in statement.expression.reads for s in r.args[1]}
    assert {text.replace("q1", "q").replace("q0", "q") for text in texts} == {"x1[q, 1]", "2*q"}


def test_no_name_of_the_user_reaches_the_program():
    odd = sp.Symbol('__import__("os").system("x")', real=True)
    array = sp.IndexedBase("lambda", shape=(n,))
    program = lower(wb.Energy(sp.Sum((array[i] - odd) ** 2, i), variables=[odd], data=[array]))
    assert set(program.arrays) == {"y0", "x0", "t0", "value"}


def test_candidates_become_one_output_for_each_variable():
    program = lower_candidates(TABLE["fusion"]())
    check(program)
    outputs = [a for a in program.arrays.values() if a.role == "output"]
    assert [len(a.axes) for a in outputs] == [2]
    assert [str(s.subscripts[1]) for s in program.statements] == ["0", "1"]


# ---------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(("make", "named"), [
    (lambda: sp.zeta(t), "zeta"), (lambda: sp.Function("f")(t), "f"), (lambda: sp.airyai(t), "airyai"),
    (lambda: sp.besselj(0, t), "besselj"),
])  # fmt: skip
def test_a_function_without_a_kernel_is_refused_by_name_with_the_supported_ones(make, named):
    with pytest.raises(wb.UnsupportedError, match=rf"'odd'.*{named}.*exp"):
        wb.compile(wb.Energy(make() + t**2, variables=[t], name="odd"))


@pytest.mark.parametrize("make", [
    lambda: sp.Derivative(sp.Function("f")(t), t), lambda: sp.Integral(sp.exp(-(t**2)), (t, 0, b)),
])  # fmt: skip
def test_an_unevaluated_operation_is_refused(make):
    with pytest.raises(wb.WibergError, match="'odd'"):
        wb.compile(wb.Energy(make() + t**2 + b, variables=[t], weights=[b], name="odd"))


def test_a_piecewise_without_a_default_is_refused():
    with pytest.raises(wb.WibergError, match="Piecewise"):
        wb.compile(wb.Energy(sp.Piecewise((t**2, t < 1)), variables=[t], name="odd"))


@pytest.mark.parametrize("value", [sp.nan, sp.oo, sp.zoo])
def test_a_constant_that_is_no_number_is_refused(value):
    with pytest.raises(wb.WibergError):
        wb.compile(wb.Energy(sp.Add(t**2, value, evaluate=False), variables=[t], name="odd"))


def test_a_constant_beyond_float64_is_refused():
    with pytest.raises(wb.WibergError, match="'odd'"):
        wb.compile(wb.Energy(t**2 * sp.Integer(10) ** 400, variables=[t], name="odd"))


def test_supported_functions_are_sorted_names():
    names = supported_functions()
    assert names == sorted(names) and {"exp", "log", "Abs", "Piecewise"} <= set(names)
