"""Machine code against the interpreter on all energies, batches of all kinds, bits, threads, forks and pickles."""

import multiprocessing
import os
import pickle
import threading

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from energies_table import TABLE, draw
from wiberg.compiler.calls.evaluate import run
from wiberg.compiler.derive import KINDS
from wiberg.compiler.testing import dense

PLAIN = ["value", "gradient", "hessian", "cross", "value_gradient_hessian"]
WEIGHTED = [name for name, make in TABLE.items() if make().weights]
DIRECTED = ["hvp", "cross_adjoint", "data_adjoint"]
BATCHES = {"unbatched": (None, ""), "batched": (3, ""), "shared weights": (3, "weights"), "shared data": (3, "data"),
           "shared variables": (3, "variables"), "only variables": (3, "weights data"),
           "only weights": (3, "variables data")}  # fmt: skip


def unknowns(kernel, point):
    return kernel.bind(point[1], point[2], point[0]).m


def called(kernel, kind, point, seed=0):
    """What a method of a kernel gives, as a list of arrays."""
    if kind in DIRECTED:
        direction = np.random.default_rng(seed).standard_normal(unknowns(kernel, point))
        result = getattr(kernel, kind)(direction, *point)
    else:
        result = getattr(kernel, kind)(*point)
    if isinstance(result, dict):
        return [np.asarray(a) for a in result.values()]
    return [np.asarray(dense(a)) for a in (result if isinstance(result, tuple) else (result,))]


def assert_close(got, expected):
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        scale = 1 + np.abs(b).max(initial=0.0)
        np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=2e-12)


# ---------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("kind", PLAIN + DIRECTED)
def test_machine_code_agrees_with_the_interpreter(name, kind, kernels, references):
    for size in (1, 2, 6):
        point = draw(kernels[name].energy, size, seed=size)
        assert_close(called(kernels[name], kind, point), called(references[name], kind, point))


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("way", BATCHES)
def test_machine_code_agrees_with_the_interpreter_in_batches(name, way, kernels, references):
    batch, shared = BATCHES[way]
    point = draw(kernels[name].energy, 2, batch=batch, shared=shared, seed=7)
    for kind in PLAIN + DIRECTED:
        assert_close(called(kernels[name], kind, point), called(references[name], kind, point))


@pytest.mark.parametrize("name", TABLE)
def test_many_values_are_the_values_of_the_points(name, kernels):
    kernel, count = kernels[name], 5
    y, w, x = draw(kernel.energy, 3, batch=count, shared="weights data")
    inputs = kernel.bind(w, x, {n: a[0] for n, a in y.items()})
    packed = np.ascontiguousarray(kernel.variables.pack(y))
    entry = kernel.entry("many_values")
    prepared, scratch = np.empty(entry.prepared_size(inputs)), np.empty(entry.scratch_size(inputs, count))
    out, extents = np.full(count, np.nan), np.append(inputs.extents, count)
    table = inputs.table.ctypes.data
    entry.prepare.call(table, extents.ctypes.data, 0, prepared.ctypes.data)
    entry.evaluate.call(packed.ctypes.data, packed.ctypes.data, table, extents.ctypes.data, 0, prepared.ctypes.data,
                        scratch.ctypes.data, out.ctypes.data)  # fmt: skip
    np.testing.assert_allclose(out, kernel.value(y, w, x), rtol=1e-6, atol=1e-7)  # exponentials to 1e-8


@pytest.mark.parametrize("name", TABLE)
def test_value_and_gradient_in_one_pass_agree_with_each_alone(name, kernels):
    kernel = kernels[name]
    y, w, x = draw(kernel.energy, 3, batch=2)
    inputs = kernel.bind(w, x, y)
    values, out = run(kernel.entry("value_gradient"), inputs, kernel.bind_variables(y, inputs)[0])
    assert_close([values, out], [kernel.value(y, w, x), kernel.gradient(y, w, x)])


@pytest.mark.parametrize("name", ["ransac", "fusion"])
def test_candidates_are_those_declared(name, kernels):
    kernel = kernels[name]
    y, w, x = draw(kernel.energy, 4)
    inputs = kernel.bind(w, x, y)
    _, out = run(kernel.entry("candidates"), inputs, kernel.bind_variables(y, inputs)[0])
    expected = x["x"] if name == "ransac" else (w["s"] * x["c"]).ravel()
    assert kernel.candidate_count(inputs) == 4
    np.testing.assert_allclose(out[0], expected, rtol=1e-14)


# ---------------------------------------------------------------------------------------------- relations


@pytest.mark.parametrize("name", TABLE)
def test_the_hessian_is_symmetric_to_the_bit(name, kernels):
    point = draw(kernels[name].energy, 5, batch=3)
    for hessian in (kernels[name].hessian(*point), kernels[name].value_gradient_hessian(*point)[2]):
        assert np.array_equal(dense(hessian), np.swapaxes(dense(hessian), 1, 2))


@pytest.mark.parametrize("name", TABLE)
def test_hvp_is_the_hessian_times_the_direction(name, kernels):
    kernel = kernels[name]
    point = draw(kernel.energy, 4, batch=3)
    v = np.random.default_rng(1).standard_normal((3, unknowns(kernel, point)))
    assert_close([kernel.hvp(v, *point)], [np.einsum("bij,bj->bi", dense(kernel.hessian(*point)), v)])


@pytest.mark.parametrize("name", WEIGHTED)
def test_the_cross_adjoint_is_the_direction_times_the_cross_derivative(name, kernels):
    kernel = kernels[name]
    point = draw(kernel.energy, 4, batch=3)
    v = np.random.default_rng(2).standard_normal((3, unknowns(kernel, point)))
    expected = np.einsum("bi,bip->bp", v, dense(kernel.cross(*point)))
    assert_close([kernel.weights.pack(kernel.cross_adjoint(v, *point))], [expected])


@pytest.mark.parametrize("name", WEIGHTED)
def test_the_cross_adjoint_of_shared_weights_is_summed_over_the_batch(name, kernels):
    kernel = kernels[name]
    point = draw(kernel.energy, 3, batch=3, shared="weights")
    v = np.random.default_rng(3).standard_normal((3, unknowns(kernel, point)))
    expected = np.einsum("bi,bip->p", v, dense(kernel.cross(*point)))
    got = kernel.cross_adjoint(v, *point)
    assert {n: np.shape(a) for n, a in got.items()} == {n: np.shape(a) for n, a in point[1].items()}
    assert_close([kernel.weights.pack(got)], [expected])


def test_each_weight_is_summed_or_not_as_its_own_array_is_shared(kernels):
    kernel = kernels["denoise"]
    y, w, x = draw(kernel.energy, 3, batch=3)
    mixed = {**w, "tau": w["tau"][0]}
    v = np.ones((3, unknowns(kernel, (y, w, x))))
    got = kernel.cross_adjoint(v, y, mixed, x)
    assert got["sigma"].shape == (3,) and np.shape(got["tau"]) == ()


def test_the_data_adjoint_leaves_integer_data_out(kernels):
    kernel = kernels["springs"]
    point = draw(kernel.energy, 3)
    assert set(kernel.data_adjoint(np.ones(unknowns(kernel, point)), *point)) == {"anchor"}


# ---------------------------------------------------------------------------------------------- bits


@pytest.mark.parametrize("name", TABLE)
def test_an_instance_has_the_same_bits_alone_and_in_any_batch(name, kernels):
    kernel, batch = kernels[name], 7
    point = draw(kernel.energy, 4, batch=batch)
    order = np.random.default_rng(0).permutation(batch)
    v = np.random.default_rng(1).standard_normal((batch, unknowns(kernel, point)))
    shuffled = tuple({n: a[order] for n, a in part.items()} for part in point)
    alone = [tuple({n: a[k] for n, a in part.items()} for part in point) for k in range(batch)]
    for kind in ("value", "gradient", "hessian", "cross", "hvp"):
        method = getattr(kernel, kind)
        whole = dense(method(v, *point) if kind == "hvp" else method(*point))
        other = dense(method(v[order], *shuffled) if kind == "hvp" else method(*shuffled))
        assert np.array_equal(np.asarray(whole)[order], other), kind
        for k in range(batch):
            single = dense(method(v[k], *alone[k]) if kind == "hvp" else method(*alone[k]))
            assert np.array_equal(np.asarray(whole)[k], single), kind


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_bits_do_not_depend_on_the_number_of_threads(threads, kernels):
    kernel = kernels["fusion"]
    point = draw(kernel.energy, 30, batch=3000, shared="weights")
    v = np.random.default_rng(1).standard_normal((3000, 2))
    try:
        wb.set_threads(1)
        expected = [kernel.value(*point), kernel.hessian(*point), *kernel.cross_adjoint(v, *point).values()]
        wb.set_threads(threads)
        got = [kernel.value(*point), kernel.hessian(*point), *kernel.cross_adjoint(v, *point).values()]
    finally:
        wb.set_threads(2)
    assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def test_bits_do_not_depend_on_the_strides_of_an_input(kernels):
    kernel = kernels["fusion"]
    y, w, x = draw(kernel.energy, 9, batch=5)
    strided = {"c": np.repeat(x["c"], 2, axis=-1)[..., ::2], "t": x["t"][::-1].copy()[::-1]}
    assert np.array_equal(kernel.gradient(y, w, x), kernel.gradient(y, w, strided))


def test_one_instance_that_is_not_finite_does_not_touch_the_others(kernels):
    kernel = kernels["ransac"]
    y, w, x = draw(kernel.energy, 20, batch=50)
    clean = kernel.value(y, w, x)
    x["x"][7, 3] = np.nan
    got = kernel.value(y, w, x)
    assert np.isnan(got[7]) and np.array_equal(np.delete(got, 7), np.delete(clean, 7))


def test_changed_contents_of_the_same_arrays_give_new_results(kernels):
    kernel = kernels["fusion"]
    y, w, x = draw(kernel.energy, 5)
    before = kernel.gradient(y, w, x)
    w["log_sigma"] += 0.5
    x["c"][0] += 1.0
    after = kernel.gradient(y, w, x)
    assert not np.array_equal(before, after)
    assert np.array_equal(after, kernel.gradient(y, {n: a.copy() for n, a in w.items()}, x))


def test_bound_inputs_see_weights_as_they_were_bound(kernels):
    kernel = kernels["ransac"]
    y, w, x = draw(kernel.energy, 5)
    inputs = kernel.bind(w, x)
    packed, batched = kernel.bind_variables(y, inputs)
    values, _ = run(kernel.entry("value"), inputs, packed)
    assert not batched and values[0] == kernel.value(y, w, x)


# ---------------------------------------------------------------------------------------------- large


@pytest.mark.parametrize("name", ["ransac", "fusion", "logistic", "denoise", "pose"])
def test_machine_code_agrees_with_the_interpreter_at_larger_sizes(name, kernels, references):
    point = draw(kernels[name].energy, 17, seed=3)
    for kind in ("value", "gradient", "hessian", "hvp"):
        assert_close(called(kernels[name], kind, point), called(references[name], kind, point))


# ---------------------------------------------------------------------------------------------- pack and unpack


@pytest.mark.parametrize("name", ["cross_blocks", "factorisation", "circle"])
@pytest.mark.parametrize("batch", [None, 4])
def test_unpacking_what_was_packed_gives_the_same_arrays(name, batch, kernels):
    layout = kernels[name].variables
    y, _, _ = draw(kernels[name].energy, 3, batch=batch)
    packed = layout.pack(y)
    assert packed.shape[:-1] == (() if batch is None else (batch,))
    again = layout.unpack(packed)
    assert again.keys() == y.keys() and all(np.array_equal(again[n], y[n]) for n in y)


def test_packing_is_in_declared_order_and_c_order(kernels):
    layout = kernels["cross_blocks"].variables
    assert layout.names == ("p", "q", "t")
    packed = layout.pack({"t": 9.0, "q": [3.0, 4.0, 5.0], "p": [1.0, 2.0]})
    assert packed.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 9.0]


def test_the_gradient_is_in_the_order_of_packing(kernels):
    kernel = kernels["cross_blocks"]
    point = draw(kernel.energy, 3)
    h = 1e-6
    packed = kernel.variables.pack(point[0])
    for k in range(packed.size):
        step = np.eye(packed.size)[k] * h
        up, down = (kernel.value(kernel.variables.unpack(packed + s), *point[1:]) for s in (step, -step))
        assert (up - down) / (2 * h) == pytest.approx(kernel.gradient(*point)[k], rel=1e-5, abs=1e-7)


def test_packing_refuses_shapes_that_do_not_fit(kernels):
    layout = kernels["cross_blocks"].variables
    with pytest.raises(wb.WibergError, match="q"):
        layout.pack({"p": [1.0], "q": np.zeros((1, 1, 1, 1)), "t": 0.0})
    with pytest.raises(wb.WibergError, match="t"):
        layout.pack({"p": [1.0], "q": [1.0]})
    with pytest.raises(wb.WibergError):
        layout.unpack(np.zeros(5), {"n0": 1, "n1": 1})


def test_unpacking_before_anything_was_packed_says_which_extents_are_unknown():
    n, m = sp.symbols("rows columns", integer=True, positive=True)
    i, j, y = sp.Idx("i", n), sp.Idx("j", m), sp.IndexedBase("y", shape=(n, m))
    layout = wb.compile(wb.Energy(sp.Sum(y[i, j] ** 2, i, j), variables=[y]), backend="reference").variables
    with pytest.raises(wb.InputError, match="rows and columns"):
        layout.unpack(np.zeros(6))
    layout.pack({"y": np.zeros((2, 3))})
    assert layout.unpack(np.zeros(6))["y"].shape == (2, 3)


def test_shapes_of_a_layout_are_those_declared(kernels):
    assert kernels["fusion"].weights.shapes["s"] == (kernels["fusion"].energy.extents[0], 2)
    assert kernels["fusion"].weights.names == ("alpha", "beta", "log_sigma", "s")


# ---------------------------------------------------------------------------------------------- processes


def test_a_pickled_kernel_gives_the_same_bits(kernels):
    kernel = kernels["fusion"]
    point = draw(kernel.energy, 5)
    again = pickle.loads(pickle.dumps(kernel))
    assert again.energy == kernel.energy
    assert np.array_equal(again.hessian(*point), kernel.hessian(*point))


def test_a_second_thread_may_call_any_kernel(kernels):
    kernel = kernels["fusion"]
    point = draw(kernel.energy, 20, batch=500)
    expected, results = kernel.gradient(*point), []
    threads = [threading.Thread(target=lambda: results.append(kernel.gradient(*point))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(np.array_equal(r, expected) for r in results)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork of POSIX")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_may_call_any_kernel(kernels):
    kernel = kernels["fusion"]
    point = draw(kernel.energy, 20, batch=500)
    expected = kernel.gradient(*point)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(np.array_equal(kernel.gradient(*point), expected)))
    child.start()
    assert receiver.poll(60) and receiver.recv()
    child.join(60)
    assert child.exitcode == 0
    assert np.array_equal(kernel.gradient(*point), expected)


# ---------------------------------------------------------------------------------------------- about itself


def test_the_source_shows_every_kind(kernels):
    source = kernels["fusion"].source
    assert all((f"# ---- {kind}\n" in source) == ("sparse" not in kind) for kind in KINDS)


def test_the_source_of_an_energy_without_candidates_leaves_them_out(kernels):
    assert "# ---- candidates" not in kernels["huber"].source


def test_explain_shows_the_energy_and_its_program(kernels):
    text = str(kernels["ransac"].explain())
    assert "ransac" in text and "sigma" in text and "value = -t0" in text


def test_a_kernel_shows_its_energy_and_backend(references):
    assert "ransac" in repr(references["ransac"]) and "reference" in repr(references["ransac"])


def test_an_unknown_backend_is_refused_with_the_allowed(energies):
    with pytest.raises(wb.InputError, match=r"'jax'.*numba.*reference"):
        wb.compile(energies["ransac"], backend="jax")


def test_something_that_is_no_energy_is_refused(energies):
    with pytest.raises(wb.InputTypeError, match="Add"):
        wb.compile(energies["ransac"].variables[0] + 1)
