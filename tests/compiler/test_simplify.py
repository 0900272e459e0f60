"""Every pass keeps a program sound, keeps what it computes, and changes nothing when run again."""

import random

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from energies_table import TABLE, draw
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from passes import PASSES, POINTWISE_KINDS, applies, built, outputs, same
from wiberg.compiler.derive import derive, value
from wiberg.compiler.passes.lower import lower
from wiberg.compiler.passes.prepare import hoist, prepare
from wiberg.compiler.passes.share import share
from wiberg.compiler.passes.simplify import factor, forward, inline, merge, prune, simplify
from wiberg.compiler.program.expression import ONE, ZERO, add, constant, mul, name, number, power, read
from wiberg.compiler.program.program import Array, Program, Range, Statement, check
from wiberg.compiler.testing import random_energy


def run_passes(energy, program, sizes=3):
    """Run all passes in their order, with all checks after each."""
    point = draw(energy, sizes)
    expected = outputs(energy, check(program), point, sizes)
    if not all(np.isfinite(values).all() for values in expected.values()):
        return  # a random energy may overflow: there is nothing to compare
    for one in PASSES:
        before, program = program, check(one(program))
        if same(program, before):
            continue  # nothing to compare, and a second run changes nothing
        got = outputs(energy, program, point, sizes)
        assert got.keys() == expected.keys(), one.__name__
        for output, values in expected.items():
            scale = 1 + np.abs(values).max(initial=0.0)
            np.testing.assert_allclose(got[output] / scale, values / scale, rtol=0, atol=1e-11, err_msg=one.__name__)
        again = one(program)
        if same(again, program):
            continue
        if "select(" in str(program):  # products are drawn into branches, some at the second rebuilding
            program, again = again, one(again)
        assert str(again) == str(program), f"{one.__name__} is not idempotent"


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("kind", POINTWISE_KINDS)
def test_passes_keep_soundness_and_values_on_the_table(name, kind, energies):
    if not applies(energies[name], kind):
        pytest.skip("this derivative is dense")
    run_passes(energies[name], built(energies[name], kind))


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from(POINTWISE_KINDS))
def test_passes_keep_soundness_and_values_on_random_energies(seed, kind):
    energy = random_energy(random.Random(seed))
    assume(applies(energy, kind))
    run_passes(energy, built(energy, kind))


@pytest.mark.parametrize("name", TABLE)
def test_simplify_twice_changes_nothing(name, energies):
    program = simplify(lower(energies[name]))
    assert str(simplify(program)) == str(program)


@pytest.mark.parametrize("name", TABLE)
def test_deriving_twice_gives_the_same_program(name, energies):
    assert str(derive(energies[name], "value_gradient_hessian")) == str(derive(TABLE[name](), "value_gradient_hessian"))


# ---------------------------------------------------------------------------------------------- one pass at a time

I, J = name("i"), name("j")  # noqa: E741
N = Range(constant(0), name("n0"))
M = Range(constant(0), name("n1"))


def program(statements, **local_axes):
    arrays = {
        "y0": Array("y0", (N,), "variable"), "w0": Array("w0", (N, M), "weight"), "w1": Array("w1", (), "weight"),
        "x0": Array("x0", (N, M), "data"), "value": Array("value", (), "output"),
        **{t: Array(t, axes, "local") for t, axes in local_axes.items()},
    }  # fmt: skip
    return check(Program(arrays, {"i": N, "j": M, "q1": N, "q2": M}, ("n0", "n1"), tuple(statements)))


def test_prune_drops_what_no_output_needs():
    before = program([
        Statement("t0", (I,), ("i",), read("y0", [I])),
        Statement("value", (), ("i",), read("y0", [I]), accumulate=True),
    ], t0=(N,))  # fmt: skip
    after = prune(before)
    assert [s.target for s in after.statements] == ["value"]
    assert "t0" not in after.arrays and set(after.ranges) == {"i"}


def test_merge_computes_equal_arrays_once():
    before = program([
        Statement("t0", (I,), ("i", "j"), read("x0", [I, J]), accumulate=True),
        Statement("t1", (name("q1"),), ("q1", "q2"), read("x0", [name("q1"), name("q2")]), accumulate=True),
        Statement("value", (), ("i",), mul(read("t0", [I]), read("t1", [I])), accumulate=True),
    ], t0=(N,), t1=(N,))  # fmt: skip
    after = merge(before)
    assert [s.target for s in after.statements] == ["t0", "value"]
    assert after.statements[1].expression is power(read("t0", [I]), 2)


def test_inline_puts_a_map_in_the_place_of_its_read():
    before = program([
        Statement("t0", (I,), ("i",), add(read("y0", [I]), ONE)),
        Statement("value", (), ("i",), power(read("t0", [I]), 2), accumulate=True),
    ], t0=(N,))  # fmt: skip
    after = inline(before)
    assert [s.target for s in after.statements] == ["value"]
    assert after.statements[0].expression is power(add(read("y0", [I]), ONE), 2)


def test_inline_leaves_a_map_that_would_be_computed_more_often():
    before = program([
        Statement("t0", (I,), ("i",), power(add(read("y0", [I]), ONE), -3)),
        Statement("value", (), ("i", "j"), mul(read("t0", [I]), read("x0", [I, J])), accumulate=True),
    ], t0=(N,))  # fmt: skip
    assert [s.target for s in inline(before).statements] == ["t0", "value"]


def test_factor_takes_out_of_a_sum_what_does_not_change_in_it():
    before = program([
        Statement("t0", (I,), ("i", "j"), mul(read("y0", [I]), read("x0", [I, J])), accumulate=True),
        Statement("value", (), ("i",), read("t0", [I]), accumulate=True),
    ], t0=(N,))  # fmt: skip
    after = factor(before)
    assert after.statements[0].expression is read("x0", [I, J])
    assert after.statements[1].expression is mul(read("y0", [I]), read("t0_0", [I]))


def test_factor_leaves_additions_to_an_array_with_other_writers_alone():
    part = Range(constant(0), name("n0") + -1)
    base = program([Statement("value", (), ("i",), read("y0", [I]), accumulate=True)])
    arrays = {**base.arrays, "gradient_y0": Array("gradient_y0", (N,), "output")}
    before = check(Program(arrays, {**base.ranges, "p": part}, base.extents, (
        *base.statements,
        Statement("gradient_y0", (I,), ("i",), ZERO),
        Statement("gradient_y0", (name("p") + 1,), ("p",), ONE, accumulate=True),
        Statement("gradient_y0", (name("p"),), ("p",), read("w1"), accumulate=True),
    )))  # fmt: skip
    assert factor(before).statements == before.statements


def test_forward_sums_directly_into_the_output():
    base = program([Statement("value", (), ("i",), read("y0", [I]), accumulate=True)])
    arrays = {**base.arrays, "gradient_y0": Array("gradient_y0", (N,), "output"), "t0": Array("t0", (N,), "local")}
    before = check(Program(arrays, base.ranges, base.extents, (
        *base.statements,
        Statement("t0", (I,), ("i", "j"), read("x0", [I, J]), accumulate=True),
        Statement("gradient_y0", (I,), ("i",), read("t0", [I])),
    )))  # fmt: skip
    after = check(forward(before))
    assert [s.target for s in after.statements] == ["value", "gradient_y0"]
    assert after.statements[1].accumulate and "t0" not in after.arrays


def test_prepare_moves_what_depends_on_weights_alone():
    expensive = power(read("w0", [I, J]), -2)
    before = program([Statement("value", (), ("i", "j"), mul(expensive, read("x0", [I, J])), accumulate=True)])
    after = check(prepare(before))
    assert after.arrays[after.statements[0].target].role == "prepared"
    assert after.statements[0].expression is expensive


def test_prepare_makes_nothing_larger_than_the_weights():
    outer = mul(read("w1"), read("x0", [I, J]))
    before = program([Statement("value", (), ("i", "j"), outer, accumulate=True)])
    assert prepare(before).statements == before.statements


def test_hoist_gives_an_expensive_part_that_lacks_a_loop_an_array():
    from wiberg.compiler.program.expression import function

    before = program(
        [
            Statement(
                "value", (), ("i", "j"), mul(function("exp", read("y0", [I])), read("x0", [I, J])), accumulate=True
            ),
        ]
    )
    after = check(hoist(before))
    assert len(after.statements[0].loops) == 1
    assert after.statements[0].expression is function("exp", read("y0", [I]))


def test_hoist_leaves_cheap_parts_where_they_are():
    cheap = mul(add(read("y0", [I]), number(2)), read("x0", [I, J]))
    before = program([Statement("value", (), ("i", "j"), cheap, accumulate=True)])
    assert hoist(before).statements == before.statements


def test_the_value_of_the_ransac_energy_is_one_loop(energies):
    assert sum(bool(s.loops) for s in value(energies["ransac"]).statements) == 1


# ---------------------------------------------------------------------------------------------- share


def additions(*terms):
    """g[place] += term over i, for each (place, term)."""
    axis = Range(constant(0), name("n0"))
    arrays = {"y0": Array("y0", (axis,), "variable"), "g": Array("g", (axis,), "output")}
    statements = [Statement("g", (name("i"),), ("i",), ZERO)]
    statements += [Statement("g", (place,), ("i",), term, accumulate=True, adds=True) for place, term in terms]
    return check(Program(arrays, {"i": Range(constant(0), name("n0") + -1)}, ("n0",), tuple(statements)))


def test_an_expensive_term_that_is_added_to_two_places_is_computed_once():
    root = power(read("y0", [name("i")]), -0.5)
    shared = check(share(additions((name("i"), root), (name("i") + 1, mul(number(-2), root)))))
    assert [str(s) for s in shared.statements[1:]] == [
        "t2[i] = y0[i]**(-1/2)      for i      # term of g",
        "g[i] += t2[i]      for i",
        "g[i + 1] += (-2)*t2[i]      for i",
    ]


@pytest.mark.parametrize("exponents", [(-0.5, -1.5), (2, 2)])
def test_terms_that_differ_or_cost_little_are_left_where_they_are(exponents):
    terms = [power(read("y0", [name("i")]), e) for e in exponents]
    program = additions((name("i"), terms[0]), (name("i") + 1, terms[1]))
    assert share(program) == program


def test_what_may_be_infinite_stays_in_a_sum_that_may_be_over_nothing():
    """Found by fuzzing (seed 2009072): 0 terms of 1/0 are 0, not 0 times infinity."""
    n = sp.Symbol("n", integer=True, positive=True)
    y, inner = sp.IndexedBase("y", shape=(n,)), sp.Idx("q", (1, n - 1))
    kernel = wb.compile(wb.Energy(y[0] + sp.Sum(y[0] ** -2, inner), variables=[y]), backend="reference")
    assert kernel.value({"y": [0.0]}) == 0.0
    assert kernel.gradient({"y": [0.0]}) == 1.0
    assert kernel.value({"y": [2.0, 3.0, 4.0]}) == 2.5
