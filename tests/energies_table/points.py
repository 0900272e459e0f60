"""Sizes, points and interpreter's inputs for the energies of the table."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import sympy as sp
from wiberg.energies.energy import Energy


def extent_sizes(energy: Energy, sizes: Mapping[str, int] | int) -> dict[Any, int]:
    """A size for every extent: given by name, or one for all with small differences, so that none are mixed up."""
    if isinstance(sizes, int):
        return {extent: sizes + number for number, extent in enumerate(energy.extents)}
    return {extent: sizes[str(extent)] for extent in energy.extents}


def draw(
    energy: Energy, sizes: Mapping[str, int] | int = 3, *, seed: int = 0, batch: int | None = None, shared: str = ""
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A random point (y, w, x); batched in every role but those named in `shared` ("weights", "data", "variables")."""
    generator = np.random.default_rng(seed)
    values = extent_sizes(energy, sizes)
    roles = {"variables": energy.variables, "weights": energy.weights, "data": energy.data}
    result = []
    for role, symbols in roles.items():
        lead = () if batch is None or role in re.findall(r"\w+", shared) else (batch,)
        arrays = {}
        for symbol in symbols:
            shape = (*lead, *(max(0, int(sp.sympify(e).subs(values))) for e in energy.shapes[str(symbol)]))
            label = symbol.label if isinstance(symbol, sp.IndexedBase) else symbol
            if str(symbol) in energy.integer:
                arrays[str(symbol)] = generator.integers(0, max(1, min(values.values())), shape)
            else:
                array = np.asarray(generator.uniform(-1.5, 1.5, shape))
                arrays[str(symbol)] = np.abs(array) + 0.3 if label.is_positive else array
        result.append(arrays)
    return tuple(result)


def generated(
    energy: Energy,
    program: Any,
    point: tuple[dict[str, Any], ...],
    sizes: Mapping[str, int] | int = 3,
    *,
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, int]]:
    """What the interpreter needs for a point of `draw`: inputs and extents by generated name; directions are drawn."""
    user: dict[str, Any] = {}
    for part in point:
        user |= part
    roles = {"variable": energy.variables, "weight": energy.weights, "data": energy.data}
    inputs = {
        name: user[str(roles[array.role][int(name[1:])])]
        for name, array in program.arrays.items()
        if array.role in roles
    }
    generator = np.random.default_rng(seed)
    for name, symbol in enumerate(energy.variables):
        if f"v{name}" in program.arrays:
            inputs[f"v{name}"] = np.asarray(generator.standard_normal(user[str(symbol)].shape))
    return inputs, dict(zip(program.extents, extent_sizes(energy, sizes).values(), strict=True))
