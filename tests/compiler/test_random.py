"""Random energies: every derivative against the formula itself, through the interpreter and through machine code.

The checks are those of `make fuzz` (tests/fuzz.py): a failure here leaves a small file that runs in output/fuzz, and
`make fuzz N=20000` looks further.
"""

import os
import random
from pathlib import Path

import fuzz
import pytest
import wiberg as wb
from energies_table import RANDOM_SEEDS
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.compiler.testing import check_derivatives, random_energy

EXAMPLES = 1000 if os.environ.get("CI") else 100
PARTS = 4  # tests, so that several processes share them; no two draw the same energy
FOLDER = Path(__file__).parents[2] / "output" / "fuzz"


@pytest.mark.parametrize("part", range(PARTS))
@settings(max_examples=EXAMPLES // PARTS)
@given(seed=st.integers(0, 2**30 - 1))
def test_derivatives_of_random_energies_by_the_interpreter(part, seed):
    result = fuzz.check_seed(PARTS * seed + part, 0, str(FOLDER))
    assert result.verdict in ("right", "skipped"), result.text


@pytest.mark.parametrize("seed", RANDOM_SEEDS)
def test_derivatives_of_random_energies_in_machine_code(seed):
    energy = random_energy(random.Random(seed))
    try:
        report = check_derivatives(energy, trials=1, seed=seed)
    except wb.NumericalError:
        pytest.skip("no moderate point")
    assert report.ok, f"{energy}\n{report}"


def test_most_random_energies_can_be_checked():
    """A guard: energies at which no moderate point is found are skipped above, and must stay few."""
    assert [fuzz.check_seed(seed, 0, str(FOLDER)).verdict for seed in range(2000, 2040)].count("right") >= 34
