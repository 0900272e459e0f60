"""From a schedule to the text of a kernel: two functions, `prepare` and `evaluate`, of the calling convention.

Each nest becomes loops. A node of an expression is computed at the shallowest loop at which all that it depends on is
known; nodes used more than once, or computed outside the loop that uses them, get a name. A sum whose target does not
vary in the loops inside it is kept in a register; other sums are added to memory that was zeroed before the nest.

No text of the user reaches the code: names are generated, and what is quoted in comments is ASCII on one line.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from . import sizes
from .expression import ZERO, Affine, Op, add, gathers, name, number, replace_indices
from .freeze import Placement, freeze
from .primitives import PRIMITIVES
from .program import Array, Program, Range, Statement
from .schedule import Nest, Schedule


@dataclass(frozen=True)
class Place:
    """Where an output array lies in `out`: its first number, and for each block of axes the distance of its rows."""

    offset: sizes.Size
    blocks: tuple[tuple[int, sizes.Size], ...]


@dataclass(frozen=True)
class Emitted:
    """The text of a kernel, and how much memory it needs, as polynomials in the extents."""

    source: str
    prepared: sizes.Size
    scratch: sizes.Size
    out: sizes.Size


@dataclass(frozen=True)
class Memory:
    """Where everything lies: variables and directions by offset, inputs by row of the table, outputs by place."""

    variables: Mapping[str, sizes.Size]
    table: Mapping[str, int]
    outputs: Mapping[str, Place]
    accumulate: bool = False
    mirror: tuple[sizes.Size, sizes.Size] | None = None  # offset and order of a symmetric matrix to be completed
    rows: Mapping[str, sizes.Size] = field(default_factory=dict)  # variables at many points: distance of the points
    rough: bool = False  # exponentials to 1e-8, for values that are only compared


def emit(plan: Schedule, memory: Memory, out: sizes.Size, title: str, legend: Iterable[str]) -> Emitted:
    """The source of one kernel.

    Parameters
    ----------
    plan : Schedule
    memory : Memory
    out : Size
        Numbers that the kernel writes to `out`.
    title, legend : str
        What the kernel computes, and lines about names, for the comment on top; ASCII.
    """
    prepared_at, prepared_size = _offsets(plan.program, "prepared", frozenset())
    scratch_at, scratch_size = _offsets(plan.program, "local", plan.scalars)
    head = [f"# {title}", *(f"#   {line}" for line in legend), ""]
    prepare = _Function(plan.program, memory, plan.scalars, prepared_at, scratch_at)
    prepare.body("def prepare(table, extents, instance, prepared):", plan.prepare, prepared=False)
    evaluate = _Function(plan.program, memory, plan.scalars, prepared_at, scratch_at)
    evaluate.body("def evaluate(y, v, table, extents, instance, prepared, scratch, out):", plan.evaluate, prepared=True)
    source = "\n".join([*head, *prepare.lines, "", "", *evaluate.lines, ""])
    return Emitted(source, prepared_size, scratch_size, out)


def _offsets(program: Program, role: str, without: frozenset[str]) -> tuple[dict[str, sizes.Size], sizes.Size]:
    """The place of every array of a role in one block of memory; local scalars are variables and need none."""
    total: sizes.Size = sizes.ZERO_SIZE
    places: dict[str, sizes.Size] = {}
    for array in program.arrays.values():
        if array.role == role and array.name not in without and (array.axes or role == "prepared"):
            places[array.name] = total
            total = sizes.plus(total, sizes.volume(array.axes))
    return places, total


@dataclass
class _Function:
    """One function being written."""

    program: Program
    memory: Memory
    scalars: frozenset[str]
    prepared_at: Mapping[str, sizes.Size]
    scratch_at: Mapping[str, sizes.Size]
    lines: list[str] = field(default_factory=list)
    depth: int = 1
    temporaries: int = 0

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    # ---------------------------------------------------------------------------------- the whole

    def body(self, head: str, nests: Sequence[Nest], *, prepared: bool) -> None:
        self.lines.append(head)
        statements = [s for nest in nests for s in nest.statements]
        used = {a for s in statements for a in s.expression.arrays} | {s.target for s in statements}
        subscripts = [x for s in statements for x in s.subscripts]
        used |= {n for s in subscripts for n in gathers(s)}
        for k, extent in enumerate(self.program.extents):
            self.line(f"{extent} = extents[{k}]")
        pointers = [a for a in self.program.arrays.values() if a.name in used and self._has_memory(a, prepared)]
        for array in self.program.arrays.values():
            if array in pointers:
                where = self._pointer(array)
                self.line(f"{array.name} = separate({where}, {pointers.index(array)}, {len(pointers)})")
            elif array.name in used:
                self._load(array, prepared)
        for nest in nests:
            self._nest(nest)
        if prepared and self.memory.mirror is not None:
            self._mirror(*self.memory.mirror)
        returns = prepared and "value" in used and not self.program.arrays["value"].axes
        self.line("return value" if returns else "return 0.0")

    def _has_memory(self, array: Array, prepared: bool) -> bool:
        """Whether the function reaches the array through a pointer, rather than as a number in a variable."""
        if array.role == "output":
            return bool(array.axes) or array.name != "value"
        return bool(array.axes) and (array.role != "local" or array.name in self.scratch_at)

    def _pointer(self, array: Array) -> str:
        """Source text of the pointer to an array's first number."""
        if array.role in ("weight", "data"):
            row = 2 * self.memory.table[array.name]
            kind = "integer" if array.integer else "double"
            return f"{kind}_pointer_at(table[{row}] + 8*table[{row + 1}]*instance)"
        base, offset = {
            "variable": ("y", self.memory.variables), "direction": ("v", self.memory.variables),
            "prepared": ("prepared", self.prepared_at), "local": ("scratch", self.scratch_at),
            "output": ("out", {n: p.offset for n, p in self.memory.outputs.items()}),
        }[array.role]  # fmt: skip
        return f"shifted({base}, {sizes.text(offset[array.name])})"

    def _load(self, array: Array, prepared: bool) -> None:
        """Read an array of rank 0 into a variable."""
        name = array.name
        if array.role in ("variable", "direction"):
            self.line(f"{name} = {'y' if array.role == 'variable' else 'v'}[{sizes.text(self.memory.variables[name])}]")
        elif array.role in ("weight", "data"):
            self.line(f"{name} = {self._pointer(array)}[0]")
        elif array.role == "prepared" and prepared:
            self.line(f"{name} = prepared[{sizes.text(self.prepared_at[name])}]")

    def _mirror(self, offset: sizes.Size, order: sizes.Size) -> None:
        self.line("# the Hessian is symmetric: its lower triangle is copied from the upper one")
        self.line(f"matrix, order = shifted(out, {sizes.text(offset)}), {sizes.text(order)}")
        self.line("for row in range(order):")
        self.line("    for column in range(row):")
        self.line("        matrix[row*order + column] = matrix[column*order + row]")

    # ---------------------------------------------------------------------------------- nests

    def _nest(self, nest: Nest) -> None:
        statements = [s for s in nest.statements if not self._is_void(s)]
        if not statements:
            return
        for line in _comment(statements):
            self.line(f"# {line}")
        maps = {s.target for s in statements if not s.accumulate and s.is_definition and len(s.kept) == len(nest.loops)}
        maps = {m for m in maps if self.program.arrays[m].role == "local"}
        placement = Placement(nest.loops, maps if nest.loops else ())
        whole = _Nest(self, nest.loops, statements, placement, frozenset(maps), self._triangle(nest.loops, statements))
        unrolled = whole.unrolled()
        if not unrolled:
            whole.write()
            return
        whole.zero()
        for part in unrolled:
            part.write(zero=False)

    def _triangle(self, loops: Sequence[str], statements: Sequence[Statement]) -> dict[str, str]:
        """The range of the inner loop where all statements add to one symmetric matrix: from the diagonal on.

        Only where the lower triangle is copied from the upper one afterwards. It begins at a multiple of 8, so that the
        loop still vectorises.
        """
        if self.memory.mirror is None or len(loops) < 2:
            return {}
        row, column = loops[0], loops[-1]
        ranges = self.program.ranges
        blocks = {f"hessian_{a}_{a}" for a in self.memory.variables}
        whole = str(ranges[row]) == str(ranges[column]) and self.integer(ranges[row].start) == "0"
        fits = all(
            s.target in blocks and s.accumulate and [x.single for x in s.subscripts] == [row, column]
            for s in statements
        )
        return {column: f"{row}//8*8, {self.integer(ranges[column].stop)}"} if whole and fits else {}

    def _is_void(self, statement: Statement) -> bool:
        """Zeroing an output that the kernel adds to."""
        is_output = self.program.arrays[statement.target].role == "output"
        return is_output and self.memory.accumulate and statement.expression is ZERO

    # ---------------------------------------------------------------------------------- addresses

    def address(self, array: Array, subscripts: Sequence[Affine]) -> str:
        blocks = self._blocks(array)
        if blocks:
            parts = []
            start = 0
            for count, distance in blocks:
                axes, own = array.axes[start : start + count], subscripts[start : start + count]
                start += count
                flat = _flat(axes, own, self.integer)
                step = sizes.text(distance)
                if flat != "0":
                    parts.append(flat if step == "1" else f"({flat})*({step})")
            return " + ".join(parts) or "0"
        return _flat(array.axes, subscripts, self.integer)

    def _blocks(self, array: Array) -> tuple[tuple[int, sizes.Size], ...]:
        if array.name in self.memory.outputs:
            return self.memory.outputs[array.name].blocks
        if array.name in self.memory.rows:
            return ((1, self.memory.rows[array.name]), (len(array.axes) - 1, sizes.ONE_SIZE))
        return ()

    def integer(self, value: Affine) -> str:
        """Source text of an affine integer."""
        parts = []
        for item, count in value.terms:
            if isinstance(item, str):
                text = item
            else:
                text = f"{item.array}[{self.address(self.program.arrays[item.array], item.subscripts)}]"
            parts.append(text if count == 1 else f"{count}*{text}")
        if value.constant or not parts:
            parts.append(str(value.constant))
        return " + ".join(parts).replace("+ -", "- ")


def _flat(axes: Sequence[Range], subscripts: Sequence[Affine], integer: object) -> str:
    """The position in memory of an entry of an array in C order, by Horner's rule."""
    result = ""
    for axis, subscript in zip(axes, subscripts, strict=True):
        own = integer(subscript)  # type: ignore[operator]
        extent = integer(axis.stop)  # type: ignore[operator]
        if not result or result == "0":
            result = own
        else:
            left = result if result.isidentifier() else f"({result})"
            right = extent if extent.isalnum() else f"({extent})"
            result = f"{left}*{right}" + ("" if own == "0" else f" + {own}")
    return result or "0"


def _comment(statements: Sequence[Statement]) -> list[str]:
    """What a nest computes: targets by purpose."""
    purposes: dict[str, list[str]] = {}
    for s in statements:
        purposes.setdefault(s.note or "intermediate", []).append(s.target)
    text = "; ".join(f"{', '.join(dict.fromkeys(targets))}: {note}" for note, targets in purposes.items())
    return textwrap.wrap(text, 100)


# ------------------------------------------------------------------------------------------- one nest


@dataclass
class _Nest:
    """The loops of one nest being written."""

    function: _Function
    loops: tuple[str, ...]
    statements: Sequence[Statement]
    placement: Placement
    maps: frozenset[str]
    ranges: Mapping[str, str]

    def write(self, *, zero: bool = True) -> None:
        self.names: dict[Op, str] = {}
        self.roots = freeze([s.expression for s in self.statements], self.placement)
        self._choose_temporaries()
        self.register = {
            k: (self._accumulator(s), self._register_level(s))
            for k, s in enumerate(self.statements)
            if self._in_register(s)
        }
        if zero:
            self.zero()
        self._level(0)

    def _register_level(self, statement: Statement) -> int:
        return max((self.loops.index(i) + 1 for i in statement.kept), default=0)

    def _in_register(self, statement: Statement) -> bool:
        """Whether a sum is kept in a register: all loops inside those of its target are summed."""
        if not statement.accumulate:
            return False
        outermost = self._register_level(statement) == len(statement.kept) and statement.is_definition
        return outermost or not statement.kept

    def zero(self) -> None:
        """Zero the memory of the sums that are not kept in registers."""
        self._zero([s for s in self.statements if s.accumulate and s.is_definition and not self._in_register(s)])

    def unrolled(self) -> list[_Nest]:
        """Two nests in place of this one, if all of it adds to memory in an inner loop inside a summed loop.

        The first takes several values of the summed loop at once, so that each entry is loaded and stored once for
        all of them; the second takes what is left.
        """
        if len(self.loops) < 2 or self.maps:
            return []
        summed = self.loops[-2]
        fits = all(s.accumulate and not self._in_register(s) and summed in s.summed for s in self.statements)
        if not fits:
            return []
        plain = all(_is_arithmetic(s.expression) for s in self.statements)
        count = 4 if plain else 2
        limits = self.function.program.ranges[summed]
        start, stop = self.function.integer(limits.start), self.function.integer(limits.stop)
        rest = f"max(0, {stop} - {start})//{count}*{count}" if start != "0" else f"max(0, {stop})//{count}*{count}"
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

        def visit(node: Op, level: int) -> None:
            uses[node] += 1
            used_at[node] = max(used_at.get(node, 0), level)
            if uses[node] == 1:
                own = self.placement.level(node)
                for child in node.children:
                    visit(child, own)
                order[node] = None

        for statement, root in zip(self.statements, self.roots, strict=True):
            level = len(self.loops) if statement.accumulate or statement.kept else 0
            visit(root, level)
        self.order = list(order)
        self.named = {
            n for n in self.order
            if not self._is_plain(n) and (uses[n] > 1 or self.placement.level(n) < used_at[n])
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
                function.line(f"{s.target}[{function.address(arrays[s.target], s.subscripts)}] = 0.0")
            function.depth = depth

    def _values(self, loop: str) -> str:
        """The arguments of `range` for a loop."""
        limits = self.function.program.ranges[loop]
        start, stop = self.function.integer(limits.start), self.function.integer(limits.stop)
        return self.ranges.get(loop, stop if start == "0" else f"{start}, {stop}")

    def _parts(self, level: int) -> Iterator[str]:
        """The loop of a level, in one or two parts.

        A single loop of exponentials runs over a multiple of 8 first: what LLVM makes of the rest by itself is slower.
        """
        values = self._values(self.loops[level])
        if len(self.loops) > 1 or values not in self.function.program.extents or not any(map(_has_exp, self.roots)):
            yield values
            return
        yield f"{values}//8*8"
        for node in self.order:
            if self.placement.level(node) > level:
                self.names.pop(node, None)
        yield f"{values}//8*8, {values}"

    def _open(self, loop: str, values: str) -> None:
        function = self.function
        function.line(f"for {loop} in range({values}):")
        function.depth += 1

    def _level(self, level: int) -> None:
        function = self.function
        if level < len(self.loops):
            for node in self.order:
                if node in self.named and self.placement.level(node) == level:
                    self._name(node)
        for accumulator, own in self.register.values():
            if own == level and self.loops:
                function.line(f"{accumulator} = 0.0")
        if level < len(self.loops):
            for values in self._parts(level):
                self._open(self.loops[level], values)
                self._level(level + 1)
                function.depth -= 1
        else:
            for k, statement in enumerate(self.statements):
                self._update(k, statement)
        for k, (accumulator, own) in self.register.items():
            if own == level:
                self._store_sum(self.statements[k], accumulator)

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
            if value.startswith("-") and self.loops:
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
        adds = statement.accumulate or (array.role == "output" and function.memory.accumulate)
        function.line(f"{where} {'+=' if adds else '='} {value}")

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
            return f"({value!r})" if value < 0 and not top else _float_text(value)
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


def _float_text(value: float) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        return f'float("{value}")'
    return repr(value)


def _has_exp(node: Op) -> bool:
    return node.name == "exp" or any(map(_has_exp, node.children))


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
