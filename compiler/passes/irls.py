"""Robust least squares, found in the program of an energy, and its quadratic majorisers.

    E = const + quadratic + sums of c rho(s),      s = |r|^2 a quadratic function of the variables

Where c rho is concave in s, its tangent at s0 lies above it, so that

    M(z; y) = const + quadratic(z) + sums of c rho'(s(y)) s(z)  >=  E(z) + a constant,      equal for z = y

is a quadratic function of z with the value and the gradient of E at z = y (half-quadratic minimisation: D. Geman and
G. Reynolds 1992; iteratively reweighted least squares: P. W. Holland and R. E. Welsch 1977). Two additions to a
program come from it:

    t0[i] += a[i, k]*y[k]                                        t0[i] += a[i, k]*y[k]
    value += c*log1p(t0[i]**2)                ->                 majoriser += c*fixed((1 + t0[i]**2)**-1)*t0[i]**2

`fixed_majoriser` with weights that are constants to differentiation: its Hessian A, taken at y, is that of M, so that
the minimum of M lies at y - A^-1 grad E. `anchored_majoriser` with weights computed at a point y of its own (arrays
z0, ..., read from the direction), for the derivative of a reweighting.

What `s` is a term tells by its largest parts that are quadratic in the variables: they must be c s + d for one s, c
and d free of the variables. abs(r) and even powers of an affine r count as functions of r**2. A residual that is not
affine is refused: M would not be quadratic, its Hessian no bound of that of E, and Newton's method has what is needed
anyway. Formulas seldom show that rho rises and is concave, so that it is tried: over all s, at random positive values
of its parameters, most of which it must hold for. Where it does not hold, at a weight of the other sign say, the
minimiser compares energies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from ...energies.energy import Energy
from ...energies.errors import UnsupportedError
from ...energies.held import holds
from ..program.expression import (
    ONE,
    ZERO,
    Affine,
    Op,
    add,
    constant,
    function,
    gathers,
    mul,
    power,
    read,
    rebuild,
    relocated,
    replace_indices,
    transform,
)
from ..program.program import Array, Program, Statement, arrays_read, moved, unused
from ..program.readable import formula, names_of
from ..program.reference import evaluate
from .differentiate import depending, inputs_of, partials

CONSTANT, AFFINE, QUADRATIC, OTHER = range(4)

S = read("squared residual")
"""Stands for s while rho is differentiated."""

TRIALS, MOST = 64, 0.75
"""rho must be concave for this part of so many values of its parameters."""


def fixed_majoriser(program: Program, energy: Energy) -> Program:
    """Add the local scalar `majoriser`, its weights (and what is held) constants to differentiation."""
    return _Majoriser(program, energy, lambda weight: function("fixed", weight)).program()


def anchored_majoriser(program: Program, energy: Energy) -> Program:
    """Add the local scalar `majoriser`, its weights computed at the anchors z0, ..., which are directions."""
    variables = inputs_of(program, "variable")
    names = {v: anchor(v) for v in variables}
    arrays = dict(program.arrays)
    for variable in variables:
        origin = f"before the reweighting: {variable}"
        arrays[names[variable]] = Array(names[variable], arrays[variable].axes, "direction", origin=origin)
    for array in sorted(depending(program, variables)):
        if arrays[array].role == "local":
            names[array] = unused(arrays, "t")
            arrays[names[array]] = replace(arrays[array], name=names[array])

    def move(array: str, subscripts: tuple[Affine, ...]) -> tuple[str, tuple[Affine, ...]]:
        return names.get(array, array), subscripts

    def at_anchors(node: Op) -> Op:
        return relocated(node.args[0], move)

    copies = {
        s.target: replace(moved(s, move), target=names[s.target]) for s in program.statements if s.target in names
    }
    if not holds(energy):
        statements = [*program.statements, *copies.values()]
    else:
        statements = []
        for s in program.statements:
            statements += [copies[s.target]] if s.target in copies else []
            statements.append(replace(s, expression=_with_held(s.expression, at_anchors)))
    both = replace(program, arrays=arrays, statements=tuple(statements))
    return _Majoriser(both, energy, lambda weight: relocated(weight, move)).program()


def first_system(program: Program) -> Program:
    """The program with the value in the first system in place of what is held."""

    def first(node: Op) -> Op:
        held: Op = node.args[1]
        return held

    return replace(
        program, statements=tuple(replace(s, expression=_with_held(s.expression, first)) for s in program.statements)
    )


def _with_held(node: Op, change: Callable[[Op], Op]) -> Op:
    """The expression with everything that is held replaced."""
    if node.name == "held":
        return change(node)
    args = tuple(_with_held(a, change) if isinstance(a, Op) else a for a in node.args)
    return node if args == node.args else rebuild(node, args)


def anchor(variable: str) -> str:
    """The name of the point at which weights are computed."""
    return variable.replace("y", "z", 1)


class _Degrees:
    """What every array and expression is as a function of the variables."""

    def __init__(self, program: Program) -> None:
        self._memo: dict[Op, int] = {}
        self.arrays = {a.name: AFFINE if a.role == "variable" else CONSTANT for a in program.arrays.values()}
        for s in program.statements:
            found = self.of(s.expression)
            places = arrays_read(program, s) - s.expression.arrays
            if (found and s.reduction != "sum") or any(self.arrays[a] for a in places):
                found = OTHER
            self.arrays[s.target] = max(self.arrays[s.target], found)

    def of(self, node: Op) -> int:
        if node not in self._memo:
            self._memo[node] = self._of(node)
        return self._memo[node]

    def _of(self, node: Op) -> int:
        if node.name == "held" or not any(self.arrays.get(a) for a in node.arrays):
            return CONSTANT
        if node.name == "read":
            places = frozenset().union(*(gathers(s) for s in node.args[1]))
            return OTHER if any(self.arrays[a] for a in places) else self.arrays[node.args[0]]
        children = [self.of(child) for child in node.children]
        if node.name == "add":
            return max(children)
        if node.name == "mul":
            return min(sum(children), OTHER)
        if node.name == "power" and isinstance(node.args[1], int) and node.args[1] > 0:
            return min(children[0] * node.args[1], OTHER)
        if node.name == "select" and not children[0]:
            return max(children)
        return OTHER


class _Majoriser:
    """One run: from `value` back through all that it is linear in, each robust term is replaced by weight times s."""

    def __init__(self, program: Program, energy: Energy, weight: Callable[[Op], Op]) -> None:
        self.before, self.energy, self.weight = program, energy, weight
        self.degrees = _Degrees(program)
        self.arrays = dict(program.arrays)
        self.names = {"value": "majoriser"}
        self.factors: dict[str, list[Op]] = {"value": [ONE]}  # of an array that the energy is linear in
        self.arrays["majoriser"] = Array("majoriser", (), "local", origin="the majoriser of the energy")
        made: list[Statement] = []
        for statement in reversed(program.statements):
            if statement.target in self.names:
                factors = self.factors[statement.target]
                expression = self.majorised(statement.expression, factors)
                made.append(replace(statement, target=self.names[statement.target], expression=expression))
        self.statements = tuple(reversed(made))

    def program(self) -> Program:
        """The program that was read, and the majoriser."""
        return replace(self.before, arrays=self.arrays, statements=(*self.before.statements, *self.statements))

    # ------------------------------------------------------------------------------------ what is linear

    def majorised(self, node: Op, factors: list[Op]) -> Op:
        """A part that the energy contains times each of the factors."""
        if self.degrees.of(node) <= QUADRATIC:
            return node
        if node.name == "add":
            return add(*(self.majorised(a, factors) for a in node.args))
        if node.name == "mul":
            fixed, moving = self._split(node.args)
            if len(moving) == 1:
                inner = self.majorised(moving[0], [mul(f, *fixed) for f in factors])
                return mul(*fixed, inner)
        if node.name == "select" and not self.degrees.of(node.args[0]):
            return rebuild(node, (node.args[0], *(self.majorised(a, factors) for a in node.args[1:])))
        if self._is_sum(node):
            return read(self._copy_of(node.args[0], factors), node.args[1])
        return self.robust(node, factors)

    def _split(self, nodes: Iterable[Op]) -> tuple[list[Op], list[Op]]:
        """Those free of the variables, and the others."""
        nodes = tuple(nodes)
        return [n for n in nodes if not self.degrees.of(n)], [n for n in nodes if self.degrees.of(n)]

    def _is_sum(self, node: Op) -> bool:
        """Whether a node reads a local array of sums at a place that the variables do not change."""
        own = [s for s in self.before.statements if node.name == "read" and s.target == node.args[0]]
        places = {a for s in own for a in arrays_read(self.before, s) - s.expression.arrays}
        places |= frozenset().union(*map(gathers, node.args[1])) if own else frozenset()
        return bool(own) and all(s.reduction == "sum" for s in own) and not any(map(self.degrees.arrays.get, places))

    def _copy_of(self, array: str, factors: list[Op]) -> str:
        self.factors.setdefault(array, []).extend(factors)
        if array not in self.names:
            self.names[array] = unused(self.arrays, "t")
            self.arrays[self.names[array]] = replace(self.arrays[array], name=self.names[array])
        return self.names[array]

    # ------------------------------------------------------------------------------------ one robust term

    def robust(self, node: Op, factors: list[Op]) -> Op:
        """weight*s for a term rho(s)."""
        if holds(self.energy):
            self._refuse(node, "stands beside parts that are held: all but these must be quadratic in the variables")
        found: list[Op] = []
        rho = self._in_s(node, node, found)
        slope = _derivative(rho)
        for factor in factors:
            if not _is_mostly(mul(factor, slope), 1.0):
                self._refuse(node, f"falls as {self._text(found[0])} grows, or has the wrong sign")
            if not _is_mostly(mul(factor, _derivative(slope)), -1.0):
                self._refuse(node, f"is not concave in {self._text(found[0])}: its weight would grow with that")
        at = _replaced(slope, found[0])
        return mul(self.weight(at), found[0])

    def _in_s(self, node: Op, term: Op, found: list[Op]) -> Op:
        """The node with every part that is quadratic in the variables as c*S + d; s is put into `found`."""
        degree = self.degrees.of(node)
        if not degree:
            return node
        if node.name == "abs" and self.degrees.of(node.args[0]) == AFFINE:
            return function("sqrt", self._in_s(power(node.args[0], 2), term, found))
        if node.name == "power" and self.degrees.of(node.args[0]) == AFFINE and degree == OTHER:
            base, exponent = node.args
            if isinstance(exponent, int) and exponent % 2 == 0:
                return power(self._in_s(power(base, 2), term, found), exponent // 2)
        if degree <= QUADRATIC:
            factor, offset, core = self._affine_in(node)
            if self.degrees.of(core) == AFFINE:
                self._refuse(term, f"depends on {self._text(core)} and not on its square")
            if found and found[0] is not core:
                self._refuse(term, f"depends on two squared residuals, {self._text(found[0])} and {self._text(core)}")
            if not found and not self._is_squares(core):
                self._refuse(term, f"depends on {self._text(core)}, which is no sum of squares")
            found[:] = [core]
            return add(mul(factor, S), offset)
        if node.name == "read":
            why = "is a product, an extreme, or read at a place that depends on the variables"
            if self._is_sum(node):
                why = "is a sum that is not a quadratic function of the variables (r must be affine in them)"
            self._refuse(term, f"depends on {self._text(node)}, which {why}")
        if not any(map(self.degrees.of, node.children)):
            self._refuse(term, "reads index data at a place that depends on the variables")
        linear = [a for a in node.args if node.name == "mul" and self.degrees.of(a) == AFFINE]
        if linear:
            self._refuse(term, f"has {self._text(linear[0])} as a factor, which is not constant")
        return rebuild(node, tuple(self._in_s(a, term, found) if isinstance(a, Op) else a for a in node.args))

    def _affine_in(self, node: Op) -> tuple[Op, Op, Op]:
        """(c, d, s) with node = c*s + d: c and d free of the variables, s without such parts."""
        if node.name not in ("add", "mul"):
            return ONE, ZERO, node
        fixed, moving = self._split(node.args)
        if node.name == "mul":
            if len(moving) > 1:
                return mul(*fixed), ZERO, mul(*moving)
            factor, offset, core = self._affine_in(moving[0])
            return mul(factor, *fixed), mul(offset, *fixed), core
        if fixed:
            factor, offset, core = self._affine_in(add(*moving))
            return factor, add(offset, *fixed), core
        parts = [self._affine_in(a) for a in moving]
        if all(p[0] is parts[0][0] and p[1] is ZERO for p in parts):
            return parts[0][0], ZERO, add(*(p[2] for p in parts))
        return ONE, ZERO, node

    def _is_squares(self, node: Op) -> bool:
        """Whether products of two different residuals stand beside the squares of both, as in r'Ar."""
        squares: set[Op] = set()
        products: list[tuple[Op, Op]] = []
        todo: list[tuple[Op, frozenset[str]]] = [(node, frozenset())]
        while todo:
            item, summed = todo.pop()
            moving = self._split(item.children)[1]
            if self.degrees.of(item) < QUADRATIC:
                continue
            if item.name == "power":
                squares.add(_without(item.args[0], summed))
            elif item.name == "mul" and len(moving) == 2:
                products.append((_without(moving[0], summed), _without(moving[1], summed)))
            elif item.name == "read":
                own = [s for s in self.before.statements if s.target == item.args[0]]
                todo += [(s.expression, frozenset(s.summed)) for s in own]
            elif item.name == "mul" and any(f.name == "number" and f.args[0] < 0 for f in item.args):
                return False
            else:
                todo += [(a, summed) for a in moving]
        return all(a is b or {a, b} <= squares for a, b in products)

    def _text(self, node: Op) -> str:
        return formula(node, names_of(self.energy))

    def _refuse(self, term: Op, why: str) -> None:
        raise UnsupportedError(
            f"energy {self.energy.name!r}: method 'irls' is for robust least squares: constants, squares, and sums of "
            f"rho(|r|^2) with r affine in the variables. The term {self._text(term)} {why}; "
            "use method='trust-region'"
        )


def _derivative(rho: Op) -> Op:
    return partials(rho, S.arrays, {}).get(S, ZERO)


def _is_mostly(node: Op, sign: float) -> bool:
    """Whether a function of S has one sign over all of S, for most positive values of all else that it reads."""
    leaves: dict[Op, None] = {}

    def leaf(item: Op) -> Op:
        if item.name in ("read", "affine"):
            leaves[item] = None
        return item

    transform(node, leaf)
    drawn = np.random.default_rng(0).lognormal(size=(len(leaves), TRIALS, 1))
    known: dict[Op, Any] = dict(zip(sorted(leaves, key=lambda item: item.digest), drawn, strict=True))
    known[S] = np.logspace(-6, 6, 49)
    with np.errstate(all="ignore"):
        found = np.broadcast_to(sign * evaluate(node, {}, {}, known), (TRIALS, 49))
    found = np.where(np.isfinite(found), found, 0.0)
    holds = found.min(axis=1) >= -1e-9 * np.abs(found).max(axis=1)
    return bool(holds.mean() >= MOST)


def _without(node: Op, indices: frozenset[str]) -> Op:
    """The node with indices left out, to compare what differs in them only."""
    return replace_indices(node, dict.fromkeys(indices & node.indices, constant(0)))


def _replaced(node: Op, s: Op) -> Op:
    return transform(node, lambda item: s if item is S else item)
