"""`Kernel.explain`: programs in the user's names, costs counted by hand, the origin of NaN and infinity."""

import random

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from energies_table import TABLE, draw, extent_sizes
from hypothesis import given, settings
from hypothesis import strategies as st
from passes import number_of
from wiberg.compiler.costs import at, cost, structure
from wiberg.compiler.derive import KINDS
from wiberg.compiler.explain import COSTED
from wiberg.compiler.nonfinite import LARGEST, first_not_finite
from wiberg.compiler.points import random_point
from wiberg.compiler.program.primitives import PRIMITIVES
from wiberg.compiler.program.readable import formula, names_of, program_text
from wiberg.compiler.testing import random_energy

n, m = (sp.Symbol(s, integer=True, positive=True) for s in "nm")
i, j = sp.Idx("i", n), sp.Idx("j", m)
x, y = sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("y", shape=(n,))
W = sp.IndexedBase("W", shape=(n, m))
t, a = sp.Symbol("t", real=True), sp.Symbol("a", real=True)


pytestmark = pytest.mark.filterwarnings("ignore::wiberg.energies.errors.UnboundedDerivativeWarning")


def interpreted(expression, **roles):
    return wb.compile(wb.Energy(expression, name="sick", **roles), backend="reference")


def finding(expression, *point, **roles):
    found = interpreted(expression, **roles).explain(*point).not_finite
    assert found is not None
    return found


# ---------------------------------------------------------------------------------------------- not finite


def test_the_logarithm_of_a_negative_number_is_found_with_its_term_index_and_inputs():
    found = finding(
        sp.Sum((x[i] - t) ** 2, i) + 3 * sp.Sum(sp.log(x[i] - t), i),
        {"t": 0.0}, {}, {"x": [1.0, 2.0, -3.0, -4.0]}, variables=[t], data=[x],
    )  # fmt: skip
    assert found.kind == found.entry == "value" and np.isnan(found.value)
    assert found.term == "3*Sum(log(-t + x[i]), (i, 0, n - 1))" and found.position == (2, 2)
    assert found.steps[-1].loops == {"i": 2}
    assert found.expression == "log(x[2] - t)"
    assert dict(found.inputs) == {"x[2] - t": -3.0, "x[2]": -3.0, "t": 0.0}
    assert "negative" in found.reason


def test_zero_over_zero_is_told_from_division_by_zero():
    expression, roles = sp.Sum((x[i] - t) ** 2 / (x[i] - 1), i), {"variables": [t], "data": [x]}
    both = finding(expression, {"t": 1.0}, {}, {"x": [2.0, 1.0]}, **roles)
    one = finding(expression, {"t": 5.0}, {}, {"x": [2.0, 1.0]}, **roles)
    assert both.reason.startswith("0/0") and np.isnan(both.result) and "x[1] - 1" in dict(both.inputs)
    assert one.reason.startswith("division by 0") and one.expression == "1/(x[1] - 1)" and one.result == np.inf


def test_an_exponential_that_overflows_is_found_with_its_exponent():
    found = finding(sp.sqrt(sp.Sum(sp.exp(x[i] * t), i)), {"t": 2.0}, {}, {"x": [2.0, 500.0]}, variables=[t], data=[x])
    assert found.expression == "exp(x[1]*t)" and found.value == np.inf
    assert dict(found.inputs)["x[1]*t"] == 1000.0 and "709.78" in found.reason


def test_a_derivative_that_overflows_where_the_value_does_not_is_found_in_the_program_of_the_gradient():
    found = finding(sp.exp(1000 * t) + t**2, {"t": 0.7095}, variables=[t])
    assert found.kind == "gradient" and found.entry == "gradient in t" and found.term == "exp(1000*t)"
    assert "exp" in found.expression and found.result == np.inf
    assert found.steps[0].purpose == "gradient in t"


def test_a_derivative_of_second_order_is_named_with_both_variables():
    found = finding(y[0] ** 2 + sp.Sum(sp.exp(10 * y[i]), i), {"y": [1.0, 70.6, 2.0]}, variables=[y])
    assert found.kind == "hessian" and found.entry == "Hessian in y[1], y[1]"


def test_a_cross_derivative_that_is_not_finite_is_named():
    expression = t * sp.exp(100 * a) + t**2
    found = finding(expression, {"t": 1.0}, {"a": 7.06}, variables=[t], weights=[a])
    assert found.kind == "cross" and found.entry == "cross-derivative in t, a" and "exp" in found.expression


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("role", "entry"), [("data", "x[1]"), ("weights", "a"), ("variables", "t")])
def test_a_number_that_was_given_is_named(value, role, entry):
    point = {"t": 1.0}, {"a": 2.0}, {"x": [1.0, 2.0]}
    where = point[["variables", "weights", "data"].index(role)]
    name = entry[0]
    where[name] = [1.0, value] if name == "x" else value
    found = finding(a * sp.Sum((x[i] - t) ** 2, i), *point, variables=[t], weights=[a], data=[x])
    assert found.expression == entry and "as it was given" in found.reason
    assert np.array_equal(found.result, value, equal_nan=True)


def test_a_sum_of_finite_terms_that_overflows_is_told():
    found = finding(sp.Sum(x[i] * t, i), {"t": 1e308}, {}, {"x": [1.0, 1.0]}, variables=[t], data=[x])
    assert found.expression == "" and "every term of this sum is finite" in found.reason


def test_infinity_on_the_way_to_a_finite_result_is_none_of_its_business():
    kernel = interpreted(sp.exp(-1 / t**2) + sp.log(a), variables=[t], weights=[a])
    found = kernel.explain({"t": 1e-200}, {"a": -1.0}).not_finite
    assert found.expression == "log(a)"


def test_the_branch_of_a_piecewise_that_is_not_taken_is_none_of_its_business():
    expression = sp.Sum(sp.Piecewise((sp.log(x[i]), x[i] > 0), (sp.log(t), True)), i)
    found = finding(expression, {"t": -2.0}, {}, {"x": [1.0, -1.0]}, variables=[t], data=[x])
    assert found.expression == "log(t)" and found.steps[-1].loops == {"i": 1}


def test_the_way_leads_through_intermediates_and_inner_sums():
    r = sp.IndexedBase("r", shape=(n,))
    energy = wb.Energy(
        sp.Sum(sp.sqrt(r[i]) * t, i), variables=[t], weights=[W], name="deep", where={r[i]: sp.Sum(W[i, j], j) - 1}
    )
    weights = np.ones((3, 4))
    weights[1] = -1.0
    found = wb.compile(energy, backend="reference").explain({"t": 1.0}, {"W": weights}).not_finite
    assert "x >= 0" in found.reason
    assert found.steps[-1].loops == {"i": 1} and -5.0 in dict(found.inputs).values()


def test_the_first_instance_of_a_batch_that_is_not_finite_is_named():
    kernel = interpreted(sp.log(t), variables=[t])
    found = kernel.explain({"t": [1.0, 2.0, -3.0, -4.0]}).not_finite
    assert found.instance == 2 and dict(found.inputs) == {"t": -3.0} and "of instance 2" in str(found)


def test_machine_code_is_explained_as_well():
    kernel = wb.compile(wb.Energy(sp.log(t - a), variables=[t], weights=[a], name="sick"))
    assert kernel.explain({"t": 1.0}, {"a": 2.0}).not_finite.expression == "log(t - a)"


def test_a_term_without_variables_can_be_the_one():
    found = finding(t**2 + sp.log(a), {"t": 1.0}, {"a": -1.0}, variables=[t], weights=[a])
    assert found.term == "log(a)"


def test_terms_that_cannot_stand_alone_are_explained_together():
    found = finding(n * t + sp.Sum(sp.log(x[i]), i), {"t": 1.0}, {}, {"x": [-1.0]}, variables=[t], data=[x])
    assert found.expression == "log(x[0])"


def test_where_everything_is_finite_there_is_no_finding():
    explanation = interpreted(sp.log(t), variables=[t]).explain({"t": 2.0})
    assert explanation.not_finite is None and "finite at the given arrays" in str(explanation)


def test_the_text_of_a_finding_names_everything():
    kernel = interpreted(sp.Sum(sp.acos(x[i]) * t, i), variables=[t], data=[x])
    text = str(kernel.explain({"t": 1.0}, {}, {"x": [0.0, 1.5]}))
    for piece in ("'sick'", "value is nan", "at i = 1", "acos(x[1]) = nan", "x[1] = 1.5", "outside of [-1, 1]"):
        assert piece in text


@pytest.mark.parametrize(("expression", "value"), [
    (sp.log(t), -1.0), (sp.log(t), 0.0), (sp.asin(t), 2.0), (sp.acos(t), -2.0), (sp.acosh(t), 0.5),
    (sp.atanh(t), 1.0), (sp.sqrt(t), -1.0), (t**sp.Rational(1, 3), -1.0), (1 / t, 0.0), (t**-2, 0.0),
    (sp.exp(t), 800.0), (sp.cosh(t), 800.0), (sp.sinh(t), -800.0), (t**3, 1e200), (sp.exp(t) * 1e300, 100.0),
])  # fmt: skip
def test_every_source_has_a_reason(expression, value):
    found = finding(expression, {"t": value}, variables=[t])
    assert found.kind == "value" and found.reason and dict(found.inputs)["t"] == value


@pytest.mark.parametrize("name", ["ransac", "pose", "denoise", "springs", "mixture", "logistic", "rosenbrock"])
def test_one_nan_anywhere_in_the_inputs_is_traced_to_its_entry(name, references):
    """Whatever entry of whatever array is NaN: the finding names exactly that entry."""
    kernel = references[name]
    generator = np.random.default_rng(0)
    for _ in range(4):
        point = draw(kernel.energy, 3)
        arrays = [(part, key) for part in point for key in part if key not in kernel.energy.integer]
        part, key = arrays[generator.integers(len(arrays))]
        part[key] = np.array(part[key])
        where = tuple(int(generator.integers(s)) for s in part[key].shape)
        part[key][where] = np.nan
        found = kernel.explain(*point).not_finite
        label = f"{key}[{', '.join(map(str, where))}]" if where else key
        assert found is not None and found.expression == label


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e160, 1e200, -1e5]))
def test_wherever_a_random_energy_is_not_finite_the_origin_is_found(seed, scale):
    """All numbers that go into the part are finite, or it is a number that was given; there is always a reason."""
    energy = random_energy(random.Random(seed))
    point = random_point(energy, dict.fromkeys(energy.extents, 3), np.random.default_rng(seed), positive=False)
    point = {name: a if name in energy.integer else a * scale for name, a in point.items()}
    roles = [{str(s): point[str(s)] for s in r} for r in (energy.variables, energy.weights, energy.data)]
    found = wb.compile(energy, backend="reference").explain(*roles).not_finite
    if found is not None:
        inputs = [value for _, value in found.inputs if value != -np.inf]  # the largest of no exponents
        assert found.reason and found.steps and np.isfinite(inputs).all()
        assert not np.isfinite(found.value) and not (found.expression and np.isfinite(found.result))


def test_a_result_that_is_too_large_to_look_at_is_left_out(monkeypatch, references):
    from wiberg.compiler import nonfinite

    kernel = interpreted(sp.Sum(sp.exp(10 * y[i]), i), variables=[y])
    point = {"y": np.full((5, 3), 70.6)}, None, None
    assert first_not_finite(kernel, *point).kind == "hessian"
    monkeypatch.setattr(nonfinite, "LARGEST", 10)  # instance by instance
    assert first_not_finite(kernel, *point).instance == 0
    monkeypatch.setattr(nonfinite, "LARGEST", 8)
    assert first_not_finite(kernel, *point) is None
    assert LARGEST > 10**6


# ---------------------------------------------------------------------------------------------- programs and costs


def test_a_program_is_shown_in_the_users_names():
    kernel = interpreted(sp.Sum((x[i] - t) ** 2 / a, i), variables=[t], weights=[a], data=[x])
    text = program_text(kernel.program(), names_of(kernel.energy))
    assert text.splitlines()[0] == "t0 += (x[i] - t)**2/a     for i < n     # sum over i"


PYTHON = {name: row.numpy for name, row in PRIMITIVES.items()} | {"sqrt": np.sqrt, "max": np.maximum, "min": np.minimum}


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["value", "gradient", "hessian", "cross_adjoint"]))
def test_an_expression_as_it_is_shown_has_the_value_of_the_expression(seed, kind):
    """Signs, brackets and fractions are right: the text, run by Python, gives the same number."""
    energy = random_energy(random.Random(seed))
    for statement in KINDS[kind].build(energy).statements:
        memo = {}
        with np.errstate(all="ignore"):
            expected = number_of(statement.expression, memo)
            text = formula(statement.expression, names_of(energy), lambda item, memo=memo: f"({number_of(item, memo)})")
            np.testing.assert_allclose(eval(text, dict(PYTHON)), expected, rtol=1e-9, atol=1e-12, err_msg=text)


@pytest.mark.parametrize("name", TABLE)
def test_every_statement_of_every_kind_says_what_it_is_for(name, energies):
    energy, names = energies[name], names_of(energies[name])
    for kind in KINDS:
        if kind != "candidates" or energy.candidates:
            text = program_text(KINDS[kind].build(energy), names)
            assert text and all("# " in line and not line.endswith("# ") for line in text.splitlines())


def test_costs_are_those_counted_by_hand():
    energy = TABLE["ransac"]()  # for each i: one difference, one square, one product, one exp, one addition
    found = cost(energy, "value")
    assert found.flops - 5 * energy.extents[0] == 0 and dict(found.calls) == {"exp": energy.extents[0]}
    assert found.bytes == 8 * energy.extents[0] + 24  # x; t, one prepared weight, the energy


def test_arrays_read_through_index_data_count_by_what_is_looked_up():
    """A[first[j], second[j]] reads m numbers, not n**2."""
    energy = TABLE["gathered"]()
    n_, m_ = energy.extents
    assert cost(energy, "value").bytes.coeff(n_, 2) == 0 and cost(energy, "value").bytes.coeff(m_, 1) > 16


def test_work_on_a_product_of_matrices_grows_as_it_should():
    """The Gauss-Newton Hessian of the pose: J*K**2, times the number of coordinates, is its highest order."""
    energy = TABLE["pose"]()
    _, joints, bases = (s for s in sorted(energy.extents, key=str))
    flops = sp.Poly(cost(energy, "hessian").flops, *energy.extents)
    assert flops.coeff_monomial(joints * bases**2) == 6 and flops.total_degree() == 3


@pytest.mark.parametrize("name", TABLE)
def test_costs_of_the_table_are_positive_and_grow_with_the_extents(name, energies):
    energy = energies[name]
    small, large = extent_sizes(energy, 5), extent_sizes(energy, 9)
    for kind in ("value", "gradient", "hessian", "hvp"):
        found = cost(energy, kind)
        assert 0 < found.nanoseconds(small) <= found.nanoseconds(large)
        assert at(found.bytes, small) > 0


def test_triangular_loops_count_as_half():
    from wiberg.compiler.costs import _Counts
    from wiberg.compiler.program.expression import constant, name
    from wiberg.compiler.program.program import Program, Range

    program = Program({}, {"i": Range(constant(0), name("n0")), "j": Range(constant(0), name("i"))}, ("n0",), ())
    assert sp.expand(_Counts(program, {"n0": n}).points(("i", "j")) - n * (n - 1) / 2) == 0


@pytest.mark.parametrize(("name", "shape"), [
    ("ransac", "dense"), ("pose", "dense"), ("denoise", "sparse"), ("springs", "sparse"), ("rosenbrock", "sparse"),
])  # fmt: skip
def test_the_structure_of_the_hessian_is_found(name, shape, energies):
    assert structure(energies[name]).blocks[0].shape == shape


def test_diagonal_zero_and_constant_structures_are_found():
    energy = wb.Energy(sp.Sum(a * (y[i] - x[i]) ** 2, i) + t**2, variables=[y, t], weights=[a], data=[x])
    found = structure(energy)
    assert [b.shape for b in found.blocks] == ["diagonal", "zero", "dense"] and found.constant
    assert found.blocks[0].most == n


@pytest.mark.parametrize("name", TABLE)
def test_the_bound_on_entries_of_the_hessian_holds(name, energies, references):
    energy = energies[name]
    hessian = references[name].dense_hessian(*draw(energy, 4))
    sizes = extent_sizes(energy, 4)
    bound = sum(at(b.most, sizes) * (1 if b.left == b.right else 2) for b in structure(energy).blocks)
    assert np.count_nonzero(hessian) <= bound


def test_the_whole_explanation_has_all_its_parts():
    kernel = wb.compile(TABLE["ransac"]())
    explanation = kernel.explain()
    assert [f.kind for f in explanation.figures] == list(COSTED) and explanation.made_up
    assert all(f.measured > 0 and f.folder.is_dir() for f in explanation.figures)
    text = str(explanation)
    for piece in ("ransac", "sum over i", "structure of the Hessian", "flops", "bytes", "estimated", "measured",
                  str(explanation.figures[0].folder), "5*n"):  # fmt: skip
        assert piece in text, piece


def test_given_arrays_are_what_is_measured(references):
    kernel = references["ransac"]
    explanation = kernel.explain({"t": [0.0, 1.0]}, {"sigma": 1.0}, {"x": np.zeros(37)})
    assert list(explanation.sizes.values()) == [37] and "n = 37" in str(explanation) and not explanation.made_up


def test_an_energy_without_weights_has_no_cross_derivative_to_explain():
    explanation = interpreted(t**2, variables=[t]).explain()
    assert not any(f.kind.startswith("cross") for f in explanation.figures)


def test_missing_arrays_are_an_error_with_their_names():
    with pytest.raises(wb.NameMissingError, match="t"):
        interpreted(a * t**2, variables=[t], weights=[a]).explain(None, {"a": 1.0})
