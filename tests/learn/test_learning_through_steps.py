"""Learning through a number of reweightings: the gradient of a step is that of what those steps return."""

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given, settings
from hypothesis import strategies as st

n = sp.Symbol("n", integer=True, positive=True)
i, k = sp.Idx("i", n), sp.Idx("k", 2)
t, mu = sp.symbols("t mu", real=True)
s, slope = sp.symbols("s slope", positive=True)
x, rows = sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("x", shape=(2, n))

RATE = 1e-4  # weights that are positive stay so
LOSS = wb.Loss((t - mu) ** 2, variables=[t], targets=[mu])


@pytest.fixture(scope="module")
def location():
    """Of draws around a line through 0, robust."""
    residual = (x[i] - t - slope) ** 2
    return wb.compile(wb.Energy(sp.Sum(wb.cauchy(residual, s), i), variables=[t], weights=[s, slope], data=[x]))


@pytest.fixture(scope="module")
def held():
    """The same penalty by weights that are held, the first system without them."""
    r2 = (x[i] - t - slope) ** 2
    weight = wb.held(1 / (1 + r2 / s**2), 1)
    return wb.compile(wb.Energy(sp.Sum(weight * r2, i), variables=[t], weights=[s, slope], data=[x], name="held"))


def batch_of(seed, count=3):
    random = np.random.default_rng(seed)
    draws = random.normal(size=(count, 9)) + (random.random((count, 9)) < 0.3) * random.normal(0, 6, (count, 9))
    return wb.Batch(data={"x": draws}, targets={"mu": random.normal(size=count)}, start={"t": 0.3})


def mean_loss(kernel, weights, batch, reweightings):
    found = wb.minimise(kernel, weights, batch.data, start=batch.start, method="irls", reweightings=reweightings)
    return np.mean((found.variables["t"] - batch.targets["mu"]) ** 2)


def gradient_of_a_step(kernel, loss, weights, batch, **options):
    learner = wb.Learner(kernel, loss, weights, wb.SGD(RATE, momentum=0.0), method="irls", **options)
    learner.fit([batch], 1)
    return {name: (weights[name] - learner.weights[name]) / RATE for name in weights}


@pytest.mark.parametrize("reweightings", [1, 2, 5])
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), data=st.data())
@pytest.mark.parametrize("name", ["location", "held"])
def test_a_step_follows_the_steps_of_the_minimiser(request, name, reweightings, seed, data):
    kernel, batch = request.getfixturevalue(name), batch_of(seed)
    weights = {"s": data.draw(st.floats(0.5, 3.0)), "slope": data.draw(st.floats(0.1, 1.0))}
    found = gradient_of_a_step(kernel, LOSS, weights, batch, reweightings=reweightings)
    for weight, value in weights.items():
        h = 1e-5
        ends = [mean_loss(kernel, {**weights, weight: value + sign * h}, batch, reweightings) for sign in (1, -1)]
        assert found[weight] == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-5, abs=1e-6)


def test_it_is_not_the_derivative_of_the_minimum(location):
    batch, weights = batch_of(4), {"s": 0.7, "slope": 0.4}
    one = gradient_of_a_step(location, LOSS, weights, batch, reweightings=1)
    options = {"max_iterations": 1, "unconverged": "use", "damping": 0.0}
    assert abs(one["s"] - gradient_of_a_step(location, LOSS, weights, batch, **options)["s"]) > 1e-2
    many = gradient_of_a_step(location, LOSS, weights, batch, reweightings=200)
    minimum = gradient_of_a_step(location, LOSS, weights, batch, damping=0.0, max_iterations=1000)
    assert many["s"] == pytest.approx(minimum["s"], rel=1e-6)


def test_outputs_of_a_family():
    each = wb.Energy(
        sp.Sum(wb.cauchy((rows[k, i] - t - slope) ** 2, s), i), variables=[t], weights=[s, slope], data=[rows], over=[k]
    )
    both, mean, b = sp.IndexedBase("t", shape=(2,)), sp.Symbol("mean", real=True), sp.Symbol("b", positive=True)
    output = wb.Output({mean: (both[0] + b * both[1]) / (1 + b)}, minima=wb.compile(each), weights=[b])
    loss = wb.Loss((mean - mu) ** 2, variables=[mean], targets=[mu])
    random = np.random.default_rng(3)
    data, target = {"x": random.normal(size=(70, 2, 5))}, {"mu": random.normal(size=70)}
    batch, weights = wb.Batch(data=data, targets=target, start={"t": 0.1}), {"s": 0.8, "slope": 0.2, "b": 1.5}

    def at(weights):
        found = wb.minimise(output, weights, data, start={"t": 0.1}, method="irls", reweightings=2)
        return np.mean((found.outputs["mean"] - target["mu"]) ** 2)

    found = gradient_of_a_step(output, loss, weights, batch, reweightings=2)
    for name, value in weights.items():
        ends = [at({**weights, name: value + sign * 1e-5}) for sign in (1, -1)]
        assert found[name] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6, abs=1e-8)

    parts = [
        wb.Batch(data={"x": data["x"][a:e]}, targets={"mu": target["mu"][a:e]}, start={"t": 0.1})
        for a, e in ((0, 64), (64, 70))
    ]
    in_parts = gradient_of_a_step(output, loss, weights, wb.BatchParts(parts), reweightings=2)
    assert in_parts == found


def test_history_counts_no_step_as_unconverged(location):
    learner = wb.Learner(location, LOSS, {"s": 1.0, "slope": 0.3}, method="irls", reweightings=1)
    history = learner.fit([batch_of(1, 70)], 3)
    assert (history.unconverged == 0).all() and (history.dominated == 0).all()
    assert (history.gradient_norm > 0).all() and np.isfinite(history.loss).all()


def test_a_saved_learner_goes_on_to_the_same_bits(held, tmp_path):
    def learner():
        return wb.Learner(held, LOSS, {"s": 1.0, "slope": 0.3}, wb.Adam(0.01), method="irls", reweightings=2)

    whole, first = learner(), learner()
    whole.fit([batch_of(0)], 6)
    first.fit([batch_of(0)], 3)
    first.save(tmp_path / "half")
    second = wb.Learner.load(tmp_path / "half", held, LOSS)
    assert second.minimiser["reweightings"] == 2
    second.fit([batch_of(0)], 3)
    assert second.weights == whole.weights


def test_what_cannot_be(location, held):
    weights = {"s": 1.0, "slope": 0.3}
    with pytest.raises(wb.WibergError, match="held parts"):
        wb.Learner(held, LOSS, weights)
    with pytest.raises(wb.InputError, match="selection"):
        wb.Learner(location, LOSS, weights, method="irls", reweightings=2, selection=wb.Selection())
    with pytest.raises(wb.InputError, match="method='irls'"):
        wb.Learner(location, LOSS, weights, reweightings=2).fit([batch_of(0)], 1)
