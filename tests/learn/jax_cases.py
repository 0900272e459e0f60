"""What test_jax.py runs in a process of its own: JAX makes every later fork warn, which other tests would meet."""

import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from jax.test_util import check_grads
from wiberg.learn.frameworks.layer import Layer

n, M = sp.symbols("n M", integer=True, positive=True)
i, m, t, s = sp.Idx("i", n), sp.Idx("m", M), sp.Symbol("t", real=True), sp.Symbol("s", real=True)
sigma, a = sp.symbols("sigma a", positive=True)
x, c, g = sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("c", shape=(n,)), sp.IndexedBase("g", shape=(M,))


@pytest.fixture(autouse=True)
def float64(request):
    jax.config.update("jax_enable_x64", "float32" not in request.node.name)


@pytest.fixture(scope="module")
def robust():
    formula = sp.Sum(c[i] * wb.pseudo_huber((x[i] - t) ** 2, sigma), i)
    return wb.compile(wb.Energy(formula, variables=[t], weights=[sigma, c], data=[x], name="robust"))


@pytest.fixture(scope="module")
def family():
    formula = sp.Sum(wb.pseudo_huber((x[i] + g[m] - t) ** 2, sigma), i) + (t - g[m]) ** 2
    return wb.compile(wb.Energy(formula, variables=[t], weights=[sigma, g], data=[x], over=[m], name="family"))


@pytest.fixture(scope="module")
def pair(robust):
    second = sp.Sum(a * (x[i] - s) ** 2 + sp.cos(s - x[i]) / 4, i)
    second = wb.compile(wb.Energy(second, variables=[s], weights=[a], data=[x], name="second"))
    mean, z = sp.symbols("mean z", real=True)
    return wb.Output({mean: t * a + z * s**2}, minima=[robust, second], weights=[a], data=[z], name="pair")


def drawn(*shape, seed=0, low=0.5, high=1.5):
    return jnp.asarray(np.random.default_rng(seed).uniform(low, high, shape))


def minimum(kernel, **options):
    options = {"gtol": 1e-12, "damping": 0.0, "start": {"t": 0.0}} | options

    def function(sigma, c, x):
        return wb.jax.minimise(kernel, {"sigma": sigma, "c": c}, {"x": x}, **options)["t"]

    return function


SHAPES = [
    ((), (4,), (4,)),
    ((), (3, 4), (3, 4)),
    ((3,), (4,), (3, 4)),
    ((1,), (3, 4), (4,)),
    ((3,), (1, 4), (1, 4)),
]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_are_those_of_differences(robust, shapes, compiled):
    function = minimum(robust)
    arrays = [drawn(*shape, seed=k) for k, shape in enumerate(shapes)]
    check_grads(jax.jit(function) if compiled else function, arrays, order=1, modes=["rev"], eps=1e-5, atol=1e-6)


@pytest.mark.parametrize("lead", [(), (3,)])
def test_gradients_of_an_output(pair, lead):
    def function(sigma, c, a, x, z):
        weights, data = {"sigma": sigma, "c": c, "a": a}, {"x": x, "z": z}
        found = wb.jax.minimise(pair, weights, data, start={"t": 0.0, "s": 0.0}, gtol=1e-12, damping=0.0)
        return found["mean"], found["s"]

    arrays = [drawn(*shape, seed=k) for k, shape in enumerate([(), (4,), (), (*lead, 4), ()])]
    check_grads(jax.jit(function), arrays, order=1, modes=["rev"], eps=1e-5, atol=1e-6)
    mapped = [arrays[0], jnp.stack([arrays[1], arrays[1] * 2]), arrays[2], arrays[3], jnp.array([0.3, 0.4])]
    axes = None, 0, None, None, 0
    both = jax.vmap(function, axes)(*mapped)
    for k in range(2):
        one = function(*(array if axis is None else array[k] for array, axis in zip(mapped, axes, strict=True)))
        for whole, part in zip(both, one, strict=True):
            np.testing.assert_array_equal(whole[k], part)
    check_grads(jax.vmap(function, axes), mapped, order=1, modes=["rev"], eps=1e-5, atol=1e-6)


@pytest.mark.parametrize("lead", [(), (2,)])
def test_gradients_of_a_family(family, lead):
    def function(sigma, g, x, start):
        data = {"x": x}
        return wb.jax.minimise(family, {"sigma": sigma, "g": g}, data, start={"t": start}, gtol=1e-12, damping=0.0)["t"]

    arrays = [drawn(), drawn(3, seed=1), drawn(*lead, 4, seed=2)]
    assert function(*arrays, 0.0).shape == (*lead, 3)
    check_grads(lambda *v: function(*v, 0.0), arrays, order=1, modes=["rev"], eps=1e-5, atol=1e-6)
    starts = jnp.array([0.0, 0.1])
    mapped = jax.vmap(function, (None, None, None, 0))(*arrays, starts)
    np.testing.assert_allclose(mapped, jnp.stack([function(*arrays, start) for start in starts]), rtol=1e-9)
    gradient = jax.vmap(jax.grad(lambda *v: function(*v).sum(), argnums=1), (None, None, None, 0))(*arrays, starts)
    np.testing.assert_allclose(gradient[0], jax.grad(lambda *v: function(*v, 0.0).sum(), argnums=1)(*arrays), rtol=1e-9)


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("mapped", [(0, None, None), (None, 0, None), (0, 0, 0), (None, None, 0)], ids=str)
def test_vmap_is_a_loop_with_the_same_bits(robust, shapes, mapped):
    function = minimum(robust)
    arrays = [
        drawn(*(() if axis is None else (5,)), *shape, seed=k)
        for k, (shape, axis) in enumerate(zip(shapes, mapped, strict=True))
    ]

    def loss(*arrays):
        return jnp.sum(function(*arrays) ** 3)

    whole = jax.vmap(function, mapped)(*arrays)
    gradients = jax.vmap(jax.grad(loss, argnums=(0, 1, 2)), mapped)(*arrays)
    for k in range(5):
        one = [array if axis is None else array[k] for array, axis in zip(arrays, mapped, strict=True)]
        np.testing.assert_array_equal(whole[k], function(*one))
        for batch, single in zip(gradients, jax.grad(loss, argnums=(0, 1, 2))(*one), strict=True):
            np.testing.assert_allclose(batch[k], single, rtol=1e-12, atol=1e-14)


def test_vmap_within_vmap_under_jit(robust):
    function = minimum(robust)
    sigmas, xs = drawn(2), drawn(3, 4, seed=1)
    nested = jax.jit(jax.vmap(jax.vmap(function, (None, None, 0)), (0, None, None)))(sigmas, jnp.ones(4), xs)
    for k in range(2):
        np.testing.assert_array_equal(nested[k], function(sigmas[k], jnp.ones(4), xs))


def test_the_gradient_of_what_is_not_mapped_is_a_sum(robust):
    xs = drawn(6, 4)

    def total(sigma, by_batch):
        function = minimum(robust)
        if by_batch:
            return jnp.sum(function(sigma, jnp.ones(4), xs) ** 2)
        return jnp.sum(jax.vmap(function, (None, None, 0))(sigma, jnp.ones(4), xs) ** 2)

    one, two = (jax.grad(total)(1.2, by_batch) for by_batch in (True, False))
    np.testing.assert_allclose(one, two, rtol=1e-12)


def test_gradients_are_the_damped_ones(robust):
    arrays = [drawn(), drawn(5, 4, seed=1), drawn(5, 4, seed=2)]
    slopes = np.linspace(-1, 1, 5)
    found, pull = jax.vjp(minimum(robust, damping=0.3, gtol=1e-8), *arrays)
    pulled = pull(jnp.asarray(slopes))
    w, data = {"sigma": float(arrays[0]), "c": np.asarray(arrays[1])}, {"x": np.asarray(arrays[2])}
    solution = wb.minimise(robust, w, data, start={"t": 0.0})
    np.testing.assert_array_equal(found, solution.variables["t"])
    expected = wb.implicit_gradient(robust, solution, {"t": slopes}, damping=0.3)
    np.testing.assert_allclose(pulled[0], expected["sigma"], rtol=1e-13)
    np.testing.assert_allclose(pulled[1], expected["c"], rtol=1e-13)
    by_data = wb.implicit_data_gradient(robust, solution, {"t": slopes}, damping=0.3)
    np.testing.assert_array_equal(pulled[2], by_data["x"])


def test_bounds_hold_in_the_derivative_too(robust):
    xs = drawn(12, 4, low=-2, high=2)
    function = minimum(robust, bounds={"t": (-0.2, 0.4)})
    gradient = jax.jit(jax.grad(lambda x: function(1.0, jnp.ones(4), x).sum()))(xs)
    found = function(1.0, jnp.ones(4), xs)
    held = np.asarray((found == -0.2) | (found == 0.4))
    assert held.any() and (np.asarray(gradient)[held] == 0).all()
    assert (np.asarray(gradient)[~held] != 0).any()
    np.testing.assert_array_equal(gradient, jax.vmap(jax.grad(lambda x: function(1.0, jnp.ones(4), x)))(xs))


def test_what_did_not_converge_counts_as_asked():
    z, weight = sp.symbols("z weight", real=True)
    kernel = wb.compile(wb.Energy(z * (t - weight) ** 2 / 2, variables=[t], weights=[weight], data=[z], name="spring"))

    def total(weight, **options):
        return wb.jax.minimise(kernel, {"weight": weight}, {"z": [1.0, -1.0]}, start={"t": 0.0}, **options)["t"].sum()

    assert np.isnan(jax.grad(lambda w: total(w, unconverged="nan"))(1.0))
    with pytest.warns(wb.UnconvergedWarning):
        assert np.isclose(jax.grad(total)(1.0), 1 / 1.1)


def test_float32_is_computed_in_float64(robust):
    arrays = [np.float32(1.3), *(np.random.default_rng(k).uniform(0.5, 1.5, (3, 4)).astype(np.float32) for k in (1, 2))]

    def function(sigma, c, x):
        return wb.jax.minimise(robust, {"sigma": sigma, "c": c}, {"x": x}, start={"t": 0.0})["t"]

    found, pull = jax.vjp(jax.jit(function), *arrays)
    assert found.dtype == np.float32
    pulled = pull(jnp.ones(3, np.float32))
    w, data = {"sigma": arrays[0], "c": arrays[1]}, {"x": arrays[2]}
    solution = wb.minimise(robust, w, data, start={"t": 0.0})
    np.testing.assert_array_equal(found, solution.variables["t"].astype(np.float32))
    expected = wb.implicit_gradient(robust, solution, {"t": np.ones(3)})
    np.testing.assert_array_equal(pulled[0], np.float32(expected["sigma"]))
    np.testing.assert_array_equal(pulled[1], expected["c"].astype(np.float32))


def test_nothing_of_jax_is_called_while_numpy_works(robust, monkeypatch):
    calls, modules = [], set()

    def watched(method):
        def watching(*given, **options):
            def profile(frame, event, argument):
                modules.add(frame.f_globals.get("__name__", "").split(".")[0])

            calls.append(method.__name__)
            previous = sys.getprofile()
            sys.setprofile(profile)
            try:
                return method(*given, **options)
            finally:
                sys.setprofile(previous)

        return watching

    for name in ("minimise", "gradients"):
        monkeypatch.setattr(Layer, name, watched(getattr(Layer, name)))
    gradient = jax.jit(jax.vmap(jax.grad(minimum(robust), argnums=2), (None, None, 0)))
    jax.block_until_ready(gradient(1.0, jnp.ones(4), drawn(3, 4)))
    assert set(calls) == {"minimise", "gradients"} and "wiberg" in modules
    assert not modules & {"jax", "jaxlib"}


def test_large_arrays_in_a_loop_do_not_lock(robust):
    xs = drawn(20_000, 16)
    step = jax.jit(jax.value_and_grad(lambda sigma, x: jnp.mean(minimum(robust)(sigma, jnp.ones(16), x) ** 2)))
    value = 1.0
    for _ in range(20):
        loss, slope = step(value, xs)
        value = value - 0.01 * slope
    assert np.isfinite(loss)


def test_equal_calls_are_compiled_once(robust):
    function = jax.grad(minimum(robust, bounds={"t": (np.array(-1.0), 1.0)}), argnums=2)
    arrays = drawn(), jnp.ones(4), drawn(4, seed=1)
    function(*arrays)
    with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        import logging

        compiled = []
        handler = logging.Handler()
        handler.emit = lambda record: compiled.append(record.getMessage())
        logging.getLogger("jax").addHandler(handler)
        patch.setattr(logging.getLogger("jax"), "propagate", False)
        function(*arrays)
        logging.getLogger("jax").removeHandler(handler)
    assert not [text for text in compiled if "Finished XLA compilation" in text]


def test_integer_arrays_and_candidates(robust):
    e = sp.IndexedBase("e", shape=(n,), integer=True)
    kernel = wb.compile(wb.Energy(sp.Sum(a * (x[e[i]] - t) ** 2, i), variables=[t], weights=[a], data=[x, e]))

    def function(x, e):
        return wb.jax.minimise(kernel, {"a": 2}, {"x": x, "e": e}, candidates={"t": [0.0, 1.0]}, damping=0.0)["t"]

    xs, es = jnp.array([1.0, 2.0, 6.0]), jnp.array([2, 2, 0])
    np.testing.assert_allclose(jax.grad(function)(xs, es), [1 / 3, 0, 2 / 3])
    many = jax.vmap(jax.grad(function), (None, 0))(xs, jnp.array([[2, 2, 0], [0, 1, 2]]))
    np.testing.assert_allclose(many, [[1 / 3, 0, 2 / 3], [1 / 3, 1 / 3, 1 / 3]])


def test_a_solution_is_a_start(robust):
    w, data = {"sigma": 1.0, "c": np.ones(4)}, {"x": np.random.default_rng(0).standard_normal((3, 4))}
    solution = wb.minimise(robust, w, data, start={"t": 0.0})
    found = wb.jax.minimise(robust, w, data, start=solution)["t"]
    np.testing.assert_array_equal(found, solution.variables["t"])


def test_bad_arguments_are_refused_by_name(robust):
    ones, data = jnp.ones(4), {"x": jnp.ones(4)}
    with pytest.raises(wb.NameMissingError, match=r"wb.jax.minimise of 'robust': c is missing in weights"):
        wb.jax.minimise(robust, {"sigma": 1.0}, data, start={"t": 0.0})
    with pytest.raises(wb.InputTypeError, match="no option 'gtoll'; did you mean 'gtol'"):
        wb.jax.minimise(robust, {"sigma": 1.0, "c": ones}, data, start={"t": 0.0}, gtoll=1)
    with pytest.raises(wb.InputError, match="unknown variable 'u' in start"):
        wb.jax.minimise(robust, {"sigma": 1.0, "c": ones}, data, start={"u": 0.0})
    with pytest.raises(wb.InputTypeError, match="start must be a dict by name"):
        wb.jax.minimise(robust, {"sigma": 1.0, "c": ones}, data, start=ones)
    with pytest.raises(wb.InputError, match="extent n"):
        wb.jax.minimise(robust, {"sigma": 1.0, "c": jnp.ones(5)}, data, start={"t": 0.0})
    with pytest.raises(Exception, match=r"NaN|nan|not finite"):
        jax.block_until_ready(wb.jax.minimise(robust, {"sigma": jnp.nan, "c": ones}, data, start={"t": 0.0}))


def test_a_loop_of_jax_learns(robust):
    random = np.random.default_rng(0)
    truth = random.standard_normal(300)
    xs = truth[:, None] + random.standard_normal((300, 8)) * np.array([0.1] * 4 + [3.0] * 4)

    def loss(logits):
        function = minimum(robust, damping=0.1, gtol=1e-8)
        return jnp.mean((function(1.0, jax.nn.softmax(logits), xs) - truth) ** 2)

    step, logits = jax.jit(jax.value_and_grad(loss)), jnp.zeros(8)
    first, _ = step(logits)
    for _ in range(60):
        last, slope = step(logits)
        logits = logits - 20.0 * slope
    assert last < first / 3 and logits[:4].min() > logits[4:].max()
