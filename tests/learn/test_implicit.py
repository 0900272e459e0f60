import resource

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from wiberg import testing
from wiberg.learn import UnconvergedWarning, implicit_gradient, implicit_jacobian
from wiberg.runtime import Status, minimise, set_threads

generator = np.random.default_rng(5)


@pytest.fixture(autouse=True)
def default_threads():
    yield
    set_threads(None)


def points(count, size=110):
    mean = generator.uniform(-20, 20, count)
    return np.concatenate(
        [
            mean[:, None] + generator.standard_normal((count, size // 2)),
            generator.uniform(-40, 40, (count, size - size // 2)),
        ],
        axis=1,
    )


def at(kernel, hessian, cross, start=None):
    """A solution of the quadratic energy at a point that need not be a minimum."""
    hessian, cross = np.asarray(hessian), np.asarray(cross)
    start = np.zeros(hessian.shape[:-1]) if start is None else start
    return minimise(
        kernel, {"w": np.ones(cross.shape[-2])}, {"H": hessian, "C": cross}, start={"y": start}, max_iterations=0
    )


# ---------------------------------------------------------------------------------------------- right answers


def line_data(count):
    x = generator.uniform(-1, 1, (count, 30))
    y = 2 * x + 0.5 + 0.1 * generator.standard_normal(x.shape)
    y[:, :4] += 5
    return {"x": x, "y": y}


def test_equals_finite_differences_of_the_minimiser(robust_line):
    data, slopes = line_data(7), generator.standard_normal((2, 7))
    weights = {"scale": 0.3, "bias": 0.1}

    def minima(**changed):
        return minimise(robust_line, {**weights, **changed}, data, start={"slope": 0.0, "offset": 0.0}, gtol=1e-11)

    gradient = implicit_gradient(robust_line, minima(), {"slope": slopes[0], "offset": slopes[1]}, damping=0)
    for name, value in weights.items():
        step = 1e-5
        low, high = (minima(**{name: value + s}).variables for s in (-step, step))
        expected = sum((slopes[r] * (high[v] - low[v])).sum() for r, v in enumerate(("slope", "offset"))) / (2 * step)
        assert gradient[name] == pytest.approx(expected, rel=1e-6)


def test_ridge_regression_has_the_known_derivative():
    n, m = sp.symbols("n m", integer=True, positive=True)
    i, k = sp.Idx("i", n), sp.Idx("k", m)
    ridge = sp.Symbol("ridge", positive=True)
    y, A, b = sp.IndexedBase("y", shape=(m,)), sp.IndexedBase("A", shape=(n, m)), sp.IndexedBase("b", shape=(n,))
    kernel = wb.compile(
        wb.Energy(
            sp.Sum((sp.Sum(A[i, k] * y[k], k) - b[i]) ** 2, i) + ridge * sp.Sum(y[k] ** 2, k),
            variables=[y],
            weights=[ridge],
            data=[A, b],
        )
    )
    matrix, right = generator.standard_normal((9, 4)), generator.standard_normal(9)
    solution = minimise(kernel, {"ridge": 0.7}, {"A": matrix, "b": right}, start={"y": np.zeros(4)})
    system = matrix.T @ matrix + 0.7 * np.eye(4)
    expected = -np.linalg.solve(system, np.linalg.solve(system, matrix.T @ right))
    np.testing.assert_allclose(implicit_jacobian(kernel, solution, damping=0)[:, 0], expected, rtol=1e-9)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("damping", [0.0, 0.1, 3.0])
def test_definite_hessian_is_shifted_by_the_damping_alone(quadratic, size, damping):
    root = generator.standard_normal((5, size, size))
    hessian = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(size)
    cross = generator.standard_normal((5, 4, size))
    jacobian = implicit_jacobian(quadratic, at(quadratic, hessian, cross), damping)
    expected = -np.linalg.solve(hessian + damping * np.eye(size), cross.transpose(0, 2, 1))
    np.testing.assert_allclose(jacobian, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_indefinite_hessian_is_shifted_by_its_lowest_eigenvalue_too(quadratic, size):
    hessian = generator.standard_normal((5, size, size))
    hessian = hessian + hessian.transpose(0, 2, 1) - 2 * np.eye(size)
    cross = generator.standard_normal((5, 4, size))
    jacobian = implicit_jacobian(quadratic, at(quadratic, hessian, cross), 0.1)
    shift = 0.1 + np.maximum(0, -np.linalg.eigvalsh(hessian)[:, 0])
    expected = -np.linalg.solve(hessian + shift[:, None, None] * np.eye(size), cross.transpose(0, 2, 1))
    np.testing.assert_allclose(jacobian, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_without_damping_a_saddle_is_solved_as_it_is(quadratic, size):
    hessian = np.diag(np.linspace(-2.0, 1.0, size)) + 0.01
    cross = generator.standard_normal((3, size))
    jacobian = implicit_jacobian(quadratic, at(quadratic, hessian, cross), 0.0)
    np.testing.assert_allclose(jacobian, -np.linalg.solve(hessian, cross.T), rtol=1e-12)


def test_gradient_is_the_jacobian_applied(ransac):
    x = points(150)
    solution = minimise(ransac, {"sigma": 8.0}, {"x": x})
    slope = generator.standard_normal(150)
    for damping in (0.0, 0.1):
        expected = (implicit_jacobian(ransac, solution, damping)[:, 0, 0] * slope).sum()
        assert implicit_gradient(ransac, solution, {"t": slope}, damping)["sigma"] == pytest.approx(expected, rel=1e-12)


def test_limits_of_the_damping(robust_line):
    solution = minimise(robust_line, {"scale": 0.3, "bias": 0.1}, line_data(3), start={"slope": 0.0, "offset": 0.0})
    undamped = implicit_jacobian(robust_line, solution, 0.0)
    np.testing.assert_allclose(implicit_jacobian(robust_line, solution, 1e-9), undamped, rtol=1e-7)
    cross = robust_line.cross(solution.variables, solution.w, solution.x)
    np.testing.assert_allclose(implicit_jacobian(robust_line, solution, 1e12) * 1e12, -cross, rtol=1e-8)


def test_variables_left_out_have_slope_zero(robust_line):
    solution = minimise(robust_line, {"scale": 0.3, "bias": 0.1}, line_data(3), start={"slope": 0.0, "offset": 0.0})
    short = implicit_gradient(robust_line, solution, {"slope": np.ones(3)})
    full = implicit_gradient(robust_line, solution, {"slope": np.ones(3), "offset": np.zeros(3)})
    assert short == full


def test_unbatched_call_has_declared_shapes(ransac):
    solution = minimise(ransac, {"sigma": 8.0}, {"x": points(1)[0]})
    assert implicit_jacobian(ransac, solution).shape == (1, 1)
    gradient = implicit_gradient(ransac, solution, {"t": 1.0})
    assert np.shape(gradient["sigma"]) == ()
    assert gradient["sigma"] == pytest.approx(implicit_jacobian(ransac, solution)[0, 0], rel=1e-14)


def test_solution_from_another_start_has_the_same_derivative(ransac):
    x = points(5)
    first = minimise(ransac, {"sigma": 8.0}, {"x": x}, gtol=1e-11)
    second = minimise(ransac, {"sigma": 8.0}, {"x": x}, start={"t": first.variables["t"] + 0.01}, gtol=1e-11)
    a, b = (implicit_gradient(ransac, s, {"t": np.ones(5)})["sigma"] for s in (first, second))
    assert a == pytest.approx(b, rel=1e-6)


# ---------------------------------------------------------------------------------------------- weights and batches


def test_weights_of_each_instance_have_their_own_gradients(ransac):
    x, sigmas, slope = points(70), generator.uniform(5, 9, 70), generator.standard_normal(70)
    solution = minimise(ransac, {"sigma": sigmas}, {"x": x})
    gradient = implicit_gradient(ransac, solution, {"t": slope})["sigma"]
    for b in (0, 5, 69):
        one = minimise(ransac, {"sigma": sigmas[b]}, {"x": x[b]})
        assert implicit_gradient(ransac, one, {"t": slope[b]})["sigma"] == gradient[b]


def test_shared_weights_beside_batched_ones_are_summed(robust_line):
    data, scales = line_data(5), np.linspace(0.2, 0.5, 5)
    solution = minimise(robust_line, {"scale": scales, "bias": 0.1}, data, start={"slope": 0.0, "offset": 0.0})
    gradient = implicit_gradient(robust_line, solution, {"slope": np.ones(5)})
    assert gradient["scale"].shape == (5,) and gradient["bias"].shape == ()
    jacobian = implicit_jacobian(robust_line, solution)
    np.testing.assert_allclose(gradient["scale"], jacobian[:, 0, 0], rtol=1e-11)
    assert gradient["bias"] == pytest.approx(jacobian[:, 0, 1].sum(), rel=1e-11)


def test_number_of_threads_does_not_change_a_bit(robust_line):
    data = line_data(3000)
    set_threads(1)
    solution = minimise(robust_line, {"scale": 0.3, "bias": 0.1}, data, start={"slope": 0.0, "offset": 0.0})
    slopes = {"slope": generator.standard_normal(3000), "offset": generator.standard_normal(3000)}
    results = []
    for threads in (1, 2, 5):
        set_threads(threads)
        results += [implicit_gradient(robust_line, solution, slopes) for _ in range(3)]
    assert all(result == results[0] for result in results)


def test_more_blocks_than_are_summed_at_once(spring):
    count = 64 * 256 + 100
    solution = minimise(spring, {"w": 2.0}, {"a": 1.0, "z": np.ones(count)}, start={"t": 0.0})
    assert implicit_gradient(spring, solution, {"t": np.ones(count)}, damping=0)["w"] == count


def test_empty_batch_has_gradient_zero(spring):
    solution = minimise(spring, {"w": 2.0}, {"a": 1.0, "z": np.ones(0)}, start={"t": 0.0})
    assert implicit_gradient(spring, solution, {"t": np.ones(0)})["w"] == 0.0
    assert implicit_jacobian(spring, solution).shape == (0, 1, 1)


# ---------------------------------------------------------------------------------------------- the bound


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 6),
    exponent=st.integers(-12, 12),
    damping=st.sampled_from([1e-6, 0.1, 10.0]),
    kind=st.sampled_from(["any", "singular", "marginal", "negative"]),
)
def test_bound_holds_for_any_hessian(quadratic, seed, size, exponent, damping, kind):
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(random.standard_normal((size, size)))[0]
    eigenvalues = 10.0**exponent * random.standard_normal(size)
    if kind == "singular":
        eigenvalues = np.abs(eigenvalues) * (random.random(size) < 0.5)
    if kind == "marginal":
        eigenvalues = np.abs(eigenvalues)
        eigenvalues[0] = -damping * (1 + 1e-15 * random.integers(-3, 4))
    if kind == "negative":
        eigenvalues = -np.abs(eigenvalues)
    hessian = basis * eigenvalues @ basis.T
    solution = at(quadratic, (hessian + hessian.T) / 2, np.eye(size))
    inverse = implicit_jacobian(quadratic, solution, damping)
    assert np.isfinite(inverse).all()
    assert np.linalg.norm(inverse, 2) * damping <= 1 + 1e-12
    slope = random.standard_normal(size)
    gradient = implicit_gradient(quadratic, solution, {"y": slope}, damping, unconverged="use")["w"]
    assert np.linalg.norm(gradient) * damping <= np.linalg.norm(slope) * (1 + 1e-12)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(energy=testing.energies(), data=st.data())
def test_bound_holds_at_random_points_of_random_energies(energy, data):
    assume(energy.weights)
    y, w, x = data.draw(testing.points(energy))
    kernel = wb.compile(energy, backend="reference")
    solution = minimise(kernel, w, x, start=y, max_iterations=0)
    cross = testing.dense(kernel.cross(y, w, x))
    for damping in (1e-3, 0.1):
        jacobian = implicit_jacobian(kernel, solution, damping)
        assert jacobian.shape == cross.shape
        assert np.linalg.norm(jacobian) * damping <= np.linalg.norm(cross) * (1 + 1e-12)


def test_quartic_with_a_singular_hessian_is_finite_with_damping():
    t, a = sp.symbols("t a", real=True)
    kernel = wb.compile(wb.Energy((t - a) ** 4 + a * t * 0, variables=[t], weights=[a]))
    solution = minimise(kernel, {"a": 2.0}, start={"t": 2.0})
    assert solution.status is Status.CONVERGED
    assert implicit_jacobian(kernel, solution, 0.1) == 0.0
    with pytest.raises(wb.NumericalError, match=r"singular Hessian|Hessian is singular"):
        implicit_jacobian(kernel, solution, 0.0)


# ---------------------------------------------------------------------------------------------- singular, not converged


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_undamped_derivative_at_a_singular_hessian_names_the_instance(quadratic, size):
    hessian = np.tile(np.eye(size), (9, 1, 1))
    hessian[4, -1, -1] = 0
    solution = at(quadratic, hessian, np.eye(size), np.zeros((9, size)))
    with pytest.raises(wb.NumericalError, match=r"quadratic.*instance 4 .*smallest eigenvalue 0.*damping=0.1"):
        implicit_gradient(quadratic, solution, {"y": np.ones((9, size))}, damping=0, unconverged="use")
    with pytest.raises(wb.NumericalError, match=r"instance 4"):
        implicit_jacobian(quadratic, solution, damping=0)
    assert np.isfinite(implicit_jacobian(quadratic, solution, damping=0.1)).all()


def mixed(spring, **options):
    """Instance 2 is unbounded, the others end at w z."""
    curvatures = np.array([1.0, 2.0, -1.0, 1.0])
    return minimise(spring, {"w": 2.0}, {"a": curvatures, "z": np.arange(1.0, 5.0)}, start={"t": 0.0}, **options)


def test_zero_leaves_unconverged_out_and_says_so(spring):
    with pytest.warns(UnconvergedWarning, match=r"1 of 4 instances.*unbounded 1; first: 2.*set to 0"):
        gradient = implicit_gradient(spring, mixed(spring), {"t": np.ones(4)}, damping=0)
    assert gradient["w"] == 1 + 2 + 4


def test_use_counts_them(spring):
    gradient = implicit_gradient(spring, mixed(spring), {"t": np.ones(4)}, damping=0, unconverged="use")
    assert gradient["w"] == 1 + 2 + 3 + 4


def test_nan_spoils_the_sum_and_only_the_entry_of_its_own_instance(spring):
    gradient = implicit_gradient(spring, mixed(spring), {"t": np.ones(4)}, damping=0, unconverged="nan")
    assert np.isnan(gradient["w"])
    solution = minimise(
        spring, {"w": np.full(4, 2.0)}, {"a": [1.0, 2.0, -1.0, 1.0], "z": np.arange(1.0, 5.0)}, start={"t": 0.0}
    )
    gradient = implicit_gradient(spring, solution, {"t": np.ones(4)}, damping=0, unconverged="nan")["w"]
    np.testing.assert_array_equal(gradient, [1.0, 2.0, np.nan, 4.0])


def test_raise_names_them(spring):
    with pytest.raises(wb.NumericalError, match=r"1 of 4.*unbounded 1; first: 2"):
        implicit_gradient(spring, mixed(spring), {"t": np.ones(4)}, unconverged="raise")


@pytest.mark.parametrize("policy", ["zero", "use"])
def test_an_instance_that_is_not_finite_leaves_the_sum_as_it_would_be_without_it(ransac, policy):
    x, slope = points(60), generator.standard_normal(60)
    broken = x.copy()
    broken[17, 3] = np.nan
    solution = minimise(ransac, {"sigma": 8.0}, {"x": broken}, check=False)
    assert solution.status[17] is Status.NOT_FINITE
    slope[17] = np.nan
    with pytest.warns(UnconvergedWarning, match=r"not finite 1; first: 17"):
        gradient = implicit_gradient(ransac, solution, {"t": slope}, unconverged=policy)
    rest = np.delete(np.arange(60), 17)
    without = minimise(ransac, {"sigma": 8.0}, {"x": x[rest]})
    assert gradient == implicit_gradient(ransac, without, {"t": slope[rest]})


def test_a_derivative_that_is_not_finite_is_left_out_and_warned_of(quadratic):
    """Row 1 of d(grad)/dw overflows although the minimum is fine."""
    cross = np.ones((70, 2, 2))
    cross[66, 1, 0] = 1e150
    solution = at(quadratic, np.eye(2), cross, np.zeros((70, 2)))
    slope = np.full((70, 2), 1.0)
    slope[66] = 1e200
    with pytest.warns(UnconvergedWarning, match=r"1 of 70 instances have .* not finite \(first: 66\)"):
        gradient = implicit_gradient(quadratic, solution, {"y": slope}, damping=0, unconverged="use")["w"]
    np.testing.assert_allclose(gradient, -69 * 2.0)


def test_undamped_derivative_that_overflows_is_singular(spring):
    solution = minimise(spring, {"w": 2.0}, {"a": 1e-310, "z": 1.0}, start={"t": 2.0})
    with pytest.raises(wb.NumericalError, match=r"singular \(smallest eigenvalue 1e-310\)"):
        implicit_gradient(spring, solution, {"t": 1.0}, damping=0)
    assert abs(implicit_gradient(spring, solution, {"t": 1.0})["w"]) <= 1e-309


def test_memory_stays_flat(spring):
    data, slope = {"a": 1.0, "z": np.ones(200)}, {"t": np.ones(200)}
    peaks = []
    for _ in range(2):
        for _ in range(1500):
            implicit_gradient(spring, minimise(spring, {"w": 2.0}, data, start={"t": 0.0}), slope)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert peaks[1] - peaks[0] < 2000


# ---------------------------------------------------------------------------------------------- refused


def test_solution_of_another_energy_is_refused(spring, ransac):
    with pytest.raises(wb.InputError, match=r"'spring'.*'ransac'"):
        implicit_gradient(ransac, mixed(spring), {"t": np.ones(4)})
    with pytest.raises(wb.InputTypeError, match=r"minimise"):
        implicit_gradient(spring, {"t": 1.0}, {"t": np.ones(4)})
    with pytest.raises(wb.InputTypeError, match=r"wb\.compile.*Energy"):
        implicit_jacobian(spring.energy, mixed(spring))


@pytest.mark.parametrize(
    "damping, error",
    [(-0.1, wb.InputError), (float("nan"), wb.InputError), (float("inf"), wb.InputError), ("0.1", wb.InputTypeError)],
)
def test_damping_out_of_range_is_refused(spring, damping, error):
    with pytest.raises(error, match=r"damping"):
        implicit_gradient(spring, mixed(spring), {"t": np.ones(4)}, damping=damping)
    with pytest.raises(error, match=r"damping"):
        implicit_jacobian(spring, mixed(spring), damping=damping)


@pytest.mark.parametrize(
    "slope, error, names",
    [
        ({"t": np.ones((4, 1))}, wb.InputError, r"'t'.*\(4,\).*\(4, 1\)"),
        ({"t": np.ones(3)}, wb.InputError, r"\(4,\).*\(3,\)"),
        ({"T": np.ones(4)}, wb.NameMissingError, "'T'.*variables: t"),
        ({}, wb.NameMissingError, "empty.*t"),
        ({"t": ["a", "b", "c", "d"]}, wb.InputTypeError, "'t'"),
        ({"t": np.ones(4) * 1j}, wb.InputTypeError, "'t'.*complex"),
        (np.ones(4), wb.InputTypeError, "dict"),
        ({"t": [1.0, np.nan, 1.0, 1.0]}, wb.InputError, "instance 1.*loss"),
    ],
)
def test_loss_gradient_that_does_not_fit_is_refused(spring, slope, error, names):
    with pytest.raises(error, match=names):
        implicit_gradient(spring, mixed(spring), slope, unconverged="use")


def test_unknown_policy_names_the_nearest(spring):
    with pytest.raises(wb.InputError, match=r"'zeros'.*did you mean 'zero'"):
        implicit_gradient(spring, mixed(spring), {"t": np.ones(4)}, unconverged="zeros")
