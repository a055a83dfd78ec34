"""What is written comes back; what was changed since is never taken for it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.events.format import (
    Damaged,
    SegmentHeader,
    batch_length,
    decode_batch,
    decode_events,
    decode_header,
    encode_batch,
    encode_header,
    from_micros,
    pack_record_header,
    to_micros,
)
from muster.events.index import INTERVAL, Index

SALT = b"saltsalt"
HEADER = SegmentHeader(7, 1_000, 2_000, SALT, (0, 5, 2**63), (-1, 10, 20))

Events = dict[int, list[tuple[bytes, bytes]]]
EVENTS: st.SearchStrategy[Events] = st.dictionaries(
    st.integers(0, 3),
    st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=40)), min_size=1, max_size=5),
    min_size=1,
)


def encode(events: Events, first: int = 10) -> bytes:
    """Return a batch of *events*, by partition, each numbered from *first*."""
    runs = []
    for partition in sorted(events):
        parts: list[bytes] = []
        for envelope, payload in events[partition]:
            parts += (pack_record_header(len(envelope), len(payload)), envelope, payload)
        runs.append((partition, first, parts))
    return encode_batch(SALT, 5_000, 64, runs)[0]


def decode(data: bytes, at: int = 0) -> Events:
    """Return every event of the batch at *at*."""
    batch = decode_batch(data, at, SALT, 4)
    assert (batch.time, batch.settled) == (5_000, 64)
    found: Events = {}
    for run in batch.runs:
        events = decode_events(data, at, batch, run, first=0, limit=1000)
        assert [e.sequence_number for e in events] == list(range(10, 10 + len(events)))
        found[run.partition] = [(event.envelope, event.payload) for event in events]
    return found


@given(EVENTS, st.binary(max_size=20), st.binary(max_size=20))
def test_batches_round_trip(events: Events, before: bytes, after: bytes) -> None:
    """Every event comes back, wherever its batch lies."""
    data = encode(events)
    assert decode(before + data + after, len(before)) == events
    assert batch_length(before + data, len(before), SALT) == len(data)
    described = encode_batch(SALT, 1, 2, [(1, 3, [pack_record_header(0, 1), b"", b"x"])])
    assert decode_batch(described[0], 0, SALT, 4) == described[1]


@given(EVENTS, st.data())
def test_any_changed_byte_is_noticed(events: Events, data: st.DataObject) -> None:
    """Flipping any bits of any byte of a batch makes it `Damaged`."""
    blob = bytearray(encode(events))
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Damaged):
        decode_batch(bytes(blob), 0, SALT, 4)


@given(EVENTS, st.data())
def test_any_cut_is_noticed(events: Events, data: st.DataObject) -> None:
    """A batch that lacks any of its end is `Damaged`, never a shorter batch."""
    blob = encode(events)
    with pytest.raises(Damaged):
        decode_batch(blob[: data.draw(st.integers(0, len(blob) - 1))], 0, SALT, 4)


@given(st.binary(max_size=200))
def test_decoders_are_total(data: bytes) -> None:
    """Whatever bytes are given, a decoder says `Damaged` and nothing else."""
    for candidate in (data, SALT + data, b"MUSTRLOG\1\0" + data):
        with pytest.raises(Damaged):
            decode_batch(candidate, 0, SALT, 4)
        with pytest.raises(Damaged):
            decode_header(candidate)
        with pytest.raises(Damaged):
            Index.decode(candidate, 1, 4)


def test_a_partition_that_is_not_there_is_damage() -> None:
    """A batch of a stream with more partitions does not fit this one."""
    blob = encode({3: [(b"", b"x")]})
    decode_batch(blob, 0, SALT, 4)
    with pytest.raises(Damaged):
        decode_batch(blob, 0, SALT, 3)


def test_header_round_trip_and_damage() -> None:
    """A header comes back; changed or cut anywhere it is `Damaged`."""
    data = encode_header(HEADER)
    assert decode_header(data) == decode_header(data + b"more") == HEADER
    assert len(data) == HEADER.length
    for position in range(len(data)):
        with pytest.raises(Damaged):
            decode_header(data[:position])
        with pytest.raises(Damaged):
            decode_header(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])


def test_index_round_trip_and_damage() -> None:
    """An index comes back; changed, cut or of another segment it is `Damaged`."""
    index = Index()
    for number in range(10):
        index.note(100 + number * INTERVAL // 2, number, (number, 2 * number))
    data = index.encode(5_000, 2)
    again = Index.decode(data, 5_000, 2)
    assert again.encode(5_000, 2) == data
    for position in range(len(data)):
        with pytest.raises(Damaged):
            Index.decode(data[:position], 5_000, 2)
        with pytest.raises(Damaged):
            Index.decode(
                data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :], 5_000, 2
            )
    for length, partitions in ((4_999, 2), (5_000, 3)):
        with pytest.raises(Damaged):
            Index.decode(data, length, partitions)


def test_index_look_ups() -> None:
    """Each look-up returns the last entry that skips nothing wanted."""
    index = Index()
    assert index.before_sequence(0, 5) is index.before_time(5) is index.after_position(5) is None
    for number in range(5):
        index.note(number * INTERVAL, 10 * number, (100 * number, 0))
    index.note(4 * INTERVAL + 1, 99, (999, 9))  # too close to be an entry
    found = [index.before_sequence(0, sequence) for sequence in (0, 99, 100, 250, 9999)]
    assert [entry and entry.position // INTERVAL for entry in found] == [0, 0, 1, 2, 4]
    assert index.before_sequence(0, -1) is None
    assert index.before_sequence(1, 0) == index.before_sequence(0, 400)
    found = [index.before_time(moment) for moment in (0, 5, 10, 11, 99)]
    assert [entry and entry.position // INTERVAL for entry in found] == [0, 0, 0, 1, 4]
    found = [index.after_position(position) for position in (-1, 0, INTERVAL - 1, 9 * INTERVAL)]
    assert [entry and entry.position // INTERVAL for entry in found] == [0, 1, 1, None]


@given(st.datetimes(timezones=st.just(UTC)))
def test_moments_round_trip(moment: datetime) -> None:
    """A moment comes back to the microsecond."""
    assert from_micros(to_micros(moment)) == moment
