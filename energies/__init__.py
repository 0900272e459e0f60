"""Energies: how they are declared, and penalties to build them from."""

from importlib import import_module
from typing import Any

from .energy import Energy
from .errors import (
    CheckpointError,
    DeclarationError,
    InputError,
    InputTypeError,
    MissingPackageError,
    NameMissingError,
    NumericalError,
    UnboundedDerivativeWarning,
    UnsupportedError,
    WibergError,
)
from .extrema import maximum, minimum
from .functions import log_sum_exp, logistic, softplus
from .held import held
from .robust import cauchy, geman_mcclure, pseudo_huber, student_t, welsch
from .user_function import function


def __getattr__(name: str) -> Any:
    if name == "fusion":  # an application: not loaded by those who do not ask for it
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'wiberg.energies' has no attribute {name!r}")


__all__ = [
    "CheckpointError",
    "DeclarationError",
    "Energy",
    "InputError",
    "InputTypeError",
    "MissingPackageError",
    "NameMissingError",
    "NumericalError",
    "UnboundedDerivativeWarning",
    "UnsupportedError",
    "WibergError",
    "cauchy",
    "function",
    "geman_mcclure",
    "held",
    "log_sum_exp",
    "logistic",
    "maximum",
    "minimum",
    "pseudo_huber",
    "softplus",
    "student_t",
    "welsch",
]
