"""Outputs of minima: values against NumPy, every derivative of the chain against differences of re-minimised points."""

import warnings

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given, settings
from hypothesis import strategies as st

n, M = sp.symbols("n M", integer=True, positive=True)
i, m, d = sp.Idx("i", n), sp.Idx("m", M), sp.Idx("d", 2)
x, c = sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("c", shape=(M,))
t, s = sp.symbols("t s", real=True)
sigma, sharpness, own = sp.symbols("sigma sharpness own", positive=True)
mu = sp.Symbol("mu", real=True)
T, P = sp.IndexedBase("t", shape=(M,)), sp.IndexedBase("P", shape=(2,))


def robust(variable, name, width=sigma, **options):
    formula = sp.Sum(wb.pseudo_huber((x[i] - variable) ** 2, width), i)
    return wb.compile(wb.Energy(formula, variables=[variable], weights=[width], data=[x], name=name), **options)


@pytest.fixture(scope="module")
def pair():
    """Two kernels that share the data and one weight; an output of both, a weight and a datum."""
    first = robust(t, "first")
    formula = sp.Sum(own * (x[i] - s) ** 2 + sigma * sp.cos(s - x[i]), i)
    second = wb.compile(wb.Energy(formula, variables=[s], weights=[own, sigma], data=[x], name="second"))
    z = sp.Symbol("z", real=True)
    return wb.Output(
        {P[0]: t * sharpness + z * s**2, P[1]: sp.exp(-((t - s) ** 2) / own)},
        minima=[first, second],
        weights=[sharpness, own],
        data=[z],
        name="pair",
    )


@pytest.fixture(scope="module")
def soft():
    """The soft average of a family of minima, by their energies' stand-in: the spread of the data around each."""
    formula = sp.Sum(wb.pseudo_huber((x[i] + c[m] - t) ** 2, sigma), i) + (t - c[m]) ** 2
    kernel = wb.compile(wb.Energy(formula, variables=[t], weights=[sigma, c], data=[x], over=[m], name="family"))
    k, a = sp.Idx("k", M), sp.IndexedBase("a", shape=(M,))
    mean = sp.Symbol("mean", real=True)
    return wb.Output(
        {mean: sp.Sum(a[m] * T[m], m) / sp.Sum(a[k], k)},
        minima=kernel,
        weights=[sharpness, c],
        where={a[m]: sp.exp(-sharpness * (T[m] - c[m]) ** 2)},
        name="soft",
    )


def draws(seed, batch):
    random = np.random.default_rng(seed)
    w = {"sigma": random.uniform(0.5, 2), "sharpness": random.uniform(0.5, 2), "own": random.uniform(1, 2)}
    data = {"x": random.standard_normal((batch, 5)), "z": random.standard_normal(batch)}
    return random, w, data


def minimised(output, w, data):
    start = {name: 0.0 for kernel in output.kernels for name in kernel.variables.names}
    return wb.minimise(output, w, data, start=start, gtol=1e-12)


def differences(function, w, h=1e-5):
    """Central differences of function(w) in every number of every weight."""
    found = {}
    for name, value in w.items():
        value = np.asarray(value, float)
        found[name] = np.zeros((*value.shape, *np.shape(function(w))))
        for place in np.ndindex(value.shape):
            step = np.zeros(value.shape)
            step[place] = h
            found[name][place] = (function({**w, name: value + step}) - function({**w, name: value - step})) / (2 * h)
    return found


def test_values_are_those_of_numpy(pair, soft):
    _, w, data = draws(0, 3)
    solution = minimised(pair, w, data)
    t_, s_ = solution.minima["t"], solution.minima["s"]
    expected = np.stack([t_ * w["sharpness"] + data["z"] * s_**2, np.exp(-((t_ - s_) ** 2) / w["own"])], axis=1)
    np.testing.assert_allclose(solution.outputs["P"], expected, rtol=1e-14)
    assert solution.converged.all() and set(solution.variables) == {"t", "s", "P"}
    weights = {"sigma": 1.0, "sharpness": 2.0, "c": [0.0, 1.0, -1.0]}
    solution = wb.minimise(soft, weights, {"x": data["x"]}, start={"t": 0.0})
    a = np.exp(-2 * (solution.minima["t"] - weights["c"]) ** 2)
    mean = (a * solution.minima["t"]).sum(1) / a.sum(1)
    np.testing.assert_allclose(solution.outputs["mean"], mean, rtol=1e-13)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_derivative_of_the_chain_is_that_of_differences(pair, seed, batch):
    random, w, data = draws(seed, batch)
    v, u = random.standard_normal((batch, 2)), random.standard_normal(batch)

    def loss(weights):
        solution = minimised(pair, weights, data)
        return (solution.outputs["P"] * v).sum() + (solution.minima["t"] * u).sum()

    gradient = wb.implicit_gradient(pair, minimised(pair, w, data), {"P": v, "t": u}, damping=0.0)
    expected = differences(loss, w)
    assert set(gradient) == set(w)
    for name in w:
        assert gradient[name] == pytest.approx(expected[name], rel=1e-6, abs=1e-7)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_derivative_through_a_family_is_that_of_differences(soft, seed):
    random = np.random.default_rng(seed)
    w = {"sigma": 1.0 + random.random(), "sharpness": 1.0, "c": random.standard_normal(3)}
    data, v = {"x": random.standard_normal((4, 5))}, random.standard_normal(4)
    solution = minimised(soft, w, data)
    gradient = wb.implicit_gradient(soft, solution, {"mean": v}, damping=0.0)
    expected = differences(lambda weights: (minimised(soft, weights, data).outputs["mean"] * v).sum(), w)
    for name in w:
        np.testing.assert_allclose(gradient[name], expected[name], rtol=1e-6, atol=1e-7)


def test_jacobian_is_that_of_differences(pair, soft):
    _, w, data = draws(5, 2)
    jacobian = wb.implicit_jacobian(pair, minimised(pair, w, data), damping=0.0)
    expected = differences(lambda weights: minimised(pair, weights, data).outputs["P"], {k: w[k] for k in pair.weights})
    np.testing.assert_allclose(jacobian, np.stack(list(expected.values()), axis=-1), rtol=1e-6, atol=1e-8)
    w = {"sigma": 1.5, "c": np.array([0.1, -0.4]), "sharpness": 0.7}
    jacobian = wb.implicit_jacobian(soft, minimised(soft, w, {"x": data["x"][0]}), damping=0.0)
    expected = differences(lambda weights: minimised(soft, weights, {"x": data["x"][0]}).outputs["mean"], w)
    flat = np.concatenate([np.ravel(expected[name]) for name in soft.weights])
    np.testing.assert_allclose(jacobian, flat[None], rtol=1e-6, atol=1e-8)


def test_damping_is_that_of_the_minima(pair):
    """The direct part does not know of damping: at an infinite one only it is left."""
    random, w, data = draws(3, 4)
    solution, v = minimised(pair, w, data), random.standard_normal((4, 2))
    gradient = wb.implicit_gradient(pair, solution, {"P": v}, damping=1e12)
    _, direct = pair.pull({"P": v}, solution.minima, w, data)
    assert gradient["sigma"] == pytest.approx(0.0, abs=1e-9)
    assert gradient["sharpness"] == pytest.approx(direct["sharpness"].sum(), rel=1e-9)


def test_minima_without_a_batch_are_shared_by_all_instances():
    z = sp.Symbol("z", real=True)
    q = sp.Symbol("q", real=True)
    output = wb.Output({q: t * z}, minima=robust(t, "one", backend="reference"), data=[z])
    data = {"x": [0.0, 1.0, 5.0], "z": [1.0, 2.0, 3.0]}
    solution = wb.minimise(output, {"sigma": 1.0}, data, start={"t": 0.0})
    assert solution.outputs["q"].shape == solution.variables["t"].shape == (3,)
    gradient = wb.implicit_gradient(output, solution, {"q": [1.0, 1.0, 1.0]}, damping=0.0)
    single = wb.implicit_gradient(output.kernels[0], solution.solutions[0], {"t": 6.0}, damping=0.0)
    assert gradient["sigma"] == pytest.approx(single["sigma"], rel=1e-12)


# ---------------------------------------------------------------------------------------------- learning


def training_loss(learner, batch, loss_of):
    """The loss of a step, as a function of weights, re-minimised."""
    return lambda weights: loss_of(learner._model.minimise(weights, batch, {"gtol": 1e-12}), weights)


def test_the_whole_training_loss_is_differentiated(pair):
    """Losses of outputs, minima, targets and weights, with a regulariser, against differences of the whole."""
    loss = wb.Loss(
        (P[0] - mu) ** 2 + sharpness * P[1] ** 2 + own * t,
        variables=[P, t],
        targets=[mu],
        weights=[sharpness, own],
        regulariser=sharpness**2 + sigma * own,
    )
    random, w, data = draws(11, 70)  # more than one block of instances
    batch = wb.Batch(data, {"mu": random.standard_normal(70)}, start={"t": 0.0, "s": 0.0})
    learner = wb.Learner(pair, loss, w, wb.SGD(1e-3, momentum=0.0), damping=0.0, gtol=1e-12)

    def whole(minima, weights):
        p, mean = minima.outputs["P"], batch.targets["mu"]
        each = (p[:, 0] - mean) ** 2 + weights["sharpness"] * p[:, 1] ** 2 + weights["own"] * minima.minima["t"]
        return each.mean() + weights["sharpness"] ** 2 + weights["sigma"] * weights["own"]

    value = training_loss(learner, batch, whole)
    history = learner.fit(batch, 1)
    assert history.loss[0] == pytest.approx(value(w), rel=1e-12)
    expected = differences(value, w)
    for name in w:
        assert (w[name] - learner.weights[name]) / 1e-3 == pytest.approx(expected[name], rel=1e-6, abs=1e-7)


def test_a_loss_of_the_energy_of_the_minimum(soft):
    family = soft.kernels[0]
    E, mean = sp.IndexedBase("E", shape=(M,)), sp.Symbol("mean", real=True)
    loss = wb.Loss(sp.Sum(E[m] ** 2, m) + mean**2, variables=[mean], energy=E)
    random = np.random.default_rng(2)
    w = {"sigma": 1.2, "sharpness": 0.8, "c": random.standard_normal(2)}
    batch = wb.Batch({"x": random.standard_normal((3, 5))}, start={"t": 0.0})
    learner = wb.Learner(soft, loss, w, wb.SGD(1e-4, momentum=0.0), damping=0.0, gtol=1e-12)

    def whole(minima, weights):
        energies = family.value({"t": minima.minima["t"]}, {k: weights[k] for k in ("sigma", "c")}, batch.data)
        return ((energies**2).sum(1) + minima.outputs["mean"] ** 2).mean()

    value = training_loss(learner, batch, whole)
    assert learner.fit(batch, 1).loss[0] == pytest.approx(value(w), rel=1e-12)
    expected = differences(value, w)
    for name in w:
        np.testing.assert_allclose((w[name] - learner.weights[name]) / 1e-4, expected[name], rtol=1e-5, atol=1e-6)


def test_a_learner_of_an_output_learns_saves_and_goes_on(pair, tmp_path):
    loss = wb.Loss((P[0] - mu) ** 2, variables=[P], targets=[mu])
    random, w, data = draws(4, 6)
    batches = [wb.Batch(data, {"mu": random.standard_normal(6)}, start={"t": 0.0, "s": 0.0})]
    whole = wb.Learner(pair, loss, w, wb.SGD(1e-2))
    whole.fit(batches, 10)
    half = wb.Learner(pair, loss, w, wb.SGD(1e-2))
    half.fit(batches, 5)
    half.save(tmp_path / "half.npz")
    other = wb.Learner.load(tmp_path / "half.npz", pair, loss)
    other.fit(batches, 5)
    assert other.weights == whole.weights and whole.history.loss[-1] < whole.history.loss[0]
    assert set(whole.predict(data, start={"t": 0.0, "s": 0.0})) == {"t", "s", "P"}
    with pytest.raises(wb.CheckpointError, match="output"):
        wb.Learner.load(tmp_path / "half.npz", pair.kernels[0], wb.Loss(t**2, variables=[t]))


def test_instances_that_did_not_converge_add_nothing(pair):
    loss = wb.Loss((P[0] - mu) ** 2, variables=[P], targets=[mu])
    random, w, data = draws(9, 3)
    good = wb.Batch(data, {"mu": random.standard_normal(3)}, start={"t": 0.0, "s": 0.0})
    start = {"t": [0.0, np.inf, 0.0], "s": 0.0}
    learners = [wb.Learner(pair, loss, w, wb.SGD(1e-2, momentum=0.0)) for _ in range(2)]
    learners[0].fit(wb.Batch(data, good.targets, start=start), 1)
    some = {"x": data["x"][[0, 2]], "z": data["z"][[0, 2]]}
    learners[1].fit(wb.Batch(some, {"mu": good.targets["mu"][[0, 2]]}, start={"t": 0.0, "s": 0.0}), 1)
    for name in w:  # the mean of the gradient is over all three, of the loss over those that count
        steps = [w[name] - learner.weights[name] for learner in learners]
        assert 3 * steps[0] == pytest.approx(2 * steps[1], rel=1e-9, abs=1e-12)
    assert learners[0].history.loss[0] == pytest.approx(learners[1].history.loss[0], rel=1e-12)
    assert learners[0].history.unconverged[0] == pytest.approx(1 / 6)


def test_a_minimum_that_instances_share_counts_those_that_converged():
    y = sp.IndexedBase("y", shape=(n,))
    formula = sp.Sum(own * (y[i] - s) ** 2 + sp.cos(s), i)
    shared = wb.compile(wb.Energy(formula, variables=[s], weights=[own], data=[y], name="shared"))
    product = wb.Output({mu: t * s}, minima=[robust(t, "each"), shared], name="product")
    loss = wb.Loss((mu - 1) ** 2, variables=[mu])
    random, w, data = draws(5, 3)
    w, data = {"sigma": w["sigma"], "own": w["own"]}, {"x": data["x"], "y": random.standard_normal(4)}
    some = {"x": data["x"][[0, 2]], "y": data["y"]}
    learners = [wb.Learner(product, loss, w, wb.SGD(1e-2, momentum=0.0)) for _ in range(2)]
    learners[0].fit(wb.Batch(data, start={"t": [0.0, np.inf, 0.0], "s": 0.0}), 1)
    learners[1].fit(wb.Batch(some, start={"t": 0.0, "s": 0.0}), 1)
    for name in w:
        steps = [w[name] - learner.weights[name] for learner in learners]
        assert 3 * steps[0] == pytest.approx(2 * steps[1], rel=1e-9) and steps[0] != 0.0


# ---------------------------------------------------------------------------------------------- declaring


@pytest.mark.parametrize(
    "declared, words",
    [
        (lambda k: wb.Output({P[0]: t}, minima=k), "exactly once everywhere"),
        (lambda k: wb.Output({P[0]: t, P[2]: t}, minima=k), "exactly once everywhere"),
        (lambda k: wb.Output({P[sp.Idx("j", (0, 0))]: t}, minima=k), "over the whole axis"),
        (lambda k: wb.Output({t: t**2}, minima=k), "t is the name of a variable"),
        (lambda k: wb.Output({mu: sigma}, minima=k, weights=[sigma]), "reads no variable"),
        (lambda k: wb.Output({mu: T[0]}, minima=k), "reads t with 1 axes; the minima have 0"),
        (lambda k: wb.Output({mu: t}, minima=[k, k]), "two kernels have a variable t"),
        (lambda k: wb.Output({mu: t}, minima=[]), "minima is empty"),
        (lambda k: wb.Output({mu: t + sharpness}, minima=k), "sharpness"),
        (lambda k: wb.Output({mu: t}, minima=k, data=[t]), "t is a variable of a kernel"),
        (lambda k: wb.Output({}, minima=k), "give a dict"),
        (lambda k: wb.Output({mu: t}, minima=k.energy), "must be kernels"),
    ],
)
def test_what_is_declared_wrongly_is_refused(declared, words):
    kernel = robust(t, "one", backend="reference")
    with pytest.raises(wb.WibergError, match=words):
        declared(kernel)


def test_arguments_that_do_not_fit_are_refused_by_name(pair):
    _, w, data = draws(1, 2)
    with pytest.raises(wb.NameMissingError, match=r"unknown weight 'sgima'.*sigma"):
        wb.minimise(pair, {**w, "sgima": 1.0}, data, start={"t": 0.0, "s": 0.0})
    solution = minimised(pair, w, data)
    with pytest.raises(wb.NameMissingError, match="unknown name 'Q'"):
        wb.implicit_gradient(pair, solution, {"Q": 1.0})
    with pytest.raises(wb.InputError, match=r"loss_gradient\['P'\] must have shape \(2, 2\)"):
        wb.implicit_gradient(pair, solution, {"P": 1.0})
    with pytest.raises(wb.InputError, match="not one of output 'pair'"):
        wb.implicit_gradient(pair, solution.solutions[0], {"P": 1.0})
    loss = wb.Loss(sp.Symbol("q") ** 2, variables=[sp.Symbol("q")])
    with pytest.raises(wb.NameMissingError, match="reads q, which is no result of the output"):
        wb.Learner(pair, loss, w)


@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=5)
def test_both_gradients_in_one_pass_are_those_of_two(pair, seed):
    _, w, data = draws(seed, 3)
    own, at = {n: w[n] for n in ("sharpness", "own")}, np.random.default_rng(seed).normal(size=(2, 3))
    given = {"z": data["z"], "cotangent of P": np.ones(2)}
    point = {"t": at[0], "s": at[1]}
    kernel = pair.pull_kernel
    by_variables, by_weights = kernel.gradients(point, own, given)
    np.testing.assert_allclose(by_variables, kernel.gradient(point, own, given), rtol=1e-12)
    np.testing.assert_allclose(by_weights, kernel.weight_gradient(point, own, given), rtol=1e-12)


def test_an_instance_that_is_not_finite_adds_nothing_directly_either():
    n = sp.Symbol("n", integer=True, positive=True)
    i, x, b = sp.Idx("i", n), sp.IndexedBase("x", shape=(n,)), sp.Symbol("b", positive=True)
    t, s, mean = sp.Symbol("t", real=True), sp.Symbol("s", positive=True), sp.Symbol("mean", real=True)
    each = wb.Energy(sp.Sum(wb.pseudo_huber((x[i] - t) ** 2, s), i), variables=[t], weights=[s], data=[x])
    output = wb.Output({mean: b * t**2}, minima=wb.compile(each, backend="reference"), weights=[b])
    rows = np.array([[0.0, 1.0, 5.0], [np.nan, 1.0, 2.0], [3.0, 4.0, 9.0]])
    weights, start = {"s": 0.7, "b": 2.0}, {"t": 0.5}
    for method in ("irls", "trust-region"):
        options = {"start": start, "check": False, "method": method}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bad = wb.minimise(output, weights, {"x": rows}, **options)
            found = wb.implicit_gradient(output, bad, {"mean": np.ones(3)}, damping=0.0)
        good = wb.minimise(output, weights, {"x": rows[[0, 2]]}, **options)
        wanted = wb.implicit_gradient(output, good, {"mean": np.ones(2)}, damping=0.0)
        assert found == pytest.approx(wanted, rel=1e-12)
