"""The derivative through reweightings against complex steps through a loop in NumPy, and against the implicit one."""

from itertools import pairwise

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given, settings
from hypothesis import strategies as st

n, m = sp.symbols("n m", integer=True, positive=True)
i, k = sp.Idx("i", n), sp.Idx("k", m)
y, v = sp.IndexedBase("y", shape=(m,)), sp.IndexedBase("v", shape=(n,))
b, A = sp.IndexedBase("b", shape=(n,)), sp.IndexedBase("A", shape=(n, m))
delta, ridge = sp.symbols("delta ridge", positive=True)
a, c, x = sp.symbols("a c x", real=True)

PENALTIES = {
    "pseudo_huber": (wb.pseudo_huber, lambda r2, s: 1 / np.sqrt(1 + r2 / s**2)),
    "cauchy": (wb.cauchy, lambda r2, s: 1 / (1 + r2 / s**2)),
    "geman_mcclure": (wb.geman_mcclure, lambda r2, s: 1 / (1 + r2 / s**2) ** 2),
    "welsch": (wb.welsch, lambda r2, s: np.exp(-r2 / s**2)),
}


@pytest.fixture(scope="module")
def kernels():
    """Robust regression; v, a weight for each row, is learnt like the scale and the ridge."""
    residual = sp.Sum(A[i, k] * y[k], k) - b[i]
    prior = ridge / 2 * sp.Sum(y[k] ** 2, k)
    return {
        name: wb.compile(
            wb.Energy(
                sp.Sum(v[i] ** 2 * rho(residual**2, delta), i) + prior,
                variables=[y],
                weights=[delta, ridge, v],
                data=[A, b],
                name=name,
            )
        )
        for name, (rho, _) in PENALTIES.items()
    }


def rows(seed, batch=(), count=12, unknowns=2):
    rng = np.random.default_rng(seed)
    matrix, truth = rng.normal(size=(*batch, count, unknowns)), rng.normal(size=(*batch, unknowns))
    right = np.einsum("...ij,...j->...i", matrix, truth) + 0.1 * rng.normal(size=(*batch, count))
    right += (rng.random(right.shape) < 0.3) * rng.normal(0, 5, right.shape)
    return {"A": matrix, "b": right}


def weights_of(seed, batch=()):
    rng = np.random.default_rng(seed)
    numbers = rng.uniform(0.5, 2, (*batch, 2)), rng.uniform(0.5, 1.5, (*batch, 12))
    return {"delta": numbers[0][..., 0], "ridge": 0.1 * numbers[0][..., 1], "v": numbers[1]}


def by_hand(penalty, data, weights, start, reweightings):
    """The textbook's loop, in complex numbers."""
    weight, point = PENALTIES[penalty][1], np.array(start, complex)
    for _ in range(reweightings):
        residual = data["A"] @ point - data["b"]
        scaled = (weights["v"] ** 2 * weight(residual**2, weights["delta"]))[:, None] * data["A"]
        normal = data["A"].T @ scaled + weights["ridge"] * np.eye(len(point))
        point = np.linalg.solve(normal, scaled.T @ data["b"])
    return point


def complex_steps(penalty, data, weights, start, reweightings, slope):
    """dl/dw and dl/dstart of the loop."""
    h, found = 1e-30, {}
    for name, number in weights.items():
        derivative = np.zeros(np.shape(number))
        for place in np.ndindex(np.shape(number)):
            moved = {s: np.array(w, complex) for s, w in weights.items()}
            moved[name][place] += 1j * h
            derivative[place] = slope @ by_hand(penalty, data, moved, start, reweightings).imag / h
        found[name] = derivative
    columns = [
        by_hand(penalty, data, weights, start + 1j * h * direction, reweightings).imag / h
        for direction in np.eye(len(start))
    ]
    return found, np.array(columns) @ slope


seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("penalty", PENALTIES)
@settings(max_examples=15, deadline=None)
@given(seed=seeds, reweightings=st.integers(1, 7))
def test_the_derivative_of_a_number_of_reweightings(kernels, penalty, seed, reweightings):
    kernel, data, weights = kernels[penalty], rows(seed), weights_of(seed)
    rng = np.random.default_rng(seed + 1)
    start, slope = rng.normal(size=2), rng.normal(size=2)
    solution = wb.minimise(kernel, weights, data, start={"y": start}, method="irls", reweightings=reweightings)
    expected, expected_start = complex_steps(penalty, data, weights, start, reweightings, slope)
    got = wb.unrolled_gradient(kernel, solution, {"y": slope})
    size = 1 + max(np.abs(e).max() for e in expected.values())
    for name in weights:
        np.testing.assert_allclose(got[name] / size, expected[name] / size, atol=1e-9, err_msg=name)
    got_start = wb.unrolled_start_gradient(kernel, solution, {"y": slope})["y"]
    np.testing.assert_allclose(got_start / size, expected_start / size, atol=1e-9)


@settings(max_examples=10, deadline=None)
@given(seed=seeds, reweightings=st.integers(1, 4))
def test_the_derivative_of_the_last_reweightings_alone(kernels, seed, reweightings):
    kernel, data, weights = kernels["cauchy"], rows(seed), weights_of(seed)
    slope = np.random.default_rng(seed).normal(size=2)
    solution = wb.minimise(kernel, weights, data, start={"y": np.zeros(2)}, method="irls", reweightings=6)
    before = wb.minimise(
        kernel, weights, data, start={"y": np.zeros(2)}, method="irls", reweightings=6 - reweightings
    ).variables["y"]
    expected, expected_start = complex_steps("cauchy", data, weights, before, reweightings, slope)
    got = wb.unrolled_gradient(kernel, solution, {"y": slope}, reweightings=reweightings)
    start = wb.unrolled_start_gradient(kernel, solution, {"y": slope}, reweightings=reweightings)
    np.testing.assert_allclose(got["v"], expected["v"], atol=1e-8)
    np.testing.assert_allclose(start["y"], expected_start, atol=1e-8)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_it_tends_to_the_implicit_derivative(kernels, penalty):
    kernel, data, weights = kernels[penalty], rows(11, batch=(20,)), weights_of(11)
    slope = {"y": np.random.default_rng(0).normal(size=(20, 2))}
    least = wb.minimise(kernel, weights, data, start={"y": np.zeros(2)}, method="irls", reweightings=1000)
    implicit = wb.implicit_gradient(kernel, least, slope, damping=0.0, unconverged="use")["v"]
    errors = []
    for reweightings in (1, 1000):
        solution = wb.minimise(
            kernel, weights, data, start={"y": np.zeros(2)}, method="irls", reweightings=reweightings
        )
        unrolled = wb.unrolled_gradient(kernel, solution, slope)["v"]
        errors.append(np.abs(unrolled - implicit).max() / np.abs(implicit).max())
    assert errors[0] > 1e-3 and errors[-1] < 1e-6


def test_at_a_minimum_each_reweighting_brings_it_nearer(kernels):
    kernel, data, weights = kernels["pseudo_huber"], rows(2), weights_of(2)
    slope = {"y": np.ones(2)}
    least = wb.minimise(kernel, weights, data, start={"y": np.zeros(2)}, method="irls", reweightings=200)
    implicit = wb.implicit_gradient(kernel, least, slope, damping=0.0)["delta"]
    errors = [
        abs(wb.unrolled_gradient(kernel, least, slope, reweightings=j)["delta"] - implicit) for j in (1, 4, 7, 10, 13)
    ]
    assert all(later < 0.5 * earlier for earlier, later in pairwise(errors))


def test_until_the_gradient_is_small_counts_the_steps_that_were_made(kernels):
    kernel, data, weights = kernels["cauchy"], rows(3), weights_of(3)
    solution = wb.minimise(kernel, weights, data, start={"y": np.zeros(2)}, method="irls", gtol=1e-4)
    slope = np.array([1.0, -1.0])
    expected, _ = complex_steps("cauchy", data, weights, np.zeros(2), solution.iterations, slope)
    got = wb.unrolled_gradient(kernel, solution, {"y": slope})
    np.testing.assert_allclose(got["v"], expected["v"], atol=1e-9)


def test_least_squares_before_the_reweightings_belong_to_the_derivative(kernels):
    """As in the pose model of the paper: weights of 1 first, then three reweightings, all differentiated."""
    residual = sp.Sum(A[i, k] * y[k], k) - b[i]
    squares = sp.Sum(v[i] ** 2 * residual**2, i) / 2 + ridge / 2 * sp.Sum(y[k] ** 2, k)
    first = wb.compile(wb.Energy(squares, variables=[y], weights=[ridge, v], data=[A, b], name="squares"))
    kernel, data, weights = kernels["pseudo_huber"], rows(4), weights_of(4)
    plain = {s: weights[s] for s in ("ridge", "v")}
    start = wb.minimise(first, plain, data, start={"y": np.zeros(2)})
    solution = wb.minimise(kernel, weights, data, start=start, method="irls", reweightings=3)
    slope = np.array([0.3, -1.0])
    through_start = wb.unrolled_start_gradient(kernel, solution, {"y": slope})
    before = wb.implicit_gradient(first, start, through_start, damping=0.0)
    after = wb.unrolled_gradient(kernel, solution, {"y": slope})
    h = 1e-30
    for row in range(12):
        moved = {**weights, "v": weights["v"].astype(complex)}
        moved["v"][row] += 1j * h
        normal = data["A"].T @ (moved["v"][:, None] ** 2 * data["A"]) + weights["ridge"] * np.eye(2)
        begin = np.linalg.solve(normal, data["A"].T @ (moved["v"] ** 2 * data["b"]))
        expected = slope @ by_hand("pseudo_huber", data, moved, begin, 3).imag / h
        assert before["v"][row] + after["v"][row] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert np.abs(before["v"]).max() > 1e-6


# ---------------------------------------------------------------------------------------------- batches


def test_batches_are_sums_of_instances_and_batched_weights_get_rows(kernels):
    kernel, data = kernels["welsch"], rows(5, batch=(130,))
    slope = np.random.default_rng(0).normal(size=(130, 2))
    options = {"start": {"y": np.ones(2)}, "method": "irls", "reweightings": 3}
    shared, each = weights_of(5), weights_of(5, batch=(130,))
    solution = wb.minimise(kernel, shared, data, **options)
    together = wb.unrolled_gradient(kernel, solution, {"y": slope})
    starts = wb.unrolled_start_gradient(kernel, solution, {"y": slope})["y"]
    total = np.zeros(12)
    for j in range(130):
        own = wb.minimise(kernel, shared, {s: d[j] for s, d in data.items()}, **options)
        total += wb.unrolled_gradient(kernel, own, {"y": slope[j]})["v"]
        assert wb.unrolled_start_gradient(kernel, own, {"y": slope[j]})["y"].tobytes() == starts[j].tobytes()
    np.testing.assert_allclose(together["v"], total, rtol=1e-10, atol=1e-10)
    solution = wb.minimise(kernel, each, data, **options)
    rows_ = wb.unrolled_gradient(kernel, solution, {"y": slope})
    assert rows_["v"].shape == (130, 12) and rows_["delta"].shape == (130,)
    own = wb.minimise(kernel, {s: w[77] for s, w in each.items()}, {s: d[77] for s, d in data.items()}, **options)
    alone = wb.unrolled_gradient(kernel, own, {"y": slope[77]})
    np.testing.assert_array_equal(alone["v"], rows_["v"][77])


def test_the_same_bits_for_any_number_of_threads(kernels):
    kernel, data, weights = kernels["cauchy"], rows(6, batch=(300,)), weights_of(6)
    slope, results = {"y": np.random.default_rng(0).normal(size=(300, 2))}, []
    try:
        for threads in (1, 2, 3):
            wb.set_threads(threads)
            solution = wb.minimise(kernel, weights, data, start={"y": np.zeros(2)}, method="irls")
            results.append(wb.unrolled_gradient(kernel, solution, slope)["v"].tobytes())
    finally:
        wb.set_threads(None)
    assert results[0] == results[1] == results[2]


def test_instances_that_are_not_finite_count_as_nothing_and_are_warned_of(kernels):
    kernel, data, weights = kernels["cauchy"], rows(7, batch=(5,)), weights_of(7)
    slope, start = np.ones((5, 2)), np.zeros((5, 2))
    start[1] = np.inf
    slope[3] = np.nan
    solution = wb.minimise(kernel, weights, data, start={"y": start}, method="irls")
    with pytest.warns(wb.UnconvergedWarning, match=r"2 of 5 instances.*first: 1"):
        got = wb.unrolled_gradient(kernel, solution, {"y": slope})
    kept = [0, 2, 4]
    clean = wb.minimise(kernel, weights, {s: d[kept] for s, d in data.items()}, start={"y": start[kept]}, method="irls")
    np.testing.assert_array_equal(got["v"], wb.unrolled_gradient(kernel, clean, {"y": slope[kept]})["v"])


# ---------------------------------------------------------------------------------------------- what is added


def test_what_a_singular_problem_does_not_see_is_passed_on_as_it_is():
    energy = wb.Energy(wb.pseudo_huber((a + c - x) ** 2, delta) + (a + c) ** 2 / 9, variables=[a, c], weights=[delta],
                       data=[x])  # fmt: skip
    kernel = wb.compile(energy)

    def end(scale, at):
        return wb.minimise(kernel, {"delta": scale}, {"x": 5.0}, start=at, method="irls", reweightings=3)

    start = {"a": 2.0, "c": -1.0}
    solution = end(1.0, start)
    apart = wb.unrolled_start_gradient(kernel, solution, {"a": 1.0, "c": -1.0})
    assert apart["a"] == pytest.approx(1, abs=1e-5) and apart["c"] == pytest.approx(-1, abs=1e-5)
    together = wb.unrolled_gradient(kernel, solution, {"a": 1.0, "c": 1.0})["delta"]
    up, down = (end(1 + h, start).variables for h in (1e-5, -1e-5))
    assert together == pytest.approx((up["a"] + up["c"] - down["a"] - down["c"]) / 2e-5, rel=1e-5)


def test_shortened_steps_are_differentiated_as_they_were_made():
    """At a weight of the wrong sign a step can raise the energy."""
    factor = sp.Symbol("factor", real=True)
    energy = wb.Energy(
        factor * wb.welsch((a - 1) ** 2, 1) + (a - x) ** 2 / 2, variables=[a], weights=[factor], data=[x]
    )
    kernel, shortened = wb.compile(energy), 0

    def end(number, data, start):
        return wb.minimise(kernel, {"factor": number}, {"x": data}, start={"a": start}, method="irls", reweightings=2)

    for data in np.linspace(1.1, 4, 15):
        solution = end(-0.97, data, 0.5)
        shortened += solution.evaluations > 4
        up, down = (end(-0.97 + h, data, 0.5).variables["a"] for h in (1e-6, -1e-6))
        got = wb.unrolled_gradient(kernel, solution, {"a": 1.0})["factor"]
        assert got == pytest.approx((up - down) / 2e-6, rel=1e-5, abs=1e-7)
        up, down = (end(-0.97, data, 0.5 + h).variables["a"] for h in (1e-6, -1e-6))
        got = wb.unrolled_start_gradient(kernel, solution, {"a": 1.0})["a"]
        assert got == pytest.approx((up - down) / 2e-6, rel=1e-5, abs=1e-7)
    assert shortened >= 3


# ---------------------------------------------------------------------------------------------- errors


def test_only_solutions_of_irls_are_unrolled(kernels):
    kernel, data, weights = kernels["cauchy"], rows(0), weights_of(0)
    solution = wb.minimise(kernel, weights, data, start={"y": np.zeros(2)})
    for unrolled in (wb.unrolled_gradient, wb.unrolled_start_gradient):
        with pytest.raises(wb.InputError, match=rf"{unrolled.__name__}.*'cauchy'.*method='irls'"):
            unrolled(kernel, solution, {"y": np.ones(2)})


def test_the_kernel_is_the_one_that_was_minimised(kernels):
    solution = wb.minimise(kernels["cauchy"], weights_of(0), rows(0), start={"y": np.zeros(2)}, method="irls")
    with pytest.raises(wb.InputError, match=r"unrolled_gradient: the solution belongs to energy 'cauchy'"):
        wb.unrolled_gradient(kernels["welsch"], solution, {"y": np.ones(2)})


@pytest.mark.parametrize("bad", [0, -3, 1.5, True, "all"])
def test_reweightings_are_a_count(kernels, bad):
    solution = wb.minimise(kernels["cauchy"], weights_of(0), rows(0), start={"y": np.zeros(2)}, method="irls")
    with pytest.raises(wb.InputError, match=r"unrolled_gradient: reweightings must be an integer >= 1"):
        wb.unrolled_gradient(kernels["cauchy"], solution, {"y": np.ones(2)}, reweightings=bad)


def test_loss_gradients_are_checked(kernels):
    solution = wb.minimise(kernels["cauchy"], weights_of(0), rows(0), start={"y": np.zeros(2)}, method="irls")
    with pytest.raises(wb.NameMissingError, match=r"unrolled_gradient: loss_gradient has an unknown variable 'z'"):
        wb.unrolled_gradient(kernels["cauchy"], solution, {"z": np.ones(2)})
    with pytest.raises(wb.InputError, match=r"unrolled_gradient: .* shape \(2,\)"):
        wb.unrolled_gradient(kernels["cauchy"], solution, {"y": np.ones(3)})


def test_an_instance_without_a_derivative_leaves_the_sum_of_the_others():
    """That of b (w - 1) overflows for b near the largest number, though every step is made at w = 1."""
    t, w, b, x = sp.symbols("t w b x", real=True)
    energy = wb.Energy(
        (1 + b * (w - 1)) * wb.pseudo_huber((x - t) ** 2, 1) + t**2,
        variables=[t], weights=[w], data=[b, x],
    )  # fmt: skip
    kernel = wb.compile(energy)
    steps = {"start": {"t": 0.3}, "method": "irls", "reweightings": 2}
    data = {"b": np.array([1.0, 2.0, 1.7e308, 3.0, 0.5]), "x": np.array([1.0, -2.0, 30.0, 4.0, 0.5])}
    slope, fine = np.array([1.0, 2.0, 300.0, -1.0, 0.5]), [0, 1, 3, 4]
    whole = wb.minimise(kernel, {"w": 1.0}, data, **steps)
    others = wb.minimise(kernel, {"w": 1.0}, {name: array[fine] for name, array in data.items()}, **steps)
    with pytest.warns(wb.UnconvergedWarning, match="1 of 5"):
        found = wb.unrolled_gradient(kernel, whole, {"t": slope})["w"]
    expected = wb.unrolled_gradient(kernel, others, {"t": slope[fine]})["w"]
    assert abs(expected) > 0.1 and found == pytest.approx(float(expected), rel=1e-13)
    with pytest.warns(wb.UnconvergedWarning, match="1 of 5"):
        start = wb.unrolled_start_gradient(kernel, whole, {"t": slope})["t"]
    np.testing.assert_array_equal(start[fine], wb.unrolled_start_gradient(kernel, others, {"t": slope[fine]})["t"])
    assert start[2] == 0.0
