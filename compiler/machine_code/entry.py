"""One kind of kernel, ready to be called: machine code, from the cache or compiled now, or the interpreter instead."""

from __future__ import annotations

import ctypes
import json
import linecache
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...energies.energy import Energy
from ...energies.user_function import is_hashable
from ..calls.binding import Inputs
from ..calls.declaration import ADJOINTS, COMMON, COUNT
from ..text import sizes
from .cache import digest, read_folder, write_folder
from .calling import EVALUATE, PREPARE
from .native import KERNEL_FASTMATH, PARTS, Native, compile_function, file_digest, load, platform_key
from .signature import Signature


@dataclass(frozen=True)
class Entry:
    """The two functions of a kernel, how much memory they need, and the text they were made from.

    `accumulate`: the kernel adds to `out`, which its caller has zeroed. `common` is the entry of what the members of a
    family have in common, which `evaluate.ready` runs before (common.py). `reads`: the variables, weights and data on
    which what it writes depends, by generated name.
    """

    kind: str
    evaluate: Native
    prepare: Native
    prepared: sizes.Size
    scratch: sizes.Size
    out: sizes.Size
    source: str
    failures: list[Exception] = field(default_factory=list)  # what an interpreter could not raise through C
    common: Entry | None = None
    reads: tuple[str, ...] = ()

    @property
    def accumulate(self) -> bool:
        return self.kind in ADJOINTS

    def needs(self, inputs: Inputs) -> tuple[int, int, int]:
        """Numbers that `prepare` writes, that `evaluate` needs as working memory, and that it writes (one point)."""
        known = inputs.plan.needs.get(self.kind)
        if known is None:
            known = self.prepared_size(inputs), self.scratch_size(inputs), self.out_size(inputs)
            inputs.plan.needs[self.kind] = known
        return known

    def prepared_size(self, inputs: Inputs) -> int:
        """Numbers that `prepare` writes."""
        return sizes.value(self.prepared, inputs.sizes) if self.prepared else 0

    def scratch_size(self, inputs: Inputs, count: int = 0) -> int:
        """Numbers of working memory that `evaluate` needs; `count` points for `many_values`."""
        return sizes.value(self.scratch, {**inputs.sizes, COUNT: count} if self.kind == "many_values" else inputs.sizes)

    def out_size(self, inputs: Inputs) -> int:
        """Numbers that `evaluate` writes for one instance (for one point of `many_values`)."""
        return 1 if self.kind == "many_values" else sizes.value(self.out, inputs.sizes)


# ---------------------------------------------------------------------------------------------- compiled


FUNCTIONS = {"evaluate": EVALUATE, "prepare": PREPARE}


def kernel_key(energy: Energy, kind: str) -> str:
    """The name of the folder in the cache that holds a kernel."""
    return digest("kernel", energy.key, kind, *compiler_sources(), *platform_key())


def compiled_entry(energy: Energy, kind: str) -> Entry:
    """The entry of an energy in machine code."""
    key = kernel_key(energy, kind)
    names = tuple(f"{f}.{part}" for f in FUNCTIONS for part in PARTS)
    kept = is_hashable(energy)
    parts = read_folder(key, ("source", "sizes", *names)) if kept else None
    if parts is not None:
        evaluate, prepare = (load({p: parts[f"{f}.{p}"] for p in PARTS}, s) for f, s in FUNCTIONS.items())
        if evaluate is not None and prepare is not None:
            *needs, reads_common, reads = json.loads(parts["sizes"])
            prepared, scratch, out = map(sizes.from_json, needs)
            common = compiled_entry(energy, COMMON + kind) if reads_common else None
            source = parts["source"].decode()
            return Entry(
                kind, evaluate, prepare, prepared, scratch, out, source, common=common, reads=tuple(reads)
            )  # fmt: skip
    from ..derive import compile_text  # here, as all passes: what is in the cache does not need them

    emitted = compile_text(energy, kind)
    functions = functions_of(emitted.source, f"<wiberg kernel {key[:12]}>")
    stored: dict[str, bytes] = {
        "source": emitted.source.encode(),
        "sizes": json.dumps(
            [
                *map(sizes.to_json, (emitted.prepared, emitted.scratch, emitted.out)),
                emitted.reads_common,
                emitted.reads,
            ]
        ).encode(),
    }
    made: dict[str, Native] = {}
    for name, signature in FUNCTIONS.items():
        made[name], own = compile_function(functions[name], signature, fastmath=KERNEL_FASTMATH)
        stored |= {f"{name}.{part}": data for part, data in own.items()}
    if kept:
        write_folder(key, stored)
    return Entry(
        kind, made["evaluate"], made["prepare"], emitted.prepared, emitted.scratch, emitted.out, emitted.source,
        common=compiled_entry(energy, COMMON + kind) if emitted.reads_common else None, reads=emitted.reads,
    )  # fmt: skip


def functions_of(source: str, filename: str) -> dict[str, Callable[..., Any]]:
    """The functions that kernel source defines, for numba."""
    from ..passes.user_functions import compiled_functions
    from ..text.tiles import fetch_ahead, tile_end, tiles
    from . import vectormath
    from .pointers import double_pointer_at, integer_pointer_at, separate, shifted

    namespace: dict[str, Any] = {
        **vectormath.kernel_namespace(), "math": math, "np": np, "shifted": shifted, "separate": separate,
        "double_pointer_at": double_pointer_at, "integer_pointer_at": integer_pointer_at, "__name__": "wiberg.kernel",
        "tiles": tiles, "tile_end": tile_end, "fetch_ahead": fetch_ahead,
        **compiled_functions(source),
    }  # fmt: skip
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    exec(compile(source, filename, "exec"), namespace)  # our own text: no name or number of the user is in the code
    return namespace


@cache
def compiler_sources() -> tuple[str, ...]:
    """Digests of every file that decides what a kernel looks like."""
    root = Path(__file__).resolve().parents[2]
    files = sorted([*(root / "compiler").rglob("*.py"), *(root / "energies").glob("*.py")])
    return tuple(f"{f.relative_to(root).as_posix()}:{file_digest(str(f))}" for f in files)


# ---------------------------------------------------------------------------------------------- interpreted


def reference_entry(energy: Energy, kind: str) -> Entry:
    """The entry of an energy run by the interpreter: slow, and needs no compiler."""
    from ..derive import out_size
    from ..program.program import inputs_read

    interpreter = Interpreter(energy, kind)
    failures: list[Exception] = []

    def evaluate(*arguments: int) -> float:
        try:
            return interpreter.evaluate(*(a or 0 for a in arguments))  # ctypes gives None for a null pointer
        except Exception as error:
            failures.append(error)
            return math.nan

    return Entry(
        kind,
        _callback(EVALUATE, evaluate),
        _callback(PREPARE, lambda *_: 0.0),
        sizes.ZERO_SIZE,
        sizes.ZERO_SIZE,
        out_size(kind, interpreter.program),
        str(interpreter.program),
        failures,
        reads=inputs_read(interpreter.program),
    )


def _callback(signature: Signature, function: Callable[..., float]) -> Native:
    pointer = signature.c_type(function)
    address = ctypes.cast(pointer, ctypes.c_void_p).value
    assert address is not None
    return Native(address, pointer, function)


class Interpreter:
    """`evaluate` of the calling convention, by the interpreter on the memory that the addresses name."""

    def __init__(self, energy: Energy, kind: str) -> None:
        from ..derive import derive, memory

        self.program = derive(energy, kind)
        self.memory = memory(energy, kind, self.program)
        self.accumulate = kind in ADJOINTS

    @cached_property
    def inputs(self) -> list[Any]:
        return [a for a in self.program.arrays.values() if a.role not in ("local", "output")]

    def evaluate(
        self, y: int, v: int, table: int, extents: int, instance: int, prepared: int, scratch: int, out: int
    ) -> float:
        if self.program.family:
            address = int(_memory(table + 16 * self.memory.chosen_row, 1, np.int64)[0])
            instance = int(_memory(address + 8 * instance, 1, np.int64)[0]) if address else instance
        names = self.program.extents
        counts = dict(zip(names, map(int, _memory(extents, len(names), np.int64)), strict=True))
        for index, limits in reversed(tuple(self.program.family.items())):
            instance, counts[index] = divmod(instance, sizes.value(sizes.size_of(limits.stop), counts))
        values = {}
        for array in self.inputs:
            shape = tuple(sizes.value(sizes.size_of(a.stop), counts) for a in array.axes)
            length = math.prod(shape)
            kind = np.int64 if array.integer else np.float64
            if array.role in ("variable", "direction"):
                offset = sizes.value(self.memory.variables[array.name], counts)
                values[array.name] = self._variable(
                    array.name, y if array.role == "variable" else v, offset, shape, counts
                )
            else:
                row = self.memory.table[array.name]
                address, distance = map(int, _memory(table + 16 * row, 2, np.int64))
                values[array.name] = _memory(address + 8 * distance * instance, length, kind).reshape(shape)
        from ..program.reference import interpret

        results = interpret(self.program, values, counts)
        self._write(results, out, counts)
        value = results.get("value", np.float64(0.0))
        return float(value) if np.ndim(value) == 0 else 0.0

    def _variable(self, name: str, address: int, offset: int, shape: tuple[int, ...], counts: Mapping[str, int]) -> Any:
        if name not in self.memory.rows:
            return _memory(address + 8 * offset, math.prod(shape), np.float64).reshape(shape)
        row = sizes.value(self.memory.rows[name], counts)
        points = _memory(address, shape[0] * row, np.float64).reshape(shape[0], row)
        return points[:, offset : offset + math.prod(shape[1:])].reshape(shape)

    def _write(self, results: Mapping[str, Any], out: int, counts: Mapping[str, int]) -> None:
        for name, place in self.memory.outputs.items():
            if name == "value" and not place.blocks:
                continue
            result = np.asarray(results[name])
            positions: Any = np.full(result.shape, sizes.value(place.offset, counts))
            start = 0
            for rank, distance in place.blocks:
                axes = result.shape[start : start + rank]
                flat = np.arange(math.prod(axes)).reshape(axes) * sizes.value(distance, counts)
                positions = positions + flat.reshape((1,) * start + axes + (1,) * (result.ndim - start - rank))
                start += rank
            if not result.size:
                continue
            target = _memory(out, int(positions.max()) + 1, np.float64)
            if self.accumulate:
                target[positions.ravel()] += result.ravel()
            else:
                target[positions.ravel()] = result.ravel()
        if self.memory.mirror is not None:
            offset, order = (sizes.value(s, counts) for s in self.memory.mirror)
            matrix = _memory(out + 8 * offset, order * order, np.float64).reshape(order, order)
            lower = np.tril_indices(order, -1)
            matrix[lower] = matrix.T[lower]


def _memory(address: int, length: int, kind: Any) -> Any:
    """The numbers at an address, as an array that shares them."""
    if length == 0:
        return np.empty(0, dtype=kind)
    buffer = (ctypes.c_char * (8 * length)).from_address(address)
    return np.frombuffer(memoryview(buffer), dtype=kind, count=length)
