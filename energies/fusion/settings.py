"""Settings of a fusion: where its weights start, what pulls them back, and how they are learnt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import InputError, nearest


@dataclass(frozen=True)
class Settings:
    """What `BoxFusion` and `CornerFusion` start from, and how they are trained.

    Parameters
    ----------
    sharpness : float
        By how much the logarithm of a tracker's importance grows with its accuracy (mean overlap in training).
    width : tuple of float
        Of the kernels at the start: of the centre and of the log size, in units of the box; of corners, one number.
    balance : float
        A sequence of n frames is drawn with weight n^(1 - balance).
    dropout : float
        The share of the trackers that a frame loses in training.
    penalties : dict of float
        Factors of the squares of weights, added to the loss.
    optimiser : {"SGD", "Adam"}
    batch, steps, rate, momentum, clip, damping
        Of the learner: frames a step, steps, and so on. Adam has no use for `momentum`.
    rates : dict of float
        Learning rates of weights for which `rate` is too much or too little.
    minima : bool
        Whether learning also sees which minimum is the lowest (`wb.Selection`).
    """

    sharpness: float = 8.0
    width: tuple[float, ...] = (0.12, 0.3)
    balance: float = 0.7
    dropout: float = 0.3
    penalties: Mapping[str, float] = field(default_factory=dict)
    optimiser: str = "SGD"
    batch: int = 128
    steps: int = 300
    rate: float = 0.3
    momentum: float = 0.9
    rates: Mapping[str, float] = field(default_factory=dict)
    clip: float | None = 1.0
    damping: float = 0.1
    minima: bool = False


def settings_of(preset: Any, presets: Mapping[str, Settings], changes: Mapping[str, Any], who: str) -> Settings:
    """A preset by name, or settings as they are, with changes.

    Raises
    ------
    InputError
        For a preset or a setting that there is none of.
    """
    if not isinstance(preset, Settings):
        if preset not in presets:
            raise InputError(
                f"{who}: no preset {preset!r}{nearest(str(preset), presets)}; {', '.join(map(repr, presets))}"
            )
        preset = presets[preset]
    assert isinstance(preset, Settings)
    allowed = tuple(Settings.__dataclass_fields__)
    for name in changes:
        if name not in allowed:
            raise InputError(f"{who}: no setting {name!r}{nearest(name, allowed)}; {', '.join(allowed)}")
    return replace(preset, **changes)


def squares(weights: Mapping[Any, Any], penalties: Mapping[str, float]) -> Any:
    """sum over weights of penalty times its sum of squares, which `weights` gives; None without penalties."""
    known = {str(weight): square for weight, square in weights.items()}
    for name in penalties:
        if name not in known:
            raise InputError(f"penalties: no weight {name!r}{nearest(name, known)}; {', '.join(known)}")
    total = sum(penalty * known[name] for name, penalty in penalties.items() if penalty)
    return total if total else None
