"""Drivers to LLVM: a small, typed part of Python, translated directly.

Drivers (the trust region, the damped solves, the loops over a batch) are written once, for all energies, as annotated
Python functions over pointers and numbers. numba compiles them too, but takes 2 s for the trust region, most of it
for finding types that the annotations give; this takes .1 s, and LLVM .5 (docs/decisions/0004-compiling-drivers.md).
They stay ordinary Python: tests run them on NumPy arrays beside the machine code.

What is translated:

    types        float (float64), int (int64), bool, DoublePointer, IntegerPointer; a tuple of them as a result
    statements   =, also of tuples and chains, op=, if, while, for ... in range(...), break, continue, return, calls
    expressions  + - * / // %, comparisons and their chains, and, or, not, x if c else y, abs, min, max of two, p[i],
                 numbers of the module, annotated functions, those of calling.py, and of `math` sqrt, copysign, floor
                 (as float64), exp, log, log1p, sin, cos, tan, atan, pow, gamma

A variable has the type of its first assignment. Integers become float64 where the other side is; nothing else is
converted. `/` by zero gives infinity or NaN. Anything else is refused with its place in the file.
"""

from __future__ import annotations

import ast
import inspect
import math
import platform
import textwrap
from collections.abc import Callable
from typing import Any, NoReturn

from llvmlite import ir

from . import calling
from .signature import ANNOTATIONS, Signature, double, double_pointer, integer, integer_pointer, void

DOUBLE, INTEGER, BOOL, VOID = ir.DoubleType(), ir.IntType(64), ir.IntType(1), ir.VoidType()
BYTES = ir.IntType(8).as_pointer()
IR = {
    double: DOUBLE,
    integer: INTEGER,
    void: VOID,
    double_pointer: DOUBLE.as_pointer(),
    integer_pointer: INTEGER.as_pointer(),
}


Instead = tuple[tuple[Callable[..., Any], Callable[..., Any]], ...]
"""Pairs of functions: calls of the first become calls of the second, of the same signature."""


def translate(function: Callable[..., Any], symbol: str, instead: Instead = ()) -> ir.Module:
    """The LLVM module of a function, under the name `symbol`, and of all that it calls."""
    module = ir.Module(symbol)
    _Functions(module, instead).declare(function, symbol)
    return module


def function_type(signature: Signature) -> ir.FunctionType:
    return ir.FunctionType(IR[signature.result], [IR[a] for a in signature.arguments])


class _Functions:
    """The functions of a module, each translated when it is first called."""

    def __init__(self, module: ir.Module, instead: Instead) -> None:
        self.module, self._declared, self._instead = module, dict[Any, ir.Function](), dict(instead)

    def declare(self, function: Callable[..., Any], symbol: str = "") -> ir.Function:
        function = self._instead.get(function, function)
        if function not in self._declared:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
            assert isinstance(tree, ast.FunctionDef)
            types = [_annotated(argument.annotation) for argument in tree.args.args]
            name = symbol or f"{function.__module__}.{function.__qualname__}"
            declared = ir.Function(self.module, ir.FunctionType(_annotated(tree.returns), types), name)
            declared.attributes.add("nounwind")
            if not getattr(function, "vectorised", False):
                declared.attributes.add("optsize")
            if getattr(function, "streaming", False):
                for argument in declared.args:
                    if isinstance(argument.type, ir.PointerType):
                        argument.add_attribute("noalias")
            if not symbol:
                declared.linkage = "internal"
                declared.attributes.add("noinline")  # a copy costs LLVM 10 ms, a call 2 ns
            self._declared[function] = declared
            _Body(self, function, tree, declared)
        return self._declared[function]


def _annotated(annotation: ast.expr | None) -> ir.Type:
    assert annotation is not None, "a translated function needs annotations"
    text = ast.unparse(annotation)
    if isinstance(annotation, ast.Subscript):
        assert isinstance(annotation.slice, ast.Tuple)
        return ir.LiteralStructType([_annotated(element) for element in annotation.slice.elts])
    return BOOL if text == "bool" else IR[ANNOTATIONS[text]]


class _Body:
    """The translation of one function."""

    def __init__(
        self, functions: _Functions, function: Callable[..., Any], tree: ast.FunctionDef, declared: ir.Function
    ) -> None:
        self.functions, self.function, self.declared = functions, function, declared
        self.flags = ("reassoc", "contract", "nsz") if getattr(function, "streaming", False) else ()
        entry = declared.append_basic_block("entry")
        self.entry, self.builder = ir.IRBuilder(entry), ir.IRBuilder(declared.append_basic_block("body"))
        self.variables: dict[str, Any] = {}
        self.loops: list[tuple[Any, Any]] = []  # (where `continue` goes, where `break` goes)
        for argument, value in zip(tree.args.args, declared.args, strict=True):
            self.store(argument.arg, value)
        self.block(tree.body)
        if not self.builder.block.is_terminated:
            if declared.function_type.return_type != VOID:
                self.refuse(tree, "its end is reached without a return")
            self.builder.ret_void()
        self.entry.branch(declared.blocks[1])

    def refuse(self, node: ast.AST, why: str) -> NoReturn:
        code = self.function.__code__
        line = code.co_firstlineno + getattr(node, "lineno", 1) - 1
        raise NotImplementedError(
            f"{code.co_filename}:{line}: {self.function.__qualname__}: {why}: {ast.unparse(node)}"
        )

    # ------------------------------------------------------------------------------------------ statements

    def block(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            if self.builder.block.is_terminated:
                self.refuse(statement, "never reached")
            method = getattr(self, f"do_{type(statement).__name__}", None)
            if method is None:
                self.refuse(statement, "not translated")
            method(statement)

    def do_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.value(node.value)

    def do_Pass(self, node: ast.Pass) -> None:
        pass

    def do_Assign(self, node: ast.Assign) -> None:
        if isinstance(node.value, ast.Tuple):
            values = [self.value(element) for element in node.value.elts]
        else:
            whole = self.value(node.value)
            several = isinstance(whole.type, ir.LiteralStructType)
            values = [self.builder.extract_value(whole, k) for k in range(len(whole.type))] if several else [whole]
        for target in node.targets:
            targets = target.elts if isinstance(target, ast.Tuple) else [target]
            if len(targets) != len(values):
                self.refuse(node, f"{len(values)} values for {len(targets)} targets")
            for one, value in zip(targets, values, strict=True):
                self.assign(one, value)

    def do_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Subscript):
            place = self.place(node.target)
            self.builder.store(self.operate(node, self.builder.load(place), self.value(node.value)), place)
        else:
            assert isinstance(node.target, ast.Name)
            self.store(node.target.id, self.operate(node, self.load(node.target), self.value(node.value)), node)

    def do_If(self, node: ast.If) -> None:
        condition = self.condition(node.test)
        then, end = self.new_block("then"), self.new_block("end")
        otherwise = self.new_block("else") if node.orelse else end
        self.builder.cbranch(condition, then, otherwise)
        for block, body in ((then, node.body), (otherwise, node.orelse)):
            if body:
                self.builder.position_at_end(block)
                self.block(body)
                self.go(end)
        self.builder.position_at_end(end)
        if node.orelse and not any(True for _ in _predecessors(self.declared, end)):
            self.builder.unreachable()

    def do_While(self, node: ast.While) -> None:
        if node.orelse:
            self.refuse(node, "else of a loop")
        head, body, end = self.new_block("while"), self.new_block("body"), self.new_block("end")
        self.builder.branch(head)
        self.builder.position_at_end(head)
        always = isinstance(node.test, ast.Constant) and node.test.value is True
        if always:
            self.builder.branch(body)
        else:
            self.builder.cbranch(self.condition(node.test), body, end)
        self.loop(node.body, body, head, end)
        if always and not any(True for _ in _predecessors(self.declared, end)):
            self.builder.unreachable()

    def do_For(self, node: ast.For) -> None:
        call = node.iter
        if (
            node.orelse
            or not isinstance(call, ast.Call)
            or ast.unparse(call.func) != "range"
            or not isinstance(node.target, ast.Name)
        ):
            self.refuse(node, "only `for name in range(...)`")
        bounds = [self.value(a) for a in call.args[:2]]
        start, stop = (ir.Constant(INTEGER, 0), bounds[0]) if len(bounds) == 1 else bounds
        step = ast.literal_eval(call.args[2]) if len(call.args) == 3 else 1
        if any(bound.type != INTEGER for bound in bounds) or not isinstance(step, int) or step == 0:
            self.refuse(call, "bounds must be integers, the step a number")
        counter = self.entry.alloca(INTEGER)
        self.builder.store(start, counter)
        head, body, following, end = (self.new_block(name) for name in ("for", "body", "next", "end"))
        self.builder.branch(head)
        self.builder.position_at_end(head)
        now = self.builder.load(counter)
        self.builder.cbranch(self.builder.icmp_signed("<" if step > 0 else ">", now, stop), body, end)
        self.builder.position_at_end(body)
        self.store(node.target.id, now, node)
        self.loop(node.body, body, following, end)
        with self.builder.goto_block(following):
            self.builder.store(
                self.builder.add(self.builder.load(counter), ir.Constant(INTEGER, step), ("nsw",)), counter
            )
            self.builder.branch(head)

    def loop(self, statements: list[ast.stmt], body: Any, following: Any, end: Any) -> None:
        self.builder.position_at_end(body)
        self.loops.append((following, end))
        self.block(statements)
        self.loops.pop()
        self.go(following)
        self.builder.position_at_end(end)

    def do_Continue(self, node: ast.Continue) -> None:
        self.builder.branch(self.loops[-1][0])

    def do_Break(self, node: ast.Break) -> None:
        self.builder.branch(self.loops[-1][1])

    def do_Return(self, node: ast.Return) -> None:
        kind = self.declared.function_type.return_type
        if node.value is None:
            self.builder.ret_void()
        elif isinstance(node.value, ast.Tuple):
            result = ir.Constant(kind, ir.Undefined)
            for k, element in enumerate(node.value.elts):
                result = self.builder.insert_value(result, self.convert(self.value(element), kind.elements[k], node), k)
            self.builder.ret(result)
        else:
            self.builder.ret(self.convert(self.value(node.value), kind, node))

    def new_block(self, name: str) -> Any:
        return self.declared.append_basic_block(name)

    def go(self, block: Any) -> None:
        if not self.builder.block.is_terminated:
            self.builder.branch(block)

    # ------------------------------------------------------------------------------------------ variables

    def assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Subscript):
            place = self.place(target)
            self.builder.store(self.convert(value, place.type.pointee, target), place)
        elif isinstance(target, ast.Name):
            self.store(target.id, value, target)
        else:
            self.refuse(target, "cannot be assigned to")

    def store(self, name: str, value: Any, node: ast.AST | None = None) -> None:
        if name not in self.variables:
            self.variables[name] = self.entry.alloca(value.type, name=name)
        place = self.variables[name]
        self.builder.store(self.convert(value, place.type.pointee, node or ast.Name(name)), place)

    def load(self, node: ast.Name) -> Any:
        if node.id not in self.variables:
            self.refuse(node, "read before it is assigned to")
        return self.builder.load(self.variables[node.id])

    def place(self, node: ast.Subscript) -> Any:
        pointer, index = self.value(node.value), self.value(node.slice)
        if not isinstance(pointer.type, ir.PointerType) or index.type != INTEGER:
            self.refuse(node, "a pointer and one integer are needed")
        return self.builder.gep(pointer, [index])

    def convert(self, value: Any, kind: ir.Type, node: ast.AST) -> Any:
        if value.type == kind:
            return value
        if value.type == INTEGER and kind == DOUBLE:
            return self.builder.sitofp(value, DOUBLE)
        self.refuse(node, f"{value.type} where {kind} is needed")

    # ------------------------------------------------------------------------------------------ expressions

    def value(self, node: ast.expr) -> Any:
        method = getattr(self, f"of_{type(node).__name__}", None)
        if method is None:
            self.refuse(node, "not translated")
        return method(node)

    def condition(self, node: ast.expr) -> Any:
        value = self.value(node)
        if value.type != BOOL:
            self.refuse(node, "a condition must be a bool")
        return value

    def constant(self, number: object, node: ast.AST) -> Any:
        if isinstance(number, bool):
            return ir.Constant(BOOL, int(number))
        if isinstance(number, int):
            return ir.Constant(INTEGER, int(number))
        if isinstance(number, float):
            return ir.Constant(DOUBLE, number)
        self.refuse(node, "not a number")

    def of_Constant(self, node: ast.Constant) -> Any:
        return self.constant(node.value, node)

    def of_Name(self, node: ast.Name) -> Any:
        known = self.function.__globals__
        if node.id in self.variables or node.id not in known:
            return self.load(node)
        return self.constant(known[node.id], node)

    def of_Attribute(self, node: ast.Attribute) -> Any:
        return self.constant(self.global_value(node), node)

    def global_value(self, node: ast.expr) -> Any:
        """A function or number named in the module: `dot`, `math.inf`."""
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return getattr(self.function.__globals__[node.value.id], node.attr)
        assert isinstance(node, ast.Name)
        found = self.function.__globals__.get(node.id, _PYTHON.get(node.id))
        return found if found is not None else self.refuse(node, "unknown")

    def of_Subscript(self, node: ast.Subscript) -> Any:
        return self.builder.load(self.place(node))

    def of_BinOp(self, node: ast.BinOp) -> Any:
        return self.operate(node, self.value(node.left), self.value(node.right))

    def operate(self, node: ast.BinOp | ast.AugAssign, left: Any, right: Any) -> Any:
        name = type(node.op).__name__
        if name == "Div" or DOUBLE in (left.type, right.type):
            left, right = self.convert(left, DOUBLE, node), self.convert(right, DOUBLE, node)
            if name in _FLOAT:
                return getattr(self.builder, _FLOAT[name])(left, right, flags=self.flags)
        elif left.type == right.type == INTEGER:
            if name in _INTEGER:
                return getattr(self.builder, _INTEGER[name])(left, right, ("nsw",))
            if name in ("FloorDiv", "Mod"):
                return self.floored(name, left, right)
        self.refuse(node, f"{name} of {left.type} and {right.type}")

    def floored(self, name: str, left: Any, right: Any) -> Any:
        """Python's // and %: the remainder has the sign of the divisor."""
        zero, build = ir.Constant(INTEGER, 0), self.builder
        rest = build.srem(left, right)
        astray = build.and_(build.icmp_signed("!=", rest, zero), build.icmp_signed("<", build.xor(rest, right), zero))
        if name == "Mod":
            return build.select(astray, build.add(rest, right), rest)
        quotient = build.sdiv(left, right)
        return build.select(astray, build.sub(quotient, ir.Constant(INTEGER, 1)), quotient)

    def of_UnaryOp(self, node: ast.UnaryOp) -> Any:
        value = self.value(node.operand)
        if isinstance(node.op, ast.Not) and value.type == BOOL:
            return self.builder.not_(value)
        if isinstance(node.op, ast.USub) and value.type == DOUBLE:
            return self.builder.fneg(value)
        if isinstance(node.op, ast.USub) and value.type == INTEGER:
            return self.builder.neg(value)
        self.refuse(node, f"not translated for {value.type}")

    def of_Compare(self, node: ast.Compare) -> Any:
        values = [self.value(operand) for operand in (node.left, *node.comparators)]
        result = None
        for left, op, right in zip(values, node.ops, values[1:], strict=False):
            if type(op).__name__ not in _COMPARISONS:
                self.refuse(node, "not translated")
            one = self.compare(_COMPARISONS[type(op).__name__], left, right, node)
            result = one if result is None else self.builder.and_(result, one)
        return result

    def compare(self, sign: str, left: Any, right: Any, node: ast.AST) -> Any:
        if left.type == right.type and left.type in (INTEGER, BOOL):
            return self.builder.icmp_signed(sign, left, right)
        left, right = self.convert(left, DOUBLE, node), self.convert(right, DOUBLE, node)
        return (self.builder.fcmp_unordered if sign == "!=" else self.builder.fcmp_ordered)(sign, left, right)

    def of_BoolOp(self, node: ast.BoolOp) -> Any:
        """Later operands are looked at only where earlier ones leave it open."""
        end, stops = self.new_block("decided"), []
        for operand in node.values[:-1]:
            value = self.condition(operand)
            stops.append((value, self.builder.block))
            following = self.new_block("operand")
            self.builder.cbranch(value, *((following, end) if isinstance(node.op, ast.And) else (end, following)))
            self.builder.position_at_end(following)
        stops.append((self.condition(node.values[-1]), self.builder.block))
        self.builder.branch(end)
        self.builder.position_at_end(end)
        return self.joined(BOOL, stops)

    def of_IfExp(self, node: ast.IfExp) -> Any:
        condition = self.condition(node.test)
        ends = []
        blocks = [self.new_block("yes"), self.new_block("no")]
        self.builder.cbranch(condition, *blocks)
        for block, branch in zip(blocks, (node.body, node.orelse), strict=True):
            self.builder.position_at_end(block)
            ends.append([self.value(branch), self.builder.block])
        kind = DOUBLE if any(value.type == DOUBLE for value, _ in ends) else ends[0][0].type
        end = self.new_block("chosen")
        for stop in ends:
            self.builder.position_at_end(stop[1])
            stop[0] = self.convert(stop[0], kind, node)
            self.builder.branch(end)
        self.builder.position_at_end(end)
        return self.joined(kind, ends)

    def joined(self, kind: ir.Type, ends: list[Any]) -> Any:
        phi = self.builder.phi(kind)
        for value, block in ends:
            phi.add_incoming(value, block)
        return phi

    def of_Call(self, node: ast.Call) -> Any:
        if node.keywords:
            self.refuse(node, "arguments by name")
        called = self.global_value(node.func)
        arguments = [self.value(argument) for argument in node.args]
        if called in _BUILT_IN:
            return _BUILT_IN[called](self, node, *arguments)
        declared = self.functions.declare(called)
        types = declared.function_type.args
        if len(types) != len(arguments):
            self.refuse(node, f"{len(types)} arguments are needed")
        return self.builder.call(
            declared, [self.convert(value, kind, node) for value, kind in zip(arguments, types, strict=True)]
        )


def _predecessors(function: ir.Function, block: Any) -> Any:
    for other in function.blocks:
        if other.is_terminated and block in getattr(other.terminator, "operands", ()):
            yield other


_FLOAT = {"Add": "fadd", "Sub": "fsub", "Mult": "fmul", "Div": "fdiv"}
_INTEGER = {"Add": "add", "Sub": "sub", "Mult": "mul"}
_COMPARISONS = {"Lt": "<", "LtE": "<=", "Gt": ">", "GtE": ">=", "Eq": "==", "NotEq": "!="}
_PYTHON: dict[str, Any] = {"abs": abs, "min": min, "max": max, "float": float}


def _intrinsic(name: str) -> Any:
    """A function of LLVM on float64."""

    def generate(body: _Body, node: ast.Call, *arguments: Any) -> Any:
        values = [body.convert(value, DOUBLE, node) for value in arguments]
        function = body.functions.module.declare_intrinsic(
            name, [DOUBLE], ir.FunctionType(DOUBLE, [DOUBLE] * len(values))
        )
        return body.builder.call(function, values)

    return generate


def _library(name: str) -> Any:
    """A function of the C library on float64."""

    def generate(body: _Body, node: ast.Call, *arguments: Any) -> Any:
        values, module = [body.convert(value, DOUBLE, node) for value in arguments], body.functions.module
        function = module.globals.get(name) or ir.Function(
            module, ir.FunctionType(DOUBLE, [DOUBLE] * len(values)), name
        )
        return body.builder.call(function, values)

    return generate


def _extreme(sign: str) -> Any:
    """min and max as Python has them: the second where it is strictly beyond the first."""

    def generate(body: _Body, node: ast.Call, first: Any, second: Any) -> Any:
        if DOUBLE in (first.type, second.type):
            first, second = body.convert(first, DOUBLE, node), body.convert(second, DOUBLE, node)
        return body.builder.select(body.compare(sign, second, first, node), second, first)

    return generate


def _pointer_at(element: ir.Type) -> Any:
    return lambda body, node, address: body.builder.inttoptr(address, element.as_pointer())


def _atomic_load(body: _Body, node: ast.Call, pointer: Any, index: Any) -> Any:
    return body.builder.load_atomic(body.builder.gep(pointer, [index]), "seq_cst", 8)


def _atomic_store(body: _Body, node: ast.Call, pointer: Any, index: Any, value: Any) -> Any:
    return body.builder.store_atomic(value, body.builder.gep(pointer, [index]), "seq_cst", 8)


def _atomic_add(body: _Body, node: ast.Call, pointer: Any, index: Any, value: Any) -> Any:
    return body.builder.atomic_rmw("add", body.builder.gep(pointer, [index]), value, "seq_cst")


def _compare_exchange(body: _Body, node: ast.Call, pointer: Any, index: Any, expected: Any, value: Any) -> Any:
    place = body.builder.gep(pointer, [index])
    return body.builder.extract_value(body.builder.cmpxchg(place, expected, value, "seq_cst", "seq_cst"), 1)


def _prefetch(body: _Body, node: ast.Call, pointer: Any, index: Any) -> Any:
    place, kind = body.builder.bitcast(body.builder.gep(pointer, [index]), BYTES), ir.IntType(32)
    function = body.functions.module.declare_intrinsic(
        "llvm.prefetch", [BYTES], ir.FunctionType(VOID, [BYTES, kind, kind, kind])
    )
    for_reading, into_all_caches, data = ir.Constant(kind, 0), ir.Constant(kind, 3), ir.Constant(kind, 1)
    return body.builder.call(function, [place, for_reading, into_all_caches, data])


def _pause(body: _Body, node: ast.Call) -> Any:
    module, machine = body.functions.module, platform.machine()
    if machine in ("x86_64", "AMD64"):
        kind = ir.FunctionType(VOID, [])
        return body.builder.call(module.declare_intrinsic("llvm.x86.sse2.pause", (), kind), [])
    if machine in ("aarch64", "arm64"):
        hint = ir.IntType(32)
        function = module.declare_intrinsic("llvm.aarch64.hint", (), ir.FunctionType(VOID, [hint]))
        return body.builder.call(function, [ir.Constant(hint, 1)])
    return None


def _call_at(signature: Signature) -> Any:
    """Call the C function at an address."""

    def generate(body: _Body, node: ast.Call, address: Any, *arguments: Any) -> Any:
        function = body.builder.inttoptr(address, function_type(signature).as_pointer())
        return body.builder.call(function, arguments)

    return generate


def _rough_inverse_root(body: _Body, node: ast.Call, number: Any) -> Any:
    half = body.builder.lshr(body.builder.bitcast(body.convert(number, DOUBLE, node), INTEGER), ir.Constant(INTEGER, 1))
    return body.builder.bitcast(body.builder.sub(ir.Constant(INTEGER, 0x5FE6EB50C7B537A9), half), DOUBLE)


_BUILT_IN: dict[Any, Any] = {
    abs: _intrinsic("llvm.fabs"),
    math.sqrt: _intrinsic("llvm.sqrt"),
    math.copysign: _intrinsic("llvm.copysign"),
    math.floor: _intrinsic("llvm.floor"),
    **{getattr(math, name): _library(name) for name in ("exp", "log", "log1p", "sin", "cos", "tan", "atan", "pow")},
    math.gamma: _library("tgamma"),
    min: _extreme("<"),
    max: _extreme(">"),
    float: lambda body, node, value: body.convert(value, DOUBLE, node),
    calling.shifted: lambda body, node, pointer, count: body.builder.gep(pointer, [count]),
    calling.double_pointer_at: _pointer_at(DOUBLE),
    calling.integer_pointer_at: _pointer_at(INTEGER),
    calling.call_evaluate: _call_at(calling.EVALUATE),
    calling.call_prepare: _call_at(calling.PREPARE),
    calling.call_drive: _call_at(calling.DRIVE),
    calling.call_blocks: _call_at(calling.BLOCKS),
    calling.doubles: lambda body, node, pointer: body.builder.bitcast(pointer, DOUBLE.as_pointer()),
    calling.bits_of: lambda body, node, number: body.builder.bitcast(body.convert(number, DOUBLE, node), INTEGER),
    calling.of_bits: lambda body, node, bits: body.builder.bitcast(bits, DOUBLE),
    calling.rough_inverse_root: _rough_inverse_root,
    calling.atomic_load: _atomic_load,
    calling.atomic_store: _atomic_store,
    calling.atomic_add: _atomic_add,
    calling.compare_exchange: _compare_exchange,
    calling.pause: _pause,
    calling.prefetch: _prefetch,
}
