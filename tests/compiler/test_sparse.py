"""Sparse second derivatives: which are found, that their entries are exact, and that memory grows as they do."""

import doctest
import random
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from energies_table import TABLE, draw
from wiberg.compiler.calls import pattern
from wiberg.compiler.calls.evaluate import run
from wiberg.compiler.derive import find_structure
from wiberg.compiler.passes.landings import Landing, Support
from wiberg.compiler.program.program import Range
from wiberg.compiler.program.stored import from_text, to_text
from wiberg.compiler.testing import check_derivatives, dense

n, m, k = sp.symbols("n m k", integer=True, positive=True)
i, j, i2 = sp.Idx("i", n), sp.Idx("j", m), sp.Idx("i2", n)
before_last, q = sp.Idx("b", (0, n - 2)), sp.Idx("q", (0, m - 2))
t, a = sp.Symbol("t", real=True), sp.Symbol("a", positive=True)
y, z, w, x = (sp.IndexedBase(s, shape=(n,)) for s in "yzwx")
Y, X, W = (sp.IndexedBase(s, shape=(n, m)) for s in "YXW")
B, D = sp.IndexedBase("B", shape=(n, 3)), sp.IndexedBase("D", shape=(n, 30))
e = sp.IndexedBase("e", shape=(k, 2), integer=True)
edge, d, d2, r, r2 = sp.Idx("edge", k), sp.Idx("d", 3), sp.Idx("d2", 3), sp.Idx("r", 30), sp.Idx("r2", 30)
small, large = sp.IndexedBase("small", shape=(5,)), sp.IndexedBase("large", shape=(200,))
inner = sp.Idx("inner", (0, n - 5))
five, two_hundred, before = sp.Idx("five", 5), sp.Idx("u", 200), sp.Idx("v", (0, 198))


def compiled(formula, *variables, weights=(), data=(), **options):
    energy = wb.Energy(formula, variables=variables, weights=weights, data=data, name="example", **options)
    return wb.compile(energy, backend="reference")


def edges(formula, *variables, data=()):
    return compiled(formula, *variables, data=[e, *data])


# ---------------------------------------------------------------------------------------------- which are found

FOUND = {
    "a term for each unknown": ("diagonal", sp.Sum(y[i] ** 4 * x[i], i), [y], [x]),
    "a linear energy": ("diagonal", sp.Sum(y[i] * x[i], i), [y], [x]),
    "a matrix of unknowns": ("diagonal", sp.Sum(sp.exp(Y[i, j]), i, j), [Y], []),
    "points in space": ("block-diagonal", sp.Sum((sp.Sum(B[i, d] ** 2, d) - 1) ** 2, i), [B], []),
    "blocks of 30": ("block-diagonal", sp.Sum(sp.Sum(D[i, r] * x[i], r) ** 2, i), [D], [x]),
    "a chain": ("banded", sp.Sum((y[before_last + 1] - y[before_last]) ** 4, before_last), [y], []),
    "a grid": ("banded", sp.Sum((Y[i, q + 1] - Y[i, q]) ** 4, i, q) + sp.Sum(Y[i, j] ** 4, i, j), [Y], []),
    "a filter of 5 taps": ("banded", sp.Sum(sp.Sum(y[inner + five] * small[five], five) ** 2, inner), [y], [small]),
    "a graph": ("sparse", sp.Sum(sp.sin(y[e[edge, 0]] * y[e[edge, 1]]), edge), [y], [e]),
    "labels": ("diagonal", sp.Sum((y[e[edge, 0]] - 1) ** 4, edge), [y], [e]),
    "two vectors side by side": ("sparse", sp.Sum(sp.sin(y[i] * z[i]), i), [y, z], []),
    "an unknown in every term": ("sparse", sp.Sum((y[i] - t) ** 4, i), [y, t], []),
    "mirrored": ("sparse", sp.Sum(y[i] * y[n - 1 - i], i), [y], []),
    "all pairs": ("dense", sp.Sum(sp.sin(y[i] * y[i2]), i, i2), [y], []),
    "a function of a whole sum": ("dense", sp.log(1 + sp.Sum(y[i] ** 2, i)), [y], []),
    "one pair of indices in two places": ("dense", sp.Sum(sp.sin(y[i]) * z[i2] ** 2, i, i2), [y, z], []),
    "literal and few": ("dense", sp.Sum(small[five] ** 4, five), [small], []),
    "literal and many": ("banded", sp.Sum((large[before + 1] - large[before]) ** 4, before), [large], []),
    "literal, many, all pairs": ("dense", sp.Sum(large[two_hundred], two_hundred) ** 2, [large], []),
    "scalars": ("dense", sp.Sum((x[i] - t) ** 4, i), [t], [x]),
}  # fmt: skip


@pytest.mark.parametrize("case", FOUND)
def test_the_structure_of_a_hessian_is_found_from_the_formula(case):
    expected, formula, variables, data = FOUND[case]
    assert compiled(formula, *variables, data=data).structure == expected


def test_a_hessian_is_sparse_exactly_where_the_structure_is_not_dense():
    for name, make in TABLE.items():
        kernel = wb.compile(make(), backend="reference")
        hessian = kernel.hessian(*draw(kernel.energy, 3))
        assert isinstance(hessian, np.ndarray) == (kernel.structure == "dense"), name


def test_explain_names_the_structure():
    assert "Hessian: banded" in str(compiled(FOUND["a chain"][1], y).explain())


@pytest.mark.parametrize("derivative", ["hessian", "cross"])
@pytest.mark.parametrize("name", ["springs", "denoise", "pose"])
def test_a_structure_is_stored_and_read_without_loss(name, derivative):
    structure = find_structure(TABLE[name](), derivative)
    assert from_text(to_text(structure)) == structure


# ---------------------------------------------------------------------------------------------- entries

SPARSE = [name for name, make in TABLE.items() if find_structure(make(), "hessian").support is not None]


def matrices(hessian):
    return hessian if isinstance(hessian, list) else [hessian]


@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("batch", [None, 3])
def test_entries_are_those_of_the_dense_hessian(name, batch, references):
    kernel = references[name]
    for size in (1, 2, 5):
        point = draw(kernel.energy, size, batch=batch, seed=size)
        expected = kernel.dense_hessian(*point)
        np.testing.assert_allclose(
            dense(kernel.hessian(*point)), expected, rtol=0, atol=1e-12 * (1 + abs(expected).max())
        )


@pytest.mark.parametrize("name", ["denoise", "rosenbrock", "springs", "lennard_jones", "diagonal"])
def test_no_entry_is_stored_that_is_zero_at_a_generic_point(name, references):
    point = draw(references[name].energy, 6)
    hessian = references[name].hessian(*point)
    assert hessian.nnz == np.count_nonzero(hessian.toarray())


@pytest.mark.parametrize("name", SPARSE)
def test_rows_are_sorted_without_duplicates_and_both_halves_have_the_same_bits(name, references):
    for hessian in matrices(references[name].hessian(*draw(references[name].energy, 5, batch=2))):
        hessian.check_format(full_check=True)
        rows = np.repeat(np.arange(hessian.shape[0]), np.diff(hessian.indptr))
        assert (np.diff(rows * hessian.shape[1] + hessian.indices) > 0).all()
        assert np.array_equal(hessian.toarray(), hessian.toarray().T)


def test_both_ends_of_an_edge_may_be_one_unknown():
    kernel = edges(sp.Sum(y[e[edge, 0]] * y[e[edge, 1]], edge), y)
    hessian = kernel.hessian({"y": [1.0, 2.0]}, None, {"e": [[1, 1], [0, 1]]})
    assert hessian.toarray().tolist() == [[0.0, 1.0], [1.0, 2.0]] and hessian.nnz == 3


def test_edges_that_are_given_several_times_are_added_up():
    kernel = edges(sp.Sum(y[e[edge, 0]] * y[e[edge, 1]], edge), y)
    hessian = kernel.hessian({"y": [1.0, 2.0, 0.0]}, None, {"e": [[0, 1], [1, 0], [0, 1]]})
    assert hessian[0, 1] == hessian[1, 0] == 3.0 and hessian.nnz == 2


def test_sums_over_repeated_edges_have_the_same_bits_in_both_halves():
    kernel = edges(sp.Sum(sp.sin(y[e[edge, 0]]) * y[e[edge, 1]] ** 2, edge), y)
    generator = np.random.default_rng(0)
    ends = generator.integers(0, 4, (60, 2))
    dense_hessian = kernel.hessian({"y": generator.standard_normal(4)}, None, {"e": ends}).toarray()
    assert np.array_equal(dense_hessian, dense_hessian.T)


@pytest.mark.parametrize("sizes", [{"n": 1, "m": 1}, {"n": 1, "m": 4}, {"n": 2, "m": 1}])
def test_a_grid_of_one_row_or_column_has_the_dense_hessian(sizes, references):
    point = draw(references["denoise"].energy, sizes)
    hessian = references["denoise"].hessian(*point)
    np.testing.assert_allclose(hessian.toarray(), references["denoise"].dense_hessian(*point), rtol=1e-12, atol=1e-13)


def test_an_energy_without_unknowns_has_an_empty_hessian():
    assert compiled(sp.Sum(y[i] ** 4, i), y).hessian({"y": []}).shape == (0, 0)


def test_value_gradient_and_hessian_in_one_pass_agree_with_each_alone(references):
    for name in SPARSE:
        point = draw(references[name].energy, 4, batch=2)
        value, gradient, hessian = references[name].value_gradient_hessian(*point)
        np.testing.assert_allclose(value, references[name].value(*point), rtol=1e-13)
        np.testing.assert_allclose(gradient, references[name].gradient(*point), rtol=1e-11, atol=1e-12)
        expected = dense(references[name].hessian(*point))
        np.testing.assert_allclose(dense(hessian), expected, rtol=1e-11, atol=1e-12)


# ---------------------------------------------------------------------------------------------- random energies


def random_sparse_energy(source):
    """Terms that read a few entries each: neighbours on a line and a grid, ends of edges, blocks, a shared unknown."""
    offset, step = source.randint(1, 3), source.randint(1, 2)
    line, near = sp.Idx("line", (0, n - 1 - offset)), sp.Idx("near", (0, m - 1 - step))
    reads = {
        (line,): [y[line], y[line + offset], z[line], z[line + offset], y[n - 1 - line], t],
        (edge,): [y[e[edge, 0]], y[e[edge, 1]], z[e[edge, 0]], B[e[edge, 1], source.randrange(3)], x[e[edge, 0]], t],
        (i, near): [Y[i, near], Y[i, near + step], y[i], W[i, near]],
        (i, d): [B[i, d], B[i, 2], y[i], t, sp.Sum(B[i, d2] ** 2, d2)],
        (i,): [sp.Sum(B[i, d2] * y[i], d2), z[i], x[i], t],
    }
    functions = [sp.sin, sp.exp, lambda u: u**2, lambda u: sp.sqrt(1 + u**2), lambda u: sp.log(1 + u**2)]
    expression = t**2
    expression += sum(sp.Sum(s[i] ** 2, i) for s in (y, z)) + sp.Sum(Y[i, j] ** 2, i, j) + sp.Sum(B[i, d] ** 2, i, d)
    for _ in range(source.randint(1, 3)):
        loops = source.choice(list(reads))
        u, v, s = (source.choice(reads[loops]) for _ in range(3))
        expression += sp.Sum(source.choice(functions)(u * v - s) * source.choice([1, s, a]), *loops)
    return wb.Energy(
        expression + 0 * sp.Sum(W[i, j] * a * x[i], i, j), variables=[y, z, t, Y, B],
        weights=[a] if expression.has(a) else [], data=[e, x, W], name="random",
    )  # fmt: skip


def random_point(energy, seed):
    generator = np.random.default_rng(seed)
    rows, columns, count = generator.integers(3, 7), generator.integers(2, 5), generator.integers(1, 9)
    point = {"y": rows, "z": rows, "t": (), "Y": (rows, columns), "B": (rows, 3)}
    data = {"x": generator.standard_normal(rows), "W": generator.standard_normal((rows, columns))}
    weights = {"a": 0.7} if energy.weights else {}
    return (
        {name: generator.standard_normal(shape) for name, shape in point.items()},
        weights, {**data, "e": generator.integers(0, rows, (count, 2))},
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_random_sparse_hessians_are_those_of_the_dense_program(seed):
    energy = random_sparse_energy(random.Random(seed))
    kernel = wb.compile(energy, backend="reference")
    point = random_point(energy, seed)
    hessian, expected = kernel.hessian(*point), kernel.dense_hessian(*point)
    assert kernel.structure != "dense"
    np.testing.assert_allclose(hessian.toarray(), expected, rtol=0, atol=1e-12 * (1 + abs(expected).max()))
    assert np.array_equal(hessian.toarray(), hessian.toarray().T)


@pytest.mark.parametrize("seed", range(4))
def test_random_sparse_hessians_are_those_of_the_formula(seed):
    report = check_derivatives(random_sparse_energy(random.Random(seed)), trials=1, seed=seed, backend="reference")
    assert report.ok, report


# ---------------------------------------------------------------------------------------------- patterns


def test_matrices_of_a_batch_share_their_pattern():
    first, second = compiled(FOUND["a chain"][1], y).hessian({"y": np.ones((2, 5))})
    assert first.indices is second.indices and first.indptr is second.indptr and first.data is not second.data


def test_a_shared_pattern_cannot_be_written_to():
    hessian = compiled(FOUND["a chain"][1], y).hessian({"y": np.ones(5)})
    with pytest.raises(ValueError, match="read-only"):
        hessian.indices[0] = 3


def test_index_data_with_a_batch_axis_give_each_instance_its_own_pattern():
    kernel = edges(FOUND["a graph"][1], y)
    first, second = kernel.hessian({"y": [1.0, 2.0, 3.0]}, None, {"e": [[[0, 1]], [[1, 2]]]})
    assert first[0, 1] != 0 and first[1, 2] == 0 and second[0, 1] == 0 and second[1, 2] != 0


def test_an_empty_batch_has_no_hessians():
    kernel = edges(FOUND["a graph"][1], y)
    assert kernel.hessian({"y": np.ones((0, 3))}, None, {"e": np.ones((0, 4, 2), int)}) == []


def test_a_pattern_is_worked_out_once_for_the_same_extents_and_index_data(monkeypatch):
    kernel, calls = edges(FOUND["a graph"][1], y), []
    monkeypatch.setattr(
        pattern, "find_pattern", lambda *given, find=pattern.find_pattern: calls.append(1) or find(*given)
    )
    ends = np.array([[0, 1], [1, 2]])
    for _ in range(3):
        kernel.hessian({"y": [1.0, 2.0, 3.0]}, None, {"e": ends.copy()})
    assert len(calls) == 1
    ends[0, 0] = 2
    assert kernel.hessian({"y": [1.0, 2.0, 3.0]}, None, {"e": ends})[0, 1] == 0
    kernel.hessian({"y": [1.0, 2.0, 3.0, 4.0]}, None, {"e": ends})
    assert len(calls) == 3


def test_a_kernel_remembers_a_bounded_number_of_patterns():
    kernel = compiled(FOUND["a chain"][1], y)
    for size in range(2, 40):
        kernel.hessian({"y": np.ones(size)})
    assert len(kernel._patterns["hessian"]._known) == pattern.MOST


def test_ranges_that_depend_on_other_loops_are_counted_out():
    from wiberg.compiler.program.expression import constant, name

    count, scope = pattern._grid(
        (("l", Range(constant(0), name("i"))), ("i", Range(constant(1), name("n0")))), {"n0": 4}, {}
    )
    assert count == 6 and list(zip(scope["i"], scope["l"], strict=True)) == [
        (1, 0),
        (2, 0),
        (2, 1),
        (3, 0),
        (3, 1),
        (3, 2),
    ]


def test_an_upper_piece_counts_once_on_the_diagonal_and_twice_off_it():
    from wiberg.compiler.program.expression import constant, name

    axis = Range(constant(0), name("n0"))
    loops = (("i", axis), ("l", axis))
    landing = Landing("slot_0", (name("i"), name("l")), loops, "y0", (name("i"),), "y0", (name("l"),), "upper")
    support = Support((("slot_0", (axis, axis)),), (("y0", (axis,)),), (("y0", (axis,)),), (landing,), ())
    found = pattern.find_pattern(support, {"n0": 2}, {})
    numbers = found.fill(np.array([1.0, 2.0, 3.0, 4.0]))
    assert found.matrix(numbers).toarray().tolist() == [[1.0, 2.0], [2.0, 4.0]]


def test_memory_grows_as_the_number_of_entries(references):
    kernel, used = references["denoise"], {}
    for size in (32, 128):
        image = np.random.default_rng(0).standard_normal((size, size))
        tracemalloc.start()
        hessian = kernel.hessian({"y": image}, {"sigma": 0.2, "tau": 0.1}, {"x": image})
        used[size] = tracemalloc.get_traced_memory()[1] / hessian.nnz
        tracemalloc.stop()
        assert hessian.nnz == size**2 + 4 * size * (size - 1)
    assert used[128] < 1.2 * used[32]


# ---------------------------------------------------------------------------------------------- machine code


def test_an_image_of_262144_unknowns_has_a_hessian(kernels):
    kernel = kernels["denoise"]
    y_, w_, x_ = draw(kernel.energy, {"n": 512, "m": 512})
    hessian = kernel.hessian(y_, w_, x_)
    v = np.random.default_rng(0).standard_normal(512 * 512)
    assert hessian.nnz == 512 * 512 + 4 * 512 * 511
    np.testing.assert_allclose(hessian @ v, kernel.hvp(v, y_, w_, x_), rtol=1e-9, atol=1e-9)


def test_a_graph_of_100000_edges_has_a_hessian(kernels):
    kernel, generator = kernels["springs"], np.random.default_rng(0)
    count, ends = 30_000, 100_000
    point = {"p": generator.standard_normal((count, 2))}, {"rest": np.ones(ends), "sigma": 1.0}
    data = {"e": generator.integers(0, count, (ends, 2)), "anchor": np.zeros((count, 2))}
    hessian, v = kernel.hessian(*point, data), generator.standard_normal(2 * count)
    np.testing.assert_allclose(hessian @ v, kernel.hvp(v, *point, data), rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------------------------------------- products in slots


def product_in_slots(kernel, point, v):
    """The Hessian times v by the kernel that multiplies its numbers where another has left them."""
    inputs = kernel.bind(point[1], point[2], point[0])
    packed, _ = kernel.bind_variables(point[0], inputs)
    _, slots = run(kernel.entry("sparse_hessian"), inputs, packed)
    return run(kernel.entry("sparse_hvp"), inputs, slots, v[None], count=1)[1][0]


@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_product_in_slots_is_that_of_the_matrix(name, size, references):
    kernel = references[name]
    point = draw(kernel.energy, size, seed=size)
    hessian = kernel.dense_hessian(*point)
    v = np.random.default_rng(size).standard_normal(len(hessian))
    expected = hessian @ v
    got = product_in_slots(kernel, point, v)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12 * (1 + abs(hessian).max() * abs(v).max()))


@pytest.mark.parametrize("seed", range(10))
def test_products_in_slots_of_random_energies_are_those_of_the_matrix(seed):
    kernel = wb.compile(random_sparse_energy(random.Random(seed)), backend="reference")
    point = random_point(kernel.energy, seed)
    hessian = kernel.dense_hessian(*point)
    v = np.random.default_rng(seed).standard_normal(len(hessian))
    atol = 1e-11 * (1 + abs(hessian).max() * abs(v).max())
    np.testing.assert_allclose(product_in_slots(kernel, point, v), hessian @ v, rtol=0, atol=atol)


@pytest.mark.parametrize("name", ["denoise", "springs"])
def test_machine_code_of_the_product_in_slots_is_that_of_the_matrix(name, kernels):
    point = draw(kernels[name].energy, 23)
    hessian = kernels[name].hessian(*point)
    v = np.random.default_rng(0).standard_normal(hessian.shape[0])
    np.testing.assert_allclose(product_in_slots(kernels[name], point, v), hessian @ v, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", ["denoise", "springs"])
def test_the_sources_of_the_diagonal_add_up_to_it(name, references):
    kernel = references[name]
    y_, w_, x_ = draw(kernel.energy, 5)
    inputs = kernel.bind(w_, x_, y_)
    found, slots = kernel.hessian_slots(inputs, kernel.variables.pack(y_), 0)
    sources, starts = found.diagonal
    got = [slots[sources[begin:end]].sum() for begin, end in pairwise(starts)]
    np.testing.assert_allclose(got, kernel.hessian(y_, w_, x_).diagonal(), rtol=1e-13)


# ---------------------------------------------------------------------------------------------- cross-derivatives


def test_a_weight_for_each_pixel_has_a_sparse_cross_derivative():
    kernel = compiled(sp.Sum(W[i, j] * (Y[i, j] - X[i, j]) ** 2 * a, i, j), Y, weights=[W, a], data=[X])
    generator = np.random.default_rng(0)
    image, noisy, weight = generator.standard_normal((3, 4, 5))
    cross = kernel.cross({"Y": image}, {"W": weight, "a": 2.0}, {"X": noisy})
    assert cross.shape == (20, 21) and cross.nnz == 40
    difference = 2 * (image - noisy).ravel()
    expected = np.hstack([np.diag(2.0 * difference), (weight.ravel() * difference)[:, None]])
    np.testing.assert_allclose(cross.toarray(), expected, rtol=1e-14)


def test_a_cross_derivative_in_few_weights_is_dense(references):
    assert references["denoise"].cross(*draw(references["denoise"].energy, 3)).shape == (12, 2)


@pytest.mark.parametrize("name", ["springs", "gathered"])
def test_a_sparse_cross_derivative_agrees_with_the_adjoint_form(name, references):
    kernel = references[name]
    point = draw(kernel.energy, 4)
    cross = kernel.cross(*point)
    v = np.random.default_rng(1).standard_normal(cross.shape[0])
    np.testing.assert_allclose(
        cross.T @ v, kernel.weights.pack(kernel.cross_adjoint(v, *point)), rtol=1e-12, atol=1e-13
    )


# ---------------------------------------------------------------------------------------------- products, and dense


def test_products_with_the_hessian_and_adjoints_never_build_one():
    kernel = compiled(sp.log(1 + a * sp.Sum(y[i] ** 2, i)), y, weights=[a])
    count = 100_000  # a dense Hessian would take 80 GB
    point, v = {"y": np.full(count, 0.01)}, np.ones(count)
    total = 1 + 0.5 * count * 1e-4
    product = kernel.hvp(v, point, {"a": 0.5})
    np.testing.assert_allclose(product, 1 / total - (0.01 / total) * (count * 0.01 / total), rtol=1e-9)
    assert np.isfinite(kernel.cross_adjoint(v, point, {"a": 0.5})["a"])


@pytest.mark.parametrize("method", ["hessian", "value_gradient_hessian"])
def test_a_dense_hessian_that_is_too_large_is_refused_and_products_offered(method):
    kernel = compiled(sp.log(1 + sp.Sum(y[i] ** 2, i)), y)
    with pytest.raises(wb.InputError, match=r"'example'.*100000 unknowns.*74.5 GiB.*couples all.*kernel\.hvp"):
        getattr(kernel, method)({"y": np.zeros(100_000)})


def test_the_examples_of_the_documentation_run():
    folder = Path(__file__).parents[2] / "docs"
    assert doctest.testfile(str(folder / "sparse.md"), module_relative=False).failed == 0


def test_the_patterns_used_last_are_kept():
    step, y_ = sp.Idx("step", (0, n - 2)), sp.IndexedBase("y", shape=(n,))
    kernel = wb.compile(wb.Energy(sp.Sum((y_[step + 1] - y_[step]) ** 2, step), variables=[y_]), backend="reference")

    def pattern(size):
        return kernel.pattern("hessian", kernel.bind(None, None, {"y": np.zeros(size)}))

    first, second = pattern(3), pattern(4)
    for size in range(5, 11):
        pattern(size)
    assert pattern(3) is first  # it comes to the front: the ninth takes the place of the second
    pattern(11)
    assert pattern(3) is first
    assert pattern(4) is not second
