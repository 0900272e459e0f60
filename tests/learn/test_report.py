"""The report of a learner, beside textbook least squares and problems whose answers are known."""

import math

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from wiberg.learn.reports.report import FEWEST, Numbers


@given(st.integers(0, 10**6), st.integers(FEWEST, 60), st.floats(-3, 3), st.floats(0.01, 2.0))
def test_curvature_and_errors_are_those_of_least_squares(seed, count, slope, noise):
    random = np.random.default_rng(seed)
    u = random.standard_normal((count, 3))
    g = slope * u + noise * random.standard_normal((count, 3)) + [0.0, 1.0, -5.0]
    numbers = Numbers.of(u, g, np.zeros(3, dtype=np.int64))
    for k in range(3):
        line = stats.linregress(u[:, k], g[:, k])
        gradient, spread, curvature, error, standard_error = numbers.values[:, k]
        verdict = numbers.verdicts[k]
        size = abs(slope) + noise + 1e-3
        assert curvature == pytest.approx(line.slope, abs=1e-9 * size)
        assert error == pytest.approx(line.stderr, rel=1e-5, abs=1e-7 * size)
        assert gradient == pytest.approx(g[:, k].mean(), abs=1e-12 * (1 + 3 * size))
        assert spread == pytest.approx(error * math.sqrt(((u[:, k] - u[:, k].mean()) ** 2).sum()), rel=1e-9, abs=1e-9)
        assert math.isnan(standard_error) == (verdict != "determined")


def test_standard_error_covers_what_repeated_draws_show():
    """Over 400 draws of noise, the zero of the line is off by as much as its standard error says."""
    random, u = np.random.default_rng(0), np.linspace(-1, 1, 200)[:, None]
    found = []
    for _ in range(400):
        numbers = Numbers.of(u, 2.0 * u + 0.5 * random.standard_normal(u.shape), np.zeros(1, dtype=np.int64))
        gradient, _, curvature, _, standard_error = numbers.values[:, 0]
        assert numbers.verdicts[0] == "determined"
        found.append((-gradient / curvature, standard_error))
    offs, errors = np.array(found).T
    assert offs.std() == pytest.approx(errors.mean(), rel=0.15)


def verdict(u, g, at=0):
    return Numbers.of(np.array(u)[:, None], np.array(g)[:, None], np.array([at])).verdicts[0]


def test_verdicts():
    random = np.random.default_rng(1)
    noise, u = random.standard_normal(100), np.linspace(0, 1, 100)
    assert verdict(u, 0.0 * u) == "no derivative"
    assert verdict(u[:7], noise[:7]) == "too few steps"
    assert verdict(u, 10 * (u - 0.5) + noise) == "determined"
    assert verdict(u, 5 + noise) == "still moving"
    assert verdict(u, noise - noise.mean()) == "not determined"
    assert verdict(0.0 * u, noise - noise.mean()) == "not determined"
    assert verdict(0.0 * u + 1, 5 + noise, at=-1) == "at its bound"
    assert verdict(0.0 * u + 1, 5 + noise, at=1) == "still moving"  # it is about to leave
    assert verdict(0.0 * u + 1, noise - 5, at=1) == "at its bound"


@pytest.fixture(scope="module")
def several():
    """t* = a x + b x^2 + c z + d x, where z = 0 in the data, and d is fixed."""
    t, a, b, c, d, x, z = sp.symbols("t a b c d x z", real=True)
    mu = sp.Symbol("mu", real=True)
    energy = wb.Energy((t - a * x - b * x**2 - c * z - d * x) ** 2, variables=[t], weights=[a, b, c, d], data=[x, z])
    return wb.compile(energy), wb.Loss((t - mu) ** 2, variables=[t], targets=[mu])


def test_report_of_a_learner(several):
    kernel, loss = several

    def batch(step):
        random = np.random.default_rng(step)
        x = random.uniform(-1, 1, 64)
        mu = 2 * x + 3 * x**2 + 0.1 * random.standard_normal(64)
        return wb.Batch(data={"x": x, "z": 0.0}, targets={"mu": mu}, start={"t": 0.0})

    weights = {"a": 0.0, "b": wb.Weight(0.0, bounds=(None, 1.5)), "c": 7.0, "d": wb.Weight(0.5, fixed=True)}
    learner = wb.Learner(kernel, loss, weights, wb.SGD(0.1, momentum=0.5))
    assert {row.verdict for row in learner.report().rows[:3]} == {"too few steps"}
    assert "after 0 steps" in str(learner.report())
    with pytest.warns(wb.ZeroGradientWarning):
        learner.fit(batch, steps=150)
    report = learner.report()
    rows = {row.name: row for row in report.rows}
    assert {name: row.verdict for name, row in rows.items()} == {
        "a": "determined",
        "b": "at its bound",
        "c": "no derivative",
        "d": "fixed",
    }
    assert rows["a"].value == learner.weights["a"] == rows["a"].change
    assert rows["b"].value == 1.5 and rows["c"].change == 0.0
    text = str(report)
    assert all(name in text for name in ("determined", "at its bound", "no derivative: no instance", "150 steps"))
    assert max(map(len, text.splitlines())) <= 120


def test_curvature_is_that_of_the_loss(several):
    """One batch again and again, one weight, damping 0: dl/da = 2 mean x^2 (a - 1.5), so the line is exact."""
    kernel, loss = several
    x = np.linspace(-1, 1, 21)
    one = wb.Batch(data={"x": x, "z": 0.0}, targets={"mu": 2 * x}, start={"t": 0.0})
    fixed = {name: wb.Weight(value, fixed=True) for name, value in {"b": 0.0, "c": 0.0, "d": 0.5}.items()}
    learner = wb.Learner(kernel, loss, {"a": 0.0, **fixed}, wb.SGD(0.1, momentum=0.0), damping=0.0)
    learner.fit(one, steps=20)
    row = learner.report().rows[0]
    assert row.curvature == pytest.approx(2 * (x**2).mean(), rel=1e-9) and row.curvature_error < 1e-9
    assert row.verdict == "determined"


def test_report_of_ties_and_logarithms_and_after_a_checkpoint(several, tmp_path):
    kernel, loss = several
    x = np.linspace(0.1, 1, 8)
    batches = [
        wb.Batch(data={"x": x, "z": x * k}, targets={"mu": (2 + k) * x}, start={"t": 0.0}, name=str(k))
        for k in (0.5, 1.0, 1.5)
    ]
    weights = {"a": wb.Weight(1.0, "log"), "b": 0.0, "c": wb.Weight(tie="a"), "d": 0.0}
    learner = wb.Learner(kernel, loss, weights, wb.Adam(0.01))
    learner.fit(batches, steps=30)
    rows = learner.report().rows
    assert rows[2].verdict == "tied to a" and rows[2].value == rows[0].value
    assert "a (log)" in str(learner.report())
    learner.save(tmp_path / "run")
    assert str(wb.Learner.load(tmp_path / "run", kernel, loss).report()) == str(learner.report())
