"""A network of PyTorch that says how far each tracker is to be trusted in each frame, learnt through the minimum.

Many trackers follow one object; each gives a box in every frame. The fused box is the minimum of a robust energy,

    y* = argmin_y  sum_k c_k rho(|y - b_k|^2; sigma)        rho the pseudo-Huber penalty, b_k and y boxes (4 numbers)

whose confidences c_k are no constants: a small network makes them, for each frame anew, of what is seen of each tracker
there (how its box has changed its size, how far it is from the others, which tracker it is). The loss is that of the
fused box. Its gradient goes through the minimum (wb.torch.Minimise: the damped derivative) into the network, and to the
width sigma.

    python examples/confidences.py otb100.npz         real tracker outputs; without them, made-up ones of the same form
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import sympy as sp
import wiberg as wb
from numpy.typing import NDArray

try:
    import torch
except ImportError:
    sys.exit("confidences.py needs PyTorch: pip install 'wiberg[torch]' (docs/frameworks.md)")

Floats = NDArray[np.float64]

FAR = 8.0
"""Boxes are moved to at most so many sizes of the median box from it."""
FEATURES = 7


def declare() -> wb.Energy:
    n = sp.Symbol("n", integer=True, positive=True)
    k, j = sp.Idx("k", n), sp.Idx("j", 4)
    y, b = sp.IndexedBase("y", shape=(4,)), sp.IndexedBase("b", shape=(n, 4))
    c, sigma = sp.IndexedBase("c", shape=(n,)), sp.Symbol("sigma", positive=True)
    distance = sp.Sum((y[j] - b[k, j]) ** 2, j)
    return wb.Energy(
        sp.Sum(c[k] * wb.pseudo_huber(distance, sigma), k),
        variables=[y],
        weights=[sigma, c],
        data=[b],
        name="fused box",
    )


class Confidences(torch.nn.Module):
    """Features of each tracker (B, T, FEATURES) -> confidences (B, T), which sum to 1; 0 where there is no box."""

    def __init__(self, trackers: int, width: int = 32) -> None:
        super().__init__()
        self.of_tracker = torch.nn.Parameter(torch.zeros(trackers))
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(FEATURES, width), torch.nn.Tanh(), torch.nn.Linear(width, width), torch.nn.Tanh()
        )
        self.last = torch.nn.Linear(width, 1)
        torch.nn.init.zeros_(self.last.weight)  # at first all trackers are trusted alike
        torch.nn.init.zeros_(self.last.bias)

    def forward(self, features: Any, valid: Any) -> Any:
        logits = self.last(self.layers(features))[..., 0] + self.of_tracker
        return torch.softmax(logits.masked_fill(~valid, -30.0), dim=-1)


class Fusion(torch.nn.Module):
    """Network and minimisation, one after the other."""

    def __init__(self, trackers: int) -> None:
        super().__init__()
        self.confidences = Confidences(trackers)
        self.minimum = wb.torch.Minimise(wb.compile(declare()), weights={"sigma": wb.Weight(0.3, scale="log")})

    def forward(self, frames: dict[str, Any]) -> Any:
        c = self.confidences(frames["features"], frames["valid"])
        return self.minimum({"c": c}, {"b": frames["boxes"]}, start={"y": frames["median"]})["y"]


def overlap(one: Any, other: Any) -> Any:
    """Intersection over union of boxes given by their corners, (..., 4)."""
    low, high = torch.maximum(one[..., :2], other[..., :2]), torch.minimum(one[..., 2:], other[..., 2:])
    both = (high - low).clamp(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp(min=1e-6).prod(-1) for box in (one, other)]
    return both / (areas[0] + areas[1] - both)


# ---------------------------------------------------------------------------------------------- the data


def frames_of(file: Any) -> tuple[dict[str, Any], Any, Any]:
    """What the network and the energy read of every frame, and which are for training and for testing."""
    boxes, truth = file["boxes"].astype(float), file["gt"].astype(float)
    valid, sequence = file["valid"].astype(bool), file["seq"].astype(int)
    first = file["seq_init"].astype(float)[sequence]
    time = file["frame"] / (file["seq_len"][sequence] - 1)
    size = np.exp(np.median(np.log(boxes[..., 2] * boxes[..., 3]), axis=1) / 2)[:, None]
    corners = np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)
    true = np.concatenate([truth[:, :2], truth[:, :2] + truth[:, 2:]], axis=-1)
    origin = np.tile((np.median(corners[..., :2], axis=1) + np.median(corners[..., 2:], axis=1)) / 2, 2)
    corners = np.clip((corners - origin[:, None]) / size[:, None], -FAR, FAR)
    median = np.median(corners, axis=1)
    distance = np.linalg.norm(corners - median[:, None], axis=-1)
    apart = np.linalg.norm(corners[:, :, None] - corners[:, None], axis=-1)
    change = np.log(boxes[..., 2:] / first[:, None, 2:])
    features = np.stack(
        [
            np.log(0.05 + distance),
            np.log(0.05 + np.sort(apart, axis=2)[:, :, [1, 3]].mean(axis=2)),  # how near its nearest neighbours are
            np.log(0.05 + np.sort(apart, axis=2)[:, :, apart.shape[1] // 2]),
            np.abs(change.sum(axis=-1)),  # since the first frame
            np.abs(change[..., 0] - change[..., 1]),
            np.broadcast_to(2 * time[:, None] - 1, distance.shape),
            np.broadcast_to(np.log(0.05 + np.median(distance, axis=1))[:, None], distance.shape),
        ],
        axis=-1,
    )
    single = {"boxes": corners, "features": features, "median": median, "truth": (true - origin) / size}
    frames = {name: torch.tensor(array, dtype=torch.float32) for name, array in single.items()}
    frames["valid"] = torch.tensor(valid)
    frames["mean"] = frames["boxes"].mean(dim=1)
    split = file["split_seq"][sequence]
    return frames, *(torch.tensor(np.flatnonzero(split == part)) for part in (0, 1))


def made_up(sequences: int = 24, frames: int = 60, trackers: int = 10, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Trackers that lose their object sooner or later, and whose boxes then shrink or grow."""
    random = np.random.default_rng(seed)
    count = sequences * frames
    step = np.tile(np.arange(frames), sequences)
    where = np.cumsum(random.normal(0, 3, (sequences, frames, 2)), axis=1).reshape(count, 2) + 200
    truth = np.concatenate([where, np.full((count, 2), 40.0)], axis=1)
    lost_at = np.repeat(random.exponential(np.linspace(15, 80, trackers), (sequences, trackers)), frames, axis=0)
    since = np.maximum(0, step[:, None] - lost_at)
    drift = np.repeat(random.normal(0, 1, (sequences, trackers, 2)), frames, axis=0)
    growth = np.repeat(random.normal(0, 0.02, (sequences, trackers, 1)), frames, axis=0)
    boxes = truth[:, None] + random.normal(0, 2, (count, trackers, 4))
    boxes[..., :2] += 4 * since[..., None] * drift
    boxes[..., 2:] = np.maximum(boxes[..., 2:] * np.exp(growth * since[..., None]), 2)
    return {
        "boxes": boxes.astype(np.float32),
        "valid": np.ones((count, trackers), bool),
        "gt": truth.astype(np.float32),
        "seq": np.repeat(np.arange(sequences), frames).astype(np.int16),
        "frame": (1 + step).astype(np.int32),
        "seq_len": np.full(sequences, frames + 1, np.int32),
        "seq_init": truth[::frames].astype(np.float32),
        "split_seq": (np.arange(sequences) % 3 == 0).astype(np.int8),
    }


# ---------------------------------------------------------------------------------------------- learning


def learn(fusion: Fusion, frames: dict[str, Any], train: Any, *, steps: int, batch: int, seed: int) -> None:
    optimiser = torch.optim.Adam(fusion.parameters(), lr=5e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        rows = train[torch.randint(len(train), (batch,), generator=generator)]
        some = {name: array[rows] for name, array in frames.items()}
        loss = (1 - overlap(fusion(some), some["truth"])).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            shown = f"sigma {fusion.minimum.weights['sigma'].item():.3f}"
            print(f"  step {step:4d}   loss {loss.item():.3f}   {shown}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, help="tracker outputs (.npz)")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.file is not None and options.file.is_file():
        with np.load(options.file) as file:
            frames, train, test = frames_of(file)
    else:
        missing = "no file of tracker outputs is given" if options.file is None else f"{options.file}: no such file"
        print(f"{missing}; learning from made-up ones of the same form")
        frames, train, test = frames_of(made_up())
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)  # tensors are small here: threads of PyTorch's would wait for each other
    fusion = Fusion(frames["boxes"].shape[1])
    tested = {name: array[test] for name, array in frames.items()}

    def score(boxes: Any) -> float:
        return float(overlap(boxes, tested["truth"]).mean())

    with torch.no_grad():
        alike = score(fusion(tested))
    print(f"{len(train)} frames to learn from, {len(test)} of other sequences to test on")
    learn(fusion, frames, train, steps=options.steps, batch=options.batch, seed=options.seed)
    with torch.no_grad():
        learnt = score(fusion(tested))
    failed = len(fusion.minimum.solution.failed)
    print(f"mean overlap (IoU) on the frames to test on; {failed} minimisations failed")
    print(f"  mean of the boxes      {score(tested['mean']):.3f}")
    print(f"  median of the boxes    {score(tested['median']):.3f}")
    print(f"  all trusted alike      {alike:.3f}")
    print(f"  learnt confidences     {learnt:.3f}")


if __name__ == "__main__":
    main()
