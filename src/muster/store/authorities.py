"""Certificate authorities: few rows, read for every certificate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    LargeBinary,
    Row,
    String,
    Table,
    UniqueConstraint,
    bindparam,
    func,
    insert,
    select,
)
from sqlalchemy.exc import IntegrityError

from muster.errors import Kind, Problem
from muster.model.audit import AuditEntry
from muster.model.authority import (
    Authority,
    Hashing,
    KeyType,
    RevocationList,
    Template,
    TemplateType,
    Tier,
)
from muster.store.audit import insert_audit
from muster.store.database import Database
from muster.store.prepared import Prepared
from muster.store.revocation_lists import insert_list
from muster.store.schema import JsonDocument, UtcDateTime, metadata

authorities = Table(
    "authorities",
    metadata,
    Column("id", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("folded_name", String, nullable=False),
    Column("name", String, nullable=False),
    Column("tier", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("key_type", String, nullable=False),
    Column("hashing", String, nullable=False),
    Column("certificate", LargeBinary, nullable=False),
    Column("created", UtcDateTime, nullable=False),
    Column("parent_id", String),
    Column("is_enabled", Boolean, nullable=False),
    Column("templates", JsonDocument, nullable=False),
    UniqueConstraint("tenant_id", "folded_name"),
)

# Built once: making a statement costs as much as running it.
_BY_ID = Prepared(select(authorities).where(authorities.c.id == bindparam("key")))
_BY_NAME = Prepared(
    select(authorities).where(
        authorities.c.tenant_id == bindparam("tenant"),
        authorities.c.folded_name == bindparam("folded"),
    )
)
_OF_TENANT = (
    select(authorities)
    .where(authorities.c.tenant_id == bindparam("tenant"))
    .order_by(authorities.c.folded_name)
)
_COUNT = (
    select(func.count())
    .select_from(authorities)
    .where(authorities.c.tenant_id == bindparam("tenant"))
)


class SqlAuthorityStore:
    """`ports.authorities.AuthorityStore` in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_authority(self, authority_id: str) -> Authority | None:
        """Return that CA, whatever its tenant, or None."""
        return await self._one(_BY_ID, {"key": authority_id})

    async def find_authority(self, tenant_id: str, name: str) -> Authority | None:
        """Return the tenant's CA of that name, compared without case, or None."""
        return await self._one(_BY_NAME, {"tenant": tenant_id, "folded": name.casefold()})

    async def list_authorities(self, tenant_id: str) -> list[Authority]:
        """Return the tenant's CAs by name."""

        def query(connection: Connection) -> list[Authority]:
            found = connection.execute(_OF_TENANT, {"tenant": tenant_id})
            return [_authority(row) for row in found]

        return await self._database.read(query)

    async def insert_authorities(
        self,
        authorities: Sequence[Authority],
        lists: Sequence[RevocationList],
        audit: Sequence[AuditEntry],
        *,
        limit: int,
    ) -> bool:
        """Store new CAs, each with its first CRL; False, and nothing changed, if a name is taken.

        Raises `Problem(THROTTLED)` when the tenant would have more than *limit*.
        """

        def change(connection: Connection) -> None:
            for authority in authorities:
                connection.execute(_INSERT, _row(authority))
            for tenant_id in {authority.tenant_id for authority in authorities}:
                if connection.execute(_COUNT, {"tenant": tenant_id}).scalar_one() > limit:
                    raise Problem(Kind.THROTTLED, f"a tenant has at most {limit} CAs")
            for revocation_list in lists:
                insert_list(connection, revocation_list)
            for entry in audit:
                insert_audit(connection, entry)

        try:
            await self._database.write(change)
        except IntegrityError:
            return False
        return True

    async def _one(self, statement: Prepared, values: dict[str, str]) -> Authority | None:
        def query(connection: Connection) -> Authority | None:
            row = statement.row(connection, values)
            return None if row is None else _authority(row)

        return await self._database.read(query)


_INSERT = insert(authorities)


def _row(authority: Authority) -> dict[str, Any]:
    return {
        "id": authority.id,
        "tenant_id": authority.tenant_id,
        "folded_name": authority.name.casefold(),
        "name": authority.name,
        "tier": authority.tier.value,
        "key_id": authority.key_id,
        "key_type": authority.key_type.value,
        "hashing": authority.hashing.value,
        "certificate": authority.certificate,
        "created": authority.created,
        "parent_id": authority.parent_id,
        "is_enabled": authority.is_enabled,
        "templates": [
            {"id": one.id, "type": one.type.value, "max_days": one.max_days}
            for one in authority.templates
        ],
    }


def _authority(row: Row[Any]) -> Authority:
    return Authority(
        id=row.id,
        tenant_id=row.tenant_id,
        name=row.name,
        tier=Tier(row.tier),
        key_id=row.key_id,
        key_type=KeyType(row.key_type),
        hashing=Hashing(row.hashing),
        certificate=row.certificate,
        created=row.created,
        parent_id=row.parent_id,
        is_enabled=row.is_enabled,
        templates=tuple(
            Template(one["id"], TemplateType(one["type"]), one["max_days"]) for one in row.templates
        ),
    )
