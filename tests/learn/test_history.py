import numpy as np
import pytest
from wiberg.learn import history
from wiberg.learn.history import Record


def filled(steps, limit=None):
    record = Record(np.array([0.0]))
    if limit:
        record.limit = limit
    for step in range(steps):
        record.write(step, (float(step), 1.0, 0.0, 0.0, 0.0), np.array([step + 1.0]))
    return record


def view(record, steps):
    return record.history(steps, lambda rows: {"w": rows[:, 0]})


def test_every_step_is_kept_while_there_is_room():
    result = view(filled(1000), 1000)
    assert len(result) == 1000
    assert result.loss.tolist() == list(range(1000))
    assert result.weight_steps.tolist() == list(range(1001))
    assert result.weights["w"].tolist() == list(range(1001))


@pytest.mark.parametrize("limit", [4, 5, 8, 9])
@pytest.mark.parametrize("steps", [0, 3, 4, 5, 16, 17, 63, 64, 65, 200])
def test_thinned_records_belong_to_their_steps(limit, steps):
    result = view(filled(steps, limit), steps)
    assert (result.weights["w"] == result.weight_steps).all()
    assert result.weight_steps[0] == 0
    assert len(result.weight_steps) <= limit
    gaps = np.diff(result.weight_steps)
    assert (gaps == gaps[:1]).all()
    assert steps - result.weight_steps[-1] < max(1, gaps[:1].sum())


def test_a_step_written_twice_counts_once():
    record = filled(5, 4)
    record.write(4, (40.0, 1.0, 0.0, 0.0, 0.0), np.array([50.0]))
    assert view(record, 5).loss.tolist() == [0.0, 1.0, 2.0, 3.0, 40.0]


@pytest.mark.parametrize("cut", [0, 1, 7, 40])
def test_resumed_record_equals_the_uninterrupted_one(cut):
    whole, part = filled(50, 8), filled(cut, 8)
    resumed = Record.from_arrays(part.arrays(cut), cut)
    resumed.limit = 8
    for step in range(cut, 50):
        resumed.write(step, (float(step), 1.0, 0.0, 0.0, 0.0), np.array([step + 1.0]))
    a, b = whole.arrays(50), resumed.arrays(50)
    assert all(np.array_equal(a[k], b[k]) for k in a)


def test_many_weights_are_kept_less_often():
    assert Record(np.zeros(1)).limit == history.LIMIT
    assert Record(np.zeros(1445)).limit == history.LIMIT // 1445
    assert Record(np.zeros(10**7)).limit == 256


def test_views_are_copies():
    record = filled(3)
    view(record, 3).loss[:] = -1
    assert view(record, 3).loss.tolist() == [0.0, 1.0, 2.0]
