"""What every implementation of `ports.registrations.RegistrationStore` promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from muster.ids import DeviceId, RegistrationId, Thumbprint, new_etag
from muster.model.audit import AuditEntry
from muster.model.registration import Operation, Registration, RegistrationStatus, Substatus
from muster.store.audit import audit
from muster.store.database import Database
from muster.store.outbox import outbox
from muster.store.registrations import SqlRegistrationStore
from muster.store.schema import metadata

NOW = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
LINE = AuditEntry(NOW, "device:dev-1", "registration.register", "s/dev-1")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database."""
    opened = Database(tmp_path / "muster.db")
    metadata.create_all(opened.engine)
    yield opened
    await opened.close()


@pytest.fixture
def store(database: Database) -> SqlRegistrationStore:
    """The store under test."""
    return SqlRegistrationStore(database)


def a_registration(name: str = "dev-1", **changes: Any) -> Registration:
    """An assigned registration, but for *changes*."""
    registration = Registration(
        service_id="s",
        registration_id=RegistrationId(name),
        group_id="Factory",
        leaf=Thumbprint("A" * 64),
        status=RegistrationStatus.ASSIGNED,
        etag=new_etag(),
        created=NOW,
        updated=NOW,
        deadline=NOW + timedelta(seconds=40),
        operations=(Operation("op-1", NOW), Operation("op-2", NOW + timedelta(hours=1))),
        substatus=Substatus.INITIAL_ASSIGNMENT,
        assigned_hub="hub.example",
        device_id=DeviceId(name),
    )
    return replace(registration, **changes)


BEGUN = {
    "status": RegistrationStatus.ASSIGNING,
    "substatus": None,
    "assigned_hub": None,
    "device_id": None,
}


async def notices(database: Database) -> list[str]:
    """What the outbox holds."""
    query = select(outbox.c.topic, outbox.c.subject).order_by(outbox.c.id)
    return await database.read(lambda c: [f"{r[0]} {r[1]}" for r in c.execute(query)])


async def lines(database: Database) -> int:
    """How many audit lines there are."""
    return await database.read(lambda c: len(list(c.execute(select(audit.c.id)))))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        BEGUN,
        {"status": RegistrationStatus.FAILED, "error_code": 400208, "error_message": "no hub"},
        {"operations": ()},
    ],
    ids=["assigned", "begun", "failed", "no operations"],
)
async def test_what_is_stored_comes_back(
    store: SqlRegistrationStore, changes: dict[str, Any]
) -> None:
    """Every field survives, to the microsecond, and ids are found without case."""
    registration = a_registration("Dev-1", **changes)
    assert await store.insert_registration(registration, LINE)
    assert await store.get_registration("s", RegistrationId("dEV-1")) == registration
    assert await store.get_registration("t", RegistrationId("Dev-1")) is None


async def test_id_is_taken_once(store: SqlRegistrationStore, database: Database) -> None:
    """Of many that want one id, in whatever case, one gets it."""
    wanted = [a_registration(name) for name in ("dev-1", "DEV-1") * 10]
    results = await asyncio.gather(*(store.insert_registration(one, LINE) for one in wanted))
    assert sorted(results) == [False] * 19 + [True]
    assert await lines(database) == 1


async def test_replace_needs_the_stored_version(
    store: SqlRegistrationStore, database: Database
) -> None:
    """Of many that replace one version, one does; the others change nothing."""
    first = a_registration()
    await store.insert_registration(first, LINE)
    others = [replace(first, etag=new_etag(), assigned_hub=f"hub-{n}") for n in range(10)]
    results = await asyncio.gather(
        *(store.replace_registration(one, first.etag, LINE) for one in others)
    )
    assert sorted(results) == [False] * 9 + [True]
    found = await store.get_registration("s", first.registration_id)
    assert found == others[results.index(True)]
    assert await lines(database) == 2


async def test_delete_needs_the_stored_version(
    store: SqlRegistrationStore, database: Database
) -> None:
    """Only the version that is stored is deleted."""
    registration = a_registration()
    await store.insert_registration(registration, LINE)
    name = registration.registration_id
    assert not await store.delete_registration("s", name, new_etag(), LINE)
    assert await store.delete_registration("s", RegistrationId("DEV-1"), registration.etag, LINE)
    assert await store.get_registration("s", name) is None
    assert not await store.delete_registration("s", name, registration.etag, LINE)
    assert await lines(database) == 2


async def test_listing_is_of_one_group_by_key(store: SqlRegistrationStore) -> None:
    """Pages follow each other, without the registrations of other groups or services."""
    for name in ("c", "A", "b", "d"):
        await store.insert_registration(a_registration(name), LINE)
    await store.insert_registration(a_registration("x", group_id="other"), LINE)
    await store.insert_registration(a_registration("y", service_id="t"), LINE)
    page = await store.list_registrations("s", "FACTORY", after="", limit=3)
    assert [one.registration_id for one in page] == ["A", "b", "c"]
    rest = await store.list_registrations("s", "factory", after=page[-1].key, limit=3)
    assert [one.registration_id for one in rest] == ["d"]


async def test_refusal_leaves_a_line_and_nothing_else(
    store: SqlRegistrationStore, database: Database
) -> None:
    """Who was refused is on record; no registration came of it."""
    await store.insert_refusal(LINE)
    assert await lines(database) == 1
    assert await notices(database) == []
    assert await store.get_registration("s", RegistrationId("dev-1")) is None


async def test_a_service_is_forgotten_bit_by_bit(store: SqlRegistrationStore) -> None:
    """A million rows are not one transaction; other services keep theirs."""
    for name in ("a", "b", "c"):
        await store.insert_registration(a_registration(name), LINE)
    await store.insert_registration(a_registration("a", service_id="t"), LINE)
    assert [await store.forget_service("s", limit=2) for _ in range(3)] == [2, 1, 0]
    assert await store.get_registration("t", RegistrationId("a")) is not None
