"""The energies of fusion: against their formulas in NumPy, their derivatives, and what a fusion promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import wiberg as wb
from wiberg.energies import fusion


@pytest.fixture(scope="module")
def tracks() -> fusion.Tracks:
    return fusion.made_up(seed=3)


def some_weights(made: Any, seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {name: np.asarray(w) + 0.1 * random.normal(size=np.shape(w)) for name, w in made.weights().items()}


def box_energy(y: Any, w: dict[str, Any], d: dict[str, Any], f: int) -> float:
    """The formula at the top of box.py, for frame f."""
    change, crowd = d["change"][f], d["crowd_features"][f]
    both = w["crowd"] @ crowd + (w["follow"] + w["tracker_follow"]) * change
    centre = d["centre"][f] + w["shift"] * d["side"][f]
    size = d["size"][f] + w["stretch"] + np.stack([both[:, 0] + both[:, 1] / 2, both[:, 0] - both[:, 1] / 2], axis=1)
    stub = np.minimum(
        np.stack([np.abs(change[:, 0]) / 0.35, np.maximum(change[:, 0], 0) / 0.2, np.abs(change[:, 1]) / 0.2]), 6
    )
    log_p = np.exp(w["sharpness"]) * d["accuracy"] + w["trust"] + w["trust_time"] * d["time"][f]
    log_p = log_p + w["stubs"] @ stub + w["trust_scale"] * stub[0]
    p = d["present"][f] * np.exp(log_p)
    width = np.exp(w["width"] + w["tracker_width"])
    d2 = ((y[:2] - centre) ** 2).sum(axis=1) / width[:, 0] ** 2 + ((y[2:] - size) ** 2).sum(axis=1) / width[:, 1] ** 2
    return float(-d["present"][f].sum() * (p / (1 + d2)).sum() / p.sum())


def corner_energy(side: str, y: Any, w: dict[str, Any], d: dict[str, Any], f: int) -> float:
    """The formula at the top of corners.py."""
    sign = {"low": -1, "high": 1}[side]
    own = {name.removesuffix(f"_{side}"): value for name, value in w.items() if name.endswith(side)}
    corner = d["unit"][f] * (d["centre"][f] + (own["shift"] + sign * np.exp(own["stretch"]) / 2) * d["side"][f])
    log_p = np.exp(own["sharpness"]) * d["accuracy"] + own["trust"] + own["trust_time"] * d["time"][f]
    log_p = log_p + (own["stub"] + own["trust_scale"]) * np.minimum(np.abs(d["change"][f][:, 0]) / 0.35, 6)
    p = d["present"][f] * np.exp(log_p)
    d2 = ((y - corner) ** 2).sum(axis=1)
    return float(-(p * np.exp(-d2 / (2 * np.exp(2 * (own["width"] + own["tracker_width"]))))).sum() / p.sum())


@pytest.mark.parametrize("seed", range(3))
def test_the_energy_of_the_box_is_its_formula(tracks: fusion.Tracks, seed: int) -> None:
    made = fusion.BoxFusion(tracks)
    some, weights = tracks[seed * 50 : seed * 50 + 20], some_weights(made, seed)
    data = made.data(made.features(some))
    y = np.random.default_rng(seed).normal(0, 0.2, (20, 4))
    values = wb.compile(made.energy).value({"y": y}, weights, data)
    np.testing.assert_allclose(values, [box_energy(y[f], weights, data, f) for f in range(20)], rtol=1e-12)


@pytest.mark.parametrize("side", ["low", "high"])
def test_the_energy_of_a_corner_is_its_formula(tracks: fusion.Tracks, side: str) -> None:
    made = fusion.CornerFusion(tracks)
    some, weights = tracks[:20], some_weights(made, 0)
    data = made.data(made.features(some))
    kernel = wb.compile(made.energies[["low", "high"].index(side)])
    y = np.random.default_rng(0).normal(0, 0.5, (20, 2))
    values = kernel.value({side: y}, {name: weights[name] for name in kernel.weights.names}, data)
    np.testing.assert_allclose(values, [corner_energy(side, y[f], weights, data, f) for f in range(20)], rtol=1e-12)


def test_derivatives_are_right() -> None:
    trackers = {"a": 0.5, "b": 0.7, "c": 0.2}
    for made in (fusion.BoxFusion(trackers), fusion.CornerFusion(trackers)):
        for energy in made.energies:
            assert wb.check_derivatives(energy, trials=2, backend="reference").ok


def test_the_loss_of_the_box_is_one_less_overlap(tracks: fusion.Tracks) -> None:
    made = fusion.BoxFusion(tracks)
    seen = made.features(tracks)
    loss = wb.Loss(**made.loss)
    y = seen.frame.to_coordinates(tracks.boxes[:, 0])
    found = loss.value({"y": y}, made.targets(tracks, seen))
    np.testing.assert_allclose(found, 1 - fusion.overlap(tracks.boxes[:, 0], tracks.known), atol=1e-6)
    assert loss.regulariser is not None
    assert loss.regulariser.evaluate(made.weights())[0] == 0.0


def test_the_loss_of_corners_is_their_distance(tracks: fusion.Tracks) -> None:
    made = fusion.CornerFusion(tracks)
    seen = made.features(tracks)
    target = made.targets(tracks, seen)["target"]
    np.testing.assert_allclose(made.boxes({"box": target}, seen), tracks.known, rtol=1e-5)
    assert wb.Loss(**made.loss).value({"box": target[:3] + 0.1}, {"target": target[:3]}) == pytest.approx(0.4)


@pytest.mark.parametrize("kind", [fusion.BoxFusion, fusion.CornerFusion])
def test_trackers_that_are_left_out_count_as_those_that_are_missing(tracks: fusion.Tracks, kind: Any) -> None:
    made = kind(tracks)
    weights = some_weights(made, 1)
    source = source_of(made)
    missing = np.zeros(tracks.valid.shape, dtype=bool)
    missing[:, [1, 4]] = True
    seen = made.features(tracks, missing)
    names = [name for k, name in enumerate(tracks.names) if k not in (1, 4)]
    less, fewer = made.only(names[::-1], weights)
    other = less.features(tracks)
    one = made.boxes(variables(wb.minimise(source, weights, made.data(seen), check=False)), seen)
    two = less.boxes(variables(wb.minimise(source, fewer, less.data(other), check=False)), other)
    np.testing.assert_allclose(one, two, atol=1e-4)


def source_of(made: Any) -> Any:
    kernels = [wb.compile(energy) for energy in made.energies]
    return kernels[0] if made.output is None else wb.Output(made.output, minima=kernels)


def variables(solution: Any) -> Any:
    return getattr(solution, "outputs", None) or solution.variables


def test_frames_are_drawn_by_balance_and_boxes_dropped(tracks: fusion.Tracks) -> None:
    made = fusion.BoxFusion(tracks, dropout=0.3, batch=4000)
    batch = made.batch(tracks, step=0)
    assert np.array_equal(batch["data"]["centre"], made.batch(tracks, step=0)["data"]["centre"])
    assert not np.array_equal(batch["data"]["centre"], made.batch(tracks, step=1)["data"]["centre"])
    share = batch["data"]["present"].mean() / tracks.valid.mean()
    assert share == pytest.approx(0.7, abs=0.01)
    assert batch["data"]["present"].any(axis=1).all()
    few = tracks[np.concatenate([np.flatnonzero(tracks.sequence == 0)[:4], np.flatnonzero(tracks.sequence == 1)])]
    chances = few.chances(1.0)
    assert chances[few.sequence == 0].sum() == pytest.approx(chances[few.sequence == 1].sum())


def test_accuracy_is_the_overlap_in_training(tracks: fusion.Tracks) -> None:
    made = fusion.BoxFusion(tracks, balance=0.0, sharpness=2.0)
    mean = tracks.overlaps().mean(axis=0)
    np.testing.assert_allclose(made.accuracy, 2 * (mean - mean.mean()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: fusion.BoxFusion(t, "new sequence"), "did you mean 'new sequences'"),
        (lambda t: fusion.BoxFusion(t, dropuot=0.1), "did you mean 'dropout'"),
        (lambda t: fusion.BoxFusion(t, penalties={"trusts": 1.0}).loss, "did you mean 'trust'"),
        (lambda t: fusion.BoxFusion(t, rates={"widths": 1.0}).rates, "did you mean 'width'"),
        (lambda t: fusion.BoxFusion({}), "no trackers"),
        (lambda t: fusion.BoxFusion(t).only(["tracker 99"], {}), "no tracker 'tracker 99'"),
        (lambda t: fusion.BoxFusion({"nobody": 0.5}).features(t), "no tracker 'nobody'"),
    ],
)
def test_what_does_not_fit_is_refused(tracks: fusion.Tracks, make: Any, message: str) -> None:
    with pytest.raises(wb.WibergError, match=message):
        make(tracks)


def test_learning_raises_the_overlap_of_sequences_that_were_not_seen() -> None:
    tracks = fusion.made_up(sequences=18, seed=5)
    train, test = tracks.part("sequences", "train"), tracks.part("sequences", "test")
    for made in (fusion.BoxFusion(train, steps=150), fusion.CornerFusion(train, steps=100, rate=0.03, dropout=0.0)):
        source = source_of(made)
        learner = wb.Learner(
            source, wb.Loss(**made.loss), made.weights(), wb.SGD(made.rates, momentum=0.9, clip=1.0), damping=0.1
        )
        seen = made.features(test)

        def reached(weights: Any, made: Any = made, source: Any = source, seen: Any = seen) -> float:
            boxes = made.boxes(variables(wb.minimise(source, weights, made.data(seen))), seen)
            return float(fusion.overlap(boxes, test.known).mean())

        before = reached(learner.weights)
        learner.fit(lambda step, made=made: wb.Batch(**made.batch(train, step)), steps=made.settings.steps)
        assert reached(learner.weights) > before + 0.005
        assert reached(learner.weights) > fusion.overlap(seen.frame.boxes, test.known).mean()


@pytest.mark.parametrize("kind", [fusion.BoxFusion, fusion.CornerFusion])
def test_a_regressor_of_scikit_learn_learns_it(tracks: fusion.Tracks, kind: Any) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed; make setup-frameworks")
    train, test = tracks.part("sequences", "train"), tracks.part("sequences", "test")
    made = kind(train)
    seen, other = made.features(train), made.features(test)
    table, columns = made.table(seen)
    loss = wb.Loss(**made.loss)
    target = loss.energy.variables[0]
    regressor = wb.sklearn.EnergyRegressor(
        source_of(made),
        columns,
        target=str(target),
        weights=made.weights(),
        loss=loss,
        data={"accuracy": made.accuracy},
        optimiser=wb.SGD(made.rates, momentum=0.9, clip=1.0),
        steps=60,
        batch_size=64,
    )
    regressor.fit(table, made.targets(train, seen)["target"])
    learnt = regressor.weights_
    assert any(not np.array_equal(learnt[name], start) for name, start in made.weights().items())
    found = regressor.predict(made.table(other)[0])
    expected = variables(wb.minimise(source_of(made), learnt, made.data(other)))
    np.testing.assert_array_equal(found, expected[str(target)])
