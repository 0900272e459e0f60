"""`wb.torch.Minimise`: gradients against differences, types, modules, files, and workers that were forked."""

import copy
import os
import subprocess
import sys

import numpy as np
import pytest
import sympy as sp
import wiberg as wb

torch = pytest.importorskip("torch", reason="PyTorch is not installed; make setup-frameworks")

n = sp.Symbol("n", integer=True, positive=True)
i, t, s = sp.Idx("i", n), sp.Symbol("t", real=True), sp.Symbol("s", real=True)
sigma, a = sp.symbols("sigma a", positive=True)
x, c = sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("c", shape=(n,))


@pytest.fixture(scope="module")
def robust():
    """A robust mean with a confidence for each measurement, which the user's network makes."""
    formula = sp.Sum(c[i] * wb.pseudo_huber((x[i] - t) ** 2, sigma), i)
    return wb.compile(wb.Energy(formula, variables=[t], weights=[sigma, c], data=[x], name="robust"))


@pytest.fixture(scope="module")
def pair(robust):
    second = sp.Sum(a * (x[i] - s) ** 2 + sp.cos(s - x[i]) / 4, i)
    second = wb.compile(wb.Energy(second, variables=[s], weights=[a], data=[x], name="second"))
    mean, z = sp.symbols("mean z", real=True)
    return wb.Output({mean: t * a + z * s**2}, minima=[robust, second], weights=[a], data=[z], name="pair")


def drawn(*shape, low=0.5, high=1.5, seed=0, dtype=torch.float64, grad=True):
    numbers = np.random.default_rng(seed).uniform(low, high, shape)
    return torch.tensor(numbers, dtype=dtype, requires_grad=grad)


TIGHT = {"gtol": 1e-12, "damping": 0.0}


@pytest.mark.parametrize(
    "shapes",
    [
        {"sigma": (), "c": (4,), "x": (4,)},
        {"sigma": (), "c": (3, 4), "x": (3, 4)},
        {"sigma": (3,), "c": (4,), "x": (3, 4)},
        {"sigma": (1,), "c": (3, 4), "x": (4,)},
        {"sigma": (3,), "c": (1, 4), "x": (1, 4)},
    ],
    ids=str,
)
def test_gradcheck(robust, shapes):
    layer = wb.torch.Minimise(robust, **TIGHT)

    def minima(sigma, c, x):
        return layer({"sigma": sigma, "c": c}, {"x": x}, start={"t": 0.0})["t"]

    inputs = [drawn(*shape, seed=k) for k, shape in enumerate(shapes.values())]
    assert torch.autograd.gradcheck(minima, inputs, eps=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch", [(), (3,)])
def test_gradcheck_of_an_output(pair, batch):
    layer = wb.torch.Minimise(pair, **TIGHT)

    def minima(sigma, c, a, x, z):
        found = layer({"sigma": sigma, "c": c, "a": a}, {"x": x, "z": z}, start={"t": 0.0, "s": 0.0})
        return found["mean"], found["s"]

    shapes = (), (4,), (), (*batch, 4), ()
    inputs = [drawn(*shape, seed=k) for k, shape in enumerate(shapes)]
    assert torch.autograd.gradcheck(minima, inputs, eps=1e-5, atol=1e-6)


def test_gradients_are_the_damped_ones(robust):
    sigma, c, x = drawn(), drawn(5, 4, seed=1), drawn(5, 4, seed=2)
    layer = wb.torch.Minimise(robust, damping=0.3)
    found = layer({"sigma": sigma, "c": c}, {"x": x}, start={"t": 0.0})["t"]
    slopes = torch.linspace(-1, 1, 5, dtype=torch.float64)
    found.backward(slopes)
    w, data = {"sigma": sigma.item(), "c": c.detach().numpy()}, {"x": x.detach().numpy()}
    solution = wb.minimise(robust, w, data, start={"t": 0.0})
    np.testing.assert_array_equal(found.detach().numpy(), solution.variables["t"])
    expected = wb.implicit_gradient(robust, solution, {"t": slopes.numpy()}, damping=0.3)
    np.testing.assert_allclose(sigma.grad.numpy(), expected["sigma"], rtol=1e-13)
    np.testing.assert_allclose(c.grad.numpy(), expected["c"], rtol=1e-13)
    by_data = wb.implicit_data_gradient(robust, solution, {"t": slopes.numpy()}, damping=0.3)
    np.testing.assert_array_equal(x.grad.numpy(), by_data["x"])
    assert layer.solution.converged.all()


def test_float32_is_computed_in_float64_and_comes_back_as_float32(robust):
    single = [drawn(*shape, seed=k, dtype=torch.float32) for k, shape in enumerate([(), (4,), (6, 4)])]
    double = [tensor.detach().double().requires_grad_() for tensor in single]
    layer = wb.torch.Minimise(robust)
    for sigma, c, x in (single, double):
        found = layer({"sigma": sigma, "c": c}, {"x": x}, start={"t": 0.0})["t"]
        assert found.dtype == x.dtype
        found.sum().backward()
        if x.dtype == torch.float32:
            rough = found
        assert all(tensor.grad.dtype == tensor.dtype for tensor in (sigma, c, x))
    assert torch.equal(rough, found.float())
    for one, two in zip(single, double, strict=True):
        assert torch.equal(one.grad, two.grad.float())


def test_float32_and_float64_together_are_float64(robust):
    found = wb.torch.Minimise(robust)(
        {"sigma": 1.0, "c": drawn(4, dtype=torch.float32)}, {"x": drawn(4)}, start={"t": torch.zeros(())}
    )
    assert found["t"].dtype == torch.float64


def test_weights_of_the_module_are_learnt_and_kept(robust, tmp_path):
    torch.manual_seed(0)
    x = torch.randn(64, 8, dtype=torch.float64)
    x[:, 0] += 30
    layer = wb.torch.Minimise(robust, weights={"sigma": wb.Weight(20.0, scale="log"), "c": np.ones(8)})
    assert dict(layer.named_parameters()).keys() == {"learnt.log_sigma", "learnt.c"}
    layer.double()
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.1)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = layer(data={"x": x}, start={"t": 0.0})["t"].square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10
    assert layer.weights["sigma"] < 20
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    other = wb.torch.Minimise(robust, weights={"sigma": wb.Weight(1.0, scale="log"), "c": np.zeros(8)}).double()
    other.load_state_dict(torch.load(tmp_path / "layer.pt"))
    for same in (other, copy.deepcopy(layer)):
        found = [one(data={"x": x}, start={"t": 0.0})["t"] for one in (layer, same)]
        assert torch.equal(*found)
    assert copy.deepcopy(layer).solution is None


def test_a_parameter_may_belong_to_two_modules(robust):
    shared = torch.nn.Parameter(torch.tensor(1.0))
    layers = [wb.torch.Minimise(robust, weights={"sigma": shared}) for _ in range(2)]
    for layer in layers:
        layer({"c": torch.ones(4)}, {"x": torch.tensor([0.0, 1.0, 2.0, 7.0])}, start={"t": 0.0})["t"].backward()
    assert shared.grad is not None and all(layer.learnt["sigma"] is shared for layer in layers)


def test_what_need_not_be_known_is_not_asked_for(robust):
    layer = wb.torch.Minimise(robust)
    plain = {"sigma": torch.tensor(1.0), "c": torch.ones(4)}, {"x": torch.arange(4)}
    assert not layer(*plain, start={"t": 0.0})["t"].requires_grad
    weights = {**plain[0], "c": torch.ones(4, requires_grad=True)}
    layer(weights, plain[1], start={"t": 0.0})["t"].backward()
    assert weights["c"].grad is not None and plain[0]["sigma"].grad is None


def test_candidates_and_earlier_solutions_start(robust):
    layer = wb.torch.Minimise(robust, weights={"sigma": 0.1, "c": np.ones(4)})
    data = {"x": torch.tensor([0.0, 5.0, 5.1, 9.0])}
    found = layer(data=data, candidates={"t": data["x"]})["t"]
    assert torch.equal(found, layer(data=data, start=layer.solution)["t"])
    assert 4.9 < found < 5.2


def test_a_tensor_changed_in_place_is_noticed(robust):
    x = drawn(4, grad=False)
    c = drawn(4)
    found = wb.torch.Minimise(robust)({"sigma": 1.0, "c": c}, {"x": x}, start={"t": 0.0})["t"]
    x.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found.backward()


def test_minima_changed_in_place_do_no_harm(robust):
    gradients = []
    for change in (False, True):
        c = drawn(3, 4)
        found = wb.torch.Minimise(robust)({"sigma": 1.0, "c": c}, {"x": drawn(3, 4, seed=1)}, start={"t": 0.0})["t"]
        total = found.sum()
        if change:
            found.detach().add_(100.0)
        total.backward()
        gradients.append(c.grad)
    assert torch.equal(*gradients)


def test_it_cannot_be_differentiated_twice(robust):
    c = drawn(4)
    found = wb.torch.Minimise(robust)({"sigma": 1.0, "c": c}, {"x": drawn(4)}, start={"t": 0.0})["t"]
    (slope,) = torch.autograd.grad(found**2, c, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        slope.sum().backward()


def test_bad_arguments_are_refused_by_name(robust, pair):
    who = "wb.torch.Minimise"
    with pytest.raises(wb.InputTypeError, match=f"{who}: kernel must be"):
        wb.torch.Minimise(robust.energy)
    with pytest.raises(wb.NameMissingError, match="unknown weight 'sigmas'; did you mean 'sigma'"):
        wb.torch.Minimise(robust, weights={"sigmas": 1.0})
    with pytest.raises(wb.InputTypeError, match="no option 'gtoll'; did you mean 'gtol'"):
        wb.torch.Minimise(robust, gtoll=1e-3)
    with pytest.raises(wb.InputError, match="damping"):
        wb.torch.Minimise(robust, damping=-1.0)
    with pytest.raises(wb.InputError, match="'sigma' is not positive"):
        wb.torch.Minimise(robust, weights={"sigma": wb.Weight(-1.0, scale="log")})
    layer = wb.torch.Minimise(robust, weights={"sigma": 1.0})
    data, ones = {"x": torch.zeros(4)}, torch.ones(4)
    with pytest.raises(wb.NameMissingError, match="'robust': c is missing in weights"):
        layer(data=data, start={"t": 0.0})
    with pytest.raises(wb.NameMissingError, match="unknown name 'y' in data"):
        layer({"c": ones}, {"y": ones}, start={"t": 0.0})
    with pytest.raises(wb.InputError, match="'sigma' is owned by the module"):
        layer({"c": ones, "sigma": 1.0}, data, start={"t": 0.0})
    with pytest.raises(wb.InputTypeError, match="must be a dict by name"):
        layer(ones, data, start={"t": 0.0})
    with pytest.raises(wb.InputTypeError, match="complex64"):
        layer({"c": ones.to(torch.complex64)}, data, start={"t": 0.0})
    with pytest.raises(wb.InputError, match="name the symbol otherwise"):
        dotted = sp.Symbol("a.b", real=True)
        kernel = wb.compile(wb.Energy((t - dotted) ** 2, variables=[t], weights=[dotted]), backend="reference")
        wb.torch.Minimise(kernel, weights={"a.b": 1.0})


def test_without_pytorch_the_extra_is_named():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import wiberg as wb\n"
        "try:\n    wb.torch\nexcept wb.MissingPackageError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'wiberg[torch]'" in done.stdout, done.stderr


WORKERS = """
import numpy as np, sympy as sp, torch, wiberg as wb

n = sp.Symbol("n", integer=True, positive=True)
i, t, sigma = sp.Idx("i", n), sp.Symbol("t", real=True), sp.Symbol("sigma", positive=True)
x = sp.IndexedBase("x", shape=(n,))
formula = sp.Sum(wb.pseudo_huber((x[i] - t)**2, sigma), i)
layer = wb.torch.Minimise(wb.compile(wb.Energy(formula, variables=[t], weights=[sigma], data=[x])), {"sigma": 1.0})
numbers = torch.tensor(np.random.default_rng(0).standard_normal((4000, 5)))
wb.set_threads(2)
before = layer(data={"x": numbers}, start={"t": 0.0})["t"]  # threads run, then the process is forked
before.sum().backward()


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, k):
        rows = numbers[100 * k : 100 * (k + 1)]
        layer.zero_grad()
        minima = layer(data={"x": rows}, start={"t": 0.0})["t"]
        minima.sum().backward()
        return minima.detach(), layer.learnt["sigma"].grad.clone()


loader = torch.utils.data.DataLoader(Rows(), batch_size=4, num_workers=2, multiprocessing_context="fork")
for epoch in range(2):
    found = torch.cat([minima.flatten() for minima, _ in loader])
    assert torch.equal(found, before.detach()), "other minima"
    layer.zero_grad()
    layer(data={"x": numbers}, start={"t": 0.0})["t"].sum().backward()
print("the same minima")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_workers_that_were_forked_minimise(tmp_path):
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "the same minima" in done.stdout, done.stderr
