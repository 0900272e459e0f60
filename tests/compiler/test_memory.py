"""Memory of large arrays: used again when no array needs it, never while one does."""

import gc
import os
import threading

import numpy as np
import pytest
import wiberg as wb
from energies_table import TABLE
from wiberg.compiler.calls import memory
from wiberg.compiler.calls.memory import LARGE, MOST_IDLE, empty

NUMBERS = LARGE // 8


@pytest.fixture(autouse=True)
def _nothing_idle():
    memory._idle.clear()
    yield
    memory._idle.clear()


def address(array):
    return array.__array_interface__["data"][0]


def test_what_nobody_uses_is_used_again():
    first = empty(NUMBERS)
    place = address(first)
    del first
    assert address(empty((2, NUMBERS // 2))) == place


def test_a_view_keeps_the_memory():
    first = empty((2, NUMBERS))
    view, place = first[1, 5:7], address(first)
    view[:] = 3.0
    del first
    others = [empty((2, NUMBERS)) for _ in range(3)]
    for other in others:
        other[:] = 0.0
    assert place not in map(address, others)
    assert view.tolist() == [3.0, 3.0]


def test_small_arrays_are_numpys_own():
    assert empty(3).base is None
    assert empty((0, 7)).shape == (0, 7)


def test_a_little_less_may_take_it_but_not_half():
    place = address(empty(4 * NUMBERS))
    smaller = empty(3 * NUMBERS)
    assert address(smaller) == place
    del smaller
    assert address(empty(NUMBERS)) != place


def test_what_is_kept_is_bounded_and_the_latest():
    arrays = [empty(MOST_IDLE // 32) for _ in range(6)]
    latest = address(arrays[-1])
    while arrays:
        arrays.pop(0)
    assert sum(m.nbytes for m in memory._idle) <= MOST_IDLE
    assert address(memory._idle[-1]) == latest
    del_me = empty(MOST_IDLE // 8 + 1)
    before = len(memory._idle)
    del del_me
    assert len(memory._idle) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_while_another_thread_holds_the_lock():
    empty(NUMBERS)
    with memory._lock:
        child = os.fork()
        if child == 0:
            try:
                kept = empty(NUMBERS)
                del kept
                os._exit(0)
            finally:
                os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_threads_never_share():
    wrong = []

    def work(number):
        for _ in range(20):
            array = empty(NUMBERS)
            array[::4096] = number
            if not (array[::4096] == number).all():
                wrong.append(number)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


def test_results_stay_as_they_are_when_the_kernel_is_called_again():
    kernel = wb.compile(TABLE["denoise"]())
    side = 700
    random = np.random.default_rng(0)
    w = {"sigma": 0.15, "tau": 0.05}
    images = [random.uniform(0, 1, (side, side)) for _ in range(2)]
    _, gradient, hessian = kernel.value_gradient_hessian({"y": images[0]}, w, {"x": images[1]})
    assert hessian.data.nbytes > LARGE
    kept = gradient.copy(), hessian.data.copy()
    for _ in range(3):
        kernel.value_gradient_hessian({"y": images[1]}, w, {"x": images[0]})
        gc.collect()
    assert np.array_equal(gradient, kept[0])
    assert np.array_equal(hessian.data, kept[1])
