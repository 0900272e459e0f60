import contextlib
import errno
import os
import pickle
import zipfile

import numpy as np
import pytest
import wiberg as wb
from wiberg.learn import checkpoint
from wiberg.learn.checkpoint import Checkpoint, from_bytes, load, save, to_bytes


def example(steps=3):
    return Checkpoint(
        {"steps": steps, "energy": {"name": "ransac \u2200"}},
        {"weights": np.array([1.0, 0.1]), "history/series": np.arange(6.0).reshape(3, 2)},
    )


def same(a, b):
    return (
        a.header == b.header
        and a.arrays.keys() == b.arrays.keys()
        and all(np.array_equal(a.arrays[k], b.arrays[k], equal_nan=True) for k in a.arrays)
    )


def test_what_is_saved_is_loaded(tmp_path):
    save(tmp_path / "run.npz", example())
    assert same(load(tmp_path / "run.npz"), example())


def test_save_load_save_gives_the_same_bytes(tmp_path):
    save(tmp_path / "a", example())
    save(tmp_path / "b", load(tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_numpy_reads_it_without_pickle(tmp_path):
    save(tmp_path / "run.npz", example())
    with np.load(tmp_path / "run.npz", allow_pickle=False) as file:
        assert file["weights"].tolist() == [1.0, 0.1]


def test_previous_one_is_kept(tmp_path):
    path = tmp_path / "run.npz"
    for steps in (1, 2, 3):
        save(path, example(steps))
    assert load(path).header["steps"] == 3
    assert load(tmp_path / "run.npz.1").header["steps"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.npz", "run.npz.1"]


def test_damaged_one_does_not_replace_the_previous(tmp_path):
    path = tmp_path / "run.npz"
    save(path, example(1))
    save(path, example(2))
    path.write_bytes(path.read_bytes()[:-30])
    save(path, example(3))
    assert load(tmp_path / "run.npz.1").header["steps"] == 1
    assert load(path).header["steps"] == 3


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_truncated_file_is_refused_and_the_previous_named(tmp_path, part):
    path = tmp_path / "run.npz"
    save(path, example(1))
    save(path, example(2))
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(wb.CheckpointError, match=r"run\.npz.*not a wiberg checkpoint.*run\.npz\.1"):
        load(path)


def test_every_altered_byte_is_noticed_or_harmless():
    data = to_bytes(example())
    for k in range(0, len(data), 7):
        altered = bytearray(data)
        altered[k] ^= 0x55
        with contextlib.suppress(wb.CheckpointError):
            assert same(from_bytes(bytes(altered)), example())


@pytest.mark.parametrize(
    "write",
    [
        lambda p: p.write_bytes(pickle.dumps({"a": 1})),
        lambda p: p.write_text("hello"),
        lambda p: np.savez(p, a=np.ones(2)),
        lambda p: zipfile.ZipFile(p, "w").close(),
    ],
)
def test_foreign_file_is_refused_and_never_overwritten(tmp_path, write):
    path = tmp_path / "run.npz"
    write(path)
    before = path.read_bytes()
    with pytest.raises(wb.CheckpointError, match=r"not a wiberg checkpoint"):
        load(path)
    with pytest.raises(wb.CheckpointError, match=r"not a wiberg checkpoint"):
        save(path, example())
    assert path.read_bytes() == before


def test_newer_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    data = to_bytes(example())
    monkeypatch.undo()
    with pytest.raises(wb.CheckpointError, match=r"format 99"):
        from_bytes(data)


def test_missing_file_and_directory_are_named(tmp_path):
    with pytest.raises(wb.CheckpointError, match=r"none"):
        load(tmp_path / "none")
    with pytest.raises(wb.CheckpointError, match=r"directory"):
        load(tmp_path)
    with pytest.raises(wb.CheckpointError, match=r"directory"):
        save(tmp_path, example())
    with pytest.raises(wb.CheckpointError, match=r"No such file"):
        save(tmp_path / "absent" / "run.npz", example())
    with pytest.raises(wb.CheckpointError, match=r"too long"):
        save(tmp_path / ("run" * 100), example())


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_save_that_fails_leaves_the_previous_one_and_no_litter(tmp_path, monkeypatch, function):
    path = tmp_path / "run.npz"
    save(path, example(1))

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, function, full)
    with pytest.raises(wb.CheckpointError, match=r"run\.npz.*No space left.*untouched"):
        save(path, example(2))
    monkeypatch.undo()
    assert load(path).header["steps"] == 1
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith("run.npz")] == []


def test_interrupted_write_leaves_the_previous_one(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    save(path, example(1))

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(path, example(2))
    monkeypatch.undo()
    assert load(path).header["steps"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]
