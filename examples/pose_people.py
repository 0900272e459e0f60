"""Poses of people whose bones keep their lengths: the energy of all frames of a person at once.

    sum over frames n of E_m(Y_n) + stiffness/2 sum_b (|bone_b(Y_n)| - l_b)^2,      l shared by the frames

Given l, frames are minimised each by itself, and given the frames the best l is in closed form, the mean of their own
lengths (energies/pose/calibrated.py): in turn, until no length moves. Lengths follow the frames, so they are moved half
as far again (over-relaxation): of an error e, that leaves e (1.5 S - .5), 0 <= S < 1 what frames follow of a length.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import wiberg as wb
from numpy.typing import NDArray
from wiberg.energies import pose

Floats = NDArray[np.float64]

STILL = 2e-4
"""m by the size of the person: where lengths no longer move."""

ROUNDS, LEAST, FURTHER, FRAMES = 20, 20, 1.5, 512
"""At most so many rounds; frames of a person, fewer of which say too little; how far lengths go; frames at once."""


@dataclass(frozen=True)
class People:
    """What comes out: poses (N, 17, 3), mm in the world; lengths (N, 16) of `pose.EDGES`, mm; how many rounds."""

    poses: Floats
    lengths: Floats
    rounds: int


class SharedBones:
    """The model's kernel and output for people, compiled."""

    def __init__(self, model: pose.Calibrated, weights: Mapping[str, Any], gtol: float) -> None:
        self.model, self.weights, self.gtol = model, dict(weights), gtol
        self.output = wb.Output(minima=wb.compile(model.person), **model.person_output)

    def people(self, data: Mapping[str, Any], person: NDArray[Any], stiffness: float = pose.STIFFNESS) -> People:
        """Of frames that are good for a pose: their features' data, and who each shows.

        People of less than `LEAST` frames are reconstructed as if alone.

        Warns
        -----
        UnconvergedWarning
            If lengths still move after `ROUNDS`, or minimisations of the last round did not converge.
        """
        if not len(person):
            return People(np.empty((0, 17, 3)), np.empty((0, len(pose.EDGES))), 0)
        label = np.unique(person, return_inverse=True)[1]
        count = np.bincount(label)
        held = np.where(count[label] < LEAST, 0.0, stiffness)
        poses, own, minima, converged = self._minimise(
            data, np.full((len(label), 16), 0.25), np.zeros(len(label)), None
        )
        lengths = np.array([np.median(own[label == one], axis=0) for one in range(len(count))])
        rounds = 0
        while rounds < ROUNDS:
            rounds += 1
            poses, own, minima, converged = self._minimise(data, lengths[label], held, minima)
            off = np.array([own[label == one].mean(axis=0) for one in range(len(count))]) - lengths
            moving = (np.abs(off).max(axis=1) >= STILL) & (count >= LEAST)
            if not moving.any():
                break
            lengths = lengths + FURTHER * off
        else:
            _warn(f"lengths of bones of {moving.sum()} of {len(count)} people still move after {ROUNDS} rounds")
        if not converged.all():
            _warn(f"minimisations of {(~converged).sum():,} of {len(converged):,} frames did not converge")
        return People(poses, 1000.0 * np.asarray(data["size"])[:, None] * lengths[label], rounds)

    def _minimise(
        self, data: Mapping[str, Any], lengths: Floats, stiffness: Floats, start: Floats | None
    ) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
        """Poses, own lengths (N, 16), minima (N, M, 17, 3), convergence (N,); given lengths of each frame's person."""
        parts = []
        for begin in range(0, len(lengths), FRAMES):
            rows = slice(begin, begin + FRAMES)
            given = {name: array[rows] for name, array in data.items()}
            given |= self.model.bones(lengths[rows], stiffness[rows])
            options = {} if start is None else {"start": {"Y": start[rows]}}
            solution = wb.minimise(self.output, self.weights, given, gtol=self.gtol, **options)
            parts.append((solution.outputs["pose"], solution.outputs["own"], solution.minima["Y"], solution.converged))
        poses, own, minima, converged = (np.concatenate(part) for part in zip(*parts, strict=True))
        return poses, own, minima, converged


def _warn(message: str) -> None:
    warnings.warn(f"poses of people: {message}", wb.UnconvergedWarning, stacklevel=3)
