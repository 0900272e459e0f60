"""Poses from calibrated cameras on the CMU sample: cameras, triangulation, the energy against SciPy, its derivatives.

The interpreter runs the energies of bodies: compiling them takes longer than all of these tests. Those of points, and
the start of all weights, are examples/pose_triangulation.py's and pose_start.py's.
"""

import importlib
import itertools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import wiberg as wb
from wiberg.energies import pose
from wiberg.energies.pose import synthetic, triangulation

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))
pose_start, pose_triangulation = (importlib.import_module(name) for name in ("pose_start", "pose_triangulation"))

DETECTED = tuple(joint for joint in range(17) if joint != synthetic.UNSEEN)


def turned(points: Any, angle: float) -> Any:
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])


@pytest.fixture(scope="module")
def truth() -> Any:
    with np.load(EXAMPLES / "data" / "cmu_poses.npz") as file:
        every = file["joints"][::6] / 10.0
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, len(every))
    return np.stack([turned(one, angle) for one, angle in zip(every, angles, strict=True)])


def rig(ring: synthetic.Ring, **lens: Any) -> pose.Cameras:
    return pose.Cameras(ring.rotation, ring.position, np.array(1145.0), np.array(512.0), **lens)


@pytest.fixture(scope="module")
def scene(truth: Any) -> dict[str, Any]:
    """A model of two components with weights away from the start, and what four cameras see of all poses."""
    ring = synthetic.Ring.around()
    points, visible = synthetic.detect(truth, ring, seed=1)
    points, visible, cameras = points[:, :, DETECTED], visible[:, :, DETECTED], rig(ring)
    model = pose.Calibrated(DETECTED, components=2)
    features = pose_triangulation.features(model, cameras, points, visible)
    weights = pose_start.start(model, truth, features)
    random = np.random.default_rng(2)
    drawn = {name: np.asarray(w) * random.uniform(0.9, 1.1, np.shape(w)) for name, w in weights.items()}
    drawn |= {"sharpness": -3.0, "log_prior": np.array([0.0, -0.4])}  # both components count
    output = wb.Output(minima=wb.compile(model.energy, backend="reference"), **model.output)
    return {
        "model": model,
        "output": output,
        "cameras": cameras,
        "points": points,
        "visible": visible,
        "features": features,
        "start": weights,
        "weights": drawn,
    }


def some(scene: Any, rows: Any) -> dict[str, Any]:
    return {name: array[rows] for name, array in scene["features"].data.items()}


def reference_energy(Y: Any, w: Any, x: Any, m: int) -> float:
    """E_m as the docstring says it, for one frame."""
    bones = Y[1:] - Y[0]
    P = Y[0] + w["joint_map"] @ bones + w["offset"]
    r = w["omega"][..., None] * (np.einsum("ckxd,kd->ckx", x["view"], P) - x["seen_at"])
    robust = w["delta"] ** 2 * (np.sqrt(1 + (r**2).sum(axis=-1) / w["delta"] ** 2) - 1)
    z = 10.0 * w["precision"][m].reshape(48, 48).T @ (bones - w["mean"][m]).ravel()
    return float(robust.sum() + z @ z / 2)


# ---------------------------------------------------------------------------------------------- energy


def test_minima_and_pose_are_those_of_scipy(scene):
    w, x = scene["weights"], some(scene, 5)
    solution = wb.minimise(scene["output"], w, x)
    assert solution.solutions[0].converged.all()
    energies, minima = [], []
    for m in range(2):
        found = scipy.optimize.minimize(
            lambda y, m=m: reference_energy(y.reshape(17, 3), w, x, m), np.zeros(51), method="BFGS", tol=1e-9
        )
        minima.append(found.x.reshape(17, 3))
        energies.append(found.fun)
    np.testing.assert_allclose(solution.minima["Y"], minima, atol=2e-4)
    np.testing.assert_allclose(solution.solutions[0].energy, energies, rtol=1e-6)
    share = scipy.special.softmax(w["log_prior"] - np.exp(w["sharpness"]) * np.array(energies))
    assert share.min() > 0.05
    np.testing.assert_allclose(solution.outputs["share"], share, rtol=1e-4)
    expected = x["centre"] + 1000 * x["size"] * np.einsum("m,mjp,pd->jd", share, np.array(minima), x["turn"])
    np.testing.assert_allclose(solution.outputs["pose"], expected, atol=0.2)


def test_the_energy_is_convex(scene):
    kernel, w, x = scene["output"].kernels[0], scene["weights"], some(scene, 3)
    own = {str(name): w[str(name)] for name in kernel.energy.weights}
    seen = {name: x[name] for name in ("view", "seen_at")}
    for seed in range(3):
        Y = np.random.default_rng(seed).normal(scale=2.0, size=(2, 17, 3))
        assert np.linalg.eigvalsh(kernel.hessian({"Y": Y}, own, seen)).min() > 0


def test_gradients_of_all_weights_are_differences_of_the_loss_of_minima(scene, truth):
    w, x, rows = scene["weights"], some(scene, [40]), [40]
    loss = wb.Loss(**scene["model"].loss)

    def judged(weights: Any) -> float:
        found = wb.minimise(scene["output"], weights, x, gtol=1e-10).outputs["pose"]
        off = found - truth[rows]
        size = [
            np.linalg.norm(a, axis=-1).mean() for a in (off - off.mean(axis=1, keepdims=True), off - off[:, :1], off)
        ]
        return float(0.5 * size[0] + 0.5 * size[1] + 0.2 * size[2])

    solution = wb.minimise(scene["output"], w, x, gtol=1e-10)
    slope = loss.gradient({"pose": solution.outputs["pose"]}, {"truth": truth[rows]})
    gradient = wb.implicit_gradient(scene["output"], solution, slope, damping=0.0, unconverged="use")
    assert set(gradient) == set(w)
    for name, value in w.items():
        way = np.random.default_rng(3).normal(size=np.shape(value)) * np.abs(value).max() * 1e-5
        expected = (judged({**w, name: value + way}) - judged({**w, name: value - way})) / 2
        assert np.isclose((np.asarray(gradient[name]) * way).sum(), expected, rtol=1e-4, atol=1e-9), name


def test_bones_are_held_to_given_lengths(scene):
    """Minima, the frame's own lengths and shares of the energy with bones, against SciPy and the formula."""
    model, w, x = scene["model"], scene["weights"], some(scene, 7)
    output = wb.Output(minima=wb.compile(model.person, backend="reference"), **model.person_output)
    plain = wb.minimise(scene["output"], w, x)
    free = wb.minimise(output, w, x | model.bones(np.ones(16), 0.0))
    np.testing.assert_allclose(free.outputs["pose"], plain.outputs["pose"], atol=1e-3)
    ends = np.array(pose.EDGES)

    def own(Y: Any) -> Any:
        return np.linalg.norm(Y[..., ends[:, 1], :] - Y[..., ends[:, 0], :], axis=-1)

    wanted = 1.1 * own(plain.minima["Y"][0])
    found = wb.minimise(output, w, x | model.bones(wanted, 3000.0), gtol=1e-8)
    assert found.solutions[0].converged.all()
    energies = []
    for m in range(2):
        least = scipy.optimize.minimize(
            lambda y, m=m: (
                reference_energy(y.reshape(17, 3), w, x, m) + 1500 * ((own(y.reshape(17, 3)) - wanted) ** 2).sum()
            ),
            plain.minima["Y"][m].ravel(),
            method="BFGS",
            tol=1e-9,
        )
        np.testing.assert_allclose(found.minima["Y"][m], least.x.reshape(17, 3), atol=1e-3)
        energies.append(least.fun)
    share = scipy.special.softmax(w["log_prior"] - np.exp(w["sharpness"]) * np.array(energies))
    np.testing.assert_allclose(found.outputs["share"], share, rtol=1e-3)
    np.testing.assert_allclose(found.outputs["own"], share @ own(found.minima["Y"]), atol=1e-6)
    assert np.abs(found.outputs["own"] / wanted - 1).max() < np.abs(own(plain.minima["Y"]) / wanted - 1).max() / 2


def test_a_missing_camera_counts_as_no_camera(scene):
    model, w, rows = scene["model"], scene["weights"], slice(0, 6)
    points, visible = scene["points"][rows].copy(), scene["visible"][rows].copy()
    points[:, 3], visible[2, 3] = np.nan, 0.0
    data = pose_triangulation.features(model, scene["cameras"], points, visible).data
    assert all(np.isfinite(array).all() for array in data.values())
    four = wb.minimise(scene["output"], w, data).outputs["pose"]
    fewer = replace(model, cameras=3)
    three = pose.Cameras(*(getattr(scene["cameras"], name)[:3] for name in pose.Cameras.__dataclass_fields__))
    less = {**w, "omega": w["omega"][:3]}
    seen = pose_triangulation.features(fewer, three, points[:, :3], visible[:, :3])
    found = wb.minimise(scene["output"], less, seen.data).outputs["pose"]
    np.testing.assert_allclose(four, found, atol=1e-6)


def test_what_too_few_see_has_a_status(scene):
    points, visible = scene["points"][:5], scene["visible"][:5].copy()
    visible[1, 1:] = 0.0  # one camera
    visible[2] = 0.0
    visible[2, :, 10:] = 1.0  # six joints: a head and arms
    visible[3, :2, :8], visible[3, 2:, 8:] = 0.0, 0.0  # two cameras for each half of the joints
    visible[4, :, [DETECTED.index(j) for j in (1, 4, 11, 14)]] = 0.0
    status = pose_triangulation.features(scene["model"], scene["cameras"], points, visible).status
    assert status.tolist() == [
        pose.Frame.ENOUGH,
        pose.Frame.FEW_CAMERAS,
        pose.Frame.ENOUGH,
        pose.Frame.ENOUGH,
        pose.Frame.NO_HEADING,
    ]
    visible[0] = 0.0
    visible[0, :2, :6], visible[0, 1, 8:] = 1.0, 1.0
    visible[0, 1, :3] = 0.0  # two cameras see six joints each, but only three the same
    assert (
        pose_triangulation.features(scene["model"], scene["cameras"], points, visible).status[0]
        == pose.Frame.FEW_JOINTS
    )


def test_poses_turn_and_move_with_the_world(scene):
    model, w, rows, features = scene["model"], scene["weights"], slice(0, 4), pose_triangulation.features
    points, visible, cameras = scene["points"][rows], scene["visible"][rows], scene["cameras"]
    here = wb.minimise(scene["output"], w, features(model, cameras, points, visible).data).outputs["pose"]
    shift = np.array([300.0, -200.0, 50.0])
    there = replace(cameras, rotation=turned(cameras.rotation, 0.7), position=turned(cameras.position, 0.7) + shift)
    moved = wb.minimise(scene["output"], w, features(model, there, points, visible).data).outputs["pose"]
    np.testing.assert_allclose(moved, turned(here, 0.7) + shift, atol=0.002)


def test_the_joint_map_is_ridge_regression(scene, truth):
    """Of a point of which nothing is left out, by the normal equations."""
    bones = np.random.default_rng(4).normal(scale=0.2, size=(200, 16, 3))
    prior = np.eye(16)[:2]
    point = np.einsum("kb,nbd->nkd", prior + 0.1, bones) + 0.02
    point[::7, 1] = np.nan
    coefficients, offsets = pose_start._map_of(point, bones, prior)
    for k in range(2):
        x, y = (a[np.isfinite(point[:, k, 0])] for a in (bones, point[:, k]))
        a = np.concatenate([x.transpose(0, 2, 1).reshape(-1, 16), np.tile(np.eye(3), (len(x), 1))], axis=1)
        ridge = np.diag([len(x) * 0.03**2] * 16 + [0.0] * 3)
        right = a.T @ y.ravel() + ridge @ np.append(prior[k], np.zeros(3))
        expected = np.linalg.solve(a.T @ a + ridge, right)
        np.testing.assert_allclose(np.append(coefficients[k], offsets[k]), expected, atol=1e-8)


def test_the_closed_form_is_nearer_than_triangulation(scene, truth):
    train, test = np.arange(0, len(truth), 2), np.arange(1, len(truth), 50)
    features, model = scene["features"], scene["model"]
    own = pose.Features(features.points[train], features.status[train], some(scene, train))
    w = pose_start.start(model, truth[train], own)
    found = wb.minimise(scene["output"], w, some(scene, test)).outputs["pose"]
    joints = list(DETECTED)

    def error(poses: Any) -> float:
        off = poses - truth[test][:, joints]
        return float(np.nanmean(np.linalg.norm(off, axis=-1)))

    assert error(found[:, joints]) < 0.97 * error(features.points[test])


# ---------------------------------------------------------------------------------------------- cameras, triangulation


def test_lenses_are_undone(truth):
    ring = synthetic.Ring.around()
    plain = rig(ring)
    bent = rig(ring, radial=np.array([-0.2, 0.24, -0.003]), tangential=np.array([-0.001, -0.002]))
    pixels = bent.project(truth[:20])
    assert np.abs(pixels - plain.project(truth[:20])).max() > 1.0
    np.testing.assert_allclose(plain.project(truth[:20]), ring.project(truth[:20]), atol=1e-9)
    np.testing.assert_allclose(bent.undistort(pixels), plain.undistort(ring.project(truth[:20])), atol=1e-12)
    x = plain.undistort(ring.project(truth[:1]))[0, 2, 5]  # and what the formula says of one point
    r2 = x @ x
    factor = 1 - 0.2 * r2 + 0.24 * r2**2 - 0.003 * r2**3 - 0.001 * x[1] - 0.002 * x[0]
    np.testing.assert_allclose(pixels[0, 2, 5], 1145 * (x * factor + r2 * np.array([-0.002, -0.001])) + 512)


def test_triangulation_finds_points_and_the_robust_one_does_not_mind_a_wrong_camera(truth):
    ring = synthetic.Ring.around()
    points, seen = ring.project(truth[:30]), np.ones((30, 4, 17))
    rays = triangulation.Rays.of(rig(ring), points, seen)
    np.testing.assert_allclose(pose_triangulation.linear(rays), truth[:30], atol=1e-5)
    np.testing.assert_allclose(pose_triangulation.robust(rays), truth[:30], atol=1e-5)
    off = points + np.where(np.arange(4)[:, None, None] == 1, 150.0, 0.0)
    rays = triangulation.Rays.of(rig(ring), off, seen)
    plain, robust = (
        np.linalg.norm(f(rays) - truth[:30], axis=-1) for f in (pose_triangulation.linear, pose_triangulation.robust)
    )
    assert np.median(plain) > 100 and np.quantile(robust, 0.95) < 30
    seen[0, 1:, 4], points[1, :3, 7] = 0.0, np.nan
    found = pose_triangulation.robust(triangulation.Rays.of(rig(ring), points, seen))
    assert np.isnan(found[0, 4]).all() and np.isnan(found[1, 7]).all() and np.isfinite(found).sum() == 3 * (30 * 17 - 2)


def robust_cost(rays: triangulation.Rays, point: Any, frame: int, k: int) -> float:
    """The energy of a point as the docstring says it."""
    off = rays.rows[frame, :, k] @ point - rays.constants[frame, :, k]
    squared = 25e6 * (off**2).sum(axis=-1) / np.maximum(rays.depth_rows @ point - rays.depth_constants, 1) ** 2
    return float((rays.seen[frame, :, k] * squared / (2 * (1 + squared / 80.0**2))).sum())


def test_robust_points_are_minima_and_no_pair_of_cameras_starts_at_a_lower_one(scene):
    rows = slice(0, 12)
    rays = triangulation.Rays.of(scene["cameras"], scene["points"][rows], scene["visible"][rows])
    found, checked = pose_triangulation.robust(rays), 0
    for frame, k in itertools.product(range(12), range(0, 16, 3)):
        views = np.flatnonzero(rays.seen[frame, :, k])
        if len(views) < 2:
            continue
        pairs = list(itertools.combinations(views, 2)) if len(views) > 2 else []
        starts = []
        for chosen in [list(views), *map(list, pairs)]:
            a, b = rays.rows[frame, chosen, k].reshape(-1, 3), rays.constants[frame, chosen, k].ravel()
            starts.append(np.linalg.lstsq(a, b, rcond=None)[0])
        cost = [robust_cost(rays, start, frame, k) for start in starts]
        least = scipy.optimize.minimize(
            lambda x, frame=frame, k=k: robust_cost(rays, x, frame, k), starts[int(np.argmin(cost))], tol=1e-9
        )
        assert robust_cost(rays, found[frame, k], frame, k) <= least.fun + 1e-6
        np.testing.assert_allclose(found[frame, k], least.x, atol=0.05)
        checked += 1
    assert checked > 50


def test_headings_and_sizes(truth):
    turn, known = triangulation.heading(truth, tuple(range(17)))
    across = truth[:, 1] - truth[:, 4] + truth[:, 14] - truth[:, 11]
    seen = np.einsum("ndp,np->nd", turn, across)
    assert known.all() and (seen[:, 0] > 0).all()
    np.testing.assert_allclose(seen[:, 1], 0, atol=1e-9)
    np.testing.assert_allclose(turn @ turn.transpose(0, 2, 1), np.tile(np.eye(3), (len(truth), 1, 1)), atol=1e-12)
    people = np.arange(len(truth)) % 2
    larger = truth * np.where(people, 1.2, 1.0)[:, None, None]
    both = triangulation.sizes(larger, tuple(range(17)), people)
    assert np.ptp(both[people == 0]) == np.ptp(both[people == 1]) == 0
    assert 1.15 < both[1] / both[0] < 1.25
    assert triangulation.sizes(np.full((2, 17, 3), np.nan), tuple(range(17))).tolist() == [1.0, 1.0]


def test_what_does_not_fit_is_refused(scene):
    with pytest.raises(wb.InputError, match="detected twice"):
        pose.Calibrated((1, 1))
    with pytest.raises(wb.InputError, match="numbers of our 17 joints"):
        pose.Calibrated((17,))
    with pytest.raises(wb.InputError, match=r"must be \(..., 4, 16, 2\)"):
        scene["model"].rays(scene["cameras"], scene["points"][:, :3], 1.0)
    with pytest.raises(wb.InputError, match="position must broadcast"):
        pose.Cameras(np.zeros((4, 3, 3)), np.zeros((3, 3)), np.ones(2), np.ones(2))
    with pytest.raises(wb.InputError, match="too few"):
        few = {name: array[:9] for name, array in scene["features"].data.items()}
        features = pose.Features(scene["features"].points[:9], scene["features"].status[:9], few)
        pose_start.start(scene["model"], np.zeros((9, 17, 3)), features)


def test_bones_of_a_person_are_shared(truth):
    random = np.random.default_rng(0)
    noisy = truth[:60] + random.normal(scale=20.0, size=(60, 17, 3))
    noisy[7] = np.nan
    people = np.repeat(["a", "b"], 30)
    whole = pose.steadied(noisy, people, share=1.0)
    ends = np.array(pose.EDGES)
    used = np.delete(np.arange(60), 7)

    def lengths(poses: Any) -> Any:
        return np.linalg.norm(poses[:, ends[:, 1]] - poses[:, ends[:, 0]], axis=-1)

    for person in "ab":
        own = used[people[used] == person]
        np.testing.assert_allclose(lengths(whole[own]), np.tile(np.median(lengths(noisy[own]), axis=0), (len(own), 1)))
    np.testing.assert_allclose(whole[used].mean(axis=1), noisy[used].mean(axis=1), atol=1e-9)
    assert np.isnan(whole[7]).all()
    half = pose.steadied(noisy, people)[used]
    np.testing.assert_allclose(lengths(half), (lengths(noisy[used]) + lengths(whole[used])) / 2)
    error = [np.linalg.norm(poses - truth[used], axis=-1).mean() for poses in (noisy[used], half)]
    assert error[1] < error[0]
    np.testing.assert_allclose(pose.steadied(noisy, people, share=0.0), noisy)
