"""One problem minimised once, by a method of wiberg or of SciPy, counted the same way.

A step is one subproblem solved and tried, whether the point was taken or refused: `solution.iterations` and SciPy's
`nit`. An evaluation is one point at which the energy was computed: `solution.evaluations` and SciPy's `nfev`; the
derivatives there are not counted again. All stop where no entry of the gradient is above 1e-8.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wiberg.compiler.testing import dense
from wiberg.runtime.methods import GENERAL_METHODS

from .boxes import Box
from .problem import ABSOLUTE, RELATIVE, Problem

GTOL = 1e-8
OURS = GENERAL_METHODS
"""The methods of `wb.minimise`."""


@dataclass(frozen=True)
class Run:
    """How it ended; `solved` is whether at a minimum of the table."""

    energy: float
    steps: int
    evaluations: int
    status: str
    solved: bool


def by_wiberg(problem: Problem, method: str = "trust-region", factor: int = 1, limit: int = 1000) -> Run:
    import wiberg as wb

    start = {"y": problem.start_at(factor)}
    found = wb.minimise(problem.kernel, None, problem.data, start=start, method=method, gtol=GTOL, max_iterations=limit)
    usable = found.status in (wb.Status.CONVERGED, wb.Status.STALLED)
    solved = usable and problem.reached(found.energy) is not None
    return Run(found.energy, found.iterations, found.evaluations, found.status.name, solved)


class Functions:
    """Energy, gradient and Hessian of a flat point, as SciPy wants them; the Hessian by the minimiser's kernel."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.kernel = problem, problem.kernel

    def point(self, y: NDArray[np.float64]) -> dict[str, Any]:
        return {"y": np.reshape(y, self.problem.start.shape)}

    def value(self, y: NDArray[np.float64]) -> float:
        return float(self.kernel.value(self.point(y), None, self.problem.data))

    def gradient(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(self.kernel.gradient(self.point(y), None, self.problem.data))

    def hessian(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(dense(self.kernel.value_gradient_hessian(self.point(y), None, self.problem.data)[2]))


def by_scipy(problem: Problem, method: str, factor: int = 1, limit: int = 3000) -> Run:
    """`method` is 'BFGS', or 'trust-exact' or 'trust-krylov', which want a Hessian; its other options are SciPy's."""
    from scipy.optimize import minimize

    functions, start = Functions(problem), problem.start_at(factor).ravel()
    second = method != "BFGS"

    def stop(intermediate_result: Any) -> None:
        if np.abs(functions.gradient(intermediate_result.x)).max() <= GTOL:
            raise StopIteration

    # SciPy's trust regions bound the Euclidean norm: the callback makes them stop as the others do
    options = {"maxiter": limit, "gtol": 0.0 if second else GTOL}
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = minimize(
                functions.value,
                start,
                jac=functions.gradient,
                hess=functions.hessian if second else None,
                method=method,
                callback=stop if second else None,
                options=options,
            )
    except (ValueError, UnboundLocalError, np.linalg.LinAlgError) as error:  # its ways of meeting infinity
        return Run(float("nan"), 0, 0, type(error).__name__, False)
    return Run(
        float(found.fun), int(found.nit), int(found.nfev), str(found.status), problem.reached(found.fun) is not None
    )


# ---------------------------------------------------------------------------------------------- within a box


def in_box_by_wiberg(problem: Problem, box: Box, limit: int = 3000) -> Run:
    """As `by_wiberg`; solved is whether the status says so."""
    import wiberg as wb

    bounds = {"y": (box.low, box.high)}
    found = wb.minimise(
        problem.kernel,
        None,
        problem.data,
        start={"y": problem.start},
        bounds=bounds,
        gtol=GTOL,
        max_iterations=limit,
    )
    usable = found.status in (wb.Status.CONVERGED, wb.Status.STALLED)
    return Run(found.energy, found.iterations, found.evaluations, found.status.name, usable)


def in_box_by_scipy(problem: Problem, box: Box, method: str, limit: int = 3000) -> Run:
    """`method` is 'L-BFGS-B', 'TNC' or 'trust-constr', which gets a Hessian; only the gradient ends them, if it can."""
    from scipy.optimize import Bounds, minimize

    functions, start = Functions(problem), box.project(problem.start).ravel()
    options = {
        "L-BFGS-B": {"maxiter": limit, "maxfun": 10**6, "ftol": 0.0, "gtol": GTOL},
        "TNC": {"maxfun": 10**5, "ftol": 0.0, "xtol": 0.0, "gtol": GTOL},
        "trust-constr": {"maxiter": limit, "gtol": 1e-15, "xtol": 1e-10, "barrier_tol": 1e-12},
    }[method]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = minimize(
            functions.value,
            start,
            jac=functions.gradient,
            hess=functions.hessian if method == "trust-constr" else None,
            bounds=Bounds(box.low.ravel(), box.high.ravel()),
            method=method,
            options=options,
        )
    return Run(float(found.fun), int(found.nit), int(found.nfev), str(found.status), bool(np.isfinite(found.fun)))


def is_as_low(run: Run, lowest: float) -> bool:
    """Whether a run ended at this energy: to 1e-6 of it, or 1e-10 above."""
    return run.solved and run.energy <= lowest + max(RELATIVE * abs(lowest), ABSOLUTE)
