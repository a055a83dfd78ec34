"""The tenant and its applications: one row for each application, credentials included.

An application's few secrets and certificates are read and replaced with it, as one version.
"""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Integer,
    Row,
    String,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from muster.ids import ETag
from muster.model.audit import AuditEntry
from muster.model.principal import (
    Application,
    ClientCertificate,
    ClientSecret,
    Principal,
    PrincipalKind,
    Role,
    Tenant,
)
from muster.store.audit import insert_audit
from muster.store.cached import ForgetfulWriter
from muster.store.database import Database
from muster.store.schema import JsonDocument, UtcDateTime, metadata

# Callers that are remembered between their calls. Beyond this many the memory is emptied, which
# costs each of them one look-up: simpler than choosing whom to forget.
_REMEMBERED = 10_000

tenants = Table(
    "tenants",
    metadata,
    # Always 1: a second tenant is refused by the database itself.
    Column("place", Integer, primary_key=True),
    Column("id", String, nullable=False),
    Column("administrator_client_id", String, nullable=False),
    Column("identity_client_id", String, nullable=False),
)

applications = Table(
    "applications",
    metadata,
    Column("client_id", String, primary_key=True),
    Column("object_id", String, nullable=False, unique=True),
    Column("tenant_id", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("name", String, nullable=False),
    Column("etag", String, nullable=False),
    Column("created", UtcDateTime, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("roles", JsonDocument, nullable=False),
    Column("secrets", JsonDocument, nullable=False),
    Column("certificates", JsonDocument, nullable=False),
)

_BY_CLIENT = select(applications).where(applications.c.client_id == bindparam("client"))
_BY_OBJECT = select(applications).where(applications.c.object_id == bindparam("object"))


class SqlTenantStore:
    """`ports.identity.TenantStore` in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ensure_tenant(self, tenant: Tenant, audit: AuditEntry) -> Tenant:
        """Make *tenant* the tenant unless there is one already; return the one there is."""

        def change(connection: Connection) -> Tenant:
            row = connection.execute(select(tenants)).one_or_none()
            if row is not None:
                return Tenant(row.id, row.administrator_client_id, row.identity_client_id)
            connection.execute(
                insert(tenants).values(
                    place=1,
                    id=tenant.id,
                    administrator_client_id=tenant.administrator_client_id,
                    identity_client_id=tenant.identity_client_id,
                )
            )
            insert_audit(connection, audit)
            return tenant

        return await self._database.write(change)


class SqlApplicationStore:
    """`ports.identity.ApplicationStore` and `PrincipalReader` in a database.

    Callers are remembered: a look-up of one that called before touches no database. Only this
    object's own writes are noticed, so a process has one of these, and calls `forget`
    when another process says that it changed something.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._principals: dict[tuple[str, str], Principal] = {}
        self._writer = ForgetfulWriter(database, self.forget)

    def forget(self) -> None:
        """Read every caller anew from now on."""
        self._principals = {}

    async def find_principal(self, tenant_id: str, object_id: str) -> Principal | None:
        """Return that caller with the roles it has now; None when unknown or disabled."""
        key = (tenant_id, object_id)
        known = self._principals.get(key)
        if known is not None:
            return known

        def query(connection: Connection) -> Application | None:
            row = connection.execute(_BY_OBJECT, {"object": object_id}).one_or_none()
            return None if row is None else _application(row)

        # Taken before the read: a write that ends meanwhile replaces the memory, and what
        # was read before it then goes into the old one, which nobody reads.
        memory = self._principals
        application = await self._database.read(query)
        if application is None or not application.enabled or application.tenant_id != tenant_id:
            return None
        if len(memory) >= _REMEMBERED:
            memory.clear()
        memory[key] = application.principal
        return application.principal

    async def find_application(self, client_id: str) -> Application | None:
        """Return the application of that client id, compared without case, disabled or not."""

        def query(connection: Connection) -> Application | None:
            row = connection.execute(_BY_CLIENT, {"client": client_id.lower()}).one_or_none()
            return None if row is None else _application(row)

        return await self._database.read(query)

    async def list_applications(self, *, after: str, limit: int) -> list[Application]:
        """Return up to *limit* applications whose client id sorts after *after*, by client id."""
        statement = (
            select(applications)
            .where(applications.c.client_id > after.lower())
            .order_by(applications.c.client_id)
            .limit(limit)
        )

        def query(connection: Connection) -> list[Application]:
            return [_application(row) for row in connection.execute(statement)]

        return await self._database.scan(query)

    async def count_applications(self) -> int:
        """Return how many there are."""
        statement = select(func.count()).select_from(applications)

        def query(connection: Connection) -> int:
            return connection.execute(statement).scalar_one()

        return await self._database.scan(query)

    async def insert_application(self, application: Application, audit: AuditEntry) -> bool:
        """Store a new one; False, and nothing changed, when its client or object id is taken."""

        def change(connection: Connection) -> None:
            connection.execute(insert(applications).values(_values(application)))
            insert_audit(connection, audit)

        try:
            await self._writer.write(change)
        except IntegrityError:
            return False
        return True

    async def replace_application(
        self, application: Application, expected: ETag, audit: AuditEntry
    ) -> bool:
        """Store *application* over version *expected*; False when that is not the stored one."""
        statement = (
            update(applications)
            .where(
                applications.c.client_id == application.client_id.lower(),
                applications.c.etag == str(expected),
            )
            .values(_values(application))
        )

        def change(connection: Connection) -> bool:
            if connection.execute(statement).rowcount != 1:
                return False
            insert_audit(connection, audit)
            return True

        return await self._writer.write(change)

    async def delete_application(self, client_id: str, audit: AuditEntry) -> bool:
        """Forget it, its secrets and its certificates; False when there was none."""
        statement = delete(applications).where(applications.c.client_id == client_id.lower())

        def change(connection: Connection) -> bool:
            if connection.execute(statement).rowcount != 1:
                return False
            insert_audit(connection, audit)
            return True

        return await self._writer.write(change)


def _values(application: Application) -> dict[str, Any]:
    return {
        "client_id": application.client_id.lower(),
        "object_id": application.object_id,
        "tenant_id": application.tenant_id,
        "kind": application.kind.value,
        "name": application.name,
        "etag": str(application.etag),
        "created": application.created,
        "enabled": application.enabled,
        "roles": sorted(role.value for role in application.roles),
        "secrets": [
            {
                "id": entry.id,
                "label": entry.label,
                "digest": entry.digest.hex(),
                "created": entry.created.isoformat(),
                "expires": None if entry.expires is None else entry.expires.isoformat(),
            }
            for entry in application.secrets
        ],
        "certificates": [
            {
                "der": base64.b64encode(entry.der).decode(),
                "created": entry.created.isoformat(),
            }
            for entry in application.certificates
        ],
    }


def _application(row: Row[Any]) -> Application:
    return Application(
        tenant_id=row.tenant_id,
        object_id=row.object_id,
        client_id=row.client_id,
        kind=PrincipalKind(row.kind),
        name=row.name,
        etag=ETag(row.etag),
        created=row.created,
        enabled=row.enabled,
        roles=frozenset(Role(name) for name in row.roles),
        secrets=tuple(_secret(entry) for entry in row.secrets),
        certificates=tuple(
            ClientCertificate(
                der=base64.b64decode(entry["der"]),
                created=datetime.fromisoformat(entry["created"]),
            )
            for entry in row.certificates
        ),
    )


def _secret(entry: dict[str, Any]) -> ClientSecret:
    expires = entry["expires"]
    return ClientSecret(
        id=entry["id"],
        label=entry["label"],
        digest=bytes.fromhex(entry["digest"]),
        created=datetime.fromisoformat(entry["created"]),
        expires=None if expires is None else datetime.fromisoformat(expires),
    )
