"""Learning from the shell: fit, kill, go on, apply, evaluate; every error with its exit code and no traceback."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import wiberg as wb
from wiberg.learn.shell.command import main

MODEL = """
import sympy as sp
import wiberg as wb

n = sp.Symbol("n", integer=True, positive=True)
i, q = sp.Idx("i", n), sp.Idx("q", n)
t, sigma, mean = sp.symbols("t sigma mean", real=True)
x = sp.IndexedBase("x", shape=(n,))
energy = wb.Energy(-sp.Sum(sp.exp(-(((x[i] - t) / sigma) ** 2)), i), variables=[t], weights=[sigma], data=[x],
                   candidates={t: x[q]}, name="ransac")
loss = wb.Loss((t - mean) ** 2, variables=[t], targets=[mean])
wrong = wb.Loss((sp.Symbol("s", real=True) - mean) ** 2, variables=[sp.Symbol("s", real=True)], targets=[mean])
"""
SPEC = """
energy = "model.py:energy"
loss = "model.py:loss"
weights = {{sigma = 2.0}}

[data]
train = "train.npz"
evaluate = "held_out.csv"

[optimiser]
learning_rate = 1e-3

[learning]
steps = {steps}
batch_size = 8

[checkpoint]
steps = 20
"""


def draw(count, seed):
    random = np.random.default_rng(seed)
    means = random.uniform(-40, 40, count)
    inliers = means[:, None] + 4 * random.standard_normal((count, 10))
    return np.concatenate([inliers, random.uniform(-40, 40, (count, 40))], axis=1), inliers.mean(axis=1)


@pytest.fixture
def place(tmp_path):
    """A folder with a model, data and a spec of 60 steps."""
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "fit.toml").write_text(SPEC.format(steps=60))
    x, means = draw(20, 0)
    np.savez(tmp_path / "train.npz", x=x, mean=means)
    x, means = draw(10, 1)
    lines = [",".join([*(f"x[{k}]" for k in range(50)), "mean"])]
    lines += [",".join(map(repr, [*row.tolist(), mean])) for row, mean in zip(x, means.tolist(), strict=True)]
    (tmp_path / "held_out.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def command(*arguments, **options):
    return [sys.executable, "-m", "wiberg.learn.shell.command", *map(str, arguments)]


def run(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300)


def result_of(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(capsys, *arguments):
    """The error of a command that is refused."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    out, errors = capsys.readouterr()
    assert out == "" and "Traceback" not in errors
    return errors


def kernel_and_loss(place):
    names = {}
    exec((place / "model.py").read_text(), names)
    return wb.compile(names["energy"]), names["loss"]


def test_a_run_learns_what_the_library_learns(place):
    result = result_of(run("fit", place / "fit.toml", "--json"))
    folder = place / "fit.run"
    assert sorted(os.listdir(folder)) == ["checkpoint", "checkpoint.1", "history.npz", "report.html", "run.json",
                                          "spec.toml"]  # fmt: skip
    kernel, loss = kernel_and_loss(place)
    learner = wb.Learner(kernel, loss, weights={"sigma": 2.0}, optimiser=wb.SGD(1e-3))
    with np.load(place / "train.npz") as file:
        x, means = file["x"], file["mean"]

    def batch(step):
        number, part = divmod(step, 3)
        rows = np.random.default_rng([0, number]).permutation(20)[8 * part : 8 * part + 8]
        return wb.Batch(data={"x": x[rows]}, targets={"mean": means[rows]})

    history = learner.fit(batch, steps=60)
    assert result["weights"] == learner.weights and result["steps"] == 60 and result["state"] == "finished"
    with np.load(folder / "history.npz") as file:
        np.testing.assert_array_equal(file["loss"], history.loss)
        np.testing.assert_array_equal(file["weights/sigma"], history.weights["sigma"])
    assert (folder / "spec.toml").read_bytes() == (place / "fit.toml").read_bytes()
    assert wb.Learner.load(folder / "checkpoint", kernel, loss).weights == learner.weights
    report = (folder / "report.html").read_text()
    assert f"{learner.weights['sigma']:.6g}" in report and "Held-out loss" in report and "train.npz" in report
    x, means = draw(10, 1)
    for when, weights in (("before", {"sigma": 2.0}), ("after", learner.weights)):
        losses = (wb.minimise(kernel, weights, {"x": x}).variables["t"] - means) ** 2
        assert result["evaluation"][when]["mean"] == pytest.approx(losses.mean(), rel=1e-12)
        assert result["evaluation"][when]["worst_instance"] == int(losses.argmax())


def test_a_run_with_schedules_is_the_librarys_and_goes_on_to_the_same_bits(place):
    damping = '{kind = "Warmup", steps = 7, then = {kind = "PiecewiseLinear", points = [[0, 2.0], [30, 0.1]]}}'
    text = SPEC.replace("steps = {steps}", "steps = {steps}\ndamping = @").format(steps=60).replace("@", damping)
    (place / "fit.toml").write_text(text.replace("steps = 60", "steps = 25"))
    assert result_of(run("fit", place / "fit.toml", "--json"))["steps"] == 25
    (place / "fit.toml").write_text(text)
    result = result_of(run("fit", place / "fit.toml", "--json"))
    kernel, loss = kernel_and_loss(place)
    schedule = wb.Warmup(wb.PiecewiseLinear({0: 2.0, 30: 0.1}), 7)
    learner = wb.Learner(kernel, loss, weights={"sigma": 2.0}, optimiser=wb.SGD(1e-3), damping=schedule)
    with np.load(place / "train.npz") as file:
        x, means = file["x"], file["mean"]

    def batch(step):
        number, part = divmod(step, 3)
        rows = np.random.default_rng([0, number]).permutation(20)[8 * part : 8 * part + 8]
        return wb.Batch(data={"x": x[rows]}, targets={"mean": means[rows]})

    history = learner.fit(batch, steps=60)
    assert result["weights"] == learner.weights and result["steps"] == 60
    with np.load(place / "fit.run" / "history.npz") as file:
        np.testing.assert_array_equal(file["damping"], [schedule.at(step) for step in range(60)])
        np.testing.assert_array_equal(file["loss"], history.loss)
    (place / "fit.toml").write_text(text.replace("2.0], [30", "2.5], [30"))
    done = run("fit", place / "fit.toml")
    assert done.returncode == 2 and "learning.damping was" in done.stderr and "Traceback" not in done.stderr


def wait_for_another(process, file, before):
    """Wait until a checkpoint is there that is another than before."""
    deadline = time.monotonic() + 120
    while not file.exists() or file.read_bytes() == before:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals of POSIX")
def test_a_run_that_is_killed_and_interrupted_ends_with_the_bits_of_one_that_is_not(place):
    (place / "fit.toml").write_text(SPEC.format(steps=1200).replace("steps = 20", "steps = 100"))
    whole = result_of(run("fit", place / "fit.toml", "--folder", place / "whole", "--json"))
    folder, before, steps = place / "stopped", b"", 0
    for kind in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        process = subprocess.Popen(
            command("fit", place / "fit.toml", "--folder", folder, "--json"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_for_another(process, folder / "checkpoint", before)
        process.send_signal(kind)
        out, errors = process.communicate(timeout=120)
        before = (folder / "checkpoint").read_bytes()
        if kind == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL and not (folder / "history.npz").exists()
            continue
        stopped = json.loads(out)
        assert process.returncode == 130 and stopped["state"] == "interrupted" and "Traceback" not in errors
        assert steps < stopped["steps"] < 1200 and f"interrupted after {stopped['steps']} steps" in errors
        assert (folder / "history.npz").exists() and (folder / "report.html").exists()
        steps = stopped["steps"]
    again = result_of(run("fit", place / "fit.toml", "--folder", folder, "--json"))
    assert {**again, "folder": ""} == {**whole, "folder": ""}
    assert (folder / "checkpoint").read_bytes() == (place / "whole" / "checkpoint").read_bytes()
    for name in ("loss", "weights/sigma"):
        with np.load(folder / "history.npz") as one, np.load(place / "whole" / "history.npz") as other:
            np.testing.assert_array_equal(one[name], other[name])


def test_a_finished_run_takes_no_step_and_can_be_given_more(place, capsys):
    assert main(["fit", str(place / "fit.toml"), "--quiet"]) == 0
    first = (place / "fit.run" / "checkpoint").read_bytes()
    assert main(["fit", str(place / "fit.toml"), "--quiet"]) == 0
    assert (place / "fit.run" / "checkpoint").read_bytes() == first
    (place / "fit.toml").write_text(SPEC.format(steps=70))
    capsys.readouterr()
    assert main(["fit", str(place / "fit.toml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 70


def test_apply_writes_the_minima(place, capsys):
    assert main(["fit", str(place / "fit.toml"), "--quiet"]) == 0
    kernel, loss = kernel_and_loss(place)
    weights = wb.Learner.load(place / "fit.run" / "checkpoint", kernel, loss).weights
    x, _ = draw(10, 1)
    solution = wb.minimise(kernel, weights, {"x": x})
    assert main(["apply", str(place / "fit.run"), str(place / "held_out.csv")]) == 0
    with np.load(place / "fit.run" / "held_out.minima.npz") as file:
        np.testing.assert_array_equal(file["t"], solution.variables["t"])
        np.testing.assert_array_equal(file["energy"], solution.energy)
        assert file["status"].tolist() == ["CONVERGED"] * 10
    np.savez(place / "new.npz", x=x)  # no targets
    capsys.readouterr()
    output = place / "out.csv"
    assert main(["apply", str(place / "fit.run"), str(place / "new.npz"), "--output", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "output": str(output), "instances": 10, "steps": 60, "statuses": {"CONVERGED": 10},
    }  # fmt: skip
    head, *rows = output.read_text().splitlines()
    assert head == "t,energy,status"
    assert [float(row.split(",")[0]) for row in rows] == solution.variables["t"].tolist()


def test_evaluate_compares_before_and_after(place, capsys):
    assert main(["fit", str(place / "fit.toml"), "--json"]) == 0
    fitted = json.loads(capsys.readouterr().out)
    assert fitted["evaluation"]["statuses"] == {"CONVERGED": 10}
    assert main(["evaluate", str(place / "fit.run"), str(place / "held_out.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["evaluation"] == fitted["evaluation"]
    assert main(["evaluate", str(place / "fit.run"), str(place / "held_out.csv")]) == 0
    text = capsys.readouterr().out
    assert re.search(r"held-out loss +before +after\n", text)
    assert f"{fitted['evaluation']['after']['mean']:.6g}" in text


def test_a_moved_folder_is_still_a_run(place, tmp_path_factory):
    assert main(["fit", str(place / "fit.toml"), "--quiet"]) == 0
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "all"
    os.rename(place, elsewhere)
    assert main(["evaluate", str(elsewhere / "fit.run"), str(elsewhere / "held_out.csv")]) == 0


def test_check_reads_everything_and_takes_no_step(place, capsys):
    assert main(["fit", str(place / "fit.toml"), "--check", "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["instances"] == 20 and checked["batches"] == 3 and checked["arrays"] == {"x": [20, 50], "mean": [20]}
    assert checked["loss"] > 0.0 and not (place / "fit.run").exists()


def test_keys_are_explained_without_a_spec(capsys):
    assert main(["fit", "--explain"]) == 0
    assert "learning.damping" in capsys.readouterr().out
    assert "which SPEC.toml?" in refused(capsys, "fit")


@pytest.mark.parametrize(("old", "new", "pieces"), [
    ("steps = 60", "stpes = 60", ["fit.toml has 2 problems", "did you mean 'steps'?"]),
    ("model.py:energy", "modle.py:energy", ["modle.py does not exist"]),
    ("model.py:energy", "model.py:enery", ["defines no 'enery'; did you mean 'energy'?", "the energies energy"]),
    ("model.py:energy", "model.py:loss", ["'loss' in", "is of type Loss; expected a wb.Energy, a kernel, a wb.Output"]),
    ("model.py:loss", "model.py:energy", ["is of type Energy; expected a wb.Loss"]),
    ("model.py:loss", "model.py:wrong", ["reads s, which is no variable of the energy"]),
    ("sigma = 2.0", "sgima = 2.0", ["unknown weight 'sgima'; did you mean 'sigma'?"]),
    ("sigma = 2.0", "sigma = [2.0]", ["weight sigma must have its declared shape ()"]),
    ("train.npz", "missing.npz", ["missing.npz does not exist"]),
    ("train.npz", "model.py", ["model.py: files of data end with .npz"]),
    ("learning_rate = 1e-3", "learning_rate = -1.0", ["learning_rate must be > 0"]),
    ("[optimiser]", "[start]\ns = 1.0\n[optimiser]", ["start.s: no such variable; variables: t"]),
])  # fmt: skip
def test_a_spec_that_does_not_fit_is_refused_before_a_step(old, new, pieces, place, capsys):
    text = (place / "fit.toml").read_text()
    assert old in text
    (place / "fit.toml").write_text(text.replace(old, new))
    errors = refused(capsys, "fit", place / "fit.toml")
    assert errors.startswith("wiberg fit: ") and all(piece in errors for piece in pieces), errors
    assert not (place / "fit.run" / "checkpoint").exists()


def test_a_run_of_another_spec_or_of_other_data_is_not_gone_on_with(place, capsys):
    assert main(["fit", str(place / "fit.toml"), "--quiet"]) == 0
    before = (place / "fit.run" / "checkpoint").read_bytes()
    (place / "fit.toml").write_text(SPEC.format(steps=80).replace("1e-3", "1e-4").replace("batch_size = 8", ""))
    errors = refused(capsys, "fit", place / "fit.toml")
    assert "learning.batch_size was 8 and is 32" in errors and "'learning_rate': 0.001" in errors
    (place / "fit.toml").write_text(SPEC.format(steps=80))
    x, means = draw(20, 5)
    np.savez(place / "train.npz", x=x, mean=means)
    assert "train.npz has other contents" in refused(capsys, "fit", place / "fit.toml")
    assert (place / "fit.run" / "checkpoint").read_bytes() == before


def test_an_energy_that_was_changed_is_noticed(place, capsys):
    assert main(["fit", str(place / "fit.toml"), "--quiet"]) == 0
    (place / "model.py").write_text(MODEL.replace("** 2)), i)", "** 2)), i) + t**2 / 1000"))
    assert "the expression differs" in refused(capsys, "evaluate", place / "fit.run", place / "held_out.csv")


def test_a_folder_that_is_no_run_is_refused_and_untouched(place, capsys):
    (place / "fit.run").mkdir()
    (place / "fit.run" / "thesis.txt").write_text("mine")
    assert "is no run folder" in refused(capsys, "fit", place / "fit.toml")
    assert os.listdir(place / "fit.run") == ["thesis.txt"]
    for name in ("apply", "evaluate"):
        assert "has no run.json" in refused(capsys, name, place / "fit.run", place / "held_out.csv")
        assert "is no folder" in refused(capsys, name, place / "nowhere", place / "held_out.csv")
    (place / "fit.run" / "run.json").write_text("{")
    assert "not what wiberg fit wrote" in refused(capsys, "evaluate", place / "fit.run", place / "held_out.csv")


def test_a_damaged_checkpoint_is_told_with_the_one_before(place, capsys):
    assert main(["fit", str(place / "fit.toml"), "--quiet"]) == 0
    file = place / "fit.run" / "checkpoint"
    file.write_bytes(file.read_bytes()[:-100])
    errors = refused(capsys, "fit", place / "fit.toml")
    assert "truncated or damaged" in errors and "previous good one" in errors


def test_a_loss_that_is_not_finite_stops_with_1_and_what_was_learnt_is_kept(place, capsys):
    with np.load(place / "train.npz") as file:
        means = file["mean"].copy()
        x = file["x"]
    means[7] = 1e200  # its squared error is infinite
    np.savez(place / "train.npz", x=x, mean=means)
    (place / "fit.toml").write_text(SPEC.format(steps=60).replace("batch_size = 8", "batch_size = 8\nshuffle = false"))
    (place / "fit.toml").write_text((place / "fit.toml").read_text().replace("batch_size = 8", "batch_size = 4"))
    assert main(["fit", str(place / "fit.toml"), "--json"]) == 1
    out, errors = capsys.readouterr()
    assert json.loads(out)["state"] == "stopped" and json.loads(out)["steps"] == 1
    assert "instance 3" in errors and "Traceback" not in errors
    kernel, loss = kernel_and_loss(place)
    assert wb.Learner.load(place / "fit.run" / "checkpoint", kernel, loss).steps == 1


def test_an_ending_that_cannot_be_written_is_refused_before_work(place, capsys):
    assert main(["fit", str(place / "fit.toml"), "--quiet"]) == 0
    capsys.readouterr()
    errors = refused(capsys, "apply", place / "fit.run", place / "held_out.csv", "--output", place / "out.xlsx")
    assert "files of arrays end with .npz" in errors


def test_outputs_and_families_are_learnt_and_applied(place, capsys):
    (place / "model.py").write_text(
        """
import sympy as sp
import wiberg as wb

n = sp.Symbol("n", integer=True, positive=True)
i, k = sp.Idx("i", n), sp.Idx("k", 2)
t, shift, mean, truth = sp.symbols("t shift mean truth", real=True)
x, T = sp.IndexedBase("x", shape=(2, n)), sp.IndexedBase("t", shape=(2,))
each = wb.Energy(sp.Sum((x[k, i] + shift - t) ** 2, i), variables=[t], weights=[shift], data=[x], over=[k])
def energy():
    return wb.Output({mean: (T[0] + T[1]) / 2}, minima=wb.compile(each))
loss = wb.Loss((mean - truth) ** 2, variables=[mean], targets=[truth])
"""
    )
    random = np.random.default_rng(0)
    x = random.normal(size=(12, 2, 5))
    np.savez(place / "train.npz", x=x, truth=x.mean(axis=(1, 2)) + 3.0)
    (place / "fit.toml").write_text(
        SPEC.format(steps=200).replace("sigma = 2.0", "shift = 0.0").replace('evaluate = "held_out.csv"', "")
        .replace("1e-3", "0.1") + "[start]\nt = 0.0\n"
    )  # fmt: skip
    assert main(["fit", str(place / "fit.toml"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["weights"]["shift"] == pytest.approx(3.0, abs=1e-3)
    assert main(["apply", str(place / "fit.run"), str(place / "train.npz")]) == 0
    with np.load(place / "fit.run" / "train.minima.npz") as file:
        assert file["mean"] == pytest.approx(x.mean(axis=(1, 2)) + 3.0, abs=1e-3)
        assert file["t"].shape == file["energy"].shape == file["status"].shape == (12, 2)
    assert main(["evaluate", str(place / "fit.run"), str(place / "train.npz"), "--json"]) == 0
    after = json.loads(capsys.readouterr().out.splitlines()[-1])["evaluation"]["after"]
    assert after["instances"] == 12 and after["mean"] < 1e-6
