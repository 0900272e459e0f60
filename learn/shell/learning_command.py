"""Learning from the shell: `wiberg fit`, `wiberg apply`, `wiberg evaluate`; docs/command.md shows them at work."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...energies.errors import InputError, NumericalError
from .exit_codes import FOUND, INTERRUPTED

if TYPE_CHECKING:
    from ..learner import Learner
    from .dataset import Dataset
    from .run_folder import Run

AT_ONCE = 1000
"""Instances that are minimised at once where nothing is learnt."""


def learning_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the three to the parser."""
    fit = command("fit", _fit, "Learn the weights of an energy, or go on where a run was stopped.")
    fit.add_argument("spec", metavar="SPEC.toml", nargs="?", type=Path, help="what to learn, and from what")
    fit.add_argument("--folder", metavar="RUN", type=Path, help="the run folder, instead of the spec's")
    fit.add_argument("--check", action="store_true", help="read spec, energy and data, and take no step")
    fit.add_argument("--explain", action="store_true", help="show what every key of a spec means")
    fit.add_argument("--quiet", action="store_true", help="no progress bar")
    apply = command("apply", _apply, "Write the minima for data at the weights that a run learnt.")
    apply.add_argument("--output", metavar="FILE", type=Path,
                       help="minima by name, .npz, .h5, .csv or .parquet; by default RUN/DATA.minima.npz")  # fmt: skip
    evaluate = command("evaluate", _evaluate, "The loss on data, at the weights that a run began with and learnt.")
    for own in (apply, evaluate):
        own.add_argument("folder", metavar="RUN", type=Path, help="the folder of a run")
        own.add_argument("data", metavar="DATA", type=Path, nargs="+", help=".npz, .h5, .csv or .parquet files")
    for own in (fit, apply, evaluate):
        own.add_argument("--json", action="store_true", help="print the result as one line of JSON")


# ---------------------------------------------------------------------------------------------- fit


def _fit(options: argparse.Namespace) -> int:
    from .run_folder import new_run  # here, as below: other commands need none of it
    from .spec import explained, read_spec

    if options.explain:
        print(explained())
        return 0
    if options.spec is None:
        raise InputError("which SPEC.toml? wiberg fit --explain lists what belongs in one")
    spec, base = read_spec(options.spec), options.spec.parent
    folder = options.folder or (base / spec["folder"] if spec["folder"] else options.spec.with_suffix(".run"))
    run = new_run(spec, base, folder)
    train = run.read(run.files("data.train"))
    held_out = run.read(run.files("data.evaluate")) if spec["data.evaluate"] else None
    learner = run.learner()
    if options.check:
        return _show({**_checked(run, learner, train), "steps": learner.steps, "state": "checked"}, options.json)
    run.begin(options.spec.read_bytes())
    state, message = _learn(run, learner, train, None if not (options.quiet or options.json) else False)
    result = {**_result(run, learner), "state": state}
    if held_out is not None and state == "finished":
        result["evaluation"] = _before_and_after(run, learner, held_out)
    run.finish(learner, _sections(run, train, result))
    if message:
        print(f"wiberg fit: {message}", file=sys.stderr)
    code = _show(result, options.json)
    return {"finished": code, "interrupted": INTERRUPTED, "stopped": FOUND}[state]


def _learn(run: Run, learner: Learner, train: Dataset, progress: bool | None) -> tuple[str, str]:
    """Take the steps that are left; how it ended, and a message."""
    spec = run.spec
    left = max(0, spec["learning.steps"] - learner.steps)
    batches = train.passes(spec["learning.batch_size"], shuffle=spec["learning.shuffle"], seed=spec["learning.seed"])
    saved_at, saved_steps = time.monotonic(), learner.steps

    def save(learner: Learner) -> None:
        nonlocal saved_at, saved_steps
        late = time.monotonic() - saved_at >= spec["checkpoint.seconds"]
        if late or learner.steps - saved_steps >= spec["checkpoint.steps"]:
            learner.save(run.checkpoint)
            saved_at, saved_steps = time.monotonic(), learner.steps

    with _ends_on_request():
        try:
            learner.fit(batches, steps=left, progress=progress, callback=save)
        except KeyboardInterrupt:
            return "interrupted", f"interrupted after {learner.steps} steps; the same command goes on from there"
        except NumericalError as error:
            return "stopped", str(error)
    return "finished", ""


@contextlib.contextmanager
def _ends_on_request() -> Iterator[None]:
    """The signal by which schedulers end a process is as Ctrl-C."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _checked(run: Run, learner: Learner, train: Dataset) -> dict[str, Any]:
    """What was read, and the loss of the first instances at the weights as they are."""
    from ..evaluation import evaluate

    size = run.spec["learning.batch_size"]
    first = evaluate(run.model, learner.weights, [train.batch(slice(size))], learner.minimiser)
    return {
        "folder": str(run.folder),
        "energy": run.source.name,
        "loss_name": run.loss.name,
        "instances": train.instances,
        "batches": -(-train.instances // size),
        "arrays": {
            (name if role in ("data", "targets") else f"{role}/{name}"): list(array.shape)
            for (role, name), array in train.arrays.items()
        },
        "not_read": list(train.ignored),
        "loss": first.numbers()["mean"],
    }


def _result(run: Run, learner: Learner) -> dict[str, Any]:
    history = learner.history
    loss, failed = (series[np.isfinite(series)] for series in (history.loss, history.unconverged))
    return {
        "folder": str(run.folder),
        "steps": learner.steps,
        "loss": float(loss[-max(1, len(loss) // 10) :].mean()) if len(loss) else None,
        "unconverged": float(failed.mean()) if len(failed) else None,
        "weights": {name: np.asarray(value).tolist() for name, value in learner.weights.items()},
    }


def _sections(run: Run, train: Dataset, result: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """What the report of a run has besides that of its learner."""
    steps, size = result["steps"], run.spec["learning.batch_size"]
    passes = steps / -(-train.instances // size)
    data = {
        "files": ", ".join(str(path) for path in run.files("data.train")),
        "instances": f"{train.instances:,}",
        "passes": f"{passes:.4g}",
    }
    found = {"Run": data}
    if "evaluation" in result:
        before, after = result["evaluation"]["before"], result["evaluation"]["after"]
        found["Held-out loss"] = {
            name.replace("_", " "): f"{_text(before[name])} before, {_text(after[name])} after learning"
            for name in after
        }
    return found


# ---------------------------------------------------------------------------------------------- apply and evaluate


def _apply(options: argparse.Namespace) -> int:
    from ..evaluation import count_of
    from .dataset import check_ending, write_arrays
    from .run_folder import open_run

    run = open_run(options.folder)
    output = options.output or run.folder / f"{options.data[0].stem}.minima.npz"
    check_ending(output)
    learner, model = _learnt(run), run.model
    data = run.read(options.data, targets=False)
    found: dict[str, list[Any]] = {}
    statuses: dict[str, int] = {}
    for batch in data.parts(AT_ONCE):
        minima = model.minimise(learner.weights, batch, learner.minimiser)
        count, parts = count_of(minima), model.solutions(minima)
        arrays = {name: np.asarray(array) for name, array in minima.variables.items()}
        batched = any(part.batched for part in parts)
        for number, part in enumerate(parts):
            ending = "" if len(parts) == 1 else f"_{number}"
            names = np.array([status.name for status in np.ravel(np.asarray(part.status, dtype=object))])
            arrays[_free(f"energy{ending}", minima.variables)] = np.asarray(part.energy)
            arrays[_free(f"status{ending}", minima.variables)] = names.reshape(np.shape(part.energy))
            for name in names:
                statuses[name] = statuses.get(name, 0) + 1
        for name, array in arrays.items():
            found.setdefault(name, []).append(array if batched else np.broadcast_to(array, (count, *array.shape)))
    write_arrays(output, {name: np.concatenate(parts) for name, parts in found.items()})
    result = {"output": str(output), "instances": data.instances, "steps": learner.steps, "statuses": statuses}
    return _show(result, options.json)


def _evaluate(options: argparse.Namespace) -> int:
    from .run_folder import open_run

    run = open_run(options.folder)
    learner = _learnt(run)
    evaluation = _before_and_after(run, learner, run.read(options.data))
    return _show({"steps": learner.steps, "evaluation": evaluation}, options.json)


def _learnt(run: Run) -> Learner:
    if not run.checkpoint.exists():
        raise InputError(f"run {run.folder} has no checkpoint yet: no weights were learnt; give it to wiberg fit")
    return run.learner()


def _before_and_after(run: Run, learner: Learner, data: Dataset) -> dict[str, Any]:
    from ..evaluation import evaluate

    start = {name: records[0] for name, records in learner.history.weights.items()}
    each = {
        when: evaluate(run.model, weights, data.parts(AT_ONCE), learner.minimiser)
        for when, weights in (("before", start), ("after", learner.weights))
    }
    return {**{when: one.numbers() for when, one in each.items()}, "statuses": dict(each["after"].statuses)}


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """A name that no variable has."""
    while name in taken:
        name += "_"
    return name


# ---------------------------------------------------------------------------------------------- printing


def _show(result: Mapping[str, Any], as_json: bool) -> int:
    if as_json:
        print(json.dumps(_plain(result), allow_nan=False))
        return 0
    for name, value in result.items():
        for label, text in _lines(name, value):
            print(f"{label}: {text}")
        if name == "evaluation":
            print(_evaluation_table(value))
    return 0


def _evaluation_table(evaluation: Mapping[str, Any]) -> str:
    """Before and after, beside each other."""
    before, after = evaluation["before"], evaluation["after"]
    rows = [("held-out loss", "before", "after"), *((name, _text(before[name]), _text(after[name])) for name in after)]
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}".replace("_", " ") for a, b, c in rows]
    return "\n".join(lines)


def _lines(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for inner, one in value.items() if name != "evaluation" else ():
            yield from _lines(f"{name} {inner}", one)
    else:
        yield name.replace("_", " "), _text(value)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        flat = np.ravel(value)
        shown = ", ".join(f"{one:.6g}" if isinstance(one, float) else str(one) for one in flat[:8].tolist())
        return shown + (f", ... ({len(flat)} in all)" if len(flat) > 8 else "") or "none"
    return str(value)


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
