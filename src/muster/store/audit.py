"""The audit trail: one row for each change, in the transaction of the change."""

from __future__ import annotations

from sqlalchemy import Column, Connection, Integer, String, Table, insert

from muster.model.audit import AuditEntry
from muster.store.prepared import Prepared
from muster.store.schema import JsonDocument, UtcDateTime, metadata

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", UtcDateTime, nullable=False, index=True),
    Column("actor", String, nullable=False),
    Column("action", String, nullable=False),
    Column("subject", String, nullable=False, index=True),
    Column("outcome", String, nullable=False),
    Column("detail", JsonDocument, nullable=False),
    # An id is never used again: a gap or a repetition shows that rows were taken away.
    sqlite_autoincrement=True,
)


_INSERT = Prepared(insert(audit), "at", "actor", "action", "subject", "outcome", "detail")


def insert_audit(connection: Connection, entry: AuditEntry) -> None:
    """Add *entry* to the trail, inside the caller's transaction."""
    _INSERT.run(
        connection,
        {
            "at": entry.at,
            "actor": entry.actor,
            "action": entry.action,
            "subject": entry.subject,
            "outcome": entry.outcome,
            "detail": entry.detail,
        },
    )
