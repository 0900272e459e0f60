"""Slices of a batch on threads: the same bits for any number of threads, because an instance never sees its slice.

A job is a driver (calling.py) and its problem, over a number of instances. Each thread, the calling one or a helper,
takes slices from a part of its own, so that it meets the same data again at the next call, and then from the parts of
those that are late. Slices last at most about 50 ms, after which Python can see Ctrl-C; it then
raises a stop flag that drivers read after each instance.

Helpers are Python threads that spend their lives in compiled code, without the GIL. After a job they go on looking for
another one for a fraction of a millisecond, so that a loop over small batches pays .5 microseconds to share one
instead of the 20 that it takes to wake a thread; then they sleep. A helper that does not come in time is not waited
for: its offer is taken back.

A forked child, which has inherited the memory of the helpers but no threads, makes its own.
"""

from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Hashable
from contextlib import suppress
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..machine_code.calling import (
    atomic_add,
    atomic_load,
    atomic_store,
    call_drive,
    compare_exchange,
    double_pointer_at,
    integer_pointer_at,
    pause,
    shifted,
)
from ..machine_code.native import Native, native
from ..machine_code.signature import IntegerPointer
from .arrays import address_of
from .memory import empty
from .threads import threads

SLICE_SECONDS = 0.05
"""A slice should end within this time, so that Ctrl-C is seen."""

WAKE_SECONDS = 200e-6
"""Work expected to take longer than this is worth waking a helper for."""

SHARE_SECONDS = 15e-6
"""Work expected to take longer than this is shared with helpers that are awake."""

SOON_SECONDS = 1e-3
"""Calls that follow each other within this time keep the helpers awake."""

SHORTEST_SECONDS = 2e-6
"""Slices that last longer than this cost next to nothing to take."""

# ---------------------------------------------------------------------------------------------- compiled

# What a job is: an array of int64. FIRST and COUNT are the ends of the instances, of which each of PARTS has SPAN. Part
# k has STRIDE numbers of MEMORY: its cursor, a cache line from everything else, then the workspace of its thread.
# BEFORE is the address of a driver that runs once, before all slices, or 0.
DRIVER, PROBLEM, FIRST, COUNT, LENGTH, STOP, MEMORY, STRIDE, RAN, PARTS, SPAN, IS_NEW, BEFORE = range(13)
CURSOR_SIZE = LINE = 8

# A helper's box: 128 bytes of its own, so that looking into it disturbs no one else.
STATE, JOB, PART, BOX_SIZE = 0, 1, 2, 16
ASLEEP, LISTENING, CLAIMED, OFFERED_ASLEEP, OFFERED, RUNNING = range(6)
_SLEEPING = (ASLEEP, OFFERED_ASLEEP)


def _part_end(job: IntegerPointer, part: int) -> int:
    return min(job[COUNT], job[FIRST] + (part + 1) * job[SPAN])


def _cursor(job: IntegerPointer, part: int) -> IntegerPointer:
    return shifted(integer_pointer_at(job[MEMORY]), part * job[STRIDE])


def _take_slices(job: IntegerPointer, own_part: int, most: int) -> int:
    """Run slices of a job, at most that many, from the own part first; returns how many instances they were."""
    ran, taken, parts = 0, 0, job[PARTS]
    workspace = shifted(double_pointer_at(job[MEMORY]), own_part * job[STRIDE] + CURSOR_SIZE)
    for step in range(parts):
        part = (own_part + step) % parts
        last, cursor = _part_end(job, part), _cursor(job, part)
        while True:
            if taken >= most or atomic_load(job, STOP) != 0:
                return ran
            length = atomic_load(job, LENGTH)
            begin = atomic_add(cursor, 0, length)
            if begin >= last:
                break
            end = min(last, begin + length)
            call_drive(job[DRIVER], integer_pointer_at(job[PROBLEM]), begin, end, workspace, shifted(job, STOP))
            ran += end - begin
            taken += 1
    return ran


def _is_left(job: IntegerPointer) -> bool:
    """Whether there are instances that no thread has taken yet."""
    if atomic_load(job, STOP) != 0:
        return False
    part = 0
    while part < job[PARTS] and atomic_load(_cursor(job, part), 0) >= _part_end(job, part):
        part += 1
    return part < job[PARTS]


def _listen(box: IntegerPointer, looks: int) -> int:
    """What a helper does while awake: run the jobs it is offered, until it has looked in vain for so many times."""
    vain = 0
    while True:
        state = atomic_load(box, STATE)
        if state == ASLEEP:
            compare_exchange(box, STATE, ASLEEP, LISTENING)
        elif state > CLAIMED:
            if compare_exchange(box, STATE, state, RUNNING):
                job = integer_pointer_at(box[JOB])
                _take_slices(job, box[PART], job[COUNT])
                atomic_store(box, STATE, LISTENING)
                vain = 0
        else:
            vain += 1
            if vain > looks and compare_exchange(box, STATE, LISTENING, ASLEEP):
                return vain
            pause()


def _offer(job: IntegerPointer, address: int, boxes: IntegerPointer, helpers: int) -> int:
    """Offer a job to helpers that have no other one; to how many."""
    offers = 0
    for k in range(helpers):
        box = shifted(boxes, k * BOX_SIZE)
        state = atomic_load(box, STATE)
        if state <= LISTENING and compare_exchange(box, STATE, state, CLAIMED):
            box[JOB] = address
            box[PART] = k + 1
            atomic_store(box, STATE, OFFERED_ASLEEP if state == ASLEEP else OFFERED)
            offers += 1
    return offers


def _take_back(address: int, boxes: IntegerPointer, helpers: int, looks: int) -> bool:
    """Take back the offers of a job and wait for the helpers that run it; False where that takes too many looks."""
    for k in range(helpers):
        box, vain = shifted(boxes, k * BOX_SIZE), 0
        while True:
            state = atomic_load(box, STATE)
            if state < OFFERED_ASLEEP or box[JOB] != address:
                break
            if state == RUNNING:
                vain += 1
                if vain > looks:
                    return False
                pause()
            else:
                compare_exchange(box, STATE, state, ASLEEP if state == OFFERED_ASLEEP else LISTENING)
    return True


def _share(job: IntegerPointer, address: int, boxes: IntegerPointer, helpers: int, most: int, looks: int) -> int:
    """Work on a job with helpers; 1 once it is done and no helper works on it any more, else call again."""
    if job[IS_NEW] != 0:
        for part in range(job[PARTS]):
            cursor = _cursor(job, part)
            cursor[0] = job[FIRST] + part * job[SPAN]
        if job[BEFORE] != 0:
            call_drive(
                job[BEFORE], integer_pointer_at(job[PROBLEM]), 0, 1, double_pointer_at(job[MEMORY]), shifted(job, STOP)
            )
        job[IS_NEW] = 0
    if _is_left(job):
        _offer(job, address, boxes, helpers)
        job[RAN] = _take_slices(job, 0, most)
        if _is_left(job):
            return 0
    return 1 if _take_back(address, boxes, helpers, looks) else 0


# ---------------------------------------------------------------------------------------------- running

MOST_HELPERS = 256

LOOKS = 20_000
"""How often a helper or a caller looks before it sleeps or returns to Python: some 200 microseconds."""

_seconds: dict[Hashable, float] = {}
_never = array("q", [0])
NEVER = _never.buffer_info()[0]
"""The address of a stop flag that is never raised."""


def run_slices(
    driver: Native, problem: int, count: int, *, key: Hashable, workspace: int, before: Native | None = None
) -> None:
    """Run a driver over slices that together cover range(count), on one or more threads.

    Parameters
    ----------
    driver : Native
        A compiled function as described in calling.py. What an instance computes must not depend on its slice.
    problem : int
        Address of its problem.
    count : int
        Number of instances (or of blocks of instances).
    key : hashable
        What the running estimate of the time per instance is remembered under, such as a kernel's address and extents.
    workspace : int
        float64 numbers of working memory that each thread gets.
    before : Native, optional
        A driver to call once with the same problem, before all slices.
    """
    if count <= 1:
        if count == 1:
            _run_at_once(driver, problem, 1, workspace, before)
        return
    seconds = _seconds.get(key)
    if seconds is not None:
        expected = seconds * count
        if expected < SHARE_SECONDS or (expected < SLICE_SECONDS and threads() == 1):
            start = perf_counter()
            _run_at_once(driver, problem, count, workspace, before)
            _seconds[key] = max(perf_counter() - start, 1e-9) / count
            return
    elif len(_seconds) > 10_000:
        _seconds.clear()
    _run_job(driver, problem, count, key, workspace, threads() - 1, before)


def _run_at_once(driver: Native, problem: int, count: int, workspace: int, before: Native | None) -> None:
    memory = empty(workspace + LINE)
    place = _next_line(memory)
    if before is not None:
        before.call(problem, 0, 1, place, NEVER)
    driver.call(problem, 0, count, place, NEVER)


def _next_line(memory: NDArray[np.float64]) -> int:
    """Where the first cache line begins: vectors that cross lines cost the trust region of 26 unknowns a tenth more."""
    return (address_of(memory) + 8 * LINE - 1) // (8 * LINE) * (8 * LINE)


def _run_job(
    driver: Native, problem: int, count: int, key: Hashable, workspace: int, helpers: int, before: Native | None
) -> None:
    share = native(_share).call
    stride = CURSOR_SIZE + -(-workspace // LINE) * LINE + LINE  # a cache line between the memories of two threads
    memory = empty(stride * (helpers + 1) + LINE)
    place = _next_line(memory)
    first, seconds = 0, _seconds.get(key)
    if seconds is None:
        if before is not None:
            before.call(problem, 0, 1, place, NEVER)
            before = None
        first, seconds = _measure(driver, problem, count, place + 8 * CURSOR_SIZE)
        if first >= count:
            _seconds[key] = seconds
            return
    left, parts = count - first, helpers + 1
    expected, span = seconds * left, -(-left // parts)
    length = _length(seconds, left, parts)
    begin = 0 if before is None else before.address
    job = array("q", (driver.address, problem, first, count, length, 0, place, stride, 0, parts, span, 1, begin))
    address = job.buffer_info()[0]
    crew = _ready(helpers) if helpers > 0 and expected > SHARE_SECONDS else None
    boxes, helpers = (0, 0) if crew is None else (crew.address, min(helpers, len(crew.doors)))
    try:
        if crew is not None:
            crew.call(address, helpers, expected)
        while True:
            begun = perf_counter()
            done = share(address, address, boxes, helpers, 1 + int(SLICE_SECONDS / (length * seconds)), LOOKS)
            if job[RAN]:
                seconds = _seconds[key] = max(perf_counter() - begun, 1e-9) / job[RAN]
            if done:
                return
            job[RAN], job[LENGTH] = 0, (length := _length(seconds, left, parts))
    except BaseException:
        job[STOP] = 1
        while not _is_over(share, address, boxes, helpers):
            pass
        raise


def _is_over(share: Any, job: int, boxes: int, helpers: int) -> bool:
    """Whether no helper works on a stopped job any more; until then its memory must stay, whatever is raised."""
    try:
        return bool(share(job, job, boxes, helpers, 0, LOOKS))
    except BaseException:
        return False


def _measure(driver: Native, problem: int, count: int, workspace: int) -> tuple[int, float]:
    """Run the first instances for about as long as waking a helper takes: how many, and seconds for one of the last."""
    length, seconds, begun, end = 1, 0.0, perf_counter(), 0
    while end == 0 or (end < count and perf_counter() - begun < WAKE_SECONDS):
        begin, end = end, min(count, end + length)
        start = perf_counter()
        driver.call(problem, begin, end, workspace, NEVER)
        seconds = max(perf_counter() - start, 1e-9) / (end - begin)
        length = min(16 * length, max(1, int(WAKE_SECONDS / 4 / seconds)))
    return end, seconds


def _length(seconds: float, rest: int, workers: int) -> int:
    """Of at most SLICE_SECONDS, of more than taking one costs, and enough of them for all threads."""
    length = rest // (12 * workers) + 1
    if length * seconds < SHORTEST_SECONDS:
        length = int(SHORTEST_SECONDS / seconds)
    if length * seconds > SLICE_SECONDS:
        length = int(SLICE_SECONDS / seconds)
    return length or 1


# ---------------------------------------------------------------------------------------------- helpers


class _Crew:
    """The helpers of this process, made on demand, and where they look for jobs."""

    def __init__(self) -> None:
        self.boxes = array("q", bytes(8 * BOX_SIZE * MOST_HELPERS))
        self.address = self.boxes.buffer_info()[0]
        self.doors: list[threading.Lock] = []  # a helper sleeps on its lock
        self.lock = threading.Lock()
        self.last = 0.0

    def grow(self, helpers: int) -> None:
        with self.lock:
            while len(self.doors) < min(helpers, MOST_HELPERS):
                door = threading.Lock()
                door.acquire()
                box = self.address + 8 * BOX_SIZE * len(self.doors)
                name = f"wiberg-{len(self.doors) + 1}"
                threading.Thread(target=_help, args=(self, box, door), name=name, daemon=True).start()
                self.doors.append(door)

    def call(self, job: int, helpers: int, expected: float) -> None:
        """Wake helpers for a job where this pays for so many seconds of work."""
        now = perf_counter()
        soon, self.last = now - self.last < SOON_SECONDS, now
        if expected > WAKE_SECONDS:
            native(_share).call(job, job, self.address, helpers, 0, LOOKS)  # first: who has an offer stays awake
        elif not soon:
            return
        boxes = self.boxes
        for k in range(helpers):
            if boxes[k * BOX_SIZE] in _SLEEPING and self.doors[k].locked():
                with suppress(RuntimeError):  # another thread has just done so
                    self.doors[k].release()


def _help(crew: _Crew, box: int, door: threading.Lock) -> None:
    """The life of a helper thread; `crew` keeps its box alive."""
    listen = native(_listen).call
    while True:
        door.acquire()
        listen(box, LOOKS)


_crew: _Crew | None = None


def _ready(helpers: int) -> _Crew:
    """The helpers of this process; that many, unless the interpreter is shutting down."""
    global _crew
    if _crew is None:
        _crew = _Crew()
    if len(_crew.doors) < helpers:
        with suppress(RuntimeError):
            _crew.grow(helpers)
    return _crew


def _leave_helpers_behind() -> None:
    """In a forked child, which has inherited the memory of the helpers and no thread."""
    global _crew
    _crew = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_helpers_behind)
