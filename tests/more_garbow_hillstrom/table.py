"""The 35 problems with their standard dimensions, starts and minima.

Sources of the minima:

MGH       J. More, B. Garbow, K. Hillstrom, "Testing Unconstrained Optimization Software", ACM Transactions on
          Mathematical Software 7 (1981), 17-41, section 3
MINPACK   the output of MINPACK's own tests of LMDIF (J. More, B. Garbow, K. Hillstrom, ANL-80-74, 1980)
SolvOpt   A. Kuntsevich, F. Kappel, "More set of test functions", results of SolvOpt, University of Graz, 1997
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from . import energies, measured
from .problem import Minimum, Problem

INFINITY = float("inf")
GRID = np.arange(1, 11) / 11
GULF = np.arange(1, 100) / 100
BIGGS = np.arange(1, 14) / 10


TRIDIAGONAL = (
    (0.895716, 1.436943, -0.087875, -0.515651, -0.562530, -0.426789, -0.034881, 0.737737, 1.311926, 0.233497),
    (1.572936, 0.375369, 0.168298, 0.605128, 1.051961, 0.586196, 0.420212, 0.767135, 1.171534, 0.266361),
    (1.764234, 0.030918, -0.324886, -0.068552, 0.702368, 1.497721, -0.065852, -0.506147, -0.549441, -0.401090),
    (1.831411, -0.106952, -0.587561, -0.673056, -0.668622, -0.612478, -0.454333, -0.055291, 0.757889, 1.413268),
    (1.829106, -0.101978, -0.577880, -0.649627, -0.606790, -0.449814, -0.054743, 0.723068, 1.319371, 0.235036),
)
TRIGONOMETRIC = (
    0.0551509,
    0.0568406,
    0.0587640,
    0.0609906,
    0.0636262,
    0.0668432,
    0.208162,
    0.164363,
    0.0850069,
    0.0914314,
)
BANDED = (
    (0.210714, 0.260977, 0.227948, 0.197026, 0.203230, 0.221916, 0.162812, 0.048303, -0.079357, -0.153125),
    (0.217172, 0.306467, 0.356786, 0.448395, 0.577638, 0.713104, 0.823957, 0.921909, 0.996993, 0.963462),
)


def repeated(value: float, count: int) -> Any:
    return np.full(count, float(value))


def biggs(t: Any) -> Any:
    return np.exp(-t) - 5 * np.exp(-10 * t) + 3 * np.exp(-4 * t)


PROBLEMS: tuple[Problem, ...] = (
    Problem(
        1, "Rosenbrock", energies.rosenbrock, 2, np.array([-1.2, 1.0]),
        (Minimum(0.0, (1.0, 1.0), "MGH"),),
    ),
    Problem(
        2, "Freudenstein and Roth", energies.freudenstein_roth, 2, np.array([0.5, -2.0]),
        (Minimum(0.0, (5.0, 4.0), "MGH"), Minimum(48.98425368, (11.4128, -0.896805), "MGH")),
    ),
    Problem(
        3, "Powell badly scaled", energies.powell_badly_scaled, 2, np.array([0.0, 1.0]),
        (Minimum(0.0, (1.09815933e-5, 9.106146738), "SolvOpt"),),
    ),
    Problem(
        4, "Brown badly scaled", energies.brown_badly_scaled, 3, np.array([1.0, 1.0]),
        (Minimum(0.0, (1e6, 2e-6), "MGH"),),
    ),
    Problem(
        5, "Beale", energies.beale, 3, np.array([1.0, 1.0]),
        (Minimum(0.0, (3.0, 0.5), "MGH"),),
        {"z": np.array([1.5, 2.25, 2.625])},
    ),
    Problem(
        6, "Jennrich and Sampson", energies.jennrich_sampson, 10, np.array([0.3, 0.4]),
        (
            Minimum(124.3621824, (0.257825, 0.257825), "MGH"),
            Minimum(259.5801901, (0.331485, -INFINITY), "SolvOpt"),
        ),
        {"t": np.arange(1.0, 11.0)},
    ),
    Problem(
        7, "Helical valley", energies.helical_valley, 3, np.array([-1.0, 0.0, 0.0]),
        (Minimum(0.0, (1.0, 0.0, 0.0), "MGH"),),
    ),
    Problem(
        8, "Bard", energies.bard, 15, repeated(1, 3),
        (
            Minimum(8.214877307e-3, (0.0824106, 1.13304, 2.34370), "MGH"),
            Minimum(17.42869333, (0.84066667, -INFINITY, -INFINITY), "MGH"),
        ),
        {
            "z": measured.BARD, "u": np.arange(1.0, 16.0), "v": np.arange(15.0, 0.0, -1.0),
            "w": np.minimum(np.arange(1.0, 16.0), np.arange(15.0, 0.0, -1.0)),
        },
    ),
    Problem(
        9, "Gaussian", energies.gaussian, 15, np.array([0.4, 1.0, 0.0]),
        (Minimum(1.127932770e-8, (0.398956, 1.000019, 0.0), "MGH"),),
        {"t": np.arange(7.0, -8.0, -1.0) / 2, "z": measured.GAUSSIAN},
    ),
    Problem(
        10, "Meyer", energies.meyer, 16, np.array([0.02, 4000.0, 250.0]),
        (Minimum(87.94585517, (0.00560964, 6181.346, 345.2236), "MGH"),),
        {"t": 45.0 + 5.0 * np.arange(1, 17), "z": measured.MEYER},
    ),
    Problem(
        11, "Gulf research", energies.gulf, 99, np.array([5.0, 2.5, 0.15]),
        (Minimum(0.0, (50.0, 25.0, 1.5), "MGH"),),
        {"t": GULF, "z": 25 + (-50 * np.log(GULF)) ** (2 / 3)},
    ),
    Problem(
        12, "Box", energies.box, 10, np.array([0.0, 10.0, 20.0]),
        (Minimum(0.0, (), "MGH: (1, 10, 1), (10, 1, -1) and the line (s, s, 0)"),),
        {"t": np.arange(1, 11) / 10},
    ),
    Problem(
        13, "Powell singular", energies.powell_singular, 4, np.array([3.0, -1.0, 0.0, 1.0]),
        (Minimum(0.0, (0.0, 0.0, 0.0, 0.0), "MGH"),),
    ),
    Problem(
        14, "Wood", energies.wood, 6, np.array([-3.0, -1.0, -3.0, -1.0]),
        (Minimum(0.0, (1.0, 1.0, 1.0, 1.0), "MGH"),),
    ),
    Problem(
        15, "Kowalik and Osborne", energies.kowalik_osborne, 11, np.array([0.25, 0.39, 0.415, 0.39]),
        (
            Minimum(3.075056038e-4, (0.192807, 0.191282, 0.123056, 0.136062), "MGH"),
            Minimum(1.027343049e-3, (INFINITY, -14.0758, -INFINITY, -INFINITY), "MGH"),
            Minimum(1.794539061e-3, (), "SolvOpt: a plateau where the last three unknowns are infinite"),
        ),
        {"u": measured.KOWALIK_OSBORNE[0], "z": measured.KOWALIK_OSBORNE[1]},
    ),
    Problem(
        16, "Brown and Dennis", energies.brown_dennis, 20, np.array([25.0, 5.0, -5.0, -1.0]),
        (Minimum(85822.20163, (-11.5944, 13.2036, -0.403439, 0.236779), "MGH"),),
        {"t": np.arange(1, 21) / 5},
    ),
    Problem(
        17, "Osborne 1", energies.osborne_1, 33, np.array([0.5, 1.5, -1.0, 0.01, 0.02]),
        (Minimum(5.464894697e-5, (0.37541, 1.93585, -1.46469, 0.0128675, 0.0221227), "MGH"),),
        {"t": 10.0 * np.arange(33), "z": measured.OSBORNE_1},
    ),
    Problem(
        18, "Biggs EXP6", energies.biggs_exp6, 13, np.array([1.0, 2.0, 1.0, 1.0, 1.0, 1.0]),
        (
            Minimum(0.0, (), "MGH: (1, 10, 1, 5, 4, 3) and what equals it with its exponentials exchanged"),
            Minimum(5.655649926e-3, (), "MGH; SolvOpt: (1.711416, 17.68320, a, 5.18656, 1.711416, 2.3262873 - a)"),
            Minimum(0.3063667726, (), "SolvOpt: one exponential, the others at infinity"),
        ),
        {"t": BIGGS, "z": biggs(BIGGS)},
    ),
    Problem(
        19, "Osborne 2", energies.osborne_2, 65,
        np.array([1.3, 0.65, 0.65, 0.7, 0.6, 3.0, 5.0, 7.0, 2.0, 4.5, 5.5]),
        (
            Minimum(
                4.013773629e-2,
                (1.30998, 0.431553, 0.633662, 0.599431, 0.754182, 0.904289, 1.36581, 4.8237, 2.39868, 4.56887, 5.67534),
                "MGH",
            ),
        ),
        {"t": np.arange(65) / 10, "z": measured.OSBORNE_2},
    ),
    Problem(
        20, "Watson", energies.watson, 31, np.zeros(6),
        (Minimum(2.287670054e-3, (-0.0157251, 1.0124349, -0.2329916, 1.2604301, -1.5137289, 0.9929964), "MGH"),),
        far=partial(repeated, count=6),
    ),
    Problem(
        21, "Extended Rosenbrock", energies.extended_rosenbrock, 10, np.tile([-1.2, 1.0], (5, 1)),
        (Minimum(0.0, (1.0,) * 10, "MGH"),),
    ),
    Problem(
        22, "Extended Powell singular", energies.extended_powell_singular, 12, np.tile([3.0, -1.0, 0.0, 1.0], (3, 1)),
        (Minimum(0.0, (0.0,) * 12, "MGH"),),
    ),
    Problem(
        23, "Penalty I", energies.penalty_1, 11, np.arange(1.0, 11.0),
        (Minimum(7.087651467e-5, (0.1581223,) * 10, "MGH"),),
    ),
    Problem(
        24, "Penalty II", energies.penalty_2, 20, repeated(0.5, 10),
        (
            Minimum(
                2.936605375e-4, (), "MGH: its first unknowns are 0.199984, 0.0103506, 0.0196049"
            ),
        ),
    ),
    Problem(
        25, "Variably dimensioned", energies.variably_dimensioned, 12, 1 - np.arange(1, 11) / 10,
        (Minimum(0.0, (1.0,) * 10, "MGH"),),
    ),
    Problem(
        26, "Trigonometric", energies.trigonometric, 10, repeated(0.1, 10),
        (
            Minimum(0.0, (), "MGH"),
            Minimum(2.795056122e-5, TRIGONOMETRIC, "SolvOpt"),
        ),
    ),
    Problem(
        27, "Brown almost-linear", energies.brown_almost_linear, 10, repeated(0.5, 10),
        (
            Minimum(0.0, (), "MGH: (a, ..., a, a^-9), a = 1 and 0.979430303349862"),
            Minimum(1.0, (0.0,) * 9 + (11.0,), "MGH"),
        ),
    ),
    Problem(
        28, "Discrete boundary value", energies.discrete_boundary_value, 10, GRID * (GRID - 1),
        (Minimum(0.0, (), "MGH"),),
    ),
    Problem(
        29, "Discrete integral equation", energies.discrete_integral_equation, 10, GRID * (GRID - 1),
        (Minimum(0.0, (), "MGH"),),
    ),
    Problem(
        30, "Broyden tridiagonal", energies.broyden_tridiagonal, 10, repeated(-1, 10),
        (
            Minimum(0.0, (), "MGH"),
            Minimum(1.360255905, TRIDIAGONAL[0], "SolvOpt"),
            Minimum(1.051226188, TRIDIAGONAL[2], "SolvOpt"),
            Minimum(1.028652036, TRIDIAGONAL[1], "SolvOpt"),
            Minimum(0.7126060173, TRIDIAGONAL[3], "SolvOpt"),
            Minimum(0.3973734690, TRIDIAGONAL[4], "SolvOpt"),
        ),
    ),
    Problem(
        31, "Broyden banded", energies.broyden_banded, 10, repeated(-1, 10),
        (
            Minimum(0.0, (), "MGH"),
            Minimum(2.680219921, BANDED[1], "SolvOpt"),
            Minimum(3.057278432, BANDED[0], "SolvOpt"),
        ),
    ),
    Problem(
        32, "Linear, full rank", energies.linear_full_rank, 10, repeated(1, 5),
        (Minimum(5.0, (-1.0,) * 5, "MGH: m - n"),),
        {"z": np.ones(10)},
    ),
    Problem(
        33, "Linear, rank 1", energies.linear_rank_1, 10, repeated(1, 5),
        (Minimum(15 / 7, (), "MGH: m (m - 1) / (2 (2 m + 1)) on a plane"),),
        {"z": np.ones(10)},
    ),
    Problem(
        34, "Linear, rank 1 with zeros", energies.linear_rank_1_with_zeros, 10, repeated(1, 5),
        (Minimum(62 / 17, (), "MGH: (m^2 + 3 m - 6) / (2 (2 m - 3)) on a plane"),),
        {"z": np.ones(10)},
    ),
    Problem(
        35, "Chebyquad", energies.chebyquad, 8, np.arange(1, 9) / 9,
        (
            Minimum(
                3.516873726e-3, (), "MGH; MINPACK: 0.0431536, 0.193092, 0.266329, 0.5, 0.5 and their mirror images"
            ),
        ),
    ),
)  # fmt: skip
