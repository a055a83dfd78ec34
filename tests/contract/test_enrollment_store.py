"""What every implementation of `ports.enrollments.EnrollmentStore` promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select
from tests.support.provisioning import a_group

from muster.errors import Kind, Problem
from muster.ids import new_etag
from muster.model.audit import AuditEntry
from muster.model.device import InitialTwin
from muster.model.enrollment import (
    CaReferences,
    ProvisioningStatus,
    ReprovisionPolicy,
    SigningCertificates,
)
from muster.model.resource import AllocationPolicy
from muster.store.audit import audit
from muster.store.database import Database
from muster.store.enrollments import SqlEnrollmentStore
from muster.store.outbox import outbox
from muster.store.schema import metadata

NOW = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
LINE = AuditEntry(NOW, "policy:owner", "enrollment.create", "service-1/factory")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database."""
    opened = Database(tmp_path / "muster.db")
    metadata.create_all(opened.engine)
    yield opened
    await opened.close()


@pytest.fixture
def store(database: Database) -> SqlEnrollmentStore:
    """The store under test."""
    return SqlEnrollmentStore(database)


async def told(database: Database) -> tuple[int, list[str]]:
    """How many audit lines there are, and the notices."""
    lines = await database.read(lambda c: len(list(c.execute(select(audit.c.id)))))
    query = select(outbox.c.topic, outbox.c.subject).order_by(outbox.c.id)
    notices = await database.read(lambda c: [f"{r[0]} {r[1]}" for r in c.execute(query)])
    return lines, notices


FULL = a_group(
    CaReferences("one", "two"),
    group_id="Factory:1",
    created=NOW,
    updated=NOW,
    status=ProvisioningStatus.DISABLED,
    reprovision_policy=ReprovisionPolicy(True, False),
    allocation_policy=AllocationPolicy.STATIC,
    iot_hub_hostname="hub.example",
    iot_hubs=("hub.example",),
    initial_twin=InitialTwin({"a": [1, None, "ü"]}, {"b": {"c": 1.5}}),
    iot_edge=True,
)


@pytest.mark.parametrize(
    "group",
    [
        FULL,
        a_group(CaReferences(None, "two")),
        a_group(SigningCertificates(b"\x00\xff", None)),
        a_group(SigningCertificates(None, b"\x01")),
    ],
    ids=["full", "secondary reference", "carried", "secondary carried"],
)
async def test_what_is_stored_comes_back(store: SqlEnrollmentStore, group: object) -> None:
    """Every field survives, and ids are found without case."""
    assert await store.insert_group(group, ["x"], LINE)  # type: ignore[arg-type]  # parametrised
    assert await store.get_group("service-1", group.group_id.upper()) == group  # type: ignore[attr-defined]  # as above
    assert await store.get_group("service-2", group.group_id) is None  # type: ignore[attr-defined]  # as above


async def test_id_is_taken_once(store: SqlEnrollmentStore, database: Database) -> None:
    """A second group of the same id, in whatever case, changes nothing."""
    first = a_group()
    assert await store.insert_group(first, ["x"], LINE)
    assert not await store.insert_group(a_group(group_id="FACTORY"), ["y"], LINE)
    assert await store.get_group("service-1", "factory") == first
    assert await told(database) == (1, ["enrollment.changed service-1/factory"])


async def test_replace_needs_the_stored_version(
    store: SqlEnrollmentStore, database: Database
) -> None:
    """Only the version that is stored is replaced."""
    first = a_group()
    await store.insert_group(first, ["x"], LINE)
    second = replace(first, etag=new_etag(), status=ProvisioningStatus.DISABLED)
    assert not await store.replace_group(second, ["x"], new_etag(), LINE)
    assert await store.replace_group(second, ["x"], first.etag, LINE)
    assert not await store.replace_group(second, ["x"], first.etag, LINE)
    assert await store.get_group("service-1", "factory") == second
    assert (await told(database))[0] == 2


async def test_delete_needs_the_stored_version(
    store: SqlEnrollmentStore, database: Database
) -> None:
    """Only the version that is stored is deleted, and its certificates are free again."""
    group = a_group()
    await store.insert_group(group, ["x"], LINE)
    assert not await store.delete_group("service-1", "factory", new_etag(), LINE)
    assert await store.delete_group("service-1", "Factory", group.etag, LINE)
    assert await store.get_group("service-1", "factory") is None
    assert not await store.delete_group("service-1", "factory", group.etag, LINE)
    assert await store.insert_group(a_group(group_id="other"), ["x"], LINE)
    assert (await told(database))[1][1].startswith("enrollment.deleted ")


async def test_a_certificate_is_used_once(store: SqlEnrollmentStore, database: Database) -> None:
    """A claim of another group of the service refuses the change as a whole."""
    first, second = a_group(), a_group(group_id="second")
    await store.insert_group(first, ["x", "y"], LINE)
    with pytest.raises(Problem) as caught:
        await store.insert_group(second, ["z", "y"], LINE)
    assert caught.value.kind is Kind.CONFLICT
    assert await store.get_group("service-1", "second") is None
    assert await store.insert_group(second, ["z"], LINE)
    with pytest.raises(Problem):
        await store.replace_group(replace(second, etag=new_etag()), ["x"], second.etag, LINE)
    assert await store.get_group("service-1", "second") == second
    other_service = a_group(service_id="service-2")
    assert await store.insert_group(other_service, ["x"], LINE)
    assert (await told(database))[0] == 3


async def test_claims_follow_the_group(store: SqlEnrollmentStore) -> None:
    """What a group uses no more is free for another."""
    first = a_group()
    await store.insert_group(first, ["x"], LINE)
    changed = replace(first, etag=new_etag())
    assert await store.replace_group(changed, ["y"], first.etag, LINE)
    assert await store.insert_group(a_group(group_id="second"), ["x"], LINE)


async def test_parallel_inserts_have_one_winner(store: SqlEnrollmentStore) -> None:
    """Of many that want one id, or one certificate, one gets it."""
    same_id = [store.insert_group(a_group(), [f"x{n}"], LINE) for n in range(20)]
    assert sorted(await asyncio.gather(*same_id)) == [False] * 19 + [True]
    same_claim = [
        store.insert_group(a_group(group_id=f"g{n}"), ["shared"], LINE) for n in range(20)
    ]
    results = await asyncio.gather(*same_claim, return_exceptions=True)
    assert sum(one is True for one in results) == 1
    assert sum(isinstance(one, Problem) for one in results) == 19


async def test_version_grows_with_every_change(store: SqlEnrollmentStore) -> None:
    """Whoever keeps something made of the groups learns that it is old."""
    seen = [await store.enrollments_version("service-1")]
    group = a_group()
    await store.insert_group(group, ["x"], LINE)
    seen.append(await store.enrollments_version("service-1"))
    changed = replace(group, etag=new_etag())
    await store.replace_group(changed, ["x"], group.etag, LINE)
    seen.append(await store.enrollments_version("service-1"))
    await store.delete_group("service-1", "factory", changed.etag, LINE)
    seen.append(await store.enrollments_version("service-1"))
    assert seen == sorted(set(seen))
    assert await store.enrollments_version("service-2") == 0


async def test_version_of_another_process_is_seen_when_told(
    store: SqlEnrollmentStore, database: Database
) -> None:
    """`forget` is for the notice that somebody else wrote."""
    assert await store.enrollments_version("service-1") == 0
    await SqlEnrollmentStore(database).insert_group(a_group(), ["x"], LINE)
    store.forget()
    assert await store.enrollments_version("service-1") == 1


async def test_listing_goes_by_key(store: SqlEnrollmentStore) -> None:
    """Pages follow each other without gaps or repeats, and stay within one service."""
    for name in ("b", "A", "c", "D"):
        await store.insert_group(a_group(group_id=name), [name], LINE)
    await store.insert_group(a_group(service_id="service-2"), ["x"], LINE)
    page = await store.list_groups("service-1", after="", limit=3)
    assert [group.group_id for group in page] == ["A", "b", "c"]
    rest = await store.list_groups("service-1", after=page[-1].key, limit=3)
    assert [group.group_id for group in rest] == ["D"]


async def test_a_service_is_forgotten_as_a_whole(store: SqlEnrollmentStore) -> None:
    """Nothing is left of a service that is gone, and nothing of others goes with it."""
    await store.insert_group(a_group(), ["x"], LINE)
    await store.insert_group(a_group(service_id="service-2"), ["x"], LINE)
    await store.forget_service("service-1")
    assert await store.list_groups("service-1", after="", limit=9) == []
    assert len(await store.list_groups("service-2", after="", limit=9)) == 1
    assert await store.insert_group(a_group(group_id="new"), ["x"], LINE)
