"""wiberg: declare an energy in SymPy, minimise it in batches, learn its weights end to end."""

from importlib import import_module
from typing import Any

from .compiler import Kernel, compile, set_threads, supported_functions
from .energies import *  # noqa: F403

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "testing":
        return import_module(".compiler.testing", __name__)
    raise AttributeError(f"module 'wiberg' has no attribute {name!r}")
