"""The disk cache: cold, warm, damaged in every part, unwritable, shared with others, used by two processes at once."""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
import sympy as sp
import wiberg as wb
from wiberg.compiler import derive, kernel
from wiberg.compiler.machine_code import cache, entry
from wiberg.compiler.machine_code.cache import cache_directory, digest, read_folder, write_folder

PARTS = {"first": b"one", "second": b"\x00\x01\x02"}
KEY = "a" * 64


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache of its own."""
    root = tmp_path / "cache"
    monkeypatch.setenv("WIBERG_CACHE_DIR", str(root))
    return root


def names(root):
    """What is in a cache, but for the tally of its size."""
    return sorted(p.name for p in root.iterdir() if p.name != cache.TALLY)


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
    assert names(folder) == [KEY]


def test_a_second_writer_leaves_the_first_folder_as_it_is(folder, caplog):
    write_folder(KEY, PARTS)
    write_folder(KEY, {"first": b"other", "second": b"other"})
    assert read_folder(KEY, tuple(PARTS)) == PARTS
    assert names(folder) == [KEY] and not caplog.records


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
    assert names(folder) == [KEY]
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
    assert names(folder) == []


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
    original = derive.compile_text
    monkeypatch.setattr(derive, "compile_text", lambda *args: calls.append(args) or original(*args))
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
    root = cache.Path(__file__).parents[2]
    files = [*(root / "compiler").rglob("*.py"), *(root / "energies").glob("*.py")]
    assert names == {f.relative_to(root).as_posix() for f in files} and len(names) > 80


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
for module, name in [("derive", "lower"), ("derive", "compile_text"), ("derive", "derive"), ("derive", "value"),
                     ("machine_code.entry", "compile_function"), ("machine_code.native", "compile_function"),
                     ("machine_code.native", "cfunc"), ("machine_code.native", "compile_driver")]:
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
    assert all(not name.startswith(".") and (root / name / "manifest.json").exists() for name in names(root))


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


FIFTY = """
import os
kernel = wb.compile(energy)
data = {"t": 0.5}, {"s": 2.0}, {"x": np.linspace(-1, 2, 9)}
warm = wb.compile(wb.Energy((t - 1)**2 + sp.exp(t), variables=[t]))  # numba and the drivers, before the processes part
warm.value({"t": 1.0})
os.environ["WIBERG_CACHE_DIR"] = sys.argv[1]  # empty
ready, go = os.pipe()
results = []
for _ in range(50):
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(go)
        os.read(ready, 1)  # ends for all of them when the parent closes the pipe
        os.write(write, repr(kernel.value(*data)).encode())
        os._exit(0)
    os.close(write)
    results.append(read)
os.close(go)
texts = [os.read(read, 100) for read in results]
assert all(os.wait()[1] == 0 for _ in results)
expected = -float(np.exp(-((data[2]["x"] - 0.5) / 2)**2).sum())
print(len(texts), len(set(texts)), abs(float(texts[0]) - expected) < 1e-12)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork of POSIX")
def test_fifty_processes_that_compile_one_energy_at_once_in_an_empty_cache_agree(tmp_path):
    root = tmp_path / "empty"
    done = subprocess.run(
        [sys.executable, "-c", ENERGY + FIFTY, str(root)], capture_output=True, text=True, timeout=300,
        env={**os.environ, "WIBERG_CACHE_DIR": str(tmp_path / "warm")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["50", "1", "True"]
    assert all(not name.startswith(".") and (root / name / "manifest.json").exists() for name in names(root))
    kernel_folder(root)  # there is one, whoever was first


def test_a_cache_that_cannot_be_used_gives_right_numbers(tmp_path, monkeypatch, caplog):
    path = tmp_path / "file"
    path.write_text("")
    monkeypatch.setenv("WIBERG_CACHE_DIR", str(path / "below"))
    assert small_value() == small_value() == 8.0
    assert "not writable" in caplog.text


def test_a_cache_that_is_deleted_while_in_use_costs_only_time(folder, counted):
    kernel_in_use = wb.compile(small())
    point = {"t": 5.0}, {"a": 2.0}
    assert kernel_in_use.value(*point) == 8.0
    shutil.rmtree(folder)
    assert kernel_in_use.value(*point) == 8.0 and len(counted) == 1  # its code is in memory
    assert kernel_in_use.gradient(*point) == [8.0]
    assert small_value() == 8.0 and len(counted) == 3
    assert small_value() == 8.0 and len(counted) == 3


def test_a_cache_that_is_deleted_again_and_again_gives_right_numbers(folder):
    """Another thread clears the cache all the time: whatever is missing in the middle is compiled or written anew."""
    stop = threading.Event()

    def destroy():
        while not stop.is_set():
            shutil.rmtree(folder, ignore_errors=True)

    thread = threading.Thread(target=destroy)
    thread.start()
    try:
        for constant in range(3):
            assert small_value(constant) == 2.0 * (5 - constant) ** 2
        for k in range(200):
            write_folder(digest(str(k)), PARTS)
            assert read_folder(digest(str(k)), tuple(PARTS)) in (PARTS, None)
    finally:
        stop.set()
        thread.join()


def test_two_versions_side_by_side_each_find_their_own(folder, counted, monkeypatch):
    own = entry.compiler_sources()
    original = derive.compile_text

    def other(energy, kind):
        emitted = original(energy, kind)
        return replace(emitted, source=emitted.source.replace("return ", "return 2*"))

    for _ in range(2):
        monkeypatch.setattr(entry, "compiler_sources", lambda: own)
        assert small_value() == 8.0
        monkeypatch.setattr(entry, "compiler_sources", lambda: ("another version",))
        with monkeypatch.context() as version:
            version.setattr(derive, "compile_text", other)
            assert small_value() == 16.0
    assert len(counted) == 2  # once for each version, the second time both are found


# ---------------------------------------------------------------------------------------------- size


def filled(count, size=1000):
    """Keys of so many folders of that size, used an hour apart, the first one long ago."""
    keys = [digest(str(k)) for k in range(count)]
    for k, key in enumerate(keys):
        write_folder(key, {"source": bytes(size)})
        at = time.time() - 3600.0 * (count - k)
        os.utime(cache_directory() / key, (at, at))
    return keys


@pytest.mark.parametrize(("text", "size"), [
    ("", 10**9), ("500 MB", 5 * 10**8), ("2GB", 2 * 10**9), ("1.5 kb", 1500), ("12345", 12345), ("much", 10**9),
    ("-3", 10**9), ("7 parsecs", 10**9),
])  # fmt: skip
def test_the_limit_is_that_of_the_environment(text, size, monkeypatch, caplog):
    monkeypatch.setenv("WIBERG_CACHE_SIZE", text)
    assert cache.limit() == size
    assert (repr(text) in caplog.text) == (text in ("much", "-3", "7 parsecs"))


def test_what_was_unused_for_longest_is_removed(folder, monkeypatch):
    keys = filled(10)
    size = cache.contents()[0].size
    monkeypatch.setenv("WIBERG_CACHE_SIZE", str(4 * size))
    assert cache.collect() == 6 * size
    assert names(folder) == sorted(keys[6:])


def test_what_has_just_been_read_stays(folder, monkeypatch):
    keys = filled(10)
    assert read_folder(keys[0], ("source",)) is not None
    monkeypatch.setenv("WIBERG_CACHE_SIZE", str(cache.contents()[0].size))
    cache.collect()
    assert names(folder) == [keys[0]]


def test_the_size_stays_bounded_by_itself(folder, monkeypatch):
    limit = 10**6
    monkeypatch.setenv("WIBERG_CACHE_SIZE", str(limit))
    for k in range(200):
        write_folder(digest(str(k)), {"source": bytes(50_000)})
        assert sum(item.size for item in cache.contents()) <= limit * (1 + 2 / cache.MEASURED_EVERY)
    assert len(cache.contents()) > 10 and (folder / digest("199")).is_dir()


def test_a_kernel_larger_than_the_limit_is_kept_until_the_next(folder, monkeypatch):
    monkeypatch.setenv("WIBERG_CACHE_SIZE", "10")
    for key in (KEY, "b" * 64):
        write_folder(key, PARTS)
        assert names(folder) == [key]


def test_nothing_is_measured_on_ordinary_use(folder, monkeypatch):
    monkeypatch.setattr(cache, "contents", lambda: pytest.fail("measured"))
    for k in range(50):
        write_folder(digest(str(k)), PARTS)
        assert read_folder(digest(str(k)), tuple(PARTS)) == PARTS


def test_what_killed_processes_left_goes_after_a_day(folder):
    filled(1)
    for name, age in ((".new-old", 2), (".old-old", 2), (".new-now", 0)):
        (folder / name).mkdir()
        at = time.time() - age * 86400.0
        os.utime(folder / name, (at, at))
    cache.collect()
    assert [name for name in names(folder) if name.startswith(".")] == [".new-now"]


def test_a_collection_while_others_read_gives_all_or_nothing(folder, monkeypatch):
    """Readers in other threads get the parts or None, never half of them."""
    monkeypatch.setenv("WIBERG_CACHE_SIZE", "1")
    parts, wrong = {str(k): bytes(5000) for k in range(5)}, []
    stop = threading.Event()

    def read():
        while not stop.is_set():
            if read_folder(KEY, tuple(parts)) not in (parts, None):
                wrong.append(1)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(100):
        write_folder(KEY, parts)
        cache.collect()
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong


def test_contents_tell_kernels_from_the_rest(folder):
    small_value()
    kinds = [item.kind for item in cache.contents()]
    assert kinds.count("kernel") == 1 and kinds.count("declaration") == 1
    assert all(item.size > 0 for item in cache.contents())


def test_clearing_removes_what_is_ours_and_nothing_else(folder):
    keys = filled(3)
    (folder / "mine").mkdir()
    (folder / "notes.txt").write_text("mine")
    size = sum(item.size for item in cache.contents())
    assert cache.clear() == (len(keys), size)
    assert names(folder) == ["mine", "notes.txt"]


def test_clearing_an_empty_or_missing_cache_removes_nothing(folder):
    assert cache.clear() == (0, 0) and cache.contents() == []


def test_a_warm_start_does_not_even_load_the_passes(twice):
    """What is in the cache is called without the modules that make it: they are a third of what importing takes."""
    root, _ = twice
    passes = [f"wiberg.compiler.{name}" for name in ("derive", "lower", "differentiate", "schedule", "emit")]
    process = start(f"{ENERGY}{CALL}\nimport sys\nprint(sorted(set({passes}) & set(sys.modules)))\n", root)
    out, errors = process.communicate()
    assert process.returncode == 0 and out.splitlines()[-1] == "[]", errors or out
