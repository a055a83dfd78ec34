r"""How the event log lies on disk. Pure: bytes and numbers in and out.

A stream is one journal: a directory of segment files that are written one after the other, all
partitions interleaved, so that one fdatasync makes a whole event-loop turn durable. All numbers
are little-endian; times are microseconds since 1970 UTC.

Segment, `NNNNNNNNNNNNNNNN.log`, from its first byte:

    header   "MUSTRLOG"  8   magic
             version     u16 1
             partitions  u16 how many the stream has; never changes
             number      u64 of this segment, one more than its predecessor's
             created     i64
             previous    u64 length of the predecessor that was durable; what it has beyond is void
             salt        8   random; opens every batch, so that no payload can pass for a batch
             for each partition:
               next      u64 sequence number of its first event from here on
               last      i64 when its last event before this segment was stored, -1 for none
             crc         u32 CRC-32 of the header up to here
    batches  until the end

Batch: what was written at one go.

    salt     8
    crc      u32 CRC-32 of the batch from the next field on
    length   u32 of the whole batch
    runs     u16 how many partitions have events here
    zero     u16
    time     i64 when its events were stored; never before an earlier batch's
    settled  u64 how much of this file was durable before this batch was written
    then for each partition with events, ascending:
      partition u16, zero u16, events u32, length u32 of their records, first u64 sequence number
      then for each event:
        envelope length u32, payload length u32, envelope, payload

Decoding is strict: a length that does not add up, a sequence number out of turn or a checksum
that differs is `Damaged`, never a guess.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from muster.ports.events import StoredEvent

_MAGIC = b"MUSTRLOG"
_VERSION = 1
SALT_BYTES = 8
# IoT Hub goes up to 128 partitions on dedicated tiers; 32 is what anybody can order.
MAX_PARTITIONS = 128
# One event, envelope and payload together. IoT Hub takes 256 KiB from a device; the envelope holds
# its properties again and a few of the hub's own.
MAX_EVENT_BYTES = 1024 * 1024
# A batch that has reached this is written without waiting for more: bounds what a reader must
# have in memory to check it.
BATCH_BYTES = 4 * 1024 * 1024
MAX_BATCH_BYTES = BATCH_BYTES + MAX_EVENT_BYTES + 64 * 1024

_HEADER = struct.Struct(f"<8sHHQqQ{SALT_BYTES}s")
_START = struct.Struct("<Qq")
_CRC = struct.Struct("<I")
_BATCH = struct.Struct("<IHHqQ")  # from the length on: what the checksum covers begins here
_OPENING = struct.Struct(f"<{SALT_BYTES}sII")  # salt, checksum and the length again
_RUN = struct.Struct("<HHIIQ")
_RECORD = struct.Struct("<II")
_COVERED = SALT_BYTES + _CRC.size
BATCH_HEADER_BYTES = _COVERED + _BATCH.size
RECORD_HEADER_BYTES = _RECORD.size

# The hot path calls this once for each event.
pack_record_header = _RECORD.pack

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Damaged(Exception):  # noqa: N818 - what the bytes are
    """The bytes are not what was written; the text says what gave them away."""


def to_micros(moment: datetime) -> int:
    """Return *moment*, which is aware, as whole microseconds since 1970 UTC."""
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def from_micros(micros: int) -> datetime:
    """Return the moment *micros* microseconds after 1970 began, in UTC."""
    return _EPOCH + timedelta(microseconds=micros)


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What a segment says of itself and of all that came before it."""

    number: int
    created: int
    previous_length: int
    salt: bytes
    next_sequences: tuple[int, ...]
    last_times: tuple[int, ...]

    @property
    def length(self) -> int:
        """The number of bytes before the first batch."""
        return header_length(len(self.next_sequences))


class Run(NamedTuple):
    """The events of one partition in a batch; `start` and `end` are positions in the batch."""

    partition: int
    first_sequence: int
    events: int
    start: int
    end: int


class Batch(NamedTuple):
    """What is known of a batch without looking at its events."""

    length: int
    time: int
    settled: int
    runs: tuple[Run, ...]


def header_length(partitions: int) -> int:
    """Return the length of a segment's header."""
    return _HEADER.size + partitions * _START.size + _CRC.size


def encode_header(header: SegmentHeader) -> bytes:
    """Return *header* as it opens a segment."""
    fixed = _HEADER.pack(
        _MAGIC,
        _VERSION,
        len(header.next_sequences),
        header.number,
        header.created,
        header.previous_length,
        header.salt,
    )
    starts = zip(header.next_sequences, header.last_times, strict=True)
    body = fixed + b"".join(_START.pack(*start) for start in starts)
    return body + _CRC.pack(zlib.crc32(body))


def decode_header(data: bytes) -> SegmentHeader:
    """Return the header that *data* begins with; raises `Damaged`."""
    if len(data) < _HEADER.size:
        raise Damaged("the header is cut short")
    magic, version, partitions, number, created, previous, salt = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise Damaged("this is no segment")
    if version != _VERSION:
        raise Damaged(f"segment version {version} is not known")
    if not 1 <= partitions <= MAX_PARTITIONS:
        raise Damaged(f"{partitions} partitions are impossible")
    length = header_length(partitions)
    if len(data) < length:
        raise Damaged("the header is cut short")
    if zlib.crc32(data[: length - _CRC.size]) != _CRC.unpack_from(data, length - _CRC.size)[0]:
        raise Damaged("the header's checksum differs")
    starts = list(_START.iter_unpack(data[_HEADER.size : length - _CRC.size]))
    return SegmentHeader(
        number,
        created,
        previous,
        salt,
        tuple(start[0] for start in starts),
        tuple(start[1] for start in starts),
    )


def encode_batch(
    salt: bytes, time: int, settled: int, runs: Sequence[tuple[int, int, Sequence[bytes]]]
) -> tuple[bytes, Batch]:
    """Return a batch, as bytes and described.

    Each of *runs* is a partition, its first sequence number, and for each event its record
    header (`pack_record_header`), its envelope and its payload, one after the other. At most
    one run for a partition, ascending.
    """
    pieces: list[bytes] = []
    described = []
    position = BATCH_HEADER_BYTES
    for partition, first, parts in runs:
        body = b"".join(parts)
        count = len(parts) // 3
        pieces += (_RUN.pack(partition, 0, count, len(body), first), body)
        start = position + _RUN.size
        position = start + len(body)
        described.append(Run(partition, first, count, start, position))
    fixed = _BATCH.pack(position, len(runs), 0, time, settled)
    crc = zlib.crc32(fixed)
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    blob = b"".join((salt, _CRC.pack(crc), fixed, *pieces))
    return blob, Batch(position, time, settled, tuple(described))


def batch_length(data: bytes, at: int, salt: bytes) -> int | None:
    """Return how long the batch at *at* says it is, or None when more bytes are needed to tell.

    Raises `Damaged` when no batch can begin like this.
    """
    if len(data) - at < BATCH_HEADER_BYTES:
        return None
    found, _crc, length = _OPENING.unpack_from(data, at)
    if found != salt:
        raise Damaged("no batch begins here")
    if not BATCH_HEADER_BYTES < length <= MAX_BATCH_BYTES:
        raise Damaged(f"a batch of {length} bytes is impossible")
    return int(length)


def decode_batch(data: bytes, at: int, salt: bytes, partitions: int) -> Batch:
    """Return what the batch at *at* says; raises `Damaged`, also when it is cut short."""
    length = batch_length(data, at, salt)
    if length is None or len(data) - at < length:
        raise Damaged("the batch is cut short")
    crc = _CRC.unpack_from(data, at + SALT_BYTES)[0]
    if zlib.crc32(memoryview(data)[at + _COVERED : at + length]) != crc:
        raise Damaged("the batch's checksum differs")
    _length, count, zero, time, settled = _BATCH.unpack_from(data, at + _COVERED)
    if zero:
        raise Damaged("a batch field that must be zero is not")
    runs = []
    position, previous = BATCH_HEADER_BYTES, -1
    for _ in range(count):
        if length - position < _RUN.size:
            raise Damaged("the batch ends within a run")
        partition, zero, events, size, first = _RUN.unpack_from(data, at + position)
        start = position + _RUN.size
        position = start + size
        if zero or not events or not previous < partition < partitions or position > length:
            raise Damaged("a run of the batch does not add up")
        previous = partition
        runs.append(Run(partition, first, events, start, position))
    if position != length or not runs:
        raise Damaged("the batch's runs do not add up")
    return Batch(length, time, settled, tuple(runs))


def decode_events(
    data: bytes, at: int, batch: Batch, run: Run, *, first: int, limit: int
) -> list[StoredEvent]:
    """Return up to *limit* events of *run*, from sequence number *first* on.

    *batch* lies at *at* in *data*. Raises `Damaged` when its records do not add up.
    """
    events: list[StoredEvent] = []
    enqueued = from_micros(batch.time)
    position, end = at + run.start, at + run.end
    for number in range(run.first_sequence, run.first_sequence + run.events):
        if end - position < _RECORD.size:
            raise Damaged("a run ends within a record")
        envelope_size, payload_size = _RECORD.unpack_from(data, position)
        envelope = position + _RECORD.size
        payload = envelope + envelope_size
        position = payload + payload_size
        if position > end:
            raise Damaged("a record reaches beyond its run")
        if number >= first:
            if len(events) == limit:
                return events
            events.append(
                StoredEvent(
                    number, number, enqueued, data[envelope:payload], data[payload:position]
                )
            )
    if position != end:
        raise Damaged("a run's records do not add up")
    return events
