"""The journal rolls, forgets, fails and recovers without losing what it said was stored."""

from __future__ import annotations

import errno
import os
import shutil
from typing import Any

import pytest
from structlog.testing import capture_logs

from muster.errors import Kind, Problem
from muster.events.journal import JournalLimits
from muster.events.reading import find_time
from muster.events.segment import segment_path

HOUR = 3_600_000_000
DAY = 24 * HOUR


def test_segments_end_by_size(bench: Any) -> None:
    """A full segment is followed by another; reading and numbering do not notice."""
    bench.limits = JournalLimits(segment_bytes=2_000)
    bench.open()
    payloads = [bytes([number]) * 300 for number in range(40)]
    for payload in payloads:
        bench.write(payload)
    assert len(bench.files("*.log")) > 5
    assert len(bench.files("*.index")) == len(bench.files("*.log")) - 1
    for start in range(40):
        assert bench.read(0, start) == payloads[start:]
    bench.open()
    assert bench.read() == payloads
    bench.write(b"next")
    assert bench.read() == [*payloads, b"next"]


def test_segments_end_by_age(bench: Any) -> None:
    """A slow stream still ends its segments, so that retention can throw them away."""
    bench.open()
    for _ in range(50):
        bench.write(b"x")
        bench.now += HOUR
    # Kept for a day, in segments of an hour: never more than 25 of them and the last.
    assert 24 <= len(bench.files("*.log")) <= 26
    assert bench.journal.segments[0].header.next_sequences[0] == 50 - len(bench.read())


def test_retention_by_time(bench: Any) -> None:
    """What is older than the retention is gone, from the front; numbers go on."""
    bench.open()
    for number in range(6):
        bench.write(b"%d" % number)
        bench.now += 8 * HOUR
    bench.journal.maintain(bench.now)
    assert bench.read() == [b"3", b"4", b"5"]
    assert bench.read(0, 4) == [b"4", b"5"]
    bench.now += 3 * DAY
    bench.journal.maintain(bench.now)
    assert bench.read() == []
    assert len(bench.files()) == 1
    bench.write(b"6")
    assert bench.journal.next_sequences == [7, 0]
    bench.open()
    assert bench.read() == [b"6"]
    assert bench.journal.last_times[0] == bench.now


def test_retention_at_the_start(bench: Any) -> None:
    """What expired while the program was off is gone after its start."""
    bench.open()
    bench.write(b"old")
    bench.now += 2 * HOUR
    bench.write(b"new")
    bench.now += 23 * HOUR
    bench.open()
    assert bench.read() == [b"new"]


def test_retention_by_size(bench: Any) -> None:
    """Beyond the total the oldest segments go before their time, and that is logged."""
    bench.limits = JournalLimits(segment_bytes=2_000, total_bytes=10_000)
    bench.open()
    with capture_logs() as logs:
        for number in range(100):
            bench.write(b"%03d" % number + bytes(300))
    assert sum(path.stat().st_size for path in bench.directory.glob("*.log")) <= 12_500
    kept = [int(payload[:3]) for payload in bench.read()]
    assert kept == list(range(kept[0], 100))
    assert len(kept) > 15
    assert {line["event"] for line in logs} == {
        "events dropped before their time: the stream is full"
    }


def test_times_lead_to_numbers(bench: Any) -> None:
    """Seeking by time works over many segments and within one, for every partition."""
    bench.limits = JournalLimits(segment_bytes=3_000)
    bench.open()
    began = bench.now
    for number in range(60):
        bench.write(bytes(300), partition=number % 2)
        bench.now += 1_000
    segments = bench.journal.segments
    for number in range(60):
        moment = began + 1_000 * number
        assert find_time(segments, 0, moment) == (number + 1) // 2
        assert find_time(segments, 1, moment) == number // 2
        assert find_time(segments, 0, moment - 1) == (number + 1) // 2
    assert find_time(segments, 0, bench.now) == 30


@pytest.mark.parametrize("what", ["sync", "write"])
@pytest.mark.parametrize("before", [0, 3])
def test_a_failed_write_is_never_stored(bench: Any, disk: Any, what: str, before: int) -> None:
    """After a failure the old file is left alone; a new segment goes on without the batch."""
    bench.open()
    for number in range(before):
        bench.write(b"%d" % number)
    if what == "sync":
        disk.sync_error = errno.EIO
    else:
        disk.write_error = errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        bench.write(b"failed" * 10)
    disk.heal()
    bench.journal.reopen(bench.now)
    bench.write(b"again")
    wanted = [*(b"%d" % number for number in range(before)), b"again"]
    assert bench.read() == wanted
    bench.open()
    assert bench.read() == wanted
    # A first segment without a batch was made anew; another is sealed where it was whole.
    assert len(bench.files("*.log")) == (2 if before else 1)


def test_what_a_failed_write_left_is_void(bench: Any, disk: Any, monkeypatch: Any) -> None:
    """Even when the torn bytes cannot be cut off they never come back."""

    def no_truncate(*_arguments: object) -> None:
        raise OSError(errno.EIO, "no")

    bench.open()
    bench.write(b"a")
    disk.sync_error = errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        bench.write(b"failed")
    disk.heal()
    monkeypatch.setattr(os, "truncate", no_truncate)
    bench.journal.reopen(bench.now)
    bench.write(b"b")
    assert segment_path(bench.directory, 0).read_bytes().endswith(b"failed")
    assert bench.read() == [b"a", b"b"]
    bench.open()
    assert bench.read() == [b"a", b"b"]


def test_a_full_disk_is_not_tried_before_there_is_room(bench: Any, disk: Any) -> None:
    """While it is full nothing is made, however often it is tried; then one segment is."""
    bench.open()
    bench.write(b"a")
    disk.fill()
    with pytest.raises(OSError, match="No space"):
        bench.write(b"failed" * 10)
    before = bench.files()
    for _ in range(5):
        with pytest.raises(OSError, match="No space"):
            bench.journal.reopen(bench.now)
    assert bench.files() == before
    disk.heal()
    bench.journal.reopen(bench.now)
    bench.write(b"b")
    assert bench.read() == [b"a", b"b"]


def test_a_segment_that_cannot_be_made_leaves_nothing(bench: Any, disk: Any) -> None:
    """When a roll fails, what was stored can be read, and the next attempt goes on."""
    bench.limits = JournalLimits(segment_bytes=100)
    bench.open()
    bench.write(b"a" * 100)
    disk.write_error = errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        bench.write(b"b")
    assert len(bench.files("*.log")) == 1
    assert bench.read() == [b"a" * 100]
    disk.heal()
    bench.journal.reopen(bench.now)
    bench.write(b"b")
    assert bench.read() == [b"a" * 100, b"b"]


@pytest.mark.parametrize("damage", ["missing", "header", "partitions", "renamed"])
def test_a_lost_segment_is_set_aside_with_all_before(bench: Any, damage: str) -> None:
    """A hole in the middle is logged, never read over, and nothing is thrown away."""
    bench.open()
    for number in range(5):
        bench.write(b"%d" % number)
        bench.now += 2 * HOUR
    bench.drop()
    path = segment_path(bench.directory, 2)
    if damage == "missing":
        path.unlink()
    elif damage == "header":
        path.write_bytes(b"x" + path.read_bytes()[1:])
    elif damage == "partitions":
        other = bench.directory.parent / "other"
        other.mkdir()
        shutil.copy(segment_path(bench.directory, 1), path)
    else:
        path.rename(segment_path(bench.directory, 0).with_name("zzzz.log"))
    with capture_logs() as logs:
        if damage == "renamed":
            with pytest.raises(Problem) as caught:
                bench.open()
            assert caught.value.kind is Kind.UNAVAILABLE
            return
        bench.open()
    assert any(line["log_level"] == "error" for line in logs)
    assert bench.read() == [b"3", b"4"]
    assert len(bench.files("*.damaged")) == (2 if damage == "missing" else 3)
    bench.write(b"5")
    assert bench.journal.next_sequences[0] == 6
    bench.open()
    assert bench.read() == [b"3", b"4", b"5"]


def test_a_sealed_segment_that_is_too_short_is_told(bench: Any) -> None:
    """Bytes missing from the middle of the log are logged at once and told to who reads there."""
    bench.open()
    for number in range(3):
        bench.write(b"%d" % number, b"%d" % number)
        bench.now += 2 * HOUR
    bench.drop()
    path = segment_path(bench.directory, 1)
    path.write_bytes(path.read_bytes()[:-4])
    with capture_logs() as logs:
        bench.open()
    assert any("missing" in line.get("reason", "") for line in logs)
    assert bench.read() == [b"0", b"0"]
    with capture_logs(), pytest.raises(Problem, match="events 2 to 3 of partition 0"):
        bench.read(0, 2)
    assert bench.read(0, 4) == [b"2", b"2"]


def test_leftovers_are_removed(bench: Any) -> None:
    """Drafts and orphaned indexes of a crash do not stay for ever."""
    bench.open()
    bench.write(b"a")
    (bench.directory / "0000000000000009.index").touch()
    (bench.directory / ".0000000000000000.index.0a.draft").touch()
    bench.open()
    assert bench.files() == ["0000000000000000.log"]
    assert bench.read() == [b"a"]
