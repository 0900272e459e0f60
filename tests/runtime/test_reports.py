"""What a solution says of its instances: every status explained, batches summarised, NaN never taken for a minimum."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from wiberg.energies.errors import InputError, InputTypeError
from wiberg.runtime.methods import GENERAL_METHODS

t, u, a, b = sp.symbols("t u a b", real=True)
n = sp.Symbol("n", integer=True, positive=True)
i = sp.Idx("i", n)
x, y = sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("y", shape=(n, 2))
j = sp.Idx("j", 2)


def of_t(expression, data=None, **options):
    """The solution of a function of t, with data a and b where it has them."""
    names = [s for s in (a, b) if expression.has(s)]
    kernel = wb.compile(wb.Energy(expression, variables=[t], data=names, name="toy"), backend="reference")
    return wb.minimise(kernel, None, data, **{"start": {"t": 1.0}, **options})


@pytest.fixture(scope="module")
def logarithm():
    """(t - 3)^2 + sum log(x_i - t), finite for t below every x."""
    energy = wb.Energy((t - 3) ** 2 - sp.Sum(sp.log(x[i] - t), i), variables=[t], data=[x], name="barrier")
    return wb.compile(energy)


# ---------------------------------------------------------------------------------------------- each status


def test_converged_says_so_with_the_numbers():
    text = str(of_t((t - a) ** 2 + 1, {"a": 3.0}).explain())
    assert "CONVERGED after 1 iteration (2 evaluations)" in text and "gtol 1e-08" in text
    assert "curvature 2" in text and "a minimum" in text and "what to do" not in text


def test_a_flat_minimum_is_called_flat():
    assert "may be flat" in str(of_t((t - a) ** 4, {"a": 1.0}).explain())


def test_not_finite_names_term_index_and_input(logarithm):
    data = np.array([[5.0, 4.0, 6.0], [5.0, 6.0, -1.0]])
    solution = wb.minimise(logarithm, None, {"x": data}, start={"t": 0.0})
    assert solution.failed.tolist() == [1]
    report = solution.explain(1)
    assert report.status is wb.Status.NOT_FINITE and report.instance == 1
    assert report.not_finite.kind == "value" and "log" in report.not_finite.term
    text = str(report)
    for word in ("instance 1", "log(x[i] - t)", "i = 2", "= -1", "x[2]"):
        assert word in text, word


def test_not_finite_at_every_candidate_says_so(logarithm):
    solution = wb.minimise(logarithm, None, {"x": [5.0, 4.0]}, candidates={"t": [7.0, 9.0]})
    text = str(solution.explain())
    assert "no candidate has a finite energy" in text and "log(x[i] - t)" in text and "= 7" in text


def test_a_start_that_is_not_finite_is_named():
    energy = wb.Energy(sp.Sum(y[i, j] ** 2, i, j), variables=[y], name="toy")
    start = np.ones((2, 3, 2))
    start[1, 2, 0] = np.nan
    solution = wb.minimise(wb.compile(energy, backend="reference"), start={"y": start})
    assert "the start has y[2, 0] = nan" in str(solution.explain(1))


def test_data_that_are_not_finite_are_named(logarithm):
    data = np.full((3, 4), 5.0)
    data[1, 2] = np.inf
    solution = wb.minimise(logarithm, None, {"x": data}, start={"t": 0.0}, check=False)
    assert solution.failed.tolist() == [1]
    assert "the data x[2] is inf" in str(solution.explain(1))


def test_derivatives_too_large_to_square_are_explained():
    solution = of_t(a * t**2, {"a": 1e160})
    assert solution.status is wb.Status.NOT_FINITE
    text = str(solution.explain())
    assert "2e+160" in text and "rescale" in text


@pytest.mark.parametrize(
    "expression, way",
    [
        (-(t**2), "power of 2"),
        (50 - t**2, "power of 2"),
        (-a * t + 0 * t, "power of 1"),
        (-(t**4), "power of 4"),
        (-sp.exp(t), "fell below"),
    ],
)
def test_unbounded_says_along_what_and_how(expression, way):
    solution = of_t(expression, {"a": 2.0} if expression.has(a) else None)
    assert solution.status is wb.Status.UNBOUNDED
    text = str(solution.explain())
    assert "led t from 1 to" in text and "sign of the energy" in text and way in text


def test_unbounded_names_the_unknown_that_runs_away():
    energy = wb.Energy(sp.Sum(y[i, 0] ** 2, i) - y[1, 1] + sp.Sum((y[i, 1] - 1) ** 4, (i, 2, n - 1)), variables=[y])
    solution = wb.minimise(wb.compile(energy, backend="reference"), start={"y": np.zeros((3, 2))})
    assert solution.status is wb.Status.UNBOUNDED
    text = str(solution.explain())
    assert "y[1, 1] from 0 to" in text and "y[0, 0]" not in text


def test_saddle_gives_curvature_and_direction():
    """At t = 0 derivatives see the curvature of -3 t^2, but not the kink of 10 |t|: no step along it leads down."""
    expression = 10 * sp.Abs(t) - 3 * t**2 + (u - 1) ** 2
    kernel = wb.compile(wb.Energy(expression, variables=[t, u], name="toy"), backend="reference")
    solution = wb.minimise(kernel, start={"t": 0.0, "u": 1.0})
    assert solution.status is wb.Status.SADDLE
    text = str(solution.explain())
    assert "lowest curvature is -6" in text and "1 in t" in text and "in u" not in text and "restarts=" in text


def test_iteration_limit_says_how_the_gradient_changed():
    expression = 100 * (u - t**2) ** 2 + (1 - t) ** 2
    kernel = wb.compile(wb.Energy(expression, variables=[t, u], name="toy"), backend="reference")
    solution = wb.minimise(kernel, start={"t": -1.2, "u": 1.0}, max_iterations=12)
    report = solution.explain()
    half = wb.minimise(kernel, start={"t": -1.2, "u": 1.0}, max_iterations=6)
    assert f"{half.gradient_norm:.2g} after 6 iterations, {solution.gradient_norm:.2g} now" in str(report)
    assert "2.2e+02 at the start" in str(report)
    assert "raise max_iterations (now 12)" in report.advice


def test_stalled_compares_the_gradient_with_rounding():
    kernel = wb.compile(wb.Energy(sp.Sum(sp.sqrt(1 + (x[i] - t) ** 2), i), variables=[t], data=[x], name="toy"))
    data = np.random.default_rng(0).standard_normal((200, 9))
    solution = wb.minimise(kernel, None, {"x": data}, start={"t": 0.0}, gtol=1e-300)
    stalled = [k for k in range(200) if solution.status[k] is wb.Status.STALLED]
    assert len(stalled) > 20 and not len(solution.failed)
    for k in stalled[:20]:
        report = solution.explain(k)
        assert "as good as double precision gives" in str(report) and "counts as usable" in report.advice
        assert solution.gradient_norm[k] <= float(report.advice.split("gtol=")[1].split()[0]) < 1e-12


def test_stalled_at_a_kink_says_kink():
    solution = of_t(sp.Abs(t - a) + t / 2, {"a": 1 / 3}, start={"t": 3.0})
    assert solution.status is wb.Status.STALLED
    assert "kink" in str(solution.explain()) and "pseudo_huber" in solution.explain().advice


def test_every_status_of_a_sparse_problem_is_explained():
    k = sp.Idx("k", (0, n - 2))
    z, c = sp.IndexedBase("z", shape=(n,)), sp.Symbol("c", real=True)
    expression = sp.Sum((z[k + 1] - z[k]) ** 2, k) + c * sp.Sum(z[i] ** 2, i) + sp.Sum(sp.log(x[i]) * z[i], i)
    kernel = wb.compile(wb.Energy(expression, variables=[z], data=[x, c], name="chain"))
    data = np.ones((4, 300)) * 2.0
    data[1, 7] = -1.0
    curvatures = np.array([1.0, 1.0, -1.0, 1.0])
    solution = wb.minimise(kernel, None, {"x": data, "c": curvatures}, start={"z": np.zeros(300)})
    assert [s.name for s in solution.status] == ["CONVERGED", "NOT_FINITE", "UNBOUNDED", "CONVERGED"]
    for instance in range(4):
        assert solution.status[instance].name in str(solution.explain(instance))
    assert "x[7]" in str(solution.explain(1))


# ---------------------------------------------------------------------------------------------- asking


def test_explain_without_a_number_takes_the_first_that_failed(logarithm):
    data = np.array([[5.0], [-5.0], [-6.0]])
    solution = wb.minimise(logarithm, None, {"x": data}, start={"t": 0.0})
    assert solution.explain().instance == 1
    assert wb.minimise(logarithm, None, {"x": data[:1]}, start={"t": 0.0}).explain().instance == 0


@pytest.mark.parametrize("bad, kind", [(3, InputError), (-1, InputError), (1.5, InputTypeError), ("1", InputTypeError)])
def test_an_instance_that_there_is_not_is_refused(logarithm, bad, kind):
    solution = wb.minimise(logarithm, None, {"x": [[5.0], [6.0], [7.0]]}, start={"t": 0.0})
    with pytest.raises(kind, match=rf"barrier.*{bad}"):
        solution.explain(bad)


def test_a_pickled_solution_explains_itself(logarithm):
    solution = wb.minimise(logarithm, None, {"x": [[5.0], [-6.0]]}, start={"t": [0.0, 1.0]}, max_iterations=2)
    again = pickle.loads(pickle.dumps(solution))
    for instance in (0, 1):
        assert str(again.explain(instance)) == str(solution.explain(instance))


def test_explaining_changes_nothing(logarithm):
    solution = wb.minimise(logarithm, None, {"x": [[5.0], [-6.0]]}, start={"t": 0.0}, max_iterations=2)
    before = [solution.y.tobytes(), solution.energies.tobytes(), solution.reals.tobytes(), solution.integers.tobytes()]
    solution.explain(0), solution.explain(1), str(solution)
    after = [solution.y.tobytes(), solution.energies.tobytes(), solution.reals.tobytes(), solution.integers.tobytes()]
    assert before == after


# ---------------------------------------------------------------------------------------------- summaries


def test_thousands_of_instances_are_summarised_in_ten_lines(logarithm):
    data = np.random.default_rng(0).uniform(1.0, 9.0, (5000, 6))
    data[[17, 300, 301, 302, 4000], 3] = -1.0
    solution = wb.minimise(logarithm, None, {"x": data}, start={"t": 0.0})
    text = str(solution)
    assert len(text.splitlines()) == 10
    assert "5000 instances, 1 unknown each, by trust-region" in text
    assert "4995 CONVERGED, 5 NOT_FINITE" in text
    assert "17 NOT_FINITE, 300 NOT_FINITE, 301 NOT_FINITE, 302 NOT_FINITE, ... (5 in solution.failed)" in text
    assert "solution.explain(17)" in text and "raise_if_failed" in text
    row = next(line for line in text.splitlines() if line.strip().startswith("curvature")).split()[1:]
    finite = solution.curvature[np.isfinite(solution.curvature)]
    assert [float(v) for v in row] == pytest.approx(np.quantile(finite, [0, 0.05, 0.5, 0.95, 1]), rel=1e-2)
    assert len(repr(solution).splitlines()) == 1


def test_a_batch_of_none_and_one_that_failed_altogether_have_summaries(logarithm):
    assert "0 instances" in str(wb.minimise(logarithm, None, {"x": np.empty((0, 3))}, start={"t": 0.0}))
    assert "2 NOT_FINITE" in str(wb.minimise(logarithm, None, {"x": -np.ones((2, 3))}, start={"t": 0.0}))


def test_an_unbatched_solution_prints_its_explanation(logarithm):
    solution = wb.minimise(logarithm, None, {"x": [5.0, 6.0]}, start={"t": 0.0})
    assert str(solution) == str(solution.explain()) and "CONVERGED" in str(solution)
    assert len(repr(solution).splitlines()) == 1


# ---------------------------------------------------------------------------------------------- poison

ENTRIES = range(-1, 6)


def poisons(first, last):
    """Data of `poisoned` (conftest.py): each entry in each way; the value is entry -1."""
    rows = [[0.0, first, last, entry, bad] for entry in ENTRIES for bad in (0.0, 1.0, -1.0)]
    return {"c": np.array(rows)}


def gradient_at(point):
    s, r = point.T
    return np.stack([-2 * (1 - s) - 400 * s * (r - s * s), 200 * (r - s * s)], axis=1)


def test_a_poisoned_start_is_never_converged(poisoned):
    data = poisons(1, 1e9)
    for start in ([-1.2, 1.0], [1.0, 1.0]):  # the second is the minimum
        solution = wb.minimise(poisoned, None, {"c": data["c"].copy()}, start={"y": start})
        minus_infinity = (data["c"][:, 3] == -1) & (data["c"][:, 4] == -1)
        assert not solution.converged.any()
        assert set(solution.status[~minus_infinity]) == {wb.Status.NOT_FINITE}


@pytest.mark.parametrize("only_once", [False, True])
@pytest.mark.parametrize("first", [1, 2, 3, 5, 9, 16, 23])
def test_a_poisoned_evaluation_is_never_converged_upon(poisoned, first, only_once):
    data = poisons(first, first if only_once else 1e9)
    solution = wb.minimise(poisoned, None, data, start={"y": [-1.2, 1.0]})
    usable = solution.converged
    true = np.abs(gradient_at(solution.variables["y"])).max(axis=1)
    assert (true[usable] <= 1e-8).all(), "CONVERGED only where the true gradient is small"
    if not only_once and first <= 16:
        assert not usable.any()
    known = ~np.isin([int(s) for s in solution.status], [wb.Status.NOT_FINITE, wb.Status.UNBOUNDED])
    assert np.isfinite(solution.gradient_norm[known]).all() and np.isfinite(solution.variables["y"]).all()


@pytest.mark.parametrize("method", GENERAL_METHODS)
@pytest.mark.parametrize("border", [0.3, 0.9, 0.999])
def test_a_minimum_behind_a_region_of_nan_is_never_reached(method, border):
    """The root is NaN from t = b on, and the minimum of the rest lies at t = 1 > b."""
    expression = 100 * (u - t**2) ** 2 + (1 - t) ** 2 + sp.Float(1e-30) * sp.sqrt(b - t) ** 3
    kernel = wb.compile(wb.Energy(expression, variables=[t, u], data=[b]))
    solution = wb.minimise(kernel, None, {"b": border}, start={"t": -1.2, "u": 1.0}, method=method)
    assert solution.status is not wb.Status.CONVERGED
    assert solution.variables["t"] <= border
    assert np.isfinite(solution.energy) and solution.energy < 24.2


@pytest.mark.parametrize("unknowns", [5, 250])
@pytest.mark.parametrize("border", [0.3, 0.999, 1.001])
def test_many_unknowns_do_not_converge_behind_a_region_of_nan(unknowns, border):
    """All z = 1 is the minimum; the root is NaN from z = b on. 5 unknowns are dense, 250 are sparse to the driver."""
    z, k = sp.IndexedBase("z", shape=(n,)), sp.Idx("k", (0, n - 2))
    root = sp.Float(1e-30) * sp.Sum(sp.sqrt(b - z[i]) ** 3, i)
    kernel = wb.compile(wb.Energy(sp.Sum((z[i] - 1) ** 2, i) + sp.Sum((z[k + 1] - z[k]) ** 2, k) + root,
                                  variables=[z], data=[b], name="fence"))  # fmt: skip
    start = np.linspace(-0.5, 0.2, unknowns)
    solution = wb.minimise(kernel, None, {"b": border}, start={"z": start})
    assert solution.converged == (border > 1)
    assert solution.variables["z"].max() <= border and np.isfinite(solution.energy)
    assert solution.energy < kernel.value({"z": start}, None, {"b": border})
