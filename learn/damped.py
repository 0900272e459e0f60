"""The damped linear solves of eq. 10 and the compiled loops around them.

For one instance with Hessian H (n x n) and damping d > 0 the matrix that is inverted is

    A = H + (d + s) I,      s = 0 where H is positive semi-definite, else at least -(lowest eigenvalue of H)

so that |A^-1| <= 1/d at every point, a saddle or a maximum too. That this also holds for the numbers that come out of
a floating-point solve is seen as follows. A Cholesky solve of an n x n system returns the exact solution of a system
whose matrix differs by at most n(3n + 1) u |A| (Higham, Accuracy and Stability of Numerical Algorithms, theorem 10.4;
u = 2^-53). Let pad be three times that for |H|, |H| being its largest row sum.
 - If the Cholesky factorisation of H - 2 pad I succeeds, the lowest eigenvalue of H is at least pad, and s = 0: what
   the solve loses is made up by it. (Or the minimiser has computed a lowest eigenvalue far above pad.)
 - Otherwise the lowest eigenvalue is computed, and s = max(0, -lowest) + pad: |A| is at most 2 |H| + d + pad, so that
   two thirds of pad make up for the solve, and the rest for the error of the eigenvalue, a few u |H|.
The bound is then exceeded by less than the rounding of d itself: n(3n + 1) u of it.
For n = 1 the matrix is max(h, 0) + d, exactly, and h is the curvature that the minimiser has computed.

With d = 0 nothing is added (Samuel and Tappen's derivative, defined at saddles too). A matrix is reported as singular
if it has an eigenvalue within 16 n u |H| of 0.

Sums over the batch run over blocks of 64 instances that are added in order: the same bits for any number of threads.
An instance whose numbers are not finite is left out of its block, with the same result as if it were not there.
"""

from __future__ import annotations

import math

from ..compiler.calling import call_evaluate, call_prepare, shifted
from ..compiler.evaluate import BLOCK
from ..compiler.native import Native, native
from ..compiler.signature import DoublePointer, IntegerPointer
from ..runtime.linear_algebra import EPSILON, TINY, cholesky, cholesky_solve
from ..runtime.trust_region import spectrum

# What became of an instance. LEFT_OUT and USED are also what the caller asks for; INDEFINITE stays inside.
LEFT_OUT, USED, SHIFTED, NOT_FINITE, SINGULAR, INDEFINITE = 0, 1, 2, 3, 4, 5

SINGULAR_AT = 8.0 * EPSILON
"""With d = 0, an eigenvalue within n times this part of |H| of 0 is rounding."""

SAFE = 1e-6
"""A known lowest eigenvalue above this part of |H| needs no proof by factorisation: kernels are far more exact."""


def workspace_numbers(n: int, p: int) -> int:
    """float64 numbers that a thread needs besides prepared numbers and the kernels' scratch."""
    return 2 * n * n + 6 * n + BLOCK * n + p + 16


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
        spectrum(h, n, space)
        diagonal, off = shifted(space, n * n), shifted(space, n * n + n)
        within = negative_pivots(diagonal, off, n, margin) - negative_pivots(diagonal, off, n, -margin)
        return SINGULAR if within > 0 else INDEFINITE
    shift, code = damping, USED
    if not definite:
        lowest, _ = spectrum(h, n, space)
        shift += max(0.0, -lowest) + pad
        code = SHIFTED if lowest < -pad else USED
    for i in range(n):
        h[i * n + i] += shift
    cholesky(h, n, space)
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
    lowest, _ = spectrum(h, 2, space)
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


def solve_damped(
    h: DoublePointer, n: int, damping: float, curvature: float, c: DoublePointer, p: int, space: DoublePointer
) -> int:
    """c <- A^-1 c for n rows of p right-hand sides; returns what became of the instance.

    `curvature` is the lowest eigenvalue of H or NaN; `space` has n*n + 5 n numbers and h is overwritten.
    """
    if n == 1:
        code = solve_one(h, damping, c, p)
    elif n == 2 and damping > 0.0:
        code = solve_two(h, damping, c, p, space)
    else:
        size = row_sum(h, n)
        if not size < math.inf:
            return NOT_FINITE
        code = factor_damped(h, n, damping, size, curvature, space)
        if code == INDEFINITE:
            eliminate(h, n, c, p)
            code = USED
        elif code != SINGULAR:
            if p == 1:
                cholesky_solve(space, n, c)
            else:
                solve_rows(space, n, c, p)
    if code != SINGULAR and not is_finite(c, n * p):
        return SINGULAR if damping == 0.0 else NOT_FINITE
    return code


def _adjoint_blocks(
    hessian: int,
    prepare_hessian: int,
    each_hessian: int,
    prepared_hessian: DoublePointer,
    adjoint: int,
    prepare_adjoint: int,
    each_adjoint: int,
    prepared_adjoint: DoublePointer,
    y: DoublePointer,
    y_stride: int,
    slope: DoublePointer,
    slope_stride: int,
    curvature: DoublePointer,
    table: IntegerPointer,
    extents: IntegerPointer,
    n: int,
    p: int,
    damping: float,
    codes: IntegerPointer,
    rows: DoublePointer,
    each_row: int,
    count: int,
    scratch: DoublePointer,
    work: DoublePointer,
    begin: int,
    end: int,
    stop: IntegerPointer,
) -> int:
    """For each block in [begin, end): minus the sum over its instances of u . d(grad)/dw, u = A^-1 slope.

    hessian, ..., prepared_adjoint   two kernels, the first of which writes gradient and Hessian: addresses of evaluate
                       and prepare, whether each instance prepares its own weights, and the prepared numbers
    y, slope           (count, n) or (1, n) with stride 0: the minima, and dl/dy
    curvature          (count, 2), first column: the lowest eigenvalue of the Hessian, or NaN where it is not known
    codes              (count,): USED or LEFT_OUT on the way in, what became of the instance on the way out
    rows               (blocks, p); or (count, p) where each_row is 1: a row for each instance, no sums
    work               `workspace_numbers(n, p)`
    """
    h, space = shifted(work, n), shifted(work, n + n * n)
    directions = shifted(space, n * n + 5 * n)
    trial = shifted(directions, BLOCK * n)
    for block in range(begin, end):
        first, last = block * BLOCK, min(count, (block + 1) * BLOCK)
        for instance in range(first, last):
            if stop[0] != 0:
                return block
            if codes[instance] == LEFT_OUT:
                continue
            if n == 1 and abs(curvature[2 * instance]) < math.inf:
                h[0] = curvature[2 * instance]
            else:
                if each_hessian != 0:
                    call_prepare(prepare_hessian, table, extents, instance, prepared_hessian)
                point = shifted(y, instance * y_stride)
                call_evaluate(hessian, point, point, table, extents, instance, prepared_hessian, scratch, work)
            direction = shifted(directions, (instance - first) * n)
            for k in range(n):
                direction[k] = -slope[instance * slope_stride + k]
            codes[instance] = solve_damped(h, n, damping, curvature[2 * instance], direction, 1, space)
        looking = False
        while True:
            row = shifted(rows, block * p)
            if each_row == 0:
                for k in range(p):
                    row[k] = 0.0
            for instance in range(first, last):
                if stop[0] != 0:
                    return block
                if each_row != 0:
                    row = shifted(rows, instance * p)
                    for k in range(p):
                        row[k] = 0.0
                if codes[instance] != USED and codes[instance] != SHIFTED:
                    continue
                if each_adjoint != 0:
                    call_prepare(prepare_adjoint, table, extents, instance, prepared_adjoint)
                point, direction = shifted(y, instance * y_stride), shifted(directions, (instance - first) * n)
                if looking:
                    for k in range(p):
                        trial[k] = 0.0
                    call_evaluate(adjoint, point, direction, table, extents, instance, prepared_adjoint, scratch, trial)
                    if not is_finite(trial, p):
                        codes[instance] = NOT_FINITE
                        continue
                call_evaluate(adjoint, point, direction, table, extents, instance, prepared_adjoint, scratch, row)
                if each_row != 0 and not is_finite(row, p):
                    codes[instance] = NOT_FINITE
                    for k in range(p):
                        row[k] = 0.0
            if looking or each_row != 0 or is_finite(row, p):
                break
            looking = True
    return end


def _jacobian_slice(
    hessian: int,
    prepare_hessian: int,
    each_hessian: int,
    prepared_hessian: DoublePointer,
    cross: int,
    prepare_cross: int,
    each_cross: int,
    prepared_cross: DoublePointer,
    y: DoublePointer,
    y_stride: int,
    curvature: DoublePointer,
    table: IntegerPointer,
    extents: IntegerPointer,
    n: int,
    p: int,
    damping: float,
    codes: IntegerPointer,
    out: DoublePointer,
    scratch: DoublePointer,
    work: DoublePointer,
    begin: int,
    end: int,
    stop: IntegerPointer,
) -> int:
    """out[b] <- -A^-1 d(grad)/dw, (n, p), for the instances [begin, end); the rest as for `_adjoint_blocks`."""
    h, space = shifted(work, n), shifted(work, n + n * n)
    for instance in range(begin, end):
        if stop[0] != 0:
            return instance
        if each_hessian != 0:
            call_prepare(prepare_hessian, table, extents, instance, prepared_hessian)
        point = shifted(y, instance * y_stride)
        call_evaluate(hessian, point, point, table, extents, instance, prepared_hessian, scratch, work)
        if each_cross != 0:
            call_prepare(prepare_cross, table, extents, instance, prepared_cross)
        rows = shifted(out, instance * n * p)
        call_evaluate(cross, point, point, table, extents, instance, prepared_cross, scratch, rows)
        for k in range(n * p):
            rows[k] = -rows[k]
        codes[instance] = solve_damped(h, n, damping, curvature[2 * instance], rows, p, space)
        if codes[instance] == NOT_FINITE:
            for k in range(n * p):
                rows[k] = math.nan
    return end


def adjoint_blocks() -> Native:
    """The compiled `_adjoint_blocks`."""
    return native(_adjoint_blocks)


def jacobian_slice() -> Native:
    """The compiled `_jacobian_slice`."""
    return native(_jacobian_slice)
