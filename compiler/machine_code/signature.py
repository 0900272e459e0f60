"""The types of compiled functions, and what a plain C function takes and gives back.

Functions that `translate` compiles say their types as annotations: float, int, bool, DoublePointer, IntegerPointer.
The two pointers are protocols that NumPy arrays satisfy, so that such a function also runs as Python, on arrays.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from numba import types


class DoublePointer(Protocol):
    """The first of some float64 numbers: p[i]."""

    def __getitem__(self, index: int, /) -> float: ...
    def __setitem__(self, index: int, value: float, /) -> None: ...


class IntegerPointer(Protocol):
    """The first of some int64 numbers: p[i]."""

    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...


double, integer, void = types.float64, types.int64, types.void
double_pointer, integer_pointer = types.CPointer(types.float64), types.CPointer(types.int64)

ANNOTATIONS: dict[str, Any] = {
    "float": double,
    "int": integer,
    "None": void,
    "DoublePointer": double_pointer,
    "IntegerPointer": integer_pointer,
}
"""The types that cross a C call, by the annotation that stands for them."""

_C_TYPES: dict[Any, Any] = {
    double: ctypes.c_double,
    integer: ctypes.c_int64,
    void: None,
    double_pointer: ctypes.c_void_p,
    integer_pointer: ctypes.c_void_p,
}


Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Signature:
    """The C signature of a compiled function: a type for the result and one for each argument."""

    result: Any
    arguments: tuple[Any, ...]

    @property
    def c_type(self) -> Any:
        return ctypes.CFUNCTYPE(_C_TYPES[self.result], *[_C_TYPES[a] for a in self.arguments])

    def __str__(self) -> str:
        return str(self.result(*self.arguments))


def vectorised(function: Function) -> Function:
    """Mark a function whose loops are the work: LLVM may unroll and vectorise them.

    All others are compiled for size, which takes LLVM half as long.
    """
    function.__dict__["vectorised"] = True
    return function


def streaming(function: Function) -> Function:
    """Mark a loop over long vectors: `vectorised`, and two promises with which LLVM makes the most of it.

    The memory that it writes through a pointer is reached through no other of its pointers, and its sums may be added
    in any order, products contracted: the same order each time, whatever the addresses.
    """
    function.__dict__["streaming"] = True
    return vectorised(function)


def signature_of(function: Callable[..., Any]) -> Signature:
    """The signature that a function's annotations say (as text: its module postpones their evaluation)."""
    annotations = inspect.get_annotations(function)
    *arguments, result = (ANNOTATIONS[text] for text in annotations.values())
    return Signature(result, tuple(arguments))
