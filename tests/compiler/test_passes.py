"""Every pass preserves meaning: programs are interpreted before and after it, on the table and on random energies.

test_simplify.py has the passes from program to program of simplify.py and prepare.py; here are those that add outputs
(differentiate.py, `many_values`), that order loops (schedule.py) and that rewrite expressions (freeze.py), and a guard
that no pass is left out.
"""

import inspect
import random
from dataclasses import replace

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from energies_table import TABLE, draw, generated
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from passes import PASSES, POINTWISE_KINDS, applies, built, number_of, outputs
from wiberg.compiler.derive import COUNT, derive, many_values, scheduled, value
from wiberg.compiler.passes import prepare, products, share, simplify
from wiberg.compiler.passes.differentiate import gradient, inputs_of, second, tangent
from wiberg.compiler.passes.simplify import merge
from wiberg.compiler.program.program import check
from wiberg.compiler.program.reference import interpret
from wiberg.compiler.testing import random_energy
from wiberg.compiler.text.freeze import Placement, freeze

SIZES = 3
random_energies = st.integers(0, 2**32 - 1).map(lambda seed: random_energy(random.Random(seed)))


def assert_same(got, expected, name):
    assert got.keys() >= expected.keys()
    for output, values in expected.items():
        scale = 1 + np.abs(values).max(initial=0.0)
        np.testing.assert_allclose(got[output] / scale, values / scale, rtol=0, atol=1e-11, err_msg=f"{name}: {output}")


def test_no_pass_is_left_out():
    """Whatever these modules offer from program to program is among the passes of passes.py."""
    offered = {
        function
        for module in (simplify, prepare, products, share)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and not name.startswith("_")
        and list(inspect.signature(function).parameters) == ["program"]
    }
    assert offered - {simplify.simplify} == set(PASSES)


# ---------------------------------------------------------------------------------------------- differentiate


def differentiated(energy):
    """The program of the energy, and all that differentiation makes of it."""
    program = value(energy)
    variables, weights = inputs_of(program, "variable"), inputs_of(program, "weight")
    yield "gradient", program, gradient(program, variables)
    yield "tangent", program, tangent(program)
    yield "hessian", program, second(program, variables, variables, prefix="hessian")
    yield "cross", program, second(program, variables, weights, prefix="cross")
    dot = tangent(program)
    yield "adjoint", dot, gradient(dot, weights, of="value_dot", prefix="cross_adjoint")


def assert_differentiation_adds(energy):
    for name, before, after in differentiated(energy):
        assert after.statements[: len(before.statements)] == before.statements, name
        check(after)
        point = draw(energy, SIZES)
        assert_same(outputs(energy, after, point, SIZES), outputs(energy, before, point, SIZES), name)


@pytest.mark.parametrize("name", TABLE)
def test_differentiation_leaves_what_was_computed_before_on_the_table(name, energies):
    assert_differentiation_adds(energies[name])


@settings(max_examples=20)
@given(random_energies)
def test_differentiation_leaves_what_was_computed_before_on_random_energies(energy):
    assert_differentiation_adds(energy)


# ---------------------------------------------------------------------------------------------- many values


def assert_many_values_are_single_values(energy):
    count, before, after = 4, value(energy), merge(check(many_values(energy)))
    points = [draw(energy, SIZES, seed=seed) for seed in range(count)]
    shared = points[0][1:]
    inputs, extents = generated(energy, before, points[0], SIZES)
    single = [interpret(before, generated(energy, before, (p[0], *shared), SIZES)[0], extents)["value"] for p in points]
    for k, symbol in enumerate(energy.variables):
        inputs[f"y{k}"] = np.stack([p[0][str(symbol)] for p in points])
    together = interpret(after, inputs, {**extents, COUNT: count})["value"]
    np.testing.assert_allclose(together, single, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", TABLE)
def test_many_values_are_single_values_on_the_table(name, energies):
    assert_many_values_are_single_values(energies[name])


@settings(max_examples=20)
@given(random_energies)
def test_many_values_are_single_values_on_random_energies(energy):
    assert_many_values_are_single_values(energy)


# ---------------------------------------------------------------------------------------------- schedule


def assert_schedule_preserves(energy, kind):
    """The statements in the order of the nests, with the layout that they were given, are a program as well."""
    point = draw(energy, SIZES)
    program, plan = scheduled(energy, kind)
    nests = (*plan.prepare, *plan.evaluate)
    after = replace(plan.program, statements=tuple(s for nest in nests for s in nest.statements))
    assert sorted(s.target for s in after.statements if s.note != COPY) == sorted(s.target for s in program.statements)
    assert all(set(s.loops) == set(nest.loops) for nest in nests for s in nest.statements)
    expected = outputs(energy, derive(energy, kind), point, SIZES)
    assert_same(outputs(energy, program, point, SIZES), expected, "prepare and hoist")
    assert_same(outputs(energy, check(after), point, SIZES), expected, "schedule")


COPY = "a weight, laid out for the inner loop"


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("kind", ["value_gradient_hessian", "cross", "cross_adjoint"])
def test_scheduling_preserves_meaning_on_the_table(name, kind, energies):
    assert_schedule_preserves(energies[name], kind)


@settings(max_examples=40)
@given(random_energies, st.sampled_from(POINTWISE_KINDS))
def test_scheduling_preserves_meaning_on_random_energies(energy, kind):
    assume(applies(energy, kind))
    assert_schedule_preserves(energy, kind)


def test_a_block_of_the_hessian_is_written_along_its_rows():
    """q[j, p] meets q[j, p] alone: the zeros of all other entries go along the second joint, which lies closer."""
    j, k, p = sp.Idx("j", 17), sp.Idx("k", 17), sp.Idx("p", 3)
    q, b = sp.IndexedBase("q", shape=(17, 3)), sp.IndexedBase("b", shape=(17,))
    energy = wb.Energy(sp.Sum(b[j] * q[j, p] ** 2, j, p) + sp.Sum(b[k] * q[k, 0] * q[k, 1], k), variables=[q], data=[b])
    _, plan = scheduled(energy, "hessian")
    over_pairs = [(s, nest.loops) for nest in plan.evaluate for s in nest.statements if len(s.loops) == 2]
    assert over_pairs
    for statement, loops in over_pairs:
        assert [str(s.single) for s in statement.subscripts if s.single] == list(loops)


# ---------------------------------------------------------------------------------------------- freeze


def assert_freezing_preserves(energy, kind):
    _, plan = scheduled(energy, kind)
    for nest in (*plan.prepare, *plan.evaluate):
        before = [s.expression for s in nest.statements]
        after = freeze(nest.statements, Placement(nest.loops))
        memo = {}
        with np.errstate(all="ignore"):
            expected, got = ([number_of(node, memo) for node in nodes] for nodes in (before, after))
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9, err_msg=kind)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("kind", ["value_gradient_hessian", "cross", "cross_adjoint"])
def test_freezing_preserves_meaning_on_the_table(name, kind, energies):
    assert_freezing_preserves(energies[name], kind)


@settings(max_examples=40)
@given(random_energies, st.sampled_from(POINTWISE_KINDS))
def test_freezing_preserves_meaning_on_random_energies(energy, kind):
    assume(applies(energy, kind))
    assert_freezing_preserves(energy, kind)


@pytest.mark.parametrize("kind", POINTWISE_KINDS)
def test_passes_of_derivation_keep_the_outputs_of_a_kind(kind, energies):
    """The whole way: what a kind builds first, and what is left of it at the end."""
    energy = energies["springs" if "sparse" in kind else "pose"]
    if not applies(energy, kind):
        pytest.skip("this derivative is dense")
    point = draw(energy, SIZES)
    assert_same(
        outputs(energy, derive(energy, kind), point, SIZES), outputs(energy, built(energy, kind), point, SIZES), kind
    )
