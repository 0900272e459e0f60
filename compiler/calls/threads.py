"""How many threads batches use: what the user says, else the environment, the CPUs of this process and its quota."""

from __future__ import annotations

import math
import multiprocessing
import operator
import os
import sys
from pathlib import Path
from typing import Any

from ...energies.errors import InputError, InputTypeError

_chosen: int | None = None
_default: tuple[int, int] | None = None


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
