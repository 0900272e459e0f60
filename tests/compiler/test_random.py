"""Random energies: every derivative against the formula itself, through the interpreter and through machine code."""

import os
import random

import pytest
import wiberg as wb
from energies_table import RANDOM_SEEDS
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.compiler.testing import check_derivatives, random_energy

EXAMPLES = 500 if os.environ.get("CI") else 100


def assert_right(seed, backend):
    energy = random_energy(random.Random(seed))
    try:
        report = check_derivatives(energy, trials=1, seed=seed, backend=backend)
    except wb.NumericalError:
        return False
    assert report.ok, f"{energy}\n{report}"
    return True


@settings(max_examples=EXAMPLES)
@given(st.integers(0, 2**32 - 1))
def test_derivatives_of_random_energies_by_the_interpreter(seed):
    assert_right(seed, "reference")


@pytest.mark.parametrize("seed", RANDOM_SEEDS)
def test_derivatives_of_random_energies_in_machine_code(seed, kernels):
    assert_right(seed, "numba")


def test_most_random_energies_can_be_checked():
    """A guard: energies at which no moderate point is found are skipped above, and must stay few."""
    assert sum(assert_right(seed, "reference") for seed in range(2000, 2040)) >= 34
