"""Data in files: arrays by name, of which each instance has a row, and the batches that steps see.

A file holds one array for each of the energy's data, the loss's targets and data, and, if wanted, start/NAME and
candidates/NAME for variables. An array of the declared rank is shared by all instances; with one axis more in front
it has a row for each. Other arrays in a file are not read.

    .npz, .h5       arrays by these names
    .csv, .parquet  a column x for a number, x[0], x[1], ... or x[0,0], ... for an array, or as data.columns says
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...energies.errors import InputError, MissingPackageError, NameMissingError, nearest
from ..batches import Batch
from ..files import write_whole
from ..model import Model

Array = NDArray[Any]
ROLES = ("data", "targets", "start", "candidates")


@dataclass(frozen=True)
class Dataset:
    """Arrays by role and name, and which of them have a row for each instance.

    Attributes
    ----------
    arrays : dict of (role, name) to array
    batched : set of (role, name)
    instances : int
        1 where no array is batched.
    ignored : tuple of str
        What the files hold and nobody reads.
    """

    arrays: Mapping[tuple[str, str], Array]
    batched: frozenset[tuple[str, str]]
    instances: int
    ignored: tuple[str, ...] = ()

    def batch(self, rows: Any = slice(None), name: str | None = None) -> Batch:
        """The instances of some rows."""
        found: dict[str, dict[str, Array]] = {role: {} for role in ROLES}
        for (role, array_name), array in self.arrays.items():
            found[role][array_name] = array[rows] if (role, array_name) in self.batched else array
        return Batch(found["data"], found["targets"], found["start"] or None, found["candidates"] or None, name)

    def passes(self, size: int, *, shuffle: bool, seed: int) -> Callable[[int], Batch]:
        """The batch of every step: a function of the step alone, so that a run that was stopped goes on."""
        steps = -(-self.instances // size)
        order: dict[int, Array] = {}

        def batch(step: int) -> Batch:
            number, part = divmod(step, steps)
            if number not in order:
                order.clear()
                rows = np.arange(self.instances)
                order[number] = np.random.default_rng([seed, number]).permutation(rows) if shuffle else rows
            return self.batch(order[number][part * size : (part + 1) * size], f"{part} of pass {number}")

        return batch

    def parts(self, size: int) -> Iterable[Batch]:
        """All instances, in order."""
        for begin in range(0, self.instances, size):
            yield self.batch(slice(begin, begin + size), f"instances {begin} to {begin + size - 1}")


def read_dataset(
    files: Sequence[Path],
    model: Model,
    columns: Mapping[str, Any],
    shared: Mapping[str, Mapping[str, Any]],
    *,
    targets: bool = True,
) -> Dataset:
    """Read files as one data set.

    Parameters
    ----------
    columns
        As `data.columns` of a spec.
    shared : dict
        "start" and "candidates" of a spec; arrays in the files stand in front of them.
    targets : bool
        Whether there must be what the loss reads.

    Raises
    ------
    InputError, NameMissingError, MissingPackageError
        If a file cannot be read, or has not what is needed.
    """
    wanted = _wanted(model, targets)
    for role, values in shared.items():
        variables = [name for kind, name in wanted if kind == role]
        for name in values:
            if name not in variables:
                raise NameMissingError(
                    f"{role}.{name}: no such variable{nearest(name, variables)}; variables: {', '.join(variables)}"
                )
    parts = [_read(path, wanted, columns) for path in files]
    arrays: dict[tuple[str, str], Array] = {}
    batched = set()
    for (role, name), (rank, needed, also) in wanted.items():
        label = name if role in ("data", "targets") else f"{role}/{name}"
        found = [part[label] for part in parts if label in part]
        if not found:
            if name in shared.get(role, {}):
                arrays[role, name] = np.asarray(shared[role][name])
            elif needed:
                known = sorted({key for part in parts for key in part})
                raise NameMissingError(
                    f"{files[0]}: {role} {name} is missing{nearest(name, known)}; the file has "
                    f"{', '.join(known) or 'nothing'}"
                )
            continue
        if len(found) < len(files):
            path = next(path for path, part in zip(files, parts, strict=True) if label not in part)
            raise NameMissingError(f"{path}: {role} {name} is missing, and other files have it")
        each = [array.ndim for array in found]
        for path, array in zip(files, found, strict=True):
            shared_ranks = () if path.suffix.lower() in TABLES else (rank, *also)
            if array.ndim not in (rank + 1, *shared_ranks) or array.dtype.kind not in "biuf":
                raise InputError(
                    f"{path}: {label} has shape {array.shape} of {array.dtype}; needed: numbers with "
                    f"{rank + 1} axes, the first of the instances{f', or {rank} axes' if shared_ranks else ''}"
                )
        if set(each) == {rank + 1}:
            if len({array.shape[1:] for array in found}) > 1:
                raise InputError(f"{label} has rows of different shapes: {', '.join(str(a.shape) for a in found)}")
            arrays[role, name] = np.concatenate(found) if len(found) > 1 else found[0]
            batched.add((role, name))
        elif all(np.array_equal(array, found[0]) for array in found):
            arrays[role, name] = found[0]
        else:
            raise InputError(f"{label} is shared by all instances, but differs between {files[0]} and other files")
    sizes = {name: len(arrays[role, name]) for role, name in batched}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise InputError(f"{files[0]}: arrays have different numbers of instances: {listed}")
    instances = next(iter(sizes.values()), 1)
    if instances == 0:
        raise InputError(f"{files[0]}: there are no instances")
    labels = {name if role in ("data", "targets") else f"{role}/{name}" for role, name in wanted}
    ignored = sorted({key for part in parts for key in part} - labels)
    return Dataset(arrays, frozenset(batched), instances, tuple(ignored))


def fingerprint(path: Path) -> str:
    """The SHA-256 of a file.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error})") from None


Wanted = dict[tuple[str, str], tuple[int, bool, tuple[int, ...]]]


def _wanted(model: Model, targets: bool) -> Wanted:
    """By role and name: rank without the axis of instances, whether it must be there, other ranks that are shared."""
    wanted: Wanted = {}
    for kernel in model.kernels:
        for array in kernel.energy.data:
            wanted["data", str(array)] = len(kernel.energy.shapes[str(array)]), True, ()
    if model.output is not None:
        for array in model.output.energy.data[len(model.output.names) :]:  # in front is what its adjoint is asked for
            wanted["data", str(array)] = len(model.output.energy.shapes[str(array)]), True, ()
    loss = model.loss
    if targets:
        for name in loss.targets:
            wanted["targets", name] = len(loss.energy.shapes[name]), True, ()
        for name in loss.data:
            wanted.setdefault(("data", name), (len(loss.energy.shapes[name]), True, ()))
    for kernel in model.kernels:
        family = len(kernel.energy.over)
        for variable in kernel.energy.variables:
            rank = len(kernel.energy.shapes[str(variable)])
            own = (rank,) if family else ()
            wanted["start", str(variable)] = rank + family, False, own
            wanted["candidates", str(variable)] = rank + family + 1, False, tuple(r + 1 for r in own)
    return wanted


# ---------------------------------------------------------------------------------------------- reading


def _read(path: Path, wanted: Wanted, columns: Mapping[str, Any]) -> dict[str, Array]:
    """All arrays of a file by label."""
    if path.suffix.lower() not in READERS:
        raise InputError(f"{path}: files of data end with {', '.join(READERS)}; got {path.suffix or 'no ending'!r}")
    if not path.is_file():
        raise InputError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; expected a file of data")
    return READERS[path.suffix.lower()](path, wanted, columns)


def _read_npz(path: Path, wanted: Wanted, columns: Mapping[str, Any]) -> dict[str, Array]:
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError, EOFError) as error:
        raise InputError(f"{path} is no .npz file of arrays ({error}); write one with numpy.savez") from None


def _read_hdf5(path: Path, wanted: Wanted, columns: Mapping[str, Any]) -> dict[str, Array]:
    h5py = _package("h5py", path)
    found: dict[str, Array] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = np.asarray(item[()])

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except OSError as error:
        raise InputError(f"{path} is no HDF5 file ({error})") from None
    return found


def _read_csv(path: Path, wanted: Wanted, columns: Mapping[str, Any]) -> dict[str, Array]:
    needed = {column for columns_of in columns.values() for column in _texts(columns_of)}
    labels = {name if role in ("data", "targets") else f"{role}/{name}" for role, name in wanted}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            head = [name.strip() for name in next(lines, [])]
            read = [k for k, name in enumerate(head) if name in needed or _base(name) in labels]
            rows = []
            for line in lines:
                if not line:
                    continue
                if len(line) != len(head):
                    raise InputError(f"{path}, line {lines.line_num}: {len(line)} cells, and {len(head)} columns")
                rows.append([_number(line[k], path, lines.line_num, head[k]) for k in read])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no CSV file ({error})") from None
    if len(set(head)) < len(head):
        twice = next(name for name in head if head.count(name) > 1)
        raise InputError(f"{path}: two columns are named {twice!r}")
    table = np.array(rows, dtype=np.float64).reshape(len(rows), len(read))
    cells: dict[str, Array] = {head[k]: _integers(table[:, number]) for number, k in enumerate(read)}
    ignored = {name: np.empty(0) for name in head if name not in cells}
    return {**_assembled(path, cells, columns, [*cells, *ignored]), **ignored}


def _read_parquet(path: Path, wanted: Wanted, columns: Mapping[str, Any]) -> dict[str, Array]:
    parquet = _package("pyarrow.parquet", path)
    try:
        table = parquet.read_table(path)
    except Exception as error:  # a family of its own
        raise InputError(f"{path} is no Parquet file ({error})") from None
    needed = {column for columns_of in columns.values() for column in _texts(columns_of)}
    labels = {name if role in ("data", "targets") else f"{role}/{name}" for role, name in wanted}
    cells, ignored = {}, {}
    for name in table.column_names:
        if name not in needed and _base(name) not in labels:
            ignored[name] = np.empty(0)
            continue
        column = table.column(name)
        if column.null_count:
            raise InputError(f"{path}: column {name!r} has {column.null_count} empty cells")
        try:
            cells[name] = np.array(column.to_pylist())
        except ValueError:
            raise InputError(f"{path}: column {name!r} has rows of different lengths") from None
    return {**_assembled(path, cells, columns, [*cells, *ignored]), **ignored}


READERS: dict[str, Callable[[Path, Wanted, Mapping[str, Any]], dict[str, Array]]] = {
    ".npz": _read_npz,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
TABLES = (".csv", ".parquet")
"""Formats whose arrays have a row for each instance, always."""


def _assembled(
    path: Path, cells: Mapping[str, Array], columns: Mapping[str, Any], every: Sequence[str]
) -> dict[str, Array]:
    """Arrays from columns: as `columns` says, then by subscripts; `every` are the names of all columns."""
    arrays, left = {}, dict(cells)
    for name, given in columns.items():
        names = _texts(given)
        for column in names:
            if column not in cells:
                raise NameMissingError(f"{path}: data.columns.{name}: no column {column!r}{nearest(column, every)}")
            left.pop(column, None)
        found = [cells[column] for column in names]
        arrays[name] = found[0] if isinstance(given, str) else np.stack(found, axis=1)
    pieces: dict[str, dict[tuple[int, ...], Array]] = {}
    for column, array in left.items():
        match = _SUBSCRIPTED.fullmatch(column)
        if match is None:
            arrays[column] = array
        else:
            pieces.setdefault(match[1], {})[tuple(int(part) for part in match[2].split(","))] = array
    for name, entries in pieces.items():
        shape = tuple(size + 1 for size in map(max, zip(*entries, strict=False)))
        if len({len(place) for place in entries}) > 1 or len(entries) != int(np.prod(shape)):
            raise InputError(f"{path}: columns of {name} do not fill an array: {len(entries)} of shape {shape}")
        flat = [entries[place] for place in np.ndindex(shape)]
        arrays[name] = np.stack(flat, axis=1).reshape(-1, *shape)
    return arrays


_SUBSCRIPTED = re.compile(r"(.+)\[\s*(\d+(?:\s*,\s*\d+)*)\s*\]")


def _base(column: str) -> str:
    match = _SUBSCRIPTED.fullmatch(column)
    return column if match is None else match[1]


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(one) for one in value]


def _number(cell: str, path: Path, line: int, column: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise InputError(f"{path}, line {line}, column {column!r}: {cell!r} is no number") from None


def _integers(column: Array) -> Array:
    """A column of whole numbers as such, for it may be an index; data that are none are converted back."""
    with np.errstate(invalid="ignore"):
        whole = column.astype(np.int64)
    return whole if np.array_equal(whole, column) else column


def _package(name: str, path: Path) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise MissingPackageError(
            f"{path}: {path.suffix} files need {package}, which is not installed: pip install 'wiberg[data]' "
            f"(or {package})"
        ) from None


# ---------------------------------------------------------------------------------------------- writing


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays that have a row for each instance, in the format that the ending names.

    Raises
    ------
    InputError, MissingPackageError, CheckpointError
        For another ending, a package that is missing, a file that cannot be written.
    """
    ending = path.suffix.lower()
    check_ending(path)
    buffer = io.BytesIO()
    if ending == ".npz":
        np.savez(buffer, allow_pickle=False, **arrays)
    elif ending in (".h5", ".hdf5"):
        with _package("h5py", path).File(buffer, "w") as file:
            for name, array in arrays.items():
                file[name] = array.astype("S") if array.dtype.kind == "U" else array
    elif ending == ".csv":
        text = io.StringIO(newline="")
        columns = flat_columns(arrays)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
        buffer.write(text.getvalue().encode())
    else:
        parquet, pyarrow = _package("pyarrow.parquet", path), _package("pyarrow", path)
        parquet.write_table(pyarrow.table(flat_columns(arrays)), buffer)
    write_whole(path, buffer.getvalue())


def check_ending(path: Path) -> None:
    """Refuse a file of another format."""
    if path.suffix.lower() not in READERS:
        raise InputError(f"{path}: files of arrays end with {', '.join(READERS)}; got {path.suffix or 'no ending'!r}")


def flat_columns(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """A column for every number of a row: x, or x[0], x[1], ..."""
    columns = {}
    for name, array in arrays.items():
        for place in np.ndindex(array.shape[1:]):
            columns[name + (f"[{','.join(map(str, place))}]" if place else "")] = array[(slice(None), *place)]
    return columns
