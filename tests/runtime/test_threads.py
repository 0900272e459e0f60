"""The number of threads is sensible, and can be chosen."""

import math
import types

import pytest
from wiberg.compiler.calls import threads
from wiberg.compiler.calls.threads import cgroup_quota, set_threads
from wiberg.energies.errors import InputError, InputTypeError


@pytest.fixture(autouse=True)
def default_threads(monkeypatch):
    monkeypatch.delenv("WIBERG_NUM_THREADS", raising=False)
    set_threads(None)
    threads._default = None
    yield
    set_threads(None)
    threads._default = None


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
