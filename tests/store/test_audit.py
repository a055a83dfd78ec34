"""An audit line lives and dies with its change."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from muster.model.audit import AuditEntry
from muster.store.audit import audit, insert_audit
from muster.store.database import Database
from muster.store.schema import metadata

ENTRY = AuditEntry(
    at=datetime(2026, 11, 23, 12, 0, 0, 123456, UTC),
    actor="policy:iothubowner",
    action="device.create",
    subject="hub/device",
    detail={"etag": "abc"},
)


async def test_audit_round_trip(tmp_path: Path) -> None:
    """Every field comes back as it was given; a failed change leaves no line."""
    database = Database(tmp_path / "muster.db")
    metadata.create_all(database.engine)

    def change(connection: Connection) -> None:
        insert_audit(connection, ENTRY)
        raise KeyError

    with pytest.raises(KeyError):
        await database.write(change)
    await database.write(lambda c: insert_audit(c, ENTRY))
    rows = await database.read(lambda c: c.execute(select(audit)).all())
    assert [AuditEntry(*row[1:]) for row in rows] == [ENTRY]
    await database.close()
