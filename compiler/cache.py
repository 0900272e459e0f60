"""The disk cache: folders of checked parts, one for each kernel or driver, named by the hash of all it depends on.

A folder is written under a private name, with a checksum of every part, and published by renaming it; it is never
written to again, so any number of processes may share the cache. A folder that is damaged, or a cache that cannot be
written, only costs the time to compile again. What is stored is run as machine code, so a folder that other users
can write to is not used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import stat
import sys
import tempfile
from functools import cache
from pathlib import Path

logger = logging.getLogger("wiberg")


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
    trash = folder.with_name(f".old-{folder.name[:12]}-{os.getpid()}")
    try:
        folder.rename(trash)
    except OSError:
        return
    shutil.rmtree(trash, ignore_errors=True)
