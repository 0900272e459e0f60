"""Energies for each thing that one can declare: the language, matrices, dependent and gathered indices."""

from typing import Any

import sympy as sp
from wiberg.energies.energy import Energy
from wiberg.energies.extrema import maximum, minimum

from .symbols import a, alpha, b, d, energy, i, j, k, m, n, sigma, t, tau, total, u, vector, w, x, y, z

# ---------------------------------------------------------------------------------------------- the language


@energy
def lets():
    """Language: intermediates that other intermediates use, one of them not linear, also read at an offset."""
    first, second = vector("first", n), vector("second", n)
    q = sp.Idx("q", (0, n - 2))
    whole = sp.Symbol("whole")
    return Energy(
        whole**2 + total(second[i] * first[i], i) + total(sp.sin(second[q + 1] - first[q]), q),
        variables=[y],
        weights=[b],
        data=[x],
        where={
            first[i]: sp.exp(-((x[i] - y[i]) ** 2)),
            second[i]: sp.tanh(first[i] * y[i] + b) + first[i] ** 2,
            whole: total(second[i] * x[i], i),
        },
        name="lets",
    )


@energy
def matrix_let():
    """Language: an intermediate of two indices, read transposed and on its diagonal."""
    outer, i2 = vector("outer", n, n), sp.Idx("i2", n)
    return Energy(
        total(outer[i, i2] * sp.sin(outer[i2, i]), i, i2) + total(outer[i, i] ** 2, i),
        variables=[y],
        weights=[w],
        where={outer[i, i2]: y[i] * y[i2] + w[i] * sp.cos(y[i2])},
        name="matrix_let",
    )


@energy
def huber():
    """Huber's function as a Piecewise: P. Huber, "Robust estimation of a location parameter", Ann. Math. Stat. 35,
    1964.
    """
    r = x[i] - t
    return Energy(
        total(sp.Piecewise((r**2 / 2, sp.Abs(r) < sigma), (sigma * sp.Abs(r) - sigma**2 / 2, True)), i),
        variables=[t],
        weights=[sigma],
        data=[x],
        name="huber",
    )


@energy
def kinks():
    """Language: Abs, Max and Min of several arguments."""
    return Energy(
        total(sp.Abs(x[i] - t) + sp.Max(x[i], t, u * w[i]) + sp.Min(t * u, w[i] * t, 1) ** 2, i) + t**2 + u**2,
        variables=[t, u],
        weights=[w],
        data=[x],
        name="kinks",
    )


@energy
def conditions():
    """Language: Piecewise with several branches and joined conditions."""
    branch = sp.Piecewise(
        (x[i] * t**2, sp.And(x[i] > 0, t < u)), (sp.exp(t) * b, sp.Or(x[i] < -1, sp.Not(u > 0))), (sp.sin(t * u), True)
    )
    return Energy(total(branch, i) + sp.Heaviside(t) * u**3, variables=[t, u], weights=[b], data=[x], name="conditions")


@energy
def exponents():
    """Language: powers whose exponent is a weight, a variable or a fraction, and a number to a variable power. Learnt
    exponents of data occur in the transformations of G. Box, D. Cox, JRSS B 26, 1964.
    """
    positive = sp.IndexedBase("x", shape=(n,), positive=True)
    return Energy(
        total(positive[i] ** w[i] * t + positive[i] ** t, i)
        + 2**t
        + (1 + t**2) ** sp.Rational(-3, 2)
        + (1 + t**2) ** b
        + (1 + t**4) ** sp.Float(0.3),
        variables=[t],
        weights=[w, b],
        data=[positive],
        name="exponents",
    )


@energy
def index_values():
    """Language: index and extent as numbers. Angles i t occur in every Fourier sum."""
    return Energy(
        total((i + 1) * (x[i] - t) ** 2 / n + sp.cos(i * t) / (n + i + b**2), i) + n * t**2,
        variables=[t],
        weights=[b],
        data=[x],
        name="index_values",
    )


@energy
def strides():
    """Language: every second entry. The split into even and odd samples is that of the lifting scheme, W. Sweldens,
    ACHA 3, 1996.
    """
    pairs = vector("x", 2 * n)
    return Energy(
        total((pairs[2 * i] - t) ** 2 * w[i] - sp.sin(pairs[2 * i + 1] * t), i),
        variables=[t],
        weights=[w],
        data=[pairs],
        name="strides",
    )


@energy
def diagonal():
    """Language: the diagonal of a matrix of unknowns."""
    matrix, i2 = vector("Y", n, n), sp.Idx("i2", n)
    return Energy(
        total(sp.exp(matrix[i, i] / 4), i)
        - b * total(x[i] * matrix[i, i2] * x[i2], i, i2)
        + total(matrix[i, i2] ** 2, i, i2),
        variables=[matrix],
        weights=[b],
        data=[x],
        name="diagonal",
    )


@energy
def convolution():
    """Deconvolution by least squares: B. Hunt, IEEE Transactions on Computers 22, 1973. A subscript is the sum of two
    indices (so h is the reversed kernel); the penalty is a fourth power, where his is a filtered square.
    """
    signal, kernel = vector("y", n + k - 1), vector("h", k)
    blurred = total(kernel[a] * signal[i + a], a)
    q = sp.Idx("q", (0, n + k - 2))
    return Energy(
        total((z[i] - blurred) ** 2, i) / 2 + tau * total(signal[q] ** 4, q),
        variables=[signal],
        weights=[kernel, tau],
        data=[z],
        name="convolution",
    )


@energy
def ends():
    """Language: constant subscripts, from both ends."""
    q = sp.Idx("q", (1, n - 1))
    return Energy(
        (y[0] - x[0]) ** 2 + b * sp.cos(y[n - 1] - x[n - 1]) + total((y[q] - y[q - 1]) ** 4, q) + y[0] * y[n - 1],
        variables=[y],
        weights=[b],
        data=[x],
        name="ends",
    )


@energy
def cross_blocks():
    """Language: two vectors and a scalar of unknowns, all coupled."""
    p, q = vector("p", n), vector("q", m)
    matrix = vector("A", n, m)
    return Energy(
        total(sp.exp(-((p[i] * q[j] - matrix[i, j]) ** 2)) * (1 + t**2), i, j)
        + total(sp.sin(t * p[i]), i)
        + total(b * t * q[j] ** 2, j),
        variables=[p, q, t],
        weights=[b],
        data=[matrix],
        name="cross_blocks",
    )


@energy
def no_weights():
    """The geometric median: E. Weiszfeld, Tohoku Mathematical Journal 43, 1937, softened; nothing to learn."""
    return Energy(
        total(sp.sqrt((x[i] - t) ** 2 + (z[i] - u) ** 2 + 1), i), variables=[t, u], data=[x, z], name="no_weights"
    )


@energy
def no_data():
    """A double well in a field, the free energy of L. Landau's theory of phase transitions, 1937; without data."""
    return Energy((t**2 - sigma) ** 2 + b * t, variables=[t], weights=[sigma, b], name="no_data")


@energy
def alone():
    """The function of D. Himmelblau, "Applied Nonlinear Programming", 1972; neither weights nor data."""
    return Energy((t**2 + u - 11) ** 2 + (t + u**2 - 7) ** 2, variables=[t, u], name="alone")


@energy
def whole_sum():
    """Language: functions of a whole sum, so that the Hessian is dense; and weights that no unknown meets. The
    logarithm of such a sum occurs in the likelihood of a multivariate t (K. Lange et al., JASA 84, 1989).
    """
    inner = 1 + total((y[i] - x[i]) ** 2 * w[i] ** 2, i)
    return Energy(
        sp.log(inner) + sp.sqrt(inner) + sp.sin(b) * total(w[i], i),
        variables=[y],
        weights=[w, b],
        data=[x],
        name="whole_sum",
    )


@energy
def three_sums():
    """Language: sums in sums in sums, each with a function around it. Layers of a network are such."""
    tensor = vector("T", n, m, k)
    inner = total(tensor[i, j, a] * y[i] * alpha[a], a)
    return Energy(
        total(sp.log(1 + total(sp.tanh(inner) ** 2, j)), i) + total(y[i] ** 2, i),
        variables=[y],
        weights=[alpha],
        data=[tensor],
        name="three_sums",
    )


@energy
def functions():
    """Language: the less usual functions."""
    r = x[i] - t
    smooth = sp.asinh(r) * sp.atan(r) + sp.sinh(r / 4) + sp.cosh(r / 3) + sp.erf(r) + sp.tan(r / 8) + sp.atanh(r / 16)
    bounded = sp.asin(sp.tanh(r)) + sp.acos(sp.tanh(r) / 2) + sp.acosh(2 + r**2)
    return Energy(total(b * smooth + bounded, i), variables=[t], weights=[b], data=[x], name="functions")


@energy
def gathered():
    """Language: gathered unknowns, weights and data, and two gathers in one subscript list."""
    first, second, table = vector("first", m, integer=True), vector("second", m, integer=True), vector("A", n, n)
    return Energy(
        total((y[first[j]] - x[second[j]]) ** 2 * w[second[j]] * table[first[j], second[j]], j)
        + total(y[i] ** 2, i) / 2,
        variables=[y],
        weights=[w],
        data=[first, second, x, table],
        name="gathered",
    )


# ---------------------------------------------------------------------------------------------- matrices


def matrix(name: str, rows: Any, columns: Any) -> Any:
    return sp.MatrixSymbol(name, rows, columns)


@energy
def matrix_ridge():
    """Ridge regression in matrices: A. Hoerl, R. Kennard, Technometrics 12, 1970."""
    design, y, seen = matrix("A", m, n), matrix("y", n, 1), matrix("b", m, 1)
    residual = design * y - seen
    return Energy(
        residual.T * residual + sigma * (y.T * y),
        variables=[y],
        weights=[sigma],
        data=[design, seen],
        name="matrix_ridge",
    )


@energy
def matrix_gls():
    """Generalised least squares: A. Aitken, Proceedings of the Royal Society of Edinburgh 55, 1935. A Mahalanobis
    distance of residuals; the inverse covariance is W'W, with W learnt.
    """
    design, y, seen = matrix("A", m, n), matrix("y", n, 1), matrix("b", m, 1)
    precision, residual = matrix("W", m, m), matrix("r", m, 1)
    return Energy(
        residual.T * precision.T * precision * residual,
        variables=[y],
        weights=[precision],
        data=[design, seen],
        where={residual: design * y - seen},
        name="matrix_gls",
    )


@energy
def matrix_rotation():
    """Registration of points by a rotation and a shift: K. Arun, T. Huang, S. Blostein, IEEE TPAMI 9, 1987. Theirs is
    in space and not weighted; here in the plane, by an angle.
    """
    turn = sp.Matrix([[sp.cos(t), -sp.sin(t)], [sp.sin(t), sp.cos(t)]])
    points, targets, shift, weight = matrix("P", 2, n), matrix("Q", 2, n), matrix("c", 2, 1), matrix("w", n, 1)
    residual = turn * points + shift * sp.OneMatrix(1, n) - targets
    return Energy(
        sp.Trace(residual * sp.DiagMatrix(weight) * residual.T),
        variables=[t, shift],
        weights=[weight],
        data=[points, targets],
        name="matrix_rotation",
    )


@energy
def matrix_gaussian():
    """A Gaussian in the plane by its likelihood: M. Tipping, C. Bishop, "Probabilistic principal component analysis",
    JRSS B 61, 1999. Covariance LL' + I (their noise is 1, and L has as many columns as rows); unknown is the mean;
    without the constant.
    """
    mean, factor, points = matrix("mu", 2, 1), matrix("L", 2, 2), matrix("X", 2, n)
    covariance = factor * factor.T + sp.Identity(2)
    centred = points - mean * sp.OneMatrix(1, n)
    return Energy(
        sp.Trace(centred.T * covariance.I * centred) / 2 + n * sp.log(sp.Determinant(covariance)) / 2,
        variables=[mean],
        weights=[factor],
        data=[points],
        name="matrix_gaussian",
    )


@energy
def matrix_network():
    """The input that a layer of tanh maps to given outputs: J. Kindermann, A. Linden, Parallel Computing 14, 1990.
    There by the squared error; here its log(1 + e), and a fourth power keeps the input small.
    """
    inner, outer = matrix("U", k, n), matrix("V", m, k)
    y, seen, bias = matrix("y", n, 1), matrix("b", m, 1), matrix("c", k, 1)
    residual = outer * (inner * y + bias).applyfunc(sp.tanh) - seen
    return Energy(
        sp.log(1 + sp.Trace(residual.T * residual)) + sp.Trace(y.T * sp.HadamardPower(y, 3)) / 8,
        variables=[y],
        weights=[inner, outer, bias],
        data=[seen],
        name="matrix_network",
    )


@energy
def matrix_elastic():
    """A tetrahedron of a neo-Hookean body: J. Bonet, R. Wood, "Nonlinear Continuum Mechanics for Finite Element
    Analysis", 1997. For a unit of rest volume, (J - 1)^2 in place of their (ln J)^2, and without their -mu ln J: at
    rest it is not free of stress.
    """
    corners, rest, deformation = matrix("X", 3, 3), matrix("B", 3, 3), matrix("F", 3, 3)
    volume = sp.Determinant(deformation)
    return Energy(
        sigma * (sp.Trace(deformation.T * deformation) - 3) / 2 + tau * (volume - 1) ** 2 / 2,
        variables=[corners],
        weights=[sigma, tau],
        data=[rest],
        where={deformation: corners * rest},
        name="matrix_elastic",
    )


@energy
def matrix_factorisation():
    """A matrix of low rank by its factors, kept small by a bound on its trace norm. N. Srebro, J. Rennie, T. Jaakkola,
    "Maximum-margin matrix factorization", NIPS 2004, with squares in place of the hinge.
    """
    left, right, seen = matrix("U", n, 2), matrix("V", m, 2), matrix("Y", n, m)
    return Energy(
        sp.Trace((left * right.T - seen).T * (left * right.T - seen)) / 2
        + b**2 * (sp.Trace(left.T * left) + sp.Trace(right.T * right)) / 2,
        variables=[left, right],
        weights=[b],
        data=[seen],
        name="matrix_factorisation",
    )


# ---------------------------------------------------------------------------------------------- the index language


@energy
def all_pairs():
    """The 12-6 potential of J. Lennard-Jones (1931) over all pairs, softened, in a quadratic trap."""
    position, xyz, other = vector("p", n, 3), sp.Idx("xyz", 3), sp.Idx("o", (i + 1, n - 1))
    r2 = sp.Float(1.3) + total((position[i, xyz] - position[other, xyz]) ** 2, xyz)
    return Energy(
        total(4 * b * ((sigma**2 / r2) ** 6 - (sigma**2 / r2) ** 3), other, i) + total(position[i, xyz] ** 2, i, xyz),
        variables=[position],
        weights=[b, sigma],
        name="all_pairs",
    )


@energy
def triples():
    """Language: triangular ranges three deep, with an inner sum that needs one of the indices only."""
    features, below = vector("X", n, k), sp.Idx("l", (0, i - 1))
    lowest = sp.Idx("h", (0, below))
    score = total(features[below, a] * alpha[a], a)
    return Energy(
        total(sp.sin(y[i] * y[below]) * w[lowest] * score, lowest, below, i) + total(y[i] ** 2, i),
        variables=[y],
        weights=[w, alpha],
        data=[features],
        name="triples",
    )


@energy
def drift():
    """Language: partial sums, gathered: one coordinate of a path of dead reckoning, seen at listed times (repeated ones
    too). Poses as sums of increments: E. Olson, J. Leonard, S. Teller, ICRA 2006; the term in cos(path) is ours.
    """
    times, steps, path = vector("times", m, integer=True), sp.Idx("l", (0, i)), vector("path", n)
    seen = vector("seen", m)
    return Energy(
        total(sp.log(1 + (path[times[j]] - seen[j]) ** 2 / tau**2), j) + total(sp.cos(path[i]) * x[i], i),
        variables=[y],
        weights=[tau, w],
        data=[times, seen, x],
        where={path[i]: total(sp.sin(y[steps]) * w[steps], steps)},
        name="drift",
    )


@energy
def lags():
    """Language: the subscript i - j - 1 within a triangle: a signal with its squares at all lags. Such products are a
    slice of third-order moments (J. Mendel, Proceedings of the IEEE 79, 1991).
    """
    lag = sp.Idx("l", (0, i - 1))
    return Energy(
        total(y[i] * y[i - lag - 1] ** 2 * w[lag], lag, i) / n + total(y[i] ** 2, i),
        variables=[y],
        weights=[w],
        name="lags",
    )


@energy
def volume():
    """Total variation of a volume: L. Rudin, S. Osher, E. Fatemi, Physica D 60, 1992. As `denoise` differs from it,
    along three axes; the squared term without 1/2.
    """
    cube, seen = vector("y", n, m, k), vector("x", n, m, k)
    p, q, r = sp.Idx("p", (0, n - 2)), sp.Idx("q", (0, m - 2)), sp.Idx("r", (0, k - 2))
    steps = [((cube[p + 1, j, a] - cube[p, j, a]), (p, j, a)), ((cube[i, q + 1, a] - cube[i, q, a]), (i, q, a)),
             ((cube[i, j, r + 1] - cube[i, j, r]), (i, j, r))]  # fmt: skip
    return Energy(
        total((cube[i, j, a] - seen[i, j, a]) ** 2, i, j, a)
        + sigma * sum(total(sp.sqrt(tau**2 + step**2), *over) for step, over in steps),
        variables=[cube],
        weights=[sigma, tau],
        data=[seen],
        name="volume",
    )


@energy
def bending():
    """Second differences as a penalty: R. Hodrick, E. Prescott, J. Money, Credit and Banking 29, 1997. Every second
    knot is given, by a fourth power where theirs is a square; a stride of two.
    """
    q, knots = sp.Idx("q", (0, 2 * n - 3)), vector("y", 2 * n)
    return Energy(
        total((knots[q] - 2 * knots[q + 1] + knots[q + 2]) ** 2, q) * b + total((knots[2 * i] - x[i]) ** 4 * w[i], i),
        variables=[knots],
        weights=[b, w],
        data=[x],
        name="bending",
    )


@energy
def mesh():
    """Language: lengths of the edges of listed faces: a gather of a gather, and one with an offset and a factor."""
    faces, edges = vector("faces", m, integer=True), vector("edges", n, 2, integer=True)
    points, lower = vector("p", 2 * n + 1), vector("rest", n)
    first, second = points[edges[faces[j], 0]], points[2 * edges[faces[j], 1] + 1]
    return Energy(
        total(((first - second) ** 2 - lower[faces[j]]) ** 2, j) + total(points[edges[i, 0] + 1] ** 2, i),
        variables=[points],
        weights=[lower],
        data=[faces, edges],
        name="mesh",
    )


@energy
def noisy_or():
    """Noisy-or: that no cause acts is a product (J. Pearl, "Probabilistic Reasoning in Intelligent Systems", 1988).
    Fitted by least squares; one factor can be 0.
    """
    causes, strength = vector("X", n, k), vector("q", k)
    off = sp.Product(1 - causes[i, a] * sp.tanh(strength[a]) / 2, a)
    return Energy(
        total((off - x[i] * b) ** 2, i) + total(strength[a] ** 2, a) + b * sp.Product(x[i] - t, i),
        variables=[strength, t],
        weights=[b],
        data=[causes, x],
        name="noisy_or",
    )


@energy
def nearest_centre():
    """The k-means energy, each point to its nearest centre: S. Lloyd, "Least squares quantization in PCM", 1957.
    Weighted, with a ridge.
    """
    points, centres = vector("X", n, 2), vector("c", k, 2)
    return Energy(
        total(w[i] * minimum(total((points[i, d] - centres[a, d]) ** 2, d), a), i)
        + tau * total(centres[a, d] ** 2, a, d),
        variables=[centres],
        weights=[w, tau],
        data=[points],
        name="nearest_centre",
    )


@energy
def chebyshev():
    """The largest residual of a line (E. Cheney, "Introduction to Approximation Theory", 1966), squared and weighted.
    And, for the language, the largest of earlier ones for each point.
    """
    earlier, other = sp.Idx("l", (0, i)), sp.Idx("o", n)
    worst = vector("worst", n)
    return Energy(
        maximum((y[i] - t * x[i] - u) ** 2 * w[i], i) + total(worst[i] * z[i], i) + t**2,
        variables=[t, u],
        weights=[w],
        data=[x, y, z],
        where={worst[i]: maximum(sp.cos(t * x[earlier]) * w[earlier], earlier)},
        candidates={t: z[i] * 2, u: maximum(y[other], other)},
        name="chebyshev",
    )


@energy
def scaled_starts():
    """Language: candidates that use intermediates; the energy is that of `ransac`."""
    scaled = vector("scaled", n)
    return Energy(
        -total(sp.exp(-((scaled[i] - t) ** 2)), i),
        variables=[t],
        weights=[w],
        data=[x],
        where={scaled[i]: w[i] * x[i]},
        candidates={t: scaled[i]},
        name="scaled_starts",
    )
