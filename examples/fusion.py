"""Fusing trackers: section 4 of the paper on real tracker outputs (docs/fusion.md).

Many trackers follow one object; each gives a box in every frame. The fused box is the minimum of an energy whose
weights are learnt so that it overlaps with the true one (energies/fusion): one joint energy of the whole box, or the
paper's two energies of its corners.

    python examples/fusion.py train otb100.npz --partition sequences --save model.npz
    python examples/fusion.py evaluate otb100.npz --model model.npz --partition sequences
    python examples/fusion.py fuse otb100.npz --model model.npz --out boxes.npz
    python examples/fusion.py draw otb100.npz --model model.npz --out output
    python examples/fusion.py convert --format got10k --results RESULTS --truth TRUTH --out tracks.npz

Training goes on where it stopped when it is called again. Frames are fused one by one; what is learnt of a tracker
belongs to its name: trackers that a file lacks are left out, others than those learnt are refused.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import wiberg as wb
from numpy.typing import NDArray
from wiberg.energies import fusion

Floats = NDArray[np.float64]

ENERGIES = {"box": fusion.BoxFusion, "corners": fusion.CornerFusion}
INTERRUPTED = 130
PRESETS = {"sequences": "new sequences", "all": "new sequences", "frames": "same sequences, other frames"}


# ---------------------------------------------------------------------------------------------- models


@dataclass
class Model:
    """A fusion with its compiled energies, and the learner of its weights."""

    fusion: Any
    source: Any
    learner: wb.Learner

    @property
    def notes(self) -> dict[str, Any]:
        return self.learner.notes

    def fuse(self, tracks: fusion.Tracks) -> tuple[Floats, NDArray[np.int64]]:
        """Boxes (F, 4), NaN where no tracker counts, and the status of each frame (wb.Status)."""
        known = [name for name in self.fusion.names if name in tracks.names]
        unknown = [name for name in tracks.names if name not in self.fusion.names]
        if unknown:
            raise wb.InputError(
                f"the model does not know {len(unknown)} of the trackers: {', '.join(unknown)}; it was trained with "
                f"{', '.join(self.fusion.names)}"
            )
        if not known:
            raise wb.InputError("the file has none of the model's trackers")
        less, weights = self.fusion.only(known, self.learner.weights)
        seen = less.features(tracks)
        solution = wb.minimise(self.source, weights, less.data(seen), check=False)
        variables = getattr(solution, "outputs", None) or solution.variables
        status = solution.status if less.output is None else np.maximum.reduce([p.status for p in solution.solutions])
        return less.boxes(variables, seen), np.asarray(status, dtype=np.int64)


def compiled(kind: Any) -> tuple[Any, wb.Loss]:
    kernels = [wb.compile(energy) for energy in kind.energies]
    source = kernels[0] if kind.output is None else wb.Output(kind.output, minima=kernels)
    return source, wb.Loss(**kind.loss)


def optimiser_of(kind: Any) -> Any:
    settings = kind.settings
    rates = {name: wb.CosineDecay(rate, max(settings.steps, 1)) for name, rate in kind.rates.items()}
    if settings.optimiser == "Adam":
        return wb.Adam(rates, clip=settings.clip)
    return wb.SGD(rates, momentum=settings.momentum, clip=settings.clip)


def model_of(kind: Any, notes: dict[str, Any], fixed: Sequence[str] = (), loss: wb.Loss | None = None) -> Model:
    """A model before its first step; `fixed` are weights that stay where they are."""
    source, own = compiled(kind)
    weights = {name: wb.Weight(start, fixed=True) if name in fixed else start for name, start in kind.weights().items()}
    learner = wb.Learner(
        source,
        loss or own,
        weights,
        optimiser_of(kind),
        damping=kind.settings.damping,
        selection=wb.Selection() if kind.settings.minima else None,
        notes=notes,
    )
    return Model(kind, source, learner)


def new_model(train: fusion.Tracks, energy: str, partition: str, seed: int, changes: dict[str, Any]) -> Model:
    """The model of a preset, with what tells it from others in its notes."""
    made = ENERGIES[energy](train, PRESETS[partition] if energy == "box" else "paper", **changes)
    notes = {
        "energy": energy,
        "partition": partition,
        "seed": seed,
        "settings": asdict(made.settings),
        "trackers": list(made.names),
        "accuracy": made.accuracy.tolist(),
        "ranking": fusion.ranking(train),
    }
    return model_of(made, notes)


def fit(model: Model, tracks: fusion.Tracks, seed: int, **options: Any) -> None:
    """Take the steps of the model's settings that are not taken yet."""
    steps = model.fusion.settings.steps - model.learner.steps
    if steps > 0:
        with warnings.catch_warnings():  # a tracker that never changes its scale says nothing about how to trust that
            warnings.simplefilter("ignore", wb.ZeroGradientWarning)
            model.learner.fit(lambda step: wb.Batch(**model.fusion.batch(tracks, step, seed)), steps=steps, **options)


def load(path: Path) -> Model:
    if not path.is_file():
        raise wb.CheckpointError(f"{path}: no such file; make a model: fusion.py train DATA.npz --save MODEL")
    notes = wb.Learner.read_notes(path)
    if notes.get("energy") not in ENERGIES:
        raise wb.CheckpointError(f"{path} is no model of a fusion; make one: fusion.py train DATA.npz --save MODEL")
    settings = dict(notes["settings"], width=tuple(notes["settings"]["width"]))
    made = ENERGIES[notes["energy"]](dict.fromkeys(notes["trackers"], 0.0), fusion.Settings(**settings))
    made.accuracy = np.array(notes["accuracy"])
    source, loss = compiled(made)
    return Model(made, source, wb.Learner.load(path, source, loss))


# ---------------------------------------------------------------------------------------------- commands


def train(options: argparse.Namespace) -> None:
    if options.save.is_dir() or not options.save.parent.is_dir():  # said before the work rather than after it
        raise wb.InputError(f"--save {options.save}: " + ("a folder" if options.save.is_dir() else "no such folder"))
    tracks = fusion.Tracks.read(options.data).part(options.partition, "train").with_truth()
    changes = {} if options.steps is None else {"steps": options.steps}
    model = new_model(tracks, options.energy, options.partition, options.seed, changes)
    if options.save.exists():
        found = load(options.save)
        differing = [key for key in model.notes if found.notes.get(key) != model.learner.notes[key]]
        if differing:
            raise wb.InputError(
                f"{options.save} is a model with another {', '.join(differing)}; give another name, or remove it"
            )
        model = found
    steps, began = model.fusion.settings.steps, perf_counter()
    print(f"{len(tracks.names)} trackers, {len(tracks):,} frames of {len(set(tracks.sequence.tolist()))} sequences")
    if model.learner.steps:
        print(f"goes on from step {model.learner.steps}")
    try:
        fit(model, tracks, options.seed, checkpoint=options.save, every_seconds=10)
    except KeyboardInterrupt:
        print(f"fusion.py: stopped after {model.learner.steps} steps; the same command goes on there", file=sys.stderr)
        sys.exit(INTERRUPTED)
    if not steps:
        model.learner.save(options.save)
    overlap = fusion.overlap(model.fuse(tracks)[0], tracks.known).mean()
    print(f"{options.save}: {steps} steps in {perf_counter() - began:.1f} s; mean overlap in training {overlap:.4f}")


def evaluate(options: argparse.Namespace) -> None:
    everything, model = fusion.Tracks.read(options.data), load(options.model)
    part = everything if options.partition is None else everything.part(options.partition, "test")
    tracks = part.with_truth()
    boxes, status = model.fuse(tracks)
    simple = fusion.baselines(tracks, model.notes["ranking"])
    if options.partition == "frames":
        known = everything.part("frames", "train").with_truth()
        simple["interpolated truth of other frames (a warning)"] = fusion.interpolated(tracks, known)
    found = fusion.overlaps_of(tracks, {"fusion": boxes, **simple})
    found["oracle: best box of each frame"] = fusion.oracle(tracks)
    rows = {name: float(values.mean()) for name, values in found.items()}
    print(f"{len(tracks):,} frames of {len(set(tracks.sequence.tolist()))} sequences, {len(tracks.names)} trackers")
    if len(tracks) < len(part):
        print(f"{len(part) - len(tracks)} frames without a true box are left out")
    absent = [name for name in model.fusion.names if name not in tracks.names]
    if absent:
        print(f"without {len(absent)} trackers of the model, which the file does not have: {', '.join(absent)}")
    print(f"{'mean IoU':<48} frames   95 % interval   sequences")
    for name, values in found.items():
        low, high = fusion.interval(values, tracks.sequence)
        each = fusion.by_sequence(values, tracks.sequence).mean()
        print(f"  {name:<46} {rows[name]:.4f}   {low:.3f} to {high:.3f}   {each:.4f}")
    difference = found["fusion"] - found["median"]
    low, high = fusion.interval(difference, tracks.sequence)
    chance = fusion.paired_test(found["fusion"], found["median"], tracks.sequence)
    print(f"fusion - median: {difference.mean():+.4f} ({low:+.3f} to {high:+.3f}), paired test p = {chance:.4f}")
    print(f"status: {counted(status)}")
    if options.sequences:
        names = [tracks.sequences[k] for k in np.unique(tracks.sequence)]
        columns = [fusion.by_sequence(found[key], tracks.sequence) for key in ("fusion", "median")]
        for name, one, other in zip(names, *columns, strict=True):
            print(f"  {name:<24} {one:.3f}   median {other:.3f}")
    if options.json:
        print(json.dumps({"iou": rows.pop("fusion"), "baselines": rows}))


def counted(status: NDArray[np.int64]) -> str:
    codes, counts = np.unique(status, return_counts=True)
    return ", ".join(f"{count} {wb.Status(code).name}" for code, count in zip(codes, counts, strict=True))


def fuse(options: argparse.Namespace) -> None:
    tracks, model = fusion.Tracks.read(options.data), load(options.model)
    boxes, status = model.fuse(tracks)
    names = np.array([member.name for member in wb.Status])
    arrays = {"boxes": boxes.astype(np.float32), "status": status.astype(np.int8), "status_names": names}
    write(options.out, arrays)
    print(f"{options.out}: {len(boxes):,} boxes; {counted(status)}")


def write(path: Path, arrays: dict[str, Any]) -> None:
    """An .npz file of exactly that name."""
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)


def draw(options: argparse.Namespace) -> None:
    try:
        from fusion_figures import draw_all
    except ImportError as error:
        raise wb.MissingPackageError(f"draw needs matplotlib: pip install 'wiberg[figures]' ({error})") from None
    tracks, model = fusion.Tracks.read(options.data), load(options.model)
    if options.frame is not None and not 0 <= options.frame < len(tracks):
        raise wb.InputError(f"frame {options.frame}: the file has frames 0 to {len(tracks) - 1}")
    for path in draw_all(tracks, model, Path(options.out), options.frame):
        print(path)


def convert(options: argparse.Namespace) -> None:
    arrays = fusion.convert(options.format, options.results, options.truth, every=options.every)
    write(options.out, arrays)
    frames, trackers = arrays["boxes"].shape[:2]
    print(
        f"{options.out}: {frames:,} frames of {len(arrays['seq_names'])} sequences, {trackers} trackers; "
        f"{100 * (1 - arrays['valid'].mean()):.2f} % of the boxes are missing"
    )


def count(text: str) -> int:
    """A whole number, 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or more (got {text!r})")
    return int(text)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fuse the boxes of many trackers with a learnt energy.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, what: str, *, data: bool = True, model: bool = True) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=what, description=what)
        made.set_defaults(run=run)
        if data:
            made.add_argument("data", type=Path, metavar="DATA.npz", help="tracker outputs")
        if model:
            made.add_argument("--model", type=Path, required=True, help="what train has saved")
        return made

    one = command("train", train, "learn the weights of an energy from the training part of a file", model=False)
    one.add_argument("--partition", choices=fusion.PARTITIONS, default="sequences")
    one.add_argument("--energy", choices=tuple(ENERGIES), default="box")
    one.add_argument("--seed", type=count, default=0)
    one.add_argument("--steps", type=count, help="other than the preset's")
    one.add_argument("--save", type=Path, required=True, metavar="MODEL", help="a file; training goes on from it")
    one = command("evaluate", evaluate, "compare fused boxes with the true ones, and with simple fusions")
    one.add_argument("--partition", choices=fusion.PARTITIONS, help="its test part; by default all frames")
    one.add_argument("--sequences", action="store_true", help="the mean of each sequence, too")
    one.add_argument("--json", action="store_true", help="the means as JSON in the last line")
    one = command("fuse", fuse, "write the fused box of every frame")
    one.add_argument("--out", type=Path, required=True, metavar="BOXES.npz")
    one = command("draw", draw, "draw trackers, fused and true boxes, and the energy before and after learning")
    one.add_argument("--out", type=Path, default=Path("output"), help="a folder")
    one.add_argument("--frame", type=int, help="its number in the file; by default one where trackers disagree")
    one = command("convert", convert, "read the formats of benchmarks", data=False, model=False)
    one.add_argument("--format", choices=tuple(fusion.FORMATS), required=True)
    one.add_argument("--results", type=Path, required=True, help="folder of the trackers' results")
    one.add_argument("--truth", type=Path, required=True, help="folder of the sequences' true boxes")
    one.add_argument("--every", type=int, default=1, help="keep every so manieth frame")
    one.add_argument("--out", type=Path, required=True, metavar="DATA.npz")
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (wb.WibergError, OSError) as error:
        sys.exit(f"fusion.py: {error}")


if __name__ == "__main__":
    main()
