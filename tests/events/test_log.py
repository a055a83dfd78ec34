"""One process, private files, and nothing left of what was deleted."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from muster.clock import SystemClock
from muster.errors import Kind, Problem
from muster.events.log import EmbeddedEventLog
from muster.events.stream import JournalStream


def open_log(root: Path) -> EmbeddedEventLog:
    """Open the log in *root*."""
    return EmbeddedEventLog(root, clock=SystemClock())


async def open_stream(log: EmbeddedEventLog, name: str = "hub") -> JournalStream:
    """Open a stream of two partitions."""
    return await log.open_stream(name, partition_count=2, retention_days=1)


async def test_everything_is_private(tmp_path: Path) -> None:
    """Nobody but the owner can read an event, whatever the umask."""
    root = tmp_path / "data" / "events"
    log = open_log(root)
    (await open_stream(log)).append(0, b"", b"x")
    await log.close()
    assert root.stat().st_mode & 0o777 == 0o700
    for path in root.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


async def test_one_process_at_a_time(tmp_path: Path) -> None:
    """A second process is refused while the first lives, and let in after it."""
    log = open_log(tmp_path)
    with pytest.raises(Problem) as caught:
        open_log(tmp_path)
    assert caught.value.kind is Kind.CONFLICT
    await log.close()
    await open_log(tmp_path).close()


async def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    """The lock goes with the process that held it."""
    code = (
        "import os, pathlib, sys\n"
        "from muster.clock import SystemClock\n"
        "from muster.events.log import EmbeddedEventLog\n"
        "log = EmbeddedEventLog(pathlib.Path(sys.argv[1]), clock=SystemClock())\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code, str(tmp_path)], check=False
    )
    assert ended.returncode == -9
    await open_log(tmp_path).close()


async def test_what_a_crash_left_half_deleted_is_removed(tmp_path: Path) -> None:
    """A stream is gone from the moment it was renamed; its files go at the next start."""
    half = tmp_path / ".deleted-0123"
    half.mkdir()
    (half / "0.log").touch()
    log = open_log(tmp_path)
    await log.close()
    assert not half.exists()


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"version":2,"partitions":2,"created":0}', b'{"version":1}']
)
async def test_a_strange_stream_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """What this program does not understand it does not touch; another stream still works."""
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "stream").write_bytes(content)
    log = open_log(tmp_path)
    for _ in range(2):
        with pytest.raises(Problem) as caught:
            await open_stream(log)
        assert caught.value.kind is Kind.UNAVAILABLE
    await open_stream(log, "other")
    await log.close()
    assert (tmp_path / "hub" / "stream").read_bytes() == content


async def test_a_disk_error_while_opening_is_told_and_tried_again(tmp_path: Path) -> None:
    """A stream that cannot be opened now can be opened later."""
    (tmp_path / "hub").write_bytes(b"a file where the directory should be")
    log = open_log(tmp_path)
    with capture_logs(), pytest.raises(Problem) as caught:
        await open_stream(log)
    assert caught.value.kind is Kind.UNAVAILABLE
    (tmp_path / "hub").unlink()
    await open_stream(log)
    await log.close()


async def test_a_root_that_cannot_be_used(tmp_path: Path) -> None:
    """A log whose directory cannot be made is refused when it is made."""
    (tmp_path / "file").touch()
    with capture_logs(), pytest.raises(Problem) as caught:
        open_log(tmp_path / "file" / "events")
    assert caught.value.kind is Kind.UNAVAILABLE


async def test_a_caller_that_leaves_does_not_stop_the_others(tmp_path: Path) -> None:
    """Two ask for the same stream; the first is cancelled; the second gets it."""
    log = open_log(tmp_path)
    first = asyncio.create_task(open_stream(log))
    second = asyncio.create_task(open_stream(log))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).partition_count == 2
    await log.close()


async def test_retention_can_be_changed(tmp_path: Path) -> None:
    """The latest retention asked for counts, for a stream that is open too."""
    log = open_log(tmp_path)
    stream = await open_stream(log)
    assert await log.open_stream("hub", partition_count=2, retention_days=7) is stream
    assert stream._journal.retention == 7 * 86_400 * 1_000_000
    await log.close()
