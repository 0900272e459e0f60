"""Kernels over a batch: two drivers, compiled once for all kernels, and the Python functions that run them.

    evaluate_slice()      values[b], out[b] of every instance b of a slice
    accumulate_blocks()   one row for each fixed block of 64 instances, into which the kernel adds

Both are `Native`; their arguments are those of `_evaluate_slice` and `_accumulate_blocks` below, pointers passed as
addresses. Most callers want `run` and `run_accumulated`, which need only an entry, its inputs and packed variables.

Sums over a batch run over fixed blocks of 64 instances, and the blocks are added in their order: the same bits for
any number of threads.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .arrays import address_of
from .calling import call_evaluate, call_prepare, shifted
from .native import Native, native
from .signature import DoublePointer, IntegerPointer
from .threads import run_slices

BLOCK = 64
"""Instances whose sum is made in one go."""

Floats = NDArray[np.float64]


class Inputs(Protocol):
    """What a driver needs of bound weights and data (`kernel.bind`)."""

    @property
    def table(self) -> NDArray[np.int64]: ...
    @property
    def extents(self) -> NDArray[np.int64]: ...
    @property
    def table_address(self) -> int: ...
    @property
    def extents_address(self) -> int: ...
    @property
    def batch(self) -> int | None: ...
    @property
    def weights_batched(self) -> bool: ...
    @property
    def m(self) -> int: ...
    @property
    def p(self) -> int: ...


class Entry(Protocol):
    """What a driver needs of a kernel's entry (`kernel.entry`)."""

    @property
    def evaluate(self) -> Native: ...
    @property
    def prepare(self) -> Native: ...
    @property
    def accumulate(self) -> bool: ...
    @property
    def failures(self) -> list[Exception]: ...
    def prepared_size(self, inputs: Any) -> int: ...
    def scratch_size(self, inputs: Any) -> int: ...
    def out_size(self, inputs: Any) -> int: ...


# ---------------------------------------------------------------------------------------------- compiled


def _evaluate_slice(
    evaluate: int,
    prepare: int,
    prepare_each: int,
    y: DoublePointer,
    y_stride: int,
    v: DoublePointer,
    v_stride: int,
    table: IntegerPointer,
    extents: IntegerPointer,
    prepared: DoublePointer,
    scratch: DoublePointer,
    out: DoublePointer,
    out_stride: int,
    values: DoublePointer,
    begin: int,
    end: int,
    stop: IntegerPointer,
) -> int:
    """Evaluate the instances [begin, end); returns where it ended, before `end` if the stop flag was raised.

    evaluate, prepare    addresses of the kernel's two functions
    prepare_each         1: call `prepare` for each instance first (weights differ), 0: `prepared` holds for all
    y, v                 instance b reads y + b*y_stride and v + b*v_stride (numbers; 0: shared)
    out, values          instance b writes out + b*out_stride and values[b]
    stop                 int64; not 0: return
    """
    for instance in range(begin, end):
        if stop[0] != 0:
            return instance
        if prepare_each != 0:
            call_prepare(prepare, table, extents, instance, prepared)
        values[instance] = call_evaluate(
            evaluate,
            shifted(y, instance * y_stride),
            shifted(v, instance * v_stride),
            table,
            extents,
            instance,
            prepared,
            scratch,
            shifted(out, instance * out_stride),
        )
    return end


def _accumulate_blocks(
    evaluate: int,
    prepare: int,
    prepare_each: int,
    y: DoublePointer,
    y_stride: int,
    v: DoublePointer,
    v_stride: int,
    table: IntegerPointer,
    extents: IntegerPointer,
    prepared: DoublePointer,
    scratch: DoublePointer,
    rows: DoublePointer,
    size: int,
    count: int,
    begin: int,
    end: int,
    stop: IntegerPointer,
) -> int:
    """For each block in [begin, end): zero its row of `size` numbers and let its instances add to it.

    Block k holds the instances [64 k, min(count, 64 (k + 1))); its row is rows + k*size. The rest as above.
    """
    for block in range(begin, end):
        row = shifted(rows, block * size)
        for k in range(size):
            row[k] = 0.0
        for instance in range(block * BLOCK, min(count, (block + 1) * BLOCK)):
            if stop[0] != 0:
                return block
            if prepare_each != 0:
                call_prepare(prepare, table, extents, instance, prepared)
            call_evaluate(
                evaluate,
                shifted(y, instance * y_stride),
                shifted(v, instance * v_stride),
                table,
                extents,
                instance,
                prepared,
                scratch,
                row,
            )
    return end


def evaluate_slice() -> Native:
    """The compiled `_evaluate_slice`."""
    return native(_evaluate_slice)


def accumulate_blocks() -> Native:
    """The compiled `_accumulate_blocks`."""
    return native(_accumulate_blocks)


# ---------------------------------------------------------------------------------------------- Python


class Prepared:
    """What an entry computes from weights alone: once here where they are shared, else room for it in each workspace.

    address      of the shared numbers, or 0
    each         1 where every instance prepares its own
    own          numbers of workspace that a thread needs for it
    """

    __slots__ = ("_memory", "address", "each", "own")

    def __init__(self, entry: Entry, inputs: Inputs) -> None:
        size = entry.prepared_size(inputs)
        self.address, self.each, self.own = 0, 0, 0
        if size == 0:
            return
        if inputs.weights_batched:
            self.each, self.own = 1, size
        else:
            self._memory = np.empty(size)
            self.address = address_of(self._memory)
            entry.prepare.call(inputs.table_address, inputs.extents_address, 0, self.address)


def run(
    entry: Entry, inputs: Inputs, y: Floats, v: Floats | None = None, *, count: int | None = None
) -> tuple[Floats, Floats]:
    """Evaluate an entry for every instance.

    Parameters
    ----------
    entry, inputs
        From `kernel.entry(...)` and `kernel.bind(...)`.
    y, v : (B, ...) or (1, ...) float64, C-contiguous
        Packed variables, and the direction for entries that read one. One row is shared by all instances.
    count : int, optional
        B; by default that of the inputs, of y and of v, whichever is batched, else 1.

    Returns
    -------
    values : (B,)
        What the kernel returns: the energy.
    out : (B, out_size)
    """
    rows = _count(inputs, y, v) if count is None else count
    size = entry.out_size(inputs)
    values, out = np.empty(rows), (np.zeros if entry.accumulate else np.empty)((rows, size))
    call = _bound(evaluate_slice().call, entry, inputs, y, v)
    out_address, values_address = address_of(out), address_of(values)

    def slice_(begin: int, end: int, workspace: int, stop: int) -> None:
        call(workspace, out_address, size, values_address, begin, end, stop)

    run_slices(slice_, rows, key=(entry.evaluate.address, inputs.extents.tobytes()), workspace=call.workspace)
    if entry.failures:
        raise entry.failures.pop()
    return values, out


def run_accumulated(
    entry: Entry, inputs: Inputs, y: Floats, v: Floats | None = None, *, count: int | None = None
) -> Floats:
    """The sum over the batch, out_size numbers, of an entry that adds to its output (adjoints).

    Summed over blocks of 64 instances, then over blocks in order. Parameters as for `run`.
    """
    rows = _count(inputs, y, v) if count is None else count
    blocks, size = -(-rows // BLOCK), entry.out_size(inputs)
    sums = np.empty((blocks, size))
    call = _bound(accumulate_blocks().call, entry, inputs, y, v)
    address = address_of(sums)

    def slice_(begin: int, end: int, workspace: int, stop: int) -> None:
        call(workspace, address, size, rows, begin, end, stop)

    run_slices(slice_, blocks, key=(-entry.evaluate.address, inputs.extents.tobytes()), workspace=call.workspace)
    if entry.failures:
        raise entry.failures.pop()
    total: Floats = np.zeros(size)
    for row in sums:
        total += row
    return total


def _count(inputs: Inputs, y: Floats, v: Floats | None) -> int:
    if inputs.batch is not None:
        return inputs.batch
    if len(y) != 1 or v is None:
        return len(y)
    return len(v)


class _bound:
    """A driver with the arguments of one call filled in, but for the workspace and those that come after it."""

    __slots__ = ("_first", "_keep", "_own", "_prepared", "_shared", "call", "workspace")

    def __init__(self, call: Any, entry: Entry, inputs: Inputs, y: Floats, v: Floats | None) -> None:
        prepared = Prepared(entry, inputs)
        y_address, y_stride = _address_and_stride(y)
        v_address, v_stride = (y_address, y_stride) if v is None else _address_and_stride(v)
        self.call, self._keep = call, (prepared, y, v, inputs)
        self._first = (
            entry.evaluate.address,
            entry.prepare.address,
            prepared.each,
            y_address,
            y_stride,
            v_address,
            v_stride,
            inputs.table_address,
            inputs.extents_address,
        )
        self._shared, self._own = prepared.address, prepared.own
        self.workspace = prepared.own + entry.scratch_size(inputs)

    def __call__(self, workspace: int, *rest: int) -> None:
        prepared = workspace if self._own else self._shared
        self.call(*self._first, prepared, workspace + 8 * self._own, *rest)


def _address_and_stride(array: Floats) -> tuple[int, int]:
    rows = len(array)
    return address_of(array), 0 if rows == 1 else array.size // rows if rows else 0
