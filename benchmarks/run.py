"""All benchmarks: what `make bench` runs. Each row gives our figure, the peer's, their ratio and what it must reach.

    python benchmarks/run.py [speed] [compiling] [--json FILE]

Ratios are of the minima of interleaved repeats in one process; in brackets those of the medians. The two differ by what
else the machine was doing: ratios under 1.3 prove nothing. Peers: the shared hand-written numba kernels (`../shared`,
or the folder that WIBERG_SHARED names) and JAX (`make bench-setup`); what is absent is skipped with a reason.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import compiling
from timing import Row, skipped

HERE = Path(__file__).resolve().parent


def speed(threads: int) -> Iterator[Row]:
    """The rows of `speed.py` in a process of its own, as they come."""
    command = [sys.executable, str(HERE / "speed.py"), "--threads", str(threads)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            record = json.loads(line)
            del record["verdict"]
            yield Row(**record)
    if process.returncode:
        section = "one core" if threads == 1 else f"{threads} threads"
        yield skipped(section, "the rest", f"speed.py ended with exit code {process.returncode}, see above")


def rows(parts: list[str]) -> Iterator[Row]:
    if "speed" in parts:
        yield from speed(1)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if cores > 1:
            yield from speed(2)
        else:
            yield skipped("2 threads", "all of the above", "one core only")
    if "compiling" in parts:
        yield from compiling.rows()


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {platform.system()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=["speed", "compiling", []], help="by default both")
    parser.add_argument("--json", type=Path, help="write the rows to this file, too")
    options = parser.parse_args()

    print(machine())
    print("figure and peer: least time; ratio of the least times (of the medians); what the ratio must reach")
    found: list[Row] = []
    for row in rows(options.parts or ["speed", "compiling"]):
        if not found or found[-1].section != row.section:
            print(f"\n{row.section}")
        print("  " + row.line(), flush=True)
        found.append(row)
    verdicts = [row.verdict for row in found]
    print("\n" + ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in ("pass", "MISS", "skipped")))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": [row.record() for row in found]}, indent=1))


if __name__ == "__main__":
    main()
