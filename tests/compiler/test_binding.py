"""How arrays are read: what is accepted and converted, what is refused by which names, what is never written."""

import pickle
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import sympy as sp
import wiberg as wb
from energies_table import TABLE, draw

X = np.array([0.5, -1.0, 2.0, 0.25])
Y, W = {"t": 0.3}, {"sigma": 1.5}


@pytest.fixture(scope="module")
def ransac():
    return wb.compile(TABLE["ransac"](), backend="reference")


@pytest.fixture(scope="module")
def expected(ransac):
    return ransac.value(Y, W, {"x": X})


def refused(call, kind, *names):
    """The error, whose message has all the names in order."""
    with pytest.raises(kind, match=".*".join(names)) as caught:
        call()
    assert isinstance(caught.value, wb.WibergError)
    return caught.value


# ---------------------------------------------------------------------------------------------- accepted


@pytest.mark.parametrize("convert", [
    lambda x: x.astype(np.float32), lambda x: x.tolist(), lambda x: tuple(x), lambda x: pd.Series(x),
    lambda x: pd.DataFrame({"a": x})["a"], lambda x: np.repeat(x, 3)[::3], lambda x: x[::-1].copy()[::-1],
    lambda x: np.asfortranarray(x), lambda x: x.astype(">f8"), lambda x: x.astype(np.longdouble),
    lambda x: np.ma.array(x).data, lambda x: memoryview(x),
], ids=["float32", "list", "tuple", "series", "column", "strided", "reversed", "fortran", "big endian", "long double",
        "masked data", "memoryview"])  # fmt: skip
def test_arrays_of_many_kinds_are_read_as_float64(convert, ransac, expected):
    assert ransac.value(Y, W, {"x": convert(X)}) == expected


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint16, bool])
def test_integers_are_read_as_float64(kind, ransac):
    x = np.array([0, 1, 1, 0])
    assert ransac.value(Y, W, {"x": x.astype(kind)}) == ransac.value(Y, W, {"x": x.astype(float)})


@pytest.mark.parametrize("scalar", [2, 2.0, np.float32(2), np.int64(2), np.array(2.0), np.array(2)])
def test_scalars_of_many_kinds_are_read_as_float64(scalar, ransac):
    assert ransac.value({"t": scalar}, W, {"x": X}) == ransac.value({"t": 2.0}, W, {"x": X})
    assert ransac.value(Y, {"sigma": scalar}, {"x": X}) == ransac.value(Y, {"sigma": 2.0}, {"x": X})


def test_results_are_float64_whatever_the_input(ransac):
    gradient = ransac.gradient({"t": np.float32(1)}, {"sigma": 1}, {"x": X.astype(np.float32)})
    assert gradient.dtype == np.float64
    assert isinstance(ransac.value(Y, W, {"x": X}), float)


def test_read_only_arrays_are_accepted(ransac, expected):
    x = X.copy()
    x.flags.writeable = False
    assert ransac.value(Y, W, {"x": x}) == expected


@pytest.mark.parametrize("name", ["fusion", "pose", "springs", "convolution", "denoise"])
def test_inputs_are_never_written(name):
    kernel = wb.compile(TABLE[name](), backend="reference")
    point = draw(kernel.energy, 3, batch=2)
    before = [{n: a.copy() for n, a in part.items()} for part in point]
    m = kernel.bind(point[1], point[2], point[0]).m
    for call in (kernel.value, kernel.gradient, kernel.hessian, kernel.cross):
        call(*point)
    for call in (kernel.hvp, kernel.cross_adjoint, kernel.data_adjoint):
        call(np.ones(m), *point)
    for part, copy in zip(point, before, strict=True):
        assert all(np.array_equal(part[n], copy[n]) for n in part)


def test_an_array_is_bound_without_a_copy_where_none_is_needed(ransac):
    assert ransac.bind(W, {"x": X}).arrays[1] is X


def test_changed_contents_of_the_same_array_give_new_results(ransac):
    x = X.copy()
    before = ransac.value(Y, W, {"x": x})
    x[0] = 9.0
    assert ransac.value(Y, W, {"x": x}) != before


def test_weights_and_data_may_be_left_out_where_there_are_none():
    kernel = wb.compile(TABLE["alone"](), backend="reference")
    assert kernel.value({"t": 3.0, "u": 2.0}) == 0.0
    assert kernel.value({"t": 3.0, "u": 2.0}, None, None) == kernel.value({"t": 3.0, "u": 2.0}, {}, {})


# ---------------------------------------------------------------------------------------------- batches


def test_nothing_batched_gives_unbatched_results(ransac):
    assert isinstance(ransac.value(Y, W, {"x": X}), float)
    assert ransac.gradient(Y, W, {"x": X}).shape == (1,)
    assert ransac.hessian(Y, W, {"x": X}).shape == ransac.cross(Y, W, {"x": X}).shape == (1, 1)


@pytest.mark.parametrize("batched", ["t", "sigma", "x", "t sigma", "t x", "sigma x", "t sigma x"])
def test_a_batch_exists_if_any_array_carries_one(batched, ransac):
    lead = {name: (3,) if name in batched.split() else () for name in ("t", "sigma", "x")}
    t, sigma = np.full(lead["t"], 0.3), np.full(lead["sigma"], 1.5)
    x = np.broadcast_to(X, (*lead["x"], 4))
    assert ransac.value({"t": t}, {"sigma": sigma}, {"x": x}).shape == (3,)
    assert ransac.cross({"t": t}, {"sigma": sigma}, {"x": x}).shape == (3, 1, 1)


@pytest.mark.parametrize("ones", ["t", "x", "sigma", "t x"])
def test_a_batch_axis_of_one_is_shared_by_a_larger_batch(ones, ransac):
    count = {name: 1 if name in ones.split() else 3 for name in ("t", "sigma", "x")}
    values = ransac.value({"t": np.full(count["t"], 0.3)}, {"sigma": np.full(count["sigma"], 1.5)},
                          {"x": np.broadcast_to(X, (count["x"], 4))})  # fmt: skip
    assert values.shape == (3,) and (values == ransac.value(Y, W, {"x": X})).all()


def test_a_batch_of_one_stays_a_batch(ransac):
    assert ransac.value({"t": [0.3]}, W, {"x": X}).shape == (1,)
    assert ransac.value(Y, W, {"x": X[None]}).shape == (1,)


def test_an_empty_batch_gives_empty_results(ransac):
    empty = {"t": np.empty(0)}, W, {"x": np.empty((0, 4))}
    assert ransac.value(*empty).shape == (0,)
    assert ransac.gradient(*empty).shape == (0, 1)
    assert ransac.hessian(*empty).shape == ransac.cross(*empty).shape == (0, 1, 1)
    assert ransac.hvp(np.empty((0, 1)), *empty).shape == (0, 1)
    assert ransac.cross_adjoint(np.ones(1), *empty)["sigma"] == 0.0
    assert ransac.data_adjoint(np.ones(1), *empty)["x"].shape == (0, 4)


def test_an_empty_sum_is_zero(ransac):
    empty = Y, W, {"x": np.empty(0)}
    assert ransac.value(*empty) == 0.0
    assert np.array_equal(ransac.gradient(*empty), [0.0])
    assert np.array_equal(ransac.hessian(*empty), [[0.0]])
    assert ransac.data_adjoint(np.ones(1), *empty)["x"].shape == (0,)


def test_no_unknowns_give_empty_derivatives():
    kernel = wb.compile(TABLE["quadratic"](), backend="reference")
    empty = {"y": np.empty(0)}, {"A": np.empty((0, 0))}, {"x": np.empty(0)}
    assert kernel.value(*empty) == 0.0
    assert kernel.gradient(*empty).shape == (0,)
    assert kernel.hessian(*empty).shape == (0, 0)


def test_batch_sizes_that_disagree_are_refused_with_both(ransac):
    refused(lambda: ransac.value({"t": np.zeros(4)}, W, {"x": np.zeros((5, 3))}), wb.InputError, "'ransac'", "t",
            "4", "5")  # fmt: skip
    refused(lambda: ransac.value(Y, {"sigma": np.ones(2)}, {"x": np.zeros((3, 4))}), wb.InputError, "'ransac'",
            "sigma has 2", "x has 3")  # fmt: skip


def test_a_direction_of_a_wrong_shape_is_refused(ransac):
    for v in (np.ones(2), np.ones((1, 1, 1)), 1.0):
        refused(lambda v=v: ransac.hvp(v, Y, W, {"x": X}), wb.InputError, "'ransac'", "v", r"\(1,\)")
    refused(lambda: ransac.hvp(np.ones((2, 1)), {"t": np.zeros(3)}, W, {"x": X}), wb.InputError, "v has 2")


@pytest.mark.parametrize("v", [[1j], ["a"], [None]])
def test_a_direction_that_is_no_number_is_refused(v, ransac):
    refused(lambda: ransac.hvp(v, Y, W, {"x": X}), wb.WibergError, "'ransac'", "v")


# ---------------------------------------------------------------------------------------------- names


def test_a_missing_weight_is_named_with_what_is_needed(ransac):
    error = refused(lambda: ransac.value(Y, {}, {"x": X}), wb.NameMissingError, "'ransac'", "sigma", r"sigma \(\)")
    assert isinstance(error, KeyError)


def test_a_missing_datum_is_named_with_its_shape(ransac):
    refused(lambda: ransac.value(Y, W), wb.NameMissingError, "'ransac'", r"x \(n,\)")


def test_a_misspelt_name_is_answered_with_the_nearest(ransac):
    refused(lambda: ransac.value({"tt": 0.0}, W, {"x": X}), wb.NameMissingError, "'tt'", "did you mean 't'")
    refused(lambda: ransac.value(Y, {"sigmma": 1.0}, {"x": X}), wb.NameMissingError, "'sigmma'", "did you mean 'sigma'")


def test_an_unknown_name_beside_the_known_is_refused(ransac):
    refused(lambda: ransac.value(Y, W, {"x": X, "z": X}), wb.NameMissingError, "'ransac'", "'z'", "x")


@pytest.mark.parametrize("y", [[0.3], 0.3, None, np.zeros(1), "t"])
def test_variables_that_are_no_dict_are_refused(y, ransac):
    refused(lambda: ransac.value(y, W, {"x": X}), wb.WibergError, "'ransac'", "variable")


@pytest.mark.parametrize("w", [[1.0], 1.0, "sigma"])
def test_weights_that_are_no_dict_are_refused(w, ransac):
    refused(lambda: ransac.value(Y, w, {"x": X}), wb.InputTypeError, "'ransac'", "weight")


# ---------------------------------------------------------------------------------------------- shapes


def test_an_array_with_too_many_axes_is_refused_with_what_is_expected(ransac):
    refused(lambda: ransac.value(Y, W, {"x": np.zeros((2, 4, 110))}), wb.InputError, "'ransac'", "x",
            r"\(2, 4, 110\)", r"\(n,\)", r"\(B, n")  # fmt: skip


def test_an_array_with_too_few_axes_is_refused(ransac):
    refused(lambda: ransac.value(Y, W, {"x": 3.0}), wb.InputError, "'ransac'", "x", r"\(n,\)")


def test_a_ragged_list_is_refused(ransac):
    refused(lambda: ransac.value(Y, W, {"x": [[1.0, 2.0], [3.0]]}), wb.WibergError, "'ransac'", "x")


def test_extents_that_disagree_are_refused_with_both():
    kernel = wb.compile(TABLE["line_cauchy"](), backend="reference")
    refused(lambda: kernel.value({"t": 0.0, "u": 0.0}, {"sigma": 1.0}, {"x": np.zeros(110), "y": np.zeros(72)}),
            wb.InputError, "'line_cauchy'", "n", "110", "y", "72")  # fmt: skip


def test_an_extent_of_the_variables_must_agree_with_the_data():
    kernel = wb.compile(TABLE["quadratic"](), backend="reference")
    refused(lambda: kernel.value({"y": np.zeros(4)}, {"A": np.zeros((3, 3))}, {"x": np.zeros(3)}), wb.InputError,
            "'quadratic'", "n", "3", "y", r"\(4,\)")  # fmt: skip


def test_a_literal_extent_must_be_as_declared():
    kernel = wb.compile(TABLE["circle"](), backend="reference")
    refused(lambda: kernel.value({"centre": np.zeros(3), "radius": 1.0}, {"w": np.ones(4)}, {"x": np.zeros((4, 2))}),
            wb.InputError, "'circle'", "centre", r"\(3,\)", r"\(2,\)")  # fmt: skip


def test_an_extent_that_is_a_sum_must_fit():
    kernel = wb.compile(TABLE["convolution"](), backend="reference")
    y, w, x = draw(kernel.energy, 3)
    refused(lambda: kernel.value({"y": np.zeros(len(y["y"]) + 1)}, w, x), wb.InputError, "'convolution'", "y")


def test_an_extent_that_only_the_variables_have_is_read_from_them():
    kernel = wb.compile(TABLE["rosenbrock"](), backend="reference")
    assert kernel.gradient({"y": np.ones(6)}, {"b": 100.0}).shape == (6,)
    refused(lambda: kernel.bind({"b": 100.0}), wb.InputError, "'rosenbrock'", "n", "y")


# ---------------------------------------------------------------------------------------------- kinds


@pytest.mark.parametrize("x", [
    X.astype(complex), X.astype(object), X.astype(str), [None, 1.0], np.array(["2020-01-01"] * 4, dtype="M8[D]"),
    {"a": 1}, object(),
], ids=["complex", "object", "str", "None", "dates", "dict", "thing"])  # fmt: skip
def test_arrays_that_are_no_real_numbers_are_refused(x, ransac):
    error = refused(lambda: ransac.value(Y, W, {"x": x}), wb.InputTypeError, "'ransac'", "x", "dtype")
    assert isinstance(error, TypeError)


def test_the_first_odd_entry_of_an_object_array_is_shown(ransac):
    refused(lambda: ransac.value(Y, W, {"x": [1.0, 2.0, None, 3.0]}), wb.InputTypeError, r"x\[2\] = None")


# ---------------------------------------------------------------------------------------------- index data


@pytest.fixture(scope="module")
def springs():
    return wb.compile(TABLE["springs"](), backend="reference")


def spring_point(edges):
    edges = np.array(edges) if not isinstance(edges, np.ndarray) else edges
    m = edges.shape[-2]
    return {"p": np.zeros((4, 2))}, {"rest": np.ones(m), "sigma": 1.0}, {"e": edges, "anchor": np.zeros((4, 2))}


def test_index_data_within_range_are_accepted(springs):
    assert np.isfinite(springs.value(*spring_point([[0, 3], [3, 0]])))


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.uint64])
def test_index_data_of_any_integer_kind_are_accepted(kind, springs):
    edges = np.array([[0, 3], [1, 2]])
    assert springs.value(*spring_point(edges.astype(kind))) == springs.value(*spring_point(edges))


@pytest.mark.parametrize(("edges", "bad", "where"), [
    ([[0, 1], [2, 4]], "4", r"\[1, 1\]"), ([[0, 1], [-1, 2]], "-1", r"\[1, 0\]"), ([[0, 120]], "120", r"\[0, 1\]"),
])  # fmt: skip
def test_index_data_out_of_range_are_refused_with_the_entry_and_what_is_allowed(edges, bad, where, springs):
    refused(lambda: springs.value(*spring_point(edges)), wb.InputError, "'springs'", "e", bad, where, r"0\.\.3")


@pytest.mark.parametrize("kind", [float, bool, object, str])
def test_index_data_that_are_no_integers_are_refused(kind, springs):
    refused(lambda: springs.value(*spring_point(np.array([[0, 1]]).astype(kind))), wb.InputTypeError, "'springs'", "e",
            "integer")  # fmt: skip


def test_index_data_too_large_for_64_bits_are_refused(springs):
    edges = np.array([[0, 2**63 + 1]], dtype=np.uint64)
    refused(lambda: springs.value(*spring_point(edges)), wb.InputError, "'springs'", "e")


def test_index_data_are_checked_in_every_instance_of_a_batch(springs):
    edges = np.zeros((3, 2, 2), dtype=int)
    edges[2, 1, 0] = 7
    y, w, x = spring_point(np.zeros((2, 2), dtype=int))
    refused(lambda: springs.value(y, w, {**x, "e": edges}), wb.InputError, "e has 7", r"\[2, 1, 0\]")


def test_index_data_are_checked_again_after_they_changed(springs):
    y, w, x = spring_point([[0, 1], [1, 2]])
    springs.value(y, w, x)
    x["e"][0, 0] = 9
    refused(lambda: springs.value(y, w, x), wb.InputError, "e has 9")


def test_empty_index_data_are_accepted(springs):
    assert springs.value(*spring_point(np.empty((0, 2), dtype=int))) == 0.0


# ---------------------------------------------------------------------------------------------- offsets

n = sp.Symbol("n", integer=True, positive=True)
x, t = sp.IndexedBase("x", shape=(n,)), sp.Symbol("t", real=True)


@pytest.mark.parametrize(("make", "needed"), [
    (lambda: x[3] * t, 4), (lambda: sp.Sum(x[sp.Idx("q", 5)] * t, sp.Idx("q", 5)), 5),
    (lambda: sp.Sum(x[2 * sp.Idx("q", 3)] * t, sp.Idx("q", 3)), 5),
])  # fmt: skip
def test_a_constant_subscript_beyond_an_extent_is_refused_when_the_extent_is_known(make, needed):
    kernel = wb.compile(wb.Energy(make(), variables=[t], data=[x], name="reach"), backend="reference")
    assert kernel.value({"t": 1.0}, {}, {"x": np.ones(needed)}) > 0
    refused(lambda: kernel.value({"t": 1.0}, {}, {"x": np.ones(needed - 1)}), wb.InputError, "'reach'", "x",
            str(needed - 1))  # fmt: skip


def test_a_shape_that_is_too_small_is_refused_again_after_a_good_call():
    kernel = wb.compile(wb.Energy(x[3] * t, variables=[t], data=[x], name="reach"), backend="reference")
    for size, good in ((4, True), (3, False), (4, True), (3, False)):
        if good:
            kernel.value({"t": 1.0}, {}, {"x": np.ones(size)})
        else:
            refused(lambda size=size: kernel.value({"t": 1.0}, {}, {"x": np.ones(size)}), wb.InputError, "'reach'")


def test_an_empty_range_is_no_subscript_out_of_range():
    kernel = wb.compile(TABLE["rosenbrock"](), backend="reference")
    assert kernel.value({"y": np.ones(1)}, {"b": 1.0}) == 0.0


def test_a_copy_of_bound_inputs_has_the_addresses_of_its_own_arrays(ransac):
    y, w, x = draw(ransac.energy, 3, batch=4)
    inputs = ransac.bind(w, x, y)
    for copied in (pickle.loads(pickle.dumps(inputs)), deepcopy(inputs)):
        assert [a.ctypes.data for a in copied.arrays] == copied.table[:, 0].tolist()
        assert copied.extents_address == copied.extents.ctypes.data and copied.table_address == copied.table.ctypes.data
        assert not np.shares_memory(copied.table, inputs.table)
