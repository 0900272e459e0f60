"""Minimising batch after batch, for more instances than fit in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..energies.errors import InputError, InputTypeError, WibergError
from .minimise import minimise
from .progress import Callback, reporter
from .solution import Solution


def minimise_stream(
    kernel: Any,
    w: Mapping[str, Any] | None,
    batches: Iterable[Any],
    *,
    progress: bool = False,
    callback: Callback | None = None,
    **options: Any,
) -> Iterator[Solution]:
    """The solutions of batches that come one after another, each minimised when it is asked for.

    One batch is in memory at a time, as long as neither `batches` nor the caller keeps those that are done. Solutions
    are those of `minimise`, to the bit.

    Parameters
    ----------
    kernel : Kernel
    w : dict of array_like
        Weights, for all batches.
    batches : iterable
        The data of each batch: a dict of arrays, or an object such as `wb.Batch` with attributes `data`, `start` and
        `candidates`, of which the last two may be None.
    progress, callback
        As for `minimise`; how many instances (of a family, members) there will be is not known (None).
    **options
        Those of `minimise`, for all batches.

    Yields
    ------
    Solution

    Raises
    ------
    InputError, InputTypeError, NameMissingError
        As `minimise`, when the batch is reached; a note says which.

    Examples
    --------
    >>> import numpy as np, sympy as sp, wiberg as wb
    >>> t, x = sp.Symbol("t", real=True), sp.Symbol("x", real=True)
    >>> kernel = wb.compile(wb.Energy((t - x)**2, variables=[t], data=[x]), backend="reference")
    >>> batches = ({"x": np.arange(3.0) + 10*k} for k in range(2))
    >>> for solution in wb.minimise_stream(kernel, None, batches, start={"t": 0.0}):
    ...     print(solution.variables["t"])
    [0. 1. 2.]
    [10. 11. 12.]
    """
    if isinstance(batches, Mapping | str) or not isinstance(batches, Iterable):
        raise InputTypeError(
            f"minimise_stream: batches must be an iterable of dicts of data, or of wb.Batch; got "
            f"{type(batches).__name__}{' (one batch: use minimise)' if isinstance(batches, Mapping) else ''}"
        )
    return _solutions(kernel, w, iter(batches), progress, callback, options)


def _solutions(
    kernel: Any, w: Any, batches: Iterator[Any], progress: Any, callback: Any, options: dict[str, Any]
) -> Iterator[Solution]:
    number = 0
    unit = "member" if kernel.energy.over else "instance"
    with reporter(progress, callback, None, "minimise_stream", unit) as report:
        for batch in batches:
            try:
                solution = _minimised(kernel, w, batch, options)
            except WibergError as error:
                error.add_note(f"minimise_stream: in batch {number}, counted from 0")
                raise
            del batch  # the caller may let go of the solution, and then nothing keeps the arrays
            if report is not None:
                report(len(solution.y))
            yield solution
            del solution
            number += 1


def _minimised(kernel: Any, w: Any, batch: Any, options: dict[str, Any]) -> Solution:
    if isinstance(batch, Mapping):
        return minimise(kernel, w, batch, **options)
    if not hasattr(batch, "data"):
        raise InputTypeError(
            f"minimise_stream: a batch must be a dict of data or a wb.Batch; got {type(batch).__name__}"
        )
    own = {name: getattr(batch, name, None) for name in ("start", "candidates")}
    given = {name: value for name, value in own.items() if value is not None}
    for name in given:
        if name in options:
            raise InputError(f"minimise_stream: {name} is given by the batch and by the call; give one of them")
    return minimise(kernel, w, batch.data, **given, **options)
