"""Where a minimisation starts: a given point, or the candidate of lowest energy.

Candidates are given with the call, one axis more than declared (shared by all instances) or two (batched), of a family
also with the axes of the family before the axis that counts them, or are
declared with the energy and computed by a kernel from weights and data. Each instance ranks its candidates with the
kernel `many_values` and starts from the lowest finite energy, the first of equals. That kernel computes exponentials
to 1e-8 only, in half the time: ranking is most of the work of energies with many candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..compiler.calls.arrays import batch_size, extra_axes, read_extents, spread_rows
from ..compiler.calls.evaluate import run
from ..energies.errors import InputError, InputTypeError, NameMissingError, nearest
from .bounds.box import Box, over

Floats = NDArray[np.float64]


class Seeds(NamedTuple):
    """Candidates: `points` is (number, m), (rows, number, m), or None where a kernel computes them.

    `batch` is the batch size that they bring, None if they are shared.
    """

    points: Floats | None
    number: int
    batch: int | None

    def rows(self, rows: slice | NDArray[np.int64]) -> Seeds:
        """The candidates of some instances."""
        return self if self.points is None or self.points.ndim == 2 else self._replace(points=self.points[rows])


def given_seeds(kernel: Any, candidates: Any, inputs: Any) -> Seeds:
    """The candidates of a call, checked and packed.

    Raises
    ------
    InputTypeError, NameMissingError, InputError
        If it is not a dict with every variable, or shapes do not fit.
    """
    arrays = _arrays(kernel, candidates)
    if inputs.family:
        return _family_seeds(kernel, arrays, inputs)
    ranks = {symbol.name: len(symbol.axes) for symbol in kernel.declaration.variables}
    where = f"minimise: energy {kernel.name!r}"
    number: int | None = None
    rows: int | None = None
    for name, array in arrays.items():
        extra = array.ndim - ranks[name]
        if extra not in (1, 2):
            raise InputError(
                f"{where}: candidates {name} has shape {array.shape}; expected one axis more than the "
                f"variable has ({ranks[name]}), or two: (count, ...) or (B, count, ...)"
            )
        if array.shape[extra - 1] == 0:
            raise InputError(f"{where}: candidates {name} has shape {array.shape}: at least one candidate per instance")
        if number not in (None, array.shape[extra - 1]):
            raise InputError(
                f"{where}: candidates {name} has shape {array.shape}, another variable has {number} candidates"
            )
        number = array.shape[extra - 1]
        if extra == 2 and rows in (None, 1):
            rows = len(array)
        elif extra == 2 and len(array) not in (1, rows):
            raise InputError(f"{where}: batch sizes disagree: candidates {name} has {len(array)}, others have {rows}")
    assert number is not None
    if rows is not None and inputs.batch not in (None, 1) and rows not in (1, inputs.batch):
        raise InputError(f"{where}: batch sizes disagree: candidates have {rows}, weights and data {inputs.batch}")
    lead = 1 if rows is None else rows
    flat = {}
    for name, array in arrays.items():
        shape = array.shape[array.ndim - ranks[name] :]
        flat[name] = np.broadcast_to(array, (lead, number, *shape)).reshape(lead * number, *shape)
    every = copy(inputs)
    every.batch = lead * number
    packed, _ = kernel.bind_variables(flat, every)
    points = packed.reshape(lead, number, inputs.m)
    return Seeds(points[0] if lead == 1 else points, number, rows)


def _family_seeds(kernel: Any, arrays: Mapping[str, Floats], inputs: Any) -> Seeds:
    """The same for a family: (count, ...), (F..., count, ...) or (B, F..., count, ...)."""
    declaration, family = kernel.declaration, inputs.family
    where = f"minimise: energy {kernel.name!r}"
    extras, counts, sizes = [], {}, []
    for symbol in declaration.variables:
        shape, rank = arrays[symbol.name].shape, len(symbol.axes)
        if len(shape) <= rank or shape[len(shape) - rank - 1] == 0:
            raise InputError(
                f"{where}: candidates {symbol.name} has shape {shape}; expected the axis that counts them, at least 1 "
                f"long, before the axes {symbol.shape_text} of the variable"
            )
        place = len(shape) - rank - 1
        counts[symbol.name] = shape[place]
        rest = shape[:place] + shape[place + 1 :]
        extras.append(extra_axes(declaration, symbol, rest, family))
        read_extents(declaration, inputs.sizes, symbol, rest[place:])
        sizes.append((symbol.name, rest, extras[-1] > len(family)))
    number = counts[declaration.variables[0].name]
    if set(counts.values()) != {number}:
        listed = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise InputError(f"{where}: every variable needs as many candidates as the others: {listed}")
    batch = batch_size(declaration, sizes)
    if batch is not None and inputs.batch not in (None, 1) and batch not in (1, inputs.batch):
        raise InputError(f"{where}: batch sizes disagree: candidates have {batch}, weights and data {inputs.batch}")
    rows = batch if inputs.batch in (None, 1) and batch is not None else inputs.batch
    lead = (() if rows is None else (rows,)) + family if any(extras) else ()
    ordered = [arrays[symbol.name] for symbol in declaration.variables]
    points = spread_rows(ordered, [extra + 1 for extra in extras], (*lead, number))
    return Seeds(points.reshape(-1, number, inputs.m) if lead else points, number, batch)


def within(
    box: Box, kernel: Any, inputs: Any, start: Floats | None, seeds: Seeds | None, rows: int
) -> tuple[Floats | None, Seeds | None]:
    """The start or the candidates, each moved to the nearest point of the box.

    Raises
    ------
    InputError
        If the batch of the bounds is another one.
    """
    if box.batch not in (None, 1) and box.batch * inputs.members != rows:
        raise InputError(
            f"minimise: energy {kernel.name!r}: batch sizes disagree: bounds have {box.batch}, "
            f"start or candidates {rows // inputs.members}"
        )
    if start is not None:
        return box.clip(over(start, rows)), seeds
    assert seeds is not None
    points = seeds.points if seeds.points is None or seeds.points.ndim == 2 else over(seeds.points, rows)
    if points is None:
        _, written = run(kernel.entry("candidates"), inputs, np.zeros((rows, inputs.m)), count=rows)
        points = written.reshape(rows, seeds.number, inputs.m)
    points = Box(box.low[:, None], box.high[:, None], box.batch).clip(points)
    return start, Seeds(points[0] if len(points) == 1 else points, seeds.number, seeds.batch)


def _arrays(kernel: Any, candidates: Any) -> dict[str, Floats]:
    where, names = f"minimise: energy {kernel.name!r}", kernel.variables.names
    if not isinstance(candidates, Mapping):
        raise InputTypeError(
            f"{where}: candidates must be a dict of variables ({', '.join(names)}); got {type(candidates).__name__}"
        )
    for name in candidates:
        if name not in names:
            raise NameMissingError(
                f"{where}: unknown variable {name!r} in candidates{nearest(str(name), names)}; "
                f"variables: {', '.join(names)}"
            )
    arrays = {}
    for name in names:
        if name not in candidates:
            raise NameMissingError(f"{where}: candidates lack variable {name}; give all of: {', '.join(names)}")
        try:
            array = np.asarray(candidates[name])
        except ValueError as error:
            raise InputError(f"{where}: candidates {name} is not an array: {error}") from None
        if array.dtype.kind not in "fiub":
            raise InputTypeError(f"{where}: candidates {name} has dtype {array.dtype}; numbers needed (float64)")
        arrays[name] = np.asarray(array, np.float64)
    return arrays
