"""Learning through minima of which variables were solved out: the gradient is that of the joint minimisation."""

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from wiberg.energies.errors import InputError, NameMissingError, UnsupportedError

n = sp.Symbol("n", integer=True, positive=True)
i = sp.Idx("i", n)
x, place = sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("place", shape=(n,))
height, rate, truth = sp.symbols("height rate truth", real=True)
s = sp.Symbol("s", positive=True)


@pytest.fixture(scope="module")
def decay():
    """A decay whose rate is judged: the ridge of its height bends it."""
    energy = sp.Sum((x[i] - height * sp.exp(-rate * place[i])) ** 2, i) + s * height**2 + (rate - 1) ** 2 / 50
    kernel = wb.compile(wb.Energy(energy, variables=[height, rate], weights=[s], data=[x, place], name="decay"))
    return kernel, wb.Loss((rate - truth) ** 2, variables=[rate], targets=[truth])


def batch(with_heights=False):
    rng = np.random.default_rng(0)
    rates, where = rng.uniform(0.5, 2, 30), np.linspace(0, 3, 12)
    seen = rng.uniform(1, 3, 30)[:, None] * np.exp(-rates[:, None] * where) + 0.02 * rng.standard_normal((30, 12))
    start = {"rate": 1.0, **({"height": 1.0} if with_heights else {})}
    return wb.Batch(data={"x": seen, "place": where}, targets={"truth": rates}, start=start)


def test_learning_is_that_of_the_joint_minimisation(decay):
    kernel, loss = decay
    options = {"weights": {"s": 1.0}, "damping": 0.1, "gtol": 1e-12}
    histories = [
        wb.Learner(kernel, loss, optimiser=wb.SGD(0.5, momentum=0.5), **options, **more).fit([one], steps=40)
        for more, one in (({"eliminate": [height]}, batch()), ({}, batch(with_heights=True)))
    ]
    np.testing.assert_allclose(histories[0].loss, histories[1].loss, rtol=1e-7)
    np.testing.assert_allclose(histories[0].weights["s"], histories[1].weights["s"], rtol=1e-7)
    assert histories[0].loss[-1] < histories[0].loss[0] / 2


def test_gradient_is_that_of_differences(decay):
    """Without damping: the slope of the mean loss over minimisations that are made again."""
    kernel, _ = decay
    one = batch()

    def minimised(value):
        return wb.minimise(kernel, {"s": value}, one.data, start=one.start, eliminate=["height"], gtol=1e-12)

    def mean_loss(value):
        return ((minimised(value).variables["rate"] - one.targets["truth"]) ** 2).sum()

    solution = minimised(0.7)
    slope = {"rate": 2 * (solution.variables["rate"] - one.targets["truth"])}
    found = wb.implicit_gradient(kernel, solution, slope, damping=0.0)["s"]
    assert found == pytest.approx((mean_loss(0.7 + 1e-4) - mean_loss(0.7 - 1e-4)) / 2e-4, rel=1e-6)


def test_checkpoints_keep_what_is_eliminated(decay, tmp_path):
    kernel, loss = decay
    learner = wb.Learner(kernel, loss, weights={"s": 1.0}, optimiser=wb.SGD(0.3), eliminate=[height])
    learner.fit([batch()], steps=3)
    learner.save(tmp_path / "learner")
    again = wb.Learner.load(tmp_path / "learner", kernel, loss)
    for one in (learner, again):
        one.fit([batch()], steps=3)
    assert learner.weights == again.weights and again.minimiser["eliminate"] == ["height"]
    predicted = again.predict(batch().data, start={"rate": 1.0})
    assert predicted["height"].shape == (30,)


@pytest.mark.parametrize(
    ("eliminate", "options", "error"),
    [
        (["nothing"], {}, NameMissingError),
        ([rate], {}, UnsupportedError),
        ([height], {"method": "l-bfgs"}, InputError),
        ([height], {"bounds": {"rate": (0, 1)}}, InputError),
    ],
)
def test_a_learner_refuses_what_minimise_refuses(decay, eliminate, options, error):
    with pytest.raises(error, match="eliminate"):
        wb.Learner(*decay, weights={"s": 1.0}, eliminate=eliminate, **options)
