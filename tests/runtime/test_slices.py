"""Slices on threads: every instance once, errors and interrupts reach the caller, helpers come and go."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest
from drivers import compiled
from wiberg.compiler.calls import evaluate, slices
from wiberg.compiler.calls.slices import run_slices
from wiberg.compiler.calls.threads import set_threads
from wiberg.compiler.machine_code.calling import DRIVE, atomic_add, integer_pointer_at, pause
from wiberg.compiler.machine_code.native import Native
from wiberg.compiler.machine_code.signature import DoublePointer, IntegerPointer


@pytest.fixture(autouse=True)
def default_threads():
    yield
    set_threads(None)


def _counting(problem: IntegerPointer, begin: int, end: int, workspace: DoublePointer, stop: IntegerPointer) -> int:
    """Count each instance at problem[0] and all of them at problem[2], after problem[1] rounds of nothing."""
    seen = integer_pointer_at(problem[0])
    for instance in range(begin, end):
        if stop[0] != 0:
            return instance
        for _ in range(problem[1]):
            pause()
        workspace[0] = 1.0 * instance
        seen[instance] += 1
        atomic_add(problem, 2, 1)
        if workspace[0] != 1.0 * instance:
            seen[instance] += 1000
    return end


def counted(count, rounds=0, key=None):
    seen = np.zeros(count, np.int64)
    problem = np.array([seen.ctypes.data, rounds, 0])
    run_slices(compiled(_counting), problem.ctypes.data, count, key=key or object(), workspace=1)
    assert problem[2] == count
    return seen


def python_driver(call):
    """A driver that calls back into Python: call(begin, end, workspace, stop)."""
    function = DRIVE.c_type(lambda problem, begin, end, workspace, stop: call(begin, end, workspace, stop) or end)
    return Native(ctypes.cast(function, ctypes.c_void_p).value, function, function)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("count", [1, 1000])
def test_what_comes_before_runs_once_and_first(workers, count):
    set_threads(workers)
    calls, key = [], object()
    before = python_driver(lambda begin, end, workspace, stop: calls.append("before"))
    driver = python_driver(lambda begin, end, workspace, stop: calls.append((begin, end)))
    for _ in range(3):  # measured, then with a known time
        calls.clear()
        run_slices(driver, 0, count, key=key, workspace=1, before=before)
        assert calls[0] == "before"
        assert sum(end - begin for begin, end in calls[1:]) == count


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 63, 1000])
@pytest.mark.parametrize("rounds", [0, 300])
def test_every_instance_runs_once(number, count, rounds):
    set_threads(number)
    key = object()
    for _ in range(5):
        assert (counted(count, rounds, key) == 1).all()


def test_many_small_batches_in_a_row_run_once_each():
    set_threads(3)
    key = object()
    for _ in range(3000):
        assert (counted(64, 40, key) == 1).all()


def test_calls_from_several_python_threads_do_not_mix():
    set_threads(3)
    wrong = []

    def work(rounds):
        for _ in range(300):
            if not (counted(50, rounds) == 1).all():
                wrong.append(rounds)

    workers = [threading.Thread(target=work, args=(k * 50,)) for k in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_several_threads_take_part():
    set_threads(3)
    names, memories = set(), set()

    def call(begin, end, workspace, stop):
        names.add(threading.current_thread().name)
        memories.add((threading.get_ident(), workspace))
        time.sleep(0.001 * (end - begin))

    run_slices(python_driver(call), 0, 200, key=object(), workspace=3)
    assert len(names) == 3
    assert len({memory for _, memory in memories}) == 3, "a thread has one workspace"


def test_a_tiny_batch_stays_in_the_calling_thread():
    set_threads(3)
    names, ran = set(), []

    def call(begin, end, workspace, stop):
        names.add(threading.current_thread().name)
        ran.append((begin, end))

    key = object()
    for _ in range(3):
        slices._seconds[key] = 1e-9
        run_slices(python_driver(call), 0, 20, key=key, workspace=0)
    assert names == {threading.current_thread().name}
    assert ran[-1] == (0, 20)


def test_a_small_batch_is_shared_when_calls_follow_each_other():
    set_threads(2)
    names, key = set(), object()

    def call(begin, end, workspace, stop):
        names.add(threading.current_thread().name)

    for _ in range(2000):
        slices._seconds[key] = 2e-6
        run_slices(python_driver(call), 0, 40, key=key, workspace=0)
    assert len(names) == 2


def test_slices_are_short():
    set_threads(1)
    ran = []

    def call(begin, end, workspace, stop):
        ran.append(end - begin)
        time.sleep(0.002 * (end - begin))

    run_slices(python_driver(call), 0, 150, key=object(), workspace=0)
    assert max(ran) <= 30
    assert len(ran) < 60


@pytest.fixture
def interruptible():
    """SIGINT raises KeyboardInterrupt, also where the tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [1, 3])
def test_an_interrupt_reaches_the_caller_and_stops_all_threads(number, interruptible):
    set_threads(number)
    seen = np.zeros(100_000, np.int64)
    problem = np.array([seen.ctypes.data, 100_000, 0])
    driver = compiled(_counting)
    threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        run_slices(driver, problem.ctypes.data, len(seen), key=object(), workspace=1)
    ran = problem[2]
    assert 0 < ran < len(seen)
    time.sleep(0.05)
    assert problem[2] == ran, "no thread goes on"
    assert (counted(1000, 10) == 1).all()


def test_a_thread_that_is_held_up_before_it_measures_measures_nevertheless(monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(slices, "perf_counter", lambda: float(next(clock)))
    end, seconds = slices._measure(Native(0, lambda *arguments: arguments[2], None), 0, 10, 0)
    assert end >= 1 and seconds > 0


def test_workspace_is_as_large_as_asked():
    set_threads(2)
    stopped = []

    def call(begin, end, workspace, stop):
        ctypes.memset(workspace, 255, 8 * 1000)
        stopped.append(ctypes.c_int64.from_address(stop).value)
        time.sleep(0.0005)

    run_slices(python_driver(call), 0, 50, key=object(), workspace=1000)
    assert set(stopped) == {0}


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("count", [1, 30])
def test_the_workspace_of_a_thread_begins_with_a_cache_line(workers, count):
    set_threads(workers)
    places, key = [], object()

    def call(begin, end, workspace, stop):
        places.append(workspace)
        time.sleep(0.0005)

    for size in (0, 1, 5, 8, 1001):
        for _ in range(3):  # measured, then with a known time
            run_slices(python_driver(call), 0, count, key=key, workspace=size)
    assert {place % 64 for place in places} == {0}


def _in_child(pipe):
    set_threads(2)
    pipe.send(bool((counted(1000, 200) == 1).all()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_makes_its_own_helpers():
    set_threads(2)
    assert (counted(1000, 200) == 1).all()
    mine, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(theirs,))
    child.start()
    assert mine.poll(20) and mine.recv()
    child.join(20)
    assert child.exitcode == 0


# ---------------------------------------------------------------------------------------------- evaluate


def test_entry_over_a_batch(plane):
    names = np.resize(["bowl", "rosenbrock", "matyas"], 500)
    x, y = plane.data_of(names), np.random.default_rng(0).standard_normal((500, 2))
    inputs = plane.bind(None, x)
    results = []
    for number in (1, 2):
        set_threads(number)
        values, out = evaluate.run(plane.entry("value_gradient_hessian"), inputs, y)
        results.append(values.tobytes() + out.tobytes())
    assert results[0] == results[1]
    assert values[::3] == pytest.approx((y[::3] ** 2).sum(axis=1))
    assert out[::3, :2] == pytest.approx(2 * y[::3])


def test_one_row_is_shared(plane):
    inputs = plane.bind(None, plane.data_of(["bowl", "bowl", "matyas"]))
    values, _ = evaluate.run(plane.entry("value"), inputs, np.array([[1.0, 2.0]]))
    assert values[:2].tolist() == [5.0, 5.0]


def test_empty_batch(plane):
    inputs = plane.bind(None, {"c": np.empty((0, 4))})
    values, out = evaluate.run(plane.entry("value_gradient_hessian"), inputs, np.empty((0, 2)))
    assert values.shape == (0,)
    assert out.shape == (0, 6)
    total = evaluate.run_accumulated(plane.entry("value_gradient_hessian"), inputs, np.empty((0, 2)))
    assert total.tolist() == [0.0] * 6
