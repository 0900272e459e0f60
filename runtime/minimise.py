"""`minimise`: the minimiser of an energy for every instance of a batch."""

from __future__ import annotations

import ctypes
import operator
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.evaluate import Prepared
from ..compiler.threads import run_slices
from ..energies.errors import InputError, InputTypeError, nearest
from .finite import check_finite, finite_instances
from .seeding import Counted, Seeds, declared_seeds, given_seeds
from .solution import Solution
from .trust_region import FIELDS, NOT_FINITE, minimise_slice, workspace_size

METHODS = ("trust-region", "l-bfgs", "newton-cg")
OPTIONS = ("start", "candidates", "method", "gtol", "max_iterations", "check")
HINTS = {
    "constraints": "a penalty belongs in the energy",
    "bounds": "this version minimises without bounds",
    "tol": "gtol= bounds the infinity norm of the gradient",
    "maxiter": "max_iterations=",
    "x0": "start={...}",
}

_Problem = struct.Struct(f"={FIELDS}q")


def minimise(kernel: Any, w: Mapping[str, Any] | None = None, x: Mapping[str, Any] | None = None, *,
             start: Mapping[str, Any] | Solution | None = None, candidates: Mapping[str, Any] | None = None,
             method: str = "trust-region", gtol: float = 1e-8, max_iterations: int = 100, check: bool = True,
             **unknown: Any) -> Solution:
    """Minimise the energy over its variables, for every instance of a batch.

    Newton's method with an exact trust region (see trust_region.py), compiled, on as many threads as `set_threads`
    allows. The result of an instance has the same bits in any batch and on any number of threads.

    Parameters
    ----------
    kernel : Kernel
        From `wb.compile`.
    w, x : dict of array_like
        Weights and data; one axis more than declared is a batch axis.
    start : dict of array_like or Solution
        Where to start, shapes as declared or with a batch axis.
    candidates : dict of array_like
        One axis more than declared (shared by all instances) or two (batched): each instance starts from the one of
        lowest energy. Without `start` and `candidates` those that the energy declares are used.
    method : {'trust-region'}
    gtol : float
        The infinity norm of the gradient at which an instance is done.
    max_iterations : int
        Steps that may be tried; 0 returns the start.
    check : bool
        True: NaN or infinity in weights or data raises. False: such instances end as NOT_FINITE.

    Returns
    -------
    Solution

    Raises
    ------
    InputError, InputTypeError, NameMissingError
        If an argument does not fit; it says which.
    """
    _check_options(method, gtol, max_iterations, unknown)
    inputs = kernel.bind(w, x)
    finite = None
    if check:
        check_finite(kernel, inputs, w, x)
    else:
        finite = finite_instances(kernel, inputs, w, x)
    seeds, packed, batch = _start(kernel, inputs, start, candidates)
    rows = 1 if batch is None else batch
    y = np.empty((rows, inputs.m))
    if packed is not None:
        y[:] = packed
    elif finite is not None:
        y[:] = np.nan
    energies, reals, integers = np.empty(rows), np.empty((rows, 2)), np.empty((rows, 3), np.int64)
    begin = None if finite is None else y.copy()
    _run(kernel, inputs, seeds, y, energies, reals, integers, float(gtol), int(max_iterations))
    if finite is not None and begin is not None:
        bad = np.broadcast_to(~finite, rows)
        y[bad], reals[bad], integers[bad] = begin[bad], np.nan, (0, 0, NOT_FINITE)
    return Solution(kernel, None if w is None else dict(w), None if x is None else dict(x), inputs, y,
                    batch is not None, float(gtol), energies, reals, integers)


def _check_options(method: Any, gtol: Any, max_iterations: Any, unknown: Mapping[str, Any]) -> None:
    for name in unknown:
        hint = f" ({HINTS[name]})" if name in HINTS else nearest(name, OPTIONS)
        raise InputTypeError(f"minimise: no option '{name}'{hint}; options: {', '.join(OPTIONS)}")
    if method != "trust-region":
        if method in METHODS:
            raise InputError(f"minimise: method '{method}' is not in this version; it has 'trust-region'")
        raise InputError(f"minimise: unknown method {method!r}; one of {', '.join(map(repr, METHODS))}"
                         f"{nearest(str(method), METHODS)}")
    try:
        fits = 0.0 < gtol < np.inf
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise InputError(f"minimise: gtol must be a finite number > 0 (got {gtol!r})")
    try:
        fits = operator.index(max_iterations) >= 0
    except TypeError:
        fits = False
    if not fits:
        raise InputError(f"minimise: max_iterations must be an integer >= 0 (got {max_iterations!r}); 0 returns the "
                         "start, status ITERATION_LIMIT")


def _start(kernel: Any, inputs: Any, start: Any,
           candidates: Any) -> tuple[Seeds | None, NDArray[np.float64] | None, int | None]:
    """Candidates or packed start, and the batch size of all (None: nothing is batched)."""
    if start is not None and candidates is not None:
        raise InputError("minimise: give start={...} or candidates={...} (got both); candidates have one axis more, "
                         "after the batch axis")
    if start is not None:
        if isinstance(start, Solution):
            start = start.variables
        packed, batched = kernel.bind_variables(start, inputs)
        batch = inputs.batch
        if batched and (batch is None or batch == 1):
            batch = len(packed)
        return None, packed, batch
    if candidates is not None:
        seeds = given_seeds(kernel, candidates, inputs)
        return seeds, None, inputs.batch if seeds.batch is None else seeds.batch
    if not kernel.energy.candidates:
        raise InputError("minimise: give start={...} or candidates={...} (got neither); candidates have one axis "
                         "more, after the batch axis")
    return declared_seeds(kernel, inputs), None, inputs.batch


_byte = ctypes.c_char


def _address(array: NDArray[Any]) -> int:
    """The address of an array of our own; five times as fast as array.ctypes.data."""
    return ctypes.addressof(_byte.from_buffer(array.data)) if array.size else 0


def _run(kernel: Any, inputs: Any, seeds: Seeds | None, y: NDArray[np.float64], energies: NDArray[np.float64],
         reals: NDArray[np.float64], integers: NDArray[np.int64], gtol: float, max_iterations: int) -> None:
    """Run the compiled driver over slices of the batch."""
    derivatives, value = kernel.entry("value_gradient_hessian"), kernel.entry("value")
    keep = [Prepared(derivatives, inputs), Prepared(value, inputs)]
    fields = [*_entry(derivatives, keep[0]), *_entry(value, keep[1])]
    scratch = max(derivatives.scratch_size(inputs), value.scratch_size(inputs))
    count = points = stride = 0
    counted = inputs
    if seeds is None:
        fields += [0] * 8
    else:
        count, ranking = seeds.number, kernel.entry("many_values")
        counted = Counted(inputs, count)
        scratch = max(scratch, ranking.scratch_size(counted))
        if seeds.points is None:
            proposing = kernel.entry("candidates")
            scratch = max(scratch, proposing.scratch_size(inputs))
            keep.append(Prepared(proposing, inputs))
            fields += _entry(proposing, keep[-1])
        else:
            fields += [0] * 4
            points, stride = _address(seeds.points), count * inputs.m if seeds.points.ndim == 3 else 0
        keep.append(Prepared(ranking, counted))
        fields += _entry(ranking, keep[-1])
    problem = ctypes.create_string_buffer(_Problem.size)
    _Problem.pack_into(
        problem, 0, *fields, inputs.table.ctypes.data, inputs.extents.ctypes.data, counted.extents.ctypes.data,
        inputs.m, scratch, points, stride, count, _address(y), _address(energies), _address(reals),
        _address(integers), max_iterations)
    address, call = ctypes.addressof(problem), minimise_slice().call

    def slice_(begin: int, end: int, workspace: int, stop: int) -> None:
        call(address, gtol, begin, end, workspace, stop)

    run_slices(slice_, len(y), key=derivatives.evaluate.address + 2,
               workspace=workspace_size(inputs.m, count, scratch, sum(prepared.own for prepared in keep)))


def _entry(entry: Any, prepared: Prepared) -> tuple[int, int, int, int]:
    return entry.evaluate.address, entry.prepare.address, prepared.address, prepared.own
