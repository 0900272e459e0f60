"""What `fit(checkpoint=)` saves and when, and that nothing is lost by full disks, foreign files and Ctrl-C."""

import errno
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from wiberg.learn import checkpoint, saving


def learner_of(spring, t_loss, **options):
    return wb.Learner(spring, t_loss, {"w": 2.0}, wb.SGD(0.05, momentum=0.9), **options)


def batch_of(step):
    z = np.random.default_rng([3, step]).uniform(0.5, 1.5, 5)
    return wb.Batch(data={"a": 1.0, "z": z}, targets={"mu": 3.0 * z}, start={"t": 0.0})


def steps_in(path):
    return checkpoint.load(path).header["steps"]


@pytest.fixture
def saves(monkeypatch):
    """How far each checkpoint was that is written."""
    seen, save = [], checkpoint.save

    def noting(path, what):
        seen.append(what.header["steps"])
        save(path, what)

    monkeypatch.setattr(checkpoint, "save", noting)
    return seen


# ---------------------------------------------------------------------------------------------- when


def test_every_so_many_steps_and_at_both_ends(spring, t_loss, tmp_path, saves):
    learner = learner_of(spring, t_loss)
    learner.fit(batch_of, steps=10, checkpoint=tmp_path / "run", every_steps=4)
    assert saves == [0, 4, 8, 10]
    learner.fit(batch_of, steps=2, checkpoint=tmp_path / "run", every_steps=4)
    assert saves == [0, 4, 8, 10, 12]
    learner.fit(batch_of, steps=0, checkpoint=tmp_path / "run")
    assert saves == [0, 4, 8, 10, 12]


def test_every_so_many_seconds(spring, t_loss, tmp_path, saves, monkeypatch):
    now = iter(range(1000))  # every look at the clock is a second later
    monkeypatch.setattr(saving, "monotonic", lambda: float(next(now)))
    learner_of(spring, t_loss).fit(batch_of, steps=9, checkpoint=tmp_path / "run", every_seconds=3)
    assert saves == [0, 3, 6, 9]
    saves.clear()
    learner_of(spring, t_loss).fit(batch_of, steps=9, checkpoint=tmp_path / "two", every_seconds=1e6, every_steps=5)
    assert saves == [0, 5, 9]


def test_without_an_interval_a_run_of_a_moment_saves_at_its_ends(spring, t_loss, tmp_path, saves):
    learner_of(spring, t_loss).fit(batch_of, steps=9, checkpoint=tmp_path / "run")
    assert saves == [0, 9]


@pytest.mark.parametrize(
    "options, error, names",
    [
        ({"every_steps": 3}, wb.InputError, "checkpoint="),
        ({"every_steps": 0, "checkpoint": "run"}, wb.InputError, "every_steps.*>= 1"),
        ({"every_steps": 2.5, "checkpoint": "run"}, wb.InputTypeError, "every_steps.*integer"),
        ({"every_seconds": -1, "checkpoint": "run"}, wb.InputError, "every_seconds"),
        ({"every_seconds": np.nan, "checkpoint": "run"}, wb.InputError, "every_seconds"),
        ({"every_seconds": "3", "checkpoint": "run"}, wb.InputTypeError, "every_seconds"),
        ({"checkpoint": 3}, wb.InputTypeError, "checkpoint must be the path"),
        ({"checkpoint": "run\0"}, wb.CheckpointError, "cannot save"),
        ({"checkpont": "run"}, wb.InputTypeError, "did you mean 'checkpoint'"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_the_first_step(
    spring, t_loss, options, error, names, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    learner = learner_of(spring, t_loss)
    with pytest.raises(error, match=names):
        learner.fit(batch_of, steps=2, **options)
    assert learner.steps == 0


# ---------------------------------------------------------------------------------------------- what must not be lost


def test_an_error_ends_with_the_last_complete_step_saved(spring, t_loss, tmp_path):
    def failing(step):
        if step == 5:
            raise RuntimeError("the reader broke")
        return batch_of(step)

    with pytest.raises(RuntimeError, match="reader broke"):
        learner_of(spring, t_loss).fit(failing, steps=9, checkpoint=tmp_path / "run")
    whole = learner_of(spring, t_loss)
    whole.fit(batch_of, steps=9)
    resumed = wb.Learner.load(tmp_path / "run", spring, t_loss)
    resumed.fit(batch_of, steps=9 - resumed.steps)
    assert resumed.weights == whole.weights and (resumed.history.loss == whole.history.loss).all()


def test_a_run_that_is_further_is_not_replaced(spring, t_loss, tmp_path):
    learner_of(spring, t_loss).fit(batch_of, steps=9, checkpoint=tmp_path / "run")
    before, again = (tmp_path / "run").read_bytes(), learner_of(spring, t_loss)
    with pytest.raises(wb.CheckpointError, match=r"9 steps far and this learner 0.*wb\.Learner\.load"):
        again.fit(batch_of, steps=9, checkpoint=tmp_path / "run")
    assert (tmp_path / "run").read_bytes() == before and again.steps == 0


def test_a_run_of_another_energy_or_loss_is_not_replaced(spring, stiff_spring, t_loss, tmp_path):
    learner_of(spring, t_loss).fit(batch_of, steps=2, checkpoint=tmp_path / "run")
    before = (tmp_path / "run").read_bytes()
    other = learner_of(stiff_spring, t_loss)
    with pytest.raises(wb.CheckpointError, match=r"energy 'spring'.*not for 'stiff'.*differs"):
        other.fit(batch_of, steps=2, checkpoint=tmp_path / "run")
    t, mu = sp.symbols("t mu", real=True)
    with pytest.raises(wb.CheckpointError, match=r"loss.*differs"):
        learner_of(spring, wb.Loss((t - mu) ** 4, variables=[t], targets=[mu])).fit(
            batch_of, steps=2, checkpoint=tmp_path / "run"
        )
    assert (tmp_path / "run").read_bytes() == before


@pytest.fixture(scope="module")
def stiff_spring():
    t, a, weight, z = sp.symbols("t a w z", real=True)
    return wb.compile(
        wb.Energy(a * (t - weight * z) ** 2, variables=[t], weights=[weight], data=[a, z], name="stiff"),
        backend="reference",
    )


def test_foreign_and_damaged_files_are_not_replaced(spring, t_loss, tmp_path):
    foreign, damaged = tmp_path / "notes.txt", tmp_path / "run"
    foreign.write_text("measured on Monday")
    with pytest.raises(wb.CheckpointError, match=r"notes.txt.*not a wiberg checkpoint"):
        learner_of(spring, t_loss).fit(batch_of, steps=2, checkpoint=foreign)
    assert foreign.read_text() == "measured on Monday"
    learner_of(spring, t_loss).fit(batch_of, steps=4, checkpoint=damaged, every_steps=1)
    damaged.write_bytes(damaged.read_bytes()[:-50])
    with pytest.raises(wb.CheckpointError, match=r"truncated or damaged.*previous good one: .*run\.1"):
        learner_of(spring, t_loss).fit(batch_of, steps=2, checkpoint=damaged)
    assert steps_in(tmp_path / "run.1") == 3


def test_an_empty_file_is_taken(spring, t_loss, tmp_path):
    (tmp_path / "run").touch()
    learner_of(spring, t_loss).fit(batch_of, steps=2, checkpoint=tmp_path / "run")
    assert steps_in(tmp_path / "run") == 2


def test_a_place_that_cannot_be_written_is_refused_before_the_first_step(spring, t_loss, tmp_path):
    learner = learner_of(spring, t_loss)
    with pytest.raises(wb.CheckpointError, match=r"cannot save.*No such file"):
        learner.fit(batch_of, steps=2, checkpoint=tmp_path / "absent" / "run")
    assert learner.steps == 0


def test_a_disk_that_fills_up_ends_fit_and_keeps_the_last_good_one(spring, t_loss, tmp_path, monkeypatch):
    learner, fsync, calls = learner_of(spring, t_loss), os.fsync, []

    def filling(number):
        calls.append(number)
        if len(calls) > 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(number)

    monkeypatch.setattr(os, "fsync", filling)
    with pytest.raises(wb.CheckpointError, match=r"No space left.*untouched.*still in memory"):
        learner.fit(batch_of, steps=20, checkpoint=tmp_path / "run", every_steps=2)
    monkeypatch.undo()
    good = steps_in(tmp_path / "run")
    assert good < learner.steps == len(learner.history) < 20 and good % 2 == 0
    learner.fit(batch_of, steps=20 - learner.steps, checkpoint=tmp_path / "run")
    whole = learner_of(spring, t_loss)
    whole.fit(batch_of, steps=20)
    assert learner.weights == whole.weights and steps_in(tmp_path / "run") == 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits of processes are of POSIX")
def test_a_file_that_may_not_grow_leaves_the_last_good_one(tmp_path):
    """The system itself refuses the write, half way."""
    program = """
import resource, sys, numpy as np
from wiberg.learn import checkpoint
save = lambda size: checkpoint.save(sys.argv[1], checkpoint.Checkpoint({"steps": size}, {"w": np.ones(size)}))
save(100)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    save(10_000)
except checkpoint.CheckpointError as error:
    print(error)
"""
    path = tmp_path / "run"
    shown = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True).stdout
    assert "cannot save" in shown and "File too large" in shown and "untouched" in shown
    assert steps_in(path) == 100 and [file.name for file in tmp_path.iterdir()] == ["run"]


def test_what_killed_writers_left_is_removed_when_it_is_old(tmp_path, monkeypatch):
    left = [tmp_path / ".run.00.new", tmp_path / ".run.123.1", tmp_path / ".running.00.new", tmp_path / "run.new"]
    for file in left:
        file.touch()
    one = checkpoint.Checkpoint({}, {"w": np.ones(2)})
    checkpoint.save(tmp_path / "run", one)
    assert all(file.exists() for file in left)
    monkeypatch.setattr(checkpoint, "_ABANDONED", -1.0)
    checkpoint.save(tmp_path / "run", one)
    assert [file.exists() for file in left] == [False, False, True, True]


# ---------------------------------------------------------------------------------------------- Ctrl-C


def test_ctrl_c_ends_fit_after_the_step_with_a_saved_state(spring, t_loss, tmp_path):
    learner, ended = learner_of(spring, t_loss), []

    def pressed(step):
        if step == 5:
            signal.raise_signal(signal.SIGINT)
        ended.append(step)
        return batch_of(step)

    with pytest.raises(KeyboardInterrupt):
        learner.fit(pressed, steps=20, checkpoint=tmp_path / "run")
    assert ended == list(range(6)) and learner.steps == steps_in(tmp_path / "run") == len(learner.history) == 6
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed, whole = wb.Learner.load(tmp_path / "run", spring, t_loss), learner_of(spring, t_loss)
    resumed.fit(batch_of, steps=14)
    whole.fit(batch_of, steps=20)
    assert resumed.weights == whole.weights


def test_second_ctrl_c_drops_the_step_and_saves_what_was_before(spring, t_loss, tmp_path):
    def pressed(step):
        if step == 5:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return batch_of(step)

    learner = learner_of(spring, t_loss)
    with pytest.raises(KeyboardInterrupt):
        learner.fit(pressed, steps=20, checkpoint=tmp_path / "run")
    assert learner.steps == steps_in(tmp_path / "run") == 5


def test_somebody_elses_handler_stays(spring, t_loss):
    seen = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        learner = learner_of(spring, t_loss)
        learner.fit(batch_of, steps=3, callback=lambda learner: signal.raise_signal(signal.SIGINT))
        assert learner.steps == 3 and seen == [signal.SIGINT] * 3
    finally:
        signal.signal(signal.SIGINT, before)


def test_fit_in_another_thread_leaves_signals_alone(spring, t_loss):
    learner = learner_of(spring, t_loss)
    thread = threading.Thread(target=learner.fit, args=(batch_of, 3))
    thread.start()
    thread.join()
    assert learner.steps == 3


# ---------------------------------------------------------------------------------------------- SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked")
def test_killed_runs_end_with_the_bits_of_the_uninterrupted_one():
    """`make crash N=200` does the same 200 times."""
    program = Path(__file__).parents[1] / "crash.py"
    shown = subprocess.run([sys.executable, program, "4"], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "4 of 4 runs ended with the bits" in shown.stdout
    assert int(re.search(r"after (\d+) kills", shown.stdout)[1]) >= 4


# ---------------------------------------------------------------------------------------------- notes


def test_notes_are_saved_with_what_is_learnt(spring, t_loss, tmp_path):
    notes = {"trackers": ["a", "b"], "unit": {"length": 0.5}, "made": None}
    learner = learner_of(spring, t_loss, notes=notes)
    learner.fit(batch_of, steps=2, checkpoint=tmp_path / "run")
    notes["trackers"].append("c")  # they are a copy
    kept = {"trackers": ["a", "b"], "unit": {"length": 0.5}, "made": None}
    assert wb.Learner.read_notes(tmp_path / "run") == wb.Learner.load(tmp_path / "run", spring, t_loss).notes == kept
    learner_of(spring, t_loss).save(tmp_path / "none")
    assert wb.Learner.read_notes(tmp_path / "none") == {}


@pytest.mark.parametrize("notes", [{"a": np.zeros(2)}, {"a": float("nan")}, [1, 2]])
def test_notes_that_are_no_json_are_refused(spring, t_loss, notes):
    with pytest.raises(wb.InputTypeError, match="notes must be a dict of JSON values"):
        learner_of(spring, t_loss, notes=notes)
