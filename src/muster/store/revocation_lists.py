"""Each CA's last CRL. What belongs into the next one is read from the certificates."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    LargeBinary,
    Row,
    String,
    Table,
    bindparam,
    insert,
    select,
    update,
)

from muster.model.audit import AuditEntry
from muster.model.authority import RevocationList
from muster.model.certificate import RevokedSerial
from muster.store.audit import insert_audit
from muster.store.certificates import revoked_serials
from muster.store.database import Database
from muster.store.schema import UtcDateTime, metadata

revocation_lists = Table(
    "revocation_lists",
    metadata,
    Column("authority_id", String, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("der", LargeBinary, nullable=False),
    Column("this_update", UtcDateTime, nullable=False),
    Column("next_update", UtcDateTime, nullable=False, index=True),
)

_LAST = select(revocation_lists).where(revocation_lists.c.authority_id == bindparam("authority"))
_DUE = (
    select(revocation_lists)
    .where(revocation_lists.c.next_update < bindparam("before", type_=UtcDateTime))
    .order_by(revocation_lists.c.next_update)
    .limit(bindparam("most"))
)


class SqlRevocationListStore:
    """`ports.authorities.RevocationListStore` in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_list(self, authority_id: str) -> RevocationList | None:
        """Return the CA's last CRL."""

        def query(connection: Connection) -> RevocationList | None:
            row = connection.execute(_LAST, {"authority": authority_id}).one_or_none()
            return None if row is None else _list(row)

        return await self._database.read(query)

    async def list_due(self, before: datetime, *, limit: int) -> list[RevocationList]:
        """Return up to *limit* CRLs whose next update is before that moment, most urgent first."""

        def query(connection: Connection) -> list[RevocationList]:
            found = connection.execute(_DUE, {"before": before, "most": limit})
            return [_list(row) for row in found]

        return await self._database.scan(query)

    async def list_revoked(self, authority_id: str, now: datetime) -> list[RevokedSerial]:
        """Return the CA's revoked certificates that have not expired at *now*, by serial."""
        return await self._database.scan(
            lambda connection: revoked_serials(connection, authority_id, now)
        )

    async def replace_list(self, new: RevocationList, expected: int, audit: AuditEntry) -> bool:
        """Publish *new* over number *expected*; False when another number is the last one."""

        def change(connection: Connection) -> bool:
            replaced = connection.execute(
                update(revocation_lists)
                .where(
                    revocation_lists.c.authority_id == new.authority_id,
                    revocation_lists.c.number == expected,
                )
                .values(**_row(new))
            )
            if replaced.rowcount == 0:
                return False
            insert_audit(connection, audit)
            return True

        return await self._database.write(change)


def insert_list(connection: Connection, first: RevocationList) -> None:
    """Store the first CRL of a CA, inside the caller's transaction."""
    connection.execute(insert(revocation_lists).values(**_row(first)))


def _row(one: RevocationList) -> dict[str, Any]:
    return {
        "authority_id": one.authority_id,
        "number": one.number,
        "der": one.der,
        "this_update": one.this_update,
        "next_update": one.next_update,
    }


def _list(row: Row[Any]) -> RevocationList:
    return RevocationList(row.authority_id, row.number, row.der, row.this_update, row.next_update)
