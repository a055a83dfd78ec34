"""Clearing away runs beside the notices, one after the other, whatever happens to one."""

from __future__ import annotations

import asyncio

from muster.app.removal import Removal
from muster.bus.local import LocalBus
from muster.errors import Kind, Problem
from muster.model.notice import Notice


async def test_a_notice_is_taken_at_once_and_the_work_done_beside() -> None:
    """The bus does not wait for the work, and the order is kept."""
    bus, done, gate = LocalBus(), list[str](), asyncio.Event()
    finished = asyncio.Event()

    async def clear(subject: str) -> None:
        await gate.wait()
        done.append(subject)
        if subject == "b":
            finished.set()

    removal = Removal("hub.deleted", bus, clear)
    task = asyncio.create_task(removal.run())
    await bus.publish(Notice("hub.deleted", "a"))
    await bus.publish(Notice("hub.deleted", "b"))
    assert done == []
    gate.set()
    async with asyncio.timeout(5):
        await finished.wait()
    assert done == ["a", "b"]
    task.cancel()
    await asyncio.wait([task])


async def test_a_failure_does_not_hold_up_the_next() -> None:
    """Neither a refusal nor a bug."""
    bus, done = LocalBus(), asyncio.Event()
    failures: dict[str, Exception] = {
        "refused": Problem(Kind.UNAVAILABLE, "disk"),
        "bug": OSError("bug"),
    }

    async def clear(subject: str) -> None:
        if subject in failures:
            raise failures[subject]
        done.set()

    removal = Removal("hub.deleted", bus, clear)
    task = asyncio.create_task(removal.run())
    for subject in ("refused", "bug", "fine"):
        await bus.publish(Notice("hub.deleted", subject))
    async with asyncio.timeout(5):
        await done.wait()
    task.cancel()
    await asyncio.wait([task])
