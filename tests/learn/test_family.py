"""Derivatives through the minima of families, and learning from losses that see all members."""

import numpy as np
import pytest
import sympy as sp
import wiberg as wb

n, k = sp.symbols("n k", integer=True, positive=True)
m, i, j = sp.Idx("m", n), sp.Idx("i", 4), sp.Idx("j", k)
t = sp.Symbol("t", real=True)
y, b = sp.IndexedBase("y", shape=(k,)), sp.IndexedBase("b", shape=(k,))
a, x = sp.IndexedBase("a", shape=(n,)), sp.IndexedBase("x", shape=(n, k))
MEMBERS, SIZE, BATCH = 3, 5, 2
START = {"t": 0.1, "y": np.zeros(SIZE)}


def robust():
    residual = x[m, j] - y[j] * sp.cos(i + t) - a[m] * t
    formula = sp.Sum(b[j] * (sp.sqrt(1 + residual**2) - 1), j) + sp.Sum(y[j] ** 2, j) / 10 + t**2
    return wb.Energy(formula, variables=[t, y], weights=[a, b], data=[x], over=[m, i], name="robust")


@pytest.fixture(scope="module", params=["reference", "numba"])
def kernel(request):
    return wb.compile(robust(), backend=request.param)


def given(seed=0):
    rng = np.random.default_rng(seed)
    w = {"a": rng.normal(size=MEMBERS), "b": 1 + rng.random(SIZE)}
    return w, {"x": rng.normal(size=(BATCH, MEMBERS, SIZE))}


def minima(kernel, w, data):
    return wb.minimise(kernel, w, data, start=START, gtol=1e-12)


def slopes(seed=1):
    rng = np.random.default_rng(seed)
    return {"t": rng.normal(size=(BATCH, MEMBERS, 4)), "y": rng.normal(size=(BATCH, MEMBERS, 4, SIZE))}


def moved(w, name, place, step):
    array = np.array(w[name])
    array[place] += step
    return {**w, name: array}


def differences(function, w):
    """Central differences of a number by every weight."""
    found = {}
    for name, array in w.items():
        found[name] = np.empty(np.shape(array))
        for place in np.ndindex(np.shape(array)):
            up, down = (function(moved(w, name, place, step)) for step in (1e-5, -1e-5))
            found[name][place] = (up - down) / 2e-5
    return found


def test_the_gradient_is_that_of_minimising_again(kernel):
    w, data = given()
    loss = slopes()

    def followed(weights):
        variables = minima(kernel, weights, data).variables
        return sum(float((loss[name] * variables[name]).sum()) for name in loss)

    gradient = wb.implicit_gradient(kernel, minima(kernel, w, data), loss, damping=0.0)
    expected = differences(followed, w)
    for name in w:
        np.testing.assert_allclose(gradient[name], expected[name], rtol=1e-5, atol=1e-6)


def test_the_jacobian_has_the_axes_of_the_family_and_gives_the_gradient(kernel):
    w, data = given()
    solution = minima(kernel, w, data)
    jacobian = wb.implicit_jacobian(kernel, solution)
    assert jacobian.shape == (BATCH, MEMBERS, 4, 1 + SIZE, MEMBERS + SIZE)
    packed = kernel.variables.pack(slopes())
    kernel.weights.pack(w)  # tells the extents
    expected = kernel.weights.unpack(np.einsum("bmiy,bmiyw->w", packed, jacobian))
    gradient = wb.implicit_gradient(kernel, solution, slopes())
    for name in w:
        np.testing.assert_allclose(gradient[name], expected[name], rtol=1e-10, atol=1e-12)
    one = minima(kernel, w, {"x": data["x"][0]})
    np.testing.assert_array_equal(wb.implicit_jacobian(kernel, one), jacobian[0])


def test_a_member_moves_with_its_own_weights_only(kernel):
    w, data = given()
    jacobian = wb.implicit_jacobian(kernel, minima(kernel, w, data))[..., :MEMBERS]
    for member in range(MEMBERS):
        others = np.delete(jacobian[:, member], member, axis=-1)
        assert not others.any()
        assert jacobian[:, member, :, :, member].any()


def test_weights_of_each_instance_get_gradients_of_each_instance(kernel):
    w, data = given()
    own = {"a": np.stack([w["a"], w["a"] + 0.1]), "b": w["b"]}
    gradient = wb.implicit_gradient(kernel, minima(kernel, own, data), slopes())
    assert (gradient["a"].shape, gradient["b"].shape) == ((BATCH, MEMBERS), (SIZE,))
    total = np.zeros(SIZE)
    for instance in range(BATCH):
        alone = minima(kernel, {"a": own["a"][instance], "b": w["b"]}, {"x": data["x"][instance]})
        part = wb.implicit_gradient(kernel, alone, {name: s[instance] for name, s in slopes().items()})
        np.testing.assert_allclose(gradient["a"][instance], part["a"], rtol=1e-12)
        total += part["b"]
    np.testing.assert_allclose(gradient["b"], total, rtol=1e-12)


def test_slopes_of_other_shapes_are_refused(kernel):
    w, data = given()
    with pytest.raises(wb.InputError, match=r"loss_gradient\['t'\] must have shape \(2, 3, 4\).*got \(3, 4\)"):
        wb.implicit_gradient(kernel, minima(kernel, w, data), {"t": np.zeros((3, 4))})


def broken(kernel):
    """A solution of which two members did not converge."""
    w, data = given()
    start = {"t": np.full((BATCH, MEMBERS, 4), 0.1), "y": np.zeros(SIZE)}
    start["t"][1, 2, 3] = np.inf
    start["t"][0, 1, 0] = np.nan
    return wb.minimise(kernel, w, data, start=start, gtol=1e-12), w, data


def test_members_that_did_not_converge_add_nothing_and_are_named(kernel):
    solution, w, data = broken(kernel)
    with pytest.warns(wb.UnconvergedWarning, match=r"2 of 24 members .* first: \(0, 1, 0\), \(1, 2, 3\)\)"):
        gradient = wb.implicit_gradient(kernel, solution, slopes())
    zero = slopes()
    for slope in zero.values():
        slope[0, 1, 0] = slope[1, 2, 3] = 0.0
    expected = wb.implicit_gradient(kernel, minima(kernel, w, data), zero)
    for name in w:
        np.testing.assert_allclose(gradient[name], expected[name], rtol=1e-12)
    with pytest.raises(wb.NumericalError, match="2 of 24 members"):
        wb.implicit_gradient(kernel, solution, slopes(), unconverged="raise")
    assert np.isnan(wb.implicit_gradient(kernel, solution, slopes(), unconverged="nan")["a"]).all()


def test_a_singular_member_is_named():
    energy = wb.Energy(a[m] * (t - b[0]) ** 2, variables=[t], weights=[a], data=[b], over=[m])
    kernel = wb.compile(energy, backend="reference")
    solution = wb.minimise(kernel, {"a": [1.0, 0.0]}, {"b": np.ones((3, 1))}, start={"t": 0.0})
    with pytest.raises(wb.NumericalError, match=r"member \(0, 1\) has a singular Hessian .*3 of 6 members"):
        wb.implicit_gradient(kernel, solution, {"t": np.ones((3, 2))}, damping=0.0)


def test_large_sparse_families_are_differentiated_too():
    g, r = sp.IndexedBase("g", shape=(3,)), sp.Idx("r", 3)
    inner = sp.Idx("j", (0, k - 2))
    formula = sp.Sum((y[j] - b[j]) ** 2, j) + g[r] * sp.Sum(sp.sqrt(1 + (y[inner + 1] - y[inner]) ** 2), inner)
    kernel = wb.compile(wb.Energy(formula, variables=[y], weights=[g], data=[b], over=[r]))
    noisy, size = np.random.default_rng(0).normal(size=(2, 250)).cumsum(axis=1), 250
    slope = np.random.default_rng(1).normal(size=(2, 3, size))

    def solved(weights):
        return wb.minimise(kernel, weights, {"b": noisy}, start={"y": np.zeros(size)}, gtol=1e-11)

    w = {"g": np.array([0.1, 1.0, 5.0])}
    gradient = wb.implicit_gradient(kernel, solved(w), {"y": slope}, damping=0.0)
    expected = differences(lambda weights: float((solved(weights).variables["y"] * slope).sum()), w)
    np.testing.assert_allclose(gradient["g"], expected["g"], rtol=1e-5)
    jacobian = wb.implicit_jacobian(kernel, solved(w), damping=0.0)
    np.testing.assert_allclose(np.einsum("bry,bryw->w", slope, jacobian), gradient["g"], rtol=1e-8)
    own = {"g": np.stack([w["g"], w["g"]])}
    each = wb.implicit_gradient(kernel, solved(own), {"y": slope}, damping=0.0)["g"]
    np.testing.assert_allclose(each.sum(axis=0), gradient["g"], rtol=1e-8)


# ------------------------------------------------------------------------------------------- losses and learners

T, Y = sp.IndexedBase("t", shape=(n, 4)), sp.IndexedBase("y", shape=(n, 4, k))
goal, width = sp.IndexedBase("goal", shape=(k,)), sp.IndexedBase("width", shape=(n,))


def soft_average(*, order=(T, Y)):
    """How far the mean over all members is from a goal, and a term of the other variable, which weighs members."""
    mean = sp.Sum(Y[m, i, j], m, i) / 12
    loss = sp.Sum((mean - goal[j]) ** 2, j) + sp.Sum(width[m] * T[m, i] ** 2, m, i)
    return wb.Loss(loss, variables=list(order), targets=[goal, width])


def targets():
    rng = np.random.default_rng(4)
    return {"goal": rng.normal(size=(BATCH, SIZE)), "width": np.array([0.5, 1.0, 2.0])}


@pytest.mark.parametrize("order", [(T, Y), (Y, T)])
def test_a_learner_follows_the_derivative_of_a_loss_over_all_members(kernel, order):
    w, data = given()
    batch = wb.Batch(data=data, targets=targets(), start=START)
    learner = wb.Learner(kernel, soft_average(order=order), weights=w, optimiser=wb.SGD(1.0), damping=0.0, gtol=1e-12)
    history = learner.fit(batch, steps=1)

    def total(weights):
        variables = minima(kernel, weights, data).variables
        first = ((variables["y"].mean(axis=(1, 2)) - targets()["goal"]) ** 2).sum(axis=1)
        return float((first + (targets()["width"][:, None] * variables["t"] ** 2).sum(axis=(1, 2))).mean())

    assert history.loss[0] == pytest.approx(total(w), rel=1e-10)
    expected = differences(total, w)
    for name in w:
        np.testing.assert_allclose(w[name] - learner.weights[name], expected[name], rtol=1e-5, atol=1e-7)


def test_a_learner_learns_and_predicts_families(kernel, tmp_path):
    w, data = given()
    batch = wb.Batch(data=data, targets=targets(), start=START)
    learner = wb.Learner(kernel, soft_average(), weights=w, optimiser=wb.SGD(0.5, momentum=0.5))
    history = learner.fit(batch, steps=20)
    assert history.loss[-1] < 0.98 * history.loss[0]
    assert learner.predict(data, start=START)["y"].shape == (BATCH, MEMBERS, 4, SIZE)
    learner.save(tmp_path / "family.wiberg")
    again = wb.Learner.load(tmp_path / "family.wiberg", kernel, soft_average())
    learner.fit(batch, steps=2)
    again.fit(batch, steps=2)
    np.testing.assert_array_equal(again.weights["b"], learner.weights["b"])


def test_a_loss_may_read_some_of_the_variables(kernel):
    w, data = given()
    loss = wb.Loss(sp.Sum(Y[m, i, j] ** 2, m, i, j), variables=[Y])
    learner = wb.Learner(kernel, loss, weights=w, optimiser=wb.SGD(1.0), damping=0.0, gtol=1e-12)
    learner.fit(wb.Batch(data=data, start=START), steps=1)
    solution = minima(kernel, w, data)
    gradient = wb.implicit_gradient(kernel, solution, {"y": 2 * solution.variables["y"] / BATCH}, damping=0.0)
    for name in w:
        np.testing.assert_allclose(w[name] - learner.weights[name], gradient[name], rtol=1e-9, atol=1e-12)


def test_an_instance_counts_where_all_its_members_do(kernel):
    w, data = given()
    start = {"t": np.full((BATCH, MEMBERS, 4), 0.1), "y": np.zeros(SIZE)}
    start["t"][1, 2, 3] = np.inf
    learner = wb.Learner(kernel, soft_average(), weights=w, optimiser=wb.SGD(1.0), gtol=1e-12)
    history = learner.fit(wb.Batch(data=data, targets=targets(), start=start), steps=1)
    first = {"goal": targets()["goal"][0], "width": targets()["width"]}
    alone = wb.Learner(kernel, soft_average(), weights=w, optimiser=wb.SGD(0.5), gtol=1e-12)
    expected = alone.fit(wb.Batch(data={"x": data["x"][0]}, targets=first, start=START), steps=1)
    assert history.loss[0] == pytest.approx(expected.loss[0], rel=1e-12)
    assert history.unconverged[0] == pytest.approx(1 / 24)
    for name in w:
        np.testing.assert_allclose(learner.weights[name], alone.weights[name], rtol=1e-12)


def test_a_loss_without_the_axes_of_the_family_is_refused(kernel):
    loss = wb.Loss(sp.Sum(y[j] ** 2, j), variables=[y])
    with pytest.raises(
        wb.InputError, match=r"is a family over 2; in a loss it has the axes of over= in front: y\[m, i"
    ):
        wb.Learner(kernel, loss, weights=given()[0])


def test_a_loss_of_another_number_of_members_is_refused(kernel):
    small = sp.IndexedBase("t", shape=(n, 2))
    loss = wb.Loss(sp.Sum(small[m, 0] ** 2, m), variables=[small])
    learner = wb.Learner(kernel, loss, weights=given()[0])
    with pytest.raises(wb.InputError, match=r"t .*\(n, 2\).*have shape \(3, 4\)|n, 2"):
        learner.fit(wb.Batch(data=given()[1], start=START), steps=1)


def test_a_learner_keeps_members_within_bounds_of_their_own(kernel, tmp_path):
    w, data = given()
    low = np.linspace(-0.2, 0.2, MEMBERS * 4).reshape(MEMBERS, 4)
    bounds = {"t": (low, low + 0.1), "y": (None, np.full(SIZE, 0.4))}
    batch = wb.Batch(data=data, targets=targets(), start=START)
    options = {"bounds": bounds, "gtol": 1e-12}
    learner = wb.Learner(kernel, soft_average(), weights=w, optimiser=wb.SGD(1.0), damping=0.0, **options)
    learner.fit(batch, steps=1)

    def total(weights):
        variables = wb.minimise(kernel, weights, data, start=START, **options).variables
        first = ((variables["y"].mean(axis=(1, 2)) - targets()["goal"]) ** 2).sum(axis=1)
        return float((first + (targets()["width"][:, None] * variables["t"] ** 2).sum(axis=(1, 2))).mean())

    expected = differences(total, w)
    for name in w:
        np.testing.assert_allclose(w[name] - learner.weights[name], expected[name], rtol=1e-4, atol=1e-6)
    found = learner.predict(data, start=START)["t"]
    assert (found >= low).all() and (found <= low + 0.1).all() and (found == low).any()
    learner.save(tmp_path / "bounded.wiberg")
    again = wb.Learner.load(tmp_path / "bounded.wiberg", kernel, soft_average())
    np.testing.assert_array_equal(again.predict(data, start=START)["t"], found)


@pytest.mark.parametrize("method", ["irls", "l-bfgs", "newton-cg"])
def test_a_learner_minimises_families_by_every_method(kernel, method):
    t_free = robust().expression.subs(t, sp.Rational(1, 10))
    affine = wb.Energy(t_free, variables=[y], weights=[a, b], data=[x], over=[m, i])
    affine = wb.compile(affine, backend=kernel.backend)
    w, data = given()
    loss = wb.Loss(sp.Sum(Y[m, i, j] ** 2, m, i, j), variables=[Y])
    batch = wb.Batch(data=data, start={"y": np.zeros(SIZE)})
    steps = {}
    for name in ("trust-region", method):
        options = {"optimiser": wb.SGD(1.0), "gtol": 1e-10, "max_iterations": 1000}
        learner = wb.Learner(affine, loss, weights=w, method=name, **options)
        learner.fit(batch, steps=1)
        steps[name] = learner.weights
    for name, before in w.items():
        np.testing.assert_allclose(steps[method][name], steps["trust-region"][name], rtol=1e-6, atol=1e-8)
        assert not np.allclose(before, steps[method][name])


@pytest.mark.parametrize("batched", [False, True])
def test_unrolled_derivatives_are_those_of_the_steps_of_every_member(kernel, batched):
    """Against central differences of three reweightings."""
    formula = robust().expression.subs(t, sp.Rational(1, 10))
    family = wb.compile(
        wb.Energy(formula, variables=[y], weights=[a, b], data=[x], over=[m, i]), backend=kernel.backend
    )
    w, data = given()
    if batched:
        w = {**w, "a": np.stack([w["a"], -w["a"]])}
    slope = slopes()["y"]

    def loss(weights):
        options = {"start": {"y": np.zeros(SIZE)}, "method": "irls", "reweightings": 3}
        return wb.minimise(family, weights, data, **options)

    found = wb.unrolled_gradient(family, loss(w), {"y": slope})
    expected = differences(lambda weights: float((slope * loss(weights).variables["y"]).sum()), w)
    for name in w:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-8)
    start = wb.unrolled_start_gradient(family, loss(w), {"y": slope})["y"]
    assert start.shape == (BATCH, MEMBERS, 4, SIZE)


def test_members_without_unrolled_derivatives_are_named(kernel):
    formula = robust().expression.subs(t, sp.Rational(1, 10))
    family = wb.compile(
        wb.Energy(formula, variables=[y], weights=[a, b], data=[x], over=[m, i]), backend=kernel.backend
    )
    w, data = given()
    start = {"y": np.zeros((BATCH, MEMBERS, 4, SIZE))}
    start["y"][1, 0, 2] = np.inf
    solution = wb.minimise(family, w, data, start=start, method="irls", reweightings=2)
    with pytest.warns(wb.UnconvergedWarning, match=r"1 of 24 members have a start, .*first: \(1, 0, 2\)\)"):
        wb.unrolled_gradient(family, solution, {"y": slopes()["y"]})
