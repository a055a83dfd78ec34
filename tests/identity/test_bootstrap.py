"""The first start makes an administrator; later ones keep it."""

from __future__ import annotations

from typing import Any

from muster.identity.applications import holds_secret
from muster.identity.bootstrap import bootstrap
from muster.model.principal import PrincipalKind, Role
from muster.store.principals import SqlTenantStore


async def test_the_first_start_makes_what_later_starts_keep(service: Any) -> None:
    """Ids never change; secrets do not while they are brought along."""
    tenants = SqlTenantStore(service.store._database)
    first = await bootstrap(tenants, service.store, service.clock)
    again = await bootstrap(
        tenants,
        service.store,
        service.clock,
        known_secret=first.administrator_client_secret,
        known_header=first.identity_header,
    )
    assert again == first
    assert first.administrator_client_secret not in repr(first)
    administrator = await service.store.find_application(first.administrator_client_id)
    assert administrator.roles == {Role.OWNER}
    assert administrator.object_id == first.administrator_object_id
    assert administrator.tenant_id == first.tenant_id
    identity = await service.store.find_application(first.identity_client_id)
    assert identity.kind is PrincipalKind.MANAGED_IDENTITY


async def test_a_lost_secret_is_replaced(service: Any) -> None:
    """The secret that nobody brought stops counting; secrets that people added stay."""
    tenants = SqlTenantStore(service.store._database)
    first = await bootstrap(tenants, service.store, service.clock)
    client = first.administrator_client_id
    added = await service.applications.add_secret(client, by="test", label="mine")
    second = await bootstrap(tenants, service.store, service.clock, known_secret="wrong")
    administrator = await service.store.find_application(client)
    now = service.clock.now()
    assert second.administrator_client_id == client
    assert not holds_secret(administrator, first.administrator_client_secret, now=now)
    assert holds_secret(administrator, second.administrator_client_secret, now=now)
    assert holds_secret(administrator, added, now=now)


async def test_a_namesake_is_not_the_administrator(service: Any) -> None:
    """Who the administrator is is recorded, and not looked up by name."""
    tenants = SqlTenantStore(service.store._database)
    fake = await service.applications.create("Muster administrator", by="test")
    made = await bootstrap(tenants, service.store, service.clock)
    assert made.administrator_client_id != fake.client_id
    assert (await service.applications.get(fake.client_id)).secrets == ()
