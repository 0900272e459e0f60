"""Factorisations and steps of dense Hessians, for drivers: by the blocks that a layout says, or as they are.

The dense ones are those of linear_algebra.py and trust_region.py, those by blocks of bordered.py. A layout whose COUNT
is 0 says that there are no blocks; then one comparison is all that is added.
"""

from __future__ import annotations

from ...compiler.machine_code.calling import call_blocks, shifted
from ...compiler.machine_code.signature import DoublePointer, IntegerPointer
from . import bordered, trust_region
from .bordered import BOUNDARY, COUNT, ENTRY, FACTOR, LOWEST, NEWTON, PIVOTS, SOLVE, SOLVE_ROWS, SPECTRUM, bounds_at
from .linear_algebra import cholesky, cholesky_solve


def factor(layout: IntegerPointer, h: DoublePointer, n: int, u: DoublePointer) -> bool:
    """Write U with U'U = H to u, for the functions below; False if H is not positive definite."""
    if layout[COUNT] == 0:
        return cholesky(h, n, u)
    return factor_shifted(layout, h, n, 0.0, u)


def factor_shifted(layout: IntegerPointer, h: DoublePointer, n: int, shift: float, u: DoublePointer) -> bool:
    """The same of H + shift, where there are blocks."""
    return call_blocks(layout[ENTRY], FACTOR, layout, h, n, shift, 0.0, 0.0, h, u, h, 0) != 0.0


def solve(layout: IntegerPointer, u: DoublePointer, n: int, b: DoublePointer) -> None:
    """b <- (U'U)^-1 b; what is behind U is overwritten."""
    solve_apart(layout, u, n, b, u if layout[COUNT] == 0 else shifted(u, bordered.factor_size(layout)))


def solve_apart(layout: IntegerPointer, u: DoublePointer, n: int, b: DoublePointer, space: DoublePointer) -> None:
    """The same where U alone is read; `space` has n + 8 numbers."""
    if layout[COUNT] == 0:
        cholesky_solve(u, n, b)
    else:
        call_blocks(layout[ENTRY], SOLVE, layout, u, n, 0.0, 0.0, 0.0, u, space, b, 1)


def solving_size(layout: IntegerPointer, n: int) -> int:
    """How many numbers of what `factor` writes `solve` reads."""
    return n * n if layout[COUNT] == 0 else bordered.solving_size(layout)


def solve_rows(layout: IntegerPointer, u: DoublePointer, n: int, c: DoublePointer, p: int) -> None:
    """c <- (U'U)^-1 c, c of n rows of p numbers, where there are blocks."""
    call_blocks(layout[ENTRY], SOLVE_ROWS, layout, u, n, 0.0, 0.0, 0.0, u, u, c, p)


def squared_pivots(layout: IntegerPointer, u: DoublePointer, n: int, out: DoublePointer) -> None:
    """out <- the squares of the diagonal of U, by unknowns."""
    if layout[COUNT] == 0:
        for i in range(n):
            out[i] = u[i * n + i] * u[i * n + i]
    else:
        call_blocks(layout[ENTRY], PIVOTS, layout, u, n, 0.0, 0.0, 0.0, u, u, out, 0)


def newton_step(
    layout: IntegerPointer, h: DoublePointer, g: DoublePointer, n: int, space: DoublePointer, p: DoublePointer
) -> bool:
    """p <- -H^-1 g where H is positive definite, else False."""
    if layout[COUNT] == 0:
        return trust_region.newton_step(h, g, n, space, p)
    return call_blocks(layout[ENTRY], NEWTON, layout, h, n, 0.0, 0.0, 0.0, g, space, p, 0) != 0.0


def spectrum(layout: IntegerPointer, h: DoublePointer, n: int, space: DoublePointer) -> tuple[float, float]:
    """The lowest eigenvalue of H and a bound of all; what `boundary_step` needs stays in `space` (n*n + 5n numbers)."""
    if layout[LOWEST] == 0:
        return trust_region.spectrum(h, n, space)
    call_blocks(layout[ENTRY], SPECTRUM, layout, h, n, 0.0, 0.0, 0.0, h, space, h, 0)
    found = bounds_at(layout, space)
    return found[0], found[1]


def boundary_step(
    layout: IntegerPointer,
    h: DoublePointer,
    space: DoublePointer,
    g: DoublePointer,
    n: int,
    lowest: float,
    bound: float,
    radius: float,
    p: DoublePointer,
    work: DoublePointer,
) -> float:
    """p <- the minimiser of the model, from what `spectrum` left; returns the decrease that the model promises."""
    if layout[LOWEST] == 0:
        return trust_region.boundary_step(space, g, n, lowest, bound, radius, p, work)
    return call_blocks(layout[ENTRY], BOUNDARY, layout, h, n, lowest, bound, radius, g, space, p, 0)
