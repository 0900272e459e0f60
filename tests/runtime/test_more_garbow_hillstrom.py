"""The 35 problems of More, Garbow and Hillstrom (1981) minimised: from their starts, and from far away.

Solved: CONVERGED or STALLED, at the energy of a minimum that the table names, to 1e-6 of it, or at most 1e-10 where it
is 0. Up to 1,000 steps from the standard start, 2,000 from 10 and 100 times that.
"""

import numpy as np
import pytest
import wiberg as wb
from more_garbow_hillstrom import PROBLEMS
from more_garbow_hillstrom.runs import by_scipy, by_wiberg

QUARTIC = {"powell_singular", "extended_powell_singular"}
"""At their minima all derivatives up to the third vanish along a line: the energy says little of the way there."""

PLATEAU = "CONVERGED on a plateau at infinity"
OTHER = "CONVERGED at a strict local minimum that no source lists"
UNSOLVED = {
    ("meyer", 10): "ITERATION_LIMIT in a curved valley, lowest and largest curvature 1e-26 apart; so does LMDIF",
    ("osborne_1", 10): "ITERATION_LIMIT at 0.047: both decays go to 0, their factors to infinity",
    ("osborne_2", 10): f"{PLATEAU}: the bumps start beyond the data",
    ("trigonometric", 10): f"{OTHER}: 4.21863e-5",
    ("powell_badly_scaled", 100): "ITERATION_LIMIT: exp(-100) is nothing beside 1, and the valley runs to infinity",
    ("jennrich_sampson", 100): "NOT_FINITE: exp(400) squared",
    ("gaussian", 100): f"{PLATEAU}: a spike between two data",
    ("meyer", 100): "ITERATION_LIMIT, as from 10 times the start",
    ("gulf", 100): "CONVERGED at the start: the model is 0 at all data, and so is every derivative",
    ("box", 100): f"{PLATEAU}: one exponential is gone",
    ("osborne_2", 100): f"{PLATEAU}: the bumps start beyond the data",
    ("brown_almost_linear", 100): f"{OTHER}: 0.917900",
}
"""(name, factor) -> why the end is no minimum of the table."""

LOCAL = {"trigonometric": (10, 4.21863388792e-5), "brown_almost_linear": (100, 0.917900099786)}

each = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)


@each
def test_solved_from_the_standard_start(problem):
    run = by_wiberg(problem)
    assert run.solved, run


@each
def test_solved_by_products_from_the_standard_start(problem):
    """Powell badly scaled and Meyer need the products of the step before: without, more than 3,000 steps."""
    run = by_wiberg(problem, "newton-cg")
    assert run.solved, run
    assert run.steps <= 300


@each
def test_minimiser_is_that_of_the_table(problem):
    found = wb.minimise(problem.kernel, None, problem.data, start={"y": problem.start}, max_iterations=1000)
    at = problem.reached(found.energy).at
    if not at:
        pytest.skip("its minimisers are not isolated, or nowhere printed")
    np.testing.assert_allclose(found.y[0], at, rtol=2e-5, atol=1e-2 if problem.name in QUARTIC else 2e-5)


@pytest.mark.parametrize("factor, solved", [(10, 31), (100, 27)])
def test_solved_from_far_away(factor, solved):
    runs = {problem.name: by_wiberg(problem, factor=factor, limit=2000) for problem in PROBLEMS}
    unsolved = {name for name, run in runs.items() if not run.solved}
    assert unsolved == {name for name, at in UNSOLVED if at == factor}
    assert len(runs) - len(unsolved) == solved
    for name in unsolved:
        assert UNSOLVED[name, factor].startswith(runs[name].status)


@pytest.mark.parametrize("name", LOCAL)
def test_minima_that_no_source_lists_are_minima(name):
    """All eigenvalues of H by NumPy are positive where the gradient by NumPy is 0."""
    (problem,) = (problem for problem in PROBLEMS if problem.name == name)
    factor, energy = LOCAL[name]
    found = wb.minimise(problem.kernel, None, problem.data, start={"y": problem.start_at(factor)})
    assert found.energy == pytest.approx(energy, rel=1e-9)
    assert np.abs(problem.kernel.gradient(found.variables, None, problem.data)).max() < 1e-8
    assert np.linalg.eigvalsh(problem.kernel.dense_hessian(found.variables, None, problem.data))[0] > 0.05


def test_no_more_steps_than_trust_exact():
    """Also without the problem in which SciPy's largest radius, 1,000, makes it creep (1e6 away)."""
    ours = {problem.name: by_wiberg(problem) for problem in PROBLEMS}
    theirs = {problem.name: by_scipy(problem, "trust-exact") for problem in PROBLEMS}
    both = {name for name in ours if ours[name].solved and theirs[name].solved}
    assert len(both) == 35
    for names in (both, both - {"brown_badly_scaled"}):
        assert sum(ours[name].steps for name in names) <= sum(theirs[name].steps for name in names)
        assert sum(ours[name].evaluations for name in names) <= sum(theirs[name].evaluations for name in names)


@pytest.mark.parametrize("name, factor, steps", [("powell_badly_scaled", 1, 120), ("beale", 100, 400)])
def test_steps_do_not_crawl_where_curvatures_differ_by_more_than_rounding(name, factor, steps):
    """1e-8 beside 1e10, positive definite; -1e-11 beside 1e9, not. Without, 1,645 steps and more than 20,000."""
    (problem,) = (problem for problem in PROBLEMS if problem.name == name)
    run = by_wiberg(problem, factor=factor)
    assert run.solved
    assert run.steps <= steps
