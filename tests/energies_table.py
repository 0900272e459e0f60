"""Small energies that all tests share: classical ones, those of the examples, and one for each thing one can declare.

`TABLE` maps a name to a function without arguments that makes the energy; `draw` makes points for it.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import sympy as sp
from wiberg.energies import robust
from wiberg.energies.energy import Energy
from wiberg.energies.extrema import maximum, minimum

TABLE: dict[str, Callable[[], Energy]] = {}
RANDOM_SEEDS = range(1000, 1040)  # of the random energies that tests compile to machine code

n, m, k = (sp.Symbol(s, integer=True, positive=True) for s in "nmk")
i, j, a = sp.Idx("i", n), sp.Idx("j", m), sp.Idx("a", k)
d = sp.Idx("d", 2)
t, u = sp.Symbol("t", real=True), sp.Symbol("u", real=True)
sigma, tau = sp.Symbol("sigma", positive=True), sp.Symbol("tau", positive=True)
b, c = sp.Symbol("b", real=True), sp.Symbol("c", real=True)
alpha = sp.IndexedBase("alpha", shape=(k,))
x, y, z, w = (sp.IndexedBase(s, shape=(n,)) for s in "xyzw")


def energy(make: Callable[[], Energy]) -> Callable[[], Energy]:
    """Put a function into the table under its own name."""
    TABLE[make.__name__] = make
    return make


def vector(name: str, *shape: Any, integer: bool = False) -> Any:
    return sp.IndexedBase(name, shape=shape, integer=True) if integer else sp.IndexedBase(name, shape=shape)


def total(expression: Any, *limits: Any) -> Any:
    return sp.Sum(expression, *limits)


# ---------------------------------------------------------------------------------------------- the examples


@energy
def ransac():
    """The paper's one-dimensional RANSAC: inliers found by a kernel of learnt width."""
    return Energy(
        -total(sp.exp(-(((x[i] - t) / sigma) ** 2)), i),
        variables=[t],
        weights=[sigma],
        data=[x],
        name="ransac",
        candidates={t: x[i]},
    )


@energy
def fusion():
    """One corner of a box from many trackers: weighted kernels in the plane (FUSION.md)."""
    al, be, ls = (vector(s, n) for s in ("alpha", "beta", "log_sigma"))
    s, corner, at = vector("s", n, 2), vector("c", n, 2), vector("y", 2)
    near = sp.exp(-total((s[i, d] * corner[i, d] - at[d]) ** 2, d) / sp.exp(2 * ls[i]))
    return Energy(
        -total(sp.exp(al[i] + be[i] * t) * near, i),
        variables=[at],
        weights=[al, be, ls, s],
        data=[corner, t],
        name="fusion",
        candidates={at[0]: s[i, 0] * corner[i, 0], at[1]: s[i, 1] * corner[i, 1]},
    )


@energy
def pose():
    """A human pose in a basis of shapes, seen by several cameras, with a robust penalty (POSE_MODEL.md)."""
    cameras, joints, bases = (sp.Symbol(s, integer=True, positive=True) for s in "CJK")
    cc, jj, kk = sp.Idx("c", cameras), sp.Idx("j", joints), sp.Idx("k", bases)
    xyz, uv = sp.Idx("d", 3), sp.Idx("e", 2)
    shape, basis, camera = vector("a", bases), vector("B", bases, joints, 3), vector("P", cameras, 2, 3)
    omega, precision, delta = (
        vector("omega", cameras, joints),
        vector("sigma", bases),
        sp.Symbol("delta", positive=True),
    )
    mean, seen, r = vector("m", bases), vector("X", cameras, joints, 2), vector("r", cameras, joints, 2)
    rho = omega[cc, jj] ** 2 * delta**2 * (sp.sqrt(1 + total(r[cc, jj, uv] ** 2, uv) / delta**2) - 1)
    prior = total((precision[kk] * (shape[kk] - mean[kk])) ** 2, kk) / 2
    point = total(shape[kk] * basis[kk, jj, xyz], kk)
    return Energy(
        total(rho, cc, jj) + prior,
        variables=[shape],
        weights=[basis, omega, precision, camera, delta],
        data=[mean, seen],
        name="pose",
        where={r[cc, jj, uv]: seen[cc, jj, uv] - total(camera[cc, uv, xyz] * point, xyz)},
    )


# ---------------------------------------------------------------------------------------------- classical


@energy
def denoise():
    """Image denoising: squared data term, robust differences of neighbours (Charbonnier total variation)."""
    rows, columns = n, m
    image, noisy = vector("y", rows, columns), vector("x", rows, columns)
    p, q = sp.Idx("p", (0, rows - 2)), sp.Idx("q", (0, columns - 2))
    down = total(sp.sqrt(tau**2 + (image[p + 1, j] - image[p, j]) ** 2), p, j)
    right = total(sp.sqrt(tau**2 + (image[i, q + 1] - image[i, q]) ** 2), i, q)
    return Energy(
        total((image[i, j] - noisy[i, j]) ** 2, i, j) / 2 + sigma * (down + right),
        variables=[image],
        weights=[sigma, tau],
        data=[noisy],
        name="denoise",
    )


@energy
def rosenbrock():
    """The chained Rosenbrock function; without data."""
    q = sp.Idx("q", (0, n - 2))
    return Energy(
        total(b * (y[q + 1] - y[q] ** 2) ** 2 + (1 - y[q]) ** 2, q), variables=[y], weights=[b], name="rosenbrock"
    )


@energy
def logistic():
    """Logistic regression with labels -1 and 1 and a ridge penalty."""
    features, beta = vector("X", n, k), vector("beta", k)
    margin = z[i] * total(features[i, a] * beta[a], a)
    return Energy(
        total(sp.log(1 + sp.exp(-margin)), i) + tau * total(beta[a] ** 2, a),
        variables=[beta],
        weights=[tau],
        data=[features, z],
        name="logistic",
    )


@energy
def poisson():
    """Poisson regression, its negative log-likelihood without the constant."""
    features, beta, counts = vector("X", n, k), vector("beta", k), vector("counts", n)
    linear = total(features[i, a] * beta[a], a)
    return Energy(
        total(w[i] * (sp.exp(linear) - counts[i] * linear), i),
        variables=[beta],
        weights=[w],
        data=[features, counts],
        name="poisson",
    )


@energy
def springs():
    """Springs on a graph: positions gathered through edges, rest lengths learnt."""
    edges = vector("e", m, 2, integer=True)
    position, rest, anchor = vector("p", n, 2), vector("rest", m), vector("anchor", n, 2)
    length = sp.sqrt(sp.Rational(1, 10) + total((position[edges[j, 0], d] - position[edges[j, 1], d]) ** 2, d))
    return Energy(
        total((length - rest[j]) ** 2, j) + sigma * total((position[i, d] - anchor[i, d]) ** 2, i, d),
        variables=[position],
        weights=[rest, sigma],
        data=[edges, anchor],
        name="springs",
    )


@energy
def lennard_jones():
    """A softened Lennard-Jones potential over listed pairs."""
    pairs, position = vector("pairs", m, 2, integer=True), vector("p", n, 3)
    xyz = sp.Idx("xyz", 3)
    r2 = sp.Float(1.3) + total((position[pairs[j, 0], xyz] - position[pairs[j, 1], xyz]) ** 2, xyz)
    return Energy(
        total(4 * b * ((sigma**2 / r2) ** 6 - (sigma**2 / r2) ** 3), j) + total(position[i, xyz] ** 2, i, xyz),
        variables=[position],
        weights=[b, sigma],
        data=[pairs],
        name="lennard_jones",
    )


@energy
def mixture():
    """The negative log-likelihood of a Gaussian mixture in its means."""
    mean = vector("mu", k)
    density = total(sp.exp(alpha[a] - (x[i] - mean[a]) ** 2 / (2 * sigma**2)), a)
    return Energy(
        -total(sp.log(density), i) + total(mean[a] ** 2, a) / 10,
        variables=[mean],
        weights=[alpha, sigma],
        data=[x],
        name="mixture",
    )


@energy
def factorisation():
    """Matrix factorisation with two matrices of unknowns."""
    left, right, matrix = vector("U", n, k), vector("V", m, k), vector("M", n, m)
    residual = matrix[i, j] - total(left[i, a] * right[j, a], a)
    size = total(left[i, a] ** 2, i, a) + total(right[j, a] ** 2, j, a)
    return Energy(
        total(residual**2, i, j) / 2 + tau * size,
        variables=[left, right],
        weights=[tau],
        data=[matrix],
        name="factorisation",
    )


def robust_line(name: str, penalty: Callable[..., Any]) -> None:
    def make() -> Energy:
        r2 = (y[i] - t * x[i] - u) ** 2
        return Energy(total(penalty(r2), i) + t**2 / 10, variables=[t, u], weights=[sigma], data=[x, y], name=name)

    make.__doc__ = f"A line through points with outliers, {name.removeprefix('line_')} penalty (energies/robust.py)."
    TABLE[name] = make


robust_line("line_pseudo_huber", lambda r2: robust.pseudo_huber(r2, sigma))
robust_line("line_geman_mcclure", lambda r2: robust.geman_mcclure(r2, sigma))
robust_line("line_welsch", lambda r2: robust.welsch(r2, sigma))
robust_line("line_cauchy", lambda r2: robust.cauchy(r2, sigma))
robust_line("line_student_t", lambda r2: robust.student_t(r2, sigma, 4))


@energy
def circle():
    """A circle through points: centre and radius unknown, distances softened."""
    centre, points, radius = vector("centre", 2), vector("x", n, 2), sp.Symbol("radius", real=True)
    distance = sp.sqrt(total((points[i, d] - centre[d]) ** 2, d) + sp.Rational(1, 100))
    return Energy(
        total(w[i] * (distance - radius) ** 2, i), variables=[centre, radius], weights=[w], data=[points], name="circle"
    )


@energy
def ising():
    """A smooth relaxation of the Ising model: spins are tanh of unknowns."""
    coupling, spin = vector("J", n, n), vector("h", n)
    i2 = sp.Idx("i2", n)
    return Energy(
        -total(coupling[i, i2] * sp.tanh(spin[i]) * sp.tanh(spin[i2]), i, i2) / 2
        - total(b * x[i] * sp.tanh(spin[i]), i),
        variables=[spin],
        weights=[coupling, b],
        data=[x],
        name="ising",
    )


@energy
def quadratic():
    """A quadratic form y'Ay/2 - x'y."""
    matrix, i2 = vector("A", n, n), sp.Idx("i2", n)
    return Energy(
        total(y[i] * matrix[i, i2] * y[i2], i, i2) / 2 - total(x[i] * y[i], i),
        variables=[y],
        weights=[matrix],
        data=[x],
        name="quadratic",
    )


@energy
def procrustes():
    """A rotation by an angle between two point sets, with cos and sin."""
    source, target, angle = vector("p", n, 2), vector("q", n, 2), sp.Symbol("angle", real=True)
    first = sp.cos(angle) * source[i, 0] - sp.sin(angle) * source[i, 1] + t - target[i, 0]
    second = sp.sin(angle) * source[i, 0] + sp.cos(angle) * source[i, 1] - target[i, 1]
    return Energy(
        total(w[i] ** 2 * (first**2 + second**2), i),
        variables=[angle, t],
        weights=[w],
        data=[source, target],
        name="procrustes",
    )


@energy
def bearings():
    """A position from bearings: atan2 of differences, compared by 1 - cos."""
    beacon = vector("beacon", n, 2)
    bearing = sp.atan2(beacon[i, 1] - u, beacon[i, 0] - t)
    return Energy(
        total(w[i] * (1 - sp.cos(bearing - z[i])), i), variables=[t, u], weights=[w], data=[beacon, z], name="bearings"
    )


@energy
def probit():
    """Probit regression: log of erfc."""
    return Energy(
        -total(sp.log(sp.erfc(-b * z[i] * (x[i] - t)) / 2), i), variables=[t], weights=[b], data=[x, z], name="probit"
    )


@energy
def hinge():
    """A support vector machine: Max in every term."""
    features, beta = vector("X", n, 2), vector("beta", 2)
    margin = z[i] * total(features[i, d] * beta[d], d)
    return Energy(
        total(sp.Max(0, 1 - margin), i) + tau * total(beta[d] ** 2, d),
        variables=[beta],
        weights=[tau],
        data=[features, z],
        name="hinge",
    )


# ---------------------------------------------------------------------------------------------- the language


@energy
def lets():
    """Intermediates that other intermediates use, one of them not linear, also read at an offset."""
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
    """An intermediate of two indices, read transposed and on its diagonal."""
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
    """Huber's function as a Piecewise."""
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
    """Abs, Max and Min of several arguments."""
    return Energy(
        total(sp.Abs(x[i] - t) + sp.Max(x[i], t, u * w[i]) + sp.Min(t * u, w[i] * t, 1) ** 2, i) + t**2 + u**2,
        variables=[t, u],
        weights=[w],
        data=[x],
        name="kinks",
    )


@energy
def conditions():
    """Piecewise with several branches and joined conditions."""
    branch = sp.Piecewise(
        (x[i] * t**2, sp.And(x[i] > 0, t < u)), (sp.exp(t) * b, sp.Or(x[i] < -1, sp.Not(u > 0))), (sp.sin(t * u), True)
    )
    return Energy(total(branch, i) + sp.Heaviside(t) * u**3, variables=[t, u], weights=[b], data=[x], name="conditions")


@energy
def exponents():
    """Powers whose exponent is a weight, a variable or a fraction, and a number to a variable power."""
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
    """Index and extent as numbers."""
    return Energy(
        total((i + 1) * (x[i] - t) ** 2 / n + sp.cos(i * t) / (n + i + b**2), i) + n * t**2,
        variables=[t],
        weights=[b],
        data=[x],
        name="index_values",
    )


@energy
def strides():
    """Every second entry."""
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
    """The diagonal of a matrix of unknowns."""
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
    """Deconvolution: a subscript that is the sum of two indices."""
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
    """Constant subscripts, from both ends."""
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
    """Two vectors and a scalar of unknowns, all coupled."""
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
    """Nothing to learn: the geometric median."""
    return Energy(
        total(sp.sqrt((x[i] - t) ** 2 + (z[i] - u) ** 2 + 1), i), variables=[t, u], data=[x, z], name="no_weights"
    )


@energy
def no_data():
    """Only unknowns and weights: a double well."""
    return Energy((t**2 - sigma) ** 2 + b * t, variables=[t], weights=[sigma, b], name="no_data")


@energy
def alone():
    """Neither weights nor data: Himmelblau's function."""
    return Energy((t**2 + u - 11) ** 2 + (t + u**2 - 7) ** 2, variables=[t, u], name="alone")


@energy
def whole_sum():
    """A function of a whole sum: its Hessian is dense; and weights that no unknown meets."""
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
    """Sums in sums in sums, each with a function around it."""
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
    """The less usual functions."""
    r = x[i] - t
    smooth = sp.asinh(r) * sp.atan(r) + sp.sinh(r / 4) + sp.cosh(r / 3) + sp.erf(r) + sp.tan(r / 8) + sp.atanh(r / 16)
    bounded = sp.asin(sp.tanh(r)) + sp.acos(sp.tanh(r) / 2) + sp.acosh(2 + r**2)
    return Energy(total(b * smooth + bounded, i), variables=[t], weights=[b], data=[x], name="functions")


@energy
def gathered():
    """Gathered weights and data, two gathers in one subscript list, and a gather with an offset."""
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
    """Ridge regression (Hoerl and Kennard 1970) in matrices."""
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
    """Generalised least squares (Aitken 1935): a Mahalanobis distance of residuals, with a learnt precision."""
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
    """Registration of points in the plane by an angle and a shift (Procrustes; Arun, Huang and Blostein 1987)."""
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
    """A Gaussian in the plane by its likelihood: mean, and the factor of its covariance."""
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
    """The input that a layer of tanh maps to given outputs, kept small."""
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
    """A tetrahedron of a neo-Hookean body (Bonet and Wood 1997), the logarithm of the volume replaced by its square."""
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
    """A matrix of low rank by its factors, which a bound on its trace norm keeps small (Srebro et al. 2005)."""
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
    """A softened Lennard-Jones potential over all pairs (J. E. Lennard-Jones, 1924)."""
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
    """Triangular ranges three deep, with an inner sum that needs one of the indices only."""
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
    """Observations of partial sums: a trajectory from its steps, seen at listed times (repeated ones too)."""
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
    """Autocovariances of a signal at all lags: the subscript i - j - 1 within a triangle."""
    lag = sp.Idx("l", (0, i - 1))
    return Energy(
        total(y[i] * y[i - lag - 1] ** 2 * w[lag], lag, i) / n + total(y[i] ** 2, i),
        variables=[y],
        weights=[w],
        name="lags",
    )


@energy
def volume():
    """Total variation of a volume: differences along three axes (L. Rudin, S. Osher, E. Fatemi, 1992)."""
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
    """Bending of a spline whose every second knot is given: second differences, and a stride of two."""
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
    """Lengths of the edges of listed faces: a gather of a gather, and one with an offset and a factor."""
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
    """Noisy-or: the probability that no cause acts is a product (J. Pearl, 1988); one factor can be 0."""
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
    """The k-means energy: each point to its nearest centre (S. Lloyd, 1957)."""
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
    """The largest residual of a line through points, and the largest of earlier ones for each point."""
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
    """Candidates that use intermediates."""
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


# ---------------------------------------------------------------------------------------------- points


def extent_sizes(energy: Energy, sizes: Mapping[str, int] | int) -> dict[Any, int]:
    """A size for every extent: given by name, or one for all with small differences, so that none are mixed up."""
    if isinstance(sizes, int):
        return {extent: sizes + number for number, extent in enumerate(energy.extents)}
    return {extent: sizes[str(extent)] for extent in energy.extents}


def draw(
    energy: Energy, sizes: Mapping[str, int] | int = 3, *, seed: int = 0, batch: int | None = None, shared: str = ""
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A random point (y, w, x); batched in every role but those named in `shared` ("weights", "data", "variables")."""
    generator = np.random.default_rng(seed)
    values = extent_sizes(energy, sizes)
    roles = {"variables": energy.variables, "weights": energy.weights, "data": energy.data}
    result = []
    for role, symbols in roles.items():
        lead = () if batch is None or role in re.findall(r"\w+", shared) else (batch,)
        arrays = {}
        for symbol in symbols:
            shape = (*lead, *(max(0, int(sp.sympify(e).subs(values))) for e in energy.shapes[str(symbol)]))
            label = symbol.label if isinstance(symbol, sp.IndexedBase) else symbol
            if str(symbol) in energy.integer:
                arrays[str(symbol)] = generator.integers(0, max(1, min(values.values())), shape)
            else:
                array = np.asarray(generator.uniform(-1.5, 1.5, shape))
                arrays[str(symbol)] = np.abs(array) + 0.3 if label.is_positive else array
        result.append(arrays)
    return tuple(result)


def generated(
    energy: Energy,
    program: Any,
    point: tuple[dict[str, Any], ...],
    sizes: Mapping[str, int] | int = 3,
    *,
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, int]]:
    """What the interpreter needs for a point of `draw`: inputs and extents by generated name; directions are drawn."""
    user: dict[str, Any] = {}
    for part in point:
        user |= part
    roles = {"variable": energy.variables, "weight": energy.weights, "data": energy.data}
    inputs = {
        name: user[str(roles[array.role][int(name[1:])])]
        for name, array in program.arrays.items()
        if array.role in roles
    }
    generator = np.random.default_rng(seed)
    for name, symbol in enumerate(energy.variables):
        if f"v{name}" in program.arrays:
            inputs[f"v{name}"] = np.asarray(generator.standard_normal(user[str(symbol)].shape))
    return inputs, dict(zip(program.extents, extent_sizes(energy, sizes).values(), strict=True))
