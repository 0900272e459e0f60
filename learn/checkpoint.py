"""Checkpoints: a learner as one file that is either whole or not there.

The file is an uncompressed .npz: `header.json` (formats, formulas, settings) and arrays that NumPy reads without
pickle. The same state gives the same bytes: entries are in a fixed order with a fixed date. The first entry,
`wiberg-checkpoint`, holds the SHA-256 of everything after it, so that a file that is cut off or altered is noticed.

Saving writes a temporary file in the same folder, flushes it to the disk and renames it over the old one, which is
kept as PATH.1 if it was sound. At every moment PATH is a whole checkpoint, the old or the new. What a process that was
killed while it wrote has left behind, the next saves remove.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import json
import os
import secrets
import shutil
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..energies.errors import CheckpointError

FORMAT = 1
MARK = "wiberg-checkpoint"
HEADER = "header.json"
_DATE = (1980, 1, 1, 0, 0, 0)
_ABANDONED = 600.0  # seconds after which nobody is writing a temporary file any more


@dataclass(frozen=True)
class Checkpoint:
    """What is in a checkpoint: settings as JSON values, and arrays by name."""

    header: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]


def save(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint so that PATH is whole at every moment.

    Raises
    ------
    CheckpointError
        If the file cannot be written, or PATH is a file that wiberg did not write. What was there is untouched.
    """
    target = Path(path)
    try:
        folder, exists = target.is_dir(), target.exists()
    except (OSError, ValueError) as error:  # a name that is too long, or has a zero byte
        raise CheckpointError(f"cannot save to {str(target)!r} ({error}); choose another path") from None
    if folder:
        raise CheckpointError(f"cannot save to {target}: it is a directory; give a file name in it")
    if exists and not _is_ours(target):
        raise CheckpointError(f"cannot save to {target}: it exists and is not a wiberg checkpoint; choose another path")
    data = to_bytes(checkpoint)
    temporary: Path | None = None
    try:
        name = target.with_name(f".{target.name}.{secrets.token_hex(6)}.new")
        with name.open("xb") as file:
            temporary = name
            if target.exists():
                os.chmod(name, target.stat().st_mode & 0o777)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _keep_previous(target)
        os.replace(temporary, target)
        _flush_folder(target.parent)
        _remove_abandoned(target)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        kept = "; the previous checkpoint is untouched" if target.exists() else ""
        raise CheckpointError(
            f"cannot save to {str(target)!r} ({getattr(error, 'strerror', None) or error}){kept}; "
            f"the state is still in memory: save to another path"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint and verify it.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, not a checkpoint, or of a newer format; the message names PATH.1 if that
        one is sound.
    """
    target = Path(path)
    try:
        data = target.read_bytes()
    except OSError as error:
        reason = "it is a directory" if target.is_dir() else error.strerror or str(error)
        raise CheckpointError(f"cannot read checkpoint {target} ({reason}){_previous(target)}") from error
    try:
        return from_bytes(data)
    except CheckpointError as error:
        raise CheckpointError(f"{target} {error}{_previous(target)}") from None


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """The file as bytes: the same for the same checkpoint."""
    header = json.dumps(
        {"format": FORMAT, **checkpoint.header}, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False
    )
    parts = {HEADER: header.encode()}
    for name in sorted(checkpoint.arrays):
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.ascontiguousarray(checkpoint.arrays[name]), allow_pickle=False)
        parts[f"{name}.npy"] = buffer.getvalue()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, part in {MARK: _checksum(parts), **parts}.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system, entry.external_attr = 3, 0o600 << 16
            archive.writestr(entry, part)
    return file.getvalue()


def from_bytes(data: bytes) -> Checkpoint:
    """The checkpoint in a file's bytes, after its checksum was verified."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, ValueError, OSError) as error:
        detail = f"truncated or damaged: {len(data)} bytes; {error}" if _has_mark(data) else f"{len(data)} bytes"
        raise CheckpointError(f"is not a wiberg checkpoint ({detail})") from None
    mark = parts.pop(MARK, None)
    if mark is None or HEADER not in parts:
        raise CheckpointError(f"is not a wiberg checkpoint (an archive of {', '.join(sorted(parts)) or 'nothing'})")
    if mark != _checksum(parts):
        raise CheckpointError("is not a wiberg checkpoint any more (its checksum differs: the contents were altered)")
    header = json.loads(parts.pop(HEADER))
    version = header.pop("format", None)
    if version != FORMAT:
        raise CheckpointError(f"has format {version}, and this version of wiberg reads {FORMAT}; update wiberg")
    arrays = {
        name.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(part), allow_pickle=False)
        for name, part in parts.items()
    }
    return Checkpoint(header, arrays)


def _checksum(parts: Mapping[str, bytes]) -> bytes:
    state = hashlib.sha256()
    for name in sorted(parts):
        state.update(f"{len(name.encode())}:{name}:{len(parts[name])}:".encode())
        state.update(parts[name])
    return state.hexdigest().encode()


def _has_mark(start: bytes) -> bool:
    return start.startswith(b"PK\x03\x04") and MARK.encode() in start[:64]


def _is_ours(path: Path) -> bool:
    """Whether a file may be replaced: a checkpoint, sound or not, or empty."""
    if not path.is_file():
        return False
    with contextlib.suppress(OSError), path.open("rb") as file:
        start = file.read(64)
        return not start or _has_mark(start)
    return False


def _is_sound(path: Path) -> bool:
    try:
        from_bytes(path.read_bytes())
    except (OSError, CheckpointError):
        return False
    return True


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".1")


def _previous(path: Path) -> str:
    previous = _beside(path)
    return f"; previous good one: {previous}" if _is_sound(previous) else ""


def _keep_previous(target: Path) -> None:
    """Make PATH.1 the checkpoint at PATH, if that is sound; PATH itself stays in place."""
    if not _is_sound(target):
        return
    link = target.with_name(f".{target.name}.{os.getpid()}.1")
    try:
        try:
            os.link(target, link)
        except OSError:  # a file system without hard links, or a leftover of a process that was killed
            shutil.copyfile(target, link)
        os.replace(link, _beside(target))
    finally:
        link.unlink(missing_ok=True)


def _remove_abandoned(target: Path) -> None:
    """Remove temporary files beside PATH whose writers were killed."""
    for kind in ("*.new", "*.1"):
        for file in target.parent.glob(f".{glob.escape(target.name)}.{kind}"):
            with contextlib.suppress(OSError):
                if time.time() - file.stat().st_ctime > _ABANDONED:
                    file.unlink()


def _flush_folder(folder: Path) -> None:
    """Make the renaming itself last through a power cut, where the system can."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
