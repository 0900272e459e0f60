"""Selection: its gradient is that of the soft objective, knows no unit of the energy, and is in checkpoints."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from wiberg.energies.errors import InputError, InputTypeError
from wiberg.learn.judge import combined, judge
from wiberg.learn.minima_rows import in_blocks
from wiberg.learn.selection import Averages, Mean, combined_shares

n, k = sp.symbols("n k", integer=True, positive=True)
i = sp.Idx("i", n)
t, mu = sp.symbols("t mu", real=True)
sigma, depth, sharpness = sp.symbols("sigma depth sharpness", positive=True)
x = sp.IndexedBase("x", shape=(n,))


def wells_at(place):
    return -depth * sp.Sum(sp.exp(-(((place - t) / sigma) ** 2)), i)


WELLS = wells_at(x[i])


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
    learner = wb.Learner(kernel, loss, weights, damping=damping, selection=selection, gtol=1e-12, unconverged="raise")
    here = learner._model, learner._coordinates, learner._coordinates.unpack(learner._state.weights)
    result, after = combined_shares(
        selection, averages or Averages(),
        lambda scales: [learner.judge_part(batch, learner._state.weights, 0, scales)], *here, who="fit",
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


def test_tau_follows_its_schedule(wells):
    """The running means apart, a step with a schedule is one with the number that it gives."""
    ends = []
    for tau in (wb.PiecewiseLinear({0: 1.0, 4: 0.2}), None):
        learner = wb.Learner(
            wells,
            wb.squared_error(t, mu),
            {"sigma": 3.0, "depth": 1.0},
            wb.SGD(1e-2),
            selection=wb.Selection(tau or 1.0),
        )
        for step, batch in enumerate(batches(5)):
            if tau is None:
                learner.selection = wb.Selection(1.0 - 0.2 * step)
            learner.fit([batch], progress=False)
        ends.append(learner.weights["sigma"])
    assert ends[0] == pytest.approx(ends[1], rel=1e-12)
    assert ends[0] != pytest.approx(3.0, rel=1e-3)


@pytest.mark.parametrize("tau", [0.2, wb.CosineDecay(1.0, 20, 0.1)], ids=["number", "schedule"])
def test_a_learner_that_was_saved_goes_on_bit_for_bit(wells, tmp_path, tau):
    def begun():
        return wb.Learner(
            wells, wb.squared_error(t, mu), {"sigma": wb.Weight(3.0, scale="log"), "depth": 1.0}, wb.SGD(1e-3),
            selection=wb.Selection(tau=tau, minima=4),
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


# ---------------------------------------------------------------------------------------------- families

j, f = sp.Idx("j", 3), sp.Idx("f", 3)
each = sp.IndexedBase("each", shape=(3, n))
members = sp.IndexedBase("t", shape=(3,))
RELATED = (members[0] * members[1] / 10 + members[2] - members[0] - mu) ** 2 / 100


@pytest.fixture(scope="module")
def family():
    """Three members of wells; narrower from one to the next."""
    formula = -depth * (1 + j / 4) * sp.Sum(sp.exp(-((((1 + j / 5) * (each[j, i] - t)) / sigma) ** 2)), i)
    energy = wb.Energy(formula, variables=[t], weights=[sigma, depth], data=[each], over=[j], name="family")
    return wb.compile(energy)


def drawn_families(seed, instances=3, points=9):
    random = np.random.default_rng(seed)
    places = random.uniform(0, 20, (instances, 3, points))
    return wb.Batch(data={"each": places}, targets={"mu": random.uniform(0, 20, instances)}, candidates={"t": places})


def soft_family(batch, minima, judge, share, weights):
    """The soft objective in NumPy, one member and minimum after the other."""
    width, deep, *_ = weights
    points = np.asarray(batch.data["each"])
    gaps, found = [], []
    for b in range(len(points)):
        found.append([])
        for m in range(3):
            narrow = Soft((1 + m / 5) * points[b], None, None, None)
            row = minima.variables["t"][b, m]
            ends = [narrow.follow(m, (1 + m / 5) * y, width) for y in row[np.isfinite(row)]]
            found[b].append([(y / (1 + m / 5), deep * (1 + m / 4) * energy) for y, energy in ends])
            gaps += [found[b][m][1][1] - found[b][m][0][1]] if len(ends) > 1 else []
    temperature, total = share * np.mean(gaps), 0.0
    for b, ends in enumerate(found):
        lowest = [(m[0][0], m[0][1]) for m in ends]
        base = judge(lowest, b, *weights)
        total += base
        for m, row in enumerate(ends):
            p = np.exp(-np.array([energy - row[0][1] for _, energy in row]) / temperature)
            for c in range(1, len(row)):
                other = [*lowest[:m], row[c], *lowest[m + 1 :]]
                total += p[c] / p.sum() * (judge(other, b, *weights) - base)
    return total / len(points)


def check_family(kernel, source, loss, batch, judge, at, tau):
    """Compare the derivative with differences; `judge` is the loss of an instance in NumPy."""
    names = "sigma", "depth", "b"
    weights = dict(zip(names, at, strict=False))
    found = wb.minimise(
        kernel, {name: weights[name] for name in names[:2]}, batch.data, candidates=batch.candidates, minima=6,
        starts="basins", gtol=1e-12,
    ).minima  # fmt: skip
    gaps = found.energy[..., 1:] - found.energy[..., :-1]
    assume(np.isfinite(gaps[..., 0]).any())
    assume(np.nanmin(found.curvature) > 1e-2 and np.nanmin(gaps) > 1e-3)

    def objective(*weights):
        return soft_family(batch, found, judge, tau, weights)

    _, gradient, after = judged(source, loss, weights, batch, wb.Selection(tau=tau))
    expected = [central(objective, place, at) for place in range(len(at))]
    assert gradient == pytest.approx(expected, rel=1e-6, abs=1e-6 * after.loss.value)
    assert expected[0] != 0.0 and expected[-1] != 0.0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), width=st.floats(1.0, 4.0), deep=st.floats(0.3, 3.0), tau=st.floats(0.2, 2.0))
def test_gradient_of_a_family_is_that_of_its_soft_objective(family, seed, width, deep, tau):
    """With a loss that is no sum over members, and reads a weight and the energies."""
    energies = sp.IndexedBase("energies", shape=(3,))
    reading = energies[0] * energies[2] + energies[1] ** 2 + sigma * members[1]
    loss = wb.Loss(RELATED + reading, variables=[members], targets=[mu], weights=[sigma], energy=energies)
    batch = drawn_families(seed)
    mus = np.asarray(batch.targets["mu"])

    def judge(ends, b, sigma, _):
        (y, e) = zip(*ends, strict=True)
        own = (y[0] * y[1] / 10 + y[2] - y[0] - mus[b]) ** 2 / 100
        return own + e[0] * e[2] + e[1] ** 2 + sigma * y[1]

    check_family(family, family, loss, batch, judge, (width, deep), tau)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), width=st.floats(1.0, 4.0), factor=st.floats(0.2, 2.0))
def test_an_output_of_a_family_is_differentiated_through_all_minima(family, seed, width, factor):
    mean, b = sp.Symbol("mean", real=True), sp.Symbol("b", positive=True)
    soft = sp.Sum(sp.exp(-b * members[j]) * members[j] * each[j, 0], j) / sp.Sum(sp.exp(-b * members[f]), f)
    output = wb.Output({mean: soft}, minima=family, weights=[b], data=[each])
    batch = drawn_families(seed)
    first, mus = np.asarray(batch.data["each"])[:, :, 0], np.asarray(batch.targets["mu"])

    def judge(ends, at, _, __, b):
        y = np.array([y for y, _ in ends])
        p = np.exp(-b * y)
        return ((p * y * first[at]).sum() / p.sum() - mus[at]) ** 2

    check_family(family, output, wb.squared_error(mean, mu), batch, judge, (width, 1.0, factor), 1.0)


def test_a_family_whose_loss_is_a_sum_learns_like_so_many_instances(wells):
    points, targets = drawn(8, instances=210)
    three = sp.IndexedBase("mus", shape=(3,))
    energy = wb.Energy(wells_at(each[j, i]), variables=[t], weights=[sigma, depth], data=[each], over=[j])
    loss = wb.Loss(sp.Sum((members[f] - three[f]) ** 2, f), variables=[members], targets=[three])
    weights = {"sigma": 1.5, "depth": 1.0}
    _, alone, after = judged(
        wells, wb.squared_error(t, mu), weights, wb.Batch({"x": points}, {"mu": targets}), wb.Selection(), damping=0.1
    )
    places = points.reshape(70, 3, -1)
    batch = wb.Batch({"each": places}, {"mus": targets.reshape(70, 3)}, candidates={"t": places})
    _, together, of_family = judged(wb.compile(energy), loss, weights, batch, wb.Selection(), damping=0.1)
    assert of_family.gap.value == pytest.approx(after.gap.value)
    assert of_family.sensitivity.value == pytest.approx(3 * after.sensitivity.value)
    assert together == pytest.approx(3 * alone, rel=1e-9)


def test_axes_of_a_family_are_members_in_order(family):
    q, r = sp.symbols("q r", cls=sp.Idx, range=2)
    grid, ends = sp.IndexedBase("grid", shape=(3, 2, n)), sp.IndexedBase("t", shape=(3, 2))
    flat, six = sp.IndexedBase("flat", shape=(6, n)), sp.IndexedBase("t", shape=(6,))
    a, b = sp.Idx("a", 6), sp.Idx("b", 6)
    points = np.random.default_rng(5).uniform(0, 20, (70, 3, 2, 9))
    found = []
    for data, over, at, variables, place in (
        (points, [j, q], grid[j, q, i], ends, sp.Sum(ends[f, r] * (1 + 2 * f + r), f, r)),
        (points.reshape(70, 6, 9), [a], flat[a, i], six, sp.Sum(six[b] * (1 + b), b)),
    ):
        kernel = wb.compile(wb.Energy(wells_at(at), variables=[t], weights=[sigma, depth], data=[at.base], over=over))
        loss = wb.Loss((place - mu) ** 2, variables=[variables], targets=[mu])
        batch = wb.Batch({str(at.base): data}, {"mu": 150.0}, candidates={"t": data})
        found.append(judged(kernel, loss, {"sigma": 1.5, "depth": 1.0}, batch, wb.Selection(), damping=0.1)[1])
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    assert found[0].all()


# ---------------------------------------------------------------------------------------------- parts


@pytest.mark.parametrize("selection", [wb.Selection(), wb.Selection(temperature=0.1), wb.Selection(direct=True)])
@pytest.mark.parametrize("of", ["wells", "family"])
def test_parts_of_whole_blocks_have_the_bits_of_the_batch(request, selection, of):
    """One weight, the rest fixed, or two: sums over one column are added in another order than over several."""
    kernel = request.getfixturevalue(of)
    if of == "wells":
        (points, targets), loss = drawn(8, instances=300), wb.squared_error(t, mu)
        batch = wb.Batch({"x": points}, {"mu": targets})
    else:
        batch, loss = drawn_families(8, instances=300), wb.Loss(RELATED, variables=[members], targets=[mu])

    def part(begin, end):
        def rows(arrays):
            return None if arrays is None else {name: array[begin:end] for name, array in arrays.items()}

        return wb.Batch(rows(batch.data), rows(batch.targets), candidates=rows(batch.candidates))

    ends = []
    for cuts in ((0, 300), (0, 64, 300), (0, 128, 192, 300), (0, 64, 128, 192, 256, 300)):
        learner = wb.Learner(
            kernel, loss, {"sigma": wb.Weight(1.5, scale="log"), "depth": wb.Weight(1.0, scale="log")},
            wb.SGD(1e-2, momentum=0.5), selection=selection,
        )  # fmt: skip
        parts = [part(*pair) for pair in pairwise(cuts)]
        learner.fit([parts[0] if len(parts) == 1 else wb.BatchParts([lambda p=p: p for p in parts])], steps=4)
        history = learner.history
        ends.append((learner._state.averages, [array.tobytes() for array in (
            learner._state.learnt, history.loss, history.gradient_norm, history.largest_contribution,
        )]))  # fmt: skip
    assert learner.weights["sigma"] != pytest.approx(1.5, rel=1e-3)
    assert ends[1:] == ends[:1] * 3


def test_blocks_of_rows_do_not_depend_on_other_blocks():
    random = np.random.default_rng(1)
    number_of = random.integers(1, 5, 2 * 150)
    place, number = np.nonzero(np.arange(5) < number_of[:, None])
    whole = in_blocks(place, number, 2, 150)
    for begin, end in ((0, 64), (64, 128), (128, 150)):
        here = (place >= 2 * begin) & (place < 2 * end)
        one = in_blocks(place[here] - 2 * begin, number[here], 2, end - begin)
        rows = np.flatnonzero(np.repeat(whole.owner, 64)[: len(whole.place)] == begin // 64)
        for name in ("number", "counts"):
            np.testing.assert_array_equal(getattr(whole, name)[rows], getattr(one, name))
        np.testing.assert_array_equal(whole.place[rows] - 2 * begin, one.place)
    assert whole.counts.sum() == len(place)


def test_a_singular_minimum_is_named_by_its_instance():
    """The third instance has two minima, of which the second is singular; rows of minima are not instances."""
    z, h = sp.symbols("z h", real=True)
    flat = sp.Piecewise(((t - 3) ** 2 * (1 + z) - h, t > 1), (z * (t + 1) ** 2 + (t + 1) ** 4, True))
    kernel = wb.compile(wb.Energy(sigma * flat, variables=[t], weights=[sigma], data=[z, h]))
    batch = wb.Batch({"z": [1.0, 1.0, 0.0], "h": 1.0}, {"mu": 0.0}, candidates={"t": [-1.0, 0.5, 3.0]})
    learner = wb.Learner(kernel, wb.squared_error(t, mu), {"sigma": 1.0}, selection=wb.Selection(), damping=0.0)
    with pytest.raises(wb.NumericalError, match=r"instance 2 has a singular Hessian \(smallest eigenvalue 0\)"):
        learner.fit([batch], progress=False)
