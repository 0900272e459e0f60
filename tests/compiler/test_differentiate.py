"""Derivatives of programs against the SymPy expression itself, and what the derived programs look like."""

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from energies_table import TABLE, draw, generated
from wiberg.compiler.derive import KINDS, derive, value
from wiberg.compiler.passes.differentiate import depending, gradient, inputs_of, partials, second, tangent
from wiberg.compiler.program.expression import ONE, ZERO, add, function, mul, number, power, read, select
from wiberg.compiler.program.program import check
from wiberg.compiler.program.reference import interpret
from wiberg.compiler.testing import check_derivatives

X, Y = read("x"), read("y")


@pytest.mark.parametrize("name", TABLE)
def test_all_derivatives_agree_with_the_formula(name, energies, references):
    report = check_derivatives(energies[name], trials=2, seed=1, kernel=references[name])
    assert report.ok, str(report)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("many_values", "candidates")])
def test_derived_programs_are_sound_before_simplification(name, kind, energies):
    check(KINDS[kind].build(energies[name]))


# ---------------------------------------------------------------------------------------------- pointwise


@pytest.mark.parametrize(("node", "expected"), [
    (add(X, Y, number(3)), ONE),
    (mul(number(2), X, Y), mul(number(2), Y)),
    (power(X, 3), mul(number(3), power(X, 2))),
    (function("exp", mul(X, Y)), mul(Y, function("exp", mul(X, Y)))),
    (select(function("less", X, ZERO), X, Y), select(function("less", X, ZERO), ONE, ZERO)),
])  # fmt: skip
def test_partial_derivatives_of_a_formula(node, expected):
    assert partials(node, frozenset({"x"}), {})[X] is expected


def test_reads_that_are_not_active_are_constants():
    assert partials(mul(X, Y), frozenset({"y"}), {}) == {Y: X}
    assert partials(mul(X, Y), frozenset(), {}) == {}


def test_a_read_at_two_places_has_two_derivatives():
    first, second_ = (read("x", [s]) for s in _subscripts())
    assert set(partials(mul(first, second_), frozenset({"x"}), {})) == {first, second_}


def _subscripts():
    from wiberg.compiler.program.expression import name

    return name("i"), name("i") + 1


def test_a_select_with_equal_derivatives_needs_no_select():
    node = select(function("less", X, ZERO), add(X, ONE), add(X, Y))
    assert partials(node, frozenset({"x"}), {})[X] is ONE


# ---------------------------------------------------------------------------------------------- programs


def test_depending_finds_everything_computed_from_the_roots(energies):
    program = value(energies["lets"])
    found = depending(program, inputs_of(program, "variable"))
    assert "value" in found and "x0" not in found and "w0" not in found


def test_the_gradient_leaves_the_value_statements_as_they_are(energies):
    program = value(energies["fusion"])
    with_gradient = gradient(program, inputs_of(program, "variable"))
    assert with_gradient.statements[: len(program.statements)] == program.statements


def test_the_tangent_is_the_gradient_along_the_direction(energies):
    energy = energies["lets"]
    program = value(energy)
    point = draw(energy, 4)
    inputs, extents = generated(energy, tangent(program), point, 4)
    values = interpret(tangent(program), inputs, extents)
    slopes = interpret(gradient(program, ["y0"]), inputs, extents)["gradient_y0"]
    assert values["value_dot"] == pytest.approx(slopes @ inputs["v0"])


def test_second_derivatives_of_two_variables_have_one_block_for_each_pair_in_order(energies):
    program = value(energies["cross_blocks"])
    roots = inputs_of(program, "variable")
    outputs = [a for a in second(program, roots, roots, prefix="hessian").arrays if a.startswith("hessian_")]
    assert outputs == [f"hessian_{a}_{b}" for k, a in enumerate(roots) for b in roots[k:]]


def test_the_hessian_of_the_pose_energy_has_one_triple_loop(energies):
    program = derive(energies["pose"], "hessian")
    depths = [len(s.loops) for s in program.statements]
    assert max(depths) == 3 and depths.count(3) == 1


def test_the_hessian_of_a_least_squares_energy_is_one_contraction(energies):
    program = derive(energies["logistic"], "hessian")
    assert sum(len(s.loops) == 3 for s in program.statements) == 1


@pytest.mark.parametrize("kind", ["gradient", "weight_gradient", "hvp", "cross_adjoint", "data_adjoint"])
@pytest.mark.parametrize("name", ["pose", "fusion", "logistic", "springs", "lets"])
def test_first_order_kinds_need_no_deeper_loops_than_the_value(name, kind, energies):
    deepest = max(len(s.loops) for s in value(energies[name]).statements)
    assert max(len(s.loops) for s in derive(energies[name], kind).statements) <= max(deepest, 2)


def test_an_adjoint_at_an_offset_is_added_at_the_offset(energies):
    program = derive(energies["rosenbrock"], "gradient")
    written = {str(s.subscripts[0]) for s in program.statements if s.target == "gradient_y0"}
    assert any("+ 1" in text for text in written)


def test_integer_data_are_not_differentiated(energies):
    program = derive(energies["springs"], "data_adjoint")
    assert [a for a in program.arrays if a.startswith("data_adjoint_")] == ["data_adjoint_x1"]


def test_a_variable_that_enters_linearly_has_a_zero_hessian():
    t, a = sp.symbols("t a", real=True)
    kernel = wb.compile(wb.Energy(a * t, variables=[t], weights=[a]), backend="reference")
    assert np.array_equal(kernel.hessian({"t": 2.0}, {"a": 3.0}), [[0.0]])
    assert np.array_equal(kernel.cross({"t": 2.0}, {"a": 3.0}), [[1.0]])


# ---------------------------------------------------------------------------------------------- kinks

t, u = sp.symbols("t u", real=True)


@pytest.mark.parametrize(("formula", "at", "slope"), [
    (sp.Abs(t), 0.0, 0.0), (sp.Abs(t), np.nextafter(0, 1), 1.0), (sp.Abs(t), np.nextafter(0, -1), -1.0),
    (sp.sign(t) * t, 0.0, 0.0), (sp.Max(t, 2 * t), 0.0, None), (sp.Max(3, t), 3.0, None),
    (sp.Piecewise((t**2, t < 1), (2 * t - 1, True)), 1.0, 2.0), (sp.Piecewise((-t, t < 0), (t, True)), 0.0, 1.0),
    (sp.Piecewise((sp.log(t), t > 0), (0, True)), -1.0, 0.0), (sp.Piecewise((1 / t, t > 0), (0, True)), 0.0, 0.0),
])  # fmt: skip
def test_derivatives_at_a_kink_are_finite_and_one_of_the_sides(formula, at, slope):
    kernel = wb.compile(wb.Energy(formula + 0 * t, variables=[t]), backend="reference")
    got = kernel.gradient({"t": at})[0]
    assert np.isfinite(got)
    if slope is None:
        sides = [kernel.gradient({"t": at + h})[0] for h in (-1e-9, 1e-9)]
        assert got in sides
    else:
        assert got == slope


def test_an_excluded_branch_never_yields_nan_in_the_hessian():
    formula = sp.Piecewise((sp.sqrt(t) + sp.log(t), t > 0), (t**2, True))
    kernel = wb.compile(wb.Energy(formula, variables=[t]), backend="reference")
    assert np.array_equal(kernel.hessian({"t": [0.0, -1.0]}), [[[2.0]], [[2.0]]])


def test_the_weight_exponent_has_derivative_zero_where_the_base_is_zero():
    w = sp.Symbol("w", positive=True)
    x = sp.Symbol("x", nonnegative=True)
    kernel = wb.compile(wb.Energy(x**w * t, variables=[t], weights=[w], data=[x]), backend="reference")
    assert np.array_equal(kernel.cross({"t": 1.0}, {"w": 2.0}, {"x": 0.0}), [[0.0]])
