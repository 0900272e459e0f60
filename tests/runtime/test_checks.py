"""Numbers that make nonsense of a minimisation are found, wherever they stand; nothing else is."""

import math
import pickle

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.energies.errors import InputError
from wiberg.runtime.checks import are_sound, check_finite, check_positive

n = sp.Symbol("n", integer=True, positive=True)
i = sp.Idx("i", n)
t, free = sp.Symbol("t", real=True), sp.Symbol("free", real=True)
scale = sp.IndexedBase("scale", shape=(n,), positive=True)
a, b = sp.IndexedBase("a", shape=(n,)), sp.IndexedBase("b", shape=(n,), integer=True)
ROLES = {"variables": [t], "weights": [scale, free], "data": [a, b]}
ENERGY = wb.Energy(sp.Sum(scale[i] * (t - a[i] - free * b[i]) ** 2, i), **ROLES)
NAMES = ("scale", "free", "a")
BAD = (math.nan, math.inf, -math.inf)


@pytest.fixture(scope="module")
def kernel():
    return wb.compile(ENERGY, backend="reference")


def drawn(seed, size, batch, batched):
    """Arrays by name that are as they must be; those in `batched` have a batch axis of this size, or of 1."""
    random = np.random.default_rng(seed)
    lead = {name: (() if name not in batched else (batch if random.random() < 0.7 else 1,)) for name in (*NAMES, "b")}
    return {
        "scale": np.exp(40 * random.standard_normal((*lead["scale"], size))),
        "free": np.array(1e300 * random.standard_normal(lead["free"])),
        "a": 1.7e308 * random.uniform(-1, 1, (*lead["a"], size)),
        "b": random.integers(-5, 5, (*lead["b"], size)),
    }


def bound(kernel, arrays):
    return kernel.bind(*({name: arrays[name] for name in names} for names in (("scale", "free"), ("a", "b"))))


@settings(max_examples=300)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 40),
    st.integers(0, 20),
    st.sets(st.sampled_from([*NAMES, "b"])),
    st.sampled_from([None, *NAMES]),
    st.sampled_from([*BAD, 0.0, -0.0, -1.0, 5e-324]),
)
def test_one_number_among_sound_ones_is_found(kernel, seed, size, batch, batched, name, number):
    """Sums that overflow are no reason; an array that has no numbers has none that are bad."""
    arrays = drawn(seed, size, batch, batched)
    if name is not None and arrays[name].size:
        arrays[name].reshape(-1)[seed % arrays[name].size] = number
    inputs = bound(kernel, arrays)
    finite = all(np.isfinite(array).all() for array in arrays.values())
    assert are_sound(inputs) == (finite and bool((arrays["scale"] > 0.0).all()))


@given(st.integers(0, 2**32 - 1), st.sampled_from(NAMES), st.sampled_from([*BAD, -1.0]))
def test_what_is_not_sound_is_named(kernel, seed, name, number):
    """Whatever the pass over all numbers refuses, the functions that say why refuse, too."""
    arrays = drawn(seed, 7, 5, {"scale", "a"})
    arrays[name].reshape(-1)[seed % arrays[name].size] = number
    inputs = bound(kernel, arrays)
    if are_sound(inputs):
        assert number == -1.0 and name != "scale"
        return
    with pytest.raises(InputError, match=f"(weight|data) {name}"):
        check_positive(kernel, inputs)
        check_finite(kernel, inputs)


@given(st.integers(0, 2**32 - 1), st.integers(2, 20))
def test_numbers_of_other_instances_do_not_count(kernel, seed, batch):
    random = np.random.default_rng(seed)
    arrays = {**drawn(seed, 3, batch, ()), "a": random.standard_normal((batch, 3))}
    bad = int(random.integers(batch))
    arrays["a"][bad, 1] = math.nan
    inputs = bound(kernel, arrays)
    some = np.sort(random.permutation(batch)[: int(random.integers(1, batch + 1))])
    assert are_sound(inputs.rows(some)) == (bad not in some)
    assert are_sound(inputs.rows(slice(0, bad + 1))) is False


def test_arrays_that_cannot_be_written_to_are_looked_at(kernel):
    arrays = drawn(0, 4, 1, ())
    arrays["a"][2] = math.inf
    arrays["a"].flags.writeable = False
    assert not are_sound(bound(kernel, arrays))


def test_a_copy_of_bound_inputs_knows_its_own_numbers(kernel):
    arrays = drawn(0, 4, 3, {"a"})
    inputs = bound(kernel, arrays)
    copied = pickle.loads(pickle.dumps(inputs))
    copied.arrays[2][0, 0] = math.nan
    assert are_sound(inputs) and not are_sound(copied)


# ---------------------------------------------------------------------------------------------- one instance


@pytest.fixture(scope="module")
def prepared():
    """Numbers that depend on weights alone are prepared: once for a batch, by the driver for one instance."""
    residual = (t - a[i] - free * b[i]) / sp.exp(scale[i])
    kernel = wb.compile(wb.Energy(sp.Sum(sp.sqrt(1 + residual**2), i), **ROLES))
    inputs = kernel.bind({"scale": np.ones(3), "free": 0.0}, {"a": np.zeros(3), "b": np.ones(3, int)})
    assert all(kernel.entry(k).prepared_size(inputs) for k in ("value_gradient_hessian", "value", "cross_adjoint"))
    return kernel


def test_an_instance_by_itself_has_the_bits_it_has_in_a_batch(prepared):
    kernel, random = prepared, np.random.default_rng(0)
    w = {"scale": np.exp(random.standard_normal(6)), "free": 0.3}
    x = {"a": random.standard_normal((4, 6)), "b": random.integers(-3, 3, 6)}
    whole = wb.minimise(kernel, w, x, start={"t": 0.5})
    slopes = random.standard_normal(4)
    each = [{**x, "a": x["a"][k]} for k in range(4)]
    for k, datum in enumerate(each):
        one = wb.minimise(kernel, w, datum, start={"t": 0.5})
        again = wb.minimise(kernel, w, {**x, "a": x["a"][k : k + 1]}, start={"t": 0.5})
        for found in (one.variables["t"], again.variables["t"][0]):
            assert found == whole.variables["t"][k]
        assert (one.energy, one.gradient_norm, one.curvature) == tuple(
            field[k] for field in (whole.energy, whole.gradient_norm, whole.curvature)
        )
        gradient = wb.implicit_gradient(kernel, one, {"t": slopes[k]})
        batched = {name: np.stack([value] * 4) for name, value in w.items()}
        every = wb.minimise(kernel, batched, x, start={"t": 0.5})
        for name, value in wb.implicit_gradient(kernel, every, {"t": slopes}).items():
            assert np.array_equal(gradient[name], value[k])


def test_what_drivers_remember_of_shapes_is_not_taken_along(prepared):
    kernel = prepared
    w, x = {"scale": np.ones(3), "free": 0.0}, {"a": np.arange(3.0), "b": np.ones(3, int)}
    solution = wb.minimise(kernel, w, x, start={"t": 0.0})
    assert solution.inputs.drivers
    copied = pickle.loads(pickle.dumps(solution.inputs))
    assert copied.drivers == {}
    restored = pickle.loads(pickle.dumps(solution))
    assert wb.minimise(kernel, w, x, start=restored).variables["t"] == pytest.approx(1.0, abs=1e-7)


def test_scalars_of_numpy_and_python_are_bound_alike(prepared):
    kernel = prepared
    x = {"a": np.arange(3.0), "b": np.ones(3, int)}
    found = [
        wb.minimise(kernel, {"scale": np.ones(3), "free": free}, x, start={"t": start}).variables["t"]
        for free, start in ((0.1, 2.0), (np.float64(0.1), np.float64(2.0)), (np.array(0.1), np.array(2.0)))
    ]
    assert found[0] == found[1] == found[2]
