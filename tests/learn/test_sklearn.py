"""`wb.sklearn.EnergyRegressor`: scikit-learn's own checks, its tools, files, and what is learnt beside NumPy."""

import subprocess
import sys

import numpy as np
import pytest
import sympy as sp
import wiberg as wb

pytest.importorskip("sklearn", reason="scikit-learn is not installed; make setup-frameworks")

import pandas as pd
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

n, k = sp.symbols("n k", integer=True, positive=True)
i, j = sp.Idx("i", n), sp.Idx("j", k)
t, bias = sp.symbols("t bias", real=True)
sigma, a = sp.symbols("sigma a", positive=True)
x, c = sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("c", shape=(n,))


@parametrize_with_checks([wb.sklearn.EnergyRegressor()])
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


def robust(**options):
    energy = wb.Energy(
        sp.Sum(wb.pseudo_huber((x[i] - t) ** 2, sigma), i), variables=[t], weights=[sigma], data=[x], name="robust"
    )
    return wb.sklearn.EnergyRegressor(energy, weights={"sigma": wb.Weight(20.0, scale="log")}, **options)


def measured(rows, seed=0):
    random = np.random.default_rng(seed)
    truth = random.standard_normal(rows)
    return truth[:, None] + random.standard_t(1.5, (rows, 9)), truth


def test_by_default_it_is_the_linear_model():
    random = np.random.default_rng(0)
    X = random.standard_normal((80, 3)) * [1.0, 10.0, 0.1] + 2.0
    for y in (X @ [1.0, -0.2, 3.0] + random.standard_normal(80), X @ random.standard_normal((3, 2)) + [1.0, 5.0]):
        found, expected = wb.sklearn.EnergyRegressor().fit(X, y), LinearRegression().fit(X, y)
        np.testing.assert_allclose(found.predict(X), expected.predict(X), atol=1e-3)
        np.testing.assert_allclose(found.weights_["A"], expected.coef_, atol=1e-2)


def test_a_robust_mean_is_learnt_and_predicts_what_minimise_does():
    X, y = measured(300)
    model = robust().fit(X, y)
    assert model.score(X, y) > 0.7
    solution = wb.minimise(wb.compile(model.energy), model.weights_, {"x": X}, start={"t": 0.0})
    np.testing.assert_array_equal(model.predict(X), solution.variables["t"])
    widths = model.weights_["sigma"] * np.array([0.8, 1.0, 1.25])
    losses = [np.mean((_at(model, width, X) - y) ** 2) for width in widths]
    assert np.argmin(losses) == 1
    assert model.loss_curve_[-1] == pytest.approx(losses[1]) and (np.diff(model.loss_curve_) <= 0).all()


def _at(model, width, X):
    return wb.minimise(wb.compile(model.energy), {"sigma": width}, {"x": X}, start={"t": 0.0}).variables["t"]


def test_an_optimiser_takes_the_steps_of_learner():
    X, y = measured(64)
    model = robust(optimiser=wb.SGD(0.5, momentum=0.5), steps=7).fit(X, y)
    loss = wb.squared_error(t, sp.Symbol("mu", real=True))
    learner = wb.Learner(wb.compile(model.energy), loss, model.weights, wb.SGD(0.5, momentum=0.5))
    learner.fit([wb.Batch(data={"x": X}, targets={"mu": y}, start={"t": 0.0})], steps=7)
    assert model.weights_ == learner.weights and model.n_iter_ == 7
    batches = [robust(optimiser=wb.SGD(0.1), steps=9, batch_size=20, random_state=seed).fit(X, y) for seed in (1, 1, 2)]
    assert batches[0].weights_ == batches[1].weights_ != batches[2].weights_


def test_it_works_in_the_tools_of_scikit_learn():
    X, y = measured(120)
    model = robust()
    scores = cross_val_score(model, X, y, cv=3)
    assert scores.shape == (3,) and scores.min() > 0.4
    search = GridSearchCV(model, {"damping": [0.0, 0.1], "weights": [{"sigma": 0.5}, {"sigma": 5.0}]}, cv=2).fit(X, y)
    assert search.best_score_ > 0.5 and len(search.cv_results_["params"]) == 4
    lines = make_pipeline(StandardScaler(), wb.sklearn.EnergyRegressor()).fit(X, y)
    assert lines.score(X, y) > 0
    assert clone(model.set_params(damping=0.3)).get_params()["damping"] == 0.3


def test_kernels_losses_and_outputs_can_be_cloned():
    X, y = measured(60)
    kernel = wb.compile(robust().energy)
    mu, shifted = sp.symbols("mu shifted", real=True)
    loss = wb.Loss(wb.pseudo_huber((t - mu) ** 2, 1), variables=[t], targets=[mu], regulariser=sp.log(sigma) ** 2 / 100)
    weights = {"sigma": wb.Weight(3.0, scale="log")}
    one = wb.sklearn.EnergyRegressor(kernel, weights=weights, loss=loss).fit(X, y)
    np.testing.assert_array_equal(clone(one).fit(X, y).predict(X), one.predict(X))
    output = wb.Output({shifted: t + bias}, minima=kernel, weights=[bias])
    two = wb.sklearn.EnergyRegressor(output, weights={**weights, "bias": 0.0}).fit(X, y + 4.0)
    assert two.weights_["bias"] == pytest.approx(4.0, abs=0.5)
    np.testing.assert_array_equal(clone(two).fit(X, y + 4.0).predict(X), two.predict(X))


@pytest.fixture
def mixed():
    """Two arrays per row, one of two axes, one of numbers; data that all rows share; a target with two numbers."""
    m = sp.Idx("m", 2)
    points, y = sp.IndexedBase("points", shape=(n, 2)), sp.IndexedBase("y", shape=(2,))
    trust, scale = sp.Symbol("trust", positive=True), sp.IndexedBase("scale", shape=(2,))
    formula = sp.Sum(trust * wb.pseudo_huber((points[i, m] * scale[m] - y[m]) ** 2, sigma), i, m)
    formula += sp.Sum(a * y[m] ** 2, m)
    energy = wb.Energy(formula, variables=[y], weights=[sigma, a], data=[points, trust, scale], name="mixed")
    random = np.random.default_rng(3)
    truth = random.standard_normal((50, 2))
    cloud = truth[:, None] + 0.2 * random.standard_normal((50, 4, 2))
    X = np.concatenate([random.uniform(1, 2, (50, 1)), cloud.reshape(50, 8)], axis=1)
    return energy, X, cloud, truth * 2.0


def test_columns_become_arrays(mixed):
    energy, X, cloud, truth = mixed
    weights = {"sigma": 1.0, "a": wb.Weight(1.0, scale="log")}
    model = wb.sklearn.EnergyRegressor(
        energy, {"trust": 0, "points": slice(1, None)}, data={"scale": [2.0, 2.0]}, weights=weights
    ).fit(X, truth)
    assert model.predict(X).shape == (50, 2) and model.score(X, truth) > 0.9
    data = {"trust": X[:, 0], "points": cloud, "scale": [2.0, 2.0]}
    solution = wb.minimise(wb.compile(energy), model.weights_, data, start={"y": np.zeros(2)})
    np.testing.assert_array_equal(model.predict(X), solution.variables["y"])
    masked = clone(model).set_params(columns={"trust": np.arange(9) == 0, "points": range(1, 9)}).fit(X, truth)
    np.testing.assert_array_equal(masked.predict(X), model.predict(X))
    frame = pd.DataFrame(X, columns=["trust", *(f"p{k}" for k in range(8))])
    columns = {"trust": "trust", "points": [f"p{k}" for k in range(8)]}
    named = clone(model).set_params(columns=columns).fit(frame, truth)
    np.testing.assert_array_equal(named.predict(frame), model.predict(X))
    with pytest.raises(ValueError, match="feature names"):
        named.predict(frame[frame.columns[::-1]])


@pytest.mark.parametrize("named", [False, True])
def test_files_hold_all_but_the_formulas(mixed, tmp_path, named):
    energy, X, _, truth = mixed
    frame = pd.DataFrame(X, columns=[f"p{k}" for k in range(9)]) if named else X
    columns = {
        "trust": "p0" if named else np.int64(0),
        "points": [f"p{k}" for k in range(1, 9)] if named else slice(1, 9),
    }
    model = wb.sklearn.EnergyRegressor(
        energy,
        columns,
        data={"scale": np.array([2.0, 2.0])},
        weights={"sigma": 1.0, "a": wb.Weight(1.0, scale="log")},
        optimiser=wb.SGD(1e-3, momentum=0.9),
        bounds={"y": (-np.inf, 3.0)},
        steps=5,
    ).fit(frame, truth)
    model.save(tmp_path / "model.wb")
    found = wb.sklearn.EnergyRegressor.load(tmp_path / "model.wb", energy)
    np.testing.assert_array_equal(found.predict(frame), model.predict(frame))
    np.testing.assert_array_equal(found.loss_curve_, model.loss_curve_)
    assert found.get_params()["bounds"] == model.bounds and found.get_params()["optimiser"] == model.optimiser
    np.testing.assert_array_equal(clone(found).fit(frame, truth).predict(frame), model.predict(frame))
    assert b"pickle" not in (tmp_path / "model.wb").read_bytes()
    with pytest.raises(wb.CheckpointError, match="saved with energy="):
        wb.sklearn.EnergyRegressor.load(tmp_path / "model.wb")
    with pytest.raises(wb.CheckpointError, match="was made for energy 'mixed'"):
        wb.sklearn.EnergyRegressor.load(tmp_path / "model.wb", robust().energy)


def test_files_of_the_default_and_damaged_ones(tmp_path):
    X, y = measured(40)
    path = tmp_path / "model.wb"
    for target in (y, np.stack([y, y], axis=1)):
        model = wb.sklearn.EnergyRegressor().fit(X, target)
        model.save(path)
        np.testing.assert_array_equal(wb.sklearn.EnergyRegressor.load(path).predict(X), model.predict(X))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(wb.CheckpointError):
        wb.sklearn.EnergyRegressor.load(path)


def test_bad_arguments_are_refused_by_name(mixed):
    energy, X, _, truth = mixed
    Regressor, (Z, y) = wb.sklearn.EnergyRegressor, measured(10)
    with pytest.raises(wb.InputTypeError, match=r"energy must be a wb.Energy"):
        Regressor("robust").fit(Z, y)
    with pytest.raises(wb.InputError, match=r"which columns of X each of points, trust, scale is"):
        Regressor(energy).fit(X, truth)
    with pytest.raises(wb.NameMissingError, match=r"'point'.*did you mean 'points'"):
        Regressor(energy, {"point": 0}).fit(X, truth)
    with pytest.raises(wb.InputError, match=r"points of the declared shape \(n, 2\) cannot be made of 3 column"):
        Regressor(energy, {"trust": 0, "points": [1, 2, 3]}, data={"scale": [1, 1]}).fit(X, truth)
    with pytest.raises(wb.InputError, match=r"columns\['trust'\] has 9; X has 9 columns"):
        Regressor(energy, {"trust": 9, "points": slice(1, 9)}, data={"scale": [1, 1]}).fit(X, truth)
    with pytest.raises(wb.InputError, match=r"y of the declared shape \(2\) cannot be made of 3 column"):
        Regressor(energy, {"trust": 0, "points": slice(1, 9)}, data={"scale": [1, 1]}).fit(X, np.zeros((50, 3)))
    with pytest.raises(wb.NameMissingError, match="weight sigma is missing"):
        robust().set_params(weights=None).fit(Z, y)
    with pytest.raises(wb.NameMissingError, match=r"target='s' is none of t"):
        robust(target="s").fit(Z, y)
    with pytest.raises(wb.InputTypeError, match=r"loss must be a wb.Loss with one target"):
        robust(loss="squares").fit(Z, y)


def test_too_few_steps_are_warned_of():
    X, y = measured(50)
    with pytest.warns(ConvergenceWarning, match="not done after 1 steps"):
        robust(steps=1).fit(X, y)


def test_without_scikit_learn_the_extra_is_named():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import wiberg as wb\n"
        "try:\n    wb.sklearn\nexcept wb.MissingPackageError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'wiberg[sklearn]'" in done.stdout, done.stderr
