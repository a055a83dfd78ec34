"""Files are whole or not there, and for their owner only."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from muster.files import create_file, replace_file


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    """Nothing but the file stays in the directory."""
    path = tmp_path / "kept"
    for content in (b"one", b"two"):
        replace_file(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_mode_is_there_from_the_start(tmp_path: Path, mode: int) -> None:
    """Whatever the umask lets through: there is no moment in which others can read a secret."""
    before = os.umask(0)
    try:
        replace_file(tmp_path / "kept", b"secret", mode=mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == mode


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    """A key that exists stays, and no draft stays beside it."""
    path = tmp_path / "key"
    create_file(path, b"first")
    with pytest.raises(FileExistsError):
        create_file(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [replace_file, create_file])
def test_a_failure_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: object
) -> None:
    """A disk that fails at the last moment costs nothing that was there."""
    path = tmp_path / "kept"

    def fail(_descriptor: int) -> None:
        raise OSError("disk")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk"):
        write(path, b"new")  # type: ignore[operator] # one of the two functions above
    assert list(tmp_path.iterdir()) == []
