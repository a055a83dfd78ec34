"""The writing side of one stream's files. Blocks; used by one thread at a time.

Rules:

1. What `write` returned is durable. When it raises, none of it is known to be: the file is never
   written or synced again, because after a failed fsync the next one may say "fine" without the
   data. `reopen` seals it at its last durable byte and goes on in a new segment.
2. A new segment is durable before the first batch goes into it, and says how much of its
   predecessor counts. What a failed write left behind is void from then on.
3. Only whole segments are thrown away, the oldest first.
4. A sealed segment that is missing, or whose header is damaged, is set aside as `.damaged` with all
   that is older, and that is logged: a hole in the middle would look like retention to a reader
   behind it. Damage inside a segment stays where it is and is told to who reads there.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import structlog

from muster.errors import Kind, Problem
from muster.events.format import Batch, Damaged, SegmentHeader, encode_batch, header_length
from muster.events.segment import (
    Segment,
    create_segment,
    index_path,
    read_header,
    recover,
    save_index,
    segment_path,
    write_all,
)
from muster.files import DRAFTS

_logger = structlog.get_logger(__name__)

# The events of each partition since the last write: its number, and three parts for each event.
Gathered = list[tuple[int, list[bytes]]]

_MICROS_PER_SECOND = 1_000_000
# A smaller sync than this may run on the event loop: it costs less than handing it to a thread and
# back, and no peer notices a millisecond.
_QUICK_SECONDS = 0.001
# How much of the average the latest sync is: one hiccup of 30 ms moves us to the thread, and some
# 30 quick syncs there move us back.
_WEIGHT = 0.125
# Free space that must be there before a full disk is tried again: a segment's worth of small
# writes, so that we do not fail again at once, and the database finds room too.
_RESERVE_BYTES = 32 * 1024 * 1024
# A segment is also ended by age, this part of the retention: so retention by whole segments keeps
# things at most a 24th longer than asked.
_AGES_PER_RETENTION = 24


@dataclass(frozen=True, slots=True)
class JournalLimits:
    """When a segment ends and how much is kept.

    `segment_bytes`: 32 MiB is half a second of full load; large enough that ending one costs
    nothing, small enough to be read through after a crash in 50 ms (350 ms if every event was a
    batch of its own), and to be what retention throws away at a time.
    `total_bytes`: 10 GiB for a stream is a day of 600 events a second of 200 bytes; a disk that
    fills up stops everything else as well.
    """

    segment_bytes: int = 32 * 1024 * 1024
    total_bytes: int = 10 * 1024 * 1024 * 1024


class Written(NamedTuple):
    """A batch that is durable, with each partition's next number before it."""

    blob: bytes
    batch: Batch
    before: tuple[int, ...]


class Journal:
    """The segments of one stream, the last of them open for appending.

    `segments` is replaced, never changed, so that readers may hold on to one.
    """

    def __init__(
        self,
        directory: Path,
        *,
        segments: list[Segment],
        file: int,
        next_sequences: list[int],
        last_times: list[int],
        limits: JournalLimits,
        retention: int,
    ) -> None:
        self.segments = segments
        self.next_sequences = next_sequences
        self.last_times = last_times
        self.retention = retention
        self._directory = directory
        self._file = file
        self._limits = limits
        self._sync_seconds = 0.0

    @property
    def is_quick(self) -> bool:
        """Whether a write is likely to be over in a moment."""
        return self._sync_seconds < _QUICK_SECONDS

    def ends_segment(self, now: int) -> bool:
        """Whether the next write begins a new segment, which takes longer."""
        active = self.segments[-1]
        if active.is_empty:
            return False
        age = now - active.header.created
        is_old = age * _AGES_PER_RETENTION >= self.retention
        return is_old or active.end >= self._limits.segment_bytes

    def write(self, work: Sequence[Gathered], now: int) -> list[Written]:
        """Store *work* durably as one batch for each item, stamped *now* (or a little later).

        Raises `OSError`; then call `reopen` before the next write.
        """
        if self.ends_segment(now):
            self._begin_segment(now)
            self._drop(now)
        active = self.segments[-1]
        assert active.index is not None
        stamp = max(now, active.last_time)  # the clock may go back; stored times never do
        sequences = list(self.next_sequences)
        written = []
        for gathered in work:
            before = tuple(sequences)
            runs = [(partition, sequences[partition], parts) for partition, parts in gathered]
            blob, batch = encode_batch(active.header.salt, stamp, active.end, runs)
            for run in batch.runs:
                sequences[run.partition] += run.events
            written.append(Written(blob, batch, before))
        self._append([item.blob for item in written])
        for blob, batch, before in written:
            active.index.note(active.end, stamp, before)
            active.end += len(blob)
            for run in batch.runs:
                self.last_times[run.partition] = stamp
        active.last_time = stamp
        self.next_sequences = sequences
        return written

    def reopen(self, now: int) -> None:
        """Go on after a failed write, in a new segment. Raises `OSError` while that cannot be."""
        free = os.statvfs(self._directory)
        if free.f_bavail * free.f_frsize < _RESERVE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        active = self.segments[-1]
        if not active.is_empty:
            # Of no consequence if it fails: the new segment says what counts.
            with contextlib.suppress(OSError):
                os.truncate(active.path, active.end)
        self._begin_segment(now)

    def maintain(self, now: int) -> None:
        """Throw away what retention no longer keeps. Raises `OSError`, as `write` does."""
        active = self.segments[-1]
        if not active.is_empty and active.last_time < now - self.retention:
            self._begin_segment(now)
        self._drop(now)

    def seal(self, now: int) -> None:
        """End the last segment, so that the next start need not read it through.

        Raises `OSError`, and nothing is lost by that.
        """
        if not self.segments[-1].is_empty:
            self._begin_segment(now)

    def close(self) -> None:
        """Let the file go; everything written is durable already."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _append(self, blobs: list[bytes]) -> None:
        started = time.perf_counter()
        write_all(self._file, blobs[0] if len(blobs) == 1 else b"".join(blobs))
        os.fdatasync(self._file)
        taken = time.perf_counter() - started
        self._sync_seconds += _WEIGHT * (taken - self._sync_seconds)

    def _begin_segment(self, now: int) -> None:
        """End the last segment at its last durable byte and begin the next one."""
        last = self.segments[-1]
        # An empty one (its first write failed) is made again under its own number.
        again = last.is_empty
        file, segment = create_segment(
            self._directory,
            number=last.header.number + (not again),
            created=now,
            previous_length=last.header.previous_length if again else last.end,
            next_sequences=tuple(self.next_sequences),
            last_times=tuple(self.last_times),
        )
        self.close()
        self._file = file
        self.segments = [*(self.segments[:-1] if again else self.segments), segment]
        if not again and last.index is not None:
            save_index(last, last.index)

    def _drop(self, now: int) -> None:
        segments = self.segments
        total = sum(segment.end for segment in segments)
        drop = 0
        for segment in segments[:-1]:
            expired = segment.last_time < now - self.retention
            if not expired and total <= self._limits.total_bytes:
                break
            if not expired:
                _logger.warning(
                    "events dropped before their time: the stream is full",
                    stream=self._directory.name,
                    segment=segment.header.number,
                )
            total -= segment.end
            drop += 1
        # Gone for readers first, so that they do not open what is being removed.
        self.segments = segments[drop:]
        for segment in segments[:drop]:
            try:
                segment.path.unlink(missing_ok=True)
                index_path(segment.path).unlink(missing_ok=True)
            except OSError as error:
                # Tried again at the next start; no reason to stop writing.
                _logger.warning(
                    "an old segment stays", segment=segment.path.name, reason=str(error)
                )


def open_journal(
    directory: Path, partitions: int, now: int, limits: JournalLimits, retention: int
) -> Journal:
    """Open the journal in *directory*, which exists, recovering from any crash.

    Raises `Problem(UNAVAILABLE)` when the last segment cannot be trusted, `OSError` when the
    disk fails.
    """
    for draft in directory.glob(DRAFTS):
        draft.unlink()
    for index in directory.glob("*.index"):
        if not index.with_suffix(".log").exists():
            index.unlink()
    headers = _headers(directory, partitions)
    if not headers:
        file, segment = create_segment(
            directory,
            number=0,
            created=now,
            previous_length=0,
            next_sequences=(0,) * partitions,
            last_times=(-1,) * partitions,
        )
        return Journal(
            directory,
            segments=[segment],
            file=file,
            next_sequences=[0] * partitions,
            last_times=[-1] * partitions,
            limits=limits,
            retention=retention,
        )
    segments = [
        _sealed(directory, header, following) for header, following in itertools.pairwise(headers)
    ]
    path = segment_path(directory, headers[-1].number)
    recovered = recover(path, headers[-1])
    segments.append(recovered.segment)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        if recovered.cut and recovered.damage is None:
            _logger.warning(
                "torn end of the event log cut off", segment=str(path.name), bytes=recovered.cut
            )
            os.ftruncate(file, recovered.segment.end)
        # After a kill its last batches may be in memory only, and now they will be seen.
        os.fsync(file)
    except OSError:
        os.close(file)
        raise
    journal = Journal(
        directory,
        segments=segments,
        file=file,
        next_sequences=recovered.next_sequences,
        last_times=recovered.last_times,
        limits=limits,
        retention=retention,
    )
    if recovered.damage is not None:
        _report_damage(path, f"bad bytes at {recovered.damage}")
        journal._begin_segment(now)  # noqa: SLF001 - the same module
    journal._drop(now)  # noqa: SLF001 - the same module
    return journal


def _headers(directory: Path, partitions: int) -> list[SegmentHeader]:
    """Return the headers of the segments that can be used, oldest first, without a hole."""
    headers: list[SegmentHeader] = []
    paths = sorted(directory.glob("*.log"))
    for path in paths:
        try:
            header = read_header(path)
            if len(header.next_sequences) != partitions:
                raise Damaged("the segment has another number of partitions")  # noqa: TRY301 - one way out
        except Damaged as damage:
            if path is not paths[-1]:
                _report_damage(path, str(damage))
                _set_aside(directory, path)
                headers = []
            elif path.stat().st_size <= header_length(partitions):
                path.unlink()  # it was just being made: nothing was ever written to it
            else:
                raise Problem(
                    Kind.UNAVAILABLE,
                    f"event log segment {path.name} is damaged: {damage}; restore it from a "
                    "backup, or move it away to go on without its events",
                ) from damage
            continue
        if headers and header.number != headers[-1].number + 1:
            _report_damage(path, f"no segment {header.number - 1} before it")
            _set_aside(directory, segment_path(directory, headers[-1].number))
            headers = []
        headers.append(header)
    return headers


def _set_aside(directory: Path, newest: Path) -> None:
    for path in sorted(directory.glob("*.log")):
        if path.name <= newest.name:
            path.rename(path.with_suffix(".damaged"))


def _sealed(directory: Path, header: SegmentHeader, following: SegmentHeader) -> Segment:
    path = segment_path(directory, header.number)
    end = following.previous_length
    size = path.stat().st_size
    if size < end:
        _report_damage(path, f"{end - size} bytes are missing at its end")
    return Segment(path, header, end, max(following.last_times))


def _report_damage(path: Path, reason: str) -> None:
    _logger.error("the event log is damaged", segment=path.name, reason=reason)
