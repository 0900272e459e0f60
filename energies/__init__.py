"""Energies: how they are declared, and penalties to build them from."""

from .energy import Energy
from .errors import (
    CheckpointError,
    DeclarationError,
    InputError,
    InputTypeError,
    NameMissingError,
    NumericalError,
    UnsupportedError,
    WibergError,
)
from .extrema import maximum, minimum
from .robust import cauchy, geman_mcclure, pseudo_huber, student_t, welsch
from .user_function import function

__all__ = [
    "CheckpointError",
    "DeclarationError",
    "Energy",
    "InputError",
    "InputTypeError",
    "NameMissingError",
    "NumericalError",
    "UnsupportedError",
    "WibergError",
    "cauchy",
    "function",
    "geman_mcclure",
    "maximum",
    "minimum",
    "pseudo_huber",
    "student_t",
    "welsch",
]
