"""Fusing trackers: section 4 of the paper, a first version on real tracker outputs.

Many trackers follow one object; each gives a box in every frame. The fused box is found from two corners, top left and
bottom right, each the lowest minimum y* of an energy of its own, a sum of one radial basis function for each tracker k:

    E(y) = -sum_k p_k exp(-|y - c_k|^2 / (2 exp(2 (l + delta_k))))
    c_k  = centre_k + o_k * size_k + side * exp(b_k) * size_k / 2        the corner, each axis on its own
    p_k  = softmax_k(exp(kappa) A_k + alpha_k + beta_k time + (theta + gamma_k) |scale change_k|)

The weights are learnt so that y* comes close to the true corner (L1 loss, damped derivative): width (l, delta),
importance (kappa, alpha) and how it changes with time and with the scale of the box since the first frame (beta, theta,
gamma), and corrections of place (o) and size (b). Importances start from the accuracy A_k of each tracker in training.
The energy's candidates are the corners c_k themselves; they move with the weights.

    python examples/fusion.py otb100.npz
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sympy as sp
import wiberg as wb
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SIDES = {"top left": -1.0, "bottom right": 1.0}
ACCURACY = 8.0
"""How much a tracker's importance, as a logarithm, grows with its accuracy (mean IoU) at the start."""
WIDTH = 0.15
"""Of every radial basis function at the start, in units of the box."""
BATCH, BALANCE = 128, 0.7
"""Frames a step; a sequence of n frames is drawn with weight n^(1 - BALANCE)."""
RATES = {"delta": 0.3, "alpha": 0.03, "beta": 0.03, "gamma": 0.003, "o": 0.003, "b": 0.003}
SHARED_RATE = 0.001
"""Learning rates for each tracker's weights, and for kappa, theta and l that all share. Chosen, as all numbers above,
by cross-validation over groups of sequences within the training part."""


# ---------------------------------------------------------------------------------------------- the energy


def declare() -> tuple[wb.Energy, wb.Loss]:
    """The energy of one corner (`side` says which) and its loss."""
    n = sp.Symbol("n", integer=True, positive=True)
    k, q = sp.Idx("k", n), sp.Idx("q", n)
    y, target = sp.IndexedBase("y", shape=(2,)), sp.IndexedBase("target", shape=(2,))
    kappa, theta, l = sp.symbols("kappa theta l", real=True)  # noqa: E741
    alpha, beta, gamma, delta = (sp.IndexedBase(name, shape=(n,)) for name in ("alpha", "beta", "gamma", "delta"))
    o, b = sp.IndexedBase("o", shape=(n, 2)), sp.IndexedBase("b", shape=(n, 2))
    time, side = sp.symbols("time side", real=True)
    centre, size = sp.IndexedBase("centre", shape=(n, 2)), sp.IndexedBase("size", shape=(n, 2))
    change, accuracy = sp.IndexedBase("change", shape=(n,)), sp.IndexedBase("accuracy", shape=(n,))

    def corner(k: sp.Idx, axis: int) -> sp.Expr:
        return centre[k, axis] + (o[k, axis] + side * sp.exp(b[k, axis]) / 2) * size[k, axis]

    cx, cy, importance = (sp.IndexedBase(name, shape=(n,)) for name in ("cx", "cy", "importance"))
    logarithm = sp.exp(kappa) * accuracy[k] + alpha[k] + beta[k] * time + (theta + gamma[k]) * change[k]
    where = {cx[k]: corner(k, 0), cy[k]: corner(k, 1), importance[k]: sp.exp(logarithm)}
    distance2 = (y[0] - cx[k]) ** 2 + (y[1] - cy[k]) ** 2
    bumps = sp.Sum(importance[k] * sp.exp(-distance2 / (2 * sp.exp(2 * (l + delta[k])))), k)
    energy = wb.Energy(
        -bumps / sp.Sum(importance[k], k),
        variables=[y],
        weights=[kappa, theta, l, alpha, beta, gamma, delta, o, b],
        data=[time, side, centre, size, change, accuracy],
        where=where,
        candidates={y[0]: corner(q, 0), y[1]: corner(q, 1)},
        name="corner",
    )
    return energy, wb.absolute_error(y, target)


def first_weights(trackers: int) -> dict[str, Any]:
    each = {name: np.zeros(trackers) for name in ("alpha", "beta", "gamma", "delta")}
    return {
        "kappa": 0.0,
        "theta": 0.0,
        "l": np.log(WIDTH),
        **each,
        "o": np.zeros((trackers, 2)),
        "b": np.zeros((trackers, 2)),
    }


# ---------------------------------------------------------------------------------------------- the data


@dataclass(frozen=True)
class Tracks:
    """F frames, T trackers. Boxes are x, y, width, height; `unit` and `origin` normalise the frame they belong to."""

    boxes: Floats  # (F, T, 4)
    truth: Floats  # (F, 4)
    sequence: NDArray[np.int64]  # (F,)
    unit: Floats  # (F,)  median size of the boxes
    origin: Floats  # (F, 2)  median centre
    data: dict[str, Floats]  # of the energy, (F, ...)
    targets: dict[str, Floats]  # true corner by side, (F, 2)
    names: list[str]  # (T,)
    train: NDArray[np.int64]
    test: NDArray[np.int64]


def read(path: Path) -> Tracks:
    with np.load(path) as file:
        boxes, truth = file["boxes"].astype(float), file["gt"].astype(float)
        sequence, split = file["seq"].astype(np.int64), file["split_seq"]
        first = file["seq_init"].astype(float)[sequence]
        time = file["frame"] / (file["seq_len"][sequence] - 1)
        names = [str(name) for name in file["tracker_names"]]
    area = boxes[..., 2] * boxes[..., 3]
    unit = np.exp(np.median(np.log(area), axis=1) / 2)
    centres = boxes[..., :2] + boxes[..., 2:] / 2
    origin = np.median(centres, axis=1)
    change = np.abs(np.log(area / (first[:, 2] * first[:, 3])[:, None])) / 2
    data = {
        "time": (time - 0.5) / 0.29,
        "centre": np.clip((centres - origin[:, None]) / unit[:, None, None], -60, 60),
        "size": boxes[..., 2:] / unit[:, None, None],
        "change": np.minimum(change / 0.35, 6),
    }
    corners = {side: truth[:, :2] + (1 + sign) / 2 * truth[:, 2:] for side, sign in SIDES.items()}
    targets = {side: (corner - origin) / unit[:, None] for side, corner in corners.items()}
    train, test = (np.flatnonzero(split[sequence] == part) for part in (0, 1))
    return Tracks(boxes, truth, sequence, unit, origin, data, targets, names, train, test)


def iou(one: Floats, other: Floats) -> Floats:
    """Intersection over union of boxes (..., 4)."""
    low = np.maximum(one[..., :2], other[..., :2])
    high = np.minimum(one[..., :2] + one[..., 2:], other[..., :2] + other[..., 2:])
    both = np.clip(high - low, 0, None).prod(axis=-1)
    union = one[..., 2:].prod(axis=-1) + other[..., 2:].prod(axis=-1) - both
    return np.asarray(both / union)


def box(low: Floats, high: Floats) -> Floats:
    """Boxes from their corners; never inside out."""
    return np.concatenate([low, np.maximum(high - low, 1e-3)], axis=-1)


# ---------------------------------------------------------------------------------------------- learning


class Fusion:
    """A learner for each corner, that share nothing but the data."""

    def __init__(self, tracks: Tracks) -> None:
        self.tracks = tracks
        count = np.bincount(tracks.sequence[tracks.train])[tracks.sequence[tracks.train]]
        self.chance = count**-BALANCE / (count**-BALANCE).sum()
        accuracy = self.chance @ iou(tracks.boxes, tracks.truth[:, None])[tracks.train]
        self.accuracy = ACCURACY * (accuracy - accuracy.mean())
        energy, loss = declare()
        kernel, weights = wb.compile(energy), first_weights(len(tracks.names))
        rates = {name: RATES.get(name, SHARED_RATE) for name in weights}
        self.learners = {side: wb.Learner(kernel, loss, weights, wb.SGD(rates, momentum=0.9)) for side in SIDES}

    def data(self, side: str, frames: NDArray[np.int64]) -> dict[str, Any]:
        chosen = {name: array[frames] for name, array in self.tracks.data.items()}
        return {**chosen, "accuracy": self.accuracy, "side": SIDES[side]}

    def fit(self, steps: int, seed: int) -> None:
        for side, learner in self.learners.items():

            def batch(step: int, side: str = side) -> wb.Batch:
                random = np.random.default_rng((seed, step))
                frames = random.choice(self.tracks.train, BATCH, p=self.chance)
                return wb.Batch(self.data(side, frames), {"target": self.tracks.targets[side][frames]}, name=side)

            print(f"{side} corner", file=sys.stderr)
            learner.fit(batch, steps=steps, progress=True)

    def boxes(self, frames: NDArray[np.int64]) -> Floats:
        """The fused boxes, (len(frames), 4), in pixels."""
        corners = {
            side: learner.predict(self.data(side, frames))["y"] * self.tracks.unit[frames, None]
            + self.tracks.origin[frames]
            for side, learner in self.learners.items()
        }
        return box(corners["top left"], corners["bottom right"])


def baselines(tracks: Tracks) -> dict[str, Floats]:
    """Boxes of the usual fusions on the test part, and of the tracker that was best on the training part."""
    boxes = tracks.boxes[tracks.test]
    low, high = boxes[..., :2], boxes[..., :2] + boxes[..., 2:]
    best = int(iou(tracks.boxes, tracks.truth[:, None])[tracks.train].mean(axis=0).argmax())
    return {
        "mean fusion": box(low.mean(axis=1), high.mean(axis=1)),
        "median fusion": box(np.median(low, axis=1), np.median(high, axis=1)),
        f"best single tracker ({tracks.names[best]})": boxes[:, best],
    }


def by_sequence(values: Floats, sequence: NDArray[np.int64]) -> float:
    """The mean over sequences of the mean over the frames of each."""
    count = np.bincount(sequence)
    return float((np.bincount(sequence, values)[count > 0] / count[count > 0]).mean())


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="Fuse the boxes of many trackers with learnt corner energies.")
    parser.add_argument("file", type=Path, help="tracker outputs with ground truth, .npz")
    parser.add_argument("--steps", type=int, default=200, help="steps of each corner's learner")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="folder for the two learners")
    options = parser.parse_args(arguments)
    if not options.file.is_file():
        parser.error(f"{options.file}: no such file; give a file of tracker outputs, such as otb100.npz")

    tracks = read(options.file)
    print(f"{len(tracks.names)} trackers; {len(tracks.train):,} frames to learn from, {len(tracks.test):,} to test on")
    fusion = Fusion(tracks)
    fused = {"fusion, before learning": fusion.boxes(tracks.test)}
    fusion.fit(options.steps, options.seed)
    fused["fusion, learnt"] = fusion.boxes(tracks.test)
    print(f"\n{'mean IoU on the test part':<38}  frames  sequences")
    scores = {}
    for name, boxes in {**baselines(tracks), **fused}.items():
        overlap = iou(boxes, tracks.truth[tracks.test])
        scores[name] = float(overlap.mean())
        print(f"  {name:<36}  {scores[name]:.3f}  {by_sequence(overlap, tracks.sequence[tracks.test]):9.3f}")
    if options.save is not None:
        options.save.mkdir(parents=True, exist_ok=True)
        for side, learner in fusion.learners.items():
            learner.save(options.save / f"{side.replace(' ', '_')}.npz")
        print(f"learners saved in {options.save}")
    return scores


if __name__ == "__main__":
    main()
