"""Parts of a batch: whole blocks of 64 instances, which can be judged apart (judge.py).

Which arrays have a batch axis is told by their declared number of axes; the others are in every part as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from ..compiler.calls.evaluate import BLOCK
from ..energies.errors import InputError, InputTypeError
from .batches import AnyBatch, Batch, BatchParts, is_lazy
from .model import Model

_ARRAYS = ("data", "targets", "start", "candidates")


def parts_here(model: Model, batch: AnyBatch) -> Iterator[Batch]:
    """The parts of a batch, each read when it is asked for; an ordinary batch is its only part."""
    for part in batch.parts if isinstance(batch, BatchParts) else (batch,):
        if not isinstance(part, Batch):
            yield read(part)
        elif has_lazy_arrays(part):
            yield from map(computed, cut(model, part, 1))
        else:
            yield part


def read(part: Any) -> Batch:
    """The batch that a part stands for, read by whoever calls this."""
    if is_lazy(part):
        part = part.compute()
    elif callable(part):
        part = part()
    if not isinstance(part, Batch):
        raise InputTypeError(
            f"fit: a part of a batch must be a wb.Batch, or a reader of one (got {part!r} of type "
            f"{type(part).__name__})"
        )
    return computed(part) if has_lazy_arrays(part) else part


def has_lazy_arrays(batch: Batch) -> bool:
    """Whether dask has yet to compute some of its arrays."""
    for arrays in (batch.data, batch.targets, batch.start, batch.candidates):
        for array in (arrays or {}).values():
            if is_lazy(array):
                return True
    return False


def computed(batch: Batch) -> Batch:
    """The same with the arrays in memory."""
    import dask

    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return Batch(**dask.compute(values)[0])


def cut(model: Model, batch: Batch, pieces: int) -> list[Batch]:
    """A batch as about so many pieces; with dask arrays, one for about each chunk, which are read later.

    Raises
    ------
    InputError
        For dask arrays of unknown length.
    """
    is_batched = _batched_by_rank(model)
    sizes, chunks = set(), []
    for kind in _ARRAYS:
        for name, array in (getattr(batch, kind) or {}).items():
            if is_batched(kind, name, array):
                sizes.add(_length(array))
                if is_lazy(array):
                    chunks.append(_longest_chunk(array))
    sizes.discard(1)
    if len(sizes) != 1:  # one instance; or what does not fit together, of which minimise will tell
        return [batch]
    (count,) = sizes
    blocks = -(-count // BLOCK)
    each = -(-max(chunks) // BLOCK) if chunks else -(-blocks // pieces)
    rows = range(0, count, each * BLOCK)
    if len(rows) == 1:
        return [batch]
    return [_slice(batch, is_batched, begin, min(count, begin + each * BLOCK)) for begin in rows]


def _slice(batch: Batch, is_batched: Callable[[str, str, Any], bool], begin: int, end: int) -> Batch:
    def part(kind: str) -> dict[str, Any] | None:
        arrays: Mapping[str, Any] | None = getattr(batch, kind)
        if arrays is None:
            return None
        return {
            name: _sliceable(array)[begin:end] if is_batched(kind, name, array) and _length(array) > 1 else array
            for name, array in arrays.items()
        }

    name = f"{batch.name or ''}[{begin}:{end}]"
    return Batch(part("data") or {}, part("targets") or {}, part("start"), part("candidates"), name)


def _batched_by_rank(model: Model) -> Callable[[str, str, Any], bool]:
    """A function (kind, name, array) that says whether an array has a batch axis."""
    ranks: dict[tuple[str, str], int] = {}
    for what, energy in model.energies.items():
        for datum in energy.data:
            ranks["targets" if what == "loss" else "data", str(datum)] = len(energy.shapes[str(datum)]) + 1
    for name in model.loss.data:
        ranks.setdefault(("data", name), ranks["targets", name])
    for kernel in model.kernels:
        energy = kernel.energy
        for variable in energy.variables:
            rank = len(energy.shapes[str(variable)]) + len(energy.over) + 1
            ranks["start", str(variable)], ranks["candidates", str(variable)] = rank, rank + 1
    return lambda kind, name, array: np.ndim(_sliceable(array)) == ranks.get((kind, name), -1)


def _sliceable(array: Any) -> Any:
    return array if hasattr(array, "ndim") and hasattr(array, "shape") else np.asarray(array)


def _length(array: Any) -> int:
    length = _sliceable(array).shape[0]
    if isinstance(length, float) and math.isnan(length):
        raise InputError("fit: a dask array has a batch axis of unknown length; call its compute_chunk_sizes() first")
    return int(length)


def _longest_chunk(array: Any) -> int:
    return int(max(array.chunks[0])) if hasattr(array, "chunks") else int(array.shape[0])
