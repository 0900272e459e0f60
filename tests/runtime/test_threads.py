"""Slices on threads: every instance once, errors and interrupts reach the caller, the number of threads is sensible."""

import ctypes
import math
import threading
import time
import types

import numpy as np
import pytest
from wiberg.compiler import evaluate, threads
from wiberg.compiler.threads import cgroup_quota, run_slices, set_threads
from wiberg.energies.errors import InputError, InputTypeError


@pytest.fixture(autouse=True)
def default_threads(monkeypatch):
    monkeypatch.delenv("WIBERG_NUM_THREADS", raising=False)
    set_threads(None)
    threads._default = None
    yield
    set_threads(None)
    threads._default = None


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 63, 1000])
def test_every_instance_runs_once(number, count):
    set_threads(number)
    seen = np.zeros(count, int)
    workers = set()

    def call(begin, end, workspace, stop):
        seen[begin:end] += 1
        workers.add((threading.get_ident(), workspace))
        time.sleep(2e-5 * (end - begin))

    run_slices(call, count, key=object(), workspace=3)
    assert (seen == 1).all()
    assert len({w for _, w in workers}) == len(workers), "a thread has one workspace"
    assert len(workers) <= number


def test_several_threads_take_part():
    set_threads(3)
    names = set()
    key = object()

    def call(begin, end, workspace, stop):
        names.add(threading.current_thread().name)
        time.sleep(0.001 * (end - begin))

    run_slices(call, 200, key=key, workspace=0)
    assert len(names) == 3


def test_small_batch_stays_in_the_calling_thread():
    set_threads(3)
    names, slices = set(), []

    def call(begin, end, workspace, stop):
        names.add(threading.current_thread().name)
        slices.append((begin, end))

    key = object()
    for _ in range(3):
        run_slices(call, 20, key=key, workspace=0)
    assert names == {threading.current_thread().name}
    assert slices[-1] == (0, 20)


def test_slices_are_short():
    set_threads(1)
    slices = []

    def call(begin, end, workspace, stop):
        slices.append(end - begin)
        time.sleep(0.002 * (end - begin))

    run_slices(call, 150, key=object(), workspace=0)
    assert max(slices) <= 30
    assert len(slices) < 40


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_exception_reaches_the_caller_and_stops_the_rest(number, kind):
    set_threads(number)
    ran = []

    def call(begin, end, workspace, stop):
        for instance in range(begin, end):
            if ctypes.c_int64.from_address(stop).value:
                return
            ran.append(instance)
            time.sleep(0.001)
            if instance == 40:
                raise kind("instance 40")

    with pytest.raises(kind, match="instance 40"):
        run_slices(call, 1000, key=object(), workspace=0)
    assert len(ran) < 300
    seen = []
    run_slices(lambda begin, end, workspace, stop: seen.extend(range(begin, end)), 10, key=object(), workspace=0)
    assert sorted(seen) == list(range(10))


def test_workspace_is_as_large_as_asked():
    set_threads(2)

    def call(begin, end, workspace, stop):
        ctypes.memset(workspace, 255, 8 * 1000)
        assert ctypes.c_int64.from_address(stop).value == 0
        time.sleep(0.0005)

    run_slices(call, 50, key=object(), workspace=1000)


@pytest.mark.parametrize("bad, kind", [(0, InputError), (-1, InputError), (1.5, InputTypeError), ("2", InputTypeError)])
def test_bad_number_of_threads_is_refused(bad, kind):
    with pytest.raises(kind, match="integer >= 1"):
        set_threads(bad)


def test_default_respects_the_environment(monkeypatch):
    monkeypatch.setenv("WIBERG_NUM_THREADS", "3")
    assert threads.threads() == 3


@pytest.mark.parametrize("bad", ["many", "0", "-2", "1.5"])
def test_bad_environment_is_refused(monkeypatch, bad):
    monkeypatch.setenv("WIBERG_NUM_THREADS", bad)
    with pytest.raises(InputError, match="WIBERG_NUM_THREADS"):
        threads.threads()


def test_default_respects_affinity(monkeypatch):
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    monkeypatch.setattr(threads, "cgroup_quota", lambda: math.inf)
    assert threads.threads() == 3
    threads._default = None
    monkeypatch.setattr(threads, "cgroup_quota", lambda: 1.5)
    assert threads.threads() == 2


def test_one_thread_inside_joblib(monkeypatch):
    monkeypatch.setenv("JOBLIB_SPAWNED_PROCESS", "1")
    assert threads.threads() == 1


def test_one_thread_inside_dask(monkeypatch):
    monkeypatch.setattr(threads, "_default_threads", lambda: 8)
    assert threads.threads() == 8
    worker = types.SimpleNamespace(_instances={"a worker"})
    monkeypatch.setitem(threads.sys.modules, "distributed.worker", types.SimpleNamespace(Worker=worker))
    assert threads.threads() == 1
    set_threads(4)
    assert threads.threads() == 4


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_quota_of_cgroups_version_2(tmp_path):
    write(tmp_path / "self", "0::/a/b\n")
    write(tmp_path / "fs/a/b/cpu.max", "max 100000\n")
    write(tmp_path / "fs/a/cpu.max", "250000 100000\n")
    assert cgroup_quota(str(tmp_path / "self"), str(tmp_path / "fs")) == 2.5


def test_quota_of_cgroups_version_1(tmp_path):
    write(tmp_path / "self", "11:memory:/x\n4:cpu,cpuacct:/job\n")
    write(tmp_path / "fs/cpu/job/cpu.cfs_quota_us", "150000\n")
    write(tmp_path / "fs/cpu/job/cpu.cfs_period_us", "100000\n")
    assert cgroup_quota(str(tmp_path / "self"), str(tmp_path / "fs")) == 1.5


def test_no_quota(tmp_path):
    write(tmp_path / "self", "0::/\nbroken\n3:cpu:/y\n")
    write(tmp_path / "fs/cpu/y/cpu.cfs_quota_us", "-1\n")
    write(tmp_path / "fs/cpu/y/cpu.cfs_period_us", "100000\n")
    assert cgroup_quota(str(tmp_path / "self"), str(tmp_path / "fs")) == math.inf
    assert cgroup_quota(str(tmp_path / "missing"), str(tmp_path / "fs")) == math.inf


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
