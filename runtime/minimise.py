"""`minimise`: the minimiser of an energy for every instance of a batch."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..energies.errors import InputError, InputTypeError, nearest
from .bounds.box import Box, box_of
from .checks import are_sound, check_finite, check_positive, finite_instances
from .driver import declared_seeds
from .methods import BOUNDED_METHODS, METHODS
from .problem import Problem
from .progress import Callback, reporter
from .run import run_problem
from .seeding import Seeds, given_seeds, within
from .solution import Solution

OPTIONS = (
    "start",
    "candidates",
    "bounds",
    "eliminate",
    "method",
    "gtol",
    "max_iterations",
    "check",
    "reweightings",
    "keep_factors",
    "minima",
    "starts",
    "restarts",
    "seed",
    "trace",
    "progress",
    "callback",
)
HINTS = {
    "constraints": "box bounds: bounds=; a penalty belongs in the energy",
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
    bounds: Mapping[str, Any] | None = None,
    eliminate: Sequence[Any] | None = None,
    method: str = "trust-region",
    gtol: float = 1e-8,
    max_iterations: int = 100,
    check: bool = True,
    reweightings: int | None = None,
    keep_factors: bool = False,
    minima: int | None = None,
    starts: str = "every",
    restarts: int = 0,
    seed: int = 0,
    trace: bool = False,
    progress: bool = False,
    callback: Callback | None = None,
    **unknown: Any,
) -> Solution:
    """Minimise the energy over its variables, for every instance of a batch and every member of a family.

    Newton's method with an exact trust region (see descend.py), compiled, on as many threads as `set_threads`
    allows. Over more than 200 unknowns with a sparse Hessian, steps are made by conjugate gradients (newton_cg.py), or
    where these take long by its factors (direct.py, `Solution.factorised`), and `curvature` is a lower bound. Energies
    that are quadratic (`kernel.quadratic`) take one step, also where the Hessian is singular: then the minimiser of
    least |y| comes back (docs/minimisers.md). The result of an instance
    has the same bits in any batch and on any number of threads.

    Parameters
    ----------
    kernel : Kernel
        From `wb.compile`.
    w, x : dict of array_like
        Weights and data; one axis more than declared is a batch axis.
    start : dict of array_like or Solution
        Where to start, shapes as declared or with a batch axis; of a family as declared, with the axes of the family
        in front, or with the batch axis before these.
    candidates : dict of array_like
        One axis more than declared (shared by all instances) or two (batched): each instance starts from the one of
        lowest energy (exponentials are ranked to 1e-8, so candidates closer than that count as equal). The axis that
        counts them comes after those that `start` may have, right before the declared ones. Without
        `start` and `candidates` those that the energy declares are used.
    bounds : dict of pairs of array_like
        `{"y": (low, high)}`: each variable stays between the two, which broadcast to its declared shape or carry a
        batch axis in front (of a family the axes that `start` may have); None or infinity is no bound, low = high fixes
        an entry. Starts and candidates outside are moved to the nearest point within (as SciPy's L-BFGS-B does), and
        the energy is evaluated within only. See bounded.py, and `Solution.active` for which variables ended on a bound.
        Of 'trust-region' only.
    eliminate : list of variables, optional
        Symbols or names of variables in which the energy is quadratic for any values of the others: they are solved
        out, and the others minimised over (variable_projection.py). The solution is that of the joint minimisation,
        and so is what is made of it, damped derivatives too. Where they start is of no account: `start` and
        `candidates` may leave them out, and candidates are ranked with them solved out. Of 'trust-region' only,
        without bounds; it changes nothing for energies that are quadratic in all variables.
    method : {'trust-region', 'l-bfgs', 'newton-cg', 'irls'}
        'l-bfgs' needs gradients, and Hessians for the last steps only; 'newton-cg' products with the Hessian and never
        more memory than some vectors, and `curvature` is a lower bound or NaN; 'irls' is iteratively reweighted least
        squares, for energies that are constants, squares, and sums of rho(|r|^2) with r affine in the variables. When
        they pay: docs/minimisers.md.
    gtol : float
        The infinity norm of the gradient at which an instance is done.
    max_iterations : int
        Steps that may be tried; 0 returns the start.
    check : bool
        True: NaN or infinity in weights or data raises. False: such instances end as NOT_FINITE.
    reweightings : int, optional
        For 'irls': how many there are, whatever the gradient becomes; then `max_iterations` does not count. By default
        they end where the gradient is within gtol, after `max_iterations` at most.
    keep_factors : bool
        Keep the factors of Hessians with a few unknowns around many small blocks, up to 256 MiB of them, for a
        derivative of the solution: `implicit_gradient` with damping 0 of a quadratic energy, and `unrolled_gradient`
        after so many `reweightings`. It then has the same bits as without, and takes a part of the time (2 to 4 times
        less for the poses of docs/pose.md). With one start for each instance, and without a report of progress.
    minima : int, optional
        Minimise from the start, or from every candidate, and keep up to so many distinct minima of each instance, in
        order of energy: `solution.minima` (starts.py says when two are one). The solution is the lowest of them. The
        price is that of one minimisation for each candidate.
    starts : {"every", "basins"}
        With `minima=` and candidates: "basins" starts from the lowest candidate of each basin that they show, at most
        2 `minima` of them (basins.py), which finds nearly the same minima at a small part of the price.
    restarts : int
        So many random starts more. With candidates: uniform between the lowest and the highest of each unknown. With
        a start: normal around it, with the largest number of each variable at the start as standard deviation, or 1
        where that is 0. The same draws for every instance of a batch. The lowest minimum is returned.
    seed : int
        What the draws depend on.
    trace : bool
        Keep the path of every instance in `solution.trace`; a debug mode that costs (n + 1)/2 times n iterations.
    progress : bool
        Show a progress bar on standard error.
    callback : function of (instances done, instances in all), optional
        Called about ten times a second, in the calling thread; an exception that it raises ends the call. With several
        starts an instance counts once for each. Of a family it is members that are counted.

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
    if hasattr(kernel, "minimise"):  # several kernels at once (learn/output.py)
        asked = locals() | unknown
        options = {key: value for key, value in asked.items() if key not in ("kernel", "w", "x", "unknown")}
        result: Solution = kernel.minimise(w, x, **options)
        return result
    _check_options(method, gtol, max_iterations, unknown)
    plain = minima is None and trace is False and progress is False and callback is None
    plain = plain and type(restarts) is int and restarts == 0 and type(seed) is int and seed == 0
    if not plain:
        _check_starts(minima, restarts, seed, trace)
    if starts != "every":
        _check_choice(kernel, starts, minima, start, eliminate)
    _check_reweightings(reweightings, method)
    if not isinstance(keep_factors, bool):
        raise InputTypeError(f"minimise: keep_factors must be True or False (got {keep_factors!r})")
    if method != "irls" and getattr(kernel, "holds", False):
        raise InputError(
            f"minimise: energy {kernel.name!r} has held parts (wb.held), which change from step to step: use "
            f"method='irls' (got {method!r})"
        )
    _check_start(kernel, start, candidates)
    if bounds is not None and method not in BOUNDED_METHODS:
        raise InputError(f"minimise: method {method!r} takes no bounds=; use method='{BOUNDED_METHODS[0]}'")
    if isinstance(start, Solution):
        start = start.variables
    given = candidates if start is None else start
    eliminated: tuple[str, ...] = ()
    if eliminate is not None:
        from .eliminate import eliminated_names, with_zeros  # here: most minimisations need none of it

        eliminated = eliminated_names(kernel, eliminate, method, bounds is not None)
    inputs = kernel.bind(
        w, x, given if type(given) is dict or isinstance(given, Mapping) else None, 0 if candidates is None else 1
    )
    if eliminated and start is not None:
        start = with_zeros(kernel, start, eliminated, inputs, counted=False)
    elif eliminated and candidates is not None:
        candidates = with_zeros(kernel, candidates, eliminated, inputs, counted=True)
    finite = None
    if not are_sound(inputs):
        check_positive(kernel, inputs)
        if check:
            check_finite(kernel, inputs)
        finite = finite_instances(kernel, inputs)
    seeds: Seeds | None = None
    packed: NDArray[np.float64] | None = None
    batch = inputs.batch
    box: Box | None = None if bounds is None else box_of(kernel, bounds, inputs)
    if start is not None:
        packed, batched = kernel.bind_variables(start, inputs)
        if batched and batch in (None, 1):
            batch = len(packed) // max(1, inputs.members)
    else:
        seeds = declared_seeds(kernel, inputs) if candidates is None else given_seeds(kernel, candidates, inputs)
        if seeds.batch is not None and batch in (None, 1):
            batch = seeds.batch
    if box is not None and box.batch is not None and batch in (None, 1):
        batch = box.batch
    rows = inputs.members * (1 if batch is None else batch)
    if finite is not None and len(finite) > 1:
        finite = np.repeat(finite, inputs.members)
    if box is not None:
        box = box.over(rows)
        packed, seeds = within(box, kernel, inputs, packed, seeds, rows)
    if packed is not None and len(packed) == rows:
        y = packed.copy()
    else:
        y = np.empty((rows, inputs.m))
        if packed is not None:
            y[:] = packed
    problem = Problem(
        kernel,
        inputs,
        y,
        seeds,
        float(gtol),
        min(int(max_iterations), 2**62),
        method=method,
        start=packed,
        finite=finite,
        box=box,
        reweightings=reweightings,
        eliminate=eliminated,
        keeps=keep_factors and plain,
    )
    if plain:
        run_problem(problem)
        return _solution(problem, w, x, batch is not None)
    if minima is None and restarts == 0:
        with reporter(progress, callback, rows, unit=_unit(inputs)) as report:
            run_problem(problem, report)
        solution = _solution(problem, w, x, batch is not None)
    else:
        from .minima import Minima  # here, as the rest: most calls have one start
        from .starts import LOWEST, lowest_minima, number_of_starts

        choice, count = (LOWEST, 1) if minima is None else (starts, int(minima))
        number = number_of_starts(problem, count, choice, int(restarts))
        with reporter(progress, callback, rows * number, unit=_unit(inputs)) as report:
            lowest, found, evaluations = lowest_minima(problem, count, choice, int(restarts), int(seed), report)
        solutions = tuple(_solution(one, w, x, batch is not None) for one in lowest)
        solution = replace(solutions[0], minima=Minima(solutions, found, evaluations, number))
    if trace:
        from .trace import trace_problem

        solution = replace(solution, trace=trace_problem(solution.problem, solution.lead))
    return solution


def _unit(inputs: Any) -> str:
    return "member" if inputs.family else "instance"


def _solution(problem: Problem, w: Any, x: Any, batched: bool) -> Solution:
    return Solution(
        problem.kernel,
        None if w is None else dict(w),
        None if x is None else dict(x),
        problem.inputs,
        problem.y,
        batched,
        problem.gtol,
        problem.energies,
        problem.reals,
        problem.integers,
        problem,
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
    if not (isinstance(gtol, (float, Real)) and 0.0 < float(gtol) < np.inf):
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


def _check_starts(minima: Any, restarts: Any, seed: Any, trace: Any) -> None:
    for name, value, least in (("minima", minima, 1), ("restarts", restarts, 0), ("seed", seed, 0)):
        if name == "minima" and value is None:
            continue
        try:
            fits = operator.index(value) >= least and not isinstance(value, bool)
        except TypeError:
            fits = False
        if not fits:
            raise InputError(f"minimise: {name} must be an integer >= {least} (got {value!r})")
    if not isinstance(trace, bool):
        raise InputTypeError(f"minimise: trace must be True or False (got {trace!r})")


def _check_choice(kernel: Any, starts: Any, minima: Any, start: Any, eliminate: Any) -> None:
    if starts not in ("every", "basins"):
        raise InputError(f"minimise: starts must be 'every' or 'basins' (got {starts!r})")
    where = f"minimise: energy {kernel.name!r}: starts='basins'"
    if minima is None or start is not None:
        raise InputError(f"{where} is for minima=k, from candidates; give both")
    if eliminate is not None:
        raise InputError(f"{where} ranks candidates as they are, so eliminate= is not for it; use starts='every'")


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
