"""Long loops of exponentials in tiles: which loops are, that tiles cover every number once, and the numbers."""

import itertools

import numba
import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given
from hypothesis import strategies as st
from wiberg.compiler.derive import compile_text
from wiberg.compiler.text import tiles

(n,) = sp.symbols("n", integer=True, positive=True, seq=True)
i = sp.Idx("i", n)
t = sp.Symbol("t", real=True)
x, z = (sp.IndexedBase(name, shape=(n,)) for name in "xz")
P = sp.IndexedBase("P", shape=(n, 2))

SIZES = [1, 7, 8, 1023, 1024, 1025, 1031, 1032, 1280, 1281, 1287, 1288, 5000]  # about one tile, and a whole number


def sum_of(term, *data):
    return wb.Energy(sp.Sum(term, i), variables=[t], data=list(data))


def text(energy, kind="value"):
    return compile_text(energy, kind).source


# ---------------------------------------------------------------------------------------------- which loops


@pytest.mark.parametrize("kind", ["value", "value_gradient_hessian", "hvp", "data_adjoint"])
def test_a_sum_of_exponentials_of_one_array_asks_for_memory_ahead_of_each_tile(kind):
    lines = text(sum_of(sp.exp(-((x[i] - t) ** 2)), x), kind).splitlines()
    first = lines.index("    for tile in range(tiles(n0)):")
    assert lines[first + 1] == "        fetch_ahead(x0, 256*tile + 1024, n0)"
    assert lines[first + 2] == "        for i in range(256*tile, tile_end(tile, n0)):"
    assert "    for i in range(n0//8*8, n0):" in lines[first:]


def test_memory_is_asked_for_where_the_loop_reads():
    energy = sum_of(sp.exp(-((x[i] - t) ** 2)), x)
    shifted = wb.Energy(sp.Sum(sp.exp(-((x[i + 3] - t) ** 2)), (i, 0, n - 4)), variables=[t], data=[x])
    row = sp.IndexedBase("R", shape=(2, n))
    second = sum_of(sp.exp(-((row[1, i] - t) ** 2)), row)
    assert "fetch_ahead(x0, 256*tile + 1024, n0)" in text(energy)
    assert "fetch_ahead" not in text(shifted)  # its range is not an extent
    assert "fetch_ahead(x0, (1)*n0 + 256*tile + 1024, n0)" in text(second)


@pytest.mark.parametrize(
    ("term", "data"),
    [
        ((x[i] - t) ** 2, [x]),  # no exponential
        (z[i] * sp.exp(-((x[i] - t) ** 2)), [x, z]),  # two arrays
        (sp.exp(-((P[i, 0] - t) ** 2) - P[i, 1] ** 2), [P]),  # two numbers each time
    ],
)
def test_other_loops_are_left_whole(term, data):
    assert "tile" not in text(sum_of(term, *data))


# ---------------------------------------------------------------------------------------------- what they cover


@numba.njit
def begins_and_ends(count):
    return [(tiles.TILE * tile, tile_end(tile, count)) for tile in range(count_of(count))]


count_of, tile_end = tiles.tiles, tiles.tile_end


@given(st.one_of(st.sampled_from(SIZES), st.integers(0, 200_000)))
def test_tiles_follow_each_other_up_to_a_multiple_of_8(count):
    found = begins_and_ends(count)
    plain = tiles.plain_namespace()
    assert found == [(256 * k, plain["tile_end"](k, count)) for k in range(plain["tiles"](count))]
    assert found[0][0] == 0 and found[-1][1] == count // 8 * 8
    assert all(end == begin for (_, end), (begin, _) in itertools.pairwise(found))
    assert len(found) == 1 if count <= tiles.LONG else all(0 < e - b <= tiles.TILE for b, e in found)


# ---------------------------------------------------------------------------------------------- the numbers


@pytest.fixture(scope="module")
def kernel():
    return wb.compile(sum_of(sp.exp(-((x[i] - t) ** 2)), x))


@pytest.mark.parametrize("size", SIZES)
def test_every_number_is_added_once(kernel, size):
    points = np.random.default_rng(size).uniform(-2, 2, size)
    d = points - 0.3
    e = np.exp(-(d**2))
    value, gradient, hessian = kernel.value_gradient_hessian({"t": 0.3}, {}, {"x": points})
    assert value == pytest.approx(e.sum(), rel=1e-13)
    assert gradient[0] == pytest.approx((2 * d * e).sum(), abs=1e-12 * size)
    assert hessian[0, 0] == pytest.approx(((4 * d**2 - 2) * e).sum(), abs=1e-12 * size)
    adjoint = kernel.data_adjoint([1.0], {"t": 0.3}, {}, {"x": points})["x"]
    np.testing.assert_allclose(adjoint, (2 - 4 * d**2) * e, rtol=1e-12, atol=1e-14)


def test_a_long_instance_has_the_same_bits_alone_and_in_a_batch(kernel):
    points = np.random.default_rng(1).uniform(-2, 2, (5, 3001))
    whole = kernel.value_gradient_hessian({"t": np.full(5, 0.3)}, {}, {"x": points})
    alone = [kernel.value_gradient_hessian({"t": 0.3}, {}, {"x": points[k]}) for k in range(5)]
    for k in range(3):
        np.testing.assert_array_equal(whole[k], [one[k] for one in alone])
