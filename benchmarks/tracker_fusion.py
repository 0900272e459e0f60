"""Figures of tracker fusion on files of real trackers (docs/fusion.md): trained and evaluated by examples/fusion.py.

    python benchmarks/tracker_fusion.py figures otb100.npz uavdt.npz       presets and the paper's energy, three seeds
    python benchmarks/tracker_fusion.py ablations otb100.npz uavdt.npz     what each part of energy and learning gives
    python benchmarks/tracker_fusion.py undamped otb100.npz uavdt.npz      Samuel and Tappen's learner, ten seeds
    python benchmarks/tracker_fusion.py choose otb100.npz uavdt.npz        settings, by groups of sequences in training
    python benchmarks/tracker_fusion.py speed otb100.npz uavdt.npz         frames fused a second, seconds of training

Every number is a mean IoU over the frames of the test part; `choose` never sees one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import sympy as sp
import wiberg as wb
from numpy.typing import NDArray
from wiberg.energies import fusion

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import fusion as example

Floats = NDArray[np.float64]

SEEDS = (0, 1, 2)
SIZE = ("crowd", "follow", "tracker_follow")
STUBS = ("stubs", "trust_scale")


def trained(kind: Any, train: fusion.Tracks, seed: int, fixed: tuple[str, ...] = (), loss: Any = None) -> Any:
    """A model after its steps, or before them where there are none."""
    model = example.model_of(kind, {}, fixed, loss)
    example.fit(model, train, seed, progress=False)
    return model


def overlaps(model: Any, tracks: fusion.Tracks) -> Floats:
    return fusion.overlap(model.fuse(tracks)[0], tracks.known)


def row(name: str, seeds: list[Floats], tracks: fusion.Tracks) -> None:
    """The mean of every seed, their mean, the mean over sequences, and an interval over sequences."""
    each, mean = [values.mean() for values in seeds], np.mean(seeds, axis=0)
    low, high = fusion.interval(mean, tracks.sequence)
    shown = " ".join(f"{one:.4f}" for one in each) if len(each) > 1 else ""
    sequences = fusion.by_sequence(mean, tracks.sequence).mean()
    print(f"  {name:<44} {np.mean(each):.4f}  {low:.3f}-{high:.3f}  {sequences:.4f}  {shown}", flush=True)


# ---------------------------------------------------------------------------------------------- figures


def figures(path: Path, _: argparse.Namespace) -> None:
    everything = fusion.Tracks.read(path)
    for partition in ("sequences", "frames"):
        train, test = everything.part(partition, "train"), everything.part(partition, "test")
        print(f"{path.name}, by {partition}: {len(test):,} frames")
        print(f"  {'':<44} frames  95 %         sequences  seeds {SEEDS}")
        simple = fusion.baselines(test, fusion.ranking(train))
        if partition == "frames":
            simple["interpolated truth of other frames (warning)"] = fusion.interpolated(test, train)
        found = fusion.overlaps_of(test, simple)
        for name, values in {**found, "oracle": fusion.oracle(test)}.items():
            row(name, [values], test)
        one, three = SEEDS[:1], SEEDS
        own = {"sequences": "new sequences", "frames": "same sequences, other frames"}[partition]
        rows: dict[str, tuple[Any, tuple[int, ...]]] = {
            "paper's corners, before learning": (fusion.CornerFusion(train, steps=0), one),
            "paper's corners, all trusted alike at first": (fusion.CornerFusion(train, sharpness=0.0), one),
            "paper's corners": (fusion.CornerFusion(train), three),
            "box, before learning": (fusion.BoxFusion(train, steps=0), one),
        }
        for name in fusion.BoxFusion.presets:
            rows[f"box, {name}"] = fusion.BoxFusion(train, name), three if name == own else one
        for name, (kind, seeds) in rows.items():
            values = [overlaps(trained(kind, train, seed), test) for seed in seeds]
            row(name, values, test)
            difference = np.mean(values, axis=0) - found["median"]
            low, high = fusion.interval(difference, test.sequence)
            chance = fusion.paired_test(np.mean(values, axis=0), found["median"], test.sequence)
            print(f"      less the median: {difference.mean():+.4f} ({low:+.3f} to {high:+.3f}), p = {chance:.4f}")


# ---------------------------------------------------------------------------------------------- ablations


def variants(train: fusion.Tracks) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Name, fusion, options of `trained`."""
    box = fusion.BoxFusion
    y, target = (sp.IndexedBase(name, shape=(4,)) for name in ("y", "target"))
    yield "preset", box(train), {}
    yield "before learning", box(train, steps=0), {}
    yield "Gaussian kernel", box(train, kernel=fusion.gaussian), {}
    yield "corners instead of the box", fusion.CornerFusion(train), {}
    yield "no size correction", box(train), {"fixed": SIZE}
    yield "no stub functions", box(train), {"fixed": STUBS}
    yield "L1 instead of 1 - IoU", box(train), {"loss": wb.absolute_error(y, target)}
    yield "all trusted alike at first", box(train, sharpness=0.0), {}
    yield "frames not balanced", box(train, balance=0.0), {}
    yield "no trackers dropped", box(train, dropout=0.0), {}
    yield "no penalties", box(train, penalties={}), {}
    yield "selection over minima", box(train, minima=True), {}
    for damping in (0.0, 0.01, 0.1, 1.0, 10.0):
        yield f"box, damping {damping:g}", box(train, damping=damping), {}
    for damping in (0.0, 0.01, 0.1, 1.0, 10.0):
        yield f"corners, damping {damping:g}", fusion.CornerFusion(train, damping=damping), {}


def ablations(path: Path, options: argparse.Namespace) -> None:
    everything = fusion.Tracks.read(path)
    train, test = everything.part(options.partition, "train"), everything.part(options.partition, "test")
    print(f"{path.name}, by {options.partition}")
    for name, kind, changes in variants(train):
        seeds = range(options.seeds if kind.settings.steps else 1)
        try:
            row(name, [overlaps(trained(kind, train, seed, **changes), test) for seed in seeds], test)
        except wb.NumericalError as error:
            print(f"  {name:<44} failed: {str(error)[:90]}", flush=True)


# ---------------------------------------------------------------------------------------------- Samuel and Tappen


def undamped(path: Path, options: argparse.Namespace) -> None:
    """Learning without damping: as it is; with the best of four steps, stopped where held-out sequences say so."""
    everything = fusion.Tracks.read(path)
    train, test = everything.part("sequences", "train"), everything.part("sequences", "test")
    inner, held = next(folds(train))
    print(f"{path.name}, by sequences, corners")
    start = overlaps(trained(fusion.CornerFusion(train, steps=0), train, 0), test).mean()
    print(f"  before learning {start:.4f}")
    for damping in (0.0, 0.1):
        plain = [_attempt(train, train, test, seed, damping, 1.0)[1] for seed in range(options.runs)]
        _report(f"damping {damping:g}, same settings", plain, start)
        tried = {step: _attempt(inner, held, test, 0, damping, step)[0] for step in (1.0, 0.3, 0.1, 0.03)}
        best = max(tried, key=lambda step: tried[step])
        tuned = [_attempt(inner, held, test, seed, damping, best)[1] for seed in range(options.runs)]
        _report(f"damping {damping:g}, step times {best:g}, stopped early", tuned, start)


def _attempt(train: Any, held: Any, test: Any, seed: int, damping: float, step: float) -> tuple[float, float]:
    """The best held-out IoU of a run, looked at every 25 steps, and the test IoU there; of a run that breaks off, NaN.

    Where the held-out frames are those of training, there is no early stopping: the end counts.
    """
    kind = fusion.CornerFusion(train, damping=damping)
    rates = {name: rate * step for name, rate in kind.rates.items()}
    kind.settings = replace(kind.settings, rate=kind.settings.rate * step, rates=rates)
    model = example.model_of(kind, {})
    best = (-1.0, float("nan"))

    def look(learner: Any) -> None:
        nonlocal best
        last = learner.steps == kind.settings.steps
        if last if held is train else learner.steps % 25 == 0:
            reached = float(overlaps(model, held).mean())
            if reached > best[0]:
                best = reached, float(overlaps(model, test).mean())

    try:
        example.fit(model, train, seed, progress=False, callback=look)
    except wb.NumericalError:
        return (-1.0, float("nan")) if held is train else best
    return best


def _report(name: str, reached: list[float], start: float) -> None:
    values = np.array(reached)
    broken, worse = int(np.isnan(values).sum()), int(np.count_nonzero(values < start))
    rest = values[~np.isnan(values)]
    spread = f"{rest.mean():.4f} ({rest.min():.4f} to {rest.max():.4f})" if len(rest) else "none"
    print(f"  {name:<44} {spread}; of {len(values)} runs {broken} broke off, {worse} ended below the start", flush=True)


# ---------------------------------------------------------------------------------------------- choosing settings


def folds(train: fusion.Tracks, number: int = 3) -> Iterator[tuple[fusion.Tracks, fusion.Tracks]]:
    """Training and held-out frames, groups of sequences never split; as many frames in each fold as groups allow."""
    groups, counts = np.unique(train.group, return_counts=True)
    number = min(number, len(groups))
    fold, load = {}, np.zeros(number)
    for group, count in sorted(zip(groups, counts, strict=True), key=lambda pair: -pair[1]):
        fold[group] = int(load.argmin())
        load[fold[group]] += count
    of_frame = np.array([fold[group] for group in train.group])
    for k in range(number):
        yield train[np.flatnonzero(of_frame != k)], train[np.flatnonzero(of_frame == k)]


CHOICES: Mapping[str, dict[str, Any]] = {
    "preset": {},
    "sharpness 8": {"sharpness": 8.0},
    "sharpness 11": {"sharpness": 11.0},
    "width .09, .3": {"width": (0.09, 0.3)},
    "width .16, .3": {"width": (0.16, 0.3)},
    "width .12, .3": {"width": (0.12, 0.3)},
    "width .12, .45": {"width": (0.12, 0.45)},
    "dropout 0": {"dropout": 0.0},
    "dropout .3": {"dropout": 0.3},
    "balance .4": {"balance": 0.4},
    "balance 1": {"balance": 1.0},
    "rate .1": {"rate": 0.1},
    "600 steps": {"steps": 600},
    "selection": {"minima": True},
}


def choose(path: Path, _: argparse.Namespace) -> None:
    train = fusion.Tracks.read(path).part("sequences", "train")
    print(f"{path.name}: mean over held-out groups of sequences of the training part")
    kinds: dict[str, Callable[[fusion.Tracks], Any]] = {
        name: (lambda part, changes=changes: fusion.BoxFusion(part, **changes)) for name, changes in CHOICES.items()
    }
    kinds["corners"] = fusion.CornerFusion
    for name, make in kinds.items():
        values, sequence = [], []
        for inner, held in folds(train):
            values.append(overlaps(trained(make(inner), inner, 0), held))
            sequence.append(held.sequence)
        together = np.concatenate(values)
        each = " ".join(f"{one.mean():.3f}" for one in values)
        print(f"  {name:<44} {together.mean():.4f}   {each}", flush=True)


# ---------------------------------------------------------------------------------------------- speed


def speed(path: Path, _: argparse.Namespace) -> None:
    """Fusing all frames of the file from boxes in memory, features included; and training the presets."""
    tracks = fusion.Tracks.read(path)
    model = trained(fusion.BoxFusion(tracks, steps=5), tracks, 0)
    model.fuse(tracks)
    print(f"{path.name}: {len(tracks):,} frames, {len(tracks.names)} trackers")
    for threads in (1, 2):
        wb.set_threads(threads)
        wall, work = [], []
        for _run in range(7):
            began, worked = time.perf_counter(), time.process_time()
            model.fuse(tracks)
            wall.append(time.perf_counter() - began)
            work.append(time.process_time() - worked)
        print(
            f"  {threads} threads: {len(tracks) / min(wall):,.0f} frames a second (best of 7), "
            f"{1e6 * min(work) / len(tracks):.1f} us of CPU time a frame",
            flush=True,
        )
    for partition, kind in (("sequences", "new sequences"), ("frames", "same sequences, other frames")):
        train = tracks.part(partition, "train")
        began, worked = time.perf_counter(), time.process_time()
        trained(fusion.BoxFusion(train, kind), train, 0)
        wall_time, cpu = time.perf_counter() - began, time.process_time() - worked
        print(f"  training, {kind}: {wall_time:.1f} s, {cpu:.1f} s of CPU time", flush=True)


COMMANDS = {"figures": figures, "ablations": ablations, "undamped": undamped, "choose": choose, "speed": speed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=tuple(COMMANDS))
    parser.add_argument("files", nargs="+", type=Path, help="tracker outputs (.npz)")
    parser.add_argument("--partition", choices=("sequences", "frames"), default="sequences", help="of the ablations")
    parser.add_argument("--seeds", type=int, default=1, help="of each row of the ablations")
    parser.add_argument("--runs", type=int, default=10, help="of Samuel and Tappen's learner")
    options = parser.parse_args()
    for path in options.files:
        COMMANDS[options.command](path, options)


if __name__ == "__main__":
    main()
