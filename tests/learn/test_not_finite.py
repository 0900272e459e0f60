"""Steps that are not finite: refused or skipped, by not_finite=."""

import warnings

import numpy as np
import pytest
import sympy as sp
import wiberg as wb


def batch(truth=3.0, **options):
    z = np.linspace(0.5, 1.5, 4)
    return wb.Batch(data={"a": 1.0, "z": z}, targets={"mu": truth * z}, start={"t": 0.0}, **options)


BAD = wb.Batch(data={"a": 1.0, "z": np.ones(3)}, targets={"mu": [1.0, 1e200, -1e200]}, start={"t": 0.0}, name="far")


def learner(kernel, loss, **options):
    options = {"optimiser": wb.SGD(0.05, momentum=0.9), "damping": 0.0, **options}
    return wb.Learner(kernel, loss, {"w": 2.0}, **options)


def test_stop_names_the_instances_and_applies_nothing(spring, t_loss):
    one = learner(spring, t_loss)
    one.fit(batch(), steps=2)
    before = one.weights
    with pytest.raises(wb.NumericalError, match=r"step 2, batch 'far': the loss is inf at instance 1 \(2 of 3.*1, 2\)"):
        one.fit([BAD])
    assert one.weights == before and one.steps == len(one.history) == 2


def test_skip_goes_on_as_if_the_step_had_not_been(spring, t_loss):
    with_bad, without = (learner(spring, t_loss, not_finite="skip") for _ in range(2))
    with pytest.warns(UserWarning, match=r"step 2, batch 'far': the loss is inf at instance 1 .* step is skipped"):
        history = with_bad.fit([batch(), batch(4.0), BAD, batch(5.0)])
    without.fit([batch(), batch(4.0), batch(5.0)])
    assert with_bad.weights == without.weights and with_bad.steps == 4
    assert history.skipped.tolist() == [0.0, 0.0, 1.0, 0.0]
    assert np.isnan(history.loss).tolist() == [False, False, True, False]
    assert history.weights["w"][2] == history.weights["w"][3]
    assert "1 skipped" in repr(history)


def test_a_step_to_weights_that_overflow_is_skipped_too(spring, t_loss):
    one = learner(spring, t_loss, optimiser=wb.SGD(1e308, momentum=0.0), not_finite="skip")
    with pytest.warns(UserWarning, match=r"w would become inf.*skipped"):
        history = one.fit([batch(9.0)])
    assert one.weights == {"w": 2.0} and history.skipped.tolist() == [1.0]


def test_an_undamped_step_at_a_singular_hessian_is_skipped_too(spring, t_loss):
    singular = wb.Batch(data={"a": [1.0, 0.0], "z": 1.0}, targets={"mu": 3.0}, start={"t": 0.0})
    one = learner(spring, t_loss, not_finite="skip")
    with pytest.warns(UserWarning, match=r"singular.*instance 1.*skipped|singular.*skipped"):
        assert one.fit([singular]).skipped.tolist() == [1.0]


@pytest.mark.parametrize("unconverged", ["raise", "nan"])
def test_skip_does_not_weaken_the_policy_for_unconverged_instances(spring, t_loss, unconverged):
    unbounded = wb.Batch(data={"a": [1.0, -1.0], "z": 1.0}, targets={"mu": 3.0}, start={"t": 0.0})
    with pytest.raises(wb.NumericalError, match=r"did not converge"):
        learner(spring, t_loss, not_finite="skip", unconverged=unconverged).fit([unbounded])


def test_skipped_steps_survive_a_checkpoint(spring, t_loss, tmp_path):
    batches = [batch(), BAD, batch(4.0)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole, part = (learner(spring, t_loss, not_finite="skip") for _ in range(2))
        whole.fit(batches, steps=9)
        part.fit(batches, steps=5)
        part.save(tmp_path / "run")
        resumed = wb.Learner.load(tmp_path / "run", spring, t_loss)
        resumed.fit(batches, steps=4)
    whole.save(tmp_path / "a")
    resumed.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_unknown_policy_is_refused(spring, t_loss):
    with pytest.raises(wb.InputError, match=r"'skp'.*did you mean 'skip'"):
        learner(spring, t_loss, not_finite="skp")


# --------------------------------------------------------------------------------------- what else is in the history


@pytest.mark.parametrize("count", [1, 5, 64, 65, 200])
def test_largest_contribution_is_that_of_one_instance(robust_line, count):
    slope, wanted = sp.symbols("slope wanted", real=True)
    loss = wb.Loss((slope - wanted) ** 2, variables=[slope], targets=[wanted])
    random = np.random.default_rng(count)
    data = {"x": np.linspace(0, 1, 20), "y": random.standard_normal((count, 20))}
    start, targets = {"slope": 0.0, "offset": 0.0}, {"wanted": random.standard_normal(count)}
    weights = {"scale": 0.3, "bias": 0.5}
    one = wb.Learner(robust_line, loss, weights, wb.SGD(1e-3))
    history = one.fit(wb.Batch(data=data, targets=targets, start=start))
    sizes = []
    for instance in range(count):
        alone = wb.minimise(robust_line, weights, {**data, "y": data["y"][instance]}, start=start)
        slopes = loss.gradient({"slope": alone.variables["slope"]}, {"wanted": targets["wanted"][instance]})
        each = wb.implicit_gradient(robust_line, alone, slopes)
        sizes.append(np.hypot(each["scale"], each["bias"]))
    assert history.largest_contribution[0] == pytest.approx(max(sizes) / count, rel=1e-12)


def test_history_says_rate_damping_and_clipping(spring, t_loss):
    rate, damping = wb.StepDecay(0.1, every=2, factor=0.5), wb.CosineDecay(1.0, steps=3, end=0.5)
    one = learner(spring, t_loss, optimiser=wb.SGD({"w": rate}, momentum=0.0, clip=1.0), damping=damping)
    history = one.fit([batch(2.1), batch(9.0), batch(9.0)])
    assert history.learning_rate.tolist() == [0.1, 0.1, 0.05]
    assert history.damping.tolist() == [damping.at(k) for k in range(3)]
    assert history.clipped.tolist() == [0.0, 1.0, 1.0]
    assert (history.gradient_norm > 1.0).tolist() == [False, True, True]


# ----------------------------------------------------------------------------------------- gradients that are exactly 0


@pytest.fixture(scope="module")
def two():
    """t* = first x + gain second z; a gain of z = 0 is never seen."""
    t, first, second, x, z = sp.symbols("t first second x z", real=True)
    return wb.compile(wb.Energy((t - first * x - second * z) ** 2, variables=[t], weights=[first, second], data=[x, z]))


def seen(z, count=4):
    x = np.linspace(0.5, 1.5, count)
    return wb.Batch(data={"x": x, "z": z}, targets={"mu": 3.0 * x}, start={"t": 0.0})


def caught(run):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        run()
    return [str(one.message) for one in found if issubclass(one.category, wb.ZeroGradientWarning)]


def test_a_weight_that_nothing_moves_is_reported_once_by_name(two, t_loss):
    one = wb.Learner(two, t_loss, {"first": 0.0, "second": 1.0}, wb.SGD(1e-3, momentum=0.0))
    assert caught(lambda: one.fit(seen(0.0), steps=99)) == []
    (message,) = caught(lambda: one.fit(seen(0.0), steps=300))
    assert "step 99: the gradient by second has been exactly 0 for 100 steps" in message and "fixed=True" in message


def test_a_gradient_that_comes_back_is_not_reported(two, t_loss):
    one = wb.Learner(two, t_loss, {"first": 0.0, "second": 1.0}, wb.SGD(1e-3, momentum=0.0))
    batches = [seen(0.0)] * 99 + [seen(1.0)]
    assert caught(lambda: one.fit(batches, steps=500)) == []


def test_a_fixed_weight_and_a_perfect_fit_are_not_reported(two, t_loss):
    fixed = wb.Learner(two, t_loss, {"first": 0.0, "second": wb.Weight(1.0, fixed=True)}, wb.SGD(1e-3))
    perfect = wb.Learner(two, t_loss, {"first": 0.0, "second": 0.0}, wb.SGD(1e-3))
    nothing = wb.Batch(data={"x": 0.0, "z": 0.0}, targets={"mu": [0.0]}, start={"t": 0.0})
    assert caught(lambda: fixed.fit(seen(0.0), steps=150)) == caught(lambda: perfect.fit(nothing, steps=150)) == []


def test_a_report_is_remembered_by_a_checkpoint(two, t_loss, tmp_path):
    for cut, expected in ((60, 1), (150, 0)):
        one = wb.Learner(two, t_loss, {"first": 0.0, "second": 1.0}, wb.SGD(1e-3, momentum=0.0))
        caught(lambda one=one, cut=cut: one.fit(seen(0.0), steps=cut))
        one.save(tmp_path / "run")
        resumed = wb.Learner.load(tmp_path / "run", two, t_loss)
        assert len(caught(lambda resumed=resumed: resumed.fit(seen(0.0), steps=60))) == expected


def test_a_gradient_that_comes_back_after_a_checkpoint_starts_the_count_anew(two, t_loss, tmp_path):
    one = wb.Learner(two, t_loss, {"first": 0.0, "second": 1.0}, wb.SGD(1e-3, momentum=0.0))
    one.fit(seen(0.0), steps=60)
    one.save(tmp_path / "run")
    resumed = wb.Learner.load(tmp_path / "run", two, t_loss)
    assert caught(lambda: resumed.fit(lambda step: seen(float(step == 60)), steps=61)) == []


def test_a_component_that_is_too_narrow_is_found(ransac, t_loss):
    """The paper's limitation: between points, exp(-(x - t)^2 / sigma^2) is exactly 0 for a sigma this small."""
    x = np.array([[-20.0, 0.0, 30.0], [-25.0, 5.0, 35.0]])
    narrow = wb.Learner(ransac, t_loss, {"sigma": 0.01}, wb.SGD(1e-3))
    (message,) = caught(lambda: narrow.fit(wb.Batch(data={"x": x}, targets={"mu": [1.0, 2.0]}), steps=101))
    assert "gradient by sigma" in message
