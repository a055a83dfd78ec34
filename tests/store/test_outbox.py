"""Notices live and die with the transaction of their change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from muster.bus.dispatcher import NoticeDispatcher
from muster.bus.local import LocalBus
from muster.model.notice import Notice
from muster.store.database import Database
from muster.store.outbox import DatabaseOutbox, insert_notice
from muster.store.schema import metadata


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An open database with the outbox in it."""
    opened = Database(tmp_path / "muster.db")
    metadata.create_all(opened.engine)
    yield opened
    await opened.close()


def notice(number: int) -> Notice:
    """Return a notice that can be told from others."""
    return Notice("device.changed", f"hub/device-{number}", {"number": str(number)})


async def test_notices_come_back_in_order(database: Database) -> None:
    """What was committed is pending, oldest first, up to the limit, until it is done."""
    outbox = DatabaseOutbox(database)
    for number in range(5):
        await database.write(lambda c, n=number: insert_notice(c, notice(n)))
    found = await outbox.pending(3)
    assert [entry.notice for entry in found] == [notice(0), notice(1), notice(2)]
    await outbox.done([entry.id for entry in found])
    assert [entry.notice for entry in await outbox.pending(10)] == [notice(3), notice(4)]


async def test_a_failed_change_leaves_no_notice(database: Database) -> None:
    """A notice is never sent for a change that did not happen."""

    def change(connection: Connection) -> None:
        insert_notice(connection, notice(1))
        raise KeyError

    with pytest.raises(KeyError):
        await database.write(change)
    assert await DatabaseOutbox(database).pending(10) == []


async def test_ids_are_never_used_again(database: Database) -> None:
    """Forgetting a notice twice cannot take a later one with it."""
    outbox = DatabaseOutbox(database)
    await database.write(lambda c: insert_notice(c, notice(1)))
    first = [entry.id for entry in await outbox.pending(10)]
    await outbox.done(first)
    await database.write(lambda c: insert_notice(c, notice(2)))
    await outbox.done(first)
    await outbox.done([])
    assert [entry.notice for entry in await outbox.pending(10)] == [notice(2)]


async def test_a_commit_with_notices_is_announced(database: Database) -> None:
    """The dispatcher is woken by commits that hold notices and by no others."""
    outbox = DatabaseOutbox(database)
    woken: list[int] = []
    outbox.on_pending(lambda: woken.append(1))
    await database.write(lambda c: None)
    assert woken == []
    await database.write(lambda c: insert_notice(c, notice(1)))
    assert woken == [1]


async def test_what_was_committed_reaches_the_bus(database: Database) -> None:
    """From a change to its handler: at once while running, at the start for what was left."""
    seen: asyncio.Queue[Notice] = asyncio.Queue()
    bus = LocalBus()
    bus.subscribe("device.changed", seen.put)
    await database.write(lambda c: insert_notice(c, notice(1)))
    outbox = DatabaseOutbox(database)
    dispatcher = NoticeDispatcher(outbox, bus)
    dispatcher.start()
    async with asyncio.timeout(10):
        assert await seen.get() == notice(1)
        await database.write(lambda c: insert_notice(c, notice(2)))
        assert await seen.get() == notice(2)
    await dispatcher.close()
    assert await outbox.pending(10) == []
