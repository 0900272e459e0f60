"""Comparing two ways to do one thing on a machine that others use, too: interleaved repeats, minima and medians."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Call = Callable[[], Any]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes
    ----------
    figure, peer
        Ours and theirs in `unit`; peer is None where a figure of ours alone is bounded.
    ratio
        What `bound` speaks of: ours / theirs for `<=`, theirs / ours for `>=` (how many times faster), or the figure.
    ratio_of_medians
        The same from medians instead of minima; to judge the noise, not the bound.
    """

    section: str
    work: str
    unit: str
    figure: float | None
    peer: float | None
    peer_name: str
    ratio: float | None
    ratio_of_medians: float | None
    sign: str
    bound: float | None
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.ratio is None:
            return "skipped"
        if self.bound is None:
            return ""
        return "pass" if (self.ratio <= self.bound if self.sign == "<=" else self.ratio >= self.bound) else "MISS"

    def line(self) -> str:
        def number(value: float | None) -> str:
            return "" if value is None else f"{value:.4g}"

        against = f"{number(self.peer)} {self.peer_name}" if self.peer is not None else ""
        medians = "" if self.ratio_of_medians is None else f"({self.ratio_of_medians:.2f})"
        bound = "" if self.bound is None else f"{self.sign} {self.bound:g}"
        return (
            f"{self.work:<42} {number(self.figure):>9} {self.unit:<8} {against:<26} {number(self.ratio):>7} "
            f"{medians:<9} {bound:<8} {self.verdict:<7} {self.note}"
        ).rstrip()

    def record(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict}


def print_rows(rows: Iterable[Row]) -> None:
    """One line of JSON each, as soon as it is there: what run.py reads of a script."""
    for row in rows:
        print(json.dumps(row.record()), flush=True)


def skipped(section: str, work: str, reason: str) -> Row:
    return Row(section, work, "", None, None, "", None, None, "", None, reason)


def compare(ours: Call, theirs: Call, clock: Clock, repeats: int = 25, target: float = 0.02) -> tuple[Any, Any]:
    """(minimum, median) seconds a call of each, from repeats that alternate and last about `target` seconds."""
    calls = (ours, theirs)
    counts = [calibrate(call, target) for call in calls]
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for call, count, found in zip(calls, counts, seconds, strict=True):
            time.sleep(0.01)  # threads of the other one may still be looking for work
            call()
            begin = clock()
            for _ in range(count):
                call()
            found.append((clock() - begin) / count)
    first, second = ((min(found), float(np.median(found))) for found in seconds)
    return first, second


def calibrate(call: Call, target: float) -> int:
    """How many calls last about `target` seconds; calls twice, so that it is warm."""
    call()
    begin = time.perf_counter()
    call()
    return max(1, int(target / max(time.perf_counter() - begin, 1e-7)))


def fastest(calls: dict[str, Call], clock: Clock) -> str:
    """Which of several ways of a peer is its fastest."""

    def seconds(call: Call) -> float:
        call()
        call()
        found = []
        for _ in range(9):
            begin = clock()
            call()
            found.append(clock() - begin)
        return min(found)

    return min(calls, key=lambda name: seconds(calls[name]))
