"""What `wiberg fit` is told: a TOML file, its keys declared once.

`KEYS` says of every key what it means, what it may be and what holds without it. The check of a file, `wiberg fit
--explain` and the table in docs/command.md are all made from it.
"""

from __future__ import annotations

import inspect
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...energies.errors import InputError, InputTypeError, nearest
from ...runtime.methods import METHODS
from .. import schedule
from ..derivative.implicit import POLICIES
from ..learner import NOT_FINITE
from ..optimiser import KINDS
from ..weight import Weight

REQUIRED = object()
"""The default of a key that must be there."""


@dataclass(frozen=True)
class Key:
    """One key of a spec.

    Attributes
    ----------
    name : str
        With the table in front: "learning.damping".
    kind : str
        One of `CHECKS`.
    default : Any
        What holds without it; `REQUIRED`, or None for nothing.
    meaning : str
    low, high : float
        The range of a number; the ends are allowed.
    choices : tuple of str
    """

    name: str
    kind: str
    default: Any
    meaning: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()


KEYS = (
    Key("energy", "object", REQUIRED, "FILE.py:NAME of a wb.Energy, a kernel, a wb.Output, or a function without "
        "arguments that makes one"),
    Key("loss", "object", REQUIRED, "FILE.py:NAME of a wb.Loss, or a function that makes one"),
    Key("folder", "text", None, "the run folder; by default the name of the spec with the ending .run, beside it"),
    Key("data.train", "files", REQUIRED, "a file, or a list of files that are read as one: .npz, .h5, .csv, .parquet"),
    Key("data.evaluate", "files", None, "the same, held out: the loss on it is computed before and after learning"),
    Key("data.columns", "table", {}, "for .csv and .parquet: array = [columns] or column, where columns are not "
        "named x, or x[0], x[1], ..."),
    Key("weights", "table", REQUIRED, "the start of every weight: a number, an array, or the arguments of wb.Weight, "
        'as {value = 8.0, scale = "log"}'),
    Key("start", "table", {}, "where minimisations start: a number or an array for each variable, shared by all "
        "instances; or arrays start/NAME in the data; or the candidates of the energy"),
    Key("candidates", "table", {}, "candidates shared by all instances; or arrays candidates/NAME in the data"),
    Key("learning.steps", "integer", REQUIRED, "how many steps to take in all; a run that has them can be given more",
        low=0),
    Key("learning.batch_size", "integer", 32, "instances of a step; the last batch of a pass may have fewer", low=1),
    Key("learning.shuffle", "boolean", True, "every pass in another order, which depends on seed and pass alone"),
    Key("learning.seed", "integer", 0, "of these orders", low=0),
    Key("learning.damping", "number or schedule", 0.1, "lambda of the damped derivative; a schedule gives that of "
        'each step: {kind = "KIND", ...} with the arguments of wb.KIND', low=0.0),
    Key("learning.unconverged", "choice", "zero", "what instances count whose minimisation did not converge",
        choices=tuple(POLICIES)),
    Key("learning.not_finite", "choice", "stop", "what becomes of a step whose loss or gradient is not finite",
        choices=tuple(NOT_FINITE)),
    Key("optimiser.kind", "choice", "SGD", "how a gradient becomes a step; the other keys of the table are the "
        "arguments of wb.KIND, such as learning_rate", choices=tuple(KINDS)),
    Key("minimise.method", "choice", "trust-region", "how energies are minimised", choices=tuple(METHODS)),
    Key("minimise.gtol", "number", 1e-8, "the gradient norm at which a minimisation is done", low=5e-324),
    Key("minimise.max_iterations", "integer", 100, "steps of a minimisation", low=0),
    Key("minimise.reweightings", "integer", None, "of method irls, so many and no more: what they return is learnt",
        low=1),
    Key("minimise.bounds", "table", None, "variable = [low, high], numbers or arrays; inf and -inf are no bound"),
    Key("minimise.eliminate", "names", None, "variables that are solved out"),
    Key("checkpoint.steps", "integer", 1000, "a checkpoint at least every so many steps", low=1),
    Key("checkpoint.seconds", "number", 30.0, "and at least every so many seconds", low=0.0),
)  # fmt: skip

MAY_CHANGE = ("folder", "learning.steps", "data.evaluate", "checkpoint.steps", "checkpoint.seconds")
"""What may differ when a run goes on."""


def read_spec(path: Path) -> dict[str, Any]:
    """The values of all keys by their names, checked; `optimiser` and `weights` hold what their tables do.

    Raises
    ------
    InputError
        If it cannot be read or does not fit: all problems in one message.
    """
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is a folder" if path.is_dir() else getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path} ({reason}); expected a TOML file, see wiberg fit --explain") from None
    return spec_of(text, str(path))


def spec_of(text: str, name: str) -> dict[str, Any]:
    """The same for the text of a file.

    Examples
    --------
    >>> try:
    ...     spec_of('energy = "m.py:e"\\nlos = "m.py:l"', "fit.toml")
    ... except InputError as error:
    ...     print(str(error).splitlines()[1].strip())
    los: no such key; did you mean 'loss'? here: energy, loss, folder, data, weights, start, candidates, learning, \
optimiser, minimise, checkpoint
    """
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{name} is no TOML: {error}") from None
    problems = [*_unknown(given), *_optimiser(given)]
    values: dict[str, Any] = {}
    for key in KEYS:
        found = _get(given, key.name)
        if found is None and key.default is REQUIRED:
            problems.append(f"{key.name}: is missing; {key.meaning}")
        elif found is None:
            values[key.name] = key.default
        else:
            problems += _problems(key, found)
            values[key.name] = found
    problems += _weights(values.get("weights"))
    if problems:
        count = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        raise InputError("\n  ".join([f"{name} has {count} (wiberg fit --explain lists all keys):", *problems]))
    values["optimiser"] = {"kind": "SGD", **given.get("optimiser", {})}
    return values


def explained() -> str:
    """All keys as text."""
    lines = []
    for key in KEYS:
        lines += [f"{key.name}", f"    {key.meaning}", f"    {allowed_text(key)}; {default_text(key)}"]
    return "\n".join(lines)


def markdown() -> str:
    """All keys as the table of docs/command.md."""
    lines = ["| key | what it is | allowed | without it |", "|---|---|---|---|"]
    for key in KEYS:
        cells = (f"`{key.name}`", key.meaning, allowed_text(key), default_text(key))
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def allowed_text(key: Key) -> str:
    """What a key may be, in words."""
    if key.kind == "choice":
        return "one of " + ", ".join(key.choices)
    text = CHECKS[key.kind][0]
    if key.low == 5e-324:
        return f"{text} > 0"
    text += f" >= {key.low:g}" if key.low > -math.inf else ""
    return f"{text}, or one of {', '.join(map(_called, schedule.KINDS))}" if key.kind == SCHEDULED else text


def _called(kind: str) -> str:
    """A schedule with its arguments, as they are called."""
    parameters = inspect.signature(schedule.KINDS[kind]).parameters.values()
    return f"{kind}({', '.join(p.name if p.default is p.empty else f'{p.name}={p.default:g}' for p in parameters)})"


def default_text(key: Key) -> str:
    """What holds without it, in words."""
    if key.default is REQUIRED:
        return "required"
    if key.default is None or key.default == {}:
        return "none"
    return str(key.default).lower() if isinstance(key.default, bool) else f"{key.default}"


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What may not differ and does, in words."""
    for name in sorted({*then, *now}):
        if name not in MAY_CHANGE and then.get(name) != now.get(name):
            yield f"{name} was {then.get(name)!r} and is {now.get(name)!r}"


# ---------------------------------------------------------------------------------------------- checks


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) and one for one in value)


SCHEDULED = "number or schedule"
"""The kind that may be the table of a schedule instead of a number."""

CHECKS: dict[str, tuple[str, Any]] = {
    "text": ("text", lambda value: isinstance(value, str) and bool(value)),
    "object": ("text, FILE.py:NAME", lambda value: isinstance(value, str) and bool(value)),
    "files": ("text or a list of texts", lambda value: (isinstance(value, str) and bool(value)) or _is_texts(value)),
    "names": ("a list of texts", _is_texts),
    "number": ("a finite number", _is_number),
    SCHEDULED: ("a finite number", _is_number),
    "integer": ("an integer", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "boolean": ("true or false", lambda value: isinstance(value, bool)),
    "table": ("a table", lambda value: isinstance(value, dict)),
}


def _problems(key: Key, value: Any) -> Iterator[str]:
    """All that is wrong with a value."""
    if key.kind == SCHEDULED and isinstance(value, dict):
        yield from _schedule(key.name, value)
    elif problem := _problem(key, value):
        yield f"{key.name}: {problem}"


def _problem(key: Key, value: Any) -> str:
    """What is wrong with a value, or nothing."""
    if key.kind == "choice":
        if value in key.choices:
            return ""
        hint = nearest(value, key.choices) if isinstance(value, str) else ""
        return f"must be {allowed_text(key)}; got {value!r}{hint}"
    if not CHECKS[key.kind][1](value):
        return f"must be {allowed_text(key)}; got {value!r}"
    if key.kind in ("number", "integer", SCHEDULED) and not key.low <= value <= key.high:
        return f"must be {allowed_text(key)}; got {value}"
    return ""


def _get(given: Mapping[str, Any], name: str) -> Any:
    value: Any = given
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _unknown(given: Mapping[str, Any]) -> Iterator[str]:
    """Keys that do not exist, and what should be a table and is not."""
    top = list(dict.fromkeys(key.name.partition(".")[0] for key in KEYS))
    tables: dict[str, list[str]] = {}
    for key in KEYS:
        table, dot, name = key.name.partition(".")
        if dot:
            tables.setdefault(table, []).append(name)
    for name, value in given.items():
        if name not in top:
            yield f"{name}: no such key{_instead(name, top)}"
        elif name in tables and not isinstance(value, dict):
            yield f"{name}: must be a table with the keys {', '.join(tables[name])}; got {value!r}"
        elif name in tables and name != "optimiser":
            for inner in value:
                if inner not in tables[name]:
                    yield f"{name}.{inner}: no such key{_instead(inner, tables[name])}"


def _instead(name: str, allowed: list[str]) -> str:
    return f"{nearest(name, allowed) or ';'} here: {', '.join(allowed)}"


def _optimiser(given: Mapping[str, Any]) -> Iterator[str]:
    """Keys of the optimiser that its kind does not have, or needs."""
    table = given.get("optimiser", {})
    if not isinstance(table, dict):
        return
    kind = table.get("kind", "SGD")
    if not isinstance(kind, str) or kind not in KINDS:
        return  # said by its own key
    parameters = inspect.signature(KINDS[kind]).parameters
    for name in table:
        if name != "kind" and name not in parameters:
            yield f"optimiser.{name}: {kind} has no such argument{_instead(name, ['kind', *parameters])}"
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in table:
            yield f"optimiser.{name}: is missing; {kind} needs it"
    rate = table.get("learning_rate")
    if isinstance(rate, dict) and "kind" in rate:
        yield from _schedule("optimiser.learning_rate", rate)


def _schedule(name: str, table: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a table that stands for a schedule: its kind, its arguments, or their values."""
    kind, kinds = table.get("kind"), tuple(schedule.KINDS)
    if not isinstance(kind, str) or kind not in kinds:
        hint = nearest(kind, kinds) if isinstance(kind, str) else ""
        got = f"; got {kind!r}{hint}" if "kind" in table else ", it is missing"
        yield f"{name}.kind: must be one of {', '.join(kinds)}{got}"
        return
    parameters = inspect.signature(schedule.KINDS[kind]).parameters
    problems = [
        f"{name}.{inner}: {kind} has no such argument{_instead(inner, ['kind', *parameters])}"
        for inner in table
        if inner != "kind" and inner not in parameters
    ]
    for inner, parameter in parameters.items():
        if parameter.default is parameter.empty and inner not in table:
            problems.append(f"{name}.{inner}: is missing; {kind} needs it")
    for inner, value in table.items():
        if isinstance(value, dict) and inner == "then":
            problems += _schedule(f"{name}.then", value)
        elif isinstance(value, dict) and inner == "points":
            problems.append(f"{name}.points: must be pairs, [[step, number], ...]; keys of TOML are text, not numbers")
        elif isinstance(value, dict) and inner in parameters:
            problems.append(f"{name}.{inner}: must be a number; got {value!r}")
    yield from problems
    if not problems:
        try:
            schedule.from_description(table)
        except (InputError, InputTypeError) as error:
            yield f"{name}: {error}"


def _weights(table: Any) -> Iterator[str]:
    """Weights that are not numbers, arrays or arguments of wb.Weight."""
    if not isinstance(table, dict):
        return
    parameters = list(inspect.signature(Weight).parameters)
    for name, value in table.items():
        if isinstance(value, dict):
            for inner in value:
                if inner not in parameters:
                    yield f"weights.{name}.{inner}: wb.Weight has no such argument{_instead(inner, parameters)}"
            if "value" not in value:
                yield f"weights.{name}.value: is missing"
        elif not (_is_number(value) or isinstance(value, list)):
            yield f"weights.{name}: must be a number, an array or a table; got {value!r}"
