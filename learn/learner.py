"""Learning weights end to end: minimise a batch, judge the minima, follow the damped derivative, step.

One step, for the weights w and a batch of B instances:

    y_b  = argmin_y E(y; w, x_b)                                      minimise
    g    = 1/B sum_b dl(y_b)/dy . dy_b/dw                             the damped derivative (implicit.py)
    w   <- optimiser(w, g), then positive weights back above their floor

The gradient is that of the mean loss over the batch, so that a learning rate keeps its meaning when the batch grows.
Instances that `unconverged=` leaves out add nothing to the sum and still count in B.

A step is committed as a whole: an error or Ctrl-C leaves the weights, the optimiser and the history of the last
completed step, and learning can go on from there.
"""

from __future__ import annotations

import math
import operator
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike, NDArray

from ..compiler.kernel import Kernel
from ..energies.errors import (
    CheckpointError,
    InputError,
    InputTypeError,
    NameMissingError,
    NumericalError,
    nearest,
)
from ..runtime.minimise import minimise
from ..runtime.solution import Solution
from . import checkpoint
from .damped import LEFT_OUT, NOT_FINITE, SHIFTED, USED
from .history import History, Record
from .implicit import (
    check_damping,
    check_policy,
    damped_gradient,
    not_finite,
    refuse_singular,
    unconverged_summary,
    unusable,
)
from .loss import Loss
from .optimiser import SGD, Optimiser, State, from_description
from .progress import progress_bar
from .weight import Coordinates, Weight, coordinates_from_user

Floats = NDArray[np.float64]


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


_OPTIONS = ("weights", "optimiser", "damping", "unconverged", "method", "gtol", "max_iterations")

Batches = Batch | Iterable[Batch] | Callable[[int], Batch]


@dataclass(frozen=True)
class _State:
    """Everything that a step changes, replaced as a whole."""

    steps: int
    learnt: Floats
    weights: Floats
    optimiser: State


class Learner:
    """Learns the weights of an energy from what its minima should be.

    Parameters
    ----------
    kernel : Kernel
        The compiled energy.
    loss : Loss
        Judges the minima; its variables are some or all of the energy's.
    weights : dict
        The start of every weight: numbers or arrays of the declared shapes, or `Weight` for other units.
    optimiser : SGD
        By default SGD(learning_rate=1e-3).
    damping : float
        lambda of eq. 10, >= 0.
    unconverged : {"zero", "nan", "use", "raise"}
        What instances that did not converge contribute, as for `implicit_gradient`; "nan" stops learning with an
        error. Their share is in the history.
    method, gtol, max_iterations
        As for `minimise`.

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
        kernel: Kernel,
        loss: Loss,
        weights: Mapping[str, Any],
        optimiser: Optimiser | None = None,
        *,
        damping: float = 0.1,
        unconverged: str = "zero",
        method: str = "trust-region",
        gtol: float = 1e-8,
        max_iterations: int = 100,
        **unknown: Any,
    ) -> None:
        if not isinstance(kernel, Kernel):
            raise InputTypeError(f"learner: kernel must be what wb.compile returned (got {type(kernel).__name__})")
        who = f"learner of energy {kernel.name!r}"
        if optimiser is not None and (isinstance(optimiser, type) or not hasattr(optimiser, "rates")):
            raise InputTypeError(
                f"{who}: optimiser must be one such as wb.SGD(learning_rate=1e-3) (got {optimiser!r} of type "
                f"{type(optimiser).__name__})"
            )
        _refuse_options(who, unknown, _OPTIONS)
        _check_loss(kernel, loss, who)
        check_policy(unconverged, who)
        self.kernel, self.loss = kernel, loss
        self.damping, self.unconverged = check_damping(damping, who), unconverged
        self.optimiser: Optimiser = SGD(learning_rate=1e-3) if optimiser is None else optimiser
        self.minimiser: dict[str, Any] = {
            "method": method,
            "gtol": _plain(gtol),
            "max_iterations": _plain(max_iterations),
        }
        coordinates = coordinates_from_user(kernel.energy, weights)
        self._begin(
            coordinates,
            _State(
                0,
                coordinates.learnt(coordinates.start),
                coordinates.start,
                self.optimiser.start(coordinates.start.size),
            ),
            Record(coordinates.start),
        )
        self._loaded = False

    def _begin(self, coordinates: Coordinates, state: _State, record: Record) -> None:
        self._coordinates, self._state, self._record = coordinates, state, record
        self._rates = self.optimiser.rates(coordinates.sizes)

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

    # ------------------------------------------------------------------------------------------ learning

    def fit(
        self,
        batches: Batches,
        steps: int | None = None,
        *,
        progress: bool | None = None,
        callback: Callable[[Learner], Any] | None = None,
        **unknown: Any,
    ) -> History:
        """Take steps, one for each batch.

        Parameters
        ----------
        batches : Batch, iterable of Batch, or function
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

        Returns
        -------
        History
            Of all steps so far.

        Raises
        ------
        NumericalError
            When a loss, a gradient or a weight is not finite; with unconverged="raise"; with damping = 0 at a
            singular Hessian. The step is not applied: weights and history are those of the step before.
        InputError, InputTypeError
            For batches that do not fit; for no batch at all; for a generator after `load`, since it cannot be
            brought to where it was.

        Warns
        -----
        UserWarning
            When a generator ends before `steps`.
        """
        _refuse_options("fit", unknown, ("batches", "steps", "progress", "callback"))
        count = _check_steps(steps)
        with progress_bar(progress, self.steps, _length(batches, count)) as show:
            for batch in self._stream(batches, count):
                loss = self._step(batch)
                show(self.steps, loss)
                if callback is not None and callback(self):
                    break
        return self.history

    def _step(self, batch: Batch) -> float:
        """Take one step; returns the mean loss before it."""
        state = self._state
        loss, gradient, shares = self._judge(batch, state)
        with np.errstate(all="ignore"):
            gradient = self._coordinates.gradient(gradient, state.weights)
            learnt, memory = self.optimiser.step(state.learnt, gradient, state.optimiser, self._rates)
            learnt, memory = self._coordinates.project(learnt, memory, self.optimiser)
            weights = self._coordinates.shown(learnt)
        norm = math.sqrt(np.einsum("i,i", gradient, gradient))
        if not (math.isfinite(norm) and np.isfinite(weights).all()):
            self._refuse(batch, gradient, weights)
        self._record.write(state.steps, (loss, norm, *shares), weights)
        self._state = _State(state.steps + 1, learnt, weights, memory)
        return loss

    def _judge(self, batch: Batch, state: _State) -> tuple[float, Floats, tuple[float, float, float]]:
        """Mean loss, gradient by the weights as shown, and the shares unconverged, shifted and dominated."""
        if not isinstance(batch, Batch):
            raise InputTypeError(
                f"fit: step {state.steps} got a {type(batch).__name__}; batches must be wb.Batch("
                f"data={{...}}, targets={{...}})"
            )
        solution = self._minimise(batch)
        count = len(solution.y)
        if count == 0:
            raise InputError(f"fit: {self._place(batch)}: the batch has no instances")
        unconverged = unusable(solution)
        failed = int(np.count_nonzero(unconverged))
        codes = np.full(count, USED, dtype=np.int64)
        if failed:
            self._leave_out(batch, solution, unconverged, codes)
        values, slopes = self._loss_at(batch, solution)
        self._check_finite(batch, values, slopes, codes)
        gradient = damped_gradient(self.kernel, solution, slopes, self.damping, codes)
        if self.damping == 0.0:
            refuse_singular(self.kernel, solution, codes, f"fit: {self._place(batch)}")
        used = codes == USED
        shifted = 0
        if np.count_nonzero(used) < count:
            shifted = int(np.count_nonzero(codes == SHIFTED))
            failed = int(np.count_nonzero(unconverged | (codes == NOT_FINITE)))
            used |= codes == SHIFTED
            values = values[used]
        loss = float(np.add.reduce(values)) / len(values) if len(values) else math.nan
        dominated = np.count_nonzero(solution.reals[:, 1] < self.damping)
        return loss, gradient / count, (failed / count, shifted / count, dominated / count)

    def _minimise(self, batch: Batch) -> Solution:
        weights = self._coordinates.unpack(self._state.weights)
        return minimise(
            self.kernel, weights, batch.data, start=batch.start, candidates=batch.candidates, **self.minimiser
        )

    def _loss_at(self, batch: Batch, solution: Solution) -> tuple[Floats, Floats]:
        """The loss (B,) and dl/dy (B, m) at the minima."""
        inputs = self.loss.bind(batch.targets, batch.data, solution)
        count = len(solution.y)
        if inputs.batch is not None and inputs.batch not in (1, count):
            raise InputError(
                f"fit: {self._place(batch)}: targets have {inputs.batch} instances and the minima "
                f"{count}; unbatched arrays are shared"
            )
        columns = self._columns_of_loss(solution)
        if columns is None:
            return self.loss.evaluate(inputs, solution.y)
        values, slopes = self.loss.evaluate(inputs, np.ascontiguousarray(solution.y[:, columns]))
        spread = np.zeros_like(solution.y)
        spread[:, columns] = slopes
        return values, spread

    def _columns_of_loss(self, solution: Solution) -> NDArray[np.int64] | None:
        """Where the loss's variables are among the packed ones; None where they are the same."""
        wanted = self.loss.kernel.variables.names
        if wanted == self.kernel.variables.names:
            return None
        ends, parts = 0, {}
        for name, array in solution.variables.items():
            size = np.size(array) // len(solution.y)
            parts[name] = np.arange(ends, ends + size)
            ends += size
        return np.concatenate([parts[name] for name in wanted])

    # ------------------------------------------------------------------------------------------ what can go wrong

    def _leave_out(self, batch: Batch, solution: Solution, marked: NDArray[np.bool_], codes: NDArray[np.int64]) -> None:
        if self.unconverged in ("raise", "nan"):
            raise NumericalError(
                f"fit: {self._place(batch)}: {unconverged_summary(solution, marked)}; weights after "
                f"{self.steps} steps are kept; allow more iterations, or use unconverged='zero'"
            )
        codes[not_finite(solution) if self.unconverged == "use" else marked] = LEFT_OUT

    def _check_finite(self, batch: Batch, values: Floats, slopes: Floats, codes: NDArray[np.int64]) -> None:
        if np.count_nonzero(np.isfinite(values)) == len(values) and np.isfinite(slopes).all():
            return
        bad = ~(np.isfinite(values) & np.isfinite(slopes).all(axis=1)) & (codes == USED)
        if bad.any():
            instance = int(np.flatnonzero(bad)[0])
            what = (
                f"the loss is {values[instance]:g}"
                if not math.isfinite(values[instance])
                else "the gradient of the loss is not finite"
            )
            raise NumericalError(
                f"fit: {self._place(batch)}: {what} at instance {instance}; weights after "
                f"{self.steps} steps are kept, history is intact; check targets and loss, lower "
                f"learning_rate or raise damping"
            )

    def _refuse(self, batch: Batch, gradient: Floats, weights: Floats) -> None:
        bad = ~np.isfinite(weights)
        number = int(np.flatnonzero(bad)[0]) if bad.any() else int(np.argmax(np.abs(gradient)))
        value = weights[number] if bad.any() else gradient[number]
        what = "would become" if bad.any() else "has a gradient of"
        raise NumericalError(
            f"fit: {self._place(batch)}: weight {self._coordinates.name_of(number)} {what} {value:g} "
            f"(largest gradient {np.abs(gradient).max():.3g}); weights after {self.steps} steps are "
            f"kept, history is intact; lower learning_rate or raise damping"
        )

    def _place(self, batch: Batch) -> str:
        return f"step {self.steps}" + (f", batch {batch.name!r}" if batch.name else "")

    # ------------------------------------------------------------------------------------------ batches

    def _stream(self, batches: Batches, steps: int | None) -> Iterator[Batch]:
        """The batches of the coming steps."""
        first = self.steps
        if isinstance(batches, Batch):
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
            yield from self._consume(batches, steps)
        elif isinstance(batches, Sequence):
            if not batches:
                raise InputError("fit: batches is empty: 0 batches")
            for step in range(first, first + (len(batches) if steps is None else steps)):
                yield batches[step % len(batches)]
        elif steps is None:
            yield from batches
        else:
            yield from islice(_repeated(batches, first), steps)

    def _consume(self, batches: Iterator[Batch], steps: int | None) -> Iterator[Batch]:
        if self._loaded:
            raise InputError(
                f"fit: a generator cannot be brought to step {self.steps}, where the checkpoint was "
                f"made; pass a list or a function of the step (lambda step: next(generator) goes on with "
                f"whatever comes next)"
            )
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
                stacklevel=4,
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
            "energy": _describe(self.kernel.energy),
            "loss": _describe(self.loss.energy),
            "optimiser": self.optimiser.describe(),
            "steps": state.steps,
            "weights": self._coordinates.describe(),
            "settings": {"damping": self.damping, "unconverged": self.unconverged, **self.minimiser},
        }
        arrays = {
            "start": self._coordinates.start,
            "learnt": state.learnt,
            "weights": state.weights,
            **{f"optimiser/{name}": array for name, array in state.optimiser.items()},
            **self._record.arrays(state.steps),
        }
        checkpoint.save(path, checkpoint.Checkpoint(header, arrays))

    @classmethod
    def load(cls, path: str | os.PathLike[str], kernel: Kernel, loss: Loss) -> Learner:
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
        _check_same(path, header["energy"], kernel.energy, "energy")
        _check_same(path, header["loss"], loss.energy, "loss")
        weights, start = header["weights"], arrays["start"]
        coordinates = Coordinates(
            tuple(weight["name"] for weight in weights),
            tuple(tuple(weight["shape"]) for weight in weights),
            tuple(weight["scale"] for weight in weights),
            kernel.energy.positive,
            start,
        )
        learner = cls(
            kernel,
            loss,
            {
                name: Weight(value, scale)
                for (name, value), scale in zip(coordinates.unpack(start).items(), coordinates.scales, strict=True)
            },
            from_description(header["optimiser"]),
            **header["settings"],
        )
        memory = {
            name.removeprefix("optimiser/"): array for name, array in arrays.items() if name.startswith("optimiser/")
        }
        learner._begin(
            coordinates,
            _State(header["steps"], arrays["learnt"], arrays["weights"], memory),
            Record.from_arrays(arrays, header["steps"]),
        )
        learner._loaded = True
        return learner


def _check_loss(kernel: Kernel, loss: Loss, who: str) -> None:
    if not isinstance(loss, Loss):
        raise InputTypeError(
            f"{who}: loss must be a wb.Loss (got {type(loss).__name__}); for example "
            f"wb.Loss((t - mu)**2, variables=[t], targets=[mu])"
        )
    shapes = kernel.energy.shapes
    names = [str(variable) for variable in kernel.energy.variables]
    for variable in loss.energy.variables:
        if str(variable) in names and len(loss.energy.shapes[str(variable)]) != len(shapes[str(variable)]):
            raise InputError(
                f"{who}: loss {loss.name!r} reads {variable} with {len(loss.energy.shapes[str(variable)])} axes, but "
                f"the energy declares it with {len(shapes[str(variable)])}; use the same symbol in both"
            )
        if str(variable) not in names:
            raise NameMissingError(
                f"{who}: loss {loss.name!r} reads {variable}, which is no variable of the energy"
                f"{nearest(str(variable), names)}; variables: {', '.join(names)}"
            )


def _refuse_options(who: str, unknown: Mapping[str, Any], allowed: Sequence[str]) -> None:
    for name in unknown:
        raise InputTypeError(f"{who}: no option {name!r}{nearest(name, allowed)}; options: {', '.join(allowed)}")


def _check_steps(steps: Any) -> int | None:
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


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _length(batches: Any, steps: int | None) -> int | None:
    if steps is not None:
        return steps
    if isinstance(batches, Batch):
        return 1
    return len(batches) if hasattr(batches, "__len__") else None


def _repeated(batches: Iterable[Batch], skip: int) -> Iterator[Batch]:
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


def _describe(energy: Any) -> dict[str, Any]:
    return {"name": energy.name, "formula": energy.formula_key, "terms": _terms(energy)}


def _terms(energy: Any) -> list[str]:
    return sorted(str(term) for term in sp.Add.make_args(energy.expression))


def _check_same(path: Any, saved: Mapping[str, Any], energy: Any, what: str) -> None:
    if saved["formula"] == energy.formula_key:
        return
    then, now = set(saved["terms"]), set(_terms(energy))
    differing = "; ".join(
        [*(f"then {term}" for term in sorted(then - now)), *(f"now {term}" for term in sorted(now - then))]
    )
    detail = f"the expression differs: {differing}" if differing else "roles, shapes or definitions differ"
    raise CheckpointError(
        f"checkpoint {path} was made for {what} {saved['name']!r} ({saved['formula'][:8]}), not for "
        f"{energy.name!r} ({energy.formula_key[:8]}): {detail}; they are compared by formula, not "
        f"by name"
    )
