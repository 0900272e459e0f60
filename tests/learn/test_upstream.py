"""Derivatives by data, against differences of re-minimised points; and a loop with a function upstream, learnt."""

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.learn.derivative.upstream import minima_gradients

n, M = sp.symbols("n M", integer=True, positive=True)
i, m, q = sp.Idx("i", n), sp.Idx("m", M), sp.Idx("q", (0, n - 2))
t, s = sp.symbols("t s", real=True)
sigma, a = sp.symbols("sigma a", positive=True)
x, c, y = sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("c", shape=(M,)), sp.IndexedBase("y", shape=(n,))


def differences(function, arrays, name, h=1e-5):
    """Central differences of function(arrays) in every number of one of them."""
    value = np.asarray(arrays[name], float)
    found = np.zeros(value.shape)
    for place in np.ndindex(value.shape):
        step = np.zeros(value.shape)
        step[place] = h
        found[place] = (function({**arrays, name: value + step}) - function({**arrays, name: value - step})) / (2 * h)
    return found


def check(kernel, w, data, slopes, start, only=None, tolerance=1e-6, **options):
    """`implicit_data_gradient` is the derivative of sum(slopes . y*) by the data, and by the weights too."""

    def minimised(w, data):
        return wb.minimise(kernel, w, data, start=start, gtol=1e-11, **options)

    def loss(w, data):
        variables = minimised(w, data).variables
        return sum(np.sum(slope * variables[name]) for name, slope in slopes.items())

    solution = minimised(w, data)
    gradient = wb.implicit_data_gradient(kernel, solution, slopes, damping=0.0)
    for name in only or gradient:
        expected = differences(lambda changed: loss(w, changed), data, name)
        np.testing.assert_allclose(gradient[name], expected, rtol=tolerance, atol=tolerance)
    for damping in (0.0, 0.1):
        by_weights, by_data = minima_gradients(kernel, solution, slopes, damping, "zero", who="test")
        alone = wb.implicit_gradient(kernel, solution, slopes, damping)
        assert alone.keys() == by_weights.keys()
        for name, array in alone.items():
            np.testing.assert_allclose(by_weights[name], array, rtol=1e-12, atol=1e-14)
        for name, array in wb.implicit_data_gradient(kernel, solution, slopes, damping).items():
            np.testing.assert_array_equal(by_data[name], array)
    return gradient


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), batch=st.sampled_from([None, 1, 3]), shared=st.booleans())
def test_derivatives_by_data_are_those_of_the_minimum(robust_line, seed, batch, shared):
    random = np.random.default_rng(seed)
    lead = () if batch is None else (batch,)
    data = {"x": random.uniform(-1, 1, (6,) if shared else (*lead, 6)), "y": random.standard_normal((*lead, 6))}
    w = {"scale": random.uniform(0.5, 2.0, lead), "bias": random.uniform(-0.3, 0.3)}
    slopes = {"slope": random.standard_normal(lead), "offset": random.standard_normal(lead)}
    gradient = check(robust_line, w, data, slopes, {"slope": 0.0, "offset": 0.0})
    assert gradient["x"].shape == data["x"].shape and gradient["y"].shape == data["y"].shape


def test_of_a_quadratic_energy_the_hessian_may_be_data(quadratic):
    random = np.random.default_rng(1)
    root = random.standard_normal((3, 4, 4))
    hessian = root @ root.transpose(0, 2, 1) + np.eye(4)
    data = {"H": hessian, "C": random.standard_normal((2, 4))}
    w = {"w": random.standard_normal(2)}
    check(quadratic, w, data, {"y": random.standard_normal((3, 4))}, {"y": np.zeros(4)}, only=["C", "H"])


def test_minimum_norm_solutions_turn_with_the_data():
    """y* = H^+ b of a Hessian of rank 1, v v': its null space turns with v."""
    v, b = sp.IndexedBase("v", shape=(n,)), sp.Symbol("b", real=True)
    energy = wb.Energy((sp.Sum(v[i] * y[i], i) - b * a) ** 2 / 2, variables=[y], weights=[a], data=[v, b])
    kernel, random = wb.compile(energy), np.random.default_rng(2)
    data, w = {"v": random.uniform(0.5, 1.5, (2, 3)), "b": np.array([1.0, -2.0])}, {"a": 1.5}
    slopes, start = {"y": random.standard_normal((2, 3))}, {"y": np.zeros(3)}

    def loss(changed):
        return np.sum(slopes["y"] * wb.minimise(kernel, w, changed, start=start).variables["y"])

    solution = wb.minimise(kernel, w, data, start=start)
    gradient = wb.implicit_data_gradient(kernel, solution, slopes, damping=1e-7)
    for name in data:
        np.testing.assert_allclose(gradient[name], differences(loss, data, name), rtol=1e-5, atol=1e-6)


def test_many_unknowns_with_a_sparse_hessian():
    chain = sp.Sum((y[i] - x[i]) ** 2, i) + a * sp.Sum(wb.pseudo_huber((y[q + 1] - y[q]) ** 2, sigma), q)
    kernel = wb.compile(wb.Energy(chain, variables=[y], weights=[a, sigma], data=[x], name="chain"))
    random, size = np.random.default_rng(3), 230
    data, w = {"x": np.cumsum(random.standard_normal((2, size)), axis=1)}, {"a": 2.0, "sigma": 0.7}
    slopes = {"y": random.standard_normal((2, size))}
    solution = wb.minimise(kernel, w, data, start={"y": np.zeros(size)}, gtol=1e-11)
    gradient = wb.implicit_data_gradient(kernel, solution, slopes, damping=0.0)["x"]
    for place in [(0, 0), (1, 77), (0, size - 1)]:
        moved = []
        for sign in (1, -1):
            step = data["x"].copy()
            step[place] += sign * 1e-4
            moved.append(wb.minimise(kernel, w, {"x": step}, start=solution, gtol=1e-11).variables["y"])
        expected = np.sum(slopes["y"] * (moved[0] - moved[1])) / 2e-4
        assert gradient[place] == pytest.approx(expected, rel=1e-5)


def test_members_of_a_family_are_summed():
    formula = sp.Sum(wb.pseudo_huber((x[i] + c[m] - t) ** 2, sigma), i) + (t - c[m]) ** 2
    kernel = wb.compile(wb.Energy(formula, variables=[t], weights=[sigma], data=[x, c], over=[m], name="family"))
    random = np.random.default_rng(4)
    data = {"x": random.standard_normal((70, 4)), "c": random.standard_normal(3)}
    data["x"] = data["x"][:5]
    check(kernel, {"sigma": 0.8}, data, {"t": random.standard_normal((5, 3))}, {"t": 0.0})


def test_variables_that_a_bound_holds_do_not_move(robust_line):
    random = np.random.default_rng(5)
    data = {"x": random.uniform(-1, 1, (4, 6)), "y": random.standard_normal((4, 6)) + 1.0}
    slopes, w = {"slope": np.ones(4), "offset": np.zeros(4)}, {"scale": 1.0, "bias": 0.1}
    start = {"slope": 0.0, "offset": 0.0}
    gradient = check(robust_line, w, data, slopes, start, bounds={"slope": (-0.1, 0.1)})
    held = wb.minimise(robust_line, w, data, start=start, bounds={"slope": (-0.1, 0.1)}).active["slope"]
    assert held.any()
    assert (gradient["y"][held] == 0.0).all()


@pytest.mark.parametrize("batch", [None, 4])
def test_an_output_has_its_own_data_too(batch):
    z, mean = sp.symbols("z mean", real=True)
    first = wb.compile(
        wb.Energy(
            sp.Sum(wb.pseudo_huber((x[i] - t) ** 2, sigma), i), variables=[t], weights=[sigma], data=[x], name="first"
        )
    )
    second = wb.compile(
        wb.Energy(
            sp.Sum(a * (x[i] - s) ** 2 + sp.cos(s - x[i]) / 4, i), variables=[s], weights=[a], data=[x], name="second"
        )
    )
    output = wb.Output({mean: t * a + z * s**2}, minima=[first, second], weights=[a], data=[z], name="output")
    random, lead = np.random.default_rng(6), () if batch is None else (batch,)
    data = {"x": random.standard_normal((*lead, 5)), "z": 0.7}
    w, slopes = {"sigma": 0.9, "a": 1.3}, {"mean": random.standard_normal(lead), "s": random.standard_normal(lead)}
    gradient = check(output, w, data, slopes, {"t": 0.0, "s": 0.0})
    assert gradient.keys() == {"x", "z"}


def test_integer_data_are_left_out_and_errors_name_the_function(ransac):
    solution = wb.minimise(ransac, {"sigma": 2.0}, {"x": [0.0, 0.1, 3.0]})
    with pytest.raises(wb.InputError, match=r"implicit_data_gradient: .*must have shape \(\)"):
        wb.implicit_data_gradient(ransac, solution, {"t": [1.0, 2.0]})
    with pytest.raises(wb.NameMissingError, match=r"implicit_data_gradient: .*'u'"):
        wb.implicit_data_gradient(ransac, solution, {"u": 1.0})
    e = sp.IndexedBase("e", shape=(n,), integer=True)
    kernel = wb.compile(wb.Energy(sp.Sum((x[e[i]] - t) ** 2, i), variables=[t], data=[x, e]))
    solution = wb.minimise(kernel, None, {"x": [1.0, 2.0, 6.0], "e": [2, 2, 0]}, start={"t": 0.0})
    gradient = wb.implicit_data_gradient(kernel, solution, {"t": 3.0}, damping=0.0)
    assert gradient.keys() == {"x"}
    np.testing.assert_allclose(gradient["x"], [1.0, 0.0, 2.0])


def test_the_same_bits_for_any_number_of_threads_and_in_any_batch(robust_line):
    random = np.random.default_rng(7)
    data = {"x": random.uniform(-1, 1, (5000, 6)), "y": random.standard_normal((5000, 6))}
    w, start = {"scale": 1.0, "bias": 0.1}, {"slope": 0.0, "offset": 0.0}
    slopes = {"slope": random.standard_normal(5000), "offset": random.standard_normal(5000)}

    def gradient(rows):
        own = {name: array[rows] for name, array in data.items()}
        solution = wb.minimise(robust_line, w, own, start=start)
        return wb.implicit_data_gradient(robust_line, solution, {name: v[rows] for name, v in slopes.items()})

    whole = gradient(slice(None))
    try:
        wb.set_threads(1)
        np.testing.assert_array_equal(gradient(slice(None))["x"], whole["x"])
    finally:
        wb.set_threads(None)
    order = random.permutation(5000)[:33]
    np.testing.assert_array_equal(gradient(order)["x"], whole["x"][order])


def test_instances_that_did_not_converge_count_as_asked(spring):
    data = {"a": [1.0, -1.0], "z": [2.0, 2.0]}
    solution = wb.minimise(spring, {"w": 1.0}, data, start={"t": 0.5}, max_iterations=20)
    with pytest.warns(wb.UnconvergedWarning, match="implicit_data_gradient: 1 of 2"):
        gradient = wb.implicit_data_gradient(spring, solution, {"t": [1.0, 1.0]})
    assert gradient["z"][1] == 0.0 and gradient["z"][0] == pytest.approx(1 / 1.1)
    assert np.isnan(wb.implicit_data_gradient(spring, solution, {"t": [1.0, 1.0]}, unconverged="nan")["z"][1])
    with pytest.raises(wb.NumericalError, match="implicit_data_gradient"):
        wb.implicit_data_gradient(spring, solution, {"t": [1.0, 1.0]}, unconverged="raise")


# ---------------------------------------------------------------------------------------------- a function upstream


def confidences(theta, change):
    """The stub of the paper: log-linear in the change of scale, of each instance; and its pull-back."""
    value = np.exp(theta[0] + theta[1] * change)

    def pull_back(slope):
        return np.array([np.sum(slope * value), np.sum(slope * value * change)])

    return value, pull_back


def upstream_problem(count):
    """Measurements in twos: the second is the worse, the larger the change of scale."""
    random = np.random.default_rng(8)
    truth, change = random.standard_normal(count), random.uniform(0, 1.5, count)
    pairs = truth[:, None] + random.standard_normal((count, 2)) * np.stack([np.ones(count), np.exp(change)], axis=1)
    pair, confidence = sp.IndexedBase("x", shape=(2,)), sp.Symbol("confidence", positive=True)
    kernel = wb.compile(
        wb.Energy(
            (t - pair[0]) ** 2 + confidence * (t - pair[1]) ** 2, variables=[t], weights=[confidence], data=[pair]
        )
    )
    return kernel, truth, change, {"x": pairs}


def mean_loss(kernel, truth, change, data, theta, damping=0.0):
    value, pull_back = confidences(theta, change)
    solution = wb.minimise(kernel, {"confidence": value}, data, start={"t": 0.0})
    error = solution.variables["t"] - truth
    slopes = {"t": 2 * error / len(truth)}
    gradient = wb.implicit_gradient(kernel, solution, slopes, damping)
    return np.mean(error**2), pull_back(gradient["confidence"])


def test_gradients_flow_back_to_a_function_upstream():
    problem = upstream_problem(200)
    theta = {"theta": np.array([0.1, -0.2])}
    expected = differences(lambda changed: mean_loss(*problem, changed["theta"])[0], theta, "theta")
    np.testing.assert_allclose(mean_loss(*problem, theta["theta"])[1], expected, rtol=1e-6)


def test_a_function_upstream_is_learnt():
    problem = upstream_problem(4000)
    theta = np.zeros(2)
    first, _ = mean_loss(*problem, theta)
    for _ in range(500):
        loss, gradient = mean_loss(*problem, theta, damping=0.1)
        theta = theta - gradient
    assert loss < first / 2
    np.testing.assert_allclose(theta, [0.0, -2.0], atol=0.25)  # the ratio of variances is exp(-2 change)


@pytest.mark.parametrize("shared", [True, False])
def test_an_instance_that_is_not_finite_spoils_no_other(robust_line, shared):
    random = np.random.default_rng(9)
    data = {"x": random.uniform(-1, 1, (6,) if shared else (3, 6)), "y": random.standard_normal((3, 6))}
    w, start = {"scale": 1.0, "bias": 0.1}, {"slope": 0.0, "offset": 0.0}
    slopes = {"slope": np.ones(3), "offset": np.ones(3)}
    data["y"][1, 2] = np.nan
    solution = wb.minimise(robust_line, w, data, start=start, check=False)
    with pytest.warns(wb.UnconvergedWarning, match=r"1 of 3 instances did not converge \(not finite 1"):
        gradient = wb.implicit_data_gradient(robust_line, solution, slopes)
    rest = {name: array if array.ndim == 1 else array[[0, 2]] for name, array in data.items()}
    solution = wb.minimise(robust_line, w, rest, start=start)
    alone = wb.implicit_data_gradient(robust_line, solution, {name: np.ones(2) for name in slopes})
    np.testing.assert_array_equal(gradient["y"], np.insert(alone["y"], 1, 0.0, axis=0))
    expected = alone["x"] if shared else np.insert(alone["x"], 1, 0.0, axis=0)
    np.testing.assert_allclose(gradient["x"], expected, rtol=1e-14)
