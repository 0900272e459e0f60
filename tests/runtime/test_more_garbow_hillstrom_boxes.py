"""The 35 problems of More, Garbow and Hillstrom (1981) in boxes: wide ones, ones that cut off, published ones."""

import numpy as np
import pytest
import wiberg as wb
from more_garbow_hillstrom import PROBLEMS
from more_garbow_hillstrom.boxes import PUBLISHED, cutting_box, published_box, wide_box
from more_garbow_hillstrom.residuals import energy
from more_garbow_hillstrom.runs import by_wiberg, in_box_by_wiberg

each = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)

ELSEWHERE = {"powell_badly_scaled", "linear_rank_1", "linear_rank_1_with_zeros"}
"""With another minimiser of the same energy: its unknowns exchanged, and a plane of them."""

published = pytest.mark.parametrize("problem", [p for p in PROBLEMS if p.number in PUBLISHED], ids=lambda p: p.name)


def minimise(problem, box):
    bounds = {"y": (box.low, box.high)}
    return wb.minimise(
        problem.kernel, None, problem.data, start={"y": problem.start}, bounds=bounds, max_iterations=1000
    )


@each
def test_bounds_that_are_far_away_cost_nothing(problem):
    """One step more at most, which the quadratic energies of deficient rank take."""
    free, boxed = by_wiberg(problem), in_box_by_wiberg(problem, wide_box(problem))
    assert boxed.solved and problem.reached(boxed.energy) is problem.reached(free.energy) is not None
    assert boxed.steps <= free.steps + 1
    assert boxed.evaluations <= free.evaluations + 1


@each
def test_minimum_where_bounds_cut_off_that_without_them(problem):
    """The conditions of a minimum, and no feasible point nearby is lower by NumPy."""
    box = cutting_box(problem)
    found = minimise(problem, box)
    y, active, flat = found.variables["y"], found.active["y"], found.variables["y"].ravel()
    assert found.status is (wb.Status.STALLED if problem.name == "meyer" else wb.Status.CONVERGED)
    assert ((box.low <= y) & (y <= box.high)).all()
    assert active.any() or problem.name in ELSEWHERE
    g = problem.kernel.gradient({"y": y}, None, problem.data).reshape(y.shape)
    assert np.abs(box.project(y - g) - y).max() <= (1e-3 if problem.name == "meyer" else 1e-8)  # rounding
    assert (g[active & (y == box.low)] >= 0).all() and (g[active & (y == box.high)] <= 0).all()
    assert ((y == box.low) | (y == box.high))[active].all()
    hessian, free = problem.kernel.dense_hessian({"y": y}, None, problem.data), ~active.ravel()
    block = hessian[np.ix_(free, free)]
    assert np.linalg.eigvalsh(block).min(initial=0.0) >= -1e-12 * np.abs(block).max(initial=0.0)
    here, random = energy(problem.number, flat), np.random.default_rng(0)
    for _ in range(50):
        there = flat + 1e-3 * random.standard_normal(flat.shape) * (np.abs(flat) + 1e-3)
        there = box.project(there.reshape(y.shape)).ravel()
        assert energy(problem.number, there) >= here * (1 - 1e-10) - 1e-18


@published
def test_published_minimum_within_bounds(problem):
    found = minimise(problem, published_box(problem))
    assert found.status is wb.Status.CONVERGED
    assert found.energy == pytest.approx(PUBLISHED[problem.number][2], rel=1e-5, abs=1e-20)


def test_steps_do_not_crawl_where_curvatures_differ_by_more_than_rounding():
    """1e-8 beside 1e10, as for the method without bounds; without `lengthened`, more than 3,000 steps."""
    (problem,) = (problem for problem in PROBLEMS if problem.name == "powell_badly_scaled")
    for box in (wide_box(problem), cutting_box(problem), published_box(problem)):
        run = in_box_by_wiberg(problem, box)
        assert run.solved and run.steps <= 120
