"""From a kernel and bound inputs to a call of the compiled driver `descend.minimise_slice`.

Which entries a call needs and how much memory they want depends on shapes alone, and is worked out once for each set
of shapes: learning calls with the same shapes thousands of times.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.calls.arrays import address_of
from ..compiler.calls.evaluate import ready
from ..compiler.calls.slices import run_slices
from ..compiler.machine_code.native import Native
from ..energies.errors import InputError
from .algebra.blocks import layout_of
from .descend import (
    CANDIDATES,
    CANDIDATES_STRIDE,
    COUNT,
    DERIVATIVES,
    ENERGIES,
    EXTENTS,
    GTOL,
    INTEGERS,
    LAYOUT,
    MAX_ITERATIONS,
    RANKING,
    RANKING_EXTENTS,
    REALS,
    SCRATCH,
    SEEDS,
    TABLE,
    UNKNOWNS,
    VALUE,
    VARIABLES,
    minimise_slice,
    workspace_size,
)
from .problem import Problem
from .seeding import Seeds

_DOUBLE = struct.Struct("=d")

MOST_PLANS = 1000

NOTHING: Mapping[int, int] = MappingProxyType({})


@dataclass(frozen=True)
class _Plan:
    """What a call of given shapes needs.

    kinds        the entries that are called
    fields       the problem of `descend.minimise_slice`, without what differs between calls: every instance prepares
                 what it needs of weights alone
    preparing    where in it an entry stands that prepares something, how many numbers, and how
    failures     where the kernels put exceptions that cannot pass through machine code
    prepared     prepared numbers of all entries together
    kept         arrays whose addresses are in `fields`
    key          what the time of an instance depends on
    """

    kinds: tuple[Any, ...]
    fields: array[int]
    preparing: tuple[tuple[int, int, Callable[..., Any]], ...]
    failures: tuple[list[Exception], ...]
    prepared: int
    scratch: int
    kept: tuple[NDArray[np.int64], ...]
    key: tuple[Any, ...]


def declared_seeds(kernel: Any, inputs: Any) -> Seeds:
    """The candidates that the energy declares.

    Raises
    ------
    InputError
        If there are none for these extents.
    """
    remembered = inputs.drivers
    number = remembered.get("candidates")
    if number is None:
        number = remembered["candidates"] = kernel.candidate_count(inputs)
    if number < 1:
        raise InputError(
            f"minimise: energy {kernel.name!r}: its candidates= are none for these extents; give start= or candidates="
        )
    return Seeds(None, number, None)


def _plan(kernel: Any, inputs: Any, seeds: Seeds | None, first: str, third: str | None) -> _Plan:
    wanted = [first, "value", third, None]
    number = 0
    if seeds is not None:
        wanted[3], number = "many_values", seeds.number
        if seeds.points is None:
            wanted[2] = "candidates"
    fields = array("q", bytes(8 * (GTOL + 1)))
    preparing: list[tuple[int, int, Callable[..., Any]]] = []
    kinds: list[Any] = []
    scratch = 0
    for place, kind in zip((DERIVATIVES, VALUE, SEEDS, RANKING), wanted, strict=True):
        if kind is None:
            continue
        entry = kernel.entry(kind)
        kinds.append(entry)
        scratch = max(scratch, entry.scratch_size(inputs, number))
        size = entry.prepared_size(inputs)
        fields[place], fields[place + 1], fields[place + 3] = entry.evaluate.address, entry.prepare.address, size
        if size > 0:
            preparing.append((place, size, entry.prepare.call))
    counted, layout = np.append(inputs.extents, number), layout_of(kernel, inputs)
    fields[EXTENTS] = fields[RANKING_EXTENTS] = address_of(counted)  # the number of candidates comes after the extents
    fields[UNKNOWNS], fields[SCRATCH], fields[COUNT] = inputs.m, scratch, number
    fields[LAYOUT] = address_of(layout)
    failures = tuple(entry.failures for entry in kinds)
    prepared = sum(size for _, size, _ in preparing)
    key = kinds[0].evaluate.address, counted.tobytes(), len(kinds)
    return _Plan(tuple(kinds), fields, tuple(preparing), failures, prepared, scratch, (counted, layout), key)


def run_driver(
    problem: Problem,
    drive: Native | None = None,
    first: str = "value_gradient_hessian",
    third: str | None = None,
    more: Mapping[int, int] = NOTHING,
) -> None:
    """Minimise every instance of a batch, over slices on threads; `descend.descend` says what is written.

    `drive` is another driver that reads the same problem, for `descend.minimise_slice`; its kernel of derivatives is
    then of the kind `first`, the one that stands in the place of declared candidates of the kind `third`, and `more`
    has numbers for places of its problem.
    """
    kernel, inputs, seeds, y = problem.kernel, problem.inputs, problem.seeds, problem.y
    drive = drive or minimise_slice(inputs.m)
    number, points = (0, None) if seeds is None else (seeds.number, seeds.points)
    remembered = inputs.drivers
    key = (kernel.entry(first).evaluate.address, number, points is None, third)
    plan: _Plan | None = remembered.get(key)
    if plan is None:
        if len(remembered) > MOST_PLANS:
            remembered.clear()
        plan = remembered[key] = _plan(kernel, inputs, seeds, first, third)
    if inputs.family:
        for entry in plan.kinds:
            ready(entry, inputs)
    fields, own = plan.fields[:], plan.prepared
    fields[TABLE] = inputs.table_address
    if own and len(y) > 1 and not inputs.weights_batched:  # once for all; one instance does so itself
        shared, own = np.empty(own), 0
        place = address_of(shared)
        for entry_place, size, prepare in plan.preparing:
            prepare(inputs.table_address, fields[EXTENTS], 0, place)
            fields[entry_place + 2], fields[entry_place + 3] = place, 0
            place += 8 * size
    if points is not None:
        points = np.ascontiguousarray(points)
        fields[CANDIDATES], fields[CANDIDATES_STRIDE] = address_of(points), points[0].size if points.ndim == 3 else 0
    fields[VARIABLES], fields[ENERGIES] = address_of(y), address_of(problem.energies)
    fields[REALS], fields[INTEGERS] = address_of(problem.reals), address_of(problem.integers)
    for place, value in more.items():
        fields[place] = value
    fields[MAX_ITERATIONS] = problem.max_iterations
    _DOUBLE.pack_into(fields, 8 * GTOL, problem.gtol)
    run_slices(
        drive,
        fields.buffer_info()[0],
        len(y),
        key=(drive.address, *plan.key),
        workspace=workspace_size(inputs.m, number, plan.scratch, own),
    )
    for failures in plan.failures:
        if failures:
            failure = failures[0]
            failures.clear()
            raise failure
