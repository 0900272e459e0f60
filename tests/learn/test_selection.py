"""Selection: its gradient is that of the soft objective, knows no unit of the energy, and is in checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from wiberg.energies.errors import InputError, InputTypeError
from wiberg.learn.judge import combined, judge
from wiberg.learn.selection import Averages, Mean, judge_minima

n, k = sp.symbols("n k", integer=True, positive=True)
i = sp.Idx("i", n)
t, mu = sp.symbols("t mu", real=True)
sigma, depth, sharpness = sp.symbols("sigma depth sharpness", positive=True)
x = sp.IndexedBase("x", shape=(n,))
WELLS = -depth * sp.Sum(sp.exp(-(((x[i] - t) / sigma) ** 2)), i)


@pytest.fixture(scope="module")
def wells():
    """Gaussian wells, whose depth scales the energy as a whole."""
    return wb.compile(
        wb.Energy(WELLS, variables=[t], weights=[sigma, depth], data=[x], candidates={t: x[i]}, name="wells")
    )


def drawn(seed, instances=3, points=9):
    random = np.random.default_rng(seed)
    return random.uniform(0, 20, (instances, points)), random.uniform(0, 20, instances)


def judged(kernel, loss, weights, batch, selection, damping=0.0, averages=None):
    """The gradient of the mean shared loss at a batch, not divided by any mean; by weights as shown."""
    learner = wb.Learner(kernel, loss, weights, damping=damping, selection=selection, gtol=1e-12)
    result, after = judge_minima(
        learner._model, batch, learner._minimise(batch), learner._coordinates,
        learner._coordinates.unpack(learner._state.weights),
        step=0, damping=damping, unconverged="raise", selection=selection, averages=averages or Averages(),
    )  # fmt: skip
    return result, result.gradient * after.loss.value, after


class Soft:
    """The soft objective in NumPy: each minimum followed by Newton's method, shared by energy."""

    def __init__(self, points, targets, minima, share):
        self.points, self.targets, self.minima, self.share = points, targets, minima, share

    def follow(self, b, start, width):
        at = start
        for _ in range(50):
            r = (self.points[b] - at) / width
            e = np.exp(-(r**2))
            at -= (-2 * r * e / width).sum() / ((2 - 4 * r**2) * e / width**2).sum()
        return at, -np.exp(-(((self.points[b] - at) / width) ** 2)).sum()

    def ends(self, width, deep):
        found = []
        for b, row in enumerate(self.minima):
            ends = np.array([self.follow(b, y, width) for y in row[np.isfinite(row)]])
            found.append((deep * ends[:, 1], (ends[:, 0] - self.targets[b]) ** 2))
        return found

    def __call__(self, width, deep):
        found = self.ends(width, deep)
        gaps = [energies[1] - energies[0] for energies, _ in found if len(energies) > 1]
        temperature = self.share["temperature"] or self.share["tau"] * np.mean(gaps)
        total = 0.0
        for energies, losses in found:
            p = np.exp(-(energies - energies.min()) / temperature)
            total += p @ losses / p.sum()
        return total / len(found)


def central(function, place, at, h=1e-4):
    """Of fourth order."""
    values = []
    for step in (-2, -1, 1, 2):
        moved = list(at)
        moved[place] += step * h
        values.append(function(*moved))
    return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6), width=st.floats(1.0, 4.0), deep=st.floats(0.3, 3.0), tau=st.floats(0.2, 2.0),
    fixed=st.booleans(),
)  # fmt: skip
def test_gradient_is_that_of_the_soft_objective(wells, seed, width, deep, tau, fixed):
    points, targets = drawn(seed)
    selection = wb.Selection(tau=tau, temperature=tau if fixed else None)
    minima = wb.minimise(
        wells, {"sigma": width, "depth": deep}, {"x": points}, minima=6, starts="basins", gtol=1e-12
    ).minima
    gaps = minima.energy[:, 1:] - minima.energy[:, :-1]
    assume(np.isfinite(gaps[:, 0]).any())
    assume(np.nanmin(minima.curvature) > 1e-2 and np.nanmin(gaps) > 1e-3)  # none merge or change places within h
    soft = Soft(points, targets, minima.variables["t"], selection.describe())
    batch = wb.Batch(data={"x": points}, targets={"mu": targets})
    weights = {"sigma": width, "depth": deep}
    _, gradient, after = judged(wells, wb.squared_error(t, mu), weights, batch, selection)
    assert after.loss.value == pytest.approx(soft(width, deep), rel=1e-9)
    expected = [central(soft, place, (width, deep)) for place in range(2)]
    assert gradient == pytest.approx(expected, rel=1e-6, abs=1e-6 * after.loss.value)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), width=st.floats(0.5, 4.0), deep=st.floats(1e-3, 1e3))
def test_gradient_along_the_scale_of_the_energy_is_zero(wells, seed, width, deep):
    points, targets = drawn(seed, instances=5)
    batch = wb.Batch(data={"x": points}, targets={"mu": targets})
    weights = {"sigma": width, "depth": deep}
    selection = wb.Selection()
    result, *_ = judged(wells, wb.squared_error(t, mu), weights, batch, selection)
    assert abs(result.gradient[1]) * deep < 1e-11 * max(1.0, abs(result.gradient[0]) * width)
    one = judged(wells, wb.squared_error(t, mu), weights, batch, wb.Selection(temperature=0.1 * deep))[0]
    if abs(result.gradient[0]) > 1e-3:  # at a fixed temperature it is not
        assert abs(one.gradient[1]) * deep > 1e-12


def test_an_energy_multiplied_by_a_constant_is_learnt_in_the_same_way(wells):
    ends = []
    for deep in (1.0, 1024.0):
        learner = wb.Learner(
            wells, wb.squared_error(t, mu), {"sigma": wb.Weight(3.0, scale="log"), "depth": deep},
            wb.SGD({"sigma": 1e-2, "depth": 1e-300}, momentum=0.5), damping=0.0, selection=wb.Selection(),
            gtol=1e-10 * deep,
        )  # fmt: skip
        learner.fit(batches(30), progress=False)
        ends.append(learner.weights["sigma"])
    assert ends[0] != pytest.approx(3.0, rel=1e-2)
    assert ends[1] == pytest.approx(ends[0], rel=1e-8)


def batches(count, instances=3):
    return [
        wb.Batch(data={"x": points}, targets={"mu": targets})
        for points, targets in (drawn(seed, instances, 12) for seed in range(count))
    ]


def test_instances_with_one_minimum_have_the_damped_gradient(wells):
    points, targets = drawn(3, instances=70)
    batch = wb.Batch(data={"x": points}, targets={"mu": targets})
    result, gradient, after = judged(
        wells, wb.squared_error(t, mu), {"sigma": 30.0, "depth": 1.0}, batch, wb.Selection(), damping=0.1
    )
    learner = wb.Learner(wells, wb.squared_error(t, mu), {"sigma": 30.0, "depth": 1.0}, gtol=1e-12)
    known = learner._model, batch, learner._minimise(batch), learner._coordinates
    sums = judge(*known, {}, step=0, damping=0.1, unconverged="raise")
    plain = combined([sums], learner._model, learner._coordinates, {}, who="fit")
    assert after.gap.number == 0
    assert gradient == pytest.approx(plain.gradient, rel=1e-9)
    assert result.loss == pytest.approx(plain.loss, rel=1e-12)


def test_direct_loss_minimisation_follows_its_formula(wells):
    points, targets = drawn(8, instances=4)
    batch, weights = wb.Batch(data={"x": points}, targets={"mu": targets}), {"sigma": 1.5, "depth": 1.0}
    selection = wb.Selection(tau=2.0, direct=True)
    _, gradient, after = judged(wells, wb.squared_error(t, mu), weights, batch, selection, damping=0.1)
    solution = wb.minimise(wells, weights, {"x": points}, minima=6, starts="basins", gtol=1e-12)
    energies, ends = solution.minima.energy, solution.minima.variables["t"]
    losses = (ends - targets[:, None]) ** 2
    assert after.loss.value == pytest.approx(losses[:, 0].mean())
    tilt = 2.0 * np.mean(energies[:, 1] - energies[:, 0]) / losses[:, 0].mean()
    lowest = wb.implicit_gradient(wells, solution, {"t": 2 * (ends[:, 0] - targets)})
    expected = np.array([lowest["sigma"], lowest["depth"]])
    moved = 0
    for b in range(4):
        for sign in (1, -1):
            c = np.nanargmin(energies[b] + sign * tilt * losses[b])
            moved += c != 0
            own = wells.weight_gradient({"t": ends[b, c]}, weights, {"x": points[b]})
            expected += sign * own / (2 * tilt)
    assert moved > 1
    assert gradient == pytest.approx(expected / 4, rel=1e-9)


def test_running_means_begin_as_plain_means_and_end_as_running_ones():
    mean, values = Mean(), np.random.default_rng(0).uniform(size=30)
    for count, value in enumerate(values[:10], 1):
        mean = mean.after(value, 10)
        assert mean.value == pytest.approx(values[:count].mean())
    assert mean.after(np.nan, 10) == mean
    assert mean.after(3.0, 10).value == pytest.approx(0.9 * mean.value + 0.3)


def test_a_jump_is_learnt_that_no_derivative_of_one_minimum_sees():
    """Two wells far apart: the derivative of the lower one by the other's depth is 0 to rounding."""
    a = sp.Symbol("a", real=True)
    pair = -a * sp.exp(-((t + 9) ** 2)) - depth * sp.exp(-((t - 9) ** 2))
    kernel = wb.compile(wb.Energy(pair, variables=[t], weights=[depth], data=[a]))
    depths = np.linspace(0.6, 1.2, 7)
    batch = wb.Batch(data={"a": depths}, targets={"mu": 9.0}, candidates={"t": [-9.0, 9.0]})
    ends = {}
    for name, selection in (
        ("plain", None), ("tied", wb.Selection(tau=0.3)), ("fixed", wb.Selection(temperature=0.05)),
        ("direct", wb.Selection(direct=True)),
    ):  # fmt: skip
        weights = {"depth": wb.Weight(0.8, scale="log")}
        learner = wb.Learner(kernel, wb.squared_error(t, mu), weights, wb.SGD(0.02), selection=selection)
        ends[name] = learner.fit([batch], steps=100, progress=False).loss
    assert ends["plain"][-1] == pytest.approx(ends["plain"][0])
    for name in ("tied", "fixed", "direct"):
        assert ends[name][-1] < 1e-9, name
    assert learner.predict({"a": depths}, candidates=batch.candidates)["t"] == pytest.approx(np.full(7, 9.0))


def test_a_learner_that_was_saved_goes_on_bit_for_bit(wells, tmp_path):
    def begun():
        return wb.Learner(
            wells, wb.squared_error(t, mu), {"sigma": wb.Weight(3.0, scale="log"), "depth": 1.0}, wb.SGD(1e-3),
            selection=wb.Selection(tau=0.2, minima=4),
        )  # fmt: skip

    whole, first = begun(), begun()
    whole.fit(batches(12), steps=24, progress=False)
    first.fit(batches(12), steps=9, progress=False)
    first.save(tmp_path / "run")
    again = wb.Learner.load(tmp_path / "run", wells, wb.squared_error(t, mu))
    assert again.selection == first.selection
    again.fit(batches(12), steps=15, progress=False)
    assert again._state.learnt.tobytes() == whole._state.learnt.tobytes()
    assert again._state.averages == whole._state.averages
    assert again.history.loss.tobytes() == whole.history.loss.tobytes()
    again.save(tmp_path / "again")
    whole.save(tmp_path / "whole")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_checkpoint_without_selection_is_one_of_a_learner_without(wells, tmp_path):
    learner = wb.Learner(wells, wb.squared_error(t, mu), {"sigma": 3.0, "depth": 1.0})
    learner.fit(batches(2), progress=False)
    learner.save(tmp_path / "run")
    assert wb.Learner.load(tmp_path / "run", wells, wb.squared_error(t, mu)).selection is None


def test_an_output_of_one_kernel_is_differentiated_through_all_minima(wells):
    out, b = sp.Symbol("out", real=True), sp.Symbol("b", real=True)
    output = wb.Output({out: b * t + sp.sin(t) + x[0] / 10}, minima=wells, weights=[b], data=[x])
    loss = wb.squared_error(out, mu)
    points, targets = drawn(8, instances=4)
    at = (1.5, 1.0, 0.7)
    selection = wb.Selection(tau=1.0)
    minima = wb.minimise(wells, {"sigma": 1.5, "depth": 1.0}, {"x": points}, minima=6, starts="basins").minima
    soft = Soft(points, targets, minima.variables["t"], selection.describe())

    def ends(width, deep, factor):
        found = []
        for number, row in enumerate(minima.variables["t"]):
            pairs = np.array([soft.follow(number, y, width) for y in row[np.isfinite(row)]])
            value = factor * pairs[:, 0] + np.sin(pairs[:, 0]) + points[number, 0] / 10
            found.append((deep * pairs[:, 1], (value - targets[number]) ** 2))
        return found

    def objective(width, deep, factor):
        soft.ends = lambda *_: ends(width, deep, factor)
        return soft(width, deep)

    batch = wb.Batch(data={"x": points}, targets={"mu": targets})
    weights = {"sigma": at[0], "depth": at[1], "b": at[2]}
    _, gradient, _ = judged(output, loss, weights, batch, selection)
    expected = [central(objective, place, at) for place in range(3)]
    assert gradient == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_a_loss_that_reads_the_energy_is_shared_too(wells):
    energy = sp.Symbol("energy", real=True)
    loss = wb.Loss((t - mu) ** 2 + 3 * energy**2, variables=[t], targets=[mu], energy=energy)
    points, targets = drawn(8, instances=4)
    selection = wb.Selection(tau=1.0)
    minima = wb.minimise(wells, {"sigma": 1.5, "depth": 1.0}, {"x": points}, minima=6, starts="basins").minima
    soft = Soft(points, targets, minima.variables["t"], selection.describe())
    plain = soft.ends
    soft.ends = lambda *at: [(e, losses + 3 * e**2) for e, losses in plain(*at)]
    batch = wb.Batch(data={"x": points}, targets={"mu": targets})
    _, gradient, _ = judged(wells, loss, {"sigma": 1.5, "depth": 1.0}, batch, selection)
    assert gradient == pytest.approx([central(soft, place, (1.5, 1.0)) for place in range(2)], rel=1e-6, abs=1e-8)


def test_one_instance_without_a_batch_axis_is_a_batch_of_one(wells):
    points, targets = drawn(8, instances=1)
    gradients = [
        judged(wells, wb.squared_error(t, mu), {"sigma": 1.5, "depth": 1.0}, wb.Batch(data=data, targets=target),
               wb.Selection())[1]
        for data, target in (({"x": points}, {"mu": targets}), ({"x": points[0]}, {"mu": targets[0]}))
    ]  # fmt: skip
    assert gradients[0].tobytes() == gradients[1].tobytes()
    assert gradients[0].any()


def test_an_instance_that_did_not_converge_is_left_out(wells):
    points, targets = drawn(8, instances=4)
    learner = wb.Learner(
        wells, wb.squared_error(t, mu), {"sigma": 1.5, "depth": 1.0}, selection=wb.Selection(), max_iterations=0,
    )  # fmt: skip
    learner.fit([wb.Batch(data={"x": points}, targets={"mu": targets})], progress=False)
    assert learner.history.unconverged.tolist() == [1.0]
    assert learner.history.gradient_norm.tolist() == [0.0]
    learner = wb.Learner(
        wells, wb.squared_error(t, mu), {"sigma": 1.5, "depth": 1.0}, selection=wb.Selection(), max_iterations=0,
        unconverged="raise",
    )  # fmt: skip
    with pytest.raises(wb.NumericalError, match="4 of 4 instances did not converge"):
        learner.fit([wb.Batch(data={"x": points}, targets={"mu": targets})], progress=False)


def test_what_cannot_be_selected_is_refused(wells):
    loss = wb.squared_error(t, mu)
    weights = {"sigma": 1.0, "depth": 1.0}
    with pytest.raises(InputTypeError, match="selection must be a wb"):
        wb.Learner(wells, loss, weights, selection=0.1)
    for setting in ({"tau": 0.0}, {"tau": np.inf}, {"temperature": -1.0}, {"minima": 1}):
        with pytest.raises(InputError, match=f"Selection: {next(iter(setting))} must be"):
            wb.Selection(**setting)
    with pytest.raises(InputTypeError, match="tau must be a number"):
        wb.Selection(tau="warm")
    other = sp.Symbol("other", real=True)
    second = wb.compile(wb.Energy(sigma * (other - x[0]) ** 2, variables=[other], weights=[sigma], data=[x]))
    total = sp.Symbol("total", real=True)
    both = wb.Output({total: t + other}, minima=[wells, second])
    with pytest.raises(InputError, match="one kernel, or an output of one"):
        wb.Learner(both, wb.squared_error(total, mu), weights, selection=wb.Selection())
    learner = wb.Learner(wells, loss, weights, selection=wb.Selection())
    with pytest.raises(InputError, match="starts='basins' is for"):
        learner.fit([wb.Batch(data={"x": [1.0, 2.0]}, targets={"mu": 1.0}, start={"t": 0.0})], progress=False)


def test_a_family_is_refused():
    j = sp.Idx("j", 2)
    each = sp.IndexedBase("each", shape=(2, n))
    energy = wb.Energy(sigma * sp.Sum((each[j, i] - t) ** 2, i), variables=[t], weights=[sigma], data=[each], over=[j])
    both = sp.IndexedBase("t", shape=(2,))
    loss = wb.Loss((both[0] + both[1] - mu) ** 2, variables=[both], targets=[mu])
    with pytest.raises(InputError, match="selection= is not for a family"):
        wb.Learner(wb.compile(energy), loss, {"sigma": 1.0}, selection=wb.Selection())
