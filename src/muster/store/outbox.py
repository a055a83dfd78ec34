"""The outbox: notices that are sent because their change was committed, and only then."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    String,
    Table,
    bindparam,
    delete,
    insert,
    select,
)

from muster.model.notice import Notice
from muster.ports.outbox import PendingNotice
from muster.store.database import Database, announce
from muster.store.prepared import Prepared
from muster.store.schema import JsonDocument, metadata

outbox = Table(
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("topic", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("data", JsonDocument, nullable=False),
    # An id is never used again, or forgetting a notice twice could take a later one with it.
    sqlite_autoincrement=True,
)

_INSERT = Prepared(insert(outbox), "topic", "subject", "data")
_OLDEST = Prepared(select(outbox).order_by(outbox.c.id).limit(bindparam("most")))
_DELETE = Prepared(delete(outbox).where(outbox.c.id == bindparam("id")))
_ANNOUNCEMENT = "outbox"


def insert_notice(connection: Connection, notice: Notice) -> None:
    """Put *notice* in the outbox, inside the caller's transaction."""
    values = {"topic": notice.topic, "subject": notice.subject, "data": notice.data}
    _INSERT.run(connection, values)
    announce(connection, _ANNOUNCEMENT)


class DatabaseOutbox:
    """The `Outbox` port on a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def on_pending(self, callback: Callable[[], None]) -> None:
        """Call *callback* on the event loop whenever new notices were committed."""
        self._database.on_commit(_ANNOUNCEMENT, callback)

    async def pending(self, limit: int) -> Sequence[PendingNotice]:
        """Return up to *limit* notices, the oldest first."""

        def find(connection: Connection) -> list[PendingNotice]:
            return [
                PendingNotice(row.id, Notice(row.topic, row.subject, row.data))
                for row in _OLDEST.rows(connection, {"most": limit})
            ]

        return await self._database.read(find)

    async def done(self, ids: Sequence[int]) -> None:
        """Forget the notices *ids*: they were delivered. Harmless for those already forgotten."""

        def forget(connection: Connection) -> None:
            for number in ids:
                _DELETE.run(connection, {"id": number})

        await self._database.write(forget)
