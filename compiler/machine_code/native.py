"""Machine code as files: a function becomes a C-callable address, compiled now or loaded from the cache.

Kernels are compiled by numba (`compile_function`), drivers by `translate`. Both have a plain C signature (pointers,
64-bit integers, doubles), so that drivers call kernels through an address, Python calls both through ctypes (which
releases the GIL), and nothing of numba's dispatchers is on the way of a call.

What is stored is the object code itself, not numba's pickled index (docs/decisions/0001-object-cache.md).
"""

from __future__ import annotations

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
import llvmlite.binding as llvm
import numba
from numba import cfunc
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys

from .cache import digest, read_folder, write_folder
from .signature import Signature, signature_of
from .translate import Instead, translate

logger = logging.getLogger("wiberg")

# Reductions may be reordered and products contracted, so that loops vectorise; NaN and infinity keep their meaning.
KERNEL_FASTMATH = frozenset({"contract", "reassoc", "nsz", "arcp"})


@dataclass(frozen=True)
class Native:
    """A compiled function: `address` for drivers, `call` for Python; `library` keeps the code alive."""

    address: int
    call: Callable[..., Any]
    library: Any


@cache
def native(function: Callable[..., Any], instead: Instead = ()) -> Native:
    """The machine code of a driver, an annotated function of this package; from the cache if no source has changed.

    Its key is the hash of the sources of every module of the package that it can reach. `instead` leaves out what is
    not needed: pairs of functions of the package, of which the second is called in place of the first.
    """
    signature = signature_of(function)
    name = " ".join([_name_of(function), *(f"{_name_of(a)}={_name_of(b)}" for a, b in instead)])  # symbols must differ
    key = digest("driver", name, *reachable_sources(function), *platform_key())
    parts = read_folder(key, PARTS)
    loaded = None if parts is None else load(parts, signature)
    if loaded is not None:
        return loaded
    compiled, parts = compile_driver(function, name, instead)
    write_folder(key, parts)
    return compiled


def _name_of(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


PARTS = ("object", "bitcode", "symbol")


def compile_function(
    function: Callable[..., Any], signature: Signature, *, fastmath: frozenset[str] = frozenset()
) -> tuple[Native, dict[str, bytes]]:
    """Compile a function by numba; the machine code, and the parts from which `load` makes it again."""
    compiled = cfunc(
        signature.result(*signature.arguments),
        fastmath=set(fastmath) or False,
        error_model="numpy",
        boundscheck=False,
        no_rewrites=True,  # of expressions of arrays: kernels have none, and looking for them takes a tenth of the time
    )(function)
    native = Native(compiled.address, signature.c_type(compiled.address), compiled)
    return native, _parts(compiled._library, compiled.native_name)


def compile_driver(function: Callable[..., Any], symbol: str, instead: Instead = ()) -> tuple[Native, dict[str, bytes]]:
    """Translate and compile an annotated function; the machine code, and the parts from which `load` makes it again."""
    with global_compiler_lock:
        library = _codegen().create_library(symbol)
        library.enable_object_caching()
        module = llvm.parse_assembly(str(translate(function, symbol, instead)))
        module.verify()
        # not add_ir_module, whose passes over each function are for numba's count of references: an eighth of the time
        library._final_module.link_in(module)
        library.finalize()
        address = library.get_pointer_to_function(symbol)
    return Native(address, signature_of(function).c_type(address), library), _parts(library, symbol)


def _parts(library: Any, symbol: str) -> dict[str, bytes]:
    _, _, (object_code, bitcode) = library.serialize_using_object_code()
    return {"object": object_code, "bitcode": bitcode, "symbol": symbol.encode()}


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
