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
from .robust import cauchy, geman_mcclure, pseudo_huber, student_t, welsch

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
    "geman_mcclure",
    "pseudo_huber",
    "student_t",
    "welsch",
]
