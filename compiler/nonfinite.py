"""Where a number that is not finite comes from: from a result back to the sub-expression, or the input, that began it.

The energy is taken apart into the terms of its sum. The program of the first term whose result is not finite is
interpreted, and followed backwards: in a statement, to the loop values at which it is not finite; in its expression,
to a part that is not finite; where that is an array of the compiler's own, to the statement that wrote it. It ends
where everything that goes in is finite, or is an input.

    value = t0  <-  t0 += log(x[i] - t)  at i = 3  <-  log(x[3] - t) = nan, of x[3] - t = -2
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy as sp

from ..energies.display import excerpt, printable
from ..energies.energy import Energy
from ..energies.errors import WibergError
from .calls.binding import Inputs
from .calls.evaluate import run
from .derive import KINDS
from .passes.simplify import merge
from .points import extents_of
from .program.expression import Op
from .program.primitives import PRIMITIVES
from .program.program import Program, Statement
from .program.readable import Names, formula, names_of, purpose, statement_text
from .program.reference import evaluate, integer, interpret

if TYPE_CHECKING:
    from .kernel import Kernel

LARGEST = 20_000_000  # numbers of a result that are looked at, at once

Values = dict[str, Any]
Scope = Mapping[str, int]


@dataclass(frozen=True)
class Step:
    """A statement on the way from the result to the cause: its text, what it is for, its loops, and what it gave."""

    text: str
    purpose: str
    loops: Mapping[str, int]
    value: float


@dataclass(frozen=True)
class NotFinite:
    """The first number that is not finite, and where it comes from; print it.

    kind         "value", "gradient", "hessian" or "cross"
    entry        which entry: `gradient in y[3]`
    instance     which instance of the batch; None where nothing is batched
    member       of a family, the values of its indices
    value        nan, inf or -inf
    term         the term of the energy, and which of how many it is
    steps        statements of the program, from the result to the cause
    expression   the smallest part that is not finite although what goes into it is
    reason       why, and what to do about it
    inputs       (text, number) of what goes into the part, from its arguments to the user's arrays
    """

    energy: str
    kind: str
    entry: str
    instance: int | None
    value: float
    term: str = ""
    position: tuple[int, int] = (1, 1)
    steps: tuple[Step, ...] = ()
    expression: str = ""
    result: float = math.nan
    reason: str = ""
    inputs: tuple[tuple[str, float], ...] = field(default=())
    member: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        at = ", ".join(f"{index} = {value}" for index, value in self.member.items())
        places = [f"instance {self.instance}"] * (self.instance is not None) + [f"member {at}"] * bool(at)
        where = f" of {', '.join(places)}" if places else ""
        lines = [f"energy {self.energy!r}: the {self.entry}{where} is {self.value}"]
        if self.term:
            number, count = self.position
            lines.append(f"  in the term {self.term}" + (f"  (term {number} of {count})" if count > 1 else ""))
        for step in self.steps:
            at = ", ".join(f"{loop} = {value}" for loop, value in step.loops.items())
            lines.append(f"  in {step.text}" + (f"\n     at {at}" if at else ""))
        if self.expression:
            lines.append(f"  the first part that is not finite:  {self.expression} = {self.result}")
        lines += [f"    with {text} = {value:.17g}" for text, value in self.inputs]
        return "\n".join([*lines, *([f"  {self.reason}"] if self.reason else [])])


# ---------------------------------------------------------------------------------------------- what is not finite


def first_not_finite(kernel: Kernel, y: Any, w: Any, x: Any) -> NotFinite | None:
    """The first of value, gradient, Hessian and cross-derivative that is not finite, explained; None if none is.

    Matrices of more than `LARGEST` numbers for one instance are not looked at.
    """
    inputs, packed, count = kernel._arguments(y, w, x)
    rows = range(inputs.members * (1 if count is None else count))
    return first_in_rows(kernel, inputs, packed, rows, batched=count is not None)


def first_in_rows(kernel: Kernel, inputs: Inputs, packed: Any, rows: range, *, batched: bool) -> NotFinite | None:
    """The same for some rows of bound inputs, one after another; variables are packed, (1, m) or a row for each."""
    sizes = {"value": 1, "gradient": inputs.m, "hessian": inputs.m**2, "cross": inputs.m * inputs.p}
    for kind, size in sizes.items():
        if size == 0 or size > LARGEST:
            continue
        together = max(1, LARGEST // size)
        for begin in range(rows.start, rows.stop, together):
            place = _first_of(kernel, kind, inputs, packed, range(begin, min(rows.stop, begin + together)))
            if place is not None:
                row, entry = place
                point = instance_of(kernel, inputs, packed, row)
                instance = inputs.instance(row) if batched else None
                return explained(kernel.energy, point, kind, entry, instance, member_of(kernel, inputs, row))
    return None


def member_of(kernel: Kernel, inputs: Inputs, row: int) -> dict[Any, int]:
    """The values that the indices of a family have in a row."""
    numbers = np.unravel_index(row % max(1, inputs.members), inputs.family) if inputs.family else ()
    return dict(zip(kernel.energy.over, map(int, numbers), strict=True))


def _first_of(kernel: Kernel, kind: str, inputs: Inputs, packed: Any, rows: range) -> tuple[int, int] | None:
    """Row and position of the first entry that is not finite."""
    these = slice(rows.start, rows.stop)
    some, y = inputs.rows(these), packed if len(packed) == 1 else packed[these]
    if kind in ("hessian", "cross") and kernel._structure(kind).support is not None:
        for row, matrix in zip(rows, kernel._compressed(f"sparse_{kind}", kind, some, y, len(rows))[2], strict=True):
            entries = matrix.tocoo()
            bad = np.flatnonzero(~np.isfinite(entries.data))
            if len(bad):
                return row, int((entries.row[bad].astype(np.int64) * matrix.shape[1] + entries.col[bad]).min())
        return None
    values, out = run(kernel.entry(kind), some, y, count=len(rows))
    wrong = np.argwhere(~np.isfinite(values[:, None] if kind == "value" else out))
    return (rows[int(wrong[0][0])], int(wrong[0][1])) if len(wrong) else None


def by_role(energy: Energy, point: Values) -> tuple[Values, Values, Values]:
    """Variables, weights and data apart."""
    roles = (energy.variables, energy.weights, energy.data)
    y, w, x = ({str(s.name): point[str(s.name)] for s in role} for role in roles)
    return y, w, x


def instance_of(kernel: Kernel, inputs: Inputs, packed: Any, instance: int) -> Values:
    """The arrays of one instance, or of one member of an instance of a family, by the user's names."""
    row = packed[instance if len(packed) > 1 else 0]
    names = [str(s.name) for s in (*kernel.energy.weights, *kernel.energy.data)]
    point = dict(kernel.variables.unpack(row, inputs.sizes))
    for name, array, batched in zip(names, inputs.arrays, inputs.batched, strict=True):
        point[name] = array[inputs.instance(instance) if len(array) > 1 else 0] if batched else array
    return point


def explained(
    energy: Energy,
    point: Values,
    kind: str,
    entry: int,
    instance: int | None,
    member: Mapping[Any, int] = MappingProxyType({}),
) -> NotFinite:
    """The k-th entry of a derivative at a point, with the cause, as far as the interpreter meets it too.

    `member` has the value of each index of a family.
    """
    sizes = extents_of(energy, point)
    output, where, label = _output(energy, point, kind, entry)
    named = {str(index): value for index, value in member.items()}
    found = NotFinite(energy.name, kind, label, instance, math.nan, member=named)
    parts = _terms(energy)
    for number, (term, part) in enumerate(parts, 1):
        run = _Run(part, kind, point, {**sizes, **member})
        cause = run.cause(_target(part, kind, output), where)
        if cause is not None:
            return replace(found, term=term, position=(number, len(parts)), **cause)
    return replace(
        found,
        reason="every term of it is finite by itself, in the order in which the interpreter adds: numbers near the "
        "largest double (1.8e308) meet, and overflow; rescale the energy",
    )


def _output(energy: Energy, point: Values, kind: str, entry: int) -> tuple[tuple[str, ...], tuple[int, ...], str]:
    """What the k-th number of a derivative is: the symbols, the subscripts in all of them, and a text."""
    roles = {"value": (), "gradient": (energy.variables,), "hessian": (energy.variables,) * 2,
             "cross": (energy.variables, energy.weights)}[kind]  # fmt: skip
    entries = [[(str(s.name), w) for s in role for w in np.ndindex(np.shape(point[str(s.name)]))] for role in roles]
    positions = np.unravel_index(entry, [len(e) for e in entries]) if entries else ()
    chosen = [e[int(p)] for e, p in zip(entries, positions, strict=True)]
    if kind == "hessian" and [s.name for s in energy.variables].index(chosen[0][0]) > [
        s.name for s in energy.variables
    ].index(chosen[1][0]):
        chosen.reverse()  # only one of the two blocks is computed
    text = ", ".join(f"{printable(n)}[{', '.join(map(str, w))}]" if w else printable(n) for n, w in chosen)
    label = {"value": "value", "gradient": "gradient in ", "hessian": "Hessian in ", "cross": "cross-derivative in "}
    return tuple(n for n, _ in chosen), sum((w for _, w in chosen), ()), label[kind] + text


def _target(energy: Energy, kind: str, symbols: Sequence[str]) -> str:
    """The generated name of an output; no output has it where the energy lacks a symbol."""
    generated = {str(s.name): f"y{k}" for k, s in enumerate(energy.variables)}
    generated |= {str(s.name): f"w{k}" for k, s in enumerate(energy.weights)}
    return "_".join([kind, *(generated.get(s, "") for s in symbols)])


def _terms(energy: Energy) -> list[tuple[str, Energy]]:
    """The terms of the energy as energies of their own, with their text; the whole, where it cannot be taken apart."""
    terms = sp.sympify(energy.expression).as_ordered_terms()
    try:
        return [(excerpt(term), _part(energy, term)) for term in terms]
    except WibergError:
        return [(excerpt(energy.expression), energy)]


def _part(energy: Energy, term: Any) -> Energy:
    needed, where = term.free_symbols, {}
    for key, definition in reversed(list(energy.where.items())):
        symbol = key.base.label if isinstance(key, sp.Indexed) else key
        if symbol in needed:
            where[key] = definition
            needed = needed | definition.free_symbols

    def used(symbols: Sequence[Any]) -> list[Any]:
        return [s for s in symbols if (s.label if isinstance(s, sp.IndexedBase) else s) in needed]

    variables, weights = used(energy.variables), used(energy.weights)
    if not variables:  # its value matters all the same, and it has no derivative: anything may stand for the variable
        variables, weights = weights, []
    if not variables:
        variables = [s for s in used(energy.data) if str(s.name) not in energy.integer]
    data = [s for s in energy.data if s not in variables]
    return Energy(
        term,
        variables=variables,
        weights=weights,
        data=data,
        where=dict(reversed(where.items())),
        over=[index for index in energy.over if index in needed],
        name=energy.name,
    )


# ---------------------------------------------------------------------------------------------- from result to cause


class _Run:
    """The program of one kind, run at a point, to be followed backwards."""

    def __init__(self, energy: Energy, kind: str, point: Values, sizes: Mapping[Any, int]) -> None:
        self.program: Program = merge(KINDS[kind].build(energy))  # merged, so that loops have short names
        self.names: Names = names_of(energy)
        self.kind = kind
        roles = {"y": energy.variables, "w": energy.weights, "x": energy.data}
        inputs = {f"{r}{k}": point[str(s.name)] for r, symbols in roles.items() for k, s in enumerate(symbols)}
        self.extents = {n: int(sizes[s]) for n, s in zip(self.program.extents, energy.extents, strict=True)}
        self.extents |= {n: int(sizes[i]) for n, i in zip(self.program.family, energy.over, strict=True)}
        self.values = interpret(self.program, inputs, self.extents)
        self.steps: list[Step] = []

    def cause(self, target: str, where: tuple[int, ...]) -> dict[str, Any] | None:
        """What NotFinite says of an entry of an array; None if it is finite."""
        if target not in self.values or np.isfinite(self.values[target][where]):
            return None
        first = float(self.values[target][where])
        return {"value": first, **self._followed(target, where)}

    def _followed(self, target: str, where: tuple[int, ...]) -> dict[str, Any]:
        while True:
            statement, scope = self._statement(target, where)
            if scope is None:
                return self._overflow(statement)
            node, parent, memo = self._part(statement, scope)
            if node.name != "read":
                return self._reason(node, parent, memo, scope)
            target = node.args[0]
            where = tuple(int(integer(s, {**self.extents, **scope}, self.values)) for s in node.args[1])
            if self.program.arrays[target].role not in ("local", "prepared", "output"):
                return self._input(target, where)

    def _statement(self, target: str, where: tuple[int, ...]) -> tuple[Statement, Scope | None]:
        """The first statement whose own contribution to an entry is not finite, and the loop values; (last, None) if
        only their sum is not."""
        writers = [s for s in self.program.statements if s.target == target]
        for statement in writers:
            points = self.positions(statement.loops)
            scope = {**self.extents, **points}
            count = len(next(iter(points.values()))) if points else 1
            with np.errstate(all="ignore"):
                result = np.broadcast_to(evaluate(statement.expression, self.values, scope, {}), (count,))
            bad = ~np.isfinite(result)
            for subscript, wanted in zip(statement.subscripts, where, strict=True):
                bad = bad & (np.broadcast_to(integer(subscript, scope, self.values), (count,)) == wanted)
            if bad.any():
                first = int(np.argmax(bad))
                chosen = {loop: int(values[first]) for loop, values in points.items()}
                self.steps.append(
                    Step(
                        statement_text(statement, self.program, self.names),
                        purpose(statement, self.program, self.names),
                        chosen,
                        float(result[first]),
                    )
                )
                return statement, chosen
        return writers[-1], None

    def positions(self, loops: Sequence[str]) -> dict[str, Any]:
        """Every point of the loops, as one array for each; bounds may depend on loops further out."""
        points: dict[str, Any] = {}
        for loop in loops:
            limits, scope = self.program.ranges[loop], {**self.extents, **points}
            count = len(next(iter(points.values()))) if points else 1
            starts, stops = (
                np.broadcast_to(integer(v, scope, self.values), (count,)) for v in (limits.start, limits.stop)
            )
            lengths = np.maximum(0, stops - starts)
            points = {name: np.repeat(values, lengths) for name, values in points.items()}
            before = np.repeat(np.cumsum(lengths) - lengths, lengths)
            points[loop] = np.arange(lengths.sum()) - before + np.repeat(starts, lengths)
        return points

    def _part(self, statement: Statement, scope: Scope) -> tuple[Op, Op | None, dict[Op, Any]]:
        """The smallest part that is not finite although its arguments are, what it stands in, and all values."""
        memo: dict[Op, Any] = {}
        with np.errstate(all="ignore"):
            evaluate(statement.expression, self.values, {**self.extents, **scope}, memo)
        node, parent = statement.expression, None
        while True:
            below = next((c for c in _taken(node, memo) if not np.isfinite(memo[c])), None)
            if below is None:
                return node, parent, memo
            node, parent = below, node

    # ---------------------------------------------------------------------------------- in words

    def _leaf(self, scope: Scope) -> Callable[[Op], str]:
        everything = {**self.extents, **scope}

        def leaf(item: Op) -> str:
            if item.name == "affine":
                return str(int(integer(item.args[0], everything, self.values)))
            return self.names.entry(item.args[0], [int(integer(s, everything, self.values)) for s in item.args[1]])

        return leaf

    def _reason(self, node: Op, parent: Op | None, memo: dict[Op, Any], scope: Scope) -> dict[str, Any]:
        reason = why(node, memo, derivative=self.kind != "value")
        parts = _taken(node, memo)
        if _divides_by_zero(node, memo) and parent is not None and parent.name == "mul" and np.isnan(memo[parent]):
            parts = (*(a for a in parent.children if a is not node), *parts)
            node, reason = parent, f"0/0: {reason}"
        leaf = self._leaf(scope)
        shown: dict[str, float] = {}
        for part in (*parts, *node.reads):
            if part.name not in ("number", "true", "false"):
                shown.setdefault(formula(part, self.names, leaf), float(memo[part]))
        return {
            "steps": tuple(self.steps),
            "expression": formula(node, self.names, leaf),
            "result": float(memo[node]),
            "reason": reason,
            "inputs": tuple(shown.items()),
        }

    def _input(self, target: str, where: tuple[int, ...]) -> dict[str, Any]:
        text, value = self.names.entry(target, list(where)), float(self.values[target][where])
        reason = f"{text} is {value} as it was given; drop or replace it"
        return {"steps": tuple(self.steps), "expression": text, "result": value, "reason": reason}

    def _overflow(self, statement: Statement) -> dict[str, Any]:
        text = statement_text(statement, self.program, self.names)
        step = Step(text, purpose(statement, self.program, self.names), {}, math.inf)
        return {
            "steps": (*self.steps, step),
            "reason": "every term of this sum is finite; their sum is larger than the largest double (1.8e308): "
            "rescale the energy",
        }


def _taken(node: Op, memo: Mapping[Op, Any]) -> tuple[Op, ...]:
    """The arguments that a value comes from: of a selection, the branch taken."""
    if node.name == "select":
        condition, then, otherwise = node.args
        return (then if memo[condition] else otherwise,)
    return node.children


# ---------------------------------------------------------------------------------------------- reasons

_AVOID_ZERO = "add a positive constant to the denominator, or leave such entries out"
_ROOT = (
    "add a positive constant under the root, such as sqrt(u**2 + epsilon**2), or use a penalty that is smooth there "
    "(wb.pseudo_huber)"
)

Case = tuple[Callable[..., Any], str]

REASONS: dict[str, tuple[Case, ...]] = {
    "log": (
        (lambda u: u < 0, "the logarithm of a negative number; keep its argument positive"),
        (lambda u: u == 0, "the logarithm of 0; keep its argument positive, or add a positive constant"),
    ),
    "log1p": ((lambda u: u <= -1, "log1p of a number that is not above -1; keep 1 + u positive"),),
    "asin": ((lambda u: abs(u) > 1, "asin outside of [-1, 1]; rounding alone leads there from 1"),),
    "acos": ((lambda u: abs(u) > 1, "acos outside of [-1, 1]; rounding alone leads there from 1"),),
    "acosh": ((lambda u: u < 1, "acosh of a number below 1"),),
    "atanh": ((lambda u: abs(u) >= 1, "atanh of a number that is not inside (-1, 1)"),),
    "pow": (
        (lambda u, e: u < 0 and e != int(e), "a negative number to a fractional power; keep the base positive"),
        (lambda u, e: u == 0 and e < 0, f"division by 0: a negative power of 0; {_AVOID_ZERO}"),
    ),
}
OVERFLOW = "larger than the largest double (1.8e308)"
OVERFLOWS = {
    "exp": "exp overflows above 709.78: bring the exponent down, or shift it by its largest value",
    "expm1": "expm1 overflows above 709.78: bring the exponent down",
    "sinh": "sinh overflows beyond 710.47",
    "cosh": "cosh overflows beyond 710.47",
    "add": f"the sum is {OVERFLOW}; rescale",
    "mul": f"the product is {OVERFLOW}; rescale",
    "pow": f"the power is {OVERFLOW}; rescale",
}


def why(node: Op, memo: Mapping[Op, Any], *, derivative: bool) -> str:
    """Why a part is not finite although its arguments are, and what to do."""
    if node.name == "power":
        return _why_power(float(memo[node.args[0]]), float(node.args[1]), derivative=derivative)
    arguments = [float(memo[a]) for a in node.children]
    for holds, text in REASONS.get(node.name, ()):
        if holds(*arguments):
            return text
    if node.name in OVERFLOWS:
        return OVERFLOWS[node.name]
    return f"{node.name} is defined for {PRIMITIVES[node.name].domain}"


def _why_power(base: float, exponent: float, *, derivative: bool) -> str:
    fractional = exponent != int(exponent)
    if base < 0 and fractional:
        what = "the square root of a negative number" if abs(exponent) == 0.5 else "a negative number to a power"
        return f"{what}; keep it positive"
    if base == 0 and fractional and derivative:
        return f"a root or power has an unbounded derivative at 0; {_ROOT}"
    if base == 0:
        return f"division by 0; {_AVOID_ZERO}"
    return OVERFLOWS["pow"]


def _divides_by_zero(node: Op, memo: Mapping[Op, Any]) -> bool:
    return node.name == "power" and node.args[1] < 0 and float(memo[node.args[0]]) == 0
