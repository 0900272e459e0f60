"""Random energies over most of the language: what the compiler is fuzzed with, in its own tests and in users'."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import sympy as sp

from ..energies.energy import Energy
from ..energies.errors import DeclarationError
from ..energies.extrema import maximum, minimum


def random_energy(source: random.Random) -> Energy:
    """An energy drawn from a grammar; the same for the same state of `source`."""
    while True:
        expression, lets, symbols = _Grammar(source).energy()
        lets = {key: value for key, value in lets.items() if _uses(expression, key.base)}
        used = {s for s in symbols if any(_uses(e, s) for e in (expression, *lets.values()))}
        roles: dict[str, list[Any]] = {
            r: [s for s in symbols if symbols[s] == r and (s in used or r == "data")]
            for r in ("variables", "weights", "data")
        }
        infinite = any(e.has(sp.zoo, sp.oo, sp.nan) for e in (expression, *lets.values()))
        if roles["variables"] and not infinite and not _has_free_index(expression, lets):
            return Energy(
                expression,
                variables=roles["variables"],
                weights=roles["weights"],
                data=roles["data"],
                where=lets,
                name=f"random{source.randrange(10**6)}",
            )


def random_family(source: random.Random) -> Energy:
    """The same with one or two indices of a family, which stand wherever bound indices may."""
    while True:
        grammar = _Grammar(source)
        for _ in range(source.randint(1, 2)):
            index = grammar._index(source.choice([grammar.n, grammar.k, sp.Integer(2), sp.Integer(4)]))
            grammar.family[index] = (index.upper + 1, False)
        expression, lets, symbols = grammar.energy()
        lets = {key: value for key, value in lets.items() if _uses(expression, key.base)}
        formulas = (expression, *lets.values())
        over = [index for index in grammar.family if any(index in e.free_symbols for e in formulas)]
        used = {s for s in symbols if any(_uses(e, s) for e in formulas)}
        roles: dict[str, list[Any]] = {
            r: [s for s in symbols if symbols[s] == r and (s in used or r == "data")]
            for r in ("variables", "weights", "data")
        }
        infinite = any(e.has(sp.zoo, sp.oo, sp.nan) for e in formulas)
        if not over or not roles["variables"] or infinite or _has_free_index(expression, lets, over):
            continue
        try:
            return Energy(
                expression,
                variables=roles["variables"],
                weights=roles["weights"],
                data=roles["data"],
                where=lets,
                over=over,
                name=f"family{source.randrange(10**6)}",
            )
        except DeclarationError:  # a variable that is read at an index of the family alone
            continue


def _has_free_index(expression: Any, lets: dict[Any, Any], over: Sequence[Any] = ()) -> bool:
    """Whether SymPy took a Piecewise out of a sum inside another, although a condition depends on the inner index."""
    formulas = [(expression, over), *((value, (*over, *key.indices)) for key, value in lets.items())]
    return any(isinstance(s, sp.Idx) and s not in own for formula, own in formulas for s in formula.free_symbols)


def _uses(expression: Any, symbol: Any) -> bool:
    label = symbol.label if isinstance(symbol, sp.IndexedBase) else symbol
    return label in expression.free_symbols


class _Grammar:
    """Symbols of every role and rank, and rules that nest them."""

    def __init__(self, source: random.Random) -> None:
        self.source = source
        self.n, self.k = (sp.Symbol(s, integer=True, positive=True) for s in "nk")
        base: Callable[..., Any] = sp.IndexedBase
        n, k = self.n, self.k
        self.arrays = {
            "y": base("y", shape=(n,)), "z": base("z", shape=(2,)), "Y": base("Y", shape=(k, 2)),
            "w": base("w", shape=(n,)), "W": base("W", shape=(k, n)), "u": base("u", shape=(3,)),
            "x": base("x", shape=(n,)), "X": base("X", shape=(n, k, 2)), "e": base("e", shape=(n,), integer=True),
            "A": base("A", shape=(n, n)),
        }  # fmt: skip
        self.scalars = {
            "t": sp.Symbol("t", real=True),
            "s": sp.Symbol("s"),
            "a": sp.Symbol("a", positive=True),
            "b": sp.Symbol("b", real=True),
            "c": sp.Symbol("c", real=True),
        }
        self.roles = {
            "y": "variables",
            "z": "variables",
            "Y": "variables",
            "t": "variables",
            "s": "variables",
            "w": "weights",
            "W": "weights",
            "u": "weights",
            "a": "weights",
            "b": "weights",
            "x": "data",
            "X": "data",
            "A": "data",
            "c": "data",
            "e": "data",
        }
        self.counter = 0
        self.family: dict[Any, Any] = {}
        self.lets: dict[Any, Any] = {}

    def energy(self) -> tuple[Any, dict[Any, Any], dict[Any, str]]:
        source = self.source
        if source.random() < 0.4:
            self._let()
        terms = [self._sum(2, self.family) for _ in range(source.randint(1, 2))]
        if source.random() < 0.4:
            terms.append(self._expression(2, self.family))
        expression = sum(terms, sp.Integer(0))
        if source.random() < 0.15:
            expression = sp.log(1 + expression**2)
        everything = {**self.arrays, **self.scalars}
        return expression, self.lets, {s: self.roles[n] for n, s in everything.items() if n in self.roles}

    def _index(self, extent: Any, *, partial: bool = False) -> Any:
        self.counter += 1
        label = f"{self.source.choice('ijlm')}{self.counter}"
        return sp.Idx(label, (0, extent - 2)) if partial else sp.Idx(label, extent)

    def _let(self) -> None:
        extent = self.source.choice([self.n, self.k])
        index = self._index(extent)
        let = sp.IndexedBase("let", shape=(extent,))
        self.lets[let[index]] = self._expression(2, {**self.family, index: (extent, False)})
        self.arrays["let"] = let

    def _sum(self, depth: int, scope: dict[Any, Any]) -> Any:
        source = self.source
        around = [index for index, (extent, _) in scope.items() if extent == self.n]
        if around and source.random() < 0.2:
            below, reaches = self._triangle(source.choice(around))
            return sp.Sum(self._expression(depth, {**scope, below: (self.n, reaches)}), below)
        extent = source.choice([self.n, self.n, self.k, sp.Integer(2), sp.Integer(3)])
        partial = extent == self.n and source.random() < 0.25
        index = self._index(extent, partial=partial)
        inner = {**scope, index: (extent, partial)}
        if len(inner) < 3 and source.random() < 0.3:
            other = self._index(source.choice([self.n, self.k]))
            inner[other] = (other.upper + 1, False)
            return sp.Sum(self._expression(depth, inner), index, other)
        if len(inner) < 3 and extent == self.n and source.random() < 0.3:
            below, reaches = self._triangle(index)
            return sp.Sum(self._expression(depth, {**inner, below: (self.n, reaches)}), below, index)
        kind, body = source.random(), self._expression(depth, inner)
        if kind < 0.1:
            return sp.Product(1 + body / 4, index)
        if kind < 0.2 and not partial:
            return source.choice([minimum, maximum])(body, index)
        return sp.Sum(body, index)

    def _triangle(self, outer: Any) -> tuple[Any, bool]:
        """An index below or above another, and whether it can be followed by one more."""
        self.counter += 1
        limits = self.source.choice([(0, outer - 1), (0, outer), (outer + 1, self.n - 1), (outer, self.n - 1)])
        return sp.Idx(f"q{self.counter}", limits), limits[1] == outer - 1

    def _read(self, scope: dict[Any, Any]) -> Any:
        """A symbol that fits the indices in scope."""
        entries = (self.arrays["z"][self.source.randrange(2)], self.arrays["u"][self.source.randrange(3)])
        choices: list[Any] = [*self.scalars.values(), *entries]
        for index, (extent, partial) in scope.items():
            if extent == self.n:
                choices += [self.arrays[a][index] for a in "ywx"] * 2 + [
                    self.arrays["y"][self.arrays["e"][index]],
                    self.arrays["w"][self.arrays["e"][self.arrays["e"][index]]],
                    self.arrays["A"][index, index],
                ]
                if partial:
                    choices += [self.arrays["y"][index + 1], self.arrays["w"][index + 1]] * 2
            if extent == self.k:
                choices += [self.arrays["Y"][index, self.source.randrange(2)]] * 2
            if extent == 2:
                choices += [self.arrays["z"][index]] * 2
            if extent == 3:
                choices += [self.arrays["u"][index]] * 2
            let = self.arrays.get("let")
            if let is not None and let.shape[0] == extent and not self._defining():
                choices += [let[index]] * 3
                if extent == self.n:
                    choices += [let[self.arrays["e"][index]]]
            for other, (second, _) in scope.items():
                if extent == self.k and second == self.n:
                    choices += [
                        self.arrays["W"][index, other],
                        self.arrays["X"][other, index, self.source.randrange(2)],
                    ] * 2
                if extent == self.n and second == self.n and other != index:
                    choices += [self.arrays["A"][index, other]]
        return self.source.choice(choices)

    def _defining(self) -> bool:
        return "let" not in self.arrays

    def _expression(self, depth: int, scope: dict[Any, Any]) -> Any:
        source = self.source
        if depth == 0 or source.random() < 0.1:
            return (
                self._read(scope)
                if source.random() < 0.85
                else source.choice([sp.Integer(2), sp.Rational(1, 3), sp.Float(0.7), *(list(scope)[:1])])
            )

        def part() -> Any:
            return self._expression(depth - 1, scope)

        rules: list[Callable[[], Any]] = [
            lambda: part() + part(), lambda: part() - part(), lambda: part() * part(), lambda: part() * part(),
            lambda: part() ** 2, lambda: part() ** 3, lambda: part() / (1 + part() ** 2),
            lambda: sp.exp(-part() ** 2), lambda: sp.exp(-((part() - part()) ** 2)), lambda: sp.sin(part()),
            lambda: sp.cos(part()), lambda: sp.tanh(part()), lambda: sp.atan(part()), lambda: sp.erf(part()),
            lambda: sp.log(1 + part() ** 2), lambda: sp.sqrt(1 + part() ** 2),
            lambda: sp.sqrt(1 + (part() - part()) ** 2),
            lambda: sp.Abs(part()), lambda: sp.Max(part(), part()), lambda: sp.Min(part(), part()),
            lambda: sp.Piecewise((part(), self._read(scope) > 0), (part(), True)),
            lambda: (1 + part() ** 2) ** self.scalars["b"], lambda: (1 + part() ** 2) ** sp.Rational(-3, 2),
            lambda: sp.atan2(part(), 1 + part() ** 2), lambda: part() ** -2 if source.random() < 0.2 else part(),
        ]  # fmt: skip
        if len(scope) < 3:
            rules += [lambda: self._sum(depth - 1, scope)] * 5
        return source.choice(rules)()
