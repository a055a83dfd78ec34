"""The outbox: notices that are sent because their change was committed, and only then."""

from __future__ import annotations

from sqlalchemy import Column, Connection, Integer, String, Table, insert

from muster.model.notice import Notice
from muster.store.schema import JsonDocument, metadata

outbox = Table(
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("topic", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("data", JsonDocument, nullable=False),
)


def insert_notice(connection: Connection, notice: Notice) -> None:
    """Put *notice* in the outbox, inside the caller's transaction."""
    connection.execute(
        insert(outbox).values(topic=notice.topic, subject=notice.subject, data=notice.data)
    )
