import numpy as np
import pytest
import wiberg as wb
from wiberg.learn import history
from wiberg.learn.history import Record, Rows


def enter(record, step, loss=None, weight=None):
    loss, weight = float(step) if loss is None else loss, step + 1.0 if weight is None else weight
    record.write(step, (loss, *[1.0] * 9), np.array([weight]), np.array([weight - 1.0]), np.array([loss]))


def filled(steps, limit=None):
    record = Record(np.array([0.0]), 1)
    if limit:
        record._series, record._weights = Rows(10, limit), Rows(1, limit)
        record._weights.put(0, [0.0])
    for step in range(steps):
        enter(record, step)
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
    assert (result.weights["w"] == result.weight_steps).all() and (result.loss == result.steps).all()
    assert result.weight_steps[0] == 0
    assert len(result.weight_steps) <= limit and len(result) <= limit
    gaps = np.diff(result.weight_steps)
    assert (gaps == gaps[:1]).all()
    assert steps - result.weight_steps[-1] < max(1, gaps[:1].sum())


def test_a_step_written_twice_counts_once():
    record = filled(5, 4)
    enter(record, 4, loss=40.0, weight=50.0)
    assert view(record, 5).loss.tolist() == [0.0, 2.0, 40.0]
    assert view(record, 5).steps.tolist() == [0, 2, 4]


@pytest.mark.parametrize("cut", [0, 1, 7, 40])
def test_resumed_record_equals_the_uninterrupted_one(cut):
    whole, part = filled(50, 8), filled(cut, 8)
    resumed = Record.from_arrays(part.arrays(cut), cut)
    resumed._series = Rows.restored(*resumed._series.kept(cut), 8)
    resumed._weights = Rows.restored(*resumed._weights.kept(cut + 1), 8)
    for step in range(cut, 50):
        enter(resumed, step)
    a, b = whole.arrays(50), resumed.arrays(50)
    assert all(np.array_equal(a[k], b[k]) for k in a)


def test_many_weights_are_kept_less_often():
    assert Record(np.zeros(1), 1)._weights.limit == history.LIMIT
    assert Record(np.zeros(1445), 1)._weights.limit == history.LIMIT // 1445
    assert Record(np.zeros(10**7), 1)._weights.limit == 256


def test_views_are_copies():
    record = filled(3)
    view(record, 3).loss[:] = -1
    assert view(record, 3).loss.tolist() == [0.0, 1.0, 2.0]


def test_rows_are_bounded_for_any_number_of_steps():
    rows = Rows(1, 16)
    for number in range(10_000):
        rows.put(number, [number])
    interval, kept = rows.kept(10_000)
    assert len(kept) <= 16 and (kept[:, 0] == interval * np.arange(len(kept))).all()
    assert 10_000 - kept[-1, 0] <= interval


@pytest.mark.parametrize("steps", [0, 1, 5, 255, 256, 257, 700])
def test_the_last_steps_are_kept_in_order(steps):
    learnt, gradient = filled(steps).recent(steps)
    assert learnt[:, 0].tolist() == gradient[:, 0].tolist() == list(range(max(0, steps - history.RECENT), steps))


def test_fewer_of_the_last_steps_are_kept_of_many_weights():
    assert [len(Record(np.zeros(1), count)._learnt) for count in (1, 2048, 4096, 10**7)] == [256, 256, 128, 4]


def test_a_history_of_another_version_is_refused():
    arrays = filled(5).arrays(5)
    with pytest.raises(wb.CheckpointError, match=r"another version"):
        Record.from_arrays({**arrays, "history/series": arrays["history/series"][:, :5]}, 5)
    with pytest.raises(wb.CheckpointError, match=r"does not hold 6 steps"):
        Record.from_arrays(arrays, 6)
