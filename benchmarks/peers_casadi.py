"""The peer: CasADi as its experts use it. A graph, its derivatives, C code of them, compiled by gcc.

An energy is a formula of one instance; CasADi differentiates it and writes one C function for value, gradient and
Hessian: of a graph of scalars (SX), with every sum unrolled, or of matrices (MX); the faster one counts. The loop over
the batch is C, too, in the same file: arrays are passed as pointers and nothing is copied. `gcc -O3 -march=native`,
without -ffast-math, under which NaN and infinity lose their meaning.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import casadi as ca
import numpy as np
from numpy.typing import NDArray
from workloads import Workload

Floats = NDArray[np.float64]
FLAGS = ("-O3", "-march=native", "-fPIC", "-shared")

LOOP = """
#include <stdlib.h>
/* `arrays` holds the first instance of each input, `strides` how far the next one lies; 0: all share it. */
int over_batch(casadi_int size, casadi_int inputs, const double **arrays, const casadi_int *strides,
               double *value, double *gradient, double *hessian, casadi_int unknowns) {
  casadi_int needed[4];
  evaluate_work(needed, needed + 1, needed + 2, needed + 3);
  const double **arguments = malloc((needed[0] + 1) * sizeof(double *));
  double **results = malloc((needed[1] + 1) * sizeof(double *));
  casadi_int *integers = malloc((needed[2] + 1) * sizeof(casadi_int));
  double *scratch = malloc((needed[3] + 1) * sizeof(double));
  int failed = 0;
  for (casadi_int b = 0; b < size; b++) {
    for (casadi_int k = 0; k < inputs; k++) arguments[k] = arrays[k] + b * strides[k];
    results[0] = value + b;
    results[1] = gradient + b * unknowns;
    results[2] = hessian + b * unknowns * unknowns;
    failed |= evaluate(arguments, results, integers, scratch, 0);
  }
  free(arguments); free(results); free(integers); free(scratch);
  return failed;
}
"""


# ---------------------------------------------------------------------------------------------- energies
# Arrays come as one column, C order; CasADi reshapes by columns, so a matrix is made as its transpose.


def ransac(y: Any, w: Any, x: Any) -> Any:
    return -ca.sum1(ca.exp(-(((x["x"] - y) / w["sigma"]) ** 2)))


def fusion(y: Any, w: Any, x: Any) -> Any:
    count = w["alpha"].numel()
    s, c = (ca.reshape(a, 2, count) for a in (w["s"], x["c"]))
    distance2 = ca.sum1((s * c - ca.repmat(y, 1, count)) ** 2).T
    return -ca.sum1(ca.exp(w["alpha"] + w["beta"] * x["t"] - distance2 * ca.exp(-2 * w["log_sigma"])))


def pose(a: Any, w: Any, x: Any) -> Any:
    bases = a.numel()
    joints = w["B"].numel() // (3 * bases)
    cameras = w["omega"].numel() // joints
    shape = ca.reshape(ca.mtimes(ca.reshape(w["B"], 3 * joints, bases), a), 3, joints)
    P = ca.reshape(w["P"], 3, 2 * cameras).T
    seen = ca.horzcat(*[ca.mtimes(P[2 * c : 2 * c + 2, :], shape) for c in range(cameras)])
    r2 = ca.sum1((ca.reshape(x["X"], 2, cameras * joints) - seen) ** 2).T
    fit = ca.sum1(w["omega"] ** 2 * w["delta"] ** 2 * (ca.sqrt(1 + r2 / w["delta"] ** 2) - 1))
    return fit + ca.sumsqr(w["sigma"] * (a - x["m"])) / 2


ENERGIES = {"W1": ransac, "W2": fusion, "W3": pose}
GRAPHS = {"SX": ca.SX, "MX": ca.MX}


# ---------------------------------------------------------------------------------------------- batches


def compiler() -> str | None:
    return shutil.which(os.environ.get("CC", "gcc"))


@dataclass(frozen=True)
class Input:
    """One array of an energy: its numbers, flat, and how many belong to an instance; 0 steps: all share them."""

    name: str
    numbers: Floats
    size: int
    step: int


def inputs_of(work: Workload, role: str) -> list[Input]:
    found = []
    for name, given in getattr(work, role).items():
        array = np.ascontiguousarray(given, float)
        batched = role == "point" or (role == "data" and array.ndim > 0 and len(array) == work.size)
        size = array.size // work.size if batched else array.size
        found.append(Input(name, array.ravel(), size, size if batched else 0))
    return found


class Peer:
    """The compiled function of one workload, from a graph of GRAPHS.

    Attributes
    ----------
    seconds : dict
        What "derivatives", "C code" and "gcc" took, in seconds.
    kib : float
        The size of the C code.
    """

    def __init__(self, work: Workload, graph: str) -> None:
        self.work, self.graph = work, GRAPHS[graph]
        self.roles = [inputs_of(work, role) for role in ("point", "weights", "data")]
        self.inputs = [item for role in self.roles for item in role]
        self.unknowns = self.inputs[0].size
        self.seconds: dict[str, float] = {}
        with tempfile.TemporaryDirectory() as folder:
            self.library = self._built(Path(folder))

    def _timed(self, what: str, begin: float) -> None:
        self.seconds[what] = time.perf_counter() - begin

    def _built(self, folder: Path) -> Any:
        begin = time.perf_counter()
        symbols = [{item.name: self.graph.sym(item.name, item.size) for item in role} for role in self.roles]
        (y,) = symbols[0].values()
        value = ENERGIES[self.work.name](y, *symbols[1:])
        hessian, gradient = ca.hessian(value, y)
        outputs = [value, ca.densify(gradient), ca.densify(hessian)]
        function = ca.Function("evaluate", [symbol for role in symbols for symbol in role.values()], outputs)
        self._timed("derivatives", begin)

        begin = time.perf_counter()
        generator = ca.CodeGenerator("peer.c")
        generator.add(function)
        code = generator.dump() + LOOP
        source, binary = folder / "peer.c", folder / "peer.so"
        source.write_text(code)
        self.kib = len(code) / 1024
        self._timed("C code", begin)

        begin = time.perf_counter()
        subprocess.run([str(compiler()), *FLAGS, str(source), "-o", str(binary), "-lm"], check=True)
        self._timed("gcc", begin)
        return ctypes.CDLL(str(binary))

    def value_gradient_hessian(self) -> Callable[[], tuple[Floats, Floats, Floats]]:
        count, size, m = len(self.inputs), self.work.size, self.unknowns
        arrays = (ctypes.c_void_p * count)(*[item.numbers.ctypes.data for item in self.inputs])
        steps = (ctypes.c_longlong * count)(*[item.step for item in self.inputs])
        run = self.library.over_batch
        run.argtypes = [ctypes.c_longlong] * 2 + [ctypes.c_void_p] * 5 + [ctypes.c_longlong]

        def call() -> tuple[Floats, Floats, Floats]:
            value, gradient, hessian = np.empty(size), np.empty((size, m)), np.empty((size, m, m))
            failed = run(size, count, arrays, steps, *(a.ctypes.data for a in (value, gradient, hessian)), m)
            assert not failed
            return value, gradient, hessian

        return call
