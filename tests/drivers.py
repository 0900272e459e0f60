"""Drivers of the tests in machine code."""

import functools
from collections.abc import Callable
from typing import Any

from wiberg.compiler.machine_code.native import Native, compile_driver


@functools.cache
def compiled(function: Callable[..., Any]) -> Native:
    """The machine code of an annotated function; when it is asked for, so that collecting tests compiles nothing."""
    return compile_driver(function, f"{function.__module__}.{function.__qualname__}")[0]
