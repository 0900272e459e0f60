"""Tracks that are made up, to try a fusion on: trackers lose their object sooner or later, and lag behind its size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .tracks import Tracks


def made_up(sequences: int = 12, frames: int = 40, trackers: int = 8, seed: int = 0) -> Tracks:
    """Tracks of random walks; every third sequence, and every third frame, is for testing.

    Parameters
    ----------
    sequences, frames, trackers : int
        How many; frames in each sequence.
    seed : int

    Examples
    --------
    >>> tracks = made_up(sequences=2, frames=5, trackers=3)
    >>> tracks.boxes.shape, tracks.names
    ((10, 3, 4), ('tracker 0', 'tracker 1', 'tracker 2'))
    """
    return Tracks.of(made_up_arrays(sequences, frames, trackers, seed))


def made_up_arrays(sequences: int, frames: int, trackers: int, seed: int) -> dict[str, NDArray[Any]]:
    """The same as the arrays of a file."""
    random = np.random.default_rng(seed)
    count, step = sequences * frames, np.tile(np.arange(1, frames + 1), sequences)
    walk = np.cumsum(random.normal(0, 3, (sequences, frames, 2)), axis=1).reshape(count, 2) + 200
    growth = np.repeat(random.normal(0, 0.012, sequences), frames) * step
    first = random.uniform(25, 60, (sequences, 2))
    size = np.repeat(first, frames, axis=0) * np.exp(growth)[:, None]
    truth = np.concatenate([walk - size / 2, size], axis=1)
    lost_at = np.repeat(random.exponential(np.linspace(10, 90, trackers), (sequences, trackers)), frames, axis=0)
    since = np.maximum(0, step[:, None] - lost_at)
    drift = np.repeat(random.normal(0, 1, (sequences, trackers, 2)), frames, axis=0)
    follow = np.linspace(0.3, 0.8, trackers)  # how much of the change of size a tracker sees
    sides = np.exp(np.log(size)[:, None] - ((1 - follow) * growth[:, None])[..., None])
    sides = sides * np.exp(random.normal(0, 0.05, (count, trackers, 2)))
    centres = walk[:, None] + random.normal(0, 1.5, (count, trackers, 2)) + 3 * since[..., None] * drift
    valid = random.random((count, trackers)) > 0.02
    return {
        "boxes": np.concatenate([centres - sides / 2, sides], axis=-1).astype(np.float32),
        "valid": valid,
        "gt": truth.astype(np.float32),
        "seq": np.repeat(np.arange(sequences), frames).astype(np.int16),
        "frame": step.astype(np.int32),
        "seq_len": np.full(sequences, frames + 1, np.int32),
        "seq_init": np.concatenate([np.full((sequences, 2), 200.0) - first / 2, first], axis=1).astype(np.float32),
        "seq_names": np.array([f"sequence {k}" for k in range(sequences)]),
        "split_seq": (np.arange(sequences) % 3 == 0).astype(np.int8),
        "split_random": (np.arange(count) % 3 == 0).astype(np.int8),
        "tracker_names": np.array([f"tracker {k}" for k in range(trackers)]),
    }
