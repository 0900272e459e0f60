"""Dense Hessians that a few unknowns, the border, make out of small blocks: steps by elimination of the blocks.

With the unknowns of the blocks first and those of the border last, and D block-diagonal,

    H + shift = [ D   B ]  =  U'U,    U = [ V   R ],   V'V = D + shift,  V'R = B,  W'W = C + shift - R'R
                [ B'  C ]                 [ 0   W ]

is a Cholesky factorisation in which no block fills in; W'W is the Schur complement. Of n^3/6 products are left b^3/6
for a block, those of R, and n k^2/2 for the complement, k being the size of the border. Rounding is that of any order
of elimination.

Drivers reach the functions of this file through factorisation.py. They are compiled once, and only where there are
blocks: what has none does not wait for them.

Instead of all of the spectrum the lowest eigenvalue is found, by inverse iteration. Each shift at which the
factorisation succeeds is a lower bound, each Rayleigh quotient an upper one, so that the answer is certain.

Which unknowns are the border is found in blocks.py.
"""

from __future__ import annotations

import math

from ...compiler.machine_code.calling import shifted
from ...compiler.machine_code.native import Native, native
from ...compiler.machine_code.signature import DoublePointer, IntegerPointer, streaming
from .linear_algebra import (
    EPSILON,
    TINY,
    cholesky,
    cholesky_solve,
    dot,
    dot_four,
    largest,
    reflect,
    subtract_products,
    subtract_two,
)
from .trust_region import CHANCE, secular_step
from .vectors import copy, scale, zero

# What `layout` says; where COUNT is 0, so is LOWEST, and the others are not read. LOWEST is 1 where the lowest
# eigenvalue is found by the blocks, which takes more unknowns to pay; ENTRY is the address of `eliminate`. LARGEST is
# the size of the largest block, ENTRIES are those of all blocks. Rows of R, columns of R and C are padded to fours:
# HEIGHT for the REST, the unknowns of blocks, WIDTH for the BORDER. From TABLES on: the rest, block by block; the sizes
# of the blocks; the border, in rising order; its runs of neighbours, as pairs (first, length).
COUNT, REST, BORDER, HEIGHT, WIDTH, RUNS, LARGEST, ENTRIES, LOWEST, ENTRY, TABLES = range(11)

VECTORS = 4
"""So many vectors of HEIGHT + WIDTH numbers lie behind the factors: the lowest eigenvector, and those at work."""

PRODUCTS = 8
"""So many products with H tell the size of its eigenvalues: 0.85 to 1 of the largest is found."""

FINE = 32.0 * EPSILON
"""How far apart the bounds of the lowest eigenvalue end, as a part of the largest one's size."""


def solving_size(layout: IntegerPointer) -> int:
    """How many numbers the factors are: R, W, and the V of all blocks, up to the end of a cache line."""
    numbers = (layout[HEIGHT] + layout[WIDTH]) * layout[WIDTH] + layout[ENTRIES]
    return numbers + (8 - numbers % 8) % 8


def factor_size(layout: IntegerPointer) -> int:
    """How many numbers factorising takes: the factors, and working memory."""
    width, largest_block = layout[WIDTH], layout[LARGEST]
    return solving_size(layout) + max(width * width, largest_block * largest_block)


# ---------------------------------------------------------------------------------------------- factors


@streaming
def _subtract(factor: float, a: DoublePointer, out: DoublePointer, n: int) -> None:
    """out <- out - factor a."""
    for i in range(n):
        out[i] -= factor * a[i]


@streaming
def _solve_three(
    r0: DoublePointer,
    r1: DoublePointer,
    r2: DoublePointer,
    a: float,
    b: float,
    c: float,
    f0: float,
    f1: float,
    f2: float,
    n: int,
) -> None:
    """Three rows of B become three of R: V = [1/f0 a b; 1/f1 c; 1/f2]."""
    for i in range(n):
        x0 = r0[i] * f0
        x1 = (r1[i] - a * x0) * f1
        x2 = (r2[i] - b * x0 - c * x1) * f2
        r0[i], r1[i], r2[i] = x0, x1, x2


def _gather_border(layout: IntegerPointer, row: DoublePointer, out: DoublePointer) -> None:
    """out <- the entries of a row of H in the columns of the border, zeros up to WIDTH."""
    runs = shifted(layout, TABLES + layout[REST] + layout[COUNT] + layout[BORDER])
    at = 0
    for k in range(layout[RUNS]):
        copy(shifted(row, runs[2 * k]), shifted(out, at), runs[2 * k + 1])
        at += runs[2 * k + 1]
    for i in range(at, layout[WIDTH]):
        out[i] = 0.0


def _solve_border_rows(v: DoublePointer, size: int, rows: DoublePointer, width: int) -> None:
    """The rows of B of a block become those of R."""
    if size == 3:
        r1, r2 = shifted(rows, width), shifted(rows, 2 * width)
        _solve_three(rows, r1, r2, v[1], v[2], v[5], 1.0 / v[0], 1.0 / v[4], 1.0 / v[8], width)
        return
    for j in range(size):
        row = shifted(rows, j * width)
        for i in range(j):
            _subtract(v[i * size + j], shifted(rows, i * width), row, width)
        scale(1.0 / v[j * size + j], row, width)


def factor(layout: IntegerPointer, h: DoublePointer, n: int, shift: float, f: DoublePointer) -> bool:
    """Write U with U'U = H + shift to f (`factor_size`); False if that is not positive definite."""
    rest, border, height, width = layout[REST], layout[BORDER], layout[HEIGHT], layout[WIDTH]
    order, sizes = shifted(layout, TABLES), shifted(layout, TABLES + rest)
    places = shifted(sizes, layout[COUNT])
    complement, work = shifted(f, height * width), shifted(f, solving_size(layout))
    v = shifted(complement, width * width)
    at = 0
    for k in range(layout[COUNT]):
        size = sizes[k]
        for i in range(size):
            row = shifted(h, order[at + i] * n)
            for j in range(i, size):
                work[i * size + j] = row[order[at + j]]
            work[i * size + i] += shift
        if not cholesky(work, size, v):
            return False
        if width > 0:
            rows = shifted(f, at * width)
            for i in range(size):
                _gather_border(layout, shifted(h, order[at + i] * n), shifted(rows, i * width))
            _solve_border_rows(v, size, rows, width)
        at += size
        v = shifted(v, size * size)
    zero(shifted(f, rest * width), (height - rest) * width)
    for i in range(width):
        row = shifted(work, i * width)
        if i < border:
            _gather_border(layout, shifted(h, places[i] * n), row)
            row[i] += shift
        else:
            zero(row, width)
            row[i] = 1.0
    for k in range(0, width, 4):
        t0 = shifted(work, k * width + k)
        t1, t2, t3 = shifted(t0, width), shifted(t0, 2 * width), shifted(t0, 3 * width)
        for i in range(0, height, 4):
            s = shifted(f, i * width + k)
            subtract_products(
                s, shifted(s, width), shifted(s, 2 * width), shifted(s, 3 * width), t0, t1, t2, t3, width - k
            )
    return cholesky(work, width, complement)


def solve(layout: IntegerPointer, f: DoublePointer, x: DoublePointer) -> None:
    """x <- (U'U)^-1 x, x in the order of U with zeros as padding (`gather`)."""
    height, width = layout[HEIGHT], layout[WIDTH]
    sizes = shifted(layout, TABLES + layout[REST])
    blocks = shifted(f, (height + width) * width)
    v, last, below = blocks, shifted(x, height), x
    for k in range(layout[COUNT]):
        size = sizes[k]
        for i in range(size):
            below[i] /= v[i * size + i]
            for j in range(i + 1, size):
                below[j] -= v[i * size + j] * below[i]
        below, v = shifted(below, size), shifted(v, size * size)
    if width > 0:
        for i in range(0, height, 4):
            r = shifted(f, i * width)
            subtract_two(last, r, shifted(r, width), x[i + 1], x[i], width)
            subtract_two(last, shifted(r, 2 * width), shifted(r, 3 * width), x[i + 3], x[i + 2], width)
        cholesky_solve(shifted(f, height * width), width, last)
        for i in range(0, height, 4):
            r, y = shifted(f, i * width), shifted(x, i)
            d0, d1, d2, d3 = dot_four(r, shifted(r, width), shifted(r, 2 * width), shifted(r, 3 * width), last, width)
            y[0], y[1], y[2], y[3] = y[0] - d0, y[1] - d1, y[2] - d2, y[3] - d3
    v, below = blocks, x
    for k in range(layout[COUNT]):
        size = sizes[k]
        for i in range(size - 1, -1, -1):
            for j in range(i + 1, size):
                below[i] -= v[i * size + j] * below[j]
            below[i] /= v[i * size + i]
        below, v = shifted(below, size), shifted(v, size * size)


def solve_rows(layout: IntegerPointer, f: DoublePointer, c: DoublePointer, p: int) -> None:
    """c <- (U'U)^-1 c, c of n rows of p numbers in the order of H."""
    rest, border, height, width = layout[REST], layout[BORDER], layout[HEIGHT], layout[WIDTH]
    order, sizes = shifted(layout, TABLES), shifted(layout, TABLES + rest)
    places = shifted(sizes, layout[COUNT])
    w, v = shifted(f, height * width), shifted(f, (height + width) * width)
    at = 0
    for k in range(layout[COUNT]):
        size = sizes[k]
        for i in range(size):
            row = shifted(c, order[at + i] * p)
            scale(1.0 / v[i * size + i], row, p)
            for j in range(i + 1, size):
                _subtract(v[i * size + j], row, shifted(c, order[at + j] * p), p)
            for j in range(border):
                _subtract(f[(at + i) * width + j], row, shifted(c, places[j] * p), p)
        at += size
        v = shifted(v, size * size)
    for i in range(border):
        row = shifted(c, places[i] * p)
        scale(1.0 / w[i * width + i], row, p)
        for j in range(i + 1, border):
            _subtract(w[i * width + j], row, shifted(c, places[j] * p), p)
    for i in range(border - 1, -1, -1):
        row = shifted(c, places[i] * p)
        for j in range(i + 1, border):
            _subtract(w[i * width + j], shifted(c, places[j] * p), row, p)
        scale(1.0 / w[i * width + i], row, p)
    for k in range(layout[COUNT] - 1, -1, -1):
        size = sizes[k]
        at -= size
        v = shifted(v, -size * size)
        for i in range(size - 1, -1, -1):
            row = shifted(c, order[at + i] * p)
            for j in range(border):
                _subtract(f[(at + i) * width + j], shifted(c, places[j] * p), row, p)
            for j in range(i + 1, size):
                _subtract(v[i * size + j], shifted(c, order[at + j] * p), row, p)
            scale(1.0 / v[i * size + i], row, p)


def gather(layout: IntegerPointer, factor: float, a: DoublePointer, x: DoublePointer) -> None:
    """x <- factor a in the order of U."""
    rest, border, height = layout[REST], layout[BORDER], layout[HEIGHT]
    order, places = shifted(layout, TABLES), shifted(layout, TABLES + rest + layout[COUNT])
    zero(x, height + layout[WIDTH])
    for i in range(rest):
        x[i] = factor * a[order[i]]
    for i in range(border):
        x[height + i] = factor * a[places[i]]


def scatter(layout: IntegerPointer, factor: float, x: DoublePointer, a: DoublePointer) -> None:
    """a <- factor x in the order of H."""
    rest, border, height = layout[REST], layout[BORDER], layout[HEIGHT]
    order, places = shifted(layout, TABLES), shifted(layout, TABLES + rest + layout[COUNT])
    for i in range(rest):
        a[order[i]] = factor * x[i]
    for i in range(border):
        a[places[i]] = factor * x[height + i]


def solve_vector(layout: IntegerPointer, f: DoublePointer, b: DoublePointer, x: DoublePointer) -> None:
    """b <- (U'U)^-1 b in the order of H; x has HEIGHT + WIDTH numbers."""
    gather(layout, 1.0, b, x)
    solve(layout, f, x)
    scatter(layout, 1.0, x, b)


def squared_pivots(layout: IntegerPointer, f: DoublePointer, out: DoublePointer) -> None:
    """out <- the squares of the diagonal of U, in the order of H."""
    rest, height, width = layout[REST], layout[HEIGHT], layout[WIDTH]
    order, sizes = shifted(layout, TABLES), shifted(layout, TABLES + rest)
    places = shifted(sizes, layout[COUNT])
    w, v = shifted(f, height * width), shifted(f, (height + width) * width)
    at = 0
    for k in range(layout[COUNT]):
        size = sizes[k]
        for i in range(size):
            out[order[at + i]] = v[i * size + i] * v[i * size + i]
        at += size
        v = shifted(v, size * size)
    for i in range(layout[BORDER]):
        out[places[i]] = w[i * width + i] * w[i * width + i]


# ---------------------------------------------------------------------------------------------- the lowest eigenvalue


def multiply(layout: IntegerPointer, h: DoublePointer, n: int, x: DoublePointer, out: DoublePointer) -> None:
    """out <- H x, both in the order of H."""
    rest, border = layout[REST], layout[BORDER]
    order, sizes = shifted(layout, TABLES), shifted(layout, TABLES + rest)
    places = shifted(sizes, layout[COUNT])
    zero(out, n)
    for k in range(border):
        _subtract(-x[places[k]], shifted(h, places[k] * n), out, n)
    for k in range(border):
        out[places[k]] = dot(shifted(h, places[k] * n), x, n)
    at = 0
    for k in range(layout[COUNT]):
        size = sizes[k]
        for i in range(size):
            row, total = shifted(h, order[at + i] * n), out[order[at + i]]
            for j in range(size):
                total += row[order[at + j]] * x[order[at + j]]
            out[order[at + i]] = total
        at += size


def spectral_norm(layout: IntegerPointer, h: DoublePointer, n: int, x: DoublePointer, work: DoublePointer) -> float:
    """A little more than the largest size of an eigenvalue of H, by the power method; infinite or NaN if an entry is.

    1.0 to 1.25 times it, as the bound of the tridiagonal form is, unless H is contrived; x and `work` have n numbers.
    """
    norm = 0.0
    for i in range(n):
        x[i] = math.cos(i)
    for _ in range(PRODUCTS):
        multiply(layout, h, n, x, work)
        norm = largest(work, n)
        if not 0.0 < norm < math.inf:
            return norm
        scale(1.0 / norm, work, n)
        norm *= math.sqrt(dot(work, work, n) / dot(x, x, n))
        copy(work, x, n)
    return 1.25 * norm


def _raise(
    layout: IntegerPointer,
    h: DoublePointer,
    n: int,
    low: float,
    high: float,
    top: float,
    width: float,
    fine: float,
    f: DoublePointer,
) -> tuple[float, float]:
    """A higher lower bound, factorised, and the upper bound: `width` below the top, or if that is too high further."""
    target = max(top - width, 0.5 * (low + top))
    while not factor(layout, h, n, -target, f):
        high, width = target, 4.0 * width
        target = max(high - width, 0.5 * (low + high))
        if high - low <= fine or not low < target < high:
            target = low
    return target, high


def lowest_eigenvalue(layout: IntegerPointer, h: DoublePointer, n: int, space: DoublePointer) -> tuple[float, float]:
    """The lowest eigenvalue of H, and a bound of all; its eigenvector goes behind the factors, in the order of U.

    A factorisation that succeeds at H - low shows that low is a lower bound. With x = (H - low)^-1 z for a unit vector
    z, the Rayleigh quotient of x is low + z'x / x'x, an upper bound, and the residual says how far the next shift can
    rise. Where it says nothing, or too much, the bracket is halved.
    """
    f, size = space, layout[HEIGHT] + layout[WIDTH]
    z = shifted(space, factor_size(layout))
    x = shifted(z, size)
    bound = spectral_norm(layout, h, n, x, z)
    if not bound < math.inf:
        return math.nan, bound
    if bound == 0.0:
        zero(z, size)
        z[0] = 1.0
        return 0.0, 0.0
    fine = max(FINE * bound, TINY)
    low, high, step = 0.0, math.inf, 1e-12
    while not factor(layout, h, n, -low, f):
        high, low = low, -step * bound
        step = step * 1e3 if step < 1e-3 else 2.0 * step
        if step > 10.0:
            return math.nan, bound
    for i in range(n):
        x[i] = math.cos(i)
    gather(layout, 1.0 / math.sqrt(dot(x, x, n)), x, z)
    found, rounds = math.inf, 0
    for _ in range(200):
        copy(z, x, size)
        solve(layout, f, x)
        unit = largest(x, size)
        if not 0.0 < unit < math.inf:
            break
        scale(1.0 / unit, x, size)
        square, along = dot(x, x, size), dot(z, x, size)
        gap = max(along / square / unit, 0.0)
        copy(x, z, size)
        scale(1.0 / math.sqrt(square), z, size)
        found = low + gap
        top = min(found, high)
        if top - low <= fine:
            break
        rounds += 1
        residual = math.sqrt(max(0.0, 1.0 / (along / square * along) - 1.0)) * gap
        if (rounds == 1 and residual > 1e-3 * gap) or (rounds == 2 and residual > 0.25 * gap):
            continue
        width = max(2.0 * residual, 0.5 * fine) if residual <= 0.25 * gap else 0.5 * (top - low)
        low, high = _raise(layout, h, n, low, high, top, width, fine, f)
        rounds = 0
    return min(found, high), bound


# ---------------------------------------------------------------------------------------------- the trust region


def newton_step(
    layout: IntegerPointer, h: DoublePointer, g: DoublePointer, n: int, space: DoublePointer, p: DoublePointer
) -> bool:
    """p <- -H^-1 g where H is positive definite, else False."""
    if not factor(layout, h, n, 0.0, space):
        return False
    x = shifted(space, factor_size(layout))
    gather(layout, -1.0, g, x)
    solve(layout, space, x)
    scatter(layout, 1.0, x, p)
    return True


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
) -> float:
    """The step as in `trust_region.boundary_step`, in the order of U; every delta is a factorisation.

    Rounding may leave H - lowest + delta indefinite where delta is least: delta is then made larger. What this does to
    the step is rounding, too, since its part along z is kept apart.
    """
    f, size = space, layout[HEIGHT] + layout[WIDTH]
    z = shifted(space, factor_size(layout))
    b, x, w = shifted(z, size), shifted(z, 2 * size), shifted(z, 3 * size)
    gather(layout, -1.0 / radius, g, b)
    upper, along = math.sqrt(dot(b, b, size)), dot(z, b, size)
    for i in range(size):
        b[i] -= along * z[i]
    sign = math.copysign(1.0, along)
    if abs(along) <= CHANCE * abs(lowest):
        peak = 0
        for i in range(1, size):
            if abs(z[i]) > abs(z[peak]):
                peak = i
        sign, along = math.copysign(1.0, z[peak]), 0.0
    floor = max(max(2.0 * FINE * bound, 64.0 * TINY), EPSILON * upper)
    low = max(floor, max(lowest, abs(along)))
    high = max(low, upper)
    delta = low
    first, part, square, length = True, 0.0, 0.0, 0.0
    for _ in range(60):
        if not factor(layout, h, n, delta - lowest, f):
            low = delta = 4.0 * delta
            high = max(high, low)
            continue
        copy(b, x, size)
        solve(layout, f, x)
        reflect(z, 1.0, x, size)
        part, square = along / delta, dot(x, x, size)
        length = math.sqrt(part * part + square)
        if abs(length - 1.0) <= 1e-12 or (first and length < 1.0):
            break
        first = False
        if length > 1.0:
            low = delta
        else:
            high = delta
        copy(x, w, size)
        solve(layout, f, w)
        curved = part * part / delta + dot(x, w, size)
        following = secular_step(delta, length, curved, low, high)
        if abs(following - delta) <= EPSILON * delta:
            break
        delta = following
    stretch = 1.0
    if not (first and length < 1.0):
        stretch = 1.0 / length
    elif lowest < -floor:
        part = sign * math.sqrt(max(0.0, 1.0 - square))
    for i in range(size):
        x[i] = stretch * (x[i] + part * z[i])
        b[i] += along * z[i]
    predicted = dot(b, x, size)
    scatter(layout, 1.0, x, p)
    multiply(layout, h, n, p, w)
    predicted -= 0.5 * dot(p, w, n)
    scale(radius, p, n)
    return radius * (radius * predicted)


# ---------------------------------------------------------------------------------------------- for drivers

FACTOR, SOLVE, SOLVE_ROWS, PIVOTS, NEWTON, SPECTRUM, BOUNDARY = range(7)


def _eliminate(
    task: int,
    layout: IntegerPointer,
    h: DoublePointer,
    n: int,
    number: float,
    bound: float,
    radius: float,
    g: DoublePointer,
    space: DoublePointer,
    p: DoublePointer,
    count: int,
) -> float:
    """One of the functions above; `number` is a shift or the lowest eigenvalue."""
    if task == FACTOR:
        return 1.0 if factor(layout, h, n, number, space) else 0.0
    if task == SOLVE:
        solve_vector(layout, h, p, space)
    elif task == SOLVE_ROWS:
        solve_rows(layout, space, p, count)
    elif task == PIVOTS:
        squared_pivots(layout, space, p)
    elif task == NEWTON:
        return 1.0 if newton_step(layout, h, g, n, space, p) else 0.0
    elif task == SPECTRUM:
        found = bounds_at(layout, space)
        found[0], found[1] = lowest_eigenvalue(layout, h, n, space)
    elif task == BOUNDARY:
        return boundary_step(layout, h, space, g, n, number, bound, radius, p)
    return 0.0


def bounds_at(layout: IntegerPointer, space: DoublePointer) -> DoublePointer:
    """Where SPECTRUM leaves the lowest eigenvalue and the bound."""
    return shifted(space, factor_size(layout) + 3 * (layout[HEIGHT] + layout[WIDTH]))


def eliminate() -> Native:
    """The compiled `_eliminate`, whose address is the layout's ENTRY."""
    return native(_eliminate)
