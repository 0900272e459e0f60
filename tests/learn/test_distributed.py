"""Learning on Dask: the bits of a single process for any number of workers, also when one of them is killed."""

import builtins
import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from wiberg.learn import distributed as ours

distributed = pytest.importorskip(
    "distributed", reason="dask.distributed is not installed: pip install 'wiberg[distributed]'"
)
import cloudpickle  # noqa: E402  (Dask needs it, too)
import dask  # noqa: E402
import dask.array  # noqa: E402

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def cluster():
    with (
        dask.config.set({"distributed.worker.daemon": True, "distributed.comm.timeouts.connect": "20s"}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
        ) as cluster,
    ):
        yield cluster


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster) as client:
        yield client


def rows_of(step, count=300):
    random = np.random.default_rng([7, step])
    inliers = random.uniform(-40, 40, (count, 1)) + 4 * random.standard_normal((count, 10))
    return np.concatenate([inliers, random.uniform(-40, 40, (count, 20))], axis=1), inliers.mean(axis=1)


def batch_of(step, count=300):
    x, mu = rows_of(step, count)
    return wb.Batch(data={"x": x}, targets={"mu": mu})


def learner_of(ransac, t_loss, **options):
    return wb.Learner(ransac, t_loss, {"sigma": 8.0}, wb.SGD(1e-3, momentum=0.9), **options)


def same(a, b):
    assert a.weights == b.weights and a.steps == b.steps
    for name in ("loss", "gradient_norm", "unconverged", "shifted", "dominated"):
        np.testing.assert_array_equal(getattr(a.history, name), getattr(b.history, name))


@pytest.fixture(scope="module")
def alone(ransac, t_loss):
    """Six steps in this process."""
    learner = learner_of(ransac, t_loss)
    learner.fit([batch_of(step) for step in range(3)], steps=6)
    return learner


# ---------------------------------------------------------------------------------------------- the same bits


def test_batches_in_memory(ransac, t_loss, client, alone):
    learner = learner_of(ransac, t_loss)
    learner.fit([batch_of(step) for step in range(3)], steps=6, client=client)
    same(learner, alone)


@pytest.mark.parametrize("workers", [1, 5])
def test_any_number_of_workers(ransac, t_loss, client, alone, workers, monkeypatch):
    monkeypatch.setattr(ours._Workers, "_threads", lambda self: workers)
    learner = learner_of(ransac, t_loss)
    learner.fit(lambda step: batch_of(step % 3), steps=6, client=client)
    same(learner, alone)


@pytest.fixture(scope="module")
def pairs():
    """A family of two, each with several minima, and the loss of both."""
    n = sp.Symbol("n", integer=True, positive=True)
    i, j = sp.Idx("i", n), sp.Idx("j", 2)
    t, mu, sigma = sp.Symbol("t", real=True), sp.Symbol("mu", real=True), sp.Symbol("sigma", positive=True)
    x, both = sp.IndexedBase("x", shape=(2, n)), sp.IndexedBase("t", shape=(2,))
    formula = -sp.Sum(sp.exp(-(((x[j, i] - t) / sigma) ** 2)), i)
    energy = wb.Energy(formula, variables=[t], weights=[sigma], data=[x], over=[j], candidates={t: x[j, i]})
    return wb.compile(energy), wb.Loss((both[0] + both[1] - 2 * mu) ** 2, variables=[both], targets=[mu])


@pytest.fixture(scope="module")
def selections(ransac, t_loss, pairs):
    """How learners that see all minima are made, and six steps of each in this process."""
    found = {}
    for name, (kernel, loss), shape in (("one", (ransac, t_loss), (300, 30)), ("family", pairs, (300, 2, 15))):
        batches = [
            wb.Batch(data={"x": x.reshape(shape)}, targets={"mu": mu}) for x, mu in (rows_of(step) for step in range(3))
        ]
        for direct in (False, True):
            make = partial(
                wb.Learner, kernel, loss, {"sigma": wb.Weight(8.0, scale="log")}, wb.SGD(1e-2, momentum=0.9),
                selection=wb.Selection(direct=direct),
            )  # fmt: skip
            alone = make()
            alone.fit(batches, steps=6)
            assert abs(alone.weights["sigma"] - 8.0) > 0.05
            found[name, direct] = make, batches, alone
    return found


@pytest.mark.parametrize("direct", [False, True], ids=["shares", "direct"])
@pytest.mark.parametrize("of", ["one", "family"])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_jumps_between_minima(selections, client, of, direct, workers, monkeypatch):
    monkeypatch.setattr(ours._Workers, "_threads", lambda self: workers)
    make, batches, alone = selections[of, direct]
    learner = make()
    learner.fit(batches, steps=6, client=client)
    same(learner, alone)
    assert learner._state.averages == alone._state.averages


def test_jumps_between_minima_in_parts(selections, client):
    make, batches, alone = selections["one", False]

    def part(step, begin, end):
        whole = batches[step]
        return wb.Batch({"x": whole.data["x"][begin:end]}, {"mu": whole.targets["mu"][begin:end]})

    readers = [
        wb.BatchParts([partial(part, step, *ends) for ends in ((0, 128), (128, 300))]) for step in range(3)
    ]  # fmt: skip
    for options in ({"client": client}, {}):
        learner = make()
        learner.fit(readers, steps=6, **options)
        same(learner, alone)


@pytest.mark.parametrize("rows", [100, 1000])
def test_dask_arrays(ransac, t_loss, client, alone, rows):
    def lazy(step):
        x, mu = rows_of(step)
        arrays = dask.array.from_array(x, chunks=(rows, -1)), dask.array.from_array(mu, chunks=70)
        return wb.Batch(data={"x": arrays[0]}, targets={"mu": arrays[1]})

    there, here = learner_of(ransac, t_loss), learner_of(ransac, t_loss)
    there.fit([lazy(step) for step in range(3)], steps=6, client=client)
    same(there, alone)
    here.fit([lazy(step) for step in range(3)], steps=6)
    same(here, alone)


def part_of(step, begin, end):
    x, mu = rows_of(step)
    return wb.Batch(data={"x": x[begin:end]}, targets={"mu": mu[begin:end]})


def test_readers(ransac, t_loss, client, alone):
    ends = [(0, 128), (128, 192), (192, 300)]
    lazy = [wb.BatchParts([dask.delayed(part_of)(step, *end) for end in ends]) for step in range(3)]
    plain = [wb.BatchParts([partial(part_of, step, *end) for end in ends]) for step in range(3)]
    for batches, options in ((lazy, {"client": client}), (lazy, {}), (plain, {"client": client})):
        learner = learner_of(ransac, t_loss)
        learner.fit(batches, steps=6, **options)
        same(learner, alone)


def noted_part(folder, step, begin, end):
    """A part, and how many others its worker holds that it has read and not judged."""
    from distributed import get_worker

    held = sum(isinstance(value, wb.Batch) for value in dict(get_worker().data).values())
    with open(os.path.join(folder, f"{step}_{begin}"), "w") as file:
        file.write(str(held))
    time.sleep(0.05)  # no reader is faster than Dask's way to the scheduler and back
    return part_of(step, begin % 256, end % 256 or 256)


@pytest.mark.parametrize("make", [partial, lambda *a: dask.delayed(a[0])(*a[1:])], ids=["function", "delayed"])
def test_parts_are_judged_before_others_are_read(ransac, t_loss, client, tmp_path, make):
    """Or a batch would have to fit into the memory of all workers."""
    rows = range(0, 64 * 24, 64)
    parts = [make(noted_part, str(tmp_path), 0, begin, begin + 64) for begin in rows]
    learner_of(ransac, t_loss).fit(wb.BatchParts(parts), steps=1, client=client)
    held = [int(file.read_text()) for file in tmp_path.iterdir()]
    assert len(held) == 24 and max(held) <= 4, held


def test_one_delayed_batch_is_a_step(ransac, t_loss, client, alone):
    learner = learner_of(ransac, t_loss)
    learner.fit([dask.delayed(batch_of)(step) for step in range(3)], steps=6, client=client)
    same(learner, alone)
    learner, one = learner_of(ransac, t_loss), learner_of(ransac, t_loss)
    learner.fit(dask.delayed(batch_of)(0), steps=2, client=client)
    one.fit(batch_of(0), steps=2)
    same(learner, one)


def test_from_a_checkpoint_with_and_without_workers(ransac, t_loss, client, alone, tmp_path):
    batches = [batch_of(step) for step in range(3)]
    learner_of(ransac, t_loss).fit(batches, steps=2, client=client, checkpoint=tmp_path / "run")
    wb.Learner.load(tmp_path / "run", ransac, t_loss).fit(batches, steps=2, checkpoint=tmp_path / "run")
    last = wb.Learner.load(tmp_path / "run", ransac, t_loss)
    last.fit(batches, steps=2, client=client)
    same(last, alone)


# ---------------------------------------------------------------------------------------------- workers


def killing(flag, step, begin, end):
    """Kill the worker that reads this, once."""
    if step == 2 and begin == 128:
        try:
            os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    return part_of(step, begin, end)


def test_a_worker_that_is_killed_within_a_step_costs_time_only(ransac, t_loss, client, alone, tmp_path):
    flag, before = str(tmp_path / "killed"), set(client.nthreads())
    readers = [
        wb.BatchParts([partial(killing, flag, step, *end) for end in ((0, 128), (128, 300))]) for step in range(3)
    ]
    learner = learner_of(ransac, t_loss)
    learner.fit(readers, steps=6, client=client)
    assert os.path.exists(flag)
    client.wait_for_workers(2, timeout=20)
    assert set(client.nthreads()) != before
    same(learner, alone)


def test_a_killed_worker_takes_no_batch_in_memory_with_it(ransac, t_loss, client, alone):
    def kill_one(learner):
        if learner.steps == 4:  # all batches, and the learner, are on workers, some on this one only
            pids = client.run(os.getpid)
            os.kill(next(iter(pids.values())), signal.SIGKILL)

    learner = learner_of(ransac, t_loss)
    learner.fit([batch_of(step) for step in range(3)], steps=6, client=client, callback=kill_one)
    client.wait_for_workers(2, timeout=20)
    same(learner, alone)


def test_batches_in_memory_are_sent_once(ransac, t_loss, client, monkeypatch):
    sent, kept = [], ours._Workers._kept
    monkeypatch.setattr(
        ours._Workers, "_kept", lambda self, value: sent.append(type(value).__name__) or kept(self, value)
    )
    learner = learner_of(ransac, t_loss)
    learner.fit([batch_of(step) for step in range(2)], steps=6, client=client)
    assert sent == ["Learner"] + ["Batch"] * 4


def test_nothing_stays_on_the_workers(ransac, t_loss, client):
    learner_of(ransac, t_loss).fit([batch_of(0)], steps=2, client=client)
    deadline = time.monotonic() + 10
    while any(client.has_what().values()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(client.has_what().values())


def test_workers_use_one_thread(client):
    def count():
        from wiberg.compiler.calls.threads import threads

        return threads()

    assert set(client.run(count).values()) == {1}


CTRL_C = """
import logging, sys, time, numpy as np, sympy as sp, wiberg as wb
from distributed import Client, LocalCluster
if __name__ == "__main__":
    t, mu, w, z = sp.symbols("t mu w z", real=True)
    energy = wb.Energy((t - w * z) ** 2, variables=[t], weights=[w], data=[z])
    kernel, loss = wb.compile(energy, backend="reference"), wb.Loss((t - mu) ** 2, variables=[t], targets=[mu])
    learner = wb.Learner(kernel, loss, {"w": 1.0}, wb.SGD(1e-3))
    batch = wb.Batch({"z": np.ones(100)}, {"mu": np.ones(100)}, start={"t": 0.0})
    with (
        LocalCluster(n_workers=1, dashboard_address=None, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster) as client,
    ):
        try:
            learner.fit(
                batch, 10**6, client=client, checkpoint=sys.argv[1], callback=lambda _: print("step", flush=True)
            )
        except KeyboardInterrupt:
            print("saved", learner.steps, wb.Learner.load(sys.argv[1], kernel, loss).steps, flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups are of POSIX")
def test_ctrl_c_in_a_terminal_reaches_the_workers_and_ends_fit_all_the_same(tmp_path):
    program = tmp_path / "train.py"
    program.write_text(CTRL_C)
    process = subprocess.Popen(
        [sys.executable, program, tmp_path / "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "step\n"
        os.killpg(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    steps, saved = re.search(r"saved (\d+) (\d+)", rest).groups()
    assert steps == saved and int(steps) >= 1


# ---------------------------------------------------------------------------------------------- what can go wrong


def test_errors_come_back_as_they_are_and_name_the_part(spring, t_loss, client):
    mu = np.where(np.arange(150) == 140, 1e200, 1.0)
    batch = wb.Batch({"a": 1.0, "z": np.ones(150)}, {"mu": mu}, start={"t": 0.0}, name="far")
    learner = wb.Learner(spring, t_loss, {"w": 2.0})
    with pytest.raises(wb.NumericalError, match=r"step 0, batch 'far\[128:150\]': the loss is inf at instance 12"):
        learner.fit([batch], client=client)
    assert learner.steps == 0
    learner.fit(wb.Batch({"a": 1.0, "z": np.ones(150)}, {"mu": 1.0}, start={"t": 0.0}), client=client)
    assert learner.steps == 1


def test_dask_arrays_of_unknown_length_are_refused(ransac, t_loss, client):
    x = dask.array.from_array(rows_of(0)[0], chunks=(100, -1))
    x = x[x[:, 0] > 0]
    with pytest.raises(wb.InputError, match=r"compute_chunk_sizes"):
        learner_of(ransac, t_loss).fit(wb.Batch({"x": x}, {"mu": 0.0}), client=client)


def test_what_is_no_client_is_refused(ransac, t_loss):
    with pytest.raises(wb.InputTypeError, match=r"client must be a dask\.distributed\.Client.*str"):
        learner_of(ransac, t_loss).fit(batch_of(0), client="tcp://127.0.0.1:8786")


def test_without_the_package_the_extra_is_named(ransac, t_loss, monkeypatch):
    real = builtins.__import__

    def missing(name, *arguments, **named):
        if name == "distributed":
            raise ImportError("No module named 'distributed'")
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(wb.MissingPackageError, match=r"pip install 'wiberg\[distributed\]'"):
        learner_of(ransac, t_loss).fit(batch_of(0), client=object())
