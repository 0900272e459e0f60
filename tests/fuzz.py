"""Draw random energies and hold every derivative against the formula itself, for as long as asked: `make fuzz N=20000`.

    python tests/fuzz.py 20000 --start 0 --jobs 2

Each seed is an energy, sizes and points. All derivatives of the interpreted program are compared with 60-digit
arithmetic on the SymPy expression (compiler/formula.py); of one energy in `--machine-code-every`, one kind of kernel
is compiled and compared as well, at larger sizes with the interpreter too. The same seed is the same check, whatever
the number of jobs: `--start` goes on where an earlier run ended.

What is wrong is made as small as it gets (reproducer.py) and written to output/fuzz/seed_*.py, a file that runs.
Exit code 1 if anything was found.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import wiberg as wb
from reproducer import FAULTY, Finding, examine, write
from tqdm import tqdm
from wiberg.compiler.machine_code.entry import compiled_entry
from wiberg.compiler.points import Point, random_point
from wiberg.compiler.testing import dense, draw_point, random_energy

OF_WEIGHTS = ("cross", "cross_adjoint", "weight_gradient")
COMPARED = ("value", "gradient", "hessian", "value_gradient_hessian", "hvp", "data_adjoint", *OF_WEIGHTS)
DIRECTED = ("hvp", "cross_adjoint", "data_adjoint")
LARGEST = 1e12
LARGER = 13  # extents at which machine code is compared with the interpreter: loops run in full and have a rest


@dataclass(frozen=True)
class Result:
    """The outcome for one seed: "right", "skipped" (no moderate point) or one of reproducer.FAULTY."""

    seed: int
    verdict: str
    compiled: bool = False
    text: str = ""


def check_seed(seed: int, machine_code_every: int, folder: str) -> Result:
    """Draw the energy of a seed and check it; a finding is shrunk and written."""
    compiled = machine_code_every > 0 and seed % machine_code_every == machine_code_every - 1
    kind = random.Random(f"kind {seed}").choice(COMPARED) if compiled else None
    energy, points = None, []
    try:
        energy = random_energy(random.Random(seed))
        kernel = kernel_of(energy, kind)
        generator = np.random.default_rng(seed)
        points = draw_point(kernel, generator, 2 if seed % 4 == 0 else 1, large=seed % 8 == 7)
        finding = examine(kernel, points)
        if finding.verdict == "right" and kind is not None:
            finding, points = larger_sizes(kernel, generator, kind) or (finding, points)
    except wb.NumericalError:
        return Result(seed, "skipped")
    except Exception as error:
        finding = Finding("crashed", type(error).__name__, traceback.format_exc())
    text = f"seed {seed}: {finding.text}" if finding.verdict in FAULTY else ""
    if text and energy is not None:
        text += f"\n  written to {write(Path(folder) / f'seed_{seed}.py', energy, points, finding, seed, kind)}"
    return Result(seed, finding.verdict, compiled, text)


def kernel_of(energy: wb.Energy, kind: str | None) -> wb.Kernel:
    """A kernel that interprets its programs, but for one kind that is compiled; all kinds are derived now."""
    kernel = wb.compile(energy, backend="reference")
    for each in COMPARED:
        if energy.weights or each not in OF_WEIGHTS:
            if each == kind:
                kernel._entries[kind] = compiled_entry(energy, kind)
            kernel.entry(each)
    return kernel


def larger_sizes(kernel: wb.Kernel, generator: np.random.Generator, kind: str) -> tuple[Finding, list[Point]] | None:
    """Machine code against the interpreter where loops are long; None if they agree."""
    energy, interpreted = kernel.energy, wb.compile(kernel.energy, backend="reference")
    if kind in OF_WEIGHTS and not energy.weights:
        return None
    sizes = {extent: LARGER + k for k, extent in enumerate(energy.extents)}
    point = random_point(energy, sizes, generator, positive=True)
    roles = [{str(s): point[str(s)] for s in r} for r in (energy.variables, energy.weights, energy.data)]
    vector = (np.ones(kernel.variables.pack(roles[0]).size),) if kind in DIRECTED else ()
    try:
        got, expected = (flat(getattr(k, kind)(*vector, *roles)) for k in (kernel, interpreted))
    except wb.WibergError:  # a point at which the energy cannot be read, such as an index beyond a short axis
        return None
    scale = 1 + np.abs(expected).max(initial=0.0)
    if not np.isfinite(scale) or scale > LARGEST or np.allclose(got / scale, expected / scale, rtol=0, atol=1e-9):
        return None
    return Finding("wrong", kind, f"machine code and interpreter differ at extents of {LARGER} and more"), [point]


def flat(result: object) -> np.ndarray:
    parts = result.values() if isinstance(result, dict) else result if isinstance(result, tuple) else [result]
    return np.concatenate([np.ravel(np.asarray(dense(p), dtype=float)) for p in parts] or [np.empty(0)])


def _begin(cache: str) -> None:
    """In each process: kernels that nobody will call again stay out of the user's cache; Ctrl-C is for the parent."""
    os.environ["WIBERG_CACHE_DIR"], os.environ["WIBERG_NUM_THREADS"] = cache, "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(task: tuple[int, int, str]) -> Result:
    return check_seed(*task)


@dataclass
class Tally:
    """What a run came to: verdicts counted, and the first seed that was not checked."""

    counts: Counter[str]
    next_seed: int
    seconds: float


def fuzz(seeds: range, *, jobs: int, machine_code_every: int, folder: Path) -> Tally:
    """Check all seeds, or until Ctrl-C; findings are printed as they come."""
    counts: Counter[str] = Counter()
    tasks = ((seed, machine_code_every, str(folder)) for seed in seeds)
    start, done = perf_counter(), set()
    with tempfile.TemporaryDirectory(prefix="wiberg-fuzz-") as cache:
        pool = multiprocessing.get_context("spawn").Pool(jobs, _begin, (cache,), maxtasksperchild=2000)
        bar = tqdm(total=len(seeds), unit=" energies", smoothing=0.05, mininterval=1.0)
        try:
            for result in pool.imap_unordered(_work, tasks, chunksize=8):
                done.add(result.seed)
                counts.update([result.verdict, *(["compiled"] if result.compiled else [])])
                if result.text:
                    bar.write(result.text)
                bar.set_postfix({v: counts[v] for v in (*FAULTY, "skipped") if counts[v]}, refresh=False)
                bar.update()
        except KeyboardInterrupt:
            pass
        finally:
            bar.close()
            pool.terminate()
            pool.join()
    following = next((seed for seed in seeds if seed not in done), seeds.stop)
    return Tally(counts, following, perf_counter() - start)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, help="how many energies")
    parser.add_argument("--start", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument("--machine-code-every", type=int, default=20, help="0: interpreter only (default 20)")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[1] / "output" / "fuzz")
    options = parser.parse_args(arguments)
    seeds = range(options.start, options.start + options.count)
    tally = fuzz(seeds, jobs=options.jobs, machine_code_every=options.machine_code_every, folder=options.folder)
    counts = tally.counts
    faults, checked = sum(counts[v] for v in FAULTY), sum(counts.values()) - counts["compiled"]
    print(
        f"{checked} energies (seeds {seeds.start} to {tally.next_seed - 1}) in {tally.seconds:.0f} s, "
        f"{checked / max(tally.seconds, 1e-9):.1f} a second: {counts['right']} right, {counts['skipped']} without a "
        f"moderate point, {faults} faulty; {counts['compiled']} with machine code"
    )
    print(f"go on with --start {tally.next_seed}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
