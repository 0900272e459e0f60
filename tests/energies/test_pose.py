"""The multi-camera pose model on the CMU sample: against plain NumPy, with complex steps through every parameter.

The interpreter runs most of it: compiling the pose kernels takes longer than all of these tests.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pose_in_numpy as reference
import pytest
import wiberg as wb
from wiberg.energies import pose
from wiberg.energies.pose import synthetic

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("WIBERG_SHARED", ROOT.parent / "shared")) / "data" / "pose" / "pose_data.npz"
TURNS = pose.rotations(100, every=20)


def poses() -> Any:
    with np.load(ROOT / "examples" / "data" / "cmu_poses.npz") as file:
        return file["joints"] / 10.0


@pytest.fixture(scope="module")
def scene() -> tuple[pose.BodyModels, synthetic.Ring, Any, Any, Any]:
    """Body models of some poses; detections of two others, with outliers and missing joints."""
    every = poses()
    ring = synthetic.Ring.around()
    truth = every[[11, 1200]]
    points, visible = synthetic.detect(truth, ring, seed=1)
    return pose.fit_bodies(every[::7], 2), ring, points, visible, truth


def drawn(model: pose.MultiCamera, seed: int = 0) -> dict[str, Any]:
    """Weights away from the start, at which nothing is zero or one by chance, and averages are soft."""
    random = np.random.default_rng(seed)
    w = {name: np.asarray(a) * random.uniform(0.9, 1.1, np.shape(a)) for name, a in model.weights().items()}
    w["sigma_variance"] = w["sigma_variance"] + 0.02 * random.normal(size=w["sigma_variance"].shape)
    w["exp_weights"], w["exp_weights_model"] = w["exp_weights"] * 0.02, w["exp_weights_model"] * 0.02
    w["lambda_scale"] = w["lambda_scale"] * 0.5
    return w


MODELS: dict[str, Any] = {}


def compiled(scene: Any, solver: str, choice: str = "soft") -> tuple[pose.MultiCamera, wb.Output]:
    if (solver, choice) not in MODELS:
        bodies, ring, *_ = scene
        model = pose.MultiCamera(bodies, ring.rotation, solver=solver, turns=TURNS, choice=choice)
        output = wb.Output(minima=wb.compile(model.energy, backend="reference"), **model.output)
        MODELS[solver, choice] = model, output
    return MODELS[solver, choice]


@pytest.mark.parametrize(
    "solver, choice", [("l2", "soft"), ("steps", "soft"), ("l2", "lowest-model"), ("l2", "lowest")]
)
def test_poses_and_gradients_of_every_parameter_are_those_of_plain_numpy(scene, solver, choice):
    model, output = compiled(scene, solver, choice)
    _, _, points, visible, truth = scene
    w = drawn(model)
    data = model.data(points, visible, truth)
    solution = wb.minimise(output, w, data, **model.options)
    slope = np.random.default_rng(4).normal(size=solution.outputs["pose"].shape)
    if solver == "steps":
        gradient = wb.unrolled_gradient(output, solution, {"pose": slope})
    else:
        gradient = wb.implicit_gradient(output, solution, {"pose": slope}, damping=0.0)
    each = [{n: a[k] if n in ("detections", "visible", "size") else a for n, a in data.items()} for k in range(2)]
    for k in range(2):
        found = reference.forward(w, each[k], solver, choice=choice)[0]
        np.testing.assert_allclose(solution.outputs["pose"][k], found, atol=1e-8)
    assert set(gradient) == set(w)
    for name, value in w.items():
        way = np.random.default_rng(5).normal(size=np.shape(value))
        moved = {**w, name: value + 1e-30j * way}
        slopes = [
            (slope[k] * reference.forward(moved, each[k], solver, choice=choice)[0].imag).sum() * 1e30 for k in range(2)
        ]
        ours = (np.asarray(gradient[name]) * way).sum()
        assert abs(ours - sum(slopes)) < 1e-8 * max(map(abs, slopes)) + 1e-11, name


def test_our_own_minimisation_ends_where_many_steps_of_the_authors_do(scene):
    model, output = compiled(scene, "huber")
    _, _, points, visible, truth = scene
    w, data = model.weights(), model.data(points[0], visible[0], truth[0])
    solution = wb.minimise(output, w, data, **model.options)
    assert solution.solutions[0].converged.all()
    expected = reference.forward(w, data, "steps", steps=200)[0]
    np.testing.assert_allclose(solution.outputs["pose"], expected, atol=0.02)
    three = reference.forward(w, data, "steps")[0]
    assert np.abs(three - expected).max() > 1e-4


@pytest.mark.parametrize("solver", ["l2", "steps", "huber"])
def test_gradients_have_the_same_bits_from_factors_that_were_kept(scene, solver, monkeypatch):
    model, output = compiled(scene, solver)
    _, _, points, visible, truth = scene
    w, data, options = drawn(model), model.data(points, visible, truth), dict(model.options)
    if solver == "huber":
        options["reweightings"] = 2
    slope = {"pose": np.random.default_rng(4).normal(size=(2, 17, 3))}

    def gradient(solution):
        if solver != "l2":
            return wb.unrolled_gradient(output, solution, slope)
        return wb.implicit_gradient(output, solution, slope, damping=0.0)

    plain, kept = (wb.minimise(output, w, data, **options, keep_factors=keep) for keep in (False, True))
    factors = kept.solutions[0].problem.factors
    assert plain.solutions[0].problem.factors is None
    assert len(factors) == 20 and (factors[:, 0] == (1 if solver == "l2" else 1 + options["reweightings"])).all()
    np.testing.assert_array_equal(plain.outputs["pose"], kept.outputs["pose"])
    expected, found = gradient(plain), gradient(kept)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    monkeypatch.setattr("wiberg.runtime.kept_factors.MOST", 8 * 7 * factors.shape[1])
    some = wb.minimise(output, w, data, **options, keep_factors=True)
    assert len(some.solutions[0].problem.factors) == 7
    for name, array in gradient(some).items():
        np.testing.assert_array_equal(array, expected[name])
    factors[:, 8:] *= 1.001  # they are what is read
    assert not np.array_equal(gradient(kept)["mean_pose"], expected["mean_pose"])


def test_models_without_a_share_can_be_left_out(scene):
    model, output = compiled(scene, "l2")
    _, _, points, visible, truth = scene
    w = drawn(model)
    w["exp_additive_model"] = np.array([[60.0], [1.0]])
    poses = wb.minimise(output, w, model.data(points, visible, truth)).outputs["pose"]
    fewer, own = model.of_models([1], w)
    assert len(fewer.bodies) == 1
    alone = wb.minimise(output, own, fewer.data(points, visible, truth)).outputs["pose"]
    np.testing.assert_allclose(alone, poses, atol=1e-7)
    both = wb.minimise(output, *(lambda m, v: (v, m.data(points, visible, truth)))(*model.of_models([1, 0], w)))
    np.testing.assert_allclose(both.outputs["pose"], poses, atol=1e-7)


def test_scores_and_shares_of_the_report(scene):
    model, output = compiled(scene, "l2")
    _, _, points, visible, truth = scene
    w, data = drawn(model), model.data(points[1], visible[1], truth[1])
    solution = wb.minimise(output, w, data, **model.options)
    found = wb.Output(minima=output.kernels[0], **model.report).value(solution.minima, w, data)
    _, scores, share, of_models = reference.forward(w, data, "l2")
    np.testing.assert_allclose(found["score"], scores, rtol=1e-9)
    np.testing.assert_allclose(found["share"], share, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(found["model_share"], of_models, rtol=1e-7)
    np.testing.assert_allclose(found["pose"], solution.outputs["pose"])


@pytest.mark.parametrize("solver", ["l2", "steps"])
def test_reconstructions_are_near_the_truth_and_a_missing_camera_counts_as_none(scene, solver):
    model, output = compiled(scene, solver)
    _, _, points, visible, truth = scene
    w, centred = drawn(model), truth - truth.mean(axis=1, keepdims=True)
    whole = wb.minimise(output, w, model.data(points, visible, truth), **model.options).outputs["pose"]
    assert pose.euclidean(whole, centred).max() < 150
    missing = points.copy()
    missing[:, 3] = np.nan
    three = wb.minimise(output, w, model.data(missing, visible, truth), **model.options).outputs["pose"]
    assert pose.euclidean(three, whole).min() > 1
    fewer = replace(model, average=model.average[:3])
    without = fewer.data(points[:, :3], visible[:, :3], truth)
    rig = wb.minimise(output, w | {"cameras": w["cameras"][:3]}, without, **model.options).outputs["pose"]
    np.testing.assert_allclose(three, rig, atol=1e-7)


def test_what_too_few_see_has_a_status():
    seen = np.ones((6, 4, 17))
    seen[1, 1:] = 0.0  # one camera
    seen[2, :, 5:] = 0.0  # five joints
    seen[3, :2, :8], seen[3, 2:, 8:] = 0.0, 0.0  # two cameras for each half of the joints
    seen[4, 2:], seen[4, 0, 8:], seen[4, 1, :6] = 0.0, 0.0, 0.0  # two cameras see six joints each, but only two twice
    seen[5, 2:], seen[5, :, 6:] = 0.0, 0.0  # the least that will do
    expected = ["ENOUGH", "FEW_CAMERAS", "FEW_CAMERAS", "ENOUGH", "FEW_JOINTS", "ENOUGH"]
    status = pose.frame_status(seen)
    assert [pose.Frame(one).name for one in status] == expected
    assert pose.counts(status) == {"ENOUGH": 3, "FEW_CAMERAS": 2, "FEW_JOINTS": 1}
    assert pose.view_status(seen)[[0, 1, 2]].tolist() == [[0] * 4, [0, 2, 2, 2], [2] * 4]


# ---------------------------------------------------------------------------------------------- features


def test_normalised_detections_are_centred_upside_down_and_of_height_two(scene):
    _, _, points, visible, _ = scene
    x, v = pose.normalise(points, visible)
    for frame in range(2):
        for camera in range(4):
            seen = v[frame, camera] > 0
            own, pixels = x[frame, camera][seen], points[frame, camera][seen]
            np.testing.assert_allclose(own.mean(axis=0), 0, atol=1e-12)
            assert np.isclose(np.ptp(own[:, 1]), 2.0)
            assert np.corrcoef(own[:, 1], pixels[:, 1])[0, 1] < -0.999


def test_a_camera_that_sees_nothing_has_no_weight_and_a_frame_of_one_camera_is_not_enough(scene):
    _, _, points, visible, _ = scene
    visible = visible.copy()
    visible[0, 1:], visible[1, 0] = 0.0, 0.0
    x, v = pose.normalise(points, visible)
    assert np.isfinite(x).all() and (v[0, 1:] == 0).all() and (x[0, 1:] == 0).all()
    assert pose.frame_status(v).tolist() == [pose.Frame.FEW_CAMERAS, pose.Frame.ENOUGH]


@pytest.mark.parametrize("form, count", [("mpii", 16), ("coco", 17)])
def test_other_orders_of_joints_are_mapped(form, count):
    points = np.random.default_rng(0).normal(size=(3, 4, count, 2))
    points[0, 0, 5] = np.nan
    found, seen = pose.to_joints(points, form)
    assert found.shape == (3, 4, 17, 2) and np.isfinite(found).all()
    wrist = pose.JOINTS.index("right wrist")
    np.testing.assert_array_equal(found[..., wrist, :], points[..., 10, :])
    assert seen[0, 0].sum() < seen[1, 0].sum()
    with pytest.raises(wb.InputError, match="joints: points must be"):
        pose.to_joints(points[..., :9, :], form)
    with pytest.raises(wb.InputError, match="mpii"):
        pose.to_joints(points, "mpi")


def test_alignment_undoes_turns_shifts_and_scales():
    random = np.random.default_rng(0)
    truth = random.normal(size=(5, 17, 3))
    turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    moved = 3.0 * truth @ turn + 7.0
    np.testing.assert_allclose(np.stack(pose.procrustes(moved, truth)), 0, atol=1e-12)
    assert pose.procrustes(truth * [1.0, 1.0, -1.0], truth)[1].min() > 0.1  # no reflection
    assert np.allclose(pose.euclidean(np.add(truth, [1.0, 2.0, 2.0]), truth), 3.0)


def test_body_models_are_orthonormal_and_face_one_way():
    bodies = pose.fit_bodies(poses()[::10], 3)
    flat = bodies.shapes.reshape(3, 25, 51)
    np.testing.assert_allclose(flat @ flat.transpose(0, 2, 1), np.tile(np.eye(25), (3, 1, 1)), atol=1e-9)
    hips = bodies.mean[:, :, 1] - bodies.mean[:, :, 4]
    assert (hips[:, 0] > 100).all() and np.abs(hips[:, 1]).max() < 30
    assert (np.diff(bodies.sigma[:, :25], axis=1) > -1e-12).all()


def test_what_does_not_fit_is_refused(scene):
    bodies, ring, *_ = scene
    with pytest.raises(wb.InputError, match=r"no solver 'hubr'.*huber"):
        pose.MultiCamera(bodies, ring.rotation, solver="hubr")
    with pytest.raises(wb.InputError, match=r"no choice 'best'.*one of soft, lowest-model, lowest"):
        pose.MultiCamera(bodies, ring.rotation, choice="best")
    with pytest.raises(wb.InputError, match="average cameras must be"):
        pose.MultiCamera(bodies, ring.rotation[0])
    with pytest.raises(wb.InputError, match="mu_4"):
        pose.BodyModels.of_file({}, 4)
    with pytest.raises(wb.InputError, match="too few"):
        pose.fit_bodies(np.zeros((10, 17, 3)))


# ---------------------------------------------------------------------------------------------- the authors' numbers


@pytest.mark.skipif(not SHARED.is_file(), reason="the authors' parameters are not here")
@pytest.mark.parametrize(
    "solver, parameters, expected",
    [
        ("steps", "untrained", (51.136, 54.035, 63.886)),
        ("l2", "untrained", (55.906, 63.255, 71.769)),
        ("steps", "trained", (34.244, 33.861, 36.238)),
        ("steps", "trained-loaded", (32.442, 31.371, 34.088)),
        ("l2", "trained", (33.474, 32.942, 35.310)),
    ],
)
def test_the_sample_frame_has_the_published_errors(solver, parameters, expected):
    with np.load(SHARED) as file:
        model = pose.MultiCamera(pose.BodyModels.of_file(file, 3), file["cameras"], solver=solver)
        w = model.weights() if parameters == "untrained" else {}
        w = w or model.weights_of_file(file, robust=parameters == "trained-loaded")
        truth = file["sample_pose3d"] - file["sample_pose3d"].mean(axis=0)
        data = model.data(file["sample_poses2d"], file["sample_joint_visible"], truth)
    output = wb.Output(minima=wb.compile(model.energy), **model.output)
    found = wb.minimise(output, w, data, **model.options).outputs["pose"]
    np.testing.assert_allclose((*pose.procrustes(found, truth), pose.euclidean(found, truth)), expected, atol=1e-3)
