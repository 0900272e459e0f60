"""Kernels of families: against NumPy, the formula member by member, and the same energy as a batch of gathered data."""

import itertools
import pickle
import random
import warnings

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from wiberg.compiler.calls.evaluate import ready, run, run_one
from wiberg.compiler.derive import derive
from wiberg.compiler.passes.common import split
from wiberg.compiler.passes.prepare import prepare
from wiberg.compiler.passes.share import share
from wiberg.compiler.points import family_of
from wiberg.compiler.program.program import check
from wiberg.compiler.program.reference import integer, interpret
from wiberg.compiler.random_energies import random_family
from wiberg.compiler.testing import DerivativeReport, compare_along, dense, draw_point

n, k = sp.symbols("n k", integer=True, positive=True)
m, i, j, q = sp.Idx("m", n), sp.Idx("i", 4), sp.Idx("j", k), sp.Idx("q", n)
t = sp.Symbol("t", real=True)
y, a, s, x, b = (
    sp.IndexedBase(name, shape=shape)
    for name, shape in (("y", (k,)), ("a", (n,)), ("s", (n, k)), ("x", (n, k)), ("b", (k,)))
)
BACKENDS = ("reference", "numba")


def rotations():
    """A family over both indices: weights with and without its axes, data with one of them."""
    angle = x[m, j] * y[j] * sp.cos(i * t) - t
    formula = sp.exp(-2 * a[m]) * sp.Sum(sp.exp(-s[m, j]) * angle**2, j) + sp.Sum(b[j] * y[j] ** 4, j) + t**2
    return wb.Energy(formula, variables=[t, y], weights=[a, s, b], data=[x], over=[m, i], name="rotations")


def point(seed=0, batch=2, members=3, size=5):
    rng = np.random.default_rng(seed)
    w = {"a": rng.normal(size=members), "s": rng.normal(size=(members, size)), "b": rng.random(size)}
    values = {"t": rng.normal(size=(batch, members, 4)), "y": rng.normal(size=(batch, members, 4, size))}
    return values, w, {"x": rng.normal(size=(batch, members, size))}


@pytest.fixture(scope="module", params=BACKENDS)
def kernel(request):
    return wb.compile(rotations(), backend=request.param)


def test_values_are_those_of_numpy(kernel):
    values, w, data = point()
    expected = np.empty((2, 3, 4))
    for where in np.ndindex(expected.shape):
        own, weight = (values["t"][where], values["y"][where]), where[1]
        angle = data["x"][where[:2]] * own[1] * np.cos(where[2] * own[0]) - own[0]
        first = np.exp(-2 * w["a"][weight]) * np.sum(np.exp(-w["s"][weight]) * angle**2)
        expected[where] = first + np.sum(w["b"] * own[1] ** 4) + own[0] ** 2
    np.testing.assert_allclose(kernel.value(values, w, data), expected, rtol=1e-13)


def test_results_carry_the_axes_of_the_family_after_the_batch_axis(kernel):
    values, w, data = point()
    v = np.ones((2, 3, 4, 6))
    assert kernel.value(values, w, data).shape == (2, 3, 4)
    assert kernel.gradient(values, w, data).shape == (2, 3, 4, 6)
    assert kernel.dense_hessian(values, w, data).shape == (2, 3, 4, 6, 6)
    assert dense(kernel.cross(values, w, data)).shape == (2, 3, 4, 6, 23)
    assert kernel.hvp(v, values, w, data).shape == (2, 3, 4, 6)
    value, gradient, hessian = kernel.value_gradient_hessian(values, w, data)
    assert (value.shape, gradient.shape, dense(hessian).shape) == ((2, 3, 4), (2, 3, 4, 6), (2, 3, 4, 6, 6))


def test_results_of_one_instance_carry_the_axes_of_the_family_alone(kernel):
    values, w, data = point()
    first = [{name: array[0] for name, array in part.items()} for part in (values, data)]
    both = kernel.value(values, w, data)
    assert np.array_equal(kernel.value(first[0], w, first[1]), both[0])
    assert np.array_equal(kernel.gradient(first[0], w, first[1]), kernel.gradient(values, w, data)[0])


def test_adjoints_are_sums_over_the_members(kernel):
    values, w, data = point()
    v = np.random.default_rng(1).normal(size=(2, 3, 4, 6))
    cross = dense(kernel.cross(values, w, data))
    packed = kernel.weights.pack(kernel.cross_adjoint(v, values, w, data))
    np.testing.assert_allclose(packed, np.einsum("bmri,bmrip->p", v, cross), rtol=1e-12)
    own = {**w, "a": np.stack([w["a"], 2 * w["a"]])}
    cross = dense(kernel.cross(values, own, data))
    found = kernel.cross_adjoint(v, values, own, data)
    expected = np.einsum("bmri,bmrip->bp", v, cross)
    np.testing.assert_allclose(found["a"], expected[:, :3], rtol=1e-12)
    np.testing.assert_allclose(found["s"].ravel(), expected[:, 3:18].sum(axis=0), rtol=1e-12)
    assert kernel.data_adjoint(v, values, w, data)["x"].shape == (2, 3, 5)


def test_directions_may_be_shared_by_all_members(kernel):
    values, w, data = point()
    v = np.random.default_rng(1).normal(size=6)
    full = np.broadcast_to(v, (2, 3, 4, 6))
    assert np.array_equal(kernel.hvp(v, values, w, data), kernel.hvp(full, values, w, data))
    assert np.array_equal(kernel.hvp(full[0], values, w, data), kernel.hvp(full, values, w, data))


def test_a_batch_of_directions_makes_a_batch(kernel):
    values, w, data = point(batch=1)
    one = [{name: array[0] for name, array in part.items()} for part in (values, data)]
    v = np.random.default_rng(1).normal(size=(2, 3, 4, 6))
    both = kernel.hvp(v, one[0], w, one[1])
    assert np.array_equal(both[1], kernel.hvp(v[1], one[0], w, one[1]))


RANKS = [
    ({"t": (), "y": (5,)}, (2, 3, 4)),
    ({"t": (3, 4), "y": (5,)}, (2, 3, 4)),
    ({"t": (2, 3, 4), "y": (5,)}, (2, 3, 4)),
    ({"t": (), "y": (3, 4, 5)}, (2, 3, 4)),
    ({"t": (1, 4), "y": (3, 1, 5)}, (2, 3, 4)),
    ({"t": (2, 1, 1), "y": (1, 3, 4, 5)}, (2, 3, 4)),
]


@pytest.mark.parametrize(("shapes", "lead"), RANKS)
def test_the_rank_of_a_variable_says_who_shares_it(kernel, shapes, lead):
    _, w, data = point()
    rng = np.random.default_rng(3)
    given = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    full = {
        "t": np.broadcast_to(given["t"], lead),
        "y": np.broadcast_to(given["y"], (*lead, 5)),
    }
    assert np.array_equal(kernel.gradient(given, w, data), kernel.gradient(full, w, data))


@pytest.mark.parametrize("shape", [(3,), (4,), (2, 4), (5, 3, 2), (2, 2, 3, 4)])
def test_other_ranks_and_axes_are_refused(kernel, shape):
    values, w, data = point()
    with pytest.raises(wb.InputError, match=r"energy 'rotations': t has shape .* \(3, 4\)"):
        kernel.value({**values, "t": np.zeros(shape)}, w, data)


def test_directions_of_other_shapes_are_refused(kernel):
    values, w, data = point()
    with pytest.raises(wb.InputError, match=r"v has shape \(3, 6\); expected \(6,\)"):
        kernel.hvp(np.zeros((3, 6)), values, w, data)
    with pytest.raises(wb.InputError, match=r"the direction v has shape \(3, 4, 5\)"):
        kernel.hvp(np.zeros((3, 4, 5)), values, w, data)
    with pytest.raises(wb.InputError, match="batch sizes disagree: v has 3, the rest 2"):
        kernel.hvp(np.zeros((3, 3, 4, 6)), values, w, data)


def test_batch_sizes_that_disagree_are_refused(kernel):
    _, w, data = point()
    with pytest.raises(wb.InputError, match="batch sizes disagree: t has 3, weights and data have 2"):
        kernel.value({"t": np.zeros((3, 3, 4)), "y": np.zeros(5)}, w, data)


def test_variables_are_packed_with_the_axes_of_the_family(kernel):
    values, _, _ = point()
    packed = kernel.variables.pack(values)
    assert packed.shape == (2, 3, 4, 6)
    assert np.array_equal(packed[..., 0], values["t"])
    back = kernel.variables.unpack(packed)
    assert all(np.array_equal(back[name], values[name]) for name in values)
    assert kernel.variables.pack({"t": 1.0, "y": np.zeros(5)}).shape == (6,)
    assert kernel.variables.pack({"t": np.zeros((3, 1)), "y": np.zeros((1, 4, 5))}).shape == (3, 4, 6)
    assert kernel.variables.unpack(np.zeros((3, 4, 6)))["y"].shape == (3, 4, 5)
    assert kernel.weights.pack(point()[1]).shape == (23,)
    with pytest.raises(wb.InputError, match=r"\(size,\), \(m, i, size\) or \(B, m, i, size\)"):
        kernel.variables.unpack(np.zeros((2, 6)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_family_or_a_batch_of_nothing_has_results_of_no_entries(backend):
    kernel = wb.compile(rotations(), backend=backend)
    values, w, data = point(members=0)
    assert kernel.gradient(values, w, data).shape == (2, 0, 4, 6)
    assert kernel.cross_adjoint(np.zeros(6), values, w, data)["b"].tolist() == [0.0] * 5
    values, w, data = point(batch=0)
    assert kernel.gradient(values, w, data).shape == (0, 3, 4, 6)


# ------------------------------------------------------------------------------------------- against other energies


def of_member(energy, member):
    """The energy of one member, its indices replaced by numbers: no family."""
    numbers = {index: sp.Integer(value) for index, value in zip(energy.over, member, strict=True)}
    where = {}
    for key, value in energy.where.items():
        own = set(map(str, key.indices)) if isinstance(key, sp.Indexed) else set()
        where[key] = value.subs({index: number for index, number in numbers.items() if str(index) not in own})
    return wb.Energy(
        energy.expression.subs(numbers),
        variables=energy.variables, weights=energy.weights, data=energy.data, where=where,
    )  # fmt: skip


def in_roles(energy, drawn):
    roles = (energy.variables, energy.weights, energy.data)
    return [{str(symbol): drawn[str(symbol)] for symbol in role} for role in roles]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(wb.testing.families())
def test_random_families_are_what_their_members_are(energy):
    kernel = wb.compile(energy, backend="reference")
    try:
        (drawn,) = draw_point(kernel, np.random.default_rng(0), 1)
    except wb.NumericalError:  # a formula that is finite hardly anywhere
        reject()
    values, w, data = in_roles(energy, drawn)
    found = kernel.value(values, w, data), kernel.gradient(values, w, data), dense(kernel.hessian(values, w, data))
    for member in itertools.islice(np.ndindex(found[0].shape), 6):
        try:
            single = wb.compile(of_member(energy, member), backend="reference")
        except wb.DeclarationError:  # 0 times a variable: SymPy drops it
            continue
        own = {name: array[member] for name, array in values.items()}
        scale = 1 + abs(single.value(own, w, data))
        assert abs(found[0][member] - single.value(own, w, data)) <= 1e-12 * scale
        expected = single.gradient(own, w, data)
        np.testing.assert_allclose(found[1][member], expected, rtol=1e-10, atol=1e-10 * (1 + np.abs(expected).max()))
        expected = single.dense_hessian(own, w, data)
        np.testing.assert_allclose(found[2][member], expected, rtol=1e-10, atol=1e-10 * (1 + np.abs(expected).max()))


@pytest.mark.parametrize("seed", range(3))
def test_machine_code_of_random_families_agrees_with_the_formula(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        energy = random_family(random.Random(seed))
        kernel = wb.compile(energy)
    generator = np.random.default_rng(seed)
    report = DerivativeReport(energy.name, 1, 1e-8)
    compare_along(kernel, draw_point(kernel, generator, 2), report, 0, generator)
    assert report.ok, f"{energy}\n{report}"


def test_check_derivatives_works_on_families():
    assert wb.check_derivatives(rotations(), trials=3, backend="reference").ok


def test_check_derivatives_sees_a_wrong_member(monkeypatch):
    kernel = wb.compile(rotations(), backend="reference")
    right = kernel.gradient
    monkeypatch.setattr(kernel, "gradient", lambda *arrays: right(*arrays) + np.eye(1, 4, 3).ravel()[:, None] * 1e-3)
    report = wb.check_derivatives(rotations(), trials=1, kernel=kernel)
    assert not report.ok
    assert report.worst.derivative == "gradient"


def least():
    """Products of two factors and sums in one order only: the same arithmetic in a family and in a batch."""
    c, other = sp.IndexedBase("c", shape=(n, 4, k)), sp.Idx("l", k)
    formula = sp.Sum(sp.exp(y[j] - c[m, i, j]) - b[j] * y[j], j) + sp.Sum(y[other], other) ** 2
    return wb.Energy(formula, variables=[y], weights=[b], data=[c], over=[m, i])


def gathered():
    """`least` as a batch: what it reads at its indices is data of each instance."""
    c, other = sp.IndexedBase("c", shape=(k,)), sp.Idx("l", k)
    formula = sp.Sum(sp.exp(y[j] - c[j]) - b[j] * y[j], j) + sp.Sum(y[other], other) ** 2
    return wb.Energy(formula, variables=[y], weights=[b], data=[c])


def family_and_batch(seed=0, members=3, size=5):
    rng = np.random.default_rng(seed)
    data, values = {"c": rng.normal(size=(members, 4, size))}, {"y": rng.normal(size=(members, 4, size))}
    rows = {"c": data["c"].reshape(-1, size)}
    return {"b": rng.random(size)}, (values, data), ({"y": values["y"].reshape(-1, size)}, rows)


def test_a_family_has_the_bits_of_a_batch_of_gathered_data():
    together, batch = wb.compile(least()), wb.compile(gathered())
    w, (values, data), (flat, rows) = family_and_batch()
    v = np.random.default_rng(1).normal(size=(3, 4, 5))
    for kind in ("value", "gradient", "dense_hessian"):
        ours, theirs = getattr(together, kind)(values, w, data), getattr(batch, kind)(flat, w, rows)
        assert np.array_equal(ours.reshape(theirs.shape), theirs), kind
    assert np.array_equal(together.hvp(v, values, w, data).reshape(12, 5), batch.hvp(v.reshape(12, 5), flat, w, rows))
    ours, theirs = together.cross_adjoint(v, values, w, data), batch.cross_adjoint(v.reshape(12, 5), flat, w, rows)
    assert np.array_equal(ours["b"], theirs["b"])


def test_threads_and_the_batch_around_it_change_no_bit_of_a_member():
    kernel = wb.compile(rotations())
    values, w, data = point(batch=40)
    try:
        wb.set_threads(1)
        alone = kernel.value_gradient_hessian(values, w, data)
        wb.set_threads(2)
        shared = kernel.value_gradient_hessian(values, w, data)
    finally:
        wb.set_threads(None)
    assert np.array_equal(alone[1], shared[1])
    assert np.array_equal(dense(alone[2]), dense(shared[2]))
    order = np.random.default_rng(0).permutation(40)
    mixed = kernel.value_gradient_hessian({name: v[order] for name, v in values.items()}, w, {"x": data["x"][order]})
    assert np.array_equal(mixed[1], alone[1][order])


# ------------------------------------------------------------------------------------------- what is computed once


def with_lets():
    """Intermediates of data alone, of data and one index of two, of weights alone and of everything."""
    S, T, W = sp.IndexedBase("S", shape=(k,)), sp.IndexedBase("T", shape=(n, k)), sp.IndexedBase("W", shape=(k,))
    c, z = sp.Symbol("c", real=True), sp.Symbol("z", real=True)
    r = sp.Idx("r", 2)
    data = sp.IndexedBase("d", shape=(k, 2))
    where = {
        S[j]: sp.Sum(sp.exp(-c * data[j, r] ** 2), r),
        T[m, j]: sp.Sum(sp.cos(a[m] * data[j, r]), r) * S[j],
        W[j]: sp.exp(-c * b[j]) + i,
        z: sp.Sum(sp.log(1 + data[j, r] ** 2), j, r),
    }
    other = sp.Idx("l", k)
    formula = sp.Sum((y[j] - S[j] * a[m] * sp.cos(i) - T[m, j]) ** 2 * sp.exp(-(data[j, 0] ** 2)) * W[j], j)
    formula += sp.Sum(y[j] ** 4, j) * z + sp.Sum(y[j] * y[other], j, other) ** 2
    return wb.Energy(formula, variables=[y], weights=[a, c, b], data=[data], where=where, over=[m, i], name="lets")


def lets_point(batch=2):
    rng = np.random.default_rng(5)
    w = {"a": rng.normal(size=3), "c": 0.3, "b": rng.normal(size=5)}
    return {"y": rng.normal(size=(3, 4, 5))}, w, {"d": rng.normal(size=(batch, 5, 2))}


KINDS = ("value", "gradient", "dense_hessian", "cross")
BATCHED = [
    {},
    {"a": lambda w: np.stack([w["a"], -w["a"]])},
    {"c": lambda w: np.array([0.3, 0.5])},
    {"b": lambda w: np.stack([w["b"], w["b"] + 1])},
]


@pytest.mark.parametrize("own", BATCHED)
def test_what_members_share_is_right_in_every_derivative(own):
    ours, truth = wb.compile(with_lets()), wb.compile(with_lets(), backend="reference")
    values, w, data = lets_point()
    w = {**w, **{name: make(w) for name, make in own.items()}}
    for kind in KINDS:
        np.testing.assert_allclose(
            getattr(ours, kind)(values, w, data), getattr(truth, kind)(values, w, data), rtol=1e-10, atol=1e-11
        )
    v = np.random.default_rng(1).normal(size=(3, 4, 5))
    np.testing.assert_allclose(ours.hvp(v, values, w, data), truth.hvp(v, values, w, data), rtol=1e-10, atol=1e-11)
    for kind in ("cross_adjoint", "data_adjoint"):
        found, expected = getattr(ours, kind)(v, values, w, data), getattr(truth, kind)(v, values, w, data)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-10, atol=1e-10)


def test_weights_that_each_instance_has_give_the_bits_of_shared_ones():
    kernel = wb.compile(with_lets())
    values, w, data = lets_point()
    every = {name: np.stack([array, array]) for name, array in w.items()}
    assert np.array_equal(kernel.gradient(values, every, data), kernel.gradient(values, w, data))


def test_what_does_not_depend_on_the_family_is_in_a_program_of_its_own():
    own, common = split(share(derive(with_lets(), "value")))
    check(own)
    check(common)
    functions = {f for s in own.statements for f in ("exp", "log", "log1p") if f in str(s.expression)}
    assert functions == {"exp"}  # of weights alone: it is prepared
    text = "\n".join(map(str, common.statements))
    assert "log1p" in text and "cos" in text and "exp" in text
    assert not common.family


@pytest.mark.parametrize(
    "kind", ["value", "value_gradient", "weight_gradient", "hessian", "cross_adjoint", "data_adjoint"]
)
@pytest.mark.parametrize("seed", range(12))
def test_the_two_programs_compute_what_the_one_did(seed, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        energy = random_family(random.Random(1000 + seed)) if seed else with_lets()
    program = share(derive(energy, kind))
    own, common = split(program)
    again, nothing = split(own)
    assert nothing is None
    assert again == own
    sizes = {extent: 3 + place for place, extent in enumerate(energy.extents)}
    rng = np.random.default_rng(seed)
    extents = dict(zip(program.extents, sizes.values(), strict=True))
    inputs = {}
    for array in program.arrays.values():
        shape = tuple(max(0, int(integer(axis.stop, extents, {}))) for axis in array.axes)
        if array.role not in ("local", "output"):
            inputs[array.name] = rng.integers(0, 3, shape) if array.integer else rng.uniform(0.3, 1.5, shape)
    given = dict(inputs)
    if common is not None:
        check(common)
        done = interpret(common, inputs, extents)
        given |= {name.removeprefix("common_"): v for name, v in done.items() if name.startswith("common_")}
    check(own)
    prepared = check(prepare(own))
    for member in itertools.islice(np.ndindex(family_of(energy, sizes)), 5):
        at = {**extents, **dict(zip(program.family, member, strict=True))}
        expected = interpret(program, inputs, at)
        for made in (own, prepared):
            found = interpret(made, {n: v for n, v in given.items() if n in made.arrays}, at)
            for array in program.arrays.values():
                if array.role == "output":
                    np.testing.assert_allclose(found[array.name], expected[array.name], rtol=1e-12, atol=1e-12)


def test_what_depends_on_all_indices_is_left_to_the_members():
    u = sp.IndexedBase("u", shape=(k,))
    where = {u[j]: sp.Sum(sp.exp(-x[q, j] * (m + i)), q)}
    energy = wb.Energy(sp.Sum((y[j] - u[j]) ** 2, j), variables=[y], data=[x], where=where, over=[m, i])
    assert split(share(derive(energy, "value")))[1] is None


def test_what_depends_on_weights_alone_is_prepared_with_the_axes_of_the_family():
    program = prepare(share(derive(rotations(), "value")))
    prepared = [array for array in program.arrays.values() if array.role == "prepared"]
    assert sorted(len(array.axes) for array in prepared) == [1, 2]
    assert all(str(array.axes[0].stop) == "n1" for array in prepared)


def test_what_members_share_is_computed_once_for_bound_inputs():
    kernel = wb.compile(with_lets())
    _, w, data = lets_point()
    inputs = kernel.bind(w, data)
    assert kernel.entry("value").common is not None
    assert inputs.kept("value") is None
    ready(kernel.entry("value"), inputs)
    kept = inputs.kept("value")
    assert kept.shape[0] == 2
    ready(kernel.entry("value"), inputs)
    assert inputs.kept("value") is kept
    one = kernel.bind(w, {"d": data["d"][0]})
    ready(kernel.entry("value"), one)
    assert np.array_equal(one.kept("value")[0], kept[0])


def test_an_energy_that_is_no_family_shares_nothing():
    assert wb.compile(gathered()).entry("value").common is None


# ------------------------------------------------------------------------------------------- some rows


@pytest.fixture(scope="module", params=BACKENDS)
def lets(request):
    return wb.compile(with_lets(), backend=request.param)


@pytest.mark.parametrize("own", BATCHED[:2], ids=["weights shared", "weights of each instance"])
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, 23), min_size=1, max_size=30), seed=st.integers(0, 100))
def test_some_rows_in_any_order_give_what_they_give_among_all(lets, own, rows, seed):
    rng, rows = np.random.default_rng(seed), np.array(rows)
    _, w, data = lets_point()
    inputs = lets.bind({**w, **{name: make(w) for name, make in own.items()}}, data)
    y, again = rng.normal(size=(24, 5)), rng.integers(0, len(rows), 7)
    begin, end = np.sort(rng.integers(0, 24, 2))
    for kind in ("value", "gradient", "cross"):
        entry = lets.entry(kind)
        whole = run(entry, inputs, y, count=24)
        some = inputs.rows(rows)
        chosen = {
            "rows": (some, rows),
            "rows of rows": (some.rows(again), rows[again]),
            "a slice": (inputs.rows(slice(begin, end)), np.arange(begin, end)),
            "pickled": (pickle.loads(pickle.dumps(some)), rows),
        }
        for what, (part, numbers) in chosen.items():
            found = run(entry, part, y[numbers], count=len(numbers))
            for ours, expected in zip(found, whole, strict=True):
                np.testing.assert_array_equal(ours, expected[numbers], err_msg=f"{what}, {kind}")
            assert [part.instance(k) for k in range(len(numbers))] == (numbers // 12).tolist(), what
        last = len(rows) - 1
        np.testing.assert_array_equal(run_one(entry, some, y[rows[last]], last)[1], whole[1][rows[last]])
    assert inputs.rows(slice(None)) is inputs


def test_parts_of_inputs_share_what_members_share():
    kernel = wb.compile(with_lets())
    _, w, data = lets_point()
    inputs, entry = kernel.bind(w, data), kernel.entry("value")
    first, second = inputs.rows(np.array([3, 20])), inputs.rows(slice(1, 9))
    run(entry, first, np.zeros((2, 5)), count=2)
    kept = first.kept("value")
    assert kept is not None and second.kept("value") is kept and inputs.kept("value") is kept
    found = run(entry, second, np.zeros((8, 5)), count=8)[0]
    np.testing.assert_array_equal(found, run(entry, kernel.bind(w, data), np.zeros((24, 5)), count=24)[0][1:9])


def test_rows_of_instances_with_patterns_of_their_own_find_them():
    kernel, rng = wb.compile(chain(), backend="reference"), np.random.default_rng(0)
    inputs = kernel.bind({"g": rng.random(3)}, {"a": rng.normal(size=6), "e": rng.integers(0, 6, (4, 8, 2))})
    patterns = [kernel.pattern("hessian", inputs, row) for row in range(12)]
    rows = np.array([0, 2, 11, 5, 4, 3, 3, 9, 1])
    part = inputs.rows(rows)
    assert [kernel.pattern("hessian", part, k) for k in range(9)] == [patterns[row] for row in rows]
    spread = {k: pattern for pattern, some in kernel.patterns("hessian", part, range(1, 9)) for k in some}
    assert list(spread) == list(range(1, 9))
    assert all(spread[k] is kernel.pattern("hessian", part, k) for k in range(1, 9))
    assert len(kernel.patterns("hessian", part, range(3, 7))) == 1


# ------------------------------------------------------------------------------------------- ranges


def test_a_short_intermediate_is_read_at_an_index_of_the_family():
    short = sp.Idx("m", 3)
    u, w = sp.IndexedBase("u", shape=(3,)), sp.IndexedBase("w", shape=(3,))
    energy = wb.Energy(
        (t - u[short]) ** 2 + u[2] * t, variables=[t], weights=[w], where={u[short]: w[short] ** 2}, over=[short]
    )
    for backend in BACKENDS:
        found = wb.compile(energy, backend=backend).value({"t": 1.0}, {"w": [1.0, 2.0, 3.0]})
        assert found.tolist() == [0.0 + 9, 9.0 + 9, 64.0 + 9]


def test_a_short_intermediate_is_read_through_index_data():
    e, u, z = (
        sp.IndexedBase("e", shape=(n,), integer=True),
        sp.IndexedBase("u", shape=(3,)),
        sp.IndexedBase("z", shape=(3,)),
    )
    d = sp.Idx("d", 3)
    energy = wb.Energy(sp.Sum(u[e[q]] ** 2, q), variables=[z], data=[e], where={u[d]: 2 * z[d]})
    for backend in BACKENDS:
        found = wb.compile(energy, backend=backend).value({"z": [1.0, 2.0, 3.0]}, x={"e": [2, 1]})
        assert found == 36.0 + 16.0


def test_ranges_may_depend_on_the_family():
    below = sp.Idx("l", (0, m))
    z = sp.IndexedBase("z", shape=(n,))
    formula = sp.Sum((z[below] - t) ** 2, below) + t**2
    energy = wb.Energy(formula, variables=[t], data=[z], over=[m])
    for backend in BACKENDS:
        found = wb.compile(energy, backend=backend).value({"t": 1.0}, x={"z": [1.0, 3.0, 0.0]})
        assert found.tolist() == [1.0, 5.0, 6.0]


def test_reads_of_every_member_are_checked_not_only_those_of_the_last():
    z = sp.IndexedBase("z", shape=(k,))
    energy = wb.Energy((t - a[m] * z[4 - m]) ** 2, variables=[t], weights=[a], data=[z], over=[m])
    kernel = wb.compile(energy, backend="reference")
    assert kernel.value({"t": 0.0}, {"a": np.ones(5)}, {"z": np.ones(5)}).shape == (5,)
    with pytest.raises(wb.InputError, match=r"z\[-1\*m \+ 4\] reaches 4 on axis 0, which has extent 4"):
        kernel.value({"t": 0.0}, {"a": np.ones(5)}, {"z": np.ones(4)})
    with pytest.raises(wb.InputError, match=r"reaches -1 on axis 0"):
        kernel.value({"t": 0.0}, {"a": np.ones(6)}, {"z": np.ones(5)})


@pytest.mark.parametrize("backend", BACKENDS)
def test_reads_that_leave_an_array_for_some_member_are_refused(backend):
    z = sp.IndexedBase("z", shape=(k,))
    energy = wb.Energy((t - a[m] * z[2 * m]) ** 2, variables=[t], weights=[a], data=[z], over=[m], name="far")
    kernel = wb.compile(energy, backend=backend)
    assert kernel.value({"t": 0.0}, {"a": np.ones(3)}, {"z": np.ones(5)}).shape == (3,)
    with pytest.raises(wb.InputError, match=r"energy 'far': z\[2\*m\] reaches 4 on axis 0, which has extent 4"):
        kernel.value({"t": 0.0}, {"a": np.ones(3)}, {"z": np.ones(4)})


@pytest.mark.parametrize("backend", BACKENDS)
def test_gathers_at_an_index_of_the_family_are_checked(backend):
    e, z = sp.IndexedBase("e", shape=(n,), integer=True), sp.IndexedBase("z", shape=(k,))
    kernel = wb.compile(wb.Energy((t - z[e[m]]) ** 2, variables=[t], data=[e, z], over=[m]), backend=backend)
    assert kernel.value({"t": 0.0}, x={"e": [1, 0], "z": [2.0, 3.0]}).tolist() == [9.0, 4.0]
    with pytest.raises(wb.InputError, match=r"index data e has 2 at \[1\]"):
        kernel.value({"t": 0.0}, x={"e": [1, 2], "z": [2.0, 3.0]})


@pytest.mark.parametrize("backend", BACKENDS)
def test_variables_may_be_read_at_an_index_of_the_family(backend):
    z = sp.IndexedBase("z", shape=(n,))
    energy = wb.Energy(sp.Sum((z[q] - a[q]) ** 2, q) + a[m] * z[m] ** 3, variables=[z], weights=[a], over=[m])
    kernel = wb.compile(energy, backend=backend)
    assert kernel.structure == "dense"  # which entries are not 0 depends on the member
    hessian = kernel.hessian({"z": [1.0, 2.0]}, {"a": [1.0, 1.0]})
    assert hessian.tolist() == [[[8.0, 0.0], [0.0, 2.0]], [[2.0, 0.0], [0.0, 14.0]]]


# ------------------------------------------------------------------------------------------- sparse


def chain():
    z, e, g = (
        sp.IndexedBase("z", shape=(n,)),
        sp.IndexedBase("e", shape=(k, 2), integer=True),
        sp.IndexedBase("g", shape=(3,)),
    )
    r = sp.Idx("r", 3)
    formula = sp.Sum(g[r] * (z[e[j, 0]] - z[e[j, 1]]) ** 4, j) + sp.Sum((z[q] - a[q]) ** 2, q)
    return wb.Energy(formula, variables=[z], weights=[g], data=[a, e], over=[r], name="chain")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batched", [False, True])
def test_sparse_hessians_come_as_lists_along_the_axes(backend, batched):
    kernel = wb.compile(chain(), backend=backend)
    rng = np.random.default_rng(0)
    edges = rng.integers(0, 6, (2, 8, 2)) if batched else rng.integers(0, 6, (8, 2))
    values, w = {"z": rng.normal(size=(2, 3, 6))}, {"g": rng.random(3)}
    data = {"a": rng.normal(size=6), "e": edges}
    assert kernel.structure == "sparse"
    matrices = kernel.hessian(values, w, data)
    assert (len(matrices), len(matrices[0])) == (2, 3)
    np.testing.assert_allclose(dense(matrices), kernel.dense_hessian(values, w, data), rtol=1e-12, atol=1e-12)
    _, _, again = kernel.value_gradient_hessian(values, w, data)
    assert np.array_equal(dense(again), dense(matrices))


# ------------------------------------------------------------------------------------------- about itself


def test_explain_says_which_member_is_not_finite():
    energy = wb.Energy(sp.Sum(sp.log(x[m, j] + y[j] + a[m]), j), variables=[y], weights=[a], data=[x], over=[m])
    kernel = wb.compile(energy, backend="reference")
    found = kernel.explain({"y": np.ones(2)}, {"a": [1.0, -8.0]}, {"x": np.ones((3, 2, 2))}).not_finite
    assert (found.instance, found.member, found.kind) == (0, {"m": 1}, "value")
    assert "the value of instance 0, member m = 1 is nan" in str(found)
    assert "log(a[1] + x[1, 0] + y[0]) = nan" in str(found)


def test_explain_and_source_name_the_indices():
    kernel = wb.compile(with_lets(), backend="reference")
    assert "a[m]" in kernel.explain().program
    assert "what members have in common, for the energy" in kernel.source
    assert "m0: family m" in kernel.source
