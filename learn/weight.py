"""Weights as they are set: a starting value, units, and what is to hold of it at every step.

What is learnt and what is shown: coordinates.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..energies.errors import InputError, InputTypeError, nearest

Floats = NDArray[np.float64]

SCALES = ("raw", "log", "logit")


@dataclass(frozen=True, eq=False)
class Weight:
    """A starting value, the units in which the weight is learnt, and constraints.

    Parameters
    ----------
    value : array_like, optional
        The start, in the declared shape; a weight that is tied to another has none of its own.
    scale : {"raw", "log", "logit"}
        "raw": a step changes the weight itself, and is followed by the projection onto the nearest weight that the
        constraints allow.
        "log": the logarithm is learnt, for weights that are positive and whose size is not known well. A learning
        rate then means relative change: the gradient is multiplied by the weight. With simplex=True, softmax.
        "logit": for a weight between two bounds, log((w - low) / (high - w)) is learnt; it never reaches them.
    bounds : pair of array_like or None, optional
        (low, high), kept by projection ("raw" and "log") or by the scale ("logit"); None: none on that side.
    fixed : bool or array of bool
        What is not learnt: the whole weight, or entries of it.
    simplex : bool
        Entries >= 0 whose sum over the last axis is 1, by projection (scale="raw": entries may become 0) or as
        softmax of what is learnt (scale="log": they stay positive).
    orthonormal : bool
        A matrix (or a stack of them, in the last two axes) with orthonormal columns: gradients and velocities along the
        Stiefel manifold, and the polar factor after each step.
    tie : str or array of int, optional
        The name of another weight of the same shape that this one always equals; or in the declared shape labels:
        entries of equal labels are one number.

    Raises
    ------
    InputError, InputTypeError
        For settings that are unknown or contradict each other; values are checked by the learner.

    Examples
    --------
    >>> Weight(8.0, scale="log", bounds=(1, 50))
    Weight(8.0, scale='log', bounds=(1, 50))
    >>> Weight([0.2, 0.8], simplex=True)
    Weight([0.2, 0.8], simplex=True)
    >>> Weight(tie="sigma")
    Weight(tie='sigma')
    """

    value: Any = None
    scale: str = "raw"
    bounds: tuple[ArrayLike | None, ArrayLike | None] | None = None
    fixed: ArrayLike = False
    simplex: bool = False
    orthonormal: bool = False
    tie: Any = None

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            hint = nearest(self.scale, SCALES) if isinstance(self.scale, str) else ""
            raise InputError(f"Weight: unknown scale {self.scale!r}{hint}; one of {', '.join(map(repr, SCALES))}")
        for name in ("simplex", "orthonormal"):
            if not isinstance(getattr(self, name), bool):
                raise InputTypeError(f"Weight: {name} must be True or False (got {getattr(self, name)!r})")
        if np.asarray(self.fixed).dtype != bool:
            raise InputTypeError(f"Weight: fixed must be True, False or an array of them (got {self.fixed!r})")
        if self.tied:
            self._check_tied()
        elif self.value is None:
            raise InputError("Weight: value is missing; only a weight that is tied to another by name has none")
        elif self.tie is not None and np.asarray(self.tie).dtype.kind not in "iu":
            raise InputTypeError(f"Weight: tie must be the name of a weight, or an array of int (got {self.tie!r})")
        if self.bounds is not None:
            self._check_bounds()
        if self.scale == "logit" and not all(np.isfinite(edge).all() for edge in self.limits):
            raise InputError("Weight: scale='logit' needs two bounds, such as bounds=(0, 1)")
        surfaces = [name for name in ("simplex", "orthonormal") if getattr(self, name)]
        if surfaces:
            self._check_surface(surfaces)

    @property
    def tied(self) -> bool:
        """Whether this is another weight."""
        return isinstance(self.tie, str)

    @property
    def limits(self) -> tuple[Floats, Floats]:
        """The bounds as arrays, infinite where there are none."""
        low, high = self.bounds or (None, None)
        return _edge(low, -math.inf), _edge(high, math.inf)

    def _check_tied(self) -> None:
        others = [name for name, value in self._settings().items() if name != "tie" and value is not None]
        if others or self.value is not None:
            raise InputError(
                f"Weight: tie={self.tie!r} makes it that weight, whose settings hold; leave out "
                f"{', '.join(others or ['value'])}"
            )

    def _check_bounds(self) -> None:
        if not isinstance(self.bounds, (tuple, list)) or len(self.bounds) != 2:
            raise InputTypeError(f"Weight: bounds must be a pair (low, high), None for no bound (got {self.bounds!r})")
        try:
            low, high = self.limits
            fits = bool((low < high).all())
        except (TypeError, ValueError) as error:
            raise InputTypeError(f"Weight: bounds {self.bounds!r} are no numbers that fit together ({error})") from None
        if not fits:
            raise InputError(f"Weight: bounds must be low < high everywhere (got {self.bounds!r})")

    def _check_surface(self, surfaces: list[str]) -> None:
        reasons = {
            "bounds": self.bounds is not None,
            "tie": self.tie is not None,
            "fixed entries (fix all or none)": np.ndim(self.fixed) > 0,
            "the other": len(surfaces) > 1,
            f"scale={self.scale!r}": self.scale == "logit" or (self.orthonormal and self.scale != "raw"),
        }
        wrong = [reason for reason, holds in reasons.items() if holds]
        if wrong:
            raise InputError(f"Weight: {surfaces[0]}=True does not go together with {', '.join(wrong)}")

    def _settings(self) -> dict[str, Any]:
        """What differs from the defaults."""
        return {
            "scale": self.scale if self.scale != "raw" else None,
            "bounds": self.bounds,
            "fixed": self.fixed if np.any(self.fixed) else None,
            "simplex": self.simplex or None,
            "orthonormal": self.orthonormal or None,
            "tie": self.tie,
        }

    def describe(self) -> dict[str, Any]:
        """The settings without the value, as JSON values."""
        settings = {name: value for name, value in self._settings().items() if value is not None}
        if self.bounds is not None:
            settings["bounds"] = [_plain(edge) for edge in self.limits]
        for name in ("fixed", "tie"):
            if name in settings and not isinstance(settings[name], (str, bool)):
                settings[name] = np.asarray(settings[name]).tolist()
        return {"scale": self.scale, **settings}

    def __repr__(self) -> str:
        value = [] if self.value is None else [repr(self.value)]
        settings = [f"{name}={setting!r}" for name, setting in self._settings().items() if setting is not None]
        return f"Weight({', '.join([*value, *settings])})"


def from_description(value: Floats, description: Mapping[str, Any]) -> Weight:
    """The weight that `describe` described, of this value."""
    settings = {name: setting for name, setting in description.items() if name not in ("name", "shape")}
    return Weight(None if isinstance(settings.get("tie"), str) else value, **settings)


def _edge(edge: ArrayLike | None, none: float) -> Floats:
    """A bound as an array; None, as a whole or as an entry, is none."""
    return np.asarray(np.frompyfunc(lambda one: none if one is None else one, 1, 1)(edge), dtype=np.float64)


def _plain(edge: Any) -> Any:
    """A bound as JSON values; None where it is infinite."""
    if np.ndim(edge):
        return [_plain(one) for one in edge]
    return float(edge) if math.isfinite(edge) else None
