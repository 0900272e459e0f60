"""Learning on many machines: synchronous, data-parallel gradient descent on dask.distributed.

    here       weights  ------------------------->  each worker: read a part of the batch, minimise, judge
               sums of blocks, added in order  <---------------  sums of its blocks of 64 instances
               the step of the optimiser

What a worker computes of a part is what `fit` computes of it without a client (`Learner.judge_part`), and its sums are
combined in the order of the blocks, so that every step has the same bits for any number of workers.

The learner itself, and batches that are in memory, are sent once for each call of `fit`. They are kept as tasks, not
only as results: when a worker dies, Dask computes what it had, or had under way, somewhere else. Readers
(`BatchParts`, dask arrays) run on the workers at each step, unless the user persists what they read. A worker compiles
the kernels when it first needs them, or takes them from its cache on disk, and uses one thread for each task.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..energies.errors import InputTypeError, MissingPackageError
from .batches import AnyBatch, Batch, BatchParts, is_lazy
from .cut import cut, has_lazy_arrays, parts_here, read
from .sharing import Scales

if TYPE_CHECKING:
    from .learner import Learner

Floats = NDArray[np.float64]
LOGGER = logging.getLogger(__name__)
LOOK_AFTER = 2.0
"""Seconds of waiting after which it is asked whether there are workers at all."""

JudgedParts = Callable[[AnyBatch, Floats, int, Scales | None], Sequence[Any]]
"""From a batch, the packed weights, the number of the step and what `Learner.judge_part` is told besides to the sums of
the batch's parts, in order."""


@contextmanager
def judged_by(client: Any, learner: Learner, interrupted: Callable[[], bool]) -> Iterator[JudgedParts]:
    """How the steps of a call of `fit` judge their batches: on the workers of a client, or here without one.

    `interrupted` says whether Ctrl-C was pressed, which the workers of a LocalCluster in the same terminal get, too: if
    all of them are gone then, the step is given up with KeyboardInterrupt.

    Raises
    ------
    InputTypeError
        For what is no client, or an asynchronous one.
    MissingPackageError
        Without dask.distributed.
    """
    if client is None:
        yield lambda batch, weights, step, scales: [
            learner.judge_part(part, weights, step, scales) for part in parts_here(learner.model, batch)
        ]
        return
    _check_client(client)
    workers = _Workers(client, learner, interrupted)
    try:
        yield workers.judged
    finally:
        workers.release()


class _Workers:
    """A client, and what its workers know: the learner, and parts of batches."""

    def __init__(self, client: Any, learner: Learner, interrupted: Callable[[], bool]) -> None:
        self._client, self._model, self._interrupted = client, learner.model, interrupted
        self._learner = self._kept(learner.for_workers())
        self._sent: dict[int, tuple[list[Any], Any]] = {}  # batches in memory by id: futures, and what forgets them

    def judged(self, batch: AnyBatch, weights: Floats, step: int, scales: Scales | None) -> Sequence[Any]:
        """The sums of the parts of a batch, in order."""
        parts = self._parts_of(batch)
        shared = {"learner": self._learner, "weights": weights, "step": step, "scales": scales}
        if any(is_lazy(part) for part in parts):
            sums = self._client.compute(_delayed_judgements(parts, shared))
        else:
            sums = self._client.map(_judge, parts, pure=False, **shared)
        self._wait(sums)
        result: Sequence[Any] = self._client.gather(sums)
        return result

    def _wait(self, futures: list[Any]) -> None:
        """Until all are done; not for workers that will never come."""
        from distributed import wait

        patient = True
        while True:
            try:
                wait(futures, timeout=LOOK_AFTER)
                return
            except TimeoutError:
                if not self._client.nthreads():
                    if self._interrupted():
                        raise KeyboardInterrupt from None
                    if patient:
                        LOGGER.warning("fit: the client has no workers; waiting for some to come")
                    patient = False

    def release(self) -> None:
        """Let the workers forget."""
        for _, finalizer in self._sent.values():
            finalizer.detach()
        self._sent.clear()
        del self._learner

    def _parts_of(self, batch: AnyBatch) -> list[Any]:
        """The parts of a batch, in order, as `_judge` takes them: futures, readers, or delayed."""
        if isinstance(batch, BatchParts):
            return [piece for part in batch.parts for piece in self._pieces(part, 1)]
        return self._pieces(batch, self._threads())

    def _pieces(self, part: Any, pieces: int) -> list[Any]:
        if not isinstance(part, Batch):
            return [part]
        if has_lazy_arrays(part):
            return [_delayed(piece) for piece in cut(self._model, part, pieces)]
        if id(part) not in self._sent:
            futures = [self._kept(piece) for piece in cut(self._model, part, pieces)]
            self._sent[id(part)] = futures, weakref.finalize(part, self._sent.pop, id(part))
        return self._sent[id(part)][0]

    def _kept(self, value: Any) -> Any:
        """A value on a worker, sent so that it survives the worker."""
        import dask

        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 PiB"}):  # it is sent once
            return self._client.submit(_same, value, pure=False)

    def _threads(self) -> int:
        threads: dict[str, int] = self._client.nthreads()
        return max(1, sum(threads.values()))


def _delayed(batch: Batch) -> Any:
    """A batch of dask arrays as one thing to compute."""
    import dask

    return dask.delayed(Batch)(batch.data, batch.targets, batch.start, batch.candidates, batch.name)


def _delayed_judgements(parts: list[Any], shared: dict[str, Any]) -> list[Any]:
    """Reading and judging as one graph, in which Dask goes on with a part before it reads the next."""
    import dask

    judge = dask.delayed(_judge, pure=False)
    return [judge(part, **shared) for part in parts]


def _same(value: Any) -> Any:
    return value


def _judge(part: Any, *, learner: Learner, weights: Floats, step: int, scales: Scales | None) -> Any:
    return learner.judge_part(read(part), weights, step, scales)


def _check_client(client: Any) -> None:
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingPackageError(
            f"fit: client= needs dask.distributed ({error}); install it with: pip install 'wiberg[distributed]'"
        ) from None
    if not isinstance(client, Client):
        raise InputTypeError(
            f"fit: client must be a dask.distributed.Client (got {client!r} of type {type(client).__name__})"
        )
    if client.asynchronous:
        raise InputTypeError("fit: client is asynchronous; give one that was made outside of an event loop")
