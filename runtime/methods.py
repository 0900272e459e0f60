"""The methods of `minimise`: by name, a function that fills in a `Problem`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from .driver import run_driver
from .problem import Problem
from .sparse import is_coupled, is_sparse, minimise_sparse


def trust_region(problem: Problem) -> None:
    """Newton steps within a trust region: exact ones, or as sparse.py makes them for many unknowns.

    Quadratic energies take one (quadratic.py).
    """
    sparse, quadratic = is_sparse(problem.kernel, problem.inputs), problem.kernel.quadratic
    if problem.box is not None:  # imports are here because most problems need none of them
        if sparse:
            from .bounds.bounded_newton_cg import minimise_bounded_sparse

            minimise_bounded_sparse(problem)
        else:
            from .bounds.bounded import minimise_bounded

            minimise_bounded(problem)
    elif problem.eliminate and not quadratic:
        from .variable_projection import minimise_eliminated

        minimise_eliminated(problem)
    elif quadratic:
        from .quadratic import minimise_quadratic, minimise_sparse_quadratic

        if not sparse:
            problem.kernel.refuse_too_large(problem.inputs)
        (minimise_sparse_quadratic if sparse else minimise_quadratic)(problem)
    elif sparse:
        minimise_sparse(problem)
    else:
        problem.kernel.refuse_too_large(problem.inputs)
        run_driver(problem)


def newton_cg(problem: Problem) -> None:
    """Newton steps within a trust region by conjugate gradients, from products with the Hessian (products.py)."""
    from .products import minimise_by_products  # here: importing wiberg stays fast

    minimise_by_products(problem)


def l_bfgs(problem: Problem) -> None:
    """A limited memory quasi-Newton method, then Newton steps (lbfgs.py); of a quadratic energy those alone."""
    if problem.kernel.quadratic and not is_coupled(problem.kernel, problem.inputs):
        trust_region(problem)
        return
    from .lbfgs import minimise_lbfgs  # here: importing wiberg stays fast

    minimise_lbfgs(problem)


def irls(problem: Problem) -> None:
    """Iteratively reweighted least squares, for sums of rho(|r|^2) (irls.py)."""
    from .irls import minimise_irls  # here: most energies never need it

    minimise_irls(problem)


METHODS: Mapping[str, Callable[[Problem], None]] = MappingProxyType(
    {"trust-region": trust_region, "l-bfgs": l_bfgs, "newton-cg": newton_cg, "irls": irls}
)

GENERAL_METHODS = ("trust-region", "l-bfgs", "newton-cg")
"""Those for energies of any form."""

BOUNDED_METHODS = ("trust-region",)
"""Those that keep variables within bounds."""
