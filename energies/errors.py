"""Errors that a user can meet. Each is a `WibergError` and the builtin that a SciPy user would catch.

Messages say what was wrong with names and shapes, what is allowed, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WibergError(Exception):
    """The base of all errors raised on purpose by wiberg."""


class DeclarationError(WibergError, ValueError):
    """An energy that cannot be understood as declared."""


class UnsupportedError(WibergError, NotImplementedError):
    """A formula with something in it for which there is no kernel."""


class InputError(WibergError, ValueError):
    """An array, number or option that does not fit."""


class InputTypeError(WibergError, TypeError):
    """An argument of a kind that cannot be used."""


class NameMissingError(WibergError, KeyError):
    """A name that is missing or unknown."""

    def __str__(self) -> str:  # KeyError would show the message in quotes
        return str(self.args[0]) if self.args else ""


class NumericalError(WibergError, ArithmeticError):
    """A computation that has no finite answer, such as an undamped derivative at a singular Hessian."""


class NotFiniteError(NumericalError):
    """A loss or a gradient of a step of learning that is NaN or infinite, or a derivative that does not exist."""


class MissingPackageError(WibergError, ImportError):
    """Something that an optional package does, which is not installed."""


class CheckpointError(WibergError, OSError):
    """A file that cannot be written, or is not what it should be."""


class UnboundedDerivativeWarning(UserWarning):
    """A root, a fractional power, asin, acos or acosh whose derivative is infinite at a point that can be reached."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """`; did you mean 'sigma'?`, or nothing where no allowed name is near."""
    matches = difflib.get_close_matches(name, list(allowed), n=1)
    return f"; did you mean '{matches[0]}'?" if matches else ""
