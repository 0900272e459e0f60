"""Derivatives by what is upstream of a minimisation: the data, and weights of each instance, that a function has made.

    dl/dx = -sum over instances of u . d(grad_y E)/dx,        u = (H + shift I)^-1 dl/dy

with the same damped u as by the weights (implicit.py), so that one solve serves both. A network, or any function
x = f(theta), goes on from there: dl/dtheta is its pull-back of dl/dx. The layers for PyTorch and JAX are made of
`minima_gradients`; by hand, docs/frameworks.md shows the loop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...compiler.calls.evaluate import BLOCK, run
from ...compiler.calls.layout import Layout
from ...compiler.kernel import Kernel, unpack_adjoint
from ...runtime.solution import Solution
from .damped import LEFT_OUT, NOT_FINITE, SHIFTED, USED
from .implicit import (
    check_damping,
    check_owner,
    check_policy,
    counted_slopes,
    damped_directions,
    over_members,
    refuse_singular,
    report_dropped,
)

if TYPE_CHECKING:
    from ..output import Output, OutputSolution

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

_AT_ONCE = 64 * BLOCK
"""Rows of derivatives that are in memory at a time, before they are summed."""


def implicit_data_gradient(
    kernel: Kernel | Output,
    solution: Solution | OutputSolution,
    loss_gradient: Mapping[str, ArrayLike],
    damping: float = 0.1,
    unconverged: str = "zero",
) -> dict[str, Any]:
    """dl/dx through the minima of a batch, by the data, from dl/dy at each of them.

    Parameters
    ----------
    kernel, solution, loss_gradient, damping, unconverged
        As for `implicit_gradient`.

    Returns
    -------
    dict like the data, without index data
        (B, ...) for data with a batch axis, summed over the batch for shared ones; summed over the members of a family
        in both cases. Of an output, its own data too.

    Raises
    ------
    InputError, InputTypeError, NameMissingError, NumericalError
        As for `implicit_gradient`.

    Examples
    --------
    >>> import sympy as sp, wiberg as wb
    >>> t, a, x = sp.Symbol("t", real=True), sp.Symbol("a", positive=True), sp.Symbol("x", real=True)
    >>> energy = wb.Energy(a*(t - x)**2 + t**2, variables=[t], weights=[a], data=[x])
    >>> kernel = wb.compile(energy, backend="reference")
    >>> solution = wb.minimise(kernel, {"a": 3.0}, {"x": [1.0, 5.0]}, start={"t": 0.0})
    >>> print(wb.implicit_data_gradient(kernel, solution, {"t": [1.0, 1.0]}, damping=0.0)["x"])
    [0.75 0.75]
    """
    _, gradient = minima_gradients(
        kernel, solution, loss_gradient, damping, unconverged, weights=False, who="implicit_data_gradient"
    )
    return gradient


def minima_gradients(
    kernel: Kernel | Output,
    solution: Solution | OutputSolution,
    loss_gradient: Mapping[str, ArrayLike],
    damping: float,
    unconverged: str,
    *,
    weights: bool = True,
    data: bool = True,
    who: str,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """dl/dw and dl/dx from one solve; a part that is not wanted is empty. `who` the user called, for messages."""
    if not isinstance(kernel, Kernel) and hasattr(kernel, "pull"):
        return _output_gradients(
            kernel, cast(Any, solution), loss_gradient, damping, unconverged, weights=weights, data=data, who=who
        )
    strength = check_damping(damping, who)
    check_policy(unconverged, who)
    check_owner(kernel, solution, who)
    kernel, solution = cast(Kernel, kernel), cast(Solution, solution)
    slopes, codes = counted_slopes(kernel, solution, loss_gradient, unconverged, who)
    inputs = solution.inputs
    weights, data = weights and inputs.p > 0, data and bool(kernel.data.names)
    if not (weights or data):
        return {}, {}
    points = damped_directions(kernel, solution, slopes, strength, codes)
    if strength == 0.0:
        refuse_singular(kernel, solution, codes, who)
    count = len(kernel.weights.names)
    batched = dict(zip((s.name for s in kernel.declaration.weights), inputs.batched[:count], strict=True))
    given = dict(zip((s.name for s in kernel.declaration.data), inputs.batched[count:], strict=True))
    given = {name: given[name] for name in kernel.data.names}
    parts = [
        (kernel.weights, batched, "cross_adjoint", inputs.p if weights else 0),
        (kernel.data, given, "data_adjoint", inputs.q if data else 0),
    ]
    rows = [_adjoint(solution, kind, points, codes, size, any(own.values())) for _, own, kind, size in parts]
    dropped = (codes == LEFT_OUT) | (codes == NOT_FINITE)
    if dropped.any():
        report_dropped(solution, codes, unconverged, who)
        if unconverged == "nan":
            instances = dropped.reshape(-1, max(1, inputs.members)).any(axis=1)
            for each in rows:
                each[instances if each.ndim == 2 else ...] = math.nan
    wanted = weights, data
    found = [
        _unpacked(layout, each, own, inputs) if want else {}
        for (layout, own, _, _), each, want in zip(parts, rows, wanted, strict=True)
    ]
    return found[0], found[1]


def _adjoint(
    solution: Solution, kind: str, points: list[tuple[Floats, Floats]], codes: Codes, size: int, each: bool
) -> Floats:
    """direction . d(grad)/d(weights or data): a row for each instance, or their sum in blocks of 64 rows, in order."""
    inputs, members = solution.inputs, max(1, solution.inputs.members)
    count = len(codes)
    found, total = [], np.zeros(size)
    if size == 0:
        return np.zeros((count // members, 0)) if each else total
    step = members * max(1, _AT_ONCE // (members * BLOCK)) * BLOCK
    if each and members == 1:
        step = max(1, count)  # what comes back is no smaller
    for begin in range(0, count, step):
        here = slice(begin, min(count, begin + step))
        rows = _rows(solution, kind, points, here)
        if not math.isfinite(np.add.reduce(rows, axis=None)):
            finite, own = np.isfinite(rows).all(axis=1), codes[here]
            own[((own == USED) | (own == SHIFTED)) & ~finite] = NOT_FINITE
            rows[~finite] = 0.0
        if each:
            found.append(over_members(rows, inputs))
        else:
            for k in range(0, len(rows), BLOCK):
                total += rows[k : k + BLOCK].sum(axis=0)
    if not each:
        return total
    if len(found) == 1:
        return found[0]
    return np.concatenate(found) if found else np.zeros((0, size))


def _rows(solution: Solution, kind: str, points: list[tuple[Floats, Floats]], here: slice) -> Floats:
    """direction . d(grad)/d(weights or data) of some instances, one row for each."""
    inputs, count = solution.inputs, here.stop - here.start
    chosen = inputs if count == len(points[0][1]) else inputs.rows(here)
    entry, total = solution.kernel.entry(kind), None
    for y, directions in points:
        with np.errstate(all="ignore"):
            _, rows = run(entry, chosen, y[here] if len(y) > 1 else y, directions[here], count=count)
        total = rows if total is None else total + rows
    assert total is not None
    return total


def _unpacked(layout: Layout, gradient: Floats, batched: Mapping[str, bool], inputs: Any) -> dict[str, Any]:
    if gradient.ndim == 1:
        return layout.unpack(gradient, inputs.sizes)
    return unpack_adjoint(layout, gradient, batched, inputs)


def _output_gradients(
    output: Output,
    solution: OutputSolution,
    loss_gradient: Mapping[str, ArrayLike],
    damping: float,
    unconverged: str,
    *,
    weights: bool,
    data: bool,
    who: str,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same of an output: through all its minima, and directly."""
    from .blocks import blocked_sum
    from .output_gradient import check_output, minima_slopes  # here: most minima are wanted for themselves

    check_output(output, solution, who)
    each, rows = minima_slopes(solution, loss_gradient, who)
    direct = {n: r if np.ndim(r) == np.ndim(solution.w[n]) else blocked_sum(r) for n, r in rows.items()}
    by_data = output.pull_to_data(loss_gradient, solution.minima, solution.w, solution.x) if data else {}
    real = {*by_data, *(name for kernel in output.kernels for name in kernel.data.names)} if data else set()
    totals = tuple(
        {name: np.zeros(np.shape(given[name])) for name in given if name in names}
        for given, names in ((solution.w, output.weights if weights else ()), (solution.x, real))
    )
    for kernel, one, slopes in zip(output.kernels, solution.solutions, each, strict=True):
        parts = minima_gradients(kernel, one, slopes, damping, unconverged, weights=weights, data=data, who=who)
        for total, part in zip(totals, parts, strict=True):
            for name, gradient in part.items():
                total[name] = total[name] + gradient
    for total, part in zip(totals, (direct, by_data), strict=True):
        for name in total.keys() & part.keys():
            total[name] = total[name] + part[name]
    return totals[0], totals[1]
