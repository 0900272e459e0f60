import itertools
import pickle

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from wiberg.learn import SGD, Batch, Learner, Loss, Weight, implicit_gradient
from wiberg.runtime import minimise, set_threads


def spring_batch(count=4, truth=3.0, seed=0):
    z = np.random.default_rng(seed).uniform(0.5, 1.5, count)
    return Batch(data={"a": 1.0, "z": z}, targets={"mu": truth * z}, start={"t": 0.0})


def ransac_batch(step):
    random = np.random.default_rng([7, step])
    mean = random.uniform(-40, 40, 3)
    inliers = mean[:, None] + 4 * random.standard_normal((3, 10))
    x = np.concatenate([inliers, random.uniform(-40, 40, (3, 100))], axis=1)
    return Batch(data={"x": x}, targets={"mu": inliers.mean(axis=1)})


def spring_learner(spring, t_loss, **options):
    return Learner(
        spring, t_loss, **{"weights": {"w": 2.0}, "optimiser": SGD(0.1, momentum=0.0), "damping": 0.0, **options}
    )


def ransac_learner(ransac, t_loss, **options):
    return Learner(ransac, t_loss, weights={"sigma": 8.0}, optimiser=SGD(1e-4, momentum=0.99), **options)


def same(a, b):
    assert a.weights == b.weights and a.steps == b.steps
    for name in ("loss", "gradient_norm", "unconverged", "shifted", "dominated", "weight_steps"):
        np.testing.assert_array_equal(getattr(a.history, name), getattr(b.history, name))
    for name in a.history.weights:
        np.testing.assert_array_equal(a.history.weights[name], b.history.weights[name])


# ---------------------------------------------------------------------------------------------- one step


def test_a_step_follows_the_mean_gradient(spring, t_loss):
    learner, batch = spring_learner(spring, t_loss), spring_batch(5)
    solution = minimise(spring, {"w": 2.0}, batch.data, start=batch.start)
    slopes = t_loss.gradient(solution.variables, batch.targets)
    gradient = implicit_gradient(spring, solution, slopes, damping=0.0)["w"] / 5
    history = learner.fit([batch])
    assert learner.weights["w"] == pytest.approx(2.0 - 0.1 * gradient, rel=1e-14)
    assert history.loss[0] == pytest.approx(t_loss.value(solution.variables, batch.targets).mean(), rel=1e-14)
    assert history.gradient_norm[0] == pytest.approx(abs(gradient), rel=1e-14)


@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_a_single_newton_step_may_stand_in_place_of_the_minimum(ransac, t_loss, damping):
    options = {"max_iterations": 1, "unconverged": "use"}
    tried, w = 0, {"sigma": 8.0}
    for number in range(20):
        several = ransac_batch(number)
        x, mean = several.data["x"][0], several.targets["mu"][0]
        batch = Batch(data={"x": x[None]}, targets={"mu": [mean]})
        start = x[np.argmin(ransac.value({"t": x}, w, {"x": x[None]}))]
        energy, gradient, hessian = ransac.value_gradient_hessian({"t": start}, w, {"x": x})
        end = float(start - gradient[0] / hessian[0, 0])
        if hessian[0, 0] <= 0 or ransac.value({"t": end}, w, {"x": x}) >= energy:
            continue  # the step is another one: the trust region's
        curvature, cross = (call({"t": end}, w, {"x": x})[0, 0] for call in (ransac.hessian, ransac.cross))
        slope = -2 * (end - mean) * cross / (max(curvature, 0.0) + damping)
        learner = ransac_learner(ransac, t_loss, damping=damping, **options)
        assert float(learner.predict(batch.data)["t"][0]) == pytest.approx(end, rel=1e-12)
        history = learner.fit([batch])
        assert (8.0 - learner.weights["sigma"]) / 1e-4 == pytest.approx(slope, rel=1e-6, abs=1e-9)
        assert history.loss[0] == pytest.approx((end - mean) ** 2, rel=1e-10)
        tried += 1
    assert tried > 10


def test_gradient_of_a_step_equals_finite_differences_of_the_loss(ransac, t_loss):
    batch = ransac_batch(0)

    def loss(sigma):
        solution = minimise(ransac, {"sigma": sigma}, batch.data, gtol=1e-11)
        return t_loss.value(solution.variables, batch.targets).mean()

    learner = Learner(ransac, t_loss, weights={"sigma": 8.0}, optimiser=SGD(1.0, momentum=0.0), damping=0.0)
    learner.fit(batch)
    expected = (loss(8.0 + 1e-5) - loss(8.0 - 1e-5)) / 2e-5
    assert 8.0 - learner.weights["sigma"] == pytest.approx(expected, rel=1e-6)


def test_batch_size_does_not_change_the_meaning_of_the_rate(spring, t_loss):
    one, many = (spring_learner(spring, t_loss) for _ in range(2))
    one.fit(Batch(data={"a": 1.0, "z": [1.5]}, targets={"mu": [4.0]}, start={"t": 0.0}), steps=3)
    many.fit(Batch(data={"a": 1.0, "z": np.full(100, 1.5)}, targets={"mu": 4.0}, start={"t": 0.0}), steps=3)
    assert one.weights["w"] == pytest.approx(many.weights["w"], rel=1e-13)


def test_unbatched_instance(spring, t_loss):
    learner = spring_learner(spring, t_loss)
    learner.fit(Batch(data={"a": 1.0, "z": 1.0}, targets={"mu": 3.0}, start={"t": 0.0}), steps=200)
    assert learner.weights["w"] == pytest.approx(3.0, rel=1e-9)


def test_weights_move_to_the_optimum(spring, t_loss):
    learner = spring_learner(spring, t_loss, damping=0.1)
    history = learner.fit([spring_batch(seed=k) for k in range(3)], steps=150)
    assert learner.weights["w"] == pytest.approx(3.0, rel=1e-6)
    assert history.loss[-1] < 1e-10 < history.loss[0]
    np.testing.assert_allclose(
        learner.predict({"a": 1.0, "z": [1.0, 2.0]}, start={"t": 0.0})["t"], [3.0, 6.0], rtol=1e-5
    )


def test_loss_may_read_some_of_the_variables(robust_line):
    slope, wanted = sp.symbols("slope wanted", real=True)
    learner = Learner(
        robust_line,
        Loss((slope - wanted) ** 2, variables=[slope], targets=[wanted]),
        weights={"scale": 0.3, "bias": 0.5},
        optimiser=SGD(0.2, momentum=0.5),
    )
    x = np.linspace(0, 1, 20)
    batch = Batch(data={"x": x, "y": 2 * x}, targets={"wanted": 2.0}, start={"slope": 0.0, "offset": 0.0})
    history = learner.fit(batch, steps=60)
    assert history.loss[-1] < 0.1 * history.loss[0]


def test_threads_do_not_change_a_bit(ransac, t_loss):
    results = []
    for threads in (1, 3):
        set_threads(threads)
        learner = ransac_learner(ransac, t_loss)
        learner.fit([ransac_batch(k) for k in range(3)], steps=20)
        results.append(learner)
    set_threads(None)
    same(*results)


# ---------------------------------------------------------------------------------------------- positive weights


@pytest.fixture(scope="module")
def stiff():
    """t* = stiffness z / (1 + stiffness): wants the stiffness to become 0 when the target is -1."""
    t, z = sp.symbols("t z", real=True)
    stiffness = sp.Symbol("stiffness", positive=True)
    return wb.compile(wb.Energy(stiffness * (t - z) ** 2 + t**2, variables=[t], weights=[stiffness], data=[z]))


@pytest.mark.parametrize("start", [1.0, Weight(1.0, scale="log")])
def test_positive_weights_stay_positive(stiff, t_loss, start):
    learner = Learner(stiff, t_loss, weights={"stiffness": start}, optimiser=SGD(0.5, momentum=0.9))
    batch = Batch(data={"z": [1.0, 2.0]}, targets={"mu": -1.0}, start={"t": 0.0})
    history = learner.fit(batch, steps=60)
    assert (history.weights["stiffness"] > 0).all()
    assert learner.weights["stiffness"] == history.weights["stiffness"][-1] < 0.1


def test_a_weight_leaves_its_floor_at_once_when_the_gradient_turns(stiff, t_loss):
    learner = Learner(stiff, t_loss, weights={"stiffness": 1.0}, optimiser=SGD(0.5, momentum=0.999))
    learner.fit(Batch(data={"z": [1.0, 2.0]}, targets={"mu": -1.0}, start={"t": 0.0}), steps=60)
    assert learner.weights["stiffness"] == 1e-6
    learner.fit(Batch(data={"z": [1.0, 2.0]}, targets={"mu": [0.5, 1.0]}, start={"t": 0.0}), steps=1)
    assert learner.weights["stiffness"] > 0.1


def test_log_scale_multiplies(stiff, t_loss):
    batch = Batch(data={"z": 1.0}, targets={"mu": 0.9}, start={"t": 0.0})
    raw = Learner(stiff, t_loss, weights={"stiffness": 2.0}, optimiser=SGD(0.01, momentum=0.0))
    log = Learner(stiff, t_loss, weights={"stiffness": Weight(2.0, scale="log")}, optimiser=SGD(0.01, momentum=0.0))
    raw.fit(batch)
    log.fit(batch)
    assert np.log(log.weights["stiffness"] / 2.0) == pytest.approx(2.0 * (raw.weights["stiffness"] - 2.0), rel=1e-9)


# ---------------------------------------------------------------------------------------------- batches


def test_list_is_repeated_and_goes_on_where_it_was(ransac, t_loss):
    batches = [ransac_batch(k) for k in range(3)]
    whole, parts = ransac_learner(ransac, t_loss), ransac_learner(ransac, t_loss)
    whole.fit(batches, steps=10)
    for steps in (4, 0, 1, 5):
        parts.fit(batches, steps=steps)
    same(whole, parts)


class Reader:
    """Can be iterated again, and has no length."""

    def __iter__(self):
        return (ransac_batch(k) for k in range(3))


@pytest.mark.parametrize(
    "make", [lambda: [ransac_batch(k) for k in range(3)], Reader, lambda: lambda step: ransac_batch(step % 3)]
)
def test_ways_to_give_the_same_batches(ransac, t_loss, make):
    first, second = ransac_learner(ransac, t_loss), ransac_learner(ransac, t_loss)
    first.fit(itertools.chain.from_iterable([ransac_batch(k) for k in range(3)] for _ in range(3)), steps=7)
    second.fit(make(), steps=3)
    second.fit(make(), steps=4)
    same(first, second)


def test_one_pass_without_steps(ransac, t_loss):
    for batches in ([ransac_batch(0)] * 3, Reader(), iter(Reader())):
        learner = ransac_learner(ransac, t_loss)
        learner.fit(batches)
        assert learner.steps == 3


def test_generator_that_ends_early_warns_and_keeps_what_was_learnt(ransac, t_loss):
    learner = ransac_learner(ransac, t_loss)
    with pytest.warns(UserWarning, match=r"ended after 3 of 10 steps"):
        history = learner.fit(iter(Reader()), steps=10)
    assert len(history) == learner.steps == 3


@pytest.mark.parametrize("batches", [[], iter([]), ()])
def test_no_batch_at_all_is_refused(spring, t_loss, batches):
    with pytest.raises(wb.InputError, match=r"0 batches"):
        spring_learner(spring, t_loss).fit(batches, steps=5)


def test_batches_that_do_not_fit_are_refused(spring, t_loss):
    learner = spring_learner(spring, t_loss)
    with pytest.raises(wb.InputTypeError, match=r"step 0 got a dict"):
        learner.fit([{"a": 1.0}])
    with pytest.raises(wb.InputTypeError, match=r"int"):
        learner.fit(3)
    with pytest.raises(wb.InputError, match=r"function of the step"):
        learner.fit(lambda step: spring_batch())
    with pytest.raises(wb.InputError, match=r"'empty'.*no instances"):
        learner.fit(Batch(data={"a": 1.0, "z": np.ones(0)}, targets={"mu": 1.0}, start={"t": 0.0}, name="empty"))
    with pytest.raises(wb.InputError, match=r"targets have 3 instances.*4"):
        learner.fit(Batch(data=spring_batch().data, targets={"mu": np.ones(3)}, start={"t": 0.0}))
    assert learner.steps == 0


@pytest.mark.parametrize("steps, error", [(-5, wb.InputError), (2.5, wb.InputTypeError), ("3", wb.InputTypeError)])
def test_steps_out_of_range_are_refused(spring, t_loss, steps, error):
    with pytest.raises(error, match=r"steps"):
        spring_learner(spring, t_loss).fit(spring_batch(), steps=steps)


def test_callback_sees_every_step_and_may_stop(spring, t_loss):
    seen = []

    def stop_after_four(learner):
        seen.append((learner.steps, learner.weights["w"]))
        return len(seen) == 4

    learner = spring_learner(spring, t_loss)
    learner.fit(spring_batch(), steps=10, callback=stop_after_four)
    assert [step for step, _ in seen] == [1, 2, 3, 4]
    assert learner.weights["w"] == seen[-1][1]


def test_progress_bar_is_drawn_when_asked_for_only(spring, t_loss, capsys):
    learner = spring_learner(spring, t_loss)
    learner.fit(spring_batch(), steps=3)
    assert capsys.readouterr().err == ""
    learner.fit(spring_batch(), steps=3, progress=True)
    assert "3/3" in (shown := capsys.readouterr().err) and "loss" in shown


def test_progress_bar_shows_the_share_converged(spring, t_loss, capsys):
    mixed = Batch(data={"a": [1.0, -1.0, 1.0, 1.0], "z": np.ones(4)}, targets={"mu": 3.0}, start={"t": 0.0})
    spring_learner(spring, t_loss).fit([mixed, spring_batch()], steps=1, progress=True)
    assert "75 % converged" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- what can go wrong


def test_unconverged_instances_are_counted_and_left_out(spring, t_loss):
    z = np.array([1.0, 1.0, 1.0, 1.0])
    mixed = Batch(data={"a": [1.0, -1.0, 1.0, 1.0], "z": z}, targets={"mu": 3.0}, start={"t": 0.0})
    learner = spring_learner(spring, t_loss)
    history = learner.fit(mixed)
    assert history.unconverged.tolist() == [0.25]
    assert history.loss[0] == pytest.approx(1.0)
    assert learner.weights["w"] == pytest.approx(2.0 + 0.1 * 0.75 * 2.0)


@pytest.mark.parametrize("policy", ["raise", "nan"])
def test_unconverged_instances_can_stop_learning(spring, t_loss, policy):
    batch = Batch(data={"a": [1.0, -1.0], "z": 1.0}, targets={"mu": 3.0}, start={"t": 0.0}, name="seq_04")
    learner = spring_learner(spring, t_loss, unconverged=policy)
    with pytest.raises(wb.NumericalError, match=r"step 0, batch 'seq_04': 1 of 2 instances.*unbounded 1; first: 1"):
        learner.fit(batch)
    assert learner.steps == 0


def test_batch_without_a_usable_instance_moves_nothing(spring, t_loss):
    learner = spring_learner(spring, t_loss)
    history = learner.fit(Batch(data={"a": -1.0, "z": [1.0, 2.0]}, targets={"mu": 3.0}, start={"t": 0.0}))
    assert learner.weights["w"] == 2.0 and np.isnan(history.loss[0]) and history.unconverged[0] == 1.0


def test_weights_that_overflow_stop_learning_with_the_last_good_ones(spring, t_loss):
    learner = spring_learner(spring, t_loss, optimiser=SGD(1e308, momentum=0.0))
    batches = [spring_batch(truth=2.0), spring_batch(truth=9.0)]
    with pytest.raises(wb.NumericalError, match=r"step 1.* w would become inf.*1 steps"):
        learner.fit(batches, steps=20)
    assert learner.steps == len(learner.history) == 1
    assert np.isfinite(learner.weights["w"]) and np.isfinite(learner.history.weights["w"]).all()


def test_loss_that_overflows_stops_learning_and_names_the_instance(spring, t_loss):
    learner = spring_learner(spring, t_loss)
    batch = Batch(data={"a": 1.0, "z": [1.0, 2.0]}, targets={"mu": [1.0, 1e200]}, start={"t": 0.0}, name="far")
    with pytest.raises(wb.NumericalError, match=r"step 0, batch 'far': the loss is inf at instance 1"):
        learner.fit(batch)
    assert learner.weights == {"w": 2.0}


def test_interrupt_keeps_completed_steps_and_learning_goes_on(ransac, t_loss):
    batches = [ransac_batch(k) for k in range(4)]

    def interrupting(step):
        if step == 6 and not interrupted:
            interrupted.append(step)
            raise KeyboardInterrupt
        return batches[step % 4]

    interrupted = []
    whole, stopped = ransac_learner(ransac, t_loss), ransac_learner(ransac, t_loss)
    whole.fit(batches, steps=10)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(interrupting, steps=10)
    assert stopped.steps == len(stopped.history) == 6
    stopped.fit(interrupting, steps=4)
    same(whole, stopped)


def test_undamped_learner_stops_at_a_singular_hessian(stiff, t_loss, spring):
    learner = spring_learner(spring, t_loss)
    with pytest.raises(wb.NumericalError, match=r"step 0.*singular"):
        learner.fit(Batch(data={"a": [1.0, 0.0], "z": 1.0}, targets={"mu": 3.0}, start={"t": 0.0}))
    assert learner.steps == 0


@pytest.mark.parametrize(
    "options, error, names",
    [
        ({"damping": -1.0}, wb.InputError, "damping"),
        ({"unconverged": "zer"}, wb.InputError, "'zer'.*'zero'"),
        ({"weights": {"w": [1.0]}}, wb.InputError, "w.*per-instance"),
        ({"optimiser": SGD({"q": 1.0})}, wb.NameMissingError, "'q'"),
        ({"dampin": 1.0}, wb.InputTypeError, "'dampin'.*did you mean 'damping'"),
        ({"optimiser": "sgd"}, wb.InputTypeError, "optimiser.*'sgd'"),
        ({"optimiser": SGD}, wb.InputTypeError, "optimiser.*SGD"),
    ],
)
def test_learners_that_cannot_be_are_refused(spring, t_loss, options, error, names):
    with pytest.raises(error, match=names):
        spring_learner(spring, t_loss, **options)


def test_loss_of_other_variables_is_refused(spring):
    u, mu = sp.symbols("u mu", real=True)
    with pytest.raises(wb.NameMissingError, match=r"reads u.*variables: t"):
        spring_learner(spring, Loss((u - mu) ** 2, variables=[u], targets=[mu]))
    with pytest.raises(wb.InputTypeError, match=r"wb\.Loss"):
        spring_learner(spring, lambda t: t)
    with pytest.raises(wb.InputTypeError, match=r"wb\.compile.*Energy"):
        spring_learner(spring.energy, Loss((u - mu) ** 2, variables=[u], targets=[mu]))


@pytest.mark.parametrize("size", [1, 2, 4, 400])
def test_targets_of_another_extent_than_the_minima_are_refused(quadratic, size):
    """A loss reads the minima by its own extents: it must never read past them."""
    n = sp.Symbol("n", integer=True, positive=True)
    y, truth = (sp.IndexedBase(name, shape=(n,)) for name in ("y", "truth"))
    learner = Learner(quadratic, wb.squared_error(y, truth), {"w": np.ones(2)}, SGD(0.1))
    batch = Batch(
        data={"H": np.eye(3), "C": np.ones((5, 2, 3))}, targets={"truth": np.ones(size)}, start={"y": np.zeros(3)}
    )
    with pytest.raises(wb.InputError, match=rf"y \(n,\).*\({size},\).*'quadratic'.*\(3,\)"):
        learner.fit(batch)
    assert learner.steps == 0


def test_loss_that_declares_a_variable_with_other_axes_is_refused(spring, quadratic):
    n = sp.Symbol("n", integer=True, positive=True)
    many, y, mu = sp.IndexedBase("t", shape=(n,)), sp.Symbol("y", real=True), sp.Symbol("mu", real=True)
    i = sp.Idx("i", n)
    with pytest.raises(wb.InputError, match=r"t with 1 axes.*with 0"):
        spring_learner(spring, Loss(sp.Sum((many[i] - mu) ** 2, i), variables=[many], targets=[mu]))
    with pytest.raises(wb.InputError, match=r"y with 0 axes.*with 1"):
        Learner(quadratic, Loss((y - mu) ** 2, variables=[y], targets=[mu]), {"w": np.ones(2)})


# ---------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("options", [{}, {"damping": 0.0}, {"unconverged": "use"}])
def test_resumed_run_has_the_bits_of_the_uninterrupted_one(ransac, t_loss, tmp_path, options):
    batches = [ransac_batch(k) for k in range(3)]
    whole, part = ransac_learner(ransac, t_loss, **options), ransac_learner(ransac, t_loss, **options)
    whole.fit(batches, steps=11)
    part.fit(batches, steps=5)
    part.save(tmp_path / "run.npz")
    resumed = Learner.load(tmp_path / "run.npz", ransac, t_loss)
    same(part, resumed)
    resumed.fit(batches, steps=6)
    same(whole, resumed)


def test_save_load_save_gives_the_same_bytes(ransac, t_loss, tmp_path):
    learner = ransac_learner(ransac, t_loss)
    learner.fit([ransac_batch(0)], steps=3)
    learner.save(tmp_path / "a")
    Learner.load(tmp_path / "a", ransac, t_loss).save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_logarithms_and_floors_survive_a_checkpoint(stiff, t_loss, tmp_path):
    for start in (1.0, Weight(1.0, scale="log")):
        batch = Batch(data={"z": [1.0, 2.0]}, targets={"mu": -1.0}, start={"t": 0.0})
        whole, part = (Learner(stiff, t_loss, weights={"stiffness": start}, optimiser=SGD(0.3)) for _ in range(2))
        whole.fit(batch, steps=30)
        part.fit(batch, steps=3)
        part.save(tmp_path / "run")
        resumed = Learner.load(tmp_path / "run", stiff, t_loss)
        resumed.fit(batch, steps=27)
        same(whole, resumed)


def test_generator_is_refused_after_a_checkpoint(ransac, t_loss, tmp_path):
    learner = ransac_learner(ransac, t_loss)
    learner.fit(iter(Reader()), steps=2)
    learner.save(tmp_path / "run")
    resumed = Learner.load(tmp_path / "run", ransac, t_loss)
    with pytest.raises(wb.InputError, match=r"generator cannot be brought to step 2"):
        resumed.fit(iter(Reader()), steps=2)
    generator = iter(Reader())
    resumed.fit(lambda step: next(generator), steps=2)
    assert resumed.steps == 4


def test_checkpoint_of_another_energy_says_what_differs(ransac, spring, t_loss, tmp_path):
    spring_learner(spring, t_loss).save(tmp_path / "run")
    with pytest.raises(wb.CheckpointError, match=r"energy 'spring'.*'ransac'.*differs.*exp"):
        Learner.load(tmp_path / "run", ransac, t_loss)
    t, mu = sp.symbols("t mu", real=True)
    with pytest.raises(wb.CheckpointError, match=r"loss 'loss'.*differs"):
        Learner.load(tmp_path / "run", spring, Loss((t - mu) ** 4, variables=[t], targets=[mu]))


def test_names_do_not_matter_to_a_checkpoint(spring, t_loss, tmp_path):
    spring_learner(spring, t_loss).save(tmp_path / "run")
    energy = spring.energy
    renamed = wb.compile(
        wb.Energy(energy.expression, variables=energy.variables, weights=energy.weights, data=energy.data, name="feder")
    )
    assert Learner.load(tmp_path / "run", renamed, t_loss).weights == {"w": 2.0}


def test_save_that_fails_leaves_the_learner_as_it_was(spring, t_loss, tmp_path):
    learner = spring_learner(spring, t_loss)
    learner.fit(spring_batch(), steps=2)
    with pytest.raises(wb.CheckpointError, match=r"cannot save"):
        learner.save(tmp_path / "absent" / "run")
    learner.fit(spring_batch(), steps=2)
    assert learner.steps == 4


def test_loss_whose_extents_only_the_variables_tell(quadratic):
    n = sp.Symbol("n", integer=True, positive=True)
    i, y = sp.Idx("i", n), sp.IndexedBase("y", shape=(n,))
    learner = Learner(
        quadratic,
        Loss(sp.Sum(y[i] ** 2, i), variables=[y]),
        weights={"w": [1.0, -2.0]},
        optimiser=SGD(0.1, momentum=0.5),
    )
    batch = Batch(data={"H": np.eye(2), "C": np.eye(2)}, start={"y": np.zeros(2)})
    history = learner.fit(batch, steps=80)
    assert history.loss[-1] < 1e-6 * history.loss[0]


def test_learner_survives_pickling(ransac, t_loss):
    learner = ransac_learner(ransac, t_loss)
    learner.optimiser = SGD({"sigma": 1e-4}, momentum=0.99)
    learner.fit([ransac_batch(0)], steps=3)
    copy = pickle.loads(pickle.dumps(learner))
    same(learner, copy)
    for one in (learner, copy):
        one.fit([ransac_batch(1)], steps=2)
    same(learner, copy)


def test_targets_with_a_batch_axis_of_one_are_shared(spring, t_loss):
    one, other = (spring_learner(spring, t_loss) for _ in range(2))
    z = np.array([1.0, 2.0, 3.0])
    one.fit(Batch(data={"a": 1.0, "z": z}, targets={"mu": [3.0]}, start={"t": 0.0}))
    other.fit(Batch(data={"a": 1.0, "z": z}, targets={"mu": 3.0}, start={"t": 0.0}))
    same(one, other)


def test_instance_that_is_not_finite_is_left_out_by_every_policy(spring, t_loss):
    batch = Batch(data={"a": 1.0, "z": [1.0, 2.0]}, targets={"mu": 3.0}, start={"t": [0.0, np.nan]})
    for policy in ("zero", "use"):
        learner = spring_learner(spring, t_loss, unconverged=policy)
        history = learner.fit(batch)
        assert history.unconverged.tolist() == [0.5]
        assert learner.weights["w"] == pytest.approx(2.0 + 0.1 * 0.5 * 2.0)
