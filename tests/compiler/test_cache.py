"""The disk cache: cold, warm, damaged in every part, unwritable, shared with others, used by two processes at once."""

import hashlib
import json
import logging
import os
import subprocess
import sys

import pytest
import sympy as sp
import wiberg as wb
from wiberg.compiler import cache, entry, kernel
from wiberg.compiler.cache import cache_directory, digest, read_folder, write_folder

PARTS = {"first": b"one", "second": b"\x00\x01\x02"}
KEY = "a" * 64


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache of its own."""
    root = tmp_path / "cache"
    monkeypatch.setenv("WIBERG_CACHE_DIR", str(root))
    return root


# ---------------------------------------------------------------------------------------------- folders


def test_what_was_written_is_read(folder):
    write_folder(KEY, PARTS)
    assert read_folder(KEY, tuple(PARTS)) == PARTS


def test_nothing_is_read_where_nothing_was_written(folder, caplog):
    assert read_folder(KEY, tuple(PARTS)) is None
    assert not caplog.records


def test_the_folder_is_private_to_the_user(folder):
    write_folder(KEY, PARTS)
    assert folder.stat().st_mode & 0o077 == 0


def test_no_temporary_folder_is_left(folder):
    write_folder(KEY, PARTS)
    assert [p.name for p in folder.iterdir()] == [KEY]


def test_a_second_writer_leaves_the_first_folder_as_it_is(folder, caplog):
    write_folder(KEY, PARTS)
    write_folder(KEY, {"first": b"other", "second": b"other"})
    assert read_folder(KEY, tuple(PARTS)) == PARTS
    assert [p.name for p in folder.iterdir()] == [KEY] and not caplog.records


@pytest.mark.parametrize("part", [*PARTS, "manifest.json"])
def test_a_damaged_part_is_noticed_said_and_removed(part, folder, caplog):
    write_folder(KEY, PARTS)
    target = folder / KEY / part
    target.write_bytes(b"?" + target.read_bytes()[1:])
    assert read_folder(KEY, tuple(PARTS)) is None
    assert "damaged" in caplog.text and KEY[:12] in caplog.text
    assert not (folder / KEY).exists()


@pytest.mark.parametrize("part", [*PARTS, "manifest.json"])
def test_a_truncated_part_is_noticed(part, folder):
    write_folder(KEY, PARTS)
    target = folder / KEY / part
    target.write_bytes(target.read_bytes()[:-1])
    assert read_folder(KEY, tuple(PARTS)) is None


@pytest.mark.parametrize("part", [*PARTS, "manifest.json"])
def test_a_missing_part_is_noticed(part, folder):
    write_folder(KEY, PARTS)
    (folder / KEY / part).unlink()
    assert read_folder(KEY, tuple(PARTS)) is None


@pytest.mark.parametrize("manifest", ["[]", "{}", "null", '{"first": 3, "second": null}', "\xff"])
def test_a_wrong_manifest_is_noticed(manifest, folder):
    write_folder(KEY, PARTS)
    (folder / KEY / "manifest.json").write_text(manifest, encoding="latin-1")
    assert read_folder(KEY, tuple(PARTS)) is None


def test_a_wrong_checksum_is_noticed(folder):
    write_folder(KEY, PARTS)
    manifest = {name: hashlib.sha256(b"other").hexdigest() for name in PARTS}
    (folder / KEY / "manifest.json").write_text(json.dumps(manifest))
    assert read_folder(KEY, tuple(PARTS)) is None


def test_a_damaged_folder_is_written_anew(folder):
    write_folder(KEY, PARTS)
    (folder / KEY / "first").write_bytes(b"")
    read_folder(KEY, tuple(PARTS))
    write_folder(KEY, PARTS)
    assert read_folder(KEY, tuple(PARTS)) == PARTS


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="permissions of POSIX")
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_can_write_is_neither_read_nor_written(mode, folder, caplog):
    write_folder(KEY, PARTS)
    folder.chmod(mode)
    assert read_folder(KEY, tuple(PARTS)) is None
    write_folder("b" * 64, PARTS)
    assert [p.name for p in folder.iterdir()] == [KEY]
    assert "other users" in caplog.text and str(folder) in caplog.text


def test_a_cache_that_is_a_file_costs_only_time_and_is_named(tmp_path, monkeypatch, caplog):
    path = tmp_path / "file"
    path.write_text("")
    monkeypatch.setenv("WIBERG_CACHE_DIR", str(path))
    assert read_folder(KEY, tuple(PARTS)) is None
    write_folder(KEY, PARTS)
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert "not writable" in caplog.text and str(path) in caplog.text


def test_a_cache_that_cannot_be_written_costs_only_time_and_is_named_once(folder, monkeypatch, caplog):
    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache.tempfile, "mkdtemp", refuse)
    write_folder(KEY, PARTS)
    write_folder(KEY, PARTS)
    assert read_folder(KEY, tuple(PARTS)) is None
    assert len(caplog.records) == 1 and "Permission denied" in caplog.text and str(folder) in caplog.text


def test_a_disk_that_fills_up_leaves_no_half_folder(folder, monkeypatch):
    def refuse(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.Path, "write_bytes", refuse)
    write_folder(KEY, PARTS)
    assert list(folder.iterdir()) == []


def test_the_directory_is_that_of_the_environment(folder):
    assert cache_directory() == folder


def test_the_directory_is_the_platforms_where_the_environment_says_nothing(monkeypatch):
    monkeypatch.delenv("WIBERG_CACHE_DIR")
    assert cache_directory().name == "wiberg"


def test_a_digest_depends_on_where_its_parts_end():
    assert digest("ab", "c") != digest("a", "bc") != digest("abc")
    assert digest("ab", "c") == digest(b"ab", b"c")


# ---------------------------------------------------------------------------------------------- kernels


def small(constant=3):
    t, a = sp.Symbol("t", real=True), sp.Symbol("a", positive=True)
    return wb.Energy(a * (t - constant) ** 2, variables=[t], weights=[a])


def small_value(constant=3):
    return wb.compile(small(constant)).value({"t": 5.0}, {"a": 2.0})


def kernel_folder(root):
    """The folder of the kernel among those of drivers and declarations."""
    (found,) = [p for p in root.iterdir() if (p / "source").exists()]
    return found


@pytest.fixture
def counted(monkeypatch):
    """How often a kernel's text was made."""
    calls = []
    original = entry.compile_text
    monkeypatch.setattr(entry, "compile_text", lambda *args: calls.append(args) or original(*args))
    return calls


def test_a_second_kernel_of_an_equal_energy_compiles_nothing(folder, counted):
    assert small_value() == small_value() == 8.0
    assert len(counted) == 1


def test_another_constant_compiles_anew(folder, counted):
    assert small_value(3) == 8.0
    assert small_value(4) == 2.0
    assert len(counted) == 2


def test_changed_sources_of_the_compiler_compile_anew(folder, counted, monkeypatch):
    small_value()
    before = entry.compiler_sources()
    monkeypatch.setattr(entry, "compiler_sources", lambda: (*before, "compiler/new.py:0"))
    assert small_value() == 8.0
    assert len(counted) == 2


def test_another_numba_or_cpu_compiles_anew(folder, counted, monkeypatch):
    small_value()
    monkeypatch.setattr(entry, "platform_key", lambda: ("another",))
    assert small_value() == 8.0
    assert len(counted) == 2


def test_the_key_covers_every_file_of_the_compiler_and_of_energies():
    names = {source.partition(":")[0] for source in entry.compiler_sources()}
    root = cache.Path(entry.__file__).parent
    files = [*root.glob("*.py"), *(root.parent / "energies").glob("*.py")]
    assert names == {f"{f.parent.name}/{f.name}" for f in files}


@pytest.mark.parametrize("part", ["source", "sizes", "evaluate.object", "evaluate.bitcode", "evaluate.symbol",
                                  "prepare.object", "manifest.json"])  # fmt: skip
def test_a_kernel_damaged_on_disk_is_rebuilt_with_the_same_numbers(part, folder, counted, caplog):
    small_value()
    target = kernel_folder(folder) / part
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 0xFF
    target.write_bytes(data)
    assert small_value() == 8.0
    assert len(counted) == 2 and "damaged" in caplog.text
    assert small_value() == 8.0
    assert len(counted) == 2


def test_a_declaration_that_is_no_declaration_is_made_anew(folder):
    small_value()
    key = digest("declaration", small().key, *kernel.compiler_sources())
    for text in (b"{}", b"[]", b"3", b'{"class": "os.system"}', b'{"class": "Symbol", "name": "t"}'):
        (folder / key / "declaration").write_bytes(text)
        (folder / key / "manifest.json").write_text(json.dumps({"declaration": hashlib.sha256(text).hexdigest()}))
        assert small_value() == 8.0


# ---------------------------------------------------------------------------------------------- processes

ENERGY = """
import sys
import numpy as np, sympy as sp, wiberg as wb
n = sp.Symbol("n", integer=True, positive=True); i = sp.Idx("i", n)
t, s = sp.Symbol("t", real=True), sp.Symbol("s", positive=True)
x = sp.IndexedBase("x", shape=(n,))
energy = wb.Energy(-sp.Sum(sp.exp(-((x[i] - t)/s)**2), i), variables=[t], weights=[s], data=[x], name="processes")
"""
CALL = """
kernel = wb.compile(energy)
y, w, data = {"t": 0.5}, {"s": 2.0}, {"x": np.linspace(-1, 2, 9)}
print(repr(kernel.value(y, w, data)), kernel.gradient(y, w, data).tolist(), kernel.hessian(y, w, data).tolist())
"""
FORBID = """
import importlib
def forbidden(*args, **options):
    raise SystemExit("a warm start must not do this")
for module, name in [("derive", "lower"), ("derive", "compile_text"), ("entry", "compile_text"), ("entry", "derive"),
                     ("entry", "compile_function"), ("native", "compile_function"), ("native", "cfunc"),
                     ("native", "compile_driver"),
                     ("kernel", "compile_text"), ("kernel", "value")]:
    owner = importlib.import_module("wiberg.compiler." + module)
    assert hasattr(owner, name), (module, name)
    setattr(owner, name, forbidden)
"""


def start(script, root):
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "WIBERG_CACHE_DIR": str(root)},
    )


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """Two processes that compile the same energy at once, and their cache."""
    root = tmp_path_factory.mktemp("processes") / "cache"
    running = [start(ENERGY + CALL, root) for _ in range(2)]
    return root, [(*process.communicate(), process.returncode) for process in running]


def test_two_processes_that_compile_at_once_agree(twice):
    _, results = twice
    assert [code for _, _, code in results] == [0, 0], results[0][1] + results[1][1]
    assert results[0][0] == results[1][0] != ""


def test_two_processes_that_compile_at_once_leave_only_whole_folders(twice):
    root, _ = twice
    assert all(not p.name.startswith(".") and (p / "manifest.json").exists() for p in root.iterdir())


def test_a_warm_start_in_a_new_process_neither_lowers_nor_compiles_and_agrees(twice):
    root, results = twice
    process = start(ENERGY + FORBID + CALL, root)
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    assert out == results[0][0]


def test_forbidding_works(twice, tmp_path):
    """The test above would notice: with an empty cache the same script ends in the error."""
    process = start(ENERGY + FORBID + CALL, tmp_path / "empty")
    _, errors = process.communicate()
    assert process.returncode == 1 and "must not" in errors
