"""The step within box and trust region, run as Python: feasible, its change of the model as said, never poor."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear
from wiberg.runtime.bounds.bounded_trust_region import (
    ENOUGH,
    SPACE_VECTORS,
    STEP_VECTORS,
    box_step,
    cauchy_step,
    escape_step,
)
from wiberg.runtime.bounds.box_geometry import project_gradient

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow, which machine code does not mention


class Model:
    """A random model g's + s'Hs/2 over low <= s <= high; some distances to a bound are 0, some infinite."""

    def __init__(self, seed, size, curved=0.0, still=False):
        rng = self.rng = np.random.default_rng(seed)
        half = rng.standard_normal((size, size)) * 10.0 ** rng.uniform(-2, 2, size)
        self.h = half + half.T if not curved else half @ half.T + curved * np.eye(size)
        self.g = rng.standard_normal(size) * 10.0 ** rng.uniform(-3, 1) * (0.0 if still else 1.0)
        kinds = rng.choice(4, (2, size), p=[0.25, 0.15, 0.5, 0.1])
        ends = np.choose(kinds, [0.0, np.inf, rng.uniform(0, 1, (2, size)), 1e-9])
        self.low, self.high = -ends[0], ends[1]
        self.size, self.memory = size, np.empty(2 * size * size + (SPACE_VECTORS + STEP_VECTORS) * size)

    def value(self, s):
        return self.g @ s + s @ self.h @ s / 2

    def step(self, radius):
        s = np.empty(self.size)
        return s, box_step(self.h.ravel(), self.g, self.low, self.high, self.size, radius, s, self.memory)


seeds, sizes = st.integers(0, 10**6), st.integers(1, 8)


@settings(max_examples=150, deadline=None)
@given(seed=seeds, size=sizes, radius=st.sampled_from([1e-6, 1e-2, 1.0, 30.0]))
def test_step_is_feasible_and_changes_the_model_as_said(seed, size, radius):
    model = Model(seed, size)
    s, change = model.step(radius)
    assert (model.low <= s).all() and (s <= model.high).all()
    assert np.linalg.norm(s) <= radius * (1 + 1e-9)
    scale = np.abs(model.g) @ np.abs(s) + np.abs(s) @ np.abs(model.h) @ np.abs(s)
    assert change == pytest.approx(model.value(s), abs=1e-13 * scale)


@settings(max_examples=150, deadline=None)
@given(seed=seeds, size=sizes, radius=st.sampled_from([1e-6, 1e-2, 1.0, 30.0]))
def test_step_falls_as_far_as_the_projected_gradient_path_allows(seed, size, radius):
    """A tenth of Cauchy's decrease, which in turn is no less than a fixed part of that to the path's first minimum."""
    model = Model(seed, size)
    _, change = model.step(radius)
    other, r = np.empty(size), np.empty(size)
    cauchy = cauchy_step(model.h.ravel(), model.g, model.low, model.high, size, radius, other, r)
    assert change <= ENOUGH * cauchy <= 0
    assert cauchy == 0 or cauchy <= ENOUGH * (model.g @ other) < 0
    path = [np.clip(-t * model.g, model.low, model.high) for t in np.geomspace(1e-12, 1e6, 400)]
    values = [0.0, *(model.value(s) for s in path if np.linalg.norm(s) <= radius)]
    first = next((v for v, after in itertools.pairwise(values) if after > v), values[-1])
    assert change <= 1e-2 * first


@settings(max_examples=80, deadline=None)
@given(seed=seeds, size=sizes)
def test_convex_model_is_minimised(seed, size):
    """Without a trust region, in one step: against SciPy's bounded least squares."""
    model = Model(seed, size, curved=1e-3)
    _, change = model.step(np.inf)
    free = np.flatnonzero(model.low < model.high)
    if len(free) == 0:
        assert change == 0
        return
    root = np.linalg.cholesky(model.h[np.ix_(free, free)]).T
    target = -np.linalg.solve(root.T, model.g[free])
    bounds = model.low[free], model.high[free]
    s = np.zeros(size)
    s[free] = lsq_linear(root, target, bounds, method="bvls", tol=1e-14, max_iter=1000).x
    assert change <= model.value(s) * (1 - 1e-8) + 1e-14


@settings(max_examples=100, deadline=None)
@given(seed=seeds, size=sizes, radius=st.sampled_from([1e-2, 1.0, 30.0]))
def test_escape_goes_down_or_says_which_block_has_no_way_down(seed, size, radius):
    model = Model(seed, size, still=True)
    s, pinned, origin = np.empty(size), np.empty(size), np.zeros(size)
    change, used = escape_step(
        model.h.ravel(), model.g, origin, model.low, model.high, size, 1e-8, radius, 0.0, False, s, pinned, model.memory
    )
    assert used == radius
    if change < 0:
        assert (model.low <= s).all() and (s <= model.high).all() and np.linalg.norm(s) <= radius * (1 + 1e-9)
        assert model.value(s) == pytest.approx(change, rel=1e-9)
    else:
        free = np.flatnonzero((pinned == 0) & (model.low < model.high))
        block = model.h[np.ix_(free, free)]
        assert np.linalg.eigvalsh(block).min(initial=0.0) >= -1e-11 * np.abs(block).max(initial=0.0)
        assert ((model.low[pinned > 0] == 0) | (model.high[pinned > 0] == 0)).all()


def test_projected_gradient_does_not_cancel():
    """P(y - g) - y, computed from distances: exact where y is large beside g."""
    y, g = np.array([1e9, -1e9, 5.0, 0.0]), np.array([1e-9, -2e-9, 3.0, -3.0])
    low, high, out = np.array([0.0, -2e9, 4.0, -1.0]), np.array([2e9, 2e9, 9.0, 0.0]), np.empty(4)
    assert project_gradient(g, low - y, high - y, 4, out) == 1.0
    np.testing.assert_array_equal(out, [-1e-9, 2e-9, -1.0, 0.0])
