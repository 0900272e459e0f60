"""Energies of the examples and from the literature, each with its source."""

from collections.abc import Callable
from typing import Any

import sympy as sp
from wiberg.energies import robust
from wiberg.energies.energy import Energy

from .symbols import TABLE, a, alpha, b, d, energy, i, j, k, m, n, sigma, t, tau, total, u, vector, w, x, y, z

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
