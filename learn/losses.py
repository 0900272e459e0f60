"""Losses that are asked for again and again, as formulas of a variable and what it should be.

    squared_error          sum of (y - target)^2                        smooth
    absolute_error         sum of |y - target|                          kink at 0: derivative 0 there
    pseudo_huber_error     sum of s^2 (sqrt(1 + ((y - target)/s)^2) - 1) smooth
    iou_loss               mean of 1 - intersection / union             kinks where edges of boxes coincide
    generalised_iou_loss   the same, + (hull - union) / hull            the same
    mean_joint_distance    mean of |y_j - target_j|                     kink at 0: derivative 0 there

Each is a `Loss` like one written by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import sympy as sp

from ..energies.errors import DeclarationError, InputError, InputTypeError
from ..energies.robust import pseudo_huber
from .loss import Loss


def squared_error(variable: Any, target: Any) -> Loss:
    """The sum of (variable - target)^2 over all entries.

    Parameters
    ----------
    variable, target : Symbol, or IndexedBase of equal shapes

    Examples
    --------
    >>> import sympy as sp
    >>> t, mu = sp.symbols("t mu", real=True)
    >>> squared_error(t, mu).value({"t": 3.0}, {"mu": 1.0})
    4.0
    """
    return _entrywise(lambda difference: difference**2, variable, target, "squared_error")


def absolute_error(variable: Any, target: Any) -> Loss:
    """The sum of |variable - target| over all entries; its derivative where they are equal is 0.

    Parameters
    ----------
    variable, target : Symbol, or IndexedBase of equal shapes

    Examples
    --------
    >>> import sympy as sp
    >>> y, truth = sp.IndexedBase("y", shape=(2,)), sp.IndexedBase("truth", shape=(2,))
    >>> loss = absolute_error(y, truth)
    >>> loss.value({"y": [3.0, 2.0]}, {"truth": [1.0, 5.0]})
    5.0
    >>> print(loss.gradient({"y": [3.0, 2.0]}, {"truth": [1.0, 5.0]})["y"])
    [ 1. -1.]
    """
    return _entrywise(sp.Abs, variable, target, "absolute_error")


def pseudo_huber_error(variable: Any, target: Any, scale: float = 1.0) -> Loss:
    """The sum of scale^2 (sqrt(1 + ((variable - target) / scale)^2) - 1) over all entries.

    Squares (half of them) well below `scale`, absolute values times `scale` well above it; smooth everywhere.

    Parameters
    ----------
    variable, target : Symbol, or IndexedBase of equal shapes
    scale : float
        > 0.

    Examples
    --------
    >>> import sympy as sp
    >>> t, mu = sp.symbols("t mu", real=True)
    >>> round(pseudo_huber_error(t, mu, scale=3.0).value({"t": 5.0}, {"mu": 1.0}), 12)
    6.0
    """
    if not isinstance(scale, Real) or isinstance(scale, bool):
        raise InputTypeError(f"pseudo_huber_error: scale must be a number (got {scale!r})")
    if not 0.0 < float(scale) < math.inf:
        raise InputError(f"pseudo_huber_error: scale must be > 0 and finite (got {float(scale):g})")
    return _entrywise(
        lambda difference: pseudo_huber(difference**2, float(scale)), variable, target, "pseudo_huber_error"
    )


def iou_loss(variable: Any, target: Any) -> Loss:
    """The mean over boxes of 1 - IoU: intersection over union, 0 for equal boxes and 1 for boxes that do not overlap.

    Boxes are (left, top, right, bottom), with left <= right and top <= bottom in whatever direction the axes point: x
    and y of the one corner, then of the other. A box of the variable with right < left or bottom < top has area 0.

    Parameters
    ----------
    variable, target : IndexedBase of equal shapes (..., 4), or four symbols of equal shapes each
        The target must have an area > 0.

    Notes
    -----
    Where boxes do not overlap (or only touch), the loss is 1 and its derivative 0: nothing pulls them together; see
    `generalised_iou_loss`. Kinks are where edges coincide; there each derivative lies between those of the two sides.

    Examples
    --------
    >>> import sympy as sp
    >>> box, truth = sp.IndexedBase("box", shape=(4,)), sp.IndexedBase("truth", shape=(4,))
    >>> loss = iou_loss(box, truth)
    >>> round(loss.value({"box": [0, 0, 2, 2]}, {"truth": [1, 0, 3, 2]}), 6)
    0.666667
    >>> print(loss.gradient({"box": [0, 0, 1, 1]}, {"truth": [2, 2, 3, 3]})["box"])
    [0. 0. 0. 0.]
    """

    def one(box: list[Any], other: list[Any]) -> Any:
        intersection, union = _overlap(box, other)
        return 1 - intersection / union

    return _mean_over_boxes(one, variable, target, "iou_loss")


def generalised_iou_loss(variable: Any, target: Any) -> Loss:
    """The mean over boxes of 1 - GIoU = 1 - IoU + (hull - union) / hull, in [0, 2] (Rezatofighi et al., CVPR 2019).

    The hull is the smallest box around both. Where boxes do not overlap, the loss is 2 - union / hull, whose derivative
    pulls them together, and lets the box grow towards the other.

    Parameters
    ----------
    variable, target
        Boxes as for `iou_loss`.

    Notes
    -----
    Kinks as for `iou_loss`.

    Examples
    --------
    >>> import sympy as sp
    >>> box, truth = sp.IndexedBase("box", shape=(4,)), sp.IndexedBase("truth", shape=(4,))
    >>> loss = generalised_iou_loss(box, truth)
    >>> loss.value({"box": [0, 0, 1, 1]}, {"truth": [[1, 0, 2, 1], [3, 0, 4, 1]]})
    array([1. , 1.5])
    """

    def one(box: list[Any], other: list[Any]) -> Any:
        intersection, union = _overlap(box, other)
        width = sp.Max(box[2], other[2]) - sp.Min(box[0], other[0])
        height = sp.Max(box[3], other[3]) - sp.Min(box[1], other[1])
        return 2 - intersection / union - union / (width * height)

    return _mean_over_boxes(one, variable, target, "generalised_iou_loss")


def mean_joint_distance(variable: Any, target: Any) -> Loss:
    """The mean over joints of the Euclidean distance; its derivative by a joint that is where it should be is 0.

    Parameters
    ----------
    variable, target : IndexedBase of equal shapes (..., d)
        The last axis holds the coordinates of a joint (or of any point); a shape (d,) is one joint.

    Examples
    --------
    >>> import sympy as sp
    >>> y, truth = sp.IndexedBase("y", shape=(2, 3)), sp.IndexedBase("truth", shape=(2, 3))
    >>> loss = mean_joint_distance(y, truth)
    >>> pose, wanted = [[0.0, 0.0, 0.0], [1.0, 3.0, 4.0]], [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    >>> loss.value({"y": pose}, {"truth": wanted})
    2.5
    >>> print(loss.gradient({"y": pose}, {"truth": wanted})["y"][1])
    [-0.   0.3  0.4]
    """
    name = "mean_joint_distance"
    shape = _common_shape([variable, target], name)
    if not shape:
        raise DeclarationError(f"{name}: {variable} is one number; joints are arrays (..., d) of coordinates")
    indices, axis = _indices(shape[:-1]), sp.Idx("axis", shape[-1])
    squares = sp.Sum((variable[(*indices, axis)] - target[(*indices, axis)]) ** 2, axis)
    distance = sp.Piecewise((sp.sqrt(squares), squares > 0), (0, True))
    mean = sp.Sum(distance, *indices) / sp.Mul(*shape[:-1]) if indices else distance
    return Loss(mean, variables=[variable], targets=[target], name=name)


def _entrywise(of_difference: Callable[[Any], Any], variable: Any, target: Any, name: str) -> Loss:
    shape = _common_shape([variable, target], name)
    if not shape:
        return Loss(of_difference(variable - target), variables=[variable], targets=[target], name=name)
    indices = _indices(shape)
    total = sp.Sum(of_difference(variable[indices] - target[indices]), *indices)
    return Loss(total, variables=[variable], targets=[target], name=name)


def _boxes(boxes: Any, name: str) -> tuple[list[Any], tuple[Any, ...], Callable[[tuple[Any, ...]], list[Any]]]:
    """The symbols of boxes, the shape of the set of them, and the function from indices to the four edges of one."""
    if isinstance(boxes, (list, tuple)):
        if len(boxes) != 4:
            raise InputTypeError(f"{name}: boxes are four symbols left, top, right, bottom (got {len(boxes)})")
        shape = _common_shape(boxes, name)
        return list(boxes), shape, lambda at: [edge[at] if at else edge for edge in boxes]
    shape = _common_shape([boxes], name)
    if not shape or shape[-1] != 4:
        raise DeclarationError(
            f"{name}: {boxes} has shape {shape}; boxes have a last axis of 4: left, top, right, bottom"
        )
    return [boxes], shape[:-1], lambda at: [boxes[(*at, k)] for k in range(4)]


def _mean_over_boxes(of_boxes: Callable[[list[Any], list[Any]], Any], variable: Any, target: Any, name: str) -> Loss:
    variables, shape, box = _boxes(variable, name)
    targets, other, wanted = _boxes(target, name)
    if shape != other:
        raise DeclarationError(f"{name}: {variable} are boxes of shape {shape} and {target} of {other}; must be equal")
    indices = _indices(shape)
    value = of_boxes(box(indices), wanted(indices))
    if indices:
        value = sp.Sum(value, *indices) / sp.Mul(*shape)
    return Loss(value, variables=variables, targets=targets, name=name)


def _overlap(box: list[Any], other: list[Any]) -> tuple[Any, Any]:
    """Areas of intersection and union."""
    left, top, right, bottom = box
    other_left, other_top, other_right, other_bottom = other
    width = sp.Max(0, sp.Min(right, other_right) - sp.Max(left, other_left))
    height = sp.Max(0, sp.Min(bottom, other_bottom) - sp.Max(top, other_top))
    area = sp.Max(0, right - left) * sp.Max(0, bottom - top)
    other_area = (other_right - other_left) * (other_bottom - other_top)
    return width * height, area + other_area - width * height


def _indices(shape: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(sp.Idx(f"i{axis}", extent) for axis, extent in enumerate(shape))


def _common_shape(symbols: Sequence[Any], name: str) -> tuple[Any, ...]:
    """The shape that all symbols have."""
    for symbol in symbols:
        if not isinstance(symbol, sp.Symbol | sp.IndexedBase):
            raise InputTypeError(
                f"{name}: variable and target must be a SymPy Symbol or IndexedBase "
                f"(got {symbol!r} of type {type(symbol).__name__})"
            )
    shapes = [_shape(symbol, name) for symbol in symbols]
    for symbol, shape in zip(symbols, shapes, strict=True):
        if shape != shapes[0]:
            raise DeclarationError(
                f"{name}: {symbols[0]} has shape {shapes[0]} and {symbol} has {shape}; they must be equal"
            )
    return shapes[0]


def _shape(symbol: Any, name: str) -> tuple[Any, ...]:
    if isinstance(symbol, sp.Symbol):
        return ()
    if symbol.shape is None:
        raise DeclarationError(f"{name}: {symbol} has no shape; declare sp.IndexedBase({str(symbol)!r}, shape=(n,))")
    return tuple(symbol.shape)
