"""The passes from program to program in their order, and numbers to compare programs and expressions by."""

import math
import random
from functools import lru_cache
from typing import Any

import numpy as np
from energies_table import generated
from wiberg.compiler.derive import KINDS, _only, find_structure
from wiberg.compiler.passes.landings import Support
from wiberg.compiler.passes.prepare import hoist, prepare
from wiberg.compiler.passes.products import divide
from wiberg.compiler.passes.share import share
from wiberg.compiler.passes.simplify import factor, forward, inline, merge, prune
from wiberg.compiler.program.expression import Op
from wiberg.compiler.program.primitives import PRIMITIVES
from wiberg.compiler.program.program import Program
from wiberg.compiler.program.reference import interpret
from wiberg.energies.energy import Energy

PASSES = [
    divide, prune, merge, inline, merge, factor, merge, inline, merge, prune, forward, share, prepare, hoist, merge
]  # fmt: skip


def outputs(energy: Energy, program: Program, point: Any, sizes: Any) -> dict[str, Any]:
    """What the program writes at a point of `energies_table.draw`."""
    inputs, extents = generated(energy, program, point, sizes)
    values = interpret(program, inputs, extents)
    return {a.name: values[a.name] for a in program.arrays.values() if a.role == "output"}


POINTWISE_KINDS = [k for k in KINDS if k not in ("many_values", "candidates", "sparse_hvp")]
"""Kinds whose inputs are those of the energy."""


@lru_cache(maxsize=256)
def _support(energy: Energy, derivative: str) -> Support | None:
    return find_structure(energy, derivative).support


def applies(energy: Energy, kind: str) -> bool:
    """Whether the energy has kernels of this kind: sparse ones only where a derivative is sparse."""
    if "sparse" not in kind:
        return True
    return _support(energy, "cross" if "cross" in kind else "hessian") is not None


def same(first: Program, second: Program) -> bool:
    """Whether two programs are written alike, known without writing them: their nodes are the same objects."""
    orders = [[list(part) for part in (p.arrays, p.ranges, p.family)] for p in (first, second)]
    return first == second and orders[0] == orders[1]


def built(energy: Energy, kind: str) -> Program:
    """The program of a kind before any pass."""
    return _only(KINDS[kind].build(energy), KINDS[kind].outputs)


FROZEN = {
    "plus": lambda a, b: a + b, "times": lambda a, b: a * b,
    "sum": lambda *a: math.fsum(a), "product": lambda *a: math.prod(a), "negative": lambda a: -a,
    "reciprocal": lambda a: 1 / a, "sqrt": np.sqrt, "add": lambda *a: math.fsum(a), "mul": lambda *a: math.prod(a),
}  # fmt: skip


def number_of(node: Op, memo: dict[Op, Any]) -> Any:
    """The value of an expression, frozen or not, where every read and index is a number drawn for it."""
    if node not in memo:
        if node.name == "number":
            memo[node] = float(node.args[0])
        elif node.name in ("true", "false"):
            memo[node] = node.name == "true"
        elif node.name in ("read", "affine"):
            memo[node] = random.Random(node.digest).uniform(0.3, 1.6)
        elif node.name == "power":
            memo[node] = number_of(node.args[0], memo) ** float(node.args[1])
        else:
            arguments = [number_of(a, memo) for a in node.args]
            function = FROZEN.get(node.name) or PRIMITIVES[node.name].numpy
            memo[node] = function(*arguments)
    return memo[node]
