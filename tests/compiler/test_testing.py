"""The checks that users are given: they find what is wrong, say where, and draw what is valid."""

import importlib
import random
import re
from dataclasses import replace

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from energies_table import TABLE
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.compiler import derive, testing
from wiberg.compiler.testing import check_derivatives, draw_point, energies, points, random_energy


def wrong(kernel, method, position, change):
    """Let a method of a kernel return one entry that is wrong."""
    original = getattr(kernel, method)

    def changed(*args):
        result = original(*args)
        if isinstance(result, dict):
            name = next(iter(result))
            result[name] = np.array(result[name])
            result[name][position] = change(result[name][position])
        else:
            result = np.array(result)
            if result.ndim == len(position):  # a batch: single points are for finding where the energy is moderate
                result[position] = change(result[position])
        return result

    setattr(kernel, method, changed)
    return kernel


@pytest.fixture
def fusion():
    return wb.compile(TABLE["fusion"](), backend="reference")


def test_a_right_kernel_is_found_right(fusion):
    report = check_derivatives(fusion.energy, trials=2, kernel=fusion)
    assert report.ok and report.worst.error < 1e-12


@pytest.mark.parametrize(("method", "position", "entry"), [
    ("gradient", (0, 1), "y[1]"), ("hessian", (1, 0, 1), "y[0], y[1]"), ("cross", (0, 1, 0), "y[1], alpha[0]"),
    ("hvp", (0, 0), "y[0]"), ("cross_adjoint", (1, 0), "alpha[0]"), ("data_adjoint", (0, 0, 1), "c[0, 1]"),
    ("weight_gradient", (0, 0), "alpha[0]"),
])  # fmt: skip
def test_a_flipped_sign_is_found_and_named(method, position, entry, fusion):
    report = check_derivatives(fusion.energy, trials=2, kernel=wrong(fusion, method, position, lambda v: -v))
    assert not report.ok
    assert (report.worst.derivative, report.worst.entry) == (method, entry)
    text = str(report)
    assert "WRONG" in text and entry in text and "'fusion'" in text


@pytest.mark.parametrize("size", [1e-6, 1e-7])
def test_a_small_error_is_found(size, fusion):
    report = check_derivatives(fusion.energy, trials=1, kernel=wrong(fusion, "gradient", (0, 0), lambda v: v + size))
    assert not report.ok


def test_nan_where_a_number_should_be_is_an_error(fusion):
    report = check_derivatives(fusion.energy, trials=1, kernel=wrong(fusion, "gradient", (0, 0), lambda v: np.nan))
    assert not report.ok and report.worst.error == np.inf


def test_a_wrong_value_is_found(fusion):
    original = fusion.value
    fusion.value = lambda *args: original(*args) + 1e-6
    assert not check_derivatives(fusion.energy, trials=1, kernel=fusion).ok


def test_a_sign_flipped_in_the_text_of_a_kernel_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("WIBERG_CACHE_DIR", str(tmp_path / "wrong kernels"))
    original = derive.compile_text

    def flipped(energy, kind):
        emitted = original(energy, kind)
        if kind != "gradient":
            return emitted
        head, body = emitted.source.split("def evaluate")
        assert " += " in body
        loops = re.sub(r"^( {8}.*) \+= ", r"\1 -= ", body, flags=re.MULTILINE)  # what a loop adds, and that alone
        return replace(emitted, source=f"{head}def evaluate{loops}")

    t, a = sp.Symbol("t", real=True), sp.Symbol("a", positive=True)
    n = sp.Symbol("n", integer=True, positive=True)
    x, i = sp.IndexedBase("x", shape=(n,)), sp.Idx("i", n)
    energy = wb.Energy(sp.Sum(sp.exp(-a * (x[i] - t) ** 2), i), variables=[t], weights=[a], data=[x], name="flip me")
    monkeypatch.setattr(derive, "compile_text", flipped)
    report = check_derivatives(energy, trials=2)
    assert not report.ok and report.worst.derivative == "gradient"


def test_the_report_names_the_worst_of_every_kind(fusion):
    report = check_derivatives(fusion.energy, trials=1, kernel=fusion)
    assert set(report.by_kind) == {"value", "gradient", "hessian", "hvp", "cross", "cross_adjoint", "data_adjoint",
                                   "weight_gradient", "value+gradient+hessian"}  # fmt: skip
    assert "all derivatives agree" in str(report)


def test_the_same_seed_draws_the_same_points(fusion):
    first, second = (check_derivatives(fusion.energy, trials=1, seed=4, kernel=fusion) for _ in range(2))
    assert first.by_kind == second.by_kind


def test_an_energy_that_is_finite_nowhere_is_said_so():
    t = sp.Symbol("t", real=True)
    energy = wb.Energy(sp.log(-1 - t**2), variables=[t], name="nowhere")
    with pytest.raises(wb.NumericalError, match="'nowhere'"):
        check_derivatives(energy, trials=1, backend="reference")


def test_an_energy_of_positive_numbers_only_is_checked_there():
    t = sp.Symbol("t", real=True)
    assert check_derivatives(wb.Energy(sp.log(t) ** 2 + t * sp.log(t), variables=[t]), trials=3, backend="reference").ok


@pytest.mark.parametrize("constant", [sp.pi, sp.E, sp.EulerGamma], ids=str)
def test_an_energy_with_a_constant_of_sympy_is_checked(constant):
    """mpmath does not take SymPy's symbol, so that no point seemed to be moderate."""
    t = sp.Symbol("t", real=True)
    energy = wb.Energy(sp.cos(constant * t) + sp.Abs(t) ** 3, variables=[t])
    assert check_derivatives(energy, trials=2, kernel=wb.compile(energy, backend="reference")).ok


def test_the_module_can_be_imported_by_its_public_name():
    assert importlib.import_module("wiberg.testing").check_derivatives is check_derivatives


def test_the_module_is_an_attribute_of_the_package():
    assert wb.testing is testing and wb.check_derivatives is check_derivatives


# ---------------------------------------------------------------------------------------------- strategies


@settings(max_examples=20)
@given(points(TABLE["springs"]()))
def test_drawn_points_are_valid_for_the_energy(point):
    kernel = wb.compile(TABLE["springs"](), backend="reference")
    assert np.isfinite(kernel.value(*point))
    assert (point[1]["sigma"] > 0).all()


@settings(max_examples=10)
@given(points(TABLE["ransac"](), count=3))
def test_drawn_batches_have_a_batch_axis(point):
    y, w, x = point
    assert y["t"].shape == w["sigma"].shape == (3,) and x["x"].shape[0] == 3


@settings(max_examples=25)
@given(energies())
def test_drawn_energies_are_valid(energy):
    assert isinstance(energy, wb.Energy) and energy.variables
    wb.compile(energy, backend="reference")


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_the_same_seed_gives_the_same_energy(seed):
    assert random_energy(random.Random(seed)) == random_energy(random.Random(seed))


def test_random_energies_cover_the_language():
    drawn = [random_energy(random.Random(seed)) for seed in range(150)]
    text = " ".join(str(e.expression) + str(dict(e.where)) for e in drawn)
    for piece in ("Sum(Sum(", "let[", "e[", "+ 1]", "Max(", "Min(", "Abs(", "Piecewise(", "exp(", "log(", "sqrt(",
                  "atan2(", "**b", "tanh(", "erf(", "Product(", "minimum(", "maximum(", "[e[e["):  # fmt: skip
        assert piece in text, piece
    assert any(len(e.variables) > 2 for e in drawn) and any(not e.weights for e in drawn)


def test_drawn_points_of_one_batch_have_equal_sizes():
    kernel = wb.compile(TABLE["factorisation"](), backend="reference")
    drawn = draw_point(kernel, np.random.default_rng(0), 3)
    assert len({tuple(np.shape(a) for a in p.values()) for p in drawn}) == 1


@pytest.mark.parametrize(
    "method", ["value", "gradient", "hessian", "cross", "hvp", "cross_adjoint", "data_adjoint", "weight_gradient"]
)
def test_one_wrong_entry_shows_along_a_direction(method, fusion):
    """Whatever entry it is: no component of a random direction is 0."""
    generator = np.random.default_rng(0)
    for seed in range(5):
        drawn = draw_point(fusion, np.random.default_rng(seed), 2)
        report = testing.DerivativeReport("fusion", 1, testing.TOLERANCE)
        testing.compare_along(fusion, drawn, report, 0, np.random.default_rng(seed))
        assert report.ok, report
        changed = wrong_anywhere(wb.compile(fusion.energy, backend="reference"), method, generator)
        testing.compare_along(changed, drawn, report, 0, np.random.default_rng(seed))
        assert not report.ok and report.worst.derivative == method


def wrong_anywhere(kernel, method, generator):
    """A kernel one of whose methods is wrong in one entry, by 1e-4."""
    original = getattr(kernel, method)

    def changed(*args):
        result = original(*args)
        array = next(iter(result.values())) if isinstance(result, dict) else result
        array = np.array(array)
        array.ravel()[generator.integers(array.size)] += 1e-4
        return {**result, next(iter(result)): array} if isinstance(result, dict) else array

    setattr(kernel, method, changed)
    return kernel
