"""Translated functions do what Python does with the same text; what is not translated is refused with its place."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
from drivers import compiled
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg.compiler.machine_code.calling import bits_of, of_bits, rough_inverse_root, shifted
from wiberg.compiler.machine_code.native import compile_driver
from wiberg.compiler.machine_code.signature import DoublePointer, IntegerPointer
from wiberg.compiler.machine_code.translate import translate
from wiberg.learn.derivative import damped
from wiberg.runtime.algebra import blocks, linear_algebra, trust_region, vectors

SCALE = 2.5
LIMIT = 3


def arithmetic(a: float, b: float, i: int, k: int) -> float:
    return a * b - a / b + i * k - (i - k) / 2 + SCALE * LIMIT - -a


def floored(i: int, k: int) -> float:
    return 1000.0 * (i // k) + i % k


def comparisons(a: float, b: float, i: int, k: int) -> float:
    total = 0.0
    total += 1.0 if a < b else 0.0
    total += 2.0 if a <= b else 0.0
    total += 4.0 if a != b else 0.0
    total += 8.0 if i == k else 0.0
    total += 16.0 if -1.0 < a < b <= 5.0 else 0.0
    total += 32.0 if not (a > b or i >= k) and k > 0 else 0.0
    return total


def guarded(x: DoublePointer, n: int) -> float:
    total = 0.0
    for i in range(-2, n + 2):
        if i >= 0 and i < n and x[i] > 0.0:
            total += x[i]
        total += x[i - 1] if 0 < i <= n else 1.0
    return total


def loops(n: int, x: DoublePointer) -> float:
    total, i, last = 0.0, 0, -1
    for k in range(n - 1, -1, -2):
        last = k
        if k == 5:
            continue
        total += x[k]
    while True:
        i += 1
        if i > LIMIT:
            break
        for j in range(i, n):
            if j == 7:
                break
            total -= 0.5 * j
    while i < 20 and total < 1e9:
        i += 3
    return total + 100.0 * last + i


def places(x: DoublePointer, k: IntegerPointer, n: int) -> float:
    first, second = x, shifted(x, 2)
    first, second = second, first
    x[0], x[1] = x[1], x[0]
    k[0] = n
    k[1] += k[0] * 2
    second[2] *= 3.0
    a = b = first[1]
    return a + 10.0 * b + second[0] + k[1]


def extremes(a: float, b: float, i: int, k: int) -> float:
    return min(a, b) + 10.0 * max(a, b) + 100.0 * min(i, k) + 1000.0 * max(a, i) + abs(a) + math.copysign(3.0, b)


def bits(a: float, b: float) -> float:
    return of_bits(max(bits_of(abs(a)), bits_of(abs(b)))) + bits_of(1.0) % 7


def rough(a: float) -> float:
    return rough_inverse_root(abs(a) + 1e-300)


def pair(a: float, n: int) -> tuple[float, int]:
    if n < 0:
        return -a, 0
    return a, n


def several(a: float, n: int) -> float:
    first, second = pair(a, n)
    return first + 100.0 * second


def early(x: DoublePointer, n: int) -> float:
    for i in range(n):
        if x[i] < 0.0:
            return x[i]
    if n > 4:
        return 1.0
    elif n > 2:
        return 2.0
    return 3.0


def promoted(n: int) -> float:
    total = 0.0
    total = n
    return total / 3


FUNCTIONS = (arithmetic, floored, comparisons, guarded, loops, places, extremes, bits, rough, several, early, promoted)

numbers = st.floats(-10, 10).filter(lambda x: x == 0 or abs(x) > 1e-3)


@settings(max_examples=200)
@given(st.sampled_from(FUNCTIONS), st.data())
def test_machine_code_does_what_python_does(function, data):
    arguments, addresses, keep = [], [], []
    length = 8
    for annotation in list(inspect.get_annotations(function).values())[:-1]:
        if annotation == "DoublePointer":
            array = np.array(data.draw(st.lists(numbers, min_size=length, max_size=length)))
        elif annotation == "IntegerPointer":
            array = np.array(data.draw(st.lists(st.integers(-9, 9), min_size=length, max_size=length)), np.int64)
        else:
            array = None
            whole = st.integers(0, length) if "x" in inspect.signature(function).parameters else st.integers(-9, 9)
            number = data.draw(numbers if annotation == "float" else whole)
            if function is floored or function is arithmetic:
                number = number or 1
        if array is None:
            arguments.append(number)
            addresses.append(number)
        else:
            copy = array.copy()
            keep.append((array, copy))
            arguments.append(array)
            addresses.append(copy.ctypes.data)
    expected, found = function(*arguments), compiled(function).call(*addresses)
    assert found == pytest.approx(expected, rel=1e-15, abs=1e-300)
    for array, copy in keep:
        assert array.tolist() == copy.tolist()


# ---------------------------------------------------------------------------------------------- the drivers' own


def _cholesky(h: DoublePointer, n: int, u: DoublePointer, b: DoublePointer) -> float:
    if linear_algebra_cholesky(h, n, u):
        linear_algebra_solve(u, n, b)
        return 1.0
    return 0.0


def _spectrum(h: DoublePointer, n: int, space: DoublePointer, record: DoublePointer) -> float:
    record[0], record[1] = trust_region_spectrum(h, n, space)
    return record[0]


def _damped(
    h: DoublePointer, n: int, damping: float, c: DoublePointer, space: DoublePointer, layout: IntegerPointer
) -> float:
    return 1.0 * damped_solve(layout, h, n, damping, math.nan, c, 1, space)


linear_algebra_cholesky, linear_algebra_solve = linear_algebra.cholesky, linear_algebra.cholesky_solve
trust_region_spectrum, damped_solve = trust_region.spectrum, damped.solve_damped


@settings(max_examples=60)
@given(st.integers(1, 7), st.integers(0, 2**32 - 1), st.floats(-1.0, 3.0))
def test_the_algebra_of_drivers_is_the_same_as_python(n, seed, shift):
    random = np.random.default_rng(seed)
    matrix = random.standard_normal((n, n))
    h, b = matrix @ matrix.T + shift * np.eye(n), random.standard_normal(n)
    for function, rest in (
        (_cholesky, (np.empty(n * n), b.copy())),
        (_spectrum, (np.empty(n * n + 5 * n), np.empty(2))),
        (_damped, (0.1, b.copy(), np.empty(n * n + 14 * n), blocks.NONE)),
    ):
        ours = [h.ravel().copy(), n, *(a.copy() if isinstance(a, np.ndarray) else a for a in rest)]
        theirs = [h.ravel().copy(), n, *(a.copy() if isinstance(a, np.ndarray) else a for a in rest)]
        with np.errstate(all="ignore"):  # drivers divide by zero and look at what comes out
            expected = function(*theirs)
        found = compiled(function).call(*(a.ctypes.data if isinstance(a, np.ndarray) else a for a in ours))
        assert found == pytest.approx(expected, rel=1e-11, abs=1e-11)
        if function is not _spectrum:
            solved, reference = [a for a in ours if isinstance(a, np.ndarray) and a.size == n][-1], theirs
            other = [a for a in reference if isinstance(a, np.ndarray) and a.size == n][-1]
            assert solved == pytest.approx(other, rel=1e-9, abs=1e-9)


# ---------------------------------------------------------------------------------------------- refused


def power_of(a: float) -> float:
    return a**2.0


def other_type(a: float) -> float:
    count = 1
    count = a
    return count


def as_condition(n: int) -> float:
    return 1.0 if n else 0.0


def no_return(n: int) -> float:
    if n > 0:
        return 1.0


def over_a_list(n: int) -> float:
    total = 0.0
    for k in (1.0, 2.0):
        total += k
    return total


def too_few(n: int) -> float:
    return several(1.0)


def after_return(n: int) -> float:
    return 1.0
    return 2.0


@pytest.mark.parametrize(
    "function, words",
    [
        (power_of, "Pow of double"),
        (other_type, "double where i64 is needed"),
        (as_condition, "must be a bool"),
        (no_return, "without a return"),
        (over_a_list, "range"),
        (too_few, "2 arguments are needed"),
        (after_return, "never reached"),
    ],
)
def test_what_is_not_translated_is_refused_with_its_place(function, words):
    with pytest.raises(NotImplementedError, match=words) as refused:
        translate(function, "refused")
    assert "test_translate.py:" in str(refused.value) and function.__name__ in str(refused.value)


@given(st.floats(1e-300, 1e300))
def test_a_rough_inverse_root_is_right_to_four_per_cent(x):
    assert abs(rough_inverse_root(x) * math.sqrt(x) - 1) < 0.04


def test_loops_over_long_vectors_get_what_they_promise():
    text = str(translate(vectors.dot, "dot"))
    assert "noalias" in text and "fadd reassoc" in text.replace("nsz ", "").replace("contract ", "")
    assert "noalias" not in str(translate(linear_algebra.dot, "dot"))


def doubled(a: float) -> float:
    return 2.0 * a


def halved(a: float) -> float:
    return 0.5 * a


def halved_inside(a: float) -> float:
    return halved(a)


def thrice(a: float) -> float:
    return 1.0 + doubled(a) + halved_inside(a)


def test_calls_of_one_function_become_calls_of_another():
    assert compile_driver(thrice, "thrice")[0].call(8.0) == 21.0
    assert compile_driver(thrice, "thrice instead", ((doubled, halved),))[0].call(8.0) == 9.0
    text = str(translate(thrice, "thrice", ((halved, doubled),)))
    assert "halved_inside" in text and '.halved"' not in text
