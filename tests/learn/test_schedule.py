import json

import numpy as np
import pytest
import wiberg as wb
from hypothesis import given
from hypothesis import strategies as st
from wiberg.learn.schedule import (
    CosineDecay,
    PiecewiseLinear,
    StepDecay,
    Warmup,
    describe,
    from_description,
    number_or_schedule,
    value_at,
)

values, counts = st.one_of(st.just(0.0), st.floats(1e-9, 1e3)), st.integers(1, 50)
simple = st.one_of(
    st.builds(CosineDecay, values, counts, values),
    st.builds(StepDecay, values, counts, st.floats(0.0, 1.0)),
    st.dictionaries(st.integers(0, 99), values, min_size=1).map(lambda d: PiecewiseLinear(dict(sorted(d.items())))),
)
schedules = st.one_of(simple, st.builds(Warmup, st.one_of(values, simple), counts))


@given(values, values, counts)
def test_cosine_decay_is_that_of_pytorch_up_to_its_end(start, end, steps):
    """torch.optim.lr_scheduler.CosineAnnealingLR, in its chainable form."""
    schedule, rate = CosineDecay(start, steps, end), start
    for step in range(1, steps + 1):
        rate = (1 + np.cos(np.pi * step / steps)) / (1 + np.cos(np.pi * (step - 1) / steps)) * (rate - end) + end
        assert schedule.at(step) == pytest.approx(rate, rel=1e-9, abs=1e-9 * (start + end))
    assert schedule.at(0) == pytest.approx(start) and schedule.at(steps + 7) == end


@given(values, counts, st.floats(0.0, 1.0))
def test_step_decay_is_that_of_pytorch(start, every, factor):
    """torch.optim.lr_scheduler.StepLR, in its chainable form."""
    schedule, rate = StepDecay(start, every, factor), start
    for step in range(3 * every + 1):
        if step and step % every == 0:
            rate *= factor
        assert schedule.at(step) == pytest.approx(rate, rel=1e-12, abs=1e-300)


@given(schedules, st.integers(0, 200))
def test_values_are_finite_and_not_negative(schedule, step):
    assert 0.0 <= schedule.at(step) < np.inf


@given(values, counts)
def test_warm_up_rises_in_equal_parts_and_hands_over(value, steps):
    risen = [Warmup(value, steps).at(step) for step in range(steps)]
    np.testing.assert_allclose(np.diff([0.0, *risen]), value / steps, atol=1e-12 * value)
    after = Warmup(CosineDecay(value, 9), steps)
    assert [after.at(steps + k) for k in range(12)] == [CosineDecay(value, 9).at(k) for k in range(12)]


@given(schedules)
def test_description_survives_json(schedule):
    again = from_description(json.loads(json.dumps(describe(schedule))))
    assert again == schedule
    assert [again.at(k) for k in range(60)] == [schedule.at(k) for k in range(60)]


def test_numbers_are_schedules_too():
    assert number_or_schedule(2, "damping") == 2.0 and value_at(2.0, 99) == 2.0
    assert from_description(describe(2.0)) == 2.0


@pytest.mark.parametrize(
    "make, error, names",
    [
        (lambda: CosineDecay(-1.0, 5), wb.InputError, "CosineDecay: start must be >= 0"),
        (lambda: CosineDecay(1.0, 0), wb.InputError, "CosineDecay: steps must be > 0"),
        (lambda: CosineDecay(1.0, 2.5), wb.InputTypeError, "CosineDecay: steps must be an integer"),
        (lambda: CosineDecay(1.0, 5, float("nan")), wb.InputError, "end"),
        (lambda: StepDecay(1.0, 5, 1.5), wb.InputError, r"factor must be in \[0, 1\]"),
        (lambda: StepDecay("1", 5), wb.InputTypeError, "start must be a number"),
        (lambda: PiecewiseLinear({}), wb.InputError, "at least one"),
        (lambda: PiecewiseLinear([(5, 1.0), (3, 1.0)]), wb.InputError, "rise"),
        (lambda: PiecewiseLinear([(-1, 1.0)]), wb.InputError, ">= 0"),
        (lambda: PiecewiseLinear([1.0, 2.0]), wb.InputTypeError, "pairs"),
        (lambda: PiecewiseLinear(3), wb.InputTypeError, "pairs"),
        (lambda: PiecewiseLinear({0: -1.0}), wb.InputError, r"points\[0\]"),
        (lambda: PiecewiseLinear({0.5: 1.0}), wb.InputTypeError, "a step must be an integer"),
        (lambda: Warmup("x", 5), wb.InputTypeError, "Warmup: then"),
        (lambda: Warmup(1.0, -5), wb.InputError, "Warmup: steps"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, error, names):
    with pytest.raises(error, match=names):
        make()
