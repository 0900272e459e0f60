"""What a checkpoint remembers of an energy, and whether it belongs to the one at hand.

Energies are compared by the key of their formula, which names do not enter. The terms of the sum are stored beside it,
only so that a refusal can say which of them differ:

    {"name": "ransac", "formula": "5f0c...", "terms": ["-Sum(exp(...), (i, 0, n - 1))"]}
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import sympy as sp

from ..energies.energy import Energy
from ..energies.errors import CheckpointError


def describe(energy: Energy) -> dict[str, Any]:
    """Name, key of the formula and terms, as JSON values."""
    return {"name": energy.name, "formula": energy.formula_key, "terms": _terms(energy)}


def check_same(path: str | os.PathLike[str], saved: Mapping[str, Any], energy: Energy, what: str) -> None:
    """Raise CheckpointError unless `saved`, which `describe` made, is of this energy.

    Parameters
    ----------
    path, what
        For the message: the file, and "energy" or "loss".
    """
    if saved["formula"] == energy.formula_key:
        return
    then, now = set(saved["terms"]), set(_terms(energy))
    differing = "; ".join(
        [*(f"then {term}" for term in sorted(then - now)), *(f"now {term}" for term in sorted(now - then))]
    )
    detail = f"the expression differs: {differing}" if differing else "roles, shapes or definitions differ"
    raise CheckpointError(
        f"checkpoint {path} was made for {what} {saved['name']!r} ({saved['formula'][:8]}), not for "
        f"{energy.name!r} ({energy.formula_key[:8]}): {detail}; they are compared by formula, not "
        f"by name"
    )


def check_all(path: str | os.PathLike[str], saved: Mapping[str, Any], energies: Mapping[str, Energy]) -> None:
    """`check_same` for all formulas of a model, by what they are."""
    for what, energy in energies.items():
        if what not in saved:
            raise CheckpointError(f"checkpoint {path} was made without {what} {energy.name!r}")
        check_same(path, saved[what], energy, what)
    for what, description in saved.items():
        if isinstance(description, Mapping) and "formula" in description and what not in energies:
            raise CheckpointError(f"checkpoint {path} was made with {what} {description['name']!r}, which is missing")


def _terms(energy: Energy) -> list[str]:
    return sorted(str(term) for term in sp.Add.make_args(energy.expression))
