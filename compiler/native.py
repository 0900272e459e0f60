"""Machine code as files: a Python function becomes a C-callable address, compiled by numba or loaded from the cache.

Every compiled function of the package, generated kernel or driver, goes through `native`. It has a plain C
signature (pointers, 64-bit integers, doubles), so that drivers call kernels through an address, Python calls both
through ctypes (which releases the GIL), and nothing of numba's dispatchers is on the way of a call.

What is stored is the object code itself, not numba's pickled index (docs/decisions/0001-object-cache.md).
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import sys
import types as python_types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba import cfunc, types
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys

from .cache import digest, read_folder, write_folder

logger = logging.getLogger("wiberg")

double, integer, void = types.float64, types.int64, types.void
double_pointer, integer_pointer = types.CPointer(types.float64), types.CPointer(types.int64)

# Reductions may be reordered and products contracted, so that loops vectorise; NaN and infinity keep their meaning.
KERNEL_FASTMATH = frozenset({"contract", "reassoc", "nsz", "arcp"})

_C_TYPES: dict[Any, Any] = {
    double: ctypes.c_double,
    integer: ctypes.c_int64,
    void: None,
    double_pointer: ctypes.c_void_p,
    integer_pointer: ctypes.c_void_p,
}


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


@dataclass(frozen=True)
class Native:
    """A compiled function: `address` for drivers, `call` for Python; `library` keeps the code alive."""

    address: int
    call: Callable[..., Any]
    library: Any


def native(function: Callable[..., Any], signature: Signature, *, fastmath: frozenset[str] = frozenset()) -> Native:
    """The machine code of a function of this package, from the cache if its sources have not changed.

    `function` is plain Python in numba's language; it may call jitted functions of the package. Its key is the hash
    of the sources of every module of the package that it can reach.
    """
    key = digest(
        "function",
        f"{function.__module__}.{function.__qualname__}",
        str(signature),
        *sorted(fastmath),
        *reachable_sources(function),
        *platform_key(),
    )
    return native_from_key(key, lambda: function, signature, fastmath=fastmath)


def native_from_key(
    key: str, make: Callable[[], Callable[..., Any]], signature: Signature, *, fastmath: frozenset[str] = frozenset()
) -> Native:
    """The machine code stored under `key`; `make` gives the function to compile where nothing sound is stored."""
    parts = read_folder(key, PARTS)
    loaded = None if parts is None else load(parts, signature)
    if loaded is not None:
        return loaded
    compiled, parts = compile_function(make(), signature, fastmath=fastmath)
    write_folder(key, parts)
    return compiled


PARTS = ("object", "bitcode", "symbol")


def compile_function(
    function: Callable[..., Any], signature: Signature, *, fastmath: frozenset[str] = frozenset()
) -> tuple[Native, dict[str, bytes]]:
    """Compile a function; the machine code, and the parts from which `load` makes it again."""
    compiled = cfunc(
        signature.result(*signature.arguments), fastmath=set(fastmath) or False, error_model="numpy", boundscheck=False
    )(function)
    _, _, (object_code, bitcode) = compiled._library.serialize_using_object_code()
    parts = {"object": object_code, "bitcode": bitcode, "symbol": compiled.native_name.encode()}
    return Native(compiled.address, signature.c_type(compiled.address), compiled), parts


def load(parts: Mapping[str, bytes], signature: Signature) -> Native | None:
    """The machine code of stored parts; None, with a warning, where they cannot be loaded."""
    try:
        codegen = _codegen()
        symbol = parts["symbol"].decode()
        library = codegen.unserialize_library((symbol, "object", (parts["object"], parts["bitcode"])))
        address = library.get_pointer_to_function(symbol)
    except Exception as error:  # an object file of another world: whatever it is, compiling anew is right
        logger.warning("cached machine code cannot be loaded (%s); rebuilt", error)
        return None
    return Native(address, signature.c_type(address), library) if address else None


@cache
def _codegen() -> Any:
    """numba's code generator with the symbols of its runtime registered: LLVM ends the process where one is missing."""
    context = cpu_target.target_context
    context.refresh()
    rtsys.initialize(context)
    return context.codegen()


# ---------------------------------------------------------------------------------------------- keys


@cache
def platform_key() -> tuple[str, ...]:
    """What machine code depends on besides its source: numba, LLVM, the interpreter and the CPU."""
    return (
        numba.__version__,
        llvmlite.__version__,
        sys.implementation.cache_tag,
        *map(str, cpu_target.target_context.codegen().magic_tuple()),
    )


@cache
def file_digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def reachable_sources(function: Callable[..., Any]) -> list[str]:
    """Digests of the files of every module of this package whose functions `function` can reach."""
    package = __name__.partition(".")[0]
    seen: dict[str, str] = {}
    todo = [function.__module__]
    while todo:
        name = todo.pop()
        if name in seen or name.partition(".")[0] != package:
            continue
        module = sys.modules[name]
        seen[name] = file_digest(str(module.__file__))
        for value in vars(module).values():
            if isinstance(value, python_types.ModuleType):
                todo.append(value.__name__)
            elif callable(value):
                todo.append(getattr(value, "__module__", None) or "")
    return [f"{name}:{seen[name]}" for name in sorted(seen)]
