"""Loop nests as text: which nodes get names, where each is computed, which sums live in registers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..program.expression import Affine, Op, add, gathers, name, number, replace_indices
from ..program.primitives import PRIMITIVES
from ..program.program import Array, Statement
from . import sizes
from .freeze import Placement, freeze
from .function_text import FunctionText
from .tiles import AHEAD, TILE

IDENTITY = {"sum": "0.0", "product": "1.0", "maximum": "-math.inf", "minimum": "math.inf",
            "argmin": "math.inf", "argmax": "-math.inf"}  # fmt: skip
COMBINED = {"product": "{0}*({1})", "maximum": "maximum({0}, {1})", "minimum": "minimum({0}, {1})"}
BETTER = {"argmin": "<", "argmax": ">"}
DEEPEST = 30  # formulas nested deeper than this get names in between: Python's parser has a limit


@dataclass
class NestText:
    """The loops of one nest being written."""

    function: FunctionText
    loops: tuple[str, ...]
    statements: Sequence[Statement]
    placement: Placement
    maps: frozenset[str]
    ranges: Mapping[str, str]

    def write(self, *, zero: bool = True) -> None:
        self.begin(zero=zero)
        self._level(0)

    def begin(self, *, zero: bool = True) -> None:
        """Choose what gets a name, and zero what is added to in memory."""
        self.names: dict[Op, str] = {}
        self.roots = freeze(self.statements, self.placement)
        self._choose_temporaries()
        self.register = {
            k: (self._accumulator(s), self._register_level(s))
            for k, s in enumerate(self.statements)
            if self._in_register(s)
        }
        if zero:
            self.zero()

    def _register_level(self, statement: Statement) -> int:
        return max((self.loops.index(i) + 1 for i in statement.kept), default=0)

    def _in_register(self, statement: Statement) -> bool:
        """Whether a sum is kept in a register: all loops inside those of its target are summed."""
        if not statement.accumulate:
            return False
        outermost = self._register_level(statement) == len(statement.kept)
        whole = statement.is_definition or (statement.adds and bool(statement.summed))
        return not statement.kept or (outermost and whole)

    def zero(self) -> None:
        """Zero the memory of the sums that are not kept in registers."""
        self._zero([s for s in self.statements if s.accumulate and s.is_definition and not self._in_register(s)])

    def unrolled(self) -> list[NestText]:
        """Two nests in place of this one, if all of it adds to memory in an inner loop inside a summed loop.

        The first takes several values of the summed loop at once, so that each entry is loaded and stored once for
        all of them; the second takes what is left.
        """
        if len(self.loops) < 2 or self.maps:
            return []
        summed, inner = self.loops[-2:]
        fits = summed not in self.function.program.ranges[inner].names and all(
            s.accumulate and s.reduction == "sum" and not self._in_register(s) and summed in s.summed
            for s in self.statements
        )
        if not fits:
            return []
        plain = all(_is_arithmetic(s.expression) for s in self.statements)
        count = 4 if plain else 2
        limits = self.function.program.ranges[summed]
        start, stop = self.function.integer(limits.start), self.function.integer(limits.stop)
        begin = start if start.isalnum() else f"({start})"
        rest = f"max(0, {stop} - {begin})//{count}*{count}" if start != "0" else f"max(0, {stop})//{count}*{count}"
        several = [
            replace(
                s, expression=add(*(replace_indices(s.expression, {summed: name(summed) + u}) for u in range(count)))
            )
            for s in self.statements
        ]
        first = {**self.ranges, summed: f"{start}, {stop} - {count - 1}, {count}"}
        last = {**self.ranges, summed: f"{rest}, {stop}" if start == "0" else f"{start} + {rest}, {stop}"}
        return [replace(self, statements=several, ranges=first), replace(self, ranges=last)]

    def _accumulator(self, statement: Statement) -> str:
        array = self.function.program.arrays[statement.target]
        if self._is_variable(array):
            return statement.target
        self.function.temporaries += 1
        return f"a{self.function.temporaries}"

    def _choose_temporaries(self) -> None:
        """Nodes with a name: used twice, or computed outside the loop that uses them."""
        uses: Counter[Op] = Counter()
        used_at: dict[Op, int] = {}
        order: dict[Op, None] = {}
        height: dict[Op, int] = {}

        def visit(node: Op, level: int) -> None:
            uses[node] += 1
            used_at[node] = max(used_at.get(node, 0), level)
            if uses[node] == 1:
                own = self.placement.level(node)
                for child in node.children:
                    visit(child, own)
                height[node] = 1 + max((height[child] for child in node.children), default=0)
                order[node] = None

        for statement, root in zip(self.statements, self.roots, strict=True):
            level = len(self.loops) if statement.accumulate or statement.kept else 0
            visit(root, level)
        self.order = list(order)
        self.named = {
            n for n in self.order
            if not self._is_plain(n)
            and (uses[n] > 1 or self.placement.level(n) < used_at[n] or height[n] % DEEPEST == 0)
        }  # fmt: skip

    def _is_plain(self, node: Op) -> bool:
        """Leaves that need no name: numbers, scalars, entries of a map of this nest."""
        if node.name in ("number", "true", "false"):
            return True
        return node.name == "read" and (not node.args[1] or node.args[0] in self.maps)

    def _zero(self, statements: Sequence[Statement]) -> None:
        """Zero what the nest adds to in memory, in one loop for equal loops."""
        function = self.function
        arrays = function.program.arrays
        groups: dict[tuple[str, ...], list[Statement]] = {}
        for s in statements:
            if not (arrays[s.target].role == "output" and function.memory.accumulate):
                groups.setdefault(tuple(sorted(s.kept, key=self.loops.index)), []).append(s)
        for loops, group in groups.items():
            depth = function.depth
            for loop in loops:
                self._open(loop, self._values(loop))
            for s in group:
                where = function.address(arrays[s.target], s.subscripts)
                function.line(f"{s.target}[{where}] = {IDENTITY[s.reduction]}")
            function.depth = depth

    def _values(self, loop: str) -> str:
        """The arguments of `range` for a loop."""
        limits = self.function.program.ranges[loop]
        start, stop = self.function.integer(limits.start), self.function.integer(limits.stop)
        return self.ranges.get(loop, stop if start == "0" else f"{start}, {stop}")

    def _parts(self, level: int) -> Iterator[list[str]]:
        """The lines that open the loop of a level, once or for two parts.

        A single loop of exponentials runs over a multiple of 8 first: what LLVM makes of the rest by itself is slower.
        """
        loop, values = self.loops[level], self._values(self.loops[level])
        if len(self.loops) > 1 or values not in self.function.program.extents or not any(map(_has_exp, self.roots)):
            yield [f"for {loop} in range({values}):"]
            return
        yield self._tiles(loop, values) or [f"for {loop} in range({values}//8*8):"]
        for node in self.order:
            if self.placement.level(node) > level:
                self.names.pop(node, None)
        yield [f"for {loop} in range({values}//8*8, {values}):"]

    def _tiles(self, loop: str, values: str) -> list[str]:
        """The lines that open a loop in tiles, if it reads one number after the other and no more.

        Asking for two arrays took 4 % longer where they are in a cache, for many (fusion) 20 to 60 % at any size.
        """
        reads = {r.args[0]: r.args[1] for root in self.roots for r in root.reads if loop in r.indices}
        array, subscripts = next(iter(reads.items()), ("", ()))
        if len(reads) != 1 or not _is_last(subscripts, loop):
            return []
        ahead = [s.replaced({loop: name("tile") * TILE + AHEAD}) for s in subscripts]
        place = self.function.address(self.function.program.arrays[array], ahead)
        return [
            f"for tile in range(tiles({values})):",
            f"    fetch_ahead({array}, {place}, {values})",
            f"    for {loop} in range({TILE}*tile, tile_end(tile, {values})):",
        ]

    def _open(self, loop: str, values: str) -> None:
        function = self.function
        function.line(f"for {loop} in range({values}):")
        function.depth += 1

    def _enter(self, level: int) -> None:
        """What is known before the loop of a level: names, and registers for sums."""
        if level < len(self.loops):
            for node in self.order:
                if node in self.named and self.placement.level(node) == level:
                    self._name(node)
        for k, (accumulator, own) in self.register.items():
            if own == level and self.loops:
                self._start(self.statements[k], accumulator)

    def _leave(self, level: int) -> None:
        """What is complete after the loop of a level."""
        for k, (accumulator, own) in self.register.items():
            if own == level:
                self._store_sum(self.statements[k], accumulator)

    def _level(self, level: int) -> None:
        function = self.function
        self._enter(level)
        if level < len(self.loops):
            whole = dict(self.register)
            for part, opening in enumerate(self._parts(level)):
                sums = {k: r for k, r in whole.items() if part > 0 and self.statements[k].reduction == "sum"}
                for k, (accumulator, own) in sums.items():  # so that the rest does not wait for the sum over the lanes
                    self.register[k] = f"{accumulator}_rest", own
                    self._start(self.statements[k], f"{accumulator}_rest")
                depth = function.depth
                for line in opening:
                    function.line(line)
                function.depth += sum(line.endswith(":") for line in opening)
                self._level(level + 1)
                function.depth = depth
                for accumulator, _ in sums.values():
                    function.line(f"{accumulator} += {accumulator}_rest")
            self.register = whole
        else:
            for k, statement in enumerate(self.statements):
                self._update(k, statement)
        self._leave(level)

    def _name(self, node: Op) -> None:
        if node not in self.names:
            for child in _inner(node):
                if child in self.named and child not in self.names:
                    self._name(child)
            self.function.temporaries += 1
            name = f"s{self.function.temporaries}"
            self.function.line(f"{name} = {self.text(node, top=True)}")
            self.names[node] = name

    def _update(self, k: int, statement: Statement) -> None:
        root, function = self.roots[k], self.function
        for node in _inner(root):
            if node in self.named and node not in self.names:
                self._name(node)
        if root in self.named and root not in self.names:
            self._name(root)
        value = self.text(root, top=True)
        array = function.program.arrays[statement.target]
        if k in self.register:
            accumulator = self.register[k][0]
            if statement.reduction != "sum":
                self._reduce(statement, accumulator, value)
            elif value.startswith("-") and self.loops:
                function.line(
                    f"{accumulator} -= {self.text(root.args[0], product=True)}"
                    if root.name == "negative"
                    else f"{accumulator} += {value}"
                )
            else:
                function.line(f"{accumulator} {'+=' if self.loops else '='} {value}")
            return
        if self._is_variable(array):
            function.line(f"{statement.target} = {value}")
            self._publish(array)
            return
        if statement.target in self.maps:
            function.line(f"{self._map_name(statement.target)} = {value}")
            value = self._map_name(statement.target)
            if statement.target in function.scalars:
                return
        where = f"{statement.target}[{function.address(array, statement.subscripts)}]"
        if statement.accumulate and statement.reduction != "sum":
            function.line(f"{where} = {COMBINED[statement.reduction].format(where, value)}")
            return
        adds = statement.accumulate or (array.role == "output" and function.memory.accumulate)
        function.line(f"{where} {'+=' if adds else '='} {value}")

    def _start(self, statement: Statement, accumulator: str) -> None:
        """What a register holds before its loop; a first extreme is at the start of the loop until there is one."""
        function = self.function
        if statement.reduction in BETTER:
            function.line(f"{accumulator}_value = {IDENTITY[statement.reduction]}")
            function.line(f"{accumulator} = {function.integer(function.program.ranges[statement.summed[0]].start)}")
        else:
            function.line(f"{accumulator} = {IDENTITY[statement.reduction]}")

    def _reduce(self, statement: Statement, accumulator: str, value: str) -> None:
        function = self.function
        if statement.reduction not in BETTER:
            function.line(f"{accumulator} = {COMBINED[statement.reduction].format(accumulator, value)}")
            return
        best, new = f"{accumulator}_value", f"{accumulator}_new"
        function.line(f"{new} = {value}")
        function.line(f"if {new} {BETTER[statement.reduction]} {best} or {new} != {new}:")
        function.line(f"    {best} = {new}")
        function.line(f"    {accumulator} = {statement.summed[0]}")

    def _is_variable(self, array: Array) -> bool:
        """Whether the array is a number that lives in a variable of the function."""
        return not array.axes and (array.role in ("local", "prepared") or array.name == "value")

    def _publish(self, array: Array) -> None:
        """Store a prepared number, which `prepare` has in a variable, for `evaluate`."""
        if array.role == "prepared" and not array.axes:
            self.function.line(f"prepared[{sizes.text(self.function.prepared_at[array.name])}] = {array.name}")

    def _map_name(self, target: str) -> str:
        return f"{target}_" if self.function.program.arrays[target].axes else target

    def _store_sum(self, statement: Statement, accumulator: str) -> None:
        function = self.function
        array = function.program.arrays[statement.target]
        if accumulator == statement.target:
            self._publish(array)
            return
        where = f"{statement.target}[{function.address(array, statement.subscripts)}]"
        adds = statement.adds or (array.role == "output" and function.memory.accumulate)
        function.line(f"{where} {'+=' if adds else '='} {accumulator}")

    # ---------------------------------------------------------------------------------- formulas

    def text(self, node: Op, *, top: bool = False, product: bool = False) -> str:
        """Source text of a node; `top`: no parentheses are needed around a sum, `product`: none around a product."""
        if node in self.names:
            return self.names[node]
        kind = node.name
        if kind == "number":
            value = float(node.args[0])
            return f"({_float_text(value)})" if value < 0 and not top else _float_text(value)
        if kind == "affine":
            return f"float({self.function.integer(node.args[0])})"
        if kind == "read":
            return self._read_text(node)
        if kind in ("true", "false"):
            return kind.capitalize()
        if kind == "negative":
            inner = f"-{self.text(node.args[0], product=True)}"
            return inner if top else f"({inner})"
        if kind == "sum":
            inner = self._sum_text(node)
            return inner if top else f"({inner})"
        if kind == "product":
            inner = self._product_text(node)
            return inner if top or product else f"({inner})"
        if kind == "reciprocal":
            inner = f"1.0/{self.text(node.args[0])}"
            return inner if top else f"({inner})"
        if kind == "sqrt":
            return f"math.sqrt({self.text(node.args[0], top=True)})"
        if kind in ("plus", "times"):
            return f"{kind}({', '.join(self.text(a, top=True) for a in node.args)})"
        form = "rough_exp({})" if kind == "exp" and self.function.memory.rough else PRIMITIVES[kind].kernel
        return form.format(*(self.text(a) for a in node.args))

    def _read_text(self, node: Op) -> str:
        array = self.function.program.arrays[node.args[0]]
        if array.name in self.maps:
            return self._map_name(array.name)
        if not array.axes:
            return array.name
        return f"{array.name}[{self.function.address(array, node.args[1])}]"

    def _sum_text(self, node: Op) -> str:
        def is_negative(term: Op) -> bool:
            return term not in self.names and (term.name == "negative" or (term.name == "number" and term.args[0] < 0))

        parts: list[str] = []
        for term in sorted(node.args, key=is_negative):
            if parts and is_negative(term):
                positive = term.args[0] if term.name == "negative" else number(-term.args[0])
                parts.append(f"- {self.text(positive, product=True)}")
            else:
                parts.append(("+ " if parts else "") + self.text(term, product=True))
        return " ".join(parts)

    def _product_text(self, node: Op) -> str:
        above: list[str] = []
        below: list[str] = []
        for factor in node.args:
            if factor.name == "reciprocal" and factor not in self.names:
                below.append(self.text(factor.args[0]))
            else:
                above.append(self.text(factor))
        text = "*".join(above) or "1.0"
        return text if not below else f"{text}/{below[0]}" if len(below) == 1 else f"{text}/({'*'.join(below)})"


def write_rows(nests: Sequence[tuple[NestText, Sequence[str]]]) -> None:
    """Nests that share their outermost loop, each with the comment that goes before its inner loops."""
    first = nests[0][0]
    function, loop = first.function, first.loops[0]
    for text, _ in nests:
        text.begin()
        text._enter(0)
    first._open(loop, first._values(loop))
    for text, comment in nests:
        for line in comment:
            function.line(f"# {line}")
        text._level(1)
    function.depth -= 1
    for text, _ in nests:
        text._leave(0)


def _float_text(value: float) -> str:
    return repr(value).replace("inf", "math.inf").replace("nan", "math.nan")


def _has_exp(node: Op) -> bool:
    return node.name == "exp" or any(map(_has_exp, node.children))


def _is_last(subscripts: Sequence[Affine], loop: str) -> bool:
    """Whether the loop moves by one along the last axis of an array, and along no other."""
    *outer, last = subscripts
    return (loop, 1) in last.terms and not gathers(last) and all(loop not in s.names for s in outer)


def _is_arithmetic(node: Op) -> bool:
    """Whether there are only sums and products of reads and numbers."""
    return node.name in ("number", "read", "affine", "add", "mul") and all(map(_is_arithmetic, node.children))


def _inner(node: Op) -> list[Op]:
    """Everything below a node, children first."""
    seen: dict[Op, None] = {}
    stack = [(c, False) for c in reversed(node.children)]
    while stack:
        item, expanded = stack.pop()
        if item in seen:
            continue
        if expanded:
            seen[item] = None
        else:
            stack.append((item, True))
            stack.extend((c, False) for c in reversed(item.children))
    return list(seen)
