"""Files that are whole or not there at all, and on the disk when a call returns.

A reader sees the old content or the new, never half of one; a crash leaves at most a draft
whose name begins with a dot. Modes are set when the file is made, not afterwards.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

PRIVATE = 0o600
# What a crash may leave, for whoever cleans a directory up at the start.
DRAFTS = ".*.draft"


def replace_file(path: Path, data: bytes, *, mode: int = PRIVATE) -> None:
    """Make the file at *path*, or put it in the place of the one there. Raises `OSError`."""
    draft = _write_draft(path, data, mode)
    draft.replace(path)
    sync_directory(path.parent)


def create_file(path: Path, data: bytes, *, mode: int = PRIVATE) -> None:
    """Make the file at *path*; raises `FileExistsError` when there is one, other `OSError`s."""
    draft = _write_draft(path, data, mode)
    try:
        os.link(draft, path)
    finally:
        draft.unlink()
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Have the names in *directory* survive a power loss. Raises `OSError`."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_draft(path: Path, data: bytes, mode: int) -> Path:
    # A name of its own: a draft that a crash left must not be in the way of the next.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}.draft")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(draft, flags, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        draft.unlink()
        raise
    return draft
