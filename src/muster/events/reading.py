"""Reading a stream's segments, off the event loop. Sees what was durable when it began."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import structlog

from muster.errors import Kind, Problem
from muster.events.format import Damaged, decode_events
from muster.events.index import Index
from muster.events.segment import Segment, batches, load_index
from muster.ports.events import StoredEvent

_logger = structlog.get_logger(__name__)

# One read returns no more than about this much, however many events were asked for: what a
# consumer of Event Hubs prefetches (300 events) at the size devices really send, and a bound for
# those who send 256 KiB each.
READ_BYTES = 4 * 1024 * 1024


def read_events(
    segments: Sequence[Segment], partition: int, start: int, limit: int
) -> list[StoredEvent]:
    """Return up to *limit* events of *partition* from *start* on, or from the oldest kept.

    Raises `Problem(UNAVAILABLE)` that names the events which cannot be read, `FileNotFoundError`
    when retention was quicker, `OSError` when the disk fails.
    """
    start = max(start, segments[0].header.next_sequences[partition])
    # The last segment that begins at or before it; later ones for what this one lacks.
    first = bisect_right(segments, start, key=lambda s: s.header.next_sequences[partition]) - 1
    events: list[StoredEvent] = []
    size, wanted = 0, start
    for segment in segments[first:]:
        if segment.is_empty:
            continue
        entry = _index(segment).before_sequence(partition, wanted)
        position = entry.position if entry else segment.header.length
        try:
            for at, data, begin, batch in batches(segment, position, segment.end):
                position = at
                for run in batch.runs:
                    if run.partition != partition or run.first_sequence + run.events <= wanted:
                        continue
                    if run.first_sequence > wanted:
                        raise Damaged("events are missing before it")  # noqa: TRY301 - one way out
                    left = limit - len(events)
                    events += decode_events(data, begin, batch, run, first=wanted, limit=left)
                    wanted = events[-1].sequence_number + 1
                    size += run.end - run.start
                position = at + batch.length
                if len(events) >= limit or size >= READ_BYTES:
                    return events
        except Damaged as damage:
            if events:
                break  # the next read begins at the damage and is told
            raise _unreadable(segments, segment, position, partition, wanted) from damage
    return events


def find_time(segments: Sequence[Segment], partition: int, moment: int) -> int:
    """Return the first sequence number of *partition* stored at or after *moment*.

    When there is none, the one after the last of these segments. Raises as `read_events`.
    """
    number = bisect_left(segments, moment, key=lambda s: s.last_time)
    if number == len(segments):
        number -= 1
    segment = segments[number]
    entry = _index(segment).before_time(moment)
    position = entry.position if entry else segment.header.length
    start = (entry.next_sequences if entry else segment.header.next_sequences)[partition]
    try:
        for at, _data, _begin, batch in batches(segment, position, segment.end):
            if batch.time >= moment:
                return start
            position = at + batch.length
            for run in batch.runs:
                if run.partition == partition:
                    start = run.first_sequence + run.events
    except Damaged as damage:
        raise _unreadable(segments, segment, position, partition, start) from damage
    if number + 1 < len(segments):
        return segments[number + 1].header.next_sequences[partition]
    return start


def _index(segment: Segment) -> Index:
    if segment.index is None:
        segment.index = load_index(segment)
    return segment.index


def _unreadable(
    segments: Sequence[Segment], segment: Segment, position: int, partition: int, wanted: int
) -> Problem:
    """Say which events are lost to the damage at *position*; the first readable may be sooner."""
    _logger.error("the event log is damaged", segment=segment.path.name, position=position)
    entry = _index(segment).after_position(position)
    following = segments[segments.index(segment) + 1 :]
    if entry is not None:
        last = f"{max(entry.next_sequences[partition] - 1, wanted)}"
    elif following:
        last = f"{following[0].header.next_sequences[partition] - 1}"
    else:
        last = "the newest"
    return Problem(
        Kind.UNAVAILABLE,
        f"events {wanted} to {last} of partition {partition} are damaged and cannot be read; "
        "later ones can",
    )
