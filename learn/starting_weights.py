"""The starting weights of a learner, checked against the declarations of its energies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..energies.errors import InputError, InputTypeError, NameMissingError, nearest
from .constraints import Orthonormal, Simplex
from .coordinates import Coordinates
from .weight import Weight

Floats = NDArray[np.float64]

CLOSE = 1e-6
"""A start this close to a simplex or to orthonormal columns is taken for one, and put there."""


def coordinates_from_user(energy: Any, weights: Mapping[str, Any]) -> Coordinates:
    """Check the starting weights of a learner against the declaration of its energy."""
    who, names = f"learner of energy {energy.name!r}", tuple(str(weight) for weight in energy.weights)
    if not names:
        raise InputError(f"{who}: the energy has no weights, so there is nothing to learn")
    if not isinstance(weights, Mapping):
        raise InputTypeError(
            f"{who}: weights must be a dict by name (got {type(weights).__name__}); needed: {', '.join(names)}"
        )
    for name in weights:
        if name not in names:
            raise NameMissingError(
                f"{who}: unknown weight {name!r}{nearest(str(name), names)}; weights: {', '.join(names)}"
            )
    missing = [name for name in names if name not in weights]
    if missing:
        raise NameMissingError(
            f"{who}: weight {', '.join(missing)} is missing; every weight needs a starting value "
            f"(given: {', '.join(weights) or 'none'})"
        )
    given = {name: weights[name] if isinstance(weights[name], Weight) else Weight(weights[name]) for name in names}
    values: dict[str, Floats] = {}
    for name, weight in given.items():
        if not weight.tied:
            positive = name in energy.positive or any(
                other.tie == name and tied in energy.positive for tied, other in given.items() if other.tied
            )
            values[name] = _value(weight, name, tuple(energy.shapes[name]), positive, who)
    for name, weight in given.items():
        if weight.tied:
            values[name] = _tied_value(name, weight.tie, given, values, len(energy.shapes[name]), who)
    start = np.concatenate([values[name].ravel() for name in names])
    shapes = tuple(values[name].shape for name in names)
    coordinates = Coordinates(names, shapes, tuple(given.values()), energy.positive, start)
    if coordinates.count == 0:
        raise InputError(f"{who}: all weights are fixed, so there is nothing to learn")
    return coordinates


def _tied_value(
    name: str, other: str, given: Mapping[str, Weight], values: Mapping[str, Floats], axes: int, who: str
) -> Floats:
    """The value of a weight that is another one."""
    if other not in given:
        raise NameMissingError(
            f"{who}: weight {name} is tied to {other!r}, which is no weight{nearest(other, list(given))}; weights: "
            f"{', '.join(given)}"
        )
    if other not in values or given[other].tied:
        raise InputError(f"{who}: weight {name} is tied to {other}, which is tied itself; tie both to one that is not")
    if values[other].ndim != axes:
        raise InputError(
            f"{who}: weight {name} is tied to {other}, but has {axes} axes and {other} has {values[other].ndim}; tied "
            f"weights have one shape"
        )
    return values[other]


def _value(weight: Weight, name: str, declared: tuple[Any, ...], positive: bool, who: str) -> Floats:
    try:
        if np.iscomplexobj(weight.value):
            raise TypeError("it is complex")
        value = np.array(weight.value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputTypeError(f"{who}: weight {name} is not an array of numbers ({error})") from None
    fits = value.ndim == len(declared) and all(
        not getattr(extent, "is_Integer", False) or int(extent) == size
        for extent, size in zip(declared, value.shape, strict=True)
    )
    if not fits:
        batched = value.ndim == len(declared) + 1
        hint = "; a leading batch axis means per-instance weights, which cannot be learnt here" if batched else ""
        shape = f"({', '.join(map(str, declared))}{',' if len(declared) == 1 else ''})"
        raise InputError(f"{who}: weight {name} must have its declared shape {shape}; got {value.shape}{hint}")
    bad = ~np.isfinite(value)
    if bad.any():
        raise InputError(f"{who}: weight {name} is not finite{_place(bad)}")
    if (positive or weight.scale == "log") and not (value > 0.0).all():
        reason = "is learnt as a logarithm" if weight.scale == "log" else "is declared positive"
        raise InputError(f"{who}: weight {name} = {value[value <= 0.0].flat[0]} but it {reason}{_place(value <= 0.0)}")
    _check_shapes(weight, name, value.shape, who)
    if weight.bounds is not None:
        low, high = weight.limits
        outside = (value <= low) | (value >= high) if weight.scale == "logit" else (value < low) | (value > high)
        if outside.any():
            where = "within" if weight.scale != "logit" else "inside, not on,"
            raise InputError(
                f"{who}: weight {name} = {value[outside].flat[0]} must start {where} its bounds "
                f"{weight.bounds}{_place(outside)}"
            )
    if weight.tie is not None:
        return _same_where_tied(weight, name, value, who)
    if weight.simplex:
        return _on_simplex(name, value, who)
    if weight.orthonormal:
        put = Orthonormal().project(value)
        if np.abs(put - value).max(initial=0.0) > CLOSE:
            raise InputError(
                f"{who}: the columns of weight {name} are not orthonormal; start for example from np.linalg.qr(A)[0]"
            )
        return put
    return value


def _check_shapes(weight: Weight, name: str, shape: tuple[int, ...], who: str) -> None:
    """Refuse settings that do not fit the shape of the weight."""
    settings = {"fixed": np.shape(weight.fixed)}
    if weight.bounds is not None:
        settings["bounds"] = np.broadcast_shapes(*(edge.shape for edge in weight.limits))
    for what, given in settings.items():
        if given and given != shape:
            raise InputError(f"{who}: {what} of weight {name} has shape {given}; must be one for all, or {shape}")
    if weight.tie is not None and np.shape(weight.tie) != shape:
        raise InputError(
            f"{who}: tie of weight {name} has shape {np.shape(weight.tie)}; labels are of its shape {shape}"
        )
    if weight.simplex and not shape:
        raise InputError(f"{who}: weight {name} has simplex=True but is one number; that would be 1 for ever")
    if weight.orthonormal and (len(shape) < 2 or shape[-2] < shape[-1]):
        raise InputError(
            f"{who}: weight {name} has orthonormal=True and shape {shape}; must be (..., n, k) with n >= k columns"
        )


def _same_where_tied(weight: Weight, name: str, value: Floats, who: str) -> Floats:
    labels = np.ravel(weight.tie)
    _, first, label = np.unique(labels, return_index=True, return_inverse=True)
    same = value.ravel()[first[label.ravel()]].reshape(value.shape)
    if (same != value).any():
        raise InputError(
            f"{who}: entries of weight {name} that tie= makes one number start at different ones{_place(same != value)}"
        )
    return value


def _on_simplex(name: str, value: Floats, who: str) -> Floats:
    total = value.sum(axis=-1, keepdims=True)
    if (value < 0.0).any() or (np.abs(total - 1.0) > CLOSE).any():
        raise InputError(
            f"{who}: weight {name} has simplex=True: entries must be >= 0 with sum 1 over the last axis (got sums "
            f"{np.squeeze(total, -1)}, least entry {value.min():g})"
        )
    if Simplex(np.zeros(())).holds(value):
        return value
    put: Floats = value / total
    return put


def _place(marked: NDArray[np.bool_]) -> str:
    if marked.ndim == 0:
        return ""
    return f", first at [{', '.join(str(int(k)) for k in np.argwhere(marked)[0])}]"
