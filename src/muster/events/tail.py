"""The newest batches of a stream, in memory: consumers that keep up never touch the disk."""

from __future__ import annotations

from bisect import bisect_right

from muster.events.format import decode_events
from muster.events.journal import Written
from muster.events.reading import READ_BYTES
from muster.ports.events import StoredEvent

# What a batch costs beyond its bytes, roughly: its description and its place in the list.
_BATCH_COST = 800


class Tail:
    """The last *capacity* bytes of a stream, whole batches only."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._batches: list[Written] = []
        self._size = 0

    def add(self, written: Written) -> None:
        """Take the newest batch; forget the oldest beyond the capacity."""
        self._batches.append(written)
        self._size += len(written.blob) + _BATCH_COST
        # In strides: taking from the front of a list moves all the rest.
        if self._size > self._capacity + self._capacity // 4:
            drop = 0
            while self._size > self._capacity and drop < len(self._batches):
                self._size -= len(self._batches[drop].blob) + _BATCH_COST
                drop += 1
            del self._batches[:drop]

    def read(self, partition: int, start: int, limit: int) -> list[StoredEvent] | None:
        """Return up to *limit* events of *partition* from *start* on, or None if not all here."""
        kept = self._batches
        first = bisect_right(kept, start, key=lambda w: w.before[partition]) - 1
        if first < 0:
            return None
        events: list[StoredEvent] = []
        size = 0
        for number in range(first, len(kept)):
            blob, batch, _before = kept[number]
            for run in batch.runs:
                if run.partition == partition and run.first_sequence + run.events > start:
                    wanted = limit - len(events)
                    events += decode_events(blob, 0, batch, run, first=start, limit=wanted)
                    size += run.end - run.start
            if len(events) >= limit or size >= READ_BYTES:
                break
        return events

    def clear(self) -> None:
        """Forget everything."""
        self._batches.clear()
        self._size = 0
