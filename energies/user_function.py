"""A function that users bring themselves: `wb.function("name", value=..., derivative=...)`."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import logging
import math
import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import sympy as sp

from .digest import Numbering
from .display import excerpt, latex_text, printable
from .errors import DeclarationError, InputError, InputTypeError
from .function_digest import UnhashableError, captured, function_text, is_numba, raises, rebuilt
from .function_numbers import in_digits, in_doubles
from .traversal import distinct_nodes

logger = logging.getLogger("wiberg")

POINTS = (-2.3, -0.71, 0.37, 0.93, 1.71, 4.1)  # where a derivative is compared with differences
TOLERANCE = 1e-6
POINTWISE = "a function of numbers: no sums, arrays or matrices in it"


def function(name: str, value: Any, derivative: Any = None) -> UserFunction:
    """A function of your own, to be used in energies like those of SymPy.

    Parameters
    ----------
    name : str
        What formulas and messages call it.
    value : callable
        A Python function or `sp.Lambda` that gives a SymPy expression; or a function of floats compiled by
        `numba.njit`, which must not raise exceptions: it returns `math.nan` where it has no value.
    derivative : function, or list of one for each argument, optional
        The partial derivatives, each of the kinds that `value` may be, or a `wb.function`, which can have a
        derivative of its own; None for one that is not known. A SymPy value needs none: it is differentiated. A kernel
        that needs a derivative which is not known is refused.

    Returns
    -------
    UserFunction
        Call it with expressions.

    Raises
    ------
    DeclarationError
        If a derivative differs from differences of the value; the message has the numbers.
    InputError, InputTypeError
        For a value or derivative that cannot be called with the right number of arguments.

    Examples
    --------
    >>> x = sp.Symbol("x", real=True)
    >>> square = function("square", lambda r: r**2)
    >>> square(x + 1)
    (x + 1)**2

    With numba, and with derivatives to the second order, which a Hessian needs:

    >>> import numba
    >>> second = function("cube''", numba.njit(lambda r: 6 * r))
    >>> first = function("cube'", numba.njit(lambda r: 3 * r * r), derivative=second)
    >>> cube = function("cube", numba.njit(lambda r: r * r * r), derivative=first)
    >>> cube(x + 1)
    cube(x + 1)
    """
    if not isinstance(name, str):
        raise InputTypeError(f"the name of a function is a str; got {name!r} of type {type(name).__name__}")
    made = UserFunction.of(name, value)
    made.derivatives = _derivatives(made, derivative)
    made.key, made.reason = _key(made)
    if made.reason:
        logger.warning(
            "function '%s' reads %s, which cannot be hashed: kernels with it are compiled in each process, not kept",
            printable(name), made.reason,
        )  # fmt: skip
    for argument, known in enumerate(made.derivatives):
        if known is not None:
            _check_derivative(made, argument, known)
    return made


class UserFunction:
    """A function made by `wb.function`; call it with SymPy expressions.

    Attributes
    ----------
    name : str
    arguments : tuple of sympy Symbol
        Its arguments in order, under the names that the value gives them.
    expression : sympy expression or None
        The value in SymPy; None for a numba function.
    numba : function or None
        The value in numba, with all that it reads fixed at declaration.
    derivatives : tuple of UserFunction or None
        The partial derivatives that are given.
    key : str
        A hexadecimal digest of the name and all of the above.
    reason : str
        What makes it impossible to hash the function; empty where it can be.
    """

    def __init__(self, name: str, arguments: tuple[Any, ...], expression: Any = None, numba: Any = None) -> None:
        self.name = name
        self.arguments = arguments
        self.expression = expression
        self.numba = numba
        self.derivatives: tuple[UserFunction | None, ...] = (None,) * len(arguments)
        self.key = ""
        self.reason = ""

    @staticmethod
    def of(name: str, value: Any) -> UserFunction:
        """The function without its derivatives."""
        if is_numba(value):
            return _from_numba(name, value)
        return _from_sympy(name, value)

    def __call__(self, *arguments: Any) -> Any:
        if len(arguments) != len(self.arguments):
            raise InputTypeError(f"{self} takes {_count(self)}; got {len(arguments)}")
        given = [sp.sympify(a) for a in arguments]
        return self.inlined(*given) if self.is_plain else UserCall(Token(self), *given)

    def __repr__(self) -> str:
        return f"function {self.name!r}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UserFunction) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def is_plain(self) -> bool:
        """Whether it stands for its SymPy expression and nothing else."""
        return self.expression is not None and not any(self.derivatives)

    def inlined(self, *arguments: Any) -> Any:
        """The SymPy value at other arguments."""
        return self.expression.xreplace(dict(zip(self.arguments, arguments, strict=True)))

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("precise", "plain")}

    @cached_property
    def precise(self) -> Callable[..., Any]:
        """The numba function in mpmath's numbers; raises NumericalError where it cannot be run in them."""
        return in_digits(self.numba.py_func, self.name)

    @cached_property
    def plain(self) -> Callable[..., float]:
        """The numba function as a function of Python."""
        return in_doubles(self.numba.py_func)

    def number(self, *arguments: float) -> float:
        """The value at numbers, nan where it has none."""
        if self.expression is None:
            return self.plain(*arguments)
        try:
            return float(self.inlined(*map(sp.Float, arguments)).evalf(30))
        except (ArithmeticError, ValueError, TypeError):  # complex, or not a number
            return math.nan


class Token(sp.Atom):  # type: ignore[misc]
    """A user's function as the first argument of a call, so that SymPy tells calls of two functions apart."""

    is_commutative = True
    is_number = False

    def __new__(cls, definition: UserFunction) -> Token:
        token: Token = super().__new__(cls)
        token.definition = definition
        return token

    __slots__ = ("definition",)
    definition: UserFunction

    def __getnewargs__(self) -> tuple[UserFunction]:
        return (self.definition,)

    def __reduce__(self) -> Any:
        return Token, (self.definition,)

    def _hashable_content(self) -> tuple[str]:
        return (self.definition.key,)

    def sort_key(self, order: Any = None) -> Any:
        return self.class_key(), (1, (self.definition.key,)), sp.S.One.sort_key(), sp.S.One

    def _sympyrepr(self, printer: Any) -> str:
        return f"Token({self.definition.key})"

    def _sympystr(self, printer: Any) -> str:
        return printable(self.definition.name)


class UserCall(sp.Function):  # type: ignore[misc]
    """A call of a user's function: UserCall(token, argument, ...)."""

    @property
    def definition(self) -> UserFunction:
        definition: UserFunction = self.args[0].definition
        return definition

    def fdiff(self, argindex: int = 1) -> Any:
        """The derivative in an argument; the first one is the token."""
        known = self.definition.derivatives[argindex - 2]
        if known is None:
            raise DeclarationError(
                f"{self.definition} has no derivative in {self.definition.arguments[argindex - 2]}; give derivative="
            )
        return known(*self.args[1:])

    def _eval_derivative(self, s: Any) -> Any:
        slopes = [(argument.diff(s), k) for k, argument in enumerate(self.args[1:], 2)]
        return sp.Add(*(slope * self.fdiff(k) for slope, k in slopes if slope != 0))

    def _sympystr(self, printer: Any) -> str:
        return f"{printable(self.definition.name)}({', '.join(map(printer._print, self.args[1:]))})"

    def _latex(self, printer: Any, exp: Any = None) -> str:
        power = "" if exp is None else f"^{{{exp}}}"
        inner = ", ".join(map(printer._print, self.args[1:]))
        return rf"{latex_text(self.definition.name)}{power}\left({inner}\right)"


def functions_in(formulas: Iterable[Any]) -> list[UserFunction]:
    """The users' functions that formulas call."""
    return [node.definition for node in distinct_nodes(formulas) if isinstance(node, Token)]


def is_hashable(energy: Any) -> bool:
    """Whether the energy's key says all, so that its kernels may be kept on disk."""
    formulas = (energy.expression, *energy.where.values(), *energy.candidates.values())
    return not any(f.reason for f in functions_in(formulas))


# ---------------------------------------------------------------------------------------------- values


def _from_numba(name: str, dispatcher: Any) -> UserFunction:
    return UserFunction(name, _arguments(name, dispatcher.py_func), numba=_fixed(name, dispatcher, {}))


def _fixed(name: str, dispatcher: Any, done: dict[Any, Any]) -> Any:
    """The same numba function with what it reads fixed now; division by zero gives infinity, as in kernels."""
    import numba

    if dispatcher in done:
        return done[dispatcher]
    if raises(dispatcher.py_func):
        raise InputError(
            f"function {name!r} raises exceptions, which cannot leave a kernel; return math.nan where it has no value"
        )
    done[dispatcher] = dispatcher  # one that calls itself is left as it is
    try:
        label = f"u_{hashlib.sha256(function_text(dispatcher).encode()).hexdigest()[:16]}"
    except UnhashableError:
        label = f"u_{uuid.uuid4().hex[:16]}"
    copy = rebuilt(captured(dispatcher.py_func), label, lambda v: _fixed(name, v, done) if is_numba(v) else v)
    done[dispatcher] = numba.njit(error_model="numpy", fastmath=dispatcher.targetoptions.get("fastmath", False))(copy)
    return done[dispatcher]


def _from_sympy(name: str, value: Any) -> UserFunction:
    if not callable(value):
        raise InputTypeError(
            f"the value of function {name!r} is {value!r} of type {type(value).__name__}; give a Python function that "
            "returns a SymPy expression, a sp.Lambda, or a function compiled by numba.njit"
        )
    arguments = _arguments(name, value)
    try:
        expression = sp.sympify(value(*arguments), strict=True)
    except (TypeError, ValueError, AttributeError, sp.SympifyError) as error:
        raise InputTypeError(
            f"the value of function {name!r} cannot be called with SymPy symbols ({error}); use functions of SymPy in "
            "it, such as sp.exp, or compile it by numba.njit"
        ) from None
    if not isinstance(expression, sp.Expr) or isinstance(expression, sp.MatrixExpr):
        raise InputTypeError(
            f"the value of function {name!r} gives {excerpt(expression)} of type {type(expression).__name__}; "
            "it has to give a scalar SymPy expression"
        )
    _check_pointwise(name, expression, arguments)
    return UserFunction(name, arguments, expression)


def _check_pointwise(name: str, expression: Any, arguments: Sequence[Any]) -> None:
    kinds = sp.Sum | sp.Product | sp.IndexedBase | sp.Idx | sp.MatrixExpr | sp.MatrixBase
    for node in distinct_nodes([expression]):
        if isinstance(node, kinds):
            raise DeclarationError(f"function {name!r} contains {excerpt(node)}; it has to be {POINTWISE}")
        if isinstance(node, sp.Symbol) and node not in arguments:
            raise DeclarationError(
                f"function {name!r} reads {excerpt(node)}, which is none of its arguments "
                f"({', '.join(printable(str(a)) for a in arguments)}); make it one"
            )


def _arguments(name: str, value: Any) -> tuple[Any, ...]:
    """Symbols for the arguments, called as the function calls them."""
    if isinstance(value, sp.Lambda):
        names = [str(symbol) for symbol in value.signature]
    elif isinstance(value, sp.FunctionClass):
        names = [f"x{k}" for k in range(min(value.nargs, default=1))]
    else:
        try:
            parameters = list(inspect.signature(value).parameters.values())
        except (TypeError, ValueError) as error:
            raise InputTypeError(f"function {name!r}: its arguments cannot be counted ({error})") from None
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        names = [p.name for p in parameters if p.kind in kinds and p.default is inspect.Parameter.empty]
        if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
            raise InputTypeError(f"function {name!r} takes *{parameters[-1].name}; give each argument a name")
    if not names:
        raise InputTypeError(f"function {name!r} has no arguments; a constant is an expression, or a weight")
    return tuple(sp.Dummy(n, real=True) for n in names)


def _count(made: UserFunction) -> str:
    names = ", ".join(str(a.name) for a in made.arguments)
    return f"1 argument ({names})" if len(made.arguments) == 1 else f"{len(made.arguments)} arguments ({names})"


# ---------------------------------------------------------------------------------------------- derivatives


def _derivatives(made: UserFunction, given: Any) -> tuple[UserFunction | None, ...]:
    count = len(made.arguments)
    if given is None:
        return (None,) * count
    listed = list(given) if isinstance(given, list | tuple) else [given]
    if len(listed) != count:
        raise InputError(
            f"{made} takes {_count(made)} and has {len(listed)} derivatives; give a list of one for each argument, "
            "None for one that is not known"
        )
    return tuple(None if d is None else _derivative(made, k, d) for k, d in enumerate(listed))


def _derivative(made: UserFunction, argument: int, given: Any) -> UserFunction:
    label = f"{made.name}'" if len(made.arguments) == 1 else f"{made.name}_{made.arguments[argument].name}"
    found = given if isinstance(given, UserFunction) else function(label, given)
    if len(found.arguments) != len(made.arguments):
        raise InputError(
            f"the derivative of {made} in {made.arguments[argument].name} takes {_count(found)}; {made} takes "
            f"{_count(made)}, and so do its derivatives"
        )
    return found


def _check_derivative(made: UserFunction, argument: int, known: UserFunction) -> None:
    """Compare a derivative with differences of the value, where both are finite."""
    count = len(made.arguments)
    points = itertools.islice(itertools.product(POINTS, repeat=count), 0, None, max(1, len(POINTS) ** count // 40))
    for point in points:
        expected, uncertain = _differences(made, argument, point)
        got = known.number(*point)
        if not (math.isfinite(expected) and math.isfinite(got)):
            continue
        if abs(got - expected) > TOLERANCE * (1 + abs(expected)) + 10 * uncertain:
            where = ", ".join(f"{a.name} = {p}" for a, p in zip(made.arguments, point, strict=True))
            raise DeclarationError(
                f"the derivative of {made} in {made.arguments[argument].name} is {got:.9g} at {where}, "
                f"but differences of its value give {expected:.9g}"
            )


def _differences(made: UserFunction, argument: int, point: Sequence[float]) -> tuple[float, float]:
    """The derivative by central differences, extrapolated (Ridders 1982), and how far it may be off."""

    def slope(step: float) -> float:
        ends = [[p + s * step if k == argument else p for k, p in enumerate(point)] for s in (1, -1)]
        return (made.number(*ends[0]) - made.number(*ends[1])) / (ends[0][argument] - ends[1][argument])

    rows: list[list[float]] = []
    best, error = math.nan, math.inf
    for k in range(8):
        row = [slope(0.02 / 2**k)]
        for order, earlier in enumerate(rows[-1] if rows else [], 1):
            row.append(row[-1] + (row[-1] - earlier) / (4**order - 1))
            off = max(abs(row[-1] - row[-2]), abs(row[-1] - earlier))
            if off < error:
                best, error = row[-1], off
        rows.append(row)
    return best, error


# ---------------------------------------------------------------------------------------------- keys


def _key(made: UserFunction) -> tuple[str, str]:
    """A digest of all that the function is, and what stands against one: then the key is of this process only."""
    parts = [f"function {made.name!r} {len(made.arguments)}"]
    reasons = [d.reason for d in made.derivatives if d is not None and d.reason]
    if made.expression is not None:
        numbering = Numbering()
        ordered = [sp.Symbol(f"argument {k}", real=True) for k in range(len(made.arguments))]
        numbering.number(made.inlined(*ordered))
        parts += numbering.lines
        reasons += [f.reason for f in functions_in([made.expression]) if f.reason]
    else:
        try:
            parts.append(function_text(made.numba))
        except UnhashableError as error:
            reasons.append(str(error))
    parts += ["derivative " + ("none" if d is None else d.key) for d in made.derivatives]
    if reasons:
        return hashlib.sha256(uuid.uuid4().bytes).hexdigest(), reasons[0]
    return hashlib.sha256("\n".join(parts).encode("utf-8", "backslashreplace")).hexdigest(), ""
