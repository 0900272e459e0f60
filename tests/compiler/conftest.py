"""Energies of the table and their kernels, made once for all tests of a process."""

import pytest
import wiberg as wb
from energies_table import TABLE


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
