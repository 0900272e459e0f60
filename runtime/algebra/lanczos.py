"""The lowest eigenvalue of a Hessian of which there are only products with vectors: Lanczos's method, and a bound.

From a unit vector v, products make orthonormal vectors v_k = p_k(H) v and T, tridiagonal (k x k) with diagonal a and
b beside it, whose lowest eigenvalue `lowest` is one that H takes along some direction: where it is negative, the energy
curves down. That says nothing of eigenvalues of H below. But let u be the unit eigenvector of one of them, x. Then

    |p_k(x)| |u'v| = |u'v_k| <= 1        p_k(x) = det(T - x) / (b_1 ... b_k) up to its sign

so that |p_k(x)| <= 1 / |u'v|. Left of `lowest`, |p_k| only falls as x grows. Therefore each x < lowest at which |p_k|
is still larger than 1 / |u'v| is a lower bound of all eigenvalues. |p_k| grows exponentially with k: how small |u'v|
may be costs little.

v is a fixed vector of numbers that look uniformly random. For a vector drawn from a cube, |u'v| < UNLUCKY / sqrt(n)
with a probability of at most sqrt(2) UNLUCKY, whatever u is (Ball 1986, Proceedings of the American Mathematical
Society 97: no slice of the unit cube has an area above sqrt(2)). Rounding adds a few units of EPSILON of the largest
eigenvalue to b_k; it does not matter that the vectors lose their orthogonality. None is kept: to follow a direction
of negative curvature, products are repeated.
"""

from __future__ import annotations

import math

from ...compiler.machine_code.calling import call_evaluate, double_pointer_at, integer_pointer_at, prepared_for, shifted
from ...compiler.machine_code.native import Native, native
from ...compiler.machine_code.signature import DoublePointer, IntegerPointer, streaming
from ..statuses import CONVERGED, STALLED
from . import vectors
from .linear_algebra import EPSILON, FLAT, largest, lowest_eigenvalue, lowest_eigenvector

UNLUCKY = 1e-6
"""How much smaller than usual the part of the start vector may be that points to the lowest eigenvalue."""

MOST = 400
"""Products after which the bound is left open."""

BASIS = 3
"""Vectors that `lanczos` works with, besides 5 times MOST numbers."""


def start_vector(v: DoublePointer, n: int) -> None:
    """The fixed unit vector from which products begin (Park and Miller's minimal standard generator)."""
    state = 20061
    for i in range(n):
        state = state * 16807 % 2147483647
        v[i] = state / 2147483647.0 - 0.5
    vectors.scale(1.0 / math.sqrt(vectors.dot(v, v, n)), v, n)


@streaming
def _orthogonalise(
    product: DoublePointer, along: float, v: DoublePointer, before: float, previous: DoublePointer, n: int
) -> float:
    """previous <- product - along v - before previous; the square of its length."""
    total = 0.0
    for i in range(n):
        value = product[i] - along * v[i] - before * previous[i]
        previous[i] = value
        total += value * value
    return total


def is_bound(diagonal: DoublePointer, off: DoublePointer, count: int, x: float, size: float, luck: float) -> bool:
    """Whether no eigenvalue of H is below x, by the polynomial of `count` products; off has one number for each."""
    growth, pivot = 0.0, 1.0
    for i in range(count):
        coupling = off[i - 1] * (off[i - 1] / pivot) if i > 0 else 0.0
        pivot = diagonal[i] - x - coupling
        if not pivot > 0.0:
            return False
        growth += math.log(pivot / (off[i] + 2.0 * EPSILON * size))
    return growth > math.log(luck)


def lanczos(
    product: int,
    y: DoublePointer,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    scratch: DoublePointer,
    n: int,
    memory: DoublePointer,
    stop: IntegerPointer,
) -> tuple[float, float, float, int]:
    """The lowest eigenvalue of T, a lower bound of those of H, an upper one of their sizes in T, and the products.

    It ends when the bound is half of the eigenvalue, twice a negative one, or not to be told from 0 by rounding. The
    bound is NaN if it does not come so far, everything where products are not finite. For n = 1 all is exact.
    """
    tridiagonal = shifted(memory, BASIS * n)
    diagonal, off, work = tridiagonal, shifted(tridiagonal, MOST), shifted(tridiagonal, 2 * MOST)
    previous, v, q = memory, shifted(memory, n), shifted(memory, 2 * n)
    vectors.zero(previous, n)
    start_vector(v, n)
    if n == 1:
        v[0] = 1.0
        call_evaluate(product, y, v, table, extents, instance, prepared, scratch, q)
        return q[0], q[0], abs(q[0]), 1
    luck = math.sqrt(n) / UNLUCKY
    lowest, size, before = math.nan, 0.0, 0.0
    for k in range(MOST):
        if stop[0] != 0:
            return lowest, math.nan, size, k
        call_evaluate(product, y, v, table, extents, instance, prepared, scratch, q)
        if k == 0 and not 1e-140 < largest(q, n) < 1e140 and largest(q, n) > 0.0:  # squares would be no numbers
            return math.nan, math.nan, math.nan, 1
        diagonal[k] = vectors.dot(v, q, n)
        off[k] = before = math.sqrt(_orthogonalise(q, diagonal[k], v, before, previous, n))
        previous, v = v, previous
        if not before < math.inf:
            return math.nan, math.nan, math.nan, k + 1
        last = k + 1 == MOST or before <= 8.0 * EPSILON * max(size, abs(diagonal[k]))
        if last or (k + 1) % (1 + (k + 1) // 8) == 0:
            lowest, size = lowest_eigenvalue(diagonal, off, k + 1, work)
            if size == 0.0:
                return 0.0, 0.0, 0.0, k + 1
            least = lowest - max(0.5 * abs(lowest), 4.0 * EPSILON * luck * size)
            if is_bound(diagonal, off, k + 1, least, size, luck):
                above = lowest
                for _ in range(12):
                    middle = 0.5 * (least + above)
                    if is_bound(diagonal, off, k + 1, middle, size, luck):
                        least = middle
                    else:
                        above = middle
                return lowest, least, size, k + 1
            if last:
                return lowest, math.nan, size, k + 1
        vectors.scale(1.0 / before, v, n)
    return lowest, math.nan, size, MOST


def ritz_vector(
    product: int,
    y: DoublePointer,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    scratch: DoublePointer,
    n: int,
    memory: DoublePointer,
    lowest: float,
    size: float,
    count: int,
    out: DoublePointer,
) -> None:
    """out <- the unit vector along which H takes the eigenvalue that `lanczos` found; its largest entry is positive."""
    diagonal = shifted(memory, BASIS * n)
    off, z = shifted(diagonal, MOST), shifted(diagonal, 2 * MOST)
    lowest_eigenvector(diagonal, off, count, lowest, size, z, shifted(diagonal, 3 * MOST), shifted(diagonal, 4 * MOST))
    previous, v, q = memory, shifted(memory, n), shifted(memory, 2 * n)
    vectors.zero(previous, n)
    vectors.zero(out, n)
    if n == 1:
        out[0] = 1.0
        return
    start_vector(v, n)
    for k in range(count):
        vectors.add_scaled(z[k], v, out, n)
        if k + 1 < count:
            call_evaluate(product, y, v, table, extents, instance, prepared, scratch, q)
            _orthogonalise(q, diagonal[k], v, off[k - 1] if k > 0 else 0.0, previous, n)
            previous, v = v, previous
            vectors.scale(1.0 / off[k], v, n)
    peak = 0
    for i in range(1, n):
        if abs(out[i]) > abs(out[peak]):
            peak = i
    vectors.scale(math.copysign(1.0 / math.sqrt(vectors.dot(out, out, n)), out[peak]), out, n)


def memory_size(n: int) -> int:
    """How many numbers of memory both need."""
    return BASIS * n + 5 * MOST


# What `lanczos_slice` reads from its problem: the kernel of products, as in newton_cg.py, then addresses and sizes.
TABLE, EXTENTS, UNKNOWNS, SCRATCH, VARIABLES, REALS, INTEGERS, CURVED, DIRECTIONS, FIRST = range(4, 14)


def _lanczos_slice(
    problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer
) -> int:
    """For those of the instances [begin, end) that are CONVERGED or STALLED: the curvature at VARIABLES.

    REALS      (B, 2): the second becomes a lower bound of the eigenvalues, NaN where it is still open after MOST
    CURVED     (B,): the lowest eigenvalue that was found, if it is negative beyond rounding; else 0
    DIRECTIONS (B, n): then the vector along which the energy curves so
    """
    table, extents = integer_pointer_at(problem[TABLE]), integer_pointer_at(problem[EXTENTS])
    n, first = problem[UNKNOWNS], problem[FIRST]
    scratch = shifted(workspace, problem[3])
    memory = shifted(scratch, problem[SCRATCH])
    for instance in range(first + begin, first + end):
        if stop[0] != 0:
            return instance - first
        curved = shifted(double_pointer_at(problem[CURVED]), instance)
        curved[0] = 0.0
        status = integer_pointer_at(problem[INTEGERS])[3 * instance + 2]
        if status != CONVERGED and status != STALLED:
            continue
        y = shifted(double_pointer_at(problem[VARIABLES]), instance * n)
        prepared = prepared_for(problem, table, extents, instance, workspace)
        lowest, least, size, count = lanczos(
            problem[0], y, table, extents, instance, prepared, scratch, n, memory, stop
        )
        reals = shifted(double_pointer_at(problem[REALS]), 2 * instance)
        reals[1] = least
        if lowest < -FLAT * size:
            curved[0] = lowest
            direction = shifted(double_pointer_at(problem[DIRECTIONS]), instance * n)
            ritz_vector(
                problem[0], y, table, extents, instance, prepared, scratch, n, memory, lowest, size, count, direction
            )
    return end


def lanczos_slice() -> Native:
    """The compiled `_lanczos_slice`."""
    return native(_lanczos_slice)
