"""Registered names: keyed by (CA, folded name), where every request for a certificate looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Row,
    String,
    Table,
    UniqueConstraint,
    bindparam,
    insert,
    select,
)

from muster.model.audit import AuditEntry
from muster.model.domain import Domain, Party
from muster.store.audit import insert_audit
from muster.store.database import Database
from muster.store.prepared import Prepared
from muster.store.schema import JsonDocument, UtcDateTime, metadata

domains = Table(
    "domains",
    metadata,
    Column("authority_id", String, primary_key=True),
    Column("folded", String, primary_key=True),
    Column("id", String, nullable=False),
    Column("tenant_id", String, nullable=False),
    Column("template_id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("owners", JsonDocument, nullable=False),
    Column("requesters", JsonDocument, nullable=False),
    Column("request_only", JsonDocument, nullable=False),
    Column("notification_emails", JsonDocument, nullable=False),
    Column("registered_by", String, nullable=False),
    Column("created", UtcDateTime, nullable=False),
    UniqueConstraint("id"),
)

_INSERT = Prepared(
    insert(domains),
    *("authority_id", "folded", "id", "tenant_id", "template_id", "name", "owners", "requesters"),
    *("request_only", "notification_emails", "registered_by", "created"),
)
_NAMED = select(domains).where(
    domains.c.authority_id == bindparam("authority"),
    domains.c.folded.in_(bindparam("names", expanding=True)),
)
_ONE = Prepared(
    select(domains).where(
        domains.c.authority_id == bindparam("authority"), domains.c.folded == bindparam("name")
    )
)


class SqlDomainStore:
    """`ports.authorities.DomainStore` in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_domains(self, authority_id: str, folded: Sequence[str]) -> list[Domain]:
        """Return those of the names (in their folded spelling) that are registered there."""

        def query(connection: Connection) -> list[Domain]:
            if len(folded) == 1:  # the usual case, without an expanding parameter
                values = {"authority": authority_id, "name": folded[0]}
                return [_domain(row) for row in _ONE.rows(connection, values)]
            found = connection.execute(_NAMED, {"authority": authority_id, "names": list(folded)})
            return [_domain(row) for row in found]

        return await self._database.read(query)

    async def insert_domain(self, domain: Domain, audit: AuditEntry) -> Domain | None:
        """Store a new name; where it is taken, change nothing and return who has it."""
        row = _row(domain)
        key = {"authority": domain.authority_id, "name": domain.folded}

        def change(connection: Connection) -> Domain | None:
            taken = _ONE.row(connection, key)
            if taken is not None:
                return _domain(taken)
            _INSERT.run(connection, row)
            insert_audit(connection, audit)
            return None

        return await self._database.write(change)


def _row(domain: Domain) -> dict[str, Any]:
    return {
        "authority_id": domain.authority_id,
        "folded": domain.folded,
        "id": domain.id,
        "tenant_id": domain.tenant_id,
        "template_id": domain.template_id,
        "name": domain.name,
        "owners": [_plain(party) for party in domain.owners],
        "requesters": [_plain(party) for party in domain.requesters],
        "request_only": [_plain(party) for party in domain.request_only],
        "notification_emails": list(domain.notification_emails),
        "registered_by": domain.registered_by,
        "created": domain.created,
    }


def _plain(party: Party) -> dict[str, str | None]:
    return {"object_id": party.object_id, "name": party.name, "type": party.type}


def _domain(row: Row[Any]) -> Domain:
    return Domain(
        id=row.id,
        tenant_id=row.tenant_id,
        authority_id=row.authority_id,
        template_id=row.template_id,
        name=row.name,
        owners=tuple(Party(**one) for one in row.owners),
        requesters=tuple(Party(**one) for one in row.requesters),
        request_only=tuple(Party(**one) for one in row.request_only),
        notification_emails=tuple(row.notification_emails),
        registered_by=row.registered_by,
        created=row.created,
    )
