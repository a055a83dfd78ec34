"""What every event log promises, whatever it is made of.

Each test takes `open_log`, which opens the same log again and again; another implementation
joins by adding its opener to `OPENERS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from muster.errors import Kind, Problem
from muster.events.log import EmbeddedEventLog
from muster.ports.events import EventAppender, EventLog, EventStream, StoredEvent

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class TickingClock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.moment = START

    def now(self) -> datetime:
        """Return the moment it was set to."""
        return self.moment

    def monotonic(self) -> float:
        """Return the same, as seconds."""
        return self.moment.timestamp()


OpenLog = Callable[[], Awaitable[EventLog]]


async def open_embedded(directory: Path, clock: TickingClock) -> EventLog:
    """Open the embedded log."""
    return EmbeddedEventLog(directory / "events", clock=clock)


OPENERS = {"embedded": open_embedded}


@pytest.fixture
def clock() -> TickingClock:
    """The clock of the log under test."""
    return TickingClock()


@pytest.fixture(params=sorted(OPENERS))
async def open_log(
    request: pytest.FixtureRequest, tmp_path: Path, clock: TickingClock
) -> AsyncIterator[OpenLog]:
    """Closes the log, if it is open, and opens it again."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_again() -> EventLog:
            await stack.aclose()
            log = await OPENERS[request.param](tmp_path, clock)
            stack.push_async_callback(log.close)
            return log

        yield open_again


async def open_stream(log: EventLog, name: str = "hub") -> EventStream:
    """Open a stream of four partitions."""
    return await log.open_stream(name, partition_count=4, retention_days=1)


async def durable(stream: EventAppender) -> Problem | None:
    """Return what the stream says of everything appended so far."""
    answer: asyncio.Future[Problem | None] = asyncio.get_running_loop().create_future()
    stream.on_durable(answer.set_result)
    assert not answer.done()
    async with asyncio.timeout(10):
        return await answer


async def store(stream: EventAppender, partition: int, *payloads: bytes) -> None:
    """Append *payloads* as one turn and wait until they are durable."""
    for payload in payloads:
        stream.append(partition, b"envelope of " + payload, payload)
    assert await durable(stream) is None


def payloads(events: object) -> list[bytes]:
    """Return what was in *events*, after checking that numbers and envelopes belong to them."""
    assert isinstance(events, list | tuple)
    found: list[StoredEvent] = list(events)
    for one, next_one in itertools.pairwise(found):
        assert next_one.sequence_number == one.sequence_number + 1
        assert next_one.offset > one.offset
        assert next_one.enqueued >= one.enqueued
    assert [event.envelope for event in found] == [b"envelope of " + e.payload for e in found]
    return [event.payload for event in found]


async def test_events_come_back_in_order(open_log: OpenLog, clock: TickingClock) -> None:
    """Within a partition events keep their order, whole, and are numbered from 0 without gaps."""
    stream = await open_stream(await open_log())
    await store(stream, 1, b"a", b"", b"c" * 300_000)
    await store(stream, 3, b"other")
    await store(stream, 1, b"d")
    events = await stream.read(1, 0, 100)
    assert payloads(events) == [b"a", b"", b"c" * 300_000, b"d"]
    assert [event.sequence_number for event in events] == [0, 1, 2, 3]
    assert {event.enqueued for event in events} == {clock.moment}
    assert payloads(await stream.read(3, 0, 100)) == [b"other"]
    assert list(await stream.read(0, 0, 100)) == []


async def test_reading_starts_and_ends_where_it_is_told(open_log: OpenLog) -> None:
    """`start` is the first number wanted, `limit` the most events returned."""
    stream = await open_stream(await open_log())
    await store(stream, 0, *(b"%d" % n for n in range(10)))
    assert payloads(await stream.read(0, 4, 3)) == [b"4", b"5", b"6"]
    assert payloads(await stream.read(0, 9, 3)) == [b"9"]
    assert payloads(await stream.read(0, -5, 1)) == [b"0"]
    for start, limit in ((10, 5), (10_000, 5), (0, 0)):
        assert list(await stream.read(0, start, limit)) == []


async def test_a_restart_changes_nothing(open_log: OpenLog, clock: TickingClock) -> None:
    """After closing and opening, everything is there and numbering goes on."""
    stream = await open_stream(await open_log())
    await store(stream, 2, b"a", b"b")
    clock.moment += timedelta(minutes=1)
    stream = await open_stream(await open_log())
    before = await stream.read(2, 0, 10)
    assert payloads(before) == [b"a", b"b"]
    assert before[0].enqueued == START
    await store(stream, 2, b"c")
    events = await stream.read(2, 0, 10)
    assert payloads(events) == [b"a", b"b", b"c"]
    assert [event.sequence_number for event in events] == [0, 1, 2]
    assert events[2].enqueued == START + timedelta(minutes=1)


async def test_close_writes_what_waits(open_log: OpenLog) -> None:
    """What was appended when the log is closed is stored; later appends are refused."""
    log = await open_log()
    stream = await open_stream(log)
    answers: list[Problem | None] = []
    stream.append(0, b"envelope of a", b"a")
    stream.on_durable(answers.append)
    await log.close()
    await log.close()
    assert answers == [None]
    with pytest.raises(Problem) as caught:
        stream.append(0, b"", b"")
    assert caught.value.kind is Kind.UNAVAILABLE
    problem = await durable(stream)
    assert problem is not None
    assert problem.kind is Kind.UNAVAILABLE
    with pytest.raises(Problem):
        await open_stream(log)
    assert payloads(await (await open_stream(await open_log())).read(0, 0, 9)) == [b"a"]


async def test_only_durable_events_are_read(open_log: OpenLog) -> None:
    """An event is not seen before its callback could be called, and is seen from then on."""
    stream = await open_stream(await open_log())
    seen: list[int] = []
    stream.append(0, b"envelope of a", b"a")
    stream.on_durable(lambda _problem: seen.append(1))
    events = await stream.read(0, 0, 10)
    assert len(events) == len(seen) == 0
    assert await durable(stream) is None
    assert seen == [1]
    assert payloads(await stream.read(0, 0, 10)) == [b"a"]


async def test_on_durable_with_nothing_on_its_way(open_log: OpenLog) -> None:
    """Asking when everything is stored is answered too, later and from the loop."""
    stream = await open_stream(await open_log())
    assert await durable(stream) is None
    await store(stream, 0, b"a")
    assert await durable(stream) is None


async def test_a_failing_callback_keeps_nobody_from_its_answer(open_log: OpenLog) -> None:
    """One connection's bug does not leave the others without acknowledgement."""
    stream = await open_stream(await open_log())
    stream.append(0, b"envelope of a", b"a")
    stream.on_durable(lambda _problem: 1 // 0)
    assert await durable(stream) is None


async def test_wait_returns_when_there_is_something(open_log: OpenLog) -> None:
    """A consumer at the end is woken by the event it waits for, not by an earlier one."""
    stream = await open_stream(await open_log())
    waiting = asyncio.create_task(stream.wait(0, 2))
    await asyncio.sleep(0)
    await store(stream, 1, b"elsewhere")
    await store(stream, 0, b"a", b"b")
    await asyncio.sleep(0)
    assert not waiting.done()
    await store(stream, 0, b"c")
    async with asyncio.timeout(10):
        await waiting
        await stream.wait(0, 0)
    assert payloads(await stream.read(0, 2, 10)) == [b"c"]


async def test_a_cancelled_wait_is_forgotten(open_log: OpenLog) -> None:
    """A consumer that goes away leaves nothing behind that could fail later."""
    stream = await open_stream(await open_log())
    waiting = asyncio.create_task(stream.wait(0, 0))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await store(stream, 0, b"a")


async def test_close_ends_waiting(open_log: OpenLog) -> None:
    """Nobody waits for ever on a stream that is closed."""
    log = await open_log()
    waiting = asyncio.create_task((await open_stream(log)).wait(0, 0))
    await asyncio.sleep(0)
    await log.close()
    with pytest.raises(Problem) as caught:
        await waiting
    assert caught.value.kind is Kind.UNAVAILABLE


async def test_partition_info(open_log: OpenLog, clock: TickingClock) -> None:
    """The ends of a partition are known, also of an empty one, also after a restart."""
    stream = await open_stream(await open_log())
    empty = await stream.partition_info(2)
    assert (empty.partition, empty.first_sequence_number) == (2, 0)
    assert (empty.last_sequence_number, empty.last_enqueued) == (-1, None)
    await store(stream, 2, b"a", b"b")
    stored = clock.moment
    clock.moment += timedelta(seconds=5)
    await store(stream, 1, b"elsewhere")
    info = await stream.partition_info(2)
    assert (info.first_sequence_number, info.last_sequence_number) == (0, 1)
    assert info.last_offset == (await stream.read(2, 1, 1))[0].offset
    assert info.last_enqueued == stored
    assert await (await open_stream(await open_log())).partition_info(2) == info


async def test_sequence_number_at(open_log: OpenLog, clock: TickingClock) -> None:
    """A consumer can begin at a moment: at the first event stored then or later."""
    stream = await open_stream(await open_log())
    for number in range(3):
        await store(stream, 0, b"%d" % number)
        await store(stream, 1, b"x", b"y")
        clock.moment += timedelta(seconds=10)
    for is_again in (False, True):
        if is_again:
            stream = await open_stream(await open_log())
        for seconds, number in ((-5, 0), (0, 0), (1, 1), (10, 1), (20, 2), (20.000001, 3), (99, 3)):
            moment = START + timedelta(seconds=seconds)
            assert await stream.sequence_number_at(0, moment) == number
            assert await stream.sequence_number_at(1, moment) == 2 * number
        assert await stream.sequence_number_at(3, START) == 0


async def test_sequence_number_after(open_log: OpenLog) -> None:
    """A consumer's stored offset leads to the event after it."""
    stream = await open_stream(await open_log())
    await store(stream, 0, b"a", b"b", b"c")
    events = await stream.read(0, 0, 10)
    assert await stream.sequence_number_after(0, -1) == 0
    assert [await stream.sequence_number_after(0, event.offset) for event in events] == [1, 2, 3]
    assert await stream.sequence_number_after(0, events[2].offset + 10**12) == 3


async def test_a_clock_that_goes_back(open_log: OpenLog, clock: TickingClock) -> None:
    """Stored times never go back, in one run or over a restart, or seeking by time would fail."""
    stream = await open_stream(await open_log())
    await store(stream, 0, b"a")
    clock.moment -= timedelta(hours=1)
    await store(stream, 0, b"b")
    stream = await open_stream(await open_log())
    await store(stream, 0, b"c")
    events = await stream.read(0, 0, 10)
    assert payloads(events) == [b"a", b"b", b"c"]
    assert [event.enqueued for event in events] == [START] * 3


async def test_one_stream_for_one_name(open_log: OpenLog) -> None:
    """The same name gives the same object, also when two ask at once; others are apart."""
    log = await open_log()
    first, second = await asyncio.gather(open_stream(log), open_stream(log))
    assert first is second is await open_stream(log)
    other = await open_stream(log, "other")
    await store(first, 0, b"a")
    assert list(await other.read(0, 0, 10)) == []


async def test_the_partition_count_never_changes(open_log: OpenLog) -> None:
    """What a stream was made with counts, whatever is asked for later."""
    assert (await open_stream(await open_log())).partition_count == 4
    log = await open_log()
    stream = await log.open_stream("hub", partition_count=8, retention_days=2)
    assert stream.partition_count == 4


async def test_impossible_partitions_are_refused(open_log: OpenLog) -> None:
    """A partition that does not exist is refused, to write and to read."""
    stream = await open_stream(await open_log())
    for partition in (-1, 4):
        with pytest.raises(Problem) as caught:
            stream.append(partition, b"", b"")
        assert caught.value.kind is Kind.NOT_FOUND
        for ask in (
            stream.read(partition, 0, 1),
            stream.wait(partition, 0),
            stream.partition_info(partition),
            stream.sequence_number_at(partition, START),
            stream.sequence_number_after(partition, 0),
        ):
            with pytest.raises(Problem) as caught:
                await ask
            assert caught.value.kind is Kind.NOT_FOUND
    await store(stream, 0, b"a")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/a", "a\0", "ä", "-a", "a" * 129])
async def test_names_are_plain(open_log: OpenLog, name: str) -> None:
    """A name that could lead anywhere else is refused before it touches anything."""
    log = await open_log()
    with pytest.raises(Problem) as caught:
        await open_stream(log, name)
    assert caught.value.kind is Kind.MALFORMED
    with pytest.raises(Problem):
        await log.delete_stream(name)


@pytest.mark.parametrize(("partitions", "days"), [(0, 1), (-1, 1), (1000, 1), (4, 0), (4, 1000)])
async def test_impossible_streams_are_refused(
    open_log: OpenLog, partitions: int, days: int
) -> None:
    """A stream without partitions, or with too many, is not made."""
    log = await open_log()
    with pytest.raises(Problem) as caught:
        await log.open_stream("hub", partition_count=partitions, retention_days=days)
    assert caught.value.kind is Kind.MALFORMED


async def test_a_deleted_stream_is_forgotten(open_log: OpenLog) -> None:
    """Deleting removes everything; the name begins anew; deleting nothing is harmless."""
    log = await open_log()
    stream = await open_stream(log)
    await store(stream, 0, b"a")
    waiting = asyncio.create_task(stream.wait(0, 5))
    await asyncio.sleep(0)
    await log.delete_stream("hub")
    await log.delete_stream("hub")
    await log.delete_stream("never-made")
    with pytest.raises(Problem):
        await waiting
    with pytest.raises(Problem):
        stream.append(0, b"", b"")
    again = await log.open_stream("hub", partition_count=2, retention_days=1)
    assert again is not stream
    assert again.partition_count == 2
    assert list(await again.read(0, 0, 10)) == []
    await store(again, 0, b"b")
    log = await open_log()
    assert payloads(await (await open_stream(log)).read(0, 0, 10)) == [b"b"]


async def test_deleting_and_opening_at_once(open_log: OpenLog) -> None:
    """A stream that is opened while it is deleted is the old one or a new one, never half."""
    log = await open_log()
    for _ in range(10):
        await store(await open_stream(log), 0, b"a")
        results = await asyncio.gather(
            log.delete_stream("hub"), open_stream(log), log.delete_stream("hub"), open_stream(log)
        )
        assert results[0] is results[2] is None
        stream = await open_stream(log)
        await store(stream, 0, b"b")
        assert payloads(await stream.read(0, 0, 9))[-1] == b"b"
    count = (await stream.partition_info(0)).last_sequence_number
    stream = await open_stream(await open_log())
    assert (await stream.partition_info(0)).last_sequence_number == count


async def test_too_much_is_refused(open_log: OpenLog) -> None:
    """An event beyond the limit is refused; when too much waits, the rest is, and it recovers."""
    stream = await open_stream(await open_log())
    with pytest.raises(Problem) as caught:
        stream.append(0, b"", b"x" * 2_000_000)
    assert caught.value.kind is Kind.TOO_LARGE
    big = b"y" * 1_000_000
    taken = 0
    with pytest.raises(Problem) as caught:  # noqa: PT012 - the loop ends by the refusal
        while True:
            stream.append(0, b"", big)
            taken += 1
    assert caught.value.kind is Kind.UNAVAILABLE
    assert 10 < taken < 1000
    assert await durable(stream) is None
    await store(stream, 1, b"a")
    assert (await stream.partition_info(0)).last_sequence_number == taken - 1


async def test_readers_beside_a_writer(open_log: OpenLog) -> None:
    """Consumers that follow a writer at full speed see every event once, in order."""
    stream = await open_stream(await open_log())
    total = 4000

    async def write() -> None:
        for number in range(total):
            stream.append(number % 4, b"envelope of %d" % number, b"%d" % number)
            if number % 97 == 0:
                assert await durable(stream) is None

    async def follow(partition: int) -> list[bytes]:
        found: list[bytes] = []
        while len(found) < total // 4:
            await stream.wait(partition, len(found))
            found += payloads(await stream.read(partition, len(found), 37))
        return found

    async with asyncio.timeout(60):
        _, *found = await asyncio.gather(write(), *(follow(number) for number in range(4)))
    assert found == [[b"%d" % n for n in range(p, total, 4)] for p in range(4)]
