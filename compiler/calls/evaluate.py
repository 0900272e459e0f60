"""Kernels over a batch: two drivers, compiled once for all kernels, and the Python functions that run them.

    evaluate_slice()      values[b], out[b] of every instance b of a slice
    accumulate_blocks()   one row for each fixed block of 64 instances, into which the kernel adds

Both are drivers as calling.py describes them. Most callers want `run` and `run_accumulated`, which need only an entry,
its inputs and packed variables.

Sums over a batch run over fixed blocks of 64 instances, and the blocks are added in their order: the same bits for
any number of threads.
"""

from __future__ import annotations

from array import array
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..machine_code.calling import call_evaluate, call_prepare, double_pointer_at, integer_pointer_at, shifted
from ..machine_code.native import Native, native
from ..machine_code.signature import DoublePointer, IntegerPointer
from .arrays import address_of
from .memory import empty
from .slices import NEVER, run_slices

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
    def kept(self, kind: str) -> Floats | None: ...
    def keep(self, kind: str, common: Floats) -> None: ...
    @property
    def m(self) -> int: ...
    @property
    def p(self) -> int: ...


class Entry(Protocol):
    """What a driver needs of a kernel's entry (`kernel.entry`)."""

    @property
    def kind(self) -> str: ...
    @property
    def common(self) -> Any: ...
    @property
    def evaluate(self) -> Native: ...
    @property
    def prepare(self) -> Native: ...
    @property
    def accumulate(self) -> bool: ...
    @property
    def failures(self) -> list[Exception]: ...
    def needs(self, inputs: Any) -> tuple[int, int, int]: ...


# ---------------------------------------------------------------------------------------------- compiled


# What both drivers read from their problem.
EVALUATE, PREPARE, PREPARED, OWN, TABLE, EXTENTS = range(6)
Y, Y_STRIDE, V, V_STRIDE, OUT, SIZE, VALUES, TOTAL, WIDTH = range(6, 15)


def _prepare(problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer) -> int:
    """Prepare for all instances what PREPARED has room for."""
    table, extents = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS])
    call_prepare(problem[PREPARE], table, extents, 0, double_pointer_at(problem[PREPARED]))
    return end


def _evaluate_slice(
    problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer
) -> int:
    """Evaluate the instances [begin, end).

    EVALUATE, PREPARE    addresses of the kernel's two functions
    PREPARED, OWN        address of what was prepared for all instances; or OWN numbers, which each instance prepares
    TABLE, EXTENTS       addresses
    Y, V                 addresses; instance b reads y + b*Y_STRIDE and v + b*V_STRIDE (numbers; 0: shared)
    OUT, VALUES          addresses; instance b writes SIZE numbers to out + b*SIZE, and values[b]
    """
    table, extents = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS])
    y, v = double_pointer_at(problem[Y]), double_pointer_at(problem[V])
    out, values = double_pointer_at(problem[OUT]), double_pointer_at(problem[VALUES])
    own = problem[OWN]
    prepared = workspace if own > 0 else double_pointer_at(problem[PREPARED])
    scratch = shifted(workspace, own)
    for instance in range(begin, end):
        if stop[0] != 0:
            return instance
        if own > 0:
            call_prepare(problem[PREPARE], table, extents, instance, prepared)
        values[instance] = call_evaluate(
            problem[EVALUATE],
            shifted(y, instance * problem[Y_STRIDE]),
            shifted(v, instance * problem[V_STRIDE]),
            table,
            extents,
            instance,
            prepared,
            scratch,
            shifted(out, instance * problem[SIZE]),
        )
    return end


def _accumulate_blocks(
    problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer
) -> int:
    """For each block in [begin, end): zero its row of SIZE numbers at OUT and let its instances add to it.

    Block k holds the instances [WIDTH k, min(TOTAL, WIDTH (k + 1))). The rest as above.
    """
    table, extents = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS])
    y, v, size = double_pointer_at(problem[Y]), double_pointer_at(problem[V]), problem[SIZE]
    own = problem[OWN]
    prepared = workspace if own > 0 else double_pointer_at(problem[PREPARED])
    scratch = shifted(workspace, own)
    for block in range(begin, end):
        row = shifted(double_pointer_at(problem[OUT]), block * size)
        for k in range(size):
            row[k] = 0.0
        for instance in range(block * problem[WIDTH], min(problem[TOTAL], (block + 1) * problem[WIDTH])):
            if stop[0] != 0:
                return block
            if own > 0:
                call_prepare(problem[PREPARE], table, extents, instance, prepared)
            call_evaluate(
                problem[EVALUATE],
                shifted(y, instance * problem[Y_STRIDE]),
                shifted(v, instance * problem[V_STRIDE]),
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

    What the members of a family have in common is computed here, too. A call for one row (`alone`) leaves everything
    else to the driver, which saves a call.

    own          numbers of workspace that a thread needs for it, where every instance prepares its own
    fields       (evaluate, prepare, address, own): what every driver reads of a kernel
    before       the driver that has yet to be called, where `later` was asked for and there is something to prepare
    """

    __slots__ = ("_memory", "before", "fields", "own")

    def __init__(self, entry: Entry, inputs: Inputs, *, later: bool = False, alone: bool = False) -> None:
        if entry.common is not None:
            ready(entry, inputs)
        size = entry.needs(inputs)[0]
        self.own, address = 0, 0
        self.before: Native | None = None
        if size != 0:
            if alone or inputs.weights_batched:
                self.own = size
            else:
                self._memory = array("d", bytes(8 * size))
                address = self._memory.buffer_info()[0]
                if later:
                    self.before = native(_prepare)
                else:
                    entry.prepare.call(inputs.table_address, inputs.extents_address, 0, address)
        self.fields = (entry.evaluate.address, entry.prepare.address, address, self.own)


def ready(entry: Entry, inputs: Inputs) -> None:
    """Compute what the members of a family have in common for an entry, unless it is there; before any driver."""
    if entry.common is not None:
        common = inputs.kept(entry.kind)
        if common is None:
            count = 1 if inputs.batch is None else inputs.batch
            common = run(entry.common, inputs, np.empty((1, 0)), count=count)[1]
        inputs.keep(entry.kind, common)


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
    size = entry.needs(inputs)[2]
    values, out = np.empty(rows), (np.zeros if entry.accumulate else empty)((rows, size))
    _drive(evaluate_slice(), entry, inputs, y, v, out, size, address_of(values), rows, rows)
    return values, out


def run_one(entry: Entry, inputs: Inputs, y: Floats, instance: int) -> tuple[float, Floats]:
    """Evaluate an entry for one instance of a batch: y is its packed variables, (m,); returns value and out."""
    prepared, (_, scratch, size) = Prepared(entry, inputs), entry.needs(inputs)
    value, out, workspace = np.empty(1), np.zeros(size), np.empty(prepared.own + scratch + 1)
    place = address_of(y)
    problem = array(
        "q",
        (
            *prepared.fields,
            inputs.table_address,
            inputs.extents_address,
            *(place, 0, place, 0),
            address_of(out) - 8 * size * instance,
            size,
            address_of(value) - 8 * instance,
            1,
            BLOCK,
        ),
    )
    evaluate_slice().call(problem.buffer_info()[0], instance, instance + 1, address_of(workspace), NEVER)
    if entry.failures:
        raise entry.failures.pop()
    return float(value[0]), out


def run_accumulated(
    entry: Entry, inputs: Inputs, y: Floats, v: Floats | None = None, *, count: int | None = None
) -> Floats:
    """The sum over the batch, out_size numbers, of an entry that adds to its output (adjoints).

    Summed over blocks of 64 instances, then over blocks in order. Parameters as for `run`.
    """
    rows = _count(inputs, y, v) if count is None else count
    total: Floats = np.zeros(entry.needs(inputs)[2])
    for row in sums_of_rows(entry, inputs, y, v, count=rows, width=BLOCK):
        total += row
    return total


def sums_of_rows(entry: Entry, inputs: Inputs, y: Floats, v: Floats | None, *, count: int, width: int) -> Floats:
    """The sums over each `width` rows, (sums, out_size), of an entry that adds to its output."""
    blocks, size = -(-count // width) if width else 0, entry.needs(inputs)[2]
    sums = np.empty((blocks, size))
    _drive(accumulate_blocks(), entry, inputs, y, v, sums, size, 0, count, blocks, width)
    return sums


def _drive(
    driver: Native,
    entry: Entry,
    inputs: Inputs,
    y: Floats,
    v: Floats | None,
    out: Floats,
    size: int,
    values: int,
    rows: int,
    count: int,
    width: int = BLOCK,
) -> None:
    prepared = Prepared(entry, inputs, later=True, alone=rows == 1)
    y_address, y_stride = _address_and_stride(y)
    v_address, v_stride = (y_address, y_stride) if v is None else _address_and_stride(v)
    problem = array(
        "q",
        (
            *prepared.fields,
            inputs.table_address,
            inputs.extents_address,
            y_address,
            y_stride,
            v_address,
            v_stride,
            address_of(out),
            size,
            values,
            rows,
            width,
        ),
    )
    key = (driver.address, entry.evaluate.address, inputs.extents.tobytes())
    workspace = prepared.own + entry.needs(inputs)[1]
    run_slices(driver, problem.buffer_info()[0], count, key=key, workspace=workspace, before=prepared.before)
    if entry.failures:
        raise entry.failures.pop()


def _count(inputs: Inputs, y: Floats, v: Floats | None) -> int:
    if inputs.batch is not None:
        return inputs.batch
    if len(y) != 1 or v is None:
        return len(y)
    return len(v)


def _address_and_stride(array: Floats) -> tuple[int, int]:
    rows = len(array)
    return address_of(array), array.size // rows if rows > 1 else 0
