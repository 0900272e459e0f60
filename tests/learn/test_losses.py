"""Built-in losses beside the same formulas in NumPy, their derivatives beside differences, and their kinks."""

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given
from hypothesis import strategies as st

n, d = sp.symbols("n d", integer=True, positive=True)


def arrays(*shape):
    return sp.IndexedBase("y", shape=shape), sp.IndexedBase("truth", shape=shape)


def edges(prefix, shape=()):
    names = [f"{prefix}_{side}" for side in ("left", "top", "right", "bottom")]
    return [sp.IndexedBase(name, shape=shape) if shape else sp.Symbol(name, real=True) for name in names]


@pytest.fixture(scope="module")
def losses():
    return {
        "squared": (wb.squared_error(*arrays(n, d)), lambda y, t: ((y - t) ** 2).sum()),
        "absolute": (wb.absolute_error(*arrays(n, d)), lambda y, t: np.abs(y - t).sum()),
        "huber": (
            wb.pseudo_huber_error(*arrays(n, d), scale=0.5),
            lambda y, t: 0.25 * (np.sqrt(1 + ((y - t) / 0.5) ** 2) - 1).sum(),
        ),
        "distance": (
            wb.mean_joint_distance(*arrays(n, d)),
            lambda y, t: np.linalg.norm(y - t, axis=1).mean(),
        ),
        "iou": (wb.iou_loss(*arrays(n, 4)), lambda y, t: 1 - iou(y, t)[0].mean()),
        "generalised": (wb.generalised_iou_loss(*arrays(n, 4)), lambda y, t: 1 - iou(y, t)[1].mean()),
    }


def iou(boxes, others):
    """IoU and GIoU of (n, 4) boxes, as in the paper of the latter (algorithm 1)."""
    low, high = np.maximum(boxes[:, :2], others[:, :2]), np.minimum(boxes[:, 2:], others[:, 2:])
    intersection = np.prod(np.clip(high - low, 0, None), axis=1)
    area, other = (np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (boxes, others))
    union = area + other - intersection
    hull_low, hull_high = np.minimum(boxes[:, :2], others[:, :2]), np.maximum(boxes[:, 2:], others[:, 2:])
    hull = np.prod(hull_high - hull_low, axis=1)
    return intersection / union, intersection / union - (hull - union) / hull


def draw(name, seed, count, axes):
    random = np.random.default_rng(seed)
    if name not in ("iou", "generalised"):
        return random.standard_normal((2, count, axes))
    corners, sizes = random.uniform(0, 2, (2, count, 2)), random.uniform(0.2, 2, (2, count, 2))
    return np.concatenate([corners, corners + sizes], axis=2)


NAMES = ("squared", "absolute", "huber", "distance", "iou", "generalised")


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 4), axes=st.integers(1, 4))
def test_values_are_those_of_numpy_and_gradients_of_differences(losses, name, seed, count, axes):
    loss, reference = losses[name]
    y, truth = draw(name, seed, count, axes)
    assert loss.value({"y": y}, {"truth": truth}) == pytest.approx(reference(y, truth), rel=1e-12, abs=1e-13)
    gradient = loss.gradient({"y": y}, {"truth": truth})["y"]
    h = 1e-7
    for place in np.ndindex(y.shape):
        step = np.zeros(y.shape)
        step[place] = h
        ahead, here, back = (reference(y + s * step, truth) for s in (1, 0, -1))
        if abs(ahead + back - 2 * here) > 1e-4 * h:  # a kink between, or so close to 0 that the curvature is large
            continue
        assert gradient[place] == pytest.approx((ahead - back) / (2 * h), abs=2e-6 * (1 + np.abs(y).max()))


def test_batches_and_four_symbols_give_the_same_as_one_array():
    y, truth = draw("iou", 5, 7, 4)
    for build in (wb.iou_loss, wb.generalised_iou_loss):
        one, many = build(*arrays(4)), build(*arrays(n, 4))
        four = build(edges("b"), edges("t"))
        apart = build(edges("b", (n,)), edges("t", (n,)))
        names = [str(symbol) for symbol in edges("b")], [str(symbol) for symbol in edges("t")]
        split = dict(zip(names[0], y.T, strict=True)), dict(zip(names[1], truth.T, strict=True))
        values = one.value({"y": y}, {"truth": truth})
        np.testing.assert_allclose(four.value(*split), values, rtol=1e-14)
        assert many.value({"y": y}, {"truth": truth}) == pytest.approx(values.mean(), rel=1e-14)
        assert apart.value(*split) == pytest.approx(values.mean(), rel=1e-14)
        gradients = one.gradient({"y": y}, {"truth": truth})["y"]
        np.testing.assert_allclose(np.stack(list(four.gradient(*split).values()), axis=1), gradients, rtol=1e-12)


def test_boxes_that_do_not_overlap(losses):
    y, truth = np.array([[0.0, 0.0, 1.0, 1.0]]), np.array([[3.0, 0.25, 4.0, 0.75]])
    flat, pulled = (losses[name][0].gradient({"y": y}, {"truth": truth})["y"][0] for name in ("iou", "generalised"))
    assert losses["iou"][0].value({"y": y}, {"truth": truth}) == 1.0
    assert flat.tolist() == [0.0] * 4
    before = losses["generalised"][0].value({"y": y}, {"truth": truth})
    assert before > 1.0
    moved = y + 0.1 * np.array([1.0, 0.0, 1.0, 0.0])
    assert losses["generalised"][0].value({"y": moved}, {"truth": truth}) < before
    assert pulled @ [1.0, 0.0, 1.0, 0.0] < 0.0  # towards the other


def test_a_box_turned_inside_out_has_no_area(losses):
    y, truth = np.array([[1.0, 0.0, 0.5, 1.0]]), np.array([[0.0, 0.0, 2.0, 1.0]])
    assert losses["iou"][0].value({"y": y}, {"truth": truth}) == 1.0
    assert losses["generalised"][0].value({"y": y}, {"truth": truth}) == 1.0
    assert np.isfinite(losses["generalised"][0].gradient({"y": y}, {"truth": truth})["y"]).all()


@pytest.mark.parametrize("name", ["absolute", "distance"])
def test_derivative_is_zero_where_variable_and_target_are_equal(losses, name):
    y = np.ones((2, 3))
    assert (losses[name][0].gradient({"y": y}, {"truth": y})["y"] == 0.0).all()
    assert losses[name][0].value({"y": y}, {"truth": y}) == 0.0


@pytest.mark.parametrize("name", ["iou", "generalised"])
@pytest.mark.parametrize("same", [(0,), (2,), (0, 2), (0, 1, 2, 3)])
def test_derivative_at_coinciding_edges_lies_between_those_of_the_sides(losses, name, same):
    loss, reference = losses[name]
    truth = np.array([[0.0, 0.0, 2.0, 1.0]])
    y = np.array([[0.25, 0.25, 1.5, 0.75]])
    y[0, list(same)] = truth[0, list(same)]
    gradient = loss.gradient({"y": y}, {"truth": truth})["y"][0]
    for k in range(4):
        step = 1e-7 * np.eye(4)[k]
        here = reference(y, truth)
        sides = sorted([(reference(y + step, truth) - here) / 1e-7, (here - reference(y - step, truth)) / 1e-7])
        assert sides[0] - 1e-6 <= gradient[k] <= sides[1] + 1e-6


def test_a_learner_takes_them():
    """Boxes whose corners are one off: the generalised loss finds the way also from where they do not overlap."""
    box, corner, shift = sp.IndexedBase("box", shape=(4,)), sp.IndexedBase("corner", shape=(4,)), sp.Symbol("shift")
    k = sp.Idx("k", 4)
    kernel = wb.compile(
        wb.Energy(sp.Sum((box[k] - corner[k] - shift) ** 2, k), variables=[box], weights=[shift], data=[corner])
    )
    corners = np.array([[0.0, 0.0, 1.0, 1.0], [2.0, 1.0, 3.0, 2.5]])
    batch = wb.Batch(data={"corner": corners}, targets={"truth": corners + 1.5}, start={"box": np.zeros(4)})
    truth = sp.IndexedBase("truth", shape=(4,))
    learners = [
        wb.Learner(kernel, loss(box, truth), {"shift": 0.0}, wb.SGD(wb.CosineDecay(0.2, 150), momentum=0.5))
        for loss in (wb.iou_loss, wb.generalised_iou_loss)
    ]
    learners[0].fit([batch] * 20)
    learners[1].fit([batch] * 150)
    assert learners[0].weights == {"shift": 0.0} and learners[1].weights["shift"] == pytest.approx(1.5, abs=0.02)


@pytest.mark.parametrize(
    "make, error, names",
    [
        (lambda: wb.iou_loss(*arrays(3)), wb.DeclarationError, "last axis of 4"),
        (lambda: wb.iou_loss(sp.Symbol("t"), sp.Symbol("u")), wb.DeclarationError, "last axis of 4"),
        (lambda: wb.iou_loss(edges("b")[:3], edges("t")), wb.InputTypeError, "four symbols"),
        (lambda: wb.iou_loss(edges("b", (n,)), edges("t")), wb.DeclarationError, "must be equal"),
        (lambda: wb.generalised_iou_loss(3.0, 4.0), wb.InputTypeError, "3.0"),
        (lambda: wb.mean_joint_distance(sp.Symbol("t"), sp.Symbol("u")), wb.DeclarationError, "coordinates"),
        (lambda: wb.mean_joint_distance(arrays(n, 3)[0], arrays(n, 2)[1]), wb.DeclarationError, "must be equal"),
        (lambda: wb.pseudo_huber_error(*arrays(n), scale=0.0), wb.InputError, "scale must be > 0"),
        (lambda: wb.pseudo_huber_error(*arrays(n), scale="1"), wb.InputTypeError, "scale must be a number"),
    ],
)
def test_what_does_not_fit_is_refused(make, error, names):
    with pytest.raises(error, match=names):
        make()
