"""Data in files: the same arrays from every format, and errors that name file, line and column."""

import csv
import sys

import numpy as np
import pytest
import wiberg as wb
from wiberg.learn.model import Model
from wiberg.learn.shell.dataset import fingerprint, flat_columns, read_dataset, write_arrays

RANDOM = np.random.default_rng(0)
X, MU, T = RANDOM.normal(size=(7, 4)), RANDOM.normal(size=7), RANDOM.normal(size=7)
ARRAYS = {"x": X, "mu": MU, "start/t": T, "identity": np.arange(7.0)}
NOTHING = {"start": {}, "candidates": {}}


@pytest.fixture
def model(ransac, t_loss):
    return Model(ransac, t_loss, "test")


def read(path, model, columns=None, shared=NOTHING, **options):
    files = path if isinstance(path, list) else [path]
    return read_dataset(files, model, columns or {}, shared, **options)


@pytest.mark.parametrize("ending", ["npz", "h5", "csv", "parquet"])
def test_every_format_gives_the_same_arrays(ending, model, tmp_path):
    if ending in ("h5", "parquet"):
        pytest.importorskip({"h5": "h5py", "parquet": "pyarrow"}[ending])
    path = tmp_path / f"data.{ending}"
    write_arrays(path, ARRAYS)
    data = read(path, model)
    np.testing.assert_array_equal(data.arrays["data", "x"], X)
    np.testing.assert_array_equal(data.arrays["targets", "mu"], MU)
    np.testing.assert_array_equal(data.arrays["start", "t"], T)
    assert data.instances == 7 and len(data.batched) == 3 and data.ignored == ("identity",)


def test_lists_in_parquet_are_arrays(model, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"x": X.tolist(), "mu": MU}), tmp_path / "d.parquet")
    np.testing.assert_array_equal(read(tmp_path / "d.parquet", model).arrays["data", "x"], X)
    parquet.write_table(pyarrow.table({"x": X.tolist(), "mu": [None, *MU[1:]]}), tmp_path / "d.parquet")
    with pytest.raises(wb.InputError, match="column 'mu' has 1 empty cells"):
        read(tmp_path / "d.parquet", model)


def test_columns_may_have_other_names(model, tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("left,right,truth,note\n1,2,1.5,a\n3,4,3.5,b\n")
    data = read(path, model, {"x": ["left", "right"], "mu": "truth"})
    assert data.arrays["data", "x"].tolist() == [[1, 2], [3, 4]] and data.arrays["targets", "mu"].tolist() == [1.5, 3.5]
    with pytest.raises(wb.NameMissingError, match=r"data.columns.mu: no column 'trut'; did you mean 'truth'"):
        read(path, model, {"x": ["left", "right"], "mu": "trut"})


def test_columns_with_subscripts_are_put_in_order(model, tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("x[10],mu," + ",".join(f"x[{k}]" for k in range(10)) + "\n" + "10,0.5," + ",".join("0123456789"))
    assert read(path, model).arrays["data", "x"].tolist() == [list(range(11))]


def test_arrays_of_the_declared_rank_are_shared(model, tmp_path):
    np.savez(tmp_path / "d.npz", x=X[0], mu=MU, **{"start/t": 3.0})
    batch = read(tmp_path / "d.npz", model).batch(slice(2, 4))
    np.testing.assert_array_equal(batch.data["x"], X[0])
    np.testing.assert_array_equal(batch.targets["mu"], MU[2:4])
    assert float(batch.start["t"]) == 3.0


def test_starts_of_the_spec_hold_where_the_file_has_none(model, tmp_path):
    np.savez(tmp_path / "d.npz", x=X, mu=MU)
    assert read(tmp_path / "d.npz", model, shared={"start": {"t": 2.0}, "candidates": {}}).batch().start == {"t": 2.0}
    assert read(tmp_path / "d.npz", model).batch().start is None


def test_several_files_are_one(model, tmp_path):
    for name, part in (("a", slice(3)), ("b", slice(3, 7))):
        np.savez(tmp_path / f"{name}.npz", x=X[part], mu=MU[part])
    data = read([tmp_path / "a.npz", tmp_path / "b.npz"], model)
    np.testing.assert_array_equal(data.arrays["data", "x"], X)
    np.savez(tmp_path / "b.npz", x=X[3:, :2], mu=MU[3:])
    with pytest.raises(wb.InputError, match=r"x has rows of different shapes: \(3, 4\), \(4, 2\)"):
        read([tmp_path / "a.npz", tmp_path / "b.npz"], model)
    np.savez(tmp_path / "b.npz", x=X[3:])
    with pytest.raises(wb.NameMissingError, match=r"b.npz: targets mu is missing, and other files have it"):
        read([tmp_path / "a.npz", tmp_path / "b.npz"], model)


def test_without_targets_they_need_not_be_there(model, tmp_path):
    np.savez(tmp_path / "d.npz", x=X)
    assert read(tmp_path / "d.npz", model, targets=False).batch().targets == {}
    with pytest.raises(wb.NameMissingError, match="targets mu is missing; the file has x"):
        read(tmp_path / "d.npz", model)


@pytest.mark.parametrize(("shuffle", "size"), [(True, 3), (False, 3), (True, 7), (True, 100)])
def test_every_pass_sees_every_instance_once_and_depends_on_the_step_alone(shuffle, size, model, tmp_path):
    np.savez(tmp_path / "d.npz", x=X, mu=MU)
    data = read(tmp_path / "d.npz", model)
    steps = -(-7 // size)
    seen = data.passes(size, shuffle=shuffle, seed=3)
    batches = [seen(step) for step in range(3 * steps)]
    orders = [np.concatenate([b.targets["mu"] for b in batches[k * steps : (k + 1) * steps]]) for k in range(3)]
    for order in orders:
        assert sorted(order) == sorted(MU)
    assert (orders[0].tolist() == orders[1].tolist()) != shuffle
    again = data.passes(size, shuffle=shuffle, seed=3)
    for step in reversed(range(3 * steps)):
        np.testing.assert_array_equal(again(step).targets["mu"], batches[step].targets["mu"])
        np.testing.assert_array_equal(again(step).data["x"][:, 0], batches[step].data["x"][:, 0])


@pytest.mark.parametrize(("name", "text", "pieces"), [
    ("d.csv", "x[0],mu\n1,2\n3,a\n", ["line 3", "column 'mu'", "'a' is no number"]),
    ("d.csv", "x[0],mu\n1,2\n3\n", ["line 3: 1 cells, and 2 columns"]),
    ("d.csv", "x[0],mu\n1,\n", ["line 2", "'' is no number"]),
    ("d.csv", "x[0],x[2],mu\n1,2,3\n", ["columns of x do not fill an array: 2 of shape (3,)"]),
    ("d.csv", "x[0],mu,mu\n1,2,3\n", ["two columns are named 'mu'"]),
    ("d.csv", "x[0],mu\n", ["there are no instances"]),
    ("d.csv", "xx[0],mu\n1,2\n", ["data x is missing"]),
    ("d.csv", "x,mu\n1,2\n", ["x has shape (1,) of int64; needed: numbers with 2 axes, the first of the instances"]),
    ("d.csv", b"\xff\xfe", ["d.csv is no CSV file"]),
    ("d.npz", "nothing", ["d.npz is no .npz file"]),
    ("d.txt", "nothing", ["d.txt: files of data end with .npz, .h5, .hdf5, .csv, .parquet; got '.txt'"]),
    ("d", "nothing", ["no ending"]),
])  # fmt: skip
def test_a_file_that_does_not_fit_is_refused(name, text, pieces, model, tmp_path):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises((wb.InputError, wb.NameMissingError)) as caught:
        read(tmp_path / name, model)
    assert all(piece in str(caught.value) for piece in pieces), str(caught.value)


@pytest.mark.parametrize(("arrays", "pieces"), [
    ({"x": X, "mu": MU[:5]}, ["different numbers of instances: ", "x 7", "mu 5"]),
    ({"x": X[None], "mu": MU}, ["x has shape (1, 7, 4)", "2 axes, the first of the instances, or 1 axes"]),
    ({"x": X.astype(str), "mu": MU}, ["x has shape (7, 4) of <U"]),
    ({"x": X + 0j, "mu": MU}, ["complex128"]),
    ({"X": X, "mu": MU}, ["data x is missing"]),
])  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(arrays, pieces, model, tmp_path):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises((wb.InputError, wb.NameMissingError)) as caught:
        read(tmp_path / "d.npz", model)
    assert "d.npz" in str(caught.value) and all(piece in str(caught.value) for piece in pieces), str(caught.value)


def test_arrays_of_objects_are_not_unpickled(model, tmp_path):
    np.savez(tmp_path / "d.npz", x=np.array([object()]), mu=MU)
    with pytest.raises(wb.InputError, match=r"no \.npz file of arrays"):
        read(tmp_path / "d.npz", model)


@pytest.mark.parametrize(("ending", "package"), [("h5", "h5py"), ("parquet", "pyarrow")])
def test_a_package_that_is_missing_is_named_with_what_to_install(ending, package, model, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / f"d.{ending}").write_bytes(b"")
    with pytest.raises(wb.MissingPackageError, match=rf"need {package}.*pip install 'wiberg\[data\]'"):
        read(tmp_path / f"d.{ending}", model)
    with pytest.raises(wb.MissingPackageError):
        write_arrays(tmp_path / f"o.{ending}", {"x": X})


def test_csv_keeps_every_bit_of_a_number(tmp_path):
    write_arrays(tmp_path / "o.csv", {"x": X, "name": np.array(list("abcdefg"))})
    rows = list(csv.DictReader((tmp_path / "o.csv").read_text().splitlines()))
    assert [[float(row[f"x[{k}]"]) for k in range(4)] for row in rows] == X.tolist()
    assert list(flat_columns({"m": np.zeros((2, 2, 1))})) == ["m[0,0]", "m[1,0]"]


def test_a_fingerprint_is_of_the_contents(tmp_path):
    for name, text in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).write_text(text)
    prints = [fingerprint(tmp_path / name) for name in "abc"]
    assert prints[0] == prints[1] != prints[2]
    with pytest.raises(wb.InputError, match="cannot read"):
        fingerprint(tmp_path / "missing")
