"""The methods of `minimise`: by name, a function that fills in a `Problem`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from .driver import run_driver
from .problem import Problem
from .sparse import is_sparse, minimise_sparse


def trust_region(problem: Problem) -> None:
    """Newton steps within a trust region: exact ones, or by conjugate gradients for many unknowns (sparse.py)."""
    if is_sparse(problem.kernel, problem.inputs):
        minimise_sparse(problem)
    else:
        run_driver(problem)


def irls(problem: Problem) -> None:
    """Iteratively reweighted least squares, for sums of rho(|r|^2) (irls.py)."""
    from .irls import minimise_irls  # here: most energies never need it

    minimise_irls(problem)


METHODS: Mapping[str, Callable[[Problem], None]] = MappingProxyType({"trust-region": trust_region, "irls": irls})
