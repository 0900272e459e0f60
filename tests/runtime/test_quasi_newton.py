"""What conjugate gradients remember of the solve before: which pairs, the matrix that they make, what that saves."""

import numpy as np
import pytest
import wiberg as wb
from hypothesis import given
from hypothesis import strategies as st
from more_garbow_hillstrom import PROBLEMS
from wiberg.compiler.machine_code.entry import Interpreter
from wiberg.runtime import products
from wiberg.runtime.algebra.conjugate_gradients import Plain
from wiberg.runtime.algebra.quasi_newton import (
    PAIRS,
    count_pairs,
    forget_pairs,
    keep_pair,
    pairs_size,
    precondition_by_pairs,
    use_pairs,
)


def updated(kept, size):
    """The naive matrix of Broyden, Fletcher, Goldfarb and Shanno."""
    inverse = np.eye(size) * (kept[-1][0] @ kept[-1][1]) / (kept[-1][1] @ kept[-1][1])
    for s, change in kept:
        left = np.eye(size) - np.outer(s, change) / (s @ change)
        inverse = left @ inverse @ left.T + np.outer(s, s) / (s @ change)
    return inverse


@given(st.integers(0, 10**6), st.integers(1, 6), st.lists(st.integers(0, 25), min_size=1, max_size=4))
def test_the_last_pairs_of_the_last_solve_that_kept_any_are_in_use(seed, size, solves):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((size, size))
    hessian, pairs, kept = root @ root.T + np.eye(size), np.full(pairs_size(size), np.nan), []
    forget_pairs(pairs, size)
    for made in solves:
        steps = rng.standard_normal((made, size))
        for number, s in enumerate(steps):
            keep_pair(pairs, number, s, hessian @ s, s @ hessian @ s, size)
        use_pairs(pairs, made, size)
        kept = [(s, hessian @ s) for s in steps[-PAIRS:]] if made else kept
        count = count_pairs(pairs, size)
        assert count == len(kept)
        if count:
            r, z, inverse = rng.standard_normal(size), np.empty(size), updated(kept, size)
            product = precondition_by_pairs(pairs, count, size, r, z)
            np.testing.assert_allclose(z, inverse @ r, rtol=1e-7, atol=1e-8 * np.abs(inverse).max())
            assert product == pytest.approx(r @ z, rel=1e-12) and product > 0
    forget_pairs(pairs, size)
    assert count_pairs(pairs, size) == 0


def count_products(monkeypatch, problem):
    """How many products with the Hessian a minimisation asks for, and its solution."""
    plain, counted = Interpreter.evaluate, []

    def evaluate(self, *arguments):
        if any(array.role == "direction" for array in self.program.arrays.values()):
            counted.append(1)
        return plain(self, *arguments)

    kernel = wb.compile(problem.energy(), backend="reference")
    with monkeypatch.context() as patch:
        patch.setattr(Interpreter, "evaluate", evaluate)
        solution = wb.minimise(kernel, None, problem.data, start={"y": problem.start}, method="newton-cg")
    return len(counted), solution


@pytest.mark.parametrize(
    "name", ["osborne_1", "wood", "osborne_2", "extended_powell_singular", "penalty_2", "trigonometric"]
)
def test_products_are_saved(monkeypatch, name):
    """A third of them and more. Products of the search for negative curvature at the end are counted, too."""
    (problem,) = (problem for problem in PROBLEMS if problem.name == name)
    remembering, solution = count_products(monkeypatch, problem)
    with monkeypatch.context() as patch:
        patch.setattr(products, "Remembering", Plain)
        forgetting, _ = count_products(monkeypatch, problem)
    assert solution.converged
    assert remembering < (1.0 if name == "wood" else 0.75) * forgetting
