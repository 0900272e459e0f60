"""An instance has the same bits in any batch, in any order, beside any neighbours, on any number of threads."""

import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from wiberg.compiler.calls.threads import set_threads
from wiberg.compiler.machine_code.native import native
from wiberg.runtime import descend, minimise
from wiberg.runtime.driver import run_driver

NAMES = [
    "rosenbrock",
    "beale",
    "matyas",
    "himmelblau",
    "bowl",
    "two wells",
    "bounded monkey saddle",
    "zakharov",
    "half",
]
BAD = ["nowhere", "saddle", "monkey saddle", "valley"]


@pytest.fixture(autouse=True)
def default_threads():
    yield
    set_threads(None)


def mixed(plane, count, names=NAMES, seed=0):
    rng = np.random.default_rng(seed)
    x = plane.data_of(rng.choice(names, count), unit=rng.uniform(0.5, 2, count), offset=rng.uniform(-1, 1, count))
    return x, {"y": rng.uniform(0.1, 3, (count, 2))}


def bits(solution, rows=slice(None)):
    parts = (
        solution.variables["y"],
        solution.energy,
        solution.gradient_norm,
        solution.curvature,
        solution.iterations,
        solution.evaluations,
        solution.status.astype(np.int64),
    )
    return [np.ascontiguousarray(part[rows]).tobytes() for part in parts]


def test_batch_equals_single_calls(plane):
    x, start = mixed(plane, 60, NAMES + BAD)
    batch = minimise(plane, None, x, start=start)
    for b in range(60):
        single = minimise(plane, None, {"c": x["c"][b]}, start={"y": start["y"][b]})
        assert single.variables["y"].tobytes() == batch.variables["y"][b].tobytes()
        assert (
            np.array([single.energy, single.gradient_norm, single.curvature]).tobytes()
            == np.array([batch.energy[b], batch.gradient_norm[b], batch.curvature[b]]).tobytes()
        )
        assert (single.iterations, single.evaluations, single.status) == (
            batch.iterations[b],
            batch.evaluations[b],
            batch.status[b],
        )


def test_order_does_not_matter(plane):
    x, start = mixed(plane, 300, NAMES + BAD)
    order = np.random.default_rng(1).permutation(300)
    plain = minimise(plane, None, x, start=start)
    shuffled = minimise(plane, None, {"c": x["c"][order]}, start={"y": start["y"][order]})
    assert bits(plain, order) == bits(shuffled)


@pytest.mark.parametrize("count", [1, 7, 3000])
def test_number_of_threads_does_not_matter(plane, count):
    x, start = mixed(plane, count, NAMES + BAD)
    results = []
    for number in (1, 2, 3):
        set_threads(number)
        results.append(bits(minimise(plane, None, x, start=start)))
    assert results[0] == results[1] == results[2]


def test_bad_neighbours_change_nothing(plane):
    x, start = mixed(plane, 1000)
    alone = minimise(plane, None, x, start=start)
    where = np.array([3, 500, 999])
    spoilt = {"c": x["c"].copy()}
    spoilt["c"][where] = plane.data_of(["nowhere", "saddle", "valley"])["c"]
    others = np.setdiff1d(np.arange(1000), where)
    assert bits(minimise(plane, None, spoilt, start=start), others) == bits(alone, others)


def test_strided_and_read_only_inputs_give_the_same_bits(plane):
    x, start = mixed(plane, 50)
    wide = np.empty((50, 8))
    wide[:, ::2] = x["c"]
    view = wide[:, ::2]
    view.flags.writeable = False
    assert bits(minimise(plane, None, {"c": view}, start=start)) == bits(minimise(plane, None, x, start=start))


def test_batched_weights_are_prepared_for_each_instance(plane):
    x, start = mixed(plane, 200)
    s = np.random.default_rng(2).uniform(0.4, 0.6, 200)
    set_threads(2)
    batch = minimise(plane, {"s": s}, x, start=start)
    for b in (0, 63, 199):
        single = minimise(plane, {"s": s[b]}, {"c": x["c"][b]}, start={"y": start["y"][b]})
        assert single.variables["y"].tobytes() == batch.variables["y"][b].tobytes()
    plain = minimise(plane, {"s": 0.5}, x, start=start)
    assert bits(plain) == bits(minimise(plane, None, x, start=start))


def test_memory_is_linear_in_the_batch_only(plane):
    """Nothing of the size of the batch is allocated beside the results."""
    x, start = mixed(plane, 20_000)
    minimise(plane, None, x, start=start)
    tracemalloc.start()
    minimise(plane, None, x, start=start)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000 * 8 * (2 + 1 + 2 + 3) + 200_000


# ---------------------------------------------------------------------------------------------- processes, threads


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_forked_child_minimises(plane):
    x, start = mixed(plane, 3000)
    set_threads(2)
    expected = bits(minimise(plane, None, x, start=start))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if bits(minimise(plane, None, x, start=start)) == expected else 2
        finally:
            os._exit(code)
    for _ in range(200):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        pytest.fail("the child hangs")
    assert os.waitstatus_to_exitcode(status) == 0


def test_two_python_threads_at_once(plane):
    x, start = mixed(plane, 3000)
    set_threads(2)
    expected = bits(minimise(plane, None, x, start=start))
    results = []
    workers = [
        threading.Thread(target=lambda: results.append(bits(minimise(plane, None, x, start=start)))) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert results == [expected] * 4


SLEEPER = """
import signal, sys, time
import numpy as np, sympy as sp, wiberg as wb
from wiberg.runtime import minimise
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background of a shell
wb.set_threads(int(sys.argv[1]))
t, a = sp.Symbol("t", real=True), sp.Symbol("a", real=True)
n = sp.Symbol("n", integer=True, positive=True)
i, x = sp.Idx("i", n), sp.IndexedBase("x", shape=(n,))
kernel = wb.compile(wb.Energy(-sp.Sum(sp.exp(-(x[i] - t)**2/a**2), i), variables=[t], weights=[a], data=[x]))
data = np.random.default_rng(0).standard_normal((200_000, 100))
minimise(kernel, {"a": 1.0}, {"x": data[:1]}, start={"t": 0.0})
minimise(kernel, {"a": 1.0}, {"x": data[:1]}, candidates={"t": data[0]})
print("ready", flush=True)
try:
    while True:
        minimise(kernel, {"a": 1.0}, {"x": data}, candidates={"t": data[0]})
except KeyboardInterrupt:
    print("interrupted", flush=True)
solution = minimise(kernel, {"a": 1.0}, {"x": data[:100]}, start={"t": 0.0})
print(int(solution.converged.sum()))
"""


@pytest.mark.parametrize("number", [1, 2])
def test_interrupt_is_seen_soon(number):
    process = subprocess.Popen([sys.executable, "-c", SLEEPER, str(number)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == "ready"
    time.sleep(0.5)
    begin = time.perf_counter()
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline().strip() == "interrupted"
    assert time.perf_counter() - begin < 1.0
    assert process.stdout.readline().strip() == "100"
    assert process.wait(timeout=30) == 0
    process.stdout.close()


def test_the_driver_of_few_unknowns_gives_the_bits_of_the_one_of_many(plane):
    """It differs in what is left out, and is another entry of the cache."""
    random = np.random.default_rng(3)
    x = plane.data_of(random.choice(["rosenbrock", "beale", "himmelblau", "saddle", "two wells", "nowhere"], 200))
    start = {"y": random.uniform(-3, 3, (200, 2))}
    found = minimise(plane, None, x, start=start)
    general = native(descend._minimise_slice)
    assert general.address != descend.minimise_slice(2).address
    assert general.address == descend.minimise_slice(3).address
    problem = replace(found.problem, y=start["y"].copy())
    run_driver(problem, general)
    for field in ("y", "energies", "reals", "integers"):
        assert getattr(problem, field).tobytes() == getattr(found.problem, field).tobytes()
    assert len(set(found.problem.integers[:, 2])) > 1
