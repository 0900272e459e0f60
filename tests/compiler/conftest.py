"""Kernels of the table of energies, compiled once for all tests and ahead of need on a second core."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import wiberg as wb
from energies_table import RANDOM_SEEDS, TABLE

AHEAD = """
import random, sys
sys.path.insert(0, sys.argv[1])
import wiberg as wb
from energies_table import TABLE
from wiberg.compiler.derive import KINDS
from wiberg.compiler.testing import random_energy

def warm(make, kinds):
    try:
        energy = make()
        kernel = wb.compile(energy)
        for kind in kinds:
            if (kind != "candidates" or energy.candidates) and ("sparse" not in kind or kernel.structure != "dense"):
                kernel.entry(kind)
    except Exception:
        pass  # the test that needs the kernel will meet the same error, and show it

for seed in map(int, sys.argv[2:]):
    warm(lambda: random_energy(random.Random(seed)), [k for k in KINDS if k not in ("value_gradient", "many_values")])
for make in reversed(TABLE.values()):
    warm(make, KINDS)
"""

_ahead = None


def pytest_collection_modifyitems(items):
    """Tests that need many kernels come last, when the second core has made most of them."""
    items.sort(key=lambda item: "kernels" in getattr(item, "fixturenames", ()))


def pytest_collection_finish(session):
    global _ahead
    users = [item for item in session.items if "kernels" in getattr(item, "fixturenames", ())]
    if len(users) > 50 and (os.cpu_count() or 1) > 1 and not session.config.option.collectonly:
        command = [sys.executable, "-c", AHEAD, str(Path(__file__).parents[1]), *map(str, RANDOM_SEEDS)]
        _ahead = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def pytest_sessionfinish(session):
    if _ahead is not None:
        _ahead.kill()
        _ahead.wait()


class Store(dict):
    """name -> what `make` gives for it, made once."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def __missing__(self, name):
        self[name] = self.make(name)
        return self[name]


@pytest.fixture(scope="session")
def energies():
    """Energies of the table by name."""
    return Store(lambda name: TABLE[name]())


@pytest.fixture(scope="session")
def kernels(energies):
    """Machine code of the energies of the table, by name."""
    return Store(lambda name: wb.compile(energies[name]))


@pytest.fixture(scope="session")
def references(energies):
    """The same, interpreted."""
    return Store(lambda name: wb.compile(energies[name], backend="reference"))
