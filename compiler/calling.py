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
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .native import Signature, double, double_pointer, integer, integer_pointer

EVALUATE = Signature(
    double,
    (
        double_pointer,
        double_pointer,
        integer_pointer,
        integer_pointer,
        integer,
        double_pointer,
        double_pointer,
        double_pointer,
    ),
)
PREPARE = Signature(double, (integer_pointer, integer_pointer, integer, double_pointer))


def _caller(signature: Signature) -> Any:
    """An intrinsic (address, *arguments) that calls the C function of that signature at an address."""

    def typer(typing_context: Any, address: Any, *arguments: Any) -> Any:
        def generate(context: Any, builder: Any, _: Any, values: Any) -> Any:
            argument_types = [context.get_value_type(a) for a in signature.arguments]
            function_type = ir.FunctionType(context.get_value_type(signature.result), argument_types)
            function = builder.inttoptr(values[0], function_type.as_pointer())
            return builder.call(function, values[1:])

        return signature.result(types.int64, *signature.arguments), generate

    return typer


@intrinsic
def call_evaluate(typing_context, address, y, v, table, extents, instance, prepared, scratch, out):  # type: ignore[no-untyped-def]
    """Call the kernel at an address."""
    return _caller(EVALUATE)(typing_context, address, y, v, table, extents, instance, prepared, scratch, out)


@intrinsic
def call_prepare(typing_context, address, table, extents, instance, prepared):  # type: ignore[no-untyped-def]
    """Call the preparation of a kernel at an address."""
    return _caller(PREPARE)(typing_context, address, table, extents, instance, prepared)


@intrinsic
def shifted(typing_context, pointer, count):  # type: ignore[no-untyped-def]
    """The pointer `count` numbers further on: pointer + count in C."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.gep(values[0], [values[1]])

    return pointer(pointer, types.int64), generate


def _pointer_to(element: Any) -> Any:
    def typer(typing_context: Any, address: Any) -> Any:
        pointer = types.CPointer(element)

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.inttoptr(values[0], context.get_value_type(pointer))

        return pointer(types.int64), generate

    return typer


@intrinsic
def double_pointer_at(typing_context, address):  # type: ignore[no-untyped-def]
    """The address as a pointer to float64."""
    return _pointer_to(types.float64)(typing_context, address)


@intrinsic
def integer_pointer_at(typing_context, address):  # type: ignore[no-untyped-def]
    """The address as a pointer to int64."""
    return _pointer_to(types.int64)(typing_context, address)
