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
    """The mean of inliers among outliers by Gaussian kernels of learnt width. M. Toso, N. Campbell, C. Russell, "Fixing
    Implicit Derivatives", NeurIPS 2019, the example of section 3, as it stands there.
    """
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
    """One corner of a box from many trackers: a Gaussian kernel for each, of learnt width, importance in time and
    scale. Toso, Campbell and Russell, NeurIPS 2019, section 4, in words; the importance exp(alpha + beta t) is a form
    of ours.
    """
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
    """A human pose in a basis of shapes, seen by several cameras, with a smooth Huber penalty. Toso, Campbell and
    Russell, NeurIPS 2019, section 5, eq. 11, after D. Tome et al., CVPR 2017 and 3DV 2018; here the rotation is known
    (part of P), the prior has its mean m, and a factor of 1/2.
    """
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
    """Image denoising by total variation: L. Rudin, S. Osher, E. Fatemi, Physica D 60, 1992. In its penalised form,
    each difference by itself (theirs is the length of the gradient), softened as by R. Acar, C. Vogel, Inverse Problems
    10, 1994.
    """
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
    """The valley of H. Rosenbrock, The Computer Journal 3, 1960 (there n = 2, b = 100), chained over neighbours.
    Without data.
    """
    q = sp.Idx("q", (0, n - 2))
    return Energy(
        total(b * (y[q + 1] - y[q] ** 2) ** 2 + (1 - y[q]) ** 2, q), variables=[y], weights=[b], name="rosenbrock"
    )


@energy
def logistic():
    """Logistic regression with labels -1 and 1 (D. Cox, JRSS B 20, 1958) and a ridge penalty. The penalty is that of S.
    le Cessie, J. van Houwelingen, Applied Statistics 41, 1992.
    """
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
    """Poisson regression with a weight for each case, its negative log-likelihood without the constant. J. Nelder, R.
    Wedderburn, "Generalized linear models", JRSS A 135, 1972.
    """
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
    """Springs on a graph: positions gathered through edges, rest lengths learnt. T. Kamada, S. Kawai, Information
    Processing Letters 31, 1989, without their stiffness k/2, over listed edges, lengths softened, anchored.
    """
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
    """The 12-6 potential of J. Lennard-Jones, "Cohesion", Proceedings of the Physical Society 43, 1931, over listed
    pairs. Softened by adding to r^2, and a quadratic trap holds the points.
    """
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
    """The negative log-likelihood of a Gaussian mixture in its means, with a quadratic prior. C. Bishop, "Pattern
    Recognition and Machine Learning", 2006, section 9.2; here exp(alpha) are weights that need not sum to 1, without
    the constant of the Gaussians.
    """
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
    """Matrix factorisation with two matrices of unknowns. R. Salakhutdinov, A. Mnih, "Probabilistic matrix
    factorization", NIPS 2007, all entries seen, tau for both of their lambda/2.
    """
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


def robust_line(name: str, penalty: Callable[..., Any], source: str) -> None:
    def make() -> Energy:
        r2 = (y[i] - t * x[i] - u) ** 2
        return Energy(total(penalty(r2), i) + t**2 / 10, variables=[t, u], weights=[sigma], data=[x, y], name=name)

    title = name.removeprefix("line_").replace("_", " ")
    make.__doc__ = (
        f"A line through points with outliers, {title} penalty: {source}; normalised as in energies/robust.py."
    )
    TABLE[name] = make


robust_line(
    "line_pseudo_huber",
    lambda r2: robust.pseudo_huber(r2, sigma),
    "P. Charbonnier, L. Blanc-Feraud, G. Aubert, M. Barlaud, ICIP 1994",
)
robust_line(
    "line_geman_mcclure",
    lambda r2: robust.geman_mcclure(r2, sigma),
    "S. Geman, D. McClure, Bulletin of the ISI 52, 1987",
)
robust_line(
    "line_welsch", lambda r2: robust.welsch(r2, sigma), "P. Holland, R. Welsch, Communications in Statistics 6, 1977"
)
robust_line("line_cauchy", lambda r2: robust.cauchy(r2, sigma), "M. Black, P. Anandan, CVIU 63, 1996")
robust_line(
    "line_student_t", lambda r2: robust.student_t(r2, sigma, 4), "K. Lange, R. Little, J. Taylor, JASA 84, 1989"
)


@energy
def circle():
    """A circle through points by their distances from it: W. Gander, G. Golub, R. Strebel, BIT 34, 1994. Weighted,
    distances softened.
    """
    centre, points, radius = vector("centre", 2), vector("x", n, 2), sp.Symbol("radius", real=True)
    distance = sp.sqrt(total((points[i, d] - centre[d]) ** 2, d) + sp.Rational(1, 100))
    return Energy(
        total(w[i] * (distance - radius) ** 2, i), variables=[centre, radius], weights=[w], data=[points], name="circle"
    )


@energy
def ising():
    """A smooth relaxation of the model of E. Ising, Zeitschrift fuer Physik 31, 1925: spins are tanh of unknowns. The
    relaxation is the energy of J. Hopfield, PNAS 81, 1984, without its integral term.
    """
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
    """A quadratic form y'Ay/2 - x'y (J. Nocedal, S. Wright, "Numerical Optimization", 2006, section 5.1). Here A need
    not be symmetric.
    """
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
    """A rotation by an angle between two point sets: P. Schoenemann, Psychometrika 31, 1966, in the plane. Weighted,
    with a shift along the first axis.
    """
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
    """A position from bearings with von Mises errors: R. Lenth, "On finding the source of a signal", Technometrics 23,
    1981. The negative log-likelihood without its constants; w are concentrations.
    """
    beacon = vector("beacon", n, 2)
    bearing = sp.atan2(beacon[i, 1] - u, beacon[i, 0] - t)
    return Energy(
        total(w[i] * (1 - sp.cos(bearing - z[i])), i), variables=[t, u], weights=[w], data=[beacon, z], name="bearings"
    )


@energy
def probit():
    """Probit regression, log of erfc: C. Bliss, "The method of probits", Science 79, 1934. The slope is b sqrt(2) in
    units of the normal distribution, since Phi(s) = erfc(-s/sqrt(2))/2.
    """
    return Energy(
        -total(sp.log(sp.erfc(-b * z[i] * (x[i] - t)) / 2), i), variables=[t], weights=[b], data=[x, z], name="probit"
    )


@energy
def hinge():
    """A support vector machine: C. Cortes, V. Vapnik, Machine Learning 20, 1995; a Max in every term. Their objective
    times 1/C, tau = 1/(2C), without the offset.
    """
    features, beta = vector("X", n, 2), vector("beta", 2)
    margin = z[i] * total(features[i, d] * beta[d], d)
    return Energy(
        total(sp.Max(0, 1 - margin), i) + tau * total(beta[d] ** 2, d),
        variables=[beta],
        weights=[tau],
        data=[features, z],
        name="hinge",
    )


# ---------------------------------------------------------------------------------------------- more classical ones


@energy
def powell():
    """The singular function of M. Powell, The Computer Journal 5, 1962, over weighted groups of four unknowns."""
    q = vector("y", 4 * n)
    first, second, third, fourth = (q[4 * i + place] for place in range(4))
    linear, bent = first + 10 * second, second - 2 * third
    return Energy(
        total(w[i] * (linear**2 + 5 * (third - fourth) ** 2 + bent**4 + 10 * (first - fourth) ** 4), i),
        variables=[q],
        weights=[w],
        name="powell",
    )


@energy
def beale():
    """The function of E. Beale, Princeton Statistical Techniques Report 25, 1958 (there x = 1.5, 2.25, 2.625)."""
    return Energy(total((x[i] - t * (1 - u ** (i + 1))) ** 2, i), variables=[t, u], data=[x], name="beale")


@energy
def rastrigin():
    """The function of L. Rastrigin, "Systems of Extremal Control", 1974, in n unknowns (there b = 10 and n = 2)."""
    return Energy(
        n * b + total(y[i] ** 2 - b * sp.cos(2 * sp.pi * y[i]), i), variables=[y], weights=[b], name="rastrigin"
    )


@energy
def griewank():
    """The function of A. Griewank, JOTA 34, 1981 (there b = 1/4000 or 1/200): a product of cosines."""
    return Energy(
        1 + b * total(y[i] ** 2, i) - sp.Product(sp.cos(y[i] / sp.sqrt(i + 1)), i),
        variables=[y],
        weights=[b],
        name="griewank",
    )


@energy
def michaelis_menten():
    """A rate that saturates: L. Michaelis, M. Menten, Biochemische Zeitschrift 49, 1913; by weighted least squares.
    Unknown are the highest rate and the logarithm of their constant.
    """
    substrate = sp.IndexedBase("x", shape=(n,), positive=True)
    rate = t * substrate[i] / (sp.exp(u) + substrate[i])
    return Energy(
        total(w[i] * (z[i] - rate) ** 2, i),
        variables=[t, u],
        weights=[w],
        data=[substrate, z],
        name="michaelis_menten",
    )


@energy
def exponentials():
    """A sum of decays, rates and amplitudes unknown: an example of G. Golub, V. Pereyra, "The differentiation of
    pseudo-inverses and nonlinear least squares problems ...", SIAM J. Numerical Analysis 10, 1973; with a ridge.
    """
    rate, size = vector("rate", k), vector("size", k)
    residual = z[i] - total(size[a] * sp.exp(-rate[a] * x[i]), a)
    return Energy(
        total(residual**2, i) / 2 + tau * total(rate[a] ** 2 + size[a] ** 2, a),
        variables=[rate, size],
        weights=[tau],
        data=[x, z],
        name="exponentials",
    )


@energy
def conditional_logit():
    """Choices among alternatives: D. McFadden, "Conditional logit analysis of qualitative choice behavior", 1974."""
    features, taste, chosen = vector("X", n, k, 2), vector("beta", 2), vector("chosen", n, integer=True)
    utility = vector("utility", n, k)
    return Energy(
        total(sp.log(total(sp.exp(utility[i, a]), a)) - utility[i, chosen[i]], i) + tau * total(taste[d] ** 2, d),
        variables=[taste],
        weights=[tau],
        data=[features, chosen],
        where={utility[i, a]: total(features[i, a, d] * taste[d], d)},
        name="conditional_logit",
    )


@energy
def bradley_terry():
    """Strengths of players from games: R. Bradley, M. Terry, Biometrika 39, 1952, by their logarithms, with a ridge."""
    games, times = vector("games", m, 2, integer=True), vector("times", m)
    return Energy(
        total(times[j] * sp.log(1 + sp.exp(y[games[j, 1]] - y[games[j, 0]])), j) + tau * total(y[i] ** 2, i),
        variables=[y],
        weights=[times, tau],
        data=[games],
        name="bradley_terry",
    )


@energy
def rasch():
    """Abilities and difficulties: G. Rasch, "Probabilistic Models for Some Intelligence and Attainment Tests", 1960.
    With normal priors.
    """
    ability, difficulty, solved = vector("ability", n), vector("difficulty", m), vector("X", n, m)
    lead = ability[i] - difficulty[j]
    return Energy(
        total(sp.log(1 + sp.exp(lead)) - solved[i, j] * lead, i, j)
        + total(ability[i] ** 2, i) / 2
        + tau * total((difficulty[j] - b) ** 2, j) / 2,
        variables=[ability, difficulty],
        weights=[tau, b],
        data=[solved],
        name="rasch",
    )


@energy
def cox():
    """The partial likelihood of D. Cox, "Regression models and life-tables", JRSS B 34, 1972: rows sorted from the
    latest time, no ties, z is 1 where the event was seen; with a ridge.
    """
    features, beta, score = vector("X", n, k), vector("beta", k), vector("score", n)
    at_risk = sp.Idx("l", (0, i))
    return Energy(
        total(z[i] * (sp.log(total(sp.exp(score[at_risk]), at_risk)) - score[i]), i) + tau * total(beta[a] ** 2, a),
        variables=[beta],
        weights=[tau],
        data=[features, z],
        where={score[i]: total(features[i, a] * beta[a], a)},
        name="cox",
    )


@energy
def lasso():
    """The lasso: R. Tibshirani, JRSS B 58, 1996, in the form with a multiplier."""
    features, beta = vector("X", n, k), vector("beta", k)
    return Energy(
        total((z[i] - total(features[i, a] * beta[a], a)) ** 2, i) / 2 + tau * total(sp.Abs(beta[a]), a),
        variables=[beta],
        weights=[tau],
        data=[features, z],
        name="lasso",
    )


@energy
def quantile():
    """A line as a regression quantile, b from 0 to 1: R. Koenker, G. Bassett, Econometrica 46, 1978; with a ridge."""
    r = y[i] - t * x[i] - u
    return Energy(
        total(sp.Max(b * r, (b - 1) * r), i) + tau * (t**2 + u**2),
        variables=[t, u],
        weights=[b, tau],
        data=[x, y],
        name="quantile",
    )


@energy
def phase_retrieval():
    """A vector from squares of its products: E. Candes, X. Li, M. Soltanolkotabi, IEEE Trans. Inf. Theory 61, 2015.
    Real where theirs is complex, weighted, without their factor 1/(2 m).
    """
    rows, signal = vector("A", n, k), vector("y", k)
    return Energy(
        total(w[i] * (z[i] - total(rows[i, a] * signal[a], a) ** 2) ** 2, i),
        variables=[signal],
        weights=[w],
        data=[rows, z],
        name="phase_retrieval",
    )


@energy
def smoother():
    """States of a linear system from noisy sight of them: H. Rauch, F. Tung, C. Striebel, AIAA Journal 3, 1965."""
    q = sp.Idx("q", (0, n - 2))
    seen = total((x[i] - y[i]) ** 2, i) / (2 * sigma**2)
    return Energy(
        seen + total((y[q + 1] - b * y[q]) ** 2, q) / (2 * tau**2),
        variables=[y],
        weights=[sigma, tau, b],
        data=[x],
        name="smoother",
    )


@energy
def stochastic_volatility():
    """Log-variances of returns: S. Kim, N. Shephard, S. Chib, Review of Economic Studies 65, 1998, their beta 1 and
    mu 0, without the prior of the first; the negative log-density without its constants.
    """
    q = sp.Idx("q", (0, n - 2))
    return Energy(
        total(y[i] + x[i] ** 2 * sp.exp(-y[i]), i) / 2 + total((y[q + 1] - b * y[q]) ** 2, q) / (2 * sigma**2),
        variables=[y],
        weights=[b, sigma],
        data=[x],
        name="stochastic_volatility",
    )


@energy
def optical_flow():
    """Optical flow: B. Horn, B. Schunck, Artificial Intelligence 17, 1981, with forward differences."""
    along, across, change = vector("Ix", n, m), vector("Iy", n, m), vector("It", n, m)
    flow = [vector("right", n, m), vector("down", n, m)]
    p, q = sp.Idx("p", (0, n - 2)), sp.Idx("q", (0, m - 2))
    smooth = [total((f[p + 1, j] - f[p, j]) ** 2, p, j) + total((f[i, q + 1] - f[i, q]) ** 2, i, q) for f in flow]
    seen = along[i, j] * flow[0][i, j] + across[i, j] * flow[1][i, j] + change[i, j]
    return Energy(
        total(seen**2, i, j) + b**2 * sum(smooth),
        variables=flow,
        weights=[b],
        data=[along, across, change],
        name="optical_flow",
    )


@energy
def edges():
    """A signal and where it jumps, in one dimension: L. Ambrosio, V. Tortorelli, Comm. Pure Appl. Math. 43, 1990."""
    whole, q = vector("whole", n), sp.Idx("q", (0, n - 2))
    smooth = total(whole[q] ** 2 * (y[q + 1] - y[q]) ** 2, q)
    jumps = total(tau * (whole[q + 1] - whole[q]) ** 2, q) + total((1 - whole[i]) ** 2, i) / (4 * tau)
    return Energy(
        total((y[i] - x[i]) ** 2, i) + sigma * smooth + b**2 * jumps,
        variables=[y, whole],
        weights=[sigma, tau, b],
        data=[x],
        name="edges",
    )


@energy
def cahn_hilliard():
    """The free energy of a mixture of two phases on a line: J. Cahn, J. Hilliard, J. Chemical Physics 28, 1958.
    With the quartic double well and a field.
    """
    q = sp.Idx("q", (0, n - 2))
    return Energy(
        total((y[i] ** 2 - 1) ** 2 / 4 - x[i] * y[i], i) + b**2 * total((y[q + 1] - y[q]) ** 2, q) / 2,
        variables=[y],
        weights=[b],
        data=[x],
        name="cahn_hilliard",
    )


@energy
def frenkel_kontorova():
    """A chain of atoms over a periodic ground: J. Frenkel, T. Kontorova, 1938; O. Braun, Y. Kivshar, 2004."""
    q = sp.Idx("q", (0, n - 2))
    return Energy(
        total((y[q + 1] - y[q] - sigma) ** 2, q) / 2 + tau * total(1 - sp.cos(y[i]), i),
        variables=[y],
        weights=[sigma, tau],
        name="frenkel_kontorova",
    )


@energy
def synchronisation():
    """Angles from differences: A. Singer, Applied and Computational Harmonic Analysis 30, 2011; weighted."""
    pairs, seen, trust = vector("pairs", m, 2, integer=True), vector("seen", m), vector("trust", m)
    return Energy(
        total(trust[j] * (1 - sp.cos(y[pairs[j, 0]] - y[pairs[j, 1]] - seen[j])), j),
        variables=[y],
        weights=[trust],
        data=[pairs, seen],
        name="synchronisation",
    )


@energy
def morse():
    """The potential of P. Morse, Physical Review 34, 1929, plus its depth, over listed pairs; distances softened."""
    pairs, position = vector("pairs", m, 2, integer=True), vector("p", n, 2)
    r = sp.sqrt(sp.Rational(1, 10) + total((position[pairs[j, 0], d] - position[pairs[j, 1], d]) ** 2, d))
    return Energy(
        total(b * (1 - sp.exp(-sigma * (r - tau))) ** 2, j) + total(position[i, d] ** 2, i, d) / 2,
        variables=[position],
        weights=[b, sigma, tau],
        data=[pairs],
        name="morse",
    )


@energy
def sammon():
    """A map of points by their distances: J. Sammon, IEEE Transactions on Computers 18, 1969, over all pairs.
    Distances softened; without the sum of distances in front.
    """
    place, other = vector("p", n, 2), sp.Idx("o", (i + 1, n - 1))
    given = sp.IndexedBase("distance", shape=(n, n), positive=True)
    r = sp.sqrt(sp.Rational(1, 10) + total((place[i, d] - place[other, d]) ** 2, d))
    return Energy(
        total((given[i, other] - r) ** 2 / given[i, other], other, i) + tau * total(place[i, d] ** 2, i, d),
        variables=[place],
        weights=[tau],
        data=[given],
        name="sammon",
    )


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
