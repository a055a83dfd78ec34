"""What every implementation of `ports.identity`'s stores promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from muster.ids import ETag, new_etag, new_uuid
from muster.model.audit import AuditEntry
from muster.model.principal import (
    Application,
    ClientCertificate,
    ClientSecret,
    PrincipalKind,
    Role,
    Tenant,
)
from muster.store.audit import audit
from muster.store.database import Database
from muster.store.principals import SqlApplicationStore, SqlTenantStore
from muster.store.schema import metadata

NOW = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
ENTRY = AuditEntry(NOW, "test", "application.create", "application:x")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database."""
    opened = Database(tmp_path / "muster.db")
    metadata.create_all(opened.engine)
    yield opened
    await opened.close()


@pytest.fixture
def store(database: Database) -> SqlApplicationStore:
    """The store under test."""
    return SqlApplicationStore(database)


def an_application(client_id: str | None = None) -> Application:
    """An application with every field filled."""
    return Application(
        tenant_id="tenant",
        object_id=new_uuid(),
        client_id=client_id or new_uuid(),
        kind=PrincipalKind.APPLICATION,
        name="Förderband 7 \U0001f69a",
        etag=new_etag(),
        created=NOW,
        roles=frozenset({Role.OWNER, Role.READER}),
        secrets=(
            ClientSecret("1", "first", b"\x00" * 32, NOW, NOW + timedelta(days=1)),
            ClientSecret("2", "", b"\xff" * 32, NOW),
        ),
        certificates=(ClientCertificate(b"\x30\x00", NOW),),
    )


async def lines(database: Database) -> int:
    """Return how many lines the audit trail has."""
    statement = select(func.count()).select_from(audit)
    return await database.read(lambda connection: connection.execute(statement).scalar_one())


async def test_an_application_comes_back_whole(
    store: SqlApplicationStore, database: Database
) -> None:
    """Every field survives, and the change is in the audit trail."""
    application = an_application()
    assert await store.insert_application(application, ENTRY)
    assert await store.find_application(application.client_id.upper()) == application
    assert await store.find_application("nobody") is None
    assert await store.count_applications() == 1
    assert await lines(database) == 1


async def test_ids_are_unique(store: SqlApplicationStore, database: Database) -> None:
    """A second one of the same client or object id changes nothing and audits nothing."""
    first = an_application()
    assert await store.insert_application(first, ENTRY)
    assert not await store.insert_application(replace(first, object_id="other"), ENTRY)
    assert not await store.insert_application(replace(first, client_id="other"), ENTRY)
    assert await store.count_applications() == 1
    assert await lines(database) == 1


async def test_only_the_expected_version_is_replaced(
    store: SqlApplicationStore, database: Database
) -> None:
    """Two changes of one version: the second is told, and is not audited."""
    first = an_application()
    await store.insert_application(first, ENTRY)
    second = replace(first, enabled=False, etag=new_etag())
    assert await store.replace_application(second, first.etag, ENTRY)
    assert not await store.replace_application(first, first.etag, ENTRY)
    assert not await store.replace_application(an_application(), ETag("x"), ENTRY)
    assert await store.find_application(first.client_id) == second
    assert await lines(database) == 2


async def test_applications_are_paged_by_client_id(store: SqlApplicationStore) -> None:
    """Each page goes on after the last client id of the one before."""
    for name in ("b", "a", "c"):
        await store.insert_application(an_application(name), ENTRY)
    page = await store.list_applications(after="", limit=2)
    assert [entry.client_id for entry in page] == ["a", "b"]
    page = await store.list_applications(after="b", limit=2)
    assert [entry.client_id for entry in page] == ["c"]


async def test_a_caller_is_what_is_stored_now(store: SqlApplicationStore) -> None:
    """However often it was looked up before: roles, being disabled and being gone count at once."""
    application = an_application()
    await store.insert_application(application, ENTRY)

    async def find() -> object:
        return await store.find_principal("tenant", application.object_id)

    assert await find() == application.principal
    assert await find() == application.principal
    assert await store.find_principal("another", application.object_id) is None

    fewer = replace(application, roles=frozenset({Role.READER}), etag=new_etag())
    await store.replace_application(fewer, application.etag, ENTRY)
    assert await find() == fewer.principal
    disabled = replace(fewer, enabled=False, etag=new_etag())
    await store.replace_application(disabled, fewer.etag, ENTRY)
    assert await find() is None
    enabled = replace(disabled, enabled=True, etag=new_etag())
    await store.replace_application(enabled, disabled.etag, ENTRY)
    assert await find() == fewer.principal
    assert await store.delete_application(application.client_id, ENTRY)
    assert not await store.delete_application(application.client_id, ENTRY)
    assert await find() is None


async def test_a_cancelled_change_is_still_noticed(store: SqlApplicationStore) -> None:
    """The client that asked for it hung up; whoever is looked up next is not an old memory."""
    application = an_application()
    await store.insert_application(application, ENTRY)
    assert await store.find_principal("tenant", application.object_id) is not None
    disabled = replace(application, enabled=False, etag=new_etag())
    change = asyncio.ensure_future(store.replace_application(disabled, application.etag, ENTRY))
    await asyncio.sleep(0)
    change.cancel()
    with pytest.raises(asyncio.CancelledError):
        await change
    # The next change commits after that one.
    await store.insert_application(an_application(), ENTRY)
    assert await store.find_principal("tenant", application.object_id) is None


async def test_there_is_one_tenant(database: Database) -> None:
    """The first one stays, also when several start at once."""
    store = SqlTenantStore(database)
    asked = [Tenant(f"tenant{number}", "admin", "local") for number in range(5)]
    got = await asyncio.gather(*(store.ensure_tenant(tenant, ENTRY) for tenant in asked))
    assert len(set(got)) == 1
    assert got[0] in asked
    assert await lines(database) == 1
