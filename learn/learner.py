"""Learning weights end to end: minimise a batch, judge the minima, follow the damped derivative, step.

One step, for the weights w and a batch of B instances:

    y_b  = argmin_y E(y; w, x_b)                                      minimise
    g    = 1/B sum_b dl(y_b)/dy . dy_b/dw                             the damped derivative (judge.py, implicit.py)
    w   <- optimiser(w, g), then weights back within their constraints (coordinates.py)

The gradient is that of the mean loss over the batch, so that a learning rate keeps its meaning when the batch grows.
Which batch a step sees, also after a checkpoint: batches.py.

A step is committed as a whole: an error or Ctrl-C leaves the weights, the optimiser and the history of the last
completed step, and learning can go on from there. Files that it goes on from: saving.py, checkpoint.py.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..compiler.kernel import Kernel
from ..energies.errors import InputError, InputTypeError, NotFiniteError, nearest
from . import checkpoint, resume, schedule, zero_gradients
from .batches import AnyBatch, Batch, Batches, check_batch, check_steps, length, place, stream
from .coordinates import Coordinates
from .derivative.implicit import check_damping, check_policy
from .distributed import JudgedParts, judged_by
from .history import SERIES, History, Record
from .interrupt import after_the_step
from .judge import Judgement, Sums, combined, judge
from .loss import Loss
from .model import Minima, Model, differentiates_steps
from .optimiser import SGD, Optimiser, State, from_description
from .output import Output
from .progress import progress_bar
from .saving import saved
from .schedule import Schedule
from .selection import Averages, Selection, check_selection, combined_shares
from .sharing import Scales, SharedSums, judge_minima
from .starting_weights import coordinates_from_user
from .weight import from_description as weight_from_description
from .zero_gradients import ZeroGradients

if TYPE_CHECKING:
    from .reports.report import Report

Floats = NDArray[np.float64]

NOT_FINITE = ("stop", "skip")

_OPTIONS = (
    "weights",
    "optimiser",
    "damping",
    "selection",
    "unconverged",
    "not_finite",
    "bounds",
    "eliminate",
    "method",
    "gtol",
    "max_iterations",
    "reweightings",
    "notes",
)

_FIT_OPTIONS = ("batches", "steps", "progress", "callback", "checkpoint", "every_steps", "every_seconds", "client")


@dataclass(frozen=True)
class _State:
    """Everything that a step changes, replaced as a whole."""

    steps: int
    learnt: Floats
    weights: Floats
    optimiser: State
    averages: Averages


class Learner:
    """Learns the weights of an energy from what its minima should be.

    Parameters
    ----------
    kernel : Kernel or Output
        The compiled energy, or what is wanted of its minima.
    loss : Loss
        Judges the minima; its variables are some or all of the energy's, and results of an output.
    weights : dict
        The start of every weight, also of those that only output, loss or regulariser read: numbers or arrays of the
        declared shapes, or `Weight` for other units, bounds and constraints.
    optimiser : SGD
        By default SGD(learning_rate=1e-3).
    damping : float or schedule
        lambda of eq. 10, >= 0; a schedule such as `CosineDecay` gives that of each step.
    selection : Selection, optional
        Learn also from which of the minima is the lowest (selection.py); batches then need candidates. By default
        from how the lowest one moves.
    unconverged : {"zero", "nan", "use", "raise"}
        What instances that did not converge contribute, as for `implicit_gradient`; "nan" stops learning with an
        error. Their share is in the history.
    not_finite : {"stop", "skip"}
        What a step does whose loss or gradient is NaN or infinite (with damping=0 also at a singular Hessian), or that
        would lead to such weights. It is never applied: "stop" raises, "skip" warns, counts it in the history and goes
        on with the next batch.
    bounds, eliminate, method, gtol, max_iterations
        As for `minimise`; they hold for every batch and for `predict`.
    reweightings : int, optional
        As for `minimise`, with method="irls". The gradient is then that of the steps that were made
        (`unrolled_gradient`), not of the minimum, and damping plays no part: so, too, wherever an energy has held parts
        (`held`), which need method="irls".
    notes : dict, optional
        JSON values that belong to what is learnt (names, units, where it is from): saved with it, and read without it
        by `read_notes`.

    Raises
    ------
    InputError, InputTypeError, NameMissingError
        For weights and options that do not fit.

    Examples
    --------
    The robust width of a location estimate:

    >>> import numpy as np, sympy as sp
    >>> from wiberg import Batch, Energy, Learner, Loss, SGD, compile
    >>> n = sp.Symbol("n", integer=True, positive=True)
    >>> i = sp.Idx("i", n)
    >>> t, mu, shift = sp.symbols("t mu shift", real=True)
    >>> x = sp.IndexedBase("x", shape=(n,))
    >>> energy = Energy(sp.Sum((x[i] + shift - t) ** 2, i), variables=[t], weights=[shift], data=[x])
    >>> loss = Loss((t - mu) ** 2, variables=[t], targets=[mu])
    >>> learner = Learner(compile(energy), loss, weights={"shift": 0.0}, optimiser=SGD(0.1, momentum=0.5))
    >>> batch = Batch(data={"x": [[1.0, 2.0], [3.0, 5.0]]}, targets={"mu": [2.5, 5.0]}, start={"t": 0.0})
    >>> history = learner.fit([batch], steps=100)
    >>> print(f"{learner.weights['shift']:.6f}")
    1.000000
    """

    def __init__(
        self,
        kernel: Kernel | Output,
        loss: Loss,
        weights: Mapping[str, Any],
        optimiser: Optimiser | None = None,
        *,
        damping: float | Schedule = 0.1,
        selection: Selection | None = None,
        unconverged: str = "zero",
        not_finite: str = "stop",
        bounds: Mapping[str, Any] | None = None,
        eliminate: Sequence[Any] | None = None,
        method: str = "trust-region",
        gtol: float = 1e-8,
        max_iterations: int = 100,
        reweightings: int | None = None,
        notes: Mapping[str, Any] | None = None,
        **unknown: Any,
    ) -> None:
        if not isinstance(kernel, (Kernel, Output)):
            raise InputTypeError(
                f"learner: kernel must be what wb.compile returned, or a wb.Output (got {type(kernel).__name__})"
            )
        who = f"learner of energy {kernel.name!r}"
        if optimiser is not None and (isinstance(optimiser, type) or not hasattr(optimiser, "rates")):
            raise InputTypeError(
                f"{who}: optimiser must be one such as wb.SGD(learning_rate=1e-3) (got {optimiser!r} of type "
                f"{type(optimiser).__name__})"
            )
        _refuse_options(who, unknown, _OPTIONS)
        unrolled = differentiates_steps(kernel, method, reweightings)
        if unrolled and selection is not None:
            raise InputError(f"{who}: selection= is for minima, not for a number of steps; leave reweightings= out")
        self._model = Model(kernel, loss, who, unrolled=unrolled)
        check_policy(unconverged, who)
        self.kernel, self.loss = kernel, loss
        self.damping = damping if schedule.is_schedule(damping) else check_damping(damping, who)
        self.unconverged, self.not_finite = unconverged, not_finite
        if not_finite not in NOT_FINITE:
            raise InputError(
                f"{who}: unknown not_finite={not_finite!r}{nearest(str(not_finite), NOT_FINITE)}; one of "
                f"{', '.join(map(repr, NOT_FINITE))}"
            )
        self.optimiser: Optimiser = SGD(learning_rate=1e-3) if optimiser is None else optimiser
        self.minimiser: dict[str, Any] = {
            "method": method,
            "gtol": _plain(gtol),
            "max_iterations": _plain(max_iterations),
        }
        if reweightings is not None:
            self.minimiser["reweightings"] = _plain(reweightings)
        if bounds is not None:
            self.minimiser["bounds"] = _plain_bounds(bounds)
        if eliminate is not None:
            self.minimiser["eliminate"] = _plain_names(kernel, eliminate, method, bounds is not None)
        self.notes = _plain_notes(notes, who)
        if selection is not None:
            check_selection(selection, self._model, who)
        self.selection = selection
        coordinates = coordinates_from_user(self._model, weights)
        self._begin(
            coordinates,
            _State(
                0,
                coordinates.learnt(coordinates.start),
                coordinates.start,
                self.optimiser.start(coordinates.count),
                Averages(),
            ),
            Record(coordinates.start, coordinates.count),
            ZeroGradients(coordinates.count),
        )
        self._loaded = False
        self._last: Batch | None = None

    def _begin(self, coordinates: Coordinates, state: _State, record: Record, zeros: ZeroGradients) -> None:
        self._coordinates, self._state, self._record, self._zeros = coordinates, state, record, zeros
        self._rates = self.optimiser.rates(coordinates.sizes)
        self._rate = float(self._rates.max())

    # ------------------------------------------------------------------------------------------ what is known

    @property
    def weights(self) -> dict[str, Any]:
        """The weights after the last completed step: floats, and arrays that are yours to change."""
        return {
            name: float(array) if array.ndim == 0 else array.copy()
            for name, array in self._coordinates.unpack(self._state.weights).items()
        }

    @property
    def steps(self) -> int:
        """How many steps have been taken, over all calls of `fit` and before a checkpoint."""
        return self._state.steps

    @property
    def history(self) -> History:
        """What happened at each of them."""
        return self._record.history(self._state.steps, self._coordinates.unpack)

    @property
    def last_batch(self) -> Batch | None:
        """What the last step learnt from; None where that was before a checkpoint."""
        return self._last

    @property
    def formulas(self) -> dict[str, Any]:
        """Energy, output, loss and regulariser, by what they are: what a checkpoint belongs to."""
        return dict(self._model.energies)

    def predict(
        self,
        data: Mapping[str, ArrayLike] | None = None,
        *,
        start: Mapping[str, ArrayLike] | None = None,
        candidates: Mapping[str, ArrayLike] | None = None,
    ) -> dict[str, Any]:
        """The minima for data at the weights learnt, as `minimise` gives them, by name of the variable."""
        batch = Batch(data={} if data is None else data, start=start, candidates=candidates)
        return dict(self._minimise(batch).variables)

    def report(self, path: str | os.PathLike[str] | None = None) -> Report:
        """What learning did to each weight, and whether the data determine it; `print` shows it as text.

        With a path it is also written as one HTML file (page.py), with pictures where matplotlib is installed.

        Raises
        ------
        CheckpointError
            If the file cannot be written.
        """
        from .reports.report import make_report  # here: only some learners are asked for it

        history, steps = self.history, self._state.steps
        numbers = np.stack([history.loss, history.unconverged, history.skipped])
        recent = self._record.recent(steps)
        report = make_report(self.kernel.name, self._coordinates, self._state.weights, steps, numbers, recent)
        if path is not None:
            from .reports.page import write_page

            write_page(path, self, report)
        return report

    # ------------------------------------------------------------------------------------------ learning

    def fit(
        self,
        batches: Batches,
        steps: int | None = None,
        *,
        progress: bool | None = None,
        callback: Callable[[Learner], Any] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        every_steps: int | None = None,
        every_seconds: float | None = None,
        client: Any = None,
        **unknown: Any,
    ) -> History:
        """Take steps, one for each batch.

        Parameters
        ----------
        batches : Batch or BatchParts, iterable of them, or function
            A list, or another iterable that can be iterated again, is repeated as often as `steps` needs. A function
            is called with the number of the step (0 for the first one ever). With these two, step k sees the same
            batch whether or not learning was interrupted in between: fit(5 steps), save, load, fit(5 steps) gives
            the bits of fit(10 steps). A generator is read as it comes.
        steps : int, optional
            How many steps to take now; by default one pass over `batches`.
        progress : bool, optional
            Show a progress bar; by default only on a terminal.
        callback : callable, optional
            Called with the learner after every step; a true answer ends the call of `fit`.
        checkpoint : path, optional
            A file to save to while learning and where `fit` ends, also by an error or Ctrl-C; `load` goes on from it.
            What must not be lost is not replaced: a checkpoint there has to be of this learner's formulas and no
            further than it.
        every_steps, every_seconds : int, float, optional
            How often to save; whichever is due first, every 60 seconds where none is given.
        client : dask.distributed.Client, optional
            Its workers minimise and judge blocks of each batch; the weights learnt have the same bits without it, and
            for any number of workers, some of which may die (distributed.py, docs/scaling.md).

        Returns
        -------
        History
            Of all steps so far.

        Raises
        ------
        NumericalError
            With not_finite="stop" when a loss, a gradient or a weight is not finite, or with damping = 0 at a singular
            Hessian; with unconverged="raise". The step is not applied: weights and history are those of the step
            before.
        InputError, InputTypeError
            For batches that do not fit; for no batch at all; for a generator after `load`, since it cannot be
            brought to where it was.
        CheckpointError
            When a checkpoint must not be replaced, which is looked at before the first step, or cannot be written: the
            one that was there is kept, and so is the learner's state.
        MissingPackageError
            For a client without dask.distributed.
        KeyboardInterrupt
            After Ctrl-C, when the step at hand is complete and, with `checkpoint`, saved. A second Ctrl-C does not wait
            for the step: it is dropped, and what came before it is saved.

        Warns
        -----
        UserWarning
            When a generator ends before `steps`; for a step that is skipped.
        ZeroGradientWarning
            Once for each weight whose gradient has been exactly 0 for 100 steps.
        """
        _refuse_options("fit", unknown, _FIT_OPTIONS)
        count = check_steps(steps)
        with (
            after_the_step() as interrupted,
            judged_by(client, self, interrupted) as judged,
            saved(self, checkpoint, every_steps, every_seconds) as save_when_due,
            progress_bar(progress, self.steps, length(batches, count)) as show,
        ):
            for batch in stream(batches, count, first=self.steps, resumed=self._loaded):
                try:
                    loss, failed = self._step(batch, judged)
                except NotFiniteError as error:
                    if self.not_finite == "stop":
                        raise
                    loss, failed = self._skip(error), 0.0
                self._last = batch
                show(self.steps, loss, failed)
                save_when_due()
                if (callback is not None and callback(self)) or interrupted():
                    break
        return self.history

    def _step(self, batch: Any, judged_parts: JudgedParts) -> tuple[float, float]:
        """Take one step; returns the mean loss before it, and the share of the instances that did not converge."""
        state = self._state
        batch, rates = check_batch(batch, state.steps), self._rates
        if self.optimiser.varies:
            rates = self.optimiser.rates(self._coordinates.sizes, state.steps)
        judged, averages = self._judge(batch, judged_parts)
        with np.errstate(all="ignore"):
            gradient = self._coordinates.gradient(judged.gradient, state.weights)
            norm = math.sqrt(np.einsum("i,i", gradient, gradient))
            limit = math.inf if self.optimiser.clip is None else self.optimiser.clip
            clipped = norm > limit
            followed = gradient * (limit / norm) if clipped else gradient
            learnt, memory = self.optimiser.step(state.learnt, followed, state.optimiser, rates)
            learnt, memory = self._coordinates.project(learnt, memory, self.optimiser)
            shown = self._coordinates.shown_after(learnt, state.learnt, state.weights)
        if not (math.isfinite(norm) and np.isfinite(shown).all()):
            self._refuse(batch, gradient, shown)
        shares = judged.unconverged, judged.shifted, judged.dominated, judged.largest
        rate = self._rate if rates is self._rates else float(rates.max())
        damping = schedule.value_at(self.damping, state.steps)
        series = (judged.loss, norm, *shares, rate, damping, clipped, 0.0)
        self._record.write(state.steps, series, shown, state.learnt, gradient)
        self._state = _State(state.steps + 1, learnt, shown, memory, averages)
        if self._zeros.some or np.count_nonzero(gradient) < len(gradient):
            self._look_at_zeros(state.steps, judged.loss, gradient)
        return judged.loss, judged.unconverged

    def _judge(self, batch: Any, judged_parts: JudgedParts) -> tuple[Judgement, Averages]:
        """The loss and its gradient at the weights, and what the selection remembers then."""
        state = self._state
        weights = self._coordinates.unpack(state.weights)
        who = f"fit: {place(batch, state.steps)}"
        if self.selection is None:
            sums = judged_parts(batch, state.weights, state.steps, None)
            return combined(sums, self._model, self._coordinates, weights, who=who), state.averages

        def judged(scales: Scales) -> Sequence[SharedSums]:
            return judged_parts(batch, state.weights, state.steps, scales)

        known = self._model, self._coordinates, weights
        return combined_shares(self.selection, state.averages, judged, *known, who=who)

    def judge_part(self, batch: Batch, packed: Floats, step: int, scales: Scales | None = None) -> Sums | SharedSums:
        """Minimise and judge a batch, or a part of one, at these weights: all that a step does with data."""
        weights = self._coordinates.unpack(packed)
        minima = self._model.minimise(weights, batch, self._minimiser())
        settings: dict[str, Any] = {
            "step": step,
            "damping": schedule.value_at(self.damping, step),
            "unconverged": self.unconverged,
        }
        if self.selection is None:
            return judge(self._model, batch, minima, self._coordinates, weights, **settings)
        settings |= {"selection": self.selection, "scales": Scales() if scales is None else scales}
        return judge_minima(self._model, batch, minima, self._coordinates, weights, **settings)

    def for_workers(self) -> Learner:
        """A copy without state and history: what `judge_part` needs in another process."""
        other = copy(self)
        del other._state, other._record, other._zeros, other._last
        return other

    @property
    def model(self) -> Model:
        """Kernels, output and loss."""
        return self._model

    def _look_at_zeros(self, step: int, loss: float, gradient: Floats) -> None:
        """Report a gradient that has been exactly 0 for long; a loss of 0, or of no instance, has none of its own."""
        still = None if loss == 0.0 or math.isnan(loss) else self._zeros.look(step, gradient)
        if still is not None:
            zero_gradients.warn(still, self._coordinates, step, stacklevel=5)

    def _skip(self, error: NotFiniteError) -> float:
        """Leave a step out, which counts as one that changed nothing; returns its loss, NaN."""
        state = self._state
        series = (math.nan,) * (len(SERIES) - 1) + (1.0,)
        self._record.write(state.steps, series, state.weights, state.learnt, math.nan)
        self._state = replace(state, steps=state.steps + 1)
        warnings.warn(f"{error}. The step is skipped", UserWarning, stacklevel=3)
        return math.nan

    def _minimise(self, batch: Batch) -> Minima:
        return self._model.minimise(self._coordinates.unpack(self._state.weights), batch, self._minimiser())

    def _minimiser(self) -> dict[str, Any]:
        """What `minimise` is asked for."""
        options = self.minimiser
        return options if self.selection is None else {**options, **self.selection.options("eliminate" in options)}

    def _refuse(self, batch: AnyBatch, gradient: Floats, weights: Floats) -> None:
        """Raise for a step to weights that are not finite, or along such a gradient."""
        bad = ~np.isfinite(weights)
        number = int(np.flatnonzero(bad)[0]) if bad.any() else int(np.argmax(np.abs(gradient)))
        value = weights[number] if bad.any() else gradient[number]
        what = "would become" if bad.any() else "has a gradient of"
        name = self._coordinates.name_of(number) if bad.any() else self._coordinates.name_of_learnt(number)
        raise NotFiniteError(
            f"fit: {place(batch, self.steps)}: weight {name} {what} {value:g} "
            f"(largest gradient {np.abs(gradient).max():.3g}); weights after {self.steps} steps are "
            f"kept, history is intact; lower learning_rate or raise damping"
        )

    # ------------------------------------------------------------------------------------------ files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights, optimiser, history and settings to a file that is whole at every moment (checkpoint.py).

        The previous file, if sound, becomes PATH.1.

        Raises
        ------
        CheckpointError
            If it cannot be written; what was there is untouched.
        """
        state = self._state
        header = {
            **{what: resume.describe(energy) for what, energy in self._model.energies.items()},
            "optimiser": self.optimiser.describe(),
            "steps": state.steps,
            "weights": self._coordinates.describe(),
            "settings": {
                "damping": schedule.describe(self.damping),
                "unconverged": self.unconverged,
                "not_finite": self.not_finite,
                **self.minimiser,
            },
            "selection": None if self.selection is None else self.selection.describe(),
            **({"notes": self.notes} if self.notes else {}),
        }
        arrays = {
            "start": self._coordinates.start,
            "learnt": state.learnt,
            "weights": state.weights,
            "averages": state.averages.pack(),
            **{f"optimiser/{name}": array for name, array in state.optimiser.items()},
            **self._record.arrays(state.steps),
            **self._zeros.arrays(),
        }
        checkpoint.save(path, checkpoint.Checkpoint(header, arrays))

    @classmethod
    def load(cls, path: str | os.PathLike[str], kernel: Kernel | Output, loss: Loss) -> Learner:
        """A learner that goes on where the one that was saved stopped.

        Parameters
        ----------
        path
            What `save` wrote.
        kernel, loss
            Of the same formulas as then; names do not matter.

        Raises
        ------
        CheckpointError
            If the file is damaged, or of another energy or loss; the message says what differs.
        """
        file = checkpoint.load(path)
        header, arrays = file.header, file.arrays
        known = (header["settings"].get(name) for name in ("method", "reweightings"))
        model = Model(kernel, loss, f"checkpoint {path}", unrolled=differentiates_steps(kernel, *known))
        resume.check_all(path, header, model.energies)
        ends = np.cumsum([math.prod(weight["shape"]) for weight in header["weights"]])
        starts = np.split(arrays["start"], ends[:-1])
        learner = cls(
            kernel,
            loss,
            {
                weight["name"]: weight_from_description(start.reshape(weight["shape"]), weight)
                for weight, start in zip(header["weights"], starts, strict=True)
            },
            from_description(header["optimiser"]),
            selection=Selection.from_description(header["selection"]) if header.get("selection") else None,
            notes=header.get("notes"),
            **{name: schedule.from_description(setting) for name, setting in header["settings"].items()},
        )
        memory = {
            name.removeprefix("optimiser/"): array for name, array in arrays.items() if name.startswith("optimiser/")
        }
        learner._begin(
            learner._coordinates,
            _State(header["steps"], arrays["learnt"], arrays["weights"], memory, _averages(arrays)),
            Record.from_arrays(arrays, header["steps"]),
            ZeroGradients.from_arrays(arrays),
        )
        learner._loaded = True
        return learner

    @staticmethod
    def read_notes(path: str | os.PathLike[str]) -> dict[str, Any]:
        """The notes of the learner that was saved, without its formulas.

        Raises
        ------
        CheckpointError
            If the file is missing or damaged.
        """
        return dict(checkpoint.load(path).header.get("notes") or {})


def _refuse_options(who: str, unknown: Mapping[str, Any], allowed: Sequence[str]) -> None:
    for name in unknown:
        raise InputTypeError(f"{who}: no option {name!r}{nearest(name, allowed)}; options: {', '.join(allowed)}")


def _plain_notes(notes: Mapping[str, Any] | None, who: str) -> dict[str, Any]:
    """Notes as a checkpoint gives them back: a copy, through JSON."""
    try:
        plain = json.loads(json.dumps(dict(notes or {}), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputTypeError(f"{who}: notes must be a dict of JSON values, as texts and numbers ({error})") from None
    return dict(plain)


def _averages(arrays: Mapping[str, Any]) -> Averages:
    return Averages.unpack(arrays["averages"]) if "averages" in arrays else Averages()


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _plain_names(kernel: Kernel | Output, eliminate: Any, method: str, bounded: bool) -> list[str]:
    """The variables to be eliminated by name."""
    from ..runtime.eliminate import eliminated_names  # here: most learners need none of it

    if isinstance(kernel, Output):
        return [str(variable) for variable in eliminate]
    return list(eliminated_names(kernel, eliminate, method, bounded))


def _plain_bounds(value: Any) -> Any:
    """Bounds as lists and numbers, which a checkpoint can hold; None where there is no bound."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {name: _plain_bounds(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain_bounds(one) for one in value]
    return None if isinstance(value, float) and math.isinf(value) else value
