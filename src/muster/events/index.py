"""Where to begin reading in a segment: one entry for every so many bytes.

The index of a sealed segment is kept beside it, `NNNNNNNNNNNNNNNN.index`, and can be made again
from the segment at any time; a damaged or missing one costs a scan and nothing else.

    "MUSTRIDX" 8, version u16 = 1, partitions u16, entries u32, segment length u64,
    for each entry: position u64, time i64, for each partition its next sequence number u64,
    crc u32 of all before
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from muster.events.format import Damaged

_MAGIC = b"MUSTRIDX"
_VERSION = 1
_HEADER = struct.Struct("<8sHHIQ")
_CRC = struct.Struct("<I")
# An entry for each 256 KiB: reading and checking that much takes under a millisecond, and a
# segment of 32 MiB has 128 entries.
INTERVAL = 256 * 1024


class Entry(NamedTuple):
    """A batch: where it lies, when it was stored, and what each partition's next number was."""

    position: int
    time: int
    next_sequences: tuple[int, ...]


class Index:
    """The entries of one segment, in order. Only ever grows, so readers need no lock."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Sequence[Entry] = ()) -> None:
        self._entries = list(entries)

    def note(self, position: int, time: int, next_sequences: Sequence[int]) -> None:
        """Take the batch at *position* into account; every so often it becomes an entry."""
        if not self._entries or position - self._entries[-1].position >= INTERVAL:
            self._entries.append(Entry(position, time, tuple(next_sequences)))

    def before_sequence(self, partition: int, sequence: int) -> Entry | None:
        """Return the last entry that has no event of *partition* from *sequence* on before it."""
        found = bisect_right(self._entries, sequence, key=lambda e: e.next_sequences[partition])
        return self._entries[found - 1] if found else None

    def before_time(self, moment: int) -> Entry | None:
        """Return the last entry that lies before every batch stored at or after *moment*."""
        found = bisect_left(self._entries, moment, key=lambda e: e.time)
        return self._entries[max(found - 1, 0)] if self._entries else None

    def after_position(self, position: int) -> Entry | None:
        """Return the first entry beyond *position*."""
        found = bisect_right(self._entries, position, key=lambda e: e.position)
        return self._entries[found] if found < len(self._entries) else None

    def encode(self, segment_length: int, partitions: int) -> bytes:
        """Return the index file of a segment of that length."""
        entry = struct.Struct(f"<Qq{partitions}Q")
        head = _HEADER.pack(_MAGIC, _VERSION, partitions, len(self._entries), segment_length)
        body = head + b"".join(entry.pack(e.position, e.time, *e[2]) for e in self._entries)
        return body + _CRC.pack(zlib.crc32(body))

    @classmethod
    def decode(cls, data: bytes, segment_length: int, partitions: int) -> Index:
        """Return the index that *data* holds of that very segment; raises `Damaged`."""
        entry = struct.Struct(f"<Qq{partitions}Q")
        if len(data) < _HEADER.size + _CRC.size:
            raise Damaged("the index is cut short")
        body = data[: -_CRC.size]
        if zlib.crc32(body) != _CRC.unpack_from(data, len(body))[0]:
            raise Damaged("the index's checksum differs")
        head = _HEADER.unpack_from(body)
        count = head[3]
        if head != (_MAGIC, _VERSION, partitions, count, segment_length):
            raise Damaged("the index is of another segment")
        if len(body) != _HEADER.size + count * entry.size:
            raise Damaged("the index does not add up")
        rows = entry.iter_unpack(body[_HEADER.size :])
        return cls([Entry(row[0], row[1], row[2:]) for row in rows])
