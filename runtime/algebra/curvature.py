"""Is a large sparse Hessian positive semi-definite, and if not, where does it curve down?

Gershgorin's discs answer many cases in one pass: every eigenvalue is at least the smallest difference of a diagonal
entry and the sum of the magnitudes beside it. Where they leave it open, the signs of the pivots of a symmetric
factorisation are those of the eigenvalues (Sylvester's law of inertia); a shift at which all are positive is a bound.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .linear_algebra import FLAT

Floats = NDArray[np.float64]


class Curvature(NamedTuple):
    """What is known of a Hessian.

    lowest     a lower bound of its eigenvalues
    size       an upper bound of their magnitudes
    downwards  a unit vector along which it curves down; None where it is positive semi-definite
    """

    lowest: float
    size: float
    downwards: Floats | None


def curvature(matrix: Any) -> Curvature:
    """The curvature of a symmetric CSR array; eigenvalues above -1e-12 of the largest count as not negative."""
    diagonal = matrix.diagonal()
    rows = np.repeat(np.arange(len(diagonal)), np.diff(matrix.indptr))
    beside = np.bincount(rows, weights=np.abs(matrix.data), minlength=len(diagonal)) - np.abs(diagonal)
    lowest = float((diagonal - beside).min(initial=np.inf))
    size = float((np.abs(diagonal) + beside).max(initial=0.0))
    if not lowest < -FLAT * size:
        return Curvature(lowest, size, None)
    factors = definite(matrix, FLAT * size)
    if factors is not None:
        found = _inverse_iteration(matrix, factors)[0]
        for least in (0.99 * found, 0.5 * found):
            if least > FLAT * size and definite(matrix, -least) is not None:
                return Curvature(least, size, None)
        return Curvature(-FLAT * size, size, None)
    shift = 1e-6 * size
    while factors is None and shift < 4.0 * size:  # at 2 size it is diagonally dominant
        shift *= 4.0
        factors = definite(matrix, shift)
    if factors is None:
        return Curvature(lowest, size, None)
    curved, vector = _inverse_iteration(matrix, factors)
    return Curvature(max(lowest, -shift), size, vector if curved < 0.0 else None)


def definite(matrix: Any, shift: float) -> Any | None:
    """The factors of H + shift (`.solve`) if all pivots are positive, else None."""
    from scipy.sparse import eye_array
    from scipy.sparse.linalg import splu

    try:
        factors = splu(
            (matrix + shift * eye_array(matrix.shape[0])).tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
    except RuntimeError:  # exactly singular
        return None
    positive = np.array_equal(factors.perm_r, factors.perm_c) and (factors.U.diagonal() > 0.0).all()
    return factors if positive else None


def _inverse_iteration(matrix: Any, factors: Any) -> tuple[float, Floats]:
    """The lowest curvature that is found, along which unit vector; its largest entry is positive."""
    vector: Floats = np.cos(np.arange(matrix.shape[0], dtype=float))
    curved = np.inf
    for _ in range(60):
        vector = factors.solve(vector)
        vector /= np.linalg.norm(vector)
        before, curved = curved, float(vector @ (matrix @ vector))
        if not before - curved > 1e-3 * abs(curved):
            break
    return curved, vector * np.sign(vector[np.argmax(np.abs(vector))])
