import json

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given
from hypothesis import strategies as st
from wiberg.learn.constraints import Orthonormal, Simplex
from wiberg.learn.coordinates import FLOOR
from wiberg.learn.optimiser import SGD, Adam
from wiberg.learn.starting_weights import coordinates_from_user
from wiberg.learn.weight import Weight, from_description

t, bias = sp.symbols("t bias", real=True)
sigma = sp.Symbol("sigma", positive=True)
tau = sp.IndexedBase("tau", shape=(3,))
energy = wb.Energy(
    sigma * (t - bias) ** 2 + sum(tau[k] for k in range(3)) * t**2,
    variables=[t],
    weights=[sigma, bias, tau],
    name="three",
)
START = {"sigma": 8.0, "bias": -1.0, "tau": [1.0, 2.0, 3.0]}


def test_raw_weights_are_learnt_as_they_are():
    coordinates = coordinates_from_user(energy, START)
    assert coordinates.learnt(coordinates.start).tolist() == [8.0, -1.0, 1.0, 2.0, 3.0]
    assert coordinates.gradient(np.ones(5), coordinates.start).tolist() == [1.0] * 5
    assert {k: v.tolist() for k, v in coordinates.unpack(coordinates.start).items()} == START


def test_logarithms_are_learnt_and_the_weight_is_shown():
    coordinates = coordinates_from_user(energy, {**START, "sigma": Weight(8.0, scale="log")})
    learnt = coordinates.learnt(coordinates.start)
    assert learnt[0] == np.log(8.0)
    np.testing.assert_allclose(coordinates.shown(learnt), coordinates.start, rtol=1e-15)
    assert coordinates.gradient(np.ones(5), coordinates.start).tolist() == [8.0, 1.0, 1.0, 1.0, 1.0]


def test_projection_stops_positive_weights_at_their_floor():
    coordinates, sgd = coordinates_from_user(energy, START), SGD(0.1)
    state = {"velocity": np.ones(5)}
    learnt, after = coordinates.project(np.array([-3.0, -3.0, -3.0, 1.0, 1.0]), state, sgd)
    assert learnt.tolist() == [8.0 * FLOOR, -3.0, -3.0, 1.0, 1.0]
    assert after["velocity"].tolist() == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert state["velocity"].tolist() == [1.0] * 5


def test_numbers_are_called_by_their_weight():
    coordinates = coordinates_from_user(energy, START)
    assert [coordinates.name_of(k) for k in range(5)] == ["sigma", "bias", "tau[0]", "tau[1]", "tau[2]"]


@pytest.mark.parametrize(
    "changed, error, names",
    [
        ({"sigma": [8.0]}, wb.InputError, r"sigma.*\(\).*\(1,\).*per-instance"),
        ({"tau": [1.0, 2.0]}, wb.InputError, r"tau.*\(3,\).*\(2,\)"),
        ({"tau": np.ones((4, 3))}, wb.InputError, r"tau.*\(4, 3\).*per-instance"),
        ({"sigma": -1.0}, wb.InputError, "sigma = -1.0 but it is declared positive"),
        ({"sigma": float("nan")}, wb.InputError, "sigma is not finite"),
        ({"bias": "x"}, wb.InputTypeError, "bias"),
        ({"bias": 10**400}, wb.InputTypeError, "bias.*too large"),
        ({"tau": np.ones(3) * 1j}, wb.InputTypeError, "tau.*complex"),
        ({"bias": Weight(-1.0, scale="log")}, wb.InputError, "bias = -1.0.*logarithm"),
        ({"sigm": 1.0}, wb.NameMissingError, "'sigm'.*did you mean 'sigma'"),
    ],
)
def test_starts_that_do_not_fit_are_refused(changed, error, names):
    with pytest.raises(error, match=names):
        coordinates_from_user(energy, {**START, **changed})


def test_missing_weights_are_named():
    with pytest.raises(wb.NameMissingError, match=r"weight bias, tau is missing"):
        coordinates_from_user(energy, {"sigma": 1.0})
    with pytest.raises(wb.InputError, match=r"no weights"):
        coordinates_from_user(wb.Energy(t**2, variables=[t]), {})
    with pytest.raises(wb.InputTypeError, match=r"dict"):
        coordinates_from_user(energy, [1.0])
    with pytest.raises(wb.InputError, match=r"'lag'.*did you mean"):
        Weight(1.0, scale="lag")


# ------------------------------------------------------------------------------- constraints: what holds at every step

p, k = sp.symbols("p k", integer=True, positive=True)
a, b = sp.IndexedBase("a", shape=(p, k)), sp.IndexedBase("b", shape=(p, k))
row, column = sp.Idx("row", p), sp.Idx("column", k)
ABOUT = wb.Energy(sp.Sum((t - a[row, column]) ** 2 + b[row, column] ** 2, row, column), variables=[t], weights=[a, b])
"""Two weights of any shape; what else is in it does not matter."""


def make(kind, random, rows, columns):
    """Settings of a weight of this kind, with a start that its constraints allow."""
    start = random.uniform(0.5, 2.0, (rows, columns))
    if kind == "simplex" or kind == "softmax":
        start /= start.sum(axis=-1, keepdims=True)
        return Weight(start, simplex=True, scale="log" if kind == "softmax" else "raw")
    if kind == "orthonormal":
        return Weight(np.linalg.qr(random.standard_normal((rows + columns, columns)))[0], orthonormal=True)
    if kind == "fixed":
        return Weight(start, fixed=random.uniform(size=start.shape) < 0.5)
    if kind == "tied":
        labels = random.integers(0, 3, start.shape)
        return Weight(np.array([0.5, 1.0, 2.0])[labels], tie=labels)
    scale = {"bounds": "raw", "log bounds": "log", "logit": "logit", "log": "log", "raw": "raw"}[kind]
    bounds = None if kind in ("log", "raw") else (0.25, start + 0.5)
    return Weight(start, scale, bounds)


def holds(kind, weight, value, size):
    """Whether the constraint of the weight holds to rounding; `size` is that of the step."""
    if kind in ("simplex", "softmax"):
        return (value >= 0).all() and np.abs(value.sum(axis=-1) - 1).max() < 1e-14 * value.shape[-1]
    if kind == "orthonormal":
        return np.abs(value.T @ value - np.eye(value.shape[1])).max() < 1e-14 * value.shape[0]
    if kind == "fixed":
        return (value == weight.value)[weight.fixed].all()
    if kind == "tied":
        return all(len(set(value[weight.tie == label])) <= 1 for label in range(3))
    if kind in ("log", "raw"):
        return kind == "raw" or (value > 0).all()
    return (value >= 0.25).all() and (value <= weight.value + 0.5).all()


KINDS = ("raw", "log", "bounds", "log bounds", "logit", "simplex", "softmax", "orthonormal", "fixed", "tied")
kinds = st.sampled_from(KINDS)
optimisers = st.sampled_from(
    [SGD(1.0, momentum=0.9), SGD(1.0, momentum=0.9, nesterov=True), Adam(0.5, betas=(0.9, 0.9))]
)
seeds, sizes = st.integers(0, 10**6), st.integers(1, 4)


def pair(kind, other, seed, rows, columns):
    """Coordinates of two weights of these kinds, and random numbers."""
    random = np.random.default_rng(seed)
    given = {"a": make(kind, random, rows, columns), "b": make(other, random, rows, columns)}
    if (given["a"].fixed & np.ones((), bool)).all() and (given["b"].fixed & np.ones((), bool)).all():
        given["b"] = make("raw", random, rows, columns)
    return coordinates_from_user(ABOUT, given), given, random


@given(kinds, kinds, optimisers, seeds, sizes, st.integers(2, 4), st.sampled_from([0.0, 1e-3, 1.0, 50.0]))
def test_constraints_hold_after_every_step(kind, other, optimiser, seed, rows, columns, size):
    coordinates, given, random = pair(kind, other, seed, rows, columns)
    learnt, weights = coordinates.learnt(coordinates.start), coordinates.start
    state = optimiser.start(coordinates.count)
    rates = optimiser.rates(coordinates.sizes)
    for _ in range(8):
        gradient = coordinates.gradient(size * random.standard_normal(len(weights)), weights)
        moved, state = optimiser.step(learnt, gradient, state, rates)
        moved, state = coordinates.project(moved, state, optimiser)
        with np.errstate(over="ignore"):
            learnt, weights = moved, coordinates.shown_after(moved, learnt, weights)
        if not np.isfinite(weights).all():
            return  # an exponential that overflows: the learner refuses such a step
        shown = coordinates.unpack(weights)
        for name, one in (("a", kind), ("b", other)):
            assert holds(one, given[name], shown[name], size)


@given(kinds, kinds, seeds, sizes, st.integers(2, 4))
def test_a_step_of_length_zero_changes_no_bit(kind, other, seed, rows, columns):
    coordinates, _, random = pair(kind, other, seed, rows, columns)
    sgd, learnt, weights = SGD(0.3, momentum=0.5), coordinates.learnt(coordinates.start), coordinates.start
    state, rates = sgd.start(coordinates.count), sgd.rates(coordinates.sizes)
    for gradient in (0.0, 1.0, 0.0):
        slope = coordinates.gradient(gradient * random.standard_normal(len(weights)), weights)
        moved, state = sgd.step(learnt, slope, state if gradient else sgd.start(coordinates.count), rates)
        moved, state = coordinates.project(moved, state, sgd)
        after = coordinates.shown_after(moved, learnt, weights)
        if gradient == 0.0:
            assert (after == weights).all() and (moved == learnt).all()
        learnt, weights = moved, after


@given(kinds, kinds, seeds, sizes, st.integers(2, 4))
def test_gradient_is_that_along_the_surface(kind, other, seed, rows, columns):
    """Central differences of a random smooth function along the way that a step takes, projection and all."""
    coordinates, _, random = pair(kind, other, seed, rows, columns)
    slope, curvature = random.standard_normal((2, len(coordinates.start)))
    start = coordinates.learnt(coordinates.start)

    def function(learnt):
        projected, _ = coordinates.project(learnt, SGD(1.0).start(coordinates.count), SGD(1.0))
        shown = coordinates.shown(projected)
        return slope @ shown + curvature @ shown**3

    plain = slope + 3 * curvature * coordinates.start**2
    gradient = coordinates.gradient(plain, coordinates.start)
    direction = coordinates.gradient(random.standard_normal(len(plain)), coordinates.start)  # along the surface
    h = 1e-5
    expected = (function(start + h * direction) - function(start - h * direction)) / (2 * h)
    size = np.abs(plain).sum() * (1 + np.abs(direction).max())
    assert gradient @ direction == pytest.approx(expected, abs=1e-7 * size)


@given(seeds, st.integers(1, 6), st.integers(1, 6), st.sampled_from([1e-3, 1.0, 1e6]))
def test_projection_onto_the_simplex_is_the_nearest_point(seed, rows, columns, size):
    """Bisection for the one s with sum max(w - s, floor) = 1 finds the same."""
    random = np.random.default_rng(seed)
    w, floor = size * random.standard_normal((rows, columns)), random.uniform(0, 0.5 / columns, columns)
    found = Simplex(floor).project(w)
    for got, given_row in zip(found, w, strict=True):
        low, high = given_row.min() - 2, given_row.max() + 2
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if np.maximum(given_row - middle, floor).sum() > 1 else (low, middle)
        np.testing.assert_allclose(got, np.maximum(given_row - low, floor), atol=1e-9 * max(1, size))
        assert abs(got.sum() - 1) < 1e-14 * columns and (got >= floor).all()


@given(seeds, st.integers(1, 5), st.integers(0, 5))
def test_projection_onto_orthonormal_columns_is_the_polar_factor(seed, columns, more):
    random = np.random.default_rng(seed)
    w = random.standard_normal((columns + more, columns))
    near = Orthonormal().project(w)
    symmetric = near.T @ w  # W = Q P with P symmetric and positive semi-definite, and only the polar factor does so
    np.testing.assert_allclose(symmetric, symmetric.T, atol=1e-12)
    assert np.linalg.eigvalsh(symmetric).min() >= -1e-12
    other = np.linalg.qr(random.standard_normal(w.shape))[0]
    assert np.linalg.norm(near - w) <= np.linalg.norm(other - w) + 1e-12


@given(seeds, st.integers(1, 4), st.integers(0, 3))
def test_velocity_is_turned_along_the_manifold(seed, columns, more):
    random = np.random.default_rng(seed)
    w = np.linalg.qr(random.standard_normal((columns + more, columns)))[0]
    turned = Orthonormal().turn(random.standard_normal(w.shape), w)
    np.testing.assert_allclose(w.T @ turned, -(turned.T @ w), atol=1e-13)


def test_velocity_out_of_the_simplex_is_halted():
    rule, w = Simplex(np.zeros(3)), np.array([0.0, 0.25, 0.75])
    assert rule.turn(np.array([3.0, 1.0, 0.0]), w).tolist() == [0.0, 0.5, -0.5]  # w[0] would go below 0
    assert rule.turn(np.array([-3.0, 1.0, 2.0]), w).tolist() == [-3.0, 1.0, 2.0]  # it comes back


def test_ties_sum_the_gradient_and_share_the_value():
    three = coordinates_from_user(
        energy, {"sigma": 2.0, "bias": Weight(tie="sigma"), "tau": Weight(np.ones(3), tie=[7, 3, 7])}
    )
    assert three.count == 3 and three.sizes == {"sigma": 1, "bias": 0, "tau": 2}
    assert three.start.tolist() == [2.0, 2.0, 1.0, 1.0, 1.0]
    assert three.gradient(np.array([1.0, 10.0, 2.0, 3.0, 4.0]), three.start).tolist() == [11.0, 6.0, 3.0]
    assert three.shown(np.array([5.0, 6.0, 7.0])).tolist() == [5.0, 5.0, 6.0, 7.0, 6.0]
    assert [three.name_of_learnt(number) for number in range(3)] == ["sigma", "tau[0]", "tau[1]"]
    assert SGD({"sigma": 1.0, "tau": 2.0}).rates(three.sizes).tolist() == [1.0, 2.0, 2.0]


def test_a_tie_to_a_positive_weight_keeps_the_other_positive():
    tied = coordinates_from_user(energy, {**START, "sigma": Weight(tie="bias"), "bias": 2.0})
    learnt, _ = tied.project(np.array([-1.0, 1.0, 1.0, 1.0]), {"velocity": np.zeros(4)}, SGD(1.0))
    assert learnt[0] == 2.0 * FLOOR
    with pytest.raises(wb.InputError, match=r"weight bias = -1.0 but it is declared positive"):
        coordinates_from_user(energy, {**START, "sigma": Weight(tie="bias")})


def test_fixed_entries_of_a_tie_fix_all_of_it():
    coordinates = coordinates_from_user(
        energy, {**START, "tau": Weight(np.ones(3), tie=[0, 0, 1], fixed=[True, False, False])}
    )
    assert coordinates.sizes["tau"] == 1
    assert coordinates.shown(np.array([8.0, -1.0, 5.0])).tolist() == [8.0, -1.0, 1.0, 1.0, 5.0]


def test_settings_survive_a_description():
    weights = [
        Weight(np.array(2.0), "log", bounds=(1, None)),
        Weight(np.array([1.0, 2.0]), bounds=([0.0, None], np.array([5.0, 6.0])), fixed=np.array([True, False])),
        Weight(np.eye(3), orthonormal=True),
        Weight(np.array([0.5, 0.5]), "log", simplex=True, fixed=True),
        Weight(np.array([1.0, 1.0]), tie=np.array([0, 0])),
        Weight(tie="sigma"),
    ]
    for weight in weights:
        described = json.loads(json.dumps(weight.describe()))
        again = from_description(weight.value, {"name": "w", "shape": [2], **described})
        assert again.describe() == described
        np.testing.assert_array_equal(again.limits[0], weight.limits[0])
        np.testing.assert_array_equal(again.limits[1], weight.limits[1])


@pytest.mark.parametrize(
    "changed, error, names",
    [
        ({"bias": Weight(60.0, bounds=(1, 50))}, wb.InputError, r"bias = 60.0 must start within its bounds"),
        ({"bias": Weight(1.0, "logit", bounds=(1, 50))}, wb.InputError, r"inside, not on"),
        ({"tau": Weight(np.ones(3), simplex=True)}, wb.InputError, r"tau has simplex=True.*sum 1.*3"),
        ({"tau": Weight([1.5, -0.25, -0.25], simplex=True)}, wb.InputError, r"tau.*-0.25"),
        ({"bias": Weight(1.0, simplex=True)}, wb.InputError, "bias has simplex=True but is one number"),
        ({"tau": Weight(np.ones(3), orthonormal=True)}, wb.InputError, r"tau has orthonormal=True.*n >= k"),
        ({"tau": Weight(np.ones(3), fixed=[True, False])}, wb.InputError, r"fixed of weight tau has shape \(2,\)"),
        ({"tau": Weight(np.ones(3), bounds=(np.zeros(2), 5))}, wb.InputError, r"bounds of weight tau has shape \(2,\)"),
        ({"tau": Weight(np.ones(3), tie=[0, 1])}, wb.InputError, r"tie of weight tau has shape \(2,\)"),
        ({"tau": Weight([1.0, 2.0, 3.0], tie=[0, 0, 1])}, wb.InputError, r"tau.*different ones.*\[1\]"),
        ({"tau": Weight(tie="sigma")}, wb.InputError, r"tau is tied to sigma, but has 1 axes"),
        ({"bias": Weight(tie="sigm")}, wb.NameMissingError, r"bias is tied to 'sigm'.*did you mean 'sigma'"),
        ({"bias": Weight(tie="sigma"), "sigma": Weight(tie="bias")}, wb.InputError, r"tied itself"),
    ],
)
def test_constraints_that_a_start_does_not_meet_are_refused(changed, error, names):
    with pytest.raises(error, match=names):
        coordinates_from_user(energy, {**START, **changed})


def test_orthonormal_columns_are_asked_for():
    with pytest.raises(wb.InputError, match=r"columns of weight a are not orthonormal.*np.linalg.qr"):
        coordinates_from_user(ABOUT, {"a": Weight(np.ones((3, 2)), orthonormal=True), "b": np.ones((3, 2))})


def test_nothing_to_learn_is_refused():
    with pytest.raises(wb.InputError, match=r"all weights are fixed"):
        coordinates_from_user(energy, {name: Weight(value, fixed=True) for name, value in START.items()})


@pytest.mark.parametrize(
    "settings, error, names",
    [
        ({"value": 1.0, "bounds": (2, 1)}, wb.InputError, "low < high"),
        ({"value": 1.0, "bounds": 3}, wb.InputTypeError, "pair"),
        ({"value": 1.0, "bounds": ("a", 1)}, wb.InputTypeError, "no numbers"),
        ({"value": 1.0, "scale": "logit"}, wb.InputError, "two bounds"),
        ({"value": 1.0, "scale": "logit", "bounds": (0, None)}, wb.InputError, "two bounds"),
        ({"value": np.eye(2), "orthonormal": True, "simplex": True}, wb.InputError, "does not go together"),
        ({"value": np.eye(2), "orthonormal": True, "scale": "log"}, wb.InputError, "scale='log'"),
        ({"value": np.eye(2), "simplex": True, "bounds": (0, 1)}, wb.InputError, "bounds"),
        ({"value": [0.5, 0.5], "simplex": True, "fixed": [True, False]}, wb.InputError, "fix all or none"),
        ({"value": 1.0, "fixed": 1}, wb.InputTypeError, "fixed"),
        ({"value": 1.0, "simplex": "yes"}, wb.InputTypeError, "simplex"),
        ({"value": [1.0], "tie": [0.5]}, wb.InputTypeError, "tie"),
        ({"value": 1.0, "tie": "sigma"}, wb.InputError, "leave out value"),
        ({"tie": "sigma", "fixed": True}, wb.InputError, "leave out fixed"),
        ({}, wb.InputError, "value is missing"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, error, names):
    with pytest.raises(error, match=names):
        Weight(**settings)


# ----------------------------------------------------------------------------------------------- through the learner


@pytest.fixture(scope="module")
def subspace():
    """E = |A t - z|^2: the projection of z onto the columns of A, where these are orthonormal."""
    rank, size = sp.symbols("rank size", integer=True, positive=True)
    c, e, d = sp.Idx("c", rank), sp.Idx("e", size), sp.Idx("d", rank)
    basis, z, y = (
        sp.IndexedBase("A", shape=(size, rank)),
        sp.IndexedBase("z", shape=(size,)),
        sp.IndexedBase("y", shape=(rank,)),
    )
    mix = sp.IndexedBase("mix", shape=(rank,))
    kernel = wb.compile(
        wb.Energy(
            sp.Sum((sp.Sum(basis[e, c] * y[c], c) - z[e]) ** 2, e) + sp.Sum(mix[d] * y[d] ** 2, d),
            variables=[y],
            weights=[basis, mix],
            data=[z],
        )
    )
    wanted = sp.IndexedBase("wanted", shape=(rank,))
    return kernel, wb.squared_error(y, wanted)


def subspace_batches(seed):
    random = np.random.default_rng(seed)
    truth = np.linalg.qr(random.standard_normal((4, 2)))[0]
    z = random.standard_normal((3, 16, 4))
    return [wb.Batch(data={"z": one}, targets={"wanted": one @ truth / 2}, start={"y": np.zeros(2)}) for one in z]


@pytest.mark.parametrize("optimiser", [SGD(0.05, momentum=0.9, nesterov=True), Adam(0.02)], ids=str)
def test_constrained_weights_are_learnt_shown_and_resumed_bit_for_bit(subspace, tmp_path, optimiser):
    kernel, loss = subspace
    start = {
        "A": Weight(np.linalg.qr(np.random.default_rng(9).standard_normal((4, 2)))[0], orthonormal=True),
        "mix": Weight([0.25, 0.75], simplex=True),
    }
    batches = subspace_batches(0)
    whole, part = (wb.Learner(kernel, loss, start, optimiser) for _ in range(2))
    history = whole.fit(batches, steps=60)
    assert history.loss[-3:].mean() < 0.5 * history.loss[:3].mean()
    for basis, mix in zip(history.weights["A"], history.weights["mix"], strict=True):
        assert np.abs(basis.T @ basis - np.eye(2)).max() < 1e-14
        assert abs(mix.sum() - 1) < 1e-15 and (mix >= 0).all()
    part.fit(batches, steps=25)
    part.save(tmp_path / "run")
    resumed = wb.Learner.load(tmp_path / "run", kernel, loss)
    assert all((resumed.weights[name] == part.weights[name]).all() for name in start)
    resumed.fit(batches, steps=35)
    whole.save(tmp_path / "a")
    resumed.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    "mix",
    [
        Weight([1.0, 2.0], "log", bounds=(0.5, [1.5, 2.25])),
        Weight([1.0, 2.0], "logit", bounds=(0.5, 4)),
        Weight([1.0, 2.0], fixed=[True, False]),
        Weight([1.5, 1.5], tie=[3, 3]),
        Weight([0.5, 0.5], "log", simplex=True),
    ],
    ids=str,
)
def test_settings_survive_a_checkpoint(subspace, tmp_path, mix):
    kernel, loss = subspace
    start = {"A": Weight(np.eye(4)[:, :2], fixed=np.eye(4)[:, :2] == 1), "mix": mix}
    whole, part = (wb.Learner(kernel, loss, start, SGD(0.1)) for _ in range(2))
    whole.fit(subspace_batches(1), steps=20)
    part.fit(subspace_batches(1), steps=5)
    part.save(tmp_path / "run")
    resumed = wb.Learner.load(tmp_path / "run", kernel, loss)
    resumed.fit(subspace_batches(1), steps=15)
    whole.save(tmp_path / "a")
    resumed.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert resumed.weights["A"][0, 0] == 1.0 and resumed.weights["A"][0, 1] != 0.0
