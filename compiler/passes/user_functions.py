"""Functions of users in programs: each gets a row of its own in the table of primitives when an energy is lowered.

    soft(x[i])        ->        u_3fa29c01d2e4b675(x[i])          a numba function: called by the kernel
                      ->        log(1 + exp(x[i]))                a SymPy one with own derivatives: written out at last

A row is named by the digest of the function, so that no text of the user reaches the code and that two functions of
one name are two rows. A derivative that is not known is a row too, which must be gone when a kernel is written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba.core import types as numba_types
from numba.core.errors import NumbaError

from ...energies.errors import UnsupportedError
from ...energies.user_function import UserCall, UserFunction
from ..program.expression import Affine, Op, function, read, rebuild, transform
from ..program.primitives import PRIMITIVES, Primitive
from ..program.program import Program
from .lower import RULES, Lowering

DEFINITIONS: dict[str, UserFunction] = {}  # of every row that stands for a user's function
MISSING: dict[str, tuple[UserFunction, int]] = {}  # of every row that stands for a derivative that is not known


def _lower_call(self: Lowering, node: UserCall, scope: Mapping[Any, Affine]) -> Op:
    return _applied(node.definition, tuple(self.scalar(a, scope) for a in node.args[1:]))


RULES[UserCall] = _lower_call


def _applied(definition: UserFunction, arguments: tuple[Op, ...]) -> Op:
    """The function of expressions: a primitive, or its formula where that is all there is."""
    if definition.is_plain:
        return _formula(definition, arguments)
    row = f"u_{definition.key[:16]}"
    if row not in DEFINITIONS:
        DEFINITIONS[row] = definition
        kernel = f"{row}({', '.join(['{}'] * len(arguments))})"
        PRIMITIVES[row] = Primitive(_partials_of(definition), np.vectorize(definition.number, otypes=[float]), kernel)
    return function(row, *arguments)


def _partials_of(definition: UserFunction) -> Callable[..., tuple[Op, ...]]:
    def partials(node: Op, *arguments: Op) -> tuple[Op, ...]:
        return tuple(
            _missing(definition, k, arguments) if known is None else _applied(known, arguments)
            for k, known in enumerate(definition.derivatives)
        )

    return partials


# ---------------------------------------------------------------------------------------------- formulas


class _Formula(Lowering):
    """The lowering of a formula in the arguments of a function, which become reads of `argument`, one after another."""

    def __init__(self, definition: UserFunction) -> None:
        self.energy = SimpleNamespace(name=definition.name)  # type: ignore[assignment]
        self.extents, self.definitions = {}, {}
        self.arguments = {a: read(f"argument {k}") for k, a in enumerate(definition.arguments)}

    def scalar(self, node: Any, scope: Mapping[Any, Affine]) -> Op:
        return self.arguments.get(node) or super().scalar(node, scope)


def _formula(definition: UserFunction, arguments: tuple[Op, ...]) -> Op:
    """A SymPy value at given arguments."""
    places = {f"argument {k}": a for k, a in enumerate(arguments)}
    lowered = _Formula(definition).scalar(definition.expression, {})
    return transform(lowered, lambda item: places.get(item.args[0], item) if item.name == "read" else item)


def written_out(program: Program) -> Program:
    """The program with the formulas of SymPy functions in place of their calls, once all derivatives are there."""
    if DEFINITIONS.keys().isdisjoint(_names(program)):
        return program
    memo: dict[Op, Op] = {}

    def visit(node: Op) -> Op:
        if node not in memo:
            args = tuple(visit(a) if isinstance(a, Op) else a for a in node.args)
            definition = DEFINITIONS.get(node.name)
            if definition is not None and definition.expression is not None:
                memo[node] = visit(_formula(definition, args))
            else:
                memo[node] = node if args == node.args else rebuild(node, args)
        return memo[node]

    return replace(program, statements=tuple(replace(s, expression=visit(s.expression)) for s in program.statements))


def _names(program: Program) -> set[str]:
    names: set[str] = set()
    todo, seen = [s.expression for s in program.statements], set()
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            names.add(node.name)
            todo.extend(node.children)
    return names


# ---------------------------------------------------------------------------------------------- what is missing


def _missing(definition: UserFunction, argument: int, arguments: tuple[Op, ...]) -> Op:
    row = f"missing_{definition.key[:16]}_{argument}"
    if row not in MISSING:
        MISSING[row] = definition, argument
        count = len(arguments)
        PRIMITIVES[row] = Primitive(
            lambda node, *args: (function(row, *args),) * count, lambda *args: np.asarray(math.nan), row
        )
    return function(row, *arguments)


def check_complete(program: Program, energy: str, purpose: str) -> Program:
    """Refuse a program that needs a derivative which is not known."""
    for row in sorted(_names(program) & MISSING.keys()):
        definition, argument = MISSING[row]
        what, name = _described(definition, argument), definition.arguments[argument].name
        raise UnsupportedError(
            f"energy {energy!r}: {purpose} needs {what}, which is not known: {definition} has no derivative in {name}; "
            f"give one: wb.function({definition.name!r}, ..., derivative=...)"
        )
    return program


def _described(definition: UserFunction, argument: int) -> str:
    """`the derivative of order 2 of function 'f' in r, r`: up to the function of which the others are derivatives."""
    names = [definition.arguments[argument].name]
    parents = {d: (f, k) for f in DEFINITIONS.values() for k, d in enumerate(f.derivatives) if d is not None}
    while definition in parents and len(names) <= len(parents):
        definition, above = parents[definition]
        names.insert(0, definition.arguments[above].name)
    return f"the derivative of order {len(names)} of {definition} in {', '.join(names)}"


# ---------------------------------------------------------------------------------------------- machine code


def compiled_functions(source: str) -> dict[str, Any]:
    """The numba functions that kernel source calls, by their generated names."""
    found = {}
    for row in sorted(set(re.findall(r"\bu_[0-9a-f]{16}\b", source))):
        definition = DEFINITIONS[row]
        floats = (numba_types.float64,) * len(definition.arguments)
        if floats not in definition.numba.overloads:
            try:
                definition.numba.compile(floats)
            except NumbaError as error:
                raise UnsupportedError(f"{definition} cannot be compiled by numba: {error}") from None
            definition.numba.disable_compile()  # an integer that it is given becomes a float
        result = definition.numba.overloads[floats].signature.return_type
        if not isinstance(result, numba_types.Number | numba_types.Boolean):
            raise UnsupportedError(
                f"{definition} gives a {result} for numbers of type float64; it has to give a number"
            )
        found[row] = definition.numba
    return found


def legend(program: Program) -> list[str]:
    """What the generated names of functions stand for."""
    return [
        f"{row}: function {ascii(DEFINITIONS[row].name)[1:-1]}" for row in sorted(_names(program) & DEFINITIONS.keys())
    ]
