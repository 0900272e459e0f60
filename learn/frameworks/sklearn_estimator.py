"""`wb.sklearn`: an energy whose minimum is a prediction, as a regressor of scikit-learn.

    y(x) = argmin_y E(y; w, x)        w is learnt by `fit` from pairs (x, y)

A row of X is an instance: its columns are the data of the energy, its minimiser is what is predicted.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from numbers import Integral, Real
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from ...compiler.kernel import Kernel
from ...compiler.kernel import compile as compile_energy
from ...energies.energy import Energy
from ...energies.errors import CheckpointError, InputError, InputTypeError, NameMissingError, nearest
from ...energies.user_function import is_hashable
from ...runtime.minimise import minimise
from .. import checkpoint, resume
from ..batches import Batch
from ..full_batch import descend
from ..learner import Learner
from ..loss import Loss
from ..losses import squared_error
from ..model import Model
from ..optimiser import from_description
from ..output import Output
from ..weight import Weight

__all__ = ["EnergyRegressor"]

Floats = NDArray[np.float64]
Source = Kernel | Output

_COMPILED: dict[str, Kernel] = {}


class EnergyRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Predicts by minimising an energy whose weights are learnt.

    `EnergyRegressor()` is the linear model: the minimiser of (y - b - A x)^2 / 2.

    Parameters
    ----------
    energy : Energy, Kernel or Output, optional
    columns : dict, optional
        Which columns of X each array of the data is: `{"x": slice(0, 5), "z": 5}`, by number or, of a DataFrame, by
        name. A row's numbers are put into the declared shape, in C order. By default the only array of the data that
        `data` does not give is all of them.
    target : str, optional
        The variable, or the result of an output, that y is; by default the only one. Of more axes, y has one column for
        each number.
    weights : dict, optional
        The start of every weight, as for `Learner`.
    loss : Loss, optional
        With one target, which is y. By default the sum of squares.
    data : dict, optional
        Data that are the same for all rows, by name.
    start, candidates : dict, optional
        As for `minimise`, the same for all rows; by default the energy's own candidates, else 0 everywhere.
    optimiser : SGD, ..., optional
        By default L-BFGS over all rows at once, which needs no learning rate. With an optimiser `Learner` takes the
        steps.
    steps : int
        How many at most.
    batch_size : int, optional
        Rows in a step of an optimiser; by default all of them.
    damping, unconverged
        As for `Learner`.
    bounds, eliminate, method, gtol, max_iterations
        As for `minimise`.
    random_state : int, optional
        Draws the batches.

    Attributes
    ----------
    weights_ : dict
        The weights learnt.
    loss_curve_ : (k,)
        The mean loss before each step; of L-BFGS, the lowest so far.
    n_iter_ : int
        Steps taken.
    n_features_in_, feature_names_in_
        Of X, as everywhere in scikit-learn.

    Examples
    --------
    >>> import numpy as np, sympy as sp, wiberg as wb
    >>> n = sp.Symbol("n", integer=True, positive=True)
    >>> i, t, sigma = sp.Idx("i", n), sp.Symbol("t", real=True), sp.Symbol("sigma", positive=True)
    >>> x = sp.IndexedBase("x", shape=(n,))
    >>> energy = wb.Energy(
    ...     sp.Sum(wb.pseudo_huber((x[i] - t)**2, sigma), i), variables=[t], weights=[sigma], data=[x])
    >>> random = np.random.default_rng(0)
    >>> truth = random.standard_normal(200)
    >>> X = truth[:, None] + random.standard_t(1.5, (200, 9))   # nine measurements of each, with outliers
    >>> model = wb.sklearn.EnergyRegressor(energy, weights={"sigma": wb.Weight(20.0, scale="log")}).fit(X, truth)
    >>> print(f"sigma {model.weights_['sigma']:.2f}, R2 {model.score(X, truth):.2f}")
    sigma 0.57, R2 0.73
    """

    def __init__(
        self,
        energy: Energy | Source | None = None,
        columns: Mapping[str, Any] | None = None,
        *,
        target: str | None = None,
        weights: Mapping[str, Any] | None = None,
        loss: Loss | None = None,
        data: Mapping[str, Any] | None = None,
        start: Mapping[str, Any] | None = None,
        candidates: Mapping[str, Any] | None = None,
        optimiser: Any = None,
        steps: int = 200,
        batch_size: int | None = None,
        damping: float = 0.1,
        unconverged: str = "zero",
        bounds: Mapping[str, Any] | None = None,
        eliminate: Any = None,
        method: str = "trust-region",
        gtol: float = 1e-8,
        max_iterations: int = 100,
        random_state: int | None = None,
    ) -> None:
        self.energy = energy
        self.columns = columns
        self.target = target
        self.weights = weights
        self.loss = loss
        self.data = data
        self.start = start
        self.candidates = candidates
        self.optimiser = optimiser
        self.steps = steps
        self.batch_size = batch_size
        self.damping = damping
        self.unconverged = unconverged
        self.bounds = bounds
        self.eliminate = eliminate
        self.method = method
        self.gtol = gtol
        self.max_iterations = max_iterations
        self.random_state = random_state

    # ------------------------------------------------------------------------------------------ learning

    def fit(self, X: Any, y: Any) -> EnergyRegressor:
        """Learn the weights from rows of X, (B, features), and y, (B,) or (B, k).

        Raises
        ------
        InputError, InputTypeError, NameMissingError, NumericalError
            As for `Learner`; for columns that do not fit the data of the energy.

        Warns
        -----
        ConvergenceWarning
            When L-BFGS was not done after `steps`.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        y = np.asarray(y, dtype=np.float64)
        self._single = y.ndim == 1
        source = self._source()
        if not self._shape_of(source):
            y = column_or_1d(y, warn=True)
            self._single = True
        weights = self._first_weights(X, y)
        rows = y.reshape(_solved(self._shape_of(source), y[0].size, "y", len(y)))
        loss = self._loss(source)
        batch = Batch(
            data=self._data(source, X), targets={loss.targets[0]: rows}, candidates=self.candidates, start=self.start
        )
        learner = Learner(
            source, loss, weights, self.optimiser, damping=self.damping, unconverged=self.unconverged, **self._options
        )
        if self.candidates is None and self.start is None:
            batch = Batch(data=batch.data, targets=batch.targets, start=self._zeros(source, weights, batch.data))
        if self.optimiser is None:
            self._by_lbfgs(learner, batch, weights)
        else:
            history = learner.fit(self._batches(batch, len(y)), steps=self.steps, progress=False)
            self.weights_, self.n_iter_, self.loss_curve_ = learner.weights, learner.steps, np.array(history.loss)
        return self

    def _by_lbfgs(self, learner: Learner, batch: Batch, weights: Mapping[str, Any]) -> None:
        for name, weight in weights.items():
            if isinstance(weight, Weight) and any(
                f.name not in ("value", "scale") and not _is_default(getattr(weight, f.name), f) for f in fields(weight)
            ):
                raise InputError(
                    f"EnergyRegressor: weight {name}: {weight!r} is for the steps of an optimiser; give "
                    "optimiser=wb.SGD(...)"
                )
        learnt = descend(
            learner._model,
            learner._coordinates,
            batch,
            learner.minimiser,
            damping=self.damping,
            unconverged=self.unconverged,
            iterations=self.steps,
        )
        self.weights_, self.n_iter_ = learnt.weights, learnt.iterations
        self.loss_curve_ = np.array(learnt.losses)
        if learnt.limited:
            warnings.warn(
                f"EnergyRegressor: not done after {self.steps} steps; raise steps=, or scale the data",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _batches(self, batch: Batch, count: int) -> Any:
        """The rows in a new order for each pass, as a function of the step."""
        size = count if self.batch_size is None else min(int(self.batch_size), count)
        if size == count:
            return [batch]
        seed, steps = 0 if self.random_state is None else int(self.random_state), count // size
        data: dict[str, Any] = dict(batch.data)
        targets: dict[str, Any] = dict(batch.targets)

        def at(step: int) -> Batch:
            order = np.random.default_rng([seed, step // steps]).permutation(count)
            rows = np.sort(order[step % steps * size : (step % steps + 1) * size])
            own = set(self.data or {})
            return Batch(
                data={name: array if name in own else array[rows] for name, array in data.items()},
                targets={name: array[rows] for name, array in targets.items()},
                start=batch.start,
                candidates=batch.candidates,
            )

        return at

    # ------------------------------------------------------------------------------------------ predicting

    def predict(self, X: Any) -> Floats:
        """The minimisers for rows of X: (B,), or (B, k)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        source = self._source()
        data = self._data(source, X)
        start = self.start
        if start is None and self.candidates is None:
            start = self._zeros(source, self.weights_, data)
        solution = minimise(
            source,
            {name: self.weights_[name] for name in _weight_names(source)},
            data,
            start=start,
            candidates=self.candidates,
            **self._options,
        )
        found = np.asarray(solution.variables[self._target(source)])
        shape = self._shape_of(source)
        if found.ndim == len(shape):
            found = np.broadcast_to(found, (len(X), *found.shape))
        result: Floats = found.reshape(len(X)) if self._single else found.reshape(len(X), -1)
        return result

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = self.energy is None
        tags.target_tags.single_output = True
        return tags

    # ------------------------------------------------------------------------------------------ files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write parameters and what was learnt to a checked file, without pickle.

        Of energy and loss there is only what tells others from them: `load` is given both again.

        Raises
        ------
        CheckpointError
            If it cannot be written.
        """
        check_is_fitted(self)
        source = self._source()
        model = Model(source, self._loss(source), "EnergyRegressor.save")
        settings = {k: _to_json(v, k) for k, v in self.get_params(deep=False).items() if k not in ("energy", "loss")}
        header = {
            **{what: resume.describe(energy) for what, energy in model.energies.items()},
            "kind": "EnergyRegressor",
            "settings": settings,
            "default": self.energy is None,
            "default loss": self.loss is None,
            "single": bool(self._single),
            "steps": int(self.n_iter_),
            "features": int(self.n_features_in_),
            "feature names": [str(name) for name in getattr(self, "feature_names_in_", [])],
        }
        arrays = {f"weights/{name}": np.asarray(value, dtype=np.float64) for name, value in self.weights_.items()}
        checkpoint.save(path, checkpoint.Checkpoint(header, {**arrays, "losses": self.loss_curve_}))

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], energy: Energy | Source | None = None, loss: Loss | None = None
    ) -> EnergyRegressor:
        """The regressor that was saved, with the energy and loss that it was made with.

        Raises
        ------
        CheckpointError
            If the file is damaged, or of another energy or loss; the message says what differs.
        """
        file = checkpoint.load(path)
        header = file.header
        if header.get("kind") != "EnergyRegressor":
            raise CheckpointError(f"{path} is the checkpoint of something else; for a learner use wb.Learner.load")
        for given, what, key in ((energy, "energy", "default"), (loss, "loss", "default loss")):
            if given is None and not header[key]:
                raise CheckpointError(f"{path} was saved with {what}=; pass the same to load")
            if given is not None and header[key]:
                raise CheckpointError(f"{path} was saved without {what}=; leave it out of load")
        made = cls(energy, loss=loss, **{name: _from_json(value) for name, value in header["settings"].items()})
        made._single, made.n_iter_, made.n_features_in_ = header["single"], header["steps"], header["features"]
        if header["feature names"]:
            made.feature_names_in_ = np.array(header["feature names"], dtype=object)
        made.weights_ = {
            name.removeprefix("weights/"): float(array) if array.ndim == 0 else array
            for name, array in file.arrays.items()
            if name.startswith("weights/")
        }
        made.loss_curve_ = file.arrays["losses"]
        source = made._source()
        resume.check_all(path, header, Model(source, made._loss(source), f"checkpoint {path}").energies)
        return made

    # ------------------------------------------------------------------------------------------ from rows to data

    @property
    def _options(self) -> dict[str, Any]:
        """For `minimise`."""
        options = {"method": self.method, "gtol": self.gtol, "max_iterations": self.max_iterations}
        given = {"bounds": self.bounds, "eliminate": self.eliminate}
        return options | {name: value for name, value in given.items() if value is not None}

    def _source(self) -> Source:
        energy = self.energy
        if energy is None:
            return _linear(self._single)
        if isinstance(energy, Energy):
            if not is_hashable(energy):
                return compile_energy(energy)
            key = f"{energy.key} {energy.name}"
            if key not in _COMPILED:
                if len(_COMPILED) > 100:
                    _COMPILED.clear()
                _COMPILED[key] = compile_energy(energy)
            return _COMPILED[key]
        if isinstance(energy, (Kernel, Output)):
            return energy
        raise InputTypeError(
            f"EnergyRegressor: energy must be a wb.Energy, a kernel or a wb.Output (got {type(energy).__name__})"
        )

    def _target(self, source: Source) -> str:
        names = source.variables.names if isinstance(source, Kernel) else source.names
        if self.target is None:
            if len(names) > 1:
                raise InputError(
                    f"EnergyRegressor: which of {', '.join(names)} is y? give target={names[0]!r}, or another of them"
                )
            return names[0]
        if self.target not in names:
            raise NameMissingError(
                f"EnergyRegressor: target={self.target!r} is none of {', '.join(names)}{nearest(self.target, names)}"
            )
        return self.target

    def _shape_of(self, source: Source) -> tuple[Any, ...]:
        """The declared shape of what y is, with the axes of a family."""
        return _target_shape(source, self._target(source))

    def _loss(self, source: Source) -> Loss:
        if self.loss is None:
            return _squares(self._target(source), self._shape_of(source))
        if not isinstance(self.loss, Loss) or len(self.loss.targets) != 1:
            raise InputTypeError("EnergyRegressor: loss must be a wb.Loss with one target, which stands for y")
        return self.loss

    def _first_weights(self, X: Floats, y: Floats) -> dict[str, Any]:
        if self.energy is not None:
            return dict(self.weights or {})
        if self._single:
            return {"A": np.zeros(X.shape[1]), "b": float(y.mean()), **(self.weights or {})}
        return {"A": np.zeros((y.shape[1], X.shape[1])), "b": y.mean(axis=0), **(self.weights or {})}

    def _data(self, source: Source, X: Floats) -> dict[str, Any]:
        """The data of the energy: what columns of X are, and what is the same for all rows."""
        shapes = _data_shapes(source)
        shared = dict(self.data or {})
        columns = self.columns
        if columns is None:
            left = [name for name in shapes if name not in shared]
            if len(left) != 1:
                example = ", ".join(f"{name!r}: ..." for name in left)
                raise InputError(
                    f"EnergyRegressor of {source.name!r}: say with columns= which columns of X each of "
                    f"{', '.join(left) or 'the data (the energy has none)'} is: columns={{{example}}}"
                )
            columns = {left[0]: slice(None)}
        for name in columns:
            if name not in shapes:
                raise NameMissingError(
                    f"EnergyRegressor of {source.name!r}: columns= names {name!r}, which is no data of the energy"
                    f"{nearest(str(name), shapes)}; data: {', '.join(shapes) or 'none'}"
                )
        for name, which in columns.items():
            part = self._columns(X, which, name)
            shape, integer = shapes[name]
            part = part.reshape(_solved(shape, part.shape[1], name, len(X)))
            if integer:
                if not (part == np.floor(part)).all():
                    raise InputError(
                        f"EnergyRegressor of {source.name!r}: {name} is index data, and its columns are no integers"
                    )
                part = part.astype(np.int64)
            shared[name] = np.ascontiguousarray(part)
        return shared

    def _columns(self, X: Floats, which: Any, name: str) -> Floats:
        names = list(getattr(self, "feature_names_in_", []))

        def number(column: Any) -> int:
            if isinstance(column, str):
                if column not in names:
                    raise NameMissingError(
                        f"EnergyRegressor: columns[{name!r}] has {column!r}, which is no column of X"
                        f"{nearest(column, names)}"
                    )
                return names.index(column)
            return int(column)

        if isinstance(which, slice) or (np.asarray(which).dtype == bool and np.shape(which) == X.shape[1:]):
            chosen_columns: Floats = X[:, which]
            return chosen_columns
        chosen = [which] if isinstance(which, (str, Integral)) else list(which)
        numbers = [number(column) for column in chosen]
        wrong = [k for k in numbers if not -X.shape[1] <= k < X.shape[1]]
        if wrong:
            raise InputError(f"EnergyRegressor: columns[{name!r}] has {wrong[0]}; X has {X.shape[1]} columns")
        return X[:, numbers]

    def _zeros(self, source: Source, weights: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any] | None:
        """A start of zeros for kernels that declare no candidates."""
        start: dict[str, Any] = {}
        for kernel in (source,) if isinstance(source, Kernel) else source.kernels:
            if kernel.energy.candidates:
                continue
            plain = {name: w.value if isinstance(w, Weight) else w for name, w in weights.items()}
            inputs = kernel.bind(
                {name: plain[name] for name in kernel.weights.names if name in plain},
                {str(d): data[str(d)] for d in kernel.energy.data if str(d) in data},
            )
            start |= kernel.variables.unpack(np.zeros(inputs.m), inputs.sizes)
        return start or None


# ------------------------------------------------------------------------------------- declarations


@lru_cache
def _linear(single: bool) -> Kernel:
    """(y - b - A x)^2 / 2 for a number, or for several."""
    d, k = sp.symbols("d k", integer=True, positive=True)
    i, j = sp.Idx("i", d), sp.Idx("j", k)
    x = sp.IndexedBase("x", shape=(d,))
    if single:
        y, b, a = sp.Symbol("y", real=True), sp.Symbol("b", real=True), sp.IndexedBase("A", shape=(d,))
        square = (y - b - sp.Sum(a[i] * x[i], i)) ** 2 / 2
    else:
        y, b, a = (sp.IndexedBase(name, shape=s) for name, s in (("y", (k,)), ("b", (k,)), ("A", (k, d))))
        square = sp.Sum((y[j] - b[j] - sp.Sum(a[j, i] * x[i], i)) ** 2, j) / 2
    return compile_energy(Energy(square, variables=[y], weights=[a, b], data=[x], name="linear"))


@lru_cache(maxsize=100)
def _squares(name: str, shape: tuple[Any, ...]) -> Loss:
    target = f"{name} in y"
    if not shape:
        return squared_error(sp.Symbol(name, real=True), sp.Symbol(target, real=True))
    return squared_error(sp.IndexedBase(name, shape=shape), sp.IndexedBase(target, shape=shape))


def _weight_names(source: Source) -> tuple[str, ...]:
    return source.weights.names if isinstance(source, Kernel) else tuple(source.weights)


def _target_shape(source: Source, name: str) -> tuple[Any, ...]:
    if isinstance(source, Output):
        return source.shape_of(name)
    return (*source.energy.family, *source.energy.shapes[name])


def _data_shapes(source: Source) -> dict[str, tuple[tuple[Any, ...], bool]]:
    """The declared shape of each array of the data, and whether it is index data."""
    if isinstance(source, Kernel):
        real = source.data.names
        return {str(d): (tuple(source.energy.shapes[str(d)]), str(d) not in real) for d in source.energy.data}
    found: dict[str, tuple[tuple[Any, ...], bool]] = {}
    for kernel in source.kernels:
        found |= _data_shapes(kernel)
    for name, symbol in source.data.items():
        found.setdefault(name, (tuple(getattr(symbol, "shape", None) or ()), bool(symbol.assumptions0.get("integer"))))
    return found


def _solved(shape: tuple[Any, ...], size: int, name: str, rows: int) -> tuple[int, ...]:
    """(rows, *shape) where at most one extent of the shape is not a number; it follows from the size."""
    numbers = [int(e) if sp.sympify(e).is_Integer else -1 for e in shape]
    known = math.prod(n for n in numbers if n >= 0)
    unknown = numbers.count(-1)
    fits = known == size if unknown == 0 else unknown == 1 and known > 0 and size % known == 0
    if not fits:
        raise InputError(
            f"EnergyRegressor: {name} of the declared shape ({', '.join(map(str, shape))}) cannot be made of {size} "
            f"column(s) of each row{'; declare all of its extents but one as numbers' if unknown > 1 else ''}"
        )
    return (rows, *(size // known if n < 0 else n for n in numbers))


def _is_default(value: Any, field: Any) -> bool:
    return bool(value is field.default or value == field.default)


# ------------------------------------------------------------------------------------- parameters in files


def _to_json(value: Any, name: str) -> Any:
    """A parameter as JSON values; what is no plain value becomes `{kind: ...}`."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, sp.Basic):
        return str(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(float(value)) else {"float": repr(float(value))}
    if isinstance(value, slice):
        return {"slice": [_to_json(part, name) for part in (value.start, value.stop, value.step)]}
    if isinstance(value, Mapping):
        return {"dict": [[str(key), _to_json(entry, name)] for key, entry in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__ if type(value) in (list, tuple) else "list": [_to_json(v, name) for v in value]}
    if isinstance(value, Weight):
        return {"Weight": {f.name: _to_json(getattr(value, f.name), name) for f in fields(value)}}
    if hasattr(value, "describe") and not isinstance(value, type):
        return {"optimiser": value.describe()}
    if hasattr(value, "__array__"):
        return {"array": _to_json(np.asarray(value).tolist(), name)}
    raise CheckpointError(f"EnergyRegressor.save: parameter {name} = {value!r} cannot be written without pickle")


def _from_json(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    ((kind, inner),) = value.items()
    if kind == "dict":
        return {key: _from_json(entry) for key, entry in inner}
    if kind in ("list", "tuple", "slice"):
        entries = [_from_json(entry) for entry in inner]
        return entries if kind == "list" else tuple(entries) if kind == "tuple" else slice(*entries)
    if kind == "Weight":
        return Weight(**{key: _from_json(entry) for key, entry in inner.items()})
    if kind == "optimiser":
        return from_description(inner)
    return float(inner) if kind == "float" else np.array(_from_json(inner))
