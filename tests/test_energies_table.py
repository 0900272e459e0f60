"""The table of energies itself: where its energies come from, and the classical minima of those that have one."""

import re

import numpy as np
import pytest
import wiberg as wb
from energies_table import TABLE
from wiberg.compiler.testing import dense

YEAR = re.compile(r"\b(1[89]|20)\d\d\b")

ZEROS = {
    "rosenbrock": ({"y": np.ones(4)}, {"b": 100.0}, {}),
    "alone": ({"t": 3.0, "u": 2.0}, {}, {}),
    "beale": ({"t": 3.0, "u": 0.5}, {}, {"x": [1.5, 2.25, 2.625]}),
    "powell": ({"y": np.zeros(8)}, {"w": np.ones(2)}, {}),
    "rastrigin": ({"y": np.zeros(3)}, {"b": 10.0}, {}),
    "griewank": ({"y": np.zeros(3)}, {"b": 1 / 4000}, {}),
}


def from_the_literature(name):
    return not TABLE[name].__doc__.startswith("Language: ")


def test_at_least_60_energies_come_from_the_literature():
    assert sum(map(from_the_literature, TABLE)) >= 60


@pytest.mark.parametrize("name", [name for name in TABLE if from_the_literature(name)])
def test_an_energy_from_the_literature_names_its_source(name):
    assert YEAR.search(TABLE[name].__doc__), "a source has a year; an energy that only shows the language says so"


@pytest.mark.parametrize("name", ZEROS)
def test_a_classical_function_is_least_where_its_source_says(name):
    kernel = wb.compile(TABLE[name](), backend="reference")
    value, gradient, hessian = kernel.value_gradient_hessian(*ZEROS[name])
    assert value == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(gradient, 0, atol=1e-12)
    assert np.linalg.eigvalsh(dense(hessian)).min() > -1e-9
