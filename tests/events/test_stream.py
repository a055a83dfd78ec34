"""The stream on the loop: one write for a turn, honest answers, and recovery by itself."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from muster.clock import SystemClock
from muster.errors import Kind, Problem
from muster.events import stream as stream_module
from muster.events.journal import Journal, JournalLimits
from muster.events.log import EmbeddedEventLog
from muster.events.stream import JournalStream


class MovingClock(SystemClock):
    """The machine's clock, ahead by what it is told."""

    ahead = timedelta()

    def now(self) -> Any:
        """Return the moment."""
        return super().now() + self.ahead


@pytest.fixture
def clock() -> MovingClock:
    """The clock of the stream under test."""
    return MovingClock()


@pytest.fixture
async def stream(tmp_path: Path, clock: MovingClock) -> AsyncIterator[JournalStream]:
    """A stream of two partitions with small segments."""
    limits = JournalLimits(segment_bytes=100_000)
    log = EmbeddedEventLog(tmp_path / "events", clock=clock, limits=limits)
    yield await log.open_stream("hub", partition_count=2, retention_days=1)
    await log.close()


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with each write of a journal, by how many batches it held."""
    seen: list[int] = []
    write = Journal.write

    def counted(self: Journal, work: Any, now: int) -> Any:
        seen.append(len(work))
        return write(self, work, now)

    monkeypatch.setattr(Journal, "write", counted)
    return seen


@pytest.fixture(params=["quick disk", "slow disk"])
def any_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test with writes on the loop, and again with all of them in a thread."""
    quick = request.param == "quick disk"
    monkeypatch.setattr(Journal, "is_quick", property(lambda _self: quick))


async def durable(stream: JournalStream) -> Problem | None:
    """Return what the stream says of everything appended so far."""
    answer: asyncio.Future[Problem | None] = asyncio.get_running_loop().create_future()
    stream.on_durable(answer.set_result)
    async with asyncio.timeout(10):
        return await answer


async def read_all(stream: JournalStream, partition: int = 0) -> list[bytes]:
    """Return every payload of *partition*."""
    return [event.payload for event in await stream.read(partition, 0, 1_000_000)]


async def recovered(stream: JournalStream) -> None:
    """Return once the stream takes events again."""
    async with asyncio.timeout(10):
        while True:
            try:
                stream.append(1, b"", b"probe")
            except Problem:
                await asyncio.sleep(0.01)
            else:
                assert await durable(stream) is None
                return


@pytest.mark.usefixtures("any_disk")
async def test_a_turn_is_one_write(stream: JournalStream, writes: list[int]) -> None:
    """A thousand events of one turn are one batch; everybody who asked hears of it."""
    answers: list[Problem | None] = []
    for number in range(1000):
        stream.append(number % 2, b"", b"%d" % number)
        stream.on_durable(answers.append)
    assert await durable(stream) is None
    assert answers == [None] * 1000
    assert writes == [1]


async def test_events_gather_while_a_write_is_under_way(
    stream: JournalStream, writes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a thread syncs, the events of many turns become one batch, and the loop is free."""
    monkeypatch.setattr(Journal, "is_quick", property(lambda _self: False))
    answers: list[int] = []
    for turn in range(50):
        stream.append(0, b"", b"%d" % turn)
        stream.on_durable(lambda _problem, turn=turn: answers.append(turn))
        await asyncio.sleep(0)
    assert await durable(stream) is None
    assert answers == list(range(50))
    assert len(writes) < 50
    assert await read_all(stream) == [b"%d" % turn for turn in range(50)]


async def test_a_slow_disk_leaves_the_loop(
    stream: JournalStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When syncs take long they move to a thread; when they are quick again they come back."""
    delay = 0.05
    sync = os.fdatasync
    threads: list[bool] = []

    def slow(file: int) -> None:
        try:
            asyncio.get_running_loop()
            threads.append(False)
        except RuntimeError:
            threads.append(True)
        if delay:
            import time

            time.sleep(delay)
        sync(file)

    monkeypatch.setattr(os, "fdatasync", slow)
    for _ in range(3):
        stream.append(0, b"", b"x")
        await durable(stream)
    assert threads == [False, True, True]
    delay = 0
    async with asyncio.timeout(20):
        while threads[-1]:
            stream.append(0, b"", b"x")
            await durable(stream)


@pytest.mark.usefixtures("any_disk")
async def test_a_failed_sync_is_never_acknowledged(stream: JournalStream, disk: Any) -> None:
    """Everything of the failed batch is reported as failed; later events are stored again."""
    stream.append(0, b"", b"before")
    assert await durable(stream) is None
    disk.sync_error = errno.EIO
    answers: list[Problem | None] = []
    with capture_logs() as logs:
        for _ in range(5):
            stream.append(0, b"", b"failed")
            stream.on_durable(answers.append)
        problem = await durable(stream)
    assert problem is not None
    assert all(answer is not None and answer.kind is Kind.UNAVAILABLE for answer in answers)
    assert len(answers) == 5
    assert [line["log_level"] for line in logs] == ["error"]
    # Until it is well again everything is refused, and nothing is called durable.
    with pytest.raises(Problem) as caught:
        stream.append(0, b"", b"refused")
    assert caught.value.kind is Kind.UNAVAILABLE
    assert await durable(stream) is not None
    disk.heal()
    await recovered(stream)
    stream.append(0, b"", b"after")
    assert await durable(stream) is None
    assert await read_all(stream) == [b"before", b"after"]


@pytest.mark.usefixtures("any_disk")
async def test_a_full_disk_comes_back_by_itself(
    stream: JournalStream, disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the disk is full every event is refused; with room again they are stored."""
    monkeypatch.setattr(stream_module, "_RETRY_SECONDS_MAX", 0.02)
    stream.append(0, b"", b"before")
    assert await durable(stream) is None
    disk.fill()
    with capture_logs():
        stream.append(0, b"", b"failed" * 100)
        assert await durable(stream) is not None
        for _ in range(20):
            with pytest.raises(Problem):
                stream.append(0, b"", b"refused")
            await asyncio.sleep(0.005)
        assert await read_all(stream) == [b"before"]
        disk.heal()
        await recovered(stream)
    stream.append(0, b"", b"after")
    assert await durable(stream) is None
    assert await read_all(stream) == [b"before", b"after"]


async def test_what_gathered_behind_a_failing_write_fails_too(
    stream: JournalStream, disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events behind a failed batch are not stored out of turn: their senders hear of it."""
    monkeypatch.setattr(Journal, "is_quick", property(lambda _self: False))
    disk.sync_error = errno.EIO
    with capture_logs():
        stream.append(0, b"", b"first")
        first = asyncio.create_task(durable(stream))
        await asyncio.sleep(0)  # the thread has the first batch now
        await asyncio.sleep(0)
        stream.append(0, b"", b"second")
        assert await durable(stream) is not None
        assert await first is not None
    disk.heal()
    await recovered(stream)
    assert await read_all(stream) == []


@pytest.mark.usefixtures("any_disk")
@pytest.mark.parametrize(
    "payloads",
    [
        [],
        [b""],
        [b"same"] * 100,
        [b"x" * length for length in range(100)],
        [b"large" * 20_000] * 50,  # beyond what a batch takes at once
    ],
    ids=["none", "empty", "alike", "of all lengths", "large"],
)
async def test_many_at_once_are_as_many_one_by_one(
    stream: JournalStream, payloads: list[bytes]
) -> None:
    """`append_all` stores the same events as `append`, in order, among those of others."""
    stream.append(0, b"a", b"before")
    stream.append_all(0, b"envelope", payloads)
    stream.append_all(1, b"other", payloads)
    stream.append(0, b"z", b"after")
    assert await durable(stream) is None
    expected = [(b"a", b"before"), *((b"envelope", one) for one in payloads), (b"z", b"after")]
    stored: list[Any] = []
    while events := await stream.read(0, len(stored), 1000):
        stored += events
    assert [(event.envelope, event.payload) for event in stored] == expected
    assert [event.sequence_number for event in stored] == list(range(len(expected)))


async def test_many_at_once_are_refused_as_one_is(stream: JournalStream) -> None:
    """An event that is too large, a partition that is not there, a stream that is closed."""
    with pytest.raises(Problem) as caught:
        stream.append_all(0, b"", [b"small", bytes(2 * 1024 * 1024)])
    assert caught.value.kind is Kind.TOO_LARGE
    with pytest.raises(Problem) as caught:
        stream.append_all(2, b"", [b"a", b"b"])
    assert caught.value.kind is Kind.NOT_FOUND
    assert await durable(stream) is None
    await stream.close()
    with pytest.raises(Problem) as caught:
        stream.append_all(0, b"", [b"a", b"b"])
    assert caught.value.kind is Kind.UNAVAILABLE


async def test_a_bug_in_what_is_appended_is_not_acknowledged(stream: JournalStream) -> None:
    """Something that is not bytes fails its batch; the stream goes on."""
    with capture_logs():
        stream.append(0, b"", "text")  # type: ignore[arg-type]  # the bug
        assert await durable(stream) is not None
        await recovered(stream)
    assert await read_all(stream, 1) == [b"probe"]


@pytest.mark.usefixtures("any_disk")
async def test_closing_a_failed_stream(stream: JournalStream, disk: Any) -> None:
    """A stream whose disk is gone can still be closed, at once."""
    disk.sync_error = errno.EIO
    with capture_logs():
        stream.append(0, b"", b"failed")
        answer = asyncio.create_task(durable(stream))
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await asyncio.gather(stream.close(), stream.close())
        assert await answer is not None


async def test_old_events_are_read_from_files(stream: JournalStream) -> None:
    """Consumers far behind get every event, over many segments, in the same order."""
    payloads = [b"%06d" % number * 300 for number in range(4000)]
    for number, payload in enumerate(payloads):
        stream.append(0, b"", payload)
        if number % 20 == 0:
            assert await durable(stream) is None
    assert await durable(stream) is None
    assert len(stream._journal.segments) > 20
    assert stream._tail.read(0, 0, 1) is None
    found: list[bytes] = []
    while events := await stream.read(0, len(found), 700):
        assert [event.sequence_number for event in events] == list(
            range(len(found), len(found) + len(events))
        )
        found += [event.payload for event in events]
    assert found == payloads


async def test_one_read_is_bounded(stream: JournalStream) -> None:
    """However many events are asked for, a read returns a few MiB, from memory or from files."""
    for _ in range(30):
        stream.append(0, b"", bytes(500_000))
        await durable(stream)
    for start in (0, 20):
        events = await stream.read(0, start, 1_000_000)
        assert 5 <= len(events) <= 12
        assert events[0].sequence_number == start


async def test_memory_is_bounded(stream: JournalStream) -> None:
    """What is kept in memory for consumers does not grow with what was written."""
    for _ in range(300):
        stream.append(0, b"", bytes(100_000))
        await durable(stream)
    held = sum(len(written.blob) for written in stream._tail._batches)
    assert held < 6 * 1024 * 1024
    assert held > 3 * 1024 * 1024


async def test_retention_overtakes_a_reader(stream: JournalStream, clock: MovingClock) -> None:
    """A reader whose segments are removed under it goes on at the oldest that is kept."""
    for number in range(8):
        stream.append(0, b"", b"%d" % number)
        await durable(stream)
        clock.ahead += timedelta(hours=6)
    stream._tail.clear()
    segments = stream._journal.segments
    events = await stream.read(0, 0, 100)
    first = events[0].sequence_number
    assert 0 < first < 7
    for path in [segment.path for segment in segments[:2]]:
        path.unlink()
    stream._journal.segments = segments  # a reader that holds the old list

    async def drop() -> None:
        stream._journal.segments = segments[2:]

    read = asyncio.create_task(stream.read(0, 0, 100))
    await drop()
    assert (await read)[0].sequence_number == first + 2


async def test_retention_needs_no_writer(stream: JournalStream, clock: MovingClock) -> None:
    """Events of a stream that nobody writes to expire all the same."""
    stream.append(0, b"", b"old")
    await durable(stream)
    clock.ahead = timedelta(days=2)
    stream._maintain()
    assert await durable(stream) is None
    assert await read_all(stream) == []
    info = await stream.partition_info(0)
    assert (info.first_sequence_number, info.last_sequence_number) == (1, 0)


async def test_too_many_waiters_are_refused(
    stream: JournalStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Consumers that wait are bounded."""
    monkeypatch.setattr(stream_module, "_WAITERS", 3)
    waiting = [asyncio.create_task(stream.wait(0, 0)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Problem) as caught:
        await stream.wait(0, 0)
    assert caught.value.kind is Kind.THROTTLED
    stream.append(0, b"", b"x")
    await asyncio.gather(*waiting)
    await stream.wait(0, 0)


async def test_files_that_cannot_be_read(stream: JournalStream) -> None:
    """A file that went away by other hands is told, not read over."""
    stream.append(0, b"", b"x")
    await durable(stream)
    stream._tail.clear()
    stream._journal.segments[0].path.unlink()
    with capture_logs(), pytest.raises(Problem) as caught:
        await stream.read(0, 0, 10)
    assert caught.value.kind is Kind.UNAVAILABLE
