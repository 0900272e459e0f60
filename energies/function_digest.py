"""What a numba function computes, as text to hash, and a copy of it that nothing can change any more.

A kernel that calls a user's function may be kept on disk only if a change of the function makes another key. So the
text holds the bytecode, its constants, defaults, closure and every global that it reads: numbers, strings, tuples of
them, functions of `math` and NumPy, and other numba functions (as their own text). Anything else, such as an array in
a closure, is no text, and the kernel is compiled in each process.

The copy reads these values from a dictionary of its own, since numba fixes globals when it happens to compile.
"""

from __future__ import annotations

import builtins
import dis
import hashlib
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

PLAIN = (bool, int, float, complex, str, bytes, type(None))
LIBRARIES = ("math", "cmath", "numpy")


class UnhashableError(Exception):
    """Something that a function reads has no text; the message says what."""


@dataclass(frozen=True)
class Captured:
    """A function with what it reads: globals by name, and the values of its closure in order."""

    function: Callable[..., Any]
    globals: Mapping[str, Any]
    closure: tuple[Any, ...]


def captured(function: Callable[..., Any]) -> Captured:
    """What a Python function reads now."""
    code: types.CodeType = function.__code__
    names = dict.fromkeys(_global_names(code))
    values = {name: function.__globals__[name] for name in names if name in function.__globals__}
    return Captured(function, values, tuple(_content(cell) for cell in function.__closure__ or ()))


def function_text(dispatcher: Any, inside: tuple[Any, ...] = ()) -> str:
    """The text of a numba function; raises UnhashableError where there is none.

    Examples
    --------
    >>> import numba
    >>> first, second = (numba.njit(lambda x, a=a: a * x) for a in (2.0, 3.0))
    >>> function_text(first) == function_text(second)
    False
    """
    if dispatcher in inside:
        raise UnhashableError("itself, by recursion")
    inside = (*inside, dispatcher)
    found = captured(dispatcher.py_func)
    options = sorted((k, v) for k, v in dispatcher.targetoptions.items() if k in ("fastmath", "boundscheck"))
    parts = [
        f"options {options!r}",
        f"code {_code_text(found.function.__code__)}",
        f"defaults {_value_text('a default', found.function.__defaults__, inside)}",
        *(f"global {name} {_value_text(name, value, inside)}" for name, value in sorted(found.globals.items())),
        *(
            f"closure {_value_text(name, value, inside)}"
            for name, value in zip(found.function.__code__.co_freevars, found.closure, strict=True)
        ),
    ]
    return "\n".join(parts)


def rebuilt(
    found: Captured, name: str, replace: Callable[[Any], Any], extra: Mapping[str, Any] | None = None
) -> Callable[..., Any]:
    """The function again, under a generated name, with each value that it reads replaced.

    A generated name is one of its content: LLVM takes functions of equal names from two cached kernels for one.
    """
    values = {key: replace(value) for key, value in found.globals.items()}
    function = found.function
    cells = tuple(types.CellType(replace(value)) for value in found.closure)
    scope = {"__builtins__": builtins, "__name__": "wiberg.kernel", **(extra or {}), **values}
    copy = types.FunctionType(function.__code__, scope, name, function.__defaults__, cells or None)
    copy.__qualname__, copy.__module__ = name, "wiberg.kernel"
    return copy


def raises(function: Callable[..., Any]) -> bool:
    """Whether the function can raise an exception of its own, which a kernel could not pass on."""
    return any(
        step.opname in ("RAISE_VARARGS", "RERAISE")
        for code in _codes(function.__code__)
        for step in dis.get_instructions(code)
    )


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _global_names(code: types.CodeType) -> list[str]:
    steps = (step for part in _codes(code) for step in dis.get_instructions(part))
    return [step.argval for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")]


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _code_text(code: types.CodeType) -> str:
    constants = [
        _code_text(c) if isinstance(c, types.CodeType) else _value_text("a constant", c, ()) for c in code.co_consts
    ]
    exceptions = getattr(code, "co_exceptiontable", b"")
    kind = code.co_flags & 0xFF  # whether it is a generator and the like; not the __future__ imports of its file
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, code.co_argcount, kind)
    content = repr((code.co_code, exceptions, names, constants))
    return hashlib.sha256(content.encode()).hexdigest()


def _value_text(name: str, value: Any, inside: tuple[Any, ...]) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(_value_text(name, v, inside) for v in value) + ")"
    if isinstance(value, frozenset):
        return "{" + ", ".join(sorted(_value_text(name, v, inside) for v in value)) + "}"
    if type(value) in PLAIN:
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, types.ModuleType) and value.__name__ in LIBRARIES:
        return f"module {value.__name__}"
    if is_numba(value):
        return f"function {hashlib.sha256(function_text(value, inside).encode()).hexdigest()}"
    home = getattr(value, "__module__", None) or type(value).__module__
    if callable(value) and str(home).partition(".")[0] in LIBRARIES:
        return f"library {home}.{getattr(value, '__name__', '')}"
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () and hasattr(value, "dtype"):
        return f"{value.dtype} {value!r}"
    raise UnhashableError(f"{name} of type {type(value).__name__}")


def is_numba(value: Any) -> bool:
    """Whether it is a function compiled by numba.njit."""
    return hasattr(value, "py_func") and hasattr(value, "targetoptions")
