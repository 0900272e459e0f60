"""The verifier: each invariant refuses, by its name, a program that breaks exactly it."""

from dataclasses import replace

import pytest
from wiberg.compiler.program.expression import (
    ONE,
    ZERO,
    Affine,
    Gather,
    add,
    constant,
    function,
    make,
    mul,
    name,
    power,
    read,
)
from wiberg.compiler.program.program import (
    INVARIANTS,
    Array,
    Program,
    ProgramError,
    Range,
    Statement,
    check,
    unused,
)

I = name("i")  # noqa: E741
AXIS = Range(constant(0), name("n0"))


def program():
    """t0[i] = x0[i] - y0;  value += t0[i]**2*w0[e[i]]"""
    arrays = {
        "y0": Array("y0", (), "variable"),
        "w0": Array("w0", (AXIS,), "weight"),
        "x0": Array("x0", (AXIS,), "data"),
        "x1": Array("x1", (AXIS,), "data", integer=True),
        "t0": Array("t0", (AXIS,), "local"),
        "value": Array("value", (), "output"),
    }
    gathered = read("w0", [Affine(((Gather("x1", (I,)), 1),))])
    statements = (
        Statement("t0", (I,), ("i",), add(read("x0", [I]), mul(constant_node(-1), read("y0")))),
        Statement("value", (), ("i",), mul(power(read("t0", [I]), 2), gathered), accumulate=True),
    )
    return Program(arrays, {"i": AXIS}, ("n0",), statements)


def constant_node(value):
    return make("number", (value,))


def changed(position, **fields):
    base = program()
    statements = list(base.statements)
    statements[position] = replace(statements[position], **fields)
    return replace(base, statements=tuple(statements))


def with_statement(position, statement):
    base = program()
    return replace(base, statements=(*base.statements[:position], statement, *base.statements[position:]))


def with_array(array):
    base = program()
    return replace(base, arrays={**base.arrays, array.name: array})


def changed_loops(loops, ranges):
    base = changed(1, loops=loops)
    return replace(base, ranges={**base.ranges, **ranges})


def kept_without_what_bounds_it():
    """t1[j] += 1  for i, j in 0 .. i"""
    base = with_statement(2, Statement("t1", (name("j"),), ("i", "j"), ONE, accumulate=True))
    arrays = {**base.arrays, "t1": Array("t1", (AXIS,), "local")}
    return replace(base, arrays=arrays, ranges={**base.ranges, "j": Range(constant(0), I)})


BROKEN = {
    "ranks_match": [
        lambda: changed(0, expression=read("x0")),
        lambda: changed(0, subscripts=(I, I)),
        lambda: changed(0, expression=read("x0", [Affine(((Gather("w0", (I,)), 1),))])),
    ],
    "subscripts_are_loops": [
        lambda: changed(0, expression=read("x0", [name("k")])),
        lambda: changed(0, loops=("i", "i")),
        lambda: changed(1, loops=("i", "z")),
    ],
    "arrays_are_defined_before_use": [
        lambda: replace(program(), statements=tuple(reversed(program().statements))),
        lambda: with_statement(2, Statement("x0", (I,), ("i",), ZERO)),
        lambda: changed(0, expression=read("unknown", [I])),
        lambda: changed(0, expression=read("t0", [I])),
    ],
    "each_local_has_one_definition": [
        lambda: with_statement(1, Statement("t0", (I,), ("i",), ONE)),
        lambda: changed(0, subscripts=(I + 1,)),
    ],
    "assignments_sum_nothing": [
        lambda: changed(1, accumulate=False),
    ],
    "ranges_depend_on_loops_further_out": [
        lambda: replace(program(), ranges={"i": Range(constant(0), name("k"))}),
        lambda: changed_loops(("j", "i"), {"j": Range(constant(0), I)}),
        lambda: kept_without_what_bounds_it(),
    ],
    "reductions_have_a_meaning": [
        lambda: changed(0, reduction="product"),
        lambda: changed(1, reduction="argmin"),
        lambda: with_array(Array("t0", (AXIS,), "local", integer=True)),
    ],
    "functions_are_primitives": [
        lambda: changed(0, expression=function("airy", read("x0", [I]))),
    ],
    "outputs_are_written": [
        lambda: with_array(Array("gradient_y0", (), "output")),
    ],
}


def test_a_sound_program_is_returned_as_it_is():
    sound = program()
    assert check(sound) is sound


def test_every_invariant_is_tested():
    assert set(BROKEN) == {invariant.__name__ for invariant in INVARIANTS}


@pytest.mark.parametrize(("invariant", "make_broken"), [(k, v) for k, values in BROKEN.items() for v in values])
def test_a_program_that_breaks_one_invariant_is_refused_by_its_name(invariant, make_broken):
    with pytest.raises(ProgramError, match=f"^{invariant}: "):
        check(make_broken())


@pytest.mark.parametrize(("invariant", "make_broken"), [(k, values[0]) for k, values in BROKEN.items()])
def test_the_other_invariants_do_not_complain(invariant, make_broken):
    broken = make_broken()
    complaining = {f.__name__ for f in INVARIANTS if f.__name__ != invariant and list(f(broken))}
    assert complaining <= {"each_local_has_one_definition"} - {invariant}


def test_the_error_shows_the_statements_around_the_offender():
    with pytest.raises(ProgramError, match=r"value\[\] \+= "):
        check(changed(0, expression=function("airy", read("x0", [I]))))


def test_kept_and_summed_loops_of_a_statement():
    statement = Statement("t0", (name("j"), I + 1), ("i", "j", "k"), ONE, accumulate=True)
    assert statement.kept == ("j", "i")
    assert statement.summed == ("k",)
    assert not statement.is_definition


def test_a_permutation_of_distinct_loops_is_a_definition_and_a_diagonal_is_not():
    assert Statement("t0", (name("j"), I), ("i", "j"), ONE).is_definition
    assert not Statement("t0", (I, I), ("i",), ONE).is_definition
    assert not Statement("t0", (I, constant(0)), ("i",), ONE).is_definition


def test_unused_names_are_not_taken():
    assert unused(["t0", "t1", "t3"], "t") not in {"t0", "t1", "t3"}
