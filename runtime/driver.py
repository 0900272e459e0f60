"""From a kernel and bound inputs to a call of the compiled driver `descend.minimise_slice`.

Which entries a call needs and how much memory they want depends on shapes alone, and is worked out once for each set
of shapes: learning calls with the same shapes thousands of times.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ..compiler.arrays import address_of
from ..compiler.evaluate import ready
from ..compiler.native import Native
from ..compiler.slices import run_slices
from ..energies.errors import InputError
from .algebra.blocks import layout_of
from .descend import GTOL, minimise_slice, workspace_size
from .problem import Problem
from .seeding import Seeds

_PACKED = struct.Struct(f"={GTOL}qd")


@dataclass(frozen=True)
class _Plan:
    """What a call of given shapes needs.

    kinds        the entries that are called
    entries      for each of the four kinds (address of evaluate, of prepare, prepare itself, prepared numbers)
    failures     where the kernels put exceptions that cannot pass through machine code
    counted      the extents, then the number of candidates
    prepared     prepared numbers of all entries together
    layout       the blocks of the Hessian
    """

    kinds: tuple[Any, ...]
    entries: tuple[tuple[int, int, Callable[..., Any] | None, int], ...]
    failures: tuple[list[Exception], ...]
    counted: NDArray[np.int64]
    prepared: int
    scratch: int
    layout: NDArray[np.int64]


_plans: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()


def _remembered(kernel: Any, key: Any, make: Callable[[], Any]) -> Any:
    plans = _plans.get(kernel)
    if plans is None:
        plans = _plans[kernel] = {}
    found = plans.get(key)
    if found is None:
        if len(plans) > 1000:
            plans.clear()
        found = plans[key] = make()
    return found


def declared_seeds(kernel: Any, inputs: Any) -> Seeds:
    """The candidates that the energy declares.

    Raises
    ------
    InputError
        If there are none for these extents.
    """
    number = _remembered(kernel, inputs.extents.tobytes(), lambda: kernel.candidate_count(inputs))
    if number < 1:
        raise InputError(
            f"minimise: energy {kernel.name!r}: its candidates= are none for these extents; give start= or candidates="
        )
    return Seeds(None, number, None)


def _plan(kernel: Any, inputs: Any, seeds: Seeds | None, third: str | None) -> _Plan:
    wanted = ["value_gradient_hessian", "value", third, None]
    number = 0
    if seeds is not None:
        wanted[3], number = "many_values", seeds.number
        if seeds.points is None:
            wanted[2] = "candidates"
    entries: list[tuple[int, int, Callable[..., Any] | None, int]] = []
    failures: list[list[Exception]] = []
    kinds: list[Any] = []
    scratch = 0
    for kind in wanted:
        if kind is None:
            entries.append((0, 0, None, 0))
            continue
        entry = kernel.entry(kind)
        kinds.append(entry)
        scratch = max(scratch, entry.scratch_size(inputs, number))
        failures.append(entry.failures)
        entries.append((entry.evaluate.address, entry.prepare.address, entry.prepare.call, entry.prepared_size(inputs)))
    counted = np.append(inputs.extents, number)
    own, layout = sum(e[3] for e in entries), layout_of(kernel, inputs)
    return _Plan(tuple(kinds), tuple(entries), tuple(failures), counted, own, scratch, layout)


def run_driver(problem: Problem, drive: Native | None = None, third: str | None = None) -> None:
    """Minimise every instance of a batch, over slices on threads; `descend.descend` says what is written.

    `drive` is another driver that reads the same problem, for `descend.minimise_slice`; the kernel that stands in the
    place of declared candidates is then of the kind `third`.
    """
    drive = drive or minimise_slice()
    kernel, inputs, seeds, y = problem.kernel, problem.inputs, problem.seeds, problem.y
    number = 0 if seeds is None else seeds.number
    points = None if seeds is None else seeds.points
    key = (inputs.extents.tobytes(), number, points is None, third)
    plan: _Plan = _remembered(kernel, key, lambda: _plan(kernel, inputs, seeds, third))
    if inputs.family:
        for entry in plan.kinds:
            ready(entry, inputs)
    table, extents, counted = inputs.table_address, inputs.extents_address, address_of(plan.counted)
    fields: list[int] = []
    shared = np.empty(plan.prepared)
    place = address_of(shared)
    for evaluate, prepare, call_prepare, size in plan.entries:
        if inputs.weights_batched or size == 0:
            fields += (evaluate, prepare, 0, size)
        else:
            assert call_prepare is not None
            call_prepare(table, counted, 0, place)
            fields += (evaluate, prepare, place, 0)
            place += 8 * size
    where, stride = 0, 0
    if points is not None:
        points = np.ascontiguousarray(points)
        where, stride = address_of(points), points[0].size if points.ndim == 3 else 0
    own = plan.prepared if inputs.weights_batched else 0
    packed = _PACKED.pack(
        *fields,
        table,
        extents,
        counted,
        inputs.m,
        plan.scratch,
        where,
        stride,
        number,
        address_of(y),
        address_of(problem.energies),
        address_of(problem.reals),
        address_of(problem.integers),
        problem.max_iterations,
        address_of(plan.layout),
        problem.gtol,
    )
    memory = array("q", packed)
    run_slices(
        drive,
        memory.buffer_info()[0],
        len(y),
        key=(drive.address, plan.entries[0][0], *key),
        workspace=workspace_size(inputs.m, number, plan.scratch, own),
    )
    for failures in plan.failures:
        if failures:
            failure = failures[0]
            failures.clear()
            raise failure
