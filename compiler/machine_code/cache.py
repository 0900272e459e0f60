"""The disk cache: folders of checked parts, one for each kernel or driver, named by the hash of all it depends on.

A folder is written under a private name, with a checksum of every part, and published by renaming it; it is never
written to again, so any number of processes may share the cache. A folder that is damaged, or a cache that cannot be
written, only costs the time to compile again. What is stored is run as machine code, so a folder that other users
can write to is not used.

Its size is bounded (`WIBERG_CACHE_SIZE`, 1 GB): a file beside the folders grows with what is written, by a byte for
each block; when that reaches an eighth of the limit, the folders are measured and those unused for longest go. Reading
costs no more for it, writing one append. A folder is renamed before it is removed, and is read as a whole before
anything is done with it, so a process that reads it finds all of it or nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

logger = logging.getLogger("wiberg")

LIMIT = 10**9  # bytes, where WIBERG_CACHE_SIZE says nothing
BLOCK = 16_384  # bytes for which the tally grows by one
MEASURED_EVERY = 8  # folders are measured when this part of the limit has been written
HOUR, DAY = 3600.0, 86400.0
TALLY = ".tally"
_KEY = re.compile(r"[0-9a-f]{64}")
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


def digest(*parts: str | bytes) -> str:
    """SHA-256 over parts, each preceded by its length, as hexadecimal text."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def cache_directory() -> Path:
    """Where compiled code is kept: WIBERG_CACHE_DIR, or the platform's folder for caches."""
    override = os.environ.get("WIBERG_CACHE_DIR")
    if override:
        return Path(override)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "wiberg"


def read_folder(key: str, names: tuple[str, ...]) -> dict[str, bytes] | None:
    """The parts stored under `key`, or None where nothing is stored, it is damaged, or others can write to it."""
    folder = cache_directory() / key
    try:
        if not _is_private(folder.parent):
            return None
        manifest = json.loads((folder / "manifest.json").read_bytes())
        parts = {name: (folder / name).read_bytes() for name in names}
    except (FileNotFoundError, NotADirectoryError):
        if folder.is_dir():
            _discard(folder, "a part is missing")
        return None
    except (OSError, ValueError) as error:
        _discard(folder, str(error))
        return None
    for name in names:
        if not isinstance(manifest, dict) or manifest.get(name) != hashlib.sha256(parts[name]).hexdigest():
            _discard(folder, f"the checksum of {name} differs")
            return None
    _mark_used(folder)
    return parts


def write_folder(key: str, parts: dict[str, bytes]) -> None:
    """Store parts under `key`; whoever renames first wins, and a cache that cannot be written costs only time."""
    root = cache_directory()
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _is_private(root):
            return
        folder = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
        try:
            for name, data in parts.items():
                (folder / name).write_bytes(data)
            manifest = {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()}
            (folder / "manifest.json").write_text(json.dumps(manifest))
            folder.rename(root / key)
            _tally(root, key, sum(map(len, parts.values())))
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            if not (root / key).is_dir():
                raise
    except OSError as error:
        _warn_unwritable(str(root), str(error))


@cache
def _warn_unwritable(root: str, error: str) -> None:
    logger.warning(
        "kernel cache %s is not writable (%s): compiling in memory each time; set WIBERG_CACHE_DIR", root, error
    )


@cache
def _warn_shared(root: str) -> None:
    logger.warning(
        "kernel cache %s can be written by other users and is not used; chmod 700 it, "
        "or set WIBERG_CACHE_DIR to a private folder",
        root,
    )


def _is_private(root: Path) -> bool:
    """Machine code is run, so it is read only from a folder that nobody else can write to."""
    if not hasattr(os, "getuid"):
        return True
    status = root.stat()
    private = status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not private:
        _warn_shared(str(root))
    return private


def _discard(folder: Path, reason: str) -> None:
    logger.warning("cached kernel %s is damaged (%s); rebuilt", folder.name[:12], reason)
    _remove(folder)


def _remove(folder: Path) -> bool:
    """Rename, so that no reader sees half of it, and remove; False if another process was faster."""
    trash = folder.with_name(f".old-{folder.name[:12]}-{os.getpid()}")
    try:
        folder.rename(trash)
    except OSError:
        return False
    shutil.rmtree(trash, ignore_errors=True)
    return True


# ---------------------------------------------------------------------------------------------- size


@dataclass(frozen=True)
class Stored:
    """A folder of the cache: what it holds ("kernel", "declaration" or "driver"), its bytes, and its last use."""

    folder: Path
    kind: str
    size: int
    used: float


def contents() -> list[Stored]:
    """Everything in the cache, what was unused for longest first."""
    try:
        with os.scandir(cache_directory()) as entries:
            folders = [Path(entry.path) for entry in entries if _KEY.fullmatch(entry.name)]
    except OSError:
        return []
    found = [item for folder in folders if (item := _stored(folder)) is not None]
    return sorted(found, key=lambda item: (item.used, item.folder.name))


def _stored(folder: Path) -> Stored | None:
    """None for a folder that another process has just removed."""
    try:
        with os.scandir(folder) as entries:
            files = {entry.name: entry.stat() for entry in entries}
        used = folder.stat().st_mtime
    except OSError:
        return None
    kind = "kernel" if "source" in files else "declaration" if "declaration" in files else "driver"
    return Stored(folder, kind, sum(s.st_size for s in files.values()), used)


def clear() -> tuple[int, int]:
    """Remove everything from the cache, and nothing else that may lie there: (folders, bytes) removed.

    Processes that run go on: what they have loaded is in their memory.
    """
    removed = [item for item in contents() if _remove(item.folder)]
    _remove_leftovers(cache_directory(), older_than=0.0)
    (cache_directory() / TALLY).unlink(missing_ok=True)
    return len(removed), sum(item.size for item in removed)


def limit() -> int:
    """The bytes that the cache may hold: WIBERG_CACHE_SIZE, such as `500 MB` or a number of bytes, or 1 GB."""
    text = os.environ.get("WIBERG_CACHE_SIZE", "")
    if not text.strip():
        return LIMIT
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if found is None or found[2].lower() not in _UNITS:
        _warn_size(text)
        return LIMIT
    return int(float(found[1]) * _UNITS[found[2].lower()])


@cache
def _warn_size(text: str) -> None:
    logger.warning("WIBERG_CACHE_SIZE is %r, which is no size such as '500 MB'; the limit is 1 GB", text)


def collect(keep: str = "") -> int:
    """Remove what was unused for longest until the rest fits the limit; the bytes removed. `keep` is not removed."""
    everything = contents()
    excess, removed = sum(item.size for item in everything) - limit(), 0
    for item in everything:
        if removed >= excess:
            break
        if item.folder.name != keep and _remove(item.folder):
            removed += item.size
    _remove_leftovers(cache_directory(), older_than=DAY)
    return removed


def _remove_leftovers(root: Path, older_than: float) -> None:
    """Folders of processes that were killed while they wrote or removed."""
    for pattern in (".new-*", ".old-*"):
        for folder in root.glob(pattern):
            try:
                old = time.time() - folder.stat().st_mtime >= older_than
            except OSError:
                continue
            if old:
                shutil.rmtree(folder, ignore_errors=True)


def _tally(root: Path, key: str, size: int) -> None:
    """Count what was written; measure and collect when it has come to a part of the limit."""
    with (root / TALLY).open("ab") as tally:
        tally.write(b"." * (1 + size // BLOCK))
        written = tally.tell() * BLOCK
    if written * MEASURED_EVERY > limit():
        (root / TALLY).unlink(missing_ok=True)
        collect(keep=key)


def _mark_used(folder: Path) -> None:
    """The time of a folder is that of its last use, to the hour."""
    try:
        if time.time() - folder.stat().st_mtime > HOUR:
            os.utime(folder)
    except OSError:  # a cache that can only be read: its order of use is not ours to keep
        pass
