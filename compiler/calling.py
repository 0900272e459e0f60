"""The one calling convention of kernels, so that every driver is compiled once for all energies.

    evaluate(y, v, table, extents, instance, prepared, scratch, out) -> float64
    prepare(table, extents, instance, prepared) -> float64 (always 0)

y, v       the variables of this instance and a direction (m numbers each); v is read by hvp and the adjoints only
table      int64, for each input array (weights, then data, in declared order) the address of its first number and
           the distance in numbers from one instance to the next (0: shared by all instances)
extents    int64, the extents of the energy in the order of its signature
instance   which instance of the batch; only arrays with a distance are affected
prepared   numbers that depend on weights alone, written by `prepare`; once for a call where weights are shared, once
           for each instance where they are not
scratch    working memory of `evaluate`, one for each thread
out        what the kernel computes; the energy itself is returned

Everything is float64 in C order; integer data are int64. Kernels do not check bounds: binding.py has done so.

Drivers call kernels and move pointers with the functions below. `translate` knows them; of Python, `shifted` only.
"""

from __future__ import annotations

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


def _called(function: Any) -> Any:
    signature = signature_of(function)
    return type(signature)(signature.result, signature.arguments[1:])


EVALUATE, PREPARE = _called(call_evaluate), _called(call_prepare)
