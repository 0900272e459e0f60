"""The damped linear solves of eq. 10 and the compiled loops around them.

For one instance with Hessian H (n x n) and damping d > 0 the matrix that is inverted is

    A = H + (d + s) I,      s = 0 where H is positive semi-definite, else at least -(lowest eigenvalue of H)

so that |A^-1| <= 1/d at every point, a saddle or a maximum too. That this also holds for the numbers that come out of
a floating-point solve is seen as follows. A Cholesky solve of an n x n system returns the exact solution of a system
whose matrix differs by at most n(3n + 1) u |A| (Higham, Accuracy and Stability of Numerical Algorithms, theorem 10.4;
u = 2^-53). Let pad be three times that for |H|, |H| being its largest row sum.
 - If the Cholesky factorisation of H - 2 pad I succeeds, the lowest eigenvalue of H is at least pad, and s = 0: what
   the solve loses is made up by it. (Or the minimiser has computed a lowest eigenvalue far above pad.)
 - With d = 0 nothing has to be made up for; firm pivots (block_factors.py) show that H is regular and positive.
 - Otherwise the lowest eigenvalue is computed, and s = max(0, -lowest) + pad: |A| is at most 2 |H| + d + pad, so that
   two thirds of pad make up for the solve, and the rest for the error of the eigenvalue, a few u |H|.
The bound is then exceeded by less than the rounding of d itself: n(3n + 1) u of it.
For n = 1 the matrix is max(h, 0) + d, exactly, and h is the curvature that the minimiser has computed.

Variables that a bound holds do not move with the weights. H and its right-hand sides are then those of the others, the
free block, and what holds for H above holds for that; rows of held variables are 0 (`solve_free`).

With d = 0 nothing is added (Samuel and Tappen's derivative, defined at saddles too). A matrix is reported as singular
if it has an eigenvalue within 16 n u |H| of 0.

Sums over the batch run over blocks of 64 instances that are added in order: the same bits for any number of threads.
An instance whose numbers are not finite is left out of its block, with the same result as if it were not there.
"""

from __future__ import annotations

import math

from ...compiler.calls.evaluate import BLOCK
from ...compiler.machine_code.calling import (
    call_evaluate,
    call_prepare,
    double_pointer_at,
    doubles,
    integer_pointer_at,
    shifted,
)
from ...compiler.machine_code.native import Native, native
from ...compiler.machine_code.signature import DoublePointer, IntegerPointer, vectorised
from ...runtime.algebra import vectors
from ...runtime.algebra.block_factors import FIRM
from ...runtime.algebra.bordered import COUNT
from ...runtime.algebra.factorisation import factor_shifted, solve, solve_apart, spectrum, squared_pivots
from ...runtime.algebra.factorisation import solve_rows as solve_rows_in_blocks
from ...runtime.algebra.linear_algebra import EPSILON, TINY, cholesky, cholesky_solve
from ...runtime.algebra.trust_region import spectrum as dense_spectrum
from ...runtime.kept_factors import HEAD

# What became of an instance. LEFT_OUT and USED are also what the caller asks for; the last two stay inside.
LEFT_OUT, USED, SHIFTED, NOT_FINITE, SINGULAR, INDEFINITE, UNDECIDED = 0, 1, 2, 3, 4, 5, 6

SINGULAR_AT = 8.0 * EPSILON
"""With d = 0, an eigenvalue within n times this part of |H| of 0 is rounding."""

SAFE = 1e-6
"""A known lowest eigenvalue above this part of |H| needs no proof by factorisation: kernels are far more exact."""


def workspace_numbers(n: int, p: int) -> int:
    """float64 numbers that a thread needs besides prepared numbers and the kernels' scratch."""
    return 2 * n * n + 6 * n + p + 16


@vectorised
def row_sum(h: DoublePointer, n: int) -> float:
    """The largest sum of |h| over a row; NaN or infinite if an entry is."""
    largest, check = 0.0, 0.0
    for i in range(n):
        total, row = 0.0, i * n
        for j in range(n):
            total += abs(h[row + j])
        largest = max(largest, total)
        check += total
    return largest if check < math.inf else check


def factor_damped(h: DoublePointer, n: int, damping: float, size: float, curvature: float, space: DoublePointer) -> int:
    """Write U with U'U = H + (d + s) I to `space`; returns USED or SHIFTED, and with d = 0 SINGULAR or INDEFINITE.

    `size` is row_sum(h, n), `curvature` the lowest eigenvalue of H or NaN; `space` has n*n + 5 n numbers. Where the
    answer is INDEFINITE, there is no U and h is as it was, but for rounding.
    """
    pad = 1.5 * n * (3 * n + 1) * EPSILON * size
    margin = 2.0 * pad if damping > 0.0 else n * SINGULAR_AT * size
    definite = curvature > SAFE * size
    if not definite:
        for i in range(n):
            h[i * n + i] -= margin
        definite = cholesky(h, n, space)
        for i in range(n):
            h[i * n + i] += margin
    if damping == 0.0:
        if definite and cholesky(h, n, space):
            return USED
        dense_spectrum(h, n, space)
        diagonal, off = shifted(space, n * n), shifted(space, n * n + n)
        within = negative_pivots(diagonal, off, n, margin) - negative_pivots(diagonal, off, n, -margin)
        return SINGULAR if within > 0 else INDEFINITE
    shift, code = damping, USED
    if not definite:
        lowest, _ = dense_spectrum(h, n, space)
        shift += max(0.0, -lowest) + pad
        code = SHIFTED if lowest < -pad else USED
    for i in range(n):
        h[i * n + i] += shift
    cholesky(h, n, space)
    return code


def has_firm_pivots(layout: IntegerPointer, h: DoublePointer, n: int, space: DoublePointer) -> bool:
    """Whether the pivots of the factors in `space` are far above the rounding of what they are left of.

    Behind the factors n numbers of `space` are used.
    """
    pivots, firm = shifted(space, n * n), True
    squared_pivots(layout, space, n, pivots)
    for i in range(n):
        firm = firm and pivots[i] > FIRM * h[i * n + i]
    return firm


def factor_in_blocks(
    layout: IntegerPointer,
    h: DoublePointer,
    n: int,
    damping: float,
    size: float,
    curvature: float,
    space: DoublePointer,
) -> int:
    """The same with the blocks of H eliminated first (bordered.py), which leaves h as it is.

    With d = 0 UNDECIDED where H is not shown to be regular and positive: that is for `factor_damped`.
    """
    pad = 1.5 * n * (3 * n + 1) * EPSILON * size
    if damping == 0.0:
        firm = factor_shifted(layout, h, n, 0.0, space) and has_firm_pivots(layout, h, n, space)
        regular = firm or factor_shifted(layout, h, n, -n * SINGULAR_AT * size, space)
        return USED if firm or (regular and factor_shifted(layout, h, n, 0.0, space)) else UNDECIDED
    definite = curvature > SAFE * size or factor_shifted(layout, h, n, -2.0 * pad, space)
    shift, code = damping, USED
    if not definite:
        lowest, _ = spectrum(layout, h, n, space)
        shift += max(0.0, -lowest) + pad
        code = SHIFTED if lowest < -pad else USED
    factor_shifted(layout, h, n, shift, space)
    return code


def negative_pivots(diagonal: DoublePointer, off: DoublePointer, n: int, x: float) -> int:
    """How many eigenvalues of a tridiagonal matrix lie below x (Sturm)."""
    count, pivot = 0, 1.0
    for i in range(n):
        coupling = off[i - 1] * (off[i - 1] / pivot) if i > 0 else 0.0
        pivot = diagonal[i] - x - coupling
        if pivot == 0.0:
            pivot = TINY
        count += 1 if pivot < 0.0 else 0
    return count


@vectorised
def eliminate(a: DoublePointer, n: int, c: DoublePointer, p: int) -> None:
    """c <- A^-1 c, c of n rows of p numbers, by elimination with partial pivoting."""
    for k in range(n):
        best = k
        for i in range(k + 1, n):
            if abs(a[i * n + k]) > abs(a[best * n + k]):
                best = i
        if best != k:
            for j in range(n):
                a[k * n + j], a[best * n + j] = a[best * n + j], a[k * n + j]
            for j in range(p):
                c[k * p + j], c[best * p + j] = c[best * p + j], c[k * p + j]
        for i in range(k + 1, n):
            factor = a[i * n + k] / a[k * n + k]
            for j in range(k + 1, n):
                a[i * n + j] -= factor * a[k * n + j]
            for j in range(p):
                c[i * p + j] -= factor * c[k * p + j]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            factor = a[i * n + k]
            for j in range(p):
                c[i * p + j] -= factor * c[k * p + j]
        for j in range(p):
            c[i * p + j] /= a[i * n + i]


@vectorised
def solve_rows(u: DoublePointer, n: int, c: DoublePointer, p: int) -> None:
    """c <- (U'U)^-1 c, c of n rows of p numbers."""
    for i in range(n):
        pivot = u[i * n + i]
        for j in range(p):
            c[i * p + j] /= pivot
        for k in range(i + 1, n):
            factor = u[i * n + k]
            for j in range(p):
                c[k * p + j] -= factor * c[i * p + j]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            factor = u[i * n + k]
            for j in range(p):
                c[i * p + j] -= factor * c[k * p + j]
        pivot = u[i * n + i]
        for j in range(p):
            c[i * p + j] /= pivot


@vectorised
def is_finite(a: DoublePointer, n: int) -> bool:
    """Whether no entry is NaN or infinite."""
    bad = 0
    for i in range(n):
        bad += 0 if abs(a[i]) < math.inf else 1
    return bad == 0


def solve_one(h: DoublePointer, damping: float, c: DoublePointer, p: int) -> int:
    """c <- c / (max(h, 0) + d) for n = 1."""
    curvature = h[0]
    matrix = curvature if damping == 0.0 else max(curvature, 0.0) + damping
    if not abs(curvature) < math.inf:
        return NOT_FINITE
    if matrix == 0.0:
        return SINGULAR
    for j in range(p):
        c[j] /= matrix
    return SHIFTED if damping > 0.0 and curvature < 0.0 else USED


def solve_two(h: DoublePointer, damping: float, c: DoublePointer, p: int, space: DoublePointer) -> int:
    """c <- A^-1 c for n = 2 and d > 0, by L D L'; `space` has 14 numbers."""
    a, b, d = h[0], h[1], h[3]
    size = max(abs(a), abs(d)) + abs(b)
    if not size < math.inf:
        return NOT_FINITE
    pad, shift, code = 21.0 * EPSILON * size, damping, USED
    lowest, _ = dense_spectrum(h, 2, space)
    if lowest < pad:
        shift += max(0.0, -lowest) + pad
        if lowest < -pad:
            code = SHIFTED
    a += shift
    d += shift
    factor = b / a
    rest = d - factor * b
    for j in range(p):
        z = (c[p + j] - factor * c[j]) / rest
        c[p + j] = z
        c[j] = (c[j] - b * z) / a
    return code


# How the factors that `factor_for` makes are used: none are there; by blocks; U'U = A; or there is no U.
NO_FACTORS, BLOCKS, TRIANGLE, ELIMINATION = range(4)


def factor_for(
    layout: IntegerPointer, h: DoublePointer, n: int, damping: float, curvature: float, space: DoublePointer
) -> tuple[int, int]:
    """Factor A into `space` for n > 2, or n = 2 and d = 0: what becomes of the instance, and how `solve_by` goes on.

    Parameters as for `solve_damped`.
    """
    size = row_sum(h, n)
    if not size < math.inf:
        return NOT_FINITE, NO_FACTORS
    if layout[COUNT] != 0:
        code = factor_in_blocks(layout, h, n, damping, size, curvature, space)
        if code != UNDECIDED:
            return code, BLOCKS
    code = factor_damped(h, n, damping, size, curvature, space)
    if code == INDEFINITE:
        return USED, ELIMINATION
    return code, NO_FACTORS if code == SINGULAR else TRIANGLE


def solve_by(
    way: int, layout: IntegerPointer, h: DoublePointer, n: int, space: DoublePointer, c: DoublePointer, p: int
) -> None:
    """c <- A^-1 c by what `factor_for` has left in `space`, or in h, which ELIMINATION overwrites."""
    if way == BLOCKS and p == 1:
        solve(layout, space, n, c)
    elif way == BLOCKS:
        solve_rows_in_blocks(layout, space, n, c, p)
    elif way == ELIMINATION:
        eliminate(h, n, c, p)
    elif way == TRIANGLE and p == 1:
        cholesky_solve(space, n, c)
    elif way == TRIANGLE:
        solve_rows(space, n, c, p)


def solve_damped(
    layout: IntegerPointer,
    h: DoublePointer,
    n: int,
    damping: float,
    curvature: float,
    c: DoublePointer,
    p: int,
    space: DoublePointer,
) -> int:
    """c <- A^-1 c for n rows of p right-hand sides; returns what became of the instance.

    `layout` says what the blocks of H are, `curvature` is its lowest eigenvalue or NaN; `space` has n*n + 5 n numbers
    and h is overwritten.
    """
    if n == 1:
        code = solve_one(h, damping, c, p)
    elif n == 2 and damping > 0.0:
        code = solve_two(h, damping, c, p, space)
    else:
        code, way = factor_for(layout, h, n, damping, curvature, space)
        if code == NOT_FINITE:
            return code
        solve_by(way, layout, h, n, space, c, p)
    return checked(code, c, n * p, damping)


def checked(code: int, c: DoublePointer, size: int, damping: float) -> int:
    """What became of an instance whose solution is c."""
    if code != SINGULAR and not is_finite(c, size):
        return SINGULAR if damping == 0.0 else NOT_FINITE
    return code


def solve_free(
    layout: IntegerPointer,
    h: DoublePointer,
    n: int,
    damping: float,
    curvature: float,
    c: DoublePointer,
    p: int,
    space: DoublePointer,
    active: IntegerPointer,
) -> int:
    """`solve_damped` for the variables that are not active, rows of active ones <- 0; `curvature` is theirs, too.

    `layout` says that there are no blocks: the free block has others.
    """
    free = _pack_free(h, n, c, p, active)
    code = USED
    if free > 0:
        code = solve_damped(layout, h, free, damping, curvature, c, p, space)
    for i in range(n - 1, -1, -1):
        free -= 1 - active[i]
        for k in range(p):
            c[i * p + k] = 0.0 if active[i] != 0 else c[free * p + k]
    return code


def _pack_free(h: DoublePointer, n: int, c: DoublePointer, p: int, active: IntegerPointer) -> int:
    """Move the free block of H and the free rows of c to the front; returns how many variables are free."""
    free, place = 0, 0
    for i in range(n):
        if active[i] == 0:
            for j in range(n):
                if active[j] == 0:
                    h[place] = h[i * n + j]
                    place += 1
            for k in range(p):
                c[free * p + k] = c[i * p + k]
            free += 1
    return free


# What the drivers read from their problem: two kernels, of which the first writes the Hessian from the number AT on,
# each as (address of evaluate, of prepare, of shared prepared numbers or 0, how many an instance needs of its own);
# then addresses and sizes. DAMPING is a float64; ACTIVE is 0 where there are no bounds, ORDER and NUMBER where no
# instances share a Hessian (runtime/systems.py).
HESSIAN, SECOND = 0, 4
TABLE, EXTENTS, UNKNOWNS, WEIGHTS, SCRATCH, DAMPING = range(8, 14)
Y, Y_STRIDE, CURVATURE, CODES, OUT = range(14, 19)
DIRECTIONS, TOTAL, EACH_ROW, ACTIVE, LAYOUT, LARGEST = range(19, 25)
FACTORS, KEPT, FACTORS_ROOM, AT, ORDER, NUMBER, FIRST_BLOCK = range(25, 32)


def _prepared(problem: IntegerPointer, kernel: int, instance: int, own: DoublePointer) -> DoublePointer:
    """The prepared numbers of a kernel for this instance: shared ones, or those now written to `own`."""
    if problem[kernel + 3] == 0:
        return double_pointer_at(problem[kernel + 2])
    table, extents = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS])
    call_prepare(problem[kernel + 1], table, extents, instance, own)
    return own


def _evaluate(
    problem: IntegerPointer,
    kernel: int,
    instance: int,
    direction: DoublePointer,
    own: DoublePointer,
    scratch: DoublePointer,
    out: DoublePointer,
) -> None:
    """Evaluate one of the two kernels at the minimum of an instance."""
    point = shifted(double_pointer_at(problem[Y]), instance * problem[Y_STRIDE])
    table, extents = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS])
    prepared = _prepared(problem, kernel, instance, own)
    call_evaluate(problem[kernel], point, direction, table, extents, instance, prepared, scratch, out)


def _solve_slice(problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer) -> int:
    """direction <- A^-1 direction for the instances at the places [begin, end) of ORDER.

    DIRECTIONS         (TOTAL, UNKNOWNS): minus dl/dy first
    Y                  (TOTAL, UNKNOWNS), or (1, UNKNOWNS) with Y_STRIDE 0: the minima
    CURVATURE          (TOTAL, 2), second column: the lowest eigenvalue of the Hessian, or NaN where it is not known
    CODES              (TOTAL,): USED or LEFT_OUT on the way in, what became of the instance on the way out
    ACTIVE             (TOTAL, UNKNOWNS): 1 for each variable that a bound holds, else 0; or none
    FACTORS            (KEPT, FACTORS_ROOM): factors that the minimisation has kept (kept_factors.py), undamped
    NUMBER             which Hessian the instance at a place of ORDER has: factors serve all that stand together
    """
    n, damping, layout = problem[UNKNOWNS], doubles(problem)[DAMPING], integer_pointer_at(problem[LAYOUT])
    scratch = shifted(workspace, problem[HESSIAN + 3])
    work = shifted(scratch, problem[SCRATCH])
    h, space = shifted(work, problem[AT]), shifted(work, n + n * n)
    directions, codes = double_pointer_at(problem[DIRECTIONS]), integer_pointer_at(problem[CODES])
    curvature = double_pointer_at(problem[CURVATURE])
    order, number = integer_pointer_at(problem[ORDER]), integer_pointer_at(problem[NUMBER])
    shares, last, code, way = problem[ORDER] != 0 and problem[ACTIVE] == 0, -1, USED, NO_FACTORS
    for place in range(begin, end):
        if stop[0] != 0:
            return place
        instance = system = place
        if problem[ORDER] != 0:
            instance, system = order[place], number[place]
        if codes[instance] == LEFT_OUT:
            continue
        direction = shifted(directions, instance * n)
        if system == last:
            solve_by(way, layout, h, n, space, direction, 1)
            codes[instance] = checked(code, direction, n, damping)
            continue
        if system < problem[KEPT]:
            kept = shifted(double_pointer_at(problem[FACTORS]), system * problem[FACTORS_ROOM])
            if kept[0] != 0.0:
                solve_apart(layout, shifted(kept, HEAD), n, direction, space)
                codes[instance] = checked(USED, direction, n, 0.0)
                continue
        lowest = curvature[2 * instance + 1]
        if n == 1 and abs(lowest) < math.inf:
            h[0] = lowest
        else:
            _evaluate(problem, HESSIAN, instance, work, workspace, scratch, work)
        if problem[ACTIVE] != 0:
            active = shifted(integer_pointer_at(problem[ACTIVE]), instance * n)
            codes[instance] = solve_free(layout, h, n, damping, lowest, direction, 1, space, active)
        elif shares and n > 2:
            code, way = factor_for(layout, h, n, damping, lowest, space)
            codes[instance] = code
            if code != NOT_FINITE:
                solve_by(way, layout, h, n, space, direction, 1)
                codes[instance] = checked(code, direction, n, damping)
                last = -1 if way == ELIMINATION or way == NO_FACTORS else system  # noqa: SIM109 (numba)
        else:
            codes[instance] = solve_damped(layout, h, n, damping, lowest, direction, 1, space)
    return end


def _adjoint_blocks(
    problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer
) -> int:
    """For each block in [begin, end): the sum over its instances of direction . d(grad)/dw.

    SECOND             the kernel cross_adjoint
    DIRECTIONS, CODES  as `_solve_slice` leaves them; only instances that are USED or SHIFTED count
    OUT                (blocks, WEIGHTS), of which FIRST_BLOCK is the first; or where EACH_ROW is 1 (TOTAL, WEIGHTS): a
                       row for each instance, no sums
    LARGEST            (blocks,), of which FIRST_BLOCK is the first: the largest squared norm of what an instance of the
                       block adds; or none
    """
    n, p = problem[UNKNOWNS], problem[WEIGHTS]
    apart = problem[EACH_ROW] != 0 or problem[LARGEST] != 0  # else instances are added where they are computed
    scratch = shifted(workspace, problem[SECOND + 3])
    trial = shifted(scratch, problem[SCRATCH])
    directions, codes = double_pointer_at(problem[DIRECTIONS]), integer_pointer_at(problem[CODES])
    rows = double_pointer_at(problem[OUT])
    for place in range(begin, end):
        first = (place + problem[FIRST_BLOCK]) * BLOCK
        last = min(problem[TOTAL], first + BLOCK)
        looking, largest = apart, 0.0
        total = shifted(rows, place * p)
        vectors.zero(trial, p)
        while True:
            if problem[EACH_ROW] == 0:
                for k in range(p):
                    total[k] = 0.0
            for instance in range(first, last):
                if stop[0] != 0:
                    return place
                own = shifted(rows, instance * p) if problem[EACH_ROW] != 0 else (trial if looking else total)
                if problem[EACH_ROW] != 0:
                    vectors.zero(own, p)
                if codes[instance] != USED and codes[instance] != SHIFTED:
                    continue
                direction = shifted(directions, instance * n)
                _evaluate(problem, SECOND, instance, direction, workspace, scratch, own)
                if looking:
                    size = vectors.dot(own, own, p)
                    if not size < math.inf and not is_finite(own, p):
                        codes[instance] = NOT_FINITE
                        vectors.zero(own, p)
                        continue
                    largest = max(largest, size)
                    if problem[EACH_ROW] == 0:
                        vectors.move(own, total, p)
            if looking or is_finite(total, p):
                break
            looking = True
        if problem[LARGEST] != 0:
            sizes = double_pointer_at(problem[LARGEST])
            sizes[place] = largest
    return end


def _jacobian_slice(
    problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer
) -> int:
    """OUT[b] <- -A^-1 d(grad)/dw, (n, p), for the instances [begin, end).

    SECOND is the kernel cross; the rest as for `_solve_slice`.
    """
    n, p, layout = problem[UNKNOWNS], problem[WEIGHTS], integer_pointer_at(problem[LAYOUT])
    own_hessian, own_cross = workspace, shifted(workspace, problem[HESSIAN + 3])
    scratch = shifted(own_cross, problem[SECOND + 3])
    work = shifted(scratch, problem[SCRATCH])
    h, space = shifted(work, problem[AT]), shifted(work, n + n * n)
    curvature, codes = double_pointer_at(problem[CURVATURE]), integer_pointer_at(problem[CODES])
    for instance in range(begin, end):
        if stop[0] != 0:
            return instance
        rows = shifted(double_pointer_at(problem[OUT]), instance * n * p)
        _evaluate(problem, HESSIAN, instance, work, own_hessian, scratch, work)
        _evaluate(problem, SECOND, instance, work, own_cross, scratch, rows)
        for k in range(n * p):
            rows[k] = -rows[k]
        lowest, damping = curvature[2 * instance + 1], doubles(problem)[DAMPING]
        if problem[ACTIVE] != 0:
            active = shifted(integer_pointer_at(problem[ACTIVE]), instance * n)
            codes[instance] = solve_free(layout, h, n, damping, lowest, rows, p, space, active)
        else:
            codes[instance] = solve_damped(layout, h, n, damping, lowest, rows, p, space)
        if codes[instance] == NOT_FINITE:
            for k in range(n * p):
                rows[k] = math.nan
    return end


def solve_slice() -> Native:
    """The compiled `_solve_slice`."""
    return native(_solve_slice)


def adjoint_blocks() -> Native:
    """The compiled `_adjoint_blocks`."""
    return native(_adjoint_blocks)


def jacobian_slice() -> Native:
    """The compiled `_jacobian_slice`."""
    return native(_jacobian_slice)
