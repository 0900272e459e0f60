"""Kernels made by hand, so that the runtime is tested without the compiler.

A zoo of energies of a few unknowns is one kernel: its data say which member an instance minimises, and its units.

    E(y) = scale * member(unit * y) + offset,      c = (which member, unit, scale, offset)

Derivatives are SymPy's. `quadratic` is (y - a)'A(y - a)/2 of any size.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types

import numpy as np
import pytest
import sympy as sp
from wiberg.compiler.calls.evaluate import run_one
from wiberg.compiler.machine_code.calling import EVALUATE, PREPARE, call_evaluate, shifted
from wiberg.compiler.machine_code.native import compile_driver, compile_function
from wiberg.compiler.machine_code.pointers import double_pointer_at
from wiberg.compiler.machine_code.signature import DoublePointer, IntegerPointer

t, u = sp.symbols("t u", real=True)

LINE = {
    "parabola": (t - 3) ** 2,
    "hill": -(t**2),
    "decay": sp.exp(-t),
    "quartic": (t - 2) ** 4,
    "cosine": sp.cos(t),
    "kink": sp.Abs(t),
    "barrier": t - sp.log(t),
    "nowhere": sp.sqrt(-1 - t**2),
    "slope": t,
    "double well": t**4 - t**2,
    "flat": 0 * t,
    "cliff": -sp.exp(t),
    "bump": -sp.exp(-(t**2)),
    "pole": sp.log(sp.Abs(t)),
    "false top": sp.Abs(t) - t**2 / 2,
    "rounding": sp.cos(t) ** 2 + sp.sin(t) ** 2,
}

PLANE = {
    "rosenbrock": (1 - t) ** 2 + 100 * (u - t**2) ** 2,
    "beale": (1.5 - t + t * u) ** 2 + (2.25 - t + t * u**2) ** 2 + (2.625 - t + t * u**3) ** 2,
    "matyas": 0.26 * (t**2 + u**2) - 0.48 * t * u,
    "himmelblau": (t**2 + u - 11) ** 2 + (t + u**2 - 7) ** 2,
    "bowl": t**2 + u**2,
    "saddle": t**2 - u**2,
    "two wells": t**2 - u**2 + u**4,
    "monkey saddle": t**3 - 3 * t * u**2,
    "bounded monkey saddle": t**3 - 3 * t * u**2 + (t**2 + u**2) ** 2,
    "valley": (t - u) ** 2,
    "zakharov": t**2 + u**2 + (t / 2 + u) ** 2 + (t / 2 + u) ** 4,
    "narrow": (1 - t) ** 2 + sp.Float(1e10) * (u - 2) ** 2,
    "nowhere": sp.sqrt(-1 - t**2 - u**2),
    "half": t - sp.log(t) + u**2,
}

HEADER = "def {name}(y, v, table, extents, instance, prepared, scratch, out):\n"


@functools.cache
def compile_source(source, name, signature=EVALUATE):
    space = {"math": math, "double_pointer_at": double_pointer_at}
    exec(source, space)
    return compile_function(space[name], signature)[0]


def zoo_source(members, symbols):
    lines = [
        HEADER.format(name="zoo"),
        "    c = double_pointer_at(table[0] + 8 * table[1] * instance)\n",
        "    kind, unit, scale, offset = c[0], c[1], c[2], c[3]\n    f = math.nan\n",
        "    if not extents[1] == 0:\n        unit *= prepared[0]\n",
    ]
    size = len(symbols)
    for i, symbol in enumerate(symbols):
        lines.append(f"    {symbol} = unit * y[{i}]\n")
    for number, member in enumerate(members.values()):
        lines.append(f"    {'if' if number == 0 else 'elif'} kind == {number}.0:\n")
        gradient = [member.diff(s).doit() for s in symbols]
        hessian = [g.diff(s).doit().replace(sp.DiracDelta, lambda *_: sp.Integer(0)) for g in gradient for s in symbols]
        for target, value in zip(
            ["f", *(f"out[{i}]" for i in range(size + size * size))], [member, *gradient, *hessian], strict=True
        ):
            text = sp.pycode(value).replace("t**(-2)", "1/(t*t)")  # numba raises for 0.0**(-2)
            lines.append(f"        {target} = 1.0 * {text}\n")
    lines.append(f"    for i in range({size}):\n        out[i] *= scale * unit\n")
    lines.append(f"    for i in range({size}, {size + size * size}):\n        out[i] *= scale * unit * unit\n")
    lines.append("    return scale * f + offset\n")
    return "".join(lines)


QUADRATIC = (
    HEADER.format(name="quadratic")
    + """
    n = extents[0]
    a = double_pointer_at(table[0] + 8 * table[1] * instance)
    matrix = double_pointer_at(table[2] + 8 * table[3] * instance)
    energy = 0.0
    for i in range(n):
        s = 0.0
        for j in range(n):
            s += matrix[i * n + j] * (y[j] - a[j])
            out[n + i * n + j] = matrix[i * n + j]
        out[i] = s
        energy += 0.5 * s * (y[i] - a[i])
    return energy
"""
)

POISONED = (
    HEADER.format(name="poisoned")
    + """
    c = double_pointer_at(table[0] + 8 * table[1] * instance)
    c[0] += 1.0
    value = (1.0 - y[0]) ** 2 + 100.0 * (y[1] - y[0] * y[0]) ** 2
    out[0] = -2.0 * (1.0 - y[0]) - 400.0 * y[0] * (y[1] - y[0] * y[0])
    out[1] = 200.0 * (y[1] - y[0] * y[0])
    out[2] = 2.0 - 400.0 * y[1] + 1200.0 * y[0] * y[0]
    out[3] = -400.0 * y[0]
    out[4] = out[3]
    out[5] = 200.0
    if c[1] <= c[0] <= c[2]:
        bad = math.nan if c[4] == 0.0 else c[4] * math.inf
        if c[3] < 0.0:
            value = bad
        else:
            out[int(c[3])] = bad
    return value
"""
)

ADDRESS = 0


def many(
    y: DoublePointer,
    v: DoublePointer,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    scratch: DoublePointer,
    out: DoublePointer,
) -> float:
    m, count = extents[0], extents[2]
    for k in range(count):
        out[k] = call_evaluate(ADDRESS, shifted(y, k * m), v, table, extents, instance, prepared, scratch, scratch)
    return 0.0


def gradient(
    y: DoublePointer,
    v: DoublePointer,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    scratch: DoublePointer,
    out: DoublePointer,
) -> float:
    value = call_evaluate(ADDRESS, y, v, table, extents, instance, prepared, scratch, scratch)
    for i in range(extents[0]):
        out[i] = scratch[i]
    return value


def hessian(
    y: DoublePointer,
    v: DoublePointer,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    scratch: DoublePointer,
    out: DoublePointer,
) -> float:
    m = extents[0]
    call_evaluate(ADDRESS, y, v, table, extents, instance, prepared, scratch, scratch)
    for i in range(m * m):
        out[i] = scratch[m + i]
    return 0.0


def product(
    y: DoublePointer,
    v: DoublePointer,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    scratch: DoublePointer,
    out: DoublePointer,
) -> float:
    m = extents[0]
    call_evaluate(ADDRESS, y, v, table, extents, instance, prepared, scratch, scratch)
    for i in range(m):
        total = 0.0
        for j in range(m):
            total += scratch[m + i * m + j] * v[j]
        out[i] = total
    return 0.0


def compile_around(kernel, address):
    """A kernel that calls the one at an address: `many`, `gradient`, `hessian` or `product`."""
    function = types.FunctionType(kernel.__code__, {**globals(), "ADDRESS": address})
    function.__annotations__ = kernel.__annotations__
    return compile_driver(function, kernel.__name__)[0]


PREPARED = """
def prepare(table, extents, instance, prepared):
    prepared[0] = 2.0 * double_pointer_at(table[2] + 8 * table[3] * instance)[0]
    return 0.0
"""


class Layout:
    def __init__(self, names):
        self.names = names

    def unpack(self, array, sizes=None):
        return {"y": array}


class Entry:
    accumulate, failures, common = False, (), None
    reads = ("y0",)  # what else is not known: nothing is shared

    def __init__(self, evaluate, prepare, written=(1, 2)):
        self.evaluate, self.prepare, self.written = evaluate, prepare, written

    def needs(self, inputs):
        return self.prepared_size(inputs), self.scratch_size(inputs), self.out_size(inputs)

    def prepared_size(self, inputs):
        return 1 if inputs.extents[1] else 0

    def scratch_size(self, inputs, count=0):
        return inputs.m + inputs.m**2

    def out_size(self, inputs):
        return sum(inputs.m**power for power in self.written)


@dataclasses.dataclass
class Inputs:
    arrays: tuple
    batched: tuple
    table: np.ndarray
    extents: np.ndarray
    batch: int | None
    weights_batched: bool
    m: int
    p: int = 1
    sizes: dict = dataclasses.field(default_factory=dict)
    family: tuple = ()
    members: int = 1
    numbers: np.ndarray | None = None
    drivers: dict = dataclasses.field(default_factory=dict)

    @property
    def numbers_address(self) -> int:
        return self.numbers.ctypes.data

    @property
    def table_address(self) -> int:
        return self.table.ctypes.data

    @property
    def extents_address(self) -> int:
        return self.extents.ctypes.data

    def rows(self, rows):
        arrays = tuple(
            np.ascontiguousarray(a[rows]) if b and len(a) != 1 else a
            for a, b in zip(self.arrays, self.batched, strict=True)
        )
        table = self.table.copy()
        table[:, 0] = [a.ctypes.data for a in (*arrays[1:], arrays[0])]
        batch = self.batch if self.batch in (None, 1) else len(np.arange(self.batch)[rows])
        return dataclasses.replace(self, arrays=arrays, table=table, batch=batch)


class HandKernel:
    """A kernel of one variable y (m,), a weight s () that multiplies the unit by 2 s if given, and data arrays."""

    name = "hand"
    quadratic = False

    def __init__(self, evaluate, m, data):
        self.m, self.ranks = m, data
        self.weights, self.data, self.variables = Layout(()), Layout(tuple(data)), Layout(("y",))
        self.energy = types.SimpleNamespace(candidates={})
        self.structure = "dense"
        self.declaration = types.SimpleNamespace(
            variables=[types.SimpleNamespace(name="y", axes=("m",))],
            data=[types.SimpleNamespace(name=name, axes=("m",) * rank) for name, rank in data.items()],
            weights=[types.SimpleNamespace(name="s", axes=(), positive=True)],
        )
        prepare = compile_source(PREPARED, "prepare", PREPARE)
        self.entries = {
            "value": Entry(evaluate, prepare),
            "value_gradient_hessian": Entry(evaluate, prepare),
            "value_gradient": Entry(compile_around(gradient, evaluate.address), prepare, (1,)),
            "hessian": Entry(compile_around(hessian, evaluate.address), prepare, (2,)),
            "hvp": Entry(compile_around(product, evaluate.address), prepare, (1,)),
            "many_values": Entry(compile_around(many, evaluate.address), prepare),
        }

    def entry(self, name):
        return self.entries[name]

    def couplings(self, inputs):
        return None

    def bind(self, w, x, y=None, extra=0):
        """Data come first in the table, then s."""
        values = [*(x[name] for name in self.ranks), (w or {}).get("s", 0.5)]
        arrays = tuple(np.asarray(value, float, order="C") for value in values)
        batched = tuple(a.ndim > rank for a, rank in zip(arrays, [*self.ranks.values(), 0], strict=True))
        batch = next((len(a) for a, b in zip(arrays, batched, strict=True) if b), None)
        table = [(a.ctypes.data, a[0].size if b and len(a) else 0) for a, b in zip(arrays, batched, strict=True)]
        m, rows = self.m or arrays[0].shape[-1], list(zip(arrays, batched, strict=True))
        return Inputs(
            (arrays[-1], *arrays[:-1]),
            (batched[-1], *batched[:-1]),
            np.array(table, np.int64),
            np.array([m, 1 if w else 0], np.int64),
            batch,
            batched[-1],
            m,
            numbers=np.array([(a[0].size if b and len(a) else a.size, a is arrays[-1]) for a, b in rows], np.int64),
        )

    def refuse_too_large(self, inputs):
        pass

    def value_at(self, inputs, y, instance):
        return run_one(self.entry("value"), inputs, y, instance)[0]

    def bind_variables(self, y, inputs):
        array = np.ascontiguousarray(y["y"], float)
        return array.reshape(-1, inputs.m), array.ndim == 2


class Zoo(HandKernel):
    def __init__(self, members, symbols):
        super().__init__(compile_source(zoo_source(members, symbols), "zoo"), len(symbols), {"c": 1})
        self.members = list(members)

    def data_of(self, names, unit=1.0, scale=1.0, offset=0.0):
        """The data of members, (4,) for one name or (B, 4)."""
        kinds = np.vectorize(self.members.index)(np.asarray(names))
        return {"c": np.stack(np.broadcast_arrays(kinds * 1.0, unit, scale, offset), axis=-1)}


@pytest.fixture(scope="session")
def line():
    return Zoo(LINE, [t])


@pytest.fixture(scope="session")
def plane():
    return Zoo(PLANE, [t, u])


@pytest.fixture(scope="session")
def quadratic():
    kernel = HandKernel(compile_source(QUADRATIC, "quadratic"), None, {"a": 1, "A": 2})
    kernel.quadratic = True
    return kernel


@pytest.fixture(scope="session")
def poisoned():
    """Rosenbrock's function; from the evaluation c[1] to the evaluation c[2] its entry c[3] is NaN, inf or -inf."""
    return HandKernel(compile_source(POISONED, "poisoned"), 2, {"c": 1})
