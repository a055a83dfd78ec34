"""A journal in a directory, and short ways to fill and read it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from muster.events.format import pack_record_header
from muster.events.journal import Gathered, Journal, JournalLimits, Written, open_journal
from muster.events.reading import read_events

HOUR = 3_600_000_000
DAY = 24 * HOUR


class JournalBench:
    """Opens the journal of one directory again and again, as after a crash."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.limits = JournalLimits()
        self.retention = DAY
        self.now = 1_000 * DAY
        self.journal: Journal | None = None

    def open(self) -> Journal:
        """Drop the open journal without a word, as `kill -9` does, and open it again."""
        self.drop()
        self.journal = open_journal(self.directory, 2, self.now, self.limits, self.retention)
        return self.journal

    def drop(self) -> None:
        """Let go of the journal."""
        if self.journal is not None:
            self.journal.close()
            self.journal = None

    def write(self, *payloads: bytes, partition: int = 0) -> list[Written]:
        """Write *payloads* as one batch."""
        assert self.journal is not None
        parts: list[bytes] = []
        for payload in payloads:
            parts += (pack_record_header(0, len(payload)), b"", payload)
        work: Gathered = [(partition, parts)]
        return self.journal.write([work], self.now)

    def read(self, partition: int = 0, start: int = 0) -> list[bytes]:
        """Return every payload from *start* on, after checking that the numbers have no gap."""
        assert self.journal is not None
        events = read_events(self.journal.segments, partition, start, 1_000_000)
        numbers = [event.sequence_number for event in events]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
        return [event.payload for event in events]

    def files(self, pattern: str = "*") -> list[str]:
        """Return the names in the directory."""
        return sorted(path.name for path in self.directory.glob(pattern))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[JournalBench]:
    """A journal bench on an empty directory."""
    directory = tmp_path / "hub"
    directory.mkdir()
    made = JournalBench(directory)
    yield made
    made.drop()


class Disk:
    """Makes writes and syncs of this process fail while it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sync_error: int | None = None
        self.write_error: int | None = None
        self.free = True
        self._write, self._statvfs = os.write, os.statvfs
        monkeypatch.setattr(os, "fdatasync", self._failing_sync(os.fdatasync))
        monkeypatch.setattr(os, "write", self._failing_write)
        monkeypatch.setattr(os, "statvfs", self._failing_statvfs)

    def heal(self) -> None:
        """Work again."""
        self.sync_error = self.write_error = None
        self.free = True

    def fill(self) -> None:
        """Be full: writes take half of what they are given, then nothing."""
        self.write_error = errno.ENOSPC
        self.free = False

    def _failing_sync(self, sync: Callable[[int], None]) -> Callable[[int], None]:
        def run(file: int) -> None:
            if self.sync_error is not None:
                raise OSError(self.sync_error, os.strerror(self.sync_error))
            sync(file)

        return run

    def _failing_write(self, file: int, data: bytes) -> int:
        if self.write_error is None:
            return self._write(file, data)
        if len(data) > 20:
            return self._write(file, data[: len(data) // 2])
        raise OSError(self.write_error, os.strerror(self.write_error))

    def _failing_statvfs(self, path: str) -> os.statvfs_result:
        found = self._statvfs(path)
        return found if self.free else os.statvfs_result((*found[:4], 0, *found[5:]))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk that can be told to fail."""
    return Disk(monkeypatch)
