"""One stream on the event loop: gathers a turn's events, has them written, tells who waits.

What is appended during a turn of the event loop is written when the turn is over, as one batch
with one fdatasync; on the loop itself while the disk answers at once, in a thread when it does
not or when a segment ends, and then the next batch gathers meanwhile.

After a failed write the stream refuses events until a new segment could be made, which is tried
by itself every few seconds. Nothing that was refused or reported as failed is acknowledged
later; it may still be read later, as a duplicate of what its sender sends again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from datetime import datetime
from enum import Enum
from functools import partial
from typing import TypeVar

import structlog

from muster.clock import Clock
from muster.errors import Kind, Problem
from muster.events.format import (
    BATCH_BYTES,
    MAX_EVENT_BYTES,
    RECORD_HEADER_BYTES,
    from_micros,
    pack_record_header,
    to_micros,
)
from muster.events.journal import Gathered, Journal, Written
from muster.events.reading import find_time, read_events
from muster.events.segment import Segment
from muster.events.tail import Tail
from muster.ports.events import PartitionInfo, StoredEvent

T = TypeVar("T")

_logger = structlog.get_logger(__name__)

# Events that may wait to be written. At the 50 MB/s of a poor disk that is a second or so.
_PENDING_BYTES = 64 * 1024 * 1024
# Events kept in memory for consumers that keep up: many seconds of one hub's telemetry.
_TAIL_BYTES = 4 * 1024 * 1024
# Consumers that may wait for new events: one for each partition of each of 20 consumer groups,
# ten times over.
_WAITERS = 8192
# Reads from files that may wait for a thread.
_READS = 256
# How long to leave a failing disk alone: doubled each time up to the second (targets.md: normal
# within 5 s).
_RETRY_SECONDS = 0.5
_RETRY_SECONDS_MAX = 4.0
# How often retention looks at a stream that nobody writes to.
_MAINTAIN_SECONDS = 300.0
_MICROS_PER_DAY = 86_400 * 1_000_000

DurableCallback = Callable[[Problem | None], None]


class _State(Enum):
    OPEN = "open"
    FAILED = "failed"
    CLOSING = "closing"
    CLOSED = "closed"


class JournalStream:
    """The `EventStream` port on a journal. Used from the event loop it was made on."""

    def __init__(
        self, journal: Journal, *, clock: Clock, writers: Executor, readers: Executor
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._journal = journal
        self._clock = clock
        self._writers = writers
        self._readers = readers
        self._state = _State.OPEN
        self._partitions = len(journal.next_sequences)
        # What readers may know: durable, and the writer has said so.
        self._next = tuple(journal.next_sequences)
        self._last_times = tuple(journal.last_times)
        self._tail = Tail(_TAIL_BYTES)
        # The parts of this turn's events by partition, and batches that are full already.
        self._runs: dict[int, list[bytes]] = {number: [] for number in range(self._partitions)}
        self._run_bytes = 0
        self._full: list[Gathered] = []
        self._room = _PENDING_BYTES  # negative while nothing may be appended
        self._flush_is_due = False
        self._callbacks: list[DurableCallback] = []
        # While a thread has the journal.
        self._is_busy = False
        self._busy_callbacks: list[DurableCallback] = []
        self._idle_waiters: list[asyncio.Future[None]] = []
        self._waiters: dict[int, dict[asyncio.Future[None], int]] = {
            number: {} for number in range(self._partitions)
        }
        self._waiting = 0
        self._reads = 0
        self._retry_seconds = _RETRY_SECONDS
        self._timer = self._loop.call_later(_MAINTAIN_SECONDS, self._maintain)

    @property
    def partition_count(self) -> int:
        """How many partitions the stream was made with."""
        return self._partitions

    def keep_for(self, days: int) -> None:
        """Change for how many days events are kept."""
        self._journal.retention = days * _MICROS_PER_DAY

    # Writing.

    def append(self, partition: int, envelope: bytes, payload: bytes) -> None:
        """Take an event for *partition*; written with all others of this event-loop turn.

        Never blocks. Raises `Problem(UNAVAILABLE)` when the stream is closed, its disk is full
        or failed, or too much waits to be written; `Problem(TOO_LARGE)` for an event beyond
        `MAX_EVENT_BYTES`; `Problem(NOT_FOUND)` when there is no such partition.
        """
        size = len(envelope) + len(payload) + RECORD_HEADER_BYTES
        if size > self._room or size > MAX_EVENT_BYTES:
            raise self._refusal(size)
        try:
            run = self._runs[partition]
        except KeyError:
            raise self._no_partition(partition) from None
        run += (pack_record_header(len(envelope), len(payload)), envelope, payload)
        self._take_note(size)

    def append_all(self, partition: int, envelope: bytes, payloads: Sequence[bytes]) -> None:
        """Take an event for each of *payloads*, in order: `append` for many at once.

        Raises what `append` does; then those before the one that was refused may be taken.
        """
        sizes = list(map(len, payloads))
        count, head = len(sizes), len(envelope)
        size = sum(sizes) + count * (head + RECORD_HEADER_BYTES)
        # More than one event may have is too much for a batch to take at once, too.
        if size > self._room or size > MAX_EVENT_BYTES or partition not in self._runs or not count:
            for payload in payloads:
                self.append(partition, envelope, payload)
            return
        # Filled by columns, so that nothing is done in Python for each of many alike.
        block = [pack_record_header(head, sizes[0]), envelope, b""] * count
        block[2::3] = payloads
        if sizes.count(sizes[0]) != count:
            block[::3] = [pack_record_header(head, one) for one in sizes]
        self._runs[partition] += block
        self._take_note(size)

    def on_durable(self, callback: DurableCallback) -> None:
        """Call *callback* once all that was appended so far survives `kill -9` and power loss.

        Call it in the turn of the appends it is to answer for: about an earlier turn's events
        that failed already it would not know.
        """
        if self._run_bytes or self._full:
            self._callbacks.append(callback)
        elif self._is_busy and self._state is not _State.FAILED:
            self._busy_callbacks.append(callback)
        elif self._state is _State.OPEN:
            self._loop.call_soon(callback, None)
        else:
            self._loop.call_soon(callback, self._refusal(0))

    def _take_note(self, size: int) -> None:
        self._room -= size
        self._run_bytes += size
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)
        if self._run_bytes >= BATCH_BYTES:
            self._end_batch()

    def _refusal(self, size: int) -> Problem:
        if size > MAX_EVENT_BYTES:
            return Problem(Kind.TOO_LARGE, f"an event has at most {MAX_EVENT_BYTES} bytes")
        if self._state in {_State.CLOSING, _State.CLOSED}:
            return Problem(Kind.UNAVAILABLE, "the event stream is closed")
        if self._state is _State.FAILED:
            return Problem(
                Kind.UNAVAILABLE,
                "the event stream cannot be written",
                retry_after=_RETRY_SECONDS_MAX,
            )
        return Problem(Kind.UNAVAILABLE, "too many events wait to be written", retry_after=1)

    def _no_partition(self, partition: int) -> Problem:
        return Problem(
            Kind.NOT_FOUND,
            f"there is no partition {partition}: they are 0 to {self._partitions - 1}",
        )

    def _end_batch(self) -> None:
        gathered: Gathered = []
        for partition, run in self._runs.items():
            if run:
                gathered.append((partition, run))
                self._runs[partition] = []
        self._full.append(gathered)
        self._run_bytes = 0

    def _flush(self) -> None:
        self._flush_is_due = False
        if self._is_busy:
            return  # whoever has the journal calls again
        if self._run_bytes:
            self._end_batch()
        if not self._full:
            return
        work, self._full = self._full, []
        callbacks, self._callbacks = self._callbacks, []
        now = to_micros(self._clock.now())
        journal = self._journal
        if len(work) == 1 and journal.is_quick and not journal.ends_segment(now):
            try:
                written = journal.write(work, now)
            except Exception as error:  # noqa: BLE001 - whatever it is, nothing of this is durable
                self._fail(error, callbacks)
            else:
                self._settle(written, callbacks)
        else:
            self._busy_callbacks = callbacks
            self._start(partial(journal.write, work, now), self._settle_busy)

    def _start(self, job: Callable[[], T], done: Callable[[T], None]) -> None:
        """Have a thread run *job* on the journal, then *done* here; one at a time."""
        self._is_busy = True

        def finished(future: asyncio.Future[T]) -> None:
            self._is_busy = False
            error = future.exception()
            if error is None:
                done(future.result())
            else:
                callbacks, self._busy_callbacks = self._busy_callbacks, []
                self._fail(error, callbacks)
            self._flush()
            if not self._is_busy:
                for waiter in self._idle_waiters:
                    if not waiter.done():
                        waiter.set_result(None)
                self._idle_waiters.clear()

        self._loop.run_in_executor(self._writers, job).add_done_callback(finished)

    def _settle_busy(self, written: Sequence[Written]) -> None:
        callbacks, self._busy_callbacks = self._busy_callbacks, []
        self._settle(written, callbacks)

    def _settle(self, written: Sequence[Written], callbacks: list[DurableCallback]) -> None:
        for item in written:
            self._tail.add(item)
            if self._state is _State.OPEN:  # else the room stays shut
                self._room += sum(run.end - run.start for run in item.batch.runs)
        self._next = tuple(self._journal.next_sequences)
        self._last_times = tuple(self._journal.last_times)
        _call(callbacks, None)
        if self._waiting:
            self._wake()

    def _fail(self, error: BaseException, callbacks: list[DurableCallback]) -> None:
        """Refuse everything from the failed write on, and go on by ourselves when it can be."""
        _logger.error("the event stream cannot be written", reason=str(error), exc_info=error)
        if self._run_bytes:
            self._end_batch()
        self._full.clear()
        callbacks += self._callbacks
        self._callbacks = []
        if self._state is _State.OPEN:
            self._state = _State.FAILED
        self._room = -1
        if self._state is _State.FAILED:
            self._timer.cancel()
            self._timer = self._loop.call_later(self._retry_seconds, self._reopen)
            self._retry_seconds = min(2 * self._retry_seconds, _RETRY_SECONDS_MAX)
        _call(callbacks, self._refusal(0))

    def _reopen(self) -> None:
        now = to_micros(self._clock.now())
        self._start(partial(self._journal.reopen, now), self._reopened)

    def _reopened(self, _result: None) -> None:
        _logger.info("the event stream can be written again")
        self._retry_seconds = _RETRY_SECONDS
        if self._state is _State.FAILED:
            self._state = _State.OPEN
            self._room = _PENDING_BYTES
            self._timer = self._loop.call_later(_MAINTAIN_SECONDS, self._maintain)

    def _maintain(self) -> None:
        if self._state is not _State.OPEN:
            return
        self._timer = self._loop.call_later(_MAINTAIN_SECONDS, self._maintain)
        if not self._is_busy:
            now = to_micros(self._clock.now())
            self._start(partial(self._journal.maintain, now), lambda _none: self._settle_busy(()))

    async def close(self) -> None:
        """Write out what waits, then let go of the files. Idempotent."""
        was_open = self._state is _State.OPEN
        if self._state in {_State.OPEN, _State.FAILED}:
            self._state = _State.CLOSING
            self._room = -1
            self._timer.cancel()
            self._flush()
        await self._idle()
        if was_open:
            now = to_micros(self._clock.now())
            self._start(partial(self._journal.seal, now), lambda _none: None)
            await self._idle()
        if self._state is not _State.CLOSED:
            self._state = _State.CLOSED
            self._journal.close()
            self._tail.clear()
            for waiters in self._waiters.values():
                for waiter in waiters:
                    if not waiter.done():
                        waiter.set_exception(self._refusal(0))

    async def _idle(self) -> None:
        while self._is_busy:
            idle = self._loop.create_future()
            self._idle_waiters.append(idle)
            await idle

    # Reading.

    async def read(self, partition: int, start: int, limit: int) -> Sequence[StoredEvent]:
        """Return up to *limit* events whose sequence number is at least *start*, in order.

        A *start* older than what retention kept begins at the oldest kept. Empty at the end.
        Fewer than *limit* when they are large. Raises `Problem(UNAVAILABLE)` when the disk
        fails or the events are damaged, `Problem(NOT_FOUND)` when there is no such partition.
        """
        self._refuse_reading(partition)
        start = max(start, self._first(partition))
        if limit < 1 or start >= self._next[partition]:
            return []
        events = self._tail.read(partition, start, limit)
        if events is not None:
            return events
        return await self._from_files(
            lambda segments: read_events(segments, partition, start, limit)
        )

    async def wait(self, partition: int, start: int) -> None:
        """Return once an event with a sequence number of at least *start* can be read.

        Raises `Problem(UNAVAILABLE)` when the stream is closed first.
        """
        self._refuse_reading(partition)
        if start < self._next[partition]:
            return
        if self._waiting >= _WAITERS:
            raise Problem(Kind.THROTTLED, "too many consumers wait for events", retry_after=1)
        waiter = self._loop.create_future()
        self._waiters[partition][waiter] = start
        self._waiting += 1
        try:
            await waiter
        finally:
            del self._waiters[partition][waiter]
            self._waiting -= 1

    async def partition_info(self, partition: int) -> PartitionInfo:
        """Return where *partition* begins and ends now."""
        self._refuse_reading(partition)
        last, moment = self._next[partition] - 1, self._last_times[partition]
        return PartitionInfo(
            partition=partition,
            first_sequence_number=self._first(partition),
            last_sequence_number=last,
            last_offset=last,
            last_enqueued=None if moment < 0 else from_micros(moment),
        )

    async def sequence_number_at(self, partition: int, moment: datetime) -> int:
        """Return the first sequence number stored at or after *moment* (or the next to come)."""
        self._refuse_reading(partition)
        micros = to_micros(moment)
        if micros > self._last_times[partition]:
            return self._next[partition]
        return await self._from_files(lambda segments: find_time(segments, partition, micros))

    async def sequence_number_after(self, partition: int, offset: int) -> int:
        """Return the first sequence number whose offset is greater than *offset*.

        Offsets are sequence numbers here, so that none is ever used again.
        """
        self._refuse_reading(partition)
        return min(max(offset + 1, 0), self._next[partition])

    def _first(self, partition: int) -> int:
        return self._journal.segments[0].header.next_sequences[partition]

    def _refuse_reading(self, partition: int) -> None:
        if self._state is _State.CLOSED:
            raise self._refusal(0)
        if partition not in self._waiters:
            raise self._no_partition(partition)

    async def _from_files(self, query: Callable[[Sequence[Segment]], T]) -> T:
        if self._reads >= _READS:
            raise Problem(Kind.THROTTLED, "too many reads of old events wait", retry_after=1)
        self._reads += 1
        try:
            while True:
                segments = self._journal.segments
                try:
                    return await self._loop.run_in_executor(self._readers, query, segments)
                except FileNotFoundError as error:
                    if segments is self._journal.segments:
                        raise self._cannot_read(error) from error
                except OSError as error:
                    raise self._cannot_read(error) from error
        finally:
            self._reads -= 1

    def _cannot_read(self, error: OSError) -> Problem:
        _logger.error("stored events cannot be read", reason=str(error))
        return Problem(Kind.UNAVAILABLE, "stored events cannot be read now", retry_after=5)

    def _wake(self) -> None:
        for partition, waiters in self._waiters.items():
            for waiter, start in waiters.items():
                if start < self._next[partition] and not waiter.done():
                    waiter.set_result(None)


def _call(callbacks: list[DurableCallback], problem: Problem | None) -> None:
    for callback in callbacks:
        try:
            callback(problem)
        except Exception:
            _logger.exception("a durability callback failed")
