"""Programs as people read them: the user's names, divisions and square roots, and what each statement is for.

    t1[] += w0**2*(y0[i] - x0[i])**2*w1[i]**(-1/2)      for i
    t1 += sigma**2*(y[i] - x[i])**2/sqrt(v[i])     for i < n     # sum over i

Arrays of our own keep their generated names, as the user has none for them. `show` in expression.py is the terse form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ...energies.display import printable
from ...energies.display import text as expression_text
from ...energies.energy import Energy
from .expression import MINUS_ONE, Affine, Gather, Op, negative, number
from .program import Program, Range, Statement

SUM, PRODUCT, POWER, ATOM = range(4)  # how tightly the outermost operation of a text binds

INFIX = {"less": "<", "less_equal": "<=", "equal": "==", "and": "and", "or": "or"}
_OUTPUT_OF = re.compile(r"(?<=_)[ywx]\d+(?=_|$)")  # outputs are named after what they are derivatives in
RENAMED = {"maximum": "max", "minimum": "min"}


@dataclass(frozen=True)
class Names:
    """What generated names stand for: `arrays` and `extents` in the user's words."""

    arrays: Mapping[str, str]
    extents: Mapping[str, str]

    def affine(self, value: Affine) -> str:
        """An integer expression, its extents by the user's names."""
        parts = [
            (item if count == 1 else f"{count}*{item}") for item, count in ((self._item(i), c) for i, c in value.terms)
        ]
        if value.constant or not parts:
            parts.append(str(value.constant))
        return " + ".join(parts).replace("+ -", "- ")

    def _item(self, item: str | Gather) -> str:
        if isinstance(item, Gather):
            return self.entry(item.array, item.subscripts)
        return self.extents.get(item, item)

    def entry(self, array: str, subscripts: Sequence[Affine | int]) -> str:
        """An entry of an array, its subscripts affine or already numbers."""
        inside = ", ".join(str(s) if isinstance(s, int) else self.affine(s) for s in subscripts)
        name = self.arrays.get(array) or _OUTPUT_OF.sub(lambda part: self.arrays.get(part[0], part[0]), array)
        return f"{name}[{inside}]" if subscripts else name

    def range(self, index: str, values: Range) -> str:
        """The values of an index."""
        last = self.affine(values.stop)
        if values.start == Affine(()):
            return f"{index} < {last}"
        return f"{self.affine(values.start)} <= {index} < {last}"

    def note(self, text: str) -> str:
        """A note of the compiler with the user's names in the place of generated ones."""
        return re.sub(r"\b[a-z]+\d+\b", lambda found: self.arrays.get(found[0], found[0]), text)


def names_of(energy: Energy) -> Names:
    """The user's names of what a program of the energy reads."""
    roles = {"y": energy.variables, "w": energy.weights, "x": energy.data}
    arrays = {
        f"{letter}{k}": printable(str(symbol.name)) for letter, role in roles.items() for k, symbol in enumerate(role)
    }
    arrays |= {f"v{k}": f"v({printable(str(symbol.name))})" for k, symbol in enumerate(energy.variables)}
    known = {f"n{k}": expression_text(symbol) for k, symbol in enumerate(energy.extents)}
    return Names(arrays, known | {f"m{k}": expression_text(index) for k, index in enumerate(energy.over)})


def formula(node: Op, names: Names, leaf: Callable[[Op], str] | None = None) -> str:
    """An expression on one line; `leaf` writes reads and indices, by default with their subscripts as they stand."""

    def plain(item: Op) -> str:
        return names.affine(item.args[0]) if item.name == "affine" else names.entry(item.args[0], item.args[1])

    return _write(node, leaf or plain)[0]


def _write(node: Op, leaf: Callable[[Op], str]) -> tuple[str, int]:
    """The text of a node, and how tightly it binds."""

    def inner(child: Op, needed: int) -> str:
        text, binds = _write(child, leaf)
        return text if binds >= needed else f"({text})"

    if node.name == "number":
        return _number(node.args[0])
    if node.name == "affine":
        return leaf(node), SUM
    if node.name == "read":
        return leaf(node), ATOM
    if node.name == "add":
        return _sum(node.args, inner), SUM
    if node.name == "mul" and len(node.args) == 2 and node.args[0] is MINUS_ONE and node.args[1].name == "add":
        return _sum([negative(a) for a in node.args[1].args], inner), SUM
    if node.name in ("mul", "power"):
        return _product(node, inner)
    if node.name == "pow":
        return f"{inner(node.args[0], ATOM)}**{inner(node.args[1], ATOM)}", POWER
    if node.name == "select":
        condition, then, otherwise = (inner(a, SUM) for a in node.args)
        return f"({then} if {condition} else {otherwise})", ATOM
    if node.name in INFIX:
        return f"({inner(node.args[0], SUM)} {INFIX[node.name]} {inner(node.args[1], SUM)})", ATOM
    arguments = ", ".join(inner(a, SUM) for a in node.args if isinstance(a, Op))
    return f"{RENAMED.get(node.name, node.name)}({arguments})", ATOM


def _sum(terms: Iterable[Op], inner: Callable[[Op, int], str]) -> str:
    """Terms with their signs, one with a plus first."""
    ordered = sorted(terms, key=_is_negative)
    return " + ".join(inner(a, SUM if _is_negative(a) else PRODUCT) for a in ordered).replace("+ -", "- ")


def _is_negative(node: Op) -> bool:
    """Whether the text begins with a minus sign that a sum may take as its own."""
    first = node.args[0] if node.name == "mul" else node
    return first.name == "number" and bool(first.args[0] < 0)


def _number(value: Any) -> tuple[str, int]:
    text = str(value)
    return text, SUM if value < 0 else PRODUCT if isinstance(value, Fraction) else ATOM


def _product(node: Op, inner: Callable[[Op, int], str]) -> tuple[str, int]:
    """A product or power as a fraction: negative exponents below the line."""
    above: list[str] = []
    below: list[str] = []
    sign = ""
    for factor in node.args if node.name == "mul" else (node,):
        if factor.name == "number":
            value = factor.args[0]
            sign, value = ("-", -value) if value < 0 else ("", value)
            over, under = (value.numerator, value.denominator) if isinstance(value, Fraction) else (value, 1)
            above += [str(over)] if over != 1 else []
            below += [str(under)] if under != 1 else []
        elif factor.name == "power":
            base, exponent = factor.args
            (above if exponent > 0 else below).append(_power(base, abs(exponent), inner))
        else:
            above.append(inner(factor, PRODUCT))
    if len(above) == 1 and not below and not sign and node.name == "power":
        return above[0], POWER
    top = "*".join(above) or "1"
    if not below:
        return sign + top, SUM if sign else PRODUCT
    bottom = below[0] if len(below) == 1 else f"({'*'.join(below)})"
    return f"{sign}{top}/{bottom}", SUM if sign else PRODUCT


def _power(base: Op, exponent: Any, inner: Callable[[Op, int], str]) -> str:
    if exponent == 1:
        return inner(base, POWER)
    if exponent == Fraction(1, 2):
        return f"sqrt({inner(base, SUM)})"
    text, binds = _number(number(exponent).args[0])
    return f"{inner(base, ATOM)}**{text if binds == ATOM else f'({text})'}"


# ---------------------------------------------------------------------------------------------- programs


def statement_text(statement: Statement, program: Program, names: Names) -> str:
    """A statement with its loops, and what it is for."""
    target = names.entry(statement.target, statement.subscripts)
    loops = ", ".join(names.range(i, program.ranges[i]) for i in statement.loops)
    line = f"{target} {'+=' if statement.accumulate else '='} {formula(statement.expression, names)}"
    return "     ".join(
        [line, *([f"for {loops}"] if loops else []), f"# {purpose(statement, program, names)}".rstrip("# ")]
    ).rstrip()


def purpose(statement: Statement, program: Program, names: Names) -> str:
    """What a statement is for."""
    note = names.note(statement.note)
    if statement.note == "sum":
        note = f"sum over {', '.join(statement.summed)}" if statement.summed else "sum"
    array = program.arrays[statement.target]
    if array.role == "local" and statement.note == "intermediate":
        note = f"the intermediate {array.origin}"
    return f"adds to the {note}" if statement.adds else note


def program_text(program: Program, names: Names) -> str:
    """All statements of a program, one on a line."""
    return "\n".join(statement_text(s, program, names) for s in program.statements)
