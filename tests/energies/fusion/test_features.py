"""What the energies of fusion read of a frame: against NumPy's own quantiles, and what it does not depend on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import wiberg as wb
from hypothesis import given
from hypothesis import strategies as st
from wiberg.energies import fusion
from wiberg.energies.fusion.features import CHUNK, FAR, QUANTILES


def frames(seed: int, count: int = 6, trackers: int = 7, missing: float = 0.3) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    boxes = random.uniform(10, 50, (count, trackers, 4))
    valid = random.random((count, trackers)) > missing
    valid[:, 0] = True
    first = random.uniform(10, 50, (count, 4))
    return {
        "boxes": boxes,
        "valid": valid,
        "number": random.integers(1, 300, count),
        "length": np.full(count, 301),
        "first": first,
    }


@given(st.integers(0, 10**6))
def test_medians_and_quantiles_are_those_of_the_trackers_that_count(seed: int) -> None:
    given_ = frames(seed)
    seen = fusion.features(**given_)
    for f in range(len(given_["boxes"])):
        boxes, first = given_["boxes"][f][given_["valid"][f]], given_["first"][f]
        middle = np.median(boxes[:, :2] + boxes[:, 2:] / 2, axis=0)
        size = np.exp(np.median(np.log(boxes[:, 2:]), axis=0))
        np.testing.assert_allclose(seen.frame.centre[f], middle)
        np.testing.assert_allclose(seen.frame.size[f], size)
        change = np.log(boxes[:, 2:] / first[2:])
        scale, aspect = change.mean(axis=1), change[:, 0] - change[:, 1]
        np.testing.assert_allclose(seen.change[f][given_["valid"][f]], np.stack([scale, aspect], axis=1), atol=1e-12)
        np.testing.assert_allclose(seen.crowd[f, : len(QUANTILES)], np.quantile(scale, QUANTILES), atol=1e-12)
        np.testing.assert_allclose(seen.crowd[f, len(QUANTILES)], np.median(aspect), atol=1e-12)
        np.testing.assert_allclose(seen.side[f][given_["valid"][f]], boxes[:, 2:] / size)
        np.testing.assert_allclose(
            seen.centre[f][given_["valid"][f]], (boxes[:, :2] + boxes[:, 2:] / 2 - middle) / size, atol=1e-12
        )


@given(st.integers(0, 10**6), st.floats(0.1, 10), st.floats(-1e3, 1e3))
def test_they_do_not_know_where_the_object_is_nor_how_large(seed: int, factor: float, shift: float) -> None:
    given_ = frames(seed)
    moved = dict(given_, boxes=given_["boxes"] * factor, first=given_["first"] * factor)
    moved["boxes"][..., :2] += shift
    one, other = fusion.features(**given_), fusion.features(**moved)
    for name in ("present", "centre", "side", "size", "change", "crowd", "time"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-9)


@given(st.integers(0, 10**6))
def test_boxes_that_do_not_count_are_never_read(seed: int) -> None:
    given_ = frames(seed)
    worse = given_["boxes"].copy()
    worse[~given_["valid"]] = np.nan
    one, other = fusion.features(**given_), fusion.features(**dict(given_, boxes=worse))
    for name in ("present", "centre", "side", "size", "change", "crowd"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_frame_without_boxes_is_nan_and_harms_no_other() -> None:
    given_ = frames(3)
    alone = fusion.features(**given_)
    given_["valid"][2] = False
    seen = fusion.features(**given_)
    assert np.isnan(seen.present[2]).all() and np.isnan(seen.frame.boxes[2]).all()
    np.testing.assert_array_equal(np.delete(seen.crowd, 2, axis=0), np.delete(alone.crowd, 2, axis=0))


def test_a_tracker_far_away_is_moved_nearer() -> None:
    given_ = frames(1, missing=0.0)
    given_["boxes"][0, 3, :2] = 1e9
    assert np.abs(fusion.features(**given_).centre).max() == 60.0


def test_chunks_do_not_show() -> None:
    count = CHUNK + 3
    given_ = frames(5, count=count)
    whole = fusion.features(**given_)
    last = fusion.features(**{name: array[-5:] for name, array in given_.items()})
    np.testing.assert_array_equal(whole.crowd[-5:], last.crowd)
    np.testing.assert_array_equal(whole.centre[-5:], last.centre)


@given(st.integers(0, 10**6))
def test_coordinates_go_there_and_back(seed: int) -> None:
    given_ = frames(seed)
    frame = fusion.features(**given_).frame
    np.testing.assert_allclose(frame.to_boxes(frame.to_coordinates(given_["first"])), given_["first"], rtol=1e-9)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1.0),
        ([0, 0, 2, 2], [1, 1, 2, 2], 1 / 7),
        ([0, 0, 2, 2], [2, 0, 2, 2], 0.0),
        ([0, 0, 4, 4], [1, 1, 2, 2], 0.25),
        ([0, 0, 0, 2], [0, 0, 2, 2], 0.0),
        ([0, 0, -3, -3], [-3, -3, 3, 3], 0.0),
        ([np.nan] * 4, [0, 0, 2, 2], 0.0),
        ([0, 0, np.inf, 2], [0, 0, 2, 2], 0.0),
    ],
)
def test_overlap(one: list[float], other: list[float], expected: float) -> None:
    assert float(fusion.overlap(one, other)) == pytest.approx(expected)


def test_a_box_of_any_size_leaves_the_others_what_they_were() -> None:
    """Sides beyond all measure take no part beyond FAR: no square of them overflows."""
    given_ = frames(3, missing=0.0)
    made = fusion.BoxFusion({str(k): 0.0 for k in range(7)})
    given_["boxes"][2, 1, 2:] = 1e200
    seen = fusion.features(**given_)
    assert seen.side.max() == FAR
    weights = made.weights() | {"shift": np.full((7, 2), 0.1)}
    solution = wb.minimise(wb.compile(made.energy), weights, made.data(seen))
    assert solution.converged.all()
