"""What every implementation of `ports.resources` and of the directories promises."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from muster.errors import Kind, Problem
from muster.ids import ETag, new_etag, new_uuid
from muster.model.audit import AuditEntry
from muster.model.resource import (
    AccessPolicy,
    AllocationPolicy,
    CaCertificate,
    Hub,
    LinkedHub,
    ProvisioningService,
    ResourceAddress,
    ResourceGroup,
    Right,
    Subscription,
)
from muster.ports.resources import Stored
from muster.store.audit import audit
from muster.store.database import Database
from muster.store.outbox import outbox
from muster.store.resources import SqlResourceStore, normal_host
from muster.store.schema import metadata

NOW = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
ENTRY = AuditEntry(NOW, "test", "hub.create", "hub:x")
OWN_NAMES = ["localhost", "127.0.0.1", "::1"]
CERTIFICATES = (
    CaCertificate("a", b"\x30\x00", True, NOW, NOW, ETag("1")),
    CaCertificate("b", b"\xff", False, NOW, NOW, ETag("2"), "CODE", NOW + timedelta(days=7)),
)
POLICIES = (AccessPolicy("owner", "a2V5MQ==", "a2V5Mg==", frozenset(Right)),)
DOCUMENT: dict[str, Any] = {"location": "local", "properties": {"x": [1, 2.5, None, True, "ü"]}}


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database."""
    opened = Database(tmp_path / "muster.db")
    metadata.create_all(opened.engine)
    yield opened
    await opened.close()


@pytest.fixture
def store(database: Database) -> SqlResourceStore:
    """The store under test."""
    return SqlResourceStore(database, own_names=OWN_NAMES)


def a_hub(name: str = "Plant", hostname: str = "hub.example", minutes: int = 0) -> Hub:
    """A hub with every field filled."""
    return Hub(
        id=new_uuid(),
        address=ResourceAddress("sub", "Group", name),
        hostname=hostname,
        etag=new_etag(),
        created=NOW + timedelta(minutes=minutes),
        partition_count=4,
        retention_days=1,
        policies=POLICIES,
        certificates=CERTIFICATES,
        consumer_groups=("$Default", "lab"),
        document=DOCUMENT,
    )


def a_service(
    name: str = "Line7", hostname: str = "localhost", id_scope: str = "0ne00AB12CD"
) -> ProvisioningService:
    """A provisioning service with every field filled."""
    return ProvisioningService(
        id=new_uuid(),
        address=ResourceAddress("sub", "Group", name),
        hostname=hostname,
        id_scope=id_scope,
        etag=new_etag(),
        created=NOW,
        allocation_policy=AllocationPolicy.STATIC,
        linked_hubs=(LinkedHub("hub.example", "HostName=…", "local", False, 7),),
        policies=POLICIES,
        certificates=CERTIFICATES,
        document=DOCUMENT,
    )


async def told(database: Database) -> tuple[int, list[tuple[str, str]]]:
    """Return how many audit lines there are, and every notice."""

    def query(connection: Any) -> tuple[int, list[tuple[str, str]]]:
        notices = connection.execute(select(outbox).order_by(outbox.c.id))
        lines = connection.execute(select(audit)).all()
        return len(lines), [(row.topic, row.subject) for row in notices]

    return await database.read(query)


async def test_a_hub_comes_back_whole(store: SqlResourceStore, database: Database) -> None:
    """Every field survives, read from the database and not from memory."""
    hub = a_hub()
    assert await store.insert_hub(hub, ENTRY) is Stored.STORED
    assert await store.find_hub_by_name("PLANT") == hub
    assert await SqlResourceStore(database).list_hubs() == [hub]
    assert await told(database) == (1, [("hub.changed", hub.id)])


async def test_names_and_hostnames_are_unique(store: SqlResourceStore, database: Database) -> None:
    """Without case; what was refused is neither audited nor told."""
    await store.insert_hub(a_hub(), ENTRY)
    assert await store.insert_hub(a_hub("PLANT", "x.example"), ENTRY) is Stored.NAME_TAKEN
    assert await store.insert_hub(a_hub("Other"), ENTRY) is Stored.HOSTNAME_TAKEN
    assert len(await store.list_hubs()) == 1
    assert (await told(database))[0] == 1


async def test_only_the_expected_version_is_replaced(
    store: SqlResourceStore, database: Database
) -> None:
    """Two changes of one version: the second is told. So is a deletion of an old one."""
    first = a_hub()
    await store.insert_hub(first, ENTRY)
    second = replace(first, retention_days=7, etag=new_etag())
    assert await store.replace_hub(second, first.etag, ENTRY)
    assert not await store.replace_hub(first, first.etag, ENTRY)
    assert await store.find_hub_by_name("plant") == second
    assert not await store.delete_hub(first.id, first.etag, ENTRY)
    assert await store.delete_hub(first.id, second.etag, ENTRY)
    assert not await store.delete_hub(first.id, second.etag, ENTRY)
    assert await store.list_hubs() == []
    lines, notices = await told(database)
    assert lines == 3
    assert [topic for topic, _ in notices] == ["hub.changed", "hub.changed", "hub.deleted"]


async def test_a_hub_does_not_take_anothers_hostname(store: SqlResourceStore) -> None:
    """Also not by an update."""
    first, second = a_hub(), a_hub("Other", "other.example")
    await store.insert_hub(first, ENTRY)
    await store.insert_hub(second, ENTRY)
    thief = replace(second, hostname=first.hostname, etag=new_etag())
    with pytest.raises(Problem) as caught:
        await store.replace_hub(thief, second.etag, ENTRY)
    assert caught.value.kind is Kind.CONFLICT
    assert await store.find_hub("other.example") == second


async def test_a_hub_is_found_by_its_host(store: SqlResourceStore) -> None:
    """Without case and port; exactly, or as the only hub by the server's own names."""
    hub = a_hub()
    await store.insert_hub(hub, ENTRY)
    for host in ("hub.example", "HUB.example", "hub.example:8883", " Hub.Example:443 "):
        assert await store.find_hub(host) == hub
    for host in ("localhost", "LOCALHOST:8443", "127.0.0.1:1", "::1", "[::1]:8883"):
        assert await store.find_hub(host) == hub
    for host in ("", ":", "other.example", "hub.example.evil", "127.0.0.2", "[", "x" * 10_000):
        assert await store.find_hub(host) is None


async def test_of_two_hubs_neither_takes_the_servers_names(store: SqlResourceStore) -> None:
    """Unless one is called so."""
    first, second = a_hub(), a_hub("Other", "127.0.0.2", minutes=1)
    await store.insert_hub(first, ENTRY)
    await store.insert_hub(second, ENTRY)
    assert await store.list_hubs() == [first, second]
    assert await store.find_hub("localhost") is None
    assert await store.find_hub("127.0.0.2:8883") == second
    named = replace(first, hostname="localhost", etag=new_etag())
    await store.replace_hub(named, first.etag, ENTRY)
    assert await store.find_hub("localhost") == named
    assert await store.find_hub("hub.example") is None


async def test_a_service_comes_back_whole(store: SqlResourceStore, database: Database) -> None:
    """As a hub does; scopes are compared without case and are unique."""
    service = a_service()
    assert await store.insert_service(service, ENTRY) is Stored.STORED
    assert await store.find_service("0NE00ab12cd") == service
    assert await store.find_service_by_name("LINE7") == service
    assert await SqlResourceStore(database).list_services() == [service]
    assert await store.insert_service(a_service(), ENTRY) is Stored.NAME_TAKEN
    assert await store.insert_service(a_service("Other"), ENTRY) is Stored.SCOPE_TAKEN
    second = replace(service, linked_hubs=(), etag=new_etag())
    assert await store.replace_service(second, service.etag, ENTRY)
    assert not await store.replace_service(second, service.etag, ENTRY)
    assert await store.delete_service(service.id, second.etag, ENTRY)
    assert await store.find_service(service.id_scope) is None
    lines, notices = await told(database)
    assert lines == 3
    assert notices[-1] == ("service.deleted", service.id)


async def test_services_share_a_host(store: SqlResourceStore) -> None:
    """And the only one answers to the server's own names too."""
    first = a_service(hostname="line7.example")
    await store.insert_service(first, ENTRY)
    assert await store.find_services_by_host("localhost:8443") == [first]
    assert await store.find_services_by_host("LINE7.example") == [first]
    second = a_service("Line8", "line7.example", "0ne00000000")
    await store.insert_service(second, ENTRY)
    found = await store.find_services_by_host("line7.example")
    assert {one.id for one in found} == {first.id, second.id}
    assert await store.find_services_by_host("localhost") == []


async def test_a_cancelled_change_is_still_noticed(store: SqlResourceStore) -> None:
    """The client that asked for it hung up; a device that connects next sees the new state."""
    hub = a_hub()
    await store.insert_hub(hub, ENTRY)
    assert await store.find_hub("hub.example") == hub
    changed = replace(hub, certificates=(), etag=new_etag())
    change = asyncio.ensure_future(store.replace_hub(changed, hub.etag, ENTRY))
    await asyncio.sleep(0)
    change.cancel()
    with pytest.raises(asyncio.CancelledError):
        await change
    # The next change commits after that one.
    await store.insert_hub(a_hub("Other", "other.example"), ENTRY)
    assert await store.find_hub("hub.example") == changed


async def test_another_process_is_believed_when_told(database: Database) -> None:
    """`forget` is what a `hub.changed` notice from elsewhere calls."""
    here, there = SqlResourceStore(database), SqlResourceStore(database)
    assert await here.list_hubs() == []
    hub = a_hub()
    await there.insert_hub(hub, ENTRY)
    assert await here.find_hub("hub.example") is None
    here.forget()
    assert await here.find_hub("hub.example") == hub


async def test_looking_a_hub_up_costs_next_to_nothing(store: SqlResourceStore) -> None:
    """It is done at every CONNECT: 20 microseconds would be a fiftieth of a handshake."""
    await store.insert_hub(a_hub(), ENTRY)
    await store.find_hub("hub.example")
    rounds = 2_000
    begun = time.perf_counter()
    for _ in range(rounds):
        await store.find_hub("hub.example")
    assert (time.perf_counter() - begun) / rounds < 20e-6


async def test_there_is_one_first_subscription(store: SqlResourceStore) -> None:
    """The first one stays, also when several start at once."""
    asked = [Subscription(f"s{number}", "tenant", "Muster") for number in range(4)]
    got = await asyncio.gather(
        *(
            store.ensure_subscription(one, ResourceGroup(one.id, "Muster", "local"), ENTRY)
            for one in asked
        )
    )
    assert len({subscription.id for subscription, _ in got}) == 1
    subscription, group = got[0]
    assert await store.list_subscriptions() == [subscription]
    assert await store.list_groups(subscription.id) == [group]
    assert await store.list_groups("other") == []


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Host:1", "host"),
        ("[::1]:8883", "::1"),
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("", ""),
        ("a:b:c", "a:b:c"),
    ],
)
def test_hosts_are_compared_without_port(text: str, host: str) -> None:
    """An address of IPv6 has colons of its own."""
    assert normal_host(text) == host
