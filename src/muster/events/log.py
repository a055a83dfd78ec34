"""The embedded event log: one directory for each stream, one journal in each.

    ROOT/lock                 held while a process uses the log
    ROOT/NAME/stream          how many partitions the stream was made with, as JSON
    ROOT/NAME/N.log           its segments (see `format`)
    ROOT/NAME/N.index         where to begin reading in them; may be deleted

Directories are 0700 and files 0600. A stream's name comes from a hub's id and is checked all
the same: it can be nothing but a plain name inside ROOT.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import msgspec
import structlog

from muster.clock import Clock
from muster.errors import Kind, Problem
from muster.events.format import MAX_PARTITIONS, to_micros
from muster.events.journal import Journal, JournalLimits, open_journal
from muster.events.stream import JournalStream
from muster.files import replace_file, sync_directory

T = TypeVar("T")

_logger = structlog.get_logger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
# What `delete_stream` renames a stream to until its files are gone; no name can begin so.
_DELETED = ".deleted-"
# IoT Hub keeps events for 1 to 7 days, Event Hubs for up to 90.
_RETENTION_DAYS = range(1, 91)
# Open streams: one for each hub, of which a subscription may have 50.
_STREAMS = 1024
# Threads that write when a disk is slow, and that read old events. A stream never needs more than
# one writer at a time; readers wait for the disk most of their time.
_WRITERS = 4
_READERS = 4
_MICROS_PER_DAY = 86_400 * 1_000_000


class _StreamFile(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    partitions: int
    created: int


class EmbeddedEventLog:
    """The `EventLog` port on local files.

    Raises `Problem(CONFLICT)` when another process uses *root*, `Problem(UNAVAILABLE)` when it
    cannot be used.
    """

    def __init__(self, root: Path, *, clock: Clock, limits: JournalLimits | None = None) -> None:
        self._root = root
        self._clock = clock
        self._limits = limits or JournalLimits()
        self._streams: dict[str, JournalStream] = {}
        # Held by who opens or deletes that stream; forgotten when nobody does.
        self._changing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_closed = False
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _lock(root / "lock")
        except OSError as error:
            raise _unavailable("the event log", error) from error
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="muster-events-write")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="muster-events-read")
        # What a crash left half deleted; in a thread, because it may be much.
        self._readers.submit(self._remove_deleted)

    async def open_stream(
        self, name: str, *, partition_count: int, retention_days: int
    ) -> JournalStream:
        """Return the stream *name*, made on first use; the same object for the same name.

        *partition_count* counts only when it is made: a stream never changes it. The latest
        *retention_days* counts. Raises `Problem(MALFORMED)` for impossible arguments,
        `Problem(UNAVAILABLE)` when its files cannot be used.
        """
        _refuse_name(name)
        if not 1 <= partition_count <= MAX_PARTITIONS:
            raise Problem(Kind.MALFORMED, f"a stream has 1 to {MAX_PARTITIONS} partitions")
        if retention_days not in _RETENTION_DAYS:
            raise Problem(Kind.MALFORMED, f"events are kept for 1 to {_RETENTION_DAYS[-1]} days")
        self._refuse_when_closed()
        stream = self._streams.get(name)
        if stream is None:
            stream = await self._finish(self._open(name, partition_count, retention_days))
        stream.keep_for(retention_days)
        return stream

    async def delete_stream(self, name: str) -> None:
        """Forget the stream *name* and everything in it. Harmless when there is none.

        Raises `Problem(UNAVAILABLE)` when its files cannot be removed.
        """
        _refuse_name(name)
        self._refuse_when_closed()
        await self._finish(self._delete(name))

    async def close(self) -> None:
        """Write out what waits, then close every stream. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(stream.close() for stream in self._streams.values()))
        await asyncio.to_thread(self._stop)

    async def _finish(self, change: Coroutine[Any, Any, T]) -> T:
        """Run *change* to its end, also when the caller leaves: files must not stay half-way."""
        task = asyncio.ensure_future(change)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _open(self, name: str, partitions: int, days: int) -> JournalStream:
        async with self._lock_name(name):
            stream = self._streams.get(name)
            if stream is not None:
                return stream
            if len(self._streams) >= _STREAMS:
                raise Problem(Kind.THROTTLED, "too many event streams are open")
            loop, retention = asyncio.get_running_loop(), days * _MICROS_PER_DAY
            try:
                journal = await loop.run_in_executor(
                    self._readers, self._open_journal, name, partitions, retention
                )
            except OSError as error:
                raise _unavailable(f"the event stream {name}", error) from error
            stream = self._streams[name] = JournalStream(
                journal, clock=self._clock, writers=self._writers, readers=self._readers
            )
            return stream

    async def _delete(self, name: str) -> None:
        async with self._lock_name(name):
            stream = self._streams.pop(name, None)
            if stream is not None:
                await stream.close()
            loop = asyncio.get_running_loop()
            try:
                await loop.run_in_executor(self._readers, self._delete_files, name)
            except OSError as error:
                raise _unavailable(f"the event stream {name}", error) from error

    def _lock_name(self, name: str) -> asyncio.Lock:
        return self._changing.setdefault(name, asyncio.Lock())

    def _stop(self) -> None:
        self._writers.shutdown()
        self._readers.shutdown()
        os.close(self._lock)

    def _refuse_when_closed(self) -> None:
        if self._is_closed:
            raise Problem(Kind.UNAVAILABLE, "the event log is closed")

    def _open_journal(self, name: str, partitions: int, retention: int) -> Journal:
        directory = self._root / name
        now = to_micros(self._clock.now())
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            pass
        else:
            sync_directory(self._root)
        path = directory / "stream"
        try:
            # A stream without it has nothing in it either: it is written before the first segment.
            found = msgspec.json.decode(path.read_bytes(), type=_StreamFile)
        except FileNotFoundError:
            found = _StreamFile(1, partitions, now)
            replace_file(path, msgspec.json.encode(found))
        except msgspec.DecodeError as error:
            raise Problem(
                Kind.UNAVAILABLE, f"the event stream {name} cannot be opened: bad stream file"
            ) from error
        if found.version != 1 or not 1 <= found.partitions <= MAX_PARTITIONS:
            raise Problem(
                Kind.UNAVAILABLE, f"the event stream {name} was made by a newer version of Muster"
            )
        return open_journal(directory, found.partitions, now, self._limits, retention)

    def _delete_files(self, name: str) -> None:
        directory = self._root / name
        condemned = self._root / f"{_DELETED}{os.urandom(8).hex()}"
        try:
            directory.rename(condemned)
        except FileNotFoundError:
            return
        # From here on the stream is gone, whatever happens to its files.
        sync_directory(self._root)
        shutil.rmtree(condemned)

    def _remove_deleted(self) -> None:
        for path in self._root.glob(f"{_DELETED}*"):
            shutil.rmtree(path, ignore_errors=True)


def _lock(path: Path) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Goes with the process, however it ends.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        if isinstance(error, BlockingIOError):
            raise Problem(Kind.CONFLICT, "another process uses this event log") from error
        raise
    return file


def _refuse_name(name: str) -> None:
    if _NAME.match(name) is None:
        raise Problem(
            Kind.MALFORMED,
            "a stream's name has 1 to 128 characters out of A-Z a-z 0-9 . _ - "
            "and begins with a letter or a digit",
        )


def _unavailable(what: str, error: OSError) -> Problem:
    _logger.error("event log failure", what=what, reason=str(error))
    return Problem(Kind.UNAVAILABLE, f"{what} cannot be used: {error.strerror}", retry_after=5)
