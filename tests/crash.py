"""Kill training with SIGKILL at random moments, go on from the checkpoint, and compare: `make crash N=200`.

    python tests/crash.py 200 --seed 0

Each run learns 500 weights for 60 steps in a process of its own and saves after every step. It is killed one to five
times: after a random time, or as soon as a temporary file shows that a checkpoint is being written. After each kill the
checkpoint must be whole and no older than the one before; the next process goes on from it. At the end the file
(weights, optimiser, history) must have the bytes of that of a run that nobody killed. Exit code 1 where one has not.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
import sympy as sp
import wiberg as wb
from wiberg.learn import checkpoint

STEPS, WEIGHTS, CYCLE = 60, 500, 7
PATIENCE = 60.0  # seconds that a process may take for a run


@dataclass(frozen=True)
class Outcome:
    """How many runs ended with the right bytes, and where kills came."""

    runs: int
    same: int
    kills: int
    while_writing: int
    before_the_first: int

    def __str__(self) -> str:
        return (
            f"{self.same} of {self.runs} runs ended with the bits of the uninterrupted one, after {self.kills} kills "
            f"({self.while_writing} while a checkpoint was written, {self.before_the_first} before there was one)"
        )


@cache
def problem() -> tuple[wb.Kernel, wb.Loss]:
    """A robust mean of scaled numbers, and how far it is from what it should be."""
    n = sp.Symbol("n", integer=True, positive=True)
    i, t, mu = sp.Idx("i", n), sp.Symbol("t", real=True), sp.Symbol("mu", real=True)
    x, w = sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("w", shape=(n,))
    energy = wb.Energy(
        sp.Sum(wb.pseudo_huber((t - w[i] * x[i]) ** 2, 1), i), variables=[t], weights=[w], data=[x], name="crash"
    )
    return wb.compile(energy), wb.Loss((t - mu) ** 2, variables=[t], targets=[mu])


def batch_of(step: int) -> wb.Batch:
    """What a step sees: a function of its number alone."""
    draw = np.random.default_rng([11, step])
    x = draw.standard_normal((5, WEIGHTS))
    return wb.Batch(data={"x": x}, targets={"mu": x.mean(axis=1) + 1.0}, start={"t": 0.0})


def train(path: Path, cyclic: bool) -> None:
    """Learn up to `STEPS` steps, from the checkpoint where there is one."""
    kernel, loss = problem()
    if path.exists():
        learner = wb.Learner.load(path, kernel, loss)
    else:
        learner = wb.Learner(kernel, loss, {"w": np.ones(WEIGHTS)}, wb.SGD(0.5, momentum=0.9))
    batches = [batch_of(step) for step in range(CYCLE)] if cyclic else batch_of
    learner.fit(batches, steps=STEPS - learner.steps, checkpoint=path, every_steps=1, progress=False)


def started(path: Path, cyclic: bool) -> int:
    """The number of a forked process that trains."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            train(path, cyclic)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return child


def finish(child: int) -> bool:
    """Whether it ended by itself, and well, within the time that it has."""
    deadline = perf_counter() + PATIENCE
    while perf_counter() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def kill(child: int, folder: Path, draw: random.Random, seconds: float) -> bool:
    """Kill a process at a random moment; False if it had ended before."""
    moment, writing = perf_counter() + draw.uniform(0.0, 0.5 * seconds), draw.random() < 0.5
    while perf_counter() < moment:
        sleep(0.0005)
    if writing:
        last = perf_counter() + seconds
        while not leftovers(folder) and perf_counter() < last:
            pass
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        assert os.waitstatus_to_exitcode(status) == 0
        return False
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def leftovers(folder: Path) -> set[str]:
    return {name for name in os.listdir(folder) if name.endswith(".new")}


def crash(runs: int, seed: int, folder: Path) -> Outcome:
    """Run and kill; every run in a folder of its own below `folder`, removed where all was well."""
    wb.set_threads(1)  # a process that is forked must not have threads
    train(folder / "warm.npz", False)  # what is compiled here is there in all of them
    wholes, seconds = {}, 0.0
    for cyclic in (False, True):
        path, began = folder / f"whole_{cyclic}.npz", perf_counter()
        assert finish(started(path, cyclic))
        wholes[cyclic], seconds = path.read_bytes(), perf_counter() - began
    same = kills = while_writing = before_the_first = 0
    for run in range(runs):
        draw, cyclic = random.Random(f"{seed} {run}"), run % 2 == 1
        own = folder / f"run_{run}"
        own.mkdir()
        path, steps, sound = own / "run.npz", 0, True
        for _ in range(draw.randint(1, 5)):
            left = leftovers(own)
            if not kill(started(path, cyclic), own, draw, seconds):
                break
            kills += 1
            while_writing += len(leftovers(own) - left)
            before_the_first += not path.exists()
            now = checkpoint.load(path).header["steps"] if path.exists() else 0
            sound = sound and now >= steps and (steps == 0 or path.exists())
            steps = now
            for file in own.glob(".run.npz.*.new"):
                file.unlink()  # or the next kill would take it for one being written
        sound = finish(started(path, cyclic)) and sound
        if sound and path.read_bytes() == wholes[cyclic]:
            same += 1
            shutil.rmtree(own)
        else:
            print(f"run {run}: not the same; see {own}", file=sys.stderr)
    return Outcome(runs, same, kills, while_writing, before_the_first)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("runs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="wiberg-crash-"))
    outcome = crash(given.runs, given.seed, folder)
    print(outcome)
    if outcome.same < outcome.runs:
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
