"""Slices of a batch on threads: the same bits for any number of threads, because an instance never sees its slice.

Compiled functions release the GIL, so plain Python threads do. A call from Python costs a microsecond and handing
work to another thread about 20, so a batch goes to the pool only where a running estimate of its time says that this
pays. The calling thread works too. Slices last at most about 50 ms, after which Python can see Ctrl-C; it then raises
a stop flag that the compiled loops of the other threads read after each instance.

The pool belongs to a process id: a forked child, which has inherited the pool object but none of its threads, makes
its own on first need.
"""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import operator
import os
import sys
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from ..energies.errors import InputError, InputTypeError

SLICE_SECONDS = 0.05
"""A slice should end within this time, so that Ctrl-C is seen."""

POOL_SECONDS = 200e-6
"""Work expected to take less than this is not worth another thread."""

Slice = Callable[[int, int, int, int], Any]
"""call(begin, end, workspace, stop): run instances [begin, end); the last two are addresses."""

_chosen: int | None = None
_default: tuple[int, int] | None = None
_pool: tuple[int, int, ThreadPoolExecutor] | None = None
_pool_lock = threading.Lock()
_pool_lock_owner = os.getpid()
_seconds: dict[Hashable, float] = {}


# ---------------------------------------------------------------------------------------------- how many


def set_threads(count: int | None) -> None:
    """Use that many threads for batches from now on; None goes back to the default.

    The default is WIBERG_NUM_THREADS where set, else the CPUs that this process may use (affinity and cgroup quota);
    it is 1 inside a Dask or joblib worker, which is one of many already.

    Raises
    ------
    InputTypeError, InputError
        If `count` is not an integer >= 1.
    """
    global _chosen
    _chosen = None if count is None else _positive(count, "set_threads")


def threads() -> int:
    """How many threads a large batch uses now."""
    if _chosen is not None:
        return _chosen
    global _default
    process = os.getpid()
    if _default is None or _default[0] != process:
        _default = process, _default_threads()
    return 1 if _default[1] > 1 and _hosts_dask_worker() else _default[1]


def _positive(count: Any, who: str) -> int:
    try:
        number = operator.index(count)
    except TypeError:
        raise InputTypeError(f"{who}: the number of threads must be an integer >= 1 (got {count!r})") from None
    if number < 1:
        raise InputError(f"{who}: the number of threads must be an integer >= 1 (got {number})")
    return number


def _default_threads() -> int:
    setting = os.environ.get("WIBERG_NUM_THREADS", "").strip()
    if setting:
        if not setting.isdecimal():
            raise InputError(f"WIBERG_NUM_THREADS must be an integer >= 1 (got {setting!r})")
        return _positive(int(setting), "WIBERG_NUM_THREADS")
    if os.environ.get("JOBLIB_SPAWNED_PROCESS") or multiprocessing.current_process().name.startswith("LokyProcess"):
        return 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(affinity, cgroup_quota())))


def _hosts_dask_worker() -> bool:
    module = sys.modules.get("distributed.worker")
    return bool(getattr(getattr(module, "Worker", None), "_instances", None))


def cgroup_quota(membership: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> float:
    """How many CPUs the control groups of this process grant, version 1 or 2; inf without a quota."""
    quota = math.inf
    try:
        lines = Path(membership).read_text().splitlines()
    except OSError:
        return quota
    for line in lines:
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            mounts = [Path(root)]
        elif "cpu" in controllers.split(","):
            mounts = [Path(root) / "cpu", Path(root) / controllers]
        else:
            continue
        inner = Path(group.lstrip("/"))
        for mount in mounts:
            for folder in (inner, *inner.parents):
                quota = min(quota, _folder_quota(mount / folder))
    return quota


def _folder_quota(folder: Path) -> float:
    try:
        if (folder / "cpu.max").exists():
            limit, period = (folder / "cpu.max").read_text().split()[:2]
        else:
            limit, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return math.inf if limit in ("max", "-1") else float(limit) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


# ---------------------------------------------------------------------------------------------- running


def run_slices(call: Slice, count: int, *, key: Hashable, workspace: int) -> None:
    """Run `call` over slices that together cover range(count), on one or more threads.

    Parameters
    ----------
    call : callable (begin, end, workspace address, stop address)
        Runs the instances [begin, end). Compiled loops should read the int64 at `stop` and return early where it
        is not 0. What an instance computes must not depend on its slice.
    count : int
        Number of instances (or of blocks of instances).
    key : hashable
        What the running estimate of the time per instance is remembered under, such as a kernel's address and extents.
    workspace : int
        float64 numbers of working memory that each thread gets.

    Raises
    ------
    Whatever `call` raises, after every thread has stopped.
    """
    if count <= 0:
        return
    memory = np.empty(workspace + 1)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory.data))
    memory[workspace] = 0.0  # the stop flag: all bits 0, as an int64 too
    stop = address + 8 * workspace
    seconds = _seconds.get(key)
    if seconds is None and len(_seconds) > 10_000:
        _seconds.clear()
    start = perf_counter()
    if count == 1 or (seconds is not None and seconds * count < POOL_SECONDS):
        call(0, count, address, stop)
        _seconds[key] = (perf_counter() - start) / count
        return
    job = _Job(call, count, key, workspace, stop, memory)
    if seconds is None:
        job.take_all(address, until=POOL_SECONDS)
    helpers: list[Future[None]] = []
    try:
        helpers = _submit(job)
        job.take_all(address)
    except BaseException:
        job.stop()
        raise
    finally:
        for helper in helpers:
            if not helper.cancel():
                helper.result()
    if job.error is not None:
        raise job.error


class _Job:
    """A batch being worked on: threads take slices from a cursor, whose length follows the measured time."""

    def __init__(self, call: Slice, count: int, key: Hashable, workspace: int, stop: int, memory: Any) -> None:
        self.call, self.count, self.key, self.workspace, self.stop_address = call, count, key, workspace, stop
        self.memory = memory
        self.error: BaseException | None = None
        self._cursor = 0
        self._stopped = False
        self._lock = threading.Lock()
        self.length = self._length(_seconds[key]) if key in _seconds else 1

    def _length(self, seconds: float) -> int:
        """Of at most SLICE_SECONDS, of more than a call from Python costs, and enough of them for all threads."""
        shared = (self.count - self._cursor) // (4 * threads()) + 1
        longest = int(SLICE_SECONDS / max(seconds, 1e-9))
        shortest = int(POOL_SECONDS / 4 / max(seconds, 1e-9))
        return max(1, min(longest, max(shared, shortest)))

    def _take(self) -> tuple[int, int]:
        with self._lock:
            begin = self.count if self._stopped else self._cursor
            self._cursor = end = min(self.count, begin + self.length)
            return begin, end

    def take_all(self, workspace: int, until: float = math.inf) -> None:
        """Work until nothing is left, or for about `until` seconds."""
        first = now = perf_counter()
        while now - first < until:
            begin, end = self._take()
            if begin >= end:
                return
            self.call(begin, end, workspace, self.stop_address)
            before, now = now, perf_counter()
            seconds = _seconds[self.key] = (now - before) / (end - begin)
            self.length = min(self._length(seconds), 16 * (end - begin))

    def help(self) -> None:
        """What a thread of the pool does."""
        try:
            memory = np.empty(self.workspace + 1)
            self.take_all(memory.ctypes.data)
        except BaseException as error:
            self.error = error
            self.stop()

    def remaining_seconds(self) -> float:
        return (self.count - self._cursor) * _seconds.get(self.key, 0.0)

    def stop(self) -> None:
        self._stopped = True
        self.memory.view(np.int64)[self.workspace] = 1


def _submit(job: _Job) -> list[Future[None]]:
    helpers = threads() - 1
    if helpers == 0 or job.remaining_seconds() < POOL_SECONDS:
        return []
    pool = _make_pool(helpers)
    useful = min(helpers, math.ceil(job.remaining_seconds() / (POOL_SECONDS / 2)))
    try:
        return [pool.submit(job.help) for _ in range(useful)]
    except RuntimeError:  # the interpreter is shutting down, or another thread changed the number of threads just now
        return []


def _make_pool(helpers: int) -> ThreadPoolExecutor:
    """The pool of this process with that many threads."""
    global _pool, _pool_lock, _pool_lock_owner
    process = os.getpid()
    if _pool_lock_owner != process:  # the lock may have been held by a thread that the fork left behind
        _pool_lock, _pool_lock_owner = threading.Lock(), process
    with _pool_lock:
        if _pool is None or _pool[:2] != (process, helpers):
            if _pool is not None and _pool[0] == process:
                _pool[2].shutdown(wait=False)
            _pool = process, helpers, ThreadPoolExecutor(helpers, thread_name_prefix="wiberg")
        return _pool[2]
