"""A numba function run as plain Python: in doubles as a kernel has them, or in mpmath's numbers for checks.

Its functions of `math` and NumPy are replaced by those of the numbers it is run in. In doubles nothing is raised:
exp(1000) is infinity and 1/0 too, as in machine code. Differences in 60 digits are exact to double precision.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np

from .errors import NumericalError
from .function_digest import LIBRARIES, captured, is_numba, rebuilt


@dataclass(frozen=True)
class Library:
    """Stands for `math` and `numpy` in a function: own names first, then names of the modules, some of them renamed."""

    own: Mapping[str, Any]
    renamed: Mapping[str, str]
    modules: tuple[types.ModuleType, ...]

    def __getattr__(self, name: str) -> Any:
        if name in self.own:
            return self.own[name]
        other = self.renamed.get(name, name)
        for module in self.modules:
            if hasattr(module, other):
                return getattr(module, other)
        raise AttributeError(f"no {name} for these numbers")


DOUBLES = Library(
    {"pow": np.power},
    {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "atan2": "arctan2", "asinh": "arcsinh",
     "acosh": "arccosh", "atanh": "arctanh"},
    (np, math),
)  # fmt: skip

DIGITS = Library(
    {
        "square": lambda x: x * x,
        "maximum": lambda a, b: a if a > b else b,
        "minimum": lambda a, b: a if a < b else b,
        "log2": lambda x: mpmath.log(x, 2),
        "log10": lambda x: mpmath.log(x, 10),
        "exp2": lambda x: mpmath.power(2, x),
        "float64": mpmath.mpf,
        "copysign": lambda a, b: mpmath.fabs(a) * (1 if b >= 0 else -1),
    },
    {"abs": "fabs", "absolute": "fabs", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arctan2": "atan2",
     "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh", "lgamma": "loggamma", "pow": "power"},
    (mpmath,),
)  # fmt: skip


def in_doubles(function: Callable[..., Any]) -> Callable[..., float]:
    """The function of doubles; nan where Python cannot tell a value."""
    copy = _copy(function, DOUBLES, {"float": np.float64})

    def evaluate(*arguments: float) -> float:
        try:
            with np.errstate(all="ignore"):
                return float(copy(*map(np.float64, arguments)))
        except (ArithmeticError, ValueError):
            return math.nan

    return evaluate


def in_digits(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function of mpmath's numbers.

    Raises NumericalError where it uses something that cannot be run in them.
    """
    copy = _copy(function, DIGITS, {"float": mpmath.mpf, "abs": mpmath.fabs})

    def evaluate(*arguments: Any) -> Any:
        try:
            value = copy(*arguments)
        except (AttributeError, TypeError) as error:
            raise NumericalError(_refusal(name, str(error))) from None
        if not isinstance(value, mpmath.mpf | mpmath.mpc | int):
            raise NumericalError(_refusal(name, f"it gives a {type(value).__name__}"))
        return value

    return evaluate


def _refusal(name: str, why: str) -> str:
    return (
        f"function {name!r} cannot be run in 60 digits ({why}), which checks of derivatives need; use arithmetic and "
        "functions of math in it, or check its derivatives by differences yourself"
    )


def _copy(function: Callable[..., Any], library: Library, builtins: Mapping[str, Any]) -> Callable[..., Any]:
    def replaced(value: Any) -> Any:
        if isinstance(value, types.ModuleType) and value.__name__ in LIBRARIES:
            return library
        if is_numba(value):
            return _copy(value.py_func, library, builtins)
        home = getattr(value, "__module__", None) or type(value).__module__
        if callable(value) and str(home) in LIBRARIES:
            return getattr(library, value.__name__)
        return value

    return rebuilt(captured(function), "copy", replaced, builtins)
