"""Which variables can be eliminated: those in which an energy is quadratic, whatever the values of the others.

    E = sum of (x[i] - a[k] exp(-b[k] t[i]))^2      quadratic in a for any b, not in b: a can be eliminated

The degree of each statement tells (degree.py); the answer is kept on disk, so that a warm start lowers nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...energies.energy import Energy
from ...energies.user_function import is_hashable
from ..machine_code.cache import digest, read_folder, write_folder
from ..machine_code.entry import compiler_sources


def term_not_quadratic(energy: Energy, names: Sequence[str]) -> str | None:
    """The first term beyond degree 2 in some variables, as the user would write it; None if the energy is quadratic."""
    symbols = [str(symbol.name) for symbol in energy.variables]
    block = tuple(f"y{k}" for k, name in enumerate(symbols) if name in names)
    key = digest("not quadratic", *block, energy.key, *compiler_sources())
    kept = is_hashable(energy)
    parts = read_folder(key, ("term",)) if kept else None
    if parts is None:
        parts = {"term": _term_beyond(energy, block).encode()}
        if kept:
            write_folder(key, parts)
    return parts["term"].decode() or None


def _term_beyond(energy: Energy, block: tuple[str, ...]) -> str:
    """The same, empty if there is none."""
    from ..derive import value
    from ..program.readable import formula, names_of
    from .degree import term_beyond  # here: a warm start needs none of them

    term = term_beyond(value(energy), block, 2)
    return "" if term is None else formula(term, names_of(energy))
