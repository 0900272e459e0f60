"""Batches: what one step learns from, and which of them the coming steps see.

Step k sees a batch that depends on k alone wherever `batches` can be asked for it, so that a run that was interrupted
goes on with what the whole run would have seen. What `fit` is given says how:

    given                                     step k sees            after a checkpoint
    a Batch                                   that one               goes on
    a list or tuple of n                      number k mod n         goes on
    a function of the step                    its answer for k       goes on
    an iterable that can be iterated again    number k mod n         goes on: it is read, and what came before skipped
    the same without `steps`                  a pass from its start  a pass from its start
    a generator                               what comes next        refused: nobody can say what came next then

A batch may be read in parts, for one that is larger than memory: `BatchParts`, a `Batch` of dask arrays, or a
`dask.delayed` batch. Each part is read where it is judged, and dropped (cut.py).
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from numpy.typing import ArrayLike

from ..energies.errors import InputError, InputTypeError


@dataclass(frozen=True)
class Batch:
    """The instances of one step.

    Parameters
    ----------
    data, targets : dict of array_like
        For the energy and the loss, by name; arrays with one axis more than declared are batched.
    start, candidates : dict of array_like, optional
        As for `minimise`.
    name : str, optional
        For messages.
    """

    data: Mapping[str, ArrayLike] = field(default_factory=dict)
    targets: Mapping[str, ArrayLike] = field(default_factory=dict)
    start: Mapping[str, ArrayLike] | None = None
    candidates: Mapping[str, ArrayLike] | None = None
    name: str | None = None


@dataclass(frozen=True)
class BatchParts:
    """A batch whose instances are read part by part, wherever they are needed.

    The instances of the second part come after those of the first. Each is judged in blocks of 64 instances: a batch
    has the same bits in parts and as a whole if all parts but the last hold a multiple of 64.

    Parameters
    ----------
    parts : sequence
        Each a `Batch`, a function without arguments that returns one (for `fit(client=)` one that can be pickled), or a
        `dask.delayed` one. Readers are called at every step that sees the batch.
    name : str, optional
        For messages.

    Examples
    --------
    >>> from functools import partial
    >>> def read(file):
    ...     return Batch(data={"x": [[1.0, 2.0]]}, name=file)
    >>> batch = BatchParts([partial(read, file) for file in ("a.npz", "b.npz")])
    >>> [part().name for part in batch.parts]
    ['a.npz', 'b.npz']
    """

    parts: Sequence[Any]
    name: str | None = None


AnyBatch = Batch | BatchParts
Batches = AnyBatch | Iterable[AnyBatch] | Callable[[int], AnyBatch]


def stream(batches: Batches, steps: int | None, *, first: int, resumed: bool) -> Iterator[Any]:
    """The batches of the coming steps, by the table at the top of this file.

    Parameters
    ----------
    batches : Batch, iterable of Batch, or function of the step
    steps : int or None
        How many to give; None: one pass over `batches`.
    first : int
        The number of the first of them: how many steps were taken before.
    resumed : bool
        Whether those steps were taken before a checkpoint was loaded; a generator is then refused.

    Raises
    ------
    InputError, InputTypeError
        When the first batch is asked for: for `batches` of another type, for none at all, for a function without
        `steps`, for a generator where it cannot go on.

    Warns
    -----
    UserWarning
        When a generator ends before `steps`.

    Examples
    --------
    >>> two = [Batch(name="even"), Batch(name="odd")]
    >>> [batch.name for batch in stream(two, 4, first=3, resumed=True)]
    ['odd', 'even', 'odd', 'even']
    """
    if _is_one(batches):
        yield from [batches] * (1 if steps is None else steps)
    elif callable(batches):
        if steps is None:
            raise InputError("fit: batches is a function of the step, so steps= must say how many to take")
        for step in range(first, first + steps):
            yield batches(step)
    elif not isinstance(batches, Iterable):
        raise InputTypeError(
            f"fit: batches must be an iterable of wb.Batch or a function of the step (got {type(batches).__name__})"
        )
    elif isinstance(batches, Iterator):
        if resumed:
            raise InputError(
                f"fit: a generator cannot be brought to step {first}, where the checkpoint was "
                f"made; pass a list or a function of the step (lambda step: next(generator) goes on with "
                f"whatever comes next)"
            )
        yield from _consume(batches, steps)
    elif isinstance(batches, Sequence):
        if not batches:
            raise InputError("fit: batches is empty: 0 batches")
        for step in range(first, first + (len(batches) if steps is None else steps)):
            yield batches[step % len(batches)]
    elif steps is None:
        yield from batches
    else:
        yield from islice(_repeated(batches, first), steps)


def length(batches: Any, steps: int | None) -> int | None:
    """How many batches `stream` will give, if that is known before."""
    if steps is not None:
        return steps
    if _is_one(batches):
        return 1
    return len(batches) if hasattr(batches, "__len__") else None


def is_lazy(value: Any) -> bool:
    """Whether dask has yet to compute it."""
    return hasattr(type(value), "__dask_graph__")


def _is_one(batches: Any) -> bool:
    """Whether it is a batch itself; a `dask.delayed` one can be called and iterated, too."""
    return isinstance(batches, (Batch, BatchParts)) or is_lazy(batches)


def place(batch: AnyBatch, step: int) -> str:
    """Where learning is, for messages: `step 3, batch 'seq_04'`."""
    return f"step {step}" + (f", batch {batch.name!r}" if batch.name else "")


def check_batch(batch: Any, step: int) -> AnyBatch:
    """The batch that came out of a stream; what is none is refused."""
    if is_lazy(batch):
        return BatchParts([batch])
    if not isinstance(batch, (Batch, BatchParts)):
        raise InputTypeError(
            f"fit: step {step} got a {type(batch).__name__}; batches must be wb.Batch(data={{...}}, targets={{...}})"
        )
    if isinstance(batch, BatchParts) and len(batch.parts) == 0:
        raise InputError(f"fit: {place(batch, step)}: the batch has no parts")
    return batch


def check_steps(steps: Any) -> int | None:
    """The number of steps as an int >= 0, or None."""
    if steps is None:
        return None
    try:
        count = operator.index(steps)
    except TypeError:
        raise InputTypeError(
            f"fit: steps must be an integer >= 0 (got {steps!r} of type {type(steps).__name__})"
        ) from None
    if count < 0:
        raise InputError(f"fit: steps must be an integer >= 0 (got {count})")
    return count


def _consume(batches: Iterator[Any], steps: int | None) -> Iterator[Any]:
    """What a generator gives, and a warning where that is less than `steps`."""
    taken = 0
    for batch in batches if steps is None else islice(batches, steps):
        taken += 1
        yield batch
    if taken == 0 and steps != 0:
        raise InputError("fit: batches is empty: 0 batches (a generator can be read only once)")
    if steps is not None and taken < steps:
        warnings.warn(
            f"fit: batches ended after {taken} of {steps} steps; pass a list, which is repeated, or a "
            f"function of the step",
            UserWarning,
            stacklevel=4,  # _consume, stream, fit, and who called that
        )


def _repeated(batches: Iterable[Any], skip: int) -> Iterator[Any]:
    """The batches over and over, without the first `skip`."""
    while True:
        count = 0
        for batch in batches:
            count += 1
            if skip:
                skip -= 1
            else:
                yield batch
        if count == 0:
            raise InputError("fit: batches is empty: 0 batches")
        skip %= count
