"""Where a minimisation starts: a given point, or the candidate of lowest energy.

Candidates are given with the call, one axis more than declared (shared by all instances) or two (batched), or are
declared with the energy and computed by a kernel from weights and data. Each instance ranks its candidates with the
kernel `many_values` and starts from the lowest finite energy, the first of equals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..energies.errors import InputError, InputTypeError, NameMissingError, nearest

Floats = NDArray[np.float64]


class Counted:
    """Bound inputs with the number of candidates as one more extent, the last, as `many_values` expects."""

    def __init__(self, inputs: Any, count: int) -> None:
        self._inputs = inputs
        self.extents = np.append(inputs.extents, count)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inputs, name)


class Seeds(NamedTuple):
    """Candidates of a call: `points` is (number, m), (B, number, m), or None where a kernel computes them."""

    points: Floats | None
    number: int
    batch: int | None


def declared_seeds(kernel: Any, inputs: Any) -> Seeds:
    """The candidates that the energy declares."""
    count = kernel.entry("candidates").out_size(inputs) // inputs.m
    if count < 1:
        raise InputError(f"minimise: energy '{kernel.name}': its candidates= are none for these extents; give start= "
                         "or candidates=")
    return Seeds(None, count, None)


def given_seeds(kernel: Any, candidates: Any, inputs: Any) -> Seeds:
    """The candidates of a call, checked and packed.

    Raises
    ------
    InputTypeError, NameMissingError, InputError
        If it is not a dict with every variable, or shapes do not fit.
    """
    where = f"minimise: energy '{kernel.name}'"
    names = kernel.variables.names
    if not isinstance(candidates, Mapping):
        raise InputTypeError(f"{where}: candidates must be a dict of variables ({', '.join(names)}); got "
                             f"{type(candidates).__name__}")
    for name in candidates:
        if name not in names:
            raise NameMissingError(f"{where}: unknown variable '{name}' in candidates{nearest(str(name), names)}; "
                                   f"variables: {', '.join(names)}")
    count, batch = None, inputs.batch
    arrays = {}
    for name in names:
        if name not in candidates:
            raise NameMissingError(f"{where}: candidates lack variable {name}; give all of: {', '.join(names)}")
        array = _floats(where, name, candidates[name])
        rank, shape = len(kernel.energy.shapes[name]), np.shape(array)
        if array.ndim not in (rank + 1, rank + 2):
            raise InputError(f"{where}: candidates {name} has shape {shape}; expected one axis more than the variable "
                             f"has ({rank}), or two: (count, ...) or (B, count, ...)")
        if array.ndim == rank + 2:
            if batch in (None, 1):
                batch = len(array)
            elif len(array) not in (1, batch):
                raise InputError(f"{where}: batch sizes disagree: candidates {name} has {len(array)} {shape}, others "
                                 f"have {batch}")
        length = array.shape[-rank - 1]
        if length == 0:
            raise InputError(f"{where}: candidates {name} has shape {shape}: at least one candidate per instance")
        if count not in (None, length):
            raise InputError(f"{where}: candidates {name} has {length} candidates {shape}, another variable {count}")
        count = length
        arrays[name] = array
    assert count is not None
    batched = any(array.ndim == len(kernel.energy.shapes[name]) + 2 for name, array in arrays.items())
    rows = (batch or 0) if batched else 1
    flat = {}
    for name, array in arrays.items():
        rank = len(kernel.energy.shapes[name])
        shape = array.shape[array.ndim - rank:]
        flat[name] = np.broadcast_to(array, (rows, count, *shape)).reshape(rows * count, *shape)
    packed, _ = kernel.bind_variables(flat, _Unbatched(inputs, rows * count))
    points = np.ascontiguousarray(packed).reshape(rows, count, inputs.m)
    return Seeds(points[0] if rows == 1 else points, count, batch if batched else None)


class _Unbatched:
    """Bound inputs whose batch is the rows of all candidates together, for checks of variables."""

    def __init__(self, inputs: Any, batch: int) -> None:
        self._inputs, self.batch = inputs, batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inputs, name)


def _floats(where: str, name: str, value: Any) -> Floats:
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise TypeError
        return np.asarray(array, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{where}: candidates {name} are not numbers (float64 needed)") from None
