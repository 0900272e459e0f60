"""Functions become C-callable machine code, and come back from stored parts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from wiberg.compiler.calls import evaluate
from wiberg.compiler.machine_code import calling, native
from wiberg.compiler.machine_code.native import (
    KERNEL_FASTMATH,
    PARTS,
    compile_driver,
    compile_function,
    load,
    reachable_sources,
)
from wiberg.compiler.machine_code.signature import DoublePointer, Signature, double, double_pointer, integer

SIGNATURE = Signature(double, (double_pointer, integer))


def total(x, count):
    result = 0.0
    for i in range(count):
        result += x[i]
    return result


def one_over(x, count):
    return 1.0 / x[count]


@pytest.fixture(scope="module")
def compiled():
    return compile_function(total, SIGNATURE, fastmath=KERNEL_FASTMATH)


def test_a_compiled_function_is_called_with_addresses(compiled):
    x = np.arange(10.0)
    assert compiled[0].call(x.ctypes.data, 10) == 45.0


def test_stored_parts_give_the_same_function_again(compiled):
    x = np.arange(7.0)
    loaded = load(compiled[1], SIGNATURE)
    assert loaded is not None and loaded.call(x.ctypes.data, 7) == 21.0


def test_the_parts_are_bytes_of_the_names_that_are_stored(compiled):
    assert set(compiled[1]) == set(PARTS)
    assert all(isinstance(part, bytes) and part for part in compiled[1].values())


@pytest.mark.parametrize("part", ["symbol"])
def test_parts_that_do_not_belong_together_are_not_loaded(compiled, part):
    assert load({**compiled[1], part: b"\xff\xfe"}, SIGNATURE) is None


def test_division_by_zero_gives_infinity_as_numpy_does():
    function, _ = compile_function(one_over, SIGNATURE)
    x = np.zeros(1)
    assert math.isinf(function.call(x.ctypes.data, 0))


def test_fastmath_of_kernels_keeps_nan_and_infinity():
    assert {"nnan", "ninf"}.isdisjoint(KERNEL_FASTMATH) and "fast" not in KERNEL_FASTMATH


def driver(x: DoublePointer, count: int) -> float:
    result = 0.0
    for i in range(count):
        result += x[i]
    return result


def test_a_stored_driver_is_the_same_function_again():
    x = np.arange(7.0)
    made, parts = compile_driver(driver, "driver")
    loaded = load(parts, SIGNATURE)
    assert made.call(x.ctypes.data, 7) == loaded.call(x.ctypes.data, 7) == 21.0


def test_a_stored_driver_is_not_compiled_again(tmp_path, monkeypatch):
    monkeypatch.setenv("WIBERG_CACHE_DIR", str(tmp_path))
    made, original = [], native.compile_driver
    monkeypatch.setattr(native, "compile_driver", lambda *given: made.append(1) or original(*given))
    for _ in range(2):
        native.native.__wrapped__(evaluate._evaluate_slice)
    assert len(made) == 1


def test_the_key_of_a_driver_covers_every_module_that_it_can_reach():
    names = {source.partition(":")[0] for source in reachable_sources(evaluate._evaluate_slice)}
    assert {evaluate.__name__, calling.__name__, native.__name__} <= names


def test_the_key_of_a_driver_changes_with_a_source(monkeypatch):
    before = reachable_sources(evaluate._evaluate_slice)
    monkeypatch.setattr(native, "file_digest", lambda path: "other" if path.endswith("calling.py") else "same")
    after = reachable_sources(evaluate._evaluate_slice)
    assert len(before) == len(after)
    assert [a for a in after if a.endswith(":other")] == [f"{calling.__name__}:other"]
