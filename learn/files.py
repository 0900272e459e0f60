"""Files that are whole at every moment: written beside the old one, flushed to the disk, renamed over it."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from ..energies.errors import CheckpointError


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that PATH is the old one or the new one, never a part.

    Raises
    ------
    CheckpointError
        If it cannot be written; what was there is untouched.
    """
    target, temporary = Path(path), None
    try:
        name = target.with_name(f".{target.name}.{secrets.token_hex(6)}.new")
        with name.open("xb") as file:
            temporary = name
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
        temporary = None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"cannot write {target} ({reason}); choose another path or make room") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()
