"""Pointwise expressions: small immutable nodes, equal nodes being one object.

    Op("mul", (number 2, read x[i], power(read sigma[], -1)))        is        2*x[i]/sigma

A node is a leaf (`number`, `affine`, `read`), a sum (`add`), a product (`mul`), a power with a constant exponent
(`power`), or a primitive of the table in primitives.py. Nodes are made by the functions below only, which keep a
light normal form: sums and products are flat, sorted, with equal terms collected; nothing is ever multiplied out.
The order of arguments is that of a digest of their content, hence the same in every process.
"""

from __future__ import annotations

import hashlib
import math
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

Number = int | float | Fraction
Move = Callable[[str, "tuple[Affine, ...]"], "tuple[str, tuple[Affine, ...]]"]


@dataclass(frozen=True)
class Gather:
    """An integer read from index data: the value of `array[subscripts]`."""

    array: str
    subscripts: tuple[Affine, ...]

    def __str__(self) -> str:
        return f"{self.array}[{', '.join(map(str, self.subscripts))}]"


@dataclass(frozen=True)
class Affine:
    """An integer sum of indices, extents and gathers, each times an integer, plus a constant."""

    terms: tuple[tuple[str | Gather, int], ...]
    constant: int = 0

    def __add__(self, other: Affine | int) -> Affine:
        if isinstance(other, int):
            return Affine(self.terms, self.constant + other)
        return _collect((*self.terms, *other.terms), self.constant + other.constant)

    def __mul__(self, factor: int) -> Affine:
        return _collect(tuple((name, count * factor) for name, count in self.terms), self.constant * factor)

    @property
    def is_constant(self) -> bool:
        return not self.terms

    @property
    def single(self) -> str | None:
        """The name of the index or extent that this is, and nothing else."""
        if self.constant == 0 and len(self.terms) == 1 and self.terms[0][1] == 1 and isinstance(self.terms[0][0], str):
            return self.terms[0][0]
        return None

    @property
    def names(self) -> frozenset[str]:
        """Indices and extents in it, those inside gathers too."""
        found: set[str] = set()
        for name, _ in self.terms:
            found |= {name} if isinstance(name, str) else set().union(*(s.names for s in name.subscripts))
        return frozenset(found)

    def replaced(self, mapping: Mapping[str, Affine]) -> Affine:
        result = Affine((), self.constant)
        for name, count in self.terms:
            if isinstance(name, Gather):
                gather = Gather(name.array, tuple(s.replaced(mapping) for s in name.subscripts))
                result = result + Affine(((gather, count),))
            else:
                result = result + mapping.get(name, Affine(((name, 1),))) * count
        return result

    def relocated(self, move: Move) -> Affine:
        """With every gather moved to where `move` says that its entry lies."""
        if not any(isinstance(item, Gather) for item, _ in self.terms):
            return self
        result = Affine((), self.constant)
        for item, count in self.terms:
            if isinstance(item, Gather):
                item = Gather(*move(item.array, tuple(s.relocated(move) for s in item.subscripts)))
            result = result + Affine(((item, count),))
        return result

    def __str__(self) -> str:
        parts = [str(n) if c == 1 else f"{c}*{n}" for n, c in self.terms]
        if self.constant or not parts:
            parts.append(str(self.constant))
        return " + ".join(parts).replace("+ -", "- ")


def _collect(terms: tuple[tuple[str | Gather, int], ...], constant: int) -> Affine:
    counts: dict[str | Gather, int] = {}
    for name, count in terms:
        counts[name] = counts.get(name, 0) + count
    kept = sorted(((n, c) for n, c in counts.items() if c), key=lambda item: str(item[0]))
    return Affine(tuple(kept), constant)


def constant(value: int) -> Affine:
    return Affine((), value)


def name(text: str) -> Affine:
    return Affine(((text, 1),))


class Op:
    """A node. Compare with `is`: nodes of equal content are the same object."""

    __slots__ = ("__dict__", "__weakref__", "args", "digest", "name")
    name: str
    args: tuple[Any, ...]
    digest: bytes

    @cached_property
    def children(self) -> tuple[Op, ...]:
        return tuple(a for a in self.args if isinstance(a, Op))

    @cached_property
    def indices(self) -> frozenset[str]:
        """Every index and extent that the value depends on."""
        if self.name == "read":
            return frozenset().union(*(s.names for s in self.args[1]))
        if self.name == "affine":
            names: frozenset[str] = self.args[0].names
            return names
        return frozenset().union(*(c.indices for c in self.children))

    @cached_property
    def reads(self) -> tuple[Op, ...]:
        """The reads below this node, each once, in order of their content."""
        if self.name == "read":
            return (self,)
        found = {r.digest: r for c in self.children for r in c.reads}
        return tuple(sorted(found.values(), key=_order))

    @cached_property
    def arrays(self) -> frozenset[str]:
        """Names of the arrays read, those of gathers too."""
        if self.name in ("read", "affine"):
            subscripts = self.args[1] if self.name == "read" else self.args
            own = frozenset({self.args[0]}) if self.name == "read" else frozenset()
            return own | frozenset().union(*(gathers(s) for s in subscripts))
        return frozenset().union(*(c.arrays for c in self.children))

    def __repr__(self) -> str:
        return show(self)

    def __reduce__(self) -> Any:
        return make, (self.name, self.args)


def gathers(subscript: Affine) -> frozenset[str]:
    """Names of the index arrays inside a subscript."""
    found: set[str] = set()
    for item, _ in subscript.terms:
        if isinstance(item, Gather):
            found |= {item.array}.union(*(gathers(s) for s in item.subscripts))
    return frozenset(found)


_nodes: weakref.WeakValueDictionary[bytes, Op] = weakref.WeakValueDictionary()


def make(kind: str, args: tuple[Any, ...]) -> Op:
    """The node of that content; new only if it does not exist yet."""
    state = hashlib.blake2b(kind.encode(), digest_size=16)
    for argument in args:
        state.update(b"|")
        state.update(argument.digest if isinstance(argument, Op) else _text(argument).encode())
    digest = state.digest()
    node = _nodes.get(digest)
    if node is None:
        node = Op.__new__(Op)
        node.name, node.args, node.digest = kind, args, digest
        _nodes[digest] = node
    return node


def _text(argument: Any) -> str:
    if isinstance(argument, tuple):
        return "(" + ",".join(map(_text, argument)) + ")"
    return f"{type(argument).__name__}:{argument!s}" if isinstance(argument, (int, float, Fraction)) else str(argument)


_RANK = {"number": 0, "affine": 1, "read": 2, "power": 3, "mul": 4, "add": 5}


def _order(node: Op) -> tuple[int, str, bytes]:
    return _RANK.get(node.name, 6), str(node.args[0]) if node.name == "read" else "", node.digest


# ------------------------------------------------------------------------------------------ leaves


def number(value: Number) -> Op:
    if isinstance(value, bool):
        value = int(value)
    if isinstance(value, Fraction) and value.denominator == 1:
        value = int(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return make("number", (value,))


def read(array: str, subscripts: Iterable[Affine] = ()) -> Op:
    return make("read", (array, tuple(subscripts)))


def affine(value: Affine) -> Op:
    """An index or extent standing as a number."""
    return number(value.constant) if value.is_constant else make("affine", (value,))


ZERO, ONE, MINUS_ONE = number(0), number(1), number(-1)


def is_number(node: Op) -> bool:
    return node.name == "number"


# ------------------------------------------------------------------------------------------ arithmetic


def split_coefficient(node: Op) -> tuple[Number, Op]:
    """(c, rest) with node = c*rest and c a number."""
    if is_number(node):
        return node.args[0], ONE
    if node.name == "mul" and is_number(node.args[0]):
        rest = node.args[1:]
        return node.args[0].args[0], rest[0] if len(rest) == 1 else make("mul", rest)
    return 1, node


def add(*terms: Op) -> Op:
    """The sum: flat, equal terms collected, a common rational factor of all terms in front."""
    total: Number = 0
    counts: dict[Op, Number] = {}
    stack: list[tuple[Number, Op]] = [(1, t) for t in reversed(terms)]
    while stack:
        factor, term = stack.pop()
        coefficient, rest = split_coefficient(term)
        coefficient = coefficient * factor
        if rest.name == "add":
            stack.extend((coefficient, a) for a in reversed(rest.args))
        elif rest is ONE:
            total = total + coefficient
        else:
            counts[rest] = counts.get(rest, 0) + coefficient
    kept = sorted(((rest, c) for rest, c in counts.items() if c != 0), key=lambda item: _order(item[0]))
    if not kept:
        return number(total)
    content = _content([c for _, c in kept] + ([total] if total != 0 else []))
    parts = [_times(_quotient(c, content), rest) for rest, c in kept]
    if total != 0:
        parts.append(number(_quotient(total, content)))
    if len(parts) == 1:
        return _times(content, parts[0])
    return _times(content, make("add", tuple(parts)))


def _content(values: list[Number]) -> Number:
    """The rational that all values are integer multiples of, with the sign of the first; 1 where some are floats."""
    if any(isinstance(v, float) for v in values):
        return 1
    fractions = [Fraction(v) for v in values]
    numerator = math.gcd(*(f.numerator for f in fractions))
    denominator = math.lcm(*(f.denominator for f in fractions))
    return Fraction(numerator if fractions[0] > 0 else -numerator, denominator)


def _quotient(value: Number, divisor: Number) -> Number:
    return value if divisor == 1 else Fraction(value) / Fraction(divisor)


def _times(coefficient: Number, node: Op) -> Op:
    """c*node for a node without a numeric factor of its own."""
    if coefficient == 1:
        return node
    if is_number(node):
        return number(coefficient * node.args[0])
    if node.name == "select" and ZERO in node.args[1:]:
        return mul(number(coefficient), node)
    coefficient, rest = coefficient * (split := split_coefficient(node))[0], split[1]
    if coefficient == 1:
        return rest
    factors = rest.args if rest.name == "mul" else (rest,)
    return make("mul", (number(coefficient), *factors))


def mul(*factors: Op) -> Op:
    """The product: flat, powers of equal bases collected."""
    coefficient: Number = 1
    exponents: dict[Op, Number] = {}
    stack = list(reversed(factors))
    while stack:
        factor = stack.pop()
        if factor.name == "mul":
            stack.extend(reversed(factor.args))
        elif is_number(factor):
            coefficient = coefficient * factor.args[0]
        else:
            base, exponent = factor.args if factor.name == "power" else (factor, 1)
            exponents[base] = exponents.get(base, 0) + exponent
    if coefficient == 0:
        return ZERO
    for base, exponent in exponents.items():
        if base.name == "select" and exponent == 1 and ZERO in base.args:
            return _within(base, [number(coefficient), *(power(b, e) for b, e in exponents.items())])
    parts = [power(base, e) for base, e in exponents.items() if e != 0]
    if any(p.name in ("mul", "number") for p in parts):  # powers of products with integer exponents came apart
        return mul(number(coefficient), *parts)
    parts.sort(key=_order)
    if len(parts) == 1 and parts[0].name == "add":
        return _times(coefficient, parts[0])
    if coefficient != 1:
        parts.insert(0, number(coefficient))
    if len(parts) < 2:
        return parts[0] if parts else ONE
    return make("mul", tuple(parts))


def _within(chosen: Op, factors: Iterable[Op]) -> Op:
    """A product with select(c, a, 0) in it, a*b in the branch: b may be infinite where c does not hold."""
    branches: tuple[list[Op], list[Op]] = ([], [])
    for factor in factors:
        same = factor.name == "select" and factor.args[0] is chosen.args[0]
        for k, branch in enumerate(branches):
            branch.append(factor.args[1 + k] if same else factor)
    return select(chosen.args[0], *(ZERO if ZERO in branch else mul(*branch) for branch in branches))


def join_exponentials(node: Op) -> Op:
    """exp(a)*exp(b) as exp(a + b), unless each has an index that the other lacks (then both can be hoisted).

    For formulas as the user wrote them only: joining within derivatives would evaluate several exponentials of
    almost the same argument.
    """
    if node.name != "mul":
        return node
    joined: list[Op] = []
    for factor in node.args:
        if factor.name == "exp":
            for other in joined:
                if other.name == "exp" and (other.indices <= factor.indices or factor.indices <= other.indices):
                    joined.remove(other)
                    factor = make("exp", (add(other.args[0], factor.args[0]),))
                    break
        joined.append(factor)
    return mul(*joined)


def power(base: Op, exponent: Number) -> Op:
    """base**exponent for a constant exponent; exponents are ints where integral."""
    exponent = _tidy(exponent)
    if exponent == 0:
        return ONE
    if exponent == 1:
        return base
    if is_number(base):
        value = _number_power(base.args[0], exponent)
        if value is not None:
            return number(value)
    if isinstance(exponent, int):
        if base.name == "power":
            return power(base.args[0], base.args[1] * exponent)
        if base.name == "mul":
            return mul(*(power(a, exponent) for a in base.args))
    return make("power", (base, exponent))


def _tidy(value: Number) -> Number:
    if isinstance(value, (Fraction, float)) and value == int(value):
        return int(value)
    if isinstance(value, float) and Fraction(value).denominator <= 64:
        return Fraction(value)
    return value


def _number_power(base: Number, exponent: Number) -> Number | None:
    if isinstance(exponent, int):
        if base == 0:
            return 0 if exponent > 0 else None
        if isinstance(base, float):
            return float(base) ** exponent
        result = Fraction(base) ** exponent
        return result if result.denominator < 2**53 and abs(result.numerator) < 2**53 else float(result)
    return float(base) ** float(exponent) if base > 0 else None


def negative(node: Op) -> Op:
    return mul(MINUS_ONE, node)


def function(kind: str, *args: Op) -> Op:
    """A primitive of the table applied to arguments."""
    return make(kind, args)


def select(condition: Op, then: Op, otherwise: Op) -> Op:
    if condition.name == "true" or then is otherwise:
        return then
    return otherwise if condition.name == "false" else make("select", (condition, then, otherwise))


def contains(node: Op, is_wanted: Callable[[Op], bool], without: str = "") -> bool:
    """Whether a node at or below this one is wanted, but for what is below nodes of one name."""
    todo, seen = [node], set()
    while todo:
        item = todo.pop()
        if item not in seen:
            if is_wanted(item):
                return True
            seen.add(item)
            todo.extend(() if item.name == without else item.children)
    return False


def never_negative(node: Op) -> bool:
    """Whether its form shows that it is 0 or more: a square, a sum of such, an exponential."""
    if is_number(node):
        return bool(node.args[0] >= 0)
    if node.name in ("add", "mul"):
        return all(map(never_negative, node.args))
    if node.name == "power":
        return (isinstance(node.args[1], int) and node.args[1] % 2 == 0) or never_negative(node.args[0])
    return node.name in ("exp", "abs", "sqrt", "logistic", "softplus", "shifted_exp")


# ------------------------------------------------------------------------------------------ rebuilding


def rebuild(node: Op, args: tuple[Any, ...]) -> Op:
    """The node of the same kind with other arguments, in normal form."""
    if node.name == "add":
        return add(*args)
    if node.name == "mul":
        return mul(*args)
    if node.name == "power":
        return power(*args)
    if node.name == "select":
        return select(*args)
    return make(node.name, args)


def transform(node: Op, leaf: Callable[[Op], Op], memo: dict[Op, Op] | None = None) -> Op:
    """The expression with each leaf (read, affine, number) replaced by leaf(node)."""
    memo = {} if memo is None else memo
    done = memo.get(node)
    if done is None:
        if not node.children:
            done = leaf(node)
        else:
            args = tuple(transform(a, leaf, memo) if isinstance(a, Op) else a for a in node.args)
            done = node if args == node.args else rebuild(node, args)
        memo[node] = done
    return done


def replace_indices(node: Op, mapping: Mapping[str, Affine]) -> Op:
    """The expression with indices replaced by affine integer expressions."""
    if not mapping or node.indices.isdisjoint(mapping):
        return node

    def leaf(item: Op) -> Op:
        if item.name == "read":
            return read(item.args[0], tuple(s.replaced(mapping) for s in item.args[1]))
        return affine(item.args[0].replaced(mapping)) if item.name == "affine" else item

    return transform(node, leaf)


def relocated(node: Op, move: Move) -> Op:
    """The expression with every read and gather moved: `move` takes an array and subscripts, and gives them."""

    def leaf(item: Op) -> Op:
        if item.name == "read":
            return read(*move(item.args[0], tuple(s.relocated(move) for s in item.args[1])))
        return affine(item.args[0].relocated(move)) if item.name == "affine" else item

    return transform(node, leaf)


# ------------------------------------------------------------------------------------------ display


def show(node: Op) -> str:
    """Readable text, for messages and `explain`."""
    if node.name == "number":
        value = node.args[0]
        return f"({value})" if isinstance(value, Fraction) or value < 0 else str(value)
    if node.name == "affine":
        return f"({node.args[0]})"
    if node.name == "read":
        array, subscripts = node.args
        return f"{array}[{', '.join(map(str, subscripts))}]" if subscripts else str(array)
    if node.name == "add":
        return f"({_show_terms(node.args)})"
    if node.name == "mul":
        coefficient, rest = split_coefficient(node)
        if coefficient == -1:
            return f"-{show(rest)}"
        return "*".join(map(show, node.args))
    if node.name == "power":
        return f"{show(node.args[0])}**{show(number(node.args[1]))}"
    return f"{node.name}({', '.join(map(show, node.args))})"


def _show_terms(terms: Iterable[Op]) -> str:
    text = ""
    for term in terms:
        coefficient, rest = split_coefficient(term)
        if text and coefficient < 0:
            text += f" - {show(_times(-coefficient, rest))}"
        else:
            text += f" + {show(term)}" if text else show(term)
    return text
