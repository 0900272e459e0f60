"""A batch judged in parts, of any number of blocks, gives the bits of the whole one."""

import weakref
from functools import partial

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.learn.cut import cut
from wiberg.learn.judge import combined

t, mu, sigma, bias, rest = sp.symbols("t mu sigma bias rest", real=True)
n, m = sp.Symbol("n", integer=True, positive=True), 3
i, k = sp.Idx("i", n), sp.Idx("k", m)
x, z = sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("z", shape=(m, n))
many = sp.IndexedBase("t", shape=(m,))
soft = sp.Symbol("soft", real=True)


def everything(ransac):
    """A loss that reads its own weight, the energy and the weights of the kernel; a regulariser."""
    loss = wb.Loss(
        (t - mu - bias) ** 2 + rest / 10 + sigma**2 / 100,
        variables=[t],
        targets=[mu],
        weights=[bias, sigma],
        energy=rest,
        regulariser=sigma**2 / 50 + bias**4,
    )
    return wb.Learner(ransac, loss, {"sigma": 8.0, "bias": 0.5}, wb.SGD(1e-3))


def family():
    """A soft average over members, of which some do not converge."""
    each = wb.Energy(
        sp.Sum(wb.pseudo_huber((z[k, i] - t) ** 2, sigma), i), variables=[t], weights=[sigma], data=[z], over=[k]
    )
    output = wb.Output(
        {soft: sp.Sum(many[k] * (1 + bias * k), k) / 3}, minima=wb.compile(each), weights=[bias], name="soft"
    )
    loss = wb.Loss((soft - mu) ** 2 + (many[0] - mu) ** 2, variables=[soft, many], targets=[mu])
    return wb.Learner(output, loss, {"sigma": 0.7, "bias": 0.3}, wb.SGD(1e-3), max_iterations=4)


def draw_batch(learner, count, seed):
    random = np.random.default_rng(seed)
    targets = {"mu": random.normal(0, 1, count)}
    if learner.kernel.name == "soft":
        return wb.Batch(
            {"z": random.normal(0, 5, (count, m, 4))}, targets, start={"t": random.normal(0, 3, (count, m))}
        )
    if learner.kernel.name == "spring":
        a = np.where(random.random(count) < 0.1, -1.0, random.uniform(0.5, 2, count))
        return wb.Batch({"a": a, "z": random.normal(0, 1, count)}, targets, start={"t": 0.0}, name="springs")
    if learner.kernel.name == "line":
        y = random.normal(0, 1, (count, 6))
        start = {"slope": random.normal(0, 1, count), "offset": [0.0]}
        return wb.Batch({"x": np.linspace(0, 1, 6), "y": y}, {"wanted": [2.0]}, start=start)
    own = random.normal(0, 9, (count, 7, 1))[..., 0]
    candidates = {"t": own[:, :3]} if seed % 2 else None
    return wb.Batch({"x": own}, targets, candidates=candidates)


@pytest.fixture(scope="module")
def learners(ransac, spring, robust_line, t_loss):
    slope, wanted = sp.symbols("slope wanted", real=True)
    return {
        "ransac": everything(ransac),
        "family": family(),
        "spring": wb.Learner(spring, t_loss, {"w": 2.0}, damping=0.0),
        "line": wb.Learner(
            robust_line,
            wb.Loss((slope - wanted) ** 2, variables=[slope], targets=[wanted]),
            {"scale": 0.3, "bias": 0.5},
            bounds={"slope": (-0.5, 0.5)},
        ),
    }


def judgement(learner, parts):
    weights = learner._state.weights
    sums = [learner.judge_part(part, weights, 0) for part in parts]
    return combined(sums, learner.model, learner._coordinates, learner._coordinates.unpack(weights), who="here")


def same(one, other):
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))


@settings(max_examples=25)
@given(count=st.integers(1, 700), pieces=st.integers(1, 9), seed=st.integers(0, 99))
@pytest.mark.parametrize("name", ["ransac", "family", "spring", "line"])
def test_parts_have_the_bits_of_the_whole(learners, name, count, pieces, seed):
    learner = learners[name]
    batch = draw_batch(learner, count, seed)
    parts = cut(learner.model, batch, pieces)
    assert len(parts) <= pieces and (len(parts) > 1 or count <= 64 or pieces == 1)
    assert same(judgement(learner, parts), judgement(learner, [batch]))


def test_the_gradient_of_parts_is_that_of_the_loss(learners):
    """Finite differences of the mean loss over the batch, all at once."""
    learner = learners["ransac"]
    batch = draw_batch(learner, 150, 0)
    learner.damping, start, slopes = 0.0, learner._state.weights, []
    whole = judgement(learner, cut(learner.model, batch, 3))

    def loss_at(weights):
        sums = [learner.judge_part(batch, weights, 0)]
        return combined(sums, learner.model, learner._coordinates, learner._coordinates.unpack(weights), who="").loss

    for place in range(2):
        step = np.zeros(2)
        step[place] = 1e-5
        slopes.append((loss_at(start + step) - loss_at(start - step)) / 2e-5)
    learner.damping = 0.1
    np.testing.assert_allclose(whole.gradient, slopes, rtol=1e-6)


def test_what_has_no_batch_axis_is_in_every_part(learners):
    learner = learners["line"]
    batch = draw_batch(learner, 200, 0)
    parts = cut(learner.model, batch, 2)
    assert [part.name for part in parts] == ["[0:128]", "[128:200]"]
    assert [part.data["y"].shape for part in parts] == [(128, 6), (72, 6)]
    assert all(part.data["x"] is batch.data["x"] and part.targets == {"wanted": [2.0]} for part in parts)
    assert [len(part.start["slope"]) for part in parts] == [128, 72] and parts[1].start["offset"] == [0.0]


def test_lists_are_cut_and_what_does_not_fit_together_is_left_to_minimise(learners):
    model = learners["spring"].model
    rows = [float(k) for k in range(100)]
    assert len(cut(model, wb.Batch({"a": 1.0, "z": rows}, {"mu": rows}, start={"t": 0.0}), 4)) == 2
    misfit = wb.Batch({"a": 1.0, "z": rows}, {"mu": rows[:80]}, start={"t": 0.0})
    assert cut(model, misfit, 4) == [misfit]


def test_readers_are_called_for_each_step_and_their_parts_are_dropped(spring, t_loss):
    whole, parted = (wb.Learner(spring, t_loss, {"w": 2.0}, wb.SGD(0.1)) for _ in range(2))
    rows = np.random.default_rng(0).uniform(0.5, 1.5, 300)
    calls, made, most = [], [], [0]

    def read(begin):
        most[0] = max(most[0], sum(one() is not None for one in made))
        calls.append(begin)
        z = rows[begin : begin + 64]
        batch = wb.Batch({"a": 1.0, "z": z}, {"mu": 3 * z}, start={"t": 0.0})
        made.append(weakref.ref(batch))
        return batch

    parted.fit(wb.BatchParts([partial(read, begin) for begin in range(0, 300, 64)]), steps=3)
    whole.fit(wb.Batch({"a": 1.0, "z": rows}, {"mu": 3 * rows}, start={"t": 0.0}), steps=3)
    assert whole.weights == parted.weights and (whole.history.loss == parted.history.loss).all()
    assert calls == [0, 64, 128, 192, 256] * 3 and most[0] <= 1  # the one before, while the next is read


@pytest.mark.parametrize(
    "parts, error, names",
    [
        ([], wb.InputError, "step 0, batch 'night': the batch has no parts"),
        ([3], wb.InputTypeError, "a part of a batch must be a wb.Batch.*got 3"),
        ([lambda: {"a": 1.0}], wb.InputTypeError, "a part of a batch must be.*dict"),
    ],
)
def test_parts_that_are_none_are_refused(learners, parts, error, names):
    with pytest.raises(error, match=names):
        learners["spring"].fit(wb.BatchParts(parts, name="night"))


def test_a_minimum_that_all_instances_share_is_not_judged_in_parts(spring):
    u = sp.Symbol("u", real=True)
    output = wb.Output({u: t * bias * mu}, minima=spring, weights=[bias], data=[mu], name="shared")
    learner = wb.Learner(output, wb.Loss((u - 1) ** 2, variables=[u]), {"w": 1.0, "bias": 0.5}, wb.SGD(0.01))
    batch = wb.Batch({"a": 1.0, "z": 2.0, "mu": np.linspace(1, 2, 100)}, start={"t": 0.0})
    learner.fit(batch)
    with pytest.raises(wb.InputError, match=r"step 1: all instances share one minimum of energy 'spring'"):
        learner.fit(wb.BatchParts(cut(learner.model, batch, 2)))


def test_an_instance_that_fails_is_found_in_its_part(learners):
    learner = learners["spring"]
    rows = np.ones(150)
    batch = wb.Batch(
        {"a": 1.0, "z": rows}, {"mu": np.where(np.arange(150) == 70, 1e200, 1.0)}, start={"t": 0.0}, name="far"
    )
    with pytest.raises(wb.NumericalError, match=r"batch 'far\[64:128\]': the loss is inf at instance 6;"):
        learner.fit(wb.BatchParts(cut(learner.model, batch, 3)))


def test_parts_of_large_sparse_problems_have_the_bits_of_the_whole():
    y, data = sp.IndexedBase("y", shape=(n,)), sp.IndexedBase("x", shape=(n,))
    smooth = sp.Symbol("smooth", positive=True)
    energy = wb.Energy(
        sp.Sum(wb.pseudo_huber((y[i] - data[i]) ** 2, 1), i)
        + smooth * sp.Sum(wb.pseudo_huber((y[i + 1] - y[i]) ** 2, 1), (i, 0, n - 2)),
        variables=[y],
        weights=[smooth],
        data=[data],
        name="chain",
    )
    truth = sp.IndexedBase("truth", shape=(n,))
    learner = wb.Learner(wb.compile(energy), wb.squared_error(y, truth), {"smooth": 1.0}, wb.SGD(0.1))
    noisy = np.random.default_rng(0).normal(0, 1, (140, 220))
    batch = wb.Batch({"x": noisy}, {"truth": np.zeros(220)}, start={"y": noisy})
    assert same(judgement(learner, cut(learner.model, batch, 3)), judgement(learner, [batch]))
