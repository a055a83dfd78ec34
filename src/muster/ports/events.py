"""The event stream of a hub: append durably, read by position.

Event Hubs semantics: a stream has a fixed number of partitions; within one, events carry
sequence numbers 0, 1, 2 … without gaps, an offset that only grows, and the time they were
stored. Ordered per partition. An event is durable when the callback given to `on_durable` has
been called with None, and not before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from muster.errors import Problem


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event as it lies in a partition. `envelope` is the writer's own encoding."""

    sequence_number: int
    offset: int
    enqueued: datetime
    envelope: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """The ends of a partition. An empty one has `last_sequence_number` -1."""

    partition: int
    first_sequence_number: int
    last_sequence_number: int
    last_offset: int
    last_enqueued: datetime | None


class EventAppender(Protocol):
    """The writing end of one stream."""

    @property
    def partition_count(self) -> int:
        """How many partitions the stream was made with."""
        ...

    def append(self, partition: int, envelope: bytes, payload: bytes) -> None:
        """Take an event for *partition*; written with all others of this event-loop turn.

        Never blocks. Raises `Problem(UNAVAILABLE)` when the stream is closed, its disk is full
        or failed, or more than a bounded amount waits to be written.
        """
        ...

    def append_all(self, partition: int, envelope: bytes, payloads: Sequence[bytes]) -> None:
        """Take an event for each of *payloads*, in order: `append` for many at once.

        Raises what `append` does; then those before the one that was refused may be taken.
        """
        ...

    def on_durable(self, callback: Callable[[Problem | None], None]) -> None:
        """Call *callback* once all that was appended so far survives `kill -9` and power loss.

        With None when it does; with a `Problem` when it is not known to, and then none of
        that batch may be acknowledged. Called from the event loop, never from inside this call.
        Ask in the turn of the appends it is to answer for: it does not know of events that
        failed before it was asked.
        """
        ...


class EventReader(Protocol):
    """The reading end of one stream. Sees only what is durable."""

    @property
    def partition_count(self) -> int:
        """How many partitions the stream was made with."""
        ...

    async def read(self, partition: int, start: int, limit: int) -> Sequence[StoredEvent]:
        """Return up to *limit* events whose sequence number is at least *start*, in order.

        A *start* older than what retention kept begins at the oldest kept. Empty at the end.
        """
        ...

    async def wait(self, partition: int, start: int) -> None:
        """Return once an event with a sequence number of at least *start* can be read."""
        ...

    async def partition_info(self, partition: int) -> PartitionInfo:
        """Return where *partition* begins and ends now."""
        ...

    async def sequence_number_at(self, partition: int, moment: datetime) -> int:
        """Return the first sequence number stored at or after *moment* (or the next to come)."""
        ...

    async def sequence_number_after(self, partition: int, offset: int) -> int:
        """Return the first sequence number whose offset is greater than *offset*.

        The first of all for -1; the next to come for an offset at or beyond the last.
        """
        ...


class EventStream(EventAppender, EventReader, Protocol):
    """Both ends of one stream."""


class EventLog(Protocol):
    """All streams."""

    async def open_stream(
        self, name: str, *, partition_count: int, retention_days: int
    ) -> EventStream:
        """Return the stream *name*, made on first use; the same object for the same name.

        *partition_count* counts only when it is made: a stream never changes it.
        """
        ...

    async def delete_stream(self, name: str) -> None:
        """Forget the stream *name* and everything in it. Harmless when there is none."""
        ...

    async def close(self) -> None:
        """Write out what waits, then close every stream."""
        ...
