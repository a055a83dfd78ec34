"""What every implementation of `ports.devices.DeviceStore` promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from muster.ids import DeviceId, ETag, Thumbprint, new_etag
from muster.model.audit import AuditEntry
from muster.model.device import AuthenticationType, Device, DeviceAuthentication, DeviceStatus
from muster.store.audit import audit
from muster.store.database import Database
from muster.store.devices import SqlDeviceStore
from muster.store.outbox import outbox
from muster.store.schema import metadata

NOW = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database."""
    opened = Database(tmp_path / "muster.db")
    metadata.create_all(opened.engine)
    yield opened
    await opened.close()


@pytest.fixture
def store(database: Database) -> SqlDeviceStore:
    """The store under test."""
    return SqlDeviceStore(database)


def a_device(device_id: str = "dev1", hub_id: str = "hub1", **changes: object) -> Device:
    """A good device, but for *changes*."""
    device = Device(
        hub_id=hub_id,
        device_id=DeviceId(device_id),
        generation_id="638000000000000000",
        etag=new_etag(),
        status=DeviceStatus.ENABLED,
        status_reason=None,
        status_updated=NOW,
        authentication=DeviceAuthentication(
            AuthenticationType.SAS, primary_key="a2V5MQ==", secondary_key="a2V5Mg=="
        ),
        created=NOW,
    )
    return replace(device, **changes)  # type: ignore[arg-type]  # test helper


def entry(action: str = "device.create", subject: str = "hub1/dev1") -> AuditEntry:
    """An audit line."""
    return AuditEntry(NOW, "policy:iothubowner", action, subject)


async def trail(database: Database) -> list[tuple[str, str]]:
    """What the audit trail holds."""
    return await database.read(
        lambda c: [tuple(r) for r in c.execute(select(audit.c.action, audit.c.subject))]
    )


async def notices(database: Database) -> list[tuple[str, str]]:
    """What the outbox holds."""
    return await database.read(
        lambda c: [tuple(r) for r in c.execute(select(outbox.c.topic, outbox.c.subject))]
    )


async def test_what_is_inserted_comes_back_whole(store: SqlDeviceStore) -> None:
    """Every field of a device survives storage, thumbprints and documents included."""
    device = a_device(
        "Dev_%1#",
        status=DeviceStatus.DISABLED,
        status_reason="stolen",
        status_updated=NOW + timedelta(microseconds=1),
        authentication=DeviceAuthentication(
            AuthenticationType.SELF_SIGNED,
            primary_thumbprint=Thumbprint("A" * 64),
            secondary_thumbprint=Thumbprint("B" * 40),
        ),
        iot_edge=True,
        tags={"site": {"floor": 3}},
        desired={"period": 1.5, "list": [1, None]},
    )
    assert await store.insert_device(device, entry())
    assert await store.get_device("hub1", device.device_id) == device


async def test_ids_are_told_apart_by_case_and_hub(store: SqlDeviceStore) -> None:
    """`Dev` and `dev` are two devices, and so is `dev` of another hub."""
    assert await store.insert_device(a_device("dev"), entry())
    assert await store.insert_device(a_device("Dev"), entry())
    assert await store.insert_device(a_device("dev", "hub2"), entry())
    assert await store.get_device("hub2", DeviceId("Dev")) is None


async def test_an_insert_over_a_taken_id_changes_nothing(
    store: SqlDeviceStore, database: Database
) -> None:
    """The second insert of an id is refused and leaves no audit line; a new device is no notice."""
    first = a_device()
    assert await store.insert_device(first, entry())
    assert not await store.insert_device(a_device(), entry())
    assert await store.get_device("hub1", first.device_id) == first
    assert await trail(database) == [("device.create", "hub1/dev1")]
    assert await notices(database) == []


async def test_of_many_parallel_inserts_one_wins(store: SqlDeviceStore) -> None:
    """Fifty racing creations of one id make one device."""
    made = await asyncio.gather(*(store.insert_device(a_device(), entry()) for _ in range(50)))
    assert made.count(True) == 1


async def test_replace_needs_the_stored_version(store: SqlDeviceStore, database: Database) -> None:
    """A replacement over an outdated version is refused and changes nothing."""
    device = a_device()
    await store.insert_device(device, entry())
    changed = replace(device, etag=new_etag(), status=DeviceStatus.DISABLED)
    assert not await store.replace_device(changed, ETag("other"), entry("device.update"))
    assert await store.get_device("hub1", device.device_id) == device
    assert await store.replace_device(changed, device.etag, entry("device.update"))
    assert await store.get_device("hub1", device.device_id) == changed
    assert [topic for topic, _ in await notices(database)] == ["device.changed"]
    assert [action for action, _ in await trail(database)] == ["device.create", "device.update"]


async def test_of_parallel_replacements_of_one_version_one_wins(store: SqlDeviceStore) -> None:
    """A version is replaced once: the conditional update is the judge of races."""
    device = a_device()
    await store.insert_device(device, entry())
    done = await asyncio.gather(
        *(
            store.replace_device(replace(device, etag=new_etag()), device.etag, entry())
            for _ in range(20)
        )
    )
    assert done.count(True) == 1


@pytest.mark.parametrize("expected", ["stored", "any"])
async def test_delete(store: SqlDeviceStore, database: Database, expected: str) -> None:
    """Deletion is conditional on the version unless any will do, and is told to others."""
    device = a_device()
    await store.insert_device(device, entry())
    gone = entry("device.delete")
    assert not await store.delete_device("hub1", device.device_id, ETag("old"), gone)
    version = device.etag if expected == "stored" else None
    assert await store.delete_device("hub1", device.device_id, version, gone)
    assert not await store.delete_device("hub1", device.device_id, None, gone)
    assert await store.get_device("hub1", device.device_id) is None
    assert await notices(database) == [
        ("device.deleted", "hub1/dev1"),
    ]


async def test_listing_is_by_id_and_pages(store: SqlDeviceStore) -> None:
    """A listing continues after the last id seen, and never shows another hub's devices."""
    for name in ("c", "a", "b", "B"):
        await store.insert_device(a_device(name), entry())
    await store.insert_device(a_device("a", "hub2"), entry())
    page = await store.list_devices("hub1", after="", limit=2)
    assert [d.device_id for d in page] == ["B", "a"]
    page = await store.list_devices("hub1", after="a", limit=10)
    assert [d.device_id for d in page] == ["b", "c"]


async def test_counts_and_versions(store: SqlDeviceStore) -> None:
    """Counts tell enabled from all; versions are those of the devices that exist."""
    assert await store.count_devices("hub1") == (0, 0)
    one, two = a_device("one"), a_device("two", status=DeviceStatus.DISABLED)
    await store.insert_device(one, entry())
    await store.insert_device(two, entry())
    await store.insert_device(a_device("three", "hub2"), entry())
    assert await store.count_devices("hub1") == (2, 1)
    asked = [DeviceId("one"), DeviceId("two"), DeviceId("three")]
    assert await store.device_versions("hub1", asked) == {"one": one.etag, "two": two.etag}
    assert await store.device_versions("hub1", []) == {}


async def test_a_forgotten_hub_loses_its_devices_in_steps(store: SqlDeviceStore) -> None:
    """Each step deletes at most as many as asked, and other hubs keep theirs."""
    for name in ("a", "b", "c"):
        await store.insert_device(a_device(name), entry())
    await store.insert_device(a_device("a", "hub2"), entry())
    assert [await store.forget_hub("hub1", limit=2) for _ in range(3)] == [2, 1, 0]
    assert await store.count_devices("hub2") == (1, 1)


async def test_a_look_up_does_not_walk_the_table(store: SqlDeviceStore, database: Database) -> None:
    """Look-ups, pages and counts use an index: their cost does not grow with the registry."""
    plans = {
        "SELECT * FROM devices WHERE hub_id='h' AND device_id='d'": "SEARCH",
        "SELECT * FROM devices WHERE hub_id='h' AND device_id>'d' ORDER BY device_id LIMIT 9": (
            "SEARCH"
        ),
        "SELECT status, count(*) FROM devices WHERE hub_id='h' GROUP BY status": "COVERING INDEX",
    }
    for statement, word in plans.items():
        rows = await database.read(
            lambda c, s=statement: c.exec_driver_sql(f"EXPLAIN QUERY PLAN {s}").fetchall()  # type: ignore[misc]  # bound per iteration
        )
        plan = " ".join(str(row[-1]) for row in rows)
        assert word in plan, plan
        assert "TEMP B-TREE" not in plan
