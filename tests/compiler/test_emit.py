"""The text of kernels: it runs as plain Python with the interpreter's numbers and inside its memory, and is inert."""

import ast
import bisect
import io
import math
import os
import subprocess
import sys
import tokenize
from pathlib import Path

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from energies_table import TABLE, draw
from passes import applies
from wiberg.compiler.calls.evaluate import run
from wiberg.compiler.derive import COUNT, KINDS, compile_text
from wiberg.compiler.machine_code.vectormath import plain_namespace
from wiberg.compiler.text import sizes, tiles

# ---------------------------------------------------------------------------------------------- plain Python


class Pointer:
    """A pointer into an array, which refuses to leave it."""

    def __init__(self, array, offset=0):
        self.array, self.offset = array, int(offset)

    def __getitem__(self, k):
        assert 0 <= self.offset + k < self.array.size, "read outside of the array"
        return self.array[self.offset + k].item()

    def __setitem__(self, k, value):
        assert 0 <= self.offset + k < self.array.size, "write outside of the array"
        self.array[self.offset + k] = value

    def shifted(self, count):
        return Pointer(self.array, self.offset + count)


class Memory:
    """The arrays that the addresses of a table name."""

    def __init__(self, arrays):
        self.arrays = sorted(((a.ctypes.data, a.ravel()) for a in arrays if a.size), key=lambda item: item[0])
        self.starts = [start for start, _ in self.arrays]

    def at(self, address):
        if not self.starts:
            return Pointer(np.empty(0))
        start, array = self.arrays[max(0, bisect.bisect_right(self.starts, address) - 1)]
        return Pointer(array, (address - start) // 8)


def run_plainly(source, memory, *arguments, name="evaluate"):
    namespace = {
        "math": math, "np": np, "shifted": lambda p, k: p.shifted(k), "separate": lambda p, scope, count: p,
        "double_pointer_at": memory.at, "integer_pointer_at": memory.at, **plain_namespace(),
        **tiles.plain_namespace(),
    }  # fmt: skip
    exec(source, namespace)
    return namespace[name](*arguments)


def plain_results(kernel, kind, point, *, count=1):
    """(value, out) of one instance by the text of a kernel as plain Python; memory begins as NaN."""
    y, w, x = point
    inputs = kernel.bind(w, x, y if kind != "many_values" else {n: v[0] for n, v in y.items()})
    packed = np.array(kernel.variables.pack(y)).ravel()
    direction = np.random.default_rng(3).standard_normal(inputs.m)
    emitted = compile_text(kernel.energy, kind)
    extents, known = inputs.extents, inputs.sizes
    if kind == "many_values":
        extents, known = np.append(extents, count), {**known, COUNT: count}
    memory = Memory(inputs.arrays)
    prepared, scratch, out = (
        np.full(sizes.value(s, known), np.nan) for s in (emitted.prepared, emitted.scratch, emitted.out)
    )
    if KINDS[kind].accumulate:
        out[:] = 0.0
    table, extents = Pointer(inputs.table.ravel()), Pointer(extents)
    run_plainly(emitted.source, memory, table, extents, 0, Pointer(prepared), name="prepare")
    value = run_plainly(
        emitted.source,
        memory,
        Pointer(packed),
        Pointer(direction),
        table,
        extents,
        0,
        Pointer(prepared),
        Pointer(scratch),
        Pointer(out),
    )
    return value, out, packed, direction, inputs


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("many_values", "candidates", "sparse_hvp")])
def test_the_text_as_plain_python_has_the_numbers_of_the_interpreter(name, kind, references):
    kernel = references[name]
    if not applies(kernel.energy, kind):
        pytest.skip("this derivative is dense")
    value, out, packed, direction, inputs = plain_results(kernel, kind, draw(kernel.energy, 3))
    values, expected = run(kernel.entry(kind), inputs, packed[None], direction[None])
    if "sparse" in kind:  # slots that no piece lands in are not written
        out = np.where(np.isnan(out), expected[0], out)
    np.testing.assert_allclose(out, expected[0], rtol=1e-11, atol=1e-12)
    if "value" in KINDS[kind].outputs:
        assert value == pytest.approx(values[0], rel=1e-12)


@pytest.mark.parametrize("name", TABLE)
def test_many_values_as_plain_python_are_the_values_of_the_points(name, references):
    kernel, count = references[name], 3
    y, w, x = draw(kernel.energy, 3, batch=count, shared="weights data")
    _, out, *_ = plain_results(kernel, "many_values", (y, w, x), count=count)
    expected = [kernel.value({n: v[k] for n, v in y.items()}, w, x) for k in range(count)]
    np.testing.assert_allclose(out, expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["ransac", "fusion"])
def test_candidates_as_plain_python_are_those_declared(name, references):
    kernel = references[name]
    y, w, x = draw(kernel.energy, 4)
    _, out, *_ = plain_results(kernel, "candidates", (y, w, x))
    expected = x["x"] if name == "ransac" else (w["s"] * x["c"]).ravel()
    np.testing.assert_allclose(out, expected, rtol=1e-14)


# ---------------------------------------------------------------------------------------------- the text


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_opens_with_what_it_computes_and_the_energy(kind):
    lines = compile_text(TABLE["fusion"](), kind).source.splitlines()
    assert lines[0] == f"# {KINDS[kind].meaning}; energy:"
    assert lines[1].startswith("#   ") and "exp(" in lines[1]


def test_the_legend_names_every_symbol_of_the_user():
    header = [line for line in compile_text(TABLE["pose"](), "value").source.splitlines() if line.startswith("#")]
    for symbol in ("a", "B", "omega", "sigma", "P", "delta", "m", "X"):
        assert any(line.endswith(f" {symbol}") for line in header), symbol
    for extent in "CJK":
        assert any(line.endswith(f"extent {extent}") for line in header)


def test_every_loop_nest_says_what_it_computes():
    lines = compile_text(TABLE["pose"](), "gradient").source.splitlines()
    outermost = [k for k, line in enumerate(lines) if line.startswith("    for ")]
    assert outermost
    begins = [max(j for j in range(k) if lines[j].startswith("    #")) for k in outermost]
    assert all(lines[j].strip("# ") for j in begins)


@pytest.mark.parametrize("kind", ["value", "gradient", "hessian", "many_values"])
def test_the_length_of_the_text_does_not_grow_with_a_literal_extent(kind):
    def length(size):
        y, d = sp.IndexedBase("y", shape=(size,)), sp.Idx("d", size)
        energy = wb.Energy(sp.Sum(sp.exp(-(y[d] ** 2)), d), variables=[y])
        return len(compile_text(energy, kind).source.splitlines())

    assert length(10) == length(100_000)


SCRIPT = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from energies_table import TABLE
from wiberg.compiler.derive import KINDS, compile_text
for name in sys.argv[2:]:
    energy = TABLE[name]()
    for kind in KINDS:
        if kind != "candidates" or energy.candidates:
            print(name, kind, hashlib.sha256(compile_text(energy, kind).source.encode()).hexdigest())
"""


def test_the_text_is_the_same_to_the_byte_in_every_process():
    names = ["fusion", "pose", "lets", "springs", "cross_blocks", "conditions", "denoise"]
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parents[1]), *names]
    running = [subprocess.Popen(command, env={**os.environ, "PYTHONHASHSEED": seed}, stdout=subprocess.PIPE, text=True)
               for seed in ("0", "31")]  # fmt: skip
    first, second = (process.communicate()[0] for process in running)
    assert first.splitlines() == second.splitlines() and len(first.splitlines()) >= 70


# ---------------------------------------------------------------------------------------------- hostile names

HOSTILE = ['__import__("os").system("x")', "lambda", "E+1", "\N{PILE OF POO}", "x\nimport os", "a\\", '"""', "y0", "#",
           "\N{RIGHT-TO-LEFT OVERRIDE}t", "out", "x\rimport os", "x\u2028import os"]  # fmt: skip


def hostile_energy(name):
    t = sp.Symbol(name, real=True)
    w = sp.Symbol(name + "w", real=True)
    return wb.Energy(w * t**2 + t, variables=[t], weights=[w])


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_never_reaches_the_code(name):
    source = compile_text(hostile_energy(name), "value_gradient_hessian").source
    assert source.isascii()
    assert "import" not in {token.string for token in tokenize.generate_tokens(io.StringIO(source).readline)
                            if token.type != tokenize.COMMENT}  # fmt: skip
    names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    expected = compile_text(hostile_energy("t"), "value_gradient_hessian").source
    assert names == {node.id for node in ast.walk(ast.parse(expected)) if isinstance(node, ast.Name)}
    assert not [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant) and
                isinstance(node.value, str)]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_appears_escaped_on_one_line_of_the_legend(name):
    source = compile_text(hostile_energy(name), "value").source
    (line,) = [line for line in source.split("\n") if line.startswith("#   y0: variable ")]
    assert line == f"#   y0: variable {ascii(name)[1:-1]}"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_the_name_in_the_api(name):
    kernel = wb.compile(hostile_energy(name), backend="reference")
    assert kernel.value({name: 2.0}, {name + "w": 3.0}) == 14.0


def test_deeply_nested_formulas_compile():
    t = sp.Symbol("t", real=True)
    nested = t
    for _ in range(120):
        nested = sp.sin(nested) + t
    energy = wb.Energy(nested**2, variables=[t])
    expected = wb.compile(energy, backend="reference").value({"t": 0.1})
    assert wb.compile(energy).value({"t": 0.1}) == pytest.approx(expected, rel=1e-12)
