"""The monocular pose model on the CMU sample, against plain NumPy: one dense system for each body and rotation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wiberg as wb
from wiberg.energies import pose
from wiberg.energies.pose import synthetic

SAMPLE = Path(__file__).parents[2] / "examples" / "data" / "cmu_poses.npz"
TURNS = pose.rotations(100, every=20)
VIEWS = np.array([2, 0])


def scene() -> tuple[pose.BodyModels, synthetic.Ring, Any, Any, Any]:
    with np.load(SAMPLE) as file:
        every = file["joints"] / 10.0
    ring = synthetic.Ring.around()
    truth = every[[11, 1200]]
    points, visible = synthetic.detect(truth, ring, seed=1)
    return pose.fit_bodies(every[::7], 2), ring, points[[0, 1], VIEWS], visible[[0, 1], VIEWS], truth


def drawn(model: pose.Monocular) -> dict[str, Any]:
    """Weights away from the start, at which averages are soft."""
    random = np.random.default_rng(3)
    w = {name: np.asarray(a) * random.uniform(0.9, 1.1, np.shape(a)) for name, a in model.weights().items()}
    return w | {"exp_weights": w["exp_weights"] * 0.05}


def in_numpy(model: pose.Monocular, w: dict[str, Any], data: dict[str, Any], truth: Any) -> tuple[Any, float]:
    """The pose and the expected error of one instance."""
    units, average = model.constants, model.average * w["cameras"]
    costs, members = [], []
    for m in range(len(model.bodies)):
        mu, e = units["pose_unit"] * w["mean_pose"][m], units["shape_unit"] * w["base_vectors"][m]
        Lambda = w["lambda_0"][m, 0] * units["variance_unit"] * w["sigma_variance"][m]
        basis = np.concatenate([mu[None], np.repeat(np.eye(3)[:, :, None], 17, axis=2), e])  # (29, 3, 17)
        gamma = w["lambda_scale"][m, 0] * units["reprojection"][m] * w["joint_weights"][m].reshape(17, 2)
        held = np.zeros(29)
        held[0] = -0.003 * w["scale_regularizer"]
        for turn in model.turns:
            rows = average[data["view"][0]][:2] @ turn
            factor = gamma * data["visible"][:, None]
            seen = (np.einsum("xp,upj->jxu", rows, basis) * factor[..., None]).reshape(34, 29)
            system = np.concatenate([seen, Lambda])
            aim = np.concatenate([(factor * data["detections"]).ravel(), held])
            y = np.linalg.lstsq(system, aim, rcond=None)[0]
            body = np.einsum("u,upj->jp", y, basis)
            body = -(body - body.mean(axis=0)) @ turn.T
            members.append(body / pose.limb_norm(body))
            costs.append(
                5000 * w["exp_weights"][m, 0] * np.sum((system @ y - aim) ** 2) + w["exp_additive_model"][m, 0]
            )
    if model.choice == "soft":
        share = np.exp(np.min(costs) - np.array(costs))
    else:
        share = np.asarray(np.array(costs) == np.min(costs), dtype=float)
    share /= share.sum()
    size = w["scaling_coefficient"] * data["size"]
    mixed = np.einsum("n,njp->jp", share, np.array(members))
    return size * mixed / pose.limb_norm(mixed), float(share @ pose.euclidean(size * np.array(members), truth))


@pytest.mark.parametrize("choice", ["soft", "lowest"])
def test_poses_and_expected_errors_are_those_of_plain_numpy_with_their_derivatives(choice):
    bodies, ring, points, visible, truth = scene()
    model = pose.Monocular(bodies, ring.rotation, choice=choice, turns=TURNS)
    w, data = drawn(model), model.data(points, visible, VIEWS, truth)
    true = truth - truth.mean(axis=1, keepdims=True)
    kernel = wb.compile(model.energy, backend="reference")
    found = wb.minimise(wb.Output(minima=kernel, **model.output), w, data).outputs["pose"]
    expected = wb.Output(minima=kernel, **model.expected_error)
    solution = wb.minimise(expected, w, data | {"truth": true})
    own = ("detections", "visible", "size", "view")
    each = [{n: a[k] if n in own else a for n, a in data.items()} for k in range(2)]
    for k, one in enumerate(each):
        body, error = in_numpy(model, w, one, true[k])
        assert np.abs(found[k] - body).max() < 1e-6
        assert abs(solution.outputs["error"][k] - error) < 1e-6
    report = wb.Output(minima=kernel, **model.report).value(solution.minima, w, data)
    cost = 5000 * w["exp_weights"] * report["score"] + w["exp_additive_model"]
    least = cost.min(axis=(1, 2), keepdims=True)
    share = np.exp(least - cost) if choice == "soft" else np.asarray(cost == least, dtype=float)
    np.testing.assert_allclose(report["share"], share / share.sum(axis=(1, 2), keepdims=True), rtol=1e-8)
    np.testing.assert_allclose(report["pose"], found)
    np.testing.assert_allclose(report["score"], solution.solutions[0].energy, rtol=1e-8)
    gradient = wb.implicit_gradient(expected, solution, {"error": np.ones(2)}, damping=0.0)
    random = np.random.default_rng(5)
    for name in ("mean_pose", "sigma_variance", "cameras", "joint_weights", "exp_weights", "scaling_coefficient"):
        way = random.normal(size=np.shape(w[name]))
        sums = []
        for step in (1e-5, -1e-5):
            moved = w | {name: w[name] + step * way}
            sums.append(sum(in_numpy(model, moved, one, true[k])[1] for k, one in enumerate(each)))
        slope = (sums[0] - sums[1]) / 2e-5
        assert np.sum(gradient[name] * way) == pytest.approx(slope, rel=1e-5, abs=1e-5), name


def test_an_unknown_choice_is_refused_by_name():
    bodies, ring, *_ = scene()
    with pytest.raises(wb.InputError, match="Monocular: no choice 'softly'"):
        pose.Monocular(bodies, ring.rotation, choice="softly")
