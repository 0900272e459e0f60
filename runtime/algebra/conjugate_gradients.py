"""Preconditioned conjugate gradients for a sparse Hessian H + shift, of which a kernel has written the numbers (slots).

Three preconditioners M = E E': the factors of sweeps.py where H has a few diagonals, else the diagonal of H; and the
exact factors of multifrontal.py (`Factored`), with which one step is enough where H + shift is positive definite. The
steps are those of the plain method for E^-1 (H + shift) E'^-1, so that |E' x|, the length of x that M measures, is an
ordinary norm. With sweeps, products are part of the sweeps; else a kernel makes them from the slots. Where only
products are at hand, a kernel makes them from the point itself, which then stands in for the slots. There M = 1
(`Plain`), or the inverse of what the last products of the solve before say of the inverse of H (`Remembering`,
quasi_newton.py); M itself is not split then, and the steps are those of the method for M^-1 (H + shift).

`System` is what depends on the pattern alone; it is made once for each pattern.
"""

from __future__ import annotations

import math
from array import array
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ...compiler.calls.arrays import address_of
from ...compiler.calls.pattern import Pattern
from ...compiler.machine_code.calling import call_evaluate, integer_pointer_at, shifted
from ...compiler.machine_code.signature import DoublePointer, IntegerPointer, streaming, vectorised
from . import multifrontal, sweeps, vectors
from .fronts import Fronts
from .lanczos import start_vector
from .linear_algebra import FLAT
from .quasi_newton import count_pairs, forget_pairs, keep_pair, pairs_size, precondition_by_pairs, use_pairs
from .sweeps import (
    BACK,
    BACK_RUNS,
    DIAGONALS,
    FORTH,
    FORTH_RUNS,
    MARGIN,
    MISSING,
    MISSINGS,
    ONE_BY_ONE,
    ORDER,
    ROWS,
    SOURCES,
)

FLATTEST = 1e-13
"""A curvature along a direction below this part of what the preconditioner says counts as none; without one, of what
the first product says."""

# What `layout` holds behind what sweeps.py reads. With the diagonal, STARTS says where the sources of a row begin.
# ENTRIES is 0 where each number comes from one slot; else the numbers of the pattern are summed first, from SLOTS
# between SLOT_STARTS. FRONTS is the layout of multifrontal.py, or 0. REMEMBERS is 1 where products are kept for the
# next solve.
STARTS, ENTRIES, SLOTS, SLOT_STARTS, FRONTS, REMEMBERS, SIZE = range(12, 19)

VECTORS = 5
"""Vectors that `conjugate_gradients` works with."""

LEAST_SCALE, UNSCALED = 1e-8, 1e-30
"""Part of the largest number on the diagonal below which one says nothing of the scale of its unknown; where H is
positive definite, all do."""

LEAST_LIFT, MOST_LIFT, GROWTH = 1e-10, 1e30, 10.0
"""Parts of the diagonal that are added to H until it is positive definite."""

MOST_ITERATIONS = 20
"""Inverse iterations for the lowest eigenvalue."""


class System:
    """How the matrices of one pattern are preconditioned.

    layout   int64, for compiled functions
    memory   float64 numbers of working memory that `conjugate_gradients` needs
    """

    def __init__(self, pattern: Pattern) -> None:
        n = pattern.shape[0]
        self.layout = array("q", bytes(8 * SIZE))
        self.layout[ROWS] = n
        found = sweeps.find_sweeps(pattern.indptr, pattern.indices)
        if found is None:
            sources, starts = pattern.diagonal
            self._keep: tuple[Any, ...] = sources, starts
            self.layout[SOURCES], self.layout[STARTS] = map(address_of, self._keep)
            self.memory = (1 + VECTORS) * n
            return
        sources = found.entries
        entries = 0
        if pattern.starts is None:
            sources = pattern.sources[sources] if pattern.nnz else sources
        else:
            entries = pattern.nnz
            self.layout[SLOTS], self.layout[SLOT_STARTS] = address_of(pattern.sources), address_of(pattern.starts)
        self._keep = pattern.sources, pattern.starts, found, sources
        layout, count = self.layout, len(found.entries) // 2
        layout[DIAGONALS], layout[MARGIN] = count, found.margin
        layout[FORTH], layout[FORTH_RUNS] = address_of(found.forth), len(found.forth)
        layout[BACK], layout[BACK_RUNS] = address_of(found.back), len(found.back)
        layout[ONE_BY_ONE], layout[MISSINGS], layout[ENTRIES] = found.one_by_one, len(found.missing), entries
        layout[ORDER], layout[SOURCES] = address_of(found.order), address_of(sources)
        layout[MISSING] = address_of(found.missing)
        self.memory = (1 + 2 * count) * n + (1 + VECTORS) * (n + 2 * found.margin) + entries

    @property
    def address(self) -> int:
        return self.layout.buffer_info()[0]


class Factored(System):
    """The matrices of one pattern, factorised."""

    def __init__(self, pattern: Pattern, fronts: Fronts) -> None:
        n = pattern.shape[0]
        sources, starts = pattern.diagonal
        counts = np.diff(starts)[fronts.order]
        ends = np.cumsum(counts)
        inside = np.arange(len(sources)) - np.repeat(ends - counts, counts)
        own = sources[np.repeat(starts[fronts.order], counts) + inside]
        arrays = fronts.arrays
        inner = array("q", (len(fronts.firsts) - 1, fronts.room, fronts.widest, fronts.size, *map(address_of, arrays)))
        self._keep = arrays, inner, own, np.append(0, ends)
        self.layout = array("q", bytes(8 * SIZE))
        self.layout[ROWS], self.layout[ORDER] = n, address_of(fronts.order)
        self.layout[SOURCES], self.layout[STARTS] = map(address_of, self._keep[2:])
        self.layout[FRONTS] = inner.buffer_info()[0]
        self.memory = (2 + VECTORS) * n + fronts.size + fronts.room + fronts.widest


class Plain(System):
    """No preconditioner: products with the Hessian of n unknowns are all that is known of it."""

    def __init__(self, n: int) -> None:
        self.layout = array("q", bytes(8 * SIZE))
        self.layout[ROWS] = n
        self.memory = (1 + VECTORS) * n


class Remembering(Plain):
    """No more is known of the Hessian of n unknowns, but each solve is preconditioned by the products of the last."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.layout[REMEMBERS] = 1
        self.memory += pairs_size(n)


_systems: WeakKeyDictionary[Pattern, System] = WeakKeyDictionary()


def system_of(pattern: Pattern) -> System:
    """The system of a pattern, made when it is first asked for."""
    found = _systems.get(pattern)
    if found is None:
        found = _systems[pattern] = System(pattern)
    return found


# ---------------------------------------------------------------------------------------------- compiled

X, R, P, T, Q = range(5)


def _scale(layout: IntegerPointer, memory: DoublePointer) -> DoublePointer:
    n, count = layout[ROWS], layout[DIAGONALS]
    return shifted(memory, ((1 + 2 * count) * n if count > 0 else 0) + layout[MARGIN])


def _vector(layout: IntegerPointer, memory: DoublePointer, which: int) -> DoublePointer:
    return shifted(_scale(layout, memory), (1 + which) * (layout[ROWS] + 2 * layout[MARGIN]))


def _fronts(layout: IntegerPointer) -> IntegerPointer:
    return integer_pointer_at(layout[FRONTS])


def _factor(layout: IntegerPointer, memory: DoublePointer) -> DoublePointer:
    return _vector(layout, memory, 1 + VECTORS)


def _room(layout: IntegerPointer, memory: DoublePointer) -> DoublePointer:
    return shifted(_factor(layout, memory), _fronts(layout)[multifrontal.SIZE])


def _pairs(layout: IntegerPointer, memory: DoublePointer) -> DoublePointer:
    return shifted(memory, (1 + VECTORS) * layout[ROWS])


def forget(layout: IntegerPointer, memory: DoublePointer) -> None:
    """Let the next solve be the first of a descent, whatever `memory` has been used for."""
    if layout[REMEMBERS] != 0:
        forget_pairs(_pairs(layout, memory), layout[ROWS])


def precondition(
    layout: IntegerPointer, slots: DoublePointer, shift: float, memory: DoublePointer, stop: IntegerPointer
) -> float:
    """Make the preconditioner of H + shift; returns the largest magnitude on its diagonal, 0 where it is unknown."""
    n, count, margin = layout[ROWS], layout[DIAGONALS], layout[MARGIN]
    scale = _scale(layout, memory)
    if layout[SOURCES] == 0:
        for i in range(n):
            scale[i] = 1.0
        return 0.0
    if layout[FRONTS] != 0:
        return _factorise(layout, slots, shift, memory, stop)
    if count == 0:
        return _by_diagonal(layout, slots, shift, LEAST_SCALE, scale)
    for which in range(-1, VECTORS):
        vector = _vector(layout, memory, which)
        for i in range(margin):
            vector[i - margin] = 0.0
            vector[n + i] = 0.0
    given, inverse, roots = _given(layout, slots, memory), _vector(layout, memory, P), _vector(layout, memory, X)
    below, sizes = _vector(layout, memory, T), _vector(layout, memory, Q)
    return sweeps.factorise(layout, given, shift, memory, scale, inverse, roots, below, sizes)


def eigenvalue_bounds(
    layout: IntegerPointer, slots: DoublePointer, memory: DoublePointer, stop: IntegerPointer
) -> tuple[float, float]:
    """A lower bound of the eigenvalues of H, and an upper one of their magnitudes.

    By Gershgorin's discs of a matrix with few diagonals, by factors where there are fronts; else, or where they show
    that H is indefinite, NaN. `memory` is overwritten.
    """
    if layout[FRONTS] != 0:
        return _bounds_by_factors(layout, slots, memory, stop)
    if layout[DIAGONALS] == 0:
        return math.nan, math.nan
    return sweeps.discs(layout, _given(layout, slots, memory), memory, _vector(layout, memory, P))


def _bounds_by_factors(
    layout: IntegerPointer, slots: DoublePointer, memory: DoublePointer, stop: IntegerPointer
) -> tuple[float, float]:
    """Inverse iteration finds the lowest eigenvalue; H less 0.99 of it, or less half of it, is still definite."""
    n, fronts = layout[ROWS], _fronts(layout)
    v, w = _vector(layout, memory, X), _vector(layout, memory, R)
    lowest, size = multifrontal.discs(fronts, slots, n, v, w)
    if lowest > 0.0 or not size < math.inf:
        return lowest, size
    if not _is_definite(layout, slots, 0.0, memory, stop):
        if lowest >= -FLAT * size:
            return lowest, size
        return (-FLAT * size if _is_definite(layout, slots, FLAT * size, memory, stop) else math.nan), size
    found, before = math.inf, math.inf
    start_vector(v, n)
    for k in range(MOST_ITERATIONS):
        vectors.products(_scale(layout, memory), v, w, n)
        multifrontal.forth(fronts, _factor(layout, memory), w, _room(layout, memory))
        before, found = found, 1.0 / vectors.dot(w, w, n)  # v'v / v'H^-1 v
        if stop[0] != 0 or (k >= 3 and before - found <= 1e-3 * found):
            break
        multifrontal.back(fronts, _factor(layout, memory), w, _room(layout, memory))
        vectors.products(_scale(layout, memory), w, v, n)
        vectors.scale(1.0 / math.sqrt(vectors.dot(v, v, n)), v, n)
    for part in range(2):
        least = 0.99 * found if part == 0 else 0.5 * found
        if least > FLAT * size and _is_definite(layout, slots, -least, memory, stop):
            return least, size
    return -FLAT * size, size


def _factorise(
    layout: IntegerPointer, slots: DoublePointer, shift: float, memory: DoublePointer, stop: IntegerPointer
) -> float:
    """The factors of H + shift if it is positive definite, else of H + shift + a part of its diagonal; its largest."""
    scale, factor, room = _scale(layout, memory), _factor(layout, memory), _room(layout, memory)
    if _is_definite(layout, slots, shift, memory, stop):
        return _by_diagonal(layout, slots, shift, UNSCALED, scale)
    top, lift = _by_diagonal(layout, slots, shift, LEAST_SCALE, scale), LEAST_LIFT
    while lift < MOST_LIFT and not multifrontal.factorise(
        _fronts(layout), slots, shift, lift, scale, factor, room, stop
    ):
        lift *= GROWTH
    return top


def _is_definite(
    layout: IntegerPointer, slots: DoublePointer, shift: float, memory: DoublePointer, stop: IntegerPointer
) -> bool:
    """Whether H + shift is positive definite; then its factors are in the memory."""
    scale, factor = _scale(layout, memory), _factor(layout, memory)
    _by_diagonal(layout, slots, shift, UNSCALED, scale)
    return multifrontal.factorise(_fronts(layout), slots, shift, 0.0, scale, factor, _room(layout, memory), stop)


def _given(layout: IntegerPointer, slots: DoublePointer, memory: DoublePointer) -> DoublePointer:
    """What the SOURCES of sweeps.py speak of: the slots, or the entries summed from them."""
    if layout[ENTRIES] == 0:
        return slots
    entries = shifted(_vector(layout, memory, VECTORS), -layout[MARGIN])
    starts = integer_pointer_at(layout[SLOT_STARTS])
    _sum_slots(slots, integer_pointer_at(layout[SLOTS]), starts, layout[ENTRIES], entries)
    return entries


@vectorised
def _sum_slots(
    slots: DoublePointer, sources: IntegerPointer, starts: IntegerPointer, entries: int, out: DoublePointer
) -> None:
    for e in range(entries):
        total = 0.0
        for k in range(starts[e], starts[e + 1]):
            total += slots[sources[k]]
        out[e] = total


@vectorised
def _by_diagonal(
    layout: IntegerPointer, slots: DoublePointer, shift: float, part: float, scale: DoublePointer
) -> float:
    """scale <- 1 / sqrt |diagonal of H + shift|, of at least a part of its largest, which is returned."""
    n, sources, starts = layout[ROWS], integer_pointer_at(layout[SOURCES]), integer_pointer_at(layout[STARTS])
    top = 0.0
    for i in range(n):
        total = shift
        for k in range(starts[i], starts[i + 1]):
            total += slots[sources[k]]
        scale[i] = abs(total)
        top = max(top, scale[i])
    least = part * top if top > 0.0 else 1.0
    for i in range(n):
        scale[i] = 1.0 / math.sqrt(max(scale[i], least))
    return top


def _enter(layout: IntegerPointer, memory: DoublePointer, b: DoublePointer, r: DoublePointer) -> None:
    """r <- E^-1 b."""
    n, scale = layout[ROWS], _scale(layout, memory)
    if layout[FRONTS] != 0:
        vectors.gather_products(scale, b, integer_pointer_at(layout[ORDER]), r, n)
        multifrontal.forth(_fronts(layout), _factor(layout, memory), r, _room(layout, memory))
    elif layout[DIAGONALS] == 0:
        vectors.products(scale, b, r, n)
    else:
        vectors.gather_products(scale, b, integer_pointer_at(layout[ORDER]), r, n)
        sweeps.forth(layout, memory, r)


def _leave(layout: IntegerPointer, memory: DoublePointer, x: DoublePointer, out: DoublePointer) -> None:
    """out <- E'^-1 x, which x becomes as well, in the order of the sweeps or the elimination."""
    n, scale = layout[ROWS], _scale(layout, memory)
    if layout[DIAGONALS] == 0 and layout[FRONTS] == 0:
        vectors.products(scale, x, out, n)
    else:
        if layout[FRONTS] != 0:
            multifrontal.back(_fronts(layout), _factor(layout, memory), x, _room(layout, memory))
        else:
            sweeps.back(layout, memory, x)
        vectors.scatter_products(scale, x, integer_pointer_at(layout[ORDER]), out, n)


def _size(layout: IntegerPointer, memory: DoublePointer, r: DoublePointer, work: DoublePointer) -> float:
    """|E r|: the size of a residual as it was before `_enter`."""
    n, scale = layout[ROWS], _scale(layout, memory)
    if layout[FRONTS] != 0:
        vectors.zero(work, n)
        multifrontal.multiply(_fronts(layout), _factor(layout, memory), r, work, _room(layout, memory))
    else:
        vectors.copy(r, work, n)
    if layout[DIAGONALS] > 0:
        sweeps.add_lower(layout, memory, r, work)
    return math.sqrt(_quotients(work, scale, n))


def _multiply(
    layout: IntegerPointer,
    memory: DoublePointer,
    product: int,
    slots: DoublePointer,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    scratch: DoublePointer,
    shift: float,
    p: DoublePointer,
    q: DoublePointer,
) -> float:
    """q <- E^-1 (H + shift) E'^-1 p; returns p'q."""
    n, scale, t = layout[ROWS], _scale(layout, memory), _vector(layout, memory, T)
    if layout[FRONTS] != 0:
        order, given = integer_pointer_at(layout[ORDER]), _vector(layout, memory, VECTORS)
        vectors.copy(p, t, n)
        _leave(layout, memory, t, given)
        call_evaluate(product, slots, given, table, extents, instance, prepared, scratch, t)
        vectors.add_scaled(shift, given, t, n)
        vectors.gather_products(scale, t, order, q, n)
        multifrontal.forth(_fronts(layout), _factor(layout, memory), q, _room(layout, memory))
        return vectors.dot(p, q, n)
    if layout[DIAGONALS] == 0:
        vectors.products(scale, p, t, n)
        call_evaluate(product, slots, t, table, extents, instance, prepared, scratch, q)
        return _add_scaled(p, scale, shift, t, q, n)
    vectors.copy(p, t, n)
    sweeps.back(layout, memory, t)
    vectors.add_products(p, memory, t, q, n)
    sweeps.forth(layout, memory, q)
    return _add(p, t, q, n)


@streaming
def _quotients(a: DoublePointer, b: DoublePointer, n: int) -> float:
    """The sum of squares of a/b."""
    total = 0.0
    for i in range(n):
        quotient = a[i] / b[i]
        total += quotient * quotient
    return total


@streaming
def _add_scaled(
    p: DoublePointer, scale: DoublePointer, shift: float, t: DoublePointer, q: DoublePointer, n: int
) -> float:
    """q <- scale (q + shift t); returns p'q."""
    total = 0.0
    for i in range(n):
        value = scale[i] * (q[i] + shift * t[i])
        q[i] = value
        total += p[i] * value
    return total


@streaming
def _add(p: DoublePointer, t: DoublePointer, q: DoublePointer, n: int) -> float:
    """q <- q + t; returns p'q."""
    total = 0.0
    for i in range(n):
        value = q[i] + t[i]
        q[i] = value
        total += p[i] * value
    return total


@streaming
def _advance(length: float, p: DoublePointer, q: DoublePointer, x: DoublePointer, r: DoublePointer, n: int) -> float:
    """One step along p, of which q is the product; returns r'r."""
    total = 0.0
    for i in range(n):
        x[i] += length * p[i]
        left = r[i] - length * q[i]
        r[i] = left
        total += left * left
    return total


def conjugate_gradients(
    layout: IntegerPointer,
    memory: DoublePointer,
    product: int,
    slots: DoublePointer,
    table: IntegerPointer,
    extents: IntegerPointer,
    instance: int,
    prepared: DoublePointer,
    scratch: DoublePointer,
    shift: float,
    b: DoublePointer,
    radius: float,
    fallback: float,
    tolerance: float,
    limit: int,
    out: DoublePointer,
    stop: IntegerPointer,
) -> tuple[int, float, float]:
    """out <- an approximate minimiser x of -b'x + x'(H + shift)x/2 over |x| <= radius, measured by the preconditioner.

    Returns how it ended, |x|, and the product of x and its residual: 0 the residual is below tolerance |b|, 1 at the
    boundary, 2 no curvature was left, 3 after `limit` steps or at numbers that are not finite. Without any curvature at
    first, x is `fallback` long. Where products are remembered, M is multiplied by a number for which the direction that
    comes first is as long as it is, so that the radius of one solve is one for the next. `precondition` has been called
    for the same H and shift; `memory` is the system's.
    """
    n = layout[ROWS]
    x, r, p, q = (
        _vector(layout, memory, X),
        _vector(layout, memory, R),
        _vector(layout, memory, P),
        _vector(layout, memory, Q),
    )
    _enter(layout, memory, b, r)
    vectors.zero(x, n)
    wanted = tolerance * math.sqrt(vectors.dot(b, b, n))
    rr = vectors.dot(r, r, n)
    enough = tolerance * tolerance * rr
    z, pairs, count, kept, measure = r, r, 0, 0, 1.0  # z = M^-1 r, which r is where M is split
    if layout[REMEMBERS] != 0:
        pairs = _pairs(layout, memory)
        count = count_pairs(pairs, n)
        if count > 0:
            z = _vector(layout, memory, T)
            squares = precondition_by_pairs(pairs, count, n, r, z)
            measure = math.sqrt(squares / vectors.dot(z, z, n))
            if 0.0 < squares < math.inf and 0.0 < measure < math.inf:
                rr, enough = squares, math.inf
            else:
                z, count, measure = r, 0, 1.0
    radius *= measure
    fallback *= measure
    vectors.copy(z, p, n)
    xx, xp, pp = 0.0, 0.0, rr
    usual = 1.0
    ended, k = 3, 0
    while k < limit:
        if stop[0] != 0:
            ended = 0
            break
        if not rr > enough:
            size = _size(layout, memory, r, q)
            if size <= wanted:
                ended = 0
                break
            if not size < math.inf or not rr > 0.0:
                break
            if count == 0:
                enough = rr * min(0.25, (0.5 * wanted / size) * (wanted / size))
        curved = _multiply(layout, memory, product, slots, table, extents, instance, prepared, scratch, shift, p, q)
        if k == 0 and layout[SOURCES] == 0:
            usual = math.sqrt(vectors.dot(q, q, n) / vectors.dot(p, p, n))
            if usual > 0.0:
                fallback = max(fallback, measure * math.sqrt(vectors.dot(r, r, n)) / usual)
            if count > 0:
                usual = 1.0
        flat = not curved > FLATTEST * usual * pp
        if layout[REMEMBERS] != 0 and not flat:
            keep_pair(pairs, kept, p, q, curved, n)
            kept += 1
        length = rr / curved if not flat else 0.0
        further = xx + 2.0 * length * xp + length * length * pp
        if flat or further >= radius * radius:
            if flat and not radius < math.inf:
                length = 0.0 if k > 0 else fallback / math.sqrt(pp)
            else:
                length = (math.sqrt(xp * xp + pp * max(0.0, radius * radius - xx)) - xp) / pp
            _advance(length, p, q, x, r, n)
            xx = xx + 2.0 * length * xp + length * length * pp
            ended = 2 if flat else 1
            break
        following = _advance(length, p, q, x, r, n)
        if count > 0:
            following = precondition_by_pairs(pairs, count, n, r, z)
        xx = further
        ratio = following / rr
        rr = following
        xp = ratio * (xp + length * pp)
        pp = rr + ratio * ratio * pp
        vectors.turn(z, ratio, p, n)
        k += 1
    if layout[REMEMBERS] != 0:
        use_pairs(pairs, kept, n)
    left = vectors.dot(r, x, n)
    _leave(layout, memory, x, out)
    return ended, math.sqrt(xx) / measure, left
