"""Device identities: one row for each device of each hub.

Keyed by (hub, device id), and the rows lie in that order, so a look-up costs one descent of
the tree however many devices there are, and a listing reads neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Index,
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

from muster.ids import DeviceId, ETag, Thumbprint
from muster.model.audit import AuditEntry
from muster.model.device import AuthenticationType, Device, DeviceAuthentication, DeviceStatus
from muster.model.notice import Notice
from muster.store.audit import insert_audit
from muster.store.database import Database
from muster.store.outbox import insert_notice
from muster.store.prepared import Prepared
from muster.store.schema import JsonDocument, UtcDateTime, metadata

devices = Table(
    "devices",
    metadata,
    Column("hub_id", String, primary_key=True),
    Column("device_id", String, primary_key=True),
    Column("generation_id", String, nullable=False),
    Column("etag", String, nullable=False),
    Column("status", String, nullable=False),
    Column("status_reason", String),
    Column("status_updated", UtcDateTime, nullable=False),
    Column("authentication_type", String, nullable=False),
    Column("primary_key", String),
    Column("secondary_key", String),
    Column("primary_thumbprint", String),
    Column("secondary_thumbprint", String),
    Column("created", UtcDateTime, nullable=False),
    Column("iot_edge", Boolean, nullable=False),
    Column("tags", JsonDocument, nullable=False),
    Column("desired", JsonDocument, nullable=False),
    # Counting reads this index alone: a twentieth of the table.
    Index("ix_devices_hub_id_status", "hub_id", "status"),
    sqlite_with_rowid=False,
)

_BY_KEY = Prepared(
    select(devices).where(
        devices.c.hub_id == bindparam("hub"), devices.c.device_id == bindparam("device")
    )
)
_INSERT = Prepared(insert(devices))
_REPLACE = Prepared(
    update(devices)
    .where(
        devices.c.hub_id == bindparam("at_hub"),
        devices.c.device_id == bindparam("at_device"),
        devices.c.etag == bindparam("at_etag"),
    )
    .values({column.name: bindparam(column.name) for column in devices.columns})
)
_AFTER = (
    select(devices)
    .where(devices.c.hub_id == bindparam("hub"), devices.c.device_id > bindparam("after"))
    .order_by(devices.c.device_id)
    .limit(bindparam("most"))
)
_VERSIONS = select(devices.c.device_id, devices.c.etag).where(
    devices.c.hub_id == bindparam("hub"),
    devices.c.device_id.in_(bindparam("ids", expanding=True)),
)
_COUNT = (
    select(devices.c.status, func.count())
    .where(devices.c.hub_id == bindparam("hub"))
    .group_by(devices.c.status)
)


class SqlDeviceStore:
    """`ports.devices.DeviceStore` in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_device(self, hub_id: str, device_id: DeviceId) -> Device | None:
        """Return that device of that hub, or None."""
        values = {"hub": hub_id, "device": str(device_id)}

        def query(connection: Connection) -> Device | None:
            row = _BY_KEY.row(connection, values)
            return None if row is None else _device(row)

        return await self._database.read(query)

    async def list_devices(self, hub_id: str, *, after: str, limit: int) -> list[Device]:
        """Return up to *limit* devices whose id sorts after *after*, by id."""
        values = {"hub": hub_id, "after": after, "most": limit}

        def query(connection: Connection) -> list[Device]:
            return [_device(row) for row in connection.execute(_AFTER, values)]

        return await self._database.scan(query)

    async def device_versions(
        self, hub_id: str, device_ids: Sequence[DeviceId]
    ) -> dict[DeviceId, ETag]:
        """Return the stored version of each of these devices that exists."""
        values = {"hub": hub_id, "ids": [str(device_id) for device_id in device_ids]}

        def query(connection: Connection) -> dict[DeviceId, ETag]:
            found = connection.execute(_VERSIONS, values)
            return {DeviceId(device_id): ETag(etag) for device_id, etag in found}

        return await self._database.scan(query)

    async def count_devices(self, hub_id: str) -> tuple[int, int]:
        """Return how many devices there are, and how many of them are enabled."""

        def query(connection: Connection) -> tuple[int, int]:
            total = enabled = 0
            for status, number in connection.execute(_COUNT, {"hub": hub_id}):
                total += number
                enabled += number if status == DeviceStatus.ENABLED.value else 0
            return total, enabled

        return await self._database.scan(query)

    async def insert_device(self, device: Device, audit: AuditEntry) -> bool:
        """Store a new device; False, and nothing changed, when the id is taken."""
        values = _row(device)

        def change(connection: Connection) -> None:
            _INSERT.run(connection, values)
            # No notice: nobody has a session, or anything else, of a device that was not there.
            insert_audit(connection, audit)

        try:
            await self._database.write(change)
        except IntegrityError:
            return False
        return True

    async def replace_device(self, device: Device, expected: ETag, audit: AuditEntry) -> bool:
        """Store *device* over the version *expected*; False when that is not the stored one."""
        values = _row(device) | {
            "at_hub": device.hub_id,
            "at_device": str(device.device_id),
            "at_etag": str(expected),
        }

        def change(connection: Connection) -> bool:
            if _REPLACE.run(connection, values) == 0:
                return False
            _record(connection, "device.changed", device.hub_id, device.device_id, audit)
            return True

        return await self._database.write(change)

    async def delete_device(
        self, hub_id: str, device_id: DeviceId, expected: ETag | None, audit: AuditEntry
    ) -> bool:
        """Delete it, if it still has version *expected* (None: any); False when it was not so."""
        statement = delete(devices).where(
            devices.c.hub_id == hub_id, devices.c.device_id == str(device_id)
        )
        if expected is not None:
            statement = statement.where(devices.c.etag == str(expected))

        def change(connection: Connection) -> bool:
            if connection.execute(statement).rowcount == 0:
                return False
            _record(connection, "device.deleted", hub_id, device_id, audit)
            return True

        return await self._database.write(change)

    async def forget_hub(self, hub_id: str, *, limit: int) -> int:
        """Delete up to *limit* devices of a hub that is gone; return how many there were."""
        first = select(devices.c.device_id).where(devices.c.hub_id == hub_id).limit(limit)

        def change(connection: Connection) -> int:
            return connection.execute(
                delete(devices).where(devices.c.hub_id == hub_id, devices.c.device_id.in_(first))
            ).rowcount

        return await self._database.write(change)


def _record(
    connection: Connection, topic: str, hub_id: str, device_id: DeviceId, audit: AuditEntry
) -> None:
    insert_audit(connection, audit)
    insert_notice(connection, Notice(topic, f"{hub_id}/{device_id}"))


def _row(device: Device) -> dict[str, Any]:
    proof = device.authentication
    return {
        "hub_id": device.hub_id,
        "device_id": str(device.device_id),
        "generation_id": device.generation_id,
        "etag": str(device.etag),
        "status": device.status.value,
        "status_reason": device.status_reason,
        "status_updated": device.status_updated,
        "authentication_type": proof.type.value,
        "primary_key": proof.primary_key,
        "secondary_key": proof.secondary_key,
        "primary_thumbprint": proof.primary_thumbprint and str(proof.primary_thumbprint),
        "secondary_thumbprint": proof.secondary_thumbprint and str(proof.secondary_thumbprint),
        "created": device.created,
        "iot_edge": device.iot_edge,
        "tags": device.tags,
        "desired": device.desired,
    }


def _device(row: Any) -> Device:
    return Device(
        hub_id=row.hub_id,
        device_id=DeviceId(row.device_id),
        generation_id=row.generation_id,
        etag=ETag(row.etag),
        status=DeviceStatus(row.status),
        status_reason=row.status_reason,
        status_updated=row.status_updated,
        authentication=DeviceAuthentication(
            type=AuthenticationType(row.authentication_type),
            primary_key=row.primary_key,
            secondary_key=row.secondary_key,
            primary_thumbprint=_thumbprint(row.primary_thumbprint),
            secondary_thumbprint=_thumbprint(row.secondary_thumbprint),
        ),
        created=row.created,
        iot_edge=row.iot_edge,
        tags=row.tags,
        desired=row.desired,
    )


def _thumbprint(text: str | None) -> Thumbprint | None:
    return None if text is None else Thumbprint(text)
