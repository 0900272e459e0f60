"""Kernels made by hand, so that the runtime is tested without the compiler.

A zoo of energies of a few unknowns is one kernel: its data say which member an instance minimises, and its units.

    E(y) = scale * member(unit * y) + offset,      c = (which member, unit, scale, offset)

Derivatives are SymPy's. `quadratic` is (y - a)'A(y - a)/2 of any size.
"""

import math
import types

import numpy as np
import pytest
import sympy as sp

from wiberg.compiler.calling import EVALUATE, PREPARE, call_evaluate, double_pointer_at, shifted
from wiberg.compiler.native import digest, native_from_key, platform_key

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
    "pole": -1 / t**2,
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


def compile_source(source, name, signature=EVALUATE, **names):
    def make():
        space = {"math": math, "double_pointer_at": double_pointer_at, "shifted": shifted,
                 "call_evaluate": call_evaluate, **names}
        exec(source, space)
        return space[name]

    key = digest("tests", source, str(signature), *platform_key())
    return native_from_key(key, make, signature)


def zoo_source(members, symbols):
    lines = [HEADER.format(name="zoo"), "    c = double_pointer_at(table[0] + 8 * table[1] * instance)\n",
             "    kind, unit, scale, offset = c[0], c[1], c[2], c[3]\n    f = math.nan\n",
             "    if not extents[1] == 0:\n        unit *= prepared[0]\n"]
    size = len(symbols)
    for i, symbol in enumerate(symbols):
        lines.append(f"    {symbol} = unit * y[{i}]\n")
    for number, member in enumerate(members.values()):
        lines.append(f"    {'if' if number == 0 else 'elif'} kind == {number}.0:\n")
        gradient = [member.diff(s).doit() for s in symbols]
        hessian = [g.diff(s).doit().replace(sp.DiracDelta, lambda *_: sp.Integer(0)) for g in gradient for s in symbols]
        for target, value in zip(["f", *(f"out[{i}]" for i in range(size + size * size))],
                                 [member, *gradient, *hessian], strict=True):
            lines.append(f"        {target} = 1.0 * {sp.pycode(value)}\n")
    lines.append(f"    for i in range({size}):\n        out[i] *= scale * unit\n")
    lines.append(f"    for i in range({size}, {size + size * size}):\n        out[i] *= scale * unit * unit\n")
    lines.append("    return scale * f + offset\n")
    return "".join(lines)


QUADRATIC = HEADER.format(name="quadratic") + """
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

MANY = HEADER.format(name="many") + """
    m, count = extents[0], extents[2]
    for k in range(count):
        out[k] = call_evaluate(ADDRESS, shifted(y, k * m), v, table, extents, instance, prepared, scratch, scratch)
    return 0.0
"""

PREPARED = """
def prepare(table, extents, instance, prepared):
    prepared[0] = 2.0 * double_pointer_at(table[2] + 8 * table[3] * instance)[0]
    return 0.0
"""


class Layout:
    def __init__(self, names, shapes):
        self.names, self.shapes = names, shapes

    def pack(self, values):
        return np.concatenate([np.asarray(values[n], float) for n in self.names], axis=-1)

    def unpack(self, array):
        return {"y": array}


class Entry:
    def __init__(self, evaluate, prepare, prepared, out):
        self.evaluate, self.prepare, self._prepared, self._out = evaluate, prepare, prepared, out

    def prepared_size(self, inputs):
        return self._prepared if inputs.extents[1] else 0

    def scratch_size(self, inputs):
        return inputs.m + inputs.m**2

    def out_size(self, inputs):
        return self._out(inputs.m)


class HandKernel:
    """A kernel of one variable y (m,), a weight s () that multiplies the unit by 2 s if given, and data arrays."""

    name = "hand"

    def __init__(self, evaluate, m, data):
        self.m = m
        self.weights, self.data = Layout((), {}), Layout(tuple(data), data)
        self.variables = Layout(("y",), {"y": (m,)})
        self.energy = types.SimpleNamespace(candidates={}, shapes={"y": (1,), **{k: (1,) * r for k, r in data.items()}})
        prepare = compile_source(PREPARED, "prepare", PREPARE)
        many = compile_source(MANY.replace("ADDRESS", str(evaluate.address)), "many")
        self.entries = {
            "value": Entry(evaluate, prepare, 1, lambda m: m + m * m),
            "value_gradient_hessian": Entry(evaluate, prepare, 1, lambda m: m + m * m),
            "many_values": Entry(many, prepare, 1, None),
        }

    def entry(self, name):
        return self.entries[name]

    def bind(self, w, x):
        rows, batch = [], None
        arrays = [np.ascontiguousarray(x[name], float) for name in self.data.names]
        scale = np.asarray((w or {}).get("s", 0.0), float)
        for array, rank in [*zip(arrays, self.data.shapes.values(), strict=True), (scale, 0)]:
            batched = array.ndim > rank
            batch = len(array) if batched else batch
            rows.append((array.ctypes.data, array[0].size if batched and len(array) else 0))
        m = self.m or arrays[0].shape[-1]
        extents = np.array([m, 1 if w else 0], np.int64)
        return types.SimpleNamespace(table=np.array(rows, np.int64), extents=extents, batch=batch, m=m, p=1,
                                     weights_batched=scale.ndim > 0, keep=(arrays, scale))

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
    return HandKernel(compile_source(QUADRATIC, "quadratic"), None, {"a": 1, "A": 2})
