"""Bounds on variables: what the user gives as `bounds=`, checked, and packed like the variables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compiler.calls.arrays import evaluate
from ...energies.errors import InputError, InputTypeError, NameMissingError, nearest

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Box:
    """low <= y <= high for each unknown, infinite where there is no bound.

    Attributes
    ----------
    low, high : (B, m), or (1, m) where all instances share them
        Of a family a row for each member, of all instances or of one that stands for all.
    batch : int or None
        The batch size that they bring.
    """

    low: Floats
    high: Floats
    batch: int | None

    def clip(self, y: Floats) -> Floats:
        """The nearest points in the box to (B, m) or (1, m); what is NaN or infinite stays so."""
        return np.where(np.isfinite(y), np.minimum(np.maximum(y, self.low), self.high), y)

    def over(self, rows: int) -> Box:
        """With (rows, m) bounds, where those of one instance of a family stand for all."""
        return Box(over(self.low, rows), over(self.high, rows), self.batch)

    def rows(self, rows: slice | NDArray[np.int64]) -> Box:
        """The bounds of some instances."""
        if len(self.low) == 1:
            return self
        low = self.low[rows]
        return Box(low, self.high[rows], len(low))


def over(array: Floats, rows: int) -> Floats:
    """(rows, ...) from what one instance of a family has, repeated for all; what one row has stays as it is."""
    return array if len(array) in (1, rows) else np.concatenate([array] * (rows // len(array)))


def box_of(kernel: Any, bounds: Any, inputs: Any) -> Box:
    """The box that `bounds` describes.

    Raises
    ------
    InputTypeError, NameMissingError, InputError
        If it is not a dict of pairs by variable; if a bound is NaN or has a shape that does not fit; if nothing lies
        between a low and a high one.
    """
    where, symbols = f"minimise: energy {kernel.name!r}", kernel.declaration.variables
    names = [symbol.name for symbol in symbols]
    if not isinstance(bounds, Mapping):
        raise InputTypeError(
            f"{where}: bounds must be a dict of pairs (low, high) by variable ({', '.join(names)}); "
            f"got {type(bounds).__name__}"
        )
    for name in bounds:
        if name not in names:
            raise NameMissingError(
                f"{where}: unknown variable {name!r} in bounds{nearest(str(name), names)}; "
                f"variables: {', '.join(names)}"
            )
    shapes = [tuple(int(evaluate(extent, inputs.sizes)) for extent in symbol.axes) for symbol in symbols]
    sides: list[tuple[Floats | None, Floats | None]] = []
    lengths: list[int] = []
    for name, shape in zip(names, shapes, strict=True):
        pair = bounds.get(name, (None, None))
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            got = f"{len(pair)} of them" if isinstance(pair, (tuple, list)) else type(pair).__name__
            raise InputTypeError(f"{where}: bounds {name} must be a pair (low, high), None for no bound; got {got}")
        low = _side(pair[0], -math.inf, shape, inputs.family, lengths, f"{where}: bounds {name}: low")
        high = _side(pair[1], math.inf, shape, inputs.family, lengths, f"{where}: bounds {name}: high")
        sides.append((low, high))
    batch = _batch(lengths, inputs.batch, where)
    lead = (1 if batch is None else batch,)
    if any(side is not None and side.shape[1] != 1 for pair in sides for side in pair) or lead[0] != 1:
        lead += inputs.family
    box = np.empty((2, math.prod(lead), inputs.m))
    box[0], box[1] = -math.inf, math.inf
    begin = 0
    for name, shape, pair in zip(names, shapes, sides, strict=True):
        end = begin + math.prod(shape)
        for side, target in zip(pair, box.reshape(2, lead[0], math.prod(lead[1:]), inputs.m), strict=True):
            if side is not None:
                target[:, :, begin:end] = side
        _check_order(box[0, :, begin:end], box[1, :, begin:end], name, shape, lead, where)
        begin = end
    return Box(box[0], box[1], batch)


def _side(
    given: Any, none: float, shape: tuple[int, ...], family: tuple[int, ...], lengths: list[int], where: str
) -> Floats | None:
    """A low or high bound as (instances, members, size of the variable), with 1 for what all share.

    `lengths` learns of a batch axis.
    """
    if given is None:
        return None
    try:
        array = np.asarray(given)
        if array.dtype == object:
            array = np.where(array == np.array(None), none, array).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputTypeError(f"{where} is not an array of numbers ({error})") from None
    if array.dtype.kind not in "fiub":
        raise InputTypeError(f"{where} has dtype {array.dtype}; numbers needed (float64)")
    array = np.asarray(array, np.float64)
    extra = array.ndim - len(shape)
    batched, each = extra == len(family) + 1, extra > 0 and extra >= len(family)
    wanted = (*array.shape[:batched], *(family if each else ()), *shape)
    try:
        full = array if array.shape == wanted else np.broadcast_to(array, wanted)
    except ValueError:
        axes = f"with the axes {family} of the family before it, or " if family else ""
        raise InputError(
            f"{where} has shape {np.shape(given)}; expected one that broadcasts to {shape}, or {axes}with a batch axis "
            f"before {'these' if family else 'it'}"
        ) from None
    if np.isnan(full).any():
        first = [int(i) for i in np.argwhere(np.isnan(full))[0]]
        raise InputError(f"{where} has NaN{f' at {first}' if first else ''}; None or infinity means no bound")
    if batched:
        lengths.append(len(full))
    return full.reshape(len(full) if batched else 1, math.prod(family) if each else 1, math.prod(shape))


def _batch(lengths: list[int], batch: int | None, where: str) -> int | None:
    """The batch size that the bounds bring; one row is shared by all instances."""
    sizes = sorted({length for length in lengths if length != 1})
    if len(sizes) > 1 or (sizes and batch not in (None, 1, sizes[0])):
        rest = "" if batch is None else f", weights and data {batch}"
        raise InputError(f"{where}: batch sizes disagree: bounds have {' and '.join(map(str, sizes))}{rest}")
    return sizes[0] if sizes else (1 if lengths else None)


def _check_order(
    low: Floats, high: Floats, name: str, shape: tuple[int, ...], lead: tuple[int, ...], where: str
) -> None:
    """Refuse bounds of a variable, (rows, size), that nothing lies between; the rows stand along `lead`."""
    wrong = (low > high) | (low == math.inf) | (high == -math.inf)
    if not wrong.any():
        return
    row, column = (int(k) for k in np.argwhere(wrong)[0])
    entry = ", ".join(str(int(k)) for k in np.unravel_index(column, shape)) if shape else ""
    whose = f"member {tuple(int(k) for k in np.unravel_index(row, lead))}" if len(lead) > 1 else f"instance {row}"
    place = (f"[{entry}]" if entry else "") + (f" of {whose}" if len(low) > 1 else "")
    raise InputError(
        f"{where}: bounds {name}{place}: nothing lies between low {low[row, column]:g} and high {high[row, column]:g}"
    )
