"""The calling conventions of kernels and drivers, so that every driver is compiled once for all energies.

    evaluate(y, v, table, extents, instance, prepared, scratch, out) -> float64
    prepare(table, extents, instance, prepared) -> float64 (always 0)

y, v       the variables of this instance and a direction (m numbers each); v is read by hvp and the adjoints only
table      int64, for each input array (weights, then data, in declared order) the address of its first number and
           the distance in numbers from one instance to the next (0: shared by all instances)
extents    int64, the extents of the energy in the order of its signature
instance   which instance of the batch; only arrays with a distance are affected. Of a family (family.py) which row:
           instance * members + member, so that drivers that loop over rows need to know nothing of families. Further
           rows of the table lead to what members have in common, and to the numbers of rows that are meant instead
prepared   numbers that depend on weights alone, written by `prepare`; once for a call where weights are shared, once
           for each instance where they are not
scratch    working memory of `evaluate`, one for each thread
out        what the kernel computes; the energy itself is returned

Everything is float64 in C order; integer data are int64. Kernels do not check bounds: binding.py has done so.

A driver is a loop over instances, or over blocks of them, that calls kernels:

    drive(problem, begin, end, workspace, stop) -> where it ended, before `end` where the int64 at `stop` was not 0

problem    int64: whatever the driver needs to know, under names that it defines
workspace  float64: working memory of one thread

Drivers call kernels and move pointers with the functions below, which `translate` knows; Python knows few of them.
"""

from __future__ import annotations

import struct
from typing import Any, TypeVar

from .signature import DoublePointer, IntegerPointer, signature_of

Pointer = TypeVar("Pointer", DoublePointer, IntegerPointer)


def shifted(pointer: Pointer, count: int) -> Pointer:
    """The pointer `count` numbers further on: pointer + count in C."""
    array: Any = pointer
    rest: Pointer = array[count:]
    return rest


def double_pointer_at(address: int) -> DoublePointer:
    """The address as a pointer to float64."""
    raise NotImplementedError("in compiled functions only")


def integer_pointer_at(address: int) -> IntegerPointer:
    """The address as a pointer to int64."""
    raise NotImplementedError("in compiled functions only")


def doubles(pointer: IntegerPointer) -> DoublePointer:
    """The same memory, read as float64."""
    raise NotImplementedError("in compiled functions only")


def bits_of(number: float) -> int:
    """The bits of a float64 as an integer: those of numbers >= 0 are ordered as the numbers, NaN is above them all."""
    bits: int = struct.unpack("q", struct.pack("d", number))[0]
    return bits


def of_bits(bits: int) -> float:
    """The float64 of these bits."""
    number: float = struct.unpack("d", struct.pack("q", bits))[0]
    return number


def rough_inverse_root(number: float) -> float:
    """1/sqrt(number) to 4 % for a normal number > 0, without a root or a division: its exponent, halved and negated."""
    return of_bits(0x5FE6EB50C7B537A9 - (bits_of(number) >> 1))


def prefetch(pointer: Pointer, index: int) -> None:
    """Tell the CPU that pointer[index] is needed soon; any index will do, also one beyond the array."""


def call_evaluate(
    address: int,
    y: DoublePointer,
    v: DoublePointer,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    scratch: DoublePointer,
    out: DoublePointer,
) -> float:
    """Call the kernel at an address."""
    raise NotImplementedError("in compiled functions only")


def call_prepare(
    address: int, table: IntegerPointer, extents: IntegerPointer, instance: int, prepared: DoublePointer
) -> float:
    """Call the preparation of a kernel at an address."""
    raise NotImplementedError("in compiled functions only")


def call_drive(
    address: int, problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer
) -> int:
    """Call the driver at an address."""
    raise NotImplementedError("in compiled functions only")


def call_blocks(
    address: int,
    task: int,
    layout: IntegerPointer,
    h: DoublePointer,
    n: int,
    number: float,
    bound: float,
    radius: float,
    g: DoublePointer,
    space: DoublePointer,
    p: DoublePointer,
    count: int,
) -> float:
    """Call what works on Hessians with blocks (runtime/algebra/bordered.py) at an address; `task` says what is done."""
    raise NotImplementedError("in compiled functions only")


def _called(function: Any) -> Any:
    signature = signature_of(function)
    return type(signature)(signature.result, signature.arguments[1:])


EVALUATE, PREPARE, DRIVE = _called(call_evaluate), _called(call_prepare), _called(call_drive)
BLOCKS = _called(call_blocks)


# ---------------------------------------------------------------------------------------------- between threads


def atomic_load(pointer: IntegerPointer, index: int) -> int:
    """pointer[index], after whatever the thread that wrote it had written before."""
    raise NotImplementedError("in compiled functions only")


def atomic_store(pointer: IntegerPointer, index: int, value: int) -> None:
    """pointer[index] = value, seen by other threads only with everything written before."""
    raise NotImplementedError("in compiled functions only")


def atomic_add(pointer: IntegerPointer, index: int, value: int) -> int:
    """pointer[index] += value; what was there before."""
    raise NotImplementedError("in compiled functions only")


def compare_exchange(pointer: IntegerPointer, index: int, expected: int, value: int) -> bool:
    """Write the value if pointer[index] is as expected; whether it was."""
    raise NotImplementedError("in compiled functions only")


def pause() -> None:
    """Tell the CPU that this thread is waiting for another one."""
    raise NotImplementedError("in compiled functions only")


def prepared_for(
    entry: IntegerPointer, table: IntegerPointer, extents: IntegerPointer, instance: int, own: DoublePointer
) -> DoublePointer:
    """The prepared numbers of an entry for this instance: shared ones, or those now written to `own`."""
    if entry[3] == 0:
        return double_pointer_at(entry[2])
    call_prepare(entry[1], table, extents, instance, own)
    return own
