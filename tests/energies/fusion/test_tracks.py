"""Tracks: reading files, parts, benchmarks' formats, and figures of fused boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wiberg as wb
from wiberg.energies import fusion


def arrays(**changes: Any) -> dict[str, Any]:
    made = fusion.made_up_arrays(sequences=3, frames=6, trackers=4, seed=0)
    return {name: array for name, array in {**made, **changes}.items() if array is not None}


def test_a_file_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "tracks.npz", **arrays())
    tracks = fusion.Tracks.read(tmp_path / "tracks.npz")
    assert len(tracks) == 18 and tracks.names[3] == "tracker 3"
    train, test = (tracks.part("sequences", part) for part in ("train", "test"))
    assert set(test.sequence.tolist()) == {0} and set(train.sequence.tolist()) == {1, 2}
    assert len(tracks.part("frames", "test")) == 6 and len(tracks.part("all", "test")) == 18


def test_only_boxes_are_needed_besides_what_says_where_they_are() -> None:
    some = arrays(valid=None, gt=None, seq_names=None, split_seq=None, split_random=None)
    tracks = fusion.Tracks.of(some)
    assert tracks.truth is None and tracks.valid.all()
    with pytest.raises(wb.InputError, match="no true boxes"):
        tracks.overlaps()
    with pytest.raises(wb.InputError, match="split_seq"):
        tracks.part("sequences", "test")


def test_boxes_without_an_area_do_not_count() -> None:
    boxes = arrays()["boxes"].copy()
    boxes[0, 0], boxes[0, 1, 2], boxes[0, 2, 3] = np.nan, 0, -1
    assert fusion.Tracks.of(arrays(boxes=boxes, valid=None)).valid[0].tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame": None}, "no array frame"),
        ({"boxes": np.zeros((18, 4))}, r"boxes must be numbers of shape \(frames, 4, 4\)"),
        ({"tracker_names": np.array(["a", "b", "a", "c"])}, "'a' more than once"),
        ({"seq": np.full(18, 7)}, "seq must be numbers from 0 to 2"),
        ({"seq": np.full(18, np.nan)}, r"seq must be numbers from 0 to 2 \(got nan at \[0\]\)"),
        ({"seq_init": np.zeros((3, 4))}, r"seq_init must be boxes with an area .* at \[0\]"),
        ({"frame": np.arange(18) - 1}, r"frame must be 0 or more \(got -1 at \[0\]\)"),
        ({"frame": np.full(18, "x")}, "frame must be numbers"),
        ({"seq_len": np.zeros(3)}, "seq_len must be 1 or more"),
        ({"gt": np.full((18, 4), "x")}, "gt must be numbers"),
        ({"split_random": np.full(18, np.nan)}, "split_random must be 0 or 1"),
        ({"valid": np.ones((18, 3), bool)}, "valid must have shape"),
    ],
)
def test_a_file_that_does_not_fit_says_why(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(wb.InputError, match=message):
        fusion.Tracks.of(arrays(**changes))


def test_names_may_be_bytes() -> None:
    assert fusion.Tracks.of(arrays(tracker_names=np.array([b"a", b"b", b"c", b"d"]))).names == ("a", "b", "c", "d")


def test_frames_without_a_true_box_neither_teach_nor_judge() -> None:
    known = arrays()["gt"].copy()
    known[7], known[9, 2] = np.nan, 0
    tracks = fusion.Tracks.of(arrays(gt=known))
    without = tracks[[f for f in range(18) if f not in (7, 9)]]
    assert tracks.with_truth().frame.tolist() == without.frame.tolist()
    made, other = fusion.BoxFusion(tracks, batch=200), fusion.BoxFusion(without, batch=200)
    np.testing.assert_array_equal(made.accuracy, other.accuracy)
    assert np.isfinite(made.batch(tracks, 0)["targets"]["target"]).all()
    with pytest.raises(wb.InputError, match="none of the 18 frames has a true box"):
        fusion.Tracks.of(arrays(gt=np.zeros((18, 4)))).with_truth()


def test_a_part_without_a_frame_is_refused() -> None:
    with pytest.raises(wb.InputError, match="test part of the partition by sequences has no frame"):
        fusion.Tracks.of(arrays(split_seq=np.zeros(3))).part("sequences", "test")


def test_a_file_that_is_none_says_so(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", arrays()["boxes"])
    with pytest.raises(wb.InputError, match="one array without a name"):
        fusion.Tracks.read(tmp_path / "one.npy")
    np.savez(tmp_path / "whole.npz", **arrays())
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(wb.InputError, match=r"cut\.npz: no \.npz file"):
        fusion.Tracks.read(tmp_path / "cut.npz")
    with pytest.raises(wb.InputError, match="no such file"):
        fusion.Tracks.read(tmp_path / "nowhere.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(wb.InputError, match=r"no \.npz file"):
        fusion.Tracks.read(tmp_path / "text.npz")


# ---------------------------------------------------------------------------------------------- formats


def test_lines_are_rectangles_polygons_or_states(tmp_path: Path) -> None:
    file = tmp_path / "regions.txt"
    file.write_text("1\n1,2,3,4\n5\t6\t7\t8\n 0 0 4 1 5 5 1 4\n2\nNaN,NaN,NaN,NaN\n10;20;30.5;40\n")
    expected = [[np.nan] * 4, [1, 2, 3, 4], [5, 6, 7, 8], [0, 0, 5, 5], [np.nan] * 4, [np.nan] * 4, [10, 20, 30.5, 40]]
    np.testing.assert_array_equal(fusion.read_regions(file), expected)


@pytest.mark.parametrize(("line", "message"), [("m0,0,3,4,5", "masks"), ("1,2,3", "3 numbers"), ("1,2,x,4", "line 1")])
def test_other_lines_are_refused(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "regions.txt").write_text(line + "\n")
    with pytest.raises(wb.InputError, match=message):
        fusion.read_regions(tmp_path / "regions.txt")


def test_only_vot_has_polygons(tmp_path: Path) -> None:
    (tmp_path / "regions.txt").write_text("0 0 4 1 5 5 1 4\n")
    with pytest.raises(wb.InputError, match="8 numbers; a rectangle has 4"):
        fusion.read_regions(tmp_path / "regions.txt", polygons=False)


def write(path: Path, rows: Any, between: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(between.join(map(str, row)) for row in rows) + "\n")


def benchmark(folder: Path, kind: str) -> tuple[Path, Path]:
    """Two trackers on two sequences of four frames; the second stops early in one sequence, fails in the other."""
    results, truth = folder / "results", folder / "truth"
    for s, name in enumerate(("ball", "car")):
        true = [[10 * f + s, 5, 4, 6] for f in range(4)]
        write(truth / name / ("groundtruth_rect.txt" if kind == "otb" else "groundtruth.txt"), true)
        for t, tracker in enumerate(("alpha", "beta")):
            rows = [[10 * f + s + t, 5, 4, 6] for f in range(4)]
            if tracker == "beta" and name == "ball":
                rows = rows[:2]
            if tracker == "beta" and name == "car":
                rows[2] = [2] if kind == "vot" else ["NaN"] * 4
            if kind == "vot":
                rows[0] = [1]
            path = {
                "otb": results / tracker / f"{name}.txt",
                "got10k": results / tracker / name / f"{name}_001.txt",
                "vot": results / tracker / "unsupervised" / name / f"{name}_001.txt",
            }[kind]
            write(path, rows, "\t" if kind == "otb" else ",")
    return results, truth


@pytest.mark.parametrize("kind", ["otb", "got10k", "vot"])
def test_benchmarks_are_converted_to_the_same_arrays(tmp_path: Path, kind: str) -> None:
    made = fusion.convert(kind, *benchmark(tmp_path, kind))
    tracks = fusion.Tracks.of(made)
    assert tracks.names == ("alpha", "beta") and tracks.sequences == ("ball", "car")
    assert made["frame"].tolist() == [1, 2, 3, 1, 2, 3] and made["seq_len"].tolist() == [4, 4]
    assert made["valid"][:, 0].all() and made["valid"][:, 1].tolist() == [True, False, False, True, False, True]
    assert made["boxes"][:, 1, 0].tolist() == [11, 11, 11, 12, 12, 32]  # a missing box repeats the last one
    assert made["gt"][:, 0].tolist() == [10, 20, 30, 11, 21, 31]
    assert len(fusion.convert(kind, *benchmark(tmp_path, kind), every=2)["frame"]) == 4


def test_of_vot_s_experiments_the_one_without_a_restart_is_read(tmp_path: Path) -> None:
    results, truth = benchmark(tmp_path, "vot")
    write(results / "alpha" / "baseline" / "ball" / "ball_001.txt", [[1], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]])
    assert fusion.convert("vot", results, truth)["boxes"][:3, 0, 0].tolist() == [10, 20, 30]


def test_results_longer_than_their_sequence_are_said(tmp_path: Path) -> None:
    results, truth = benchmark(tmp_path, "otb")
    write(results / "alpha" / "ball.txt", [[10 * f, 5, 4, 6] for f in range(6)])
    with pytest.warns(UserWarning, match="6 lines, the sequence 4 frames"):
        fusion.convert("otb", results, truth)


def test_sequences_without_true_boxes_are_refused(tmp_path: Path) -> None:
    results, truth = benchmark(tmp_path, "otb")
    for name in ("ball", "car"):
        write(truth / name / "groundtruth_rect.txt", [[1, 2, 3, 4], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    with pytest.raises(wb.InputError, match="no frame but the first"):
        fusion.convert("otb", results, truth)
    (truth / "ball" / "groundtruth_rect.txt").write_text("")
    with pytest.warns(UserWarning), pytest.raises(wb.InputError, match="sequence ball: its first frame has no box"):
        fusion.convert("otb", results, truth)


def test_folders_without_results_are_refused(tmp_path: Path) -> None:
    results, truth = benchmark(tmp_path, "otb")
    with pytest.raises(wb.InputError, match="no results of format 'got10k'"):
        write(truth / "ball" / "groundtruth.txt", [[1, 2, 3, 4]])
        fusion.convert("got10k", results, truth)
    with pytest.raises(wb.InputError, match="no true boxes"):
        fusion.convert("vot", results, results)
    with pytest.raises(wb.InputError, match="did you mean 'vot'"):
        fusion.convert("votes", results, truth)


# ---------------------------------------------------------------------------------------------- figures


def test_simple_fusions_and_the_oracle() -> None:
    tracks = fusion.made_up(seed=0)
    ranked = fusion.ranking(tracks)
    means = tracks.overlaps().mean(axis=0)
    assert [tracks.names.index(name) for name in ranked] == np.argsort(-means, kind="stable").tolist()
    simple = fusion.baselines(tracks, ["no tracker of these", *ranked])
    boxes = tracks.boxes.astype(float)
    median = np.median(np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1), axis=1)
    np.testing.assert_allclose(simple["median"], np.concatenate([median[:, :2], median[:, 2:] - median[:, :2]], axis=1))
    assert list(simple)[3] == f"best single 1: {ranked[0]}" and len(simple) == 8
    found = fusion.overlaps_of(tracks, simple)
    assert all((fusion.oracle(tracks) >= found[f"best single {k + 1}: {ranked[k]}"]).all() for k in range(5))


def test_interpolating_true_boxes_is_exact_between_frames_on_a_line() -> None:
    made = fusion.made_up_arrays(sequences=1, frames=9, trackers=2, seed=0)
    made["gt"] = (np.arange(1, 10)[:, None] * [2.0, 1.0, 0.5, 0.25] + made["seq_init"][0]).astype(np.float32)
    tracks = fusion.Tracks.of(made)
    found = fusion.interpolated(tracks[[1, 4, 7]], tracks[[0, 2, 3, 5, 6, 8]])
    np.testing.assert_allclose(found, tracks.known[[1, 4, 7]], atol=1e-4)


def test_intervals_and_the_paired_test_count_sequences() -> None:
    random = np.random.default_rng(0)
    sequence = np.repeat(np.arange(40), 50)
    of_sequence = random.normal(0.5, 0.1, 40)
    values = of_sequence[sequence]
    low, high = fusion.interval(values, sequence)
    error = 0.1 / np.sqrt(40)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.35)
    assert low < values.mean() < high
    assert fusion.paired_test(values + 0.05, values, sequence) < 1e-3
    assert fusion.paired_test(values + random.normal(0, 0.1, 40)[sequence], values, sequence) > 0.01
    np.testing.assert_allclose(fusion.by_sequence(values, sequence), of_sequence)
