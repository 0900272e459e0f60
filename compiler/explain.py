"""`Kernel.explain`: what the compiler made of an energy, what it costs, and where a number that is not finite began."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from ..energies.display import text
from .calls.evaluate import run, run_accumulated
from .costs import Cost, Structure, at, cost, structure
from .machine_code.cache import cache_directory
from .machine_code.entry import kernel_key
from .nonfinite import NotFinite, first_not_finite
from .points import random_point
from .program.readable import Names, names_of, program_text

if TYPE_CHECKING:
    from .kernel import Kernel

COSTED = ("value", "gradient", "hessian", "value_gradient_hessian", "cross", "hvp", "cross_adjoint")
DIRECTED = ("hvp", "cross_adjoint", "data_adjoint")
MADE_UP = 16  # every extent, where no arrays are given
LONGEST_OUTPUT = 2_000_000  # numbers that a measurement may write
MEASURED_SECONDS = 150e-6  # less than what is given to other threads: the times are those of one core
SLOWEST_SECONDS = 2.0  # kinds that are expected to take longer for one instance are not run,
LARGEST_BYTES = 500_000_000  # nor those that write more


@dataclass(frozen=True)
class Figure:
    """One kind of kernel: its cost, the times for one instance in seconds, and where its machine code is kept.

    `measured` is None where it was not run; `folder` is None for the interpreter.
    """

    kind: str
    cost: Cost
    estimated: float
    measured: float | None
    folder: Path | None


@dataclass(frozen=True)
class Explanation:
    """What `Kernel.explain` found; print it.

    Attributes
    ----------
    energy : str
        The energy as it prints.
    program : str
        The indexed program in the user's names, one statement a line, with what each is for.
    hessian, cross : str
        What the Hessian comes as (`Kernel.structure`), and the cross-derivative: "dense" or "sparse".
    structure : Structure
        The blocks of the Hessian, and whether it depends on the variables.
    figures : tuple of Figure
        Cost and time of each kind of kernel.
    sizes : dict
        The extents at which `estimated` and `measured` hold.
    made_up : bool
        Whether the arrays were made up for the measurement.
    not_finite : NotFinite or None
        The first number that is not finite at the given arrays, and where it comes from.
    """

    energy: str
    program: str
    hessian: str
    cross: str
    structure: Structure
    figures: tuple[Figure, ...]
    sizes: Mapping[Any, int]
    made_up: bool
    backend: str
    not_finite: NotFinite | None = None

    def __str__(self) -> str:
        if self.not_finite is not None:
            return str(self.not_finite)
        finite = [] if self.made_up else ["value and derivatives are finite at the given arrays"]
        parts = [
            "\n".join([self.energy, *finite]),
            "program of the energy:\n" + _indented(self.program),
            f"structure of the Hessian: {self.hessian}; of the cross-derivative: {self.cross}\n"
            + _indented(structure_text(self.structure)),
            _costs_text(self),
            "cache:\n" + _indented(_cache_text(self.figures)),
        ]
        return "\n\n".join(parts)

    __repr__ = __str__


def explain(kernel: Kernel, y: Any, w: Any, x: Any) -> Explanation:
    """See `Kernel.explain`."""
    energy, given = kernel.energy, any(a is not None for a in (y, w, x))
    found = first_not_finite(kernel, y, w, x) if given else None
    arrays = (y, w, x) if given else _made_up(kernel)
    sizes = _sizes(kernel, arrays)
    names: Names = names_of(energy)
    return Explanation(
        str(energy),
        program_text(kernel.program(), names),
        kernel.structure,
        "dense" if kernel._structure("cross").support is None else "sparse",
        structure(energy),
        () if found is not None else tuple(_figure(kernel, k, arrays, sizes) for k in _kinds(kernel)),
        sizes,
        not given,
        kernel.backend,
        found,
    )


def _kinds(kernel: Kernel) -> list[str]:
    return [k for k in COSTED if kernel.energy.weights or not k.startswith("cross")]


def _made_up(kernel: Kernel) -> tuple[dict[str, Any], ...]:
    """Random arrays: extents of `MADE_UP`, numbers of about unit size, index data within every extent."""
    energy = kernel.energy
    point = random_point(energy, dict.fromkeys(energy.extents, MADE_UP), np.random.default_rng(0), positive=False)
    roles = (energy.variables, energy.weights, energy.data)
    return tuple({str(s.name): point[str(s.name)] for s in role} for role in roles)


def _sizes(kernel: Kernel, arrays: tuple[Any, ...]) -> dict[Any, int]:
    inputs, _, _ = kernel._arguments(*arrays)
    generated = dict(zip(kernel.declaration.extents, kernel.energy.extents, strict=True))
    return {symbol: int(inputs.sizes[name]) for name, symbol in generated.items()}


# ---------------------------------------------------------------------------------------------- figures


def _figure(kernel: Kernel, kind: str, arrays: tuple[Any, ...], sizes: Mapping[Any, int]) -> Figure:
    own = cost(kernel.energy, kind)
    estimated = own.nanoseconds(sizes) * 1e-9
    compiled = kernel.backend == "numba"
    moderate = estimated < SLOWEST_SECONDS and at(own.written, sizes) < LARGEST_BYTES
    measured = measure(kernel, kind, arrays) if moderate else None
    folder = cache_directory() / kernel_key(kernel.energy, kind) if compiled else None
    return Figure(kind, own, estimated, measured, folder)


def measure(kernel: Kernel, kind: str, arrays: tuple[Any, ...]) -> float:
    """Seconds for one instance: the least of several runs, each over as many instances as fit a fraction of a ms."""
    inputs, packed, _ = kernel._arguments(*arrays)
    entry = kernel.entry(kind)
    direction = np.ones_like(packed) if kind in DIRECTED else None
    driver: Any = run_accumulated if entry.accumulate else run
    most = len(packed) if len(packed) > 1 else inputs.batch or LONGEST_OUTPUT
    most = max(1, min(most, LONGEST_OUTPUT // (entry.out_size(inputs) + 1)))
    count, best = 1, np.inf
    driver(entry, inputs, packed, direction, count=1)
    for _ in range(12):
        start = perf_counter()
        driver(entry, inputs, packed, direction, count=count)
        seconds = perf_counter() - start
        best = min(best, seconds / count)
        if seconds > SLOWEST_SECONDS / 12:
            break
        if seconds < MEASURED_SECONDS / 2:
            count = min(most, 2 * count)
    return float(best)


# ---------------------------------------------------------------------------------------------- text


def _indented(lines: str) -> str:
    return "\n".join(f"  {line}" for line in lines.splitlines())


def structure_text(found: Structure) -> str:
    """The blocks of the Hessian, one on a line."""
    lines = []
    for block in found.blocks:
        pair = f"{block.left}, {block.right}"
        detail = {"zero": "all entries are 0", "dense": f"{text(block.all)} entries"}.get(
            block.shape, f"at most {text(block.most)} of {text(block.all)} entries differ from 0"
        )
        lines.append(f"{pair:12} {block.shape}: {detail}")
    if found.constant:
        lines.append("it does not depend on the variables: the energy is quadratic in them")
    return "\n".join(lines)


def _costs_text(explanation: Explanation) -> str:
    sizes = ", ".join(f"{text(symbol)} = {size}" for symbol, size in explanation.sizes.items())
    arrays = "made-up arrays" if explanation.made_up else "the given arrays"
    where = "the interpreter" if explanation.backend == "reference" else "one core"
    lines = [
        f"cost of one instance ({', '.join(p for p in (sizes, arrays, f'measured on {where}') if p)}):",
        f"  {'':22} {'flops':>12} {'bytes':>12} {'estimated':>12} {'measured':>12}",
    ]
    for figure in explanation.figures:
        measured = "not run" if figure.measured is None else _time(figure.measured)
        flops, memory = (f"{at(size, explanation.sizes):,}" for size in (figure.cost.flops, figure.cost.bytes))
        lines.append(f"  {figure.kind:22} {flops:>12} {memory:>12} {_time(figure.estimated):>12} {measured:>12}")
    lines += ["", "as functions of the extents:"]
    for figure in explanation.figures:
        own = figure.cost
        lines.append(f"  {figure.kind:22} flops  {text(own.flops)}")
        if own.calls:
            lines.append(f"  {'':22} of which {', '.join(f'{n}: {text(c)}' for n, c in own.calls.items())}")
        if own.once != 0:
            lines.append(f"  {'':22} once for a call, from weights alone  {text(own.once)}")
        lines.append(f"  {'':22} bytes  {text(own.bytes)}")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    for unit, scale in (("ns", 1e9), ("us", 1e6), ("ms", 1e3)):
        if seconds * scale < 1000:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds:.3g} s"


def _cache_text(figures: tuple[Figure, ...]) -> str:
    folders = [(f.kind, f.folder) for f in figures if f.folder is not None]
    if not folders:
        return "the interpreter has no machine code"
    return "\n".join(f"{kind:22} {folder if folder.is_dir() else 'not kept on disk'}" for kind, folder in folders)
