"""All benchmarks: what `make bench` runs. Each row gives our figure, the peer's, their ratio and what it must reach.

    python benchmarks/run.py [PART ...] [--json FILE]      speed, training, solvers, families, casadi, step, scaling,
                                                           streaming, compiling, sparse, pose

Ratios are of the minima of interleaved repeats in one process; in brackets those of the medians. The two differ by what
else the machine was doing: ratios under 1.3 prove nothing. Peers: the shared hand-written numba kernels (`../shared`,
or the folder that WIBERG_SHARED names), JAX and CasADi (`make bench-setup`); what is absent is skipped with a reason.
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


PARTS = (
    "speed",
    "training",
    "solvers",
    "families",
    "casadi",
    "step",
    "scaling",
    "streaming",
    "compiling",
    "sparse",
    "pose",
)


def script(section: str, name: str, *arguments: str) -> Iterator[Row]:
    """The rows that a script of this folder prints, in a process of its own, as they come."""
    command = [sys.executable, str(HERE / name), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            record = json.loads(line)
            del record["verdict"]
            yield Row(**record)
    if process.returncode:
        yield skipped(section, "the rest", f"{name} ended with exit code {process.returncode}, see above")


def rows(parts: list[str]) -> Iterator[Row]:
    if "speed" in parts:
        yield from script("one core", "speed.py", "--threads", "1")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if cores > 1:
            yield from script("2 threads", "speed.py", "--threads", "2")
        else:
            yield skipped("2 threads", "all of the above", "one core only")
    if "training" in parts:
        yield from script("training, one core", "training.py")
    if "solvers" in parts:
        yield from script("libraries, one core", "speed.py", "--solvers")
    if "families" in parts:
        yield from script("families, one core", "families.py")
    if "casadi" in parts:
        yield from script("CasADi, one core", "speed.py", "--casadi")
    if "step" in parts:
        yield from script("step", "step.py")
        yield from script("blocks", "blocks.py")
        yield from script("shared systems", "shared_systems.py")
    if "scaling" in parts:
        yield from script("scaling", "scaling.py")
    if "streaming" in parts:
        yield from script("streaming", "streaming.py")
    if "sparse" in parts:
        yield from script("sparse, one core", "sparse.py", "--rows")
    if "pose" in parts:
        yield from script("pose, one core", "pose_peers.py")
    if "compiling" in parts:
        yield from compiling.rows()


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {platform.system()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="by default all")
    parser.add_argument("--json", type=Path, help="write the rows to this file, too")
    options = parser.parse_args()

    print(machine())
    print("figure and peer: least time; ratio of the least times (of the medians); what the ratio must reach")
    found: list[Row] = []
    for row in rows(options.parts or list(PARTS)):
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
