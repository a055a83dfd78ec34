"""Every committed notice reaches the bus, in order, whatever fails on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
from structlog.testing import capture_logs

from muster.bus import dispatcher as dispatcher_module
from muster.bus.dispatcher import NoticeDispatcher
from muster.bus.local import LocalBus
from muster.errors import Kind, Problem
from muster.model.notice import Notice
from muster.ports.outbox import PendingNotice


class MemoryOutbox:
    """An outbox in memory that can be told to fail."""

    def __init__(self) -> None:
        self.entries: dict[int, Notice] = {}
        self.next_id = 1
        self.wake: Callable[[], None] = lambda: None
        self.failures: list[str] = []
        self.empty = asyncio.Event()

    def on_pending(self, callback: Callable[[], None]) -> None:
        """Remember the one callback."""
        self.wake = callback

    def commit(self, *subjects: str) -> None:
        """Store a notice for each subject, as one commit."""
        for subject in subjects:
            self.entries[self.next_id] = Notice("topic", subject)
            self.next_id += 1
        self.empty.clear()
        self.wake()

    def fail(self, what: str) -> None:
        """Raise when *what* is the next failure planned."""
        if self.failures and self.failures[0] == what:
            self.failures.pop(0)
            raise Problem(Kind.UNAVAILABLE, f"cannot {what}")

    async def pending(self, limit: int) -> Sequence[PendingNotice]:
        """Return the oldest."""
        self.fail("pending")
        return [PendingNotice(n, self.entries[n]) for n in sorted(self.entries)[:limit]]

    async def done(self, ids: Sequence[int]) -> None:
        """Forget them."""
        self.fail("done")
        for number in ids:
            self.entries.pop(number, None)
        if not self.entries:
            self.empty.set()


class Bench:
    """A dispatcher between a memory outbox and a local bus, with what arrived."""

    def __init__(self) -> None:
        self.outbox = MemoryOutbox()
        self.bus = LocalBus()
        self.seen: list[str] = []
        self.changed = asyncio.Event()
        self.bus.subscribe("topic", self.handle)
        self.dispatcher = NoticeDispatcher(self.outbox, self.bus)

    async def handle(self, notice: Notice) -> None:
        """Note what arrived."""
        self.seen.append(notice.subject)
        self.changed.set()

    async def arrived(self, count: int) -> list[str]:
        """Wait until *count* notices arrived and the outbox is empty."""
        async with asyncio.timeout(10):
            while len(self.seen) < count:
                self.changed.clear()
                await self.changed.wait()
            await self.outbox.empty.wait()
        return self.seen


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher_module, "_RETRY_SECONDS", 0.01)


async def test_what_a_crash_left_is_delivered_at_the_start() -> None:
    """Notices that were committed before the start come first, in order."""
    bench = Bench()
    bench.outbox.commit(*map(str, range(600)))
    bench.dispatcher.start()
    bench.dispatcher.start()
    assert await bench.arrived(600) == [str(n) for n in range(600)]
    await bench.dispatcher.close()


async def test_a_commit_wakes_the_dispatcher() -> None:
    """A notice is delivered after its commit without waiting for the poll."""
    bench = Bench()
    bench.dispatcher.start()
    await asyncio.sleep(0)
    bench.outbox.commit("a", "b")
    assert await bench.arrived(2) == ["a", "b"]
    bench.outbox.commit("c")
    assert await bench.arrived(3) == ["a", "b", "c"]
    await bench.dispatcher.close()


async def test_another_process_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notice nobody woke us for is found by the poll."""
    monkeypatch.setattr(dispatcher_module, "_POLL_SECONDS", 0.01)
    bench = Bench()
    bench.dispatcher.start()
    await asyncio.sleep(0)
    bench.outbox.wake = lambda: None
    bench.outbox.commit("a")
    assert await bench.arrived(1) == ["a"]
    await bench.dispatcher.close()


@pytest.mark.parametrize("failures", [["pending"], ["done"], ["done", "done", "pending"]])
async def test_a_failing_outbox_is_tried_again(failures: list[str]) -> None:
    """Nothing is lost, and nothing is delivered twice, while the database is away for a while."""
    bench = Bench()
    bench.outbox.failures = list(failures)
    bench.outbox.commit("a", "b")
    with capture_logs() as logs:
        bench.dispatcher.start()
        assert await bench.arrived(2) == ["a", "b"]
    assert len(logs) == len(failures)
    await bench.dispatcher.close()


async def test_a_failing_bus_is_tried_again_in_order() -> None:
    """A bus that is away keeps later notices behind the one it failed at."""
    bench = Bench()
    publish, away = bench.bus.publish, ["b", "b"]

    async def flaky(notice: Notice) -> None:
        if away and notice.subject == away[0]:
            away.pop()
            raise Problem(Kind.UNAVAILABLE, "away")
        await publish(notice)

    bench.bus.publish = flaky
    bench.outbox.commit("a", "b", "c")
    with capture_logs():
        bench.dispatcher.start()
        assert await bench.arrived(3) == ["a", "b", "c"]
    await bench.dispatcher.close()


async def test_close_leaves_the_rest_for_the_next_start() -> None:
    """The notice in hand is finished, the others stay in the outbox; closing twice is harmless."""
    bench = Bench()
    closing: asyncio.Future[asyncio.Task[None]] = asyncio.get_running_loop().create_future()

    async def close(_notice: Notice) -> None:
        closing.set_result(asyncio.create_task(bench.dispatcher.close()))
        await asyncio.sleep(0)

    bench.bus.subscribe("topic", close)
    bench.outbox.commit("a", "b")
    bench.dispatcher.start()
    await (await closing)
    assert bench.seen == ["a"]
    assert [notice.subject for notice in bench.outbox.entries.values()] == ["b"]
    await bench.dispatcher.close()


async def test_close_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that hangs at the end is cancelled; its notice stays for the next start."""
    monkeypatch.setattr(dispatcher_module, "_CLOSE_SECONDS", 0.01)
    bench = Bench()
    entered = asyncio.Event()

    async def hang(_notice: Notice) -> None:
        entered.set()
        await asyncio.Event().wait()

    bench.bus.subscribe("topic", hang)
    bench.outbox.commit("a")
    bench.dispatcher.start()
    await entered.wait()
    await bench.dispatcher.close()
    assert len(bench.outbox.entries) == 1
