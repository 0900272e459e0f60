"""wiberg: declare an energy in SymPy, minimise it in batches, learn its weights end to end.

Imports run one way: energies <- compiler <- runtime <- learn. `wiberg.testing` (derivative checks and hypothesis
strategies for users' own tests) is imported when first asked for.
"""

from importlib import import_module
from typing import Any

from .compiler import Kernel, compile, set_threads, supported_functions
from .energies import (
    CheckpointError,
    DeclarationError,
    Energy,
    InputError,
    InputTypeError,
    NameMissingError,
    NumericalError,
    UnsupportedError,
    WibergError,
    cauchy,
    geman_mcclure,
    pseudo_huber,
    student_t,
    welsch,
)
from .learn import (
    SGD,
    Batch,
    History,
    Learner,
    Loss,
    UnconvergedWarning,
    Weight,
    absolute_error,
    implicit_gradient,
    implicit_jacobian,
    squared_error,
)
from .runtime import Solution, Status, minimise

__version__ = "0.1.0"

_LAZY = {"testing": (".compiler.testing", None), "check_derivatives": (".compiler.testing", "check_derivatives")}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        module, attribute = _LAZY[name]
        found = import_module(module, __name__)
        return found if attribute is None else getattr(found, attribute)
    raise AttributeError(f"module 'wiberg' has no attribute {name!r}")


__all__ = [
    "SGD",
    "Batch",
    "CheckpointError",
    "DeclarationError",
    "Energy",
    "History",
    "InputError",
    "InputTypeError",
    "Kernel",
    "Learner",
    "Loss",
    "NameMissingError",
    "NumericalError",
    "Solution",
    "Status",
    "UnconvergedWarning",
    "UnsupportedError",
    "Weight",
    "WibergError",
    "absolute_error",
    "cauchy",
    "check_derivatives",
    "compile",
    "geman_mcclure",
    "implicit_gradient",
    "implicit_jacobian",
    "minimise",
    "pseudo_huber",
    "set_threads",
    "squared_error",
    "student_t",
    "supported_functions",
    "testing",
    "welsch",
]
