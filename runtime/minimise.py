"""`minimise`: the minimiser of an energy for every instance of a batch."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..energies.errors import InputError, InputTypeError, nearest
from .checks import check_finite, check_positive, finite_instances
from .descend import NOT_FINITE
from .driver import declared_seeds
from .methods import METHODS
from .problem import Problem
from .seeding import Seeds, given_seeds
from .solution import Solution

OPTIONS = ("start", "candidates", "method", "gtol", "max_iterations", "check", "reweightings")
HINTS = {
    "constraints": "a penalty belongs in the energy",
    "bounds": "this version minimises without bounds",
    "tol": "gtol= bounds the infinity norm of the gradient",
    "maxiter": "max_iterations=",
    "x0": "start={...}",
}


def minimise(
    kernel: Any,
    w: Mapping[str, Any] | None = None,
    x: Mapping[str, Any] | None = None,
    *,
    start: Mapping[str, Any] | Solution | None = None,
    candidates: Mapping[str, Any] | None = None,
    method: str = "trust-region",
    gtol: float = 1e-8,
    max_iterations: int = 100,
    check: bool = True,
    reweightings: int | None = None,
    **unknown: Any,
) -> Solution:
    """Minimise the energy over its variables, for every instance of a batch.

    Newton's method with an exact trust region (see descend.py), compiled, on as many threads as `set_threads`
    allows. Over more than 200 unknowns with a sparse Hessian, steps are made by conjugate gradients (newton_cg.py) and
    `curvature` is a lower bound. The result of an instance has the same bits in any batch and on any number of threads.

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
        lowest energy (exponentials are ranked to 1e-8, so candidates closer than that count as equal). Without
        `start` and `candidates` those that the energy declares are used.
    method : {'trust-region', 'irls'}
        'irls': iteratively reweighted least squares, for energies that are constants, squares, and sums of rho(|r|^2)
        with r affine in the variables (docs/minimisers.md).
    gtol : float
        The infinity norm of the gradient at which an instance is done.
    max_iterations : int
        Steps that may be tried; 0 returns the start.
    check : bool
        True: NaN or infinity in weights or data raises. False: such instances end as NOT_FINITE.
    reweightings : int, optional
        For 'irls': how many there are, whatever the gradient becomes; then `max_iterations` does not count. By default
        they end where the gradient is within gtol, after `max_iterations` at most.

    Returns
    -------
    Solution

    Raises
    ------
    InputError, InputTypeError, NameMissingError
        If an argument does not fit; it says which.
    UnsupportedError
        If the method is not for this energy; it names the term.

    Examples
    --------
    >>> import sympy as sp, wiberg as wb
    >>> t, a, x = sp.Symbol("t", real=True), sp.Symbol("a", positive=True), sp.Symbol("x", real=True)
    >>> kernel = wb.compile(wb.Energy(a*(t - x)**2, variables=[t], weights=[a], data=[x]), backend="reference")
    >>> solution = minimise(kernel, {"a": 2.0}, {"x": [1.0, 5.0]}, start={"t": 0.0})
    >>> solution.variables["t"]
    array([1., 5.])
    >>> solution
    Solution(energy: 2 instances: 2 CONVERGED, worst gradient norm 0.0e+00, 1.0 iterations on average)
    """
    _check_options(method, gtol, max_iterations, unknown)
    _check_reweightings(reweightings, method)
    _check_start(kernel, start, candidates)
    if isinstance(start, Solution):
        start = start.variables
    given = candidates if start is None else start
    inputs = kernel.bind(w, x, given if isinstance(given, Mapping) else None, 0 if candidates is None else 1)
    check_positive(kernel, inputs)
    if check:
        check_finite(kernel, inputs)
    finite = None if check else finite_instances(kernel, inputs)
    seeds: Seeds | None = None
    packed: NDArray[np.float64] | None = None
    batch = inputs.batch
    if start is not None:
        packed, batched = kernel.bind_variables(start, inputs)
        if batched and batch in (None, 1):
            batch = len(packed)
    else:
        seeds = declared_seeds(kernel, inputs) if candidates is None else given_seeds(kernel, candidates, inputs)
        if seeds.batch is not None and batch in (None, 1):
            batch = seeds.batch
    rows = 1 if batch is None else batch
    y = np.empty((rows, inputs.m))
    if packed is not None:
        y[:] = packed
    problem = Problem(kernel, inputs, y, seeds, float(gtol), min(int(max_iterations), 2**62), reweightings)
    METHODS[method](problem)
    if finite is not None:
        bad = np.broadcast_to(~finite, rows)
        if packed is not None:
            y[bad] = np.broadcast_to(packed, y.shape)[bad]
        problem.reals[bad], problem.integers[bad] = np.nan, (0, 0, NOT_FINITE)
    return Solution(
        kernel,
        None if w is None else dict(w),
        None if x is None else dict(x),
        inputs,
        y,
        batch is not None,
        problem.gtol,
        problem.energies,
        problem.reals,
        problem.integers,
        problem.starts,
    )


def _check_start(kernel: Any, start: Any, candidates: Any) -> None:
    if not hasattr(kernel, "entry"):
        raise InputTypeError(f"minimise takes a kernel from wb.compile; got {type(kernel).__name__}")
    got = "both" if start is not None and candidates is not None else "neither"
    if got == "both" or (start is None and candidates is None and not kernel.energy.candidates):
        raise InputError(
            f"minimise: energy {kernel.name!r}: give start={{...}} or candidates={{...}} (got {got}); candidates have "
            "one axis more, after the batch axis"
        )


def _check_options(method: Any, gtol: Any, max_iterations: Any, unknown: Mapping[str, Any]) -> None:
    for name in unknown:
        hint = f" ({HINTS[name]})" if name in HINTS else nearest(name, OPTIONS)
        raise InputTypeError(f"minimise: no option '{name}'{hint}; options: {', '.join(OPTIONS)}")
    if not (isinstance(method, str) and method in METHODS):
        raise InputError(
            f"minimise: unknown method {method!r}; one of {', '.join(map(repr, METHODS))}"
            f"{nearest(str(method), METHODS)}"
        )
    if not (isinstance(gtol, Real) and 0.0 < float(gtol) < np.inf):
        raise InputError(f"minimise: gtol must be a finite number > 0 (got {gtol!r})")
    try:
        fits = operator.index(max_iterations) >= 0
    except TypeError:
        fits = False
    if not fits:
        raise InputError(
            f"minimise: max_iterations must be an integer >= 0 (got {max_iterations!r}); 0 returns the "
            "start, status ITERATION_LIMIT"
        )


def _check_reweightings(reweightings: Any, method: str) -> None:
    if reweightings is None:
        return
    if method != "irls":
        raise InputError(
            f"minimise: reweightings={reweightings!r} is for method='irls' (got method={method!r}); max_iterations= "
            "bounds the steps of the others"
        )
    try:
        fits = not isinstance(reweightings, bool) and 1 <= operator.index(reweightings) < 2**62
    except TypeError:
        fits = False
    if not fits:
        raise InputError(
            f"minimise: reweightings must be an integer >= 1 (got {reweightings!r}); leave it out to end where the "
            "gradient is within gtol"
        )
