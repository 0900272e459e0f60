"""Long runs: progress, callbacks, interrupts, streams of batches in bounded memory."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import time
import tracemalloc
import weakref
from time import perf_counter, process_time

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from wiberg.energies.errors import InputError, InputTypeError, NameMissingError

t, a = sp.symbols("t a", real=True)
n = sp.Symbol("n", integer=True, positive=True)
i = sp.Idx("i", n)
x = sp.IndexedBase("x", shape=(n,))


@pytest.fixture(scope="module")
def location():
    expression = sp.Sum(sp.sqrt(1 + (x[i] - t) ** 2), i)
    return wb.compile(wb.Energy(expression, variables=[t], data=[x], candidates={t: x[i]}, name="location"))


@pytest.fixture(scope="module")
def data():
    return {"x": np.random.default_rng(0).normal(0, 3, (3000, 7))}


def bits(solution):
    return [getattr(solution, name).tobytes() for name in ("y", "energies", "reals", "integers")]


# ---------------------------------------------------------------------------------------------- progress


@pytest.mark.parametrize("options", [{}, {"start": {"t": 0.5}}, {"minima": 2}, {"restarts": 2}])
def test_progress_and_callback_change_no_bit(location, data, options, capsys):
    plain = wb.minimise(location, None, data, **options)
    watched = wb.minimise(location, None, data, progress=True, callback=lambda done, total: None, **options)
    assert bits(plain) == bits(watched)


def test_batched_starts_and_candidates_are_reported_in_parts(location, data):
    starts = np.random.default_rng(1).normal(0, 3, 3000)
    candidates = np.random.default_rng(2).normal(0, 3, (3000, 4))
    for options in ({"start": {"t": starts}}, {"candidates": {"t": candidates}}):
        calls = []
        watched = wb.minimise(location, None, data, callback=lambda done, total, c=calls: c.append(done), **options)
        assert bits(watched) == bits(wb.minimise(location, None, data, **options))
        assert len(calls) > 2


def test_a_callback_sees_how_far_the_run_is(location, data):
    calls = []
    wb.minimise(location, None, data, callback=lambda *numbers: calls.append(numbers))
    done = [one for one, _ in calls]
    assert {total for _, total in calls} == {3000} and done[-1] == 3000
    assert done == sorted(set(done)) and done[0] <= 16


def test_every_start_counts_for_a_callback(location, data):
    calls = []
    wb.minimise(location, None, data, minima=2, restarts=1, callback=lambda *numbers: calls.append(numbers))
    assert calls[-1] == (3000 * 8, 3000 * 8)


def test_what_a_callback_raises_ends_the_run(location, data):
    class Enough(Exception):
        pass

    def stop(done, total):
        if done > 100:
            raise Enough

    with pytest.raises(Enough):
        wb.minimise(location, None, data, callback=stop)
    assert wb.minimise(location, None, data).converged.all()


def test_the_bar_shows_all_instances(location, data, capsys):
    wb.minimise(location, None, data, progress=True)
    shown = capsys.readouterr().err
    assert "minimise: 100%" in shown and "3000/3000" in shown
    wb.minimise(location, None, data)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("options, word", [({"progress": 1}, "progress.*True or False"), ({"callback": 3}, "callback")])
def test_bad_options_are_refused(location, data, options, word):
    with pytest.raises(InputTypeError, match=word):
        wb.minimise(location, None, data, **options)


# ---------------------------------------------------------------------------------------------- interrupts

INTERRUPTED = """
import signal, sys
import numpy as np, sympy as sp, wiberg as wb
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background of a shell
wb.set_threads(2)
t = sp.Symbol("t", real=True)
n = sp.Symbol("n", integer=True, positive=True)
i, x = sp.Idx("i", n), sp.IndexedBase("x", shape=(n,))
kernel = wb.compile(wb.Energy(-sp.Sum(sp.exp(-(x[i] - t)**2), i), variables=[t], data=[x]))
data = np.random.default_rng(0).standard_normal((200_000, 100))
few = {"x": data[:3]}
options = dict(OPTIONS)
wb.minimise(kernel, None, few, **options)
print("ready", flush=True)
try:
    while True:
        STATEMENT
except KeyboardInterrupt:
    print("interrupted", flush=True)
print(int(wb.minimise(kernel, None, {"x": data[:100]}, start={"t": 0.0}).converged.sum()))
"""
MINIMISE = "wb.minimise(kernel, None, {'x': data}, **options)"
STREAM = "[None for _ in wb.minimise_stream(kernel, None, iter([{'x': data}] * 9), **options)]"


@pytest.mark.parametrize(
    "options, statement",
    [
        ("start={'t': 0.0}, progress=True", MINIMISE),
        ("candidates={'t': [0.0, 1.0, 2.0]}, minima=2", MINIMISE),
        ("start={'t': 0.0}, restarts=50", MINIMISE),
        ("start={'t': 0.0}, trace=True", MINIMISE),
        ("start={'t': 0.0}", STREAM),
    ],
)
def test_an_interrupt_is_seen_soon_and_nothing_hangs(options, statement):
    code = INTERRUPTED.replace("OPTIONS", options).replace("STATEMENT", statement)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout.readline().strip() == "ready"
    time.sleep(0.4)
    begin = perf_counter()
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline().strip() == "interrupted"
    assert perf_counter() - begin < 1.0
    assert process.stdout.readline().strip() == "100"
    assert process.wait(timeout=30) == 0
    process.stdout.close()


# ---------------------------------------------------------------------------------------------- streams


def batches_of(data, size):
    return ({"x": data["x"][k : k + size]} for k in range(0, len(data["x"]), size))


def test_a_stream_gives_the_bits_of_single_calls(location, data):
    whole = wb.minimise(location, None, data)
    solutions = list(wb.minimise_stream(location, None, batches_of(data, 700)))
    assert [len(s.y) for s in solutions] == [700, 700, 700, 700, 200]
    for part, all_of_it in zip(zip(*map(bits, solutions), strict=True), bits(whole), strict=True):
        assert b"".join(part) == all_of_it


def test_batches_may_bring_their_starts(location, data):
    rows = data["x"][:10]
    batches = [wb.Batch(data={"x": rows}, start={"t": np.arange(10.0)}), wb.Batch(data={"x": rows}, candidates=None)]
    first, second = wb.minimise_stream(location, None, batches)
    assert bits(first) == bits(wb.minimise(location, None, {"x": rows}, start={"t": np.arange(10.0)}))
    assert bits(second) == bits(wb.minimise(location, None, {"x": rows}))


def test_a_stream_is_lazy(location, data):
    taken = []

    def batches():
        for k in range(5):
            taken.append(k)
            yield {"x": data["x"][k : k + 1]}

    stream = wb.minimise_stream(location, None, batches())
    assert taken == []
    next(stream)
    assert taken == [0]
    next(stream)
    assert taken == [0, 1]


def test_a_batch_is_gone_before_the_next_is_made(location):
    alive, before = [], []

    def made(number):
        gc.collect()
        before.append(sum(ref() is not None for ref in alive))
        array = np.random.default_rng(number).standard_normal((50, 4))
        alive.append(weakref.ref(array))
        return {"x": array}

    for solution in wb.minimise_stream(location, None, (made(k) for k in range(6))):
        del solution
    assert before == [0] * 6


def test_memory_does_not_grow_with_the_number_of_batches(location):
    def peak(number):
        tracemalloc.start()
        for solution in wb.minimise_stream(
            location, None, ({"x": np.random.default_rng(k).standard_normal((2000, 20))} for k in range(number))
        ):
            solution.energy.sum()
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(2)
    assert peak(20) < 1.1 * peak(4)


def test_a_stream_is_linear_in_the_instances(location):
    """Time for each of the batches of one stream: the last take as long as the first."""
    array = np.random.default_rng(0).standard_normal((500, 20))
    seconds, last = [], process_time()  # of this process alone: another one may start to work in the middle
    for _ in wb.minimise_stream(location, None, ({"x": array} for _ in range(400))):
        now = process_time()
        seconds.append(now - last)
        last = now
    assert np.median(seconds[300:]) < 2.0 * np.median(seconds[50:150])


def test_progress_of_a_stream(location, data, capsys):
    calls = []
    options = {"progress": True, "callback": lambda *numbers: calls.append(numbers)}
    for _ in wb.minimise_stream(location, None, batches_of(data, 1000), **options):
        pass
    assert calls == [(1000, None), (2000, None), (3000, None)]
    assert "minimise_stream: 3000" in capsys.readouterr().err


def test_an_error_says_in_which_batch(location, data):
    batches = [{"x": data["x"][:3]}, {"y": data["x"][:3]}]
    stream = wb.minimise_stream(location, None, batches)
    next(stream)
    with pytest.raises(NameMissingError, match="x is missing") as caught:
        next(stream)
    assert "batch 1" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    "batches, kind, word",
    [
        ({"x": [1.0, 2.0]}, InputTypeError, "dict.*minimise"),
        (3, InputTypeError, "int"),
        ("abc", InputTypeError, "str"),
    ],
)
def test_batches_of_another_kind_are_refused_at_once(location, batches, kind, word):
    with pytest.raises(kind, match=word):
        wb.minimise_stream(location, None, batches)


def test_bad_batches_and_options_are_refused(location, data):
    with pytest.raises(InputTypeError, match=r"wb.Batch; got list"):
        next(wb.minimise_stream(location, None, [[1.0]]))
    with pytest.raises(InputTypeError, match="no option 'maxiter'"):
        next(wb.minimise_stream(location, None, [{"x": [1.0]}], maxiter=3))
    batch = wb.Batch(data={"x": [1.0]}, start={"t": 0.0})
    with pytest.raises(InputError, match="start is given by the batch and by the call"):
        next(wb.minimise_stream(location, None, [batch], start={"t": 1.0}))
