import json

import numpy as np
import pytest
import wiberg as wb
from hypothesis import given
from hypothesis import strategies as st
from wiberg.learn.optimiser import SGD, Adam, from_description
from wiberg.learn.schedule import CosineDecay, PiecewiseLinear, StepDecay, Warmup


def steps(sgd, gradients, start):
    rates, state, w = sgd.rates({"a": 1, "b": len(start) - 1}), sgd.start(len(start)), np.array(start)
    for gradient in gradients:
        w, state = sgd.step(w, np.array(gradient), state, rates)
    return w, state


def test_convention_is_that_of_pytorch():
    w, state = steps(SGD(0.1, momentum=0.9), [[1.0, -2.0], [1.0, 0.0]], [5.0, 5.0])
    np.testing.assert_allclose(state["velocity"], [1.9, -1.8])
    np.testing.assert_allclose(w, [5.0 - 0.1 - 0.19, 5.0 + 0.2 + 0.18])


def test_without_momentum_it_is_gradient_descent():
    w, _ = steps(SGD(0.5, momentum=0.0), [[1.0, 2.0], [1.0, 2.0]], [0.0, 0.0])
    np.testing.assert_allclose(w, [-1.0, -2.0])


def test_a_rate_for_each_weight():
    w, _ = steps(SGD({"b": 1.0, "a": 0.1}, momentum=0.0), [[1.0, 1.0, 1.0]], [0.0, 0.0, 0.0])
    np.testing.assert_allclose(w, [-0.1, -1.0, -1.0])


def test_step_leaves_its_arguments_alone():
    sgd, w, g = SGD(0.1), np.ones(2), np.ones(2)
    state = sgd.start(2)
    sgd.step(w, g, state, sgd.rates({"a": 2}))
    assert (w == 1).all() and (g == 1).all() and (state["velocity"] == 0).all()


def test_redirect_changes_where_it_moves_and_nothing_else():
    sgd, adam = SGD(0.1), Adam(0.1)
    assert sgd.redirect({"velocity": np.array([1.0, 2.0])}, lambda v: v * [0.0, 1.0])["velocity"].tolist() == [0.0, 2.0]
    state = {"mean": np.array([1.0, 2.0]), "square": np.array([3.0, 4.0]), "count": np.array([7.0])}
    turned = adam.redirect(state, lambda v: -v)
    assert turned["mean"].tolist() == [-1.0, -2.0] and state["mean"].tolist() == [1.0, 2.0]
    assert turned["square"] is state["square"] and turned["count"] is state["count"]


OPTIMISERS = [
    SGD(0.1),
    SGD({"sigma": 1e-5, "tau": 2.0}, momentum=0.999),
    SGD(0.1, nesterov=True, clip=3.0),
    SGD({"kind": 1.0, "each": CosineDecay(1.0, 5)}),
    SGD(Warmup(PiecewiseLinear({0: 1.0, 9: 0.5}), 4)),
    Adam(),
    Adam(StepDecay(0.1, every=3), betas=(0.5, 0.9), epsilon=1e-3, weight_decay=0.1, clip=1.0),
]


@pytest.mark.parametrize("optimiser", OPTIMISERS, ids=str)
def test_description_makes_an_equal_optimiser(optimiser):
    assert from_description(json.loads(json.dumps(optimiser.describe()))) == optimiser


def test_unknown_kinds_in_a_description_are_refused():
    with pytest.raises(wb.CheckpointError, match=r"optimiser 'Rprop'"):
        from_description({"kind": "Rprop", "learning_rate": 1.0})
    with pytest.raises(wb.CheckpointError, match=r"schedule 'Sawtooth'"):
        from_description({"kind": "SGD", "learning_rate": {"kind": "Sawtooth"}})


# ------------------------------------------------------------------- beside PyTorch's formulas, written out in NumPy

numbers = st.floats(-1e3, 1e3)
gradients = st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=8)


def sgd_of_pytorch(w, gradients, lr, momentum, nesterov):
    """torch.optim.SGD: the buffer is the first gradient, later momentum * buffer + (1 - dampening) * gradient."""
    buffer = None
    for g in gradients:
        buffer = g.copy() if buffer is None else momentum * buffer + g
        w = w - lr * (g + momentum * buffer if nesterov else buffer)
    return w


def adamw_of_pytorch(w, gradients, lr, b1, b2, epsilon, weight_decay):
    """torch.optim.AdamW, single tensor, not capturable."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for k, g in enumerate(gradients, 1):
        w = w * (1 - lr * weight_decay)
        m = m + (g - m) * (1 - b1)
        v = v * b2 + (1 - b2) * g * g
        step_size = lr / (1 - b1**k)
        w = w - step_size * (m / (np.sqrt(v) / np.sqrt(1 - b2**k) + epsilon))
    return w


@given(gradients, st.floats(0.01, 0.999), st.floats(1e-6, 10.0), st.booleans())
def test_sgd_is_that_of_pytorch(rows, momentum, rate, nesterov):
    start = np.array([1.0, -2.0, 3.0])
    w, _ = steps(SGD(rate, momentum, nesterov=nesterov), rows, start)
    expected = sgd_of_pytorch(start, np.array(rows), rate, momentum, nesterov)
    scale = 1 + rate * np.abs(rows).sum() * len(rows)
    np.testing.assert_allclose(w, expected, rtol=0, atol=1e-14 * scale)


@given(gradients, st.floats(0.0, 0.99), st.floats(0.0, 0.999), st.floats(1e-6, 1.0), st.floats(0.0, 0.5))
def test_adam_is_that_of_pytorch(rows, b1, b2, rate, decay):
    start = np.array([1.0, -2.0, 3.0])
    adam = Adam(rate, (b1, b2), epsilon=1e-3, weight_decay=decay)
    w, state = steps(adam, rows, start)
    expected = adamw_of_pytorch(start, np.array(rows), rate, b1, b2, 1e-3, decay)
    np.testing.assert_allclose(w, expected, rtol=1e-9, atol=1e-9)
    assert state["count"].tolist() == [len(rows)]


@given(st.floats(1e-3, 1e3), st.floats(1e-6, 10.0))
def test_the_first_step_of_adam_has_the_length_of_its_rate(size, rate):
    w, _ = steps(Adam(rate, epsilon=1e-12), [[size, -size, 0.0]], [0.0, 0.0, 0.0])
    np.testing.assert_allclose(w, [-rate, rate, 0.0], rtol=1e-8)


# ------------------------------------------------------------------------------------------------- rates and clipping


def test_rates_follow_their_schedules():
    sgd = SGD({"a": StepDecay(1.0, every=2, factor=0.5), "b": 3.0})
    assert sgd.varies and not SGD({"a": 1.0, "b": 2.0}).varies
    assert [sgd.rates({"a": 1, "b": 2}, step).tolist() for step in (0, 2)] == [[1.0, 3.0, 3.0], [0.5, 3.0, 3.0]]


def test_a_weight_that_is_not_learnt_needs_no_rate():
    assert SGD({"a": 1.0}).rates({"a": 2, "b": 0}).tolist() == [1.0, 1.0]
    assert SGD({"a": 1.0, "b": 2.0}).rates({"a": 2, "b": 0}).tolist() == [1.0, 1.0]


def spring_batch(truth, step=0):
    z = np.random.default_rng(step).uniform(0.5, 1.5, 4)
    return wb.Batch(data={"a": 1.0, "z": z}, targets={"mu": truth * z}, start={"t": 0.0})


def test_learner_clips_by_the_norm(spring, t_loss):
    start = {"weights": {"w": 2.0}, "damping": 0.0}
    learners = [wb.Learner(spring, t_loss, optimiser=SGD(0.1, 0.0, clip=clip), **start) for clip in (0.25, 1e9, None)]
    for learner in learners:
        learner.fit(spring_batch(3.0), steps=1)
    assert learners[0].weights["w"] == pytest.approx(2.0 + 0.1 * 0.25, rel=1e-14)
    assert learners[1].weights == learners[2].weights
    assert learners[0].history.gradient_norm[0] == learners[2].history.gradient_norm[0] > 0.25


def test_learner_follows_schedules_of_rate_and_damping(spring, t_loss):
    rate, damping = CosineDecay(0.2, steps=3, end=0.05), PiecewiseLinear({0: 1.0, 3: 0.1})
    scheduled = wb.Learner(spring, t_loss, {"w": 2.0}, SGD(rate, momentum=0.0), damping=damping)
    w = 2.0
    for step in range(6):
        scheduled.fit(lambda step: spring_batch(3.0, step), steps=1)
        one = wb.Learner(spring, t_loss, {"w": w}, SGD(rate.at(step), momentum=0.0), damping=damping.at(step))
        one.fit(spring_batch(3.0, step), steps=1)
        w = one.weights["w"]
        assert scheduled.weights["w"] == w


@pytest.mark.parametrize(
    "optimiser",
    [
        SGD(0.01, nesterov=True, clip=0.5),
        SGD({"sigma": Warmup(StepDecay(0.1, every=2), steps=3)}),
        Adam(CosineDecay(0.1, steps=9), clip=0.1),
        Adam(0.01, weight_decay=0.1),
    ],
    ids=str,
)
def test_resumed_run_has_the_bits_of_the_uninterrupted_one(ransac, t_loss, tmp_path, optimiser):
    x = np.random.default_rng(3).uniform(-9, 9, (5, 3, 40))
    batches = [wb.Batch(data={"x": rows}, targets={"mu": rows.mean(axis=1)}) for rows in x]
    damping = Warmup(CosineDecay(1.0, steps=6, end=0.1), steps=2)
    whole, part = (wb.Learner(ransac, t_loss, {"sigma": 4.0}, optimiser, damping=damping) for _ in range(2))
    whole.fit(batches, steps=11)
    part.fit(batches, steps=4)
    part.save(tmp_path / "run")
    resumed = wb.Learner.load(tmp_path / "run", ransac, t_loss)
    assert resumed.optimiser == optimiser and resumed.damping == damping
    resumed.fit(batches, steps=7)
    assert resumed.weights == whole.weights
    whole.save(tmp_path / "a")
    resumed.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    "settings, names",
    [
        ({"learning_rate": -1.0}, "learning_rate.*-1"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate.*nan"),
        ({"learning_rate": {"sigma": -1.0}}, "sigma.*-1"),
        ({"learning_rate": {}}, "learning_rate"),
        ({"learning_rate": 1.0, "momentum": 1.0}, r"momentum.*\[0, 1\).*never forget"),
        ({"learning_rate": 1.0, "momentum": -0.1}, "momentum"),
        ({"learning_rate": 1.0, "momentum": float("nan")}, "momentum"),
        ({"learning_rate": 1.0, "clip": 0.0}, "clip must be > 0"),
        ({"learning_rate": 1.0, "momentum": 0.0, "nesterov": True}, "nesterov=True needs momentum > 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, names):
    with pytest.raises(wb.InputError, match=names):
        SGD(**settings)


@pytest.mark.parametrize(
    "settings", [{"learning_rate": "fast"}, {"learning_rate": True}, {"learning_rate": 1.0, "momentum": None}]
)
def test_settings_of_another_kind_are_refused(settings):
    with pytest.raises(wb.InputTypeError):
        SGD(**settings)


def test_unknown_and_missing_rates_are_named():
    with pytest.raises(wb.NameMissingError, match=r"'sigm'.*did you mean 'sigma'"):
        SGD({"sigm": 1.0}).rates({"sigma": 1})
    with pytest.raises(wb.NameMissingError, match=r"tau"):
        SGD({"sigma": 1.0}).rates({"sigma": 1, "tau": 2})


@pytest.mark.parametrize(
    "settings, names",
    [
        ({"betas": (0.9, 1.0)}, r"betas\[1\].*\[0, 1\).*never forget"),
        ({"epsilon": 0.0}, "epsilon must be > 0"),
        ({"weight_decay": -1.0}, "weight_decay must be >= 0"),
        ({"learning_rate": 0.0}, "Adam: learning_rate"),
        ({"clip": float("inf")}, "clip"),
    ],
)
def test_settings_of_adam_out_of_range_are_refused(settings, names):
    with pytest.raises(wb.InputError, match=names):
        Adam(**settings)


def test_settings_of_adam_of_another_kind_are_refused():
    for settings in ({"betas": 0.9}, {"betas": (0.9,)}, {"epsilon": "small"}):
        with pytest.raises(wb.InputTypeError):
            Adam(**settings)
    with pytest.raises(wb.InputTypeError, match=r"nesterov"):
        SGD(1.0, nesterov=1)
