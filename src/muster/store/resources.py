"""Subscriptions, hubs and provisioning services: few rows, each read and replaced as a whole.

Rules:

1. Everything a connection needs to be judged is kept in memory, as one snapshot that is made
   anew after each change: a look-up on the way of a CONNECT costs a dictionary's `get`.
2. A snapshot is never changed, so whoever holds one sees one state.
3. What must be unique is unique in the database: two creations of one name cannot both succeed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, Table, delete, insert, select, update

from muster.errors import Kind, Problem
from muster.ids import ETag
from muster.model.audit import AuditEntry
from muster.model.notice import Notice
from muster.model.resource import Hub, ProvisioningService, ResourceGroup, Subscription
from muster.ports.resources import Stored
from muster.store.audit import insert_audit
from muster.store.cached import ForgetfulWriter
from muster.store.database import Database
from muster.store.outbox import insert_notice
from muster.store.resource_tables import (
    hub_record,
    hub_values,
    hubs,
    provisioning_services,
    resource_groups,
    service_record,
    service_values,
    subscriptions,
)


class _Snapshot:
    """Every hub and provisioning service at one moment, by each name one is looked up by."""

    __slots__ = (
        "hubs",
        "hubs_by_host",
        "hubs_by_name",
        "services",
        "services_by_host",
        "services_by_name",
        "services_by_scope",
    )

    def __init__(
        self,
        all_hubs: Sequence[Hub],
        services: Sequence[ProvisioningService],
        own_names: Collection[str],
    ) -> None:
        self.hubs = tuple(all_hubs)
        self.hubs_by_name = {hub.address.name.lower(): hub for hub in all_hubs}
        self.hubs_by_host = {hub.hostname: hub for hub in all_hubs}
        if len(all_hubs) == 1:
            # contract.md: the only hub there is also answers to the server's own names.
            for name in own_names:
                self.hubs_by_host.setdefault(name, all_hubs[0])
        self.services = tuple(services)
        self.services_by_name = {one.address.name.lower(): one for one in services}
        self.services_by_scope = {one.id_scope.lower(): one for one in services}
        self.services_by_host: dict[str, tuple[ProvisioningService, ...]] = {}
        for one in services:
            before = self.services_by_host.get(one.hostname, ())
            self.services_by_host[one.hostname] = (*before, one)
        if len(services) == 1:
            for name in own_names:
                self.services_by_host.setdefault(name, (services[0],))


class SqlResourceStore:
    """`ports.resources` and the directories of `ports.hubs`, in a database.

    *own_names* are the host names and addresses of this server. Only this object's own writes
    are noticed: a process has one of these, and calls `forget` when another process tells
    (`hub.changed` and its like) that it changed something.
    """

    def __init__(self, database: Database, *, own_names: Collection[str] = ()) -> None:
        self._database = database
        self._own_names = frozenset(normal_host(name) for name in own_names)
        self._known: _Snapshot | None = None
        self._generation = 0
        self._writer = ForgetfulWriter(database, self.forget)

    def forget(self) -> None:
        """Read everything anew at the next look-up."""
        self._known = None
        self._generation += 1

    # Directories: the hot path.

    async def find_hub(self, hostname: str) -> Hub | None:
        """Return the hub that answers to *hostname*, compared without case and without port.

        One's own host name goes first; the only hub there is also answers to the server's own
        names.
        """
        known = self._known or await self._load()
        hub = known.hubs_by_host.get(hostname)
        return hub if hub is not None else known.hubs_by_host.get(normal_host(hostname))

    async def list_hubs(self) -> list[Hub]:
        """Return every hub, oldest first."""
        return list((self._known or await self._load()).hubs)

    async def find_service(self, id_scope: str) -> ProvisioningService | None:
        """Return the provisioning service of *id_scope*, compared without case."""
        known = self._known or await self._load()
        return known.services_by_scope.get(id_scope.lower())

    async def find_services_by_host(self, hostname: str) -> list[ProvisioningService]:
        """Return the services that answer to *hostname*, as `find_hub` does; several may."""
        known = self._known or await self._load()
        return list(known.services_by_host.get(normal_host(hostname), ()))

    async def list_services(self) -> list[ProvisioningService]:
        """Return every provisioning service, oldest first."""
        return list((self._known or await self._load()).services)

    # Hubs.

    async def find_hub_by_name(self, name: str) -> Hub | None:
        """Return the hub of that name, compared without case."""
        return (self._known or await self._load()).hubs_by_name.get(name.lower())

    async def insert_hub(self, hub: Hub, audit: AuditEntry) -> Stored:
        """Store a new hub; nothing changed when its name or its host name is taken."""

        def change(connection: Connection) -> Stored:
            if _exists(connection, hubs, "folded_name", hub.address.name.lower()):
                return Stored.NAME_TAKEN
            if _exists(connection, hubs, "hostname", hub.hostname):
                return Stored.HOSTNAME_TAKEN
            connection.execute(insert(hubs).values(hub_values(hub)))
            _record(connection, "hub.changed", hub.id, audit)
            return Stored.STORED

        return await self._writer.write(change)

    async def replace_hub(self, hub: Hub, expected: ETag, audit: AuditEntry) -> bool:
        """Store *hub* over the version *expected*; False when that is not the stored one.

        Raises `Problem(CONFLICT)` when another hub has its host name.
        """
        condition = (hubs.c.id == hub.id) & (hubs.c.etag == str(expected))
        other = select(hubs.c.id).where(hubs.c.hostname == hub.hostname, hubs.c.id != hub.id)

        def change(connection: Connection) -> bool:
            if connection.execute(other).first() is not None:
                raise Problem(Kind.CONFLICT, f"the host name {hub.hostname} is another hub's")
            statement = update(hubs).where(condition).values(hub_values(hub))
            if connection.execute(statement).rowcount != 1:
                return False
            _record(connection, "hub.changed", hub.id, audit)
            return True

        return await self._writer.write(change)

    async def delete_hub(self, hub_id: str, expected: ETag, audit: AuditEntry) -> bool:
        """Delete it if it still has version *expected*; False when it was not so."""
        return await self._delete(hubs, "hub.deleted", hub_id, expected, audit)

    # Provisioning services.

    async def find_service_by_name(self, name: str) -> ProvisioningService | None:
        """Return the provisioning service of that name, compared without case."""
        return (self._known or await self._load()).services_by_name.get(name.lower())

    async def insert_service(self, service: ProvisioningService, audit: AuditEntry) -> Stored:
        """Store a new service; nothing changed when its name or its id scope is taken."""
        table = provisioning_services

        def change(connection: Connection) -> Stored:
            if _exists(connection, table, "folded_name", service.address.name.lower()):
                return Stored.NAME_TAKEN
            if _exists(connection, table, "id_scope", service.id_scope):
                return Stored.SCOPE_TAKEN
            connection.execute(insert(table).values(service_values(service)))
            _record(connection, "service.changed", service.id, audit)
            return Stored.STORED

        return await self._writer.write(change)

    async def replace_service(
        self, service: ProvisioningService, expected: ETag, audit: AuditEntry
    ) -> bool:
        """Store *service* over the version *expected*; False when that is not the stored one."""
        table = provisioning_services
        statement = (
            update(table)
            .where(table.c.id == service.id, table.c.etag == str(expected))
            .values(service_values(service))
        )

        def change(connection: Connection) -> bool:
            if connection.execute(statement).rowcount != 1:
                return False
            _record(connection, "service.changed", service.id, audit)
            return True

        return await self._writer.write(change)

    async def delete_service(self, service_id: str, expected: ETag, audit: AuditEntry) -> bool:
        """Delete it if it still has version *expected*; False when it was not so."""
        return await self._delete(
            provisioning_services, "service.deleted", service_id, expected, audit
        )

    # Subscriptions.

    async def ensure_subscription(
        self, subscription: Subscription, group: ResourceGroup, audit: AuditEntry
    ) -> tuple[Subscription, ResourceGroup]:
        """Store both unless a subscription exists; return the first there is and its group."""

        def change(connection: Connection) -> tuple[Subscription, ResourceGroup]:
            known = _subscriptions(connection)
            if known:
                return known[0], _groups(connection, known[0].id)[0]
            connection.execute(
                insert(subscriptions).values(
                    id=subscription.id, tenant_id=subscription.tenant_id, name=subscription.name
                )
            )
            connection.execute(
                insert(resource_groups).values(
                    subscription_id=group.subscription_id,
                    folded_name=group.name.lower(),
                    name=group.name,
                    location=group.location,
                )
            )
            insert_audit(connection, audit)
            return subscription, group

        return await self._database.write(change)

    async def list_subscriptions(self) -> list[Subscription]:
        """Return every subscription."""
        return await self._database.read(_subscriptions)

    async def list_groups(self, subscription_id: str) -> list[ResourceGroup]:
        """Return the resource groups of that subscription, by name."""
        return await self._database.read(lambda connection: _groups(connection, subscription_id))

    async def _delete(
        self, table: Table, topic: str, row_id: str, expected: ETag, audit: AuditEntry
    ) -> bool:
        statement = delete(table).where(table.c.id == row_id, table.c.etag == str(expected))

        def change(connection: Connection) -> bool:
            if connection.execute(statement).rowcount != 1:
                return False
            _record(connection, topic, row_id, audit)
            return True

        return await self._writer.write(change)

    async def _load(self) -> _Snapshot:
        def query(connection: Connection) -> _Snapshot:
            oldest = select(hubs).order_by(hubs.c.created, hubs.c.id)
            table = provisioning_services
            eldest = select(table).order_by(table.c.created, table.c.id)
            return _Snapshot(
                [hub_record(row) for row in connection.execute(oldest)],
                [service_record(row) for row in connection.execute(eldest)],
                self._own_names,
            )

        # Taken before the read: what was read before a change that ended meanwhile is not kept.
        generation = self._generation
        known = await self._database.read(query)
        if generation == self._generation:
            self._known = known
        return known


def normal_host(hostname: str) -> str:
    """Return *hostname* in lower case and without a port or an address's brackets."""
    folded = hostname.strip().lower()
    if folded.startswith("["):
        return folded[1:].partition("]")[0]
    # Two colons and more are an address of IPv6, which has no port without brackets.
    return folded.partition(":")[0] if folded.count(":") == 1 else folded


def _exists(connection: Connection, table: Table, column: str, value: str) -> bool:
    statement = select(table.c.id).where(table.c[column] == value)
    return connection.execute(statement).first() is not None


def _record(connection: Connection, topic: str, subject: str, audit: AuditEntry) -> None:
    insert_audit(connection, audit)
    insert_notice(connection, Notice(topic, subject))


def _subscriptions(connection: Connection) -> list[Subscription]:
    rows = connection.execute(select(subscriptions).order_by(subscriptions.c.id))
    return [Subscription(row.id, row.tenant_id, row.name) for row in rows]


def _groups(connection: Connection, subscription_id: str) -> list[ResourceGroup]:
    statement = (
        select(resource_groups)
        .where(resource_groups.c.subscription_id == subscription_id.lower())
        .order_by(resource_groups.c.folded_name)
    )
    rows = connection.execute(statement)
    return [ResourceGroup(row.subscription_id, row.name, row.location) for row in rows]
