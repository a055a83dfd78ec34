"""After any crash every acknowledged event is there, in order, and nothing torn is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from muster.errors import Kind, Problem
from muster.events.segment import (
    batches,
    create_segment,
    load_index,
    read_header,
    recover,
    segment_path,
)


def fill(bench: Any, count: int = 4) -> list[tuple[int, int]]:
    """Write *count* batches, alternating partitions; return where each begins and ends."""
    journal = bench.open()
    places = []
    for number in range(count):
        begin = journal.segments[-1].end
        bench.write(b"%d-a" % number, b"%d-b" % number, partition=number % 2)
        places.append((begin, journal.segments[-1].end))
    bench.drop()
    return places


def expected(batch_count: int, partition: int) -> list[bytes]:
    """Return the payloads of the first *batch_count* batches of `fill`."""
    return [
        b"%d-%s" % (number, letter)
        for number in range(batch_count)
        for letter in (b"a", b"b")
        if number % 2 == partition
    ]


def test_a_cut_anywhere_loses_only_what_was_torn(bench: Any) -> None:
    """Cut the file at every byte of the last two batches: whole batches stay, the rest is void."""
    places = fill(bench)
    path = segment_path(bench.directory, 0)
    whole = path.read_bytes()
    for cut in range(places[2][0], len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = sum(end <= cut for _begin, end in places)
        with capture_logs() as logs:
            bench.open()
        assert bool(logs) == (cut not in {end for _begin, end in places})
        assert [bench.read(0), bench.read(1)] == [expected(kept, 0), expected(kept, 1)]
        bench.write(b"next")
        assert bench.read(0) == [*expected(kept, 0), b"next"]
        bench.open()
        assert bench.read(0) == [*expected(kept, 0), b"next"]
        bench.drop()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tail=st.binary(max_size=300), zeros=st.integers(0, 5000))
def test_rubbish_at_the_end_is_cut_off(bench: Any, tail: bytes, zeros: int) -> None:
    """Whatever a torn write left behind the last batch, zeros included, is void."""
    for path in bench.directory.iterdir():
        path.unlink()
    fill(bench)
    with segment_path(bench.directory, 0).open("ab") as file:
        file.write(tail + bytes(zeros))
    with capture_logs():
        bench.open()
    assert [bench.read(0), bench.read(1)] == [expected(4, 0), expected(4, 1)]
    bench.write(b"next")
    bench.open()
    assert bench.read(0) == [*expected(4, 0), b"next"]


def test_a_flipped_byte_never_costs_other_batches(bench: Any) -> None:
    """Damage any byte of any batch: later acknowledged batches stay, and the loss is told."""
    places = fill(bench, 5)
    path = segment_path(bench.directory, 0)
    whole = path.read_bytes()
    for position in range(places[0][0], len(whole)):
        for leftover in bench.directory.iterdir():
            leftover.unlink()
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        hit = next(n for n, (begin, end) in enumerate(places) if begin <= position < end)
        with capture_logs() as logs:
            bench.open()
        if hit == 4:  # the last one cannot be told from a tear
            assert bench.read(0) == expected(4, 0)
            continue
        assert any(line["log_level"] == "error" for line in logs)
        damaged, sound = hit % 2, 1 - hit % 2
        first = 2 * (hit // 2)  # the damaged batch's first number in its partition
        with capture_logs(), pytest.raises(Problem, match="damaged") as caught:
            bench.read(damaged, first)
        assert caught.value.kind is Kind.UNAVAILABLE
        if first:
            assert bench.read(damaged) == expected(hit, damaged)
        # New events go on after the old ones, never under a number that was used.
        bench.write(b"next", partition=damaged)
        assert bench.journal is not None
        assert bench.journal.next_sequences[damaged] > len(expected(5, damaged))
        assert bench.journal.next_sequences[sound] >= len(expected(5, sound))
        assert bench.read(damaged, bench.journal.next_sequences[damaged] - 1) == [b"next"]


def test_what_a_device_sends_cannot_pass_for_a_batch(bench: Any) -> None:
    """A payload that is a whole batch of another segment is a payload and nothing more."""
    bench.open()
    blob = bench.write(b"inner")[0].blob
    bench.write(blob, blob + blob)
    last = bench.journal.segments[-1].end
    bench.drop()
    path = segment_path(bench.directory, 0)
    data = path.read_bytes()
    path.write_bytes(data[: last - 10])
    with capture_logs():
        bench.open()
    assert bench.read(0) == [b"inner"]


def test_a_header_that_was_being_written_is_nothing(bench: Any) -> None:
    """A crash while a segment is made leaves the one before as the last, whole."""
    fill(bench)
    _file, segment = create_segment(
        bench.directory,
        number=1,
        created=0,
        previous_length=10_000,
        next_sequences=(0, 0),
        last_times=(0, 0),
    )
    header = segment.path.read_bytes()
    for cut in range(len(header)):
        segment.path.write_bytes(header[:cut])
        bench.open()
        assert bench.files("*.log") == [segment_path(bench.directory, 0).name]
        assert bench.read(0) == expected(4, 0)
        bench.drop()


def test_a_damaged_last_header_is_not_guessed(bench: Any) -> None:
    """Where the numbering cannot be known the stream is not opened, and nothing is changed."""
    fill(bench)
    path = segment_path(bench.directory, 0)
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    with pytest.raises(Problem) as caught:
        bench.open()
    assert caught.value.kind is Kind.UNAVAILABLE
    assert path.read_bytes() == data


def test_batches_longer_than_a_chunk(bench: Any) -> None:
    """Reading does not depend on how batches fall on the pieces that are read."""
    bench.open()
    sizes = [10, 700_000, 10, 524_288, 600_000, 1, 1_000_000]
    for number, size in enumerate(sizes):
        bench.write(bytes([number]) * size)
    assert bench.read() == [bytes([number]) * size for number, size in enumerate(sizes)]
    segment = bench.journal.segments[-1]
    assert len(list(batches(segment, segment.header.length, segment.end))) == len(sizes)


@pytest.mark.parametrize("state", ["kept", "missing", "damaged", "foreign"])
def test_an_index_can_always_be_made_again(bench: Any, state: str) -> None:
    """A sidecar that is missing or wrong costs a scan; what is read is the same."""
    bench.open()
    for number in range(30):
        bench.write(bytes([number]) * 50_000)
    path = segment_path(bench.directory, 0)
    sidecar = path.with_suffix(".index")
    bench.now += 3_600_000_000 * 2
    bench.write(b"in the next segment")
    wanted = sidecar.read_bytes()
    if state == "missing":
        sidecar.unlink()
    elif state == "damaged":
        sidecar.write_bytes(wanted[:-1] + b"x")
    elif state == "foreign":
        sidecar.write_bytes(b"")
    bench.open()
    assert bench.read(0, 17)[0] == bytes([17]) * 50_000
    assert sidecar.read_bytes() == wanted
    sealed = bench.journal.segments[0]
    assert load_index(sealed).encode(sealed.end, 2) == wanted


def test_recover_changes_nothing(bench: Any) -> None:
    """Looking at a segment, whole or torn, leaves it as it was."""
    fill(bench)
    path = segment_path(bench.directory, 0)
    path.write_bytes(path.read_bytes()[:-3])
    before = path.read_bytes()
    found = recover(path, read_header(path))
    assert path.read_bytes() == before
    assert found.damage is None
    assert found.cut > 0
    assert found.next_sequences == [4, 2]
